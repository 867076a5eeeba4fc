use super::support::{
    SHAPE, START_NS, WINDOWS, counts, frame, frame_of, header, recorder, result, result_on,
};
use crate::session::h5::read_text;
use crate::session::*;
use ferrostem_proto::{
    ByteOrder, Dtype, FrameMessage, FrameState, Grid, GridSpec, JsonMap, MistiltMaps, PixelArray,
    ResultMessage,
};
use hdf5::types::VarLenUnicode;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

const DTYPES: [Dtype; 10] = [
    Dtype::U8,
    Dtype::U16,
    Dtype::U32,
    Dtype::U64,
    Dtype::I8,
    Dtype::I16,
    Dtype::I32,
    Dtype::I64,
    Dtype::F32,
    Dtype::F64,
];

fn session() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.h5");
    (folder, path)
}

fn frames(path: &std::path::Path) -> Vec<RecordedFrame> {
    let mut reader = open(path, &OpenOptions::default()).unwrap();
    assert_eq!(reader.format(), SessionFormat::Own);
    (0..reader.len()).map(|index| reader.frame(index).unwrap()).collect()
}

/// NaN equals NaN in what is printed.
fn assert_same(found: &impl std::fmt::Debug, expected: &impl std::fmt::Debug) {
    assert_eq!(format!("{found:#?}"), format!("{expected:#?}"));
}

