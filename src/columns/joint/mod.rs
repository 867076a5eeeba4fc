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
//! others where they belong: the same as one fit of all parameters, without its matrix. Live frames have time for a few rounds
//! ([`refine_columns`]).

mod live;
mod noise;
mod oxygen;
mod picture;
mod profile;
mod shape;
mod smooth;
mod step;
mod tail;

pub use live::refine_columns;

pub(crate) use smooth::blurred;

use super::{FoundColumns, GaussianFit, fit_gaussian};
use crate::frame::{Column, Sublattice};
use crate::preprocess::median;
use ndarray::Array2;
use noise::Noise;
use profile::Profile;
use rayon::prelude::*;
use shape::Shared;
use smooth::Smoother;
use step::Step;

/// The background is smooth on this scale, in cell edges.
const BACKGROUND_CELLS: f64 = 0.75;
/// Half the side of the box of the first, single fits, in cell edges.
const FIRST_FIT_CELLS: f64 = 0.18;
/// Rounds at most; with the tail held at another value than before, the fit only has to follow.
const MAX_ROUNDS: usize = 30;
const MAX_FOLLOWING_ROUNDS: usize = 10;
/// Rounds before the profiles are fitted: first the positions have to be about right.
const FIRST_ROUNDS: usize = 3;
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
    kind: Kind,
    /// For a column outside the frame: the one that says where it is, and the way from there `[row, col]`.
    parent: Option<(usize, [f64; 2])>,
}

/// What stands at a spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    B = 0,
    A = 1,
    Oxygen = 2,
}

impl Kind {
    /// Index of its profile: oxygen, of which little is seen, looks like B.
    fn profile(self) -> usize {
        usize::from(self == Self::A)
    }
}

impl From<Sublattice> for Kind {
    fn from(sublattice: Sublattice) -> Self {
        match sublattice {
            Sublattice::B => Self::B,
            Sublattice::A => Self::A,
        }
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
    smoother: Smoother,
    pace: Pace,
    noise: Noise,
    cell_px: f64,
    /// Of so many rows and columns one is read for what all columns share: neighbouring ones say nearly the same.
    every: usize,
    /// How well the places are known where columns were found, standard deviation of each coordinate, px; infinite for not at all.
    found_within_px: f64,
    /// Height of oxygen over that of the two A columns that each lies between; and the indices of these, of the last spots.
    oxygen: f64,
    between: Vec<[usize; 2]>,
}

/// How exactly the model is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Pixel by pixel.
    Thorough,
    /// Tails and the smooth background on coarse nodes.
    Live,
}

impl<'a> Fitting<'a> {
    /// Everything where it was found, without height.
    fn at(pixels: &'a Array2<f32>, found: &'a FoundColumns, cell_px: f64, pace: Pace) -> Self {
        let spot = |column: &Column, parent| Spot {
            row: column.row,
            col: column.col,
            amplitude: 0.0,
            kind: column.sublattice.into(),
            parent,
        };
        let beyond =
            found.beyond.iter().map(|beyond| spot(&beyond.column, Some((beyond.parent, beyond.step))));
        Self {
            pixels,
            spots: found.columns.iter().map(|column| spot(column, None)).chain(beyond).collect(),
            starts: &found.columns,
            heights: [0.0; 2],
            profiles: [Profile::round(USUAL_SIGMA_CELLS * cell_px, 0.0); 2],
            columns: Array2::zeros(pixels.dim()),
            background: Array2::zeros(pixels.dim()),
            smoother: Smoother::new(pixels, BACKGROUND_CELLS * cell_px, pace),
            pace,
            noise: Noise::UNIFORM,
            cell_px,
            every: 1,
            found_within_px: f64::INFINITY,
            oxygen: 0.0,
            between: Vec::new(),
        }
    }

    /// The same with widths and heights from single fits.
    fn start(pixels: &'a Array2<f32>, found: &'a FoundColumns, cell_px: f64, tail: f64) -> Self {
        let mut fitting = Self::at(pixels, found, cell_px, Pace::Thorough);
        let starts = fitting.starts;
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
        fitting.heights = typical.map(|(_, height)| height);
        fitting.profiles = typical.map(|(sigma, _)| Profile::round(sigma, tail));
        for spot in &mut fitting.spots {
            spot.amplitude = fitting.heights[spot.kind as usize];
        }
        fitting.draw();
        fitting
    }

    fn draw(&mut self) {
        self.columns = picture::columns(self.pixels.dim(), &self.spots, &self.profiles, self.pace);
        self.smooth();
    }

    fn smooth(&mut self) {
        self.background = self.smoother.smooth(&(self.pixels - &self.columns));
    }

    /// Rounds until nothing moves: how many, and whether that came. The noise is taken from what is left over, or as given.
    fn settle(&mut self, noise: Option<Noise>) -> (usize, bool) {
        // Fits that are compared take all their rounds.
        let (most, enough) = if noise.is_some() { (MAX_FOLLOWING_ROUNDS, 0.0) } else { (MAX_ROUNDS, 1.0) };
        for round in 1..=most {
            let mut moved = self.places();
            if round >= FIRST_ROUNDS || noise.is_some() {
                self.noise = noise.unwrap_or_else(|| self.noise_left());
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

    fn noise_left(&self) -> Noise {
        let [rows, cols] = self.middle();
        let middle = |image: &Array2<f32>| {
            image.slice(ndarray::s![rows.clone();self.every, cols.clone();self.every]).to_owned()
        };
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

    fn finish(self, rounds: usize, converged: bool) -> JointFit {
        let expected = &self.columns + &self.background;
        let residual = self.pixels - &expected;
        let sigma = expected.mapv(|value| self.noise.variance(f64::from(value)).sqrt() as f32);
        let noise_correlation = noise::correlation(&residual, &sigma);
        let (rows, cols) = self.pixels.dim();
        let fits = (0..self.starts.len())
            .into_par_iter()
            .map(|index| {
                let spot = self.spots.get(index)?;
                let Step { covariance, .. } = self.step_of(index)?;
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
                    sigma_px: self.profiles[spot.kind.profile()].sigma_px(),
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
