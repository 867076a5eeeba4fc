//! Frames to train on, with what is known of them. Simulated ones are determined by their seed alone.

use super::TrainError;
use crate::frame::ClassicalCell;
use crate::preprocess::Normalisation;
use crate::simulate::{TrainingRanges, TruthCell, TruthColumn, random_scene, render};
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::Array2;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};

/// Which part of the endless stream of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// Frame `index` of training step `step`.
    Training { step: u64, index: usize },
    /// Frames on which the result is judged.
    HeldOut { index: usize },
    /// Frames on which the out-of-distribution test and sigma are calibrated; neither trained nor judged on.
    Calibration { index: usize },
    /// Frames from which feature statistics are taken.
    Statistics { index: usize },
    /// Frames over which a fresh network is normalised.
    Normalising { index: usize },
}

impl Split {
    /// Whether a network takes anything from these frames; on the others it is judged and calibrated.
    pub(super) const fn is_learned_from(self) -> bool {
        matches!(self, Self::Training { .. } | Self::Normalising { .. })
    }

    /// One stream of random numbers a split, one position in it a frame.
    fn stream(self) -> (u64, u64) {
        match self {
            Self::Training { step, index } => (0, step * 4096 + index as u64),
            Self::HeldOut { index } => (1, index as u64),
            Self::Calibration { index } => (2, index as u64),
            Self::Normalising { index } => (3, index as u64),
            Self::Statistics { index } => (4, index as u64),
        }
    }

    /// The random numbers of a frame.
    pub(super) fn random(self, seed: u64) -> ChaCha8Rng {
        let (stream, frame) = self.stream();
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ frame.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        rng.set_stream(stream);
        rng
    }
}

/// A frame at the model's scale, and what is known of it.
#[derive(Debug, Clone)]
pub struct Sample {
    /// `[row, col]`; NaN where nothing was measured.
    pub pixels: Array2<f32>,
    pub cells: Vec<KnownCell>,
    /// Positions in pixels of the sample.
    pub columns: Vec<TruthColumn>,
    /// Counts at the peak of an A column, where they are known.
    pub peak_counts: Option<f64>,
}

/// A unit cell as the image shows it: its P is the apparent one, mistilt included, which no single cell can tell from a
/// real one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnownCell {
    /// Positions in pixels of the sample; NaN where it is not known.
    pub cell: ClassicalCell,
    /// Nothing is learned from it, nor from the cell next to it in its place.
    pub disturbed: bool,
}

/// A scene drawn from `ranges` and imaged at `[side, side]` px, with a contrast drawn from `gamma`.
pub(super) fn simulated(
    ranges: &TrainingRanges,
    gamma: [f64; 2],
    side: usize,
    seed: u64,
    split: Split,
) -> Result<Sample, TrainError> {
    let mut rng = split.random(seed);
    let (specimen, microscope) = random_scene(ranges, [side, side], &mut rng);
    let mut frame = render(&specimen, &microscope, &mut rng)?;
    bend(&mut frame.pixels, gamma, &mut rng);
    let known = |cell: &TruthCell| KnownCell { cell: cell.as_measured(), disturbed: cell.disturbed };
    Ok(Sample {
        cells: frame.truth.cells.iter().map(known).collect(),
        columns: frame.truth.columns,
        pixels: frame.pixels,
        peak_counts: Some(microscope.peak_counts),
    })
}

/// Raises pixels to a power drawn from `gamma`; the largest stays as it is, what is below 0 becomes 0.
pub(super) fn bend(pixels: &mut Array2<f32>, gamma: [f64; 2], rng: &mut impl Rng) {
    if gamma == [1.0, 1.0] {
        return;
    }
    let largest = pixels.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let power = rng.random_range(gamma[0]..=gamma[1]) as f32;
    let bent =
        |value: f32| if value.is_nan() { value } else { largest * (value.max(0.0) / largest).powf(power) };
    pixels.mapv_inplace(bent);
}

/// Adds Gaussian noise as scikit-image's `random_noise` does (Nelson et al., figure 7): pixels are taken as fractions of the
/// range between the smallest and the largest, noise of `variance` is added, and what leaves the range is cut off. NaN stays.
pub fn add_gaussian_noise(pixels: &mut Array2<f32>, variance: f64, rng: &mut impl Rng) {
    let finite = pixels.iter().copied().filter(|value| value.is_finite());
    let [low, high] = finite.fold([f32::MAX, f32::MIN], |[low, high], v| [low.min(v), high.max(v)]);
    let scale = variance.sqrt() as f32 * (high - low);
    for pixel in pixels.iter_mut().filter(|value| value.is_finite()) {
        let noise: f32 = StandardNormal.sample(rng);
        *pixel = (*pixel + scale * noise).clamp(low, high);
    }
}

/// Normalised frames as one batch.
///
/// # Shapes
/// - result: `[batch, 1, row, col]`
pub(super) fn upload(frames: &[Array2<f32>], device: &Device) -> Tensor<4> {
    let (rows, cols) = frames.first().map_or((0, 0), |frame| frame.dim());
    let values: Vec<f32> = frames.iter().flat_map(|frame| frame.iter().copied()).collect();
    Tensor::from_data(TensorData::new(values, [frames.len(), 1, rows, cols]), device)
}

/// As the live path normalises.
pub(super) fn normalised(sample: &Sample, normalisation: Normalisation) -> Array2<f32> {
    normalisation.normalise(&sample.pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_its_variance_in_the_range_of_the_pixels_and_leaves_what_was_not_measured() {
        // Half of the range, so that next to nothing is cut off, and the range's two ends.
        let mut pixels = Array2::from_elem((100, 100), 150.0f32);
        (pixels[[0, 0]], pixels[[0, 1]], pixels[[0, 2]]) = (100.0, 200.0, f32::NAN);
        add_gaussian_noise(&mut pixels, 0.01, &mut ChaCha8Rng::seed_from_u64(1));
        assert!(pixels[[0, 2]].is_nan());
        let inner = || pixels.iter().skip(3).map(|&value| f64::from(value) - 150.0);
        assert!(inner().all(|value| value.abs() <= 50.0));
        let deviation = (inner().map(|value| value * value).sum::<f64>() / inner().count() as f64).sqrt();
        // A tenth of 100.
        assert!((deviation - 10.0).abs() < 0.3, "{deviation}");
    }
}
