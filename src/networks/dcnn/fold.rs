//! Normalisations of a map written into the weights of the layer that makes it.

use super::{Dcnn, NORMALISATION_EPSILON};
use burn::tensor::Tensor;

impl Dcnn {
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
}

/// Mean of each channel over batch and places, and the inverse of its standard deviation, `[1, channel, 1, 1]`.
fn moments(x: Tensor<4>) -> [Tensor<4>; 2] {
    let over_all = |x: Tensor<4>| x.mean_dim(0).mean_dim(2).mean_dim(3);
    let mean = over_all(x.clone());
    let centred = x - mean.clone();
    let variance = over_all(centred.clone() * centred);
    [mean, (variance + NORMALISATION_EPSILON).sqrt().recip()]
}
