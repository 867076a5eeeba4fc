//! The training loop.

use super::settings::Schedule;
use super::{Metrics, TrainError, record};
use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Module, ParamGroup};
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Batches prepared ahead of the step that needs them.
const BATCHES_AHEAD: usize = 2;
/// Longest gradient of one parameter tensor; a longer one is scaled down to it.
const GRADIENT_NORM: f32 = 1.0;

/// What a network learns, and how.
pub(super) trait Task: Sync {
    type Network: Module + Clone;
    type Batch: Send;

    /// What makes a run what it is: a checkpoint is not resumed with anything else. Every key is always there.
    fn given(&self) -> Result<toml::Table, TrainError>;

    /// The batch of `step`: the same for the same seed and step, whatever came before.
    fn batch(&self, step: u64) -> Result<Self::Batch, TrainError>;

    /// A scalar to minimise.
    fn loss(&self, network: &Self::Network, batch: &Self::Batch, device: &Device) -> Tensor<1>;

    /// The loss and its derivatives.
    fn gradients(
        &self,
        network: &Self::Network,
        batch: &Self::Batch,
        device: &Device,
    ) -> Result<(f32, GradientsParams), TrainError> {
        differentiated(self.loss(network, batch, device), network)
    }

    /// Errors on held-out frames.
    fn evaluate(&self, network: &Self::Network, device: &Device) -> Result<Metrics, TrainError>;
}

/// Trains `network` and returns it. `folder` receives `log.csv`, the checkpoint and a record of what the task was given; a
/// checkpoint found there is resumed, unless its task was given something else.
pub(super) fn run<T: Task>(
    task: &T,
    network: T::Network,
    schedule: &Schedule,
    device: &Device,
    folder: &Path,
) -> Result<T::Network, TrainError> {
    fs::create_dir_all(folder).map_err(|source| TrainError::File { path: folder.to_owned(), source })?;
    let training = device.clone().autodiff();
    let checkpoint = Checkpoint::new(folder);
    record::claim(folder, &task.given()?, checkpoint.exists())?;
    let clipping = GradientClippingConfig::Norm(GRADIENT_NORM);
    let optimizer: ModuleOptimizer =
        AdamConfig::new().with_epsilon(1e-8).with_grad_clipping(Some(clipping)).init();
    let (network, mut optimizer, first) = checkpoint.resume(network, optimizer)?;
    let network = network.train();
    let bar = progress_bar(schedule.steps, first);
    let mut log = Log::open(&folder.join("log.csv"))?;

    let network = std::thread::scope(|scope| -> Result<T::Network, TrainError> {
        let mut network = network;
        let (sender, batches) = crossbeam_channel::bounded(BATCHES_AHEAD);
        scope.spawn(move || {
            for step in first..schedule.steps {
                // The receiver is gone when training failed; there is nobody left to tell.
                if sender.send(task.batch(step)).is_err() {
                    break;
                }
            }
        });
        for (step, batch) in (first..schedule.steps).zip(batches.iter()) {
            // Dropout draws the same whether the run was resumed or not.
            training.seed(schedule.seed.wrapping_add(step));
            let (value, gradients) = task.gradients(&network, &batch?, &training)?;
            if !value.is_finite() {
                return Err(TrainError::Diverged { step, loss: value });
            }
            let rate = schedule.rate(step);
            let rates = ModuleLrScheduler::new(ConstantLr::new(rate))
                .with_group(ParamGroup::from_predicate("head"), ConstantLr::new(rate * schedule.head_rate))
                .step();
            network = optimizer.step(rates, network, gradients);
            log.add(step, value, rate)?;
            bar.set_message(format!("loss {:.4}", log.smoothed));
            bar.inc(1);
            if (step + 1) % schedule.checkpoint_every == 0 || step + 1 == schedule.steps {
                checkpoint.save(&network, &optimizer, step + 1)?;
            }
        }
        Ok(network)
    })?;
    bar.finish();
    Ok(network.valid())
}

