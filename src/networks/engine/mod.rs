//! Both networks on one device: prepared frames in, plain arrays out.

mod windows;

use super::dcnn::{Dcnn, DcnnConfig, FEATURE_CHANNELS, Padding};
use super::dcnn_cpu::CpuDcnn;
use super::device::{DeviceChoice, DeviceError};
use super::fcnn::{Fcnn, MULTIPLE_OF};
use super::fcnn_cpu::CpuFcnn;
use super::features::FeatureStatistics;
use super::manifest::{Architecture, LoadedModel, Manifest, ModelError};
use crate::frame::PolarizationMaps;
use burn::tensor::{Device, Tensor, TensorData, s};
use ferrostem_proto::{ModelId, ModelIds};
use ndarray::{Array2, Array3, Array4, Axis, s as nds};
use std::path::{Path, PathBuf};

/// What the engine loads and how it runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineSettings {
    pub device: DeviceChoice,
    /// Folder of the DCNN; `None` leaves it out.
    pub dcnn: Option<PathBuf>,
    /// Folder of the FCNN; `None` leaves it out.
    pub fcnn: Option<PathBuf>,
    /// Run the DCNN window by window even where the shared trunk is exact.
    pub exact_windows: bool,
    /// On a CPU, run burn's own layers rather than the convolutions made for it: what those are compared with.
    pub burn_layers: bool,
}

/// A network that could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("the image of {rows} x {cols} px holds no window of {window} px")]
    TooSmall { rows: usize, cols: usize, window: usize },
    #[error(
        "window stride of {stride} px (preprocess.stride_px): expected a multiple of {multiple} for this DCNN"
    )]
    Stride { stride: usize, multiple: usize },
    #[error("convolution {layer} of the DCNN: expected 1 to {layers}")]
    Layer { layer: usize, layers: usize },
    #[error("filter {channel} of the DCNN's convolution {layer}: expected one below {filters}")]
    Filter { layer: usize, channel: usize, filters: usize },
    #[error("the device failed: {0}")]
    Execution(String),
}

/// The DCNN's answer in physical units. Maps are `[window row, window col]`.
pub type DcnnMaps = PolarizationMaps;

/// Both networks on one device. Belongs to the thread that owns the device.
#[derive(Debug)]
pub struct Engine {
    device: Device,
    device_name: String,
    dcnn: Option<LoadedModel<Dcnn>>,
    /// The whitening on the device, `[channel, channel]`, and the mean, `[channel]`.
    whitening: Option<(Tensor<2>, Tensor<1>)>,
    fcnn: Option<LoadedModel<Fcnn>>,
    /// The DCNN on a CPU, where its trunk can be shared.
    cpu_dcnn: Option<CpuDcnn>,
    /// The FCNN on a CPU.
    cpu_fcnn: Option<CpuFcnn>,
    exact_windows: bool,
    burn_layers: bool,
}

impl Engine {
    /// Opens the device and loads the models.
    ///
    /// # Errors
    /// When the device is absent or a model does not match its manifest.
    pub fn load(settings: &EngineSettings) -> Result<Self, NetworkError> {
        let (device, device_name) = settings.device.open()?;
        Self::on(device, device_name, settings)
    }

    /// On a device that is open, whichever the settings ask for.
    fn on(device: Device, device_name: String, settings: &EngineSettings) -> Result<Self, NetworkError> {
        let dcnn = settings.dcnn.as_deref().map(|folder| LoadedModel::dcnn(folder, &device)).transpose()?;
        let fcnn = settings.fcnn.as_deref().map(|folder| LoadedModel::fcnn(folder, &device)).transpose()?;
        let whitening =
            dcnn.as_ref().and_then(|model| model.features.as_ref()).map(|f| on_device(f, &device));
        let EngineSettings { exact_windows, burn_layers, .. } = *settings;
        let mut engine = Self {
            device,
            device_name,
            dcnn,
            whitening,
            fcnn,
            cpu_dcnn: None,
            cpu_fcnn: None,
            exact_windows,
            burn_layers,
        };
        engine.cpu_dcnn = engine.dcnn.as_ref().map(|model| engine.dcnn_on_cpu(model)).transpose()?.flatten();
        engine.cpu_fcnn = engine.fcnn.as_ref().map(|model| engine.fcnn_on_cpu(model)).transpose()?.flatten();
        Ok(engine)
    }

    /// A DCNN on an open device, whose maps hold the features themselves, whatever statistics its folder has.
    ///
    /// # Errors
    /// When the folder holds no DCNN that matches its manifest.
    pub(crate) fn with_raw_features(folder: &Path, device: &Device) -> Result<Self, NetworkError> {
        let name = format!("{device:?}");
        let mut engine = Self::on(device.clone(), name, &EngineSettings::default())?;
        let model = LoadedModel::dcnn_without_statistics(folder, &engine.device)?;
        engine
            .take_dcnn(LoadedModel { features: Some(FeatureStatistics::raw(FEATURE_CHANNELS)), ..model })?;
        Ok(engine)
    }

    fn take_dcnn(&mut self, model: LoadedModel<Dcnn>) -> Result<(), NetworkError> {
        self.cpu_dcnn = self.dcnn_on_cpu(&model)?;
        self.whitening = model.features.as_ref().map(|features| on_device(features, &self.device));
        self.dcnn = Some(model);
        Ok(())
    }

    /// Replaces one of the models, on the same device.
    ///
    /// # Errors
    /// When the folder's model does not match its manifest; the models stay as they were.
    pub fn replace_model(&mut self, folder: &Path) -> Result<(), NetworkError> {
        match Manifest::read(folder)?.architecture {
            Architecture::Dcnn(_) => self.take_dcnn(LoadedModel::dcnn(folder, &self.device)?)?,
            Architecture::Fcnn(_) => {
                let model = LoadedModel::fcnn(folder, &self.device)?;
                self.cpu_fcnn = self.fcnn_on_cpu(&model)?;
                self.fcnn = Some(model);
            }
        }
        Ok(())
    }

