//! The DCNN's convolutions with their gradients, on the CPU.
//!
//! burn's own backward pass copies every pixel nine times, for each of the two gradients; a training step is three times as
//! fast without. Here a map is a list of pixels, channels together, and keeps the row length of the image that it
//! comes from: a pixel and its two neighbours to the right are then 3 × channels consecutive numbers, and a row of a 3 × 3
//! kernel is one matrix product over all pixels, which copies nothing. What is computed at the right end of rows, where a
//! window wraps around, is never looked at, and its gradient is zero.
//!
//! Checked against burn's gradients in the tests.

use crate::networks::{LEAKY_SLOPE, NORMALISATION_EPSILON};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, ShapeBuilder as _};
use rayon::prelude::*;

/// Side of every kernel.
const KERNEL: usize = 3;
/// Pixels of one matrix product: input and output of it stay in the cache.
const TILE: usize = 1024;
const SLOPE: f32 = LEAKY_SLOPE as f32;

/// One layer in the order of evaluation.
#[derive(Debug, Clone)]
pub(super) enum Layer {
    Convolution(Convolution),
    /// 2 × 2 max-pooling.
    Pool,
}

/// 3 × 3, without padding, LeakyReLU behind it.
#[derive(Debug, Clone)]
pub(super) struct Convolution {
    inputs: usize,
    outputs: usize,
    /// `[kernel row][kernel col][input][output]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Derivatives of the loss, laid out as the parameters of burn's `Conv2d`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gradient {
    /// `[output][input][kernel row][kernel col]`.
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Pixels row by row, each with all its channels; the last row ends with its last valid pixel.
#[derive(Debug, Clone)]
pub(super) struct Map {
    pub rows: usize,
    pub cols: usize,
    pub channels: usize,
    /// Pixels from one row to the next, `cols` or more.
    row_length: usize,
    values: Vec<f32>,
}

impl Map {
    /// A map of zeros with rows of that length.
    fn zeros([rows, cols]: [usize; 2], channels: usize, row_length: usize) -> Self {
        let pixels = if rows * cols == 0 { 0 } else { (rows - 1) * row_length + cols };
        Self { rows, cols, channels, row_length, values: vec![0.0; pixels * channels] }
    }

    pub fn from_image(image: &Array2<f32>) -> Self {
        let (rows, cols) = image.dim();
        Self { rows, cols, channels: 1, row_length: cols, values: image.iter().copied().collect() }
    }

    /// # Shapes
    /// - `values`: `[channel, row, col]`; so is the result of [`Self::planes`]
    pub fn from_planes(values: &[f32], [channels, rows, cols]: [usize; 3]) -> Self {
        let mut map = Self::zeros([rows, cols], channels, cols);
        for (pixel, target) in map.values.chunks_mut(channels).enumerate() {
            for (value, plane) in target.iter_mut().zip(values.chunks(rows * cols)) {
                *value = plane[pixel];
            }
        }
        map
    }

    pub fn planes(&self) -> Vec<f32> {
        let mut planes = Vec::with_capacity(self.channels * self.rows * self.cols);
        for channel in 0..self.channels {
            planes.extend(self.lines().flat_map(|line| line.iter().skip(channel).step_by(self.channels)));
        }
        planes
    }

    /// Rows without what lies between them.
    fn lines(&self) -> impl Iterator<Item = &[f32]> {
        let length = self.cols * self.channels;
        self.values.chunks(self.row_length * self.channels).map(move |line| &line[..length])
    }

    fn lines_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let length = self.cols * self.channels;
        self.values.chunks_mut(self.row_length * self.channels).map(move |line| &mut line[..length])
    }

    /// The same values with rows of another length, zeros between them.
    fn with_row_length(&self, row_length: usize) -> Self {
        let mut map = Self::zeros([self.rows, self.cols], self.channels, row_length);
        for (from, to) in self.lines().zip(map.lines_mut()) {
            to.copy_from_slice(from);
        }
        map
    }
}

