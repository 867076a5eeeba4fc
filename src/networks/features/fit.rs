//! From frames of features to the components in which they vary.

use super::{Calibration, FeatureError, FeatureStatistics, is_measured};
use nalgebra::{DMatrix, DVector};
use ndarray::ArrayView3;

/// Added to the diagonal of the features' correlation matrix, so that features which follow from others do not blow up
/// the distance.
const RIDGE: f64 = 1e-3;
/// Standard deviation granted to every feature, relative to the root mean square of all features' standard deviations,
/// so that a feature which was constant in training does not blow up the distance either.
const LEAST_DEVIATION: f64 = 1e-4;
/// A variance below this part of the squares that it is the difference of is none.
const ROUNDING: f64 = 1e-12;

/// Collects the features of frames like those of the training set.
#[derive(Debug)]
pub struct FeatureAccumulator {
    count: usize,
    sum: DVector<f64>,
    products: DMatrix<f64>,
    /// As `products`, of deviations from each frame's mean.
    within: DMatrix<f64>,
}

impl FeatureAccumulator {
    pub fn new(channels: usize) -> Self {
        let square = DMatrix::zeros(channels, channels);
        Self { count: 0, sum: DVector::zeros(channels), products: square.clone(), within: square }
    }

    /// Adds the windows of a frame, `[window row, window col, channel]`; those that were not measured are passed over.
    pub fn add_frame(&mut self, features: ArrayView3<'_, f32>) {
        let channels = self.sum.len();
        let windows = features.lanes(ndarray::Axis(2)).into_iter();
        let measured: Vec<f64> = windows
            .filter(|window| window.len() == channels && is_measured(window))
            .flat_map(|window| window.iter().map(|&value| f64::from(value)).collect::<Vec<_>>())
            .collect();
        let count = measured.len() / channels.max(1);
        if count == 0 {
            return;
        }
        let mut windows = DMatrix::from_vec(channels, count, measured);
        self.products += &windows * windows.transpose();
        let mean = windows.column_mean();
        self.sum += &mean * count as f64;
        for mut window in windows.column_iter_mut() {
            window -= &mean;
        }
        self.within += &windows * windows.transpose();
        self.count += count;
    }

    /// Statistics without a calibration of their scores.
    ///
    /// # Errors
    /// When there are too few windows for a covariance, or their features do not vary.
    pub fn finish(self) -> Result<FeatureStatistics, FeatureError> {
        let samples = self.count;
        if samples < 2 {
            return Err(FeatureError::Singular { samples });
        }
        let n = samples as f64;
        let mean = &self.sum / n;
        let covariance = &self.products / n - &mean * mean.transpose();
        let moments = self.products.trace() / n;
        if covariance.trace() <= ROUNDING * moments {
            return Err(FeatureError::Singular { samples });
        }
        let whitening = whitening(covariance).ok_or(FeatureError::Singular { samples })?;
        // Turned so that components do not correlate within frames either.
        let within = &whitening * (&self.within / n) * whitening.transpose();
        let axes = within.symmetric_eigen();
        let whitening = axes.eigenvectors.transpose() * whitening;
        Ok(FeatureStatistics {
            mean: mean.iter().map(|&m| m as f32).collect(),
            whitening: whitening.transpose().iter().map(|&w| w as f32).collect(),
            within: axes.eigenvalues.iter().map(|&variance| variance.max(0.0) as f32).collect(),
            calibration: Calibration { usual: Vec::new(), thresholds: Vec::new() },
        })
    }
}

