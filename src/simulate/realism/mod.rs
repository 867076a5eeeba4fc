//! How an image of a perovskite looks, in numbers: what a simulated frame is compared by with real ones.
//!
//! *Features*: contrast, mean profile of the columns and their scatter in brightness and position; noise from differences along
//! the fast scan axis, by brightness, and its spectrum; displacement of lines.
//! *Assumptions*: a perovskite along a pseudocubic [100] axis, several cells across, most of it crystal. Nothing is known of the
//! detector: brightness is relative to the height of the A columns above the signal between the columns.
//! *Error conditions*: no lattice, or too few columns.
//!
//! All estimates are simple, and biased where an image is not what they assume: noise that was filtered away is not found, and
//! what a column's own tails add looks like background. Real and simulated images are measured by the same estimates, so that
//! what is compared is like with like.

mod columns;
mod compare;
mod noise;
mod profile;
mod spectrum;
#[cfg(test)]
mod tests;

pub use compare::{Comparison, Quantity, quantities};
pub use noise::NoiseLevel;
pub use profile::ProfilePoint;
pub use spectrum::SpectrumPoint;
pub(crate) use spectrum::windowed_power;

use crate::preprocess::{CalibrationError, estimate_lattice};
use columns::{Cell, find_a_columns, find_cells, mean_and_scatter};
use ndarray::Array2;
use noise::{jitter_px, noise_levels};
use profile::{background, full_width, profile};
use serde::Serialize;
use spectrum::{correlation_of_neighbours, radial_spectrum};

/// Columns, and cells, that an image must show to be measured.
const MIN_COLUMNS: usize = 16;

/// The numbers of one image. Heights are above the signal between the columns, in units of the mean A column's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageStatistics {
    /// `[rows, cols]`.
    pub shape: [usize; 2],
    pub pixel_size_pm: f64,
    /// Mean distance between A columns along the two lattice vectors, pm; a is nearer to the x axis.
    pub cell_a_pm: f64,
    pub cell_b_pm: f64,
    pub a_columns: usize,
    /// B columns within four A columns.
    pub cells: usize,
    /// Pixel value at the A columns over that between the columns; an offset of the detector goes into both.
    pub peak_to_background: f64,
    /// Mean height of the B columns.
    pub b_height: f64,
    /// Width at half the height of the mean profile, pm; `None` where neighbours overlap above half.
    pub a_fwhm_pm: Option<f64>,
    pub b_fwhm_pm: Option<f64>,
    /// Relative standard deviation of a column's height about the mean of its four nearest of the same kind.
    pub a_height_scatter: f64,
    pub b_height_scatter: f64,
    /// Relative standard deviation of the A columns' heights, averaged over neighbours: thickness, contamination.
    pub a_height_variation: f64,
    /// Mean of B minus its four A neighbours, `[x, y]`, pm.
    pub p_mean_pm: [f64; 2],
    /// Standard deviation of a component of P about the mean of the four nearest cells, pm.
    pub p_scatter_pm: f64,
    /// Standard deviation of the noise, from third differences along rows.
    pub noise: f64,
    /// Variance of the noise where the image is brightest over that where it is darkest (eighths of the pixels).
    pub noise_bright_to_dark: f64,
    /// Correlation of the noise of neighbouring pixels, from the spectrum between the reflections.
    pub noise_correlation: f64,
    /// Standard deviation of a line's displacement against the mean of its neighbours', along x, pm.
    pub jitter_pm: f64,
    /// The same across, of columns of pixels along y: what noise alone makes of it.
    pub jitter_across_pm: f64,
    /// Mean height against the distance from the column's centre.
    pub a_profile: Vec<ProfilePoint>,
    pub b_profile: Vec<ProfilePoint>,
    /// Power by spatial frequency.
    pub spectrum: Vec<SpectrumPoint>,
    /// Variance of the noise by brightness.
    pub noise_levels: Vec<NoiseLevel>,
}

