//! Typed arrays of RFC 8746: `[rows, cols]` arrays (tag 40) and column vectors.
//!
//! A typed array's tag is `0b010_f_s_e_ll`: float, signed, little-endian, and the size; 64 to 87 are in use.

use super::reader::Reader;
use super::writer::{Out, Written};
use crate::array::{ByteOrder, Dtype, Grid, PixelArray};
use crate::error::DecodeError;
use bytes::Bytes;
use half::f16;
use minicbor::data::{Tag, Type};

const ROW_MAJOR: u64 = 40;
const COLUMN_MAJOR: u64 = 1040;
const U8: u64 = 64;
const F32_LITTLE: u64 = 85;

/// Element type as the tag names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Of(Dtype),
    /// Widened to `f32` on arrival.
    Half,
}

struct TypedArray {
    element: Element,
    byte_order: ByteOrder,
    bytes: Bytes,
}

const fn element_of(tag: u64) -> Option<(Element, ByteOrder)> {
    use ByteOrder::{Big, Little};
    use Element::{Half, Of};
    Some(match tag {
        // 68 is u8 with clamped arithmetic: the same bytes.
        64 | 68 => (Of(Dtype::U8), Little),
        65 => (Of(Dtype::U16), Big),
        66 => (Of(Dtype::U32), Big),
        67 => (Of(Dtype::U64), Big),
        69 => (Of(Dtype::U16), Little),
        70 => (Of(Dtype::U32), Little),
        71 => (Of(Dtype::U64), Little),
        72 => (Of(Dtype::I8), Little),
        73 => (Of(Dtype::I16), Big),
        74 => (Of(Dtype::I32), Big),
        75 => (Of(Dtype::I64), Big),
        77 => (Of(Dtype::I16), Little),
        78 => (Of(Dtype::I32), Little),
        79 => (Of(Dtype::I64), Little),
        80 => (Half, Big),
        81 => (Of(Dtype::F32), Big),
        82 => (Of(Dtype::F64), Big),
        84 => (Half, Little),
        85 => (Of(Dtype::F32), Little),
        86 => (Of(Dtype::F64), Little),
        _ => return None,
    })
}

const fn tag_of(dtype: Dtype, byte_order: ByteOrder) -> u64 {
    let little = match dtype {
        Dtype::U8 => return U8,
        Dtype::I8 => return 72,
        Dtype::U16 => 69,
        Dtype::U32 => 70,
        Dtype::U64 => 71,
        Dtype::I16 => 77,
        Dtype::I32 => 78,
        Dtype::I64 => 79,
        Dtype::F32 => F32_LITTLE,
        Dtype::F64 => 86,
    };
    match byte_order {
        ByteOrder::Little => little,
        ByteOrder::Big => little - 4,
    }
}

/// Half floats as little-endian `f32` bytes.
pub(crate) fn widen_half(bytes: &[u8], byte_order: ByteOrder) -> Bytes {
    let from = match byte_order {
        ByteOrder::Little => f16::from_le_bytes,
        ByteOrder::Big => f16::from_be_bytes,
    };
    let (halves, _) = bytes.as_chunks::<2>();
    halves.iter().flat_map(|&half| from(half).to_f32().to_le_bytes()).collect::<Vec<u8>>().into()
}

/// An image in any element type and byte order.
pub(super) fn read_pixels(reader: &mut Reader) -> Result<PixelArray, DecodeError> {
    let (shape, array) = read_two_dimensional(reader)?;
    let invalid = |source| DecodeError::Array { field: reader.field(), source };
    match array.element {
        Element::Of(dtype) => PixelArray::new(dtype, array.byte_order, shape, array.bytes).map_err(invalid),
        Element::Half => {
            expect_elements(reader, shape, &array)?;
            let bytes = widen_half(&array.bytes, array.byte_order);
            PixelArray::new(Dtype::F32, ByteOrder::Little, shape, bytes).map_err(invalid)
        }
    }
}

/// A `[rows, cols]` array of `f32`.
pub(super) fn read_f32_grid(reader: &mut Reader) -> Result<Grid<f32>, DecodeError> {
    let ([rows, cols], array) = read_two_dimensional(reader)?;
    let values = f32_values(reader, &array)?;
    Grid::new(rows, cols, values).map_err(|source| DecodeError::Array { field: reader.field(), source })
}

/// A `[rows, cols]` array of `u8`.
pub(super) fn read_u8_grid(reader: &mut Reader) -> Result<Grid<u8>, DecodeError> {
    let ([rows, cols], array) = read_two_dimensional(reader)?;
    let values = u8_values(reader, &array)?;
    Grid::new(rows, cols, values).map_err(|source| DecodeError::Array { field: reader.field(), source })
}

/// A column of `f32`.
pub(super) fn read_f32_column(reader: &mut Reader) -> Result<Vec<f32>, DecodeError> {
    let array = read_typed(reader)?;
    f32_values(reader, &array)
}

/// A column of `u8`.
pub(super) fn read_u8_column(reader: &mut Reader) -> Result<Vec<u8>, DecodeError> {
    let array = read_typed(reader)?;
    u8_values(reader, &array)
}

