//! Networks trained on one composition and judged on every other (Nelson et al., figure 8), for the centred and the sliding stack.
//!
//! A composition is an image: a simulated specimen of its own in which a fraction of the A atoms are Sm, or a user's file. Of each, one
//! part is learned from, and all networks are judged on the other parts; on the matrix's diagonal stands what a network makes of its own
//! image. What Sm does (A columns dimmer, cell smaller, P less) says the scene's alloy, see `configs/scenes/sm-bifeo3.toml`.

mod figures;

use super::EvaluateError;
use super::stacks::{
    Centring, KnownImage, Spot, StackSettings, Trainer, rms, true_spread, with_names_of_their_own,
};
use super::table::{Entry, Table};
use crate::config::InvalidSetting;
use crate::networks::DeviceChoice;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Most compositions: the number of networks is twice, that of errors twice the square.
const MOST: usize = 64;

/// What is trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompositionStudySettings {
    /// Sm fraction of each simulated image.
    pub sm_fractions: Vec<f64>,
    /// Side of the windows, px.
    pub window_px: usize,
    pub stacks: StackSettings,
}

impl Default for CompositionStudySettings {
    /// Thirteen images of the papers' five compositions.
    fn default() -> Self {
        let images = [(0.0, 3), (0.07, 4), (0.10, 2), (0.13, 2), (0.20, 2)];
        Self {
            sm_fractions: images.iter().flat_map(|&(fraction, n)| std::iter::repeat_n(fraction, n)).collect(),
            window_px: 80,
            stacks: StackSettings::default(),
        }
    }
}

impl CompositionStudySettings {
    /// Three compositions, small windows, a few steps.
    pub fn quick(self) -> Self {
        Self { sm_fractions: vec![0.0, 0.1, 0.2], window_px: 28, stacks: self.stacks.quick() }
    }

    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        if !(1..=MOST).contains(&self.sm_fractions.len()) {
            let expected = format!("1 to {MOST} fractions");
            return Err(InvalidSetting::new(key("sm_fractions"), self.sm_fractions.len(), expected));
        }
        if let Some(fraction) = self.sm_fractions.iter().find(|fraction| !(0.0..=1.0).contains(*fraction)) {
            return Err(InvalidSetting::new(key("sm_fractions"), fraction, "0 to 1"));
        }
        self.stacks.validate(&key("stacks."))?;
        let under =
            |error: InvalidSetting| InvalidSetting { key: key(&format!("stacks.{}", error.key)), ..error };
        self.stacks.network(Centring::Centred, self.window_px, [0.0; 2]).map_err(under).map(|_| ())
    }

    /// One image for each of the fractions, in their order.
    ///
    /// # Errors
    /// When the scene cannot be rendered.
    pub fn simulated(&self) -> Result<Vec<KnownImage>, EvaluateError> {
        let images = self.sm_fractions.iter().enumerate();
        images.map(|(index, &fraction)| self.stacks.simulated(fraction, index)).collect()
    }
}

/// The errors of one stack's networks.
#[derive(Debug)]
struct Matrix {
    centring: Centring,
    /// RMS error of a component of P, pm: a row for each image that was trained on, a column for each that was judged on.
    rms_pm: Vec<Vec<f64>>,
    /// What was predicted for each of [`pairs`].
    maps: Vec<Vec<Spot>>,
}

/// The errors of all networks on all images.
#[derive(Debug)]
pub struct Study {
    steps: u64,
    /// Names of the images.
    names: Vec<String>,
    /// Standard deviation of a component of the true P of each image, pm.
    true_spread_pm: Vec<f64>,
    matrices: Vec<Matrix>,
    /// `[rows, cols]` of the judged part of each image, px.
    shapes: Vec<[usize; 2]>,
}

