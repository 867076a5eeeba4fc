//! Suspect mistilt. A tilt of the specimen shifts the A and B columns apart by one vector, the same in every domain
//! (Nelson et al., Fig. 9), so that domains that should mirror each other do not. P is fitted as
//! `offset + magnitude · variant`, with the variants that the material's symmetry allows: the offset should be zero.
//!
//! - [`cluster`]: which variant each P belongs to, over the whole frame; - [`field`]: the offset, smooth over the frame, from the
//!   DCNN's windows and the classical cells together, each with a bias of its own.
//!
//! A frame whose P does not tell the offset from the magnitude (a single domain) is *undetermined*, unless the settings mark a region
//! that is not polar: there P is the offset. A material without polar variants has the mean of P as its offset.

mod cluster;
mod field;
#[cfg(test)]
mod tests;

use super::{Evidence, Reference};
use crate::config::InvalidSetting;
use crate::frame::PolarizationMaps;
use cluster::{Clusters, cluster};
use ferrostem_proto::GridSpec;
use field::{Measurement, Posterior, Sample, Variants};
use nalgebra::{Matrix2, Vector2};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// How tiles are cut and judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MistiltSettings {
    /// Side of a tile, nm; larger where a frame would have more than 256 tiles.
    pub tile_nm: f64,
    /// Of frames without tilt, this part may have a suspect tile: a tile is suspect when its p-value is below this over the number
    /// of tiles that were judged …
    pub alpha: f64,
    /// … and its offset is longer than this, pm.
    pub min_offset_pm: f64,
    /// A tile is judged when its offset is known to this standard deviation in every direction, pm.
    pub max_sigma_pm: f64,
    /// Standard deviation of the DCNN's own bias per component, pm: an offset within it proves nothing. Without, what the model's
    /// manifest says (`bias_p_component_pm` among its errors on held-out frames), or else 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_pm: Option<f64>,
    /// The same of P measured from columns, of which most errors cancel in the mean.
    pub classical_bias_pm: f64,
    /// Smallest share of a frame's P that a second variant must hold for the frame to be judged.
    pub min_variant_share: f64,
    /// By how much a variant may deviate from the material's, with its opposite, and its length from domain to domain, as a part of P.
    pub variant_tolerance: f64,
    /// The offset varies by this over the frame, pm, on this scale, nm.
    pub variation_pm: f64,
    pub smooth_nm: f64,
    /// A part of the frame that is not polar: rows from and to, then columns from and to, as fractions of the frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<[f64; 4]>,
    /// Publish P less the offset beside P (`p_corrected_x`, `p_corrected_y`).
    pub publish_corrected: bool,
}

impl Default for MistiltSettings {
    fn default() -> Self {
        Self {
            tile_nm: 4.0,
            alpha: 0.01,
            min_offset_pm: 2.0,
            max_sigma_pm: 5.0,
            bias_pm: None,
            classical_bias_pm: 1.5,
            min_variant_share: 0.1,
            variant_tolerance: 0.03,
            variation_pm: 4.0,
            smooth_nm: 10.0,
            reference: None,
            publish_corrected: false,
        }
    }
}

/// Bias of a DCNN whose manifest says none: what the first networks that shipped had.
const USUAL_BIAS_PM: f64 = 4.0;

