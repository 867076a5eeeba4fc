//! Sessions: recording what came in and what was found, reading it and other people's files back, and the timing of a replay.
//!
//! - [`open`] turns a path into a [`FrameReader`], one kind a format; a new format is one more implementation of
//!   that trait and one more arm in `reader::open`.
//! - [`Recorder`] writes the NSID layout of pyNSID/sidpy (see [`layout`]), [`RecorderThread`] keeps it off the hot threads.
//! - [`ResultReader`] gives recorded results back.
//! - [`Schedule`] says when each recorded frame is due again, a [`Player`] keeps to it.
//!
//! HDF5 is one library behind one global lock: nothing here is called from a thread that a frame waits for.

pub mod compare;
mod dataset;
mod error;
pub mod export;
mod h5;
pub mod layout;
mod maps;
mod measured;
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

pub use error::SessionError;
pub use measured::MeasurementLabels;
pub use reader::{FrameReader, OpenOptions, RecordedFrame, SessionFormat, open};
pub use record::{Gap, RecordSettings, RecordSummary, Recorder, SessionHeader, WhenFull};
pub use recorder_thread::{RecordCounts, RecordItem, RecorderThread};
pub use replay::{Clock, FrameOutput, Lateness, Player, ReplayReport, Schedule, ScheduleOptions, Speed};
pub use results::{Acknowledgement, RecordedResult, ResultReader};

#[cfg(test)]
mod tests;
