//! `ferrostem replay`: a recorded session over the socket that a microscope would use.

use super::say;
use crate::publish::{LaneOptions, PubLane, Publisher, QueueCapacity};
use crate::session::replay::replay as play;
use crate::session::{FrameOutput, OpenOptions, Schedule, ScheduleOptions, Speed, WallClock, open};
use anyhow::Context as _;
use clap::Args;
use ferrostem_proto::{Bracket, FrameMessage, FramesMessage, cbor};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes that may wait for the slowest subscriber before the replay waits for it.
const WAITING_BYTES: usize = 64 << 20;
/// How often a subscriber's queue is looked at while it is full.
const POLL: Duration = Duration::from_millis(1);

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Session, NSID, HyperSpy, EMD, Nion Swift, NeXus, TIFF, .npy, …, or any HDF5 file with --dataset.
    file: PathBuf,
    /// Path of the images in the HDF5 file.
    #[arg(long)]
    dataset: Option<String>,
    /// 1 = as recorded, 2 = twice as fast, max = as fast as the subscribers take it.
    #[arg(long, default_value = "1")]
    speed: Speed,
    /// First frame.
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// The frame to stop before.
    #[arg(long)]
    to: Option<usize>,
    /// Begin again after the last frame.
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
struct Lane {
    publisher: Publisher,
    acquisition: Option<String>,
}

impl Lane {
    fn publish(&self, message: &FramesMessage) -> std::io::Result<()> {
        let payload = cbor::encode_frames(message).map_err(std::io::Error::other)?;
        while self.publisher.held_bytes() > WAITING_BYTES {
            std::thread::sleep(POLL);
        }
        self.publisher.publish_single(payload);
        Ok(())
    }

    fn bracket(name: &str) -> Bracket {
        Bracket { acquisition: name.to_owned(), ..Bracket::default() }
    }

    fn end(&mut self) -> std::io::Result<()> {
        match self.acquisition.take() {
            Some(name) => self.publish(&FramesMessage::End(Self::bracket(&name))),
            None => Ok(()),
        }
    }
}

impl FrameOutput for Lane {
    fn send(&mut self, message: FrameMessage) -> std::io::Result<()> {
        if message.acquisition != self.acquisition {
            self.end()?;
            if let Some(name) = &message.acquisition {
                self.publish(&FramesMessage::Begin(Self::bracket(name)))?;
            }
            self.acquisition.clone_from(&message.acquisition);
        }
        self.publish(&FramesMessage::Frame(Box::new(message)))
    }
}

pub(super) fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    let options = OpenOptions { dataset: args.dataset.clone(), ..OpenOptions::default() };
    let mut reader = open(&args.file, &options)?;
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
    let address: SocketAddr =
        args.endpoint.strip_prefix("tcp://").and_then(|address| address.parse().ok()).with_context(|| {
            format!("--endpoint {}: expected tcp://ADDRESS:PORT with a numeric address", args.endpoint)
        })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let lane = {
        let _inside = runtime.enter();
        let capacity = QueueCapacity { messages: 4096, bytes: 4 * WAITING_BYTES };
        let options = LaneOptions { name: "frames", address, capacity, max_connections: 64 };
        PubLane::bind(options, crate::telemetry::LaneMetrics::default())?
    };
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
    let publisher = lane.publisher();
    let waited = Instant::now();
    while publisher.subscribers() == 0
        && waited.elapsed().as_secs_f64() < args.wait
        && !stop.load(Ordering::Relaxed)
    {
        std::thread::sleep(POLL);
    }
    let mut output = Lane { publisher, acquisition: None };
    let report = play(reader.as_mut(), &schedule, &mut output, &stop, &mut WallClock::default())?;
    output.end()?;
    runtime.block_on(lane.close(Duration::from_secs(30)));
    let latest_us = report.latest.as_micros();
    if args.json {
        return say(
            serde_json::json!({ "frames_sent": report.frames_sent, "latest_us": latest_us, "stopped": report.stopped }),
        );
    }
    say(format!("{} frames sent, at worst {latest_us} µs late", report.frames_sent))
}
