//! The lattice that columns stand in.

use super::Neighbours;
use crate::frame::{Column, Sublattice};
use crate::preprocess::{LatticeEstimate, median};
use std::f64::consts::FRAC_PI_2;
use std::num::NonZeroUsize;

/// Neighbours of its own sublattice that each column is asked for, itself included.
const ASKED: usize = 5;
/// Fewer steps from column to column are no lattice.
const LEAST_STEPS: usize = 8;
/// How far a neighbour may be from where the lattice puts it, in cell edges.
const NEIGHBOUR_CELLS: f64 = 0.24;
/// Part of the steps that the lattice has to explain.
const LEAST_EXPLAINED: f64 = 0.5;

/// The lattice vectors, by the median of the steps from each A column to its nearest ones; `None` where there are too few, or most are
/// elsewhere.
pub(super) fn lattice_of(columns: &[Column]) -> Option<LatticeEstimate> {
    let points: Vec<[f64; 2]> = columns
        .iter()
        .filter(|column| column.sublattice == Sublattice::A)
        .map(|column| [column.row, column.col])
        .collect();
    let tree = Neighbours::new(&points);
    let asked = NonZeroUsize::new(ASKED)?;
    let steps: Vec<[f64; 2]> = points
        .iter()
        .flat_map(|&from| {
            let near = tree.nearest_n(from, asked, f64::MAX.sqrt());
            near.into_iter().map(move |(to, _)| (from, to)).collect::<Vec<_>>()
        })
        .filter_map(|(from, to)| points.get(to).map(|to| [to[0] - from[0], to[1] - from[1]]))
        .filter(|step| step[0].hypot(step[1]) > 0.0)
        .collect();
    if steps.len() < LEAST_STEPS {
        return None;
    }
    // The nearest are an edge away, the others up to a diagonal.
    let edge = median(steps.iter().map(|step| step[0].hypot(step[1])), f64::total_cmp)?;
    let edges = || steps.iter().filter(|step| (step[0].hypot(step[1]) / edge - 1.0).abs() < NEIGHBOUR_CELLS);
    // Directions a quarter turn apart are one.
    let (sin, cos) = edges()
        .map(|step| (4.0 * step[0].atan2(step[1])).sin_cos())
        .fold((0.0, 0.0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    let direction = 0.25 * sin.atan2(cos);
    let along = |angle: f64| {
        let (sin, cos) = angle.sin_cos();
        let forward = |step: &[f64; 2]| step[0] * sin + step[1] * cos;
        let these: Vec<[f64; 2]> = edges()
            .filter(|step| forward(step).abs() > 0.5 * 2.0_f64.sqrt() * edge)
            .map(|step| step.map(|x| x * forward(step).signum()))
            .collect();
        let [row, col] = [0, 1].map(|axis| median(these.iter().map(|step| step[axis]), f64::total_cmp));
        Some([row?, col?])
    };
    let (a_px, b_px) = (along(direction)?, along(direction + FRAC_PI_2)?);
    let known = [a_px, b_px, a_px.map(|x| -x), b_px.map(|x| -x)];
    let explains = |step: &[f64; 2]| {
        known.iter().any(|known| (known[0] - step[0]).hypot(known[1] - step[1]) < NEIGHBOUR_CELLS * edge)
    };
    let explained = steps.iter().filter(|step| explains(step)).count() as f64 / steps.len() as f64;
    let angle_rad = b_px[0].atan2(b_px[1]) - a_px[0].atan2(a_px[1]);
    (explained >= LEAST_EXPLAINED).then_some(LatticeEstimate { a_px, b_px, angle_rad, explained })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turned_and_sheared_lattice_is_found_with_columns_missing() {
        let (a, b) = ([4.0, 25.0], [26.0, -3.0]);
        let columns: Vec<Column> = (0..10)
            .flat_map(|i| (0..10).map(move |j| (i, j)))
            .filter(|(i, j)| (i * 10 + j) % 7 != 0)
            .map(|(i, j)| {
                let [row, col] = [0, 1].map(|k: usize| 50.0 + f64::from(i) * a[k] + f64::from(j) * b[k]);
                Column { row, col, sublattice: Sublattice::A, confidence: 1.0 }
            })
            .collect();
        let lattice = lattice_of(&columns).unwrap();
        let same = |found: [f64; 2], edge: [f64; 2]| {
            [1.0, -1.0].iter().any(|sign| (0..2).all(|k| (found[k] - sign * edge[k]).abs() < 1e-9))
        };
        assert!(same(lattice.a_px, a) && same(lattice.b_px, b), "{lattice:?}");
        assert!(lattice.explained > 0.5, "{lattice:?}");
        assert_eq!(lattice_of(&columns[..1]), None);
    }
}
