//! Noise and window size (Nelson et al., figures 7 and S1): for the centred and the sliding stack, networks of several windows, trained
//! without noise and with it, on the held-back part of their image under Gaussian noise.
//!
//! Noise is that of scikit-image's `random_noise`: of a variance given as a fraction of the squared range of an image's pixels. The
//! papers draw the noise of training anew for each sub-image; here it is drawn for each crop, whose windows share it. The papers'
//! windows of 10 and 20 px are too small for convolutions without padding, which begin at 28 px.

mod figures;

use super::EvaluateError;
use super::stacks::{Centring, KnownImage, StackSettings, Trainer, rms, true_spread};
use super::table::{Entry, Table};
use crate::config::InvalidSetting;
use crate::networks::DeviceChoice;
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is trained, and judged under which noise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NoiseStudySettings {
    /// Of the simulated image.
    pub sm_fraction: f64,
    /// Sides of the windows, px.
    pub windows_px: Vec<usize>,
    /// Variances of the noise that networks are judged under, beside none.
    pub variances: Vec<f64>,
    /// Ranges of the variance that networks are trained with, beside none.
    pub trained_variances: Vec<[f64; 2]>,
    pub stacks: StackSettings,
}

impl Default for NoiseStudySettings {
    /// The papers' noise, and their windows as far as they are possible.
    fn default() -> Self {
        Self {
            sm_fraction: 0.0,
            windows_px: vec![28, 40, 80, 160],
            variances: vec![0.001, 0.01, 0.02, 0.05, 0.2],
            trained_variances: vec![
                [0.0001, 0.001],
                [0.001, 0.002],
                [0.003, 0.005],
                [0.01, 0.03],
                [0.015, 0.035],
            ],
            stacks: StackSettings::default(),
        }
    }
}

impl NoiseStudySettings {
    /// Two small windows, a few steps.
    pub fn quick(self) -> Self {
        Self {
            windows_px: vec![28, 40],
            variances: vec![0.001, 0.2],
            trained_variances: vec![[0.01, 0.03]],
            stacks: self.stacks.quick(),
            ..self
        }
    }

    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        if !(0.0..=1.0).contains(&self.sm_fraction) {
            return Err(InvalidSetting::new(key("sm_fraction"), self.sm_fraction, "0 to 1"));
        }
        if self.windows_px.is_empty() {
            return Err(InvalidSetting::new(key("windows_px"), "[]", "at least one window"));
        }
        if let Some(variance) = self.variances.iter().find(|variance| !(0.0..=10.0).contains(*variance)) {
            return Err(InvalidSetting::new(key("variances"), variance, "0 to 10"));
        }
        self.stacks.validate(&key("stacks."))?;
        let under =
            |error: InvalidSetting| InvalidSetting { key: key(&format!("stacks.{}", error.key)), ..error };
        for &window_px in &self.windows_px {
            for &range in [[0.0; 2]].iter().chain(&self.trained_variances) {
                self.stacks.network(Centring::Centred, window_px, range).map_err(under)?;
            }
        }
        Ok(())
    }

    /// The noise of training, beginning with none.
    fn trained(&self) -> impl Iterator<Item = Option<[f64; 2]>> + '_ {
        std::iter::once(None).chain(self.trained_variances.iter().copied().map(Some))
    }

    /// The noise to judge under, beginning with none.
    fn judged(&self) -> impl Iterator<Item = f64> + '_ {
        std::iter::once(0.0).chain(self.variances.iter().copied())
    }
}

/// One network and its errors.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    centring: Centring,
    window_px: usize,
    trained_with: Option<[f64; 2]>,
    /// RMS error of a component of P, pm, for each noise that it is judged under.
    rms_pm: Vec<f64>,
}

/// The errors of all networks.
#[derive(Debug)]
pub struct Study {
    settings: NoiseStudySettings,
    rows: Vec<Row>,
    /// Of a component of P in what is judged, pm.
    true_spread_pm: f64,
    /// Pixels of the part that is judged on, and a cell in it, `[row, col]`, around which examples are shown.
    pixels: Array2<f32>,
    example: [f64; 2],
}

