//! An image through the FCNN by rows, on a CPU: every layer goes as far as the rows that it has reach, and rows that no
//! layer needs any more are forgotten.
//!
//! Nothing is computed twice and no seam can show: tiles lie where they lie in whole maps, and only maps that begin and end
//! with the padding's zeros tell the image's border from the end of what has come so far. What the way up needs waits until
//! the way through the bottleneck has come to the same place, about 200 rows of the image later.

use super::LEAKY_SLOPE;
use super::convolution::map::{Block, LANES, Map, View};
use super::convolution::simd::Level;
use super::convolution::stream::{Chain, pool};
use super::convolution::upsample::beside_upsampled;
use super::fcnn_cpu::{CpuFcnn, Dilated, Up};

/// What is at hand of one image.
#[derive(Debug)]
pub(super) struct FcnnRows<'a> {
    network: &'a CpuFcnn,
    /// At a half and a quarter of the resolution.
    down: [Chain<'a>; 2],
    bottleneck: Bottleneck<'a>,
    /// From the image's resolution down to a quarter of it.
    up: [Way<'a>; 3],
}

/// What the way up needs at one resolution.
#[derive(Debug)]
struct Way<'a> {
    layers: &'a Up,
    /// Of the way down.
    skip: Map,
    /// From half the resolution, already mixed, beginning one row above `skip`; the image's first and last row are there
    /// twice.
    mixed: Map,
    merge: Chain<'a>,
}

/// Convolutions of which every stage is added up.
#[derive(Debug)]
struct Bottleneck<'a> {
    layers: &'a [Dilated],
    /// What each layer reads, with the rows of zeros around it.
    inputs: Vec<Map>,
    sums: Map,
    /// Rows of the sums to which each layer has added.
    added: Vec<usize>,
}

impl<'a> FcnnRows<'a> {
    /// For an image whose rows are so many pixels, a multiple of [`super::fcnn::MULTIPLE_OF`].
    pub(super) fn new(network: &'a CpuFcnn, cols: usize) -> Self {
        let [first, second] = &network.down;
        let mut divisor = 1;
        let up = network.up.each_ref().map(|up| {
            let (skips, cols, coarse) = (up.mix.output_blocks(), cols / divisor, cols / divisor / 2);
            divisor *= 2;
            Way {
                layers: up,
                // As many channels as what is mixed.
                skip: Map::empty(skips, cols),
                mixed: Map::empty(skips, coarse),
                merge: Chain::new(&up.merge, cols),
            }
        });
        Self {
            network,
            down: [Chain::new(first, cols / 2), Chain::new(second, cols / 4)],
            bottleneck: Bottleneck::new(&network.bottleneck, cols / 8),
            up,
        }
    }

    /// Takes the next rows and gives the scores of those that are done then, blocks of classes; with the `last` ones, of all
    /// that remain.
    ///
    /// # Shapes
    /// - `image`: a multiple of 8 rows, and one more above and below them: the image's, or zeros beyond its border
    /// - result: rows that follow those given before, of as many pixels as the image's
    pub(super) fn push(&mut self, image: View<'_, f32>, last: bool) -> Map {
        let Self { network, down, bottleneck, up } = self;
        let (network, level) = (*network, network.level);
        let mut made = image.rows - 2 * network.first.padding();
        let ([second, third], [full, half, quarter]) = (down, up);
        network.first.run_bordered(level, image, full.skip.append(made));
        full.pool_last(made, second.input());
        made = second.advance(level, last, &mut half.skip);
        half.pool_last(made, third.input());
        made = third.advance(level, last, &mut quarter.skip);
        let mut map = Map::empty(quarter.skip.view().blocks, quarter.skip.view().cols / 2);
        quarter.pool_last(made, &mut map);
        map = bottleneck.advance(level, map, last);
        for way in [quarter, half, full] {
            way.mix(level, map.view(), last);
            map = way.merge(level, last);
        }
        let classes = &network.classes;
        let mut scores = Map::empty(classes.output_blocks(), map.view().cols);
        classes.run(level, map.view(), scores.append(map.rows()));
        scores
    }
}

