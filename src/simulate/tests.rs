//! The physics of whole frames.

use super::*;
use crate::frame::Sublattice;
use crate::material::ColumnShape;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::f64::consts::FRAC_PI_2;

mod defects;
mod everything;
mod fields;
mod measured;
mod regions;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(11)
}

/// A quiet microscope: expectations in place of counts.
fn quiet(shape: [usize; 2]) -> Microscope {
    Microscope { shape, shot_noise: false, probe_sigma_pm: 0.0, peak_counts: 1000.0, ..Microscope::default() }
}

/// Narrow columns that do not overlap: what is measured is then the column's own.
fn narrow() -> Columns {
    let shape = |intensity: f64| ColumnShape { intensity, sigma_pm: 45.0 };
    Columns { a: shape(1.0), b: shape(0.5), ..Columns::default() }
}

fn frame(specimen: &Specimen, microscope: &Microscope) -> SimulatedFrame {
    render(specimen, microscope, &mut rng()).unwrap()
}

/// Centre of mass of the pixels within `radius_px` of `(row, col)`, iterated until it rests.
fn centroid(frame: &SimulatedFrame, row: f64, col: f64, radius_px: f64) -> (f64, f64) {
    let (mut row, mut col) = (row, col);
    for _ in 0..30 {
        let (mut sum, mut sum_row, mut sum_col) = (0.0, 0.0, 0.0);
        for ((r, c), &value) in frame.pixels.indexed_iter() {
            let (dr, dc) = (r as f64 - row, c as f64 - col);
            // A Gaussian window is smooth, so the grid of pixels does not pull the result.
            let weight = f64::from(value) * (-(dr * dr + dc * dc) / (2.0 * radius_px * radius_px)).exp();
            sum += weight;
            sum_row += weight * dr;
            sum_col += weight * dc;
        }
        row += 2.0 * sum_row / sum;
        col += 2.0 * sum_col / sum;
    }
    (row, col)
}

fn central_cells(frame: &SimulatedFrame, margin: f64) -> Vec<TruthCell> {
    let [rows, cols] = [frame.pixels.nrows() as f64, frame.pixels.ncols() as f64];
    let inside = |at: f64, len: f64| (margin..len - margin).contains(&at);
    let cells = frame.truth.cells.iter().copied();
    cells.filter(|cell| inside(cell.row, rows) && inside(cell.col, cols)).collect()
}

#[test]
fn oxygen_and_interstitial_columns_are_in_the_truth_where_the_image_shows_them() {
    let mut specimen =
        Specimen { cell_a_pm: 400.0, cell_b_pm: 400.0, columns: narrow(), ..Specimen::default() };
    specimen.columns.o = Some(ColumnShape { intensity: 0.2, sigma_pm: 45.0 });
    let gap =
        Defect { kind: DefectKind::Interstitial, at_nm: [0.1, 0.1], intensity_ratio: 0.4, radius_nm: 0.0 };
    let plain = frame(&specimen, &quiet([129, 129]));
    let filled = frame(&Specimen { defects: vec![gap], ..specimen }, &quiet([129, 129]));
    let of = |frame: &SimulatedFrame, class| -> Vec<TruthColumn> {
        frame.truth.columns.iter().filter(|c| c.class == class).copied().collect()
    };
    let oxygen = of(&plain, ColumnClass::Oxygen);
    let cells = (129.0f64 * 15.0 / 400.0).powi(2);
    assert!((oxygen.len() as f64 - 2.0 * cells).abs() < 12.0, "{} for {cells} cells", oxygen.len());
    let middle =
        of(&plain, ColumnClass::A).into_iter().find(|a| (a.row - 64.0).hypot(a.col - 64.0) < 1e-9).unwrap();
    for [dx, dy] in [[200.0, 0.0], [-200.0, 0.0], [0.0, 200.0], [0.0, -200.0]] {
        let at = [middle.row + dy / 15.0, middle.col + dx / 15.0];
        let found = oxygen.iter().find(|o| (o.row - at[0]).hypot(o.col - at[1]) < 1e-9).unwrap();
        assert!((found.intensity - 0.2).abs() < 1e-12 && found.sublattice().is_none());
        // Half an edge from two A and two B columns, it stands out from its surroundings.
        let pixel = |row: f64, col: f64| plain.pixels[[row.round() as usize, col.round() as usize]];
        assert!((pixel(at[0], at[1]) - 200.0).abs() < 15.0, "{} of 200 counts", pixel(at[0], at[1]));
    }
    assert!(of(&plain, ColumnClass::Interstitial).is_empty());
    let [interstitial] = of(&filled, ColumnClass::Interstitial)[..] else { unreachable!() };
    // A quarter of the edges from the A column in the middle: 100 pm, 6.67 px.
    assert!(
        (interstitial.row - 70.0 - 2.0 / 3.0).abs() < 1e-9
            && (interstitial.col - 70.0 - 2.0 / 3.0).abs() < 1e-9
    );
    let gained = &filled.pixels - &plain.pixels;
    let (peak, most) = gained.indexed_iter().max_by(|one, other| one.1.total_cmp(other.1)).unwrap();
    assert_eq!(peak, (71, 71));
    // 0.4 of the B columns' or the A columns' height, as the truth has it, at a third of a pixel from its middle each way.
    let expected =
        1000.0 * interstitial.intensity * (-(2.0 * (15.0f64 / 3.0).powi(2)) / (2.0 * 45.0f64.powi(2))).exp();
    assert!((f64::from(*most) - expected).abs() < 0.01 * expected, "{most} {expected}");
}

