//! What the DCNN's features look like on data like its training set: the reference of the out-of-distribution test.
//!
//! - [`FeatureStatistics`]: what lies in `features.safetensors`; - [`fit`]: how it is made; - [`WindowScores`]: how far each
//!   window is from the training set and from its surroundings; - [`Calibration`]: what they are worth as p-values.

mod calibration;
mod fit;
mod scores;
mod thresholds;

pub use calibration::{Calibration, HeldOut, Score};
pub use fit::FeatureAccumulator;
pub(crate) use scores::is_measured;
pub use scores::{Sampling, WindowScores};

use crate::frame::PolarizationMaps;
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Zip};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Statistics of a model's features. Its components are uncorrelated over all windows and, at the same time, within frames.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureStatistics {
    /// `[channel]`.
    pub mean: Vec<f32>,
    /// Row-major `[component, channel]`: the components of features are `whitening · (features − mean)`, of variance 1 over all
    /// windows.
    pub whitening: Vec<f32>,
    /// `[component]`: their variance within a frame, 0 to 1.
    pub within: Vec<f32>,
    pub calibration: Calibration,
}

/// A statistics file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    #[error("the feature statistics cannot be read: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    #[error("the feature statistics lack `{0}`, or it is no array of finite f32")]
    Missing(&'static str),
    #[error(
        "the feature statistics are those of an earlier version, without `{0}`: make them anew (`ferrostem train statistics --from-model DIR --output DIR`)"
    )]
    Earlier(&'static str),
    #[error("the feature statistics' `{name}` has {found} values, expected {expected}")]
    Length { name: &'static str, expected: usize, found: usize },
    #[error("the covariance of {samples} feature vectors is not positive definite")]
    Singular { samples: usize },
    #[error("no held-out window has finite scores: p-values cannot be calibrated")]
    Uncalibrated,
}

/// How unusual each window is, `[window row, window col]`; NaN where it was not evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Unusual {
    /// p-values in the order of [`Score`]; that of [`Score::Together`] is the one to go by.
    pub p_values: [Array2<f32>; Score::ALL.len()],
    /// What ranks windows, see [`Surprise`](calibration::Surprise).
    pub strangeness: Array2<f32>,
    /// 10 to the number of decades by which the strangeness lies above what one window in a thousand exceeds.
    pub excess: Array2<f32>,
    /// What all of it comes from.
    pub scores: WindowScores,
}

impl Unusual {
    pub const fn p_value(&self) -> &Array2<f32> {
        &self.p_values[Score::Together as usize]
    }
}

impl FeatureStatistics {
    /// Statistics that leave features as they are and know nothing of them.
    pub(crate) fn raw(channels: usize) -> Self {
        let whitening = Array2::<f32>::eye(channels).into_raw_vec_and_offset().0;
        let calibration = Calibration { usual: Vec::new(), thresholds: Vec::new() };
        Self { mean: vec![0.0; channels], whitening, within: vec![1.0; channels], calibration }
    }

    /// The components of windows' features, `[window row, window col, channel]` → `[window row, window col, component]`.
    ///
    /// # Errors
    /// When there are not as many channels as the statistics have.
    pub(crate) fn components(&self, features: ArrayView3<'_, f32>) -> Result<Array3<f32>, FeatureError> {
        let (rows, cols, found) = features.dim();
        let expected = self.mean.len();
        let wrong = || FeatureError::Length { name: "features", expected, found };
        let whitening = ArrayView2::from_shape((expected, expected), &self.whitening).map_err(|_| wrong())?;
        if found != expected {
            return Err(wrong());
        }
        let centred: Array2<f32> = features
            .to_shape((rows * cols, found))
            .map_err(|_| wrong())?
            .outer_iter()
            .flat_map(|window| {
                window.iter().zip(&self.mean).map(|(value, mean)| value - mean).collect::<Vec<_>>()
            })
            .collect::<ndarray::Array1<f32>>()
            .into_shape_with_order((rows * cols, found))
            .map_err(|_| wrong())?;
        centred.dot(&whitening.t()).into_shape_with_order((rows, cols, found)).map_err(|_| wrong())
    }

