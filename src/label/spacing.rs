//! How far the columns of a sublattice are from evenly spaced: an upper bound of the error of their positions.

use super::LabelledColumn;
use crate::columns::{Neighbours, steps};
use crate::frame::Sublattice;
use crate::preprocess::LatticeEstimate;

/// How far a neighbour may be from where the lattice puts it, in cell edges.
const NEIGHBOUR_CELLS: f64 = 0.3;

/// The spacing of one sublattice.
#[derive(Debug, Clone, PartialEq)]
pub struct SpacingDeviation {
    /// For each position: root mean square of the deviations of its distances; NaN with fewer than two neighbours.
    pub of_column_pm: Vec<f64>,
    /// Over all pairs of neighbours; NaN without any.
    pub rms_pm: f64,
}

/// Distances between neighbours along a and along b, each less its mean over the frame.
///
/// # Shapes
/// `positions` `[row, col]` in frame pixels, of one sublattice.
pub fn spacing_deviation(
    positions: &[[f64; 2]],
    lattice: &LatticeEstimate,
    pixel_size_pm: [f64; 2],
) -> SpacingDeviation {
    let tree = Neighbours::new(positions);
    let bound = NEIGHBOUR_CELLS * lattice.cell_px();
    let [like, _] = steps(lattice);
    // Every pair once: forward along a, and along b.
    let pairs: [Vec<(usize, usize, f64)>; 2] = [like[0], like[2]].map(|step| {
        let neighbour = |(from, at): (usize, &[f64; 2])| {
            let (to, _) = tree.nearest([at[0] + step[0], at[1] + step[1]], bound)?;
            let other = positions.get(to)?;
            let length = (pixel_size_pm[0] * (other[0] - at[0])).hypot(pixel_size_pm[1] * (other[1] - at[1]));
            (from != to).then_some((from, to, length))
        };
        positions.iter().enumerate().filter_map(neighbour).collect()
    });
    let mut squares = vec![(0.0, 0_usize); positions.len()];
    let (mut sum, mut count) = (0.0, 0_usize);
    for pairs in &pairs {
        let mean = pairs.iter().map(|pair| pair.2).sum::<f64>() / pairs.len().max(1) as f64;
        for &(from, to, length) in pairs {
            let square = (length - mean).powi(2);
            (sum, count) = (sum + square, count + 1);
            for end in [from, to] {
                squares[end].0 += square;
                squares[end].1 += 1;
            }
        }
    }
    let root = |sum: f64, count: usize, least: usize| {
        if count >= least { (sum / count as f64).sqrt() } else { f64::NAN }
    };
    SpacingDeviation {
        of_column_pm: squares.into_iter().map(|(sum, count)| root(sum, count, 2)).collect(),
        rms_pm: root(sum, count, 1),
    }
}

/// Fills in the deviations of the columns of one sublattice and returns that of all.
pub(super) fn fill(
    columns: &mut [LabelledColumn],
    sublattice: Sublattice,
    lattice: &LatticeEstimate,
    pixel_size_pm: [f64; 2],
) -> f64 {
    let mut of: Vec<&mut LabelledColumn> =
        columns.iter_mut().filter(|c| c.sublattice == sublattice).collect();
    let positions: Vec<[f64; 2]> = of.iter().map(|column| [column.fit.row, column.fit.col]).collect();
    let deviation = spacing_deviation(&positions, lattice, pixel_size_pm);
    for (column, value) in of.iter_mut().zip(deviation.of_column_pm) {
        column.spacing_deviation_pm = value;
    }
    deviation.rms_pm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_worked_row() {
        // Four columns in a row, 10, 11 and 9 px apart: 100, 110, 90 pm at 10 pm a pixel.
        let positions = [[0.0, 0.0], [0.0, 10.0], [0.0, 21.0], [0.0, 30.0]];
        let lattice = LatticeEstimate {
            a_px: [0.0, 10.0],
            b_px: [10.0, 0.0],
            angle_rad: std::f64::consts::FRAC_PI_2,
            explained: 1.0,
        };
        let found = spacing_deviation(&positions, &lattice, [20.0, 10.0]);
        assert!((found.rms_pm - (200.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert!(found.of_column_pm[0].is_nan() && found.of_column_pm[3].is_nan());
        assert!((found.of_column_pm[1] - 50.0_f64.sqrt()).abs() < 1e-9);
        assert!((found.of_column_pm[2] - 10.0).abs() < 1e-9);
        assert!(spacing_deviation(&[], &lattice, [10.0, 10.0]).rms_pm.is_nan());
    }
}
