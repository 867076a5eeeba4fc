//! The gain of a trained DCNN's answers.
//!
//! A network trained by least squares on noisy frames answers with the mean of what the truth may be, which lies nearer to the mean of
//! all than the truth does. That is as it should be: over frames like those it learned from, however they are weighted by what they
//! show, the truth over the answer has slope 1 (the answer over the truth has less). Another slope is what training
//! has left over, and is taken out.

use super::Metrics;
use super::judged::Judged;
use super::turns::Turns;
use crate::networks::OutputSpec;
use crate::preprocess::mean;

/// Least and largest slope that is believed.
const SLOPES: [f64; 2] = [0.8, 1.25];

impl Judged {
    /// Gives the answers slope 1, and outputs and errors with them: P around 0, weighted by its predicted variance, every other quantity
    /// around its mean. To be called without bias left, before sigma is calibrated. Returns the slopes that there were, as
    /// `slope_p`, `slope_cell_a` and so on.
    ///
    /// The components of P have one slope, so that its direction stays; where the network is tied by `turns`, so have the
    /// cell's edges.
    pub fn straighten(&mut self, outputs: &mut [OutputSpec], turns: Turns) -> Metrics {
        let edges: &[&[usize]] = if turns == Turns::None { &[&[2], &[3]] } else { &[&[2, 3]] };
        let centres = self.centres(outputs, turns);
        let mut slopes = [1.0; 6];
        for group in [&[0, 1][..], &[4], &[5]].iter().chain(edges) {
            let slope = self.slope(group, &centres);
            group.iter().for_each(|&quantity| slopes[quantity] = slope);
        }
        let mut metrics = Metrics::from([("slope_p".to_owned(), slopes[0])]);
        for (quantity, spec) in outputs.iter_mut().enumerate().take(slopes.len()) {
            let (slope, centre) = (slopes[quantity], centres[quantity]);
            spec.mean = centre + slope * (spec.mean - centre);
            spec.scale *= slope;
            for (error, truth) in self.errors[quantity].iter_mut().zip(&self.truths[quantity]) {
                *error += (slope - 1.0) * (truth + *error - centre);
            }
            if quantity > 1 {
                metrics.insert(format!("slope_{}", spec.name), slope);
            }
        }
        metrics
    }

    /// 0 for P; for the others, the mean answer, as far as the turns leave it another than the output's mean.
    fn centres(&self, outputs: &[OutputSpec], turns: Turns) -> [f64; 6] {
        let means: [f64; 6] = std::array::from_fn(|k| outputs.get(k).map_or(0.0, |spec| spec.mean));
        let away = turns.output_mean(std::array::from_fn(|k| {
            let away = mean(self.answers(k).map(|(answer, _)| answer - means[k]).filter(|v| v.is_finite()));
            if away.is_nan() { 0.0 } else { away }
        }));
        std::array::from_fn(|k| if k < 2 { 0.0 } else { means[k] + away[k] })
    }

