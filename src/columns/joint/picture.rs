//! The model as a picture: the sum of all columns, the smooth rest, and the noise.

use super::profile::{Part, Profile};
use super::{Pace, Spot};
use ndarray::Array2;
use rayon::prelude::*;

const BAND_ROWS: usize = 16;
/// Pixels between which tails are drawn as straight lines, in a standard deviation.
const NODES_IN_SIGMA: f64 = 2.5;
/// Squares in a standard deviation of what smooths them.
const SQUARES_IN_SIGMA: f64 = 3.0;
/// Classes of brightness by which the noise is estimated.
const NOISE_BINS: usize = 12;
/// Variances are not believed to fall below this fraction of that at a bright column.
const VARIANCE_FLOOR: f64 = 0.03;

/// Rows and columns `from..to` around `centre` within `radius`.
pub(super) fn around(centre: f64, radius: f64, length: usize) -> std::ops::Range<usize> {
    let from = (centre - radius).ceil().max(0.0) as usize;
    let to = ((centre + radius).floor() + 1.0).max(0.0) as usize;
    from.min(length)..to.min(length)
}

/// The sum of all columns.
///
/// # Shapes
/// `[row, col]` of `shape`.
pub(super) fn columns(
    shape: (usize, usize),
    spots: &[Spot],
    profiles: &[Profile; 2],
    pace: Pace,
) -> Array2<f32> {
    let parts = profiles.map(|profile| profile.parts().collect::<Vec<_>>());
    let mut picture = Array2::zeros(shape);
    for number in 0..parts.iter().map(Vec::len).max().unwrap_or(0) {
        let parts = [0, 1].map(|kind: usize| parts[kind].get(number).copied());
        let narrowest = parts.iter().flatten().map(|part| part.narrowest_px()).fold(f64::INFINITY, f64::min);
        // Tails are so wide that straight lines between some pixels do, to 2 % of them.
        let exact = number == 0 || pace == Pace::Thorough;
        let every = if exact { 1 } else { (narrowest / NODES_IN_SIGMA).max(1.0) as usize };
        let nodes = (
            shape.0.div_ceil(every) + usize::from(every > 1),
            shape.1.div_ceil(every) + usize::from(every > 1),
        );
        let drawn = draw(nodes, every, spots, parts);
        picture += &if every > 1 { between(&drawn, every, 0.0, shape) } else { drawn };
    }
    picture
}

/// One part of each kind of profile of all columns, at one in `every` rows and columns.
fn draw(shape: (usize, usize), every: usize, spots: &[Spot], parts: [Option<Part>; 2]) -> Array2<f32> {
    let mut picture = Array2::<f32>::zeros(shape);
    let cols = shape.1;
    let Some(pixels) = picture.as_slice_mut() else { return picture };
    let parts = parts.map(|part| part.map(|part| (part, part.reach_px())));
    let scale = every as f64;
    pixels.par_chunks_mut((BAND_ROWS * cols).max(1)).enumerate().for_each(|(band, lines)| {
        let first_row = (band * BAND_ROWS) as f64;
        let height = lines.len() / cols;
        let mut values = vec![0.0; cols];
        for spot in spots.iter().filter(|spot| spot.amplitude > 0.0) {
            let Some((part, reach)) = parts[spot.kind.profile()] else { continue };
            let amplitude = (spot.amplitude * part.weight) as f32;
            for row in around(spot.row / scale - first_row, reach / scale, height) {
                let dr = (row as f64 + first_row) * scale - spot.row;
                let half = (reach * reach - dr * dr).max(0.0).sqrt();
                let reached = around(spot.col / scale, half / scale, cols);
                let values = &mut values[..reached.len()];
                part.along_row([dr, (every * reached.start) as f64 - spot.col], every, values);
                let line = lines[row * cols..(row + 1) * cols].iter_mut().skip(reached.start);
                line.zip(values).for_each(|(pixel, value)| *pixel += amplitude * *value);
            }
        }
    });
    picture
}

