//! Errors by dose, by scan rotation and by pixel size, as a user would meet them: frames go through all stages.

use super::EvaluateError;
use super::table::{Entry, Table};
use super::windows::{KnownFrame, Window, at_dose, check_known, known_frame, known_windows};
use crate::columns::Neighbours;
use crate::config::InvalidSetting;
use crate::frame::ClassicalCell;
use crate::label::{LabelSettings, label_frame};
use crate::pipeline::Analyzer;
pub(super) use crate::preprocess::{mean, rms};
use crate::preprocess::{measured_pixels, median};
use crate::simulate::{Faults, TrainingRanges};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
        self.scenes.validate(&key("scenes"))
    }
}

/// Peak height of the B columns, A = 1, up to which an image says which is which: where they look alike, so do P and its reverse.
/// Training goes further.
const TOLD_APART: [f64; 2] = [0.12, 0.7];
/// Pixel size at which `side_px` is meant.
const REFERENCE_PM: f64 = 15.0;
/// A found cell is compared with a true one no farther than this, in edges of the cell.
const SAME_CELL: f64 = 0.25;
/// Columns of what [`Judged::compared()`] gives.
const COMPARED: [(&str, usize); 4] = [
    ("P DCNN, cells measured classically (pm)", 2),
    ("P classical (pm)", 2),
    ("P DCNN, median frame (pm)", 2),
    ("P classical, median frame (pm)", 2),
];

/// One row of a table before it is written.
#[derive(Debug, Default)]
struct Judged {
    windows: Vec<Window>,
    /// Errors of P, pm, both components, of each frame in which the classical measurement found cells: the network's, in windows of
    /// those cells, and the classical ones.
    compared: Vec<[Vec<f64>; 2]>,
    /// The Cramér–Rao bound of a component of P, pm, of each frame.
    bounds: Vec<f64>,
    /// Cells of the truth, undisturbed, and those of them that the classical measurement found.
    cells: usize,
    measured: usize,
}

/// RMS errors of the network and of the classical measurement ([`label_frame`]), dose by dose, beside the Cramér–Rao bound of a
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
    mut each: impl FnMut(),
) -> Result<Table, EvaluateError> {
    let mut table = Table::new(
        "RMS errors by pixel size at 300 counts a pixel.",
        &[
            &[("pixel (pm)", 1), ("windows", 0), ("P DCNN (pm)", 2)][..],
            &COMPARED,
            &[("a (pm)", 2), ("b (pm)", 2), ("within sigma (%)", 1)],
        ]
        .concat(),
    );
    for &pixel_pm in &settings.pixel_sizes_pm {
        let scenes = TrainingRanges { pixel_size_pm: [pixel_pm; 2], ..at_dose(&settings.scenes, 300.0)? };
        let judged = judge(analyzer, settings, &scenes, &mut each)?;
        let errors = |quantity: usize| judged.windows.iter().map(move |window| window.error(quantity));
        let p = rms(errors(0).chain(errors(1)));
        let mut row = vec![pixel_pm.into(), judged.windows.len().into(), p.into()];
        row.extend(judged.compared().map(Entry::from));
        row.extend([rms(errors(2)), rms(errors(3)), 100.0 * within_sigma(&judged.windows)].map(Entry::from));
        table.push(row);
    }
    Ok(table)
}

fn judge(
    analyzer: &mut Analyzer,
    settings: &AccuracySettings,
    scenes: &TrainingRanges,
    each: &mut impl FnMut(),
) -> Result<Judged, EvaluateError> {
    if analyzer.engine().dcnn_manifest().is_none() {
        return Err(EvaluateError::NoDcnn);
    }
    let pixel_pm = 0.5 * (scenes.pixel_size_pm[0] + scenes.pixel_size_pm[1]);
    let side = (settings.side_px as f64 * REFERENCE_PM / pixel_pm).round() as usize;
    let mut judged = Judged::default();
    for index in 0..settings.frames {
        let known = known_frame(scenes, [side, side], settings.seed, index)?;
        let result = analyzer.analyze(known.frame.clone())?;
        let windows = known_windows(&result, &known.cells(), settings.within_cells, index);
        judged.compare_classically(&known, &windows);
        judged.windows.extend(windows);
        judged.bounds.extend(known.bound.map(|bound| bound.p));
        each();
    }
    Ok(judged)
}

