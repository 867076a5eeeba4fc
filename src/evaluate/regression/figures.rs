//! The study as pictures.

use super::{Fit, Study};
use crate::evaluate::EvaluateError;
use crate::evaluate::windows::{QUANTITIES, Window};
use crate::figure::chart::{Canvas, FONT, rgb, write_chart};
use crate::figure::colour;
use plotters::prelude::*;
use std::error::Error;
use std::path::{Path, PathBuf};

type Drawn = Result<(), Box<dyn Error + Send + Sync>>;

/// One side of a window, or one number of it.
type Pick = fn(&Window) -> &[f64; 6];
type Value = fn(&Window, usize) -> f64;

/// Bins a side of a density.
const BINS: usize = 60;
/// Side of a panel, picture pixels.
const PANEL: u32 = 420;
/// The quantities that are mapped: P and the cell's edges.
const MAPPED: [usize; 4] = [0, 1, 2, 3];

impl Study {
    /// Predicted against true as a density with the line of perfect agreement, one panel a quantity, and the outliers of P on the
    /// first frame (figure 2).
    ///
    /// # Errors
    /// When the picture cannot be drawn or written.
    pub fn predicted_against_measured(&self, dir: &Path) -> Result<PathBuf, EvaluateError> {
        let draw = |canvas: &Canvas| -> Drawn {
            let panels = canvas.split_evenly((2, 4));
            for (quantity, panel) in (0..QUANTITIES.len()).zip(&panels) {
                self.density(panel, quantity)?;
            }
            if let Some(panel) = panels.get(QUANTITIES.len()) {
                self.outlier_map(panel)?;
            }
            Ok(())
        };
        Ok(write_chart(dir, "predicted_against_measured", (4 * PANEL, 2 * PANEL), draw)?)
    }

    /// Joint distributions of P_x and P_y, and of a and b; true above, predicted below (figure 3).
    ///
    /// # Errors
    /// When the picture cannot be drawn or written.
    pub fn joint_distributions(&self, dir: &Path) -> Result<PathBuf, EvaluateError> {
        let draw = |canvas: &Canvas| -> Drawn {
            let panels = canvas.split_evenly((2, 2));
            let picks: [(&str, Pick); 2] =
                [("true", |window| &window.truth), ("predicted", |window| &window.predicted)];
            let rows = picks.iter().flat_map(|pick| [(pick, [0, 1]), (pick, [2, 3])]);
            for (((name, pick), [x, y]), panel) in rows.zip(&panels) {
                let ranges = [x, y].map(|quantity| self.range(quantity));
                let points = self.windows.iter().map(|window| [pick(window)[x], pick(window)[y]]);
                let axes = [x, y].map(axis_name);
                density(panel, name, &axes, ranges, points)?;
            }
            Ok(())
        };
        Ok(write_chart(dir, "joint_distributions", (2 * PANEL, 2 * PANEL), draw)?)
    }

    /// Truth, prediction and their difference over the first frame, for P and the cell's edges (figure 4).
    ///
    /// # Errors
    /// When the picture cannot be drawn or written.
    pub fn maps(&self, dir: &Path) -> Result<PathBuf, EvaluateError> {
        let draw = |canvas: &Canvas| -> Drawn {
            let panels = canvas.split_evenly((MAPPED.len(), 3));
            for (quantity, row) in MAPPED.into_iter().zip(panels.chunks(3)) {
                let [low, high] = self.range(quantity);
                let half = 0.25 * (high - low);
                let kinds: [(&str, Value, [f64; 2]); 3] = [
                    ("true", |window, quantity| window.truth[quantity], [low, high]),
                    ("predicted", |window, quantity| window.predicted[quantity], [low, high]),
                    ("predicted − true", |window, quantity| window.error(quantity), [-half, half]),
                ];
                for ((name, value, range), panel) in kinds.into_iter().zip(row) {
                    let title =
                        format!("{}, {name}: {:.3} to {:.3}", axis_name(quantity), range[0], range[1]);
                    self.map(panel, &title, range, |window| value(window, quantity))?;
                }
            }
            Ok(())
        };
        Ok(write_chart(dir, "difference_maps", (3 * PANEL, MAPPED.len() as u32 * PANEL), draw)?)
    }

