//! A simulated microscope on the network: frames go out on a PUB socket as from a real acquisition, and a REP-compatible socket
//! takes the commands that move the scan. Both are the project's own ([`publish`](crate::publish)), with its limits.
//!
//! *Features*: frames with `seq` from 0, natively between a `begin` and an `end`, or as pyzmq sends arrays; the pace of the dwell
//! time, of an interval, or of the renderer; parts of a frame while a slow scan goes on; moves, sub-scans and places to go to, all
//! of which take effect from the next frame; drift of the specimen from frame to frame.
//! *Assumptions*: one scan. The specimen's clock is the scan's: it drifts by what a frame's dwell times add up to, at any pace.
//! *Error conditions*: none once the sockets are bound; what a peer does wrong ends its own connection.
//!
//! Requests are `{"id", "cmd", "args"}`, replies as those of the daemon's control lane; every successful one carries the status.
//!
//! | command | arguments |
//! |---|---|
//! | `set_scan` | `center_nm` `[y, x]` in the specimen, `fov_nm` (width, or `[y, x]`, from which the pixels' aspect follows), `rotation_rad`, `dwell_us`, `shape` `[rows, cols]`; `subscan_fractional_size` and `subscan_fractional_center` `[y, x]` in fractions of the full scan, `subscan_rotation_rad` on top of its rotation, `subscan_shape`; a null size ends the sub-scan |
//! | `go_to` | one of `px` `{row, col}`, `frac` `{y, x}`, `nm` `{x, y}`, as in a candidate, of the frame `seq` (and `acquisition`), or without them of the scan as it is set; moves the full scan so that the place is in the middle of the next frame; all of `set_scan` but `center_nm` |
//! | `start`, `stop`, `single` | an acquisition until `stop`; its end after the frame in work; one frame |
//! | `status` | |
//!
//! One thread renders one frame at a time and sleeps until it is due, so nothing is rendered ahead. A subscriber that cannot
//! keep up loses its oldest frames.

mod beam;
mod control;
mod scan;
mod settings;
mod state;
#[cfg(test)]
mod steering;
#[cfg(test)]
mod tests;

pub use beam::{Beam, ScanError, Scanned};
pub use settings::{FrameEncoding, Pace, ServerSettings};

use super::microscope::Microscope;
use super::scene::Scene;
use crate::config::InvalidSetting;
use crate::publish::{ControlServer, LaneOptions, PubLane, PublishError, Publisher, QueueCapacity};
use crate::telemetry::LaneMetrics;
use beam::over_drifting;
use scan::Scan;
use settings::address;
use state::Shared;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Why there is no acquisition server.
#[derive(Debug, thiserror::Error)]
pub enum AcquisitionError {
    #[error(transparent)]
    Invalid(#[from] InvalidSetting),
    #[error(transparent)]
    Socket(#[from] PublishError),
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
/// Subscribers, and as many controllers.
const MAX_PEERS: usize = 64;

impl AcquisitionServer {
    /// Binds the sockets and starts the threads: one scans, one serves the sockets.
    ///
    /// # Errors
    /// A scene out of range, or an address that cannot be bound.
    pub fn start(scene: Scene) -> Result<Self, AcquisitionError> {
        scene.validate()?;
        let beam = Beam::new(&scene);
        let Scene { microscope, server: settings, .. } = scene;
        over_drifting(&microscope.scanned(), settings.drift_nm_per_s, 0.0).validate("microscope")?;
        let lane_options = lane_options(&settings, &microscope)?;
        let control = address(&settings.control, "server.control")?;
        let shared = Arc::new(Shared::new(microscope, &settings));
        let (stop_serving, stopped) = oneshot::channel();
        let (announce, bound) = std::sync::mpsc::sync_channel(1);
        let sockets = Sockets { lane_options, control, shared: Arc::clone(&shared), stopped };
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
        let scan = Scan::new(beam, settings, shared, publisher);
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
    let [rows, cols] = microscope.scanned().shape;
    let frame_bytes = 4 * rows * cols + 4096;
    Ok(LaneOptions {
        name: "frames",
        address: address(&settings.frames, "server.frames")?,
        // The brackets take places too.
        capacity: QueueCapacity {
            messages: settings.queue_frames + 2,
            bytes: settings.queue_frames.saturating_mul(frame_bytes),
        },
        max_connections: MAX_PEERS,
    })
}

/// What the thread that serves the sockets starts from.
struct Sockets {
    lane_options: LaneOptions,
    control: SocketAddr,
    shared: Arc<Shared>,
    stopped: oneshot::Receiver<()>,
}

type Bound = Result<(Publisher, Endpoints), AcquisitionError>;

impl Sockets {
    /// Binds, announces what was bound, and serves until it is told to stop.
    async fn serve(self, announce: &SyncSender<Bound>) {
        let (lane, control) = match self.bind() {
            Ok(bound) => bound,
            Err(error) => {
                // Nobody waits for it when the server was dropped meanwhile.
                let _ = announce.send(Err(error.into()));
                return;
            }
        };
        let endpoints = Endpoints {
            frames: format!("tcp://{}", lane.address()),
            control: format!("tcp://{}", control.address()),
        };
        if announce.send(Ok((lane.publisher(), endpoints))).is_ok() {
            // An error means that the server is gone: stopped as well.
            let _ = self.stopped.await;
        }
        tokio::join!(lane.close(GRACE), control.close(GRACE));
    }

    fn bind(&self) -> Result<(PubLane, ControlServer), PublishError> {
        let lane = PubLane::bind(self.lane_options, LaneMetrics::default())?;
        let answer = Arc::clone(&self.shared);
        let metrics = LaneMetrics::default();
        let control = ControlServer::bind("scan control", self.control, MAX_PEERS, metrics, answer)?;
        Ok((lane, control))
    }
}
