//! How mistilt is judged.

use crate::config::InvalidSetting;
use serde::{Deserialize, Serialize};

/// How tiles are cut and judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MistiltSettings {
    /// Side of a tile, nm; larger where a frame would have more than 256 tiles.
    pub tile_nm: f64,
    /// Of frames without tilt, this part may have a suspect tile: a tile is suspect when its p-value is below this over the number
    /// of independent tests that the judged tiles are worth …
    pub alpha: f64,
    /// … and its offset is longer than this, pm.
    pub min_offset_pm: f64,
    /// A tile is judged when its offset is known to this standard deviation in every direction, pm; suspect is also one whose domains
    /// can be read in two ways, if there is an offset in both.
    pub max_sigma_pm: f64,
    /// Standard deviation of the DCNN's own bias per component, pm: an offset within it proves nothing. Without, what the model's
    /// manifest says (`bias_p_component_pm` among its errors on held-out frames), or else 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_pm: Option<f64>,
    /// The same of P measured from columns, of which most errors cancel in the mean.
    pub classical_bias_pm: f64,
    /// Smallest share of a frame's P that a second variant must hold for the frame to be judged.
    pub min_variant_share: f64,
    /// By how much a variant may deviate from the material's, with its opposite, and its length from domain to domain, as a part of P.
    pub variant_tolerance: f64,
    /// The offset varies by at most about this over the frame, pm, on this scale, nm; by how much, the frame itself says.
    pub variation_pm: f64,
    pub smooth_nm: f64,
    /// A part of the frame that is not polar: rows from and to, then columns from and to, as fractions of the frame. One that is a
    /// tile wide or more shows by itself where P cannot lie along the beam and full P is seen beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<[f64; 4]>,
    /// Publish P less the offset beside P (`p_corrected_x`, `p_corrected_y`).
    pub publish_corrected: bool,
}

impl Default for MistiltSettings {
    fn default() -> Self {
        Self {
            tile_nm: 4.0,
            alpha: 0.01,
            min_offset_pm: 2.0,
            max_sigma_pm: 5.0,
            bias_pm: None,
            classical_bias_pm: 1.5,
            min_variant_share: 0.1,
            variant_tolerance: 0.03,
            variation_pm: 4.0,
            smooth_nm: 10.0,
            reference: None,
            publish_corrected: false,
        }
    }
}

impl MistiltSettings {
    pub(in crate::flags) fn validate(&self, prefix: &str) -> Result<(), InvalidSetting> {
        let checks = [
            ("tile_nm", self.tile_nm, 0.5..=1e4, "0.5 to 10000"),
            ("alpha", self.alpha, 1e-12..=0.5, "above 0, at most 0.5"),
            ("min_offset_pm", self.min_offset_pm, 0.0..=1e3, "0 to 1000"),
            ("max_sigma_pm", self.max_sigma_pm, 0.01..=1e3, "0.01 to 1000"),
            ("bias_pm", self.bias_pm.unwrap_or(0.0), 0.0..=1e3, "0 to 1000"),
            ("classical_bias_pm", self.classical_bias_pm, 0.0..=1e3, "0 to 1000"),
            ("min_variant_share", self.min_variant_share, 0.0..=0.5, "0 to 0.5"),
            ("variant_tolerance", self.variant_tolerance, 0.0..=1.0, "0 to 1"),
            ("variation_pm", self.variation_pm, 0.0..=1e3, "0 to 1000"),
            ("smooth_nm", self.smooth_nm, 0.1..=1e4, "0.1 to 10000"),
        ];
        InvalidSetting::check_ranges(prefix, checks)?;
        let Some([top, bottom, left, right]) = self.reference else { return Ok(()) };
        let within = |from: f64, to: f64| 0.0 <= from && from < to && to <= 1.0;
        if within(top, bottom) && within(left, right) {
            return Ok(());
        }
        let found = format!("{:?}", self.reference.unwrap_or_default());
        let expected = "[row from, row to, column from, column to], fractions that rise from 0 to 1";
        Err(InvalidSetting::new(format!("{prefix}.reference"), found, expected))
    }
}
