//! Which pixels were measured: NaN, rows that were never scanned, and the padding that drift correction leaves.
//!
//! Features: constant padding of any outline is found from the border inwards; what does not hang together with the
//! border is never touched.
//! Assumptions: padding has one exact value along each stretch, in runs too long to be chance.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use std::ops::Range;

/// Runs shorter than this are never padding.
const MIN_RUN_PX: usize = 8;

/// Expected number of false runs in a frame.
const FALSE_RUNS: f64 = 1e-6;

/// True where `pixels` holds a measurement.
///
/// Masked are non-finite pixels, rows outside `valid_rows`, and padding: pixels of one exact value, connected with
/// the frame's border (four neighbours), each part of a horizontal or vertical run of that value which is too long to
/// be chance. How long that is follows from how common the value is: a fraction `f` of the frame's pixels makes a run of
/// `n` with odds of about `f^n`; because equal values cluster (the zeros between columns at a few counts), the square
/// root of `f` is taken instead. So a float image needs runs of 8 px, whereas at a dose where half of all pixels are
/// zero it takes 76, and Poisson zeros stay.
///
/// # Shapes
/// `[row, col]` → the same.
pub fn measured_pixels(pixels: &Array2<f32>, valid_rows: &Range<usize>) -> Array2<bool> {
    let rows = pixels.nrows();
    let (from, to) = (valid_rows.start.min(rows), valid_rows.end.min(rows));
    let mut valid = Array2::from_elem(pixels.dim(), false);
    if from >= to {
        return valid;
    }
    let scanned = pixels.slice_axis(Axis(0), (from..to).into());
    let mut scanned_valid = valid.slice_axis_mut(Axis(0), (from..to).into());
    scanned_valid.zip_mut_with(&scanned, |valid, pixel| *valid = pixel.is_finite());
    for value in border_values(scanned) {
        mask_padding(scanned, value, &mut scanned_valid);
    }
    valid
}

/// The values that may be padding: those with a run of [`MIN_RUN_PX`] along the border or from it inwards.
fn border_values(pixels: ArrayView2<'_, f32>) -> Vec<f32> {
    let (rows, cols) = pixels.dim();
    let mut values: Vec<f32> = Vec::new();
    if rows == 0 || cols == 0 {
        return values;
    }
    let mut add = |value: f32| {
        if value.is_finite() && !values.contains(&value) {
            values.push(value);
        }
    };
    for line in [pixels.row(0), pixels.row(rows - 1), pixels.column(0), pixels.column(cols - 1)] {
        let line = line.to_vec();
        line.chunk_by(|a, b| a == b).filter(|run| run.len() >= MIN_RUN_PX).for_each(|run| add(run[0]));
    }
    for (lines, length) in [(pixels.rows(), cols), (pixels.columns(), rows)] {
        if length < MIN_RUN_PX {
            continue;
        }
        for line in lines {
            let (first, last) = (line[0], line[length - 1]);
            if line.iter().take(MIN_RUN_PX).all(|&v| v == first) {
                add(first);
            }
            if line.iter().rev().take(MIN_RUN_PX).all(|&v| v == last) {
                add(last);
            }
        }
    }
    values
}

/// Masks the padding of `value`. How common the value is in the picture itself shows only once the padding is known, so
/// this repeats until nothing is added.
fn mask_padding(pixels: ArrayView2<'_, f32>, value: f32, valid: &mut ArrayViewMut2<'_, bool>) {
    let occurrences = pixels.iter().filter(|&&v| v == value).count();
    let mut masked = 0;
    loop {
        let picture = (pixels.len() - masked) as f64;
        let fraction = (occurrences - masked) as f64 / picture.max(1.0);
        let added = mask_runs(pixels, value, longest_by_chance(fraction, pixels.len()), valid);
        masked += added;
        if added == 0 {
            return;
        }
    }
}

/// Length at which runs of a value that makes up `fraction` of the picture are no chance any more.
fn longest_by_chance(fraction: f64, pixels: usize) -> usize {
    if fraction >= 1.0 {
        return MIN_RUN_PX;
    }
    let length = (FALSE_RUNS / pixels as f64).ln() / fraction.sqrt().ln();
    (length.ceil() as usize).max(MIN_RUN_PX)
}

