//! How far the specimen moved beneath the scan from one frame to the next.
//!
//! Frames of one scan setting are correlated. The image of a crystal is correlated with itself at every lattice vector, so that
//! a correlation tells the drift modulo the lattice very well, and which cell it is only by what is *not* periodic: columns of
//! different brightness, domains, defects. Three things choose among the peaks: their height, where half of the spectrum's
//! weight is taken off its strong, periodic part; where the sites of both frames come to lie on each other; and that the
//! drift goes on as it went. Heights were judged on simulated frames of 256 px at 15 pm: with 4 % of roughness the right peak
//! was 15 to 50 % above the next for drifts up to 0.3 nm a frame, in a perfect crystal without noise of its own it was not.
//!
//! What is measured is how sites move in the image: one that drifts along the slow axis is scanned on its way, so that the image
//! shows a little more or less than the specimen's own motion (8 % for a drift of 8 % of the field a frame).
//!
//! *Assumptions*: the drift a frame is below [`Motion::max_nm`]; the first of all is small, for nothing went before. *Error
//! conditions*: frames of another setting, without a pixel size, or without a clear peak; the drift is then taken to go on.

use crate::frame::{Frame, ScanGeometry};
use crate::preprocess::fourier_transform;
use ndarray::{Array2, s};
use rustfft::num_complex::Complex;
use std::f64::consts::PI;

/// Largest side that is transformed, binned pixels.
const MAX_SIDE: usize = 256;
/// Pixels are binned up to this size, pm: columns are still apart.
const BINNED_PM: f64 = 50.0;
/// Spatial frequencies are weighted with this power of the cross spectrum's magnitude: 0 is a phase correlation, which noise
/// rules, 1 a plain one, which the lattice rules.
const WHITENING: f32 = 0.3;
/// Of the correlation's root mean square, below which a peak is none: unrelated frames of crystals reached 6.7.
const MIN_PEAK: f64 = 7.5;
/// Peaks lower than this fraction of the highest are not considered.
const MIN_RELATIVE_PEAK: f64 = 0.7;
/// Relative height that weighs as much as one site that comes to lie on another.
const HEIGHT_WEIGHT: f64 = 0.05;
/// How far sites are found from where they are, nm, one standard deviation.
const SITE_SIGMA_NM: f64 = 0.25;
/// How far the drift differs from what went before, nm, one standard deviation.
const STEADY_SIGMA_NM: f64 = 0.15;
/// The same for the first drift of all.
const FIRST_SIGMA_NM: f64 = 0.3;
/// Frames whose fields of view overlap by less are not compared.
const MIN_OVERLAP: f64 = 0.6;

/// What is known of a frame for the next one.
#[derive(Debug, Clone)]
struct Seen {
    source: String,
    scan: ScanGeometry,
    shape: (usize, usize),
    pixel_size_pm: [f64; 2],
    end_ns: u64,
    spectrum: Option<Array2<Complex<f32>>>,
    /// Of its sites, from the middle of the frame, nm, along the specimen's axes `[y, x]`.
    sites_nm: Vec<[f64; 2]>,
}

/// One frame as the drift is measured on it.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    pub frame: &'a Frame,
    /// `[row, col]`; not finite where it is not known.
    pub pixel_size_pm: [f64; 2],
    /// Sites that are what they are by themselves, not points of something long: `[y, x]`, as in a candidate's `nm`.
    pub sites_nm: &'a [[f64; 2]],
}

/// The specimen's motion since the first frame.
#[derive(Debug, Clone, Default)]
pub struct Motion {
    last: Option<Seen>,
    total_nm: [f64; 2],
    /// Per second, where frames tell their times, otherwise per frame. `None` before the first measurement.
    velocity: Option<[f64; 2]>,
}

