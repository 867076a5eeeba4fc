//! How feature maps lie in memory.

use std::ops::Range;

/// Channels that lie beside each other in memory, and are computed together.
pub(crate) const LANES: usize = 16;

/// One pixel's values of [`LANES`] neighbouring channels, on a cache line of their own.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Block(pub(crate) [f32; LANES]);

impl Block {
    pub(crate) const ZERO: Self = Self([0.0; LANES]);
}

/// One value a pixel, or a block of them: what a convolution can read.
pub(crate) trait Pixel<const N: usize>: Copy + Sync + 'static {
    const ZERO: &'static Self;
    fn values(&self) -> &[f32; N];
}

impl Pixel<1> for f32 {
    const ZERO: &'static Self = &0.0;

    #[inline(always)]
    fn values(&self) -> &[f32; 1] {
        std::array::from_ref(self)
    }
}

impl Pixel<LANES> for Block {
    const ZERO: &'static Self = &Self([0.0; LANES]);

    #[inline(always)]
    fn values(&self) -> &[f32; LANES] {
        &self.0
    }
}

/// Rows of a feature map, `[row, channel block, col]`. Rows lie one behind the other, so that they can be handed out to
/// threads, appended and dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a, T = Block> {
    pub(crate) data: &'a [T],
    pub(crate) rows: usize,
    /// Blocks of channels: `channels.div_ceil(LANES)`, or 1 for a plain image.
    pub(crate) blocks: usize,
    pub(crate) cols: usize,
}

impl<'a, T> View<'a, T> {
    /// `cols` pixels of one row and channel block.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize, block: usize) -> &'a [T] {
        let start = (row * self.blocks + block) * self.cols;
        &self.data[start..start + self.cols]
    }

    /// `count` rows from `first` on.
    pub(crate) fn rows(&self, first: usize, count: usize) -> Self {
        let stride = self.blocks * self.cols;
        Self { data: &self.data[first * stride..(first + count) * stride], rows: count, ..*self }
    }
}

/// A feature map that grows at its end and is dropped at its beginning.
///
/// What is dropped keeps its place until there is at least as much of it as of what is left. So the rows that are moved to
/// the beginning are never more than those that were dropped, however few are dropped at a time.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    data: Vec<Block>,
    /// Rows of `data` that are dropped.
    dropped: usize,
    rows: usize,
    blocks: usize,
    cols: usize,
}

impl Map {
    /// No rows yet.
    pub(crate) const fn empty(blocks: usize, cols: usize) -> Self {
        Self { data: Vec::new(), dropped: 0, rows: 0, blocks, cols }
    }

    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { data: &self.data[self.held()], rows: self.rows, blocks: self.blocks, cols: self.cols }
    }

    /// All pixels, `[row, channel block, col]`.
    pub(crate) fn pixels_mut(&mut self) -> &mut [Block] {
        let held = self.held();
        &mut self.data[held]
    }

    /// Where the rows are.
    const fn held(&self) -> Range<usize> {
        let stride = self.blocks * self.cols;
        self.dropped * stride..(self.dropped + self.rows) * stride
    }

    /// Space for `rows` more rows, which the caller fills; what it holds before is arbitrary.
    pub(crate) fn append(&mut self, rows: usize) -> &mut [Block] {
        let added = rows * self.blocks * self.cols;
        let mut held = self.held();
        if self.data.len() < held.end + added && self.dropped >= self.rows {
            self.data.copy_within(held, 0);
            self.dropped = 0;
            held = self.held();
        }
        let end = held.end + added;
        if self.data.len() < end {
            self.data.resize(end, Block::ZERO);
        }
        self.rows += rows;
        &mut self.data[held.end..end]
    }

    /// More rows, of zeros.
    pub(crate) fn append_zeros(&mut self, rows: usize) {
        self.append(rows).fill(Block::ZERO);
    }

    /// Drops the first `rows` rows, or all.
    pub(crate) fn drop_front(&mut self, rows: usize) {
        let rows = rows.min(self.rows);
        self.dropped += rows;
        self.rows -= rows;
        if self.rows == 0 {
            self.dropped = 0;
        }
    }
}

/// What a layer computes from a convolution's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    None,
    /// LeakyReLU with the networks' slope.
    Leaky,
}

/// A convolution's weights as they are stored, and what follows it.
#[derive(Debug, Clone)]
pub(crate) struct Filters {
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    /// Side of the square kernel.
    pub(crate) side: usize,
    /// `[output, input, row, col]`.
    pub(crate) weights: Vec<f32>,
    /// One an output.
    pub(crate) bias: Vec<f32>,
    pub(crate) activation: Activation,
    /// Multiplied with and added to what the activation gave, one each an output (batch normalisation).
    pub(crate) affine: Option<(Vec<f32>, Vec<f32>)>,
}

impl Filters {
    /// Weight of output and input channel at a place of the kernel; zero where a last block is not full.
    pub(crate) fn weight(&self, output: usize, input: usize, tap: usize) -> f32 {
        if output >= self.outputs || input >= self.inputs {
            return 0.0;
        }
        self.weights[(output * self.inputs + input) * self.side * self.side + tap]
    }

    /// The same filters for input channels that come from maps of so many channels each, whose last blocks are not full.
    pub(crate) fn with_sources(self, sources: &[usize]) -> Self {
        let taps = self.side * self.side;
        let inputs = sources.iter().map(|source| source.next_multiple_of(LANES)).sum();
        let mut weights = vec![0.0; self.outputs * inputs * taps];
        for output in 0..self.outputs {
            let (mut from, mut to) = (output * self.inputs * taps, output * inputs * taps);
            for &source in sources {
                weights[to..to + source * taps].copy_from_slice(&self.weights[from..from + source * taps]);
                from += source * taps;
                to += source.next_multiple_of(LANES) * taps;
            }
        }
        Self { inputs, weights, ..self }
    }

    pub(crate) const fn output_blocks(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    pub(crate) const fn input_blocks(&self) -> usize {
        self.inputs.div_ceil(LANES)
    }
}

/// One value a channel, in blocks, the last one filled up with `fill`.
pub(crate) fn in_blocks(values: &[f32], fill: f32) -> Vec<Block> {
    let block = |chunk: &[f32]| Block(std::array::from_fn(|lane| chunk.get(lane).copied().unwrap_or(fill)));
    values.chunks(LANES).map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stay_in_order_and_room_is_used_again() {
        let (mut map, mut first, mut next, mut most) = (Map::empty(2, 3), 0, 0, 0);
        for step in 0..200 {
            // Two rows more a step on average, and one and a half less.
            let (added, dropped) = (step * 7 % 5, step * 3 % 4);
            for row in map.append(added).chunks_exact_mut(6) {
                row.fill(Block([next as f32; LANES]));
                next += 1;
            }
            most = most.max(map.rows());
            map.drop_front(dropped);
            first = (first + dropped).min(next);
            assert_eq!(map.rows(), next - first);
            let found: Vec<f32> = map.view().data.chunks_exact(6).map(|row| row[5].0[0]).collect();
            let expected: Vec<f32> = (first..next).map(|row| row as f32).collect();
            assert_eq!(found, expected);
        }
        assert!(next > 3 * most, "{most} of {next} rows at once");
        assert!(map.data.len() <= 6 * 2 * most, "room for {} rows, {most} at once", map.data.len() / 6);
    }
}
