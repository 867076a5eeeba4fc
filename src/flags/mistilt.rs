//! Suspect mistilt. A tilt of the specimen shifts the A and B columns apart by one vector, the same in every domain
//! (Nelson et al., Fig. 9), so that domains that should mirror each other do not. Per tile, P is fitted as
//! `offset + magnitude · variant`, with the variants that the material's symmetry allows: the offset should be zero.
//!
//! A tile whose domains do not tell the offset from the magnitude (a single variant) is *undetermined*. A material
//! without polar variants has the mean of P as its offset.

use super::{Evidence, Reference};
use crate::config::InvalidSetting;
use crate::frame::PolarizationMaps;
use ferrostem_proto::GridSpec;
use nalgebra::{Matrix2, Matrix3, Vector2, Vector3};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// How tiles are cut and judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MistiltSettings {
    /// Side of a tile, nm.
    pub tile_nm: f64,
    /// A tile is suspect when its p-value is below this …
    pub alpha: f64,
    /// … and its offset is longer than this, pm.
    pub min_offset_pm: f64,
    /// Standard deviation of the network's own bias per component, pm: an offset within it proves nothing. The default
    /// fits the first networks that ship.
    pub bias_pm: f64,
    /// Smallest share of a tile's windows that a second variant must hold for the tile to be judged.
    pub min_variant_share: f64,
}

impl Default for MistiltSettings {
    fn default() -> Self {
        Self { tile_nm: 4.0, alpha: 0.01, min_offset_pm: 3.0, bias_pm: 3.0, min_variant_share: 0.1 }
    }
}

impl MistiltSettings {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), InvalidSetting> {
        let checks = [
            ("tile_nm", self.tile_nm, 0.5..=1e4, "0.5 to 10000"),
            ("alpha", self.alpha, 1e-12..=0.5, "above 0, at most 0.5"),
            ("min_offset_pm", self.min_offset_pm, 0.0..=1e3, "0 to 1000"),
            ("bias_pm", self.bias_pm, 0.0..=1e3, "0 to 1000"),
            ("min_variant_share", self.min_variant_share, 0.0..=0.5, "0 to 0.5"),
        ];
        for (key, value, range, expected) in checks {
            if !range.contains(&value) {
                return Err(InvalidSetting::new(format!("{prefix}.{key}"), value, expected));
            }
        }
        Ok(())
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
}

/// Evidence on one tile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TileVerdict {
    /// Offset common to all variants, pm; NaN where not evaluated.
    pub offset_x: f64,
    pub offset_y: f64,
    /// Of "the offset is zero"; NaN where not evaluated or undetermined.
    pub p_value: f64,
    pub state: TileState,
}

const NOT_EVALUATED: TileVerdict =
    TileVerdict { offset_x: f64::NAN, offset_y: f64::NAN, p_value: f64::NAN, state: TileState::NotEvaluated };

/// Fewer windows than this say nothing about a tile.
const MIN_WINDOWS: usize = 12;
/// Rounds of assigning windows to variants.
const ROUNDS: usize = 25;
/// Domains whose P lie nearer to each other than this many residual standard deviations may be one domain, split.
const MIN_SEPARATION_SIGMAS: f64 = 4.0;
/// Side of the patch, pm, over which neighbouring windows share their error: a window's inner two cells.
const CORRELATION_PM: f64 = 800.0;

