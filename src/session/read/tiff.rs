//! TIFF and BigTIFF with grey pixels: each page is a frame.
//!
//! Pages of another shape or type than the first (thumbnails, overlays) are passed over, and counted in the description.
//! ImageJ writes stacks of more than 4 GB as one page with the other images behind it, which are read as such.

use super::super::error::SessionError;
use super::super::reader::{FrameReader, OpenOptions, RecordedFrame, SessionFormat, unlabelled};
use super::facts::Facts;
use super::npy::widen;
use super::tiff_labels::{Labels, facts};
use ferrostem_proto::{ByteOrder, Dtype, PixelArray};
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use tiff::decoder::{Decoder, DecodingSampleType, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

/// Pages of one file.
const MAX_PAGES: usize = 1_000_000;
/// Deflate and LZW make at most this many bytes of one.
const MAX_EXPANSION: u128 = 2048;

pub(in crate::session) struct TiffReader {
    path: PathBuf,
    decoder: Decoder<BufReader<File>>,
    page: Page,
    frames: Frames,
    description: String,
    facts: Facts,
}

/// What the pages of one stack have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Page {
    /// `[rows, cols]`.
    shape: [usize; 2],
    sample: Sample,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sample {
    As(Dtype),
    /// Widened to `f32`.
    Half,
}

enum Frames {
    /// Numbers of the pages.
    Pages(Vec<usize>),
    /// Images one behind the other, from this byte of the file.
    Behind { start: u64, count: usize, big_endian: bool },
}

impl Page {
    const fn bytes(self) -> u128 {
        let size = match self.sample {
            Sample::As(dtype) => dtype.size(),
            Sample::Half => 2,
        };
        size as u128 * self.shape[0] as u128 * self.shape[1] as u128
    }
}

impl TiffReader {
    pub(in crate::session) fn open(path: &Path, options: &OpenOptions) -> Result<Self, SessionError> {
        let io = |source| SessionError::Io { path: path.to_owned(), source };
        let place = || path.display().to_string();
        let file = File::open(path).map_err(io)?;
        let file_bytes = file.metadata().map_err(io)?.len();
        let limit = usize::try_from(options.max_frame_bytes).unwrap_or(usize::MAX);
        let mut limits = Limits::default();
        limits.decoding_buffer_size = limit;
        limits.intermediate_buffer_size = limit;
        let mut decoder =
            Decoder::new(BufReader::new(file)).map_err(|error| refusal(path, error))?.with_limits(limits);
        let page = page(path, &mut decoder)?;
        let needed = page.bytes();
        if needed > u128::from(options.max_frame_bytes) {
            return Err(SessionError::TooLarge { place: place(), needed, limit: options.max_frame_bytes });
        }
        if needed > u128::from(file_bytes) * MAX_EXPANSION {
            let expected = format!("{needed} bytes of {:?} pixels", page.shape);
            return Err(SessionError::unexpected(place(), expected, format!("a file of {file_bytes} bytes")));
        }
        let labels = Labels::of(&mut decoder);
        let (frames, pages) = match images_behind(&mut decoder, page, labels.images) {
            Some(frames) => (frames, 1),
            None => all_pages(path, &mut decoder, page)?,
        };
        let mut description = place();
        if pages > count(&frames) {
            description.push_str(&format!(" ({} of {pages} pages, those like the first)", count(&frames)));
        }
        let facts = facts(&labels, count(&frames));
        if let Frames::Behind { start, count, .. } = frames {
            let end = u128::from(start) + needed * count as u128;
            if end > u128::from(file_bytes) {
                let expected = format!("{count} images up to byte {end}");
                return Err(SessionError::unexpected(
                    place(),
                    expected,
                    format!("a file of {file_bytes} bytes"),
                ));
            }
        }
        Ok(Self { path: path.to_owned(), decoder, page, frames, description, facts })
    }

    /// Native-endian samples of frame `index`.
    fn samples(&mut self, index: usize) -> Result<Vec<u8>, SessionError> {
        let path = &self.path;
        let mut bytes = vec![0; self.page.bytes() as usize];
        match &self.frames {
            Frames::Pages(pages) => {
                let number = pages.get(index).copied().unwrap_or(usize::MAX);
                self.decoder.seek_to_image(number).map_err(|error| refusal(path, error))?;
                let layout = self.decoder.image_buffer_layout().map_err(|error| refusal(path, error))?;
                if layout.len != bytes.len() {
                    let expected = format!("{} bytes on page {number}", bytes.len());
                    return Err(SessionError::unexpected(path.display().to_string(), expected, layout.len));
                }
                self.decoder.read_image_bytes(&mut bytes).map_err(|error| refusal(path, error))?;
            }
            &Frames::Behind { start, big_endian, .. } => {
                let at = start + index as u64 * bytes.len() as u64;
                let reader = self.decoder.inner();
                reader
                    .seek(SeekFrom::Start(at))
                    .and_then(|_| reader.read_exact(&mut bytes))
                    .map_err(|source| SessionError::Io { path: path.clone(), source })?;
                if big_endian != cfg!(target_endian = "big") {
                    let size = bytes.len() / (self.page.shape[0] * self.page.shape[1]);
                    bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
                }
            }
        }
        Ok(bytes)
    }
}

fn count(frames: &Frames) -> usize {
    match frames {
        Frames::Pages(pages) => pages.len(),
        Frames::Behind { count, .. } => *count,
    }
}

fn refusal(path: &Path, error: TiffError) -> SessionError {
    match error {
        TiffError::IoError(source) => SessionError::Io { path: path.to_owned(), source },
        other => SessionError::unexpected(path.display().to_string(), "a TIFF image", other),
    }
}

/// The shape and type of the page that the decoder is at.
fn page(path: &Path, decoder: &mut Decoder<BufReader<File>>) -> Result<Page, SessionError> {
    let unexpected =
        |expected: &str, found: String| SessionError::unexpected(path.display().to_string(), expected, found);
    let (cols, rows) = decoder.dimensions().map_err(|error| refusal(path, error))?;
    let colour = decoder.colortype().map_err(|error| refusal(path, error))?;
    let bits = match colour {
        ColorType::Gray(bits) | ColorType::Multiband { bit_depth: bits, num_samples: 1 } => bits,
        other => return Err(unexpected("grey pixels", format!("{other:?}"))),
    };
    if rows == 0 || cols == 0 {
        return Err(unexpected("images with at least one pixel", format!("{rows} x {cols}")));
    }
    let layout = decoder.image_buffer_layout().map_err(|error| refusal(path, error))?;
    let dtype = match (layout.sample_type, bits) {
        (Some(DecodingSampleType::U8), 8) => Dtype::U8,
        (Some(DecodingSampleType::U16), 16) => Dtype::U16,
        (Some(DecodingSampleType::U32), 32) => Dtype::U32,
        (Some(DecodingSampleType::U64), 64) => Dtype::U64,
        (Some(DecodingSampleType::I8), 8) => Dtype::I8,
        (Some(DecodingSampleType::I16), 16) => Dtype::I16,
        (Some(DecodingSampleType::I32), 32) => Dtype::I32,
        (Some(DecodingSampleType::I64), 64) => Dtype::I64,
        (Some(DecodingSampleType::F32), 32) => Dtype::F32,
        (Some(DecodingSampleType::F64), 64) => Dtype::F64,
        (Some(DecodingSampleType::F16), 16) => {
            return Ok(Page { shape: [rows as usize, cols as usize], sample: Sample::Half });
        }
        (_, bits) => {
            let found = format!("{:?} of {bits} bits", layout.sample_format);
            return Err(unexpected("integers or floating-point numbers of 8, 16, 32 or 64 bits", found));
        }
    };
    Ok(Page { shape: [rows as usize, cols as usize], sample: Sample::As(dtype) })
}

/// The pages that are like the first, and how many there are.
fn all_pages(
    path: &Path,
    decoder: &mut Decoder<BufReader<File>>,
    first: Page,
) -> Result<(Frames, usize), SessionError> {
    let mut alike = vec![0];
    let mut pages = 1;
    while decoder.more_images() {
        if pages == MAX_PAGES {
            let expected = format!("at most {MAX_PAGES} pages");
            return Err(SessionError::unexpected(path.display().to_string(), expected, "more"));
        }
        decoder.next_image().map_err(|error| refusal(path, error))?;
        if page(path, decoder).is_ok_and(|other| other == first) {
            alike.push(pages);
        }
        pages += 1;
    }
    Ok((Frames::Pages(alike), pages))
}

/// ImageJ's large stacks: one page, uncompressed in one piece, and `images` in its description.
fn images_behind(
    decoder: &mut Decoder<BufReader<File>>,
    page: Page,
    images: Option<usize>,
) -> Option<Frames> {
    let count = images.filter(|&count| count > 1 && !decoder.more_images())?;
    if decoder.find_tag_unsigned::<u16>(Tag::Compression).ok()?.unwrap_or(1) != 1 {
        return None;
    }
    let offsets = decoder.get_tag_u64_vec(Tag::StripOffsets).ok()?;
    let lengths = decoder.get_tag_u64_vec(Tag::StripByteCounts).ok()?;
    let in_one_piece = offsets.len() == lengths.len()
        && offsets
            .windows(2)
            .zip(&lengths)
            .all(|(pair, length)| pair[0].checked_add(*length) == Some(pair[1]));
    let whole = lengths.iter().map(|&length| u128::from(length)).sum::<u128>() >= page.bytes();
    let big_endian = decoder.byte_order() == tiff::tags::ByteOrder::BigEndian;
    (in_one_piece && whole).then_some(Frames::Behind { start: *offsets.first()?, count, big_endian })
}

impl FrameReader for TiffReader {
    fn format(&self) -> SessionFormat {
        SessionFormat::Tiff
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn calibration(&self) -> String {
        self.facts.calibration.source.clone()
    }

    fn len(&self) -> usize {
        count(&self.frames)
    }

    fn time_ns(&self, index: usize) -> Option<u64> {
        (index < self.len()).then(|| self.facts.timing.at(index))?
    }

    fn frame(&mut self, index: usize) -> Result<RecordedFrame, SessionError> {
        let place = self.path.display().to_string();
        if index >= self.len() {
            return Err(SessionError::NoSuchFrame { place, index, len: self.len() });
        }
        let bytes = self.samples(index)?;
        let (dtype, bytes) = match self.page.sample {
            Sample::As(dtype) => (dtype, bytes),
            Sample::Half => {
                let (halves, _) = bytes.as_chunks::<2>();
                let wide = halves.iter().flat_map(|&half| widen(u16::from_ne_bytes(half)).to_ne_bytes());
                (Dtype::F32, wide.collect())
            }
        };
        let order = if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little };
        let data = PixelArray::new(dtype, order, self.page.shape, bytes.into())
            .map_err(|error| SessionError::unexpected(place, "an image of its own shape", error))?;
        let acquisition = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let message = self.facts.label(unlabelled(acquisition, index, data), index);
        Ok(RecordedFrame { message, t_ns: self.time_ns(index) })
    }
}