impl Motion {
    /// Looks at the next frame and returns where the specimen is, `[y, x]` in nm along its axes from where it was at first.
    /// `max_nm` is the most that it drifts from one frame to the next; 0 and it is taken to rest.
    pub fn follow(&mut self, look: &Look<'_>, max_nm: f64) -> [f64; 2] {
        let known = look.pixel_size_pm.iter().all(|size| size.is_finite() && *size > 0.0);
        if !known || max_nm <= 0.0 {
            return self.total_nm;
        }
        let seen = Seen::of(look);
        if let Some(last) = &self.last {
            let elapsed = elapsed(last, &seen);
            let expected = self.velocity.map_or([0.0; 2], |v| limited(v.map(|v| v * elapsed), max_nm));
            let sigma_nm = if self.velocity.is_some() { STEADY_SIGMA_NM } else { FIRST_SIGMA_NM };
            let measured = last.drift_to(&seen, &Search { expected, sigma_nm, max_nm });
            if let Some(drift) = measured {
                let now = drift.map(|d| d / elapsed);
                let before = self.velocity.unwrap_or(now);
                self.velocity = Some([0, 1].map(|axis| 0.5 * (before[axis] + now[axis])));
            }
            let drift = measured.unwrap_or(expected);
            self.total_nm = [0, 1].map(|axis| self.total_nm[axis] + drift[axis]);
        }
        self.last = Some(seen);
        self.total_nm
    }
}

/// Where a drift is looked for, nm along the specimen's axes `[y, x]`.
struct Search {
    expected: [f64; 2],
    sigma_nm: f64,
    max_nm: f64,
}

/// Seconds where both frames tell the time, otherwise one.
fn elapsed(last: &Seen, next: &Seen) -> f64 {
    let seconds = next.end_ns.saturating_sub(last.end_ns) as f64 * 1e-9;
    if (1e-4..3600.0).contains(&seconds) { seconds } else { 1.0 }
}

fn limited([y, x]: [f64; 2], max_nm: f64) -> [f64; 2] {
    let shorter = (max_nm / y.hypot(x).max(1e-12)).min(1.0);
    [y * shorter, x * shorter]
}

impl Seen {
    fn of(look: &Look<'_>) -> Self {
        let frame = look.frame;
        Self {
            source: frame.source.clone(),
            scan: frame.scan,
            shape: frame.pixels.dim(),
            pixel_size_pm: look.pixel_size_pm,
            end_ns: frame.times.end_ns,
            // A frame that is still being scanned shows the one before in its other part, or nothing.
            spectrum: (frame.valid_rows == (0..frame.pixels.nrows()))
                .then(|| spectrum(&frame.pixels, binning(look.pixel_size_pm))),
            sites_nm: look.sites_nm.to_vec(),
        }
    }

    /// `[y, x]` in nm along the specimen's axes as `[down, right]` in binned pixels of the frame.
    fn to_pixels(&self, [y, x]: [f64; 2]) -> [f64; 2] {
        let (sin, cos) = self.scan.rotation_rad.sin_cos();
        let [high, wide] = self.binned_nm();
        [(y * cos + x * sin) / high, (x * cos - y * sin) / wide]
    }

    fn to_specimen(&self, [down, right]: [f64; 2]) -> [f64; 2] {
        let (sin, cos) = self.scan.rotation_rad.sin_cos();
        let [high, wide] = self.binned_nm();
        let (down, right) = (down * high, right * wide);
        [down * cos - right * sin, right * cos + down * sin]
    }

    fn binned_nm(&self) -> [f64; 2] {
        let binning = binning(self.pixel_size_pm);
        [0, 1].map(|axis| self.pixel_size_pm[axis] * binning[axis] as f64 / 1000.0)
    }

