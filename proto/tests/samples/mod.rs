//! Messages to test with: a fixed one of each kind (the golden ones), and random ones from a seed.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use bytes::Bytes;
use ferrostem_proto::{
    Bracket, ByteOrder, Calibration, CalibrationSource, Candidate, CandidateKind, CandidatesMessage,
    ColumnTable, Counters, Dtype, FractionalPosition, FrameMessage, FrameState, FramesMessage, Grid,
    GridSpec, JsonMap, MistiltMaps, ModelId, ModelIds, OodMaps, PixelArray, PixelPosition, ResultMessage,
    ResultsMessage, StagePosition, StatusMessage, Timing,
};
use serde_json::{Map, Value, json};

pub fn frames() -> Vec<(&'static str, FramesMessage)> {
    let mut full = FrameMessage::new(
        42,
        PixelArray::new(
            Dtype::U16,
            ByteOrder::Little,
            [2, 3],
            Bytes::from_static(b"\x01\0\x02\0\x03\0\x04\0\x05\0\0\x01"),
        )
        .unwrap(),
    );
    full.acquisition = Some("BiFeO3 #1".to_owned());
    full.t_start_ns = Some(1_700_000_000_000_000_000);
    full.t_end_ns = Some(1_700_000_000_524_288_000);
    full.pixel_size_pm = Some([15.0, 15.25]);
    full.rotation_rad = Some(-0.25);
    full.center_nm = Some([120.5, -3.0]);
    full.fov_nm = Some([7.68, 7.68]);
    full.dwell_us = Some(2.0);
    full.channel = Some("HAADF".to_owned());
    full.state = Some(FrameState::Partial);
    full.valid_rows = Some([0, 1]);
    full.user_data = JsonMap(object(json!({
        "operator": "A. N.", "tilt_mrad": [0.5, -1], "beam": {"kV": 200, "on": true}, "note": null
    })));
    let minimal = FrameMessage::new(0, PixelArray::from_f32([1, 2], &[0.5, f32::NAN]).unwrap());
    let bracket = Bracket { acquisition: "BiFeO3 #1".to_owned(), user_data: JsonMap::default() };
    let user_data = JsonMap(object(json!({"frames": 100})));
    vec![
        ("frame", FramesMessage::Frame(Box::new(full))),
        ("frame_minimal", FramesMessage::Frame(Box::new(minimal))),
        ("begin", FramesMessage::Begin(Bracket { user_data, ..bracket.clone() })),
        ("end", FramesMessage::End(bracket)),
    ]
}

