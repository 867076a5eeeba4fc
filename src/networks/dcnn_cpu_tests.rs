use super::*;
use crate::networks::{
    Architecture, DeviceChoice, Engine, EngineSettings, HeadKind, Padding, write_untrained,
};
use burn::tensor::{Device, Distribution, Tensor};
use ndarray::Array2;
use rand::SeedableRng;
use rand_distr::{Distribution as _, StandardNormal};

fn noise(rows: usize, cols: usize) -> Array2<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    Array2::from_shape_simple_fn((rows, cols), || StandardNormal.sample(&mut rng))
}

fn config(head: HeadKind, window_px: usize) -> DcnnConfig {
    DcnnConfig { padding: Padding::Valid, head, window_px, outputs: 7 }
}

fn engines(folder: &std::path::Path) -> [Engine; 2] {
    [true, false].map(|burn_layers| {
        let dcnn = Some(folder.to_owned());
        let settings =
            EngineSettings { device: DeviceChoice::Cpu, dcnn, burn_layers, ..EngineSettings::default() };
        Engine::load(&settings).unwrap()
    })
}

/// Both ways on the same image. Differences are relative to a map's largest value, or to the range of a map whose values
/// are far from zero.
fn same_maps(folder: &std::path::Path, image: &Array2<f32>, stride: usize) {
    let [burn, own] = engines(folder).map(|engine| engine.dcnn(image, stride).unwrap().unwrap());
    for (name, from_zero, burn, own) in [
        ("p_x", true, &burn.p_x, &own.p_x),
        ("p_y", true, &burn.p_y, &own.p_y),
        ("p_sigma", true, &burn.p_sigma, &own.p_sigma),
        ("cell_a", false, &burn.cell_a, &own.cell_a),
        ("cell_b", false, &burn.cell_b, &own.cell_b),
        ("cell_angle", false, &burn.cell_angle, &own.cell_angle),
        ("cell_area", false, &burn.cell_area, &own.cell_area),
        ("features", true, &flat(&burn.features), &flat(&own.features)),
    ] {
        assert_eq!(burn.dim(), own.dim(), "{name}");
        let [least, most] = [f32::min, f32::max].map(|pick| burn.iter().copied().reduce(pick).unwrap());
        assert!(most > least, "{name}: a constant map proves nothing");
        let size = if from_zero { most.max(-least) } else { most - least };
        let difference = burn.iter().zip(own).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size;
        assert!(difference < 1e-4, "{name}, {:?}, stride {stride}: {difference}", image.dim());
        assert!(own.iter().all(|value| value.is_finite()), "{name}");
    }
}

#[test]
fn burns_layers_give_the_same_maps() {
    for (head, window, [rows, cols], stride) in [
        (HeadKind::Linear, 30, [41, 50], 2),
        (HeadKind::Linear, 48, [61, 83], 6),
        (HeadKind::Linear, 80, [97, 98], 8),
        (HeadKind::Deep, 80, [112, 131], 8),
        (HeadKind::Deep, 72, [190, 96], 12),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_untrained(folder.path(), Architecture::Dcnn(config(head, window)), 3).unwrap();
        same_maps(folder.path(), &noise(rows, cols), stride);
    }
}

#[test]
fn the_model_that_ships_gives_the_same_maps() {
    let settings = crate::config::Config::default().engine().unwrap();
    let folder = settings.dcnn.unwrap();
    // Something like a crystal, whose cells are not all the same.
    let mut image = noise(160, 176) * 0.3;
    for ((row, col), value) in image.indexed_iter_mut() {
        let (row, col) = (row as f32, col as f32);
        *value += ((row + 3.0 * (col / 30.0).sin()) * 0.235).cos()
            + ((col + 3.0 * (row / 25.0).sin()) * 0.235).cos();
    }
    same_maps(&folder, &image, 8);
}

fn flat(features: &Array3<f32>) -> Array2<f32> {
    let (rows, cols, components) = features.dim();
    features.to_shape((rows * cols, components)).unwrap().to_owned()
}

/// A network whose outputs are not the zeros that training starts from.
fn network(config: DcnnConfig) -> Dcnn {
    let device = Device::flex();
    device.seed(5);
    let mut network = config.init(&device);
    network.randomise_outputs(Tensor::random([7, 256, 1, 1], Distribution::Normal(0.0, 0.1), &device));
    network
}

#[test]
fn the_step_changes_no_bit() {
    let config = config(HeadKind::Deep, 80);
    let network = CpuDcnn::new(&network(config), config, None).unwrap();
    let image = noise(272, 168);
    let (whole, _) = network.run_by(image.view(), 8, 4096);
    assert!(whole.iter().any(|&value| value.abs() > 1e-3));
    for step in [4, 12, 32, 100] {
        let (found, _) = network.run_by(image.view(), 8, step);
        assert_eq!(whole, found, "{step} rows at once");
    }
}
