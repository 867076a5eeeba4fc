//! The spectrum of the middle of a frame.

use super::MIN_CELLS;
use crate::preprocess::normalise::Normalisation;
use ndarray::{Array2, Axis};
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use std::f64::consts::PI;

/// Largest side of the centre crop that is transformed.
const MAX_CROP_PX: usize = 1024;

/// The largest product of 2, 3 and 5 up to `length`, which the transform likes best.
pub(super) fn fast_length(length: usize) -> usize {
    let is_smooth = |length: &usize| {
        [2, 3, 5].iter().fold(*length, |rest, &factor| {
            std::iter::successors(Some(rest), |rest| rest.is_multiple_of(factor).then(|| rest / factor))
                .last()
                .unwrap_or(rest)
        }) == 1
    };
    (1..=length).rev().find(is_smooth).unwrap_or(0)
}

/// The centre of the frame, normalised locally (masked pixels 0) and tapered to its edges.
pub(super) fn flattened_crop(pixels: &Array2<f32>, valid: &Array2<bool>) -> Array2<f32> {
    let range = |length: usize| {
        let size = fast_length(length.min(MAX_CROP_PX));
        let from = (length - size) / 2;
        ndarray::Slice::from(from..from + size)
    };
    let rows = range(pixels.nrows());
    let cols = range(pixels.ncols());
    let mut crop = pixels.slice_axis(Axis(0), rows).slice_axis(Axis(1), cols).to_owned();
    crop.zip_mut_with(&valid.slice_axis(Axis(0), rows).slice_axis(Axis(1), cols), |pixel, &valid| {
        if !valid {
            *pixel = f32::NAN;
        }
    });
    let (rows, cols) = crop.dim();
    // Wide enough to leave the longest period that is looked for.
    let sigma_px = (rows.min(cols) as f64 / (2.0 * MIN_CELLS)).max(1.0);
    let mut flat = Normalisation::Local { sigma_px }.normalise(&crop);
    let hann = |length: usize| -> Vec<f32> {
        (0..length).map(|i| (PI * (i as f64 + 0.5) / length as f64).sin().powi(2) as f32).collect()
    };
    let col_taper = hann(cols);
    for (mut row, row_taper) in flat.rows_mut().into_iter().zip(hann(rows)) {
        for (pixel, col_taper) in row.iter_mut().zip(&col_taper) {
            *pixel *= row_taper * col_taper;
        }
    }
    flat
}

/// |FFT|², `[row frequency, column frequency]` in FFT order.
pub(crate) fn power_spectrum(image: Array2<f32>) -> Array2<f32> {
    fourier_transform(image.mapv(|value| Complex::new(value, 0.0))).mapv(|value| value.norm_sqr())
}

/// Its forward Fourier transform, unscaled, `[row frequency, column frequency]` in FFT order.
pub(crate) fn fourier_transform(mut spectrum: Array2<Complex<f32>>) -> Array2<Complex<f32>> {
    let (rows, cols) = spectrum.dim();
    let mut planner = FftPlanner::<f32>::new();
    let along_rows = planner.plan_fft_forward(cols);
    if let Some(values) = spectrum.as_slice_mut() {
        along_rows.process(values);
    }
    let mut turned = spectrum.reversed_axes().as_standard_layout().into_owned();
    if let Some(values) = turned.as_slice_mut() {
        planner.plan_fft_forward(rows).process(values);
    }
    turned.reversed_axes().as_standard_layout().into_owned()
}
