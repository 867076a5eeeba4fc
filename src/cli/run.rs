//! `ferrostem run` and `ferrostem record`.

use super::{ConfigArgs, say};
use crate::config::Config;
use crate::networks::Manifest;
use crate::pipeline::Daemon;
use anyhow::{Context as _, bail};
use clap::Args;
use tokio::sync::watch;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Check the config and the models, print the resolved config, bind nothing.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Session file to write; `{n}` in it takes the first free number.
    #[arg(long, value_name = "FILE.h5")]
    out: String,
    /// Go on with the file if it exists, also after a daemon that was killed.
    #[arg(long)]
    append: bool,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    if args.check {
        let engine = config.engine()?;
        for folder in [&engine.dcnn, &engine.fcnn].into_iter().flatten() {
            Manifest::read(folder)?;
        }
        return say(config.to_toml()?);
    }
    serve(&config)
}

pub(super) fn record(args: &RecordArgs) -> anyhow::Result<()> {
    let mut config = args.config.load()?;
    config.record.path.clone_from(&args.out);
    config.record.append |= args.append;
    serve(&config)
}

/// Runs the daemon until a signal or the control lane ends it.
fn serve(config: &Config) -> anyhow::Result<()> {
    tracing::info!(config = %config.to_toml()?, "resolved config");
    let daemon = Daemon::start(config)?;
    let addresses = daemon.addresses();
    tracing::info!(
        results = %addresses.results, latest = %addresses.latest, control = %addresses.control, http = %addresses.http,
        "ready"
    );
    let stopped = daemon.stopped();
    daemon.block_on(ending(stopped)).context("waiting for a signal")?;
    if !daemon.shutdown() {
        bail!("not everything was finished within runtime.drain_ms");
    }
    Ok(())
}

/// Returns on SIGINT, SIGTERM, or when the control lane asks for a shutdown.
async fn ending(mut stopped: watch::Receiver<bool>) -> std::io::Result<()> {
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<std::io::Result<()>>();
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        terminated = terminated => terminated,
        // The sender lives as long as the daemon.
        _ = stopped.wait_for(|&stop| stop) => Ok(()),
    }
}
