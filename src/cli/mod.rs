//! The command line: what each command reads, does and prints. The work is in the library.

mod analyze;
mod demo;
mod devices;
mod replay;
mod run;
mod simulate;
pub mod terminal;
mod train;

use crate::config::{Config, ConfigError};
use clap::{Args, Parser, Subcommand};
use std::io::{IsTerminal as _, Write as _};
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
    /// Simulate a microscope: frames with known truth, into a file, as a live acquisition, or beside real images.
    #[command(
        after_help = "Examples:\n  ferrostem simulate --out session.h5 --frames 10\n  ferrostem simulate --serve --encoding pyzmq\n  ferrostem simulate --scene srtio3 --preview pictures --beside image.npy"
    )]
    Simulate(simulate::SimulateArgs),
    /// Train a network on simulated frames.
    #[command(
        after_help = "Example:\n  ferrostem train dcnn --config configs/train/dcnn.toml --output configs/models"
    )]
    Train(train::TrainArgs),
    /// List the devices that --device can name.
    #[command(after_help = "Example:\n  ferrostem devices --json")]
    Devices(devices::DevicesArgs),
    /// A simulated microscope, the daemon and a controller that steers to the best candidate, over real sockets.
    #[command(
        after_help = "Examples:\n  ferrostem demo\n  ferrostem demo --frames 5 --headless --json --png pictures"
    )]
    Demo(demo::DemoArgs),
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

/// Runs the command line; errors go to standard error, with exit code 1.
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
    let outcome = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Record(args) => run::record(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Analyze(args) => analyze::analyze(&args),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Train(args) => train::train(&args),
        Command::Devices(args) => devices::devices(&args),
        Command::Demo(args) => demo::demo(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; there is nowhere else to say so.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints one line for people or scripts to standard output.
fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
