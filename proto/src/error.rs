//! What can be wrong with a message.

use crate::array::ArrayError;

/// Bytes that are no message of this wire. `field` is the dotted path of the offending key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{field} has {bytes} bytes, at most {limit} are accepted")]
    TooLarge { field: String, bytes: usize, limit: usize },
    #[error("the message ends early, at byte {at}, inside {field}")]
    Truncated { field: String, at: usize },
    #[error("not well formed at byte {at}, inside {field}: {reason}")]
    Malformed { field: String, at: usize, reason: String },
    #[error("{count} bytes follow the end of the message")]
    TrailingBytes { count: usize },
    #[error("type {found:?} is not one of this lane: expected {expected}")]
    UnknownType { found: String, expected: &'static str },
    #[error("the message speaks version {found} of the wire, this program speaks up to version {supported}")]
    Version { found: u64, supported: u64 },
    #[error("the message has no {field}")]
    Missing { field: String },
    #[error("{field} occurs twice")]
    Duplicate { field: String },
    #[error("{field}: expected {expected}, found {found}")]
    Type { field: String, expected: &'static str, found: String },
    #[error("{field}: {rows} x {cols} elements, at most {limit} a side are accepted")]
    Dimension { field: String, rows: u64, cols: u64, limit: usize },
    #[error("{field}: {source}")]
    Array { field: String, source: ArrayError },
    #[error("{field}: nested more than {limit} levels deep")]
    Depth { field: String, limit: usize },
    #[error(
        "{field}: dtype {found:?} is not one of bool, [u]int8..64, float16..64 (numpy names or codes like '<u2')"
    )]
    Dtype { field: String, found: String },
    #[error("parts of {sizes:?} bytes are neither CBOR, nor bincode, nor a JSON header with raw pixels")]
    Unrecognised { sizes: Vec<usize> },
    #[error("bincode: {reason}")]
    Bincode { reason: String },
}

/// A message that cannot be put on the wire: a mistake in the program that made it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("{0}")]
    Inconsistent(#[from] Inconsistent),
    #[error("{codec}: {reason}")]
    Codec { codec: &'static str, reason: String },
}

/// Parts of a result that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    #[error("{field} is {found:?}, its grid is {expected:?}")]
    Shape { field: &'static str, expected: [usize; 2], found: [usize; 2] },
    #[error("columns.{field} has {found} values, columns.row has {expected}")]
    Columns { field: &'static str, expected: usize, found: usize },
}

impl DecodeError {
    /// Whether the message is from a later version of the wire: the one error that an update mends.
    pub const fn is_version(&self) -> bool {
        matches!(self, Self::Version { .. })
    }
}

impl From<Inconsistent> for DecodeError {
    fn from(error: Inconsistent) -> Self {
        match &error {
            Inconsistent::Shape { field, .. } => Self::Type {
                field: (*field).to_owned(),
                expected: "the shape of its grid, or 0 x 0 where not evaluated",
                found: error.to_string(),
            },
            Inconsistent::Columns { field, .. } => Self::Type {
                field: format!("columns.{field}"),
                expected: "as many values as columns.row",
                found: error.to_string(),
            },
        }
    }
}
