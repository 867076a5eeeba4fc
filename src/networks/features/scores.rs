//! How strange each window of a frame is, from its features as components and from what the network answers.

use super::Score;
use crate::frame::PolarizationMaps;
use crate::preprocess::{AreaSums, NORMAL_OVER_MEDIAN, median};
use ferrostem_proto::GridSpec;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, Zip, s};
use std::ops::Range;

/// Side of the tiles within which windows are compared with each other, pm: the windows of a frame of 256 px at 15 pm.
const TILE_PM: f64 = 2760.0;
/// A tile with fewer windows has no usual one.
const LEAST_WINDOWS: usize = 25;
/// Side of the squares over which contradictions of the answers are averaged, pm: about that of a window.
const ANSWERS_PM: f64 = 1080.0;
/// Side of the squares over which what frames share is averaged, pm; it does not change within them.
pub(super) const WHOLE_PM: f64 = 1560.0;
/// What is left of the variance within frames in the mean over such a square: neighbouring windows see the same cells.
const LEFT_IN_MEANS: f32 = 0.07;
/// Added to the variance within frames, as a part of the whole variance.
const LEAST_WITHIN: f32 = 1e-3;

/// How a frame was sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// From one window to the next, `[row, col]`, pm.
    pub step_pm: [f64; 2],
    /// Pixel size of the frame as it came, pm; of pixels that are not square, the geometric mean.
    pub pixel_pm: f64,
}

impl Sampling {
    /// Of windows `grid` on a frame with pixels of `[row, col]` pm.
    pub fn of(grid: &GridSpec, [row_pm, col_pm]: [f64; 2]) -> Self {
        Self { step_pm: [grid.step_row * row_pm, grid.step_col * col_pm], pixel_pm: (row_pm * col_pm).sqrt() }
    }
}

/// Scores of every window, `[window row, window col]`; NaN where a window was not measured.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowScores {
    /// In the order of [`Score::PARTS`]:
    /// - squared distance from the training set's mean, in standard deviations of the training set;
    /// - squared distance from the median window of the tile, in standard deviations within frames, over the tile's median: how
    ///   much more a window differs from its surroundings than windows there do; NaN in a tile of too few windows;
    /// - the predicted sigma of P, pm;
    /// - sigma over the tile's median; NaN in a tile of too few windows;
    /// - mean square of how far the cell's edges, angle and area lie from the tile's medians, in the tile's own standard deviations; NaN in a
    ///   tile of too few windows;
    /// - squared distance of the mean features of the windows around from the training set's, in standard deviations of such means;
    /// - mean square, over the windows around, of how far the predicted area is from what the predicted edges and angle enclose, as a part
    ///   of it: of a lattice that it does not know, a network says what no cell can be;
    /// - the same over the tile's median; NaN in a tile of too few windows;
    /// - [`smoothness()`](crate::preprocess::smoothness) of the image; NaN where the others are.
    pub parts: [Array2<f32>; Score::PARTS.len()],
    pub sampling: Sampling,
}

impl WindowScores {
    /// # Shapes
    /// - `maps`: the features as components
    /// - `within`: variance of each component within a frame, whose variance is 1 over all
    pub fn of(maps: &PolarizationMaps, within: &[f32], sampling: Sampling) -> Self {
        let [down_pm, across_pm] = sampling.step_pm;
        let (rows, cols, _) = maps.features.dim();
        let empty = || Array2::from_elem((rows, cols), f32::NAN);
        let mut scores = Self { parts: std::array::from_fn(|_| empty()), sampling };
        let weights: Vec<f32> = within.iter().map(|variance| (variance + LEAST_WITHIN).recip()).collect();
        scores.parts[Score::Contradiction as usize] = contradictions(maps, sampling.step_pm);
        for down in tiles(rows, down_pm) {
            for across in tiles(cols, across_pm) {
                scores.tile(maps, &weights, down.clone(), across);
            }
        }
        scores.parts[Score::Area as usize] = from_means(maps, within, sampling.step_pm);
        scores
    }

