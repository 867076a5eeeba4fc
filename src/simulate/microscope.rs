//! How the specimen is looked at: scan geometry, dose, and the imperfections of scan and detector.

use crate::config::InvalidSetting;
use serde::{Deserialize, Serialize};

/// Settings of a simulated scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Microscope {
    /// `[rows, cols]`, 16 to 8192 each.
    pub shape: [usize; 2],
    /// Side of a square pixel, 1 to 200 pm.
    pub pixel_size_pm: f64,
    /// Counter-clockwise as displayed.
    pub rotation_rad: f64,
    /// Centre of the field of view in the specimen frame, `[y, x]`.
    pub center_nm: [f64; 2],
    pub dwell_us: f64,
    /// Detected electrons at the peak of an A column of full intensity.
    pub peak_counts: f64,
    /// Whether counts scatter as electrons do (Poisson); without, pixels are expectations.
    pub shot_noise: bool,
    /// Standard deviation of the probe, added in quadrature to that of the columns. Peak heights are kept.
    pub probe_sigma_pm: f64,
    /// How far the specimen moves in the image during a frame, `[x, y]`, pm; it stands where the geometry says in mid-frame.
    pub drift_pm: [f64; 2],
    /// Standard deviation of each line's displacement, along x and along y.
    pub line_jitter_pm: f64,
    /// Counts in the dark, per pixel.
    pub dark_counts: f64,
    /// Shift of the A columns by specimen mistilt, `[x, y]` in the specimen frame, pm. B and O columns shift by half of it
    /// (multislice, `dcnn_polarization` figure 9), so that P appears smaller by half of it.
    pub tilt_offset_pm: [f64; 2],
    pub detector: Detector,
}

/// How counts become pixel values: `gain * counts + offset + read noise`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Detector {
    pub gain: f64,
    pub offset: f64,
    /// Standard deviation, pixel values.
    pub read_noise: f64,
    pub pixel_type: PixelType,
}

/// Element type of the pixels that leave the detector; integers are rounded and clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelType {
    U8,
    U16,
    F32,
}

impl Default for Microscope {
    fn default() -> Self {
        Self {
            shape: [512, 512],
            pixel_size_pm: 15.0,
            rotation_rad: 0.0,
            center_nm: [0.0, 0.0],
            dwell_us: 4.0,
            peak_counts: 200.0,
            shot_noise: true,
            probe_sigma_pm: 30.0,
            drift_pm: [0.0, 0.0],
            line_jitter_pm: 0.0,
            dark_counts: 0.0,
            tilt_offset_pm: [0.0, 0.0],
            detector: Detector::default(),
        }
    }
}

impl Default for Detector {
    fn default() -> Self {
        Self { gain: 1.0, offset: 0.0, read_noise: 0.0, pixel_type: PixelType::F32 }
    }
}

/// `vector` = `[x, y]` (y down) turned counter-clockwise as displayed.
pub(super) fn turned(vector: [f64; 2], angle_rad: f64) -> [f64; 2] {
    let (sin, cos) = angle_rad.sin_cos();
    [cos * vector[0] + sin * vector[1], cos * vector[1] - sin * vector[0]]
}

impl Microscope {
    /// Field of view, `[y, x]`, nm.
    pub fn fov_nm(&self) -> [f64; 2] {
        self.shape.map(|n| n as f64 * self.pixel_size_pm / 1e3)
    }

    /// The specimen position `[y, x]` in nm under pixel `(row, col)` (integer = pixel centre), in mid-frame.
    pub fn pixel_to_specimen_nm(&self, row: f64, col: f64) -> [f64; 2] {
        let nm = self.pixel_size_pm * 1e-3;
        let [center_row, center_col] = self.center_px();
        let [x, y] = turned([(col - center_col) * nm, (row - center_row) * nm], self.rotation_rad);
        [self.center_nm[0] + y, self.center_nm[1] + x]
    }

    /// The pixel `[row, col]` that images the specimen position `[y, x]` in nm, in mid-frame.
    pub fn specimen_nm_to_pixel(&self, position_nm: [f64; 2]) -> [f64; 2] {
        let px = 1e3 / self.pixel_size_pm;
        let offset = [position_nm[1] - self.center_nm[1], position_nm[0] - self.center_nm[0]];
        let [x, y] = turned(offset, -self.rotation_rad);
        let [center_row, center_col] = self.center_px();
        [center_row + y * px, center_col + x * px]
    }

    /// The centre of the field of view in pixels, `[row, col]`.
    fn center_px(&self) -> [f64; 2] {
        self.shape.map(|n| (n as f64 - 1.0) / 2.0)
    }

