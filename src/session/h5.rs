//! The few HDF5 idioms that recording and reading share: text attributes, growing tables, pixels of any type.

use super::error::{At, SessionError};
use super::file::recover_killed;
use ferrostem_proto::{ByteOrder, Dtype, PixelArray};
use hdf5::file::OpenMode;
use hdf5::types::{FixedAscii, FixedUnicode, FloatSize, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Dataset, Extent, File, Group, H5Type, Hyperslab, Location, SliceOrIndex};
use ndarray::{ArrayD, ArrayView1, IxDyn};
use std::marker::PhantomData;
use std::ops::Range;
use std::path::Path;

/// Longest fixed-length text that is read; longer ones are cut by the library.
const MAX_FIXED_TEXT: usize = 1024;

/// Opens a file for reading, also one that is being written, or whose writer was killed before it could say that it is
/// whole (see [`superblock`](super::superblock)).
pub(super) fn open_file(path: &Path) -> Result<File, SessionError> {
    // The library's own words for a missing file are many.
    std::fs::metadata(path).map_err(|source| SessionError::Io { path: path.to_owned(), source })?;
    File::open(path)
        .or_else(|refusal| File::open_as(path, OpenMode::ReadSWMR).map_err(|_| refusal))
        .or_else(|refusal| if recover_killed(path) { File::open(path) } else { Err(refusal) })
        .at(|| path.display().to_string())
}

/// `file.h5:/path/in/it`, for messages.
pub(super) fn place(object: &Location) -> String {
    format!("{}:{}", object.filename(), object.name())
}

/// `value` as HDF5 text, which cannot hold NUL: U+FFFD stands in for it.
pub(super) fn text(value: &str) -> VarLenUnicode {
    value.parse().unwrap_or_else(|_| value.replace('\0', "\u{FFFD}").parse().unwrap_or_default())
}

