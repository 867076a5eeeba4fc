//! How well mistilt is found: offsets of known size and direction planted in frames of several domains, of one, and of none.
//!
//! Features: the whole pipeline on simulated frames ([`pipeline`]), and the flag alone on fields made from the truth with errors of a
//! given size and the spatial correlation that a network's have ([`ideal`]), which tells the flag's part from the network's.
//! Each by kind of frame, offset and dose or error, and once more by the direction of the offset in the lattice, from the same frames.
//! Assumptions: the offset is the same over the frame and comes alone; what else a tilt does to columns is in
//! [`Tilt`](crate::simulate::Tilt). A frame counts as found when one of its tiles is suspect: without an offset, that is a false alarm.

mod fields;
mod scenes;
mod tally;

pub use scenes::Kind;

use super::EvaluateError;
use super::table::Table;
use super::windows::as_frame;
use crate::config::InvalidSetting;
use crate::flags::mistilt::MistiltSettings;
use crate::flags::{self, Evidence, FlagSettings, Reference};
use crate::pipeline::Analyzer;
use crate::simulate::render;
use ferrostem_proto::{Calibration, CalibrationSource};
use fields::ideal_fields;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use scenes::{PIXEL_PM, Planted, scene};
use serde::{Deserialize, Serialize};
use tally::{Tables, Tallies, Tile, tiles_of};

/// What is planted, and in how many frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MistiltStudySettings {
    pub seed: u64,
    /// Side of a frame, 15 pm a pixel.
    pub side_px: usize,
    /// Frames for each row of the pipeline's table.
    pub frames: usize,
    /// Frames for each row of the table of the flag alone.
    pub ideal_frames: usize,
    /// Length of the offset of P; 0 is without tilt.
    pub offsets_pm: Vec<f64>,
    /// Detected electrons at the peak of an A column.
    pub counts: Vec<f64>,
    /// Root mean square errors of a component of P of networks that have no bias.
    pub ideal_sigmas_pm: Vec<f64>,
    /// Their bias, which the flag is told: a number above 0.
    pub ideal_bias_pm: f64,
    pub kinds: Vec<Kind>,
}

impl Default for MistiltStudySettings {
    fn default() -> Self {
        Self {
            seed: 20_261_125,
            side_px: 512,
            frames: 20,
            ideal_frames: 200,
            offsets_pm: vec![0.0, 2.0, 5.0, 10.0, 20.0],
            counts: vec![30.0, 100.0, 300.0],
            ideal_sigmas_pm: vec![8.0, 4.0],
            ideal_bias_pm: 0.5,
            kinds: Kind::ALL.to_vec(),
        }
    }
}

impl MistiltStudySettings {
    /// A few frames and rows, to see that it works.
    pub fn quick(self) -> Self {
        Self {
            side_px: 320,
            frames: 2,
            ideal_frames: 12,
            offsets_pm: vec![0.0, 10.0],
            counts: vec![100.0],
            ideal_sigmas_pm: vec![4.0],
            ..self
        }
    }

    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        if !(128..=4096).contains(&self.side_px) {
            return Err(InvalidSetting::new(key("side_px"), self.side_px, "128 to 4096 px"));
        }
        for (name, frames) in [("frames", self.frames), ("ideal_frames", self.ideal_frames)] {
            if frames > 100_000 {
                return Err(InvalidSetting::new(key(name), frames, "at most 100000"));
            }
        }
        let each = |name: &str, values: &[f64], [low, high]: [f64; 2]| {
            let outside = values.iter().find(|value| !(low..=high).contains(*value));
            outside.map_or(Ok(()), |value| {
                Err(InvalidSetting::new(key(name), value, format!("{low} to {high}")))
            })
        };
        each("offsets_pm", &self.offsets_pm, [0.0, 50.0])?;
        each("counts", &self.counts, [1.0, 1e6])?;
        each("ideal_sigmas_pm", &self.ideal_sigmas_pm, [0.1, 100.0])?;
        each("ideal_bias_pm", &[self.ideal_bias_pm], [0.01, 100.0])
    }

    /// Frames that [`pipeline`] looks at, and [`ideal`].
    pub fn total_frames(&self) -> [usize; 2] {
        let rows = self.offsets_rows();
        [rows * self.counts.len() * self.frames, rows * self.ideal_sigmas_pm.len() * self.ideal_frames]
    }

    fn offsets_rows(&self) -> usize {
        self.kinds.iter().map(|kind| self.offsets(*kind).len()).sum()
    }

    /// Kinds that are there for false alarms alone have no offset.
    fn offsets(&self, kind: Kind) -> Vec<f64> {
        let shown = |offset: &f64| *offset == 0.0 || !kind.is_control();
        self.offsets_pm.iter().copied().filter(shown).collect()
    }
}

