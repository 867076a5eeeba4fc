//! The classical measurement of a frame: every column fitted, every unit cell measured, each value with its error. What networks are
//! trained on where there is no simulation, and what they have to beat.
//!
//! Features: lattice, columns and sublattices from the frame alone; joint fits ([`fit_jointly`]); P around either sublattice, cell
//! edges, angle, area; errors propagated from the fits; deviation from uniform spacing (papers/dcnn_polarization.txt, Fig. 1);
//! dipole density by Born charges.
//! Assumptions: a perovskite along [100], one lattice direction a frame. Error conditions: no lattice in the frame.

mod precision;
mod spacing;

pub use precision::{FrameScene, PrecisionBound, bound};
pub use spacing::{SpacingDeviation, spacing_deviation};

use crate::columns::{GaussianFit, JointFit, find_columns_by_lattice, fit_jointly};
use crate::config::InvalidSetting;
use crate::frame::{ClassicalCell, Column, Sublattice};
use crate::material::Material;
use crate::polarization::{ClassicalSettings, measure_cells_around};
use crate::preprocess::{CalibrationError, LatticeEstimate, estimate_lattice};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// How frames are labelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelSettings {
    /// The sublattice in the middle of the cells.
    pub centre: Sublattice,
    /// What counts as a unit cell.
    pub cells: ClassicalSettings,
    /// A column is one if its height is this many times its error.
    pub least_significance: f64,
    /// Columns nearer to the frame's edge are dropped, in cell edges: of their surroundings too little was seen.
    pub edge_cells: f64,
}

impl Default for LabelSettings {
    fn default() -> Self {
        Self {
            centre: Sublattice::B,
            cells: ClassicalSettings::default(),
            least_significance: 5.0,
            edge_cells: 0.25,
        }
    }
}

impl LabelSettings {
    /// # Errors
    /// Names the first setting out of range.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        self.cells.validate(&format!("{key_prefix}.cells"))?;
        let within = |key: &str, value: f64, [low, high]: [f64; 2]| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(InvalidSetting::new(format!("{key_prefix}.{key}"), value, format!("{low} to {high}")))
        };
        within("least_significance", self.least_significance, [0.0, 100.0])?;
        within("edge_cells", self.edge_cells, [0.0, 2.0])
    }
}

/// A frame that cannot be labelled.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    #[error("expected a mask of the frame's {frame:?} px, found {mask:?}")]
    Shape { frame: (usize, usize), mask: (usize, usize) },
}

/// An atomic column with its fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelledColumn {
    pub sublattice: Sublattice,
    pub fit: GaussianFit,
    /// Root mean square of how far the distances to its neighbours of the same sublattice lie from their mean over the frame, pm;
    /// NaN with fewer than two.
    pub spacing_deviation_pm: f64,
}

/// A unit cell with the errors of its P.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelledCell {
    /// Row and column are those of the column in its middle.
    pub cell: ClassicalCell,
    /// Standard errors of P from the fits of its five columns, pm.
    pub p_x_error: f64,
    pub p_y_error: f64,
    /// Dipole density, µC/cm²; NaN without Born charges.
    pub dipole_x: f64,
    pub dipole_y: f64,
    /// Index of the column in its middle, and of those at its corners.
    pub centre: usize,
    pub corners: [usize; 4],
}

/// All that the classical measurement says of a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameLabels {
    /// `[row, col]`.
    pub pixel_size_pm: [f64; 2],
    pub lattice: LatticeEstimate,
    pub columns: Vec<LabelledColumn>,
    pub cells: Vec<LabelledCell>,
    /// Columns of the centre's sublattice without a complete cell.
    pub incomplete: usize,
    /// Deviation from uniform spacing, root mean square over all pairs of neighbours, pm: of B and of A.
    pub spacing_rms_pm: [f64; 2],
    /// What the fit found of the frame as a whole.
    pub tail_fraction: f64,
    pub noise: [f64; 2],
    pub noise_correlation: f64,
    pub converged: bool,
}

