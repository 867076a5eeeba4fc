//! Grains, faults, inclusions, surfaces: which lattice stands where.

use super::*;

fn circle(radius_nm: f64) -> Shape {
    Shape::Circle { center_nm: [0.0, 0.0], radius_nm }
}

fn right_half() -> Shape {
    Shape::HalfPlane { at_nm: [0.0, 0.05], normal_rad: 0.0, edge: Edge::default() }
}

fn with_region(shape: Shape, content: Content) -> Specimen {
    Specimen { columns: narrow(), regions: vec![Region { shape, content }], ..Specimen::default() }
}

/// Distance from a place `[row, col]` to the nearest column of a sublattice, pm.
fn from_nearest(truth: &Truth, sublattice: Sublattice, [row, col]: [f64; 2]) -> f64 {
    let columns = truth.columns.iter().filter(|c| c.sublattice() == Some(sublattice));
    columns.map(|c| (c.row - row).hypot(c.col - col) * 15.0).fold(f64::INFINITY, f64::min)
}

/// The sites of the host, with the distance of each from the middle of the frame to the right, pm.
fn host_sites(microscope: &Microscope) -> Vec<([f64; 2], f64)> {
    let specimen = Specimen { columns: narrow(), ..Specimen::default() };
    let truth = frame(&specimen, microscope).truth;
    let a = truth.columns.iter().filter(|c| c.class == ColumnClass::A);
    a.map(|c| ([c.row, c.col], (c.col - 127.5) * 15.0)).collect()
}

#[test]
fn beyond_an_antiphase_boundary_a_and_b_have_changed_places() {
    let truth =
        frame(&with_region(right_half(), Content::Antiphase { shift_cells: [0.5, 0.5] }), &quiet([256, 256]))
            .truth;
    let mut beyond = 0;
    for (site, x_pm) in host_sites(&quiet([256, 256])) {
        let (a, b) = (from_nearest(&truth, Sublattice::A, site), from_nearest(&truth, Sublattice::B, site));
        if x_pm < -50.0 {
            assert!(a < 1e-6);
        } else if x_pm > 500.0 {
            assert!(b < 1e-6 && a > 250.0, "{site:?}: {a} {b}");
            beyond += 1;
        }
    }
    assert!(beyond > 20);
    let [boundary] = &truth.defects[..] else { panic!("{:?}", truth.defects) };
    assert_eq!(boundary.kind, DefectKind::Antiphase);
    let beyond = truth.cells.iter().filter(|c| c.region == Some(DefectKind::Antiphase));
    assert!(beyond.clone().count() > 20 && beyond.clone().all(|c| !c.disturbed && c.p_x.abs() < 1e-9));
}

#[test]
fn a_stacking_fault_shifts_its_strip_by_the_fault_vector() {
    let shape = Shape::Strip { at_nm: [0.0, 0.0], normal_rad: 0.0, width_nm: 1.5, edge: Edge::default() };
    let specimen = with_region(shape, Content::StackingFault { shift_cells: [0.0, 0.3] });
    let truth = frame(&specimen, &quiet([256, 256])).truth;
    let mut inside = 0;
    for (site, x_pm) in host_sites(&quiet([256, 256])) {
        let shifted = [site[0] + 0.3 * 26.0, site[1]];
        if x_pm.abs() < 500.0 && shifted[0] < 250.0 {
            assert!(from_nearest(&truth, Sublattice::A, shifted) < 1e-6, "{site:?}");
            inside += 1;
        } else if x_pm.abs() > 800.0 {
            assert!(from_nearest(&truth, Sublattice::A, site) < 1e-6);
        }
    }
    assert!(inside >= 18, "{inside}");
    // Both of its sides are marked.
    let sides: Vec<f64> = truth.defects.iter().map(|d| (d.col - 127.5) * 15.0).collect();
    assert_eq!(truth.defects.iter().filter(|d| d.kind == DefectKind::StackingFault).count(), 2);
    assert!(sides.iter().any(|x| (x - 750.0).abs() < 1.0) && sides.iter().any(|x| (x + 750.0).abs() < 1.0));
}

