//! Thresholds of a score at levels of significance: those that held-out scores give, and what a score is worth by them.

use ndarray::Array2;

/// Small p-values are told apart down to this decade.
const DECADES: usize = 4;
pub(super) const LEVELS_PER_DECADE: usize = 8;
/// Significance levels at which thresholds are kept: 1, 10^(-1/8), …, 10⁻⁴.
pub(super) const LEVELS: usize = DECADES * LEVELS_PER_DECADE + 1;
/// A stratum needs so many windows to have a say: those of about eight frames.
const LEAST_WINDOWS: usize = 4000;
/// From this level on, scores that grow on by the same factor for a decade as between it and the level before are taken to be as rare.
const TAIL_DECADES: usize = 2;
/// No window is more surprising than this, decades.
const MOST_DECADES: f32 = 12.0;

fn level(index: usize) -> f64 {
    10f64.powf(-(index as f64) / LEVELS_PER_DECADE as f64)
}

/// Minus the decimal logarithm of the share of windows above `value`, by thresholds of all levels; NaN for NaN.
pub(super) fn decades(thresholds: &[f32], value: f32) -> f32 {
    if value.is_nan() {
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
pub(super) fn tail(thresholds: &[f32], value: f32) -> Option<f32> {
    let at = |decade: usize| thresholds.get(decade * LEVELS_PER_DECADE).copied();
    let (before, from) = (at(TAIL_DECADES - 1)?, at(TAIL_DECADES)?);
    // `from` is unknown where it is f32::MAX, and nothing is above it.
    if !(value > from && before > 0.0) {
        return None;
    }
    let factor = (from / before).log10().max(f32::EPSILON);
    Some((TAIL_DECADES as f32 + (value / from).log10() / factor).min(MOST_DECADES))
}

/// The thresholds of a score over all windows, or for the worst of the strata; `None` without a window.
pub(super) fn thresholds<'a>(
    frames: impl Iterator<Item = (&'a Array2<f32>, [u8; 3])>,
    worst: bool,
) -> Option<[f32; LEVELS]> {
    let finite = |map: &Array2<f32>| map.iter().copied().filter(|v| v.is_finite()).collect::<Vec<_>>();
    let frames: Vec<(Vec<f32>, [u8; 3])> = frames.map(|(map, strata)| (finite(map), strata)).collect();
    let sorted = |chosen: &dyn Fn(&[u8; 3]) -> bool| -> Vec<f32> {
        let chosen = frames.iter().filter(|(_, strata)| chosen(strata));
        let mut scores: Vec<f32> = chosen.flat_map(|(scores, _)| scores).copied().collect();
        scores.sort_by(f32::total_cmp);
        scores
    };
    let mut groups = vec![sorted(&|_| true)];
    if groups.iter().all(Vec::is_empty) {
        return None;
    }
    for way in (0..3).filter(|_| worst) {
        let mut names: Vec<u8> = frames.iter().map(|(_, strata)| strata[way]).collect();
        names.sort_unstable();
        names.dedup();
        groups.extend(names.into_iter().map(|name| sorted(&|strata| strata[way] == name)));
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
    Some(worst.map(|threshold| {
        highest = highest.max(threshold);
        highest
    }))
}

/// What at most the share `level` of further scores exceeds, from ascending ones; `None` when there are too few to say.
fn conformal(ascending: &[f32], level: f64) -> Option<f32> {
    let rank = ((1.0 - level) * (ascending.len() + 1) as f64).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

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
