//! Sessions: recording what came in and what was found, reading it and other people's files back, and the timing of a replay.
//!
//! - [`open`] turns a path into a [`FrameReader`], by what is in the file; each format has a file in `read`, and a new one
//!   in HDF5 is one more line in `read::hdf5`. [`contents`] lists what is in a file.
//! - [`UnitCellParameterization`] holds the cells that were measured in an image of the Sm-BFO data set.
//! - [`Recorder`] writes the NSID layout of pyNSID/sidpy (see [`layout`]), [`RecorderThread`] keeps it off the hot threads.
//! - [`ResultReader`] gives recorded results back; [`LabelWriter`] and [`LabelFile`] keep what the classical measurement found.
//! - [`truth`] keeps what a simulated session really shows in a file beside it.
//! - [`Schedule`] says when each recorded frame is due again, a [`Player`] keeps to it.
//!
//! HDF5 is one library behind one global lock: nothing here is called from a thread that a frame waits for.

pub mod compare;
mod error;
pub mod export;
mod file;
mod h5;
mod labels;
pub mod layout;
mod maps;
mod measured;
mod measurement;
mod own;
mod read;
mod reader;
mod record;
mod recorder_thread;
mod recording;
pub mod replay;
mod results;
mod rows;
mod stack;
mod superblock;
pub mod truth;

pub use error::SessionError;
pub use labels::{CellLabel, ColumnLabel, LabelFile, LabelWriter, RecordedLabels};
pub use measured::MeasurementLabels;
pub use read::contents::{Contents, Entry, EntryKind, Recorded, contents};
pub use read::npy::write_npy;
pub use read::smbfo::{UnitCell, UnitCellParameterization};
pub use reader::{FrameReader, OpenOptions, RecordedFrame, SessionFormat, open};
pub use record::Recorder;
pub use recorder_thread::{RecordCounts, RecordItem, RecordProblem, RecorderThread};
pub use recording::{Gap, RecordSettings, RecordSummary, SessionEvent, SessionHeader, WhenFull};
pub use replay::{Clock, FrameOutput, Lateness, Player, ReplayReport, Schedule, ScheduleOptions, Speed};
pub use results::{Acknowledgement, RecordedResult, ResultReader};

#[cfg(test)]
mod tests;
