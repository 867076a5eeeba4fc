//! Frames with made-up fields, for the tests of what is found in them.

use super::Evidence;
use super::ood::{OodEvidence, OodSettings};
use crate::frame::{Fields, Frame, PolarizationMaps};
use ferrostem_proto::{Calibration, CalibrationSource, GridSpec};
use ndarray::{Array2, Array3};

/// A frame at 15 pm a pixel with windows 8 px apart.
pub(super) struct Scenery {
    pub frame: Frame,
    pub fields: Fields,
    pub calibration: Calibration,
}

impl Scenery {
    /// `side` × `side` windows with P by row and column, sigma 4 pm, and a cell of 400 pm × 395 pm.
    pub fn new(side: usize, mut p: impl FnMut(usize, usize) -> [f64; 2]) -> Self {
        let p = Array2::from_shape_fn((side, side), |(i, j)| p(i, j));
        let filled = |value: f32| Array2::from_elem((side, side), value);
        let maps = PolarizationMaps {
            p_x: p.mapv(|p| p[0] as f32),
            p_y: p.mapv(|p| p[1] as f32),
            p_sigma: filled(4.0),
            cell_a: filled(400.0),
            cell_b: filled(395.0),
            cell_angle: filled(1.57),
            cell_area: filled(158_000.0),
            smoothness: filled(3.0),
            features: Array3::zeros((side, side, 0)),
        };
        let count = side as u32;
        let grid =
            GridSpec { row0: 39.5, col0: 39.5, step_row: 8.0, step_col: 8.0, rows: count, cols: count };
        let pixels = 72 + 8 * side;
        Self {
            frame: Frame::blank(pixels, pixels, 0.0),
            fields: Fields {
                grid,
                polarization: Some(maps),
                columns: None,
                cells: Vec::new(),
                incomplete: Vec::new(),
            },
            calibration: Calibration { pixel_size_pm: [15.0; 2], source: CalibrationSource::Frame },
        }
    }

    pub fn evidence(&self) -> Evidence<'_> {
        Evidence {
            frame: &self.frame,
            fields: &self.fields,
            calibration: &self.calibration,
            lattice_angle_rad: None,
        }
    }
}

/// Nothing is flagged; p-values are 0.5, the excess was not measured.
pub(super) fn no_ood(side: usize) -> OodEvidence {
    let unknown = || Array2::from_elem((side, side), f32::NAN);
    OodEvidence {
        p_value: Array2::from_elem((side, side), 0.5),
        flag: Array2::zeros((side, side)),
        excess: unknown(),
        out_of_range: Array2::from_elem((side, side), None),
        parts: std::array::from_fn(|_| unknown()),
        settings: OodSettings::default(),
    }
}
