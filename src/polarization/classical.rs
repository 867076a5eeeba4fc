//! Polar displacement and cell parameters from column positions (papers/dcnn_polarization.txt, Fig. 1).
//!
//! Features: one unit cell a B column and its four A neighbours, incomplete cells named, lookup on a window grid.
//! Assumptions: a perovskite along a pseudocubic [100] axis, so that every B column stands within a quadrilateral of A columns.

use crate::columns::Neighbours;
use crate::config::InvalidSetting;
use crate::frame::{ClassicalCell, Column, Sublattice, grid_centre};
use ferrostem_proto::{GridSpec, PixelPosition};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;
use std::num::NonZeroUsize;

/// What counts as a unit cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassicalSettings {
    /// How far the four edges may lie from their mean, relative; 0.25 leaves room for a tetragonality of 1.6.
    pub edge_tolerance: f64,
    /// How far the angles of the quadrilateral may lie from 90°, rad.
    pub angle_tolerance_rad: f64,
}

impl Default for ClassicalSettings {
    fn default() -> Self {
        Self { edge_tolerance: 0.25, angle_tolerance_rad: 0.35 }
    }
}

impl ClassicalSettings {
    /// # Errors
    /// Names the first setting out of range.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let wrong = |key: &str, value: f64, expected: &str| {
            Err(InvalidSetting::new(format!("{key_prefix}.{key}"), value, expected))
        };
        if !(self.edge_tolerance > 0.0 && self.edge_tolerance < 1.0) {
            return wrong("edge_tolerance", self.edge_tolerance, "above 0, below 1");
        }
        if !(self.angle_tolerance_rad > 0.0 && self.angle_tolerance_rad < PI / 2.0) {
            return wrong("angle_tolerance_rad", self.angle_tolerance_rad, "above 0, below pi / 2");
        }
        Ok(())
    }
}

/// The unit cells of a frame, and the B columns that have none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClassicalField {
    pub cells: Vec<ClassicalCell>,
    /// For each cell, the index of its centre among the columns that were given.
    pub centres: Vec<usize>,
    /// For each cell, the indices of its corners.
    pub corners: Vec<[usize; 4]>,
    /// Indices of centre columns without a complete cell: at the frame's edge, beside a vacancy or a misread column.
    pub incomplete: Vec<usize>,
}

/// Measures every unit cell: **P** = centre − mean of its four neighbours of the other sublattice, with the cell's edges, angle and
/// area. Cells are centred on B; with [`measure_cells_around`] on either.
///
/// A cell takes the four A columns nearest to B. It is complete when they form a convex quadrilateral around B whose edges and
/// angles agree within the tolerances; so no cell spans a missing or an extra column, nor the frame's edge.
///
/// # Shapes
/// `columns` in frame pixels, in any order; those with a NaN position are passed over. `pixel_size_pm` `[row, col]`.
pub fn measure_cells(
    columns: &[Column],
    pixel_size_pm: [f64; 2],
    settings: &ClassicalSettings,
) -> ClassicalField {
    measure_cells_around(Sublattice::B, columns, pixel_size_pm, settings)
}

/// [`measure_cells`] with the cells centred on `centre`. Around A, P points the other way: it is A that is displaced from the mean of
/// its B neighbours.
pub fn measure_cells_around(
    centre: Sublattice,
    columns: &[Column],
    pixel_size_pm: [f64; 2],
    settings: &ClassicalSettings,
) -> ClassicalField {
    let position_pm = |column: &Column| [column.col * pixel_size_pm[1], column.row * pixel_size_pm[0]];
    let is_finite = |column: &&Column| column.row.is_finite() && column.col.is_finite();
    let (corner_columns, corners): (Vec<usize>, Vec<[f64; 2]>) = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| is_finite(column) && column.sublattice != centre)
        .map(|(index, column)| (index, position_pm(column)))
        .unzip();
    let tree = Neighbours::new(&corners);
    let mut field = ClassicalField::default();
    for (index, column) in columns.iter().enumerate() {
        if column.sublattice != centre || !is_finite(&column) {
            continue;
        }
        let at = position_pm(column);
        let cell = surrounding(&corners, &tree, at)
            .and_then(|(cell, nearest)| Some((cell.measure(at, settings)?, nearest)));
        match cell {
            Some((cell, nearest)) => {
                field.cells.push(ClassicalCell { row: column.row, col: column.col, ..cell });
                field.centres.push(index);
                field.corners.push(nearest.map(|corner| corner_columns[corner]));
            }
            None => field.incomplete.push(index),
        }
    }
    field
}

