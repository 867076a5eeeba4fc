//! From expected counts to pixel values.

use super::microscope::{Afterglow, Detector, LostAs, Microscope, PixelType};
use super::poisson::poisson;
use super::scan_field::ScanField;
use bytes::Bytes;
use ferrostem_proto::{ArrayError, ByteOrder, Dtype, PixelArray};
use ndarray::Array2;
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

/// Replaces the counts expected from the specimen by what the detector delivers. Returns where it saturated, `[row, col]`;
/// `None` for one that never does.
///
/// In the order of the signal: current of the probe, dark counts, shot noise, afterglow, gain, read noise, saturation, offset;
/// then lines are lost, what is left is smoothed, and pixels become what their type can hold.
pub(super) fn detect(
    pixels: &mut Array2<f32>,
    field: &ScanField,
    microscope: &Microscope,
    rng: &mut impl Rng,
) -> Option<Array2<bool>> {
    let detector = &microscope.detector;
    let full = detector.full_well_counts.map(|counts| (detector.gain * counts) as f32);
    let mut saturated = full.map(|_| Array2::from_elem(pixels.dim(), false));
    let mut glow = Glow::new(detector.afterglow, microscope);
    for (row, mut line) in pixels.rows_mut().into_iter().enumerate() {
        let Some(line) = line.as_slice_mut() else { continue };
        expose(line, field.current.get(row).copied().unwrap_or(1.0), microscope, rng);
        glow.add(line);
        amplify(line, detector, rng);
        if let (Some(full), Some(saturated)) = (full, &mut saturated) {
            for (value, saturated) in line.iter_mut().zip(saturated.row_mut(row)) {
                *saturated = *value >= full;
                *value = value.min(full);
            }
        }
        line.iter_mut().for_each(|value| *value += detector.offset as f32);
    }
    lose_lines(pixels, field, microscope.distortions.lost_lines.shown_as);
    if detector.smoothing_px > 0.0 {
        smooth(pixels, detector.smoothing_px);
    }
    digitise(pixels, detector.pixel_type);
    saturated
}

/// Counts of a line; expectations where there is no shot noise.
fn expose(line: &mut [f32], current: f32, microscope: &Microscope, rng: &mut impl Rng) {
    let dark = microscope.dark_counts as f32;
    line.iter_mut().for_each(|value| *value = *value * current + dark);
    if microscope.shot_noise {
        line.iter_mut().for_each(|value| *value = poisson(f64::from(*value), rng) as f32);
    }
}

fn amplify(line: &mut [f32], detector: &Detector, rng: &mut impl Rng) {
    let (gain, read_noise) = (detector.gain as f32, detector.read_noise as f32);
    if read_noise > 0.0 {
        line.iter_mut()
            .for_each(|value| *value = gain * *value + read_noise * rng.sample::<f32, _>(StandardNormal));
    } else if detector.gain != 1.0 {
        line.iter_mut().for_each(|value| *value *= gain);
    }
}

/// The scintillator's late light.
struct Glow {
    fraction: f32,
    /// What is left of it after a pixel, and after the flight back.
    per_pixel: f32,
    per_flyback: f32,
    /// What it would yield in an infinite time, over `fraction`.
    stored: f32,
}

impl Glow {
    fn new(Afterglow { fraction, decay_us }: Afterglow, microscope: &Microscope) -> Self {
        let after = |us: f64| (-us / decay_us).exp() as f32;
        let (per_pixel, per_flyback) = (after(microscope.dwell_us), after(microscope.line_overhead_us));
        Self { fraction: fraction as f32, per_pixel, per_flyback, stored: 0.0 }
    }

    fn add(&mut self, line: &mut [f32]) {
        if self.fraction == 0.0 {
            return;
        }
        for value in line.iter_mut() {
            // What a pixel stores begins to glow within its own dwell time.
            let stored = self.stored + *value;
            let glows = (1.0 - self.per_pixel) * stored;
            *value = (1.0 - self.fraction) * *value + self.fraction * glows;
            self.stored = stored - glows;
        }
        self.stored *= self.per_flyback;
    }
}

