//! The messages of the wire, version 1, as plain values. How they become bytes is in [`crate::cbor`] and
//! [`crate::bincode`]; the tables that specify them are in `proto/README.md`.
//!
//! Units and axes are in the names: `_pm` picometre, `_nm` nanometre, `_ns` Unix nanoseconds, `_rad` radian;
//! `[row, col]` with the origin at the top left; vector components `_x` right, `_y` down.

use crate::array::{Grid, PixelArray};
use crate::error::Inconsistent;
use serde::{Deserialize, Serialize};

/// The version of the wire that this crate speaks.
pub const WIRE_VERSION: u64 = 1;

/// What arrives on the frames lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FramesMessage {
    /// `type: "frame"`.
    Frame(Box<FrameMessage>),
    /// `type: "begin"`: an acquisition starts.
    Begin(Bracket),
    /// `type: "end"`: an acquisition has ended.
    End(Bracket),
}

/// `begin` and `end` bracket an acquisition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bracket {
    pub acquisition: String,
    /// Whatever else the message carried, for the recorder.
    pub user_data: JsonMap,
}

/// Free-form metadata: an object of JSON values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JsonMap(pub serde_json::Map<String, serde_json::Value>);

/// Whether the scan that made a frame had finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameState {
    #[default]
    Complete,
    Partial,
}

/// `type: "frame"`. Only `seq` and `data` are required; `None` means "take it from the source's section of the config".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameMessage {
    pub acquisition: Option<String>,
    pub seq: u64,
    pub t_start_ns: Option<u64>,
    pub t_end_ns: Option<u64>,
    pub data: PixelArray,
    /// `[row, col]`; a single number on the wire means square pixels.
    pub pixel_size_pm: Option<[f64; 2]>,
    /// Scan rotation, counter-clockwise as displayed.
    pub rotation_rad: Option<f64>,
    /// Centre of the field of view, `[y, x]`.
    pub center_nm: Option<[f64; 2]>,
    /// Field of view, `[y, x]`.
    pub fov_nm: Option<[f64; 2]>,
    pub dwell_us: Option<f64>,
    pub channel: Option<String>,
    pub state: Option<FrameState>,
    /// Rows `from..to` that this frame really holds.
    pub valid_rows: Option<[u64; 2]>,
    pub user_data: JsonMap,
}

/// Where the windows of a result, or the tiles of a mistilt map, sit in frame pixels.
/// Window `(i, j)` is centred on `(row0 + i * step_row, col0 + j * step_col)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GridSpec {
    pub row0: f64,
    pub col0: f64,
    pub step_row: f64,
    pub step_col: f64,
    pub rows: u32,
    pub cols: u32,
}

/// `type: "result"`: one per processed frame. All grids have the shape of `grid`; NaN means "not measured here".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResultMessage {
    pub acquisition: String,
    pub seq: u64,
    pub t_acquired_ns: u64,
    pub grid: GridSpec,
    /// Polar displacement, pm.
    pub p_x: Grid<f32>,
    pub p_y: Grid<f32>,
    /// P less the offset that mistilt is suspected of, pm; beside P and never in its place. Added to version 1; bincode carries it
    /// in `Additions`.
    #[serde(skip)]
    pub p_corrected_x: Grid<f32>,
    #[serde(skip)]
    pub p_corrected_y: Grid<f32>,
    /// Predicted standard deviation of one component of P, pm.
    pub p_sigma: Grid<f32>,
    /// Cell parameters, pm.
    pub cell_a: Grid<f32>,
    pub cell_b: Grid<f32>,
    /// Angle between a and b, rad.
    pub cell_angle: Grid<f32>,
    /// pm².
    pub cell_area: Grid<f32>,
    pub ood: OodMaps,
    pub columns: ColumnTable,
    pub mistilt: MistiltMaps,
    pub candidates: Vec<Candidate>,
    pub model: ModelIds,
    pub calibration: Calibration,
    pub timing: Timing,
    pub counters: Counters,
}

/// Out-of-distribution evidence per window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OodMaps {
    /// Small = unusual.
    pub p_value: Grid<f32>,
    /// 1 where the window is flagged.
    pub flag: Grid<u8>,
}

