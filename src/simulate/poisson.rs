//! Counts: an exact and quick Poisson variable whose mean changes from pixel to pixel.

use super::plane::floor;
use rand::{Rng, RngExt};
use std::f64::consts::TAU;

/// From this mean on by rejection, below by inversion.
const REJECTION_FROM: f64 = 10.0;
/// No mean below [`REJECTION_FROM`] has a count above this with a probability that a double can hold beside 1.
const LARGEST_INVERTED: u32 = 100;

/// A Poisson variable of the given mean; 0 where the mean is not above 0.
///
/// Below a mean of 10 by inversion (sequential search), above by Hörmann's transformed rejection PTRS (Insurance: Mathematics and
/// Economics 12, 1993): both follow the distribution itself, to the rounding of doubles.
pub(super) fn poisson(mean: f64, rng: &mut impl Rng) -> f64 {
    if mean >= REJECTION_FROM {
        return by_rejection(mean, rng);
    }
    if mean > 0.0 { by_inversion(mean, rng) } else { 0.0 }
}

fn by_inversion(mean: f64, rng: &mut impl Rng) -> f64 {
    let none = (-mean).exp();
    loop {
        let (mut left, mut probability) = (rng.random::<f64>(), none);
        for count in 0..LARGEST_INVERTED {
            if left < probability {
                return f64::from(count);
            }
            left -= probability;
            probability *= mean / f64::from(count + 1);
        }
        // Rounding has left a little of the unit interval over.
    }
}

fn by_rejection(mean: f64, rng: &mut impl Rng) -> f64 {
    let b = 0.931 + 2.53 * mean.sqrt();
    let a = -0.059 + 0.02483 * b;
    let quick = 0.9277 - 3.6224 / (b - 2.0);
    loop {
        let u = rng.random::<f64>() - 0.5;
        let v = rng.random::<f64>();
        let from_edge = 0.5 - u.abs();
        let count = floor((2.0 * a / from_edge + b) * u + mean + 0.43) as f64;
        if from_edge >= 0.07 && v <= quick {
            return count;
        }
        if count < 0.0 || (from_edge < 0.013 && v > from_edge) {
            continue;
        }
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let hat = v * inverse_alpha / (a / (from_edge * from_edge) + b);
        let (divisor, exponent) = probability(count, mean);
        if (hat * divisor).ln() <= exponent {
            return count;
        }
    }
}

/// e^-mean mean^count / count! as `exp(exponent) / divisor`, without the cancellation of its large terms.
fn probability(count: f64, mean: f64) -> (f64, f64) {
    if let Some(factorial) = FACTORIALS.get(count as usize) {
        return (*factorial, count * mean.ln() - mean);
    }
    // Stirling's series; its next term is below 3e-12.
    let inverse = 1.0 / count;
    let square = inverse * inverse;
    let correction = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0));
    let relative = (mean - count) * inverse;
    ((TAU * count).sqrt(), count * (relative.ln_1p() - relative) - correction)
}

const FACTORIALS: [f64; 16] = {
    let mut factorials = [1.0; 16];
    let mut n = 1;
    while n < factorials.len() {
        factorials[n] = factorials[n - 1] * n as f64;
        n += 1;
    }
    factorials
};

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// The probability of each count from 0 up, by the recurrence, from the mode outward so that nothing underflows.
    fn probabilities(mean: f64) -> Vec<f64> {
        let mode = mean.floor() as usize;
        let most = (mean + 12.0 * mean.sqrt() + 30.0) as usize;
        let mut relative = vec![0.0; most];
        relative[mode] = 1.0;
        for k in mode + 1..most {
            relative[k] = relative[k - 1] * mean / k as f64;
        }
        for k in (0..mode).rev() {
            relative[k] = relative[k + 1] * (k + 1) as f64 / mean;
        }
        let sum: f64 = relative.iter().sum();
        relative.into_iter().map(|p| p / sum).collect()
    }

    /// χ² over bins that expect at least 50 counts, less its expectation, in its standard deviations.
    fn excess_chi_square(mean: f64, draws: usize, rng: &mut ChaCha8Rng) -> f64 {
        let probabilities = probabilities(mean);
        let mut seen = vec![0usize; probabilities.len()];
        for _ in 0..draws {
            let count = poisson(mean, rng);
            assert!(count >= 0.0 && count.fract() == 0.0);
            let last = seen.len() - 1;
            seen[(count as usize).min(last)] += 1;
        }
        let (mut bins, mut chi_square) = (0.0, 0.0);
        let (mut expected, mut found) = (0.0, 0.0);
        let mut left = draws as f64;
        for (p, n) in probabilities.iter().zip(seen) {
            expected += p * draws as f64;
            found += n as f64;
            if expected >= 50.0 && left - expected >= 50.0 {
                chi_square += (found - expected).powi(2) / expected;
                left -= expected;
                (expected, found) = (0.0, 0.0);
                bins += 1.0;
            }
        }
        chi_square += (found - expected).powi(2) / expected;
        (chi_square - bins) / (2.0f64 * bins).sqrt()
    }

    #[test]
    fn counts_follow_the_poisson_distribution_from_0_1_to_100_000() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for mean in [0.1, 0.7, 3.0, 9.99, 10.0, 13.7, 40.0, 41.0, 150.0, 1000.0, 1e4, 1e5] {
            let excess = excess_chi_square(mean, 400_000, &mut rng);
            assert!(excess.abs() < 4.5, "mean {mean}: χ² is off by {excess} standard deviations");
        }
        assert_eq!(poisson(0.0, &mut rng), 0.0);
        assert_eq!(poisson(-3.0, &mut rng), 0.0);
        assert_eq!(poisson(f64::NAN, &mut rng), 0.0);
    }

    #[test]
    fn counts_have_the_poisson_mean_variance_and_skewness() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for mean in [0.1, 0.3, 5.0, 39.0, 800.0, 1e5, 1e9] {
            let n = 200_000;
            let counts: Vec<f64> = (0..n).map(|_| poisson(mean, &mut rng)).collect();
            let average = counts.iter().sum::<f64>() / n as f64;
            let moment = |k: i32| counts.iter().map(|c| (c - average).powi(k)).sum::<f64>() / n as f64;
            let variance = moment(2);
            assert!((average - mean).abs() < 5.0 * (mean / n as f64).sqrt(), "mean {mean}: {average}");
            // The variance of a sample variance is (2 + 1 / mean) mean² / n.
            let tolerance = 5.0 * ((2.0 + 1.0 / mean) / n as f64).sqrt();
            assert!((variance / mean - 1.0).abs() < tolerance, "mean {mean}: variance {variance}");
            let skewness = moment(3) / variance.powf(1.5);
            let tolerance = 5.0 * ((6.0 + 30.0 / mean + 16.0 / mean / mean) / n as f64).sqrt();
            assert!((skewness - mean.powf(-0.5)).abs() < tolerance, "mean {mean}: skewness {skewness}");
        }
    }

    #[test]
    fn the_logarithm_of_the_probability_agrees_with_the_recurrence() {
        for mean in [10.0, 77.3, 2000.0] {
            for (count, p) in probabilities(mean).into_iter().enumerate().filter(|(_, p)| *p > 1e-30) {
                let (divisor, exponent) = probability(count as f64, mean);
                let ln = exponent - divisor.ln();
                assert!((ln - p.ln()).abs() < 1e-9, "{count} of {mean}: {ln} {}", p.ln());
            }
        }
    }
}
