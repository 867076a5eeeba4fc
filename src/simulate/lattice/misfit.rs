//! Film and substrate: two cells that share their rows across an interface.

use super::grid::Grid;
use crate::simulate::specimen::{Substrate, Toward};
use std::f64::consts::{PI, TAU};

/// The displacement of the host's lattice, taken as the film's everywhere, by its substrate.
///
/// Both halves are first brought to a common spacing along the interface, and to their own across it. A row of edge dislocations
/// at the interface, its distance the Burgers vector over the misfit, then gives each half its own spacing away from it: the sum of
/// their fields (isotropic, alike on both sides) is a closed expression, so that the row has no ends. The row is at one place in
/// space, from one dislocation to the next the half with the smaller cell has one column more; so in the undisplaced lattice, where
/// the columns of both are equally far apart, the dislocations are farther apart in that half.
#[derive(Debug, Clone, Copy)]
pub(super) struct Misfit {
    /// A point of the interface; unit vectors along it and toward the substrate.
    at: [f64; 2],
    along: [f64; 2],
    toward: [f64; 2],
    /// One edge along the interface, in cells.
    step_cells: [i64; 2],
    /// Of the common spacing over the host's, less 1.
    stretch_along: f64,
    stretch_film: f64,
    stretch_substrate: f64,
    row: Option<Row>,
    poisson_ratio: f64,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    /// The common spacing of the columns.
    common: f64,
    /// Strain of the film far away; the substrate's is its opposite.
    strain: f64,
}

/// The row as one half has it.
#[derive(Debug, Clone, Copy)]
struct HalfRow {
    /// From core to core.
    spacing: f64,
    /// Twice the step that a core makes; positive where the film's cell is the larger.
    burgers: f64,
}

/// (position along the interface, distance from it) of one edge or the other.
struct Axes {
    along: [f64; 2],
    across: [f64; 2],
    sense: f64,
    step_cells: [i64; 2],
}

fn dot(a: [f64; 2], b: [f64; 2]) -> f64 {
    a[0] * b[0] + a[1] * b[1]
}

impl Misfit {
    pub fn new(substrate: &Substrate, host: &Grid) -> Self {
        let [a, b] = host.edges;
        let axes = match substrate.toward {
            Toward::A => Axes { along: b, across: a, sense: 1.0, step_cells: [0, 1] },
            Toward::MinusA => Axes { along: b, across: a, sense: -1.0, step_cells: [0, 1] },
            Toward::B => Axes { along: a, across: b, sense: 1.0, step_cells: [1, 0] },
            Toward::MinusB => Axes { along: a, across: b, sense: -1.0, step_cells: [1, 0] },
        };
        let film_spacing = axes.along[0].hypot(axes.along[1]);
        let along = axes.along.map(|c| c / film_spacing);
        let normal = [-along[1], along[0]];
        let side = axes.sense * dot(normal, axes.across).signum();
        let toward = normal.map(|c| side * c);
        let film_height = dot(toward, axes.across).abs();
        let phase = &substrate.phase;
        let (spacing, height) = match substrate.toward {
            Toward::A | Toward::MinusA => (phase.cell_b_pm, phase.cell_a_pm),
            Toward::B | Toward::MinusB => (phase.cell_a_pm, phase.cell_b_pm),
        };
        // Far from the interface the film's spacing is `ratio` times the substrate's: half of the difference on either side.
        let ratio = 1.0 + substrate.relaxed * (film_spacing / spacing - 1.0);
        let half = (ratio - 1.0) / (ratio + 1.0);
        let common = spacing / (1.0 - half);
        let row = (half.abs() > 1e-9).then_some(Row { common, strain: half });
        let nu = substrate.poisson_ratio;
        let by_row = half * nu / (1.0 - nu);
        let film_strain = ratio * spacing / film_spacing - 1.0;
        let film_normal = -2.0 * nu / (1.0 - nu) * film_strain;
        // The interface passes between two rows: sites stand at halves of the height.
        let rows = substrate.at_nm * 1e3 / film_height;
        let at = film_height * (0.5 * (2.0 * rows - 0.5).round() + 0.25);
        let at = [
            at * toward[0] + 0.25 * film_spacing * along[0],
            at * toward[1] + 0.25 * film_spacing * along[1],
        ];
        Self {
            at,
            along,
            toward,
            step_cells: axes.step_cells,
            stretch_along: common / film_spacing - 1.0,
            stretch_film: (1.0 + film_normal) / (1.0 - by_row) - 1.0,
            stretch_substrate: height / film_height / (1.0 + by_row) - 1.0,
            row,
            poisson_ratio: nu,
        }
    }

    /// A point of the interface and its normal.
    pub fn interface(&self) -> ([f64; 2], [f64; 2]) {
        (self.at, self.toward)
    }

    /// Position along the interface and toward the substrate.
    fn local(&self, position: [f64; 2]) -> [f64; 2] {
        let from = [position[0] - self.at[0], position[1] - self.at[1]];
        [dot(from, self.along), dot(from, self.toward)]
    }

