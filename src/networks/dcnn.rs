//! The sliding-window regressor (Nelson et al., "Deep learning polarization distributions in ferroelectrics from STEM
//! data", Methods): 5 convolutions of 32 filters, 2 of 64 and a 2 × 2 max-pool, 2 of 128; LeakyReLU; batch
//! normalisation and dropout towards the end; a fully connected head on 80 × 80 windows.

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
/// Pooling between the second and the third block; window strides must be multiples of it.
pub(crate) const POOLING: usize = 2;
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

/// What defines a [`Dcnn`] before its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DcnnConfig {
    pub padding: Padding,
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

    /// A network with He-initialised trunk and a head of zeros (a head of ~10⁵ inputs diverges from anything else).
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
                    let config = Conv2dConfig::new([channels, out], [3, 3])
                        .with_padding(padding.clone())
                        .with_initializer(Initializer::KaimingNormal {
                            gain: 2f64.sqrt(),
                            fan_out_only: false,
                        });
                    channels = out;
                    config.init(device)
                })
                .collect()
        });
        let kernel = self.window_features();
        Dcnn {
            block1,
            block2,
            pool: MaxPool2dConfig::new([POOLING, POOLING]).with_strides([POOLING, POOLING]).init(),
            block3,
            norm: BatchNormConfig::new(FEATURE_CHANNELS).init(device),
            dropout: DropoutConfig::new(0.2).init(),
            head: Conv2dConfig::new([FEATURE_CHANNELS, self.outputs], [kernel, kernel])
                .with_initializer(Initializer::Zeros)
                .init(device),
        }
    }
}

/// See the module's documentation. Made by [`DcnnConfig::init`].
#[derive(Module, Debug)]
pub struct Dcnn {
    block1: Vec<Conv2d>,
    block2: Vec<Conv2d>,
    pool: MaxPool2d,
    block3: Vec<Conv2d>,
    norm: BatchNorm,
    dropout: Dropout,
    head: Conv2d,
}

impl Dcnn {
    /// The shared feature map.
    ///
    /// # Shapes
    /// - `images`: `[batch, 1, row, col]`, rows and columns even
    /// - result: `[batch, 128, row / 2 - 11, col / 2 - 11]` without padding, `[batch, 128, row / 2, col / 2]` with
    pub fn features(&self, images: Tensor<4>) -> Tensor<4> {
        let convolve = |x: Tensor<4>, block: &[Conv2d]| {
            block.iter().fold(x, |x, layer| leaky_relu(layer.forward(x), LEAKY_SLOPE))
        };
        let x = convolve(images, &self.block1);
        let x = self.pool.forward(convolve(x, &self.block2));
        self.norm.forward(convolve(x, &self.block3))
    }

    /// The head on every window of a feature map made without padding.
    ///
    /// # Shapes
    /// - `features`: of [`Self::features`]
    /// - `stride_px`: distance of the windows in model pixels, a multiple of the pooling
    /// - result: `[batch, output, window row, window col]`
    pub fn head_dense(&self, features: Tensor<4>, stride_px: usize) -> Tensor<4> {
        let x = self.dropout.forward(features);
        dense_head(x, self.head.weight.val(), self.bias(), stride_px / POOLING)
    }

    /// The whole network on separate windows.
    ///
    /// # Shapes
    /// - `windows`: `[batch, 1, window, window]`
    /// - result: `([batch, output], features [batch, 128, f, f])`
    pub fn forward_windows(&self, windows: Tensor<4>) -> (Tensor<2>, Tensor<4>) {
        let features = self.features(windows);
        let [batch, channels, rows, cols] = features.dims();
        let [outputs, ..] = self.head.weight.dims();
        let inputs = channels * rows * cols;
        let weight = self.head.weight.val().reshape([outputs, inputs]).transpose();
        let out = self.dropout.forward(features.clone()).reshape([batch, inputs]).matmul(weight);
        (out + self.bias().unsqueeze(), features)
    }

    fn bias(&self) -> Tensor<1> {
        let [outputs, ..] = self.head.weight.dims();
        match &self.head.bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([outputs], &self.head.weight.device()),
        }
    }
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
                let config = DcnnConfig { padding, window_px, outputs: 7 };
                let windows = Tensor::ones([1, 1, window_px, window_px], &device);
                let (values, features) = config.init(&device).forward_windows(windows);
                let side = config.window_features();
                assert_eq!(features.dims(), [1, FEATURE_CHANNELS, side, side], "{config:?}");
                assert_eq!(values.dims(), [1, 7]);
            }
        }
        let paper = |padding| DcnnConfig { padding, window_px: 80, outputs: 7 }.window_features();
        assert_eq!((paper(Padding::Valid), paper(Padding::Same)), (29, 40));
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
