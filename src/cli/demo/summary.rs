//! What a demo came to, in one line or one JSON object.

use ferrostem_proto::{Counters, ResultMessage, StatusMessage};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

/// Collected from results and heartbeats.
pub(super) struct Summary {
    started: Instant,
    frames: u64,
    steered: u64,
    latencies_us: Vec<u64>,
    p_sum: [f64; 2],
    p_length: f64,
    windows: u64,
    flagged: u64,
    tiles: BTreeMap<&'static str, u64>,
    candidates: BTreeSet<u64>,
    counters: Counters,
    device: String,
    models: Vec<String>,
    unfinished: u64,
}

impl Summary {
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            frames: 0,
            steered: 0,
            latencies_us: Vec::new(),
            p_sum: [0.0; 2],
            p_length: 0.0,
            windows: 0,
            flagged: 0,
            tiles: BTreeMap::new(),
            candidates: BTreeSet::new(),
            counters: Counters::default(),
            device: String::new(),
            models: Vec::new(),
            unfinished: 0,
        }
    }

    pub const fn frames(&self) -> u64 {
        self.frames
    }

    pub fn observe(&mut self, result: &ResultMessage) {
        self.frames += 1;
        self.counters = result.counters;
        self.latencies_us
            .push(result.timing.t_published_ns.saturating_sub(result.timing.t_received_ns) / 1000);
        for (&x, &y) in result.p_x.values().iter().zip(result.p_y.values()) {
            if x.is_finite() && y.is_finite() {
                self.p_sum[0] += f64::from(x);
                self.p_sum[1] += f64::from(y);
                self.p_length += f64::from(x.hypot(y));
                self.windows += 1;
            }
        }
        self.flagged += result.ood.flag.values().iter().filter(|&&flag| flag != 0).count() as u64;
        for &state in result.mistilt.state.values() {
            let name = match state {
                1 => "consistent",
                2 => "suspect",
                3 => "undetermined",
                _ => "not_evaluated",
            };
            *self.tiles.entry(name).or_default() += 1;
        }
        self.candidates.extend(result.candidates.iter().map(|candidate| candidate.id));
        self.models = [&result.model.dcnn, &result.model.fcnn]
            .into_iter()
            .flatten()
            .map(|model| model.name.clone())
            .collect();
    }

    pub fn observe_status(&mut self, status: &StatusMessage) {
        self.device.clone_from(&status.device);
    }

    pub const fn observe_steering(&mut self) {
        self.steered += 1;
    }

    /// The daemon ended, with these totals, before it was done with all that it had taken in.
    pub const fn leave_unfinished(&mut self, totals: &Counters) {
        let Counters { processed, superseded, rejected, partial_skipped, .. } = totals;
        let done = *processed + *superseded + *rejected + *partial_skipped;
        self.unfinished = totals.received.saturating_sub(done);
    }

    fn percentile_us(&self, percent: usize) -> u64 {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
    }

    fn per_window(&self, sum: f64) -> f64 {
        sum / self.windows.max(1) as f64
    }

    pub fn to_json(&self) -> Value {
        json!({
            "frames": self.frames,
            "seconds": self.started.elapsed().as_secs_f64(),
            "latency_us": { "p50": self.percentile_us(50), "p99": self.percentile_us(99) },
            "polarization_pm": {
                "mean_x": self.per_window(self.p_sum[0]),
                "mean_y": self.per_window(self.p_sum[1]),
                "mean_length": self.per_window(self.p_length),
            },
            "windows": self.windows,
            "ood_flagged": self.flagged,
            "mistilt_tiles": self.tiles,
            "candidates": self.candidates.len(),
            "steered": self.steered,
            "counters": self.counters,
            "device": self.device,
            "models": self.models,
            "unfinished": self.unfinished,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames in {:.1} s on {}; latency p50 {:.0} ms, p99 {:.0} ms; |P| {:.1} pm; {} of {} windows flagged; \
             {} candidates, scan steered {} times",
            self.frames,
            self.started.elapsed().as_secs_f64(),
            self.device,
            self.percentile_us(50) as f64 / 1000.0,
            self.percentile_us(99) as f64 / 1000.0,
            self.per_window(self.p_length),
            self.flagged,
            self.windows,
            self.candidates.len(),
            self.steered,
        )?;
        match self.unfinished {
            0 => Ok(()),
            unfinished => write!(f, "; {unfinished} more not finished"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_were_taken_in_and_never_done_with_are_unfinished() {
        let mut summary = Summary::start();
        assert!(!summary.to_string().contains("not finished"));
        let totals =
            Counters { received: 20, processed: 5, superseded: 12, rejected: 1, ..Counters::default() };
        summary.leave_unfinished(&totals);
        assert!(summary.to_string().ends_with("; 2 more not finished"), "{summary}");
        assert_eq!(summary.to_json()["unfinished"], 2);
    }
}
