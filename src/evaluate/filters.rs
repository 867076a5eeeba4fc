//! The images that single filters of a DCNN answer to most (Nelson et al., figure 6): gradient ascent on the pixels, from noise.

use super::EvaluateError;
use super::drawing::{ImageRow, grey, write_montage};
use super::table::Table;
use super::windows::random;
use crate::config::InvalidSetting;
use crate::networks::{Ascended, Ascent, Filter, LayeredDcnn};
use ndarray::Array2;
use rand_distr::{Distribution as _, StandardNormal};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Which filters, and how far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FiltersSettings {
    /// Of the noise that every ascent starts from.
    pub seed: u64,
    /// Side of the image, px.
    pub side_px: usize,
    /// Convolutions, from 1.
    pub layers: Vec<usize>,
    /// Filters of each, from 0.
    pub filters: Vec<usize>,
    pub steps: usize,
    /// Root mean square of what a step adds to pixels whose standard deviation is 1.
    pub step_size: f64,
}

impl Default for FiltersSettings {
    /// The papers' three consecutive layers and three consecutive filters.
    fn default() -> Self {
        Self {
            seed: 20_261_130,
            side_px: 80,
            layers: vec![1, 2, 3],
            filters: vec![0, 1, 2],
            steps: 80,
            step_size: 0.1,
        }
    }
}

impl FiltersSettings {
    /// A few steps on a small image.
    pub fn quick(self) -> Self {
        Self { side_px: 32, steps: 8, ..self }
    }

    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        if !(16..=512).contains(&self.side_px) {
            return Err(InvalidSetting::new(key("side_px"), self.side_px, "16 to 512 px"));
        }
        for (name, list) in [("layers", &self.layers), ("filters", &self.filters)] {
            if !(1..=64).contains(&list.len()) {
                return Err(InvalidSetting::new(key(name), list.len(), "1 to 64 of them"));
            }
        }
        if !(1..=100_000).contains(&self.steps) {
            return Err(InvalidSetting::new(key("steps"), self.steps, "1 to 100000"));
        }
        if !(self.step_size > 0.0 && self.step_size <= 10.0) {
            return Err(InvalidSetting::new(key("step_size"), self.step_size, "above 0, at most 10"));
        }
        Ok(())
    }

    /// Ascents in all.
    pub fn ascents(&self) -> usize {
        self.layers.len() * self.filters.len()
    }
}

/// The noise, and what each filter made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    start: Array2<f32>,
    /// The filter, the side of what its layer sees, px, and where its ascent led; layer by layer.
    ascents: Vec<(Filter, usize, Ascended)>,
}

/// Runs the ascents; `each` is called after every one.
///
/// # Errors
/// When there is no such layer or filter, the image is smaller than what a layer sees, or the device fails.
pub fn study(
    network: &LayeredDcnn,
    settings: &FiltersSettings,
    mut each: impl FnMut(),
) -> Result<Study, EvaluateError> {
    let mut rng = random(settings.seed, 0);
    let start = Array2::from_shape_simple_fn((settings.side_px, settings.side_px), || {
        let value: f32 = StandardNormal.sample(&mut rng);
        value
    });
    let ascent = Ascent { steps: settings.steps, step_size: settings.step_size };
    let mut ascents = Vec::with_capacity(settings.ascents());
    for &layer in &settings.layers {
        for &channel in &settings.filters {
            let filter = Filter { layer, channel };
            ascents.push((filter, network.sees_px(layer), network.ascend(filter, &start, ascent)?));
            each();
        }
    }
    Ok(Study { start, ascents })
}

impl Study {
    /// The activations that were reached: means of a filter's answer over the image.
    pub fn table(&self) -> Table {
        let mut table = Table::new(
            "Mean answer of single filters to noise, and to the image that gradient ascent made of it.",
            &[
                ("layer", 0),
                ("filter", 0),
                ("sees (px)", 0),
                ("at the start", 4),
                ("reached", 4),
                ("steps", 0),
            ],
        );
        for (filter, sees_px, ascended) in &self.ascents {
            let at = |activation: Option<&f32>| activation.map_or(f64::NAN, |&value| f64::from(value));
            table.push(vec![
                filter.layer.into(),
                filter.channel.into(),
                (*sees_px).into(),
                at(ascended.activations.first()).into(),
                at(ascended.activations.last()).into(),
                ascended.activations.len().saturating_sub(1).into(),
            ]);
        }
        table
    }

    /// Writes `filters.png`: the noise, and a row of images for each layer.
    ///
    /// # Errors
    /// When the picture cannot be drawn or written.
    pub fn draw(&self, dir: &Path) -> Result<PathBuf, EvaluateError> {
        let start = (String::new(), self.start.clone());
        let mut rows = vec![ImageRow { name: "start".to_owned(), images: vec![start] }];
        for of_layer in self.ascents.chunk_by(|(a, ..), (b, ..)| a.layer == b.layer) {
            let name = of_layer
                .first()
                .map_or_else(String::new, |(filter, ..)| format!("convolution {}", filter.layer));
            let images = of_layer
                .iter()
                .map(|(filter, _, ascended)| (format!("filter {}", filter.channel), ascended.image.clone()));
            rows.push(ImageRow { name, images: images.collect() });
        }
        Ok(write_montage(dir, "filters", &rows, grey)?)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::networks::{Architecture, DcnnConfig, DeviceChoice, HeadKind, Padding, write_untrained};

    /// Random weights, windows of 30 px.
    pub fn small_network(folder: &Path) -> LayeredDcnn {
        let config =
            DcnnConfig { padding: Padding::Valid, head: HeadKind::Linear, window_px: 30, outputs: 7 };
        write_untrained(folder, Architecture::Dcnn(config), 3).unwrap();
        LayeredDcnn::load(folder, DeviceChoice::Cpu).unwrap()
    }

    #[test]
    fn every_filter_gets_its_own_image_from_the_same_noise() {
        let folder = tempfile::tempdir().unwrap();
        let network = small_network(folder.path());
        let settings = FiltersSettings { layers: vec![1, 2], steps: 4, ..FiltersSettings::default().quick() };
        settings.validate("").unwrap();
        let mut calls = 0;
        let study = study(&network, &settings, || calls += 1).unwrap();
        assert_eq!((calls, study.ascents.len()), (6, settings.ascents()));
        let table = study.table();
        assert_eq!(table.numbers("layer"), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(table.numbers("filter"), [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]);
        for (start, reached) in table.numbers("at the start").iter().zip(table.numbers("reached")) {
            assert!(reached > *start, "{start} {reached}");
        }
        assert_ne!(study.ascents[0].2.image, study.ascents[1].2.image);
        let again = super::study(&network, &settings, || ()).unwrap();
        assert_eq!(again.start, study.start);
        assert!(study.draw(folder.path()).unwrap().exists());
    }
}
