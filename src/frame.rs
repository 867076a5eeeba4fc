//! The data that flows from stage to stage. Types show state:
//! `FrameMessage` (wire) → [`Frame`] (ingest) → [`PreparedFrame`](crate::preprocess::PreparedFrame) →
//! [`Fields`] (networks, polarization, columns) → [`Flagged`](crate::flags::Flagged) → `ResultMessage` (wire).

use ferrostem_proto::{FrameState, GridSpec, JsonMap, PixelArray, PixelPosition};
use ndarray::{Array2, Array3};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A validated frame: what every stage behind `ingest` sees.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Name of the source in the config that it came from.
    pub source: String,
    pub acquisition: String,
    pub seq: u64,
    /// Detector counts `[row, col]`; NaN = not measured.
    pub pixels: Array2<f32>,
    /// The pixels as received, for the recorder.
    pub raw: Arc<PixelArray>,
    pub scan: ScanGeometry,
    pub times: FrameTimes,
    pub channel: String,
    pub state: FrameState,
    /// Rows `from..to` that hold data.
    pub valid_rows: std::ops::Range<usize>,
    pub user_data: JsonMap,
}

/// Where and how the beam was scanned.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ScanGeometry {
    /// `[row, col]`, pm; `None` = not known.
    pub pixel_size_pm: Option<[f64; 2]>,
    /// Counter-clockwise as displayed.
    pub rotation_rad: f64,
    /// Centre of the field of view, `[y, x]`.
    pub center_nm: [f64; 2],
    /// Field of view, `[y, x]`.
    pub fov_nm: Option<[f64; 2]>,
    pub dwell_us: Option<f64>,
}

/// Unix nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameTimes {
    /// Start of the scan; the time of reception where the source does not say.
    pub start_ns: u64,
    /// End of the scan; the time of reception where the source does not say.
    pub end_ns: u64,
    /// When the last byte of the message had arrived.
    pub received_ns: u64,
}

/// What the networks and the geometry measured on one frame.
#[derive(Debug, Clone)]
pub struct Fields {
    /// Window centres in frame pixels; all maps have its shape.
    pub grid: GridSpec,
    /// The DCNN's outputs; `None` when no DCNN is loaded.
    pub polarization: Option<PolarizationMaps>,
    /// The FCNN's columns; `None` when no FCNN is loaded.
    pub columns: Option<Vec<Column>>,
    /// P measured from the columns, one entry a complete unit cell.
    pub cells: Vec<ClassicalCell>,
    /// Indices into `columns` of the B columns without a complete cell around them.
    pub incomplete: Vec<usize>,
}

/// The DCNN's outputs on the window grid, and what else its windows are judged by; NaN where a window touches masked pixels.
#[derive(Debug, Clone)]
pub struct PolarizationMaps {
    /// pm.
    pub p_x: Array2<f32>,
    pub p_y: Array2<f32>,
    pub p_sigma: Array2<f32>,
    pub cell_a: Array2<f32>,
    pub cell_b: Array2<f32>,
    /// rad.
    pub cell_angle: Array2<f32>,
    /// pm².
    pub cell_area: Array2<f32>,
    /// How smooth the image is, see [`smoothness()`](crate::preprocess::smoothness).
    pub smoothness: Array2<f32>,
    /// Each window's features as independent components, `[window row, window col, component]`, for the out-of-distribution
    /// test; no components where the model has no statistics.
    pub features: Array3<f32>,
}

#[cfg(test)]
impl PolarizationMaps {
    /// Windows with these features that are alike in everything else.
    pub(crate) fn of_features(features: Array3<f32>) -> Self {
        let (rows, cols, _) = features.dim();
        let filled = |value: f32| Array2::from_elem((rows, cols), value);
        Self {
            p_x: filled(0.0),
            p_y: filled(0.0),
            p_sigma: filled(3.0),
            cell_a: filled(400.0),
            cell_b: filled(400.0),
            cell_angle: filled(1.57),
            cell_area: filled(1.6e5),
            smoothness: filled(3.0),
            features,
        }
    }
}

