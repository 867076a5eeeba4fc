//! The closed loop on the simulator: how many frames until the planted defects of a field have been looked at, by a controller
//! that follows candidates, by raster and by random search.
//!
//! *Rules, the same for all*: every frame has as many pixels and as much beam time as every other. A defect is *found* when a frame
//! at the detail's pixel size shows it at least half a window inside its border, where it can be measured; it is also *reported*
//! when a candidate of that frame lies within [`REPORTED_NM`] of it. Raster and random search take details alone; the raster's
//! frames touch where defects can be found, none overlaps another, and its number of frames is what everyone gets.
//! The controller takes overviews of the field first, at a larger pixel size, and then the raster's details in the order of what
//! they promise ([`plan`]); it knows nothing but what the pipeline publishes. Overviews find nothing.

mod field;
mod plan;
mod report;
mod strategies;

pub use field::Planted;
pub use strategies::Strategy;

use super::EvaluateError;
use crate::config::InvalidSetting;
use crate::pipeline::Analyzer;
use crate::simulate::DefectKind;
use field::Field;
use serde::{Deserialize, Serialize};
use strategies::Search;

/// A candidate this near to a defect reports it, nm: a window is 1.2 nm wide.
pub const REPORTED_NM: f64 = 1.0;
/// Half a window of 80 px at 15 pm: nearer to the border nothing is measured, nm.
const BORDER_NM: f64 = 0.6;

/// The field, what is planted in it, and how it is looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoopSettings {
    pub seed: u64,
    /// Side of the field that is searched, nm.
    pub field_nm: f64,
    /// Side of every frame, px.
    pub side_px: usize,
    /// Pixel sizes, pm.
    pub overview_pm: f64,
    pub detail_pm: f64,
    /// Detected electrons at the peak of an A column, in every pixel of either size.
    pub peak_counts: f64,
    /// Defects of each kind; dislocations among them.
    pub defects: Vec<(DefectKind, usize)>,
    /// Whether four domains meet in the field, in a vortex that is to be found as well.
    pub junction: bool,
    /// Random searches that are averaged. Their frames do not go through the pipeline: what is reported of a defect that was found
    /// does not depend on who found it.
    pub random_runs: usize,
}

impl Default for LoopSettings {
    fn default() -> Self {
        Self {
            seed: 20_261_127,
            field_nm: 29.0,
            side_px: 256,
            overview_pm: 30.0,
            detail_pm: 15.0,
            peak_counts: 200.0,
            defects: vec![
                (DefectKind::VacancyA, 4),
                (DefectKind::VacancyB, 2),
                (DefectKind::AntisiteA, 2),
                (DefectKind::Interstitial, 2),
                (DefectKind::Amorphous, 2),
                (DefectKind::Dislocation, 1),
            ],
            junction: true,
            random_runs: 200,
        }
    }
}

impl LoopSettings {
    /// A small field with one defect that is hard to overlook, to see that the loop closes.
    pub fn quick() -> Self {
        Self {
            field_nm: 9.0,
            side_px: 192,
            overview_pm: 32.0,
            defects: vec![(DefectKind::Amorphous, 2), (DefectKind::VacancyA, 1)],
            junction: false,
            ..Self::default()
        }
    }

    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        if !(128..=1024).contains(&self.side_px) {
            return Err(InvalidSetting::new(key("side_px"), self.side_px, "128 to 1024 px"));
        }
        for (name, value) in [("overview_pm", self.overview_pm), ("detail_pm", self.detail_pm)] {
            if !(3.0..=60.0).contains(&value) {
                return Err(InvalidSetting::new(key(name), value, "3 to 60 pm"));
            }
        }
        if !(1.0..=1e6).contains(&self.peak_counts) {
            return Err(InvalidSetting::new(key("peak_counts"), self.peak_counts, "1 to 1000000"));
        }
        if !(5.0..=500.0).contains(&self.field_nm) || self.inner_nm(self.detail_pm) < 0.5 {
            let expected = "5 to 500 nm, and details of at least 1.7 nm";
            return Err(InvalidSetting::new(key("field_nm"), self.field_nm, expected));
        }
        if self.defects.iter().map(|(_, count)| count).sum::<usize>() > 1000 {
            return Err(InvalidSetting::new(key("defects"), "more", "at most 1000 defects"));
        }
        Ok(())
    }

    /// Side of what a frame shows half a window inside its border, nm.
    fn inner_nm(&self, pixel_pm: f64) -> f64 {
        self.side_px as f64 * pixel_pm / 1000.0 - 2.0 * BORDER_NM
    }

    /// Frames of a raster that shows all of the field with this pixel size, a side.
    fn raster_side(&self, pixel_pm: f64) -> usize {
        ((self.field_nm / self.inner_nm(pixel_pm)).ceil() as usize).max(1)
    }

    /// The frames that every search gets: those of the raster.
    pub fn budget(&self) -> usize {
        self.raster_side(self.detail_pm).pow(2)
    }
}

/// How many defects were found and reported after each frame of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pub strategy: Strategy,
    /// Fractions of a defect occur where searches are averaged.
    pub found: Vec<f64>,
    /// Empty for random search.
    pub reported: Vec<f64>,
    /// The frame, from 1, in which each planted defect was found, and reported; empty for random search.
    pub found_in: Vec<Option<usize>>,
    pub reported_in: Vec<Option<usize>>,
    /// Details taken, and those of them that showed a defect; of random search, in all runs.
    pub details: usize,
    pub hits: usize,
}

impl Curve {
    /// The first frame after which `share` of `planted` defects were found; `None` when that never was.
    pub fn frames_to(&self, share: f64, planted: usize) -> Option<usize> {
        let wanted = share * planted as f64 - 1e-9;
        self.found.iter().position(|found| *found >= wanted).map(|index| index + 1)
    }
}

/// The searches of one field.
#[derive(Debug, Clone)]
pub struct Study {
    pub settings: LoopSettings,
    pub planted: Vec<Planted>,
    /// Controller, raster, random.
    pub curves: Vec<Curve>,
    /// Random search's worst and best run after each frame.
    pub random_spread: Vec<[f64; 2]>,
    /// Whether a candidate of an overview lay within [`REPORTED_NM`] of each defect.
    pub seen_in_overview: Vec<bool>,
}

/// Searches the field in all three ways. `analyzer` makes a fresh pipeline for each; `each` is called after every frame that one
/// has worked on, of which there are at most twice as many as [`LoopSettings::budget`].
///
/// # Errors
/// When a frame cannot be simulated or processed, or no DCNN is loaded.
pub fn study(
    mut analyzer: impl FnMut() -> Result<Analyzer, EvaluateError>,
    settings: &LoopSettings,
    mut each: impl FnMut(),
) -> Result<Study, EvaluateError> {
    let field = Field::plant(settings)?;
    let mut curves = Vec::new();
    let mut seen_in_overview = Vec::new();
    for strategy in [Strategy::Candidates, Strategy::Raster] {
        let analyzer = analyzer()?;
        if analyzer.engine().dcnn_manifest().is_none() {
            return Err(EvaluateError::NoDcnn);
        }
        let mut search = Search::new(&field, settings, analyzer);
        search.run(strategy, &mut each)?;
        if strategy == Strategy::Candidates {
            seen_in_overview.clone_from(&search.seen_in_overview);
        }
        curves.push(search.into_curve(strategy));
    }
    let (random, random_spread) = strategies::random_average(&field, settings);
    curves.push(random);
    let planted = field.planted;
    Ok(Study { settings: settings.clone(), planted, curves, random_spread, seen_in_overview })
}

#[cfg(test)]
mod tests;
