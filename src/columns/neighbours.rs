//! Nearest neighbours among points of a plane.

use kiddo::{ImmutableKdTree, SquaredEuclidean};
use std::num::NonZeroUsize;

/// A KD-tree over points of two finite coordinates; answers with indices into them.
pub(crate) struct Neighbours {
    /// `None` without points.
    tree: Option<ImmutableKdTree<f64, 2>>,
}

impl Neighbours {
    /// Points with a NaN or infinite coordinate are nobody's neighbour.
    pub(crate) fn new(points: &[[f64; 2]]) -> Self {
        debug_assert!(points.iter().flatten().all(|coordinate| coordinate.is_finite()));
        if points.is_empty() {
            return Self { tree: None };
        }
        // Fails only for more than 2³² points, which no frame has pixels for.
        Self { tree: ImmutableKdTree::new_from_slice(points).ok() }
    }

    /// The index of the nearest point to `at` and its distance, if one lies within `bound`.
    pub(crate) fn nearest(&self, at: [f64; 2], bound: f64) -> Option<(usize, f64)> {
        self.nearest_n(at, NonZeroUsize::MIN, bound).into_iter().next()
    }

    /// Up to `count` points within `bound` of `at`, nearest first, with their distances.
    pub(crate) fn nearest_n(&self, at: [f64; 2], count: NonZeroUsize, bound: f64) -> Vec<(usize, f64)> {
        let Some(tree) = &self.tree else { return Vec::new() };
        tree.query(&at)
            .nearest_n::<SquaredEuclidean<f64>>(count)
            .within(bound * bound)
            .execute()
            .into_iter()
            .map(|found| (found.item as usize, found.distance.sqrt()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_brute_force(
            points in prop::collection::vec([0_u8..30, 0_u8..30], 0..200),
            at in [0.0_f64..30.0, 0.0_f64..30.0],
            bound in 0.5_f64..20.0,
        ) {
            // Small integers: many points share a coordinate, as on a perfect lattice.
            let points: Vec<[f64; 2]> = points.iter().map(|point| point.map(f64::from)).collect();
            let mut expected: Vec<f64> =
                points.iter().map(|p| (p[0] - at[0]).hypot(p[1] - at[1])).filter(|&d| d <= bound).collect();
            expected.sort_by(f64::total_cmp);
            expected.truncate(5);
            let tree = Neighbours::new(&points);
            let got = tree.nearest_n(at, NonZeroUsize::new(5).unwrap(), bound);
            prop_assert_eq!(got.len(), expected.len());
            for (&(index, distance), expected) in got.iter().zip(&expected) {
                prop_assert!((distance - expected).abs() < 1e-9);
                prop_assert!(((points[index][0] - at[0]).hypot(points[index][1] - at[1]) - distance).abs() < 1e-9);
            }
            let nearest = tree.nearest(at, bound).map(|(_, distance)| distance);
            prop_assert_eq!(nearest.is_some(), !expected.is_empty());
        }
    }
}