pub fn results() -> Vec<(&'static str, ResultsMessage)> {
    let candidate = Candidate {
        id: 9,
        kind: CandidateKind::DomainWall,
        px: PixelPosition { row: 100.5, col: 20.0 },
        frac: FractionalPosition { y: 0.197_265_625, x: 0.040_039_062_5 },
        nm: StagePosition { x: -3.5, y: -2.25, rotation_rad: -0.25 },
        score: 2.5,
        p_value: f64::NAN,
        reason: "P turns by 109 degrees over two cells".to_owned(),
        first_seq: 40,
        seq: 42,
        valid_until_ns: 1_700_000_002_000_000_000,
        model: "valid-dcnn".to_owned(),
    };
    let map = |offset: f32| Grid::new(1, 2, vec![offset, f32::NAN]).unwrap();
    let result = ResultMessage {
        acquisition: "BiFeO3 #1".to_owned(),
        seq: 42,
        t_acquired_ns: 1_700_000_000_524_288_000,
        grid: GridSpec { row0: 39.5, col0: 39.5, step_row: 8.0, step_col: 8.0, rows: 1, cols: 2 },
        p_x: map(30.0),
        p_y: map(-20.5),
        p_sigma: map(4.0),
        cell_a: map(396.0),
        cell_b: map(400.25),
        cell_angle: map(1.570_796_4),
        cell_area: map(158_499.0),
        ood: OodMaps { p_value: map(0.25), flag: Grid::new(1, 2, vec![0, 1]).unwrap() },
        columns: ColumnTable {
            row: vec![13.25, 26.5],
            col: vec![13.0, 26.75],
            class: vec![0, 1],
            confidence: vec![0.75, 1.0],
        },
        mistilt: MistiltMaps {
            tiles: GridSpec { row0: 43.5, col0: 43.5, step_row: 88.0, step_col: 88.0, rows: 1, cols: 1 },
            offset_x: Grid::new(1, 1, vec![1.5]).unwrap(),
            offset_y: Grid::new(1, 1, vec![-0.5]).unwrap(),
            p_value: Grid::new(1, 1, vec![0.125]).unwrap(),
            state: Grid::new(1, 1, vec![1]).unwrap(),
            ..MistiltMaps::default()
        },
        candidates: vec![candidate.clone()],
        model: ModelIds {
            dcnn: Some(model_id("valid-dcnn", 'a')),
            fcnn: Some(model_id("dilated-unet", 'b')),
        },
        calibration: Calibration { pixel_size_pm: [15.0, 15.25], source: CalibrationSource::Frame },
        timing: Timing {
            t_received_ns: 1_700_000_000_530_000_000,
            t_published_ns: 1_700_000_000_600_000_000,
            stages_us: vec![("preprocess".to_owned(), 900), ("dcnn".to_owned(), 61_000)],
        },
        counters: Counters { received: 43, processed: 40, superseded: 3, ..Counters::default() },
        ..ResultMessage::default()
    };
    let cell = |value: f32| Grid::new(1, 1, vec![value]).unwrap();
    let tilted = ResultMessage {
        p_corrected_x: map(28.5),
        p_corrected_y: map(-20.0),
        mistilt: MistiltMaps {
            state: Grid::new(1, 1, vec![2]).unwrap(),
            offset_xx: cell(0.25),
            offset_xy: cell(-0.125),
            offset_yy: cell(0.5),
            tilt_x: cell(-3.0),
            tilt_y: cell(1.0),
            tilt_source: Some("multislice, 30 nm".to_owned()),
            ..result.mistilt.clone()
        },
        ..result.clone()
    };
    let status = StatusMessage {
        t_ns: 1_700_000_001_000_000_000,
        version: "0.1.0".to_owned(),
        state: "degraded".to_owned(),
        problems: vec!["source microscope: connection refused".to_owned()],
        device: "cpu".to_owned(),
        mode: "live".to_owned(),
        model: ModelIds { dcnn: Some(model_id("valid-dcnn", 'a')), fcnn: None },
        uptime_s: 12.5,
        frame_rate_hz: 9.75,
        latency_p50_us: 70_000,
        latency_p99_us: 90_000,
        last_seq: Some(42),
        recording: Some("session.h5".to_owned()),
        counters: result.counters,
        acks: vec![("accepted".to_owned(), 2), ("done".to_owned(), 1)],
    };
    let starting = StatusMessage { state: "starting".to_owned(), ..StatusMessage::default() };
    let candidates = CandidatesMessage {
        acquisition: result.acquisition.clone(),
        seq: result.seq,
        t_published_ns: result.timing.t_published_ns,
        candidates: vec![candidate.clone()],
    };
    let of_kind = |kind, reason: &str| Candidate { kind, reason: reason.to_owned(), ..candidate.clone() };
    let kinds = CandidatesMessage {
        candidates: vec![
            of_kind(CandidateKind::Vortex, "P turns once counter-clockwise around it"),
            of_kind(CandidateKind::Expression, "tetragonal: aspect > 1.05"),
        ],
        ..candidates.clone()
    };
    vec![
        ("result", ResultsMessage::Result(Box::new(result))),
        ("result_mistilt", ResultsMessage::Result(Box::new(tilted))),
        ("result_empty", ResultsMessage::Result(Box::default())),
        ("candidates", ResultsMessage::Candidates(candidates)),
        ("candidates_kinds", ResultsMessage::Candidates(kinds)),
        ("status", ResultsMessage::Status(Box::new(status))),
        ("status_starting", ResultsMessage::Status(Box::new(starting))),
    ]
}