/// Straight lines between `nodes`, of which the first lies at `offset` in rows and columns and the others `every` pixels on.
fn between(nodes: &Array2<f32>, every: usize, offset: f32, shape: (usize, usize)) -> Array2<f32> {
    // Where a pixel lies among the nodes: the one before it, and how far beyond that.
    let place = |pixel: usize, length: usize| {
        let at = ((pixel as f32 - offset) / every as f32).clamp(0.0, (length - 1) as f32);
        let before = (at as usize).min(length.saturating_sub(2));
        (before, at - before as f32)
    };
    let (rows, cols) = nodes.dim();
    let mut image = Array2::zeros(shape);
    if rows == 0 || cols == 0 {
        return image;
    }
    let across: Vec<(usize, f32)> = (0..shape.1).map(|col| place(col, cols)).collect();
    let mut line = vec![0.0; cols + 1];
    for (row, mut pixels) in image.rows_mut().into_iter().enumerate() {
        let (above, part) = place(row, rows);
        let pair = nodes.row(above).into_iter().zip(nodes.row((above + 1).min(rows - 1)));
        line.iter_mut().zip(pair).for_each(|(value, (a, b))| *value = a + part * (b - a));
        for (pixel, &(before, part)) in pixels.iter_mut().zip(&across) {
            *pixel = line[before] + part * (line[before + 1] - line[before]);
        }
    }
    image
}

/// Smooths frames of one shape: sums over squares of pixels, a Gaussian over those, and straight lines between their centres.
#[derive(Debug)]
pub(super) struct Smoother {
    /// Side of the squares, px.
    side: usize,
    /// Of the Gaussian, in sides.
    sigma: f64,
    /// Part of the weights around a square that is measured.
    measured: Array2<f32>,
}

impl Smoother {
    /// For `frame`, whose finite pixels are those that are measured.
    pub(super) fn new(frame: &Array2<f32>, sigma_px: f64, pace: Pace) -> Self {
        let side = match pace {
            Pace::Thorough => 1,
            Pace::Live => (sigma_px / SQUARES_IN_SIGMA).max(1.0) as usize,
        };
        let sigma = sigma_px / side as f64;
        let mut measured = blur(squares(&frame.mapv(|value| f32::from(value.is_finite())), side), sigma);
        measured.mapv_inplace(|weight| if weight > 1e-6 * (side * side) as f32 { weight } else { f32::NAN });
        Self { side, sigma, measured }
    }

    /// Weighted means of what is left over of a frame; pixels that are not finite count nothing.
    pub(super) fn smooth(&self, rest: &Array2<f32>) -> Array2<f32> {
        let means = blur(squares(rest, self.side), self.sigma) / &self.measured;
        if self.side == 1 {
            return means;
        }
        between(&means, self.side, 0.5 * (self.side - 1) as f32, rest.dim())
    }
}

/// Sums over squares of `side` pixels, smaller at the right and lower edges; pixels that are not finite count nothing.
fn squares(image: &Array2<f32>, side: usize) -> Array2<f32> {
    let (rows, cols) = image.dim();
    let mut sums = Array2::zeros((rows.div_ceil(side), cols.div_ceil(side)));
    for (row, line) in image.rows().into_iter().enumerate() {
        let mut sums = sums.row_mut(row / side);
        for (sum, pixels) in sums.iter_mut().zip(line.as_slice().unwrap_or_default().chunks(side)) {
            *sum += pixels.iter().filter(|value| value.is_finite()).sum::<f32>();
        }
    }
    sums
}

/// Means weighted by a Gaussian of `sigma_px`; non-finite values are left out, and are NaN where there is nothing else.
pub(crate) fn blurred(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let values = image.mapv(|value| if value.is_finite() { value } else { 0.0 });
    blur(values, sigma_px) / measured_weight(image, sigma_px)
}

