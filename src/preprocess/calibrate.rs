//! The pixel size: as the frame says, as the config says, or measured on the crystal itself.
//!
//! Features: lattice vectors from the Fourier transform of the frame, to a fraction of a percent.
//! Assumptions: a perovskite seen along a pseudocubic [100] axis, so that the cell is square within the distortion that
//! drift leaves; at least [`MIN_CELLS`] cells across. Error conditions: noise, amorphous regions, other zone axes.

use super::averages::median;
use super::normalise::Normalisation;
use ferrostem_proto::{Calibration, CalibrationSource};
use ndarray::{Array2, Axis};
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use std::f64::consts::{PI, TAU};

/// Largest side of the centre crop that is transformed.
const MAX_CROP_PX: usize = 1024;
/// Smallest side on which a lattice is looked for.
const MIN_CROP_PX: usize = 32;
/// Cells that must fit across the crop.
const MIN_CELLS: f64 = 3.0;
/// Shortest period that is looked for, frame pixels.
const MIN_PERIOD_PX: f64 = 2.5;
/// A reflection stands this far above the median power at its spatial frequency; of pure noise, the strongest of a
/// million bins reaches 20.
const MIN_PEAK_TO_MEDIAN: f64 = 40.0;
/// Reflections weaker than this fraction of the strongest say nothing about the cell: superstructures
/// (antiferrodistortive or antipolar order doubles the cell) lie below, {100} of any perovskite above.
const MIN_PEAK_TO_STRONGEST: f64 = 0.05;
const MAX_PEAKS: usize = 24;
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

/// Why no pixel size is known.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    #[error("expected a pixel size above 0 pm, the {origin} says {found:?} [row, col]")]
    InvalidPixelSize { origin: &'static str, found: [f64; 2] },
    #[error(
        "neither frame nor config gives a pixel size, and without a material there is no lattice parameter to measure one by"
    )]
    NoLatticeParameter,
    #[error(
        "neither frame nor config gives a pixel size, and no square lattice was found in the image: {reason}"
    )]
    NoLattice { reason: String },
}

/// What is known about the pixel size besides the frame.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CalibrationHints {
    /// The source's section of the config, `[row, col]`, pm.
    pub config_pixel_size_pm: Option<[f64; 2]>,
    /// The material's pseudocubic lattice parameter, pm.
    pub lattice_a_pm: Option<f64>,
}

