//! The lattice that the reflections of a frame span.

use super::CalibrationError;
use super::reflections::{Reflection, reflections};
use super::spectrum::{flattened_crop, power_spectrum};
use ndarray::Array2;
use std::f64::consts::{PI, TAU};

/// Smallest side on which a lattice is looked for.
const MIN_CROP_PX: usize = 32;
/// Fraction of the reflections' power that the lattice must index.
const MIN_EXPLAINED: f64 = 0.88;
/// How far from integer a reflection's indices may lie.
const INDEX_TOLERANCE: f64 = 0.1;
/// How far from square the cell may be.
const MAX_LENGTH_RATIO: f64 = 1.15;
const MAX_SHEAR_RAD: f64 = 10.0 * PI / 180.0;

/// The lattice in the frame, frame pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatticeEstimate {
    /// The lattice vector nearer to the x axis, `[row, col]`, col component positive.
    pub a_px: [f64; 2],
    /// The other one, `[row, col]`, row component positive.
    pub b_px: [f64; 2],
    /// Angle between the two, rad, near π/2.
    pub angle_rad: f64,
    /// Fraction of the reflections' power that this lattice indexes, 0.88 ..= 1.
    pub explained: f64,
}

impl LatticeEstimate {
    /// Edge of the square cell of the same area, frame pixels.
    pub fn cell_px(&self) -> f64 {
        self.area_px().sqrt()
    }

    /// Edge of the cell as the fast scan axis (along a row) measures it, frame pixels.
    ///
    /// Drift stretches and shears the slow axis while a line is scanned too quickly to be touched by it. Of the linear map
    /// that makes the imaged lattice square again, only the fast axis is therefore the microscope's.
    pub fn fast_axis_cell_px(&self) -> f64 {
        self.area_px() / self.a_px[0].hypot(self.b_px[0])
    }

    fn area_px(&self) -> f64 {
        (self.a_px[1] * self.b_px[0] - self.a_px[0] * self.b_px[1]).abs()
    }
}

/// Measures the lattice of the centre of a frame (up to 1024² pixels).
///
/// The reflections of the flattened, Hann-windowed crop are located to a fraction of a bin. Which of them span the
/// reciprocal cell is not a matter of strength: along [100], {110} = A + B may outshine {100} = A − B. So of all pairs of
/// reflections at nearly a right angle and of nearly one length, the longest is taken that indexes the others:
/// {110} leaves {100} unexplained, {100} explains everything. All indexed reflections then refine the vectors.
///
/// # Errors
/// [`CalibrationError::NoLattice`] when there are no such reflections.
pub fn estimate_lattice(
    pixels: &Array2<f32>,
    valid: &Array2<bool>,
) -> Result<LatticeEstimate, CalibrationError> {
    let no_lattice = |reason: String| CalibrationError::NoLattice { reason };
    let crop = flattened_crop(pixels, valid);
    let (rows, cols) = crop.dim();
    if rows.min(cols) < MIN_CROP_PX {
        return Err(no_lattice(format!("{rows} x {cols} px are fewer than {MIN_CROP_PX} x {MIN_CROP_PX}")));
    }
    let peaks = reflections(&power_spectrum(crop));
    if peaks.len() < 2 {
        return Err(no_lattice(format!("{} reflections stand out of the noise", peaks.len())));
    }
    let total: f64 = peaks.iter().map(|peak| peak.power).sum();
    let mut best: Option<Basis> = None;
    for (index, first) in peaks.iter().enumerate() {
        for second in &peaks[index + 1..] {
            let Some(basis) = Basis::new(first.frequency, second.frequency) else { continue };
            let explained = basis.indexed(&peaks).map(|(peak, _)| peak.power).sum::<f64>() / total;
            let larger = best.as_ref().is_none_or(|best| basis.area().abs() > best.area().abs());
            if explained >= MIN_EXPLAINED && larger {
                best = Some(basis);
            }
        }
    }
    let basis = best.ok_or_else(|| {
        no_lattice(format!(
            "no square cell indexes {:.0} % of {} reflections",
            100.0 * MIN_EXPLAINED,
            peaks.len()
        ))
    })?;
    let basis = basis.refined(&peaks);
    let explained = basis.indexed(&peaks).map(|(peak, _)| peak.power).sum::<f64>() / total;
    Ok(basis.to_lattice(explained))
}

