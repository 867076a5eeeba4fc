//! All columns of a frame fitted together, each with its neighbours' tails taken into account.
//!
//! Features: one profile a sublattice (elliptical core and tail), fitted to the whole frame; height and position of every column by
//! weighted least squares; a smooth background; weights from the noise that the residuals show; covariances.
//! Assumptions: columns of one sublattice look alike but for their height, as in crowded-field photometry of stars (Stetson 1987,
//! DAOPHOT; Anderson & King 2000). Columns that do not still have the right centre, if they are symmetric.
//!
//! The columns of one sublattice take a Gauss–Newton step each against the frame less all others, then those of the other, then
//! profile, background and noise; and so on until nothing moves. Where it stands still, every column has least squares with all
//! others where they belong: the same as one fit of all parameters, without its matrix.

mod picture;
mod profile;
mod shape;

pub(crate) use picture::blurred;

use super::{GaussianFit, fit_gaussian};
use crate::frame::{Column, Sublattice};
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
const MAX_ROUNDS: usize = 40;
/// Rounds in which the profiles keep their tails: first the positions have to be about right.
const FIRST_ROUNDS: usize = 3;
/// Steps below this no longer matter, px.
const SMALL_STEP_PX: f64 = 2e-4;
/// Widths over the cell's edge where single fits tell none.
const USUAL_SIGMA_CELLS: f64 = 0.18;

/// The columns of a frame, and what they were fitted with.
#[derive(Debug, Clone, PartialEq)]
pub struct JointFit {
    /// One for each column given; `None` where there turned out to be none. `sigma_px` is that of the sublattice's core,
    /// `background` the smooth one at the column.
    pub fits: Vec<Option<GaussianFit>>,
    /// Part of the columns' height that is tail, and its width over the core's.
    pub tail_fraction: f64,
    pub tail_ratio: f64,
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
    /// Outside the frame: it stays as it is.
    fixed: bool,
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
/// `pixels` `[row, col]`; non-finite pixels are left out. `beyond`: columns outside the frame whose flanks reach into it, as
/// well as they are known. `cell_px`: edge of the unit cell.
pub fn fit_jointly(pixels: &Array2<f32>, columns: &[Column], beyond: &[Column], cell_px: f64) -> JointFit {
    let mut fit = Fitting::start(pixels, columns, beyond, cell_px);
    let (mut rounds, mut converged) = (0, false);
    while rounds < MAX_ROUNDS && !converged {
        rounds += 1;
        let moved = fit.round(rounds);
        converged = rounds > 2 * FIRST_ROUNDS && moved < SMALL_STEP_PX;
    }
    fit.finish(rounds, converged)
}

struct Fitting<'a> {
    pixels: &'a Array2<f32>,
    spots: Vec<Spot>,
    starts: &'a [Column],
    profiles: [Profile; 2],
    /// Sum of all columns, and the smooth rest.
    columns: Array2<f32>,
    background: Array2<f32>,
    noise: Noise,
    cell_px: f64,
}

/// What one column's step would be, and how well it is known.
struct Step {
    change: SVector<f64, 4>,
    covariance: SMatrix<f64, 4, 4>,
}

impl<'a> Fitting<'a> {
    fn start(pixels: &'a Array2<f32>, starts: &'a [Column], beyond: &[Column], cell_px: f64) -> Self {
        let half_side_px = (FIRST_FIT_CELLS * cell_px).max(2.0);
        let firsts: Vec<Option<GaussianFit>> = starts
            .par_iter()
            .map(|start| fit_gaussian(pixels, [start.row, start.col], half_side_px, false))
            .collect();
        let typical = |sublattice: Sublattice| {
            let of = |value: fn(&GaussianFit) -> f64| {
                let values = starts.iter().zip(&firsts).filter(|(start, _)| start.sublattice == sublattice);
                median(values.filter_map(|(_, fit)| fit.as_ref().map(value)).collect())
            };
            let sigma = of(|fit| fit.sigma_px).unwrap_or(f64::NAN);
            let usual = USUAL_SIGMA_CELLS * cell_px;
            let sigma = if (0.4 * usual..1.8 * usual).contains(&sigma) { sigma } else { usual };
            (sigma, of(|fit| fit.amplitude).unwrap_or(0.0))
        };
        let typical = [typical(Sublattice::B), typical(Sublattice::A)];
        let spot = |fixed: bool| {
            move |column: &Column| Spot {
                row: column.row,
                col: column.col,
                amplitude: typical[column.sublattice as usize].1,
                sublattice: column.sublattice,
                fixed,
            }
        };
        let spots: Vec<Spot> = starts.iter().map(spot(false)).chain(beyond.iter().map(spot(true))).collect();
        let mut fitting = Self {
            pixels,
            spots,
            starts,
            profiles: typical.map(|(sigma, _)| Profile::round(sigma)),
            columns: Array2::zeros(pixels.dim()),
            background: Array2::zeros(pixels.dim()),
            noise: Noise::UNIFORM,
            cell_px,
        };
        fitting.draw();
        fitting.smooth();
        fitting
    }

