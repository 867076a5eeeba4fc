//! How far a DCNN's answers are from the truth, and whether its sigma says so.

use super::Metrics;
use super::turns::Turns;
use crate::networks::{BIAS_KEY, OutputSpec};
use crate::preprocess::{mean, rms};

/// Bounds of the ranges of counts, at an A column's peak, for which errors are reported.
const DOSES: [(&str, [f64; 2]); 4] = [
    ("10_30", [10.0, 30.0]),
    ("30_100", [30.0, 100.0]),
    ("100_300", [100.0, 300.0]),
    ("300_2000", [300.0, 2001.0]),
];
/// Part of normally distributed errors that lies within one standard deviation.
const WITHIN_ONE_SIGMA: f64 = 0.6827;
/// Groups of windows with like sigma that its calibration is fitted to.
const SIGMA_GROUPS: usize = 12;
/// Least and largest slope of calibrated over predicted ln sigma that a fit is believed.
const SLOPES: [f64; 2] = [0.5, 2.0];

/// Errors of single windows on judged frames.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Prediction minus truth, physical units, one vector a quantity.
    pub errors: [Vec<f64>; 6],
    /// Truth, as the errors.
    pub truths: [Vec<f64>; 6],
    /// Predicted sigma, pm.
    pub sigma: Vec<f64>,
    /// Counts at an A column's peak.
    pub dose: Vec<f64>,
    /// Product of the mean errors of P in two parts of each frame that share no noise, pm²: what both have in common is the network's.
    pub frame_bias: Vec<f64>,
}

/// `ln(calibrated sigma) = intercept + slope × ln(predicted sigma)`, pm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SigmaCalibration {
    pub slope: f64,
    pub intercept: f64,
}

impl SigmaCalibration {
    /// The same in the units of the network's output.
    pub fn apply(self, spec: &mut OutputSpec) {
        spec.mean = self.intercept + self.slope * spec.mean;
        spec.scale *= self.slope;
    }
}

impl Judged {
    /// Takes the mean error of every quantity out of the outputs, and out of the errors, as far as `turns` leaves one: over frames in all
    /// directions there is none that a lattice could have.
    pub fn unbias(&mut self, outputs: &mut [OutputSpec], turns: Turns) {
        let bias = |errors: &Vec<f64>| {
            let bias = mean(errors.iter().copied().filter(|error| error.is_finite()));
            // Nothing is known where nothing was judged.
            if bias.is_nan() { 0.0 } else { bias }
        };
        let biases = turns.output_mean(self.errors.each_ref().map(bias));
        for ((errors, spec), bias) in self.errors.iter_mut().zip(outputs).zip(biases) {
            spec.mean -= bias;
            errors.iter_mut().for_each(|error| *error -= bias);
        }
    }

    pub fn metrics(&self, outputs: &[OutputSpec]) -> Metrics {
        let mut metrics = Metrics::new();
        for (errors, spec) in self.errors.iter().zip(outputs) {
            metrics.insert(format!("rms_{}_{}", spec.name, spec.unit), rms(errors.iter().copied()));
        }
        // To compare the error with the spread of what was to be found.
        let truth_p = self.truths.iter().take(2).flatten();
        metrics.insert("rms_p_truth_pm".to_owned(), rms(truth_p.copied()));
        metrics.insert("windows".to_owned(), self.sigma.len() as f64);
        metrics.insert(
            BIAS_KEY.to_owned(),
            mean(self.frame_bias.iter().copied()).clamp(0.0, f64::INFINITY).sqrt(),
        );
        let everything = ("", [f64::NEG_INFINITY, f64::INFINITY]);
        for (name, [least, most]) in DOSES.into_iter().chain([everything]) {
            let pairs: Vec<(f64, f64)> = self.p_errors([least, most]).collect();
            if pairs.is_empty() {
                continue;
            }
            let counts = if name.is_empty() { String::new() } else { format!("_counts_{name}") };
            let errors = pairs.iter().map(|(error, _)| *error);
            metrics.insert(format!("rms_p_component{counts}_pm"), rms(errors));
            let inside = pairs.iter().filter(|(error, sigma)| error.abs() <= *sigma).count();
            metrics.insert(format!("within_sigma_fraction{counts}"), inside as f64 / pairs.len() as f64);
        }
        metrics
    }

