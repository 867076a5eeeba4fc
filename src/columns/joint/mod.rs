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
//! others where they belong: the same as one fit of all parameters, without its matrix ([`fit_jointly`]). Live frames have time for
//! a few rounds ([`refine_columns`]). What else the two do differently is in [`pace`].

mod live;
mod noise;
mod oxygen;
mod pace;
mod picture;
mod profile;
mod shape;
mod smooth;
mod step;
mod tail;
mod thorough;

pub use live::refine_columns;
pub(crate) use smooth::blurred;
pub use thorough::fit_jointly;

use super::{FoundColumns, GaussianFit};
use crate::frame::{Column, Sublattice};
use ndarray::Array2;
use noise::Noise;
use oxygen::Oxygen;
use pace::Pace;
use profile::Profile;
use rayon::prelude::*;
use smooth::Smoother;
use step::Step;

/// The background is smooth on this scale, in cell edges.
const BACKGROUND_CELLS: f64 = 0.75;
/// Widths over the cell's edge where nothing tells of them.
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

/// A fit under way.
struct Fitting<'a> {
    given: Given<'a>,
    model: Model,
    drawn: Drawn,
}

/// What stays as it is during a fit.
struct Given<'a> {
    /// `[row, col]`.
    pixels: &'a Array2<f32>,
    found: &'a FoundColumns,
    cell_px: f64,
    pace: Pace,
    /// What the pace says of columns of the usual width ([`Pace::every`]).
    every: usize,
    smoother: Smoother,
}

/// What is fitted.
struct Model {
    /// The columns within the frame and those beyond it, in the order in which they were found; then oxygen.
    spots: Vec<Spot>,
    /// Of B and A.
    profiles: [Profile; 2],
    oxygen: Oxygen,
    noise: Noise,
}

/// The model pixel by pixel, `[row, col]`: the sum of all columns, and the smooth rest.
struct Drawn {
    columns: Array2<f32>,
    background: Array2<f32>,
}

impl<'a> Fitting<'a> {
    /// Everything where it was found, without height, and round columns of the usual width with this tail.
    fn at(pixels: &'a Array2<f32>, found: &'a FoundColumns, cell_px: f64, pace: Pace, tail: f64) -> Self {
        let spot = |column: &Column, parent| Spot {
            row: column.row,
            col: column.col,
            amplitude: 0.0,
            kind: column.sublattice.into(),
            parent,
        };
        let beyond =
            found.beyond.iter().map(|beyond| spot(&beyond.column, Some((beyond.parent, beyond.step))));
        let usual = Profile::round(USUAL_SIGMA_CELLS * cell_px, tail);
        Self {
            given: Given {
                pixels,
                found,
                cell_px,
                pace,
                every: pace.every(usual.sigma_px()),
                smoother: Smoother::new(pixels, BACKGROUND_CELLS * cell_px, pace),
            },
            model: Model {
                spots: found.columns.iter().map(|column| spot(column, None)).chain(beyond).collect(),
                profiles: [usual; 2],
                oxygen: Oxygen::default(),
                noise: Noise::UNIFORM,
            },
            drawn: Drawn { columns: Array2::zeros(pixels.dim()), background: Array2::zeros(pixels.dim()) },
        }
    }

    fn draw(&mut self) {
        let Given { pixels, pace, smoother, .. } = &self.given;
        self.drawn.columns = picture::columns(pixels.dim(), &self.model.spots, &self.model.profiles, *pace);
        self.drawn.background = smoother.smooth(&(*pixels - &self.drawn.columns));
    }

    /// The noise by what is left over of the middle of the frame.
    fn noise_left(&self) -> Noise {
        let [rows, cols] = self.given.middle();
        let every = self.given.every;
        let middle =
            |image: &Array2<f32>| image.slice(ndarray::s![rows.clone();every, cols.clone();every]).to_owned();
        let expected = middle(&self.drawn.columns) + middle(&self.drawn.background);
        Noise::of(&expected, &(middle(self.given.pixels) - &expected))
    }

    /// What the model leaves of a pixel, and the pixel's weight; `None` where nothing was measured.
    fn rest(&self, at: [usize; 2]) -> Option<(f64, f64)> {
        let expected = self.drawn.columns[at] + self.drawn.background[at];
        let rest = f64::from(self.given.pixels[at] - expected);
        rest.is_finite().then(|| (rest, 1.0 / self.model.noise.variance(f64::from(expected))))
    }

    fn finish(self, rounds: usize, converged: bool) -> JointFit {
        let Self { given, model, drawn } = &self;
        let expected = &drawn.columns + &drawn.background;
        let residual = given.pixels - &expected;
        let sigma = expected.mapv(|value| model.noise.variance(f64::from(value)).sqrt() as f32);
        let noise_correlation = noise::correlation(&residual, &sigma);
        let (rows, cols) = given.pixels.dim();
        let fits = (0..given.found.columns.len())
            .into_par_iter()
            .map(|index| {
                let spot = model.spots.get(index)?;
                let Step { covariance, .. } = self.step_of(index, &self.found(index)?)?;
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
                    background: f64::from(drawn.background[[row, col]]),
                    sigma_px: model.profiles[spot.kind.profile()].sigma_px(),
                })
            })
            .collect();
        JointFit {
            fits,
            tail_fraction: model.profiles[1].tail,
            noise: [model.noise.constant, model.noise.per_unit],
            noise_correlation,
            rounds,
            converged,
        }
    }
}
