//! Suspect mistilt. A tilt of the specimen shifts the A and B columns apart by one vector, the same in every domain
//! (Nelson et al., Fig. 9), so that domains that should mirror each other do not. P is fitted as
//! `offset + magnitude · variant`, with the variants that the material's symmetry allows: the offset should be zero.
//!
//! - [`cluster`]: which variant each P belongs to, over the whole frame; - [`field`]: the offset, smooth over the frame, from the
//!   DCNN's windows and the classical cells together, each with a bias of its own; - [`reference`]: where there is no P.
//!
//! A frame whose P does not tell the offset from the magnitude (a single domain) is *undetermined*, unless the settings mark a region
//! that is not polar, or the image shows one ([`reference`]): there P is the offset. A material without polar variants has the mean of P as its offset.

mod cluster;
mod field;
mod reference;
mod settings;
#[cfg(test)]
mod tests;
mod tiles;

pub use settings::MistiltSettings;

use super::{Evidence, Reference};
use crate::frame::PolarizationMaps;
use cluster::{Clusters, cluster};
use ferrostem_proto::GridSpec;
use field::{Measurement, Sample, Variants};
use nalgebra::{Matrix2, Vector2};
use ndarray::Array2;
use reference::{NONE_BELOW, References};
use tiles::Tiles;

