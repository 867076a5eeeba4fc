//! Settings: what a config file may say, checked before anything is bound or loaded.

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
}
