//! One frame of a specimen, and its truth.

use super::canvas::Canvas;
use super::detector::{detect, pixel_array};
use super::lattice::{Site, SiteColumn, SiteKind};
use super::microscope::{Microscope, PixelType};
use super::scan_field::ScanField;
use super::specimen::Specimen;
use super::truth::{DefectKind, Truth, TruthCell, TruthColumn, TruthDefect};
use super::view::{View, add, apply, subtract};
use crate::config::InvalidSetting;
use crate::frame::Sublattice;
use ferrostem_proto::{ArrayError, PixelArray};
use ndarray::Array2;
use rand::Rng;

/// A frame as the detector delivers it, with what it shows.
#[derive(Debug, Clone)]
pub struct SimulatedFrame {
    /// Pixel values `[row, col]`: `gain * counts + offset + read noise`, not yet of the detector's type.
    pub pixels: Array2<f32>,
    pub truth: Truth,
}

/// Scans `specimen` once. The specimen follows from its seed alone; `rng` is the microscope's chance: counts, read noise, where
/// the lines of the scan went.
///
/// # Errors
/// [`InvalidSetting`] when either description is out of range.
pub fn render(
    specimen: &Specimen,
    microscope: &Microscope,
    rng: &mut impl Rng,
) -> Result<SimulatedFrame, InvalidSetting> {
    specimen.validate("specimen")?;
    microscope.validate("microscope")?;
    let microscope = microscope.scanned();
    let field = ScanField::draw(&microscope, rng);
    let view = View::new(specimen, &microscope, field.farthest_px());
    let placed = view.place_columns();
    let mut truth = view.truth(&placed);
    let mut canvas = Canvas::new(microscope.shape, &field, view.narrowest_px());
    view.add_background(&mut canvas);
    for column in placed.columns.iter().flatten() {
        view.add_column(&mut canvas, column);
    }
    let mut pixels = canvas.into_scanned();
    truth.saturated = detect(&mut pixels, &field, &microscope, rng);
    truth.scan = field;
    Ok(SimulatedFrame { pixels, truth })
}

/// The columns in and around the frame, and how to find one by its cell.
pub(super) struct Placed {
    cells: [usize; 2],
    /// By cell, then by site kind; `None` where the frame cannot see it.
    columns: Vec<Option<PlacedColumn>>,
}

/// A column with its positions in the image, `[x, y]` in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlacedColumn {
    kind: SiteKind,
    pub column: SiteColumn,
    /// Without mistilt and scatter.
    true_px: [f64; 2],
    /// As it appears.
    pub seen_px: [f64; 2],
    /// What mistilt adds, in the image, pm.
    mistilt_pm: [f64; 2],
    /// The tilt itself, in the specimen frame.
    pub tilt_mrad: [f64; 2],
}

