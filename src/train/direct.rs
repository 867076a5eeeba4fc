//! A training step of the DCNN on the CPU: its convolutions by [`super::convolutions`], the rest by burn.

use super::convolutions::{self, Forward, Gradient, Layer, Layers};
use super::{TrainError, runner};
use crate::networks::convolution::map::Activation;
use crate::networks::{self, Dcnn, NetworkError};
use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::Array2;
use rayon::prelude::*;

/// The loss and its derivatives.
///
/// `loss` makes a scalar from the map behind [`Dcnn::layers`], `[batch, channel, row, col]`; it depends on the
/// parameters of `module`, of which `network` is part.
pub(super) fn gradients<M: Module>(
    module: &M,
    network: &Dcnn,
    images: &[Array2<f32>],
    device: &Device,
    loss: impl Fn(Tensor<4>) -> Tensor<1>,
) -> Result<(f32, GradientsParams), TrainError> {
    let layers = layers(network)?;
    let pass = Forward::new(&layers, images);

    let channels = layers.channels();
    let top = top(&pass, channels, device).require_grad();
    let [_, _, rows, cols] = top.dims();
    let loss = loss(top.clone());
    let mut differentiated = loss.backward();
    let upper = match top.grad_remove(&mut differentiated) {
        Some(gradient) => read(gradient)?,
        None => return Err(TrainError::Execution("the loss does not depend on the features".to_owned())),
    };
    let mut result = GradientsParams::from_grads(differentiated, module);

    let sizes = [channels, rows, cols];
    let upper = upper.par_chunks(sizes.iter().product::<usize>().max(1));
    let upper = upper.map(|upper| convolutions::from_planes(upper, sizes)).collect();
    let inner = device.clone().inner();
    // Those of the fully connected layers, which come last, burn has found.
    for (convolution, gradient) in network.convolutions().into_iter().zip(pass.backward(upper)) {
        register(&mut result, convolution, gradient, &inner);
    }
    Ok((runner::scalar(loss)?, result))
}

/// [`Dcnn::context`], through which nothing is differentiated.
pub(super) fn context(
    network: &Dcnn,
    images: &[Array2<f32>],
    device: &Device,
) -> Result<Tensor<4>, TrainError> {
    let layers = layers(network)?;
    Ok(top(&Forward::new(&layers, images), layers.channels(), device))
}

/// What the last layer made of the images.
///
/// # Shapes
/// - result: `[batch, channel, row, col]`
fn top(pass: &Forward<'_>, channels: usize, device: &Device) -> Tensor<4> {
    let tops = pass.tops();
    let [rows, cols] = tops.first().map_or([0; 2], |map| [map.view().rows, map.view().cols]);
    let values: Vec<f32> =
        tops.par_iter().flat_map_iter(|map| convolutions::planes(map.view(), channels)).collect();
    Tensor::from_data(TensorData::new(values, [tops.len(), channels, rows, cols]), device)
}

/// The factor of the weights and the bias of every convolution, `[output]` each, with which its channels have variance 1 on `images`
/// and its present bias for a mean.
pub(super) fn folded(network: &Dcnn, images: &[Array2<f32>]) -> Result<Vec<[Vec<f32>; 2]>, TrainError> {
    Ok(convolutions::folded(&layers(network)?, images))
}

fn layers(network: &Dcnn) -> Result<Layers, TrainError> {
    let layers = network.layers().into_iter().map(|layer| match layer {
        networks::Layer::Convolution(convolution) => {
            networks::filters(convolution, Activation::Leaky).map(Layer::Convolution)
        }
        networks::Layer::Pool => Ok(Layer::Pool),
    });
    let mut layers = layers.collect::<Result<Vec<_>, NetworkError>>()?.into_iter();
    match layers.next() {
        Some(Layer::Convolution(first)) => Ok(Layers::new(first, layers.collect())),
        _ => Err(TrainError::Execution("a DCNN that does not begin with a convolution".to_owned())),
    }
}

