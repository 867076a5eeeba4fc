//! What the scan's thread and the control socket share: the next frame's scan, and which acquisition is wanted.

use super::ServerSettings;
use super::control::{Refusal, ScanRequest};
use super::scan::over_drifting;
use crate::simulate::microscope::Microscope;
use serde_json::{Value, json};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the scan's thread and the control socket share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    drift_nm_per_s: [f64; 2],
    frames_per_acquisition: Option<u64>,
}

struct State {
    /// The scan of the next frame.
    microscope: Microscope,
    /// The acquisition asked for; the scan's thread ends the one it is at when this is another or none.
    wanted: Option<Wanted>,
    /// Acquisitions asked for so far.
    asked: u64,
    shutting_down: bool,
    /// Name of the acquisition that is running, or of the last one.
    acquisition: String,
    /// Number of the next frame in it.
    next_seq: u64,
    frames_total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub number: u64,
    /// Frames after which it is complete.
    frames: Option<u64>,
}

impl Shared {
    pub fn new(microscope: Microscope, settings: &ServerSettings) -> Self {
        let mut state = State {
            microscope,
            wanted: None,
            asked: 0,
            shutting_down: false,
            acquisition: String::new(),
            next_seq: 0,
            frames_total: 0,
        };
        if settings.running {
            state.want(settings.frames_per_acquisition);
        }
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            drift_nm_per_s: settings.drift_nm_per_s,
            frames_per_acquisition: settings.frames_per_acquisition,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Ends what is running, now.
    pub fn shut_down(&self) {
        self.update(|state| state.shutting_down = true);
    }

    /// The acquisition of this name begins.
    pub fn begin(&self, name: &str) {
        self.update(|state| {
            name.clone_into(&mut state.acquisition);
            state.next_seq = 0;
        });
    }

    /// The next frame's number and scan; `None` when the acquisition is over.
    pub fn next_frame(&self, acquisition: Wanted) -> Option<(u64, Microscope)> {
        self.update(|state| state.next_frame(acquisition))
    }

    /// A frame is finished.
    pub fn count_frame(&self) {
        self.update(|state| state.frames_total += 1);
    }

    /// Waits until an acquisition is wanted; `None` when the server shuts down.
    pub fn wait_for_acquisition(&self) -> Option<Wanted> {
        let idle = |state: &mut State| state.wanted.is_none() && !state.shutting_down;
        let state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        state.wanted.filter(|_| !state.shutting_down)
    }

    /// Waits until `due`; `false` when the server shuts down before.
    pub fn wait_until(&self, due: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.shutting_down {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub fn carry_out(&self, request: ScanRequest) -> Result<Value, Refusal> {
        self.update(|state| {
            match request {
                ScanRequest::SetScan(change) => {
                    let changed = change.applied_to(&state.microscope)?;
                    over_drifting(&changed, self.drift_nm_per_s, 0.0).validate("scan")?;
                    state.microscope = changed;
                }
                ScanRequest::Start | ScanRequest::Single if state.wanted.is_some() => {
                    return Err(Refusal::Running);
                }
                ScanRequest::Start => state.want(self.frames_per_acquisition),
                ScanRequest::Single => state.want(Some(1)),
                ScanRequest::Stop => state.wanted = None,
                ScanRequest::Status => {}
            }
            Ok(state.describe())
        })
    }
}

impl State {
    fn want(&mut self, frames: Option<u64>) {
        self.asked += 1;
        self.wanted = Some(Wanted { number: self.asked, frames });
    }

    fn next_frame(&mut self, acquisition: Wanted) -> Option<(u64, Microscope)> {
        if self.shutting_down || self.wanted != Some(acquisition) {
            return None;
        }
        if acquisition.frames.is_some_and(|frames| self.next_seq >= frames) {
            self.wanted = None;
            return None;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        Some((seq, self.microscope.clone()))
    }

    fn describe(&self) -> Value {
        let scan = &self.microscope;
        json!({
            "state": if self.wanted.is_some() { "running" } else { "stopped" },
            "acquisition": self.acquisition,
            // The first frame that a change of the scan shows in, while an acquisition is running.
            "next_seq": self.next_seq,
            "frames": self.frames_total,
            "scan": {
                "center_nm": scan.center_nm,
                "fov_nm": scan.fov_nm(),
                "rotation_rad": scan.rotation_rad,
                "dwell_us": scan.dwell_us,
                "shape": scan.shape,
                "pixel_size_pm": scan.pixel_size_pm,
            },
        })
    }
}
