//! Faults of scan, probe and detector for random scenes, each with a probability of its own.

use super::microscope::{
    Afterglow, Detector, Distortions, Flagging, Flicker, Flyback, Hum, Jumps, LostLines, Microscope,
    PixelType, Tilt,
};
use super::random::uniform;
use super::specimen::Specimen;
use crate::config::InvalidSetting;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// What goes wrong in random scenes, beside the jitter, drift and smoothing of
/// [`TrainingRanges`](super::TrainingRanges). Each kind strikes a frame with `probability`, whatever the others do, and is then
/// drawn from its range `[low, high]`, uniform where nothing else is said.
///
/// The defaults are those of a good microscope on a usual day. What is drawn follows from the scene's seed alone, so that a
/// probability does not change anything else in a scene. Displaced lines are not in the positions of the truth:
/// [`ScanField::imaged_px`](super::ScanField::imaged_px) has what a frame shows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    pub probability: f64,
    /// Height of a pixel over its width.
    pub pixel_aspect: [f64; 2],
    /// Over or under focus, at 30 mrad.
    pub defocus_nm: [f64; 2],
    /// Tilt of the crystal off its zone axis; its direction is random.
    pub tilt_mrad: [f64; 2],
    /// By how much the tilt changes from the middle of the frame to a corner.
    pub bend_mrad: [f64; 2],
    /// Each component.
    pub drift_curve_pm: [f64; 2],
    pub flagging_pm: [f64; 2],
    pub flagging_lines: [f64; 2],
    /// Amplitude of a field of 50 or 60 Hz; its direction is random.
    pub hum_pm: [f64; 2],
    pub flyback_pm: [f64; 2],
    /// One jump in a frame or two, of this standard deviation.
    pub jump_pm: [f64; 2],
    /// Fraction of the lines that are lost.
    pub lost_lines: [f64; 2],
    /// Of the probe's current, from line to line and slowly.
    pub flicker_rms: [f64; 2],
    pub afterglow_fraction: [f64; 2],
    /// Where the detector saturates, above the specimen's background and the dark counts, over the counts at the peak of an A column.
    pub full_well: [f64; 2],
    /// Dark counts, and standard deviation of the read noise, over the signal at the peak of an A column.
    pub dark: [f64; 2],
    pub read_noise: [f64; 2],
    /// Probabilities that pixels are 8 or 16 bits wide, and not floating-point numbers; together at most 1.
    pub u8_probability: f64,
    pub u16_probability: f64,
    /// Pixel values that the peak of an A column has above the offset then; uniform in the logarithm.
    pub u8_levels: [f64; 2],
    pub u16_levels: [f64; 2],
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            probability: 0.25,
            pixel_aspect: [0.98, 1.02],
            defocus_nm: [-3.0, 3.0],
            tilt_mrad: [0.0, 12.0],
            bend_mrad: [0.0, 6.0],
            drift_curve_pm: [-20.0, 20.0],
            flagging_pm: [1.0, 8.0],
            flagging_lines: [5.0, 60.0],
            hum_pm: [1.0, 8.0],
            flyback_pm: [5.0, 50.0],
            jump_pm: [3.0, 15.0],
            lost_lines: [0.001, 0.01],
            flicker_rms: [0.003, 0.03],
            afterglow_fraction: [0.02, 0.2],
            full_well: [0.8, 1.6],
            dark: [0.0, 0.1],
            read_noise: [0.002, 0.05],
            u8_probability: 0.25,
            u16_probability: 0.25,
            u8_levels: [40.0, 180.0],
            u16_levels: [100.0, 20_000.0],
        }
    }
}

impl Faults {
    /// None at all.
    pub fn none() -> Self {
        Self { probability: 0.0, u8_probability: 0.0, u16_probability: 0.0, ..Self::default() }
    }

