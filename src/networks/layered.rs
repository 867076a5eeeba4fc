//! A DCNN layer by layer: what its convolutions answer to an image, and the image that a filter answers to most (Nelson et al.,
//! figures 5 and 6).
//!
//! Layers are the convolutions in the order of evaluation, counted from 1: 1 to 9 are the papers' trunk, with a pooling between the
//! seventh and the eighth, and those behind it a deep head's. An answer is what a convolution gives behind its LeakyReLU.

use super::LEAKY_SLOPE;
use super::dcnn::{Dcnn, Layer, POOLING};
use super::device::DeviceChoice;
use super::engine::{NetworkError, download};
use super::manifest::{InputSpec, LoadedModel};
use burn::module::Module;
use burn::nn::pool::MaxPool2dConfig;
use burn::tensor::{Device, Tensor, TensorData, activation::leaky_relu, s};
use ndarray::{Array2, Array3};
use std::path::Path;

/// A DCNN that can be asked for what it computes on the way.
#[derive(Debug)]
pub struct LayeredDcnn {
    network: Dcnn,
    input: InputSpec,
    device: Device,
}

/// One filter of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// From 1.
    pub layer: usize,
    /// From 0.
    pub channel: usize,
}

/// How an image is changed to raise a filter's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ascent {
    pub steps: usize,
    /// Root mean square of what a step adds to the pixels, whose standard deviation is 1.
    pub step_size: f64,
}

/// Where an ascent led.
#[derive(Debug, Clone, PartialEq)]
pub struct Ascended {
    /// `[row, col]`, of mean 0 and standard deviation 1.
    pub image: Array2<f32>,
    /// Mean of the filter's answer over the image: at the start, and after each step.
    pub activations: Vec<f32>,
}

impl LayeredDcnn {
    /// # Errors
    /// When the device is absent, or the folder holds no DCNN that matches its manifest.
    pub fn load(folder: &Path, choice: DeviceChoice) -> Result<Self, NetworkError> {
        let (device, _) = choice.open()?;
        let LoadedModel { manifest, network, .. } = LoadedModel::dcnn_without_statistics(folder, &device)?;
        Ok(Self { network, input: manifest.input, device })
    }

    /// What the network is to be fed.
    pub const fn input(&self) -> &InputSpec {
        &self.input
    }

    /// Filters of each layer.
    pub fn filters(&self) -> Vec<usize> {
        let layers = self.network.layers().into_iter();
        let filters = layers.filter_map(|layer| match layer {
            Layer::Convolution(convolution) => Some(convolution.weight.val().dims()[0]),
            Layer::Pool => None,
        });
        filters.collect()
    }

    /// Side of what a place of a layer's map sees of the image, px: 3 for the first, 24 behind the trunk.
    pub fn sees_px(&self, layer: usize) -> usize {
        let (mut sees, mut step, mut convolutions) = (1, 1, 0);
        for each in self.network.layers() {
            if convolutions == layer {
                break;
            }
            match each {
                Layer::Convolution(_) => {
                    sees += 2 * step;
                    convolutions += 1;
                }
                Layer::Pool => {
                    sees += (POOLING - 1) * step;
                    step *= POOLING;
                }
            }
        }
        sees
    }

    /// The answers of a layer's filters to a normalised image.
    ///
    /// # Shapes
    /// `[row, col]` → `[channel, row, col]`, smaller by what convolutions without padding take.
    ///
    /// # Errors
    /// When there is no such layer, the image is smaller than what it sees, or the device fails.
    pub fn feature_maps(&self, image: &Array2<f32>, layer: usize) -> Result<Array3<f32>, NetworkError> {
        self.check(Filter { layer, channel: 0 }, image)?;
        let map = through(&self.network, upload(image, &self.device), layer);
        let [_, channels, rows, cols] = map.dims();
        let values = download(map.reshape([channels * rows * cols]))?;
        Array3::from_shape_vec((channels, rows, cols), values)
            .map_err(|error| NetworkError::Execution(error.to_string()))
    }

