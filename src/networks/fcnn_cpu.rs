//! The FCNN on a CPU, through [`super::convolution`].
//!
//! What burn's layers compute, with one step turned round: channels are mixed before the resolution is doubled, not
//! behind it. Both are linear and the weights of the interpolation add up to one, so that it is the same function at a
//! quarter of the cost.
//!
//! An image goes through it by rows ([`super::fcnn_rows`]): apart from the image and the probabilities, memory grows with
//! its width, not its area.

use super::convolution::direct::{Direct, Placement};
use super::convolution::map::{Activation, Block, Filters, LANES, View, in_blocks};
use super::convolution::simd::Level;
use super::convolution::stream::Layer;
use super::convolution::winograd::Winograd;
use super::dcnn_cpu::{affine, filters};
use super::engine::NetworkError;
use super::fcnn::{ConvLayer, DILATIONS, Fcnn, MULTIPLE_OF};
use super::fcnn_rows::FcnnRows;
use ndarray::{Array3, ArrayView2, ArrayViewMut3, s};

/// Pixels that go through the network at once, about, in whole rows: all of a frame of 512 × 512.
const STEP_PIXELS: usize = 1 << 18;
/// Rows of the image that are one row of tiles, of 4 × 4 pixels, at a quarter of the resolution, where tiles are fewest.
const ROWS_PER_THREAD: usize = 4 * 4;
/// Threads for which steps are made larger.
const MOST_THREADS: usize = 16;

/// The FCNN's weights in the order in which the CPU's kernels read them.
#[derive(Debug)]
pub(super) struct CpuFcnn {
    pub(super) level: Level,
    /// At the image's resolution.
    pub(super) first: Direct<1>,
    /// At a half and a quarter of it.
    pub(super) down: [Vec<Layer>; 2],
    pub(super) bottleneck: Vec<Dilated>,
    /// From the image's resolution down to a quarter of it.
    pub(super) up: [Up; 3],
    pub(super) classes: Direct<LANES>,
    /// Number of classes.
    count: usize,
}

/// A convolution of the bottleneck, of which every stage is wanted.
#[derive(Debug)]
pub(super) struct Dilated {
    pub(super) convolution: Direct<LANES>,
    pub(super) scale: Vec<Block>,
    pub(super) shift: Vec<Block>,
}

/// One step of the way up.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) mix: Direct<LANES>,
    pub(super) merge: Vec<Layer>,
}

impl CpuFcnn {
    /// # Errors
    /// When the weights cannot be read from where they are.
    pub(super) fn new(network: &Fcnn) -> Result<Self, NetworkError> {
        let missing = || NetworkError::Execution("an FCNN without a first convolution".to_owned());
        let first = normalised(network.down1.first().ok_or_else(missing)?)?;
        let bottleneck = network.bottleneck.iter().zip(DILATIONS).map(|(layer, dilation)| {
            let placement = Placement { dilation, padding: dilation, ..Placement::VALID };
            let (scale, shift) = affine(&layer.norm)?;
            Ok(Dilated {
                convolution: Direct::new(&filters(&layer.conv, Activation::None)?, placement),
                scale: in_blocks(&scale, 0.0),
                shift: in_blocks(&shift, 0.0),
            })
        });
        let up = |mix, merge: &[ConvLayer]| -> Result<Up, NetworkError> {
            let mix = filters(mix, Activation::None)?;
            // The skip connection has as many channels as what is mixed.
            let merge = winograds(merge, &[mix.outputs, mix.outputs])?;
            Ok(Up { mix: Direct::new(&mix, Placement::VALID), merge })
        };
        let classes = filters(&network.classes, Activation::None)?;
        Ok(Self {
            level: Level::detect(),
            down: [
                winograds(&network.down2, &[first.outputs])?,
                winograds(&network.down3, &[2 * first.outputs])?,
            ],
            first: Direct::new(&first, Placement { padding: 1, ..Placement::VALID }),
            bottleneck: bottleneck.collect::<Result<_, NetworkError>>()?,
            up: [
                up(&network.up1, &network.merge1)?,
                up(&network.up2, &network.merge2)?,
                up(&network.up3, &network.merge3)?,
            ],
            count: classes.outputs,
            classes: Direct::new(&classes, Placement::VALID),
        })
    }

