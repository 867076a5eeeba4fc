//! The sliding-window regressor (Nelson et al., "Deep learning polarization distributions in ferroelectrics from STEM
//! data", Methods): 5 convolutions of 32 filters, 2 of 64 and a 2 × 2 max-pool, 2 of 128; LeakyReLU; batch
//! normalisation and dropout towards the end; a fully connected head on 80 × 80 windows.
//!
//! A feature of the trunk sees 24 px, less than a unit cell; where in its window a cell lies is only to be seen in several
//! features together, and a head that is linear in them cannot combine them. [`HeadKind::Deep`] therefore puts five more
//! convolutions on a map pooled once more, and a hidden layer, between trunk and outputs. A place of that map sees 66 px, more
//! than two cells; the hidden layer reads the 4 × 4 of them that are left of a window.

mod config;
mod fold;
mod head;
mod site;

pub use config::{DcnnConfig, HeadKind, Padding};
pub(super) use site::{SITE_FEATURES, site_features};

use super::LEAKY_SLOPE;
use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::pool::MaxPool2d;
use burn::nn::{BatchNorm, Dropout};
use burn::tensor::{Tensor, activation::leaky_relu};
use head::DeepHead;

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

    /// What normalises the feature map.
    pub(super) const fn normalisation(&self) -> Option<&BatchNorm> {
        self.norm.as_ref()
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

fn convolve(x: Tensor<4>, layers: &[Conv2d]) -> Tensor<4> {
    layers.iter().fold(x, |x, layer| leaky_relu(layer.forward(x), LEAKY_SLOPE))
}