#[test]
fn pixels_of_every_type_and_byte_order_come_back_bit_for_bit() {
    let (_folder, path) = session();
    let mut recorder = recorder(&path);
    let mut expected = Vec::new();
    for (seq, (dtype, order)) in
        (0..).zip(DTYPES.into_iter().flat_map(|d| [(d, ByteOrder::Little), (d, ByteOrder::Big)]))
    {
        let size = dtype.size();
        // Every byte differs from its neighbours, and some floats are NaN with a payload.
        let bytes: Vec<u8> = (0..3 * 4 * size).map(|i| (i * 151 + 97 * seq as usize) as u8 | 1).collect();
        let raw = PixelArray::new(dtype, order, [3, 4], bytes.clone().into()).unwrap();
        recorder.frame(&frame_of(seq, raw)).unwrap();
        let mut little = bytes;
        if order == ByteOrder::Big {
            little.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        expected.push(PixelArray::new(dtype, ByteOrder::Little, [3, 4], little.into()).unwrap());
    }
    let summary = recorder.finish().unwrap();
    // Frames of one type share a measurement, whatever their byte order.
    assert_eq!((summary.frames, summary.measurements), (20, 10));
    let found: Vec<PixelArray> = frames(&path).into_iter().map(|frame| frame.message.data).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_frame_comes_back_with_all_that_was_known_about_it() {
    let (_folder, path) = session();
    let mut known = frame(41);
    known.user_data =
        JsonMap(serde_json::json!({"stage": {"x": 1.5}, "note": "µ\0"}).as_object().unwrap().clone());
    known.state = FrameState::Partial;
    known.valid_rows = 1..4;
    let mut unknown = frame(42);
    unknown.scan.pixel_size_pm = None;
    unknown.scan.fov_nm = None;
    unknown.scan.dwell_us = None;
    let mut recorder = recorder(&path);
    recorder.frame(&known).unwrap();
    recorder.frame(&unknown).unwrap();
    recorder.finish().unwrap();
    let start = START_NS + 41 * 40_000_000;
    let message = FrameMessage {
        acquisition: Some("run 1".to_owned()),
        seq: 41,
        t_start_ns: Some(start),
        t_end_ns: Some(start + 30_000_000),
        data: counts(41, SHAPE),
        pixel_size_pm: Some([15.1, 15.2]),
        rotation_rad: Some(0.25),
        center_nm: Some([3.0, -4.0]),
        fov_nm: Some([7.7, 7.8]),
        dwell_us: Some(2.0),
        channel: Some("HAADF".to_owned()),
        state: Some(FrameState::Partial),
        valid_rows: Some([1, 4]),
        user_data: known.user_data,
    };
    let found = frames(&path);
    assert_eq!(found[0], RecordedFrame { message, t_ns: Some(start + 35_000_000) });
    let bare = &found[1].message;
    assert_eq!((bare.pixel_size_pm, bare.fov_nm, bare.dwell_us), (None, None, None));
    assert_eq!(bare.state, Some(FrameState::Complete));
}

#[test]
fn results_come_back_as_they_were_published() {
    let (_folder, path) = session();
    let mut recorder = recorder(&path);
    for seq in 0..5 {
        recorder.frame(&frame(seq)).unwrap();
        // Frame 3 was never processed.
        if seq != 3 {
            recorder.result(&result(seq)).unwrap();
        }
    }
    // The networks may be absent: no maps, no columns.
    recorder.frame(&frame(5)).unwrap();
    let bare = ResultMessage { acquisition: "run 1".to_owned(), seq: 5, ..ResultMessage::default() };
    recorder.result(&bare).unwrap();
    recorder.ack(7, "accepted", 11).unwrap();
    let gap = Gap { source: "microscope".to_owned(), first_seq: 9, missing: 2, t_ns: 12, ..Gap::default() };
    recorder.gap(&gap).unwrap();
    let summary = recorder.finish().unwrap();
    assert_eq!(summary, RecordSummary { measurements: 1, frames: 6, results: 5, orphan_results: 0 });

    let reader = ResultReader::open(&path).unwrap();
    let found: Vec<RecordedResult> = (0..reader.len()).map(|i| reader.result(i).unwrap()).collect();
    let expected: Vec<RecordedResult> = [result(0), result(1), result(2), result(4), bare]
        .into_iter()
        .map(|message| RecordedResult { measurement: 0, frame: message.seq as usize, message })
        .collect();
    assert_same(&found, &expected);
    assert_eq!(reader.config_toml().unwrap(), header().config_toml);
    let verdict = "accepted".to_owned();
    assert_eq!(reader.acknowledgements().unwrap(), [Acknowledgement { candidate_id: 7, verdict, t_ns: 11 }]);
    assert_eq!(reader.gaps().unwrap(), [gap]);
    assert!(matches!(reader.result(5), Err(SessionError::NoSuchFrame { index: 5, len: 5, .. })));
}

#[test]
fn what_was_added_to_mistilt_comes_back() {
    let (_folder, path) = session();
    let mut recorder = recorder(&path);
    let tilted = |seq: u64| {
        let plain = result(seq);
        let scaled = |map: &Grid<f32>, by: f32| {
            let [rows, cols] = map.shape();
            Grid::new(rows, cols, map.values().iter().map(|v| v * by).collect()).unwrap()
        };
        let offset = plain.mistilt.offset_x.clone();
        ResultMessage {
            p_corrected_x: scaled(&plain.p_x, 0.5),
            p_corrected_y: scaled(&plain.p_y, 0.5),
            mistilt: MistiltMaps {
                offset_xx: scaled(&offset, 2.0),
                offset_xy: scaled(&offset, -1.0),
                offset_yy: scaled(&offset, 3.0),
                tilt_x: scaled(&offset, 4.0),
                tilt_y: scaled(&offset, 5.0),
                tilt_source: Some("multislice".to_owned()),
                ..plain.mistilt.clone()
            },
            ..plain
        }
    };
    for seq in 0..2 {
        recorder.frame(&frame(seq)).unwrap();
        recorder.result(&tilted(seq)).unwrap();
    }
    let summary = recorder.finish().unwrap();
    assert_eq!(summary, RecordSummary { measurements: 1, frames: 2, results: 2, orphan_results: 0 });
    let reader = ResultReader::open(&path).unwrap();
    for seq in 0..2 {
        let expected = RecordedResult { measurement: 0, frame: seq as usize, message: tilted(seq) };
        assert_same(&[reader.result(seq as usize).unwrap()], &[expected]);
    }
}

#[test]
fn the_file_has_the_layout_that_other_programs_rely_on() {
    let (_folder, path) = session();
    let mut recorder = recorder(&path);
    for seq in 0..3 {
        recorder.frame(&frame(seq)).unwrap();
    }
    recorder.result(&result(1)).unwrap();
    recorder.finish().unwrap();
    let file = hdf5::File::open(&path).unwrap();
    for (channel, name) in
        [(0, "HAADF"), (1, "p_x"), (8, "ood_p_value"), (9, "ood_flag"), (13, "mistilt_state")]
    {
        let main = file.dataset(&format!("Measurement_000/Channel_{channel:03}/{name}/{name}")).unwrap();
        for attribute in
            ["quantity", "units", "main_data_name", "pyNSID_version", "data_type", "modality", "source"]
        {
            assert!(read_text(&main, attribute).is_some_and(|text| !text.is_empty()), "{name}@{attribute}");
        }
        assert_eq!(read_text(&main, "data_type").unwrap(), "IMAGE_STACK");
        assert_eq!(main.shape()[0], 3);
    }
    let p_x = file.dataset("Measurement_000/Channel_001/p_x/p_x").unwrap().read_raw::<f32>().unwrap();
    assert!(p_x[..6].iter().chain(&p_x[12..]).all(|value| value.is_nan()), "{p_x:?}");
    assert_eq!(p_x[6..12], [1000.0, 1001.0, 1010.0, 1011.0, 1020.0, 1021.0]);
    let read = |name: &str| file.dataset(name).unwrap().read_raw::<f64>().unwrap();
    assert_eq!(read("Measurement_000/grid/row"), [1.5, 2.5, 3.5]);
    assert_eq!(read("Measurement_000/grid/col"), [1.0, 3.0]);
    assert_eq!(read("Measurement_000/Channel_000/HAADF/time"), [0.0, 0.04, 0.08]);
    // Window centres in nm.
    assert_eq!(read("Measurement_000/Channel_001/p_x/x"), [1.0 * 15.2 / 1000.0, 3.0 * 15.2 / 1000.0]);
    let metadata = file.group("metadata").unwrap();
    assert_eq!(read_text(&metadata, "dcnn_sha256").unwrap(), "ab".repeat(32));
    let config = metadata.dataset("config_toml").unwrap().read_scalar::<VarLenUnicode>().unwrap();
    assert_eq!(config.as_str(), header().config_toml);
    let columns = file.dataset("Measurement_000/columns").unwrap();
    let hdf5::types::TypeDescriptor::Compound(columns) = columns.dtype().unwrap().to_descriptor().unwrap()
    else {
        panic!("columns are no table")
    };
    let fields: Vec<&str> = columns.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(fields, ["frame", "row", "col", "class", "confidence"]);
    // The type that the template lent is gone.
    assert_eq!(file.attr_names().unwrap(), ["NX_class", "default", "format", "format_version"]);
}

#[test]
fn another_measurement_begins_when_shape_type_calibration_acquisition_or_grid_change() {
    let (_folder, path) = session();
    let mut recorder = recorder(&path);
    let other_grid = GridSpec { step_row: 0.5, ..WINDOWS };
    let mut seq = 0;
    let mut record = |change: &dyn Fn(&mut crate::frame::Frame), grid: GridSpec| {
        let mut frame = frame(seq);
        change(&mut frame);
        recorder.frame(&frame).unwrap();
        let result = ResultMessage { acquisition: frame.acquisition.clone(), ..result_on(seq, grid) };
        recorder.result(&result).unwrap();
        seq += 1;
    };
    record(&|_| {}, WINDOWS);
    record(&|_| {}, WINDOWS);
    record(&|_| {}, other_grid);
    record(&|frame| frame.raw = Arc::new(counts(3, [7, 5])), other_grid);
    let floats = PixelArray::from_f32(SHAPE, &[0.0; 30]).unwrap();
    record(&|frame| frame.raw = Arc::new(floats.clone()), other_grid);
    record(&|_| {}, other_grid);
    record(&|frame| frame.acquisition = "run 2".to_owned(), other_grid);
    let last = |frame: &mut crate::frame::Frame| {
        frame.acquisition = "run 2".to_owned();
        frame.scan.pixel_size_pm = None;
    };
    record(&last, other_grid);
    let summary = recorder.finish().unwrap();
    assert_eq!((summary.measurements, summary.frames, summary.results), (7, 8, 8));
    let seqs: Vec<u64> = frames(&path).iter().map(|frame| frame.message.seq).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 4, 5, 6, 7]);
    let reader = ResultReader::open(&path).unwrap();
    let places: Vec<_> = (0..8)
        .map(|index| reader.result(index).unwrap())
        .map(|result| (result.measurement, result.frame))
        .collect();
    assert_eq!(places, [(0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)]);
    assert_eq!(reader.result(2).unwrap().message.grid, other_grid);
}