fn lose_lines(pixels: &mut Array2<f32>, field: &ScanField, shown_as: LostAs) {
    for &row in &field.lost {
        let before = pixels.row(row.saturating_sub(1)).to_owned();
        match shown_as {
            LostAs::Blank => pixels.row_mut(row).fill(0.0),
            LostAs::Repeated => pixels.row_mut(row).assign(&before),
        }
    }
}

/// Convolves with a Gaussian along both axes; pixels beyond the edge repeat it.
pub(super) fn smooth(pixels: &mut Array2<f32>, sigma_px: f64) {
    let [rows, cols] = [pixels.nrows(), pixels.ncols()];
    if rows == 0 || cols == 0 {
        return;
    }
    let reach = (4.0 * sigma_px).ceil() as usize;
    let offsets = (0..=2 * reach).map(|k| k as f64 - reach as f64);
    let kernel: Vec<f64> = offsets.map(|k| (-0.5 * (k / sigma_px).powi(2)).exp()).collect();
    let sum: f64 = kernel.iter().sum();
    let kernel: Vec<f32> = kernel.iter().map(|w| (w / sum) as f32).collect();
    // Line upon line, so that sums run over pixels side by side.
    let add = |to: &mut [f32], from: &[f32], weight: f32| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += weight * from);
    };
    let mut padded = vec![0.0; cols + 2 * reach];
    for mut line in pixels.rows_mut() {
        for (k, value) in padded.iter_mut().enumerate() {
            *value = line[k.saturating_sub(reach).min(cols - 1)];
        }
        line.fill(0.0);
        if let Some(line) = line.as_slice_mut() {
            kernel.iter().enumerate().for_each(|(k, weight)| add(line, &padded[k..], *weight));
        }
    }
    let source = pixels.clone();
    for (row, mut line) in pixels.rows_mut().into_iter().enumerate() {
        line.fill(0.0);
        for (k, weight) in kernel.iter().enumerate() {
            let from = source.row((row + k).saturating_sub(reach).min(rows - 1));
            if let (Some(line), Some(from)) = (line.as_slice_mut(), from.as_slice()) {
                add(line, from, *weight);
            }
        }
    }
}

/// Rounds and clips to the values of an integer type.
fn digitise(pixels: &mut Array2<f32>, pixel_type: PixelType) {
    let most = match pixel_type {
        PixelType::U8 => f32::from(u8::MAX),
        PixelType::U16 => f32::from(u16::MAX),
        PixelType::F32 => return,
    };
    pixels.mapv_inplace(|value| value.round().clamp(0.0, most));
}

