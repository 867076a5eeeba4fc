//! Defects, regions and fields for random scenes, each with a probability of its own.

use super::polarization::Polarization;
use super::random::uniform;
use super::specimen::{
    Alloy, Composition, Content, Defect, Dislocation, Edge, Phase, RandomDefects, Region, Shape, Specimen,
    StrainField, Substrate, Toward, ZoneAxis,
};
use super::truth::DefectKind;
use crate::config::InvalidSetting;
use crate::material::ColumnShape;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_PI_2, TAU};

/// Probabilities, for each frame, that it shows what most do not. By default there are the smooth fields that any crystal may have,
/// and of defects none. What is drawn follows from the specimen's seed alone, so that a probability does not change anything else
/// in a scene.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rarities {
    /// Vacancies, substitutions, antisites and interstitials, together 0.2 to 3 % of the columns.
    pub point_defects: f64,
    pub amorphous: f64,
    pub contamination: f64,
    pub dislocation: f64,
    pub stacking_fault: f64,
    pub antiphase: f64,
    pub grain: f64,
    pub inclusion: f64,
    pub zone_axis: f64,
    pub vacuum: f64,
    /// A substrate of another cell, coherent or relaxed.
    pub substrate: f64,
    /// Strain growing to at most 3 % at the corners of the frame.
    pub strain_gradient: f64,
    pub bending: f64,
    /// A gradient or layers of a second component, or a uniform alloy.
    pub alloy: f64,
    /// A patchwork of variants in place of parallel domains.
    pub mosaic: f64,
}

impl Default for Rarities {
    fn default() -> Self {
        Self { strain_gradient: 0.2, bending: 0.1, alloy: 0.1, contamination: 0.15, ..Self::none() }
    }
}

impl Rarities {
    /// None at all.
    pub fn none() -> Self {
        Self {
            point_defects: 0.0,
            amorphous: 0.0,
            contamination: 0.0,
            dislocation: 0.0,
            stacking_fault: 0.0,
            antiphase: 0.0,
            grain: 0.0,
            inclusion: 0.0,
            zone_axis: 0.0,
            vacuum: 0.0,
            substrate: 0.0,
            strain_gradient: 0.0,
            bending: 0.0,
            alloy: 0.0,
            mosaic: 0.0,
        }
    }

    /// # Errors
    /// [`InvalidSetting`] for the first that is no probability.
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = super::check::Check(key_prefix);
        let all = [
            ("point_defects", self.point_defects),
            ("amorphous", self.amorphous),
            ("contamination", self.contamination),
            ("dislocation", self.dislocation),
            ("stacking_fault", self.stacking_fault),
            ("antiphase", self.antiphase),
            ("grain", self.grain),
            ("inclusion", self.inclusion),
            ("zone_axis", self.zone_axis),
            ("vacuum", self.vacuum),
            ("substrate", self.substrate),
            ("strain_gradient", self.strain_gradient),
            ("bending", self.bending),
            ("alloy", self.alloy),
            ("mosaic", self.mosaic),
        ];
        all.into_iter().try_for_each(|(key, probability)| check.within(key, probability, [0.0, 1.0]))
    }

    /// Adds what the specimen's seed draws, within `half_diagonal_nm` of its origin.
    pub(super) fn add_to(&self, specimen: &mut Specimen, half_diagonal_nm: f64) {
        let mut rng = ChaCha8Rng::seed_from_u64(specimen.seed);
        rng.set_stream(1);
        let mut draw = Draw { rng, reach_nm: half_diagonal_nm };
        if draw.happens(self.mosaic) {
            draw.mosaic(specimen);
        }
        if draw.happens(self.alloy) {
            specimen.alloy = draw.alloy();
        }
        if draw.happens(self.strain_gradient) {
            let center_nm = draw.place(0.3);
            let (direction_rad, strain) = (draw.within([0.0, TAU]), draw.within([-0.03, 0.03]));
            let (strain_per_nm, reach_nm) = (strain / half_diagonal_nm, 2.0 * half_diagonal_nm);
            specimen.strain_fields.push(StrainField::Gradient {
                center_nm,
                direction_rad,
                strain_per_nm,
                reach_nm,
            });
        }
        if draw.happens(self.bending) {
            let center_nm = draw.place(0.3);
            let (direction_rad, turn) = (draw.within([0.0, TAU]), draw.within([0.005, 0.05]));
            let (radius_nm, reach_nm) = (half_diagonal_nm / turn, 2.0 * half_diagonal_nm);
            specimen.strain_fields.push(StrainField::Bending {
                center_nm,
                direction_rad,
                radius_nm,
                reach_nm,
            });
        }
        if draw.happens(self.dislocation) {
            let burgers_cells = *draw.one_of(&[[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [1, -1]]);
            let at_nm = draw.place(0.6);
            specimen.dislocations.push(Dislocation { at_nm, burgers_cells, poisson_ratio: 0.3 });
        }
        if draw.happens(self.substrate) {
            specimen.substrate = Some(draw.substrate(specimen));
        }
        draw.regions(self, specimen);
        draw.defects(self, specimen);
    }
}

