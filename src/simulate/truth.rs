//! What a simulated frame really shows. Everything is in the image: positions in frame pixels, vectors `[x, y]` along its axes.
//!
//! Positions are those in a scan whose lines are where they belong, uniform drift during the frame included. What else displaces
//! lines and pixels is in [`Truth::scan`], and [`ScanField::imaged_px`] says where the frame shows a position.

use super::scan_field::ScanField;
use crate::frame::{ClassicalCell, Sublattice};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// Ground truth of one frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Truth {
    /// The unit cells whose centre lies in the frame.
    pub cells: Vec<TruthCell>,
    /// The A and B columns in the frame that the image shows: none in amorphous patches, none of zero intensity.
    pub columns: Vec<TruthColumn>,
    /// The planted defects that reach into the frame.
    pub defects: Vec<TruthDefect>,
    /// Where the beam really went: jitter, flagging, curved drift, jumps, hum, flyback; which lines were lost.
    pub scan: ScanField,
    /// Where the detector was saturated, `[row, col]`; `None` for one that never is.
    pub saturated: Option<Array2<bool>>,
}

/// One B-centred unit cell. Drift within the frame shears the image and is part of the cell; mistilt and line jitter are not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TruthCell {
    /// Mean of the four A columns (without mistilt), frame pixels.
    pub row: f64,
    pub col: f64,
    /// The B column (without mistilt), frame pixels.
    pub b_row: f64,
    pub b_col: f64,
    /// B minus the mean of its four A neighbours, pm, without mistilt.
    pub p_x: f64,
    pub p_y: f64,
    /// What mistilt adds to P in the image, pm: half the shift of B minus that of A.
    pub mistilt_x: f64,
    pub mistilt_y: f64,
    /// Tilt of the crystal, mrad, toward where it shifts the columns; of it follow the shifts in `mistilt`, but for those that
    /// the settings give in pm.
    pub tilt_x_mrad: f64,
    pub tilt_y_mrad: f64,
    /// Mean lengths of opposite edges, pm; `cell_a` is the edge nearer to the image's x axis.
    pub cell_a: f64,
    pub cell_b: f64,
    /// Angle between a (pointing right) and b (on the side of a that is clockwise as displayed, so mostly down), rad.
    pub cell_angle: f64,
    /// pm².
    pub cell_area: f64,
    /// One of its five columns is changed by a defect. In an amorphous patch, the other values are those of the crystal that
    /// would have been there.
    pub disturbed: bool,
}

impl TruthCell {
    /// As a measurement without error would report the cell: centred on the middle of its A columns, with the P that the
    /// image shows.
    pub fn as_measured(&self) -> ClassicalCell {
        ClassicalCell {
            row: self.row,
            col: self.col,
            p_x: self.p_x + self.mistilt_x,
            p_y: self.p_y + self.mistilt_y,
            cell_a: self.cell_a,
            cell_b: self.cell_b,
            cell_angle: self.cell_angle,
            cell_area: self.cell_area,
        }
    }
}

/// One column where a scan without displaced lines shows it: mistilt and uniform drift included, line jitter and the like not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TruthColumn {
    pub row: f64,
    pub col: f64,
    pub sublattice: Sublattice,
    /// Peak height; 1 = an undisturbed A column.
    pub intensity: f64,
}

/// A planted defect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TruthDefect {
    pub kind: DefectKind,
    pub row: f64,
    pub col: f64,
    /// Radius of what it changes: the patch, or half a cell edge for a single column.
    pub radius_px: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefectKind {
    VacancyA,
    VacancyB,
    /// Foreign atoms in a column of the A, or the B, sublattice.
    SubstitutionA,
    SubstitutionB,
    Amorphous,
}
