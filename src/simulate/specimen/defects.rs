//! Defects that are planted one by one or scattered by chance.

use crate::config::InvalidSetting;
use crate::simulate::check::Check;
use crate::simulate::truth::DefectKind;
use serde::{Deserialize, Serialize};

/// A planted defect. Those of single columns are at the site nearest to their position.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defect {
    /// `vacancy_a`, `vacancy_b`, `vacancy_o`, `substitution_a`, `substitution_b`, `antisite_a` (B atoms in an A column),
    /// `antisite_b`, `interstitial` (a column exactly at the position), `amorphous` (a round patch) or `contamination` (a smooth
    /// blob of background).
    pub kind: DefectKind,
    pub at_nm: [f64; 2],
    /// What is left of the column's peak height (vacancies), what it becomes a multiple of (substitutions), the fraction of the
    /// atoms that changed places (antisites), or the peak height as a fraction of an A column's (interstitials, contamination).
    /// Without effect in amorphous patches.
    #[serde(default)]
    pub intensity_ratio: f64,
    /// Radius of an amorphous patch; standard deviation of the Gaussian blob of a contamination.
    #[serde(default)]
    pub radius_nm: f64,
}

impl Defect {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        let planted = self.kind.is_planted();
        check.that(
            planted,
            "kind",
            &self.kind,
            "a defect of single columns, `amorphous` or `contamination`",
        )?;
        check.position("at_nm", self.at_nm)?;
        let highest = if self.kind.is_antisite() { 1.0 } else { 20.0 };
        check.within("intensity_ratio", self.intensity_ratio, [0.0, highest])?;
        let sized = matches!(self.kind, DefectKind::Amorphous | DefectKind::Contamination);
        let expected = "0.1 to 1000";
        check.that(!sized || (0.1..=1e3).contains(&self.radius_nm), "radius_nm", &self.radius_nm, expected)
    }
}

/// Defects scattered at random, as fractions of all sites of the sublattice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomDefects {
    pub vacancy_a: f64,
    pub vacancy_b: f64,
    pub vacancy_o: f64,
    pub substitution_a: f64,
    pub substitution_b: f64,
    pub antisite_a: f64,
    pub antisite_b: f64,
    /// A fraction of all cells.
    pub interstitial: f64,
    /// What a vacancy leaves of its column's peak height.
    pub vacancy_intensity_ratio: f64,
    /// What a substitution multiplies its column's peak height by.
    pub substitution_intensity_ratio: f64,
    /// Fraction of the atoms of an antisite that changed places.
    pub antisite_fraction: f64,
    /// Peak height of an interstitial column, as a fraction of an A column's.
    pub interstitial_intensity_ratio: f64,
    /// Amorphous patches and blobs of contamination, number per nm² (0 to 0.01): at most one in every square of 10 nm.
    pub amorphous_per_nm2: f64,
    pub contamination_per_nm2: f64,
    /// Their radii, `[low, high]`, at most 10 nm.
    pub patch_radius_nm: [f64; 2],
    /// Peak height of the contamination, as a fraction of an A column's.
    pub contamination_intensity_ratio: f64,
}

impl Default for RandomDefects {
    fn default() -> Self {
        Self {
            vacancy_a: 0.0,
            vacancy_b: 0.0,
            vacancy_o: 0.0,
            substitution_a: 0.0,
            substitution_b: 0.0,
            antisite_a: 0.0,
            antisite_b: 0.0,
            interstitial: 0.0,
            vacancy_intensity_ratio: 0.4,
            substitution_intensity_ratio: 1.5,
            antisite_fraction: 0.5,
            interstitial_intensity_ratio: 0.3,
            amorphous_per_nm2: 0.0,
            contamination_per_nm2: 0.0,
            patch_radius_nm: [0.5, 2.0],
            contamination_intensity_ratio: 0.5,
        }
    }
}

impl RandomDefects {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        let fractions = [
            ("vacancy_a", self.vacancy_a),
            ("vacancy_b", self.vacancy_b),
            ("vacancy_o", self.vacancy_o),
            ("substitution_a", self.substitution_a),
            ("substitution_b", self.substitution_b),
            ("antisite_a", self.antisite_a),
            ("antisite_b", self.antisite_b),
            ("interstitial", self.interstitial),
        ];
        for (key, fraction) in fractions {
            check.within(key, fraction, [0.0, 0.5])?;
        }
        check.within("vacancy_intensity_ratio", self.vacancy_intensity_ratio, [0.0, 20.0])?;
        check.within("substitution_intensity_ratio", self.substitution_intensity_ratio, [0.0, 20.0])?;
        check.within("antisite_fraction", self.antisite_fraction, [0.0, 1.0])?;
        check.within("interstitial_intensity_ratio", self.interstitial_intensity_ratio, [0.0, 20.0])?;
        check.within("amorphous_per_nm2", self.amorphous_per_nm2, [0.0, 0.01])?;
        check.within("contamination_per_nm2", self.contamination_per_nm2, [0.0, 0.01])?;
        let [low, high] = self.patch_radius_nm;
        let ordered = 0.1 <= low && low <= high && high <= 10.0;
        check.that(ordered, "patch_radius_nm", &self.patch_radius_nm, "a range within 0.1 to 10")?;
        check.within("contamination_intensity_ratio", self.contamination_intensity_ratio, [0.0, 20.0])
    }
}

/// A region bent out of the zone axis: an additional mistilt that falls off as a Gaussian.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bend {
    pub center_nm: [f64; 2],
    /// Standard deviation of the Gaussian.
    pub radius_nm: f64,
    /// As [`Tilt::mrad`](crate::simulate::Tilt::mrad), at the centre: with all that a tilt does to columns.
    #[serde(default)]
    pub tilt_mrad: [f64; 2],
    /// As [`Microscope::tilt_offset_pm`](crate::simulate::Microscope::tilt_offset_pm), at the centre: a shift alone.
    #[serde(default)]
    pub tilt_offset_pm: [f64; 2],
}

impl Bend {
    pub(super) fn validate(&self, key: &str) -> Result<(), InvalidSetting> {
        let finite = self.center_nm.iter().all(|c| c.is_finite());
        let mild = self.tilt_offset_pm.iter().all(|t| t.abs() <= 200.0);
        let sized = self.radius_nm > 0.0 && self.radius_nm.is_finite();
        let slight = self.tilt_mrad.iter().all(|t| t.abs() <= 40.0);
        let expected =
            "a finite centre, a radius above 0, tilts of at most 40 mrad, offsets of at most 200 pm";
        Check("").that(finite && mild && slight && sized, key, self, expected)
    }
}
