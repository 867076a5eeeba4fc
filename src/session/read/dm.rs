//! DigitalMicrograph's `.dm3` and `.dm4`: a tree of tags, of which `ImageList` holds the images.
//!
//! The format is Gatan's and not published; this follows what ncempy and RosettaSciIO found out. Integers of the tree
//! are big-endian, values in the order that the header names. Dimension 0 is the columns, 1 the rows, 2 the frames.

use super::super::error::SessionError;
use super::super::reader::{FrameReader, OpenOptions, RecordedFrame, SessionFormat, unlabelled};
use super::dm_tags::{Array, Tags};
use super::facts::{Axis, Calibration, Facts, Timing};
use ferrostem_proto::{ByteOrder, Dtype, PixelArray};
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Images of one file.
const MAX_IMAGES: usize = 1000;

pub(in crate::session) struct DmReader {
    path: PathBuf,
    file: BufReader<File>,
    description: String,
    image: Image,
    little_endian: bool,
    facts: Facts,
}

/// Where an image or a stack lies.
struct Image {
    start: u64,
    dtype: Dtype,
    frames: usize,
    /// `[rows, cols]`.
    shape: [usize; 2],
}

impl DmReader {
    pub(in crate::session) fn open(path: &Path, options: &OpenOptions) -> Result<Self, SessionError> {
        let io = |source| SessionError::Io { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let file_bytes = file.get_ref().metadata().map_err(io)?.len();
        let tags = Tags::read(path, &mut file)?;
        let numbers: Vec<usize> =
            (0..MAX_IMAGES).take_while(|number| tags.number(&key(*number, "DataType")).is_some()).collect();
        let mut images = Vec::new();
        let mut refused = None;
        for &number in &numbers {
            match image(path, &tags, number) {
                Ok(image) => images.push((number, image)),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let count = images.len();
        let Some((number, image)) = images.into_iter().next() else {
            let none =
                || SessionError::unexpected(path.display().to_string(), "an ImageList with an image", "none");
            return Err(refused.unwrap_or_else(none));
        };
        check_sizes(path, &image, file_bytes, options)?;
        let mut description = format!("{}:ImageList[{number}]", path.display());
        if count > 1 {
            description.push_str(&format!(" (the first of {count} images)"));
        }
        let facts = facts(&tags, number, &mut file);
        Ok(Self { path: path.to_owned(), file, description, image, little_endian: tags.little_endian, facts })
    }
}

fn key(number: usize, name: &str) -> String {
    format!("ImageList/{number}/ImageData/{name}")
}

/// Image `number`; thumbnails are in colours, which are refused.
fn image(path: &Path, tags: &Tags, number: usize) -> Result<Image, SessionError> {
    let place = || format!("{}:ImageList[{number}]", path.display());
    let data_type = tags.number(&key(number, "DataType")).unwrap_or(f64::NAN);
    let dtype = match data_type as i64 {
        1 => Dtype::I16,
        2 => Dtype::F32,
        6 | 14 => Dtype::U8,
        7 => Dtype::I32,
        9 => Dtype::I8,
        10 => Dtype::U16,
        11 => Dtype::U32,
        12 => Dtype::F64,
        39 => Dtype::I64,
        40 => Dtype::U64,
        other => {
            let found = match other {
                3 | 5 | 13 | 27 | 28 => "complex numbers".to_owned(),
                8 | 23 => "colours".to_owned(),
                other => format!("data type {other}"),
            };
            return Err(SessionError::unexpected(place(), "integer or floating-point pixels", found));
        }
    };
    let lengths: Vec<usize> = (0..8)
        .map_while(|axis| tags.number(&key(number, &format!("Dimensions/{axis}"))))
        .map(|length| length as usize)
        .collect();
    let (frames, shape) = match lengths[..] {
        [cols, rows] => (1, [rows, cols]),
        [cols, rows, frames] => (frames, [rows, cols]),
        _ => {
            let found = format!("dimensions {lengths:?}");
            return Err(SessionError::unexpected(
                place(),
                "2 dimensions (columns, rows) or 3 (…, frames)",
                found,
            ));
        }
    };
    let Some(Array { start, count, element_bytes }) = tags.array(&key(number, "Data")) else {
        return Err(SessionError::unexpected(place(), "an array of pixels", "none"));
    };
    let wanted = (frames as u128).saturating_mul(shape[0] as u128).saturating_mul(shape[1] as u128);
    if u128::from(count) != wanted || element_bytes != dtype.size() as u64 {
        let found = format!("{count} of {element_bytes} bytes");
        return Err(SessionError::unexpected(
            place(),
            format!("{wanted} pixels of {} bytes", dtype.size()),
            found,
        ));
    }
    if shape.contains(&0) {
        return Err(SessionError::unexpected(
            place(),
            "images with at least one pixel",
            format!("{lengths:?}"),
        ));
    }
    Ok(Image { start, dtype, frames, shape })
}

fn check_sizes(
    path: &Path,
    image: &Image,
    file_bytes: u64,
    options: &OpenOptions,
) -> Result<(), SessionError> {
    let place = path.display().to_string();
    let needed = (image.dtype.size() as u128)
        .saturating_mul((image.shape[0] as u128).saturating_mul(image.shape[1] as u128));
    let limit = options.max_frame_bytes;
    if needed > u128::from(limit) {
        return Err(SessionError::TooLarge { place, needed, limit });
    }
    let end = u128::from(image.start) + needed.saturating_mul(image.frames as u128);
    if end > u128::from(file_bytes) {
        let found = format!("a file of {file_bytes} bytes");
        return Err(SessionError::unexpected(place, format!("pixels up to byte {end}"), found));
    }
    Ok(())
}

fn facts(tags: &Tags, number: usize, file: &mut BufReader<File>) -> Facts {
    let mut axis = |dimension: usize| {
        let within = |name: &str| key(number, &format!("Calibrations/Dimension/{dimension}/{name}"));
        let units = tags.text(&within("Units"), file).unwrap_or_default();
        Axis { name: String::new(), units, step: tags.number(&within("Scale")) }
    };
    let (col, row, frame) = (axis(0), axis(1), axis(2));
    let of_image = |name: &str| format!("ImageList/{number}/{name}");
    let timing =
        if tags.number(&key(number, "Dimensions/2")).is_some() { frame.timing() } else { Timing::default() };
    Facts {
        timing,
        channel: tags.text(&of_image("Name"), file).filter(|name| !name.is_empty()),
        // µs, like DigiScan's dialogue.
        dwell_us: tags.number(&of_image("ImageTags/DigiScan/Sample Time")),
        ..Facts::new(Calibration::of_axes(&row, &col, "Calibrations/Dimension"))
    }
}

impl FrameReader for DmReader {
    fn format(&self) -> SessionFormat {
        SessionFormat::DigitalMicrograph
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn calibration(&self) -> String {
        self.facts.calibration.source.clone()
    }

    fn len(&self) -> usize {
        self.image.frames
    }

    fn time_ns(&self, index: usize) -> Option<u64> {
        (index < self.len()).then(|| self.facts.timing.at(index))?
    }

    fn frame(&mut self, index: usize) -> Result<RecordedFrame, SessionError> {
        let place = self.path.display().to_string();
        let Image { start, dtype, frames, shape } = self.image;
        if index >= frames {
            return Err(SessionError::NoSuchFrame { place, index, len: frames });
        }
        let mut bytes = vec![0; dtype.size() * shape[0] * shape[1]];
        let at = start + index as u64 * bytes.len() as u64;
        self.file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|source| SessionError::Io { path: self.path.clone(), source })?;
        let order = if self.little_endian { ByteOrder::Little } else { ByteOrder::Big };
        let data = PixelArray::new(dtype, order, shape, bytes.into())
            .map_err(|error| SessionError::unexpected(place, "an image of its own shape", error))?;
        let acquisition = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let message = self.facts.label(unlabelled(acquisition, index, data), index);
        Ok(RecordedFrame { message, t_ns: self.time_ns(index) })
    }
}
