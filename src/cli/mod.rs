//! The command line: what each command reads, does and prints. The work is in the library.

mod analyze;
mod compare;
mod demo;
mod devices;
mod evaluate;
mod export;
mod import;
mod inspect;
mod label;
mod replay;
mod run;
mod simulate;
pub mod terminal;
mod train;

use crate::config::{Config, ConfigError};
use crate::session::{FrameReader, OpenOptions, SessionError, open};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

/// Polarization, its trustworthiness and the next site to look at, while a STEM images a ferroelectric.
#[derive(Debug, Parser)]
#[command(name = "ferrostem", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: frames in, polarization, flags and candidates out.
    #[command(
        after_help = "Example:\n  ferrostem run --config configs/live.toml --set sources='[{endpoint=\"tcp://127.0.0.1:5555\"}]'"
    )]
    Run(run::RunArgs),
    /// Run the daemon and record frames and results into a session file.
    #[command(after_help = "Example:\n  ferrostem record --config configs/live.toml --out 'session_{n}.h5'")]
    Record(run::RecordArgs),
    /// Publish a recorded session's frames over the socket that a microscope would use.
    #[command(after_help = "Example:\n  ferrostem replay session.h5 --speed 2")]
    Replay(replay::ReplayArgs),
    /// Run all stages on an image or a session, without sockets.
    #[command(
        after_help = "Example:\n  ferrostem analyze image.npy --pixel-size-pm 14.5 --out result.h5 --png pictures"
    )]
    Analyze(analyze::AnalyzeArgs),
    /// Say what is in a file, and what would be read of it.
    #[command(
        after_help = "Examples:\n  ferrostem inspect stack.hspy\n  ferrostem inspect image.emd --frame 3 --npy frame.npy"
    )]
    Inspect(inspect::InspectArgs),
    /// Simulate a microscope: frames with known truth, into a file, as a live acquisition, or beside real images.
    #[command(
        after_help = "Examples:\n  ferrostem simulate --out session.h5 --frames 10\n  ferrostem simulate --serve --encoding pyzmq\n  ferrostem simulate --scene srtio3-scan --preview pictures --beside image.npy"
    )]
    Simulate(simulate::SimulateArgs),
    /// Write a session's frames and results as files of other programs.
    #[command(
        after_help = "Examples:\n  ferrostem export session.h5 --out session.hspy\n  ferrostem export session.h5 --to csv --out tables\n\n\
            Quantities are named by measurement: `Measurement_000 p_x (pm)` in HyperSpy and EMD files, Measurement_000/p_x in NeXus.\n\
            csv writes candidates.csv, columns.csv, acks.csv and gaps.csv into the folder --out."
    )]
    Export(export::ExportArgs),
    /// Say where the results of two sessions of the same frames differ.
    #[command(
        after_help = "Example:\n  ferrostem compare then.h5 now.h5 --tolerance 0.01 --tolerance p_sigma=0.1\n\n\
            Exit status: 0 the same within the tolerance, 1 different, 2 an error."
    )]
    Compare(compare::CompareArgs),
    /// Measure frames without a network: columns fitted, unit cells with P and its error; labels to train on.
    #[command(
        after_help = "Examples:\n  ferrostem label image.npy --pixel-size-pm 14.5 --out labels.h5 --png pictures\n  \
            ferrostem label session.h5 --frames 0:2 --material batio3 --json"
    )]
    Label(label::LabelArgs),
    /// Train a network on simulated frames.
    #[command(
        after_help = "Examples:\n  ferrostem train dcnn --config configs/train/dcnn.toml --output configs/models\n  \
            ferrostem train dcnn --from-model dcnn-perovskite-100 --label-frames session.h5 --frames 0:2 --output adapted"
    )]
    Train(train::TrainArgs),
    /// Measure how good the networks are, on simulated frames whose truth is known, or on images from a microscope.
    #[command(
        after_help = "Examples:\n  ferrostem evaluate accuracy --out accuracy\n  ferrostem evaluate regression --quick --out figures\n  \
            ferrostem evaluate composition Sm_0_0_HAADF.h5 Sm_7_0_HAADF.h5 --out study\n  \
            ferrostem evaluate real sto.npy bto.npy --pixel-size-pm 10.013,29.66 --out real"
    )]
    Evaluate(evaluate::EvaluateArgs),
    /// Take over a network that PyTorch or AtomAI trained, as a model folder.
    #[command(after_help = import::HELP)]
    Import(import::ImportArgs),
    /// List the devices that --device can name.
    #[command(after_help = "Example:\n  ferrostem devices --json")]
    Devices(devices::DevicesArgs),
    /// A simulated microscope, the daemon and a controller that steers to the best candidate, over real sockets.
    #[command(
        after_help = "Examples:\n  ferrostem demo\n  ferrostem demo --frames 5 --headless --json --png pictures"
    )]
    Demo(demo::DemoArgs),
}

