//! Text as filled outlines of DejaVu Sans, so that it is as smooth as the rest at any size.

use super::FigureError;
use super::colour::Rgb;
use super::draw;
use tiny_skia::{Path, PathBuilder, Pixmap};
use ttf_parser::{Face, OutlineBuilder};

/// The two faces that the pictures use.
pub struct Typeface {
    regular: Face<'static>,
    bold: Face<'static>,
}

/// Which part of the text sits at the given x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// One line of text with its baseline at `(x, y)`, picture pixels.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    pub text: &'a str,
    pub x: f32,
    pub y: f32,
    /// Height of the em square, picture pixels.
    pub size: f32,
    pub colour: Rgb,
    pub anchor: Anchor,
    pub bold: bool,
    /// A dark rim, for text over an image.
    pub rim: bool,
}

struct Outline {
    path: PathBuilder,
    x: f32,
    y: f32,
    scale: f32,
}

impl Typeface {
    /// # Errors
    /// When the fonts compiled into the program cannot be parsed.
    pub fn new() -> Result<Self, FigureError> {
        let face = |bytes| Face::parse(bytes, 0).map_err(|error| FigureError::Font(error.to_string()));
        Ok(Self { regular: face(dejavu::sans::regular())?, bold: face(dejavu::sans::bold())? })
    }

    /// Width of `text`, picture pixels.
    pub fn width(&self, text: &str, size: f32, bold: bool) -> f32 {
        let face = self.face(bold);
        let scale = size / f32::from(face.units_per_em());
        text.chars().map(|c| advance(face, c) * scale).sum()
    }

    /// `text`, or as much of it as fits into `width` with an ellipsis.
    pub fn shorten(&self, text: &str, size: f32, width: f32) -> String {
        if self.width(text, size, false) <= width {
            return text.to_owned();
        }
        let mut kept: String = text.to_owned();
        while kept.pop().is_some() {
            let shortened = format!("{}…", kept.trim_end());
            if self.width(&shortened, size, false) <= width {
                return shortened;
            }
        }
        String::new()
    }

    pub fn draw(&self, pixmap: &mut Pixmap, label: &Label) {
        let Some(path) = self.outline(label) else { return };
        if label.rim {
            draw::stroke(pixmap, &path, ([0, 0, 0], 0.75), label.size * 0.2);
        }
        draw::fill(pixmap, &path, (label.colour, 1.0));
    }

    fn outline(&self, label: &Label) -> Option<Path> {
        let face = self.face(label.bold);
        let scale = label.size / f32::from(face.units_per_em());
        let width = self.width(label.text, label.size, label.bold);
        let x = match label.anchor {
            Anchor::Start => label.x,
            Anchor::Middle => label.x - width / 2.0,
            Anchor::End => label.x - width,
        };
        let mut outline = Outline { path: PathBuilder::new(), x, y: label.y, scale };
        for c in label.text.chars() {
            if let Some(glyph) = face.glyph_index(c) {
                // A glyph without an outline (a space) draws nothing, which is right.
                let _ = face.outline_glyph(glyph, &mut outline);
            }
            outline.x += advance(face, c) * scale;
        }
        outline.path.finish()
    }

    fn face(&self, bold: bool) -> &Face<'static> {
        if bold { &self.bold } else { &self.regular }
    }
}

/// In font units. Characters that the font lacks take no room.
fn advance(face: &Face, c: char) -> f32 {
    face.glyph_index(c).and_then(|glyph| face.glyph_hor_advance(glyph)).map_or(0.0, f32::from)
}

impl Outline {
    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, self.y - y * self.scale)
    }
}

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.move_to(x, y);
    }
    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.line_to(x, y);
    }
    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.place(x1, y1), self.place(x, y));
        self.path.quad_to(x1, y1, x, y);
    }
    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.place(x1, y1), self.place(x2, y2), self.place(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }
    fn close(&mut self) {
        self.path.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_where_it_was_asked_for() {
        let face = Typeface::new().unwrap();
        let mut pixmap = Pixmap::new(120, 40).unwrap();
        let width = face.width("50 pm", 20.0, false);
        face.draw(
            &mut pixmap,
            &Label {
                text: "50 pm",
                x: 110.0,
                y: 30.0,
                size: 20.0,
                colour: [255, 255, 255],
                anchor: Anchor::End,
                bold: false,
                rim: false,
            },
        );
        let inked: Vec<u32> =
            (0..120 * 40).filter(|i| pixmap.pixels()[*i as usize].alpha() > 0).map(|i| i % 120).collect();
        let (first, last) = (*inked.iter().min().unwrap() as f32, *inked.iter().max().unwrap() as f32);
        assert!(first >= 110.0 - width && first < 110.0 - width + 4.0, "first inked column {first}");
        assert!(last <= 110.0 && last > 105.0, "last inked column {last}");
    }

    #[test]
    fn the_symbols_of_the_field_have_glyphs() {
        let face = Typeface::new().unwrap();
        for c in "µ²⁴⁻°·…≤±×–|".chars() {
            assert!(face.face(false).glyph_index(c).is_some(), "{c}");
        }
    }

    #[test]
    fn long_text_is_cut_to_the_width() {
        let face = Typeface::new().unwrap();
        let cut = face.shorten("the distance of this window's features is unusual", 14.0, 120.0);
        assert!(cut.ends_with('…') && cut.len() > 8);
        assert!(face.width(&cut, 14.0, false) <= 120.0);
        assert_eq!(face.shorten("wall", 14.0, 120.0), "wall");
        assert_eq!(face.shorten("wall", 14.0, 1.0), "");
    }
}
