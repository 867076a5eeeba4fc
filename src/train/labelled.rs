//! Frames of a file with what was measured in them, to adapt a network at the microscope: a session, labelled here by
//! [`crate::label`]; a label file, which names its session; or an Sm-BFO image with its `UCParameterization` beside it.

use super::TrainError;
use super::crops::Turn;
use super::samples::{KnownCell, Sample, Split, bend};
use super::settings::Schedule;
use crate::frame::{ClassicalCell, Frame};
use crate::ingest::SourceSettings;
use crate::label::{LabelSettings, LabelledCell, LabelledColumn, label_frame};
use crate::material::Material;
use crate::preprocess::{PixelMap, calibrate_frame, measured_pixels, resample};
use crate::session::{FrameReader, LabelFile, OpenOptions, UnitCellParameterization, open};
use crate::simulate::TruthColumn;
use ndarray::Array2;
use rand::{Rng, RngExt as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Frames that are read to judge what training was worth, at most.
const HELD_BACK: usize = 16;
/// Crops that are drawn in the hope of one with a cell.
const CROP_TRIES: usize = 64;
/// Largest frame at the model's scale, px.
const MAX_MODEL_PIXELS: usize = 1 << 25;

/// `--label-frames FILE` and what goes with it.
#[derive(Debug, Clone)]
pub struct LabelSource {
    pub path: PathBuf,
    /// Frames to learn from; the others are held back. All where `None`.
    pub frames: Option<Range<usize>>,
    pub options: OpenOptions,
    /// Overrides the file's.
    pub pixel_size_pm: Option<f64>,
    /// Its lattice parameter calibrates frames without a pixel size.
    pub material: Option<Material>,
}

impl LabelSource {
    /// For the manifest.
    pub(super) fn describe(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match &self.frames {
            Some(frames) => format!("frames {}:{} of {name}", frames.start, frames.end),
            None => format!("all frames of {name}"),
        }
    }
}

/// Frames at a model's scale whose cells are known.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// What they are, in words.
    pub(super) description: String,
    /// Learned from.
    pub(super) training: Vec<Sample>,
    /// Judged on.
    pub(super) held_back: Vec<Sample>,
    /// Early stopping checks on.
    pub(super) stopping: Vec<Sample>,
}

/// What is known of one frame, positions in its pixels.
struct Known {
    pixel_size_pm: [f64; 2],
    cells: Vec<ClassicalCell>,
    columns: Vec<TruthColumn>,
}

/// Where labels come from.
enum Labels {
    /// Measured here.
    Measured,
    File(LabelFile),
    /// Pixels of the image.
    Parameterization(UnitCellParameterization),
}

impl Labelled {
    /// Reads and labels the frames of a source. Those that hold no crop of `crop_px` model pixels a side are refused.
    ///
    /// # Errors
    /// When the file or a frame cannot be read, or no frame is left to learn from.
    pub fn read(source: &LabelSource, model_pixel_pm: f64, crop_px: usize) -> Result<Self, TrainError> {
        let (labels, path) = labels(&source.path)?;
        let mut reader = open(&path, &source.options)?;
        let count = reader.len();
        let frames = source.frames.clone().unwrap_or(0..count);
        let fail = |message: String| TrainError::Labels { path: source.path.clone(), message };
        if frames.is_empty() || frames.end > count {
            return Err(fail(format!("frames {frames:?}: expected some of 0..{count}")));
        }
        let others: Vec<usize> = (0..count).filter(|index| !frames.contains(index)).collect();
        let apart = others.len().div_ceil(HELD_BACK).max(1);
        let mut sample = |index: usize| -> Result<Option<Sample>, TrainError> {
            let known = known(source, &labels, reader.as_mut(), index);
            let Some((frame, known)) = known.map_err(|message| fail(format!("frame {index}: {message}")))?
            else {
                return Ok(None);
            };
            let sample = at_scale(&frame, known, model_pixel_pm)
                .map_err(|message| fail(format!("frame {index}: {message}")))?;
            let (rows, cols) = sample.pixels.dim();
            if rows.min(cols) < crop_px {
                let message = format!("frame {index} has {rows} x {cols} px at the model's scale");
                return Err(fail(format!("{message}: expected at least {crop_px} a side")));
            }
            Ok(Some(sample))
        };
        let training: Vec<Sample> =
            frames.clone().filter_map(|index| sample(index).transpose()).collect::<Result<_, _>>()?;
        let held_back = others.into_iter().step_by(apart).filter_map(|index| sample(index).transpose());
        let held_back = held_back.collect::<Result<_, _>>()?;
        if training.iter().all(|sample| sample.cells.is_empty()) {
            return Err(fail(format!("no unit cell was measured in frames {frames:?}")));
        }
        Ok(Self { description: source.describe(), training, held_back, stopping: Vec::new() })
    }

