//! How much a message may ask for.

use crate::error::DecodeError;

/// Bounds that decoding enforces. The defaults admit an 8192 × 8192 f32 frame, and nothing absurd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All bytes of a message.
    pub max_message_bytes: usize,
    /// Rows, and columns, of an array.
    pub max_dimension: usize,
    /// Maps and arrays inside one another; each level costs stack.
    pub max_depth: usize,
    /// One text outside `user_data`.
    pub max_text_bytes: usize,
    /// The encoded form of `user_data`, or of a whole JSON header.
    pub max_user_data_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 256 << 20,
            max_dimension: 65_536,
            max_depth: 32,
            max_text_bytes: 64 << 10,
            max_user_data_bytes: 1 << 20,
        }
    }
}

impl Limits {
    /// # Errors
    /// [`DecodeError::TooLarge`] where a message has more than `max_message_bytes`.
    pub fn check_message(&self, bytes: usize) -> Result<(), DecodeError> {
        if bytes > self.max_message_bytes {
            return Err(DecodeError::TooLarge {
                field: "message".to_owned(),
                bytes,
                limit: self.max_message_bytes,
            });
        }
        Ok(())
    }

    /// The shape of the array in `field`, checked.
    ///
    /// # Errors
    /// [`DecodeError::Dimension`] where a dimension is above `max_dimension`.
    pub fn check_shape(&self, field: &str, shape: [u64; 2]) -> Result<[usize; 2], DecodeError> {
        let [rows, cols] = shape;
        let fits = |n: u64| usize::try_from(n).ok().filter(|n| *n <= self.max_dimension);
        match (fits(rows), fits(cols)) {
            (Some(rows), Some(cols)) => Ok([rows, cols]),
            _ => {
                Err(DecodeError::Dimension { field: field.to_owned(), rows, cols, limit: self.max_dimension })
            }
        }
    }
}
