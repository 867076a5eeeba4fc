//! Weights that PyTorch trained, as a model folder.
//!
//! Features: state dictionaries of `torch.save` (zip archive, and the form before PyTorch 1.6), AtomAI's saved models, which
//! hold one under `weights`, and safetensors; single, double, half precision and bfloat16.
//! Assumptions: pickles are untrusted. They are read as data by [`pickle`], no function in them is ever called, and a
//! pickle that names any function other than PyTorch's descriptions of tensors is refused.
//!
//! # AtomAI's U-net (`atomai-unet`)
//! `Segmentor("Unet", nb_classes=3, with_dilation=True)`: a dilated bottleneck, batch normalisation, no dropout, bilinear
//! upsampling, any number of filters. `torch.save(model.net.state_dict(), …)` or
//! `model.save_model(…)`.
//!
//! # The DCNN (`dcnn-valid`, `dcnn-same`)
//! The state dictionary of this network, as it is (p = 0 for `dcnn-valid`, 1 for `dcnn-same`; n = (window − 22) / 2
//! features a side without padding, window / 2 with):
//!
//! ```python
//! def conv(i, o): return [nn.Conv2d(i, o, 3, padding=p), nn.LeakyReLU(0.01)]
//! net = nn.Sequential(
//!     *conv(1, 32), *conv(32, 32), *conv(32, 32), *conv(32, 32), *conv(32, 32),  # 0, 2, 4, 6, 8
//!     *conv(32, 64), *conv(64, 64),                                              # 10, 12
//!     nn.MaxPool2d(2),                                                           # 14
//!     *conv(64, 128), *conv(128, 128),                                           # 15, 17
//!     nn.BatchNorm2d(128), nn.Dropout(0.2), nn.Flatten(),                        # 19, 20, 21
//!     nn.Linear(128 * n * n, outputs))                                           # 22
//! ```

mod layers;
mod pickle;
mod state;

use super::dcnn::Padding;
use super::manifest::{
    Architecture, DCNN_OUTPUTS, InputSpec, LoadedModel, MANIFEST_FILE, Manifest, ModelError, OutputSpec,
    TrainingRecord, WeightsRef, dcnn_outputs, sha256_hex, write_part,
};
use crate::preprocess::Normalisation;
use burn::tensor::Device;
use layers::Layer;
pub use pickle::PickleError;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Serialize;
use state::StateDict;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Items of a list that an error names before it counts the rest.
const NAMED: usize = 6;
/// Unit of each of [`DCNN_OUTPUTS`], and the range that says nothing: no value is outside of what was trained.
const UNITS: [&str; DCNN_OUTPUTS.len()] = ["pm", "pm", "pm", "pm", "rad", "pm2", "ln pm"];
const ANY_VALUE: [f64; 2] = [-1e9, 1e9];
/// What the U-net's channels can be, in the words of the command line; the background is always last.
pub const CLASS_ORDERS: [&str; 2] = ["b,a,background", "a,b,background"];

/// A file that cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Format(String),
    #[error(transparent)]
    Pickle(#[from] PickleError),
    #[error("{what} has {found} bytes, expected at most {limit}")]
    Size { what: &'static str, found: u64, limit: u64 },
    #[error("the tensors are not those of the architecture: {message}")]
    Layers { message: String },
    #[error("{key} = {value}: expected {expected}")]
    Setting { key: String, value: String, expected: String },
    #[error("{path}: there is a model already")]
    Exists { path: PathBuf },
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("the weights cannot be written: {0}")]
    Weights(#[from] safetensors::SafeTensorError),
}

impl ImportError {
    fn size(what: &'static str, found: u64, limit: u64) -> Self {
        Self::Size { what, found, limit }
    }
}

/// Whose network the file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum ForeignArchitecture {
    /// `a_first`: channel 0 is the bright A sublattice and channel 1 the dim B, the other way round than AtomAI's example.
    AtomaiUnet { a_first: bool },
    /// What the network's outputs are, in its order.
    Dcnn { padding: Padding, outputs: Vec<OutputScale> },
}

