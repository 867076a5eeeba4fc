//! Networks that learn from labelled frames and from nothing else, as those of Nelson et al.: what the studies compare.

use super::{DcnnTask, Record};
use crate::config::InvalidSetting;
use crate::networks::{DeviceChoice, FEATURE_CHANNELS};
use crate::train::columns::Learner;
use crate::train::labelled::Labelled;
use crate::train::settings::DcnnTrainSettings;
use crate::train::stopping::Trained;
use crate::train::{Metrics, TrainError, runner};
use std::path::{Path, PathBuf};

/// Trains a DCNN on `frames` alone, whatever `labelled_fraction` says, and writes its model folder `output/<name>`, which it gives
/// back. Its sigma is not calibrated, it has no feature statistics, and its record has no errors: its user asks it for P.
///
/// `output/<name>.training` holds the log and the checkpoint: what was interrupted goes on there, and what is finished is not trained
/// again.
///
/// # Errors
/// When a setting is out of range, the checkpoint is of other settings or frames, the device or a file fails, or the loss diverges.
pub fn train_dcnn_on(
    settings: DcnnTrainSettings,
    frames: &Labelled,
    choice: DeviceChoice,
    output: &Path,
) -> Result<PathBuf, TrainError> {
    let settings = DcnnTrainSettings { labelled_fraction: 1.0, ..settings };
    settings.validate()?;
    if settings.schedule.stop_check_every > 0 {
        let expected = "0: every frame is learned from, or judged on";
        return Err(InvalidSetting::new(
            "schedule.stop_check_every",
            settings.schedule.stop_check_every,
            expected,
        )
        .into());
    }
    let work = output.join(format!("{}.training", settings.name));
    let (device, _) = choice.open()?;
    device.seed(settings.schedule.seed);
    let mut task = DcnnTask::new(settings);
    task.labelled = Some(frames.clone());
    let network = task.start(None, &device)?;
    let learner = Learner::new(network, FEATURE_CHANNELS, &device);
    let Trained { network: learner, steps } =
        runner::run(&task, learner, &task.settings.schedule, &device, &work)?;
    let folder = output.join(&task.settings.name);
    let data = frames.description().to_owned();
    task.export(&folder, &learner.dcnn, Record { data, metrics: Metrics::new(), steps })?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{DCNN_OUTPUTS, Manifest};
    use crate::simulate::{Microscope, Specimen, render};
    use crate::train::settings::{Schedule, Stack};
    use rand::SeedableRng as _;

    fn frames() -> Labelled {
        let microscope = Microscope { shape: [96, 96], pixel_size_pm: 15.0, ..Microscope::default() };
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        Labelled::simulated(
            render(&Specimen::default(), &microscope, &mut rng).unwrap(),
            "one frame".to_owned(),
        )
    }

    #[test]
    fn a_network_of_few_steps_becomes_a_model_and_its_folder_is_its_own() {
        let output = tempfile::tempdir().unwrap();
        let schedule = Schedule { steps: 2, batch: 1, crop_px: 80, ..Schedule::default() };
        for stack in [Stack::NotCentred, Stack::Centred { windows: 2 }] {
            let settings = DcnnTrainSettings {
                name: format!("small-{}", matches!(stack, Stack::NotCentred)),
                window_px: 32,
                stack,
                gaussian_noise: [0.001, 0.01],
                schedule: schedule.clone(),
                ..DcnnTrainSettings::default()
            };
            let folder =
                train_dcnn_on(settings.clone(), &frames(), DeviceChoice::Cpu, output.path()).unwrap();
            let manifest = Manifest::read(&folder).unwrap();
            assert_eq!(
                (manifest.training.data.as_str(), manifest.outputs.len()),
                ("one frame", DCNN_OUTPUTS.len())
            );
            let weights = std::fs::read(folder.join("weights.safetensors")).unwrap();
            // Finished: it is taken from where it is.
            train_dcnn_on(settings.clone(), &frames(), DeviceChoice::Cpu, output.path()).unwrap();
            assert_eq!(std::fs::read(folder.join("weights.safetensors")).unwrap(), weights);
            let other = DcnnTrainSettings { gamma: [0.5, 1.0], ..settings.clone() };
            let error = train_dcnn_on(other, &frames(), DeviceChoice::Cpu, output.path()).unwrap_err();
            assert!(error.to_string().contains("begun with gamma = [1.0, 1.0], now [0.5, 1.0]"), "{error}");
            let schedule = Schedule { stop_check_every: 1, ..schedule.clone() };
            let other = DcnnTrainSettings { schedule, ..settings };
            let error = train_dcnn_on(other, &frames(), DeviceChoice::Cpu, output.path()).unwrap_err();
            assert!(error.to_string().contains("stop_check_every"), "{error}");
        }
    }
}
