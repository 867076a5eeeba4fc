//! How the specimen is looked at: scan geometry, dose, and the imperfections of probe, scan and detector.
//!
//! Everything here is settings, checked and documented; what they do to a frame is in [`scan_field`](super::scan_field),
//! [`canvas`](super::canvas) and [`detector`](super::detector).

mod detector;
mod distortions;
mod geometry;
mod probe;
mod tilt;

pub use detector::{Afterglow, Detector, PixelType};
pub use distortions::{Distortions, Flagging, Flicker, Flyback, Hum, Jumps, LostAs, LostLines};
pub use geometry::SubScan;
pub(super) use geometry::turned;
pub(super) use probe::Covariance;
pub use tilt::Tilt;

use crate::config::InvalidSetting;
use serde::{Deserialize, Serialize};

/// Settings of a simulated scan.
///
/// The imperfections are off by default, except the Poisson noise of the counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Microscope {
    /// `[rows, cols]` of the full scan, 16 to 8192 each.
    pub shape: [usize; 2],
    /// Width of a pixel, 1 to 200 pm.
    pub pixel_size_pm: f64,
    /// Height of a pixel over its width, 0.25 to 4; 1 = square.
    pub pixel_aspect: f64,
    /// Counter-clockwise as displayed.
    pub rotation_rad: f64,
    /// Centre of the field of view in the specimen frame, `[y, x]`.
    pub center_nm: [f64; 2],
    /// The part of the full scan that is recorded; without, all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_scan: Option<SubScan>,
    pub dwell_us: f64,
    /// From the end of a line to the beginning of the next, for the beam to fly back.
    pub line_overhead_us: f64,
    /// Detected electrons at the peak of an A column of full intensity.
    pub peak_counts: f64,
    /// Whether counts scatter as electrons do (Poisson); without, pixels are expectations.
    pub shot_noise: bool,
    /// Standard deviation of the probe, added in quadrature to that of the columns. Peak heights are kept.
    pub probe_sigma_pm: f64,
    /// Standard deviation that astigmatism adds in quadrature along one direction of the image.
    pub astigmatism_pm: f64,
    /// That direction, counter-clockwise from the image's x axis as displayed.
    pub astigmatism_rad: f64,
    /// How far the probe's focus lies from the specimen. In geometrical optics a point becomes a disc of radius
    /// `|defocus| · convergence`, which has half of that as its standard deviation along any axis: it adds in quadrature to the
    /// columns' width. The electrons are the same as before, so that peaks fall.
    pub defocus_nm: f64,
    /// Half the opening angle of the probe, mrad.
    pub convergence_mrad: f64,
    /// How far the specimen moves in the image during a frame, `[x, y]`, pm; it stands where the geometry says in mid-frame.
    pub drift_pm: [f64; 2],
    /// Standard deviation of each line's displacement, along x and along y.
    pub line_jitter_pm: f64,
    /// Counts in the dark, per pixel.
    pub dark_counts: f64,
    /// Shift of the A columns by specimen mistilt, `[x, y]` in the specimen frame, pm. B and O columns shift by half of it
    /// (multislice, `dcnn_polarization` figure 9), so that P appears smaller by half of it. Nothing else follows from it; the
    /// tilt itself, in mrad and with all that it does, is [`Microscope::tilt`].
    pub tilt_offset_pm: [f64; 2],
    pub tilt: Tilt,
    pub distortions: Distortions,
    pub detector: Detector,
}

impl Default for Microscope {
    fn default() -> Self {
        Self {
            shape: [512, 512],
            pixel_size_pm: 15.0,
            pixel_aspect: 1.0,
            rotation_rad: 0.0,
            center_nm: [0.0, 0.0],
            sub_scan: None,
            dwell_us: 4.0,
            line_overhead_us: 0.0,
            peak_counts: 200.0,
            shot_noise: true,
            probe_sigma_pm: 30.0,
            astigmatism_pm: 0.0,
            astigmatism_rad: 0.0,
            defocus_nm: 0.0,
            convergence_mrad: 30.0,
            drift_pm: [0.0, 0.0],
            line_jitter_pm: 0.0,
            dark_counts: 0.0,
            tilt_offset_pm: [0.0, 0.0],
            tilt: Tilt::default(),
            distortions: Distortions::default(),
            detector: Detector::default(),
        }
    }
}

/// Refuses values by the name of their setting.
pub(super) struct Check<'a> {
    pub key_prefix: &'a str,
}

impl Check<'_> {
    pub fn that(
        &self,
        ok: bool,
        key: &str,
        value: &dyn std::fmt::Debug,
        expected: &str,
    ) -> Result<(), InvalidSetting> {
        if ok {
            return Ok(());
        }
        Err(InvalidSetting::new(format!("{}.{key}", self.key_prefix), format!("{value:?}"), expected))
    }

    /// `value` in `low..=high`; NaN is not.
    pub fn within(&self, value: f64, [low, high]: [f64; 2], key: &str) -> Result<(), InvalidSetting> {
        self.that((low..=high).contains(&value), key, &value, &format!("{low} to {high}"))
    }

    /// Both components of at most `limit`.
    pub fn both(&self, value: [f64; 2], limit: f64, key: &str) -> Result<(), InvalidSetting> {
        let ok = value.iter().all(|c| c.abs() <= limit);
        self.that(ok, key, &value, &format!("components of at most {limit}"))
    }
}

impl Microscope {
    /// Time from the beginning of a line to that of the next.
    pub fn line_us(&self) -> f64 {
        self.scanned().shape[1] as f64 * self.dwell_us + self.line_overhead_us
    }

    /// Beam time of a frame.
    pub fn frame_s(&self) -> f64 {
        self.scanned().shape[0] as f64 * self.line_us() * 1e-6
    }

