//! Simulated frames for training, each determined by its seed alone.

use super::TrainError;
use crate::preprocess::Normalisation;
use crate::simulate::{SimulatedFrame, TrainingRanges, random_scene, render};
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::Array2;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Which part of the endless stream of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// Frame `index` of training step `step`.
    Training { step: u64, index: usize },
    /// Frames on which the result is judged.
    HeldOut { index: usize },
    /// Frames on which the out-of-distribution test and sigma are calibrated; neither trained nor judged on.
    Calibration { index: usize },
    /// Frames over which a finished network's convolutions are normalised.
    Folding { index: usize },
}

impl Split {
    /// One stream of random numbers a split, one position in it a frame.
    fn stream(self) -> (u64, u64) {
        match self {
            Self::Training { step, index } => (0, step * 4096 + index as u64),
            Self::HeldOut { index } => (1, index as u64),
            Self::Calibration { index } => (2, index as u64),
            Self::Folding { index } => (3, index as u64),
        }
    }
}

/// A simulated frame and the dose it was made with.
pub(super) struct Sample {
    pub frame: SimulatedFrame,
    /// Counts at the peak of an A column.
    pub peak_counts: f64,
}

/// A scene drawn from `ranges` and imaged at `[side, side]` px, with a contrast drawn from `gamma`.
pub(super) fn simulated(
    ranges: &TrainingRanges,
    gamma: [f64; 2],
    side: usize,
    seed: u64,
    split: Split,
) -> Result<Sample, TrainError> {
    let (stream, frame) = split.stream();
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ frame.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    rng.set_stream(stream);
    let (specimen, microscope) = random_scene(ranges, [side, side], &mut rng);
    let mut frame = render(&specimen, &microscope, &mut rng)?;
    if gamma != [1.0, 1.0] {
        let largest = frame.pixels.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let power = rng.random_range(gamma[0]..=gamma[1]) as f32;
        frame.pixels.mapv_inplace(|value| largest * (value.max(0.0) / largest).powf(power));
    }
    Ok(Sample { frame, peak_counts: microscope.peak_counts })
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
    normalisation.normalise(&sample.frame.pixels)
}