/// Atomic columns in frame pixels; all four vectors have the same length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ColumnTable {
    pub row: Vec<f32>,
    pub col: Vec<f32>,
    /// The FCNN's class: 0 the dim B sublattice, 1 the bright A sublattice.
    pub class: Vec<u8>,
    /// 0..1.
    pub confidence: Vec<f32>,
}

/// Mistilt evidence per tile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MistiltMaps {
    pub tiles: GridSpec,
    /// Offset common to all domains of the tile, pm.
    pub offset_x: Grid<f32>,
    pub offset_y: Grid<f32>,
    pub p_value: Grid<f32>,
    /// 0 not evaluated, 1 consistent, 2 suspect, 3 undetermined.
    pub state: Grid<u8>,
    // What was added to version 1; bincode carries it in `Additions`.
    /// Covariance of the offset, pm².
    #[serde(skip)]
    pub offset_xx: Grid<f32>,
    #[serde(skip)]
    pub offset_xy: Grid<f32>,
    #[serde(skip)]
    pub offset_yy: Grid<f32>,
    /// The tilt that would give the offset, toward where it shifts the columns, mrad.
    #[serde(skip)]
    pub tilt_x: Grid<f32>,
    #[serde(skip)]
    pub tilt_y: Grid<f32>,
    /// Where the calibration of the tilt comes from.
    #[serde(skip)]
    pub tilt_source: Option<String>,
}

/// What kind of site a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CandidateKind {
    Ood,
    DomainWall,
    Mistilt,
    Column,
    /// P turns once around it: a vortex, or a junction of domain walls.
    Vortex,
    /// Where an expression of the user's config holds.
    Expression,
}

/// A position in frame pixels (integer = pixel centre).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PixelPosition {
    pub row: f64,
    pub col: f64,
}

/// A position as a fraction of the field of view, (0, 0) its top left edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct FractionalPosition {
    pub y: f64,
    pub x: f64,
}

/// A position as an offset from the centre of the field of view, turned by `rotation_rad`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StagePosition {
    pub x: f64,
    pub y: f64,
    pub rotation_rad: f64,
}

/// A site worth the controller's attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Stable while the same site is tracked from frame to frame.
    pub id: u64,
    pub kind: CandidateKind,
    pub px: PixelPosition,
    pub frac: FractionalPosition,
    /// NaN components where the frame has no pixel size.
    pub nm: StagePosition,
    /// Large = interesting.
    pub score: f64,
    /// Small = unusual; NaN where the kind has no test behind it.
    pub p_value: f64,
    pub reason: String,
    pub first_seq: u64,
    pub seq: u64,
    pub valid_until_ns: u64,
    /// The network behind it, by name.
    pub model: String,
}

/// `type: "candidates"`: the light message beside each result.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CandidatesMessage {
    pub acquisition: String,
    pub seq: u64,
    pub t_published_ns: u64,
    pub candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelIds {
    pub dcnn: Option<ModelId>,
    pub fcnn: Option<ModelId>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelId {
    pub name: String,
    /// Lower-case hexadecimal SHA-256 of the weights file.
    pub sha256: String,
}

/// The pixel size that the networks were fed with, and where it came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// `[row, col]`, pm.
    pub pixel_size_pm: [f64; 2],
    pub source: CalibrationSource,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationSource {
    /// The frame said so.
    Frame,
    /// The source's section of the config.
    Config,
    /// Estimated from the lattice in the image.
    Lattice,
    /// `--native-scale`: not known, frame pixels taken as the model's.
    #[default]
    None,
}

/// When a frame was received and its result published, and what each stage took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    pub t_received_ns: u64,
    pub t_published_ns: u64,
    /// Microseconds by stage, in the order of the flow.
    pub stages_us: Vec<(String, u64)>,
}

/// Totals since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Frames that arrived and could be decoded.
    pub received: u64,
    /// Frames whose result was published.
    pub processed: u64,
    /// Frames replaced by a newer one before they were processed (live mode).
    pub superseded: u64,
    /// Sequence numbers that never arrived.
    pub gaps: u64,
    /// Sequence numbers that arrived again.
    pub repeats: u64,
    /// Sequences that started anew.
    pub restarts: u64,
    /// Messages that were no valid frame, and frames that could not be processed.
    pub rejected: u64,
    /// Partial frames passed over because only complete ones are asked for.
    pub partial_skipped: u64,
    /// Messages that slow subscribers never saw.
    pub publish_dropped: u64,
    /// Frames that the recorder could not keep up with.
    pub record_dropped: u64,
}