impl Convolution {
    /// # Shapes
    /// - `weight`: `[output][input][kernel row][kernel col]`, as burn has it
    pub fn new(weight: &[f32], bias: &[f32], inputs: usize) -> Self {
        let outputs = bias.len();
        let mut own = vec![0.0; weight.len()];
        let taps = KERNEL * KERNEL;
        for (o, filter) in weight.chunks(inputs * taps).enumerate() {
            for (i, kernel) in filter.chunks(taps).enumerate() {
                for (tap, &value) in kernel.iter().enumerate() {
                    own[(tap * inputs + i) * outputs + o] = value;
                }
            }
        }
        Self { inputs, outputs, weight: own, bias: bias.to_vec() }
    }

    /// Without bias and bend.
    fn correlation(&self, input: &Map) -> Map {
        let shape = [input.rows - (KERNEL - 1), input.cols - (KERNEL - 1)];
        let mut output = Map::zeros(shape, self.outputs, input.row_length);
        correlate(&input.values, &self.weight, input.row_length, &mut output);
        output
    }

    fn forward(&self, inputs: &[Map]) -> Vec<Map> {
        let mut outputs: Vec<Map> = inputs.par_iter().map(|input| self.correlation(input)).collect();
        bend(&mut outputs, &vec![1.0; self.outputs], &self.bias);
        outputs
    }

    /// Derivatives of the parameters, and of the inputs where they are asked for.
    ///
    /// `gradients` are those of `outputs`, with the same length of rows.
    fn backward(
        &self,
        [inputs, outputs]: [&[Map]; 2],
        mut gradients: Vec<Map>,
        with_inputs: bool,
    ) -> (Gradient, Vec<Map>) {
        gradients.par_iter_mut().zip(outputs).for_each(|(gradient, output)| {
            let slopes = gradient.values.par_iter_mut().zip(&output.values);
            slopes.for_each(|(g, &y)| *g *= if y > 0.0 { 1.0 } else { SLOPE });
        });
        let bias = self.bias_gradient(&gradients);
        let weight = gradients
            .par_iter()
            .zip(inputs)
            .map(|(gradient, input)| self.weight_gradient(input, gradient))
            .reduce_with(|mut sum, weight| {
                sum.iter_mut().zip(&weight).for_each(|(a, b)| *a += b);
                sum
            })
            .unwrap_or_default();
        let below = if with_inputs {
            let pairs = inputs.par_iter().zip(&gradients);
            pairs.map(|(input, gradient)| self.input_gradient(input, gradient)).collect()
        } else {
            Vec::new()
        };
        (Gradient { weight, bias }, below)
    }

    /// Sum over all pixels.
    fn bias_gradient(&self, gradients: &[Map]) -> Vec<f32> {
        let mut sums = vec![0.0f64; self.outputs];
        for pixel in gradients.iter().flat_map(Map::lines).flat_map(|line| line.chunks(self.outputs)) {
            sums.iter_mut().zip(pixel).for_each(|(sum, &g)| *sum += f64::from(g));
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    }

    /// Laid out as burn's.
    fn weight_gradient(&self, input: &Map, gradient: &Map) -> Vec<f32> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let pixels = gradient.values.len() / outputs;
        let right = matrix(&gradient.values, [pixels, outputs], outputs);
        let rows: Vec<Array2<f32>> = (0..KERNEL)
            .into_par_iter()
            .map(|row| {
                let first = row * input.row_length * inputs;
                let left = matrix(&input.values[first..], [pixels, KERNEL * inputs], inputs);
                left.t().dot(&right)
            })
            .collect();
        let mut weight = vec![0.0; self.weight.len()];
        for (row, product) in rows.iter().enumerate() {
            for ((line, o), &value) in product.indexed_iter() {
                let (col, i) = (line / inputs, line % inputs);
                weight[((o * inputs + i) * KERNEL + row) * KERNEL + col] = value;
            }
        }
        weight
    }

