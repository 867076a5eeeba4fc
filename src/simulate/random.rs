//! Scenes to train networks on: everything that varies from microscope to microscope and from crystal to crystal, drawn at random.

use super::check::Check;
use super::faults::Faults;
use super::microscope::{Detector, Microscope};
use super::polarization::{DomainWalls, Polarization};
use super::rarities::Rarities;
use super::specimen::{Background, Columns, Specimen, Tails, Thickness};
use crate::config::InvalidSetting;
use crate::material::ColumnShape;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_PI_2, TAU};

/// What [`random_scene`] draws from; `[low, high]`, uniform where nothing else is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingRanges {
    /// Pixel size of the frames, pm. The default is a model's 15 pm with the error of a resampled calibration.
    pub pixel_size_pm: [f64; 2],
    /// Geometric mean of the cell's edges.
    pub cell_pm: [f64; 2],
    /// a over b.
    pub aspect: [f64; 2],
    /// Deviation of the cell's angle from 90°, rad.
    pub shear_rad: [f64; 2],
    /// Direction of the lattice, rad.
    pub rotation_rad: [f64; 2],
    /// Magnitude of P, drawn for each domain; its direction is random.
    pub polarization_pm: [f64; 2],
    /// Number of domains in the field of view, both included.
    pub domains: [u32; 2],
    pub wall_width_nm: [f64; 2],
    /// Probability of a vortex in place of domains.
    pub vortex_probability: f64,
    /// Probability of P that changes steadily over the frame, from one value to another, in place of domains.
    pub gradient_probability: f64,
    pub static_displacement_pm: [f64; 2],
    /// Peak height of the B columns, A = 1.
    pub b_intensity: [f64; 2],
    pub a_sigma_pm: [f64; 2],
    pub b_sigma_pm: [f64; 2],
    /// Probability that oxygen columns show at all, and their peak height then.
    pub o_probability: f64,
    pub o_intensity: [f64; 2],
    pub o_sigma_pm: [f64; 2],
    pub tail_fraction: [f64; 2],
    pub tail_ratio: [f64; 2],
    /// Probability that the tails are Lorentz-like, and not Gaussian.
    pub lorentz_probability: f64,
    /// Relative standard deviation of peak heights from column to column.
    pub roughness: [f64; 2],
    /// Over wavelengths from half of the frame's diagonal to twice it: waves and ramps.
    pub thickness_rms: [f64; 2],
    /// Fraction of the A columns' peak height, in the middle of the frame.
    pub background: [f64; 2],
    /// Change of the background across the frame, as a fraction of the background.
    pub background_slope: [f64; 2],
    /// Counts at the peak of an A column; uniform in the logarithm.
    pub peak_counts: [f64; 2],
    pub probe_sigma_pm: [f64; 2],
    pub astigmatism_pm: [f64; 2],
    pub line_jitter_pm: [f64; 2],
    /// Probability that a frame was smoothed, and the Gaussian's standard deviation then, pixels.
    pub smoothing_probability: f64,
    pub smoothing_px: [f64; 2],
    /// Drift during a frame, each component, as a fraction of the frame's height.
    pub drift_fraction: [f64; 2],
    /// What most frames do not show.
    pub rarities: Rarities,
    /// Faults of scan, probe and detector beside those above.
    pub faults: Faults,
}

impl Default for TrainingRanges {
    fn default() -> Self {
        Self {
            pixel_size_pm: [13.8, 16.2],
            cell_pm: [370.0, 430.0],
            aspect: [0.95, 1.05],
            shear_rad: [-0.035, 0.035],
            rotation_rad: [0.0, TAU],
            polarization_pm: [0.0, 60.0],
            domains: [1, 3],
            wall_width_nm: [0.3, 2.5],
            vortex_probability: 0.1,
            gradient_probability: 0.1,
            static_displacement_pm: [0.0, 6.0],
            b_intensity: [0.12, 0.95],
            a_sigma_pm: [55.0, 95.0],
            b_sigma_pm: [50.0, 90.0],
            o_probability: 0.3,
            o_intensity: [0.02, 0.12],
            o_sigma_pm: [50.0, 85.0],
            tail_fraction: [0.0, 0.3],
            tail_ratio: [1.8, 3.0],
            lorentz_probability: 0.3,
            roughness: [0.0, 0.1],
            thickness_rms: [0.0, 0.12],
            background: [0.0, 0.4],
            background_slope: [-0.5, 0.5],
            peak_counts: [10.0, 2000.0],
            probe_sigma_pm: [0.0, 40.0],
            astigmatism_pm: [0.0, 60.0],
            line_jitter_pm: [0.0, 10.0],
            smoothing_probability: 0.3,
            smoothing_px: [0.5, 2.0],
            drift_fraction: [-0.005, 0.005],
            rarities: Rarities::default(),
            faults: Faults::default(),
        }
    }
}