    /// Class probabilities of an image.
    ///
    /// # Shapes
    /// - `image`: `[row, col]`; rows and columns that make it a multiple of 8 are filled with zeros
    /// - result: `[class, row, col]`
    pub(super) fn probabilities(&self, image: ArrayView2<'_, f32>) -> Array3<f32> {
        let (_, cols) = image.dim();
        let rows = STEP_PIXELS / cols.max(1);
        // A multiple of what keeps every thread busy, or they wait for each other at a quarter of the resolution.
        let threads = rayon::current_num_threads().clamp(1, MOST_THREADS);
        self.probabilities_by(image, rows.max(1).next_multiple_of(ROWS_PER_THREAD * threads))
    }

    /// As [`Self::probabilities`], with `step` rows at once, a multiple of [`MULTIPLE_OF`] and not zero.
    fn probabilities_by(&self, image: ArrayView2<'_, f32>, step: usize) -> Array3<f32> {
        let (rows, cols) = image.dim();
        let [padded_rows, padded_cols] = [rows, cols].map(|size| size.next_multiple_of(MULTIPLE_OF));
        let border = self.first.padding();
        let mut pixels = vec![0.0; (padded_rows + 2 * border) * padded_cols];
        for (to, from) in pixels.chunks_mut(padded_cols.max(1)).skip(border).zip(image.rows()) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        let image = View { data: &pixels, rows: padded_rows + 2 * border, blocks: 1, cols: padded_cols };
        let mut network = FcnnRows::new(self, padded_cols);
        let mut result = Array3::zeros((self.count, rows, cols));
        let mut done = 0;
        for start in (0..padded_rows).step_by(step) {
            let count = step.min(padded_rows - start);
            let last = start + count == padded_rows;
            let scores = network.push(image.rows(start, count + 2 * border), last);
            let end = done + scores.rows();
            softmax(scores.view(), result.slice_mut(s![.., done.min(rows)..end.min(rows), ..]));
            done = end;
        }
        result
    }
}

/// A layer's convolution with what it learned to normalise.
fn normalised(layer: &ConvLayer) -> Result<Filters, NetworkError> {
    Ok(Filters { affine: Some(affine(&layer.norm)?), ..filters(&layer.conv, Activation::Leaky)? })
}

/// Convolutions one behind the other. The first one's input channels come from maps of so many channels each.
fn winograds(layers: &[ConvLayer], sources: &[usize]) -> Result<Vec<Layer>, NetworkError> {
    let mut sources = sources.to_vec();
    let layer = |layer| {
        let filters = normalised(layer)?.with_sources(&sources);
        sources = vec![filters.outputs];
        Ok(Layer::Winograd(Winograd::new(&filters, 1, false)))
    };
    layers.iter().map(layer).collect()
}

/// Over the channels of the upper left part of a map; fills `result`, `[class, row, col]`.
fn softmax(scores: View<'_>, mut result: ArrayViewMut3<'_, f32>) {
    let (classes, rows, cols) = result.dim();
    for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
        let score = |class: usize| scores.row(row, class / LANES)[col].0[class % LANES];
        let largest = (0..classes).map(score).fold(f32::MIN, f32::max);
        let total: f32 = (0..classes).map(|class| (score(class) - largest).exp()).sum();
        for class in 0..classes {
            result[[class, row, col]] = (score(class) - largest).exp() / total;
        }
    }
}

#[cfg(test)]
#[path = "fcnn_cpu_tests.rs"]
mod tests;
