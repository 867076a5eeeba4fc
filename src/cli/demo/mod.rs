//! `ferrostem demo`: a simulated microscope, the daemon, and a controller that steers the scan to the best candidate, all
//! in one process and over real sockets.

mod controller;
mod summary;

use super::say;
use super::terminal::{LiveView, ViewState, Wish};
use crate::config::Config;
use crate::figure;
use crate::ingest::SourceSettings;
use crate::pipeline::Daemon;
use crate::simulate::{AcquisitionServer, Scene};
use anyhow::{Context as _, bail};
use clap::Args;
use controller::{Controller, Event};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use ferrostem_proto::ResultMessage;
use ndarray::Array2;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use summary::Summary;

/// Events of the controller that may wait for the view.
const EVENTS: usize = 64;
/// How often the view answers keys.
const TICK: Duration = Duration::from_millis(50);
/// Without a frame for this long the demo is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// End after this many processed frames; without it, run until q is pressed.
    #[arg(long)]
    frames: Option<u64>,
    /// No live view.
    #[arg(long)]
    headless: bool,
    /// One JSON summary at the end.
    #[arg(long)]
    json: bool,
    /// Folder for pictures of the last frame.
    #[arg(long, value_name = "DIR")]
    png: Option<PathBuf>,
    /// Built-in scene, or a scene file.
    #[arg(long, default_value = "bifeo3")]
    scene: String,
    #[command(flatten)]
    config: super::ConfigArgs,
}

impl DemoArgs {
    /// Whether the terminal belongs to the live view.
    pub(super) fn draws(&self) -> bool {
        !self.headless && std::io::stdout().is_terminal()
    }

    /// Free ports on loopback unless the config says otherwise, and the simulator as the only source.
    fn config(&self, frames_endpoint: &str) -> anyhow::Result<Config> {
        let mut args = self.config.clone();
        if args.config.is_none() {
            let free =
                ["results", "latest", "control"].map(|lane| format!("lanes.{lane}=\"tcp://127.0.0.1:0\""));
            let mut sets: Vec<String> = free.into();
            sets.push("lanes.http=\"127.0.0.1:0\"".to_owned());
            sets.append(&mut args.sets);
            args.sets = sets;
        }
        let mut config = args.load()?;
        config.sources = vec![SourceSettings {
            name: "simulator".to_owned(),
            endpoint: frames_endpoint.to_owned(),
            ..SourceSettings::default()
        }];
        config.validate()?;
        Ok(config)
    }
}

pub(super) fn demo(args: &DemoArgs) -> anyhow::Result<()> {
    if args.frames.is_none() && !args.draws() {
        bail!("without a terminal or with --headless, expected --frames N");
    }
    let mut scene = Scene::resolve(&args.scene)?;
    scene.server.frames = "tcp://127.0.0.1:0".to_owned();
    scene.server.control = "tcp://127.0.0.1:0".to_owned();
    let microscope = AcquisitionServer::start(scene).context("the simulated microscope")?;
    let config = args.config(&microscope.endpoints().frames)?;
    let daemon = Daemon::start(&config).context("the daemon")?;

    let (sender, events) = bounded(EVENTS);
    let addresses = daemon.addresses();
    let controller = Controller::start(
        controller::Endpoints {
            results: format!("tcp://{}", addresses.results),
            control: format!("tcp://{}", addresses.control),
            frames: microscope.endpoints().frames.clone(),
            scan: microscope.endpoints().control.clone(),
        },
        sender,
    )?;
    let mut seen = Seen { summary: Summary::start(), newest: None };
    let outcome = watch(args, &events, &mut seen);
    controller.stop();
    let telemetry = Arc::clone(daemon.telemetry());
    if !daemon.shutdown() {
        seen.summary.leave_unfinished(&telemetry.snapshot());
    }
    microscope.shutdown();
    if let Some(folder) = &args.png {
        seen.draw(folder)?;
    }
    outcome?;
    if args.json { say(seen.summary.to_json()) } else { say(seen.summary) }
}

/// What was seen of the demo until it ended.
struct Seen {
    summary: Summary,
    /// The newest result with the frame it came from.
    newest: Option<(Array2<f32>, ResultMessage)>,
}

impl Seen {
    /// Pictures of the last frame that was finished.
    fn draw(&self, folder: &Path) -> anyhow::Result<()> {
        match &self.newest {
            Some((frame, result)) => {
                figure::write_all(folder, "demo", frame, result)?;
            }
            None if self.summary.frames() > 0 => {
                tracing::warn!("no pictures: the controller had let go of every frame when its result came");
            }
            None => {}
        }
        Ok(())
    }
}

/// Follows the controller's events until enough frames were processed, no more of them are, or the view is closed.
///
/// # Errors
/// When the controller fails, or not a single frame was processed for a long time.
fn watch(args: &DemoArgs, events: &Receiver<Event>, seen: &mut Seen) -> anyhow::Result<()> {
    let mut view = if args.draws() { Some(LiveView::open()?) } else { None };
    let mut state = ViewState::default();
    let Seen { summary, newest } = seen;
    let mut last_result = Instant::now();
    loop {
        match events.recv_timeout(TICK) {
            Ok(Event::Result { frame, result }) => {
                last_result = Instant::now();
                state.observe(&result);
                summary.observe(&result);
                if let Some(frame) = frame {
                    *newest = Some((frame, *result));
                }
            }
            Ok(Event::Status(status)) => {
                state.observe_status(&status);
                summary.observe_status(&status);
            }
            Ok(Event::Steered(steering)) => {
                state.controller = steering.to_string();
                summary.observe_steering();
            }
            Ok(Event::Failed(error)) => bail!("the controller: {error}"),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the controller ended"),
        }
        if let Some(view) = &mut view
            && view.update(&state)? == Wish::Quit
        {
            break;
        }
        if args.frames.is_some_and(|frames| summary.frames() >= frames) {
            break;
        }
        if last_result.elapsed() > PATIENCE {
            let seconds = PATIENCE.as_secs();
            if summary.frames() == 0 {
                bail!("no result for {seconds} s");
            }
            tracing::warn!(
                frames = summary.frames(),
                "no further result for {seconds} s: the demo ends here"
            );
            break;
        }
    }
    Ok(())
}
