//! The DCNN without padding on a CPU, through [`super::convolution`]: what burn's layers compute, several times faster.

use super::convolution::direct::{Direct, Placement};
use super::convolution::map::{Activation, Filters, LANES, Map, View};
use super::convolution::simd::Level;
use super::convolution::sites::{Middles, SiteComponents, Whitening};
use super::convolution::stream::{self, Network, rows_per_step};
use super::convolution::winograd::Winograd;
use super::dcnn::{Dcnn, DcnnConfig, FEATURE_CHANNELS, Layer, POOLING, SITE_FEATURES, TRUNK_CONVOLUTIONS};
use super::engine::{NetworkError, download};
use super::features::FeatureStatistics;
use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use ndarray::{Array3, ArrayView2};

/// The DCNN's weights in the order in which the CPU's kernels read them.
#[derive(Debug)]
pub(super) struct CpuDcnn {
    level: Level,
    config: DcnnConfig,
    /// Everything before the fully connected layers.
    trunk: Network,
    /// The fully connected layers, with stride 1.
    connected: Vec<Direct<LANES>>,
    /// Layer of the trunk whose result the out-of-distribution test looks at.
    features: usize,
    whitening: Option<Whitening>,
}

impl CpuDcnn {
    /// From a network without padding.
    ///
    /// # Errors
    /// When the weights cannot be read from where they are.
    pub(super) fn new(
        network: &Dcnn,
        config: DcnnConfig,
        statistics: Option<&FeatureStatistics>,
    ) -> Result<Self, NetworkError> {
        let layers = network.layers();
        let mut first = None;
        let mut behind = Vec::new();
        let (mut convolutions, mut features, mut channels) = (0, 0, 0);
        let mut layers = layers.into_iter().peekable();
        while let Some(layer) = layers.next() {
            let Layer::Convolution(convolution) = layer else {
                behind.push(stream::Layer::Pool(channels));
                continue;
            };
            let mut filters = filters(convolution, Activation::Leaky)?;
            convolutions += 1;
            channels = filters.output_blocks();
            let watched = convolutions == TRUNK_CONVOLUTIONS;
            if watched {
                filters.affine = network.normalisation().map(affine).transpose()?;
                features = behind.len();
            }
            if first.is_none() {
                first = Some(Direct::new(&filters, Placement::VALID));
                continue;
            }
            // Pooling at once spares a map, but the features are looked at before they are pooled.
            let pooled = !watched && layers.next_if(|layer| matches!(layer, Layer::Pool)).is_some();
            behind.push(stream::Layer::Winograd(Winograd::new(&filters, 0, pooled)));
        }
        let first = first.ok_or_else(|| NetworkError::Execution("a DCNN without convolutions".to_owned()))?;
        let connected = network.connected();
        let last = connected.len() - 1;
        let connected = connected.into_iter().enumerate().map(|(index, layer)| {
            let activation = if index < last { Activation::Leaky } else { Activation::None };
            Ok(Direct::new(&filters(layer, activation)?, Placement::VALID))
        });
        Ok(Self {
            level: Level::detect(),
            config,
            trunk: Network { first, layers: behind },
            connected: connected.collect::<Result<_, NetworkError>>()?,
            features,
            whitening: statistics.map(whitening),
        })
    }

    /// Every window of an image that ends with its last windows.
    ///
    /// # Shapes
    /// - result: `([output, window row, window col], [window row, window col, component])`, values and features as
    ///   components, of which there are none without statistics
    pub(super) fn run(&self, image: ArrayView2<'_, f32>, stride_px: usize) -> (Array3<f32>, Array3<f32>) {
        self.run_by(image, stride_px, rows_per_step())
    }

    /// As [`Self::run`], with `step` rows of each layer at once.
    fn run_by(
        &self,
        image: ArrayView2<'_, f32>,
        stride_px: usize,
        step: usize,
    ) -> (Array3<f32>, Array3<f32>) {
        let (rows, cols) = image.dim();
        let pixels = image.as_standard_layout();
        let pixels = pixels.as_slice().unwrap_or_default();
        let image = View { data: pixels, rows, blocks: 1, cols };
        let [window_rows, window_cols] =
            [rows, cols].map(|size| (size - self.config.window_px) / stride_px + 1);
        let mut network = self.trunk.clone();
        for (index, layer) in self.connected.iter().enumerate() {
            let stride = if index == 0 { stride_px / self.config.pooling() } else { 1 };
            network.layers.push(stream::Layer::Direct(layer.with_stride(stride)));
        }
        let window = self.config.window_features();
        let middles = Middles {
            margin: window.saturating_sub(SITE_FEATURES) / 2,
            side: window.min(SITE_FEATURES),
            stride: stride_px / POOLING,
            shape: [window_rows, window_cols],
        };
        let mut sites = self.whitening.as_ref().map(|whitening| SiteComponents::new(whitening, middles));
        let map = network.run(self.level, image, step, |layer, rows| {
            if let Some(sites) = sites.as_mut().filter(|_| layer == self.features) {
                sites.push(self.level, rows);
            }
        });
        let outputs = plain(&map, [self.config.outputs, window_rows, window_cols]);
        let count = if self.whitening.is_some() { FEATURE_CHANNELS } else { 0 };
        let mut components = sites.map(SiteComponents::into_components).unwrap_or_default().into_iter();
        let features = Array3::from_shape_simple_fn((window_rows, window_cols, count), || {
            components.next().unwrap_or(f32::NAN)
        });
        (outputs, features)
    }
}

/// The first channels of a map, `[channel, row, col]`.
fn plain(map: &Map, [channels, rows, cols]: [usize; 3]) -> Array3<f32> {
    let view = map.view();
    Array3::from_shape_fn((channels, rows, cols), |(channel, row, col)| {
        view.row(row, channel / LANES)[col].0[channel % LANES]
    })
}

/// A convolution's weights, with what follows it.
pub(crate) fn filters(convolution: &Conv2d, activation: Activation) -> Result<Filters, NetworkError> {
    let weight = convolution.weight.val();
    let [outputs, inputs, side, _] = weight.dims();
    let bias = match &convolution.bias {
        Some(bias) => download(bias.val())?,
        None => vec![0.0; outputs],
    };
    let weights = download(weight.reshape([outputs * inputs * side * side]))?;
    Ok(Filters { outputs, inputs, side, weights, bias, activation, affine: None })
}

/// Batch normalisation with what it learned, as scale and shift.
pub(super) fn affine(norm: &BatchNorm) -> Result<(Vec<f32>, Vec<f32>), NetworkError> {
    let scale = norm.gamma.val() / (norm.running_var.value() + norm.epsilon).sqrt();
    let shift = norm.beta.val() - norm.running_mean.value() * scale.clone();
    Ok((download(scale)?, download(shift)?))
}

fn whitening(statistics: &FeatureStatistics) -> Whitening {
    let channels = statistics.mean.len();
    let filters = Filters {
        outputs: channels,
        inputs: channels,
        side: 1,
        weights: statistics.whitening.clone(),
        bias: vec![0.0; channels],
        activation: Activation::None,
        affine: None,
    };
    Whitening::new(&statistics.mean, &filters)
}

#[cfg(test)]
#[path = "dcnn_cpu_tests.rs"]
mod tests;