    fn tile(&mut self, maps: &PolarizationMaps, weights: &[f32], down: Range<usize>, across: Range<usize>) {
        let part = maps.features.slice(s![down.clone(), across.clone(), ..]);
        let windows: Vec<_> = part.lanes(Axis(2)).into_iter().filter(is_measured).collect();
        let central =
            |values: &mut dyn Iterator<Item = f32>| median(values, f32::total_cmp).unwrap_or(f32::NAN);
        let usual: Vec<f32> = (0..weights.len())
            .map(|component| central(&mut windows.iter().map(|window| window[component])))
            .collect();
        let distance = |window: &ArrayView1<'_, f32>| -> f32 {
            window
                .iter()
                .zip(&usual)
                .zip(weights)
                .map(|((value, usual), weight)| (value - usual).powi(2) * weight)
                .sum()
        };
        let middle = central(&mut windows.iter().map(distance)).max(f32::MIN_POSITIVE);
        let enough = windows.len() >= LEAST_WINDOWS;
        let places: Vec<[usize; 2]> =
            down.flat_map(|row| across.clone().map(move |col| [row, col])).collect();
        let finite = |map: &Array2<f32>| -> Vec<f32> {
            places.iter().filter_map(|&at| map.get(at).copied()).filter(|value| value.is_finite()).collect()
        };
        let usual_sigma = central(&mut finite(&maps.p_sigma).into_iter()).max(f32::MIN_POSITIVE);
        let cell = [&maps.cell_a, &maps.cell_b, &maps.cell_angle, &maps.cell_area].map(|map| {
            let values = finite(map);
            let usual = central(&mut values.iter().copied());
            let deviation =
                NORMAL_OVER_MEDIAN as f32 * central(&mut values.iter().map(|value| (value - usual).abs()));
            // Values that are all alike differ by rounding alone.
            (map, usual, deviation.max(f32::EPSILON * usual.abs()).max(f32::MIN_POSITIVE))
        });
        let [
            from_training,
            from_surroundings,
            own_sigma,
            from_sigma,
            from_cell,
            _,
            contradiction,
            around,
            smooth,
        ] = &mut self.parts;
        let usual_contradiction = central(&mut finite(contradiction).into_iter()).max(f32::MIN_POSITIVE);
        for at @ [row, col] in places {
            let window = maps.features.slice(s![row, col, ..]);
            let (Some(&sigma), true) = (maps.p_sigma.get(at), is_measured(&window)) else { continue };
            from_training[at] = window.iter().map(|value| value * value).sum();
            own_sigma[at] = sigma;
            smooth[at] = maps.smoothness[at];
            if enough {
                from_surroundings[at] = distance(&window) / middle;
                from_sigma[at] = sigma / usual_sigma;
                around[at] = contradiction[at] / usual_contradiction;
                let squares = cell.map(|(map, usual, deviation)| ((map[at] - usual) / deviation).powi(2));
                from_cell[at] = squares.iter().sum::<f32>() / squares.len() as f32;
            }
        }
    }
}

/// [`Score::Contradiction`] of [`WindowScores::parts`].
fn contradictions(maps: &PolarizationMaps, step_pm: [f64; 2]) -> Array2<f32> {
    let mut off = maps.cell_area.clone();
    Zip::from(&mut off).and(&maps.cell_a).and(&maps.cell_b).and(&maps.cell_angle).for_each(
        |off, &a, &b, &angle| {
            *off = (*off / (a * b * angle.sin()) - 1.0).powi(2);
        },
    );
    Zip::from(&mut off).and(maps.features.lanes(Axis(2))).for_each(|off, window| {
        if !is_measured(&window) {
            *off = f32::NAN;
        }
    });
    mean_around(&off.view(), ANSWERS_PM, step_pm)
}

