//! Intensity normalisation as a model manifest names it: what the networks see instead of detector counts.
//!
//! Features: local (flattening) and min–max normalisation, both blind to pixels that were not measured.
//! Assumptions: non-finite pixels are "not measured"; they enter no statistic and come out as 0.

use crate::config::InvalidSetting;
use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};

/// Fraction of the frame's standard deviation below which a local standard deviation is not believed:
/// a constant region (vacuum, padding) is then divided by this floor and stays flat instead of being blown up.
const STD_FLOOR: f64 = 0.05;

/// Boxes that stand for one Gaussian; three are within 3 % of it.
const BOXES: usize = 3;

/// Statistics as smooth as sigma need not be computed for every pixel: they are taken on bins of sigma / 10, at
/// most [`MAX_BIN`] px, and interpolated, which changes them by under a thousandth.
const BINS_PER_SIGMA: f64 = 10.0;
const MAX_BIN: usize = 8;

/// How a model wants its input scaled, as its manifest says:
/// `{ kind = "local", sigma_px = 40.0 }` or `{ kind = "min_max" }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Normalisation {
    /// Subtracts the local mean and divides by the local standard deviation, both weighted by a Gaussian
    /// of `sigma_px` (pixels of the model's scale, > 0).
    Local { sigma_px: f64 },
    /// Maps the frame's minimum and maximum to 0 and 1 (AtomAI's convention).
    MinMax,
}

impl Normalisation {
    /// # Errors
    /// When `sigma_px` is not in 1 ..= 10⁴.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        match *self {
            Self::Local { sigma_px } if !(1.0..=1e4).contains(&sigma_px) => {
                Err(InvalidSetting::new(format!("{key_prefix}.sigma_px"), sigma_px, "1 ..= 10000"))
            }
            _ => Ok(()),
        }
    }

    /// Normalises `image` (any unit) for a network.
    ///
    /// # Shapes
    /// `[row, col]` → the same.
    ///
    /// # NaN
    /// Non-finite pixels are left out of all statistics (normalised convolution by their mask) and become 0,
    /// which is the local mean under [`Self::Local`] and the minimum under [`Self::MinMax`]. The same weights
    /// handle the edges: nothing outside the image contributes. A constant image becomes all 0.
    pub fn normalise(&self, image: &Array2<f32>) -> Array2<f32> {
        match *self {
            Self::Local { sigma_px } => local(image, sigma_px),
            Self::MinMax => min_max(image),
        }
    }
}

/// Replaces non-finite pixels by the mean of the measured pixels around them (Gaussian weights of `sigma_px`),
/// so that a resampling kernel sees no cliff. Without any measured pixel within reach: the frame's mean.
pub(super) fn fill_masked(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let Some(statistics) = LocalStatistics::of(image, sigma_px) else { return Array2::zeros(image.dim()) };
    let mut filled = image.clone();
    statistics.for_each_row(&mut filled, |pixel, mean, _| {
        if !pixel.is_finite() {
            *pixel = mean;
        }
    });
    filled
}

fn min_max(image: &Array2<f32>) -> Array2<f32> {
    let (min, max) = image
        .iter()
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), &v| (min.min(v.into()), max.max(v.into())));
    let scale = if max > min { 1.0 / (max - min) } else { 0.0 };
    image.mapv(|value| if value.is_finite() { ((f64::from(value) - min) * scale) as f32 } else { 0.0 })
}

fn local(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let Some(statistics) = LocalStatistics::of(image, sigma_px) else { return Array2::zeros(image.dim()) };
    let mut out = image.clone();
    statistics.for_each_row(&mut out, |pixel, mean, inverse_std| {
        *pixel = if pixel.is_finite() { (*pixel - mean) * inverse_std } else { 0.0 };
    });
    out
}

/// Local mean and inverse standard deviation on bins of `bin × bin` px, to be interpolated between bin centres.
struct LocalStatistics {
    bin: usize,
    mean: Array2<f32>,
    inverse_std: Array2<f32>,
}

