//! One `Measurement_NNN` being written: a stack of like frames and what was found on them.

use super::error::{At, SessionError};
use super::file::roomy_group;
use super::h5::{self, Table, place, write_image, write_text};
use super::layout::{self, CandidateRow, ColumnRow, FrameRow, ResultRow, measurement_name, quantity_name};
use super::maps::{
    ALWAYS_TILES, ALWAYS_WINDOWS, Map, MapValues, TILT_MAP, TILT_SOURCE, channels_needed, measured, recorded,
    tile_maps, window_maps, write_map,
};
use super::rows::{candidate_rows, column_rows, frame_row, result_row};
use super::stack::{Filing, Metadata, SpatialAxis, Stack, StackSpec};
use crate::frame::{Frame, FrameTimes, ScanGeometry};
use ferrostem_proto::{FrameState, GridSpec, JsonMap, PixelArray, ResultMessage};
use hdf5::types::OwnedDynValue;
use hdf5::{File, Group, H5Type};
use std::collections::VecDeque;
use std::sync::Arc;

/// Frames that a late result is still looked up among.
const RECENT_FRAMES: usize = 1024;

/// What the recorder keeps of a frame until it is written.
pub(super) struct ReceivedFrame {
    pub(super) stream: Stream,
    pub(super) acquisition: String,
    pub(super) seq: u64,
    pub(super) raw: Arc<PixelArray>,
    pub(super) scan: ScanGeometry,
    pub(super) times: FrameTimes,
    pub(super) state: FrameState,
    pub(super) valid_rows: std::ops::Range<usize>,
    pub(super) user_data: JsonMap,
    /// A flush has passed over it already.
    pub(super) passed_over: bool,
}

/// Frames that belong in one stack: detectors read out side by side go side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) source: String,
    pub(super) channel: String,
}

impl From<&Frame> for ReceivedFrame {
    fn from(frame: &Frame) -> Self {
        Self {
            stream: Stream { source: frame.source.clone(), channel: frame.channel.clone() },
            acquisition: frame.acquisition.clone(),
            seq: frame.seq,
            raw: Arc::clone(&frame.raw),
            scan: frame.scan,
            times: frame.times,
            state: frame.state,
            valid_rows: frame.valid_rows.clone(),
            user_data: frame.user_data.clone(),
            passed_over: false,
        }
    }
}

/// The channels of maps that share a grid.
struct Maps {
    grid: GridSpec,
    stacks: Vec<Stack>,
}

pub(super) struct Measurement {
    pub(super) stream: Stream,
    group: Group,
    path: String,
    acquisition: String,
    dtype: ferrostem_proto::Dtype,
    shape: [usize; 2],
    pixel_size_pm: Option<[f64; 2]>,
    first_start_ns: u64,
    frames: Stack,
    frame_table: Table<FrameRow>,
    results: Table<ResultRow>,
    columns: Table<ColumnRow>,
    candidates: Table<CandidateRow>,
    windows: Option<Maps>,
    tiles: Option<Maps>,
    channels: usize,
    /// Sequence numbers of frames still without a result, oldest first.
    recent: VecDeque<(u64, usize)>,
}

