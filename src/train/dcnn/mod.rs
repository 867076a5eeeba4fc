//! The DCNN: every window of a frame learns from the nearest unit cell.

mod alone;
mod batch;
mod judge;

pub use alone::train_dcnn_on;

use super::columns::Learner;
use super::export::{self, Export};
use super::labelled::{LabelSource, Labelled};
use super::runner::{self, Task};
use super::samples::{Split, upload};
use super::settings::{Adapts, DcnnTrainSettings};
use super::stopping::{self, Trained};
use super::turns::Ties;
use super::{Metrics, TrainError, direct, statistics};
use crate::config::InvalidSetting;
use crate::networks::{
    Architecture, Dcnn, DcnnConfig, DeviceChoice, FEATURE_CHANNELS, LoadedModel, OutputSpec, StartingPoint,
    dcnn_outputs,
};
use crate::preprocess::mean;
use batch::DcnnBatch;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData, s};
use ndarray::{Array2, Array4};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Weight of each regressed quantity in the loss, in the order of `networks::DCNN_OUTPUTS`; sigma has a loss of its own.
const WEIGHTS: [f32; 6] = [1.0, 1.0, 1.0, 1.0, 0.3, 0.3];
/// Errors far above this are far off, in scales of the outputs: 10 pm for P.
const FAR: f64 = 0.5;
/// Weight of the likelihood that trains sigma.
const SIGMA_WEIGHT: f64 = 0.1;
/// Degrees of freedom of the distribution that errors of P are taken to have, in units of the predicted sigma.
const SIGMA_FREEDOM: f64 = 4.0;
/// Predicted ln sigma counts as no farther than this from that of the outputs' scale: sigma from 0.02 pm to 20 nm. Its square in an
/// exponent would be infinite for a frame that the network answers wildly.
const LARGEST_LOG_SIGMA: f64 = 7.0;
/// Frames over which a fresh network is normalised.
const NORMALISING_FRAMES: usize = 64;
/// Frames on which the p-values of the feature statistics are calibrated, per held-out frame.
const STATISTICS_FRAMES_FACTOR: usize = 10;

/// See the module's documentation.
#[derive(Debug)]
pub struct DcnnTask {
    settings: DcnnTrainSettings,
    outputs: Vec<OutputSpec>,
    labelled: Option<Labelled>,
    started_from: Option<StartingPoint>,
    ties: OnceLock<Ties>,
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

impl DcnnTask {
    pub fn new(settings: DcnnTrainSettings) -> Self {
        let outputs = output_specs(&settings);
        Self { settings, outputs, labelled: None, started_from: None, ties: OnceLock::new() }
    }

    fn config(&self) -> DcnnConfig {
        self.settings.network(self.outputs.len())
    }

    /// What ties the task's network, made when it is first asked for.
    fn ties(&self, network: &Dcnn, device: &Device) -> &Ties {
        self.ties.get_or_init(|| self.settings.turns.of(network, &device.clone().inner()))
    }

    /// Writes the network as a model folder.
    fn export(&self, folder: &Path, network: &Dcnn, record: Record) -> Result<(), TrainError> {
        let Record { data, metrics, steps } = record;
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
            seed: self.settings.schedule.seed,
            steps,
            started_from: self.started_from.clone(),
            data,
            config: export::table(&self.settings)?,
            metrics,
        };
        export::write(folder, network, export)
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
        // Squares, and far off straight lines (Charbonnier): a window that cannot be right shall not drown those that can.
        let costs = ((squares.clone() / (0.5 * FAR * FAR) + 1.0).sqrt() - 1.0) * (FAR * FAR);
        let regression = (costs * weights * learns).sum() / count.clone();

