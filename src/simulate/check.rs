//! Checking the values of a description, each refused by the name it has in the scene file.

use crate::config::InvalidSetting;
use std::fmt::Debug;

/// Names values by a prefix: the place of the table that holds them.
pub(super) struct Check<'a>(pub &'a str);

/// Positions in a specimen lie within this of its origin, nm.
const FARTHEST_NM: f64 = 1e6;

impl Check<'_> {
    /// # Errors
    /// [`InvalidSetting`] unless `ok`.
    pub fn that(&self, ok: bool, key: &str, value: &dyn Debug, expected: &str) -> Result<(), InvalidSetting> {
        if ok {
            return Ok(());
        }
        Err(InvalidSetting::new(self.key(key), format!("{value:?}"), expected))
    }

    /// # Errors
    /// [`InvalidSetting`] unless `low <= value <= high`.
    pub fn within(&self, key: &str, value: f64, [low, high]: [f64; 2]) -> Result<(), InvalidSetting> {
        self.that((low..=high).contains(&value), key, &value, &format!("{low} to {high}"))
    }

    /// # Errors
    /// [`InvalidSetting`] unless `range` is one, `[low, high]`, and within `[least, most]`.
    pub fn range(
        &self,
        key: &str,
        [low, high]: [f64; 2],
        [least, most]: [f64; 2],
    ) -> Result<(), InvalidSetting> {
        let ok = least <= low && low <= high && high <= most;
        self.that(ok, key, &[low, high], &format!("a range within {least} to {most}"))
    }

    /// # Errors
    /// [`InvalidSetting`] unless both components are at most `limit`.
    pub fn both(&self, key: &str, value: [f64; 2], limit: f64) -> Result<(), InvalidSetting> {
        let ok = value.iter().all(|c| c.abs() <= limit);
        self.that(ok, key, &value, &format!("components of at most {limit}"))
    }

    /// # Errors
    /// [`InvalidSetting`] for an angle that is none.
    pub fn angle(&self, key: &str, value: f64) -> Result<(), InvalidSetting> {
        self.that(value.abs() <= 1e3, key, &value, "a finite angle in rad")
    }

    /// # Errors
    /// [`InvalidSetting`] for a position that is not finite or absurdly far away.
    pub fn position(&self, key: &str, at_nm: [f64; 2]) -> Result<(), InvalidSetting> {
        let near = at_nm.iter().all(|c| c.abs() <= FARTHEST_NM);
        self.that(near, key, &at_nm, "within 1e6 nm of the origin")
    }

    /// # Errors
    /// [`InvalidSetting`] for a polar displacement beyond what any crystal has.
    pub fn displacement(&self, key: &str, p_pm: [f64; 2]) -> Result<(), InvalidSetting> {
        self.both(key, p_pm, 200.0)
    }

    /// The whole name of a value.
    pub fn key(&self, key: &str) -> String {
        if self.0.is_empty() { key.to_owned() } else { format!("{}.{key}", self.0) }
    }
}
