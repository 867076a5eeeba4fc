//! Reading recorded results back, for replay comparisons, figures and tests.

use super::error::{At, SessionError};
use super::h5::{place, read_attribute, read_rows, read_text, string};
use super::layout::{self, AckRow, CandidateRow, ColumnRow, EventRow, GapRow, ResultRow};
use super::maps::{TILE_MAPS, TILT_MAP, TILT_SOURCE, WINDOW_MAPS};
use super::own::{measurements, open_recorded, whole_rows};
use super::recording::{Gap, SessionEvent};
use ferrostem_proto::{
    Calibration, Candidate, ColumnTable, Counters, FractionalPosition, Grid, GridSpec, MistiltMaps, OodMaps,
    PixelPosition, ResultMessage, StagePosition, Timing,
};
use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, File, Group, H5Type};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Largest map, list or text that is read, bytes.
const MAX_READ_BYTES: u64 = 1 << 30;

/// A result and the frame that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedResult {
    /// Number of the `Measurement_NNN`, in the order of the file.
    pub measurement: usize,
    /// Number of the frame in that measurement.
    pub frame: usize,
    /// As it was published.
    pub message: ResultMessage,
}

/// A controller's verdict on a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    pub candidate_id: u64,
    pub verdict: String,
    pub t_ns: u64,
}

/// The results of a session, read one at a time.
pub struct ResultReader {
    pub(super) file: File,
    pub(super) measurements: Vec<Results>,
    /// Measurement and row of each result: measurement by measurement, in the order of recording.
    index: Vec<(usize, usize)>,
}

pub(super) struct Results {
    pub(super) group: Group,
    pub(super) acquisition: String,
    pub(super) rows: Dataset,
    /// Rows that are whole: a recording that was cut short may end with some that are not.
    pub(super) len: usize,
    columns: Dataset,
    candidates: Dataset,
    pub(super) windows: Option<GridSpec>,
    pub(super) tiles: Option<GridSpec>,
}

impl ResultReader {
    /// # Errors
    /// When `path` is not a session of this project, or cannot be read.
    pub fn open(path: &Path) -> Result<Self, SessionError> {
        let file = open_recorded(path)?;
        let measurements: Vec<Results> =
            measurements(&file)?.into_iter().map(Results::open).collect::<Result<_, _>>()?;
        let rows = |(number, results): (usize, &Results)| (0..results.len).map(move |row| (number, row));
        let index = measurements.iter().enumerate().flat_map(rows).collect();
        Ok(Self { file, measurements, index })
    }

    /// Number of results.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// # Errors
    /// When there is no such result, or the file cannot be read.
    pub fn result(&self, index: usize) -> Result<RecordedResult, SessionError> {
        let &(measurement, row) = self.index.get(index).ok_or_else(|| SessionError::NoSuchFrame {
            place: format!("{}, results", self.file.filename()),
            index,
            len: self.index.len(),
        })?;
        let (frame, message) = self.measurements[measurement].read(row)?;
        Ok(RecordedResult { measurement, frame, message })
    }

