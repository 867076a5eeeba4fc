//! Tests of what the microscope's imperfections do to whole frames.

mod reference;

use super::*;
use crate::frame::Sublattice;
use crate::material::ColumnShape;
use ndarray::Array2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::f64::consts::FRAC_PI_2;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn quiet(shape: [usize; 2]) -> Microscope {
    Microscope { shape, shot_noise: false, probe_sigma_pm: 0.0, peak_counts: 1000.0, ..Microscope::default() }
}

/// A columns far apart and nothing else, so that each can be measured by itself.
fn sparse() -> Specimen {
    Specimen {
        cell_a_pm: 800.0,
        cell_b_pm: 800.0,
        columns: Columns {
            a: ColumnShape { intensity: 1.0, sigma_pm: 60.0 },
            b: ColumnShape { intensity: 0.0, sigma_pm: 60.0 },
            ..Columns::default()
        },
        ..Specimen::default()
    }
}

/// Both sublattices, far apart.
fn sparse_ab() -> Specimen {
    let mut specimen = sparse();
    specimen.columns.b = ColumnShape { intensity: 0.5, sigma_pm: 60.0 };
    specimen
}

/// Mass, centre `[row, col]` and central second moments `[rr, rc, cc]` of the pixels within `radius` of `(row, col)`.
struct Moments {
    mass: f64,
    center: [f64; 2],
    second: [f64; 3],
    peak: f64,
}

fn moments(pixels: &Array2<f32>, [row, col]: [f64; 2], radius: f64) -> Moments {
    let near = || {
        pixels.indexed_iter().filter_map(move |((r, c), v)| {
            let (dr, dc) = (r as f64 - row, c as f64 - col);
            (dr.hypot(dc) <= radius).then_some((dr, dc, f64::from(*v)))
        })
    };
    let mass: f64 = near().map(|(.., v)| v).sum();
    let mean = |of: &dyn Fn(f64, f64) -> f64| near().map(|(r, c, v)| v * of(r, c)).sum::<f64>() / mass;
    let (mr, mc) = (mean(&|r, _| r), mean(&|_, c| c));
    Moments {
        mass,
        center: [row + mr, col + mc],
        second: [
            mean(&|r, _| (r - mr).powi(2)),
            mean(&|r, c| (r - mr) * (c - mc)),
            mean(&|_, c| (c - mc).powi(2)),
        ],
        peak: near().map(|(.., v)| v).fold(0.0, f64::max),
    }
}

/// Columns of the truth that lie well inside.
fn inner(frame: &SimulatedFrame, sublattice: Sublattice, margin: f64) -> Vec<TruthColumn> {
    let [rows, cols] = [frame.pixels.nrows() as f64, frame.pixels.ncols() as f64];
    let inside = |at: f64, len: f64| (margin..len - margin).contains(&at);
    let columns = frame.truth.columns.iter().copied();
    columns
        .filter(|c| c.sublattice() == Some(sublattice) && inside(c.row, rows) && inside(c.col, cols))
        .collect()
}

