//! What a study is to the command line, and what it is made in.

use super::super::progress;
use super::images::ImageArgs;
use crate::config::{Config, InvalidSetting};
use crate::networks::LayeredDcnn;
use crate::pipeline::Analyzer;
use anyhow::Context as _;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Tables by the names of their files.
pub(super) type Tables = Vec<(&'static str, crate::evaluate::table::Table)>;

/// A study, made from its settings. To add one: an impl of this for its settings, and its name in [`super::Name`].
pub(super) trait Study: Default + DeserializeOwned {
    /// Whether files may be named; without, they are refused.
    const READS_IMAGES: bool = false;

    /// The same on a few frames and rows, to see that it works (`--quick`).
    fn quick(self) -> Self;

    /// The same with so many frames for each row of a table (`--frames`), where a study counts them.
    fn with_frames(self, _frames: usize) -> Self {
        self
    }

    /// # Errors
    /// For the first setting out of range, named as in the file of settings.
    fn check(&self) -> Result<(), InvalidSetting>;

    /// The tables; figures are drawn into [`Setting::out`] where there is one.
    ///
    /// # Errors
    /// When the study cannot be made, or a figure cannot be written.
    fn run(&self, setting: &Setting<'_>) -> anyhow::Result<Tables>;
}

/// What studies are made with.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    pub config: &'a Config,
    pub images: &'a ImageArgs,
    /// Folder for tables and figures.
    pub out: Option<&'a Path>,
    /// No progress bar.
    pub quiet: bool,
}

impl Setting<'_> {
    /// All stages.
    pub fn analyzer(&self) -> anyhow::Result<Analyzer> {
        Ok(Analyzer::new(self.config)?)
    }

    /// The DCNN, layer by layer.
    pub fn layered(&self) -> anyhow::Result<LayeredDcnn> {
        let engine = self.config.engine()?;
        let folder = engine.dcnn.context("models.dcnn = none: expected a DCNN to look into")?;
        Ok(LayeredDcnn::load(&folder, engine.device)?)
    }

    /// Where networks are trained.
    pub fn networks(&self) -> anyhow::Result<PathBuf> {
        let folder =
            self.out.context("--out DIR: expected with this study, which trains networks into it")?;
        Ok(folder.join("networks"))
    }

    /// Does `work` beside a progress bar, which each call of what `work` gets moves on by one of `frames`.
    pub fn watch<T>(&self, frames: usize, work: impl FnOnce(&dyn Fn()) -> T) -> T {
        let bar = progress(frames as u64, self.quiet);
        let done = work(&|| bar.inc(1));
        bar.finish_and_clear();
        done
    }

    /// Draws figures where there is a folder for them.
    pub fn draw<T, E>(&self, figures: impl FnOnce(&Path) -> Result<T, E>) -> Result<(), E> {
        self.out.map_or(Ok(()), |folder| figures(folder).map(|_| ()))
    }
}
