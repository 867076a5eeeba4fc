//! The FCNN: every pixel learns whether it belongs to a B column, an A column or neither.

use super::export::{self, Export};
use super::runner::{self, Task};
use super::samples::{Sample, Simulation, Split, normalised, upload};
use super::settings::FcnnTrainSettings;
use super::stopping::{self, Trained};
use super::{Metrics, TrainError};
use crate::columns::{ColumnSettings, find_columns};
use crate::frame::{Column, Sublattice};
use crate::networks::{Architecture, DeviceChoice, Fcnn, FcnnConfig};
use crate::preprocess::{PixelMap, mean};
use crate::simulate::TruthColumn;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use ndarray::{Array2, Array3};
use rayon::prelude::*;
use std::path::Path;

/// Classes: B, A, background.
const CLASSES: usize = 3;
/// A column counts as found when one of its sublattice lies nearer than this, pm.
const FOUND_WITHIN_PM: f64 = 100.0;
/// Columns nearer to the edge than this are not judged, pm: the finder drops an edge band on purpose.
const EDGE_PM: f64 = 150.0;

/// See the module's documentation.
#[derive(Debug)]
pub struct FcnnTask {
    settings: FcnnTrainSettings,
}

/// Frames with the class of every pixel.
pub struct FcnnBatch {
    images: Vec<Array2<f32>>,
    classes: Vec<Array2<u8>>,
}

impl FcnnTask {
    pub const fn new(settings: FcnnTrainSettings) -> Self {
        Self { settings }
    }

    const fn config(&self) -> FcnnConfig {
        FcnnConfig { filters: self.settings.filters, classes: CLASSES }
    }

    fn sample(&self, split: Split) -> Result<Sample, TrainError> {
        let schedule = &self.settings.schedule;
        let simulation = Simulation {
            ranges: &self.settings.scenes,
            gamma: [1.0; 2],
            pixel_size_pm: self.settings.pixel_size_pm,
            resampled: 0.0,
        };
        simulation.sample(schedule.crop_px, schedule.seed, split)
    }

    /// Class of every pixel: a disc around every column, background elsewhere.
    fn classes(&self, sample: &Sample) -> Array2<u8> {
        let (rows, cols) = sample.pixels.dim();
        let radius = self.settings.column_radius_pm / self.settings.pixel_size_pm;
        let mut classes = Array2::from_elem((rows, cols), (CLASSES - 1) as u8);
        for column in &sample.columns {
            let Some(sublattice) = column.sublattice() else { continue };
            let reach = |centre: f64, size: usize| {
                let from = (centre - radius).ceil().max(0.0) as usize;
                let to = (centre + radius).floor().max(-1.0) + 1.0;
                from..(to as usize).min(size)
            };
            for row in reach(column.row, rows) {
                for col in reach(column.col, cols) {
                    let (dy, dx) = (row as f64 - column.row, col as f64 - column.col);
                    if dy * dy + dx * dx <= radius * radius {
                        classes[[row, col]] = sublattice as u8;
                    }
                }
            }
        }
        classes
    }
}

impl FcnnTask {
    fn assemble(&self, frames: &[Sample]) -> FcnnBatch {
        FcnnBatch {
            images: frames.iter().map(|sample| normalised(sample, self.settings.normalisation)).collect(),
            classes: frames.iter().map(|sample| self.classes(sample)).collect(),
        }
    }
}

impl Task for FcnnTask {
    type Network = Fcnn;
    type Batch = FcnnBatch;

    fn given(&self) -> Result<toml::Table, TrainError> {
        export::table(&self.settings)
    }