/// The analyzers of a polar material and of one that is not.
#[derive(Debug)]
pub struct Analyzers<'a> {
    pub polar: &'a mut Analyzer,
    pub non_polar: &'a mut Analyzer,
}

/// The materials that the frames show.
pub const POLAR: &str = "bifeo3";
pub const NON_POLAR: &str = "srtio3";

/// Every kind of frame, offset and dose through all stages; the second table is by direction too.
///
/// # Errors
/// When a frame cannot be simulated or processed.
pub fn pipeline(
    analyzers: &mut Analyzers<'_>,
    settings: &MistiltStudySettings,
    mut each: impl FnMut(),
) -> Result<[Table; 2], EvaluateError> {
    let title = format!(
        "Mistilt through the whole pipeline, frames of {0} x {0} px of {PIXEL_PM} pm; `suspect` is the detection rate, and where \
         the offset is 0 the rate of false alarms.",
        settings.side_px
    );
    let mut tables = Tables::new(&title, "counts");
    for &kind in &settings.kinds {
        for offset_pm in settings.offsets(kind) {
            for &counts in &settings.counts {
                let mut tallies = Tallies::default();
                for index in 0..settings.frames {
                    let planted = Planted { kind, offset_pm, counts, side_px: settings.side_px, index };
                    let (specimen, microscope, mut rng) = scene(&planted, settings.seed)?;
                    let simulated = render(&specimen, &microscope, &mut rng)?;
                    let frame = as_frame(&simulated, microscope.pixel_sizes_pm(), index)?;
                    let analyzer =
                        if kind.is_polar() { &mut *analyzers.polar } else { &mut *analyzers.non_polar };
                    tallies.add(index, &tiles_of(&analyzer.analyze(frame)?), &simulated.truth);
                    each();
                }
                tables.push(&tallies, (kind, offset_pm, counts));
            }
        }
    }
    Ok(tables.0)
}

/// The flag alone: windows with the P of the truth and errors that neighbours share, no columns; the second table is by direction
/// too.
///
/// # Errors
/// When a frame cannot be simulated.
pub fn ideal(
    settings: &MistiltStudySettings,
    flag: &MistiltSettings,
    mut each: impl FnMut(),
) -> Result<[Table; 2], EvaluateError> {
    let title = format!(
        "Mistilt from windows with the true P and correlated errors of this standard deviation, a network without bias; frames of \
         {0} x {0} px.",
        settings.side_px
    );
    let mut tables = Tables::new(&title, "sigma (pm)");
    let flags = FlagSettings {
        mistilt: MistiltSettings { bias_pm: Some(settings.ideal_bias_pm), ..*flag },
        ..FlagSettings::default()
    };
    for &kind in &settings.kinds {
        let reference = Reference { material: kind.material()?, features: None, outputs: Vec::new() };
        for offset_pm in settings.offsets(kind) {
            for &sigma_pm in &settings.ideal_sigmas_pm {
                let mut tallies = Tallies::default();
                for index in 0..settings.ideal_frames {
                    let planted =
                        Planted { kind, offset_pm, counts: 100.0, side_px: settings.side_px, index };
                    let (specimen, microscope, mut rng) = scene(&planted, settings.seed)?;
                    let simulated = render(&specimen, &microscope, &mut rng)?;
                    let mut errors = ChaCha8Rng::seed_from_u64(settings.seed ^ 0x6d69_7374);
                    errors.set_stream(index as u64);
                    let fields = ideal_fields(&simulated.truth, settings.side_px, sigma_pm, &mut errors);
                    let frame = as_frame(&simulated, microscope.pixel_sizes_pm(), index)?;
                    let calibration = Calibration {
                        pixel_size_pm: microscope.pixel_sizes_pm(),
                        source: CalibrationSource::Frame,
                    };
                    let evidence = Evidence {
                        frame: &frame,
                        fields: &fields,
                        calibration: &calibration,
                        lattice_angle_rad: Some(specimen.rotation_rad),
                    };
                    let map = flags::evaluate(&evidence, &reference, &flags).mistilt;
                    let tiles: Vec<Tile> = map
                        .verdicts
                        .iter()
                        .map(|v| Tile {
                            offset: [v.offset_x, v.offset_y],
                            covariance: [v.offset_xx, v.offset_xy, v.offset_yy],
                            p_value: v.p_value,
                            state: v.state as u8,
                        })
                        .collect();
                    tallies.add(index, &tiles, &simulated.truth);
                    each();
                }
                tables.push(&tallies, (kind, offset_pm, sigma_pm));
            }
        }
    }
    Ok(tables.0)
}

#[cfg(test)]
mod tests;