    /// The drift from this frame to `next`; `None` where the two say nothing about it.
    fn drift_to(&self, next: &Self, search: &Search) -> Option<[f64; 2]> {
        let same = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(1e-3);
        let comparable = self.source == next.source
            && self.shape == next.shape
            && same(self.scan.rotation_rad, next.scan.rotation_rad)
            && (0..2).all(|axis| same(self.pixel_size_pm[axis], next.pixel_size_pm[axis]));
        let (before, after) = self.spectrum.as_ref().zip(next.spectrum.as_ref()).filter(|_| comparable)?;
        let moved = [0, 1].map(|axis| next.scan.center_nm[axis] - self.scan.center_nm[axis]);
        // What rests in the specimen moves against the scan.
        let [down, right] = self.to_pixels(moved.map(|d| -d));
        let (rows, cols) = before.dim();
        let overlap = (1.0 - down.abs() / rows as f64) * (1.0 - right.abs() / cols as f64);
        if before.dim() != after.dim() || overlap < MIN_OVERLAP || down.abs() >= rows as f64 {
            return None;
        }
        let surface = correlation(before, after);
        let rms = (surface.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / surface.len() as f64).sqrt();
        let reach = self.binned_nm().map(|nm| search.max_nm / nm);
        let peaks: Vec<([f64; 2], f64)> = peaks(&surface, [down, right], reach)
            .into_iter()
            .filter(|(_, height)| *height >= MIN_PEAK * rms)
            .map(|(shift, height)| {
                let seen = self.to_specimen(shift);
                ([0, 1].map(|axis| seen[axis] + moved[axis]), height)
            })
            .collect();
        let highest = peaks.iter().map(|(_, height)| *height).fold(0.0, f64::max);
        let likelihood = |drift: [f64; 2], height: f64| {
            let off = (drift[0] - search.expected[0]).hypot(drift[1] - search.expected[1]);
            let steady = -0.5 * (off / search.sigma_nm).powi(2);
            steady + (height / highest).ln() / HEIGHT_WEIGHT + self.sites_on_sites(next, moved, drift)
        };
        peaks
            .iter()
            .filter(|(drift, height)| {
                *height >= MIN_RELATIVE_PEAK * highest && drift[0].hypot(drift[1]) <= search.max_nm
            })
            .max_by(|a, b| likelihood(a.0, a.1).total_cmp(&likelihood(b.0, b.1)))
            .map(|(drift, _)| *drift)
    }

    /// How many of the sites of `next` lie on one of this frame's, when the specimen drifted by `drift`.
    fn sites_on_sites(&self, next: &Self, moved: [f64; 2], drift: [f64; 2]) -> f64 {
        let shift = [0, 1].map(|axis| drift[axis] - moved[axis]);
        let nearest = |[y, x]: &[f64; 2]| {
            let off = |[y0, x0]: &[f64; 2]| (y - shift[0] - y0).hypot(x - shift[1] - x0);
            self.sites_nm.iter().map(off).fold(f64::INFINITY, f64::min)
        };
        next.sites_nm.iter().map(|site| (-0.5 * (nearest(site) / SITE_SIGMA_NM).powi(2)).exp()).sum()
    }
}

fn binning(pixel_size_pm: [f64; 2]) -> [usize; 2] {
    pixel_size_pm.map(|size| ((BINNED_PM / size) as usize).clamp(1, 64))
}

/// Spectrum of the middle of the image, binned, without its mean and tapered to its edges.
fn spectrum(pixels: &Array2<f32>, [bin_rows, bin_cols]: [usize; 2]) -> Array2<Complex<f32>> {
    let side = |length: usize, bin: usize| (length / bin).clamp(1, MAX_SIDE);
    let (rows, cols) = (side(pixels.nrows(), bin_rows), side(pixels.ncols(), bin_cols));
    let top = pixels.nrows().saturating_sub(rows * bin_rows) / 2;
    let left = pixels.ncols().saturating_sub(cols * bin_cols) / 2;
    let binned = Array2::from_shape_fn((rows, cols), |(i, j)| {
        let (row, col) = (top + i * bin_rows, left + j * bin_cols);
        let end = |start: usize, bin: usize, length: usize| (start + bin).min(length);
        let part = pixels
            .slice(s![row..end(row, bin_rows, pixels.nrows()), col..end(col, bin_cols, pixels.ncols())]);
        let (sum, count) = part
            .iter()
            .filter(|v| v.is_finite())
            .fold((0.0f64, 0u32), |(sum, count), v| (sum + f64::from(*v), count + 1));
        sum / f64::from(count)
    });
    let measured = binned.iter().filter(|v| v.is_finite());
    let (sum, count) = measured.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    let mean = sum / count.max(1) as f64;
    let taper = |index: usize, length: usize| (PI * (index as f64 + 0.5) / length as f64).sin().powi(2);
    fourier_transform(Array2::from_shape_fn((rows, cols), |(i, j)| {
        let value = if binned[[i, j]].is_finite() { binned[[i, j]] - mean } else { 0.0 };
        Complex::new((value * taper(i, rows) * taper(j, cols)) as f32, 0.0)
    }))
}

