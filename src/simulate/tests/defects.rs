//! Single columns, patches and masks; and everything at once.

use super::*;
use std::collections::HashSet;

fn zoo() -> Scene {
    Scene::built_in("zoo").unwrap()
}

fn planted(kind: DefectKind, at_nm: [f64; 2], intensity_ratio: f64) -> Specimen {
    let defect = Defect { kind, at_nm, intensity_ratio, radius_nm: 0.5 };
    let o = Some(ColumnShape { intensity: 0.2, sigma_pm: 45.0 });
    Specimen { columns: Columns { o, ..narrow() }, defects: vec![defect], ..Specimen::default() }
}

/// The brightest expectation within 3 px of a place.
fn brightness(frame: &SimulatedFrame, row: f64, col: f64) -> f64 {
    let near = |((r, c), _): &((usize, usize), &f32)| (*r as f64 - row).hypot(*c as f64 - col) <= 3.0;
    frame.pixels.indexed_iter().filter(near).fold(0.0, |most: f64, (_, v)| most.max(f64::from(*v)))
}

#[test]
fn single_columns_change_as_their_defect_says() {
    // Of A 1000, B 500, O 200: what is left at the site nearest to a place beside it.
    let cases = [
        (DefectKind::VacancyA, [0.0, 0.0], 0.3, 300.0),
        (DefectKind::VacancyB, [0.195, 0.195], 0.2, 100.0),
        (DefectKind::VacancyO, [0.0, 0.195], 0.5, 100.0),
        (DefectKind::SubstitutionA, [0.39, 0.0], 1.4, 1400.0),
        (DefectKind::SubstitutionB, [0.195, -0.195], 0.6, 300.0),
        // Half of the A atoms replaced by B atoms: halfway from 1000 to 500; the other way round for B.
        (DefectKind::AntisiteA, [0.0, -0.39], 0.5, 750.0),
        (DefectKind::AntisiteB, [-0.195, 0.195], 0.5, 750.0),
        // On the slopes of its neighbours.
        (DefectKind::Interstitial, [0.0975, 0.0975], 0.25, 268.0),
    ];
    for (kind, at_nm, ratio, expected) in cases {
        let beside =
            if kind == DefectKind::Interstitial { at_nm } else { [at_nm[0] + 0.02, at_nm[1] - 0.03] };
        let microscope = Microscope { pixel_size_pm: 5.0, ..quiet([256, 256]) };
        let frame = frame(&planted(kind, beside, ratio), &microscope);
        let [defect] = &frame.truth.defects[..] else { panic!("{:?}", frame.truth.defects) };
        let [row, col] = microscope.specimen_nm_to_pixel(at_nm);
        assert_eq!(defect.kind, kind);
        assert!((defect.row - row).hypot(defect.col - col) < 1e-6, "{kind:?}");
        let seen = brightness(&frame, row, col);
        assert!((seen / expected - 1.0).abs() < 0.06, "{kind:?}: {seen}, expected {expected}");
        let mask = frame.truth.mask([256, 256]);
        assert_eq!(mask[[row.round() as usize, col.round() as usize]], kind.code());
        // A disc of half a cell edge.
        let area = mask.iter().filter(|&&code| code == kind.code()).count() as f64 * 25.0;
        assert!((area / (std::f64::consts::PI * 195.0 * 195.0) - 1.0).abs() < 0.03, "{kind:?}");
    }
}

#[test]
fn random_defects_come_as_often_as_they_should() {
    let random_defects = RandomDefects {
        vacancy_a: 0.02,
        substitution_a: 0.03,
        antisite_a: 0.04,
        vacancy_b: 0.05,
        antisite_b: 0.01,
        vacancy_o: 0.02,
        interstitial: 0.03,
        amorphous_per_nm2: 2e-4,
        contamination_per_nm2: 4e-4,
        patch_radius_nm: [0.4, 0.6],
        ..RandomDefects::default()
    };
    let o = Some(ColumnShape { intensity: 0.1, sigma_pm: 45.0 });
    let specimen = Specimen { columns: Columns { o, ..narrow() }, random_defects, ..Specimen::default() };
    let mut counts = std::collections::HashMap::new();
    let frames = 6;
    for n in 0..frames {
        let microscope =
            Microscope { pixel_size_pm: 40.0, center_nm: [0.0, 60.0 * f64::from(n)], ..quiet([1024, 1024]) };
        for defect in frame(&specimen, &microscope).truth.defects {
            *counts.entry(defect.kind).or_insert(0.0) += 1.0;
        }
    }
    // 41 nm squared, six times: 10086 nm² and 66312 cells.
    let area = 40.96f64.powi(2) * f64::from(frames);
    let cells = area / 0.39f64.powi(2);
    let expected = [
        (DefectKind::VacancyA, 0.02 * cells),
        (DefectKind::SubstitutionA, 0.03 * cells),
        (DefectKind::AntisiteA, 0.04 * cells),
        (DefectKind::VacancyB, 0.05 * cells),
        (DefectKind::AntisiteB, 0.01 * cells),
        (DefectKind::VacancyO, 2.0 * 0.02 * cells),
        (DefectKind::Interstitial, 0.03 * cells),
        (DefectKind::Amorphous, 2e-4 * area),
        (DefectKind::Contamination, 4e-4 * area),
    ];
    for (kind, expected) in expected {
        let found = counts.get(&kind).copied().unwrap_or(0.0);
        // Patches at the frame's edge reach in.
        assert!(
            (found - expected).abs() < 5.0 * f64::sqrt(expected) + 0.08 * expected,
            "{kind:?}: {found} {expected}"
        );
    }
    assert_eq!(counts.get(&DefectKind::SubstitutionB), None);
}

