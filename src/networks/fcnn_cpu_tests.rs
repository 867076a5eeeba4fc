use super::*;
use crate::networks::fcnn::FcnnConfig;
use crate::networks::untrained::RandomWeights;
use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor, s};
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
            s![.., .., ..rows, ..cols],
            Tensor::random([1, 1, rows, cols], Distribution::Normal(0.0, 1.0), &device),
        );
        let values: Vec<f32> =
            image.clone().slice(s![.., .., ..rows, ..cols]).to_data().try_into_vec().unwrap();
        let expected: Vec<f32> =
            network.probabilities(image).slice(s![.., .., ..rows, ..cols]).to_data().try_into_vec().unwrap();
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
