//! p-values that hold at every dose, pixel size and rotation: conformal calibration within classes of the pixel size, which is known
//! (Mondrian conformal prediction, Vovk et al. 2005), and within each class for the worst of the strata that held-out frames are known to
//! come from.

use super::FeatureError;
use super::scores::{Sampling, WHOLE_PM, WindowScores, mean_around};
use super::thresholds::{LEVELS, LEVELS_PER_DECADE, decades, tail, thresholds};
use ndarray::Array2;

/// Bounds of the classes of the pixel size, pm: finer than the networks' 15, about that, and coarser, where there is less to see.
const CLASSES_PM: [f64; 2] = [13.0, 17.5];
/// Classes of the pixel size.
pub(super) const CLASSES: usize = CLASSES_PM.len() + 1;

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
    /// How far the predicted cell is from those around.
    CellAround = 4,
    /// How far the mean features around it are from those of the training set.
    Area = 5,
    /// How far the predicted area is from what the predicted edges enclose, around.
    Contradiction = 6,
    /// The same over its median around.
    ContradictionAround = 7,
    /// How smooth the image is.
    Smoothness = 8,
    /// What differs from the surroundings, see [`Surprise::local`].
    Local = 9,
    /// What differs from the training set, see [`Surprise::whole`].
    Whole = 10,
    /// Both, by how rare they are.
    Together = 11,
}

impl Score {
    /// All, in their order.
    pub const ALL: [Self; Self::PARTS.len() + 3] = {
        let [a, b, c, d, e, f, g, h, i] = Self::PARTS;
        [a, b, c, d, e, f, g, h, i, Self::Local, Self::Whole, Self::Together]
    };
    /// Scores before [`Self::Together`], which comes from how rare they are among all windows.
    pub(super) const BEFORE_TOGETHER: usize = Self::ALL.len() - 1;
    /// What the others come from.
    pub const PARTS: [Self; 9] = [
        Self::Training,
        Self::Surroundings,
        Self::Sigma,
        Self::SigmaAround,
        Self::CellAround,
        Self::Area,
        Self::Contradiction,
        Self::ContradictionAround,
        Self::Smoothness,
    ];
}

/// What counts a decade of surprise at what the network answers, beside one at the features, where both are compared with their
/// surroundings.
const ANSWER_WEIGHT: f32 = 0.25;
/// What counts a decade of surprise that the frame may share, beside one at sigma or at contradictions: at features, which add to sigma, at
/// the mean features of the area, and at how smooth the image is.
const TRAINING_WEIGHT: f32 = 0.65;
const AREA_WEIGHT: f32 = 0.95;
const SMOOTHNESS_WEIGHT: f32 = 1.55;
/// The part of a p-value's promise that is made of what differs from its surroundings. What differs from the training set has the rest:
/// it is shared by the windows of a frame, which are flagged as a whole where it is strange.
const LOCAL_PROMISE: f32 = 0.8;
/// The same part in what ranks windows: there, what a frame shares need not be rarer than what is its own.
const LOCAL_RANK: f32 = 0.4;
/// Sides of the squares over which surprise is averaged, pm: defects of one column reach as far as the windows that hold it, others
/// farther.
const LOCAL_PM: [f64; 2] = [360.0, 840.0];

/// The windows of a held-out frame.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    pub scores: WindowScores,
    /// What is known of the frame: one number for each way to divide frames into strata.
    pub strata: [u8; 3],
}

#[cfg(test)]
impl HeldOut {
    /// 20 000 windows whose scores are spread evenly from 0 to `most`, neighbours at random.
    pub(crate) fn spread(most: f32) -> Self {
        let score = |n: u32| (n * 7919 % 20_000) as f32 * (most / 20_000.0);
        let part = Array2::from_shape_fn((100, 200), |(i, j)| score((i * 200 + j) as u32));
        let parts = std::array::from_fn(|_| part.clone());
        let sampling = Sampling { step_pm: [120.0; 2], pixel_pm: 15.0 };
        Self { scores: WindowScores { parts, sampling }, strata: [0; 3] }
    }
}

