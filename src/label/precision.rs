//! The best that any measurement of P can do on a simulated frame: the Cramér–Rao bound.

use crate::simulate::{Columns, Microscope, Specimen};
use nalgebra::{DMatrix, DVector};

/// What the bound depends on, in pixels and counts.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameScene {
    /// Standard deviations and peak counts of B and A.
    pub sigma_px: [f64; 2],
    pub counts: [f64; 2],
    pub tail_fraction: f64,
    pub tail_ratio: f64,
    pub background_counts: f64,
    pub cell_px: f64,
}

/// Smallest standard deviations of an unbiased measurement, pm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionBound {
    /// Of a component of P around B, and of a component of the position of a B and an A column.
    pub p: f64,
    pub b: f64,
    pub a: f64,
}

impl FrameScene {
    /// For a square lattice without defects seen by a round probe.
    pub fn new(specimen: &Specimen, microscope: &Microscope) -> Self {
        let Columns { a, b, tail_fraction, tail_ratio, .. } = specimen.columns;
        let px = microscope.pixel_size_pm;
        let counts = microscope.peak_counts;
        Self {
            sigma_px: [b, a].map(|shape| shape.sigma_pm.hypot(microscope.probe_sigma_pm) / px),
            counts: [b, a].map(|shape| shape.intensity * counts),
            tail_fraction,
            tail_ratio,
            background_counts: specimen.background.level * counts + microscope.dark_counts,
            cell_px: (specimen.cell_a_pm * specimen.cell_b_pm).sqrt() / px,
        }
    }
}

/// The Cramér–Rao bound of Poisson counts for three by three cells in the middle of a lattice, with every column's height, row and
/// column and a constant background unknown, widths and tails known.
///
/// `None` where the information has no inverse (no counts).
pub fn bound(scene: &FrameScene, pixel_size_pm: f64) -> Option<PrecisionBound> {
    // B columns at whole cells and A columns halfway between, from -2 to 2 cells; information from the middle three.
    let mut sites = Vec::new();
    for i in -2..=2 {
        for j in -2..=2 {
            sites.push((0, [f64::from(i) * scene.cell_px, f64::from(j) * scene.cell_px]));
        }
    }
    for i in -2..2 {
        for j in -2..2 {
            sites.push((1, [(f64::from(i) + 0.5) * scene.cell_px, (f64::from(j) + 0.5) * scene.cell_px]));
        }
    }
    let parameters = 3 * sites.len() + 1;
    let mut information = DMatrix::<f64>::zeros(parameters, parameters);
    let reach = (2.5 * scene.cell_px) as i64;
    for row in -reach..=reach {
        for col in -reach..=reach {
            let mut expected = scene.background_counts;
            let mut gradient = DVector::<f64>::zeros(parameters);
            for (index, &(sublattice, [y, x])) in sites.iter().enumerate() {
                let (dr, dc) = (row as f64 - y, col as f64 - x);
                let height = scene.counts[sublattice];
                let square = dr * dr + dc * dc;
                for (part, ratio) in
                    [(1.0 - scene.tail_fraction, 1.0), (scene.tail_fraction, scene.tail_ratio)]
                {
                    let variance = (scene.sigma_px[sublattice] * ratio).powi(2);
                    let value = part * (-0.5 * square / variance).exp();
                    expected += height * value;
                    gradient[3 * index] += value;
                    gradient[3 * index + 1] += height * value * dr / variance;
                    gradient[3 * index + 2] += height * value * dc / variance;
                }
            }
            gradient[parameters - 1] = 1.0;
            if expected > 0.0 {
                information.ger(1.0 / expected, &gradient, &gradient, 1.0);
            }
        }
    }
    // Columns at the rim are hardly seen: a little is known of them beforehand.
    for index in 0..parameters {
        information[(index, index)] += 1e-9 * information[(index, index)] + 1e-12;
    }
    let covariance = information.try_inverse()?;
    let at = |site: usize| 3 * site + 2;
    let middle = sites.iter().position(|&(sublattice, at)| sublattice == 0 && at == [0.0, 0.0])?;
    let half = 0.5 * scene.cell_px;
    let corners: Vec<usize> = (0..sites.len())
        .filter(|&k| sites[k].0 == 1 && sites[k].1.iter().all(|x| (x.abs() - half).abs() < 1e-9))
        .collect();
    let mut weights = DVector::<f64>::zeros(parameters);
    weights[at(middle)] = 1.0;
    corners.iter().for_each(|&corner| weights[at(corner)] = -0.25);
    let pm = |variance: f64| pixel_size_pm * variance.max(0.0).sqrt();
    Some(PrecisionBound {
        p: pm((weights.transpose() * &covariance * &weights)[(0, 0)]),
        b: pm(covariance[(at(middle), at(middle))]),
        a: pm(corners.first().map(|&corner| covariance[(at(corner), at(corner))])?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_gaussian_has_the_textbook_bound() {
        // Without background, each electron says where the column is to within sigma: sigma / sqrt(N), N = 2 pi sigma² · peak.
        let scene = FrameScene {
            sigma_px: [3.0, 3.0],
            counts: [100.0, 50.0],
            tail_fraction: 0.0,
            tail_ratio: 2.0,
            background_counts: 1e-6,
            cell_px: 60.0,
        };
        let found = bound(&scene, 10.0).unwrap();
        let textbook = |peak: f64| 10.0 * 3.0 / (std::f64::consts::TAU * 9.0 * peak).sqrt();
        assert!((found.b / textbook(100.0) - 1.0).abs() < 0.01, "{found:?}");
        assert!((found.a / textbook(50.0) - 1.0).abs() < 0.01, "{found:?}");
        let p = (textbook(100.0).powi(2) + textbook(50.0).powi(2) / 4.0).sqrt();
        assert!((found.p / p - 1.0).abs() < 0.01, "{found:?}");
    }
}
