//! The FCNN on a CPU, through [`super::convolution`].
//!
//! What burn's layers compute, with one step turned round: channels are mixed before the resolution is doubled, not
//! behind it. Both are linear and the weights of the interpolation add up to one, so that it is the same function at a
//! quarter of the cost.

use super::LEAKY_SLOPE;
use super::convolution::direct::{Direct, Placement};
use super::convolution::map::{Activation, Block, Filters, LANES, Map, Pixel, View, in_blocks};
use super::convolution::simd::Level;
use super::convolution::stream::pool;
use super::convolution::upsample::beside_upsampled;
use super::convolution::winograd::Winograd;
use super::dcnn_cpu::{affine, filters};
use super::engine::NetworkError;
use super::fcnn::{ConvLayer, DILATIONS, Fcnn, MULTIPLE_OF};
use ndarray::{Array3, ArrayView2};

/// The FCNN's weights in the order in which the CPU's kernels read them.
#[derive(Debug)]
pub(super) struct CpuFcnn {
    level: Level,
    /// At the image's resolution.
    first: Direct<1>,
    /// At a half and a quarter of it.
    down: [Vec<Winograd>; 2],
    bottleneck: Vec<Dilated>,
    /// From a quarter of the resolution up.
    up: [Up; 3],
    classes: Direct<LANES>,
    /// Number of classes.
    count: usize,
}

/// A convolution of the bottleneck, of which every stage is wanted.
#[derive(Debug)]
struct Dilated {
    convolution: Direct<LANES>,
    scale: Vec<Block>,
    shift: Vec<Block>,
}

/// One step of the way up.
#[derive(Debug)]
struct Up {
    mix: Direct<LANES>,
    merge: Vec<Winograd>,
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
                up(&network.up3, &network.merge3)?,
                up(&network.up2, &network.merge2)?,
                up(&network.up1, &network.merge1)?,
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
        let (rows, cols) = image.dim();
        let [padded_rows, padded_cols] = [rows, cols].map(|size| size.next_multiple_of(MULTIPLE_OF));
        let mut pixels = vec![0.0; padded_rows * padded_cols];
        for (to, from) in pixels.chunks_mut(padded_cols.max(1)).zip(image.rows()) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        let image = View { data: &pixels, rows: padded_rows, blocks: 1, cols: padded_cols };
        let mut skips = vec![self.direct(&self.first, image)];
        for layers in &self.down {
            let coarse = skips.last().map(|map| pooled(map.view()));
            skips.extend(coarse.map(|map| self.winograds(layers, map)));
        }
        let coarse = skips.last().map(|map| pooled(map.view())).unwrap_or_else(|| Map::empty(0, 0));
        let mut map = self.dilated(coarse);
        for up in &self.up {
            let Some(skip) = skips.pop() else { break };
            let mixed = self.direct(&up.mix, map.view());
            map = self.winograds(&up.merge, beside_upsampled(skip.view(), mixed.view()));
        }
        let scores = self.direct(&self.classes, map.view());
        softmax(scores.view(), [self.count, rows, cols])
    }

    fn direct<T: Pixel<N>, const N: usize>(&self, layer: &Direct<N>, input: View<'_, T>) -> Map {
        let mut output = Map::empty(layer.output_blocks(), layer.output_size(input.cols));
        layer.run(self.level, input, output.append(layer.output_size(input.rows)));
        output
    }

    fn winograds(&self, layers: &[Winograd], input: Map) -> Map {
        layers.iter().fold(input, |input, layer| {
            let input = input.view();
            let mut output = Map::empty(layer.output_blocks(), layer.output_size(input.cols));
            layer.run(self.level, input, output.append(layer.output_size(input.rows)));
            output
        })
    }

    /// The sum of what every convolution of the bottleneck, every LeakyReLU and every normalisation gives.
    fn dilated(&self, input: Map) -> Map {
        let mut input = input;
        let mut sum: Option<Map> = None;
        for layer in &self.bottleneck {
            let mut convolved = self.direct(&layer.convolution, input.view());
            let mut children = convolved.clone();
            let (blocks, cols) = (layer.scale.len(), convolved.view().cols.max(1));
            let pixels = convolved.pixels_mut().iter_mut().zip(children.pixels_mut());
            for (index, (value, child)) in pixels.enumerate() {
                let block = index / cols % blocks;
                let (scale, shift) = (&layer.scale[block].0, &layer.shift[block].0);
                for lane in 0..LANES {
                    let activated = value.0[lane].max(value.0[lane] * LEAKY_SLOPE as f32);
                    let normalised = activated * scale[lane] + shift[lane];
                    child.0[lane] += activated + normalised;
                    value.0[lane] = normalised;
                }
            }
            match &mut sum {
                Some(sum) => {
                    sum.pixels_mut().iter_mut().zip(children.pixels_mut()).for_each(|(sum, child)| {
                        sum.0.iter_mut().zip(child.0).for_each(|(sum, child)| *sum += child);
                    })
                }
                None => sum = Some(children),
            }
            input = convolved;
        }
        sum.unwrap_or(input)
    }
}

/// A layer's convolution with what it learned to normalise.
fn normalised(layer: &ConvLayer) -> Result<Filters, NetworkError> {
    Ok(Filters { affine: Some(affine(&layer.norm)?), ..filters(&layer.conv, Activation::Leaky)? })
}

/// Convolutions one behind the other. The first one's input channels come from maps of so many channels each.
fn winograds(layers: &[ConvLayer], sources: &[usize]) -> Result<Vec<Winograd>, NetworkError> {
    let mut sources = sources.to_vec();
    let layer = |layer| {
        let filters = normalised(layer)?.with_sources(&sources);
        sources = vec![filters.outputs];
        Ok(Winograd::new(&filters, 1, false))
    };
    layers.iter().map(layer).collect()
}

fn pooled(map: View<'_>) -> Map {
    let mut result = Map::empty(map.blocks, map.cols / 2);
    pool(map, result.append(map.rows / 2));
    result
}

/// Over the channels of the upper left part of a map.
fn softmax(scores: View<'_>, [classes, rows, cols]: [usize; 3]) -> Array3<f32> {
    let mut result = Array3::zeros((classes, rows, cols));
    for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
        let score = |class: usize| scores.row(row, class / LANES)[col].0[class % LANES];
        let largest = (0..classes).map(score).fold(f32::MIN, f32::max);
        let total: f32 = (0..classes).map(|class| (score(class) - largest).exp()).sum();
        for class in 0..classes {
            result[[class, row, col]] = (score(class) - largest).exp() / total;
        }
    }
    result
}

#[cfg(test)]
#[path = "fcnn_cpu_tests.rs"]
mod tests;
