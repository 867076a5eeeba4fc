//! Hand-worked rows, and the floors of the quick study.

use super::tally::Tally;
use super::*;
use crate::evaluate::table::Entry;
use crate::flags::mistilt::TileState;
use crate::simulate::Truth;

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
    let numbers: Vec<f64> = tally
        .row()
        .iter()
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
fn rows_by_direction_are_of_the_same_frames() {
    let tile = |x: f64| Tile {
        offset: [x, 0.0],
        covariance: [4.0, 0.0, 4.0],
        p_value: 0.005,
        state: TileState::Suspect as u8,
    };
    let mut tallies = Tallies::default();
    // Frames 0 and 2 along an axis, 1 along a diagonal, 8 in between.
    for (index, x) in [(0, 1.0), (1, 2.0), (2, 3.0), (8, 6.0)] {
        tallies.add(index, &[tile(x)], &Truth::default());
    }
    let mut tables = Tables::new("A title.", "counts");
    tables.push(&tallies, (Kind::Polydomain, 5.0, 100.0));
    tables.push(&tallies, (Kind::Polydomain, 0.0, 100.0));
    let [all, by_direction] = tables.0;
    assert_eq!(all.numbers("frames"), [4.0, 4.0]);
    assert_eq!(by_direction.numbers("frames"), [2.0, 1.0, 1.0]);
    // Without planted offset, the offset is the error.
    let errors = by_direction.numbers("offset error (pm)");
    for (found, expected) in errors.iter().zip([5.0f64.sqrt(), 2.0, 6.0]) {
        assert!((found - expected).abs() < 1e-9, "{errors:?}");
    }
    assert!(by_direction.to_markdown().contains("in between"));
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
    let [table, _] = ideal(&settings, &MistiltSettings::default(), || {}).unwrap();
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