impl Measurement {
    /// Begins `Measurement_{index}` for frames like `frame` in the group `staged`, from which it moves to the root of its file
    /// before it is reopened; writes no frame yet.
    pub(super) fn create(
        staged: &Group,
        index: usize,
        frame: &ReceivedFrame,
        filing: &Filing,
    ) -> Result<Self, SessionError> {
        let name = measurement_name(index);
        let group = roomy_group(staged, &name).at(|| format!("{}:/{name}", staged.filename()))?;
        let channel = quantity_name(&frame.stream.channel);
        for (attribute, value) in [
            ("acquisition", frame.acquisition.as_str()),
            ("source", &frame.stream.source),
            ("channel", &frame.stream.channel),
            ("frames_path", &format!("Channel_000/{channel}/{channel}")),
            ("NX_class", "NXentry"),
            ("default", &format!("Channel_000/{channel}")),
        ] {
            write_text(&group, attribute, value)?;
        }
        let shape = frame.raw.shape();
        let spec = StackSpec {
            name: &channel,
            quantity: "intensity",
            units: "counts",
            source: &frame.stream.source,
            dtype: h5::descriptor(frame.raw.dtype()),
            fill: None,
            y: SpatialAxis::new(whole(shape[0]), frame.scan.pixel_size_pm.map(|size| size[0])),
            x: SpatialAxis::new(whole(shape[1]), frame.scan.pixel_size_pm.map(|size| size[1])),
        };
        let frames = Stack::create(&group, 0, &spec, filing)?;
        let channel_group = group.group(&format!("Channel_000/{channel}")).at(|| place(&group))?;
        Metadata::create(&channel_group, "metadata")?
            .text("acquisition", &frame.acquisition)?
            .text("source", &frame.stream.source)?
            .text("channel", &frame.stream.channel)?
            .number("rotation_rad", frame.scan.rotation_rad)?
            .number("dwell_us", frame.scan.dwell_us.unwrap_or(f64::NAN))?
            .text("ferrostem_version", env!("CARGO_PKG_VERSION"))?;
        Ok(Self {
            stream: frame.stream.clone(),
            acquisition: frame.acquisition.clone(),
            dtype: frame.raw.dtype(),
            shape,
            pixel_size_pm: frame.scan.pixel_size_pm,
            first_start_ns: frame.times.start_ns,
            frames,
            frame_table: Table::create(&group, layout::FRAMES, 64)?,
            results: Table::create(&group, layout::RESULTS, 64)?,
            columns: Table::create(&group, layout::COLUMNS, 1024)?,
            candidates: Table::create(&group, layout::CANDIDATES, 64)?,
            windows: None,
            tiles: None,
            channels: 1,
            recent: VecDeque::new(),
            path: format!("/{name}"),
            group,
        })
    }

    /// Says which recording of the file it belongs to.
    pub(super) fn of_segment(self, segment: u32) -> Result<Self, SessionError> {
        h5::write_attribute(&self.group, "segment", &segment)?;
        Ok(self)
    }

    /// Takes the measurement up again in `file`, in which it was created.
    pub(super) fn reopen(&mut self, file: &File) -> Result<(), SessionError> {
        self.group = file.group(&self.path).at(|| format!("{}:{}", file.filename(), self.path))?;
        self.frame_table.reopen(&self.group)?;
        self.results.reopen(&self.group)?;
        self.columns.reopen(&self.group)?;
        self.candidates.reopen(&self.group)?;
        let maps = self.windows.iter_mut().chain(&mut self.tiles).flat_map(|maps| &mut maps.stacks);
        std::iter::once(&mut self.frames).chain(maps).try_for_each(|stack| stack.reopen(&self.group))
    }

    /// Where it is in its file.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether the file has no place yet for the maps of `result`.
    pub(super) fn lacks_maps_of(&self, result: &ResultMessage) -> bool {
        let empty = |maps: &[Map]| maps.iter().all(|map| map.values.is_empty());
        self.windows.is_none() && !empty(&window_maps(result))
            || self.tiles.is_none() && !empty(&tile_maps(result))
    }