impl Way<'_> {
    /// Of the newest rows, at half the resolution.
    fn pool_last(&self, rows: usize, output: &mut Map) {
        let skip = self.skip.view();
        pool(skip.rows(skip.rows - rows, rows), output.append(rows / 2));
    }

    /// Takes the next rows from half the resolution.
    fn mix(&mut self, level: Level, coarse: View<'_>, last: bool) {
        if coarse.rows == 0 {
            return;
        }
        let Self { layers: Up { mix, .. }, mixed, .. } = self;
        if mixed.rows() == 0 {
            mix.run(level, coarse.rows(0, 1), mixed.append(1));
        }
        mix.run(level, coarse, mixed.append(coarse.rows));
        if last {
            mix.run(level, coarse.rows(coarse.rows - 1, 1), mixed.append(1));
        }
    }

    /// As many rows as both sides reach.
    fn merge(&mut self, level: Level, last: bool) -> Map {
        let coarse = self.mixed.rows().saturating_sub(2).min(self.skip.rows() / 2);
        let fine = 2 * coarse;
        let skip = self.skip.view().rows(0, fine);
        let mixed = self.mixed.view().rows(0, if coarse > 0 { coarse + 2 } else { 0 });
        beside_upsampled(skip, mixed, self.merge.input().append(fine));
        self.skip.drop_front(fine);
        self.mixed.drop_front(coarse);
        // As many channels as what is mixed.
        let mut output = Map::empty(self.layers.mix.output_blocks(), self.skip.view().cols);
        self.merge.advance(level, last, &mut output);
        output
    }
}

impl<'a> Bottleneck<'a> {
    fn new(layers: &'a [Dilated], cols: usize) -> Self {
        let input = |layer: &Dilated| {
            let mut input = Map::empty(layer.convolution.input_blocks(), cols);
            input.append_zeros(layer.convolution.padding());
            input
        };
        let outputs = layers.first().map_or(0, |layer| layer.convolution.output_blocks());
        Self {
            layers,
            inputs: layers.iter().map(input).collect(),
            sums: Map::empty(outputs, cols),
            added: vec![0; layers.len()],
        }
    }

    /// Takes the next rows, and gives the sum of what every convolution, every LeakyReLU and every normalisation gives, as
    /// far as they reach.
    fn advance(&mut self, level: Level, rows: Map, last: bool) -> Map {
        let Self { layers, inputs, sums, added } = self;
        let row = sums.view().blocks * sums.view().cols;
        let mut rows = rows;
        for ((layer, input), added) in layers.iter().zip(inputs).zip(added.iter_mut()) {
            let (convolution, padding) = (&layer.convolution, layer.convolution.padding());
            input.append(rows.rows()).copy_from_slice(rows.view().data);
            if last {
                input.append_zeros(padding);
            }
            let made = convolution.output_size(input.rows().saturating_sub(2 * padding));
            rows = Map::empty(convolution.output_blocks(), input.view().cols);
            convolution.run_bordered(level, input.view(), rows.append(made));
            input.drop_front(made);
            sums.append_zeros((*added + made).saturating_sub(sums.rows()));
            layer.normalise(&mut rows, &mut sums.pixels_mut()[*added * row..]);
            *added += made;
        }
        let done = added.last().copied().unwrap_or(0);
        let mut result = Map::empty(sums.view().blocks, sums.view().cols);
        result.append(done).copy_from_slice(sums.view().rows(0, done).data);
        sums.drop_front(done);
        added.iter_mut().for_each(|added| *added -= done);
        result
    }
}

impl Dilated {
    /// Makes what is to be handed on from a convolution's `rows`, and adds all three stages to `sums`.
    fn normalise(&self, rows: &mut Map, sums: &mut [Block]) {
        let (blocks, cols) = (self.scale.len(), rows.view().cols.max(1));
        for (index, (value, sum)) in rows.pixels_mut().iter_mut().zip(sums).enumerate() {
            let block = index / cols % blocks;
            let (scale, shift) = (&self.scale[block].0, &self.shift[block].0);
            for lane in 0..LANES {
                let activated = value.0[lane].max(value.0[lane] * LEAKY_SLOPE as f32);
                let normalised = activated * scale[lane] + shift[lane];
                sum.0[lane] += value.0[lane] + (activated + normalised);
                value.0[lane] = normalised;
            }
        }
    }
}
