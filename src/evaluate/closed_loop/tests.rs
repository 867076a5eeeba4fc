use super::*;
use crate::config::Config;

#[test]
fn a_raster_shows_every_place_of_the_field_once_and_random_frames_are_of_use() {
    let settings = LoopSettings::default();
    // 256 px of 15 pm less 1.2 nm are 2.64 nm: 11 of them for 29 nm; 256 px of 30 pm less 1.2 nm are 6.48 nm: 5.
    assert_eq!((settings.budget(), settings.raster_side(settings.overview_pm)), (121, 5));
    let centres = strategies::raster(&settings, settings.detail_pm);
    assert_eq!(centres.len(), 121);
    let inner = settings.inner_nm(settings.detail_pm);
    for (y, x) in
        (0..59).flat_map(|i| (0..59).map(move |j| (-14.5 + 0.5 * f64::from(i), -14.5 + 0.5 * f64::from(j))))
    {
        let inside = |center: &&[f64; 2]| {
            (center[0] - y).abs() <= 0.5 * inner + 1e-9 && (center[1] - x).abs() <= 0.5 * inner + 1e-9
        };
        assert!(centres.iter().any(|center| inside(&center)), "{y}, {x}");
    }
    // There and back: from one frame to the next it is one step.
    let step = 29.0 / 11.0;
    for pair in centres.windows(2) {
        let far = (pair[0][0] - pair[1][0]).abs() + (pair[0][1] - pair[1][1]).abs();
        assert!((far - step).abs() < 1e-9);
    }
}

#[test]
fn random_search_finds_what_its_frames_cover() {
    let settings = LoopSettings { junction: false, random_runs: 300, ..LoopSettings::quick() };
    let field = Field::plant(&settings).unwrap();
    let (Curve { found: mean, .. }, spread) = strategies::random_average(&field, &settings);
    // One frame of 1.68 nm in 9 nm shows a place in the middle with (1.68 / (9 - 1.68))², at the border with less.
    let likely = (1.68f64 / (9.0 - 1.68)).powi(2) * 3.0;
    assert!(mean[0] <= 1.4 * likely && mean[0] > 0.0, "{} of {likely}", mean[0]);
    assert!(mean.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(spread.iter().zip(&mean).all(|(spread, mean)| spread[0] <= *mean && *mean <= spread[1]));
}

#[test]
fn planted_defects_are_apart_inside_and_the_same_again() {
    let settings = LoopSettings::default();
    let field = Field::plant(&settings).unwrap();
    assert_eq!(field.planted.len(), 14);
    assert_eq!(field.scene.specimen.defects.len() + field.scene.specimen.dislocations.len(), 13);
    for (index, a) in field.planted.iter().enumerate() {
        assert!(a.at_nm.iter().all(|at| at.abs() < 14.5));
        for b in &field.planted[..index] {
            assert!((a.at_nm[0] - b.at_nm[0]).hypot(a.at_nm[1] - b.at_nm[1]) > 2.5);
        }
    }
    assert_eq!(Field::plant(&settings).unwrap().planted, field.planted);
    let crowded = LoopSettings { field_nm: 6.0, ..settings };
    assert!(Field::plant(&crowded).is_err());
}

#[test]
fn settings_out_of_range_are_named() {
    let key = |settings: LoopSettings| settings.validate("loop.").unwrap_err().key;
    assert_eq!(key(LoopSettings { side_px: 64, ..LoopSettings::default() }), "loop.side_px");
    assert_eq!(key(LoopSettings { detail_pm: 1.0, ..LoopSettings::default() }), "loop.detail_pm");
    assert_eq!(key(LoopSettings { field_nm: 3.0, ..LoopSettings::default() }), "loop.field_nm");
    LoopSettings::default().validate("").unwrap();
    LoopSettings::quick().validate("").unwrap();
}

#[test]
fn frames_to_a_share_are_counted() {
    let curve = Curve {
        strategy: Strategy::Raster,
        found: vec![0.0, 1.0, 1.0, 3.0, 4.0],
        reported: Vec::new(),
        found_in: Vec::new(),
        reported_in: Vec::new(),
        details: 5,
        hits: 3,
    };
    assert_eq!([0.25, 0.5, 1.0].map(|share| curve.frames_to(share, 4)), [Some(2), Some(4), Some(5)]);
    assert_eq!(curve.frames_to(1.0, 5), None);
}

/// The floor: with the network that ships, following candidates finds the defects of a small field in fewer frames than either.
#[test]
fn following_candidates_beats_raster_and_random_search() {
    let settings = LoopSettings::quick();
    let config = Config::load(
        None,
        std::iter::empty(),
        &["models.fcnn=\"none\"".to_owned(), "device=\"cpu\"".to_owned()],
    )
    .unwrap();
    let mut frames = 0;
    let found = study(|| Ok(Analyzer::new(&config)?), &settings, || frames += 1).unwrap();
    assert!(frames <= 2 * settings.budget());
    let [candidates, raster, random] = &found.curves[..] else { panic!("three searches") };
    let planted = found.planted.len();
    let all = |curve: &Curve| curve.frames_to(1.0, planted).unwrap_or(usize::MAX);
    assert!(all(candidates) < all(raster).min(all(random)), "{}", found.defects().to_markdown());
    assert!(2 * candidates.hits >= candidates.details.min(2 * planted), "{}", found.summary().to_markdown());
    let folder = tempfile::tempdir().unwrap();
    let picture = found.draw(folder.path()).unwrap();
    assert!(std::fs::metadata(picture).unwrap().len() > 5000);
    assert_eq!(found.curve().rows().len(), settings.budget());
}
