//! Every window's fully connected head at once, from one shared feature map.

use burn::tensor::{Tensor, s};

/// Applies a fully connected head to every window of a feature map.
///
/// A window is `kernel x kernel` features, windows are `stride` features apart; the head is therefore a strided
/// convolution with a window-sized kernel. Writing that as im2col would copy every window (over a gigabyte for a
/// 512² frame), so features are first folded into `stride x stride` blocks; a window then is a few whole blocks, and
/// the head a few matrix products whose results are added with the blocks' offsets.
///
/// # Shapes
/// - `features`: `[batch, channel, row, col]`
/// - `weight`: `[output, channel, kernel, kernel]`, `bias`: `[output]`
/// - result: `[batch, output, (row - kernel) / stride + 1, (col - kernel) / stride + 1]`
///
/// The feature map must hold at least one window.
pub(super) fn dense_head(
    features: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
) -> Tensor<4> {
    let [batch, channels, height, width] = features.dims();
    let [outputs, _, kernel, _] = weight.dims();
    let (rows, cols) = ((height - kernel) / stride + 1, (width - kernel) / stride + 1);
    let kernel_blocks = kernel.div_ceil(stride);
    let (block_rows, block_cols) = (rows - 1 + kernel_blocks, cols - 1 + kernel_blocks);

    let fitted = fit(features, block_rows * stride, block_cols * stride);
    let blocks = fitted
        .reshape([batch, channels, block_rows, stride, block_cols, stride])
        .permute([0, 1, 3, 5, 2, 4])
        .reshape([batch, channels * stride * stride, block_rows * block_cols]);
    let kernels = fit(weight, kernel_blocks * stride, kernel_blocks * stride)
        .reshape([outputs, channels, kernel_blocks, stride, kernel_blocks, stride])
        .permute([2, 4, 0, 1, 3, 5])
        .reshape([kernel_blocks, kernel_blocks * outputs, channels * stride * stride]);

    let mut sum = bias.reshape([1, outputs, 1, 1]).expand([batch, outputs, rows, cols]);
    for u in 0..kernel_blocks {
        let products = kernels.clone().slice(s![u..u + 1, .., ..]).matmul(blocks.clone()).reshape([
            batch,
            kernel_blocks,
            outputs,
            block_rows,
            block_cols,
        ]);
        for v in 0..kernel_blocks {
            let shifted = products.clone().slice(s![.., v..v + 1, .., u..u + rows, v..v + cols]);
            sum = sum + shifted.reshape([batch, outputs, rows, cols]);
        }
    }
    sum
}

/// Crops, or pads with zeros at the end, the last two axes to `height x width`.
fn fit(tensor: Tensor<4>, height: usize, width: usize) -> Tensor<4> {
    let [first, second, rows, cols] = tensor.dims();
    let cropped = tensor.slice(s![.., .., ..rows.min(height), ..cols.min(width)]);
    if rows >= height && cols >= width {
        return cropped;
    }
    let device = cropped.device();
    let zeros = Tensor::<4>::zeros([first, second, height, width], &device);
    zeros.slice_assign(s![.., .., ..rows.min(height), ..cols.min(width)], cropped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution, module::conv2d, ops::ConvOptions};

    #[test]
    fn equals_the_strided_convolution() {
        let device = Device::flex();
        device.seed(7);
        for (stride, height, width) in [(1, 9, 10), (2, 11, 8), (3, 13, 14), (4, 21, 17)] {
            let features =
                Tensor::<4>::random([2, 3, height, width], Distribution::Normal(0.0, 1.0), &device);
            let weight = Tensor::<4>::random([5, 3, 7, 7], Distribution::Normal(0.0, 1.0), &device);
            let bias = Tensor::<1>::random([5], Distribution::Normal(0.0, 1.0), &device);
            let options = ConvOptions::new([stride, stride], [0, 0], [1, 1], 1);
            let expected = conv2d(features.clone(), weight.clone(), Some(bias.clone()), options);
            let found = dense_head(features, weight, bias, stride);
            assert_eq!(expected.dims(), found.dims());
            let difference: f32 = (expected - found).abs().max().into_scalar();
            assert!(difference < 1e-4, "stride {stride}: {difference}");
        }
    }
}
