//! What the DCNN learns from: frames, their windows, and the unit cell of each.

use super::{DcnnTask, WEIGHTS};
use crate::frame::{ClassicalCell, grid_centre};
use crate::polarization::sample_on_grid;
use crate::simulate::TrainingRanges;
use crate::train::TrainError;
use crate::train::columns::{self, Aims};
use crate::train::samples::{Sample, Simulation, Split, add_gaussian_noise, normalised};
use crate::train::settings::Stack;
use ferrostem_proto::{GridSpec, PixelPosition};
use ndarray::{Array2, Array3, Array4, Axis, s as nds};
use rand::RngExt as _;

/// Tells the random numbers of added noise from the others of a frame.
const NOISE_SEED: u64 = 0x6E6F_6973_6500_0001;

/// Tells the random numbers that choose faint frames from the others of a frame.
const FAINT_SEED: u64 = 0x6661_696E_7400_0001;

/// What one frame gives to learn from.
pub(super) struct Windows<'a> {
    /// The whole frame, or one image a window.
    pub(super) images: Vec<Array2<f32>>,
    /// Windows of an image, a side.
    pub(super) side: usize,
    /// Image by image, row by row.
    pub(super) cells: Vec<Option<&'a ClassicalCell>>,
    /// Pixel `[row, col]` of the frame where each image begins.
    pub(super) corners: Vec<[f64; 2]>,
}

/// Frames with the target of every window.
pub struct DcnnBatch {
    pub(super) images: Vec<Array2<f32>>,
    /// `[frame, quantity, window row, window col]` in units of the outputs' scale; 0 where there is none.
    pub(super) targets: Array4<f32>,
    /// The weight of each target; 0 where there is none.
    pub(super) learns: Array4<f32>,
    /// The ways to the columns and their weight, see [`columns::ways`].
    pub(super) ways: [Array4<f32>; 2],
}

impl DcnnTask {
    /// How much a frame counts, 0 to 1.
    fn weight(&self, sample: &Sample) -> f32 {
        let half = self.settings.half_weight_counts;
        sample.peak_counts.map_or(1.0, |counts| counts / (counts + half)) as f32
    }

    /// A frame of `split`, the same whenever it is asked for; labelled or noisy ones only where the network learns from them.
    pub(super) fn sample(&self, split: Split) -> Result<Sample, TrainError> {
        let mut sample = self.drawn(split)?;
        let [least, most] = self.settings.gaussian_noise;
        if most > 0.0 && split.is_learned_from() {
            let mut rng = split.random(self.settings.schedule.seed ^ NOISE_SEED);
            add_gaussian_noise(&mut sample.pixels, rng.random_range(least..=most), &mut rng);
        }
        Ok(sample)
    }

    fn drawn(&self, split: Split) -> Result<Sample, TrainError> {
        let schedule = &self.settings.schedule;
        let Self { settings, labelled, .. } = self;
        let labelled = labelled.as_ref();
        let drawn =
            labelled.and_then(|l| l.drawn(split, schedule, settings.labelled_fraction, settings.gamma));
        if let Some(crop) = drawn {
            return Ok(crop);
        }
        let side = if split.is_learned_from() { schedule.crop_px } else { self.settings.judged_side_px() };
        let simulation = self.settings.simulation();
        let mut rng = split.random(schedule.seed ^ FAINT_SEED);
        if split.is_learned_from() && rng.random_bool(self.settings.faint_fraction) {
            let b_intensity = [0.0, simulation.ranges.b_intensity[0]];
            let ranges = TrainingRanges { b_intensity, ..simulation.ranges.clone() };
            return Simulation { ranges: &ranges, ..simulation }.sample(side, schedule.seed, split);
        }
        simulation.sample(side, schedule.seed, split)
    }

    /// Where the windows of a frame of `side` px are.
    fn grid(&self, side: usize) -> GridSpec {
        let (window, stride) = (self.settings.window_px, self.settings.stride_px);
        let windows = (side - window) / stride + 1;
        let first = (window - 1) as f64 / 2.0;
        let step = stride as f64;
        GridSpec {
            row0: first,
            col0: first,
            step_row: step,
            step_col: step,
            rows: windows as u32,
            cols: windows as u32,
        }
    }