#[test]
fn an_undistorted_lattice_has_no_polarization_and_its_own_cell() {
    let specimen = Specimen { cell_a_pm: 400.0, cell_b_pm: 380.0, columns: narrow(), ..Specimen::default() };
    let frame = frame(&specimen, &quiet([128, 160]));
    // 160 × 128 pixels of 15 pm hold 2400 × 1920 pm: 6.0 × 5.05 cells.
    assert!((28..=36).contains(&frame.truth.cells.len()), "{}", frame.truth.cells.len());
    for cell in &frame.truth.cells {
        assert_eq!((cell.p_x, cell.p_y), (0.0, 0.0));
        assert!((cell.cell_a - 400.0).abs() < 1e-9 && (cell.cell_b - 380.0).abs() < 1e-9);
        assert!((cell.cell_angle - FRAC_PI_2).abs() < 1e-12 && (cell.cell_area - 152_000.0).abs() < 1e-6);
        assert!(!cell.disturbed);
    }
    for column in frame
        .truth
        .columns
        .iter()
        .filter(|c| (20.0..108.0).contains(&c.row) && (20.0..140.0).contains(&c.col))
    {
        let (row, col) = centroid(&frame, column.row, column.col, 3.0);
        assert!((row - column.row).hypot(col - column.col) * 15.0 < 0.5, "{column:?} seen at {row} {col}");
    }
}

#[test]
fn planted_polarization_is_measured_in_the_image_under_any_rotation() {
    for (lattice_rad, scan_rad) in [(0.0, 0.0), (0.4, 0.0), (0.0, 0.9), (-1.1, 2.3)] {
        let specimen = Specimen {
            columns: narrow(),
            rotation_rad: lattice_rad,
            polarization: Polarization::Uniform { p_pm: [30.0, -12.0] },
            ..Specimen::default()
        };
        let microscope = Microscope { rotation_rad: scan_rad, center_nm: [3.3, -8.1], ..quiet([128, 128]) };
        let frame = frame(&specimen, &microscope);
        // Seen in a scan turned counter-clockwise, the lattice is turned clockwise.
        let [x, y] = super::microscope::turned([30.0, -12.0], lattice_rad - scan_rad);
        for cell in central_cells(&frame, 40.0) {
            assert!((cell.p_x - x).abs() < 1e-9 && (cell.p_y - y).abs() < 1e-9);
            let (b_row, b_col) = centroid(&frame, cell.b_row, cell.b_col, 3.0);
            let measured = [(b_col - cell.col) * 15.0, (b_row - cell.row) * 15.0];
            assert!((measured[0] - x).hypot(measured[1] - y) < 0.5, "{measured:?}, expected {x} {y}");
        }
    }
}

