//! Fields against derivatives, sums and their own inverse.

use super::*;
use crate::simulate::specimen::{Dislocation, Edge, Phase, StrainField, Substrate, Toward};
use crate::simulate::{Alloy, Composition};
use std::f64::consts::PI;

fn displacement(specimen: &Specimen) -> Displacement<'_> {
    Displacement::new(specimen, &host_grid(specimen))
}

/// ∂u/∂x and ∂u/∂y at a position in pm.
fn gradient(displacement: &Displacement<'_>, [x, y]: [f64; 2]) -> [[f64; 2]; 2] {
    let h = 0.5;
    let along = |ahead: [f64; 2], behind: [f64; 2]| {
        let (u, v) = (displacement.at(ahead), displacement.at(behind));
        [(u[0] - v[0]) / (2.0 * h), (u[1] - v[1]) / (2.0 * h)]
    };
    [along([x + h, y], [x - h, y]), along([x, y + h], [x, y - h])]
}

fn substrate(relaxed: f64, toward: Toward) -> Substrate {
    let columns = crate::simulate::Columns::default();
    Substrate {
        phase: Phase {
            cell_a_pm: 380.0,
            cell_b_pm: 385.0,
            a: columns.a,
            b: columns.b,
            o: None,
            p_pm: [0.0; 2],
        },
        toward,
        at_nm: 2.0,
        edge: Edge::default(),
        relaxed,
        poisson_ratio: 0.25,
        polarization_width_nm: 1.0,
    }
}

#[test]
fn a_gradient_strains_along_its_direction_by_so_much_a_nanometre() {
    let field = StrainField::Gradient {
        center_nm: [1.0, 2.0],
        direction_rad: 0.0,
        strain_per_nm: 0.002,
        reach_nm: 10.0,
    };
    let specimen = Specimen { strain_fields: vec![field], ..Specimen::default() };
    let displacement = displacement(&specimen);
    for (x_nm, strain) in [(2.0, 0.0), (5.0, 0.006), (-3.0, -0.01), (30.0, 0.02), (-40.0, -0.02)] {
        let [along, across] = gradient(&displacement, [x_nm * 1e3, 500.0]);
        assert!((along[0] - strain).abs() < 1e-9, "{x_nm}: {along:?}");
        assert!(along[1].abs() < 1e-9 && across[0].abs() < 1e-9 && across[1].abs() < 1e-9);
    }
}

#[test]
fn bending_stretches_the_convex_side_and_turns_the_rows() {
    let field =
        StrainField::Bending { center_nm: [0.0, 0.0], direction_rad: 0.0, radius_nm: 500.0, reach_nm: 40.0 };
    let specimen = Specimen { strain_fields: vec![field], ..Specimen::default() };
    let displacement = displacement(&specimen);
    for (x_nm, y_nm) in [(0.0, 0.0), (10.0, 3.0), (-20.0, -6.0)] {
        let [along, across] = gradient(&displacement, [x_nm * 1e3, y_nm * 1e3]);
        // The rows fall away to either side (y grows downward): above the neutral line is the convex side.
        assert!((along[0] + y_nm / 500.0).abs() < 1e-9, "{along:?}");
        // Turned as a whole, not sheared.
        assert!((along[1] - x_nm / 500.0).abs() < 1e-9 && (across[0] + x_nm / 500.0).abs() < 1e-9);
        assert!(across[1].abs() < 1e-9);
    }
    let [along, _] = gradient(&displacement, [90e3, 2e3]);
    assert!(along[0].abs() < 1e-9 && (along[1] - 0.08).abs() < 1e-9, "straight beyond the reach: {along:?}");
}

#[test]
fn an_alloy_swells_where_there_is_more_of_it() {
    let fraction = Composition::Layers {
        normal_rad: 0.0,
        at_nm: vec![-4.0, 4.0],
        values: vec![0.0, 0.5, 1.0],
        width_nm: 0.5,
    };
    let alloy = Alloy { fraction, cell_ratio: 0.96, ..Alloy::default() };
    let specimen = Specimen { alloy, ..Specimen::default() };
    let displacement = displacement(&specimen);
    let edge = host_grid(&specimen).edges[0][0];
    for (x_nm, cell) in [(-20.0, 390.0), (0.0, 390.0 * 0.98), (15.0, 390.0 * 0.96)] {
        let [along, across] = gradient(&displacement, [x_nm * 1e3, 7.0]);
        assert!((edge * (1.0 + along[0]) - cell).abs() < 1e-6, "{x_nm}");
        assert!(across[1].abs() < 1e-12);
    }
}

