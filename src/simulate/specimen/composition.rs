//! Alloys of two components, such as Sm for Bi in BiFeO3.

use crate::config::InvalidSetting;
use crate::simulate::check::Check;
use serde::{Deserialize, Serialize};

/// Replacement of the host's A atoms: how much of it where, and what it changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alloy {
    pub fraction: Composition,
    /// Atoms in a column; each is foreign by chance, so that columns scatter about the local fraction. 0: no scatter.
    pub atoms_per_column: u32,
    /// What full replacement multiplies by: peak height of the A columns, of the B columns, width of the A columns, edges of the
    /// cell, and P. In between, the change goes with the fraction (Vegard's rule).
    pub a_intensity_ratio: f64,
    pub b_intensity_ratio: f64,
    pub a_sigma_ratio: f64,
    /// Where the fraction varies along a direction, only the edge along it follows; the other stays as at the origin (coherent).
    pub cell_ratio: f64,
    pub polarization_ratio: f64,
}

/// Fraction of the A atoms that are foreign, 0 to 1, as a function of position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Composition {
    Uniform {
        value: f64,
    },
    /// Changes steadily between the two ends and stays as it is beyond them.
    Gradient {
        from_nm: [f64; 2],
        to_nm: [f64; 2],
        from: f64,
        to: f64,
    },
    /// Layers, one more than there are boundaries between them.
    Layers {
        /// Direction of the layers' normal, counter-clockwise from the specimen's x axis as displayed.
        normal_rad: f64,
        /// Boundaries along the normal in ascending order, nm from the specimen's origin.
        at_nm: Vec<f64>,
        values: Vec<f64>,
        /// Full width 2ξ of the boundaries' profile tanh(s / ξ).
        width_nm: f64,
    },
}

impl Default for Alloy {
    /// No foreign atoms, and no effect if there were.
    fn default() -> Self {
        Self {
            fraction: Composition::Uniform { value: 0.0 },
            atoms_per_column: 0,
            a_intensity_ratio: 1.0,
            b_intensity_ratio: 1.0,
            a_sigma_ratio: 1.0,
            cell_ratio: 1.0,
            polarization_ratio: 1.0,
        }
    }
}

impl Alloy {
    /// Whether there are foreign atoms anywhere.
    pub(in crate::simulate) fn is_pure(&self) -> bool {
        matches!(self.fraction, Composition::Uniform { value: 0.0 })
    }

    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        self.fraction.validate(&check.key("fraction"))?;
        check.that(
            self.atoms_per_column <= 10_000,
            "atoms_per_column",
            &self.atoms_per_column,
            "0 to 10000",
        )?;
        check.within("a_intensity_ratio", self.a_intensity_ratio, [0.0, 10.0])?;
        check.within("b_intensity_ratio", self.b_intensity_ratio, [0.0, 10.0])?;
        check.within("a_sigma_ratio", self.a_sigma_ratio, [0.2, 5.0])?;
        check.within("cell_ratio", self.cell_ratio, [0.85, 1.15])?;
        check.within("polarization_ratio", self.polarization_ratio, [-5.0, 5.0])
    }
}

