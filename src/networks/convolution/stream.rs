//! A network run by rows: every layer goes as far as the rows that it has reach.
//!
//! Layers that pad do not differ: their maps begin and end with the padding's rows of zeros.

use super::direct::Direct;
use super::map::{Block, LANES, Map, View};
use super::simd::Level;
use super::transforms::TILE;
use super::winograd::Winograd;
use rayon::prelude::*;

/// One layer behind the first one.
#[derive(Debug, Clone)]
pub(crate) enum Layer {
    Winograd(Winograd),
    Direct(Direct<LANES>),
    /// 2 × 2 max-pooling by itself, of so many blocks of channels.
    Pool(usize),
}

impl Layer {
    const fn input_blocks(&self) -> usize {
        match self {
            Self::Winograd(layer) => layer.input_blocks(),
            Self::Direct(layer) => layer.input_blocks(),
            Self::Pool(blocks) => *blocks,
        }
    }

    const fn output_blocks(&self) -> usize {
        match self {
            Self::Winograd(layer) => layer.output_blocks(),
            Self::Direct(layer) => layer.output_blocks(),
            Self::Pool(blocks) => *blocks,
        }
    }

    /// Rows or columns of the result for so many of the map.
    const fn output_size(&self, size: usize) -> usize {
        match self {
            Self::Winograd(layer) => layer.output_size(size),
            Self::Direct(layer) => layer.output_size(size),
            Self::Pool(_) => size / 2,
        }
    }

    /// Rows of zeros before a map's first row, and behind its last one.
    const fn padding(&self) -> usize {
        match self {
            Self::Winograd(layer) => layer.padding(),
            Self::Direct(layer) => layer.padding(),
            Self::Pool(_) => 0,
        }
    }

    /// What the layer reads, before any rows have come.
    fn input(&self, cols: usize) -> Map {
        let mut map = Map::empty(self.input_blocks(), cols);
        map.append_zeros(self.padding());
        map
    }

    /// Rows that can be computed from the `rows` at hand, and rows that are done with then. As long as more rows come,
    /// only whole steps of `step` rows of sums are made: whatever the steps, tiles lie where they would lie without
    /// them, so that a result does not depend on how it was cut, to the last bit.
    const fn ready(&self, rows: usize, last: bool, step: usize) -> (usize, usize) {
        // Those that the layer would have its padding added to.
        let Some(rows) = rows.checked_sub(2 * self.padding()) else { return (0, 0) };
        match self {
            Self::Winograd(layer) => {
                let sums = layer.sums(rows);
                let sums = if last { sums } else { sums / step * step };
                (layer.kept(sums), sums)
            }
            Self::Direct(layer) => {
                let made = layer.output_size(rows);
                (made, made * layer.stride())
            }
            Self::Pool(_) => (rows / 2, rows / 2 * 2),
        }
    }

    fn run(&self, level: Level, input: View<'_>, output: &mut [Block]) {
        match self {
            Self::Winograd(layer) => layer.run_bordered(level, input, output),
            Self::Direct(layer) => layer.run_bordered(level, input, output),
            Self::Pool(_) => pool(input, output),
        }
    }

    /// Moves the rows that can be computed from one map to the next.
    fn advance(&self, level: Level, [input, output]: [&mut Map; 2], last: bool, step: usize) -> usize {
        if last {
            input.append_zeros(self.padding());
        }
        let (made, done) = self.ready(input.rows(), last, step);
        if made > 0 {
            self.run(level, input.view(), output.append(made));
        }
        input.drop_front(done);
        made
    }
}

/// 2 × 2 max-pooling; fills `output`, `[row, channel block, col]`.
pub(crate) fn pool(input: View<'_>, output: &mut [Block]) {
    let cols = input.cols / 2;
    if cols == 0 {
        return;
    }
    output.par_chunks_mut(cols).enumerate().for_each(|(index, output)| {
        let (row, block) = (index / input.blocks, index % input.blocks);
        let (upper, lower) = (input.row(2 * row, block), input.row(2 * row + 1, block));
        let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
        for (pixel, (upper, lower)) in output.iter_mut().zip(pairs) {
            for (lane, value) in pixel.0.iter_mut().enumerate() {
                let pair = |pixels: &[Block]| pixels.iter().map(|p| p.0[lane]).fold(f32::MIN, f32::max);
                *value = pair(upper).max(pair(lower));
            }
        }
    });
}

/// A network of convolutions from an image to one map.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) first: Direct<1>,
    pub(crate) layers: Vec<Layer>,
}

impl Network {
    /// The network on a whole image, `[row, col]`. `watch` sees each layer's new rows as they are made, with the layer's
    /// place in [`Self::layers`]. About `step` rows of each layer are in memory at once, a multiple of 4.
    pub(crate) fn run(
        &self,
        level: Level,
        image: View<'_, f32>,
        step: usize,
        mut watch: impl FnMut(usize, View<'_>),
    ) -> Map {
        let step = step.next_multiple_of(TILE).max(TILE);
        let mut cols = self.first.output_size(image.cols);
        let mut maps = Vec::with_capacity(self.layers.len() + 1);
        for layer in &self.layers {
            maps.push(layer.input(cols));
            cols = layer.output_size(cols);
        }
        let outputs = self.layers.last().map_or(self.first.output_blocks(), Layer::output_blocks);
        maps.push(Map::empty(outputs, cols));
        let rows = self.first.output_size(image.rows);
        for start in (0..rows).step_by(step) {
            let count = step.min(rows - start);
            if let Some(map) = maps.first_mut() {
                // Kernel side less one rows more than it gives.
                let input = image.rows(start, image.rows - (rows - count));
                self.first.run(level, input, map.append(count));
            }
            let last = start + count == rows;
            for (index, layer) in self.layers.iter().enumerate() {
                if let Some([input, output]) =
                    maps.get_mut(index..index + 2).and_then(|pair| pair.as_mut_array())
                {
                    let made = layer.advance(level, [input, output], last, step);
                    watch(index, output.view().rows(output.rows() - made, made));
                }
            }
        }
        maps.pop().unwrap_or_else(|| Map::empty(0, 0))
    }
}

/// Layers one behind the other, to which rows come from elsewhere.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    layers: &'a [Layer],
    input: Map,
    /// What every layer but the first one reads.
    between: Vec<Map>,
}

impl<'a> Chain<'a> {
    /// For rows of `cols` pixels.
    pub(crate) fn new(layers: &'a [Layer], cols: usize) -> Self {
        let mut cols = cols;
        let mut inputs = layers.iter().map(|layer| {
            let input = layer.input(cols);
            cols = layer.output_size(cols);
            input
        });
        let input = inputs.next().unwrap_or_else(|| Map::empty(0, 0));
        Self { layers, input, between: inputs.collect() }
    }

    /// Where the next rows are to be put.
    pub(crate) const fn input(&mut self) -> &mut Map {
        &mut self.input
    }

    /// Appends to `output` what the rows that have come reach, and says how many rows that are.
    pub(crate) fn advance(&mut self, level: Level, last: bool, output: &mut Map) -> usize {
        let Some((end, layers)) = self.layers.split_last() else { return 0 };
        let mut input = &mut self.input;
        for (layer, between) in layers.iter().zip(&mut self.between) {
            layer.advance(level, [input, &mut *between], last, TILE);
            input = between;
        }
        end.advance(level, [input, output], last, TILE)
    }
}

/// Rows in one step: enough for every thread, few enough for the cache.
pub(crate) fn rows_per_step() -> usize {
    (8 * rayon::current_num_threads()).clamp(16, 256)
}