#[test]
fn a_dislocation_closes_with_its_burgers_vector() {
    let dislocation = Dislocation { at_nm: [3.0, -2.0], burgers_cells: [1, -1], poisson_ratio: 0.3 };
    let specimen = Specimen { rotation_rad: 0.3, dislocations: vec![dislocation], ..Specimen::default() };
    let displacement = displacement(&specimen);
    let burgers = host_grid(&specimen).along_edges([1.0, -1.0]);
    let core = displacement.cores()[0];
    assert!((core[0] + 2000.0).hypot(core[1] - 3000.0) < 200.0);
    for radius in [600.0, 5e3, 80e3] {
        // The way round, except for the one step across the plane of slip.
        let n = 4000;
        let at = |k: i32| {
            let (sin, cos) = (2.0 * PI * (f64::from(k) + 0.5) / f64::from(n)).sin_cos();
            displacement.at([core[0] + radius * cos, core[1] + radius * sin])
        };
        let (mut sum, mut jump) = ([0.0, 0.0], [0.0, 0.0]);
        for k in 0..n {
            let (before, after) = (at(k), at(k + 1));
            let step = [after[0] - before[0], after[1] - before[1]];
            if step[0].hypot(step[1]) > 200.0 {
                jump = [jump[0] + step[0], jump[1] + step[1]];
            } else {
                sum = [sum[0] + step[0], sum[1] + step[1]];
            }
        }
        assert!((sum[0] + jump[0]).hypot(sum[1] + jump[1]) < 1e-6);
        assert!((sum[0] - burgers[0]).hypot(sum[1] - burgers[1]) < 2.0, "{radius}: {sum:?} {burgers:?}");
    }
}

#[test]
fn a_row_of_misfit_dislocations_is_the_sum_of_its_members() {
    let specimen = Specimen { substrate: Some(substrate(1.0, Toward::B)), ..Specimen::default() };
    let whole = displacement(&specimen);
    let (at, _) = whole.interface().unwrap();
    // Common spacing 385, strains of ± 5 / 385. One dislocation every 39 columns of the substrate and 38 of the film.
    let half: f64 = (390.0 / 380.0 - 1.0) / (390.0 / 380.0 + 1.0);
    let common = 380.0 / (1.0 - half);
    assert!((common - 385.0).abs() < 1e-9 && (half - 5.0 / 385.0).abs() < 1e-12);
    let spacing = 39.0 * common;
    let burgers = 2.0 * half * spacing;
    let nu = 0.25;
    // What one dislocation at the origin does, from the formulas in Hirth and Lothe, without core.
    let single = |x: f64, y: f64| {
        let r2 = x * x + y * y;
        let u = y.atan2(x) + x * y / (2.0 * (1.0 - nu) * r2);
        let v =
            -((1.0 - 2.0 * nu) / (4.0 * (1.0 - nu)) * r2.ln() + (x * x - y * y) / (4.0 * (1.0 - nu) * r2));
        [u * burgers / (2.0 * PI), v * burgers / (2.0 * PI)]
    };
    let sum = |x: f64, y: f64| {
        (-40_000..=40_000).fold([0.0, 0.0], |sum, n| {
            let [u, v] = single(x - f64::from(n) * spacing, y);
            [sum[0] + u, sum[1] + v]
        })
    };
    // From positions in the common lattice to those in the host's, beyond the interface.
    let stretch = common / 390.0;
    let by_row = half * nu / (1.0 - nu);
    let rise = 385.0 / 390.0 / (1.0 + by_row);
    let of_row = |t: f64, s: f64| {
        let [u, v] = whole.at([at[0] + t / stretch, at[1] + s / rise]);
        [u - t * (1.0 - 1.0 / stretch), v - s * (1.0 - 1.0 / rise)]
    };
    let from = [0.3 * spacing, 1500.0];
    for to in [[0.1 * spacing, 900.0], [0.8 * spacing, 5000.0], [-0.45 * spacing, 20_000.0]] {
        let (a, b) = (of_row(from[0], from[1]), of_row(to[0], to[1]));
        let (c, d) = (sum(from[0], from[1]), sum(to[0], to[1]));
        let off = [b[0] - a[0] - (d[0] - c[0]), b[1] - a[1] - (d[1] - c[1])];
        assert!(off[0].hypot(off[1]) < 0.6, "{to:?}: {off:?}");
    }
}

