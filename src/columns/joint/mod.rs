//! All columns of a frame fitted together, each with its neighbours' tails taken into account.
//!
//! Features: one profile a sublattice (elliptical core and tail), fitted to the whole frame; height and position of every column by
//! weighted least squares; a smooth background; weights from the noise that the residuals show; covariances.
//! Columns outside the frame are fitted too: their flanks reach into it. What the pixels do not say of them, their neighbours do.
//! Assumptions: columns of one sublattice look alike but for their height, as in crowded-field photometry of stars (Stetson 1987,
//! DAOPHOT; Anderson & King 2000). Columns that do not still have the right centre, if they are symmetric.
//!
//! The columns of one sublattice take a Gauss–Newton step each against the frame less all others, then those of the other, then
//! profile, background and noise; and so on until nothing moves. Where it stands still, every column has least squares with all
//! others where they belong: the same as one fit of all parameters, without its matrix.

mod picture;
mod profile;
mod shape;
mod tail;

pub(crate) use picture::blurred;

use super::{FoundColumns, GaussianFit, fit_gaussian};
use crate::frame::{Column, Sublattice};
use crate::preprocess::median;
use nalgebra::{SMatrix, SVector};
use ndarray::Array2;
use picture::Noise;
use profile::Profile;
use rayon::prelude::*;

/// Pixels within this distance of a column belong to its fit, in cell edges.
const WINDOW_CELLS: f64 = 0.5;
/// The background is smooth on this scale, in cell edges.
const BACKGROUND_CELLS: f64 = 0.75;
/// Half the side of the box of the first, single fits, in cell edges.
const FIRST_FIT_CELLS: f64 = 0.18;
/// A column that wanders off further than this from where it was found is none, in cell edges.
const MOST_SHIFT_CELLS: f64 = 0.25;
/// Rounds at most; with the tail held at another value than before, the fit only has to follow.
const MAX_ROUNDS: usize = 30;
const MAX_FOLLOWING_ROUNDS: usize = 10;
/// Rounds before the profiles are fitted: first the positions have to be about right.
const FIRST_ROUNDS: usize = 3;
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
/// Widths over the cell's edge where single fits tell none.
const USUAL_SIGMA_CELLS: f64 = 0.18;

/// The columns of a frame, and what they were fitted with.
#[derive(Debug, Clone, PartialEq)]
pub struct JointFit {
    /// One for each column given; `None` where there turned out to be none. `sigma_px` is that of the sublattice's core,
    /// `background` the smooth one at the column.
    pub fits: Vec<Option<GaussianFit>>,
    /// Part of the columns' height that is in a tail of 2.2 times the core's width.
    pub tail_fraction: f64,
    /// Variance of a pixel: the first of these, and the second times what is expected there.
    pub noise: [f64; 2],
    /// Factor by which correlated noise widens the errors; it is in them.
    pub noise_correlation: f64,
    pub rounds: usize,
    /// Whether nothing moved any more.
    pub converged: bool,
}

/// A column of the model.
#[derive(Debug, Clone, Copy)]
struct Spot {
    row: f64,
    col: f64,
    amplitude: f64,
    sublattice: Sublattice,
    /// For a column outside the frame: the one that says where it is, and the way from there `[row, col]`.
    parent: Option<(usize, [f64; 2])>,
}

fn profile_of(profiles: &[Profile; 2], sublattice: Sublattice) -> &Profile {
    match sublattice {
        Sublattice::B => &profiles[0],
        Sublattice::A => &profiles[1],
    }
}

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

struct Fitting<'a> {
    pixels: &'a Array2<f32>,
    spots: Vec<Spot>,
    starts: &'a [Column],
    /// Heights of the columns of B and A within the frame.
    heights: [f64; 2],
    profiles: [Profile; 2],
    /// Sum of all columns, and the smooth rest.
    columns: Array2<f32>,
    background: Array2<f32>,
    /// Part of the weights around a pixel that is measured.
    measured: Array2<f32>,
    noise: Noise,
    cell_px: f64,
}

/// Where a column outside the frame is expected, and how high.
#[derive(Debug, Clone, Copy)]
struct Expected {
    at: [f64; 2],
    height: f64,
}

/// What one column's step would be, and how well it is known.
struct Step {
    change: SVector<f64, 4>,
    covariance: SMatrix<f64, 4, 4>,
}

