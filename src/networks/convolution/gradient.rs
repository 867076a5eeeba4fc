//! Derivatives of the weights of 3 × 3 convolutions without padding: sums over the pixels of all maps.
//!
//! A map's go by the transpose of [`super::winograd`]'s algorithm: tiles of the gradient and the patches under them are
//! transformed, multiplied place by place and summed over all tiles, and the sums alone are transformed back to taps. Tiles
//! are shared out by their number, never by that of threads, and parts are added in order: a result is always the same to the
//! last bit.

#![allow(clippy::needless_range_loop, reason = "see super::transforms")]

use super::map::{Block, LANES, View};
use super::simd::{Kernel, Level, Vectors, accumulate, accumulate_pixels, load, part, put, store};
use super::transforms::{PATCH, PLACES, TILE, patch, spread_tile, taps, transform_patch};
use pulp::Simd;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Places of a kernel.
const TAPS: usize = 9;
/// Tiles that are transformed before they are multiplied: enough that the sums need not be fetched often, few enough for the
/// second-level cache.
const BATCH: usize = 36;
/// Tiles that are worth a part of their own.
const PART: usize = 2 * BATCH;
/// Parts at most.
const PARTS: usize = 16;

/// Of a convolution of feature maps.
///
/// # Shapes
/// - `maps`: the layer's input and the gradient of its sums, 2 rows and columns less; all pairs of
///   one size
/// - `channels`: of the gradient and of the input
/// - result: `[output, input, tap]`
pub(crate) fn of_maps(level: Level, maps: &[[View<'_>; 2]], channels: [usize; 2]) -> Vec<f32> {
    let [outputs, inputs] = channels;
    let tiles = maps.first().map_or(0, |[_, gradient]| tiles(gradient).iter().product()) * maps.len();
    let count = tiles.div_ceil(PART).clamp(1, PARTS);
    let sums: Vec<Vec<Block>> = (0..count)
        .into_par_iter()
        .map(|index| {
            let inputs = inputs.next_multiple_of(LANES);
            let mut sums = vec![Block::ZERO; outputs.div_ceil(LANES) * inputs * TAPS];
            let tiles = index * tiles / count..(index + 1) * tiles / count;
            SCRATCH.with_borrow_mut(|scratch| {
                level.run(Tiles { maps, tiles, scratch, sums: &mut sums });
            });
            sums
        })
        .collect();
    unblocked(&added(sums), outputs, inputs)
}

/// Of a convolution of images, as [`of_maps`].
pub(crate) fn of_images(level: Level, maps: &[(View<'_, f32>, View<'_>)], outputs: usize) -> Vec<f32> {
    let sums: Vec<Vec<Block>> = maps
        .par_iter()
        .map(|&(image, gradient)| {
            let mut sums = vec![Block::ZERO; outputs.div_ceil(LANES) * TAPS];
            level.run(Pixels { image, gradient, sums: &mut sums });
            sums
        })
        .collect();
    unblocked(&added(sums), outputs, 1)
}

/// The sum of all parts, the first one first.
fn added(parts: Vec<Vec<Block>>) -> Vec<Block> {
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_default();
    let parts = parts.as_slice();
    let piece = 1024;
    sum.par_chunks_mut(piece).enumerate().for_each(|(index, sums)| {
        for part in parts {
            for (sum, block) in sums.iter_mut().zip(&part[index * piece..]) {
                sum.0.iter_mut().zip(block.0).for_each(|(sum, value)| *sum += value);
            }
        }
    });
    sum
}

/// `[output block, input channel, tap]`, whose last block of inputs may not be full, as `[output, input, tap]`.
fn unblocked(sums: &[Block], outputs: usize, inputs: usize) -> Vec<f32> {
    let stride = sums.len() / outputs.div_ceil(LANES).max(1);
    let mut weights = Vec::with_capacity(outputs * inputs * TAPS);
    for output in 0..outputs {
        let sums = sums.iter().skip(output / LANES * stride).take(inputs * TAPS);
        weights.extend(sums.map(|block| block.0[output % LANES]));
    }
    weights
}

/// Tiles of a gradient below and beside each other.
const fn tiles(gradient: &View<'_>) -> [usize; 2] {
    [gradient.rows.div_ceil(TILE), gradient.cols.div_ceil(TILE)]
}

thread_local! {
    /// Kept from call to call, as [`super::winograd`]'s.
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch {
            patches: Vec::new(),
            gradients: Vec::new(),
            products: Vec::new(),
            patch: [[Block::ZERO; PATCH]; PATCH],
            tile: [[Block::ZERO; TILE]; TILE],
        })
    };
}