    fn batch(&self, step: u64) -> Result<FcnnBatch, TrainError> {
        let frames = (0..self.settings.schedule.batch)
            .into_par_iter()
            .map(|index| self.sample(Split::Training { step, index }))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.assemble(&frames))
    }

    /// Cross-entropy over all pixels.
    fn loss(&self, network: &Fcnn, batch: &FcnnBatch, device: &Device) -> Tensor<1> {
        let scores = log_softmax(network.forward(upload(&batch.images, device)), 1);
        let [frames, _, rows, cols] = scores.dims();
        let classes: Vec<i32> =
            batch.classes.iter().flat_map(|c| c.iter().map(|&class| i32::from(class))).collect();
        let classes = Tensor::<4, Int>::from_data(TensorData::new(classes, [frames, 1, rows, cols]), device);
        -scores.gather(1, classes).mean()
    }

    fn held_out_loss(&self, network: &Fcnn, device: &Device) -> Result<f64, TrainError> {
        let simulated = |split| self.sample(split);
        let mut losses = Vec::new();
        for sample in stopping::frames(None, &self.settings.schedule, simulated) {
            let loss = self.loss(network, &self.assemble(&[sample?]), device);
            losses.push(f64::from(runner::scalar(loss)?));
        }
        Ok(mean(losses.into_iter()))
    }

    fn evaluate(&self, network: &Fcnn, device: &Device) -> Result<Metrics, TrainError> {
        let (mut truths, mut found, mut predicted, mut spurious) = (0usize, 0usize, 0usize, 0usize);
        let mut squares = 0.0;
        for index in 0..self.settings.schedule.held_out_frames {
            let sample = self.sample(Split::HeldOut { index })?;
            let image = normalised(&sample, self.settings.normalisation);
            let probabilities = network.probabilities(upload(std::slice::from_ref(&image), device));
            let [_, classes, rows, cols] = probabilities.dims();
            let data = probabilities.try_into_data().map_err(|e| TrainError::Execution(format!("{e:?}")))?;
            let values = data.try_into_vec::<f32>().map_err(|e| TrainError::Execution(format!("{e:?}")))?;
            let probabilities = Array3::from_shape_vec((classes, rows, cols), values)
                .map_err(|error| TrainError::Execution(error.to_string()))?;
            let valid = Array2::from_elem((rows, cols), true);
            let columns =
                find_columns(&probabilities, &valid, &PixelMap::IDENTITY, &ColumnSettings::default())?;
            let judged = self.judge(&sample.columns, &columns, rows);
            truths += judged.truths;
            found += judged.found;
            predicted += judged.predicted;
            spurious += judged.spurious;
            squares += judged.squares_pm2;
        }
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        Ok(Metrics::from([
            ("columns".to_owned(), truths as f64),
            ("found_fraction".to_owned(), share(found, truths)),
            ("spurious_fraction".to_owned(), share(spurious, predicted)),
            ("rms_position_component_pm".to_owned(), (squares / (2 * found).max(1) as f64).sqrt()),
        ]))
    }
}

#[derive(Debug, Default)]
struct JudgedColumns {
    truths: usize,
    found: usize,
    predicted: usize,
    spurious: usize,
    squares_pm2: f64,
}

impl FcnnTask {
    fn judge(&self, truth: &[TruthColumn], columns: &[Column], side: usize) -> JudgedColumns {
        let pixel = self.settings.pixel_size_pm;
        let (edge, within) = (EDGE_PM / pixel, FOUND_WITHIN_PM / pixel);
        let inside = |row: f64, col: f64| {
            let range = edge..(side as f64 - 1.0 - edge);
            range.contains(&row) && range.contains(&col)
        };
        let nearest =
            |row: f64, col: f64, others: &mut dyn Iterator<Item = (f64, f64, Sublattice)>, class| {
                others
                    .filter(|&(_, _, sublattice)| sublattice == class)
                    .map(|(r, c, _)| ((r - row).powi(2) + (c - col).powi(2)).sqrt())
                    .min_by(f64::total_cmp)
            };
        let mut judged = JudgedColumns::default();
        let cations =
            || truth.iter().filter_map(|column| Some((column.row, column.col, column.sublattice()?)));
        for (row, col, sublattice) in cations().filter(|(row, col, _)| inside(*row, *col)) {
            judged.truths += 1;
            let mut others = columns.iter().map(|other| (other.row, other.col, other.sublattice));
            if let Some(distance) = nearest(row, col, &mut others, sublattice)
                && distance <= within
            {
                judged.found += 1;
                judged.squares_pm2 += (distance * pixel).powi(2);
            }
        }
        for column in columns.iter().filter(|column| inside(column.row, column.col)) {
            judged.predicted += 1;
            if nearest(column.row, column.col, &mut cations(), column.sublattice).is_none_or(|d| d > within) {
                judged.spurious += 1;
            }
        }
        judged
    }
}

