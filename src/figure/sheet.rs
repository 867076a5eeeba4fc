//! Panels, a title and a column of legends put together into one picture.

use super::FigureError;
use super::colour::{self, Rgb};
use super::draw::{self, Area, Arrow};
use super::text::{Anchor, Label, Typeface};
use tiny_skia::Pixmap;

/// The narrowest picture.
const MIN_WIDTH: f32 = 900.0;

/// A panel with its caption.
pub struct Panel {
    pub caption: String,
    pub picture: Pixmap,
}

/// One entry of the legend column, top to bottom.
pub enum Block {
    /// The colour wheel, its rim at `full_scale_pm`.
    Wheel {
        full_scale_pm: f32,
    },
    /// An arrow of known length.
    Arrow {
        length_px: f32,
        label: String,
        colour: Rgb,
    },
    /// The colours of a heat map; marks at 0..1 of its length.
    Heat {
        title: String,
        marks: Vec<(f32, String)>,
    },
    Keys {
        title: String,
        keys: Vec<Key>,
    },
    /// Lines of text, each in its colour, cut to the width.
    Text {
        title: String,
        lines: Vec<(String, Rgb)>,
    },
}

pub struct Key {
    pub swatch: Swatch,
    pub text: String,
}

pub enum Swatch {
    Fill(Rgb),
    Outline(Rgb),
    Dot(Rgb),
    Ring(Rgb),
    Hatch,
    Arrow(Rgb, f32),
}

/// What a picture consists of.
pub struct Sheet {
    pub title: String,
    pub subtitle: String,
    /// Row by row, `columns` in a row; all of one size.
    pub panels: Vec<Panel>,
    pub columns: usize,
    pub legend: Vec<Block>,
    /// Width of the legend, in units.
    pub legend_width: f32,
    /// Scale of text and lines, see [`super::panel::View::unit`].
    pub unit: f32,
}

impl Sheet {
    /// # Errors
    /// When the picture would be too large.
    pub fn compose(&self, face: &Typeface) -> Result<Pixmap, FigureError> {
        let unit = self.unit;
        let margin = (14.0 * unit).round();
        let caption_height = (27.0 * unit).round();
        let title_height = (58.0 * unit).round();
        let (panel_width, panel_height) = self
            .panels
            .iter()
            .map(|panel| (panel.picture.width() as f32, panel.picture.height() as f32))
            .fold((0.0f32, 0.0f32), |a, b| (a.0.max(b.0), a.1.max(b.1)));
        let columns = self.columns.max(1);
        let rows = self.panels.len().div_ceil(columns);
        let panels_width = columns as f32 * (panel_width + margin);
        let panels_height = rows as f32 * (panel_height + margin + caption_height);
        let legend_width = (self.legend_width * unit).round();

        let width = (margin + panels_width + legend_width + margin).max(MIN_WIDTH);
        let height = title_height + panels_height.max(self.legend_height() + margin);
        let size = (width as u32, height as u32);
        let mut pixmap =
            Pixmap::new(size.0, size.1).ok_or(FigureError::PictureSize { width: size.0, height: size.1 })?;
        pixmap.fill(draw::colour((colour::PAPER, 1.0)));

        self.draw_title(&mut pixmap, face, width - 2.0 * margin);
        for (index, panel) in self.panels.iter().enumerate() {
            let x = margin + (index % columns) as f32 * (panel_width + margin);
            let y = title_height + (index / columns) as f32 * (panel_height + margin + caption_height);
            let caption = face.shorten(&panel.caption, 17.0 * unit, panel_width);
            face.draw(&mut pixmap, &text(&caption, (x, y + 18.0 * unit), 17.0 * unit, colour::INK));
            draw::place(&mut pixmap, &panel.picture, x as i32, (y + caption_height) as i32);
        }
        let corner = (margin + panels_width + 4.0 * unit, title_height + caption_height);
        self.draw_legend(&mut pixmap, face, (corner.0, corner.1, legend_width - 4.0 * unit));
        Ok(pixmap)
    }

    fn draw_title(&self, pixmap: &mut Pixmap, face: &Typeface, width: f32) {
        let unit = self.unit;
        let x = 14.0 * unit;
        let title = face.shorten(&self.title, 23.0 * unit, width * 0.92);
        face.draw(pixmap, &Label { bold: true, ..text(&title, (x, 29.0 * unit), 22.0 * unit, colour::INK) });
        let subtitle = face.shorten(&self.subtitle, 15.0 * unit, width);
        face.draw(pixmap, &text(&subtitle, (x, 51.0 * unit), 15.0 * unit, colour::FAINT_INK));
    }

