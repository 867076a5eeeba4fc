//! Images from a microscope, whose truth nobody knows: whether DCNN and classical measurement say the same, and whether damage done on
//! purpose is flagged, and nothing else.
//!
//! *Inside* are the windows whose centre lies in the damage; *outside* those farther from it than the width of a window, which see
//! nothing of it. What is neither counts for nothing. A candidate lies *on* the damage when it is no farther from it than half a
//! window.

mod agreement;
mod damage;
#[cfg(test)]
mod tests;

pub use damage::{Area, Damage, Original, damaged};

use super::EvaluateError;
use super::ood::ranking;
use super::table::{Entry, Table};
use super::windows::random;
use crate::config::InvalidSetting;
use crate::figure::{self, DamagedCopy, FigureSettings};
use crate::frame::{Frame, ScanGeometry, grid_centre};
use crate::label::{LabelSettings, label_frame};
use crate::pipeline::Analyzer;
use crate::preprocess::measured_pixels;
use agreement::Agreement;
use ferrostem_proto::{CandidateKind, PixelPosition, ResultMessage};
use ndarray::{Array2, indices};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The damage, and on how many copies it is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RealSettings {
    pub seed: u64,
    /// Copies of the image for each kind of damage, each damaged at a place of its own.
    pub copies: usize,
    /// Side of a patch, nm.
    pub patch_nm: f64,
    /// Standard deviation of the Gaussian that blurs a patch, nm.
    pub blur_nm: f64,
    /// Side of the blocks that change places, nm; single pixels where it is less than one.
    pub block_nm: f64,
    /// Height of the band of shifted rows, and by how much they are shifted, nm.
    pub band_nm: f64,
    pub shift_nm: f64,
}

impl Default for RealSettings {
    fn default() -> Self {
        Self {
            seed: 20_261_130,
            copies: 3,
            patch_nm: 2.0,
            blur_nm: 0.15,
            block_nm: 0.2,
            band_nm: 0.6,
            shift_nm: 0.2,
        }
    }
}

impl RealSettings {
    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        if !(1..=1000).contains(&self.copies) {
            return Err(InvalidSetting::new(key("copies"), self.copies, "1 to 1000"));
        }
        let lengths = [
            ("patch_nm", self.patch_nm),
            ("blur_nm", self.blur_nm),
            ("block_nm", self.block_nm),
            ("band_nm", self.band_nm),
            ("shift_nm", self.shift_nm),
        ];
        for (name, length) in lengths {
            if !(length > 0.0 && length <= 1000.0) {
                return Err(InvalidSetting::new(key(name), length, "above 0, at most 1000 (nm)"));
            }
        }
        Ok(())
    }

    /// Frames that [`examine`] processes.
    pub const fn processed(&self) -> usize {
        1 + Damage::ALL.len() * self.copies
    }
}

/// A frame, and what the pipeline says of it.
#[derive(Debug)]
struct Seen {
    frame: Arc<Frame>,
    result: ResultMessage,
}

/// All that is said of one image.
#[derive(Debug)]
pub struct Examined {
    original: Seen,
    agreement: Agreement,
    damaged: [DamagedCopies; Damage::ALL.len()],
}

/// Copies with one kind of damage.
#[derive(Debug)]
struct DamagedCopies {
    damage: Damage,
    /// The first copy, for the figure.
    shown: Option<(Seen, Area)>,
    inside: Windows,
    outside: Windows,
    copies: usize,
    /// Copies with a candidate on the damage; candidates outside, over all copies.
    found: usize,
    candidates_outside: usize,
}

/// Windows that were measured before and after.
#[derive(Debug, Default)]
struct Windows {
    /// The p-values after the damage.
    p_values: Vec<f64>,
    flagged_before: usize,
    flagged: usize,
}