#[test]
fn detectors_read_out_side_by_side_go_to_two_measurements_and_come_back_in_order() {
    let (_folder, path) = session();
    let mut recorder = recorder(&path);
    for seq in 0..20 {
        let mut frame = frame(seq);
        frame.channel = if seq % 2 == 0 { "HAADF" } else { "x" }.to_owned();
        recorder.frame(&frame).unwrap();
    }
    assert_eq!(recorder.finish().unwrap().measurements, 2);
    for (seq, frame) in (0..).zip(frames(&path)) {
        assert_eq!(frame.message.seq, seq);
        assert_eq!(frame.message.channel.as_deref(), Some(if seq % 2 == 0 { "HAADF" } else { "x" }));
        assert_eq!(frame.message.data, counts(seq, SHAPE));
    }
}

#[test]
fn a_result_may_come_after_a_flush_but_not_without_its_frame() {
    let (_folder, path) = session();
    let mut recorder = recorder(&path);
    recorder.frame(&frame(0)).unwrap();
    recorder.flush().unwrap();
    assert_eq!(recorder.summary().frames, 0, "it waits for its result");
    recorder.flush().unwrap();
    assert_eq!(recorder.summary().frames, 1);
    recorder.result(&result(0)).unwrap();
    recorder.result(&result(0)).unwrap();
    recorder.result(&result(77)).unwrap();
    let summary = recorder.finish().unwrap();
    assert_eq!((summary.results, summary.orphan_results), (1, 2));
}

