//! `ferrostem evaluate`: how good the networks are.

use super::say;
use crate::config::Config;
use crate::evaluate::accuracy::{self, AccuracySettings};
use crate::evaluate::ood::{self, OodStudySettings};
use crate::evaluate::regression::{self, RegressionSettings};
use crate::evaluate::table::Table;
use crate::pipeline::Analyzer;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Frames a row with `--quick`.
const QUICK_FRAMES: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Study {
    /// Errors by dose, direction of the lattice and pixel size, beside the classical measurement.
    Accuracy,
    /// Predicted against measured, joint distributions, and maps of the differences (Nelson et al., figures 2 to 4).
    Regression,
    /// How well simulated anomalies are told from what the network knows, score by score, and whether p-values keep their promise.
    Ood,
}

#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    study: Study,
    /// Settings of the study (TOML); without, the defaults.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Folder for tables (CSV, Markdown) and figures (PNG).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Frames for each row of a table; overrides the settings.
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// A few frames and rows, to see that it works.
    #[arg(long)]
    quick: bool,
    /// The tables as one JSON object.
    #[arg(long)]
    json: bool,
    /// Model folder, or name of a shipped model.
    #[arg(long, value_name = "DIR")]
    dcnn: Option<String>,
    /// Model folder, name of a shipped model, or none.
    #[arg(long, value_name = "DIR")]
    fcnn: Option<String>,
    #[command(flatten)]
    config: super::ConfigArgs,
}

impl EvaluateArgs {
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = self.config.load()?;
        if let Some(dcnn) = &self.dcnn {
            config.models.dcnn.clone_from(dcnn);
        }
        if let Some(fcnn) = &self.fcnn {
            config.models.fcnn.clone_from(fcnn);
        }
        config.validate()?;
        Ok(config)
    }

    fn settings<T: DeserializeOwned + Default>(&self) -> anyhow::Result<T> {
        let Some(path) = &self.settings else { return Ok(T::default()) };
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

pub(super) fn evaluate(args: &EvaluateArgs) -> anyhow::Result<()> {
    let mut analyzer = Analyzer::new(&args.config()?)?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let tables = match args.study {
        Study::Accuracy => accuracy(args, &mut analyzer)?,
        Study::Regression => regression(args, &mut analyzer)?,
        Study::Ood => out_of_distribution(args, &analyzer)?,
    };
    if let Some(folder) = &args.out {
        for (name, table) in &tables {
            table.write(folder, name)?;
        }
    }
    if args.json {
        let object: Map<String, Value> =
            tables.iter().map(|(name, table)| ((*name).to_owned(), table.to_json())).collect();
        return say(Value::Object(object));
    }
    for (_, table) in &tables {
        say(table.to_markdown())?;
    }
    Ok(())
}

type Tables = Vec<(&'static str, Table)>;

fn accuracy(args: &EvaluateArgs, analyzer: &mut Analyzer) -> anyhow::Result<Tables> {
    let mut settings: AccuracySettings = args.settings()?;
    if args.quick {
        settings.frames = QUICK_FRAMES;
        settings.counts = vec![30.0, 300.0];
        settings.pixel_sizes_pm = vec![20.0];
        settings.rotations = 1;
    }
    settings.frames = args.frames.unwrap_or(settings.frames);
    settings.validate("")?;
    let rows = 2 * settings.counts.len() + settings.rotations + 2 * settings.pixel_sizes_pm.len();
    let bar = progress(rows * settings.frames, args.json);
    let tables = vec![
        ("accuracy_by_dose", accuracy::by_dose(analyzer, &settings, false, || bar.inc(1))?),
        ("accuracy_by_dose_with_faults", accuracy::by_dose(analyzer, &settings, true, || bar.inc(1))?),
        ("accuracy_non_polar", accuracy::non_polar(analyzer, &settings, || bar.inc(1))?),
        ("accuracy_by_pixel_size", accuracy::by_pixel_size(analyzer, &settings, || bar.inc(1))?),
    ];
    bar.finish_and_clear();
    Ok(tables)
}

fn regression(args: &EvaluateArgs, analyzer: &mut Analyzer) -> anyhow::Result<Tables> {
    let mut settings: RegressionSettings = args.settings()?;
    if args.quick {
        settings.frames = QUICK_FRAMES;
    }
    settings.frames = args.frames.unwrap_or(settings.frames);
    settings.validate("")?;
    let bar = progress(settings.frames, args.json);
    let study = regression::study(analyzer, &settings, || bar.inc(1))?;
    bar.finish_and_clear();
    if let Some(folder) = &args.out {
        figures(&study, folder)?;
    }
    Ok(vec![("regression", study.table())])
}

fn out_of_distribution(args: &EvaluateArgs, analyzer: &Analyzer) -> anyhow::Result<Tables> {
    let mut settings: OodStudySettings = args.settings()?;
    if args.quick {
        settings = settings.quick();
    }
    if let Some(frames) = args.frames {
        settings = settings.with_frames(frames);
    }
    settings.validate("")?;
    let bar = progress(settings.processed(), args.json);
    let tables = ood::study(analyzer, &settings, || bar.inc(1))?;
    bar.finish_and_clear();
    Ok(tables)
}

fn figures(study: &regression::Study, folder: &Path) -> anyhow::Result<()> {
    study.predicted_against_measured(folder)?;
    study.joint_distributions(folder)?;
    study.maps(folder)?;
    Ok(())
}

fn progress(frames: usize, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(frames as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} frame {pos}/{len} {per_sec} left {eta}") {
        bar.set_style(style);
    }
    bar
}
