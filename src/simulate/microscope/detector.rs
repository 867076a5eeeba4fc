//! Settings of the detector.

use crate::config::InvalidSetting;
use crate::simulate::check::Check;
use serde::{Deserialize, Serialize};

/// How counts become pixel values: `gain * counts + offset + read noise`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Detector {
    pub gain: f64,
    pub offset: f64,
    /// Standard deviation, pixel values.
    pub read_noise: f64,
    /// Where the detector saturates: the signal, read noise included, is clipped at `gain * full_well_counts + offset`, and the
    /// frame's truth marks the pixels. Without, it never does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_well_counts: Option<f64>,
    pub afterglow: Afterglow,
    /// Standard deviation, in pixels, of a Gaussian that the finished frame is smoothed with, as acquisition software does.
    pub smoothing_px: f64,
    pub pixel_type: PixelType,
}

/// A scintillator that goes on glowing: a fraction of each count's signal comes late, and falls off exponentially in time, so that
/// columns have a tail along the fast scan direction, and their centres of mass lie later on it than the truth says. The mean
/// signal stays what it is. It is dark before the first line and while the beam flies back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Afterglow {
    /// 0 to 0.9.
    pub fraction: f64,
    /// Time in which it falls to 1/e.
    pub decay_us: f64,
}

/// Element type of the pixels that leave the detector; integers are rounded and clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelType {
    U8,
    U16,
    F32,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            gain: 1.0,
            offset: 0.0,
            read_noise: 0.0,
            full_well_counts: None,
            afterglow: Afterglow::default(),
            smoothing_px: 0.0,
            pixel_type: PixelType::F32,
        }
    }
}

impl Default for Afterglow {
    fn default() -> Self {
        Self { fraction: 0.0, decay_us: 2.0 }
    }
}

impl Detector {
    pub(super) fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        check.within("smoothing_px", self.smoothing_px, [0.0, 20.0])?;
        check.that(self.gain > 0.0 && self.gain.is_finite(), "gain", &self.gain, "above 0")?;
        check.that(self.offset.is_finite(), "offset", &self.offset, "a finite value")?;
        check.within("read_noise", self.read_noise, [0.0, 1e6])?;
        if let Some(counts) = self.full_well_counts {
            let ok = counts > 0.0 && counts.is_finite();
            check.that(ok, "full_well_counts", &counts, "above 0, or absent")?;
        }
        check.within("afterglow.fraction", self.afterglow.fraction, [0.0, 0.9])?;
        check.within("afterglow.decay_us", self.afterglow.decay_us, [0.01, 1e6])
    }
}
