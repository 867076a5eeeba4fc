//! The sliding-window regressor (Nelson et al., "Deep learning polarization distributions in ferroelectrics from STEM
//! data", Methods): 5 convolutions of 32 filters, 2 of 64 and a 2 × 2 max-pool, 2 of 128; LeakyReLU; batch
//! normalisation and dropout towards the end; a fully connected head on 80 × 80 windows.
//!
//! A feature of the trunk sees 24 px, less than a unit cell; where in its window a cell lies is only to be seen in several
//! features together, and a head that is linear in them cannot combine them. [`HeadKind::Deep`] therefore puts five more
//! convolutions on a map pooled once more, and a hidden layer, between trunk and outputs. A place of that map sees 66 px, more
//! than two cells; the hidden layer reads the 4 × 4 of them that are left of a window.

use super::LEAKY_SLOPE;
use super::dense::dense_head;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Initializer, PaddingConfig2d};
use burn::tensor::{Device, Tensor, activation::leaky_relu, module::avg_pool2d, ops::AvgPoolOptions, s};
use serde::{Deserialize, Serialize};

/// Filters of each convolution, block by block.
pub(super) const BLOCKS: [&[usize]; 3] = [&[32; 5], &[64; 2], &[128; 2]];
/// Convolutions before the feature map.
pub(super) const TRUNK_CONVOLUTIONS: usize = BLOCKS[0].len() + BLOCKS[1].len() + BLOCKS[2].len();
/// Pooling between the second and the third block.
pub(crate) const POOLING: usize = 2;
/// Convolutions of the deep head, behind a second pooling.
const CONTEXT: usize = 5;
/// Neurons of the deep head's hidden layer.
const HIDDEN: usize = 256;
/// Added to the variance where convolutions are normalised.
pub(crate) const NORMALISATION_EPSILON: f64 = 1e-5;
/// Channels of the feature map under the head.
pub(crate) const FEATURE_CHANNELS: usize = 128;

/// How the convolutions treat their borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// No padding: a window's features do not depend on what lies around it, so that the trunk can be shared.
    Valid,
    /// Zero padding of one pixel (AtomAI): exact only window by window.
    Same,
}

/// What turns the features of a window into its values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// The paper's: fully connected, behind batch normalisation and dropout.
    #[default]
    Linear,
    /// 2 × 2 max-pool, five convolutions of 128 filters without padding, a hidden layer of 256 on the 4 × 4 places that are
    /// left, the outputs; no dropout, since simulated frames do not run out.
    Deep,
}

/// What defines a [`Dcnn`] before its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DcnnConfig {
    pub padding: Padding,
    #[serde(default)]
    pub head: HeadKind,
    /// Side of a window, model pixels.
    pub window_px: usize,
    /// Number of values regressed per window.
    pub outputs: usize,
}

impl DcnnConfig {
    /// Side of the feature map of one window: for 80 px, 29 without padding and 40 with.
    pub const fn window_features(&self) -> usize {
        match self.padding {
            // Seven 3 x 3 convolutions before the pooling take 14 px, two behind it take 4 features.
            Padding::Valid => ((self.window_px.saturating_sub(14)) / POOLING).saturating_sub(4),
            Padding::Same => self.window_px / POOLING,
        }
    }

    /// Model pixels from one value of the map under the head to the next; window strides must be multiples of it.
    pub const fn pooling(&self) -> usize {
        match self.head {
            HeadKind::Linear => POOLING,
            HeadKind::Deep => 2 * POOLING,
        }
    }

    /// Where the first value of [`Dcnn::context`] looks, and the distance to the next, model pixels.
    pub(crate) const fn context_grid(&self) -> [f64; 2] {
        // Each 3 x 3 convolution moves the first centre by one value of its map, each 2 x 2 pooling by half a value.
        let trunk = 7.0 + 0.5 + 2.0 * POOLING as f64;
        match self.head {
            HeadKind::Linear => [trunk, POOLING as f64],
            HeadKind::Deep => [trunk + 1.0 + (2 * POOLING * CONTEXT) as f64, (2 * POOLING) as f64],
        }
    }