/// Masks the pixels of runs of `value` of at least `needed` px that hang together with the border; says how many it added.
fn mask_runs(
    pixels: ArrayView2<'_, f32>,
    value: f32,
    needed: usize,
    valid: &mut ArrayViewMut2<'_, bool>,
) -> usize {
    let (rows, cols) = pixels.dim();
    let mut solid = Array2::from_elem((rows, cols), false);
    // Row by row for both directions: the pixels of a column are far apart in memory.
    let mut column_starts = vec![0; cols];
    for (row, line) in pixels.rows().into_iter().enumerate() {
        let mut row_start = 0;
        for (col, (&pixel, column_start)) in line.iter().zip(&mut column_starts).enumerate() {
            if pixel == value {
                continue;
            }
            if col - row_start >= needed {
                (row_start..col).for_each(|col| solid[[row, col]] = true);
            }
            if row - *column_start >= needed {
                (*column_start..row).for_each(|row| solid[[row, col]] = true);
            }
            row_start = col + 1;
            *column_start = row + 1;
        }
        if cols - row_start >= needed {
            (row_start..cols).for_each(|col| solid[[row, col]] = true);
        }
    }
    for (col, &start) in column_starts.iter().enumerate() {
        if rows - start >= needed {
            (start..rows).for_each(|row| solid[[row, col]] = true);
        }
    }

    let mut open: Vec<[usize; 2]> = (0..cols)
        .flat_map(|col| [[0, col], [rows - 1, col]])
        .chain((0..rows).flat_map(|row| [[row, 0], [row, cols - 1]]))
        .collect();
    let mut added = 0;
    while let Some([row, col]) = open.pop() {
        if !std::mem::replace(&mut solid[[row, col]], false) {
            continue;
        }
        added += usize::from(std::mem::replace(&mut valid[[row, col]], false));
        if row > 0 {
            open.push([row - 1, col]);
        }
        if col > 0 {
            open.push([row, col - 1]);
        }
        if row + 1 < rows {
            open.push([row + 1, col]);
        }
        if col + 1 < cols {
            open.push([row, col + 1]);
        }
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Poisson};

    fn noise(rows: usize, cols: usize) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        Array2::from_shape_fn((rows, cols), |_| rng.random::<f32>())
    }

    fn masked(valid: &Array2<bool>) -> usize {
        valid.iter().filter(|&&valid| !valid).count()
    }

    #[test]
    fn staircase_padding_goes_and_nothing_else() {
        // A sheared scan: every other row starts one pixel later, up to 30 px; below, four constant rows.
        let mut image = noise(64, 80);
        let padded = |row: usize, col: usize| col < row / 2 || row >= 60;
        for ((row, col), pixel) in image.indexed_iter_mut() {
            if padded(row, col) {
                *pixel = 0.0;
            }
        }
        let valid = measured_pixels(&image, &(0..64));
        for ((row, col), &valid) in valid.indexed_iter() {
            assert_eq!(valid, !padded(row, col), "{row} {col}");
        }
    }

    #[test]
    fn one_constant_column_is_enough() {
        let mut image = noise(40, 40);
        image.column_mut(39).fill(7.0);
        assert_eq!(masked(&measured_pixels(&image, &(0..40))), 40);
    }

    #[test]
    fn constant_interior_stays() {
        let mut image = noise(60, 60);
        for row in 10..50 {
            for col in 10..50 {
                image[[row, col]] = 0.0;
            }
        }
        assert_eq!(masked(&measured_pixels(&image, &(0..60))), 0);
    }

    #[test]
    fn nan_and_unscanned_rows_are_not_measured() {
        let mut image = noise(10, 10);
        image[[4, 4]] = f32::NAN;
        image[[5, 4]] = f32::INFINITY;
        assert_eq!(masked(&measured_pixels(&image, &(0..7))), 32);
    }

    #[test]
    fn poisson_zeros_stay() {
        // Columns of 5 and 1 counts at the peak over a background of a twentieth: most pixels are 0, also at the border.
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        for peak_counts in [5.0, 1.0] {
            let image = Array2::from_shape_fn((256, 256), |(row, col)| {
                let wave = |x: usize| (std::f64::consts::PI * x as f64 / 13.0).cos().powi(2);
                let mean = peak_counts * (0.05 + wave(row).powi(3) * wave(col).powi(3));
                Poisson::new(mean).unwrap().sample(&mut rng) as f32
            });
            assert!(image.iter().filter(|&&v| v == 0.0).count() > 256 * 128);
            assert_eq!(masked(&measured_pixels(&image, &(0..256))), 0, "{peak_counts} counts");
        }
    }

    #[test]
    fn padding_of_a_low_dose_frame_goes() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let poisson = Poisson::new(1.0).unwrap();
        let image =
            Array2::from_shape_fn(
                (200, 200),
                |(_, col)| {
                    if col < 20 { 0.0 } else { poisson.sample(&mut rng) as f32 }
                },
            );
        let valid = measured_pixels(&image, &(0..200));
        // A zero beside the padding may be taken for padding; no more than that.
        assert!((4000..4300).contains(&masked(&valid)), "{}", masked(&valid));
        assert!(valid.columns().into_iter().take(20).flatten().all(|&valid| !valid));
    }

    #[test]
    fn a_constant_frame_holds_nothing() {
        assert_eq!(masked(&measured_pixels(&Array2::from_elem((20, 30), 1.0), &(0..20))), 600);
        assert_eq!(measured_pixels(&Array2::zeros((0, 4)), &(0..0)).len(), 0);
    }
}
