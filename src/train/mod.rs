//! Training of the two networks on simulated frames, made on the fly, and on labelled ones.
//!
//! A [`Task`] says how a batch is made, what its loss is and how a network is judged; [`run`](runner::run) is the one
//! loop that all of them share: Adam, cosine schedule, checkpoints that resume exactly, and with the
//! same settings only, a CSV log.

mod checkpoint;
mod columns;
mod convolutions;
mod crops;
mod dcnn;
mod direct;
mod export;
mod fcnn;
mod gain;
mod judged;
mod labelled;
mod log;
mod parts;
mod record;
mod runner;
mod samples;
mod settings;
mod statistics;
mod stopping;
mod turns;

pub use dcnn::{Beginning, train_dcnn, train_dcnn_on};
pub use fcnn::train_fcnn;
pub use labelled::{LabelSource, Labelled};
pub use samples::{KnownCell, Sample, add_gaussian_noise};
pub use settings::{Adapts, DcnnTrainSettings, FcnnTrainSettings, Schedule, Stack};
pub use statistics::renew_statistics;
pub use turns::Turns;

use crate::networks::{Architecture, FeatureError, ModelError};
use std::path::PathBuf;

/// Why a training run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Setting(#[from] crate::config::InvalidSetting),
    #[error(transparent)]
    Device(#[from] crate::networks::DeviceError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Config { path: PathBuf, message: String },
    #[error("checkpoint {path}: {message}")]
    Checkpoint { path: PathBuf, message: String },
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Features(#[from] FeatureError),
    #[error(transparent)]
    Network(#[from] crate::networks::NetworkError),
    #[error("a frame at the model's scale: {0}")]
    Preprocess(#[from] crate::preprocess::PreprocessError),
    #[error("{path} holds {found:?}; expected {expected:?}, which the config asks for")]
    OtherNetwork { path: PathBuf, found: Architecture, expected: Architecture },
    #[error(
        "{path} does not answer turned frames with turned answers; expected turns = {turns:?}, which the config asks for"
    )]
    Untied { path: PathBuf, turns: Turns },
    #[error(transparent)]
    Session(#[from] crate::session::SessionError),
    #[error("labels of {path}: {message}")]
    Labels { path: PathBuf, message: String },
    #[error("the loss at step {step} is {loss}: lower schedule.learning_rate")]
    Diverged { step: u64, loss: f32 },
    #[error(transparent)]
    Columns(#[from] crate::columns::ColumnError),
    #[error("the device failed: {0}")]
    Execution(String),
}

/// Errors on held-out data, by name.
pub type Metrics = std::collections::BTreeMap<String, f64>;
