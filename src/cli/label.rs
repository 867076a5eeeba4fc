//! `ferrostem label`: the classical measurement of the frames of a file.

use super::{frame_range, say};
use crate::figure;
use crate::frame::Sublattice;
use crate::ingest::SourceSettings;
use crate::label::{FrameLabels, LabelSettings, label_frame};
use crate::material::Material;
use crate::pipeline::now_ns;
use crate::preprocess::calibrate_frame;
use crate::session::LabelWriter;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Centre {
    A,
    B,
}

#[derive(Debug, Args)]
pub(super) struct LabelArgs {
    #[command(flatten)]
    input: super::FileArgs,
    /// Pixel size; overrides the file's. Without either it is taken from the lattice and --material.
    #[arg(long, value_name = "PM")]
    pixel_size_pm: Option<f64>,
    /// Material: its lattice parameter calibrates, its Born charges make dipoles of displacements.
    #[arg(long)]
    material: Option<String>,
    /// Frames to label, FIRST:END (END not included); without it, all.
    #[arg(long, value_name = "FIRST:END")]
    frames: Option<String>,
    /// Sublattice in the middle of the cells: P is its displacement from the mean of its neighbours.
    #[arg(long, value_enum, default_value = "b")]
    centre: Centre,
    /// Label file to write.
    #[arg(long, value_name = "LABELS.h5")]
    out: Option<PathBuf>,
    /// Folder for a picture of each frame: P, deviation from uniform spacing, errors.
    #[arg(long, value_name = "DIR")]
    png: Option<PathBuf>,
    /// One JSON line a frame.
    #[arg(long)]
    json: bool,
    /// With --json: all columns and cells too.
    #[arg(long, requires = "json")]
    all: bool,
}

pub(super) fn label(args: &LabelArgs) -> anyhow::Result<()> {
    let material = args.material.as_deref().map(Material::resolve).transpose()?;
    let mut reader = args.input.open()?;
    let centre = match args.centre {
        Centre::A => Sublattice::A,
        Centre::B => Sublattice::B,
    };
    let settings = LabelSettings { centre, ..LabelSettings::default() };
    let stem = args.input.stem();
    let frames = match &args.frames {
        Some(text) => frame_range(text, Some(reader.len()))?,
        None => 0..reader.len(),
    };
    let mut writer = match &args.out {
        None => None,
        Some(path) => {
            let settings = toml::to_string(&settings).context("the settings as TOML")?;
            Some(LabelWriter::create(path, &args.input.file.display().to_string(), &settings)?)
        }
    };
    let source = SourceSettings { acquisition: stem.clone(), ..SourceSettings::default() };
    let one = frames.len() == 1;
    for index in frames {
        let place = || format!("{}, frame {index}", args.input.file.display());
        let frame =
            reader.frame(index)?.into_frame(&source, args.pixel_size_pm, now_ns()).with_context(place)?;
        let lattice_a_pm = material.as_ref().map(|material| material.lattice_a_pm);
        let (valid, calibration) = calibrate_frame(&frame, lattice_a_pm).with_context(place)?;
        let start = std::time::Instant::now();
        let labels =
            label_frame(&frame.pixels, &valid, calibration.pixel_size_pm, material.as_ref(), &settings)
                .with_context(place)?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(writer) = &mut writer {
            writer.add(index as u64, &labels)?;
        }
        if let Some(folder) = &args.png {
            let name = if one { stem.clone() } else { format!("{stem}_{index:04}") };
            figure::write_labels(folder, &name, &frame.pixels, (&labels, &calibration))?;
        }
        let mut summary = summary(index, &labels);
        summary["seconds"] = json!(seconds);
        if args.all {
            summary["all_columns"] = columns(&labels);
            summary["all_cells"] = cells(&labels);
        }
        if args.json { say(&summary)? } else { say(sentence(&stem, index, &labels))? }
    }
    Ok(())
}

/// Mean and standard deviation of the finite values.
fn moments(values: impl Iterator<Item = f64> + Clone) -> [f64; 2] {
    let finite = values.filter(|value| value.is_finite());
    let n = finite.clone().count().max(1) as f64;
    let mean = finite.clone().sum::<f64>() / n;
    [mean, (finite.map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt()]
}

fn summary(index: usize, labels: &FrameLabels) -> Value {
    let of = |value: fn(&crate::label::LabelledCell) -> f64| {
        let [mean, std] = moments(labels.cells.iter().map(value));
        json!({ "mean": mean, "std": std })
    };
    let count = |sublattice| labels.columns.iter().filter(|c| c.sublattice == sublattice).count();
    let [spacing_b, spacing_a] = labels.spacing_rms_pm;
    json!({
        "frame": index,
        "pixel_size_pm": labels.pixel_size_pm,
        "columns": { "a": count(Sublattice::A), "b": count(Sublattice::B) },
        "cells": labels.cells.len(),
        "incomplete": labels.incomplete,
        "p_x": of(|c| c.cell.p_x),
        "p_y": of(|c| c.cell.p_y),
        "p_x_error": of(|c| c.p_x_error),
        "p_y_error": of(|c| c.p_y_error),
        "cell_a": of(|c| c.cell.cell_a),
        "cell_b": of(|c| c.cell.cell_b),
        "cell_angle": of(|c| c.cell.cell_angle),
        "cell_area": of(|c| c.cell.cell_area),
        "dipole_x": of(|c| c.dipole_x),
        "dipole_y": of(|c| c.dipole_y),
        "spacing_rms_pm": { "a": spacing_a, "b": spacing_b },
        "tail_fraction": labels.tail_fraction,
        "noise": { "constant": labels.noise[0], "per_unit": labels.noise[1], "correlation": labels.noise_correlation },
        "converged": labels.converged,
    })
}

fn columns(labels: &FrameLabels) -> Value {
    labels
        .columns
        .iter()
        .map(|c| json!([c.fit.row, c.fit.col, c.sublattice as u8, c.fit.row_error, c.fit.col_error]))
        .collect()
}

fn cells(labels: &FrameLabels) -> Value {
    labels
        .cells
        .iter()
        .map(|c| json!([c.cell.row, c.cell.col, c.cell.p_x, c.cell.p_y, c.p_x_error, c.p_y_error]))
        .collect()
}

fn sentence(stem: &str, index: usize, labels: &FrameLabels) -> String {
    let of = |value: fn(&crate::label::LabelledCell) -> f64| moments(labels.cells.iter().map(value));
    let ([p_x, p_x_std], [p_y, p_y_std]) = (of(|c| c.cell.p_x), of(|c| c.cell.p_y));
    let ([x_error, _], [y_error, _]) = (of(|c| c.p_x_error), of(|c| c.p_y_error));
    let [spacing_b, spacing_a] = labels.spacing_rms_pm;
    format!(
        "{stem} frame {index}: {} columns, {} cells of {:.1} x {:.1} pm, P = ({p_x:.1} ± {p_x_std:.1}, {p_y:.1} ± {p_y_std:.1}) pm, \
         each known to ({x_error:.1}, {y_error:.1}) pm, spacing even to {spacing_a:.1} pm (A), {spacing_b:.1} pm (B)",
        labels.columns.len(),
        labels.cells.len(),
        of(|c| c.cell.cell_a)[0],
        of(|c| c.cell.cell_b)[0],
    )
}
