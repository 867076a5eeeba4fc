//! A training step of the DCNN on the CPU: its convolutions by [`super::convolutions`], the rest by burn.

use super::convolutions::{Convolution, Gradient, Layer, Map, backward, forward};
use super::{TrainError, runner};
use crate::networks::{self, Dcnn};
use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::Array2;
use rayon::prelude::*;

/// The loss and its derivatives.
///
/// `loss` makes a scalar from the map behind [`Dcnn::context_layers`], `[batch, channel, row, col]`.
///
/// # Arguments
/// - `module`: whose parameters `loss` depends on; `network` is part of it
pub(super) fn gradients<M: Module>(
    module: &M,
    network: &Dcnn,
    images: &[Array2<f32>],
    device: &Device,
    loss: impl Fn(Tensor<4>) -> Tensor<1>,
) -> Result<(f32, GradientsParams), TrainError> {
    let own = network.context_layers();
    let layers = own.iter().map(layer).collect::<Result<Vec<_>, _>>()?;
    let maps: Vec<Vec<Map>> =
        images.par_iter().map(|image| forward(&layers, Map::from_image(image))).collect();

    let tops: Vec<&Map> = maps.iter().filter_map(|maps| maps.last()).collect();
    let [channels, rows, cols] = tops.first().map_or([0; 3], |map| [map.channels, map.rows, map.cols]);
    let values: Vec<f32> = tops.par_iter().flat_map_iter(|map| map.planes()).collect();
    let top = Tensor::<4>::from_data(TensorData::new(values, [tops.len(), channels, rows, cols]), device)
        .require_grad();
    let loss = loss(top.clone());
    let mut differentiated = loss.backward();
    let upper = match top.grad_remove(&mut differentiated) {
        Some(gradient) => read(gradient)?,
        None => return Err(TrainError::Execution("the loss does not depend on the features".to_owned())),
    };
    let mut result = GradientsParams::from_grads(differentiated, module);

    let sizes = [channels, rows, cols];
    let sum = maps
        .par_iter()
        .zip(upper.par_chunks(sizes.iter().product::<usize>().max(1)))
        .map(|(maps, upper)| backward(&layers, maps, Map::from_planes(upper, sizes)))
        .collect::<Vec<_>>()
        .into_iter()
        .reduce(|mut sum, gradients| {
            sum.iter_mut().zip(&gradients).for_each(|(sum, gradient)| sum.add(gradient));
            sum
        })
        .unwrap_or_default();
    let convolutions = own.iter().filter_map(|layer| match layer {
        networks::Layer::Convolution(convolution) => Some(*convolution),
        networks::Layer::Pool => None,
    });
    let inner = device.clone().inner();
    for (convolution, gradient) in convolutions.zip(sum) {
        register(&mut result, convolution, gradient, &inner);
    }
    Ok((runner::scalar(loss)?, result))
}

/// Root mean square of every convolution's output on `images`.
pub(super) fn output_rms(network: &Dcnn, images: &[Array2<f32>]) -> Result<Vec<f64>, TrainError> {
    let layers = network.layers().iter().map(layer).collect::<Result<Vec<_>, _>>()?;
    let maps: Vec<Vec<Map>> =
        images.par_iter().map(|image| forward(&layers, Map::from_image(image))).collect();
    let convolutions = layers.iter().enumerate().filter(|(_, layer)| matches!(layer, Layer::Convolution(_)));
    Ok(convolutions
        .map(|(index, _)| {
            let values = maps.iter().filter_map(|maps| maps.get(index + 1)).flat_map(Map::planes);
            super::judged::rms(values.map(f64::from))
        })
        .collect())
}

fn layer(layer: &networks::Layer<'_>) -> Result<Layer, TrainError> {
    let networks::Layer::Convolution(convolution) = layer else { return Ok(Layer::Pool) };
    let weight = convolution.weight.val();
    let [outputs, inputs, ..] = weight.dims();
    let bias = match &convolution.bias {
        Some(bias) => read(bias.val())?,
        None => vec![0.0; outputs],
    };
    Ok(Layer::Convolution(Convolution::new(&read(weight)?, &bias, inputs)))
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
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution as _, StandardNormal};

    fn noise(shape: [usize; 2], seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn(shape, || StandardNormal.sample(&mut rng))
    }

    #[test]
    fn burn_finds_the_same_gradients() {
        let device = Device::flex().autodiff();
        for (head, window_px, shape) in
            [(HeadKind::Deep, 54, [70, 63]), (HeadKind::Deep, 80, [89, 96]), (HeadKind::Linear, 30, [35, 41])]
        {
            let config = DcnnConfig { padding: Padding::Valid, head, window_px, outputs: 7 };
            let folder = tempfile::tempdir().unwrap();
            write_untrained(folder.path(), Architecture::Dcnn(config), 3).unwrap();
            let network = LoadedModel::dcnn(folder.path(), &Device::flex()).unwrap().network.train();
            let images = [noise(shape, 1), noise(shape, 2)];
            let loss = |outputs: Tensor<4>| (outputs.clone() * outputs).mean();

            device.seed(1);
            let reference = loss(
                network.head_dense(network.features(super::super::samples::upload(&images, &device)), 8),
            );
            let (expected, reference) = runner::differentiated(reference, &network).unwrap();
            device.seed(1);
            let (found, own) =
                gradients(&network, &network, &images, &device, |map| loss(network.behind_context(map, 8)))
                    .unwrap();

            assert!((expected - found).abs() < 1e-4 * expected.abs(), "{expected} {found}");
            assert_eq!(reference.len(), own.len());
            for layer in network.layers() {
                let networks::Layer::Convolution(convolution) = layer else { continue };
                let weight = convolution.weight.id;
                let bias = convolution.bias.as_ref().unwrap().id;
                // Norms, since rounding decides which of two equal pixels pooling takes: single derivatives may differ.
                let close = |expected: Vec<f32>, found: Vec<f32>| {
                    assert_eq!(expected.len(), found.len());
                    let norm =
                        |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
                    let distance = norm(&mut expected.iter().zip(&found).map(|(a, b)| a - b));
                    let size = norm(&mut expected.iter().copied());
                    assert!(size > 0.0 && distance < 0.01 * size, "{distance} of {size}, {head:?}");
                };
                let pick = |of: &GradientsParams| read(of.get::<4>(weight).unwrap()).unwrap();
                close(pick(&reference), pick(&own));
                let pick = |of: &GradientsParams| read(of.get::<1>(bias).unwrap()).unwrap();
                close(pick(&reference), pick(&own));
            }
        }
    }
}
