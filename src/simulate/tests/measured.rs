//! What the classical measurement finds in frames without noise.

use super::*;
use crate::columns::fit_gaussian;
use crate::frame::Column;
use crate::polarization::{ClassicalSettings, measure_cells};
use ndarray::Array2;

/// A round Gaussian: row, column, height, standard deviation.
type Spot = [f64; 4];

/// Pixels around a column that its fit may look at.
const REACH_PX: f64 = 14.0;

/// Gaussians fitted to all columns with the others' taken away first, over and over until nothing moves: neighbours overlap, and a
/// fit that knows of one column alone is drawn to the others.
fn fitted(frame: &SimulatedFrame) -> Vec<(Sublattice, Spot)> {
    let mut spots: Vec<(Sublattice, Spot)> = frame
        .truth
        .columns
        .iter()
        .filter_map(|c| Some((c.sublattice()?, [c.row.round(), c.col.round(), 0.0, 5.0])))
        .collect();
    for round in 0..30 {
        // Near the peak first, where the neighbours matter least.
        let half_side = if round < 6 { 5.0 } else { 11.0 };
        let before = spots.clone();
        for (n, (_, spot)) in spots.iter_mut().enumerate() {
            let near = |other: &&(usize, &(Sublattice, Spot))| {
                other.0 != n && (other.1.1[0] - spot[0]).hypot(other.1.1[1] - spot[1]) < 40.0
            };
            let others: Vec<Spot> =
                before.iter().enumerate().filter(|o| near(&o)).map(|(_, o)| o.1).collect();
            let corner = [spot[0].round() - REACH_PX, spot[1].round() - REACH_PX];
            let side = 2 * REACH_PX as usize + 1;
            let alone = Array2::from_shape_fn([side, side], |(row, col)| {
                let (row, col) = (row as f64 + corner[0], col as f64 + corner[1]);
                let value = |[r, c, height, sigma]: &Spot| {
                    height * (-0.5 * ((row - r).powi(2) + (col - c).powi(2)) / (sigma * sigma)).exp()
                };
                let seen = frame.pixels.get([row as usize, col as usize]).copied().unwrap_or(f32::NAN);
                seen - others.iter().map(value).sum::<f64>() as f32
            });
            let start = [spot[0] - corner[0], spot[1] - corner[1]];
            if let Some(fit) = fit_gaussian(&alone, start, half_side) {
                *spot = [fit.row + corner[0], fit.col + corner[1], fit.amplitude, fit.sigma_px];
            }
        }
    }
    spots
}

/// Nothing beyond one side of a square of 3 nm.
fn beyond(side: u8) -> Region {
    let normal_rad = FRAC_PI_2 * f64::from(side);
    let at_nm = [-1.5 * normal_rad.sin(), 1.5 * normal_rad.cos()];
    Region { shape: Shape::HalfPlane { at_nm, normal_rad, edge: Edge::default() }, content: Content::Vacuum }
}

#[test]
fn planted_polarization_comes_back_from_a_classical_measurement() {
    let columns = Columns {
        a: ColumnShape { intensity: 1.0, sigma_pm: 70.0 },
        b: ColumnShape { intensity: 0.4, sigma_pm: 65.0 },
        ..Columns::default()
    };
    for (p_pm, rotation_rad) in [([30.0, -12.0], 0.0), ([-8.0, 21.0], 0.37), ([0.0, 0.0], 0.2)] {
        let specimen = Specimen {
            columns,
            rotation_rad,
            cell_b_pm: 401.0,
            polarization: Polarization::Uniform { p_pm },
            // The crystal ends within the frame, so that every column's neighbours are known.
            regions: (0..4).map(beyond).collect(),
            ..Specimen::default()
        };
        let microscope = Microscope { probe_sigma_pm: 30.0, ..quiet([256, 256]) };
        let frame = frame(&specimen, &microscope);
        let columns: Vec<Column> = fitted(&frame)
            .into_iter()
            .map(|(sublattice, [row, col, ..])| Column { row, col, sublattice, confidence: 1.0 })
            .collect();
        let field = measure_cells(&columns, [15.0, 15.0], &ClassicalSettings::default());
        let (mut checked, mut worst) = (0, 0f64);
        for cell in
            field.cells.iter().filter(|c| (70.0..186.0).contains(&c.row) && (70.0..186.0).contains(&c.col))
        {
            let distance = |t: &&TruthCell| (t.b_row - cell.row).hypot(t.b_col - cell.col);
            let truth = frame.truth.cells.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
            worst = worst.max((cell.p_x - truth.p_x).hypot(cell.p_y - truth.p_y));
            assert!((cell.cell_area / truth.cell_area - 1.0).abs() < 2e-3);
            checked += 1;
        }
        eprintln!("P {p_pm:?} at {rotation_rad} rad: {checked} cells, largest error {worst:.4} pm");
        assert!(checked >= 12 && worst < 0.1, "{checked} cells, {worst} pm");
    }
}

