//! The specimen that is searched, with what is planted in it.

use super::LoopSettings;
use crate::evaluate::EvaluateError;
use crate::simulate::{
    Defect, DefectKind, Dislocation, Microscope, Polarization, RandomDefects, Scene, ServerSettings,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A defect of the field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planted {
    /// `None` for the junction of domains.
    pub kind: Option<DefectKind>,
    /// `[y, x]` in the specimen.
    pub at_nm: [f64; 2],
}

/// A specimen with the scan and the drift that it is looked at with. The field's middle is the origin.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub scene: Scene,
    pub planted: Vec<Planted>,
}

/// From defect to defect, at least; nearer, one could be taken for the other.
const APART_NM: f64 = 2.6;
/// From the border of the field, at least.
const INSIDE_NM: f64 = 0.8;
/// Tries to find a place before the field is full.
const TRIES: usize = 10_000;
const PATCH_RADIUS_NM: f64 = 0.7;
/// |P| of the four domains, pm, and the width of their walls.
const P_PM: f64 = 32.5;
const WALL_NM: f64 = 1.6;

impl Field {
    /// Bismuth ferrite of the built-in scene, its defects replaced by those of the settings at places drawn from their seed.
    pub fn plant(settings: &LoopSettings) -> Result<Self, EvaluateError> {
        let mut scene = Scene::built_in("bifeo3").map_err(|error| EvaluateError::Frame(error.to_string()))?;
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let mut planted = Vec::new();
        let specimen = &mut scene.specimen;
        specimen.seed = settings.seed;
        specimen.bends = Vec::new();
        specimen.random_defects = RandomDefects::default();
        specimen.defects = Vec::new();
        specimen.dislocations = Vec::new();
        if settings.junction {
            let reach = 0.2 * settings.field_nm;
            let center_nm = [0, 1].map(|_| rng.random_range(-reach..reach));
            specimen.polarization = Polarization::FluxClosure {
                center_nm,
                width_nm: WALL_NM,
                magnitude_pm: P_PM,
                counter_clockwise: true,
                spacing_nm: None,
            };
            planted.push(Planted { kind: None, at_nm: center_nm });
        }
        for &(kind, count) in &settings.defects {
            for _ in 0..count {
                let at_nm = free_place(&planted, settings, &mut rng)?;
                planted.push(Planted { kind: Some(kind), at_nm });
                if kind == DefectKind::Dislocation {
                    let burgers_cells = [1, 0];
                    specimen.dislocations.push(Dislocation { at_nm, burgers_cells, poisson_ratio: 0.3 });
                } else {
                    specimen.defects.push(defect(kind, at_nm));
                }
            }
        }
        scene.microscope = Microscope {
            shape: [settings.side_px; 2],
            peak_counts: settings.peak_counts,
            ..scene.microscope
        };
        scene.server = ServerSettings { seed: settings.seed, ..scene.server };
        scene.specimen.validate("specimen")?;
        Ok(Self { scene, planted })
    }

    /// A scan of the field around `center_nm`.
    pub fn scan(&self, center_nm: [f64; 2], pixel_size_pm: f64) -> Microscope {
        Microscope { center_nm, pixel_size_pm, ..self.scene.microscope.clone() }
    }
}

fn free_place(
    planted: &[Planted],
    settings: &LoopSettings,
    rng: &mut ChaCha8Rng,
) -> Result<[f64; 2], EvaluateError> {
    let reach = 0.5 * settings.field_nm - INSIDE_NM;
    let free = |at: &[f64; 2]| {
        planted.iter().all(|other| (at[0] - other.at_nm[0]).hypot(at[1] - other.at_nm[1]) >= APART_NM)
    };
    (0..TRIES)
        .map(|_| [0, 1].map(|_| rng.random_range(-reach..reach)))
        .find(free)
        .ok_or_else(|| EvaluateError::Frame("the field is too small for its defects".to_owned()))
}

fn defect(kind: DefectKind, at_nm: [f64; 2]) -> Defect {
    let (intensity_ratio, radius_nm) = match kind {
        DefectKind::Amorphous => (0.0, PATCH_RADIUS_NM),
        DefectKind::Contamination => (0.5, PATCH_RADIUS_NM),
        // What is left of the column, or how much of it changed places, or how bright it is beside an A column.
        DefectKind::VacancyA | DefectKind::VacancyB => (0.1, 0.0),
        DefectKind::SubstitutionA => (0.4, 0.0),
        DefectKind::SubstitutionB => (2.5, 0.0),
        DefectKind::Interstitial => (0.6, 0.0),
        _ => (1.0, 0.0),
    };
    Defect { kind, at_nm, intensity_ratio, radius_nm }
}
