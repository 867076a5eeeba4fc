//! The user's images, for the studies that look at such.

use crate::config::Config;
use crate::evaluate::stacks::KnownImage;
use crate::frame::Frame;
use crate::ingest::SourceSettings;
use crate::pipeline::now_ns;
use crate::session::{OpenOptions, open};
use crate::train::LabelSource;
use anyhow::{Context as _, bail};
use clap::Args;
use std::path::{Path, PathBuf};

/// Images from a microscope.
#[derive(Debug, Args)]
pub(super) struct ImageArgs {
    /// Images. `real` and `regression` look at every one, `composition` at one for each composition, `noise` and `features` at the first,
    /// in place of a simulated one. `real` and `features` take a file's first frame; the others take all of them, labelled classically,
    /// and also label files, and Sm-BFO images with their UCParameterization beside them.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Path of the images in the HDF5 files.
    #[arg(long, requires = "files")]
    dataset: Option<String>,
    /// Pixel sizes of the images in their order, or one for all; they override the files'. Without either they are taken from the
    /// lattice and the config's material.
    #[arg(long, value_name = "PM", value_delimiter = ',', requires = "files")]
    pixel_size_pm: Vec<f64>,
}

impl ImageArgs {
    /// # Errors
    /// When there are images.
    pub fn refuse(&self) -> anyhow::Result<()> {
        match self.files.first() {
            Some(path) => bail!(
                "{}: only real, regression, noise, composition and features read images",
                path.display()
            ),
            None => Ok(()),
        }
    }

    /// Every image with its pixel size, where one is given.
    fn sized(&self) -> anyhow::Result<impl Iterator<Item = (&Path, Option<f64>)>> {
        let sizes = &self.pixel_size_pm;
        if sizes.len() > 1 && sizes.len() != self.files.len() {
            bail!("--pixel-size-pm {sizes:?}: expected one, or one for each of {} files", self.files.len());
        }
        let files = self.files.iter().enumerate();
        Ok(files.map(|(index, path)| (path.as_path(), sizes.get(index).or(sizes.first()).copied())))
    }

    fn options(&self) -> OpenOptions {
        OpenOptions { dataset: self.dataset.clone(), ..OpenOptions::default() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// The images with what is known of them, at a network's pixel size, one after the other as they are asked for. Frames of less than
    /// `least_px` a side there are refused.
    pub fn known(
        &self,
        config: &Config,
        model_pixel_pm: f64,
        least_px: usize,
    ) -> anyhow::Result<impl Iterator<Item = anyhow::Result<KnownImage>>> {
        let material = config.material()?;
        let image = move |(path, pixel_size_pm): (&Path, Option<f64>)| {
            let source = LabelSource {
                path: path.to_owned(),
                frames: None,
                options: self.options(),
                pixel_size_pm,
                material: Some(material.clone()),
            };
            Ok(KnownImage::read(&source, model_pixel_pm, least_px)?)
        };
        Ok(self.sized()?.map(image))
    }

    /// The first frame of each file.
    pub fn frames(&self, config: &Config) -> anyhow::Result<Vec<Frame>> {
        let source = config.sources.first().cloned().unwrap_or_default();
        let image = |(path, size): (&Path, Option<f64>)| {
            let acquisition = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let source = SourceSettings { acquisition: acquisition.clone(), ..source.clone() };
            let frame = open(path, &self.options())?.frame(0)?.into_frame(&source, size, now_ns());
            let frame = frame.with_context(|| path.display().to_string())?;
            Ok(Frame { acquisition, ..frame })
        };
        self.sized()?.map(image).collect()
    }
}
