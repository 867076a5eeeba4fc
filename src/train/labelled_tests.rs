use super::*;
use crate::session::{LabelWriter, RecordSettings, Recorder, SessionHeader};
use crate::simulate::{Microscope, Polarization, SimulatedFrame, Specimen, render};
use ferrostem_proto::{FrameMessage, PixelArray};
use rand::SeedableRng as _;

/// `frames` frames of a polar crystal, 15 pm a pixel, recorded at `path` as the daemon records them.
pub(in crate::train) fn session(path: &Path, frames: u64, side: usize) -> LabelSource {
    let specimen = Specimen {
        rotation_rad: 0.1,
        polarization: Polarization::Uniform { p_pm: [20.0, -12.0] },
        ..Specimen::default()
    };
    let microscope = Microscope { shape: [side; 2], pixel_size_pm: 15.0, ..Microscope::default() };
    let mut recorder = Recorder::create(path, &RecordSettings::default(), &SessionHeader::default()).unwrap();
    for seq in 0..frames {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seq);
        let SimulatedFrame { pixels, .. } = render(&specimen, &microscope, &mut rng).unwrap();
        let pixels: Vec<f32> = pixels.iter().copied().collect();
        let message = FrameMessage {
            pixel_size_pm: Some([15.0, 15.0]),
            ..FrameMessage::new(seq, PixelArray::from_f32([side; 2], &pixels).unwrap())
        };
        let frame = crate::ingest::validate::validate(message, &SourceSettings::default(), "test", 1 + seq);
        recorder.frame(&frame.unwrap()).unwrap();
    }
    recorder.finish().unwrap();
    LabelSource {
        path: path.to_owned(),
        frames: None,
        options: OpenOptions::default(),
        pixel_size_pm: None,
        material: None,
    }
}

/// The label file `name` of a session, beside it, as `ferrostem label` writes it.
pub(in crate::train) fn label_file(session: &LabelSource, name: &str) -> LabelSource {
    let path = session.path.with_file_name(name);
    let mut writer = LabelWriter::create(&path, &session.path.display().to_string(), "").unwrap();
    let mut reader = open(&session.path, &session.options).unwrap();
    for index in 0..reader.len() {
        let frame = reader.frame(index).unwrap().into_frame(&SourceSettings::default(), None, 0).unwrap();
        let (valid, calibration) = calibrate_frame(&frame, None).unwrap();
        let settings = LabelSettings::default();
        let labels = label_frame(&frame.pixels, &valid, calibration.pixel_size_pm, None, &settings);
        writer.add(index as u64, &labels.unwrap()).unwrap();
    }
    LabelSource { path, ..session.clone() }
}

#[test]
fn a_session_is_labelled_at_the_models_scale() {
    let folder = tempfile::tempdir().unwrap();
    let source = session(&folder.path().join("session.h5"), 2, 150);
    let source = LabelSource { frames: Some(0..1), ..source };
    let labelled = Labelled::read(&source, 15.0, 96).unwrap();
    assert_eq!(labelled.description(), "frames 0:1 of session.h5");
    let ([learned], [held_back]) = (&labelled.training[..], labelled.judged()) else {
        panic!("one frame each");
    };
    for sample in [learned, held_back] {
        assert_eq!(sample.pixels.dim(), (150, 150));
        assert!(sample.cells.len() > 8 && sample.columns.len() > 30, "{}", sample.cells.len());
        let p_x = sample.cells.iter().map(|known| known.cell.p_x).sum::<f64>() / sample.cells.len() as f64;
        assert!((p_x - 20.0).abs() < 5.0, "{p_x}");
    }
    let error = Labelled::read(&source, 15.0, 160).unwrap_err().to_string();
    assert!(error.contains("150 x 150") && error.contains("at least 160"), "{error}");
}

#[test]
fn a_label_file_says_what_labelling_its_session_says() {
    let folder = tempfile::tempdir().unwrap();
    let source = session(&folder.path().join("session.h5"), 1, 150);
    let measured = Labelled::read(&source, 15.0, 96).unwrap();
    let read = Labelled::read(&label_file(&source, "labels.h5"), 15.0, 96).unwrap();
    assert_eq!(read.description(), "all frames of labels.h5");
    let ([measured], [read]) = (&measured.training[..], &read.training[..]) else { panic!("one frame each") };
    assert_eq!(measured.pixels, read.pixels);
    let places = |sample: &Sample| -> Vec<_> {
        sample.columns.iter().map(|column| (column.row, column.col, column.sublattice())).collect()
    };
    assert_eq!(places(measured), places(read));
    assert_eq!(measured.cells, read.cells);
}

/// Of five frames, one is learned from.
#[test]
fn early_stopping_takes_every_second_of_the_frames_held_back() {
    let folder = tempfile::tempdir().unwrap();
    let source = label_file(&session(&folder.path().join("session.h5"), 5, 150), "labels.h5");
    let schedule = Schedule { crop_px: 64, ..Schedule::default() };
    let stopping = Schedule { stop_check_every: 10, ..schedule.clone() };
    let of = |frames: Range<usize>, schedule: &Schedule| {
        Labelled::to_train(&LabelSource { frames: Some(frames), ..source.clone() }, 15.0, schedule)
    };
    let all = of(0..1, &schedule).unwrap();
    assert!(all.stopping(64).is_empty());
    let parts = of(0..1, &stopping).unwrap();
    let pixels = |frames: &[Sample]| frames.iter().map(|frame| frame.pixels.clone()).collect::<Vec<_>>();
    let all = pixels(all.judged());
    let [one, two, three, four] = &all[..] else { panic!("four frames held back") };
    assert_eq!(pixels(parts.judged()), [one.clone(), three.clone()]);
    assert_eq!(pixels(&parts.stopping), [two.clone(), four.clone()]);
    // Two squares of 64 px along each side of 150.
    assert_eq!(parts.stopping(64).len(), 8);
    assert!(of(0..5, &stopping).unwrap().stopping(64).is_empty());
    let error = of(0..4, &stopping).unwrap_err().to_string();
    assert!(error.contains("one frame is held back"), "{error}");
}
