//! Errors by dose, scan rotation, pixel size, P and the cell's aspect, as a user would meet them: frames go through all stages.

mod judged;

use super::EvaluateError;
use super::table::{Entry, Table};
use super::windows::{at_dose, check_known};
use crate::config::InvalidSetting;
use crate::pipeline::Analyzer;
pub(super) use crate::preprocess::{mean, rms};
use crate::simulate::{Faults, TrainingRanges};
use judged::{REFERENCE_PM, judge, standard_error, within_sigma};
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_PI_2, TAU};

/// What is judged, and on how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccuracySettings {
    pub seed: u64,
    /// What the frames show; dose, pixel size and rotation are set by the tables.
    pub scenes: TrainingRanges,
    /// Side of a frame at 15 pm a pixel; frames of another pixel size show the same field of view.
    pub side_px: usize,
    /// Frames for each row of a table.
    pub frames: usize,
    /// Detected electrons at the peak of an A column.
    pub counts: Vec<f64>,
    pub pixel_sizes_pm: Vec<f64>,
    /// P of every domain.
    pub polarizations_pm: Vec<f64>,
    /// Of the cell's edges, a over b.
    pub aspects: Vec<f64>,
    /// Sectors of a quarter turn in which the lattice may lie.
    pub rotations: usize,
    /// Windows nearer to a cell's centre than this fraction of its edge are judged.
    pub within_cells: f64,
}

impl Default for AccuracySettings {
    fn default() -> Self {
        Self {
            seed: 20_261_125,
            scenes: TrainingRanges { b_intensity: TOLD_APART, ..TrainingRanges::default() },
            side_px: 256,
            frames: 40,
            counts: vec![10.0, 30.0, 100.0, 300.0, 1000.0],
            pixel_sizes_pm: vec![7.0, 10.0, 15.0, 20.0, 30.0, 36.0],
            polarizations_pm: vec![0.0, 10.0, 20.0, 40.0, 60.0],
            aspects: vec![0.95, 1.0, 1.05],
            rotations: 6,
            within_cells: 0.5,
        }
    }
}

impl AccuracySettings {
    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        check_known(key_prefix, self.side_px, self.frames, self.within_cells)?;
        if let Some(counts) = self.counts.iter().find(|counts| !(**counts >= 1.0 && **counts <= 1e6)) {
            return Err(InvalidSetting::new(key("counts"), counts, "1 to 1000000"));
        }
        if let Some(pixel) = self.pixel_sizes_pm.iter().find(|pixel| !(**pixel >= 3.0 && **pixel <= 60.0)) {
            return Err(InvalidSetting::new(key("pixel_sizes_pm"), pixel, "3 to 60 pm"));
        }
        if let Some(p) = self.polarizations_pm.iter().find(|p| !(0.0..=100.0).contains(*p)) {
            return Err(InvalidSetting::new(key("polarizations_pm"), p, "0 to 100 pm"));
        }
        if let Some(aspect) = self.aspects.iter().find(|aspect| !(0.8..=1.25).contains(*aspect)) {
            return Err(InvalidSetting::new(key("aspects"), aspect, "0.8 to 1.25"));
        }
        self.scenes.validate(&key("scenes"))
    }
}

/// Peak height of the B columns, A = 1, up to which an image says which is which: where they look alike, so do P and its reverse.
/// Training goes further.
const TOLD_APART: [f64; 2] = [0.12, 0.7];
/// Columns of what [`Judged::compared()`] gives.
const COMPARED: [(&str, usize); 4] = [
    ("P DCNN, cells measured classically (pm)", 2),
    ("P classical (pm)", 2),
    ("P DCNN, median frame (pm)", 2),
    ("P classical, median frame (pm)", 2),
];

