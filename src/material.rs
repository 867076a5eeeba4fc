//! Materials: lattice, polar variants and Born charges.

use crate::config::InvalidSetting;
use serde::{Deserialize, Serialize};

/// How the columns of a sublattice look in a HAADF image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnShape {
    /// Peak height relative to the A columns, 0 to 2.
    pub intensity: f64,
    /// Standard deviation of the column before the probe's blur, 10 to 200 pm.
    pub sigma_pm: f64,
}

impl ColumnShape {
    /// # Errors
    /// [`InvalidSetting`] for a value outside its range.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let within = |key: &str, value: f64, [low, high]: [f64; 2]| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(InvalidSetting::new(format!("{key_prefix}.{key}"), value, format!("{low} to {high}")))
        };
        within("intensity", self.intensity, [0.0, 2.0])?;
        within("sigma_pm", self.sigma_pm, [10.0, 200.0])
    }
}

/// What is known of a material before it is imaged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Material {
    pub name: String,
    /// The projected structure; `perovskite [100]` is the one there is.
    pub structure: String,
    /// Edges of the projected, pseudo-cubic cell, 200 to 1000 pm.
    pub lattice_a_pm: f64,
    pub lattice_b_pm: f64,
    /// The cell's edge along the beam.
    pub lattice_c_pm: f64,
    pub polar: bool,
    /// Directions that the crystal's symmetry allows the projected P, unit vectors `[x, y]` with x along a and y along b.
    pub variants: Vec<[f64; 2]>,
    /// Whether P may also lie along the beam, where a projection shows none.
    pub out_of_plane_variant: bool,
    /// Typical magnitude of the projected P (B minus the mean of its A neighbours).
    pub displacement_pm: f64,
    pub columns: MaterialColumns,
    /// How P in pm becomes a dipole density; absent where the crystal has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dipole: Option<DipoleMode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaterialColumns {
    pub a: ColumnShape,
    pub b: ColumnShape,
    pub o: ColumnShape,
}

/// Born charges and the part that oxygen, which HAADF does not show, takes in the polar displacement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DipoleMode {
    pub born_a: f64,
    pub born_b: f64,
    /// The oxygen whose bond to B lies along P.
    pub born_o_parallel: f64,
    /// Each of the two others.
    pub born_o_perpendicular: f64,
    /// Shift of the oxygens relative to A along P, in units of B's shift relative to A.
    pub oxygen_parallel: f64,
    pub oxygen_perpendicular: f64,
}
