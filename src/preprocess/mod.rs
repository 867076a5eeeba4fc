//! From a validated frame to what a network reads: calibrated, masked, at the model's scale, normalised, and with its
//! windows planned. Everything here is a function of settings and input.
//!
//! [`prepare`] does it all, for any number of networks at once, and does what they share only once.

mod area_sums;
mod averages;
mod calibrate;
mod mask;
mod normalise;
mod resample;
mod smoothness;
mod windows;

pub(crate) use area_sums::AreaSums;
pub(crate) use averages::{NORMAL_OVER_MEDIAN, mean, median, rms};
pub use calibrate::{CalibrationError, CalibrationHints, LatticeEstimate, calibrate, estimate_lattice};
pub(crate) use calibrate::{fourier_transform, power_spectrum};
pub use mask::measured_pixels;
pub use normalise::Normalisation;
pub use resample::{PixelMap, Resampled, resample};
pub use smoothness::smoothness;
pub use windows::WindowPlan;

use crate::config::InvalidSetting;
use crate::frame::Frame;
use ferrostem_proto::{Calibration, CalibrationSource};
use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How frames are prepared, whatever the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreprocessSettings {
    /// Feed the networks the frame's own pixels; the pixel size is then only reported.
    pub native_scale: bool,
    /// From one window to the next, model pixels; a multiple of the DCNN's pooling.
    pub stride_px: usize,
    /// Windows with a larger fraction of masked pixels are not measured, 0 ..= 1.
    pub max_masked_fraction: f64,
    /// Larger model images are refused.
    pub max_model_pixels: usize,
}

impl Default for PreprocessSettings {
    fn default() -> Self {
        Self { native_scale: false, stride_px: 8, max_masked_fraction: 0.0, max_model_pixels: 1 << 25 }
    }
}

impl PreprocessSettings {
    /// # Errors
    /// Names the first setting out of range.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let wrong = |key: &str, value: &dyn std::fmt::Display, expected: &str| {
            Err(InvalidSetting::new(format!("{key_prefix}.{key}"), value, expected))
        };
        if self.stride_px == 0 || !self.stride_px.is_multiple_of(2) || self.stride_px > 1024 {
            return wrong("stride_px", &self.stride_px, "an even number, 2 ..= 1024");
        }
        if !(0.0..=1.0).contains(&self.max_masked_fraction) {
            return wrong("max_masked_fraction", &self.max_masked_fraction, "0 ..= 1");
        }
        if !(1 << 10..=1 << 30).contains(&self.max_model_pixels) {
            return wrong("max_model_pixels", &self.max_model_pixels, "1024 ..= 1073741824");
        }
        Ok(())
    }
}

/// What a network wants to be fed, as its manifest says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelInput {
    /// Of the model's square pixels.
    pub pixel_size_pm: f64,
    pub normalisation: Normalisation,
    /// The image's sides are padded (bottom and right, zeros, masked) to a multiple of this; 1 for no padding.
    pub multiple_of: usize,
    /// Side of the sliding window; `None` for a network that reads the whole image.
    pub window_px: Option<usize>,
}

/// A frame as a network reads it. Images are shared between networks that want the same.
#[derive(Debug, Clone)]
pub struct PreparedFrame {
    /// `[row, col]`, normalised, at the model's scale, 0 where masked.
    pub image: Arc<Array2<f32>>,
    /// Same shape; false where masked or padded.
    pub valid: Arc<Array2<bool>>,
    /// `[rows, cols]` of the image without its padding.
    pub content_shape: [usize; 2],
    pub map: PixelMap,
    /// For a network with a sliding window.
    pub windows: Option<Windows>,
    /// Of the frame's pixels.
    pub calibration: Calibration,
}

/// Where the windows sit and which of them may be believed.
#[derive(Debug, Clone)]
pub struct Windows {
    pub plan: WindowPlan,
    /// `[plan.rows, plan.cols]`.
    pub valid: Array2<bool>,
}

