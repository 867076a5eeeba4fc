//! One frame of a specimen, and its truth.

use super::canvas::Canvas;
use super::detector::{detect, pixel_array};
use super::microscope::{Microscope, PixelType};
use super::scan_field::ScanField;
use super::specimen::Specimen;
use super::truth::Truth;
use super::view::View;
use crate::config::InvalidSetting;
use ferrostem_proto::{ArrayError, PixelArray};
use ndarray::Array2;
use rand::Rng;

/// A frame as the detector delivers it, with what it shows.
#[derive(Debug, Clone)]
pub struct SimulatedFrame {
    /// Pixel values `[row, col]`: `gain * counts + offset + read noise`, rounded and clipped where the detector's pixels are integers.
    pub pixels: Array2<f32>,
    pub truth: Truth,
}

/// Scans `specimen` once. The specimen follows from its seed alone; `rng` is the microscope's chance: counts, read noise, where
/// the lines of the scan went.
///
/// # Errors
/// [`InvalidSetting`] when either description is out of range.
pub fn render(
    specimen: &Specimen,
    microscope: &Microscope,
    rng: &mut impl Rng,
) -> Result<SimulatedFrame, InvalidSetting> {
    specimen.validate("specimen")?;
    microscope.validate("microscope")?;
    let microscope = microscope.scanned();
    let field = ScanField::draw(&microscope, rng);
    let view = View::new(specimen, &microscope, field.farthest_px());
    let mut placed = view.place_columns();
    let mut canvas = Canvas::new(microscope.shape, &field, view.narrowest_px());
    view.add_background(&mut canvas);
    for column in placed.columns() {
        view.add_column(&mut canvas, column);
    }
    let mut pixels = canvas.into_scanned();
    let saturated = detect(&mut pixels, &field, &microscope, rng);
    if let Some(saturated) = &saturated {
        view.mark_saturated(&mut placed, saturated, &field);
    }
    let truth = Truth { saturated, scan: field, ..view.truth(&placed) };
    Ok(SimulatedFrame { pixels, truth })
}

impl SimulatedFrame {
    /// The pixels as the detector's element type: integers are rounded and clipped.
    ///
    /// # Errors
    /// When the array is too large for the wire.
    pub fn pixel_array(&self, pixel_type: PixelType) -> Result<PixelArray, ArrayError> {
        pixel_array(&self.pixels, pixel_type)
    }
}
