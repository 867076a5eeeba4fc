//! What a source's section of the config may say.

use crate::config::InvalidSetting;
use ferrostem_proto::{Encoding, Limits};
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// Smaller frames hold no sliding window and are refused, px a side.
pub const MIN_SIDE_PX: usize = 32;
/// Pixel sizes outside this range are mistakes of unit, pm.
pub const PIXEL_SIZE_RANGE_PM: std::ops::RangeInclusive<f64> = 0.5..=1000.0;

/// One source of frames: where it is, how it speaks, and what to assume where its frames are silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    /// Names the source in frames, logs, metrics and the thread that serves it.
    pub name: String,
    /// `tcp://host:port` to connect to.
    pub endpoint: String,
    pub pattern: Pattern,
    /// Prefixes of topics to subscribe to; an empty one means everything. Only with `pattern = "sub"`.
    pub topics: Vec<String>,
    pub encoding: EncodingChoice,
    /// Acquisition of frames that name none, outside `begin` and `end`.
    pub acquisition: String,
    /// Detector of frames that name none.
    pub channel: String,
    /// For frames that bring none; `None` = estimate it from the lattice.
    pub pixel_size_pm: Option<PixelSize>,
    /// Scan rotation of frames that bring none, counter-clockwise as displayed.
    pub rotation_rad: f64,
    /// Centre of the field of view of frames that bring none, `[y, x]`.
    pub center_nm: [f64; 2],
    /// Field of view of frames that bring none, `[y, x]`.
    pub fov_nm: Option<[f64; 2]>,
    /// Dwell time of frames that bring none.
    pub dwell_us: Option<f64>,
    pub partial: PartialFrames,
    /// Rows and columns along each edge of every frame that hold no usable data.
    pub border_px: usize,
    /// Larger frames are refused, px a side.
    pub max_side_px: usize,
}

/// The kind of socket to connect with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// To a PUB socket: many may listen, none holds it up.
    #[default]
    Sub,
    /// To a PUSH socket: each message goes to one listener, which holds it up when it is slow.
    Pull,
}

/// Which encodings to accept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncodingChoice {
    /// Any, told by content.
    #[default]
    Auto,
    Cbor,
    Bincode,
    Recipe,
}

/// What to do with frames whose scan had not finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartialFrames {
    /// Count and pass over.
    #[default]
    Skip,
    /// Treat as frames; rows outside `valid_rows` are NaN.
    Process,
}

/// A number for square pixels, or `[row, col]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PixelSize {
    Square(f64),
    RowCol([f64; 2]),
}

impl PixelSize {
    /// `[row, col]`.
    pub const fn row_col(self) -> [f64; 2] {
        match self {
            Self::Square(side) => [side, side],
            Self::RowCol(sides) => sides,
        }
    }
}

impl EncodingChoice {
    /// The only encoding that is accepted, if there is only one.
    pub const fn required(self) -> Option<Encoding> {
        match self {
            Self::Auto => None,
            Self::Cbor => Some(Encoding::Cbor),
            Self::Bincode => Some(Encoding::Bincode),
            Self::Recipe => Some(Encoding::Recipe),
        }
    }
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            name: "microscope".to_owned(),
            endpoint: "tcp://127.0.0.1:5555".to_owned(),
            pattern: Pattern::default(),
            topics: vec![String::new()],
            encoding: EncodingChoice::default(),
            acquisition: "unnamed".to_owned(),
            channel: "HAADF".to_owned(),
            pixel_size_pm: None,
            rotation_rad: 0.0,
            center_nm: [0.0, 0.0],
            fov_nm: None,
            dwell_us: None,
            partial: PartialFrames::default(),
            border_px: 0,
            max_side_px: 8192,
        }
    }
}