/// A frame that no network can be fed with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PreprocessError {
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    #[error(
        "a frame of {frame:?} px becomes {model:?} px at the model's scale: expected 1 ..= {max_pixels} px in all"
    )]
    ModelImageSize { frame: [usize; 2], model: [usize; 2], max_pixels: usize },
    #[error("the model image has {model:?} px: expected at least a window of {window_px} x {window_px}")]
    SmallerThanWindow { model: [usize; 2], window_px: usize },
    #[error("expected a window and a stride of at least 1 px, found {window_px} and {stride_px}")]
    EmptyWindow { window_px: usize, stride_px: usize },
    #[error("resampling failed: {0}")]
    Resample(String),
}

/// Which pixels of `frame` were measured, and their size: the frame's own, else from the lattice, whose edge is `lattice_a_pm`.
///
/// # Errors
/// See [`calibrate`].
pub fn calibrate_frame(
    frame: &Frame,
    lattice_a_pm: Option<f64>,
) -> Result<(Array2<bool>, Calibration), CalibrationError> {
    let valid = measured_pixels(&frame.pixels, &frame.valid_rows);
    let hints = CalibrationHints { lattice_a_pm, ..CalibrationHints::default() };
    let calibration = calibrate(frame.scan.pixel_size_pm, &hints, &frame.pixels, &valid)?;
    Ok((valid, calibration))
}

/// Prepares `frame` for each of `inputs`, in their order.
///
/// Masking and calibration happen once, resampling once a pixel size, normalisation once a distinct input.
/// With `native_scale` the frame's pixels are the model's; a pixel size is then reported where frame or config gives one, and
/// `[NaN, NaN]` with [`CalibrationSource::None`] otherwise.
///
/// # Errors
/// When the pixel size is unknown and cannot be measured, or the model image is too large or smaller than a window.
pub fn prepare(
    frame: &Frame,
    inputs: &[ModelInput],
    hints: &CalibrationHints,
    settings: &PreprocessSettings,
) -> Result<Vec<PreparedFrame>, PreprocessError> {
    let valid = measured_pixels(&frame.pixels, &frame.valid_rows);
    let given = frame.scan.pixel_size_pm.or(hints.config_pixel_size_pm);
    let calibration = if settings.native_scale && given.is_none() {
        Calibration { pixel_size_pm: [f64::NAN; 2], source: CalibrationSource::None }
    } else {
        calibrate(frame.scan.pixel_size_pm, hints, &frame.pixels, &valid)?
    };

    let mut resampled: Vec<(PixelMap, Resampled)> = Vec::new();
    let mut prepared: Vec<PreparedFrame> = Vec::with_capacity(inputs.len());
    for input in inputs {
        let map = if settings.native_scale {
            PixelMap::IDENTITY
        } else {
            PixelMap::between(calibration.pixel_size_pm, input.pixel_size_pm)
        };
        let same = |other: &ModelInput| {
            other.pixel_size_pm == input.pixel_size_pm
                && other.normalisation == input.normalisation
                && other.multiple_of == input.multiple_of
        };
        let shared =
            inputs.iter().zip(&prepared).find(|(other, _)| same(other)).map(|(_, prepared)| prepared);
        let (image, padded_valid, content_shape) = if let Some(shared) = shared {
            (Arc::clone(&shared.image), Arc::clone(&shared.valid), shared.content_shape)
        } else {
            let at = match resampled.iter().position(|(other, _)| *other == map) {
                Some(at) => at,
                None => {
                    let model = resample(&frame.pixels, &valid, &map, settings.max_model_pixels)?;
                    resampled.push((map, model));
                    resampled.len() - 1
                }
            };
            let model = &resampled[at].1;
            let image = pad(input.normalisation.normalise(&model.image), input.multiple_of, 0.0);
            let padded_valid = pad(model.valid.clone(), input.multiple_of, false);
            (Arc::new(image), Arc::new(padded_valid), [model.image.nrows(), model.image.ncols()])
        };
        let windows = match input.window_px {
            Some(window_px) => {
                let plan = WindowPlan::new(content_shape, window_px, settings.stride_px, &map)?;
                let valid = plan.valid_windows(&padded_valid, settings.max_masked_fraction);
                Some(Windows { plan, valid })
            }
            None => None,
        };
        prepared.push(PreparedFrame {
            image,
            valid: padded_valid,
            content_shape,
            map,
            windows,
            calibration: calibration.clone(),
        });
    }
    Ok(prepared)
}

