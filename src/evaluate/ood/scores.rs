//! The scores that are compared, and what some of them must know of usual windows.

use super::super::EvaluateError;
use crate::frame::grid_centre;
use crate::networks::{FeatureStatistics, is_measured};
use crate::pipeline::Observed;
use crate::polarization::sample_on_grid;
use crate::simulate::Truth;
use kiddo::{ImmutableKdTree, SquaredEuclidean};
use nalgebra::{DMatrix, DVector};
use ndarray::{Array2, ArrayView1, Axis};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::num::NonZeroUsize;

/// Their names, in the order of [`Scores::of`].
pub const SCORES: [&str; 14] = [
    "shipped",
    "Mahalanobis",
    "surroundings",
    "neighbours",
    "PCA residual",
    "sigma",
    "sigma around",
    "cell around",
    "area",
    "contradiction",
    "contradiction around",
    "smoothness",
    "heads",
    "1 - softmax",
];

/// Principal components that neighbours are looked for in, and that reconstruct a window.
const PRINCIPAL: usize = 16;
/// The distance to this neighbour counts.
const NEIGHBOUR: NonZeroUsize = match NonZeroUsize::new(5) {
    Some(number) => number,
    None => NonZeroUsize::MIN,
};
/// Usual windows to look for neighbours among, at most.
const MOST_NEIGHBOURS: usize = 20_000;
/// Linear heads, each fitted to a bootstrap of the frames, and their ridge, as a part of the features' variance.
const HEADS: usize = 10;
const HEAD_RIDGE: f64 = 1e-2;
/// A window learns from a cell no farther, pm.
const SAME_CELL_PM: f64 = 285.0;
/// Half the side of the square around a window's centre over which the FCNN's doubt is averaged, pm: half a unit cell.
const AROUND_PM: f64 = 200.0;

/// What [`Scores`] are fitted to.
#[derive(Debug, Default)]
pub struct UsualWindows {
    /// One matrix a frame, `[component, window]`.
    frames: Vec<DMatrix<f64>>,
    /// P of the cell at each window, `[axis, window]`; NaN where there is none.
    targets: Vec<DMatrix<f64>>,
}

impl UsualWindows {
    /// Adds a frame without anomaly.
    pub fn add(&mut self, observed: &Observed, truth: &Truth, pixel_sizes_pm: [f64; 2]) {
        let Some(maps) = &observed.maps else { return };
        let cells: Vec<_> = truth.cells.iter().map(|cell| cell.as_measured()).collect();
        let nearest = sample_on_grid(&cells, &observed.grid, pixel_sizes_pm, SAME_CELL_PM);
        let mut columns: Vec<DVector<f64>> = Vec::new();
        let mut targets: Vec<DVector<f64>> = Vec::new();
        for (window, index) in maps.features.lanes(Axis(2)).into_iter().zip(&nearest) {
            if !is_measured(&window) {
                continue;
            }
            columns.push(vector(&window));
            let cell = index.and_then(|index| cells.get(index));
            targets.push(cell.map_or_else(
                || DVector::from_element(2, f64::NAN),
                |cell| DVector::from_vec(vec![cell.p_x, cell.p_y]),
            ));
        }
        if !columns.is_empty() {
            self.frames.push(DMatrix::from_columns(&columns));
            self.targets.push(DMatrix::from_columns(&targets));
        }
    }
}

/// Everything that the scores need.
pub struct Scores<'a> {
    statistics: &'a FeatureStatistics,
    /// From components to standardised features, `[channel, component]`.
    standardised: DMatrix<f64>,
    /// From components to principal components, `[principal, component]`.
    principal: DMatrix<f64>,
    neighbours: Option<ImmutableKdTree<f64, PRINCIPAL>>,
    /// `[axis, component]` of each head; without intercept, since components have mean 0 and so has P.
    heads: Vec<DMatrix<f64>>,
}

impl<'a> Scores<'a> {
    /// # Errors
    /// When the statistics cannot be inverted.
    pub fn fit(
        statistics: &'a FeatureStatistics,
        usual: &UsualWindows,
        seed: u64,
    ) -> Result<Self, EvaluateError> {
        let count = statistics.mean.len();
        let whitening =
            DMatrix::from_row_iterator(count, count, statistics.whitening.iter().map(|&w| f64::from(w)));
        let singular = || EvaluateError::Frame("the feature statistics are singular".to_owned());
        let inverse = whitening.try_inverse().ok_or_else(singular)?;
        let deviations = DVector::from_iterator(count, inverse.row_iter().map(|row| row.norm()));
        let standardised = DMatrix::from_diagonal(&deviations.map(f64::recip)) * inverse;
        let axes = (&standardised * standardised.transpose()).symmetric_eigen();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| axes.eigenvalues[b].total_cmp(&axes.eigenvalues[a]));
        let leading: Vec<_> =
            order.iter().take(PRINCIPAL).map(|&k| axes.eigenvectors.column(k).transpose()).collect();
        let principal = DMatrix::from_rows(&leading) * &standardised;
        let neighbours = neighbours(&principal, usual);
        let heads = heads(usual, seed);
        Ok(Self { statistics, standardised, principal, neighbours, heads })
    }

    /// The scores of every window, higher is stranger, in the order of [`SCORES`]; NaN where a window was not measured.
    pub fn of(&self, observed: &Observed) -> Vec<Array2<f32>> {
        let Some(maps) = &observed.maps else { return Vec::new() };
        let unusual = self.statistics.judge(maps, observed.sampling);
        let mut parts = unusual.scores.parts.into_iter();
        let by_window = |score: &dyn Fn(&DVector<f64>) -> f64| {
            Array2::from_shape_vec(
                maps.p_x.dim(),
                maps.features
                    .lanes(Axis(2))
                    .into_iter()
                    .map(
                        |window| if is_measured(&window) { score(&vector(&window)) as f32 } else { f32::NAN },
                    )
                    .collect(),
            )
            .unwrap_or_default()
        };
        let mut scores = vec![unusual.strangeness];
        scores.extend(parts.by_ref().take(2));
        scores.push(by_window(&|window| self.to_neighbour(window)));
        scores.push(by_window(&|window| {
            (&self.standardised * window).norm_squared() - (&self.principal * window).norm_squared()
        }));
        scores.extend(parts);
        scores.push(by_window(&|window| self.disagreement(window)));
        scores.push(doubt(observed));
        scores
    }

    fn to_neighbour(&self, window: &DVector<f64>) -> f64 {
        let at = principal_point(&self.principal, window);
        let found = self
            .neighbours
            .as_ref()
            .map(|tree| tree.query(&at).nearest_n::<SquaredEuclidean<f64>>(NEIGHBOUR).execute());
        found.and_then(|found| found.last().map(|last| last.distance.sqrt())).unwrap_or(f64::NAN)
    }

    /// Standard deviation of the heads' answers, both components of P together.
    fn disagreement(&self, window: &DVector<f64>) -> f64 {
        let answers: Vec<DVector<f64>> = self.heads.iter().map(|head| head * window).collect();
        let count = answers.len() as f64;
        let mean = answers.iter().fold(DVector::zeros(2), |sum, answer| sum + answer) / count;
        (answers.iter().map(|answer| (answer - &mean).norm_squared()).sum::<f64>() / count).sqrt()
    }
}