fn model_id(name: &str, digit: char) -> ModelId {
    ModelId { name: name.to_owned(), sha256: digit.to_string().repeat(64) }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

/// SplitMix64: enough randomness to make messages, and the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.bits() & 1 == 1
    }

    /// Any of the 2^64, with the small ones, whose encoding is shorter, as often as the large.
    fn uint(&mut self) -> u64 {
        let shift = self.below(64);
        self.bits() >> shift
    }

    /// Any bit pattern: NaN, infinities and subnormals among them.
    fn f64(&mut self) -> f64 {
        f64::from_bits(self.bits())
    }

    fn f32(&mut self) -> f32 {
        f32::from_bits(self.bits() as u32)
    }

    fn text(&mut self) -> String {
        (0..self.below(12)).filter_map(|_| char::from_u32(self.below(0x3000) as u32)).collect()
    }

    fn option<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.coin().then(|| make(self))
    }

    fn pair(&mut self) -> [f64; 2] {
        [self.f64(), self.f64()]
    }

    fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => self.coin().into(),
            2 => self.uint().into(),
            3 => (self.bits() as i64).into(),
            // Eighths of small integers survive a JSON text exactly.
            4 => (self.below(1000) as f64 / 8.0).into(),
            5 => self.text().into(),
            6 => (0..self.below(4)).map(|_| self.json(depth - 1)).collect(),
            _ => Value::Object(self.json_map(depth - 1).0),
        }
    }

    fn json_map(&mut self, depth: usize) -> JsonMap {
        JsonMap((0..self.below(4)).map(|_| (self.text(), self.json(depth))).collect())
    }

    fn pixels(&mut self) -> PixelArray {
        use Dtype::{F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        let dtype = [U8, U16, U32, U64, I8, I16, I32, I64, F32, F64][self.below(10)];
        let single = dtype.size() == 1;
        let byte_order = if single || self.coin() { ByteOrder::Little } else { ByteOrder::Big };
        let shape = [self.below(5), self.below(5)];
        let bytes: Vec<u8> = (0..shape[0] * shape[1] * dtype.size()).map(|_| self.bits() as u8).collect();
        PixelArray::new(dtype, byte_order, shape, bytes.into()).unwrap()
    }

    pub fn frames_message(&mut self) -> FramesMessage {
        match self.below(6) {
            0 => FramesMessage::Begin(Bracket { acquisition: self.text(), user_data: self.json_map(3) }),
            1 => FramesMessage::End(Bracket { acquisition: self.text(), user_data: self.json_map(3) }),
            _ => FramesMessage::Frame(Box::new(FrameMessage {
                acquisition: self.option(Self::text),
                seq: self.uint(),
                t_start_ns: self.option(Self::uint),
                t_end_ns: self.option(Self::uint),
                data: self.pixels(),
                pixel_size_pm: self.option(Self::pair),
                rotation_rad: self.option(Self::f64),
                center_nm: self.option(Self::pair),
                fov_nm: self.option(Self::pair),
                dwell_us: self.option(Self::f64),
                channel: self.option(Self::text),
                state: self.option(|it| if it.coin() { FrameState::Complete } else { FrameState::Partial }),
                valid_rows: self.option(|it| [it.uint(), it.uint()]),
                user_data: self.json_map(3),
            })),
        }
    }

    fn grid_spec(&mut self) -> GridSpec {
        GridSpec {
            row0: self.f64(),
            col0: self.f64(),
            step_row: self.f64(),
            step_col: self.f64(),
            rows: self.below(4) as u32,
            cols: self.below(4) as u32,
        }
    }

    fn map(&mut self, grid: &GridSpec) -> Grid<f32> {
        let [rows, cols] = self.shape(grid);
        Grid::new(rows, cols, (0..rows * cols).map(|_| self.f32()).collect()).unwrap()
    }

    fn flags(&mut self, grid: &GridSpec) -> Grid<u8> {
        let [rows, cols] = self.shape(grid);
        Grid::new(rows, cols, (0..rows * cols).map(|_| self.bits() as u8).collect()).unwrap()
    }

    /// The grid's, or now and then "not evaluated".
    fn shape(&mut self, grid: &GridSpec) -> [usize; 2] {
        if self.below(5) == 0 { [0, 0] } else { [grid.rows as usize, grid.cols as usize] }
    }

    fn candidate(&mut self) -> Candidate {
        use CandidateKind::{Column, DomainWall, Expression, Mistilt, Ood, Vortex};
        Candidate {
            id: self.uint(),
            kind: [Ood, DomainWall, Mistilt, Column, Vortex, Expression][self.below(6)],
            px: PixelPosition { row: self.f64(), col: self.f64() },
            frac: FractionalPosition { y: self.f64(), x: self.f64() },
            nm: StagePosition { x: self.f64(), y: self.f64(), rotation_rad: self.f64() },
            score: self.f64(),
            p_value: self.f64(),
            reason: self.text(),
            first_seq: self.uint(),
            seq: self.uint(),
            valid_until_ns: self.uint(),
            model: self.text(),
        }
    }

    fn candidates(&mut self) -> Vec<Candidate> {
        (0..self.below(4)).map(|_| self.candidate()).collect()
    }

    fn model_ids(&mut self) -> ModelIds {
        let id = |it: &mut Self| ModelId { name: it.text(), sha256: it.text() };
        ModelIds { dcnn: self.option(id), fcnn: self.option(id) }
    }

    fn counters(&mut self) -> Counters {
        Counters {
            received: self.uint(),
            processed: self.uint(),
            superseded: self.uint(),
            gaps: self.uint(),
            repeats: self.uint(),
            restarts: self.uint(),
            rejected: self.uint(),
            partial_skipped: self.uint(),
            publish_dropped: self.uint(),
            record_dropped: self.uint(),
        }
    }

    fn named_numbers(&mut self) -> Vec<(String, u64)> {
        (0..self.below(4)).map(|index| (format!("{index} {}", self.text()), self.uint())).collect()
    }

    fn column(&mut self, length: usize) -> Vec<f32> {
        (0..length).map(|_| self.f32()).collect()
    }

    fn result(&mut self) -> ResultMessage {
        use CalibrationSource::{Config, Frame, Lattice, None};
        let (grid, tiles, columns) = (self.grid_spec(), self.grid_spec(), self.below(5));
        ResultMessage {
            acquisition: self.text(),
            seq: self.uint(),
            t_acquired_ns: self.uint(),
            grid,
            p_x: self.map(&grid),
            p_y: self.map(&grid),
            p_corrected_x: self.map(&grid),
            p_corrected_y: Grid::default(),
            p_sigma: self.map(&grid),
            cell_a: self.map(&grid),
            cell_b: self.map(&grid),
            cell_angle: self.map(&grid),
            cell_area: self.map(&grid),
            ood: OodMaps { p_value: self.map(&grid), flag: self.flags(&grid) },
            columns: ColumnTable {
                row: self.column(columns),
                col: self.column(columns),
                class: (0..columns).map(|_| self.bits() as u8).collect(),
                confidence: self.column(columns),
            },
            mistilt: MistiltMaps {
                tiles,
                offset_x: self.map(&tiles),
                offset_y: self.map(&tiles),
                p_value: self.map(&tiles),
                state: self.flags(&tiles),
                offset_xx: self.map(&tiles),
                offset_xy: Grid::default(),
                offset_yy: self.map(&tiles),
                tilt_x: self.map(&tiles),
                tilt_y: self.map(&tiles),
                tilt_source: (self.below(2) == 0).then(|| self.text()),
            },
            candidates: self.candidates(),
            model: self.model_ids(),
            calibration: Calibration {
                pixel_size_pm: self.pair(),
                source: [Frame, Config, Lattice, None][self.below(4)],
            },
            timing: Timing {
                t_received_ns: self.uint(),
                t_published_ns: self.uint(),
                stages_us: self.named_numbers(),
            },
            counters: self.counters(),
        }
    }

    pub fn results_message(&mut self) -> ResultsMessage {
        match self.below(4) {
            0 => ResultsMessage::Candidates(CandidatesMessage {
                acquisition: self.text(),
                seq: self.uint(),
                t_published_ns: self.uint(),
                candidates: self.candidates(),
            }),
            1 => ResultsMessage::Status(Box::new(StatusMessage {
                t_ns: self.uint(),
                version: self.text(),
                state: self.text(),
                problems: (0..self.below(3)).map(|_| self.text()).collect(),
                device: self.text(),
                mode: self.text(),
                model: self.model_ids(),
                uptime_s: self.f64(),
                frame_rate_hz: self.f64(),
                latency_p50_us: self.uint(),
                latency_p99_us: self.uint(),
                last_seq: self.option(Self::uint),
                recording: self.option(Self::text),
                counters: self.counters(),
                acks: self.named_numbers(),
            })),
            _ => ResultsMessage::Result(Box::new(self.result())),
        }
    }
}