struct Scratch {
    /// Transformed pixels of the input, `[place, input block, tile]`.
    patches: Vec<Block>,
    /// Transformed pixels of the gradient, `[place, output block, tile]`.
    gradients: Vec<Block>,
    /// Their products' sums so far, `[place, output block, input channel]`.
    products: Vec<Block>,
    /// Those that reach over the map's border.
    patch: [[Block; PATCH]; PATCH],
    tile: [[Block; TILE]; TILE],
}

/// Blocks from one place to the next: odd, as in [`super::winograd`].
const fn place_stride(blocks: usize) -> usize {
    blocks * BATCH + 1
}

const fn product_stride(outputs: usize, inputs: usize) -> usize {
    outputs * inputs * LANES + 1
}

impl Scratch {
    /// Makes it large enough for so many blocks; what it holds is arbitrary.
    fn fit(&mut self, outputs: usize, inputs: usize) {
        let fit = |blocks: &mut Vec<Block>, stride: usize| {
            if blocks.len() < PLACES * stride {
                blocks.resize(PLACES * stride, Block::ZERO);
            }
        };
        fit(&mut self.patches, place_stride(inputs));
        fit(&mut self.gradients, place_stride(outputs));
        fit(&mut self.products, product_stride(outputs, inputs));
    }
}

/// Some tiles of all maps, counted map by map and row by row.
struct Tiles<'a> {
    maps: &'a [[View<'a>; 2]],
    tiles: Range<usize>,
    scratch: &'a mut Scratch,
    /// `[output block, input channel, tap]`.
    sums: &'a mut [Block],
}

impl Kernel for Tiles<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize, const P: usize>(self, simd: S) {
        let Self { maps, tiles: range, scratch, sums } = self;
        let Some([input, gradient]) = maps.first() else { return };
        let (inputs, outputs) = (input.blocks, gradient.blocks);
        let [down, across] = tiles(gradient);
        scratch.fit(outputs, inputs);
        for first in range.clone().step_by(BATCH) {
            let batch = BATCH.min(range.end - first);
            for index in 0..batch {
                let (map, tile) = ((first + index) / (down * across), (first + index) % (down * across));
                let [input, gradient] = maps[map];
                let corner = [tile / across * TILE, tile % across * TILE];
                for block in 0..inputs {
                    let patch = patch(&input, block, corner, [0; 2], &mut scratch.patch);
                    let places = &mut scratch.patches[block * BATCH + index..];
                    for v in 0..V {
                        transform_patch(simd, patch, v, places, place_stride(inputs));
                    }
                }
                for block in 0..outputs {
                    let tile = patch(&gradient, block, corner, [0; 2], &mut scratch.tile);
                    let places = &mut scratch.gradients[block * BATCH + index..];
                    for v in 0..V {
                        spread_tile(simd, tile, v, places, place_stride(outputs));
                    }
                }
            }
            let fresh = first == range.start;
            // As many sums as registers hold beside what they are made from.
            match V {
                1 => multiply::<S, V, 16>(simd, scratch, [outputs, inputs], batch, fresh),
                2 => multiply::<S, V, 4>(simd, scratch, [outputs, inputs], batch, fresh),
                _ => multiply::<S, V, 2>(simd, scratch, [outputs, inputs], batch, fresh),
            }
        }
        for (kernel, sums) in sums.chunks_exact_mut(TAPS).enumerate() {
            for v in 0..V {
                let taps = taps(simd, &scratch.products[kernel..], product_stride(outputs, inputs), v);
                for (tap, sum) in sums.iter_mut().enumerate() {
                    put::<S>(sum, v, taps[tap / 3][tap % 3]);
                }
            }
        }
    }
}