/// The part of the weights around each pixel that is measured, NaN where that is nothing.
fn measured_weight(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let mut weight = blur(image.mapv(|value| f32::from(value.is_finite())), sigma_px);
    weight.mapv_inplace(|weight| if weight > 1e-6 { weight } else { f32::NAN });
    weight
}

/// Weighted sums; what lies beyond the edge counts as 0.
fn blur(image: Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let transposed = |image: &Array2<f32>| image.t().as_standard_layout().into_owned();
    let along = along_rows(&image, sigma_px);
    transposed(&along_rows(&transposed(&along), sigma_px))
}

fn along_rows(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let reach = (3.5 * sigma_px).ceil() as usize;
    let kernel: Vec<f32> = (0..=2 * reach)
        .map(|k| (-0.5 * ((k as f64 - reach as f64) / sigma_px).powi(2)).exp() as f32)
        .collect();
    let sum: f32 = kernel.iter().sum();
    let kernel: Vec<f32> = kernel.iter().map(|weight| weight / sum).collect();
    let (rows, cols) = image.dim();
    let mut out = Array2::<f32>::zeros((rows, cols));
    let Some(values) = out.as_slice_mut() else { return out };
    values.par_chunks_mut(cols.max(1)).enumerate().for_each(|(row, out)| {
        let mut padded = vec![0.0_f32; cols + 2 * reach];
        padded[reach..reach + cols].iter_mut().zip(image.row(row)).for_each(|(to, from)| *to = *from);
        // Tap by tap, so that sums run over pixels side by side.
        for (k, &weight) in kernel.iter().enumerate() {
            out.iter_mut().zip(&padded[k..]).for_each(|(out, value)| *out += weight * value);
        }
    });
    out
}

/// The variance of a pixel: `constant + per_unit · expectation`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Noise {
    pub(super) constant: f64,
    pub(super) per_unit: f64,
    /// No variance is below it.
    pub(super) floor: f64,
}

impl Noise {
    pub(super) const UNIFORM: Self = Self { constant: 1.0, per_unit: 0.0, floor: 1.0 };

    pub(super) fn variance(&self, expectation: f64) -> f64 {
        (self.constant + self.per_unit * expectation).max(self.floor)
    }

    /// From the differences of neighbouring pixels, the same everywhere: what there is to go by before a frame is fitted.
    pub(super) fn between_neighbours(frame: &Array2<f32>) -> Self {
        let pairs = frame.rows().into_iter().step_by(4).flat_map(|row| {
            row.into_iter().zip(row.into_iter().skip(1)).map(|(a, b)| f64::from(b - a)).collect::<Vec<_>>()
        });
        let (sum, count) = pairs
            .filter(|difference| difference.is_finite())
            .fold((0.0, 0_usize), |(sum, count), difference| (sum + difference * difference, count + 1));
        let variance = (0.5 * sum / count.max(1) as f64).max(f64::MIN_POSITIVE);
        Self { constant: variance, per_unit: 0.0, floor: variance }
    }

