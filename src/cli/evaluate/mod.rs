//! `ferrostem evaluate`: how good the networks are.

mod images;
mod studies;
mod study;

use super::say;
use crate::config::Config;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use images::ImageArgs;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::PathBuf;
use study::{Setting, Study, Tables};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
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

impl Name {
    fn run(self, args: &EvaluateArgs) -> anyhow::Result<Tables> {
        use crate::evaluate as of;
        match self {
            Self::Accuracy => run::<of::accuracy::AccuracySettings>(args),
            Self::Columns => run::<studies::Columns>(args),
            Self::Regression => run::<of::regression::RegressionSettings>(args),
            Self::Loop => run::<of::closed_loop::LoopSettings>(args),
            Self::Mistilt => run::<of::mistilt::MistiltStudySettings>(args),
            Self::Real => run::<of::real::RealSettings>(args),
            Self::Ood => run::<of::ood::OodStudySettings>(args),
            Self::Noise => run::<of::noise::NoiseStudySettings>(args),
            Self::Composition => run::<of::composition::CompositionStudySettings>(args),
            Self::Features => run::<of::features::FeaturesSettings>(args),
            Self::Filters => run::<of::filters::FiltersSettings>(args),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    study: Name,
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
    #[command(flatten)]
    models: super::ModelArgs,
    #[command(flatten)]
    config: super::ConfigArgs,
}

impl EvaluateArgs {
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = self.config.load()?;
        self.models.override_in(&mut config);
        config.validate()?;
        Ok(config)
    }

    fn settings<T: DeserializeOwned + Default>(&self) -> anyhow::Result<T> {
        let Some(path) = &self.settings else { return Ok(T::default()) };
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

/// Makes one study as the command line says.
fn run<S: Study>(args: &EvaluateArgs) -> anyhow::Result<Tables> {
    let config = args.config()?;
    if !S::READS_IMAGES {
        args.images.refuse()?;
    }
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut study: S = args.settings()?;
    if args.quick {
        study = study.quick();
    }
    if let Some(frames) = args.frames {
        study = study.with_frames(frames);
    }
    study.check()?;
    let setting =
        Setting { config: &config, images: &args.images, out: args.out.as_deref(), quiet: args.json };
    study.run(&setting)
}

pub(super) fn evaluate(args: &EvaluateArgs) -> anyhow::Result<()> {
    let tables = args.study.run(args)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::accuracy::AccuracySettings;
    use crate::evaluate::closed_loop::LoopSettings;
    use crate::evaluate::mistilt::MistiltStudySettings;
    use crate::evaluate::ood::OodStudySettings;

    fn accepted<S: Study>(text: &str) {
        toml::from_str::<S>(text).unwrap().check().unwrap();
    }

    #[test]
    fn the_settings_that_the_benches_name_are_accepted() {
        accepted::<AccuracySettings>(include_str!("../../../benches/settings/accuracy.toml"));
        accepted::<LoopSettings>(include_str!("../../../benches/settings/loop-2.toml"));
        accepted::<LoopSettings>(include_str!("../../../benches/settings/loop-3.toml"));
        accepted::<MistiltStudySettings>(include_str!("../../../benches/settings/mistilt.toml"));
        accepted::<MistiltStudySettings>(include_str!("../../../benches/settings/mistilt-doses.toml"));
        accepted::<OodStudySettings>(include_str!("../../../benches/settings/ood.toml"));
    }
}