#[derive(hdf5::H5Type, Clone, Copy)]
#[repr(C)]
struct OrderOnly {
    order: u64,
}

#[test]
fn sessions_with_other_tables_or_of_a_later_version_are_refused() {
    let (_folder, path) = session();
    let mut recorder = recorder(&path);
    recorder.frame(&frame(0)).unwrap();
    recorder.result(&result(0)).unwrap();
    recorder.finish().unwrap();
    let refusal = |path: &std::path::Path| open(path, &OpenOptions::default()).err().unwrap().to_string();
    let file = hdf5::File::open_rw(&path).unwrap();
    let measurement = file.group("Measurement_000").unwrap();
    for table in ["frames", "results"] {
        measurement.unlink(table).unwrap();
        measurement.new_dataset::<OrderOnly>().shape([1]).create(table).unwrap();
    }
    drop((file, measurement));
    let refused = refusal(&path);
    assert!(refused.contains("Measurement_000/frames: expected a field seq"), "{refused}");
    let error = ResultReader::open(&path).err().unwrap().to_string();
    assert!(error.contains("expected a field frame (uint32), found none"), "{error}");
    let file = hdf5::File::open_rw(&path).unwrap();
    file.attr("format_version").unwrap().write_scalar(&2_u32).unwrap();
    drop(file);
    assert!(refusal(&path).contains("found version 2"));
}