/// For each window centre of `grid`, the index of the nearest cell within `max_distance_pm`.
///
/// # Shapes
/// `[grid.rows, grid.cols]`. `pixel_size_pm` `[row, col]`. Beyond the bound (the distance between like columns is a good one) a cell says nothing
/// about a window: `None`.
pub fn sample_on_grid(
    cells: &[ClassicalCell],
    grid: &GridSpec,
    pixel_size_pm: [f64; 2],
    max_distance_pm: f64,
) -> Array2<Option<usize>> {
    let points: Vec<[f64; 2]> =
        cells.iter().map(|cell| [cell.col * pixel_size_pm[1], cell.row * pixel_size_pm[0]]).collect();
    let tree = Neighbours::new(&points);
    Array2::from_shape_fn((grid.rows as usize, grid.cols as usize), |(i, j)| {
        let PixelPosition { row, col } = grid_centre(grid, i, j);
        tree.nearest([col * pixel_size_pm[1], row * pixel_size_pm[0]], max_distance_pm)
            .map(|(index, _)| index)
    })
}

/// Four A columns around a B column, `[x, y]` in pm, in the order of their direction from it.
struct Quadrilateral([[f64; 2]; 4]);

/// The quadrilateral of the four `corners` nearest to `centre`, and their indices.
fn surrounding(
    corners: &[[f64; 2]],
    tree: &Neighbours,
    centre: [f64; 2],
) -> Option<(Quadrilateral, [usize; 4])> {
    let four = NonZeroUsize::MIN.saturating_add(3);
    let mut nearest: [(usize, [f64; 2]); 4] = tree
        .nearest_n(centre, four, f64::MAX.sqrt())
        .into_iter()
        .filter_map(|(index, _)| Some((index, corners.get(index).copied()?)))
        .collect::<Vec<_>>()
        .try_into()
        .ok()?;
    let direction = |corner: &[f64; 2]| (corner[1] - centre[1]).atan2(corner[0] - centre[0]);
    nearest.sort_by(|(_, a), (_, b)| direction(a).total_cmp(&direction(b)));
    Some((Quadrilateral(nearest.map(|(_, corner)| corner)), nearest.map(|(index, _)| index)))
}

impl Quadrilateral {
    /// `None` when it is no unit cell around `centre`. Row and column of the result are left to the caller.
    fn measure(&self, centre: [f64; 2], settings: &ClassicalSettings) -> Option<ClassicalCell> {
        let corner = |index: usize| self.0[index % 4];
        let edges: [[f64; 2]; 4] = std::array::from_fn(|i| difference(corner(i + 1), corner(i)));
        let lengths = edges.map(length);
        let mean_length = lengths.iter().sum::<f64>() / 4.0;
        let even = lengths.iter().all(|length| (length / mean_length - 1.0).abs() <= settings.edge_tolerance);
        // Turning the same way at every corner, and B on the inner side of every edge: convex, and around B.
        let square = (0..4).all(|i| {
            let (before, after) = (edges[i], edges[(i + 1) % 4]);
            let turn = cross(before, after).atan2(dot(before, after));
            (turn - PI / 2.0).abs() <= settings.angle_tolerance_rad
        });
        let around = (0..4).all(|i| cross(edges[i], difference(centre, corner(i))) > 0.0);
        if !(even && square && around) {
            return None;
        }

        let mean: [f64; 2] =
            std::array::from_fn(|axis| self.0.iter().map(|corner| corner[axis]).sum::<f64>() / 4.0);
        let [p_x, p_y] = difference(centre, mean);
        // Opposite edges run in opposite directions around the cell.
        let mean_edge = |i: usize| difference(edges[i], edges[i + 2]).map(|component| component / 2.0);
        let mean_lengths = [0, 1].map(|i| (lengths[i] + lengths[i + 2]) / 2.0);
        let tilt = |edge: [f64; 2]| edge[1].abs().atan2(edge[0].abs());
        let (a, b) = if tilt(mean_edge(0)) <= tilt(mean_edge(1)) { (0, 1) } else { (1, 0) };
        // a to the right and b downwards, so that the angle between them is the cell's and not its supplement.
        let a_vector = facing(mean_edge(a), 0);
        let b_vector = facing(mean_edge(b), 1);
        Some(ClassicalCell {
            row: f64::NAN,
            col: f64::NAN,
            p_x,
            p_y,
            cell_a: mean_lengths[a],
            cell_b: mean_lengths[b],
            cell_angle: cross(a_vector, b_vector).abs().atan2(dot(a_vector, b_vector)),
            cell_area: (0..4).map(|i| cross(corner(i), corner(i + 1))).sum::<f64>().abs() / 2.0,
        })
    }
}