        // The likelihood sees the residual of P as a constant: it teaches sigma, and leaves P to its own loss. Student's, so that a
        // single cell that is far off changes sigma no more than several that are a little; every window counts alike, whatever its noise.
        let p_scale = self.outputs.first().map_or(1.0, |spec| spec.scale);
        let (mean, scale) = self.outputs.last().map_or((0.0, 1.0), |spec| (spec.mean, spec.scale));
        let log_sigma = outputs.slice(s![.., WEIGHTS.len().., .., ..]) * scale + (mean - p_scale.ln());
        let log_sigma = log_sigma.clamp(-LARGEST_LOG_SIGMA, LARGEST_LOG_SIGMA);
        let residual = squares.slice(s![.., 0..2, .., ..]).mean_dim(1).detach();
        let excess = residual * (log_sigma.clone() * -2.0).exp() / SIGMA_FREEDOM;
        let likelihood = excess.log1p() * (0.5 * (SIGMA_FREEDOM + 1.0)) + log_sigma;
        let known = of_p.greater_elem(0.0).float();
        let windows = known.clone().sum().clamp_min(1.0);
        let loss = regression + (likelihood * known).sum() / windows * SIGMA_WEIGHT;

        if self.settings.columns_weight == 0.0 {
            return loss;
        }
        let [targets, asked] = [&batch.ways[0], &batch.ways[1]].map(|array| to_device(array, device));
        loss + learner.ways_loss(map, targets, asked) * self.settings.columns_weight
    }
}

/// On a CPU the convolutions have a way that is faster than burn's.
fn is_cpu(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// The map behind [`Dcnn::layers`], through which nothing is differentiated.
fn constant_map(learner: &Learner, images: &[Array2<f32>], device: &Device) -> Result<Tensor<4>, TrainError> {
    if is_cpu(device) {
        return direct::context(&learner.dcnn, images, device);
    }
    Ok(learner.dcnn.context(upload(images, device)).detach())
}

fn to_device(array: &Array4<f32>, device: &Device) -> Tensor<4> {
    let (a, b, c, d) = array.dim();
    Tensor::from_data(TensorData::new(array.iter().copied().collect(), [a, b, c, d]), device)
}

impl Task for DcnnTask {
    type Network = Learner;
    type Batch = DcnnBatch;

    fn given(&self) -> Result<toml::Table, TrainError> {
        let mut given = export::table(&self.settings)?;
        let weights = self.started_from.as_ref().map_or("random", |start| start.sha256.as_str());
        let frames = self.labelled.as_ref().map_or("none", Labelled::description);
        for (key, value) in [("initial_weights", weights), ("labelled_frames", frames)] {
            given.insert(key.to_owned(), value.into());
        }
        Ok(given)
    }

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
        let loss = |map: Tensor<4>| self.loss_of(learner, map, batch, device);
        let (value, mut gradients) = match self.settings.adapts {
            Adapts::All if is_cpu(device) => {
                direct::gradients(learner, &learner.dcnn, &batch.images, device, loss)?
            }
            Adapts::All => runner::differentiated(self.loss(learner, batch, device), learner)?,
            Adapts::Head => {
                runner::differentiated(loss(constant_map(learner, &batch.images, device)?), learner)?
            }
        };
        self.ties(&learner.dcnn, device).tie_gradients(&learner.dcnn, &mut gradients);
        Ok((value, gradients))
    }

    fn held_out_loss(&self, learner: &Learner, device: &Device) -> Result<f64, TrainError> {
        let simulated = |split| self.sample(split);
        let mut losses = Vec::new();
        for sample in stopping::frames(self.labelled.as_ref(), &self.settings.schedule, simulated) {
            let sample = sample?;
            // Centred windows: there is none without a cell.
            if self.windows(&sample, 0.0).images.is_empty() {
                continue;
            }
            let batch = self.assemble(&[sample])?;
            let map = constant_map(learner, &batch.images, device)?;
            losses.push(f64::from(runner::scalar(self.loss_of(learner, map, &batch, device))?));
        }
        Ok(mean(losses.into_iter()))
    }

    fn evaluate(&self, learner: &Learner, device: &Device) -> Result<Metrics, TrainError> {
        let frames = self.settings.schedule.held_out_frames;
        let samples = (0..frames).map(|index| self.sample(Split::HeldOut { index }));
        Ok(self.judge(&learner.dcnn, device, samples)?.metrics(&self.outputs))
    }
}

