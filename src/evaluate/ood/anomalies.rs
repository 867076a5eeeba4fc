//! Frames with one thing in them that training never showed, and where it is.

use super::super::EvaluateError;
use super::super::windows::{as_frame, random};
use crate::frame::Frame;
use crate::material::ColumnShape;
use crate::simulate::{
    Alloy, Composition, Content, Defect, DefectKind, Dislocation, Edge, Microscope, Phase, Polarization,
    Region, Shape, Specimen, Substrate, Toward, TrainingRanges, Truth, ZoneAxis, random_scene, render,
};
use ndarray::Array2;
use rand::{Rng, RngExt as _};
use std::f64::consts::{FRAC_PI_3, TAU};
use std::ops::Range;
use std::sync::Arc;

/// A frame's own windows count as undisturbed where nothing strange lies within this of their centre, down and across: half a
/// window, and as much again.
const WELL_AWAY_PM: f64 = 1200.0;
/// A window sees a damaged row when its centre is no farther from it, about half a unit cell.
const BESIDE_PM: f64 = 200.0;
/// Point defects of one frame, from its middle, nm.
const PLACES_NM: [[f64; 2]; 3] = [[-0.75, -0.75], [0.75, -0.1], [-0.2, 0.8]];
/// What a vacancy leaves of its column's height.
const VACANCY_RATIO: f64 = 0.3;

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Anomaly {
    VacancyA,
    VacancyB,
    Substitution,
    Antisite,
    Interstitial,
    StackingFault,
    Dislocation,
    Antiphase,
    GrainBoundary,
    Amorphous,
    Surface,
    Vacuum,
    Contamination,
    Substrate,
    ZoneAxis,
    Material,
    LineJump,
    Flicker,
    Saturation,
    Defocus,
    LowDose,
    Composition,
    BrightB,
}

impl Anomaly {
    /// In the order of the table.
    pub const ALL: [Self; 23] = [
        Self::VacancyA,
        Self::VacancyB,
        Self::Substitution,
        Self::Antisite,
        Self::Interstitial,
        Self::StackingFault,
        Self::Dislocation,
        Self::Antiphase,
        Self::GrainBoundary,
        Self::Amorphous,
        Self::Surface,
        Self::Vacuum,
        Self::Contamination,
        Self::Substrate,
        Self::ZoneAxis,
        Self::Material,
        Self::LineJump,
        Self::Flicker,
        Self::Saturation,
        Self::Defocus,
        Self::LowDose,
        Self::Composition,
        Self::BrightB,
    ];

    /// As a row of the table names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VacancyA => "A vacancy (30 % of the column left)",
            Self::VacancyB => "B vacancy (30 % of the column left)",
            Self::Substitution => "substitution in an A or B column (× 0.5 or × 1.6)",
            Self::Antisite => "antisite (80 % of a column exchanged)",
            Self::Interstitial => "interstitial (40 % of an A column)",
            Self::StackingFault => "stacking fault (half a cell along the fault)",
            Self::Dislocation => "dislocation core",
            Self::Antiphase => "antiphase boundary",
            Self::GrainBoundary => "grain boundary (10 to 40°)",
            Self::Amorphous => "amorphous patch (0.8 nm)",
            Self::Surface => "surface edge",
            Self::Vacuum => "vacuum",
            Self::Contamination => "contamination blob (twice an A column's height)",
            Self::Substrate => "substrate of another cell (330 or 470 pm)",
            Self::ZoneAxis => "another zone axis ([110])",
            Self::Material => "another material (rock salt, wurtzite, fluorite)",
            Self::LineJump => "line jump (100 to 200 pm)",
            Self::Flicker => "probe flicker (3 to 8 rows at 30 to 60 %)",
            Self::Saturation => "saturated rows (2 to 6)",
            Self::Defocus => "defocus (9 to 13 nm)",
            Self::LowDose => "dose below range (1 to 4 counts)",
            Self::Composition => "composition (20 % of A of another element, 0.61 as bright)",
            Self::BrightB => "B columns brighter than A (× 1.3 to 1.8)",
        }
    }

    /// The codes of the truth's mask that are this anomaly; none where it is the whole frame, or rows of it.
    const fn kinds(self) -> &'static [DefectKind] {
        match self {
            Self::VacancyA => &[DefectKind::VacancyA],
            Self::VacancyB => &[DefectKind::VacancyB],
            Self::Substitution => &[DefectKind::SubstitutionA, DefectKind::SubstitutionB],
            Self::Antisite => &[DefectKind::AntisiteA, DefectKind::AntisiteB],
            Self::Interstitial => &[DefectKind::Interstitial],
            Self::StackingFault => &[DefectKind::StackingFault],
            Self::Dislocation => &[DefectKind::Dislocation],
            Self::Antiphase => &[DefectKind::Antiphase],
            Self::GrainBoundary => &[DefectKind::GrainBoundary],
            Self::Amorphous => &[DefectKind::Amorphous],
            Self::Surface => &[DefectKind::Surface],
            Self::Vacuum => &[DefectKind::Vacuum],
            Self::Contamination => &[DefectKind::Contamination],
            Self::Substrate => &[DefectKind::Substrate, DefectKind::Interface, DefectKind::Dislocation],
            Self::ZoneAxis => &[DefectKind::ZoneAxis],
            _ => &[],
        }
    }

    /// Whether every window of the frame sees it.
    const fn is_everywhere(self) -> bool {
        matches!(self, Self::Material | Self::Defocus | Self::LowDose | Self::Composition | Self::BrightB)
    }
}

