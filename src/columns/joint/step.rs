//! A step of every column: height and place against the frame less all others.

use super::picture::around;
use super::{Fitting, Kind, Spot};
use crate::preprocess::median;
use nalgebra::{SMatrix, SVector};
use rayon::prelude::*;

/// Pixels within this distance of a column belong to its fit, in cell edges.
const WINDOW_CELLS: f64 = 0.5;
/// A column that wanders off further than this from where it was found is none, in cell edges.
const MOST_SHIFT_CELLS: f64 = 0.25;
/// Standard deviations of a column beyond the edge from where its neighbour puts it, in cell edges, and from its sublattice's height,
/// as a part of it.
const BEYOND_SHIFT_CELLS: f64 = 0.02;
const BEYOND_HEIGHT: f64 = 0.3;
/// Steps below this no longer matter, px; nor below this part of the position's error, which pixels that come and go at the rim of a
/// column's window make for ever.
const SMALL_STEP_PX: f64 = 2e-4;
const SMALL_PART_OF_ERROR: f64 = 0.2;
/// Height over its error of a column that is waited for.
const SIGNIFICANT: f64 = 4.0;
/// Fewer pixels tell nothing of a column.
const LEAST_PIXELS: usize = 8;

/// What is known of a column beside its pixels, with standard deviations; infinite where nothing is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// `[row, col]`.
    at: [f64; 2],
    within_px: f64,
    height: f64,
    height_within: f64,
}

/// What one column's step would be, and how well it is known: height, row, column, and a constant.
pub(super) struct Step {
    change: SVector<f64, 4>,
    pub(super) covariance: SMatrix<f64, 4, 4>,
}