pub(super) fn evaluate(
    evidence: &Evidence<'_>,
    reference: &Reference,
    passed_over: &Array2<bool>,
    settings: &MistiltSettings,
) -> MistiltMap {
    let grid = &evidence.fields.grid;
    let Some(maps) = &evidence.fields.polarization else {
        return MistiltMap { tiles: GridSpec::default(), verdicts: Array2::from_elem((0, 0), NOT_EVALUATED) };
    };
    let pixel = evidence.calibration.pixel_size_pm;
    let (rows, cols) = maps.p_x.dim();
    let windows_per_tile = |step: f64, pixel_pm: f64| -> usize {
        let windows = settings.tile_nm * 1000.0 / (step * pixel_pm);
        if windows.is_finite() { windows.round().max(1.0) as usize } else { usize::MAX }
    };
    let tile_rows = windows_per_tile(grid.step_row, pixel[0]).min(rows.max(1));
    let tile_cols = windows_per_tile(grid.step_col, pixel[1]).min(cols.max(1));
    // A remainder smaller than half a tile joins its neighbour, so that no sliver is judged on its own.
    let count = |size: usize, tile: usize| ((size as f64 / tile as f64).round() as usize).max(1);
    let (n_rows, n_cols) = (count(rows, tile_rows), count(cols, tile_cols));
    let span = |index: usize, n: usize, size: usize| (index * size / n)..((index + 1) * size / n);

    // Windows share pixels with their neighbours: only this fraction of them counts as independent.
    let window_pm2 = grid.step_row * pixel[0] * grid.step_col * pixel[1];
    let independent = (window_pm2 / (CORRELATION_PM * CORRELATION_PM)).clamp(1e-6, 1.0);
    let angle = evidence.lattice_angle_rad;
    let variants: Option<Vec<Vector2<f64>>> = match (reference.material.polar, angle) {
        (false, _) => Some(Vec::new()),
        (true, None) => None,
        (true, Some(angle)) => Some(reference.material.variants.iter().map(|v| turned(*v, angle)).collect()),
    };
    let verdicts = Array2::from_shape_fn((n_rows, n_cols), |(i, j)| {
        let vectors = tile_vectors(maps, passed_over, span(i, n_rows, rows), span(j, n_cols, cols));
        if vectors.len() < MIN_WINDOWS {
            return NOT_EVALUATED;
        }
        match &variants {
            // A polar material without a known lattice direction: there is nothing to compare P with.
            None => TileVerdict { state: TileState::Undetermined, ..NOT_EVALUATED },
            Some(variants) => judge(&vectors, variants, independent, settings),
        }
    });
    let step = |n: usize, size: usize, step: f64| size as f64 / n as f64 * step;
    let (step_row, step_col) = (step(n_rows, rows, grid.step_row), step(n_cols, cols, grid.step_col));
    let tiles = GridSpec {
        row0: grid.row0 + (step_row - grid.step_row) / 2.0,
        col0: grid.col0 + (step_col - grid.step_col) / 2.0,
        step_row,
        step_col,
        rows: n_rows as u32,
        cols: n_cols as u32,
    };
    MistiltMap { tiles, verdicts }
}

/// A variant of the lattice frame in the image: turned counter-clockwise as displayed (y points down).
fn turned([x, y]: [f64; 2], angle: f64) -> Vector2<f64> {
    let (sin, cos) = angle.sin_cos();
    Vector2::new(x * cos + y * sin, y * cos - x * sin)
}

/// P of the tile's windows that were measured and are not passed over.
fn tile_vectors(
    maps: &PolarizationMaps,
    passed_over: &Array2<bool>,
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
) -> Vec<Vector2<f64>> {
    rows.flat_map(|i| cols.clone().map(move |j| [i, j]))
        .filter(|&at| passed_over.get(at) != Some(&true))
        .filter_map(|at| {
            let p = Vector2::new(f64::from(*maps.p_x.get(at)?), f64::from(*maps.p_y.get(at)?));
            (p.x.is_finite() && p.y.is_finite()).then_some(p)
        })
        .collect()
}

fn judge(
    vectors: &[Vector2<f64>],
    variants: &[Vector2<f64>],
    independent: f64,
    settings: &MistiltSettings,
) -> TileVerdict {
    let fit = if variants.is_empty() {
        Some(mean_offset(vectors, independent))
    } else {
        variant_offset(vectors, variants, independent, settings.min_variant_share)
    };
    let Some((offset, covariance)) = fit else {
        return TileVerdict { state: TileState::Undetermined, ..NOT_EVALUATED };
    };
    let covariance = covariance + Matrix2::identity() * settings.bias_pm.powi(2);
    let Some(inverse) = covariance.try_inverse() else {
        return TileVerdict { state: TileState::Undetermined, ..NOT_EVALUATED };
    };
    // The squared length of a two-component normal vector exceeds t with probability exp(-t / 2).
    let p_value = (-0.5 * offset.dot(&(inverse * offset))).exp();
    let suspect = p_value < settings.alpha && offset.norm() > settings.min_offset_pm;
    let state = if suspect { TileState::Suspect } else { TileState::Consistent };
    TileVerdict { offset_x: offset.x, offset_y: offset.y, p_value, state }
}

