//! From bytes on a socket to validated frames. Nothing behind this module sees bytes.
//!
//! - [`settings`]: what a source's section of the config may say.
//! - [`decode`]: the parts of a ZeroMQ message → a message of the frames lane; the encodings are told apart by content.
//! - [`validate`]: a frame message → a [`Frame`](crate::frame::Frame), or the reason why not.
//! - [`sequence`]: gaps, repeats and restarts of `seq`.
//! - [`intake`]: the three in a row, with what a source remembers from message to message. Pure: no clock, no socket.
//! - [`counters`]: what a source has seen, for status and metrics.
//! - [`source`]: the edge: one thread a source, its socket, and the way back after a lost connection.
//!
//! # Error conditions
//! Whatever a peer sends is counted and, if it is no usable frame, logged and forgotten; nothing that arrives ends
//! a source. A lost or absent peer is tried again until the source is told to stop.

pub mod counters;
pub mod decode;
pub mod intake;
pub mod sequence;
pub mod settings;
pub mod source;
pub mod validate;

pub use counters::{IngestCounters, IngestTotals};
pub use intake::{Intake, IntakeEvent};
pub use settings::{EncodingChoice, PartialFrames, Pattern, PixelSize, SourceSettings};
pub use source::{BracketEdge, FrameSink, SequenceGap, spawn_source};
pub use validate::InvalidFrame;

use ferrostem_proto::{DecodeError, Encoding};

/// A message that gives no frame.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IngestError {
    #[error("no message of the frames lane: {0}")]
    Decode(#[from] DecodeError),
    #[error("the source is configured to {expected:?}, the message is {found:?}")]
    Encoding { expected: Encoding, found: Encoding },
    #[error("frame {seq} of {acquisition:?}: {source}")]
    Frame { acquisition: String, seq: u64, source: InvalidFrame },
}
