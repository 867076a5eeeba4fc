//! Sessions: recording what came in and what was found, reading it and other people's files back, and the timing of a replay.
//!
//! - [`open`] turns a path into a [`FrameReader`], one kind a format; a new format is one more implementation of
//!   that trait and one more arm in `reader::open`.
//! - [`Recorder`] writes the NSID layout of pyNSID/sidpy (see [`layout`]), [`RecorderThread`] keeps it off the hot threads.
//! - [`ResultReader`] gives recorded results back.
//! - [`truth`] keeps what a simulated session really shows in a file beside it.
//! - [`Schedule`] says when each recorded frame is due again, [`replay`](replay::replay) keeps to it.
//!
//! HDF5 is one library behind one global lock: nothing here is called from a thread that a frame waits for.

mod dataset;
mod error;
mod h5;
pub mod layout;
mod maps;
mod measurement;
mod npy;
mod nsid;
mod own;
mod reader;
mod record;
mod recorder_thread;
pub mod replay;
mod results;
mod rows;
mod stack;
pub mod truth;

pub use error::SessionError;
pub use reader::{FrameReader, OpenOptions, RecordedFrame, SessionFormat, open};
pub use record::{Gap, RecordSettings, RecordSummary, Recorder, SessionHeader, WhenFull};
pub use recorder_thread::{RecordCounts, RecordItem, RecorderThread};
pub use replay::{Clock, FrameOutput, ReplayReport, Schedule, ScheduleOptions, Speed, WallClock};
pub use results::{Acknowledgement, RecordedResult, ResultReader};

#[cfg(test)]
mod tests;