/// Measures a frame.
///
/// # Shapes
/// `pixels` and `valid` `[row, col]`; `pixel_size_pm` `[row, col]`. Masked and non-finite pixels count as not measured.
///
/// # Errors
/// When no lattice is found, or the mask has another shape.
pub fn label_frame(
    pixels: &Array2<f32>,
    valid: &Array2<bool>,
    pixel_size_pm: [f64; 2],
    material: Option<&Material>,
    settings: &LabelSettings,
) -> Result<FrameLabels, LabelError> {
    if pixels.dim() != valid.dim() {
        return Err(LabelError::Shape { frame: pixels.dim(), mask: valid.dim() });
    }
    let lattice = estimate_lattice(pixels, valid)?;
    let mut measured = pixels.clone();
    measured.zip_mut_with(valid, |pixel, &valid| {
        if !valid {
            *pixel = f32::NAN;
        }
    });
    let found = find_columns_by_lattice(&measured, &lattice);
    let fit = fit_jointly(&measured, &found, lattice.cell_px());
    let mut columns = kept(&found.columns, &fit, pixels.dim(), &Limits::new(settings, &lattice));
    let spacing_rms_pm = [Sublattice::B, Sublattice::A]
        .map(|sublattice| spacing::fill(&mut columns, sublattice, &lattice, pixel_size_pm));
    let positions: Vec<Column> = columns.iter().map(LabelledColumn::position).collect();
    let field = measure_cells_around(settings.centre, &positions, pixel_size_pm, &settings.cells);
    let dipole = |p: f64| material.and_then(|material| material.dipole_uc_per_cm2(p)).unwrap_or(f64::NAN);
    // Born charges speak of B's displacement.
    let sign = if settings.centre == Sublattice::B { 1.0 } else { -1.0 };
    let cells =
        field.cells.iter().zip(&field.centres).zip(&field.corners).map(|((cell, &centre), &corners)| {
            let error = |of: fn(&GaussianFit) -> f64, pixel_pm: f64| {
                let variance = |index: usize| columns.get(index).map_or(f64::NAN, |c| of(&c.fit).powi(2));
                pixel_pm
                    * (variance(centre) + corners.iter().map(|&k| variance(k)).sum::<f64>() / 16.0).sqrt()
            };
            LabelledCell {
                cell: *cell,
                p_x_error: error(|fit| fit.col_error, pixel_size_pm[1]),
                p_y_error: error(|fit| fit.row_error, pixel_size_pm[0]),
                dipole_x: dipole(sign * cell.p_x),
                dipole_y: dipole(sign * cell.p_y),
                centre,
                corners,
            }
        });
    Ok(FrameLabels {
        pixel_size_pm,
        lattice,
        cells: cells.collect(),
        incomplete: field.incomplete.len(),
        spacing_rms_pm,
        tail_fraction: fit.tail_fraction,
        noise: fit.noise,
        noise_correlation: fit.noise_correlation,
        converged: fit.converged,
        columns,
    })
}

impl LabelledColumn {
    /// Where it is, as the other stages have it.
    pub fn position(&self) -> Column {
        Column { row: self.fit.row, col: self.fit.col, sublattice: self.sublattice, confidence: 1.0 }
    }
}

/// Which fits are columns.
struct Limits {
    least_significance: f64,
    edge_px: f64,
}

impl Limits {
    fn new(settings: &LabelSettings, lattice: &LatticeEstimate) -> Self {
        Self {
            least_significance: settings.least_significance,
            edge_px: settings.edge_cells * lattice.cell_px(),
        }
    }
}

fn kept(found: &[Column], fit: &JointFit, shape: (usize, usize), limits: &Limits) -> Vec<LabelledColumn> {
    let inside = |x: f64, length: usize| x >= limits.edge_px && x <= length as f64 - 1.0 - limits.edge_px;
    found
        .iter()
        .zip(&fit.fits)
        .filter_map(|(column, fit)| Some((column, (*fit)?)))
        .filter(|(_, fit)| inside(fit.row, shape.0) && inside(fit.col, shape.1))
        .filter(|(_, fit)| fit.amplitude >= limits.least_significance * fit.amplitude_error)
        .map(|(column, fit)| LabelledColumn {
            sublattice: column.sublattice,
            fit,
            spacing_deviation_pm: f64::NAN,
        })
        .collect()
}

#[cfg(test)]
mod tests;
