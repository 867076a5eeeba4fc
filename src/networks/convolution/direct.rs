//! The convolution as it is defined: any kernel, stride, dilation and zero padding.

#![allow(clippy::needless_range_loop, reason = "see super::transforms")]

use super::map::{Block, Filters, LANES, Pixel, View};
use super::simd::{Epilogue, Kernel, Level, Vectors, accumulate, put};
use pulp::Simd;
use rayon::prelude::*;
use std::sync::Arc;

/// How a kernel is laid over its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    /// Zeros around the map, on every side.
    pub(crate) padding: usize,
}

impl Placement {
    /// Next to each other, without padding.
    pub(crate) const VALID: Self = Self { stride: 1, dilation: 1, padding: 0 };
}

/// A convolution that reads `N` channels at once: 1 for an image, [`LANES`] for a feature map.
#[derive(Debug, Clone)]
pub(crate) struct Direct<const N: usize> {
    /// `[output block, row of the kernel, input block, col of the kernel][input channel]`, a block of outputs each.
    weights: Arc<[[Block; N]]>,
    epilogue: Epilogue,
    input_blocks: usize,
    output_blocks: usize,
    side: usize,
    placement: Placement,
}

impl<const N: usize> Direct<N> {
    pub(crate) fn new(filters: &Filters, placement: Placement) -> Self {
        let (side, input_blocks) = (filters.side, filters.inputs.div_ceil(N));
        let mut weights = Vec::new();
        for output in 0..filters.output_blocks() {
            for (row, input, col) in (0..side)
                .flat_map(|row| (0..input_blocks).flat_map(move |i| (0..side).map(move |col| (row, i, col))))
            {
                weights.push(std::array::from_fn(|channel| {
                    Block(std::array::from_fn(|lane| {
                        filters.weight(output * LANES + lane, input * N + channel, row * side + col)
                    }))
                }));
            }
        }
        Self {
            weights: weights.into(),
            epilogue: Epilogue::new(filters),
            input_blocks,
            output_blocks: filters.output_blocks(),
            side,
            placement,
        }
    }

    pub(crate) const fn input_blocks(&self) -> usize {
        self.input_blocks
    }

    pub(crate) const fn output_blocks(&self) -> usize {
        self.output_blocks
    }

    /// Rows or columns of zeros around the map.
    pub(crate) const fn padding(&self) -> usize {
        self.placement.padding
    }

    /// Rows or columns of the result for so many of the map.
    pub(crate) const fn output_size(&self, size: usize) -> usize {
        let Placement { stride, dilation, padding } = self.placement;
        match (size + 2 * padding).checked_sub((self.side - 1) * dilation + 1) {
            Some(free) => free / stride + 1,
            None => 0,
        }
    }

    /// The same weights, `stride` pixels apart.
    pub(crate) fn with_stride(&self, stride: usize) -> Self {
        Self { placement: Placement { stride, ..self.placement }, ..self.clone() }
    }

    pub(crate) const fn stride(&self) -> usize {
        self.placement.stride
    }

    /// Fills `output`, whole rows from the first one on, `[row, output block, col]`.
    pub(crate) fn run<T: Pixel<N>>(&self, level: Level, input: View<'_, T>, output: &mut [Block]) {
        self.run_padded(level, input, self.placement.padding, output);
    }

    /// As [`Self::run`], of a map that holds the padding's rows itself, or others that come before and after it.
    pub(crate) fn run_bordered<T: Pixel<N>>(&self, level: Level, input: View<'_, T>, output: &mut [Block]) {
        self.run_padded(level, input, 0, output);
    }

    fn run_padded<T: Pixel<N>>(&self, level: Level, input: View<'_, T>, above: usize, output: &mut [Block]) {
        let cols = self.output_size(input.cols);
        if cols == 0 {
            return;
        }
        output.par_chunks_mut(cols).enumerate().for_each(|(index, output)| {
            let (row, block) = (index / self.output_blocks, index % self.output_blocks);
            level.run(OutputRow { layer: self, input, above, row, block, output });
        });
    }
}

/// One row of one block of outputs.
struct OutputRow<'a, T, const N: usize> {
    layer: &'a Direct<N>,
    input: View<'a, T>,
    /// Rows of zeros above the map.
    above: usize,
    row: usize,
    block: usize,
    output: &'a mut [Block],
}

impl<T: Pixel<N>, const N: usize> Kernel for OutputRow<'_, T, N> {
    #[inline(always)]
    fn run<S: Simd, const V: usize, const P: usize>(self, simd: S) {
        let Self { layer, input, above, row, block, output } = self;
        let Placement { stride, dilation, padding } = layer.placement;
        let taps = layer.side * layer.input_blocks;
        let weights = &layer.weights[block * layer.side * taps..][..layer.side * taps];
        for (group, outputs) in output.chunks_mut(P).enumerate() {
            let mut sums: [Vectors<S, V>; P] = [[simd.splat_f32s(0.0); V]; P];
            let last = outputs.len() - 1;
            // Where the leftmost tap of each pixel lies; pixels behind the row's end repeat its last one.
            let mut lefts = [0; P];
            for p in 0..P {
                lefts[p] = (group * P + p.min(last)) * stride;
            }
            for (tap_row, weights) in weights.chunks_exact(taps).enumerate() {
                let Some(tap_row) = (row * stride + tap_row * dilation).checked_sub(above) else {
                    continue;
                };
                if tap_row >= input.rows {
                    continue;
                }
                for (input_block, weights) in weights.chunks_exact(layer.side).enumerate() {
                    let pixels = input.row(tap_row, input_block);
                    for (tap_col, weights) in weights.iter().enumerate() {
                        let offset = tap_col * dilation;
                        let mut taps = [T::ZERO.values(); P];
                        for p in 0..P {
                            // Left of the map the difference wraps around, to where no pixel is either.
                            if let Some(pixel) = pixels.get((lefts[p] + offset).wrapping_sub(padding)) {
                                taps[p] = pixel.values();
                            }
                        }
                        accumulate::<S, V, P, N>(simd, &mut sums, taps, weights);
                    }
                }
            }
            for v in 0..V {
                let epilogue = layer.epilogue.of(simd, block, v);
                for (output, sums) in outputs.iter_mut().zip(&sums) {
                    put::<S>(output, v, epilogue.apply(simd, sums[v]));
                }
            }
        }
    }
}
