//! `ferrostem replay`: a recorded session over the socket that a microscope would use.

use super::say;
use crate::publish::{LaneOptions, PubLane, Publisher, QueueCapacity};
use crate::session::{Clock, FrameOutput, Player, Schedule, ScheduleOptions, Speed};
use crate::telemetry::LaneMetrics;
use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use ferrostem_proto::cbor;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Bytes that may wait for the slowest subscriber before the replay waits for it.
const WAITING_BYTES: usize = 64 << 20;
/// How often a full queue, or a missing subscriber, is looked at.
const POLL: Duration = Duration::from_millis(1);
/// The rest of a wait is spent awake: the event loop's timers are a millisecond coarse, and on a busy computer a sleeper wakes late.
const AWAKE: Duration = Duration::from_millis(3);
/// A request to stop is seen within this time.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// Progress is shown this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    input: super::FileArgs,
    /// 1 = as recorded, 2 = twice as fast, max = as fast as the subscribers take it.
    #[arg(long, default_value = "1")]
    speed: Speed,
    /// First frame.
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// The frame to stop before.
    #[arg(long)]
    to: Option<usize>,
    /// Begin again after the last frame; each further round is an acquisition of its own, "NAME (pass 2)", ….
    #[arg(long = "loop")]
    repeat: bool,
    /// PUB socket to bind; port 0 takes a free one.
    #[arg(long, default_value = "tcp://127.0.0.1:5555")]
    endpoint: String,
    /// Wait this long for a first subscriber, seconds.
    #[arg(long, default_value_t = 60.0)]
    wait: f64,
    /// One JSON line at the end.
    #[arg(long)]
    json: bool,
}

/// The frames lane, with room kept for every subscriber: a replay leaves nothing out.
///
/// The event loop that writes to the sockets runs on the thread that waits for the frames' times, in those waits: a frame that is
/// due goes into the sockets at once, and not when another thread has woken up.
struct Lane {
    runtime: Rc<Runtime>,
    publisher: Publisher,
    stop: Arc<AtomicBool>,
}

impl FrameOutput for Lane {
    fn send(&mut self, message: Bytes) -> std::io::Result<()> {
        while self.publisher.held_bytes() > WAITING_BYTES && !self.stop.load(Ordering::Relaxed) {
            self.runtime.block_on(async { tokio::time::sleep(POLL).await });
        }
        self.publisher.publish_single(message);
        self.runtime.block_on(tokio::task::yield_now());
        Ok(())
    }
}

/// The real time; while it passes, the event loop runs.
struct EventLoopClock {
    runtime: Rc<Runtime>,
    start: Instant,
    /// Whether there are times to keep to.
    keeps_time: bool,
}

