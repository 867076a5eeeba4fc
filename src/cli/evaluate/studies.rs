//! Every study as the command line makes it.

use super::study::{Setting, Study, Tables};
use crate::config::{Config, InvalidSetting};
use crate::evaluate::EvaluateError;
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
use crate::evaluate::stacks::KnownImage;
use crate::pipeline::Analyzer;
use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::sync::Arc;

/// Frames a row with `--quick`.
const QUICK_FRAMES: usize = 2;

impl Study for AccuracySettings {
    fn quick(self) -> Self {
        Self {
            frames: QUICK_FRAMES,
            counts: vec![30.0, 300.0],
            pixel_sizes_pm: vec![20.0],
            polarizations_pm: vec![40.0],
            aspects: Vec::new(),
            rotations: 1,
            ..self
        }
    }

    fn with_frames(self, frames: usize) -> Self {
        Self { frames, ..self }
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.validate("")
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let analyzer = &mut setting.analyzer()?;
        let crystals = self.polarizations_pm.len() + self.aspects.len();
        let rows = 2 * self.counts.len() + self.rotations + 2 * self.pixel_sizes_pm.len() + crystals;
        setting.watch(rows * self.frames, |each| {
            Ok(vec![
                ("accuracy_by_dose", accuracy::by_dose(analyzer, self, false, each)?),
                ("accuracy_by_dose_with_faults", accuracy::by_dose(analyzer, self, true, each)?),
                ("accuracy_non_polar", accuracy::non_polar(analyzer, self, each)?),
                ("accuracy_by_pixel_size", accuracy::by_pixel_size(analyzer, self, each)?),
                ("accuracy_by_crystal", accuracy::by_crystal(analyzer, self, each)?),
            ])
        })
    }
}

/// The study of columns has the settings of that of accuracy.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Columns(AccuracySettings);

impl Study for Columns {
    fn quick(self) -> Self {
        Self(self.0.quick())
    }

    fn with_frames(self, frames: usize) -> Self {
        Self(self.0.with_frames(frames))
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.0.check()
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let Self(settings) = self;
        let mut analyzer = setting.analyzer()?;
        let frames = settings.counts.len() * settings.frames;
        let table = setting.watch(frames, |each| columns::by_dose(&mut analyzer, settings, each))?;
        Ok(vec![("columns_by_dose", table)])
    }
}

impl Study for RegressionSettings {
    const READS_IMAGES: bool = true;

    fn quick(self) -> Self {
        self.with_frames(QUICK_FRAMES)
    }