impl Composition {
    fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        match self {
            Self::Uniform { value } => check.within("value", *value, [0.0, 1.0]),
            Self::Gradient { from_nm, to_nm, from, to } => {
                check.position("from_nm", *from_nm)?;
                check.position("to_nm", *to_nm)?;
                let apart = (from_nm[0] - to_nm[0]).hypot(from_nm[1] - to_nm[1]) >= 0.1;
                check.that(apart, "to_nm", to_nm, "at least 0.1 nm from from_nm")?;
                check.within("from", *from, [0.0, 1.0])?;
                check.within("to", *to, [0.0, 1.0])
            }
            Self::Layers { normal_rad, at_nm, values, width_nm } => {
                check.angle("normal_rad", *normal_rad)?;
                let ascending = at_nm.windows(2).all(|w| matches!(w, [a, b] if a < b));
                let near = at_nm.iter().all(|at| at.abs() <= 1e6);
                check.that(ascending && near, "at_nm", at_nm, "ascending positions within 1e6 nm")?;
                let one_more = values.len() == at_nm.len() + 1;
                let fractions = values.iter().all(|v| (0.0..=1.0).contains(v));
                let expected = "fractions of 0 to 1, one more than there are boundaries";
                check.that(one_more && fractions, "values", values, expected)?;
                check.within("width_nm", *width_nm, [0.01, 1e4])
            }
        }
    }

    /// The direction along which the fraction varies (specimen frame `[x, y]`), where it varies.
    pub(in crate::simulate) fn direction(&self) -> Option<[f64; 2]> {
        match self {
            Self::Uniform { .. } => None,
            Self::Gradient { from_nm, to_nm, .. } => {
                let (dx, dy) = (to_nm[1] - from_nm[1], to_nm[0] - from_nm[0]);
                let length = dx.hypot(dy);
                Some([dx / length, dy / length])
            }
            Self::Layers { normal_rad, .. } => Some([normal_rad.cos(), -normal_rad.sin()]),
        }
    }

    /// At `position_nm` = `[y, x]`.
    pub(in crate::simulate) fn at(&self, position_nm: [f64; 2]) -> f64 {
        let [y, x] = position_nm;
        match self {
            Self::Uniform { value } => *value,
            Self::Gradient { from_nm, to_nm, from, to } => {
                let (dy, dx) = (to_nm[0] - from_nm[0], to_nm[1] - from_nm[1]);
                let along = ((y - from_nm[0]) * dy + (x - from_nm[1]) * dx) / (dx * dx + dy * dy);
                from + (to - from) * along.clamp(0.0, 1.0)
            }
            Self::Layers { normal_rad, at_nm, values, width_nm } => {
                let s = x * normal_rad.cos() - y * normal_rad.sin();
                steps(at_nm, values).fold(values.first().copied().unwrap_or(0.0), |sum, (at, step)| {
                    sum + step * 0.5 * (1.0 + (2.0 * (s - at) / width_nm).tanh())
                })
            }
        }
    }

    /// ∫ of the fraction along [`direction`](Self::direction), from the specimen's origin to `s_nm` along it, nm.
    pub(in crate::simulate) fn integral_nm(&self, s_nm: f64) -> f64 {
        match self {
            Self::Uniform { value } => value * s_nm,
            Self::Gradient { from_nm, to_nm, from, to } => {
                let (dx, dy) = (to_nm[1] - from_nm[1], to_nm[0] - from_nm[0]);
                let length = dx.hypot(dy);
                let start = (from_nm[1] * dx + from_nm[0] * dy) / length;
                // ∫ of the ramp clamp((s - start) / length, 0, 1).
                let ramp = |s: f64| {
                    let t = (s - start) / length;
                    length * (if t > 1.0 { t - 0.5 } else { 0.5 * t.max(0.0).powi(2) })
                };
                from * s_nm + (to - from) * (ramp(s_nm) - ramp(0.0))
            }
            Self::Layers { at_nm, values, width_nm, .. } => {
                let xi = 0.5 * width_nm;
                // ∫ ½ (1 + tanh(u / ξ)) du, without overflow.
                let soft = |u: f64| u.max(0.0) + 0.5 * xi * (-2.0 * u.abs() / xi).exp().ln_1p();
                let first = values.first().copied().unwrap_or(0.0) * s_nm;
                steps(at_nm, values).fold(first, |sum, (at, step)| sum + step * (soft(s_nm - at) - soft(-at)))
            }
        }
    }
}

/// Each boundary with the change across it.
fn steps<'a>(at_nm: &'a [f64], values: &'a [f64]) -> impl Iterator<Item = (f64, f64)> + 'a {
    let changes = values.iter().zip(values.iter().skip(1)).map(|(before, after)| after - before);
    at_nm.iter().copied().zip(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integral_is_that_of_the_fraction() {
        let cases = [
            Composition::Uniform { value: 0.3 },
            Composition::Gradient { from_nm: [0.0, -4.0], to_nm: [3.0, 0.0], from: 0.1, to: 0.7 },
            Composition::Layers {
                normal_rad: 0.6,
                at_nm: vec![-3.0, 1.0, 5.0],
                values: vec![0.0, 0.5, 0.1, 0.9],
                width_nm: 1.5,
            },
        ];
        for composition in cases {
            let [dx, dy] = composition.direction().unwrap_or([1.0, 0.0]);
            let mut sum = 0.0;
            let step = 1e-3;
            for n in 0..9000 {
                let s = (f64::from(n) + 0.5) * step;
                sum += step * composition.at([s * dy, s * dx]);
                if n % 1000 == 999 {
                    let exact = composition.integral_nm(s + 0.5 * step);
                    assert!((sum - exact).abs() < 1e-5, "{composition:?} at {s}: {sum} {exact}");
                }
            }
            assert_eq!(composition.integral_nm(0.0), 0.0);
        }
    }

    #[test]
    fn layers_and_gradients_take_their_values() {
        let layers = Composition::Layers {
            normal_rad: 0.0,
            at_nm: vec![0.0, 10.0],
            values: vec![0.0, 0.2, 0.1],
            width_nm: 1.0,
        };
        let found = [-5.0, 0.0, 5.0, 10.0, 20.0].map(|x| layers.at([3.0, x]));
        for (found, expected) in found.iter().zip([0.0, 0.1, 0.2, 0.15, 0.1]) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
        let gradient = Composition::Gradient { from_nm: [0.0, 0.0], to_nm: [0.0, 10.0], from: 0.0, to: 0.2 };
        assert_eq!([-1.0, 5.0, 12.0].map(|x| gradient.at([7.0, x])), [0.0, 0.1, 0.2]);
    }
}
