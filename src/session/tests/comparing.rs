use super::support::{frame, header, recorder, result};
use crate::session::compare::{Comparison, Tolerances, compare};
use crate::session::{RecordSettings, Recorder, SessionHeader};
use ferrostem_proto::{Grid, ResultMessage};
use std::path::Path;

/// A session of frames 0 to 2, with what `change` makes of each result; `None` leaves it out.
fn session(path: &Path, change: &dyn Fn(&mut ResultMessage) -> bool) {
    let mut recorder = recorder(path);
    for seq in 0..3 {
        recorder.frame(&frame(seq)).unwrap();
        let mut result = result(seq);
        if change(&mut result) {
            recorder.result(&result).unwrap();
        }
    }
    recorder.finish().unwrap();
}

fn compared(change: &dyn Fn(&mut ResultMessage) -> bool, tolerances: &Tolerances) -> Comparison {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.h5"), folder.path().join("b.h5"));
    session(&a, &|_| true);
    session(&b, change);
    compare(&a, &b, tolerances, &mut |_, _| {}).unwrap()
}

fn with(grid: &Grid<f32>, at: usize, value: f32) -> Grid<f32> {
    let [rows, cols] = grid.shape();
    let mut values = grid.values().to_vec();
    values[at] = value;
    Grid::new(rows, cols, values).unwrap()
}

#[test]
fn sessions_that_differ_in_their_times_only_are_the_same() {
    let later = |result: &mut ResultMessage| {
        result.timing.t_published_ns += 5;
        result.timing.t_received_ns += 4;
        result.counters.received += 9;
        result.candidates[0].valid_until_ns += 1;
        true
    };
    let found = compared(&later, &Tolerances::default());
    assert!(found.same, "{found:?}");
    assert_eq!((found.frames.both, found.results.both), (3, 3));
    assert_eq!((found.columns.matched, found.candidates.matched), (1 + 2 + 3, 6));
    // Six windows a frame; NaN in both is no mismatch.
    assert_eq!(found.quantities[2].name, "p_sigma");
    assert_eq!((found.quantities[2].values, found.quantities[2].nan_mismatches), (18, 0));
}

#[test]
fn the_worst_difference_is_found_and_judged_by_its_tolerance() {
    // Window (2, 1) of p_x in frame 1: 1021 and 1021.5; window (0, 1) of frame 2: 2001 and 2000.75.
    let change = |result: &mut ResultMessage| {
        match result.seq {
            1 => result.p_x = with(&result.p_x, 5, 1021.5),
            2 => result.p_x = with(&result.p_x, 1, 2000.75),
            _ => {}
        }
        true
    };
    let found = compared(&change, &Tolerances::default());
    let p_x = &found.quantities[0];
    assert_eq!((p_x.name, p_x.differing, p_x.max_abs, found.same), ("p_x", 2, 0.5, false));
    assert!((p_x.rms - ((0.25 + 0.0625) / 18.0_f64).sqrt()).abs() < 1e-12);
    let worst = p_x.worst.as_ref().unwrap();
    assert_eq!((worst.frame.seq, worst.row, worst.col, worst.a, worst.b), (1, 2, 1, 1021.0, 1021.5));
    assert!(found.quantities[1..].iter().all(|quantity| quantity.is_none() && quantity.worst.is_none()));
    let named = Tolerances { named: [("p_x".to_owned(), 0.3)].into(), ..Tolerances::default() };
    assert_eq!(compared(&change, &named).quantities[0].differing, 1);
    assert!(compared(&change, &Tolerances { every: 0.5, ..Tolerances::default() }).same);
}

#[test]
fn nan_in_one_only_is_a_difference_whatever_the_tolerance() {
    let change = |result: &mut ResultMessage| {
        result.cell_a = with(&result.cell_a, 3, f32::NAN);
        true
    };
    let found = compared(&change, &Tolerances { every: 1e9, ..Tolerances::default() });
    assert_eq!((found.quantities[3].name, found.quantities[3].nan_mismatches), ("cell_a", 3));
    assert!(!found.same);
}