/// `type: "status"`: the heartbeat, once a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusMessage {
    pub t_ns: u64,
    pub version: String,
    /// `starting`, `ready`, `degraded` or `stopping`.
    pub state: String,
    /// What is wrong, when something is.
    pub problems: Vec<String>,
    pub device: String,
    pub mode: String,
    pub model: ModelIds,
    pub uptime_s: f64,
    /// Results a second over the last few seconds.
    pub frame_rate_hz: f64,
    /// From frame received to result published, over the last results, microseconds.
    pub latency_p50_us: u64,
    pub latency_p99_us: u64,
    pub last_seq: Option<u64>,
    /// Path of the session being recorded.
    pub recording: Option<String>,
    pub counters: Counters,
    /// Acknowledgements by verdict.
    pub acks: Vec<(String, u64)>,
}

/// What leaves on the results lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ResultsMessage {
    Result(Box<ResultMessage>),
    Candidates(CandidatesMessage),
    Status(Box<StatusMessage>),
}

impl FrameMessage {
    /// A frame that says no more than it must.
    pub fn new(seq: u64, data: PixelArray) -> Self {
        Self {
            acquisition: None,
            seq,
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
}

impl ResultMessage {
    /// Checks that each map has the shape of its grid, or is empty (0 x 0) because nothing evaluated it, and that
    /// the columns of the column table are equally long.
    ///
    /// # Errors
    /// Names the first part that contradicts the others.
    pub fn check(&self) -> Result<(), Inconsistent> {
        let shape = |field, found: [usize; 2], grid: &GridSpec| {
            let expected = [grid.rows as usize, grid.cols as usize];
            if found == expected || found == [0, 0] {
                Ok(())
            } else {
                Err(Inconsistent::Shape { field, expected, found })
            }
        };
        shape("p_x", self.p_x.shape(), &self.grid)?;
        shape("p_y", self.p_y.shape(), &self.grid)?;
        shape("p_corrected_x", self.p_corrected_x.shape(), &self.grid)?;
        shape("p_corrected_y", self.p_corrected_y.shape(), &self.grid)?;
        shape("p_sigma", self.p_sigma.shape(), &self.grid)?;
        shape("cell_a", self.cell_a.shape(), &self.grid)?;
        shape("cell_b", self.cell_b.shape(), &self.grid)?;
        shape("cell_angle", self.cell_angle.shape(), &self.grid)?;
        shape("cell_area", self.cell_area.shape(), &self.grid)?;
        shape("ood.p_value", self.ood.p_value.shape(), &self.grid)?;
        shape("ood.flag", self.ood.flag.shape(), &self.grid)?;
        let tiles = &self.mistilt.tiles;
        shape("mistilt.offset_x", self.mistilt.offset_x.shape(), tiles)?;
        shape("mistilt.offset_y", self.mistilt.offset_y.shape(), tiles)?;
        shape("mistilt.p_value", self.mistilt.p_value.shape(), tiles)?;
        shape("mistilt.state", self.mistilt.state.shape(), tiles)?;
        shape("mistilt.offset_xx", self.mistilt.offset_xx.shape(), tiles)?;
        shape("mistilt.offset_xy", self.mistilt.offset_xy.shape(), tiles)?;
        shape("mistilt.offset_yy", self.mistilt.offset_yy.shape(), tiles)?;
        shape("mistilt.tilt_x", self.mistilt.tilt_x.shape(), tiles)?;
        shape("mistilt.tilt_y", self.mistilt.tilt_y.shape(), tiles)?;
        let expected = self.columns.row.len();
        let length = |field, found| {
            if found == expected { Ok(()) } else { Err(Inconsistent::Columns { field, expected, found }) }
        };
        length("col", self.columns.col.len())?;
        length("class", self.columns.class.len())?;
        length("confidence", self.columns.confidence.len())
    }
}

impl Serialize for JsonMap {
    /// As one JSON text, so that formats that do not describe themselves (bincode) can carry it.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        serde_json::to_string(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonMap {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Ok(Self(Deserialize::deserialize(deserializer)?));
        }
        let text = String::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(&text).map_err(serde::de::Error::custom)?))
    }
}