#[test]
fn cell_a_is_the_edge_nearer_to_the_image_x_axis() {
    let specimen = Specimen {
        cell_a_pm: 400.0,
        cell_b_pm: 380.0,
        cell_angle_rad: FRAC_PI_2 + 0.03,
        rotation_rad: FRAC_PI_2 - 0.2,
        ..Specimen::default()
    };
    let frame = frame(&specimen, &quiet([64, 64]));
    let cell = frame.truth.cells[0];
    assert!((cell.cell_a - 380.0).abs() < 1e-9 && (cell.cell_b - 400.0).abs() < 1e-9);
    // The lattice's a now points up, and its b, turned to point right, becomes the image's a: the angle from it
    // to the lattice's a, turned to point down, is the supplement.
    assert!((cell.cell_angle - (FRAC_PI_2 - 0.03)).abs() < 1e-9, "{}", cell.cell_angle);
    assert!((cell.cell_area - 152_000.0 * 0.03f64.cos()).abs() < 1e-6);
}

#[test]
fn the_sites_of_a_specimen_stay_where_they_are_when_the_scan_moves() {
    let specimen = Specimen {
        static_displacement_pm: 8.0,
        roughness: 0.1,
        seed: 5,
        defects: vec![Defect {
            kind: DefectKind::VacancyB,
            at_nm: [20.0, -31.0],
            intensity_ratio: 0.2,
            radius_nm: 0.0,
        }],
        ..Specimen::default()
    };
    let one = Microscope { center_nm: [20.2, -30.8], ..quiet([128, 128]) };
    let other = Microscope { center_nm: [19.6, -31.3], rotation_rad: 0.5, ..quiet([160, 128]) };
    let (seen, seen_again) = (frame(&specimen, &one).truth, frame(&specimen, &other).truth);
    let mut shared = 0;
    for column in &seen.columns {
        let [row, col] = other.specimen_nm_to_pixel(one.pixel_to_specimen_nm(column.row, column.col));
        if !(1.0..158.0).contains(&row) || !(1.0..126.0).contains(&col) {
            continue;
        }
        let twin = seen_again.columns.iter().find(|c| (c.row - row).hypot(c.col - col) < 1e-6);
        assert_eq!(twin.unwrap().intensity, column.intensity);
        shared += 1;
    }
    assert!(shared > 20, "{shared}");
    let [vacancy] = &seen.defects[..] else { panic!("{:?}", seen.defects) };
    let [y, x] = one.pixel_to_specimen_nm(vacancy.row, vacancy.col);
    // Nearest B site: within half a cell's diagonal, and its own displacement.
    assert!((y - 20.0).hypot(x + 31.0) < 0.31, "{y} {x}");
    assert_eq!(seen.cells.iter().filter(|c| c.disturbed).count(), 1);
}

#[test]
fn a_seed_gives_the_same_frame_and_another_seed_another() {
    let (specimen, microscope) = random_scene(&TrainingRanges::default(), [64, 64], &mut rng());
    let once = render(&specimen, &microscope, &mut rng()).unwrap();
    let again = render(&specimen, &microscope, &mut rng()).unwrap();
    assert_eq!(once.pixels, again.pixels);
    assert_eq!(once.truth, again.truth);
    let other = Specimen { seed: specimen.seed ^ 1, ..specimen.clone() };
    assert_ne!(render(&other, &microscope, &mut rng()).unwrap().truth, once.truth);
}

