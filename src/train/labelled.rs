//! Frames of a file with what was measured in them, to adapt a network at the microscope: a session, labelled here by
//! [`crate::label`]; a label file, which names its session; or an Sm-BFO image with its `UCParameterization` beside it.

use super::TrainError;
use super::samples::{KnownCell, Sample, bend};
use crate::frame::{ClassicalCell, Frame};
use crate::ingest::SourceSettings;
use crate::label::{LabelSettings, LabelledCell, LabelledColumn, label_frame};
use crate::material::Material;
use crate::preprocess::{PixelMap, calibrate_frame, measured_pixels, resample};
use crate::session::{FrameReader, LabelFile, OpenOptions, UnitCellParameterization, open};
use crate::simulate::TruthColumn;
use ndarray::{Array2, s};
use rand::{Rng, RngExt as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Frames that are read to judge what training was worth, at most.
const HELD_BACK: usize = 16;
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

/// The frames of a [`LabelSource`] at a model's scale.
#[derive(Debug)]
pub(super) struct Labelled {
    /// Learned from.
    training: Vec<Sample>,
    /// Judged on.
    held_back: Vec<Sample>,
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
    /// Reads and labels the frames. Those that hold no crop of `crop_px` model pixels a side are refused.
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
                return Err(fail(format!(
                    "{message}: expected at least {crop_px} a side (schedule.crop_px)"
                )));
            }
            Ok(Some(sample))
        };
        let training: Vec<Sample> =
            frames.filter_map(|index| sample(index).transpose()).collect::<Result<_, _>>()?;
        let held_back = others.into_iter().step_by(apart).filter_map(|index| sample(index).transpose());
        let held_back = held_back.collect::<Result<_, _>>()?;
        if training.iter().all(|sample| sample.cells.is_empty()) {
            return Err(fail("no unit cell was measured in the frames to learn from".to_owned()));
        }
        Ok(Self { training, held_back })
    }

    /// A square of `side` px of a frame to learn from, in one of its eight orientations, with a contrast drawn from `gamma`.
    pub fn crop(&self, side: usize, gamma: [f64; 2], rng: &mut impl Rng) -> Sample {
        // `read` leaves none of the frames out that would make these ranges empty.
        let frame = &self.training[rng.random_range(0..self.training.len())];
        let [top, left] =
            <[usize; 2]>::from(frame.pixels.dim()).map(|length| rng.random_range(0..=length - side));
        let mut crop = frame.square([top, left], side);
        for turn in [Turn::Transpose, Turn::MirrorRows, Turn::MirrorCols] {
            if rng.random_bool(0.5) {
                crop = crop.turned(turn);
            }
        }
        bend(&mut crop.pixels, gamma, rng);
        crop
    }

    /// The held-back frames in squares of `side` px, edge to edge.
    pub fn held_back(&self, side: usize) -> Vec<Sample> {
        let squares = |frame: &Sample| {
            let [rows, cols] = <[usize; 2]>::from(frame.pixels.dim()).map(|length| length / side);
            (0..rows * cols)
                .map(|k| frame.square([k / cols * side, k % cols * side], side))
                .collect::<Vec<_>>()
        };
        self.held_back.iter().flat_map(squares).collect()
    }
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
    Ok(Sample { pixels, cells: cells.collect(), columns, peak_counts: None })
}

/// What leaves a lattice's measurement known.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Rows become columns.
    Transpose,
    /// The last row becomes the first.
    MirrorRows,
    MirrorCols,
}

impl Sample {
    /// The square of `side` px that begins at `corner`, with all that is known of the frame: cells and columns outside of it too.
    fn square(&self, corner: [usize; 2], side: usize) -> Self {
        let [top, left] = corner;
        let pixels = self.pixels.slice(s![top..top + side, left..left + side]).to_owned();
        let moved = |row: f64, col: f64| (row - top as f64, col - left as f64);
        let mut square = Self {
            pixels,
            cells: self.cells.clone(),
            columns: self.columns.clone(),
            peak_counts: self.peak_counts,
        };
        for known in &mut square.cells {
            (known.cell.row, known.cell.col) = moved(known.cell.row, known.cell.col);
        }
        for column in &mut square.columns {
            (column.row, column.col) = moved(column.row, column.col);
        }
        square
    }

