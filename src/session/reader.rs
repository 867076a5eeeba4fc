//! Opening a recorded file, whatever its format.

use super::error::SessionError;
use super::read::{dm, hdf5 as formats, ndata, npy, tiff};
use super::{h5, layout, own};
use crate::frame::Frame;
use crate::ingest::SourceSettings;
use crate::ingest::validate::{InvalidFrame, validate};
use ferrostem_proto::{FrameMessage, JsonMap, PixelArray};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Formats that [`open`] tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionFormat {
    /// Written by a [`Recorder`](super::Recorder).
    Own,
    /// pyNSID/sidpy.
    Nsid,
    /// HyperSpy, `.hspy`.
    HyperSpy,
    /// EMD of Berkeley, 0.2 and 1.0.
    Emd,
    /// EMD of Velox.
    Velox,
    /// Nion Swift, `.h5` and `.nhdf`.
    NionH5,
    /// Nion Swift, `.ndata`.
    Ndata,
    /// NeXus, `NXdata`.
    Nexus,
    /// asyncroscopy, `image/<detector>`.
    Asyncroscopy,
    /// The Sm-BFO data set, `MainImage`.
    SmBfo,
    /// A dataset named by its path in any HDF5 file.
    Hdf5Dataset,
    /// numpy.
    Npy,
    Tiff,
    /// `.dm3` and `.dm4`.
    DigitalMicrograph,
}

impl SessionFormat {
    /// For people and scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "FerroSTEM session",
            Self::Nsid => "NSID",
            Self::HyperSpy => "HyperSpy",
            Self::Emd => "EMD (Berkeley)",
            Self::Velox => "EMD (Velox)",
            Self::NionH5 => "Nion Swift HDF5",
            Self::Ndata => "Nion Swift ndata",
            Self::Nexus => "NeXus",
            Self::Asyncroscopy => "asyncroscopy",
            Self::SmBfo => "Sm-BFO",
            Self::Hdf5Dataset => "HDF5 dataset",
            Self::Npy => "numpy",
            Self::Tiff => "TIFF",
            Self::DigitalMicrograph => "DigitalMicrograph",
        }
    }
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

impl RecordedFrame {
    /// The frame as it passes ingest, named as `source` says where the file does not, whatever its size. `pixel_size_pm` takes the
    /// place of the file's; `now_ns` is the time of a frame without one.
    ///
    /// # Errors
    /// See [`InvalidFrame`].
    pub fn into_frame(
        mut self,
        source: &SourceSettings,
        pixel_size_pm: Option<f64>,
        now_ns: u64,
    ) -> Result<Frame, InvalidFrame> {
        self.message.pixel_size_pm = pixel_size_pm.map(|side| [side; 2]).or(self.message.pixel_size_pm);
        let source = SourceSettings { max_side_px: 1 << 16, ..source.clone() };
        validate(self.message, &source, &source.acquisition, self.t_ns.unwrap_or(now_ns))
    }
}

/// A file of frames, read one at a time.
pub trait FrameReader: Send {
    fn format(&self) -> SessionFormat;

    /// What is read and what was chosen, for people.
    fn description(&self) -> String;

    /// Where the file says how large a pixel is, or why it has no size, for people.
    fn calibration(&self) -> String {
        "each frame says".to_owned()
    }

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
    if let (Some(dataset), false) = (&options.dataset, matches!(magic, Magic::Hdf5)) {
        return Err(SessionError::unexpected(
            path.display().to_string(),
            format!("an HDF5 file with a dataset {dataset}"),
            format!("{}, which has no datasets", magic.name()),
        ));
    }
    match magic {
        Magic::Npy => Ok(Box::new(npy::NpyReader::open(path, options)?)),
        Magic::Zip => Ok(Box::new(ndata::NdataReader::open(path, options)?)),
        Magic::Tiff => Ok(Box::new(tiff::TiffReader::open(path, options)?)),
        Magic::Dm => Ok(Box::new(dm::DmReader::open(path, options)?)),
        Magic::Hdf5 => {
            let file = h5::open_file(path)?;
            if options.dataset.is_none() && h5::read_text(&file, "format").as_deref() == Some(layout::FORMAT)
            {
                return Ok(Box::new(own::SessionReader::open(file, options)?));
            }
            Ok(Box::new(formats::open(&file, options)?))
        }
        Magic::Other(_) => Err(SessionError::unexpected(
            path.display().to_string(),
            "HDF5 (.h5, .hspy, .emd, .nxs, …), a numpy array (.npy), TIFF, .ndata, .dm3 or .dm4",
            magic.name(),
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

/// The kind of a file, by its first bytes.
pub(super) enum Magic {
    Npy,
    Hdf5,
    Zip,
    Tiff,
    Dm,
    Other(Vec<u8>),
}

impl Magic {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Npy => "a numpy array".to_owned(),
            Self::Hdf5 => "an HDF5 file".to_owned(),
            Self::Zip => "a zip archive".to_owned(),
            Self::Tiff => "a TIFF file".to_owned(),
            Self::Dm => "a DigitalMicrograph file".to_owned(),
            Self::Other(start) if start.is_empty() => "an empty file".to_owned(),
            Self::Other(start) => format!("a file that begins with {start:02x?}"),
        }
    }
}

pub(super) fn magic(path: &Path) -> std::io::Result<Magic> {
    const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";
    let mut file = std::fs::File::open(path)?;
    let mut read_at = |offset: u64| {
        let mut start = Vec::new();
        file.seek(SeekFrom::Start(offset))?;
        file.by_ref().take(HDF5.len() as u64).read_to_end(&mut start)?;
        std::io::Result::Ok(start)
    };
    let start = read_at(0)?;
    for (first, magic) in [
        (&b"\x93NUMPY"[..], Magic::Npy),
        (b"PK\x03\x04", Magic::Zip),
        (b"II\x2a\0", Magic::Tiff),
        (b"MM\0\x2a", Magic::Tiff),
        (b"II\x2b\0", Magic::Tiff),
        (b"MM\0\x2b", Magic::Tiff),
        (b"\0\0\0\x03", Magic::Dm),
        (b"\0\0\0\x04", Magic::Dm),
    ] {
        if start.starts_with(first) {
            return Ok(magic);
        }
    }
    // HDF5 may stand behind a user block (MATLAB 7.3).
    for offset in [0, 512, 1024, 2048, 4096] {
        if read_at(offset)? == HDF5 {
            return Ok(Magic::Hdf5);
        }
    }
    Ok(Magic::Other(start))
}
