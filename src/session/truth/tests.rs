use super::mask::defect_mask;
use super::*;
use crate::frame::Sublattice;
use crate::simulate::{DefectKind, Scene, TruthColumn, TruthDefect, render};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn header(shape: [usize; 2]) -> TruthHeader {
    TruthHeader {
        scene_toml: "material = \"bifeo3\"\n".to_owned(),
        session: "session.h5".to_owned(),
        acquisition: "test".to_owned(),
        created_ns: 5,
        shape,
        pixel_size_pm: 15.0,
    }
}

fn scan(seq: u64) -> TruthScan {
    TruthScan {
        seq,
        t_start_ns: 1_000_000_000 * (7 + seq),
        t_end_ns: 1_000_000_000 * (7 + seq) + 40,
        pixel_size_pm: 15.0,
        rotation_rad: 0.25,
        center_nm: [1.0, 2.0],
        drift_nm: [0.125, -0.5],
        drift_pm: [3.0, -4.0],
        tilt_offset_pm: [5.0, 6.0],
    }
}

#[test]
fn the_truth_of_every_frame_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session_truth.h5");
    let mut scene = Scene::built_in("bifeo3").unwrap();
    scene.microscope.shape = [160, 128];
    let mut writer = TruthWriter::create(&path, &header([160, 128])).unwrap();
    let frames: Vec<FrameTruth> = (0..3)
        .map(|seq| {
            // From a vacancy on.
            scene.microscope.center_nm = [1.6 + seq as f64 * 4.0, -1.9];
            let mut rng = ChaCha8Rng::seed_from_u64(seq);
            let truth = render(&scene.specimen, &scene.microscope, &mut rng).unwrap().truth;
            FrameTruth { scan: scan(seq), truth }
        })
        // A frame of vacuum has nothing.
        .chain([FrameTruth { scan: scan(9), truth: Truth::default() }])
        .collect();
    for frame in &frames {
        writer.frame(frame).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 4);

    let reader = TruthReader::open(&path).unwrap();
    assert_eq!(reader.len(), 4);
    assert_eq!(reader.scene_toml().unwrap(), "material = \"bifeo3\"\n");
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(reader.frame(index).unwrap(), *frame);
        assert_eq!(reader.defect_mask(index).unwrap(), defect_mask(&frame.truth, [160, 128]));
    }
    assert!(frames[..3].iter().any(|frame| !frame.truth.defects.is_empty()), "nothing was tested");
    assert!(frames[0].truth.cells.len() > 20 && frames[0].truth.columns.len() > 40);
    assert!(matches!(
        reader.frame(4),
        Err(crate::session::SessionError::NoSuchFrame { index: 4, len: 4, .. })
    ));
    let again = TruthWriter::create(&path, &header([160, 128])).map(drop).unwrap_err().to_string();
    assert!(again.contains("exists"), "{again}");
}

#[test]
fn a_mask_labels_the_pixels_of_each_defect() {
    let defect = |kind, row, col, radius_px| TruthDefect { kind, row, col, radius_px };
    let truth = Truth {
        defects: vec![
            defect(DefectKind::SubstitutionA, 2.0, 2.0, 1.0),
            defect(DefectKind::Amorphous, 2.0, 2.0, 2.5),
            defect(DefectKind::Amorphous, -3.0, 6.0, 3.0),
            defect(DefectKind::Amorphous, f64::NAN, 6.0, 3.0),
        ],
        columns: vec![TruthColumn { row: 0.0, col: 0.0, sublattice: Sublattice::A, intensity: 1.0 }],
        ..Truth::default()
    };
    let mask = defect_mask(&truth, [5, 8]);
    let expected = [
        [0, 2, 2, 2, 0, 0, 3, 0],
        [2, 2, 1, 2, 2, 0, 0, 0],
        [2, 1, 1, 1, 2, 0, 0, 0],
        [2, 2, 1, 2, 2, 0, 0, 0],
        [0, 2, 2, 2, 0, 0, 0, 0],
    ];
    assert_eq!(mask, ndarray::arr2(&expected));
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
