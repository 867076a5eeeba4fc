//! Where and how the simulated microscope serves its frames.

use crate::config::InvalidSetting;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The scene's `[server]`: sockets, encoding, pace and drift of the served frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// PUB socket for the frames, `tcp://ADDRESS:PORT`; port 0 takes a free one.
    pub frames: String,
    /// REP-compatible socket for the scan control.
    pub control: String,
    pub encoding: FrameEncoding,
    /// A first part before every frame of the pyzmq recipe, which subscribers can filter by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// First part of the acquisitions' names; a number follows.
    pub acquisition: String,
    pub channel: String,
    pub pace: Pace,
    /// How often the part of a frame that is scanned so far is published before the frame is finished, 0 to 100 times.
    pub partial_frames: u32,
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

/// How a frame is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameEncoding {
    /// One part of CBOR, and a `begin` and an `end` around each acquisition.
    #[default]
    Native,
    /// A JSON header and the raw pixels, as pyzmq's documentation sends arrays; it has no `begin` and `end`.
    Pyzmq,
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
            encoding: FrameEncoding::Native,
            topic: None,
            acquisition: "simulated".to_owned(),
            channel: "HAADF".to_owned(),
            pace: Pace::Dwell,
            partial_frames: 0,
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
        if let (Some(topic), FrameEncoding::Native) = (&self.topic, self.encoding) {
            return Err(InvalidSetting::new(key("topic"), topic, "no topic, or encoding = \"pyzmq\""));
        }
        if let Pace::IntervalMs(ms) = self.pace
            && !(0.0..=3.6e6).contains(&ms)
        {
            return Err(InvalidSetting::new(key("pace.interval_ms"), ms, "0 to 3600000"));
        }
        if self.partial_frames > 100 {
            return Err(InvalidSetting::new(key("partial_frames"), self.partial_frames, "0 to 100"));
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

pub(super) fn address(endpoint: &str, key: &str) -> Result<SocketAddr, InvalidSetting> {
    let parsed = endpoint.strip_prefix("tcp://").and_then(|address| address.parse().ok());
    parsed.ok_or_else(|| InvalidSetting::new(key, endpoint, "tcp://ADDRESS:PORT with a numeric address"))
}