/// [`Score::Area`] of [`WindowScores::parts`].
fn from_means(maps: &PolarizationMaps, within: &[f32], step_pm: [f64; 2]) -> Array2<f32> {
    let measured = maps.features.map_axis(Axis(2), |window| is_measured(&window));
    let mut distances = Array2::zeros(measured.dim());
    let squares = Squares::new(measured, WHOLE_PM, step_pm);
    for (component, within) in maps.features.axis_iter(Axis(2)).zip(within) {
        let variance = 1.0 - within + LEFT_IN_MEANS * within + LEAST_WITHIN;
        let mean = squares.means(&component);
        Zip::indexed(&mut distances).for_each(|at, sum| *sum += mean(at).powi(2) / variance);
    }
    distances
}

/// Whether all of a window's features are known; NaN where the window touches masked pixels.
pub(crate) fn is_measured(window: &ArrayView1<'_, f32>) -> bool {
    window.iter().all(|value| value.is_finite())
}

/// Mean of the finite values in squares of `side_pm` around each place, as far as they lie on the map; NaN where there is none.
pub(super) fn mean_around(map: &ArrayView2<'_, f32>, side_pm: f64, step_pm: [f64; 2]) -> Array2<f32> {
    let squares = Squares::new(map.mapv(f32::is_finite), side_pm, step_pm);
    Array2::from_shape_fn(map.dim(), squares.means(map))
}

/// Squares around each place of maps that are finite in the same places, as far as they lie on them.
struct Squares {
    /// How far they reach beyond their middle, `[row, col]`, places.
    reach: [usize; 2],
    finite: Array2<bool>,
    counts: AreaSums<u32>,
}

impl Squares {
    fn new(finite: Array2<bool>, side_pm: f64, step_pm: [f64; 2]) -> Self {
        let reach = step_pm.map(|step| (0.5 * (side_pm / step - 1.0)).round().max(0.0) as usize);
        let counts = AreaSums::new(finite.view(), u32::from);
        Self { reach, finite, counts }
    }

