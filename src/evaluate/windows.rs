//! What a network said of a window and what was true there.

use super::EvaluateError;
use crate::config::InvalidSetting;
use crate::frame::{Frame, grid_centre};
use crate::ingest::SourceSettings;
use crate::ingest::validate::validate;
use crate::label::{FrameScene, PrecisionBound, bound};
use crate::polarization::sample_on_grid;
use crate::simulate::{SimulatedFrame, TrainingRanges, Truth, TruthCell, random_scene, render};
use crate::train::KnownCell;
use ferrostem_proto::{FrameMessage, Grid, PixelArray, PixelPosition, ResultMessage};
use ndarray::Array2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// The quantities that are compared, in this order, and their units.
pub const QUANTITIES: [(&str, &str); 6] = [
    ("p_x", "pm"),
    ("p_y", "pm"),
    ("cell_a", "pm"),
    ("cell_b", "pm"),
    ("cell_angle", "rad"),
    ("cell_area", "pm²"),
];

/// Streams of random numbers from here on belong to evaluation, those below to training.
const FIRST_STREAM: u64 = 100;

/// One window with a cell near its centre.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Index of the frame it is from.
    pub frame: usize,
    /// Index of the cell among those that are known in the frame.
    pub cell: usize,
    /// Its centre, frame pixels.
    pub row: f64,
    pub col: f64,
    /// From its centre to that of the cell, in edges of the cell.
    pub off_centre: f64,
    /// In the order of [`QUANTITIES`]. P is the apparent one, as the image shows it, mistilt included.
    pub truth: [f64; 6],
    pub predicted: [f64; 6],
    /// Predicted standard deviation of one component of P, pm.
    pub sigma: f64,
}

impl Window {
    /// Predicted minus true.
    pub fn error(&self, quantity: usize) -> f64 {
        match (self.predicted.get(quantity), self.truth.get(quantity)) {
            (Some(predicted), Some(truth)) => predicted - truth,
            _ => f64::NAN,
        }
    }
}

/// A simulated frame, ready for the stages, with its truth.
#[derive(Debug)]
pub struct KnownFrame {
    pub frame: Arc<Frame>,
    pub truth: Truth,
    /// `[row, col]`.
    pub pixel_sizes_pm: [f64; 2],
    /// The Cramér–Rao bounds; none where the columns cannot be told apart at all.
    pub bound: Option<PrecisionBound>,
}

impl KnownFrame {
    /// Edge of a square as large as the first cell, pm; 0 where the frame shows none.
    pub fn cell_pm(&self) -> f64 {
        self.truth.cells.first().map_or(0.0, |cell| cell.cell_area.abs().sqrt())
    }

    /// The cells of the truth, in its order, as a measurement without error would report them.
    pub fn cells(&self) -> Vec<KnownCell> {
        let known = |cell: &TruthCell| KnownCell { cell: cell.as_measured(), disturbed: cell.disturbed };
        self.truth.cells.iter().map(known).collect()
    }
}

/// Checks the side, the number and the judged part of known frames.
///
/// # Errors
/// For the first value out of range; the error names it after `key_prefix`.
pub(super) fn check_known(
    key_prefix: &str,
    side_px: usize,
    frames: usize,
    within_cells: f64,
) -> Result<(), InvalidSetting> {
    let key = |name: &str| format!("{key_prefix}{name}");
    if !(128..=4096).contains(&side_px) {
        return Err(InvalidSetting::new(key("side_px"), side_px, "128 to 4096 px"));
    }
    if !(1..=100_000).contains(&frames) {
        return Err(InvalidSetting::new(key("frames"), frames, "1 to 100000"));
    }
    if !(within_cells > 0.0 && within_cells <= 1.0) {
        return Err(InvalidSetting::new(key("within_cells"), within_cells, "above 0, at most 1"));
    }
    Ok(())
}