#[test]
fn every_kind_of_defect_is_in_the_zoo_in_truth_and_in_pixels() {
    let Scene { specimen, .. } = zoo();
    let bare = Specimen {
        defects: Vec::new(),
        regions: Vec::new(),
        dislocations: Vec::new(),
        substrate: None,
        ..specimen.clone()
    };
    let mut kinds = HashSet::new();
    for center_nm in [
        [0.0, 0.0],
        [0.0, 16.0],
        [0.0, 32.0],
        [0.0, 48.0],
        [0.0, 61.0],
        [-16.0, 0.0],
        [-16.0, 16.0],
        [-16.0, 32.0],
        [-16.0, 48.0],
        [16.0, 0.0],
        [32.0, 8.0],
    ] {
        let microscope = Microscope { center_nm, ..quiet([512, 512]) };
        let (with, without) = (frame(&specimen, &microscope), frame(&bare, &microscope));
        let mask = with.truth.mask([512, 512]);
        for kind in DefectKind::ALL {
            let marked = mask.iter().zip(with.pixels.iter().zip(&without.pixels));
            let changes: Vec<f64> = marked
                .filter(|(code, _)| **code == kind.code())
                .map(|(_, (a, b))| f64::from((a - b).abs()))
                .collect();
            if changes.is_empty() {
                continue;
            }
            kinds.insert(kind);
            // Of a peak of 1000 counts; an oxygen vacancy takes 80 away from the middle of its disc.
            let mean = changes.iter().sum::<f64>() / changes.len() as f64;
            let least = if kind == DefectKind::VacancyO { 8.0 } else { 20.0 };
            assert!(mean > least, "{kind:?} at {center_nm:?}: {mean}");
        }
    }
    for kind in DefectKind::ALL {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
}

#[test]
fn masks_agree_with_the_cells_that_are_disturbed() {
    let Scene { specimen, .. } = zoo();
    for center_nm in [[0.0, 0.0], [0.0, 16.0], [0.0, 48.0], [-16.0, 0.0]] {
        let truth = frame(&specimen, &Microscope { center_nm, ..quiet([512, 512]) }).truth;
        let mask = truth.mask([512, 512]);
        let inner = |row: f64, col: f64| (30.0..482.0).contains(&row) && (30.0..482.0).contains(&col);
        let half_edge = 0.5 * 396.4 / 15.0;
        let marked = |row: f64, col: f64| mask[[row.round() as usize, col.round() as usize]];
        for cell in truth.cells.iter().filter(|c| inner(c.row, c.col)) {
            let corners = [(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 0.0)]
                .map(|(r, c)| marked(cell.row + r * half_edge, cell.col + c * half_edge));
            if cell.disturbed {
                assert!(corners.iter().any(|code| *code != 0), "{cell:?}");
            } else if marked(cell.b_row, cell.b_col) == 0 {
                // No column of an undisturbed cell in the host is in a disc of a changed column or in a patch.
                let changed = [1, 2, 4, 5, 6, 7, 14];
                assert!(corners.iter().all(|code| !changed.contains(code)), "{cell:?} {corners:?}");
            }
        }
    }
}

#[test]
fn the_same_site_looks_the_same_in_overlapping_frames_of_everything() {
    let Scene { specimen, .. } = zoo();
    let specimen = Specimen { static_displacement_pm: 6.0, roughness: 0.1, ..specimen };
    for center_nm in
        [[0.0, 0.0], [0.0, 16.0], [0.0, 32.0], [-16.0, 16.0], [-16.0, 48.0], [32.0, 4.0], [0.0, 60.0]]
    {
        let one = Microscope { center_nm, ..quiet([300, 300]) };
        let other = Microscope {
            center_nm: [center_nm[0] + 1.1, center_nm[1] - 0.7],
            rotation_rad: 0.6,
            pixel_size_pm: 21.0,
            ..quiet([400, 700])
        };
        let (seen, again) = (frame(&specimen, &one).truth, frame(&specimen, &other).truth);
        let over = |row: f64, col: f64| {
            let [row, col] = other.specimen_nm_to_pixel(one.pixel_to_specimen_nm(row, col));
            ((2.0..397.0).contains(&row) && (2.0..697.0).contains(&col)).then_some([row, col])
        };
        let mut shared = 0;
        for column in &seen.columns {
            let Some([row, col]) = over(column.row, column.col) else { continue };
            let twin = again.columns.iter().find(|c| (c.row - row).hypot(c.col - col) < 1e-5);
            let twin = twin.unwrap_or_else(|| panic!("{column:?} at {center_nm:?} has no twin"));
            assert!((twin.intensity - column.intensity).abs() < 1e-12 && twin.class == column.class);
            shared += 1;
        }
        assert!(shared > 80, "{shared} at {center_nm:?}");
    }
}

#[test]
fn no_column_that_a_frame_shows_is_left_out() {
    use crate::simulate::lattice::{Site, SiteKind};
    let Scene { specimen, .. } = zoo();
    let field =
        StrainField::Bending { center_nm: [0.0, 0.0], direction_rad: 0.5, radius_nm: 400.0, reach_nm: 60.0 };
    let specimen = Specimen { strain_fields: vec![field], static_displacement_pm: 0.0, ..specimen };
    for (center_nm, rotation_rad) in [
        ([0.0, 0.0], 0.0),
        ([0.0, 16.0], 0.8),
        ([-16.0, 32.0], -0.3),
        ([30.0, -20.0], 2.0),
        ([-16.0, 50.0], 0.5),
    ] {
        let microscope = Microscope { center_nm, rotation_rad, pixel_size_pm: 20.0, ..quiet([200, 320]) };
        let view = crate::simulate::view::View::new(&specimen, &microscope, 0.0);
        let placed = view.place_columns();
        for (number, (grid, cells)) in view.lattice.grids().iter().zip(&placed.grids).enumerate() {
            let (mut shown, mut found) = (0, 0);
            for (i, j) in (-220..220).flat_map(|i| (-220..220).map(move |j| (i, j))) {
                for kind in SiteKind::ALL {
                    let site = Site { i, j, kind };
                    let Some(at) = grid.position(site) else { continue };
                    let moved = view.lattice.displaced(grid, at);
                    let [x, y] = view.image_px([at[0] + moved[0], at[1] + moved[1]]);
                    let inside = (-5.0..325.0).contains(&x) && (-5.0..205.0).contains(&y);
                    if inside && view.lattice.column(number, site, moved).is_some() {
                        shown += 1;
                        found += usize::from(cells.get(site).is_some());
                    }
                }
            }
            assert_eq!(found, shown, "lattice {number} at {center_nm:?}");
            assert!(number > 0 || shown > 150, "{shown}");
        }
    }
}

#[test]
fn the_truth_can_be_written_and_read_back() {
    let Scene { specimen, microscope, .. } = zoo();
    let truth = frame(&specimen, &Microscope { shape: [300, 300], ..microscope }).truth;
    assert!(truth.defects.len() > 1 && truth.cells.len() > 20);
    let text = serde_json::to_string(&truth).unwrap();
    let back: Truth = serde_json::from_str(&text).unwrap();
    assert_eq!(back.cells.len(), truth.cells.len());
    assert_eq!(back.defects[0].kind, truth.defects[0].kind);
    assert!(text.contains("\"class\":\"a\"") && text.contains("\"kind\":\"vacancy_a\""));
}

#[test]
fn a_frame_of_everything_through_a_faulty_microscope_is_quick() {
    let Scene { mut specimen, .. } = zoo();
    specimen.columns = Columns { tail_fraction: 0.2, tails: Tails::Lorentz, ..specimen.columns };
    specimen.thickness = Thickness { rms: 0.05, wavelength_nm: 20.0, widening: 0.3 };
    specimen.static_displacement_pm = 4.0;
    specimen.random_defects = RandomDefects {
        vacancy_a: 0.01,
        interstitial: 0.01,
        amorphous_per_nm2: 1e-3,
        contamination_per_nm2: 1e-3,
        ..RandomDefects::default()
    };
    // The round regions of the zoo in one frame.
    for region in &mut specimen.regions {
        if let Shape::Circle { center_nm, radius_nm } = &mut region.shape {
            (*center_nm, *radius_nm) = (center_nm.map(|c| 0.04 * c), 0.6);
        }
    }
    let microscope = Scene::built_in("faults").unwrap().microscope.scanned();
    assert_eq!(microscope.shape, [512, 512]);
    let mut rng = rng();
    let mut best = [std::time::Duration::MAX; 3];
    // The shortest of many: other tests run beside this one.
    for n in 0..20 {
        let started = std::time::Instant::now();
        let view = crate::simulate::view::View::new(&specimen, &microscope, 0.0);
        let placed = view.place_columns();
        best[0] = best[0].min(started.elapsed());
        let started = std::time::Instant::now();
        let truth = view.truth(&placed);
        best[1] = best[1].min(started.elapsed());
        assert!(!truth.cells.is_empty());
        let started = std::time::Instant::now();
        render(&specimen, &microscope, &mut rng).unwrap();
        best[2] = best[2].min(started.elapsed());
        if n >= 5 && best[2].as_millis() <= 100 {
            break;
        }
    }
    // Less than 100 ms on a core of its own; tests share theirs.
    eprintln!("512 x 512 of everything: placing {:?}, truth {:?}, all {:?}", best[0], best[1], best[2]);
    assert!(best[2].as_millis() <= 400, "{best:?}");
}
