//! Strain, composition, dislocations and substrates in whole frames.

use super::*;
use crate::simulate::microscope::turned;

/// The A columns of a frame, and a walk over them.
struct Walk<'a>(Vec<&'a TruthColumn>);

impl<'a> Walk<'a> {
    fn of(truth: &'a Truth, sublattice: Sublattice) -> Self {
        Self(truth.columns.iter().filter(|c| c.sublattice() == Some(sublattice)).collect())
    }

    /// The column nearest to a place, `[row, col]`.
    fn nearest(&self, [row, col]: [f64; 2]) -> [f64; 2] {
        let distance = |c: &TruthColumn| (c.row - row).hypot(c.col - col);
        let nearest = self.0.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
        [nearest.row, nearest.col]
    }

    /// Steps of one cell edge, `[row, col]` in pixels, each to the nearest column.
    fn steps(&self, mut at: [f64; 2], step: [f64; 2], count: usize) -> [f64; 2] {
        for _ in 0..count {
            at = self.nearest([at[0] + step[0], at[1] + step[1]]);
        }
        at
    }
}

#[test]
fn an_undistorted_lattice_has_exactly_no_polarization_however_it_lies() {
    for (lattice_rad, scan_rad) in
        [(0.0, 0.0), (0.31, 0.0), (1.2, -0.7), (-2.9, 4.0), (0.5 * FRAC_PI_2, 0.5 * FRAC_PI_2)]
    {
        let specimen = Specimen {
            cell_a_pm: 403.0,
            cell_angle_rad: FRAC_PI_2 + 0.02,
            rotation_rad: lattice_rad,
            strain: Strain { xx: 0.01, yy: -0.02, xy: 0.005 },
            ..Specimen::default()
        };
        let microscope = Microscope { rotation_rad: scan_rad, center_nm: [-90.0, 41.0], ..quiet([128, 128]) };
        let truth = frame(&specimen, &microscope).truth;
        assert!(truth.cells.len() > 15);
        assert!(truth.cells.iter().all(|c| c.p_x == 0.0 && c.p_y == 0.0));
        assert!(truth.defects.is_empty());
    }
}

#[test]
fn uniform_strain_and_angle_come_back_from_the_columns() {
    let strain = Strain { xx: 0.02, yy: -0.015, xy: 0.008 };
    let specimen = Specimen { strain, ..Specimen::default() };
    let truth = frame(&specimen, &quiet([256, 256])).truth;
    let walk = Walk::of(&truth, Sublattice::A);
    let start = walk.nearest([100.0, 100.0]);
    let along_x = walk.steps(start, [0.0, 26.0], 4);
    let along_y = walk.steps(start, [26.0, 0.0], 4);
    let vector = |end: [f64; 2]| [(end[1] - start[1]) * 15.0 / 4.0, (end[0] - start[0]) * 15.0 / 4.0];
    let (a, b) = (vector(along_x), vector(along_y));
    // The strained edges by hand: (1 + xx, xy) and (xy, 1 + yy) times 390 pm.
    assert!((a[0] - 397.8).abs() < 1e-6 && (a[1] - 3.12).abs() < 1e-6, "{a:?}");
    assert!((b[0] - 3.12).abs() < 1e-6 && (b[1] - 384.15).abs() < 1e-6, "{b:?}");
    let cell = truth.cells[3];
    assert!((cell.cell_a - a[0].hypot(a[1])).abs() < 1e-6);
    let angle = (a[0] * b[0] + a[1] * b[1]) / (a[0].hypot(a[1]) * b[0].hypot(b[1]));
    assert!((cell.cell_angle - angle.acos()).abs() < 1e-9);
}

#[test]
fn a_strain_gradient_shows_in_the_cells() {
    let field = StrainField::Gradient {
        center_nm: [0.0, 0.0],
        direction_rad: 0.0,
        strain_per_nm: 0.004,
        reach_nm: 10.0,
    };
    let specimen = Specimen { strain_fields: vec![field], ..Specimen::default() };
    let microscope = quiet([128, 512]);
    let truth = frame(&specimen, &microscope).truth;
    assert!(truth.cells.len() >= 75, "{}", truth.cells.len());
    for cell in &truth.cells {
        let [_, x_nm] = microscope.pixel_to_specimen_nm(cell.row, cell.col);
        // The undisplaced position is behind by ½ · 0.004 · x², which matters little.
        let undisplaced = x_nm - 0.002 * x_nm * x_nm;
        assert!((cell.cell_a - 390.0 * (1.0 + 0.004 * undisplaced)).abs() < 0.05, "{cell:?}");
        assert!((cell.cell_b - 390.0).abs() < 1e-9);
        // B sits in the middle of the edges but for their difference: 390² · 4e-6 / 8 pm.
        assert!((cell.p_x + 390.0 * 390.0 * 4e-6 / 8.0).abs() < 1e-6, "{}", cell.p_x);
    }
}

