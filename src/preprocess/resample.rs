//! From the frame's pixels to the model's, and the exact mapping between the two.

use super::PreprocessError;
use super::normalise::fill_masked;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use ndarray::{Array2, Axis};
use std::ops::Range;

/// Scales within this of 1 are taken as 1: no network notices, and no interpolation touches the noise.
const SAME_SCALE: f64 = 0.005;

/// Reach of the mean that stands in for masked pixels, frame pixels.
const FILL_SIGMA_PX: f64 = 20.0;

/// Positions on the model's pixels and on the frame's; integers are pixel centres on both.
///
/// `frame = (model + 0.5) * scale − 0.5` per axis, `scale` in frame pixels a model pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelMap {
    pub scale_row: f64,
    pub scale_col: f64,
}

impl PixelMap {
    /// The model sees the frame's own pixels.
    pub const IDENTITY: Self = Self { scale_row: 1.0, scale_col: 1.0 };

    /// From the pixel sizes of frame (`[row, col]`) and model, both pm. Within 0.5 % of 1 on both axes: the identity.
    pub fn between(frame_pixel_size_pm: [f64; 2], model_pixel_size_pm: f64) -> Self {
        let [scale_row, scale_col] = frame_pixel_size_pm.map(|size| model_pixel_size_pm / size);
        if (scale_row - 1.0).abs() <= SAME_SCALE && (scale_col - 1.0).abs() <= SAME_SCALE {
            return Self::IDENTITY;
        }
        Self { scale_row, scale_col }
    }

    /// `(row, col)` in model pixels → `(row, col)` in frame pixels.
    pub fn model_to_frame(&self, row: f64, col: f64) -> (f64, f64) {
        ((row + 0.5) * self.scale_row - 0.5, (col + 0.5) * self.scale_col - 0.5)
    }

    /// `(row, col)` in frame pixels → `(row, col)` in model pixels.
    pub fn frame_to_model(&self, row: f64, col: f64) -> (f64, f64) {
        ((row + 0.5) / self.scale_row - 0.5, (col + 0.5) / self.scale_col - 0.5)
    }

    /// `[rows, cols]` of the model image of a frame of `[rows, cols]`: whole model pixels only.
    pub fn model_shape(&self, frame_shape: [usize; 2]) -> [usize; 2] {
        // The small addition keeps a quotient that rounding left just below an integer.
        let [rows, cols] = frame_shape;
        [(rows as f64 / self.scale_row + 1e-9) as usize, (cols as f64 / self.scale_col + 1e-9) as usize]
    }
}

/// A frame at the model's scale.
#[derive(Debug, Clone)]
pub struct Resampled {
    /// NaN where not `valid`.
    pub image: Array2<f32>,
    pub valid: Array2<bool>,
}

/// Brings `pixels` to the model's scale: Lanczos-3, widened when it shrinks (so that it filters aliases out).
///
/// A model pixel is valid only if all frame pixels under the main lobe of its kernel are (within one model pixel, or one
/// frame pixel where that is larger); masked pixels count as the mean of what surrounds them in the kernel's tails.
///
/// # Shapes
/// `pixels` and `valid` `[row, col]` of the frame → `map.model_shape`.
///
/// # Errors
/// When the result would be empty, or larger than `max_pixels`.
pub fn resample(
    pixels: &Array2<f32>,
    valid: &Array2<bool>,
    map: &PixelMap,
    max_pixels: usize,
) -> Result<Resampled, PreprocessError> {
    let mut masked = pixels.clone();
    let mut complete = true;
    masked.zip_mut_with(valid, |pixel, &valid| {
        if !valid {
            *pixel = f32::NAN;
            complete = false;
        }
    });
    let (frame_rows, frame_cols) = pixels.dim();
    let [rows, cols] = map.model_shape([frame_rows, frame_cols]);
    if rows == 0 || cols == 0 || rows.saturating_mul(cols) > max_pixels {
        return Err(PreprocessError::ModelImageSize {
            frame: [frame_rows, frame_cols],
            model: [rows, cols],
            max_pixels,
        });
    }
    if *map == PixelMap::IDENTITY {
        return Ok(Resampled { image: masked, valid: valid.clone() });
    }
    let filled = if complete { masked } else { fill_masked(&masked, FILL_SIGMA_PX) };
    let mut image = convolve(&filled, map, [rows, cols])?;
    let valid = if complete { Array2::from_elem((rows, cols), true) } else { resample_mask(valid, map) };
    if !complete {
        image.zip_mut_with(&valid, |pixel, &valid| {
            if !valid {
                *pixel = f32::NAN;
            }
        });
    }
    Ok(Resampled { image, valid })
}

