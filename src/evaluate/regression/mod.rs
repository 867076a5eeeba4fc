//! What was predicted against what was true (Nelson et al., figures 2 to 4): densities with the outliers on the map, joint
//! distributions, and maps of truth, prediction and their difference.

mod figures;

use super::EvaluateError;
use super::table::Table;
use super::windows::{QUANTITIES, Window, check_known, known_frame, known_windows};
use crate::config::InvalidSetting;
use crate::pipeline::Analyzer;
use crate::simulate::TrainingRanges;
use ferrostem_proto::GridSpec;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// What is looked at, and on how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegressionSettings {
    pub seed: u64,
    pub scenes: TrainingRanges,
    /// Side of a frame, px. The first frame is the one that is mapped.
    pub side_px: usize,
    pub frames: usize,
    /// Windows nearer to a cell's centre than this fraction of its edge count.
    pub within_cells: f64,
    /// An outlier is off by more than this many predicted sigmas, in either component of P.
    pub outlier_sigmas: f64,
}

impl Default for RegressionSettings {
    fn default() -> Self {
        Self {
            seed: 20_261_126,
            scenes: TrainingRanges {
                peak_counts: [30.0, 1000.0],
                domains: [2, 4],
                ..TrainingRanges::default()
            },
            side_px: 512,
            frames: 24,
            within_cells: 0.5,
            outlier_sigmas: 3.0,
        }
    }
}

impl RegressionSettings {
    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        check_known(key_prefix, self.side_px, self.frames, self.within_cells)?;
        if !(self.outlier_sigmas > 0.0 && self.outlier_sigmas.is_finite()) {
            return Err(InvalidSetting::new(key("outlier_sigmas"), self.outlier_sigmas, "a number above 0"));
        }
        self.scenes.validate(&key("scenes"))
    }
}

/// The windows of all frames, and the frame that is mapped.
#[derive(Debug)]
pub struct Study {
    windows: Vec<Window>,
    outlier_sigmas: f64,
    /// Pixels of the first frame, its windows' grid, and which of `windows` are its own.
    image: Array2<f32>,
    grid: GridSpec,
    mapped: usize,
}

/// Runs the frames through all stages; `each` is called after every one.
///
/// # Errors
/// When a frame cannot be simulated or processed, or no DCNN is loaded.
pub fn study(
    analyzer: &mut Analyzer,
    settings: &RegressionSettings,
    mut each: impl FnMut(),
) -> Result<Study, EvaluateError> {
    if analyzer.engine().dcnn_manifest().is_none() {
        return Err(EvaluateError::NoDcnn);
    }
    let mut study = Study {
        windows: Vec::new(),
        outlier_sigmas: settings.outlier_sigmas,
        image: Array2::default((0, 0)),
        grid: GridSpec::default(),
        mapped: 0,
    };
    for index in 0..settings.frames {
        let known = known_frame(&settings.scenes, [settings.side_px; 2], settings.seed, index)?;
        let result = analyzer.analyze(known.frame.clone())?;
        study.windows.extend(known_windows(&result, &known.truth, settings.within_cells, index));
        if index == 0 {
            study.image.clone_from(&known.frame.pixels);
            study.grid = result.grid;
            study.mapped = study.windows.len();
        }
        each();
    }
    Ok(study)
}

impl Study {
    /// How well each quantity was predicted.
    pub fn table(&self) -> Table {
        let mut table = Table::new(
            "Predicted against true, all windows.",
            &[
                ("quantity", 0),
                ("unit", 0),
                ("windows", 0),
                ("R²", 4),
                ("slope", 4),
                ("bias", 4),
                ("RMS", 4),
                ("true spread", 4),
                ("predicted spread", 4),
                ("outliers (%)", 2),
            ],
        );
        let outliers = self.windows.iter().filter(|window| self.is_outlier(window)).count();
        for (quantity, (name, unit)) in QUANTITIES.into_iter().enumerate() {
            let fit = Fit::of(&self.windows, quantity);
            let outliers =
                if quantity < 2 { 100.0 * outliers as f64 / self.windows.len() as f64 } else { f64::NAN };
            table.push(vec![
                name.into(),
                unit.into(),
                self.windows.len().into(),
                fit.r_squared.into(),
                fit.slope.into(),
                fit.bias.into(),
                fit.rms.into(),
                fit.true_spread.into(),
                fit.predicted_spread.into(),
                outliers.into(),
            ]);
        }
        table
    }

    fn is_outlier(&self, window: &Window) -> bool {
        window.error(0).abs().max(window.error(1).abs()) > self.outlier_sigmas * window.sigma
    }