/// RMS errors of the network and of the classical measurement ([`label_frame`](crate::label::label_frame)), dose by dose, beside the Cramér–Rao bound of a
/// square lattice of such columns under Poisson noise alone.
///
/// `title` says what the frames show; `scenes` stand in for those of the settings.
///
/// # Errors
/// When a frame cannot be simulated or processed, or no DCNN is loaded.
pub fn by_dose(
    analyzer: &mut Analyzer,
    settings: &AccuracySettings,
    faults: bool,
    mut each: impl FnMut(),
) -> Result<Table, EvaluateError> {
    let title = if faults { "whatever training draws" } else { "no fault but noise and blur" };
    let mut table = Table::new(
        format!("Errors by dose (counts at the peak of an A column), {title}: P per component, RMS."),
        &[
            &[("counts", 0), ("windows", 0), ("P DCNN (pm)", 2)][..],
            &COMPARED,
            &[
                ("cells measured classically (%)", 1),
                ("bound of P (pm)", 2),
                ("P spread of truth (pm)", 1),
                ("bias x (pm)", 2),
                ("bias y (pm)", 2),
                ("a (pm)", 2),
                ("b (pm)", 2),
                ("angle (mrad)", 2),
                ("area (%)", 2),
                ("within sigma (%)", 1),
            ],
        ]
        .concat(),
    );
    for &counts in &settings.counts {
        let scenes = at_dose(&settings.scenes, counts)?;
        let scenes = if faults { scenes } else { faultless(scenes) };
        let judged = judge(analyzer, settings, &scenes, &mut each)?;
        let errors = |quantity: usize| judged.windows.iter().map(move |window| window.error(quantity));
        let p = || errors(0).chain(errors(1));
        let truth = judged.windows.iter().flat_map(|window| [window.truth[0], window.truth[1]]);
        let area = judged.windows.iter().map(|window| window.error(5) / window.truth[5]);
        let mut row = vec![counts.into(), judged.windows.len().into(), rms(p()).into()];
        row.extend(judged.compared().map(Entry::from));
        row.extend([
            (100.0 * judged.measured as f64 / judged.cells.max(1) as f64).into(),
            rms(judged.bounds.iter().copied()).into(),
            rms(truth).into(),
            mean(errors(0)).into(),
            mean(errors(1)).into(),
            rms(errors(2)).into(),
            rms(errors(3)).into(),
            (1e3 * rms(errors(4))).into(),
            (100.0 * rms(area)).into(),
            (100.0 * within_sigma(&judged.windows)).into(),
        ]);
        table.push(row);
    }
    Ok(table)
}

/// The same specimens under a microscope whose only faults are noise and blur.
pub(super) fn faultless(scenes: TrainingRanges) -> TrainingRanges {
    TrainingRanges {
        line_jitter_pm: [0.0; 2],
        drift_fraction: [0.0; 2],
        smoothing_probability: 0.0,
        faults: Faults::none(),
        ..scenes
    }
}

/// What the network says of lattices without P, sector by sector of the lattice's direction and by pixel size, at 300 counts.
///
/// # Errors
/// As [`by_dose`].
pub fn non_polar(
    analyzer: &mut Analyzer,
    settings: &AccuracySettings,
    mut each: impl FnMut(),
) -> Result<Table, EvaluateError> {
    let mut table = Table::new(
        "Mean of P on non-polar lattices at 300 counts, with its standard error from frame to frame.",
        &[
            ("lattice at (°)", 1),
            ("pixel (pm)", 1),
            ("windows", 0),
            ("mean P_x (pm)", 2),
            ("mean P_y (pm)", 2),
            ("standard error (pm)", 2),
            ("RMS P (pm)", 2),
        ],
    );
    let flat = TrainingRanges { polarization_pm: [0.0, 0.0], ..at_dose(&settings.scenes, 300.0)? };
    let sector = FRAC_PI_2 / settings.rotations.max(1) as f64;
    let turned = (0..settings.rotations).map(|k| {
        let range = [sector * k as f64, sector * (k + 1) as f64];
        (sector * (k as f64 + 0.5), REFERENCE_PM, range)
    });
    let scaled = settings.pixel_sizes_pm.iter().map(|&pixel| (f64::NAN, pixel, [0.0, TAU]));
    for (angle_rad, pixel_pm, rotation_rad) in turned.chain(scaled) {
        let scenes = TrainingRanges { rotation_rad, pixel_size_pm: [pixel_pm; 2], ..flat.clone() };
        let judged = judge(analyzer, settings, &scenes, &mut each)?;
        let errors = |quantity: usize| judged.windows.iter().map(move |window| window.error(quantity));
        table.push(vec![
            angle_rad.to_degrees().into(),
            pixel_pm.into(),
            judged.windows.len().into(),
            mean(errors(0)).into(),
            mean(errors(1)).into(),
            standard_error(&judged.windows).into(),
            rms(errors(0).chain(errors(1))).into(),
        ]);
    }
    Ok(table)
}