    /// The configuration that the session was recorded with, TOML.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn config_toml(&self) -> Result<String, SessionError> {
        let path = format!("{}/{}", layout::METADATA, layout::CONFIG);
        self.file
            .dataset(&path)
            .and_then(|config| config.read_scalar::<VarLenUnicode>())
            .map(|config| string(&config))
            .at(|| format!("{}:{path}", self.file.filename()))
    }

    /// What controllers said, in the order of recording.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn acknowledgements(&self) -> Result<Vec<Acknowledgement>, SessionError> {
        let rows = self.table::<AckRow>(layout::ACKS)?;
        Ok(rows
            .iter()
            .map(|row| Acknowledgement {
                candidate_id: row.candidate_id,
                verdict: string(&row.verdict),
                t_ns: row.t_ns,
            })
            .collect())
    }

    /// Sequence numbers that never came, in the order of recording.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn gaps(&self) -> Result<Vec<Gap>, SessionError> {
        let rows = self.table::<GapRow>(layout::GAPS)?;
        Ok(rows
            .iter()
            .map(|row| Gap {
                source: string(&row.source),
                acquisition: string(&row.acquisition),
                first_seq: row.first_seq,
                missing: row.missing,
                t_ns: row.t_ns,
            })
            .collect())
    }

    /// What happened between frames, in the order of recording; nothing in sessions from before this was recorded.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn events(&self) -> Result<Vec<SessionEvent>, SessionError> {
        if !self.file.link_exists(layout::EVENTS) {
            return Ok(Vec::new());
        }
        let rows = self.table::<EventRow>(layout::EVENTS)?;
        Ok(rows
            .iter()
            .map(|row| SessionEvent {
                t_ns: row.t_ns,
                kind: string(&row.kind),
                source: string(&row.source),
                acquisition: string(&row.acquisition),
                detail: string(&row.detail),
            })
            .collect())
    }

    fn table<R: H5Type>(&self, name: &str) -> Result<Vec<R>, SessionError> {
        let table = self.file.dataset(name).at(|| format!("{}:{name}", self.file.filename()))?;
        check_bytes(&table, table.size(), size_of::<R>())?;
        read_rows(&table, 0..table.size())
    }
}

impl Results {
    fn open(group: Group) -> Result<Self, SessionError> {
        let dataset = |name: &str| group.dataset(name).at(|| format!("{}/{name}", place(&group)));
        let rows = dataset(layout::RESULTS)?;
        let mut results = Self {
            acquisition: read_text(&group, "acquisition").unwrap_or_default(),
            len: rows.size(),
            rows,
            columns: dataset(layout::COLUMNS)?,
            candidates: dataset(layout::CANDIDATES)?,
            windows: read_grid(&group, layout::WINDOW_GRID)?,
            tiles: read_grid(&group, layout::TILE_GRID)?,
            group,
        };
        results.len = whole_rows(results.len, |row| results.is_whole(row))?;
        Ok(results)
    }

