//! Writing a trained network as a model folder.

use super::labelled::LabelSource;
use super::{Metrics, TrainError};
use crate::networks::{
    Architecture, InputSpec, Manifest, OutputSpec, StartingPoint, TrainingRecord, weights_bytes, write_part,
};
use crate::preprocess::Normalisation;
use burn_store::ModuleSnapshot;
use serde::Serialize;
use std::path::Path;

/// What every network but those of the studies is trained on.
const SIMULATED: &str = "simulated frames, made on the fly from training.config.scenes";

/// What a network was trained on, in words.
pub(super) fn data(labels: Option<&LabelSource>) -> String {
    match labels {
        Some(labels) => format!("{SIMULATED}; {}", labels.describe()),
        None => SIMULATED.to_owned(),
    }
}

/// Everything that goes into `model.toml` beside the weights.
pub(super) struct Export {
    pub name: String,
    pub description: String,
    pub architecture: Architecture,
    pub pixel_size_pm: f64,
    pub normalisation: Normalisation,
    pub outputs: Vec<OutputSpec>,
    /// The feature statistics' file.
    pub features: Option<Vec<u8>>,
    pub seed: u64,
    /// That were made.
    pub steps: u64,
    pub started_from: Option<StartingPoint>,
    /// What it was trained on, in words.
    pub data: String,
    pub config: toml::Table,
    pub metrics: Metrics,
}

/// Writes `model.toml`, `weights.safetensors` and, where there are any, `features.safetensors` into `folder`.
pub(super) fn write<M: ModuleSnapshot>(folder: &Path, network: &M, export: Export) -> Result<(), TrainError> {
    std::fs::create_dir_all(folder).map_err(|source| TrainError::File { path: folder.to_owned(), source })?;
    let weights = write_part(folder, "weights.safetensors", &weights_bytes(folder, network)?)?;
    let features =
        export.features.map(|bytes| write_part(folder, "features.safetensors", &bytes)).transpose()?;
    let held_out =
        export.metrics.into_iter().map(|(name, value)| (name, toml::Value::Float(value))).collect();
    Manifest {
        name: export.name,
        description: export.description,
        architecture: export.architecture,
        input: InputSpec { pixel_size_pm: export.pixel_size_pm, normalisation: export.normalisation },
        outputs: export.outputs,
        weights,
        features,
        training: TrainingRecord {
            data: export.data,
            seed: export.seed,
            steps: export.steps,
            commit: commit(),
            started_from: export.started_from,
            config: export.config,
            held_out,
        },
    }
    .write(folder)?;
    Ok(())
}

/// Settings as the table that the manifest keeps.
pub(super) fn table<T: Serialize>(settings: &T) -> Result<toml::Table, TrainError> {
    toml::Table::try_from(settings)
        .map_err(|error| TrainError::Config { path: "training.config".into(), message: error.to_string() })
}

/// The commit of the working tree that training was started in, `-dirty` when it held changes.
fn commit() -> String {
    std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}