    /// The DCNN for the CPU's own convolutions; `None` elsewhere, and where windows cannot share a trunk.
    fn dcnn_on_cpu(&self, model: &LoadedModel<Dcnn>) -> Result<Option<CpuDcnn>, NetworkError> {
        match model.manifest.architecture {
            Architecture::Dcnn(config) if config.padding == Padding::Valid && self.has_own_layers() => {
                Ok(Some(CpuDcnn::new(&model.network, config, model.features.as_ref())?))
            }
            _ => Ok(None),
        }
    }

    /// The FCNN for the CPU's own convolutions; `None` elsewhere.
    fn fcnn_on_cpu(&self, model: &LoadedModel<Fcnn>) -> Result<Option<CpuFcnn>, NetworkError> {
        self.has_own_layers().then(|| CpuFcnn::new(&model.network)).transpose()
    }

    /// Whether the networks run through the convolutions made for a CPU.
    fn has_own_layers(&self) -> bool {
        !self.burn_layers && self.device == Device::flex()
    }

    pub fn device_name(&self) -> &str {
        &self.device_name
    }

    pub fn dcnn_manifest(&self) -> Option<&Manifest> {
        self.dcnn.as_ref().map(|model| &model.manifest)
    }

    pub fn fcnn_manifest(&self) -> Option<&Manifest> {
        self.fcnn.as_ref().map(|model| &model.manifest)
    }

    pub fn feature_statistics(&self) -> Option<&FeatureStatistics> {
        self.dcnn.as_ref().and_then(|model| model.features.as_ref())
    }

    /// Side of the DCNN's windows, model pixels.
    pub fn window_px(&self) -> Option<usize> {
        Some(self.dcnn_config()?.window_px)
    }

    fn dcnn_config(&self) -> Option<DcnnConfig> {
        match self.dcnn_manifest()?.architecture {
            Architecture::Dcnn(config) => Some(config),
            Architecture::Fcnn(_) => None,
        }
    }

    /// Names and hashes of what is loaded, as every result carries them.
    pub fn model_ids(&self) -> ModelIds {
        let id = |manifest: &Manifest| ModelId {
            name: manifest.name.clone(),
            sha256: manifest.weights.sha256.clone(),
        };
        ModelIds { dcnn: self.dcnn_manifest().map(id), fcnn: self.fcnn_manifest().map(id) }
    }

    /// Runs both networks once on an image of that shape, so that kernels are compiled and tuned before the first frame.
    ///
    /// # Errors
    /// As the networks' own.
    pub fn warm_up(&self, shape: [usize; 2], stride_px: usize) -> Result<(), NetworkError> {
        // A ramp rather than zeros: autotuning must not see a special case.
        let image =
            Array2::from_shape_fn(shape, |(row, col)| ((row * 7 + col * 13) % 29) as f32 / 14.0 - 1.0);
        self.dcnn(&image, stride_px)?;
        self.fcnn(&image)?;
        Ok(())
    }

    /// The FCNN's class probabilities; `None` when no FCNN is loaded.
    ///
    /// # Shapes
    /// - `image`: `[row, col]`, normalised as its manifest says
    /// - result: `[class, row, col]`
    ///
    /// # Errors
    /// When the device fails.
    pub fn fcnn(&self, image: &Array2<f32>) -> Result<Option<Array3<f32>>, NetworkError> {
        let Some(model) = &self.fcnn else { return Ok(None) };
        if let Some(network) = &self.cpu_fcnn {
            return Ok(Some(network.probabilities(image.view())));
        }
        let (rows, cols) = image.dim();
        let mut padded =
            Array2::zeros((rows.next_multiple_of(MULTIPLE_OF), cols.next_multiple_of(MULTIPLE_OF)));
        padded.slice_mut(nds![..rows, ..cols]).assign(image);
        let input = self.upload(&padded.insert_axis(Axis(0)).insert_axis(Axis(0)));
        let probabilities = model.network.probabilities(input).slice(s![.., .., ..rows, ..cols]);
        let [_, classes, ..] = probabilities.dims();
        let values = download(probabilities.reshape([classes * rows * cols]))?;
        Ok(Some(Array3::from_shape_vec((classes, rows, cols), values).map_err(shape_error)?))
    }

    fn upload(&self, array: &Array4<f32>) -> Tensor<4> {
        let (batch, channels, rows, cols) = array.dim();
        let values: Vec<f32> = array.iter().copied().collect();
        Tensor::from_data(TensorData::new(values, [batch, channels, rows, cols]), &self.device)
    }
}

fn on_device(features: &FeatureStatistics, device: &Device) -> (Tensor<2>, Tensor<1>) {
    let channels = features.mean.len();
    (
        Tensor::from_data(TensorData::new(features.whitening.clone(), [channels, channels]), device),
        Tensor::from_data(TensorData::new(features.mean.clone(), [channels]), device),
    )
}

pub(super) fn download(tensor: Tensor<1>) -> Result<Vec<f32>, NetworkError> {
    let data = tensor.try_into_data().map_err(|error| NetworkError::Execution(format!("{error:?}")))?;
    data.try_into_vec::<f32>().map_err(|error| NetworkError::Execution(format!("{error:?}")))
}

fn shape_error(error: ndarray::ShapeError) -> NetworkError {
    NetworkError::Execution(error.to_string())
}

#[cfg(test)]
mod tests;