/// The pixel values as the detector's element type, little-endian.
pub(super) fn pixel_array(pixels: &Array2<f32>, pixel_type: PixelType) -> Result<PixelArray, ArrayError> {
    let shape = [pixels.nrows(), pixels.ncols()];
    let (dtype, bytes): (Dtype, Vec<u8>) = match pixel_type {
        // `as` rounds toward zero and clips to the type's range.
        PixelType::U8 => (Dtype::U8, pixels.iter().map(|v| v.round() as u8).collect()),
        PixelType::U16 => {
            (Dtype::U16, pixels.iter().flat_map(|v| (v.round() as u16).to_le_bytes()).collect())
        }
        PixelType::F32 => (Dtype::F32, pixels.iter().flat_map(|v| v.to_le_bytes()).collect()),
    };
    PixelArray::new(dtype, ByteOrder::Little, shape, Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn scope(detector: Detector) -> Microscope {
        Microscope { shot_noise: false, detector, ..Microscope::default() }
    }

    fn detected(expected: &Array2<f32>, microscope: &Microscope) -> (Array2<f32>, Option<Array2<bool>>) {
        let mut pixels = expected.clone();
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let saturated = detect(&mut pixels, &ScanField::default(), microscope, &mut rng);
        (pixels, saturated)
    }

    #[test]
    fn pixels_are_counts_times_gain_plus_offset_with_read_noise() {
        let expected = Array2::from_elem((200, 200), 100.0);
        let counting = Detector { gain: 2.5, offset: -40.0, ..Detector::default() };
        let dark = Microscope { dark_counts: 20.0, ..scope(counting.clone()) };
        assert!(detected(&expected, &dark).0.iter().all(|v| *v == 2.5 * 120.0 - 40.0));
        let noisy = Microscope { shot_noise: true, ..scope(Detector { read_noise: 6.0, ..counting }) };
        let (pixels, saturated) = detected(&expected, &noisy);
        let mean = pixels.mean().unwrap();
        let variance = pixels.iter().map(|v| f64::from(v - mean).powi(2)).sum::<f64>() / 4e4;
        // 2.5² × 100 counts of variance, and 6² of read noise; 40 000 pixels.
        assert!((mean - 210.0).abs() < 5.0 * 25.7 / 200.0, "{mean}");
        assert!((variance - 661.0).abs() < 5.0 * 661.0 * (2.0f64 / 4e4).sqrt(), "{variance}");
        assert!(saturated.is_none());
    }

    #[test]
    fn a_full_well_clips_and_marks() {
        let expected = Array2::from_shape_vec((1, 4), vec![10.0, 49.9, 50.0, 3e5]).unwrap();
        let detector =
            Detector { gain: 2.0, offset: 7.0, full_well_counts: Some(50.0), ..Detector::default() };
        let (pixels, saturated) = detected(&expected, &scope(detector.clone()));
        assert_eq!(pixels.as_slice().unwrap(), [27.0, 106.8, 107.0, 107.0]);
        assert_eq!(saturated.unwrap().as_slice().unwrap(), [false, false, true, true]);
        // Noise does not reach above it.
        let noisy = scope(Detector { read_noise: 10.0, ..detector });
        let (pixels, saturated) = detected(&Array2::from_elem((50, 50), 48.0), &noisy);
        let saturated = saturated.unwrap();
        for (value, saturated) in pixels.iter().zip(&saturated) {
            assert_eq!(*value >= 107.0, *saturated);
            assert!(*value <= 107.0);
        }
        // 4 below, with noise of 10: a third of them.
        let share = saturated.iter().filter(|s| **s).count() as f64 / 2500.0;
        assert!((share - 0.345).abs() < 0.05, "{share}");
    }

    #[test]
    fn afterglow_decays_with_its_time_constant_and_keeps_the_mean() {
        let mut expected = Array2::zeros((2, 60));
        expected[[0, 10]] = 1000.0;
        expected[[0, 59]] = 1000.0;
        let afterglow = Afterglow { fraction: 0.3, decay_us: 6.0 };
        let microscope = Microscope {
            dwell_us: 2.0,
            line_overhead_us: 12.0,
            ..scope(Detector { afterglow, ..Detector::default() })
        };
        let (pixels, _) = detected(&expected, &microscope);
        assert!(pixels.iter().take(10).all(|v| *v == 0.0));
        // The column itself: 0.7 at once, and of the 0.3 what glows within its dwell time of 2 of 6 µs.
        let decay = (-1.0f32 / 3.0).exp();
        assert!((pixels[[0, 10]] - (700.0 + 300.0 * (1.0 - decay))).abs() < 1e-3);
        for k in 1..20 {
            let expected = 300.0 * (1.0 - decay) * decay.powi(k);
            assert!((pixels[[0, 10 + k as usize]] - expected).abs() < 1e-3, "{k}");
        }
        // Into the next line: 12 µs, two time constants, are lost.
        let next = 300.0 * (1.0 - decay) * decay * (-2.0f32).exp();
        assert!((pixels[[1, 0]] - next).abs() < 1e-2, "{} {next}", pixels[[1, 0]]);
        let even = Array2::from_elem((3, 200), 50.0);
        let steady = Microscope { line_overhead_us: 0.0, ..microscope };
        assert!(detected(&even, &steady).0.iter().skip(100).all(|v| (v - 50.0).abs() < 1e-3));
    }

    #[test]
    fn lost_lines_are_blank_or_repeat_the_line_before() {
        let expected = Array2::from_shape_fn((6, 3), |(row, _)| row as f32 + 1.0);
        let field = ScanField { lost: vec![2, 4, 5], ..ScanField::default() };
        for (shown_as, rows) in [
            (LostAs::Blank, [11.0, 12.0, 0.0, 14.0, 0.0, 0.0]),
            (LostAs::Repeated, [11.0, 12.0, 12.0, 14.0, 14.0, 14.0]),
        ] {
            let mut microscope = scope(Detector { offset: 10.0, ..Detector::default() });
            microscope.distortions.lost_lines.shown_as = shown_as;
            let mut pixels = expected.clone();
            detect(&mut pixels, &field, &microscope, &mut ChaCha8Rng::seed_from_u64(1));
            for (row, value) in rows.into_iter().enumerate() {
                assert!(pixels.row(row).iter().all(|v| *v == value), "{row}");
            }
        }
    }

    #[test]
    fn the_current_scales_what_the_beam_gives_and_not_the_dark() {
        let field = ScanField { current: vec![1.2, 0.5], ..ScanField::default() };
        let microscope = Microscope { dark_counts: 3.0, ..scope(Detector::default()) };
        let mut pixels = Array2::from_elem((2, 2), 10.0);
        detect(&mut pixels, &field, &microscope, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(pixels.as_slice().unwrap(), [15.0, 15.0, 8.0, 8.0]);
    }

    #[test]
    fn smoothing_keeps_the_sum_and_spreads_a_point_as_a_gaussian() {
        let mut pixels = Array2::zeros((41, 31));
        pixels[[20, 15]] = 1000.0;
        smooth(&mut pixels, 1.5);
        assert!((pixels.sum() - 1000.0).abs() < 1e-2);
        // 1000 / (2π · 1.5²) in the middle; by e^(-½ · (2² + 1²) / 1.5²) less two rows down and one column right.
        let middle = 1000.0 / (std::f32::consts::TAU * 2.25);
        assert!((pixels[[20, 15]] - middle).abs() < 0.1, "{}", pixels[[20, 15]]);
        assert!((pixels[[22, 16]] - middle * (-5.0f32 / 4.5).exp()).abs() < 0.1);
        let mut flat = Array2::from_elem((16, 16), 3.0);
        smooth(&mut flat, 3.0);
        assert!(flat.iter().all(|v| (v - 3.0f32).abs() < 1e-5));
    }

    #[test]
    fn frames_hold_what_their_pixels_can() {
        let expected = Array2::from_shape_vec((1, 4), vec![0.2, 1.5, 254.6, 7e4]).unwrap();
        for (pixel_type, values) in [
            (PixelType::U8, [0.0, 0.0, 253.0, 255.0]),
            (PixelType::U16, [0.0, 0.0, 253.0, 65535.0]),
            (PixelType::F32, [-1.3, 0.0, 253.1, 69998.5]),
        ] {
            let microscope = scope(Detector { offset: -1.5, pixel_type, ..Detector::default() });
            let (pixels, _) = detected(&expected, &microscope);
            for (pixel, value) in pixels.iter().zip(values) {
                assert!((pixel - value).abs() < 1e-4, "{pixel_type:?}: {pixel} {value}");
            }
        }
    }

    #[test]
    fn integer_pixels_are_rounded_and_clipped() {
        let pixels = Array2::from_shape_vec((1, 4), vec![-3.0, 1.5, 254.6, 7e4]).unwrap();
        assert_eq!(pixel_array(&pixels, PixelType::U8).unwrap().to_f32(), [0.0, 2.0, 255.0, 255.0]);
        assert_eq!(pixel_array(&pixels, PixelType::U16).unwrap().to_f32(), [0.0, 2.0, 255.0, 65535.0]);
        assert_eq!(pixel_array(&pixels, PixelType::F32).unwrap().to_f32(), [-3.0, 1.5, 254.6, 7e4]);
    }
}
