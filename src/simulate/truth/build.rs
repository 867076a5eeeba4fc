//! The truth of a frame from what was placed in it.

use super::{DefectKind, Extent, Truth, TruthCell, TruthColumn, TruthDefect};
use crate::simulate::lattice::{Focus, Grid, Piece, Site, SiteKind};
use crate::simulate::place::{Placed, PlacedColumn, PlacedGrid};
use crate::simulate::specimen::ZoneAxis;
use crate::simulate::view::{View, add, apply, subtract};

/// Cells nearer to the core of a dislocation than this, in mean cell edges, are disturbed.
const CORE_CELLS: f64 = 1.5;
/// A contamination's mask reaches to so many standard deviations.
const CONTAMINATION_SIGMAS: f64 = 2.0;

fn length([x, y]: [f64; 2]) -> f64 {
    x.hypot(y)
}

impl View<'_> {
    pub(in crate::simulate) fn truth(&self, placed: &Placed) -> Truth {
        let mut truth = Truth { defects: self.extended_defects(), ..Truth::default() };
        let half_cell_px = 0.25 * (self.specimen.cell_a_pm + self.specimen.cell_b_pm) / self.pixel_pm();
        for placed_column in placed.columns() {
            let PlacedColumn { class, column, seen_px, true_px, .. } = placed_column;
            let amorphous = column.defect == Some(DefectKind::Amorphous);
            if self.shows(*seen_px) && column.intensity > 0.0 && !amorphous {
                let [col, row] = *seen_px;
                truth.columns.push(TruthColumn { row, col, class: *class, intensity: column.intensity });
            }
            if let Some(kind) = column.defect
                && !amorphous
                && self.shows(*true_px)
            {
                let [col, row] = *true_px;
                let radius_px = half_cell_px;
                truth.defects.push(TruthDefect { kind, row, col, radius_px, extent: Extent::Disc });
            }
        }
        for (grid, cells) in self.lattice.grids().iter().zip(&placed.grids) {
            if grid.zone_axis == ZoneAxis::Z100 {
                let all = cells.cells().filter_map(|(i, j)| self.truth_cell(grid, cells, i, j));
                truth.cells.extend(all.filter(|cell| self.shows([cell.col, cell.row])));
            }
        }
        // Within the circle through a cell's corners.
        let radius_px = half_cell_px * std::f64::consts::SQRT_2;
        for [x, y] in placed.interstitials.iter().map(|column| column.true_px) {
            let near = truth.cells.iter_mut().filter(|c| (c.row - y).hypot(c.col - x) < radius_px);
            near.for_each(|cell| cell.disturbed = true);
        }
        truth
    }

    /// Side of a square as large as a pixel.
    fn pixel_pm(&self) -> f64 {
        let [high_pm, wide_pm] = self.microscope.pixel_sizes_pm();
        (high_pm * wide_pm).sqrt()
    }

    /// Whether an image position `[x, y]` in pixels is on the frame.
    fn shows(&self, [x, y]: [f64; 2]) -> bool {
        let [rows, cols] = self.microscope.shape.map(|n| n as f64);
        (-0.5..cols - 0.5).contains(&x) && (-0.5..rows - 0.5).contains(&y)
    }

    /// The cell `(i, j)`; `None` where one of its columns is out of sight or missing.
    fn truth_cell(&self, grid: &Grid, cells: &PlacedGrid, i: i64, j: i64) -> Option<TruthCell> {
        let b = cells.get(Site { i, j, kind: SiteKind::B })?;
        let b_site = grid.position(Site { i, j, kind: SiteKind::B })?;
        let mut corners = [b; 4];
        // Where the crystal has slipped between B and a corner, the neighbour is another site; its way from the regular one, pm.
        let mut slipped = [[0.0, 0.0]; 4];
        for (corner, (di, dj)) in [(0, 0), (1, 0), (0, 1), (1, 1)].into_iter().enumerate() {
            let mut site = Site { i: i + di, j: j + dj, kind: SiteKind::A };
            if grid.displaced && self.lattice.displacement().may_slip() {
                let [ki, kj] = self.lattice.displacement().slip(b_site, grid.position(site)?);
                site = Site { i: site.i + ki, j: site.j + kj, ..site };
                slipped[corner] = grid.along_edges([ki as f64, kj as f64]);
            }
            corners[corner] = cells.get(site)?;
        }
        let shift = |k: usize| add(corners[k].column.shift, slipped[k]);
        let mean = |of: &dyn Fn(usize) -> [f64; 2]| {
            (0..4).fold([0.0, 0.0], |sum, k| add(sum, of(k))).map(|s| 0.25 * s)
        };
        let center = mean(&|k| corners[k].true_px);
        // The undisplaced B site is the exact mean of its A sites, so only the displacements count.
        let [p_x, p_y] = apply(&self.to_image, subtract(b.column.shift, mean(&shift)));
        let [mistilt_x, mistilt_y] = subtract(b.mistilt_pm, mean(&|k| corners[k].mistilt_pm));

        let [tilt_x_mrad, tilt_y_mrad] = self.in_image_mrad(b.tilt_mrad);
        let [edge_a, edge_b] = grid.edges;
        let [c00, c10, c01, c11] =
            [shift(0), add(edge_a, shift(1)), add(edge_b, shift(2)), add(add(edge_a, edge_b), shift(3))]
                .map(|corner| apply(&self.to_image, corner));
        let along_a = [subtract(c10, c00), subtract(c11, c01)];
        let along_b = [subtract(c01, c00), subtract(c11, c10)];
        let [diagonal, other] = [subtract(c11, c00), subtract(c01, c10)];
        let cell_area = 0.5 * (diagonal[0] * other[1] - diagonal[1] * other[0]).abs();
        let (a, b_edges) = nearer_to_x_first(along_a, along_b);
        let mean_length = |e: [[f64; 2]; 2]| 0.5 * (length(e[0]) + length(e[1]));
        let is_changed = |column: &PlacedColumn| column.column.defect.is_some() || column.saturated;
        let changed = corners.into_iter().chain([b]).any(is_changed);
        let at_core = grid.displaced && {
            let place = add(b_site, b.column.shift);
            self.lattice.displacement().distance_to_core(place) < CORE_CELLS * grid.mean_edge()
        };
        Some(TruthCell {
            row: center[1],
            col: center[0],
            b_row: b.true_px[1],
            b_col: b.true_px[0],
            p_x,
            p_y,
            mistilt_x,
            mistilt_y,
            tilt_x_mrad,
            tilt_y_mrad,
            cell_a: mean_length(a),
            cell_b: mean_length(b_edges),
            cell_angle: angle_between(add(a[0], a[1]), add(b_edges[0], b_edges[1])),
            cell_area,
            composition: corners.iter().map(|c| c.column.composition).sum::<f64>() / 4.0,
            region: b.column.region,
            disturbed: changed || at_core,
        })
    }

    /// Regions, then their boundaries, contamination and the cores of dislocations.
    fn extended_defects(&self) -> Vec<TruthDefect> {
        let pieces = self.lattice.pieces();
        let mut defects: Vec<TruthDefect> =
            pieces.iter().filter_map(|piece| self.area_of(piece, piece.kind.interior()?)).collect();
        let boundaries = pieces.iter().enumerate();
        defects.extend(boundaries.flat_map(|(n, piece)| self.boundary_of(piece, &pieces[n + 1..])));
        let disc = |kind: DefectKind, position_pm: [f64; 2], radius_pm: f64| {
            let [col, row] = self.image_px(position_pm);
            let radius_px = radius_pm / self.pixel_pm();
            TruthDefect { kind, row, col, radius_px, extent: Extent::Disc }
        };
        let blobs = self.lattice.contaminations.iter().map(|blob| {
            let radius_pm = CONTAMINATION_SIGMAS * blob.radius * 1e3;
            disc(DefectKind::Contamination, blob.center.map(|c| c * 1e3), radius_pm)
        });
        let displacement = self.lattice.displacement();
        let Focus { center, radius } = self.lattice.focus;
        let row = displacement.misfit_cores(center.map(|c| c * 1e3), radius * 1e3);
        let edge = self.lattice.grids().first().map_or(0.0, Grid::mean_edge);
        let cores = displacement
            .cores()
            .iter()
            .copied()
            .chain(row)
            .map(|at| disc(DefectKind::Dislocation, at, CORE_CELLS * edge));
        defects.extend(blobs.chain(cores).filter(|defect| self.reaches(defect)));
        defects
    }

    /// Whether a disc reaches into the frame.
    fn reaches(&self, disc: &TruthDefect) -> bool {
        let [rows, cols] = self.microscope.shape.map(|n| n as f64);
        let (row, col) = (disc.row.clamp(0.0, rows - 1.0), disc.col.clamp(0.0, cols - 1.0));
        (disc.row - row).hypot(disc.col - col) <= disc.radius_px
    }

    /// Image position `[row, col]` of a specimen position `[x, y]` in nm.
    fn row_col(&self, position_nm: [f64; 2]) -> [f64; 2] {
        let [col, row] = self.image_px(position_nm.map(|c| c * 1e3));
        [row, col]
    }

    fn area_of(&self, piece: &Piece, kind: DefectKind) -> Option<TruthDefect> {
        let corners: Vec<[f64; 2]> =
            piece.outline.area(self.lattice.focus).into_iter().map(|at| self.row_col(at)).collect();
        let [row, col] = self.row_col(piece.outline.place(self.lattice.focus));
        let in_frame = corners.iter().filter(|[row, col]| self.shows([*col, *row]));
        let farthest = in_frame.map(|[r, c]| (r - row).hypot(c - col)).reduce(f64::max);
        // Without a corner in the frame, the frame lies within it or beside it.
        let [rows, cols] = self.microscope.shape.map(|n| (n as f64 - 1.0) / 2.0);
        let middle = self.specimen_pm([cols, rows]).map(|c| c * 1e-3);
        let radius_px = match farthest {
            Some(farthest) => farthest,
            None if !corners.is_empty() && piece.outline.depth(middle) > 0.0 => rows.hypot(cols),
            None => return None,
        };
        Some(TruthDefect { kind, row, col, radius_px, extent: Extent::Area(corners) })
    }

    /// The boundary of a region in the frame, as far as none of the `later` regions covers it.
    fn boundary_of(&self, piece: &Piece, later: &[Piece]) -> Vec<TruthDefect> {
        let Some(kind) = piece.kind.boundary() else { return Vec::new() };
        let covered = |at: &[f64; 2]| later.iter().any(|other| other.outline.depth(*at) > 0.0);
        let radius_px = 0.25 * (self.specimen.cell_a_pm + self.specimen.cell_b_pm) / self.pixel_pm();
        let paths = piece.outline.paths(self.lattice.focus);
        let parts = paths.iter().flat_map(|path| path.split(|at| covered(at)));
        let in_image = |part: &[[f64; 2]]| part.iter().map(|at| self.row_col(*at)).collect::<Vec<_>>();
        parts
            .map(in_image)
            .filter_map(|path| {
                let mut shown = path.iter().filter(|[row, col]| self.shows([*col, *row]));
                let middle = shown.clone().count() / 2;
                let [row, col] = *shown.nth(middle)?;
                Some(TruthDefect { kind, row, col, radius_px, extent: Extent::Path(path) })
            })
            .collect()
    }
}

/// The pairs of opposite edges, those nearer to the x axis first, turned to point right; the others to lie clockwise of them.
fn nearer_to_x_first(first: [[f64; 2]; 2], second: [[f64; 2]; 2]) -> ([[f64; 2]; 2], [[f64; 2]; 2]) {
    let flatness = |edges: [[f64; 2]; 2]| {
        let [x, y] = add(edges[0], edges[1]);
        x.abs() / x.hypot(y)
    };
    let flipped = |edges: [[f64; 2]; 2]| edges.map(|edge| edge.map(|c| -c));
    let (mut a, mut b) = if flatness(first) >= flatness(second) { (first, second) } else { (second, first) };
    if a[0][0] + a[1][0] < 0.0 {
        a = flipped(a);
    }
    let ([ax, ay], [bx, by]) = (add(a[0], a[1]), add(b[0], b[1]));
    if ax * by - ay * bx < 0.0 {
        b = flipped(b);
    }
    (a, b)
}

/// Angle between two vectors, rad, 0..π.
fn angle_between(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] * b[1] - a[1] * b[0]).abs().atan2(a[0] * b[0] + a[1] * b[1])
}
