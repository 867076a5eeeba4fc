//! The columns of an image without a network: the brightest spots a lattice apart, and what stands between four of them.

use crate::columns::{Neighbours, fit_gaussian};
use crate::preprocess::LatticeEstimate;
use crate::simulate::detector::smooth;
use ndarray::Array2;
use rayon::prelude::*;
use std::num::NonZeroUsize;

/// Lengths in units of the cell's edge.
mod cells {
    /// Standard deviation of the smoothing before spots are looked for.
    pub const SMOOTHING: f64 = 0.12;
    /// A brighter spot within this suppresses one: more than to the nearest B column, less than to the next A column.
    pub const APART: f64 = 0.8;
    /// Nearer to the edge than this, a column is cut.
    pub const EDGE: f64 = 0.6;
    /// Half the side of the box that a Gaussian is fitted in.
    pub const BOX: f64 = 0.2;
    /// How far a column may lie from where the lattice has it.
    pub const STRAY: f64 = 0.25;
}

/// A column, frame pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    pub row: f64,
    pub col: f64,
    /// Pixel value at its centre.
    pub peak: f64,
}

/// A B column within four A columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cell {
    pub b: Found,
    /// B minus the mean of the four, `[x, y]`, pixels.
    pub p_px: [f64; 2],
}

impl Found {
    fn at(&self) -> [f64; 2] {
        [self.row, self.col]
    }
}

/// The A columns, but for those at the edge.
pub(super) fn find_a_columns(frame: &Array2<f32>, lattice: &LatticeEstimate) -> Vec<Found> {
    let cell_px = lattice.cell_px();
    let mut smoothed = frame.clone();
    smooth(&mut smoothed, cells::SMOOTHING * cell_px);
    let (rows, cols) = frame.dim();
    let mut spots: Vec<([usize; 2], f32)> = (1..rows.saturating_sub(1))
        .flat_map(|row| (1..cols.saturating_sub(1)).map(move |col| [row, col]))
        .filter_map(|[row, col]| {
            let value = smoothed[[row, col]];
            let brightest = (row - 1..=row + 1)
                .flat_map(|r| (col - 1..=col + 1).map(move |c| [r, c]))
                .all(|around| smoothed[around] <= value);
            brightest.then_some(([row, col], value))
        })
        .collect();
    spots.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let apart_px = cells::APART * cell_px;
    let mut kept = Sparse::new([rows, cols], apart_px);
    for ([row, col], _) in spots {
        kept.keep_if_apart([row as f64, col as f64]);
    }
    let edge_px = cells::EDGE * cell_px;
    let inside = |[row, col]: &[f64; 2]| {
        let within = |v: f64, len: usize| (edge_px..=len as f64 - 1.0 - edge_px).contains(&v);
        within(*row, rows) && within(*col, cols)
    };
    let inside: Vec<[f64; 2]> = kept.points.into_iter().filter(inside).collect();
    inside.par_iter().filter_map(|at| fitted(frame, *at, cell_px)).collect()
}

/// Points no nearer to each other than a distance, found again by the square that they lie in.
struct Sparse {
    points: Vec<[f64; 2]>,
    squares: Array2<Vec<usize>>,
    apart_px: f64,
}

impl Sparse {
    fn new([rows, cols]: [usize; 2], apart_px: f64) -> Self {
        let count = |len: usize| (len as f64 / apart_px) as usize + 1;
        Self { points: Vec::new(), squares: Array2::default((count(rows), count(cols))), apart_px }
    }

    fn keep_if_apart(&mut self, point: [f64; 2]) {
        let [i, j] = point.map(|v| (v / self.apart_px) as usize);
        let near = |&other: &usize| {
            let [row, col] = self.points[other];
            (row - point[0]).hypot(col - point[1]) < self.apart_px
        };
        let around =
            (i.saturating_sub(1)..=i + 1).flat_map(|a| (j.saturating_sub(1)..=j + 1).map(move |b| [a, b]));
        let crowded = around.filter_map(|square| self.squares.get(square)).flatten().any(near);
        if !crowded && let Some(square) = self.squares.get_mut([i, j]) {
            square.push(self.points.len());
            self.points.push(point);
        }
    }
}

/// The column near `at`, by a Gaussian fit.
fn fitted(frame: &Array2<f32>, at: [f64; 2], cell_px: f64) -> Option<Found> {
    let fit = fit_gaussian(frame, at, (cells::BOX * cell_px).max(2.0))?;
    let stray = (fit.row - at[0]).hypot(fit.col - at[1]) > cells::STRAY * cell_px;
    (!stray).then_some(Found { row: fit.row, col: fit.col, peak: fit.amplitude + fit.background })
}

/// The B columns that stand within four A columns.
pub(super) fn find_cells(frame: &Array2<f32>, a: &[Found], lattice: &LatticeEstimate) -> Vec<Cell> {
    let points: Vec<[f64; 2]> = a.iter().map(Found::at).collect();
    let tree = Neighbours::new(&points);
    let cell_px = lattice.cell_px();
    let ([ar, ac], [br, bc]) = (lattice.a_px, lattice.b_px);
    points
        .par_iter()
        .filter_map(|&[row, col]| {
            let steps = [[ar, ac], [br, bc], [ar + br, ac + bc]];
            let mut sum = [row, col];
            for [down, right] in steps {
                let (other, _) = tree.nearest([row + down, col + right], cells::STRAY * cell_px)?;
                let [r, c] = points[other];
                sum = [sum[0] + r, sum[1] + c];
            }
            let middle = sum.map(|s| 0.25 * s);
            let b = fitted(frame, middle, cell_px)?;
            Some(Cell { b, p_px: [b.col - middle[1], b.row - middle[0]] })
        })
        .collect()
}

/// Moments of a quantity over the columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moments {
    pub mean: f64,
    /// Standard deviation about the mean of the nearest four, corrected for the scatter of those.
    pub scatter: f64,
    /// Standard deviation of the mean over a column and its nearest four, less what scatter leaves in it.
    pub variation: f64,
}

/// `values`, one a column: NaN where there are too few columns.
pub(super) fn mean_and_scatter(columns: &[Found], values: &[f64], cell_px: f64) -> Moments {
    let points: Vec<[f64; 2]> = columns.iter().map(Found::at).collect();
    let tree = Neighbours::new(&points);
    let five = NonZeroUsize::MIN.saturating_add(4);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let (mut about, mut smoothed) = (Vec::new(), Vec::new());
    for (index, point) in points.iter().enumerate() {
        let near = tree.nearest_n(*point, five, 1.5 * cell_px);
        // A column at the edge has its neighbours on one side.
        if near.len() < 5 {
            continue;
        }
        let own = values[index];
        let around: f64 =
            near.iter().filter(|(other, _)| *other != index).map(|(other, _)| values[*other]).sum::<f64>()
                / 4.0;
        about.push(own - around);
        smoothed.push((4.0 * around + own) / 5.0);
    }
    let scatter = deviation(&about) / 1.25_f64.sqrt();
    let variation = (deviation(&smoothed).powi(2) - scatter.powi(2) / 5.0).max(0.0).sqrt();
    Moments { mean, scatter, variation }
}

fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt()
}