/// The images, trained on and judged on, whose maps are shown (figure 8, I to IV): the first network on its own image and on the next
/// composition, the last one on its own and on the first.
fn pairs(names: &[String]) -> Vec<[usize; 2]> {
    let last = names.len().saturating_sub(1);
    // The second image of a composition is named `7 % Sm (2)`.
    let composition = |index: usize| names.get(index).map(|name| name.split(" (").next().unwrap_or_default());
    let next = (1..last).find(|&index| composition(index) != composition(0)).unwrap_or(last);
    let mut pairs = vec![[0, 0], [0, next], [last, last], [last, 0]];
    pairs.dedup();
    pairs
}

/// Trains a network of each stack on each image into `folder`, and judges all of them on all images.
///
/// # Errors
/// When an image is too small for the window, or training fails.
pub fn study(
    settings: &CompositionStudySettings,
    images: Vec<KnownImage>,
    device: DeviceChoice,
    folder: &Path,
) -> Result<Study, EvaluateError> {
    let stacks = &settings.stacks;
    let cut = |image: KnownImage| image.in_parts(stacks, settings.window_px);
    let mut images = images.into_iter().map(cut).collect::<Result<Vec<_>, _>>()?;
    with_names_of_their_own(&mut images);
    let names: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
    let pairs = pairs(&names);
    let trainer = Trainer { settings: stacks, device, folder: folder.to_owned() };
    let mut matrices = Vec::new();
    let mut true_spread_pm = vec![f64::NAN; images.len()];
    for centring in Centring::ALL {
        let network = stacks.network(centring, settings.window_px, [0.0; 2])?;
        let mut rms_pm = Vec::new();
        let mut maps = vec![Vec::new(); pairs.len()];
        for (row, image) in images.iter().enumerate() {
            let trained = trainer.train(image, network.clone(), "")?;
            let mut errors = Vec::new();
            for (column, (judged, spread)) in images.iter().zip(&mut true_spread_pm).enumerate() {
                let spots = trained.judge(judged.frames(), 0.0)?;
                errors.push(rms(&spots));
                *spread = true_spread(&spots);
                if let Some(map) = pairs.iter().position(|pair| *pair == [row, column])
                    && let Some(map) = maps.get_mut(map)
                {
                    *map = spots;
                }
            }
            rms_pm.push(errors);
        }
        matrices.push(Matrix { centring, rms_pm, maps });
    }
    let shape = |image: &KnownImage| {
        image.frames().judged().first().map_or([1, 1], |sample| <[usize; 2]>::from(sample.pixels.dim()))
    };
    let shapes = images.iter().map(shape).collect();
    let steps = stacks.training.schedule.steps;
    Ok(Study { steps, names, true_spread_pm, matrices, shapes })
}

impl Study {
    /// One table a stack, of the names `composition_nc` and `composition_c`: a row for each image that was trained on, a column for each
    /// that was judged on, and a last row with the spread of P itself.
    pub fn tables(&self) -> Vec<(&'static str, Table)> {
        let named = |matrix: &Matrix| match matrix.centring {
            Centring::NotCentred => ("composition_nc", self.table(matrix)),
            Centring::Centred => ("composition_c", self.table(matrix)),
        };
        self.matrices.iter().map(named).collect()
    }