/// A frame, ready for the stages, with what is strange in it.
#[derive(Debug)]
pub struct MarkedFrame {
    pub frame: Arc<Frame>,
    pub truth: Truth,
    /// `[row, col]`.
    pub pixel_sizes_pm: [f64; 2],
    /// `[row, col]`: a window whose centre is here sees the anomaly. Point defects are half a cell edge in radius, boundaries
    /// a cell edge wide, damaged rows have [`BESIDE_PM`] on either side.
    strange: Array2<bool>,
    /// For each pixel, the number of those above and left of it that show anything but the undisturbed host.
    disturbed_before: Array2<u32>,
}

/// What a window of a marked frame is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Strange,
    Usual,
    /// Too near to what is strange to be either.
    Neither,
}

impl MarkedFrame {
    /// Of a window centred there, frame pixels.
    pub fn mark(&self, row: f64, col: f64) -> Mark {
        let (rows, cols) = self.strange.dim();
        let pixel = |at: f64, size: usize| (at.round().max(0.0) as usize).min(size.saturating_sub(1));
        if self.strange.get((pixel(row, rows), pixel(col, cols))).copied().unwrap_or(false) {
            return Mark::Strange;
        }
        let [down, across] = self.pixel_sizes_pm.map(|pm| WELL_AWAY_PM / pm);
        let [top, bottom] = [pixel(row - down, rows), pixel(row + down, rows) + 1];
        let [left, right] = [pixel(col - across, cols), pixel(col + across, cols) + 1];
        let before = |row: usize, col: usize| self.disturbed_before[[row, col]];
        let disturbed = before(bottom, right) + before(top, left) - before(top, right) - before(bottom, left);
        if disturbed == 0 { Mark::Usual } else { Mark::Neither }
    }
}

/// Frame `index` of the endless series that `ranges` and `seed` describe, with an anomaly or without one.
///
/// # Errors
/// When the ranges give a scene that cannot be rendered.
pub fn marked_frame(
    anomaly: Option<Anomaly>,
    ranges: &TrainingRanges,
    side_px: usize,
    seed: u64,
    index: usize,
) -> Result<MarkedFrame, EvaluateError> {
    let mut rng = random(seed, index);
    let (mut specimen, mut microscope) = random_scene(ranges, [side_px; 2], &mut rng);
    if let Some(anomaly) = anomaly {
        plant(anomaly, &mut specimen, &mut microscope, &mut rng);
    }
    let mut simulated = render(&specimen, &microscope, &mut rng)?;
    let rows = anomaly.and_then(|anomaly| damage(anomaly, &mut simulated.pixels, &microscope, &mut rng));
    let pixel_sizes_pm = microscope.pixel_sizes_pm();
    let (strange, disturbed) = marks(anomaly, &simulated.truth, simulated.pixels.dim(), rows, pixel_sizes_pm);
    Ok(MarkedFrame {
        frame: as_frame(&simulated, pixel_sizes_pm, index)?,
        truth: simulated.truth,
        pixel_sizes_pm,
        strange,
        disturbed_before: summed(&disturbed),
    })
}

