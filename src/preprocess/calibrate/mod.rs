//! The pixel size: as the frame says, as the config says, or measured on the crystal itself.
//!
//! Features: lattice vectors from the Fourier transform of the frame, to a fraction of a percent.
//! Assumptions: a perovskite seen along a pseudocubic [100] axis, so that the cell is square within the distortion that
//! drift leaves; at least [`MIN_CELLS`] cells across. Error conditions: noise, amorphous regions, other zone axes.

mod lattice;
mod reflections;
mod spectrum;
#[cfg(test)]
mod tests;

pub use lattice::{LatticeEstimate, estimate_lattice};
pub(crate) use spectrum::{fourier_transform, power_spectrum};

use ferrostem_proto::{Calibration, CalibrationSource};
use ndarray::Array2;

/// Cells that must fit across the crop.
const MIN_CELLS: f64 = 3.0;

/// Why no pixel size is known, or no lattice.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    #[error("expected a pixel size above 0 pm, the {origin} says {found:?} [row, col]")]
    InvalidPixelSize { origin: &'static str, found: [f64; 2] },
    #[error(
        "neither frame nor config gives a pixel size, and without a material there is no lattice parameter to measure one by"
    )]
    NoLatticeParameter,
    #[error("no square lattice was found in the image: {reason}")]
    NoLattice { reason: String },
    #[error("neither frame nor config gives a pixel size, and none can be measured: {0}")]
    NoPixelSize(Box<CalibrationError>),
}

/// What is known about the pixel size besides the frame.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CalibrationHints {
    /// The source's section of the config, `[row, col]`, pm.
    pub config_pixel_size_pm: Option<[f64; 2]>,
    /// The material's pseudocubic lattice parameter, pm.
    pub lattice_a_pm: Option<f64>,
}

/// The pixel size of a frame: its own, else the config's, else from the lattice in `pixels`, along its rows and
/// taken as square (see [`LatticeEstimate::fast_axis_cell_px`]).
///
/// # Errors
/// When a given size is not positive, or none is given and the lattice parameter is unknown or no lattice is found.
pub fn calibrate(
    frame_pixel_size_pm: Option<[f64; 2]>,
    hints: &CalibrationHints,
    pixels: &Array2<f32>,
    valid: &Array2<bool>,
) -> Result<Calibration, CalibrationError> {
    let given = [
        (frame_pixel_size_pm, "frame", CalibrationSource::Frame),
        (hints.config_pixel_size_pm, "config", CalibrationSource::Config),
    ];
    for (size, origin, source) in given {
        let Some(pixel_size_pm) = size else { continue };
        if !pixel_size_pm.iter().all(|size| size.is_finite() && *size > 0.0) {
            return Err(CalibrationError::InvalidPixelSize { origin, found: pixel_size_pm });
        }
        return Ok(Calibration { pixel_size_pm, source });
    }
    let lattice_a_pm = hints.lattice_a_pm.ok_or(CalibrationError::NoLatticeParameter)?;
    let lattice = estimate_lattice(pixels, valid);
    let lattice = lattice.map_err(|error| CalibrationError::NoPixelSize(Box::new(error)))?;
    let pixel_size_pm = lattice_a_pm / lattice.fast_axis_cell_px();
    Ok(Calibration { pixel_size_pm: [pixel_size_pm; 2], source: CalibrationSource::Lattice })
}
