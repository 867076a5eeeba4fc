//! The DCNN's convolutions with their gradients, on the CPU.
//!
//! burn's own backward pass copies every pixel nine times, for each of the two gradients. Here both are what
//! [`crate::networks::convolution`] computes: the derivatives of a map are a convolution of those of the next one, padded, with the
//! kernels turned by half a turn, and those of the weights come from [`gradient`].
//!
//! Checked against burn's gradients in the tests.

use crate::networks::convolution::direct::{Direct, Placement};
use crate::networks::convolution::map::{Activation, Block, Filters, LANES, Map, View, in_blocks};
use crate::networks::convolution::simd::Level;
use crate::networks::convolution::winograd::Winograd;
use crate::networks::convolution::{gradient, stream};
use crate::networks::{LEAKY_SLOPE, NORMALISATION_EPSILON};
use ndarray::{Array2, CowArray, Ix2};
use rayon::prelude::*;

/// Rows and columns that a kernel takes from a map.
const MARGIN: usize = 2;
const SLOPE: f32 = LEAKY_SLOPE as f32;

/// One layer in the order of evaluation.
#[derive(Debug, Clone)]
pub(super) enum Layer {
    /// 3 × 3, without padding, LeakyReLU behind it.
    Convolution(Filters),
    /// 2 × 2 max-pooling.
    Pool,
}

/// Layers from an image to one map.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    level: Level,
    /// A convolution as [`Layer::Convolution`], of one channel.
    first: Filters,
    behind: Vec<Layer>,
}

/// Derivatives of the loss, laid out as the parameters of burn's `Conv2d`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gradient {
    /// `[output][input][kernel row][kernel col]`.
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Layers {
    /// `first` reads the image.
    pub fn new(first: Filters, behind: Vec<Layer>) -> Self {
        Self { level: Level::detect(), first, behind }
    }

    /// Channels of the last map.
    pub fn channels(&self) -> usize {
        let last = self.behind.iter().rev().find_map(|layer| match layer {
            Layer::Convolution(filters) => Some(filters.outputs),
            Layer::Pool => None,
        });
        last.unwrap_or(self.first.outputs)
    }

    /// What the first convolution makes of images, with that bias and bend.
    fn of_images(&self, filters: &Filters, images: &[CowArray<'_, f32, Ix2>]) -> Vec<Map> {
        let layer = Direct::<1>::new(filters, Placement::VALID);
        let result = images.par_iter().map(|image| {
            let image = view(image);
            let mut output = Map::empty(layer.output_blocks(), layer.output_size(image.cols));
            layer.run(self.level, image, output.append(layer.output_size(image.rows)));
            output
        });
        result.collect()
    }

    fn of_maps(&self, filters: &Filters, padding: usize, maps: &[Map]) -> Vec<Map> {
        let layer = Winograd::new(filters, padding, false);
        let result = maps.par_iter().map(|map| {
            let map = map.view();
            let mut output = Map::empty(layer.output_blocks(), layer.output_size(map.cols));
            layer.run(self.level, map, output.append(layer.output_size(map.rows)));
            output
        });
        result.collect()
    }
}

fn view<'a>(image: &'a CowArray<'_, f32, Ix2>) -> View<'a, f32> {
    let (rows, cols) = image.dim();
    View { data: image.as_slice().unwrap_or_default(), rows, blocks: 1, cols }
}

fn standard(images: &[Array2<f32>]) -> Vec<CowArray<'_, f32, Ix2>> {
    images.iter().map(|image| image.as_standard_layout()).collect()
}

/// A map from its first channels, zero in those that fill up the last block.
///
/// # Shapes
/// - `planes`: `[channel, row, col]`; so is the result of [`planes`]
pub(super) fn from_planes(planes: &[f32], [channels, rows, cols]: [usize; 3]) -> Map {
    let blocks = channels.div_ceil(LANES);
    let mut map = Map::empty(blocks, cols);
    for (index, pixel) in map.append(rows).iter_mut().enumerate() {
        let (row, block, col) = (index / cols / blocks, index / cols % blocks, index % cols);
        for (channel, value) in (block * LANES..channels).zip(&mut pixel.0) {
            *value = planes[(channel * rows + row) * cols + col];
        }
    }
    map
}

pub(super) fn planes(map: View<'_>, channels: usize) -> Vec<f32> {
    let mut planes = Vec::with_capacity(channels * map.rows * map.cols);
    for channel in 0..channels {
        for row in 0..map.rows {
            let pixels = map.row(row, channel / LANES);
            planes.extend(pixels.iter().map(|pixel| pixel.0[channel % LANES]));
        }
    }
    planes
}

fn pool(input: &Map) -> Map {
    let input = input.view();
    let mut output = Map::empty(input.blocks, input.cols / 2);
    stream::pool(input, output.append(input.rows / 2));
    output
}

