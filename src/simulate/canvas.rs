//! Adding up columns quickly: separable Gaussians on local patches, line by line where the beam really went.

use super::microscope::Microscope;
use ndarray::Array2;
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

/// Expected counts, with a few columns more on either side for lines that are displaced.
pub(super) struct Canvas {
    /// `[row, margin + col]`.
    values: Array2<f32>,
    margin: usize,
    jitter: LineJitter,
    /// Scratch: the profile along x of the Gaussian being added.
    profile: Vec<f32>,
}

/// How far each line was scanned beside its place, pixels; empty where lines are in place.
pub(super) struct LineJitter {
    x: Vec<f64>,
    y: Vec<f64>,
}

/// `height` · exp(-r² / 2σ²) about `center` = `[x, y]`, all in pixels.
pub(super) struct Gaussian {
    pub center: [f64; 2],
    pub sigma: f64,
    pub height: f64,
}

impl LineJitter {
    pub fn draw(microscope: &Microscope, rng: &mut impl Rng) -> Self {
        if microscope.line_jitter_pm == 0.0 {
            return Self { x: Vec::new(), y: Vec::new() };
        }
        let sigma_px = microscope.line_jitter_pm / microscope.pixel_size_pm;
        let mut lines = || {
            (0..microscope.shape[0])
                .map(|_| sigma_px * rng.sample::<f64, _>(StandardNormal))
                .collect::<Vec<_>>()
        };
        Self { x: lines(), y: lines() }
    }
}

impl Canvas {
    pub fn new([rows, cols]: [usize; 2], jitter: LineJitter) -> Self {
        let farthest = jitter.x.iter().fold(0.0, |far: f64, x| far.max(x.abs()));
        let margin = if jitter.x.is_empty() { 0 } else { farthest.ceil() as usize + 2 };
        Self { values: Array2::zeros((rows, cols + 2 * margin)), margin, jitter, profile: Vec::new() }
    }

    /// Adds a line of values, one a column of the frame, to every row; the margins repeat the frame's edge.
    pub fn add_smooth(&mut self, mut line: impl FnMut(usize) -> Vec<f32>) {
        for (row, mut values) in self.values.rows_mut().into_iter().enumerate() {
            let line = line(row);
            for (k, value) in values.iter_mut().enumerate() {
                let col = k.saturating_sub(self.margin).min(line.len() - 1);
                *value += line[col];
            }
        }
    }

    /// Adds a Gaussian out to `reach` standard deviations.
    pub fn add(&mut self, gaussian: &Gaussian, reach: f64) {
        let [rows, width] = [self.values.nrows(), self.values.ncols()];
        let Gaussian { center: [x, y], sigma, height } = *gaussian;
        let x = x + self.margin as f64;
        let Some((first_row, end_row)) = covered(y, reach * sigma, rows) else { return };
        let Some((first, end)) = covered(x, reach * sigma, width) else { return };
        let exponent = -0.5 / (sigma * sigma);
        self.profile.clear();
        self.profile.extend((first..end).map(|col| (exponent * (col as f64 - x).powi(2)).exp() as f32));
        for row in first_row..end_row {
            let scanned_y = row as f64 + self.jitter.y.get(row).copied().unwrap_or(0.0);
            let weight = (height * (exponent * (scanned_y - y).powi(2)).exp()) as f32;
            let start = row * width;
            let Some(line) = self.values.as_slice_mut().and_then(|v| v.get_mut(start + first..start + end))
            else {
                return;
            };
            for (value, profile) in line.iter_mut().zip(&self.profile) {
                *value += weight * profile;
            }
        }
    }

