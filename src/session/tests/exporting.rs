use super::support::{SHAPE, frame, recorder, result};
use crate::session::export::{ExportFormat, Written, export};
use crate::session::h5::read_text;
use crate::session::{OpenOptions, SessionError};
use std::path::{Path, PathBuf};

/// Three frames of 6 x 5 px in one measurement, results for the first and the last; one frame in another.
fn session(folder: &Path) -> PathBuf {
    let path = folder.join("session.h5");
    let mut recorder = recorder(&path);
    for seq in 0..3 {
        recorder.frame(&frame(seq)).unwrap();
        if seq != 1 {
            recorder.result(&result(seq)).unwrap();
        }
    }
    let mut single = frame(9);
    single.acquisition = "run 2".to_owned();
    recorder.frame(&single).unwrap();
    recorder.ack(7, "accepted", 11).unwrap();
    recorder.finish().unwrap();
    path
}

fn written(format: ExportFormat, input: &Path, out: &Path) -> Result<Vec<Written>, SessionError> {
    export(input, &OpenOptions::default(), format, out, &mut |_, _| {})
}

#[test]
fn hyperspy_files_have_axes_values_and_no_value_where_there_was_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let input = session(folder.path());
    let out = folder.path().join("out.hspy");
    let items = written(ExportFormat::Hspy, &input, &out).unwrap();
    // Frames, 9 window maps and 4 tile maps of the first; frames of the second.
    assert_eq!(items.len(), 15);
    let file = hdf5::File::open(&out).unwrap();
    let counts = file.dataset("Experiments/Measurement_000 HAADF (counts)/data").unwrap();
    assert_eq!(counts.shape(), [3, 6, 5]);
    let values = counts.read_raw::<u16>().unwrap();
    assert_eq!((values[0], values[1], values[5], values[30]), (0, 1, 10, 1000));
    let axis = file.group("Experiments/Measurement_000 p_x (pm)/axis-2").unwrap();
    assert_eq!(
        (read_text(&axis, "name").unwrap(), read_text(&axis, "units").unwrap()),
        ("x".into(), "nm".into())
    );
    let number = |name: &str| axis.attr(name).unwrap().read_scalar::<f64>().unwrap();
    assert!((number("offset") - 0.0152).abs() < 1e-12 && (number("scale") - 0.0304).abs() < 1e-12);
    let p_x = file.dataset("Experiments/Measurement_000 p_x (pm)/data").unwrap().read_raw::<f32>().unwrap();
    assert_eq!(p_x[..3], [0.0, 1.0, 10.0]);
    assert!(p_x[6..12].iter().all(|value| value.is_nan()));
    assert_eq!(p_x[12], 2000.0);
    let single = file.dataset("Experiments/Measurement_001 HAADF (counts)/data").unwrap();
    assert_eq!(single.shape(), SHAPE);
}

#[test]
fn emd_data_are_stored_the_other_way_round() {
    let folder = tempfile::tempdir().unwrap();
    let input = session(folder.path());
    let out = folder.path().join("out.emd");
    written(ExportFormat::Emd, &input, &out).unwrap();
    let file = hdf5::File::open(&out).unwrap();
    let data = file.dataset("data/Measurement_000 HAADF (counts)/data").unwrap();
    assert_eq!(data.shape(), [5, 6, 3]);
    // x = 3, y = 2, frame 1.
    assert_eq!(data.read_raw::<u16>().unwrap()[(3 * 6 + 2) * 3 + 1], 1023);
}

#[test]
fn nothing_is_overwritten_and_nothing_half_done_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let input = session(folder.path());
    let out = folder.path().join("out.nxs");
    std::fs::write(&out, "precious").unwrap();
    for format in [ExportFormat::Hspy, ExportFormat::Emd, ExportFormat::Nexus] {
        let error = written(format, &input, &out).unwrap_err();
        assert!(matches!(error, SessionError::Exists { .. }), "{error}");
    }
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    let tables = folder.path().join("tables");
    written(ExportFormat::Csv, &input, &tables).unwrap();
    let error = written(ExportFormat::Csv, &input, &tables).unwrap_err();
    assert!(matches!(error, SessionError::Exists { .. }), "{error}");
}

#[test]
fn any_file_of_frames_is_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("stack.npy"), folder.path().join("out.nxs"));
    let stack = ndarray::Array3::from_shape_fn((2, 3, 4), |(n, row, col)| (100 * n + 10 * row + col) as f32);
    ndarray_npy::write_npy(&input, &stack).unwrap();
    let items = written(ExportFormat::Nexus, &input, &out).unwrap();
    assert_eq!(items, [Written { name: "/Measurement_000/frames/data".to_owned(), shape: vec![2, 3, 4] }]);
    let values = hdf5::File::open(&out).unwrap().dataset("Measurement_000/frames/data").unwrap();
    assert_eq!(values.read_raw::<f32>().unwrap(), stack.iter().copied().collect::<Vec<f32>>());
    assert!(written(ExportFormat::Csv, &input, &folder.path().join("t")).is_err());
}

#[test]
fn tables_have_all_coordinates_with_their_units() {
    let folder = tempfile::tempdir().unwrap();
    let input = session(folder.path());
    let out = folder.path().join("tables");
    let items = written(ExportFormat::Csv, &input, &out).unwrap();
    let rows: Vec<usize> = items.iter().map(|item| item.shape[0]).collect();
    // Two results with two candidates each, and with one and three columns.
    assert_eq!(rows, [4, 4, 1, 0]);
    let mut reader = csv::Reader::from_path(out.join("candidates.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let row = reader.records().nth(2).unwrap().unwrap();
    let field = |name: &str| &row[header.iter().position(|field| field == name).unwrap()];
    for (name, value) in [
        ("measurement", "Measurement_000"),
        ("frame_seq", "2"),
        ("kind", "ood"),
        ("row_px", "1.5"),
        ("col_px", "2.5"),
        ("y_fraction", "0.3"),
        ("x_fraction", "0.6"),
        ("x_nm", "1"),
        ("y_nm", "-1"),
        ("rotation_rad", "0.25"),
        ("p_value", "NaN"),
        ("reason", "a reason with µ and \"quotes\""),
    ] {
        assert_eq!(field(name), value, "{name}");
    }
}

/// The third of the tables cannot get its name.
#[test]
fn a_failed_export_leaves_no_part_of_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let input = session(folder.path());
    let out = folder.path().join("tables");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("acks.csv"), "mine").unwrap();
    let error = written(ExportFormat::Csv, &input, &out).unwrap_err().to_string();
    assert!(error.contains("acks.csv exists already"), "{error}");
    let left: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["acks.csv"]);
    assert_eq!(std::fs::read_to_string(out.join("acks.csv")).unwrap(), "mine");
}

/// Writes what `tests/python/test_exports.py` opens with other programs' readers into the folder `FERROSTEM_EXPORTS`.
#[test]
fn exports_are_written_for_other_readers() {
    let Ok(folder) = std::env::var("FERROSTEM_EXPORTS") else {
        eprintln!("skipped: FERROSTEM_EXPORTS is not set");
        return;
    };
    let folder = PathBuf::from(folder);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let input = session(&folder);
    written(ExportFormat::Hspy, &input, &folder.join("session.hspy")).unwrap();
    written(ExportFormat::Emd, &input, &folder.join("session.emd")).unwrap();
    written(ExportFormat::Nexus, &input, &folder.join("session.nxs")).unwrap();
    written(ExportFormat::Csv, &input, &folder.join("tables")).unwrap();
}
