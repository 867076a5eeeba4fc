//! One frame of a specimen, and its truth.

use super::canvas::{Canvas, Gaussian, LineJitter};
use super::detector::{detect, pixel_array};
use super::lattice::{Lattice, Site, SiteColumn, SiteKind};
use super::microscope::{Microscope, PixelType, turned};
use super::specimen::Specimen;
use super::truth::{DefectKind, Truth, TruthCell, TruthColumn, TruthDefect};
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

/// Where Gaussians are cut off, in standard deviations: below 1 ‰ of the peak for columns, 1 % of the small tails.
const REACH_SIGMAS: f64 = 3.9;
const TAIL_REACH_SIGMAS: f64 = 3.2;
/// The background is smooth: computed on a mesh of this many pixels and interpolated.
const BACKGROUND_MESH_PX: usize = 16;

/// Scans `specimen` once. The specimen follows from its seed alone; `rng` is the noise: counts, read noise, line jitter.
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
    let view = View::new(specimen, microscope);
    let placed = view.place_columns();
    let truth = view.truth(&placed);
    let jitter = LineJitter::draw(microscope, rng);
    let mut canvas = Canvas::new(microscope.shape, jitter);
    view.add_background(&mut canvas);
    for column in placed.columns.iter().flatten() {
        view.add_column(&mut canvas, column);
    }
    let mut pixels = canvas.into_scanned();
    detect(&mut pixels, microscope, rng);
    Ok(SimulatedFrame { pixels, truth })
}

/// The part of the specimen under the scan.
struct View<'a> {
    specimen: &'a Specimen,
    microscope: &'a Microscope,
    lattice: Lattice<'a>,
    /// Vector `[x, y]` in the specimen → in the image, same unit; drift within the frame included.
    to_image: [[f64; 2]; 2],
}

/// The columns in and around the frame, and how to find one by its cell.
struct Placed {
    cells: [usize; 2],
    /// By cell, then by site kind; `None` where the frame cannot see it.
    columns: Vec<Option<PlacedColumn>>,
}

/// A column with its positions in the image, `[x, y]` in pixels.
#[derive(Debug, Clone, Copy)]
struct PlacedColumn {
    kind: SiteKind,
    column: SiteColumn,
    /// Without mistilt and scatter.
    true_px: [f64; 2],
    /// As it appears.
    seen_px: [f64; 2],
    /// What mistilt adds, in the image, pm.
    mistilt_pm: [f64; 2],
}

fn apply(matrix: &[[f64; 2]; 2], v: [f64; 2]) -> [f64; 2] {
    [matrix[0][0] * v[0] + matrix[0][1] * v[1], matrix[1][0] * v[0] + matrix[1][1] * v[1]]
}

