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
    /// The same over its median around.
    SigmaAround = 3,
    /// All of them, see [`Calibration::together`].
    Together = 4,
}

impl Score {
    pub const COUNT: usize = 5;
    /// All but [`Self::Together`], in their order.
    pub const PARTS: [Self; 4] = [Self::Training, Self::Surroundings, Self::Sigma, Self::SigmaAround];
}

/// What a window's own oddity counts beside that of its features, where both are compared with their surroundings.
const SIGMA_AROUND_WEIGHT: f32 = 0.5;
/// What counts a decade of surprise that the whole frame may share, beside one that its surroundings do not: frames differ more from each
/// other than windows within a frame do.
const WHOLE_WEIGHT: f32 = 0.7;
/// From this level on, scores that grow on by the same factor for a decade as between it and the level before are taken to be as rare.
const TAIL_DECADES: usize = 2;
/// No window is more surprising than this, decades.
const MOST_DECADES: f32 = 12.0;

/// A window of a held-out frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    /// As [`super::WindowScores::noise`].
    pub noise: f32,
    /// In the order of [`Score::PARTS`].
    pub scores: [f32; Score::PARTS.len()],
    /// What is known of its frame: one number for each way to divide frames into strata.
    pub strata: [u8; 3],
}

/// Thresholds of each score in each bin of the noise.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Upper bounds of all bins but the last, ascending.
    pub(super) edges: Vec<f32>,
    /// `[part, bin, level]`: the level's share of all windows scores higher; as `thresholds` else.
    pub(super) usual: Vec<f32>,
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
        let of_all = |score: &dyn Fn(&HeldOut) -> f32, worst: bool| -> Vec<f32> {
            bins.iter().flat_map(|bin| thresholds(bin, score, worst)).collect()
        };
        let of_parts = |worst: bool| -> Vec<f32> {
            let each = (0..Score::PARTS.len()).map(|part| of_all(&|window| window.scores[part], worst));
            each.flatten().collect()
        };
        let this = Self { edges, usual: of_parts(false), thresholds: of_parts(true) };
        let together = of_all(&|window| this.together(window.scores, window.noise), true);
        Ok(Self { thresholds: [this.thresholds, together].concat(), ..this })
    }

    /// Checks what was read.
    pub(super) fn checked(
        edges: Vec<f32>,
        usual: Vec<f32>,
        thresholds: Vec<f32>,
    ) -> Result<Self, FeatureError> {
        let each = (edges.len() + 1) * LEVELS;
        let named = [("usual", &usual, Score::PARTS.len()), ("thresholds", &thresholds, Score::COUNT)];
        for (name, values, scores) in named {
            let (expected, found) = (scores * each, values.len());
            if found != expected {
                return Err(FeatureError::Length { name, expected, found });
            }
            if values.iter().chain(&edges).any(|value| !value.is_finite()) {
                return Err(FeatureError::Missing(name));
            }
        }
        Ok(Self { edges, usual, thresholds })
    }

    pub(super) fn bins(&self) -> usize {
        self.edges.len() + 1
    }

    /// The part of `table` that is for this score and noise.
    fn of<'a>(&self, table: &'a [f32], score: Score, noise: f32) -> &'a [f32] {
        let bin = self.edges.partition_point(|&edge| edge <= noise);
        let first = (score as usize * self.bins() + bin) * LEVELS;
        table.get(first..first + LEVELS).unwrap_or_default()
    }

    /// At most a share p of in-distribution windows has a p-value below p, whatever their dose, pixel size and rotation. Never
    /// below 10⁻⁴; NaN for a score that is NaN.
    pub fn p_value(&self, score: Score, value: f32, noise: f32) -> f32 {
        10f32.powf(-decades(self.of(&self.thresholds, score, noise), value, noise))
    }

    /// How surprising a window is, decades: what it differs by from its surroundings, in its features and its sigma, or what it
    /// differs by from the training set, which is common to whole frames and therefore counts less. Each part is measured by the share of all
    /// windows of that noise that score higher, and not by the worst stratum's, which would drown the others; the promise is made of the whole.
    ///
    /// `parts` in the order of [`Score::PARTS`]. Without surroundings, the rest decides. NaN for a window that was not measured.
    pub fn together(&self, parts: [f32; Score::PARTS.len()], noise: f32) -> f32 {
        let [training, surroundings, sigma, around] = [0, 1, 2, 3].map(|part| {
            let table = self.of(&self.usual, Score::PARTS[part], noise);
            tail(table, parts[part]).unwrap_or_else(|| decades(table, parts[part], noise))
        });
        // The maximum passes over a NaN.
        (surroundings + SIGMA_AROUND_WEIGHT * around).max(WHOLE_WEIGHT * (training + sigma))
    }

    /// Decades beyond what one window in a thousand exceeds, of [`Self::together`].
    pub fn beyond(&self, together: f32, noise: f32) -> f32 {
        let thresholds = self.of(&self.thresholds, Score::Together, noise);
        let known = thresholds.iter().take(3 * LEVELS_PER_DECADE + 1).rev().find(|&&t| t < f32::MAX);
        known.map_or(f32::NAN, |&limit| together - limit)
    }
}

