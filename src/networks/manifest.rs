//! `model.toml`: what a folder of weights is, what it wants to be fed and what it gives back.

use super::dcnn::{Dcnn, DcnnConfig, FEATURE_CHANNELS, POOLING, Padding};
use super::fcnn::{Fcnn, FcnnConfig};
use super::features::{FeatureError, FeatureStatistics};
use crate::config::InvalidSetting;
use crate::preprocess::Normalisation;
use burn::tensor::Device;
use burn_store::{ModuleSnapshot, SafetensorsStore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Name of the manifest in a model's folder.
pub const MANIFEST_FILE: &str = "model.toml";

/// Key of [`Manifest::bias_pm`] among the errors on held-out data.
pub const BIAS_KEY: &str = "bias_p_component_pm";

/// The outputs of a DCNN, in this order.
pub const DCNN_OUTPUTS: [&str; 7] =
    ["p_x", "p_y", "cell_a", "cell_b", "cell_angle", "cell_area", "log_p_sigma"];

/// The outputs of a DCNN from unit, mean, scale and trained range of each, in the order of [`DCNN_OUTPUTS`].
pub(crate) fn dcnn_outputs(specs: [(&str, f64, f64, [f64; 2]); DCNN_OUTPUTS.len()]) -> Vec<OutputSpec> {
    DCNN_OUTPUTS
        .iter()
        .zip(specs)
        .map(|(name, (unit, mean, scale, trained_range))| OutputSpec {
            name: (*name).to_owned(),
            unit: unit.to_owned(),
            mean,
            scale,
            trained_range,
        })
        .collect()
}

/// A model folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Manifest { path: PathBuf, message: String },
    #[error("{path}: {key} = {value}: expected {expected}")]
    Value { path: PathBuf, key: &'static str, value: String, expected: String },
    #[error("{path}: {source}")]
    Setting { path: PathBuf, source: InvalidSetting },
    #[error("{path}: SHA-256 is {found}, the manifest says {expected}")]
    Checksum { path: PathBuf, expected: String, found: String },
    #[error("{path}: {message}")]
    Weights { path: PathBuf, message: String },
    #[error("{path}: {source}")]
    Features { path: PathBuf, source: FeatureError },
}

/// The contents of `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: String,
    /// One sentence on what it is for.
    pub description: String,
    pub architecture: Architecture,
    pub input: InputSpec,
    /// What the outputs mean, in the order of the network's channels. Empty for an FCNN.
    #[serde(default)]
    pub outputs: Vec<OutputSpec>,
    pub weights: WeightsRef,
    /// Statistics of the training set's features, for the out-of-distribution test.
    pub features: Option<WeightsRef>,
    pub training: TrainingRecord,
}

/// Which network the weights belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Architecture {
    Dcnn(DcnnConfig),
    Fcnn(FcnnConfig),
}

/// What the network was trained on, and so must be fed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    pub pixel_size_pm: f64,
    pub normalisation: Normalisation,
}

/// One regressed quantity: `value = mean + scale * output`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    pub name: String,
    /// pm, rad, pm² or 1.
    pub unit: String,
    pub mean: f64,
    pub scale: f64,
    /// Smallest and largest value in the training set.
    pub trained_range: [f64; 2],
}

/// A file beside the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsRef {
    pub file: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecord {
    /// What it was trained on.
    pub data: String,
    pub seed: u64,
    pub steps: u64,
    /// Commit of the code that trained it.
    pub commit: String,
    /// The model whose weights it started from; random ones where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_from: Option<StartingPoint>,
    /// The training config in full.
    pub config: toml::Table,
    /// Errors on held-out data, by name.
    pub held_out: toml::Table,
}

/// A model that another was trained from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartingPoint {
    pub name: String,
    /// Of its weights, lower-case hexadecimal.
    pub sha256: String,
}

impl InputSpec {
    fn validate(&self, path: &Path) -> Result<(), ModelError> {
        check(
            path,
            "input.pixel_size_pm",
            self.pixel_size_pm,
            |v| (1.0..=200.0).contains(v),
            "1 to 200 pm a pixel",
        )?;
        self.normalisation
            .validate("input.normalisation")
            .map_err(|source| ModelError::Setting { path: path.to_owned(), source })
    }
}

