//! Counters, latencies and health of the running daemon.
//!
//! One [`Telemetry`] is shared by all threads. Counters are atomics; what needs a lock is touched once a result at most.
//! The control socket, the heartbeat and `/metrics` read the same numbers.

mod metrics;
mod recent;

pub use metrics::{AllLaneMetrics, Connected, FrameCounters, LaneMetrics};

use ferrostem_proto::control::Verdict;
use ferrostem_proto::{Counters, ModelIds, StatusMessage, Timing};
use metrics::{Metrics, QueueLabel, StageLabel};
use prometheus_client::metrics::gauge::Gauge;
use recent::{LatencyRecord, RateMeter};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What runs where, as the heartbeat tells it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    /// The compute device, as `ferrostem devices` names it.
    pub device: String,
    /// `live` or `lossless`.
    pub mode: String,
    pub model: ModelIds,
    /// Path of the session being recorded.
    pub recording: Option<String>,
}

/// Something that is wrong at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Names the place, for instance `source.microscope`; a place has one problem at a time.
    pub key: String,
    pub message: String,
    /// Whether the daemon cannot do its work because of it.
    pub fatal: bool,
}

/// The daemon's state, as the heartbeat names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not warmed up yet.
    Starting,
    Ready,
    /// Ready, with problems.
    Degraded,
    Stopping,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
        }
    }
}

/// 50th and 99th percentile of the last 1024 latencies, microseconds; 0 before the first result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LatencySummary {
    pub p50_us: u64,
    pub p99_us: u64,
}

#[derive(Debug, Default)]
struct Recent {
    latencies: LatencyRecord,
    rate: RateMeter,
    last_seq: Option<u64>,
}

/// What the daemon knows about itself.
#[derive(Debug)]
pub struct Telemetry {
    /// To be counted up where things happen.
    pub frames: FrameCounters,
    /// To be handed to the lanes.
    pub lanes: AllLaneMetrics,
    metrics: Metrics,
    started: Instant,
    ready: AtomicBool,
    stopping: AtomicBool,
    recent: Mutex<Recent>,
    identity: Mutex<Identity>,
    problems: Mutex<BTreeMap<String, Problem>>,
}

impl Default for Telemetry {
    fn default() -> Self {
        let metrics = Metrics::new();
        Self {
            frames: metrics.frames.clone(),
            lanes: metrics.lanes.clone(),
            metrics,
            started: Instant::now(),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            recent: Mutex::default(),
            identity: Mutex::default(),
            problems: Mutex::default(),
        }
    }
}

