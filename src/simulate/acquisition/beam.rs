//! The scanning beam: frame after frame of a specimen that drifts beneath it, each with its truth. Without clock or socket.

use crate::config::InvalidSetting;
use crate::simulate::microscope::{Microscope, turned};
use crate::simulate::render::{SimulatedFrame, render};
use crate::simulate::scene::Scene;
use crate::simulate::specimen::Specimen;
use ferrostem_proto::{FrameMessage, FrameState, JsonMap};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

/// The scan (which has no sub-scan) over a specimen that moves at `drift_nm_per_s` and had moved by `drift_nm` in mid-frame, as a scan over one that
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

/// A beam over a scene's specimen, from its first frame on.
#[derive(Debug, Clone)]
pub struct Beam {
    specimen: Specimen,
    drift_nm_per_s: [f64; 2],
    channel: String,
    seed: u64,
    /// Beam time since the start, which the specimen's drift goes by.
    scanned_s: f64,
    /// Frames since the start.
    frames: u64,
}

/// A frame and what went into it.
#[derive(Debug, Clone)]
pub struct Scanned {
    pub frame: SimulatedFrame,
    /// The frame as a message, without the acquisition's name, its number in it, and times.
    pub message: FrameMessage,
    /// How far the specimen had drifted in mid-frame, `[y, x]`.
    pub drift_nm: [f64; 2],
    /// The scan as it lies on the specimen: the message's, less the drift, and sheared by the drift during the frame.
    pub seen: Microscope,
    /// Beam time that it took.
    pub duration_s: f64,
}

/// Why a frame was lost.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Scene(#[from] InvalidSetting),
    #[error(transparent)]
    Array(#[from] ferrostem_proto::ArrayError),
}

impl Beam {
    /// The noise of each frame follows from the server's seed and the frame's place in the order.
    pub fn new(scene: &Scene) -> Self {
        Self {
            specimen: scene.specimen.clone(),
            drift_nm_per_s: scene.server.drift_nm_per_s,
            channel: scene.server.channel.clone(),
            seed: scene.server.seed,
            scanned_s: 0.0,
            frames: 0,
        }
    }

    /// The next frame, of the scan's sub-scan where it has one.
    ///
    /// # Errors
    /// A scan that is out of range.
    pub fn scan(&mut self, scan: &Microscope) -> Result<Scanned, ScanError> {
        let microscope = &scan.scanned();
        let duration_s = microscope.frame_s();
        let mid_frame_s = self.scanned_s + 0.5 * duration_s;
        self.scanned_s += duration_s;
        let seen = over_drifting(microscope, self.drift_nm_per_s, mid_frame_s);
        let drift_nm = self.drift_nm_per_s.map(|v| v * mid_frame_s);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.frames);
        self.frames += 1;
        let frame = render(&self.specimen, &seen, &mut rng)?;
        let data = frame.pixel_array(microscope.detector.pixel_type)?;
        let mut user_data = serde_json::Map::new();
        let simulated = json!({ "drift_nm": drift_nm, "subscan": scan.sub_scan });
        user_data.insert("simulated".to_owned(), simulated);
        let message = FrameMessage {
            pixel_size_pm: Some(microscope.pixel_sizes_pm()),
            rotation_rad: Some(microscope.rotation_rad),
            center_nm: Some(microscope.center_nm),
            fov_nm: Some(microscope.fov_nm()),
            dwell_us: Some(microscope.dwell_us),
            channel: Some(self.channel.clone()),
            state: Some(FrameState::Complete),
            valid_rows: Some([0, microscope.shape[0] as u64]),
            user_data: JsonMap(user_data),
            ..FrameMessage::new(0, data)
        };
        Ok(Scanned { frame, message, drift_nm, seen, duration_s })
    }
}
