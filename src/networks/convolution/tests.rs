//! Every kernel at every level beside the sum as it is defined.

use super::direct::{Direct, Placement};
use super::gradient;
use super::map::{Activation, Block, Filters, LANES, Map, View};
use super::simd::Level;
use super::winograd::Winograd;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A plain map, `[channel, row, col]`.
#[derive(Debug, Clone)]
struct Plain {
    shape: [usize; 3],
    values: Vec<f32>,
}

impl Plain {
    fn random(shape: [usize; 3], rng: &mut ChaCha8Rng) -> Self {
        Self { shape, values: (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect() }
    }

    /// Zero outside.
    fn at(&self, channel: usize, row: isize, col: isize) -> f32 {
        let [_, rows, cols] = self.shape;
        match (usize::try_from(row), usize::try_from(col)) {
            (Ok(row), Ok(col)) if row < rows && col < cols => {
                self.values[(channel * rows + row) * cols + col]
            }
            _ => 0.0,
        }
    }

    fn blocked(&self) -> Map {
        let [channels, rows, cols] = self.shape;
        let blocks = channels.div_ceil(LANES);
        let mut map = Map::empty(blocks, cols);
        for (index, block) in map.append(rows).iter_mut().enumerate() {
            let (row, inner, col) = (index / cols / blocks, index / cols % blocks, index % cols);
            let value = |channel: usize| self.at(channel, row as isize, col as isize);
            *block = Block(std::array::from_fn(|lane| {
                let channel = inner * LANES + lane;
                if channel < channels { value(channel) } else { 0.0 }
            }));
        }
        map
    }
}

fn filters([outputs, inputs, side]: [usize; 3], rng: &mut ChaCha8Rng) -> Filters {
    let mut random = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
    Filters {
        outputs,
        inputs,
        side,
        weights: random(outputs * inputs * side * side),
        bias: random(outputs),
        activation: Activation::Leaky,
        affine: Some((random(outputs), random(outputs))),
    }
}

/// The convolution as it is defined, in double precision.
fn defined(filters: &Filters, input: &Plain, placement: Placement) -> Plain {
    let Placement { stride, dilation, padding } = placement;
    let size = |size: usize| (size + 2 * padding - (filters.side - 1) * dilation - 1) / stride + 1;
    let (rows, cols) = (size(input.shape[1]), size(input.shape[2]));
    let mut values = Vec::new();
    for output in 0..filters.outputs {
        for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
            let mut sum = f64::from(filters.bias[output]);
            for channel in 0..filters.inputs {
                for tap in 0..filters.side * filters.side {
                    let place = |start: usize, tap: usize| {
                        (start * stride + tap * dilation) as isize - padding as isize
                    };
                    let pixel =
                        input.at(channel, place(row, tap / filters.side), place(col, tap % filters.side));
                    let weight = filters.weights
                        [(output * filters.inputs + channel) * filters.side * filters.side + tap];
                    sum += f64::from(pixel) * f64::from(weight);
                }
            }
            if filters.activation == Activation::Leaky && sum < 0.0 {
                sum *= 0.01;
            }
            if let Some((scale, shift)) = &filters.affine {
                sum = sum * f64::from(scale[output]) + f64::from(shift[output]);
            }
            values.push(sum as f32);
        }
    }
    Plain { shape: [filters.outputs, rows, cols], values }
}

fn pooled(map: &Plain) -> Plain {
    let [channels, rows, cols] = map.shape;
    let shape = [channels, rows / 2, cols / 2];
    let mut values = Vec::new();
    for channel in 0..channels {
        for (row, col) in (0..shape[1]).flat_map(|row| (0..shape[2]).map(move |col| (row, col))) {
            let at = |i: usize, j: usize| map.at(channel, (2 * row + i) as isize, (2 * col + j) as isize);
            values.push(at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1)));
        }
    }
    Plain { shape, values }
}