    /// The images to run the network on, and the cell that each of their windows learns from.
    pub(super) fn windows<'a>(&self, sample: &'a Sample, within_pm: f64) -> Windows<'a> {
        let image = normalised(sample, self.settings.normalisation);
        match self.settings.stack {
            Stack::NotCentred => {
                let grid = self.grid(image.nrows());
                let cells = self.window_cells(sample, &grid, within_pm);
                Windows { images: vec![image], side: grid.rows as usize, cells, corners: vec![[0.0; 2]] }
            }
            Stack::Centred { windows } => {
                let cells = sample.cells.iter().filter(|known| !known.disturbed).map(|known| &known.cell);
                let whole: Vec<_> =
                    cells.filter_map(|cell| Some((cell, self.around(&image, cell)?))).collect();
                // From all over the frame.
                let step = whole.len().div_ceil(windows).max(1);
                let mut windows =
                    Windows { images: Vec::new(), side: 1, cells: Vec::new(), corners: Vec::new() };
                for (cell, (image, corner)) in whole.into_iter().step_by(step) {
                    windows.images.push(image);
                    windows.cells.push(Some(cell));
                    windows.corners.push(corner);
                }
                windows
            }
        }
    }

    /// The window around a cell's centre and the pixel where it begins; `None` where it does not fit.
    fn around(&self, image: &Array2<f32>, cell: &ClassicalCell) -> Option<(Array2<f32>, [f64; 2])> {
        let window = self.settings.window_px;
        let [top, left] = [cell.row, cell.col].map(|centre| (centre - (window - 1) as f64 / 2.0).round());
        let fits = |first: f64, size: usize| first >= 0.0 && first as usize + window <= size;
        if !(fits(top, image.nrows()) && fits(left, image.ncols())) {
            return None;
        }
        let corner = [top, left];
        let (top, left) = (top as usize, left as usize);
        Some((image.slice(nds![top..top + window, left..left + window]).to_owned(), corner))
    }

    /// The cell that each window of a grid learns from, row by row.
    fn window_cells<'a>(
        &self,
        sample: &'a Sample,
        grid: &GridSpec,
        within_pm: f64,
    ) -> Vec<Option<&'a ClassicalCell>> {
        let centres: Vec<ClassicalCell> = sample.cells.iter().map(|known| known.cell).collect();
        let pixel = self.settings.pixel_size_pm;
        let far_enough = |cell: &ClassicalCell, window: usize| {
            let (i, j) = (window / grid.cols as usize, window % grid.cols as usize);
            let PixelPosition { row, col } = grid_centre(grid, i, j);
            (row - cell.row).hypot(col - cell.col) * pixel >= self.settings.cell_minimum_pm
        };
        sample_on_grid(&centres, grid, [pixel; 2], within_pm)
            .into_iter()
            .enumerate()
            .map(|(window, index)| {
                let known = sample.cells.get(index?)?;
                (!known.disturbed && far_enough(&known.cell, window)).then_some(&known.cell)
            })
            .collect()
    }

    /// The windows of frames of one size as one batch.
    pub(super) fn assemble(&self, frames: &[Sample]) -> Result<DcnnBatch, TrainError> {
        let windows: Vec<Windows> =
            frames.iter().map(|frame| self.windows(frame, self.settings.cell_upper_bound_pm)).collect();
        let side = windows.first().map_or(1, |windows| windows.side);
        let count = windows.iter().map(|windows| windows.images.len()).sum();
        let mut targets = Array4::zeros((count, WEIGHTS.len(), side, side));
        let mut learns = Array4::zeros((count, WEIGHTS.len(), side, side));
        let weights = windows.iter().zip(frames).flat_map(|(windows, frame)| {
            let weight = self.weight(frame);
            windows.cells.iter().map(move |cell| (cell, weight))
        });
        for (index, (cell, weight)) in weights.enumerate() {
            let Some(cell) = cell else { continue };
            let (n, i, j) = (index / (side * side), index / side % side, index % side);
            for (k, (value, spec)) in cell.quantities().into_iter().zip(&self.outputs).enumerate() {
                if value.is_finite() {
                    learns[[n, k, i, j]] = weight;
                    targets[[n, k, i, j]] = ((value - spec.mean) / spec.scale) as f32;
                }
            }
        }
        let ways = self.ways(frames, &windows)?;
        let images = windows.into_iter().flat_map(|windows| windows.images).collect();
        Ok(DcnnBatch { images, targets, learns, ways })
    }

    /// [`columns::ways`] of every image, weighted as its windows.
    fn ways(&self, frames: &[Sample], windows: &[Windows<'_>]) -> Result<[Array4<f32>; 2], TrainError> {
        let mut targets = Vec::new();
        let mut asked = Vec::new();
        for (frame, windows) in frames.iter().zip(windows) {
            let weight = self.weight(frame);
            for (image, corner) in windows.images.iter().zip(&windows.corners) {
                let shape = <[usize; 2]>::from(image.dim());
                let aims = Aims::new(frame, *corner);
                let [to, ask] = columns::ways(&aims, &self.config(), shape, self.settings.pixel_size_pm);
                targets.push(to);
                asked.push(ask * weight);
            }
        }
        let stacked = |each: Vec<Array3<f32>>| {
            let views: Vec<_> = each.iter().map(|array| array.view()).collect();
            ndarray::stack(Axis(0), &views).map_err(|error| TrainError::Execution(error.to_string()))
        };
        Ok([stacked(targets)?, stacked(asked)?])
    }
}

