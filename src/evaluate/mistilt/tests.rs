//! Hand-worked rows, and the floors of the quick study.

use super::*;

#[test]
fn hand_worked_row() {
    let tile = |x: f64, state: TileState| Tile {
        offset: [x, 0.0],
        covariance: [4.0, 0.0, 4.0],
        p_value: 0.005,
        state: state as u8,
    };
    let truth = Truth::default();
    let mut tally = Tally::default();
    tally.add(&[tile(3.0, TileState::Suspect), tile(1.0, TileState::Consistent)], &truth);
    tally.add(&[tile(f64::NAN, TileState::Undetermined), tile(f64::NAN, TileState::NotEvaluated)], &truth);
    let row = tally.row(Kind::NonPolar, 0.0, 100.0);
    let numbers: Vec<f64> = row
        .iter()
        .skip(3)
        .map(|entry| match entry {
            Entry::Number(number) => *number,
            Entry::Count(count) => *count as f64,
            Entry::Text(_) => f64::NAN,
        })
        .collect();
    // Errors 3 and 1: RMS √5, mean 2; each expected to √8; 3 lies outside of 2 pm, 1 within.
    let expected = [2.0, 50.0, 50.0, 25.0, 5.0f64.sqrt(), 2.0, 8.0f64.sqrt(), 50.0, 100.0];
    for (found, expected) in numbers.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-9, "{numbers:?}");
    }
}

#[test]
fn a_network_without_bias_lets_an_offset_of_five_picometres_be_found() {
    let settings = MistiltStudySettings {
        side_px: 512,
        ideal_frames: 8,
        offsets_pm: vec![0.0, 5.0],
        ideal_sigmas_pm: vec![4.0],
        ..MistiltStudySettings::default()
    };
    let table = ideal(&settings, &MistiltSettings::default(), || {}).unwrap();
    let (suspect, offsets) = (table.numbers("suspect (%)"), table.numbers("offset (pm)"));
    let (errors, undetermined) =
        (table.numbers("offset error (pm)"), table.numbers("undetermined tiles (%)"));
    let kinds: Vec<Kind> = settings
        .kinds
        .iter()
        .flat_map(|&kind| settings.offsets(kind).into_iter().map(move |_| kind))
        .collect();
    for (row, kind) in kinds.iter().enumerate() {
        let shown = format!("{kind:?} at {} pm: {}", offsets[row], table.to_markdown());
        match kind {
            Kind::SingleDomain => assert_eq!(undetermined[row], 100.0, "{shown}"),
            _ if offsets[row] == 0.0 => assert!(suspect[row] < 5.0, "{shown}"),
            Kind::NonPolar => assert!(suspect[row] >= 90.0 && errors[row] < 1.5, "{shown}"),
            Kind::Polydomain | Kind::TwoDomain => {
                assert!(suspect[row] >= 50.0 && errors[row] < 2.5, "{shown}")
            }
            _ => {}
        }
    }
}
