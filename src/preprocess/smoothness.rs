//! How smooth an image is, window by window: a blur and a filter against noise take out what changes from pixel to pixel.

use super::{AreaSums, mean};
use ndarray::{Array2, ArrayView2};

/// Variance of a window's pixels over half the mean square of the step from one to the next, down and to the right: 1 for white noise,
/// about 4 (λ / 2π)² for a wave of length λ px. Contrast and brightness do not matter.
///
/// # Shapes
/// - `image`: `[row, col]`
/// - result: `[(row - side) / stride + 1, (col - side) / stride + 1]`; `f32::MAX` for a window in which nothing changes
pub fn smoothness(image: ArrayView2<'_, f32>, side: usize, stride: usize) -> Array2<f32> {
    let (rows, cols) = image.dim();
    // About the mean, so that sums of squares do not lose what they are of.
    let mean = mean(image.iter().map(|&value| f64::from(value)));
    let at = |row: usize, col: usize| f64::from(image[[row, col]]) - mean;
    let inner = (rows.saturating_sub(1), cols.saturating_sub(1));
    let sums = |of: &dyn Fn(usize, usize) -> f64| {
        AreaSums::new(Array2::from_shape_fn(inner, |(row, col)| of(row, col)).view(), |value| value)
    };
    let values = sums(&at);
    let squares = sums(&|row, col| at(row, col).powi(2));
    let steps = sums(&|row, col| {
        let here = at(row, col);
        0.25 * ((at(row + 1, col) - here).powi(2) + (at(row, col + 1) - here).powi(2))
    });
    let windows = |size: usize| if size < side.max(2) { 0 } else { (size - side) / stride + 1 };
    let count = (side.saturating_sub(1) as f64).powi(2);
    Array2::from_shape_fn((windows(rows), windows(cols)), |(i, j)| {
        let span = |k: usize| k * stride..k * stride + side - 1;
        let [values, squares, steps] =
            [&values, &squares, &steps].map(|sums| sums.of(span(i), span(j)) / count);
        if steps > 0.0 { ((squares - values * values) / steps) as f32 } else { f32::MAX }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand_distr::{Distribution as _, StandardNormal};

    #[test]
    fn noise_and_a_wave_are_hand_worked() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let noise = Array2::from_shape_simple_fn((200, 204), || -> f32 { StandardNormal.sample(&mut rng) });
        let found = smoothness(noise.view(), 80, 40);
        assert_eq!(found.dim(), (4, 4));
        assert!(found.iter().all(|value| (value - 1.0).abs() < 0.05), "{found}");

        // sin(k x): variance 1/2; the mean square of steps is 1 - cos k to the right and 0 down, of which half of their mean counts.
        let k = std::f64::consts::TAU / 16.0;
        let wave = Array2::from_shape_fn((97, 97), |(_, col)| (k * col as f64).sin() as f32);
        let expected = 2.0 / (1.0 - k.cos());
        let found = smoothness(wave.view(), 97, 8)[[0, 0]];
        assert!((f64::from(found) - expected).abs() < 1e-3 * expected, "{found} {expected}");
        let brighter = wave.mapv(|value| 500.0 + 30.0 * value);
        assert!((smoothness(brighter.view(), 97, 8)[[0, 0]] - found).abs() < 1e-3 * found);
    }

    #[test]
    fn nothing_is_as_smooth_as_what_does_not_change() {
        let flat = Array2::from_elem((20, 20), 3.0);
        assert!(smoothness(flat.view(), 10, 5).iter().all(|&value| value == f32::MAX));
        assert_eq!(smoothness(flat.view(), 30, 5).dim(), (0, 0));
    }
}