/// Everything on at once, on a crystal with everything in it.
fn everything(shape: [usize; 2]) -> (Specimen, Microscope) {
    let specimen = Specimen {
        rotation_rad: 0.3,
        static_displacement_pm: 4.0,
        roughness: 0.05,
        columns: Columns {
            o: Some(ColumnShape { intensity: 0.08, sigma_pm: 70.0 }),
            tail_fraction: 0.2,
            ..Columns::default()
        },
        thickness: Thickness { rms: 0.05, wavelength_nm: 5.0, widening: 0.0 },
        background: Background { level: 0.25, gradient_per_nm: [0.01, -0.004] },
        bends: vec![Bend {
            center_nm: [1.0, 1.0],
            radius_nm: 3.0,
            tilt_mrad: [6.0, -5.0],
            tilt_offset_pm: [0.0, 4.0],
        }],
        ..Specimen::default()
    };
    let distortions = Distortions {
        drift_curve_pm: [30.0, -20.0],
        flagging: Flagging { rms_pm: 8.0, lines: 25.0 },
        hum: Hum { amplitude_pm: [10.0, 6.0], ..Hum::default() },
        flyback: Flyback { offset_pm: 60.0, settling_us: 25.0 },
        jumps: Jumps { probability: 0.004, rms_pm: 20.0 },
        lost_lines: LostLines { probability: 0.004, shown_as: LostAs::Blank },
        flicker: Flicker { line_rms: 0.01, slow_rms: 0.02, ..Flicker::default() },
    };
    let microscope = Microscope {
        shape,
        dwell_us: 2.0,
        line_overhead_us: 100.0,
        rotation_rad: 0.2,
        pixel_aspect: 1.02,
        peak_counts: 150.0,
        astigmatism_pm: 25.0,
        astigmatism_rad: 0.6,
        defocus_nm: 2.0,
        drift_pm: [40.0, 25.0],
        line_jitter_pm: 6.0,
        dark_counts: 1.0,
        tilt_offset_pm: [3.0, 2.0],
        tilt: Tilt { mrad: [5.0, 3.0], gradient_x_mrad_per_nm: [0.5, 0.2], ..Tilt::default() },
        distortions,
        detector: Detector {
            gain: 1.7,
            offset: 12.0,
            read_noise: 2.5,
            full_well_counts: Some(190.0),
            afterglow: Afterglow { fraction: 0.15, decay_us: 1.5 },
            smoothing_px: 1.0,
            pixel_type: PixelType::U16,
        },
        ..Microscope::default()
    };
    (specimen, microscope)
}

#[test]
fn drawing_agrees_with_the_formula_to_a_ten_thousandth_of_the_peak() {
    let (specimen, microscope) = everything([96, 112]);
    let detector = Detector { full_well_counts: None, ..Detector::default() };
    let distortions = Distortions {
        flicker: Flicker::default(),
        lost_lines: LostLines::default(),
        ..microscope.distortions
    };
    let microscope = Microscope { shot_noise: false, detector, distortions, ..microscope };
    // The background comes from a mesh, which a slow variation of the thickness does not show.
    let specimen =
        Specimen { thickness: Thickness { rms: 0.05, wavelength_nm: 40.0, widening: 0.0 }, ..specimen };
    let frame = render(&specimen, &microscope, &mut rng(8)).unwrap();
    let worst = reference::worst_deviation(&specimen, &microscope, &frame);
    assert!(worst < 1e-4, "{worst} of the peak");
}

#[test]
fn the_same_seed_gives_the_same_frame_bit_by_bit() {
    let (specimen, microscope) = everything([64, 80]);
    let [first, again, other] = [3, 3, 4].map(|seed| render(&specimen, &microscope, &mut rng(seed)).unwrap());
    assert_eq!(first.pixels, again.pixels);
    assert_eq!(first.truth, again.truth);
    assert_ne!(first.pixels, other.pixels);
    assert_ne!(first.truth.scan, other.truth.scan);
}

#[test]
fn counts_of_a_frame_have_the_variance_of_their_mean() {
    let specimen = Specimen {
        columns: Columns { tail_fraction: 0.2, ..Columns::default() },
        background: Background { level: 0.1, ..Background::default() },
        ..Specimen::default()
    };
    let microscope =
        Microscope { shape: [256, 256], peak_counts: 40.0, dark_counts: 2.0, ..Microscope::default() };
    let expected = render(&specimen, &Microscope { shot_noise: false, ..microscope.clone() }, &mut rng(1));
    let expected = expected.unwrap().pixels;
    let counts = render(&specimen, &microscope, &mut rng(2)).unwrap().pixels;
    assert!(counts.iter().all(|v| v.fract() == 0.0 && *v >= 0.0));
    let n = expected.len() as f64;
    let pairs = || counts.iter().zip(&expected).map(|(c, e)| (f64::from(*c), f64::from(*e)));
    let mean_z: f64 = pairs().map(|(c, e)| (c - e) / e.sqrt()).sum::<f64>() / n;
    let mean_z2: f64 = pairs().map(|(c, e)| (c - e).powi(2) / e).sum::<f64>() / n;
    assert!(mean_z.abs() < 5.0 / n.sqrt(), "{mean_z}");
    assert!((mean_z2 - 1.0).abs() < 5.0 * (2.3 / n).sqrt(), "{mean_z2}");
}

