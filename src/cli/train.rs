//! `ferrostem train`.

use super::say;
use crate::networks::DeviceChoice;
use crate::train::{DcnnTrainSettings, FcnnTrainSettings, train_dcnn, train_fcnn};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Network {
    Dcnn,
    Fcnn,
}

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    network: Network,
    /// Training config.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Folder that receives the model's folder and, beside it, `<name>.training` with the log and the checkpoint; a
    /// checkpoint found there is resumed.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Folder of a DCNN to start from, of the head and window that the config has.
    #[arg(long, value_name = "DIR")]
    from_model: Option<PathBuf>,
    /// auto, cpu, vulkan[:INDEX] or wgpu[:INDEX].
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

pub(super) fn train(args: &TrainArgs) -> anyhow::Result<()> {
    let metrics = match args.network {
        Network::Dcnn => {
            let settings = DcnnTrainSettings::read(&args.config)?;
            train_dcnn(settings, args.from_model.as_deref(), args.device, &args.output)?
        }
        Network::Fcnn if args.from_model.is_some() => {
            anyhow::bail!("--from-model starts a DCNN; an FCNN is trained from the beginning")
        }
        Network::Fcnn => train_fcnn(FcnnTrainSettings::read(&args.config)?, args.device, &args.output)?,
    };
    say("on held-out frames:")?;
    for (name, value) in metrics {
        say(format!("  {name} = {value:.4}"))?;
    }
    Ok(())
}