impl OutputSpec {
    fn validate(&self, path: &Path) -> Result<(), ModelError> {
        check(path, "outputs.mean", self.mean, |v| v.is_finite(), "a finite number")?;
        check(path, "outputs.scale", self.scale, |v| v.is_finite() && *v > 0.0, "a number above 0")?;
        let [low, high] = self.trained_range;
        let range = format!("[{low}, {high}]");
        check(path, "outputs.trained_range", range, |_| low <= high, "[smallest, largest]")
    }
}

fn check<T: ToString>(
    path: &Path,
    key: &'static str,
    value: T,
    holds: impl Fn(&T) -> bool,
    expected: &str,
) -> Result<(), ModelError> {
    if holds(&value) {
        return Ok(());
    }
    Err(ModelError::Value {
        path: path.to_owned(),
        key,
        value: value.to_string(),
        expected: expected.to_owned(),
    })
}

impl Manifest {
    /// Reads and checks `model.toml` in `folder`.
    ///
    /// # Errors
    /// When it is missing, malformed, or says something that no network here can do.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(MANIFEST_FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let manifest: Self = toml::from_str(&text)
            .map_err(|error| ModelError::Manifest { path: path.clone(), message: error.to_string() })?;
        manifest.validate(&path)?;
        Ok(manifest)
    }

    /// Writes `model.toml` into `folder`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ModelError> {
        let path = folder.join(MANIFEST_FILE);
        let text = toml::to_string_pretty(self)
            .map_err(|error| ModelError::Manifest { path: path.clone(), message: error.to_string() })?;
        std::fs::write(&path, text).map_err(|source| ModelError::Read { path, source })
    }

    pub(super) fn validate(&self, path: &Path) -> Result<(), ModelError> {
        self.input.validate(path)?;
        check(path, "name", &self.name, |name| !name.is_empty(), "a name")?;
        match self.architecture {
            Architecture::Dcnn(config) => {
                let fits = |px: &usize| (28..=512).contains(px) && px.is_multiple_of(POOLING);
                check(
                    path,
                    "architecture.window_px",
                    config.window_px,
                    fits,
                    "an even number from 28 to 512",
                )?;
                check(
                    path,
                    "architecture.window_px",
                    config.window_px,
                    |_| config.head_features() > 0,
                    "66 or more for a deep head without padding",
                )?;
                let names: Vec<&str> = self.outputs.iter().map(|output| output.name.as_str()).collect();
                let found = names.join(", ");
                let expected = DCNN_OUTPUTS.join(", ");
                check(path, "outputs", found, |_| names == DCNN_OUTPUTS, &expected)?;
                self.outputs.iter().try_for_each(|output| output.validate(path))?;
                check(
                    path,
                    "architecture.outputs",
                    config.outputs,
                    |&n| n == names.len(),
                    "the number of [[outputs]]",
                )
            }
            Architecture::Fcnn(config) => {
                check(path, "architecture.classes", config.classes, |&n| n == 3, "3 (B, A, background)")?;
                check(path, "architecture.filters", config.filters, |n| (1..=256).contains(n), "1 to 256")
            }
        }
    }

    /// Standard deviation, from frame to frame of the held-out ones, of a DCNN's own bias, a component of P, pm: without noise and without
    /// a wrong gain, which turns with P. `None` where the record does not say.
    pub fn bias_pm(&self) -> Option<f64> {
        self.training.held_out.get(BIAS_KEY)?.as_float().filter(|bias| bias.is_finite() && *bias >= 0.0)
    }

    /// The output of that name. [`Self::read`] made sure that a DCNN has all of them.
    pub(super) fn output(&self, name: &str) -> Option<&OutputSpec> {
        self.outputs.iter().find(|output| output.name == name)
    }
}

/// A manifest with its checked weights on a device.
#[derive(Debug)]
pub struct LoadedModel<M> {
    pub manifest: Manifest,
    pub network: M,
    pub features: Option<FeatureStatistics>,
}

