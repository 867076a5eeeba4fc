//! The DCNN: every window of a frame learns from the nearest unit cell.

mod alone;

pub use alone::train_dcnn_on;

use super::columns::{self, Aims, Learner};
use super::export::{self, Export};
use super::judged::Judged;
use super::labelled::{LabelSource, Labelled};
use super::runner::{self, Task};
use super::samples::{Sample, Split, add_gaussian_noise, normalised, simulated, upload};
use super::settings::{DcnnTrainSettings, Stack};
use super::{Metrics, TrainError, direct, statistics};
use crate::frame::ClassicalCell;
use crate::networks::{
    Architecture, Dcnn, DcnnConfig, DeviceChoice, FEATURE_CHANNELS, LoadedModel, OutputSpec, StartingPoint,
    dcnn_outputs,
};
use crate::polarization::sample_on_grid;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData, s};
use ferrostem_proto::GridSpec;
use ndarray::{Array2, Array3, Array4, Axis, s as nds};
use rand::RngExt as _;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Windows nearer to their cell's centre than this fraction of a cell are judged.
const JUDGED_WITHIN_CELLS: f64 = 0.5;
/// Weight of each regressed quantity in the loss; P counts most, the sigma has a loss of its own.
const WEIGHTS: [f32; 6] = [1.0, 1.0, 0.3, 0.3, 0.1, 0.1];
/// Weight of the likelihood that trains sigma.
const SIGMA_WEIGHT: f64 = 0.1;
/// Least and largest predicted sigma that the loss takes at its word, as logarithms of multiples of the scale of P.
const LOG_SIGMA: [f64; 2] = [-4.0, 1.0];
/// A frame with so many counts at an A column's peak weighs half as much as one without noise, pixel for pixel: else what a
/// noisy frame cannot teach would drown what a clean one can.
const HALF_WEIGHT_COUNTS: f64 = 30.0;
/// Frames over which a fresh network is normalised.
const NORMALISING_FRAMES: usize = 64;
/// Frames on which the p-values of the feature statistics are calibrated, per held-out frame.
const STATISTICS_FRAMES_FACTOR: usize = 5;

/// Tells the random numbers of added noise from the others of a frame.
const NOISE_SEED: u64 = 0x6E6F_6973_6500_0001;

/// See the module's documentation.
#[derive(Debug)]
pub struct DcnnTask {
    settings: DcnnTrainSettings,
    outputs: Vec<OutputSpec>,
    labelled: Option<Labelled>,
}

/// What one frame gives to learn from.
struct Windows<'a> {
    /// The whole frame, or one image a window.
    images: Vec<Array2<f32>>,
    /// Windows of an image, a side.
    side: usize,
    /// Image by image, row by row.
    cells: Vec<Option<&'a ClassicalCell>>,
    /// Pixel `[row, col]` of the frame where each image begins.
    corners: Vec<[f64; 2]>,
}

/// Frames with the target of every window.
pub struct DcnnBatch {
    images: Vec<Array2<f32>>,
    /// `[frame, quantity, window row, window col]` in units of the outputs' scale; 0 where there is none.
    targets: Array4<f32>,
    /// The weight of each target; 0 where there is none.
    learns: Array4<f32>,
    /// The ways to the columns and their weight, see [`columns::ways`].
    ways: [Array4<f32>; 2],
}

/// Mean and scale of the outputs in the order of `networks::DCNN_OUTPUTS`, with the ranges that `scenes` covers.
fn output_specs(settings: &DcnnTrainSettings) -> Vec<OutputSpec> {
    let scenes = &settings.scenes;
    let p = scenes.polarization_pm[1];
    let aspect = scenes.aspect[1].max(1.0 / scenes.aspect[0]);
    let cell = [scenes.cell_pm[0] / aspect.sqrt(), scenes.cell_pm[1] * aspect.sqrt()];
    let tilt = scenes.shear_rad[1].max(-scenes.shear_rad[0]);
    let right = std::f64::consts::FRAC_PI_2;
    let area = [cell[0] * cell[0] * tilt.cos(), cell[1] * cell[1]];
    let specs = [
        ("pm", 0.0, 20.0, [-p, p]),
        ("pm", 0.0, 20.0, [-p, p]),
        ("pm", 400.0, 20.0, cell),
        ("pm", 400.0, 20.0, cell),
        ("rad", right, 0.03, [right - tilt, right + tilt]),
        ("pm2", 160_000.0, 12_000.0, area),
        ("ln pm", 5f64.ln(), 1.0, [0.0, p.max(2.0).ln()]),
    ];
    dcnn_outputs(specs)
}