/// Draws within reach of the specimen's origin.
struct Draw {
    rng: ChaCha8Rng,
    reach_nm: f64,
}

impl Draw {
    fn happens(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    fn within(&mut self, range: [f64; 2]) -> f64 {
        uniform(range, &mut self.rng)
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.rng.random_range(0..choices.len())]
    }

    /// Anywhere within a fraction of the reach, `[y, x]` in nm.
    fn place(&mut self, fraction: f64) -> [f64; 2] {
        let far = fraction * self.reach_nm;
        [self.within([-far, far]), self.within([-far, far])]
    }

    fn line(&mut self) -> ([f64; 2], f64) {
        (self.place(0.5), self.within([0.0, TAU]))
    }

    fn edge(&mut self) -> Edge {
        Edge { roughness_nm: self.within([0.0, 0.4]), wavelength_nm: self.within([2.0, 8.0]) }
    }

    fn half_plane(&mut self) -> Shape {
        let (at_nm, normal_rad) = self.line();
        Shape::HalfPlane { at_nm, normal_rad, edge: self.edge() }
    }

    fn blob(&mut self) -> Shape {
        let reach = self.reach_nm;
        Shape::Circle {
            center_nm: self.place(0.6),
            radius_nm: self.within([0.1 * reach, 0.5 * reach]).max(0.1),
        }
    }

    fn mosaic(&mut self, specimen: &mut Specimen) {
        let p = self.within([5.0, 45.0]);
        let diagonal = self.happens(0.5);
        specimen.variants_pm = (0..4)
            .map(|n| {
                let direction = FRAC_PI_2 * (f64::from(n) + if diagonal { 0.5 } else { 0.0 });
                [p * direction.cos(), p * direction.sin()]
            })
            .collect();
        specimen.polarization = Polarization::Mosaic {
            domain_nm: self.reach_nm * self.within([0.5, 1.5]) + 0.5,
            width_nm: self.within([0.3, 2.0]),
            weights: (0..4).map(|_| self.within([0.1, 1.0])).collect(),
        };
    }

    fn alloy(&mut self) -> Alloy {
        let (from, to) = (self.within([0.0, 0.5]), self.within([0.0, 0.5]));
        let fraction = match self.rng.random_range(0..3) {
            0 => Composition::Uniform { value: from },
            1 => {
                let from_nm = self.place(0.5);
                let direction = self.within([0.0, TAU]);
                let length = self.reach_nm.max(1.0);
                let to_nm = [from_nm[0] + length * direction.sin(), from_nm[1] + length * direction.cos()];
                Composition::Gradient { from_nm, to_nm, from, to }
            }
            _ => Composition::Layers {
                normal_rad: self.within([0.0, TAU]),
                at_nm: vec![self.within([-0.5, 0.5]) * self.reach_nm],
                values: vec![from, to],
                width_nm: self.within([0.4, 3.0]),
            },
        };
        Alloy {
            fraction,
            atoms_per_column: *self.one_of(&[0, 30, 80]),
            a_intensity_ratio: self.within([0.4, 1.6]),
            b_intensity_ratio: 1.0,
            a_sigma_ratio: 1.0,
            cell_ratio: self.within([0.96, 1.04]),
            polarization_ratio: self.within([0.0, 1.2]),
        }
    }