/// Trains the networks into `folder` and judges them: on `image`, or on a simulated one without.
///
/// # Errors
/// When the image is too small for a window, or training fails.
pub fn study(
    settings: &NoiseStudySettings,
    image: Option<KnownImage>,
    device: DeviceChoice,
    folder: &Path,
) -> Result<Study, EvaluateError> {
    let stacks = &settings.stacks;
    let largest = settings.windows_px.iter().copied().max().unwrap_or(0);
    let whole = image.map_or_else(|| stacks.simulated(settings.sm_fraction, 0), Ok)?;
    let image = whole.in_parts(stacks, largest)?;
    let trainer = Trainer { settings: stacks, device, folder: folder.to_owned() };
    let mut rows = Vec::new();
    let mut true_spread_pm = f64::NAN;
    for centring in Centring::ALL {
        for &window_px in &settings.windows_px {
            for (number, trained_with) in settings.trained().enumerate() {
                let network = stacks.network(centring, window_px, trained_with.unwrap_or_default())?;
                let suffix = if number == 0 { String::new() } else { format!("-noise-{number}") };
                let trained = trainer.train(&image, network, &suffix)?;
                let mut rms_pm = Vec::new();
                for variance in settings.judged() {
                    let spots = trained.judge(image.frames(), variance)?;
                    rms_pm.push(rms(&spots));
                    if rows.is_empty() {
                        true_spread_pm = true_spread(&spots);
                    }
                }
                rows.push(Row { centring, window_px, trained_with, rms_pm });
            }
        }
    }
    let part = image.frames().judged().first();
    let pixels = part.map(|sample| sample.pixels.clone()).unwrap_or_default();
    let middle = [pixels.nrows(), pixels.ncols()].map(|side| 0.5 * side as f64);
    let away = |at: &[f64; 2]| (at[0] - middle[0]).hypot(at[1] - middle[1]);
    let cells = part.into_iter().flat_map(|sample| &sample.cells);
    let example =
        cells.map(|known| [known.cell.row, known.cell.col]).min_by(|a, b| away(a).total_cmp(&away(b)));
    Ok(Study { settings: settings.clone(), rows, true_spread_pm, pixels, example: example.unwrap_or(middle) })
}

/// A variance in the papers' unit, 10⁻⁴.
fn in_papers_unit(variance: f64) -> String {
    let value = (variance * 1e6).round() / 100.0;
    if value == 0.0 { "none".to_owned() } else { value.to_string() }
}

fn range_in_papers_unit(range: Option<[f64; 2]>) -> String {
    range.map_or_else(
        || "none".to_owned(),
        |range| range.map(in_papers_unit).join(" to ").replace("none", "0"),
    )
}

impl Study {
    /// RMS errors of a component of P, one row a network, one column a noise that it is judged under.
    pub fn table(&self) -> Table {
        let title = format!(
            "RMS error of a component of P (pm) under Gaussian noise, variance in 10⁻⁴ of the squared range of the pixels, after {} steps; \
             P itself spreads by {:.1} pm.",
            self.settings.stacks.training.schedule.steps, self.true_spread_pm
        );
        let names: Vec<String> = self
            .settings
            .judged()
            .map(|variance| format!("noise {} (pm)", in_papers_unit(variance)))
            .collect();
        let mut headings: Vec<(&str, usize)> =
            vec![("stack", 0), ("window (px)", 0), ("trained with noise", 0)];
        headings.extend(names.iter().map(|name| (name.as_str(), 2)));
        let mut table = Table::new(title, &headings);
        for row in &self.rows {
            let mut entries: Vec<Entry> = vec![
                row.centring.name().into(),
                row.window_px.into(),
                range_in_papers_unit(row.trained_with).into(),
            ];
            entries.extend(row.rms_pm.iter().map(|&rms| Entry::from(rms)));
            table.push(entries);
        }
        table
    }

    /// Rows of the networks of a stack trained without noise, one a window: figure 7.
    fn under_noise(&self, centring: Centring) -> Vec<Vec<f64>> {
        let of = |row: &&Row| row.centring == centring && row.trained_with.is_none();
        self.rows.iter().filter(of).map(|row| row.rms_pm.clone()).collect()
    }

