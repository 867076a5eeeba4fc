//! Parts of a frame and turned frames, with what is known of them.

use super::samples::{KnownCell, Sample};
use ndarray::s;

/// A crop without a known cell so near to its centre is drawn anew: where there is a lattice at all, there is one, whatever its
/// direction. px.
const CELL_NEAR_PX: f64 = 21.0;

/// What leaves a lattice's measurement known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    /// Rows become columns.
    Transpose,
    /// The last row becomes the first.
    MirrorRows,
    MirrorCols,
}

impl Sample {
    /// The part of `shape` = `[rows, cols]` px that begins at `corner`, with all that is known of the frame: cells and columns outside
    /// of it too.
    pub(super) fn part(&self, [top, left]: [usize; 2], [rows, cols]: [usize; 2]) -> Self {
        let pixels = self.pixels.slice(s![top..top + rows, left..left + cols]).to_owned();
        let moved = |row: f64, col: f64| (row - top as f64, col - left as f64);
        let mut part = Self {
            pixels,
            cells: self.cells.clone(),
            columns: self.columns.clone(),
            complete: self.complete,
            peak_counts: self.peak_counts,
        };
        for known in &mut part.cells {
            (known.cell.row, known.cell.col) = moved(known.cell.row, known.cell.col);
        }
        for column in &mut part.columns {
            (column.row, column.col) = moved(column.row, column.col);
        }
        part
    }

    /// Whether a cell is known within [`CELL_NEAR_PX`] of `[row, col]`.
    pub(super) fn has_cell_near(&self, [row, col]: [f64; 2]) -> bool {
        self.cells.iter().any(|KnownCell { cell, disturbed }| {
            !disturbed && (cell.row - row).abs().max((cell.col - col).abs()) <= CELL_NEAR_PX
        })
    }

    pub(super) fn turned(mut self, turn: Turn) -> Self {
        let [last_row, last_col] = <[usize; 2]>::from(self.pixels.dim()).map(|length| length as f64 - 1.0);
        let place = |row: f64, col: f64| match turn {
            Turn::Transpose => (col, row),
            Turn::MirrorRows => (last_row - row, col),
            Turn::MirrorCols => (row, last_col - col),
        };
        self.pixels = match turn {
            Turn::Transpose => self.pixels.t().to_owned(),
            Turn::MirrorRows => self.pixels.slice(s![..;-1, ..]).to_owned(),
            Turn::MirrorCols => self.pixels.slice(s![.., ..;-1]).to_owned(),
        };
        for KnownCell { cell, .. } in &mut self.cells {
            (cell.row, cell.col) = place(cell.row, cell.col);
            match turn {
                // a, which points right, becomes b, which points down.
                Turn::Transpose => {
                    (cell.p_x, cell.p_y) = (cell.p_y, cell.p_x);
                    (cell.cell_a, cell.cell_b) = (cell.cell_b, cell.cell_a);
                }
                Turn::MirrorRows => cell.p_y = -cell.p_y,
                Turn::MirrorCols => cell.p_x = -cell.p_x,
            }
            if !matches!(turn, Turn::Transpose) {
                cell.cell_angle = std::f64::consts::PI - cell.cell_angle;
            }
        }
        for column in &mut self.columns {
            (column.row, column.col) = place(column.row, column.col);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{ClassicalCell, Sublattice};
    use crate::polarization::{ClassicalSettings, measure_cells};
    use crate::simulate::{Microscope, Polarization, Specimen, render};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    /// A sheared lattice with P, as the simulator knows it.
    fn sample() -> Sample {
        let specimen = Specimen {
            cell_a_pm: 410.0,
            cell_b_pm: 390.0,
            cell_angle_rad: 1.60,
            rotation_rad: 0.1,
            polarization: Polarization::Uniform { p_pm: [20.0, -12.0] },
            ..Specimen::default()
        };
        let microscope = Microscope { shape: [120, 140], pixel_size_pm: 15.0, ..Microscope::default() };
        let frame = render(&specimen, &microscope, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        Sample {
            pixels: frame.pixels,
            cells: frame
                .truth
                .cells
                .iter()
                .map(|cell| KnownCell { cell: cell.as_measured(), disturbed: cell.disturbed })
                .collect(),
            columns: frame.truth.columns,
            complete: true,
            peak_counts: None,
        }
    }

    /// However it is turned, what is said of the cells is what its columns show.
    #[test]
    fn a_turned_frame_is_known_as_well_as_before() {
        for turns in [
            &[Turn::Transpose][..],
            &[Turn::MirrorRows],
            &[Turn::MirrorCols],
            &[Turn::MirrorCols, Turn::Transpose, Turn::MirrorRows],
        ] {
            let turned = turns.iter().fold(sample(), |sample, turn| sample.turned(*turn));
            let columns: Vec<crate::frame::Column> = turned
                .columns
                .iter()
                .filter_map(|column| {
                    let sublattice = column.class.sublattice()?;
                    Some(crate::frame::Column {
                        row: column.row,
                        col: column.col,
                        sublattice,
                        confidence: 1.0,
                    })
                })
                .collect();
            assert!(columns.iter().any(|column| column.sublattice == Sublattice::A));
            let field = measure_cells(&columns, [15.0; 2], &ClassicalSettings::default());
            assert!(field.cells.len() > 10);
            for measured in &field.cells {
                let known = turned
                    .cells
                    .iter()
                    .map(|known| known.cell)
                    .min_by(|a, b| {
                        let away =
                            |cell: &ClassicalCell| (cell.row - measured.row).hypot(cell.col - measured.col);
                        away(a).total_cmp(&away(b))
                    })
                    .unwrap();
                for (a, b) in [
                    (known.p_x, measured.p_x),
                    (known.p_y, measured.p_y),
                    (known.cell_a, measured.cell_a),
                    (known.cell_b, measured.cell_b),
                ] {
                    assert!((a - b).abs() < 0.1, "{turns:?}: {known:?} {measured:?}");
                }
                assert!((known.cell_angle - measured.cell_angle).abs() < 1e-3, "{known:?} {measured:?}");
            }
        }
    }

    #[test]
    fn a_part_shows_the_pixels_around_its_cells() {
        let whole = sample();
        let part = whole.part([10, 25], [80, 60]);
        assert_eq!(part.pixels.dim(), (80, 60));
        assert_eq!(part.pixels[[3, 4]], whole.pixels[[13, 29]]);
        let (before, after) = (whole.cells[7].cell, part.cells[7].cell);
        assert_eq!((before.row - 10.0, before.col - 25.0), (after.row, after.col));
    }
}
