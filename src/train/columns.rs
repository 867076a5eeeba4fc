//! What the DCNN learns beside its outputs: from every place of the map under its head, the way to the nearest A column, to the
//! nearest B column, and to the nearest middle of four A columns.
//!
//! P is a small difference of two positions that the network must find first, the B column's and that middle; from P alone it
//! does not: the loss of a deep head stood still for 900 steps. Told where they are, a network finds them within a few dozen
//! steps, and P, the difference of two of the ways, from them. The layer that answers is left behind when training ends.

use super::samples::Sample;
use crate::columns::Neighbours;
use crate::frame::Sublattice;
use crate::networks::{Dcnn, DcnnConfig};
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Tensor};
use ndarray::{Array3, s};

/// Components of the ways: `x, y` each to A, to B, and to the middle of a cell.
pub(super) const WAYS: usize = 6;
/// A way of this length is 1 to the network, pm.
const SCALE_PM: f64 = 100.0;
/// Of places farther from a column than this nothing is asked, pm: which column is the nearest turns on little there.
const NEAR_PM: f64 = 165.0;

/// A DCNN and the layer that says where the columns are.
#[derive(Module, Debug)]
pub struct Learner {
    pub(super) dcnn: Dcnn,
    ways: Conv2d,
}

impl Learner {
    pub(super) fn new(dcnn: Dcnn, channels: usize, device: &Device) -> Self {
        Self { dcnn, ways: Conv2dConfig::new([channels, WAYS], [1, 1]).init(device) }
    }

    /// Mean square, over what is asked, of the error in the ways.
    ///
    /// # Shapes
    /// - `map`: of [`Dcnn::context`]
    /// - `asked`: `[batch, 6, row, col]`, the weight of each component, 0 where nothing is asked
    /// - `targets`: as `asked`
    pub(super) fn ways_loss(&self, map: Tensor<4>, targets: Tensor<4>, asked: Tensor<4>) -> Tensor<1> {
        let errors = self.ways.forward(map) - targets;
        (errors.clone() * errors * asked.clone()).sum() / asked.sum().clamp_min(1.0)
    }
}

/// Where ways lead to: `[row, col]`, px. An empty list is not asked for.
#[derive(Debug, Default)]
pub(super) struct Aims {
    a: Vec<[f64; 2]>,
    b: Vec<[f64; 2]>,
    middles: Vec<[f64; 2]>,
}

impl Aims {
    /// For an image that begins at `corner` of the sample.
    pub fn new(sample: &Sample, corner: [f64; 2]) -> Self {
        let here = |row: f64, col: f64| [row - corner[0], col - corner[1]];
        let of = |sublattice: Sublattice| {
            let columns =
                sample.columns.iter().filter(|column| column.class.sublattice() == Some(sublattice));
            columns.map(|column| here(column.row, column.col)).collect()
        };
        let whole = sample.cells.iter().filter(|known| !known.disturbed);
        Self {
            a: of(Sublattice::A),
            b: of(Sublattice::B),
            middles: whole.map(|known| here(known.cell.row, known.cell.col)).collect(),
        }
    }
}

