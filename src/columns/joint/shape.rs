//! A step of what all columns share: the widths of the two sublattices.

use super::picture::around;
use super::{Fitting, profile_of};
use nalgebra::{SMatrix, SVector};
use ndarray::Array3;
use rayon::prelude::*;
use std::ops::Range;

/// Three precisions of B, three of A, common factors of the heights of B and A, a constant.
const PARAMETERS: usize = 9;
const HEIGHT: usize = 6;
const CONSTANT: usize = 8;
/// The middle of a frame, up to this side, tells enough of the profile.
pub(super) const SIDE_PX: usize = 384;
/// Left out at the frame's edge, in cell edges.
pub(super) const EDGE_CELLS: f64 = 1.25;
const BAND_ROWS: usize = 16;

type Normal = (SMatrix<f64, PARAMETERS, PARAMETERS>, SVector<f64, PARAMETERS>);

impl Fitting<'_> {
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

    /// Gauss–Newton on the shared parameters over the middle of the frame.
    pub(super) fn shape_step(&mut self) {
        let [rows, cols] = self.middle();
        let bands: Vec<usize> = rows.clone().step_by(BAND_ROWS).collect();
        let (mut normal, right) = bands
            .into_par_iter()
            .map(|from| self.band(from..(from + BAND_ROWS).min(rows.end), cols.clone()))
            .reduce(|| (SMatrix::zeros(), SVector::zeros()), |a, b| (a.0 + b.0, a.1 + b.1));
        for index in 0..PARAMETERS {
            let damping = 1e-6 * normal[(index, index)] + f64::MIN_POSITIVE;
            normal[(index, index)] += damping;
        }
        let Some(factor) = normal.cholesky() else { return };
        let change = factor.solve(&right);
        if change.iter().all(|value| value.is_finite()) {
            self.take(&change);
        }
    }

    /// Takes the step, or as much of it as leaves every parameter near where it was.
    fn take(&mut self, change: &SVector<f64, PARAMETERS>) {
        let most = |index: usize| match index {
            0..HEIGHT => {
                let [rr, _, cc] = self.profiles[index / 3].precision;
                0.2 * rr.min(cc)
            }
            HEIGHT.. => 0.2,
        };
        let part = (0..CONSTANT).map(|k| most(k) / change[k].abs()).fold(1.0, f64::min);
        let change = part * change;
        for (sublattice, profile) in self.profiles.iter_mut().enumerate() {
            let at = 3 * sublattice;
            let moved: [f64; 3] = std::array::from_fn(|k| profile.precision[k] + change[at + k]);
            if moved[0] * moved[2] > 1.2 * moved[1].powi(2) {
                profile.precision = moved;
            }
        }
        for spot in &mut self.spots {
            spot.amplitude *= 1.0 + change[HEIGHT + spot.sublattice as usize];
        }
    }

    /// Normal equations of the pixels of some rows.
    fn band(&self, rows: Range<usize>, cols: Range<usize>) -> Normal {
        let mut gradient = Array3::<f64>::zeros((rows.len(), cols.len(), CONSTANT));
        let Some(values) = gradient.as_slice_mut() else { return (SMatrix::zeros(), SVector::zeros()) };
        let line = cols.len() * CONSTANT;
        for spot in self.spots.iter().filter(|spot| spot.amplitude > 0.0) {
            let profile = profile_of(&self.profiles, spot.sublattice);
            let reach = profile.reach_px();
            let at = 3 * spot.sublattice as usize;
            for row in around(spot.row - rows.start as f64, reach, rows.len()) {
                let dr = (row + rows.start) as f64 - spot.row;
                let half = (reach * reach - dr * dr).max(0.0).sqrt();
                let reached = around(spot.col - cols.start as f64, half, cols.len());
                let first = (reached.start + cols.start) as f64 - spot.col;
                let pixels = &mut values[row * line + reached.start * CONSTANT..];
                for (part, narrow, gaussian) in profile.along_row([dr, first]) {
                    let height = spot.amplitude * part;
                    let pixels = pixels.chunks_exact_mut(CONSTANT).take(reached.len());
                    for ((k, pixel), value) in pixels.enumerate().zip(gaussian) {
                        let dc = first + k as f64;
                        let per_u = -0.5 * narrow * height * value;
                        pixel[at] += per_u * dr * dr;
                        pixel[at + 1] += per_u * 2.0 * dr * dc;
                        pixel[at + 2] += per_u * dc * dc;
                        pixel[HEIGHT + spot.sublattice as usize] += height * value;
                    }
                }
            }
        }
        let (mut normal, mut right): Normal = (SMatrix::zeros(), SVector::zeros());
        for (row, lines) in gradient.outer_iter().enumerate() {
            for (col, pixel) in lines.outer_iter().enumerate() {
                let Some((rest, weight)) = self.rest([row + rows.start, col + cols.start]) else { continue };
                let gradient =
                    SVector::<f64, PARAMETERS>::from_fn(|k, _| pixel.get(k).copied().unwrap_or(1.0));
                normal += weight * gradient * gradient.transpose();
                right += weight * rest * gradient;
            }
        }
        (normal, right)
    }
}
