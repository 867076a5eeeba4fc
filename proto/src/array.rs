//! Arrays on the wire: pixels as they came from the detector, and the small grids of a result.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Element type of a [`PixelArray`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dtype {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ByteOrder {
    Little,
    Big,
}

/// A two-dimensional image as it arrived: the bytes are shared with the message, not copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelArray {
    dtype: Dtype,
    byte_order: ByteOrder,
    /// `[rows, cols]`.
    shape: [usize; 2],
    /// C order, `rows * cols * dtype.size()` bytes.
    bytes: Bytes,
}

/// A small `[rows, cols]` array in C order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid<T> {
    rows: usize,
    cols: usize,
    values: Vec<T>,
}