impl DcnnTask {
    /// The network to train; from here on the task knows the model that it starts from.
    fn start(&mut self, from_model: Option<&Path>, device: &Device) -> Result<Dcnn, TrainError> {
        let Some(folder) = from_model else {
            if self.settings.adapts == Adapts::Head {
                let expected = "all, without a model to go on from";
                return Err(InvalidSetting::new("adapts", "head", expected).into());
            }
            let network = self.config().init(device);
            let network = self.ties(&network, device).tied(network);
            return self.normalised(network, device);
        };
        let LoadedModel { manifest, network, .. } = LoadedModel::dcnn_without_statistics(folder, device)?;
        let expected = Architecture::Dcnn(self.config());
        if manifest.architecture != expected {
            let found = manifest.architecture;
            return Err(TrainError::OtherNetwork { path: folder.to_owned(), found, expected });
        }
        if !self.ties(&network, device).ties(&network) {
            return Err(TrainError::Untied { path: folder.to_owned(), turns: self.settings.turns });
        }
        // Units and centres are the network's; to what it had seen comes what it will see.
        for (own, theirs) in self.outputs.iter_mut().zip(manifest.outputs) {
            *own = OutputSpec { trained_range: union(own.trained_range, theirs.trained_range), ..theirs };
        }
        self.started_from = Some(StartingPoint { name: manifest.name, sha256: manifest.weights.sha256 });
        Ok(network)
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
        Ok(self.ties(&network, device).tied(network))
    }
}

/// The smallest range that holds both.
const fn union(one: [f64; 2], other: [f64; 2]) -> [f64; 2] {
    [one[0].min(other[0]), one[1].max(other[1])]
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
/// When the checkpoint was begun with something else, the device, the simulator or a file fails, or the loss diverges.
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
    let network = task.start(beginning.from_model.as_deref(), &device)?;
    let schedule = task.settings.schedule.clone();
    if let Some(source) = &beginning.labels {
        task.labelled = Some(Labelled::to_train(source, task.settings.pixel_size_pm, &schedule)?);
    }
    let before = task.held_back(&network, &device)?;
    let learner = Learner::new(network, FEATURE_CHANNELS, &device);
    let Trained { network: learner, steps } = runner::run(&task, learner, &schedule, &device, &work)?;
    let network = &learner.dcnn;

    // What is left of a bias and of a gain, and then sigma, are calibrated on frames of their own, then judged like the rest on
    // held-out ones.
    let calibration = (0..schedule.held_out_frames).map(|index| task.sample(Split::Calibration { index }));
    let mut calibration = task.judge(network, &device, calibration)?;
    calibration.unbias(&mut task.outputs, task.settings.turns);
    let slopes = calibration.straighten(&mut task.outputs, task.settings.turns);
    let calibration = calibration.sigma_calibration();
    if let (Some(spec), Some(calibration)) = (task.outputs.last_mut(), calibration) {
        calibration.apply(spec);
    }
    let mut metrics = task.evaluate(&learner, &device)?;
    metrics.extend(slopes);
    let after = task.held_back(network, &device)?;
    for (name, error) in [("before", before), ("after", after)] {
        metrics.extend(error.map(|error| (format!("held_back_rms_p_component_{name}_pm"), error)));
    }
    let folder = output.join(&task.settings.name);
    let data = export::data(beginning.labels.as_ref());
    task.export(&folder, network, Record { data, metrics: metrics.clone(), steps })?;
    let frames = STATISTICS_FRAMES_FACTOR * task.settings.schedule.held_out_frames;
    statistics::write(&folder, &task.settings, &device, frames)?;
    Ok(metrics)
}

/// What a model's folder says of its training, beside the settings.
struct Record {
    data: String,
    metrics: Metrics,
    /// That were made.
    steps: u64,
}

#[cfg(test)]
mod tests;
