//! Anti-aliased strokes and fills on a `Pixmap`, in picture pixels.

use super::colour::{HATCH, Rgb, mix};
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, PremultipliedColorU8, Rect, Stroke,
    Transform,
};

/// A colour and its opacity, 0..1.
pub type Ink = (Rgb, f32);

/// An axis-aligned box in picture pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

pub fn colour((rgb, opacity): Ink) -> Color {
    let [r, g, b] = rgb;
    let mut colour = Color::from_rgba8(r, g, b, 255);
    colour.set_alpha(opacity);
    colour
}

fn paint(ink: Ink) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color(colour(ink));
    paint
}

pub fn fill(pixmap: &mut Pixmap, path: &Path, ink: Ink) {
    pixmap.fill_path(path, &paint(ink), FillRule::Winding, Transform::identity(), None);
}

pub fn stroke(pixmap: &mut Pixmap, path: &Path, ink: Ink, width: f32) {
    let stroke = Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
    pixmap.stroke_path(path, &paint(ink), &stroke, Transform::identity(), None);
}

pub fn line(pixmap: &mut Pixmap, ends: [(f32, f32); 2], ink: Ink, width: f32) {
    polyline(pixmap, &ends, (ink, width), false);
}

/// A line through all `points`, and back to the first where it is `closed`.
pub fn polyline(pixmap: &mut Pixmap, points: &[(f32, f32)], (ink, width): (Ink, f32), closed: bool) {
    let mut path = PathBuilder::new();
    for (n, &(x, y)) in points.iter().enumerate() {
        if n == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    if closed {
        path.close();
    }
    if let Some(path) = path.finish() {
        stroke(pixmap, &path, ink, width);
    }
}

pub fn circle_path(x: f32, y: f32, radius: f32) -> Option<Path> {
    PathBuilder::from_circle(x, y, radius)
}

pub fn dot(pixmap: &mut Pixmap, (x, y): (f32, f32), radius: f32, ink: Ink) {
    if let Some(path) = circle_path(x, y, radius) {
        fill(pixmap, &path, ink);
    }
}

pub fn ring(pixmap: &mut Pixmap, (x, y): (f32, f32), radius: f32, (ink, width): (Ink, f32)) {
    if let Some(path) = circle_path(x, y, radius) {
        stroke(pixmap, &path, ink, width);
    }
}

pub fn fill_area(pixmap: &mut Pixmap, area: Area, ink: Ink) {
    if let Some(rect) = Rect::from_xywh(area.x, area.y, area.width, area.height) {
        pixmap.fill_rect(rect, &paint(ink), Transform::identity(), None);
    }
}

pub fn outline_area(pixmap: &mut Pixmap, area: Area, ink: Ink, width: f32) {
    if let Some(rect) = Rect::from_xywh(area.x, area.y, area.width, area.height) {
        stroke(pixmap, &PathBuilder::from_rect(rect), ink, width);
    }
}

/// An arrow of `length` (tail to tip) centred on `(x, y)`, pointing along the unit vector `(ux, uy)`, with a thin
/// dark rim so that it stands out from any grey.
#[derive(Debug, Clone, Copy)]
pub struct Arrow {
    pub centre: (f32, f32),
    pub direction: (f32, f32),
    pub length: f32,
    pub width: f32,
}

impl Arrow {
    pub fn draw(&self, pixmap: &mut Pixmap, ink: Ink) {
        let Some(path) = self.path() else { return };
        stroke(pixmap, &path, ([0, 0, 0], 0.6 * ink.1 * ink.1), self.width * 0.9);
        fill(pixmap, &path, ink);
    }

    /// Shaft and head as one outline.
    fn path(&self) -> Option<Path> {
        let (ux, uy) = self.direction;
        let half = self.length / 2.0;
        let head = (self.width * 3.4).min(self.length * 0.62);
        let (shaft_half, head_half) = (self.width / 2.0, head * 0.52);
        let at = |along: f32, across: f32| {
            (self.centre.0 + ux * along - uy * across, self.centre.1 + uy * along + ux * across)
        };
        let corners = [
            at(-half, shaft_half),
            at(half - head, shaft_half),
            at(half - head, head_half),
            at(half, 0.0),
            at(half - head, -head_half),
            at(half - head, -shaft_half),
            at(-half, -shaft_half),
        ];
        let mut path = PathBuilder::new();
        path.move_to(corners[0].0, corners[0].1);
        for (x, y) in &corners[1..] {
            path.line_to(*x, *y);
        }
        path.close();
        path.finish()
    }
}

/// An opaque pixel.
pub fn opaque([r, g, b]: Rgb) -> PremultipliedColorU8 {
    tiny_skia::ColorU8::from_rgba(r, g, b, 255).premultiply()
}

/// The hatch that stands for "not measured here", at picture pixel `(x, y)`; `period` is its spacing.
pub fn hatch(x: u32, y: u32, period: f32) -> Rgb {
    let phase = ((x + y) as f32 / period).fract();
    // A triangle wave, cut so that a third of the period is line and its edges stay soft.
    let line = (1.0 - (phase - 0.5).abs() * 6.0).clamp(0.0, 1.0);
    mix(HATCH[0], HATCH[1], line)
}

/// Copies `picture` onto `pixmap` with its top left corner at whole pixels `(x, y)`.
pub fn place(pixmap: &mut Pixmap, picture: &Pixmap, x: i32, y: i32) {
    pixmap.draw_pixmap(
        x,
        y,
        picture.as_ref(),
        &tiny_skia::PixmapPaint::default(),
        Transform::identity(),
        None,
    );
}