    /// # Errors
    /// [`InvalidSetting`] for the first value outside its range.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = |ok: bool, key: &str, value: &dyn std::fmt::Debug, expected: &str| {
            if ok {
                return Ok(());
            }
            Err(InvalidSetting::new(format!("{key_prefix}.{key}"), format!("{value:?}"), expected))
        };
        let within = |v: f64, low: f64, high: f64| (low..=high).contains(&v);
        let both = |v: &[f64; 2], limit: f64| v.iter().all(|c| c.abs() <= limit);
        let rows_cols = self.shape.iter().all(|n| (16..=8192).contains(n));
        check(rows_cols, "shape", &self.shape, "16 to 8192 rows and columns")?;
        check(within(self.pixel_size_pm, 1.0, 200.0), "pixel_size_pm", &self.pixel_size_pm, "1 to 200")?;
        check(self.rotation_rad.is_finite(), "rotation_rad", &self.rotation_rad, "a finite angle")?;
        check(both(&self.center_nm, 1e6), "center_nm", &self.center_nm, "within 1e6 nm of the origin")?;
        check(within(self.dwell_us, 0.01, 1e6), "dwell_us", &self.dwell_us, "0.01 to 1e6")?;
        check(within(self.peak_counts, 0.01, 1e9), "peak_counts", &self.peak_counts, "0.01 to 1e9")?;
        check(within(self.probe_sigma_pm, 0.0, 300.0), "probe_sigma_pm", &self.probe_sigma_pm, "0 to 300")?;
        check(both(&self.drift_pm, 1e4), "drift_pm", &self.drift_pm, "components of at most 10000")?;
        // The frame would fold over itself where the specimen runs as fast as the slow scan.
        let half_height_pm = 0.5 * self.shape[0] as f64 * self.pixel_size_pm;
        check(both(&self.drift_pm, half_height_pm), "drift_pm", &self.drift_pm, "less than half a frame")?;
        check(within(self.line_jitter_pm, 0.0, 200.0), "line_jitter_pm", &self.line_jitter_pm, "0 to 200")?;
        check(within(self.dark_counts, 0.0, 1e9), "dark_counts", &self.dark_counts, "0 to 1e9")?;
        check(both(&self.tilt_offset_pm, 200.0), "tilt_offset_pm", &self.tilt_offset_pm, "at most 200")?;
        let Detector { gain, offset, read_noise, .. } = self.detector;
        check(gain > 0.0 && gain.is_finite(), "detector.gain", &gain, "above 0")?;
        check(offset.is_finite(), "detector.offset", &offset, "a finite value")?;
        check(within(read_noise, 0.0, 1e6), "detector.read_noise", &read_noise, "0 to 1e6")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::FRAC_PI_2;

    #[test]
    fn the_field_of_view_maps_onto_the_specimen() {
        let mut scan = Microscope {
            shape: [101, 201],
            pixel_size_pm: 20.0,
            center_nm: [7.0, -3.0],
            ..Microscope::default()
        };
        assert_eq!(scan.fov_nm(), [2.02, 4.02]);
        assert_eq!(scan.pixel_to_specimen_nm(50.0, 100.0), [7.0, -3.0]);
        let [y, x] = scan.pixel_to_specimen_nm(60.0, 150.0);
        assert!((y - 7.2).abs() < 1e-12 && (x + 2.0).abs() < 1e-12);

        // Turned counter-clockwise by 90°, the image's right is the specimen's up, the image's down its right.
        scan.rotation_rad = FRAC_PI_2;
        let [y, x] = scan.pixel_to_specimen_nm(50.0, 150.0);
        assert!((y - 6.0).abs() < 1e-12 && (x + 3.0).abs() < 1e-12, "{y} {x}");
        let [y, x] = scan.pixel_to_specimen_nm(60.0, 100.0);
        assert!((y - 7.0).abs() < 1e-12 && (x + 2.8).abs() < 1e-12, "{y} {x}");
    }

    #[test]
    fn the_two_mappings_are_inverse() {
        let scan = Microscope { rotation_rad: 0.7, center_nm: [31.0, -12.5], ..Microscope::default() };
        let [y, x] = scan.pixel_to_specimen_nm(12.25, 499.5);
        let [row, col] = scan.specimen_nm_to_pixel([y, x]);
        assert!((row - 12.25).abs() < 1e-9 && (col - 499.5).abs() < 1e-9);
    }

    #[test]
    fn refusals_name_the_setting() {
        let refused = Microscope { pixel_size_pm: f64::NAN, ..Microscope::default() };
        assert_eq!(refused.validate("scene.microscope").unwrap_err().key, "scene.microscope.pixel_size_pm");
        assert!(Microscope::default().validate("microscope").is_ok());
    }
}
