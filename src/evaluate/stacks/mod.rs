//! Images, and the networks that learn from a part of one: what the papers' studies of noise, window and composition share.
//!
//! As in Nelson et al., an image is cut by a vertical line; the sub-images on its left are learned from, those on its right are judged
//! on, and both come in two stacks: centred on unit cells (C), and from a sliding window (NC). Images are simulated, one specimen each,
//! or a user's own, whose cells the classical measurement (or a label file, or an Sm-BFO parameterization) gives.

mod trained;

pub use trained::{Spot, Trained, rms, true_spread};

use super::EvaluateError;
use super::windows::random;
use crate::config::InvalidSetting;
use crate::networks::DeviceChoice;
use crate::simulate::{Composition, Scene, render};
use crate::train::{DcnnTrainSettings, LabelSource, Labelled, Schedule, Stack, train_dcnn_on};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A crop is wider than its window by this at least, px, so that it holds cells around which a whole window lies.
const AROUND_WINDOW_PX: usize = 48;

/// What the images are, and how networks learn from them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StackSettings {
    /// Of simulated images and of the noise that is added to judge.
    pub seed: u64,
    /// A built-in scene or the path of one, of which simulated images show other specimens; its alloy says what Sm does.
    pub scene: String,
    /// Side of a simulated image, px of the networks' pixel size.
    pub side_px: usize,
    /// Detected electrons at the peak of a pure A column in simulated images.
    pub peak_counts: f64,
    /// Part of an image's width that is learned from.
    pub learned_share: f64,
    /// Sub-images of the centred stack that a crop gives, at most.
    pub centred_windows: usize,
    /// Cells of an image around which centred networks are judged, at most; the others are judged on every window near a cell.
    pub judged_cells: usize,
    /// Windows nearer to a cell's centre than this fraction of its edge are judged.
    pub within_cells: f64,
    /// How a network is trained; window, stack and noise are set by the studies.
    pub training: DcnnTrainSettings,
}

impl Default for StackSettings {
    /// The papers' network: a linear head, no normalisation but the last, nothing learned beside the outputs.
    fn default() -> Self {
        Self {
            seed: 20_261_130,
            scene: "sm-bifeo3".to_owned(),
            side_px: 1536,
            peak_counts: 300.0,
            learned_share: 2.0 / 3.0,
            centred_windows: 6,
            judged_cells: 600,
            within_cells: 0.5,
            training: DcnnTrainSettings {
                schedule: Schedule { steps: 600, crop_px: 144, ..Schedule::default() },
                columns_weight: 0.0,
                ..DcnnTrainSettings::default()
            },
        }
    }
}

/// An image whose cells are known.
#[derive(Debug, Clone)]
pub struct KnownImage {
    /// As tables name it.
    pub name: String,
    frames: Labelled,
}

/// The two stacks of sub-images, as the papers abbreviate them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Centring {
    /// NC.
    NotCentred,
    /// C.
    Centred,
}

impl Centring {
    pub const ALL: [Self; 2] = [Self::NotCentred, Self::Centred];

    /// The papers' abbreviation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotCentred => "NC",
            Self::Centred => "C",
        }
    }
}

