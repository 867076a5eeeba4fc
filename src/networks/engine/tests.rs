use super::windows::{RawMaps, Windows, physical_maps};
use super::*;
use crate::networks::{DcnnConfig, FcnnConfig, HeadKind, write_untrained};
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use std::f32::consts::FRAC_PI_2;
use tempfile::TempDir;

fn dcnn(padding: Padding, window_px: usize) -> Architecture {
    Architecture::Dcnn(DcnnConfig { padding, head: HeadKind::Linear, window_px, outputs: 7 })
}

fn deep(window_px: usize) -> Architecture {
    let padding = Padding::Valid;
    Architecture::Dcnn(DcnnConfig { padding, head: HeadKind::Deep, window_px, outputs: 7 })
}

const FCNN: Architecture = Architecture::Fcnn(FcnnConfig { filters: 4, classes: 3 });

fn model(architecture: Architecture, seed: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_untrained(folder.path(), architecture, seed).unwrap();
    folder
}

fn engine(dcnn: Option<&TempDir>, fcnn: Option<&TempDir>, exact_windows: bool) -> Engine {
    let path = |folder: &TempDir| folder.path().to_owned();
    Engine::load(&EngineSettings {
        device: DeviceChoice::Cpu,
        dcnn: dcnn.map(path),
        fcnn: fcnn.map(path),
        exact_windows,
        burn_layers: false,
    })
    .unwrap()
}

fn noise(rows: usize, cols: usize) -> Array2<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(9);
    Array2::from_shape_simple_fn((rows, cols), || StandardNormal.sample(&mut rng))
}