    /// Another crystal with a cell of its own.
    fn phase(&mut self, specimen: &Specimen) -> Phase {
        let mut shape = |[low, high]: [f64; 2]| ColumnShape {
            intensity: uniform([low, high], &mut self.rng),
            sigma_pm: uniform([50.0, 95.0], &mut self.rng),
        };
        let (a, b) = (shape([0.3, 1.2]), shape([0.15, 0.9]));
        let scale = *self.one_of(&[0.94, 0.97, 1.03, 1.06]);
        Phase {
            cell_a_pm: (specimen.cell_a_pm * scale).clamp(200.0, 1000.0),
            cell_b_pm: (specimen.cell_b_pm * scale).clamp(200.0, 1000.0),
            a,
            b,
            o: specimen.columns.o,
            p_pm: [0.0, 0.0],
        }
    }

    fn substrate(&mut self, specimen: &Specimen) -> Substrate {
        Substrate {
            phase: self.phase(specimen),
            toward: *self.one_of(&[Toward::A, Toward::MinusA, Toward::B, Toward::MinusB]),
            at_nm: self.within([-0.5, 0.5]) * self.reach_nm,
            edge: self.edge(),
            relaxed: *self.one_of(&[0.0, 0.0, 0.5, 1.0]),
            poisson_ratio: 0.3,
            polarization_width_nm: self.within([0.4, 4.0]),
        }
    }

    fn regions(&mut self, rarities: &Rarities, specimen: &mut Specimen) {
        if self.happens(rarities.antiphase) {
            let shape = self.half_plane();
            specimen.regions.push(Region { shape, content: Content::Antiphase { shift_cells: [0.5, 0.5] } });
        }
        if self.happens(rarities.stacking_fault) {
            let (at_nm, normal_rad) = self.line();
            let width_nm = self.within([0.6, 3.0]);
            let shape = Shape::Strip { at_nm, normal_rad, width_nm, edge: Edge::default() };
            let shift_cells = *self.one_of(&[[0.5, 0.0], [0.0, 0.5], [0.5, 0.5]]);
            specimen.regions.push(Region { shape, content: Content::StackingFault { shift_cells } });
        }
        if self.happens(rarities.grain) {
            let shape = if self.happens(0.5) { self.half_plane() } else { self.blob() };
            let content = Content::Grain {
                rotation_rad: self.within([0.1, 1.4]),
                shift_pm: [self.within([0.0, 400.0]), self.within([0.0, 400.0])],
            };
            specimen.regions.push(Region { shape, content });
        }
        if self.happens(rarities.inclusion) {
            let (shape, phase) = (self.blob(), self.phase(specimen));
            let content = Content::Inclusion {
                phase,
                zone_axis: ZoneAxis::Z100,
                rotation_rad: self.within([-0.3, 0.3]),
            };
            specimen.regions.push(Region { shape, content });
        }
        if self.happens(rarities.zone_axis) {
            let shape = self.blob();
            let rotation_rad = self.within([0.0, TAU]);
            specimen.regions.push(Region {
                shape,
                content: Content::ZoneAxis { zone_axis: ZoneAxis::Z110, rotation_rad },
            });
        }
        if self.happens(rarities.vacuum) {
            let shape = self.half_plane();
            specimen.regions.push(Region { shape, content: Content::Vacuum });
        }
    }

