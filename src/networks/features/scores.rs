//! How strange each window of a frame is, from its features as components.

use super::Score;
use crate::preprocess::median;
use ndarray::{Array2, Array3, Axis, s};
use std::ops::Range;

/// Side of the tiles within which windows are compared with each other, pm: the windows of a frame of 256 px at 15 pm.
const TILE_PM: f64 = 2760.0;
/// A tile with fewer windows has no usual one.
const LEAST_WINDOWS: usize = 25;
/// Added to the variance within frames, as a part of the whole variance.
const LEAST_WITHIN: f32 = 1e-3;

/// Scores of every window, `[window row, window col]`; NaN where a window was not measured.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowScores {
    /// In the order of [`Score::PARTS`]:
    /// - squared distance from the training set's mean, in standard deviations of the training set;
    /// - squared distance from the median window of the tile, in standard deviations within frames, over the tile's median: how
    ///   much more a window differs from its surroundings than windows there do; NaN in a tile of too few windows;
    /// - the predicted sigma of P, pm;
    /// - sigma over the tile's median; NaN in a tile of too few windows.
    pub parts: [Array2<f32>; Score::PARTS.len()],
    /// The logarithm of that median distance: how much windows there differ from each other, which they do mostly by noise.
    pub noise: Array2<f32>,
}

impl WindowScores {
    /// # Shapes
    /// - `features`: `[window row, window col, component]`
    /// - `sigma`: pm, `[window row, window col]`
    /// - `within`: variance of each component within a frame, whose variance is 1 over all
    /// - `step_pm`: from one window to the next, `[row, col]`
    pub fn of(features: &Array3<f32>, sigma: &Array2<f32>, within: &[f32], step_pm: [f64; 2]) -> Self {
        let (rows, cols, _) = features.dim();
        let empty = || Array2::from_elem((rows, cols), f32::NAN);
        let mut scores = Self { parts: std::array::from_fn(|_| empty()), noise: empty() };
        let weights: Vec<f32> = within.iter().map(|variance| (variance + LEAST_WITHIN).recip()).collect();
        for down in tiles(rows, step_pm[0]) {
            for across in tiles(cols, step_pm[1]) {
                scores.tile((features, sigma), &weights, down.clone(), across);
            }
        }
        scores
    }

    fn tile(
        &mut self,
        (features, sigma): (&Array3<f32>, &Array2<f32>),
        weights: &[f32],
        down: Range<usize>,
        across: Range<usize>,
    ) {
        let part = features.slice(s![down.clone(), across.clone(), ..]);
        let measured = |window: &ndarray::ArrayView1<'_, f32>| window.iter().all(|value| value.is_finite());
        let windows: Vec<_> = part.lanes(Axis(2)).into_iter().filter(measured).collect();
        let central =
            |values: &mut dyn Iterator<Item = f32>| median(values, f32::total_cmp).unwrap_or(f32::NAN);
        let usual: Vec<f32> = (0..weights.len())
            .map(|component| central(&mut windows.iter().map(|window| window[component])))
            .collect();
        let distance = |window: &ndarray::ArrayView1<'_, f32>| -> f32 {
            window
                .iter()
                .zip(&usual)
                .zip(weights)
                .map(|((value, usual), weight)| (value - usual).powi(2) * weight)
                .sum()
        };
        let middle = central(&mut windows.iter().map(distance)).max(f32::MIN_POSITIVE);
        let enough = windows.len() >= LEAST_WINDOWS;
        let places = || down.clone().flat_map(|row| across.clone().map(move |col| [row, col]));
        let sigmas = places().filter_map(|at| sigma.get(at).copied()).filter(|sigma| sigma.is_finite());
        let usual_sigma = central(&mut sigmas.into_iter()).max(f32::MIN_POSITIVE);
        let [from_training, from_surroundings, own_sigma, from_sigma] = &mut self.parts;
        for at @ [row, col] in places() {
            let window = features.slice(s![row, col, ..]);
            let (Some(&sigma), true) = (sigma.get(at), measured(&window)) else { continue };
            from_training[at] = window.iter().map(|value| value * value).sum();
            own_sigma[at] = sigma;
            self.noise[at] = middle.ln();
            if enough {
                from_surroundings[at] = distance(&window) / middle;
                from_sigma[at] = sigma / usual_sigma;
            }
        }
    }
}

/// Ranges of nearly equal length, about [`TILE_PM`] each, that cover `count` windows.
fn tiles(count: usize, step_pm: f64) -> impl Iterator<Item = Range<usize>> {
    let length = (TILE_PM / step_pm).max(1.0);
    let parts = ((count as f64 / length).round() as usize).clamp(1, count.max(1));
    (0..parts).map(move |part| part * count / parts..(part + 1) * count / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_window_once() {
        for count in [1, 5, 23, 34, 35, 100, 247] {
            let all: Vec<usize> = tiles(count, 120.0).flatten().collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        assert_eq!(tiles(34, 120.0).count(), 1);
        assert_eq!(tiles(46, 120.0).count(), 2);
        assert_eq!(tiles(46, 60.0).count(), 1);
    }

    #[test]
    fn a_window_is_compared_with_its_surroundings_and_not_measured_ones_with_none() {
        // Two components; the second hardly varies within frames.
        let mut features = Array3::from_shape_fn((6, 6, 2), |(i, j, component)| {
            if component == 0 { ((i * 6 + j) % 3) as f32 - 1.0 } else { 5.0 }
        });
        features[[2, 2, 1]] = 5.5;
        features.slice_mut(s![4, 4, ..]).fill(f32::NAN);
        let mut sigma = Array2::from_elem((6, 6), 2.0);
        sigma[[1, 3]] = 7.0;
        let scores = WindowScores::of(&features, &sigma, &[1.0, 0.0], [120.0; 2]);
        let [training, surroundings, own, around] = &scores.parts;
        // The median window is (0, 5); distances are 0 or 1 / 1.001, and two thirds are not 0.
        let unit = 1.0 / 1.001;
        assert!((scores.noise[[0, 0]] - f32::ln(unit)).abs() < 1e-5);
        let strange = (features[[2, 2, 0]].powi(2) * unit + 0.25 / 1e-3) / unit;
        assert!((surroundings[[2, 2]] - strange).abs() < 1e-2);
        assert!((surroundings[[0, 0]] - 1.0).abs() < 1e-5);
        assert!((training[[0, 1]] - 25.0).abs() < 1e-5);
        assert_eq!((own[[1, 3]], around[[1, 3]], around[[0, 0]]), (7.0, 3.5, 1.0));
        for map in scores.parts.iter().chain([&scores.noise]) {
            assert!(map[[4, 4]].is_nan());
        }
        let few = features.slice(s![..4, ..6, ..]).to_owned();
        let scores = WindowScores::of(&few, &sigma, &[1.0, 0.0], [120.0; 2]);
        let [training, surroundings, _, around] = &scores.parts;
        assert!(surroundings.iter().chain(around).all(|value| value.is_nan()) && training[[0, 0]] > 0.0);
    }
}
