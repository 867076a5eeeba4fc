//! The searches as tables and a chart.

use super::{Curve, REPORTED_NM, Strategy, Study};
use crate::evaluate::EvaluateError;
use crate::evaluate::table::{Entry, Table};
use crate::figure::chart::{Canvas, FONT, rgb, write_chart};
use crate::figure::colour::Rgb;
use plotters::prelude::*;
use std::error::Error;
use std::path::{Path, PathBuf};

type Drawn = Result<(), Box<dyn Error + Send + Sync>>;

fn colour(strategy: Strategy) -> Rgb {
    match strategy {
        Strategy::Candidates => [0, 114, 178],
        Strategy::Raster => [213, 94, 0],
        Strategy::Random => [120, 120, 126],
    }
}

fn frames(count: Option<usize>) -> Entry {
    count.map_or(Entry::Number(f64::NAN), Entry::from)
}

impl Study {
    /// Frames until defects were found, one row a search.
    pub fn summary(&self) -> Table {
        let planted = self.planted.len();
        let title = format!(
            "Frames of {side} x {side} px until shares of {planted} planted defects in {field:.0} x {field:.0} nm were found \
             (shown by a frame of {detail:.0} pm a pixel, half a window inside its border), of {budget} frames; reported: a \
             candidate of that frame within {REPORTED_NM:.0} nm. Random search: the mean of {runs} for what was found.",
            side = self.settings.side_px,
            field = self.settings.field_nm,
            detail = self.settings.detail_pm,
            budget = self.settings.budget(),
            runs = self.settings.random_runs,
        );
        let mut table = Table::new(
            title,
            &[
                ("search", 0),
                ("frames to 50 %", 0),
                ("frames to 90 %", 0),
                ("frames to all", 0),
                ("found (%)", 1),
                ("reported (%)", 1),
                ("details", 0),
                ("details with a defect (%)", 1),
            ],
        );
        let percent = |curve: &[f64]| 100.0 * curve.last().copied().unwrap_or(f64::NAN) / planted as f64;
        for curve in &self.curves {
            let to = |share: f64| frames(curve.frames_to(share, planted));
            table.push(vec![
                curve.strategy.name().into(),
                to(0.5),
                to(0.9),
                to(1.0),
                percent(&curve.found).into(),
                percent(&curve.reported).into(),
                curve.details.into(),
                (100.0 * curve.hits as f64 / curve.details as f64).into(),
            ]);
        }
        table
    }

    /// Defects found and reported after each frame.
    pub fn curve(&self) -> Table {
        let names: Vec<String> = self
            .curves
            .iter()
            .flat_map(|curve| {
                ["found", "reported"].map(|what| format!("{what} by {}", curve.strategy.name()))
            })
            .filter(|name| name != "reported by random")
            .collect();
        let mut headings: Vec<(&str, usize)> = vec![("frames", 0)];
        headings.extend(names.iter().map(|name| (name.as_str(), 2)));
        headings.extend([("fewest by random", 0), ("most by random", 0)]);
        let mut table =
            Table::new(format!("Of {} defects, after each frame.", self.planted.len()), &headings);
        for frame in 0..self.settings.budget() {
            let at = |values: &[f64]| Entry::from(values.get(frame).copied().unwrap_or(f64::NAN));
            let mut row = vec![Entry::from(frame + 1)];
            for curve in &self.curves {
                row.push(at(&curve.found));
                if curve.strategy != Strategy::Random {
                    row.push(at(&curve.reported));
                }
            }
            row.extend(self.random_spread.get(frame).into_iter().flatten().map(|count| Entry::from(*count)));
            table.push(row);
        }
        table
    }