impl LocalStatistics {
    /// `None` when no pixel was measured.
    fn of(image: &Array2<f32>, sigma_px: f64) -> Option<Self> {
        let frame_mean = mean_of_finite(image)?;
        let bin = ((sigma_px / BINS_PER_SIGMA) as usize).clamp(1, MAX_BIN);
        // Centring on the frame's mean first keeps E[x²] − E[x]² from cancelling.
        let [mut weight, mut sum, mut square] = binned_moments(image, frame_mean, bin);
        let total: f64 = weight.iter().sum();
        let frame_std = (square.iter().sum::<f64>() / total).sqrt();
        let floor = frame_std * STD_FLOOR;

        let mut scratch = Array2::zeros(weight.dim());
        for half_width in box_half_widths(sigma_px / bin as f64) {
            for plane in [&mut weight, &mut sum, &mut square] {
                box_along_cols(plane, &mut scratch, half_width);
                box_along_rows(&scratch, plane, half_width);
            }
        }

        let mut mean = Array2::zeros(weight.dim());
        let mut inverse_std = Array2::zeros(weight.dim());
        for ((((mean, inverse_std), &weight), &sum), &square) in
            mean.iter_mut().zip(&mut inverse_std).zip(&weight).zip(&sum).zip(&square)
        {
            // The running sums leave rounding errors, not zeros, where no pixel is within reach.
            if weight < 1e-9 {
                *mean = frame_mean as f32;
                continue;
            }
            let offset = sum / weight;
            *mean = (frame_mean + offset) as f32;
            let std = (square / weight - offset * offset).max(floor * floor).sqrt();
            *inverse_std = if std > 0.0 { (1.0 / std) as f32 } else { 0.0 };
        }
        Some(Self { bin, mean, inverse_std })
    }

    /// Calls `apply(pixel, mean, inverse_std)` with the statistics interpolated bilinearly at each pixel.
    fn for_each_row(&self, image: &mut Array2<f32>, apply: impl Fn(&mut f32, f32, f32)) {
        let (rows, cols) = image.dim();
        let (bin_rows, bin_cols) = self.mean.dim();
        let col_steps: Vec<Step> = (0..cols).map(|col| Step::at(col, self.bin, bin_cols)).collect();
        let mut mean_row = vec![0.0_f32; bin_cols];
        let mut inverse_std_row = vec![0.0_f32; bin_cols];
        for (row, mut pixels) in (0..rows).zip(image.rows_mut()) {
            let step = Step::at(row, self.bin, bin_rows);
            for (map, line) in [(&self.mean, &mut mean_row), (&self.inverse_std, &mut inverse_std_row)] {
                for ((value, &a), &b) in line.iter_mut().zip(map.row(step.from)).zip(map.row(step.to)) {
                    *value = a + (b - a) * step.fraction;
                }
            }
            for (pixel, step) in pixels.iter_mut().zip(&col_steps) {
                apply(pixel, step.between(&mean_row), step.between(&inverse_std_row));
            }
        }
    }
}

/// Where a pixel lies between two bin centres.
struct Step {
    from: usize,
    to: usize,
    fraction: f32,
}

impl Step {
    fn at(pixel: usize, bin: usize, bins: usize) -> Self {
        let position = ((pixel as f64 + 0.5) / bin as f64 - 0.5).clamp(0.0, (bins - 1) as f64);
        let from = position as usize;
        Self { from, to: (from + 1).min(bins - 1), fraction: (position - from as f64) as f32 }
    }

    fn between(&self, line: &[f32]) -> f32 {
        line[self.from] + (line[self.to] - line[self.from]) * self.fraction
    }
}

fn mean_of_finite(image: &Array2<f32>) -> Option<f64> {
    let (mut count, mut sum) = (0_usize, 0.0);
    for row in image.rows() {
        for &value in row {
            let finite = value.is_finite();
            count += usize::from(finite);
            sum += if finite { f64::from(value) } else { 0.0 };
        }
    }
    (count > 0).then(|| sum / count as f64)
}

/// Sums of 1, x and x² over the measured pixels of each bin, x counted from `centre`.
fn binned_moments(image: &Array2<f32>, centre: f64, bin: usize) -> [Array2<f64>; 3] {
    let (rows, cols) = image.dim();
    let mut moments = [(); 3].map(|()| Array2::<f64>::zeros((rows.div_ceil(bin), cols.div_ceil(bin))));
    let [weight, sum, square] = &mut moments;
    for (row, pixels) in image.rows().into_iter().enumerate() {
        for (chunk, pixels) in pixels.axis_chunks_iter(Axis(0), bin).enumerate() {
            let (mut count, mut first, mut second) = (0.0, 0.0, 0.0);
            for &pixel in pixels {
                let finite = pixel.is_finite();
                let x = if finite { f64::from(pixel) - centre } else { 0.0 };
                count += f64::from(u8::from(finite));
                first += x;
                second += x * x;
            }
            let at = [row / bin, chunk];
            weight[at] += count;
            sum[at] += first;
            square[at] += second;
        }
    }
    moments
}