    /// Correlation of the gradient, padded with zeros, with the kernels turned by half a turn.
    fn input_gradient(&self, input: &Map, gradient: &Map) -> Map {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let margin = (KERNEL - 1) * (input.row_length + 1) * outputs;
        let mut padded = vec![0.0; gradient.values.len() + 2 * margin];
        padded[margin..margin + gradient.values.len()].copy_from_slice(&gradient.values);
        let taps = KERNEL * KERNEL;
        let mut turned = vec![0.0; self.weight.len()];
        for (tap, kernel) in self.weight.chunks(inputs * outputs).enumerate() {
            for (index, &value) in kernel.iter().enumerate() {
                let (i, o) = (index / outputs, index % outputs);
                turned[((taps - 1 - tap) * outputs + o) * inputs + i] = value;
            }
        }
        let mut result = Map::zeros([input.rows, input.cols], inputs, input.row_length);
        correlate(&padded, &turned, input.row_length, &mut result);
        result
    }
}

/// Adds to every pixel of `output` what a 3 × 3 kernel makes of `input` there.
fn correlate(input: &[f32], weight: &[f32], row_length: usize, output: &mut Map) {
    let outputs = output.channels;
    let inputs = weight.len() / (KERNEL * KERNEL * outputs);
    let across = KERNEL * inputs;
    output.values.par_chunks_mut(TILE * outputs).enumerate().for_each(|(index, tile)| {
        let pixels = tile.len() / outputs;
        let Ok(mut sum) = ArrayViewMut2::from_shape([pixels, outputs], tile) else { return };
        for (row, kernel) in weight.chunks(across * outputs).enumerate() {
            let first = (index * TILE + row * row_length) * inputs;
            let left = matrix(&input[first..], [pixels, across], inputs);
            general_mat_mul(1.0, &left, &matrix(kernel, [across, outputs], outputs), 1.0, &mut sum);
        }
    });
}

/// The beginning of `values` as a matrix whose rows start `row_stride` apart, and may overlap.
fn matrix(values: &[f32], [rows, cols]: [usize; 2], row_stride: usize) -> ArrayView2<'_, f32> {
    let end = (rows - 1) * row_stride + cols;
    // Within the slice by construction of the maps, so the fallback is never seen.
    ArrayView2::from_shape([rows, cols].strides([row_stride, 1]), &values[..end])
        .unwrap_or_else(|_| ArrayView2::from(&[[]]))
}

fn pool(input: &Map) -> Map {
    let [rows, cols] = [input.rows / 2, input.cols / 2];
    let mut output = Map::zeros([rows, cols], input.channels, cols);
    for (pixel, target) in output.values.chunks_mut(input.channels).enumerate() {
        let corners = corners(input, pixel, cols);
        for (channel, value) in target.iter_mut().enumerate() {
            *value = corners.map(|first| input.values[first + channel]).into_iter().fold(f32::MIN, f32::max);
        }
    }
    output
}

/// First value of each of the four pixels that `pixel` of a pooled map was made from.
fn corners(input: &Map, pixel: usize, cols: usize) -> [usize; 4] {
    let (row, col) = (2 * (pixel / cols), 2 * (pixel % cols));
    [[0, 0], [0, 1], [1, 0], [1, 1]].map(|[i, j]| ((row + i) * input.row_length + col + j) * input.channels)
}

/// The gradient goes to the largest of the four, the first of equals.
fn pool_backward(input: &Map, gradient: &Map) -> Map {
    let mut result = Map::zeros([input.rows, input.cols], input.channels, input.row_length);
    for (pixel, values) in gradient.values.chunks(input.channels).enumerate() {
        let corners = corners(input, pixel, gradient.cols);
        for (channel, &value) in values.iter().enumerate() {
            let [first, rest @ ..] = corners.map(|first| first + channel);
            let largest =
                rest.into_iter().fold(first, |a, b| if input.values[b] > input.values[a] { b } else { a });
            result.values[largest] = value;
        }
    }
    result
}