    /// The ranges with their names and limits.
    pub(super) fn limits(&self) -> [(&'static str, [f64; 2], [f64; 2]); 22] {
        let both = self.u8_probability + self.u16_probability;
        [
            ("probability", [0.0, self.probability], [0.0, 1.0]),
            ("pixel_aspect", self.pixel_aspect, [0.5, 2.0]),
            ("defocus_nm", self.defocus_nm, [-15.0, 15.0]),
            ("tilt_mrad", self.tilt_mrad, [0.0, 40.0]),
            ("bend_mrad", self.bend_mrad, [0.0, 40.0]),
            ("drift_curve_pm", self.drift_curve_pm, [-2000.0, 2000.0]),
            ("flagging_pm", self.flagging_pm, [0.0, 500.0]),
            ("flagging_lines", self.flagging_lines, [0.1, 1e6]),
            ("hum_pm", self.hum_pm, [0.0, 100.0]),
            ("flyback_pm", self.flyback_pm, [0.0, 2000.0]),
            ("jump_pm", self.jump_pm, [0.0, 500.0]),
            ("lost_lines", self.lost_lines, [0.0, 1.0]),
            ("flicker_rms", self.flicker_rms, [0.0, 0.5]),
            ("afterglow_fraction", self.afterglow_fraction, [0.0, 0.9]),
            ("full_well", self.full_well, [0.01, 1e6]),
            ("dark", self.dark, [0.0, 10.0]),
            ("read_noise", self.read_noise, [0.0, 10.0]),
            ("u8_probability", [0.0, self.u8_probability], [0.0, 1.0]),
            ("u16_probability", [0.0, self.u16_probability], [0.0, 1.0]),
            ("u16_probability", [self.u16_probability, both], [0.0, 1.0]),
            ("u8_levels", self.u8_levels, [1.0, 255.0]),
            ("u16_levels", self.u16_levels, [1.0, 65535.0]),
        ]
    }

    /// # Errors
    /// [`InvalidSetting`] for the first range that is reversed or reaches too far.
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = super::check::Check(key_prefix);
        self.limits().into_iter().try_for_each(|(key, range, limits)| check.range(key, range, limits))
    }

    /// Lets happen to a scan of a specimen what the specimen's seed draws.
    pub(super) fn add_to(&self, microscope: &mut Microscope, specimen: &Specimen) {
        let mut rng = ChaCha8Rng::seed_from_u64(specimen.seed);
        rng.set_stream(2);
        let mut draw = Draw { rng, probability: self.probability };
        draw.probe(self, microscope);
        microscope.distortions = draw.distortions(self, microscope);
        draw.counts(self, microscope, specimen.background.level);
        draw.pixels(self, microscope);
    }
}

struct Draw {
    rng: ChaCha8Rng,
    probability: f64,
}

impl Draw {
    /// A draw from the range where this fault strikes.
    fn struck(&mut self, range: [f64; 2]) -> Option<f64> {
        self.rng.random_bool(self.probability).then(|| uniform(range, &mut self.rng))
    }

    fn within(&mut self, range: [f64; 2]) -> f64 {
        uniform(range, &mut self.rng)
    }

    fn log_within(&mut self, range: [f64; 2]) -> f64 {
        self.within(range.map(f64::ln)).exp()
    }

    /// A vector of this length in any direction.
    fn vector(&mut self, length: f64) -> [f64; 2] {
        let direction = self.within([0.0, TAU]);
        [length * direction.cos(), length * direction.sin()]
    }

    fn probe(&mut self, faults: &Faults, microscope: &mut Microscope) {
        microscope.pixel_aspect = self.struck(faults.pixel_aspect).unwrap_or(1.0);
        microscope.defocus_nm = self.struck(faults.defocus_nm).unwrap_or(0.0);
        let tilt = self.struck(faults.tilt_mrad).unwrap_or(0.0);
        let mrad = self.vector(tilt);
        let bend = self.struck(faults.bend_mrad).unwrap_or(0.0);
        let [height, width] = microscope.fov_nm();
        // A cylinder: the tilt turns along the direction in which it changes.
        let [x, y] = self.vector(1.0);
        let per_nm = bend / (0.5 * height.hypot(width));
        microscope.tilt = Tilt {
            mrad,
            gradient_x_mrad_per_nm: [per_nm * x * x, per_nm * x * y],
            gradient_y_mrad_per_nm: [per_nm * x * y, per_nm * y * y],
            ..Tilt::default()
        };
    }

    fn distortions(&mut self, faults: &Faults, microscope: &Microscope) -> Distortions {
        let (rows, line_us) = (microscope.shape[0] as f64, microscope.line_us());
        let curve = self.struck(faults.drift_curve_pm).map(|x| [x, self.within(faults.drift_curve_pm)]);
        let flagging = self
            .struck(faults.flagging_pm)
            .map(|rms_pm| Flagging { rms_pm, lines: self.within(faults.flagging_lines) });
        let hum = self.struck(faults.hum_pm).map(|amplitude| Hum {
            amplitude_pm: self.vector(amplitude),
            hz: if self.rng.random() { 50.0 } else { 60.0 },
            phase_rad: None,
        });
        let flyback = self
            .struck(faults.flyback_pm)
            .map(|offset_pm| Flyback { offset_pm, settling_us: line_us * self.within([0.02, 0.15]) });
        let jumps = self.struck(faults.jump_pm).map(|rms_pm| Jumps { probability: 0.7 / rows, rms_pm });
        let lost = self
            .struck(faults.lost_lines)
            .map(|probability| LostLines { probability, ..LostLines::default() });
        let flicker = self.struck(faults.flicker_rms).map(|rms| Flicker {
            line_rms: rms * self.within([0.0, 1.0]),
            slow_rms: rms * self.within([0.0, 1.0]),
            slow_lines: rows * self.within([0.1, 1.0]),
        });
        Distortions {
            drift_curve_pm: curve.unwrap_or_default(),
            flagging: flagging.unwrap_or_default(),
            hum: hum.unwrap_or_default(),
            flyback: flyback.unwrap_or_default(),
            jumps: jumps.unwrap_or_default(),
            lost_lines: lost.unwrap_or_default(),
            flicker: flicker.unwrap_or_default(),
        }
    }

