//! The metrics by name, as Prometheus reads them from `/metrics`: the only place where names, units and help stand.

use ferrostem_proto::control::Verdict;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// Upper edges of the buckets of durations, seconds: from a tenth of a millisecond to ten seconds.
const DURATION_BUCKETS: [f64; 16] =
    [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

type FloatGauge = Gauge<f64, AtomicU64>;
type DurationFamily = Family<StageLabel, Histogram, fn() -> Histogram>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabel {
    pub stage: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct QueueLabel {
    pub queue: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabel {
    lane: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    verdict: &'static str,
}

/// What becomes of the frames: the counters of the wire, but for those that the lanes keep.
#[derive(Debug, Clone, Default)]
pub struct FrameCounters {
    /// Frames that arrived and could be decoded.
    pub received: Counter,
    /// Frames whose result was published.
    pub processed: Counter,
    /// Frames replaced by a newer one before they were processed.
    pub superseded: Counter,
    /// Sequence numbers that never arrived.
    pub gaps: Counter,
    /// Sequence numbers that arrived again.
    pub repeats: Counter,
    /// Sequences that started anew.
    pub restarts: Counter,
    /// Messages that were no valid frame, and frames that could not be processed.
    pub rejected: Counter,
    /// Partial frames passed over.
    pub partial_skipped: Counter,
    /// Frames that the recorder could not keep up with.
    pub record_dropped: Counter,
}

/// What happens on one bound lane.
#[derive(Debug, Clone, Default)]
pub struct LaneMetrics {
    /// Peers that have shaken hands and are still there.
    pub connections: Gauge,
    /// Messages published, or replies sent; once, however many subscribers there are.
    pub published: Counter,
    /// Messages that a slow subscriber never saw.
    pub dropped: Counter,
    /// Connections refused because there were as many as are allowed.
    pub refused: Counter,
}

impl LaneMetrics {
    /// Counts a connection for as long as the returned value lives.
    pub fn connected(&self) -> Connected {
        self.connections.inc();
        Connected(self.connections.clone())
    }
}

/// A connection that is being counted.
#[derive(Debug)]
pub struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The lanes' metrics.
#[derive(Debug, Clone, Default)]
pub struct AllLaneMetrics {
    pub results: LaneMetrics,
    pub latest: LaneMetrics,
    pub control: LaneMetrics,
}

/// Every metric, and the registry that writes them.
#[derive(Debug)]
pub(super) struct Metrics {
    pub registry: Registry,
    pub frames: FrameCounters,
    pub lanes: AllLaneMetrics,
    pub acks: [(Verdict, Counter); 4],
    pub latency: Histogram,
    pub stages: DurationFamily,
    pub queue_depth: Family<QueueLabel, Gauge>,
    pub frame_rate_hz: FloatGauge,
    pub uptime_s: FloatGauge,
    pub ready: Gauge,
    pub problems: Gauge,
    pub last_seq: Gauge<u64, AtomicU64>,
}

impl Metrics {
    /// Registers every metric. Counters get the suffix `_total`, metrics with a unit that unit, when they are written.
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("ferrostem");
        let frames = FrameCounters::default();
        register_frames(&mut registry, &frames);
        let lanes = register_lanes(&mut registry);
        let verdicts: Family<VerdictLabel, Counter> = Family::default();
        registry.register("candidate_acks", "Acknowledged candidates by verdict", verdicts.clone());
        let acks = Verdict::ALL.map(|verdict| {
            let label = VerdictLabel { verdict: verdict.name() };
            (verdict, verdicts.get_or_create_owned(&label))
        });

        let latency = durations();
        let help = "From a frame received to its result published";
        registry.register_with_unit("latency", help, Unit::Seconds, latency.clone());
        let stages = DurationFamily::new_with_constructor(durations);
        registry.register_with_unit("stage", "Time in one stage, by stage", Unit::Seconds, stages.clone());
        let uptime_s = FloatGauge::default();
        registry.register_with_unit("uptime", "Since the daemon started", Unit::Seconds, uptime_s.clone());
        let frame_rate_hz = FloatGauge::default();
        let hertz = Unit::Other("hertz".into());
        registry.register_with_unit(
            "frame_rate",
            "Results over the last seconds",
            hertz,
            frame_rate_hz.clone(),
        );
        let queue_depth = Family::default();
        registry.register("queue_depth", "Entries waiting in a queue, by queue", queue_depth.clone());
        let ready = Gauge::default();
        registry.register("ready", "1 once warmed up", ready.clone());
        let problems = Gauge::default();
        registry.register("problems", "Problems there are now, see /healthz", problems.clone());
        let last_seq = Gauge::default();
        registry.register("last_seq", "Sequence number of the newest result", last_seq.clone());
        Self {
            registry,
            frames,
            lanes,
            acks,
            latency,
            stages,
            queue_depth,
            frame_rate_hz,
            uptime_s,
            ready,
            problems,
            last_seq,
        }
    }
}

fn durations() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

fn register_frames(registry: &mut Registry, frames: &FrameCounters) {
    let counters = [
        ("frames_received", "Frames that arrived and could be decoded", &frames.received),
        ("frames_processed", "Frames whose result was published", &frames.processed),
        (
            "frames_superseded",
            "Frames replaced by a newer one before they were processed",
            &frames.superseded,
        ),
        ("frames_missing", "Sequence numbers that never arrived", &frames.gaps),
        ("frames_repeated", "Sequence numbers that arrived again", &frames.repeats),
        ("sequence_restarts", "Sequences that started anew", &frames.restarts),
        ("frames_rejected", "Messages that were no valid frame, and frames that failed", &frames.rejected),
        ("frames_partial_skipped", "Partial frames passed over", &frames.partial_skipped),
        ("record_frames_dropped", "Frames that the recorder could not keep up with", &frames.record_dropped),
    ];
    for (name, help, counter) in counters {
        registry.register(name, help, counter.clone());
    }
}

fn register_lanes(registry: &mut Registry) -> AllLaneMetrics {
    let connections: Family<LaneLabel, Gauge> = Family::default();
    let published: Family<LaneLabel, Counter> = Family::default();
    let dropped: Family<LaneLabel, Counter> = Family::default();
    let refused: Family<LaneLabel, Counter> = Family::default();
    registry.register("lane_connections", "Peers connected, by lane", connections.clone());
    registry.register("lane_messages_published", "Messages or replies sent, by lane", published.clone());
    registry.register(
        "lane_messages_dropped",
        "Messages slow subscribers never saw, by lane",
        dropped.clone(),
    );
    registry.register("lane_connections_refused", "Connections over the limit, by lane", refused.clone());
    let lane = |lane| {
        let label = LaneLabel { lane };
        LaneMetrics {
            connections: connections.get_or_create_owned(&label),
            published: published.get_or_create_owned(&label),
            dropped: dropped.get_or_create_owned(&label),
            refused: refused.get_or_create_owned(&label),
        }
    };
    AllLaneMetrics { results: lane("results"), latest: lane("latest"), control: lane("control") }
}
