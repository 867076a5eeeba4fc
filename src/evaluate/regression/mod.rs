//! What was predicted against what was true (Nelson et al., figures 2 to 4): densities with the outliers on the map, joint
//! distributions, and maps of truth, prediction and their difference.
//!
//! On simulated frames, or on a user's own images, at the network's pixel size, whose truth is what is known of them: the classical
//! measurement, a label file, or an Sm-BFO parameterization. The errors of that are in the differences too.
//!
//! A series of compositions is a list of images, one of each, which are looked at together; the first is the one that is mapped. Of a
//! single composition the study says how the network does when only its image is given. Simulated ones are written by
//! `ferrostem simulate` from a scene file that is a copy of `configs/scenes/sm-bifeo3.toml` with
//! `specimen.alloy.fraction = { kind = "uniform", value = 0.07 }`, or another value, one file each.

mod figures;

use super::EvaluateError;
use super::stacks::KnownImage;
use super::table::Table;
use super::windows::{QUANTITIES, Window, check_known, frame_of, known_frame, known_windows};
use crate::config::InvalidSetting;
use crate::frame::Frame;
use crate::pipeline::Analyzer;
use crate::simulate::TrainingRanges;
use crate::train::KnownCell;
use ferrostem_proto::GridSpec;
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is looked at, and on how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegressionSettings {
    /// Of simulated frames.
    pub seed: u64,
    pub scenes: TrainingRanges,
    /// Side of a simulated frame, px. The first frame is the one that is mapped.
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
    within_cells: f64,
    outlier_sigmas: f64,
    /// Pixels of the first frame, its windows' grid, and which of `windows` are its own.
    image: Array2<f32>,
    grid: GridSpec,
    /// So far.
    frames: usize,
    mapped: usize,
}

/// Runs the frames that `images` have to judge on, or simulated ones without images, through all stages; `each` is called after every one.
///
/// # Errors
/// When a frame cannot be simulated or processed, an image has no window near a cell that is known, or no DCNN is loaded.
pub fn study(
    analyzer: &mut Analyzer,
    settings: &RegressionSettings,
    images: &[KnownImage],
    mut each: impl FnMut(),
) -> Result<Study, EvaluateError> {
    let manifest = analyzer.engine().dcnn_manifest().ok_or(EvaluateError::NoDcnn)?;
    let pixel_size_pm = manifest.input.pixel_size_pm;
    let mut study = Study {
        windows: Vec::new(),
        within_cells: settings.within_cells,
        outlier_sigmas: settings.outlier_sigmas,
        image: Array2::default((0, 0)),
        grid: GridSpec::default(),
        frames: 0,
        mapped: 0,
    };
    for image in images {
        let in_image = |error| EvaluateError::Image { image: image.name.clone(), reason: Box::new(error) };
        let before = study.windows.len();
        for sample in image.frames().judged() {
            let frame = frame_of(&sample.pixels, [pixel_size_pm; 2], study.frames);
            frame.and_then(|frame| study.add(analyzer, frame, &sample.cells)).map_err(in_image)?;
            each();
        }
        if study.windows.len() == before {
            let cells = image.frames().judged().iter().map(|sample| sample.cells.len()).sum();
            return Err(in_image(EvaluateError::NothingCompared { cells }));
        }
    }
    let simulated = if images.is_empty() { settings.frames } else { 0 };
    for index in 0..simulated {
        let known = known_frame(&settings.scenes, [settings.side_px; 2], settings.seed, index)?;
        study.add(analyzer, Arc::clone(&known.frame), &known.cells())?;
        each();
    }
    Ok(study)
}

impl Study {
    /// The windows of one more frame.
    fn add(
        &mut self,
        analyzer: &mut Analyzer,
        frame: Arc<Frame>,
        cells: &[KnownCell],
    ) -> Result<(), EvaluateError> {
        let result = analyzer.analyze(Arc::clone(&frame))?;
        self.windows.extend(known_windows(&result, cells, self.within_cells, self.frames));
        if self.frames == 0 {
            self.image.clone_from(&frame.pixels);
            self.grid = result.grid;
            self.mapped = self.windows.len();
        }
        self.frames += 1;
        Ok(())
    }

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
    use crate::config::Config;
    use crate::evaluate::stacks::StackSettings;

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
        Study { windows, within_cells: 0.5, outlier_sigmas: 3.0, image, grid, frames: 1, mapped }
    }

    #[test]
    fn an_image_is_looked_at_in_place_of_simulated_frames() {
        let mut config = Config { device: "cpu".to_owned(), ..Config::default() };
        config.models.fcnn = "none".to_owned();
        let mut analyzer = Analyzer::new(&config).unwrap();
        let stacks = StackSettings { side_px: 144, ..StackSettings::default() };
        let image = stacks.simulated(0.0, 0).unwrap();
        let settings = RegressionSettings::default();
        let mut frames = 0;
        let judged = [image.clone().to_judge()];
        let study = super::study(&mut analyzer, &settings, &judged, || frames += 1).unwrap();
        assert_eq!((frames, study.image.dim()), (1, (144, 144)));
        assert_eq!(study.mapped, study.windows.len());
        // Windows of 80 px every 8 px lie in 81 places; most have a whole cell within half an edge.
        assert!((40..=90).contains(&study.mapped), "{}", study.mapped);
        assert!(study.table().numbers("RMS")[..2].iter().all(|rms| *rms < 13.0), "{:?}", study.table());
        // One of which nothing is known to judge on.
        let refused = super::study(&mut analyzer, &settings, &[image], || ()).unwrap_err().to_string();
        assert!(refused.starts_with("0 % Sm: ") && refused.contains(" 0 unit cells"), "{refused}");
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
