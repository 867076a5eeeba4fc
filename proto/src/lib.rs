//! The wire of FerroSTEM, version 1.

mod array;
mod message;

pub use array::{ByteOrder, Dtype, Grid, PixelArray};
pub use message::*;
