//! `ferrostem inspect`: what is in a file, and what would be read.

use super::say;
use crate::session::{
    Contents, Entry, EntryKind, FrameReader, OpenOptions, RecordedFrame, SessionError, contents, open,
    write_npy,
};
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Entries that are printed for people; `--json` has all.
const MAX_LINES: usize = 40;

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Any file that analyze, replay, label and train read.
    file: PathBuf,
    /// Path of the images in the HDF5 file.
    #[arg(long, value_name = "PATH")]
    dataset: Option<String>,
    /// The frame that is described, and written with --npy.
    #[arg(long, default_value_t = 0)]
    frame: usize,
    /// Write the frame's pixels as they are to a new numpy file.
    #[arg(long, value_name = "FILE.npy")]
    npy: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// What would be read.
struct Readable {
    reader: Box<dyn FrameReader>,
    /// `None` in a file without frames.
    frame: Option<RecordedFrame>,
}

pub(super) fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let contents = contents(&args.file)?;
    let readable = readable(args);
    if args.json {
        say(as_json(args, &contents, &readable))?;
    } else {
        print_contents(&contents)?;
        if let Ok(readable) = &readable {
            print_readable(args, readable)?;
        }
    }
    let readable = readable?;
    let Some(path) = &args.npy else { return Ok(()) };
    let Some(frame) = &readable.frame else { bail!("{}: it has no frames", args.file.display()) };
    write_npy(path, &frame.message.data).with_context(|| format!("--npy {}", path.display()))
}

fn readable(args: &InspectArgs) -> Result<Readable, SessionError> {
    let options = OpenOptions { dataset: args.dataset.clone(), ..OpenOptions::default() };
    let mut reader = open(&args.file, &options)?;
    let wanted = !reader.is_empty() || args.frame > 0;
    let frame = if wanted { Some(reader.frame(args.frame)?) } else { None };
    Ok(Readable { reader, frame })
}

fn times_ns(reader: &dyn FrameReader) -> Option<[u64; 2]> {
    let last = reader.len().checked_sub(1)?;
    Some([reader.time_ns(0)?, reader.time_ns(last)?])
}

fn as_json(args: &InspectArgs, contents: &Contents, readable: &Result<Readable, SessionError>) -> Value {
    let mut object = json!({ "file": args.file, "contents": contents });
    let read = match readable {
        Err(error) => json!({ "error": error.to_string() }),
        Ok(Readable { reader, frame }) => {
            let message = frame.as_ref().map(|frame| &frame.message);
            json!({
                "format": reader.format().name(),
                "description": reader.description(),
                "frames": reader.len(),
                "times_ns": times_ns(reader.as_ref()),
                "calibration": reader.calibration(),
                "frame": args.frame,
                "shape": message.map(|it| it.data.shape()),
                "dtype": message.map(|it| it.data.dtype().numpy_name()),
                "pixel_size_pm": message.and_then(|it| it.pixel_size_pm),
                "acquisition": message.and_then(|it| it.acquisition.clone()),
                "seq": message.map(|it| it.seq),
                "channel": message.and_then(|it| it.channel.clone()),
                "t_start_ns": message.and_then(|it| it.t_start_ns),
                "rotation_rad": message.and_then(|it| it.rotation_rad),
                "center_nm": message.and_then(|it| it.center_nm),
                "fov_nm": message.and_then(|it| it.fov_nm),
                "dwell_us": message.and_then(|it| it.dwell_us),
            })
        }
    };
    if let (Value::Object(object), Value::Object(read)) = (&mut object, read) {
        object.extend(read);
    }
    object
}

fn print_contents(contents: &Contents) -> anyhow::Result<()> {
    say(format!("contents: {}", contents.container))?;
    for entry in contents.entries.iter().take(MAX_LINES) {
        say(format!("  {}", line(entry)))?;
    }
    let more = contents.entries.len().saturating_sub(MAX_LINES);
    if more > 0 || !contents.complete {
        let at_least = if contents.complete { "" } else { "at least " };
        say(format!("  … and {at_least}{more} more (--json lists them)"))?;
    }
    if let Some(recorded) = &contents.recorded {
        say(format!(
            "recorded: {} frames, {} results, {} columns and {} candidates in {} measurements; {} gaps, {} \
             acknowledgements",
            recorded.frames,
            recorded.results,
            recorded.columns,
            recorded.candidates,
            recorded.measurements,
            recorded.gaps,
            recorded.acknowledgements,
        ))?;
        for (name, text) in &recorded.metadata {
            say(format!("  {name}: {text}"))?;
        }
    }
    let is_smbfo = contents.entries.iter().any(|entry| entry.path == "/MainImage");
    match &contents.unit_cells {
        Some(path) => say(format!("unit cells measured in it: {}", path.display()))?,
        None if is_smbfo => say("unit cells measured in it: no *_UCParameterization.h5 beside it")?,
        None => {}
    }
    Ok(())
}

fn line(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::Group => format!("{}/", entry.path),
        EntryKind::Broken => format!("{} (leads nowhere)", entry.path),
        EntryKind::File => entry.path.clone(),
        EntryKind::Dataset | EntryKind::Page => {
            let units = if entry.units.is_empty() { String::new() } else { format!(", {}", entry.units) };
            format!("{} {:?} {}{units}", entry.path, entry.shape, entry.dtype)
        }
    }
}

fn print_readable(args: &InspectArgs, readable: &Readable) -> anyhow::Result<()> {
    let Readable { reader, frame } = readable;
    say(format!("read as: {}, {}", reader.format().name(), reader.description()))?;
    say(format!("frames: {}", reader.len()))?;
    if let Some([first, last]) = times_ns(reader.as_ref()) {
        let seconds = last.saturating_sub(first) as f64 * 1e-9;
        say(format!("times: {seconds} s from the first to the last, which begins at {first} ns"))?;
    }
    let Some(RecordedFrame { message, .. }) = frame else { return Ok(()) };
    let [rows, cols] = message.data.shape();
    say(format!(
        "frame {}: {rows} x {cols} (rows x columns), {}",
        args.frame,
        message.data.dtype().numpy_name()
    ))?;
    match message.pixel_size_pm {
        Some([row, col]) => {
            say(format!("pixel size: {row} x {col} pm (row, col), {}", reader.calibration()))?
        }
        None => say(format!("pixel size: {}", reader.calibration()))?,
    }
    let named =
        |name: &str, value: Option<String>| value.map_or(Ok(()), |value| say(format!("{name}: {value}")));
    named("acquisition", message.acquisition.clone())?;
    named("channel", message.channel.clone())?;
    named("scan rotation", message.rotation_rad.map(|angle| format!("{angle} rad")))?;
    named("centre", message.center_nm.map(|[y, x]| format!("y {y} nm, x {x} nm")))?;
    named("field of view", message.fov_nm.map(|[y, x]| format!("{y} x {x} nm (y, x)")))?;
    named("dwell time", message.dwell_us.map(|time| format!("{time} µs")))
}