impl MistiltSettings {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), InvalidSetting> {
        let checks = [
            ("tile_nm", self.tile_nm, 0.5..=1e4, "0.5 to 10000"),
            ("alpha", self.alpha, 1e-12..=0.5, "above 0, at most 0.5"),
            ("min_offset_pm", self.min_offset_pm, 0.0..=1e3, "0 to 1000"),
            ("max_sigma_pm", self.max_sigma_pm, 0.01..=1e3, "0.01 to 1000"),
            ("bias_pm", self.bias_pm.unwrap_or(0.0), 0.0..=1e3, "0 to 1000"),
            ("classical_bias_pm", self.classical_bias_pm, 0.0..=1e3, "0 to 1000"),
            ("min_variant_share", self.min_variant_share, 0.0..=0.5, "0 to 0.5"),
            ("variant_tolerance", self.variant_tolerance, 0.0..=1.0, "0 to 1"),
            ("variation_pm", self.variation_pm, 0.0..=1e3, "0 to 1000"),
            ("smooth_nm", self.smooth_nm, 0.1..=1e4, "0.1 to 10000"),
        ];
        for (key, value, range, expected) in checks {
            if !range.contains(&value) {
                return Err(InvalidSetting::new(format!("{prefix}.{key}"), value, expected));
            }
        }
        let Some([top, bottom, left, right]) = self.reference else { return Ok(()) };
        let within = |from: f64, to: f64| 0.0 <= from && from < to && to <= 1.0;
        if within(top, bottom) && within(left, right) {
            return Ok(());
        }
        let found = format!("{:?}", self.reference.unwrap_or_default());
        let expected = "[row from, row to, column from, column to], fractions that rise from 0 to 1";
        Err(InvalidSetting::new(format!("{prefix}.reference"), found, expected))
    }
}

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
/// More tiles than this take too long.
const MOST_TILES: f64 = 256.0;
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
    let observed = [
        Observed {
            samples: window_samples(evidence, maps, passed_over, (&tiles, settings)),
            bias_pm,
            independent,
        },
        Observed {
            samples: cell_samples(evidence, passed_over, (&tiles, settings)),
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

/// Where the tiles lie.
struct Tiles {
    grid: GridSpec,
}

impl Tiles {
    fn over(windows: &GridSpec, pixel: [f64; 2], settings: &MistiltSettings) -> Self {
        let nm = [
            f64::from(windows.rows) * windows.step_row * pixel[0] / 1000.0,
            f64::from(windows.cols) * windows.step_col * pixel[1] / 1000.0,
        ];
        let side_nm = settings.tile_nm.max((nm[0] * nm[1] / MOST_TILES).sqrt());
        // A remainder smaller than half a tile joins its neighbour, so that no sliver is judged on its own.
        let count = |nm: f64, windows: u32| -> f64 {
            let tiles = (nm / side_nm).round();
            if tiles.is_finite() { tiles.clamp(1.0, f64::from(windows.max(1))) } else { 1.0 }
        };
        let n = [count(nm[0], windows.rows), count(nm[1], windows.cols)];
        let step_row = f64::from(windows.rows) / n[0] * windows.step_row;
        let step_col = f64::from(windows.cols) / n[1] * windows.step_col;
        let grid = GridSpec {
            row0: windows.row0 + (step_row - windows.step_row) / 2.0,
            col0: windows.col0 + (step_col - windows.step_col) / 2.0,
            step_row,
            step_col,
            rows: n[0] as u32,
            cols: n[1] as u32,
        };
        Self { grid }
    }

    /// `[x, y]`.
    fn centres_nm(&self, pixel: [f64; 2]) -> Vec<[f64; 2]> {
        let grid = self.grid;
        let place = move |i: u32, j: u32| {
            let row = grid.row0 + f64::from(i) * grid.step_row;
            let col = grid.col0 + f64::from(j) * grid.step_col;
            [col * pixel[1] / 1000.0, row * pixel[0] / 1000.0]
        };
        (0..grid.rows).flat_map(|i| (0..grid.cols).map(move |j| place(i, j))).collect()
    }

    /// Fractional indices of a place, kept within the grid.
    fn indices(&self, row: f64, col: f64) -> [f64; 2] {
        let index = |at: f64, from: f64, step: f64, n: u32| {
            ((at - from) / step).clamp(0.0, f64::from(n.saturating_sub(1)))
        };
        let grid = &self.grid;
        [index(row, grid.row0, grid.step_row, grid.rows), index(col, grid.col0, grid.step_col, grid.cols)]
    }

    /// The tile that a place belongs to.
    fn tile(&self, row: f64, col: f64) -> usize {
        let [i, j] = self.indices(row, col).map(|index| index.round() as usize);
        i * self.grid.cols as usize + j
    }
}

/// Whether a place lies in the region that the settings mark as not polar.
fn in_reference(evidence: &Evidence<'_>, [row, col]: [f64; 2], settings: &MistiltSettings) -> bool {
    let (rows, cols) = evidence.frame.pixels.dim();
    let (y, x) = ((row + 0.5) / rows as f64, (col + 0.5) / cols as f64);
    settings
        .reference
        .is_some_and(|[top, bottom, left, right]| (top..=bottom).contains(&y) && (left..=right).contains(&x))
}

/// P of the windows that were measured and are not passed over.
fn window_samples(
    evidence: &Evidence<'_>,
    maps: &PolarizationMaps,
    passed_over: &Array2<bool>,
    (tiles, settings): (&Tiles, &MistiltSettings),
) -> Vec<Sample> {
    let grid = &evidence.fields.grid;
    maps.p_x
        .indexed_iter()
        .filter(|&((i, j), _)| passed_over.get([i, j]) != Some(&true))
        .filter_map(|((i, j), p_x)| {
            let p = Vector2::new(f64::from(*p_x), f64::from(*maps.p_y.get([i, j])?));
            let (row, col) = (grid.row0 + i as f64 * grid.step_row, grid.col0 + j as f64 * grid.step_col);
            let reference = in_reference(evidence, [row, col], settings);
            (p.x.is_finite() && p.y.is_finite()).then(|| Sample { tile: tiles.tile(row, col), p, reference })
        })
        .collect()
}

/// P of the classical cells, but for those beneath windows that are passed over.
fn cell_samples(
    evidence: &Evidence<'_>,
    passed_over: &Array2<bool>,
    (tiles, settings): (&Tiles, &MistiltSettings),
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
            reference: in_reference(evidence, [cell.row, cell.col], settings),
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
        let vectors: Vec<Vector2<f64>> = observed.samples.iter().map(|sample| sample.p).collect();
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
        Some(found)
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
    let Some(Posterior { offset, covariance }) = field::fit(tiles_nm, &variants, &mut measurements, settings)
    else {
        return verdicts;
    };
    let known: Vec<bool> = verdicts
        .iter()
        .zip(&covariance)
        .map(|(verdict, covariance)| {
            let widest = covariance.symmetric_eigenvalues().max();
            verdict.state == TileState::Undetermined && widest <= settings.max_sigma_pm.powi(2)
        })
        .collect();
    let judged = known.iter().filter(|known| **known).count();
    for (((verdict, known), offset), covariance) in verdicts.iter_mut().zip(known).zip(offset).zip(covariance)
    {
        if known {
            *verdict = tested(offset, covariance, judged, settings);
        }
    }
    verdicts
}

fn tested(
    offset: Vector2<f64>,
    covariance: Matrix2<f64>,
    judged: usize,
    settings: &MistiltSettings,
) -> TileVerdict {
    let Some(inverse) = covariance.try_inverse() else { return UNDETERMINED };
    // The squared length of a two-component normal vector exceeds t with probability exp(-t / 2).
    let p_value = (-0.5 * offset.dot(&(inverse * offset))).exp();
    let suspect = p_value < settings.alpha / judged.max(1) as f64 && offset.norm() > settings.min_offset_pm;
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