/// Takes one image through all stages, as it is and damaged, and measures it classically. `other` is what a patch is taken from
/// ([`Damage::Pasted`]). `each` is called after every frame, [`RealSettings::processed`] times.
///
/// # Errors
/// When no DCNN with feature statistics is loaded, the image cannot be processed, or has no room for the damage.
pub fn examine(
    analyzer: &mut Analyzer,
    frame: &Arc<Frame>,
    other: Option<&Array2<f32>>,
    settings: &RealSettings,
    mut each: impl FnMut(),
) -> Result<Examined, EvaluateError> {
    let manifest = analyzer.engine().dcnn_manifest().ok_or(EvaluateError::NoDcnn)?;
    let window_px = analyzer.engine().window_px().ok_or(EvaluateError::NoDcnn)?;
    let window_pm = window_px as f64 * manifest.input.pixel_size_pm;
    if analyzer.engine().feature_statistics().is_none() {
        return Err(EvaluateError::NoStatistics);
    }
    let result = analyzer.analyze(Arc::clone(frame))?;
    each();
    let pixel_size_pm = result.calibration.pixel_size_pm;
    let source = Original { pixels: &frame.pixels, pixel_size_pm, border_pm: 0.5 * window_pm, other };
    let original = Seen { frame: Arc::clone(frame), result };
    let mut copies = Damage::ALL.map(DamagedCopies::none);
    for (kind, of_kind) in copies.iter_mut().enumerate() {
        for copy in 0..settings.copies {
            let mut rng = random(settings.seed, kind * settings.copies + copy);
            let (pixels, area) = damaged(of_kind.damage, &source, settings, &mut rng)
                .ok_or_else(|| no_room(of_kind.damage, settings, frame, pixel_size_pm))?;
            // Calibrated as the original, so that its windows are the same.
            let scan = ScanGeometry { pixel_size_pm: Some(pixel_size_pm), ..frame.scan };
            let frame = Arc::new(Frame { pixels, scan, ..Frame::clone(frame) });
            let result = analyzer.analyze(Arc::clone(&frame))?;
            of_kind.add(&original, Seen { frame, result }, area, window_pm);
            each();
        }
    }
    let valid = measured_pixels(&frame.pixels, &frame.valid_rows);
    // An image without a lattice has no cells.
    let labels = label_frame(&frame.pixels, &valid, pixel_size_pm, None, &LabelSettings::default()).ok();
    let agreement = Agreement::of(&original.result, labels.as_ref());
    Ok(Examined { original, agreement, damaged: copies })
}

fn no_room(damage: Damage, settings: &RealSettings, frame: &Frame, pixel_pm: [f64; 2]) -> InvalidSetting {
    let (rows, cols) = frame.pixels.dim();
    let [height, width] = [rows as f64 * pixel_pm[0] / 1000.0, cols as f64 * pixel_pm[1] / 1000.0];
    let (key, value) = match damage {
        Damage::Shifted => ("band_nm", settings.band_nm),
        _ => ("patch_nm", settings.patch_nm),
    };
    let name = &frame.acquisition;
    InvalidSetting::new(
        key,
        value,
        format!("less than {name} ({height:.1} x {width:.1} nm) has between half a window at each border"),
    )
}

impl DamagedCopies {
    fn none(damage: Damage) -> Self {
        let [inside, outside] = Default::default();
        Self { damage, shown: None, inside, outside, copies: 0, found: 0, candidates_outside: 0 }
    }

    fn add(&mut self, original: &Seen, copy: Seen, area: Area, window_pm: f64) {
        let result = &copy.result;
        let grid = &result.grid;
        let away = |px: PixelPosition| area.away_pm(px.row, px.col, result.calibration.pixel_size_pm);
        let flagged =
            |result: &ResultMessage, (i, j)| result.ood.flag.get(i, j).is_some_and(|&flag| flag != 0);
        for at in indices((grid.rows as usize, grid.cols as usize)) {
            let p_value =
                |result: &ResultMessage| result.ood.p_value.get(at.0, at.1).filter(|p| !p.is_nan()).copied();
            let (Some(_), Some(p_value)) = (p_value(&original.result), p_value(result)) else { continue };
            let away_pm = away(grid_centre(grid, at.0, at.1));
            let windows = if away_pm == 0.0 {
                &mut self.inside
            } else if away_pm > window_pm {
                &mut self.outside
            } else {
                continue;
            };
            windows.p_values.push(f64::from(p_value));
            windows.flagged_before += usize::from(flagged(&original.result, at));
            windows.flagged += usize::from(flagged(result, at));
        }
        let strange = result.candidates.iter().filter(|candidate| candidate.kind == CandidateKind::Ood);
        let distances: Vec<f64> = strange.map(|candidate| away(candidate.px)).collect();
        self.copies += 1;
        self.found += usize::from(distances.iter().any(|away_pm| *away_pm <= 0.5 * window_pm));
        self.candidates_outside += distances.iter().filter(|away_pm| **away_pm > window_pm).count();
        self.shown.get_or_insert((copy, area));
    }

