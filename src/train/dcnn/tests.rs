//! Where a DCNN begins, and how its training goes on.

use super::*;
use crate::networks::{HeadKind, Manifest, weights_bytes, write_untrained};
use crate::simulate::TrainingRanges;
use crate::train::Schedule;
use crate::train::labelled::tests::session;
use crate::train::runner::tests::straight_and_resumed;
use burn::module::Module as _;
use burn::nn::conv::Conv2d;

/// A wider range of shears and a narrower one of P than the model's.
#[test]
fn a_model_to_go_on_from_keeps_its_scales_and_its_ranges_grow() {
    let folder = tempfile::tempdir().unwrap();
    let first = DcnnTask::new(DcnnTrainSettings::default());
    let mut manifest = write_untrained(folder.path(), Architecture::Dcnn(first.config()), 3).unwrap();
    manifest.outputs = first.outputs.clone();
    for output in &mut manifest.outputs {
        (output.mean, output.scale) = (1.5 * output.mean, 1.5 * output.scale);
    }
    manifest.write(folder.path()).unwrap();

    let ranges = TrainingRanges::default();
    let p = 0.5 * ranges.polarization_pm[1];
    let scenes = TrainingRanges { shear_rad: [-0.2, 0.1], polarization_pm: [0.0, p], ..ranges };
    let mut second = DcnnTask::new(DcnnTrainSettings { scenes, ..DcnnTrainSettings::default() });
    second.start(Some(folder.path()), &Device::flex()).unwrap();
    assert_eq!(second.given().unwrap()["initial_weights"].as_str(), Some(manifest.weights.sha256.as_str()));
    for ((output, model), before) in second.outputs.iter().zip(&manifest.outputs).zip(&first.outputs) {
        assert_eq!((output.mean, output.scale), (model.mean, model.scale));
        if output.name != "cell_angle" && output.name != "cell_area" {
            assert_eq!(output.trained_range, before.trained_range, "{}", output.name);
        }
    }
    let right = std::f64::consts::FRAC_PI_2;
    assert_eq!(second.outputs[4].trained_range, [right - 0.2, right + 0.2]);
    // A sheared cell is smaller.
    let [area, before] = [&second, &first].map(|task| task.outputs[5].trained_range);
    assert!(area[0] < before[0] && area[1] == before[1]);
}

/// With the smallest window of a deep head, which draws no random numbers: those of dropout tests share.
fn smallest(adapts: Adapts) -> DcnnTrainSettings {
    let schedule = Schedule { steps: 4, batch: 1, crop_px: 72, checkpoint_every: 2, ..Schedule::default() };
    DcnnTrainSettings {
        head: HeadKind::Deep,
        window_px: 66,
        adapts,
        schedule,
        ..DcnnTrainSettings::default()
    }
}

fn fresh(task: &DcnnTask) -> Learner {
    let device = Device::flex();
    device.seed(3);
    Learner::new(task.config().init(&device), FEATURE_CHANNELS, &device)
}

#[test]
fn an_interrupted_run_resumes_exactly() {
    let weights = |learner: &Learner| weights_bytes(Path::new("test"), learner).unwrap();
    for adapts in [Adapts::All, Adapts::Head] {
        let task = DcnnTask::new(smallest(adapts));
        let start = fresh(&task);
        let ends = straight_and_resumed(&task, &start, &task.settings.schedule, 3);
        let [straight, resumed, again] = ends.each_ref().map(|end| weights(&end.network));
        assert_eq!(straight, resumed, "{adapts:?}");
        assert_eq!(straight, again, "{adapts:?}");
        assert_ne!(straight, weights(&start), "{adapts:?}");
    }
}

/// The farther its first layer is from where it began, the larger its loss is said to be.
struct Worsening {
    task: DcnnTask,
    start: Tensor<4>,
}

impl Task for Worsening {
    type Network = Learner;
    type Batch = DcnnBatch;

    fn given(&self) -> Result<toml::Table, TrainError> {
        self.task.given()
    }

    fn batch(&self, step: u64) -> Result<DcnnBatch, TrainError> {
        self.task.batch(step)
    }

    fn loss(&self, learner: &Learner, batch: &DcnnBatch, device: &Device) -> Tensor<1> {
        self.task.loss(learner, batch, device)
    }

    fn held_out_loss(&self, learner: &Learner, _: &Device) -> Result<f64, TrainError> {
        let away = learner.dcnn.convolutions()[0].weight.val() - self.start.clone();
        runner::scalar(away.abs().sum()).map(f64::from)
    }

    fn evaluate(&self, _: &Learner, _: &Device) -> Result<Metrics, TrainError> {
        Ok(Metrics::new())
    }
}

/// Checks after 2, 4 and 6 steps; the first is the best, and the third the last. Interrupted between the second and the third.
#[test]
fn a_run_that_ends_early_takes_the_best_weights_and_resumes_exactly() {
    let mut settings = smallest(Adapts::All);
    settings.schedule = Schedule {
        steps: 20,
        warmup_steps: 0,
        checkpoint_every: 5,
        stop_check_every: 2,
        stop_patience: 2,
        ..settings.schedule
    };
    let task = DcnnTask::new(settings);
    let start = fresh(&task);
    let first = start.dcnn.convolutions()[0].weight.val();
    let task = Worsening { task, start: first };
    let ends = straight_and_resumed(&task, &start, &task.task.settings.schedule, 5);
    let end = |end: &Trained<Learner>| (end.steps, weights_bytes(Path::new("test"), &end.network).unwrap());
    let [straight, resumed, again] = ends.each_ref().map(end);
    assert_eq!(straight.0, 2);
    assert_eq!(straight, resumed);
    assert_eq!(straight, again);
}