    /// Climbs from `start` along the gradient of the filter's mean answer. The image is brought to mean 0 and standard deviation 1
    /// before every step, as normalised frames are: else its contrast would grow and not its likeness to what the filter looks for.
    ///
    /// # Errors
    /// As [`Self::feature_maps`], for a filter that there is not too.
    pub fn ascend(
        &self,
        filter: Filter,
        start: &Array2<f32>,
        ascent: Ascent,
    ) -> Result<Ascended, NetworkError> {
        self.check(filter, start)?;
        let device = self.device.clone().autodiff();
        let network = self.network.clone().train();
        let mut image = standardised(start.clone());
        let mut activations = Vec::with_capacity(ascent.steps + 1);
        loop {
            let pixels = upload(&image, &device).require_grad();
            let channel = filter.channel..filter.channel + 1;
            let answer =
                through(&network, pixels.clone(), filter.layer).slice(s![.., channel, .., ..]).mean();
            let mut gradients = answer.backward();
            activations.extend(download(answer.inner())?);
            let Some(gradient) = pixels.grad_remove(&mut gradients) else { break };
            let gradient = download(gradient.reshape([image.len()]))?;
            let squares: f64 = gradient.iter().map(|&value| f64::from(value).powi(2)).sum();
            let rms = (squares / gradient.len().max(1) as f64).sqrt();
            // A filter that answers to nothing stays where it is.
            if activations.len() > ascent.steps || rms.is_nan() || rms <= 0.0 {
                break;
            }
            let scale = (ascent.step_size / rms) as f32;
            image.iter_mut().zip(gradient).for_each(|(pixel, slope)| *pixel += scale * slope);
            image = standardised(image);
        }
        Ok(Ascended { image, activations })
    }

    fn check(&self, Filter { layer, channel }: Filter, image: &Array2<f32>) -> Result<(), NetworkError> {
        let filters = self.filters();
        let found = layer.checked_sub(1).and_then(|index| filters.get(index));
        let Some(&count) = found else {
            return Err(NetworkError::Layer { layer, layers: filters.len() });
        };
        if channel >= count {
            return Err(NetworkError::Filter { layer, channel, filters: count });
        }
        let ((rows, cols), window) = (image.dim(), self.sees_px(layer));
        if rows < window || cols < window {
            return Err(NetworkError::TooSmall { rows, cols, window });
        }
        Ok(())
    }
}

/// The map behind the convolution of that number.
fn through(network: &Dcnn, image: Tensor<4>, layer: usize) -> Tensor<4> {
    let pool = MaxPool2dConfig::new([POOLING; 2]).with_strides([POOLING; 2]).init();
    let (mut map, mut convolutions) = (image, 0);
    for each in network.layers() {
        if convolutions == layer {
            break;
        }
        map = match each {
            Layer::Convolution(convolution) => {
                convolutions += 1;
                leaky_relu(convolution.forward(map), LEAKY_SLOPE)
            }
            Layer::Pool => pool.forward(map),
        };
    }
    map
}

fn upload(image: &Array2<f32>, device: &Device) -> Tensor<4> {
    let (rows, cols) = image.dim();
    Tensor::from_data(
        TensorData::new(image.iter().copied().collect::<Vec<f32>>(), [1, 1, rows, cols]),
        device,
    )
}