/// Half-widths `h` of the boxes of `2h + 1` px whose variances add up as near to `sigma_px²` as odd widths allow.
fn box_half_widths(sigma_px: f64) -> [usize; BOXES] {
    let ideal = (12.0 * sigma_px * sigma_px / BOXES as f64 + 1.0).sqrt();
    let small = ((ideal - 1.0) / 2.0).floor().max(0.0) as usize;
    let variance = |half_width: usize| ((2 * half_width + 1).pow(2) as f64 - 1.0) / 12.0;
    let missing = sigma_px * sigma_px - BOXES as f64 * variance(small);
    let large_boxes = (missing / (variance(small + 1) - variance(small))).round() as usize;
    std::array::from_fn(|index| small + usize::from(index < large_boxes))
}

/// Running mean over `2 half_width + 1` columns; what lies outside counts as 0. (The constant divisor drops out of
/// every ratio, but keeps the numbers near 1.)
fn box_along_cols(input: &Array2<f64>, output: &mut Array2<f64>, half_width: usize) {
    let cols = input.ncols();
    let scale = 1.0 / (2 * half_width + 1) as f64;
    for (input, mut output) in input.rows().into_iter().zip(output.rows_mut()) {
        let mut sum: f64 = input.iter().take(half_width).sum();
        for col in 0..cols {
            if col + half_width < cols {
                sum += input[col + half_width];
            }
            if col > half_width {
                sum -= input[col - half_width - 1];
            }
            output[col] = sum * scale;
        }
    }
}

