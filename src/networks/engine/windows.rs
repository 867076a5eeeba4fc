//! The DCNN on every window of an image: through a shared trunk, or window by window.

use super::super::dcnn::{Dcnn, FEATURE_CHANNELS, POOLING, Padding, site_features};
use super::super::manifest::{Architecture, LoadedModel, Manifest};
use super::{DcnnMaps, Engine, NetworkError, download, shape_error};
use crate::frame::PolarizationMaps;
use crate::preprocess::smoothness;
use burn::tensor::Tensor;
use ndarray::{Array2, Array3, Array4, Axis, Zip, s as nds};

/// Windows per batch of the window-by-window path.
const EXACT_BATCH: usize = 32;

/// Where the windows of one image are, model pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    pub side: usize,
    pub stride: usize,
    pub rows: usize,
    pub cols: usize,
}

/// The DCNN's answer as it leaves the network.
pub(super) struct RawMaps {
    /// `[output, window row, window col]`.
    pub outputs: Array3<f32>,
    /// `[window row, window col, component]`; no components without statistics.
    pub features: Array3<f32>,
}

impl Engine {
    /// The DCNN on every window of a normalised image; `None` when no DCNN is loaded.
    ///
    /// # Shapes
    /// - `image`: `[row, col]` at the model's scale, at least one window large
    /// - `stride_px`: distance of the windows, a multiple of [`DcnnConfig::pooling`](crate::networks::DcnnConfig::pooling)
    /// - maps: `[(row - window) / stride + 1, (col - window) / stride + 1]`
    ///
    /// # Errors
    /// When the image is smaller than a window, the stride does not fit, or the device fails.
    pub fn dcnn(&self, image: &Array2<f32>, stride_px: usize) -> Result<Option<DcnnMaps>, NetworkError> {
        let (Some(model), Some(config)) = (&self.dcnn, self.dcnn_config()) else { return Ok(None) };
        let (window, multiple) = (config.window_px, config.pooling());
        let (rows, cols) = image.dim();
        if stride_px == 0 || !stride_px.is_multiple_of(multiple) {
            return Err(NetworkError::Stride { stride: stride_px, multiple });
        }
        if rows < window || cols < window {
            return Err(NetworkError::TooSmall { rows, cols, window });
        }
        let windows = Windows {
            side: window,
            stride: stride_px,
            rows: (rows - window) / stride_px + 1,
            cols: (cols - window) / stride_px + 1,
        };
        let raw = if self.exact_windows || model.padding() == Padding::Same {
            self.dcnn_exact(model, image, &windows)?
        } else {
            self.dcnn_dense(model, image, &windows)?
        };
        let smoothness = smoothness(image.view(), windows.side, windows.stride);
        Ok(Some(physical_maps(&model.manifest, raw, smoothness)))
    }

    /// The trunk once over the image, the head on every window of its map.
    pub(super) fn dcnn_dense(
        &self,
        model: &LoadedModel<Dcnn>,
        image: &Array2<f32>,
        windows: &Windows,
    ) -> Result<RawMaps, NetworkError> {
        let used = |count: usize| (count - 1) * windows.stride + windows.side;
        let cropped = image.slice(nds![..used(windows.rows), ..used(windows.cols)]);
        if let Some(network) = &self.cpu_dcnn {
            let (outputs, features) = network.run(cropped, windows.stride);
            return Ok(RawMaps { outputs, features });
        }
        let input = self.upload(&cropped.to_owned().insert_axis(Axis(0)).insert_axis(Axis(0)));
        let features = model.network.features(input);
        let components = self.components(features.clone(), window_features(model), windows.stride / POOLING);
        let outputs = model.network.head_dense(features, windows.stride);
        let [_, channels, rows, cols] = outputs.dims();
        let outputs = download(outputs.reshape([channels * rows * cols]))?;
        let components = components.map(download).transpose()?.unwrap_or_default();
        let shape = (rows, cols, components.len() / (rows * cols).max(1));
        Ok(RawMaps {
            outputs: Array3::from_shape_vec((channels, rows, cols), outputs).map_err(shape_error)?,
            features: Array3::from_shape_vec(shape, components).map_err(shape_error)?,
        })
    }

