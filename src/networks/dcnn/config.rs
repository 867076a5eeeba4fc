//! What defines a network before its weights, and what follows from that.

use super::head::DeepHead;
use super::{BLOCKS, CONTEXT, Dcnn, FEATURE_CHANNELS, HIDDEN, POOLING};
use burn::nn::conv::Conv2dConfig;
use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{BatchNormConfig, DropoutConfig, Initializer, PaddingConfig2d};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// How the convolutions treat their borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// No padding: a window's features do not depend on what lies around it, so that the trunk can be shared.
    Valid,
    /// Zero padding of one pixel (AtomAI): exact only window by window.
    Same,
}

/// What turns the features of a window into its values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// The paper's: fully connected, behind batch normalisation and dropout.
    #[default]
    Linear,
    /// 2 × 2 max-pool, five convolutions of 128 filters without padding, a hidden layer of 256 on the 4 × 4 places that are
    /// left, the outputs; no dropout, since simulated frames do not run out.
    Deep,
}

/// What defines a [`Dcnn`] before its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DcnnConfig {
    pub padding: Padding,
    #[serde(default)]
    pub head: HeadKind,
    /// Side of a window, model pixels.
    pub window_px: usize,
    /// Number of values regressed per window.
    pub outputs: usize,
}

impl DcnnConfig {
    /// Side of the feature map of one window: for 80 px, 29 without padding and 40 with.
    pub const fn window_features(&self) -> usize {
        match self.padding {
            // Seven 3 x 3 convolutions before the pooling take 14 px, two behind it take 4 features.
            Padding::Valid => ((self.window_px.saturating_sub(14)) / POOLING).saturating_sub(4),
            Padding::Same => self.window_px / POOLING,
        }
    }

    /// Model pixels from one value of the map under the head to the next; window strides must be multiples of it.
    pub const fn pooling(&self) -> usize {
        match self.head {
            HeadKind::Linear => POOLING,
            HeadKind::Deep => 2 * POOLING,
        }
    }

    /// Where the first value of [`Dcnn::context`] looks, and the distance to the next, model pixels.
    pub(crate) const fn context_grid(&self) -> [f64; 2] {
        // Each 3 x 3 convolution moves the first centre by one value of its map, each 2 x 2 pooling by half a value.
        let trunk = 7.0 + 0.5 + 2.0 * POOLING as f64;
        match self.head {
            HeadKind::Linear => [trunk, POOLING as f64],
            HeadKind::Deep => [trunk + 1.0 + (2 * POOLING * CONTEXT) as f64, (2 * POOLING) as f64],
        }
    }

    /// Side of one window's map under the head: 4 for 80 px and the deep head; 0 where the window is too small for it.
    pub const fn head_features(&self) -> usize {
        match self.head {
            HeadKind::Linear => self.window_features(),
            HeadKind::Deep => (self.window_features() / 2).saturating_sub(2 * CONTEXT),
        }
    }

    /// A network with He-initialised convolutions and outputs of zeros (a linear head of ~10⁵ inputs diverges from
    /// anything else).
    pub fn init(&self, device: &Device) -> Dcnn {
        let padding = match self.padding {
            Padding::Valid => PaddingConfig2d::Valid,
            Padding::Same => PaddingConfig2d::Explicit(1, 1, 1, 1),
        };
        let mut channels = 1;
        let [block1, block2, block3] = BLOCKS.map(|filters| {
            filters
                .iter()
                .map(|&out| {
                    let layer = convolution([channels, out], 3).with_padding(padding.clone()).init(device);
                    channels = out;
                    layer
                })
                .collect()
        });
        let kernel = self.head_features();
        let (norm, dropout, deep, [inputs, side]) = match self.head {
            HeadKind::Linear => {
                let norm = BatchNormConfig::new(FEATURE_CHANNELS).init(device);
                (Some(norm), DropoutConfig::new(0.2).init(), None, [FEATURE_CHANNELS, kernel])
            }
            HeadKind::Deep => {
                let layer = |_| convolution([FEATURE_CHANNELS; 2], 3).init(device);
                let context = (0..CONTEXT).map(layer).collect();
                let hidden = convolution([FEATURE_CHANNELS, HIDDEN], kernel).init(device);
                (None, DropoutConfig::new(0.0).init(), Some(DeepHead { context, hidden }), [HIDDEN, 1])
            }
        };
        Dcnn {
            block1,
            block2,
            pool: MaxPool2dConfig::new([POOLING, POOLING]).with_strides([POOLING, POOLING]).init(),
            block3,
            norm,
            dropout,
            deep,
            head: Conv2dConfig::new([inputs, self.outputs], [side, side])
                .with_initializer(Initializer::Zeros)
                .init(device),
        }
    }
}

fn convolution(channels: [usize; 2], kernel: usize) -> Conv2dConfig {
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_initializer(Initializer::KaimingNormal { gain: 2f64.sqrt(), fan_out_only: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Tensor;

    #[test]
    fn the_window_formula_is_the_feature_maps_side() {
        let device = Device::flex();
        for padding in [Padding::Valid, Padding::Same] {
            for window_px in [28, 30, 46, 80] {
                let config = DcnnConfig { padding, head: HeadKind::Linear, window_px, outputs: 7 };
                let windows = Tensor::ones([1, 1, window_px, window_px], &device);
                let (values, features) = config.init(&device).forward_windows(windows);
                let side = config.window_features();
                assert_eq!(features.dims(), [1, FEATURE_CHANNELS, side, side], "{config:?}");
                assert_eq!(values.dims(), [1, 7]);
            }
        }
        let paper = |padding, head| DcnnConfig { padding, head, window_px: 80, outputs: 7 };
        let [valid, same] = [Padding::Valid, Padding::Same].map(|padding| paper(padding, HeadKind::Linear));
        assert_eq!((valid.window_features(), same.window_features()), (29, 40));
        let deep = paper(Padding::Valid, HeadKind::Deep);
        // 29 features, pooled to 14, five convolutions take 10.
        assert_eq!((deep.head_features(), deep.pooling()), (4, 4));
        let (values, _) = deep.init(&device).forward_windows(Tensor::ones([2, 1, 80, 80], &device));
        assert_eq!(values.dims(), [2, 7]);
    }
}