impl View<'_> {
    fn place_columns(&self) -> Placed {
        let [rows, cols] = self.microscope.shape.map(|n| n as f64);
        let margin = self.margin_px();
        let corners = [
            [-margin, -margin],
            [cols + margin, -margin],
            [-margin, rows + margin],
            [cols + margin, rows + margin],
        ]
        .map(|corner| self.lattice.cell_coordinates(self.specimen_pm(corner)));
        let bounds = [0, 1].map(|axis| {
            let low = corners.iter().fold(f64::INFINITY, |low, c| low.min(c[axis]));
            let high = corners.iter().fold(f64::NEG_INFINITY, |high, c| high.max(c[axis]));
            (low.floor() as i64, high.ceil() as i64)
        });
        let cells = bounds.map(|(low, high)| (high - low + 1).max(1) as usize);
        let mut columns = Vec::with_capacity(cells[0] * cells[1] * SiteKind::ALL.len());
        for j in bounds[1].0..=bounds[1].1 {
            for i in bounds[0].0..=bounds[0].1 {
                columns.extend(SiteKind::ALL.map(|kind| self.place(Site { i, j, kind }, margin)));
            }
        }
        Placed { cells, columns }
    }

    fn place(&self, site: Site, margin: f64) -> Option<PlacedColumn> {
        let [rows, cols] = self.microscope.shape.map(|n| n as f64);
        let position_pm = self.lattice.position_pm(site);
        let [x, y] = self.image_px(position_pm);
        if !(-margin..=cols + margin).contains(&x) || !(-margin..=rows + margin).contains(&y) {
            return None;
        }
        let column = self.lattice.column(site)?;
        let mistilt = self.mistilt(position_pm);
        let share = if site.kind == SiteKind::A { 1.0 } else { 0.5 };
        let tilt = mistilt.a_shift_pm.map(|t| share * t);
        let true_pm = add(position_pm, column.shift);
        Some(PlacedColumn {
            kind: site.kind,
            column,
            true_px: self.image_px(true_pm),
            seen_px: self.image_px(add(add(true_pm, column.scatter), tilt)),
            mistilt_pm: apply(&self.to_image, tilt),
            tilt_mrad: mistilt.mrad,
        })
    }

    fn truth(&self, placed: &Placed) -> Truth {
        let [rows, cols] = self.microscope.shape.map(|n| n as f64);
        let inside = |[x, y]: [f64; 2]| (-0.5..cols - 0.5).contains(&x) && (-0.5..rows - 0.5).contains(&y);
        let mut truth = Truth::default();
        let half_cell_px =
            0.25 * (self.specimen.cell_a_pm + self.specimen.cell_b_pm) / self.microscope.pixel_size_pm;
        for placed_column in placed.columns.iter().flatten() {
            let PlacedColumn { kind, column, seen_px, true_px, .. } = placed_column;
            let sublattice = match kind {
                SiteKind::A => Sublattice::A,
                SiteKind::B => Sublattice::B,
                SiteKind::OnA | SiteKind::OnB => continue,
            };
            let amorphous = column.defect == Some(DefectKind::Amorphous);
            if inside(*seen_px) && column.intensity > 0.0 && !amorphous {
                let [col, row] = *seen_px;
                truth.columns.push(TruthColumn { row, col, sublattice, intensity: column.intensity });
            }
            if let Some(kind) = column.defect
                && !amorphous
                && inside(*true_px)
            {
                let [col, row] = *true_px;
                truth.defects.push(TruthDefect { kind, row, col, radius_px: half_cell_px });
            }
        }
        for patch in self.specimen.defects.iter().filter(|d| d.kind == DefectKind::Amorphous) {
            let [col, row] = self.image_px([patch.at_nm[1] * 1e3, patch.at_nm[0] * 1e3]);
            let radius_px = patch.radius_nm * 1e3 / self.microscope.pixel_size_pm;
            let (nearest_row, nearest_col) = (row.clamp(0.0, rows - 1.0), col.clamp(0.0, cols - 1.0));
            if (row - nearest_row).hypot(col - nearest_col) <= radius_px {
                truth.defects.push(TruthDefect { kind: DefectKind::Amorphous, row, col, radius_px });
            }
        }
        for j in 0..placed.cells[1] {
            for i in 0..placed.cells[0] {
                truth.cells.extend(self.truth_cell(placed, i, j).filter(|cell| inside([cell.col, cell.row])));
            }
        }
        truth
    }

    /// The cell `(i, j)` counted from the first one placed; `None` where one of its columns is out of sight.
    fn truth_cell(&self, placed: &Placed, i: usize, j: usize) -> Option<TruthCell> {
        let corners = [
            placed.get(i, j, SiteKind::A)?,
            placed.get(i + 1, j, SiteKind::A)?,
            placed.get(i, j + 1, SiteKind::A)?,
            placed.get(i + 1, j + 1, SiteKind::A)?,
        ];
        let b = placed.get(i, j, SiteKind::B)?;
        let mean = |of: &dyn Fn(&PlacedColumn) -> [f64; 2]| {
            corners.iter().fold([0.0, 0.0], |sum, c| add(sum, of(c))).map(|s| 0.25 * s)
        };
        let center = mean(&|c| c.true_px);
        // The undisplaced B site is the exact mean of its A sites, so only the displacements count.
        let [p_x, p_y] = apply(&self.to_image, subtract(b.column.shift, mean(&|c| c.column.shift)));
        let [mistilt_x, mistilt_y] = subtract(b.mistilt_pm, mean(&|c| c.mistilt_pm));
        let [tilt_x_mrad, tilt_y_mrad] = self.in_image_mrad(b.tilt_mrad);

        let [edge_a, edge_b] = self.lattice.edges;
        let [c00, c10, c01, c11] = [
            corners[0].column.shift,
            add(edge_a, corners[1].column.shift),
            add(edge_b, corners[2].column.shift),
            add(add(edge_a, edge_b), corners[3].column.shift),
        ]
        .map(|corner| apply(&self.to_image, corner));
        let along_a = [subtract(c10, c00), subtract(c11, c01)];
        let along_b = [subtract(c01, c00), subtract(c11, c10)];
        let [diagonal, other] = [subtract(c11, c00), subtract(c01, c10)];
        let cell_area = 0.5 * (diagonal[0] * other[1] - diagonal[1] * other[0]).abs();
        let (a, b_edges) = nearer_to_x_first(along_a, along_b);
        let mean_length = |e: [[f64; 2]; 2]| 0.5 * (e[0][0].hypot(e[0][1]) + e[1][0].hypot(e[1][1]));
        let disturbed = corners.iter().any(|c| c.column.defect.is_some()) || b.column.defect.is_some();
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
            disturbed,
        })
    }
}

impl Placed {
    /// The column of this kind in the cell `(i, j)`, counted from the first one placed.
    fn get(&self, i: usize, j: usize, kind: SiteKind) -> Option<&PlacedColumn> {
        if i >= self.cells[0] || j >= self.cells[1] {
            return None;
        }
        self.columns.get((j * self.cells[0] + i) * SiteKind::ALL.len() + kind as usize)?.as_ref()
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

impl SimulatedFrame {
    /// The pixels as the detector's element type: integers are rounded and clipped.
    ///
    /// # Errors
    /// When the array is too large for the wire.
    pub fn pixel_array(&self, pixel_type: PixelType) -> Result<PixelArray, ArrayError> {
        pixel_array(&self.pixels, pixel_type)
    }
}
