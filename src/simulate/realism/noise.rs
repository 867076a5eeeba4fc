//! Noise and jitter, from what a smooth image would not have.

use crate::preprocess::{NORMAL_OVER_MEDIAN, median};
use crate::simulate::detector::smooth;
use ndarray::{Array2, Axis};
use serde::Serialize;

/// Number of brightness levels: each has as many pixels.
const LEVELS: usize = 8;

/// The noise of the pixels of one brightness.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NoiseLevel {
    /// Mean brightness above the signal between the columns, 1 = an A column.
    pub height: f64,
    /// Variance of a pixel, in units of the A columns' height squared.
    pub variance: f64,
}

/// Variance of third differences along rows, darkest pixels first; a quadratic image has none, and jitter of lines adds none.
pub(super) fn noise_levels(frame: &Array2<f32>, background: f64, height: f64) -> Vec<NoiseLevel> {
    let mut samples: Vec<(f64, f64)> = Vec::with_capacity(frame.len());
    let last = frame.nrows().saturating_sub(1);
    for row in 0..frame.nrows() {
        let lines = [row.saturating_sub(1), row, (row + 1).min(last)].map(|r| frame.row(r).to_vec());
        for col in 0..frame.ncols().saturating_sub(3) {
            let at = |k: usize| f64::from(lines[1][col + k]);
            // The variance of white noise goes through with 1 + 9 + 9 + 1.
            let difference = (at(3) - 3.0 * at(2) + 3.0 * at(1) - at(0)) / 20.0_f64.sqrt();
            let brightness: f64 =
                lines.iter().flat_map(|line| &line[col..col + 4]).map(|v| f64::from(*v)).sum::<f64>() / 12.0;
            samples.push((brightness, difference));
        }
    }
    samples.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    samples
        .chunks(samples.len().div_ceil(LEVELS).max(1))
        .map(|level| {
            let brightness = level.iter().map(|(brightness, _)| brightness).sum::<f64>() / level.len() as f64;
            let deviation = robust_deviation(level.iter().map(|(_, difference)| *difference).collect());
            NoiseLevel { height: (brightness - background) / height, variance: (deviation / height).powi(2) }
        })
        .collect()
}

/// Standard deviation of a line's displacement along x against the mean of the lines above and below, pixels.
///
/// A line that is displaced by `d` differs from its neighbours' mean by `d` times the slope along x. What the image itself does from
/// line to line is symmetric about the columns, as the slope is not, and drops out.
pub(super) fn jitter_px(frame: &Array2<f32>, cell_px: f64) -> f64 {
    let mut smoothed = frame.clone();
    smooth_rows(&mut smoothed, 0.04 * cell_px);
    let cols = smoothed.ncols();
    let displacements: Vec<f64> = smoothed
        .axis_windows(Axis(0), 3)
        .into_iter()
        .map(|lines| {
            let (mut product, mut square) = (0.0, 0.0);
            for col in 1..cols.saturating_sub(1) {
                let at = |line: usize, col: usize| f64::from(lines[[line, col]]);
                let slope = 0.5 * (at(1, col + 1) - at(1, col - 1));
                product += slope * (at(1, col) - 0.5 * (at(0, col) + at(2, col)));
                square += slope * slope;
            }
            product / square
        })
        .collect();
    // Against the mean of two that are as far off: 1 + 2/4.
    robust_deviation(displacements) / 1.5_f64.sqrt()
}

fn smooth_rows(pixels: &mut Array2<f32>, sigma_px: f64) {
    for mut row in pixels.rows_mut() {
        let mut line = row.to_owned().insert_axis(Axis(0));
        smooth(&mut line, sigma_px);
        row.assign(&line.row(0));
    }
}

/// From the median distance to the median; NaN of nothing.
fn robust_deviation(values: Vec<f64>) -> f64 {
    let center = median(values.iter().copied(), f64::total_cmp).unwrap_or(f64::NAN);
    let distances = values.into_iter().map(|value| (value - center).abs());
    NORMAL_OVER_MEDIAN * median(distances, f64::total_cmp).unwrap_or(f64::NAN)
}
