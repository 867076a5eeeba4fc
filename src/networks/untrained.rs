//! Model folders with random weights, for tests, benches and measurements of overhead: they take the same time and run
//! the same way as trained ones, and their answers mean nothing.

use super::dcnn::{Dcnn, DcnnConfig, FEATURE_CHANNELS, POOLING, site_features};
use super::engine::download;
use super::features::{Calibration, FeatureAccumulator, FeatureStatistics, HeldOut, Sampling};
use super::manifest::{
    Architecture, DCNN_OUTPUTS, InputSpec, Manifest, ModelError, TrainingRecord, WeightsRef, dcnn_outputs,
    weights_bytes, write_part,
};
use crate::frame::PolarizationMaps;
use crate::preprocess::Normalisation;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array2, Array3};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::path::Path;

/// Biases, and scales of the normalisation around 1, lie within this.
const SPREAD: f32 = 0.2;
/// Distance of the windows whose features make the statistics, px, and their number a side.
const STATISTICS_STRIDE_PX: usize = 2 * POOLING;
const STATISTICS_WINDOWS: usize = 13;
const PIXEL_PM: f64 = 15.0;
/// A unit cell of 400 pm.
const PERIOD_PX: f64 = 26.7;

/// Unit, mean, scale and trained range of each of [`DCNN_OUTPUTS`].
const OUTPUTS: [(&str, f64, f64, [f64; 2]); DCNN_OUTPUTS.len()] = [
    ("pm", 0.0, 20.0, [-60.0, 60.0]),
    ("pm", 0.0, 20.0, [-60.0, 60.0]),
    ("pm", 400.0, 20.0, [370.0, 430.0]),
    ("pm", 400.0, 20.0, [370.0, 430.0]),
    ("rad", std::f64::consts::FRAC_PI_2, 0.03, [1.52, 1.62]),
    ("pm2", 160_000.0, 12_000.0, [135_000.0, 185_000.0]),
    ("ln pm", 1.6, 1.0, [0.0, 4.0]),
];

/// Writes a model folder with random weights, for a DCNN with feature statistics too. The same seed writes the same
/// bytes.
///
/// # Errors
/// When the architecture is one that [`Manifest::read`] would refuse, or a file cannot be written.
pub fn write_untrained(folder: &Path, architecture: Architecture, seed: u64) -> Result<Manifest, ModelError> {
    let kind = match architecture {
        Architecture::Dcnn(_) => "dcnn",
        Architecture::Fcnn(_) => "fcnn",
    };
    let mut manifest = Manifest {
        name: format!("untrained-{kind}-{seed}"),
        description: "Random weights, for tests and measurements of speed only".to_owned(),
        architecture,
        input: InputSpec { pixel_size_pm: PIXEL_PM, normalisation: Normalisation::Local { sigma_px: 40.0 } },
        outputs: if kind == "dcnn" { dcnn_outputs(OUTPUTS) } else { Vec::new() },
        weights: WeightsRef { file: String::new(), sha256: String::new() },
        features: None,
        training: TrainingRecord {
            data: "none".to_owned(),
            seed,
            steps: 0,
            commit: "none".to_owned(),
            started_from: None,
            config: toml::Table::new(),
            held_out: toml::Table::new(),
        },
    };
    manifest.validate(folder)?;
    std::fs::create_dir_all(folder).map_err(|source| ModelError::Read { path: folder.to_owned(), source })?;
    let device = Device::flex();
    let weights = match architecture {
        Architecture::Dcnn(config) => {
            let network = config.init(&device).map(&mut RandomWeights::new(seed));
            let features = statistics(folder, &network, config, seed)?.to_bytes();
            let features =
                features.map_err(|source| ModelError::Features { path: folder.to_owned(), source })?;
            manifest.features = Some(write_part(folder, "features.safetensors", &features)?);
            weights_bytes(folder, &network)?
        }
        Architecture::Fcnn(config) => {
            weights_bytes(folder, &config.init(&device).map(&mut RandomWeights::new(seed)))?
        }
    };
    manifest.weights = write_part(folder, "weights.safetensors", &weights)?;
    manifest.write(folder)?;
    Ok(manifest)
}

/// Replaces every parameter by a random one that keeps activations near unit variance: He's normal distribution for
/// filters, small biases, scales and variances around 1. None is left at a value that hides a mistake (0 or 1).
pub(super) struct RandomWeights {
    rng: ChaCha8Rng,
    path: Vec<String>,
}

impl RandomWeights {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), path: Vec::new() }
    }
}