fn vector(window: &ArrayView1<'_, f32>) -> DVector<f64> {
    DVector::from_iterator(window.len(), window.iter().map(|&value| f64::from(value)))
}

fn principal_point(principal: &DMatrix<f64>, window: &DVector<f64>) -> [f64; PRINCIPAL] {
    let projected = principal * window;
    std::array::from_fn(|axis| projected.get(axis).copied().unwrap_or(0.0))
}

fn neighbours(principal: &DMatrix<f64>, usual: &UsualWindows) -> Option<ImmutableKdTree<f64, PRINCIPAL>> {
    let windows: usize = usual.frames.iter().map(DMatrix::ncols).sum();
    let every = windows.div_ceil(MOST_NEIGHBOURS).max(1);
    let columns = usual.frames.iter().flat_map(|frame| frame.column_iter());
    let points: Vec<[f64; PRINCIPAL]> =
        columns.step_by(every).map(|window| principal_point(principal, &window.into_owned())).collect();
    if points.is_empty() { None } else { ImmutableKdTree::new_from_slice(&points).ok() }
}

/// Ridge regressions of P on the components, each on frames drawn with replacement.
fn heads(usual: &UsualWindows, seed: u64) -> Vec<DMatrix<f64>> {
    let moments: Vec<[DMatrix<f64>; 2]> = usual
        .frames
        .iter()
        .zip(&usual.targets)
        .filter_map(|(windows, targets)| {
            let known: Vec<usize> = (0..windows.ncols()).filter(|&n| targets[(0, n)].is_finite()).collect();
            if known.is_empty() {
                return None;
            }
            let (windows, targets) = (windows.select_columns(&known), targets.select_columns(&known));
            Some([&windows * windows.transpose(), targets * windows.transpose()])
        })
        .collect();
    let Some([first, target]) = moments.first() else { return Vec::new() };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..HEADS)
        .filter_map(|_| {
            let mut square = DMatrix::zeros(first.nrows(), first.ncols());
            let mut mixed = DMatrix::zeros(target.nrows(), target.ncols());
            for _ in 0..moments.len() {
                let [of_windows, with_targets] = &moments[rng.random_range(0..moments.len())];
                square += of_windows;
                mixed += with_targets;
            }
            let ridge = HEAD_RIDGE * square.trace() / square.nrows() as f64;
            for i in 0..square.nrows() {
                square[(i, i)] += ridge;
            }
            Some(square.cholesky()?.solve(&mixed.transpose()).transpose())
        })
        .collect()
}

/// 1 minus the largest class probability of the FCNN, mean over a unit cell around each window's centre.
fn doubt(observed: &Observed) -> Array2<f32> {
    let (rows, cols) = observed.maps.as_ref().map_or((0, 0), |maps| maps.p_x.dim());
    let Some((probability, map)) = &observed.probability else {
        return Array2::from_elem((rows, cols), f32::NAN);
    };
    let largest = probability.fold_axis(Axis(0), 0.0f32, |a, b| a.max(*b));
    let grid = &observed.grid;
    // The step of the windows in pm and in pixels of the FCNN's image give its pixel size.
    let (top, _) = map.frame_to_model(grid.row0, grid.col0);
    let (below, _) = map.frame_to_model(grid.row0 + grid.step_row, grid.col0);
    let half = (AROUND_PM / observed.sampling.step_pm[0] * (below - top)).round();
    Array2::from_shape_fn((rows, cols), |(i, j)| {
        let centre = grid_centre(grid, i, j);
        let (row, col) = map.frame_to_model(centre.row, centre.col);
        let span = |at: f64, size: usize| {
            let first = (at - half).round().max(0.0) as usize;
            first.min(size)..((at + half).round().max(0.0) as usize + 1).min(size)
        };
        let part = largest.slice(ndarray::s![span(row, largest.nrows()), span(col, largest.ncols())]);
        part.mean().map_or(f32::NAN, |mean| 1.0 - mean)
    })
}
