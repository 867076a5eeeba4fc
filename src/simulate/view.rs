//! The part of a specimen under a scan: where it lies in the frame, and how it is drawn.

use super::canvas::Canvas;
use super::lattice::{Focus, Lattice, SiteColumn};
use super::microscope::{Covariance, Microscope, turned};
use super::place::PlacedColumn;
use super::plane::Gaussian;
use super::specimen::Specimen;
use ndarray::Array2;

/// Columns and their tails are drawn as far as they are above this fraction of an A column's peak, so that all that is left
/// out of a pixel stays below 1e-4 of it.
const LEAST: f64 = 4e-6;
/// The background is smooth: computed on a mesh of this many pixels and interpolated.
const BACKGROUND_MESH_PX: f64 = 16.0;

/// Columns farther outside the frame than this are not needed, nm.
const FOCUS_MARGIN_NM: f64 = 8.0;

/// The part of the specimen under the scan.
pub(super) struct View<'a> {
    pub specimen: &'a Specimen,
    /// Without a sub-scan.
    pub microscope: &'a Microscope,
    pub lattice: Lattice<'a>,
    /// Vector `[x, y]` in the specimen → in the image, same unit; uniform drift within the frame included.
    pub to_image: [[f64; 2]; 2],
    /// How far lines of the scan are from their place at most.
    displaced_px: f64,
}

/// Tilt of the specimen at some place, in the specimen frame, and how far it shifts the A columns there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mistilt {
    pub mrad: [f64; 2],
    pub a_shift_pm: [f64; 2],
}

pub(super) fn apply(matrix: &[[f64; 2]; 2], v: [f64; 2]) -> [f64; 2] {
    [matrix[0][0] * v[0] + matrix[0][1] * v[1], matrix[1][0] * v[0] + matrix[1][1] * v[1]]
}