impl<'a> Fitting<'a> {
    fn start(pixels: &'a Array2<f32>, found: &'a FoundColumns, cell_px: f64, tail: f64) -> Self {
        let starts = &found.columns;
        let half_side_px = (FIRST_FIT_CELLS * cell_px).max(2.0);
        let firsts: Vec<Option<GaussianFit>> = starts
            .par_iter()
            .map(|start| fit_gaussian(pixels, [start.row, start.col], half_side_px, false))
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
        let heights = typical.map(|(_, height)| height);
        let spot = |column: &Column, parent| Spot {
            row: column.row,
            col: column.col,
            amplitude: heights[column.sublattice as usize],
            sublattice: column.sublattice,
            parent,
        };
        let beyond =
            found.beyond.iter().map(|beyond| spot(&beyond.column, Some((beyond.parent, beyond.step))));
        let spots = starts.iter().map(|column| spot(column, None)).chain(beyond).collect();
        let mut fitting = Self {
            pixels,
            spots,
            starts,
            heights,
            profiles: typical.map(|(sigma, _)| Profile::round(sigma, tail)),
            columns: Array2::zeros(pixels.dim()),
            background: Array2::zeros(pixels.dim()),
            measured: picture::measured_weight(pixels, BACKGROUND_CELLS * cell_px),
            noise: Noise::UNIFORM,
            cell_px,
        };
        fitting.draw();
        fitting
    }

    fn draw(&mut self) {
        self.columns = picture::columns(self.pixels.dim(), &self.spots, &self.profiles);
        self.smooth();
    }

    fn smooth(&mut self) {
        let mut rest = self.pixels - &self.columns;
        rest.mapv_inplace(|value| if value.is_finite() { value } else { 0.0 });
        self.background = picture::blur(rest, BACKGROUND_CELLS * self.cell_px) / &self.measured;
    }

