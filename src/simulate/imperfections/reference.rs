//! The same frame by brute force: every column at every pixel, in double precision.

use super::super::lattice::{Focus, HOST, Lattice, Site, SiteKind};
use super::super::microscope::{Covariance, turned};
use super::*;

/// The largest deviation of the expected counts in `frame`, as a fraction of the peak counts.
pub fn worst_deviation(specimen: &Specimen, microscope: &Microscope, frame: &SimulatedFrame) -> f64 {
    let m = microscope;
    let [high_pm, wide_pm] = m.pixel_sizes_pm();
    let lattice = Lattice::new(specimen, Focus { center: [m.center_nm[1], m.center_nm[0]], radius: 20.0 });
    let [rows, cols] = m.shape.map(|n| n as f64);
    let height_pm = rows * high_pm;
    // Position in the image, pm from its centre, of a specimen that has drifted by the time the line is scanned.
    let to_image = |[x, y]: [f64; 2]| {
        let [x, y] = turned([x - m.center_nm[1] * 1e3, y - m.center_nm[0] * 1e3], -m.rotation_rad);
        let line_y = y / (1.0 - m.drift_pm[1] / height_pm);
        [x + m.drift_pm[0] * line_y / height_pm, line_y]
    };
    let mut columns = Vec::new();
    for (i, j) in (-14..=14).flat_map(|i| (-14..=14).map(move |j| (i, j))) {
        for kind in SiteKind::ALL {
            let site = Site { i, j, kind };
            let Some(column) = lattice.column(HOST, site, [0.0, 0.0]) else { continue };
            let [x, y] = lattice.grids()[HOST].position(site).unwrap();
            let (x_nm, y_nm) = (x * 1e-3, y * 1e-3);
            let bend = &specimen.bends[0];
            let r2 = (x_nm - bend.center_nm[1]).powi(2) + (y_nm - bend.center_nm[0]).powi(2);
            let weight = (-0.5 * r2 / bend.radius_nm.powi(2)).exp();
            let mrad = [0, 1].map(|k| {
                m.tilt.mrad[k] + m.tilt.gradient_x_mrad_per_nm[k] * x_nm + weight * bend.tilt_mrad[k]
            });
            let share = if kind == SiteKind::A { 1.0 } else { 0.5 };
            let shift = [0, 1].map(|k| {
                let a = m.tilt_offset_pm[k] + weight * bend.tilt_offset_pm[k] + 0.7 * mrad[k];
                column.shift[k] + column.scatter[k] + share * a
            });
            let center = to_image([x + shift[0], y + shift[1]]);
            // Σ in pm²: column, probe, astigmatism; the defocus' disc, which keeps the integral; the tilt.
            let round = column.sigma_pm.powi(2) + m.probe_sigma_pm.powi(2);
            let (ax, ay) =
                (m.astigmatism_pm * m.astigmatism_rad.cos(), -m.astigmatism_pm * m.astigmatism_rad.sin());
            let sharp = Covariance { xx: round + ax * ax, xy: ax * ay, yy: round + ay * ay };
            let disc = (0.5 * m.defocus_nm * m.convergence_mrad).powi(2);
            let blurred = Covariance { xx: sharp.xx + disc, xy: sharp.xy, yy: sharp.yy + disc };
            let [tx, ty] = turned(mrad, -m.rotation_rad);
            let long =
                Covariance { xx: blurred.xx + tx * tx, xy: blurred.xy + tx * ty, yy: blurred.yy + ty * ty };
            let dim = 1.0 / (1.0 + (mrad[0].powi(2) + mrad[1].powi(2)) / 33.0f64.powi(2));
            let height =
                m.peak_counts * column.intensity * dim * (sharp.determinant() / blurred.determinant()).sqrt();
            columns.push((center, long, height));
        }
    }
    let (tail, ratio) = (specimen.columns.tail_fraction, specimen.columns.tail_ratio);
    let mut worst: f64 = 0.0;
    for ((row, col), value) in frame.pixels.indexed_iter() {
        let [dx, dy] = frame.truth.scan.displacement_px(row, col);
        let x = (col as f64 + dx - 0.5 * (cols - 1.0)) * wide_pm;
        let y = (row as f64 + dy - 0.5 * (rows - 1.0)) * high_pm;
        let mut expected = m.dark_counts;
        let (line_x, line_y) = (x, y);
        let from_center = turned(
            [line_x - m.drift_pm[0] * line_y / height_pm, line_y * (1.0 - m.drift_pm[1] / height_pm)],
            m.rotation_rad,
        );
        let nm = [m.center_nm[0] + from_center[1] * 1e-3, m.center_nm[1] + from_center[0] * 1e-3];
        expected += m.peak_counts * specimen.background.at(nm) * lattice.thickness_at(nm);
        for ([cx, cy], Covariance { xx, xy, yy }, height) in &columns {
            let (dx, dy) = (x - cx, y - cy);
            let exponent = (yy * dx * dx - 2.0 * xy * dx * dy + xx * dy * dy) / (xx * yy - xy * xy);
            let profile = |exponent: f64| (-0.5 * exponent).exp();
            expected +=
                height * ((1.0 - tail) * profile(exponent) + tail * profile(exponent / (ratio * ratio)));
        }
        worst = worst.max((f64::from(*value) - expected).abs() / m.peak_counts);
    }
    worst
}
