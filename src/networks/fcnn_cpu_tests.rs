use super::*;
use crate::networks::fcnn::FcnnConfig;
use crate::networks::untrained::RandomWeights;
use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor, s as at};
use ndarray::Array2;

#[test]
fn burns_layers_give_the_same_probabilities() {
    let device = Device::flex();
    device.seed(8);
    for (filters, classes, [rows, cols]) in
        [(16, 3, [64, 72]), (4, 3, [40, 24]), (5, 2, [16, 16]), (16, 3, [61, 43]), (8, 17, [9, 8])]
    {
        let network = FcnnConfig { filters, classes }.init(&device).map(&mut RandomWeights::new(4));
        let [padded_rows, padded_cols] = [rows, cols].map(|size: usize| size.next_multiple_of(MULTIPLE_OF));
        let image = Tensor::<4>::zeros([1, 1, padded_rows, padded_cols], &device).slice_assign(
            at![.., .., ..rows, ..cols],
            Tensor::random([1, 1, rows, cols], Distribution::Normal(0.0, 1.0), &device),
        );
        let values: Vec<f32> =
            image.clone().slice(at![.., .., ..rows, ..cols]).to_data().try_into_vec().unwrap();
        let expected: Vec<f32> =
            network.probabilities(image).slice(at![.., .., ..rows, ..cols]).to_data().try_into_vec().unwrap();
        let pixels = Array2::from_shape_vec((rows, cols), values).unwrap();
        let found = CpuFcnn::new(&network).unwrap().probabilities(pixels.view());
        assert_eq!(found.dim(), (classes, rows, cols));
        let spread = expected.iter().copied().fold(f32::MIN, f32::max)
            - expected.iter().copied().fold(f32::MAX, f32::min);
        assert!(spread > 0.3, "{spread}: probabilities that are all the same prove nothing");
        for (index, (expected, found)) in expected.iter().zip(&found).enumerate() {
            assert!((expected - found).abs() < 1e-4, "{filters} filters, {index}: {found}, not {expected}");
        }
    }
}

#[test]
fn the_step_changes_no_bit() {
    let device = Device::flex();
    // Several steps, and a height and width that are multiples of nothing.
    let image = Array2::from_shape_fn((487, 75), |(row, col)| {
        ((row * row + 3 * col * row + col) % 31) as f32 / 9.0 - 1.5
    });
    for (filters, classes) in [(4, 3), (16, 17)] {
        let network = FcnnConfig { filters, classes }.init(&device).map(&mut RandomWeights::new(4));
        let network = CpuFcnn::new(&network).unwrap();
        for rows in [487, 9, 100] {
            let image = image.slice(s![..rows, ..]);
            let whole = network.probabilities_by(image, 4096);
            assert_eq!(whole.dim(), (classes, rows, 75));
            assert!(whole.iter().all(|value| value.is_finite()));
            for step in [8, 24, 32, 160, 256] {
                let found = network.probabilities_by(image, step);
                assert_eq!(whole, found, "{step} of {rows} rows at once");
            }
        }
    }
}

#[test]
fn no_row_waits_for_more_than_the_bottlenecks_reach() {
    let network = FcnnConfig { filters: 4, classes: 3 }.init(&Device::flex());
    let network = CpuFcnn::new(&network).unwrap();
    let mut rows = FcnnRows::new(&network, 16);
    let pixels = [0.5; 34 * 16];
    let image = View { data: &pixels, rows: 34, blocks: 1, cols: 16 };
    let mut waiting = 0;
    for step in 1..=40 {
        waiting += 32;
        waiting -= rows.push(image, step == 40).rows();
        // Dilations of 2, 4 and 6 at an eighth of the resolution are 96 rows; the rest are the layers before and behind.
        assert!((1..=200).contains(&waiting) || step == 40, "{waiting} rows wait after {step} steps");
    }
    assert_eq!(waiting, 0);
}