/// The gradient goes to the largest of the four, the first of equals.
fn pool_backward(input: &Map, gradient: &Map) -> Map {
    let (input, gradient) = (input.view(), gradient.view());
    let mut result = Map::empty(input.blocks, input.cols);
    let target = result.append(input.rows);
    let pixels = (0..gradient.rows).flat_map(|row| (0..gradient.blocks).map(move |block| (row, block)));
    for (row, block) in pixels {
        let corner = (2 * row * input.blocks + block) * input.cols;
        for (col, values) in gradient.row(row, block).iter().enumerate() {
            let below = corner + input.blocks * input.cols;
            let [first, rest @ ..] = [corner, corner + 1, below, below + 1].map(|pixel| pixel + 2 * col);
            for (lane, &value) in values.0.iter().enumerate() {
                let larger = |a: usize, b: usize| input.data[b].0[lane] > input.data[a].0[lane];
                let largest = rest.into_iter().fold(first, |a, b| if larger(a, b) { b } else { a });
                target[largest].0[lane] = value;
            }
        }
    }
    result
}

/// Turns the gradient of what LeakyReLU made into that of what it was made from, and gives the sum of that over all pixels of all
/// maps, the gradient of the bias.
fn unbend(gradients: &mut [Map], outputs: &[Map], channels: usize) -> Vec<f32> {
    let each: Vec<Vec<[f64; LANES]>> = gradients
        .par_iter_mut()
        .zip(outputs)
        .map(|(gradient, output)| {
            let View { blocks, cols, data, .. } = output.view();
            let mut sums = vec![[0.0; LANES]; blocks];
            let rows = gradient.pixels_mut().chunks_mut(cols.max(1)).zip(data.chunks(cols.max(1)));
            for (index, (gradients, outputs)) in rows.enumerate() {
                let mut sum = [0.0f32; LANES];
                for (gradient, output) in gradients.iter_mut().zip(outputs) {
                    for ((sum, gradient), &output) in sum.iter_mut().zip(&mut gradient.0).zip(&output.0) {
                        *gradient *= if output > 0.0 { 1.0 } else { SLOPE };
                        *sum += *gradient;
                    }
                }
                sums[index % blocks].iter_mut().zip(sum).for_each(|(total, sum)| *total += f64::from(sum));
            }
            sums
        })
        .collect();
    let total = |channel: usize| each.iter().map(|sums| sums[channel / LANES][channel % LANES]).sum::<f64>();
    (0..channels).map(|channel| total(channel) as f32).collect()
}

/// The filters with which gradients, padded with zeros, become those of the map before.
fn turned(filters: &Filters) -> Filters {
    let Filters { outputs, inputs, side, .. } = *filters;
    let taps = side * side;
    let mut weights = Vec::with_capacity(filters.weights.len());
    for input in 0..inputs {
        for output in 0..outputs {
            weights.extend((0..taps).rev().map(|tap| filters.weight(output, input, tap)));
        }
    }
    straight(Filters { outputs: inputs, inputs: outputs, weights, ..filters.clone() })
}

/// The filters without bias and bend.
fn straight(filters: Filters) -> Filters {
    Filters { bias: vec![0.0; filters.outputs], activation: Activation::None, ..filters }
}

/// Everything that a forward pass computed.
pub(super) struct Forward<'a> {
    layers: &'a Layers,
    images: Vec<CowArray<'a, f32, Ix2>>,
    /// What every layer made of them.
    maps: Vec<Vec<Map>>,
}

impl<'a> Forward<'a> {
    /// `images` are of one size.
    pub fn new(layers: &'a Layers, images: &'a [Array2<f32>]) -> Self {
        let images = standard(images);
        let mut inputs = layers.of_images(&layers.first, &images);
        let mut maps = Vec::with_capacity(layers.behind.len() + 1);
        for layer in &layers.behind {
            let outputs = match layer {
                Layer::Convolution(filters) => layers.of_maps(filters, 0, &inputs),
                Layer::Pool => inputs.par_iter().map(pool).collect(),
            };
            maps.push(std::mem::replace(&mut inputs, outputs));
        }
        maps.push(inputs);
        Self { layers, images, maps }
    }

    /// What the last layer made of the images.
    pub fn tops(&self) -> &[Map] {
        self.maps.last().map_or(&[], Vec::as_slice)
    }

