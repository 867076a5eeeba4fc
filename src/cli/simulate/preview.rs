//! What a scene looks like: pictures, and beside real images, numbers.

use crate::cli::say;
use crate::figure::{comparison_figure, write_png, write_simulated};
use crate::preprocess::{CalibrationHints, calibrate};
use crate::session::{OpenOptions, open};
use crate::simulate::realism::{Comparison, measure};
use crate::simulate::{Beam, Microscope, Scanned, Scene};
use anyhow::Context as _;
use clap::Args;
use ndarray::Array2;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct PreviewArgs {
    /// Folder for pictures of one frame, of its truth, and of its power spectrum.
    #[arg(long, value_name = "DIR")]
    pub preview: Option<PathBuf>,
    /// Real images: the scene is simulated with the shape and pixel size of each, and measured beside it.
    #[arg(long, value_name = "IMAGE", num_args = 1.., requires = "preview")]
    beside: Vec<PathBuf>,
    /// Pixel size of the real images; overrides the files'. Without either, the lattice says.
    #[arg(long, value_name = "PM", requires = "beside")]
    pixel_size_pm: Option<f64>,
}

/// A real image with its pixel size.
struct RealImage {
    name: String,
    pixels: Array2<f32>,
    pixel_size_pm: f64,
}

pub(super) fn preview(scene: &Scene, folder: &Path, args: &PreviewArgs) -> anyhow::Result<()> {
    if args.beside.is_empty() {
        let Scanned { frame, .. } = Beam::new(scene).scan(&scene.microscope)?;
        let title = format!("Simulated {}", scene.server.acquisition);
        let pixel_size_pm = scene.microscope.scanned().pixel_sizes_pm();
        for path in write_simulated(folder, &title, &frame.pixels, &frame.truth, pixel_size_pm)? {
            say(path.display())?;
        }
        return Ok(());
    }
    let mut comparisons = Vec::new();
    for path in &args.beside {
        let image = RealImage::read(path, args.pixel_size_pm, scene)?;
        let comparison = beside(scene, folder, image).with_context(|| path.display().to_string())?;
        say(comparison.to_markdown())?;
        comparisons.push(comparison);
    }
    write_tables(folder, &comparisons)
}

/// Simulates the scene as `image` was taken, and writes the pictures of both.
fn beside(scene: &Scene, folder: &Path, image: RealImage) -> anyhow::Result<Comparison> {
    let RealImage { name, pixels, pixel_size_pm } = image;
    let microscope = Microscope {
        shape: [pixels.nrows(), pixels.ncols()],
        pixel_size_pm,
        pixel_aspect: 1.0,
        sub_scan: None,
        ..scene.microscope.clone()
    };
    microscope.validate("the image")?;
    let Scanned { frame, .. } = Beam::new(scene).scan(&microscope)?;
    let comparison = Comparison {
        real: measure(&pixels, pixel_size_pm)?,
        simulated: measure(&frame.pixels, pixel_size_pm).context("the simulated image")?,
        image: name,
    };
    let stem = file_name(&comparison.image);
    let title = format!("Simulated as {}", comparison.image);
    write_simulated(&folder.join(&stem), &title, &frame.pixels, &frame.truth, [pixel_size_pm; 2])?;
    let picture = comparison_figure(&pixels, &frame.pixels, &comparison)?;
    say(write_png(folder, &format!("{stem}_comparison"), &picture)?.display())?;
    Ok(comparison)
}

fn file_name(image: &str) -> String {
    image.chars().map(|c| if c.is_alphanumeric() || ".-_".contains(c) { c } else { '_' }).collect()
}

/// `comparison.csv`, `.json` (with the curves) and `.md`.
fn write_tables(folder: &Path, comparisons: &[Comparison]) -> anyhow::Result<()> {
    let csv: Vec<String> = comparisons
        .iter()
        .enumerate()
        .map(|(n, comparison)| {
            let table = comparison.to_csv();
            // One line of titles.
            table.lines().skip(usize::from(n > 0)).map(|line| format!("{line}\n")).collect()
        })
        .collect();
    let json: Vec<_> = comparisons
        .iter()
        .map(|comparison| {
            json!({
                "quantities": comparison.quantities(),
                "profile_differences": comparison.profile_differences(),
                "spectrum_differences_decades": comparison.spectrum_differences(),
                "measured": comparison,
            })
        })
        .collect();
    let markdown: Vec<String> = comparisons.iter().map(Comparison::to_markdown).collect();
    let files = [
        ("comparison.csv", csv.concat()),
        ("comparison.json", serde_json::to_string_pretty(&json)?),
        ("comparison.md", markdown.join("\n")),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

impl RealImage {
    /// The first image of a file of any format that [`open`] knows.
    fn read(path: &Path, pixel_size_pm: Option<f64>, scene: &Scene) -> anyhow::Result<Self> {
        let message = open(path, &OpenOptions::default())?.frame(0)?.message;
        let [rows, cols] = message.data.shape();
        let pixels = Array2::from_shape_vec((rows, cols), message.data.to_f32())?;
        let given = pixel_size_pm.map(|size| [size; 2]).or(message.pixel_size_pm);
        let lattice_a_pm = 0.5 * (scene.specimen.cell_a_pm + scene.specimen.cell_b_pm);
        let hints = CalibrationHints { config_pixel_size_pm: None, lattice_a_pm: Some(lattice_a_pm) };
        let valid = pixels.mapv(f32::is_finite);
        let calibration = calibrate(given, &hints, &pixels, &valid)
            .with_context(|| format!("{}: the pixel size", path.display()))?;
        let [row_pm, col_pm] = calibration.pixel_size_pm;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, pixels, pixel_size_pm: (row_pm * col_pm).sqrt() })
    }
}