/// Thresholds of each score in each class of the pixel size.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// `[class, score before together, level]`: the level's share of all windows scores higher; as `thresholds` else.
    pub(super) usual: Vec<f32>,
    /// `[class, score, level]`: in no stratum more than the level's share of windows scores higher. Ascending along the levels;
    /// `f32::MAX` where there were too few windows to tell.
    pub(super) thresholds: Vec<f32>,
}

impl Calibration {
    /// From held-out frames; windows of which a score is not finite are passed over. A class without frames has the thresholds of all.
    ///
    /// # Errors
    /// When no window is left.
    pub fn fit(frames: &[HeldOut]) -> Result<Self, FeatureError> {
        let mut all = Self { usual: Vec::new(), thresholds: Vec::new() };
        for class in 0..CLASSES {
            let own = || frames.iter().filter(move |frame| class_of(frame.scores.sampling) == class);
            let chosen: Vec<&HeldOut> =
                if own().next().is_some() { own().collect() } else { frames.iter().collect() };
            let [usual, worst] = of_class(&chosen)?;
            all.usual.extend(usual);
            all.thresholds.extend(worst);
        }
        Ok(all)
    }

    /// Checks what was read.
    pub(super) fn checked(usual: Vec<f32>, thresholds: Vec<f32>) -> Result<Self, FeatureError> {
        let named =
            [("usual", &usual, Score::BEFORE_TOGETHER), ("thresholds", &thresholds, Score::ALL.len())];
        for (name, values, scores) in named {
            let (expected, found) = (CLASSES * scores * LEVELS, values.len());
            if found != expected {
                return Err(FeatureError::Length { name, expected, found });
            }
            if values.iter().any(|value| !value.is_finite()) {
                return Err(FeatureError::Missing(name));
            }
        }
        Ok(Self { usual, thresholds })
    }

    /// At most a share p of in-distribution windows has a p-value below p, whatever their dose, pixel size and rotation. Never
    /// below 10⁻⁴; NaN for a score that is NaN.
    pub fn p_value(&self, score: Score, value: f32, sampling: Sampling) -> f32 {
        10f32.powf(-decades(self.thresholds(score, sampling), value))
    }

    /// How surprising each window is. Everything is measured by the share of all windows that score higher, and not by the worst stratum's,
    /// which would drown the others; the promise is made of the two sums, see [`Self::p_value_of_both`].
    pub fn surprise(&self, scores: &WindowScores) -> Surprise {
        let length = Score::BEFORE_TOGETHER * LEVELS;
        let first = class_of(scores.sampling) * length;
        let usual = self.usual.get(first..first + length).unwrap_or_default();
        let sums = sums(usual, scores);
        let together = together(usual, &sums);
        let [local, whole] = sums;
        Surprise { local, whole, together }
    }

    /// What the p-values of [`Score::Local`] and [`Score::Whole`] say together, and keep the promise with: each has a part of it. NaN
    /// only where both are.
    pub fn p_value_of_both(local: f32, whole: f32) -> f32 {
        (local / LOCAL_PROMISE).min(whole / (1.0 - LOCAL_PROMISE)).clamp(0.0, 1.0)
    }

    /// Decades beyond what one window in a thousand exceeds, of [`Surprise::together`].
    pub fn beyond(&self, together: f32, sampling: Sampling) -> f32 {
        let thresholds = self.thresholds(Score::Together, sampling);
        let known = thresholds.iter().take(3 * LEVELS_PER_DECADE + 1).rev().find(|&&t| t < f32::MAX);
        known.map_or(f32::NAN, |&limit| together - limit)
    }

    fn thresholds(&self, score: Score, sampling: Sampling) -> &[f32] {
        let length = Score::ALL.len() * LEVELS;
        let first = class_of(sampling) * length;
        of(self.thresholds.get(first..first + length).unwrap_or_default(), score)
    }
}

