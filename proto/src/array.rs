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
#[serde(try_from = "UncheckedPixelArray")]
pub struct PixelArray {
    dtype: Dtype,
    byte_order: ByteOrder,
    /// `[rows, cols]`.
    shape: [usize; 2],
    /// C order, `rows * cols * dtype.size()` bytes.
    #[serde(serialize_with = "as_bytes")]
    bytes: Bytes,
}

fn as_bytes<S: serde::Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// A small `[rows, cols]` array in C order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedGrid<T>", bound(deserialize = "T: Deserialize<'de>"))]
pub struct Grid<T> {
    rows: usize,
    cols: usize,
    values: Vec<T>,
}

/// Bytes that do not make the array they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArrayError {
    #[error("an array of {rows} x {cols} elements does not fit in memory")]
    TooLarge { rows: usize, cols: usize },
    #[error("an array of {rows} x {cols} {dtype:?} needs {expected} bytes, {found} came")]
    Length { rows: usize, cols: usize, dtype: Dtype, expected: usize, found: usize },
    #[error("a grid of {rows} x {cols} needs {expected} values, {found} came")]
    GridLength { rows: usize, cols: usize, expected: usize, found: usize },
}

impl Dtype {
    /// Bytes an element.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The name numpy gives it.
    pub const fn numpy_name(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }
}

impl PixelArray {
    /// Takes `bytes` as a C-order image of `shape` = `[rows, cols]`.
    ///
    /// # Errors
    /// When the number of bytes is not `rows * cols * dtype.size()`.
    pub fn new(
        dtype: Dtype,
        byte_order: ByteOrder,
        shape: [usize; 2],
        bytes: Bytes,
    ) -> Result<Self, ArrayError> {
        let [rows, cols] = shape;
        let expected = rows
            .checked_mul(cols)
            .and_then(|n| n.checked_mul(dtype.size()))
            .ok_or(ArrayError::TooLarge { rows, cols })?;
        if bytes.len() != expected {
            return Err(ArrayError::Length { rows, cols, dtype, expected, found: bytes.len() });
        }
        Ok(Self { dtype, byte_order, shape, bytes })
    }

    /// A little-endian f32 image from values in C order.
    ///
    /// # Errors
    /// When the number of values is not `rows * cols`.
    pub fn from_f32(shape: [usize; 2], values: &[f32]) -> Result<Self, ArrayError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(Dtype::F32, ByteOrder::Little, shape, bytes.into())
    }

    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub const fn byte_order(&self) -> ByteOrder {
        self.byte_order
    }

    /// `[rows, cols]`.
    pub const fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The elements in C order and [`Self::byte_order`]; shared, not copied, when cloned.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The pixels as `f32` in C order. 32- and 64-bit integers and `f64` are rounded to the nearest `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        macro_rules! convert {
            ($type:ty) => {{
                let from = match self.byte_order {
                    ByteOrder::Little => <$type>::from_le_bytes,
                    ByteOrder::Big => <$type>::from_be_bytes,
                };
                let (elements, _) = self.bytes.as_chunks::<{ size_of::<$type>() }>();
                elements.iter().map(|&element| from(element) as f32).collect()
            }};
        }
        match self.dtype {
            Dtype::U8 => convert!(u8),
            Dtype::U16 => convert!(u16),
            Dtype::U32 => convert!(u32),
            Dtype::U64 => convert!(u64),
            Dtype::I8 => convert!(i8),
            Dtype::I16 => convert!(i16),
            Dtype::I32 => convert!(i32),
            Dtype::I64 => convert!(i64),
            Dtype::F32 => convert!(f32),
            Dtype::F64 => convert!(f64),
        }
    }
}

impl<T> Grid<T> {
    /// # Errors
    /// When the number of values is not `rows * cols`.
    pub fn new(rows: usize, cols: usize, values: Vec<T>) -> Result<Self, ArrayError> {
        let expected = rows.checked_mul(cols).ok_or(ArrayError::TooLarge { rows, cols })?;
        if values.len() != expected {
            return Err(ArrayError::GridLength { rows, cols, expected, found: values.len() });
        }
        Ok(Self { rows, cols, values })
    }

    /// `[rows, cols]`.
    pub const fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// C order.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    pub fn into_values(self) -> Vec<T> {
        self.values
    }

    /// The value at `(row, col)`, `None` outside.
    pub fn get(&self, row: usize, col: usize) -> Option<&T> {
        (row < self.rows && col < self.cols).then(|| self.values.get(row * self.cols + col)).flatten()
    }
}

/// What a [`PixelArray`] looks like before its length is checked against its shape.
#[derive(Deserialize)]
#[serde(rename = "PixelArray")]
struct UncheckedPixelArray {
    dtype: Dtype,
    byte_order: ByteOrder,
    shape: [usize; 2],
    bytes: serde_bytes::ByteBuf,
}

impl TryFrom<UncheckedPixelArray> for PixelArray {
    type Error = ArrayError;

    fn try_from(unchecked: UncheckedPixelArray) -> Result<Self, ArrayError> {
        let UncheckedPixelArray { dtype, byte_order, shape, bytes } = unchecked;
        Self::new(dtype, byte_order, shape, bytes.into_vec().into())
    }
}

/// What a [`Grid`] looks like before its length is checked against its shape.
#[derive(Deserialize)]
#[serde(rename = "Grid")]
struct UncheckedGrid<T> {
    rows: usize,
    cols: usize,
    values: Vec<T>,
}

impl<T> TryFrom<UncheckedGrid<T>> for Grid<T> {
    type Error = ArrayError;

    fn try_from(unchecked: UncheckedGrid<T>) -> Result<Self, ArrayError> {
        Self::new(unchecked.rows, unchecked.cols, unchecked.values)
    }
}