#[test]
fn a_planted_site_appears_where_scan_and_sub_scan_say() {
    // A site at the origin, seen off the centre of scans that are turned, stretched and cut. The image position is worked from
    // the definitions, not with the code that drew it.
    let specimen = sparse();
    for (rotation_rad, sub_rad, aspect) in
        [(0.0, 0.0, 1.0), (FRAC_PI_2, 0.0, 1.0), (0.5, -0.3, 1.0), (-2.0, 0.8, 1.25)]
    {
        let sub_scan = SubScan {
            fractional_size: [0.25, 0.25],
            fractional_center: [0.6, 0.3],
            rotation_rad: sub_rad,
            shape: Some([100, 120]),
        };
        let full = Microscope {
            rotation_rad,
            pixel_aspect: aspect,
            center_nm: [0.0, 0.0],
            sub_scan: Some(sub_scan),
            ..quiet([400, 400])
        };
        let [fov_y_pm, fov_x_pm] = [400.0 * 15.0 * aspect, 400.0 * 15.0];
        // The sub-scan's middle in the full image, turned counter-clockwise (with y down) into the specimen.
        let turned = |[x, y]: [f64; 2], angle: f64| {
            [x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()]
        };
        let middle = turned([-0.2 * fov_x_pm, 0.1 * fov_y_pm], rotation_rad);
        // Nearest site of the 800 pm lattice to that, from the middle, turned back into the image.
        let site = middle.map(|m| (m / 800.0).round() * 800.0);
        let [x, y] = turned([site[0] - middle[0], site[1] - middle[1]], -(rotation_rad + sub_rad));
        let [high_pm, wide_pm] = [0.25 * fov_y_pm / 100.0, 0.25 * fov_x_pm / 120.0];
        let expected = [49.5 + y / high_pm, 59.5 + x / wide_pm];
        let frame = render(&specimen, &full, &mut rng(1)).unwrap();
        assert_eq!(frame.pixels.dim(), (100, 120));
        let nearest = frame
            .truth
            .columns
            .iter()
            .filter(|c| c.class == ColumnClass::A)
            .map(|c| (c.row - expected[0]).hypot(c.col - expected[1]));
        assert!(nearest.fold(f64::INFINITY, f64::min) < 1e-6);
        let found = moments(&frame.pixels, expected, 20.0).center;
        let off = (found[0] - expected[0]).hypot(found[1] - expected[1]);
        assert!(off < 0.05, "{found:?}, expected {expected:?}");
        let [y_nm, x_nm] = full.pixel_to_specimen_nm(expected[0], expected[1]);
        assert!((x_nm - site[0] * 1e-3).hypot(y_nm - site[1] * 1e-3) < 1e-9);
    }
}

#[test]
fn defocus_widens_columns_as_predicted_and_keeps_their_electrons() {
    let in_focus = Microscope { pixel_size_pm: 10.0, ..quiet([240, 240]) };
    // 5 nm at 32 mrad: a disc of 160 pm, σ 80 pm; with the column's 60 pm, 100 pm.
    let defocused = Microscope { defocus_nm: 5.0, convergence_mrad: 32.0, ..in_focus.clone() };
    let [sharp, wide] = [in_focus, defocused].map(|scope| {
        let frame = render(&sparse(), &scope, &mut rng(1)).unwrap();
        moments(&frame.pixels, [119.5, 119.5], 38.0)
    });
    assert!((sharp.second[0].sqrt() - 6.0).abs() < 0.02, "{}", sharp.second[0]);
    assert!((wide.second[0].sqrt() - 10.0).abs() < 0.1, "{}", wide.second[0]);
    assert!((wide.mass / sharp.mass - 1.0).abs() < 0.01, "{} {}", wide.mass, sharp.mass);
    assert!((wide.peak / sharp.peak - 0.36).abs() < 0.005, "{} {}", wide.peak, sharp.peak);
}