/// `FIRST:END` of --frames, END not included; either may be left out where the file has `len` frames.
fn frame_range(text: &str, len: Option<usize>) -> anyhow::Result<Range<usize>> {
    let bound = |text: &str, without: Option<usize>| {
        if text.is_empty() { without } else { text.parse().ok() }
    };
    let parsed = text
        .split_once(':')
        .and_then(|(first, end)| Some(bound(first, len.map(|_| 0))?..bound(end, len)?))
        .filter(|range| len.is_none_or(|len| range.start < range.end && range.end <= len));
    parsed.with_context(|| match len {
        Some(len) => format!("--frames {text}: expected FIRST:END within the file's 0:{len}"),
        None => format!("--frames {text}: expected FIRST:END, for example 0:2"),
    })
}

/// A bar of as many frames, moved on by whoever does them.
fn progress(frames: u64, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(frames);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} frame {pos}/{len} {per_sec} left {eta}") {
        bar.set_style(style);
    }
    bar
}

/// The networks that are used in place of the config's.
#[derive(Debug, Args)]
struct ModelArgs {
    /// Model folder, name of a shipped model, or none.
    #[arg(long, value_name = "DIR")]
    dcnn: Option<String>,
    /// Model folder, name of a shipped model, or none.
    #[arg(long, value_name = "DIR")]
    fcnn: Option<String>,
}

impl ModelArgs {
    fn override_in(&self, config: &mut Config) {
        if let Some(dcnn) = &self.dcnn {
            config.models.dcnn.clone_from(dcnn);
        }
        if let Some(fcnn) = &self.fcnn {
            config.models.fcnn.clone_from(fcnn);
        }
    }
}

/// The file whose frames are read.
#[derive(Debug, Args)]
struct FileArgs {
    /// Session, NSID, HyperSpy, EMD, Nion Swift, NeXus, TIFF, .npy, …, or any HDF5 file with --dataset.
    file: PathBuf,
    /// Path of the images in the HDF5 file.
    #[arg(long)]
    dataset: Option<String>,
}

impl FileArgs {
    fn open(&self) -> Result<Box<dyn FrameReader>, SessionError> {
        let options = OpenOptions { dataset: self.dataset.clone(), ..OpenOptions::default() };
        open(&self.file, &options)
    }

    /// What the frames are named after.
    fn stem(&self) -> String {
        self.file.file_stem().map_or_else(|| "frame".to_owned(), |stem| stem.to_string_lossy().into_owned())
    }
}

/// Where the settings come from.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// Config file; without it, the built-in defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one setting; the value is TOML.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// auto, cpu, vulkan[:INDEX] or wgpu[:INDEX].
    #[arg(long)]
    device: Option<String>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, ConfigError> {
        let mut sets = self.sets.clone();
        sets.extend(self.device.iter().map(|device| format!("device=\"{device}\"")));
        Config::load(self.config.as_deref(), std::env::vars(), &sets)
    }
}

/// Runs the command line; errors go to standard error, with exit code 1 (`compare`: 2).
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let quiet = matches!(&cli.command, Command::Demo(args) if args.draws());
    if !quiet {
        let filter = tracing_subscriber::EnvFilter::try_from_env("FERROSTEM_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("ferrostem=info,warn"));
        let colours = std::io::stderr().is_terminal();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(colours)
            .init();
    }
    let comparing = matches!(&cli.command, Command::Compare(_));
    let done = |()| ExitCode::SUCCESS;
    let outcome = match cli.command {
        Command::Run(args) => run::run(&args).map(done),
        Command::Record(args) => run::record(&args).map(done),
        Command::Replay(args) => replay::replay(&args).map(done),
        Command::Analyze(args) => analyze::analyze(&args).map(done),
        Command::Inspect(args) => inspect::inspect(&args).map(done),
        Command::Simulate(args) => simulate::simulate(&args).map(done),
        Command::Export(args) => export::export(&args).map(done),
        Command::Compare(args) => compare::compare(&args),
        Command::Label(args) => label::label(&args).map(done),
        Command::Train(args) => train::train(&args).map(done),
        Command::Evaluate(args) => evaluate::evaluate(&args).map(done),
        Command::Import(args) => import::import_model(&args).map(done),
        Command::Devices(args) => devices::devices(&args).map(done),
        Command::Demo(args) => demo::demo(&args).map(done),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // Standard error may be closed; there is nowhere else to say so.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            if comparing { ExitCode::from(compare::ERROR) } else { ExitCode::FAILURE }
        }
    }
}

/// Prints one line for people or scripts to standard output.
fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::frame_range;

    #[test]
    fn ranges_of_frames_are_read_and_refused() {
        let read = |text, len| frame_range(text, len).ok();
        assert_eq!(read("1:3", Some(5)), Some(1..3));
        assert_eq!([read(":2", Some(5)), read("2:", Some(5))], [Some(0..2), Some(2..5)]);
        assert_eq!([read("2:2", Some(5)), read("1:6", Some(5)), read("1", Some(5))], [None, None, None]);
        assert_eq!([read("0:2", None), read("1:", None), read(":2", None)], [Some(0..2), None, None]);
        let error = frame_range("3:9", Some(5)).unwrap_err().to_string();
        assert_eq!(error, "--frames 3:9: expected FIRST:END within the file's 0:5");
    }
}
