//! The DCNN's convolutions with their gradients, on the CPU.
//!
//! burn's own backward pass copies every pixel nine times, for each of the two gradients; a training step is three times as
//! fast without. Here a map is a list of pixels, channels together, and keeps the row length of the image that it
//! comes from: a pixel and its two neighbours to the right are then 3 × channels consecutive numbers, and a row of a 3 × 3
//! kernel is one matrix product over all pixels, which copies nothing. What is computed at the right end of rows, where a
//! window wraps around, is never looked at, and its gradient is zero.
//!
//! Checked against burn's gradients in the tests.

use crate::networks::LEAKY_SLOPE;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, ShapeBuilder as _};
use rayon::prelude::*;

/// Side of every kernel.
const KERNEL: usize = 3;
/// Pixels of one matrix product: input and output of it stay in the cache.
const TILE: usize = 1024;

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
            for row in 0..self.rows {
                let first = row * self.row_length;
                let pixels = first..first + self.cols;
                planes.extend(pixels.map(|pixel| self.values[pixel * self.channels + channel]));
            }
        }
        planes
    }

    /// The same values with rows of another length, zeros between them.
    fn with_row_length(&self, row_length: usize) -> Self {
        let mut map = Self::zeros([self.rows, self.cols], self.channels, row_length);
        let old = self.values.chunks(self.row_length * self.channels);
        for (from, to) in old.zip(map.values.chunks_mut(row_length * self.channels)) {
            let length = self.cols * self.channels;
            to[..length].copy_from_slice(&from[..length]);
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

    fn forward(&self, input: &Map) -> Map {
        let shape = [input.rows - (KERNEL - 1), input.cols - (KERNEL - 1)];
        let mut output = Map::zeros(shape, self.outputs, input.row_length);
        correlate(&input.values, &self.weight, input.row_length, &mut output, |tile| {
            tile.chunks_mut(self.outputs).for_each(|pixel| pixel.copy_from_slice(&self.bias));
        });
        output.values.par_iter_mut().for_each(|v| *v *= if *v > 0.0 { 1.0 } else { LEAKY_SLOPE as f32 });
        output
    }

    /// Derivatives of the parameters, and of the input where it is asked for.
    ///
    /// `gradient` is that of `output`, with the same length of rows.
    fn backward(
        &self,
        input: &Map,
        output: &Map,
        mut gradient: Map,
        with_input: bool,
    ) -> (Gradient, Option<Map>) {
        let slopes = gradient.values.par_iter_mut().zip(&output.values);
        slopes.for_each(|(g, &y)| *g *= if y > 0.0 { 1.0 } else { LEAKY_SLOPE as f32 });
        let parameters = self.parameter_gradient(input, &gradient);
        let input = with_input.then(|| self.input_gradient(input, &gradient));
        (parameters, input)
    }

    fn parameter_gradient(&self, input: &Map, gradient: &Map) -> Gradient {
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
        let bias = right.sum_axis(ndarray::Axis(0)).to_vec();
        Gradient { weight, bias }
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
        correlate(&padded, &turned, input.row_length, &mut result, |_| ());
        result
    }
}

/// Adds to every pixel of `output` what a 3 × 3 kernel makes of `input` there, on tiles that `prepare` has filled.
fn correlate(
    input: &[f32],
    weight: &[f32],
    row_length: usize,
    output: &mut Map,
    prepare: impl Fn(&mut [f32]) + Sync,
) {
    let outputs = output.channels;
    let inputs = weight.len() / (KERNEL * KERNEL * outputs);
    let across = KERNEL * inputs;
    output.values.par_chunks_mut(TILE * outputs).enumerate().for_each(|(index, tile)| {
        prepare(tile);
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

/// The input and the output of every layer, in order.
pub(super) fn forward(layers: &[Layer], image: Map) -> Vec<Map> {
    let mut maps = vec![image];
    for layer in layers {
        let Some(input) = maps.last() else { break };
        maps.push(match layer {
            Layer::Convolution(convolution) => convolution.forward(input),
            Layer::Pool => pool(input),
        });
    }
    maps
}

/// The derivatives of every convolution's parameters, in order.
///
/// `maps` come from [`forward`]; `gradient` is that of the last of them.
pub(super) fn backward(layers: &[Layer], maps: &[Map], gradient: Map) -> Vec<Gradient> {
    let mut gradients = Vec::new();
    let mut gradient = Some(gradient);
    for (index, layer) in layers.iter().enumerate().rev() {
        let (Some(input), Some(output), Some(upper)) = (maps.get(index), maps.get(index + 1), gradient)
        else {
            break;
        };
        gradient = match layer {
            Layer::Convolution(convolution) => {
                let upper = upper.with_row_length(output.row_length);
                let (own, below) = convolution.backward(input, output, upper, index > 0);
                gradients.push(own);
                below
            }
            Layer::Pool => Some(pool_backward(input, &upper)),
        };
    }
    gradients.reverse();
    gradients
}

impl Gradient {
    pub fn add(&mut self, other: &Self) {
        self.weight.iter_mut().zip(&other.weight).for_each(|(a, b)| *a += b);
        self.bias.iter_mut().zip(&other.bias).for_each(|(a, b)| *a += b);
    }
}