impl TrainingRanges {
    /// # Errors
    /// [`InvalidSetting`] for the first range that is reversed or could give a scene that cannot be rendered.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let limits = [
            ("pixel_size_pm", self.pixel_size_pm, [1.0, 200.0]),
            ("cell_pm", self.cell_pm, [250.0, 800.0]),
            ("aspect", self.aspect, [0.8, 1.25]),
            ("shear_rad", self.shear_rad, [-0.5, 0.5]),
            ("rotation_rad", self.rotation_rad, [-100.0, 100.0]),
            ("polarization_pm", self.polarization_pm, [0.0, 140.0]),
            ("wall_width_nm", self.wall_width_nm, [0.01, 100.0]),
            ("static_displacement_pm", self.static_displacement_pm, [0.0, 50.0]),
            ("b_intensity", self.b_intensity, [0.0, 2.0]),
            ("a_sigma_pm", self.a_sigma_pm, [10.0, 200.0]),
            ("b_sigma_pm", self.b_sigma_pm, [10.0, 200.0]),
            ("o_intensity", self.o_intensity, [0.0, 2.0]),
            ("o_sigma_pm", self.o_sigma_pm, [10.0, 200.0]),
            ("tail_fraction", self.tail_fraction, [0.0, 0.5]),
            ("tail_ratio", self.tail_ratio, [1.0, 4.0]),
            ("roughness", self.roughness, [0.0, 0.5]),
            ("thickness_rms", self.thickness_rms, [0.0, 0.3]),
            ("background", self.background, [0.0, 100.0]),
            ("background_slope", self.background_slope, [-2.0, 2.0]),
            ("peak_counts", self.peak_counts, [0.01, 1e9]),
            ("probe_sigma_pm", self.probe_sigma_pm, [0.0, 300.0]),
            ("line_jitter_pm", self.line_jitter_pm, [0.0, 200.0]),
            ("astigmatism_pm", self.astigmatism_pm, [0.0, 300.0]),
            ("smoothing_px", self.smoothing_px, [0.0, 20.0]),
            ("smoothing_probability", [0.0, self.smoothing_probability], [0.0, 1.0]),
            ("drift_fraction", self.drift_fraction, [-0.2, 0.2]),
            ("vortex_probability", [0.0, self.vortex_probability], [0.0, 1.0]),
            ("gradient_probability", [0.0, self.gradient_probability], [0.0, 1.0]),
            ("lorentz_probability", [0.0, self.lorentz_probability], [0.0, 1.0]),
            ("o_probability", [0.0, self.o_probability], [0.0, 1.0]),
            ("domains", self.domains.map(f64::from), [1.0, 100.0]),
        ];
        let check = Check(key_prefix);
        limits.into_iter().try_for_each(|(key, range, limits)| check.range(key, range, limits))?;
        self.rarities.validate(&check.key("rarities"))?;
        self.faults.validate(&check.key("faults"))
    }
}

/// A specimen and a scan over its origin, of `shape` = `[rows, cols]`, for ranges that are valid.
pub fn random_scene(
    ranges: &TrainingRanges,
    shape: [usize; 2],
    rng: &mut impl Rng,
) -> (Specimen, Microscope) {
    let pixel_size_pm = uniform(ranges.pixel_size_pm, rng);
    let height_pm = shape[0] as f64 * pixel_size_pm;
    let half_diagonal_nm = 0.5e-3 * pixel_size_pm * (shape[0] as f64).hypot(shape[1] as f64);
    let cell_pm = uniform(ranges.cell_pm, rng);
    let aspect = uniform(ranges.aspect, rng).sqrt();
    let [low, high] = ranges.peak_counts.map(f64::ln);
    let o = rng.random_bool(ranges.o_probability).then(|| ColumnShape {
        intensity: uniform(ranges.o_intensity, rng),
        sigma_pm: uniform(ranges.o_sigma_pm, rng),
    });
    let background = uniform(ranges.background, rng);
    let slope = uniform(ranges.background_slope, rng) * background / (2.0 * half_diagonal_nm);
    let slope_direction = uniform([0.0, TAU], rng);
    let mut specimen = Specimen {
        seed: rng.random(),
        cell_a_pm: cell_pm * aspect,
        cell_b_pm: cell_pm / aspect,
        cell_angle_rad: FRAC_PI_2 + uniform(ranges.shear_rad, rng),
        rotation_rad: uniform(ranges.rotation_rad, rng),
        columns: Columns {
            a: ColumnShape { intensity: 1.0, sigma_pm: uniform(ranges.a_sigma_pm, rng) },
            b: ColumnShape {
                intensity: uniform(ranges.b_intensity, rng),
                sigma_pm: uniform(ranges.b_sigma_pm, rng),
            },
            o,
            tail_fraction: uniform(ranges.tail_fraction, rng),
            tail_ratio: uniform(ranges.tail_ratio, rng),
            tails: if rng.random_bool(ranges.lorentz_probability) { Tails::Lorentz } else { Tails::Gaussian },
        },
        polarization: random_polarization(ranges, half_diagonal_nm, rng),
        static_displacement_pm: uniform(ranges.static_displacement_pm, rng),
        roughness: uniform(ranges.roughness, rng),
        thickness: Thickness {
            rms: uniform(ranges.thickness_rms, rng),
            wavelength_nm: half_diagonal_nm * uniform([1.0, 4.0], rng),
            ..Thickness::default()
        },
        background: Background {
            level: background,
            gradient_per_nm: [slope * slope_direction.cos(), slope * slope_direction.sin()],
        },
        ..Specimen::default()
    };
    ranges.rarities.add_to(&mut specimen, half_diagonal_nm);
    let smoothed = rng.random_bool(ranges.smoothing_probability);
    let smoothing_px = if smoothed { uniform(ranges.smoothing_px, rng) } else { 0.0 };
    // Anywhere within a cell, so that no column has a preferred place in the frame.
    let anywhere = [0.0, cell_pm * 1e-3];
    let mut microscope = Microscope {
        shape,
        pixel_size_pm,
        center_nm: [uniform(anywhere, rng), uniform(anywhere, rng)],
        peak_counts: uniform([low, high], rng).exp(),
        probe_sigma_pm: uniform(ranges.probe_sigma_pm, rng),
        astigmatism_pm: uniform(ranges.astigmatism_pm, rng),
        astigmatism_rad: uniform([0.0, TAU], rng),
        line_jitter_pm: uniform(ranges.line_jitter_pm, rng),
        drift_pm: [uniform(ranges.drift_fraction, rng), uniform(ranges.drift_fraction, rng)]
            .map(|d| d * height_pm),
        detector: Detector { smoothing_px, ..Detector::default() },
        ..Microscope::default()
    };
    ranges.faults.add_to(&mut microscope, &specimen);
    (specimen, microscope)
}

