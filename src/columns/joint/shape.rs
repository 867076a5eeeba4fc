//! A step of what all columns share: the widths of the two sublattices.

use super::oxygen::{LEAST_OXYGEN, MOST_OXYGEN};
use super::picture::around;
use super::profile::Part;
use super::{Fitting, Given, Kind, Spot};
use nalgebra::{SMatrix, SVector};
use rayon::prelude::*;
use std::ops::Range;

/// Three precisions of B, three of A, common factors of the heights of B and A, the height of oxygen, a constant.
const PARAMETERS: usize = 10;
const HEIGHT: usize = 6;
const OXYGEN: usize = 8;
const CONSTANT: usize = 9;
/// The middle of a frame, up to this side, tells enough of the profile.
pub(super) const SIDE_PX: usize = 384;
/// Left out at the frame's edge, in cell edges.
pub(super) const EDGE_CELLS: f64 = 1.25;
const BAND_ROWS: usize = 16;

type Normal = (SMatrix<f64, PARAMETERS, PARAMETERS>, SVector<f64, PARAMETERS>);

/// Which of the shared parameters take a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    Heights,
    All,
}

impl Given<'_> {
    /// Rows and columns of the middle of the frame, away from the edge, where columns that cannot be seen leave their flanks.
    pub(super) fn middle(&self) -> [Range<usize>; 2] {
        let margin = (EDGE_CELLS * self.cell_px) as usize;
        let middle = |length: usize| {
            let side = length.saturating_sub(2 * margin).clamp(length.min(32), SIDE_PX);
            let from = (length - side) / 2;
            from..from + side
        };
        let (rows, cols) = self.pixels.dim();
        [middle(rows), middle(cols)]
    }
}