impl ModuleMapper for RandomWeights {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let around = match self.path.last().map(String::as_str) {
            Some("gamma" | "running_var") => 1.0,
            _ => 0.0,
        };
        param.map(|tensor| {
            let shape = tensor.dims();
            let inputs: usize = shape.iter().skip(1).product();
            let he = (2.0 / inputs as f32).sqrt();
            let rng = &mut self.rng;
            let values: Vec<f32> = (0..shape.iter().product::<usize>())
                .map(|_| match D {
                    1 => around + rng.random_range(-SPREAD..SPREAD),
                    _ => he * Distribution::<f32>::sample(&StandardNormal, rng),
                })
                .collect();
            Tensor::from_data(TensorData::new(values, shape), &tensor.device())
        })
    }
}

/// Statistics of the network's features on noisy images of a square lattice.
fn statistics(
    folder: &Path,
    network: &Dcnn,
    config: DcnnConfig,
    seed: u64,
) -> Result<FeatureStatistics, ModelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Apart from the weights' numbers.
    rng.set_stream(1);
    let side = config.window_px + (STATISTICS_WINDOWS - 1) * STATISTICS_STRIDE_PX;
    let mut frame = || -> Result<Array3<f32>, ModelError> {
        let image = TensorData::new(lattice(side, &mut rng), [1, 1, side, side]);
        let features = network.features(Tensor::from_data(image, &Device::flex()));
        let sites = site_features(features, config.window_features(), STATISTICS_STRIDE_PX / POOLING);
        let [_, channels, rows, cols] = sites.dims();
        let failed = |message: String| ModelError::Weights { path: folder.to_owned(), message };
        let values = download(sites.permute([0, 2, 3, 1]).reshape([rows * cols * channels]))
            .map_err(|error| failed(error.to_string()))?;
        Array3::from_shape_vec((rows, cols, channels), values).map_err(|error| failed(error.to_string()))
    };
    let mut accumulator = FeatureAccumulator::new(FEATURE_CHANNELS);
    accumulator.add_frame(frame()?.view());
    let fresh = frame()?;
    let calibrated = || {
        let statistics = accumulator.finish()?;
        let components = statistics.components(fresh.view())?;
        let ones = || Array2::ones((STATISTICS_WINDOWS, STATISTICS_WINDOWS));
        let maps = PolarizationMaps {
            p_x: ones(),
            p_y: ones(),
            p_sigma: ones(),
            cell_a: ones(),
            cell_b: ones(),
            cell_angle: ones(),
            cell_area: ones(),
            smoothness: ones(),
            features: components,
        };
        let step_pm = [STATISTICS_STRIDE_PX as f64 * PIXEL_PM; 2];
        let scores = statistics.scores(&maps, Sampling { step_pm, pixel_pm: PIXEL_PM });
        let calibration = Calibration::fit(&[HeldOut { scores, strata: [0; 3] }])?;
        Ok(FeatureStatistics { calibration, ..statistics })
    };
    calibrated().map_err(|source| ModelError::Features { path: folder.to_owned(), source })
}

/// A noisy image of a square lattice, zero mean, row by row.
fn lattice(side: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let wave = std::f64::consts::TAU / PERIOD_PX;
    let phase: [f64; 2] = [rng.random_range(0.0..PERIOD_PX), rng.random_range(0.0..PERIOD_PX)];
    (0..side * side)
        .map(|index| {
            let (row, col) = ((index / side) as f64, (index % side) as f64);
            let noise: f64 = StandardNormal.sample(rng);
            let columns = ((row + phase[0]) * wave).cos() + ((col + phase[1]) * wave).cos();
            (0.8 * columns + 0.5 * noise) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::dcnn::{HeadKind, Padding};
    use crate::networks::fcnn::FcnnConfig;
    use crate::networks::manifest::sha256_hex;

    fn hashes(architecture: Architecture, seed: u64) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let manifest = write_untrained(folder.path(), architecture, seed).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest);
        [Some(&manifest.weights), manifest.features.as_ref()]
            .into_iter()
            .flatten()
            .map(|part| {
                assert_eq!(sha256_hex(&std::fs::read(folder.path().join(&part.file)).unwrap()), part.sha256);
                part.sha256.clone()
            })
            .collect()
    }

    #[test]
    fn the_seed_decides_every_byte() {
        let dcnn = Architecture::Dcnn(DcnnConfig {
            padding: Padding::Valid,
            head: HeadKind::Linear,
            window_px: 40,
            outputs: 7,
        });
        let fcnn = Architecture::Fcnn(FcnnConfig { filters: 4, classes: 3 });
        for architecture in [dcnn, fcnn] {
            assert_eq!(hashes(architecture, 1), hashes(architecture, 1));
            assert_ne!(hashes(architecture, 1), hashes(architecture, 2));
        }
    }

    #[test]
    fn an_architecture_that_could_not_be_loaded_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let narrow = Architecture::Dcnn(DcnnConfig {
            padding: Padding::Valid,
            head: HeadKind::Linear,
            window_px: 12,
            outputs: 7,
        });
        let error = write_untrained(folder.path(), narrow, 1).unwrap_err();
        assert!(error.to_string().contains("architecture.window_px = 12"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
