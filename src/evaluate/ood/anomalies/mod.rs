//! Frames with one thing in them that training never showed, and where it is: in the [`specimen`], or in the [`instrument`] before
//! it and behind it.

mod instrument;
mod marks;
mod specimen;

pub use marks::{Mark, MarkedFrame};

use super::super::EvaluateError;
use super::super::windows::{as_frame, random};
use crate::preprocess::AreaSums;
use crate::simulate::{DefectKind, TrainingRanges, random_scene, render};
use marks::marks;
use rand::{Rng, RngExt as _};

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
    Blur,
    SaturatedPart,
}

impl Anomaly {
    /// In the order of the table.
    pub const ALL: [Self; 25] = [
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
        Self::SaturatedPart,
        Self::Defocus,
        Self::Blur,
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
            Self::SaturatedPart => "saturated rows (2 to 6, the middle half of each)",
            Self::Defocus => "defocus (9 to 13 nm)",
            Self::Blur => "blur (Gaussian, 60 to 90 pm)",
            Self::LowDose => "dose below range (1 to 4 counts)",
            Self::Composition => "composition (60 to 90 % of A of another element, 0.27 as bright)",
            Self::BrightB => "B columns brighter than A (× 1.3 to 1.8)",
        }
    }

    /// The codes of the truth's mask that are this anomaly; none where it is the whole frame, or some of its rows.
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
        matches!(
            self,
            Self::Material | Self::Defocus | Self::Blur | Self::LowDose | Self::Composition | Self::BrightB
        )
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
        specimen::plant(anomaly, &mut specimen, &mut microscope, &mut rng);
        instrument::adjust(anomaly, &mut microscope, &mut rng);
    }
    let mut simulated = render(&specimen, &microscope, &mut rng)?;
    let damaged =
        anomaly.and_then(|anomaly| instrument::damage(anomaly, &mut simulated.pixels, &microscope, &mut rng));
    let pixel_sizes_pm = microscope.pixel_sizes_pm();
    let (strange, disturbed) =
        marks(anomaly, &simulated.truth, simulated.pixels.dim(), damaged, pixel_sizes_pm);
    Ok(MarkedFrame {
        frame: as_frame(&simulated, pixel_sizes_pm, index)?,
        truth: simulated.truth,
        pixel_sizes_pm,
        strange,
        disturbed: AreaSums::new(disturbed.view(), u32::from),
    })
}

fn one_of<'a, T>(choices: &'a [T], rng: &mut impl Rng) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}
