//! What a row of a table is made of.

use super::super::EvaluateError;
use super::super::windows::{KnownFrame, Window, known_frame, known_windows};
use super::AccuracySettings;
use crate::columns::Neighbours;
use crate::frame::ClassicalCell;
use crate::label::{LabelSettings, label_frame};
use crate::pipeline::Analyzer;
use crate::preprocess::{mean, measured_pixels, median, rms};
use crate::simulate::TrainingRanges;
use std::collections::BTreeMap;

/// Pixel size at which `side_px` is meant.
pub(super) const REFERENCE_PM: f64 = 15.0;
/// A found cell is compared with a true one no farther than this, in edges of the cell.
const SAME_CELL: f64 = 0.25;

/// One row of a table before it is written.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub windows: Vec<Window>,
    /// Errors of P, pm, both components, of each frame in which the classical measurement found cells: the network's, in windows of
    /// those cells, and the classical ones.
    pub compared: Vec<[Vec<f64>; 2]>,
    /// The Cramér–Rao bound of a component of P, pm, of each frame.
    pub bounds: Vec<f64>,
    /// Cells of the truth, undisturbed, and those of them that the classical measurement found.
    pub cells: usize,
    pub measured: usize,
}

/// The windows of a row's frames, and the classical measurement beside them.
///
/// # Errors
/// When a frame cannot be simulated or processed, or no DCNN is loaded.
pub(super) fn judge(
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
    /// What stands under [`COMPARED`](super::COMPARED): RMS errors of P of the network and of the classical measurement, over all frames and then of
    /// the frame in the middle.
    pub fn compared(&self) -> [f64; 4] {
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
pub(super) fn within_sigma(windows: &[Window]) -> f64 {
    mean(windows.iter().flat_map(|window| {
        [0, 1].map(|quantity| f64::from(u8::from(window.error(quantity).abs() <= window.sigma)))
    }))
}

/// Standard error of the mean of a component of P, of windows frame by frame: those of one are not independent, frames are.
pub(super) fn standard_error(windows: &[Window]) -> f64 {
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
    use std::f64::consts::FRAC_PI_2;

    fn window(frame: usize, error: [f64; 2], sigma: f64) -> Window {
        let truth = [10.0, -5.0, 400.0, 400.0, FRAC_PI_2, 160_000.0];
        let mut predicted = truth;
        predicted[0] += error[0];
        predicted[1] += error[1];
        Window { frame, cell: 0, row: 0.0, col: 0.0, off_centre: 0.1, truth, predicted, sigma }
    }

    #[test]
    fn hand_worked_statistics() {
        assert_eq!(super::super::super::windows::QUANTITIES[5].0, "cell_area");
        let windows = [window(0, [3.0, -4.0], 3.5), window(1, [1.0, 0.0], 0.5)];
        // 3, -4, 1, 0 against 3.5, 3.5, 0.5, 0.5: the first and the last lie within.
        assert!((within_sigma(&windows) - 0.5).abs() < 1e-12);
        assert!((rms([3.0, -4.0].into_iter()) - 12.5f64.sqrt()).abs() < 1e-12);
        // Means of the frames: x 3 and 1, variance of their mean 1; y -4 and 0, variance 4.
        assert!((standard_error(&windows) - 2.5f64.sqrt()).abs() < 1e-12);
        assert!(mean(std::iter::empty()).is_nan());
    }
}
