//! Frames to train on, with what is known of them. Simulated ones are determined by their seed alone.

use super::TrainError;
use crate::frame::ClassicalCell;
use crate::preprocess::{Normalisation, PixelMap, resample};
use crate::simulate::{Microscope, Specimen, TrainingRanges, Truth, TruthColumn, random_scene, render};
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array2, s};
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
    /// Frames on which it is checked, while training, whether the network still becomes better.
    Stopping { index: usize },
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
            Self::Stopping { index } => (5, index as u64),
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
    /// Whether `columns` are all that the frame shows; else some may be missing, near its edge and where they could not be measured.
    pub complete: bool,
    /// Counts of a pixel at the peak of an A column, where they are known.
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

/// Pixel sizes of frames that come to a network resampled, pm; uniform in the logarithm.
const RESAMPLED_PM: [f64; 2] = [7.0, 36.0];

/// How frames are simulated and brought to a network's scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Simulation<'a> {
    pub ranges: &'a TrainingRanges,
    /// Their contrast is raised to a power from this range.
    pub gamma: [f64; 2],
    /// The network's.
    pub pixel_size_pm: f64,
    /// How many frames have another pixel size and are resampled, as the live path resamples them: 0 to 1.
    pub resampled: f64,
}

/// A frame as it comes to a network.
pub(super) struct AtScale {
    /// `[row, col]`, at least as large as was asked for.
    pub pixels: Array2<f32>,
    /// From the network's pixels to those of `truth`.
    pub map: PixelMap,
    pub truth: Truth,
    pub specimen: Specimen,
    pub microscope: Microscope,
}

impl Simulation<'_> {
    /// A scene that is drawn at random; of at least `[side, side]` px, and just that where it is not resampled.
    pub fn frame(&self, side: usize, rng: &mut impl Rng) -> Result<AtScale, TrainError> {
        let resampled = self.resampled > 0.0 && rng.random_bool(self.resampled);
        let (pixel_pm, side) = if resampled {
            let [low, high] = RESAMPLED_PM.map(f64::ln);
            let pixel_pm = rng.random_range(low..=high).exp();
            // A little more, so that cutting to whole model pixels takes none; pixels may be lower than wide.
            let lowest_pm = pixel_pm * self.ranges.faults.pixel_aspect[0].min(1.0);
            ([pixel_pm; 2], (side as f64 * self.pixel_size_pm / lowest_pm).ceil() as usize + 1)
        } else {
            (self.ranges.pixel_size_pm, side)
        };
        let ranges = TrainingRanges { pixel_size_pm: pixel_pm, ..self.ranges.clone() };
        let (specimen, microscope) = random_scene(&ranges, [side; 2], rng);
        let mut frame = render(&specimen, &microscope, rng)?;
        bend(&mut frame.pixels, self.gamma, rng);
        let (mut pixels, mut map) = (frame.pixels, PixelMap::IDENTITY);
        if resampled {
            map = PixelMap::between(microscope.pixel_sizes_pm(), self.pixel_size_pm);
            let valid = Array2::from_elem(pixels.dim(), true);
            pixels = resample(&pixels, &valid, &map, usize::MAX)?.image;
        }
        Ok(AtScale { pixels, map, truth: frame.truth, specimen, microscope })
    }

    /// A frame of `[side, side]` px with what is known of it.
    pub fn sample(&self, side: usize, seed: u64, split: Split) -> Result<Sample, TrainError> {
        let AtScale { mut pixels, map, truth, microscope, .. } = self.frame(side, &mut split.random(seed))?;
        pixels.slice_collapse(s![..side, ..side]);
        let mut cells: Vec<KnownCell> = truth
            .cells
            .iter()
            .map(|cell| KnownCell { cell: cell.as_measured(), disturbed: cell.disturbed })
            .collect();
        for KnownCell { cell, .. } in &mut cells {
            (cell.row, cell.col) = map.frame_to_model(cell.row, cell.col);
        }
        let mut columns = truth.columns;
        for column in &mut columns {
            (column.row, column.col) = map.frame_to_model(column.row, column.col);
        }
        // In the network's pixels, which may hold many of the frame's, or a part of one.
        let peak_counts = Some(microscope.peak_counts * map.scale_row * map.scale_col);
        Ok(Sample { pixels, cells, columns, complete: true, peak_counts })
    }
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
    use crate::frame::Sublattice;
    use crate::preprocess::median;
    use crate::simulate::Faults;

    /// Of coarse and of fine frames alike: what is bright in the frame lies where its columns are said to be.
    #[test]
    fn a_resampled_frame_is_known_at_the_networks_scale() {
        let ranges = TrainingRanges {
            pixel_size_pm: [15.0; 2],
            peak_counts: [3000.0; 2],
            faults: Faults::none(),
            line_jitter_pm: [0.0; 2],
            drift_fraction: [0.0; 2],
            ..TrainingRanges::default()
        };
        let simulation = Simulation { ranges: &ranges, gamma: [1.0; 2], pixel_size_pm: 15.0, resampled: 1.0 };
        for index in 0..6 {
            let sample = simulation.sample(96, 5, Split::HeldOut { index }).unwrap();
            assert_eq!(sample.pixels.dim(), (96, 96));
            let inside = |column: &&TruthColumn| {
                column.class.sublattice() == Some(Sublattice::A)
                    && [column.row, column.col].iter().all(|at| (6.0..=89.0).contains(at))
            };
            let offsets: Vec<[f64; 2]> = sample
                .columns
                .iter()
                .filter(inside)
                .map(|column| {
                    // The centre of mass within 5 px, above what lies at their rim.
                    let at = [column.row, column.col].map(|at| at.round() as usize);
                    let patch = sample.pixels.slice(s![at[0] - 5..=at[0] + 5, at[1] - 5..=at[1] + 5]);
                    let rim = f64::from(patch.iter().copied().fold(f32::MAX, f32::min));
                    let mut sums = [0.0; 3];
                    for ((row, col), &value) in patch.indexed_iter() {
                        let weight = (f64::from(value) - rim).powi(2);
                        sums[0] += weight;
                        sums[1] += weight * (row as f64 - 5.0);
                        sums[2] += weight * (col as f64 - 5.0);
                    }
                    [
                        at[0] as f64 + sums[1] / sums[0] - column.row,
                        at[1] as f64 + sums[2] / sums[0] - column.col,
                    ]
                })
                .collect();
            assert!(offsets.len() > 4, "{}", offsets.len());
            for axis in 0..2 {
                let usual = median(offsets.iter().map(|offset| offset[axis]), f64::total_cmp).unwrap();
                assert!(usual.abs() < 0.5, "frame {index}, axis {axis}: {usual} px");
            }
        }
    }

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
