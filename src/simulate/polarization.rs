//! Where in the specimen the polar displacement points where.

use crate::config::InvalidSetting;
use serde::{Deserialize, Serialize};

/// Polar displacement P (B minus the mean of its A neighbours) as a function of position. Vectors are `[x, y]` in pm in the
/// lattice frame (x along a); positions are `[y, x]` in nm in the specimen frame.
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
    /// Flux closed round a core, |P| = `magnitude_pm` · tanh(r / `core_nm`).
    Vortex {
        center_nm: [f64; 2],
        core_nm: f64,
        magnitude_pm: f64,
        /// Counter-clockwise as displayed, or clockwise.
        counter_clockwise: bool,
    },
}

/// Positions of the domain walls along their normal, nm from the specimen's origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DomainWalls {
    /// A wall every `spacing_nm`, one of them at `offset_nm`.
    Periodic { spacing_nm: f64, offset_nm: f64 },
    /// Walls at these ascending positions and nowhere else.
    AtNm(Vec<f64>),
}

impl Default for Polarization {
    fn default() -> Self {
        Self::Uniform { p_pm: [0.0, 0.0] }
    }
}

impl Polarization {
    /// P in pm at `position_nm` = `[y, x]`, as `[x, y]` in the lattice frame of a lattice turned by `lattice_rotation_rad`.
    pub(super) fn at(&self, position_nm: [f64; 2], lattice_rotation_rad: f64) -> [f64; 2] {
        match self {
            Self::Uniform { p_pm } => *p_pm,
            Self::Domains { vectors_pm, normal_rad, walls, width_nm } => {
                let [y, x] = position_nm;
                let s_nm = x * normal_rad.cos() - y * normal_rad.sin();
                let (domain, nearest_nm) = walls.domain_and_nearest(s_nm);
                let vector = |k: i64| vectors_pm[k.rem_euclid(vectors_pm.len() as i64) as usize];
                let Some((wall_nm, before)) = nearest_nm else { return vector(domain) };
                let [from, to] = [vector(before), vector(before + 1)];
                let after = 0.5 * (1.0 + (2.0 * (s_nm - wall_nm) / width_nm).tanh());
                [from[0] + (to[0] - from[0]) * after, from[1] + (to[1] - from[1]) * after]
            }
            Self::Vortex { center_nm, core_nm, magnitude_pm, counter_clockwise } => {
                let (dy, dx) = (position_nm[0] - center_nm[0], position_nm[1] - center_nm[1]);
                let r = dx.hypot(dy);
                if r == 0.0 {
                    return [0.0, 0.0];
                }
                // Right of the core (dx > 0) a counter-clockwise flux points up, which is -y.
                let sense = if *counter_clockwise { 1.0 } else { -1.0 };
                let scale = sense * magnitude_pm * (r / core_nm).tanh() / r;
                super::microscope::turned([scale * dy, -scale * dx], -lattice_rotation_rad)
            }
        }
    }

    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let invalid = |key: &str, value: String, expected: &str| {
            Err(InvalidSetting::new(format!("{key_prefix}.{key}"), value, expected))
        };
        let sensible = |p: &[f64; 2]| p.iter().all(|c| c.abs() <= 200.0);
        match self {
            Self::Uniform { p_pm } if !sensible(p_pm) => {
                invalid("p_pm", format!("{p_pm:?}"), "components of at most 200 pm")
            }
            Self::Domains { vectors_pm, normal_rad, walls, width_nm } => {
                if vectors_pm.is_empty() || !vectors_pm.iter().all(sensible) {
                    let value = format!("{vectors_pm:?}");
                    return invalid("vectors_pm", value, "at least one vector, components of at most 200 pm");
                }
                if !normal_rad.is_finite() {
                    return invalid("normal_rad", normal_rad.to_string(), "a finite angle");
                }
                if !(*width_nm > 0.0 && width_nm.is_finite()) {
                    return invalid("width_nm", width_nm.to_string(), "a length above 0");
                }
                match walls {
                    DomainWalls::Periodic { spacing_nm, offset_nm } => {
                        if !(*spacing_nm > 0.0 && spacing_nm.is_finite() && offset_nm.is_finite()) {
                            let value = format!("{spacing_nm}, {offset_nm}");
                            return invalid("walls.periodic", value, "a spacing above 0 and a finite offset");
                        }
                    }
                    DomainWalls::AtNm(positions) => {
                        let ascending = positions.windows(2).all(|w| w[0] < w[1]);
                        if !ascending || !positions.iter().all(|p| p.is_finite()) {
                            let value = format!("{positions:?}");
                            return invalid("walls.at_nm", value, "finite positions in ascending order");
                        }
                    }
                }
                Ok(())
            }
            Self::Vortex { center_nm, core_nm, magnitude_pm, .. } => {
                if !center_nm.iter().all(|c| c.is_finite()) {
                    return invalid("center_nm", format!("{center_nm:?}"), "finite coordinates");
                }
                if !(*core_nm > 0.0 && core_nm.is_finite()) {
                    return invalid("core_nm", core_nm.to_string(), "a length above 0");
                }
                if !(0.0..=200.0).contains(magnitude_pm) {
                    return invalid("magnitude_pm", magnitude_pm.to_string(), "0 to 200");
                }
                Ok(())
            }
            Self::Uniform { .. } => Ok(()),
        }
    }
}