    fn legend_height(&self) -> f32 {
        self.legend.iter().map(|block| (block.height() + 20.0) * self.unit).sum::<f32>() + 27.0 * self.unit
    }

    fn draw_legend(&self, pixmap: &mut Pixmap, face: &Typeface, (x, y, width): (f32, f32, f32)) {
        let mut y = y;
        for block in &self.legend {
            let place = Place { x, y, width, unit: self.unit };
            match block {
                Block::Wheel { full_scale_pm } => place.wheel(pixmap, face, *full_scale_pm),
                Block::Arrow { length_px, label, colour } => {
                    place.arrow(pixmap, face, (*length_px, label, *colour))
                }
                Block::Heat { title, marks } => place.heat(pixmap, face, (title, marks)),
                Block::Keys { title, keys } => place.keys(pixmap, face, (title, keys)),
                Block::Text { title, lines } => place.lines(pixmap, face, (title, lines)),
            }
            y += (block.height() + 20.0) * self.unit;
        }
    }
}

impl Block {
    /// In units.
    fn height(&self) -> f32 {
        match self {
            Self::Wheel { .. } => 196.0,
            Self::Arrow { .. } => 36.0,
            Self::Heat { .. } => 74.0,
            Self::Keys { keys, .. } => 26.0 + 25.0 * keys.len() as f32,
            Self::Text { lines, .. } => 26.0 + 21.0 * lines.len() as f32,
        }
    }
}

fn text(text: &str, (x, y): (f32, f32), size: f32, colour: Rgb) -> Label<'_> {
    Label { text, x, y, size, colour, anchor: Anchor::Start, bold: false, rim: false }
}

/// Where a block of the legend goes.
struct Place {
    x: f32,
    y: f32,
    width: f32,
    unit: f32,
}

impl Place {
    fn title(&self, pixmap: &mut Pixmap, face: &Typeface, title: &str) {
        let at = (self.x, self.y + 13.0 * self.unit);
        face.draw(pixmap, &Label { bold: true, ..text(title, at, 15.0 * self.unit, colour::INK) });
    }

    fn wheel(&self, pixmap: &mut Pixmap, face: &Typeface, full_scale_pm: f32) {
        let unit = self.unit;
        self.title(pixmap, face, "Polarization P");
        let radius = 60.0 * unit;
        let centre = (self.x + radius + 2.0 * unit, self.y + 24.0 * unit + radius);
        draw_wheel(pixmap, centre, radius);
        draw::ring(pixmap, centre, radius, ((colour::INK, 1.0), 1.3 * unit));
        let size = 14.0 * unit;
        let mut note = |label: &str, x: f32, y: f32, anchor| {
            face.draw(pixmap, &Label { anchor, ..text(label, (x, y), size, colour::INK) });
        };
        note("+x", centre.0 + radius + 7.0 * unit, centre.1 + size * 0.35, Anchor::Start);
        note("+y (down)", centre.0 + 4.0 * unit, centre.1 + radius + 18.0 * unit, Anchor::Middle);
        note("0", centre.0, centre.1 + size * 0.35, Anchor::Middle);
        let rim = format!("rim {full_scale_pm} pm");
        note(&rim, centre.0 + 4.0 * unit, centre.1 + radius + 38.0 * unit, Anchor::Middle);
    }

    fn arrow(&self, pixmap: &mut Pixmap, face: &Typeface, (length, label, rgb): (f32, &str, Rgb)) {
        let unit = self.unit;
        let y = self.y + 16.0 * unit;
        let arrow = Arrow {
            centre: (self.x + length / 2.0 + 2.0 * unit, y),
            direction: (1.0, 0.0),
            length,
            width: 3.2 * unit,
        };
        arrow.draw(pixmap, (rgb, 1.0));
        let at = (self.x + length + 12.0 * unit, y + 5.0 * unit);
        face.draw(pixmap, &text(label, at, 14.0 * unit, colour::INK));
    }

