//! What many numbers have in common.

use std::cmp::Ordering;

/// Standard deviation of a normal variable over the median of its distance from its mean.
pub(crate) const NORMAL_OVER_MEDIAN: f64 = 1.4826;

/// The middle of `values` in the order of `compare`, the upper one of two; `None` of nothing.
pub(crate) fn median<T: Copy>(
    values: impl IntoIterator<Item = T>,
    compare: fn(&T, &T) -> Ordering,
) -> Option<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, compare).1)
}

/// NaN of nothing.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let sum = |(sum, count): (f64, usize), value: f64| (sum + value, count + 1);
    let (sum, count) = values.fold((0.0, 0), sum);
    sum / count as f64
}

/// Root mean square; NaN of nothing.
pub(crate) fn rms(values: impl Iterator<Item = f64>) -> f64 {
    mean(values.map(|value| value * value)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_worked_averages() {
        assert_eq!(mean([3.0, -4.0, 7.0].into_iter()), 2.0);
        assert_eq!(rms([3.0, -4.0].into_iter()), 12.5f64.sqrt());
        assert!(mean([].into_iter()).is_nan() && rms([].into_iter()).is_nan());
        assert_eq!(median([5, 1, 3], i32::cmp), Some(3));
        // The upper one of two.
        assert_eq!(median([4, 1, 3, 2], i32::cmp), Some(3));
        assert_eq!(median([], i32::cmp), None);
    }
}
