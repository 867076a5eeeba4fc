//! The noise of a frame, by what a model leaves over of it.

use ndarray::Array2;

/// Classes of brightness by which the noise is estimated.
const NOISE_BINS: usize = 12;
/// Variances are not believed to fall below this fraction of that at a bright column.
const VARIANCE_FLOOR: f64 = 0.03;

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

    /// From the differences of neighbouring pixels, the same everywhere: what there is to go by before a frame is fitted.
    pub(super) fn between_neighbours(frame: &Array2<f32>) -> Self {
        let pairs = frame.rows().into_iter().step_by(4).flat_map(|row| {
            row.into_iter().zip(row.into_iter().skip(1)).map(|(a, b)| f64::from(b - a)).collect::<Vec<_>>()
        });
        let (sum, count) = pairs
            .filter(|difference| difference.is_finite())
            .fold((0.0, 0_usize), |(sum, count), difference| (sum + difference * difference, count + 1));
        let variance = (0.5 * sum / count.max(1) as f64).max(f64::MIN_POSITIVE);
        Self { constant: variance, per_unit: 0.0, floor: variance }
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
