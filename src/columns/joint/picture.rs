//! The model as a picture: the sum of all columns, the smooth rest, and the noise.

use super::profile::Profile;
use super::{Spot, profile_of};
use ndarray::Array2;
use rayon::prelude::*;

const BAND_ROWS: usize = 16;
/// Classes of brightness by which the noise is estimated.
const NOISE_BINS: usize = 12;
/// Variances are not believed to fall below this fraction of that at a bright column.
const VARIANCE_FLOOR: f64 = 0.03;

/// Rows and columns `from..to` around `centre` within `radius`.
pub(super) fn around(centre: f64, radius: f64, length: usize) -> std::ops::Range<usize> {
    let from = (centre - radius).ceil().max(0.0) as usize;
    let to = ((centre + radius).floor() + 1.0).max(0.0) as usize;
    from.min(length)..to.min(length)
}

/// The sum of all columns.
///
/// # Shapes
/// `[row, col]` of `shape`.
pub(super) fn columns(shape: (usize, usize), spots: &[Spot], profiles: &[Profile; 2]) -> Array2<f32> {
    let mut picture = Array2::<f32>::zeros(shape);
    let reach = profiles.map(|profile| profile.reach_px());
    let cols = shape.1;
    let Some(pixels) = picture.as_slice_mut() else { return picture };
    pixels.par_chunks_mut((BAND_ROWS * cols).max(1)).enumerate().for_each(|(band, lines)| {
        let height = lines.len() / cols;
        let (from, to) = ((band * BAND_ROWS) as f64, (band * BAND_ROWS + height) as f64);
        for spot in spots.iter().filter(|spot| spot.amplitude > 0.0) {
            let reach = reach[spot.sublattice as usize];
            if spot.row + reach < from || spot.row - reach > to {
                continue;
            }
            let profile = profile_of(profiles, spot.sublattice);
            for row in around(spot.row - from, reach, height) {
                let dr = row as f64 + from - spot.row;
                let half = (reach * reach - dr * dr).max(0.0).sqrt();
                let line = &mut lines[row * cols..(row + 1) * cols];
                let cols = around(spot.col, half, cols);
                let Some(line) = line.get_mut(cols.clone()) else { continue };
                let first = [dr, cols.start as f64 - spot.col];
                for (weight, _, gaussian) in profile.along_row(first) {
                    let height = spot.amplitude * weight;
                    line.iter_mut()
                        .zip(gaussian)
                        .for_each(|(pixel, value)| *pixel += (height * value) as f32);
                }
            }
        }
    });
    picture
}

/// Means weighted by a Gaussian of `sigma_px`; non-finite values are left out, and are NaN where there is nothing else.
pub(crate) fn blurred(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let values = image.mapv(|value| if value.is_finite() { value } else { 0.0 });
    blur(values, sigma_px) / measured_weight(image, sigma_px)
}

/// The part of the weights around each pixel that is measured, NaN where that is nothing.
pub(super) fn measured_weight(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let mut weight = blur(image.mapv(|value| f32::from(value.is_finite())), sigma_px);
    weight.mapv_inplace(|weight| if weight > 1e-6 { weight } else { f32::NAN });
    weight
}

/// Weighted sums; what lies beyond the edge counts as 0.
pub(super) fn blur(image: Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let transposed = |image: &Array2<f32>| image.t().as_standard_layout().into_owned();
    let along = along_rows(&image, sigma_px);
    transposed(&along_rows(&transposed(&along), sigma_px))
}

fn along_rows(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let reach = (3.5 * sigma_px).ceil() as usize;
    let kernel: Vec<f32> = (0..=2 * reach)
        .map(|k| (-0.5 * ((k as f64 - reach as f64) / sigma_px).powi(2)).exp() as f32)
        .collect();
    let sum: f32 = kernel.iter().sum();
    let kernel: Vec<f32> = kernel.iter().map(|weight| weight / sum).collect();
    let (rows, cols) = image.dim();
    let mut out = Array2::<f32>::zeros((rows, cols));
    let Some(values) = out.as_slice_mut() else { return out };
    values.par_chunks_mut(cols.max(1)).enumerate().for_each(|(row, out)| {
        let mut padded = vec![0.0_f32; cols + 2 * reach];
        padded[reach..reach + cols].iter_mut().zip(image.row(row)).for_each(|(to, from)| *to = *from);
        // Tap by tap, so that sums run over pixels side by side.
        for (k, &weight) in kernel.iter().enumerate() {
            out.iter_mut().zip(&padded[k..]).for_each(|(out, value)| *out += weight * value);
        }
    });
    out
}

/// The variance of a pixel: `constant + per_unit · expectation`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Noise {
    pub(super) constant: f64,
    pub(super) per_unit: f64,
    /// No variance is below it.
    pub(super) floor: f64,
}

impl Noise {
    pub(super) const UNIFORM: Self = Self { constant: 1.0, per_unit: 0.0, floor: 1.0 };

    pub(super) fn variance(&self, expectation: f64) -> f64 {
        (self.constant + self.per_unit * expectation).max(self.floor)
    }