pub(super) fn uniform([low, high]: [f64; 2], rng: &mut impl Rng) -> f64 {
    rng.random_range(low..=high)
}

fn random_polarization(ranges: &TrainingRanges, half_diagonal_nm: f64, rng: &mut impl Rng) -> Polarization {
    let across = [-0.8 * half_diagonal_nm, 0.8 * half_diagonal_nm];
    if rng.random_bool(ranges.vortex_probability) {
        return Polarization::Vortex {
            center_nm: [uniform(across, rng), uniform(across, rng)],
            core_nm: uniform([0.4, 3.0], rng),
            magnitude_pm: uniform(ranges.polarization_pm, rng),
            counter_clockwise: rng.random(),
        };
    }
    let gradual = rng.random_bool(ranges.gradient_probability);
    let domains = if gradual { 2 } else { rng.random_range(ranges.domains[0]..=ranges.domains[1]) };
    let vectors_pm = (0..domains)
        .map(|_| {
            let (magnitude, direction) = (uniform(ranges.polarization_pm, rng), uniform([0.0, TAU], rng));
            [magnitude * direction.cos(), magnitude * direction.sin()]
        })
        .collect();
    let mut walls: Vec<f64> = (1..domains).map(|_| uniform(across, rng)).collect();
    walls.sort_by(f64::total_cmp);
    walls.dedup();
    // A wall about as wide as the frame is a gradient.
    let width_nm = if gradual {
        half_diagonal_nm * uniform([0.7, 3.0], rng)
    } else {
        uniform(ranges.wall_width_nm, rng)
    };
    Polarization::Domains {
        vectors_pm,
        normal_rad: uniform([0.0, TAU], rng),
        walls: DomainWalls::AtNm(walls),
        width_nm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn every_scene_can_be_rendered_and_lies_in_its_ranges() {
        let ranges = TrainingRanges::default();
        ranges.validate("train.scenes").unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut dim = 0;
        for _ in 0..60 {
            let (specimen, microscope) = random_scene(&ranges, [96, 96], &mut rng);
            let frame = super::super::render(&specimen, &microscope, &mut rng).unwrap();
            assert!(frame.pixels.iter().all(|v| v.is_finite()));
            assert!((10.0..=2000.0).contains(&microscope.peak_counts));
            dim += usize::from(microscope.peak_counts < 141.0);
            // About (96 × 15 / 400)² = 13 cells.
            assert!((6..=20).contains(&frame.truth.cells.len()), "{} cells", frame.truth.cells.len());
            for cell in &frame.truth.cells {
                // Strain of 3 % and an alloy's 2 % beside the cell's own range.
                assert!((330.0..475.0).contains(&cell.cell_a) && (330.0..475.0).contains(&cell.cell_b));
                assert!((1.4..1.75).contains(&cell.cell_angle), "{}", cell.cell_angle);
                assert!(cell.p_x.hypot(cell.p_y) < 66.0 + 6.0 * 6.0);
            }
        }
        // The geometric mean of 10 and 2000 halves the draws.
        assert!((18..=42).contains(&dim), "{dim} of 60 below 141 counts");
    }

    #[test]
    fn reversed_ranges_are_refused_by_name() {
        let ranges = TrainingRanges { aspect: [1.05, 0.95], ..TrainingRanges::default() };
        assert_eq!(ranges.validate("train.scenes").unwrap_err().key, "train.scenes.aspect");
    }
}
