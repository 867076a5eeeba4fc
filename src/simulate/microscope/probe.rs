//! What the probe makes of a point.

use super::Microscope;
use super::turned;

/// The matrix Σ of a Gaussian, in the square of some length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::simulate) struct Covariance {
    pub xx: f64,
    pub xy: f64,
    pub yy: f64,
}

impl Covariance {
    pub fn round(sigma: f64) -> Self {
        Self { xx: sigma * sigma, xy: 0.0, yy: sigma * sigma }
    }

    /// What a spread of `[x, y]` along that direction adds, one standard deviation long.
    pub fn along([x, y]: [f64; 2]) -> Self {
        Self { xx: x * x, xy: x * y, yy: y * y }
    }

    pub fn plus(self, other: Self) -> Self {
        Self { xx: self.xx + other.xx, xy: self.xy + other.xy, yy: self.yy + other.yy }
    }

    pub fn scaled(self, factor: f64) -> Self {
        Self { xx: self.xx * factor, xy: self.xy * factor, yy: self.yy * factor }
    }

    /// The smaller of its standard deviations along a line and across lines, through the centre.
    pub fn narrowest(self) -> f64 {
        (self.determinant() / self.xx.max(self.yy)).sqrt()
    }

    pub fn determinant(self) -> f64 {
        self.xx * self.yy - self.xy * self.xy
    }
}

impl Microscope {
    /// Standard deviation along any axis of the disc that defocus makes of a point.
    pub(in crate::simulate) fn defocus_sigma_pm(&self) -> f64 {
        let radius_pm = (self.defocus_nm * 1e3 * self.convergence_mrad * 1e-3).abs();
        0.5 * radius_pm
    }

    /// A column of this width and peak height as the probe shows it: covariance in pm² along the image's axes, and height.
    pub(in crate::simulate) fn blurred(&self, sigma_pm: f64, height: f64) -> (Covariance, f64) {
        let astigmatism = Covariance::along(turned([self.astigmatism_pm, 0.0], self.astigmatism_rad));
        let in_focus = Covariance::round(sigma_pm.hypot(self.probe_sigma_pm)).plus(astigmatism);
        let blurred = in_focus.plus(Covariance::round(self.defocus_sigma_pm()));
        // A Gaussian's integral is its height times the root of the determinant.
        (blurred, height * (in_focus.determinant() / blurred.determinant()).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defocus_widens_by_half_its_disc_and_keeps_the_electrons() {
        // 4 nm at 30 mrad: a disc of 120 pm radius, σ = 60 pm; 80 pm in focus become 100 pm.
        let scope = Microscope {
            probe_sigma_pm: 0.0,
            defocus_nm: -4.0,
            convergence_mrad: 30.0,
            ..Microscope::default()
        };
        let (covariance, height) = scope.blurred(80.0, 200.0);
        assert!((covariance.xx - 1e4).abs() < 1e-6 && (covariance.yy - 1e4).abs() < 1e-6);
        assert!((height - 200.0 * 0.64).abs() < 1e-9, "{height}");
        let in_focus = Microscope { defocus_nm: 0.0, ..scope };
        assert_eq!(in_focus.blurred(80.0, 200.0), (Covariance::round(80.0), 200.0));
    }

    #[test]
    fn astigmatism_widens_along_its_direction_only() {
        // Along 45° counter-clockwise as displayed: right and up.
        let scope = Microscope {
            probe_sigma_pm: 30.0,
            astigmatism_pm: 60.0,
            astigmatism_rad: std::f64::consts::FRAC_PI_4,
            ..Microscope::default()
        };
        let (Covariance { xx, xy, yy }, height) = scope.blurred(40.0, 7.0);
        assert!((xx - 4300.0).abs() < 1e-9 && (yy - 4300.0).abs() < 1e-9 && (xy + 1800.0).abs() < 1e-9);
        assert_eq!(height, 7.0);
    }
}