    /// From the residuals, as a line through their mean squares in classes of brightness.
    pub(super) fn of(expectation: &Array2<f32>, residual: &Array2<f32>) -> Self {
        let mut pairs: Vec<(f32, f32)> = expectation
            .iter()
            .zip(residual)
            .filter(|(m, r)| m.is_finite() && r.is_finite())
            .map(|(&m, &r)| (m, r))
            .collect();
        if pairs.len() < NOISE_BINS * 8 {
            return Self::UNIFORM;
        }
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let bins: Vec<(f64, f64)> = pairs
            .chunks(pairs.len().div_ceil(NOISE_BINS))
            .map(|bin| {
                let n = bin.len() as f64;
                let mean = bin.iter().map(|p| f64::from(p.0)).sum::<f64>() / n;
                (mean, bin.iter().map(|p| f64::from(p.1).powi(2)).sum::<f64>() / n)
            })
            .collect();
        // Each mean square scatters in proportion to itself.
        let line = |weights: &dyn Fn(f64) -> f64| {
            let (mut w, mut wm, mut wmm, mut wv, mut wmv) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for &(m, v) in &bins {
                let weight = weights(v);
                (w, wm, wmm) = (w + weight, wm + weight * m, wmm + weight * m * m);
                (wv, wmv) = (wv + weight * v, wmv + weight * m * v);
            }
            let per_unit = (w * wmv - wm * wv) / (w * wmm - wm * wm);
            ((wv - per_unit * wm) / w, per_unit)
        };
        let brightest = bins.last().map_or(0.0, |bin| bin.1);
        let least = 1e-3 * brightest.max(f64::MIN_POSITIVE);
        let (constant, per_unit) = line(&|v| v.max(least).powi(-2));
        let mean_square = bins.iter().map(|bin| bin.1).sum::<f64>() / bins.len() as f64;
        if !(per_unit > 0.0 && constant.is_finite()) {
            return Self { constant: mean_square, per_unit: 0.0, floor: mean_square.max(f64::MIN_POSITIVE) };
        }
        let bright = bins.last().map_or(0.0, |bin| constant + per_unit * bin.0);
        Self { constant, per_unit, floor: (VARIANCE_FLOOR * bright).max(f64::MIN_POSITIVE) }
    }
}

/// How much wider means over neighbouring pixels scatter than those of independent ones: the square root of the sum of the
/// residuals' autocorrelation, at least 1. A frame that was smoothed, or resampled, has correlated noise.
pub(super) fn correlation(residual: &Array2<f32>, noise_per_px: &Array2<f32>) -> f64 {
    const LAG: isize = 3;
    let (rows, cols) = residual.dim();
    let normal = |row: usize, col: usize| {
        let value = residual[[row, col]] / noise_per_px[[row, col]];
        if value.is_finite() { f64::from(value) } else { 0.0 }
    };
    let lag = LAG as usize;
    if rows <= 2 * lag || cols <= 2 * lag {
        return 1.0;
    }
    let (mut square, mut sum) = (0.0, 0.0);
    for row in (lag..rows - lag).step_by(2) {
        for col in (lag..cols - lag).step_by(2) {
            let here = normal(row, col);
            square += here * here;
            for dr in -LAG..=LAG {
                for dc in -LAG..=LAG {
                    sum += here * normal(row.wrapping_add_signed(dr), col.wrapping_add_signed(dc));
                }
            }
        }
    }
    if square > 0.0 { (sum / square).max(1.0).sqrt() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Poisson};

    #[test]
    fn blurring_keeps_constants_and_leaves_out_what_was_not_measured() {
        let mut image = Array2::from_elem((40, 50), 3.0_f32);
        image[[10, 10]] = f32::NAN;
        let blur = blurred(&image, 4.0);
        assert!(blur.iter().all(|v| (v - 3.0).abs() < 1e-4));
    }

    #[test]
    fn the_noise_of_counts_is_their_mean() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mean = Array2::from_shape_fn((128, 128), |(row, _)| 2.0 + row as f32);
        let residual = mean.mapv(|m| Poisson::new(f64::from(m)).unwrap().sample(&mut rng) as f32 - m);
        let noise = Noise::of(&mean, &residual);
        assert!((noise.per_unit - 1.0).abs() < 0.1 && noise.constant.abs() < 1.0, "{noise:?}");
        let sigma = mean.mapv(f32::sqrt);
        let white = correlation(&residual, &sigma);
        assert!(white < 1.2, "{white}");
        // Means over 3 x 3 pixels: nine equal neighbours, three times the scatter.
        let smooth = Array2::from_shape_fn((126, 126), |(r, c)| {
            residual.slice(ndarray::s![r..r + 3, c..c + 3]).sum() / 9.0
        });
        let flat = sigma.slice(ndarray::s![1..127, 1..127]).to_owned();
        let correlated = correlation(&smooth, &flat);
        assert!((correlated / 3.0 - 1.0).abs() < 0.25, "{correlated}");
    }
}
