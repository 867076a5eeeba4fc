//! The power spectrum of an image, by spatial frequency.

use crate::preprocess::{median, power_spectrum};
use ndarray::{Array2, s};
use serde::Serialize;
use std::f64::consts::{LN_2, PI, TAU};

/// Rings from zero frequency to that of two pixels.
const RINGS: usize = 40;

/// Power in a ring of the spectrum; 1 in every ring is white noise with the variance of the A columns' height squared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SpectrumPoint {
    /// Middle of the ring, cycles a nm.
    pub per_nm: f64,
    /// Mean over the ring, reflections included.
    pub mean: f64,
    /// What noise of the ring's median power has as its mean: the spectrum between the reflections.
    pub between: f64,
}

/// |FFT|² of the centred square part, Hann-windowed and without its mean, `[row, col]` in FFT order; white noise of variance 1
/// has the mean 1.
pub(crate) fn windowed_power(frame: &Array2<f32>) -> Array2<f32> {
    let side = frame.nrows().min(frame.ncols());
    let [top, left] = [(frame.nrows() - side) / 2, (frame.ncols() - side) / 2];
    let mut square = frame.slice(s![top..top + side, left..left + side]).to_owned();
    let mean = square.mean().unwrap_or_default();
    let hann: Vec<f32> =
        (0..side).map(|k| (PI * (k as f64 + 0.5) / side as f64).sin().powi(2) as f32).collect();
    for ((row, col), value) in square.indexed_iter_mut() {
        *value = (*value - mean) * hann[row] * hann[col];
    }
    let weight: f32 = hann.iter().map(|w| w * w).sum::<f32>().powi(2);
    power_spectrum(square) / weight
}

/// Signed frequency of bin `k` of `n`, cycles a pixel.
fn frequency(k: usize, n: usize) -> f64 {
    let k = if k <= n / 2 { k as f64 } else { k as f64 - n as f64 };
    k / n as f64
}

/// Power by spatial frequency, in units of `height` squared.
pub(super) fn radial_spectrum(frame: &Array2<f32>, pixel_size_pm: f64, height: f64) -> Vec<SpectrumPoint> {
    let power = windowed_power(frame);
    let side = power.nrows();
    let mut rings: Vec<Vec<f64>> = vec![Vec::new(); RINGS];
    for ((row, col), value) in power.indexed_iter() {
        let k = frequency(row, side).hypot(frequency(col, side));
        if let Some(ring) = rings.get_mut((2.0 * k * RINGS as f64) as usize) {
            ring.push(f64::from(*value) / (height * height));
        }
    }
    let point = |(n, ring): (usize, &mut Vec<f64>)| SpectrumPoint {
        per_nm: (n as f64 + 0.5) / (2.0 * RINGS as f64) * 1e3 / pixel_size_pm,
        mean: ring.iter().sum::<f64>() / ring.len() as f64,
        // Power of noise is exponentially distributed.
        between: median(ring.iter().copied(), f64::total_cmp).unwrap_or(f64::NAN) / LN_2,
    };
    rings.iter_mut().enumerate().map(point).collect()
}

/// Correlation of the noise of two neighbouring pixels: the cosine transform of the spectrum between the reflections. What varies
/// more slowly than the cell, of `cell_px`, is taken for the specimen and left out.
pub(super) fn correlation_of_neighbours(spectrum: &[SpectrumPoint], cell_px: f64) -> f64 {
    // Enough points for the rings to be summed over finely.
    const SIDE: usize = 8 * RINGS;
    let ring_of = |k: f64| spectrum.get((2.0 * k * RINGS as f64) as usize).or(spectrum.last());
    let (mut product, mut power) = (0.0, 0.0);
    for row in 0..SIDE {
        for col in 0..SIDE {
            let (y, x) = (frequency(row, SIDE), frequency(col, SIDE));
            let k = y.hypot(x);
            if k * cell_px < 1.0 {
                continue;
            }
            let between = ring_of(k).map_or(0.0, |point| point.between);
            product += between * (TAU * x).cos();
            power += between;
        }
    }
    product / power
}
