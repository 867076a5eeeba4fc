//! What can go wrong with a session file, and where.

use std::path::PathBuf;

/// A file that could not be read or written; the message names the file, and the object in it where there is one.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} exists already, and a session never overwrites a file", path = path.display())]
    Exists { path: PathBuf },
    #[error("{path} is being written by another process", path = path.display())]
    InUse { path: PathBuf },
    #[error("{path} is no longer the file that was being written: it was removed, moved or replaced", path = path.display())]
    Gone { path: PathBuf },
    #[error("{place}: {source}")]
    Hdf5 { place: String, source: hdf5::Error },
    #[error("{place}: expected {expected}, found {found}")]
    Unexpected { place: String, expected: String, found: String },
    #[error("{place}: {needed} bytes wanted, the limit is {limit}")]
    TooLarge { place: String, needed: u128, limit: u64 },
    #[error("{place}: no frame {index}, it has {len}")]
    NoSuchFrame { place: String, index: usize, len: usize },
}

impl SessionError {
    /// `place` holds `found` where `expected` should be.
    pub(super) fn unexpected(
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl std::fmt::Display,
    ) -> Self {
        Self::Unexpected { place: place.into(), expected: expected.into(), found: found.to_string() }
    }
}

/// Says which object an HDF5 error is about.
pub(super) trait At<T> {
    fn at(self, place: impl FnOnce() -> String) -> Result<T, SessionError>;
}

impl<T> At<T> for hdf5::Result<T> {
    fn at(self, place: impl FnOnce() -> String) -> Result<T, SessionError> {
        self.map_err(|source| SessionError::Hdf5 { place: place(), source })
    }
}
