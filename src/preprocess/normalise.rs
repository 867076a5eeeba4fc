//! Intensity normalisation as a model manifest names it: what the networks see instead of detector counts.
//!
//! Features: local (flattening) and min–max normalisation, both blind to pixels that were not measured.
//! Assumptions: non-finite pixels are "not measured"; they enter no statistic and come out as 0.

use crate::config::InvalidSetting;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// Fraction of the frame's standard deviation below which a local standard deviation is not believed:
/// a constant region (vacuum, padding) is then divided by this floor and stays flat instead of being blown up.
const STD_FLOOR: f64 = 0.05;

/// Boxes that stand for one Gaussian; three are within 3 % of it.
const BOXES: usize = 3;

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
/// so that a resampling kernel sees no cliff.
pub(super) fn fill_masked(image: &Array2<f32>, sigma_px: f64) -> Array2<f32> {
    let Some((mean, _)) = mean_and_std(image) else { return Array2::zeros(image.dim()) };
    let [weight, sum] = planes(image, |value| [1.0, value - mean], sigma_px);
    let mut filled = image.clone();
    for ((pixel, &weight), &sum) in filled.iter_mut().zip(&weight).zip(&sum) {
        if !pixel.is_finite() {
            *pixel = (mean + if weight > 1e-9 { sum / weight } else { 0.0 }) as f32;
        }
    }
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
    let Some((mean, std)) = mean_and_std(image).filter(|&(_, std)| std > 0.0) else {
        return Array2::zeros(image.dim());
    };
    // Centring on the frame's mean first keeps E[x²] − E[x]² from cancelling.
    let [weight, sum, square] = planes(
        image,
        |value| {
            let centred = value - mean;
            [1.0, centred, centred * centred]
        },
        sigma_px,
    );
    let floor = std * STD_FLOOR;
    let mut out = image.to_owned();
    for (((pixel, &weight), &sum), &square) in out.iter_mut().zip(&weight).zip(&sum).zip(&square) {
        *pixel = if pixel.is_finite() {
            // A measured pixel counts itself, so its weight is never zero.
            let inverse = 1.0 / weight;
            let local_mean = sum * inverse;
            let variance = square * inverse - local_mean * local_mean;
            ((f64::from(*pixel) - mean - local_mean) / variance.max(floor * floor).sqrt()) as f32
        } else {
            0.0
        };
    }
    out
}

/// Mean and standard deviation of the finite pixels; `None` without any.
fn mean_and_std(image: &Array2<f32>) -> Option<(f64, f64)> {
    let (mut count, mut sum) = (0_usize, 0.0);
    for &value in image {
        if value.is_finite() {
            count += 1;
            sum += f64::from(value);
        }
    }
    if count == 0 {
        return None;
    }
    let mean = sum / count as f64;
    let square: f64 =
        image.iter().filter(|value| value.is_finite()).map(|&value| (f64::from(value) - mean).powi(2)).sum();
    Some((mean, (square / count as f64).sqrt()))
}

/// `N` maps of `terms(pixel)` (0 where not measured), each smoothed by a Gaussian of `sigma_px`, C order.
fn planes<const N: usize>(
    image: &Array2<f32>,
    terms: impl Fn(f64) -> [f64; N],
    sigma_px: f64,
) -> [Vec<f64>; N] {
    let (rows, cols) = image.dim();
    let mut planes = [(); N].map(|()| Vec::with_capacity(rows * cols));
    for &value in image {
        let values = if value.is_finite() { terms(f64::from(value)) } else { [0.0; N] };
        for (plane, value) in planes.iter_mut().zip(values) {
            plane.push(value);
        }
    }
    let half_widths = box_half_widths(sigma_px);
    let mut scratch = vec![0.0; rows * cols];
    for plane in &mut planes {
        for half_width in half_widths {
            box_along_cols(plane, &mut scratch, cols, half_width);
            std::mem::swap(plane, &mut scratch);
            box_along_rows(plane, &mut scratch, [rows, cols], half_width);
            std::mem::swap(plane, &mut scratch);
        }
    }
    planes
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
fn box_along_cols(input: &[f64], output: &mut [f64], cols: usize, half_width: usize) {
    if cols == 0 {
        return;
    }
    // Several rows at a time: their running sums are independent, which hides the latency of the additions.
    const TOGETHER: usize = 8;
    let scale = 1.0 / (2 * half_width + 1) as f64;
    for (input, output) in input.chunks(TOGETHER * cols).zip(output.chunks_mut(TOGETHER * cols)) {
        if input.len() == TOGETHER * cols {
            let rows: [&[f64]; TOGETHER] = std::array::from_fn(|row| &input[row * cols..(row + 1) * cols]);
            let mut output_rows = output.chunks_exact_mut(cols);
            let mut outputs: [&mut [f64]; TOGETHER] =
                std::array::from_fn(|_| output_rows.next().unwrap_or_default());
            running_sums(&rows, &mut outputs, half_width, scale);
        } else {
            for (input, output) in input.chunks_exact(cols).zip(output.chunks_exact_mut(cols)) {
                running_sums(&[input], &mut [output], half_width, scale);
            }
        }
    }
}

fn running_sums<const N: usize>(
    inputs: &[&[f64]; N],
    outputs: &mut [&mut [f64]; N],
    half_width: usize,
    scale: f64,
) {
    let cols = inputs[0].len();
    let mut sums = [0.0; N];
    for (sum, input) in sums.iter_mut().zip(inputs) {
        *sum = input[..half_width.min(cols)].iter().sum();
    }
    for col in 0..cols {
        let entering = col + half_width;
        if entering < cols {
            for (sum, input) in sums.iter_mut().zip(inputs) {
                *sum += input[entering];
            }
        }
        if col > half_width {
            for (sum, input) in sums.iter_mut().zip(inputs) {
                *sum -= input[col - half_width - 1];
            }
        }
        for (sum, output) in sums.iter().zip(outputs.iter_mut()) {
            output[col] = sum * scale;
        }
    }
}

/// Running mean over `2 half_width + 1` rows, a whole row of running sums at a time; outside counts as 0.
fn box_along_rows(input: &[f64], output: &mut [f64], shape: [usize; 2], half_width: usize) {
    let [rows, cols] = shape;
    let scale = 1.0 / (2 * half_width + 1) as f64;
    let row_of = |row: usize| &input[row * cols..(row + 1) * cols];
    let mut sums = vec![0.0; cols];
    for row in 0..half_width.min(rows) {
        for (sum, value) in sums.iter_mut().zip(row_of(row)) {
            *sum += value;
        }
    }
    for row in 0..rows {
        let entering = row + half_width;
        let output = &mut output[row * cols..(row + 1) * cols];
        match (entering < rows, row > half_width) {
            (true, true) => {
                let leaving = row_of(row - half_width - 1);
                for (((sum, output), enters), leaves) in
                    sums.iter_mut().zip(output).zip(row_of(entering)).zip(leaving)
                {
                    *sum += enters - leaves;
                    *output = *sum * scale;
                }
            }
            (true, false) => {
                for ((sum, output), enters) in sums.iter_mut().zip(output).zip(row_of(entering)) {
                    *sum += enters;
                    *output = *sum * scale;
                }
            }
            (false, true) => {
                for ((sum, output), leaves) in sums.iter_mut().zip(output).zip(row_of(row - half_width - 1)) {
                    *sum -= leaves;
                    *output = *sum * scale;
                }
            }
            (false, false) => {
                for (sum, output) in sums.iter().zip(output) {
                    *output = sum * scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Axis;
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
