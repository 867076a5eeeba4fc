//! The two networks, and the one place where tensors live.
//!
//! - [`Dcnn`]: the sliding-window regressor of Nelson et al. (three convolution blocks, fully connected head).
//! - [`Fcnn`]: the U-net with a dilated bottleneck of FerroNet, as in AtomAI.
//! - [`Manifest`]: `model.toml` beside the weights; a model that does not match it is refused.
//! - [`import()`]: weights of PyTorch's and AtomAI's files as a model folder, without running a pickle.
//! - [`write_untrained`]: model folders with random weights, for tests and measurements of speed.
//! - [`LayeredDcnn`]: what the layers of a DCNN compute on the way, for whoever wants to look inside.
//! - [`Engine`]: both networks on one device, from a prepared frame to plain arrays. No burn type leaves this module.

pub(crate) mod convolution;
mod dcnn;
mod dcnn_cpu;
mod dense;
mod device;
mod engine;
mod fcnn;
mod fcnn_cpu;
mod fcnn_rows;
mod features;
mod import;
mod layered;
mod manifest;
mod untrained;

pub use dcnn::{Dcnn, DcnnConfig, HeadKind, Padding};
pub(crate) use dcnn::{FEATURE_CHANNELS, Layer, NORMALISATION_EPSILON};
pub(crate) use dcnn_cpu::filters;
pub use device::{DeviceChoice, DeviceError, DeviceInfo, list_devices};
pub use engine::{DcnnMaps, Engine, EngineSettings, NetworkError};
pub use fcnn::{Fcnn, FcnnConfig};
pub(crate) use features::is_measured;
pub use features::{
    Calibration, FeatureAccumulator, FeatureError, FeatureStatistics, HeldOut, Sampling, Score, Unusual,
    WindowScores,
};
pub use import::{
    CLASS_ORDERS, ForeignArchitecture, ImportError, ImportSettings, Imported, ImportedTensor, OutputScale,
    import,
};
pub use layered::{Ascended, Ascent, Filter, LayeredDcnn};
pub use manifest::{
    Architecture, DCNN_OUTPUTS, InputSpec, LoadedModel, Manifest, ModelError, OutputSpec, StartingPoint,
    TrainingRecord, WeightsRef,
};
pub(crate) use manifest::{BIAS_KEY, dcnn_outputs, weights_bytes, write_part};
pub use untrained::write_untrained;

/// Slope of every LeakyReLU (AtomAI's default).
pub(crate) const LEAKY_SLOPE: f64 = 0.01;