    fn table(&self, matrix: &Matrix) -> Table {
        let title = format!(
            "RMS error of a component of P (pm), stack {}, after {} steps: what was trained on, row by row, judged on the columns.",
            matrix.centring.name(),
            self.steps
        );
        let mut headings: Vec<(&str, usize)> = vec![("trained on", 0)];
        headings.extend(self.names.iter().map(|name| (name.as_str(), 1)));
        let mut table = Table::new(title, &headings);
        let spread = "spread of P".to_owned();
        let rows = self.names.iter().zip(&matrix.rms_pm).chain([(&spread, &self.true_spread_pm)]);
        for (name, values) in rows {
            let mut entries = vec![Entry::from(name.as_str())];
            entries.extend(values.iter().map(|&value| Entry::from(value)));
            table.push(entries);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors that say where they belong.
    pub(super) fn invented() -> Study {
        let names: Vec<String> =
            ["0 % Sm", "0 % Sm (2)", "7 % Sm", "20 % Sm"].map(str::to_owned).into_iter().collect();
        let spots: Vec<Spot> = (0..40)
            .map(|k| {
                let truth = [f64::from(k % 7) - 3.0, 2.0];
                Spot { row: f64::from(k / 8 * 8), col: f64::from(k % 8 * 8), truth, predicted: truth }
            })
            .collect();
        let matrix = |centring: Centring| Matrix {
            centring,
            rms_pm: (0..4).map(|i| (0..4).map(|j| f64::from(10 * i + j + 1)).collect()).collect(),
            maps: vec![spots.clone(); 4],
        };
        Study {
            steps: 5,
            names,
            true_spread_pm: vec![23.0, 22.0, 15.0, 4.0],
            matrices: Centring::ALL.map(matrix).into_iter().collect(),
            shapes: vec![[48, 64]; 4],
        }
    }

    #[test]
    fn rows_are_what_was_trained_on() {
        let study = invented();
        let tables = study.tables();
        assert_eq!(
            tables.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["composition_nc", "composition_c"]
        );
        let table = &tables[0].1;
        assert_eq!(table.numbers("0 % Sm"), [1.0, 11.0, 21.0, 31.0, 23.0]);
        assert_eq!(table.numbers("20 % Sm"), [4.0, 14.0, 24.0, 34.0, 4.0]);
        assert_eq!(table.rows()[3][0], Entry::from("20 % Sm"));
    }

    #[test]
    fn every_network_is_judged_on_every_image_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let settings = CompositionStudySettings {
            sm_fractions: vec![0.0, 0.2],
            window_px: 28,
            stacks: super::super::stacks::tests::smallest(),
        };
        settings.validate("").unwrap();
        let run =
            || study(&settings, settings.simulated().unwrap(), DeviceChoice::Cpu, folder.path()).unwrap();
        let first = run();
        assert_eq!(first.names, ["0 % Sm", "20 % Sm"]);
        assert!(first.true_spread_pm.iter().all(|spread| *spread > 0.0));
        for matrix in &first.matrices {
            assert!(matrix.rms_pm.iter().flatten().all(|rms| rms.is_finite() && *rms > 0.0), "{matrix:?}");
            assert!(matrix.maps.len() == 4 && matrix.maps.iter().all(|map| map.len() > 1));
        }
        for network in ["0-sm-nc-28px", "0-sm-c-28px", "20-sm-nc-28px", "20-sm-c-28px"] {
            assert!(folder.path().join(network).join("model.toml").exists(), "{network}");
        }
        // The networks are there now, and say the same again.
        assert_eq!(run().matrices[1].rms_pm, first.matrices[1].rms_pm);
    }

    #[test]
    fn maps_are_of_the_extremes() {
        assert_eq!(pairs(&invented().names), [[0, 0], [0, 2], [3, 3], [3, 0]]);
        let names = |of: &[&str]| of.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(pairs(&names(&["a", "b"])), [[0, 0], [0, 1], [1, 1], [1, 0]]);
        assert_eq!(pairs(&names(&["a"])), [[0, 0]]);
    }

    #[test]
    fn the_papers_compositions_can_be_trained_on() {
        let settings = CompositionStudySettings::default();
        settings.validate("").unwrap();
        assert_eq!(settings.sm_fractions.len(), 13);
        settings.clone().quick().validate("").unwrap();
        let wrong = CompositionStudySettings { window_px: 20, ..settings.clone() };
        assert_eq!(wrong.validate("x.").unwrap_err().key, "x.stacks.training.window_px");
        let wrong = CompositionStudySettings { sm_fractions: vec![0.1, 1.5], ..settings };
        assert_eq!(wrong.validate("").unwrap_err().key, "sm_fractions");
    }
}