/// An image that cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum RealismError {
    #[error("expected finite pixels, found {found} that are not")]
    NotFinite { found: usize },
    #[error(transparent)]
    NoLattice(#[from] CalibrationError),
    #[error("expected at least {MIN_COLUMNS} {what}, found {found}")]
    TooFew { what: &'static str, found: usize },
}

/// Measures `frame`, `[row, col]`, with square pixels of `pixel_size_pm`.
///
/// # Errors
/// [`RealismError`] when pixels are missing, or no perovskite is seen.
pub fn measure(frame: &Array2<f32>, pixel_size_pm: f64) -> Result<ImageStatistics, RealismError> {
    let not_finite = frame.iter().filter(|value| !value.is_finite()).count();
    if not_finite > 0 {
        return Err(RealismError::NotFinite { found: not_finite });
    }
    let lattice = estimate_lattice(frame, &Array2::from_elem(frame.dim(), true))?;
    let a = find_a_columns(frame, &lattice);
    enough("A columns", a.len())?;
    let cells = find_cells(frame, &a, &lattice);
    enough("unit cells", cells.len())?;
    let b: Vec<_> = cells.iter().map(|cell| cell.b).collect();

    let cell_px = lattice.cell_px();
    let below = background(frame, &a, &lattice);
    let raw = |columns: &[columns::Found]| profile(frame, columns, cell_px);
    let (a_raw, b_raw) = (raw(&a), raw(&b));
    let peak = a_raw.first().copied().unwrap_or(f64::NAN);
    let height = peak - below;
    let scaled = |raw: Vec<f64>| -> Vec<ProfilePoint> {
        let step_pm = profile::STEP_CELLS * cell_px * pixel_size_pm;
        let point = |(k, value): (usize, f64)| ProfilePoint {
            radius_pm: k as f64 * step_pm,
            height: (value - below) / height,
        };
        raw.into_iter().enumerate().map(point).collect()
    };
    let (a_profile, b_profile) = (scaled(a_raw), scaled(b_raw));
    let heights =
        |found: &[columns::Found]| found.iter().map(|f| (f.peak - below) / height).collect::<Vec<f64>>();
    let a_heights = mean_and_scatter(&a, &heights(&a), cell_px);
    let b_heights = mean_and_scatter(&b, &heights(&b), cell_px);
    let p = |axis: usize| -> Vec<f64> {
        cells.iter().map(|cell: &Cell| cell.p_px[axis] * pixel_size_pm).collect()
    };
    let [p_x, p_y] = [p(0), p(1)].map(|p| mean_and_scatter(&b, &p, cell_px));

    let levels = noise_levels(frame, below, height);
    let variance = |level: Option<&NoiseLevel>| level.map_or(f64::NAN, |level| level.variance);
    let mut variances: Vec<f64> = levels.iter().map(|level| level.variance).collect();
    variances.sort_by(f64::total_cmp);
    let spectrum = radial_spectrum(frame, pixel_size_pm, height);
    let [a_px, b_px] = [lattice.a_px, lattice.b_px].map(|edge| edge[0].hypot(edge[1]));
    Ok(ImageStatistics {
        shape: [frame.nrows(), frame.ncols()],
        pixel_size_pm,
        cell_a_pm: a_px * pixel_size_pm,
        cell_b_pm: b_px * pixel_size_pm,
        a_columns: a.len(),
        cells: cells.len(),
        peak_to_background: peak / below,
        b_height: b_profile.first().map_or(f64::NAN, |point| point.height),
        a_fwhm_pm: full_width(&a_profile),
        b_fwhm_pm: full_width(&b_profile),
        a_height_scatter: a_heights.scatter / a_heights.mean,
        b_height_scatter: b_heights.scatter / b_heights.mean,
        a_height_variation: a_heights.variation / a_heights.mean,
        p_mean_pm: [p_x.mean, p_y.mean],
        p_scatter_pm: (0.5 * (p_x.scatter.powi(2) + p_y.scatter.powi(2))).sqrt(),
        noise: variances.get(variances.len() / 2).map_or(f64::NAN, |variance| variance.sqrt()),
        noise_bright_to_dark: variance(levels.last()) / variance(levels.first()),
        noise_correlation: correlation_of_neighbours(&spectrum, cell_px),
        jitter_pm: jitter_px(frame, cell_px) * pixel_size_pm,
        jitter_across_pm: jitter_px(&frame.t().to_owned(), cell_px) * pixel_size_pm,
        a_profile,
        b_profile,
        spectrum,
        noise_levels: levels,
    })
}

fn enough(what: &'static str, found: usize) -> Result<(), RealismError> {
    if found < MIN_COLUMNS { Err(RealismError::TooFew { what, found }) } else { Ok(()) }
}
