//! How far the specimen's fields move a site of the host's lattice from where it would be in a perfect one.
//!
//! Positions and displacements in pm, `[x, y]` in the specimen frame. Fields are functions of the *undisplaced* position.

use super::grid::Grid;
use super::misfit::Misfit;
use crate::simulate::specimen::{Alloy, Dislocation, Specimen, StrainField};
use std::f64::consts::TAU;

/// All fields together.
#[derive(Debug)]
pub(in crate::simulate) struct Displacement<'a> {
    fields: Vec<Field<'a>>,
    cores: Vec<Core>,
    /// Where they are in the displaced lattice.
    places: Vec<[f64; 2]>,
    misfit: Option<Misfit>,
}

#[derive(Debug)]
enum Field<'a> {
    Gradient { center: [f64; 2], along: [f64; 2], strain_per_pm: f64, reach: f64 },
    Bending { center: [f64; 2], along: [f64; 2], radius: f64, reach: f64 },
    Alloy { alloy: &'a Alloy, along: [f64; 2], at_origin: f64 },
}

/// An edge dislocation.
#[derive(Debug, Clone, Copy)]
struct Core {
    /// Undisplaced position.
    at: [f64; 2],
    burgers_cells: [i64; 2],
    /// Direction of the Burgers vector, and its length.
    along: [f64; 2],
    length: f64,
    poisson_ratio: f64,
    /// Where the continuum ends: within it the field stays finite.
    core_radius: f64,
}

/// Iterations of x ↦ position - displacement(x), at most: strains of at most a fifth leave 10⁻¹¹ of the error.
const INVERSE_ITERATIONS: usize = 16;
const INVERSE_TOLERANCE_PM: f64 = 1e-4;

fn dot(a: [f64; 2], b: [f64; 2]) -> f64 {
    a[0] * b[0] + a[1] * b[1]
}

/// `v` turned clockwise as displayed, from right to down.
const fn beside(v: [f64; 2]) -> [f64; 2] {
    [-v[1], v[0]]
}

/// `[x, y]` in pm of `[y, x]` in nm.
const fn pm([y, x]: [f64; 2]) -> [f64; 2] {
    [x * 1e3, y * 1e3]
}

fn direction_of(angle_rad: f64) -> [f64; 2] {
    [angle_rad.cos(), -angle_rad.sin()]
}

impl<'a> Displacement<'a> {
    pub fn new(specimen: &'a Specimen, host: &Grid) -> Self {
        let mut fields: Vec<Field<'a>> = specimen
            .strain_fields
            .iter()
            .map(|field| match *field {
                StrainField::Gradient { center_nm, direction_rad, strain_per_nm, reach_nm } => {
                    Field::Gradient {
                        center: pm(center_nm),
                        along: direction_of(direction_rad),
                        strain_per_pm: strain_per_nm * 1e-3,
                        reach: reach_nm * 1e3,
                    }
                }
                StrainField::Bending { center_nm, direction_rad, radius_nm, reach_nm } => Field::Bending {
                    center: pm(center_nm),
                    along: direction_of(direction_rad),
                    radius: radius_nm * 1e3,
                    reach: reach_nm * 1e3,
                },
            })
            .collect();
        let alloy = &specimen.alloy;
        if let Some(along) = alloy.fraction.direction()
            && alloy.cell_ratio != 1.0
        {
            fields.push(Field::Alloy { alloy, along, at_origin: alloy.fraction.at([0.0, 0.0]) });
        }
        let cores = specimen.dislocations.iter().map(|dislocation| Core::new(dislocation, host)).collect();
        let misfit = specimen.substrate.as_ref().map(|substrate| Misfit::new(substrate, host));
        let mut displacement = Self { fields, cores, places: Vec::new(), misfit };
        let numbered = displacement.cores.iter().enumerate();
        displacement.places = numbered.map(|(number, core)| displacement.place(number, core)).collect();
        displacement
    }