    /// Each defect: whether an overview pointed at it, and the frame in which each search found and reported it.
    pub fn defects(&self) -> Table {
        let mut headings = vec![("defect", 0), ("y (nm)", 1), ("x (nm)", 1), ("candidate of an overview", 0)];
        let names: Vec<String> = self
            .curves
            .iter()
            .filter(|curve| curve.strategy != Strategy::Random)
            .flat_map(|curve| {
                ["found", "reported"].map(|what| format!("{what} by {} in", curve.strategy.name()))
            })
            .collect();
        headings.extend(names.iter().map(|name| (name.as_str(), 0)));
        let title = "Each planted defect, and the frame in which it was found and reported.";
        let mut table = Table::new(title, &headings);
        for (index, planted) in self.planted.iter().enumerate() {
            let name =
                planted.kind.map_or_else(|| "junction of domains".to_owned(), |kind| format!("{kind:?}"));
            let seen = self.seen_in_overview.get(index).is_some_and(|seen| *seen);
            let mut row: Vec<Entry> = vec![
                name.into(),
                planted.at_nm[0].into(),
                planted.at_nm[1].into(),
                if seen { "yes" } else { "no" }.into(),
            ];
            for curve in self.curves.iter().filter(|curve| curve.strategy != Strategy::Random) {
                for record in [&curve.found_in, &curve.reported_in] {
                    row.push(frames(record.get(index).copied().flatten()));
                }
            }
            table.push(row);
        }
        table
    }

    /// Defects found against frames, as `loop.png`.
    ///
    /// # Errors
    /// When the picture cannot be drawn or written.
    pub fn draw(&self, dir: &Path) -> Result<PathBuf, EvaluateError> {
        let draw = |canvas: &Canvas| -> Drawn {
            let planted = self.planted.len() as f64;
            let budget = self.settings.budget() as f64;
            let mut chart = ChartBuilder::on(canvas)
                .margin(16)
                .x_label_area_size(44)
                .y_label_area_size(56)
                .build_cartesian_2d(0.0..budget, 0.0..1.05 * planted)?;
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .label_style((FONT, 15))
                .x_label_formatter(&|frames| format!("{frames:.0}"))
                .y_label_formatter(&|defects| format!("{defects:.0}"))
                .x_desc(format!("frames of {0} x {0} px", self.settings.side_px))
                .y_desc(format!("of {planted:.0} defects"))
                .draw()?;
            let grey = rgb(colour(Strategy::Random)).mix(0.2);
            let frames = || (1..=self.random_spread.len()).map(|frame| frame as f64);
            let fewest = frames().zip(&self.random_spread).map(|(x, spread)| (x, spread[0]));
            let most = frames().zip(&self.random_spread).map(|(x, spread)| (x, spread[1]));
            let band: Vec<(f64, f64)> = fewest.chain(most.collect::<Vec<_>>().into_iter().rev()).collect();
            chart.draw_series([Polygon::new(band, grey)])?;
            for curve in &self.curves {
                let style = rgb(colour(curve.strategy)).stroke_width(3);
                let name = curve.strategy.name();
                chart
                    .draw_series(LineSeries::new(steps(curve, &curve.found), style))?
                    .label(format!("{name}: found"))
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
                if curve.strategy != Strategy::Random {
                    let thin = rgb(colour(curve.strategy)).mix(0.6).stroke_width(1);
                    chart
                        .draw_series(LineSeries::new(steps(curve, &curve.reported), thin))?
                        .label(format!("{name}: reported"))
                        .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], thin));
                }
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerRight)
                .label_font((FONT, 15))
                .background_style(WHITE.mix(0.8))
                .draw()?;
            Ok(())
        };
        Ok(write_chart(dir, "loop", (900, 560), draw)?)
    }
}

/// Nothing before the first frame, then what was there after each.
fn steps(curve: &Curve, values: &[f64]) -> Vec<(f64, f64)> {
    let smooth = curve.strategy == Strategy::Random;
    let mut points = vec![(0.0, 0.0)];
    let mut before = 0.0;
    for (index, &value) in values.iter().enumerate() {
        let frame = index as f64 + 1.0;
        if !smooth {
            points.push((frame, before));
        }
        points.push((frame, value));
        before = value;
    }
    points
}