    fn with_frames(self, frames: usize) -> Self {
        Self { frames, ..self }
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.validate("")
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let mut analyzer = setting.analyzer()?;
        let (Some(manifest), Some(window_px)) =
            (analyzer.engine().dcnn_manifest(), analyzer.engine().window_px())
        else {
            return Err(EvaluateError::NoDcnn.into());
        };
        let own = setting.images.known(setting.config, manifest.input.pixel_size_pm, window_px)?;
        let images = setting.watch(setting.images.count(), |each| {
            own.inspect(|_| each())
                .map(|image| image.map(KnownImage::to_judge))
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        let own_frames = images.iter().map(|image| image.frames().judged().len()).sum();
        let frames = if images.is_empty() { self.frames } else { own_frames };
        let study = setting.watch(frames, |each| regression::study(&mut analyzer, self, &images, each))?;
        setting.draw(|folder| {
            study.predicted_against_measured(folder)?;
            study.joint_distributions(folder)?;
            study.maps(folder)
        })?;
        Ok(vec![("regression", study.table())])
    }
}

impl Study for LoopSettings {
    fn quick(self) -> Self {
        Self::quick()
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.validate("")
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let analyzer = || Ok(Analyzer::new(setting.config)?);
        let study = setting.watch(2 * self.budget(), |each| closed_loop::study(analyzer, self, each))?;
        setting.draw(|folder| study.draw(folder))?;
        Ok(vec![("loop", study.summary()), ("loop_defects", study.defects()), ("loop_curve", study.curve())])
    }
}

impl Study for MistiltStudySettings {
    fn quick(self) -> Self {
        self.quick()
    }

    fn with_frames(self, frames: usize) -> Self {
        Self { frames, ..self }
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.validate("")
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let of_material = |material: &str| {
            Analyzer::new(&Config { material: material.to_owned(), ..setting.config.clone() })
        };
        let (mut polar, mut non_polar) = (of_material(mistilt::POLAR)?, of_material(mistilt::NON_POLAR)?);
        let mut analyzers = Analyzers { polar: &mut polar, non_polar: &mut non_polar };
        setting.watch(self.total_frames().iter().sum(), |each| {
            let [ideal, ideal_directions] = mistilt::ideal(self, &setting.config.flags.mistilt, each)?;
            let [pipeline, pipeline_directions] = mistilt::pipeline(&mut analyzers, self, each)?;
            Ok(vec![
                ("mistilt_ideal", ideal),
                ("mistilt_ideal_directions", ideal_directions),
                ("mistilt_pipeline", pipeline),
                ("mistilt_pipeline_directions", pipeline_directions),
            ])
        })
    }
}

impl Study for OodStudySettings {
    fn quick(self) -> Self {
        self.quick()
    }

    fn with_frames(self, frames: usize) -> Self {
        self.with_frames(frames)
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.validate("")
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let analyzer = setting.analyzer()?;
        Ok(setting.watch(self.processed(), |each| ood::study(&analyzer, self, each))?)
    }
}

impl Study for NoiseStudySettings {
    const READS_IMAGES: bool = true;

    fn quick(self) -> Self {
        self.quick()
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.validate("")
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let pixel_size_pm = self.stacks.training.pixel_size_pm;
        let image = setting.images.known(setting.config, pixel_size_pm, 1)?.next().transpose()?;
        let study = noise::study(self, image, setting.config.device_choice()?, &setting.networks()?)?;
        setting.draw(|folder| study.draw(folder))?;
        Ok(vec![("noise", study.table())])
    }
}

impl Study for CompositionStudySettings {
    const READS_IMAGES: bool = true;

    fn quick(self) -> Self {
        self.quick()
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.validate("")
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let folder = setting.networks()?;
        let own = setting.images.known(setting.config, self.stacks.training.pixel_size_pm, 1)?;
        let own = own.collect::<anyhow::Result<Vec<_>>>()?;
        let images = if own.is_empty() { self.simulated()? } else { own };
        let study = composition::study(self, images, setting.config.device_choice()?, &folder)?;
        setting.draw(|folder| study.draw(folder))?;
        Ok(study.tables())
    }
}

impl Study for FeaturesSettings {
    const READS_IMAGES: bool = true;

    /// One image is little already.
    fn quick(self) -> Self {
        self
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.validate("")
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let config = setting.config;
        let (frame, material) = (setting.images.frames(config)?.into_iter().next(), config.material()?);
        let shown = frame.as_ref().map(|frame| (frame, &material));
        let study = features::study(&setting.layered()?, self, shown)?;
        setting.draw(|folder| study.draw(folder))?;
        Ok(vec![("features", study.table())])
    }
}

impl Study for FiltersSettings {
    fn quick(self) -> Self {
        self.quick()
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.validate("")
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let network = setting.layered()?;
        let study = setting.watch(self.ascents(), |each| filters::study(&network, self, each))?;
        setting.draw(|folder| study.draw(folder))?;
        Ok(vec![("filters", study.table())])
    }
}

impl Study for RealSettings {
    const READS_IMAGES: bool = true;

    fn quick(self) -> Self {
        self.with_frames(1)
    }

    fn with_frames(self, frames: usize) -> Self {
        Self { copies: frames, ..self }
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        self.validate("")
    }

    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables> {
        let frames: Vec<_> = setting.images.frames(setting.config)?.into_iter().map(Arc::new).collect();
        if frames.is_empty() {
            bail!("the study `real` is about images: expected FILE…");
        }
        let mut analyzer = setting.analyzer()?;
        let images = setting.watch(frames.len() * self.processed(), |each| {
            let image = |(index, frame): (usize, &Arc<_>)| -> anyhow::Result<_> {
                // A patch of the next image; an image on its own has none.
                let next = frames.iter().cycle().nth(index + 1).filter(|_| frames.len() > 1);
                let other = next.map(|frame| &frame.pixels);
                let image = real::examine(&mut analyzer, frame, other, self, each)
                    .with_context(|| frame.acquisition.clone())?;
                setting.draw(|folder| image.draw(folder))?;
                Ok(image)
            };
            frames.iter().enumerate().map(image).collect::<anyhow::Result<Vec<_>>>()
        })?;
        Ok(vec![
            ("real_agreement", real::agreement_table(&images)),
            ("real_damage", real::damage_table(&images, self)),
        ])
    }
}