impl Fitting<'_> {
    /// One step of every column of a kind; returns the longest of those within the frame, as a multiple of one that does not matter.
    pub(super) fn step(&mut self, kind: Kind) -> f64 {
        let most = 0.3 * self.model.profiles[kind.profile()].sigma_px();
        let spots = &self.model.spots;
        let within = spots.iter().filter(|spot| spot.kind == kind && spot.parent.is_none());
        let height = median(within.map(|spot| spot.amplitude), f64::total_cmp).unwrap_or(0.0);
        let step_of = |index: usize| self.step_of(index, &self.known(index, height)?);
        let steps: Vec<Option<Step>> = (0..spots.len())
            .into_par_iter()
            .map(|index| (spots[index].kind == kind).then(|| step_of(index)).flatten())
            .collect();
        let bound = MOST_SHIFT_CELLS * self.given.cell_px;
        let mut longest = 0.0_f64;
        for (index, step) in steps.into_iter().enumerate() {
            if self.model.spots[index].kind != kind {
                continue;
            }
            // Once more: a neighbour that says where a column is may have moved meanwhile.
            let Some(known) = self.known(index, height) else { continue };
            let spot = &mut self.model.spots[index];
            let Some(Step { change, covariance }) = step else {
                if spot.parent.is_some() {
                    // Nothing of it is in the frame.
                    ([spot.row, spot.col], spot.amplitude) = (known.at, known.height);
                }
                continue;
            };
            let length = change[1].hypot(change[2]);
            let shorter = (most / length).min(1.0);
            spot.amplitude += change[0];
            spot.row += shorter * change[1];
            spot.col += shorter * change[2];
            let strayed = (spot.row - known.at[0]).hypot(spot.col - known.at[1]) > bound;
            if strayed || spot.amplitude <= 0.0 {
                // Back to where it was found; what is not there stays small.
                [spot.row, spot.col] = known.at;
                spot.amplitude = spot.amplitude.max(0.0);
                continue;
            }
            // What is hardly there has no place to settle at.
            let there = spot.amplitude > SIGNIFICANT * covariance[(0, 0)].sqrt();
            if spot.parent.is_none() && there {
                let error = covariance[(1, 1)].max(covariance[(2, 2)]).sqrt();
                let small = SMALL_STEP_PX.max(SMALL_PART_OF_ERROR * error);
                longest = longest.max(shorter * length / small);
            }
        }
        longest
    }

    /// Of a column within the frame: where it was found.
    pub(super) fn found(&self, index: usize) -> Option<Known> {
        let (spot, start) = (self.model.spots.get(index)?, self.given.found.columns.get(index)?);
        Some(Known {
            at: [start.row, start.col],
            within_px: self.given.pace.found_within_px(self.given.cell_px),
            height: spot.amplitude,
            height_within: f64::INFINITY,
        })
    }

    /// Of a column within the frame where it was found; of one outside what its neighbours say, and the median `height` of its
    /// sublattice; `None` of oxygen.
    fn known(&self, index: usize, height: f64) -> Option<Known> {
        let beside = || {
            let (parent, step) = self.model.spots.get(index)?.parent?;
            let parent = self.model.spots.get(parent)?;
            Some(Known {
                at: [parent.row + step[0], parent.col + step[1]],
                within_px: BEYOND_SHIFT_CELLS * self.given.cell_px,
                height,
                height_within: BEYOND_HEIGHT * height,
            })
        };
        self.found(index).or_else(beside)
    }

    /// Gauss–Newton on height, row and column of one column, everything else as it is. A constant is fitted along and thrown away:
    /// height and smooth background would else follow each other without end.
    pub(super) fn step_of(&self, index: usize, known: &Known) -> Option<Step> {
        let spot = self.model.spots.get(index)?;
        let (mut normal, mut right) = (SMatrix::<f64, 4, 4>::zeros(), SVector::<f64, 4>::zeros());
        let mut count = 0;
        self.each_pixel(spot, |gradient, rest, weight| {
            normal += weight * gradient * gradient.transpose();
            right += weight * rest * gradient;
            count += 1;
        });
        if count < LEAST_PIXELS {
            return None;
        }
        let place = known.within_px.powi(-2);
        let known = [
            (known.height_within.powi(-2), known.height - spot.amplitude),
            (place, known.at[0] - spot.row),
            (place, known.at[1] - spot.col),
        ];
        for (index, (weight, away)) in known.into_iter().enumerate().filter(|(_, known)| known.0.is_finite())
        {
            normal[(index, index)] += weight;
            right[index] += weight * away;
        }
        let covariance = normal.try_inverse()?;
        let change = covariance * right;
        change.iter().all(|value| value.is_finite()).then_some(Step { change, covariance })
    }

    /// Calls `take` with every measured pixel of a column's window: the derivatives by height, row, column and a constant, what the
    /// model leaves over, and the weight.
    fn each_pixel(&self, spot: &Spot, mut take: impl FnMut(SVector<f64, 4>, f64, f64)) {
        let profile = &self.model.profiles[spot.kind.profile()];
        let [rr, rc, cc] = profile.precision;
        let radius = WINDOW_CELLS * self.given.cell_px;
        let (rows, cols) = self.given.pixels.dim();
        // A column without height has a place only once it has some.
        let height = spot.amplitude.max(1e-6 * self.model.noise.floor.sqrt());
        let widest = around(spot.col, radius, cols).len();
        let (mut part_of_row, mut values) = (vec![0.0_f32; widest], vec![[0.0_f32; 2]; widest]);
        for row in around(spot.row, radius, rows) {
            let dr = row as f64 - spot.row;
            let half = (radius * radius - dr * dr).max(0.0).sqrt();
            let reached = around(spot.col, half, cols);
            let first = reached.start as f64 - spot.col;
            let values = &mut values[..reached.len()];
            values.fill([0.0; 2]);
            for part in profile.parts() {
                let row = &mut part_of_row[..reached.len()];
                part.along_row([dr, first], 1, row);
                let (height, per_u) = (part.weight as f32, (-0.5 * part.narrow * part.weight) as f32);
                for ([value, slope], part) in values.iter_mut().zip(row) {
                    *value += height * *part;
                    *slope += per_u * *part;
                }
            }
            for (col, [value, per_u]) in reached.zip(values.iter()) {
                let Some((rest, weight)) = self.rest([row, col]) else { continue };
                let dc = col as f64 - spot.col;
                let steep = -2.0 * height * f64::from(*per_u);
                let by_row = steep * (rr * dr + rc * dc);
                let by_col = steep * (rc * dr + cc * dc);
                take(SVector::from([f64::from(*value), by_row, by_col, 1.0]), rest, weight);
            }
        }
    }
}