#[test]
fn planted_polarization_is_exact_in_the_columns_themselves() {
    let specimen = Specimen {
        rotation_rad: 0.5,
        cell_angle_rad: FRAC_PI_2 - 0.01,
        strain: Strain { xx: 0.01, yy: 0.0, xy: -0.01 },
        polarization: Polarization::Uniform { p_pm: [25.0, 14.0] },
        ..Specimen::default()
    };
    let truth = frame(&specimen, &quiet([256, 256])).truth;
    let columns: Vec<Column> = truth
        .columns
        .iter()
        .filter_map(|c| Some(Column { row: c.row, col: c.col, sublattice: c.sublattice()?, confidence: 1.0 }))
        .collect();
    let field = measure_cells(&columns, [15.0, 15.0], &ClassicalSettings::default());
    assert!(field.cells.len() > 60);
    let [x, y] = super::super::microscope::turned([25.0, 14.0], 0.5);
    for cell in &field.cells {
        assert!((cell.p_x - x).hypot(cell.p_y - y) < 1e-6, "{cell:?}");
    }
}

#[test]
fn a_cell_is_disturbed_where_one_of_its_columns_saturates_the_detector() {
    let specimen = Specimen { columns: narrow(), ..Specimen::default() };
    // Of columns with a peak of 1000 counts a part has pixels beyond that by chance.
    let detector = Detector { full_well_counts: Some(1040.0), ..Detector::default() };
    let microscope = Microscope { shot_noise: true, detector, ..quiet([240, 240]) };
    let frame = frame(&specimen, &microscope);
    let saturated = frame.truth.saturated.as_ref().unwrap();
    let radius_px = (2.0 * 2f64.ln()).sqrt() * 45.0 / microscope.pixel_size_pm;
    let is_saturated = |column: &TruthColumn| {
        let near = |(row, col): (usize, usize)| {
            (row as f64 - column.row).hypot(col as f64 - column.col) <= radius_px
        };
        saturated.indexed_iter().any(|(at, &saturated)| saturated && near(at))
    };
    let shown = frame.truth.columns.iter().filter(|column| column.sublattice().is_some());
    let shown: Vec<&TruthColumn> = shown.filter(|column| is_saturated(column)).collect();
    let mut counts = [0, 0];
    for cell in central_cells(&frame, 40.0) {
        // A columns are 0.71 edges from the middle of the cell, the next B columns 1 edge.
        let reach_px = 0.85 * cell.cell_area.sqrt() / microscope.pixel_size_pm;
        let own = |column: &&TruthColumn| (column.row - cell.row).hypot(column.col - cell.col) < reach_px;
        assert_eq!(cell.disturbed, shown.iter().any(own), "{cell:?}");
        counts[usize::from(cell.disturbed)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
    // A detector that never saturates disturbs none.
    let detector = Detector { full_well_counts: Some(1e6), ..Detector::default() };
    let frame = self::frame(&specimen, &Microscope { detector, ..microscope });
    assert!(frame.truth.saturated.is_some() && frame.truth.cells.iter().all(|cell| !cell.disturbed));
}