pub(super) fn add(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

pub(super) fn subtract(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

impl<'a> View<'a> {
    /// For a scan whose lines and pixels are displaced by at most `displaced_px`.
    pub fn new(specimen: &'a Specimen, microscope: &'a Microscope, displaced_px: f64) -> Self {
        // The beam reaches row r at time (r - centre) / rows, when the specimen has moved by that fraction of its drift.
        let height_pm = microscope.fov_nm()[0] * 1e3;
        let [drift_x, drift_y] = microscope.drift_pm.map(|d| d / height_pm);
        let stretch = 1.0 / (1.0 - drift_y);
        let column = |v: [f64; 2]| {
            let [x, y] = turned(v, -microscope.rotation_rad);
            [x + drift_x * stretch * y, stretch * y]
        };
        let (from_x, from_y) = (column([1.0, 0.0]), column([0.0, 1.0]));
        let to_image = [[from_x[0], from_y[0]], [from_x[1], from_y[1]]];
        Self {
            specimen,
            microscope,
            lattice: Lattice::new(specimen, focus(microscope, displaced_px)),
            to_image,
            displaced_px,
        }
    }

    /// Specimen position `[x, y]` in pm → image position `[x, y]` in pixels.
    pub fn image_px(&self, position_pm: [f64; 2]) -> [f64; 2] {
        let m = self.microscope;
        let center_pm = [m.center_nm[1] * 1e3, m.center_nm[0] * 1e3];
        let [x, y] = apply(&self.to_image, subtract(position_pm, center_pm));
        let [rows, cols] = m.shape.map(|n| (n as f64 - 1.0) / 2.0);
        let [high_pm, wide_pm] = m.pixel_sizes_pm();
        [cols + x / wide_pm, rows + y / high_pm]
    }

    /// Image position `[x, y]` in pixels → specimen position `[x, y]` in pm.
    pub fn specimen_pm(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let m = self.microscope;
        let [rows, cols] = m.shape.map(|n| (n as f64 - 1.0) / 2.0);
        let [high_pm, wide_pm] = m.pixel_sizes_pm();
        let offset = [(x - cols) * wide_pm, (y - rows) * high_pm];
        let [[a, b], [c, d]] = self.to_image;
        let det = a * d - b * c;
        let [dx, dy] = [(d * offset[0] - b * offset[1]) / det, (a * offset[1] - c * offset[0]) / det];
        [m.center_nm[1] * 1e3 + dx, m.center_nm[0] * 1e3 + dy]
    }

    /// Tilt at the specimen position `[x, y]` in pm.
    pub fn mistilt(&self, position_pm: [f64; 2]) -> Mistilt {
        let (m, position_nm) = (self.microscope, [position_pm[1] * 1e-3, position_pm[0] * 1e-3]);
        let mrad = m.tilt.at(position_nm, self.specimen.bend_mrad(position_nm));
        let direct = add(m.tilt_offset_pm, self.specimen.bend_offset_pm(position_nm));
        Mistilt { mrad, a_shift_pm: add(direct, m.tilt.a_shift_pm(mrad)) }
    }

    /// A tilt in the specimen frame along the axes of the image.
    pub fn in_image_mrad(&self, mrad: [f64; 2]) -> [f64; 2] {
        turned(mrad, -self.microscope.rotation_rad)
    }

    /// Width in the image, px², and peak height in counts of a column that is tilted by `mrad` in the specimen frame.
    fn look(&self, column: &SiteColumn, mrad: [f64; 2]) -> (Covariance, f64) {
        let m = self.microscope;
        let (blurred, height) = m.blurred(column.sigma_pm, m.peak_counts * column.intensity);
        let lengthened = blurred.plus(m.tilt.lengthening(self.in_image_mrad(mrad)));
        (self.in_px(lengthened), height * m.tilt.contrast(mrad))
    }

    /// Standard deviation of a column in the image along that axis along which it is wider, pixels.
    pub fn widest_px(&self, placed: &PlacedColumn) -> f64 {
        let (covariance, _) = self.look(&placed.column, placed.tilt_mrad);
        covariance.xx.max(covariance.yy).sqrt()
    }

    fn in_px(&self, Covariance { xx, xy, yy }: Covariance) -> Covariance {
        let [high_pm, wide_pm] = self.microscope.pixel_sizes_pm();
        Covariance {
            xx: xx / (wide_pm * wide_pm),
            xy: xy / (wide_pm * high_pm),
            yy: yy / (high_pm * high_pm),
        }
    }

    /// The specimen's columns as the probe shows them where it is not tilted, px².
    fn looks_px(&self) -> impl Iterator<Item = Covariance> {
        self.lattice.shapes().map(|shape| self.in_px(self.microscope.blurred(shape.sigma_pm, 0.0).0))
    }

    /// Standard deviation of the narrowest column along the axes.
    pub fn narrowest_px(&self) -> f64 {
        self.looks_px().map(Covariance::narrowest).fold(f64::INFINITY, f64::min)
    }

    /// How far outside the frame a column can lie and still be seen, pixels.
    pub fn margin_px(&self) -> f64 {
        let reach_sigmas = |fraction: f64| (2.0 * (fraction / LEAST).ln().max(0.0)).sqrt();
        let widest = self.looks_px().map(|c| c.xx.max(c.yy)).fold(0.0, f64::max).sqrt();
        let parts = self.specimen.columns.profile();
        let reach = parts.map(|part| reach_sigmas(part.weight) * part.width).fold(0.0, f64::max);
        // Two cells more, so that every cell in the frame has its neighbours and displaced columns are not lost.
        let [high_pm, wide_pm] = self.microscope.pixel_sizes_pm();
        let cells_px = 2.0 * self.specimen.cell_a_pm.max(self.specimen.cell_b_pm) / high_pm.min(wide_pm);
        widest * reach + cells_px + self.displaced_px
    }

    pub fn add_background(&self, canvas: &mut Canvas) {
        let m = self.microscope;
        if !self.lattice.has_background() {
            return;
        }
        let mesh = BACKGROUND_MESH_PX;
        let margin = (self.displaced_px / mesh).ceil() + 1.0;
        let at_node = |(row, col): (usize, usize)| {
            let [x, y] = self.specimen_pm([(col as f64 - margin) * mesh, (row as f64 - margin) * mesh]);
            let position_nm = [y * 1e-3, x * 1e-3];
            (m.peak_counts * self.lattice.background_at(position_nm)) as f32
        };
        let [rows, cols] = m.shape.map(|n| (n as f64 / mesh + 2.0 * margin) as usize + 2);
        let nodes = Array2::from_shape_fn((rows, cols), at_node);
        let mut at_nodes = vec![0.0; cols];
        canvas.add_smooth(|[x, y], line| {
            let at_y = (y / mesh + margin).clamp(0.0, rows as f64 - 2.0);
            let (row, down) = (at_y as usize, (at_y - (at_y as usize) as f64) as f32);
            for (col, value) in at_nodes.iter_mut().enumerate() {
                *value = nodes[[row, col]] * (1.0 - down) + nodes[[row + 1, col]] * down;
            }
            // From node to node, straight.
            let (mut col, mut first) = (((x / mesh + margin).clamp(0.0, cols as f64 - 2.0)) as usize, 0);
            while first < line.len() && col + 1 < cols {
                // Where the node `col` lies among the line's pixels.
                let node = (col as f64 - margin) * mesh - x;
                let end = if col + 2 < cols { (node + mesh).ceil().max(0.0) as usize } else { line.len() };
                let slope = (at_nodes[col + 1] - at_nodes[col]) / mesh as f32;
                let start = at_nodes[col] + slope * (first as f64 - node) as f32;
                let end = end.min(line.len());
                for (k, value) in line[first..end.max(first)].iter_mut().enumerate() {
                    *value += start + slope * k as f32;
                }
                (first, col) = (end.max(first), col + 1);
            }
        });
    }

    pub fn add_column(&self, canvas: &mut Canvas, placed: &PlacedColumn) {
        let (covariance, height) = self.look(&placed.column, placed.tilt_mrad);
        let least = LEAST * self.microscope.peak_counts;
        for part in self.specimen.columns.profile() {
            let covariance = covariance.scaled(part.width * part.width);
            canvas.add(&Gaussian { center: placed.seen_px, covariance, height: height * part.weight }, least);
        }
    }
}

/// The part of the specimen that a frame may need: with room for the columns around it, for drift, and for displaced lines.
fn focus(microscope: &Microscope, displaced_px: f64) -> Focus {
    let [height, width] = microscope.fov_nm();
    let [y, x] = microscope.center_nm;
    let [high_pm, wide_pm] = microscope.pixel_sizes_pm();
    let moved_pm = microscope.drift_pm[0].hypot(microscope.drift_pm[1]) + displaced_px * high_pm.max(wide_pm);
    Focus { center: [x, y], radius: 0.75 * height.hypot(width) + moved_pm * 1e-3 + FOCUS_MARGIN_NM }
}