/// Sublattice of a column, numbered as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sublattice {
    /// The dim columns (class 0), centre of the unit cell.
    B = 0,
    /// The bright columns (class 1), corners of the unit cell.
    A = 1,
}

/// An atomic column in frame pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Column {
    pub row: f64,
    pub col: f64,
    pub sublattice: Sublattice,
    /// Mean class probability over the column's pixels, 0..1.
    pub confidence: f32,
}

/// One B-centred unit cell measured from column positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassicalCell {
    /// The B column, frame pixels.
    pub row: f64,
    pub col: f64,
    /// B minus the mean of its four A neighbours, pm.
    pub p_x: f64,
    pub p_y: f64,
    /// Mean edge lengths, pm; `a` is the edge nearer to the x axis.
    pub cell_a: f64,
    pub cell_b: f64,
    /// Angle between a and b, rad.
    pub cell_angle: f64,
    /// pm².
    pub cell_area: f64,
}

impl ClassicalCell {
    /// P_x, P_y, a, b, angle and area: what a DCNN regresses, in the order of its outputs.
    pub const fn quantities(&self) -> [f64; 6] {
        [self.p_x, self.p_y, self.cell_a, self.cell_b, self.cell_angle, self.cell_area]
    }
}

/// The centre of window or tile `(row, col)` of a grid.
pub fn grid_centre(grid: &GridSpec, row: usize, col: usize) -> PixelPosition {
    PixelPosition { row: grid.row0 + row as f64 * grid.step_row, col: grid.col0 + col as f64 * grid.step_col }
}

/// The window of a grid whose centre is nearest to `px`; `None` more than half a step outside the grid.
pub fn grid_index(grid: &GridSpec, px: PixelPosition) -> Option<[usize; 2]> {
    let index = |position: f64, first: f64, step: f64, count: u32| {
        let index = ((position - first) / step).round();
        (index >= 0.0 && index < f64::from(count)).then_some(index as usize)
    };
    Some([
        index(px.row, grid.row0, grid.step_row, grid.rows)?,
        index(px.col, grid.col0, grid.step_col, grid.cols)?,
    ])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's own ramp has the length of its shape")]
impl Frame {
    /// A ramp of `rows` x `cols` px, for tests of what lies behind the pixels.
    pub(crate) fn blank(rows: usize, cols: usize, rotation_rad: f64) -> Self {
        let pixels = Array2::from_shape_fn((rows, cols), |(row, col)| (row + col) as f32);
        let values: Vec<f32> = pixels.iter().copied().collect();
        Self {
            source: "test".to_owned(),
            acquisition: "a".to_owned(),
            seq: 7,
            pixels,
            raw: Arc::new(PixelArray::from_f32([rows, cols], &values).unwrap()),
            scan: ScanGeometry { rotation_rad, ..ScanGeometry::default() },
            times: FrameTimes::default(),
            channel: "HAADF".to_owned(),
            state: FrameState::Complete,
            valid_rows: 0..rows,
            user_data: JsonMap::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_found_by_their_centres() {
        let grid = GridSpec { row0: 10.0, col0: 20.0, step_row: 8.0, step_col: 4.0, rows: 3, cols: 5 };
        for (i, j) in [(0, 0), (2, 4), (1, 3)] {
            let PixelPosition { row, col } = grid_centre(&grid, i, j);
            assert_eq!(grid_index(&grid, PixelPosition { row: row + 3.9, col: col - 1.9 }), Some([i, j]));
        }
        for (row, col) in [(5.9, 20.0), (30.1, 20.0), (10.0, 17.9), (10.0, 38.1), (f64::NAN, 20.0)] {
            assert_eq!(grid_index(&grid, PixelPosition { row, col }), None, "{row}, {col}");
        }
    }
}
