//! What the out-of-distribution test looks at.

use burn::tensor::{Tensor, module::avg_pool2d, ops::AvgPoolOptions, s};

/// Side, in features, of the middle of a window over which its features are averaged: about one unit cell at 15 pm/px.
pub(crate) const SITE_FEATURES: usize = 13;

/// Mean features of the middle of every window: what the out-of-distribution test looks at.
///
/// # Shapes
/// - `features`: `[batch, channel, row, col]`
/// - `window`: side of a window in features, `stride`: their distance in features
/// - result: `[batch, channel, window row, window col]`
pub(crate) fn site_features(features: Tensor<4>, window: usize, stride: usize) -> Tensor<4> {
    let [_, _, rows, cols] = features.dims();
    let margin = window.saturating_sub(SITE_FEATURES) / 2;
    let side = window.min(SITE_FEATURES);
    // The last window's middle ends here; features behind it belong to no window.
    let end = |size: usize| (size - window) / stride * stride + margin + side;
    let middle = features.slice(s![.., .., margin..end(rows), margin..end(cols)]);
    avg_pool2d(
        middle,
        AvgPoolOptions {
            kernel_size: [side, side],
            stride: [stride, stride],
            padding: [(0, 0), (0, 0)],
            count_include_pad: false,
            ceil_mode: false,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution, TensorData};

    #[test]
    fn site_features_are_means_over_the_middle_of_each_window() {
        let device = Device::flex();
        for (window, stride, height, width) in
            [(29, 4, 38, 33), (9, 1, 12, 11), (40, 2, 40, 45), (13, 5, 29, 13)]
        {
            let map = Tensor::<4>::random([2, 3, height, width], Distribution::Uniform(-1.0, 1.0), &device);
            let values: Vec<f32> = map.to_data().try_into_vec().unwrap();
            let (rows, cols) = ((height - window) / stride + 1, (width - window) / stride + 1);
            let (side, margin) = (window.min(SITE_FEATURES), window.saturating_sub(SITE_FEATURES) / 2);
            let mut expected = Vec::new();
            for plane in values.chunks(height * width) {
                for (top, left) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i * stride, j * stride))) {
                    let middle = (0..side * side)
                        .map(|k| plane[(top + margin + k / side) * width + left + margin + k % side]);
                    expected.push(middle.sum::<f32>() / (side * side) as f32);
                }
            }
            let expected = Tensor::<4>::from_data(TensorData::new(expected, [2, 3, rows, cols]), &device);
            let difference: f32 = (site_features(map, window, stride) - expected).abs().max().into_scalar();
            assert!(difference < 1e-5, "window {window}, stride {stride}: {difference}");
        }
    }
}
