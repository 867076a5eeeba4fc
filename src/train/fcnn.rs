//! The FCNN: every pixel learns whether it belongs to a B column, an A column or neither.

use super::export::{self, Export};
use super::labelled::{LabelSource, Labelled};
use super::runner::{self, Task};
use super::samples::{Sample, Simulation, Split, normalised, upload};
use super::settings::FcnnTrainSettings;
use super::stopping::{self, Trained};
use super::{Metrics, TrainError};
use crate::columns::{ColumnSettings, Neighbours, find_columns};
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
/// Where not all columns are known, nothing is learned from pixels farther from all known ones than this, pm: a little less than half a
/// cell's edge, so that hardly any are in a lattice without gaps, and no part of a missing column's disc is taken for background.
const KNOWN_WITHIN_PM: f64 = 190.0;
/// In place of the class of a pixel from which nothing is learned.
const UNKNOWN: u8 = u8::MAX;

/// See the module's documentation.
#[derive(Debug)]
pub struct FcnnTask {
    settings: FcnnTrainSettings,
    labelled: Option<Labelled>,
}

/// Frames with the class of every pixel, or [`UNKNOWN`].
pub struct FcnnBatch {
    images: Vec<Array2<f32>>,
    classes: Vec<Array2<u8>>,
}

impl FcnnTask {
    pub const fn new(settings: FcnnTrainSettings) -> Self {
        Self { settings, labelled: None }
    }

    const fn config(&self) -> FcnnConfig {
        FcnnConfig { filters: self.settings.filters, classes: CLASSES }
    }

    fn sample(&self, split: Split) -> Result<Sample, TrainError> {
        let schedule = &self.settings.schedule;
        let labelled = self.labelled.as_ref();
        let drawn =
            labelled.and_then(|l| l.drawn(split, schedule, self.settings.labelled_fraction, [1.0; 2]));
        if let Some(crop) = drawn {
            return Ok(crop);
        }
        let simulation = Simulation {
            ranges: &self.settings.scenes,
            gamma: [1.0; 2],
            pixel_size_pm: self.settings.pixel_size_pm,
            resampled: 0.0,
        };
        simulation.sample(schedule.crop_px, schedule.seed, split)
    }

    /// Class of every pixel: a disc around every column, background elsewhere; [`UNKNOWN`] far from all where some are missing.
    fn classes(&self, sample: &Sample) -> Array2<u8> {
        let (rows, cols) = sample.pixels.dim();
        let radius = self.settings.column_radius_pm / self.settings.pixel_size_pm;
        let mut classes = self.background(sample);
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

    /// The classes of a frame without the discs.
    fn background(&self, sample: &Sample) -> Array2<u8> {
        let class = (CLASSES - 1) as u8;
        if sample.complete {
            return Array2::from_elem(sample.pixels.dim(), class);
        }
        let columns: Vec<[f64; 2]> = sample.columns.iter().map(|column| [column.row, column.col]).collect();
        let columns = Neighbours::new(&columns);
        let within = KNOWN_WITHIN_PM / self.settings.pixel_size_pm;
        Array2::from_shape_fn(sample.pixels.dim(), |(row, col)| {
            columns.nearest([row as f64, col as f64], within).map_or(UNKNOWN, |_| class)
        })
    }
}

impl Task for FcnnTask {
    type Network = Fcnn;
    type Batch = FcnnBatch;

    fn given(&self) -> Result<toml::Table, TrainError> {
        let mut given = export::table(&self.settings)?;
        let frames = self.labelled.as_ref().map_or("none", Labelled::description);
        given.insert("labelled_frames".to_owned(), frames.into());
        Ok(given)
    }

    fn batch(&self, step: u64) -> Result<FcnnBatch, TrainError> {
        let frames = (0..self.settings.schedule.batch)
            .into_par_iter()
            .map(|index| self.sample(Split::Training { step, index }))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.assemble(&frames))
    }

    /// Cross-entropy over all pixels that are known.
    fn loss(&self, network: &Fcnn, batch: &FcnnBatch, device: &Device) -> Tensor<1> {
        let scores = log_softmax(network.forward(upload(&batch.images, device)), 1);
        let [frames, _, rows, cols] = scores.dims();
        let shape = [frames, 1, rows, cols];
        let classes = || batch.classes.iter().flatten().copied();
        let known: Vec<f32> = classes().map(|class| if class == UNKNOWN { 0.0 } else { 1.0 }).collect();
        let classes: Vec<i32> = classes().map(|c| if c == UNKNOWN { 0 } else { i32::from(c) }).collect();
        let classes = Tensor::<4, Int>::from_data(TensorData::new(classes, shape), device);
        let scores = scores.gather(1, classes);
        if !known.contains(&0.0) {
            return -scores.mean();
        }
        let known = Tensor::<4>::from_data(TensorData::new(known, shape), device);
        let count = known.clone().sum().clamp_min(1.0);
        -(scores * known).sum() / count
    }

