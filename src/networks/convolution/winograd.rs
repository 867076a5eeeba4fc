//! 3 × 3 convolutions by Winograd's minimal filtering, F(4 × 4, 3 × 3): four times fewer multiplications.
//!
//! Lavin and Gray, "Fast algorithms for convolutional neural networks" (2015). A tile of 6 × 6 pixels is transformed,
//! multiplied with the transformed kernel place by place, and what comes out is transformed back to 4 × 4 sums. Between
//! the transforms lie 36 matrix products, channels by channels. Rounding errors are some ten times those of the sum as it
//! is defined, still far below the 10⁻⁴ that is asked for.

#![allow(clippy::needless_range_loop, reason = "see super::transforms")]

use super::map::{Block, Filters, LANES, View};
use super::simd::{Epilogue, Kernel, Level, PIXELS_DIVIDE, Vectors, accumulate, store};
use super::transforms::{KERNEL_TRANSFORM, PATCH, PLACES, TILE, Target, patch, sums, transform_patch};
use pulp::Simd;
use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;

/// Tiles that are transformed before they are multiplied: a few register loads, small enough for the second-level cache.
const BATCH: usize = 2 * PIXELS_DIVIDE;
/// Blocks from one place's products to the next one's: odd, as [`Winograd::place_stride`].
const PRODUCT_STRIDE: usize = BATCH + 1;

/// A 3 × 3 convolution of stride 1, with or without zero padding and a 2 × 2 max-pool behind it.
#[derive(Debug, Clone)]
pub(crate) struct Winograd {
    /// `[output block, place, input block][input channel]`, a block of outputs each.
    weights: Arc<[[Block; LANES]]>,
    epilogue: Epilogue,
    input_blocks: usize,
    output_blocks: usize,
    padding: usize,
    pooled: bool,
}

impl Winograd {
    /// Of a kernel with side 3; `padding` is 0, 1 or 2.
    pub(crate) fn new(filters: &Filters, padding: usize, pooled: bool) -> Self {
        let (input_blocks, output_blocks) = (filters.input_blocks(), filters.output_blocks());
        let mut weights = vec![[Block::ZERO; LANES]; output_blocks * PLACES * input_blocks];
        weights.par_chunks_mut((PLACES * input_blocks).max(1)).enumerate().for_each(|(output, weights)| {
            for channel in 0..filters.inputs {
                let kernels = std::array::from_fn(|tap| {
                    std::array::from_fn(|lane| f64::from(filters.weight(output * LANES + lane, channel, tap)))
                });
                let (input, lane) = (channel / LANES, channel % LANES);
                for (place, transformed) in transformed_kernels(&kernels).into_iter().enumerate() {
                    weights[place * input_blocks + input][lane] = transformed;
                }
            }
        });
        Self {
            weights: weights.into(),
            epilogue: Epilogue::new(filters),
            input_blocks,
            output_blocks,
            padding,
            pooled,
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
        self.padding
    }

    /// Blocks from one place's transformed pixels to the next one's: odd, so that a tile's places do not compete for the
    /// same few lines of the first-level cache.
    const fn place_stride(&self) -> usize {
        self.input_blocks * BATCH + 1
    }

    /// Rows or columns of sums for so many of the map, before pooling.
    pub(crate) const fn sums(&self, size: usize) -> usize {
        (size + 2 * self.padding).saturating_sub(2)
    }

    /// Rows or columns of the result for so many of sums.
    pub(crate) const fn kept(&self, sums: usize) -> usize {
        if self.pooled { sums / 2 } else { sums }
    }

    /// Rows or columns of the result for so many of the map.
    pub(crate) const fn output_size(&self, size: usize) -> usize {
        self.kept(self.sums(size))
    }

    /// Fills `output`, whole rows from the first one on, `[row, output block, col]`.
    pub(crate) fn run(&self, level: Level, input: View<'_>, output: &mut [Block]) {
        self.run_padded(level, input, self.padding, output);
    }

    /// As [`Self::run`], of a map that holds the padding's rows itself, or others that come before and after it.
    pub(crate) fn run_bordered(&self, level: Level, input: View<'_>, output: &mut [Block]) {
        self.run_padded(level, input, 0, output);
    }

    fn run_padded(&self, level: Level, input: View<'_>, above: usize, output: &mut [Block]) {
        let row = self.output_blocks * self.output_size(input.cols);
        if row == 0 {
            return;
        }
        output.par_chunks_mut(self.kept(TILE) * row).enumerate().for_each(|(index, output)| {
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.fit(self);
                level.run(TileRow { layer: self, input, above, top: index * TILE, scratch, output });
            });
        });
    }
}