impl SourceSettings {
    /// # Errors
    /// The first setting that cannot be used, its key under `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = |right: bool, key: &str, value: &dyn Display, expected: &str| {
            if right {
                Ok(())
            } else {
                Err(InvalidSetting::new(format!("{key_prefix}.{key}"), value, expected))
            }
        };
        let is_name = |text: &str| {
            (1..=32).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let shown = |values: &[f64]| format!("{values:?}");
        check(is_name(&self.name), "name", &self.name, "1 to 32 of A-Z a-z 0-9 - _ .")?;
        check(is_endpoint(&self.endpoint), "endpoint", &self.endpoint, "tcp://host:port, port 1 to 65535")?;
        check(
            self.pattern == Pattern::Pull || !self.topics.is_empty(),
            "topics",
            &"[]",
            "at least one prefix; [\"\"] for everything",
        )?;
        check(!self.acquisition.is_empty(), "acquisition", &"\"\"", "a name")?;
        check(!self.channel.is_empty(), "channel", &"\"\"", "a name, as HAADF")?;
        if let Some(size) = self.pixel_size_pm {
            let sides = size.row_col();
            let right = sides.iter().all(|side| PIXEL_SIZE_RANGE_PM.contains(side));
            check(right, "pixel_size_pm", &shown(&sides), "0.5 to 1000 pm")?;
        }
        check(self.rotation_rad.is_finite(), "rotation_rad", &self.rotation_rad, "a finite angle")?;
        let finite = self.center_nm.iter().all(|nm| nm.is_finite());
        check(finite, "center_nm", &shown(&self.center_nm), "two finite offsets")?;
        if let Some(fov_nm) = self.fov_nm {
            check(
                fov_nm.iter().all(|nm| is_positive(*nm)),
                "fov_nm",
                &shown(&fov_nm),
                "two lengths above 0",
            )?;
        }
        if let Some(dwell_us) = self.dwell_us {
            check(is_positive(dwell_us), "dwell_us", &dwell_us, "a time above 0")?;
        }
        let largest = Limits::default().max_dimension;
        let right = (MIN_SIDE_PX..=largest).contains(&self.max_side_px);
        check(right, "max_side_px", &self.max_side_px, &format!("{MIN_SIDE_PX} to {largest}"))?;
        let room = self.max_side_px.saturating_sub(MIN_SIDE_PX) / 2;
        let expected = format!("0 to {room}, so that {MIN_SIDE_PX} px remain of max_side_px");
        check(self.border_px <= room, "border_px", &self.border_px, &expected)
    }

    /// What decoding may accept from this source.
    pub fn limits(&self) -> Limits {
        Limits { max_dimension: self.max_side_px, ..Limits::default() }
    }
}

pub(super) fn is_positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

fn is_endpoint(endpoint: &str) -> bool {
    endpoint.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')).is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let host_fits = !host.is_empty() && (bracketed || !host.contains(':')) && !host.contains('/');
        host_fits && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_wire() {
        let settings = SourceSettings::default();
        settings.validate("sources.0").unwrap();
        assert_eq!(settings.endpoint, "tcp://127.0.0.1:5555");
        let again: SourceSettings = toml::from_str(&toml::to_string(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn a_section_reads_as_a_microscopist_would_write_it() {
        let settings: SourceSettings = toml::from_str(
            "name = 'titan'\nendpoint = 'tcp://titan:5555'\npattern = 'pull'\nencoding = 'recipe'\n\
             pixel_size_pm = 15\npartial = 'process'\nborder_px = 8",
        )
        .unwrap();
        settings.validate("sources.0").unwrap();
        assert_eq!(settings.pixel_size_pm.map(PixelSize::row_col), Some([15.0, 15.0]));
        let uneven: SourceSettings = toml::from_str("pixel_size_pm = [15.0, 16.0]").unwrap();
        assert_eq!(uneven.pixel_size_pm.map(PixelSize::row_col), Some([15.0, 16.0]));
        assert!(toml::from_str::<SourceSettings>("pixelsize = 3").is_err());
    }

    #[test]
    fn each_unusable_setting_is_named() {
        let refused = |text: &str| {
            let settings: SourceSettings = toml::from_str(text).unwrap();
            settings.validate("s").unwrap_err().key
        };
        for endpoint in [
            "127.0.0.1:5555",
            "udp://a:1",
            "tcp://a",
            "tcp://:5",
            "tcp://a:0",
            "tcp://a:99999",
            "tcp://::1:5",
        ] {
            assert_eq!(refused(&format!("endpoint = '{endpoint}'")), "s.endpoint", "{endpoint}");
        }
        assert!(is_endpoint("tcp://[::1]:5555") && is_endpoint("tcp://titan.local:1"));
        assert_eq!(refused("name = 'a b'"), "s.name");
        assert_eq!(refused("topics = []"), "s.topics");
        assert_eq!(refused("pixel_size_pm = 1e-11"), "s.pixel_size_pm");
        assert_eq!(refused("pixel_size_pm = nan"), "s.pixel_size_pm");
        assert_eq!(refused("rotation_rad = inf"), "s.rotation_rad");
        assert_eq!(refused("fov_nm = [0.0, 1.0]"), "s.fov_nm");
        assert_eq!(refused("dwell_us = -1.0"), "s.dwell_us");
        assert_eq!(refused("max_side_px = 31"), "s.max_side_px");
        assert_eq!(refused("border_px = 5000"), "s.border_px");
        assert_eq!(refused("acquisition = ''"), "s.acquisition");
        assert_eq!(refused("channel = ''"), "s.channel");
    }
}
