//! How the lattice is strained: uniformly, by smooth fields, and by dislocations.

use crate::config::InvalidSetting;
use crate::simulate::check::Check;
use serde::{Deserialize, Serialize};

/// Uniform strain of the lattice in the specimen frame (x right, y down), dimensionless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Strain {
    pub xx: f64,
    pub yy: f64,
    pub xy: f64,
}

impl Strain {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let Self { xx, yy, xy } = *self;
        let small = [xx, yy, xy].iter().all(|e| e.abs() <= 0.2);
        Check(key_prefix).that(small, "strain", self, "components of at most 0.2")
    }
}

/// A strain that varies from place to place; several add up. Beyond `reach_nm` on either side of its centre it stays what it is
/// there, so that the specimen can go on without bounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StrainField {
    /// Normal strain along a direction that grows along it, from 0 at the centre.
    Gradient {
        center_nm: [f64; 2],
        /// Counter-clockwise from the specimen's x axis as displayed.
        direction_rad: f64,
        strain_per_nm: f64,
        reach_nm: f64,
    },
    /// A neutral line through the centre is bent to the radius; on its convex side the lattice is stretched along it, on the
    /// concave side compressed, by the distance over the radius.
    Bending {
        center_nm: [f64; 2],
        /// Direction of the neutral line, counter-clockwise from the specimen's x axis as displayed. Positive radii bend it to
        /// the clockwise side (down, where it points right).
        direction_rad: f64,
        radius_nm: f64,
        reach_nm: f64,
    },
}

impl StrainField {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        let (center_nm, direction_rad, reach_nm, largest) = match *self {
            Self::Gradient { center_nm, direction_rad, strain_per_nm, reach_nm } => {
                (center_nm, direction_rad, reach_nm, strain_per_nm * reach_nm)
            }
            Self::Bending { center_nm, direction_rad, radius_nm, reach_nm } => {
                (center_nm, direction_rad, reach_nm, reach_nm / radius_nm)
            }
        };
        check.position("center_nm", center_nm)?;
        check.angle("direction_rad", direction_rad)?;
        check.within("reach_nm", reach_nm, [0.1, 1e6])?;
        let expected = "a strain or turn of at most 0.2 at the reach";
        check.that(largest.abs() <= 0.2, "reach_nm", &reach_nm, expected)
    }
}

/// An edge dislocation along the beam, with the displacement of isotropic elasticity (Hirth and Lothe, Theory of Dislocations, §3).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dislocation {
    /// The core, moved to the nearest place between the columns.
    pub at_nm: [f64; 2],
    /// Burgers vector in cell edges `[a, b]`; a loop round the core that would close in a perfect lattice fails to by it.
    pub burgers_cells: [i32; 2],
    /// Poisson's ratio.
    #[serde(default = "usual_poisson_ratio")]
    pub poisson_ratio: f64,
}

pub(super) const fn usual_poisson_ratio() -> f64 {
    0.3
}

impl Dislocation {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        check.position("at_nm", self.at_nm)?;
        let [a, b] = self.burgers_cells;
        let expected = "one or two cell edges, not both 0";
        let short = a.unsigned_abs().max(b.unsigned_abs());
        check.that((1..=2).contains(&short), "burgers_cells", &self.burgers_cells, expected)?;
        check.within("poisson_ratio", self.poisson_ratio, [0.0, 0.49])
    }
}
