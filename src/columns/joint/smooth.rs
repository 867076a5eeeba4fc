//! Frames smoothed by a Gaussian, those that are not measured everywhere among them.

use super::Pace;
use super::picture::between;
use ndarray::Array2;
use rayon::prelude::*;

/// Smooths frames of one shape: sums over squares of pixels, a Gaussian over those, and straight lines between their centres.
#[derive(Debug)]
pub(super) struct Smoother {
    /// Side of the squares, px.
    side: usize,
    /// Of the Gaussian, in sides.
    sigma: f64,
    /// Part of the weights around a square that is measured.
    measured: Array2<f32>,
}

impl Smoother {
    /// For `frame`, whose finite pixels are those that are measured.
    pub(super) fn new(frame: &Array2<f32>, sigma_px: f64, pace: Pace) -> Self {
        let side = pace.squares_px(sigma_px);
        let sigma = sigma_px / side as f64;
        let mut measured = blur(squares(&frame.mapv(|value| f32::from(value.is_finite())), side), sigma);
        measured.mapv_inplace(|weight| if weight > 1e-6 * (side * side) as f32 { weight } else { f32::NAN });
        Self { side, sigma, measured }
    }

    /// Weighted means of what is left over of a frame; pixels that are not finite count nothing.
    pub(super) fn smooth(&self, rest: &Array2<f32>) -> Array2<f32> {
        let means = blur(squares(rest, self.side), self.sigma) / &self.measured;
        if self.side == 1 {
            return means;
        }
        between(&means, self.side, 0.5 * (self.side - 1) as f32, rest.dim())
    }
}

/// Sums over squares of `side` pixels, smaller at the right and lower edges; pixels that are not finite count nothing.
fn squares(image: &Array2<f32>, side: usize) -> Array2<f32> {
    let (rows, cols) = image.dim();
    let mut sums = Array2::zeros((rows.div_ceil(side), cols.div_ceil(side)));
    for (row, line) in image.rows().into_iter().enumerate() {
        let mut sums = sums.row_mut(row / side);
        for (sum, pixels) in sums.iter_mut().zip(line.as_slice().unwrap_or_default().chunks(side)) {
            *sum += pixels.iter().filter(|value| value.is_finite()).sum::<f32>();
        }
    }
    sums
}

/// Means weighted by a Gaussian of `sigma_px`; non-finite values are left out, and are NaN where there is nothing else.
pub(crate) fn blurred(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let values = image.mapv(|value| if value.is_finite() { value } else { 0.0 });
    blur(values, sigma_px) / measured_weight(image, sigma_px)
}

/// The part of the weights around each pixel that is measured, NaN where that is nothing.
fn measured_weight(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let mut weight = blur(image.mapv(|value| f32::from(value.is_finite())), sigma_px);
    weight.mapv_inplace(|weight| if weight > 1e-6 { weight } else { f32::NAN });
    weight
}

/// Weighted sums; what lies beyond the edge counts as 0.
fn blur(image: Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let transposed = |image: &Array2<f32>| image.t().as_standard_layout().into_owned();
    let along = along_rows(&image, sigma_px);
    transposed(&along_rows(&transposed(&along), sigma_px))
}

fn along_rows(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let reach = (3.5 * sigma_px).ceil() as usize;
    let kernel: Vec<f32> = (0..=2 * reach)
        .map(|k| (-0.5 * ((k as f64 - reach as f64) / sigma_px).powi(2)).exp() as f32)
        .collect();
    let sum: f32 = kernel.iter().sum();
    let kernel: Vec<f32> = kernel.iter().map(|weight| weight / sum).collect();
    let (rows, cols) = image.dim();
    let mut out = Array2::<f32>::zeros((rows, cols));
    let Some(values) = out.as_slice_mut() else { return out };
    values.par_chunks_mut(cols.max(1)).enumerate().for_each(|(row, out)| {
        let mut padded = vec![0.0_f32; cols + 2 * reach];
        padded[reach..reach + cols].iter_mut().zip(image.row(row)).for_each(|(to, from)| *to = *from);
        // Tap by tap, so that sums run over pixels side by side.
        for (k, &weight) in kernel.iter().enumerate() {
            out.iter_mut().zip(&padded[k..]).for_each(|(out, value)| *out += weight * value);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blurring_keeps_constants_and_leaves_out_what_was_not_measured() {
        let mut image = Array2::from_elem((40, 50), 3.0_f32);
        image[[10, 10]] = f32::NAN;
        let blur = blurred(&image, 4.0);
        assert!(blur.iter().all(|v| (v - 3.0).abs() < 1e-4));
    }
}