impl Judged {
    /// What stands under [`COMPARED`]: RMS errors of P of the network and of the classical measurement, over all frames and then of
    /// the frame in the middle.
    fn compared(&self) -> [f64; 4] {
        let of = |which: usize| {
            let each = self.compared.iter().map(|errors| rms(errors[which].iter().copied()));
            let all = self.compared.iter().flat_map(|errors| errors[which].iter().copied());
            [rms(all), median(each, f64::total_cmp).unwrap_or(f64::NAN)]
        };
        let [[network, usual_network], [classical, usual_classical]] = [of(0), of(1)];
        [network, classical, usual_network, usual_classical]
    }

    /// The cells of the classical measurement against the true ones. A frame in which it finds no lattice has none.
    fn compare_classically(&mut self, known: &KnownFrame, windows: &[Window]) {
        let pixels = &known.frame.pixels;
        let valid = measured_pixels(pixels, &known.frame.valid_rows);
        let pixel = known.pixel_sizes_pm;
        let labels = label_frame(pixels, &valid, pixel, None, &LabelSettings::default());
        let cells: Vec<ClassicalCell> = labels.map_or_else(
            |_| Vec::new(),
            |labels| labels.cells.iter().map(|labelled| labelled.cell).collect(),
        );
        let truths = known.truth.cells.iter().enumerate().filter(|(_, cell)| !cell.disturbed);
        let at = |row: f64, col: f64| [col * pixel[1], row * pixel[0]];
        let found: Vec<[f64; 2]> = cells.iter().map(|cell| at(cell.row, cell.col)).collect();
        let tree = Neighbours::new(&found);
        let mut windows_of: BTreeMap<usize, Vec<&Window>> = BTreeMap::new();
        for window in windows {
            windows_of.entry(window.cell).or_default().push(window);
        }
        let [mut network, mut classical] = [Vec::new(), Vec::new()];
        for (index, truth) in truths {
            self.cells += 1;
            let bound = SAME_CELL * truth.cell_area.abs().sqrt();
            let nearest = tree.nearest(at(truth.row, truth.col), bound);
            let Some(cell) = nearest.and_then(|(index, _)| cells.get(index)) else { continue };
            self.measured += 1;
            let ClassicalCell { p_x, p_y, .. } = *cell;
            classical.extend([p_x - truth.p_x - truth.mistilt_x, p_y - truth.p_y - truth.mistilt_y]);
            let windows = windows_of.get(&index).into_iter().flatten();
            network.extend(windows.flat_map(|window| [window.error(0), window.error(1)]));
        }
        if !network.is_empty() && !classical.is_empty() {
            self.compared.push([network, classical]);
        }
    }
}

/// Fraction of the components of P that lie within their predicted sigma; 0.683 when it is right.
fn within_sigma(windows: &[Window]) -> f64 {
    mean(windows.iter().flat_map(|window| {
        [0, 1].map(|quantity| f64::from(u8::from(window.error(quantity).abs() <= window.sigma)))
    }))
}

/// Standard error of the mean of a component of P, of windows frame by frame: those of one are not independent, frames are.
fn standard_error(windows: &[Window]) -> f64 {
    let frames = || windows.chunk_by(|window, next| window.frame == next.frame);
    let variance = |quantity: usize| {
        let means: Vec<f64> =
            frames().map(|frame| mean(frame.iter().map(|window| window.error(quantity)))).collect();
        let centre = mean(means.iter().copied());
        let spread: f64 = means.iter().map(|mean| (mean - centre).powi(2)).sum();
        spread / (means.len() as f64 - 1.0) / means.len() as f64
    };
    (0.5 * (variance(0) + variance(1))).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(frame: usize, error: [f64; 2], sigma: f64) -> Window {
        let truth = [10.0, -5.0, 400.0, 400.0, FRAC_PI_2, 160_000.0];
        let mut predicted = truth;
        predicted[0] += error[0];
        predicted[1] += error[1];
        Window { frame, cell: 0, row: 0.0, col: 0.0, off_centre: 0.1, truth, predicted, sigma }
    }

    #[test]
    fn hand_worked_statistics() {
        assert_eq!(super::super::windows::QUANTITIES[5].0, "cell_area");
        let windows = [window(0, [3.0, -4.0], 3.5), window(1, [1.0, 0.0], 0.5)];
        // 3, -4, 1, 0 against 3.5, 3.5, 0.5, 0.5: the first and the last lie within.
        assert!((within_sigma(&windows) - 0.5).abs() < 1e-12);
        assert!((rms([3.0, -4.0].into_iter()) - 12.5f64.sqrt()).abs() < 1e-12);
        // Means of the frames: x 3 and 1, variance of their mean 1; y -4 and 0, variance 4.
        assert!((standard_error(&windows) - 2.5f64.sqrt()).abs() < 1e-12);
        assert!(mean(std::iter::empty()).is_nan());
    }
}
