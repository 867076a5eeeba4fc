//! The polarization measured from column positions: the classical field beside the networks'.

mod classical;

pub use classical::{ClassicalField, ClassicalSettings, measure_cells, sample_on_grid};