impl DomainWalls {
    /// The number of the domain at `s_nm`, and the nearest wall with the number of the domain before it.
    fn domain_and_nearest(&self, s_nm: f64) -> (i64, Option<(f64, i64)>) {
        match self {
            Self::Periodic { spacing_nm, offset_nm } => {
                let wall = ((s_nm - offset_nm) / spacing_nm).round();
                let position_nm = offset_nm + wall * spacing_nm;
                let before = wall as i64 - 1;
                (if s_nm < position_nm { before } else { before + 1 }, Some((position_nm, before)))
            }
            Self::AtNm(positions) => {
                let domain = positions.partition_point(|&p| p <= s_nm);
                let nearest = [domain.checked_sub(1), Some(domain)]
                    .into_iter()
                    .flatten()
                    .filter_map(|k| Some((*positions.get(k)?, k as i64)))
                    .min_by(|a, b| (a.0 - s_nm).abs().total_cmp(&(b.0 - s_nm).abs()));
                (domain as i64, nearest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        close(domains.at([5.0, 7.0], 0.0), [30.0, 0.0]);
        close(domains.at([5.0, 17.0], 0.0), [-30.0, 0.0]);
        close(domains.at([5.0, -3.0], 0.0), [-30.0, 0.0]);
        close(domains.at([-9.0, 12.0], 0.0), [0.0, 0.0]);
        // One ξ = width / 2 past the wall the profile is tanh(1) of the way from zero.
        close(domains.at([0.0, 12.4], 0.0), [-30.0 * 1f64.tanh(), 0.0]);
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
        close(domains.at([100.0, 0.0], 0.0), [30.0, 0.0]);
        close(domains.at([0.0, 0.0], 0.0), [0.0, 30.0]);
        close(domains.at([-100.0, 0.0], 0.0), [0.0, -30.0]);
    }

    #[test]
    fn a_counter_clockwise_vortex_points_up_on_its_right_in_any_lattice() {
        let vortex = Polarization::Vortex {
            center_nm: [0.0, 0.0],
            core_nm: 1e-6,
            magnitude_pm: 20.0,
            counter_clockwise: true,
        };
        close(vortex.at([0.0, 4.0], 0.0), [0.0, -20.0]);
        close(vortex.at([-4.0, 0.0], 0.0), [-20.0, 0.0]);
        // In a lattice turned by +90° (a points up) the same vector lies along +a.
        close(vortex.at([0.0, 4.0], std::f64::consts::FRAC_PI_2), [20.0, 0.0]);
        assert_eq!(vortex.at([0.0, 0.0], 0.3), [0.0, 0.0]);
    }
}