    /// Side of one window's map under the head: 4 for 80 px and the deep head; 0 where the window is too small for it.
    pub const fn head_features(&self) -> usize {
        match self.head {
            HeadKind::Linear => self.window_features(),
            HeadKind::Deep => (self.window_features() / 2).saturating_sub(2 * CONTEXT),
        }
    }

    /// A network with He-initialised convolutions and outputs of zeros (a linear head of ~10⁵ inputs diverges from
    /// anything else).
    pub fn init(&self, device: &Device) -> Dcnn {
        let padding = match self.padding {
            Padding::Valid => PaddingConfig2d::Valid,
            Padding::Same => PaddingConfig2d::Explicit(1, 1, 1, 1),
        };
        let mut channels = 1;
        let [block1, block2, block3] = BLOCKS.map(|filters| {
            filters
                .iter()
                .map(|&out| {
                    let layer = convolution([channels, out], 3).with_padding(padding.clone()).init(device);
                    channels = out;
                    layer
                })
                .collect()
        });
        let kernel = self.head_features();
        let (norm, dropout, deep, [inputs, side]) = match self.head {
            HeadKind::Linear => {
                let norm = BatchNormConfig::new(FEATURE_CHANNELS).init(device);
                (Some(norm), DropoutConfig::new(0.2).init(), None, [FEATURE_CHANNELS, kernel])
            }
            HeadKind::Deep => {
                let layer = |_| convolution([FEATURE_CHANNELS; 2], 3).init(device);
                let context = (0..CONTEXT).map(layer).collect();
                let hidden = convolution([FEATURE_CHANNELS, HIDDEN], kernel).init(device);
                (None, DropoutConfig::new(0.0).init(), Some(DeepHead { context, hidden }), [HIDDEN, 1])
            }
        };
        Dcnn {
            block1,
            block2,
            pool: MaxPool2dConfig::new([POOLING, POOLING]).with_strides([POOLING, POOLING]).init(),
            block3,
            norm,
            dropout,
            deep,
            head: Conv2dConfig::new([inputs, self.outputs], [side, side])
                .with_initializer(Initializer::Zeros)
                .init(device),
        }
    }
}

fn convolution(channels: [usize; 2], kernel: usize) -> Conv2dConfig {
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_initializer(Initializer::KaimingNormal { gain: 2f64.sqrt(), fan_out_only: false })
}

/// See the module's documentation. Made by [`DcnnConfig::init`].
#[derive(Module, Debug)]
pub struct Dcnn {
    block1: Vec<Conv2d>,
    block2: Vec<Conv2d>,
    pool: MaxPool2d,
    block3: Vec<Conv2d>,
    norm: Option<BatchNorm>,
    dropout: Dropout,
    deep: Option<DeepHead>,
    head: Conv2d,
}

/// What [`HeadKind::Deep`] puts before the outputs.
#[derive(Module, Debug)]
struct DeepHead {
    context: Vec<Conv2d>,
    hidden: Conv2d,
}

impl DeepHead {
    /// The hidden layer's output before its bend, from the map under it; distance of the windows in model pixels.
    fn hidden(&self, map: Tensor<4>, stride_px: usize) -> Tensor<4> {
        fully_connected(map, &self.hidden, stride_px / (2 * POOLING))
    }
}

/// One layer in front of the fully connected ones, as [`Dcnn::layers`] lists them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layer<'a> {
    /// 3 × 3, LeakyReLU behind it.
    Convolution(&'a Conv2d),
    /// 2 × 2 max-pooling.
    Pool,
}