    /// Errors without noise of the networks of a stack, one row a window, one column a noise of training: figure S1.
    fn with_noise_in_training(&self, centring: Centring) -> Vec<Vec<f64>> {
        let of_window = |window_px: usize| {
            let rows =
                self.rows.iter().filter(move |row| row.centring == centring && row.window_px == window_px);
            rows.filter_map(|row| row.rms_pm.first().copied()).collect()
        };
        self.settings.windows_px.iter().map(|&window_px| of_window(window_px)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors that say where they belong: stack, window, training, judging.
    pub(super) fn invented() -> Study {
        let settings = NoiseStudySettings::default().quick();
        let mut rows = Vec::new();
        for (c, centring) in Centring::ALL.into_iter().enumerate() {
            for (w, &window_px) in settings.windows_px.iter().enumerate() {
                for (t, trained_with) in settings.trained().enumerate() {
                    let rms_pm = (0..3).map(|j| (1000 * (c + 1) + 100 * w + 10 * t + j) as f64).collect();
                    rows.push(Row { centring, window_px, trained_with, rms_pm });
                }
            }
        }
        let pixels = Array2::from_shape_fn((90, 100), |(row, col)| ((row * 7 + col * 3) % 11) as f32);
        Study { settings, rows, true_spread_pm: 20.0, pixels, example: [45.0, 50.0] }
    }

    #[test]
    fn matrices_hold_each_network_in_its_place() {
        let study = invented();
        let noisy = study.under_noise(Centring::Centred);
        assert_eq!(noisy, [[2000.0, 2001.0, 2002.0], [2100.0, 2101.0, 2102.0]]);
        let trained = study.with_noise_in_training(Centring::NotCentred);
        assert_eq!(trained, [[1000.0, 1010.0], [1100.0, 1110.0]]);
    }

    #[test]
    fn every_network_is_judged_under_every_noise() {
        let folder = tempfile::tempdir().unwrap();
        let settings = NoiseStudySettings {
            windows_px: vec![28],
            variances: vec![0.2],
            trained_variances: vec![[0.01, 0.03]],
            stacks: super::super::stacks::tests::smallest(),
            ..NoiseStudySettings::default()
        };
        settings.validate("").unwrap();
        let study = study(&settings, None, DeviceChoice::Cpu, folder.path()).unwrap();
        assert_eq!(study.rows.len(), 4);
        assert!(study.rows.iter().flat_map(|row| &row.rms_pm).all(|rms| rms.is_finite() && *rms > 0.0));
        assert!(study.rows.iter().all(|row| row.rms_pm[0] != row.rms_pm[1]));
        // Trained with noise is another network.
        assert_ne!(study.rows[0].rms_pm, study.rows[1].rms_pm);
        assert!(folder.path().join("0-sm-c-28px-noise-1").join("model.toml").exists());
        assert!(study.true_spread_pm > 0.0);
    }

    #[test]
    fn the_table_names_noise_as_the_papers_do() {
        let study = invented();
        let table = study.table();
        assert_eq!(table.rows().len(), 8);
        assert_eq!(table.numbers("noise none (pm)")[0], 1000.0);
        assert_eq!(table.numbers("noise 10 (pm)")[1], 1011.0);
        assert_eq!(table.numbers("noise 2000 (pm)")[7], 2112.0);
        assert_eq!(table.rows()[1][2], Entry::from("100 to 300"));
        assert_eq!(range_in_papers_unit(Some([0.0, 0.001])), "0 to 10");
    }

    #[test]
    fn settings_are_checked_before_anything_is_trained() {
        NoiseStudySettings::default().validate("").unwrap();
        NoiseStudySettings::default().quick().validate("").unwrap();
        let refused = |change: fn(&mut NoiseStudySettings)| {
            let mut settings = NoiseStudySettings::default();
            change(&mut settings);
            settings.validate("").unwrap_err().key
        };
        assert_eq!(refused(|settings| settings.windows_px.push(20)), "stacks.training.window_px");
        assert_eq!(refused(|settings| settings.variances.push(-1.0)), "variances");
        let reversed = |settings: &mut NoiseStudySettings| settings.trained_variances.push([0.2, 0.1]);
        assert_eq!(refused(reversed), "stacks.training.gaussian_noise");
        assert_eq!(refused(|settings| settings.stacks.learned_share = 1.0), "stacks.learned_share");
    }
}