#[test]
fn a_file_is_never_overwritten() {
    let (folder, path) = session();
    std::fs::write(&path, "precious").unwrap();
    let error = Recorder::create(&path, &RecordSettings::default(), &header()).err().unwrap();
    assert!(matches!(&error, SessionError::Exists { path: at } if *at == path), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let template = folder.path().join("s_{n}.h5");
    let names = [0, 1].map(|_| recorder(&template).path().file_name().unwrap().to_owned());
    assert_eq!(names, ["s_000.h5", "s_001.h5"]);
    let nowhere = folder.path().join("missing/s.h5");
    let error = Recorder::create(&nowhere, &RecordSettings::default(), &header()).err().unwrap();
    assert!(error.to_string().contains("missing/s.h5"), "{error}");
}

#[test]
fn settings_outside_their_range_are_named() {
    let wrong = [
        (RecordSettings { compression_level: 10, ..RecordSettings::default() }, "record.compression_level"),
        (RecordSettings { flush_interval_ms: 0, ..RecordSettings::default() }, "record.flush_interval_ms"),
        (RecordSettings { queue_items: 0, ..RecordSettings::default() }, "record.queue_items"),
    ];
    for (settings, key) in wrong {
        assert_eq!(settings.validate("record").unwrap_err().key, key);
    }
    assert_eq!(RecordSettings::default().validate("record"), Ok(()));
}

#[test]
fn every_compression_setting_writes_the_same_values() {
    for (compression_level, shuffle) in [(0, false), (1, false), (9, true)] {
        let (_folder, path) = session();
        let settings = RecordSettings { compression_level, shuffle, ..RecordSettings::default() };
        let mut recorder = Recorder::create(&path, &settings, &header()).unwrap();
        recorder.frame(&frame(3)).unwrap();
        recorder.finish().unwrap();
        assert_eq!(frames(&path)[0].message.data, counts(3, SHAPE));
    }
}

/// A recorder thread that is stuck in its problem callback until `release` is used.
#[test]
fn a_full_queue_drops_what_comes_and_counts_it() {
    let (_folder, path) = session();
    let settings = RecordSettings { queue_items: 2, ..RecordSettings::default() };
    let recorder = Recorder::create(&path, &settings, &header()).unwrap();
    let (entered, in_callback) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    let thread = RecorderThread::start(recorder, &settings, move |problem| {
        entered.send(problem).unwrap();
        released.recv().unwrap();
    })
    .unwrap();
    let no_pixels = PixelArray::new(Dtype::U8, ByteOrder::Little, [0, 4], bytes::Bytes::new()).unwrap();
    assert!(thread.submit(RecordItem::Frame(Arc::new(frame_of(0, no_pixels)))));
    let problem = in_callback.recv().unwrap();
    assert!(problem.message.contains("at least one pixel") && !problem.stopped, "{problem:?}");
    let taken: Vec<bool> = (1..6).map(|seq| thread.submit(RecordItem::Frame(Arc::new(frame(seq))))).collect();
    assert_eq!(taken, [true, true, false, false, false]);
    assert!(!thread.submit(RecordItem::Result(Arc::new(result(5)))));
    assert_eq!(thread.queued(), 2);
    release.send(()).unwrap();
    let counts = thread.finish();
    assert_eq!((counts.frames_dropped, counts.others_dropped, counts.write_errors), (3, 1, 1));
    assert_eq!(counts.written.frames, 2);
    let seqs: Vec<u64> = frames(&path).iter().map(|frame| frame.message.seq).collect();
    assert_eq!(seqs, [1, 2]);
}

#[test]
fn a_blocking_queue_keeps_everything() {
    let (_folder, path) = session();
    let settings = RecordSettings { queue_items: 1, when_full: WhenFull::Block, ..RecordSettings::default() };
    let recorder = Recorder::create(&path, &settings, &header()).unwrap();
    let thread = RecorderThread::start(recorder, &settings, |problem| panic!("{problem:?}")).unwrap();
    for seq in 0..30 {
        assert!(thread.submit(RecordItem::Frame(Arc::new(frame(seq)))));
        assert!(thread.submit(RecordItem::Result(Arc::new(result(seq)))));
    }
    let verdict = "done".to_owned();
    assert!(thread.submit(RecordItem::Ack { candidate_id: 1, verdict, t_ns: 2 }));
    let counts = thread.finish();
    assert_eq!((counts.written.frames, counts.written.results, counts.write_errors), (30, 30, 0));
    assert_eq!(frames(&path).len(), 30);
}

/// Writes the session that `tests/python/test_sessions.py` opens with h5py and pyNSID to `FERROSTEM_SESSION`. The two
/// are separate steps: a child process would keep the other tests' files open, and locked.
#[test]
fn a_session_is_written_for_other_readers() {
    let Ok(path) = std::env::var("FERROSTEM_SESSION") else {
        eprintln!("skipped: FERROSTEM_SESSION is not set");
        return;
    };
    let path = PathBuf::from(path);
    if path.exists() {
        std::fs::remove_file(&path).unwrap();
    }
    let mut recorder = recorder(&path);
    for seq in 0..3 {
        recorder.frame(&frame(seq)).unwrap();
        if seq != 1 {
            recorder.result(&result(seq)).unwrap();
        }
    }
    recorder.ack(7, "accepted", 11).unwrap();
    assert_eq!(recorder.finish().unwrap().results, 2);
}