impl Dcnn {
    /// Every layer in the order of evaluation, from the image to the map under the fully connected layers. A linear
    /// head's normalisation is not among them; it belongs to [`Self::fully_connected`].
    pub(crate) fn layers(&self) -> Vec<Layer<'_>> {
        let mut layers: Vec<Layer> =
            [&self.block1, &self.block2].into_iter().flatten().map(Layer::Convolution).collect();
        layers.push(Layer::Pool);
        layers.extend(self.block3.iter().map(Layer::Convolution));
        if let Some(deep) = &self.deep {
            layers.push(Layer::Pool);
            layers.extend(deep.context.iter().map(Layer::Convolution));
        }
        layers
    }

    /// The map behind [`Self::layers`].
    ///
    /// # Shapes
    /// - `images`: of [`Self::features`]
    /// - result: `[batch, 128, row, col]`; for a deep head, 4 px from one to the next
    pub(crate) fn context(&self, images: Tensor<4>) -> Tensor<4> {
        self.layers().into_iter().fold(images, |x, layer| match layer {
            Layer::Convolution(convolution) => leaky_relu(convolution.forward(x), LEAKY_SLOPE),
            Layer::Pool => self.pool.forward(x),
        })
    }

    /// As [`Self::folded`], for the hidden layer: over the windows of `map`, which comes from the folded network.
    pub(crate) fn with_hidden_folded(mut self, map: Tensor<4>, stride_px: usize) -> Self {
        let Some(deep) = &mut self.deep else { return self };
        let [mean, factor] = moments(deep.hidden(map, stride_px));
        let layer = &mut deep.hidden;
        layer.weight = layer.weight.clone().map(|weight| weight * factor.clone().reshape([-1, 1, 1, 1]));
        let [mean, factor] = [mean, factor].map(|each| each.reshape([-1]));
        layer.bias = layer.bias.take().map(|own| own.map(|bias| (bias.clone() - mean) * factor + bias));
        self
    }

    /// The weights of every convolution of [`Self::layers`] times a factor, and a bias in place of its own, `[output]` each.
    pub(crate) fn folded(mut self, layers: &[[Vec<f32>; 2]]) -> Self {
        for (layer, [factors, bias]) in self.convolutions_mut().into_iter().zip(layers) {
            let tensor = |values: &[f32]| Tensor::<1>::from_floats(values, &layer.weight.device());
            let (factors, bias) = (tensor(factors).reshape([-1, 1, 1, 1]), tensor(bias));
            layer.weight = layer.weight.clone().map(|weight| weight * factors);
            layer.bias = layer.bias.take().map(|own| own.map(|_| bias));
        }
        self
    }

    /// Every convolution in the order of evaluation: those of [`Self::layers`], then [`Self::connected`].
    pub(crate) fn convolutions(&self) -> Vec<&Conv2d> {
        let layers = self.layers().into_iter().filter_map(|layer| match layer {
            Layer::Convolution(convolution) => Some(convolution),
            Layer::Pool => None,
        });
        layers.chain(self.connected()).collect()
    }

    /// As [`Self::convolutions`].
    pub(crate) fn convolutions_mut(&mut self) -> Vec<&mut Conv2d> {
        let trunk = [&mut self.block1, &mut self.block2, &mut self.block3].into_iter().flatten();
        let deep = self.deep.iter_mut().flat_map(|deep| deep.context.iter_mut().chain([&mut deep.hidden]));
        trunk.chain(deep).chain([&mut self.head]).collect()
    }

    /// The fully connected layers behind [`Self::layers`], LeakyReLU between them.
    pub(super) fn connected(&self) -> Vec<&Conv2d> {
        self.deep.iter().map(|deep| &deep.hidden).chain([&self.head]).collect()
    }

    /// Other weights than the zeros that training starts from.
    #[cfg(test)]
    pub(super) fn randomise_outputs(&mut self, weights: Tensor<4>) {
        self.head.weight = burn::module::Param::from_tensor(weights);
    }

    /// What normalises the feature map.
    pub(super) const fn normalisation(&self) -> Option<&BatchNorm> {
        self.norm.as_ref()
    }

    /// The rest of the network behind [`Self::layers`].
    ///
    /// # Shapes
    /// - `map`: `[batch, 128, row, col]`
    /// - `stride_px`, result: as of [`Self::head_dense`]
    pub(crate) fn fully_connected(&self, map: Tensor<4>, stride_px: usize) -> Tensor<4> {
        match &self.deep {
            Some(_) => self.outputs(map, stride_px),
            None => self.outputs(self.dropout.forward(self.normalised(map)), stride_px),
        }
    }

    /// The shared feature map.
    ///
    /// # Shapes
    /// - `images`: `[batch, 1, row, col]`, rows and columns even
    /// - result: `[batch, 128, row / 2 - 11, col / 2 - 11]` without padding, `[batch, 128, row / 2, col / 2]` with
    pub fn features(&self, images: Tensor<4>) -> Tensor<4> {
        let x = convolve(images, &self.block1);
        self.normalised(convolve(self.pool.forward(convolve(x, &self.block2)), &self.block3))
    }

    fn normalised(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    /// The head on every window of a feature map made without padding.
    ///
    /// # Shapes
    /// - `features`: of [`Self::features`]
    /// - `stride_px`: distance of the windows in model pixels, a multiple of [`DcnnConfig::pooling`]
    /// - result: `[batch, output, window row, window col]`
    pub fn head_dense(&self, features: Tensor<4>, stride_px: usize) -> Tensor<4> {
        let x = self.dropout.forward(features);
        let map = match &self.deep {
            Some(deep) => convolve(self.pool.forward(x), &deep.context),
            None => x,
        };
        self.outputs(map, stride_px)
    }

    /// The fully connected layers alone.
    fn outputs(&self, map: Tensor<4>, stride_px: usize) -> Tensor<4> {
        let Some(deep) = &self.deep else { return fully_connected(map, &self.head, stride_px / POOLING) };
        let hidden = deep.hidden(map, stride_px);
        fully_connected(leaky_relu(hidden, LEAKY_SLOPE), &self.head, 1)
    }

    /// The whole network on separate windows.
    ///
    /// # Shapes
    /// - `windows`: `[batch, 1, window, window]`
    /// - result: `([batch, output], features [batch, 128, f, f])`
    pub fn forward_windows(&self, windows: Tensor<4>) -> (Tensor<2>, Tensor<4>) {
        let features = self.features(windows);
        // One window a map, so that any stride will do.
        let out = self.head_dense(features.clone(), 2 * POOLING);
        let [batch, outputs, ..] = out.dims();
        (out.reshape([batch, outputs]), features)
    }
}