    /// The mean of a map's finite values in the square around a place; NaN where the map is not finite.
    fn means(&self, map: &ArrayView2<'_, f32>) -> impl Fn((usize, usize)) -> f32 {
        let sums = AreaSums::new(map.view(), |value| if value.is_finite() { f64::from(value) } else { 0.0 });
        let (rows, cols) = self.finite.dim();
        let around =
            |at: usize, reach: usize, size: usize| at.saturating_sub(reach)..(at + reach + 1).min(size);
        move |(row, col)| {
            if !self.finite[[row, col]] {
                return f32::NAN;
            }
            let [down, across] = [around(row, self.reach[0], rows), around(col, self.reach[1], cols)];
            (sums.of(down.clone(), across.clone()) / f64::from(self.counts.of(down, across))) as f32
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
    use ndarray::Array3;

    const SAMPLING: Sampling = Sampling { step_pm: [120.0; 2], pixel_pm: 15.0 };

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
    fn means_are_taken_of_what_was_measured_around() {
        let mut map = Array2::from_shape_fn((4, 5), |(i, j)| (i * 5 + j) as f32);
        map[[1, 1]] = f32::NAN;
        // 3 windows down, 1 across.
        let mean = mean_around(&map.view(), 300.0, [100.0, 300.0]);
        assert_eq!((mean[[1, 2]], mean[[0, 1]], mean[[2, 1]]), (7.0, 1.0, 13.5));
        assert!(mean[[1, 1]].is_nan());
        assert_eq!(mean_around(&map.view(), 50.0, [100.0; 2])[[3, 4]], 19.0);
        // All of it.
        let all: f32 = ((0..20).sum::<i32>() - 6) as f32 / 19.0;
        assert!((mean_around(&map.view(), 1e4, [100.0; 2])[[0, 0]] - all).abs() < 1e-5);
    }

    #[test]
    fn edges_that_do_not_enclose_the_area_contradict_it_around() {
        let mut maps = PolarizationMaps::of_features(Array3::zeros((10, 10, 1)));
        let (a, b, angle) = (410.0f32, 380.0f32, 1.5f32);
        (maps.cell_a, maps.cell_b) = (maps.cell_a.mapv(|_| a), maps.cell_b.mapv(|_| b));
        maps.cell_angle.fill(angle);
        maps.cell_area.fill(a * b * angle.sin());
        maps.cell_area[[2, 2]] *= 1.3;
        // 9 windows a side: 81 of them, and 25 in the corner, that one among them.
        let found = contradictions(&maps, [120.0; 2]);
        assert!(
            (found[[5, 5]] - 0.09 / 81.0).abs() < 1e-6 && (found[[0, 0]] - 0.09 / 25.0).abs() < 1e-6,
            "{found}"
        );
        assert!(found[[9, 9]].abs() < 1e-9);
        maps.cell_angle[[0, 0]] = f32::NAN;
        assert!(contradictions(&maps, [120.0; 2])[[0, 0]].is_nan());
    }

    #[test]
    fn a_window_is_compared_with_its_surroundings_and_not_measured_ones_with_none() {
        // Two components; the second hardly varies within frames.
        let mut features = Array3::from_shape_fn((6, 6, 2), |(i, j, component)| {
            if component == 0 { ((i * 6 + j) % 3) as f32 - 1.0 } else { 5.0 }
        });
        features[[2, 2, 1]] = 5.5;
        features.slice_mut(s![4, 4, ..]).fill(f32::NAN);
        let mut maps = PolarizationMaps::of_features(features);
        maps.p_sigma.fill(2.0);
        maps.p_sigma[[1, 3]] = 7.0;
        maps.cell_b = Array2::from_shape_fn((6, 6), |(i, j)| 400.0 + ((i * 6 + j) % 3) as f32);
        maps.cell_b[[3, 3]] = 401.0 + 2.0 * 2.0 * NORMAL_OVER_MEDIAN as f32;
        let scores = WindowScores::of(&maps, &[1.0, 0.0], SAMPLING);
        let [training, surroundings, own, around, cell, area, _, contradiction, smooth] = &scores.parts;
        // The median window is (0, 5); distances are 0 or 1 / 1.001, and two thirds are not 0.
        let unit = 1.0 / 1.001;
        let strange = (maps.features[[2, 2, 0]].powi(2) * unit + 0.25 / 1e-3) / unit;
        assert!((surroundings[[2, 2]] - strange).abs() < 1e-2);
        assert!((surroundings[[0, 0]] - 1.0).abs() < 1e-5);
        assert!((training[[0, 1]] - 25.0).abs() < 1e-5);
        assert_eq!((own[[1, 3]], around[[1, 3]], around[[0, 0]]), (7.0, 3.5, 1.0));
        // Deviations are 0 or 1, and two thirds are not 0: four standard deviations of one of four quantities.
        assert!((cell[[3, 3]] - 4.0).abs() < 1e-3 && cell[[0, 1]] == 0.0, "{cell}");
        // All cells lie within the square around each and contradict themselves alike.
        assert!((contradiction[[2, 1]] - 1.0).abs() < 1e-4 && smooth[[0, 3]] == 3.0, "{contradiction}");
        for map in &scores.parts {
            assert!(map[[4, 4]].is_nan());
        }
        // All windows lie within the square around each: one mean of 35 windows.
        let means = maps.features.slice(s![.., .., 1]).iter().filter(|v| v.is_finite()).sum::<f32>() / 35.0;
        let first = maps.features.slice(s![.., .., 0]).iter().filter(|v| v.is_finite()).sum::<f32>() / 35.0;
        let expected = first * first / (LEFT_IN_MEANS + LEAST_WITHIN) + means * means / (1.0 + LEAST_WITHIN);
        assert!((area[[1, 2]] - expected).abs() < 1e-3 * expected, "{} {expected}", area[[1, 2]]);
        let few = PolarizationMaps::of_features(maps.features.slice(s![..4, ..6, ..]).to_owned());
        let scores = WindowScores::of(&few, &[1.0, 0.0], SAMPLING);
        let [training, surroundings, _, around, cell, ..] = &scores.parts;
        assert!(surroundings.iter().chain(around).chain(cell).all(|value| value.is_nan()));
        assert!(training[[0, 0]] > 0.0);
    }
}
