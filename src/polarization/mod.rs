//! The polarization measured from column positions: the classical field beside the networks'.

mod classical;

pub use classical::{ClassicalField, ClassicalSettings, measure_cells, measure_cells_around, sample_on_grid};
