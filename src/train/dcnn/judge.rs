//! How far a DCNN is from the truth on frames that it did not learn from.

use super::{DcnnTask, WEIGHTS};
use crate::networks::Dcnn;
use crate::preprocess::{mean, rms};
use crate::train::TrainError;
use crate::train::judged::Judged;
use crate::train::samples::{Sample, upload};
use burn::tensor::{Device, Tensor};

/// Windows nearer to their cell's centre than this fraction of a cell are judged.
const JUDGED_WITHIN_CELLS: f64 = 0.5;

impl DcnnTask {
    /// Errors of every window near the centre of an undisturbed cell, in physical units.
    pub(super) fn judge(
        &self,
        network: &Dcnn,
        device: &Device,
        samples: impl Iterator<Item = Result<Sample, TrainError>>,
    ) -> Result<Judged, TrainError> {
        let mut judged = Judged::default();
        for sample in samples {
            let sample = sample?;
            let cell_pm = sample.cells.first().map_or(0.0, |known| known.cell.cell_area.abs().sqrt());
            let windows = self.windows(&sample, JUDGED_WITHIN_CELLS * cell_pm);
            if windows.images.is_empty() {
                continue;
            }
            let features = network.features(upload(&windows.images, device));
            let values = read(network.head_dense(features, self.settings.stride_px))?;
            let each = windows.side * windows.side;
            let physical = |k: usize, window: usize| -> Option<f64> {
                let spec = self.outputs.get(k)?;
                let index = (window / each * self.outputs.len() + k) * each + window % each;
                Some(spec.mean + spec.scale * f64::from(*values.get(index)?))
            };
            let before = judged.sigma.len();
            for (window, cell) in windows.cells.into_iter().enumerate() {
                let Some(cell) = cell else { continue };
                for (k, truth) in cell.quantities().into_iter().enumerate() {
                    if let Some(value) = physical(k, window) {
                        judged.errors[k].push(value - truth);
                        judged.truths[k].push(truth);
                    }
                }
                judged.sigma.extend(physical(WEIGHTS.len(), window).map(f64::exp));
                judged.dose.push(sample.peak_counts.unwrap_or(f64::NAN));
            }
            if judged.sigma.len() > before {
                let [x, y, ..] = &judged.errors;
                judged.frame_bias.extend([x, y].map(|errors| mean(errors.iter().skip(before).copied())));
            }
        }
        Ok(judged)
    }

    /// RMS difference of the components of P from the labels of the frames that were held back, pm.
    pub(super) fn held_back(&self, network: &Dcnn, device: &Device) -> Result<Option<f64>, TrainError> {
        let Some(labelled) = &self.labelled else { return Ok(None) };
        let samples = labelled.held_back(self.settings.schedule.crop_px).into_iter().map(Ok);
        let judged = self.judge(network, device, samples)?;
        let [x, y, ..] = &judged.errors;
        let error = rms(x.iter().chain(y).copied().filter(|error| error.is_finite()));
        Ok(error.is_finite().then_some(error))
    }
}

fn read(tensor: Tensor<4>) -> Result<Vec<f32>, TrainError> {
    let data = tensor.try_into_data().map_err(|error| TrainError::Execution(format!("{error:?}")))?;
    data.try_into_vec::<f32>().map_err(|error| TrainError::Execution(format!("{error:?}")))
}