    /// From the residuals, as a line through their mean squares in classes of brightness.
    pub(super) fn of(expectation: &Array2<f32>, residual: &Array2<f32>) -> Self {
        let mut pairs: Vec<(f32, f32)> = expectation
            .iter()
            .zip(residual)
            .filter(|(m, r)| m.is_finite() && r.is_finite())
            .map(|(&m, &r)| (m, r))
            .collect();
        if pairs.len() < NOISE_BINS * 8 {
            return Self::UNIFORM;
        }
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let bins: Vec<(f64, f64)> = pairs
            .chunks(pairs.len().div_ceil(NOISE_BINS))
            .map(|bin| {
                let n = bin.len() as f64;
                let mean = bin.iter().map(|p| f64::from(p.0)).sum::<f64>() / n;
                (mean, bin.iter().map(|p| f64::from(p.1).powi(2)).sum::<f64>() / n)
            })
            .collect();
        // Each mean square scatters in proportion to itself.
        let line = |weights: &dyn Fn(f64) -> f64| {
            let (mut w, mut wm, mut wmm, mut wv, mut wmv) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for &(m, v) in &bins {
                let weight = weights(v);
                (w, wm, wmm) = (w + weight, wm + weight * m, wmm + weight * m * m);
                (wv, wmv) = (wv + weight * v, wmv + weight * m * v);
            }
            let per_unit = (w * wmv - wm * wv) / (w * wmm - wm * wm);
            ((wv - per_unit * wm) / w, per_unit)
        };
        let brightest = bins.last().map_or(0.0, |bin| bin.1);
        let least = 1e-3 * brightest.max(f64::MIN_POSITIVE);
        let (constant, per_unit) = line(&|v| v.max(least).powi(-2));
        let mean_square = bins.iter().map(|bin| bin.1).sum::<f64>() / bins.len() as f64;
        if !(per_unit > 0.0 && constant.is_finite()) {
            return Self { constant: mean_square, per_unit: 0.0, floor: mean_square.max(f64::MIN_POSITIVE) };
        }
        let bright = bins.last().map_or(0.0, |bin| constant + per_unit * bin.0);
        Self { constant, per_unit, floor: (VARIANCE_FLOOR * bright).max(f64::MIN_POSITIVE) }
    }
}

/// How much wider means over neighbouring pixels scatter than those of independent ones: the square root of the sum of the
/// residuals' autocorrelation, at least 1. A frame that was smoothed, or resampled, has correlated noise.
pub(super) fn correlation(residual: &Array2<f32>, noise_per_px: &Array2<f32>) -> f64 {
    const LAG: isize = 3;
    let (rows, cols) = residual.dim();
    let normal = |row: usize, col: usize| {
        let value = residual[[row, col]] / noise_per_px[[row, col]];
        if value.is_finite() { f64::from(value) } else { 0.0 }
    };
    let lag = LAG as usize;
    if rows <= 2 * lag || cols <= 2 * lag {
        return 1.0;
    }
    let (mut square, mut sum) = (0.0, 0.0);
    for row in (lag..rows - lag).step_by(2) {
        for col in (lag..cols - lag).step_by(2) {
            let here = normal(row, col);
            square += here * here;
            for dr in -LAG..=LAG {
                for dc in -LAG..=LAG {
                    sum += here * normal(row.wrapping_add_signed(dr), col.wrapping_add_signed(dc));
                }
            }
        }
    }
    if square > 0.0 { (sum / square).max(1.0).sqrt() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Poisson};

    #[test]
    fn blurring_keeps_constants_and_leaves_out_what_was_not_measured() {
        let mut image = Array2::from_elem((40, 50), 3.0_f32);
        image[[10, 10]] = f32::NAN;
        let blur = blurred(&image, 4.0);
        assert!(blur.iter().all(|v| (v - 3.0).abs() < 1e-4));
    }

    #[test]
    fn the_noise_of_counts_is_their_mean() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mean = Array2::from_shape_fn((128, 128), |(row, _)| 2.0 + row as f32);
        let residual = mean.mapv(|m| Poisson::new(f64::from(m)).unwrap().sample(&mut rng) as f32 - m);
        let noise = Noise::of(&mean, &residual);
        assert!((noise.per_unit - 1.0).abs() < 0.1 && noise.constant.abs() < 1.0, "{noise:?}");
        let sigma = mean.mapv(f32::sqrt);
        let white = correlation(&residual, &sigma);
        assert!(white < 1.2, "{white}");
        // Means over 3 x 3 pixels: nine equal neighbours, three times the scatter.
        let smooth = Array2::from_shape_fn((126, 126), |(r, c)| {
            residual.slice(ndarray::s![r..r + 3, c..c + 3]).sum() / 9.0
        });
        let flat = sigma.slice(ndarray::s![1..127, 1..127]).to_owned();
        let correlated = correlation(&smooth, &flat);
        assert!((correlated / 3.0 - 1.0).abs() < 0.25, "{correlated}");
    }
}
