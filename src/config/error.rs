//! What can be wrong with settings.

use std::ops::RangeInclusive;
use std::path::PathBuf;

/// A setting that cannot be used, named so that its owner can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: expected {expected}")]
pub struct InvalidSetting {
    /// Dotted key, as in the file and in `--set`.
    pub key: String,
    pub value: String,
    pub expected: String,
}

impl InvalidSetting {
    /// Names `key`, shows its `value`, and says what was `expected`.
    pub fn new(key: impl Into<String>, value: impl std::fmt::Display, expected: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.to_string(), expected: expected.into() }
    }

    /// Goes through `(key, value, range, what is expected)`; `prefix` stands before the keys.
    ///
    /// # Errors
    /// For the first value that is not in its range.
    pub(crate) fn check_ranges<'a>(
        prefix: &str,
        checks: impl IntoIterator<Item = (&'a str, f64, RangeInclusive<f64>, &'a str)>,
    ) -> Result<(), Self> {
        for (key, value, range, expected) in checks {
            if !range.contains(&value) {
                return Err(Self::new(format!("{prefix}.{key}"), value, expected));
            }
        }
        Ok(())
    }
}

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Syntax { path: PathBuf, source: toml::de::Error },
    #[error("--set {argument}: expected KEY=VALUE, the key as in the config file with dots between levels")]
    Argument { argument: String },
    #[error("{key}: {message}")]
    Value { key: String, message: String },
    #[error(transparent)]
    Invalid(#[from] InvalidSetting),
}
