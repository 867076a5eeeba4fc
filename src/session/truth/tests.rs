use super::*;
use crate::simulate::{Extent, Microscope, Scene, render};
use ndarray::Array2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn header(shape: [usize; 2]) -> TruthHeader {
    TruthHeader {
        scene_toml: "material = \"bifeo3\"\n".to_owned(),
        session: "session.h5".to_owned(),
        acquisition: "test".to_owned(),
        created_ns: 5,
        shape,
        pixel_size_pm: [15.0, 12.0],
        saturates: true,
    }
}

fn scan(seq: u64) -> TruthScan {
    TruthScan {
        seq,
        t_start_ns: 1_000_000_000 * (7 + seq),
        t_end_ns: 1_000_000_000 * (7 + seq) + 40,
        pixel_size_pm: [15.0, 12.0],
        rotation_rad: 0.25,
        center_nm: [1.0, 2.0],
        drift_nm: [0.125, -0.5],
        drift_pm: [3.0, -4.0],
    }
}

/// A scene with everything that truth knows of.
fn faults() -> Scene {
    let mut scene = Scene::built_in("zoo").unwrap();
    let faults = Scene::built_in("faults").unwrap();
    let shape = [160, 128];
    scene.microscope = Microscope { shape, sub_scan: None, rotation_rad: 0.25, ..faults.microscope };
    // Some of the columns.
    let well = 0.8 * scene.microscope.peak_counts;
    scene.microscope.detector.full_well_counts = Some(well);
    scene
}

#[test]
fn the_truth_of_every_frame_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session_truth.h5");
    let shape = [160, 128];
    let mut scene = faults();
    let mut writer = TruthWriter::create(&path, &header(shape)).unwrap();
    let mut frames: Vec<FrameTruth> = Vec::new();
    for (seq, center_nm) in [(0, [0.0, 0.0]), (1, [-16.0, 2.5]), (2, [-16.0, 29.5])] {
        scene.microscope.center_nm = center_nm;
        let mut rng = ChaCha8Rng::seed_from_u64(seq);
        let truth = render(&scene.specimen, &scene.microscope, &mut rng).unwrap().truth;
        frames.push(FrameTruth { scan: scan(seq), truth });
    }
    // A frame of vacuum has nothing, one of a perfect scan no lines.
    let nothing = Array2::from_elem(shape, false);
    frames.push(FrameTruth { scan: scan(9), truth: Truth { saturated: Some(nothing), ..Truth::default() } });
    for frame in &frames {
        writer.frame(frame).unwrap();
    }
    // Whole before it is finished, too: a copy, since one process cannot open a file twice in different ways.
    let copy = folder.path().join("copy_truth.h5");
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(TruthReader::open(&copy).unwrap().frame(2).unwrap(), frames[2]);
    assert_eq!(writer.finish().unwrap(), 4);

    let reader = TruthReader::open(&path).unwrap();
    assert_eq!(reader.len(), 4);
    assert_eq!(reader.scene_toml().unwrap(), "material = \"bifeo3\"\n");
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(reader.frame(index).unwrap(), *frame);
        assert_eq!(reader.defect_mask(index).unwrap(), frame.truth.numbered_mask(shape));
    }
    assert!(matches!(
        reader.frame(4),
        Err(crate::session::SessionError::NoSuchFrame { index: 4, len: 4, .. })
    ));
    let again = TruthWriter::create(&path, &header(shape)).map(drop).unwrap_err().to_string();
    assert!(again.contains("exists"), "{again}");

    // What was tested.
    let truths = || frames[..3].iter().map(|frame| &frame.truth);
    let defects = || truths().flat_map(|truth| &truth.defects);
    assert!(defects().any(|defect| defect.extent == Extent::Disc));
    assert!(defects().any(|defect| matches!(defect.extent, Extent::Area(_))));
    assert!(defects().any(|defect| matches!(defect.extent, Extent::Path(_))));
    assert!(truths().flat_map(|truth| &truth.cells).any(|cell| cell.region.is_some()));
    assert!(truths().all(|truth| truth.scan.within.is_some() && truth.scan.current.len() == 160));
    assert!(truths().any(|truth| truth.saturated.iter().flatten().any(|saturated| *saturated)));
}

#[test]
fn what_is_no_truth_file_is_refused_and_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.h5");
    hdf5::File::create(&path).unwrap();
    let refused = TruthReader::open(&path).map(drop).unwrap_err().to_string();
    assert!(refused.contains("FerroSTEM truth") && refused.contains("no format"), "{refused}");
    std::fs::write(&path, b"\x89HDF\r\n\x1a\n and nothing more").unwrap();
    assert!(TruthReader::open(&path).is_err());
    assert_eq!(truth_path(std::path::Path::new("a/run.1.h5")), std::path::Path::new("a/run.1_truth.h5"));
}
