//! The column finder of FerroNet: AtomAI's U-net with a dilated bottleneck, one probability per pixel and class.

use super::LEAKY_SLOPE;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::activation::{leaky_relu, softmax};
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// Inputs must be a multiple of this (three poolings).
pub(crate) const MULTIPLE_OF: usize = 8;
/// Dilation (and padding) of the bottleneck's convolutions.
pub(super) const DILATIONS: [usize; 3] = [2, 4, 6];

/// What defines an [`Fcnn`] before its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FcnnConfig {
    /// Filters of the first block; deeper blocks have 2, 4 and 8 times as many. AtomAI: 16.
    pub filters: usize,
    /// Classes with the background last. Two sublattices: 3.
    pub classes: usize,
}

impl FcnnConfig {
    /// A network with PyTorch-like random weights.
    pub fn init(&self, device: &Device) -> Fcnn {
        let (f, f2, f4, f8) = (self.filters, 2 * self.filters, 4 * self.filters, 8 * self.filters);
        let block = |widths: &[usize]| -> Vec<ConvLayer> {
            widths.windows(2).map(|pair| ConvLayer::new([pair[0], pair[1]], 1, device)).collect()
        };
        let bottleneck = DILATIONS
            .iter()
            .zip([[f4, f8], [f8, f8], [f8, f8]])
            .map(|(&dilation, channels)| ConvLayer::new(channels, dilation, device))
            .collect();
        let pointwise = |channels| Conv2dConfig::new(channels, [1, 1]).init(device);
        Fcnn {
            down1: block(&[1, f]),
            down2: block(&[f, f2, f2]),
            down3: block(&[f2, f4, f4]),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            bottleneck,
            up3: pointwise([f8, f4]),
            merge3: block(&[f8, f4, f4]),
            up2: pointwise([f4, f2]),
            merge2: block(&[f4, f2, f2]),
            up1: pointwise([f2, f]),
            merge1: block(&[f2, f]),
            classes: pointwise([f, self.classes]),
        }
    }
}

/// Convolution, LeakyReLU, batch normalisation, in AtomAI's order.
#[derive(Module, Debug)]
pub(super) struct ConvLayer {
    pub(super) conv: Conv2d,
    pub(super) norm: BatchNorm,
}

impl ConvLayer {
    fn new(channels: [usize; 2], dilation: usize, device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new(channels, [3, 3])
                .with_dilation([dilation, dilation])
                .with_padding(PaddingConfig2d::Explicit(dilation, dilation, dilation, dilation))
                .init(device),
            norm: BatchNormConfig::new(channels[1]).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(leaky_relu(self.conv.forward(x), LEAKY_SLOPE))
    }
}

/// See the module's documentation. Made by [`FcnnConfig::init`].
#[derive(Module, Debug)]
pub struct Fcnn {
    pub(super) down1: Vec<ConvLayer>,
    pub(super) down2: Vec<ConvLayer>,
    pub(super) down3: Vec<ConvLayer>,
    pool: MaxPool2d,
    pub(super) bottleneck: Vec<ConvLayer>,
    pub(super) up3: Conv2d,
    pub(super) merge3: Vec<ConvLayer>,
    pub(super) up2: Conv2d,
    pub(super) merge2: Vec<ConvLayer>,
    pub(super) up1: Conv2d,
    pub(super) merge1: Vec<ConvLayer>,
    pub(super) classes: Conv2d,
}

impl Fcnn {
    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `images`: `[batch, 1, row, col]`, rows and columns multiples of 8
    /// - result: `[batch, class, row, col]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let run = |x: Tensor<4>, block: &[ConvLayer]| block.iter().fold(x, |x, layer| layer.forward(x));
        let skip1 = run(images, &self.down1);
        let skip2 = run(self.pool.forward(skip1.clone()), &self.down2);
        let skip3 = run(self.pool.forward(skip2.clone()), &self.down3);
        let x = self.dilated(self.pool.forward(skip3.clone()));
        let x = run(Tensor::cat(vec![skip3, upsample(x, &self.up3)], 1), &self.merge3);
        let x = run(Tensor::cat(vec![skip2, upsample(x, &self.up2)], 1), &self.merge2);
        let x = run(Tensor::cat(vec![skip1, upsample(x, &self.up1)], 1), &self.merge1);
        self.classes.forward(x)
    }

    /// Class probabilities.
    ///
    /// # Shapes
    /// As [`Self::forward`].
    pub fn probabilities(&self, images: Tensor<4>) -> Tensor<4> {
        softmax(self.forward(images), 1)
    }

    /// AtomAI's dilated block adds up what *every* child layer returned, convolution, activation and normalisation
    /// alike, each child fed with the one before.
    fn dilated(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = x;
        let mut sum: Option<Tensor<4>> = None;
        for layer in &self.bottleneck {
            let convolved = layer.conv.forward(x);
            let activated = leaky_relu(convolved.clone(), LEAKY_SLOPE);
            let normalised = layer.norm.forward(activated.clone());
            let children = convolved + activated + normalised.clone();
            sum = Some(match sum {
                Some(sum) => sum + children,
                None => children,
            });
            x = normalised;
        }
        sum.unwrap_or(x)
    }
}

/// Doubles the resolution bilinearly, then mixes channels.
fn upsample(x: Tensor<4>, mix: &Conv2d) -> Tensor<4> {
    let [_, _, rows, cols] = x.dims();
    let options = InterpolateOptions::new(InterpolateMode::Bilinear)
        .with_align_corners(false)
        .with_output_size([2 * rows, 2 * cols]);
    mix.forward(interpolate(x, options))
}