    /// [`Self::read`], for a run of `schedule`: where it stops early, every second of the frames held back is set aside for its checks, so
    /// that the others say what training was worth.
    ///
    /// # Errors
    /// As [`Self::read`]; and when it stops early, and a single frame is held back.
    pub(super) fn to_train(
        source: &LabelSource,
        model_pixel_pm: f64,
        schedule: &Schedule,
    ) -> Result<Self, TrainError> {
        let mut labelled = Self::read(source, model_pixel_pm, schedule.crop_px)?;
        if schedule.stop_check_every == 0 {
            return Ok(labelled);
        }
        if labelled.held_back.len() == 1 {
            let message =
                "one frame is held back: early stopping (schedule.stop_check_every) needs another, or none";
            return Err(TrainError::Labels { path: source.path.clone(), message: message.to_owned() });
        }
        for (index, frame) in std::mem::take(&mut labelled.held_back).into_iter().enumerate() {
            let part = if index.is_multiple_of(2) { &mut labelled.held_back } else { &mut labelled.stopping };
            part.push(frame);
        }
        Ok(labelled)
    }

    /// What is learned from in place of the simulated frame of `split`: [`Self::crop`], for the `fraction` of the frames; for the others,
    /// and where nothing is learned, `None`.
    pub(super) fn drawn(
        &self,
        split: Split,
        schedule: &Schedule,
        fraction: f64,
        gamma: [f64; 2],
    ) -> Option<Sample> {
        let mut rng = split.random(schedule.seed);
        let labelled = split.is_learned_from() && rng.random_bool(fraction);
        labelled.then(|| self.crop(schedule.crop_px, gamma, &mut rng))
    }

    /// A square of `side` px of a frame to learn from, in one of its eight orientations, with a contrast drawn from `gamma`.
    fn crop(&self, side: usize, gamma: [f64; 2], rng: &mut impl Rng) -> Sample {
        // `read` leaves none of the frames out that would make these ranges empty.
        let frame = &self.training[rng.random_range(0..self.training.len())];
        let mut corner =
            || <[usize; 2]>::from(frame.pixels.dim()).map(|length| rng.random_range(0..=length - side));
        let mut drawn = corner();
        for _ in 1..CROP_TRIES {
            if frame.has_cell_near(drawn.map(|first| first as f64 + 0.5 * side as f64)) {
                break;
            }
            drawn = corner();
        }
        let mut crop = frame.part(drawn, [side; 2]);
        for turn in [Turn::Transpose, Turn::MirrorRows, Turn::MirrorCols] {
            if rng.random_bool(0.5) {
                crop = crop.turned(turn);
            }
        }
        bend(&mut crop.pixels, gamma, rng);
        crop
    }

    /// As it is, if its columns are known: an `UCParameterization` has cells alone.
    ///
    /// # Errors
    /// When there are none in the frames to learn from.
    pub(super) fn with_columns(self, path: &Path) -> Result<Self, TrainError> {
        if self.training.iter().all(|sample| sample.columns.is_empty()) {
            let message = "no column is known: expected a session, or a label file".to_owned();
            return Err(TrainError::Labels { path: path.to_owned(), message });
        }
        Ok(self)
    }

    /// The held-back frames in squares of `side` px, edge to edge.
    pub(super) fn held_back(&self, side: usize) -> Vec<Sample> {
        squares(&self.held_back, side)
    }

    /// The frames for early stopping, as [`Self::held_back`].
    pub(super) fn stopping(&self, side: usize) -> Vec<Sample> {
        squares(&self.stopping, side)
    }
}

fn squares(frames: &[Sample], side: usize) -> Vec<Sample> {
    let squares = |frame: &Sample| {
        let [rows, cols] = <[usize; 2]>::from(frame.pixels.dim()).map(|length| length / side);
        (0..rows * cols)
            .map(|k| frame.part([k / cols * side, k % cols * side], [side; 2]))
            .collect::<Vec<_>>()
    };
    frames.iter().flat_map(squares).collect()
}