impl Clock for EventLoopClock {
    fn start(&mut self) {
        // Here and not earlier: threads started before, as the one that reads, keep their ordinary priority.
        if self.keeps_time {
            go_first();
        }
        self.start = Instant::now();
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wait_until(&mut self, due: Duration) {
        self.runtime.block_on(async {
            let left = due.saturating_sub(self.start.elapsed());
            if left > AWAKE {
                tokio::time::sleep((left - AWAKE).min(LONGEST_SLEEP)).await;
            } else {
                while self.start.elapsed() < due {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
}

pub(super) fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    let mut reader = args.input.open()?;
    let schedule = Schedule::of(
        reader.as_ref(),
        &ScheduleOptions {
            speed: args.speed,
            from: args.from,
            to: args.to,
            repeat: args.repeat,
            ..ScheduleOptions::default()
        },
    )?;
    let runtime = Rc::new(tokio::runtime::Builder::new_current_thread().enable_all().build()?);
    let lane = bind(&args.endpoint, &runtime)?;
    tracing::info!(what = reader.description(), endpoint = %lane.address(), "replay");
    let stop = Arc::new(AtomicBool::new(false));
    runtime.spawn({
        let stop = Arc::clone(&stop);
        async move {
            // Without a handler the replay ends by the signal itself.
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
    let mut output =
        Lane { runtime: Rc::clone(&runtime), publisher: lane.publisher(), stop: Arc::clone(&stop) };
    let waited = Instant::now();
    while output.publisher.subscribers() == 0
        && waited.elapsed().as_secs_f64() < args.wait
        && !stop.load(Ordering::Relaxed)
    {
        // A timer is made inside the event loop that it belongs to.
        runtime.block_on(async { tokio::time::sleep(POLL).await });
    }
    let sent = Arc::new(AtomicU64::new(0));
    let bar = show_progress(&sent, if args.repeat || args.json { 0 } else { schedule.len() })?;
    let mut clock = EventLoopClock {
        runtime: Rc::clone(&runtime),
        start: Instant::now(),
        keeps_time: !schedule.is_at_full_speed(),
    };
    let player = Player { schedule: &schedule, encode: cbor::encode_frames, stop: &stop, sent: &sent };
    let outcome = player.play(reader.as_mut(), &mut output, &mut clock);
    bar.finish_and_clear();
    let report = outcome?;
    let lasted = clock.now();
    runtime.block_on(lane.close(Duration::from_secs(30)));
    let us = |q: f64| u64::try_from(report.lateness.quantile(q).as_micros()).unwrap_or(u64::MAX);
    let (p50, p99, max) = (us(0.5), us(0.99), us(1.0));
    if args.json {
        return say(json!({
            "frames_sent": report.frames_sent,
            "seconds": lasted.as_secs_f64(),
            "lateness_us": { "frames": report.lateness.count(), "p50": p50, "p99": p99, "max": max },
            "stopped": report.stopped,
        }));
    }
    let seconds = lasted.as_secs_f64();
    if report.lateness.count() == 0 {
        return say(format!("{} frames sent in {seconds:.1} s", report.frames_sent));
    }
    say(format!(
        "{} frames sent in {seconds:.1} s; late by {p50} µs (median), {p99} µs (99 %), {max} µs (at worst)",
        report.frames_sent
    ))
}

fn bind(endpoint: &str, runtime: &Runtime) -> anyhow::Result<PubLane> {
    let address: SocketAddr =
        endpoint.strip_prefix("tcp://").and_then(|address| address.parse().ok()).with_context(|| {
            format!("--endpoint {endpoint}: expected tcp://ADDRESS:PORT with a numeric address")
        })?;
    let _inside = runtime.enter();
    // By bytes alone: however small the frames, as many wait as `WAITING_BYTES` lets through.
    let capacity = QueueCapacity { messages: usize::MAX, bytes: 4 * WAITING_BYTES };
    let options = LaneOptions { name: "frames", address, capacity, max_connections: 64 };
    Ok(PubLane::bind(options, LaneMetrics::default())?)
}

/// Asks the system for real-time scheduling of this thread, which sleeps but for the last [`AWAKE`] before each frame. On two cores
/// kept busy by four loops and a compiler, 400 frames 25 ms apart were at worst 0.02 ms late with it and 12 ms without. It needs a
/// right (root, CAP_SYS_NICE or `ulimit -r`); without it the replay is as punctual as the system lets it be.
#[cfg(unix)]
fn go_first() {
    use thread_priority::{
        RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    match set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
        Ok(()) => tracing::debug!("real-time scheduling"),
        Err(error) => {
            tracing::info!(?error, "no real-time scheduling: frames may be late on a busy computer")
        }
    }
}

#[cfg(not(unix))]
fn go_first() {
    if let Err(error) = thread_priority::set_current_thread_priority(thread_priority::ThreadPriority::Max) {
        tracing::info!(?error, "no higher priority: frames may be late on a busy computer");
    }
}

/// Shows how many of `frames` were sent, from a thread that ends with the bar; nothing where `frames` is 0.
fn show_progress(sent: &Arc<AtomicU64>, frames: usize) -> std::io::Result<ProgressBar> {
    if frames < 2 {
        return Ok(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(frames as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} frame {pos}/{len} left {eta}") {
        bar.set_style(style);
    }
    let (sent, shown) = (Arc::clone(sent), bar.clone());
    std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
        while !shown.is_finished() {
            shown.set_position(sent.load(Ordering::Relaxed));
            std::thread::sleep(PROGRESS_INTERVAL);
        }
    })?;
    Ok(bar)
}
