//! The wire of FerroSTEM, version 1: message types and the codecs that turn them into bytes and back.
//!
//! The specification, with one table a message, is `proto/README.md`; its schema is `proto/ferrostem.cddl`.
//! Decoding treats its input as hostile: every length and dimension is checked before anything is allocated, and
//! whatever is wrong comes back as a [`DecodeError`] that names the field.

mod array;
mod error;
mod limits;
mod message;

pub mod bincode;
pub mod cbor;
pub mod control;
pub mod detect;
pub mod recipe;

pub use array::{ArrayError, ByteOrder, Dtype, Grid, PixelArray};
pub use detect::{Detected, Encoding, detect};
pub use error::{DecodeError, EncodeError, Inconsistent};
pub use limits::Limits;
pub use message::*;
