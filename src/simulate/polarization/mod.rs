//! Where in the specimen the polar displacement points where.

mod field;
mod mosaic;
mod walls;

pub(super) use field::{Host, PolarizationField};
pub use walls::{DomainWalls, WallKind};

use super::check::Check;
use super::microscope::turned;
use crate::config::InvalidSetting;
use serde::{Deserialize, Serialize};

/// Polar displacement P (B minus the mean of its A neighbours) as a function of position. Vectors are `[x, y]` in pm in the
/// lattice frame (x along a); positions are `[y, x]` in nm in the specimen frame; variants are those of
/// [`Specimen::variants_pm`](super::Specimen::variants_pm).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Polarization {
    /// The same everywhere; zero for a non-polar crystal.
    Uniform { p_pm: [f64; 2] },
    /// Parallel domains that take `vectors_pm` in turn, with walls between them.
    Domains {
        vectors_pm: Vec<[f64; 2]>,
        /// Direction of the walls' normal in the specimen frame, counter-clockwise from the x axis as displayed.
        normal_rad: f64,
        walls: DomainWalls,
        /// Full width 2ξ of the profile tanh(s / ξ), s the distance from the wall.
        width_nm: f64,
    },
    /// Parallel domains of two variants in turn, with walls of one kind between them; the kind chooses the second variant and the
    /// walls' normal, along which their positions are counted.
    Stripes {
        wall: WallKind,
        /// Number of the first variant.
        #[serde(default)]
        first: usize,
        walls: DomainWalls,
        width_nm: f64,
    },
    /// A patchwork of domains of unequal size, each of one of the material's variants.
    Mosaic {
        /// Mean size of the domains.
        domain_nm: f64,
        width_nm: f64,
        /// How often each variant is drawn, up to a common factor; equally where nothing is said.
        #[serde(default)]
        weights: Vec<f64>,
    },
    /// Flux closed round a core, |P| = `magnitude_pm` · tanh(r / `core_nm`).
    Vortex {
        center_nm: [f64; 2],
        core_nm: f64,
        magnitude_pm: f64,
        /// Counter-clockwise as displayed, or clockwise.
        counter_clockwise: bool,
    },
    /// A row of vortices that turn in opposite senses, as in PbTiO3 between SrTiO3: free of bound charge within the layer's
    /// height, dying off over a quarter of it outside.
    VortexRow {
        /// The core of one that turns counter-clockwise as displayed.
        center_nm: [f64; 2],
        /// Direction of the row, counter-clockwise from the specimen's x axis as displayed.
        direction_rad: f64,
        /// From core to core.
        spacing_nm: f64,
        height_nm: f64,
        /// Of P halfway between two cores.
        magnitude_pm: f64,
    },
    /// Four domains with P along the lattice's axes round a core, parted by 90° walls along the diagonals; with a spacing a row of
    /// them along a that turn in opposite senses.
    FluxClosure {
        center_nm: [f64; 2],
        width_nm: f64,
        magnitude_pm: f64,
        /// Counter-clockwise as displayed, or clockwise.
        counter_clockwise: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spacing_nm: Option<f64>,
    },
}

impl Default for Polarization {
    fn default() -> Self {
        Self::Uniform { p_pm: [0.0, 0.0] }
    }
}

