//! Opening a recorded file, whatever its format.

use super::error::{At, SessionError};
use super::{dataset, h5, layout, npy, nsid, own};
use ferrostem_proto::{FrameMessage, JsonMap, PixelArray};
use hdf5::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Formats that [`open`] tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionFormat {
    /// Written by a [`Recorder`](super::Recorder).
    Own,
    /// pyNSID/sidpy.
    Nsid,
    /// A dataset named by its path in any HDF5 file.
    Hdf5Dataset,
    /// numpy.
    Npy,
}

/// What to read from a file and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// Path of a dataset in an HDF5 file; `None` = find the images by the file's format.
    pub dataset: Option<String>,
    /// A file whose frames (or the chunks that hold them) are larger than this is refused.
    pub max_frame_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { dataset: None, max_frame_bytes: 1 << 30 }
    }
}

/// A frame as the wire would have brought it.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedFrame {
    /// Pixels in the file's type, little-endian.
    pub message: FrameMessage,
    /// When it was received (own sessions) or taken, Unix ns; `None` where the file does not say.
    pub t_ns: Option<u64>,
}

/// A file of frames, read one at a time.
pub trait FrameReader: Send {
    fn format(&self) -> SessionFormat;

    /// What is read and what was chosen, for people.
    fn description(&self) -> String;

    /// Number of frames.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// [`RecordedFrame::t_ns`] of frame `index` without reading its pixels. Where a file has relative times only, the
    /// first frame is at 0.
    fn time_ns(&self, index: usize) -> Option<u64>;

    /// The acquisition that frame `index` belongs to, without reading its pixels. `None` in files that hold one only.
    fn acquisition(&self, _index: usize) -> Option<&str> {
        None
    }

    /// # Errors
    /// When there is no such frame, or the file cannot be read.
    fn frame(&mut self, index: usize) -> Result<RecordedFrame, SessionError>;
}

impl std::fmt::Debug for dyn FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.description())
    }
}

/// Opens `path` as what it is.
///
/// # Errors
/// When it is none of the formats known, or holds no images; the message says what was found.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn FrameReader>, SessionError> {
    let magic = magic(path).map_err(|source| SessionError::Io { path: path.to_owned(), source })?;
    match (magic, &options.dataset) {
        (Magic::Npy, None) => Ok(Box::new(npy::NpyReader::open(path, options)?)),
        (Magic::Npy, Some(dataset)) => Err(SessionError::unexpected(
            path.display().to_string(),
            format!("an HDF5 file with a dataset {dataset}"),
            "a numpy array, which has no datasets",
        )),
        (Magic::Hdf5, dataset) => {
            let file = File::open(path).at(|| path.display().to_string())?;
            if let Some(name) = dataset {
                return Ok(Box::new(dataset::open(&file, name, options)?));
            }
            if h5::read_text(&file, "format").as_deref() == Some(layout::FORMAT) {
                return Ok(Box::new(own::SessionReader::open(file, options)?));
            }
            Ok(Box::new(nsid::open(&file, options)?))
        }
        (Magic::Other(start), _) => Err(SessionError::unexpected(
            path.display().to_string(),
            "an HDF5 file (.h5, .hf5, …) or a numpy array (.npy)",
            format!("a file that begins with {start:02x?}"),
        )),
    }
}

/// A frame from a file that says nothing but its pixels; numbered by its place in the file.
pub(super) fn unlabelled(acquisition: String, index: usize, data: PixelArray) -> FrameMessage {
    FrameMessage {
        acquisition: Some(acquisition),
        seq: index as u64,
        t_start_ns: None,
        t_end_ns: None,
        data,
        pixel_size_pm: None,
        rotation_rad: None,
        center_nm: None,
        fov_nm: None,
        dwell_us: None,
        channel: None,
        state: None,
        valid_rows: None,
        user_data: JsonMap::default(),
    }
}

enum Magic {
    Npy,
    Hdf5,
    Other(Vec<u8>),
}

fn magic(path: &Path) -> std::io::Result<Magic> {
    const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";
    let mut file = std::fs::File::open(path)?;
    let mut read_at = |offset: u64| {
        let mut start = Vec::new();
        file.seek(SeekFrom::Start(offset))?;
        file.by_ref().take(HDF5.len() as u64).read_to_end(&mut start)?;
        std::io::Result::Ok(start)
    };
    let start = read_at(0)?;
    if start.starts_with(b"\x93NUMPY") {
        return Ok(Magic::Npy);
    }
    // HDF5 may stand behind a user block (MATLAB 7.3).
    for offset in [0, 512, 1024, 2048, 4096] {
        if read_at(offset)? == HDF5 {
            return Ok(Magic::Hdf5);
        }
    }
    Ok(Magic::Other(start))
}