    fn heat(&self, pixmap: &mut Pixmap, face: &Typeface, (title, marks): (&str, &[(f32, String)])) {
        let unit = self.unit;
        self.title(pixmap, face, title);
        let bar = Area {
            x: self.x,
            y: self.y + 24.0 * unit,
            width: (self.width * 0.9).min(190.0 * unit),
            height: 20.0 * unit,
        };
        let steps = bar.width.round() as usize;
        for step in 0..steps {
            let level = step as f32 / (steps - 1).max(1) as f32;
            let column = Area { x: (bar.x + step as f32).round(), width: 1.0, ..bar };
            draw::fill_area(pixmap, column, (colour::inferno(level), 1.0));
        }
        for (level, label) in marks {
            let anchor = match *level {
                level if level <= 0.0 => Anchor::Start,
                level if level >= 1.0 => Anchor::End,
                _ => Anchor::Middle,
            };
            let at = (bar.x + bar.width * level, bar.y + bar.height + 18.0 * unit);
            face.draw(pixmap, &Label { anchor, ..text(label, at, 14.0 * unit, colour::INK) });
        }
    }

    fn keys(&self, pixmap: &mut Pixmap, face: &Typeface, (title, keys): (&str, &[Key])) {
        let unit = self.unit;
        self.title(pixmap, face, title);
        for (index, key) in keys.iter().enumerate() {
            let y = self.y + (24.0 + 25.0 * index as f32) * unit;
            key.swatch.draw(pixmap, Area { x: self.x, y, width: 24.0 * unit, height: 17.0 * unit }, unit);
            let size = 14.0 * unit;
            let shortened = face.shorten(&key.text, size, self.width - 34.0 * unit);
            face.draw(pixmap, &text(&shortened, (self.x + 34.0 * unit, y + 13.5 * unit), size, colour::INK));
        }
    }

    fn lines(&self, pixmap: &mut Pixmap, face: &Typeface, (title, lines): (&str, &[(String, Rgb)])) {
        let unit = self.unit;
        self.title(pixmap, face, title);
        for (index, (line, rgb)) in lines.iter().enumerate() {
            let shortened = face.shorten(line, 14.0 * unit, self.width);
            let at = (self.x, self.y + (37.0 + 21.0 * index as f32) * unit);
            face.draw(pixmap, &text(&shortened, at, 14.0 * unit, *rgb));
        }
    }
}

impl Swatch {
    fn draw(&self, pixmap: &mut Pixmap, area: Area, unit: f32) {
        let centre = (area.x + area.width / 2.0, area.y + area.height / 2.0);
        match self {
            Self::Fill(rgb) => {
                draw::fill_area(pixmap, area, (*rgb, 1.0));
                draw::outline_area(pixmap, area, (colour::INK, 0.5), unit);
            }
            Self::Outline(rgb) => {
                draw::fill_area(pixmap, area, ([70, 70, 76], 1.0));
                draw::outline_area(pixmap, area, (*rgb, 1.0), 2.6 * unit);
            }
            Self::Dot(rgb) => {
                draw::dot(pixmap, centre, 6.0 * unit, (colour::INK, 1.0));
                draw::dot(pixmap, centre, 4.8 * unit, (*rgb, 1.0));
            }
            Self::Ring(rgb) => {
                draw::ring(pixmap, centre, 7.5 * unit, ((colour::INK, 1.0), 5.0 * unit));
                draw::ring(pixmap, centre, 7.5 * unit, ((*rgb, 1.0), 3.2 * unit));
            }
            Self::Hatch => hatch_area(pixmap, area, unit),
            Self::Arrow(rgb, opacity) => {
                draw::fill_area(pixmap, area, ([96, 96, 100], 1.0));
                let arrow =
                    Arrow { centre, direction: (1.0, 0.0), length: area.width * 0.84, width: 3.2 * unit };
                arrow.draw(pixmap, (*rgb, *opacity));
            }
        }
    }
}

fn hatch_area(pixmap: &mut Pixmap, area: Area, unit: f32) {
    let width = pixmap.width();
    let (columns, rows) =
        (area.x as u32..(area.x + area.width) as u32, area.y as u32..(area.y + area.height) as u32);
    for (index, pixel) in (0u32..).zip(pixmap.pixels_mut()) {
        let (x, y) = (index % width, index / width);
        if columns.contains(&x) && rows.contains(&y) {
            *pixel = draw::opaque(draw::hatch(x, y, 9.0 * unit));
        }
    }
}

/// A disc whose colour at each point is that of the vector from its centre.
fn draw_wheel(pixmap: &mut Pixmap, centre: (f32, f32), radius: f32) {
    let width = pixmap.width();
    for (index, pixel) in (0u32..).zip(pixmap.pixels_mut()) {
        let dx = (index % width) as f32 + 0.5 - centre.0;
        let dy = (index / width) as f32 + 0.5 - centre.1;
        if dx.hypot(dy) <= radius
            && let Some(rgb) = colour::wheel(dx, dy, radius)
        {
            *pixel = draw::opaque(rgb);
        }
    }
}
