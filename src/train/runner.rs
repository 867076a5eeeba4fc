//! The training loop.

use super::checkpoint::Checkpoint;
use super::log::Log;
use super::settings::Schedule;
use super::stopping::{Stopping, Trained};
use super::{Metrics, TrainError, record};
use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Module, ParamGroup};
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;

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

    /// What early stopping looks at: the mean loss of [`stopping::frames`](super::stopping::frames), from which nothing is learned.
    fn held_out_loss(&self, network: &Self::Network, device: &Device) -> Result<f64, TrainError>;

    /// Errors on held-out frames.
    fn evaluate(&self, network: &Self::Network, device: &Device) -> Result<Metrics, TrainError>;
}

/// Trains `network` and returns it. `folder` receives `log.csv`, the checkpoint and a record of what the task was given; a
/// checkpoint found there is resumed, unless its task was given something else, and ends as a run that was not interrupted. With
/// early stopping, the network of the best check is returned.
pub(super) fn run<T: Task>(
    task: &T,
    network: T::Network,
    schedule: &Schedule,
    device: &Device,
    folder: &Path,
) -> Result<Trained<T::Network>, TrainError> {
    std::fs::create_dir_all(folder).map_err(|source| TrainError::File { path: folder.to_owned(), source })?;
    let training = device.clone().autodiff();
    let checkpoint = Checkpoint::open(folder)?;
    record::claim(folder, &task.given()?, checkpoint.exists())?;
    let clipping = GradientClippingConfig::Norm(GRADIENT_NORM);
    let optimizer: ModuleOptimizer =
        AdamConfig::new().with_epsilon(1e-8).with_grad_clipping(Some(clipping)).init();
    let mut checks = checkpoint.checks(network.clone())?;
    let (network, mut optimizer, first) = checkpoint.resume(network, optimizer)?;
    // What ended early is not gone on with.
    let last = if checks.ends(schedule) { first } else { schedule.steps };
    let network = network.train();
    let bar = progress_bar(schedule.steps, first);
    let mut log = Log::open(&folder.join("log.csv"), first)?;

    let trained = std::thread::scope(|scope| -> Result<Trained<T::Network>, TrainError> {
        let (mut network, mut steps) = (network, first);
        let (sender, batches) = crossbeam_channel::bounded(BATCHES_AHEAD);
        scope.spawn(move || {
            for step in first..last {
                // The receiver is gone when training failed or ended early; there is nobody left to tell.
                if sender.send(task.batch(step)).is_err() {
                    break;
                }
            }
        });
        for (step, batch) in (first..last).zip(batches.iter()) {
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
            steps = step + 1;
            if Stopping::<T::Network>::is_due(schedule, steps) {
                let checked = network.valid();
                let loss = task.held_out_loss(&checked, device)?;
                checks.take(checked, loss, steps);
            }
            let ends = checks.ends(schedule) || steps == schedule.steps;
            if ends || steps.is_multiple_of(schedule.checkpoint_every) {
                checkpoint.save(&network, &optimizer, steps, &checks)?;
            }
            if ends {
                break;
            }
        }
        Ok(Trained { network: network.valid(), steps })
    })?;
    bar.finish();
    Ok(checks.result(trained))
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A task whose power fails at a step.
    pub(in crate::train) struct Interrupted<'a, T> {
        pub task: &'a T,
        pub at: u64,
    }

    impl<T: Task> Task for Interrupted<'_, T> {
        type Network = T::Network;
        type Batch = T::Batch;

        fn given(&self) -> Result<toml::Table, TrainError> {
            self.task.given()
        }

        fn batch(&self, step: u64) -> Result<T::Batch, TrainError> {
            if step == self.at {
                return Err(TrainError::Execution("power failure".to_owned()));
            }
            self.task.batch(step)
        }

        fn loss(&self, network: &T::Network, batch: &T::Batch, device: &Device) -> Tensor<1> {
            self.task.loss(network, batch, device)
        }

        fn gradients(
            &self,
            network: &T::Network,
            batch: &T::Batch,
            device: &Device,
        ) -> Result<(f32, GradientsParams), TrainError> {
            self.task.gradients(network, batch, device)
        }

        fn held_out_loss(&self, network: &T::Network, device: &Device) -> Result<f64, TrainError> {
            self.task.held_out_loss(network, device)
        }

        fn evaluate(&self, network: &T::Network, device: &Device) -> Result<Metrics, TrainError> {
            self.task.evaluate(network, device)
        }
    }

    /// A run of `task` from `start`; one that fails at step `at` and is resumed; and what is found of that one when it is asked for once
    /// more. Their logs are the same.
    pub(in crate::train) fn straight_and_resumed<T: Task>(
        task: &T,
        start: &T::Network,
        schedule: &Schedule,
        at: u64,
    ) -> [Trained<T::Network>; 3] {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let run = |at: u64, folder: &Path| {
            run(&Interrupted { task, at }, start.clone(), schedule, &Device::flex(), folder)
        };
        let straight = run(u64::MAX, folders[0].path()).unwrap();
        assert!(run(at, folders[1].path()).is_err());
        let resumed = run(u64::MAX, folders[1].path()).unwrap();
        let again = run(u64::MAX, folders[1].path()).unwrap();
        let [log, other] =
            folders.each_ref().map(|folder| std::fs::read_to_string(folder.path().join("log.csv")).unwrap());
        assert_eq!(log, other);
        assert!(log.lines().count() as u64 > at);
        [straight, resumed, again]
    }
}