#[test]
fn a_burgers_circuit_over_the_columns_fails_to_close_by_the_burgers_vector() {
    for (burgers_cells, rotation_rad) in [([1, 0], 0.0), ([0, -1], 0.0), ([1, 1], 0.4), ([-1, 0], -1.0)] {
        let dislocation = Dislocation { at_nm: [0.0, 0.0], burgers_cells, poisson_ratio: 0.3 };
        let specimen = Specimen { rotation_rad, dislocations: vec![dislocation], ..Specimen::default() };
        let microscope = quiet([512, 512]);
        let frame = frame(&specimen, &microscope);
        let walk = Walk::of(&frame.truth, Sublattice::A);
        // Six steps a side round the core, each as a cell of the perfect lattice.
        let row_col = |[x, y]: [f64; 2]| [y / 15.0, x / 15.0];
        let a = row_col(turned([390.0, 0.0], rotation_rad));
        let b = row_col(turned([0.0, 390.0], rotation_rad));
        let back = |v: [f64; 2]| v.map(|c| -c);
        let start = walk.nearest([255.5 - 3.0 * (a[0] + b[0]), 255.5 - 3.0 * (a[1] + b[1])]);
        let mut end = start;
        for step in [a, b, back(a), back(b)] {
            end = walk.steps(end, step, 6);
        }
        // Right-handed, as displayed clockwise: the end lies before or behind the start by the Burgers vector.
        let gap = [(end[1] - start[1]) * 15.0, (end[0] - start[0]) * 15.0];
        let [x, y] = turned(burgers_cells.map(|c| 390.0 * f64::from(c)), rotation_rad);
        assert!((gap[0].hypot(gap[1]) - x.hypot(y)).abs() < 60.0, "{burgers_cells:?}: {gap:?}");
        assert!((gap[0] - x).hypot(gap[1] - y) < 60.0, "{burgers_cells:?}: {gap:?}, expected {x} {y}");

        let [core] = &frame.truth.defects[..] else { panic!("{:?}", frame.truth.defects) };
        assert_eq!(core.kind, DefectKind::Dislocation);
        assert!((core.row - 255.5).hypot(core.col - 255.5) < 15.0, "{core:?}");
        // Every undisturbed cell is a whole one, those along the plane of slip too.
        let area = |c: &TruthCell| (c.cell_area / (390.0 * 390.0) - 1.0).abs();
        let undisturbed = frame.truth.cells.iter().filter(|c| !c.disturbed);
        // Strains go as the Burgers vector over the distance.
        let long = x.hypot(y) / 390.0;
        for c in undisturbed.clone() {
            assert!(area(c) < 0.15 * long * long, "{burgers_cells:?} {c:?}");
        }
        assert!(undisturbed.clone().all(|c| c.p_x.hypot(c.p_y) < 12.0 * long * long));
        let expected = frame.pixels.len() as f64 * 225.0 / (390.0 * 390.0);
        assert!((frame.truth.cells.len() as f64 / expected - 1.0).abs() < 0.08, "no cells are lost");
        let disturbed = frame.truth.cells.iter().filter(|c| c.disturbed).count();
        assert!((5..=9).contains(&disturbed), "{disturbed}");
    }
}

fn on_substrate(relaxed: f64) -> Specimen {
    let columns = narrow();
    let phase =
        Phase { cell_a_pm: 375.0, cell_b_pm: 375.0, a: columns.a, b: columns.a, o: None, p_pm: [0.0; 2] };
    Specimen {
        columns,
        polarization: Polarization::Uniform { p_pm: [0.0, 30.0] },
        substrate: Some(Substrate {
            phase,
            toward: Toward::B,
            at_nm: 1.0,
            edge: Edge::default(),
            relaxed,
            poisson_ratio: 0.3,
            polarization_width_nm: 1.0,
        }),
        ..Specimen::default()
    }
}

/// Cells with their distance beyond the interface, nm.
fn by_depth(specimen: &Specimen, center_nm: [f64; 2], shape: [usize; 2]) -> Vec<(f64, TruthCell)> {
    let microscope = Microscope { center_nm, ..quiet(shape) };
    let truth = frame(specimen, &microscope).truth;
    let depth = |c: &TruthCell| microscope.pixel_to_specimen_nm(c.b_row, c.b_col)[0] - 1.0;
    truth.cells.iter().map(|c| (depth(c), *c)).collect()
}

#[test]
fn misfit_relaxes_over_the_distance_of_the_dislocations() {
    let specimen = on_substrate(1.0);
    // One misfit dislocation in 390 / 375 of the misfit's inverse: 25.5 cells, 9.8 nm; the strain dies off over 1.55 nm.
    let mean = |cells: &[(f64, TruthCell)], from: f64, to: f64| {
        let inside: Vec<f64> =
            cells.iter().filter(|(d, _)| (from..to).contains(d)).map(|(_, c)| c.cell_a).collect();
        let mean = inside.iter().sum::<f64>() / inside.len() as f64;
        let spread = inside.iter().map(|a| (a - mean).abs()).fold(0.0, f64::max);
        (mean, spread)
    };
    let cells = by_depth(&specimen, [1.0, 0.0], [1024, 1310]);
    let (film, spread_film) = mean(&cells, -7.5, -6.5);
    let (near, spread_near) = mean(&cells, -1.2, -0.6);
    let (below, _) = mean(&cells, 6.5, 7.5);
    assert!((film - 390.0).abs() < 0.5 && (below - 375.0).abs() < 0.5, "{film} {below}");
    assert!(spread_film < 1.0 && spread_near > 5.0, "{spread_film} {spread_near}");
    assert!((near - 390.0).abs() < 6.0, "{near}");
    // Two rows of cells meet at the interface, without gap: columns are counted by area.
    let area: f64 = cells.iter().filter(|(d, _)| d.abs() < 7.0).map(|(_, c)| c.cell_area).sum();
    assert!((area / (14e3 * 1310.0 * 15.0) - 1.0).abs() < 0.04, "{area}");
    let again = by_depth(&specimen, [1.0, 5000.0], [256, 1310]);
    let cores = again.iter().filter(|(_, c)| c.disturbed).count();
    assert!((4..=30).contains(&cores), "{cores} cells at the cores of two dislocations");
}

