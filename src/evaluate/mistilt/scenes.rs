//! The frames of the mistilt study.

use super::{NON_POLAR, POLAR};
use crate::evaluate::EvaluateError;
use crate::material::Material;
use crate::simulate::{Background, DomainWalls, Microscope, Polarization, Specimen, StrainField, Thickness};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_PI_4, TAU};

pub(super) const PIXEL_PM: f64 = 15.0;

/// What a frame shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A mosaic of all four variants.
    Polydomain,
    /// Two variants, opposite or at right angles, with a wall in the middle half of the frame.
    TwoDomain,
    /// One: nothing tells an offset from P.
    SingleDomain,
    /// A lattice without P.
    NonPolar,
    /// Without tilt: a mosaic of which one variant holds most.
    UnequalAreas,
    /// Without tilt: a mosaic in a crystal that is bent and strained unevenly, P in the two axes of unequal length.
    Strained,
    /// Without tilt: a non-polar lattice that is bent and strained unevenly.
    StrainedNonPolar,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Polydomain,
        Self::TwoDomain,
        Self::SingleDomain,
        Self::NonPolar,
        Self::UnequalAreas,
        Self::Strained,
        Self::StrainedNonPolar,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Polydomain => "polydomain",
            Self::TwoDomain => "two domains",
            Self::SingleDomain => "single domain",
            Self::NonPolar => "non-polar",
            Self::UnequalAreas => "unequal areas",
            Self::Strained => "strain gradient",
            Self::StrainedNonPolar => "strain gradient, non-polar",
        }
    }

    /// Whether it is there for false alarms alone.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::UnequalAreas | Self::Strained | Self::StrainedNonPolar)
    }

    pub(super) fn is_polar(self) -> bool {
        !matches!(self, Self::NonPolar | Self::StrainedNonPolar)
    }

    pub(super) fn material(self) -> Result<Material, EvaluateError> {
        let name = if self.is_polar() { POLAR } else { NON_POLAR };
        Material::built_in(name).map_err(|error| EvaluateError::Frame(error.to_string()))
    }
}

/// One frame of the study.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planted {
    pub kind: Kind,
    pub offset_pm: f64,
    pub counts: f64,
    pub side_px: usize,
    pub index: usize,
}

/// How an offset lies in the lattice, whose axes are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    AlongAxis,
    AlongDiagonal,
    /// 22.5° from either.
    Between,
}

impl Direction {
    pub const ALL: [Self; 3] = [Self::AlongAxis, Self::AlongDiagonal, Self::Between];

    pub const fn name(self) -> &'static str {
        match self {
            Self::AlongAxis => "a or b",
            Self::AlongDiagonal => "diagonal",
            Self::Between => "in between",
        }
    }

    /// Of the offset of frame `index`.
    pub const fn of(index: usize) -> Self {
        match (index / EIGHTHS % 2, index % 2) {
            (0, 0) => Self::AlongAxis,
            (0, _) => Self::AlongDiagonal,
            _ => Self::Between,
        }
    }
}

const EIGHTHS: usize = 8;

/// Direction of the offset of frame `index` from the lattice's a, rad: round the lattice in eighths of a turn, every other time a
/// sixteenth farther.
fn from_a_rad(index: usize) -> f64 {
    FRAC_PI_4 * ((index % EIGHTHS) as f64 + 0.5 * (index / EIGHTHS % 2) as f64)
}

/// Lengths of P along the two axes of [`Kind::Strained`], relative to the material's.
const UNEQUAL: [f64; 2] = [1.06, 0.94];