/// Mean of P with its covariance.
fn mean_offset(vectors: &[Vector2<f64>], independent: f64) -> (Vector2<f64>, Matrix2<f64>) {
    let n = vectors.len() as f64;
    let mean = vectors.iter().sum::<Vector2<f64>>() / n;
    let scatter = vectors.iter().map(|p| (p - mean) * (p - mean).transpose()).sum::<Matrix2<f64>>() / n;
    (mean, scatter / (n * independent).max(1.0))
}

/// Fits `offset + magnitude · variant` and returns the offset with its covariance; `None` when the tile's domains do
/// not determine it.
fn variant_offset(
    vectors: &[Vector2<f64>],
    variants: &[Vector2<f64>],
    independent: f64,
    min_share: f64,
) -> Option<(Vector2<f64>, Matrix2<f64>)> {
    let n = vectors.len() as f64;
    let mut magnitude = vectors.iter().map(|p| p.norm()).sum::<f64>() / n;
    let mut offset = Vector2::zeros();
    let mut normal = Matrix3::zeros();
    let mut members: Vec<usize> = Vec::new();
    for _ in 0..ROUNDS {
        let assigned: Vec<usize> =
            vectors.iter().map(|p| nearest_variant(&(p - offset), variants, magnitude)).collect();
        if assigned == members {
            break;
        }
        members = assigned;
        normal = Matrix3::zeros();
        let mut right = Vector3::zeros();
        for (p, variant) in vectors.iter().zip(members.iter().filter_map(|&k| variants.get(k))) {
            for (axis, value) in [(0, p.x), (1, p.y)] {
                let mut design = Vector3::zeros();
                design[axis] = 1.0;
                design[2] = variant[axis];
                normal += design * design.transpose();
                right += design * value;
            }
        }
        // Singular when all windows share one variant: the offset cannot be told from the magnitude.
        let solution = normal.try_inverse()? * right;
        (offset, magnitude) = (Vector2::new(solution.x, solution.y), solution.z);
    }
    let residual = vectors
        .iter()
        .zip(members.iter().filter_map(|&k| variants.get(k)))
        .map(|(p, variant)| (p - offset - variant * magnitude).norm_squared())
        .sum::<f64>()
        / (2.0 * n);
    let mut shares = vec![0usize; variants.len()];
    for &member in &members {
        if let Some(share) = shares.get_mut(member) {
            *share += 1;
        }
    }
    let populated: Vec<&Vector2<f64>> = variants
        .iter()
        .zip(&shares)
        .filter(|(_, share)| **share as f64 >= min_share * n)
        .map(|(variant, _)| variant)
        .collect();
    let nearest = populated
        .iter()
        .enumerate()
        .flat_map(|(k, a)| populated.iter().skip(k + 1).map(move |b| (*a - *b).norm()))
        .min_by(f64::total_cmp)?;
    if magnitude * nearest < MIN_SEPARATION_SIGMAS * residual.sqrt() {
        return None;
    }
    let covariance = normal.try_inverse()? * (residual / independent);
    Some((offset, covariance.fixed_view::<2, 2>(0, 0).into_owned()))
}