    /// Answer and truth of every window.
    fn answers(&self, quantity: usize) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.errors[quantity].iter().zip(&self.truths[quantity]).map(|(error, truth)| (truth + error, *truth))
    }

    /// Slope of the truth over the answer, through `centres`, of quantities that share it; 1 where it cannot be told.
    fn slope(&self, quantities: &[usize], centres: &[f64; 6]) -> f64 {
        let products = quantities.iter().flat_map(|&k| {
            self.answers(k).zip(&self.sigma).map(move |((answer, truth), sigma)| {
                let weight = if k < 2 { sigma.powi(-2) } else { 1.0 };
                let (x, y) = (answer - centres[k], truth - centres[k]);
                [weight * x * x, weight * x * y]
            })
        });
        let finite = products.filter(|[xx, xy]| xx.is_finite() && xy.is_finite());
        let [xx, xy] = finite.fold([0.0; 2], |sum, product| [sum[0] + product[0], sum[1] + product[1]]);
        if xx > 0.0 { (xy / xx).clamp(SLOPES[0], SLOPES[1]) } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::dcnn_outputs;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_distr::{Distribution as _, StandardNormal};

    const CENTRES: [f64; 6] = [0.0, 0.0, 402.0, 402.0, 1.57, 160_000.0];
    const SCALES: [f64; 6] = [20.0, 20.0, 20.0, 20.0, 0.03, 12_000.0];

    fn specs() -> Vec<OutputSpec> {
        let spec = |k: usize| ("pm", CENTRES[k], SCALES[k], [0.0, 1.0]);
        dcnn_outputs([spec(0), spec(1), spec(2), spec(3), spec(4), spec(5), ("ln pm", 0.0, 1.0, [0.0, 1.0])])
    }

    /// The best answers divided by `gains`; the truth lies around the best answer as far as sigma says (of P, pm; of the
    /// others as large a part of their scale). Beside them what the network put out.
    fn judged(gains: [f64; 6]) -> (Judged, [Vec<f64>; 6]) {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let mut judged = Judged::default();
        let mut outputs: [Vec<f64>; 6] = Default::default();
        for _ in 0..20_000 {
            let sigma = rng.random_range(0.5f64..3.0).exp();
            for k in 0..6 {
                let [best, away]: [f64; 2] = std::array::from_fn(|_| StandardNormal.sample(&mut rng));
                let truth = CENTRES[k] + SCALES[k] * (best + away * sigma / 20.0);
                let output = best / gains[k];
                outputs[k].push(output);
                judged.truths[k].push(truth);
                judged.errors[k].push(CENTRES[k] + SCALES[k] * output - truth);
            }
            judged.sigma.push(sigma);
            judged.dose.push(100.0);
        }
        (judged, outputs)
    }

    #[test]
    fn what_training_left_of_a_gain_is_found_and_taken_out() {
        let (mut judged, raw) = judged([1.1, 1.1, 1.05, 0.95, 0.9, 1.0]);
        let mut outputs = specs();
        let slopes = judged.straighten(&mut outputs, Turns::None);
        for (name, expected) in
            [("p", 1.1), ("cell_a", 1.05), ("cell_b", 0.95), ("cell_angle", 0.9), ("cell_area", 1.0)]
        {
            let slope = slopes[&format!("slope_{name}")];
            assert!((slope - expected).abs() < 0.015, "{name}: {slope}");
        }
        assert_eq!(slopes.len(), 5);
        for (k, spec) in outputs.iter().take(6).enumerate() {
            // The errors are those of the corrected outputs.
            for ((output, truth), error) in raw[k].iter().zip(&judged.truths[k]).zip(&judged.errors[k]) {
                let expected = spec.mean + spec.scale * output - truth;
                assert!((error - expected).abs() < 1e-9 * SCALES[k] * (1.0 + output.abs()));
            }
            let bias = mean(judged.errors[k].iter().copied()) / SCALES[k];
            assert!(bias.abs() < 0.02, "quantity {k}: {bias}");
        }
        // What is left of the errors is what sigma says, in pm.
        let sigma = judged.sigma_calibration().unwrap();
        assert!((sigma.slope - 1.0).abs() < 0.03 && sigma.intercept.abs() < 0.06, "{sigma:?}");
        // Once is enough.
        for slope in judged.straighten(&mut outputs, Turns::None).values() {
            assert!((slope - 1.0).abs() < 1e-3, "{slope}");
        }
    }

    #[test]
    fn a_slope_is_shared_by_what_the_turns_exchange_and_keeps_to_its_limits() {
        let (mut judged, _) = judged([2.0, 2.0, 1.1, 1.0, 0.95, 0.5]);
        let mut outputs = specs();
        let slopes = judged.straighten(&mut outputs, Turns::Quarter);
        assert_eq!((slopes["slope_p"], slopes["slope_cell_area"]), (1.25, 0.8));
        assert_eq!(slopes["slope_cell_a"], slopes["slope_cell_b"]);
        assert!((slopes["slope_cell_a"] - 1.05).abs() < 0.02, "{slopes:?}");
        // A turned frame still has the turned answer: P without an offset, both edges alike, the angle around its own mean.
        let means: Vec<f64> = outputs.iter().map(|spec| spec.mean).collect();
        assert_eq!([means[0], means[1], means[4]], [0.0, 0.0, CENTRES[4]]);
        assert!((means[2] - means[3]).abs() < 1e-9);
        assert_eq!(outputs[0].scale, 25.0);
        assert_eq!(outputs[6], specs()[6]);
    }

    #[test]
    fn nothing_judged_changes_nothing() {
        let mut outputs = specs();
        let slopes = Judged::default().straighten(&mut outputs, Turns::Half);
        assert!(slopes.values().all(|slope| *slope == 1.0));
        assert_eq!(outputs, specs());
    }
}