#[test]
fn counts_scatter_as_poisson_about_the_expectation() {
    let specimen = Specimen {
        background: Background { level: 0.2, gradient_per_nm: [0.0, 0.0] },
        ..Specimen::default()
    };
    let expected = frame(&specimen, &Microscope { peak_counts: 50.0, ..quiet([128, 128]) }).pixels;
    let noisy = Microscope { peak_counts: 50.0, shot_noise: true, ..quiet([128, 128]) };
    let counted = frame(&specimen, &noisy).pixels;
    let n = expected.len() as f64;
    let scaled = |k: i32| -> f64 {
        let terms = counted.iter().zip(&expected).map(|(c, e)| f64::from((c - e) / e.sqrt()).powi(k));
        terms.sum::<f64>() / n
    };
    assert!(scaled(1).abs() < 0.04, "mean {}", scaled(1));
    assert!((scaled(2) - 1.0).abs() < 0.04, "variance over mean {}", scaled(2));
    // The A columns peak at the background and the peak counts; neighbours add little.
    let brightest = expected.iter().fold(0f32, |m, v| m.max(*v));
    assert!((58.0..64.0).contains(&brightest), "{brightest}");
}

#[test]
fn mistilt_takes_half_of_its_offset_from_the_apparent_polarization() {
    let specimen = Specimen {
        columns: narrow(),
        polarization: Polarization::Uniform { p_pm: [20.0, 0.0] },
        ..Specimen::default()
    };
    let microscope =
        Microscope { tilt_offset_pm: [16.0, -8.0], rotation_rad: FRAC_PI_2, ..quiet([128, 128]) };
    let frame = frame(&specimen, &microscope);
    let cells = central_cells(&frame, 40.0);
    for cell in &cells {
        // In the image, the specimen's x axis points down: turned by -90°.
        assert!((cell.p_x).abs() < 1e-9 && (cell.p_y - 20.0).abs() < 1e-9);
        assert!((cell.mistilt_x - -4.0).abs() < 1e-9 && (cell.mistilt_y - -8.0).abs() < 1e-9, "{cell:?}");
    }
    let nearest = |row: f64, col: f64, sublattice: Sublattice| {
        let columns = frame.truth.columns.iter().filter(|c| c.sublattice() == Some(sublattice));
        let nearest = columns
            .min_by(|p, q| (p.row - row).hypot(p.col - col).total_cmp(&(q.row - row).hypot(q.col - col)));
        let nearest = nearest.unwrap();
        centroid(&frame, nearest.row, nearest.col, 3.0)
    };
    let cell = cells[0];
    let (b_row, b_col) = nearest(cell.b_row, cell.b_col, Sublattice::B);
    let half = 0.5 * 390.0 / 15.0;
    let corners = [(-half, -half), (-half, half), (half, -half), (half, half)]
        .map(|(row, col)| nearest(cell.row + row, cell.col + col, Sublattice::A));
    let mean_row = corners.iter().map(|c| c.0).sum::<f64>() / 4.0;
    let mean_col = corners.iter().map(|c| c.1).sum::<f64>() / 4.0;
    let apparent = [(b_col - mean_col) * 15.0, (b_row - mean_row) * 15.0];
    assert!((apparent[0] - -4.0).hypot(apparent[1] - 12.0) < 0.5, "{apparent:?}");
}

#[test]
fn drift_shears_the_frame_as_its_truth_says() {
    let specimen = Specimen { columns: narrow(), ..Specimen::default() };
    let microscope = Microscope { drift_pm: [120.0, -60.0], ..quiet([128, 128]) };
    let frame = frame(&specimen, &microscope);
    for column in frame
        .truth
        .columns
        .iter()
        .filter(|c| (20.0..108.0).contains(&c.row) && (20.0..108.0).contains(&c.col))
    {
        let (row, col) = centroid(&frame, column.row, column.col, 3.0);
        assert!((row - column.row).hypot(col - column.col) * 15.0 < 0.5);
    }
    // Moving up by 60 pm in a frame of 1920 pm, the specimen shrinks to 1920 / 1980 along y.
    let cell = frame.truth.cells[0];
    assert!((cell.cell_area - 390.0 * 390.0 * 1920.0 / 1980.0).abs() < 1e-6, "{}", cell.cell_area);
    assert_eq!((cell.p_x, cell.p_y), (0.0, 0.0));
}

