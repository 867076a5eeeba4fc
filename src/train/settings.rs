//! What a training config says. Every key has a default; unknown keys are refused.

use super::TrainError;
use super::samples::Simulation;
use super::turns::Turns;
use crate::config::InvalidSetting;
use crate::networks::{DcnnConfig, HeadKind, Manifest, Padding};
use crate::preprocess::Normalisation;
use crate::simulate::TrainingRanges;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Least side of the frames that a DCNN is judged and calibrated on and that its feature statistics are from, px at the model's
/// scale: about the tile in which windows are compared with each other. Of a smaller frame, the few cells would put their own
/// errors into what the frame has in common.
const JUDGED_SIDE_PX: usize = 256;

/// Steps, rates and bookkeeping that all training runs share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    pub seed: u64,
    pub steps: u64,
    /// Frames a step.
    pub batch: usize,
    /// Side of a frame, px. A DCNN is judged on frames of 256 px at least.
    pub crop_px: usize,
    /// Adam's rate after the warm-up; it falls to zero as a cosine.
    pub learning_rate: f64,
    /// Rate of the output layer relative to the rest. A linear head, of ~10⁵ inputs, diverges above a fiftieth.
    pub head_rate: f64,
    pub warmup_steps: u64,
    pub checkpoint_every: u64,
    /// Frames on which the result is judged.
    pub held_out_frames: usize,
    /// Early stopping: steps from one check of the loss on frames that nothing is learned from to the next. They are as many simulated
    /// ones, on which nothing else is judged; or, where labelled frames are held back, every second of those. The weights of the check
    /// with the smallest loss become the model. 0 checks nothing, and the last weights become the model.
    pub stop_check_every: u64,
    /// Training ends after so many checks in a row with a loss no smaller than the smallest before; at least 1.
    pub stop_patience: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            seed: 1,
            steps: 1600,
            batch: 4,
            crop_px: 176,
            learning_rate: 1e-3,
            head_rate: 0.02,
            warmup_steps: 30,
            checkpoint_every: 50,
            held_out_frames: 48,
            stop_check_every: 0,
            stop_patience: 5,
        }
    }
}

/// Which windows a DCNN learns from: the two stacks of Nelson et al.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Stack {
    /// NC: a sliding window, `stride_px` apart.
    #[default]
    NotCentred,
    /// C: windows around unit cells, to the pixel.
    Centred {
        /// At most so many of a frame.
        windows: usize,
    },
}

/// Which weights of a DCNN training changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adapts {
    #[default]
    All,
    /// The fully connected layers, with the normalisation before those of a linear head. The others stay as the model to go on from has
    /// them.
    Head,
}

/// `ferrostem train dcnn --config FILE`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DcnnTrainSettings {
    /// Name of the model, and of its folder.
    pub name: String,
    pub schedule: Schedule,
    pub pixel_size_pm: f64,
    pub normalisation: Normalisation,
    pub head: HeadKind,
    /// Side of a window, px.
    pub window_px: usize,
    /// Turns of the frame with which the network's answers turn exactly.
    pub turns: Turns,
    /// What is trained of the network.
    pub adapts: Adapts,
    /// How much it counts to know where the columns are, beside the outputs: see `train::columns`. 0 asks for nothing.
    pub columns_weight: f64,
    /// Distance of the windows that learn from one frame, px.
    pub stride_px: usize,
    pub stack: Stack,
    /// A window learns from the nearest unit cell no farther than this (Nelson et al.: the cation–cation distance), and from
    /// none that is nearer than the minimum. Both are for windows that are not centred.
    pub cell_upper_bound_pm: f64,
    pub cell_minimum_pm: f64,
    /// Pixels are raised to a power drawn from this range, the largest left as it is.
    pub gamma: [f64; 2],
    /// Gaussian noise of a variance drawn from this range is added to what is learned from, see
    /// [`add_gaussian_noise`](super::add_gaussian_noise); none where the range is `[0, 0]`.
    pub gaussian_noise: [f64; 2],
    /// Of the frames to learn from, the fraction that is labelled ones where such are given; the others are simulated.
    pub labelled_fraction: f64,
    /// Fraction of the simulated frames that have a pixel size of 7 to 36 pm and are resampled to the network's; the others come
    /// as `scenes` draws them.
    pub resampled_fraction: f64,
    /// Fraction of the simulated frames to learn from whose B columns are dimmer than any that `scenes` draws, down to none that can
    /// be seen: from them sigma learns what it is to say where P cannot be told. No frame to judge or to calibrate on is one.
    pub faint_fraction: f64,
    /// A frame to learn from with so many counts at an A column's peak weighs half as much as one without noise, pixel for pixel: else
    /// what a noisy frame cannot teach would drown what a clean one can.
    pub half_weight_counts: f64,
    pub scenes: TrainingRanges,
}

