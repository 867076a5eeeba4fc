//! Where the fields cannot be trusted, and where to look next. Flags are evidence: each comes with a p-value or a score,
//! a reason and the model behind it.
//!
//! - [`ood`]: windows unlike the training set; - [`mistilt`]: tiles whose P has an offset that symmetry forbids;
//! - [`walls`]: domain walls; - [`vortices`]: what P turns around; - [`asked`]: what the config's [`expression`]s ask for;
//! - [`candidates`]: all of it ranked; - [`tracker`]: the same site keeps its id, wherever the specimen [`drift`]s.

pub mod asked;
pub mod candidates;
pub mod drift;
pub mod expression;
pub mod geometry;
pub mod mistilt;
pub mod ood;
mod regions;
mod selection;
#[cfg(test)]
mod testing;
pub mod tracker;
pub mod vortices;
pub mod walls;

use crate::config::InvalidSetting;
use crate::frame::{Fields, Frame};
use crate::material::Material;
use crate::networks::{FeatureStatistics, OutputSpec};
use candidates::{CandidateSettings, Found, Site};
use ferrostem_proto::Calibration;
use mistilt::{MistiltMap, MistiltSettings};
use ood::{OodEvidence, OodSettings};
use serde::{Deserialize, Serialize};
use tracker::TrackerSettings;
use vortices::VortexSettings;
use walls::WallSettings;

/// Settings of all flags.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlagSettings {
    pub ood: OodSettings,
    pub mistilt: MistiltSettings,
    pub walls: WallSettings,
    pub vortices: VortexSettings,
    pub candidates: CandidateSettings,
    pub tracker: TrackerSettings,
}

impl FlagSettings {
    /// # Errors
    /// When a value is out of range; the key starts with `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        self.ood.validate(&format!("{key_prefix}.ood"))?;
        self.mistilt.validate(&format!("{key_prefix}.mistilt"))?;
        self.walls.validate(&format!("{key_prefix}.walls"))?;
        self.vortices.validate(&format!("{key_prefix}.vortices"))?;
        self.candidates.validate(&format!("{key_prefix}.candidates"))?;
        if !self.mistilt.publish_corrected {
            let key = format!("{key_prefix}.candidates.expressions");
            asked::validate_corrected(&self.candidates.expressions, &key)?;
        }
        self.tracker.validate(&format!("{key_prefix}.tracker"))
    }
}

/// What the flags compare a frame with.
#[derive(Debug, Clone)]
pub struct Reference {
    pub material: Material,
    /// The DCNN's feature statistics; without them nothing is evaluated for out-of-distribution sites.
    pub features: Option<FeatureStatistics>,
    /// The DCNN's outputs with their trained ranges.
    pub outputs: Vec<OutputSpec>,
}

/// One frame's fields with everything that the flags need to know about it.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    pub frame: &'a Frame,
    pub fields: &'a Fields,
    pub calibration: &'a Calibration,
    /// Direction of the lattice's a edge against the image's x axis, as displayed counter-clockwise, rad; `None` when
    /// no lattice was found.
    pub lattice_angle_rad: Option<f64>,
}

/// The flags of one frame.
#[derive(Debug, Clone)]
pub struct Flagged {
    pub ood: OodEvidence,
    pub mistilt: MistiltMap,
    /// Ranked sites, not yet tracked: ids are given by [`tracker::Tracker`].
    pub sites: Vec<Site>,
}

/// Evaluates all flags on one frame.
pub fn evaluate(evidence: &Evidence<'_>, reference: &Reference, settings: &FlagSettings) -> Flagged {
    let ood = ood::evaluate(evidence, reference, &settings.ood);
    let (walls, vortices) = if reference.material.polar {
        (walls::find(evidence, &ood, &settings.walls), vortices::find(evidence, &ood, &settings.vortices))
    } else {
        (Vec::new(), Vec::new())
    };
    // On a wall P is shorter than in either domain, and in a window unlike the training set it is anything.
    let mut passed_over = walls::near(evidence, &walls);
    passed_over.zip_mut_with(&ood.flag, |passed_over, &flag| *passed_over |= flag != 0);
    let mistilt = mistilt::evaluate(evidence, reference, &passed_over, &settings.mistilt);
    let found = Found { ood: &ood, mistilt: &mistilt, walls: &walls, vortices: &vortices };
    let sites = candidates::rank(evidence, &found, &settings.candidates);
    Flagged { ood, mistilt, sites }
}
