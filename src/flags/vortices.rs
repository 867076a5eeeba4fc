//! Vortices and junctions of domain walls: places around which P turns once.
//!
//! Along a closed loop of windows the direction of P comes back to where it was after a whole number of turns, the winding
//! number: +1 around a vortex or a closed flux (in whichever sense it flows), -1 around an antivortex, 0 elsewhere (Mermin,
//! Rev. Mod. Phys. 51, 591, 1979). Walls alone, and junctions across which P does not turn once, have none.
//!
//! *Assumptions*: P turns by less than 140° from window to window, which overlap. *Error conditions*: a loop that a flagged or
//! unmeasured window lies on, or one whose P is not significant, as across a 180° wall, says nothing.

use super::Evidence;
use super::ood::OodEvidence;
use super::regions::regions;
use crate::config::InvalidSetting;
use ferrostem_proto::PixelPosition;
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::f64::consts::{PI, TAU};

/// Which loops are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VortexSettings {
    /// Side of the square loops of window centres, nm: wide enough to pass outside the core.
    pub loop_nm: f64,
    /// Smallest |P| on the loop in units of its predicted standard deviation. All windows of a loop must reach it, a dozen of them
    /// independent: on a simulated junction (32 pm, sigma 8 pm, 90° walls of 1.6 nm) one loop in 45 did at 2, two in three at 1.
    pub min_significance: f64,
    /// Smallest |P| on the loop, pm.
    pub min_polarization_pm: f64,
}

impl Default for VortexSettings {
    fn default() -> Self {
        Self { loop_nm: 1.6, min_significance: 1.0, min_polarization_pm: 8.0 }
    }
}

impl VortexSettings {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), InvalidSetting> {
        let checks = [
            ("loop_nm", self.loop_nm, 0.2..=100.0, "0.2 to 100"),
            ("min_significance", self.min_significance, 0.0..=100.0, "0 to 100"),
            ("min_polarization_pm", self.min_polarization_pm, 0.0..=1e3, "0 to 1000"),
        ];
        InvalidSetting::check_ranges(prefix, checks)
    }
}

/// A place around which P turns once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vortex {
    pub px: PixelPosition,
    /// +1 or -1, rarely more.
    pub winding: i32,
    /// Smallest |P| on the clearest loop around it, in units of its standard deviation.
    pub significance: f64,
}

/// A turn from one window to the next above this is ambiguous, rad.
const MAX_STEP_RAD: f64 = PI * 140.0 / 180.0;

/// All of them. Loops with the same winding whose centres touch surround one core; it lies in the middle of the smallest that do.
pub(super) fn find(evidence: &Evidence<'_>, ood: &OodEvidence, settings: &VortexSettings) -> Vec<Vortex> {
    let Some(maps) = &evidence.fields.polarization else { return Vec::new() };
    let grid = &evidence.fields.grid;
    let [row_pm, col_pm] = evidence.calibration.pixel_size_pm;
    let half = |step: f64, pixel_pm: f64| -> usize {
        let windows = settings.loop_nm * 500.0 / (step * pixel_pm);
        if windows.is_finite() { windows.round().clamp(1.0, 1e6) as usize } else { 1 }
    };
    let reach = [half(grid.step_row, row_pm), half(grid.step_col, col_pm)];
    let significance = Array2::from_shape_fn(maps.p_x.dim(), |at| {
        let p = f64::from(maps.p_x[at]).hypot(f64::from(maps.p_y[at]));
        let flagged = ood.flag.get(at).is_some_and(|&flag| flag != 0);
        let sigmas = p / f64::from(maps.p_sigma[at]);
        let trusted = !flagged && p >= settings.min_polarization_pm && sigmas >= settings.min_significance;
        if trusted { sigmas } else { f64::NAN }
    });
    let direction = Array2::from_shape_fn(maps.p_x.dim(), |at| {
        if significance[at].is_nan() { f64::NAN } else { f64::from(maps.p_y[at]).atan2(maps.p_x[at].into()) }
    });
    let sums = [Sums::new(&direction, [0, 1]), Sums::new(&direction, [1, 0])];
    let winding = windings(&sums, reach);
    [1, -1]
        .into_iter()
        .flat_map(|sign| regions(&winding.mapv(|turns| u8::from(turns.signum() == sign))))
        .filter_map(|centres| {
            let turns = *winding.get(*centres.first()?)?;
            let [row, col] = core(&sums, &centres, turns, reach);
            let px =
                PixelPosition { row: grid.row0 + row * grid.step_row, col: grid.col0 + col * grid.step_col };
            let clearest = centres.iter().map(|&at| weakest(&significance, at, reach)).fold(0.0, f64::max);
            Some(Vortex { px, winding: turns, significance: clearest })
        })
        .collect()
}