fn facing(vector: [f64; 2], axis: usize) -> [f64; 2] {
    if vector[axis] < 0.0 { vector.map(|component| -component) } else { vector }
}

fn difference(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

fn length(a: [f64; 2]) -> f64 {
    a[0].hypot(a[1])
}

fn dot(a: [f64; 2], b: [f64; 2]) -> f64 {
    a[0] * b[0] + a[1] * b[1]
}

/// Positive from x to y.
fn cross(a: [f64; 2], b: [f64; 2]) -> f64 {
    a[0] * b[1] - a[1] * b[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn column(row: f64, col: f64, sublattice: Sublattice) -> Column {
        Column { row, col, sublattice, confidence: 1.0 }
    }

    /// `n × n` cells with edges `a`, `b` (`[row, col]`, px) from (50, 50), their B columns displaced by `p` = `[row, col]`, px.
    fn lattice(n: usize, a: [f64; 2], b: [f64; 2], p: [f64; 2]) -> Vec<Column> {
        let at = |i: f64, j: f64| (50.0 + i * b[0] + j * a[0], 50.0 + i * b[1] + j * a[1]);
        let mut columns = Vec::new();
        for i in 0..=n {
            for j in 0..=n {
                let (row, col) = at(i as f64, j as f64);
                columns.push(column(row, col, Sublattice::A));
                if i < n && j < n {
                    let (row, col) = at(i as f64 + 0.5, j as f64 + 0.5);
                    columns.push(column(row + p[0], col + p[1], Sublattice::B));
                }
            }
        }
        columns
    }

    fn measure(columns: &[Column]) -> ClassicalField {
        measure_cells(columns, [15.0, 15.0], &ClassicalSettings::default())
    }

    #[test]
    fn hand_worked_cell() {
        // Corners (row, col) in px at 10 pm a row and 20 pm a column: a parallelogram of a = (x 400, y 0), b = (x 40, y 420).
        let columns = [
            column(0.0, 0.0, Sublattice::A),
            column(0.0, 20.0, Sublattice::A),
            column(42.0, 2.0, Sublattice::A),
            column(42.0, 22.0, Sublattice::A),
            column(24.0, 10.0, Sublattice::B),
        ];
        let field = measure_cells(&columns, [10.0, 20.0], &ClassicalSettings::default());
        assert_eq!((field.centres.as_slice(), field.incomplete.len()), ([4].as_slice(), 0));
        let mut corners = field.corners[0];
        corners.sort_unstable();
        assert_eq!(corners, [0, 1, 2, 3]);
        let cell = field.cells[0];
        assert_eq!((cell.row, cell.col), (24.0, 10.0));
        assert!(
            (cell.p_x - (200.0 - 220.0)).abs() < 1e-9 && (cell.p_y - (240.0 - 210.0)).abs() < 1e-9,
            "{cell:?}"
        );
        assert!((cell.cell_a - 400.0).abs() < 1e-9);
        assert!((cell.cell_b - 40.0_f64.hypot(420.0)).abs() < 1e-9);
        assert!((cell.cell_angle - 420.0_f64.atan2(40.0)).abs() < 1e-9);
        assert!((cell.cell_area - 400.0 * 420.0).abs() < 1e-6);
    }

    #[test]
    fn around_the_other_sublattice_the_polarization_points_the_other_way() {
        let columns = lattice(6, [0.0, 26.0], [26.0, 0.0], [1.2, -0.4]);
        let field =
            measure_cells_around(Sublattice::A, &columns, [15.0, 15.0], &ClassicalSettings::default());
        assert_eq!((field.cells.len(), field.incomplete.len()), (25, 24));
        for (cell, &centre) in field.cells.iter().zip(&field.centres) {
            assert_eq!(columns[centre].sublattice, Sublattice::A);
            assert!((cell.p_x - 6.0).abs() < 1e-9 && (cell.p_y + 18.0).abs() < 1e-9, "{cell:?}");
        }
    }

    #[test]
    fn an_undistorted_lattice_has_no_polarization() {
        let field = measure(&lattice(9, [0.0, 26.0], [26.0, 0.0], [0.0, 0.0]));
        assert_eq!((field.cells.len(), field.incomplete.len()), (81, 0));
        for cell in &field.cells {
            assert!(cell.p_x.abs() < 1e-9 && cell.p_y.abs() < 1e-9);
            assert!((cell.cell_a - 390.0).abs() < 1e-9 && (cell.cell_area - 390.0 * 390.0).abs() < 1e-6);
            assert!((cell.cell_angle - PI / 2.0).abs() < 1e-12);
        }
    }

    #[test]
    fn strong_polarization_and_tetragonality_are_measured() {
        let field = measure(&lattice(5, [0.5, 25.0], [30.0, -0.3], [6.0, -3.0]));
        assert_eq!(field.cells.len(), 25);
        for cell in &field.cells {
            assert!((cell.p_x + 45.0).abs() < 1e-9 && (cell.p_y - 90.0).abs() < 1e-9);
            assert!((cell.cell_b / cell.cell_a - 1.2).abs() < 0.001);
        }
    }

    #[test]
    fn rotating_the_crystal_rotates_the_field() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut columns = lattice(6, [0.0, 26.0], [27.0, 0.0], [0.8, -1.5]);
        for column in &mut columns {
            column.row += rng.random::<f64>() - 0.5;
            column.col += rng.random::<f64>() - 0.5;
        }
        let straight = measure(&columns);
        for angle in [0.3_f64, -0.5, PI / 2.0, 2.5] {
            let (sin, cos) = angle.sin_cos();
            let turn = |x: f64, y: f64| (cos * x - sin * y, sin * x + cos * y);
            let turned: Vec<Column> = columns
                .iter()
                .map(|column| {
                    let (col, row) = turn(column.col, column.row);
                    Column { row, col, ..*column }
                })
                .collect();
            let turned = measure(&turned);
            assert_eq!(turned.centres, straight.centres);
            for (before, after) in straight.cells.iter().zip(&turned.cells) {
                let (p_x, p_y) = turn(before.p_x, before.p_y);
                assert!((p_x - after.p_x).abs() < 1e-8 && (p_y - after.p_y).abs() < 1e-8);
                assert!((before.cell_area - after.cell_area).abs() < 1e-6);
                // At a quarter turn a and b change places, and the angle between the same two lines becomes its supplement.
                let same = (before.cell_a - after.cell_a).abs() < 1e-8
                    && (before.cell_angle - after.cell_angle).abs() < 1e-9;
                let swapped = (before.cell_a - after.cell_b).abs() < 1e-8
                    && (before.cell_angle + after.cell_angle - PI).abs() < 1e-9;
                let upside_down = (before.cell_a - after.cell_a).abs() < 1e-8
                    && (before.cell_angle + after.cell_angle - PI).abs() < 1e-9;
                assert!(same || swapped || upside_down, "{angle}: {before:?} {after:?}");
            }
        }
    }

    #[test]
    fn edges_vacancies_and_extra_columns_give_no_cell() {
        let whole = lattice(6, [0.0, 26.0], [26.0, 0.0], [0.5, 0.5]);
        // Without the A column at (2, 2) of the lattice the four cells around it are incomplete.
        let vacancy: Vec<Column> =
            whole.iter().copied().filter(|c| (c.row, c.col) != (102.0, 102.0)).collect();
        let field = measure(&vacancy);
        assert_eq!((field.cells.len(), field.incomplete.len()), (32, 4));
        for &index in &field.incomplete {
            assert!((vacancy[index].row - 102.0).abs() < 14.0 && (vacancy[index].col - 102.0).abs() < 14.0);
        }
        // Without its first row of A columns, so are the B columns below it.
        let cut: Vec<Column> = whole.iter().copied().filter(|c| c.row > 55.0).collect();
        assert_eq!((measure(&cut).cells.len(), measure(&cut).incomplete.len()), (30, 6));
        // An interstitial A column spoils the cell it sits in.
        let mut extra = whole.clone();
        extra.push(column(63.5, 68.0, Sublattice::A));
        assert_eq!(measure(&extra).cells.len(), 35);
        // Nothing, and a B column alone.
        assert_eq!(measure(&[]), ClassicalField::default());
        assert_eq!(measure(&[column(1.0, 1.0, Sublattice::B)]).incomplete, vec![0]);
        assert_eq!(measure(&[column(f64::NAN, 1.0, Sublattice::B)]), ClassicalField::default());
    }

    #[test]
    fn the_tree_finds_what_a_search_of_all_columns_finds() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut columns = lattice(12, [1.0, 26.0], [25.0, -2.0], [1.0, 0.0]);
        for column in &mut columns {
            column.row += 2.0 * rng.random::<f64>();
            column.col += 2.0 * rng.random::<f64>();
        }
        columns.retain(|_| rng.random::<f64>() > 0.05);
        let field = measure(&columns);
        assert!(field.cells.len() > 60 && field.incomplete.len() > 10);
        for (cell, &index) in field.cells.iter().zip(&field.centres) {
            let b = columns[index];
            let mut corners: Vec<&Column> =
                columns.iter().filter(|c| c.sublattice == Sublattice::A).collect();
            corners.sort_by(|c, d| {
                (c.row - b.row).hypot(c.col - b.col).total_cmp(&(d.row - b.row).hypot(d.col - b.col))
            });
            let mean = |of: fn(&Column) -> f64| corners[..4].iter().map(|c| of(c)).sum::<f64>() / 4.0;
            assert!((cell.p_x - 15.0 * (b.col - mean(|c| c.col))).abs() < 1e-9);
            assert!((cell.p_y - 15.0 * (b.row - mean(|c| c.row))).abs() < 1e-9);
        }
    }

    #[test]
    fn windows_take_the_nearest_cell_within_the_bound() {
        let field = measure(&lattice(8, [0.0, 26.0], [26.0, 0.0], [0.3, 0.2]));
        let grid = GridSpec { row0: 39.5, col0: 39.5, step_row: 7.0, step_col: 9.0, rows: 40, cols: 30 };
        let sampled = sample_on_grid(&field.cells, &grid, [15.0, 30.0], 390.0);
        assert_eq!(sampled.dim(), (40, 30));
        let (mut found, mut none) = (0, 0);
        for ((i, j), &got) in sampled.indexed_iter() {
            let (row, col) = (39.5 + 7.0 * i as f64, 39.5 + 9.0 * j as f64);
            let distance = |cell: &ClassicalCell| (15.0 * (cell.row - row)).hypot(30.0 * (cell.col - col));
            let best = field.cells.iter().map(distance).fold(f64::INFINITY, f64::min);
            match got {
                Some(index) => assert!((distance(&field.cells[index]) - best).abs() < 1e-9 && best <= 390.0),
                None => assert!(best > 390.0),
            }
            *if got.is_some() { &mut found } else { &mut none } += 1;
        }
        assert!(found > 100 && none > 100);
        assert!(sample_on_grid(&[], &grid, [15.0, 15.0], 390.0).iter().all(Option::is_none));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        assert!(ClassicalSettings::default().validate("polarization").is_ok());
        let settings = ClassicalSettings { edge_tolerance: 0.0, ..ClassicalSettings::default() };
        assert_eq!(settings.validate("polarization").unwrap_err().key, "polarization.edge_tolerance");
    }
}
