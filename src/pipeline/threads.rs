//! The three threads that a frame passes through: prepare, compute, finish.

use super::daemon::{DaemonError, LoadModel, Shared, lock};
use super::now_ns;
use super::stages::{Inputs, Measured, Prepared, StageError, finish, measure, prepare_frame};
use crate::config::{Config, Mode};
use crate::flags::Reference;
use crate::networks::{Engine, NetworkError};
use crate::publish::{LaneEncoding, Publisher};
use crate::session::RecordItem;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use ferrostem_proto::{CandidatesMessage, ResultMessage, ResultsMessage, bincode, cbor};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// The lanes' encodings and sockets, for the finish thread.
pub(super) struct Outlets {
    pub results: Publisher,
    pub latest: Publisher,
    pub results_encoding: LaneEncoding,
    pub latest_encoding: LaneEncoding,
}

impl Outlets {
    fn encode(encoding: LaneEncoding, message: &ResultsMessage) -> Option<Bytes> {
        let encoded = match encoding {
            LaneEncoding::Cbor => cbor::encode_results(message),
            LaneEncoding::Bincode => bincode::encode_results(message),
        };
        encoded.map_err(|error| tracing::error!(%error, "a message could not be encoded")).ok()
    }

    pub fn publish(&self, topic: &'static str, message: &ResultsMessage) -> Option<Bytes> {
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

/// A prepared frame's way through the compute thread, with the reference its flags need.
struct Job {
    measured: Measured,
    reference: Arc<Reference>,
}

/// Starts prepare, compute and finish; returns when the networks are loaded and warm.
pub(super) fn start_stages(
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
        let settings =
            self.config.engine().map_err(|setting| NetworkError::Execution(setting.to_string()))?;
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
        shared.count();
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
