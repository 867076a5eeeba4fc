//! How columns look, and what dims or widens them.

use crate::config::InvalidSetting;
use crate::material::{ColumnShape, Material};
use crate::simulate::check::Check;
use serde::{Deserialize, Serialize};

/// How columns look: each is a Gaussian of the given peak height (1 = A) and width, of which a fraction is in the long tails that
/// a focused probe and channelling give a column.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    pub a: ColumnShape,
    pub b: ColumnShape,
    /// The pure oxygen columns; HAADF hardly shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub o: Option<ColumnShape>,
    /// Fraction of the peak height that is tail, 0 to 0.5.
    pub tail_fraction: f64,
    /// Width of the tail over that of the column, 1 to 4.
    pub tail_ratio: f64,
    #[serde(default)]
    pub tails: Tails,
}

/// Profile of the tails, w = `tail_ratio` · the column's standard deviation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tails {
    /// exp(-½ (r / w)²).
    #[default]
    Gaussian,
    /// (1 + (r / w)²)^(-3/2), whose line profile is a Lorentzian after summing along the other axis; drawn as three Gaussians
    /// that agree with it within 0.2 % of the tail's peak out to 4 w and fall off faster beyond.
    Lorentz,
}

/// One of the Gaussians that make up a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::simulate) struct ProfilePart {
    /// Part of the column's peak height.
    pub weight: f64,
    /// Standard deviation over the column's.
    pub width: f64,
}

/// `(weight, width)` of the Gaussians whose sum is (1 + x²)^(-3/2) within 0.002 for x up to 4: a minimax fit, weights summing to 1.
/// The profile is a mixture of Gaussians of all widths, (1 + x²)^(-3/2) = 1 / Γ(3/2) ∫ t^½ e^(-t) e^(-x² t) dt, so that few suffice.
const LORENTZ: [(f64, f64); 3] = [(0.39821, 0.43049), (0.49167, 0.81228), (0.11012, 1.92046)];

impl Default for Columns {
    fn default() -> Self {
        Self {
            a: ColumnShape { intensity: 1.0, sigma_pm: 70.0 },
            b: ColumnShape { intensity: 0.4, sigma_pm: 65.0 },
            o: None,
            tail_fraction: 0.0,
            tail_ratio: 2.5,
            tails: Tails::Gaussian,
        }
    }
}

impl Columns {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        self.a.validate(&format!("{key_prefix}.a"))?;
        self.b.validate(&format!("{key_prefix}.b"))?;
        if let Some(o) = self.o {
            o.validate(&format!("{key_prefix}.o"))?;
        }
        let check = Check(key_prefix);
        check.within("tail_fraction", self.tail_fraction, [0.0, 0.5])?;
        check.within("tail_ratio", self.tail_ratio, [1.0, 4.0])
    }

    /// The Gaussians of which every column is the sum: its core, and its tails where it has some.
    pub(in crate::simulate) fn profile(&self) -> impl Iterator<Item = ProfilePart> + Clone + use<> {
        let Self { tail_fraction, tail_ratio, tails, .. } = *self;
        let core = ProfilePart { weight: 1.0 - tail_fraction, width: 1.0 };
        let tail = match tails {
            Tails::Gaussian => [Some((1.0, 1.0)), None, None],
            Tails::Lorentz => LORENTZ.map(Some),
        };
        let part =
            move |(weight, width)| ProfilePart { weight: weight * tail_fraction, width: width * tail_ratio };
        let tail = tail.into_iter().flatten().map(part).filter(|part| part.weight > 0.0);
        std::iter::once(core).chain(tail)
    }
}

/// Another crystal than the host's, for inclusions and substrates. In a scene file `material = "srtio3"` gives all of it, and the
/// other keys change single values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Edges of the projected cell along [100], 200 to 1000 pm.
    pub cell_a_pm: f64,
    pub cell_b_pm: f64,
    pub a: ColumnShape,
    pub b: ColumnShape,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub o: Option<ColumnShape>,
    /// The same everywhere in it, `[x, y]` along its own a and b.
    #[serde(default)]
    pub p_pm: [f64; 2],
}