fn each_map(maps: &DcnnMaps) -> [(&'static str, Array2<f32>); 8] {
    [
        ("p_x", maps.p_x.clone()),
        ("p_y", maps.p_y.clone()),
        ("p_sigma", maps.p_sigma.clone()),
        ("cell_a", maps.cell_a.clone()),
        ("cell_b", maps.cell_b.clone()),
        ("cell_angle", maps.cell_angle.clone()),
        ("cell_area", maps.cell_area.clone()),
        ("features", squares(&maps.features)),
    ]
}

/// Squared length of every window's features.
fn squares(features: &Array3<f32>) -> Array2<f32> {
    features.mapv(|value| value * value).sum_axis(Axis(2))
}

/// Largest difference between two maps relative to the first one's range.
fn difference(expected: &Array2<f32>, found: &Array2<f32>) -> f32 {
    assert_eq!(expected.dim(), found.dim());
    let extreme = |pick: fn(f32, f32) -> f32, start| expected.iter().copied().fold(start, pick);
    let range = extreme(f32::max, f32::MIN) - extreme(f32::min, f32::MAX);
    assert!(range > 0.0, "a constant map proves nothing");
    // `max` would drop a NaN.
    assert!(expected.iter().chain(found).all(|value| value.is_finite()));
    expected.iter().zip(found).map(|(a, b)| (a - b).abs() / range).fold(0.0, f32::max)
}

#[test]
fn the_shared_trunk_gives_what_single_windows_give() {
    let linear = |window| dcnn(Padding::Valid, window);
    let cases: [(Architecture, usize, [usize; 2], &[usize]); 5] = [
        (linear(30), 30, [41, 50], &[2, 4]),
        (linear(48), 48, [61, 70], &[2, 4, 6, 10]),
        (linear(80), 80, [97, 98], &[8]),
        (deep(80), 80, [121, 117], &[8, 16]),
        (deep(72), 72, [121, 117], &[8, 24]),
    ];
    for (architecture, window, [rows, cols], strides) in cases {
        let folder = model(architecture, 1);
        let (dense, exact) = (engine(Some(&folder), None, false), engine(Some(&folder), None, true));
        let image = noise(rows, cols);
        for &stride in strides {
            let dense = dense.dcnn(&image, stride).unwrap().unwrap();
            let exact = exact.dcnn(&image, stride).unwrap().unwrap();
            assert_eq!(dense.p_x.dim(), ((rows - window) / stride + 1, (cols - window) / stride + 1));
            for ((name, exact), (_, dense)) in each_map(&exact).into_iter().zip(each_map(&dense)) {
                let difference = difference(&exact, &dense);
                assert!(difference < 1e-4, "{name}, window {window}, stride {stride}: {difference}");
            }
        }
    }
}

#[test]
fn a_cpu_runs_its_own_convolutions_unless_burns_are_asked_for() {
    let (valid, same, fcnn) =
        (model(dcnn(Padding::Valid, 30), 1), model(dcnn(Padding::Same, 30), 1), model(FCNN, 1));
    let own = |engine: &Engine| (engine.cpu_dcnn.is_some(), engine.cpu_fcnn.is_some());
    let mut engine = engine(Some(&valid), Some(&fcnn), false);
    assert_eq!(own(&engine), (true, true));
    // Where windows cannot share a trunk, nothing of the one before may be left.
    engine.replace_model(same.path()).unwrap();
    assert_eq!(own(&engine), (false, true));
    engine.replace_model(valid.path()).unwrap();
    assert_eq!(own(&engine), (true, true));
    let cpu = |settings| Engine::load(&EngineSettings { device: DeviceChoice::Cpu, ..settings }).unwrap();
    let default = crate::config::Config::default().engine().unwrap();
    assert_eq!(own(&cpu(default.clone())), (true, true));
    assert_eq!(own(&cpu(EngineSettings { burn_layers: true, ..default })), (false, false));
}

#[test]
fn a_moved_image_moves_the_maps() {
    let folder = model(dcnn(Padding::Valid, 48), 2);
    let engine = engine(Some(&folder), None, false);
    let image = noise(70, 72);
    let whole = engine.dcnn(&image, 2).unwrap().unwrap();
    let moved = engine.dcnn(&image.slice(nds![4.., 6..]).to_owned(), 2).unwrap().unwrap();
    for ((name, whole), (_, moved)) in each_map(&whole).into_iter().zip(each_map(&moved)) {
        let difference = difference(&whole.slice(nds![2.., 3..]).to_owned(), &moved);
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

#[test]
fn a_padded_network_never_shares_its_trunk() {
    let folder = model(dcnn(Padding::Same, 48), 3);
    let (asked, not_asked) = (engine(Some(&folder), None, true), engine(Some(&folder), None, false));
    let image = noise(56, 60);
    let asked = asked.dcnn(&image, 4).unwrap().unwrap();
    let maps = not_asked.dcnn(&image, 4).unwrap().unwrap();
    for ((name, a), (_, b)) in each_map(&asked).into_iter().zip(each_map(&maps)) {
        assert_eq!(a, b, "{name}");
    }
    // What the shared trunk would have given: the same windows, other values.
    let loaded = not_asked.dcnn.as_ref().unwrap();
    let windows = Windows { side: 48, stride: 4, rows: 3, cols: 4 };
    let raw = not_asked.dcnn_dense(loaded, &image, &windows).unwrap();
    let shared = physical_maps(&loaded.manifest, raw, maps.smoothness.clone());
    assert!(difference(&maps.p_x, &shared.p_x) > 0.01);
}

#[test]
fn outputs_are_scaled_into_physical_units() {
    let folder = model(dcnn(Padding::Valid, 28), 4);
    let manifest = Manifest::read(folder.path()).unwrap();
    let outputs = Array3::from_shape_fn((7, 1, 2), |(channel, _, col)| channel as f32 / 4.0 * col as f32);
    let raw = RawMaps { outputs, features: Array3::from_elem((1, 2, 1), 5.0) };
    let maps = physical_maps(&manifest, raw, Array2::from_elem((1, 2), 2.0));
    let expected = [
        ("p_x", [0.0, 0.0]),
        ("p_y", [0.0, 5.0]),
        ("p_sigma", [4.953_032, 22.197_95]),
        ("cell_a", [400.0, 410.0]),
        ("cell_b", [400.0, 415.0]),
        ("cell_angle", [FRAC_PI_2, FRAC_PI_2 + 0.03]),
        ("cell_area", [160_000.0, 175_000.0]),
        ("features", [25.0, 25.0]),
    ];
    for ((name, expected), (found_name, found)) in expected.into_iter().zip(each_map(&maps)) {
        assert_eq!(name, found_name);
        for (expected, found) in expected.into_iter().zip(found) {
            assert!((expected - found).abs() <= 1e-5 * expected.abs(), "{name}: {found}, not {expected}");
        }
    }
}

#[test]
fn windows_that_do_not_fit_are_refused_and_absent_networks_say_nothing() {
    let folder = model(dcnn(Padding::Valid, 30), 5);
    let loaded = engine(Some(&folder), None, false);
    let refused = |rows, cols, stride| loaded.dcnn(&noise(rows, cols), stride).unwrap_err();
    assert!(matches!(refused(29, 64, 2), NetworkError::TooSmall { rows: 29, cols: 64, window: 30 }));
    for stride in [0, 3] {
        assert!(
            matches!(refused(40, 40, stride), NetworkError::Stride { stride: found, multiple: 2 } if found == stride)
        );
    }
    let folder = model(deep(80), 5);
    let refused = engine(Some(&folder), None, false).dcnn(&noise(96, 96), 6).unwrap_err();
    assert!(matches!(refused, NetworkError::Stride { stride: 6, multiple: 4 }));
    assert!(loaded.fcnn(&noise(16, 16)).unwrap().is_none());
    let empty = engine(None, None, false);
    assert!(empty.dcnn(&noise(40, 40), 2).unwrap().is_none());
    assert!(empty.window_px().is_none() && empty.model_ids().dcnn.is_none());
}

#[test]
fn odd_images_are_padded_for_the_column_finder_and_cut_back() {
    let folder = model(FCNN, 6);
    let engine = engine(None, Some(&folder), false);
    for (rows, cols) in [(64, 48), (61, 43), (8, 9), (1, 17)] {
        let image = noise(rows, cols);
        let mut padded = Array2::zeros((rows.next_multiple_of(8), cols.next_multiple_of(8)));
        padded.slice_mut(nds![..rows, ..cols]).assign(&image);
        let found = engine.fcnn(&image).unwrap().unwrap();
        let whole = engine.fcnn(&padded).unwrap().unwrap();
        assert_eq!(found.dim(), (3, rows, cols));
        assert_eq!(found, whole.slice(nds![.., ..rows, ..cols]));
        for total in found.sum_axis(Axis(0)) {
            assert!((total - 1.0).abs() < 1e-5, "{total}");
        }
        assert!(found.iter().any(|&p| p > 0.4) && found.iter().any(|&p| p < 0.3));
    }
}

#[test]
fn a_model_is_replaced_only_by_one_that_loads() {
    let (first, second, fcnn) =
        (model(dcnn(Padding::Valid, 30), 7), model(dcnn(Padding::Valid, 32), 8), model(FCNN, 9));
    let mut engine = engine(Some(&first), None, false);
    let before = engine.model_ids();
    let weights = second.path().join("weights.safetensors");
    let kept = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &kept[..100]).unwrap();
    assert!(matches!(
        engine.replace_model(second.path()),
        Err(NetworkError::Model(ModelError::Checksum { .. }))
    ));
    assert_eq!(engine.model_ids(), before);
    std::fs::write(&weights, &kept).unwrap();
    engine.replace_model(second.path()).unwrap();
    engine.replace_model(fcnn.path()).unwrap();
    assert_eq!(engine.window_px(), Some(32));
    assert_ne!(engine.model_ids().dcnn, before.dcnn);
    assert!(engine.fcnn(&noise(16, 16)).unwrap().is_some());
    engine.warm_up([40, 40], 2).unwrap();
}
