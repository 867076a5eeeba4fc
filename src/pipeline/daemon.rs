//! The running daemon: one thread a source, three threads for the stages, a tokio runtime for the lanes.
//!
//! Every thread ends when the one before it does, so that closing the inbox drains the whole chain.

use super::control::Controls;
use super::inbox::{Inbox, Put};
use super::now_ns;
use super::stages::{StageError, Stages};
use super::threads::{Outlets, start_stages};
use crate::config::{Config, ConfigError};
use crate::flags::tracker::Tracker;
use crate::frame::Frame;
use crate::ingest::{BracketEdge, FrameSink, IngestCounters, IngestTotals, SequenceGap, spawn_source};
use crate::networks::NetworkError;
use crate::publish::{LaneAddresses, Lanes, PublishError};
use crate::session::{Gap, RecordItem, RecorderThread, SessionError, SessionEvent};
use crate::telemetry::{Problem, Telemetry};
use crossbeam_channel::{Sender, bounded};
use ferrostem_proto::{Bracket, ResultMessage, ResultsMessage};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the system gives no thread or event loop: {0}")]
    System(#[from] std::io::Error),
    #[error("the thread `{0}` ended before it was ready")]
    Thread(&'static str),
}

impl From<crate::config::InvalidSetting> for DaemonError {
    fn from(setting: crate::config::InvalidSetting) -> Self {
        Self::Config(setting.into())
    }
}

/// What all threads and the control lane share.
pub(super) struct Shared {
    pub telemetry: Arc<Telemetry>,
    /// The config as it is now; the control lane can change parts of it.
    pub config: Mutex<Config>,
    /// The stages' settings as of now.
    pub stages: RwLock<Arc<Stages>>,
    /// The newest result, for `snapshot`.
    pub newest: Mutex<Option<Arc<ResultMessage>>>,
    pub recorder: Mutex<Option<RecorderThread>>,
    pub tracker: Mutex<Tracker>,
    pub models: Sender<LoadModel>,
    pub stop: watch::Sender<bool>,
    pub inbox: Inbox,
    sources: Vec<(String, Arc<IngestCounters>)>,
    counted: Mutex<IngestTotals>,
}

/// A request to the compute thread to replace a network, with where the answer goes.
pub(super) struct LoadModel {
    pub folder: PathBuf,
    pub answer: Sender<Result<(), NetworkError>>,
}

/// A panic while one of these is held leaves plain data behind, as good as before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn stages(&self) -> Arc<Stages> {
        Arc::clone(&self.stages.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands an item to the recorder, if there is one, which counts what it has to leave out.
    pub fn record(&self, item: RecordItem) {
        if let Some(recorder) = lock(&self.recorder).as_ref() {
            recorder.submit(item);
        }
    }

    /// Records that something happened; `detail` is a JSON object.
    pub fn record_event(&self, kind: &str, detail: &serde_json::Value) {
        self.record(RecordItem::Event(SessionEvent {
            t_ns: now_ns(),
            kind: kind.to_owned(),
            detail: detail.to_string(),
            ..SessionEvent::default()
        }));
    }

    /// Brings the telemetry up to what the recorder has dropped, and has the session tell of it.
    fn count_recorder(&self) {
        let dropped = lock(&self.recorder).as_ref().map_or(0, RecorderThread::take_frames_dropped);
        if dropped > 0 {
            self.telemetry.frames.record_dropped.inc_by(dropped);
            self.record_event("frames_dropped", &serde_json::json!({ "frames": dropped }));
        }
    }

    /// Brings the telemetry up to what sources and recorder have counted.
    pub fn count(&self) {
        self.count_recorder();
        let mut counted = lock(&self.counted);
        let mut now = IngestTotals::default();
        for (name, counters) in &self.sources {
            let totals = counters.totals();
            now.received += totals.received;
            now.gaps += totals.gaps;
            now.repeats += totals.repeats;
            now.restarts += totals.restarts;
            now.rejected += totals.rejected;
            now.partial_skipped += totals.partial_skipped;
            let key = format!("source.{name}");
            if totals.connected {
                self.telemetry.clear_problem(&key);
            } else {
                let message = counters.last_error().unwrap_or_else(|| "no publisher yet".to_owned());
                self.telemetry.set_problem(Problem { key, message, fatal: false });
            }
        }
        let frames = &self.telemetry.frames;
        frames.received.inc_by(now.received - counted.received);
        frames.gaps.inc_by(now.gaps - counted.gaps);
        frames.repeats.inc_by(now.repeats - counted.repeats);
        frames.restarts.inc_by(now.restarts - counted.restarts);
        frames.rejected.inc_by(now.rejected - counted.rejected);
        frames.partial_skipped.inc_by(now.partial_skipped - counted.partial_skipped);
        *counted = now;
    }
}

/// Frames of one source on their way in.
struct Sink(Arc<Shared>);

impl FrameSink for Sink {
    fn frame(&mut self, frame: Frame) {
        let frame = Arc::new(frame);
        self.0.record(RecordItem::Frame(Arc::clone(&frame)));
        if self.0.inbox.put(frame) == Put::Superseded {
            self.0.telemetry.frames.superseded.inc();
        }
    }

    fn gap(&mut self, gap: SequenceGap<'_>) {
        self.0.record(RecordItem::Gap(Gap {
            source: gap.source.to_owned(),
            acquisition: gap.acquisition.to_owned(),
            first_seq: gap.first_seq,
            missing: gap.missing,
            t_ns: now_ns(),
        }));
    }

    fn bracket(&mut self, source: &str, edge: BracketEdge, bracket: Bracket) {
        let kind = match edge {
            BracketEdge::Begin => "begin",
            BracketEdge::End => "end",
        };
        self.0.record(RecordItem::Event(SessionEvent {
            t_ns: now_ns(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            detail: serde_json::to_string(&bracket).unwrap_or_default(),
            acquisition: bracket.acquisition,
        }));
    }
}

/// A running daemon. [`Self::shutdown`] drains it.
pub struct Daemon {
    shared: Arc<Shared>,
    lanes: Option<Lanes>,
    runtime: tokio::runtime::Runtime,
    addresses: LaneAddresses,
    sources: Vec<JoinHandle<()>>,
    stages: Vec<JoinHandle<()>>,
    drain: Duration,
    stopped: watch::Receiver<bool>,
}

impl Daemon {
    /// Loads, binds, warms up and starts. Returns when the first frame can be processed.
    ///
    /// # Errors
    /// When the config, a model, the device or an endpoint cannot be used.
    pub fn start(config: &Config) -> Result<Self, DaemonError> {
        let telemetry = Arc::new(Telemetry::default());
        let (stop, stopped) = watch::channel(false);
        let (models, model_requests) = bounded(1);
        let stages = Stages::new(config)?;
        let sources: Vec<(String, Arc<IngestCounters>)> =
            config.sources.iter().map(|source| (source.name.clone(), Arc::default())).collect();
        telemetry.update_identity(|identity| config.mode.name().clone_into(&mut identity.mode));
        let shared = Arc::new(Shared {
            telemetry: Arc::clone(&telemetry),
            config: Mutex::new(config.clone()),
            tracker: Mutex::new(Tracker::new(stages.flags.tracker)),
            stages: RwLock::new(Arc::new(stages)),
            newest: Mutex::new(None),
            recorder: Mutex::new(None),
            models,
            stop,
            inbox: Inbox::new(config.mode, config.runtime.queue_frames),
            sources,
            counted: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("edge")
            .enable_all()
            .build()?;
        let lanes = {
            let _inside = runtime.enter();
            Lanes::bind(&config.lanes, &telemetry, Arc::new(Controls::new(Arc::clone(&shared))))?
        };
        let addresses = lanes.addresses();
        let outlets = Arc::new(Outlets {
            results: lanes.results(),
            latest: lanes.latest(),
            results_encoding: config.lanes.results_encoding,
            latest_encoding: config.lanes.latest_encoding,
        });
        runtime.spawn(heartbeat(
            Arc::clone(&shared),
            Arc::clone(&outlets),
            Duration::from_millis(config.runtime.status_interval_ms),
        ));
        let stages = start_stages(&shared, config, outlets, model_requests)?;
        if !config.record.path.is_empty() {
            super::control::start_recording(
                &shared,
                &PathBuf::from(&config.record.path),
                config.record.append,
            )?;
        }
        let mut threads = Vec::new();
        for (settings, (_, counters)) in config.sources.iter().zip(&shared.sources) {
            let sink = Box::new(Sink(Arc::clone(&shared)));
            threads.push(spawn_source(settings.clone(), sink, Arc::clone(counters), stopped.clone())?);
        }
        telemetry.set_ready();
        let drain = Duration::from_millis(config.runtime.drain_ms);
        Ok(Self { shared, lanes: Some(lanes), runtime, addresses, sources: threads, stages, drain, stopped })
    }

    /// The endpoints that were bound.
    pub fn addresses(&self) -> LaneAddresses {
        self.addresses
    }

    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.shared.telemetry
    }

    /// Turns true when the control lane asks for a shutdown.
    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.clone()
    }

    /// Runs a future on the daemon's runtime, for instance the wait for a signal.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Stops the sources, finishes the frames that were taken in, flushes the recorder and closes the lanes, all within
    /// the grace period of the config. Returns whether everything was finished.
    pub fn shutdown(mut self) -> bool {
        let deadline = Instant::now() + self.drain;
        self.shared.telemetry.set_stopping();
        self.shared.stop.send_replace(true);
        self.shared.inbox.close();
        let threads: Vec<JoinHandle<()>> = self.sources.drain(..).chain(self.stages.drain(..)).collect();
        let finished = join_until(threads, deadline);
        // The last totals, for whoever kept the telemetry.
        self.shared.count();
        if !finished {
            tracing::error!("frames were still being processed when the grace period ended");
        }
        if let Some(recorder) = lock(&self.shared.recorder).take() {
            let counts = recorder.finish();
            tracing::info!(
                frames = counts.written.frames,
                results = counts.written.results,
                "session closed"
            );
        }
        if let Some(lanes) = self.lanes.take() {
            self.runtime.block_on(
                lanes.close(
                    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(200)),
                ),
            );
        }
        self.runtime.shutdown_timeout(Duration::from_millis(500));
        finished
    }
}

/// Waits for all threads, at most until `deadline`.
fn join_until(threads: Vec<JoinHandle<()>>, deadline: Instant) -> bool {
    let (done, finished) = bounded(1);
    let waiter = std::thread::Builder::new().name("drain".to_owned()).spawn(move || {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread ended in a panic");
            }
        }
        // Nobody listens any more when the grace period is over.
        let _ = done.send(());
    });
    waiter.is_ok() && finished.recv_deadline(deadline).is_ok()
}

async fn heartbeat(shared: Arc<Shared>, outlets: Arc<Outlets>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        shared.count();
        let status = shared.telemetry.status(now_ns());
        outlets.publish("status", &ResultsMessage::Status(Box::new(status)));
    }
}