impl Phase {
    /// The material, non-polar as drawn: where its P points is for the scene to say.
    pub fn of_material(material: &Material) -> Self {
        Self {
            cell_a_pm: material.lattice_a_pm,
            cell_b_pm: material.lattice_b_pm,
            a: material.columns.a,
            b: material.columns.b,
            o: Some(material.columns.o),
            p_pm: [0.0, 0.0],
        }
    }

    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        check.within("cell_a_pm", self.cell_a_pm, [200.0, 1000.0])?;
        check.within("cell_b_pm", self.cell_b_pm, [200.0, 1000.0])?;
        self.a.validate(&check.key("a"))?;
        self.b.validate(&check.key("b"))?;
        if let Some(o) = self.o {
            o.validate(&check.key("o"))?;
        }
        check.displacement("p_pm", self.p_pm)
    }
}

/// Smooth variation of the specimen's thickness, which scales columns and background alike.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thickness {
    /// Relative standard deviation, 0 to 0.3.
    pub rms: f64,
    /// Wavelength of the variation, nm.
    pub wavelength_nm: f64,
    /// By how much a relative change of the thickness widens the columns, relatively: the beam spreads on its way. 0 to 1.
    #[serde(default)]
    pub widening: f64,
}

impl Default for Thickness {
    fn default() -> Self {
        Self { rms: 0.0, wavelength_nm: 30.0, widening: 0.0 }
    }
}

impl Thickness {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        check.within("rms", self.rms, [0.0, 0.3])?;
        check.within("wavelength_nm", self.wavelength_nm, [1.0, 1e6])?;
        check.within("widening", self.widening, [0.0, 1.0])
    }
}

/// Signal between the columns, as a fraction of the A columns' peak height.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Background {
    /// At the specimen's origin.
    pub level: f64,
    /// Change per nm, `[x, y]`; the background never falls below 0.
    pub gradient_per_nm: [f64; 2],
}

impl Background {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        check.within("level", self.level, [0.0, 100.0])?;
        let finite = self.gradient_per_nm.iter().all(|g| g.is_finite());
        check.that(finite, "gradient_per_nm", &self.gradient_per_nm, "finite values")
    }

    /// At `position_nm` = `[y, x]`.
    pub(in crate::simulate) fn at(&self, position_nm: [f64; 2]) -> f64 {
        let [gx, gy] = self.gradient_per_nm;
        (self.level + gx * position_nm[1] + gy * position_nm[0]).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_column_add_up_to_its_profile() {
        let plain = Columns::default();
        assert_eq!(plain.profile().collect::<Vec<_>>(), [ProfilePart { weight: 1.0, width: 1.0 }]);
        let gaussian = Columns { tail_fraction: 0.2, ..plain };
        let parts: Vec<_> = gaussian.profile().map(|p| (p.weight, p.width)).collect();
        assert_eq!(parts, [(0.8, 1.0), (0.2, 2.5)]);

        let lorentz = Columns { tail_fraction: 0.2, tail_ratio: 2.0, tails: Tails::Lorentz, ..plain };
        for r in [0.0, 1.0, 2.0, 4.0, 6.0, 8.0] {
            let drawn: f64 =
                lorentz.profile().map(|p| p.weight * (-0.5f64 * (r / p.width).powi(2)).exp()).sum();
            let expected = 0.8 * (-0.5f64 * r * r).exp() + 0.2 * (1.0 + (r / 2.0).powi(2)).powf(-1.5);
            assert!((drawn - expected).abs() < 5e-4, "{r}: {drawn} {expected}");
            // Heavier than the Gaussian tail far out.
            let tail: f64 =
                gaussian.profile().map(|p| p.weight * (-0.5f64 * (r / p.width).powi(2)).exp()).sum();
            assert!(r < 7.0 || drawn > 1.5 * tail, "{r}: {drawn} {tail}");
        }
    }
}
