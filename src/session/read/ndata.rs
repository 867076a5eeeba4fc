//! Nion Swift's `.ndata`: a zip archive of `data.npy` and `metadata.json`.
//!
//! Nion Swift does not compress them, so that frames are read where they lie. A compressed `data.npy` is unpacked into
//! memory, as far as one frame may go: more of it is refused, whatever the archive says about itself.

use super::super::error::SessionError;
use super::super::reader::{FrameReader, OpenOptions, RecordedFrame, SessionFormat};
use super::facts::Facts;
use super::nion;
use super::npy::{NpyReader, Source};
use super::objects::{MAX_JSON, json_object};
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;
use zip::read::ZipFile;
use zip::{CompressionMethod, ZipArchive};

const DATA: &str = "data.npy";
const METADATA: &str = "metadata.json";

pub(in crate::session) struct NdataReader {
    npy: NpyReader,
    facts: Facts,
}

impl NdataReader {
    pub(in crate::session) fn open(path: &Path, options: &OpenOptions) -> Result<Self, SessionError> {
        let place = || path.display().to_string();
        let io = |source| SessionError::Io { path: path.to_owned(), source };
        let broken = |error: zip::result::ZipError| {
            SessionError::unexpected(place(), "a zip archive as Nion Swift writes it", error)
        };
        let file = File::open(path).map_err(io)?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
        if archive.index_for_name(DATA).is_none() {
            let names: Vec<String> = archive
                .file_names_raw()
                .take(8)
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect();
            let expected = format!("an archive of {DATA} and {METADATA} (Nion Swift .ndata)");
            return Err(SessionError::unexpected(
                place(),
                expected,
                format!("an archive of {}", names.join(", ")),
            ));
        }
        let metadata = if archive.index_for_name(METADATA).is_some() {
            let mut text = Vec::new();
            let entry = archive.by_name(METADATA).map_err(broken)?;
            entry.take(MAX_JSON as u64 + 1).read_to_end(&mut text).map_err(io)?;
            json_object(&String::from_utf8_lossy(&text), || format!("{}:{METADATA}", place()))?
        } else {
            Value::Null
        };
        let entry = archive.by_name(DATA).map_err(broken)?;
        let source = data_source(path, entry, options)?;
        let npy = NpyReader::from_source(path, source, options)?;
        let shape = npy.shape();
        let [row, col] = nion::image_of(&metadata, shape, || format!("{}:{DATA}", place()))?;
        if col + 1 != shape.len() {
            let found = format!("it in axes {row} and {col} of {shape:?}");
            return Err(SessionError::unexpected(place(), "the image in the last two axes", found));
        }
        let facts = nion::facts(&metadata, shape.len(), [row, col], (shape.len() > 2).then_some(0));
        Ok(Self { npy, facts })
    }
}

/// Where the array lies, or the array unpacked.
fn data_source<R: Read>(
    path: &Path,
    entry: ZipFile<'_, R>,
    options: &OpenOptions,
) -> Result<Source, SessionError> {
    let io = |source| SessionError::Io { path: path.to_owned(), source };
    if let (CompressionMethod::Stored, false, Some(start)) =
        (entry.compression(), entry.encrypted(), entry.data_start())
    {
        let bytes = Box::new(File::open(path).map_err(io)?);
        return Ok(Source { bytes, start, end: start.saturating_add(entry.size()) });
    }
    let limit = options.max_frame_bytes;
    let mut unpacked = Vec::new();
    entry.take(limit.saturating_add(1)).read_to_end(&mut unpacked).map_err(io)?;
    let end = unpacked.len() as u64;
    if end > limit {
        let place = format!("{}:{DATA}, unpacked", path.display());
        return Err(SessionError::TooLarge { place, needed: u128::from(end), limit });
    }
    Ok(Source { bytes: Box::new(Cursor::new(unpacked)), start: 0, end })
}

impl FrameReader for NdataReader {
    fn format(&self) -> SessionFormat {
        SessionFormat::Ndata
    }

    fn description(&self) -> String {
        format!("{}:{DATA}", self.npy.description())
    }

    fn calibration(&self) -> String {
        self.facts.calibration.source.clone()
    }

    fn len(&self) -> usize {
        self.npy.len()
    }

    fn time_ns(&self, index: usize) -> Option<u64> {
        (index < self.len()).then(|| self.facts.timing.at(index))?
    }

    fn frame(&mut self, index: usize) -> Result<RecordedFrame, SessionError> {
        let frame = self.npy.frame(index)?;
        let message = self.facts.label(frame.message, index);
        Ok(RecordedFrame { message, t_ns: self.time_ns(index) })
    }
}
