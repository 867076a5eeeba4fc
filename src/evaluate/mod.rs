//! How good the networks are, as tables and figures: the papers' studies, on simulated frames whose truth is known, and on
//! images from a microscope.
//!
//! - [`accuracy`]: errors of P and the cell by dose, beside the Cramér–Rao bound and the classical measurement.
//! - [`columns`]: columns that the FCNN finds, and their positions beside the bound.
//! - [`closed_loop`]: a controller that follows candidates against raster and random search.
//! - [`regression`]: predicted against true, joint distributions, maps (Nelson et al., figures 2 to 4).
//! - [`ood`]: how well what is unlike the training set is told from what is like it, and whether p-values keep their promise.
//! - [`noise`]: networks of several windows under noise, and with noise in training (figures 7 and S1).
//! - [`composition`]: networks trained on one composition and judged on every other (figure 8).
//! - [`features`]: what the layers of a DCNN see in an image (figure 5).
//! - [`filters`]: the images that single filters of a DCNN answer to most (figure 6).
//! - [`stacks`]: networks that learn from one image and are judged on another, which the studies of noise and composition share.
//! - [`real`]: images from a microscope: DCNN against classical measurement, and whether damage done on purpose is flagged.
//! - [`windows`]: what was predicted and what was true, window by window, which the studies share.
//! - [`mistilt`]: how well an offset of P common to all domains is found.
//! - [`table`]: one table, written as CSV, JSON and Markdown.
//!
//! A study is a function of its settings and a seed; files are written by whoever asked for it.

pub mod accuracy;
pub mod closed_loop;
pub mod columns;
pub mod composition;
mod drawing;
pub mod features;
pub mod filters;
pub mod mistilt;
pub mod noise;
pub mod ood;
pub mod real;
pub mod regression;
pub mod stacks;
pub mod table;
pub mod windows;

use crate::config::InvalidSetting;
use crate::figure::FigureError;
use crate::networks::NetworkError;
use crate::pipeline::StageError;
use std::path::PathBuf;

/// Why a study could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Figure(#[from] FigureError),
    #[error(transparent)]
    Scene(#[from] crate::simulate::SceneError),
    #[error(transparent)]
    Preprocess(#[from] crate::preprocess::PreprocessError),
    #[error(transparent)]
    Train(#[from] crate::train::TrainError),
    #[error("the frame was refused: {0}")]
    Frame(String),
    #[error("{image}: {reason}")]
    Image { image: String, reason: Box<EvaluateError> },
    #[error("no window that the DCNN measured lies near one of the {cells} unit cells that are known of it")]
    NothingCompared { cells: usize },
    #[error("no DCNN is loaded; this study is about one")]
    NoDcnn,
    #[error("no FCNN is loaded; this study is about one")]
    NoFcnn,
    #[error("the DCNN has no feature statistics; this study is about them")]
    NoStatistics,
    #[error("{path}: {reason}")]
    Write { path: PathBuf, reason: String },
}