    /// Scores and p-values of a frame's windows.
    ///
    /// # Shapes
    /// - `maps`: the features as components
    pub fn judge(&self, maps: &PolarizationMaps, sampling: Sampling) -> Unusual {
        let scores = self.scores(maps, sampling);
        let surprise = self.calibration.surprise(&scores);
        let p_values = |score: Score, map: &Array2<f32>| {
            map.mapv(|value| self.calibration.p_value(score, value, sampling))
        };
        let local = p_values(Score::Local, &surprise.local);
        let whole = p_values(Score::Whole, &surprise.whole);
        let both = Zip::from(&local)
            .and(&whole)
            .map_collect(|&local, &whole| Calibration::p_value_of_both(local, whole));
        let p_values = Score::ALL.map(|score| match score {
            Score::Local => local.clone(),
            Score::Whole => whole.clone(),
            Score::Together => both.clone(),
            part => p_values(part, &scores.parts[part as usize]),
        });
        let strangeness = surprise.together;
        let excess = strangeness.mapv(|value| 10f32.powf(self.calibration.beyond(value, sampling)));
        Unusual { p_values, strangeness, excess, scores }
    }

    /// Scores of a frame's windows; arguments as of [`Self::judge`].
    pub fn scores(&self, maps: &PolarizationMaps, sampling: Sampling) -> WindowScores {
        WindowScores::of(maps, &self.within, sampling)
    }

