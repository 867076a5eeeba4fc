//! What is wrong with the specimen.

use super::{Anomaly, one_of};
use crate::material::ColumnShape;
use crate::simulate::{
    Alloy, Composition, Content, Defect, DefectKind, Dislocation, Edge, Microscope, Phase, Polarization,
    Region, Shape, Specimen, Substrate, Toward, ZoneAxis,
};
use rand::{Rng, RngExt as _};
use std::f64::consts::{FRAC_PI_3, TAU};

/// Point defects of one frame, from its middle, nm.
const PLACES_NM: [[f64; 2]; 3] = [[-0.75, -0.75], [0.75, -0.1], [-0.2, 0.8]];
/// What a vacancy leaves of its column's height.
const VACANCY_RATIO: f64 = 0.3;

/// Puts what is strange into the specimen.
pub(super) fn plant(
    anomaly: Anomaly,
    specimen: &mut Specimen,
    microscope: &mut Microscope,
    rng: &mut impl Rng,
) {
    match anomaly {
        Anomaly::VacancyA => {
            point_defects(specimen, microscope, rng, |_| (DefectKind::VacancyA, VACANCY_RATIO))
        }
        Anomaly::VacancyB => {
            point_defects(specimen, microscope, rng, |_| (DefectKind::VacancyB, VACANCY_RATIO))
        }
        Anomaly::Substitution => point_defects(specimen, microscope, rng, |n| match n % 4 {
            0 => (DefectKind::SubstitutionA, 0.5),
            1 => (DefectKind::SubstitutionB, 1.6),
            2 => (DefectKind::SubstitutionA, 1.6),
            _ => (DefectKind::SubstitutionB, 0.5),
        }),
        Anomaly::Antisite => point_defects(specimen, microscope, rng, |n| {
            (if n % 2 == 0 { DefectKind::AntisiteA } else { DefectKind::AntisiteB }, 0.8)
        }),
        Anomaly::Interstitial => {
            specimen.random_defects.interstitial = 0.03;
            specimen.random_defects.interstitial_intensity_ratio = 0.4;
        }
        Anomaly::Dislocation => {
            let burgers_cells = *one_of(&[[1, 0], [-1, 0], [0, 1], [0, -1]], rng);
            let at_nm = near(microscope, [0.0, 0.0], rng);
            specimen.dislocations.push(Dislocation { at_nm, burgers_cells, poisson_ratio: 0.3 });
        }
        Anomaly::Amorphous | Anomaly::Contamination => {
            let amorphous = anomaly == Anomaly::Amorphous;
            let kind = if amorphous { DefectKind::Amorphous } else { DefectKind::Contamination };
            let at_nm = near(microscope, [0.0, 0.0], rng);
            let intensity_ratio = if amorphous { 0.0 } else { 2.0 };
            specimen.defects.push(Defect { kind, at_nm, intensity_ratio, radius_nm: 0.8 });
        }
        Anomaly::Composition => specimen.alloy = strontium_for_bismuth(rng),
        Anomaly::BrightB => specimen.columns.b.intensity = rng.random_range(1.3..=1.8),
        Anomaly::Material => other_material(specimen, rng),
        Anomaly::Defocus
        | Anomaly::Blur
        | Anomaly::LowDose
        | Anomaly::LineJump
        | Anomaly::Flicker
        | Anomaly::Saturation
        | Anomaly::SaturatedPart => {}
        _ => region(anomaly, specimen, microscope, rng),
    }
}

/// An alloy beyond those of training, of which at most half is foreign, with columns of 30 atoms or more that are 0.4 to 1.6 as bright:
/// A columns dim to 0.34 to 0.56 of their height (in training to 0.7) and scatter by a seventh of it (in training by an eighth, where
/// everything comes together). Ratios are those of Sr and Bi, by Z^1.7 as in `configs/materials`, and of SrTiO3's and BiFeO3's cells;
/// columns of 20 atoms are 8 nm long.
fn strontium_for_bismuth(rng: &mut impl Rng) -> Alloy {
    Alloy {
        fraction: Composition::Uniform { value: rng.random_range(0.6..=0.9) },
        atoms_per_column: 20,
        a_intensity_ratio: 0.27,
        cell_ratio: 0.986,
        polarization_ratio: 0.0,
        ..Alloy::default()
    }
}

