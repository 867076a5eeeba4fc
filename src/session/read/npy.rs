//! numpy's `.npy`: an image, or a stack `[frame, row, col]`, of any integer or float type, byte order and memory order.
//!
//! `ndarray-npy` parses the header; its array readers want the element type at compile time and the whole stack in memory,
//! so the pixels are read here.

use super::super::error::SessionError;
use super::super::reader::{FrameReader, OpenOptions, RecordedFrame, SessionFormat, unlabelled};
use super::facts::Calibration;
use ferrostem_proto::{ByteOrder, Dtype, PixelArray};
use ndarray_npy::npy::header::{Header, Layout};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// numpy writes 128 bytes; more than this is no plain array.
const MAX_HEADER: usize = 4096;
/// Brackets in the header of a plain array: its dictionary and its shape.
const MAX_BRACKETS: usize = 4;
/// Bytes read at once from a stack in Fortran order.
const BLOCK: usize = 1 << 20;

/// Bytes that can be read from any place.
pub(in crate::session) trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// Where an array lies: bytes `start..end`.
pub(in crate::session) struct Source {
    pub(in crate::session) bytes: Box<dyn ReadSeek>,
    pub(in crate::session) start: u64,
    pub(in crate::session) end: u64,
}

pub(in crate::session) struct NpyReader {
    path: PathBuf,
    source: Box<dyn ReadSeek>,
    elements: Elements,
    layout: Layout,
    data_start: u64,
    shape: Vec<usize>,
    frames: usize,
    image: [usize; 2],
}

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Elements {
    stored: Stored,
    big_endian: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    As(Dtype),
    /// Widened to `f32`.
    Half,
}

impl Elements {
    /// From numpy's array protocol string, such as `<u2`.
    fn parse(descr: &str) -> Option<Self> {
        let (order, kind) = descr.split_at_checked(1)?;
        let big_endian = match order {
            "<" | "|" => false,
            ">" => true,
            "=" => cfg!(target_endian = "big"),
            _ => return None,
        };
        let stored = match kind {
            "u1" => Stored::As(Dtype::U8),
            "u2" => Stored::As(Dtype::U16),
            "u4" => Stored::As(Dtype::U32),
            "u8" => Stored::As(Dtype::U64),
            "i1" => Stored::As(Dtype::I8),
            "i2" => Stored::As(Dtype::I16),
            "i4" => Stored::As(Dtype::I32),
            "i8" => Stored::As(Dtype::I64),
            "f2" => Stored::Half,
            "f4" => Stored::As(Dtype::F32),
            "f8" => Stored::As(Dtype::F64),
            _ => return None,
        };
        Some(Self { stored, big_endian })
    }

    const fn size(self) -> usize {
        match self.stored {
            Stored::As(dtype) => dtype.size(),
            Stored::Half => 2,
        }
    }

    /// `stored` bytes as little-endian pixels and their type.
    fn to_pixels(self, mut stored: Vec<u8>) -> (Dtype, Vec<u8>) {
        if self.big_endian && self.size() > 1 {
            stored.chunks_exact_mut(self.size()).for_each(<[u8]>::reverse);
        }
        match self.stored {
            Stored::As(dtype) => (dtype, stored),
            Stored::Half => {
                let (halves, _) = stored.as_chunks::<2>();
                let widened = halves.iter().flat_map(|&half| widen(u16::from_le_bytes(half)).to_le_bytes());
                (Dtype::F32, widened.collect())
            }
        }
    }
}