    /// `background` in units of the height of an A column.
    fn counts(&mut self, faults: &Faults, microscope: &mut Microscope, background: f64) {
        let (peak, dwell_us) = (microscope.peak_counts, microscope.dwell_us);
        microscope.dark_counts = peak * self.struck(faults.dark).unwrap_or(0.0);
        let afterglow = self
            .struck(faults.afterglow_fraction)
            .map(|fraction| Afterglow { fraction, decay_us: dwell_us * self.within([0.3, 3.0]) });
        // A detector that saturates on what lies between the columns as well shows nothing.
        let between = background * peak + microscope.dark_counts;
        let full_well = self.struck(faults.full_well).map(|over_peak| over_peak * peak + between);
        let read_noise = peak * self.struck(faults.read_noise).unwrap_or(0.0);
        microscope.detector = Detector {
            read_noise,
            full_well_counts: full_well,
            afterglow: afterglow.unwrap_or_default(),
            ..microscope.detector
        };
    }

    /// The detector's element type, with a gain that makes use of it.
    fn pixels(&mut self, faults: &Faults, microscope: &mut Microscope) {
        let drawn: f64 = self.rng.random();
        let [u8_levels, u16_levels] = [faults.u8_levels, faults.u16_levels].map(|l| self.log_within(l));
        let (pixel_type, levels) = if drawn < faults.u8_probability {
            (PixelType::U8, u8_levels)
        } else if drawn < faults.u8_probability + faults.u16_probability {
            (PixelType::U16, u16_levels)
        } else {
            return;
        };
        let gain = levels / microscope.peak_counts;
        let read_noise = gain * microscope.detector.read_noise;
        // What keeps the noise of the darkest pixels above 0.
        let offset = 4.0 * read_noise + levels * self.within([0.0, 0.1]);
        microscope.detector = Detector { gain, offset, read_noise, pixel_type, ..microscope.detector };
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TrainingRanges, random_scene, render};
    use super::*;

    fn scenes(faults: Faults, count: u64) -> Vec<Microscope> {
        let ranges = TrainingRanges { faults, ..TrainingRanges::default() };
        ranges.validate("scenes").unwrap();
        let drawn = (0..count).map(|seed| {
            let (_, microscope) = random_scene(&ranges, [96, 96], &mut ChaCha8Rng::seed_from_u64(seed));
            microscope.validate("microscope").unwrap();
            microscope
        });
        drawn.collect()
    }