fn assert_same(expected: &Plain, found: &Map, what: &str) {
    let [channels, rows, cols] = expected.shape;
    let view = found.view();
    assert_eq!([view.rows, view.cols], [rows, cols], "{what}");
    let largest = expected.values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for channel in 0..channels {
        for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
            let expected = expected.at(channel, row as isize, col as isize);
            let found = view.row(row, channel / LANES)[col].0[channel % LANES];
            let difference = (expected - found).abs() / largest;
            assert!(difference < 2e-5, "{what}: {found} instead of {expected} at {channel}, {row}, {col}");
        }
    }
}

#[test]
fn direct_convolutions_are_what_is_defined() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for ([outputs, inputs, side], [rows, cols], [stride, dilation, padding]) in [
        ([32, 32, 3], [9, 17], [1, 1, 0]),
        ([16, 16, 3], [3, 3], [1, 1, 0]),
        ([20, 25, 3], [8, 7], [1, 1, 1]),
        ([16, 32, 3], [14, 15], [1, 2, 2]),
        ([16, 16, 3], [13, 16], [1, 6, 6]),
        ([33, 48, 4], [12, 13], [3, 1, 0]),
        ([7, 40, 1], [4, 5], [1, 1, 0]),
        ([5, 16, 5], [21, 20], [2, 2, 3]),
    ] {
        let (filters, placement) =
            (filters([outputs, inputs, side], &mut rng), Placement { stride, dilation, padding });
        let input = Plain::random([inputs, rows, cols], &mut rng);
        let expected = defined(&filters, &input, placement);
        let layer = Direct::<LANES>::new(&filters, placement);
        let blocked = input.blocked();
        for level in Level::available() {
            let mut found = Map::empty(layer.output_blocks(), layer.output_size(cols));
            layer.run(level, blocked.view(), found.append(layer.output_size(rows)));
            assert_same(
                &expected,
                &found,
                &format!("{level:?}, {outputs} x {inputs} x {side}, {placement:?}"),
            );
        }
    }
}

#[test]
fn images_of_one_channel_are_read_as_they_are() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let filters = filters([32, 1, 3], &mut rng);
    let input = Plain::random([1, 11, 14], &mut rng);
    let expected = defined(&filters, &input, Placement::VALID);
    let layer = Direct::<1>::new(&filters, Placement::VALID);
    let image = View { data: &input.values[..], rows: 11, blocks: 1, cols: 14 };
    for level in Level::available() {
        let mut found = Map::empty(2, 12);
        layer.run(level, image, found.append(9));
        assert_same(&expected, &found, &format!("{level:?}"));
    }
}

#[test]
fn winograds_convolutions_are_what_is_defined() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (channels, [rows, cols], padding) in [
        ([32, 32], [6, 6], 0),
        ([16, 16], [3, 3], 0),
        ([32, 48], [9, 19], 0),
        ([20, 25], [10, 11], 1),
        ([16, 16], [2, 1], 1),
        ([16, 128], [13, 131], 0),
        ([16, 16], [7, 104], 1),
        ([20, 25], [1, 2], 2),
        ([48, 32], [8, 21], 2),
    ] {
        let filters = filters([channels[0], channels[1], 3], &mut rng);
        let input = Plain::random([channels[1], rows, cols], &mut rng);
        let sums = defined(&filters, &input, Placement { padding, ..Placement::VALID });
        for (pool, expected) in [(false, &sums), (true, &pooled(&sums))] {
            let layer = Winograd::new(&filters, padding, pool);
            let blocked = input.blocked();
            for level in Level::available() {
                let mut found = Map::empty(layer.output_blocks(), layer.output_size(cols));
                layer.run(level, blocked.view(), found.append(layer.output_size(rows)));
                let what = format!("{level:?}, {channels:?}, {rows} x {cols}, {padding}, pooled: {pool}");
                assert_same(expected, &found, &what);
            }
        }
    }
}

