//! What is wrong with the microscope: with its optics and dose, or with rows of what it records.

use super::{Anomaly, one_of};
use crate::simulate::Microscope;
use ndarray::Array2;
use rand::{Rng, RngExt as _};
use std::ops::{Range, RangeInclusive};

/// Standard deviation of a blur over the finished frame. Training smooths with up to 2 px, some 30 pm.
const BLUR_PM: RangeInclusive<f64> = 60.0..=90.0;

/// Sets the microscope as it should not be.
pub(super) fn adjust(anomaly: Anomaly, microscope: &mut Microscope, rng: &mut impl Rng) {
    match anomaly {
        Anomaly::Defocus => {
            let sign = *one_of(&[-1.0, 1.0], rng);
            microscope.defocus_nm = sign * rng.random_range(9.0..=13.0);
            microscope.convergence_mrad = 30.0;
        }
        Anomaly::Blur => {
            let [_, wide_pm] = microscope.pixel_sizes_pm();
            microscope.detector.smoothing_px = rng.random_range(BLUR_PM) / wide_pm;
        }
        Anomaly::LowDose => microscope.peak_counts = rng.random_range(1.0..=4.0),
        _ => {}
    }
}

/// What goes wrong behind the specimen: the rows and columns of pixels that it happens to.
///
/// Rows that are saturated from edge to edge are what the padding of a drift correction looks like: they pass for pixels that were not
/// measured, and windows that hold any of them are not evaluated (at the default `preprocess.max_masked_fraction`). Where only a part of
/// each row is saturated, windows are.
pub(super) fn damage(
    anomaly: Anomaly,
    pixels: &mut Array2<f32>,
    microscope: &Microscope,
    rng: &mut impl Rng,
) -> Option<[Range<usize>; 2]> {
    let (rows, cols) = pixels.dim();
    let first = rows / 2 + rng.random_range(0..rows / 8) - rows / 16;
    match anomaly {
        Anomaly::LineJump => {
            let far = rng.random_range(100.0..=200.0) / microscope.pixel_sizes_pm()[1];
            let jump = far.round() as usize;
            let before = pixels.clone();
            for ((row, col), pixel) in pixels.indexed_iter_mut().filter(|((row, _), _)| *row >= first) {
                // What comes in at the side goes out at the other.
                *pixel = before[[row, (col + jump) % cols]];
            }
            Some([first..first + 1, 0..cols])
        }
        Anomaly::Flicker => {
            let last = first + rng.random_range(3..=8);
            let left = rng.random_range(0.3f32..=0.6);
            pixels.slice_mut(ndarray::s![first..last, ..]).mapv_inplace(|value| (value * left).round());
            Some([first..last, 0..cols])
        }
        Anomaly::Saturation | Anomaly::SaturatedPart => {
            let last = first + rng.random_range(2..=6);
            let most = pixels.iter().copied().fold(0.0, f32::max);
            let part = if anomaly == Anomaly::Saturation { 0..cols } else { cols / 4..cols - cols / 4 };
            pixels.slice_mut(ndarray::s![first..last, part.clone()]).fill(most);
            Some([first..last, part])
        }
        _ => None,
    }
}
