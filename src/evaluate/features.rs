//! What the layers of a DCNN make of an image (Nelson et al., figure 5): maps of the filters whose answers vary most over it.

use super::EvaluateError;
use super::drawing::{ImageRow, write_montage};
use super::table::{Entry, Table};
use super::windows::known_frame;
use crate::config::InvalidSetting;
use crate::figure::colour;
use crate::frame::Frame;
use crate::material::Material;
use crate::networks::LayeredDcnn;
use crate::preprocess::{CalibrationHints, ModelInput, PreprocessSettings, prepare};
use crate::simulate::TrainingRanges;
use ndarray::{Array2, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeaturesSettings {
    pub seed: u64,
    /// What a simulated frame shows.
    pub scenes: TrainingRanges,
    /// Side of what the network is shown, cut from the middle of the frame, px at its scale.
    pub side_px: usize,
    /// Convolutions, from 1.
    pub layers: Vec<usize>,
    /// Filters of each.
    pub maps: usize,
}

impl Default for FeaturesSettings {
    /// The papers' layers and number of filters, on a window of theirs.
    fn default() -> Self {
        Self {
            seed: 20_261_130,
            scenes: TrainingRanges {
                peak_counts: [300.0, 300.0],
                polarization_pm: [20.0, 40.0],
                b_intensity: [0.2, 0.5],
                ..TrainingRanges::default()
            },
            side_px: 80,
            layers: vec![1, 2, 3, 4],
            maps: 3,
        }
    }
}

impl FeaturesSettings {
    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        if !(16..=1024).contains(&self.side_px) {
            return Err(InvalidSetting::new(key("side_px"), self.side_px, "16 to 1024 px"));
        }
        if !(1..=32).contains(&self.maps) {
            return Err(InvalidSetting::new(key("maps"), self.maps, "1 to 32"));
        }
        if !(1..=64).contains(&self.layers.len()) {
            return Err(InvalidSetting::new(key("layers"), self.layers.len(), "1 to 64 layers"));
        }
        self.scenes.validate(&key("scenes"))
    }
}

/// One filter's answers.
#[derive(Debug, Clone, PartialEq)]
struct FeatureMap {
    layer: usize,
    channel: usize,
    map: Array2<f32>,
}

/// What was shown and what was answered, layer by layer, the filter whose answers vary most first.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    image: Array2<f32>,
    maps: Vec<FeatureMap>,
}

/// Shows the middle of `frame`, or of a simulated one without, to the network. The material's lattice calibrates a frame that has no
/// pixel size.
///
/// # Errors
/// When the frame cannot be simulated, calibrated or is too small, or there is no such layer.
pub fn study(
    network: &LayeredDcnn,
    settings: &FeaturesSettings,
    frame: Option<(&Frame, &Material)>,
) -> Result<Study, EvaluateError> {
    let simulated;
    let (frame, lattice_a_pm) = match frame {
        Some((frame, material)) => (frame, Some(material.lattice_a_pm)),
        None => {
            // A little more than is shown, at a pixel size that may be larger than the network's.
            let shape = [settings.side_px + settings.side_px / 4; 2];
            simulated = known_frame(&settings.scenes, shape, settings.seed, 0)?.frame;
            (simulated.as_ref(), None)
        }
    };
    let input = network.input();
    let wanted = ModelInput {
        pixel_size_pm: input.pixel_size_pm,
        normalisation: input.normalisation,
        multiple_of: 1,
        window_px: None,
    };
    let hints = CalibrationHints { lattice_a_pm, ..CalibrationHints::default() };
    let prepared = prepare(frame, &[wanted], &hints, &PreprocessSettings::default())?;
    let image = prepared.first().and_then(|prepared| middle(prepared.image.view(), settings.side_px));
    let image = image.ok_or_else(|| {
        let [rows, cols] = prepared.first().map_or([0; 2], |prepared| prepared.content_shape);
        EvaluateError::Frame(format!(
            "{rows} x {cols} px at the network's scale: expected at least {} a side (side_px)",
            settings.side_px
        ))
    })?;
    of_image(network, settings, image)
}

fn of_image(
    network: &LayeredDcnn,
    settings: &FeaturesSettings,
    image: Array2<f32>,
) -> Result<Study, EvaluateError> {
    let mut maps = Vec::new();
    for &layer in &settings.layers {
        let answers = network.feature_maps(&image, layer)?;
        let mut channels: Vec<FeatureMap> = answers
            .axis_iter(Axis(0))
            .enumerate()
            .map(|(channel, map)| FeatureMap { layer, channel, map: map.to_owned() })
            .collect();
        channels.sort_by(|a, b| b.deviation().total_cmp(&a.deviation()));
        maps.extend(channels.into_iter().take(settings.maps));
    }
    Ok(Study { image, maps })
}

