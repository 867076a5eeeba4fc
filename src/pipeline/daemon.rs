//! The running daemon: one thread a source, three threads for the stages, a tokio runtime for the lanes.
//!
//! Every thread ends when the one before it does, so that closing the inbox drains the whole chain.

use super::control::Controls;
use super::inbox::{Inbox, Put};
use super::stages::{Inputs, Measured, Prepared, StageError, Stages, finish, measure, prepare_frame};
use super::now_ns;
use crate::config::{Config, ConfigError, Mode};
use crate::flags::Reference;
use crate::flags::tracker::Tracker;
use crate::frame::Frame;
use crate::ingest::{FrameSink, IngestCounters, IngestTotals, spawn_source};
use crate::networks::{Engine, NetworkError};
use crate::publish::{LaneAddresses, LaneEncoding, Lanes, PublishError, Publisher};
use crate::session::{RecordItem, RecorderThread, SessionError};
use crate::telemetry::{Problem, Telemetry};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use ferrostem_proto::{CandidatesMessage, ResultMessage, ResultsMessage, bincode, cbor};
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
    inbox: Inbox,
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

    /// Hands an item to the recorder, if there is one.
    pub fn record(&self, item: RecordItem) {
        let is_frame = matches!(item, RecordItem::Frame(_));
        if let Some(recorder) = lock(&self.recorder).as_ref()
            && !recorder.submit(item)
            && is_frame
        {
            self.telemetry.frames.record_dropped.inc();
        }
    }

    /// Brings the telemetry up to what the sources have counted.
    fn count_sources(&self) {
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
}

/// The lanes' encodings and sockets, for the finish thread.
struct Outlets {
    results: Publisher,
    latest: Publisher,
    results_encoding: LaneEncoding,
    latest_encoding: LaneEncoding,
}

impl Outlets {
    fn encode(encoding: LaneEncoding, message: &ResultsMessage) -> Option<Bytes> {
        let encoded = match encoding {
            LaneEncoding::Cbor => cbor::encode_results(message),
            LaneEncoding::Bincode => bincode::encode_results(message),
        };
        encoded.map_err(|error| tracing::error!(%error, "a message could not be encoded")).ok()
    }

    fn publish(&self, topic: &'static str, message: &ResultsMessage) -> Option<Bytes> {
        let payload = Self::encode(self.results_encoding, message)?;
        self.results.publish(topic, payload.clone());
        Some(payload)
    }

    fn publish_result(&self, result: ResultMessage) {
        let message = ResultsMessage::Result(Box::new(result));
        let payload = self.publish("result", &message);
        let single = if self.latest_encoding == self.results_encoding {
            payload
        } else {
            Self::encode(self.latest_encoding, &message)
        };
        if let Some(payload) = single {
            self.latest.publish_single(payload);
        }
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
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("edge").enable_all().build()?;
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
            super::control::start_recording(&shared, &PathBuf::from(&config.record.path))?;
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
        if !finished {
            tracing::error!("frames were still being processed when the grace period ended");
        }
        if let Some(recorder) = lock(&self.shared.recorder).take() {
            let counts = recorder.finish();
            tracing::info!(frames = counts.written.frames, results = counts.written.results, "session closed");
        }
        if let Some(lanes) = self.lanes.take() {
            self.runtime.block_on(lanes.close(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(200))));
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
        shared.count_sources();
        let status = shared.telemetry.status(now_ns());
        outlets.publish("status", &ResultsMessage::Status(Box::new(status)));
    }
}

/// A prepared frame's way through the compute thread, with the reference its flags need.
struct Job {
    measured: Measured,
    reference: Arc<Reference>,
}

/// Starts prepare, compute and finish; returns when the networks are loaded and warm.
fn start_stages(
    shared: &Arc<Shared>,
    config: &Config,
    outlets: Arc<Outlets>,
    model_requests: Receiver<LoadModel>,
) -> Result<Vec<JoinHandle<()>>, DaemonError> {
    let (permits, permitted) = bounded::<Inputs>(1);
    let (prepared_sender, prepared) = bounded::<Prepared>(1);
    let (jobs, finished) = bounded::<Job>(1);
    let (warm, warmed) = bounded::<Result<(), NetworkError>>(1);

    let compute = Compute {
        shared: Arc::clone(shared),
        config: config.clone(),
        permits,
        prepared,
        jobs,
        model_requests,
    };
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let compute = thread("compute").spawn(move || compute.run(&warm))?;
    match warmed.recv() {
        Ok(loaded) => loaded?,
        Err(_) => return Err(DaemonError::Thread("compute")),
    }
    let prepare = thread("prepare").spawn({
        let shared = Arc::clone(shared);
        move || run_prepare(&shared, &permitted, &prepared_sender)
    })?;
    let finish = thread("finish").spawn({
        let shared = Arc::clone(shared);
        move || run_finish(&shared, &outlets, &finished)
    })?;
    Ok(vec![prepare, compute, finish])
}

