//! FerroSTEM: polarization, its trustworthiness and the next site to look at, while a STEM images a ferroelectric.
//!
//! The modules stand in the order in which a frame passes through them.

pub mod frame;
pub mod material;

pub mod columns;
pub mod flags;
pub mod ingest;
pub mod networks;
pub mod polarization;
pub mod preprocess;
pub mod publish;

pub mod figure;
pub mod session;
pub mod simulate;
pub mod train;

pub mod config;
pub mod telemetry;
pub mod pipeline;