impl Fitting<'_> {
    /// Gauss–Newton on the shared parameters over the middle of the frame.
    pub(super) fn shape_step(&mut self, shared: Shared) {
        let [rows, cols] = self.given.middle();
        let bands: Vec<usize> = rows.clone().step_by(BAND_ROWS).collect();
        let (mut normal, mut right) = bands
            .into_par_iter()
            .map(|from| self.band(from..(from + BAND_ROWS).min(rows.end), cols.clone()))
            .reduce(|| (SMatrix::zeros(), SVector::zeros()), |a, b| (a.0 + b.0, a.1 + b.1));
        if let Some(like_a) = self.given.pace.like_a() {
            let [of_b, of_a] = self.model.profiles.map(|profile| profile.precision);
            let known = (like_a * (of_a[0] * of_a[2]).sqrt()).powi(-2);
            for index in 0..HEIGHT / 2 {
                normal[(index, index)] += known;
                right[index] += known * (of_a[index] - of_b[index]);
            }
        }
        for index in 0..PARAMETERS {
            let held = index < HEIGHT && shared == Shared::Heights
                || index == OXYGEN && self.model.oxygen.between.is_empty();
            if held {
                normal.row_mut(index).fill(0.0);
                normal.column_mut(index).fill(0.0);
                normal[(index, index)] = 1.0;
                right[index] = 0.0;
            }
            let damping = 1e-6 * normal[(index, index)] + f64::MIN_POSITIVE;
            normal[(index, index)] += damping;
        }
        let Some(factor) = normal.cholesky() else { return };
        let change = factor.solve(&right);
        if change.iter().all(|value| value.is_finite()) {
            self.take(&change, shared);
        }
    }

    /// Takes the step, or as much of it as leaves every parameter near where it was.
    fn take(&mut self, change: &SVector<f64, PARAMETERS>, shared: Shared) {
        let most = |index: usize| match (index, shared) {
            (0..HEIGHT, _) => {
                let [rr, _, cc] = self.model.profiles[index / 3].precision;
                0.2 * rr.min(cc)
            }
            (_, Shared::Heights) => f64::INFINITY,
            (OXYGEN, _) => 0.05,
            (HEIGHT.., _) => 0.2,
        };
        let part = (0..CONSTANT).map(|k| most(k) / change[k].abs()).fold(1.0, f64::min);
        let change = part * change;
        for (sublattice, profile) in self.model.profiles.iter_mut().enumerate() {
            let at = 3 * sublattice;
            let moved: [f64; 3] = std::array::from_fn(|k| profile.precision[k] + change[at + k]);
            if moved[0] * moved[2] > 1.2 * moved[1].powi(2) {
                profile.precision = moved;
            }
        }
        for spot in &mut self.model.spots {
            match spot.kind {
                Kind::Oxygen => {}
                kind => spot.amplitude *= (1.0 + change[HEIGHT + kind as usize]).max(0.05),
            }
        }
        self.drawn.background += change[CONSTANT] as f32;
        let oxygen = self.model.oxygen.height + change[OXYGEN];
        self.model.oxygen.height = oxygen.clamp(LEAST_OXYGEN, MOST_OXYGEN);
        self.model.place_oxygen();
    }

    /// Normal equations of the pixels of some rows.
    fn band(&self, rows: Range<usize>, cols: Range<usize>) -> Normal {
        let (mut normal, mut right): Normal = (SMatrix::zeros(), SVector::zeros());
        let Self { given: Given { pixels, every, .. }, model, drawn } = self;
        let every = *every;
        let parts = model
            .profiles
            .map(|profile| profile.parts().map(|part| (part, part.reach_px())).collect::<Vec<_>>());
        let read: Vec<usize> = cols.step_by(every).collect();
        let Some(&from) = read.first() else { return (normal, right) };
        let mut gradients: [Vec<f32>; CONSTANT] = std::array::from_fn(|_| vec![0.0; read.len()]);
        let mut values = vec![0.0; read.len()];
        for row in rows.step_by(every) {
            gradients.iter_mut().for_each(|gradient| gradient.fill(0.0));
            for spot in &model.spots {
                let dr = row as f64 - spot.row;
                for (part, reach) in parts[spot.kind.profile()].iter().filter(|(_, reach)| dr.abs() < *reach)
                {
                    let half = (reach * reach - dr * dr).sqrt() / every as f64;
                    let reached = around((spot.col - from as f64) / every as f64, half, read.len());
                    let first = (from + every * reached.start) as f64 - spot.col;
                    let values = &mut values[..reached.len()];
                    part.along_row([dr, first], every, values);
                    self.add_to(&mut gradients, reached, spot, (part, [dr, first], values));
                }
            }
            for (k, &col) in read.iter().enumerate() {
                let mut gradient = [1.0; PARAMETERS];
                gradient.iter_mut().zip(&gradients).for_each(|(to, from)| *to = f64::from(from[k]));
                let columns =
                    gradient[HEIGHT] + gradient[HEIGHT + 1] + model.oxygen.height * gradient[OXYGEN];
                let expected = columns + f64::from(drawn.background[[row, col]]);
                let rest = f64::from(pixels[[row, col]]) - expected;
                if !rest.is_finite() {
                    continue;
                }
                let weight = 1.0 / model.noise.variance(expected);
                for (k, derivative) in gradient.iter().enumerate() {
                    let weighted = weight * derivative;
                    right[k] += weighted * rest;
                    // The lower half of the symmetric matrix, which is all that Cholesky reads.
                    for (sum, other) in normal.column_mut(k).iter_mut().zip(&gradient).skip(k) {
                        *sum += weighted * other;
                    }
                }
            }
        }
        (normal, right)
    }

    /// Adds what a part of a spot's profile has along a row to the derivatives there.
    fn add_to(
        &self,
        gradients: &mut [Vec<f32>; CONSTANT],
        reached: Range<usize>,
        spot: &Spot,
        (part, [dr, first], values): (&Part, [f64; 2], &[f32]),
    ) {
        // The height of oxygen is the parameter; that of the others has a factor.
        let by_height = if spot.kind == Kind::Oxygen {
            spot.amplitude / self.model.oxygen.height
        } else {
            spot.amplitude
        };
        let by_height = (by_height * part.weight) as f32;
        let (dr, per_u) = (dr as f32, (-0.5 * part.narrow * part.weight * spot.amplitude) as f32);
        let at = 3 * spot.kind.profile();
        for (sum, value) in gradients[HEIGHT + spot.kind as usize][reached.clone()].iter_mut().zip(values) {
            *sum += by_height * value;
        }
        let steps = (0..values.len()).map(|k| first as f32 + (self.given.every * k) as f32);
        let [by_rr, by_rc, by_cc] = &mut gradients[at..at + 3] else { return };
        let [by_rr, by_rc, by_cc] = [by_rr, by_rc, by_cc].map(|sums| &mut sums[reached.clone()]);
        let sums = by_rr.iter_mut().zip(by_rc).zip(by_cc);
        for ((((by_rr, by_rc), by_cc), value), dc) in sums.zip(values).zip(steps) {
            let per_u = per_u * value;
            *by_rr += per_u * dr * dr;
            *by_rc += per_u * 2.0 * dr * dc;
            *by_cc += per_u * dc * dc;
        }
    }
}