fn f32_values(reader: &Reader, array: &TypedArray) -> Result<Vec<f32>, DecodeError> {
    let from = match (array.element, array.byte_order) {
        (Element::Of(Dtype::F32), ByteOrder::Little) => f32::from_le_bytes,
        (Element::Of(Dtype::F32), ByteOrder::Big) => f32::from_be_bytes,
        (Element::Half, byte_order) => {
            let widened = widen_half(&array.bytes, byte_order);
            let (elements, _) = widened.as_chunks::<4>();
            return Ok(elements.iter().copied().map(f32::from_le_bytes).collect());
        }
        (Element::Of(other), _) => {
            return Err(reader.mismatch("a typed array of 32-bit floats", other.numpy_name()));
        }
    };
    let (elements, _) = array.bytes.as_chunks::<4>();
    Ok(elements.iter().copied().map(from).collect())
}

fn u8_values(reader: &Reader, array: &TypedArray) -> Result<Vec<u8>, DecodeError> {
    match array.element {
        Element::Of(Dtype::U8) => Ok(array.bytes.to_vec()),
        Element::Of(other) => Err(reader.mismatch("a typed array of bytes", other.numpy_name())),
        Element::Half => Err(reader.mismatch("a typed array of bytes", "float16")),
    }
}

fn read_two_dimensional(reader: &mut Reader) -> Result<([usize; 2], TypedArray), DecodeError> {
    const EXPECTED: &str = "a row-major array (tag 40)";
    if reader.kind()? != Type::Tag {
        return Err(reader.unexpected(EXPECTED));
    }
    match reader.tag()? {
        ROW_MAJOR => {}
        COLUMN_MAJOR => return Err(reader.mismatch(EXPECTED, "a column-major one (tag 1040)")),
        other => return Err(reader.mismatch(EXPECTED, &format!("tag {other}"))),
    }
    let (mut shape, mut array) = (None, None);
    reader.array(|reader, index| {
        match index {
            0 => {
                let dimensions = reader.pair(Reader::uint)?;
                shape = Some(reader.limits().check_shape(&reader.field(), dimensions)?);
            }
            1 => array = Some(read_typed(reader)?),
            _ => return Err(reader.mismatch("[[rows, cols], typed array]", "a third element")),
        }
        Ok(())
    })?;
    match (shape, array) {
        (Some(shape), Some(array)) => Ok((shape, array)),
        _ => Err(reader.mismatch("[[rows, cols], typed array]", "fewer elements")),
    }
}

fn read_typed(reader: &mut Reader) -> Result<TypedArray, DecodeError> {
    const EXPECTED: &str = "a typed array (tags 64 to 86)";
    if reader.kind()? != Type::Tag {
        return Err(reader.unexpected(EXPECTED));
    }
    let tag = reader.tag()?;
    let Some((element, byte_order)) = element_of(tag) else {
        return Err(reader.mismatch(EXPECTED, &format!("tag {tag}")));
    };
    let bytes = reader.byte_string()?;
    let size = match element {
        Element::Of(dtype) => dtype.size(),
        Element::Half => 2,
    };
    if !bytes.len().is_multiple_of(size) {
        let found = format!("{} bytes of {size}-byte elements", bytes.len());
        return Err(reader.mismatch("a whole number of elements", &found));
    }
    Ok(TypedArray { element, byte_order, bytes })
}

/// Half floats are widened before their shape can be checked by [`PixelArray::new`]: check first.
fn expect_elements(reader: &Reader, [rows, cols]: [usize; 2], array: &TypedArray) -> Result<(), DecodeError> {
    if rows.checked_mul(cols) == Some(array.bytes.len() / 2) {
        return Ok(());
    }
    let found = format!("{} half floats for {rows} x {cols}", array.bytes.len() / 2);
    Err(reader.mismatch("rows times cols elements", &found))
}

pub(super) fn write_pixels(out: &mut Out, pixels: &PixelArray) -> Written {
    write_shape(out, pixels.shape())?;
    out.tag(Tag::new(tag_of(pixels.dtype(), pixels.byte_order())))?.bytes(pixels.bytes())?;
    Ok(())
}

pub(super) fn write_f32_grid(out: &mut Out, grid: &Grid<f32>) -> Written {
    write_shape(out, grid.shape())?;
    write_f32_column(out, grid.values())
}

pub(super) fn write_u8_grid(out: &mut Out, grid: &Grid<u8>) -> Written {
    write_shape(out, grid.shape())?;
    write_u8_column(out, grid.values())
}

pub(super) fn write_f32_column(out: &mut Out, values: &[f32]) -> Written {
    out.tag(Tag::new(F32_LITTLE))?.bytes_len(4 * values.len() as u64)?;
    out.writer_mut().extend(values.iter().flat_map(|value| value.to_le_bytes()));
    Ok(())
}

pub(super) fn write_u8_column(out: &mut Out, values: &[u8]) -> Written {
    out.tag(Tag::new(U8))?.bytes(values)?;
    Ok(())
}

fn write_shape(out: &mut Out, [rows, cols]: [usize; 2]) -> Written {
    out.tag(Tag::new(ROW_MAJOR))?.array(2)?.array(2)?.u64(rows as u64)?.u64(cols as u64)?;
    Ok(())
}
