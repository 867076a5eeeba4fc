//! A trained network on the parts of images that are judged on.

use super::StackSettings;
use crate::evaluate::EvaluateError;
use crate::evaluate::windows::random;
use crate::frame::{ClassicalCell, PolarizationMaps};
use crate::networks::{DeviceChoice, Engine, EngineSettings};
use crate::polarization::sample_on_grid;
use crate::preprocess;
use crate::train::{DcnnTrainSettings, Labelled, Sample, Stack, add_gaussian_noise};
use ferrostem_proto::GridSpec;
use ndarray::{Array2, s};
use std::path::Path;

/// Windows that go through the network together.
const WINDOWS_AT_ONCE: usize = 32;
/// Windows begin at multiples of this in one image of many: what the deepest pooling asks for.
const PITCH_PX: usize = 4;

/// Random numbers of added noise are not those of the frames: their index begins here.
const NOISE_INDEX: usize = 1 << 20;

/// P at one place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spot {
    /// Centre of the window, pixels of the part.
    pub row: f64,
    pub col: f64,
    /// `[x, y]`, pm; of the nearest cell.
    pub truth: [f64; 2],
    pub predicted: [f64; 2],
}

/// A network and how it was trained.
#[derive(Debug)]
pub struct Trained {
    engine: Engine,
    network: DcnnTrainSettings,
    within_cells: f64,
    judged_cells: usize,
    seed: u64,
}

impl Trained {
    pub(super) fn load(
        folder: &Path,
        network: DcnnTrainSettings,
        settings: &StackSettings,
        device: DeviceChoice,
    ) -> Result<Self, EvaluateError> {
        let engine = Engine::load(&EngineSettings {
            device,
            dcnn: Some(folder.to_owned()),
            ..EngineSettings::default()
        })?;
        let StackSettings { within_cells, judged_cells, seed, .. } = *settings;
        Ok(Self { engine, network, within_cells, judged_cells, seed })
    }

    /// P on the parts of `frames` that are judged on, to whose pixels noise of that variance is added (none for 0): on every window of
    /// a sliding one that lies near a cell's centre, or on windows around cells, as it was trained.
    ///
    /// # Errors
    /// When a part is smaller than a window, or the device fails.
    pub fn judge(&self, frames: &Labelled, noise_variance: f64) -> Result<Vec<Spot>, EvaluateError> {
        let mut spots = Vec::new();
        for (index, sample) in frames.judged().iter().enumerate() {
            let mut pixels = sample.pixels.clone();
            if noise_variance > 0.0 {
                add_gaussian_noise(&mut pixels, noise_variance, &mut random(self.seed, NOISE_INDEX + index));
            }
            let image = self.network.normalisation.normalise(&pixels);
            spots.extend(match self.network.stack {
                Stack::NotCentred => self.sliding(&image, sample)?,
                Stack::Centred { .. } => self.centred(&image, sample)?,
            });
        }
        Ok(spots)
    }

    fn run(&self, image: &Array2<f32>, stride_px: usize) -> Result<PolarizationMaps, EvaluateError> {
        self.engine.dcnn(image, stride_px)?.ok_or(EvaluateError::NoDcnn)
    }

    fn sliding(&self, image: &Array2<f32>, sample: &Sample) -> Result<Vec<Spot>, EvaluateError> {
        let maps = self.run(image, self.network.stride_px)?;
        let (rows, cols) = maps.p_x.dim();
        let first = (self.network.window_px - 1) as f64 / 2.0;
        let step = self.network.stride_px as f64;
        let grid = GridSpec {
            row0: first,
            col0: first,
            step_row: step,
            step_col: step,
            rows: rows as u32,
            cols: cols as u32,
        };
        let cells: Vec<ClassicalCell> = whole(sample).copied().collect();
        let largest = cells.iter().map(|cell| cell.cell_area.abs().sqrt()).fold(0.0, f64::max);
        let nearest =
            sample_on_grid(&cells, &grid, [self.network.pixel_size_pm; 2], self.within_cells * largest);
        let spot = |((i, j), index): ((usize, usize), &Option<usize>)| {
            let cell = cells.get((*index)?)?;
            let [row, col] = [i, j].map(|window| first + step * window as f64);
            Some(Spot { row, col, truth: [cell.p_x, cell.p_y], predicted: p(&maps, [i, j]) })
        };
        Ok(nearest.indexed_iter().filter_map(spot).collect())
    }