impl Default for DcnnTrainSettings {
    fn default() -> Self {
        Self {
            name: "dcnn-perovskite-100".to_owned(),
            schedule: Schedule::default(),
            pixel_size_pm: 15.0,
            normalisation: Normalisation::Local { sigma_px: 40.0 },
            head: HeadKind::Linear,
            window_px: 80,
            turns: Turns::None,
            adapts: Adapts::All,
            columns_weight: 1.0,
            stride_px: 8,
            stack: Stack::default(),
            cell_upper_bound_pm: 285.0,
            cell_minimum_pm: 0.0,
            gamma: [1.0, 1.0],
            gaussian_noise: [0.0, 0.0],
            labelled_fraction: 0.5,
            resampled_fraction: 0.0,
            faint_fraction: 0.0,
            half_weight_counts: 30.0,
            scenes: at_model_scale(),
        }
    }
}

/// `ferrostem train fcnn --config FILE`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FcnnTrainSettings {
    pub name: String,
    pub schedule: Schedule,
    pub pixel_size_pm: f64,
    pub normalisation: Normalisation,
    pub filters: usize,
    /// Radius of the disc that marks a column, pm.
    pub column_radius_pm: f64,
    /// As of a DCNN.
    pub labelled_fraction: f64,
    pub scenes: TrainingRanges,
}

impl Default for FcnnTrainSettings {
    fn default() -> Self {
        Self {
            name: "fcnn-perovskite-100".to_owned(),
            schedule: Schedule { steps: 600, batch: 6, crop_px: 128, ..Schedule::default() },
            pixel_size_pm: 15.0,
            normalisation: Normalisation::Local { sigma_px: 40.0 },
            filters: 16,
            column_radius_pm: 70.0,
            labelled_fraction: 0.5,
            scenes: at_model_scale(),
        }
    }
}

/// Frames as they look after resampling to the models' 15 pm.
fn at_model_scale() -> TrainingRanges {
    TrainingRanges { pixel_size_pm: [15.0, 15.0], ..TrainingRanges::default() }
}

impl Schedule {
    fn validate(&self, smallest_crop: usize) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("schedule.{name}");
        if !(1..=10_000_000).contains(&self.steps) {
            return Err(InvalidSetting::new(key("steps"), self.steps, "1 to 10000000"));
        }
        if !(1..=1024).contains(&self.batch) {
            return Err(InvalidSetting::new(key("batch"), self.batch, "1 to 1024"));
        }
        if self.crop_px < smallest_crop || self.crop_px > 4096 || !self.crop_px.is_multiple_of(8) {
            let expected = format!("a multiple of 8 from {smallest_crop} to 4096");
            return Err(InvalidSetting::new(key("crop_px"), self.crop_px, expected));
        }
        for (name, value) in [("learning_rate", self.learning_rate), ("head_rate", self.head_rate)] {
            if !(value > 0.0 && value <= 1.0) {
                return Err(InvalidSetting::new(key(name), value, "above 0, at most 1"));
            }
        }
        if self.checkpoint_every == 0 {
            return Err(InvalidSetting::new(key("checkpoint_every"), 0, "at least 1"));
        }
        if self.stop_patience == 0 {
            return Err(InvalidSetting::new(key("stop_patience"), 0, "at least 1"));
        }
        if self.held_out_frames < 2 {
            return Err(InvalidSetting::new(key("held_out_frames"), self.held_out_frames, "at least 2"));
        }
        Ok(())
    }

    /// The learning rate of `step`: linear warm-up, then a cosine to zero.
    pub(super) fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let progress = (step - self.warmup_steps) as f64 / (self.steps - self.warmup_steps).max(1) as f64;
        0.5 * self.learning_rate * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
    }
}

impl DcnnTrainSettings {
    /// The network that is trained, with that many outputs.
    pub(super) fn network(&self, outputs: usize) -> DcnnConfig {
        DcnnConfig { padding: Padding::Valid, head: self.head, window_px: self.window_px, outputs }
    }