    fn defects(&mut self, rarities: &Rarities, specimen: &mut Specimen) {
        if self.happens(rarities.point_defects) {
            let each = self.within([0.001f64.ln(), 0.015f64.ln()]).exp();
            specimen.random_defects = RandomDefects {
                vacancy_a: each,
                vacancy_b: each,
                vacancy_o: each,
                substitution_a: each,
                substitution_b: each,
                antisite_a: each,
                antisite_b: each,
                interstitial: each,
                vacancy_intensity_ratio: self.within([0.0, 0.6]),
                substitution_intensity_ratio: *self.one_of(&[0.5, 0.7, 1.4, 1.8]),
                antisite_fraction: self.within([0.3, 1.0]),
                interstitial_intensity_ratio: self.within([0.1, 0.5]),
                ..RandomDefects::default()
            };
        }
        let patches = [
            (DefectKind::Amorphous, rarities.amorphous, 0.0),
            (DefectKind::Contamination, rarities.contamination, 1.0),
        ];
        for (kind, probability, most) in patches {
            if self.happens(probability) {
                let at_nm = self.place(0.6);
                let radius_nm = (self.reach_nm * self.within([0.1, 0.4])).clamp(0.1, 1e3);
                let intensity_ratio = most * self.within([0.2, 1.0]);
                specimen.defects.push(Defect { kind, at_nm, intensity_ratio, radius_nm });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TrainingRanges, random_scene, render};
    use super::*;

    fn everything() -> Rarities {
        let table = toml::Table::try_from(Rarities::default()).unwrap();
        let all = table.keys().map(|key| (key.clone(), toml::Value::Float(1.0)));
        toml::Value::Table(all.collect()).try_into().unwrap()
    }

    #[test]
    fn what_is_not_asked_for_changes_nothing() {
        let plain = TrainingRanges { rarities: Rarities::none(), ..TrainingRanges::default() };
        let rare = TrainingRanges { rarities: everything(), ..plain.clone() };
        rare.validate("scenes").unwrap();
        let scenes = [plain, rare].map(|ranges| {
            let mut rng = ChaCha8Rng::seed_from_u64(8);
            let scene = random_scene(&ranges, [96, 96], &mut rng);
            (scene, rng.random::<u64>())
        });
        let [((plain, scan), next), ((rare, same_scan), same_next)] = scenes;
        assert_eq!((scan, next), (same_scan, same_next));
        assert_eq!(plain.columns, rare.columns);
        assert!(plain.defects.is_empty() && plain.regions.is_empty() && plain.strain_fields.is_empty());
        assert_eq!(rare.regions.len(), 6);
        assert_eq!(rare.strain_fields.len(), 2);
        assert!(rare.substrate.is_some() && rare.dislocations.len() == 1 && !rare.alloy.is_pure());
    }

    #[test]
    fn scenes_with_everything_can_be_rendered() {
        let ranges = TrainingRanges { rarities: everything(), ..TrainingRanges::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut kinds = std::collections::HashSet::new();
        for _ in 0..40 {
            let (specimen, microscope) = random_scene(&ranges, [160, 160], &mut rng);
            let frame = render(&specimen, &microscope, &mut rng).unwrap();
            assert!(frame.pixels.iter().all(|v| v.is_finite()));
            for cell in &frame.truth.cells {
                assert!(cell.p_x.is_finite() && cell.cell_area > 0.0, "{cell:?} {specimen:?}");
            }
            kinds.extend(frame.truth.defects.iter().map(|defect| defect.kind));
        }
        // Small frames, mostly covered by regions, do not show every kind of single column.
        let (single, extended): (Vec<_>, Vec<_>) =
            DefectKind::ALL.into_iter().partition(|kind| kind.code() <= DefectKind::Interstitial.code());
        assert!(single.iter().filter(|kind| kinds.contains(kind)).count() >= 4, "{kinds:?}");
        assert!(extended.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    }

    #[test]
    fn probabilities_are_checked_by_name() {
        let rarities = Rarities { grain: 1.5, ..Rarities::default() };
        let ranges = TrainingRanges { rarities, ..TrainingRanges::default() };
        assert_eq!(ranges.validate("scenes").unwrap_err().key, "scenes.rarities.grain");
    }
}