/// Kernels of one input channel and a block of outputs, `[tap]`, as their places: rows first, then columns.
fn transformed_kernels(taps: &[[f64; LANES]; 9]) -> [Block; PLACES] {
    let mut rows = [[[0.0; LANES]; 3]; PATCH];
    for (row, factors) in rows.iter_mut().zip(KERNEL_TRANSFORM) {
        for (taps, factor) in taps.chunks_exact(3).zip(factors) {
            for (sums, taps) in row.iter_mut().zip(taps) {
                sums.iter_mut().zip(taps).for_each(|(sum, tap)| *sum += factor * tap);
            }
        }
    }
    let mut places = [Block::ZERO; PLACES];
    for (place, transformed) in places.iter_mut().enumerate() {
        let mut sums = [0.0; LANES];
        for (taps, factor) in rows[place / PATCH].iter().zip(KERNEL_TRANSFORM[place % PATCH]) {
            sums.iter_mut().zip(taps).for_each(|(sum, tap)| *sum += factor * tap);
        }
        *transformed = Block(sums.map(|sum| sum as f32));
    }
    places
}

thread_local! {
    /// Kept from call to call: hundreds of kilobytes need not be allocated and filled with zeros for every few rows.
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch { patches: Vec::new(), products: Vec::new(), border: [[Block::ZERO; PATCH]; PATCH] })
    };
}

/// What is kept between the transforms of a batch of tiles.
struct Scratch {
    /// Transformed pixels, `[place, input block, tile]`.
    patches: Vec<Block>,
    /// Products for one block of outputs, `[place, tile]`.
    products: Vec<Block>,
    /// A patch that reaches over the map's border.
    border: [[Block; PATCH]; PATCH],
}

impl Scratch {
    /// Makes it large enough for a layer; what it holds is arbitrary.
    fn fit(&mut self, layer: &Winograd) {
        let fit = |blocks: &mut Vec<Block>, size| {
            if blocks.len() < size {
                blocks.resize(size, Block::ZERO);
            }
        };
        fit(&mut self.patches, PLACES * layer.place_stride());
        fit(&mut self.products, PLACES * PRODUCT_STRIDE);
    }
}

/// The tiles beside each other in four rows of sums.
struct TileRow<'a> {
    layer: &'a Winograd,
    input: View<'a>,
    /// Rows of zeros above the map.
    above: usize,
    /// First row of sums.
    top: usize,
    scratch: &'a mut Scratch,
    /// `[row, output block, col]`; fewer rows where the map ends.
    output: &'a mut [Block],
}

impl Kernel for TileRow<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize, const P: usize>(self, simd: S) {
        let Self { layer, input, above, top, scratch, output } = self;
        let mut target = Target {
            data: output,
            blocks: layer.output_blocks,
            cols: layer.output_size(input.cols),
            pooled: layer.pooled,
        };
        let tiles = layer.sums(input.cols).div_ceil(TILE);
        for first in (0..tiles).step_by(BATCH) {
            let batch = BATCH.min(tiles - first);
            for block in 0..layer.input_blocks {
                for tile in 0..batch {
                    let corner = [top, (first + tile) * TILE];
                    let padding = [above, layer.padding];
                    let patch = patch(&input, block, corner, padding, &mut scratch.border);
                    let places = &mut scratch.patches[block * BATCH + tile..];
                    for v in 0..V {
                        transform_patch(simd, patch, v, places, layer.place_stride());
                    }
                }
            }
            for block in 0..layer.output_blocks {
                multiply::<S, V, P>(simd, layer, block, batch.div_ceil(P), scratch);
                for v in 0..V {
                    let epilogue = layer.epilogue.of(simd, block, v);
                    for tile in 0..batch {
                        let sums = sums(simd, &scratch.products[tile..], PRODUCT_STRIDE, v);
                        target.keep(simd, [block, first + tile, v], sums, epilogue);
                    }
                }
            }
        }
    }
}

/// The products of one block of outputs, `groups` of `P` tiles.
#[inline(always)]
fn multiply<S: Simd, const V: usize, const P: usize>(
    simd: S,
    layer: &Winograd,
    block: usize,
    groups: usize,
    scratch: &mut Scratch,
) {
    let inputs = layer.input_blocks;
    let weights = layer.weights[block * PLACES * inputs..].chunks_exact(inputs);
    let patches = scratch.patches.chunks_exact(layer.place_stride());
    let products = scratch.products.chunks_exact_mut(PRODUCT_STRIDE);
    for ((weights, patches), products) in weights.zip(patches).zip(products) {
        for group in 0..groups {
            let mut sums: [Vectors<S, V>; P] = [[simd.splat_f32s(0.0); V]; P];
            for (weights, tiles) in weights.iter().zip(patches.chunks_exact(BATCH)) {
                if let Some(tiles) = tiles[group * P..].first_chunk::<P>() {
                    let mut pixels = [&tiles[0].0; P];
                    for p in 1..P {
                        pixels[p] = &tiles[p].0;
                    }
                    accumulate::<S, V, P, LANES>(simd, &mut sums, pixels, weights);
                }
            }
            for (product, sums) in products[group * P..].iter_mut().zip(sums) {
                store::<S, V>(product, sums);
            }
        }
    }
}