impl StackSettings {
    /// A small image and few steps, to see that a study works.
    pub fn quick(self) -> Self {
        let schedule =
            Schedule { steps: 40, batch: 1, crop_px: 64, warmup_steps: 4, ..self.training.schedule };
        Self {
            side_px: 320,
            judged_cells: 24,
            training: DcnnTrainSettings { schedule, ..self.training },
            ..self
        }
    }

    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        if !(128..=8192).contains(&self.side_px) {
            return Err(InvalidSetting::new(key("side_px"), self.side_px, "128 to 8192 px"));
        }
        for (name, count) in [("centred_windows", self.centred_windows), ("judged_cells", self.judged_cells)]
        {
            if !(1..=1_000_000).contains(&count) {
                return Err(InvalidSetting::new(key(name), count, "1 to 1000000"));
            }
        }
        let within = |name: &str, value: f64, [low, high]: [f64; 2]| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(InvalidSetting::new(key(name), value, format!("{low} to {high}")))
        };
        within("peak_counts", self.peak_counts, [1.0, 1e6])?;
        within("learned_share", self.learned_share, [0.1, 0.9])?;
        within("within_cells", self.within_cells, [0.01, 1.0])
    }

    /// The settings of one network.
    ///
    /// # Errors
    /// When no network can be trained with them; the error names the value after `training.`.
    pub fn network(
        &self,
        centring: Centring,
        window_px: usize,
        gaussian_noise: [f64; 2],
    ) -> Result<DcnnTrainSettings, InvalidSetting> {
        let stack = match centring {
            Centring::NotCentred => Stack::NotCentred,
            Centring::Centred => Stack::Centred { windows: self.centred_windows },
        };
        let schedule = &self.training.schedule;
        let crop_px = schedule.crop_px.max((window_px + AROUND_WINDOW_PX).next_multiple_of(8));
        let settings = DcnnTrainSettings {
            schedule: Schedule { crop_px, ..schedule.clone() },
            window_px,
            stack,
            gaussian_noise,
            ..self.training.clone()
        };
        let named =
            |error: InvalidSetting| InvalidSetting { key: format!("training.{}", error.key), ..error };
        settings.validate().map_err(named)?;
        Ok(settings)
    }

    /// An image of its own specimen, number `index`, in which `sm_fraction` of the A atoms are Sm.
    ///
    /// # Errors
    /// When there is no such scene, or it cannot be rendered.
    pub fn simulated(&self, sm_fraction: f64, index: usize) -> Result<KnownImage, EvaluateError> {
        let Scene { mut specimen, mut microscope, .. } = Scene::resolve(&self.scene)?;
        specimen.seed = specimen.seed.wrapping_add(index as u64);
        specimen.alloy.fraction = Composition::Uniform { value: sm_fraction };
        microscope.shape = [self.side_px; 2];
        microscope.pixel_size_pm = self.training.pixel_size_pm;
        microscope.peak_counts = self.peak_counts;
        let frame = render(&specimen, &microscope, &mut random(self.seed, index))?;
        let percent = (1000.0 * sm_fraction).round() / 10.0;
        let description = format!(
            "simulated: {}, {percent} % Sm, image {index} of seed {}, {} px, {} counts",
            self.scene, self.seed, self.side_px, self.peak_counts
        );
        Ok(KnownImage { name: format!("{percent} % Sm"), frames: Labelled::simulated(frame, description) })
    }
}

impl KnownImage {
    /// The frames of a user's file, brought to a network's pixel size; each has at least `least_px` a side there.
    ///
    /// # Errors
    /// When the file cannot be read, a frame is smaller, or no unit cell is found in any.
    pub fn read(source: &LabelSource, pixel_size_pm: f64, least_px: usize) -> Result<Self, EvaluateError> {
        let frames = Labelled::read(source, pixel_size_pm, least_px)?;
        let name = source.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, frames })
    }

    /// All of it to be judged on, by a network that learned from something else.
    pub fn to_judge(self) -> Self {
        Self { frames: self.frames.to_judge(), ..self }
    }

    /// Cut into the part that is learned from and the one that is judged on, for windows of up to `window_px`.
    ///
    /// # Errors
    /// When one of the parts is too small.
    pub fn in_parts(self, settings: &StackSettings, window_px: usize) -> Result<Self, EvaluateError> {
        let crop_px = settings.network(Centring::NotCentred, window_px, [0.0; 2])?.schedule.crop_px;
        let frames = self.frames.in_parts(settings.learned_share, [crop_px, window_px])?;
        Ok(Self { frames, ..self })
    }

    /// The parts that are judged on.
    pub fn frames(&self) -> &Labelled {
        &self.frames
    }
}

