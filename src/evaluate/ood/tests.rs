use super::*;
use crate::config::Config;
use crate::preprocess::measured_pixels;
use crate::simulate::{ColumnClass, Faults};

/// The networks that ship, on the CPU.
fn analyzer() -> Analyzer {
    let mut config = Config { device: "cpu".to_owned(), ..Config::default() };
    config.models.fcnn = "none".to_owned();
    Analyzer::new(&config).unwrap()
}

fn small() -> OodStudySettings {
    OodStudySettings {
        side_px: 224,
        frames: 2,
        usual_frames: 6,
        fitted_frames: 1,
        ..OodStudySettings::default()
    }
}

/// Training's frames at 100 counts without faults of scan, probe and detector.
fn plain() -> TrainingRanges {
    TrainingRanges {
        pixel_size_pm: [15.0; 2],
        peak_counts: [100.0; 2],
        faults: Faults::none(),
        ..TrainingRanges::default()
    }
}

#[test]
fn what_is_plainly_strange_is_told_from_what_is_usual_and_the_promise_is_kept() {
    let analyzer = analyzer();
    let settings = small();
    let statistics = analyzer.engine().feature_statistics().unwrap();
    let scenes = at_dose(&scenes(&analyzer, &settings).unwrap(), 100.0).unwrap();
    let scores = Scores::fit(statistics, &UsualWindows::default(), 1).unwrap();
    let bench = Bench { analyzer: &analyzer, settings: &settings, scores };
    let windows = |anomaly: Option<Anomaly>| {
        let frames = if anomaly.is_some() { settings.frames } else { settings.usual_frames };
        bench.windows(anomaly, &scenes, frames, &mut || {}).unwrap()
    };
    let [nothing, usual] = windows(None);
    assert!(nothing[0].is_empty() && usual[0].len() > 1000);
    // Of more frames, `benches/ood.md` has more; two frames scatter.
    let floors = [(Anomaly::VacancyA, 0.85), (Anomaly::Amorphous, 0.8), (Anomaly::Flicker, 0.8)];
    for (anomaly, floor) in floors {
        let [strange, own] = windows(Some(anomaly));
        let auroc = ranking(&strange[0], &[usual[0].as_slice(), &own[0]].concat()).auroc;
        assert!(auroc > floor, "{anomaly:?}: {auroc}");
    }
    // A tenth of the windows may have a p-value below 0.1; six frames scatter.
    let row = OodStudySettings {
        promise_frames: 6,
        promise_counts: vec![100.0],
        pixel_sizes_pm: Vec::new(),
        rotations: 0,
        ..settings
    };
    let flagged = promise(&analyzer, statistics, (&row, &scenes), || {}).unwrap().numbers("p < 0.1 (%)")[0];
    assert!(flagged < 20.0, "{flagged}");
}

#[test]
fn settings_out_of_range_are_named_and_quick_ones_are_small() {
    let key = |settings: OodStudySettings| settings.validate("").unwrap_err().key;
    let good = OodStudySettings::default;
    assert_eq!(key(OodStudySettings { frames: 0, ..good() }), "frames");
    assert_eq!(key(OodStudySettings { counts: 0.0, ..good() }), "counts");
    assert_eq!(key(OodStudySettings { pixel_sizes_pm: vec![1.0], ..good() }), "pixel_sizes_pm");
    assert!(good().quick().validate("").is_ok() && good().with_frames(2).validate("").is_ok());
    assert!(good().quick().processed() < 150, "{}", good().quick().processed());
}