impl Polarization {
    /// The kinds that need nothing but themselves and the lattice's direction; zero for the others.
    fn at(&self, position_nm: [f64; 2], lattice_rotation_rad: f64) -> [f64; 2] {
        let from = |center_nm: &[f64; 2]| [position_nm[1] - center_nm[1], position_nm[0] - center_nm[0]];
        match self {
            Self::Uniform { p_pm } => *p_pm,
            Self::Vortex { center_nm, core_nm, magnitude_pm, counter_clockwise } => {
                let [dx, dy] = from(center_nm);
                let r = dx.hypot(dy);
                if r == 0.0 {
                    return [0.0, 0.0];
                }
                // Right of the core (dx > 0) a counter-clockwise flux points up, which is -y.
                let scale = sense(*counter_clockwise) * magnitude_pm * (r / core_nm).tanh() / r;
                turned([scale * dy, -scale * dx], -lattice_rotation_rad)
            }
            Self::VortexRow { center_nm, direction_rad, spacing_nm, height_nm, magnitude_pm } => {
                // Along the row, and across it (y down).
                let [s, n] = turned(from(center_nm), -direction_rad);
                let (k, q) = (std::f64::consts::PI / spacing_nm, std::f64::consts::PI / height_nm);
                let outside = (n.abs() - 0.5 * height_nm).max(0.0);
                let within = n.clamp(-0.5 * height_nm, 0.5 * height_nm);
                let fade = magnitude_pm * (-4.0 * outside / height_nm).exp();
                // The curl of a stream function sin(k s) cos(q n): no divergence.
                let along = fade * (q / k) * (k * s).cos() * (q * within).sin();
                let across = -fade * (k * s).sin() * (q * within).cos();
                turned([along, across], direction_rad - lattice_rotation_rad)
            }
            Self::FluxClosure { center_nm, width_nm, magnitude_pm, counter_clockwise, spacing_nm } => {
                let [mut x, y] = turned(from(center_nm), -lattice_rotation_rad);
                let mut turn = sense(*counter_clockwise);
                if let Some(spacing_nm) = spacing_nm {
                    let neighbour = (x / spacing_nm).round();
                    x -= neighbour * spacing_nm;
                    if neighbour.rem_euclid(2.0) == 1.0 {
                        turn = -turn;
                    }
                }
                // Distances from the two diagonals: the signs tell right, top, left and bottom apart.
                let side = |s: f64| (2.0 * s / (std::f64::consts::SQRT_2 * width_nm)).tanh();
                let (u, v) = (side(x - y), side(x + y));
                [0.5 * turn * magnitude_pm * (v - u), -0.5 * turn * magnitude_pm * (u + v)]
            }
            Self::Domains { .. } | Self::Stripes { .. } | Self::Mosaic { .. } => [0.0, 0.0],
        }
    }

    pub(super) fn validate(&self, key_prefix: &str, variants_pm: &[[f64; 2]]) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        let length = |key: &str, value: f64| {
            check.that(value > 0.0 && value.is_finite(), key, &value, "a length above 0")
        };
        match self {
            Self::Uniform { p_pm } => check.displacement("p_pm", *p_pm),
            Self::Domains { vectors_pm, normal_rad, walls, width_nm } => {
                let expected = "at least one vector, components of at most 200 pm";
                let sensible = vectors_pm.iter().flatten().all(|c| c.abs() <= 200.0);
                check.that(!vectors_pm.is_empty() && sensible, "vectors_pm", vectors_pm, expected)?;
                check.that(normal_rad.is_finite(), "normal_rad", normal_rad, "a finite angle")?;
                length("width_nm", *width_nm)?;
                walls.validate(key_prefix)
            }
            Self::Stripes { wall, first, walls, width_nm } => {
                let known = *first < variants_pm.len();
                let expected =
                    format!("the number of one of the {} variants of the material", variants_pm.len());
                check.that(known, "first", first, &expected)?;
                let expected = "a kind of wall that the variant can have: 71 or 109 for rhombohedral, 90 for tetragonal, 180";
                check.that(wall.pair(variants_pm, *first).is_some(), "wall", wall, expected)?;
                length("width_nm", *width_nm)?;
                walls.validate(key_prefix)
            }
            Self::Mosaic { domain_nm, width_nm, weights } => {
                let polar = !variants_pm.is_empty();
                check.that(polar, "kind", &"mosaic", "a polar material, with variants to make domains of")?;
                check.within("domain_nm", *domain_nm, [0.5, 1e5])?;
                length("width_nm", *width_nm)?;
                let one_each = weights.is_empty() || weights.len() == variants_pm.len();
                let positive = weights.iter().all(|w| (0.0..=1e6).contains(w))
                    && (weights.is_empty() || weights.iter().sum::<f64>() > 0.0);
                let expected = "none, or one a variant, not negative and not all 0";
                check.that(one_each && positive, "weights", weights, expected)
            }
            Self::Vortex { center_nm, core_nm, magnitude_pm, .. } => {
                check.position("center_nm", *center_nm)?;
                length("core_nm", *core_nm)?;
                check.within("magnitude_pm", *magnitude_pm, [0.0, 200.0])
            }
            Self::VortexRow { center_nm, direction_rad, spacing_nm, height_nm, magnitude_pm } => {
                check.position("center_nm", *center_nm)?;
                check.angle("direction_rad", *direction_rad)?;
                length("spacing_nm", *spacing_nm)?;
                length("height_nm", *height_nm)?;
                check.within("magnitude_pm", *magnitude_pm, [0.0, 200.0])
            }
            Self::FluxClosure { center_nm, width_nm, magnitude_pm, spacing_nm, .. } => {
                check.position("center_nm", *center_nm)?;
                length("width_nm", *width_nm)?;
                check.within("magnitude_pm", *magnitude_pm, [0.0, 200.0])?;
                spacing_nm.map_or(Ok(()), |spacing_nm| length("spacing_nm", spacing_nm))
            }
        }
    }
}

