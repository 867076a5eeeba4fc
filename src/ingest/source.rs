//! One thread a source: its socket, and the way back after a lost connection.
//!
//! # Features
//! - The thread `ingest-<name>` connects, decodes, validates and hands frames to a [`FrameSink`]. A sink that blocks stops the
//!   reading: TCP's windows fill, and a PUSH peer waits (a PUB peer drops at its own high-water mark).
//! - The `zeromq` crate reconnects a SUB socket after up to 30 s and a PULL socket never. So this module watches the
//!   socket's events and, when the peer goes, opens a new socket, a few times a second.
//!
//! # Assumptions
//! The peer is the configured publisher: `zeromq` 0.7 allocates what a frame's header announces.

use super::counters::IngestCounters;
use super::intake::{Intake, IntakeEvent};
use super::sequence::Step;
use super::settings::{Pattern, SourceSettings};
use crate::frame::Frame;
use bytes::Bytes;
use ferrostem_proto::Bracket;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use zeromq::{PullSocket, Socket, SocketEvent, SocketOptions, SocketRecv, SubSocket, ZmqError};

/// A connection attempt, greetings included; `zeromq` retries a refused one after 50, 100, 200 ms … within it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause after an attempt that failed at once.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Messages in error are logged this often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Where a source's frames go. Blocking here is back-pressure.
pub trait FrameSink: Send {
    fn frame(&mut self, frame: Frame);

    /// Sequence numbers of the source were left out; the frame behind them comes next.
    fn gap(&mut self, gap: SequenceGap<'_>) {
        let _ = gap;
    }

    /// An acquisition of the source began or ended.
    fn bracket(&mut self, source: &str, edge: BracketEdge, bracket: Bracket) {
        let _ = (source, edge, bracket);
    }
}

/// The numbers `first_seq .. first_seq + missing` of an acquisition never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceGap<'a> {
    pub source: &'a str,
    pub acquisition: &'a str,
    pub first_seq: u64,
    pub missing: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BracketEdge {
    Begin,
    End,
}

/// Starts the thread that serves the source. It ends when `shutdown` turns true or its sender is dropped, at once
/// unless the sink blocks.
///
/// # Errors
/// Where the system gives no thread or event loop.
pub fn spawn_source(
    settings: SourceSettings,
    sink: Box<dyn FrameSink>,
    counters: Arc<IngestCounters>,
    shutdown: watch::Receiver<bool>,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let name = format!("ingest-{}", settings.name);
    std::thread::Builder::new().name(name).spawn(move || {
        let mut source =
            Source { intake: Intake::new(settings), sink, counters, complaints: Complaints::default() };
        runtime.block_on(source.run(shutdown));
        source.counters.stopped();
    })
}

struct Source {
    intake: Intake,
    sink: Box<dyn FrameSink>,
    counters: Arc<IngestCounters>,
    complaints: Complaints,
}

impl Source {
    /// Connects, and connects again, until `shutdown`.
    async fn run(&mut self, mut shutdown: watch::Receiver<bool>) {
        let mut stop = std::pin::pin!(async move {
            // An error means that the sender is gone: whoever started this is no more.
            let _ = shutdown.wait_for(|stop| *stop).await;
        });
        loop {
            let end = tokio::select! {
                biased;
                () = &mut stop => return,
                end = self.serve_connection() => end,
            };
            let source = &self.intake.settings().name;
            match end {
                ConnectionEnd::Unreachable(error) => {
                    self.counters.unreachable(&error);
                    self.complaints.raise(|more| tracing::warn!(source, %error, more, "cannot connect"));
                    tokio::select! {
                        biased;
                        () = &mut stop => return,
                        () = tokio::time::sleep(RETRY_PAUSE) => {}
                    }
                }
                ConnectionEnd::Lost(reason) => {
                    self.counters.connection_lost(&reason);
                    tracing::warn!(source, reason, "connection lost, connecting again");
                }
            }
        }
    }

    /// One connection, from connecting to its end.
    async fn serve_connection(&mut self) -> ConnectionEnd {
        let settings = self.intake.settings();
        let mut options = SocketOptions::default();
        options.connect_timeout(CONNECT_TIMEOUT);
        match settings.pattern {
            Pattern::Pull => self.serve(PullSocket::with_options(options)).await,
            Pattern::Sub => {
                let mut socket = SubSocket::with_options(options);
                for topic in &settings.topics {
                    if let Err(error) = socket.subscribe(topic).await {
                        return ConnectionEnd::Unreachable(error);
                    }
                }
                self.serve(socket).await
            }
        }
    }

    async fn serve<S: Socket + SocketRecv>(&mut self, mut socket: S) -> ConnectionEnd {
        let mut events = socket.monitor();
        if let Err(error) = socket.connect(&self.intake.settings().endpoint).await {
            return ConnectionEnd::Unreachable(error);
        }
        self.counters.connected();
        let settings = self.intake.settings();
        tracing::info!(source = settings.name, endpoint = settings.endpoint, "connected");
        loop {
            // Messages first: what had arrived before the peer went is not lost.
            tokio::select! {
                biased;
                message = socket.recv() => match message {
                    Ok(message) => self.take(&message.into_vec()),
                    Err(error) => return ConnectionEnd::Lost(error.to_string()),
                },
                event = events.recv() => match event {
                    Ok(SocketEvent::Disconnected(_)) => {
                        return ConnectionEnd::Lost("the publisher closed the connection".to_owned());
                    }
                    Ok(_) => {}
                    Err(_) => return ConnectionEnd::Lost("the socket closed".to_owned()),
                },
            }
        }
    }

    fn take(&mut self, parts: &[Bytes]) {
        let event = self.intake.take(parts, unix_ns());
        let source = &self.intake.settings().name;
        match event {
            Ok(IntakeEvent::Frame { frame, step }) => {
                self.counters.frame(step);
                if let Some(Step::Gap { missing }) = step {
                    self.sink.gap(SequenceGap {
                        source,
                        acquisition: &frame.acquisition,
                        first_seq: frame.seq.saturating_sub(missing),
                        missing,
                    });
                }
                self.sink.frame(*frame);
            }
            Ok(IntakeEvent::PartialSkipped) => self.counters.partial_skipped(),
            Ok(IntakeEvent::Begin(bracket)) => self.sink.bracket(source, BracketEdge::Begin, bracket),
            Ok(IntakeEvent::End(bracket)) => self.sink.bracket(source, BracketEdge::End, bracket),
            Err(error) => {
                self.counters.rejected(&error);
                self.complaints.raise(|more| tracing::error!(source, %error, more, "message rejected"));
            }
        }
    }
}

enum ConnectionEnd {
    /// It never came about.
    Unreachable(ZmqError),
    Lost(String),
}

/// Lets one complaint through every [`LOG_INTERVAL`], with the number of those held back.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    held_back: u64,
}

impl Complaints {
    fn raise(&mut self, log: impl FnOnce(u64)) {
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            self.held_back += 1;
            return;
        }
        log(std::mem::take(&mut self.held_back));
        self.last = Some(Instant::now());
    }
}

/// Unix nanoseconds now; 0 on a clock before 1970.
fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
