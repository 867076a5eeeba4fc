//! Adding up Gaussians quickly: each line of one is a Gaussian of one dimension.

use super::microscope::Covariance;
use ndarray::Array2;

/// `height` · exp(-½ dᵀ Σ⁻¹ d), with d = `[x, y]` from `center`, all in pixels.
pub(super) struct Gaussian {
    pub center: [f64; 2],
    pub covariance: Covariance,
    pub height: f64,
}

/// A Gaussian made ready to be added to lines.
///
/// With Σ⁻¹ = (A B; B C), it is on every line that it crosses at a distance dy a Gaussian in x of the same width 1/√A, lower by
/// exp(-½ dy² / Σyy), whose centre is moved by dy Σxy / Σyy. On the line's pixels, at k + f from that centre with whole k, it
/// is exp(-½ A k²), the same for all lines, times a power of exp(-A f).
pub(super) struct Stamp {
    center: [f64; 2],
    height: f64,
    /// A, Σxy / Σyy, 1 / Σyy.
    a: f64,
    slope: f64,
    inverse_yy: f64,
    /// Square of the distance, in standard deviations, out to which it is added, and that distance along x and y.
    reach_squared: f64,
    reach: [f64; 2],
    /// exp(-½ A k²) for k from `-farthest` to `farthest`.
    profile: Vec<f32>,
    farthest: i64,
}

/// Values on a grid, `[row, col]`.
pub(super) struct Plane {
    pub values: Array2<f32>,
    /// Column and row of the grid where x and y are 0.
    pub origin: [usize; 2],
}

/// Pixels that are computed side by side.
const LANES: usize = 8;

/// `floor` and `ceil` of what fits an integer; those of the standard library are calls where the processor may lack them.
pub(super) fn floor(x: f64) -> i64 {
    let whole = x as i64;
    whole.saturating_sub(i64::from(whole as f64 > x))
}

fn ceil(x: f64) -> i64 {
    -floor(-x)
}

impl Stamp {
    pub fn new() -> Self {
        Self {
            center: [0.0, 0.0],
            height: 0.0,
            a: 1.0,
            slope: 0.0,
            inverse_yy: 1.0,
            reach_squared: 0.0,
            reach: [0.0, 0.0],
            profile: Vec::new(),
            farthest: 0,
        }
    }

    /// Makes this the stamp of `gaussian`, as far as it is above `least`.
    pub fn set(&mut self, gaussian: &Gaussian, least: f64) {
        let Gaussian { center, covariance, height } = *gaussian;
        self.center = center;
        self.height = height;
        self.reach_squared = if height > least { 2.0 * (height / least).ln() } else { 0.0 };
        self.reach = [covariance.xx, covariance.yy].map(|variance| (self.reach_squared * variance).sqrt());
        self.a = covariance.yy / covariance.determinant();
        self.slope = covariance.xy / covariance.yy;
        self.inverse_yy = 1.0 / covariance.yy;
        self.farthest = ceil((self.reach_squared / self.a).sqrt()) + 1;
        let count = self.farthest as usize;
        self.profile.resize(2 * count + 1, 0.0);
        // exp(-½ A (k + 1)²) is exp(-½ A k²) times exp(-A (k + ½)), and that falls by exp(-A) each time.
        let (mut value, mut ratio) = (1.0, (-0.5 * self.a).exp());
        let step = ratio * ratio;
        for k in 0..=count {
            self.profile[count + k] = value as f32;
            self.profile[count - k] = value as f32;
            value *= ratio;
            ratio *= step;
        }
    }
}

impl Plane {
    /// `[rows, cols]` of zeros, with `margin` = `[x, y]` more of them on each side.
    pub fn new([rows, cols]: [usize; 2], margin: [usize; 2]) -> Self {
        Self { values: Array2::zeros((rows + 2 * margin[1], cols + 2 * margin[0])), origin: margin }
    }

