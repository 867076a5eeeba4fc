//! The profile that all columns of a sublattice share.

/// Heights below this fraction of the peak are left out.
const NEGLIGIBLE: f64 = 1e-4;
/// Pixels of a row that are computed side by side.
const LANES: usize = 8;
/// Width of a tail over that of the core. In a crystal the sum of wider tails is flat, so that a frame tells little of it.
const TAIL_RATIO: f64 = 2.2;

/// A Gaussian core and a wider Gaussian tail of the same shape, height 1:
/// `(1 - tail) exp(-u / 2) + tail exp(-u / (2 ratio²))`, u the squared distance measured by the inverse covariance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Profile {
    /// Inverse covariance of the core `[row–row, row–column, column–column]`, 1/px².
    pub(super) precision: [f64; 3],
    pub(super) tail: f64,
}

impl Profile {
    /// A round profile.
    pub(super) fn round(sigma_px: f64, tail: f64) -> Self {
        let precision = sigma_px.powi(-2);
        Self { precision: [precision, 0.0, precision], tail }
    }

    /// Geometric mean of the core's two standard deviations.
    pub(super) fn sigma_px(&self) -> f64 {
        let [rr, rc, cc] = self.precision;
        (rr * cc - rc * rc).max(f64::MIN_POSITIVE).powf(-0.25)
    }

    /// The Gaussians that it is made of.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let precision = self.precision;
        [(1.0 - self.tail, 1.0), (self.tail, TAIL_RATIO.powi(-2))]
            .into_iter()
            .filter(|(weight, _)| *weight > NEGLIGIBLE)
            .map(move |(weight, narrow)| Part { weight, narrow, precision: precision.map(|p| narrow * p) })
    }
}

/// One of the Gaussians of a profile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Its part of the height.
    pub(super) weight: f64,
    /// The core's variance over its own.
    pub(super) narrow: f64,
    /// Inverse covariance, as the profile's.
    precision: [f64; 3],
}

impl Part {
    /// Inverse variances along its longer and its shorter axis.
    fn axes(&self) -> [f64; 2] {
        let [rr, rc, cc] = self.precision;
        let apart = (0.25 * (rr - cc).powi(2) + rc * rc).sqrt();
        [-1.0, 1.0].map(|sign| (0.5 * (rr + cc) + sign * apart).max(f64::MIN_POSITIVE))
    }

    /// Distance beyond which it is negligible, px.
    pub(super) fn reach_px(&self) -> f64 {
        let [longer, _] = self.axes();
        (-2.0 * (NEGLIGIBLE / self.weight).ln() / longer).max(0.0).sqrt()
    }

    /// Standard deviation along the shorter axis, px.
    pub(super) fn narrowest_px(&self) -> f64 {
        let [_, shorter] = self.axes();
        shorter.powf(-0.5)
    }

    /// Its values, of height 1, along a row at an offset `[row, col]` of its first pixel from the centre, one pixel in `every`: eight
    /// side by side, each from the one eight before it by two products in place of an exponential.
    pub(super) fn along_row(&self, [dr, dc]: [f64; 2], every: usize, row: &mut [f32]) {
        let [rr, rc, cc] = self.precision;
        let every = every as f64;
        let u = rr * dr * dr + 2.0 * rc * dr * dc + cc * dc * dc;
        // u grows along the row by `step` and then by 2 cc every² more each time.
        let step = every * (2.0 * rc * dr + cc * (2.0 * dc + every));
        let (mut value, mut factor) = ((-0.5 * u).exp(), (-0.5 * step).exp());
        let curvature = (-cc * every * every).exp();
        let far = curvature.powi(LANES as i32);
        let mut far_factor = factor.powi(LANES as i32) * curvature.powi((LANES * (LANES - 1) / 2) as i32);
        let (mut values, mut factors) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        for (lane, lane_factor) in values.iter_mut().zip(&mut factors) {
            (*lane, *lane_factor) = (value as f32, far_factor as f32);
            (value, factor, far_factor) = (value * factor, factor * curvature, far_factor * far);
        }
        let far_curvature = curvature.powi((LANES * LANES) as i32) as f32;
        let (blocks, rest) = row.as_chunks_mut::<LANES>();
        for block in blocks {
            *block = values;
            for (value, factor) in values.iter_mut().zip(&mut factors) {
                *value *= *factor;
                *factor *= far_curvature;
            }
        }
        rest.iter_mut().zip(values).for_each(|(pixel, value)| *pixel = value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The profile as its definition has it.
    fn height(Profile { precision: [rr, rc, cc], tail }: &Profile, [dr, dc]: [f64; 2]) -> f64 {
        let u = rr * dr * dr + 2.0 * rc * dr * dc + cc * dc * dc;
        (1.0 - tail) * (-0.5 * u).exp() + tail * (-0.5 * u / TAIL_RATIO.powi(2)).exp()
    }

    #[test]
    fn a_row_is_what_its_pixels_are() {
        let profile = Profile { precision: [0.05, 0.01, 0.03], tail: 0.2 };
        let mut sum = [0.0_f32; 61];
        for part in profile.parts() {
            let mut row = [0.0; 61];
            part.along_row([2.3, -31.4], 1, &mut row);
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += part.weight as f32 * value);
        }
        for (k, sum) in sum.into_iter().enumerate() {
            let height = height(&profile, [2.3, k as f64 - 31.4]);
            assert!((f64::from(sum) - height).abs() < 2e-6, "{k}: {sum} {height}");
        }
        let part = profile.parts().next().unwrap();
        let (mut all, mut third) = ([0.0; 61], [0.0; 21]);
        part.along_row([2.3, -31.4], 1, &mut all);
        part.along_row([2.3, -31.4], 3, &mut third);
        assert!(third.iter().zip(all.iter().step_by(3)).all(|(a, b)| (a - b).abs() < 2e-6));
        assert_eq!(Profile { tail: 0.0, ..profile }.parts().count(), 1);
    }

    #[test]
    fn beyond_its_reach_a_profile_is_negligible() {
        for tail in [0.0, 0.2] {
            let profile = Profile { precision: [0.05, 0.01, 0.03], tail };
            assert!((height(&profile, [0.0, 0.0]) - 1.0).abs() < 1e-15);
            let reach = profile.parts().map(|part| part.reach_px()).fold(0.0, f64::max);
            assert!((0..64).all(|k| {
                let (sin, cos) = (f64::from(k) * 0.1).sin_cos();
                height(&profile, [1.001 * reach * cos, 1.001 * reach * sin]) < 2.0 * NEGLIGIBLE
            }));
        }
    }
}