#[test]
fn columns_and_candidates_are_matched_by_where_they_are() {
    let change = |result: &mut ResultMessage| {
        if result.seq == 2 {
            // Of three columns one moves by 0.25 px, one goes 5 px away, one changes its class.
            result.columns.col[0] += 0.25;
            result.columns.row[1] += 5.0;
            result.columns.class[2] ^= 1;
            result.candidates[0].id = 8;
            result.candidates[1].px.row += 3.0;
            result.candidates[1].id = 9;
        }
        true
    };
    let found = compared(&change, &Tolerances::default());
    let columns = &found.columns;
    assert_eq!((columns.matched, columns.only_a, columns.only_b), (5, 1, 1));
    assert_eq!((columns.moved, columns.class_differs, columns.max_distance_px), (1, 1, 0.25));
    assert_eq!(columns.worst.as_ref().unwrap().seq, 2);
    let candidates = &found.candidates;
    assert_eq!((candidates.matched, candidates.id_differs), (5, 1));
    assert_eq!((candidates.only_a, candidates.only_b), (1, 1));
}

#[test]
fn what_is_in_one_session_only_is_named() {
    let found = compared(&|result| result.seq != 1, &Tolerances::default());
    let seqs: Vec<u64> = found.results.only_a.iter().map(|name| name.seq).collect();
    assert_eq!((seqs, found.results.both, found.frames.both, found.same), (vec![1], 2, 3, false));
}

#[test]
fn pixels_models_and_settings_that_differ_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.h5"), folder.path().join("b.h5"));
    session(&a, &|_| true);
    let other =
        SessionHeader { config_toml: "mode = \"lossless\"\n[flags]\nalpha = 1\n".to_owned(), ..header() };
    let mut recorder = Recorder::create(&b, &RecordSettings::default(), &other).unwrap();
    for seq in [0, 1, 7] {
        // Frame 1 has the pixels of another.
        let mut received = frame(seq);
        if seq == 1 {
            received.raw = frame(4).raw;
        }
        recorder.frame(&received).unwrap();
        let mut result = result(seq);
        if let Some(dcnn) = &mut result.model.dcnn {
            dcnn.name = "dcnn-second".to_owned();
        }
        recorder.result(&result).unwrap();
    }
    recorder.finish().unwrap();
    let found = compare(&a, &b, &Tolerances::default(), &mut |_, _| {}).unwrap();
    let seqs = |names: &[crate::session::compare::FrameName]| names.iter().map(|n| n.seq).collect::<Vec<_>>();
    assert_eq!(seqs(&found.frames.only_a), [2]);
    assert_eq!(seqs(&found.frames.only_b), [7]);
    assert_eq!(seqs(&found.pixels_differ), [1]);
    let keys: Vec<&str> = found.config.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys, ["flags.alpha", "mode"]);
    assert_eq!(found.config[0].a, None);
    assert_eq!(found.models.len(), 1);
    assert!(found.models[0].b.as_ref().unwrap().starts_with("dcnn-second "));
    let refused = compare(&a, &folder.path().join("none.h5"), &Tolerances::default(), &mut |_, _| {});
    assert!(refused.is_err());
}

#[test]
fn what_is_asked_for_and_is_not_there_is_named() {
    let names = Tolerances::names();
    assert!(
        ["p_x", "ood_p_value", "mistilt_state", "columns", "candidates"].iter().all(|n| names.contains(n))
    );
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("here.h5");
    session(&here, &|_| true);
    let missing = folder.path().join("missing.h5");
    let error = compare(&here, &missing, &Tolerances::default(), &mut |_, _| {}).unwrap_err().to_string();
    assert_eq!(error, format!("{}: No such file or directory (os error 2)", missing.display()));
}
