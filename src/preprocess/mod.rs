//! From a validated frame to what a network reads.

mod normalise;

pub use normalise::Normalisation;