/// What loops of half-sides `reach` around `centres` surround, in windows: smaller ones are tried as long as they turn alike,
/// for near the border of the grid the larger ones have centres on one side of the core alone.
fn core(sums: &[Sums; 2], centres: &[[usize; 2]], turns: i32, reach: [usize; 2]) -> [f64; 2] {
    let mut half = reach;
    let mut around = centres.to_vec();
    while half != [1, 1] {
        let smaller = half.map(|windows| windows.saturating_sub(1).max(1));
        // The core is inside all loops, and inside a smaller one that turns.
        let near = |axis: usize| {
            let places = || around.iter().map(|at| at[axis]);
            let (first, last) = (places().min().unwrap_or(0), places().max().unwrap_or(0));
            last.saturating_sub(half[axis] + smaller[axis])..=first + half[axis] + smaller[axis]
        };
        let (rows, cols) = (near(0), near(1));
        let turning: Vec<[usize; 2]> = rows
            .flat_map(|i| cols.clone().map(move |j| [i, j]))
            .filter(|&at| winding_at(sums, at, smaller) == turns)
            .collect();
        if turning.is_empty() {
            break;
        }
        (around, half) = (turning, smaller);
    }
    let mean = |axis: usize| around.iter().map(|at| at[axis] as f64).sum::<f64>() / around.len() as f64;
    [mean(0), mean(1)]
}

/// Turns round the loops of half-sides `[row, col]` windows around each window; 0 where a loop leaves the grid or its winding is
/// not known.
fn windings(sums: &[Sums; 2], reach: [usize; 2]) -> Array2<i32> {
    Array2::from_shape_fn(sums[0].turn.dim(), |(i, j)| winding_at(sums, [i, j], reach))
}

/// From the right over down, as angles with y down are counted.
fn winding_at(sums: &[Sums; 2], [i, j]: [usize; 2], [reach_row, reach_col]: [usize; 2]) -> i32 {
    let [along_row, along_col] = sums;
    let (rows, cols) = along_row.turn.dim();
    let (Some(top), Some(left)) = (i.checked_sub(reach_row), j.checked_sub(reach_col)) else { return 0 };
    let (bottom, right) = (i + reach_row, j + reach_col);
    if bottom >= rows || right >= cols {
        return 0;
    }
    let sides = [
        along_row.between([top, left], [top, right]),
        along_col.between([top, right], [bottom, right]),
        along_row.between([bottom, left], [bottom, right]).map(|turn| -turn),
        along_col.between([top, left], [bottom, left]).map(|turn| -turn),
    ];
    let total: Option<f64> = sides.into_iter().sum();
    total.map_or(0, |total| (total / TAU).round() as i32)
}

/// Turns of the direction (rad, NaN = unknown) from neighbour to neighbour along one axis, summed from the grid's edge, so that any stretch of it is one subtraction.
struct Sums {
    turn: Array2<f64>,
    /// Neighbours whose turn is not known, counted likewise.
    unknown: Array2<u32>,
}

impl Sums {
    fn new(direction: &Array2<f64>, [down, right]: [usize; 2]) -> Self {
        let (rows, cols) = direction.dim();
        let (mut turn, mut unknown) = (Array2::zeros((rows, cols)), Array2::zeros((rows, cols)));
        for i in down..rows {
            for j in right..cols {
                let before = [i - down, j - right];
                let step = (direction[[i, j]] - direction[before] + PI).rem_euclid(TAU) - PI;
                let known = step.abs() <= MAX_STEP_RAD;
                turn[[i, j]] = turn[before] + if known { step } else { 0.0 };
                unknown[[i, j]] = unknown[before] + u32::from(!known);
            }
        }
        Self { turn, unknown }
    }

    fn between(&self, from: [usize; 2], to: [usize; 2]) -> Option<f64> {
        (self.unknown[from] == self.unknown[to]).then(|| self.turn[to] - self.turn[from])
    }
}

