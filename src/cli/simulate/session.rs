//! Frames into a file, and their truth into the one beside it.

use crate::cli::{progress, say};
use crate::ingest::SourceSettings;
use crate::ingest::validate::validate;
use crate::pipeline::now_ns;
use crate::session::truth::{FrameTruth, TruthHeader, TruthScan, TruthWriter, truth_path};
use crate::session::{RecordSettings, Recorder, SessionHeader};
use crate::simulate::{Beam, Scanned, Scene};
use anyhow::{Context as _, bail};
use ferrostem_proto::FrameMessage;
use ndarray_npy::write_npy;
use std::path::Path;

/// Writes what `path` ends in: a session, or one image.
pub(super) fn write(scene: &Scene, path: &Path, frames: u64) -> anyhow::Result<()> {
    let truth = truth_path(path);
    for file in [path, &truth] {
        if file.exists() {
            bail!("{}: exists already; it is not overwritten", file.display());
        }
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => write_image(scene, path),
        Some("h5" | "hdf5" | "hf5") => write_session(scene, path, frames),
        _ => bail!("--out {}: expected a name ending in .h5 or .npy", path.display()),
    }
}

fn write_image(scene: &Scene, path: &Path) -> anyhow::Result<()> {
    let mut labels = Labels::create(scene, path)?;
    let scanned = Beam::new(scene).scan(&scene.microscope)?;
    write_npy(path, &scanned.frame.pixels).with_context(|| path.display().to_string())?;
    labels.add(0, scanned, now_ns())?;
    labels.finish()?;
    say(format!("{}: one image; {}: its truth", path.display(), truth_path(path).display()))
}

fn write_session(scene: &Scene, path: &Path, frames: u64) -> anyhow::Result<()> {
    let header = SessionHeader {
        config_toml: toml::to_string_pretty(scene).context("the scene as TOML")?,
        created_ns: now_ns(),
        ..SessionHeader::default()
    };
    let mut recorder = Recorder::create(path, &RecordSettings::default(), &header)?;
    let path = recorder.path().to_owned();
    let mut labels = Labels::create(scene, &path)?;
    let source = SourceSettings { name: "simulator".to_owned(), ..SourceSettings::default() };
    let mut beam = Beam::new(scene);
    let mut start_ns = now_ns();
    let bar = progress(frames, false);
    for seq in 0..frames {
        let scanned = beam.scan(&scene.microscope)?;
        let (message, end_ns) = labels.add(seq, scanned, start_ns)?;
        recorder.frame(&validate(message, &source, &scene.server.acquisition, end_ns)?)?;
        recorder.flush()?;
        start_ns = end_ns;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let summary = recorder.finish()?;
    let labelled = labels.finish()?;
    say(format!(
        "{}: {} frames; {}: the truth of {labelled}",
        path.display(),
        summary.frames,
        truth_path(&path).display()
    ))
}

/// The truth file that grows beside the frames.
struct Labels {
    writer: TruthWriter,
    acquisition: String,
}

impl Labels {
    fn create(scene: &Scene, path: &Path) -> anyhow::Result<Self> {
        let scan = scene.microscope.scanned();
        let header = TruthHeader {
            scene_toml: toml::to_string_pretty(scene).context("the scene as TOML")?,
            session: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            acquisition: scene.server.acquisition.clone(),
            created_ns: now_ns(),
            shape: scan.shape,
            pixel_size_pm: scan.pixel_sizes_pm(),
            saturates: scan.detector.full_well_counts.is_some(),
        };
        Ok(Self {
            writer: TruthWriter::create(&truth_path(path), &header)?,
            acquisition: scene.server.acquisition.clone(),
        })
    }

    /// Notes the truth of a frame that began at `start_ns`; the frame as a message, and when it ended.
    fn add(&mut self, seq: u64, scanned: Scanned, start_ns: u64) -> anyhow::Result<(FrameMessage, u64)> {
        let Scanned { frame, message, drift_nm, seen, duration_s } = scanned;
        let end_ns = start_ns.saturating_add((duration_s * 1e9).round() as u64);
        let message = FrameMessage {
            acquisition: Some(self.acquisition.clone()),
            seq,
            t_start_ns: Some(start_ns),
            t_end_ns: Some(end_ns),
            ..message
        };
        let scan = TruthScan {
            seq,
            t_start_ns: start_ns,
            t_end_ns: end_ns,
            pixel_size_pm: seen.pixel_sizes_pm(),
            rotation_rad: seen.rotation_rad,
            center_nm: message.center_nm.unwrap_or(seen.center_nm),
            drift_nm,
            drift_pm: seen.drift_pm,
        };
        self.writer.frame(&FrameTruth { scan, truth: frame.truth })?;
        Ok((message, end_ns))
    }

    fn finish(self) -> anyhow::Result<usize> {
        Ok(self.writer.finish()?)
    }
}