/// The matrix that turns deviations into independent components of unit variance. Features are brought to unit variance
/// before the ridge is added, so that it weighs the same on all of them whatever their scale. `None` when every feature
/// is constant or one is not finite.
fn whitening(mut covariance: DMatrix<f64>) -> Option<DMatrix<f64>> {
    let channels = covariance.nrows();
    let least = LEAST_DEVIATION.powi(2) * covariance.trace() / channels as f64;
    for i in 0..channels {
        covariance[(i, i)] += least;
    }
    let inverse_deviations = covariance.diagonal().map(|variance| variance.sqrt().recip());
    if !inverse_deviations.iter().all(|inverse| inverse.is_finite()) {
        return None;
    }
    let standardise = DMatrix::from_diagonal(&inverse_deviations);
    let mut correlation = &standardise * covariance * &standardise;
    for i in 0..channels {
        correlation[(i, i)] += RIDGE;
    }
    Some(correlation.cholesky()?.l().try_inverse()? * standardise)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array3, s};
    use rand::SeedableRng as _;
    use rand_distr::{Distribution as _, StandardNormal};

    /// Frames of windows with three features: the first has an offset that differs from frame to frame, the second follows from the
    /// first in part, the third is on a scale of its own.
    fn frames(count: usize, seed: u64, scale: [f32; 3]) -> Vec<Array3<f32>> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || -> f32 { StandardNormal.sample(&mut rng) };
        let frame = |_| {
            let offset = 3.0 + 2.0 * draw();
            let mut frame = Array3::zeros((8, 8, 3));
            for mut window in frame.lanes_mut(ndarray::Axis(2)) {
                let (u, v, w) = (draw(), draw(), draw());
                let values = [offset + 0.5 * u, u + 0.5 * v, 10.0 * w - 4.0];
                window.iter_mut().zip(values).zip(scale).for_each(|((to, value), scale)| *to = value * scale);
            }
            frame
        };
        (0..count).map(frame).collect()
    }

    fn statistics(frames: &[Array3<f32>]) -> FeatureStatistics {
        let mut accumulator = FeatureAccumulator::new(3);
        frames.iter().for_each(|frame| accumulator.add_frame(frame.view()));
        accumulator.finish().unwrap()
    }

    #[test]
    fn components_vary_by_1_over_all_and_as_said_within_frames() {
        let training = frames(400, 1, [1.0; 3]);
        let statistics = statistics(&training);
        let components: Vec<Array3<f32>> =
            training.iter().map(|frame| statistics.components(frame.view()).unwrap()).collect();
        let mean = |of: &dyn Fn(&Array3<f32>, usize, usize) -> f32, i: usize, j: usize| {
            components.iter().map(|frame| of(frame, i, j)).sum::<f32>() / components.len() as f32
        };
        let product = |frame: &Array3<f32>, i: usize, j: usize| {
            (&frame.slice(s![.., .., i]) * &frame.slice(s![.., .., j])).mean().unwrap()
        };
        let deviating = |frame: &Array3<f32>, i: usize, j: usize| {
            let [a, b] = [i, j].map(|k| frame.slice(s![.., .., k]).to_owned());
            (&a - a.mean().unwrap()).dot_with(&(&b - b.mean().unwrap()))
        };
        for (i, j) in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)] {
            let all = if i == j { 1.0 } else { 0.0 };
            assert!((mean(&product, i, j) - all).abs() < 0.02, "{i} {j}: {}", mean(&product, i, j));
            let within = if i == j { statistics.within[i] } else { 0.0 };
            assert!((mean(&deviating, i, j) - within).abs() < 0.02, "{i} {j}");
        }
        // The offset of frames varies by 4, the feature in them by 0.25.
        let least = statistics.within.iter().copied().fold(1.0, f32::min);
        assert!(
            least < 0.06 && statistics.within.iter().filter(|w| **w > 0.9).count() == 2,
            "{:?}",
            statistics.within
        );
    }

    trait DotWith {
        fn dot_with(&self, other: &Self) -> f32;
    }
    impl DotWith for ndarray::Array2<f32> {
        fn dot_with(&self, other: &Self) -> f32 {
            (self * other).mean().unwrap()
        }
    }

    #[test]
    fn the_scale_of_a_feature_does_not_matter() {
        let lengths = |scale: [f32; 3]| -> Vec<f32> {
            let frames = frames(60, 4, scale);
            let statistics = statistics(&frames);
            let components = statistics.components(frames[0].view()).unwrap();
            components.mapv(|value| value * value).sum_axis(ndarray::Axis(2)).into_iter().collect()
        };
        for (a, b) in lengths([1.0; 3]).iter().zip(&lengths([100.0, 1.0, 10.0])) {
            assert!((a - b).abs() < 0.02 * a.max(0.1), "{a} {b}");
        }
    }

    #[test]
    fn features_without_any_spread_are_refused() {
        let mut accumulator = FeatureAccumulator::new(2);
        accumulator.add_frame(Array3::from_elem((2, 3, 2), 1.0).view());
        let error = accumulator.finish().unwrap_err();
        assert!(matches!(error, FeatureError::Singular { samples: 6 }), "{error}");
    }
}
