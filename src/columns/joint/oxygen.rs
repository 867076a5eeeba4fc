//! The oxygen columns between the A columns: HAADF hardly shows them, but their light draws the dim B columns toward them.

use super::{Kind, Model, Spot};
use crate::columns::Neighbours;

/// Height over that of the A columns beside it: where fits start, the least, so that there is something to scale, and the most.
const START: f64 = 0.03;
pub(super) const LEAST_OXYGEN: f64 = 1e-4;
pub(super) const MOST_OXYGEN: f64 = 0.3;
/// How far a neighbour may be from where the lattice puts it, in cell edges.
const NEIGHBOUR_CELLS: f64 = 0.24;

/// What is known of oxygen; nothing where none was added.
#[derive(Debug, Default)]
pub(super) struct Oxygen {
    /// Height over the mean of the two A columns that each lies between.
    pub(super) height: f64,
    /// The indices of these, of the last spots.
    pub(super) between: Vec<[usize; 2]>,
}

impl Model {
    /// Adds oxygen between all A columns that are neighbours along the `edges` of the cell, `[row, col]`.
    pub(super) fn add_oxygen(&mut self, edges: [[f64; 2]; 2], cell_px: f64) {
        let a: Vec<usize> = (0..self.spots.len()).filter(|&k| self.spots[k].kind == Kind::A).collect();
        let points: Vec<[f64; 2]> = a.iter().map(|&k| [self.spots[k].row, self.spots[k].col]).collect();
        let tree = Neighbours::new(&points);
        let near = NEIGHBOUR_CELLS * cell_px;
        for (&from, [row, col]) in a.iter().zip(&points) {
            let next = edges.iter().filter_map(|step| tree.nearest([row + step[0], col + step[1]], near));
            self.oxygen.between.extend(next.map(|(to, _)| [from, a[to]]));
        }
        let nothing = Spot { row: 0.0, col: 0.0, amplitude: 0.0, kind: Kind::Oxygen, parent: None };
        self.spots.resize(self.spots.len() + self.oxygen.between.len(), nothing);
        self.oxygen.height = START;
        self.place_oxygen();
    }

    /// Puts every oxygen column halfway between its neighbours, as a part of their height.
    pub(super) fn place_oxygen(&mut self) {
        let first = self.spots.len() - self.oxygen.between.len();
        let (columns, oxygen) = self.spots.split_at_mut(first);
        for (spot, &[a, b]) in oxygen.iter_mut().zip(&self.oxygen.between) {
            let (a, b) = (columns[a], columns[b]);
            (spot.row, spot.col) = (0.5 * (a.row + b.row), 0.5 * (a.col + b.col));
            spot.amplitude = 0.5 * self.oxygen.height * (a.amplitude + b.amplitude);
        }
    }
}