    /// The frame as scanned: each line read where the beam was.
    pub fn into_scanned(self) -> Array2<f32> {
        if self.jitter.x.is_empty() {
            return self.values;
        }
        let cols = self.values.ncols() - 2 * self.margin;
        let mut scanned = Array2::zeros((self.values.nrows(), cols));
        let lines = self.values.rows().into_iter().zip(scanned.rows_mut());
        for ((from, mut to), shift) in lines.zip(&self.jitter.x) {
            let (whole, fraction) = (shift.floor(), shift - shift.floor());
            let weights = cubic_weights(fraction as f32);
            // Within the margin, which is wider than the farthest line by two.
            let first = (self.margin as f64 + whole) as usize - 1;
            let from = from.to_vec();
            for (value, window) in to.iter_mut().zip(from[first..].windows(4)) {
                *value = window.iter().zip(&weights).map(|(v, w)| v * w).sum::<f32>().max(0.0);
            }
        }
        scanned
    }
}

/// Pixels `first..end` of `0..len` within `reach` of `center`; `None` when there are none.
fn covered(center: f64, reach: f64, len: usize) -> Option<(usize, usize)> {
    let first = (center - reach).ceil().max(0.0);
    let end = (center + reach).floor() + 1.0;
    (end > first && first < len as f64).then(|| (first as usize, (end as usize).min(len)))
}

/// Lagrange weights of the samples at -1, 0, 1, 2 for a point at `t` in 0..1. On a Gaussian of σ ≥ 3 pixels the interpolation
/// is good to 1 ‰ of its height.
fn cubic_weights(t: f32) -> [f32; 4] {
    [
        -t * (t - 1.0) * (t - 2.0) / 6.0,
        (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0,
        -(t + 1.0) * t * (t - 2.0) / 2.0,
        (t + 1.0) * t * (t - 1.0) / 6.0,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn still() -> LineJitter {
        LineJitter { x: Vec::new(), y: Vec::new() }
    }

    #[test]
    fn patches_agree_with_the_formula_at_every_pixel() {
        let mut canvas = Canvas::new([40, 50], still());
        let gaussian = Gaussian { center: [20.3, 17.8], sigma: 3.0, height: 100.0 };
        canvas.add(&gaussian, 12.0);
        for ((row, col), value) in canvas.into_scanned().indexed_iter() {
            let r2 = (col as f64 - 20.3).powi(2) + (row as f64 - 17.8).powi(2);
            assert!((f64::from(*value) - 100.0 * (-r2 / 18.0).exp()).abs() < 1e-4);
        }
    }

    #[test]
    fn patches_outside_the_frame_add_nothing_and_do_not_panic() {
        let mut canvas = Canvas::new([16, 16], still());
        for center in [[-100.0, 5.0], [100.0, 5.0], [5.0, -100.0], [5.0, 100.0]] {
            canvas.add(&Gaussian { center, sigma: 2.0, height: 1.0 }, 4.0);
        }
        assert!(canvas.into_scanned().iter().all(|&v| v == 0.0));
    }

    #[test]
    fn displaced_lines_show_what_lies_where_the_beam_was() {
        let jitter = LineJitter {
            x: (0..32).map(|r| 0.7 * f64::from(r % 5) - 1.3).collect(),
            y: (0..32).map(|r| 0.3 * f64::from(r % 3) - 0.2).collect(),
        };
        let (x, y) = (jitter.x.clone(), jitter.y.clone());
        let mut canvas = Canvas::new([32, 32], jitter);
        canvas.add(&Gaussian { center: [15.0, 16.0], sigma: 4.0, height: 100.0 }, 10.0);
        let line: Vec<f32> = (0..32).map(|col| col as f32).collect();
        canvas.add_smooth(|_| line.clone());
        let scanned = canvas.into_scanned();
        for row in 0..32 {
            for col in 4..28 {
                let (at_x, at_y) = (col as f64 + x[row], row as f64 + y[row]);
                let r2 = (at_x - 15.0).powi(2) + (at_y - 16.0).powi(2);
                let expected = 100.0 * (-r2 / 32.0).exp() + at_x;
                assert!((f64::from(scanned[[row, col]]) - expected).abs() < 0.1, "{row} {col}");
            }
        }
    }
}