/// The square of `side` px in the middle; `None` where there is none so large.
fn middle(image: ArrayView2<f32>, side: usize) -> Option<Array2<f32>> {
    let (rows, cols) = image.dim();
    let (top, left) = (rows.checked_sub(side)? / 2, cols.checked_sub(side)? / 2);
    Some(image.slice(s![top..top + side, left..left + side]).to_owned())
}

impl FeatureMap {
    fn moments(&self) -> [f64; 2] {
        let count = self.map.len().max(1) as f64;
        let mean = self.map.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        let variance = self.map.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        [mean, variance.sqrt()]
    }

    fn deviation(&self) -> f64 {
        self.moments()[1]
    }
}

impl Study {
    /// The filters that are shown, and their answers in numbers.
    pub fn table(&self) -> Table {
        let mut table = Table::new(
            "Filters whose answers vary most over the image, layer by layer.",
            &[
                ("layer", 0),
                ("filter", 0),
                ("mean", 4),
                ("standard deviation", 4),
                ("least", 4),
                ("largest", 4),
                ("map (px)", 0),
            ],
        );
        for of in &self.maps {
            let [mean, deviation] = of.moments();
            let [least, largest] =
                of.map.iter().fold([f32::MAX, f32::MIN], |[low, high], &v| [low.min(v), high.max(v)]);
            let (rows, cols) = of.map.dim();
            table.push(vec![
                of.layer.into(),
                of.channel.into(),
                Entry::Number(mean),
                Entry::Number(deviation),
                f64::from(least).into(),
                f64::from(largest).into(),
                format!("{rows} x {cols}").into(),
            ]);
        }
        table
    }

    /// Writes `features.png`: the image, and a row of maps for each layer.
    ///
    /// # Errors
    /// When the picture cannot be drawn or written.
    pub fn draw(&self, dir: &Path) -> Result<PathBuf, EvaluateError> {
        let image = (String::new(), self.image.clone());
        let mut rows = vec![ImageRow { name: "image".to_owned(), images: vec![image] }];
        for of_layer in self.maps.chunk_by(|a, b| a.layer == b.layer) {
            let name = of_layer.first().map_or_else(String::new, |map| format!("convolution {}", map.layer));
            let images = of_layer.iter().map(|of| (format!("filter {}", of.channel), of.map.clone()));
            rows.push(ImageRow { name, images: images.collect() });
        }
        Ok(write_montage(dir, "features", &rows, colour::inferno)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::filters::tests::small_network;

    #[test]
    fn maps_are_the_networks_own_and_the_most_varying_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let network = small_network(folder.path());
        let settings =
            FeaturesSettings { side_px: 40, layers: vec![1, 3], maps: 4, ..FeaturesSettings::default() };
        settings.validate("").unwrap();
        let study = study(&network, &settings, None).unwrap();
        assert_eq!((study.image.dim(), study.maps.len()), ((40, 40), 8));
        for of_layer in study.maps.chunks(4) {
            let all = network.feature_maps(&study.image, of_layer[0].layer).unwrap();
            for shown in of_layer {
                assert_eq!(shown.map, all.index_axis(Axis(0), shown.channel));
            }
            let deviations: Vec<f64> = of_layer.iter().map(FeatureMap::deviation).collect();
            assert!(deviations.is_sorted_by(|a, b| a >= b) && deviations[3] > 0.0);
            let largest = all.axis_iter(Axis(0)).map(|map| f64::from(map.std(0.0))).fold(0.0, f64::max);
            assert!((deviations[0] - largest).abs() < 1e-4 * largest);
        }
        assert_eq!(study.table().numbers("layer"), [1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0]);
        let path = study.draw(folder.path()).unwrap();
        assert!(tiny_skia::Pixmap::load_png(&path).unwrap().width() > 4 * 150);
        let wrong = FeaturesSettings { layers: vec![10], ..settings };
        assert!(super::study(&network, &wrong, None).unwrap_err().to_string().contains("10"));
    }

    #[test]
    fn the_middle_is_the_middle() {
        let image = Array2::from_shape_fn((10, 7), |(row, col)| (10 * row + col) as f32);
        let square = middle(image.view(), 4).unwrap();
        assert_eq!((square[[0, 0]], square[[3, 3]]), (31.0, 64.0));
        assert_eq!(middle(image.view(), 8), None);
    }
}
