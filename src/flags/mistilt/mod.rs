//! Suspect mistilt. A tilt of the specimen shifts the A and B columns apart by one vector, the same in every domain
//! (Nelson et al., Fig. 9), so that domains that should mirror each other do not. P is fitted as
//! `offset + magnitude · variant`, with the variants that the material's symmetry allows: the offset should be zero.
//!
//! - [`cluster`]: which variant each P belongs to, over the whole frame; - [`blend`]: what of each variant is seen beside a wall;
//! - [`groups`]: what one measurement says of each variant in each tile; - [`field`]: the offset, smooth over the frame, from the
//!   DCNN's windows and the classical cells together, each with a bias of its own; - [`judge`]: verdicts, also where domains can be
//!   read in more than one way; - [`reference`]: where there is no P.
//!
//! A frame whose P does not tell the offset from the magnitude (a single domain) is *undetermined*, unless the settings mark a region
//! that is not polar, or the image shows one ([`reference`]): there P is the offset. A material without polar variants has the mean of P as its offset.

mod blend;
mod cluster;
mod field;
mod groups;
mod judge;
mod reference;
mod settings;
#[cfg(test)]
mod tests;
mod tiles;

pub use settings::MistiltSettings;

use super::{Evidence, Reference};
use crate::frame::{PolarizationMaps, grid_centre, grid_index};
use blend::Windows;
use ferrostem_proto::{GridSpec, PixelPosition};
use field::Sample;
use judge::{Lattice, Observed, judge};
use nalgebra::Vector2;
use ndarray::Array2;
use reference::References;
use tiles::Tiles;

/// Bias of a DCNN whose manifest says none: what the first networks that shipped had.
const USUAL_BIAS_PM: f64 = 4.0;
/// A manifest that says less is not believed: it knows the bias from some 64 frames, and the gain leaves about this much in a frame of
/// several domains.
pub(crate) const LEAST_MANIFEST_BIAS_PM: f64 = 0.75;

/// Verdict on a tile, numbered as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileState {
    NotEvaluated = 0,
    Consistent = 1,
    Suspect = 2,
    Undetermined = 3,
}

/// Verdicts on a grid of tiles.
#[derive(Debug, Clone)]
pub struct MistiltMap {
    /// Tile centres in frame pixels.
    pub tiles: GridSpec,
    pub verdicts: Array2<TileVerdict>,
    /// Where the tilt's calibration comes from; nothing where the material has none.
    pub tilt_source: Option<String>,
    /// P less the offset, on the window grid, pm; only where the settings ask for it.
    pub corrected: Option<CorrectedMaps>,
}

/// P less the offset that mistilt is suspected of; NaN where P or the offset is not known.
#[derive(Debug, Clone, PartialEq)]
pub struct CorrectedMaps {
    pub p_x: Array2<f32>,
    pub p_y: Array2<f32>,
}

/// Evidence on one tile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TileVerdict {
    /// Offset common to all variants, pm; NaN where not evaluated or undetermined.
    pub offset_x: f64,
    pub offset_y: f64,
    /// Its covariance, pm²; the ellipse of 95 % confidence is where it gives 5.99.
    pub offset_xx: f64,
    pub offset_xy: f64,
    pub offset_yy: f64,
    /// Of "the offset is zero"; NaN where not evaluated or undetermined.
    pub p_value: f64,
    /// The tilt that would give the offset, mrad, toward where it shifts the columns; NaN where the material has no calibration.
    pub tilt_x: f64,
    pub tilt_y: f64,
    pub state: TileState,
}

const NOT_EVALUATED: TileVerdict = TileVerdict {
    offset_x: f64::NAN,
    offset_y: f64::NAN,
    offset_xx: f64::NAN,
    offset_xy: f64::NAN,
    offset_yy: f64::NAN,
    p_value: f64::NAN,
    tilt_x: f64::NAN,
    tilt_y: f64::NAN,
    state: TileState::NotEvaluated,
};

impl Default for TileVerdict {
    /// Not evaluated.
    fn default() -> Self {
        NOT_EVALUATED
    }
}

const UNDETERMINED: TileVerdict = TileVerdict { state: TileState::Undetermined, ..NOT_EVALUATED };

/// Fewer values than this say nothing about a tile.
const MIN_SAMPLES: usize = 12;
/// Side of the patch, pm, over which neighbouring windows share their error: the integral of the correlation of the first network's
/// errors is this squared.
const CORRELATION_PM: f64 = 700.0;
/// The part of the classical cells that counts as independent: neighbours share two A columns.
const INDEPENDENT_CELLS: f64 = 0.7;