/// What is judged while training, is judged on frames of its own.
#[test]
fn early_stopping_looks_at_other_frames_than_the_final_judgement() {
    let task = DcnnTask::new(smallest(Adapts::All));
    let splits = [Split::Stopping { index: 0 }, Split::HeldOut { index: 0 }, Split::Calibration { index: 0 }];
    let [stopping, held_out, calibration] = splits.map(|split| task.sample(split).unwrap().pixels);
    assert_ne!(stopping, held_out);
    assert_ne!(stopping, calibration);
}

/// That of the loss that is minimised, on the labelled frames that are set aside.
#[test]
fn early_stopping_looks_at_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let mut task = DcnnTask::new(smallest(Adapts::All));
    let schedule = Schedule { stop_check_every: 2, ..task.settings.schedule.clone() };
    let source = LabelSource { frames: Some(0..1), ..session(&folder.path().join("session.h5"), 3, 150) };
    let labelled = Labelled::to_train(&source, 15.0, &schedule).unwrap();
    let (device, learner) = (Device::flex(), fresh(&task));
    let losses: Vec<f64> = labelled
        .stopping(schedule.crop_px)
        .into_iter()
        .map(|crop| {
            let batch = task.assemble(&[crop]).unwrap();
            f64::from(runner::scalar(task.loss(&learner, &batch, &device)).unwrap())
        })
        .collect();
    assert_eq!(losses.len(), 4);
    let expected = mean(losses.into_iter());
    task.labelled = Some(labelled);
    let found = task.held_out_loss(&learner, &device).unwrap();
    assert!((found - expected).abs() < 1e-3 * expected.abs(), "{found} {expected}");
    // Simulated frames, where there are no others.
    task.labelled = None;
    task.settings.schedule.held_out_frames = 2;
    let simulated = task.held_out_loss(&learner, &device).unwrap();
    assert!(simulated.is_finite() && simulated != found, "{simulated}");
}

/// Bit by bit; and what the head learns does not depend on whether the layers before it learn.
#[test]
fn a_head_is_adapted_alone() {
    let values = |layer: &Conv2d| {
        let bias = layer.bias.as_ref().unwrap().val().to_data().try_into_vec::<f32>().unwrap();
        [layer.weight.val().to_data().try_into_vec::<f32>().unwrap(), bias]
    };
    let task = DcnnTask::new(smallest(Adapts::Head));
    let start = fresh(&task);
    let folder = tempfile::tempdir().unwrap();
    let Trained { network: end, .. } =
        runner::run(&task, start.clone(), &task.settings.schedule, &Device::flex(), folder.path()).unwrap();
    let [before, after] =
        [&start, &end].map(|learner| learner.dcnn.convolutions().into_iter().map(values).collect::<Vec<_>>());
    // The hidden layer and the outputs come last.
    let trunk = before.len() - 2;
    assert_eq!(before[..trunk], after[..trunk]);
    assert!(before[trunk..].iter().zip(&after[trunk..]).all(|(before, after)| before != after));

    let device = Device::flex().autodiff();
    let (learner, batch) = (start.train(), task.batch(0).unwrap());
    let all = DcnnTask::new(smallest(Adapts::All));
    let [(loss, head), (same, whole)] =
        [&task, &all].map(|task| task.gradients(&learner, &batch, &device).unwrap());
    assert_eq!(loss, same);
    let outputs = learner.dcnn.convolutions().last().unwrap().weight.id;
    let of_outputs = |gradients: &GradientsParams| {
        gradients.get::<4>(outputs).unwrap().to_data().try_into_vec::<f32>().unwrap()
    };
    assert_eq!(of_outputs(&head), of_outputs(&whole));
    assert!(head.len() < whole.len());
    let error = DcnnTask::new(smallest(Adapts::Head)).start(None, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("adapts") && error.contains("head"), "{error}");
}

/// From a model with random weights, in few steps: nothing good comes of it, but it is said how good.
#[test]
fn a_model_is_adapted_to_a_labelled_session_and_judged_on_the_frames_held_back() {
    let folder = tempfile::tempdir().unwrap();
    let schedule = Schedule {
        steps: 3,
        batch: 1,
        crop_px: 96,
        learning_rate: 1e-4,
        held_out_frames: 2,
        stop_check_every: 2,
        ..Schedule::default()
    };
    let settings = DcnnTrainSettings {
        name: "adapted".to_owned(),
        head: HeadKind::Deep,
        labelled_fraction: 1.0,
        columns_weight: 0.0,
        schedule,
        ..DcnnTrainSettings::default()
    };
    let model = folder.path().join("model");
    let network = DcnnTask::new(settings.clone()).config();
    let first = write_untrained(&model, Architecture::Dcnn(network), 3).unwrap();
    let labels = LabelSource { frames: Some(0..1), ..session(&folder.path().join("session.h5"), 3, 200) };
    let beginning = Beginning { from_model: Some(model), labels: Some(labels) };
    let metrics = train_dcnn(settings, &beginning, DeviceChoice::Cpu, folder.path()).unwrap();
    let [before, after] =
        ["before", "after"].map(|when| metrics[&format!("held_back_rms_p_component_{when}_pm")]);
    assert!(before.is_finite() && after.is_finite() && before != after, "{before} {after}");

    let manifest = Manifest::read(&folder.path().join("adapted")).unwrap();
    assert!([2, 3].contains(&manifest.training.steps));
    assert!(manifest.training.data.contains("frames 0:1 of session.h5"), "{}", manifest.training.data);
    assert_eq!(manifest.training.started_from.unwrap().sha256, first.weights.sha256);
    assert_ne!(manifest.weights.sha256, first.weights.sha256);
    assert!(manifest.features.is_some());
}