    /// Every window by itself, in batches: the same function, for networks whose padding forbids a shared trunk.
    fn dcnn_exact(
        &self,
        model: &LoadedModel<Dcnn>,
        image: &Array2<f32>,
        windows: &Windows,
    ) -> Result<RawMaps, NetworkError> {
        let Windows { side, stride, rows, cols } = *windows;
        let channels = model.manifest.outputs.len();
        let mut outputs = Array3::from_elem((channels, rows, cols), f32::NAN);
        let components = if self.whitening.is_some() { FEATURE_CHANNELS } else { 0 };
        let mut features = Array3::from_elem((rows, cols, components), f32::NAN);
        let positions: Vec<(usize, usize)> = (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))).collect();
        for batch in positions.chunks(EXACT_BATCH) {
            let mut pixels = Array4::zeros((batch.len(), 1, side, side));
            for (&(i, j), mut target) in batch.iter().zip(pixels.axis_iter_mut(Axis(0))) {
                let (row, col) = (i * stride, j * stride);
                target.assign(&image.slice(nds![row..row + side, col..col + side]).insert_axis(Axis(0)));
            }
            let (values, maps) = model.network.forward_windows(self.upload(&pixels));
            let values = download(values.reshape([batch.len() * channels]))?;
            let found = self.components(maps, window_features(model), 1).map(download).transpose()?;
            let found = found.unwrap_or_default();
            for (n, &(i, j)) in batch.iter().enumerate() {
                for (channel, &value) in values.iter().skip(n * channels).take(channels).enumerate() {
                    outputs[[channel, i, j]] = value;
                }
                for (component, &value) in found.iter().skip(n * components).take(components).enumerate() {
                    features[[i, j, component]] = value;
                }
            }
        }
        Ok(RawMaps { outputs, features })
    }

    /// Every window's site features as components, window by window; `None` without statistics.
    fn components(&self, features: Tensor<4>, window: usize, stride: usize) -> Option<Tensor<1>> {
        let (whitening, mean) = self.whitening.as_ref()?;
        let sites = site_features(features, window, stride);
        let [batch, channels, rows, cols] = sites.dims();
        let vectors = sites
            .reshape([batch, channels, rows * cols])
            .permute([1, 0, 2])
            .reshape([channels, batch * rows * cols]);
        let centred = vectors - mean.clone().reshape([channels, 1]);
        let whitened = whitening.clone().matmul(centred);
        Some(whitened.transpose().reshape([batch * rows * cols * channels]))
    }
}

fn window_features(model: &LoadedModel<Dcnn>) -> usize {
    match model.manifest.architecture {
        Architecture::Dcnn(config) => config.window_features(),
        Architecture::Fcnn(_) => 0,
    }
}

/// Turns network outputs into physical units; beside them stands how smooth the windows are.
pub(super) fn physical_maps(manifest: &Manifest, raw: RawMaps, smoothness: Array2<f32>) -> PolarizationMaps {
    let RawMaps { outputs, features } = raw;
    let map = |name: &str| -> Array2<f32> {
        let channel = manifest.outputs.iter().position(|output| output.name == name);
        match (channel, manifest.output(name)) {
            (Some(channel), Some(spec)) => outputs
                .index_axis(Axis(0), channel)
                .mapv(|value| (spec.mean + spec.scale * f64::from(value)) as f32),
            _ => Array2::from_elem((outputs.dim().1, outputs.dim().2), f32::NAN),
        }
    };
    let mut p_sigma = map("log_p_sigma");
    Zip::from(&mut p_sigma).for_each(|sigma| *sigma = sigma.exp());
    PolarizationMaps {
        p_x: map("p_x"),
        p_y: map("p_y"),
        p_sigma,
        cell_a: map("cell_a"),
        cell_b: map("cell_b"),
        cell_angle: map("cell_angle"),
        cell_area: map("cell_area"),
        smoothness,
        features,
    }
}
