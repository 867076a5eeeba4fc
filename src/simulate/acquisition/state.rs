//! What the scan's thread and the control socket share: the next frame's scan, and which acquisition is wanted.

use super::ServerSettings;
use super::beam::over_drifting;
use super::control::{FrameId, ScanRequest, Target};
use crate::config::InvalidSetting;
use crate::simulate::microscope::Microscope;
use ferrostem_proto::control::{ControlError, ErrorCode};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Scans of past frames that `go_to` can name a place in.
const KEPT_SCANS: usize = 1024;

/// What the scan's thread and the control socket share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    drift_nm_per_s: [f64; 2],
    frames_per_acquisition: Option<u64>,
}

struct State {
    /// First part of the acquisitions' names.
    prefix: String,
    /// The scan of the next frame, with its sub-scan.
    scan: Microscope,
    /// The acquisition asked for; the scan's thread ends the one it is at when this is another or none.
    wanted: Option<Wanted>,
    /// Acquisitions asked for so far.
    asked: u64,
    shutting_down: bool,
    /// Name of the acquisition asked for last; empty before the first.
    acquisition: String,
    /// Number of the next frame in it.
    next_seq: u64,
    frames_total: u64,
    /// The scans of the newest frames, oldest first.
    past: VecDeque<PastScan>,
}

struct PastScan {
    acquisition: String,
    seq: u64,
    scan: Microscope,
}

/// A frame to be made.
#[derive(Debug, Clone)]
pub(super) struct NextFrame {
    pub seq: u64,
    pub scan: Microscope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    number: u64,
    /// Frames after which it is complete.
    frames: Option<u64>,
}

impl Shared {
    pub fn new(microscope: Microscope, settings: &ServerSettings) -> Self {
        let mut state = State {
            prefix: settings.acquisition.clone(),
            scan: microscope,
            wanted: None,
            asked: 0,
            shutting_down: false,
            acquisition: String::new(),
            next_seq: 0,
            frames_total: 0,
            past: VecDeque::new(),
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

    /// The acquisition's name.
    pub fn name(&self, acquisition: Wanted) -> String {
        self.lock().name(acquisition.number)
    }

    /// The next frame; `None` when the acquisition is over.
    pub fn next_frame(&self, acquisition: Wanted) -> Option<NextFrame> {
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

    /// # Errors
    /// What makes the request impossible now.
    pub fn carry_out(&self, request: ScanRequest) -> Result<Value, ControlError> {
        self.update(|state| {
            match request {
                ScanRequest::SetScan(change) => {
                    let changed = change.applied_to(&state.scan).map_err(bad_args)?;
                    state.scan = self.usable(changed)?;
                }
                ScanRequest::GoTo(target, change) => {
                    let position_nm = state.position_nm(&target)?;
                    let mut changed = change.applied_to(&state.scan).map_err(bad_args)?;
                    let middle_nm = changed.scanned().center_nm;
                    for axis in 0..2 {
                        changed.center_nm[axis] += position_nm[axis] - middle_nm[axis];
                    }
                    state.scan = self.usable(changed)?;
                }
                ScanRequest::Start | ScanRequest::Single if state.wanted.is_some() => {
                    let message = "an acquisition is running: stop it first";
                    return Err(ControlError::new(ErrorCode::Unavailable, message));
                }
                ScanRequest::Start => state.want(self.frames_per_acquisition),
                ScanRequest::Single => state.want(Some(1)),
                ScanRequest::Stop => state.wanted = None,
                ScanRequest::Status => {}
            }
            Ok(state.describe())
        })
    }

    /// `scan`, when it can be scanned over the drifting specimen.
    fn usable(&self, scan: Microscope) -> Result<Microscope, ControlError> {
        let seen = || over_drifting(&scan.scanned(), self.drift_nm_per_s, 0.0);
        scan.validate("scan").and_then(|()| seen().validate("scan")).map_err(bad_args)?;
        Ok(scan)
    }
}

fn bad_args(invalid: InvalidSetting) -> ControlError {
    ControlError::new(ErrorCode::BadArgs, invalid.to_string())
}

impl State {
    fn want(&mut self, frames: Option<u64>) {
        self.asked += 1;
        self.wanted = Some(Wanted { number: self.asked, frames });
        self.acquisition = self.name(self.asked);
        self.next_seq = 0;
    }

    fn name(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    fn next_frame(&mut self, acquisition: Wanted) -> Option<NextFrame> {
        if self.shutting_down || self.wanted != Some(acquisition) {
            return None;
        }
        if acquisition.frames.is_some_and(|frames| self.next_seq >= frames) {
            self.wanted = None;
            return None;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let scan = self.scan.clone();
        if self.past.len() == KEPT_SCANS {
            self.past.pop_front();
        }
        self.past.push_back(PastScan { acquisition: self.acquisition.clone(), seq, scan: scan.clone() });
        Some(NextFrame { seq, scan })
    }

    /// Where a place is in the specimen frame, `[y, x]` in nm.
    fn position_nm(&self, target: &Target) -> Result<[f64; 2], ControlError> {
        let Some(FrameId { acquisition, seq }) = &target.frame else {
            return Ok(target.position_nm(&self.scan));
        };
        let acquisition = acquisition.as_ref().unwrap_or(&self.acquisition);
        let found = self.past.iter().rfind(|past| past.seq == *seq && past.acquisition == *acquisition);
        found.map(|past| target.position_nm(&past.scan)).ok_or_else(|| {
            let message = format!(
                "no frame {seq} of {acquisition:?} is remembered: the scans of the last {KEPT_SCANS} frames are"
            );
            ControlError::new(ErrorCode::NotFound, message)
        })
    }

    fn describe(&self) -> Value {
        let describe = |scan: &Microscope| {
            json!({
                "center_nm": scan.center_nm,
                "fov_nm": scan.fov_nm(),
                "rotation_rad": scan.rotation_rad,
                "dwell_us": scan.dwell_us,
                "shape": scan.shape,
                "pixel_size_pm": scan.pixel_sizes_pm(),
            })
        };
        json!({
            "state": if self.wanted.is_some() { "running" } else { "stopped" },
            // The one that is running, or was asked for last.
            "acquisition": self.acquisition,
            // The first frame that a change of the scan shows in, while an acquisition is running.
            "next_seq": self.next_seq,
            "frames": self.frames_total,
            "scan": describe(&self.scan),
            "subscan": self.scan.sub_scan,
            // What the next frame will say of itself.
            "frame": describe(&self.scan.scanned()),
        })
    }
}
