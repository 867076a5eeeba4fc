//! Frames of the project's own sessions, exactly as they were received.

use super::error::{At, SessionError};
use super::h5::{
    ImageAxes, open_file, pixel_dtype, place, read_attribute, read_image, read_rows, read_text, string,
};
use super::layout::{self, FrameRow, FrameTimeRow};
use super::read::dataset::check_sizes;
use super::reader::{FrameReader, OpenOptions, RecordedFrame, SessionFormat};
use ferrostem_proto::{Dtype, FrameMessage, FrameState, JsonMap};
use hdf5::{Dataset, File, Group};
use std::path::Path;

/// Frames in one session.
const MAX_FRAMES: usize = 100_000_000;
/// Rows at the end of a table that may be torn, more than are written between two flushes.
const MAX_TORN: usize = 4096;
const AXES: ImageAxes = ImageAxes { frame: Some(0), row: 1, col: 2 };

/// All frames of a session, over all its measurements, in the order in which they were recorded.
pub(super) struct SessionReader {
    path: String,
    measurements: Vec<RecordedStack>,
    index: Vec<FrameEntry>,
}

struct RecordedStack {
    frames: Dataset,
    table: Dataset,
    dtype: Dtype,
    acquisition: String,
    channel: String,
}

#[derive(Clone, Copy)]
struct FrameEntry {
    order: u64,
    t_received_ns: u64,
    measurement: usize,
    row: usize,
}

/// Opens a session of this project, of a version that is known.
pub(super) fn open_recorded(path: &Path) -> Result<File, SessionError> {
    let file = open_file(path)?;
    if read_text(&file, "format").as_deref() != Some(layout::FORMAT) {
        return Err(SessionError::unexpected(
            path.display().to_string(),
            "a session recorded by FerroSTEM",
            "another HDF5 file",
        ));
    }
    check_version(&file)?;
    Ok(file)
}

/// Refuses a session of a version that is not known.
pub(super) fn check_version(file: &File) -> Result<(), SessionError> {
    let version: u32 = read_attribute(file, "format_version")?;
    if version > layout::FORMAT_VERSION {
        return Err(SessionError::unexpected(
            file.filename(),
            format!("a session of version {} or lower", layout::FORMAT_VERSION),
            format!("version {version}"),
        ));
    }
    Ok(())
}

/// The measurements of `file`, by number.
pub(super) fn measurements(file: &File) -> Result<Vec<Group>, SessionError> {
    let open = |number: u64| {
        let name = layout::measurement_name(number as usize);
        file.group(&name).at(|| format!("{}:{name}", file.filename()))
    };
    measurement_numbers(file)?.into_iter().map(open).collect()
}

