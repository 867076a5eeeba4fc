//! `ferrostem simulate`: frames with known truth, into a file or as a live acquisition, or as pictures beside real images.

mod preview;
mod session;

use super::say;
use crate::simulate::{AcquisitionServer, FrameEncoding, Pace, Scene};
use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize as _;
use serde::de::value::{Error as NotOneOf, StrDeserializer};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Built-in scene, or a scene file.
    #[arg(long, default_value = "bifeo3")]
    scene: String,
    /// Seed of the specimen and of the noise, instead of the scene's.
    #[arg(long)]
    seed: Option<u64>,
    /// File to write: a session (.h5) or one image (.npy); the truth goes into NAME_truth.h5 beside it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Frames in the session.
    #[arg(long, default_value_t = 1)]
    frames: u64,
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    preview: preview::PreviewArgs,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Serve a live acquisition with scan control until interrupted.
    #[arg(long)]
    serve: bool,
    /// PUB socket for the frames, instead of the scene's.
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// REP-compatible socket for the scan control, instead of the scene's.
    #[arg(long, value_name = "ENDPOINT")]
    control: Option<String>,
    /// Serve frames as fast as they are rendered.
    #[arg(long)]
    max: bool,
    /// native (CBOR) or pyzmq (JSON header, raw pixels), instead of the scene's.
    #[arg(long, value_parser = encoding)]
    encoding: Option<FrameEncoding>,
    /// First part of each message, for subscribers to filter by; with --encoding pyzmq.
    #[arg(long)]
    topic: Option<String>,
    /// Publish each frame this many times before it is finished, with the rows scanned so far.
    #[arg(long, value_name = "TIMES")]
    partial: Option<u32>,
    /// Wait for `start` or `single` on the scan control.
    #[arg(long)]
    stopped: bool,
}

fn encoding(name: &str) -> Result<FrameEncoding, NotOneOf> {
    FrameEncoding::deserialize(StrDeserializer::new(name))
}

impl ServeArgs {
    /// Puts what was asked for in place of the scene's.
    fn change(&self, scene: &mut Scene) {
        let server = &mut scene.server;
        if let Some(endpoint) = &self.endpoint {
            server.frames.clone_from(endpoint);
        }
        if let Some(control) = &self.control {
            server.control.clone_from(control);
        }
        if self.max {
            server.pace = Pace::Max;
        }
        server.encoding = self.encoding.unwrap_or(server.encoding);
        server.topic = self.topic.clone().or_else(|| server.topic.take());
        server.partial_frames = self.partial.unwrap_or(server.partial_frames);
        server.running &= !self.stopped;
    }
}

pub(super) fn simulate(args: &SimulateArgs) -> anyhow::Result<()> {
    let mut scene = Scene::resolve(&args.scene)?;
    if let Some(seed) = args.seed {
        scene.specimen.seed = seed;
        scene.server.seed = seed;
    }
    args.serve.change(&mut scene);
    match (&args.out, args.serve.serve, &args.preview.preview) {
        (None, true, None) => serve(scene),
        (Some(path), false, None) => session::write(&scene, path, args.frames),
        (None, false, Some(folder)) => preview::preview(&scene, folder, &args.preview),
        _ => bail!("expected one of --out FILE, --serve and --preview DIR"),
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