/// RMS errors by pixel size at 300 counts.
///
/// # Errors
/// As [`by_dose`].
pub fn by_pixel_size(
    analyzer: &mut Analyzer,
    settings: &AccuracySettings,
    each: impl FnMut(),
) -> Result<Table, EvaluateError> {
    let scenes = at_dose(&settings.scenes, 300.0)?;
    let row = |&pixel_pm: &f64| {
        (vec![pixel_pm.into()], TrainingRanges { pixel_size_pm: [pixel_pm; 2], ..scenes.clone() })
    };
    let rows = settings.pixel_sizes_pm.iter().map(row).collect();
    let title = "RMS errors by pixel size at 300 counts a pixel.";
    by_scenes(analyzer, settings, (title, &[("pixel (pm)", 1)], rows), each)
}

/// RMS errors by the length of P and by the cell's aspect at 300 counts.
///
/// # Errors
/// As [`by_dose`].
pub fn by_crystal(
    analyzer: &mut Analyzer,
    settings: &AccuracySettings,
    each: impl FnMut(),
) -> Result<Table, EvaluateError> {
    let scenes = faultless(at_dose(&settings.scenes, 300.0)?);
    let by_p = settings.polarizations_pm.iter().map(|&p_pm| {
        let scenes = TrainingRanges { polarization_pm: [p_pm; 2], ..scenes.clone() };
        (vec![p_pm.into(), f64::NAN.into()], scenes)
    });
    let by_aspect = settings.aspects.iter().map(|&aspect| {
        let scenes = TrainingRanges { aspect: [aspect; 2], ..scenes.clone() };
        (vec![f64::NAN.into(), aspect.into()], scenes)
    });
    let rows = by_p.chain(by_aspect).collect();
    let title = "RMS errors by P and by the aspect of the cell at 300 counts, no fault but noise and blur.";
    by_scenes(analyzer, settings, (title, &[("P (pm)", 0), ("a / b", 2)], rows), each)
}

/// Scenes by row, behind what stands in the row's first columns.
type SceneRows = Vec<(Vec<Entry>, TrainingRanges)>;

/// RMS errors on scenes, row by row: of a title, the first columns' headings, and the rows.
fn by_scenes(
    analyzer: &mut Analyzer,
    settings: &AccuracySettings,
    (title, first, rows): (&str, &[(&'static str, usize)], SceneRows),
    mut each: impl FnMut(),
) -> Result<Table, EvaluateError> {
    let mut table = Table::new(
        title,
        &[
            first,
            &[("windows", 0), ("P DCNN (pm)", 2)],
            &COMPARED,
            &[("a (pm)", 2), ("b (pm)", 2), ("within sigma (%)", 1)],
        ]
        .concat(),
    );
    for (mut row, scenes) in rows {
        let judged = judge(analyzer, settings, &scenes, &mut each)?;
        let errors = |quantity: usize| judged.windows.iter().map(move |window| window.error(quantity));
        row.extend([judged.windows.len().into(), rms(errors(0).chain(errors(1))).into()]);
        row.extend(judged.compared().map(Entry::from));
        row.extend([rms(errors(2)), rms(errors(3)), 100.0 * within_sigma(&judged.windows)].map(Entry::from));
        table.push(row);
    }
    Ok(table)
}