fn convolve(pixels: &Array2<f32>, map: &PixelMap, shape: [usize; 2]) -> Result<Array2<f32>, PreprocessError> {
    let (frame_rows, frame_cols) = pixels.dim();
    let resize_error = |error: &dyn std::fmt::Display| PreprocessError::Resample(error.to_string());
    let side = |length: usize| u32::try_from(length).map_err(|error| resize_error(&error));
    let source: Vec<F32> = pixels.iter().map(|&value| F32::new(value)).collect();
    let source =
        TypedImageRef::new(side(frame_cols)?, side(frame_rows)?, &source).map_err(|e| resize_error(&e))?;
    let mut target = TypedImage::<F32>::new(side(shape[1])?, side(shape[0])?);
    // The stretch of the frame that whole model pixels cover; this is what makes the mapping exact.
    let width = (shape[1] as f64 * map.scale_col).min(frame_cols as f64);
    let height = (shape[0] as f64 * map.scale_row).min(frame_rows as f64);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
        .crop(0.0, 0.0, width, height)
        .use_alpha(false);
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|e| resize_error(&e))?;
    let values = target.pixels().iter().map(|pixel| pixel.0).collect();
    Array2::from_shape_vec((shape[0], shape[1]), values).map_err(|e| resize_error(&e))
}

fn resample_mask(valid: &Array2<bool>, map: &PixelMap) -> Array2<bool> {
    let (frame_rows, frame_cols) = valid.dim();
    let [rows, cols] = map.model_shape([frame_rows, frame_cols]);
    let col_supports: Vec<Range<usize>> =
        (0..cols).map(|col| support(col, map.scale_col, frame_cols)).collect();
    let mut along_cols = Array2::from_elem((frame_rows, cols), false);
    for (line, mut out) in valid.rows().into_iter().zip(along_cols.rows_mut()) {
        for (support, out) in col_supports.iter().zip(&mut out) {
            *out = line.iter().skip(support.start).take(support.len()).all(|&valid| valid);
        }
    }
    let mut out = Array2::from_elem((rows, cols), true);
    for (row, mut out) in out.rows_mut().into_iter().enumerate() {
        for line in along_cols.slice_axis(Axis(0), support(row, map.scale_row, frame_rows).into()).rows() {
            out.zip_mut_with(&line, |out, &valid| *out &= valid);
        }
    }
    out
}

