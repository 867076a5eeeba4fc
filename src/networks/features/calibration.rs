//! p-values that hold at every dose, pixel size and rotation: conformal calibration within bins of what a frame itself shows of its
//! noise (Mondrian conformal prediction, Vovk et al. 2005), and within each bin for the worst of the strata that held-out frames are
//! known to come from.

use super::FeatureError;

/// Small p-values are told apart down to this decade.
const DECADES: usize = 4;
const LEVELS_PER_DECADE: usize = 8;
/// Significance levels at which thresholds are kept: 1, 10^(-1/8), …, 10⁻⁴.
pub(super) const LEVELS: usize = DECADES * LEVELS_PER_DECADE + 1;
/// Bins of the noise, equally full.
const BINS: usize = 6;
/// A stratum needs so many windows in a bin to have a say there.
const LEAST_WINDOWS: usize = 1000;

/// What is calibrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// How far the features are from those of the training set.
    Training = 0,
    /// How far they are from those of the frame around them.
    Surroundings = 1,
    /// The predicted standard deviation of P.
    Sigma = 2,
}

impl Score {
    pub const COUNT: usize = 3;
}

/// A window of a held-out frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    /// As [`super::WindowScores::noise`].
    pub noise: f32,
    /// In the order of [`Score`].
    pub scores: [f32; Score::COUNT],
    /// What is known of its frame: one number for each way to divide frames into strata.
    pub strata: [u8; 3],
}

/// Thresholds of each score in each bin of the noise.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Upper bounds of all bins but the last, ascending.
    pub(super) edges: Vec<f32>,
    /// `[score, bin, level]`: in no stratum more than the level's share of windows scores higher. Ascending along the levels;
    /// `f32::MAX` where there were too few windows to tell.
    pub(super) thresholds: Vec<f32>,
}

fn level(index: usize) -> f64 {
    10f64.powf(-(index as f64) / LEVELS_PER_DECADE as f64)
}

impl Calibration {
    /// From held-out windows; those whose noise or a score is not finite are passed over.
    ///
    /// # Errors
    /// When none is left.
    pub fn fit(windows: &[HeldOut]) -> Result<Self, FeatureError> {
        let finite =
            |window: &&HeldOut| window.noise.is_finite() && window.scores.iter().all(|s| s.is_finite());
        let mut windows: Vec<&HeldOut> = windows.iter().filter(finite).collect();
        if windows.is_empty() {
            return Err(FeatureError::Uncalibrated);
        }
        windows.sort_by(|a, b| a.noise.total_cmp(&b.noise));
        let size = windows.len().div_ceil(BINS);
        let bins: Vec<&[&HeldOut]> = windows.chunks(size).collect();
        let edges = bins.iter().skip(1).filter_map(|bin| bin.first()).map(|window| window.noise).collect();
        let thresholds = (0..Score::COUNT)
            .flat_map(|score| bins.iter().flat_map(move |bin| thresholds(bin, score)))
            .collect();
        Ok(Self { edges, thresholds })
    }

    /// Checks what was read.
    pub(super) fn checked(edges: Vec<f32>, thresholds: Vec<f32>) -> Result<Self, FeatureError> {
        let expected = Score::COUNT * (edges.len() + 1) * LEVELS;
        let found = thresholds.len();
        if found != expected {
            return Err(FeatureError::Length { name: "thresholds", expected, found });
        }
        if thresholds.iter().chain(&edges).any(|value| !value.is_finite()) {
            return Err(FeatureError::Missing("thresholds"));
        }
        Ok(Self { edges, thresholds })
    }

    pub(super) fn bins(&self) -> usize {
        self.edges.len() + 1
    }

    fn of(&self, score: Score, noise: f32) -> &[f32] {
        let bin = self.edges.partition_point(|&edge| edge <= noise);
        let first = (score as usize * self.bins() + bin) * LEVELS;
        self.thresholds.get(first..first + LEVELS).unwrap_or_default()
    }

    /// At most a share p of in-distribution windows has a p-value below p, whatever their dose, pixel size and rotation. Never
    /// below 10⁻⁴; NaN for a score that is NaN.
    pub fn p_value(&self, score: Score, value: f32, noise: f32) -> f32 {
        if value.is_nan() || noise.is_nan() {
            return f32::NAN;
        }
        let thresholds = self.of(score, noise);
        let above = thresholds.partition_point(|&threshold| threshold < value);
        let Some(last) = above.checked_sub(1) else { return 1.0 };
        let (Some(&low), Some(&high)) = (thresholds.get(last), thresholds.get(above)) else {
            return level(last) as f32;
        };
        let part = if high < f32::MAX { f64::from((value - low) / (high - low)) } else { 0.0 };
        10f64.powf(-(last as f64 + part) / LEVELS_PER_DECADE as f64) as f32
    }