/// The ways from every place of a network's context map, and 1 where they are asked for, 0 elsewhere.
///
/// # Shapes
/// - `shape`: of the image, px; results: `[6, row, col]`
pub(super) fn ways(
    aims: &Aims,
    config: &DcnnConfig,
    shape: [usize; 2],
    pixel_size_pm: f64,
) -> [Array3<f32>; 2] {
    let [first, step] = config.context_grid();
    // As many places behind the last as before the first.
    let [rows, cols] = shape.map(|side| ((side as f64 - 1.0 - 2.0 * first) / step) as usize + 1);
    let mut targets = Array3::zeros((WAYS, rows, cols));
    let mut asked = Array3::zeros((WAYS, rows, cols));
    for (channel, positions) in [(0, &aims.a), (2, &aims.b), (4, &aims.middles)] {
        let tree = Neighbours::new(positions);
        for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
            let (row, col) = (first + step * i as f64, first + step * j as f64);
            let nearest = tree.nearest([row, col], NEAR_PM / pixel_size_pm);
            let Some(&[to_row, to_col]) = nearest.and_then(|(index, _)| positions.get(index)) else {
                continue;
            };
            for (k, way) in [to_col - col, to_row - row].into_iter().enumerate() {
                targets[[channel + k, i, j]] = (way * pixel_size_pm / SCALE_PM) as f32;
            }
            asked.slice_mut(s![channel..channel + 2, i, j]).fill(1.0);
        }
    }
    [targets, asked]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{HeadKind, Padding};
    use burn::tensor::TensorData;

    fn config(head: HeadKind) -> DcnnConfig {
        DcnnConfig { padding: Padding::Valid, head, window_px: 80, outputs: 7 }
    }

    #[test]
    fn ways_cover_the_context_map_and_lead_to_the_columns() {
        let aims = Aims { a: vec![[40.0, 43.5]], b: vec![[60.5, 50.0]], middles: vec![[58.5, 49.0]] };
        let places = [&aims.a, &aims.b, &aims.middles];
        for head in [HeadKind::Linear, HeadKind::Deep] {
            let device = Device::flex();
            let network = config(head).init(&device);
            for shape in [[80, 96], [88, 176]] {
                let map = network.context(Tensor::ones([1, 1, shape[0], shape[1]], &device));
                let [targets, asked] = ways(&aims, &config(head), shape, 15.0);
                assert_eq!(
                    [WAYS, map.dims()[2], map.dims()[3]],
                    <[usize; 3]>::from(targets.dim()),
                    "{head:?}"
                );
                let [first, step] = config(head).context_grid();
                let mut near = 0;
                for ((channel, i, j), &way) in targets.indexed_iter() {
                    let at = [first + step * i as f64, first + step * j as f64];
                    let [to_row, to_col] = places[channel / 2][0];
                    let distance = (to_row - at[0]).hypot(to_col - at[1]);
                    assert_eq!(asked[[channel, i, j]] > 0.0, distance * 15.0 <= 165.0);
                    if distance * 15.0 <= 165.0 {
                        let expected = if channel % 2 == 0 { to_col - at[1] } else { to_row - at[0] };
                        assert!((f64::from(way) - expected * 0.15).abs() < 1e-6);
                        near += 1;
                    }
                }
                assert!(near > 20, "{near}");
            }
        }
    }

    /// A change of one pixel moves only what looks there: the centre of what changed is that pixel.
    #[test]
    fn a_place_of_the_context_map_looks_around_its_centre() {
        let device = Device::flex();
        for head in [HeadKind::Linear, HeadKind::Deep] {
            let folder = tempfile::tempdir().unwrap();
            let architecture = crate::networks::Architecture::Dcnn(config(head));
            crate::networks::write_untrained(folder.path(), architecture, 3).unwrap();
            let network = crate::networks::LoadedModel::dcnn(folder.path(), &device).unwrap().network;
            let map = |at: Option<[usize; 2]>| {
                let mut image = vec![0.5f32; 144 * 144];
                if let Some([row, col]) = at {
                    image[row * 144 + col] = 5.0;
                }
                network.context(Tensor::from_data(TensorData::new(image, [1, 1, 144, 144]), &device))
            };
            let [first, step] = config(head).context_grid();
            let (row, col) = (70usize, 65usize);
            let changed = (map(Some([row, col])) - map(None)).abs().sum_dim(1);
            let [_, _, rows, cols] = changed.dims();
            let values: Vec<f32> = changed.into_data().try_into_vec().unwrap();
            let hit = |k: usize| values[k] > 0.0;
            let rows_hit: Vec<usize> = (0..rows).filter(|i| (0..cols).any(|j| hit(i * cols + j))).collect();
            let cols_hit: Vec<usize> = (0..cols).filter(|j| (0..rows).any(|i| hit(i * cols + j))).collect();
            for (hits, expected) in [(rows_hit, row), (cols_hit, col)] {
                let middle = 0.5 * (hits[0] + hits[hits.len() - 1]) as f64;
                let centre = first + step * middle;
                assert!(
                    (centre - expected as f64).abs() <= step / 2.0 + 1e-9,
                    "{centre} {expected} {head:?}"
                );
            }
        }
    }
}
