//! FerroSTEM: polarization, its trustworthiness and the next site to look at, while a STEM images a ferroelectric.
//!
//! The modules stand in the order in which a frame passes through them.

pub mod frame;
pub mod material;

pub mod ingest;

pub mod preprocess;

pub mod networks;

pub mod columns;
pub mod polarization;

pub mod flags;

pub mod publish;

pub mod pipeline;
pub mod session;

pub mod evaluate;
pub mod label;
pub mod simulate;
pub mod train;

pub mod figure;

pub mod cli;
pub mod config;
pub mod telemetry;