    /// Adds the Gaussian to lines that lie `displacement(row)` = `[x, y]` from their places, at most `farthest`.
    pub fn add(&mut self, stamp: &Stamp, farthest: [f64; 2], displacement: impl Fn(usize) -> [f64; 2]) {
        let Stamp { center: [x, y], height, a, slope, inverse_yy, reach_squared, .. } = *stamp;
        let (x, y) = (x + self.origin[0] as f64, y + self.origin[1] as f64);
        let [reach_x, reach_y] = [0, 1].map(|k| stamp.reach[k] + farthest[k]);
        let [rows, width] = [self.values.nrows(), self.values.ncols()];
        if reach_squared == 0.0 || x + reach_x < 0.0 || x - reach_x > width as f64 {
            return;
        }
        let first_row = ceil(y - reach_y).max(0) as usize;
        let end_row = (floor(y + reach_y) + 1).clamp(0, rows as i64) as usize;
        let inverse_a = 1.0 / a;
        let Some(pixels) = self.values.as_slice_mut() else { return };
        for row in first_row..end_row {
            let [line_x, line_y] = displacement(row);
            let dy = row as f64 + line_y - y;
            let down = dy * dy * inverse_yy;
            if down >= reach_squared {
                continue;
            }
            let center = x + slope * dy - line_x;
            let half_width = ((reach_squared - down) * inverse_a).sqrt();
            let first = ceil(center - half_width).max(0);
            let end = (floor(center + half_width) + 1).min(width as i64);
            if first >= end {
                continue;
            }
            let nearest = floor(center + 0.5);
            let f = nearest as f64 - center;
            let k = first - nearest;
            let start = height * (-0.5 * (down + a * f * f) - a * f * k as f64).exp();
            let line = pixels.get_mut(row * width + first as usize..row * width + end as usize);
            let profile = stamp.profile.get((k + stamp.farthest) as usize..);
            if let (Some(line), Some(profile)) = (line, profile) {
                add_geometric(line, profile, [start as f32, (-a * f).exp() as f32]);
            }
        }
    }
}

/// `line[k] += profile[k] · start · ratio^k`
fn add_geometric(line: &mut [f32], profile: &[f32], [start, ratio]: [f32; 2]) {
    let mut power = [start; LANES];
    for k in 1..LANES {
        power[k] = power[k - 1] * ratio;
    }
    let squared = ratio * ratio;
    let step = (squared * squared) * (squared * squared);
    let done = line.len() / LANES * LANES;
    for (line, profile) in line.chunks_exact_mut(LANES).zip(profile.chunks_exact(LANES)) {
        for k in 0..LANES {
            line[k] += power[k] * profile[k];
            power[k] *= step;
        }
    }
    for ((value, profile), power) in line[done..].iter_mut().zip(&profile[done..]).zip(power) {
        *value += power * profile;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_below_and_above() {
        for x in [-2.5, -2.0, -0.3, 0.0, 0.3, 1.0, 7.999] {
            assert_eq!((floor(x), ceil(x)), (x.floor() as i64, x.ceil() as i64));
        }
    }

    #[test]
    fn thin_tall_and_tiny_gaussians_agree_with_the_formula() {
        for covariance in [
            Covariance::round(0.05),
            Covariance::round(0.4),
            Covariance::round(30.0),
            Covariance { xx: 400.0, xy: 399.0, yy: 400.0 },
            Covariance { xx: 0.09, xy: 0.0, yy: 900.0 },
            Covariance { xx: 900.0, xy: 5.1, yy: 0.09 },
        ] {
            for center in [[20.0, 19.0], [20.5, 18.5], [20.3, 17.8], [-3.0, 1.0]] {
                let mut plane = Plane::new([40, 50], [3, 2]);
                let mut stamp = Stamp::new();
                stamp.set(&Gaussian { center, covariance, height: 100.0 }, 1e-3);
                plane.add(&stamp, [0.0, 0.0], |_| [0.0, 0.0]);
                let Covariance { xx, xy, yy } = covariance;
                for ((row, col), value) in plane.values.indexed_iter() {
                    let (dx, dy) = (col as f64 - 3.0 - center[0], row as f64 - 2.0 - center[1]);
                    let exponent =
                        (yy * dx * dx - 2.0 * xy * dx * dy + xx * dy * dy) / covariance.determinant();
                    let expected = 100.0 * (-0.5 * exponent).exp();
                    assert!((f64::from(*value) - expected).abs() < 2e-3, "{covariance:?} at {row} {col}");
                }
            }
        }
    }

    #[test]
    fn what_lies_outside_adds_nothing_and_does_not_panic() {
        let mut plane = Plane::new([16, 16], [0, 0]);
        let mut stamp = Stamp::new();
        let covariance = Covariance::round(2.0);
        for center in [[-100.0, 5.0], [100.0, 5.0], [5.0, -100.0], [5.0, 100.0]] {
            stamp.set(&Gaussian { center, covariance, height: 1.0 }, 1e-4);
            plane.add(&stamp, [0.0, 0.0], |_| [0.0, 0.0]);
        }
        stamp.set(&Gaussian { center: [5.0, 5.0], covariance, height: 0.0 }, 1e-4);
        plane.add(&stamp, [0.0, 0.0], |_| [0.0, 0.0]);
        assert!(plane.values.iter().all(|&v| v == 0.0));
    }
}