/// What HDF5 text says; empty where it was never written, U+FFFD where it is not UTF-8.
pub(super) fn string(value: &VarLenUnicode) -> String {
    if value.as_ptr().is_null() {
        return String::new();
    }
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn ascii_string(value: &VarLenAscii) -> String {
    if value.as_ptr().is_null() {
        return String::new();
    }
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

pub(super) fn write_text(object: &Location, name: &str, value: &str) -> Result<(), SessionError> {
    write_attribute(object, name, &text(value))
}

pub(super) fn write_attribute<T: H5Type>(
    object: &Location,
    name: &str,
    value: &T,
) -> Result<(), SessionError> {
    object
        .new_attr::<T>()
        .create(name)
        .and_then(|attribute| attribute.write_scalar(value))
        .at(|| format!("{}@{name}", place(object)))
}

/// A text attribute of any of HDF5's four kinds; `None` when it is missing or something else.
pub(super) fn read_text(object: &Location, name: &str) -> Option<String> {
    let attribute = object.attr(name).ok()?;
    if attribute.size() != 1 {
        return None;
    }
    match attribute.dtype().ok()?.to_descriptor().ok()? {
        TypeDescriptor::VarLenUnicode => attribute.read_raw::<VarLenUnicode>().ok()?.first().map(string),
        TypeDescriptor::VarLenAscii => attribute.read_raw::<VarLenAscii>().ok()?.first().map(ascii_string),
        TypeDescriptor::FixedAscii(_) => {
            let values = attribute.read_raw::<FixedAscii<MAX_FIXED_TEXT>>().ok()?;
            values.first().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
        }
        TypeDescriptor::FixedUnicode(_) => {
            let values = attribute.read_raw::<FixedUnicode<MAX_FIXED_TEXT>>().ok()?;
            values.first().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
        }
        _ => None,
    }
}

pub(super) fn read_attribute<T: H5Type>(object: &Location, name: &str) -> Result<T, SessionError> {
    object
        .attr(name)
        .and_then(|attribute| attribute.read_scalar::<T>())
        .at(|| format!("{}@{name}", place(object)))
}

/// A one-dimensional dataset of `R` that grows at its end.
pub(super) struct Table<R> {
    dataset: Dataset,
    name: String,
    rows: usize,
    row: PhantomData<R>,
}

impl<R: H5Type> Table<R> {
    /// An empty table that grows by `chunk_rows` on disk.
    pub(super) fn create(group: &Group, name: &str, chunk_rows: usize) -> Result<Self, SessionError> {
        let dataset = group
            .new_dataset::<R>()
            .shape([Extent::resizable(0)])
            .chunk([chunk_rows])
            .create(name)
            .at(|| format!("{}/{name}", place(group)))?;
        Ok(Self { dataset, name: name.to_owned(), rows: 0, row: PhantomData })
    }

    /// A table that `group` has.
    pub(super) fn open(group: &Group, name: &str) -> Result<Self, SessionError> {
        let dataset = group.dataset(name).at(|| format!("{}/{name}", place(group)))?;
        check_fields::<R>(&dataset)?;
        Ok(Self { name: name.to_owned(), rows: dataset.size(), dataset, row: PhantomData })
    }

    /// Takes the table up again in `group`, in which it was created.
    pub(super) fn reopen(&mut self, group: &Group) -> Result<(), SessionError> {
        self.dataset = group.dataset(&self.name).at(|| format!("{}/{}", place(group), self.name))?;
        Ok(())
    }

    /// Adds `rows` and returns where they begin.
    pub(super) fn append(&mut self, rows: &[R]) -> Result<usize, SessionError> {
        let start = self.rows;
        if rows.is_empty() {
            return Ok(start);
        }
        let end = start + rows.len();
        self.dataset
            .resize([end])
            .and_then(|()| self.dataset.write_slice(ArrayView1::from(rows), start..end))
            .at(|| place(&self.dataset))?;
        self.rows = end;
        Ok(start)
    }

    pub(super) const fn len(&self) -> usize {
        self.rows
    }
}

/// Rows `range` of a table, after checking that it has them.
pub(super) fn read_rows<R: H5Type>(table: &Dataset, range: Range<usize>) -> Result<Vec<R>, SessionError> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let shape = table.shape();
    if shape.len() != 1 || range.end > shape[0] {
        return Err(SessionError::unexpected(
            place(table),
            format!("a table with at least {} rows", range.end),
            format!("shape {shape:?}"),
        ));
    }
    check_fields::<R>(table)?;
    let rows = table.read_slice_1d::<R, _>(range).at(|| place(table))?;
    Ok(rows.into_raw_vec_and_offset().0)
}

/// Every field of `R` must be in the table with its type: the library leaves the memory of a missing one as it was.
fn check_fields<R: H5Type>(table: &Dataset) -> Result<(), SessionError> {
    let found = table.dtype().and_then(|dtype| dtype.to_descriptor()).at(|| place(table))?;
    let expected = R::type_descriptor();
    let (TypeDescriptor::Compound(found), TypeDescriptor::Compound(expected)) = (&found, &expected) else {
        return Err(SessionError::unexpected(place(table), expected.to_string(), found));
    };
    for field in &expected.fields {
        let same_name = found.fields.iter().find(|other| other.name == field.name);
        if same_name.is_none_or(|other| other.ty != field.ty) {
            return Err(SessionError::unexpected(
                place(table),
                format!("a field {} ({})", field.name, field.ty),
                same_name.map_or_else(|| "none".to_owned(), |other| other.ty.to_string()),
            ));
        }
    }
    Ok(())
}

/// Runs `$body` with `$type` standing for the Rust type of `$dtype`.
macro_rules! with_pixel_type {
    ($dtype:expr, $type:ident => $body:expr) => {{
        macro_rules! arm {
            ($rust:ty) => {{
                type $type = $rust;
                $body
            }};
        }
        match $dtype {
            ferrostem_proto::Dtype::U8 => arm!(u8),
            ferrostem_proto::Dtype::U16 => arm!(u16),
            ferrostem_proto::Dtype::U32 => arm!(u32),
            ferrostem_proto::Dtype::U64 => arm!(u64),
            ferrostem_proto::Dtype::I8 => arm!(i8),
            ferrostem_proto::Dtype::I16 => arm!(i16),
            ferrostem_proto::Dtype::I32 => arm!(i32),
            ferrostem_proto::Dtype::I64 => arm!(i64),
            ferrostem_proto::Dtype::F32 => arm!(f32),
            ferrostem_proto::Dtype::F64 => arm!(f64),
        }
    }};
}

/// The type in a file for pixels of `dtype`.
pub(super) fn descriptor(dtype: Dtype) -> TypeDescriptor {
    with_pixel_type!(dtype, T => <T as H5Type>::type_descriptor())
}

/// The pixel type of `dataset`. Floats of a width that Rust has no type for (float16) are read as `f32`.
///
/// # Errors
/// When its elements are not real numbers.
pub(super) fn pixel_dtype(dataset: &Dataset) -> Result<Dtype, SessionError> {
    let dtype = dataset.dtype().at(|| place(dataset))?;
    let found = match dtype.to_descriptor() {
        Ok(TypeDescriptor::Unsigned(size)) => {
            return Ok(match size {
                IntSize::U1 => Dtype::U8,
                IntSize::U2 => Dtype::U16,
                IntSize::U4 => Dtype::U32,
                IntSize::U8 => Dtype::U64,
            });
        }
        Ok(TypeDescriptor::Integer(size)) => {
            return Ok(match size {
                IntSize::U1 => Dtype::I8,
                IntSize::U2 => Dtype::I16,
                IntSize::U4 => Dtype::I32,
                IntSize::U8 => Dtype::I64,
            });
        }
        Ok(TypeDescriptor::Float(size)) => {
            return Ok(match size {
                FloatSize::U4 => Dtype::F32,
                FloatSize::U8 => Dtype::F64,
            });
        }
        Ok(TypeDescriptor::Compound(compound))
            if compound.fields.iter().map(|f| f.name.as_str()).eq(["r", "i"]) =>
        {
            "complex numbers".to_owned()
        }
        Ok(TypeDescriptor::Compound(compound)) => {
            let names: Vec<&str> = compound.fields.iter().map(|f| f.name.as_str()).collect();
            format!("a compound of {}", names.join(", "))
        }
        Ok(other) => other.to_string(),
        Err(_) if dtype.size() == 2 && dtype.conv_to::<f32>().is_some() => return Ok(Dtype::F32),
        Err(_) => format!("elements of {} bytes of a kind not known here", dtype.size()),
    };
    Err(SessionError::unexpected(place(dataset), "integer or floating-point pixels", found))
}

/// One image of a stack: `frame` on axis `frame_axis`, all of the two others, of which `row_axis` is the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageAxes {
    pub(super) frame: Option<usize>,
    pub(super) row: usize,
    pub(super) col: usize,
}