/// The numbers of the measurements of `file`, ascending.
pub(super) fn measurement_numbers(file: &File) -> Result<Vec<u64>, SessionError> {
    let names = file.member_names().at(|| file.filename())?;
    let number = |name: &String| name.strip_prefix(layout::MEASUREMENT_PREFIX)?.parse::<u64>().ok();
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Order and time of the frames that have both their image and their row. A recording that was cut short, by a kill or a full
/// disk, may end with some that do not.
pub(super) fn whole_frames(images: &Dataset, table: &Dataset) -> Result<Vec<FrameTimeRow>, SessionError> {
    let len = written_images(images).min(table.size());
    let len = whole_rows(len, |row| match read_rows::<FrameRow>(table, row..row + 1) {
        Ok(_) => Ok(true),
        Err(SessionError::Hdf5 { .. }) => Ok(false),
        Err(error) => Err(error),
    })?;
    check_count(&place(table), len)?;
    // A row that never reached the disk is all zeros, and the order of frames ascends.
    let mut rows = read_rows::<FrameTimeRow>(table, 0..len)?;
    let ascending = rows.windows(2).take_while(|pair| pair[0].order < pair[1].order).count();
    rows.truncate(ascending + 1);
    Ok(rows)
}

fn check_count(place: &str, frames: usize) -> Result<(), SessionError> {
    if frames <= MAX_FRAMES {
        return Ok(());
    }
    let found = format!("{frames} or more");
    Err(SessionError::unexpected(place, format!("at most {MAX_FRAMES} frames"), found))
}

/// Images before the first that was never written; each is one chunk.
fn written_images(images: &Dataset) -> usize {
    let len = images.shape().first().copied().unwrap_or(0);
    let chunk_per_image = images.chunk().is_some_and(|chunk| chunk.first() == Some(&1));
    let written = images.num_chunks().unwrap_or(len);
    if !chunk_per_image || written >= len {
        return len;
    }
    // Chunks are listed in the order of images, without those that are missing.
    let is_there =
        |nth: usize| images.chunk_info(nth).is_some_and(|chunk| chunk.offset.first() == Some(&(nth as u64)));
    let (mut low, mut high) = (0, written);
    while low < high {
        let middle = low.midpoint(high);
        if is_there(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// How many of `rows` rows there are without those at the end that are not whole: what a row speaks of reaches the disk
/// piece by piece, and a recording may be cut short in between.
pub(super) fn whole_rows(
    rows: usize,
    is_whole: impl Fn(usize) -> Result<bool, SessionError>,
) -> Result<usize, SessionError> {
    for torn in 0..rows.min(MAX_TORN) {
        if is_whole(rows - torn - 1)? {
            return Ok(rows - torn);
        }
    }
    Ok(rows.saturating_sub(MAX_TORN))
}

/// The lowest [`FrameRow::order`] that no frame of `file` has.
pub(super) fn next_order(file: &File) -> Result<u64, SessionError> {
    let reader = SessionReader::open(file.clone(), &OpenOptions::default())?;
    Ok(reader.index.last().map_or(0, |entry| entry.order + 1))
}

impl SessionReader {
    pub(super) fn open(file: File, options: &OpenOptions) -> Result<Self, SessionError> {
        check_version(&file)?;
        let mut stacks = Vec::new();
        let mut index = Vec::new();
        for (measurement, group) in measurements(&file)?.into_iter().enumerate() {
            let stack = RecordedStack::open(&group, options)?;
            let rows = whole_frames(&stack.frames, &stack.table)?;
            check_count(&place(&group), index.len() + rows.len())?;
            index.extend(rows.iter().enumerate().map(|(row, time)| FrameEntry {
                order: time.order,
                t_received_ns: time.t_received_ns,
                measurement,
                row,
            }));
            stacks.push(stack);
        }
        index.sort_by_key(|entry| entry.order);
        Ok(Self { path: file.filename(), measurements: stacks, index })
    }
}

impl RecordedStack {
    fn open(group: &Group, options: &OpenOptions) -> Result<Self, SessionError> {
        let missing = |what: &str| {
            SessionError::unexpected(place(group), format!("an attribute {what}"), "none".to_owned())
        };
        let path = read_text(group, "frames_path").ok_or_else(|| missing("frames_path"))?;
        let frames = group.dataset(&path).at(|| format!("{}/{path}", place(group)))?;
        let table = group.dataset(layout::FRAMES).at(|| format!("{}/{}", place(group), layout::FRAMES))?;
        let shape = frames.shape();
        if shape.len() != 3 {
            let found = format!("shape {shape:?}");
            return Err(SessionError::unexpected(place(&frames), "3 axes (frame, row, col)", found));
        }
        let dtype = pixel_dtype(&frames)?;
        check_sizes(&frames, [shape[1], shape[2]], dtype, options)?;
        Ok(Self {
            frames,
            table,
            dtype,
            acquisition: read_text(group, "acquisition").ok_or_else(|| missing("acquisition"))?,
            channel: read_text(group, "channel").ok_or_else(|| missing("channel"))?,
        })
    }

    fn frame(&self, row: usize) -> Result<RecordedFrame, SessionError> {
        let rows = read_rows::<FrameRow>(&self.table, row..row + 1)?;
        let Some(row_data) = rows.first() else {
            return Err(SessionError::NoSuchFrame { place: place(&self.table), index: row, len: 0 });
        };
        let known = |value: f64| (!value.is_nan()).then_some(value);
        let pair = |a: f64, b: f64| known(a).zip(known(b)).map(|(a, b)| [a, b]);
        let message = FrameMessage {
            acquisition: Some(self.acquisition.clone()),
            seq: row_data.seq,
            t_start_ns: Some(row_data.t_start_ns),
            t_end_ns: Some(row_data.t_end_ns),
            data: read_image(&self.frames, AXES, row, self.dtype)?,
            pixel_size_pm: pair(row_data.pixel_size_row_pm, row_data.pixel_size_col_pm),
            rotation_rad: known(row_data.rotation_rad),
            center_nm: pair(row_data.center_y_nm, row_data.center_x_nm),
            fov_nm: pair(row_data.fov_y_nm, row_data.fov_x_nm),
            dwell_us: known(row_data.dwell_us),
            channel: Some(self.channel.clone()),
            state: Some(if row_data.partial == 0 { FrameState::Complete } else { FrameState::Partial }),
            valid_rows: Some([row_data.valid_from, row_data.valid_to]),
            user_data: self.user_data(&string(&row_data.user_data))?,
        };
        Ok(RecordedFrame { message, t_ns: Some(row_data.t_received_ns) })
    }

    fn user_data(&self, json: &str) -> Result<JsonMap, SessionError> {
        if json.is_empty() {
            return Ok(JsonMap::default());
        }
        serde_json::from_str(json).map(JsonMap).map_err(|error| {
            SessionError::unexpected(place(&self.table), "a JSON object as user_data", error)
        })
    }
}

impl FrameReader for SessionReader {
    fn format(&self) -> SessionFormat {
        SessionFormat::Own
    }

    fn description(&self) -> String {
        let (frames, measurements) = (self.index.len(), self.measurements.len());
        format!("{} ({frames} frames in {measurements} measurements)", self.path)
    }

    fn calibration(&self) -> String {
        "recorded with each frame".to_owned()
    }

    fn len(&self) -> usize {
        self.index.len()
    }

    fn time_ns(&self, index: usize) -> Option<u64> {
        self.index.get(index).map(|entry| entry.t_received_ns)
    }

    fn acquisition(&self, index: usize) -> Option<&str> {
        let entry = self.index.get(index)?;
        Some(&self.measurements.get(entry.measurement)?.acquisition)
    }

    fn frame(&mut self, index: usize) -> Result<RecordedFrame, SessionError> {
        let entry = self.index.get(index).copied().ok_or_else(|| SessionError::NoSuchFrame {
            place: self.path.clone(),
            index,
            len: self.index.len(),
        })?;
        self.measurements[entry.measurement].frame(entry.row)
    }
}