    /// Where 99 % of the true values lie, widened by a fifth; never empty.
    fn range(&self, quantity: usize) -> [f64; 2] {
        let mut values: Vec<f64> =
            self.windows.iter().filter_map(|window| window.truth.get(quantity).copied()).collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (share * (values.len().saturating_sub(1)) as f64).round() as usize;
            values.get(index).copied().unwrap_or(0.0)
        };
        let (low, high) = (at(0.005), at(0.995));
        let room = (0.1 * (high - low)).max(1e-6 * (1.0 + high.abs()));
        [low - room, high + room]
    }

    fn density(&self, panel: &Canvas, quantity: usize) -> Drawn {
        let fit = Fit::of(&self.windows, quantity);
        let (name, unit) = QUANTITIES[quantity];
        let title = format!("{name}: R² {:.3}, RMS {:.3} {unit}", fit.r_squared, fit.rms);
        let range = self.range(quantity);
        let points = self.windows.iter().map(|window| [window.truth[quantity], window.predicted[quantity]]);
        let axes = [format!("true ({unit})"), format!("predicted ({unit})")];
        density(panel, &title, &axes, [range; 2], points)
    }

    fn outlier_map(&self, panel: &Canvas) -> Drawn {
        let outliers: Vec<&Window> = self.of_map().iter().filter(|window| self.is_outlier(window)).collect();
        let title =
            format!("{} of {} windows off by > {} sigma", outliers.len(), self.mapped, self.outlier_sigmas);
        let (rows, cols) = self.image.dim();
        let mut chart = ChartBuilder::on(panel)
            .caption(title, (FONT, 15))
            .margin(12)
            .build_cartesian_2d(0.0..cols as f64, rows as f64..0.0)?;
        let (dark, bright) = self
            .image
            .iter()
            .filter(|value| value.is_finite())
            .fold((f32::MAX, f32::MIN), |(dark, bright), &value| (dark.min(value), bright.max(value)));
        // As many blocks as the panel has pixels, at most.
        let step = rows.max(cols).div_ceil(PANEL as usize).max(1);
        let blocks =
            (0..rows).step_by(step).flat_map(|row| (0..cols).step_by(step).map(move |col| (row, col)));
        chart.draw_series(blocks.map(|(row, col)| {
            let level = (self.image[[row, col]] - dark) / (bright - dark).max(f32::MIN_POSITIVE);
            let grey = (level.clamp(0.0, 1.0) * 255.0) as u8;
            let (x, y) = (col as f64, row as f64);
            Rectangle::new([(x, y), (x + step as f64, y + step as f64)], RGBColor(grey, grey, grey).filled())
        }))?;
        chart.draw_series(outliers.iter().map(|window| {
            Circle::new((window.col, window.row), 5, rgb(colour::FLAG_OUTLINE).stroke_width(2))
        }))?;
        Ok(())
    }

    fn map(
        &self,
        panel: &Canvas,
        title: &str,
        [low, high]: [f64; 2],
        value: impl Fn(&Window) -> f64,
    ) -> Drawn {
        let (rows, cols) = self.image.dim();
        let mut chart = ChartBuilder::on(panel)
            .caption(title, (FONT, 15))
            .margin(12)
            .build_cartesian_2d(0.0..cols as f64, rows as f64..0.0)?;
        let half = [0.5 * self.grid.step_row, 0.5 * self.grid.step_col];
        chart.draw_series(self.of_map().iter().map(|window| {
            let level = ((value(window) - low) / (high - low)) as f32;
            let corners =
                [(window.col - half[1], window.row - half[0]), (window.col + half[1], window.row + half[0])];
            Rectangle::new(corners, rgb(colour::blue_white_red(level)).filled())
        }))?;
        Ok(())
    }
}

fn axis_name(quantity: usize) -> String {
    QUANTITIES.get(quantity).map_or_else(String::new, |(name, unit)| format!("{name} ({unit})"))
}

/// Points as a two-dimensional histogram, brighter where there are more, on a logarithmic scale.
fn density(
    panel: &Canvas,
    title: &str,
    axes: &[String; 2],
    ranges: [[f64; 2]; 2],
    points: impl Iterator<Item = [f64; 2]>,
) -> Drawn {
    let mut counts = vec![0u32; BINS * BINS];
    let bin = |value: f64, [low, high]: [f64; 2]| {
        let place = (value - low) / (high - low) * BINS as f64;
        (place >= 0.0 && place < BINS as f64).then_some(place as usize)
    };
    for [x, y] in points {
        if let (Some(i), Some(j)) = (bin(x, ranges[0]), bin(y, ranges[1]))
            && let Some(count) = counts.get_mut(j * BINS + i)
        {
            *count += 1;
        }
    }
    let most = f64::from(counts.iter().copied().max().unwrap_or(0)).ln_1p();
    let [x, y] = ranges;
    let mut chart = ChartBuilder::on(panel)
        .caption(title, (FONT, 15))
        .margin(8)
        .x_label_area_size(38)
        .y_label_area_size(58)
        .build_cartesian_2d(x[0]..x[1], y[0]..y[1])?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc(&axes[0])
        .y_desc(&axes[1])
        .label_style((FONT, 13))
        .x_labels(5)
        .y_labels(5)
        .draw()?;
    let edge = |range: [f64; 2], k: usize| range[0] + (range[1] - range[0]) * k as f64 / BINS as f64;
    let filled = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    chart.draw_series(filled.map(|(index, &count)| {
        let (i, j) = (index % BINS, index / BINS);
        let level = (f64::from(count).ln_1p() / most) as f32;
        let corners = [(edge(x, i), edge(y, j)), (edge(x, i + 1), edge(y, j + 1))];
        Rectangle::new(corners, rgb(colour::inferno(0.95 - 0.9 * level)).filled())
    }))?;
    // Where both axes are the same quantity, the line of perfect agreement.
    if x == y {
        chart.draw_series(LineSeries::new([(x[0], x[0]), (x[1], x[1])], &rgb(colour::FAINT_INK)))?;
    }
    Ok(())
}