    fn draw(&mut self) {
        self.columns = picture::columns(self.pixels.dim(), &self.spots, &self.profiles);
    }

    fn smooth(&mut self) {
        self.background = blurred(&(self.pixels - &self.columns), BACKGROUND_CELLS * self.cell_px);
    }

    /// One round; returns the longest step of a column, px.
    fn round(&mut self, round: usize) -> f64 {
        let mut longest = 0.0_f64;
        for sublattice in [Sublattice::A, Sublattice::B] {
            longest = longest.max(self.step(sublattice));
            self.draw();
            self.smooth();
        }
        if round >= FIRST_ROUNDS {
            let expected = &self.columns + &self.background;
            let residual = self.pixels - &expected;
            let margin = (shape::EDGE_CELLS * self.cell_px) as usize;
            let inner = |image: &Array2<f32>| {
                let within = |length: usize| {
                    let margin = margin.min(length.saturating_sub(32) / 2);
                    margin..length - margin
                };
                let (rows, cols) = (within(image.nrows()), within(image.ncols()));
                image.slice(ndarray::s![rows, cols]).to_owned()
            };
            self.noise = Noise::of(&inner(&expected), &inner(&residual));
            self.shape_step(round > 2 * FIRST_ROUNDS);
            self.level_beyond();
            self.draw();
            self.smooth();
        }
        longest
    }

    fn step(&mut self, sublattice: Sublattice) -> f64 {
        let most = 0.3 * profile_of(&self.profiles, sublattice).sigma_px();
        let steps: Vec<Option<Step>> = self
            .spots
            .par_iter()
            .map(|spot| (spot.sublattice == sublattice && !spot.fixed).then(|| self.step_of(spot)).flatten())
            .collect();
        let bound = MOST_SHIFT_CELLS * self.cell_px;
        let mut longest = 0.0_f64;
        for ((spot, step), start) in self.spots.iter_mut().zip(steps).zip(self.starts) {
            let Some(Step { change, .. }) = step else { continue };
            let length = change[1].hypot(change[2]);
            let shorter = (most / length).min(1.0);
            spot.amplitude += change[0];
            spot.row += shorter * change[1];
            spot.col += shorter * change[2];
            let strayed = (spot.row - start.row).hypot(spot.col - start.col) > bound;
            if strayed || spot.amplitude <= 0.0 {
                // Back to where it was found; what is not there stays small.
                (spot.row, spot.col) = (start.row, start.col);
                spot.amplitude = spot.amplitude.max(0.0);
                continue;
            }
            longest = longest.max(shorter * length);
        }
        longest
    }

    /// Gauss–Newton on height, row and column of one column, everything else as it is. A constant is fitted along and thrown away:
    /// height and smooth background would else follow each other without end.
    fn step_of(&self, spot: &Spot) -> Option<Step> {
        let profile = profile_of(&self.profiles, spot.sublattice);
        let radius = WINDOW_CELLS * self.cell_px;
        let (rows, cols) = self.pixels.dim();
        let (mut normal, mut right) = (SMatrix::<f64, 4, 4>::zeros(), SVector::<f64, 4>::zeros());
        let mut count = 0;
        // A column without height has a place only once it has some.
        let height = spot.amplitude.max(1e-6 * self.noise.floor.sqrt());
        for row in picture::around(spot.row, radius, rows) {
            let dr = row as f64 - spot.row;
            let half = (radius * radius - dr * dr).max(0.0).sqrt();
            for col in picture::around(spot.col, half, cols) {
                let smooth = self.columns[[row, col]] + self.background[[row, col]];
                let rest = self.pixels[[row, col]] - smooth;
                if !rest.is_finite() {
                    continue;
                }
                let values = profile.at([dr, col as f64 - spot.col]);
                let gradient =
                    SVector::from([values.height, -height * values.slope[0], -height * values.slope[1], 1.0]);
                let weight = 1.0 / self.noise.variance(f64::from(smooth));
                normal += weight * gradient * gradient.transpose();
                right += weight * f64::from(rest) * gradient;
                count += 1;
            }
        }
        if count < 8 {
            return None;
        }
        let covariance = normal.try_inverse()?;
        let change = covariance * right;
        change.iter().all(|value| value.is_finite()).then_some(Step { change, covariance })
    }

    /// Columns beyond the edge are as high as those of their sublattice within.
    fn level_beyond(&mut self) {
        for sublattice in [Sublattice::A, Sublattice::B] {
            let within = self.spots.iter().filter(|spot| spot.sublattice == sublattice && !spot.fixed);
            let Some(height) = median(within.map(|spot| spot.amplitude).collect()) else { continue };
            for spot in self.spots.iter_mut().filter(|spot| spot.sublattice == sublattice && spot.fixed) {
                spot.amplitude = height;
            }
        }
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
            tail_ratio: self.profiles[1].ratio,
            noise: [self.noise.constant, self.noise.per_unit],
            noise_correlation,
            rounds,
            converged,
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
