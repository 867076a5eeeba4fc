//! The wire of FerroSTEM, version 1.

mod array;
mod message;

pub use array::{ArrayError, ByteOrder, Dtype, Grid, PixelArray};
pub use message::*;