/// Mean of every channel over the pixels of all maps, and the inverse of its standard deviation.
fn moments(maps: &[Map], channels: usize) -> [Vec<f32>; 2] {
    let sums = |map: &Map| {
        let mut sums = vec![[0.0f64; 2]; channels];
        for line in map.lines() {
            for pixel in line.chunks(channels) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    sum[0] += f64::from(value);
                    sum[1] += f64::from(value * value);
                }
            }
        }
        sums
    };
    let each: Vec<Vec<[f64; 2]>> = maps.par_iter().map(sums).collect();
    let pixels = maps.iter().map(|map| map.rows * map.cols).sum::<usize>().max(1) as f64;
    let total = |channel: usize, k: usize| each.iter().map(|sums| sums[channel][k]).sum::<f64>() / pixels;
    let mean = |channel| total(channel, 0);
    let variance = |channel| (total(channel, 1) - mean(channel).powi(2)).max(0.0);
    [
        (0..channels).map(|channel| mean(channel) as f32).collect(),
        (0..channels)
            .map(|channel| (variance(channel) + NORMALISATION_EPSILON).sqrt().recip() as f32)
            .collect(),
    ]
}

/// Everything that a forward pass computed.
pub(super) struct Forward {
    /// The images, then what every layer made of them.
    maps: Vec<Vec<Map>>,
}

impl Forward {
    pub fn new(layers: &[Layer], images: Vec<Map>) -> Self {
        let mut maps = vec![images];
        for layer in layers {
            let Some(inputs) = maps.last() else { break };
            maps.push(match layer {
                Layer::Convolution(convolution) => convolution.forward(inputs),
                Layer::Pool => inputs.par_iter().map(pool).collect(),
            });
        }
        Self { maps }
    }

    /// What the last layer made of the images.
    pub fn tops(&self) -> &[Map] {
        self.maps.last().map_or(&[], Vec::as_slice)
    }

    /// The derivatives of every convolution's parameters, in order.
    ///
    /// `gradients` are those of [`Self::tops`].
    pub fn backward(&self, layers: &[Layer], mut gradients: Vec<Map>) -> Vec<Gradient> {
        let mut parameters = Vec::new();
        let passes = self.maps.iter().zip(self.maps.iter().skip(1));
        for (index, (layer, (inputs, outputs))) in layers.iter().zip(passes).enumerate().rev() {
            gradients = match layer {
                Layer::Convolution(convolution) => {
                    let upper = gradients.iter().zip(outputs);
                    let upper =
                        upper.map(|(upper, output)| upper.with_row_length(output.row_length)).collect();
                    let (own, below) = convolution.backward([inputs, outputs], upper, index > 0);
                    parameters.push(own);
                    below
                }
                Layer::Pool => inputs
                    .par_iter()
                    .zip(&gradients)
                    .map(|(input, upper)| pool_backward(input, upper))
                    .collect(),
            };
        }
        parameters.reverse();
        parameters
    }
}

/// For every convolution, the factor of its weights and the bias with which each channel has variance 1 over all images, and its own
/// bias for a mean; layer by layer, the ones before it folded.
///
/// No more than two layers' maps are kept at a time, so `images` can be many.
pub(super) fn folded(layers: &[Layer], images: Vec<Map>) -> Vec<[Vec<f32>; 2]> {
    let mut maps = images;
    let mut folded = Vec::new();
    for layer in layers {
        maps = match layer {
            Layer::Pool => maps.par_iter().map(pool).collect(),
            Layer::Convolution(convolution) => {
                let mut raw: Vec<Map> = maps.par_iter().map(|map| convolution.correlation(map)).collect();
                let [means, factors] = moments(&raw, convolution.outputs);
                let own = convolution.bias.iter().zip(&means).zip(&factors);
                let shifts: Vec<f32> = own.map(|((bias, mean), factor)| bias - mean * factor).collect();
                bend(&mut raw, &factors, &shifts);
                folded.push([factors, shifts]);
                raw
            }
        };
    }
    folded
}

/// Multiplies every channel by its factor, adds its shift, and bends it as LeakyReLU does.
fn bend(maps: &mut [Map], factors: &[f32], shifts: &[f32]) {
    let channels = factors.len();
    let tiles = maps.par_iter_mut().flat_map(|map| map.values.par_chunks_mut(TILE * channels));
    tiles.for_each(|tile| {
        for pixel in tile.chunks_mut(channels) {
            for ((value, factor), shift) in pixel.iter_mut().zip(factors).zip(shifts) {
                let straight = *value * factor + shift;
                *value = if straight > 0.0 { straight } else { SLOPE * straight };
            }
        }
    });
}