    /// Makes a place for the maps of `result` in the group `staged`, from which it moves to the measurement's own before it is
    /// reopened.
    pub(super) fn create_maps_of(
        &mut self,
        staged: &Group,
        result: &ResultMessage,
        filing: &Filing,
    ) -> Result<(), SessionError> {
        let windows = measured(window_maps(result), &result.grid, staged)?;
        let tiles = measured(tile_maps(result), &result.mistilt.tiles, staged)?;
        if !windows.is_empty() && self.windows.is_none() {
            let all = recorded(window_maps(result), ALWAYS_WINDOWS);
            let grid = (layout::WINDOW_GRID, &result.grid);
            self.windows = Some(self.create_maps(staged, grid, &all, filing)?);
        }
        if !tiles.is_empty() && self.tiles.is_none() {
            let all = recorded(tile_maps(result), ALWAYS_TILES);
            let grid = (layout::TILE_GRID, &result.mistilt.tiles);
            let tiles = self.create_maps(staged, grid, &all, filing)?;
            if let (Some(source), Some(stack)) = (&result.mistilt.tilt_source, tiles.stacks.get(TILT_MAP)) {
                write_text(&stack.data, TILT_SOURCE, source)?;
            }
            self.tiles = Some(tiles);
        }
        Ok(())
    }

    /// The same in the measurement's own group, as long as nothing leads to that.
    pub(super) fn create_first_maps(
        &mut self,
        result: &ResultMessage,
        filing: &Filing,
    ) -> Result<(), SessionError> {
        let group = self.group.clone();
        self.create_maps_of(&group, result, filing)
    }

    /// Whether `frame` belongs in this stack.
    pub(super) fn fits(&self, frame: &ReceivedFrame) -> bool {
        self.acquisition == frame.acquisition
            && self.dtype == frame.raw.dtype()
            && self.shape == frame.raw.shape()
            && self.pixel_size_pm == frame.scan.pixel_size_pm
    }

    /// Whether the maps of `result` have the grids of those already written, and there is a place for each.
    pub(super) fn fits_result(&self, result: &ResultMessage) -> bool {
        let same = |maps: &Option<Maps>, grid: &GridSpec| {
            maps.as_ref().is_none_or(|maps| maps.grid == *grid || grid.rows == 0 || grid.cols == 0)
        };
        let room =
            |maps: &Option<Maps>, count: usize| maps.as_ref().is_none_or(|maps| maps.stacks.len() >= count);
        same(&self.windows, &result.grid)
            && same(&self.tiles, &result.mistilt.tiles)
            && room(&self.windows, channels_needed(&window_maps(result)))
            && room(&self.tiles, channels_needed(&tile_maps(result)))
    }

    /// The frame that a result of `acquisition` and `seq` belongs to, if it still waits for one.
    pub(super) fn awaiting(&self, acquisition: &str, seq: u64) -> Option<usize> {
        if self.acquisition != acquisition {
            return None;
        }
        self.recent.iter().find(|(waiting, _)| *waiting == seq).map(|(_, frame)| *frame)
    }

    /// Writes the next frame of the stack, the `order`-th of the file, and returns its number in the stack.
    pub(super) fn append(&mut self, frame: &ReceivedFrame, order: u64) -> Result<usize, SessionError> {
        let index = self.frame_table.len();
        let time = frame.times.start_ns.abs_diff(self.first_start_ns) as f64 / 1e9;
        let time = if frame.times.start_ns < self.first_start_ns { -time } else { time };
        // A failed write may have left one image too many; it is written over.
        if self.frames.len() == index {
            self.frames.grow(&[time])?;
        }
        write_image(&self.frames.data, index, &frame.raw)?;
        self.frame_table.append(&[frame_row(frame, order)])?;
        if self.recent.len() == RECENT_FRAMES {
            self.recent.pop_front();
        }
        self.recent.push_back((frame.seq, index));
        Ok(index)
    }