    fn centred(&self, image: &Array2<f32>, sample: &Sample) -> Result<Vec<Spot>, EvaluateError> {
        let window = self.network.window_px;
        let corner = |cell: &ClassicalCell| -> Option<[usize; 2]> {
            let [top, left] = [cell.row, cell.col].map(|at| (at - (window - 1) as f64 / 2.0).round());
            let inside = top >= 0.0
                && left >= 0.0
                && top as usize + window <= image.nrows()
                && left as usize + window <= image.ncols();
            inside.then_some([top as usize, left as usize])
        };
        let fitting: Vec<_> = whole(sample).filter_map(|cell| Some((cell, corner(cell)?))).collect();
        let step = fitting.len().div_ceil(self.judged_cells).max(1);
        let chosen: Vec<_> = fitting.into_iter().step_by(step).collect();
        let pitch = window.next_multiple_of(PITCH_PX);
        let mut spots = Vec::with_capacity(chosen.len());
        for some in chosen.chunks(WINDOWS_AT_ONCE) {
            // Side by side: without padding, a window's answer does not depend on what lies beside it.
            let mut row = Array2::zeros((window, (some.len() - 1) * pitch + window));
            for (k, (_, [top, left])) in some.iter().enumerate() {
                let pixels = image.slice(s![*top..top + window, *left..left + window]);
                row.slice_mut(s![.., k * pitch..k * pitch + window]).assign(&pixels);
            }
            let maps = self.run(&row, pitch)?;
            spots.extend(some.iter().enumerate().map(|(k, (cell, _))| Spot {
                row: cell.row,
                col: cell.col,
                truth: [cell.p_x, cell.p_y],
                predicted: p(&maps, [0, k]),
            }));
        }
        Ok(spots)
    }
}

/// The cells of a frame whose P is known.
fn whole(sample: &Sample) -> impl Iterator<Item = &ClassicalCell> {
    sample.cells.iter().filter(|known| !known.disturbed).map(|known| &known.cell)
}

fn p(maps: &PolarizationMaps, at: [usize; 2]) -> [f64; 2] {
    [&maps.p_x, &maps.p_y].map(|map| map.get(at).map_or(f64::NAN, |value| f64::from(*value)))
}

/// Root mean square error of a component of P, pm; NaN without spots.
pub fn rms(spots: &[Spot]) -> f64 {
    let both = spots.iter().flat_map(|spot| [0, 1].map(|axis| spot.predicted[axis] - spot.truth[axis]));
    preprocess::rms(both.filter(|error| error.is_finite()))
}

/// Standard deviation of a component of the true P, pm: the error of who answers with its mean.
pub fn true_spread(spots: &[Spot]) -> f64 {
    let count = spots.len() as f64;
    let variance = |axis: usize| {
        let mean = spots.iter().map(|spot| spot.truth[axis]).sum::<f64>() / count;
        spots.iter().map(|spot| (spot.truth[axis] - mean).powi(2)).sum::<f64>() / count
    };
    (0.5 * (variance(0) + variance(1))).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::Centring;
    use super::*;
    use crate::networks::{Architecture, DcnnConfig, HeadKind, Padding, write_untrained};

    #[test]
    fn hand_worked_errors() {
        let spot = |truth, predicted| Spot { row: 0.0, col: 0.0, truth, predicted };
        let spots = [spot([1.0, -2.0], [4.0, -2.0]), spot([3.0, 2.0], [3.0, f64::NAN])];
        // 3, 0 and 0; what was not answered does not count.
        assert!((rms(&spots) - 3f64.sqrt()).abs() < 1e-12);
        // x 1 and 3, y -2 and 2: variances 1 and 4.
        assert!((true_spread(&spots) - 2.5f64.sqrt()).abs() < 1e-12);
        assert!(rms(&[]).is_nan());
    }

    #[test]
    fn windows_beside_each_other_answer_as_they_do_alone() {
        let folder = tempfile::tempdir().unwrap();
        let window_px = 30;
        let config = DcnnConfig { padding: Padding::Valid, head: HeadKind::Linear, window_px, outputs: 7 };
        write_untrained(folder.path(), Architecture::Dcnn(config), 3).unwrap();
        let settings = StackSettings { side_px: 128, judged_cells: 5, ..StackSettings::default() };
        let image = settings.simulated(0.0, 0).unwrap();
        let frames = image.frames.in_parts(0.5, [64, 64]).unwrap();
        let load = |centring| {
            let network = settings.network(centring, window_px, [0.0; 2]).unwrap();
            Trained::load(folder.path(), network, &settings, DeviceChoice::Cpu).unwrap()
        };
        let trained = load(Centring::Centred);
        let spots = trained.judge(&frames, 0.0).unwrap();
        assert!((2..=5).contains(&spots.len()), "{}", spots.len());
        let normalised = trained.network.normalisation.normalise(&frames.judged()[0].pixels);
        for spot in &spots {
            let [top, left] = [spot.row, spot.col].map(|at| (at - 14.5).round() as usize);
            let alone = normalised.slice(s![top..top + window_px, left..left + window_px]).to_owned();
            let expected = p(&trained.run(&alone, 8).unwrap(), [0, 0]);
            for axis in 0..2 {
                let difference = (spot.predicted[axis] - expected[axis]).abs();
                assert!(difference < 1e-3 * (20.0 + expected[axis].abs()), "{spot:?} {expected:?}");
            }
        }
        // Sliding: every 8 px, near a cell; and noise changes what is answered.
        let sliding = load(Centring::NotCentred);
        let clean = sliding.judge(&frames, 0.0).unwrap();
        assert!(clean.iter().all(|spot| (spot.row - 14.5) % 8.0 == 0.0) && clean.len() > 10);
        let noisy = sliding.judge(&frames, 0.05).unwrap();
        assert_eq!(noisy.len(), clean.len());
        assert_ne!(noisy, clean);
        assert_eq!(noisy, sliding.judge(&frames, 0.05).unwrap());
    }
}