/// Halves of the frame, or all of it.
fn region(anomaly: Anomaly, specimen: &mut Specimen, microscope: &mut Microscope, rng: &mut impl Rng) {
    let at_nm = near(microscope, [0.0, 0.0], rng);
    let along_a = specimen.rotation_rad;
    let half = |normal_rad: f64| Shape::HalfPlane { at_nm, normal_rad, edge: Edge::default() };
    let content = match anomaly {
        Anomaly::StackingFault => Content::StackingFault { shift_cells: [0.0, 0.5] },
        Anomaly::Antiphase => Content::Antiphase { shift_cells: [0.5, 0.5] },
        Anomaly::GrainBoundary => Content::Grain {
            rotation_rad: rng.random_range(0.17..=0.7),
            shift_pm: [rng.random_range(0.0..=400.0), rng.random_range(0.0..=400.0)],
        },
        Anomaly::Surface | Anomaly::Vacuum => {
            // A detector is never quite dark.
            microscope.dark_counts = microscope.dark_counts.max(0.02 * microscope.peak_counts);
            Content::Vacuum
        }
        Anomaly::ZoneAxis => {
            Content::ZoneAxis { zone_axis: ZoneAxis::Z110, rotation_rad: rng.random_range(0.0..TAU) }
        }
        _ => {
            specimen.substrate = Some(substrate(specimen, rng));
            return;
        }
    };
    let shape = match anomaly {
        Anomaly::ZoneAxis => Shape::Circle { center_nm: at_nm, radius_nm: 1000.0 },
        Anomaly::StackingFault | Anomaly::Antiphase => half(along_a),
        _ => half(rng.random_range(0.0..TAU)),
    };
    specimen.regions.push(Region { shape, content });
}

fn substrate(specimen: &Specimen, rng: &mut impl Rng) -> Substrate {
    let cell_pm = *one_of(&[330.0, 470.0], rng);
    Substrate {
        phase: Phase {
            cell_a_pm: cell_pm,
            cell_b_pm: cell_pm,
            a: specimen.columns.a,
            b: specimen.columns.b,
            o: specimen.columns.o,
            p_pm: [0.0, 0.0],
        },
        toward: *one_of(&[Toward::A, Toward::MinusA, Toward::B, Toward::MinusB], rng),
        at_nm: rng.random_range(-0.4..=0.4),
        edge: Edge::default(),
        relaxed: 1.0,
        poisson_ratio: 0.3,
        polarization_width_nm: 1.0,
    }
}

/// Rock salt and fluorite along [100], wurtzite along [0001], as far as a lattice of two columns can be any of them.
fn other_material(specimen: &mut Specimen, rng: &mut impl Rng) {
    let (cell_pm, angle_rad, b_intensity) = match rng.random_range(0..3) {
        0 => (rng.random_range(280.0..=310.0), std::f64::consts::FRAC_PI_2, 0.9),
        1 => (rng.random_range(300.0..=330.0), FRAC_PI_3, 0.2),
        _ => (rng.random_range(530.0..=560.0), std::f64::consts::FRAC_PI_2, 1.0),
    };
    specimen.cell_a_pm = cell_pm;
    specimen.cell_b_pm = cell_pm;
    specimen.cell_angle_rad = angle_rad;
    specimen.columns.b = ColumnShape { intensity: b_intensity, sigma_pm: specimen.columns.a.sigma_pm };
    specimen.columns.o = None;
    specimen.polarization = Polarization::default();
}

fn point_defects(
    specimen: &mut Specimen,
    microscope: &Microscope,
    rng: &mut impl Rng,
    kind: impl Fn(usize) -> (DefectKind, f64),
) {
    let first = rng.random_range(0..4);
    for (n, place) in PLACES_NM.into_iter().enumerate() {
        let (kind, intensity_ratio) = kind(first + n);
        let at_nm = near(microscope, place, rng);
        specimen.defects.push(Defect { kind, at_nm, intensity_ratio, radius_nm: 0.0 });
    }
}

/// A place near `from_middle` of the field of view, `[y, x]` in nm.
fn near(microscope: &Microscope, from_middle: [f64; 2], rng: &mut impl Rng) -> [f64; 2] {
    let [y, x] = microscope.center_nm;
    [y + from_middle[0] + rng.random_range(-0.2..=0.2), x + from_middle[1] + rng.random_range(-0.2..=0.2)]
}