    fn global(&self, [t, s]: [f64; 2]) -> [f64; 2] {
        [t * self.along[0] + s * self.toward[0], t * self.along[1] + s * self.toward[1]]
    }

    pub fn displacement(&self, position: [f64; 2]) -> [f64; 2] {
        let [t, s] = self.local(position);
        let stretch = if s < 0.0 { self.stretch_film } else { self.stretch_substrate };
        let (mut u, mut v) = (self.stretch_along * t, stretch * s);
        if let Some(row) = self.row {
            let [x, y] = row.half(s).displacement([t + u, s + v], self.poisson_ratio);
            (u, v) = (u + x, v + y);
        }
        self.global([u, v])
    }

    /// As [`Displacement::slip`](super::displacement::Displacement::slip).
    pub fn slip(&self, from: [f64; 2], to: [f64; 2]) -> [i64; 2] {
        let Some(row) = self.row else { return [0, 0] };
        let ([t, s], [_, beyond]) = (self.local(from), self.local(to));
        if (s < 0.0) == (beyond < 0.0) {
            return [0, 0];
        }
        let behind = (t * (1.0 + self.stretch_along) / row.half(s).spacing).floor() as i64;
        let sense = if (s < 0.0) == (row.strain > 0.0) { 1 } else { -1 };
        self.step_cells.map(|cells| sense * behind * cells)
    }

    /// Where the cores within `radius` of a place are, all in the displaced lattice.
    pub fn cores(&self, place: [f64; 2], radius: f64) -> Vec<[f64; 2]> {
        let Some((first, spacing)) = self.row.map(Row::displaced) else { return Vec::new() };
        let [t, s] = self.local(place);
        if s.abs() > radius {
            return Vec::new();
        }
        let number = |t: f64| (t - first) / spacing;
        let (from, to) = (number(t - radius).ceil() as i64, number(t + radius).floor() as i64);
        (from..=to)
            .map(|n| {
                let [x, y] = self.global([first + n as f64 * spacing, 0.0]);
                [self.at[0] + x, self.at[1] + y]
            })
            .collect()
    }

    /// From a place of the displaced lattice.
    pub fn distance_to_core(&self, place: [f64; 2]) -> f64 {
        let Some((first, spacing)) = self.row.map(Row::displaced) else { return f64::INFINITY };
        let [t, s] = self.local(place);
        (t - first - spacing * ((t - first) / spacing).round()).hypot(s)
    }
}

impl Row {
    /// Where one of the displaced cores is, and how far apart they are: each moves what comes after it by half a Burgers vector.
    fn displaced(self) -> (f64, f64) {
        let film = self.half(-1.0);
        (-0.25 * film.burgers, film.spacing + 0.5 * film.burgers)
    }

    /// Of the film (s < 0) or the substrate. One core to the next is the same way in both once displaced: spacing · (1 ± strain).
    fn half(self, s: f64) -> HalfRow {
        let less = if s < 0.0 { 1.0 - self.strain } else { 1.0 + self.strain };
        let spacing = self.common * less / (2.0 * self.strain.abs());
        HalfRow { spacing, burgers: 2.0 * self.strain * spacing }
    }
}

impl HalfRow {
    /// Σ over the cores at t = n · spacing, s = 0 of the field of an edge dislocation, `[t, s]`.
    ///
    /// Σ θ is the argument of sin z, z = π (t + i s) / spacing, followed continuously on either side; Σ of t s / r² and of s² / r²
    /// are Im z times the real and imaginary part of cot z; Σ ln r² is ln |sin z|². Constants are left out.
    fn displacement(&self, [t, s]: [f64; 2], poisson_ratio: f64) -> [f64; 2] {
        let (phi, eta) = (PI * t / self.spacing, PI * s / self.spacing);
        let core = (0.25 * PI * self.burgers / self.spacing).powi(2);
        let far = eta.abs() > 18.0;
        let side = if eta < 0.0 { -1.0 } else { 1.0 };
        let straight = side * (0.5 * PI - phi);
        let (angle, ln_sine2, cot_re, cot_im) = if far {
            (straight, 2.0 * (eta.abs() - 2f64.ln()), 0.0, -side)
        } else {
            let sine2 = phi.sin().powi(2) + eta.sinh().powi(2) + core;
            let argument = (phi.cos() * eta.sinh()).atan2(phi.sin() * eta.cosh());
            let off = argument - straight;
            let angle = straight + off - TAU * (off / TAU).round();
            (angle, sine2.ln(), 0.5 * (2.0 * phi).sin() / sine2, -0.5 * (2.0 * eta).sinh() / sine2)
        };
        let stiff = 1.0 - poisson_ratio;
        let u = angle + eta * cot_re / (2.0 * stiff);
        let v = -(1.0 - 2.0 * poisson_ratio) / (4.0 * stiff) * ln_sine2 - eta * cot_im / (2.0 * stiff);
        [u * self.burgers / TAU, v * self.burgers / TAU]
    }
}
