//! The fields that a network without bias would give.

use super::scenes::PIXEL_PM;
use crate::columns::Neighbours;
use crate::frame::{Fields, PolarizationMaps};
use crate::simulate::Truth;
use ferrostem_proto::GridSpec;
use ndarray::{Array2, Array3};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use std::num::NonZeroUsize;

/// Distance between windows and their side, pixels: the shipped models' at 15 pm.
const STRIDE_PX: usize = 8;
const WINDOW_PX: usize = 80;
/// A window's P is the mean of the cells up to this distance from its centre, the nearest most: what networks are trained on.
const CELL_BOUND_PM: f64 = 285.0;
/// Errors of windows this far apart have a correlation of exp(-1/2). The shipped DCNN's fall to a half within 120 to 250 pm.
const CORRELATION_PM: f64 = 250.0;

/// Windows over a frame of `side_px` with the P of `truth` and errors of `sigma_pm` a component.
pub(super) fn ideal_fields(truth: &Truth, side_px: usize, sigma_pm: f64, rng: &mut impl Rng) -> Fields {
    let n = (side_px.saturating_sub(WINDOW_PX)) / STRIDE_PX + 1;
    let first = WINDOW_PX as f64 / 2.0 - 0.5;
    let step = STRIDE_PX as f64;
    let grid =
        GridSpec { row0: first, col0: first, step_row: step, step_col: step, rows: n as u32, cols: n as u32 };
    let places: Vec<[f64; 2]> =
        truth.cells.iter().map(|cell| [cell.col * PIXEL_PM, cell.row * PIXEL_PM]).collect();
    let tree = Neighbours::new(&places);
    let four = NonZeroUsize::MIN.saturating_add(3);
    let means = Array2::from_shape_fn((n, n), |(i, j)| {
        let centre = [(first + j as f64 * step) * PIXEL_PM, (first + i as f64 * step) * PIXEL_PM];
        let mut sum = [0.0; 3];
        for (index, away) in tree.nearest_n(centre, four, CELL_BOUND_PM) {
            let Some(cell) = truth.cells.get(index) else { continue };
            let weight = 1.0 - away / CELL_BOUND_PM;
            let seen = cell.as_measured();
            sum = [sum[0] + weight * seen.p_x, sum[1] + weight * seen.p_y, sum[2] + weight];
        }
        [sum[0] / sum[2], sum[1] / sum[2]]
    });
    let mut component = |k: usize| {
        let errors = correlated(n, rng);
        Array2::from_shape_fn((n, n), |at| {
            let mean = means.get(at).map_or(f64::NAN, |mean| mean[k]);
            (mean + sigma_pm * errors.get(at).copied().unwrap_or(f64::NAN)) as f32
        })
    };
    let (p_x, p_y) = (component(0), component(1));
    let flat = |value: f32| Array2::from_elem((n, n), value);
    let maps = PolarizationMaps {
        p_x,
        p_y,
        p_sigma: flat(sigma_pm as f32),
        cell_a: flat(f32::NAN),
        cell_b: flat(f32::NAN),
        cell_angle: flat(f32::NAN),
        cell_area: flat(f32::NAN),
        smoothness: flat(f32::NAN),
        features: Array3::zeros((n, n, 0)),
    };
    Fields { grid, polarization: Some(maps), columns: None, cells: Vec::new(), incomplete: Vec::new() }
}

/// Normal numbers of unit variance on the windows, correlated as `exp(-d² / 2 CORRELATION_PM²)`.
fn correlated(n: usize, rng: &mut impl Rng) -> Array2<f64> {
    // White noise under a Gaussian of width w has a correlation of width √2 w.
    let width = CORRELATION_PM / (STRIDE_PX as f64 * PIXEL_PM) / std::f64::consts::SQRT_2;
    let reach = (4.0 * width).ceil() as usize;
    let kernel: Vec<f64> =
        (0..=2 * reach).map(|k| (-0.5 * ((k as f64 - reach as f64) / width).powi(2)).exp()).collect();
    let norm = kernel.iter().map(|k| k * k).sum::<f64>().sqrt();
    let side = n + 2 * reach;
    let white = Array2::from_shape_fn((side, side), |_| -> f64 { StandardNormal.sample(rng) });
    let smooth = |from: &dyn Fn(usize) -> f64| {
        kernel.iter().enumerate().map(|(k, weight)| weight * from(k)).sum::<f64>() / norm
    };
    let rows = Array2::from_shape_fn((n, side), |(i, j)| smooth(&|k| white[[i + k, j]]));
    Array2::from_shape_fn((n, n), |(i, j)| smooth(&|k| rows[[i, j + k]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn errors_have_the_variance_and_the_correlation_that_they_should() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (mut square, mut beside, mut count) = (0.0, 0.0, 0.0);
        for _ in 0..40 {
            let errors = correlated(40, &mut rng);
            for ((i, j), error) in errors.indexed_iter().filter(|((_, j), _)| *j + 2 < 40) {
                square += error * error;
                beside += error * errors[[i, j + 2]];
                count += 1.0;
            }
        }
        assert!((square / count - 1.0).abs() < 0.05, "{}", square / count);
        // Two windows are 240 pm apart: exp(-0.5 · 0.96²) = 0.631.
        assert!((beside / square - 0.631).abs() < 0.03, "{}", beside / square);
    }
}