/// A panic while one of these is held leaves plain data behind, as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Telemetry {
    /// The totals as they go on the wire. `publish_dropped` is the sum over both PUB lanes.
    pub fn snapshot(&self) -> Counters {
        let frames = &self.frames;
        Counters {
            received: frames.received.get(),
            processed: frames.processed.get(),
            superseded: frames.superseded.get(),
            gaps: frames.gaps.get(),
            repeats: frames.repeats.get(),
            restarts: frames.restarts.get(),
            rejected: frames.rejected.get(),
            partial_skipped: frames.partial_skipped.get(),
            publish_dropped: self.lanes.results.dropped.get() + self.lanes.latest.dropped.get(),
            record_dropped: frames.record_dropped.get(),
        }
    }

    /// Notes a published result: its latency, its stages, its sequence number. The counter `processed` is not touched,
    /// because a result carries the counters with itself included.
    pub fn record_published(&self, seq: u64, timing: &Timing) {
        let latency_ns = timing.t_published_ns.saturating_sub(timing.t_received_ns);
        self.metrics.latency.observe(Duration::from_nanos(latency_ns).as_secs_f64());
        for (stage, us) in &timing.stages_us {
            let label = StageLabel { stage: stage.clone() };
            self.metrics.stages.get_or_create(&label).observe(Duration::from_micros(*us).as_secs_f64());
        }
        self.metrics.last_seq.set(seq);
        let mut recent = lock(&self.recent);
        recent.latencies.push(latency_ns / 1000);
        recent.rate.push(Instant::now());
        recent.last_seq = Some(seq);
    }

    pub fn latency(&self) -> LatencySummary {
        let [p50_us, p99_us] = lock(&self.recent).latencies.percentiles([50, 99]);
        LatencySummary { p50_us, p99_us }
    }

    /// Results a second over the last few seconds.
    pub fn frame_rate_hz(&self) -> f64 {
        lock(&self.recent).rate.rate_hz(Instant::now())
    }

    /// Sequence number of the newest result.
    pub fn last_seq(&self) -> Option<u64> {
        lock(&self.recent).last_seq
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The gauge of a queue's depth, for the queue's owner to keep.
    pub fn queue_depth(&self, queue: &'static str) -> Gauge {
        self.metrics.queue_depth.get_or_create_owned(&QueueLabel { queue })
    }

    /// Counts an acknowledged candidate.
    pub fn count_ack(&self, verdict: Verdict) {
        for (counted, count) in &self.metrics.acks {
            if *counted == verdict {
                count.inc();
            }
        }
    }

    /// Acknowledgements so far, by verdict.
    pub fn acks(&self) -> Vec<(String, u64)> {
        self.metrics.acks.iter().map(|(verdict, count)| (verdict.name().into(), count.get())).collect()
    }

    /// Warm-up is over.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// The daemon drains and will end.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether frames are being processed: warmed up, and not stopping.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.stopping.load(Ordering::Acquire)
    }

    pub fn state(&self) -> State {
        if self.stopping.load(Ordering::Acquire) {
            State::Stopping
        } else if !self.ready.load(Ordering::Acquire) {
            State::Starting
        } else if lock(&self.problems).is_empty() {
            State::Ready
        } else {
            State::Degraded
        }
    }

    /// Changes what the heartbeat says about device, mode, models and recording.
    pub fn update_identity(&self, change: impl FnOnce(&mut Identity)) {
        change(&mut lock(&self.identity));
    }

    pub fn identity(&self) -> Identity {
        lock(&self.identity).clone()
    }

    /// Notes a problem, in place of an earlier one with the same key.
    pub fn set_problem(&self, problem: Problem) {
        lock(&self.problems).insert(problem.key.clone(), problem);
    }

    /// The place named by `key` is well again.
    pub fn clear_problem(&self, key: &str) {
        lock(&self.problems).remove(key);
    }

    /// Problems there are now, by key.
    pub fn problems(&self) -> Vec<Problem> {
        lock(&self.problems).values().cloned().collect()
    }

    /// The heartbeat at `t_ns`.
    pub fn status(&self, t_ns: u64) -> StatusMessage {
        let Identity { device, mode, model, recording } = self.identity();
        let latency = self.latency();
        let problems = self.problems();
        StatusMessage {
            t_ns,
            version: env!("CARGO_PKG_VERSION").into(),
            state: self.state().as_str().into(),
            problems: problems
                .into_iter()
                .map(|Problem { key, message, .. }| format!("{key}: {message}"))
                .collect(),
            device,
            mode,
            model,
            uptime_s: self.uptime().as_secs_f64(),
            frame_rate_hz: self.frame_rate_hz(),
            latency_p50_us: latency.p50_us,
            latency_p99_us: latency.p99_us,
            last_seq: self.last_seq(),
            recording,
            counters: self.snapshot(),
            acks: self.acks(),
        }
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// Formatting failed, which writing to a `String` does not.
    pub fn metrics_text(&self) -> Result<String, std::fmt::Error> {
        self.metrics.frame_rate_hz.set(self.frame_rate_hz());
        self.metrics.uptime_s.set(self.uptime().as_secs_f64());
        self.metrics.ready.set(self.is_ready().into());
        self.metrics.problems.set(i64::try_from(lock(&self.problems).len()).unwrap_or(i64::MAX));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(telemetry: &Telemetry, seq: u64, latency_us: u64) {
        let stages_us = vec![("dcnn".into(), latency_us / 2)];
        let t_received_ns = 1_000_000_000;
        let t_published_ns = t_received_ns + latency_us * 1000;
        telemetry.record_published(seq, &Timing { t_received_ns, t_published_ns, stages_us });
    }

    fn problem(key: &str, fatal: bool) -> Problem {
        Problem { key: key.into(), message: "went away".into(), fatal }
    }

    #[test]
    fn the_heartbeat_tells_what_was_counted() {
        let telemetry = Telemetry::default();
        telemetry.frames.received.inc_by(12);
        telemetry.frames.processed.inc_by(10);
        telemetry.frames.gaps.inc_by(3);
        telemetry.lanes.results.dropped.inc_by(4);
        telemetry.lanes.latest.dropped.inc();
        (1..=100).for_each(|seq| published(&telemetry, seq, seq * 10));
        telemetry.count_ack(Verdict::Done);
        telemetry.update_identity(|identity| identity.device = "cpu".into());
        telemetry.set_problem(problem("source.microscope", false));
        let status = telemetry.status(77);
        assert_eq!((status.t_ns, status.device.as_str(), status.last_seq), (77, "cpu", Some(100)));
        assert_eq!((status.latency_p50_us, status.latency_p99_us), (500, 990));
        assert_eq!(status.problems, ["source.microscope: went away"]);
        let counters =
            Counters { received: 12, processed: 10, gaps: 3, publish_dropped: 5, ..Counters::default() };
        assert_eq!(status.counters, counters);
        let acks = ["accepted", "rejected", "expired", "done"].into_iter().zip([0, 0, 0, 1]);
        assert!(status.acks.iter().map(|(verdict, count)| (verdict.as_str(), *count)).eq(acks));
    }

    #[test]
    fn the_state_follows_readiness_problems_and_the_end() {
        let telemetry = Telemetry::default();
        telemetry.set_problem(problem("a", false));
        assert_eq!((telemetry.state(), telemetry.is_ready()), (State::Starting, false));
        telemetry.set_ready();
        assert_eq!((telemetry.state(), telemetry.is_ready()), (State::Degraded, true));
        telemetry.set_problem(problem("a", true));
        assert_eq!(telemetry.problems(), [problem("a", true)]);
        telemetry.clear_problem("a");
        assert_eq!(telemetry.state(), State::Ready);
        telemetry.set_stopping();
        assert_eq!((telemetry.state(), telemetry.is_ready()), (State::Stopping, false));
    }

    #[test]
    fn metrics_are_written_with_their_units() {
        let telemetry = Telemetry::default();
        telemetry.set_ready();
        telemetry.frames.received.inc();
        telemetry.lanes.latest.dropped.inc_by(2);
        telemetry.queue_depth("compute").set(3);
        published(&telemetry, 41, 1500);
        let text = telemetry.metrics_text().unwrap();
        for line in [
            "# UNIT ferrostem_latency_seconds seconds",
            "ferrostem_frames_received_total 1",
            "ferrostem_lane_messages_dropped_total{lane=\"latest\"} 2",
            "ferrostem_lane_messages_dropped_total{lane=\"results\"} 0",
            "ferrostem_queue_depth{queue=\"compute\"} 3",
            "ferrostem_latency_seconds_bucket{le=\"0.002\"} 1",
            "ferrostem_latency_seconds_bucket{le=\"0.001\"} 0",
            "ferrostem_stage_seconds_count{stage=\"dcnn\"} 1",
            "ferrostem_candidate_acks_total{verdict=\"done\"} 0",
            "ferrostem_ready 1",
            "ferrostem_last_seq 41",
            "# EOF",
        ] {
            assert!(text.lines().any(|written| written == line), "no {line} in\n{text}");
        }
    }
}