    /// Writes what was found on frame `frame` of the stack; the file has a place for its maps.
    pub(super) fn write_result(&mut self, frame: usize, result: &ResultMessage) -> Result<(), SessionError> {
        self.recent.retain(|(_, waiting)| *waiting != frame);
        let number = u32::try_from(frame)
            .map_err(|_| SessionError::unexpected(place(&self.group), "fewer than 2^32 frames", frame))?;
        let windows = measured(window_maps(result), &result.grid, &self.group)?;
        let tiles = measured(tile_maps(result), &result.mistilt.tiles, &self.group)?;
        self.extend_maps(frame + 1)?;
        for (maps, measured) in [(&self.windows, &windows), (&self.tiles, &tiles)] {
            let Some(maps) = maps else { continue };
            for (index, map) in measured {
                write_map(&maps.stacks[*index], frame, &map.values)?;
            }
        }
        let columns = column_rows(number, result, &self.group)?;
        let candidates = candidate_rows(number, result);
        let columns_start = self.columns.append(&columns)? as u64;
        let candidates_start = self.candidates.append(&candidates)? as u64;
        let row = result_row(number, result);
        self.results.append(&[ResultRow {
            measured_windows: bits(&windows),
            measured_tiles: bits(&tiles),
            columns_start,
            columns_count: columns.len() as u64,
            candidates_start,
            candidates_count: candidates.len() as u64,
            ..row
        }])?;
        Ok(())
    }

    /// Gives every map as many images as there are frames.
    pub(super) fn complete(&mut self) -> Result<(), SessionError> {
        self.extend_maps(self.frame_table.len())
    }

    fn create_maps(
        &mut self,
        staged: &Group,
        (grid_group, grid): (&str, &GridSpec),
        maps: &[Map],
        filing: &Filing,
    ) -> Result<Maps, SessionError> {
        let centres = |start: f64, step: f64, n: u32| (0..n).map(move |i| start + f64::from(i) * step);
        let rows = || centres(grid.row0, grid.step_row, grid.rows);
        let cols = || centres(grid.col0, grid.step_col, grid.cols);
        let group = staged.create_group(grid_group).at(|| format!("{}/{grid_group}", self.path))?;
        for (name, values) in [("row", rows().collect::<Vec<_>>()), ("col", cols().collect())] {
            let dataset = group
                .new_dataset_builder()
                .with_data(&values[..])
                .create(name)
                .at(|| format!("{}/{name}", place(&group)))?;
            write_text(&dataset, "units", "px")?;
        }
        for (name, value) in [
            ("row0", grid.row0),
            ("col0", grid.col0),
            ("step_row", grid.step_row),
            ("step_col", grid.step_col),
        ] {
            h5::write_attribute(&group, name, &value)?;
        }
        let mut stacks = Vec::new();
        for map in maps {
            let (dtype, fill) = match map.values {
                MapValues::Real(_) => (f32::type_descriptor(), Some(OwnedDynValue::from(f32::NAN))),
                MapValues::Code(_) => (u8::type_descriptor(), None),
            };
            let spec = StackSpec {
                name: map.name,
                quantity: map.quantity,
                units: map.units,
                source: "FerroSTEM",
                dtype,
                fill,
                y: SpatialAxis::new(rows(), self.pixel_size_pm.map(|size| size[0])),
                x: SpatialAxis::new(cols(), self.pixel_size_pm.map(|size| size[1])),
            };
            let channel = self.channels;
            self.channels += 1;
            stacks.push(Stack::create(staged, channel, &spec, filing)?);
        }
        Ok(Maps { grid: *grid, stacks })
    }

    fn extend_maps(&mut self, len: usize) -> Result<(), SessionError> {
        let maps = self.windows.iter_mut().chain(&mut self.tiles);
        for stack in maps.flat_map(|maps| &mut maps.stacks) {
            if stack.len() < len {
                let time = &self.frames.time;
                let times = time
                    .read_slice_1d::<f64, _>(stack.len()..len)
                    .at(|| place(time))?
                    .into_raw_vec_and_offset()
                    .0;
                stack.grow(&times)?;
            }
        }
        Ok(())
    }
}

/// Bit `i` is set where map `i` was measured.
fn bits(measured: &[(usize, Map)]) -> u32 {
    measured.iter().fold(0, |bits, (index, _)| bits | 1 << index)
}

fn whole(n: usize) -> impl Iterator<Item = f64> {
    (0..n).map(|i| i as f64)
}
