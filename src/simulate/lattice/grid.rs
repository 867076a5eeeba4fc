//! Lattices and their sites.

use crate::simulate::specimen::ZoneAxis;

/// A point of the lattice: cell `(i, j)` spans from A site `i a + j b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::simulate) struct Site {
    pub i: i64,
    pub j: i64,
    pub kind: SiteKind,
}

/// Where in its cell a site lies, along [100].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::simulate) enum SiteKind {
    /// (0, 0)
    A,
    /// (½, ½)
    B,
    /// (½, 0)
    OnA,
    /// (0, ½)
    OnB,
}

impl SiteKind {
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::OnA, Self::OnB];

    pub const fn is_oxygen(self) -> bool {
        matches!(self, Self::OnA | Self::OnB)
    }
}

/// Regular sites without bounds, lengths in pm, `[x, y]` in the specimen frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::simulate) struct Grid {
    /// Edges a and b of its cell.
    pub edges: [[f64; 2]; 2],
    /// Where the A site of cell (0, 0) is.
    pub origin: [f64; 2],
    pub zone_axis: ZoneAxis,
    /// Direction of a, counter-clockwise from the x axis as displayed.
    pub rotation_rad: f64,
    /// Whether the specimen's displacement fields move its sites.
    pub displaced: bool,
}

impl Grid {
    /// Coordinates of a site in its cell, in units of the edges; `None` where this zone axis shows no such column.
    pub const fn in_cell(&self, kind: SiteKind) -> Option<[f64; 2]> {
        match (self.zone_axis, kind) {
            (_, SiteKind::A) => Some([0.0, 0.0]),
            (ZoneAxis::Z100, SiteKind::B) | (ZoneAxis::Z110, SiteKind::OnA) => Some([0.5, 0.5]),
            (ZoneAxis::Z100, SiteKind::OnA) => Some([0.5, 0.0]),
            (ZoneAxis::Z100, SiteKind::OnB) | (ZoneAxis::Z110, SiteKind::B) => Some([0.0, 0.5]),
            (ZoneAxis::Z110, SiteKind::OnB) => None,
        }
    }

    /// Undisplaced position of a site.
    pub fn position(&self, site: Site) -> Option<[f64; 2]> {
        let [u, v] = self.in_cell(site.kind)?;
        let [x, y] = self.along_edges([site.i as f64 + u, site.j as f64 + v]);
        Some([self.origin[0] + x, self.origin[1] + y])
    }

    /// The vector of so many edges.
    pub fn along_edges(&self, [u, v]: [f64; 2]) -> [f64; 2] {
        let [a, b] = self.edges;
        [u * a[0] + v * b[0], u * a[1] + v * b[1]]
    }

    /// An undisplaced position in units of the edges, from the origin.
    pub fn cell_coordinates(&self, position: [f64; 2]) -> [f64; 2] {
        let [a, b] = self.edges;
        let det = a[0] * b[1] - a[1] * b[0];
        let [x, y] = [position[0] - self.origin[0], position[1] - self.origin[1]];
        [(x * b[1] - y * b[0]) / det, (a[0] * y - a[1] * x) / det]
    }

    /// The site of this kind nearest to an undisplaced position.
    pub fn nearest(&self, position: [f64; 2], kind: SiteKind) -> Option<Site> {
        let [in_u, in_v] = self.in_cell(kind)?;
        let [u, v] = self.cell_coordinates(position);
        Some(Site { i: (u - in_u).round() as i64, j: (v - in_v).round() as i64, kind })
    }

    /// Mean length of the edges.
    pub fn mean_edge(&self) -> f64 {
        let [a, b] = self.edges;
        0.5 * (a[0].hypot(a[1]) + b[0].hypot(b[1]))
    }
}
