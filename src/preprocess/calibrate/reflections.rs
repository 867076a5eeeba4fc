//! The reflections that stand out of a power spectrum.

use super::MIN_CELLS;
use crate::preprocess::median;
use ndarray::Array2;

/// Shortest period that is looked for, frame pixels.
const MIN_PERIOD_PX: f64 = 2.5;
/// A reflection stands this far above the median power at its spatial frequency; of pure noise, the strongest of a
/// million bins reaches 20.
const MIN_PEAK_TO_MEDIAN: f64 = 40.0;
/// Reflections weaker than this fraction of the strongest say nothing about the cell: superstructures
/// (antiferrodistortive or antipolar order doubles the cell) lie below, {100} of any perovskite above.
const MIN_PEAK_TO_STRONGEST: f64 = 0.05;
const MAX_PEAKS: usize = 24;

#[derive(Debug, Clone, Copy)]
pub(super) struct Reflection {
    /// `[row, col]`, cycles a pixel.
    pub frequency: [f64; 2],
    pub power: f64,
}

/// The reflections of one half plane, strongest first.
pub(super) fn reflections(power: &Array2<f32>) -> Vec<Reflection> {
    let (rows, cols) = power.dim();
    let frequency = |row: i64, col: i64| [row as f64 / rows as f64, col as f64 / cols as f64];
    let at = |row: i64, col: i64| {
        let wrap = |index: i64, length: usize| index.rem_euclid(length as i64) as usize;
        f64::from(power[[wrap(row, rows), wrap(col, cols)]])
    };
    let ring_width = 1.0 / rows.min(cols) as f64;
    let lowest = MIN_CELLS * ring_width;
    let highest = 1.0 / MIN_PERIOD_PX;
    let in_reach = |row: i64, col: i64| {
        let [y, x] = frequency(row, col);
        let k = y.hypot(x);
        (lowest..=highest).contains(&k).then(|| (k / ring_width) as usize)
    };
    let (half_rows, half_cols) = ((rows / 2) as i64, (cols / 2) as i64);
    let half_plane =
        || (0..=half_rows).flat_map(move |row| (-half_cols..=half_cols).map(move |col| (row, col)));

    let mut rings: Vec<Vec<f32>> = vec![Vec::new(); (highest / ring_width) as usize + 1];
    for (row, col) in half_plane() {
        if let Some(ring) = in_reach(row, col).and_then(|ring| rings.get_mut(ring)) {
            ring.push(at(row, col) as f32);
        }
    }
    let medians: Vec<f64> =
        rings.into_iter().map(|ring| median(ring, f32::total_cmp).map_or(f64::INFINITY, f64::from)).collect();

    let mut peaks: Vec<Reflection> = half_plane()
        .filter(|&(row, col)| row > 0 || col > 0)
        .filter_map(|(row, col)| {
            let centre = at(row, col);
            let background = *medians.get(in_reach(row, col)?)?;
            if centre <= MIN_PEAK_TO_MEDIAN * background {
                return None;
            }
            let higher_around = (-2..=2).any(|dr| (-2..=2).any(|dc| at(row + dr, col + dc) > centre));
            if higher_around {
                return None;
            }
            // A Hann-windowed line is nearly a parabola in its logarithm.
            let refined_row = row as f64 + vertex([at(row - 1, col), centre, at(row + 1, col)]);
            let refined_col = col as f64 + vertex([at(row, col - 1), centre, at(row, col + 1)]);
            Some(Reflection {
                frequency: [refined_row / rows as f64, refined_col / cols as f64],
                power: centre,
            })
        })
        .collect();
    peaks.sort_by(|a, b| b.power.total_cmp(&a.power));
    let strongest = peaks.first().map_or(0.0, |peak| peak.power);
    peaks.retain(|peak| peak.power >= MIN_PEAK_TO_STRONGEST * strongest);
    peaks.truncate(MAX_PEAKS);
    peaks
}

/// Offset of the vertex of the parabola through the logarithms of three powers at −1, 0, 1.
fn vertex(powers: [f64; 3]) -> f64 {
    let [before, centre, after] = powers.map(|power| power.max(f64::MIN_POSITIVE).ln());
    let curvature = before - 2.0 * centre + after;
    if curvature < 0.0 { (0.5 * (before - after) / curvature).clamp(-0.5, 0.5) } else { 0.0 }
}