    /// The windows of the mapped frame.
    fn of_map(&self) -> &[Window] {
        self.windows.get(..self.mapped).unwrap_or_default()
    }
}

/// Agreement of one quantity.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fit {
    /// 1 − (squared errors) / (squared deviations of the truth from its mean).
    r_squared: f64,
    /// Of the least-squares line of the prediction over the truth: below 1 where extremes are pulled in.
    slope: f64,
    bias: f64,
    rms: f64,
    true_spread: f64,
    predicted_spread: f64,
}

impl Fit {
    fn of(windows: &[Window], quantity: usize) -> Self {
        let pairs: Vec<[f64; 2]> = windows
            .iter()
            .filter_map(|window| Some([*window.truth.get(quantity)?, *window.predicted.get(quantity)?]))
            .collect();
        let count = pairs.len() as f64;
        let mean = |pick: fn(&[f64; 2]) -> f64| pairs.iter().map(pick).sum::<f64>() / count;
        let (truth, predicted) = (mean(|pair| pair[0]), mean(|pair| pair[1]));
        let moment = |of: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(of).sum::<f64>() / count;
        let true_variance = moment(&|pair| (pair[0] - truth).powi(2));
        let squares = moment(&|pair| (pair[1] - pair[0]).powi(2));
        Self {
            r_squared: 1.0 - squares / true_variance,
            slope: moment(&|pair| (pair[0] - truth) * (pair[1] - predicted)) / true_variance,
            bias: predicted - truth,
            rms: squares.sqrt(),
            true_spread: true_variance.sqrt(),
            predicted_spread: moment(&|pair| (pair[1] - predicted).powi(2)).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(truth: f64, predicted: f64) -> Window {
        let rest = [0.0, 400.0, 400.0, 1.57, 160_000.0];
        let with = |first: f64| {
            let mut all = [first; 6];
            all[1..].copy_from_slice(&rest);
            all
        };
        Window {
            frame: 0,
            cell: 0,
            row: 8.0,
            col: 8.0,
            off_centre: 0.0,
            truth: with(truth),
            predicted: with(predicted),
            sigma: 2.0,
        }
    }

    #[test]
    fn hand_worked_agreement() {
        // Truth -2, 0, 2; predicted -1, 1, 3 - half of it at the ends: -1 + 1·... a line of slope 1 and bias 1.
        let shifted = [window(-2.0, -1.0), window(0.0, 1.0), window(2.0, 3.0)];
        let fit = Fit::of(&shifted, 0);
        assert!(
            (fit.slope - 1.0).abs() < 1e-12
                && (fit.bias - 1.0).abs() < 1e-12
                && (fit.rms - 1.0).abs() < 1e-12
        );
        // Squared deviations of the truth: 8/3; squared errors: 1.
        assert!((fit.r_squared - (1.0 - 3.0 / 8.0)).abs() < 1e-12);
        let pulled = [window(-2.0, -1.0), window(0.0, 0.0), window(2.0, 1.0)];
        assert!((Fit::of(&pulled, 0).slope - 0.5).abs() < 1e-12);
    }

    fn study(windows: Vec<Window>) -> Study {
        let mapped = windows.len();
        let grid = GridSpec { row0: 8.0, col0: 8.0, step_row: 8.0, step_col: 8.0, rows: 2, cols: 2 };
        let image = Array2::from_shape_fn((24, 24), |(row, col)| ((row * 7 + col * 3) % 11) as f32);
        Study { windows, outlier_sigmas: 3.0, image, grid, mapped }
    }

    #[test]
    fn outliers_are_counted_against_their_own_sigma() {
        let study = study(vec![window(0.0, 5.9), window(0.0, -6.1), window(0.0, 0.0), window(1.0, 1.0)]);
        assert_eq!(study.table().numbers("outliers (%)")[0], 25.0);
    }

    #[test]
    fn the_figures_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let study =
            study((0..40).map(|i| window(f64::from(i), f64::from(i) * 0.9 + f64::from(i % 3))).collect());
        for write in [
            Study::predicted_against_measured as fn(&Study, &std::path::Path) -> _,
            Study::joint_distributions,
            Study::maps,
        ] {
            let path: std::path::PathBuf = write(&study, folder.path()).unwrap();
            let pixels = tiny_skia::Pixmap::load_png(&path).unwrap();
            let first = pixels.pixels()[0];
            assert!(pixels.pixels().iter().any(|pixel| *pixel != first), "{} is empty", path.display());
        }
    }
}
