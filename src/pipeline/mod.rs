//! The only place that knows all stages: threads, queues, drain.
//!
//! ```text
//! ingest-<name> ─► Inbox ─► prepare ─► compute ─► finish ─► lanes
//!  one a source    newest    resample,  networks,  columns, flags,
//!                  or queue  normalise  the device encode, publish
//! ```
//!
//! - [`stages`]: what is computed, without threads; `analyze` calls it too.
//! - [`inbox`]: the mailbox of live mode and the queue of lossless mode.
//! - `threads`: prepare, compute and finish. - [`daemon`]: the lanes and sources around them. - [`control`]: what the control lane can ask for.

pub mod control;
pub mod daemon;
pub mod inbox;
mod result;
pub mod stages;
mod threads;

pub use daemon::{Daemon, DaemonError};
pub use stages::{Analyzer, Observed, StageError, Stages};

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix nanoseconds; 0 on a clock before 1970.
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}
