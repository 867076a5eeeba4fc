//! One frame of a specimen, and its truth.

use super::canvas::{Canvas, Covariance, Gaussian, LineJitter};
use super::detector::{detect, pixel_array};
use super::lattice::{Focus, Lattice};
use super::microscope::{Microscope, PixelType, turned};
use super::place::PlacedColumn;
use super::specimen::Specimen;
use super::truth::Truth;
use crate::config::InvalidSetting;
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

/// Columns farther outside the frame than this are not needed, nm.
const FOCUS_MARGIN_NM: f64 = 6.0;
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
    for column in placed.columns() {
        view.add_column(&mut canvas, column);
    }
    let mut pixels = canvas.into_scanned();
    detect(&mut pixels, microscope, rng);
    Ok(SimulatedFrame { pixels, truth })
}

/// The part of the specimen under the scan.
pub(super) struct View<'a> {
    pub(super) specimen: &'a Specimen,
    pub(super) microscope: &'a Microscope,
    pub(super) lattice: Lattice<'a>,
    /// Vector `[x, y]` in the specimen → in the image, same unit; drift within the frame included.
    pub(super) to_image: [[f64; 2]; 2],
}

pub(super) fn apply(matrix: &[[f64; 2]; 2], v: [f64; 2]) -> [f64; 2] {
    [matrix[0][0] * v[0] + matrix[0][1] * v[1], matrix[1][0] * v[0] + matrix[1][1] * v[1]]
}

fn subtract(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

impl<'a> View<'a> {
    pub(super) fn new(specimen: &'a Specimen, microscope: &'a Microscope) -> Self {
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
        Self { specimen, microscope, lattice: Lattice::new(specimen, focus(microscope)), to_image }
    }

    /// Specimen position `[x, y]` in pm → image position `[x, y]` in pixels.
    pub(super) fn image_px(&self, position_pm: [f64; 2]) -> [f64; 2] {
        let m = self.microscope;
        let center_pm = [m.center_nm[1] * 1e3, m.center_nm[0] * 1e3];
        let [x, y] = apply(&self.to_image, subtract(position_pm, center_pm));
        let [rows, cols] = m.shape.map(|n| (n as f64 - 1.0) / 2.0);
        [cols + x / m.pixel_size_pm, rows + y / m.pixel_size_pm]
    }

    /// Image position `[x, y]` in pixels → specimen position `[x, y]` in pm.
    pub(super) fn specimen_pm(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let m = self.microscope;
        let [rows, cols] = m.shape.map(|n| (n as f64 - 1.0) / 2.0);
        let offset = [(x - cols) * m.pixel_size_pm, (y - rows) * m.pixel_size_pm];
        let [[a, b], [c, d]] = self.to_image;
        let det = a * d - b * c;
        let [dx, dy] = [(d * offset[0] - b * offset[1]) / det, (a * offset[1] - c * offset[0]) / det];
        [m.center_nm[1] * 1e3 + dx, m.center_nm[0] * 1e3 + dy]
    }

    /// Width of a column in the image.
    fn covariance(&self, sigma_pm: f64) -> Covariance {
        let m = self.microscope;
        let px2 = m.pixel_size_pm.powi(-2);
        let round = (sigma_pm.powi(2) + m.probe_sigma_pm.powi(2)) * px2;
        let [x, y] = turned([m.astigmatism_pm, 0.0], m.astigmatism_rad);
        Covariance { xx: round + x * x * px2, xy: x * y * px2, yy: round + y * y * px2 }
    }

    /// How far outside the frame a column can lie and still be seen, pixels.
    pub(super) fn margin_px(&self) -> f64 {
        let widest_pm = self.lattice.widest_pm();
        let reach = self.specimen.columns.profile().map(|p| p.width * p.reach).fold(0.0, f64::max);
        // Two cells more, so that every cell in the frame has its neighbours and displaced columns are not lost.
        let cells_px =
            2.0 * self.specimen.cell_a_pm.max(self.specimen.cell_b_pm) / self.microscope.pixel_size_pm;
        let Covariance { xx, yy, .. } = self.covariance(widest_pm);
        xx.max(yy).sqrt() * reach + cells_px
    }

    fn add_background(&self, canvas: &mut Canvas) {
        let m = self.microscope;
        let [rows, cols] = m.shape;
        if !self.lattice.has_background() && m.dark_counts == 0.0 {
            return;
        }
        let mesh = BACKGROUND_MESH_PX;
        let at_node = |row: usize, col: usize| {
            let [x, y] = self.specimen_pm([(col * mesh) as f64, (row * mesh) as f64]);
            let position_nm = [y * 1e-3, x * 1e-3];
            let scattered = self.lattice.background_at(position_nm);
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
        let height = self.microscope.peak_counts * placed.column.intensity;
        let covariance = self.covariance(placed.column.sigma_pm);
        for part in self.specimen.columns.profile() {
            let gaussian = Gaussian {
                center: placed.seen_px,
                covariance: covariance.scaled(part.width.powi(2)),
                height: height * part.weight,
            };
            canvas.add(&gaussian, part.reach);
        }
    }
}

/// The part of the specimen that a frame may need, with room for the columns around it and for drift.
fn focus(microscope: &Microscope) -> Focus {
    let [height, width] = microscope.fov_nm();
    let [y, x] = microscope.center_nm;
    let drift = microscope.drift_pm[0].hypot(microscope.drift_pm[1]) * 1e-3;
    Focus { center: [x, y], radius: 0.75 * height.hypot(width) + drift + FOCUS_MARGIN_NM }
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
