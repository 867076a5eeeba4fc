//! The mean column, and the signal between columns.

use super::columns::Found;
use crate::preprocess::LatticeEstimate;
use crate::simulate::detector::smooth;
use ndarray::Array2;
use serde::Serialize;
use std::f64::consts::TAU;

/// Distance between points of a profile, and its length, in units of the cell's edge.
pub(super) const STEP_CELLS: f64 = 0.02;
const REACH_CELLS: f64 = 0.5;
/// Points on a circle around a column.
const DIRECTIONS: usize = 32;

/// The mean column at one distance from its centre.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ProfilePoint {
    pub radius_pm: f64,
    /// Above the signal between the columns, 1 = the centre of an A column.
    pub height: f64,
}

/// Mean pixel value by distance from the columns' centres, in steps of [`STEP_CELLS`].
pub(super) fn profile(frame: &Array2<f32>, columns: &[Found], cell_px: f64) -> Vec<f64> {
    let steps = (REACH_CELLS / STEP_CELLS).round() as usize;
    (0..steps)
        .map(|step| {
            let radius = step as f64 * STEP_CELLS * cell_px;
            let directions = if step == 0 { 1 } else { DIRECTIONS };
            let values = columns.iter().flat_map(|column| {
                (0..directions).filter_map(move |n| {
                    let (sin, cos) = (TAU * n as f64 / DIRECTIONS as f64).sin_cos();
                    interpolated(frame, [column.row + radius * sin, column.col + radius * cos])
                })
            });
            let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
            sum / count
        })
        .collect()
}

/// Mean pixel value half way between neighbouring A columns, where a perovskite is darkest in HAADF.
pub(super) fn background(frame: &Array2<f32>, a: &[Found], lattice: &LatticeEstimate) -> f64 {
    let mut smoothed = frame.clone();
    smooth(&mut smoothed, 0.03 * lattice.cell_px());
    let values = a.iter().flat_map(|column| {
        [lattice.a_px, lattice.b_px]
            .map(|[down, right]| [column.row + 0.5 * down, column.col + 0.5 * right])
            .map(|at| interpolated(&smoothed, at))
    });
    let (sum, count) = values.flatten().fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

/// Width at half the height at the centre, pm; `None` where the profile does not fall that far.
pub(super) fn full_width(profile: &[ProfilePoint]) -> Option<f64> {
    let half = 0.5 * profile.first()?.height;
    let pair = profile.windows(2).find(|pair| pair[1].height < half)?;
    let share = (pair[0].height - half) / (pair[0].height - pair[1].height);
    Some(2.0 * (pair[0].radius_pm + share * (pair[1].radius_pm - pair[0].radius_pm)))
}

/// The frame at `[row, col]` between pixels; `None` outside.
fn interpolated(frame: &Array2<f32>, [row, col]: [f64; 2]) -> Option<f64> {
    let (rows, cols) = frame.dim();
    if !(row >= 0.0 && col >= 0.0 && row <= rows as f64 - 1.0 && col <= cols as f64 - 1.0) {
        return None;
    }
    let (r, c) = (row as usize, col as usize);
    let (down, right) = (row - r as f64, col - c as f64);
    let at = |r: usize, c: usize| f64::from(frame[[r.min(rows - 1), c.min(cols - 1)]]);
    let line = |r: usize| at(r, c) * (1.0 - right) + at(r, c + 1) * right;
    Some(line(r) * (1.0 - down) + line(r + 1) * down)
}