/// Derivatives of the weights as they are defined, `[output, input, tap]`, in double precision.
fn defined_gradient(maps: &[[Plain; 2]], outputs: usize, inputs: usize) -> Vec<f32> {
    let mut weights = Vec::new();
    for (output, input) in (0..outputs).flat_map(|output| (0..inputs).map(move |input| (output, input))) {
        for tap in 0..9isize {
            let mut sum = 0.0;
            for [map, gradient] in maps {
                let [_, rows, cols] = gradient.shape.map(|size| size as isize);
                for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
                    let pixel = map.at(input, row + tap / 3, col + tap % 3);
                    sum += f64::from(pixel) * f64::from(gradient.at(output, row, col));
                }
            }
            weights.push(sum as f32);
        }
    }
    weights
}

fn random_pairs(count: usize, [outputs, inputs, rows, cols]: [usize; 4]) -> Vec<[Plain; 2]> {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut pair = || {
        let input = Plain::random([inputs, rows, cols], &mut rng);
        [input, Plain::random([outputs, rows - 2, cols - 2], &mut rng)]
    };
    (0..count).map(|_| pair()).collect()
}

fn assert_near(expected: &[f32], found: &[f32], what: &str) {
    assert_eq!(expected.len(), found.len(), "{what}");
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
        let difference = (expected - found).abs() / largest;
        assert!(difference < 2e-5, "{what}: {found} instead of {expected} at {index}");
    }
}

#[test]
fn derivatives_of_weights_are_what_is_defined() {
    for (count, shape) in [
        (1, [16, 16, 3, 3]),
        (1, [32, 48, 6, 6]),
        (2, [20, 25, 9, 20]),
        (3, [7, 40, 19, 14]),
        // Several parts of several batches.
        (3, [33, 16, 40, 71]),
    ] {
        let [outputs, inputs, ..] = shape;
        let pairs = random_pairs(count, shape);
        let expected = defined_gradient(&pairs, outputs, inputs);
        let blocked: Vec<[Map; 2]> = pairs.iter().map(|pair| pair.each_ref().map(Plain::blocked)).collect();
        let views: Vec<[View; 2]> = blocked.iter().map(|pair| pair.each_ref().map(Map::view)).collect();
        for level in Level::available() {
            let found = gradient::of_maps(level, &views, [outputs, inputs]);
            assert_near(&expected, &found, &format!("{level:?}, {count} of {shape:?}"));
        }
    }
}

#[test]
fn derivatives_of_weights_on_images_are_what_is_defined() {
    for (count, shape) in [(1, [32, 1, 3, 3]), (2, [20, 1, 11, 18]), (3, [16, 1, 6, 53])] {
        let [outputs, _, rows, cols] = shape;
        let pairs = random_pairs(count, shape);
        let expected = defined_gradient(&pairs, outputs, 1);
        let blocked: Vec<Map> = pairs.iter().map(|[_, gradient]| gradient.blocked()).collect();
        let images = pairs.iter().map(|[image, _]| View { data: &image.values[..], rows, blocks: 1, cols });
        let views: Vec<_> = images.zip(blocked.iter().map(Map::view)).collect();
        for level in Level::available() {
            let found = gradient::of_images(level, &views, outputs);
            assert_near(&expected, &found, &format!("{level:?}, {count} of {shape:?}"));
        }
    }
}

#[test]
fn derivatives_of_weights_do_not_depend_on_the_threads() {
    let pairs = random_pairs(2, [32, 32, 40, 71]);
    let blocked: Vec<[Map; 2]> = pairs.iter().map(|pair| pair.each_ref().map(Plain::blocked)).collect();
    let views: Vec<[View; 2]> = blocked.iter().map(|pair| pair.each_ref().map(Map::view)).collect();
    let by = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| gradient::of_maps(Level::detect(), &views, [32, 32]))
    };
    assert_eq!(by(1), by(3));
}