/// How surprising each window is, decades, averaged over the squares in which an anomaly would show, which noise does not fill.
/// `[window row, window col]`; NaN for a window that was not measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Surprise {
    /// What it and those next to it differ by from their surroundings, in features, sigma, cell and contradictions. NaN without surroundings too.
    pub local: Array2<f32>,
    /// What those around it differ by from the training set, one by one in features and sigma or in the mean of their features, by how much
    /// their answers contradict each other, or how smooth the image is.
    pub whole: Array2<f32>,
    /// How rare both are among all windows, decades, the rarer counting, each with its part: this ranks windows.
    pub together: Array2<f32>,
}

fn class_of(sampling: Sampling) -> usize {
    CLASSES_PM.partition_point(|&bound| bound <= sampling.pixel_pm)
}

/// [`Calibration::usual`] and [`Calibration::thresholds`] of the frames of one class.
fn of_class(frames: &[&HeldOut]) -> Result<[Vec<f32>; 2], FeatureError> {
    let levels = |maps: &[&Array2<f32>], worst: bool| {
        let strata = frames.iter().map(|frame| frame.strata);
        thresholds(maps.iter().copied().zip(strata), worst).ok_or(FeatureError::Uncalibrated)
    };
    let (mut usual, mut worst) = (Vec::new(), Vec::new());
    for part in 0..Score::PARTS.len() {
        let maps: Vec<_> = frames.iter().map(|frame| &frame.scores.parts[part]).collect();
        usual.extend(levels(&maps, false)?);
        worst.extend(levels(&maps, true)?);
    }
    let sums: Vec<_> = frames.iter().map(|frame| sums(&usual, &frame.scores)).collect();
    for which in 0..2 {
        let maps: Vec<_> = sums.iter().map(|sums| &sums[which]).collect();
        usual.extend(levels(&maps, false)?);
        worst.extend(levels(&maps, true)?);
    }
    let together: Vec<_> = sums.iter().map(|sums| together(&usual, sums)).collect();
    worst.extend(levels(&together.iter().collect::<Vec<_>>(), true)?);
    Ok([usual, worst])
}

/// Decades of the share of windows that score higher than `value`, beyond what was counted as its tail goes on.
fn rarity(table: &[f32], value: f32) -> f32 {
    tail(table, value).unwrap_or_else(|| decades(table, value))
}

/// [`Surprise::local`] and [`Surprise::whole`], by the parts' thresholds over all windows, `[part, level]`.
fn sums(usual: &[f32], scores: &WindowScores) -> [Array2<f32>; 2] {
    let part = |part: Score| {
        let table = of(usual, part);
        scores.parts[part as usize].mapv(|value| rarity(table, value))
    };
    let step_pm = scores.sampling.step_pm;
    let answers = part(Score::SigmaAround) + part(Score::CellAround) + part(Score::ContradictionAround);
    let around = part(Score::Surroundings) + answers * ANSWER_WEIGHT;
    let [mut local, far] = LOCAL_PM.map(|side_pm| mean_around(&around.view(), side_pm, step_pm));
    raise(&mut local, &far);
    let training = part(Score::Training) * TRAINING_WEIGHT + part(Score::Sigma);
    let mut whole = mean_around(&training.view(), WHOLE_PM, step_pm);
    raise(&mut whole, &(part(Score::Area) * AREA_WEIGHT));
    raise(&mut whole, &part(Score::Contradiction));
    let smooth = mean_around(&part(Score::Smoothness).view(), WHOLE_PM, step_pm);
    raise(&mut whole, &(smooth * SMOOTHNESS_WEIGHT));
    [local, whole]
}

/// [`Surprise::together`] of both sums, by their thresholds over all windows, which follow those of the parts.
fn together(usual: &[f32], [local, whole]: &[Array2<f32>; 2]) -> Array2<f32> {
    let rare = |map: &Array2<f32>, score: Score, part: f32| {
        let table = of(usual, score);
        map.mapv(|value| rarity(table, value) + part.log10())
    };
    let mut together = rare(whole, Score::Whole, 1.0 - LOCAL_RANK);
    raise(&mut together, &rare(local, Score::Local, LOCAL_RANK));
    together
}

/// The larger of both; of a number and NaN, the number.
fn raise(map: &mut Array2<f32>, other: &Array2<f32>) {
    map.zip_mut_with(other, |all, &other| *all = all.max(other));
}

