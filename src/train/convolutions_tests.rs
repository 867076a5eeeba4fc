//! Derivatives beside differences of a loss in double precision.

use super::*;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A plain map in double precision, `[channel][row][col]`.
type Plain = Vec<Vec<Vec<f64>>>;

fn filters(outputs: usize, inputs: usize, rng: &mut ChaCha8Rng) -> Filters {
    let mut random = |count: usize| (0..count).map(|_| rng.random_range(-0.5..0.5)).collect::<Vec<f32>>();
    let (weights, bias) = (random(outputs * inputs * 9), random(outputs));
    Filters { outputs, inputs, side: 3, weights, bias, activation: Activation::Leaky, affine: None }
}

fn convolved(filters: &Filters, change: Change, input: &Plain) -> Plain {
    let sum = |output: usize, row: usize, col: usize| {
        let mut sum = f64::from(filters.bias[output]) + change.of_bias(output);
        for (channel, plane) in input.iter().enumerate() {
            for tap in 0..9 {
                let index = (output * filters.inputs + channel) * 9 + tap;
                let weight = f64::from(filters.weights[index]) + change.of_weight(index);
                sum += weight * plane[row + tap / 3][col + tap % 3];
            }
        }
        if sum > 0.0 { sum } else { LEAKY_SLOPE * sum }
    };
    let (rows, cols) = (input[0].len() - 2, input[0][0].len() - 2);
    let row = |output, row| (0..cols).map(|col| sum(output, row, col)).collect();
    (0..filters.outputs).map(|output| (0..rows).map(|line| row(output, line)).collect()).collect()
}

fn pooled(input: &Plain) -> Plain {
    let line = |pair: &[Vec<f64>]| -> Vec<f64> {
        let largest = |upper: &[f64], lower: &[f64]| upper[0].max(upper[1]).max(lower[0]).max(lower[1]);
        let pairs = pair[0].chunks_exact(2).zip(pair[1].chunks_exact(2));
        pairs.map(|(upper, lower)| largest(upper, lower)).collect()
    };
    input.iter().map(|plane| plane.chunks_exact(2).map(line).collect()).collect()
}

/// What is added to one parameter of one layer.
#[derive(Debug, Clone, Copy)]
enum Change {
    None,
    Weight(usize, f64),
    Bias(usize, f64),
}

impl Change {
    fn of_weight(self, index: usize) -> f64 {
        match self {
            Self::Weight(changed, by) if changed == index => by,
            _ => 0.0,
        }
    }

    fn of_bias(self, index: usize) -> f64 {
        match self {
            Self::Bias(changed, by) if changed == index => by,
            _ => 0.0,
        }
    }
}

/// The sum of the last map's values, each times its own factor; `changed` is a convolution's place among them.
fn loss(layers: &Layers, images: &[Array2<f32>], factors: &[f32], (changed, change): (usize, Change)) -> f64 {
    let mut values = Vec::new();
    for image in images {
        let image: Plain =
            vec![image.rows().into_iter().map(|row| row.iter().copied().map(f64::from).collect()).collect()];
        let mut convolutions = 0;
        let mut next = |filters: &Filters, map: &Plain| {
            convolutions += 1;
            convolved(filters, if convolutions == changed + 1 { change } else { Change::None }, map)
        };
        let mut map = next(&layers.first, &image);
        for layer in &layers.behind {
            map = match layer {
                Layer::Convolution(filters) => next(filters, &map),
                Layer::Pool => pooled(&map),
            };
        }
        values.extend(map.into_iter().flatten().flatten());
    }
    assert_eq!(values.len(), factors.len());
    values.iter().zip(factors).map(|(value, &factor)| value * f64::from(factor)).sum()
}

#[test]
fn derivatives_are_what_the_loss_changes_by() {
    // Channels that fill no block, and sizes of which pooling leaves a row or column.
    for (frames, [rows, cols]) in [(1, [15, 18]), (3, [13, 27])] {
        // With these numbers no value lies so close to zero, or to its neighbour in a pool, that rounding makes another choice.
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let first = filters(20, 1, &mut rng);
        let behind = [filters(18, 20, &mut rng), filters(33, 18, &mut rng)].map(Layer::Convolution);
        let [second, third] = behind;
        let layers = Layers::new(first, vec![second, Layer::Pool, third]);
        let mut noise =
            |shape: (usize, usize)| Array2::from_shape_simple_fn(shape, || rng.random_range(-1.0f32..1.0));
        let images: Vec<Array2<f32>> = (0..frames).map(|_| noise((rows, cols))).collect();

        let pass = Forward::new(&layers, &images);
        let top = pass.tops()[0].view();
        let shape = [layers.channels(), top.rows, top.cols];
        let size: usize = shape.iter().product();
        let factors: Vec<f32> = noise((frames, size)).into_iter().collect();
        let values: Vec<f32> = pass.tops().iter().flat_map(|top| planes(top.view(), shape[0])).collect();
        let found: f64 = values.iter().zip(&factors).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        let expected = loss(&layers, &images, &factors, (0, Change::None));
        assert!((found - expected).abs() < 1e-3, "{found} instead of {expected}");

        let upper = factors.chunks(size).map(|factors| from_planes(factors, shape)).collect();
        let gradients = pass.backward(upper);
        assert_eq!(gradients.len(), 3);
        for (layer, gradient) in gradients.iter().enumerate() {
            let step = 1e-6;
            let slope = |change: fn(usize, f64) -> Change, index: usize| {
                let [up, down] =
                    [step, -step].map(|by| loss(&layers, &images, &factors, (layer, change(index, by))));
                (up - down) / (2.0 * step)
            };
            let check = |change: fn(usize, f64) -> Change, found: &[f32], name: &str| {
                let largest = found.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                for index in (0..found.len()).step_by(found.len().div_ceil(8)) {
                    let (expected, found) = (slope(change, index), f64::from(found[index]));
                    let difference = (expected - found).abs() / f64::from(largest);
                    assert!(difference < 1e-4, "{name} {index} of {layer}: {found} instead of {expected}");
                }
            };
            check(Change::Weight, &gradient.weight, "weight");
            check(Change::Bias, &gradient.bias, "bias");
        }
    }
}

#[test]
fn a_map_is_made_of_its_planes() {
    let values: Vec<f32> = (0..19 * 3 * 5).map(|value| value as f32).collect();
    let map = from_planes(&values, [19, 3, 5]);
    assert_eq!(planes(map.view(), 19), values);
    assert!(map.view().row(2, 1)[4].0[3..].iter().all(|&value| value == 0.0));
}