    /// Errors of both components of P with their sigma, where `least ≤ dose < most`.
    fn p_errors(&self, [least, most]: [f64; 2]) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.errors.iter().take(2).flat_map(move |errors| {
            errors
                .iter()
                .zip(&self.sigma)
                .zip(&self.dose)
                .filter(move |(_, dose)| (least..most).contains(*dose))
                .map(|((error, sigma), _)| (*error, *sigma))
        })
    }

    /// What makes the predicted sigma hold 68 % of the errors wherever it is large or small: windows are grouped by their sigma,
    /// each group's own 68 % interval is found, and a straight line is laid through their logarithms. `None` with too few
    /// windows.
    pub fn sigma_calibration(&self) -> Option<SigmaCalibration> {
        let mut pairs: Vec<(f64, f64)> = self
            .p_errors([f64::NEG_INFINITY, f64::INFINITY])
            .filter(|(error, sigma)| error.is_finite() && *sigma > 0.0)
            .collect();
        pairs.sort_by(|a, b| a.1.total_cmp(&b.1));
        let size = pairs.len().div_ceil(SIGMA_GROUPS);
        if size < 10 {
            return None;
        }
        let points: Vec<[f64; 2]> = pairs
            .chunks(size)
            .filter_map(|group| {
                let mut errors: Vec<f64> = group.iter().map(|(error, _)| error.abs()).collect();
                errors.sort_by(f64::total_cmp);
                let held = *errors.get((errors.len() as f64 * WITHIN_ONE_SIGMA) as usize)?;
                let predicted = group.iter().map(|(_, sigma)| sigma.ln()).sum::<f64>() / group.len() as f64;
                (held > 0.0).then(|| [predicted, held.ln()])
            })
            .collect();
        let count = points.len() as f64;
        let [x, y] = [0, 1].map(|axis| points.iter().map(|point| point[axis]).sum::<f64>() / count);
        let variance: f64 = points.iter().map(|point| (point[0] - x).powi(2)).sum();
        let covariance: f64 = points.iter().map(|point| (point[0] - x) * (point[1] - y)).sum();
        let slope = if variance > 1e-6 { (covariance / variance).clamp(SLOPES[0], SLOPES[1]) } else { 1.0 };
        Some(SigmaCalibration { slope, intercept: y - slope * x })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::dcnn_outputs;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_distr::{Distribution as _, StandardNormal};

    /// Windows whose true sigma is `truth` of the predicted one.
    fn judged(truth: impl Fn(f64) -> f64) -> Judged {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut judged = Judged::default();
        for _ in 0..40_000 {
            let sigma: f64 = rng.random_range(0.5f64..3.0).exp();
            for errors in judged.errors.iter_mut() {
                let normal: f64 = StandardNormal.sample(&mut rng);
                errors.push(truth(sigma) * normal);
            }
            judged.sigma.push(sigma);
            judged.dose.push(if sigma > 6.0 { 20.0 } else { 500.0 });
        }
        judged
    }

    #[test]
    fn calibration_finds_slope_and_factor_and_makes_every_dose_right() {
        let mut judged = judged(|sigma| 1.5 * sigma.powf(0.8));
        let calibration = judged.sigma_calibration().unwrap();
        assert!((calibration.slope - 0.8).abs() < 0.02, "{calibration:?}");
        assert!((calibration.intercept - 1.5f64.ln()).abs() < 0.04, "{calibration:?}");
        for sigma in &mut judged.sigma {
            *sigma = (calibration.intercept + calibration.slope * sigma.ln()).exp();
        }
        let specs = dcnn_outputs([("pm", 0.0, 1.0, [0.0, 1.0]); 7]);
        let metrics = judged.metrics(&specs);
        for name in ["", "_counts_10_30", "_counts_300_2000"] {
            let within = metrics[&format!("within_sigma_fraction{name}")];
            assert!((within - 0.683).abs() < 0.02, "{name}: {within}");
        }
        assert!(!metrics.contains_key("rms_p_component_counts_30_100_pm"));
    }

    #[test]
    fn a_bias_moves_into_the_outputs_mean() {
        let mut judged = Judged {
            errors: std::array::from_fn(|k| vec![k as f64 + 1.0, k as f64 + 3.0]),
            ..Judged::default()
        };
        let mut specs = dcnn_outputs([("pm", 10.0, 2.0, [0.0, 1.0]); 7]);
        judged.unbias(&mut specs, Turns::None);
        for (k, (errors, spec)) in judged.errors.iter().zip(&specs).enumerate() {
            assert_eq!(errors, &[-1.0, 1.0]);
            assert_eq!(spec.mean, 8.0 - k as f64);
        }
        assert_eq!(specs[6].mean, 10.0);
    }

    #[test]
    fn the_calibration_moves_into_the_outputs_scale() {
        let mut spec = dcnn_outputs([("pm", 2.0, 0.5, [0.0, 1.0]); 7]).remove(6);
        let output = 3.0;
        let predicted = spec.mean + spec.scale * output;
        SigmaCalibration { slope: 0.8, intercept: 0.3 }.apply(&mut spec);
        assert!((spec.mean + spec.scale * output - (0.3 + 0.8 * predicted)).abs() < 1e-12);
    }
}
