//! The features in the middle of every window as independent components, by rows.

use super::direct::{Direct, Placement};
use super::map::{Block, Filters, LANES, Map, View, in_blocks};
use super::simd::Level;
use rayon::prelude::*;

/// The middles of windows on a feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Middles {
    /// Rows before the first middle, and columns.
    pub(crate) margin: usize,
    pub(crate) side: usize,
    pub(crate) stride: usize,
    /// Windows below and beside each other.
    pub(crate) shape: [usize; 2],
}

/// Means of known data, and what makes their spread the same in every direction.
#[derive(Debug, Clone)]
pub(crate) struct Whitening {
    mean: Vec<Block>,
    whiten: Direct<LANES>,
    components: usize,
}

impl Whitening {
    /// `filters` is the whitening matrix as a convolution with side 1, without bias or activation.
    pub(crate) fn new(mean: &[f32], filters: &Filters) -> Self {
        Self {
            mean: in_blocks(mean, 0.0),
            whiten: Direct::new(filters, Placement::VALID),
            components: filters.outputs,
        }
    }
}

/// Takes the feature map's rows as they are made, and gives the components of the windows that they complete.
#[derive(Debug)]
pub(crate) struct SiteComponents<'a> {
    whitening: &'a Whitening,
    middles: Middles,
    /// Sums along the columns of each middle, `[row, channel block, window col]`; rows no window needs are gone.
    sums: Map,
    /// Rows of the feature map still to pass before the first middle.
    skip: usize,
    /// Components of one window.
    count: usize,
    /// `[window row, window col, component]`.
    components: Vec<f32>,
}

impl<'a> SiteComponents<'a> {
    pub(crate) fn new(whitening: &'a Whitening, middles: Middles) -> Self {
        let sums = Map::empty(whitening.mean.len(), middles.shape[1]);
        let count = whitening.components;
        Self { whitening, middles, sums, skip: middles.margin, count, components: Vec::new() }
    }

    /// `features` are the next rows of the map.
    pub(crate) fn push(&mut self, level: Level, features: View<'_>) {
        let Middles { margin, side, stride, shape: [rows, cols] } = self.middles;
        let skipped = self.skip.min(features.rows);
        self.skip -= skipped;
        let features = features.rows(skipped, features.rows - skipped);
        if cols == 0 || features.rows == 0 {
            return;
        }
        self.sums.append(features.rows).par_chunks_mut(cols).enumerate().for_each(|(index, sums)| {
            let row = features.row(index / features.blocks, index % features.blocks);
            for (sum, pixels) in sums.iter_mut().zip(row[margin..].windows(side).step_by(stride)) {
                *sum = pixels.iter().fold(Block::ZERO, |sum, pixel| add(&sum, pixel));
            }
        });
        let ready = self.sums.rows().checked_sub(side).map_or(0, |free| free / stride + 1);
        let ready = ready.min(rows - self.components.len() / (cols * self.count.max(1)));
        if ready == 0 {
            return;
        }
        let (sums, mean) = (self.sums.view(), &self.whitening.mean);
        let mut centred = Map::empty(mean.len(), cols);
        centred.append(ready).par_chunks_mut(cols).enumerate().for_each(|(index, sites)| {
            let (row, block) = (index / mean.len(), index % mean.len());
            let scale = 1.0 / (side * side) as f32;
            for (col, site) in sites.iter_mut().enumerate() {
                let sum = (0..side)
                    .fold(Block::ZERO, |sum, offset| add(&sum, &sums.row(row * stride + offset, block)[col]));
                let mean = &mean[block].0;
                *site = Block(std::array::from_fn(|lane| sum.0[lane] * scale - mean[lane]));
            }
        });
        let mut whitened = Map::empty(self.whitening.whiten.output_blocks(), cols);
        self.whitening.whiten.run(level, centred.view(), whitened.append(ready));
        let whitened = whitened.view();
        for (row, col) in (0..ready).flat_map(|row| (0..cols).map(move |col| (row, col))) {
            let all = (0..whitened.blocks).flat_map(|block| whitened.row(row, block)[col].0);
            self.components.extend(all.take(self.count));
        }
        self.sums.drop_front(ready * stride);
    }

    /// `[window row, window col, component]`.
    pub(crate) fn into_components(self) -> Vec<f32> {
        self.components
    }
}

fn add(a: &Block, b: &Block) -> Block {
    Block(std::array::from_fn(|lane| a.0[lane] + b.0[lane]))
}
