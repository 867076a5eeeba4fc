//! Whether p-values keep their promise.

use super::super::EvaluateError;
use super::super::table::{Entry, Table};
use super::super::windows::at_dose;
use super::{OodStudySettings, marked_frame};
use crate::networks::FeatureStatistics;
use crate::pipeline::Analyzer;
use crate::simulate::TrainingRanges;
use std::f64::consts::FRAC_PI_2;

/// Significance levels of the promise.
pub const ALPHAS: [f64; 3] = [0.1, 0.01, 0.001];
/// Pixel size at which the side of a frame is meant, pm.
const REFERENCE_PM: f64 = 15.0;
/// Frames of these rows begin here in the series.
const FIRST_FRAME: usize = 2_000_000;

/// Share of in-distribution windows whose p-value is below each level: by dose and by direction of the lattice at the pixel size of
/// training, and by pixel size at any dose.
///
/// # Errors
/// When a frame cannot be simulated or processed.
pub fn promise(
    analyzer: &Analyzer,
    statistics: &FeatureStatistics,
    (settings, scenes): (&OodStudySettings, &TrainingRanges),
    mut each: impl FnMut(),
) -> Result<Table, EvaluateError> {
    let mut table = Table::new(
        "Windows of frames without anomaly whose p-value is below alpha: the promise is at most alpha in every row. Standard errors are from frame to frame.",
        &[
            ("what is fixed", 0),
            ("value", 1),
            ("windows", 0),
            ("p < 0.1 (%)", 2),
            ("± (%)", 2),
            ("p < 0.01 (%)", 3),
            ("± (%) ", 3),
            ("p < 0.001 (%)", 4),
            ("± (%)  ", 4),
        ],
    );
    let mut rows: Vec<(&str, f64, TrainingRanges)> = Vec::new();
    for &counts in &settings.promise_counts {
        rows.push(("dose (counts)", counts, at_dose(scenes, counts)?));
    }
    for &pixel_pm in &settings.pixel_sizes_pm {
        rows.push((
            "pixel size (pm)",
            pixel_pm,
            TrainingRanges { pixel_size_pm: [pixel_pm; 2], ..scenes.clone() },
        ));
    }
    let sector = FRAC_PI_2 / settings.rotations.max(1) as f64;
    for k in 0..settings.rotations {
        let rotation_rad = [sector * k as f64, sector * (k + 1) as f64];
        let middle = (sector * (k as f64 + 0.5)).to_degrees();
        rows.push(("lattice at (°)", middle, TrainingRanges { rotation_rad, ..scenes.clone() }));
    }
    for (n, (what, value, ranges)) in rows.into_iter().enumerate() {
        let pixel_pm = 0.5 * (ranges.pixel_size_pm[0] + ranges.pixel_size_pm[1]);
        let side = (settings.side_px as f64 * REFERENCE_PM / pixel_pm).ceil() as usize;
        let mut windows = 0;
        let mut shares: [Vec<f64>; ALPHAS.len()] = Default::default();
        for index in 0..settings.promise_frames {
            let marked = marked_frame(None, &ranges, side, settings.seed, FIRST_FRAME + n * 10_000 + index)?;
            let observed = analyzer.observe(marked.frame.clone())?;
            each();
            let Some(maps) = &observed.maps else { continue };
            let unusual = statistics.judge(maps, observed.sampling);
            let p_value = unusual.p_value();
            let evaluated = p_value.iter().filter(|p| p.is_finite()).count();
            if evaluated == 0 {
                continue;
            }
            windows += evaluated;
            for (shares, alpha) in shares.iter_mut().zip(ALPHAS) {
                let below = p_value.iter().filter(|p| f64::from(**p) < alpha).count();
                shares.push(100.0 * below as f64 / evaluated as f64);
            }
        }
        let mut row: Vec<Entry> = vec![what.into(), value.into(), windows.into()];
        for shares in &shares {
            let [mean, error] = mean_and_error(shares);
            row.extend([mean.into(), error.into()]);
        }
        table.push(row);
    }
    Ok(table)
}

/// Mean and its standard error.
fn mean_and_error(values: &[f64]) -> [f64; 2] {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    [mean, (squares / (count - 1.0) / count).sqrt()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_worked_mean_and_error() {
        // Deviations -2, 0, 2: variance 4, of the mean 4 / 3.
        let [mean, error] = mean_and_error(&[1.0, 3.0, 5.0]);
        assert!((mean - 3.0).abs() < 1e-12 && (error - (4.0f64 / 3.0).sqrt()).abs() < 1e-12);
    }
}