/// The loss and its derivatives by burn.
pub(super) fn differentiated<M: Module>(
    loss: Tensor<1>,
    network: &M,
) -> Result<(f32, GradientsParams), TrainError> {
    let gradients = GradientsParams::from_grads(loss.backward(), network);
    Ok((scalar(loss)?, gradients))
}

pub(super) fn scalar(value: Tensor<1>) -> Result<f32, TrainError> {
    value.try_into_scalar().map_err(|error| TrainError::Execution(format!("{error:?}")))
}

fn progress_bar(steps: u64, first: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    // The template is a constant; should it ever be wrong, the default style is shown.
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed} {bar:30} step {pos}/{len} {per_sec} {msg} left {eta}")
    {
        bar.set_style(style);
    }
    bar.set_position(first);
    bar.reset_eta();
    bar
}

/// Weights, optimizer state and step, replaced together.
struct Checkpoint {
    folder: PathBuf,
}

impl Checkpoint {
    fn new(folder: &Path) -> Self {
        Self { folder: folder.join("checkpoint") }
    }

    fn step_file(&self) -> PathBuf {
        self.folder.join("step")
    }

    fn exists(&self) -> bool {
        self.step_file().exists()
    }

    fn resume<M: Module>(
        &self,
        network: M,
        optimizer: ModuleOptimizer,
    ) -> Result<(M, ModuleOptimizer, u64), TrainError> {
        let Ok(step) = fs::read_to_string(self.step_file()) else {
            return Ok((network, optimizer, 0));
        };
        let step =
            step.trim().parse().map_err(|_| self.error(format!("step = {step}: expected a number")))?;
        let network = network
            .try_load_file(self.folder.join("network.bpk"))
            .map_err(|e| self.error(format!("{e:?}")))?;
        let optimizer =
            optimizer.load(self.folder.join("optimizer.bpk")).map_err(|e| self.error(format!("{e:?}")))?;
        Ok((network, optimizer, step))
    }

    fn save<M: Module + Clone>(
        &self,
        network: &M,
        optimizer: &ModuleOptimizer,
        step: u64,
    ) -> Result<(), TrainError> {
        // Written beside the old one and swapped in, so that a kill leaves one whole checkpoint.
        let fresh = self.folder.with_extension("new");
        let file = |source| TrainError::File { path: fresh.clone(), source };
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(file)?;
        }
        fs::create_dir_all(&fresh).map_err(file)?;
        // The snapshot, because its batch-normalisation statistics hold the last step too; the record of a network in
        // training is one step behind.
        network.valid().save_file(fresh.join("network.bpk")).map_err(|e| self.error(format!("{e:?}")))?;
        optimizer.save(fresh.join("optimizer.bpk")).map_err(|e| self.error(format!("{e:?}")))?;
        fs::write(fresh.join("step"), step.to_string()).map_err(file)?;
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).map_err(file)?;
        }
        fs::rename(&fresh, &self.folder).map_err(file)
    }

    fn error(&self, message: String) -> TrainError {
        TrainError::Checkpoint { path: self.folder.clone(), message }
    }
}

/// `step,loss,smoothed_loss,learning_rate`, one line a step.
struct Log {
    path: PathBuf,
    file: fs::File,
    smoothed: f32,
}

impl Log {
    fn open(path: &Path) -> Result<Self, TrainError> {
        let error = |source| TrainError::File { path: path.to_owned(), source };
        let fresh = !path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(error)?;
        if fresh {
            writeln!(file, "step,loss,smoothed_loss,learning_rate").map_err(error)?;
        }
        Ok(Self { path: path.to_owned(), file, smoothed: f32::NAN })
    }

    fn add(&mut self, step: u64, loss: f32, rate: f64) -> Result<(), TrainError> {
        self.smoothed = if self.smoothed.is_nan() { loss } else { 0.97 * self.smoothed + 0.03 * loss };
        writeln!(self.file, "{step},{loss},{},{rate}", self.smoothed)
            .map_err(|source| TrainError::File { path: self.path.clone(), source })
    }
}