#[test]
fn an_amorphous_patch_has_no_columns_and_marks_its_cells() {
    let patch =
        Defect { kind: DefectKind::Amorphous, at_nm: [0.0, 0.0], intensity_ratio: 0.0, radius_nm: 1.2 };
    let specimen = Specimen { defects: vec![patch], ..Specimen::default() };
    let truth = frame(&specimen, &quiet([256, 256])).truth;
    assert_eq!(truth.defects.len(), 1);
    let from_center = |row: f64, col: f64| (row - 127.5).hypot(col - 127.5) * 15.0;
    assert!(truth.columns.iter().all(|c| from_center(c.row, c.col) > 1199.0));
    for cell in &truth.cells {
        let distance = from_center(cell.row, cell.col);
        assert!(!cell.disturbed || distance < 1200.0 + 276.0);
        assert!(cell.disturbed || distance > 1200.0 - 276.0);
    }
}

#[test]
fn cells_follow_from_the_columns_they_are_made_of() {
    let specimen = Specimen {
        static_displacement_pm: 8.0,
        cell_a_pm: 410.0,
        cell_angle_rad: FRAC_PI_2 - 0.02,
        rotation_rad: 0.7,
        polarization: Polarization::Vortex {
            center_nm: [0.2, -0.1],
            core_nm: 0.8,
            magnitude_pm: 40.0,
            counter_clockwise: true,
        },
        ..Specimen::default()
    };
    let microscope = Microscope { drift_pm: [50.0, 30.0], rotation_rad: -0.2, ..quiet([160, 160]) };
    let truth = frame(&specimen, &microscope).truth;
    let nearest = |cell: &TruthCell, sublattice: Sublattice, count: usize| {
        let distance = |c: &TruthColumn| (c.row - cell.row).hypot(c.col - cell.col);
        let mut columns: Vec<TruthColumn> =
            truth.columns.iter().copied().filter(|c| c.sublattice() == Some(sublattice)).collect();
        columns.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        columns.truncate(count);
        columns
    };
    let inner = |cell: &&TruthCell| (30.0..130.0).contains(&cell.row) && (30.0..130.0).contains(&cell.col);
    let mut checked = 0;
    for cell in truth.cells.iter().filter(inner) {
        let b = nearest(cell, Sublattice::B, 1)[0];
        let mut corners = nearest(cell, Sublattice::A, 4);
        let mean = |of: fn(&TruthColumn) -> f64| corners.iter().map(of).sum::<f64>() / 4.0;
        let (row, col) = (mean(|c| c.row), mean(|c| c.col));
        assert!((row - cell.row).hypot(col - cell.col) < 1e-9);
        let p = [(b.col - col) * 15.0, (b.row - row) * 15.0];
        assert!((p[0] - cell.p_x).hypot(p[1] - cell.p_y) < 1e-9, "{p:?} {cell:?}");
        // Shoelace formula round the corners in their order.
        corners.sort_by(|c, d| (c.row - row).atan2(c.col - col).total_cmp(&(d.row - row).atan2(d.col - col)));
        let edge = |k: usize| {
            let (c, d) = (&corners[k % 4], &corners[(k + 1) % 4]);
            [(d.col - c.col) * 15.0, (d.row - c.row) * 15.0]
        };
        let twice: f64 = (0..4)
            .map(|k| corners[k].col * corners[(k + 1) % 4].row - corners[(k + 1) % 4].col * corners[k].row)
            .sum();
        assert!((0.5 * twice.abs() * 225.0 - cell.cell_area).abs() < 1e-6);
        let length = |k: usize| edge(k)[0].hypot(edge(k)[1]);
        let pairs = [0.5 * (length(0) + length(2)), 0.5 * (length(1) + length(3))];
        let flat = |k: usize| edge(k)[0].abs() + edge(k + 2)[0].abs();
        let (a, b_edge) = if flat(0) > flat(1) { (pairs[0], pairs[1]) } else { (pairs[1], pairs[0]) };
        assert!((a - cell.cell_a).abs() < 1e-9 && (b_edge - cell.cell_b).abs() < 1e-9);
        checked += 1;
    }
    assert!(checked >= 10, "{checked}");
}
