//! What the control lane can ask of the running daemon.

use super::daemon::{DaemonError, LoadModel, Shared, lock};
use super::now_ns;
use super::stages::Stages;
use crate::config::Mode;
use crate::networks::{Architecture, Manifest};
use crate::publish::ControlHandler;
use crate::session::{RecordItem, RecordProblem, Recorder, RecorderThread, SessionHeader, WhenFull};
use crate::telemetry::Problem;
use crossbeam_channel::bounded;
use ferrostem_proto::ResultMessage;
use ferrostem_proto::control::{
    AckArgs, ConfigureArgs, ControlCommand, ControlError, ControlReply, ControlRequest, ErrorCode,
    LoadModelArgs, ModelRole, RecordStartArgs,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long a model may take to load before the request is answered as failed.
const MODEL_TIMEOUT: Duration = Duration::from_secs(60);
/// Sections that can change while frames flow; the others need a restart.
const CHANGEABLE: [&str; 3] = ["flags.", "columns.", "polarization."];

/// Carries out the commands of the control lane.
pub(super) struct Controls {
    shared: Arc<Shared>,
}

type Outcome = Result<Value, ControlError>;

fn refused(code: ErrorCode, message: impl Into<String>) -> ControlError {
    ControlError { code, message: message.into() }
}

impl ControlHandler for Controls {
    fn handle(&self, request: ControlRequest) -> ControlReply {
        let outcome = self.carry_out(&request);
        request.reply(outcome)
    }
}

impl Controls {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn carry_out(&self, request: &ControlRequest) -> Outcome {
        match request.cmd {
            ControlCommand::Ping => Ok(json!({ "t_ns": now_ns(), "version": env!("CARGO_PKG_VERSION") })),
            ControlCommand::Status => to_json(&self.shared.telemetry.status(now_ns())),
            ControlCommand::Snapshot => match lock(&self.shared.newest).as_deref() {
                Some(result) => summary(result),
                None => Err(refused(ErrorCode::Unavailable, "no frame has been processed yet")),
            },
            ControlCommand::Configure => self.configure(&request.typed_args()?),
            ControlCommand::LoadModel => self.load_model(&request.typed_args()?),
            ControlCommand::RecordStart => self.record_start(&request.typed_args()?),
            ControlCommand::RecordStop => self.record_stop(),
            ControlCommand::Ack => self.acknowledge(request.typed_args()?),
            ControlCommand::Shutdown => {
                self.shared.stop.send_replace(true);
                Ok(json!({}))
            }
        }
    }

    fn configure(&self, args: &ConfigureArgs) -> Outcome {
        if let Some(key) =
            args.set.keys().find(|key| !CHANGEABLE.iter().any(|section| key.starts_with(section)))
        {
            let message =
                format!("{key}: cannot change while running; only keys under {}", CHANGEABLE.join(", "));
            return Err(refused(ErrorCode::Unavailable, message));
        }
        let mut config = lock(&self.shared.config);
        let changes = args.set.iter().map(|(key, value)| {
            let value =
                toml::Value::try_from(value).unwrap_or_else(|_| toml::Value::String(value.to_string()));
            (key.clone(), value)
        });
        let changed = config.with(changes).map_err(|error| refused(ErrorCode::BadArgs, error.to_string()))?;
        let stages = Stages::new(&changed).map_err(|error| refused(ErrorCode::BadArgs, error.to_string()))?;
        lock(&self.shared.tracker).set_settings(stages.flags.tracker);
        *self.shared.stages.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(stages);
        *config = changed;
        self.shared.record_event("configure", &json!({ "set": args.set }));
        Ok(json!({ "changed": args.set.keys().collect::<Vec<_>>() }))
    }

    fn load_model(&self, args: &LoadModelArgs) -> Outcome {
        let folder = PathBuf::from(&args.path);
        if !folder.join("model.toml").is_file() {
            return Err(refused(
                ErrorCode::NotFound,
                format!("{}: expected a folder with model.toml", args.path),
            ));
        }
        let manifest =
            Manifest::read(&folder).map_err(|error| refused(ErrorCode::BadArgs, error.to_string()))?;
        let role = match manifest.architecture {
            Architecture::Dcnn(_) => ModelRole::Dcnn,
            Architecture::Fcnn(_) => ModelRole::Fcnn,
        };
        if role != args.role {
            let message = format!("role = {:?}: the model in {} is a {role:?}", args.role, args.path);
            return Err(refused(ErrorCode::BadArgs, message));
        }
        let (answer, answered) = bounded(1);
        let gone = |_| refused(ErrorCode::Unavailable, "the compute thread is gone");
        self.shared.models.send(LoadModel { folder, answer }).map_err(gone)?;
        match answered.recv_timeout(MODEL_TIMEOUT) {
            Ok(Ok(())) => {
                let models = to_json(&self.shared.telemetry.identity().model)?;
                self.shared.record_event("load_model", &models);
                Ok(models)
            }
            Ok(Err(error)) => Err(refused(ErrorCode::Failed, error.to_string())),
            Err(_) => Err(refused(ErrorCode::Failed, "the model was not loaded in time")),
        }
    }

    fn record_start(&self, args: &RecordStartArgs) -> Outcome {
        if let Some(recorder) = lock(&self.shared.recorder).as_ref()
            && !recorder.stopped()
        {
            let message = format!("already recording to {}", recorder.path().display());
            return Err(refused(ErrorCode::Unavailable, message));
        }
        let path = args.path.clone().unwrap_or_else(|| "session_{n}.h5".to_owned());
        let path = start_recording(&self.shared, Path::new(&path), args.append)
            .map_err(|error| refused(ErrorCode::Failed, error.to_string()))?;
        Ok(json!({ "path": path.display().to_string() }))
    }

    fn record_stop(&self) -> Outcome {
        let Some(recorder) = lock(&self.shared.recorder).take() else {
            return Err(refused(ErrorCode::Unavailable, "nothing is being recorded"));
        };
        let path = recorder.path().display().to_string();
        let counts = recorder.finish();
        self.shared.telemetry.update_identity(|identity| identity.recording = None);
        self.shared.telemetry.clear_problem("record");
        Ok(json!({
            "path": path,
            "frames": counts.written.frames,
            "results": counts.written.results,
            "frames_dropped": counts.frames_dropped,
            "write_errors": counts.write_errors,
        }))
    }

    fn acknowledge(&self, args: AckArgs) -> Outcome {
        if !lock(&self.shared.tracker).acknowledge(args.candidate_id, args.verdict) {
            let message = format!(
                "candidate_id = {}: expected a candidate that was published and not forgotten",
                args.candidate_id
            );
            return Err(refused(ErrorCode::NotFound, message));
        }
        self.shared.telemetry.count_ack(args.verdict);
        self.shared.record(RecordItem::Ack {
            candidate_id: args.candidate_id,
            verdict: args.verdict.name().to_owned(),
            t_ns: now_ns(),
        });
        Ok(json!({ "candidate_id": args.candidate_id, "verdict": args.verdict.name() }))
    }
}

/// Starts a session file, or goes on with one that is there; returns the path that was taken.
pub(super) fn start_recording(
    shared: &Arc<Shared>,
    path: &Path,
    append: bool,
) -> Result<PathBuf, DaemonError> {
    let config = lock(&shared.config).clone();
    let mut settings = config.record.settings.clone();
    if config.mode == Mode::Lossless {
        settings.when_full = WhenFull::Block;
    }
    let header = SessionHeader {
        config_toml: config.to_toml()?,
        models: shared.telemetry.identity().model,
        created_ns: now_ns(),
    };
    let recorder = if append && path.exists() {
        Recorder::append(path, &settings, &header)?
    } else {
        Recorder::create(path, &settings, &header)?
    };
    let path = recorder.path().to_owned();
    shared.telemetry.clear_problem("record");
    shared.telemetry.update_identity(|identity| identity.recording = Some(path.display().to_string()));
    let telemetry = Arc::clone(&shared.telemetry);
    let thread = RecorderThread::start(recorder, &settings, move |RecordProblem { message, stopped }| {
        tracing::error!(%message, "recording");
        if stopped {
            telemetry.update_identity(|identity| identity.recording = None);
        }
        telemetry.set_problem(Problem { key: "record".to_owned(), message, fatal: true });
    })?;
    *lock(&shared.recorder) = Some(thread);
    Ok(path)
}

fn to_json<T: serde::Serialize>(value: &T) -> Outcome {
    serde_json::to_value(value).map_err(|error| refused(ErrorCode::Failed, error.to_string()))
}

/// The newest result without its maps, so that a late joiner need not wait for a frame.
fn summary(result: &ResultMessage) -> Outcome {
    let finite = |values: &[f32]| -> Vec<f64> {
        values.iter().filter(|v| v.is_finite()).map(|&v| f64::from(v)).collect()
    };
    let mean = |values: &[f32]| {
        let finite = finite(values);
        (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
    };
    let flagged = result.ood.flag.values().iter().filter(|&&flag| flag != 0).count();
    let tiles = |state: u8| result.mistilt.state.values().iter().filter(|&&s| s == state).count();
    Ok(json!({
        "acquisition": result.acquisition,
        "seq": result.seq,
        "t_acquired_ns": result.t_acquired_ns,
        "t_published_ns": result.timing.t_published_ns,
        "grid": result.grid,
        "calibration": result.calibration,
        "mean": {
            "p_x": mean(result.p_x.values()),
            "p_y": mean(result.p_y.values()),
            "p_sigma": mean(result.p_sigma.values()),
            "cell_a": mean(result.cell_a.values()),
            "cell_b": mean(result.cell_b.values()),
        },
        "windows": { "measured": finite(result.p_x.values()).len(), "ood": flagged },
        "mistilt_tiles": { "consistent": tiles(1), "suspect": tiles(2), "undetermined": tiles(3) },
        "columns": result.columns.row.len(),
        "candidates": result.candidates,
        "model": result.model,
        "counters": result.counters,
    }))
}