    #[test]
    fn faults_that_are_not_asked_for_change_nothing() {
        let plain = TrainingRanges { faults: Faults::none(), ..TrainingRanges::default() };
        let faulty = TrainingRanges {
            faults: Faults { probability: 1.0, ..Faults::default() },
            ..TrainingRanges::default()
        };
        for seed in 0..5 {
            let [plain, faulty] = [&plain, &faulty].map(|ranges| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let scene = random_scene(ranges, [96, 96], &mut rng);
                (scene, rng.random::<u64>())
            });
            let ((specimen, scan), next) = plain;
            let ((same_specimen, other_scan), same_next) = faulty;
            assert_eq!((specimen, next), (same_specimen, same_next));
            assert_ne!(other_scan, scan);
            // The scan without its faults is that which none has struck.
            let mended = Microscope {
                pixel_aspect: 1.0,
                defocus_nm: 0.0,
                tilt: Tilt::default(),
                distortions: Distortions::default(),
                dark_counts: 0.0,
                detector: Detector { smoothing_px: other_scan.detector.smoothing_px, ..Detector::default() },
                ..other_scan
            };
            assert_eq!(mended, scan);
        }
    }

    #[test]
    fn a_detector_that_saturates_still_shows_the_columns() {
        let faults =
            Faults { probability: 1.0, full_well: [0.8, 0.8], dark: [0.1, 0.1], ..Faults::default() };
        let ranges = TrainingRanges { faults, background: [0.4, 0.4], ..TrainingRanges::default() };
        let share = |seed: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (specimen, microscope) = random_scene(&ranges, [96, 96], &mut rng);
            let pixels = render(&specimen, &microscope, &mut rng).unwrap().pixels;
            let largest = pixels.iter().copied().fold(f32::MIN, f32::max);
            pixels.iter().filter(|&&value| value == largest).count() as f64 / pixels.len() as f64
        };
        let shares: Vec<f64> = (0..40).map(share).collect();
        assert!(shares.iter().all(|share| *share < 0.98), "{shares:?}");
    }

    #[test]
    fn each_fault_strikes_as_often_as_asked_and_within_its_range() {
        let faults = Faults { probability: 0.5, ..Faults::default() };
        let scopes = scenes(faults, 400);
        type Strikes<'a> = (&'a str, &'a dyn Fn(&Microscope) -> bool);
        let struck: [Strikes<'_>; 13] = [
            ("aspect", &|m| m.pixel_aspect != 1.0),
            ("defocus", &|m| m.defocus_nm != 0.0),
            ("tilt", &|m| m.tilt.mrad != [0.0, 0.0]),
            ("bend", &|m| m.tilt.gradient_x_mrad_per_nm != [0.0, 0.0]),
            ("curve", &|m| m.distortions.drift_curve_pm != [0.0, 0.0]),
            ("flagging", &|m| m.distortions.flagging.rms_pm > 0.0),
            ("hum", &|m| m.distortions.hum.amplitude_pm != [0.0, 0.0]),
            ("flyback", &|m| m.distortions.flyback.offset_pm > 0.0),
            ("jumps", &|m| m.distortions.jumps.probability > 0.0),
            ("flicker", &|m| m.distortions.flicker.line_rms > 0.0),
            ("afterglow", &|m| m.detector.afterglow.fraction > 0.0),
            ("well", &|m| m.detector.full_well_counts.is_some()),
            ("read noise", &|m| m.detector.read_noise > 0.0),
        ];
        for (name, strikes) in struck {
            let count = scopes.iter().filter(|m| strikes(m)).count();
            // 200 of 400, standard deviation 10.
            assert!((150..=250).contains(&count), "{name}: {count} of 400");
        }
        // In a quarter each, standard deviation 9.
        for pixel_type in [PixelType::U8, PixelType::U16] {
            let count = scopes.iter().filter(|m| m.detector.pixel_type == pixel_type).count();
            assert!((60..=140).contains(&count), "{pixel_type:?}: {count} of 400");
        }
        for scope in &scopes {
            let [x, y] = scope.tilt.mrad;
            assert!(x.hypot(y) <= 12.0 + 1e-9);
            let [hum_x, hum_y] = scope.distortions.hum.amplitude_pm;
            assert!(hum_x.hypot(hum_y) <= 8.0 + 1e-9);
            let peak = scope.detector.gain * scope.peak_counts;
            let Detector { pixel_type, read_noise, offset, .. } = scope.detector;
            assert!(read_noise <= 0.05 * peak * (1.0 + 1e-9));
            let fits = match pixel_type {
                PixelType::U8 => peak <= 180.0 + 1e-9,
                PixelType::U16 => peak <= 20_000.0 + 1e-6,
                PixelType::F32 => scope.detector.gain == 1.0 && offset == 0.0,
            };
            assert!(fits, "{pixel_type:?}: {peak}");
        }
    }

    #[test]
    fn frames_with_every_fault_are_whole_numbers_where_pixels_are_integers() {
        let ranges = TrainingRanges {
            faults: Faults {
                probability: 1.0,
                u8_probability: 0.5,
                u16_probability: 0.5,
                ..Faults::default()
            },
            ..TrainingRanges::default()
        };
        let mut seen = [0, 0];
        for seed in 0..12 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (specimen, microscope) = random_scene(&ranges, [96, 96], &mut rng);
            let frame = render(&specimen, &microscope, &mut rng).unwrap();
            let (n, most) = match microscope.detector.pixel_type {
                PixelType::U8 => (0, 255.0),
                _ => (1, 65535.0),
            };
            seen[n] += 1;
            assert!(frame.pixels.iter().all(|v| v.fract() == 0.0 && (0.0..=most).contains(v)));
            assert!(frame.truth.saturated.is_some() && !frame.truth.scan.current.is_empty());
        }
        assert!(seen[0] > 0 && seen[1] > 0);
    }

    #[test]
    fn ranges_out_of_limits_are_refused_by_name() {
        let key = |faults: Faults| {
            let ranges = TrainingRanges { faults, ..TrainingRanges::default() };
            ranges.validate("scenes").unwrap_err().key
        };
        let good = Faults::default;
        assert_eq!(key(Faults { hum_pm: [8.0, 1.0], ..good() }), "scenes.faults.hum_pm");
        assert_eq!(key(Faults { probability: 1.5, ..good() }), "scenes.faults.probability");
        assert_eq!(key(Faults { u16_probability: 0.9, ..good() }), "scenes.faults.u16_probability");
        assert_eq!(key(Faults { tilt_mrad: [0.0, f64::NAN], ..good() }), "scenes.faults.tilt_mrad");
    }
}