    /// Whether nothing is displaced.
    pub const fn is_none(&self) -> bool {
        self.fields.is_empty() && self.cores.is_empty() && self.misfit.is_none()
    }

    /// Whether neighbours may have slipped.
    pub const fn may_slip(&self) -> bool {
        !self.cores.is_empty() || self.misfit.is_some()
    }

    pub fn at(&self, position: [f64; 2]) -> [f64; 2] {
        let add = |sum: [f64; 2], u: [f64; 2]| [sum[0] + u[0], sum[1] + u[1]];
        let sum = self.fields.iter().fold([0.0, 0.0], |sum, field| add(sum, field.at(position)));
        let sum = self.cores.iter().fold(sum, |sum, core| add(sum, core.displacement(position)));
        self.misfit.iter().fold(sum, |sum, misfit| add(sum, misfit.displacement(position)))
    }

    /// The undisplaced position that is moved to `position`.
    pub fn inverse(&self, position: [f64; 2]) -> [f64; 2] {
        if self.is_none() {
            return position;
        }
        let mut from = position;
        for _ in 0..INVERSE_ITERATIONS {
            let u = self.at(from);
            let next = [position[0] - u[0], position[1] - u[1]];
            let change = (next[0] - from[0]).abs().max((next[1] - from[1]).abs());
            from = next;
            if change < INVERSE_TOLERANCE_PM {
                break;
            }
        }
        from
    }

    /// By how many cells the crystal beyond has slipped on the way between two neighbouring undisplaced positions: the site that is
    /// the neighbour of `from` there is the one at `to`, and so many edges on.
    pub fn slip(&self, from: [f64; 2], to: [f64; 2]) -> [i64; 2] {
        let mut cells = [0, 0];
        for core in &self.cores {
            let sense = core.crossed(from, to);
            cells = [cells[0] + sense * core.burgers_cells[0], cells[1] + sense * core.burgers_cells[1]];
        }
        if let Some(misfit) = &self.misfit {
            let [i, j] = misfit.slip(from, to);
            cells = [cells[0] + i, cells[1] + j];
        }
        cells
    }

    /// Where the cores of the single dislocations are in the displaced lattice.
    pub fn cores(&self) -> &[[f64; 2]] {
        &self.places
    }

    /// A core moved by all fields but its own.
    fn place(&self, number: usize, core: &Core) -> [f64; 2] {
        let fields = self.fields.iter().map(|field| field.at(core.at));
        let others = self.cores.iter().enumerate().filter(|(other, _)| *other != number);
        let others = others.map(|(_, other)| other.displacement(core.at));
        let misfit = self.misfit.iter().map(|misfit| misfit.displacement(core.at));
        let moves = fields.chain(others).chain(misfit);
        moves.fold(core.at, |at, u| [at[0] + u[0], at[1] + u[1]])
    }

    /// Cores of misfit dislocations within `radius` of a place of the displaced lattice.
    pub fn misfit_cores(&self, place: [f64; 2], radius: f64) -> Vec<[f64; 2]> {
        self.misfit.as_ref().map_or_else(Vec::new, |misfit| misfit.cores(place, radius))
    }

    /// The interface with the substrate: a point of it and its normal, toward the substrate.
    pub fn interface(&self) -> Option<([f64; 2], [f64; 2])> {
        self.misfit.as_ref().map(Misfit::interface)
    }

    /// The distance of a place of the displaced lattice from the nearest core of any dislocation.
    pub fn distance_to_core(&self, place: [f64; 2]) -> f64 {
        let single = self.places.iter().map(|at| (place[0] - at[0]).hypot(place[1] - at[1]));
        let row = self.misfit.iter().map(|misfit| misfit.distance_to_core(place));
        single.chain(row).fold(f64::INFINITY, f64::min)
    }
}