/// The smallest value on the loop around `at`.
fn weakest(significance: &Array2<f64>, [i, j]: [usize; 2], [reach_row, reach_col]: [usize; 2]) -> f64 {
    let (top, left) = (i.saturating_sub(reach_row), j.saturating_sub(reach_col));
    let (bottom, right) = (i + reach_row, j + reach_col);
    let level = (left..=right).flat_map(|j| [[top, j], [bottom, j]]);
    let upright = (top..=bottom).flat_map(|i| [[i, left], [i, right]]);
    let on_loop = level.chain(upright).filter_map(|at| significance.get(at));
    on_loop.copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scenery, no_ood};
    use super::*;
    use crate::frame::grid_centre;
    use rand::{RngExt, SeedableRng};

    /// The winding by walking round the loop.
    fn walked(direction: &Array2<f64>, [i, j]: [usize; 2], [row, col]: [usize; 2]) -> i32 {
        let (rows, cols) = direction.dim();
        if i < row || j < col || i + row >= rows || j + col >= cols {
            return 0;
        }
        let mut path = Vec::new();
        path.extend((j - col..j + col).map(|j| [i - row, j]));
        path.extend((i - row..i + row).map(|i| [i, j + col]));
        path.extend((j - col + 1..=j + col).rev().map(|j| [i + row, j]));
        path.extend((i - row + 1..=i + row).rev().map(|i| [i, j - col]));
        let mut total = 0.0;
        for (at, next) in path.iter().zip(path.iter().cycle().skip(1)) {
            let mut step = direction[*next] - direction[*at];
            while step > PI {
                step -= TAU;
            }
            while step < -PI {
                step += TAU;
            }
            if step.is_nan() || step.abs() > MAX_STEP_RAD {
                return 0;
            }
            total += step;
        }
        (total / TAU).round() as i32
    }

    #[test]
    fn sums_agree_with_walking_round_every_loop() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut turning = 0;
        for case in 0..40 {
            // Smooth enough to have loops without an ambiguous step, with holes.
            let cores: Vec<[f64; 3]> = (0..3)
                .map(|k| [rng.random_range(0.0..12.0), rng.random_range(0.0..15.0), [1.0, -1.0, 1.0][k]])
                .collect();
            let direction = Array2::from_shape_fn((12, 15), |(i, j)| {
                if rng.random_bool(0.02) {
                    return f64::NAN;
                }
                let angle: f64 =
                    cores.iter().map(|[y, x, turns]| turns * (i as f64 - y).atan2(j as f64 - x)).sum();
                (angle + rng.random_range(-0.3..0.3) + PI).rem_euclid(TAU) - PI
            });
            let reach = [1 + case % 3, 1 + case % 2];
            let sums = [Sums::new(&direction, [0, 1]), Sums::new(&direction, [1, 0])];
            let found = windings(&sums, reach);
            for ((i, j), &winding) in found.indexed_iter() {
                assert_eq!(winding, walked(&direction, [i, j], reach), "case {case} at {i}, {j}");
                turning += u32::from(winding != 0);
            }
        }
        assert!(turning > 100, "{turning} loops turn");
    }

    /// 24 × 24 windows, 120 pm apart; P from the offset `[x, y]` (windows) to the middle of windows 9 and 14.
    fn scenery(p: impl Fn(f64, f64) -> [f64; 2]) -> Scenery {
        Scenery::new(24, |i, j| p(j as f64 - 14.0, i as f64 - 9.0))
    }

    #[test]
    fn a_vortex_turns_once_whichever_way_it_flows_and_an_antivortex_back() {
        type Flow = fn(f64, f64) -> [f64; 2];
        let cases: [(Flow, i32); 4] =
            [(|x, y| [y, -x], 1), (|x, y| [-y, x], 1), (|x, y| [x, y], 1), (|x, y| [x, -y], -1)];
        for (flow, winding) in cases {
            let scenery = scenery(|x, y| {
                let length = x.hypot(y).max(1e-9);
                flow(x, y).map(|component| 30.0 * component / length * (length / 3.0).tanh())
            });
            let found = find(&scenery.evidence(), &no_ood(24), &VortexSettings::default());
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].winding, winding);
            let core = grid_centre(&scenery.fields.grid, 9, 14);
            let off = (found[0].px.row - core.row).hypot(found[0].px.col - core.col);
            assert!(off < 0.6 * scenery.fields.grid.step_row, "{off} px from the core");
            assert!(found[0].significance > 4.0);
        }
    }

    #[test]
    fn walls_gradients_and_untrusted_loops_have_none() {
        let none = |p: &dyn Fn(f64, f64) -> [f64; 2], settings: VortexSettings| {
            let scenery = scenery(p);
            assert_eq!(find(&scenery.evidence(), &no_ood(24), &settings), []);
        };
        let usual = VortexSettings::default();
        // A 90° wall, a 180° wall that P falls to zero in, and P that turns slowly.
        none(&|x, _| [20.0, 20.0 * (x / 3.0).tanh()], usual);
        none(&|x, _| [0.0, 30.0 * (x / 3.0).tanh()], usual);
        none(&|x, y| [30.0 * (0.1 * x).cos(), 30.0 * (0.1 * y).sin()], usual);
        let vortex = |x: f64, y: f64| [y, -x].map(|component| 30.0 * component / x.hypot(y).max(1e-9));
        none(&vortex, VortexSettings { min_significance: 12.0, ..usual });
        none(&vortex, VortexSettings { min_polarization_pm: 31.0, ..usual });
        let scenery = scenery(vortex);
        let mut flagged = no_ood(24);
        flagged.flag.row_mut(12).fill(1);
        flagged.flag.row_mut(6).fill(1);
        assert_eq!(find(&scenery.evidence(), &flagged, &usual), []);
    }

    #[test]
    fn noise_of_half_of_p_makes_no_vortex() {
        use rand_distr::{Distribution, Normal};
        let noise = Normal::new(0.0, 5.0).unwrap();
        for seed in 0..50 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let scenery = Scenery::new(24, |_, _| [10.0 + noise.sample(&mut rng), noise.sample(&mut rng)]);
            let found = find(&scenery.evidence(), &no_ood(24), &VortexSettings::default());
            assert_eq!(found, [], "seed {seed}");
        }
    }
}