/// Running mean over `2 half_width + 1` rows, a whole row of running sums at a time; outside counts as 0.
fn box_along_rows(input: &Array2<f64>, output: &mut Array2<f64>, half_width: usize) {
    let (rows, cols) = input.dim();
    let scale = 1.0 / (2 * half_width + 1) as f64;
    let mut sums = Array1::<f64>::zeros(cols);
    for row in 0..half_width.min(rows) {
        sums += &input.row(row);
    }
    for row in 0..rows {
        if row + half_width < rows {
            sums += &input.row(row + half_width);
        }
        if row > half_width {
            sums -= &input.row(row - half_width - 1);
        }
        output.row_mut(row).zip_mut_with(&sums, |output, sum| *output = sum * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn noise(rows: usize, cols: usize, seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_fn((rows, cols), |(row, col)| {
            100.0 + row as f32 - 0.5 * col as f32 + 10.0 * rng.random::<f32>()
        })
    }

    /// The same definition without running sums: every box mean is summed afresh.
    fn brute_blur(map: &Array2<f64>, half_widths: &[usize]) -> Array2<f64> {
        let (rows, cols) = map.dim();
        let mut map = map.clone();
        for &half in half_widths {
            map = Array2::from_shape_fn((rows, cols), |(row, col)| {
                let mut sum = 0.0;
                for r in row.saturating_sub(half)..(row + half + 1).min(rows) {
                    for c in col.saturating_sub(half)..(col + half + 1).min(cols) {
                        sum += map[[r, c]];
                    }
                }
                sum / ((2 * half + 1) as f64).powi(2)
            });
        }
        map
    }

    #[test]
    fn local_equals_brute_force_with_holes() {
        let mut image = noise(37, 29, 1);
        image[[5, 5]] = f32::NAN;
        image[[6, 5]] = f32::INFINITY;
        for row in 0..37 {
            image[[row, 28]] = f32::NAN;
        }
        let sigma_px = 4.0;
        let got = Normalisation::Local { sigma_px }.normalise(&image);
        let half_widths = box_half_widths(sigma_px);
        let blur = |term: &dyn Fn(f64) -> f64| {
            brute_blur(&image.mapv(|v| if v.is_finite() { term(v.into()) } else { 0.0 }), &half_widths)
        };
        let (weight, sum, square) = (blur(&|_| 1.0), blur(&|v| v), blur(&|v| v * v));
        for ((at, &pixel), &got) in image.indexed_iter().zip(&got) {
            if !pixel.is_finite() {
                assert_eq!(got, 0.0);
                continue;
            }
            let mean = sum[at] / weight[at];
            let std = (square[at] / weight[at] - mean * mean).sqrt();
            let expected = (f64::from(pixel) - mean) / std;
            assert!((expected - f64::from(got)).abs() < 1e-4, "{at:?}: {expected} {got}");
        }
    }

    #[test]
    fn bins_change_next_to_nothing() {
        let mut image = noise(150, 170, 5);
        image.slice_axis_mut(Axis(0), (140..).into()).fill(f32::NAN);
        let sigma_px = 40.0;
        let got = Normalisation::Local { sigma_px }.normalise(&image);
        let half_widths = box_half_widths(sigma_px);
        let blur = |term: &dyn Fn(f64) -> f64| {
            brute_blur(&image.mapv(|v| if v.is_finite() { term(v.into()) } else { 0.0 }), &half_widths)
        };
        let (weight, sum, square) = (blur(&|_| 1.0), blur(&|v| v), blur(&|v| v * v));
        for (at, &pixel) in image.indexed_iter().filter(|(_, pixel)| pixel.is_finite()) {
            let mean = sum[at] / weight[at];
            let expected = (f64::from(pixel) - mean) / (square[at] / weight[at] - mean * mean).sqrt();
            assert!((expected - f64::from(got[at])).abs() < 0.02, "{at:?}: {expected} {}", got[at]);
        }
    }

    #[test]
    fn boxes_have_the_variance_of_the_gaussian() {
        for sigma_px in [5.0, 12.5, 40.0, 61.3] {
            let variance: f64 =
                box_half_widths(sigma_px).iter().map(|&h| ((2 * h + 1).pow(2) as f64 - 1.0) / 12.0).sum();
            assert!((variance.sqrt() / sigma_px - 1.0).abs() < 0.05, "{sigma_px}: {}", variance.sqrt());
        }
        assert_eq!(box_half_widths(40.0), [40, 40, 39]);
    }

    #[test]
    fn gain_offset_and_nothing_else_drop_out() {
        let image = noise(64, 96, 2);
        let local = Normalisation::Local { sigma_px: 10.0 };
        let scaled = local.normalise(&image.mapv(|v| 7.0 * v - 300.0));
        for (a, b) in local.normalise(&image).iter().zip(&scaled) {
            assert!((a - b).abs() < 1e-3);
        }
    }

    #[test]
    fn constant_regions_stay_flat() {
        assert!(
            Normalisation::Local { sigma_px: 5.0 }
                .normalise(&Array2::from_elem((20, 20), 3.0))
                .iter()
                .all(|&v| v == 0.0)
        );
        let mut image = noise(100, 200, 3);
        image.slice_axis_mut(Axis(1), (100..).into()).fill(50.0);
        let out = Normalisation::Local { sigma_px: 5.0 }.normalise(&image);
        assert!(out.slice_axis(Axis(1), (130..).into()).iter().all(|v| v.abs() < 1e-3));
        assert!(out.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn degenerate_images() {
        for kind in [Normalisation::Local { sigma_px: 40.0 }, Normalisation::MinMax] {
            assert_eq!(kind.normalise(&Array2::zeros((0, 5))).dim(), (0, 5));
            assert!(kind.normalise(&Array2::from_elem((3, 4), f32::NAN)).iter().all(|&v| v == 0.0));
            assert_eq!(kind.normalise(&Array2::from_elem((1, 1), 9.0))[[0, 0]], 0.0);
        }
    }

    #[test]
    fn min_max_spans_zero_to_one() {
        let image = ndarray::array![[2.0, f32::NAN], [4.0, 10.0]];
        assert_eq!(Normalisation::MinMax.normalise(&image), ndarray::array![[0.0, 0.0], [0.25, 1.0]]);
    }

    #[test]
    fn holes_are_filled_with_what_surrounds_them() {
        let mut image = Array2::from_shape_fn((40, 40), |(row, _)| row as f32);
        image[[20, 20]] = f32::NAN;
        let filled = fill_masked(&image, 3.0);
        assert!((filled[[20, 20]] - 20.0).abs() < 1e-3);
        assert_eq!(filled[[3, 3]], 3.0);
    }

    #[test]
    fn reads_the_manifest_spelling() {
        let local: Normalisation = toml::from_str("kind = \"local\"\nsigma_px = 40.0").unwrap();
        assert_eq!(local, Normalisation::Local { sigma_px: 40.0 });
        assert_eq!(toml::from_str::<Normalisation>("kind = \"min_max\"").unwrap(), Normalisation::MinMax);
        assert!(toml::from_str::<Normalisation>("kind = \"local\"\nsigma = 40.0").is_err());
        assert!(Normalisation::Local { sigma_px: 0.0 }.validate("m").is_err());
    }

    #[test]
    fn speed_512() {
        let image = noise(512, 512, 4);
        let best = (0..5)
            .map(|_| {
                let start = std::time::Instant::now();
                std::hint::black_box(Normalisation::Local { sigma_px: 40.0 }.normalise(&image));
                start.elapsed()
            })
            .min();
        eprintln!("local normalisation 512 x 512: best of 5 {best:?}");
    }
}