/// The labels that a file has or is, and the file of the frames.
fn labels(path: &Path) -> Result<(Labels, PathBuf), TrainError> {
    if LabelFile::is_one(path) {
        let file = LabelFile::open(path)?;
        // As it was named then: from here, or from beside the labels.
        let beside = path.parent().map(|folder| folder.join(&file.source));
        let frames = beside.filter(|beside| beside.exists()).unwrap_or_else(|| file.source.clone());
        return Ok((Labels::File(file), frames));
    }
    let labels = match UnitCellParameterization::beside(path) {
        Some(cells) => Labels::Parameterization(UnitCellParameterization::open(&cells)?),
        None => Labels::Measured,
    };
    Ok((labels, path.to_owned()))
}

/// Frame `index` with what is known of it; `None` where a label file does not have it.
fn known(
    source: &LabelSource,
    labels: &Labels,
    reader: &mut dyn FrameReader,
    index: usize,
) -> Result<Option<(Frame, Known)>, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let recorded = reader.frame(index).map_err(|e| said(&e))?;
    let frame =
        recorded.into_frame(&SourceSettings::default(), source.pixel_size_pm, 0).map_err(|e| said(&e))?;
    if let Labels::File(file) = labels {
        let Some(labels) = file.frames.iter().find(|labels| labels.frame == index as u64) else {
            return Ok(None);
        };
        let columns = labels.columns.iter().map(|column| TruthColumn {
            row: column.row,
            col: column.col,
            class: column.sublattice.into(),
            intensity: f64::NAN,
        });
        let known = Known {
            pixel_size_pm: labels.pixel_size_pm,
            cells: labels.cells.iter().map(|label| label.cell).collect(),
            columns: columns.collect(),
        };
        return Ok(Some((frame, known)));
    }
    let lattice_a_pm = source.material.as_ref().map(|material| material.lattice_a_pm);
    let (valid, calibration) = calibrate_frame(&frame, lattice_a_pm).map_err(|e| said(&e))?;
    let pixel_size_pm = calibration.pixel_size_pm;
    let known = match labels {
        Labels::Parameterization(file) => Known {
            pixel_size_pm,
            cells: file.cells.iter().map(|cell| in_pm(cell, pixel_size_pm)).collect(),
            columns: Vec::new(),
        },
        _ => {
            let settings = LabelSettings::default();
            let measured = label_frame(&frame.pixels, &valid, pixel_size_pm, None, &settings);
            let measured = measured.map_err(|e| said(&e))?;
            let column = |labelled: &LabelledColumn| TruthColumn {
                row: labelled.fit.row,
                col: labelled.fit.col,
                class: labelled.sublattice.into(),
                intensity: labelled.fit.amplitude,
            };
            Known {
                pixel_size_pm,
                cells: measured.cells.iter().map(|labelled: &LabelledCell| labelled.cell).collect(),
                columns: measured.columns.iter().map(column).collect(),
            }
        }
    };
    Ok(Some((frame, known)))
}

/// A cell of an Sm-BFO file; its lengths are those of square pixels.
fn in_pm(cell: &crate::session::UnitCell, [row_pm, col_pm]: [f64; 2]) -> ClassicalCell {
    let pixel = 0.5 * (row_pm + col_pm);
    ClassicalCell {
        row: cell.row_px,
        col: cell.col_px,
        p_x: cell.p_x_px * col_pm,
        p_y: cell.p_y_px * row_pm,
        cell_a: cell.cell_a_px * pixel,
        cell_b: cell.cell_b_px * pixel,
        cell_angle: cell.cell_angle,
        cell_area: cell.area_px2.abs() * row_pm * col_pm,
    }
}

/// The frame at the model's scale.
fn at_scale(frame: &Frame, known: Known, model_pixel_pm: f64) -> Result<Sample, String> {
    let valid = measured_pixels(&frame.pixels, &frame.valid_rows);
    let map = PixelMap::between(known.pixel_size_pm, model_pixel_pm);
    let model = resample(&frame.pixels, &valid, &map, MAX_MODEL_PIXELS).map_err(|error| error.to_string())?;
    let mut pixels: Array2<f32> = model.image;
    pixels.zip_mut_with(&model.valid, |pixel, &valid| {
        if !valid {
            *pixel = f32::NAN;
        }
    });
    let mut cells = known.cells;
    for cell in &mut cells {
        (cell.row, cell.col) = map.frame_to_model(cell.row, cell.col);
    }
    let mut columns = known.columns;
    for column in &mut columns {
        (column.row, column.col) = map.frame_to_model(column.row, column.col);
    }
    let cells =
        cells.into_iter().map(|cell| KnownCell { cell, disturbed: !(cell.p_x + cell.p_y).is_finite() });
    Ok(Sample { pixels, cells: cells.collect(), columns, complete: false, peak_counts: None })
}

#[cfg(test)]
#[path = "labelled_tests.rs"]
pub(super) mod tests;
