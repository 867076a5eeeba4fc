//! cli

pub mod terminal;