    /// Whether all that row `row` speaks of is in the file: tables and texts reach the disk one after the other.
    fn is_whole(&self, row: usize) -> Result<bool, SessionError> {
        let rows = match read_rows::<ResultRow>(&self.rows, row..row + 1) {
            Ok(rows) => rows,
            Err(SessionError::Hdf5 { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let reaches = |table: &Dataset, start: u64, count: u64| {
            start.checked_add(count).is_some_and(|end| end <= table.size() as u64)
        };
        let Some(row) = rows.first() else { return Ok(false) };
        let named = |names: &'static [&'static str], measured: u32| {
            names.iter().enumerate().filter(move |(bit, _)| measured & 1 << bit != 0).map(|(_, name)| *name)
        };
        for map in named(WINDOW_MAPS, row.measured_windows).chain(named(TILE_MAPS, row.measured_tiles)) {
            if self.channel(map)?.shape().first().is_none_or(|&maps| maps <= row.frame as usize) {
                return Ok(false);
            }
        }
        Ok(!string(&row.model).is_empty()
            && !string(&row.stages_us).is_empty()
            && reaches(&self.columns, row.columns_start, row.columns_count)
            && reaches(&self.candidates, row.candidates_start, row.candidates_count))
    }

    /// The result in row `row`, and the number of its frame.
    fn read(&self, row: usize) -> Result<(usize, ResultMessage), SessionError> {
        let rows = read_rows::<ResultRow>(&self.rows, row..row + 1)?;
        let Some(row) = rows.first() else {
            return Err(SessionError::NoSuchFrame { place: place(&self.rows), index: row, len: 0 });
        };
        let frame = row.frame as usize;
        let window = |index: usize| self.map::<f32>(WINDOW_MAPS, index, row.measured_windows, frame);
        let tile = |index: usize| self.map::<f32>(TILE_MAPS, index, row.measured_tiles, frame);
        let message = ResultMessage {
            acquisition: self.acquisition.clone(),
            seq: row.seq,
            t_acquired_ns: row.t_acquired_ns,
            grid: self.windows.filter(|_| row.measured_windows != 0).unwrap_or_default(),
            p_x: window(0)?,
            p_y: window(1)?,
            p_corrected_x: window(9)?,
            p_corrected_y: window(10)?,
            p_sigma: window(2)?,
            cell_a: window(3)?,
            cell_b: window(4)?,
            cell_angle: window(5)?,
            cell_area: window(6)?,
            ood: OodMaps {
                p_value: window(7)?,
                flag: self.map(WINDOW_MAPS, 8, row.measured_windows, frame)?,
            },
            columns: self.columns(row)?,
            mistilt: MistiltMaps {
                tiles: self.tiles.filter(|_| row.measured_tiles != 0).unwrap_or_default(),
                offset_x: tile(0)?,
                offset_y: tile(1)?,
                p_value: tile(2)?,
                state: self.map(TILE_MAPS, 3, row.measured_tiles, frame)?,
                offset_xx: tile(4)?,
                offset_xy: tile(5)?,
                offset_yy: tile(6)?,
                tilt_x: tile(7)?,
                tilt_y: tile(8)?,
                tilt_source: self.tilt_source(row)?,
            },
            candidates: self.candidates(row)?,
            model: self.json(&string(&row.model), "model")?,
            calibration: Calibration {
                pixel_size_pm: [row.calibration_row_pm, row.calibration_col_pm],
                source: self.name(&string(&row.calibration_source), "calibration_source")?,
            },
            timing: Timing {
                t_received_ns: row.t_received_ns,
                t_published_ns: row.t_published_ns,
                stages_us: self.json(&string(&row.stages_us), "stages_us")?,
            },
            counters: counters(row),
        };
        Ok((frame, message))
    }

    /// Map `index` of `names` for `frame`; empty where it was not measured.
    fn map<T: H5Type + Clone + Default>(
        &self,
        names: &[&str],
        index: usize,
        measured: u32,
        frame: usize,
    ) -> Result<Grid<T>, SessionError> {
        if measured & 1 << index == 0 {
            return Ok(Grid::default());
        }
        let name = names.get(index).copied().unwrap_or_default();
        let dataset = self.channel(name)?;
        let shape = dataset.shape();
        if shape.len() != 3 || shape[0] <= frame {
            let expected = format!("a stack of more than {frame} maps");
            return Err(SessionError::unexpected(place(&dataset), expected, format!("shape {shape:?}")));
        }
        let (rows, cols) = (shape[1], shape[2]);
        check_bytes(&dataset, rows.saturating_mul(cols), size_of::<T>())?;
        let values = dataset
            .read_slice_2d::<T, _>((frame, 0..rows, 0..cols))
            .at(|| place(&dataset))?
            .into_raw_vec_and_offset()
            .0;
        Grid::new(rows, cols, values)
            .map_err(|error| SessionError::unexpected(place(&dataset), "a map of its own shape", error))
    }

    /// The dataset `Channel_NNN/<name>/<name>`, whichever its number.
    fn tilt_source(&self, row: &ResultRow) -> Result<Option<String>, SessionError> {
        if row.measured_tiles & 1 << TILT_MAP == 0 {
            return Ok(None);
        }
        let name = TILE_MAPS.get(TILT_MAP).copied().unwrap_or_default();
        let tilt = self.channel(name)?;
        Ok(read_text(&tilt, TILT_SOURCE))
    }

    fn channel(&self, name: &str) -> Result<Dataset, SessionError> {
        let channels = self.group.member_names().at(|| place(&self.group))?;
        channels
            .iter()
            .filter(|channel| channel.starts_with("Channel_"))
            .find_map(|channel| self.group.dataset(&format!("{channel}/{name}/{name}")).ok())
            .ok_or_else(|| SessionError::unexpected(place(&self.group), format!("a channel {name}"), "none"))
    }

    fn columns(&self, row: &ResultRow) -> Result<ColumnTable, SessionError> {
        let rows: Vec<ColumnRow> = part(&self.columns, row.columns_start, row.columns_count)?;
        Ok(ColumnTable {
            row: rows.iter().map(|column| column.row).collect(),
            col: rows.iter().map(|column| column.col).collect(),
            class: rows.iter().map(|column| column.class).collect(),
            confidence: rows.iter().map(|column| column.confidence).collect(),
        })
    }

    fn candidates(&self, row: &ResultRow) -> Result<Vec<Candidate>, SessionError> {
        let rows: Vec<CandidateRow> = part(&self.candidates, row.candidates_start, row.candidates_count)?;
        let candidate = |row: &CandidateRow| {
            Ok(Candidate {
                id: row.id,
                kind: self.name(&string(&row.kind), "kind")?,
                px: PixelPosition { row: row.px_row, col: row.px_col },
                frac: FractionalPosition { y: row.frac_y, x: row.frac_x },
                nm: StagePosition { x: row.nm_x, y: row.nm_y, rotation_rad: row.nm_rotation_rad },
                score: row.score,
                p_value: row.p_value,
                reason: string(&row.reason),
                first_seq: row.first_seq,
                seq: row.seq,
                valid_until_ns: row.valid_until_ns,
                model: string(&row.model),
            })
        };
        rows.iter().map(candidate).collect()
    }

    fn json<T: DeserializeOwned>(&self, text: &str, field: &str) -> Result<T, SessionError> {
        serde_json::from_str(text).map_err(|error| {
            SessionError::unexpected(format!("{}, {field}", place(&self.group)), "its JSON", error)
        })
    }

    /// A unit variant by the name that it has on the wire.
    fn name<T: DeserializeOwned>(&self, name: &str, field: &str) -> Result<T, SessionError> {
        serde_json::from_value(serde_json::Value::String(name.to_owned())).map_err(|error| {
            SessionError::unexpected(format!("{}, {field}", place(&self.group)), "a name of the wire", error)
        })
    }
}

fn counters(row: &ResultRow) -> Counters {
    Counters {
        received: row.received,
        processed: row.processed,
        superseded: row.superseded,
        gaps: row.gaps,
        repeats: row.repeats,
        restarts: row.restarts,
        rejected: row.rejected,
        partial_skipped: row.partial_skipped,
        publish_dropped: row.publish_dropped,
        record_dropped: row.record_dropped,
    }
}

/// The grid in group `name`; `None` where the session has none.
fn read_grid(group: &Group, name: &str) -> Result<Option<GridSpec>, SessionError> {
    if !group.link_exists(name) {
        return Ok(None);
    }
    let grid = group.group(name).at(|| format!("{}/{name}", place(group)))?;
    let length = |axis: &str| -> Result<u32, SessionError> {
        let dataset = grid.dataset(axis).at(|| format!("{}/{axis}", place(&grid)))?;
        u32::try_from(dataset.size())
            .map_err(|_| SessionError::unexpected(place(&dataset), "fewer than 2^32 values", dataset.size()))
    };
    Ok(Some(GridSpec {
        row0: read_attribute(&grid, "row0")?,
        col0: read_attribute(&grid, "col0")?,
        step_row: read_attribute(&grid, "step_row")?,
        step_col: read_attribute(&grid, "step_col")?,
        rows: length("row")?,
        cols: length("col")?,
    }))
}

/// `count` rows of `table` from `start`.
fn part<R: H5Type>(table: &Dataset, start: u64, count: u64) -> Result<Vec<R>, SessionError> {
    let end = start.saturating_add(count);
    if end > table.size() as u64 {
        return Err(SessionError::unexpected(
            place(table),
            format!("rows {start} to {end}"),
            format!("{} rows", table.size()),
        ));
    }
    check_bytes(table, count as usize, size_of::<R>())?;
    read_rows(table, start as usize..end as usize)
}

fn check_bytes(dataset: &Dataset, elements: usize, element_bytes: usize) -> Result<(), SessionError> {
    let needed = elements as u128 * element_bytes as u128;
    if needed > u128::from(MAX_READ_BYTES) {
        return Err(SessionError::TooLarge { place: place(dataset), needed, limit: MAX_READ_BYTES });
    }
    Ok(())
}