/// How much a frame counts, 0 to 1.
fn weight(sample: &Sample) -> f32 {
    sample.peak_counts.map_or(1.0, |counts| counts / (counts + HALF_WEIGHT_COUNTS)) as f32
}

impl DcnnTask {
    pub fn new(settings: DcnnTrainSettings) -> Self {
        let outputs = output_specs(&settings);
        Self { settings, outputs, labelled: None }
    }

    fn config(&self) -> DcnnConfig {
        self.settings.network(self.outputs.len())
    }

    /// Writes the network as a model folder.
    fn export(&self, folder: &Path, network: &Dcnn, record: Record) -> Result<(), TrainError> {
        let Record { started_from, data, metrics } = record;
        let description =
            "Polar displacement and cell parameters of perovskites along [100], sliding windows".to_owned();
        let export = Export {
            name: self.settings.name.clone(),
            description,
            architecture: Architecture::Dcnn(self.config()),
            pixel_size_pm: self.settings.pixel_size_pm,
            normalisation: self.settings.normalisation,
            outputs: self.outputs.clone(),
            features: None,
            schedule: self.settings.schedule.clone(),
            started_from,
            data,
            config: export::table(&self.settings)?,
            metrics,
        };
        export::write(folder, network, export)
    }

    fn sample(&self, split: Split) -> Result<Sample, TrainError> {
        let mut sample = self.drawn(split)?;
        let [least, most] = self.settings.gaussian_noise;
        if most > 0.0 && split.is_learned_from() {
            let mut rng = split.random(self.settings.schedule.seed ^ NOISE_SEED);
            add_gaussian_noise(&mut sample.pixels, rng.random_range(least..=most), &mut rng);
        }
        Ok(sample)
    }

    fn drawn(&self, split: Split) -> Result<Sample, TrainError> {
        let (schedule, gamma) = (&self.settings.schedule, self.settings.gamma);
        if let (Some(labelled), true) = (&self.labelled, split.is_learned_from()) {
            let mut rng = split.random(schedule.seed);
            if rng.random_bool(self.settings.labelled_fraction) {
                return Ok(labelled.crop(schedule.crop_px, gamma, &mut rng));
            }
        }
        simulated(&self.settings.scenes, gamma, schedule.crop_px, schedule.seed, split)
    }

