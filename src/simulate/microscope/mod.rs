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

use super::check::Check;
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
        let check = Check(key_prefix);
        let rows_cols = |shape: [usize; 2]| shape.iter().all(|n| (16..=8192).contains(n));
        check.that(rows_cols(self.shape), "shape", &self.shape, "16 to 8192 rows and columns")?;
        check.within("pixel_size_pm", self.pixel_size_pm, [1.0, 200.0])?;
        check.within("pixel_aspect", self.pixel_aspect, [0.25, 4.0])?;
        check.angle("rotation_rad", self.rotation_rad)?;
        check.both("center_nm", self.center_nm, 1e6)?;
        if let Some(sub_scan) = &self.sub_scan {
            sub_scan.validate(&format!("{key_prefix}.sub_scan"))?;
            let part = self.scanned();
            check.that(
                rows_cols(part.shape),
                "sub_scan.shape",
                &part.shape,
                "16 to 8192 rows and columns",
            )?;
            let fine = (0.1..=200.0).contains(&part.pixel_size_pm);
            check.that(fine, "sub_scan.shape", &part.shape, "pixels that are 0.1 to 200 pm wide")?;
            let square = (0.25..=4.0).contains(&part.pixel_aspect);
            check.that(square, "sub_scan.shape", &part.shape, "pixels of an aspect of 0.25 to 4")?;
        }
        check.within("dwell_us", self.dwell_us, [0.01, 1e6])?;
        check.within("line_overhead_us", self.line_overhead_us, [0.0, 1e6])?;
        check.within("peak_counts", self.peak_counts, [0.01, 1e9])?;
        check.within("probe_sigma_pm", self.probe_sigma_pm, [0.0, 300.0])?;
        check.within("astigmatism_pm", self.astigmatism_pm, [0.0, 300.0])?;
        check.angle("astigmatism_rad", self.astigmatism_rad)?;
        check.within("convergence_mrad", self.convergence_mrad, [0.1, 100.0])?;
        check.within("defocus_nm", self.defocus_nm, [-1e3, 1e3])?;
        let blur_pm = self.defocus_sigma_pm();
        check.that(blur_pm <= 300.0, "defocus_nm", &self.defocus_nm, "a blur of at most 300 pm")?;
        check.both("drift_pm", self.drift_pm, 1e4)?;
        // The frame would fold over itself where the specimen runs as fast as the slow scan.
        let half_height_pm = 0.5e3 * self.scanned().fov_nm()[0];
        let folds = self.drift_pm.iter().any(|d| d.abs() > half_height_pm);
        check.that(!folds, "drift_pm", &self.drift_pm, "less than half a frame")?;
        check.within("line_jitter_pm", self.line_jitter_pm, [0.0, 200.0])?;
        check.within("dark_counts", self.dark_counts, [0.0, 1e9])?;
        check.both("tilt_offset_pm", self.tilt_offset_pm, 200.0)?;
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

    /// Every key of `all` that `some` lacks.
    fn missing(all: &toml::Table, some: &toml::Table, path: &str, found: &mut Vec<String>) {
        for (key, value) in all {
            match (value, some.get(key)) {
                (toml::Value::Table(all), Some(toml::Value::Table(some))) => {
                    missing(all, some, &format!("{path}{key}."), found);
                }
                (_, None) => found.push(format!("{path}{key}")),
                _ => {}
            }
        }
    }

    #[test]
    fn the_scene_of_all_faults_has_every_setting_and_turns_it_on() {
        let text = include_str!("../../../configs/scenes/faults.toml");
        let file: toml::Table = toml::from_str(text).unwrap();
        let table = file["microscope"].as_table().unwrap().clone();
        let microscope: Microscope = table.clone().try_into().unwrap();
        microscope.validate("microscope").unwrap();
        assert_eq!(microscope.scanned().shape, [512, 512]);
        let mut absent = Vec::new();
        missing(&toml::Table::try_from(Microscope::default()).unwrap(), &table, "", &mut absent);
        // It has the tilt itself.
        assert_eq!(absent, ["tilt_offset_pm"]);
        let (on, off) = (microscope.distortions, Distortions::default());
        assert!(on.flagging.rms_pm > 0.0 && on.hum.amplitude_pm != off.hum.amplitude_pm);
        assert!(on.flyback.offset_pm > 0.0 && on.jumps.probability > 0.0 && on.lost_lines.probability > 0.0);
        assert!(on.flicker.line_rms > 0.0 && on.flicker.slow_rms > 0.0 && on.drift_curve_pm != [0.0, 0.0]);
        assert!(
            microscope.detector.afterglow.fraction > 0.0 && microscope.detector.full_well_counts.is_some()
        );
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