/// Evaluates the frame. Windows that are `passed_over` (out of distribution, or on a wall; `[window row, window col]`) tell nothing of
/// mistilt, nor do the cells beneath them.
pub(super) fn evaluate(
    evidence: &Evidence<'_>,
    reference: &Reference,
    passed_over: &Array2<bool>,
    settings: &MistiltSettings,
) -> MistiltMap {
    let grid = &evidence.fields.grid;
    let pixel = evidence.calibration.pixel_size_pm;
    let Some(maps) = &evidence.fields.polarization else {
        let verdicts = Array2::from_elem((0, 0), NOT_EVALUATED);
        return MistiltMap { tiles: GridSpec::default(), verdicts, tilt_source: None, corrected: None };
    };
    let tiles = Tiles::over(grid, pixel, settings);
    let bias_pm = settings.bias_pm.unwrap_or(USUAL_BIAS_PM);
    // Windows share pixels with their neighbours: only this fraction of them counts as independent.
    let window_pm2 = grid.step_row * pixel[0] * grid.step_col * pixel[1];
    let independent = (window_pm2 / (CORRELATION_PM * CORRELATION_PM)).clamp(1e-6, 1.0);
    let references = References::of(evidence, maps, passed_over, &reference.material, settings);
    let windows = windows(evidence, maps, (&tiles, &references));
    let kept = windows.samples.indexed_iter().filter(|&(at, _)| passed_over.get(at) != Some(&true));
    let observed = [
        Observed { samples: kept.filter_map(|(_, sample)| *sample).collect(), bias_pm, independent },
        Observed {
            samples: cell_samples(evidence, passed_over, (&tiles, &references)),
            bias_pm: settings.classical_bias_pm,
            independent: INDEPENDENT_CELLS,
        },
    ];
    let material = &reference.material;
    let polar: Option<Vec<Vector2<f64>>> = match (material.polar, evidence.lattice_angle_rad) {
        (false, _) => Some(Vec::new()),
        // Without a lattice direction there is nothing to compare P with.
        (true, None) => None,
        (true, Some(angle)) => Some(material.variants.iter().map(|v| turned(*v, angle)).collect()),
    };
    let lattice =
        Lattice { polar, hidden: material.out_of_plane_variant, usual_pm: material.displacement_pm };
    let mut verdicts = judge(&tiles.centres_nm(pixel), &lattice, (&windows, observed), settings);
    if let Some(calibration) = &material.mistilt {
        for verdict in &mut verdicts {
            verdict.tilt_x = verdict.offset_x / calibration.offset_pm_per_mrad;
            verdict.tilt_y = verdict.offset_y / calibration.offset_pm_per_mrad;
        }
    }
    let shape = (tiles.grid.rows as usize, tiles.grid.cols as usize);
    let verdicts = Array2::from_shape_vec(shape, verdicts).unwrap_or_default();
    let corrected = settings.publish_corrected.then(|| corrected(maps, grid, &tiles, &verdicts));
    let tilt_source = material.mistilt.as_ref().map(|calibration| calibration.source.clone());
    MistiltMap { tiles: tiles.grid, verdicts, tilt_source, corrected }
}

/// P of all windows that were measured.
fn windows(
    evidence: &Evidence<'_>,
    maps: &PolarizationMaps,
    (tiles, references): (&Tiles, &References),
) -> Windows {
    let grid = &evidence.fields.grid;
    let samples = Array2::from_shape_fn(maps.p_x.dim(), |at| {
        let p = Vector2::new(f64::from(*maps.p_x.get(at)?), f64::from(*maps.p_y.get(at)?));
        let PixelPosition { row, col } = grid_centre(grid, at.0, at.1);
        let reference = references.hold(evidence, [row, col]);
        let sample = || Sample { tile: tiles.tile(row, col), p, reference, window: Some([at.0, at.1]) };
        (p.x.is_finite() && p.y.is_finite()).then(sample)
    });
    let pixel = evidence.calibration.pixel_size_pm;
    Windows { samples, step_pm: [grid.step_row * pixel[0], grid.step_col * pixel[1]] }
}

/// P of the classical cells, but for those beneath windows that are passed over.
fn cell_samples(
    evidence: &Evidence<'_>,
    passed_over: &Array2<bool>,
    (tiles, references): (&Tiles, &References),
) -> Vec<Sample> {
    let measured = evidence.fields.cells.iter().filter(|cell| cell.p_x.is_finite() && cell.p_y.is_finite());
    measured
        .map(|cell| Sample {
            tile: tiles.tile(cell.row, cell.col),
            p: Vector2::new(cell.p_x, cell.p_y),
            reference: references.hold(evidence, [cell.row, cell.col]),
            window: grid_index(&evidence.fields.grid, PixelPosition { row: cell.row, col: cell.col }),
        })
        .filter(|sample| sample.window.is_none_or(|window| passed_over.get(window) != Some(&true)))
        .collect()
}

/// A variant of the lattice frame in the image: turned counter-clockwise as displayed (y points down).
fn turned([x, y]: [f64; 2], angle: f64) -> Vector2<f64> {
    let (sin, cos) = angle.sin_cos();
    Vector2::new(x * cos + y * sin, y * cos - x * sin)
}

/// P less the offset, which is taken between the centres of tiles as it is between them.
fn corrected(
    maps: &PolarizationMaps,
    windows: &GridSpec,
    tiles: &Tiles,
    verdicts: &Array2<TileVerdict>,
) -> CorrectedMaps {
    let less = |map: &Array2<f32>, offset: fn(&TileVerdict) -> f64| {
        Array2::from_shape_fn(map.dim(), |(i, j)| {
            let PixelPosition { row, col } = grid_centre(windows, i, j);
            let at = tiles.indices(row, col);
            let mut sum = 0.0;
            for (di, dj) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let share = |at: f64, d: usize| if d == 0 { 1.0 - at.fract() } else { at.fract() };
                let weight = share(at[0], di) * share(at[1], dj);
                if weight > 0.0 {
                    let tile = verdicts.get([at[0] as usize + di, at[1] as usize + dj]);
                    sum += weight * tile.map_or(f64::NAN, offset);
                }
            }
            map.get([i, j]).copied().unwrap_or(f32::NAN) - sum as f32
        })
    };
    CorrectedMaps {
        p_x: less(&maps.p_x, |verdict| verdict.offset_x),
        p_y: less(&maps.p_y, |verdict| verdict.offset_y),
    }
}