    /// Where the windows of a training frame are.
    fn grid(&self) -> GridSpec {
        let (window, stride) = (self.settings.window_px, self.settings.stride_px);
        let windows = (self.settings.schedule.crop_px - window) / stride + 1;
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
    fn windows<'a>(&self, sample: &'a Sample, within_pm: f64) -> Windows<'a> {
        let image = normalised(sample, self.settings.normalisation);
        match self.settings.stack {
            Stack::NotCentred => {
                let grid = self.grid();
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
            let row = grid.row0 + i as f64 * grid.step_row;
            let col = grid.col0 + j as f64 * grid.step_col;
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

    fn assemble(&self, frames: &[Sample]) -> Result<DcnnBatch, TrainError> {
        let windows: Vec<Windows> =
            frames.iter().map(|frame| self.windows(frame, self.settings.cell_upper_bound_pm)).collect();
        let side = windows.first().map_or(1, |windows| windows.side);
        let count = windows.iter().map(|windows| windows.images.len()).sum();
        let mut targets = Array4::zeros((count, WEIGHTS.len(), side, side));
        let mut learns = Array4::zeros((count, WEIGHTS.len(), side, side));
        let weights = windows.iter().zip(frames).flat_map(|(windows, frame)| {
            let weight = weight(frame);
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
            let weight = weight(frame);
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

impl DcnnTask {
    /// The loss, from the map behind [`Dcnn::layers`].
    fn loss_of(&self, learner: &Learner, map: Tensor<4>, batch: &DcnnBatch, device: &Device) -> Tensor<1> {
        let outputs = learner.dcnn.fully_connected(map.clone(), self.settings.stride_px);
        let targets = to_device(&batch.targets, device);
        let learns = to_device(&batch.learns, device);
        let of_p = learns.clone().slice(s![.., 0..1, .., ..]);
        let count = of_p.clone().sum().clamp_min(1.0);
        let weights = Tensor::<1>::from_floats(WEIGHTS, device).reshape([1, WEIGHTS.len(), 1, 1]);

        let errors = outputs.clone().slice(s![.., ..WEIGHTS.len(), .., ..]) - targets;
        let squares = errors.clone() * errors;
        let regression = (squares.clone() * weights * learns).sum() / count.clone();

        // The likelihood sees the residual of P as a constant: it teaches sigma, and leaves P to its own loss.
        let p_scale = self.outputs.first().map_or(1.0, |spec| spec.scale);
        let (mean, scale) = self.outputs.last().map_or((0.0, 1.0), |spec| (spec.mean, spec.scale));
        let log_sigma = (outputs.slice(s![.., WEIGHTS.len().., .., ..]) * scale + (mean - p_scale.ln()))
            .clamp(LOG_SIGMA[0], LOG_SIGMA[1]);
        let residual = squares.slice(s![.., 0..2, .., ..]).mean_dim(1).detach();
        let likelihood = residual * (log_sigma.clone() * -2.0).exp() * 0.5 + log_sigma;
        let loss = regression + (likelihood * of_p).sum() / count * SIGMA_WEIGHT;

        if self.settings.columns_weight == 0.0 {
            return loss;
        }
        let [targets, asked] = [&batch.ways[0], &batch.ways[1]].map(|array| to_device(array, device));
        loss + learner.ways_loss(map, targets, asked) * self.settings.columns_weight
    }
}

fn to_device(array: &Array4<f32>, device: &Device) -> Tensor<4> {
    let (a, b, c, d) = array.dim();
    Tensor::from_data(TensorData::new(array.iter().copied().collect(), [a, b, c, d]), device)
}

impl Task for DcnnTask {
    type Network = Learner;
    type Batch = DcnnBatch;

    fn batch(&self, step: u64) -> Result<DcnnBatch, TrainError> {
        let frames = (0..self.settings.schedule.batch)
            .into_par_iter()
            .map(|index| self.sample(Split::Training { step, index }))
            .collect::<Result<Vec<_>, _>>()?;
        self.assemble(&frames)
    }

    fn loss(&self, learner: &Learner, batch: &DcnnBatch, device: &Device) -> Tensor<1> {
        let map = learner.dcnn.context(upload(&batch.images, device));
        self.loss_of(learner, map, batch, device)
    }

    fn gradients(
        &self,
        learner: &Learner,
        batch: &DcnnBatch,
        device: &Device,
    ) -> Result<(f32, GradientsParams), TrainError> {
        // On the CPU the convolutions have a faster way, from which the loss does not differ.
        let (value, mut gradients) = if device.clone().inner() == Device::flex() {
            let loss = |map: Tensor<4>| self.loss_of(learner, map, batch, device);
            direct::gradients(learner, &learner.dcnn, &batch.images, device, loss)?
        } else {
            runner::differentiated(self.loss(learner, batch, device), learner)?
        };
        self.settings.turns.tie_gradients(&learner.dcnn, &mut gradients);
        Ok((value, gradients))
    }

    fn evaluate(&self, learner: &Learner, device: &Device) -> Result<Metrics, TrainError> {
        let frames = self.settings.schedule.held_out_frames;
        let samples = (0..frames).map(|index| self.sample(Split::HeldOut { index }));
        Ok(self.judge(&learner.dcnn, device, samples)?.metrics(&self.outputs))
    }
}

impl DcnnTask {
    fn judge(
        &self,
        network: &Dcnn,
        device: &Device,
        samples: impl Iterator<Item = Result<Sample, TrainError>>,
    ) -> Result<Judged, TrainError> {
        let mut judged = Judged::default();
        for sample in samples {
            let sample = sample?;
            let cell_pm = sample.cells.first().map_or(0.0, |known| known.cell.cell_area.abs().sqrt());
            let windows = self.windows(&sample, JUDGED_WITHIN_CELLS * cell_pm);
            if windows.images.is_empty() {
                continue;
            }
            let features = network.features(upload(&windows.images, device));
            let values = read(network.head_dense(features, self.settings.stride_px))?;
            let each = windows.side * windows.side;
            let physical = |k: usize, window: usize| -> Option<f64> {
                let spec = self.outputs.get(k)?;
                let index = (window / each * self.outputs.len() + k) * each + window % each;
                Some(spec.mean + spec.scale * f64::from(*values.get(index)?))
            };
            let before = judged.sigma.len();
            for (window, cell) in windows.cells.into_iter().enumerate() {
                let Some(cell) = cell else { continue };
                for (k, truth) in cell.quantities().into_iter().enumerate() {
                    if let (Some(errors), Some(value)) = (judged.errors.get_mut(k), physical(k, window)) {
                        errors.push(value - truth);
                    }
                }
                judged.truth_p.extend([cell.p_x, cell.p_y]);
                judged.sigma.extend(physical(WEIGHTS.len(), window).map(f64::exp));
                judged.dose.push(sample.peak_counts.unwrap_or(f64::NAN));
            }
            let count = judged.sigma.len() - before;
            if count > 0 {
                let means = judged
                    .errors
                    .iter()
                    .take(2)
                    .map(|errors| errors.iter().skip(before).sum::<f64>() / count as f64);
                let means: Vec<f64> = means.collect();
                judged.frame_bias.extend(means);
            }
        }
        Ok(judged)
    }

    /// The network to train, and the model that it starts from.
    fn start(
        &mut self,
        from_model: Option<&Path>,
        device: &Device,
    ) -> Result<(Dcnn, Option<StartingPoint>), TrainError> {
        let turns = self.settings.turns;
        let Some(folder) = from_model else {
            let network = turns.tied(self.config().init(device));
            return Ok((self.normalised(network, device)?, None));
        };
        let LoadedModel { manifest, network, .. } = LoadedModel::dcnn(folder, device)?;
        let expected = Architecture::Dcnn(self.config());
        if manifest.architecture != expected {
            let found = manifest.architecture;
            return Err(TrainError::OtherNetwork { path: folder.to_owned(), found, expected });
        }
        if !turns.ties(&network) {
            return Err(TrainError::Untied { path: folder.to_owned(), turns });
        }
        self.outputs = manifest.outputs;
        Ok((network, Some(StartingPoint { name: manifest.name, sha256: manifest.weights.sha256 })))
    }

    /// RMS difference of the components of P from the labels of the frames that were held back, pm.
    fn held_back(&self, network: &Dcnn, device: &Device) -> Result<Option<f64>, TrainError> {
        let Some(labelled) = &self.labelled else { return Ok(None) };
        let samples = labelled.held_back(self.settings.schedule.crop_px).into_iter().map(Ok);
        let judged = self.judge(network, device, samples)?;
        let [x, y, ..] = &judged.errors;
        let finite = || x.iter().chain(y).copied().filter(|error| error.is_finite());
        Ok((finite().count() > 0).then(|| super::judged::rms(finite())))
    }

    /// The network with weights that give every channel variance 1 over many frames, so that a fresh one of 15 layers learns at all
    /// (Krähenbühl et al., "Data-dependent initializations of convolutional neural networks", ICLR 2016).
    fn normalised(&self, network: Dcnn, device: &Device) -> Result<Dcnn, TrainError> {
        let mut images = Vec::new();
        for index in 0..NORMALISING_FRAMES {
            images.extend(self.windows(&self.sample(Split::Normalising { index })?, 0.0).images);
        }
        let network = {
            let folded = direct::folded(&network, &images)?;
            network.folded(&folded)
        };
        let maps = images.chunks(1).map(|image| network.context(upload(image, device))).collect();
        let network = network.with_hidden_folded(Tensor::cat(maps, 0), self.settings.stride_px);
        Ok(self.settings.turns.tied(network))
    }
}

fn read(tensor: Tensor<4>) -> Result<Vec<f32>, TrainError> {
    let data = tensor.try_into_data().map_err(|error| TrainError::Execution(format!("{error:?}")))?;
    data.try_into_vec::<f32>().map_err(|error| TrainError::Execution(format!("{error:?}")))
}

/// What a DCNN is trained from, beside its settings.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    /// Folder of a model to go on from; random weights without.
    pub from_model: Option<PathBuf>,
    /// Labelled frames to learn from; the errors on those that are held back are reported for before and after.
    pub labels: Option<LabelSource>,
}

/// Trains a DCNN and writes its model folder `output/<name>`.
///
/// # Errors
/// When the device, the simulator or a file fails, or the loss diverges.
pub fn train_dcnn(
    settings: DcnnTrainSettings,
    beginning: &Beginning,
    choice: DeviceChoice,
    output: &Path,
) -> Result<Metrics, TrainError> {
    let (device, _) = choice.open()?;
    device.seed(settings.schedule.seed);
    let work = output.join(format!("{}.training", settings.name));
    let mut task = DcnnTask::new(settings);
    let (network, started_from) = task.start(beginning.from_model.as_deref(), &device)?;
    let schedule = task.settings.schedule.clone();
    if let Some(source) = &beginning.labels {
        let labelled = Labelled::read(source, task.settings.pixel_size_pm, schedule.crop_px)?;
        task.labelled = Some(labelled);
    }
    let before = task.held_back(&network, &device)?;
    let learner = Learner::new(network, FEATURE_CHANNELS, &device);
    let learner = runner::run(&task, learner, &schedule, &device, &work)?;
    let network = &learner.dcnn;

    // What is left of a bias, and sigma, are calibrated on frames of their own, then judged like the rest on held-out ones.
    let calibration = (0..schedule.held_out_frames).map(|index| task.sample(Split::Calibration { index }));
    let mut calibration = task.judge(network, &device, calibration)?;
    calibration.unbias(&mut task.outputs, task.settings.turns);
    let calibration = calibration.sigma_calibration();
    if let (Some(spec), Some(calibration)) = (task.outputs.last_mut(), calibration) {
        calibration.apply(spec);
    }
    let mut metrics = task.evaluate(&learner, &device)?;
    let after = task.held_back(network, &device)?;
    for (name, error) in [("before", before), ("after", after)] {
        metrics.extend(error.map(|error| (format!("held_back_rms_p_component_{name}_pm"), error)));
    }
    let folder = output.join(&task.settings.name);
    let data = match &beginning.labels {
        Some(labels) => format!("{}; {}", export::SIMULATED, labels.describe()),
        None => export::SIMULATED.to_owned(),
    };
    task.export(&folder, network, Record { started_from, data, metrics: metrics.clone() })?;
    let frames = STATISTICS_FRAMES_FACTOR * task.settings.schedule.held_out_frames;
    statistics::write(&folder, &task.settings, choice, frames)?;
    Ok(metrics)
}

/// What a model's folder says of its training, beside the settings.
struct Record {
    started_from: Option<StartingPoint>,
    data: String,
    metrics: Metrics,
}

/// The part of a frame that its windows cover, for tests of the plan.
#[cfg(test)]
fn covered(grid: &GridSpec, window: usize) -> usize {
    (grid.rows as usize - 1) * grid.step_row as usize + window
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_the_same_for_the_same_step_and_its_targets_are_in_range() {
        let settings = DcnnTrainSettings::default();
        let task = DcnnTask::new(settings);
        let (first, again) = (task.batch(3).unwrap(), task.batch(3).unwrap());
        assert_eq!(first.images, again.images);
        assert_eq!(first.targets, again.targets);
        assert_ne!(first.images, task.batch(4).unwrap().images);
        assert!(covered(&task.grid(), 80) <= task.settings.schedule.crop_px);
        let learning =
            first.learns.iter().filter(|&&weight| weight > 0.0).count() as f32 / first.learns.len() as f32;
        assert!(learning > 0.7, "only {learning} of the windows have a cell");
        let p = first.targets.slice(nds![.., 0..2, .., ..]);
        assert!(p.iter().all(|v| v.abs() * 20.0 <= 120.0));
        assert!(p.iter().any(|v| v.abs() * 20.0 > 2.0));
    }
    #[test]
    fn centred_windows_are_those_around_cells_and_a_minimum_leaves_near_ones_out() {
        let centred = DcnnTask::new(DcnnTrainSettings {
            stack: Stack::Centred { windows: 5 },
            ..DcnnTrainSettings::default()
        });
        let batch = centred.batch(0).unwrap();
        assert!(batch.images.len() >= 12 && batch.images.len() <= 20, "{}", batch.images.len());
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