impl Field<'_> {
    fn at(&self, position: [f64; 2]) -> [f64; 2] {
        match *self {
            Self::Gradient { center, along, strain_per_pm, reach } => {
                let s = dot([position[0] - center[0], position[1] - center[1]], along);
                let u = strain_per_pm * half_square(s, reach);
                along.map(|c| u * c)
            }
            Self::Bending { center, along, radius, reach } => {
                let from = [position[0] - center[0], position[1] - center[1]];
                let across = beside(along);
                let (t, s) = (dot(from, along), dot(from, across));
                // The neutral line falls away by t² / 2R and its normal turns by t / R.
                let turn = t.clamp(-reach, reach) / radius;
                let (u, v) = (-s * turn, half_square(t, reach) / radius);
                [u * along[0] + v * across[0], u * along[1] + v * across[1]]
            }
            Self::Alloy { alloy, along, at_origin } => {
                let s_nm = dot(position, along) * 1e-3;
                let more = alloy.fraction.integral_nm(s_nm) - at_origin * s_nm;
                let whole = alloy.cell_ratio - 1.0;
                let u = 1e3 * whole * more / (1.0 + whole * at_origin);
                along.map(|c| u * c)
            }
        }
    }
}

/// ∫ of min(|s|, reach): s² / 2, going on as a straight line beyond the reach.
fn half_square(s: f64, reach: f64) -> f64 {
    let near = s.abs().min(reach);
    near * (s.abs() - 0.5 * near)
}

impl Core {
    fn new(dislocation: &Dislocation, host: &Grid) -> Self {
        let burgers_cells = dislocation.burgers_cells.map(i64::from);
        let [x, y] = host.along_edges(burgers_cells.map(|b| b as f64));
        let length = x.hypot(y);
        // Columns stand at halves of the edges. A quarter off across the Burgers vector, none is on the plane of slip.
        let [i, j] = burgers_cells;
        let across_a = i == 0 || (i % 2 == 0 && j % 2 != 0);
        let off = if across_a { [0.25, 0.0] } else { [0.0, 0.25] };
        let [u, v] = host.cell_coordinates(pm(dislocation.at_nm));
        let near = |c: f64, off: f64| 0.5 * (2.0 * (c - off)).round() + off;
        let [a, b] = host.along_edges([near(u, off[0]), near(v, off[1])]);
        Self {
            at: [host.origin[0] + a, host.origin[1] + b],
            burgers_cells,
            along: [x / length, y / length],
            length,
            poisson_ratio: dislocation.poisson_ratio,
            core_radius: 0.25 * length,
        }
    }

    /// Along the Burgers vector and beside it.
    fn local(&self, position: [f64; 2]) -> [f64; 2] {
        let from = [position[0] - self.at[0], position[1] - self.at[1]];
        [dot(from, self.along), dot(from, beside(self.along))]
    }

    /// Hirth and Lothe, eq. 3-45 and 3-46. The angle jumps on the plane of slip behind the core, by a whole Burgers vector.
    fn displacement(&self, position: [f64; 2]) -> [f64; 2] {
        let [x, y] = self.local(position);
        let r2 = x * x + y * y + self.core_radius.powi(2);
        let stiff = 1.0 - self.poisson_ratio;
        let u = y.atan2(x) + x * y / (2.0 * stiff * r2);
        let v = -(1.0 - 2.0 * self.poisson_ratio) / (4.0 * stiff) * (r2 / self.length.powi(2)).ln()
            - (x * x - y * y) / (4.0 * stiff * r2);
        let (u, v) = (u * self.length / TAU, v * self.length / TAU);
        let across = beside(self.along);
        [u * self.along[0] + v * across[0], u * self.along[1] + v * across[1]]
    }

    /// Whether the way crosses the plane of slip: -1 to the side beside the Burgers vector, 1 back.
    fn crossed(&self, from: [f64; 2], to: [f64; 2]) -> i64 {
        let ([x0, y0], [x1, y1]) = (self.local(from), self.local(to));
        if (y0 < 0.0) == (y1 < 0.0) || x0 + (x1 - x0) * y0 / (y0 - y1) >= 0.0 {
            return 0;
        }
        if y0 < 0.0 { -1 } else { 1 }
    }
}