/// Frame pixels under the main lobe of the kernel of model pixel `index`.
fn support(index: usize, scale: f64, length: usize) -> Range<usize> {
    let centre = (index as f64 + 0.5) * scale - 0.5;
    // The lobe is zero at its ends: pixels there do not count.
    let reach = scale.max(1.0) - 1e-6;
    let from = (centre - reach).ceil().max(0.0) as usize;
    let to = ((centre + reach).floor().max(0.0) as usize + 1).min(length);
    from.min(to)..to
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spot(rows: usize, cols: usize, at: (f64, f64), sigma: (f64, f64)) -> Array2<f32> {
        Array2::from_shape_fn((rows, cols), |(row, col)| {
            let (dr, dc) = ((row as f64 - at.0) / sigma.0, (col as f64 - at.1) / sigma.1);
            (100.0 * (-0.5 * (dr * dr + dc * dc)).exp()) as f32
        })
    }

    fn centre_of_mass(image: &Array2<f32>) -> (f64, f64) {
        let total: f64 = image.iter().map(|&v| f64::from(v)).sum();
        let (mut row_sum, mut col_sum) = (0.0, 0.0);
        for ((row, col), &v) in image.indexed_iter() {
            row_sum += row as f64 * f64::from(v);
            col_sum += col as f64 * f64::from(v);
        }
        (row_sum / total, col_sum / total)
    }

    #[test]
    fn a_spot_stays_where_it_is() {
        for (pixel_size_pm, sigma) in [
            ([29.66, 29.66], (3.0, 3.0)),
            ([10.013, 10.013], (6.0, 6.0)),
            ([7.0, 20.0], (8.0, 3.0)),
            ([33.0, 6.1], (3.0, 9.0)),
        ] {
            let map = PixelMap::between(pixel_size_pm, 15.0);
            let at = (60.3, 71.8);
            let frame = spot(131, 147, at, sigma);
            let valid = Array2::from_elem(frame.dim(), true);
            let model = resample(&frame, &valid, &map, 1 << 24).unwrap();
            assert_eq!([model.image.nrows(), model.image.ncols()], map.model_shape([131, 147]));
            let (row, col) = centre_of_mass(&model.image);
            let (row, col) = map.model_to_frame(row, col);
            assert!((row - at.0).abs() < 0.02 && (col - at.1).abs() < 0.02, "{pixel_size_pm:?}: {row} {col}");
            assert!((model.image.iter().fold(0.0_f32, |a, &b| a.max(b)) - 100.0).abs() < 4.0);
        }
    }

    #[test]
    fn a_scale_of_nearly_one_changes_no_pixel() {
        let frame = spot(20, 30, (9.0, 12.0), (2.0, 2.0));
        let map = PixelMap::between([15.07, 14.94], 15.0);
        assert_eq!(map, PixelMap::IDENTITY);
        let valid = Array2::from_elem(frame.dim(), true);
        assert_eq!(resample(&frame, &valid, &map, 1000).unwrap().image, frame);
    }

    #[test]
    fn fine_stripes_do_not_alias() {
        // A period of 2.5 frame pixels cannot be shown at 3 frame pixels a model pixel.
        let frame =
            Array2::from_shape_fn((300, 300), |(_, col)| (col as f32 * std::f32::consts::TAU / 2.5).cos());
        let valid = Array2::from_elem(frame.dim(), true);
        let model = resample(&frame, &valid, &PixelMap { scale_row: 3.0, scale_col: 3.0 }, 1 << 20).unwrap();
        let inner = model
            .image
            .columns()
            .into_iter()
            .skip(5)
            .take(90)
            .flatten()
            .fold(0.0_f32, |a, &b| a.max(b.abs()));
        assert!(inner < 0.08, "{inner}");
    }

    #[test]
    fn holes_spread_no_further_than_the_main_lobe() {
        let mut frame = Array2::from_shape_fn((90, 90), |(row, col)| (row + 2 * col) as f32);
        let mut valid = Array2::from_elem((90, 90), true);
        valid[[45, 45]] = false;
        frame[[45, 45]] = 1e6;
        for scale in [0.5, 1.5, 3.0] {
            let map = PixelMap { scale_row: scale, scale_col: scale };
            let model = resample(&frame, &valid, &map, 1 << 20).unwrap();
            for ((row, col), &valid) in model.valid.indexed_iter() {
                let (r, c) = map.model_to_frame(row as f64, col as f64);
                let reach = scale.max(1.0);
                let touches = (r - 45.0).abs() < reach - 1e-5 && (c - 45.0).abs() < reach - 1e-5;
                assert_eq!(valid, !touches, "scale {scale} at {row} {col}");
                let value = model.image[[row, col]];
                assert_eq!(value.is_finite(), valid);
                let inside =
                    row > 3 && col > 3 && row + 4 < model.image.nrows() && col + 4 < model.image.ncols();
                if valid && inside {
                    assert!(
                        (f64::from(value) - (r + 2.0 * c)).abs() < 0.5,
                        "scale {scale} at {row} {col}: {value}"
                    );
                }
            }
        }
    }

    #[test]
    fn absurd_scales_are_refused() {
        let frame = Array2::<f32>::zeros((8, 8));
        let valid = Array2::from_elem((8, 8), true);
        for scale in [100.0, 1e-9] {
            let map = PixelMap { scale_row: scale, scale_col: scale };
            assert!(matches!(
                resample(&frame, &valid, &map, 1 << 20),
                Err(PreprocessError::ModelImageSize { frame: [8, 8], .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn the_mapping_inverts(row in -10.0..5000.0, col in -10.0..5000.0, a in 3.0..60.0, b in 3.0..60.0) {
            let map = PixelMap::between([a, b], 15.0);
            let (r, c) = map.model_to_frame(row, col);
            let (r, c) = map.frame_to_model(r, c);
            prop_assert!((r - row).abs() < 1e-8 && (c - col).abs() < 1e-8);
        }
    }
}