    /// The frames to learn from and to be judged on, but for labelled ones.
    pub(super) fn simulation(&self) -> Simulation<'_> {
        let Self { gamma, pixel_size_pm, resampled_fraction: resampled, .. } = *self;
        Simulation { ranges: &self.scenes, gamma, pixel_size_pm, resampled }
    }

    /// Side of the frames that the network is judged and calibrated on, px.
    pub(super) fn judged_side_px(&self) -> usize {
        self.schedule.crop_px.max(JUDGED_SIDE_PX)
    }

    /// # Errors
    /// Names the first value out of range.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        self.schedule.validate(self.window_px.next_multiple_of(8))?;
        self.scenes.validate("scenes")?;
        let network = self.network(0);
        if let Stack::Centred { windows: windows @ 0 } = self.stack {
            return Err(InvalidSetting::new("stack.windows", windows, "at least 1"));
        }
        let [nearest, farthest] = [self.cell_minimum_pm, self.cell_upper_bound_pm];
        if !(0.0 <= nearest && nearest < farthest && farthest <= 1e4) {
            let expected = "from 0 to below cell_upper_bound_pm, which is at most 10000";
            return Err(InvalidSetting::new("cell_minimum_pm", nearest, expected));
        }
        let weight = self.columns_weight;
        if !(0.0..=100.0).contains(&weight) {
            return Err(InvalidSetting::new("columns_weight", weight, "0 to 100"));
        }
        for (name, fraction) in [
            ("labelled_fraction", self.labelled_fraction),
            ("resampled_fraction", self.resampled_fraction),
            ("faint_fraction", self.faint_fraction),
        ] {
            validate_fraction(name, fraction)?;
        }
        let half = self.half_weight_counts;
        if !(0.0..=1e6).contains(&half) {
            return Err(InvalidSetting::new("half_weight_counts", half, "0 to 1000000"));
        }
        let [low, high] = self.gamma;
        if !(0.1 <= low && low <= high && high <= 10.0) {
            let found = format!("{low}, {high}");
            return Err(InvalidSetting::new("gamma", found, "a range within 0.1 to 10"));
        }
        let [least, most] = self.gaussian_noise;
        if !(0.0 <= least && least <= most && most <= 10.0) {
            let found = format!("{least}, {most}");
            return Err(InvalidSetting::new("gaussian_noise", found, "a range within 0 to 10"));
        }
        if self.stride_px == 0 || !self.stride_px.is_multiple_of(network.pooling()) {
            let expected = format!("a multiple of {} for this head", network.pooling());
            return Err(InvalidSetting::new("stride_px", self.stride_px, expected));
        }
        if network.head_features() == 0 {
            let expected = "a window large enough for its head: 28 px, 66 px for a deep one";
            return Err(InvalidSetting::new("window_px", self.window_px, expected));
        }
        Ok(())
    }

    /// What the model in `folder` was trained with.
    ///
    /// # Errors
    /// When there is no such model, or its manifest does not say.
    pub fn of_model(folder: &Path) -> Result<Self, TrainError> {
        let config = Manifest::read(folder)?.training.config.try_into::<Self>();
        config.map_err(|error| TrainError::Config {
            path: folder.to_owned(),
            message: format!("training.config: {error}"),
        })
    }

    /// What the model in `folder` was trained with, but for a short schedule at a low rate, to adapt it to a microscope.
    ///
    /// # Errors
    /// When there is no such model, or its manifest does not say.
    pub fn adapting(folder: &Path) -> Result<Self, TrainError> {
        let config = Self::of_model(folder)?;
        let schedule = Schedule {
            steps: 80,
            learning_rate: 1e-4,
            warmup_steps: 10,
            checkpoint_every: 20,
            held_out_frames: 16,
            stop_check_every: 0,
            ..config.schedule.clone()
        };
        // A finished model has left behind the layer that says where the columns are; a new one would only disturb it.
        let settings = Self { schedule, columns_weight: 0.0, adapts: Adapts::All, ..config };
        settings.validate()?;
        Ok(settings)
    }

    /// # Errors
    /// When the file cannot be read or holds a value out of range.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let settings: Self = read_toml(path)?;
        settings.validate()?;
        Ok(settings)
    }
}

impl FcnnTrainSettings {
    /// # Errors
    /// When the file cannot be read or holds a value out of range.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let settings: Self = read_toml(path)?;
        settings.schedule.validate(64)?;
        settings.scenes.validate("scenes")?;
        validate_fraction("labelled_fraction", settings.labelled_fraction)?;
        Ok(settings)
    }
}

fn validate_fraction(name: &str, fraction: f64) -> Result<(), InvalidSetting> {
    if (0.0..=1.0).contains(&fraction) { Ok(()) } else { Err(InvalidSetting::new(name, fraction, "0 to 1")) }
}

fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| TrainError::File { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|error| TrainError::Config { path: path.to_owned(), message: error.to_string() })
}
