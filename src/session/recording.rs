//! The words of the recorder: how a session is written, and what goes into it beside frames and results.

use crate::config::InvalidSetting;
use ferrostem_proto::ModelIds;
use serde::{Deserialize, Serialize};

/// What to do with an item when the recorder's queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// Leave it out and count it: recording never delays a frame (live).
    #[default]
    Drop,
    /// Wait for room: nothing is left out (lossless).
    Block,
}

/// How a session is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordSettings {
    /// Deflate level, 0 (none) to 9.
    pub compression_level: u8,
    /// Regroups bytes before compressing, which makes detector counts smaller.
    pub shuffle: bool,
    /// How often the file is brought up to date on disk, ms.
    pub flush_interval_ms: u64,
    /// Frames, results, … that may wait for the disk.
    pub queue_items: usize,
    pub when_full: WhenFull,
}

impl Default for RecordSettings {
    fn default() -> Self {
        Self {
            compression_level: 1,
            shuffle: true,
            flush_interval_ms: 1000,
            queue_items: 64,
            when_full: WhenFull::Drop,
        }
    }
}

impl RecordSettings {
    /// # Errors
    /// When a value is outside its range; the message begins with `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}.{name}");
        if self.compression_level > 9 {
            return Err(InvalidSetting::new(key("compression_level"), self.compression_level, "0 to 9"));
        }
        if !(10..=600_000).contains(&self.flush_interval_ms) {
            let expected = "10 to 600000 ms";
            return Err(InvalidSetting::new(key("flush_interval_ms"), self.flush_interval_ms, expected));
        }
        if !(1..=65_536).contains(&self.queue_items) {
            return Err(InvalidSetting::new(key("queue_items"), self.queue_items, "1 to 65536"));
        }
        Ok(())
    }
}

/// What a session says about the daemon that wrote it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionHeader {
    /// The resolved configuration, as TOML.
    pub config_toml: String,
    pub models: ModelIds,
    /// Unix nanoseconds.
    pub created_ns: u64,
}

/// Sequence numbers `first_seq .. first_seq + missing` that never came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gap {
    pub source: String,
    pub acquisition: String,
    pub first_seq: u64,
    pub missing: u64,
    pub t_ns: u64,
}

/// What a session came to hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordSummary {
    pub measurements: u64,
    pub frames: u64,
    pub results: u64,
    /// Results whose frame is not in the session, which have nowhere to go.
    pub orphan_results: u64,
}

/// Something that happened between frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionEvent {
    pub t_ns: u64,
    /// `begin` or `end` of an acquisition, `configure`, `load_model`, `frames_dropped`.
    pub kind: String,
    /// The source that it came from, or nothing.
    pub source: String,
    pub acquisition: String,
    /// What it says, a JSON object.
    pub detail: String,
}