/// Two reciprocal lattice vectors, `[row, col]` cycles a pixel.
#[derive(Debug, Clone, Copy)]
struct Basis {
    g1: [f64; 2],
    g2: [f64; 2],
}

impl Basis {
    /// `None` unless the vectors are at nearly a right angle and of nearly one length.
    fn new(g1: [f64; 2], g2: [f64; 2]) -> Option<Self> {
        let (long, short) = (g1[0].hypot(g1[1]), g2[0].hypot(g2[1]));
        let ratio = long.max(short) / long.min(short);
        let basis = Self { g1, g2 };
        let square = ratio <= MAX_LENGTH_RATIO && basis.area().abs() / (long * short) >= MAX_SHEAR_RAD.cos();
        square.then_some(basis)
    }

    fn area(&self) -> f64 {
        self.g1[0] * self.g2[1] - self.g1[1] * self.g2[0]
    }

    /// The reflections that lie on this lattice, with their indices.
    fn indexed<'a>(
        &'a self,
        peaks: &'a [Reflection],
    ) -> impl Iterator<Item = (&'a Reflection, [f64; 2])> + 'a {
        peaks.iter().filter_map(move |peak| {
            let [row, col] = peak.frequency;
            let h = (row * self.g2[1] - col * self.g2[0]) / self.area();
            let k = (col * self.g1[0] - row * self.g1[1]) / self.area();
            let near = (h - h.round()).abs() <= INDEX_TOLERANCE && (k - k.round()).abs() <= INDEX_TOLERANCE;
            near.then(|| (peak, [h.round(), k.round()]))
        })
    }

    /// Least squares over all reflections on the lattice, weighted by power.
    fn refined(&self, peaks: &[Reflection]) -> Self {
        let (mut hh, mut hk, mut kk) = (0.0, 0.0, 0.0);
        let (mut h_row, mut h_col, mut k_row, mut k_col) = (0.0, 0.0, 0.0, 0.0);
        for (peak, [h, k]) in self.indexed(peaks) {
            let [row, col] = peak.frequency;
            hh += peak.power * h * h;
            hk += peak.power * h * k;
            kk += peak.power * k * k;
            h_row += peak.power * h * row;
            h_col += peak.power * h * col;
            k_row += peak.power * k * row;
            k_col += peak.power * k * col;
        }
        let determinant = hh * kk - hk * hk;
        // The two vectors of the basis are reflections themselves, so the system has full rank.
        let solve = |h: f64, k: f64| [(kk * h - hk * k) / determinant, (hh * k - hk * h) / determinant];
        let ([g1_row, g2_row], [g1_col, g2_col]) = (solve(h_row, k_row), solve(h_col, k_col));
        Self { g1: [g1_row, g1_col], g2: [g2_row, g2_col] }
    }

    /// The real-space vectors: `a · g1 = 1`, `a · g2 = 0`, and the reverse for b.
    fn to_lattice(self, explained: f64) -> LatticeEstimate {
        let area = self.area();
        let first = [self.g2[1] / area, -self.g2[0] / area];
        let second = [-self.g1[1] / area, self.g1[0] / area];
        let (a, b) = if first[1].abs() >= second[1].abs() { (first, second) } else { (second, first) };
        let a_px = if a[1] < 0.0 { a.map(|x| -x) } else { a };
        let b_px = if b[0] < 0.0 { b.map(|x| -x) } else { b };
        let dot = a_px[0] * b_px[0] + a_px[1] * b_px[1];
        let cross = a_px[0] * b_px[1] - a_px[1] * b_px[0];
        LatticeEstimate { a_px, b_px, angle_rad: cross.abs().atan2(dot).rem_euclid(TAU), explained }
    }
}