/// Minus the decimal logarithm of the share of windows above `value`, by thresholds of all levels; NaN for NaN.
fn decades(thresholds: &[f32], value: f32, noise: f32) -> f32 {
    if value.is_nan() || noise.is_nan() {
        return f32::NAN;
    }
    let above = thresholds.partition_point(|&threshold| threshold < value);
    let Some(last) = above.checked_sub(1) else { return 0.0 };
    let part = match (thresholds.get(last), thresholds.get(above)) {
        (Some(&low), Some(&high)) if high < f32::MAX => (value - low) / (high - low),
        (_, Some(_)) => 0.0,
        _ => return -level(last).log10() as f32,
    };
    (last as f32 + part) / LEVELS_PER_DECADE as f32
}

/// Decades of a score in the tail, where there are too few windows to count: on as the last decade went. `None` before it.
fn tail(thresholds: &[f32], value: f32) -> Option<f32> {
    let at = |decade: usize| thresholds.get(decade * LEVELS_PER_DECADE).copied();
    let (before, from) = (at(TAIL_DECADES - 1)?, at(TAIL_DECADES)?);
    // `from` is unknown where it is f32::MAX, and nothing is above it.
    if !(value > from && before > 0.0) {
        return None;
    }
    let factor = (from / before).log10().max(f32::EPSILON);
    Some((TAIL_DECADES as f32 + (value / from).log10() / factor).min(MOST_DECADES))
}

/// The thresholds of a score in one bin: over all windows, or for the worst of the strata.
fn thresholds(bin: &[&HeldOut], score: &dyn Fn(&HeldOut) -> f32, worst: bool) -> [f32; LEVELS] {
    let scored: Vec<(&HeldOut, f32)> = bin.iter().map(|&window| (window, score(window))).collect();
    let sorted = |chosen: &dyn Fn(&HeldOut) -> bool| -> Vec<f32> {
        let mut scores: Vec<f32> =
            scored.iter().filter(|(window, _)| chosen(window)).map(|(_, score)| *score).collect();
        scores.sort_by(f32::total_cmp);
        scores
    };
    let mut groups = vec![sorted(&|_| true)];
    for way in (0..3).filter(|_| worst) {
        let mut names: Vec<u8> = bin.iter().map(|window| window.strata[way]).collect();
        names.sort_unstable();
        names.dedup();
        groups.extend(names.into_iter().map(|name| sorted(&|window| window.strata[way] == name)));
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
                HeldOut { noise, scores: std::array::from_fn(|_| score()), strata: [dose, 0, 0] }
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
        assert!(p(f32::NAN).is_nan());
        assert!(Calibration::fit(&[]).is_err());
    }

    #[test]
    fn parts_add_up_as_the_weights_say_and_the_promise_is_made_of_the_whole() {
        let windows = windows(100_000, 4);
        let calibration = Calibration::fit(&windows).unwrap();
        let usual = calibration.together([0.1; 4], 1.0);
        assert!((0.0..0.5).contains(&usual), "{usual}");
        let strange = |part: usize, value: f32| {
            let mut parts = [0.1; 4];
            parts[part] = value;
            calibration.together(parts, 1.0)
        };
        // Beyond what is counted, a decade is a factor: ten times the score is as many decades for every part.
        let steps = [0, 1, 2, 3].map(|part| strange(part, 1000.0) - strange(part, 100.0));
        assert!(steps.iter().all(|step| *step > 0.5), "{steps:?}");
        assert!((steps[0] / steps[1] - WHOLE_WEIGHT).abs() < 0.1, "{steps:?}");
        assert!((steps[3] / steps[1] - SIGMA_AROUND_WEIGHT).abs() < 0.1, "{steps:?}");
        // A window without surroundings is judged by the rest, one that was not measured not at all.
        assert!(calibration.together([100.0, f32::NAN, 0.1, f32::NAN], 1.0) > 1.0);
        assert!(calibration.together([f32::NAN; 4], 1.0).is_nan());
        let below = |alpha: f32| {
            let p = |w: &HeldOut| {
                calibration.p_value(Score::Together, calibration.together(w.scores, w.noise), w.noise)
            };
            let fresh = super::tests::windows(100_000, 5);
            fresh.iter().filter(|window| p(window) < alpha).count() as f32 / fresh.len() as f32
        };
        assert!(below(0.1) <= 0.11 && below(0.1) > 0.02 && below(0.01) <= 0.012, "{}", below(0.1));
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
