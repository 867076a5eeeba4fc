//! The profile that all columns of a sublattice share.

/// Heights below this fraction of the peak are left out.
const NEGLIGIBLE: f64 = 1e-4;
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

    /// Distance beyond which the profile is negligible, px.
    pub(super) fn reach_px(&self) -> f64 {
        let core = -2.0 * NEGLIGIBLE.ln();
        let tail = -2.0 * TAIL_RATIO.powi(2) * (NEGLIGIBLE / self.tail.max(NEGLIGIBLE)).ln();
        let [rr, rc, cc] = self.precision;
        // The smaller eigenvalue of the precision belongs to the longer axis.
        let smaller = 0.5 * (rr + cc) - (0.25 * (rr - cc).powi(2) + rc * rc).sqrt();
        (core.max(tail) / smaller.max(f64::MIN_POSITIVE)).sqrt()
    }

    /// Squared distance over the core's variance, at an offset `[row, col]` from the centre.
    pub(super) fn u(&self, [dr, dc]: [f64; 2]) -> f64 {
        let [rr, rc, cc] = self.precision;
        rr * dr * dr + 2.0 * rc * dr * dc + cc * dc * dc
    }

    pub(super) fn height_and_per_u(&self, u: f64) -> (f64, f64) {
        const SQUARE: f64 = TAIL_RATIO * TAIL_RATIO;
        let core = (1.0 - self.tail) * (-0.5 * u).exp();
        if self.tail < NEGLIGIBLE {
            return (core, -0.5 * core);
        }
        let tail = self.tail * (-0.5 * u / SQUARE).exp();
        (core + tail, -0.5 * (core + tail / SQUARE))
    }

    /// The Gaussians that it is made of, each with its part of the height, the core's variance over its own, and its values along a row from `first` on.
    pub(super) fn along_row(&self, first: [f64; 2]) -> impl Iterator<Item = (f64, f64, Row)> + use<> {
        let [_, rc, cc] = self.precision;
        let u = self.u(first);
        // u grows along the row by `step` and then by 2 cc more each time.
        let step = 2.0 * rc * first[0] + cc * (2.0 * first[1] + 1.0);
        let parts = [(1.0 - self.tail, 1.0), (self.tail, TAIL_RATIO.powi(-2))];
        parts.into_iter().filter(|(part, _)| *part > NEGLIGIBLE).map(move |(part, narrow)| {
            let of = |u: f64| (-0.5 * narrow * u).exp();
            (part, narrow, Row { value: of(u), factor: of(step), curvature: of(2.0 * cc) })
        })
    }

    /// Height, and its derivative with respect to the offset, 1/px.
    pub(super) fn height_and_slope(&self, [dr, dc]: [f64; 2]) -> (f64, [f64; 2]) {
        let [rr, rc, cc] = self.precision;
        let (height, per_u) = self.height_and_per_u(self.u([dr, dc]));
        (height, [2.0 * per_u * (rr * dr + rc * dc), 2.0 * per_u * (rc * dr + cc * dc)])
    }
}

/// A Gaussian along a row: two products a pixel in place of an exponential.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    value: f64,
    factor: f64,
    curvature: f64,
}

impl Iterator for Row {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let value = self.value;
        self.value *= self.factor;
        self.factor *= self.curvature;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_what_its_pixels_are() {
        let profile = Profile { precision: [0.05, 0.01, 0.03], tail: 0.2 };
        let rows: Vec<(f64, f64, Row)> = profile.along_row([2.3, -31.4]).collect();
        assert_eq!(rows.len(), 2);
        for k in 0..60 {
            let sum: f64 = rows.iter().map(|&(part, _, mut row)| part * row.nth(k).unwrap()).sum();
            let (height, _) = profile.height_and_slope([2.3, k as f64 - 31.4]);
            assert!((sum - height).abs() < 1e-12, "{k}: {sum} {height}");
        }
        assert_eq!(Profile { tail: 0.0, ..profile }.along_row([0.0, 0.0]).count(), 1);
    }

    #[test]
    fn derivatives_are_those_of_the_height() {
        for tail in [0.0, 0.2] {
            let profile = Profile { precision: [0.05, 0.01, 0.03], tail };
            let at = [2.3, -3.1];
            let height = |profile: Profile, at| profile.height_and_slope(at).0;
            let numeric = |step: &dyn Fn(f64) -> f64| (step(1e-6) - step(-1e-6)) / 2e-6;
            let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-8, "{a} {b}");
            let (_, slope) = profile.height_and_slope(at);
            close(slope[0], numeric(&|h| height(profile, [at[0] + h, at[1]])));
            close(slope[1], numeric(&|h| height(profile, [at[0], at[1] + h])));
            let [rr, rc, cc] = profile.precision;
            let by_row = numeric(&|h| height(Profile { precision: [rr + h, rc, cc], tail }, at));
            close(profile.height_and_per_u(profile.u(at)).1 * at[0] * at[0], by_row);
            assert!((height(profile, [0.0, 0.0]) - 1.0).abs() < 1e-15);
            let reach = profile.reach_px();
            assert!((0..64).all(|k| {
                let (sin, cos) = (f64::from(k) * 0.1).sin_cos();
                height(profile, [1.001 * reach * cos, 1.001 * reach * sin]) < 2.0 * NEGLIGIBLE
            }));
        }
    }
}