    fn held_out_loss(&self, network: &Fcnn, device: &Device) -> Result<f64, TrainError> {
        let simulated = |split| self.sample(split);
        let mut losses = Vec::new();
        for sample in stopping::frames(self.labelled.as_ref(), &self.settings.schedule, simulated) {
            let loss = self.loss(network, &self.assemble(&[sample?]), device);
            losses.push(f64::from(runner::scalar(loss)?));
        }
        Ok(mean(losses.into_iter()))
    }

    fn evaluate(&self, network: &Fcnn, device: &Device) -> Result<Metrics, TrainError> {
        let frames = self.settings.schedule.held_out_frames;
        let samples = (0..frames).map(|index| self.sample(Split::HeldOut { index }));
        let judged = self.judge(network, device, samples)?;
        let mut metrics = judged.metrics("");
        metrics.insert("columns".to_owned(), judged.truths as f64);
        if let Some(judged) = self.judge_held_back(network, device)? {
            metrics.extend(judged.metrics("held_back_"));
        }
        Ok(metrics)
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

impl JudgedColumns {
    /// Of the columns, those that were found; of what was found, what is no column.
    fn shares(&self) -> [f64; 2] {
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        [share(self.found, self.truths), share(self.spurious, self.predicted)]
    }

    fn metrics(&self, prefix: &str) -> Metrics {
        let [found, spurious] = self.shares();
        let position = (self.squares_pm2 / (2 * self.found).max(1) as f64).sqrt();
        let metrics = [
            ("found_fraction", found),
            ("spurious_fraction", spurious),
            ("rms_position_component_pm", position),
        ];
        metrics.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
    }
}

impl FcnnTask {
    /// How well the columns of square frames are found.
    fn judge(
        &self,
        network: &Fcnn,
        device: &Device,
        samples: impl Iterator<Item = Result<Sample, TrainError>>,
    ) -> Result<JudgedColumns, TrainError> {
        let mut all = JudgedColumns::default();
        for sample in samples {
            let sample = sample?;
            let image = normalised(&sample, self.settings.normalisation);
            let probabilities = network.probabilities(upload(std::slice::from_ref(&image), device));
            let [_, classes, rows, cols] = probabilities.dims();
            let data = probabilities.try_into_data().map_err(|e| TrainError::Execution(format!("{e:?}")))?;
            let values = data.try_into_vec::<f32>().map_err(|e| TrainError::Execution(format!("{e:?}")))?;
            let probabilities = Array3::from_shape_vec((classes, rows, cols), values)
                .map_err(|error| TrainError::Execution(error.to_string()))?;
            let valid = sample.pixels.mapv(f32::is_finite);
            let columns =
                find_columns(&probabilities, &valid, &PixelMap::IDENTITY, &ColumnSettings::default())?;
            let judged = self.matched(&sample.columns, &columns, rows);
            all.truths += judged.truths;
            all.found += judged.found;
            all.predicted += judged.predicted;
            all.spurious += judged.spurious;
            all.squares_pm2 += judged.squares_pm2;
        }
        Ok(all)
    }

    /// On the labelled frames that were held back; `None` without a column in them. What is found where the labels have none counts as
    /// spurious, be it that they lack it, as at a frame's edge.
    fn judge_held_back(&self, network: &Fcnn, device: &Device) -> Result<Option<JudgedColumns>, TrainError> {
        let Some(labelled) = &self.labelled else { return Ok(None) };
        let squares = labelled.held_back(self.settings.schedule.crop_px).into_iter().map(Ok);
        Ok(Some(self.judge(network, device, squares)?).filter(|judged| judged.truths > 0))
    }

    fn matched(&self, truth: &[TruthColumn], columns: &[Column], side: usize) -> JudgedColumns {
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

/// Trains an FCNN and writes its model folder `output/<name>`; from the frames of `labels` too, where there are any, and judged on those
/// of them that are held back.
///
/// # Errors
/// When the checkpoint was begun with something else, no column is known in the labelled frames, the device, the simulator or a file fails,
/// or the loss diverges.
pub fn train_fcnn(
    settings: FcnnTrainSettings,
    labels: Option<&LabelSource>,
    choice: DeviceChoice,
    output: &Path,
) -> Result<Metrics, TrainError> {
    let (device, _) = choice.open()?;
    device.seed(settings.schedule.seed);
    let work = output.join(format!("{}.training", settings.name));
    let mut task = FcnnTask::new(settings);
    let network = task.config().init(&device);
    let schedule = task.settings.schedule.clone();
    if let Some(source) = labels {
        let labelled = Labelled::to_train(source, task.settings.pixel_size_pm, &schedule)?;
        task.labelled = Some(labelled.with_columns(&source.path)?);
    }
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
            data: export::data(labels),
            config: export::table(&task.settings)?,
            metrics: metrics.clone(),
        },
    )?;
    Ok(metrics)
}

#[cfg(test)]
#[path = "fcnn_tests.rs"]
mod tests;
