//! Curves on axes: a panel of a sheet.

use super::FigureError;
use super::colour::{self, Rgb};
use super::draw::{self, Area};
use super::text::{Anchor, Label, Typeface};
use tiny_skia::{PathBuilder, Pixmap};

/// Ticks that an axis should have, at most.
const TICKS: f64 = 6.0;

/// What is plotted; points that are not finite, or not above 0 on a logarithmic axis, interrupt their curve.
pub struct Plot<'a> {
    pub x_label: &'a str,
    pub y_label: &'a str,
    pub log_y: bool,
    pub curves: Vec<Curve>,
}

pub struct Curve {
    pub colour: Rgb,
    /// `[x, y]`.
    pub points: Vec<[f64; 2]>,
    /// Dots at the points, too.
    pub dots: bool,
}

/// A range of values and where it lies in the picture.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Picture pixels of `low` and `high`.
    from: f32,
    to: f32,
}

impl Axis {
    /// Covers the values with a little room; `None` without any.
    fn over(values: impl Iterator<Item = f64>, log: bool) -> Option<Self> {
        let usable = values.filter(|v| v.is_finite() && (!log || *v > 0.0));
        let scaled = usable.map(|v| if log { v.log10() } else { v });
        let (low, high) =
            scaled.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return None;
        }
        let room = if high > low { 0.04 * (high - low) } else { 0.5 };
        Some(Self { low: low - room, high: high + room, log, from: 0.0, to: 1.0 })
    }

    /// Where a value lies; `None` where it has no place.
    fn at(&self, value: f64) -> Option<f32> {
        if !value.is_finite() || (self.log && value <= 0.0) {
            return None;
        }
        let value = if self.log { value.log10() } else { value };
        let share = ((value - self.low) / (self.high - self.low)) as f32;
        Some(self.from + share * (self.to - self.from))
    }

    /// Round values within the range, with their labels.
    fn ticks(&self) -> Vec<(f64, String)> {
        let step = round_step((self.high - self.low) / TICKS, self.log);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last)
            .map(|n| {
                let value = n as f64 * step;
                if self.log {
                    return (10.0f64.powf(value), format!("10{}", superscript(value as i64)));
                }
                let decimals = (-step.log10().floor()).max(0.0) as usize;
                (value, format!("{value:.decimals$}"))
            })
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`; whole decades on a logarithmic axis.
fn round_step(least: f64, log: bool) -> f64 {
    let decade = 10.0f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * decade).into_iter().find(|step| *step >= least * 0.999);
    let step = step.unwrap_or(10.0 * decade);
    if log { step.max(1.0).round() } else { step }
}

fn superscript(n: i64) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let sign = if n < 0 { "⁻" } else { "" };
    let digits = n.unsigned_abs().to_string();
    let digits: String = digits.bytes().filter_map(|b| DIGITS.get(usize::from(b - b'0'))).collect();
    format!("{sign}{digits}")
}

impl Plot<'_> {
    /// Draws into a picture of this size; without any usable point, axes alone.
    ///
    /// # Errors
    /// When the picture cannot be made.
    pub fn draw(
        &self,
        face: &Typeface,
        (width, height): (u32, u32),
        unit: f32,
    ) -> Result<Pixmap, FigureError> {
        let mut picture = Pixmap::new(width, height).ok_or(FigureError::PictureSize { width, height })?;
        picture.fill(draw::colour((colour::PAPER, 1.0)));
        let size = 15.0 * unit;
        let area = Area {
            x: 62.0 * unit,
            y: 34.0 * unit,
            width: width as f32 - 78.0 * unit,
            height: height as f32 - 92.0 * unit,
        };
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let axes =
            Axis::over(points().map(|p| p[0]), false).zip(Axis::over(points().map(|p| p[1]), self.log_y));
        if let Some((x, y)) = axes {
            let x = Axis { from: area.x, to: area.x + area.width, ..x };
            let y = Axis { from: area.y + area.height, to: area.y, ..y };
            self.draw_ticks(&mut picture, face, (&x, &y, area), size);
            for curve in &self.curves {
                curve.draw(&mut picture, &x, &y, unit);
            }
        }
        draw::outline_area(&mut picture, area, (colour::INK, 1.0), 1.4 * unit);
        let mut label = |text: &str, x: f32, y: f32, anchor| {
            face.draw(
                &mut picture,
                &Label { text, x, y, size, colour: colour::INK, anchor, bold: false, rim: false },
            );
        };
        label(self.x_label, area.x + area.width / 2.0, height as f32 - 10.0 * unit, Anchor::Middle);
        label(self.y_label, 8.0 * unit, 22.0 * unit, Anchor::Start);
        Ok(picture)
    }

    fn draw_ticks(
        &self,
        picture: &mut Pixmap,
        face: &Typeface,
        (x, y, area): (&Axis, &Axis, Area),
        size: f32,
    ) {
        let grid = ([215, 215, 220], 1.0);
        for (value, text) in x.ticks() {
            let Some(at) = x.at(value) else { continue };
            draw::line(picture, [(at, area.y), (at, area.y + area.height)], grid, size / 14.0);
            face.draw(
                picture,
                &Label { x: at, y: area.y + area.height + 1.25 * size, ..tick_label(&text, size) },
            );
        }
        for (value, text) in y.ticks() {
            let Some(at) = y.at(value) else { continue };
            draw::line(picture, [(area.x, at), (area.x + area.width, at)], grid, size / 14.0);
            let (x, y) = (area.x - 0.4 * size, at + 0.35 * size);
            face.draw(picture, &Label { x, y, anchor: Anchor::End, ..tick_label(&text, size) });
        }
    }
}

fn tick_label(text: &str, size: f32) -> Label<'_> {
    Label { text, x: 0.0, y: 0.0, size, colour: colour::INK, anchor: Anchor::Middle, bold: false, rim: false }
}

impl Curve {
    fn draw(&self, picture: &mut Pixmap, x: &Axis, y: &Axis, unit: f32) {
        let mut path = PathBuilder::new();
        let mut drawing = false;
        for [px, py] in &self.points {
            let Some((px, py)) = x.at(*px).zip(y.at(*py)) else {
                drawing = false;
                continue;
            };
            if drawing {
                path.line_to(px, py)
            } else {
                path.move_to(px, py)
            }
            drawing = true;
            if self.dots {
                draw::dot(picture, (px, py), 3.6 * unit, (self.colour, 1.0));
            }
        }
        if let Some(path) = path.finish() {
            draw::stroke(picture, &path, (self.colour, 0.95), 2.4 * unit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let ticks = |low: f64, high: f64, log| {
            let axis = Axis { low, high, log, from: 0.0, to: 1.0 };
            axis.ticks().into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert_eq!(ticks(0.0, 1.0, false), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(ticks(-3.0, 204.0, false), ["0", "50", "100", "150", "200"]);
        assert_eq!(ticks(-2.2, 1.3, true), ["10⁻²", "10⁻¹", "10⁰", "10¹"]);
        assert_eq!(ticks(0.0, 30.0, true), ["10⁰", "10⁵", "10¹⁰", "10¹⁵", "10²⁰", "10²⁵", "10³⁰"]);
    }

    #[test]
    fn a_curve_goes_where_its_values_are_and_breaks_where_there_are_none() {
        let red = [200, 0, 0];
        let points = vec![[0.0, 0.0], [5.0, 10.0], [6.0, f64::NAN], [10.0, 0.0]];
        let plot = Plot {
            x_label: "x",
            y_label: "y",
            log_y: false,
            curves: vec![Curve { colour: red, points, dots: true }],
        };
        let picture = plot.draw(&Typeface::new().unwrap(), (400, 300), 1.0).unwrap();
        let reddish = |x: u32, y: u32| {
            let pixel = picture.pixel(x, y).unwrap();
            pixel.red() > 150 && pixel.green() < 90
        };
        // The middle of x, the top of y less the room above.
        let (left, top, width, height) = (62.0, 34.0, 322.0, 208.0);
        let at = |x: f64, y: f64| {
            let share = |v: f64| (v + 0.4) / 10.8;
            ((left + share(x) * width) as u32, (top + (1.0 - share(y)) * height) as u32)
        };
        for point in [(0.0, 0.0), (5.0, 10.0), (2.5, 5.0), (10.0, 0.0)] {
            let (x, y) = at(point.0, point.1);
            assert!(reddish(x, y), "{point:?} at {x}, {y}");
        }
        let (x, y) = at(8.0, 4.0);
        assert!(!reddish(x, y), "no line across the gap");
        let empty = Plot { x_label: "", y_label: "", log_y: true, curves: Vec::new() };
        empty.draw(&Typeface::new().unwrap(), (100, 100), 1.0).unwrap();
    }
}
