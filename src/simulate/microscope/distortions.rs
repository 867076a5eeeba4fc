//! Settings of what goes wrong with a scan: where the beam really goes, and how bright it is.

use crate::config::InvalidSetting;
use crate::simulate::check::Check;
use serde::{Deserialize, Serialize};

/// Imperfections of the scan, all off by default. Beside them there are the drift and the jitter of
/// [`Microscope`](super::Microscope).
///
/// They move the lines of the image, and the truth of a frame tells by how much; positions in the truth are those in a scan
/// without them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distortions {
    /// Drift that is not uniform, as after a move of the stage: beside what `drift_pm` moves it, the specimen has moved in the
    /// image by this, `[x, y]`, at the first and the last line, and between them by a parabola that is 0 in mid-frame.
    pub drift_curve_pm: [f64; 2],
    pub flagging: Flagging,
    pub hum: Hum,
    pub flyback: Flyback,
    pub jumps: Jumps,
    pub lost_lines: LostLines,
    pub flicker: Flicker,
}

/// Slow, random displacement of the lines along x and y, correlated from line to line (a Gauss–Markov process).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flagging {
    /// Standard deviation of each component.
    pub rms_pm: f64,
    /// Lines after which the correlation has fallen to 1/e.
    pub lines: f64,
}

/// A field of the mains that moves the beam: a sine in time, also within lines.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hum {
    /// `[x, y]`; both swing together.
    pub amplitude_pm: [f64; 2],
    /// 50 or 60, as a rule.
    pub hz: f64,
    /// Phase at the frame's beginning; without, it is random, since frames do not start in step with the mains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_rad: Option<f64>,
}

/// The beam has not quite come back when a line starts: it lies to the right of its place and settles exponentially.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flyback {
    /// How far it is off at the first pixel.
    pub offset_pm: f64,
    pub settling_us: f64,
}

/// Sudden displacements, as by a charge: each moves all lines that follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jumps {
    /// That a line begins with one.
    pub probability: f64,
    /// Standard deviation of each component.
    pub rms_pm: f64,
}

/// Lines that do not arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LostLines {
    /// For each line; the first always arrives.
    pub probability: f64,
    pub shown_as: LostAs,
}

/// What a lost line is filled with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostAs {
    /// Zeros.
    #[default]
    Blank,
    /// The line before.
    Repeated,
}

/// Variation of the probe's current from line to line, relative to its mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flicker {
    /// Standard deviation of what differs from line to line.
    pub line_rms: f64,
    /// Standard deviation of what is correlated over lines.
    pub slow_rms: f64,
    /// Lines after which the correlation of the slow part has fallen to 1/e.
    pub slow_lines: f64,
}

impl Default for Flagging {
    fn default() -> Self {
        Self { rms_pm: 0.0, lines: 30.0 }
    }
}

impl Default for Hum {
    fn default() -> Self {
        Self { amplitude_pm: [0.0, 0.0], hz: 50.0, phase_rad: None }
    }
}

impl Default for Flyback {
    fn default() -> Self {
        Self { offset_pm: 0.0, settling_us: 20.0 }
    }
}

impl Default for Flicker {
    fn default() -> Self {
        Self { line_rms: 0.0, slow_rms: 0.0, slow_lines: 100.0 }
    }
}

impl Distortions {
    pub(super) fn validate(&self, key_prefix: &str, line_us: f64) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        check.both("drift_curve_pm", self.drift_curve_pm, 2000.0)?;
        check.within("flagging.rms_pm", self.flagging.rms_pm, [0.0, 500.0])?;
        check.within("flagging.lines", self.flagging.lines, [0.1, 1e6])?;
        check.both("hum.amplitude_pm", self.hum.amplitude_pm, 100.0)?;
        check.within("hum.hz", self.hum.hz, [0.1, 1e4])?;
        check.angle("hum.phase_rad", self.hum.phase_rad.unwrap_or(0.0))?;
        check.within("flyback.offset_pm", self.flyback.offset_pm, [0.0, 2000.0])?;
        check.within("flyback.settling_us", self.flyback.settling_us, [0.01, 1e6])?;
        let settles = self.flyback.offset_pm == 0.0 || self.flyback.settling_us <= line_us;
        let expected = "at most the time of a line";
        check.that(settles, "flyback.settling_us", &self.flyback.settling_us, expected)?;
        check.within("jumps.probability", self.jumps.probability, [0.0, 1.0])?;
        check.within("jumps.rms_pm", self.jumps.rms_pm, [0.0, 500.0])?;
        check.within("lost_lines.probability", self.lost_lines.probability, [0.0, 1.0])?;
        check.within("flicker.line_rms", self.flicker.line_rms, [0.0, 0.5])?;
        check.within("flicker.slow_rms", self.flicker.slow_rms, [0.0, 0.5])?;
        check.within("flicker.slow_lines", self.flicker.slow_lines, [0.1, 1e6])
    }
}