/// Reads image `frame` of `dataset` as little-endian pixels in `[row, col]` order.
/// The caller has checked the axes against the shape, and the size against its limit.
pub(super) fn read_image(
    dataset: &Dataset,
    axes: ImageAxes,
    frame: usize,
    dtype: Dtype,
) -> Result<PixelArray, SessionError> {
    let shape = dataset.shape();
    let selection: Vec<SliceOrIndex> = (0..shape.len())
        .map(|axis| if Some(axis) == axes.frame { frame.into() } else { (0..shape[axis]).into() })
        .collect();
    let selection = Hyperslab::from(selection);
    let rows_first = axes.row < axes.col;
    let image = [shape[axes.row], shape[axes.col]];
    let bytes: Vec<u8> = with_pixel_type!(dtype, T => {
        let values: ArrayD<T> = dataset.read_slice(selection).at(|| place(dataset))?;
        let values = if rows_first { values } else { values.reversed_axes() };
        let mut bytes = Vec::with_capacity(values.len() * size_of::<T>());
        for value in &values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    });
    PixelArray::new(dtype, ByteOrder::Little, image, bytes.into())
        .map_err(|error| SessionError::unexpected(place(dataset), "an image of its own shape", error))
}

/// Writes `pixels` as image `index` of the stack `dataset` `[frame, row, col]`, without changing a bit of a value.
pub(super) fn write_image(dataset: &Dataset, index: usize, pixels: &PixelArray) -> Result<(), SessionError> {
    let [rows, cols] = pixels.shape();
    let selection: Vec<SliceOrIndex> = vec![index.into(), (0..rows).into(), (0..cols).into()];
    write_plane(dataset, Hyperslab::from(selection), pixels, false)
}

/// Writes `pixels` into the part of `dataset` that `selection` names, with rows and columns changed over where `transposed`.
pub(super) fn write_plane(
    dataset: &Dataset,
    selection: Hyperslab,
    pixels: &PixelArray,
    transposed: bool,
) -> Result<(), SessionError> {
    let [rows, cols] = pixels.shape();
    with_pixel_type!(pixels.dtype(), T => {
        let from = match pixels.byte_order() {
            ByteOrder::Little => T::from_le_bytes,
            ByteOrder::Big => T::from_be_bytes,
        };
        let (elements, _) = pixels.bytes().as_chunks::<{ size_of::<T>() }>();
        let values: Vec<T> = elements.iter().map(|&element| from(element)).collect();
        ArrayD::from_shape_vec(IxDyn(&[rows, cols]), values)
            .map_err(hdf5::Error::from)
            .and_then(|image| {
                let image = if transposed { image.reversed_axes() } else { image };
                dataset.write_slice(image.as_standard_layout().view(), selection)
            })
            .at(|| place(dataset))
    })
}