fn register(result: &mut GradientsParams, convolution: &Conv2d, gradient: Gradient, device: &Device) {
    let shape = convolution.weight.val().dims();
    let weight = Tensor::<4>::from_data(TensorData::new(gradient.weight, shape), device);
    result.register(convolution.weight.id, weight);
    if let Some(bias) = &convolution.bias {
        let length = gradient.bias.len();
        result.register(bias.id, Tensor::<1>::from_data(TensorData::new(gradient.bias, [length]), device));
    }
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TrainError> {
    let data = tensor.try_into_data().map_err(|error| TrainError::Execution(format!("{error:?}")))?;
    data.try_into_vec::<f32>().map_err(|error| TrainError::Execution(format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{Architecture, DcnnConfig, HeadKind, LoadedModel, Padding, write_untrained};
    use burn::nn::pool::MaxPool2dConfig;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution as _, StandardNormal};

    fn noise(shape: [usize; 2], seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn(shape, || StandardNormal.sample(&mut rng))
    }

    fn random_network(head: HeadKind, window_px: usize) -> Dcnn {
        let config = DcnnConfig { padding: Padding::Valid, head, window_px, outputs: 7 };
        let folder = tempfile::tempdir().unwrap();
        write_untrained(folder.path(), Architecture::Dcnn(config), 3).unwrap();
        LoadedModel::dcnn(folder.path(), &Device::flex()).unwrap().network
    }

    /// Norms, since rounding decides which of two equal pixels pooling takes, and on which side of LeakyReLU's bend a value near 0
    /// lies: single derivatives may differ.
    fn assert_close(expected: &[f32], found: &[f32], bound: f32, what: &str) {
        assert_eq!(expected.len(), found.len());
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
        let distance = norm(&mut expected.iter().zip(found).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        assert!(size > 0.0 && distance < bound * size, "{what}: {distance} of {size}");
    }

    #[test]
    fn burn_finds_the_same_gradients() {
        let device = Device::flex().autodiff();
        for (head, window_px, shape) in
            [(HeadKind::Deep, 72, [89, 84]), (HeadKind::Deep, 80, [89, 96]), (HeadKind::Linear, 30, [35, 41])]
        {
            let network = random_network(head, window_px).train();
            let images = [noise(shape, 1), noise(shape, 2)];
            // Dropout, which a linear head has, draws random numbers that tests share.
            let loss = |map: Tensor<4>| {
                let outputs = match head {
                    HeadKind::Deep => network.fully_connected(map.clone(), 8),
                    HeadKind::Linear => map.clone(),
                };
                (outputs.clone() * outputs).mean() + map.mean()
            };

            let map = network.context(super::super::samples::upload(&images, &device));
            let (expected, reference) = runner::differentiated(loss(map), &network).unwrap();
            let (found, own) = gradients(&network, &network, &images, &device, loss).unwrap();

            assert!((expected - found).abs() < 1e-4 * expected.abs(), "{expected} {found}");
            assert_eq!(reference.len(), own.len());
            for (index, layer) in network.layers().into_iter().enumerate() {
                let networks::Layer::Convolution(convolution) = layer else { continue };
                let weight = convolution.weight.id;
                let bias = convolution.bias.as_ref().unwrap().id;
                let what = format!("layer {index}, {head:?}");
                let pick = |of: &GradientsParams| read(of.get::<4>(weight).unwrap()).unwrap();
                assert_close(&pick(&reference), &pick(&own), 0.02, &what);
                let pick = |of: &GradientsParams| read(of.get::<1>(bias).unwrap()).unwrap();
                assert_close(&pick(&reference), &pick(&own), 0.02, &what);
            }
        }
    }

    #[test]
    fn the_channels_of_a_folded_network_have_variance_1_and_their_bias_for_a_mean() {
        let device = Device::flex();
        for head in [HeadKind::Deep, HeadKind::Linear] {
            let network = random_network(head, 80);
            // One window each: the hidden layer sees no others.
            let images = [1u8, 2, 3, 4, 5, 6].map(|n| noise([80, 80], u64::from(n)) * f32::from(n));
            let biases: Vec<Vec<f32>> = network
                .convolutions()
                .iter()
                .map(|layer| read(layer.bias.as_ref().unwrap().val()).unwrap())
                .collect();
            let folds = folded(&network, &images).unwrap();
            let network = network.folded(&folds);
            let map = network.context(super::super::samples::upload(&images, &device));
            let network = network.with_hidden_folded(map, 8);

            let mut x = super::super::samples::upload(&images, &device);
            let mut layers = network.layers();
            // The deep head's hidden layer; the outputs behind it, or in a linear head, are not normalised.
            let all = network.convolutions();
            layers.extend(all[folds.len()..all.len() - 1].iter().copied().map(networks::Layer::Convolution));
            let pool = MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init();
            let mut biases = biases.iter();
            for (index, layer) in layers.into_iter().enumerate() {
                let networks::Layer::Convolution(convolution) = layer else {
                    x = pool.forward(x);
                    continue;
                };
                let raw = convolution.forward(x);
                let [batch, channels, rows, cols] = raw.dims();
                let count = (batch * rows * cols) as f32;
                let values = read(raw.clone().swap_dims(0, 1)).unwrap();
                for (channel, bias) in values.chunks(values.len() / channels).zip(biases.next().unwrap()) {
                    let mean = channel.iter().sum::<f32>() / count;
                    let variance = channel.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count;
                    assert!((mean - bias).abs() < 1e-2, "{head:?}, layer {index}: mean {mean}, bias {bias}");
                    // What is added to a small variance before the root leaves less than 1.
                    assert!((0.9..1.02).contains(&variance), "{head:?}, layer {index}: variance {variance}");
                }
                x = burn::tensor::activation::leaky_relu(raw, crate::networks::LEAKY_SLOPE);
            }
        }
    }
}
