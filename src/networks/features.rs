//! What the DCNN's features look like on data like its training set: the reference of the out-of-distribution test.

use nalgebra::{DMatrix, DVector};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Calibration distances kept at most; beyond them every n-th is kept.
const MAX_CALIBRATION: usize = 20_000;
/// Added to the diagonal of the features' correlation matrix, so that features which follow from others do not blow up
/// the distance.
const RIDGE: f64 = 1e-3;
/// Standard deviation granted to every feature, relative to the root mean square of all features' standard deviations,
/// so that a feature which was constant in training does not blow up the distance either.
const LEAST_DEVIATION: f64 = 1e-4;

/// Mean and whitening of the site features, and the distances that held-out sites have.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureStatistics {
    /// `[channel]`.
    pub mean: Vec<f32>,
    /// Inverse Cholesky factor of the regularised covariance, row-major `[channel, channel]`: the squared Mahalanobis
    /// distance is the squared length of `whitening · (feature − mean)`.
    pub whitening: Vec<f32>,
    /// Squared distances of held-out in-distribution sites, ascending.
    pub calibration: Vec<f32>,
}

/// A statistics file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    #[error("the feature statistics cannot be read: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    #[error("the feature statistics lack `{0}`, or it is no f32 array")]
    Missing(&'static str),
    #[error("the feature statistics' `{name}` has {found} values, expected {expected}")]
    Length { name: &'static str, expected: usize, found: usize },
    #[error("the covariance of {samples} feature vectors is not positive definite")]
    Singular { samples: usize },
}

impl FeatureStatistics {
    /// Conformal p-value of a squared distance: the share of held-out sites at least as far away, never zero.
    /// NaN stays NaN.
    pub fn p_value(&self, distance: f32) -> f32 {
        if distance.is_nan() {
            return f32::NAN;
        }
        let nearer = self.calibration.partition_point(|&held_out| held_out < distance);
        let farther = self.calibration.len() - nearer;
        (farther + 1) as f32 / (self.calibration.len() + 1) as f32
    }

    /// As a safetensors file.
    ///
    /// # Errors
    /// When the arrays' lengths do not fit together.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FeatureError> {
        let channels = self.mean.len();
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let arrays = [
            ("mean", vec![channels], bytes(&self.mean)),
            ("whitening", vec![channels, channels], bytes(&self.whitening)),
            ("calibration", vec![self.calibration.len()], bytes(&self.calibration)),
        ];
        let views = arrays
            .iter()
            .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        Ok(safetensors::serialize(views, None)?)
    }

    /// # Errors
    /// When the file is none of ours, or its arrays do not fit together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FeatureError> {
        let file = SafeTensors::deserialize(bytes)?;
        let read = |name: &'static str| -> Result<Vec<f32>, FeatureError> {
            let view = file.tensor(name).map_err(|_| FeatureError::Missing(name))?;
            if view.dtype() != Dtype::F32 {
                return Err(FeatureError::Missing(name));
            }
            let (values, _) = view.data().as_chunks::<4>();
            Ok(values.iter().map(|&value| f32::from_le_bytes(value)).collect())
        };
        let statistics =
            Self { mean: read("mean")?, whitening: read("whitening")?, calibration: read("calibration")? };
        let expected = statistics.mean.len() * statistics.mean.len();
        if statistics.whitening.len() != expected {
            let found = statistics.whitening.len();
            return Err(FeatureError::Length { name: "whitening", expected, found });
        }
        if statistics.calibration.is_empty() || statistics.calibration.iter().any(|d| !d.is_finite()) {
            return Err(FeatureError::Missing("calibration"));
        }
        Ok(statistics)
    }
}

/// Collects feature vectors, first for mean and covariance, then for the calibration.
#[derive(Debug, Clone)]
pub struct FeatureAccumulator {
    count: usize,
    sum: DVector<f64>,
    products: DMatrix<f64>,
}

impl FeatureAccumulator {
    pub fn new(channels: usize) -> Self {
        Self { count: 0, sum: DVector::zeros(channels), products: DMatrix::zeros(channels, channels) }
    }

    /// Adds one site's features.
    pub fn add(&mut self, features: &[f32]) {
        let vector = DVector::from_iterator(features.len(), features.iter().map(|&f| f64::from(f)));
        self.products.ger(1.0, &vector, &vector, 1.0);
        self.sum += vector;
        self.count += 1;
    }

