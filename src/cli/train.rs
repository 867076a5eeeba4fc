//! `ferrostem train`.

use super::{frame_range, say};
use crate::config::find_model;
use crate::material::Material;
use crate::networks::DeviceChoice;
use crate::session::OpenOptions;
use crate::train::{
    Adapts, Beginning, DcnnTrainSettings, FcnnTrainSettings, LabelSource, renew_statistics, train_dcnn,
    train_fcnn,
};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Network {
    Dcnn,
    Fcnn,
    /// No training: the feature statistics of the DCNN of --from-model, anew, with a copy of it in --output.
    Statistics,
}

/// What of a model training changes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Adapt {
    All,
    /// The fully connected layers alone; the rest stays as it is.
    Head,
}

impl From<Adapt> for Adapts {
    fn from(adapt: Adapt) -> Self {
        match adapt {
            Adapt::All => Self::All,
            Adapt::Head => Self::Head,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    network: Network,
    /// Training config. Without it, a DCNN with --from-model is trained as that model says it was, 80 steps at a low rate.
    #[arg(long, value_name = "FILE", required_unless_present = "from_model")]
    config: Option<PathBuf>,
    /// Folder that receives the model's folder and, beside it, `<name>.training` with the log and the checkpoint; a
    /// checkpoint found there is resumed.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Model folder, or name of a shipped model, of a DCNN to start from, with the head and window that the config has.
    #[arg(long, value_name = "DIR")]
    from_model: Option<String>,
    /// What of the model of --from-model is trained; overrides the config's `adapts`.
    #[arg(long, value_enum, value_name = "WHAT", requires = "from_model")]
    adapt: Option<Adapt>,
    /// Frames on which p-values are calibrated, of `statistics`.
    #[arg(long, value_name = "N", default_value_t = 640)]
    calibration_frames: usize,
    /// Frames to learn from beside the simulated ones: a session, whose frames are labelled classically; a label file of
    /// `ferrostem label`; an Sm-BFO image with its UCParameterization beside it.
    #[arg(long, value_name = "FILE")]
    label_frames: Option<PathBuf>,
    /// Those of its frames that are learned from, FIRST:END (END not included); the others are held back, and the report says
    /// whether training helped on them. Without it, all.
    #[arg(long, value_name = "FIRST:END", requires = "label_frames")]
    frames: Option<String>,
    /// Path of the images in the HDF5 file.
    #[arg(long, requires = "label_frames")]
    dataset: Option<String>,
    /// Pixel size of the labelled frames; overrides the file's. Without either it is taken from the lattice and --material.
    #[arg(long, value_name = "PM", requires = "label_frames")]
    pixel_size_pm: Option<f64>,
    /// Material: its lattice parameter calibrates.
    #[arg(long, requires = "label_frames")]
    material: Option<String>,
    /// auto, cpu, vulkan[:INDEX] or wgpu[:INDEX].
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

impl TrainArgs {
    fn labels(&self) -> anyhow::Result<Option<LabelSource>> {
        let Some(path) = &self.label_frames else { return Ok(None) };
        Ok(Some(LabelSource {
            path: path.clone(),
            frames: self.frames.as_deref().map(|text| frame_range(text, None)).transpose()?,
            options: OpenOptions { dataset: self.dataset.clone(), ..OpenOptions::default() },
            pixel_size_pm: self.pixel_size_pm,
            material: self.material.as_deref().map(Material::resolve).transpose()?,
        }))
    }

    fn config(&self) -> anyhow::Result<&Path> {
        self.config.as_deref().context("--config FILE is required for an FCNN")
    }
}

pub(super) fn train(args: &TrainArgs) -> anyhow::Result<()> {
    let metrics = match args.network {
        Network::Statistics => {
            let name = args.from_model.as_deref().context("--from-model DIR is required for statistics")?;
            let model = find_model("--from-model", name)?.context("--from-model: expected a DCNN")?;
            return Ok(renew_statistics(&model, &args.output, args.device, args.calibration_frames)?);
        }
        Network::Dcnn => {
            let from_model = match &args.from_model {
                Some(name) => find_model("--from-model", name)?,
                None => None,
            };
            let mut settings = match (&args.config, &from_model) {
                (None, Some(model)) => DcnnTrainSettings::adapting(model)?,
                _ => DcnnTrainSettings::read(args.config()?)?,
            };
            if let Some(adapt) = args.adapt {
                settings.adapts = adapt.into();
            }
            let beginning = Beginning { from_model, labels: args.labels()? };
            train_dcnn(settings, &beginning, args.device, &args.output)?
        }
        Network::Fcnn if args.from_model.is_some() => {
            anyhow::bail!("--from-model is for a DCNN; an FCNN is trained from the beginning")
        }
        Network::Fcnn => {
            let settings = FcnnTrainSettings::read(args.config()?)?;
            train_fcnn(settings, args.labels()?.as_ref(), args.device, &args.output)?
        }
    };
    say("on held-out frames:")?;
    for (name, value) in &metrics {
        say(format!("  {name} = {value:.4}"))?;
    }
    let [before, after] =
        ["before", "after"].map(|when| metrics.get(&format!("held_back_rms_p_component_{when}_pm")));
    if let (Some(before), Some(after)) = (before, after) {
        let verdict = if after < before { "helped" } else { "did not help" };
        say(format!(
            "training {verdict} on the frames held back: P differs from their labels by {after:.2} pm, before by {before:.2} pm"
        ))?;
    }
    Ok(())
}
