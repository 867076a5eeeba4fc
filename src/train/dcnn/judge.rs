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

/// Errors of P of a frame's windows in its left and in its right third, which hardly share a pixel.
#[derive(Default)]
struct Across {
    errors: [Vec<[f64; 2]>; 2],
    truth: [f64; 2],
}

impl Across {
    fn add(&mut self, col: usize, side: usize, answer: [f64; 2], truth: [f64; 2]) {
        let third = if 3 * col < side { 0 } else { 1 };
        if third == 0 || 3 * (side - 1 - col) < side {
            self.errors[third].push([answer[0] - truth[0], answer[1] - truth[1]]);
        }
        self.truth = [self.truth[0] + truth[0], self.truth[1] + truth[1]];
    }

    /// Product of the thirds' mean errors at right angles to the frame's mean P, where a wrong gain does not show.
    fn products(&self) -> Option<f64> {
        let length = self.truth[0].hypot(self.truth[1]);
        let normal =
            if length > 0.0 { [-self.truth[1] / length, self.truth[0] / length] } else { [1.0, 0.0] };
        let [left, right] = self
            .errors
            .each_ref()
            .map(|errors| mean(errors.iter().map(|error| error[0] * normal[0] + error[1] * normal[1])));
        Some(left * right).filter(|product| product.is_finite())
    }
}

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
            let mut across = Across::default();
            for (window, cell) in windows.cells.into_iter().enumerate() {
                let Some(cell) = cell else { continue };
                if let (Some(p_x), Some(p_y)) = (physical(0, window), physical(1, window)) {
                    across.add(window % windows.side, windows.side, [p_x, p_y], [cell.p_x, cell.p_y]);
                }
                for (k, truth) in cell.quantities().into_iter().enumerate() {
                    if let Some(value) = physical(k, window) {
                        judged.errors[k].push(value - truth);
                        judged.truths[k].push(truth);
                    }
                }
                judged.sigma.extend(physical(WEIGHTS.len(), window).map(f64::exp));
                judged.dose.push(sample.peak_counts.unwrap_or(f64::NAN));
            }
            judged.frame_bias.extend(across.products());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bias_is_what_both_thirds_share_at_right_angles_to_p() {
        let mut across = Across::default();
        // P along x, its gain 0.8, and an offset of 3 pm along y; the thirds' own errors are 1 and -1.
        for (col, own) in [(0, 1.0), (2, 1.0), (4, 50.0), (6, -1.0), (8, -1.0)] {
            across.add(col, 9, [16.0, 3.0 + own], [20.0, 0.0]);
        }
        assert_eq!(across.products(), Some(4.0 * 2.0));
        assert_eq!(Across::default().products(), None);
    }
}