impl LoadedModel<Dcnn> {
    /// # Errors
    /// When the folder holds no DCNN, or not the weights that its manifest promises.
    pub fn dcnn(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let model = Self::dcnn_without_statistics(folder, device)?;
        let features =
            model.manifest.features.as_ref().map(|file| load_features(folder, file)).transpose()?;
        Ok(Self { features, ..model })
    }

    /// Leaves the feature statistics out, whatever they are.
    pub(crate) fn dcnn_without_statistics(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let manifest = Manifest::read(folder)?;
        let Architecture::Dcnn(config) = manifest.architecture else {
            return Err(wrong_kind(folder, "fcnn", "dcnn"));
        };
        let mut network = config.init(device);
        load_weights(folder, &manifest.weights, &mut network)?;
        Ok(Self { manifest, network, features: None })
    }

    /// Whether the trunk may be shared between windows.
    pub(super) fn padding(&self) -> Padding {
        match self.manifest.architecture {
            Architecture::Dcnn(config) => config.padding,
            Architecture::Fcnn(_) => Padding::Same,
        }
    }
}

impl LoadedModel<Fcnn> {
    /// # Errors
    /// When the folder holds no FCNN, or not the weights that its manifest promises.
    pub fn fcnn(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let manifest = Manifest::read(folder)?;
        let Architecture::Fcnn(config) = manifest.architecture else {
            return Err(wrong_kind(folder, "dcnn", "fcnn"));
        };
        let mut network = config.init(device);
        load_weights(folder, &manifest.weights, &mut network)?;
        Ok(Self { manifest, network, features: None })
    }
}

fn wrong_kind(folder: &Path, found: &str, expected: &str) -> ModelError {
    ModelError::Value {
        path: folder.join(MANIFEST_FILE),
        key: "architecture.kind",
        value: found.to_owned(),
        expected: expected.to_owned(),
    }
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_checked(folder: &Path, file: &WeightsRef) -> Result<Vec<u8>, ModelError> {
    let path = folder.join(&file.file);
    let bytes = std::fs::read(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
    let found = sha256_hex(&bytes);
    if found != file.sha256 {
        return Err(ModelError::Checksum { path, expected: file.sha256.clone(), found });
    }
    Ok(bytes)
}

fn load_weights<M: ModuleSnapshot>(
    folder: &Path,
    file: &WeightsRef,
    network: &mut M,
) -> Result<(), ModelError> {
    let bytes = read_checked(folder, file)?;
    let mut store = SafetensorsStore::from_bytes(Some(bytes));
    let weights = |message: String| ModelError::Weights { path: folder.join(&file.file), message };
    let applied = network.load_from(&mut store).map_err(|error| weights(error.to_string()))?;
    if applied.is_success() { Ok(()) } else { Err(weights(applied.to_string())) }
}

fn load_features(folder: &Path, file: &WeightsRef) -> Result<FeatureStatistics, ModelError> {
    let bytes = read_checked(folder, file)?;
    let failed = |source| ModelError::Features { path: folder.join(&file.file), source };
    let statistics = FeatureStatistics::from_bytes(&bytes).map_err(failed)?;
    let (expected, found) = (FEATURE_CHANNELS, statistics.mean.len());
    if found != expected {
        return Err(failed(FeatureError::Length { name: "mean", expected, found }));
    }
    Ok(statistics)
}

/// Writes `bytes` beside the manifest and returns the reference to put into it.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write_part(folder: &Path, file: &str, bytes: &[u8]) -> Result<WeightsRef, ModelError> {
    let path = folder.join(file);
    std::fs::write(&path, bytes).map_err(|source| ModelError::Read { path, source })?;
    Ok(WeightsRef { file: file.to_owned(), sha256: sha256_hex(bytes) })
}

/// The weights of `network` as a safetensors file.
///
/// # Errors
/// When they cannot be read back from the device.
pub(crate) fn weights_bytes<M: ModuleSnapshot>(folder: &Path, network: &M) -> Result<Vec<u8>, ModelError> {
    let failed = |message: String| ModelError::Weights { path: folder.to_owned(), message };
    // burn's own metadata lie in a hash map, whose order would make every file another.
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata();
    network.save_into(&mut store).map_err(|error| failed(error.to_string()))?;
    store.get_bytes().map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