#[test]
fn tilt_moves_a_twice_as_far_as_b_dims_and_lengthens_along_itself() {
    // 20 mrad toward 30° below the x axis of the specimen, in a scan that is turned by 90°: right is the specimen's up.
    let mrad = [20.0 * 0.75f64.sqrt(), 10.0];
    let scope = Microscope { pixel_size_pm: 10.0, rotation_rad: FRAC_PI_2, ..quiet([300, 300]) };
    let tilted = Microscope { tilt: Tilt { mrad, ..Tilt::default() }, ..scope.clone() };
    let [flat, leaning] = [&scope, &tilted].map(|scope| render(&sparse_ab(), scope, &mut rng(1)).unwrap());
    for cell in &leaning.truth.cells {
        // The specimen's x (right) is the image's down, its y (down) the image's left... turned by -90°.
        assert!((cell.tilt_x_mrad + mrad[1]).abs() < 1e-9 && (cell.tilt_y_mrad - mrad[0]).abs() < 1e-9);
        let half_shift = 0.5 * 0.7;
        assert!((cell.mistilt_x - half_shift * mrad[1]).abs() < 1e-9, "{cell:?}");
        assert!((cell.mistilt_y + half_shift * mrad[0]).abs() < 1e-9, "{cell:?}");
        assert!(cell.p_x.abs() < 1e-9 && cell.p_y.abs() < 1e-9);
    }
    for (sublattice, pm_per_mrad) in [(Sublattice::A, 0.7), (Sublattice::B, 0.35)] {
        let column = inner(&flat, sublattice, 45.0)[0];
        let before = moments(&flat.pixels, [column.row, column.col], 28.0);
        let after = moments(&leaning.pixels, [column.row, column.col], 28.0);
        let moved = [0, 1].map(|k| 10.0 * (after.center[k] - before.center[k]));
        let expected = [pm_per_mrad * mrad[0], -pm_per_mrad * mrad[1]];
        assert!((moved[0] - expected[0]).abs() < 0.4 && (moved[1] - expected[1]).abs() < 0.4, "{moved:?}");
        // Contrast 1 / (1 + (20 / 33)²), and 20 pm longer in quadrature along the tilt, [row, col] = (0.866, -0.5).
        let contrast = 1.0 / (1.0 + (20.0f64 / 33.0).powi(2));
        assert!((after.peak / before.peak - contrast).abs() < 0.01, "{} {}", after.peak, before.peak);
        let [rr, rc, cc] = [0, 1, 2].map(|k| 100.0 * (after.second[k] - before.second[k]));
        assert!((rr - 300.0).abs() < 12.0 && (cc - 100.0).abs() < 12.0, "{rr} {cc}");
        assert!((rc + 400.0 * 0.75f64.sqrt() * 0.5).abs() < 12.0, "{rc}");
    }
}

#[test]
fn tilt_varies_over_the_field_as_bends_and_gradient_say() {
    let mut specimen = sparse_ab();
    specimen.bends = vec![Bend {
        center_nm: [0.0, 0.0],
        radius_nm: 0.8,
        tilt_mrad: [0.0, 12.0],
        tilt_offset_pm: [0.0, 0.0],
    }];
    let tilt = Tilt { gradient_x_mrad_per_nm: [2.0, 0.0], ..Tilt::default() };
    let frame = render(&specimen, &Microscope { tilt, ..quiet([320, 320]) }, &mut rng(1)).unwrap();
    assert!(frame.truth.cells.len() >= 16);
    for cell in &frame.truth.cells {
        let (x, y) = ((cell.b_col - 159.5) * 0.015, (cell.b_row - 159.5) * 0.015);
        let bend = 12.0 * (-0.5 * (x * x + y * y) / 0.64).exp();
        assert!((cell.tilt_x_mrad - 2.0 * x).abs() < 1e-9 && (cell.tilt_y_mrad - bend).abs() < 1e-9);
    }
}