    fn turned(mut self, turn: Turn) -> Self {
        let [last_row, last_col] = <[usize; 2]>::from(self.pixels.dim()).map(|length| length as f64 - 1.0);
        let place = |row: f64, col: f64| match turn {
            Turn::Transpose => (col, row),
            Turn::MirrorRows => (last_row - row, col),
            Turn::MirrorCols => (row, last_col - col),
        };
        self.pixels = match turn {
            Turn::Transpose => self.pixels.t().to_owned(),
            Turn::MirrorRows => self.pixels.slice(s![..;-1, ..]).to_owned(),
            Turn::MirrorCols => self.pixels.slice(s![.., ..;-1]).to_owned(),
        };
        for KnownCell { cell, .. } in &mut self.cells {
            (cell.row, cell.col) = place(cell.row, cell.col);
            match turn {
                // a, which points right, becomes b, which points down.
                Turn::Transpose => {
                    (cell.p_x, cell.p_y) = (cell.p_y, cell.p_x);
                    (cell.cell_a, cell.cell_b) = (cell.cell_b, cell.cell_a);
                }
                Turn::MirrorRows => cell.p_y = -cell.p_y,
                Turn::MirrorCols => cell.p_x = -cell.p_x,
            }
            if !matches!(turn, Turn::Transpose) {
                cell.cell_angle = std::f64::consts::PI - cell.cell_angle;
            }
        }
        for column in &mut self.columns {
            (column.row, column.col) = place(column.row, column.col);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Sublattice;
    use crate::polarization::{ClassicalSettings, measure_cells};
    use crate::simulate::{Microscope, Polarization, Specimen, render};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    /// A sheared lattice with P, as the simulator knows it.
    fn sample() -> Sample {
        let specimen = Specimen {
            cell_a_pm: 410.0,
            cell_b_pm: 390.0,
            cell_angle_rad: 1.60,
            rotation_rad: 0.1,
            polarization: Polarization::Uniform { p_pm: [20.0, -12.0] },
            ..Specimen::default()
        };
        let microscope = Microscope { shape: [120, 140], pixel_size_pm: 15.0, ..Microscope::default() };
        let frame = render(&specimen, &microscope, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        Sample {
            pixels: frame.pixels,
            cells: frame
                .truth
                .cells
                .iter()
                .map(|cell| KnownCell { cell: cell.as_measured(), disturbed: cell.disturbed })
                .collect(),
            columns: frame.truth.columns,
            peak_counts: None,
        }
    }

    /// However it is turned, what is said of the cells is what its columns show.
    #[test]
    fn a_turned_frame_is_known_as_well_as_before() {
        for turns in [
            &[Turn::Transpose][..],
            &[Turn::MirrorRows],
            &[Turn::MirrorCols],
            &[Turn::MirrorCols, Turn::Transpose, Turn::MirrorRows],
        ] {
            let turned = turns.iter().fold(sample(), |sample, turn| sample.turned(*turn));
            let columns: Vec<crate::frame::Column> = turned
                .columns
                .iter()
                .filter_map(|column| {
                    let sublattice = column.class.sublattice()?;
                    Some(crate::frame::Column {
                        row: column.row,
                        col: column.col,
                        sublattice,
                        confidence: 1.0,
                    })
                })
                .collect();
            assert!(columns.iter().any(|column| column.sublattice == Sublattice::A));
            let field = measure_cells(&columns, [15.0; 2], &ClassicalSettings::default());
            assert!(field.cells.len() > 10);
            for measured in &field.cells {
                let known = turned
                    .cells
                    .iter()
                    .map(|known| known.cell)
                    .min_by(|a, b| {
                        let away =
                            |cell: &ClassicalCell| (cell.row - measured.row).hypot(cell.col - measured.col);
                        away(a).total_cmp(&away(b))
                    })
                    .unwrap();
                for (a, b) in [
                    (known.p_x, measured.p_x),
                    (known.p_y, measured.p_y),
                    (known.cell_a, measured.cell_a),
                    (known.cell_b, measured.cell_b),
                ] {
                    assert!((a - b).abs() < 0.1, "{turns:?}: {known:?} {measured:?}");
                }
                assert!((known.cell_angle - measured.cell_angle).abs() < 1e-3, "{known:?} {measured:?}");
            }
        }
    }

    #[test]
    fn a_square_shows_the_pixels_around_its_cells() {
        let whole = sample();
        let square = whole.square([10, 25], 80);
        assert_eq!(square.pixels.dim(), (80, 80));
        assert_eq!(square.pixels[[3, 4]], whole.pixels[[13, 29]]);
        let (before, after) = (whole.cells[7].cell, square.cells[7].cell);
        assert_eq!((before.row - 10.0, before.col - 25.0), (after.row, after.col));
    }
}