/// Frame `index` of `shape` in the endless series that `ranges` and `seed` describe; training sees none of them.
///
/// # Errors
/// When the ranges give a scene that cannot be rendered.
pub fn known_frame(
    ranges: &TrainingRanges,
    shape: [usize; 2],
    seed: u64,
    index: usize,
) -> Result<KnownFrame, EvaluateError> {
    let mut rng = random(seed, index);
    let (specimen, microscope) = random_scene(ranges, shape, &mut rng);
    let simulated = render(&specimen, &microscope, &mut rng)?;
    let frame = as_frame(&simulated, microscope.pixel_sizes_pm(), index)?;
    let pixel_sizes_pm = microscope.pixel_sizes_pm();
    let bound = bound(&FrameScene::new(&specimen, &microscope), microscope.pixel_size_pm);
    Ok(KnownFrame { frame, truth: simulated.truth, pixel_sizes_pm, bound })
}

/// The random numbers of frame `index`.
pub(super) fn random(seed: u64, index: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(FIRST_STREAM + index as u64);
    rng
}

/// As an acquisition that knows its calibration would send it.
pub(super) fn as_frame(
    simulated: &SimulatedFrame,
    pixel_sizes_pm: [f64; 2],
    index: usize,
) -> Result<Arc<Frame>, EvaluateError> {
    frame_of(&simulated.pixels, pixel_sizes_pm, index)
}

/// As [`as_frame()`], of pixels that are not simulated; NaN where nothing was measured.
pub(super) fn frame_of(
    pixels: &Array2<f32>,
    pixel_sizes_pm: [f64; 2],
    index: usize,
) -> Result<Arc<Frame>, EvaluateError> {
    let refused = |error: String| EvaluateError::Frame(error);
    let values: Vec<f32> = pixels.iter().copied().collect();
    let pixels =
        PixelArray::from_f32(pixels.dim().into(), &values).map_err(|error| refused(error.to_string()))?;
    let message =
        FrameMessage { pixel_size_pm: Some(pixel_sizes_pm), ..FrameMessage::new(index as u64, pixels) };
    let source = SourceSettings { name: "evaluation".to_owned(), ..SourceSettings::default() };
    let frame = validate(message, &source, "evaluation", 0).map_err(|error| refused(error.to_string()))?;
    Ok(Arc::new(frame))
}

/// The windows of a result that were measured and whose centre lies within `within_cells` edges of that of an undisturbed one of the
/// `cells` that are known in its frame, in pixels of the frame.
pub fn known_windows(
    result: &ResultMessage,
    cells: &[KnownCell],
    within_cells: f64,
    frame: usize,
) -> Vec<Window> {
    let centres: Vec<_> = cells.iter().map(|known| known.cell).collect();
    let pixel = result.calibration.pixel_size_pm;
    let largest = centres.iter().map(|cell| cell.cell_area.abs().sqrt()).fold(0.0, f64::max);
    let nearest = sample_on_grid(&centres, &result.grid, pixel, within_cells * largest);
    let maps =
        [&result.p_x, &result.p_y, &result.cell_a, &result.cell_b, &result.cell_angle, &result.cell_area];
    nearest
        .indexed_iter()
        .filter_map(|((i, j), index)| {
            let index = (*index)?;
            let KnownCell { cell, .. } = cells.get(index).filter(|known| !known.disturbed)?;
            let PixelPosition { row, col } = grid_centre(&result.grid, i, j);
            let away_pm = ((row - cell.row) * pixel[0]).hypot((col - cell.col) * pixel[1]);
            let off_centre = away_pm / cell.cell_area.abs().sqrt();
            let predicted = maps.map(|map| value(map, i, j));
            let truth = cell.quantities();
            let sigma = value(&result.p_sigma, i, j);
            let measured =
                truth.iter().chain(&predicted).all(|v| v.is_finite()) && off_centre <= within_cells;
            measured.then_some(Window { frame, cell: index, row, col, off_centre, truth, predicted, sigma })
        })
        .collect()
}

fn value(map: &Grid<f32>, i: usize, j: usize) -> f64 {
    map.get(i, j).map_or(f64::NAN, |v| f64::from(*v))
}

/// `ranges` with every frame at one dose.
///
/// # Errors
/// When `counts` is outside what a scene can have.
pub fn at_dose(ranges: &TrainingRanges, counts: f64) -> Result<TrainingRanges, InvalidSetting> {
    let ranges = TrainingRanges { peak_counts: [counts; 2], ..ranges.clone() };
    ranges.validate("scenes")?;
    Ok(ranges)
}