/// Prepares a frame whenever the compute thread permits it.
fn run_prepare(shared: &Shared, permitted: &Receiver<Inputs>, prepared: &Sender<Prepared>) {
    // A permit that led to no frame is kept: the compute thread gives one for each frame that it will take.
    while let Ok(inputs) = permitted.recv() {
        loop {
            let Some(frame) = shared.inbox.take() else { return };
            let seq = frame.seq;
            match prepare_frame(frame, &inputs, &shared.stages()) {
                Ok(ready) => {
                    if prepared.send(ready).is_err() {
                        return;
                    }
                    break;
                }
                Err(error) => reject(shared, seq, &error),
            }
        }
    }
}

fn reject(shared: &Shared, seq: u64, error: &StageError) {
    shared.telemetry.frames.rejected.inc();
    tracing::warn!(seq, %error, "frame not processed");
}

/// The thread that owns the device.
struct Compute {
    shared: Arc<Shared>,
    config: Config,
    permits: Sender<Inputs>,
    prepared: Receiver<Prepared>,
    jobs: Sender<Job>,
    model_requests: Receiver<LoadModel>,
}

impl Compute {
    fn run(self, warm: &Sender<Result<(), NetworkError>>) {
        let loaded = self.load();
        let mut engine = match loaded {
            Ok(engine) => {
                // Before the answer: a session that is recorded from the start names the models.
                self.announce(&engine);
                // The starter waits for exactly one answer.
                let _ = warm.send(Ok(()));
                engine
            }
            Err(error) => {
                let _ = warm.send(Err(error));
                return;
            }
        };
        let mut reference = Arc::new(self.shared.stages().reference(&engine));
        let mut inputs = Inputs::of(&engine);
        let lookahead = self.config.mode == Mode::Lossless;
        if self.permits.send(inputs).is_err() {
            return;
        }
        loop {
            crossbeam_channel::select! {
                recv(self.model_requests) -> request => {
                    let Ok(LoadModel { folder, answer }) = request else { return };
                    let replaced = engine.replace_model(&folder);
                    if replaced.is_ok() {
                        reference = Arc::new(self.shared.stages().reference(&engine));
                        inputs = Inputs::of(&engine);
                        self.announce(&engine);
                    }
                    // Whoever asked may have given up waiting.
                    let _ = answer.send(replaced);
                }
                recv(self.prepared) -> frame => {
                    let Ok(frame) = frame else { return };
                    // Lossless: the next frame is prepared meanwhile. Live: it is taken when this one is done, so that it
                    // is the newest there is.
                    if lookahead && self.permits.send(inputs).is_err() {
                        return;
                    }
                    match measure(frame, &engine, &self.shared.stages()) {
                        Ok(measured) => {
                            if self.jobs.send(Job { measured, reference: Arc::clone(&reference) }).is_err() {
                                return;
                            }
                        }
                        Err(error) => {
                            self.shared.telemetry.frames.rejected.inc();
                            tracing::error!(%error, "the networks failed on a frame");
                        }
                    }
                    if !lookahead && self.permits.send(inputs).is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn load(&self) -> Result<Engine, NetworkError> {
        let settings = self.config.engine().map_err(|setting| NetworkError::Execution(setting.to_string()))?;
        let engine = Engine::load(&settings)?;
        let started = Instant::now();
        engine.warm_up(self.config.runtime.warm_up_shape, self.config.preprocess.stride_px)?;
        tracing::info!(device = engine.device_name(), ms = started.elapsed().as_millis(), "networks warm");
        Ok(engine)
    }

    fn announce(&self, engine: &Engine) {
        let (device, model) = (engine.device_name().to_owned(), engine.model_ids());
        self.shared.telemetry.update_identity(|identity| {
            identity.device = device;
            identity.model = model;
        });
    }
}

fn run_finish(shared: &Shared, outlets: &Outlets, jobs: &Receiver<Job>) {
    for Job { measured, reference } in jobs {
        let result = {
            let mut tracker = lock(&shared.tracker);
            finish(measured, &reference, &shared.stages(), &mut tracker)
        };
        let mut result = match result {
            Ok(result) => result,
            Err(error) => {
                shared.telemetry.frames.rejected.inc();
                tracing::warn!(%error, "frame not finished");
                continue;
            }
        };
        shared.telemetry.frames.processed.inc();
        shared.count_sources();
        result.counters = shared.telemetry.snapshot();
        result.timing.t_published_ns = now_ns();
        shared.telemetry.record_published(result.seq, &result.timing);
        let candidates = CandidatesMessage {
            acquisition: result.acquisition.clone(),
            seq: result.seq,
            t_published_ns: result.timing.t_published_ns,
            candidates: result.candidates.clone(),
        };
        outlets.publish("candidates", &ResultsMessage::Candidates(candidates));
        let newest = Arc::new(result);
        shared.record(RecordItem::Result(Arc::clone(&newest)));
        outlets.publish_result((*newest).clone());
        *lock(&shared.newest) = Some(newest);
    }
}