fn marks(
    anomaly: Option<Anomaly>,
    truth: &Truth,
    shape: (usize, usize),
    damaged_rows: Option<Range<usize>>,
    pixel_sizes_pm: [f64; 2],
) -> (Array2<bool>, Array2<bool>) {
    let Some(anomaly) = anomaly else {
        let none = Array2::from_elem(shape, false);
        return (none.clone(), none);
    };
    let mask = truth.mask(shape.into());
    let codes: Vec<u8> = anomaly.kinds().iter().map(|kind| kind.code()).collect();
    let mut strange = mask.mapv(|code| anomaly.is_everywhere() || codes.contains(&code));
    if let Some(rows) = damaged_rows {
        let beside = (BESIDE_PM / pixel_sizes_pm[0]).round() as usize;
        let seen = rows.start.saturating_sub(beside)..rows.end + beside;
        for ((row, _), strange) in strange.indexed_iter_mut() {
            *strange |= seen.contains(&row);
        }
    }
    // Soft blobs of contamination are part of training.
    let known = [0, DefectKind::Contamination.code()];
    let mut disturbed = mask.mapv(|code| !known.contains(&code));
    disturbed.zip_mut_with(&strange, |disturbed, &strange| *disturbed |= strange);
    (strange, disturbed)
}

/// `[row, col]` → the number of set pixels above and to the left, one row and column more.
fn summed(set: &Array2<bool>) -> Array2<u32> {
    let (rows, cols) = set.dim();
    let mut before = Array2::zeros((rows + 1, cols + 1));
    for row in 0..rows {
        let mut in_row = 0;
        for col in 0..cols {
            in_row += u32::from(set[[row, col]]);
            before[[row + 1, col + 1]] = before[[row, col + 1]] + in_row;
        }
    }
    before
}

/// Puts what is strange into the scene.
fn plant(anomaly: Anomaly, specimen: &mut Specimen, microscope: &mut Microscope, rng: &mut impl Rng) {
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
        Anomaly::Defocus => {
            let sign = *one_of(&[-1.0, 1.0], rng);
            microscope.defocus_nm = sign * rng.random_range(9.0..=13.0);
            microscope.convergence_mrad = 30.0;
        }
        Anomaly::LowDose => microscope.peak_counts = rng.random_range(1.0..=4.0),
        Anomaly::Composition => {
            specimen.alloy = Alloy {
                fraction: Composition::Uniform { value: 0.2 },
                atoms_per_column: 75,
                a_intensity_ratio: 0.61,
                cell_ratio: 0.9776,
                ..Alloy::default()
            };
        }
        Anomaly::BrightB => specimen.columns.b.intensity = rng.random_range(1.3..=1.8),
        Anomaly::Material => other_material(specimen, rng),
        Anomaly::LineJump | Anomaly::Flicker | Anomaly::Saturation => {}
        _ => region(anomaly, specimen, microscope, rng),
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

/// What goes wrong behind the specimen: the rows that it happens to.
fn damage(
    anomaly: Anomaly,
    pixels: &mut Array2<f32>,
    microscope: &Microscope,
    rng: &mut impl Rng,
) -> Option<Range<usize>> {
    let (rows, cols) = pixels.dim();
    let first = rows / 2 + rng.random_range(0..rows / 8) - rows / 16;
    match anomaly {
        Anomaly::LineJump => {
            let far = rng.random_range(100.0..=200.0) / microscope.pixel_sizes_pm()[1];
            let jump = far.round() as usize;
            let before = pixels.clone();
            for ((row, col), pixel) in pixels.indexed_iter_mut().filter(|((row, _), _)| *row >= first) {
                // What comes in at the side goes out at the other.
                *pixel = before[[row, (col + jump) % cols]];
            }
            Some(first..first + 1)
        }
        Anomaly::Flicker => {
            let last = first + rng.random_range(3..=8);
            let left = rng.random_range(0.3f32..=0.6);
            pixels.slice_mut(ndarray::s![first..last, ..]).mapv_inplace(|value| (value * left).round());
            Some(first..last)
        }
        Anomaly::Saturation => {
            let last = first + rng.random_range(2..=6);
            let most = pixels.iter().copied().fold(0.0, f32::max);
            pixels.slice_mut(ndarray::s![first..last, ..]).fill(most);
            Some(first..last)
        }
        _ => None,
    }
}

fn one_of<'a, T>(choices: &'a [T], rng: &mut impl Rng) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}
