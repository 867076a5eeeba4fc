//! The sections of a config that belong to no stage.

use super::InvalidSetting;
use crate::session::RecordSettings;
use serde::{Deserialize, Serialize};

/// Whether the newest frame wins or every frame counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A frame that arrives while one is processed replaces the one that waits; the rest are counted.
    #[default]
    Live,
    /// Bounded queues that block: nothing is left out.
    Lossless,
}

impl Mode {
    /// As in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Lossless => "lossless",
        }
    }
}

/// Which networks to load: a folder with `model.toml`, the name of a shipped model, or `none`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    pub dcnn: String,
    pub fcnn: String,
    /// Run the DCNN window by window even where a shared trunk gives the same.
    pub exact_windows: bool,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            dcnn: "dcnn-perovskite-100".to_owned(),
            fcnn: "fcnn-perovskite-100".to_owned(),
            exact_windows: false,
        }
    }
}

/// Recording of live sessions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordSection {
    /// Session file to write from the start; `{n}` in it takes the first free number. Empty: only when asked for.
    pub path: String,
    /// Go on with the file at `path` if there is one, as a new segment, instead of refusing to touch it.
    pub append: bool,
    /// How sessions are written.
    pub settings: RecordSettings,
}

/// Queues, warm-up and shutdown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeSettings {
    /// Frames that may wait in lossless mode.
    pub queue_frames: usize,
    /// Shape `[rows, cols]`, model pixels, on which kernels are compiled and tuned before `/readyz` says ready.
    pub warm_up_shape: [usize; 2],
    /// How long a shutdown may take to finish what was begun, ms.
    pub drain_ms: u64,
    /// Time between heartbeats, ms.
    pub status_interval_ms: u64,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self { queue_frames: 4, warm_up_shape: [512, 512], drain_ms: 5000, status_interval_ms: 1000 }
    }
}

impl RuntimeSettings {
    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}.{name}");
        if !(1..=1024).contains(&self.queue_frames) {
            return Err(InvalidSetting::new(key("queue_frames"), self.queue_frames, "1 to 1024"));
        }
        if self.warm_up_shape.iter().any(|side| !(80..=8192).contains(side)) {
            let value = format!("{:?}", self.warm_up_shape);
            return Err(InvalidSetting::new(key("warm_up_shape"), value, "two sides of 80 to 8192 px"));
        }
        if !(50..=60_000).contains(&self.status_interval_ms) {
            let value = self.status_interval_ms;
            return Err(InvalidSetting::new(key("status_interval_ms"), value, "50 to 60000 ms"));
        }
        Ok(())
    }
}