/// The specimen and the scan of frame `index`, and the numbers that its noise is drawn from. The same specimen is looked at with
/// every offset and dose; the offset's direction is [`from_a_rad`].
pub(super) fn scene(
    planted: &Planted,
    seed: u64,
) -> Result<(Specimen, Microscope, ChaCha8Rng), EvaluateError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(planted.index as u64);
    let material = planted.kind.material()?;
    let half_nm = 0.5e-3 * PIXEL_PM * planted.side_px as f64;
    let mut specimen = Specimen {
        seed: rng.random(),
        rotation_rad: rng.random_range(0.0..TAU),
        static_displacement_pm: rng.random_range(0.0..4.0),
        roughness: rng.random_range(0.0..0.06),
        thickness: Thickness { rms: 0.03, wavelength_nm: 4.0 * half_nm, ..Thickness::default() },
        background: Background { level: rng.random_range(0.1..0.3), ..Background::default() },
        ..Specimen::of_material(&material)
    };
    // Channelling saturates the A columns, so that B is brighter beside them than the material's estimate says.
    specimen.columns.b.intensity = specimen.columns.b.intensity.max(0.32);
    specimen.columns.tail_fraction = rng.random_range(0.05..0.2);
    specimen.polarization = polarization(planted.kind, &specimen, half_nm, &mut rng);
    if matches!(planted.kind, Kind::Strained | Kind::StrainedNonPolar) {
        let direction_rad = rng.random_range(0.0..TAU);
        let center_nm = [0.0, 0.0];
        specimen.strain_fields = vec![
            StrainField::Gradient { center_nm, direction_rad, strain_per_nm: 0.003, reach_nm: 2.0 * half_nm },
            StrainField::Bending { center_nm, direction_rad, radius_nm: 400.0, reach_nm: 2.0 * half_nm },
        ];
        for (k, variant) in specimen.variants_pm.iter_mut().enumerate() {
            // Opposite variants, two apart in the material's list, keep the same length: strain has no sign of P.
            *variant = variant.map(|p| p * UNEQUAL.get(k % 2).copied().unwrap_or(1.0));
        }
    }
    let turn = specimen.rotation_rad + from_a_rad(planted.index);
    // P gains half of what the A columns lose.
    let a_shift = [turn.cos(), -turn.sin()].map(|c| -2.0 * planted.offset_pm * c);
    let drift_pm = [(); 2].map(|()| rng.random_range(-0.003..0.003) * planted.side_px as f64 * PIXEL_PM);
    let microscope = Microscope {
        shape: [planted.side_px; 2],
        pixel_size_pm: PIXEL_PM,
        center_nm: [rng.random_range(0.0..0.4), rng.random_range(0.0..0.4)],
        peak_counts: planted.counts,
        probe_sigma_pm: rng.random_range(15.0..35.0),
        astigmatism_pm: rng.random_range(0.0..30.0),
        astigmatism_rad: rng.random_range(0.0..TAU),
        line_jitter_pm: rng.random_range(0.0..6.0),
        drift_pm,
        tilt_offset_pm: a_shift,
        ..Microscope::default()
    };
    Ok((specimen, microscope, rng))
}

fn polarization(kind: Kind, specimen: &Specimen, half_nm: f64, rng: &mut ChaCha8Rng) -> Polarization {
    let variants = &specimen.variants_pm;
    let any = |rng: &mut ChaCha8Rng| rng.random_range(0..variants.len().max(1));
    let variant = |k: usize| variants.get(k % variants.len().max(1)).copied().unwrap_or([0.0; 2]);
    match kind {
        Kind::NonPolar | Kind::StrainedNonPolar => Polarization::Uniform { p_pm: [0.0, 0.0] },
        Kind::SingleDomain => Polarization::Uniform { p_pm: variant(any(rng)) },
        Kind::Polydomain | Kind::Strained => {
            Polarization::Mosaic { domain_nm: rng.random_range(2.5..4.0), width_nm: 0.8, weights: Vec::new() }
        }
        Kind::UnequalAreas => {
            let most = any(rng);
            let weights = (0..variants.len()).map(|k| if k == most { 7.0 } else { 1.0 }).collect();
            Polarization::Mosaic { domain_nm: rng.random_range(2.0..3.0), width_nm: 0.8, weights }
        }
        Kind::TwoDomain => {
            let first = any(rng);
            let second = first + rng.random_range(1..4);
            Polarization::Domains {
                vectors_pm: vec![variant(first), variant(second)],
                normal_rad: rng.random_range(0.0..TAU),
                walls: DomainWalls::AtNm(vec![rng.random_range(-0.5..0.5) * half_nm]),
                width_nm: 0.8,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_what_they_are_called() {
        let mut counts = [0; 3];
        for index in 0..32 {
            // In sixteenths of a turn from a: axes are four apart, diagonals lie between them.
            let sixteenths = from_a_rad(index) / (0.5 * FRAC_PI_4);
            assert!((sixteenths - sixteenths.round()).abs() < 1e-9 && sixteenths < 16.0);
            let expected = match sixteenths.round() as usize % 4 {
                0 => Direction::AlongAxis,
                2 => Direction::AlongDiagonal,
                _ => Direction::Between,
            };
            assert_eq!(Direction::of(index), expected, "{index}");
            counts[expected as usize] += 1;
        }
        assert_eq!(counts, [8, 8, 16]);
    }
}