#[test]
fn a_fault_that_takes_out_a_layer_leaves_two_a_layers_side_by_side() {
    // Ruddlesden–Popper: beyond the boundary, between an A layer and the next B layer, all is shifted by (½, ½).
    let shape = Shape::HalfPlane { at_nm: [0.0, 0.1], normal_rad: 0.0, edge: Edge::default() };
    let specimen = with_region(shape, Content::StackingFault { shift_cells: [0.5, 0.5] });
    let truth = frame(&specimen, &quiet([256, 256])).truth;
    let mut layers: Vec<(i64, ColumnClass)> = truth
        .columns
        .iter()
        .map(|c| (((c.col - 127.5) * 15.0 / 195.0).round() as i64, c.class))
        .filter(|(layer, _)| layer.abs() <= 4)
        .collect();
    layers.sort_by_key(|(layer, class)| (*layer, *class as u8));
    layers.dedup();
    let kinds: String = layers.iter().map(|(_, s)| if *s == ColumnClass::A { 'A' } else { 'B' }).collect();
    assert_eq!(kinds, "ABABAABAB", "{layers:?}");
}

#[test]
fn a_grain_is_turned_and_meets_the_host_without_crowding() {
    let grain = Content::Grain { rotation_rad: 0.3, shift_pm: [120.0, 50.0] };
    for shape in [circle(2.0), right_half()] {
        let specimen = with_region(shape, grain.clone());
        let frame = frame(&specimen, &quiet([384, 384]));
        let truth = &frame.truth;
        let inside: Vec<&TruthCell> =
            truth.cells.iter().filter(|c| c.region == Some(DefectKind::Grain)).collect();
        assert!(inside.len() >= 30, "{}", inside.len());
        for cell in &inside {
            // The neighbouring cell along a lies at 0.3 rad, up to the right.
            let ahead = [cell.row - 26.0 * 0.3f64.sin(), cell.col + 26.0 * 0.3f64.cos()];
            let next = inside.iter().map(|c| (c.row - ahead[0]).hypot(c.col - ahead[1]));
            let next = next.fold(f64::INFINITY, f64::min);
            assert!(!(1e-6..13.0).contains(&next), "{next}");
            assert!((cell.cell_area - 390.0 * 390.0).abs() < 1e-6 && cell.p_x.abs() < 1e-9);
        }
        for (n, one) in truth.columns.iter().enumerate() {
            for other in &truth.columns[n + 1..] {
                let apart = (one.row - other.row).hypot(one.col - other.col) * 15.0;
                assert!(apart >= 0.5 * 390.0 - 1e-6, "{apart}");
            }
        }
        // And without holes larger than a cell: every pixel is within one edge of a column.
        for k in 0..400 {
            let at = [40.0 + 15.2 * f64::from(k / 20), 40.0 + 15.2 * f64::from(k % 20)];
            let nearest = [Sublattice::A, Sublattice::B].map(|s| from_nearest(truth, s, at));
            assert!(nearest[0].min(nearest[1]) < 390.0, "{at:?}: {nearest:?}");
        }
        let kinds: Vec<DefectKind> = truth.defects.iter().map(|d| d.kind).collect();
        assert_eq!(kinds, [DefectKind::Grain, DefectKind::GrainBoundary]);
    }
}

#[test]
fn inclusions_have_their_own_cell_brightness_and_polarization() {
    let mut phase = Phase::of_material(&crate::material::Material::built_in("pbtio3").unwrap());
    phase.p_pm = [0.0, 15.7];
    phase.b.intensity = 0.3;
    let content = Content::Inclusion { phase, zone_axis: ZoneAxis::Z100, rotation_rad: FRAC_PI_2 };
    let truth = frame(&with_region(circle(2.2), content), &quiet([384, 384])).truth;
    let inside: Vec<&TruthCell> =
        truth.cells.iter().filter(|c| c.region == Some(DefectKind::Inclusion)).collect();
    assert!(inside.len() >= 40, "{}", inside.len());
    for cell in inside {
        // Turned by 90° counter-clockwise, its b, and P, point to the right.
        assert!((cell.cell_a - 415.6).abs() < 1e-6 && (cell.cell_b - 390.2).abs() < 1e-6, "{cell:?}");
        assert!((cell.p_x - 15.7).abs() < 1e-9 && cell.p_y.abs() < 1e-9, "{cell:?}");
    }
    assert!(truth.columns.iter().any(|c| c.class == ColumnClass::B && (c.intensity - 0.3).abs() < 1e-9));
}

