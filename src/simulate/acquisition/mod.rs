//! A simulated microscope on the network: frames go out on a PUB socket as from a real acquisition, and a REP socket takes the
//! commands that move the scan.
//!
//! *Features*: `begin`, frames with `seq` from 0, `end`; the pace of the dwell time, of an interval, or of the renderer; moves of
//! the scan that take effect from the next frame; drift of the specimen from frame to frame.
//! *Assumptions*: one scan. The specimen's clock is the scan's: it drifts by what a frame's dwell times add up to, at any pace.
//! *Error conditions*: none once the sockets are bound, except that the control socket may fail, which is logged and ends it;
//! frames go on.
//!
//! One thread renders one frame at a time and sleeps until it is due, so nothing is rendered ahead. A subscriber that cannot
//! keep up loses its oldest frames.

mod control;
mod scan;
mod state;
#[cfg(test)]
mod tests;

use super::microscope::Microscope;
use super::scene::Scene;
use crate::config::InvalidSetting;
use crate::publish::{LaneOptions, PubLane, PublishError, Publisher, QueueCapacity};
use crate::telemetry::LaneMetrics;
use scan::{Scan, over_drifting};
use serde::{Deserialize, Serialize};
use state::Shared;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use zeromq::{RepSocket, Socket, SocketRecv, SocketSend};

/// Where and how the frames are served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// PUB socket for the frames, `tcp://ADDRESS:PORT`; port 0 takes a free one.
    pub frames: String,
    /// REP socket for the scan control.
    pub control: String,
    /// First part of the acquisitions' names; a number follows.
    pub acquisition: String,
    pub channel: String,
    pub pace: Pace,
    /// Whether an acquisition begins at once, without `start`.
    pub running: bool,
    /// Frames of an acquisition; it ends after them. Absent: until `stop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_per_acquisition: Option<u64>,
    /// Velocity of the specimen under the beam, `[y, x]`.
    pub drift_nm_per_s: [f64; 2],
    /// Seed of the frames' noise.
    pub seed: u64,
    /// Frames that may wait for a slow subscriber.
    pub queue_frames: usize,
}

/// When the next frame is finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// When its pixels' dwell times have passed, as on a microscope.
    #[default]
    Dwell,
    /// After this many milliseconds.
    IntervalMs(f64),
    /// When it is rendered.
    Max,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            frames: "tcp://127.0.0.1:5555".to_owned(),
            control: "tcp://127.0.0.1:5559".to_owned(),
            acquisition: "simulated".to_owned(),
            channel: "HAADF".to_owned(),
            pace: Pace::Dwell,
            running: true,
            frames_per_acquisition: None,
            drift_nm_per_s: [0.0, 0.0],
            seed: 0,
            queue_frames: 4,
        }
    }
}

impl ServerSettings {
    /// # Errors
    /// [`InvalidSetting`] for the first value that cannot be used.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}.{name}");
        address(&self.frames, &key("frames"))?;
        address(&self.control, &key("control"))?;
        if let Pace::IntervalMs(ms) = self.pace
            && !(0.0..=3.6e6).contains(&ms)
        {
            return Err(InvalidSetting::new(key("pace.interval_ms"), ms, "0 to 3600000"));
        }
        if !self.drift_nm_per_s.iter().all(|v| v.abs() <= 1e3) {
            let value = format!("{:?}", self.drift_nm_per_s);
            return Err(InvalidSetting::new(key("drift_nm_per_s"), value, "components of at most 1000"));
        }
        if !(1..=1000).contains(&self.queue_frames) {
            return Err(InvalidSetting::new(key("queue_frames"), self.queue_frames, "1 to 1000"));
        }
        if self.frames_per_acquisition == Some(0) {
            return Err(InvalidSetting::new(key("frames_per_acquisition"), 0, "at least 1, or absent"));
        }
        Ok(())
    }
}

fn address(endpoint: &str, key: &str) -> Result<SocketAddr, InvalidSetting> {
    let parsed = endpoint.strip_prefix("tcp://").and_then(|address| address.parse().ok());
    parsed.ok_or_else(|| InvalidSetting::new(key, endpoint, "tcp://ADDRESS:PORT with a numeric address"))
}