/// Bias of a DCNN whose manifest says none: what the first networks that shipped had.
const USUAL_BIAS_PM: f64 = 4.0;
/// A manifest that says less is not believed: it knows the bias from some 64 frames, and walls and the gain leave about this much in a
/// frame of several domains.
pub(crate) const LEAST_MANIFEST_BIAS_PM: f64 = 1.0;

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
    let observed = [
        Observed {
            samples: window_samples(evidence, maps, passed_over, (&tiles, &references)),
            bias_pm,
            independent,
        },
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
    let mut verdicts = judge(&tiles.centres_nm(pixel), &lattice, observed, settings);
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

/// P of the windows that were measured and are not passed over.
fn window_samples(
    evidence: &Evidence<'_>,
    maps: &PolarizationMaps,
    passed_over: &Array2<bool>,
    (tiles, references): (&Tiles, &References),
) -> Vec<Sample> {
    let grid = &evidence.fields.grid;
    maps.p_x
        .indexed_iter()
        .filter(|&((i, j), _)| passed_over.get([i, j]) != Some(&true))
        .filter_map(|((i, j), p_x)| {
            let p = Vector2::new(f64::from(*p_x), f64::from(*maps.p_y.get([i, j])?));
            let (row, col) = (grid.row0 + i as f64 * grid.step_row, grid.col0 + j as f64 * grid.step_col);
            let reference = references.hold(evidence, [row, col]);
            (p.x.is_finite() && p.y.is_finite()).then(|| Sample { tile: tiles.tile(row, col), p, reference })
        })
        .collect()
}

/// P of the classical cells, but for those beneath windows that are passed over.
fn cell_samples(
    evidence: &Evidence<'_>,
    passed_over: &Array2<bool>,
    (tiles, references): (&Tiles, &References),
) -> Vec<Sample> {
    let grid = &evidence.fields.grid;
    let flagged = |row: f64, col: f64| {
        let window = [(row - grid.row0) / grid.step_row, (col - grid.col0) / grid.step_col].map(f64::round);
        let [i, j] = window;
        i >= 0.0 && j >= 0.0 && passed_over.get([i as usize, j as usize]) == Some(&true)
    };
    let cells = evidence.fields.cells.iter().filter(|cell| !flagged(cell.row, cell.col));
    cells
        .filter(|cell| cell.p_x.is_finite() && cell.p_y.is_finite())
        .map(|cell| Sample {
            tile: tiles.tile(cell.row, cell.col),
            p: Vector2::new(cell.p_x, cell.p_y),
            reference: references.hold(evidence, [cell.row, cell.col]),
        })
        .collect()
}

/// A variant of the lattice frame in the image: turned counter-clockwise as displayed (y points down).
fn turned([x, y]: [f64; 2], angle: f64) -> Vector2<f64> {
    let (sin, cos) = angle.sin_cos();
    Vector2::new(x * cos + y * sin, y * cos - x * sin)
}

/// One way of measuring P, before it is known which variants there are.
struct Observed {
    samples: Vec<Sample>,
    bias_pm: f64,
    independent: f64,
}

/// What P may be in the frame.
struct Lattice {
    /// The directions of P in the image, none for a lattice that is not polar; `None` when the lattice's own is not known.
    polar: Option<Vec<Vector2<f64>>>,
    /// Whether P may lie along the beam.
    hidden: bool,
    usual_pm: f64,
}

impl Lattice {
    fn is_polar(&self) -> bool {
        self.polar.as_ref().is_none_or(|polar| !polar.is_empty())
    }

    /// All of them, no P at the end.
    fn variants(&self) -> Variants {
        let none = std::iter::once(Vector2::zeros());
        Variants::new(self.polar.iter().flatten().copied().chain(none).collect())
    }

    /// Which variants the samples belong to; `None` when they tell nothing of the offset.
    fn clusters(&self, observed: &Observed, settings: &MistiltSettings) -> Option<Clusters> {
        // Where there is no P, nothing is to be sorted into variants.
        let sorted = observed.samples.iter().filter(|sample| !(self.is_polar() && sample.reference));
        let vectors: Vec<Vector2<f64>> = sorted.map(|sample| sample.p).collect();
        if vectors.len() < MIN_SAMPLES {
            return None;
        }
        if !self.is_polar() {
            return Some(Clusters::single(&vectors));
        }
        let mut variants = self.polar.clone()?;
        if self.hidden {
            variants.push(Vector2::zeros());
        }
        let mut found =
            cluster(&vectors, &variants, self.usual_pm, observed.independent, settings.min_variant_share)?;
        found.shares.resize(self.variants().all.len(), 0.0);
        // A domain beside a wall or a substrate without P would pass for two opposite domains of half its length.
        (found.magnitude.abs() >= NONE_BELOW * self.usual_pm).then_some(found)
    }
}

/// Verdicts on the tiles with these centres `[x, y]`.
fn judge(
    tiles_nm: &[[f64; 2]],
    lattice: &Lattice,
    observed: [Observed; 2],
    settings: &MistiltSettings,
) -> Vec<TileVerdict> {
    let variants = lattice.variants();
    let mut verdicts = vec![NOT_EVALUATED; tiles_nm.len()];
    let mut measurements = Vec::new();
    for observed in observed {
        let mut counts = vec![0usize; tiles_nm.len()];
        for sample in &observed.samples {
            if let Some(count) = counts.get_mut(sample.tile) {
                *count += 1;
            }
        }
        for (verdict, _) in verdicts.iter_mut().zip(counts).filter(|(_, count)| *count >= MIN_SAMPLES) {
            *verdict = UNDETERMINED;
        }
        let clusters = lattice.clusters(&observed, settings);
        let beyond_reference = clusters.is_some();
        let marked: Vec<Vector2<f64>> =
            observed.samples.iter().filter(|sample| sample.reference).map(|sample| sample.p).collect();
        let alone = || {
            let mut alone = Clusters::single(&marked);
            alone.shares.resize(variants.all.len(), 0.0);
            alone
        };
        let clusters = clusters.or_else(|| (marked.len() >= MIN_SAMPLES).then(alone));
        let Observed { samples, bias_pm, independent } = observed;
        measurements.extend(clusters.map(|clusters| Measurement {
            samples,
            clusters,
            bias_pm,
            independent,
            beyond_reference,
        }));
    }
    if measurements.is_empty() {
        return verdicts;
    }
    let Some(posterior) = field::fit(tiles_nm, &variants, &mut measurements, settings) else {
        return verdicts;
    };
    let undetermined = verdicts.iter().enumerate().filter(|(_, v)| v.state == TileState::Undetermined);
    let known: Vec<usize> = undetermined
        .map(|(tile, _)| tile)
        .filter(|&tile| {
            let widest = posterior.covariance(tile).symmetric_eigenvalues().max();
            widest <= settings.max_sigma_pm.powi(2)
        })
        .collect();
    let tests = posterior.tests(&known);
    for tile in known {
        if let Some(verdict) = verdicts.get_mut(tile) {
            *verdict = tested(posterior.offset(tile), posterior.covariance(tile), tests, settings);
        }
    }
    verdicts
}

fn tested(
    offset: Vector2<f64>,
    covariance: Matrix2<f64>,
    tests: f64,
    settings: &MistiltSettings,
) -> TileVerdict {
    let Some(inverse) = covariance.try_inverse() else { return UNDETERMINED };
    // The squared length of a two-component normal vector exceeds t with probability exp(-t / 2).
    let p_value = (-0.5 * offset.dot(&(inverse * offset))).exp();
    let suspect = p_value < settings.alpha / tests && offset.norm() > settings.min_offset_pm;
    let state = if suspect { TileState::Suspect } else { TileState::Consistent };
    TileVerdict {
        offset_x: offset.x,
        offset_y: offset.y,
        offset_xx: covariance[(0, 0)],
        offset_xy: covariance[(0, 1)],
        offset_yy: covariance[(1, 1)],
        p_value,
        state,
        ..NOT_EVALUATED
    }
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
            let row = windows.row0 + i as f64 * windows.step_row;
            let col = windows.col0 + j as f64 * windows.step_col;
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