fn add(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

fn subtract(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

impl<'a> View<'a> {
    fn new(specimen: &'a Specimen, microscope: &'a Microscope) -> Self {
        // The beam reaches row r at time (r - centre) / rows, when the specimen has moved by that fraction of its drift.
        let height_pm = microscope.shape[0] as f64 * microscope.pixel_size_pm;
        let [drift_x, drift_y] = microscope.drift_pm.map(|d| d / height_pm);
        let stretch = 1.0 / (1.0 - drift_y);
        let column = |v: [f64; 2]| {
            let [x, y] = turned(v, -microscope.rotation_rad);
            [x + drift_x * stretch * y, stretch * y]
        };
        let (from_x, from_y) = (column([1.0, 0.0]), column([0.0, 1.0]));
        let to_image = [[from_x[0], from_y[0]], [from_x[1], from_y[1]]];
        Self { specimen, microscope, lattice: Lattice::new(specimen), to_image }
    }

    /// Specimen position `[x, y]` in pm → image position `[x, y]` in pixels.
    fn image_px(&self, position_pm: [f64; 2]) -> [f64; 2] {
        let m = self.microscope;
        let center_pm = [m.center_nm[1] * 1e3, m.center_nm[0] * 1e3];
        let [x, y] = apply(&self.to_image, subtract(position_pm, center_pm));
        let [rows, cols] = m.shape.map(|n| (n as f64 - 1.0) / 2.0);
        [cols + x / m.pixel_size_pm, rows + y / m.pixel_size_pm]
    }

    /// Image position `[x, y]` in pixels → specimen position `[x, y]` in pm.
    fn specimen_pm(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let m = self.microscope;
        let [rows, cols] = m.shape.map(|n| (n as f64 - 1.0) / 2.0);
        let offset = [(x - cols) * m.pixel_size_pm, (y - rows) * m.pixel_size_pm];
        let [[a, b], [c, d]] = self.to_image;
        let det = a * d - b * c;
        let [dx, dy] = [(d * offset[0] - b * offset[1]) / det, (a * offset[1] - c * offset[0]) / det];
        [m.center_nm[1] * 1e3 + dx, m.center_nm[0] * 1e3 + dy]
    }

    /// Width of a column in the image, pixels.
    fn sigma_px(&self, sigma_pm: f64) -> f64 {
        sigma_pm.hypot(self.microscope.probe_sigma_pm) / self.microscope.pixel_size_pm
    }

    /// How far outside the frame a column can lie and still be seen, pixels.
    fn margin_px(&self) -> f64 {
        let columns = &self.specimen.columns;
        let widest_pm = [Some(columns.a), Some(columns.b), columns.o]
            .into_iter()
            .flatten()
            .fold(0.0, |widest: f64, shape| widest.max(shape.sigma_pm));
        let tail = if columns.tail_fraction > 0.0 { TAIL_REACH_SIGMAS * columns.tail_ratio } else { 0.0 };
        // Two cells more, so that every cell in the frame has its neighbours and displaced columns are not lost.
        let cells_px =
            2.0 * self.specimen.cell_a_pm.max(self.specimen.cell_b_pm) / self.microscope.pixel_size_pm;
        self.sigma_px(widest_pm) * tail.max(REACH_SIGMAS) + cells_px
    }

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
        let tilt = add(
            self.microscope.tilt_offset_pm,
            self.specimen.bend_offset_pm([position_pm[1] * 1e-3, position_pm[0] * 1e-3]),
        );
        let tilt = if site.kind == SiteKind::A { tilt } else { tilt.map(|t| 0.5 * t) };
        let true_pm = add(position_pm, column.shift);
        Some(PlacedColumn {
            kind: site.kind,
            column,
            true_px: self.image_px(true_pm),
            seen_px: self.image_px(add(add(true_pm, column.scatter), tilt)),
            mistilt_pm: apply(&self.to_image, tilt),
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
            cell_a: mean_length(a),
            cell_b: mean_length(b_edges),
            cell_angle: angle_between(add(a[0], a[1]), add(b_edges[0], b_edges[1])),
            cell_area,
            disturbed,
        })
    }

    fn add_background(&self, canvas: &mut Canvas) {
        let m = self.microscope;
        let [rows, cols] = m.shape;
        if self.specimen.background == Default::default() && m.dark_counts == 0.0 {
            return;
        }
        let mesh = BACKGROUND_MESH_PX;
        let at_node = |row: usize, col: usize| {
            let [x, y] = self.specimen_pm([(col * mesh) as f64, (row * mesh) as f64]);
            let position_nm = [y * 1e-3, x * 1e-3];
            let scattered = self.specimen.background_at(position_nm) * self.lattice.thickness_at(position_nm);
            (m.peak_counts * scattered + m.dark_counts) as f32
        };
        let nodes = Array2::from_shape_fn((rows / mesh + 2, cols / mesh + 2), |(r, c)| at_node(r, c));
        canvas.add_smooth(|row| {
            let (r, down) = (row / mesh, (row % mesh) as f32 / mesh as f32);
            let line: Vec<f32> =
                (0..nodes.ncols()).map(|c| nodes[[r, c]] * (1.0 - down) + nodes[[r + 1, c]] * down).collect();
            (0..cols)
                .map(|col| {
                    let (c, right) = (col / mesh, (col % mesh) as f32 / mesh as f32);
                    line[c] * (1.0 - right) + line[c + 1] * right
                })
                .collect()
        });
    }

    fn add_column(&self, canvas: &mut Canvas, placed: &PlacedColumn) {
        let Specimen { columns, .. } = self.specimen;
        let height = self.microscope.peak_counts * placed.column.intensity;
        let sigma = self.sigma_px(placed.column.sigma_pm);
        let core = Gaussian { center: placed.seen_px, sigma, height: height * (1.0 - columns.tail_fraction) };
        canvas.add(&core, REACH_SIGMAS);
        if columns.tail_fraction > 0.0 {
            let tail = Gaussian {
                center: placed.seen_px,
                sigma: sigma * columns.tail_ratio,
                height: height * columns.tail_fraction,
            };
            canvas.add(&tail, TAIL_REACH_SIGMAS);
        }
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