    /// # Errors
    /// [`InvalidSetting`] for the first value outside its range.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check { key_prefix };
        let rows_cols = |shape: [usize; 2]| shape.iter().all(|n| (16..=8192).contains(n));
        check.that(rows_cols(self.shape), "shape", &self.shape, "16 to 8192 rows and columns")?;
        check.within(self.pixel_size_pm, [1.0, 200.0], "pixel_size_pm")?;
        check.within(self.pixel_aspect, [0.25, 4.0], "pixel_aspect")?;
        check.that(self.rotation_rad.is_finite(), "rotation_rad", &self.rotation_rad, "a finite angle")?;
        check.both(self.center_nm, 1e6, "center_nm")?;
        if let Some(sub_scan) = &self.sub_scan {
            sub_scan.validate(&format!("{key_prefix}.sub_scan"))?;
            let part = self.scanned();
            check.that(
                rows_cols(part.shape),
                "sub_scan.shape",
                &part.shape,
                "16 to 8192 rows and columns",
            )?;
            check.within(part.pixel_size_pm, [0.1, 200.0], "sub_scan.shape (pixel size in pm)")?;
            check.within(part.pixel_aspect, [0.25, 4.0], "sub_scan.shape (pixel aspect)")?;
        }
        check.within(self.dwell_us, [0.01, 1e6], "dwell_us")?;
        check.within(self.line_overhead_us, [0.0, 1e6], "line_overhead_us")?;
        check.within(self.peak_counts, [0.01, 1e9], "peak_counts")?;
        check.within(self.probe_sigma_pm, [0.0, 300.0], "probe_sigma_pm")?;
        check.within(self.astigmatism_pm, [0.0, 300.0], "astigmatism_pm")?;
        let astigmatism = self.astigmatism_rad;
        check.that(astigmatism.is_finite(), "astigmatism_rad", &astigmatism, "a finite angle")?;
        check.within(self.convergence_mrad, [0.1, 100.0], "convergence_mrad")?;
        check.within(self.defocus_nm, [-1e3, 1e3], "defocus_nm")?;
        let blur_pm = self.defocus_sigma_pm();
        check.that(blur_pm <= 300.0, "defocus_nm", &self.defocus_nm, "a blur of at most 300 pm")?;
        check.both(self.drift_pm, 1e4, "drift_pm")?;
        // The frame would fold over itself where the specimen runs as fast as the slow scan.
        let half_height_pm = 0.5e3 * self.scanned().fov_nm()[0];
        let folds = self.drift_pm.iter().any(|d| d.abs() > half_height_pm);
        check.that(!folds, "drift_pm", &self.drift_pm, "less than half a frame")?;
        check.within(self.line_jitter_pm, [0.0, 200.0], "line_jitter_pm")?;
        check.within(self.dark_counts, [0.0, 1e9], "dark_counts")?;
        check.both(self.tilt_offset_pm, 200.0, "tilt_offset_pm")?;
        self.tilt.validate(&format!("{key_prefix}.tilt"))?;
        self.distortions.validate(&format!("{key_prefix}.distortions"), self.line_us())?;
        self.detector.validate(&format!("{key_prefix}.detector"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_setting() {
        let refused = |microscope: Microscope| microscope.validate("scene.microscope").unwrap_err().key;
        let good = Microscope::default;
        let key = |microscope| refused(microscope).strip_prefix("scene.microscope.").unwrap().to_owned();
        assert_eq!(key(Microscope { pixel_size_pm: f64::NAN, ..good() }), "pixel_size_pm");
        assert_eq!(key(Microscope { pixel_aspect: 5.0, ..good() }), "pixel_aspect");
        assert_eq!(key(Microscope { line_overhead_us: -1.0, ..good() }), "line_overhead_us");
        // 30 nm at 30 mrad blur by a disc of 900 pm.
        assert_eq!(key(Microscope { defocus_nm: 30.0, ..good() }), "defocus_nm");
        assert_eq!(key(Microscope { drift_pm: [0.0, 4000.0], ..good() }), "drift_pm");
        let tilt = Tilt { mrad: [50.0, 0.0], ..Tilt::default() };
        assert_eq!(key(Microscope { tilt, ..good() }), "tilt.mrad");
        let flagging = Flagging { rms_pm: 5.0, lines: 0.0 };
        let distortions = Distortions { flagging, ..Distortions::default() };
        assert_eq!(key(Microscope { distortions, ..good() }), "distortions.flagging.lines");
        let detector = Detector { full_well_counts: Some(0.0), ..Detector::default() };
        assert_eq!(key(Microscope { detector, ..good() }), "detector.full_well_counts");
        let sub_scan = Some(SubScan { fractional_size: [0.0, 0.5], ..SubScan::default() });
        assert_eq!(key(Microscope { sub_scan, ..good() }), "sub_scan.fractional_size");
        let sub_scan = Some(SubScan { fractional_size: [0.01, 0.5], ..SubScan::default() });
        assert_eq!(key(Microscope { sub_scan, ..good() }), "sub_scan.shape");
        assert!(good().validate("microscope").is_ok());
    }

    #[test]
    fn times_add_up_over_lines_with_their_flyback() {
        let mut scan =
            Microscope { shape: [100, 200], dwell_us: 2.0, line_overhead_us: 100.0, ..Microscope::default() };
        assert_eq!(scan.line_us(), 500.0);
        assert!((scan.frame_s() - 0.05).abs() < 1e-15);
        scan.sub_scan = Some(SubScan { fractional_size: [0.5, 0.25], ..SubScan::default() });
        assert_eq!(scan.line_us(), 200.0);
        assert!((scan.frame_s() - 0.01).abs() < 1e-15);
    }
}