/// Mean of each channel over batch and places, and the inverse of its standard deviation, `[1, channel, 1, 1]`.
fn moments(x: Tensor<4>) -> [Tensor<4>; 2] {
    let over_all = |x: Tensor<4>| x.mean_dim(0).mean_dim(2).mean_dim(3);
    let mean = over_all(x.clone());
    let centred = x - mean.clone();
    let variance = over_all(centred.clone() * centred);
    [mean, (variance + NORMALISATION_EPSILON).sqrt().recip()]
}

fn convolve(x: Tensor<4>, layers: &[Conv2d]) -> Tensor<4> {
    layers.iter().fold(x, |x, layer| leaky_relu(layer.forward(x), LEAKY_SLOPE))
}

/// A fully connected layer, kept as a convolution, on every window of a map; `stride` in values of the map.
fn fully_connected(x: Tensor<4>, layer: &Conv2d, stride: usize) -> Tensor<4> {
    let [outputs, ..] = layer.weight.dims();
    let bias = match &layer.bias {
        Some(bias) => bias.val(),
        None => Tensor::zeros([outputs], &layer.weight.device()),
    };
    dense_head(x, layer.weight.val(), bias, stride)
}

/// Side, in features, of the middle of a window over which its features are averaged: about one unit cell at 15 pm/px.
pub(crate) const SITE_FEATURES: usize = 13;

