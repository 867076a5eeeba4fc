//! What of each variant a place sees. P passes from domain to domain over a wall's width, so that the mean P of a small domain lies
//! away from its variant, towards its neighbours': unless that is reckoned with, it passes for an offset.
//!
//! P across a wall is that of a step between the two variants, smoothed: each window is counted to the variant that its P is nearest to,
//! and what a place sees is the average of that over the wall's width.

use super::field::{Sample, Variants};
use nalgebra::Vector2;
use ndarray::{Array2, ArrayView1, ArrayViewMut1, Axis};

/// Standard deviation of the average, pm. A wall's profile tanh(s / ξ) is a step smoothed by a curve of standard deviation
/// `π ξ / √12`, 363 pm for the usual ξ of 400 pm; that of the cells that a window's P is the mean of is 170 pm.
const WIDTH_PM: f64 = 400.0;
/// How far the average reaches, in its standard deviations.
const REACH: f64 = 3.0;

/// All windows that were measured, those on walls among them.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// `[window row, window col]`.
    pub samples: Array2<Option<Sample>>,
    /// Between rows and between columns.
    pub step_pm: [f64; 2],
}

/// Shares of the variants that each window sees.
#[derive(Debug, Default)]
pub(super) struct Blend {
    /// One map a variant, `[window row, window col]`; they add up to 1.
    shares: Vec<Array2<f64>>,
}

impl Windows {
    /// `centres`: where each variant is expected in a tile; `held`: whether any P belongs to it.
    pub fn blend(
        &self,
        variants: &Variants,
        held: impl Fn(usize) -> bool,
        centres: &[Vec<Vector2<f64>>],
    ) -> Blend {
        let dim = self.samples.dim();
        let mut shares = vec![Array2::zeros(dim); variants.all.len()];
        for (at, sample) in self.samples.indexed_iter() {
            let Some(sample) = sample else { continue };
            let nearest = match (sample.reference, variants.none()) {
                (true, Some(none)) => Some(none),
                _ => centres.get(sample.tile).and_then(|centres| nearest(&sample.p, centres, &held)),
            };
            if let Some(share) = nearest.and_then(|k| shares.get_mut(k)).and_then(|map| map.get_mut(at)) {
                *share = 1.0;
            }
        }
        for map in &mut shares {
            for (axis, step_pm) in self.step_pm.iter().enumerate() {
                *map = smoothed(map, Axis(axis), WIDTH_PM / step_pm);
            }
        }
        let total = shares.iter().fold(Array2::zeros(dim), |total: Array2<f64>, map| total + map);
        shares.iter_mut().for_each(|map| *map /= &total);
        Blend { shares }
    }
}

impl Blend {
    /// Share of each variant in what a window sees; `None` where no window near it was measured.
    pub fn at(&self, window: [usize; 2]) -> Option<Vec<f64>> {
        let shares: Vec<f64> = self.shares.iter().filter_map(|map| map.get(window).copied()).collect();
        (!shares.is_empty() && shares.iter().all(|share| share.is_finite())).then_some(shares)
    }
}

/// The variant whose centre is nearest to `p`.
pub(super) fn nearest(
    p: &Vector2<f64>,
    centres: &[Vector2<f64>],
    held: impl Fn(usize) -> bool,
) -> Option<usize> {
    let near = |k: &usize| centres.get(*k).map_or(f64::INFINITY, |centre| (p - centre).norm_squared());
    (0..centres.len()).filter(|k| held(*k)).min_by(|a, b| near(a).total_cmp(&near(b)))
}

/// Under a Gaussian of `width` steps along one axis; nothing lies beyond the edges.
fn smoothed(map: &Array2<f64>, axis: Axis, width: f64) -> Array2<f64> {
    let mut smooth = Array2::zeros(map.dim());
    let length = map.len_of(axis) as isize;
    let reach = ((REACH * width).ceil() as isize).min(length - 1);
    for away in -reach..=reach {
        let weight = (-0.5 * (away as f64 / width).powi(2)).exp();
        for to in (-away).max(0)..(length - away).min(length) {
            let from: ArrayView1<'_, f64> = map.index_axis(axis, (to + away) as usize);
            let mut onto: ArrayViewMut1<'_, f64> = smooth.index_axis_mut(axis, to as usize);
            onto.scaled_add(weight, &from);
        }
    }
    smooth
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: f64 = 30.0;

    /// Windows 120 pm apart whose P along x is `p` of their distance from the middle, pm.
    fn windows(p: impl Fn(f64) -> f64) -> Windows {
        let samples = Array2::from_shape_fn((41, 41), |(i, j)| {
            let p = Vector2::new(p(120.0 * (j as f64 - 20.0)), 0.0);
            Some(Sample { tile: 0, p, reference: false, window: Some([i, j]) })
        });
        Windows { samples, step_pm: [120.0; 2] }
    }

    #[test]
    fn a_wall_is_seen_as_the_tanh_that_it_is() {
        let wall = |s: f64| P * (s / 400.0).tanh();
        let variants = Variants::new(vec![Vector2::new(1.0, 0.0), Vector2::new(-1.0, 0.0), Vector2::zeros()]);
        let centres = [variants.all.iter().map(|v| v * P).collect::<Vec<_>>()];
        let blend = windows(|s| wall(s - 1.0)).blend(&variants, |k| k < 2, &centres);
        for j in 0..41 {
            let shares = blend.at([20, j]).unwrap();
            let s = 120.0 * (j as f64 - 20.0);
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9 && shares[2] == 0.0);
            // The step lies between two windows. A Gaussian falls off otherwise than the curve of a tanh, and the mean of cells blurs.
            assert!(((shares[0] - shares[1]) * P - wall(s - 60.0)).abs() < 0.1 * P, "{s}: {shares:?}");
        }
    }

    #[test]
    fn where_nothing_was_measured_nothing_is_seen() {
        let mut windows = windows(|_| P);
        windows.samples.fill(None);
        let variants = Variants::new(vec![Vector2::new(1.0, 0.0), Vector2::zeros()]);
        assert!(windows.blend(&variants, |_| true, std::slice::from_ref(&variants.all)).at([3, 3]).is_none());
        assert!(Blend::default().at([0, 0]).is_none());
    }
}
