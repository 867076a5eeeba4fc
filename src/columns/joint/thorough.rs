//! The fit of all columns that goes on until nothing moves.

use super::shape::Shared;
use super::{Fitting, JointFit, Kind, Noise, Pace, Profile, USUAL_SIGMA_CELLS, tail};
use crate::columns::{FoundColumns, GaussianFit, fit_gaussian};
use crate::frame::Sublattice;
use crate::preprocess::median;
use ndarray::Array2;
use rayon::prelude::*;

/// Half the side of the box of the first, single fits, in cell edges.
const FIRST_FIT_CELLS: f64 = 0.18;
/// Rounds at most; with the tail held at another value than before, the fit only has to follow.
const MAX_ROUNDS: usize = 30;
const MAX_FOLLOWING_ROUNDS: usize = 10;
/// Rounds before the profiles are fitted: first the positions have to be about right.
const FIRST_ROUNDS: usize = 3;

/// Fits all of `columns` to `pixels` together.
///
/// # Shapes
/// `pixels` `[row, col]`; non-finite pixels are left out. `cell_px`: edge of the unit cell. Results are for the columns within the
/// frame.
pub fn fit_jointly(pixels: &Array2<f32>, found: &FoundColumns, cell_px: f64) -> JointFit {
    let tail = tail::fraction(pixels, found, cell_px);
    let mut fit = Fitting::start(pixels, found, cell_px, tail);
    let (rounds, converged) = fit.settle(None);
    fit.finish(rounds, converged)
}

impl<'a> Fitting<'a> {
    /// Everything where it was found, with widths and heights from single fits.
    pub(super) fn start(pixels: &'a Array2<f32>, found: &'a FoundColumns, cell_px: f64, tail: f64) -> Self {
        let mut fitting = Self::at(pixels, found, cell_px, Pace::Thorough, tail);
        let starts = &found.columns;
        let half_side_px = (FIRST_FIT_CELLS * cell_px).max(2.0);
        let firsts: Vec<Option<GaussianFit>> = starts
            .par_iter()
            .map(|start| fit_gaussian(pixels, [start.row, start.col], half_side_px))
            .collect();
        let typical = |sublattice: Sublattice| {
            let of = |value: fn(&GaussianFit) -> f64| {
                let values = starts.iter().zip(&firsts).filter(|(start, _)| start.sublattice == sublattice);
                median(values.filter_map(|(_, fit)| fit.as_ref().map(value)), f64::total_cmp)
            };
            let sigma = of(|fit| fit.sigma_px).unwrap_or(f64::NAN);
            let usual = USUAL_SIGMA_CELLS * cell_px;
            let sigma = if (0.4 * usual..1.8 * usual).contains(&sigma) { sigma } else { usual };
            (sigma, of(|fit| fit.amplitude).unwrap_or(0.0))
        };
        let typical = [typical(Sublattice::B), typical(Sublattice::A)];
        fitting.model.profiles = typical.map(|(sigma, _)| Profile::round(sigma, tail));
        for spot in &mut fitting.model.spots {
            spot.amplitude = typical[spot.kind.profile()].1;
        }
        fitting.draw();
        fitting
    }

    /// Rounds until nothing moves: how many, and whether that came. The noise is taken from what is left over, or as given.
    pub(super) fn settle(&mut self, noise: Option<Noise>) -> (usize, bool) {
        // Fits that are compared take all their rounds.
        let (most, enough) = if noise.is_some() { (MAX_FOLLOWING_ROUNDS, 0.0) } else { (MAX_ROUNDS, 1.0) };
        for round in 1..=most {
            let mut moved = self.places();
            if round >= FIRST_ROUNDS || noise.is_some() {
                self.model.noise = noise.unwrap_or_else(|| self.noise_left());
                self.shape_step(Shared::All);
                self.draw();
            } else {
                moved = f64::INFINITY;
            }
            if moved < enough {
                return (round, true);
            }
        }
        (most, false)
    }

    /// One step of every column; returns the longest of those within the frame, as a multiple of one that does not matter.
    fn places(&mut self) -> f64 {
        let mut longest = 0.0_f64;
        for kind in [Kind::A, Kind::B] {
            longest = longest.max(self.step(kind));
            self.draw();
        }
        longest
    }

    /// The weighted sum of squares over the middle of the frame.
    pub(super) fn left_over(&self) -> f64 {
        let [rows, cols] = self.given.middle();
        let rows = rows.map(|row| {
            cols.clone()
                .filter_map(|col| self.rest([row, col]))
                .map(|(rest, weight)| weight * rest * rest)
                .sum::<f64>()
        });
        rows.sum()
    }
}
