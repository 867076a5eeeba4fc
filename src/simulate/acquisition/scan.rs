//! The scan's thread: frame after frame, each published when it is due.

use super::state::{Shared, Wanted};
use super::{Pace, ServerSettings};
use crate::config::InvalidSetting;
use crate::publish::Publisher;
use crate::simulate::microscope::{Microscope, turned};
use crate::simulate::render::render;
use crate::simulate::specimen::Specimen;
use ferrostem_proto::{Bracket, FrameMessage, FrameState, FramesMessage, JsonMap, cbor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The scan over a specimen that moves at `drift_nm_per_s` and had moved by `drift_nm` in mid-frame, as a scan over one that
/// rests: the scan stays where it is told, and the specimen moves beneath it, also during the frame.
pub(super) fn over_drifting(
    microscope: &Microscope,
    drift_nm_per_s: [f64; 2],
    mid_frame_s: f64,
) -> Microscope {
    let drift_nm = drift_nm_per_s.map(|v| v * mid_frame_s);
    let [y, x] = drift_nm_per_s.map(|v| v * microscope.frame_s() * 1e3);
    let [drift_x, drift_y] = turned([x, y], -microscope.rotation_rad);
    Microscope {
        center_nm: [microscope.center_nm[0] - drift_nm[0], microscope.center_nm[1] - drift_nm[1]],
        drift_pm: [microscope.drift_pm[0] + drift_x, microscope.drift_pm[1] + drift_y],
        ..microscope.clone()
    }
}

/// Unix time that never runs backwards.
struct Clock {
    started: Instant,
    started_ns: u64,
}

impl Clock {
    fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_ns: nanoseconds(since_epoch) }
    }

    fn unix_ns(&self, at: Instant) -> u64 {
        self.started_ns + nanoseconds(at.saturating_duration_since(self.started))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The scan's thread.
pub(super) struct Scan {
    specimen: Specimen,
    settings: ServerSettings,
    shared: Arc<Shared>,
    publisher: Publisher,
    clock: Clock,
    /// Beam time since the start, which the specimen's drift goes by.
    scanned_s: f64,
    /// Frames since the start, over all acquisitions.
    frames: u64,
}

impl Scan {
    pub fn new(
        specimen: Specimen,
        settings: ServerSettings,
        shared: Arc<Shared>,
        publisher: Publisher,
    ) -> Self {
        Self { specimen, settings, shared, publisher, clock: Clock::now(), scanned_s: 0.0, frames: 0 }
    }

    pub fn run(mut self) {
        while let Some(acquisition) = self.shared.wait_for_acquisition() {
            let name = format!("{}-{}", self.settings.acquisition, acquisition.number);
            self.shared.begin(&name);
            let bracket = || Bracket { acquisition: name.clone(), user_data: JsonMap::default() };
            self.publish(&FramesMessage::Begin(bracket()));
            self.acquire(acquisition, &name);
            self.publish(&FramesMessage::End(bracket()));
        }
    }

    /// Frames until the acquisition is stopped or complete. Each begins when the one before has ended.
    fn acquire(&mut self, acquisition: Wanted, name: &str) {
        let mut start = Instant::now();
        while let Some((seq, microscope)) = self.shared.next_frame(acquisition) {
            let scanned = self.scan_frame(&microscope);
            let due = start
                + match self.settings.pace {
                    Pace::Dwell => Duration::from_secs_f64(microscope.frame_s()),
                    Pace::IntervalMs(ms) => Duration::from_secs_f64(ms * 1e-3),
                    Pace::Max => Duration::ZERO,
                };
            // Later than due where rendering takes longer than the scan.
            let end = due.max(Instant::now());
            if !self.shared.wait_until(end) {
                // The shutdown cut the frame short.
                return;
            }
            match scanned {
                Ok(mut frame) => {
                    frame.acquisition = Some(name.to_owned());
                    frame.seq = seq;
                    frame.t_start_ns = Some(self.clock.unix_ns(start));
                    frame.t_end_ns = Some(self.clock.unix_ns(end));
                    self.publish(&FramesMessage::Frame(Box::new(frame)));
                }
                Err(error) => tracing::error!(seq, %error, "a simulated frame is lost"),
            }
            self.shared.count_frame();
            start = end;
        }
    }

    /// A frame as the scan sees it now, without the acquisition's name and times.
    fn scan_frame(&mut self, microscope: &Microscope) -> Result<FrameMessage, ScanError> {
        let mid_frame_s = self.scanned_s + 0.5 * microscope.frame_s();
        self.scanned_s += microscope.frame_s();
        let seen = over_drifting(microscope, self.settings.drift_nm_per_s, mid_frame_s);
        let drift_nm = self.settings.drift_nm_per_s.map(|v| v * mid_frame_s);
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
        rng.set_stream(self.frames);
        self.frames += 1;
        let frame = render(&self.specimen, &seen, &mut rng)?;
        let data = frame.pixel_array(microscope.detector.pixel_type)?;
        let mut user_data = serde_json::Map::new();
        user_data.insert("simulated".to_owned(), json!({ "drift_nm": drift_nm }));
        Ok(FrameMessage {
            pixel_size_pm: Some(microscope.pixel_sizes_pm()),
            rotation_rad: Some(microscope.rotation_rad),
            center_nm: Some(microscope.center_nm),
            fov_nm: Some(microscope.fov_nm()),
            dwell_us: Some(microscope.dwell_us),
            channel: Some(self.settings.channel.clone()),
            state: Some(FrameState::Complete),
            valid_rows: Some([0, microscope.shape[0] as u64]),
            user_data: JsonMap(user_data),
            ..FrameMessage::new(0, data)
        })
    }

    fn publish(&self, message: &FramesMessage) {
        match cbor::encode_frames(message) {
            Ok(bytes) => self.publisher.publish_single(bytes),
            Err(error) => tracing::error!(%error, "a message of the simulated microscope cannot be encoded"),
        }
    }
}

/// Why a frame was lost.
#[derive(Debug, thiserror::Error)]
enum ScanError {
    #[error(transparent)]
    Scene(#[from] InvalidSetting),
    #[error(transparent)]
    Array(#[from] ferrostem_proto::ArrayError),
}