/// One of a foreign DCNN's outputs: `value = mean + scale * output`.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputScale {
    /// One of [`DCNN_OUTPUTS`]: P and the cell's edges in pm, its angle in rad and area in pm², and the natural
    /// logarithm of the standard deviation of P in pm.
    pub name: String,
    pub mean: f64,
    /// Above 0.
    pub scale: f64,
    /// Smallest and largest value in the training set, in physical units; values outside of it are flagged.
    pub trained_range: Option<[f64; 2]>,
}

/// What the file does not say of its network.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportSettings {
    pub name: String,
    pub architecture: ForeignArchitecture,
    /// 1 to 200 pm.
    pub pixel_size_pm: f64,
    pub normalisation: Normalisation,
}

/// One tensor that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportedTensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// Its name in weights.safetensors.
    pub stored_as: String,
}

/// What was read and written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Imported {
    pub format: &'static str,
    /// Numbers and texts that stood beside the weights.
    pub metadata: BTreeMap<String, String>,
    pub tensors: Vec<ImportedTensor>,
    /// Tensors that are no part of the network.
    pub ignored: Vec<String>,
    pub manifest: Manifest,
}

/// Writes the network in `file` as a model folder, and loads it once to see that it can be.
///
/// A DCNN that lacks some of our outputs gets them with a bias of NaN, which is "not measured".
///
/// # Errors
/// When the file is damaged, is more than data, or holds another network; when a setting is out of range; when the folder
/// holds a model already. Nothing is written then.
pub fn import(file: &Path, folder: &Path, settings: &ImportSettings) -> Result<Imported, ImportError> {
    let manifest_path = folder.join(MANIFEST_FILE);
    if manifest_path.exists() {
        return Err(ImportError::Exists { path: manifest_path });
    }
    let rows = rows(&settings.architecture)?;
    let mut state = StateDict::open(file)?;
    // What several GPUs trained.
    state.strip("module.");
    check_metadata(&state, &settings.architecture)?;
    let (architecture, layers) = layers::layers(&state, &settings.architecture)?;
    let bytes = weights(&mut state, &layers, &rows)?;
    let mut manifest = manifest(file, architecture, settings);
    manifest.validate(&manifest_path)?;
    manifest.weights = WeightsRef { file: "weights.safetensors".to_owned(), sha256: sha256_hex(&bytes) };

    let created = |source| ImportError::Read { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(created)?;
    write_part(folder, &manifest.weights.file, &bytes)?;
    manifest.write(folder)?;
    match architecture {
        Architecture::Dcnn(_) => _ = LoadedModel::dcnn(folder, &Device::flex())?,
        Architecture::Fcnn(_) => _ = LoadedModel::fcnn(folder, &Device::flex())?,
    }

    let taken =
        |layer: Layer| ImportedTensor { name: layer.theirs, shape: layer.shape, stored_as: layer.ours };
    Ok(Imported {
        format: state.format,
        metadata: state.metadata.clone(),
        ignored: layers::ignored(&state),
        tensors: layers.into_iter().map(taken).collect(),
        manifest,
    })
}

/// Where each of our output channels lies among the file's; `None` for one that it lacks.
fn rows(architecture: &ForeignArchitecture) -> Result<Vec<Option<usize>>, ImportError> {
    match architecture {
        ForeignArchitecture::AtomaiUnet { a_first: false } => Ok(vec![Some(0), Some(1), Some(2)]),
        ForeignArchitecture::AtomaiUnet { a_first: true } => Ok(vec![Some(1), Some(0), Some(2)]),
        ForeignArchitecture::Dcnn { outputs, .. } => {
            for (index, output) in outputs.iter().enumerate() {
                let repeated = outputs.iter().take(index).any(|other| other.name == output.name);
                if repeated || !DCNN_OUTPUTS.contains(&output.name.as_str()) {
                    return Err(ImportError::Setting {
                        key: "outputs".to_owned(),
                        value: output.name.clone(),
                        expected: format!("each at most once of {}", DCNN_OUTPUTS.join(", ")),
                    });
                }
            }
            let place = |name: &&str| outputs.iter().position(|output| output.name == *name);
            Ok(DCNN_OUTPUTS.iter().map(place).collect())
        }
    }
}

/// AtomAI says beside the weights how they are to be used.
fn check_metadata(state: &StateDict, architecture: &ForeignArchitecture) -> Result<(), ImportError> {
    let ForeignArchitecture::AtomaiUnet { .. } = architecture else { return Ok(()) };
    for (key, expected) in [("model_type", "seg"), ("upsampling", "bilinear")] {
        if let Some(value) = state.metadata.get(key).filter(|value| *value != expected) {
            return Err(ImportError::Setting {
                key: format!("the file's {key}"),
                value: value.clone(),
                expected: expected.to_owned(),
            });
        }
    }
    Ok(())
}

/// The weights as a safetensors file, with the output channels in our order.
fn weights(state: &mut StateDict, layers: &[Layer], rows: &[Option<usize>]) -> Result<Vec<u8>, ImportError> {
    let mut parts = Vec::with_capacity(layers.len());
    for layer in layers {
        let mut values = state.values(&layer.theirs)?;
        let mut shape = layer.our_shape.clone();
        let last = ["classes.", "head."].iter().any(|head| layer.ours.starts_with(head));
        if let (true, Some(channels)) = (last, shape.first_mut()) {
            let length = values.len() / *channels;
            let absent = if layer.ours.ends_with("bias") { f32::NAN } else { 0.0 };
            let row = |row: &Option<usize>| match row {
                Some(row) => values.iter().skip(row * length).take(length).copied().collect(),
                None => vec![absent; length],
            };
            values = rows.iter().flat_map(row).collect();
            *channels = rows.len();
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        parts.push((layer.ours.as_str(), shape, bytes));
    }
    let views = parts
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok(safetensors::serialize(views, None)?)
}

fn manifest(file: &Path, architecture: Architecture, settings: &ImportSettings) -> Manifest {
    let source = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let (kind, architecture, outputs) = match (&settings.architecture, architecture) {
        (ForeignArchitecture::Dcnn { outputs, .. }, Architecture::Dcnn(config)) => {
            let config = super::DcnnConfig { outputs: DCNN_OUTPUTS.len(), ..config };
            ("DCNN", Architecture::Dcnn(config), output_specs(outputs))
        }
        (_, architecture) => ("AtomAI's U-net", architecture, Vec::new()),
    };
    Manifest {
        name: settings.name.clone(),
        description: format!("{kind}, imported from {source}"),
        architecture,
        input: InputSpec { pixel_size_pm: settings.pixel_size_pm, normalisation: settings.normalisation },
        outputs,
        weights: WeightsRef { file: String::new(), sha256: String::new() },
        features: None,
        training: TrainingRecord {
            data: "not known: trained elsewhere".to_owned(),
            seed: 0,
            steps: 0,
            commit: "none".to_owned(),
            started_from: None,
            config: toml::Table::new(),
            held_out: toml::Table::new(),
        },
    }
}

fn output_specs(outputs: &[OutputScale]) -> Vec<OutputSpec> {
    let mut specs = dcnn_outputs(UNITS.map(|unit| (unit, 0.0, 1.0, ANY_VALUE)));
    for spec in &mut specs {
        if let Some(output) = outputs.iter().find(|output| output.name == spec.name) {
            (spec.mean, spec.scale) = (output.mean, output.scale);
            spec.trained_range = output.trained_range.unwrap_or(ANY_VALUE);
        }
    }
    specs
}

/// The first items of a list, and how many more there are.
fn some<T: AsRef<str>>(items: &[T]) -> String {
    let named: Vec<&str> = items.iter().take(NAMED).map(AsRef::as_ref).collect();
    match items.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests;