#[test]
fn a_coherent_film_has_the_spacing_of_its_substrate_and_p_ends_at_the_interface() {
    let cells = by_depth(&on_substrate(0.0), [1.0, 700.0], [512, 256]);
    for (depth, cell) in &cells {
        assert!((cell.cell_a - 375.0).abs() < 1e-6, "{cell:?}");
        let film = 390.0 * (1.0 + 0.6 / 0.7 * 15.0 / 390.0);
        if depth.abs() > 0.6 {
            let expected = if *depth < 0.0 { film } else { 375.0 };
            assert!((cell.cell_b - expected).abs() < 1e-6, "{depth}: {}", cell.cell_b);
            // tanh across the full width of 1 nm.
            let site = depth - cell.p_y * 1e-3;
            let p = 30.0 * 0.5 * (1.0 - (2.0 * site).tanh());
            assert!((cell.p_y - p).abs() < 2.0, "{depth}: {} expected {p}", cell.p_y);
        }
        assert_eq!(cell.region, (*depth > 0.0).then_some(DefectKind::Substrate));
    }
    let far = cells.iter().filter(|(d, _)| *d > 2.5);
    assert!(far.clone().count() > 5 && far.clone().all(|(_, c)| c.p_y.abs() < 0.01));
}

#[test]
fn composition_changes_brightness_cell_and_polarization() {
    let specimen = Specimen {
        columns: narrow(),
        polarization: Polarization::Uniform { p_pm: [30.0, 0.0] },
        alloy: Alloy {
            fraction: Composition::Layers {
                normal_rad: 0.0,
                at_nm: vec![0.0],
                values: vec![0.1, 0.4],
                width_nm: 0.5,
            },
            atoms_per_column: 50,
            a_intensity_ratio: 0.5,
            b_intensity_ratio: 1.5,
            a_sigma_ratio: 1.0,
            cell_ratio: 0.95,
            polarization_ratio: 0.2,
        },
        ..Specimen::default()
    };
    let microscope = quiet([1024, 1024]);
    let truth = frame(&specimen, &microscope).truth;
    for (side, fraction) in [(-1.0, 0.1), (1.0, 0.4)] {
        let here = |row: f64, col: f64| side * microscope.pixel_to_specimen_nm(row, col)[1] > 1.0;
        let cells: Vec<&TruthCell> = truth.cells.iter().filter(|c| here(c.row, c.col)).collect();
        assert!(cells.len() > 400);
        let mean =
            |of: &dyn Fn(&TruthCell) -> f64| cells.iter().map(|c| of(c)).sum::<f64>() / cells.len() as f64;
        assert!((mean(&|c| c.composition) - fraction).abs() < 0.006, "{}", mean(&|c| c.composition));
        assert!((mean(&|c| c.p_x) - 30.0 * (1.0 - 0.8 * fraction)).abs() < 1e-3, "{}", mean(&|c| c.p_x));
        assert!((mean(&|c| c.cell_a) - 390.0 * (1.0 - 0.05 * fraction)).abs() < 1e-3);
        // Coherent: the edge across the direction is that of the origin, halfway.
        assert!((mean(&|c| c.cell_b) - 390.0 * (1.0 - 0.05 * 0.25)).abs() < 0.01, "{}", mean(&|c| c.cell_b));
        let heights = |sublattice: Sublattice| -> Vec<f64> {
            let columns =
                truth.columns.iter().filter(|c| c.sublattice() == Some(sublattice) && here(c.row, c.col));
            columns.map(|c| c.intensity).collect()
        };
        let moments = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64)
        };
        let (a, variance) = moments(&heights(Sublattice::A));
        assert!((a - (1.0 - 0.5 * fraction)).abs() < 0.006, "{a}");
        // Each of 50 atoms foreign by chance: the binomial's variance, times 0.5².
        let binomial = 0.25 * fraction * (1.0 - fraction) / 50.0;
        assert!((variance / binomial - 1.0).abs() < 0.25, "{variance} {binomial}");
        let (b, variance) = moments(&heights(Sublattice::B));
        assert!((b - 0.5 * (1.0 + 0.5 * fraction)).abs() < 1e-3 && variance < 1e-6, "{b} {variance}");
    }
}
