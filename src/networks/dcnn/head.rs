//! From the map of the trunk to values: the fully connected layers, and what a deep head puts before them.

use super::{Dcnn, POOLING, convolve};
use crate::networks::LEAKY_SLOPE;
use crate::networks::dense::dense_head;
use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Tensor, activation::leaky_relu};

/// What [`HeadKind::Deep`](super::HeadKind::Deep) puts before the outputs.
#[derive(Module, Debug)]
pub(super) struct DeepHead {
    pub context: Vec<Conv2d>,
    pub hidden: Conv2d,
}

impl DeepHead {
    /// The hidden layer's output before its bend, from the map under it; distance of the windows in model pixels.
    pub fn hidden(&self, map: Tensor<4>, stride_px: usize) -> Tensor<4> {
        fully_connected(map, &self.hidden, stride_px / (2 * POOLING))
    }
}

impl Dcnn {
    /// The fully connected layers behind [`Self::layers`], LeakyReLU between them.
    pub(in crate::networks) fn connected(&self) -> Vec<&Conv2d> {
        self.deep.iter().map(|deep| &deep.hidden).chain([&self.head]).collect()
    }

    /// Other weights than the zeros that training starts from.
    #[cfg(test)]
    pub(in crate::networks) fn randomise_outputs(&mut self, weights: Tensor<4>) {
        self.head.weight = burn::module::Param::from_tensor(weights);
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