    fn row(&self, image: &str) -> Vec<Entry> {
        let Self { inside, outside, .. } = self;
        let surprise = |windows: &Windows| windows.p_values.iter().map(|p| -p).collect::<Vec<f64>>();
        let percent = |count: usize, of: usize| Entry::from(100.0 * count as f64 / of as f64);
        let copies = self.copies;
        vec![
            image.into(),
            self.damage.name().into(),
            inside.p_values.len().into(),
            percent(inside.flagged_before, inside.p_values.len()),
            percent(inside.flagged, inside.p_values.len()),
            outside.p_values.len().into(),
            percent(outside.flagged_before, outside.p_values.len()),
            percent(outside.flagged, outside.p_values.len()),
            ranking(&surprise(inside), &surprise(outside)).auroc.into(),
            percent(self.found, copies),
            (self.candidates_outside as f64 / copies as f64).into(),
        ]
    }
}

/// Agreement of DCNN and classical measurement, one row an image.
pub fn agreement_table(images: &[Examined]) -> Table {
    let mut table = Table::new(agreement::TITLE, &agreement::HEADINGS);
    for image in images {
        table.push(image.agreement.row(&image.original.result));
    }
    table
}

/// What was flagged of the damage, one row an image and kind of damage.
pub fn damage_table(images: &[Examined], settings: &RealSettings) -> Table {
    let RealSettings { copies, patch_nm, blur_nm, block_nm, band_nm, shift_nm, .. } = settings;
    let title = format!(
        "Deliberate damage, {copies} copies of each kind: patches of {patch_nm} nm blurred by {blur_nm} nm, shuffled in blocks of \
         {block_nm} nm, from another image (without one: turned by 45°); {band_nm} nm of rows shifted by {shift_nm} nm. Inside: \
         windows centred in the damage; outside: windows that see nothing of it. AUROC: inside against outside, by p-value."
    );
    let headings = [
        ("image", 0),
        ("damage", 0),
        ("windows inside", 0),
        ("flagged inside before (%)", 1),
        ("flagged inside (%)", 1),
        ("windows outside", 0),
        ("flagged outside before (%)", 2),
        ("flagged outside (%)", 2),
        ("AUROC", 3),
        ("copies with a candidate on it (%)", 0),
        ("candidates outside, a copy", 2),
    ];
    let mut table = Table::new(title, &headings);
    for image in images {
        for damaged in &image.damaged {
            table.push(damaged.row(&image.original.result.acquisition));
        }
    }
    table
}

impl Examined {
    /// The image and the first of its copies with each damage, with P and flags, as `<dir>/real_<image>.png`.
    ///
    /// # Errors
    /// When the picture cannot be drawn or written.
    pub fn draw(&self, dir: &Path) -> Result<PathBuf, EvaluateError> {
        let Seen { frame, result } = &self.original;
        let shown = self.damaged.iter().filter_map(|damaged| Some((damaged.damage, damaged.shown.as_ref()?)));
        let copies: Vec<DamagedCopy<'_>> = shown
            .map(|(damage, (Seen { frame, result }, Area { rows, cols }))| DamagedCopy {
                name: damage.name(),
                frame: &frame.pixels,
                result,
                area: [rows.clone(), cols.clone()],
            })
            .collect();
        let picture = figure::damage_figure(&frame.pixels, result, &copies, &FigureSettings::default())?;
        let name = format!("real_{}", figure::file_name(&result.acquisition));
        Ok(figure::write_png(dir, &name, &picture)?)
    }
}
