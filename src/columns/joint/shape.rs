//! A step of what all columns share: the two sublattices' widths, and their tail.

use super::picture::around;
use super::profile::{RATIO, TAIL};
use super::{Fitting, profile_of};
use nalgebra::{SMatrix, SVector};
use ndarray::Array3;
use rayon::prelude::*;

/// Three precisions of B, three of A, tail fraction, tail ratio, common factors of the heights of B and A, a constant.
const PARAMETERS: usize = 11;
const TAIL_FRACTION: usize = 6;
const TAIL_RATIO: usize = 7;
const HEIGHT: usize = 8;
const CONSTANT: usize = 10;
/// The middle of a frame, up to this side, tells enough of the profile.
const SIDE_PX: usize = 384;
/// Left out at the frame's edge, in cell edges.
pub(super) const EDGE_CELLS: f64 = 1.25;
const BAND_ROWS: usize = 16;
/// What is known of tails before a frame is seen, mean and standard deviation.
const TAIL_PRIOR: [f64; 2] = [0.0, 0.2];
/// Tails below this fraction have no width.
const LEAST_TAIL: f64 = 0.01;
const RATIO_PRIOR: [f64; 2] = [2.2, 0.3];

type Normal = (SMatrix<f64, PARAMETERS, PARAMETERS>, SVector<f64, PARAMETERS>);

impl Fitting<'_> {
    /// Gauss–Newton on the shared parameters over the middle of the frame; `tails` also moves the tail.
    pub(super) fn shape_step(&mut self, tails: bool) {
        let (rows, cols) = self.pixels.dim();
        // At the edge, columns that cannot be seen leave their flanks.
        let margin = (EDGE_CELLS * self.cell_px) as usize;
        let middle = |length: usize| {
            let side = length.saturating_sub(2 * margin).clamp(length.min(32), SIDE_PX);
            let from = (length - side) / 2;
            from..from + side
        };
        let (rows, cols) = (middle(rows), middle(cols));
        let bands: Vec<usize> = rows.clone().step_by(BAND_ROWS).collect();
        let (mut normal, mut right) = bands
            .into_par_iter()
            .map(|from| self.band(from..(from + BAND_ROWS).min(rows.end), cols.clone()))
            .reduce(|| (SMatrix::zeros(), SVector::zeros()), |a, b| (a.0 + b.0, a.1 + b.1));
        let shared = self.profiles[0];
        for (index, value, [mean, deviation], [low, high]) in
            [(TAIL_FRACTION, shared.tail, TAIL_PRIOR, TAIL), (TAIL_RATIO, shared.ratio, RATIO_PRIOR, RATIO)]
        {
            let pull = right[index] + deviation.powi(-2) * (mean - value);
            let at_end = (value <= low && pull < 0.0) || (value >= high && pull > 0.0);
            // A tail that is none has no width.
            let free = tails && !at_end && (index == TAIL_FRACTION || shared.tail > LEAST_TAIL);
            if free {
                normal[(index, index)] += deviation.powi(-2);
                right[index] = pull;
            } else {
                normal.row_mut(index).fill(0.0);
                normal.column_mut(index).fill(0.0);
                normal[(index, index)] = 1.0;
                right[index] = 0.0;
            }
        }
        for index in 0..PARAMETERS {
            let damping = 1e-6 * normal[(index, index)] + f64::MIN_POSITIVE;
            normal[(index, index)] += damping;
        }
        let Some(factor) = normal.cholesky() else { return };
        let change = factor.solve(&right);
        if !change.iter().all(|value| value.is_finite()) {
            return;
        }
        self.take(&change);
    }

    /// Takes the step, or as much of it as leaves every parameter near where it was.
    fn take(&mut self, change: &SVector<f64, PARAMETERS>) {
        let most = |index: usize| match index {
            0..TAIL_FRACTION => {
                let [rr, _, cc] = self.profiles[index / 3].precision;
                0.2 * rr.min(cc)
            }
            TAIL_FRACTION => 0.05,
            TAIL_RATIO | HEIGHT.. => 0.2,
        };
        let part = (0..CONSTANT).map(|k| most(k) / change[k].abs()).fold(1.0, f64::min);
        let change = part * change;
        for (sublattice, profile) in self.profiles.iter_mut().enumerate() {
            let at = 3 * sublattice;
            let moved: [f64; 3] = std::array::from_fn(|k| profile.precision[k] + change[at + k]);
            if moved[0] * moved[2] > 1.2 * moved[1].powi(2) {
                profile.precision = moved;
            }
            profile.tail = (profile.tail + change[TAIL_FRACTION]).clamp(TAIL[0], TAIL[1]);
            profile.ratio = (profile.ratio + change[TAIL_RATIO]).clamp(RATIO[0], RATIO[1]);
        }
        for spot in &mut self.spots {
            spot.amplitude *= 1.0 + change[HEIGHT + spot.sublattice as usize];
        }
    }

    /// Normal equations of the pixels of some rows.
    fn band(&self, rows: std::ops::Range<usize>, cols: std::ops::Range<usize>) -> Normal {
        let mut gradient = Array3::<f64>::zeros((rows.len(), cols.len(), CONSTANT));
        for spot in self.spots.iter().filter(|spot| spot.amplitude > 0.0) {
            let profile = profile_of(&self.profiles, spot.sublattice);
            let reach = profile.reach_px();
            let at = 3 * spot.sublattice as usize;
            for row in around(spot.row - rows.start as f64, reach, rows.len()) {
                let dr = (row + rows.start) as f64 - spot.row;
                let half = (reach * reach - dr * dr).max(0.0).sqrt();
                for col in around(spot.col - cols.start as f64, half, cols.len()) {
                    let dc = (col + cols.start) as f64 - spot.col;
                    let values = profile.at([dr, dc]);
                    let mut pixel = gradient.slice_mut(ndarray::s![row, col, ..]);
                    pixel[at] += spot.amplitude * values.per_u * dr * dr;
                    pixel[at + 1] += spot.amplitude * values.per_u * 2.0 * dr * dc;
                    pixel[at + 2] += spot.amplitude * values.per_u * dc * dc;
                    pixel[TAIL_FRACTION] += spot.amplitude * values.per_tail;
                    pixel[TAIL_RATIO] += spot.amplitude * values.per_ratio;
                    pixel[HEIGHT + spot.sublattice as usize] += spot.amplitude * values.height;
                }
            }
        }
        let (mut normal, mut right): Normal = (SMatrix::zeros(), SVector::zeros());
        for (row, lines) in gradient.outer_iter().enumerate() {
            for (col, pixel) in lines.outer_iter().enumerate() {
                let at = [row + rows.start, col + cols.start];
                let expected = self.columns[at] + self.background[at];
                let rest = f64::from(self.pixels[at] - expected);
                if !rest.is_finite() {
                    continue;
                }
                let gradient =
                    SVector::<f64, PARAMETERS>::from_fn(|k, _| pixel.get(k).copied().unwrap_or(1.0));
                let weight = 1.0 / self.noise.variance(f64::from(expected));
                normal += weight * gradient * gradient.transpose();
                right += weight * rest * gradient;
            }
        }
        (normal, right)
    }
}
