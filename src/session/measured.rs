//! What `compare` and `export` need of a session beside its results: its measurements, their frames, and which result is whose.

use super::error::{At, SessionError};
use super::h5::{ImageAxes, pixel_dtype, place, read_image, read_rows, read_text};
use super::layout::{self, FrameRow};
use super::own::whole_frames;
use super::results::{ResultReader, Results};
use ferrostem_proto::{GridSpec, PixelArray};
use hdf5::H5Type;

/// How a `Measurement_NNN` is labelled.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasurementLabels {
    /// `Measurement_000`, …
    pub name: String,
    pub acquisition: String,
    pub source: String,
    pub channel: String,
    /// Centres of the windows and of the mistilt tiles, where there are results.
    pub windows: Option<GridSpec>,
    pub tiles: Option<GridSpec>,
}

/// The part of a result's row that says whose it is.
#[derive(H5Type, Clone, Copy)]
#[repr(C)]
struct ResultFrameRow {
    frame: u32,
}

impl ResultReader {
    /// The labels of each measurement, in the order of the file.
    pub fn measurements(&self) -> Vec<MeasurementLabels> {
        let labels = |results: &Results| {
            let path = results.group.name();
            MeasurementLabels {
                name: path.rsplit('/').next().unwrap_or(&path).to_owned(),
                acquisition: results.acquisition.clone(),
                source: read_text(&results.group, "source").unwrap_or_default(),
                channel: read_text(&results.group, "channel").unwrap_or_default(),
                windows: results.windows,
                tiles: results.tiles,
            }
        };
        self.measurements.iter().map(labels).collect()
    }

    /// What was noted of each frame of a measurement.
    ///
    /// # Errors
    /// When there is no such measurement, or it cannot be read.
    pub fn frame_rows(&self, measurement: usize) -> Result<Vec<FrameRow>, SessionError> {
        let group = &self.of(measurement)?.group;
        let table = group.dataset(layout::FRAMES).at(|| format!("{}/{}", place(group), layout::FRAMES))?;
        let frames = whole_frames(&self.images(measurement)?, &table)?;
        read_rows(&table, 0..frames.len())
    }

    /// The pixels of one frame, as received.
    ///
    /// # Errors
    /// When there is no such frame, or it cannot be read.
    pub fn pixels(&self, measurement: usize, frame: usize) -> Result<PixelArray, SessionError> {
        let images = self.images(measurement)?;
        let shape = images.shape();
        if shape.len() != 3 || shape[0] <= frame {
            let expected = format!("a stack of more than {frame} images");
            return Err(SessionError::unexpected(place(&images), expected, format!("shape {shape:?}")));
        }
        let dtype = pixel_dtype(&images)?;
        read_image(&images, ImageAxes { frame: Some(0), row: 1, col: 2 }, frame, dtype)
    }

    /// For each result of a measurement, in the order of recording, the frame that it belongs to.
    ///
    /// # Errors
    /// When there is no such measurement, or it cannot be read.
    pub fn result_frames(&self, measurement: usize) -> Result<Vec<usize>, SessionError> {
        let results = self.of(measurement)?;
        let rows = read_rows::<ResultFrameRow>(&results.rows, 0..results.len)?;
        Ok(rows.iter().map(|row| row.frame as usize).collect())
    }

    fn of(&self, measurement: usize) -> Result<&Results, SessionError> {
        self.measurements.get(measurement).ok_or_else(|| SessionError::NoSuchFrame {
            place: format!("{}, measurements", self.file.filename()),
            index: measurement,
            len: self.measurements.len(),
        })
    }

    fn images(&self, measurement: usize) -> Result<hdf5::Dataset, SessionError> {
        let group = &self.of(measurement)?.group;
        let path = read_text(group, "frames_path")
            .ok_or_else(|| SessionError::unexpected(place(group), "an attribute frames_path", "none"))?;
        group.dataset(&path).at(|| format!("{}/{path}", place(group)))
    }
}