/// Correlation of two frames by the shift of the second against the first, `[row, col]` in FFT order, without its slow part.
fn correlation(before: &Array2<Complex<f32>>, after: &Array2<Complex<f32>>) -> Array2<f32> {
    let (rows, cols) = before.dim();
    let cycles = |index: usize, length: usize| index.min(length - index);
    let product = Array2::from_shape_fn((rows, cols), |(i, j)| {
        let cross = after[[i, j]] * before[[i, j]].conj();
        let magnitude = cross.norm();
        // Slower than a third of the frame are only the background and the taper.
        if magnitude <= f32::MIN_POSITIVE || (cycles(i, rows) < 3 && cycles(j, cols) < 3) {
            return Complex::new(0.0, 0.0);
        }
        // The inverse transform is the conjugate of the forward one of the conjugate.
        (cross * magnitude.powf(WHITENING - 1.0)).conj()
    });
    fourier_transform(product).mapv(|value| value.re / (rows * cols) as f32)
}

/// Local maxima of a correlation within `reach` of `middle`, `[row, col]` binned pixels: the shift, to a fraction of a
/// pixel, and the height, made good for how much less the tapered frames overlap at that shift.
fn peaks(surface: &Array2<f32>, middle: [f64; 2], reach: [f64; 2]) -> Vec<([f64; 2], f64)> {
    let (rows, cols) = surface.dim();
    // The slope of the taper pulls peaks to the middle, and must not make one of nothing at the far end.
    let overlap = |position: i64, length: usize| taper_overlap(position as f64, length);
    let at = |row: i64, col: i64| {
        let index = |position: i64, length: usize| position.rem_euclid(length as i64) as usize;
        let value = f64::from(surface[[index(row, rows), index(col, cols)]]);
        value / (overlap(row, rows) * overlap(col, cols)).max(0.2)
    };
    let span = |axis: usize| {
        (middle[axis] - reach[axis]).floor() as i64..=(middle[axis] + reach[axis]).ceil() as i64
    };
    let mut found = Vec::new();
    for row in span(0) {
        for col in span(1) {
            let height = at(row, col);
            let around = (-1..=1).flat_map(|i| (-1..=1).map(move |j| (i, j))).filter(|&n| n != (0, 0));
            if height > 0.0 && around.clone().all(|(i, j)| at(row + i, col + j) <= height) {
                let shift = [
                    row as f64 + vertex(at(row - 1, col), height, at(row + 1, col)),
                    col as f64 + vertex(at(row, col - 1), height, at(row, col + 1)),
                ];
                found.push((shift, height));
            }
        }
    }
    found
}

/// Where the parabola through three neighbours has its vertex, from the middle one.
fn vertex(before: f64, middle: f64, after: f64) -> f64 {
    let bend = before - 2.0 * middle + after;
    if bend < 0.0 { (0.5 * (before - after) / bend).clamp(-0.5, 0.5) } else { 0.0 }
}

/// Autocorrelation of the taper `sin²`, 1 without a shift.
fn taper_overlap(shift: f64, length: usize) -> f64 {
    let s = (shift.abs() / length as f64).min(1.0);
    let phase = 2.0 * PI * s;
    (1.0 - s) * (2.0 + phase.cos()) / 3.0 + phase.sin() / (2.0 * PI)
}

#[cfg(test)]
mod tests;