const fn sense(counter_clockwise: bool) -> f64 {
    if counter_clockwise { 1.0 } else { -1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Polarization {
        fn seen(&self, position_nm: [f64; 2], rotation_rad: f64) -> [f64; 2] {
            let variants_pm = &[[20.0, 20.0], [-20.0, 20.0], [-20.0, -20.0], [20.0, -20.0]];
            PolarizationField::new(self, Host { variants_pm, rotation_rad, seed: 1 }).at(position_nm)
        }
    }

    fn close(found: [f64; 2], expected: [f64; 2]) {
        assert!((found[0] - expected[0]).abs() < 1e-9 && (found[1] - expected[1]).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn domains_alternate_and_vanish_at_a_180_degree_wall() {
        let domains = Polarization::Domains {
            vectors_pm: vec![[30.0, 0.0], [-30.0, 0.0]],
            normal_rad: 0.0,
            walls: DomainWalls::Periodic { spacing_nm: 10.0, offset_nm: 2.0 },
            width_nm: 0.8,
        };
        close(domains.seen([5.0, 7.0], 0.0), [30.0, 0.0]);
        close(domains.seen([5.0, 17.0], 0.0), [-30.0, 0.0]);
        close(domains.seen([5.0, -3.0], 0.0), [-30.0, 0.0]);
        close(domains.seen([-9.0, 12.0], 0.0), [0.0, 0.0]);
        // One ξ = width / 2 past the wall the profile is tanh(1) of the way from zero.
        close(domains.seen([0.0, 12.4], 0.0), [-30.0 * 1f64.tanh(), 0.0]);
    }

    #[test]
    fn listed_walls_bound_the_first_and_last_domain() {
        let domains = Polarization::Domains {
            vectors_pm: vec![[30.0, 0.0], [0.0, 30.0], [0.0, -30.0]],
            // Normal along +90° counter-clockwise: up, so s = -y.
            normal_rad: std::f64::consts::FRAC_PI_2,
            walls: DomainWalls::AtNm(vec![-5.0, 5.0]),
            width_nm: 0.1,
        };
        close(domains.seen([100.0, 0.0], 0.0), [30.0, 0.0]);
        close(domains.seen([0.0, 0.0], 0.0), [0.0, 30.0]);
        close(domains.seen([-100.0, 0.0], 0.0), [0.0, -30.0]);
    }

    #[test]
    fn a_counter_clockwise_vortex_points_up_on_its_right_in_any_lattice() {
        let vortex = Polarization::Vortex {
            center_nm: [0.0, 0.0],
            core_nm: 1e-6,
            magnitude_pm: 20.0,
            counter_clockwise: true,
        };
        close(vortex.seen([0.0, 4.0], 0.0), [0.0, -20.0]);
        close(vortex.seen([-4.0, 0.0], 0.0), [-20.0, 0.0]);
        // In a lattice turned by +90° (a points up) the same vector lies along +a.
        close(vortex.seen([0.0, 4.0], std::f64::consts::FRAC_PI_2), [20.0, 0.0]);
        assert_eq!(vortex.seen([0.0, 0.0], 0.3), [0.0, 0.0]);
    }

    #[test]
    fn each_kind_of_wall_turns_p_across_its_width() {
        for (wall, turn) in [(WallKind::Deg71, 90.0), (WallKind::Deg109, 90.0), (WallKind::Deg180, 180.0)] {
            for rotation_rad in [0.0, 0.7] {
                let stripes = Polarization::Stripes {
                    wall,
                    first: 1,
                    walls: DomainWalls::AtNm(vec![3.0]),
                    width_nm: 2.0,
                };
                let pair =
                    wall.pair(&[[20.0, 20.0], [-20.0, 20.0], [-20.0, -20.0], [20.0, -20.0]], 1).unwrap();
                let [nx, ny] = turned(pair.normal, rotation_rad);
                let at = |s: f64| stripes.seen([s * ny, s * nx], rotation_rad);
                let (before, after) = (at(-20.0), at(20.0));
                close(before, [-20.0, 20.0]);
                let dot = before[0] * after[0] + before[1] * after[1];
                assert!((dot / 800.0 - f64::to_radians(turn).cos()).abs() < 1e-9, "{wall:?}");
                // Half of the way at the wall; tanh(1) = 76 % of it between the ends of the full width.
                close(at(3.0), [0.5 * (before[0] + after[0]), 0.5 * (before[1] + after[1])]);
                let across = [at(2.0), at(4.0)];
                let way = (across[1][0] - across[0][0]).hypot(across[1][1] - across[0][1]);
                let whole = (after[0] - before[0]).hypot(after[1] - before[1]);
                assert!((way / whole - 1f64.tanh()).abs() < 1e-9, "{wall:?}");
            }
        }
    }

    #[test]
    fn vortex_rows_turn_in_turn_and_carry_no_charge() {
        let row = Polarization::VortexRow {
            center_nm: [1.0, 2.0],
            direction_rad: 0.4,
            spacing_nm: 5.0,
            height_nm: 6.0,
            magnitude_pm: 20.0,
        };
        let at = |s: f64, n: f64| {
            let [x, y] = turned([s, n], 0.4);
            turned(row.seen([1.0 + y, 2.0 + x], 0.0), -0.4)
        };
        close(at(0.0, 0.0), [0.0, 0.0]);
        // Right of the counter-clockwise core up, left of it down; above it to the left; the next one the other way.
        close(at(2.5, 0.0), [0.0, -20.0]);
        close(at(-2.5, 0.0), [0.0, 20.0]);
        assert!(at(0.0, -1.0)[0] < -5.0 && at(5.0, -1.0)[0] > 5.0);
        for (s, n) in [(0.3, 0.2), (1.7, -2.0), (4.4, 2.2)] {
            let h = 1e-4;
            let divergence =
                (at(s + h, n)[0] - at(s - h, n)[0] + at(s, n + h)[1] - at(s, n - h)[1]) / (2.0 * h);
            assert!(divergence.abs() < 1e-5, "{divergence}");
        }
        assert!(at(0.0, 12.0)[0].abs() < 0.1);
    }

    #[test]
    fn flux_closes_round_four_quadrants_and_its_neighbours_turn_the_other_way() {
        let closure = Polarization::FluxClosure {
            center_nm: [0.0, 0.0],
            width_nm: 0.4,
            magnitude_pm: 15.0,
            counter_clockwise: true,
            spacing_nm: Some(20.0),
        };
        close(closure.seen([0.0, 8.0], 0.0), [0.0, -15.0]);
        close(closure.seen([-8.0, 0.0], 0.0), [-15.0, 0.0]);
        close(closure.seen([0.0, -8.0], 0.0), [0.0, 15.0]);
        close(closure.seen([8.0, 0.0], 0.0), [15.0, 0.0]);
        close(closure.seen([-8.0, 20.0], 0.0), [15.0, 0.0]);
        close(closure.seen([0.0, 12.0], 0.0), [0.0, -15.0]);
        close(closure.seen([0.0, 0.0], 0.0), [0.0, 0.0]);
    }
}