/// Gives every image a name of its own: the second of a name becomes `NAME (2)`.
pub fn with_names_of_their_own(images: &mut [KnownImage]) {
    let names: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
    for (index, image) in images.iter_mut().enumerate() {
        let before = names.iter().take(index).filter(|name| **name == image.name).count();
        if before > 0 {
            image.name = format!("{} ({})", image.name, before + 1);
        }
    }
}

/// Trains networks into a folder; what is there already is not trained again.
#[derive(Debug)]
pub struct Trainer<'a> {
    pub settings: &'a StackSettings,
    pub device: DeviceChoice,
    pub folder: PathBuf,
}

impl Trainer<'_> {
    /// A network from `image`, named after it, its stack, its window and `suffix`.
    ///
    /// # Errors
    /// As the training's.
    pub fn train(
        &self,
        image: &KnownImage,
        network: DcnnTrainSettings,
        suffix: &str,
    ) -> Result<Trained, EvaluateError> {
        let stack = if network.stack == Stack::NotCentred { "nc" } else { "c" };
        let name = format!("{}-{stack}-{}px{suffix}", slug(&image.name), network.window_px);
        tracing::info!(network = name, "training");
        let settings = DcnnTrainSettings { name, ..network };
        let folder = train_dcnn_on(settings.clone(), &image.frames, self.device, &self.folder)?;
        Trained::load(&folder, settings, self.settings, self.device)
    }
}

/// A name as part of a folder's: letters and digits, and hyphens between them.
fn slug(name: &str) -> String {
    let kept: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    kept.split_whitespace().collect::<Vec<_>>().join("-").to_lowercase()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One step on images that hold a window of 28 px.
    pub(in crate::evaluate) fn smallest() -> StackSettings {
        let quick = StackSettings::default().quick();
        let schedule = Schedule { steps: 1, ..quick.training.schedule };
        let training = DcnnTrainSettings { schedule, ..quick.training };
        StackSettings { side_px: 128, judged_cells: 6, training, ..quick }
    }

    #[test]
    fn sm_makes_the_cell_smaller_and_takes_p_away() {
        let settings = StackSettings { side_px: 256, ..StackSettings::default() };
        let of = |sm_fraction: f64| {
            let image = settings.simulated(sm_fraction, 3).unwrap().in_parts(&settings, 28).unwrap();
            let cells = &image.frames().judged()[0].cells;
            let mean = |of: fn(&crate::frame::ClassicalCell) -> f64| {
                cells.iter().map(|known| of(&known.cell)).sum::<f64>() / cells.len() as f64
            };
            (mean(|cell| cell.cell_a), mean(|cell| cell.p_x.hypot(cell.p_y)))
        };
        let ((cell, p), (smaller, less)) = (of(0.0), of(0.2));
        // 2.24 % for all of Sm, so 0.45 % for a fifth; P falls to a fifth.
        assert!((smaller / cell - 0.9955).abs() < 0.001, "{cell} {smaller}");
        assert!(p > 15.0 && less < 0.7 * p, "{p} {less}");
    }

    #[test]
    fn names_become_folders_of_their_own() {
        let image = |name: &str| KnownImage {
            name: name.to_owned(),
            frames: StackSettings { side_px: 128, ..StackSettings::default() }
                .simulated(0.0, 0)
                .unwrap()
                .frames,
        };
        let mut images = ["0 % Sm", "7.5 % Sm", "0 % Sm"].map(image);
        with_names_of_their_own(&mut images);
        let slugs = images.map(|image| slug(&image.name));
        assert_eq!(slugs, ["0-sm", "7-5-sm", "0-sm-2"]);
    }

    #[test]
    fn a_crop_holds_a_window_and_cells_around_it() {
        let settings = StackSettings::default();
        let crop = |window| settings.network(Centring::Centred, window, [0.0; 2]).map(|n| n.schedule.crop_px);
        assert_eq!((crop(40), crop(80), crop(160)), (Ok(144), Ok(144), Ok(208)));
        let refused = settings.network(Centring::Centred, 20, [0.0; 2]).unwrap_err();
        assert_eq!(refused.key, "training.window_px");
    }
}