#[test]
fn marks_follow_the_anomaly() {
    let scenes = TrainingRanges { pixel_size_pm: [15.0; 2], ..TrainingRanges::default() };
    let share = |anomaly, wanted: Mark| {
        let marked = marked_frame(anomaly, &scenes, 224, 3, 5).unwrap();
        let all = (0..224 * 224).map(|n| marked.mark((n / 224) as f64, (n % 224) as f64));
        all.filter(|mark| *mark == wanted).count() as f64 / (224.0 * 224.0)
    };
    assert_eq!(share(None, Mark::Usual), 1.0);
    assert_eq!(share(Some(Anomaly::LowDose), Mark::Strange), 1.0);
    // Three discs of half a cell edge, some 13 px.
    let vacancies = share(Some(Anomaly::VacancyA), Mark::Strange) * 224.0 * 224.0;
    assert!((1000.0..2200.0).contains(&vacancies), "{vacancies}");
    // 13 px on either side of one row.
    let jump = share(Some(Anomaly::LineJump), Mark::Strange);
    assert!((jump - 27.0 / 224.0).abs() < 0.01, "{jump}");
    // 2 to 6 rows of the middle 112 px, and 13 px (up and down up to 14, where pixels are not quite square) around them.
    let part = share(Some(Anomaly::SaturatedPart), Mark::Strange) * 224.0 * 224.0 / 138.0;
    assert!((27.9..34.1).contains(&part) && (part - part.round()).abs() < 1e-6, "{part}");
    let half = share(Some(Anomaly::Vacuum), Mark::Strange);
    assert!((0.2..0.8).contains(&half), "{half}");
}

#[test]
fn the_other_composition_and_the_blur_lie_outside_of_what_training_draws() {
    let ranges = plain();
    for index in 0..4 {
        let marked = marked_frame(Some(Anomaly::Composition), &ranges, 200, 9, index).unwrap();
        let a: Vec<f64> = marked
            .truth
            .columns
            .iter()
            .filter(|column| column.class == ColumnClass::A)
            .map(|column| column.intensity)
            .collect();
        let mean = a.iter().sum::<f64>() / a.len() as f64;
        // 0.9 and 0.6 of the atoms 0.27 as bright leave 0.343 and 0.562; uneven thickness adds its own. Training leaves 0.7.
        assert!((0.25..0.68).contains(&mean), "{mean}");
    }
    // Half of the squared difference of neighbouring pixels over the variance is 1 less their correlation. A blurred frame is smoother
    // than the smoothest of training.
    let smoothest = TrainingRanges { smoothing_probability: 1.0, smoothing_px: [2.0; 2], ..ranges };
    let roughness = |anomaly, index| {
        let pixels = marked_frame(anomaly, &smoothest, 200, 9, index).unwrap().frame.pixels.clone();
        let mean = pixels.mean().unwrap();
        let variance = pixels.iter().map(|v| (v - mean).powi(2)).sum::<f32>();
        let pairs = pixels.windows([1, 2]).into_iter().map(|pair| (pair[[0, 0]] - pair[[0, 1]]).powi(2));
        0.5 * pairs.sum::<f32>() / variance
    };
    for index in 0..4 {
        let (blurred, trained) = (roughness(Some(Anomaly::Blur), index), roughness(None, index));
        assert!(blurred < trained, "{blurred} {trained}");
    }
}

#[test]
fn rows_that_are_saturated_in_part_are_measured_and_whole_ones_pass_for_padding() {
    let scenes = plain();
    for index in 0..4 {
        // The same frame thrice, before its rows are saturated.
        let masked = |anomaly| {
            let frame = marked_frame(anomaly, &scenes, 224, 3, index).unwrap().frame;
            measured_pixels(&frame.pixels, &frame.valid_rows).iter().filter(|&&measured| !measured).count()
        };
        let usual = masked(None);
        assert_eq!(masked(Some(Anomaly::SaturatedPart)), usual);
        let rows = (masked(Some(Anomaly::Saturation)) - usual) as f64 / 224.0;
        assert!((2.0..=6.0).contains(&rows) && rows.fract() == 0.0, "{rows}");
    }
}

#[test]
fn windows_that_were_not_evaluated_are_counted() {
    let mut tables = Summaries::new(&small());
    let column = |scores: &[f64]| -> Columns { std::array::from_fn(|_| scores.to_vec()) };
    let (strange, masked) = (column(&[3.0, f64::NAN, 2.0, f64::NAN]), column(&[f64::NAN; 3]));
    let usual = column(&[1.0, 0.5]);
    tables.add("half of it", 100.0, &strange, [&usual, &usual]);
    tables.add("all of it", 100.0, &masked, [&usual, &usual]);
    for table in &tables.tables {
        assert_eq!(table.numbers("not evaluated (%)"), [50.0, 100.0]);
    }
    assert_eq!(tables.tables[0].numbers("shipped")[0], 1.0);
}