/// An IEEE 754 half-precision number as `f32`, exactly.
pub(in crate::session) fn widen(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10 & 0x1f);
    let fraction = u32::from(half & 0x3ff);
    match exponent {
        // Subnormal: fraction * 2^-24.
        0 => f32::from_bits((fraction as f32 * 2f32.powi(-24)).to_bits() | sign),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

impl NpyReader {
    pub(in crate::session) fn open(path: &Path, options: &OpenOptions) -> Result<Self, SessionError> {
        let io = |source| SessionError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let end = file.metadata().map_err(io)?.len();
        Self::from_source(path, Source { bytes: Box::new(file), start: 0, end }, options)
    }

    /// An array inside of the file `path`.
    pub(in crate::session) fn from_source(
        path: &Path,
        source: Source,
        options: &OpenOptions,
    ) -> Result<Self, SessionError> {
        let place = || path.display().to_string();
        let Source { bytes: mut source, start, end } = source;
        let (header, data_start) = read_header(path, &mut source, start)?;
        let descr = header.type_descriptor.as_string();
        let elements = descr.and_then(|descr| Elements::parse(descr)).ok_or_else(|| {
            let found = descr.map_or_else(|| header.type_descriptor.to_string(), |d| format!("dtype {d}"));
            SessionError::unexpected(place(), "integers or floating-point numbers", found)
        })?;
        let (frames, image) = match header.shape[..] {
            [rows, cols] => (1, [rows, cols]),
            [frames, rows, cols] => (frames, [rows, cols]),
            _ => {
                return Err(SessionError::unexpected(
                    place(),
                    "2 axes (row, col) or 3 (frame, row, col)",
                    format!("{} of lengths {:?}", header.shape.len(), header.shape),
                ));
            }
        };
        if image.contains(&0) {
            let found = format!("{} x {}", image[0], image[1]);
            return Err(SessionError::unexpected(place(), "images with at least one pixel", found));
        }
        let frame_bytes =
            (elements.size() as u128).saturating_mul(image[0] as u128).saturating_mul(image[1] as u128);
        if frame_bytes > u128::from(options.max_frame_bytes) {
            let limit = options.max_frame_bytes;
            return Err(SessionError::TooLarge { place: place(), needed: frame_bytes, limit });
        }
        let needed = frame_bytes.saturating_mul(frames as u128);
        let present = end.saturating_sub(data_start);
        if needed > u128::from(present) {
            let expected = format!("{needed} bytes of {:?}", header.shape);
            return Err(SessionError::unexpected(place(), expected, format!("{present} bytes")));
        }
        let path = path.to_owned();
        Ok(Self {
            path,
            source,
            elements,
            layout: header.layout,
            data_start,
            shape: header.shape,
            frames,
            image,
        })
    }

    /// The shape of the array: an image or a stack.
    pub(in crate::session) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The stored bytes of frame `index` in `[row, col]` order.
    fn read(&mut self, index: usize) -> std::io::Result<Vec<u8>> {
        let size = self.elements.size();
        let [rows, cols] = self.image;
        let frame_bytes = size * rows * cols;
        if self.layout == Layout::Standard {
            let mut bytes = vec![0; frame_bytes];
            self.source.seek(SeekFrom::Start(self.data_start + index as u64 * frame_bytes as u64))?;
            self.source.read_exact(&mut bytes)?;
            return Ok(bytes);
        }
        // Fortran order: the first axis runs fastest, so each frame is spread over the whole file. A group is one pixel
        // of all frames.
        let mut bytes = vec![0; frame_bytes];
        let group = size * self.frames;
        let groups_at_once = (BLOCK / group).min(rows * cols);
        let mut block = Vec::new();
        let mut pixel = 0;
        while pixel < rows * cols {
            let count = groups_at_once.clamp(1, rows * cols - pixel);
            let group_start = pixel as u64 * group as u64;
            // Where not even a group fits into a block, pixel by pixel.
            let (skipped, wanted, stride) =
                if groups_at_once == 0 { (index * size, size, 1) } else { (0, count * group, self.frames) };
            block.resize(wanted, 0);
            self.source.seek(SeekFrom::Start(self.data_start + group_start + skipped as u64))?;
            self.source.read_exact(&mut block)?;
            let values = block[index * size - skipped..].chunks(size).step_by(stride);
            for (offset, value) in (pixel..).zip(values) {
                let at = (offset % rows * cols + offset / rows) * size;
                bytes[at..at + size].copy_from_slice(value);
            }
            pixel += count;
        }
        Ok(bytes)
    }
}

/// The header and where the numbers begin.
fn read_header(path: &Path, source: &mut dyn ReadSeek, at: u64) -> Result<(Header, u64), SessionError> {
    let io = |source| SessionError::Io { path: path.to_owned(), source };
    let refuse = |expected: String, found: String| {
        SessionError::unexpected(path.display().to_string(), expected, found)
    };
    // Magic, version, and the header's length: 2 bytes in version 1, 4 later.
    let mut start = [0; 12];
    source.seek(SeekFrom::Start(at)).and_then(|_| source.read_exact(&mut start)).map_err(io)?;
    let (prefix, length) = if start[6] == 1 {
        (10, usize::from(u16::from_le_bytes([start[8], start[9]])))
    } else {
        (12, u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize)
    };
    if length > MAX_HEADER {
        return Err(refuse(format!("a header of at most {MAX_HEADER} bytes"), format!("{length} bytes")));
    }
    let mut bytes = vec![0; prefix + length];
    source.seek(SeekFrom::Start(at)).and_then(|_| source.read_exact(&mut bytes)).map_err(io)?;
    // Structured types nest without bound, and the parser with them.
    let brackets = bytes[prefix..].iter().filter(|byte| b"([{}])".contains(byte)).count();
    if brackets > MAX_BRACKETS {
        return Err(refuse("a plain array".to_owned(), "a structured type".to_owned()));
    }
    let header = Header::from_reader(&mut &bytes[..])
        .map_err(|error| refuse("a numpy header".to_owned(), error.to_string()))?;
    Ok((header, at + (prefix + length) as u64))
}

impl FrameReader for NpyReader {
    fn format(&self) -> SessionFormat {
        SessionFormat::Npy
    }

    fn description(&self) -> String {
        self.path.display().to_string()
    }

    fn calibration(&self) -> String {
        Calibration::none("numpy arrays have no units").source
    }

    fn len(&self) -> usize {
        self.frames
    }

    fn time_ns(&self, _index: usize) -> Option<u64> {
        None
    }

    fn frame(&mut self, index: usize) -> Result<RecordedFrame, SessionError> {
        let place = self.path.display().to_string();
        if index >= self.frames {
            return Err(SessionError::NoSuchFrame { place, index, len: self.frames });
        }
        let stored =
            self.read(index).map_err(|source| SessionError::Io { path: self.path.clone(), source })?;
        let (dtype, bytes) = self.elements.to_pixels(stored);
        let data = PixelArray::new(dtype, ByteOrder::Little, self.image, bytes.into())
            .map_err(|error| SessionError::unexpected(place, "an image of its own shape", error))?;
        let acquisition = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(RecordedFrame { message: unlabelled(acquisition, index, data), t_ns: None })
    }
}

/// Writes `pixels` to the new file `path` as numpy's `.npy`, bit by bit as they are.
///
/// # Errors
/// When there is such a file already, or it cannot be written.
pub fn write_npy(path: &Path, pixels: &PixelArray) -> Result<(), SessionError> {
    let order = match pixels.byte_order() {
        _ if pixels.dtype().size() == 1 => '|',
        ByteOrder::Little => '<',
        ByteOrder::Big => '>',
    };
    let kind = match pixels.dtype() {
        Dtype::U8 => "u1",
        Dtype::U16 => "u2",
        Dtype::U32 => "u4",
        Dtype::U64 => "u8",
        Dtype::I8 => "i1",
        Dtype::I16 => "i2",
        Dtype::I32 => "i4",
        Dtype::I64 => "i8",
        Dtype::F32 => "f4",
        Dtype::F64 => "f8",
    };
    let [rows, cols] = pixels.shape();
    let mut header =
        format!("{{'descr': '{order}{kind}', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    // The numbers begin at a multiple of 64 bytes, after a line feed.
    let prefix = 10;
    header.extend(std::iter::repeat_n(' ', 63 - (prefix + header.len()) % 64));
    header.push('\n');
    let mut start = b"\x93NUMPY\x01\x00".to_vec();
    start.extend((header.len() as u16).to_le_bytes());
    start.extend(header.as_bytes());
    File::create_new(path)
        .and_then(|mut file| file.write_all(&start).and_then(|()| file.write_all(pixels.bytes())))
        .map_err(|source| SessionError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_numbers_are_widened_exactly() {
        for (half, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 2f32.powi(-14)),
            (0x0001, 2f32.powi(-24)),
            (0x8001, -(2f32.powi(-24))),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(widen(half), value, "{half:#06x}");
        }
        assert!(widen(0x8000).is_sign_negative() && widen(0x8000) == 0.0);
        assert!(widen(0x7e00).is_nan());
    }
}