/// The part of `table` that is for this score.
fn of(table: &[f32], score: Score) -> &[f32] {
    let first = score as usize * LEVELS;
    table.get(first..first + LEVELS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_distr::{Distribution as _, StandardNormal};

    const SIDE: usize = 20;
    const SAMPLING: Sampling = Sampling { step_pm: [120.0; 2], pixel_pm: 15.0 };

    /// Frames whose scores are twice as large in one stratum as in the others.
    fn frames(count: usize, seed: u64) -> Vec<HeldOut> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let frame = |_| {
            let dose = rng.random_range(0..3u8);
            let mut part = || {
                Array2::from_shape_simple_fn((SIDE, SIDE), || {
                    let draw: f32 = StandardNormal.sample(&mut rng);
                    draw.abs() * if dose == 1 { 2.0 } else { 1.0 }
                })
            };
            let parts = std::array::from_fn(|_| part());
            HeldOut { scores: WindowScores { parts, sampling: SAMPLING }, strata: [dose, 0, 0] }
        };
        (0..count).map(frame).collect()
    }

    #[test]
    fn the_promise_holds_in_every_stratum() {
        let calibration = Calibration::fit(&frames(600, 1)).unwrap();
        let fresh = frames(600, 2);
        for alpha in [0.1f32, 0.01, 0.001] {
            let share = |dose: u8| {
                let chosen = fresh.iter().filter(|frame| frame.strata[0] == dose);
                let scores: Vec<f32> =
                    chosen.flat_map(|frame| frame.scores.parts[1].iter().copied()).collect();
                let below =
                    |score: &&f32| calibration.p_value(Score::Surroundings, **score, SAMPLING) < alpha;
                scores.iter().filter(below).count() as f32 / scores.len() as f32
            };
            for dose in 0..3 {
                assert!(share(dose) <= 1.3 * alpha, "{alpha}, stratum {dose}: {}", share(dose));
            }
            // It is kept in the worst stratum, and not by far.
            assert!(share(1) > 0.6 * alpha);
        }
    }

    #[test]
    fn p_values_fall_from_1_and_end_where_nothing_is_known() {
        let calibration = Calibration::fit(&frames(20, 3)).unwrap();
        let p = |value: f32| calibration.p_value(Score::Training, value, SAMPLING);
        assert_eq!(p(-1.0), 1.0);
        assert!(p(f32::NAN).is_nan());
        let mut last = 1.0;
        for step in 0..400 {
            let next = p(step as f32 * 0.05);
            assert!(next <= last, "at {step}");
            last = next;
        }
        // Of 8000 windows nothing is known of one in 10 000.
        assert!((1e-4..2e-4).contains(&p(1e9)), "{}", p(1e9));
        assert!(Calibration::fit(&[]).is_err());
    }

    #[test]
    fn parts_add_up_as_the_weights_say_and_the_promise_is_made_of_the_whole() {
        let calibration = Calibration::fit(&frames(250, 4)).unwrap();
        let usual = || WindowScores {
            parts: std::array::from_fn(|_| Array2::from_elem((SIDE, SIDE), 0.1)),
            sampling: SAMPLING,
        };
        let at = |scores: &WindowScores| {
            let Surprise { local, whole, .. } = calibration.surprise(scores);
            local[[10, 10]].max(whole[[10, 10]])
        };
        assert!((0.0..0.5).contains(&at(&usual())), "{}", at(&usual()));
        let all = |part: usize, value: f32| {
            let mut scores = usual();
            scores.parts[part].fill(value);
            at(&scores)
        };
        // Beyond what is counted, a decade is a factor: ten times the score is as many decades for every part.
        let steps = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|part| all(part, 1000.0) - all(part, 100.0));
        assert!(steps.iter().all(|step| *step > 0.5), "{steps:?}");
        let whole = [(0, TRAINING_WEIGHT), (2, 1.0), (5, AREA_WEIGHT), (6, 1.0), (8, SMOOTHNESS_WEIGHT)];
        let answers = [3, 4, 7].map(|part| (part, ANSWER_WEIGHT));
        for (part, weight) in whole.into_iter().chain(answers) {
            assert!((steps[part] / steps[1] - weight).abs() < 0.1, "{steps:?}");
        }
        // A single window says less than a patch of 3 x 3.
        let patch = |side: usize| {
            let mut scores = usual();
            scores.parts[1].slice_mut(ndarray::s![10..10 + side, 10..10 + side]).fill(1e6);
            calibration.surprise(&scores).local[[10 + side / 2, 10 + side / 2]]
        };
        assert!(patch(3) > 5.0 * patch(1) && patch(1) > at(&usual()));
        // A window without surroundings is judged by the rest, one that was not measured not at all.
        let mut alone = usual();
        for part in [1, 3, 4, 7] {
            alone.parts[part].fill(f32::NAN);
        }
        alone.parts[0].fill(100.0);
        assert!(at(&alone) > 1.0);
        alone.parts.iter_mut().for_each(|part| part[[10, 10]] = f32::NAN);
        assert!(at(&alone).is_nan());
        let below = |alpha: f32| {
            let fresh = frames(250, 5);
            let p_values = fresh.iter().flat_map(|HeldOut { scores, .. }| {
                let Surprise { local, whole, .. } = calibration.surprise(scores);
                let p_value = |score: Score, value: f32| calibration.p_value(score, value, SAMPLING);
                let both = |(&local, &whole): (&f32, &f32)| {
                    Calibration::p_value_of_both(p_value(Score::Local, local), p_value(Score::Whole, whole))
                };
                local.iter().zip(&whole).map(both).collect::<Vec<_>>()
            });
            let p: Vec<f32> = p_values.collect();
            p.iter().filter(|p| **p < alpha).count() as f32 / p.len() as f32
        };
        // A third of all frames is of the worst stratum.
        assert!(below(0.1) <= 0.11 && below(0.1) > 0.02 && below(0.01) <= 0.015, "{}", below(0.1));
    }

    #[test]
    fn windows_are_ranked_by_the_rarer_of_both_sums() {
        let calibration = Calibration::fit(&frames(100, 7)).unwrap();
        let usual = &calibration.usual[..Score::BEFORE_TOGETHER * LEVELS];
        let at = |score: Score, decades: usize| of(usual, score)[decades * LEVELS_PER_DECADE];
        let rank = |local: usize, whole: usize| {
            let [local, whole] = [at(Score::Local, local), at(Score::Whole, whole)];
            together(usual, &[Array2::from_elem((1, 1), local), Array2::from_elem((1, 1), whole)])[[0, 0]]
        };
        let [of_local, of_whole] = [LOCAL_RANK, 1.0 - LOCAL_RANK].map(f32::log10);
        for (local, whole, expected) in
            [(2, 1, 2.0 + of_local), (1, 2, 2.0 + of_whole), (1, 1, 1.0 + of_local.max(of_whole))]
        {
            let found = rank(local, whole);
            assert!((found - expected).abs() < 1e-4, "{local}, {whole}: {found}, expected {expected}");
        }
    }

    #[test]
    fn a_frame_is_compared_with_those_of_its_own_pixel_size() {
        let mut frames = frames(200, 6);
        for frame in &mut frames[..100] {
            frame.scores.sampling.pixel_pm = 30.0;
            frame.scores.parts.iter_mut().for_each(|part| *part *= 3.0);
        }
        let calibration = Calibration::fit(&frames).unwrap();
        let p = |pixel_pm: f64| calibration.p_value(Score::Sigma, 5.0, Sampling { pixel_pm, ..SAMPLING });
        assert!(p(30.0) > 10.0 * p(15.0), "{} {}", p(30.0), p(15.0));
        // Without frames of its own, a class has what holds of all.
        assert!(p(15.0) < p(9.0) && p(9.0) <= p(30.0));
        let whole = |pixel_pm: f64| {
            let mut scores = frames[0].scores.clone();
            scores.sampling.pixel_pm = pixel_pm;
            calibration.surprise(&scores).together.mean().unwrap()
        };
        assert!(whole(15.0) > 1.5 * whole(30.0), "{} {}", whole(15.0), whole(30.0));
    }
}