    /// Mean and whitening, with the calibration distances of `held_out` sites (their feature vectors).
    ///
    /// # Errors
    /// When there are too few sites for a covariance.
    pub fn finish(self, held_out: &[Vec<f32>]) -> Result<FeatureStatistics, FeatureError> {
        let samples = self.count;
        if samples < 2 {
            return Err(FeatureError::Singular { samples });
        }
        let n = samples as f64;
        let mean = &self.sum / n;
        let covariance = &self.products / n - &mean * mean.transpose();
        let whitening = whitening(covariance).ok_or(FeatureError::Singular { samples })?;
        let mut calibration: Vec<f32> = held_out
            .iter()
            .map(|features| {
                let vector = DVector::from_iterator(features.len(), features.iter().map(|&f| f64::from(f)));
                (&whitening * (vector - &mean)).norm_squared() as f32
            })
            .collect();
        calibration.sort_by(f32::total_cmp);
        let every = calibration.len().div_ceil(MAX_CALIBRATION).max(1);
        // Counted from the far end, so that the largest distances, which decide small p-values, stay.
        let mut kept: Vec<f32> = calibration.into_iter().rev().step_by(every).collect();
        kept.reverse();
        Ok(FeatureStatistics {
            mean: mean.iter().map(|&m| m as f32).collect(),
            whitening: whitening.transpose().iter().map(|&w| w as f32).collect(),
            calibration: kept,
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
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    fn normal_vectors(count: usize, seed: u64) -> Vec<Vec<f32>> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || -> f64 { StandardNormal.sample(&mut rng) };
        (0..count)
            .map(|_| {
                let (u, v, w) = (draw(), draw(), draw());
                vec![(3.0 + 2.0 * u) as f32, (u + 0.5 * v) as f32, (10.0 * w - 4.0) as f32]
            })
            .collect()
    }

    #[test]
    fn p_values_are_uniform_on_data_like_the_training_set() {
        let mut accumulator = FeatureAccumulator::new(3);
        for vector in normal_vectors(20_000, 1) {
            accumulator.add(&vector);
        }
        let statistics = accumulator.finish(&normal_vectors(5_000, 2)).unwrap();
        let fresh = normal_vectors(5_000, 3);
        let distance = |v: &[f32]| -> f32 {
            (0..3)
                .map(|row| {
                    (0..3)
                        .map(|k| statistics.whitening[row * 3 + k] * (v[k] - statistics.mean[k]))
                        .sum::<f32>()
                })
                .map(|whitened| whitened * whitened)
                .sum()
        };
        // Three whitened normal components: the squared distance has mean 3.
        let mean = fresh.iter().map(|v| f64::from(distance(v))).sum::<f64>() / fresh.len() as f64;
        assert!((mean - 3.0).abs() < 0.15, "{mean}");
        for alpha in [0.1f32, 0.01] {
            let below = fresh.iter().filter(|v| statistics.p_value(distance(v)) < alpha).count();
            let share = below as f32 / fresh.len() as f32;
            assert!((share - alpha).abs() < 0.25 * alpha + 0.004, "{alpha}: {share}");
        }
        assert!(statistics.p_value(1e9) < 3e-4);
        assert!(statistics.p_value(f32::NAN).is_nan());
    }

    #[test]
    fn the_scale_of_a_feature_does_not_matter_and_constant_ones_stay_quiet() {
        let vectors = normal_vectors(2_000, 4);
        let distances = |scale: [f32; 3]| -> Vec<f32> {
            let rescaled: Vec<Vec<f32>> = vectors
                .iter()
                .map(|v| v.iter().zip(scale).map(|(value, scale)| value * scale).chain([2.5]).collect())
                .collect();
            let mut accumulator = FeatureAccumulator::new(4);
            for vector in &rescaled {
                accumulator.add(vector);
            }
            accumulator.finish(&rescaled).unwrap().calibration
        };
        let (one, other) = (distances([1.0; 3]), distances([100.0, 1.0, 10.0]));
        for (a, b) in one.iter().zip(&other) {
            assert!((a - b).abs() < 0.01 * a.max(0.1), "{a} {b}");
        }
        let mean = one.iter().sum::<f32>() / one.len() as f32;
        assert!((mean - 3.0).abs() < 0.1, "{mean}");
    }

    #[test]
    fn features_without_any_spread_are_refused() {
        let mut accumulator = FeatureAccumulator::new(2);
        for _ in 0..5 {
            accumulator.add(&[1.0, 2.0]);
        }
        let error = accumulator.finish(&[vec![1.0, 2.0]]).unwrap_err();
        assert!(matches!(error, FeatureError::Singular { samples: 5 }), "{error}");
    }

    #[test]
    fn files_round_trip_and_bad_ones_are_named() {
        let statistics = FeatureStatistics {
            mean: vec![1.0, 2.0],
            whitening: vec![1.0, 0.0, 0.5, 2.0],
            calibration: vec![0.1, 0.2, 7.0],
        };
        let bytes = statistics.to_bytes().unwrap();
        assert_eq!(FeatureStatistics::from_bytes(&bytes).unwrap(), statistics);
        assert!(FeatureStatistics::from_bytes(&bytes[..20]).is_err());
        assert!((statistics.p_value(0.15) - 0.75).abs() < 1e-6);
    }
}
