//! The profile that all columns of a sublattice share.

/// Heights below this fraction of the peak are left out.
const NEGLIGIBLE: f64 = 1e-4;
/// Bounds of the tail's fraction and of its width over the core's.
pub(super) const TAIL: [f64; 2] = [0.0, 0.6];
pub(super) const RATIO: [f64; 2] = [1.4, 2.6];

/// A Gaussian core and a wider Gaussian tail of the same shape, height 1:
/// `(1 - tail) exp(-u / 2) + tail exp(-u / (2 ratio²))`, u the squared distance measured by the inverse covariance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Profile {
    /// Inverse covariance of the core `[row–row, row–column, column–column]`, 1/px².
    pub(super) precision: [f64; 3],
    pub(super) tail: f64,
    pub(super) ratio: f64,
}

/// A profile at a point, and its derivatives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values {
    pub(super) height: f64,
    /// With respect to the offset from the centre, 1/px.
    pub(super) slope: [f64; 2],
    /// With respect to u.
    pub(super) per_u: f64,
    pub(super) per_tail: f64,
    pub(super) per_ratio: f64,
}

impl Profile {
    /// A round profile without tail.
    pub(super) fn round(sigma_px: f64) -> Self {
        let precision = sigma_px.powi(-2);
        Self { precision: [precision, 0.0, precision], tail: 0.0, ratio: 2.2 }
    }

    /// Geometric mean of the core's two standard deviations.
    pub(super) fn sigma_px(&self) -> f64 {
        let [rr, rc, cc] = self.precision;
        (rr * cc - rc * rc).max(f64::MIN_POSITIVE).powf(-0.25)
    }

    /// Distance beyond which the profile is negligible, px.
    pub(super) fn reach_px(&self) -> f64 {
        let core = -2.0 * NEGLIGIBLE.ln();
        let tail = -2.0 * self.ratio.powi(2) * (NEGLIGIBLE / self.tail.max(NEGLIGIBLE)).ln();
        let [rr, rc, cc] = self.precision;
        // The smaller eigenvalue of the precision belongs to the longer axis.
        let smaller = 0.5 * (rr + cc) - (0.25 * (rr - cc).powi(2) + rc * rc).sqrt();
        (core.max(tail) / smaller.max(f64::MIN_POSITIVE)).sqrt()
    }

    pub(super) fn height(&self, [dr, dc]: [f64; 2]) -> f64 {
        let [rr, rc, cc] = self.precision;
        let u = rr * dr * dr + 2.0 * rc * dr * dc + cc * dc * dc;
        let core = (1.0 - self.tail) * (-0.5 * u).exp();
        if self.tail < NEGLIGIBLE {
            return core;
        }
        core + self.tail * (-0.5 * u / self.ratio.powi(2)).exp()
    }

    pub(super) fn at(&self, [dr, dc]: [f64; 2]) -> Values {
        let [rr, rc, cc] = self.precision;
        let u = rr * dr * dr + 2.0 * rc * dr * dc + cc * dc * dc;
        let square = self.ratio.powi(2);
        let (core, tail) = ((-0.5 * u).exp(), (-0.5 * u / square).exp());
        let per_u = -0.5 * ((1.0 - self.tail) * core + self.tail * tail / square);
        Values {
            height: (1.0 - self.tail) * core + self.tail * tail,
            slope: [2.0 * per_u * (rr * dr + rc * dc), 2.0 * per_u * (rc * dr + cc * dc)],
            per_u,
            per_tail: tail - core,
            per_ratio: self.tail * tail * u / (square * self.ratio),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_are_those_of_the_height() {
        let profile = Profile { precision: [0.05, 0.01, 0.03], tail: 0.2, ratio: 2.2 };
        let at = [2.3, -3.1];
        let values = profile.at(at);
        assert!((values.height - profile.height(at)).abs() < 1e-15);
        let numeric = |step: &dyn Fn(f64) -> f64| (step(1e-6) - step(-1e-6)) / 2e-6;
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-8, "{a} {b}");
        close(values.slope[0], numeric(&|h| profile.height([at[0] + h, at[1]])));
        close(values.slope[1], numeric(&|h| profile.height([at[0], at[1] + h])));
        close(values.per_tail, numeric(&|h| Profile { tail: 0.2 + h, ..profile }.height(at)));
        close(values.per_ratio, numeric(&|h| Profile { ratio: 2.2 + h, ..profile }.height(at)));
        let [rr, rc, cc] = profile.precision;
        let by_row = numeric(&|h| Profile { precision: [rr + h, rc, cc], ..profile }.height(at));
        close(values.per_u * at[0] * at[0], by_row);
        let reach = profile.reach_px();
        assert!((0..64).all(|k| {
            let (sin, cos) = (f64::from(k) * 0.1).sin_cos();
            profile.height([1.001 * reach * cos, 1.001 * reach * sin]) < 2.0 * NEGLIGIBLE
        }));
    }
}