/// Mean features of the middle of every window: what the out-of-distribution test looks at.
///
/// # Shapes
/// - `features`: `[batch, channel, row, col]`
/// - `window`: side of a window in features, `stride`: their distance in features
/// - result: `[batch, channel, window row, window col]`
pub(crate) fn site_features(features: Tensor<4>, window: usize, stride: usize) -> Tensor<4> {
    let [_, _, rows, cols] = features.dims();
    let margin = window.saturating_sub(SITE_FEATURES) / 2;
    let side = window.min(SITE_FEATURES);
    // The last window's middle ends here; features behind it belong to no window.
    let end = |size: usize| (size - window) / stride * stride + margin + side;
    let middle = features.slice(s![.., .., margin..end(rows), margin..end(cols)]);
    avg_pool2d(
        middle,
        AvgPoolOptions {
            kernel_size: [side, side],
            stride: [stride, stride],
            padding: [(0, 0), (0, 0)],
            count_include_pad: false,
            ceil_mode: false,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, TensorData};

    #[test]
    fn the_window_formula_is_the_feature_maps_side() {
        let device = Device::flex();
        for padding in [Padding::Valid, Padding::Same] {
            for window_px in [28, 30, 46, 80] {
                let config = DcnnConfig { padding, head: HeadKind::Linear, window_px, outputs: 7 };
                let windows = Tensor::ones([1, 1, window_px, window_px], &device);
                let (values, features) = config.init(&device).forward_windows(windows);
                let side = config.window_features();
                assert_eq!(features.dims(), [1, FEATURE_CHANNELS, side, side], "{config:?}");
                assert_eq!(values.dims(), [1, 7]);
            }
        }
        let paper = |padding, head| DcnnConfig { padding, head, window_px: 80, outputs: 7 };
        let [valid, same] = [Padding::Valid, Padding::Same].map(|padding| paper(padding, HeadKind::Linear));
        assert_eq!((valid.window_features(), same.window_features()), (29, 40));
        let deep = paper(Padding::Valid, HeadKind::Deep);
        // 29 features, pooled to 14, five convolutions take 10.
        assert_eq!((deep.head_features(), deep.pooling()), (4, 4));
        let (values, _) = deep.init(&device).forward_windows(Tensor::ones([2, 1, 80, 80], &device));
        assert_eq!(values.dims(), [2, 7]);
    }

    #[test]
    fn site_features_are_means_over_the_middle_of_each_window() {
        let device = Device::flex();
        for (window, stride, height, width) in
            [(29, 4, 38, 33), (9, 1, 12, 11), (40, 2, 40, 45), (13, 5, 29, 13)]
        {
            let map = Tensor::<4>::random([2, 3, height, width], Distribution::Uniform(-1.0, 1.0), &device);
            let values: Vec<f32> = map.to_data().try_into_vec().unwrap();
            let (rows, cols) = ((height - window) / stride + 1, (width - window) / stride + 1);
            let (side, margin) = (window.min(SITE_FEATURES), window.saturating_sub(SITE_FEATURES) / 2);
            let mut expected = Vec::new();
            for plane in values.chunks(height * width) {
                for (top, left) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i * stride, j * stride))) {
                    let middle = (0..side * side)
                        .map(|k| plane[(top + margin + k / side) * width + left + margin + k % side]);
                    expected.push(middle.sum::<f32>() / (side * side) as f32);
                }
            }
            let expected = Tensor::<4>::from_data(TensorData::new(expected, [2, 3, rows, cols]), &device);
            let difference: f32 = (site_features(map, window, stride) - expected).abs().max().into_scalar();
            assert!(difference < 1e-5, "window {window}, stride {stride}: {difference}");
        }
    }
}
