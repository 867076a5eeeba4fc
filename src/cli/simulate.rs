//! `ferrostem simulate`: frames with known truth, into a file or as a live acquisition.

use super::say;
use crate::ingest::SourceSettings;
use crate::ingest::validate::validate;
use crate::pipeline::now_ns;
use crate::session::{RecordSettings, Recorder, SessionHeader};
use crate::simulate::{AcquisitionServer, Scene, SimulatedFrame, render};
use anyhow::{Context as _, bail};
use clap::Args;
use ferrostem_proto::{FrameMessage, PixelArray};
use ndarray_npy::write_npy;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Built-in scene, or a scene file.
    #[arg(long, default_value = "bifeo3")]
    scene: String,
    /// File to write: a session (.h5) or one image (.npy).
    #[arg(long, value_name = "FILE", conflicts_with = "serve")]
    out: Option<PathBuf>,
    /// Frames in the session.
    #[arg(long, default_value_t = 1)]
    frames: u64,
    /// Serve a live acquisition with scan control until interrupted.
    #[arg(long)]
    serve: bool,
    /// PUB socket for the frames, instead of the scene's.
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// REP socket for the scan control, instead of the scene's.
    #[arg(long, value_name = "ENDPOINT")]
    control: Option<String>,
    /// Serve frames as fast as they are rendered.
    #[arg(long)]
    max: bool,
}

pub(super) fn simulate(args: &SimulateArgs) -> anyhow::Result<()> {
    let mut scene = Scene::resolve(&args.scene)?;
    if let Some(endpoint) = &args.endpoint {
        scene.server.frames.clone_from(endpoint);
    }
    if let Some(control) = &args.control {
        scene.server.control.clone_from(control);
    }
    if args.max {
        scene.server.pace = crate::simulate::Pace::Max;
    }
    match (&args.out, args.serve) {
        (None, true) => serve(scene),
        (Some(path), false) => match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => write_image(&scene, path),
            Some("h5" | "hdf5" | "hf5") => write_session(&scene, path, args.frames),
            _ => bail!("--out {}: expected a name ending in .h5 or .npy", path.display()),
        },
        _ => bail!("expected --out FILE or --serve"),
    }
}

fn serve(scene: Scene) -> anyhow::Result<()> {
    let server = AcquisitionServer::start(scene)?;
    let endpoints = server.endpoints();
    say(format!("frames on {}, scan control on {}", endpoints.frames, endpoints.control))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c()).context("waiting for Ctrl-C")?;
    server.shutdown();
    Ok(())
}

/// Frame `seq` of a still scan over the scene.
fn frame(scene: &Scene, seq: u64) -> anyhow::Result<SimulatedFrame> {
    let mut rng = ChaCha8Rng::seed_from_u64(scene.server.seed);
    rng.set_stream(seq);
    Ok(render(&scene.specimen, &scene.microscope, &mut rng)?)
}

fn write_image(scene: &Scene, path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        bail!("{}: exists already; it is not overwritten", path.display());
    }
    write_npy(path, &frame(scene, 0)?.pixels).with_context(|| path.display().to_string())
}

fn write_session(scene: &Scene, path: &Path, frames: u64) -> anyhow::Result<()> {
    let scope = scene.microscope.scanned();
    let header = SessionHeader {
        config_toml: toml::to_string_pretty(scene).context("the scene as TOML")?,
        created_ns: now_ns(),
        ..SessionHeader::default()
    };
    let mut recorder = Recorder::create(path, &RecordSettings::default(), &header)?;
    let source = SourceSettings { name: "simulator".to_owned(), ..SourceSettings::default() };
    let frame_time = Duration::from_secs_f64(scope.frame_s());
    let frame_ns = u64::try_from(frame_time.as_nanos()).unwrap_or(u64::MAX);
    let start_ns = now_ns();
    for seq in 0..frames {
        let simulated = frame(scene, seq)?;
        let pixels: PixelArray = simulated.pixel_array(scope.detector.pixel_type)?;
        let t_start_ns = start_ns.saturating_add(seq.saturating_mul(frame_ns));
        let message = FrameMessage {
            acquisition: Some(scene.server.acquisition.clone()),
            t_start_ns: Some(t_start_ns),
            t_end_ns: Some(t_start_ns.saturating_add(frame_ns)),
            pixel_size_pm: Some(scope.pixel_sizes_pm()),
            rotation_rad: Some(scope.rotation_rad),
            center_nm: Some(scope.center_nm),
            fov_nm: Some(scope.fov_nm()),
            dwell_us: Some(scope.dwell_us),
            channel: Some(scene.server.channel.clone()),
            ..FrameMessage::new(seq, pixels)
        };
        let received_ns = t_start_ns.saturating_add(frame_ns);
        recorder.frame(&validate(message, &source, &scene.server.acquisition, received_ns)?)?;
    }
    let summary = recorder.finish()?;
    say(format!("{}: {} frames", path.display(), summary.frames))
}