#[test]
fn along_110_rows_are_nearer_by_the_root_of_two() {
    let content = Content::ZoneAxis { zone_axis: ZoneAxis::Z110, rotation_rad: 0.0 };
    let truth = frame(&with_region(circle(2.4), content), &quiet([384, 384])).truth;
    let middle = |c: &&TruthColumn| (c.row - 191.5).hypot(c.col - 191.5) < 100.0;
    let (mut a, mut b) = (0, 0);
    for column in truth.columns.iter().filter(middle) {
        let at = [column.row, column.col];
        let to =
            |dx: f64, dy: f64, s: Sublattice| from_nearest(&truth, s, [at[0] + dy / 15.0, at[1] + dx / 15.0]);
        let like = column.sublattice().unwrap();
        let other = if like == Sublattice::A { Sublattice::B } else { Sublattice::A };
        // Along [1 -1 0] every 390 / √2 pm, along [001] every 390 pm with the other sublattice halfway.
        assert!(to(390.0 / 2f64.sqrt(), 0.0, like) < 1e-6 && to(0.0, 390.0, like) < 1e-6);
        assert!(to(0.0, 195.0, other) < 1e-6);
        a += usize::from(like == Sublattice::A);
        b += usize::from(like == Sublattice::B);
    }
    assert!(a > 40 && b > 40);
    assert!(truth.cells.iter().all(|c| (c.row - 191.5).hypot(c.col - 191.5) * 15.0 > 2400.0 - 300.0));
    assert!(truth.defects.iter().any(|d| d.kind == DefectKind::ZoneAxis));
}

#[test]
fn beyond_the_surface_there_is_nothing_but_darkness() {
    let edge = Edge { roughness_nm: 0.3, wavelength_nm: 3.0 };
    let shape = Shape::HalfPlane { at_nm: [0.0, 0.0], normal_rad: FRAC_PI_2, edge };
    let specimen = Specimen {
        background: Background { level: 0.3, gradient_per_nm: [0.0, 0.0] },
        ..with_region(shape, Content::Vacuum)
    };
    let microscope = Microscope { dark_counts: 2.0, ..quiet([512, 512]) };
    let frame = frame(&specimen, &microscope);
    let mask = frame.truth.mask([512, 512]);
    let vacuum = DefectKind::Vacuum.code();
    for ((row, col), &value) in frame.pixels.indexed_iter() {
        if mask[[row, col]] == vacuum && row < 150 {
            assert!((value - 2.0).abs() < 0.05, "{row} {col}: {value}");
        }
        if row > 350 {
            assert!(value >= 302.0 - 1e-2, "{row} {col}: {value}");
        }
    }
    let [vacuum, surface] = &frame.truth.defects[..] else { panic!("{:?}", frame.truth.defects) };
    assert_eq!([vacuum.kind, surface.kind], [DefectKind::Vacuum, DefectKind::Surface]);
    // The surface is rough: its rows scatter about the middle by 0.3 nm, 20 px.
    let Extent::Path(path) = &surface.extent else { panic!("{:?}", surface.extent) };
    let rms = (path.iter().map(|p| (p[0] - 255.5).powi(2)).sum::<f64>() / path.len() as f64).sqrt();
    assert!((12.0..30.0).contains(&rms), "{rms}");
    assert!(frame.truth.columns.iter().all(|c| mask[[c.row.round() as usize, c.col.round() as usize]] != 15));
}

#[test]
fn later_regions_lie_over_earlier_ones() {
    let mut specimen = with_region(right_half(), Content::Grain { rotation_rad: 0.3, shift_pm: [0.0, 0.0] });
    specimen.regions.push(Region { shape: circle(1.5), content: Content::Vacuum });
    let truth = frame(&specimen, &quiet([256, 256])).truth;
    assert!(truth.columns.iter().all(|c| (c.row - 127.5).hypot(c.col - 127.5) * 15.0 >= 1499.0));
    let mask = truth.mask([256, 256]);
    assert_eq!(mask[[127, 128]], DefectKind::Vacuum.code());
    assert_eq!(mask[[127, 250]], DefectKind::Grain.code());
    // The grain's boundary is drawn as far as there is one: above and below the hole.
    assert_eq!(mask[[10, 131]], DefectKind::GrainBoundary.code());
    assert_eq!(mask[[20, 10]], 0);
}