    /// The derivatives of every convolution's parameters, in order.
    ///
    /// `gradients` are those of [`Self::tops`].
    pub fn backward(&self, mut gradients: Vec<Map>) -> Vec<Gradient> {
        let Self { layers, images, maps } = self;
        let mut parameters = Vec::new();
        let passes = maps.iter().zip(maps.iter().skip(1));
        for (layer, (inputs, outputs)) in layers.behind.iter().zip(passes).rev() {
            gradients = match layer {
                Layer::Convolution(filters) => {
                    let bias = unbend(&mut gradients, outputs, filters.outputs);
                    let pairs = inputs.iter().zip(&gradients);
                    let pairs: Vec<_> = pairs.map(|(input, upper)| [input.view(), upper.view()]).collect();
                    let (weight, below) = rayon::join(
                        || gradient::of_maps(layers.level, &pairs, [filters.outputs, filters.inputs]),
                        || layers.of_maps(&turned(filters), MARGIN, &gradients),
                    );
                    parameters.push(Gradient { weight, bias });
                    below
                }
                Layer::Pool => inputs
                    .par_iter()
                    .zip(&gradients)
                    .map(|(input, upper)| pool_backward(input, upper))
                    .collect(),
            };
        }
        let outputs = layers.first.outputs;
        if let Some(first) = maps.first() {
            let bias = unbend(&mut gradients, first, outputs);
            let pairs = images.iter().zip(&gradients);
            let pairs: Vec<_> = pairs.map(|(image, upper)| (view(image), upper.view())).collect();
            let weight = gradient::of_images(layers.level, &pairs, outputs);
            parameters.push(Gradient { weight, bias });
        }
        parameters.reverse();
        parameters
    }
}

/// Mean of every channel over the pixels of all maps, and the inverse of its standard deviation.
fn moments(maps: &[Map], channels: usize) -> [Vec<f32>; 2] {
    let sums = |map: &Map| {
        let View { data, blocks, cols, .. } = map.view();
        let mut sums = vec![[[0.0f64; 2]; LANES]; blocks];
        for (index, row) in data.chunks(cols.max(1)).enumerate() {
            for pixel in row {
                for (sum, value) in sums[index % blocks].iter_mut().zip(pixel.0) {
                    sum[0] += f64::from(value);
                    sum[1] += f64::from(value * value);
                }
            }
        }
        sums
    };
    let each: Vec<Vec<[[f64; 2]; LANES]>> = maps.par_iter().map(sums).collect();
    let pixels = maps.iter().map(|map| map.view().rows * map.view().cols).sum::<usize>().max(1) as f64;
    let total = |channel: usize, k: usize| {
        each.iter().map(|sums| sums[channel / LANES][channel % LANES][k]).sum::<f64>() / pixels
    };
    let mean = |channel| total(channel, 0);
    let variance = |channel| (total(channel, 1) - mean(channel).powi(2)).max(0.0);
    [
        (0..channels).map(|channel| mean(channel) as f32).collect(),
        (0..channels)
            .map(|channel| (variance(channel) + NORMALISATION_EPSILON).sqrt().recip() as f32)
            .collect(),
    ]
}

/// For every convolution, the factor of its weights and the bias with which each channel has variance 1 over all images, and its own
/// bias for a mean; layer by layer, the ones before it folded.
///
/// No more than two layers' maps are kept at a time, so `images` can be many.
pub(super) fn folded(layers: &Layers, images: &[Array2<f32>]) -> Vec<[Vec<f32>; 2]> {
    let mut folded = Vec::new();
    let mut fold = |maps: &mut [Map], filters: &Filters| {
        let [means, factors] = moments(maps, filters.outputs);
        let own = filters.bias.iter().zip(&means).zip(&factors);
        let shifts: Vec<f32> = own.map(|((bias, mean), factor)| bias - mean * factor).collect();
        bend(maps, &factors, &shifts);
        folded.push([factors, shifts]);
    };
    let mut maps = layers.of_images(&straight(layers.first.clone()), &standard(images));
    fold(&mut maps, &layers.first);
    for layer in &layers.behind {
        maps = match layer {
            Layer::Pool => maps.par_iter().map(pool).collect(),
            Layer::Convolution(filters) => {
                let mut raw = layers.of_maps(&straight(filters.clone()), 0, &maps);
                fold(&mut raw, filters);
                raw
            }
        };
    }
    folded
}

/// Multiplies every channel by its factor, adds its shift, and bends it as LeakyReLU does.
fn bend(maps: &mut [Map], factors: &[f32], shifts: &[f32]) {
    let (factors, shifts) = (in_blocks(factors, 0.0), in_blocks(shifts, 0.0));
    maps.par_iter_mut().for_each(|map| {
        let cols = map.view().cols.max(1);
        for (index, row) in map.pixels_mut().chunks_mut(cols).enumerate() {
            let (Block(factors), Block(shifts)) =
                (factors[index % factors.len()], shifts[index % shifts.len()]);
            for pixel in row {
                for ((value, factor), shift) in pixel.0.iter_mut().zip(factors).zip(shifts) {
                    let straight = *value * factor + shift;
                    *value = if straight > 0.0 { straight } else { SLOPE * straight };
                }
            }
        }
    });
}

#[cfg(test)]
#[path = "convolutions_tests.rs"]
mod tests;