fn nearest_variant(p: &Vector2<f64>, variants: &[Vector2<f64>], magnitude: f64) -> usize {
    variants
        .iter()
        .enumerate()
        .min_by(|(_, a), (_, b)| {
            (p - *a * magnitude).norm_squared().total_cmp(&(p - *b * magnitude).norm_squared())
        })
        .map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_distr::{Distribution, Normal};

    const HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
    const DIAGONALS: [[f64; 2]; 4] = [[HALF, HALF], [HALF, -HALF], [-HALF, HALF], [-HALF, -HALF]];

    fn variants(angle: f64) -> Vec<Vector2<f64>> {
        DIAGONALS.iter().map(|&v| turned(v, angle)).collect()
    }

    /// `shares[k]` windows of variant k, 30 pm long, 4 pm of noise, shifted by `offset`.
    fn tile(shares: [usize; 4], offset: Vector2<f64>, angle: f64, seed: u64) -> Vec<Vector2<f64>> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let noise = Normal::new(0.0, 4.0).unwrap();
        let mut vectors = Vec::new();
        for (variant, count) in variants(angle).iter().zip(shares) {
            for _ in 0..count {
                let error = Vector2::new(noise.sample(&mut rng), noise.sample(&mut rng));
                vectors.push(variant * 30.0 + offset + error);
            }
        }
        vectors
    }

    fn verdict(vectors: &[Vector2<f64>], variants: &[Vector2<f64>]) -> TileVerdict {
        judge(vectors, variants, 0.25, &MistiltSettings { bias_pm: 1.0, ..MistiltSettings::default() })
    }

    #[test]
    fn an_offset_of_mirror_domains_is_found_and_measured() {
        for (n, shares) in
            [[60, 0, 0, 60], [80, 30, 0, 0], [30, 30, 30, 30], [90, 0, 0, 20]].into_iter().enumerate()
        {
            let offset = Vector2::new(7.0, -3.0);
            let found = verdict(&tile(shares, offset, 0.3, n as u64), &variants(0.3));
            assert_eq!(found.state, TileState::Suspect, "{shares:?} {found:?}");
            let error = (Vector2::new(found.offset_x, found.offset_y) - offset).norm();
            assert!(error < 2.5, "{shares:?}: {error}");
        }
    }

    #[test]
    fn unequal_domain_areas_alone_are_consistent() {
        let mut alarms = 0;
        for seed in 0..200 {
            let found = verdict(&tile([100, 20, 0, 15], Vector2::zeros(), 0.0, seed), &variants(0.0));
            assert_ne!(found.state, TileState::Undetermined);
            alarms += u32::from(found.state == TileState::Suspect);
        }
        assert!(alarms <= 2, "{alarms} of 200");
    }

    #[test]
    fn a_noisy_single_domain_is_not_split_in_two() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(9);
        let noise = Normal::new(0.0, 7.0).unwrap();
        // Between two variants, where the split is easiest.
        let axes: Vec<Vector2<f64>> =
            [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]].into_iter().map(|v| turned(v, 0.0)).collect();
        let vectors: Vec<Vector2<f64>> = (0..200)
            .map(|_| Vector2::new(-12.0 + noise.sample(&mut rng), 20.0 + noise.sample(&mut rng)))
            .collect();
        assert_eq!(verdict(&vectors, &axes).state, TileState::Undetermined);
    }

    #[test]
    fn one_domain_is_undetermined_and_never_consistent() {
        for offset in [Vector2::zeros(), Vector2::new(10.0, 0.0)] {
            let found = verdict(&tile([120, 0, 0, 0], offset, 0.0, 5), &variants(0.0));
            assert_eq!(found.state, TileState::Undetermined);
            assert!(found.p_value.is_nan());
        }
    }

    #[test]
    fn a_non_polar_lattice_that_looks_polar_is_suspect() {
        let still: Vec<_> = tile([0; 4], Vector2::zeros(), 0.0, 0).into_iter().collect();
        assert!(still.is_empty());
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let noise = Normal::new(0.0, 4.0).unwrap();
        let mut sample = |x: f64| -> Vec<Vector2<f64>> {
            (0..100).map(|_| Vector2::new(x + noise.sample(&mut rng), noise.sample(&mut rng))).collect()
        };
        assert_eq!(verdict(&sample(0.0), &[]).state, TileState::Consistent);
        assert_eq!(verdict(&sample(8.0), &[]).state, TileState::Suspect);
    }
}