    /// The score relative to what one window in a thousand exceeds.
    pub fn excess(&self, score: Score, value: f32, noise: f32) -> f32 {
        let thresholds = self.of(score, noise);
        let known = thresholds.iter().take(3 * LEVELS_PER_DECADE + 1).rev().find(|&&t| t < f32::MAX);
        known.map_or(f32::NAN, |&limit| value / limit.max(f32::MIN_POSITIVE))
    }
}

/// The thresholds of one score in one bin.
fn thresholds(bin: &[&HeldOut], score: usize) -> [f32; LEVELS] {
    let sorted = |of: &mut dyn Iterator<Item = &&HeldOut>| -> Vec<f32> {
        let mut scores: Vec<f32> = of.filter_map(|window| window.scores.get(score).copied()).collect();
        scores.sort_by(f32::total_cmp);
        scores
    };
    let mut groups = vec![sorted(&mut bin.iter())];
    for way in 0..3 {
        let mut names: Vec<u8> = bin.iter().map(|window| window.strata[way]).collect();
        names.sort_unstable();
        names.dedup();
        groups.extend(
            names.into_iter().map(|name| sorted(&mut bin.iter().filter(|window| window.strata[way] == name))),
        );
    }
    let mut all = true;
    let mut worst = [f32::MIN; LEVELS];
    for group in groups {
        if !all && group.len() < LEAST_WINDOWS {
            continue;
        }
        for (index, worst) in worst.iter_mut().enumerate() {
            match conformal(&group, level(index)) {
                Some(threshold) => *worst = worst.max(threshold),
                None if all => *worst = f32::MAX,
                None => {}
            }
        }
        all = false;
    }
    // Rounding of ranks must not make a smaller share cost less.
    let mut highest = f32::MIN;
    worst.map(|threshold| {
        highest = highest.max(threshold);
        highest
    })
}

/// What at most the share `level` of further scores exceeds, from ascending ones; `None` when there are too few to say.
fn conformal(ascending: &[f32], level: f64) -> Option<f32> {
    let rank = ((1.0 - level) * (ascending.len() + 1) as f64).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_distr::{Distribution as _, StandardNormal};

    /// Windows whose scores grow with their noise, and are twice as large in one stratum as in the others.
    fn windows(count: usize, seed: u64) -> Vec<HeldOut> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        (0..count)
            .map(|_| {
                let noise: f32 = rng.random_range(0.5..4.0);
                let dose = rng.random_range(0..3u8);
                let mut score = || {
                    let draw: f32 = StandardNormal.sample(&mut rng);
                    noise * draw.abs() * if dose == 1 { 2.0 } else { 1.0 }
                };
                HeldOut { noise, scores: [score(), score(), score()], strata: [dose, 0, 0] }
            })
            .collect()
    }

    #[test]
    fn the_promise_holds_in_every_bin_and_stratum() {
        let calibration = Calibration::fit(&windows(300_000, 1)).unwrap();
        let fresh = windows(300_000, 2);
        for alpha in [0.1f32, 0.01, 0.001] {
            let share = |of: &dyn Fn(&HeldOut) -> bool| {
                let chosen: Vec<_> = fresh.iter().filter(|window| of(window)).collect();
                let below = chosen
                    .iter()
                    .filter(|w| calibration.p_value(Score::Surroundings, w.scores[1], w.noise) < alpha)
                    .count();
                below as f32 / chosen.len() as f32
            };
            for dose in 0..3 {
                let found = share(&|window| window.strata[0] == dose);
                assert!(found <= 1.3 * alpha, "{alpha}, stratum {dose}: {found}");
            }
            // It is kept in the worst stratum, and not by far.
            assert!(share(&|window| window.strata[0] == 1) > 0.6 * alpha);
        }
    }

    #[test]
    fn p_values_fall_from_1_and_end_where_nothing_is_known() {
        let calibration = Calibration::fit(&windows(50_000, 3)).unwrap();
        let p = |value: f32| calibration.p_value(Score::Training, value, 1.0);
        assert_eq!(p(-1.0), 1.0);
        assert!(p(f32::NAN).is_nan());
        let mut last = 1.0;
        for step in 0..400 {
            let next = p(step as f32 * 0.05);
            assert!(next <= last, "at {step}");
            last = next;
        }
        // Some 8000 windows in a bin: nothing is known of one in 10 000.
        assert!((1e-4..2e-4).contains(&p(1e9)), "{}", p(1e9));
        assert!(
            (calibration.excess(Score::Training, 8.0, 1.0) / calibration.excess(Score::Training, 4.0, 1.0)
                - 2.0)
                .abs()
                < 1e-5
        );
        assert!(Calibration::fit(&[]).is_err());
    }

    #[test]
    fn ranks_are_hand_worked() {
        let scores: Vec<f32> = (1..=9).map(|n| n as f32).collect();
        // Of ten equally likely ranks of a tenth score, one is above 9, two above 8.
        assert_eq!(conformal(&scores, 0.1), Some(9.0));
        assert_eq!(conformal(&scores, 0.2), Some(8.0));
        assert_eq!(conformal(&scores, 0.05), None);
        assert_eq!(conformal(&scores, 1.0), Some(1.0));
    }
}
