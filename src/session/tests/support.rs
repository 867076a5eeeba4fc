//! Frames and results with values that say where they belong.

use crate::frame::{Frame, FrameTimes, ScanGeometry};
use crate::session::{RecordSettings, Recorder, SessionHeader};
use ferrostem_proto::{
    ByteOrder, Calibration, CalibrationSource, Candidate, CandidateKind, ColumnTable, Counters, Dtype,
    FractionalPosition, FrameState, Grid, GridSpec, JsonMap, MistiltMaps, ModelId, ModelIds, OodMaps,
    PixelArray, PixelPosition, ResultMessage, StagePosition, Timing,
};
use ndarray::Array2;
use std::path::Path;
use std::sync::Arc;

pub(super) const SHAPE: [usize; 2] = [6, 5];
/// 2023-11-14, in ns.
pub(super) const START_NS: u64 = 1_700_000_000_000_000_000;

pub(super) fn header() -> SessionHeader {
    let model = |name: &str| Some(ModelId { name: name.to_owned(), sha256: "ab".repeat(32) });
    SessionHeader {
        config_toml: "mode = \"live\"\n".to_owned(),
        models: ModelIds { dcnn: model("dcnn-first"), fcnn: model("fcnn-first") },
        created_ns: START_NS,
    }
}

pub(super) fn recorder(path: &Path) -> Recorder {
    Recorder::create(path, &RecordSettings::default(), &header()).unwrap()
}

pub(super) fn frame_of(seq: u64, raw: PixelArray) -> Frame {
    let [rows, cols] = raw.shape();
    let start_ns = START_NS + seq * 40_000_000;
    Frame {
        source: "microscope".to_owned(),
        acquisition: "run 1".to_owned(),
        seq,
        pixels: Array2::zeros((rows, cols)),
        raw: Arc::new(raw),
        scan: ScanGeometry {
            pixel_size_pm: Some([15.1, 15.2]),
            rotation_rad: 0.25,
            center_nm: [3.0, -4.0],
            fov_nm: Some([7.7, 7.8]),
            dwell_us: Some(2.0),
        },
        times: FrameTimes { start_ns, end_ns: start_ns + 30_000_000, received_ns: start_ns + 35_000_000 },
        channel: "HAADF".to_owned(),
        state: FrameState::Complete,
        valid_rows: 0..rows,
        user_data: JsonMap::default(),
    }
}

/// Pixel `(row, col)` of frame `seq` counts `1000 seq + 10 row + col`.
pub(super) fn frame(seq: u64) -> Frame {
    frame_of(seq, counts(seq, SHAPE))
}

pub(super) fn counts(seq: u64, shape: [usize; 2]) -> PixelArray {
    let bytes: Vec<u8> = (0..shape[0])
        .flat_map(|row| (0..shape[1]).map(move |col| (1000 * seq as usize + 10 * row + col) as u16))
        .flat_map(u16::to_le_bytes)
        .collect();
    PixelArray::new(Dtype::U16, ByteOrder::Little, shape, bytes.into()).unwrap()
}

pub(super) const WINDOWS: GridSpec =
    GridSpec { row0: 1.5, col0: 1.0, step_row: 1.0, step_col: 2.0, rows: 3, cols: 2 };

fn map(grid: GridSpec, base: f32) -> Grid<f32> {
    let (rows, cols) = (grid.rows as usize, grid.cols as usize);
    let value = |i: usize| base + 10.0 * (i / cols) as f32 + (i % cols) as f32;
    Grid::new(rows, cols, (0..rows * cols).map(value).collect()).unwrap()
}

/// Window `(i, j)` of map `m` (p_x 0, p_y 1, …) is `1000 seq + 100 m + 10 i + j`; one is NaN.
pub(super) fn result(seq: u64) -> ResultMessage {
    result_on(seq, WINDOWS)
}

pub(super) fn result_on(seq: u64, grid: GridSpec) -> ResultMessage {
    let nth = |m: usize| map(grid, 1000.0 * seq as f32 + 100.0 * m as f32);
    let mut p_sigma = nth(2).into_values();
    p_sigma[0] = f32::NAN;
    let (rows, cols) = (grid.rows as usize, grid.cols as usize);
    let tiles = GridSpec { row0: 3.0, col0: 2.5, step_row: 1.0, step_col: 1.0, rows: 1, cols: 2 };
    let n = seq as usize % 4 + 1;
    ResultMessage {
        acquisition: "run 1".to_owned(),
        seq,
        t_acquired_ns: START_NS + seq,
        grid,
        p_x: nth(0),
        p_y: nth(1),
        p_sigma: Grid::new(rows, cols, p_sigma).unwrap(),
        cell_a: nth(3),
        cell_b: nth(4),
        cell_angle: nth(5),
        cell_area: nth(6),
        ood: OodMaps {
            p_value: nth(7),
            flag: Grid::new(rows, cols, (0..rows * cols).map(|i| (i % 2) as u8).collect()).unwrap(),
        },
        columns: ColumnTable {
            row: (0..n).map(|i| i as f32 + 0.25).collect(),
            col: (0..n).map(|i| i as f32 + 0.5).collect(),
            class: (0..n).map(|i| (i % 2) as u8).collect(),
            confidence: vec![0.75; n],
        },
        mistilt: MistiltMaps {
            tiles,
            offset_x: map(tiles, 1.0),
            offset_y: map(tiles, 2.0),
            p_value: map(tiles, 0.5),
            state: Grid::new(1, 2, vec![1, 3]).unwrap(),
            ..MistiltMaps::default()
        },
        candidates: vec![candidate(seq, CandidateKind::Ood), candidate(seq, CandidateKind::DomainWall)],
        model: header().models,
        calibration: Calibration { pixel_size_pm: [15.1, 15.2], source: CalibrationSource::Frame },
        timing: Timing {
            t_received_ns: START_NS + 2,
            t_published_ns: START_NS + 3,
            stages_us: vec![("preprocess".to_owned(), 5), ("networks".to_owned(), 7)],
        },
        counters: Counters { received: seq + 1, processed: seq + 1, gaps: 2, ..Counters::default() },
        ..ResultMessage::default()
    }
}

fn candidate(seq: u64, kind: CandidateKind) -> Candidate {
    Candidate {
        id: 7,
        kind,
        px: PixelPosition { row: 1.5, col: 2.5 },
        frac: FractionalPosition { y: 0.3, x: 0.6 },
        nm: StagePosition { x: 1.0, y: -1.0, rotation_rad: 0.25 },
        score: 3.5,
        p_value: f64::NAN,
        reason: "a reason with µ and \"quotes\"".to_owned(),
        first_seq: seq,
        seq,
        valid_until_ns: START_NS + 9,
        model: "dcnn-first".to_owned(),
    }
}
