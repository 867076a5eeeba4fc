//! `ferrostem evaluate`: how good the networks are.

mod images;

use super::say;
use crate::config::Config;
use crate::evaluate::accuracy::{self, AccuracySettings};
use crate::evaluate::closed_loop::{self, LoopSettings};
use crate::evaluate::columns;
use crate::evaluate::composition::{self, CompositionStudySettings};
use crate::evaluate::features::{self, FeaturesSettings};
use crate::evaluate::filters::{self, FiltersSettings};
use crate::evaluate::mistilt::{self, Analyzers, MistiltStudySettings};
use crate::evaluate::noise::{self, NoiseStudySettings};
use crate::evaluate::ood::{self, OodStudySettings};
use crate::evaluate::real::{self, RealSettings};
use crate::evaluate::regression::{self, RegressionSettings};
use crate::evaluate::table::Table;
use crate::networks::LayeredDcnn;
use crate::pipeline::Analyzer;
use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use images::ImageArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Frames a row with `--quick`.
const QUICK_FRAMES: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Study {
    /// Errors by dose, direction of the lattice and pixel size, beside the classical measurement.
    Accuracy,
    /// Columns that the FCNN finds by dose, and how near to the truth they are.
    Columns,
    /// Predicted against measured, joint distributions, and maps of the differences (Nelson et al., figures 2 to 4).
    Regression,
    /// Frames until planted defects are found: a controller that follows candidates, raster and random search.
    Loop,
    /// Offsets planted in frames of several domains, one and none: how many are found, how well, how many false alarms.
    Mistilt,
    /// Images from a microscope: DCNN against classical measurement, and whether deliberate damage is flagged.
    Real,
    /// How well simulated anomalies are told from what the network knows, score by score, and whether p-values keep their promise.
    Ood,
    /// Networks of several windows, trained with and without noise, under noise (figures 7 and S1). It trains them into --out.
    Noise,
    /// Networks trained on each composition and judged on every other (figure 8). It trains them into --out.
    Composition,
    /// What the layers of a DCNN see in an image (figure 5).
    Features,
    /// The images that single filters of a DCNN answer to most (figure 6).
    Filters,
}

impl Study {
    const fn reads_images(self) -> bool {
        matches!(self, Self::Real | Self::Noise | Self::Composition | Self::Features)
    }
}

