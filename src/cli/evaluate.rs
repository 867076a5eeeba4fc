//! `ferrostem evaluate`: how good the networks are.

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
use crate::evaluate::regression::{self, RegressionSettings};
use crate::evaluate::table::Table;
use crate::frame::Frame;
use crate::ingest::SourceSettings;
use crate::ingest::validate::validate;
use crate::networks::LayeredDcnn;
use crate::pipeline::Analyzer;
use crate::session::{OpenOptions, open};
use crate::train::LabelSource;
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
    /// Columns that the FCNN finds by dose, and how near to the truth they are.
    Columns,
    /// Predicted against measured, joint distributions, and maps of the differences (Nelson et al., figures 2 to 4).
    Regression,
    /// Frames until planted defects are found: a controller that follows candidates, raster and random search.
    Loop,
    /// Offsets planted in frames of several domains, one and none: how many are found, how well, how many false alarms.
    Mistilt,
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
    images: ImageArgs,
    #[command(flatten)]
    config: super::ConfigArgs,
}

/// Images to study in place of simulated ones.
#[derive(Debug, Args)]
struct ImageArgs {
    /// Of noise and features the first, of composition each as one of the compositions: sessions and images, whose cells are measured
    /// classically; label files; Sm-BFO images with their UCParameterization beside them.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// Path of the images in the HDF5 files.
    #[arg(long, requires = "files")]
    dataset: Option<String>,
    /// Pixel size of the images; overrides the files'. Without either it is taken from the lattice and the config's material.
    #[arg(long, value_name = "PM", requires = "files")]
    pixel_size_pm: Option<f64>,
}

impl ImageArgs {
    fn options(&self) -> OpenOptions {
        OpenOptions { dataset: self.dataset.clone(), ..OpenOptions::default() }
    }

    fn sources(&self, config: &Config) -> anyhow::Result<Vec<LabelSource>> {
        let source = |path: &PathBuf| -> anyhow::Result<LabelSource> {
            Ok(LabelSource {
                path: path.clone(),
                frames: None,
                options: self.options(),
                pixel_size_pm: self.pixel_size_pm,
                material: Some(config.material()?),
            })
        };
        self.files.iter().map(source).collect()
    }

    /// The first frame of the first file.
    fn frame(&self) -> anyhow::Result<Option<Frame>> {
        let Some(path) = self.files.first() else { return Ok(None) };
        let recorded = open(path, &self.options())?.frame(0)?;
        let mut message = recorded.message;
        if let Some(pixel_size_pm) = self.pixel_size_pm {
            message.pixel_size_pm = Some([pixel_size_pm; 2]);
        }
        let source = SourceSettings { max_side_px: 1 << 16, ..SourceSettings::default() };
        let name = path.display().to_string();
        let frame =
            validate(message, &source, &name, recorded.t_ns.unwrap_or(0)).with_context(|| name.clone())?;
        Ok(Some(frame))
    }
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
    let (frame, material) = (args.images.frame()?, config.material()?);
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