    /// As a safetensors file.
    ///
    /// # Errors
    /// When the arrays' lengths do not fit together.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FeatureError> {
        let channels = self.mean.len();
        let Calibration { usual, thresholds } = &self.calibration;
        let shape = |scores: usize| vec![calibration::CLASSES, scores, thresholds::LEVELS];
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let arrays = [
            ("mean", vec![channels], bytes(&self.mean)),
            ("whitening", vec![channels, channels], bytes(&self.whitening)),
            ("within", vec![channels], bytes(&self.within)),
            ("usual", shape(Score::BEFORE_TOGETHER), bytes(usual)),
            ("thresholds", shape(Score::ALL.len()), bytes(thresholds)),
        ];
        let views = arrays
            .iter()
            .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        Ok(safetensors::serialize(views, None)?)
    }

    /// # Errors
    /// When the file is none of ours, is of an earlier version, or its arrays do not fit together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FeatureError> {
        let file = SafeTensors::deserialize(bytes)?;
        let read = |name: &'static str| -> Result<Vec<f32>, FeatureError> {
            let view = file.tensor(name).map_err(|_| FeatureError::Missing(name))?;
            if view.dtype() != Dtype::F32 {
                return Err(FeatureError::Missing(name));
            }
            let (values, _) = view.data().as_chunks::<4>();
            let values: Vec<f32> = values.iter().map(|&value| f32::from_le_bytes(value)).collect();
            if values.iter().all(|value| value.is_finite()) {
                Ok(values)
            } else {
                Err(FeatureError::Missing(name))
            }
        };
        let (mean, whitening) = (read("mean")?, read("whitening")?);
        let within = read("within").map_err(|_| FeatureError::Earlier("within"))?;
        let usual = read("usual").map_err(|_| FeatureError::Earlier("usual"))?;
        // Earlier versions had thresholds for each of several bins of the noise, then fewer scores.
        let shape = file.tensor("usual").map(|view| view.shape().to_vec()).unwrap_or_default();
        if file.tensor("noise_edges").is_ok()
            || shape.get(1).is_some_and(|&scores| scores < Score::BEFORE_TOGETHER)
        {
            return Err(FeatureError::Earlier("thresholds of all scores"));
        }
        let calibration = Calibration::checked(usual, read("thresholds")?)?;
        let fits = |name: &'static str, expected: usize, found: usize| {
            if found == expected { Ok(()) } else { Err(FeatureError::Length { name, expected, found }) }
        };
        fits("whitening", mean.len() * mean.len(), whitening.len())?;
        fits("within", mean.len(), within.len())?;
        Ok(Self { mean, whitening, within, calibration })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::s;

    /// Statistics of two features that are their own components.
    fn plain() -> FeatureStatistics {
        let calibration = Calibration::fit(&[HeldOut::spread(5.0)]).unwrap();
        FeatureStatistics { calibration, ..FeatureStatistics::raw(2) }
    }

    #[test]
    fn files_round_trip_and_bad_ones_are_named() {
        let statistics = FeatureStatistics {
            mean: vec![1.0, 2.0],
            whitening: vec![1.0, 0.0, 0.5, 2.0],
            within: vec![0.5, 0.1],
            ..plain()
        };
        let bytes = statistics.to_bytes().unwrap();
        assert_eq!(FeatureStatistics::from_bytes(&bytes).unwrap(), statistics);
        assert!(FeatureStatistics::from_bytes(&bytes[..20]).is_err());
        let odd = FeatureStatistics { within: vec![0.5; 3], ..statistics.clone() };
        let serialised = odd.to_bytes();
        assert!(serialised.is_err() || FeatureStatistics::from_bytes(&serialised.unwrap()).is_err());
        // A file as version 0.1 wrote it.
        let values: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let square: Vec<u8> = [1.0f32; 4].iter().flat_map(|v| v.to_le_bytes()).collect();
        let arrays = [
            ("mean", vec![2], &values),
            ("whitening", vec![2, 2], &square),
            ("calibration", vec![2], &values),
        ];
        let views = arrays
            .iter()
            .map(|(n, shape, data)| (*n, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
        let earlier = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
        let refusal = FeatureStatistics::from_bytes(&earlier).unwrap_err().to_string();
        assert!(refusal.contains("earlier version") && refusal.contains("train statistics"), "{refusal}");
    }

    #[test]
    fn components_are_the_whitened_deviations() {
        let statistics = FeatureStatistics {
            mean: vec![1.0, 2.0],
            whitening: vec![1.0, 0.0, 0.5, 2.0],
            ..FeatureStatistics::raw(2)
        };
        let features = Array3::from_shape_vec((1, 2, 2), vec![3.0, 2.0, 1.0, 5.0]).unwrap();
        let found = statistics.components(features.view()).unwrap();
        assert_eq!(found, Array3::from_shape_vec((1, 2, 2), vec![2.0, 1.0, 0.0, 6.0]).unwrap());
        assert!(statistics.components(features.slice(s![.., .., ..1])).is_err());
    }

    #[test]
    fn a_strange_window_has_a_small_p_value_and_one_not_measured_has_none() {
        let mut features =
            Array3::from_shape_fn((14, 14, 2), |(i, j, _)| ((i * 5 + j * 3) % 7) as f32 * 0.1 - 0.3);
        // Seen by four windows, as a defect is.
        features.slice_mut(s![9..11, 10..12, 1]).fill(4.0);
        features.slice_mut(s![13, 0, ..]).fill(f32::NAN);
        let maps = PolarizationMaps {
            p_sigma: Array2::from_elem((14, 14), 0.2),
            ..PolarizationMaps::of_features(features)
        };
        let unusual = plain().judge(&maps, Sampling { step_pm: [120.0; 2], pixel_pm: 15.0 });
        let [training, surroundings, sigma, around, cell, .., together] = &unusual.p_values;
        assert!(training[[9, 10]] < 1e-3 && surroundings[[9, 10]] < 1e-3 && together[[9, 10]] < 1e-3);
        assert!(sigma[[9, 10]] > 0.5 && around[[9, 10]] > 0.5 && cell[[9, 10]] == 1.0);
        assert!(training[[0, 0]] > 0.5 && together[[0, 0]] > 0.1);
        assert!(unusual.excess[[9, 10]] > 2.0 * unusual.excess[[0, 0]], "{}", unusual.excess);
        assert!(unusual.p_values.iter().all(|map| map[[13, 0]].is_nan()));
    }
}
