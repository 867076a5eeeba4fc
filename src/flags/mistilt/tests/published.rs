//! What is made of the offsets for the wire: P less the offset, and the tilt in mrad. Numbers worked by hand.

use super::super::super::testing::Scenery;
use super::super::*;
use crate::material::{Material, MistiltCalibration};
use ndarray::array;

/// Two by two tiles 200 px apart, the first centred on (100, 100).
fn tiles() -> Tiles {
    let grid = GridSpec { row0: 100.0, col0: 100.0, step_row: 200.0, step_col: 200.0, rows: 2, cols: 2 };
    Tiles { grid }
}

/// Windows in rows 50, 150, 250 and 350 and columns 100, 200 and 300: 0, 1/4, 3/4 and 1 tile below the first one (the outer
/// ones lie beyond the tiles' centres), and 0, 1/2 and 1 tile to the right of it.
const WINDOWS: GridSpec =
    GridSpec { row0: 50.0, col0: 100.0, step_row: 100.0, step_col: 100.0, rows: 4, cols: 3 };

/// P of (10, -5) pm everywhere.
fn maps() -> PolarizationMaps {
    let mut maps = PolarizationMaps::of_features(ndarray::Array3::zeros((4, 3, 0)));
    maps.p_x.fill(10.0);
    maps.p_y.fill(-5.0);
    maps
}

fn verdicts(offsets: [[[f64; 2]; 2]; 2]) -> Array2<TileVerdict> {
    Array2::from_shape_fn((2, 2), |(i, j)| {
        let [offset_x, offset_y] = offsets[i][j];
        TileVerdict { offset_x, offset_y, ..TileVerdict::default() }
    })
}

#[test]
fn p_less_the_offset_worked_by_hand() {
    let verdicts = verdicts([[[0.0, 1.0], [4.0, -1.0]], [[8.0, 3.0], [20.0, 5.0]]]);
    let found = corrected(&maps(), &WINDOWS, &tiles(), &verdicts);
    // Between tiles v and u of the way down and to the right, the offset is (4 u + 8 v + 8 u v, 1 - 2 u + 2 v + 4 u v).
    // Row 1, middle: u = 1/2 and v = 1/4 give (5, 1). Row 2, middle: u = 1/2 and v = 3/4 give (11, 3).
    let p_x: Array2<f32> = array![[10.0, 8.0, 6.0], [8.0, 5.0, 2.0], [4.0, -1.0, -6.0], [2.0, -4.0, -10.0]];
    let p_y: Array2<f32> =
        array![[-6.0, -5.0, -4.0], [-6.5, -6.0, -5.5], [-7.5, -8.0, -8.5], [-8.0, -9.0, -10.0]];
    for (found, expected) in [(&found.p_x, &p_x), (&found.p_y, &p_y)] {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found}, not {expected}");
    }
}

#[test]
fn without_p_or_an_offset_there_is_nothing_to_correct() {
    // The tile at the lower right is undetermined: only windows on the way to it lack an offset.
    let verdicts = verdicts([[[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [f64::NAN, f64::NAN]]]);
    let mut maps = maps();
    maps.p_x[[0, 0]] = f32::NAN;
    let found = corrected(&maps, &WINDOWS, &tiles(), &verdicts);
    for ((i, j), p_y) in found.p_y.indexed_iter() {
        // The first row lies above the tiles' centres, the first column on them.
        if i == 0 || j == 0 {
            assert_eq!(*p_y, -7.0, "{i}, {j}");
        } else {
            assert!(p_y.is_nan() && found.p_x[[i, j]].is_nan(), "{i}, {j}");
        }
    }
    assert!(found.p_x[[0, 0]].is_nan() && found.p_x[[0, 1]] == 9.0);
}

/// A lattice without P whose windows see 6 pm to the right and 3 pm up, each component 1 pm more or less.
fn judged(mistilt: Option<MistiltCalibration>, publish_corrected: bool) -> MistiltMap {
    let off = |n: usize| if n.is_multiple_of(2) { 1.0 } else { -1.0 };
    let scenery = Scenery::new(20, |i, j| [6.0 + off(i + j), -3.0 + off(i)]);
    let material = Material { mistilt, ..Material::built_in("srtio3").unwrap() };
    let reference = Reference { material, features: None, outputs: Vec::new() };
    // A bias of next to nothing, so that all of what is seen is offset.
    let settings = MistiltSettings { bias_pm: Some(0.01), publish_corrected, ..MistiltSettings::default() };
    evaluate(&scenery.evidence(), &reference, &Array2::from_elem((20, 20), false), &settings)
}

#[test]
fn the_tilt_is_the_offset_over_what_a_milliradian_gives() {
    // 6 pm at 0.4 pm a mrad are 15 mrad; with A columns that shift farther the tilt is the other way.
    for (offset_pm_per_mrad, tilt) in [(0.4, [15.0, -7.5]), (-0.2, [-30.0, 15.0])] {
        let source = "worked by hand".to_owned();
        let map = judged(Some(MistiltCalibration { offset_pm_per_mrad, source: source.clone() }), true);
        assert_eq!(map.tilt_source, Some(source));
        assert_eq!(map.verdicts.dim(), (1, 1));
        let verdict = map.verdicts[[0, 0]];
        assert_eq!(verdict.state, TileState::Suspect, "{verdict:?}");
        for (found, expected) in [(verdict.tilt_x, tilt[0]), (verdict.tilt_y, tilt[1])] {
            assert!((found / expected - 1.0).abs() < 0.01, "{verdict:?}");
        }
        assert!((verdict.tilt_x * offset_pm_per_mrad - verdict.offset_x).abs() < 1e-9);
        // All of P but what it scatters by was offset.
        let corrected = map.corrected.unwrap();
        let left = corrected.p_x.iter().chain(&corrected.p_y).map(|p| p.abs());
        assert!(
            left.clone().count() == 800 && left.into_iter().all(|p| (p - 1.0).abs() < 0.1),
            "{corrected:?}"
        );
    }
}

#[test]
fn a_material_without_a_calibration_has_an_offset_and_no_tilt() {
    let map = judged(None, false);
    let verdict = map.verdicts[[0, 0]];
    assert!((verdict.offset_x - 6.0).abs() < 0.1 && verdict.tilt_x.is_nan() && verdict.tilt_y.is_nan());
    assert!(map.tilt_source.is_none() && map.corrected.is_none());
}
