//! From frame sent to result received, over loopback sockets: p50 and p99 for 256², 512² and 1024² f32 frames, with the
//! shipped networks, and with the networks taken out (the daemon's own overhead). Prints a Markdown table.
//!
//! `cargo bench --bench end_to_end -- [--device DEVICE] [--frames N] [--overhead-frames N]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test or a bench that cannot go on says so"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use ferrostem::config::Config;
use ferrostem::pipeline::Daemon;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};
use support::{FramesLane, Subscriber, crystal, runtime};

const SIDES: [usize; 3] = [256, 512, 1024];

struct Options {
    device: String,
    frames: u64,
    overhead_frames: u64,
}

impl Options {
    /// Unknown words, such as cargo's own `--bench`, are passed over.
    fn read() -> Self {
        let mut options = Self { device: "cpu".to_owned(), frames: 20, overhead_frames: 1000 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|value| value.parse().ok());
            match word.as_str() {
                "--frames" => options.frames = number().unwrap_or(options.frames),
                "--overhead-frames" => options.overhead_frames = number().unwrap_or(options.overhead_frames),
                "--device" => options.device = words.next().unwrap_or(options.device),
                _ => {}
            }
        }
        options
    }
}

/// One row: the frames' round trips and what each stage took.
struct Row {
    round_trips: Vec<Duration>,
    stages_us: Vec<(String, Vec<u64>)>,
}

impl Row {
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1e3
    }

    fn stages(&self) -> String {
        let mut text = String::new();
        for (stage, times) in &self.stages_us {
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let at =
                |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)] as f64 / 1e3;
            if at(50) >= 0.05 {
                write!(text, "{stage} {:.1} / {:.1}, ", at(50), at(99)).unwrap();
            }
        }
        text.trim_end_matches(", ").to_owned()
    }
}

/// Sends one frame after the other, each when the result of the one before has arrived.
fn measure(side: usize, frames: u64, with_networks: bool, device: &str) -> Row {
    let runtime = runtime();
    let lane = FramesLane::bind(&runtime);
    let mut config = support::config(&lane, None, &[]);
    config.device = device.to_owned();
    if with_networks {
        config.models = Config::default().models;
        config.runtime.warm_up_shape = [side, side];
    }
    let daemon = Daemon::start(&config).unwrap();
    let pixels = crystal(side);
    let mut row = Row { round_trips: Vec::new(), stages_us: Vec::new() };
    runtime.block_on(async {
        let mut subscriber = Subscriber::connect(&daemon, &["result", "status"]).await;
        subscriber.next().await;
        lane.wait_for_subscriber();
        for seq in 0..frames + 2 {
            let sent = Instant::now();
            lane.send(seq, &pixels);
            let result = subscriber.result().await;
            let round_trip = sent.elapsed();
            assert_eq!(result.seq, seq);
            // The first two fill caches.
            if seq < 2 {
                continue;
            }
            row.round_trips.push(round_trip);
            for (stage, us) in result.timing.stages_us {
                match row.stages_us.iter_mut().find(|(name, _)| *name == stage) {
                    Some((_, times)) => times.push(us),
                    None => row.stages_us.push((stage, vec![us])),
                }
            }
        }
    });
    daemon.shutdown();
    row
}

fn main() {
    let options = Options::read();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| networks | frame | frames | p50 ms | p99 ms | stages, p50 / p99 ms |\n|---|---|---|---|---|---|"
    )
    .unwrap();
    for (with_networks, frames) in [(false, options.overhead_frames), (true, options.frames)] {
        for side in SIDES {
            let row = measure(side, frames, with_networks, &options.device);
            let networks = if with_networks { "both" } else { "none" };
            let (p50, p99) = (row.percentile(50), row.percentile(99));
            writeln!(out, "| {networks} | {side}² f32 | {frames} | {p50:.2} | {p99:.2} | {} |", row.stages())
                .unwrap();
        }
    }
}