#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    study: Study,
    #[command(flatten)]
    images: ImageArgs,
    /// Settings of the study (TOML); without, the defaults.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Folder for tables (CSV, Markdown) and figures (PNG).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Frames for each row of a table, damaged copies of `real`; overrides the settings.
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
    let config = args.config()?;
    if !args.study.reads_images() {
        args.images.refuse()?;
    }
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let tables = match args.study {
        Study::Columns => columns(args, &mut Analyzer::new(&config)?)?,
        Study::Accuracy => accuracy(args, &mut Analyzer::new(&config)?)?,
        Study::Regression => regression(args, &mut Analyzer::new(&config)?)?,
        Study::Loop => closed_loop(args, &config)?,
        Study::Mistilt => mistilt(args)?,
        Study::Ood => out_of_distribution(args, &Analyzer::new(&config)?)?,
        Study::Noise => noise(args, &config)?,
        Study::Composition => composition(args, &config)?,
        Study::Features => features(args, &config)?,
        Study::Filters => filters(args, &config)?,
        Study::Real => real(args, &config)?,
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

/// The settings of the studies by dose.
fn by_dose(args: &EvaluateArgs) -> anyhow::Result<AccuracySettings> {
    let mut settings: AccuracySettings = args.settings()?;
    if args.quick {
        settings.frames = QUICK_FRAMES;
        settings.counts = vec![30.0, 300.0];
        settings.pixel_sizes_pm = vec![20.0];
        settings.rotations = 1;
    }
    settings.frames = args.frames.unwrap_or(settings.frames);
    settings.validate("")?;
    Ok(settings)
}

fn columns(args: &EvaluateArgs, analyzer: &mut Analyzer) -> anyhow::Result<Tables> {
    let settings = by_dose(args)?;
    let bar = progress(settings.counts.len() * settings.frames, args.json);
    let table = columns::by_dose(analyzer, &settings, || bar.inc(1))?;
    bar.finish_and_clear();
    Ok(vec![("columns_by_dose", table)])
}

fn accuracy(args: &EvaluateArgs, analyzer: &mut Analyzer) -> anyhow::Result<Tables> {
    let settings = by_dose(args)?;
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

fn closed_loop(args: &EvaluateArgs, config: &Config) -> anyhow::Result<Tables> {
    let settings: LoopSettings = if args.quick { LoopSettings::quick() } else { args.settings()? };
    settings.validate("")?;
    let bar = progress(2 * settings.budget(), args.json);
    let study = closed_loop::study(|| Ok(Analyzer::new(config)?), &settings, || bar.inc(1))?;
    bar.finish_and_clear();
    if let Some(folder) = &args.out {
        study.draw(folder)?;
    }
    Ok(vec![("loop", study.summary()), ("loop_defects", study.defects()), ("loop_curve", study.curve())])
}

fn mistilt(args: &EvaluateArgs) -> anyhow::Result<Tables> {
    let mut settings: MistiltStudySettings = args.settings()?;
    if args.quick {
        settings = settings.quick();
    }
    settings.frames = args.frames.unwrap_or(settings.frames);
    settings.validate("")?;
    let config = args.config()?;
    let of_material =
        |material: &str| Analyzer::new(&Config { material: material.to_owned(), ..config.clone() });
    let (mut polar, mut non_polar) = (of_material(mistilt::POLAR)?, of_material(mistilt::NON_POLAR)?);
    let mut analyzers = Analyzers { polar: &mut polar, non_polar: &mut non_polar };
    let bar = progress(settings.total_frames().iter().sum(), args.json);
    let tables = vec![
        ("mistilt_ideal", mistilt::ideal(&settings, &config.flags.mistilt, || bar.inc(1))?),
        ("mistilt_pipeline", mistilt::pipeline(&mut analyzers, &settings, || bar.inc(1))?),
    ];
    bar.finish_and_clear();
    Ok(tables)
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

/// Where networks are trained.
fn networks(args: &EvaluateArgs) -> anyhow::Result<PathBuf> {
    let folder =
        args.out.as_ref().context("--out DIR: expected with this study, which trains networks into it")?;
    Ok(folder.join("networks"))
}

fn noise(args: &EvaluateArgs, config: &Config) -> anyhow::Result<Tables> {
    let mut settings: NoiseStudySettings = args.settings()?;
    if args.quick {
        settings = settings.quick();
    }
    settings.validate("")?;
    let source = args.images.sources(config)?.into_iter().next();
    let image = source.map(|source| settings.stacks.from_file(&source)).transpose()?;
    let study = noise::study(&settings, image, config.device_choice()?, &networks(args)?)?;
    if let Some(folder) = &args.out {
        study.draw(folder)?;
    }
    Ok(vec![("noise", study.table())])
}

fn composition(args: &EvaluateArgs, config: &Config) -> anyhow::Result<Tables> {
    let mut settings: CompositionStudySettings = args.settings()?;
    if args.quick {
        settings = settings.quick();
    }
    settings.validate("")?;
    let folder = networks(args)?;
    let sources = args.images.sources(config)?;
    let images = if sources.is_empty() {
        settings.simulated()?
    } else {
        sources.iter().map(|source| settings.stacks.from_file(source)).collect::<Result<_, _>>()?
    };
    let study = composition::study(&settings, images, config.device_choice()?, &folder)?;
    if let Some(folder) = &args.out {
        study.draw(folder)?;
    }
    Ok(study.tables())
}

fn layered(config: &Config) -> anyhow::Result<LayeredDcnn> {
    let engine = config.engine()?;
    let folder = engine.dcnn.context("models.dcnn = none: expected a DCNN to look into")?;
    Ok(LayeredDcnn::load(&folder, engine.device)?)
}

fn features(args: &EvaluateArgs, config: &Config) -> anyhow::Result<Tables> {
    let settings: FeaturesSettings = args.settings()?;
    settings.validate("")?;
    let (frame, material) = (args.images.frames(config)?.into_iter().next(), config.material()?);
    let shown = frame.as_ref().map(|frame| (frame, &material));
    let study = features::study(&layered(config)?, &settings, shown)?;
    if let Some(folder) = &args.out {
        study.draw(folder)?;
    }
    Ok(vec![("features", study.table())])
}

fn filters(args: &EvaluateArgs, config: &Config) -> anyhow::Result<Tables> {
    let mut settings: FiltersSettings = args.settings()?;
    if args.quick {
        settings = settings.quick();
    }
    settings.validate("")?;
    let bar = progress(settings.ascents(), args.json);
    let study = filters::study(&layered(config)?, &settings, || bar.inc(1))?;
    bar.finish_and_clear();
    if let Some(folder) = &args.out {
        study.draw(folder)?;
    }
    Ok(vec![("filters", study.table())])
}

fn real(args: &EvaluateArgs, config: &Config) -> anyhow::Result<Tables> {
    let mut settings: RealSettings = args.settings()?;
    if args.quick {
        settings.copies = 1;
    }
    settings.copies = args.frames.unwrap_or(settings.copies);
    settings.validate("")?;
    let frames: Vec<_> = args.images.frames(config)?.into_iter().map(Arc::new).collect();
    if frames.is_empty() {
        bail!("the study `real` is about images: expected FILE…");
    }
    let mut analyzer = Analyzer::new(config)?;
    let bar = progress(frames.len() * settings.processed(), args.json);
    let mut examined = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        // A patch of the next image; an image on its own has none.
        let next = frames.iter().cycle().nth(index + 1).filter(|_| frames.len() > 1);
        let other = next.map(|frame| &frame.pixels);
        let image = real::examine(&mut analyzer, frame, other, &settings, || bar.inc(1))
            .with_context(|| frame.acquisition.clone())?;
        if let Some(folder) = &args.out {
            image.draw(folder)?;
        }
        examined.push(image);
    }
    bar.finish_and_clear();
    Ok(vec![
        ("real_agreement", real::agreement_table(&examined)),
        ("real_damage", real::damage_table(&examined, &settings)),
    ])
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