/// With mean 0 and standard deviation 1; all 0 where every pixel is the same.
fn standardised(mut image: Array2<f32>) -> Array2<f32> {
    let mean = image.mean().unwrap_or(0.0);
    image.mapv_inplace(|value| value - mean);
    let variance = image.iter().map(|value| value * value).sum::<f32>() / image.len().max(1) as f32;
    if variance > 0.0 {
        image.mapv_inplace(|value| value / variance.sqrt());
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{Architecture, DcnnConfig, HeadKind, Padding, write_untrained};
    use rand::SeedableRng as _;
    use rand_distr::{Distribution as _, StandardNormal};

    fn network(head: HeadKind, padding: Padding) -> LayeredDcnn {
        let folder = tempfile::tempdir().unwrap();
        let config = DcnnConfig { padding, head, window_px: 80, outputs: 7 };
        write_untrained(folder.path(), Architecture::Dcnn(config), 3).unwrap();
        LayeredDcnn::load(folder.path(), DeviceChoice::Cpu).unwrap()
    }

    fn noise(side: usize) -> Array2<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        Array2::from_shape_simple_fn((side, side), || StandardNormal.sample(&mut rng))
    }

    #[test]
    fn the_last_layers_map_is_what_the_whole_network_gives() {
        let image = noise(84);
        for (head, padding, layers) in
            [(HeadKind::Deep, Padding::Valid, 14), (HeadKind::Linear, Padding::Same, 9)]
        {
            let layered = network(head, padding);
            let filters = layered.filters();
            assert_eq!((filters.len(), filters[0], filters[8]), (layers, 32, 128));
            let found = layered.feature_maps(&image, layers).unwrap();
            let expected = layered.network.context(upload(&image, &layered.device));
            let shape: [usize; 3] = found.dim().into();
            assert_eq!(expected.dims()[1..], shape);
            let expected: Vec<f32> = expected.into_data().try_into_vec().unwrap();
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + b.abs())));
        }
    }

    #[test]
    fn a_first_map_is_the_convolution_of_the_image() {
        let layered = network(HeadKind::Linear, Padding::Valid);
        let image = noise(12);
        let map = layered.feature_maps(&image, 1).unwrap();
        assert_eq!(map.dim(), (32, 10, 10));
        let layers = layered.network.layers();
        let Layer::Convolution(first) = layers[0] else { panic!("{:?}", layers[0]) };
        let weights: Vec<f32> = first.weight.val().into_data().try_into_vec().unwrap();
        let biases: Vec<f32> = first.bias.as_ref().unwrap().val().into_data().try_into_vec().unwrap();
        for (channel, row, col) in [(0, 0, 0), (5, 3, 7), (31, 9, 2)] {
            let sum: f32 =
                (0..9).map(|k| weights[channel * 9 + k] * image[[row + k / 3, col + k % 3]]).sum::<f32>()
                    + biases[channel];
            let expected = if sum < 0.0 { sum * LEAKY_SLOPE as f32 } else { sum };
            assert!((map[[channel, row, col]] - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn layers_see_what_the_convolutions_and_poolings_say() {
        let layered = network(HeadKind::Deep, Padding::Valid);
        // 3 x 3 each; behind the pooling twice as far a step.
        assert_eq!([1, 2, 7, 8, 9, 14].map(|layer| layered.sees_px(layer)), [3, 5, 15, 20, 24, 66]);
        let message = |filter, side| {
            layered.ascend(filter, &noise(side), Ascent { steps: 1, step_size: 0.1 }).unwrap_err().to_string()
        };
        assert!(message(Filter { layer: 15, channel: 0 }, 80).contains("15"));
        assert!(message(Filter { layer: 1, channel: 32 }, 80).contains("32"));
        assert!(message(Filter { layer: 9, channel: 0 }, 20).contains("24"));
    }

    #[test]
    fn an_ascent_raises_the_answer_and_keeps_the_contrast() {
        let layered = network(HeadKind::Linear, Padding::Valid);
        for filter in [Filter { layer: 1, channel: 3 }, Filter { layer: 4, channel: 0 }] {
            let Ascended { image, activations } =
                layered.ascend(filter, &noise(24), Ascent { steps: 8, step_size: 0.1 }).unwrap();
            assert_eq!(activations.len(), 9);
            assert!(
                activations[8] > activations[0] + 0.05 * activations[0].abs(),
                "{filter:?}: {activations:?}"
            );
            let variance = image.iter().map(|value| value * value).sum::<f32>() / image.len() as f32;
            assert!((variance - 1.0).abs() < 1e-4 && image.mean().unwrap().abs() < 1e-5);
            // What is reported is what the image makes the network answer.
            let map = layered.feature_maps(&image, filter.layer).unwrap();
            let mean = map.index_axis(ndarray::Axis(0), filter.channel).mean().unwrap();
            assert!((mean - activations[8]).abs() < 1e-4 * (1.0 + mean.abs()));
        }
    }
}
