//! Domain walls: places on the window grid across which P turns.

use super::Evidence;
use super::ood::OodEvidence;
use crate::config::InvalidSetting;
use crate::frame::grid_centre;
use ferrostem_proto::PixelPosition;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// What counts as a wall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WallSettings {
    /// Distance over which P is compared, nm: at least the width of a window's inner cells.
    pub span_nm: f64,
    /// Smallest |P| on both sides, pm.
    pub min_polarization_pm: f64,
    /// Smallest angle between P on both sides, rad.
    pub min_turn_rad: f64,
}

impl Default for WallSettings {
    fn default() -> Self {
        Self { span_nm: 1.6, min_polarization_pm: 12.0, min_turn_rad: 1.05 }
    }
}

impl WallSettings {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), InvalidSetting> {
        let checks = [
            ("span_nm", self.span_nm, 0.1..=100.0, "0.1 to 100"),
            ("min_polarization_pm", self.min_polarization_pm, 0.0..=1e3, "0 to 1000"),
            ("min_turn_rad", self.min_turn_rad, 0.1..=std::f64::consts::PI, "0.1 to pi"),
        ];
        InvalidSetting::check_ranges(prefix, checks)
    }
}

/// One window on a wall.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WallPoint {
    pub px: PixelPosition,
    /// Angle between P on both sides, rad.
    pub turn_rad: f64,
    /// |ΔP| across the wall, pm.
    pub jump_pm: f64,
    /// |ΔP| in units of its predicted standard deviation.
    pub significance: f64,
}

/// Windows across which P turns, each where the jump is the largest along the direction in which it was found.
pub(super) fn find(evidence: &Evidence<'_>, ood: &OodEvidence, settings: &WallSettings) -> Vec<WallPoint> {
    let Some(maps) = &evidence.fields.polarization else { return Vec::new() };
    let grid = &evidence.fields.grid;
    let [row_pm, col_pm] = evidence.calibration.pixel_size_pm;
    let half = |step: f64, pixel_pm: f64| -> usize {
        let windows = settings.span_nm * 500.0 / (step * pixel_pm);
        if windows.is_finite() { windows.round().clamp(1.0, 1e6) as usize } else { 1 }
    };
    let (reach_row, reach_col) = (half(grid.step_row, row_pm), half(grid.step_col, col_pm));
    let (rows, cols) = maps.p_x.dim();
    let measured = |i: usize, j: usize| -> Option<([f64; 2], f64)> {
        let at = [i, j];
        if ood.flag.get(at).is_some_and(|&flag| flag != 0) {
            return None;
        }
        let p = [f64::from(*maps.p_x.get(at)?), f64::from(*maps.p_y.get(at)?)];
        let sigma = f64::from(*maps.p_sigma.get(at)?);
        (p[0].hypot(p[1]) >= settings.min_polarization_pm).then_some((p, sigma))
    };
    let across = |i: usize, j: usize, di: usize, dj: usize| -> Option<WallPoint> {
        let (before, sigma_before) = measured(i.checked_sub(di)?, j.checked_sub(dj)?)?;
        let (behind, sigma_behind) = measured(i + di, j + dj)?;
        let cross = before[0] * behind[1] - before[1] * behind[0];
        let dot = before[0] * behind[0] + before[1] * behind[1];
        let turn_rad = cross.abs().atan2(dot);
        let jump_pm = (behind[0] - before[0]).hypot(behind[1] - before[1]);
        let significance = jump_pm / sigma_before.hypot(sigma_behind);
        (turn_rad >= settings.min_turn_rad).then_some(WallPoint {
            px: grid_centre(grid, i, j),
            turn_rad,
            jump_pm,
            significance,
        })
    };
    let mut points = Vec::new();
    for (di, dj) in [(reach_row, 0), (0, reach_col)] {
        for i in 0..rows {
            for j in 0..cols {
                let Some(point) = across(i, j, di, dj) else { continue };
                let larger =
                    |other: Option<WallPoint>| other.is_some_and(|other| other.jump_pm > point.jump_pm);
                let (step_i, step_j) = (di.min(1), dj.min(1));
                let behind = across(i + step_i, j + step_j, di, dj);
                let before =
                    i.checked_sub(step_i).zip(j.checked_sub(step_j)).and_then(|(i, j)| across(i, j, di, dj));
                if !larger(behind) && !larger(before) {
                    points.push(point);
                }
            }
        }
    }
    points
}

/// Distance from a wall within which P is far from its full length, pm. With more there is too little left of a mosaic of small domains
/// (`benches/mistilt.md`).
const BLURRED_PM: f64 = 250.0;

/// Windows so near to a wall that their P is shortened by it, `[window row, window col]`.
pub(super) fn near(evidence: &Evidence<'_>, walls: &[WallPoint]) -> Array2<bool> {
    let shape = evidence.fields.polarization.as_ref().map_or((0, 0), |maps| maps.p_x.dim());
    let grid = &evidence.fields.grid;
    let [row_pm, col_pm] = evidence.calibration.pixel_size_pm;
    let mut near = Array2::from_elem(shape, false);
    // Window indices around a wall, clipped to the grid.
    let around = |centre: f64, first: f64, step: f64, pixel_pm: f64, count: usize| {
        let (middle, reach) = ((centre - first) / step, BLURRED_PM / (step * pixel_pm));
        let from = (middle - reach).ceil().max(0.0) as usize;
        let to = (middle + reach).floor().max(-1.0) + 1.0;
        from..(to as usize).min(count)
    };
    for wall in walls {
        for i in around(wall.px.row, grid.row0, grid.step_row, row_pm, shape.0) {
            for j in around(wall.px.col, grid.col0, grid.step_col, col_pm, shape.1) {
                let centre = grid_centre(grid, i, j);
                let down = (centre.row - wall.px.row) * row_pm;
                let right = (centre.col - wall.px.col) * col_pm;
                near[[i, j]] |= down.hypot(right) <= BLURRED_PM;
            }
        }
    }
    near
}