/// Why there is no acquisition server.
#[derive(Debug, thiserror::Error)]
pub enum AcquisitionError {
    #[error(transparent)]
    Invalid(#[from] InvalidSetting),
    #[error("the frames socket: {0}")]
    Frames(#[from] PublishError),
    #[error("cannot bind the scan control to {endpoint}: {source}")]
    Control { endpoint: String, source: Box<zeromq::ZmqError> },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the server bound, with the ports that were taken where 0 was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    pub frames: String,
    pub control: String,
}

/// A running simulated microscope. Dropping it shuts it down. Neither that nor starting it wants a tokio runtime, or minds one.
pub struct AcquisitionServer {
    endpoints: Endpoints,
    shared: Arc<Shared>,
    scanning: Option<JoinHandle<()>>,
    serving: Option<JoinHandle<()>>,
    stop_serving: Option<oneshot::Sender<()>>,
}

/// How long subscribers have to take what is queued for them when the server shuts down.
const GRACE: Duration = Duration::from_secs(1);
const MAX_SUBSCRIBERS: usize = 64;

impl AcquisitionServer {
    /// Binds the sockets and starts the threads: one scans, one serves the sockets.
    ///
    /// # Errors
    /// A scene out of range, or an address that cannot be bound.
    pub fn start(scene: Scene) -> Result<Self, AcquisitionError> {
        scene.validate()?;
        let Scene { specimen, microscope, server: settings } = scene;
        // A sub-scan is served as the scan that it is.
        let microscope = microscope.scanned();
        over_drifting(&microscope, settings.drift_nm_per_s, 0.0).validate("microscope")?;
        let lane_options = lane_options(&settings, &microscope)?;
        let shared = Arc::new(Shared::new(microscope, &settings));
        let (stop_serving, stopped) = oneshot::channel();
        let (announce, bound) = std::sync::mpsc::sync_channel(1);
        let sockets =
            Sockets { lane_options, control: settings.control.clone(), shared: Arc::clone(&shared), stopped };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serving = std::thread::Builder::new()
            .name("simulated-microscope-io".to_owned())
            .spawn(move || runtime.block_on(sockets.serve(&announce)))?;
        let mut server = Self {
            endpoints: Endpoints { frames: String::new(), control: String::new() },
            shared: Arc::clone(&shared),
            scanning: None,
            serving: Some(serving),
            stop_serving: Some(stop_serving),
        };
        // The thread that would have announced its sockets can only be gone if it panicked.
        let gone = || std::io::Error::other("the thread that serves the sockets is gone");
        let (publisher, endpoints) = bound.recv().map_err(|_| gone())??;
        server.endpoints = endpoints;
        let scan = Scan::new(specimen, settings, shared, publisher);
        let scanning = std::thread::Builder::new().name("simulated-microscope".to_owned());
        server.scanning = Some(scanning.spawn(move || scan.run())?);
        Ok(server)
    }

    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Ends the acquisition, if one is running, sends its `end`, and closes the sockets.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for AcquisitionServer {
    fn drop(&mut self) {
        self.shared.shut_down();
        join(self.scanning.take());
        if let Some(stop) = self.stop_serving.take() {
            // The sockets' thread may have ended already.
            let _ = stop.send(());
        }
        join(self.serving.take());
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("a thread of the simulated microscope panicked");
    }
}

fn lane_options(settings: &ServerSettings, microscope: &Microscope) -> Result<LaneOptions, InvalidSetting> {
    let frame_bytes = 4 * microscope.shape[0] * microscope.shape[1] + 4096;
    Ok(LaneOptions {
        name: "frames",
        address: address(&settings.frames, "server.frames")?,
        // The brackets take places too.
        capacity: QueueCapacity {
            messages: settings.queue_frames + 2,
            bytes: settings.queue_frames.saturating_mul(frame_bytes),
        },
        max_connections: MAX_SUBSCRIBERS,
    })
}

/// What the thread that serves the sockets starts from.
struct Sockets {
    lane_options: LaneOptions,
    control: String,
    shared: Arc<Shared>,
    stopped: oneshot::Receiver<()>,
}

type Bound = Result<(Publisher, Endpoints), AcquisitionError>;

impl Sockets {
    /// Binds, announces what was bound, and serves until it is told to stop.
    async fn serve(mut self, announce: &SyncSender<Bound>) {
        let (lane, mut control, endpoints) = match self.bind().await {
            Ok(bound) => bound,
            Err(error) => {
                // Nobody waits for it when the server was dropped meanwhile.
                let _ = announce.send(Err(error));
                return;
            }
        };
        if announce.send(Ok((lane.publisher(), endpoints))).is_ok() {
            serve_control(&mut control, &self.shared, &mut self.stopped).await;
        }
        lane.close(GRACE).await;
    }

    async fn bind(&self) -> Result<(PubLane, RepSocket, Endpoints), AcquisitionError> {
        let lane = PubLane::bind(self.lane_options, LaneMetrics::default())?;
        let mut control = RepSocket::new();
        let endpoint = control.bind(&self.control).await.map_err(|source| AcquisitionError::Control {
            endpoint: self.control.clone(),
            source: Box::new(source),
        })?;
        let endpoints =
            Endpoints { frames: format!("tcp://{}", lane.address()), control: endpoint.to_string() };
        Ok((lane, control, endpoints))
    }
}

/// Answers requests until it is told to stop; then only waits for that, should the socket fail before.
async fn serve_control(socket: &mut RepSocket, shared: &Shared, stopped: &mut oneshot::Receiver<()>) {
    loop {
        let received = tokio::select! {
            received = socket.recv() => received,
            _ = &mut *stopped => return,
        };
        let message = match received {
            Ok(message) => message,
            Err(zeromq::ZmqError::NoMessage) => {
                tracing::error!("the scan control takes no more requests");
                // An error would mean that the server is gone: stopped as well.
                let _ = stopped.await;
                return;
            }
            Err(error) => {
                // One peer's fault; the socket has dropped it.
                tracing::warn!(%error, "a peer of the scan control is dropped");
                continue;
            }
        };
        let bytes = message.iter().last().map_or(&[][..], |part| part.as_ref());
        let (id, request) = control::parse(bytes);
        let outcome = request.and_then(|request| shared.carry_out(request));
        if let Err(error) = socket.send(control::reply(&id, outcome).into()).await {
            tracing::warn!(%error, "a reply of the scan control did not reach its peer");
        }
    }
}
