//! `ferrostem export`: frames and results as files of other programs.

use super::say;
use crate::session::OpenOptions;
use crate::session::export::{ExportFormat, export as write};
use anyhow::bail;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum To {
    Hspy,
    Emd,
    Nexus,
    Csv,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Session; for frames alone, any file of frames.
    file: PathBuf,
    /// Path of the images in the HDF5 file.
    #[arg(long)]
    dataset: Option<String>,
    /// Format; without it, what the name after --out ends with (.hspy, .emd, .nxs).
    #[arg(long)]
    to: Option<To>,
    /// File to write; with csv, a folder. Nothing is overwritten.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// One JSON line with all that was written.
    #[arg(long)]
    json: bool,
}

impl ExportArgs {
    fn format(&self) -> anyhow::Result<ExportFormat> {
        let extension = self.out.extension().and_then(|extension| extension.to_str());
        Ok(match (self.to, extension) {
            (Some(To::Hspy), _) | (None, Some("hspy")) => ExportFormat::Hspy,
            (Some(To::Emd), _) | (None, Some("emd")) => ExportFormat::Emd,
            (Some(To::Nexus), _) | (None, Some("nxs" | "nx")) => ExportFormat::Nexus,
            (Some(To::Csv), _) => ExportFormat::Csv,
            (None, _) => bail!("--out {}: expected .hspy, .emd or .nxs, or --to FORMAT", self.out.display()),
        })
    }
}

pub(super) fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let format = args.format()?;
    let options = OpenOptions { dataset: args.dataset.clone(), ..OpenOptions::default() };
    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let written = write(&args.file, &options, format, &args.out, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let written = written?;
    if args.json {
        return say(json!({ "out": args.out, "format": format, "written": written }));
    }
    for item in &written {
        say(format!("{}: {:?}", item.name, item.shape))?;
    }
    say(format!("{}: {} written", args.out.display(), written.len()))
}
