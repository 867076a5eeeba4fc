use super::*;
use crate::config::Config;

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
    let half = share(Some(Anomaly::Vacuum), Mark::Strange);
    assert!((0.2..0.8).contains(&half), "{half}");
}