#[test]
fn columns_appear_where_the_scan_field_says() {
    let distortions = Distortions {
        drift_curve_pm: [150.0, -120.0],
        flagging: Flagging { rms_pm: 40.0, lines: 80.0 },
        flyback: Flyback { offset_pm: 90.0, settling_us: 150.0 },
        hum: Hum { amplitude_pm: [15.0, 10.0], ..Hum::default() },
        ..Distortions::default()
    };
    let scope = Microscope { distortions, line_overhead_us: 50.0, ..quiet([320, 320]) };
    let frame = render(&sparse(), &scope, &mut rng(6)).unwrap();
    let mut farthest: f64 = 0.0;
    for column in inner(&frame, Sublattice::A, 40.0) {
        let truth = [column.row, column.col];
        let imaged = frame.truth.scan.imaged_px(truth, 4.0);
        let seen = moments(&frame.pixels, imaged, 18.0).center;
        let off = (seen[0] - imaged[0]).hypot(seen[1] - imaged[1]);
        assert!(off < 0.15, "{seen:?}, expected {imaged:?}, true {truth:?}");
        farthest = farthest.max((seen[0] - truth[0]).hypot(seen[1] - truth[1]));
    }
    assert!(farthest > 3.0, "{farthest}");
    // Columns at the left lie further left in the image than they are: the beam is still to the right of its place.
    let flyback = Distortions { flyback: distortions.flyback, ..Distortions::default() };
    let frame = render(&sparse(), &Microscope { distortions: flyback, ..scope }, &mut rng(6)).unwrap();
    let column =
        inner(&frame, Sublattice::A, 20.0).into_iter().min_by(|a, b| a.col.total_cmp(&b.col)).unwrap();
    let seen = moments(&frame.pixels, [column.row, column.col], 20.0).center;
    let expected = 6.0 * (-column.col * 4.0 / 150.0).exp();
    assert!(
        expected > 1.0 && (column.col - seen[1] - expected).abs() < 0.2 * expected,
        "{seen:?} {column:?}"
    );
}

#[test]
fn drift_shears_columns_apart_as_predicted() {
    // Right by 2 % of the frame's height during the frame: lines are sheared by 1 in 50; down by 1 %: stretched by 1 / 0.99.
    let scope = quiet([320, 320]);
    let height_pm = 320.0 * 15.0;
    let drifting = Microscope { drift_pm: [0.02 * height_pm, 0.01 * height_pm], ..scope };
    let frame = render(&sparse(), &drifting, &mut rng(1)).unwrap();
    for column in inner(&frame, Sublattice::A, 40.0) {
        let seen = moments(&frame.pixels, [column.row, column.col], 20.0).center;
        assert!((seen[0] - column.row).hypot(seen[1] - column.col) < 0.05);
        // Site numbers from the position without drift.
        let row = (column.row - 159.5) * 0.99;
        let col = column.col - 159.5 - 0.02 * (column.row - 159.5);
        for at in [row, col] {
            let cells = at * 15.0 / 800.0;
            assert!((cells - cells.round()).abs() < 1e-9, "{column:?}");
        }
    }
}

#[test]
fn saturation_and_lost_lines_are_marked_in_the_truth() {
    let distortions = Distortions {
        lost_lines: LostLines { probability: 0.1, shown_as: LostAs::Blank },
        ..Distortions::default()
    };
    let detector = Detector { full_well_counts: Some(600.0), offset: 5.0, ..Detector::default() };
    let frame =
        render(&sparse(), &Microscope { distortions, detector, ..quiet([200, 200]) }, &mut rng(1)).unwrap();
    let saturated = frame.truth.saturated.unwrap();
    let lost = &frame.truth.scan.lost;
    assert!((8..=35).contains(&lost.len()), "{}", lost.len());
    for ((row, col), value) in frame.pixels.indexed_iter() {
        let expected = if lost.contains(&row) { 0.0 } else { 605.0 };
        assert_eq!(*value == expected, lost.contains(&row) || saturated[[row, col]], "{row} {col} {value}");
    }
    assert!(saturated.iter().any(|s| *s));
}

#[test]
fn flicker_shows_in_the_lines_and_in_the_truth() {
    let flicker = Flicker { line_rms: 0.03, slow_rms: 0.06, slow_lines: 50.0 };
    let distortions = Distortions { flicker, ..Distortions::default() };
    let specimen = Specimen { background: Background { level: 1.0, ..Background::default() }, ..sparse() };
    let scope = quiet([400, 64]);
    let [steady, frame] = [Distortions::default(), distortions].map(|distortions| {
        render(&specimen, &Microscope { distortions, ..scope.clone() }, &mut rng(1)).unwrap()
    });
    assert_eq!(frame.truth.scan.current.len(), 400);
    for (row, current) in frame.truth.scan.current.iter().enumerate() {
        let ratio = frame.pixels.row(row).sum() / steady.pixels.row(row).sum();
        assert!((ratio - current).abs() < 1e-4, "{ratio} {current}");
    }
}
