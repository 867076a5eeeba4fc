//! From expected counts to pixel values.

use super::microscope::{Detector, Microscope, PixelType};
use bytes::Bytes;
use ferrostem_proto::{ArrayError, ByteOrder, Dtype, PixelArray};
use ndarray::{Array2, Axis};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, Poisson, StandardNormal};

/// Above this mean, Poisson counts are drawn from a normal variable with the Poisson's variance and skewness.
const NORMAL_ABOVE_COUNTS: f64 = 40.0;

/// Replaces expected counts by what the detector delivers.
pub(super) fn detect(expected: &mut Array2<f32>, microscope: &Microscope, rng: &mut impl Rng) {
    let Detector { gain, offset, read_noise, .. } = microscope.detector;
    for value in expected.iter_mut() {
        let mean = f64::from(*value);
        let counts = if microscope.shot_noise { electrons(mean, rng) } else { mean };
        let read = if read_noise > 0.0 { read_noise * rng.sample::<f64, _>(StandardNormal) } else { 0.0 };
        *value = (gain * counts + offset + read) as f32;
    }
    if microscope.detector.smoothing_px > 0.0 {
        smooth(expected, microscope.detector.smoothing_px);
    }
}

/// Convolves with a Gaussian along both axes; pixels beyond the edge repeat it.
pub(super) fn smooth(pixels: &mut Array2<f32>, sigma_px: f64) {
    let reach = (4.0 * sigma_px).ceil() as usize;
    let offsets = (0..=2 * reach).map(|k| k as f64 - reach as f64);
    let kernel: Vec<f64> = offsets.map(|k| (-0.5 * (k / sigma_px).powi(2)).exp()).collect();
    let sum: f64 = kernel.iter().sum();
    let kernel: Vec<f32> = kernel.iter().map(|w| (w / sum) as f32).collect();
    for axis in [Axis(0), Axis(1)] {
        for mut lane in pixels.lanes_mut(axis) {
            let Some(last) = lane.len().checked_sub(1) else { continue };
            let padded: Vec<f32> =
                (0..lane.len() + 2 * reach).map(|k| lane[k.saturating_sub(reach).min(last)]).collect();
            for (value, window) in lane.iter_mut().zip(padded.windows(kernel.len())) {
                *value = window.iter().zip(&kernel).map(|(v, w)| v * w).sum();
            }
        }
    }
}

/// A Poisson variable of the given mean; 0 where the mean is not above 0.
fn electrons(mean: f64, rng: &mut impl Rng) -> f64 {
    if mean > NORMAL_ABOVE_COUNTS {
        // Cornish–Fisher: the term z² - 1 gives the Poisson's skewness.
        let z: f64 = rng.sample(StandardNormal);
        return (mean + mean.sqrt() * z + (z * z - 1.0) / 6.0).round().max(0.0);
    }
    Poisson::new(mean).map_or(0.0, |poisson| poisson.sample(rng))
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

    #[test]
    fn counts_have_the_poisson_mean_variance_and_skewness() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for mean in [0.3, 5.0, 39.0, 41.0, 800.0] {
            let n = 200_000;
            let counts: Vec<f64> = (0..n).map(|_| electrons(mean, &mut rng)).collect();
            let average = counts.iter().sum::<f64>() / n as f64;
            let moment = |k: i32| counts.iter().map(|c| (c - average).powi(k)).sum::<f64>() / n as f64;
            let variance = moment(2);
            assert!((average - mean).abs() < 5.0 * (mean / n as f64).sqrt(), "mean {mean}: {average}");
            assert!((variance / mean - 1.0).abs() < 0.03, "mean {mean}: variance {variance}");
            let skewness = moment(3) / variance.powf(1.5);
            assert!((skewness - mean.powf(-0.5)).abs() < 0.06, "mean {mean}: skewness {skewness}");
            assert!(counts.iter().all(|c| *c >= 0.0 && c.fract() == 0.0));
        }
        assert_eq!(electrons(0.0, &mut rng), 0.0);
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
    fn integer_pixels_are_rounded_and_clipped() {
        let pixels = Array2::from_shape_vec((1, 4), vec![-3.0, 1.5, 254.6, 7e4]).unwrap();
        assert_eq!(pixel_array(&pixels, PixelType::U8).unwrap().to_f32(), [0.0, 2.0, 255.0, 255.0]);
        assert_eq!(pixel_array(&pixels, PixelType::U16).unwrap().to_f32(), [0.0, 2.0, 255.0, 65535.0]);
        assert_eq!(pixel_array(&pixels, PixelType::F32).unwrap().to_f32(), [-3.0, 1.5, 254.6, 7e4]);
    }
}