/// Appends rows and columns of `value` until both sides are multiples of `multiple_of`.
fn pad<T: Copy>(array: Array2<T>, multiple_of: usize, value: T) -> Array2<T> {
    let (rows, cols) = array.dim();
    let [padded_rows, padded_cols] = [rows, cols].map(|length| length.next_multiple_of(multiple_of.max(1)));
    if (padded_rows, padded_cols) == (rows, cols) {
        return array;
    }
    let mut padded = Array2::from_elem((padded_rows, padded_cols), value);
    padded.slice_axis_mut(Axis(0), (0..rows).into()).slice_axis_mut(Axis(1), (0..cols).into()).assign(&array);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameTimes, ScanGeometry};
    use ferrostem_proto::{FrameState, JsonMap, PixelArray};

    const LOCAL: Normalisation = Normalisation::Local { sigma_px: 40.0 };

    fn frame(pixels: Array2<f32>, pixel_size_pm: Option<[f64; 2]>) -> Frame {
        let shape = [pixels.nrows(), pixels.ncols()];
        Frame {
            source: "test".into(),
            acquisition: "a".into(),
            seq: 1,
            raw: Arc::new(PixelArray::from_f32(shape, pixels.as_slice().unwrap()).unwrap()),
            valid_rows: 0..shape[0],
            pixels,
            scan: ScanGeometry { pixel_size_pm, ..ScanGeometry::default() },
            times: FrameTimes::default(),
            channel: "HAADF".into(),
            state: FrameState::Complete,
            user_data: JsonMap::default(),
        }
    }

    /// Gaussian columns on a 26-px lattice.
    fn crystal(rows: usize, cols: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, cols), |(row, col)| {
            let wave = |x: usize| (std::f32::consts::PI * x as f32 / 26.0).cos().powi(8);
            10.0 + 100.0 * wave(row) * wave(col) + 0.01 * (row % 7) as f32 + 0.02 * (col % 5) as f32
        })
    }

    fn dcnn() -> ModelInput {
        ModelInput { pixel_size_pm: 15.0, normalisation: LOCAL, multiple_of: 1, window_px: Some(80) }
    }

    #[test]
    fn networks_that_want_the_same_share_it() {
        let frame = frame(crystal(200, 219), Some([30.0, 15.0]));
        let fcnn = ModelInput { window_px: None, ..dcnn() };
        let atomai = ModelInput { normalisation: Normalisation::MinMax, multiple_of: 8, ..fcnn };
        let prepared = prepare(
            &frame,
            &[dcnn(), fcnn, atomai],
            &CalibrationHints::default(),
            &PreprocessSettings::default(),
        )
        .unwrap();
        let [dcnn, fcnn, atomai] = prepared.as_slice() else { panic!("three in, three out") };
        assert!(Arc::ptr_eq(&dcnn.image, &fcnn.image) && Arc::ptr_eq(&dcnn.valid, &fcnn.valid));
        assert_eq!(dcnn.image.dim(), (400, 219));
        let windows = dcnn.windows.as_ref().unwrap();
        assert_eq!((windows.plan.rows, windows.plan.cols), (41, 18));
        assert_eq!((windows.plan.grid.step_row, windows.plan.grid.step_col), (4.0, 8.0));
        assert!(windows.valid.iter().all(|&valid| valid));
        assert!(fcnn.windows.is_none());
        assert_eq!((atomai.image.dim(), atomai.content_shape), ((400, 224), [400, 219]));
        assert!(atomai.valid[[0, 218]] && !atomai.valid[[0, 219]]);
        assert_eq!(atomai.image[[5, 222]], 0.0);
        assert_eq!(dcnn.calibration.source, CalibrationSource::Frame);
    }

    #[test]
    fn masked_pixels_are_zero_and_void_their_windows() {
        let mut pixels = crystal(160, 200);
        pixels.slice_axis_mut(Axis(1), (0..21).into()).fill(0.0);
        pixels[[150, 190]] = f32::NAN;
        let frame = frame(pixels, Some([15.0, 15.0]));
        let settings = PreprocessSettings { stride_px: 20, ..PreprocessSettings::default() };
        let prepared = prepare(&frame, &[dcnn()], &CalibrationHints::default(), &settings).unwrap();
        assert!(prepared[0].image.slice_axis(Axis(1), (0..21).into()).iter().all(|&v| v == 0.0));
        let windows = prepared[0].windows.as_ref().unwrap();
        for ((i, j), &valid) in windows.valid.indexed_iter() {
            let (top, left) = windows.plan.origin(i, j);
            assert_eq!(valid, left >= 21 && !(top + 80 > 150 && left + 80 > 190), "{i} {j}");
        }
        let lenient = PreprocessSettings { max_masked_fraction: 0.01, ..settings };
        let prepared = prepare(&frame, &[dcnn()], &CalibrationHints::default(), &lenient).unwrap();
        assert!(prepared[0].windows.as_ref().unwrap().valid[[4, 6]]);
    }

    #[test]
    fn without_a_pixel_size_the_crystal_tells_or_native_scale_does_without() {
        let frame = frame(crystal(256, 256), None);
        let fcnn = ModelInput { window_px: None, ..dcnn() };
        let hints = CalibrationHints { lattice_a_pm: Some(390.0), ..CalibrationHints::default() };
        let settings = PreprocessSettings::default();
        let prepared = prepare(&frame, &[fcnn], &hints, &settings).unwrap();
        assert_eq!(prepared[0].calibration.source, CalibrationSource::Lattice);
        assert!((prepared[0].calibration.pixel_size_pm[0] - 15.0).abs() < 0.05);
        let error = prepare(&frame, &[fcnn], &CalibrationHints::default(), &settings).unwrap_err();
        assert_eq!(error, PreprocessError::Calibration(CalibrationError::NoLatticeParameter));
        let native = PreprocessSettings { native_scale: true, ..settings };
        let prepared = prepare(&frame, &[fcnn], &CalibrationHints::default(), &native).unwrap();
        assert_eq!(
            (prepared[0].map, prepared[0].calibration.source),
            (PixelMap::IDENTITY, CalibrationSource::None)
        );
    }

    #[test]
    fn small_frames_are_refused_where_windows_are_wanted() {
        let frame = frame(crystal(60, 300), Some([15.0, 15.0]));
        let settings = PreprocessSettings::default();
        let error = prepare(&frame, &[dcnn()], &CalibrationHints::default(), &settings).unwrap_err();
        assert_eq!(error, PreprocessError::SmallerThanWindow { model: [60, 300], window_px: 80 });
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let settings = PreprocessSettings { stride_px: 3, ..PreprocessSettings::default() };
        assert_eq!(settings.validate("preprocess").unwrap_err().key, "preprocess.stride_px");
        assert!(PreprocessSettings::default().validate("preprocess").is_ok());
    }

    #[test]
    fn speed_512() {
        let settings = PreprocessSettings::default();
        for (name, pixel_size_pm, padded) in
            [("same scale", 15.0, false), ("same scale, padded border", 15.0, true), ("10 pm", 10.0, false)]
        {
            let mut pixels = crystal(512, 512);
            if padded {
                pixels.slice_axis_mut(Axis(0), (0..30).into()).fill(0.0);
            }
            let frame = frame(pixels, Some([pixel_size_pm; 2]));
            let best = (0..5)
                .map(|_| {
                    let start = std::time::Instant::now();
                    std::hint::black_box(
                        prepare(&frame, &[dcnn()], &CalibrationHints::default(), &settings).unwrap(),
                    );
                    start.elapsed()
                })
                .min();
            eprintln!("prepare 512 x 512, {name}: best of 5 {best:?}");
        }
    }
}