#[test]
fn far_from_a_relaxed_interface_each_crystal_has_its_own_cell() {
    for toward in [Toward::A, Toward::MinusA, Toward::B, Toward::MinusB] {
        let specimen = Specimen {
            cell_a_pm: 400.0,
            cell_b_pm: 392.0,
            rotation_rad: 0.2,
            substrate: Some(substrate(1.0, toward)),
            ..Specimen::default()
        };
        let displacement = displacement(&specimen);
        let grid = host_grid(&specimen);
        let (_, normal) = displacement.interface().unwrap();
        let edges_at = |depth_nm: f64| {
            let place = normal.map(|c| c * depth_nm * 1e3);
            let [du_dx, du_dy] = gradient(&displacement, place);
            grid.edges
                .map(|[x, y]| [x * (1.0 + du_dx[0]) + y * du_dy[0], x * du_dx[1] + y * (1.0 + du_dy[1])])
        };
        let lengths = |depth_nm: f64| edges_at(depth_nm).map(|[x, y]| x.hypot(y));
        let [a, b] = lengths(300.0);
        assert!((a - 380.0).abs() < 1e-3 && (b - 385.0).abs() < 1e-3, "{toward:?}: {a} {b}");
        let [a, b] = lengths(-300.0);
        assert!((a - 400.0).abs() < 1e-3 && (b - 392.0).abs() < 1e-3, "{toward:?}: {a} {b}");
    }
}

#[test]
fn a_coherent_film_takes_the_spacing_of_its_substrate_and_answers_across() {
    let specimen = Specimen { substrate: Some(substrate(0.0, Toward::B)), ..Specimen::default() };
    let displacement = displacement(&specimen);
    for (depth, cell_b) in [(50.0, 385.0), (-50.0, 390.0 * (1.0 + 2.0 * 0.25 / 0.75 * (10.0 / 390.0)))] {
        let [along, across] = gradient(&displacement, [0.0, depth * 1e3]);
        assert!((390.0 * (1.0 + along[0]) - 380.0).abs() < 1e-6, "{along:?}");
        assert!((390.0 * (1.0 + across[1]) - cell_b).abs() < 1e-6, "{across:?}");
    }
    assert!(displacement.misfit_cores([0.0, 2000.0], 1e6).is_empty());
}

#[test]
fn every_field_is_undone_by_its_inverse() {
    let specimen = Specimen {
        strain_fields: vec![
            StrainField::Gradient {
                center_nm: [0.0, 0.0],
                direction_rad: 0.4,
                strain_per_nm: 1e-3,
                reach_nm: 60.0,
            },
            StrainField::Bending {
                center_nm: [5.0, 5.0],
                direction_rad: 1.0,
                radius_nm: 900.0,
                reach_nm: 90.0,
            },
        ],
        dislocations: vec![Dislocation { at_nm: [10.0, 0.0], burgers_cells: [1, 0], poisson_ratio: 0.3 }],
        substrate: Some(substrate(0.7, Toward::MinusA)),
        ..Specimen::default()
    };
    let displacement = displacement(&specimen);
    for k in 0..60 {
        let from = [f64::from(k % 10) * 7e3 - 31e3, f64::from(k / 10) * 9e3 - 22e3];
        let u = displacement.at(from);
        if displacement.distance_to_core([from[0] + u[0], from[1] + u[1]]) < 1500.0 {
            continue;
        }
        let back = displacement.inverse([from[0] + u[0], from[1] + u[1]]);
        assert!((back[0] - from[0]).hypot(back[1] - from[1]) < 1e-3, "{from:?} {back:?}");
    }
}

#[test]
fn neighbours_across_a_plane_of_slip_are_found_where_they_stand() {
    let specimen = Specimen {
        dislocations: vec![
            Dislocation { at_nm: [-8.0, 0.0], burgers_cells: [1, 0], poisson_ratio: 0.3 },
            Dislocation { at_nm: [-8.0, 30.0], burgers_cells: [0, -1], poisson_ratio: 0.3 },
            Dislocation { at_nm: [-14.0, -30.0], burgers_cells: [1, 1], poisson_ratio: 0.3 },
        ],
        substrate: Some(substrate(1.0, Toward::B)),
        ..Specimen::default()
    };
    let displacement = displacement(&specimen);
    let grid = host_grid(&specimen);
    let stands = |site: Site| {
        let at = grid.position(site).unwrap();
        let u = displacement.at(at);
        [at[0] + u[0], at[1] + u[1]]
    };
    let mut slipped = 0;
    for j in -60..60 {
        for i in -250..250 {
            let b = Site { i, j, kind: SiteKind::B };
            let undisplaced = grid.position(b).unwrap();
            if displacement.distance_to_core(stands(b)) < 2000.0 {
                continue;
            }
            for (di, dj) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let regular = Site { i: i + di, j: j + dj, kind: SiteKind::A };
                let [ki, kj] = displacement.slip(undisplaced, grid.position(regular).unwrap());
                slipped += usize::from([ki, kj] != [0, 0]);
                let (here, there) =
                    (stands(b), stands(Site { i: regular.i + ki, j: regular.j + kj, ..regular }));
                let distance = (here[0] - there[0]).hypot(here[1] - there[1]);
                assert!((distance - 275.0).abs() < 40.0, "{b:?} to {di} {dj}, slipped {ki} {kj}: {distance}");
            }
        }
    }
    assert!(slipped > 1000, "{slipped}");
}