    /// Rounds until nothing moves: how many, and whether that came. The noise is taken from what is left over, or as given.
    fn settle(&mut self, noise: Option<Noise>) -> (usize, bool) {
        // Fits that are compared take all their rounds.
        let (most, enough) = if noise.is_some() { (MAX_FOLLOWING_ROUNDS, 0.0) } else { (MAX_ROUNDS, 1.0) };
        for round in 1..=most {
            let mut moved = self.places();
            if round >= FIRST_ROUNDS || noise.is_some() {
                self.noise = noise.unwrap_or_else(|| self.noise_left());
                self.shape_step();
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
        for sublattice in [Sublattice::A, Sublattice::B] {
            longest = longest.max(self.step(sublattice));
            self.draw();
        }
        longest
    }

    fn noise_left(&self) -> Noise {
        let [rows, cols] = self.middle();
        let middle = |image: &Array2<f32>| image.slice(ndarray::s![rows.clone(), cols.clone()]).to_owned();
        let expected = middle(&self.columns) + middle(&self.background);
        Noise::of(&expected, &(middle(self.pixels) - &expected))
    }

    /// The weighted sum of squares over the middle of the frame.
    fn left_over(&self) -> f64 {
        let [rows, cols] = self.middle();
        let rows = rows.map(|row| {
            cols.clone()
                .filter_map(|col| self.rest([row, col]))
                .map(|(rest, weight)| weight * rest * rest)
                .sum::<f64>()
        });
        rows.sum()
    }

    fn step(&mut self, sublattice: Sublattice) -> f64 {
        let most = 0.3 * profile_of(&self.profiles, sublattice).sigma_px();
        let within = self.spots.iter().filter(|spot| spot.sublattice == sublattice && spot.parent.is_none());
        if let Some(height) = median(within.map(|spot| spot.amplitude), f64::total_cmp) {
            self.heights[sublattice as usize] = height;
        }
        let steps: Vec<Option<Step>> = self
            .spots
            .par_iter()
            .map(|spot| (spot.sublattice == sublattice).then(|| self.step_of(spot)).flatten())
            .collect();
        let bound = MOST_SHIFT_CELLS * self.cell_px;
        let mut longest = 0.0_f64;
        for (index, step) in steps.into_iter().enumerate() {
            if self.spots[index].sublattice != sublattice {
                continue;
            }
            let expected = self.expected(&self.spots[index]);
            let spot = &mut self.spots[index];
            let start = match (expected, self.starts.get(index)) {
                (Some(Expected { at, .. }), _) => at,
                (None, Some(start)) => [start.row, start.col],
                (None, None) => continue,
            };
            let Some(Step { change, covariance }) = step else {
                // Nothing of it is in the frame.
                if let Some(Expected { at: [row, col], height }) = expected {
                    (spot.row, spot.col, spot.amplitude) = (row, col, height);
                }
                continue;
            };
            let length = change[1].hypot(change[2]);
            let shorter = (most / length).min(1.0);
            spot.amplitude += change[0];
            spot.row += shorter * change[1];
            spot.col += shorter * change[2];
            let strayed = (spot.row - start[0]).hypot(spot.col - start[1]) > bound;
            if strayed || spot.amplitude <= 0.0 {
                // Back to where it was found; what is not there stays small.
                [spot.row, spot.col] = start;
                spot.amplitude = spot.amplitude.max(0.0);
                continue;
            }
            // What is hardly there has no place to settle at.
            let there = spot.amplitude > SIGNIFICANT * covariance[(0, 0)].sqrt();
            if expected.is_none() && there {
                let error = covariance[(1, 1)].max(covariance[(2, 2)]).sqrt();
                let small = SMALL_STEP_PX.max(SMALL_PART_OF_ERROR * error);
                longest = longest.max(shorter * length / small);
            }
        }
        longest
    }

    /// What the neighbours say of a column outside the frame; `None` for those within.
    fn expected(&self, spot: &Spot) -> Option<Expected> {
        let (parent, step) = spot.parent?;
        let parent = self.spots.get(parent)?;
        let height = self.heights[spot.sublattice as usize];
        Some(Expected { at: [parent.row + step[0], parent.col + step[1]], height })
    }

    /// Gauss–Newton on height, row and column of one column, everything else as it is. A constant is fitted along and thrown away:
    /// height and smooth background would else follow each other without end.
    fn step_of(&self, spot: &Spot) -> Option<Step> {
        let (mut normal, mut right) = (SMatrix::<f64, 4, 4>::zeros(), SVector::<f64, 4>::zeros());
        let mut count = 0;
        self.each_pixel(spot, |_, gradient, rest, weight| {
            normal += weight * gradient * gradient.transpose();
            right += weight * rest * gradient;
            count += 1;
        });
        if count < 8 {
            return None;
        }
        if let Some(expected) = self.expected(spot) {
            let place = (BEYOND_SHIFT_CELLS * self.cell_px).powi(-2);
            let tall = (BEYOND_HEIGHT * expected.height).powi(-2);
            let known = [
                (tall, expected.height - spot.amplitude),
                (place, expected.at[0] - spot.row),
                (place, expected.at[1] - spot.col),
            ];
            for (index, (weight, away)) in
                known.into_iter().enumerate().filter(|(_, known)| known.0.is_finite())
            {
                normal[(index, index)] += weight;
                right[index] += weight * away;
            }
        }
        let covariance = normal.try_inverse()?;
        let change = covariance * right;
        change.iter().all(|value| value.is_finite()).then_some(Step { change, covariance })
    }

    /// Calls `take` with every measured pixel of a column's window: its place, the derivatives by height, row, column and a
    /// constant, what the model leaves over, and the weight.
    fn each_pixel(&self, spot: &Spot, mut take: impl FnMut([usize; 2], SVector<f64, 4>, f64, f64)) {
        let profile = profile_of(&self.profiles, spot.sublattice);
        let radius = WINDOW_CELLS * self.cell_px;
        let (rows, cols) = self.pixels.dim();
        // A column without height has a place only once it has some.
        let height = spot.amplitude.max(1e-6 * self.noise.floor.sqrt());
        for row in picture::around(spot.row, radius, rows) {
            let dr = row as f64 - spot.row;
            let half = (radius * radius - dr * dr).max(0.0).sqrt();
            for col in picture::around(spot.col, half, cols) {
                let Some((rest, weight)) = self.rest([row, col]) else { continue };
                let (value, slope) = profile.height_and_slope([dr, col as f64 - spot.col]);
                let gradient = SVector::from([value, -height * slope[0], -height * slope[1], 1.0]);
                take([row, col], gradient, rest, weight);
            }
        }
    }

    /// What the model leaves of a pixel, and the pixel's weight; `None` where nothing was measured.
    fn rest(&self, at: [usize; 2]) -> Option<(f64, f64)> {
        let expected = self.columns[at] + self.background[at];
        let rest = f64::from(self.pixels[at] - expected);
        rest.is_finite().then(|| (rest, 1.0 / self.noise.variance(f64::from(expected))))
    }

    fn finish(self, rounds: usize, converged: bool) -> JointFit {
        let expected = &self.columns + &self.background;
        let residual = self.pixels - &expected;
        let sigma = expected.mapv(|value| self.noise.variance(f64::from(value)).sqrt() as f32);
        let noise_correlation = picture::correlation(&residual, &sigma);
        let (rows, cols) = self.pixels.dim();
        let fits = self.spots[..self.starts.len()]
            .par_iter()
            .map(|spot| {
                let Step { covariance, .. } = self.step_of(spot)?;
                let error = |index: usize| noise_correlation * covariance[(index, index)].max(0.0).sqrt();
                let row = (spot.row.round().max(0.0) as usize).min(rows.checked_sub(1)?);
                let col = (spot.col.round().max(0.0) as usize).min(cols.checked_sub(1)?);
                (spot.amplitude > 0.0).then(|| GaussianFit {
                    row: spot.row,
                    col: spot.col,
                    row_error: error(1),
                    col_error: error(2),
                    amplitude: spot.amplitude,
                    amplitude_error: error(0),
                    background: f64::from(self.background[[row, col]]),
                    sigma_px: profile_of(&self.profiles, spot.sublattice).sigma_px(),
                })
            })
            .collect();
        JointFit {
            fits,
            tail_fraction: self.profiles[1].tail,
            noise: [self.noise.constant, self.noise.per_unit],
            noise_correlation,
            rounds,
            converged,
        }
    }
}