/// The pixel size of a frame: its own, else the config's, else from the lattice in `pixels`, along its rows and
/// taken as square (see [`LatticeEstimate::fast_axis_cell_px`]).
///
/// # Errors
/// When a given size is not positive, or none is given and the lattice parameter is unknown or no lattice is found.
pub fn calibrate(
    frame_pixel_size_pm: Option<[f64; 2]>,
    hints: &CalibrationHints,
    pixels: &Array2<f32>,
    valid: &Array2<bool>,
) -> Result<Calibration, CalibrationError> {
    let given = [
        (frame_pixel_size_pm, "frame", CalibrationSource::Frame),
        (hints.config_pixel_size_pm, "config", CalibrationSource::Config),
    ];
    for (size, origin, source) in given {
        let Some(pixel_size_pm) = size else { continue };
        if !pixel_size_pm.iter().all(|size| size.is_finite() && *size > 0.0) {
            return Err(CalibrationError::InvalidPixelSize { origin, found: pixel_size_pm });
        }
        return Ok(Calibration { pixel_size_pm, source });
    }
    let lattice_a_pm = hints.lattice_a_pm.ok_or(CalibrationError::NoLatticeParameter)?;
    let pixel_size_pm = lattice_a_pm / estimate_lattice(pixels, valid)?.fast_axis_cell_px();
    Ok(Calibration { pixel_size_pm: [pixel_size_pm; 2], source: CalibrationSource::Lattice })
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

/// The largest product of 2, 3 and 5 up to `length`, which the transform likes best.
fn fast_length(length: usize) -> usize {
    let is_smooth = |length: &usize| {
        [2, 3, 5].iter().fold(*length, |rest, &factor| {
            std::iter::successors(Some(rest), |rest| rest.is_multiple_of(factor).then(|| rest / factor))
                .last()
                .unwrap_or(rest)
        }) == 1
    };
    (1..=length).rev().find(is_smooth).unwrap_or(0)
}

/// The centre of the frame, normalised locally (masked pixels 0) and tapered to its edges.
fn flattened_crop(pixels: &Array2<f32>, valid: &Array2<bool>) -> Array2<f32> {
    let range = |length: usize| {
        let size = fast_length(length.min(MAX_CROP_PX));
        let from = (length - size) / 2;
        ndarray::Slice::from(from..from + size)
    };
    let rows = range(pixels.nrows());
    let cols = range(pixels.ncols());
    let mut crop = pixels.slice_axis(Axis(0), rows).slice_axis(Axis(1), cols).to_owned();
    crop.zip_mut_with(&valid.slice_axis(Axis(0), rows).slice_axis(Axis(1), cols), |pixel, &valid| {
        if !valid {
            *pixel = f32::NAN;
        }
    });
    let (rows, cols) = crop.dim();
    // Wide enough to leave the longest period that is looked for.
    let sigma_px = (rows.min(cols) as f64 / (2.0 * MIN_CELLS)).max(1.0);
    let mut flat = Normalisation::Local { sigma_px }.normalise(&crop);
    let hann = |length: usize| -> Vec<f32> {
        (0..length).map(|i| (PI * (i as f64 + 0.5) / length as f64).sin().powi(2) as f32).collect()
    };
    let col_taper = hann(cols);
    for (mut row, row_taper) in flat.rows_mut().into_iter().zip(hann(rows)) {
        for (pixel, col_taper) in row.iter_mut().zip(&col_taper) {
            *pixel *= row_taper * col_taper;
        }
    }
    flat
}

/// |FFT|², `[row frequency, column frequency]` in FFT order.
pub(crate) fn power_spectrum(image: Array2<f32>) -> Array2<f32> {
    fourier_transform(image.mapv(|value| Complex::new(value, 0.0))).mapv(|value| value.norm_sqr())
}

/// Its forward Fourier transform, unscaled, `[row frequency, column frequency]` in FFT order.
pub(crate) fn fourier_transform(mut spectrum: Array2<Complex<f32>>) -> Array2<Complex<f32>> {
    let (rows, cols) = spectrum.dim();
    let mut planner = FftPlanner::<f32>::new();
    let along_rows = planner.plan_fft_forward(cols);
    if let Some(values) = spectrum.as_slice_mut() {
        along_rows.process(values);
    }
    let mut turned = spectrum.reversed_axes().as_standard_layout().into_owned();
    if let Some(values) = turned.as_slice_mut() {
        planner.plan_fft_forward(rows).process(values);
    }
    turned.reversed_axes().as_standard_layout().into_owned()
}

#[derive(Debug, Clone, Copy)]
struct Reflection {
    /// `[row, col]`, cycles a pixel.
    frequency: [f64; 2],
    power: f64,
}

/// The reflections of one half plane, strongest first.
fn reflections(power: &Array2<f32>) -> Vec<Reflection> {
    let (rows, cols) = power.dim();
    let frequency = |row: i64, col: i64| [row as f64 / rows as f64, col as f64 / cols as f64];
    let at = |row: i64, col: i64| {
        let wrap = |index: i64, length: usize| index.rem_euclid(length as i64) as usize;
        f64::from(power[[wrap(row, rows), wrap(col, cols)]])
    };
    let ring_width = 1.0 / rows.min(cols) as f64;
    let lowest = MIN_CELLS * ring_width;
    let highest = 1.0 / MIN_PERIOD_PX;
    let in_reach = |row: i64, col: i64| {
        let [y, x] = frequency(row, col);
        let k = y.hypot(x);
        (lowest..=highest).contains(&k).then(|| (k / ring_width) as usize)
    };
    let (half_rows, half_cols) = ((rows / 2) as i64, (cols / 2) as i64);
    let half_plane =
        || (0..=half_rows).flat_map(move |row| (-half_cols..=half_cols).map(move |col| (row, col)));

    let mut rings: Vec<Vec<f32>> = vec![Vec::new(); (highest / ring_width) as usize + 1];
    for (row, col) in half_plane() {
        if let Some(ring) = in_reach(row, col).and_then(|ring| rings.get_mut(ring)) {
            ring.push(at(row, col) as f32);
        }
    }
    let medians: Vec<f64> =
        rings.into_iter().map(|ring| median(ring, f32::total_cmp).map_or(f64::INFINITY, f64::from)).collect();

    let mut peaks: Vec<Reflection> = half_plane()
        .filter(|&(row, col)| row > 0 || col > 0)
        .filter_map(|(row, col)| {
            let centre = at(row, col);
            let background = *medians.get(in_reach(row, col)?)?;
            if centre <= MIN_PEAK_TO_MEDIAN * background {
                return None;
            }
            let higher_around = (-2..=2).any(|dr| (-2..=2).any(|dc| at(row + dr, col + dc) > centre));
            if higher_around {
                return None;
            }
            // A Hann-windowed line is nearly a parabola in its logarithm.
            let refined_row = row as f64 + vertex([at(row - 1, col), centre, at(row + 1, col)]);
            let refined_col = col as f64 + vertex([at(row, col - 1), centre, at(row, col + 1)]);
            Some(Reflection {
                frequency: [refined_row / rows as f64, refined_col / cols as f64],
                power: centre,
            })
        })
        .collect();
    peaks.sort_by(|a, b| b.power.total_cmp(&a.power));
    let strongest = peaks.first().map_or(0.0, |peak| peak.power);
    peaks.retain(|peak| peak.power >= MIN_PEAK_TO_STRONGEST * strongest);
    peaks.truncate(MAX_PEAKS);
    peaks
}

/// Offset of the vertex of the parabola through the logarithms of three powers at −1, 0, 1.
fn vertex(powers: [f64; 3]) -> f64 {
    let [before, centre, after] = powers.map(|power| power.max(f64::MIN_POSITIVE).ln());
    let curvature = before - 2.0 * centre + after;
    if curvature < 0.0 { (0.5 * (before - after) / curvature).clamp(-0.5, 0.5) } else { 0.0 }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Poisson};

    struct Crystal {
        cell_px: f64,
        rotation_rad: f64,
        /// Integrated intensity of the B column over the A column's.
        b_over_a: f64,
        peak_counts: f64,
    }

    /// A and B columns as Gaussians of 0.16 cells on a square lattice, with Poisson noise.
    fn frame(size: usize, crystal: &Crystal, seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (sin, cos) = crystal.rotation_rad.sin_cos();
        let wells = |u: f64, v: f64| {
            let (du, dv) = (u - u.round(), v - v.round());
            (-(du * du + dv * dv) / (2.0 * 0.16 * 0.16)).exp()
        };
        Array2::from_shape_fn((size, size), |(row, col)| {
            let (y, x) = (row as f64 / crystal.cell_px, col as f64 / crystal.cell_px);
            let (u, v) = (cos * x + sin * y + 0.3, cos * y - sin * x + 0.1);
            let mean = 0.1 + wells(u, v) + crystal.b_over_a * wells(u + 0.5, v + 0.5);
            Poisson::new(crystal.peak_counts * mean).unwrap().sample(&mut rng) as f32
        })
    }

    fn all_valid(pixels: &Array2<f32>) -> Array2<bool> {
        Array2::from_elem(pixels.dim(), true)
    }

    #[test]
    fn finds_generated_lattices() {
        for (index, (cell_px, degrees, b_over_a, peak_counts)) in [
            (13.4, 0.0, 0.2, 1000.0),
            (26.6, 7.0, 0.4, 100.0),
            (26.6, 44.0, 0.6, 100.0),
            (39.3, 20.0, 0.4, 30.0),
            (26.0, -31.0, 0.2, 3.0),
            (8.3, 12.0, 0.4, 20.0),
        ]
        .into_iter()
        .enumerate()
        {
            let rotation_rad = f64::to_radians(degrees);
            let pixels = frame(512, &Crystal { cell_px, rotation_rad, b_over_a, peak_counts }, index as u64);
            let found = estimate_lattice(&pixels, &all_valid(&pixels)).unwrap();
            assert!((found.cell_px() / cell_px - 1.0).abs() < 0.005, "{cell_px} at {degrees}: {found:?}");
            assert!((found.angle_rad - PI / 2.0).abs() < 0.01, "{found:?}");
            // a is the vector nearer to x: turned by the rotation itself where that is within 45 degrees.
            let turned = found.a_px[0].atan2(found.a_px[1]);
            assert!((turned - rotation_rad).abs() < 0.01, "{cell_px} at {degrees}: {found:?}");
        }
    }

    #[test]
    fn noise_and_stripes_are_no_lattice() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let noise = Array2::from_shape_fn((512, 512), |_| rng.random::<f32>());
        let stripes = noise.clone() + Array2::from_shape_fn((512, 512), |(row, _)| (row as f32 * 0.5).sin());
        for pixels in [noise, stripes, Array2::zeros((256, 256)), Array2::zeros((20, 400))] {
            let found = estimate_lattice(&pixels, &all_valid(&pixels));
            assert!(matches!(found, Err(CalibrationError::NoLattice { .. })), "{found:?}");
        }
    }

    #[test]
    fn masked_borders_and_slopes_do_not_matter() {
        let crystal = Crystal { cell_px: 20.0, rotation_rad: 0.1, b_over_a: 0.3, peak_counts: 50.0 };
        let mut pixels = frame(400, &crystal, 1);
        let mut valid = all_valid(&pixels);
        for ((row, col), pixel) in pixels.indexed_iter_mut() {
            *pixel *= 1.0 + row as f32 / 100.0;
            if col < 60 {
                *pixel = 1e4;
                valid[[row, col]] = false;
            }
        }
        let found = estimate_lattice(&pixels, &valid).unwrap();
        assert!((found.cell_px() / 20.0 - 1.0).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn drift_along_the_slow_axis_leaves_the_pixel_size_alone() {
        let crystal = Crystal { cell_px: 20.0, rotation_rad: 0.4, b_over_a: 0.3, peak_counts: 50.0 };
        let still = frame(640, &crystal, 1);
        // Rows closer by 6 % and sheared by 4 %: nearest neighbours will do on so fine a lattice.
        let drifted = Array2::from_shape_fn((500, 500), |(row, col)| {
            still[[(row as f64 * 1.06) as usize, (col as f64 + 0.04 * row as f64).round() as usize]]
        });
        let found = estimate_lattice(&drifted, &all_valid(&drifted)).unwrap();
        assert!((found.fast_axis_cell_px() / 20.0 - 1.0).abs() < 0.005, "{found:?}");
        assert!((found.cell_px() / 20.0 - 1.0).abs() > 0.02);
    }

    #[test]
    fn lengths_the_transform_likes() {
        assert_eq!([1024, 413, 469, 7, 1].map(fast_length), [1024, 405, 450, 6, 1]);
    }

    #[test]
    fn the_frame_speaks_first_then_the_config_then_the_crystal() {
        let crystal = Crystal { cell_px: 20.0, rotation_rad: 0.0, b_over_a: 0.3, peak_counts: 50.0 };
        let pixels = frame(256, &crystal, 1);
        let valid = all_valid(&pixels);
        let hints = CalibrationHints { config_pixel_size_pm: Some([15.0, 16.0]), lattice_a_pm: Some(400.0) };
        let from_frame = calibrate(Some([10.0, 11.0]), &hints, &pixels, &valid).unwrap();
        assert_eq!((from_frame.pixel_size_pm, from_frame.source), ([10.0, 11.0], CalibrationSource::Frame));
        let from_config = calibrate(None, &hints, &pixels, &valid).unwrap();
        assert_eq!(
            (from_config.pixel_size_pm, from_config.source),
            ([15.0, 16.0], CalibrationSource::Config)
        );
        let hints = CalibrationHints { config_pixel_size_pm: None, ..hints };
        let from_lattice = calibrate(None, &hints, &pixels, &valid).unwrap();
        assert_eq!(from_lattice.source, CalibrationSource::Lattice);
        assert!((from_lattice.pixel_size_pm[0] - 20.0).abs() < 0.1);
        assert_eq!(
            calibrate(None, &CalibrationHints::default(), &pixels, &valid),
            Err(CalibrationError::NoLatticeParameter)
        );
        assert!(matches!(
            calibrate(Some([0.0, 1.0]), &hints, &pixels, &valid),
            Err(CalibrationError::InvalidPixelSize { origin: "frame", .. })
        ));
    }

    /// Pixel sizes measured on the real images, whose headers and files say what they should be.
    #[test]
    fn real_images_within_three_percent() {
        let Some(folder) = std::env::var_os("FERROSTEM_DATA").map(std::path::PathBuf::from) else {
            eprintln!("skipped: FERROSTEM_DATA is not set");
            return;
        };
        let nsid: Array2<f32> = hdf5::File::open(folder.join("pynsid_STO_test_image.hf5"))
            .and_then(|file| file.dataset(NSID_IMAGE))
            .and_then(|dataset| dataset.read_2d::<f32>())
            .unwrap();
        let bto: Array2<f32> = ndarray_npy::read_npy(folder.join("bto_1.npy")).unwrap();
        let titan: Array2<f32> = ndarray_npy::read_npy(folder.join("sto_titan.npy")).unwrap();
        for (name, pixels, lattice_a_pm, pixel_size_pm) in [
            ("BaTiO3", bto, 403.0, 29.66),
            ("SrTiO3, Titan", titan, 390.5, 10.013),
            ("SrTiO3, NSID", nsid, 390.5, 14.559),
        ] {
            let start = std::time::Instant::now();
            let found = estimate_lattice(&pixels, &all_valid(&pixels)).unwrap();
            let elapsed = start.elapsed();
            let measured = lattice_a_pm / found.fast_axis_cell_px();
            eprintln!(
                "{name} {:?}: {measured:.3} pm/px (file: {pixel_size_pm}), {found:?}, {elapsed:?}",
                pixels.dim()
            );
            assert!((measured / pixel_size_pm - 1.0).abs() < 0.03, "{name}: {measured} {found:?}");
        }
    }

    const NSID_IMAGE: &str = "Measurement_000/Channel_000/STO_test_image/STO_test_image";
}