/// The part of a frame that its windows cover, for tests of the plan.
#[cfg(test)]
fn covered(grid: &GridSpec, window: usize) -> usize {
    (grid.rows as usize - 1) * grid.step_row as usize + window
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::runner::Task as _;
    use crate::train::settings::{DcnnTrainSettings, Schedule};

    #[test]
    fn a_batch_is_the_same_for_the_same_step_and_its_targets_are_in_range() {
        let settings = DcnnTrainSettings::default();
        let task = DcnnTask::new(settings);
        let (first, again) = (task.batch(3).unwrap(), task.batch(3).unwrap());
        assert_eq!(first.images, again.images);
        assert_eq!(first.targets, again.targets);
        assert_ne!(first.images, task.batch(4).unwrap().images);
        let side = task.settings.schedule.crop_px;
        assert!(covered(&task.grid(side), 80) <= side);
        let learning =
            first.learns.iter().filter(|&&weight| weight > 0.0).count() as f32 / first.learns.len() as f32;
        assert!(learning > 0.7, "only {learning} of the windows have a cell");
        // Noisy frames count less, unless asked to count alike.
        let weights =
            |batch: &DcnnBatch| batch.learns.iter().copied().filter(|&w| w > 0.0).collect::<Vec<_>>();
        assert!(weights(&first).iter().any(|&weight| weight < 0.95));
        let alike = DcnnTrainSettings { half_weight_counts: 0.0, ..DcnnTrainSettings::default() };
        assert!(weights(&DcnnTask::new(alike).batch(3).unwrap()).iter().all(|&weight| weight == 1.0));
        let negative = DcnnTrainSettings { half_weight_counts: -1.0, ..DcnnTrainSettings::default() };
        assert!(negative.validate().unwrap_err().to_string().contains("half_weight_counts"));
        let p = first.targets.slice(nds![.., 0..2, .., ..]);
        assert!(p.iter().all(|v| v.abs() * 20.0 <= 120.0));
        assert!(p.iter().any(|v| v.abs() * 20.0 > 2.0));
    }

    #[test]
    fn frames_to_judge_are_large_whatever_those_to_learn_from() {
        for (crop_px, expected) in [(128, 256), (320, 320)] {
            let schedule = Schedule { crop_px, batch: 1, ..Schedule::default() };
            let task = DcnnTask::new(DcnnTrainSettings { schedule, ..DcnnTrainSettings::default() });
            for split in [Split::HeldOut { index: 0 }, Split::Calibration { index: 0 }] {
                let sample = task.sample(split).unwrap();
                assert_eq!(sample.pixels.dim(), (expected, expected));
                // 80 px, and 8 px more for each further window.
                let windows = task.windows(&sample, 285.0);
                assert_eq!(windows.side, (expected - 80) / 8 + 1);
                assert_eq!(windows.cells.len(), windows.side * windows.side);
            }
            assert_eq!(task.batch(0).unwrap().images[0].dim(), (crop_px, crop_px));
        }
    }

    #[test]
    fn centred_windows_are_those_around_cells_and_a_minimum_leaves_near_ones_out() {
        let centred = DcnnTask::new(DcnnTrainSettings {
            stack: Stack::Centred { windows: 5 },
            ..DcnnTrainSettings::default()
        });
        let batch = centred.batch(0).unwrap();
        // Four frames; of one that saturates the detector no cell is known.
        assert!((8..=20).contains(&batch.images.len()), "{}", batch.images.len());
        assert!(batch.images.iter().all(|image| image.dim() == (80, 80)));
        assert_eq!(batch.targets.dim(), (batch.images.len(), 6, 1, 1));
        assert!(batch.learns.iter().all(|&learns| learns > 0.2));

        let sample = centred.sample(Split::Training { step: 0, index: 0 }).unwrap();
        let whole = normalised(&sample, centred.settings.normalisation);
        let windows = centred.windows(&sample, 0.0);
        for (image, cell) in windows.images.iter().zip(&windows.cells) {
            let cell = cell.unwrap();
            // Pixel 39.5 of the window is the cell's centre, to half a pixel.
            let (row, col) = ((cell.row - 39.5).round() as usize, (cell.col - 39.5).round() as usize);
            assert_eq!(image[[40, 40]], whole[[row + 40, col + 40]]);
        }

        let learning = |minimum: f64| {
            let settings = DcnnTrainSettings { cell_minimum_pm: minimum, ..DcnnTrainSettings::default() };
            DcnnTask::new(settings).batch(0).unwrap().learns.sum()
        };
        let (all, some) = (learning(0.0), learning(120.0));
        // A disc of 120 pm in a cell of 400 pm is 28 % of it.
        assert!(some < 0.9 * all && some > 0.5 * all, "{some} of {all}");
    }
}