/// Trains an FCNN and writes its model folder `output/<name>`.
///
/// # Errors
/// When the checkpoint was begun with other settings, the device, the simulator or a file fails, or the loss diverges.
pub fn train_fcnn(
    settings: FcnnTrainSettings,
    choice: DeviceChoice,
    output: &Path,
) -> Result<Metrics, TrainError> {
    let (device, _) = choice.open()?;
    device.seed(settings.schedule.seed);
    let work = output.join(format!("{}.training", settings.name));
    let task = FcnnTask::new(settings);
    let network = task.config().init(&device);
    let schedule = task.settings.schedule.clone();
    let Trained { network, steps } = runner::run(&task, network, &schedule, &device, &work)?;
    let metrics = task.evaluate(&network, &device)?;
    export::write(
        &output.join(&task.settings.name),
        &network,
        Export {
            name: task.settings.name.clone(),
            description: "Column finder for perovskites along [100]: B, A and background".to_owned(),
            architecture: Architecture::Fcnn(task.config()),
            pixel_size_pm: task.settings.pixel_size_pm,
            normalisation: task.settings.normalisation,
            outputs: Vec::new(),
            features: None,
            seed: schedule.seed,
            steps,
            started_from: None,
            data: export::data(None),
            config: export::table(&task.settings)?,
            metrics: metrics.clone(),
        },
    )?;
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::ColumnClass;
    use crate::train::Schedule;
    use crate::train::runner::tests::straight_and_resumed;

    #[test]
    fn columns_are_matched_by_sublattice_and_distance() {
        let task = FcnnTask::new(FcnnTrainSettings::default());
        let truth = |row, col, class| TruthColumn { row, col, class, intensity: 1.0 };
        let column = |row, col, sublattice| Column { row, col, sublattice, confidence: 1.0 };
        let truths = [
            truth(30.0, 30.0, ColumnClass::A),
            truth(30.0, 60.0, ColumnClass::B),
            truth(60.0, 60.0, ColumnClass::A),
            // Not the networks' to find.
            truth(45.0, 60.0, ColumnClass::Oxygen),
            // In the edge band: not judged.
            truth(2.0, 60.0, ColumnClass::A),
        ];
        let columns = [
            column(30.0, 32.0, Sublattice::A),
            // The right place, the wrong sublattice.
            column(30.0, 60.0, Sublattice::A),
            column(60.0, 60.0, Sublattice::A),
        ];
        let judged = task.judge(&truths, &columns, 128);
        assert_eq!((judged.truths, judged.found, judged.predicted, judged.spurious), (3, 2, 3, 1));
        assert!((judged.squares_pm2 - 900.0).abs() < 1e-9);
    }

    #[test]
    fn discs_mark_both_sublattices() {
        let task = FcnnTask::new(FcnnTrainSettings::default());
        let batch = task.batch(0).unwrap();
        for classes in &batch.classes {
            let share =
                |class: u8| classes.iter().filter(|&&c| c == class).count() as f64 / classes.len() as f64;
            // A disc of 70 pm in a cell of 400 pm: about a tenth for each sublattice.
            assert!((0.05..0.15).contains(&share(0)), "{}", share(0));
            assert!((0.05..0.15).contains(&share(1)), "{}", share(1));
        }
    }

    #[test]
    fn an_interrupted_run_resumes_exactly() {
        let mut settings = FcnnTrainSettings { filters: 4, ..FcnnTrainSettings::default() };
        settings.schedule =
            Schedule { steps: 4, batch: 1, crop_px: 64, checkpoint_every: 2, ..settings.schedule };
        let task = FcnnTask::new(settings);
        let device = Device::flex();
        device.seed(3);
        let start = task.config().init(&device);
        let ends = straight_and_resumed(&task, &start, &task.settings.schedule, 3);
        let weights = |network: &Fcnn| crate::networks::weights_bytes(Path::new("test"), network).unwrap();
        let [straight, resumed, again] = ends.each_ref().map(|end| weights(&end.network));
        assert_eq!(straight, resumed);
        assert_eq!(straight, again);
        assert_ne!(straight, weights(&start));
    }
}
