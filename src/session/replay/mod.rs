//! Replay: when each recorded frame is due again, and handing it over then.
//!
//! ```text
//! file ─► thread `replay-read`: read, encode ─► bounded queue ─► wait until it is due ─► hand over
//! ```
//!
//! - [`Schedule`]: when each frame is due. - `ahead`: frames read and encoded before that, so that neither makes one late and a
//!   file larger than memory streams. - [`Lateness`]: how well it was kept to.
//! - A round after the first adds ` (pass 2)`, … to the name of the acquisition. Everything else in a frame stays as recorded, its
//!   times too.

mod ahead;
mod lateness;
mod schedule;

pub use lateness::Lateness;
pub use schedule::{Due, Schedule, ScheduleError, ScheduleOptions, Speed};

use super::error::SessionError;
use super::reader::FrameReader;
use ahead::{Ahead, Opening};
use bytes::Bytes;
use ferrostem_proto::{EncodeError, FramesMessage};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How messages become bytes.
pub type Encode = fn(&FramesMessage) -> Result<Bytes, EncodeError>;

/// Where replayed frames go.
pub trait FrameOutput {
    /// Takes one encoded message: a frame, or one of the brackets around an acquisition. An error ends the replay.
    ///
    /// # Errors
    /// When the other side is gone.
    fn send(&mut self, message: Bytes) -> std::io::Result<()>;
}

/// Time as the replay sees it.
pub trait Clock {
    /// The replay begins now.
    fn start(&mut self);
    /// Since the start.
    fn now(&self) -> Duration;
    /// Returns at `due`, or earlier: it is asked again.
    fn wait_until(&mut self, due: Duration);
}

/// What a replay came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayReport {
    pub frames_sent: u64,
    /// How long after it was due each frame was handed over; empty at full speed, where all are due at once.
    pub lateness: Lateness,
    /// It was told to stop before its end.
    pub stopped: bool,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("frame {index}: {source}")]
    Encode { index: usize, source: EncodeError },
    #[error("frame {index} could not be handed over: {source}")]
    Output { index: usize, source: std::io::Error },
    #[error("the thread that reads ahead could not be started: {0}")]
    Thread(std::io::Error),
}

/// Plays a file.
#[derive(Debug, Clone, Copy)]
pub struct Player<'a> {
    pub schedule: &'a Schedule,
    pub encode: Encode,
    /// Ends the replay early.
    pub stop: &'a AtomicBool,
    /// Counts the frames that were handed over, for whoever shows progress.
    pub sent: &'a AtomicU64,
}

impl Player<'_> {
    /// Hands the frames of `reader` to `output` when the schedule says, until its end or until told to stop.
    ///
    /// # Errors
    /// When a frame cannot be read, encoded or handed over.
    pub fn play(
        &self,
        reader: &mut dyn FrameReader,
        output: &mut dyn FrameOutput,
        clock: &mut dyn Clock,
    ) -> Result<ReplayReport, ReplayError> {
        let ahead = Ahead::default();
        std::thread::scope(|scope| {
            let _end = ahead.player_end();
            std::thread::Builder::new()
                .name("replay-read".to_owned())
                .spawn_scoped(scope, || {
                    let _end = ahead.reader_end();
                    ahead.fill(reader, self.schedule, self.encode);
                })
                .map_err(ReplayError::Thread)?;
            ahead.wait_for_a_start();
            clock.start();
            self.hand_over(&ahead, output, clock)
        })
    }

    fn hand_over(
        &self,
        ahead: &Ahead,
        output: &mut dyn FrameOutput,
        clock: &mut dyn Clock,
    ) -> Result<ReplayReport, ReplayError> {
        let mut report = ReplayReport::default();
        let mut open: Vec<Opening> = Vec::new();
        let mut index = self.schedule.frames().start;
        while let Some(ready) = ahead.pop() {
            let ready = ready?;
            index = ready.index;
            if !self.wait_until(ready.due, clock) {
                report.stopped = true;
                break;
            }
            if !self.schedule.is_at_full_speed() {
                report.lateness.add(clock.now().saturating_sub(ready.due));
            }
            let mut send =
                |message: Bytes| output.send(message).map_err(|source| ReplayError::Output { index, source });
            if let Some(opening) = ready.begin {
                send(opening.begin.clone())?;
                open.push(opening);
            }
            send(ready.frame)?;
            report.frames_sent += 1;
            self.sent.store(report.frames_sent, Ordering::Relaxed);
            if let Some(position) =
                ready.end.and_then(|name| open.iter().position(|opening| opening.name == name))
            {
                send(open.remove(position).end)?;
            }
        }
        // Those that a stop has cut short.
        for opening in open {
            output.send(opening.end).map_err(|source| ReplayError::Output { index, source })?;
        }
        Ok(report)
    }

    /// False when told to stop.
    fn wait_until(&self, due: Duration, clock: &mut dyn Clock) -> bool {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            if clock.now() >= due {
                return true;
            }
            clock.wait_until(due);
        }
    }
}
