use super::*;
use crate::simulate::ColumnClass;
use crate::train::Schedule;
use crate::train::labelled::tests::{label_file, session};
use crate::train::runner::tests::straight_and_resumed;

#[test]
fn columns_are_matched_by_sublattice_and_distance() {
    let task = FcnnTask::new(FcnnTrainSettings::default());
    let truth = |row, col, class| TruthColumn { row, col, class, intensity: 1.0 };
    let column = |row, col, sublattice| Column { row, col, sublattice, confidence: 1.0 };
    let truths = [
        truth(30.0, 30.0, ColumnClass::A),
        truth(30.0, 60.0, ColumnClass::B),
        truth(60.0, 60.0, ColumnClass::A),
        // Not the networks' to find.
        truth(45.0, 60.0, ColumnClass::Oxygen),
        // In the edge band: not judged.
        truth(2.0, 60.0, ColumnClass::A),
    ];
    let columns = [
        column(30.0, 32.0, Sublattice::A),
        // The right place, the wrong sublattice.
        column(30.0, 60.0, Sublattice::A),
        column(60.0, 60.0, Sublattice::A),
    ];
    let judged = task.matched(&truths, &columns, 128);
    assert_eq!((judged.truths, judged.found, judged.predicted, judged.spurious), (3, 2, 3, 1));
    assert!((judged.squares_pm2 - 900.0).abs() < 1e-9);
}

#[test]
fn discs_mark_both_sublattices() {
    let task = FcnnTask::new(FcnnTrainSettings::default());
    let batch = task.batch(0).unwrap();
    for classes in &batch.classes {
        let share = |class: u8| classes.iter().filter(|&&c| c == class).count() as f64 / classes.len() as f64;
        // A disc of 70 pm in a cell of 400 pm: about a tenth for each sublattice.
        assert!((0.05..0.15).contains(&share(0)), "{}", share(0));
        assert!((0.05..0.15).contains(&share(1)), "{}", share(1));
    }
}

#[test]
fn an_interrupted_run_resumes_exactly() {
    let mut settings = FcnnTrainSettings { filters: 4, ..FcnnTrainSettings::default() };
    settings.schedule =
        Schedule { steps: 4, batch: 1, crop_px: 64, checkpoint_every: 2, ..settings.schedule };
    let task = FcnnTask::new(settings);
    let device = Device::flex();
    device.seed(3);
    let start = task.config().init(&device);
    let ends = straight_and_resumed(&task, &start, &task.settings.schedule, 3);
    let weights = |network: &Fcnn| crate::networks::weights_bytes(Path::new("test"), network).unwrap();
    let [straight, resumed, again] = ends.each_ref().map(|end| weights(&end.network));
    assert_eq!(straight, resumed);
    assert_eq!(straight, again);
    assert_ne!(straight, weights(&start));
}

#[test]
fn far_from_known_columns_nothing_is_learned_where_some_are_missing() {
    let mut task = FcnnTask::new(FcnnTrainSettings::default());
    task.settings.schedule = Schedule { batch: 1, crop_px: 96, ..Schedule::default() };
    let mut sample = task.sample(Split::Training { step: 0, index: 0 }).unwrap();
    assert!(!task.classes(&sample).iter().any(|&class| class == UNKNOWN));
    sample.complete = false;
    sample.columns.truncate(1);
    let column = &mut sample.columns[0];
    (column.row, column.col, column.class) = (40.0, 50.0, ColumnClass::A);
    let classes = task.classes(&sample);
    // 70 and 190 pm are 4.7 and 12.7 px.
    let along = |cols: [usize; 5]| cols.map(|col| classes[[40, col]]);
    assert_eq!(along([50, 54, 55, 62, 63]), [1, 1, 2, 2, UNKNOWN]);
    // What the network says of those pixels does not count.
    let device = Device::flex();
    device.seed(1);
    let network = FcnnConfig { filters: 4, classes: CLASSES }.init(&device);
    let image = normalised(&sample, task.settings.normalisation);
    let loss = |classes: &Array2<u8>| {
        let batch = FcnnBatch { images: vec![image.clone()], classes: vec![classes.clone()] };
        task.loss(&network, &batch, &device).into_scalar::<f32>()
    };
    let all = classes.mapv(|class| if class == UNKNOWN { 0 } else { class });
    for classes in [classes, all] {
        let whole = loss(&classes);
        let (mut sum, mut count) = (0.0, 0.0);
        for class in 0..CLASSES as u8 {
            let one = classes.mapv(|c| if c == class { c } else { UNKNOWN });
            let pixels = one.iter().filter(|&&c| c != UNKNOWN).count() as f32;
            (sum, count) = (sum + pixels * loss(&one), count + pixels);
        }
        assert!((whole - sum / count).abs() < 1e-4 * whole, "{whole} {}", sum / count);
    }
    assert_eq!(loss(&Array2::from_elem(image.dim(), UNKNOWN)), 0.0);
}

#[test]
fn a_network_learns_from_a_label_file_and_is_judged_on_the_frames_held_back() {
    let folder = tempfile::tempdir().unwrap();
    let settings = FcnnTrainSettings {
        filters: 4,
        labelled_fraction: 1.0,
        schedule: Schedule {
            steps: 2,
            batch: 2,
            crop_px: 64,
            held_out_frames: 2,
            stop_check_every: 1,
            ..Schedule::default()
        },
        ..FcnnTrainSettings::default()
    };
    let session = session(&folder.path().join("session.h5"), 3, 150);
    let labels = LabelSource { frames: Some(0..1), ..label_file(&session, "labels.h5") };
    let metrics = train_fcnn(settings.clone(), Some(&labels), DeviceChoice::Cpu, folder.path()).unwrap();
    for name in ["found_fraction", "held_back_found_fraction", "held_back_spurious_fraction"] {
        assert!((0.0..=1.0).contains(&metrics[name]), "{metrics:?}");
    }
    let model = crate::networks::Manifest::read(&folder.path().join(&settings.name)).unwrap();
    assert!(model.training.data.contains("frames 0:1 of labels.h5"), "{}", model.training.data);
    assert!((1..=2).contains(&model.training.steps));
    let error = train_fcnn(settings, None, DeviceChoice::Cpu, folder.path()).unwrap_err().to_string();
    assert!(error.contains("labelled_frames"), "{error}");
}
