//! `ferrostem devices`.

use super::say;
use crate::networks::list_devices;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct DevicesArgs {
    /// One JSON array instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) fn devices(args: &DevicesArgs) -> anyhow::Result<()> {
    let devices = list_devices();
    if args.json {
        return say(serde_json::to_string_pretty(&devices)?);
    }
    for device in devices {
        let kind = if device.is_gpu { "GPU" } else { "software" };
        let auto = if device.is_auto { "  <- auto" } else { "" };
        say(format!("{:<12} {:<9} {}{auto}", device.choice, kind, device.name))?;
    }
    Ok(())
}