/// Adds the products of a batch of tiles to those before, of which there are none if it is a `fresh` beginning; `N` input
/// channels at once.
#[inline(always)]
fn multiply<S: Simd, const V: usize, const N: usize>(
    simd: S,
    scratch: &mut Scratch,
    [outputs, inputs]: [usize; 2],
    batch: usize,
    fresh: bool,
) {
    let patches = scratch.patches.chunks_exact(place_stride(inputs));
    let gradients = scratch.gradients.chunks_exact(place_stride(outputs));
    let products = scratch.products.chunks_exact_mut(product_stride(outputs, inputs));
    for ((patches, gradients), products) in patches.zip(gradients).zip(products) {
        for (group, products) in products.chunks_exact_mut(N).enumerate() {
            let (output, channel) = (group * N / (inputs * LANES), group * N % (inputs * LANES));
            let mut sums: [Vectors<S, V>; N] = [[simd.splat_f32s(0.0); V]; N];
            if !fresh {
                for n in 0..N {
                    sums[n] = load::<S, V>(&products[n]);
                }
            }
            let patches = &patches[channel / LANES * BATCH..][..batch];
            let gradients = &gradients[output * BATCH..][..batch];
            accumulate_pixels::<S, V, N>(simd, &mut sums, [patches, gradients], channel % LANES);
            for (product, sums) in products.iter_mut().zip(sums) {
                store::<S, V>(product, sums);
            }
        }
    }
}

/// All pixels of an image.
struct Pixels<'a> {
    image: View<'a, f32>,
    gradient: View<'a>,
    /// `[output block, tap]`.
    sums: &'a mut [Block],
}

impl Kernel for Pixels<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize, const P: usize>(self, simd: S) {
        let Self { image, gradient, sums: target } = self;
        for (block, target) in target.chunks_exact_mut(TAPS).enumerate() {
            for row in 0..gradient.rows {
                let rows = [image.row(row, 0), image.row(row + 1, 0), image.row(row + 2, 0)];
                let mut sums: [Vectors<S, V>; TAPS] = [[simd.splat_f32s(0.0); V]; TAPS];
                let (whole, rest) = gradient.row(row, block).as_chunks::<LANES>();
                for (index, gradient) in whole.iter().enumerate() {
                    add_pixels(simd, &mut sums, rows, index * LANES, gradient);
                }
                for (index, gradient) in rest.iter().enumerate() {
                    let col = whole.len() * LANES + index;
                    add_pixels(simd, &mut sums, rows, col, std::array::from_ref(gradient));
                }
                for (target, sums) in target.iter_mut().zip(sums) {
                    for v in 0..V {
                        put::<S>(target, v, simd.add_f32s(part::<S>(target, v), sums[v]));
                    }
                }
            }
        }
    }
}

/// Adds the products of `N` pixels, from `col` on, with the nine of the image that each was made from.
#[inline(always)]
fn add_pixels<S: Simd, const V: usize, const N: usize>(
    simd: S,
    sums: &mut [Vectors<S, V>; TAPS],
    rows: [&[f32]; 3],
    col: usize,
    gradient: &[Block; N],
) {
    let mut pixels = [&[0.0; N]; TAPS];
    for tap in 0..TAPS {
        if let Some(row) = rows[tap / 3][col + tap % 3..].first_chunk() {
            pixels[tap] = row;
        }
    }
    accumulate::<S, V, TAPS, N>(simd, sums, pixels, gradient);
}
