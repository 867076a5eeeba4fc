//! What the figures of several studies are made of: matrices as heat maps, and images in rows.

use crate::figure::FigureError;
use crate::figure::chart::{Canvas, FONT, rgb, write_chart};
use crate::figure::colour::{self, Rgb};
use ndarray::{Array2, ArrayView2};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::path::{Path, PathBuf};

pub(super) type Drawn = Result<(), Box<dyn Error + Send + Sync>>;

/// Size of a field of a heat map, picture pixels.
const FIELD: [i32; 2] = [66, 44];
/// Least room beside a heat map for the names of its rows, and room above it for title and axes.
const ROW_NAMES: i32 = 110;
const TITLE: i32 = 50;
const TEXT: u32 = 14;
/// Height of a line of text, and the width of one of its letters, about.
const LINE: i32 = 18;
pub(super) const LETTER: i32 = 8;
/// Side of an image in a montage, and the room for the words above it and beside a row.
const IMAGE: i32 = 150;
const CAPTION: i32 = 24;
const ROW_NAME: i32 = 150;
const GAP: i32 = 8;

/// Errors under names: one row each of `row_names`, one column each of `column_names`; NaN is "not measured".
#[derive(Debug)]
pub(super) struct HeatMap<'a> {
    pub title: &'a str,
    /// What the rows and what the columns are.
    pub axes: [&'a str; 2],
    pub row_names: &'a [String],
    pub column_names: &'a [String],
    pub values: &'a [Vec<f64>],
}

impl HeatMap<'_> {
    /// Width and height, picture pixels.
    pub fn size(&self) -> (u32, u32) {
        let [width, height] = FIELD;
        let [left, top] = self.corner();
        let fields = [self.column_names.len() as i32 * width, self.row_names.len() as i32 * height];
        ((left + fields[0] + 2 * GAP) as u32, (top + fields[1] + 2 * GAP) as u32)
    }

    /// Where the first field begins, `[x, y]`: names of columns that are wider than a field share it by lines.
    fn corner(&self) -> [i32; 2] {
        [(longest(self.row_names) + 2 * GAP).max(ROW_NAMES), TITLE + self.name_lines() * LINE]
    }

    fn name_lines(&self) -> i32 {
        (longest(self.column_names) + GAP - 1) / FIELD[0] + 1
    }

    /// Draws the map, coloured by the logarithm of the values (as that of their squares, the papers' log MSE, but for a factor) over
    /// `range`, and each value in its field.
    pub fn draw(&self, area: &Canvas, range: [f64; 2]) -> Drawn {
        let [left, top] = self.corner();
        let [width, height] = FIELD;
        words(area, self.title, [GAP, 14], Words { size: TEXT + 2, ..Words::LEFT })?;
        words(area, self.axes[1], [left, 38], Words::LEFT)?;
        words(area, self.axes[0], [GAP, 38], Words::LEFT)?;
        for (j, name) in self.column_names.iter().enumerate() {
            let line = self.name_lines() - 1 - j as i32 % self.name_lines();
            let at = [left + j as i32 * width + width / 2, top - (line + 1) * LINE + LINE / 2 - 2];
            words(area, name, at, Words::CENTRE)?;
        }
        for (i, (name, values)) in self.row_names.iter().zip(self.values).enumerate() {
            let y = top + i as i32 * height;
            words(
                area,
                name,
                [left - GAP, y + height / 2],
                Words { horizontal: HPos::Right, ..Words::LEFT },
            )?;
            for (j, &value) in values.iter().enumerate() {
                let x = left + j as i32 * width;
                let colour = level(value, range).map_or(colour::HATCH[1], colour::inferno);
                area.draw(&Rectangle::new([(x, y), (x + width - 1, y + height - 1)], rgb(colour).filled()))?;
                let text = if value.is_finite() { format!("{value:.1}") } else { "–".to_owned() };
                let bright = colour.iter().map(|&c| u32::from(c)).sum::<u32>() > 380;
                let ink = if bright { colour::INK } else { colour::PAPER };
                words(area, &text, [x + width / 2, y + height / 2], Words { ink, ..Words::CENTRE })?;
            }
        }
        Ok(())
    }
}

/// Width of the longest of some names, picture pixels, about.
fn longest(names: &[String]) -> i32 {
    names.iter().map(|name| name.chars().count() as i32 * LETTER).max().unwrap_or(0)
}

/// Where a value lies between the ends of a range on a logarithmic scale, 0 to 1; `None` for what is no number above 0.
fn level(value: f64, [low, high]: [f64; 2]) -> Option<f32> {
    let measured = value.is_finite() && value > 0.0;
    let width = (high / low).ln();
    measured.then(|| if width > 0.0 { ((value / low).ln() / width).clamp(0.0, 1.0) as f32 } else { 0.5 })
}

/// The smallest and the largest of the numbers above 0.
pub(super) fn range<'a>(values: impl IntoIterator<Item = &'a f64>) -> [f64; 2] {
    let measured = values.into_iter().filter(|value| value.is_finite() && **value > 0.0);
    measured.fold([f64::MAX, f64::MIN_POSITIVE], |[low, high], value| [low.min(*value), high.max(*value)])
}

/// Writes heat maps side by side, in one range of colours, as `dir/name.png`.
///
/// # Errors
/// When the picture cannot be drawn or written.
pub(super) fn write_heat_maps(dir: &Path, name: &str, maps: &[HeatMap<'_>]) -> Result<PathBuf, FigureError> {
    let sizes: Vec<(u32, u32)> = maps.iter().map(HeatMap::size).collect();
    let width = sizes.iter().map(|size| size.0).sum::<u32>().max(1);
    let height = sizes.iter().map(|size| size.1).max().unwrap_or(1);
    let range = range(maps.iter().flat_map(|map| map.values.iter().flatten()));
    write_chart(dir, name, (width, height), |canvas| {
        let mut left = 0;
        for (map, (width, height)) in maps.iter().zip(sizes) {
            map.draw(&canvas.clone().shrink((left, 0), (width, height)), range)?;
            left += width as i32;
        }
        Ok(())
    })
}

/// Images side by side under one name.
#[derive(Debug)]
pub(super) struct ImageRow {
    pub name: String,
    /// What each image is, and its values `[row, col]`.
    pub images: Vec<(String, Array2<f32>)>,
}

/// Writes rows of images as `dir/name.png`, every image from its own smallest to its own largest value.
///
/// # Errors
/// When the picture cannot be drawn or written.
pub(super) fn write_montage(
    dir: &Path,
    name: &str,
    rows: &[ImageRow],
    colour: fn(f32) -> Rgb,
) -> Result<PathBuf, FigureError> {
    let columns = rows.iter().map(|row| row.images.len()).max().unwrap_or(0) as i32;
    let [width, height] = [IMAGE + GAP, IMAGE + CAPTION + GAP];
    let size =
        [ROW_NAME + columns * width + GAP, rows.len() as i32 * height + GAP].map(|side| side.max(1) as u32);
    write_chart(dir, name, (size[0], size[1]), |canvas| {
        for (i, row) in rows.iter().enumerate() {
            let top = GAP + i as i32 * height;
            words(canvas, &row.name, [GAP, top + CAPTION + IMAGE / 2], Words::LEFT)?;
            for (j, (caption, image)) in row.images.iter().enumerate() {
                let left = ROW_NAME + j as i32 * width;
                words(canvas, caption, [left + IMAGE / 2, top + CAPTION / 2], Words::CENTRE)?;
                picture(canvas, [left, top + CAPTION], IMAGE, image.view(), colour)?;
            }
        }
        Ok(())
    })
}

/// An image whose longer side becomes `side` picture pixels, its corner at `[x, y]`; NaN stays white.
fn picture(
    area: &Canvas,
    [left, top]: [i32; 2],
    side: i32,
    image: ArrayView2<f32>,
    colour: fn(f32) -> Rgb,
) -> Drawn {
    let (rows, cols) = image.dim();
    let finite = image.iter().copied().filter(|value| value.is_finite());
    let [dark, bright] = finite.fold([f32::MAX, f32::MIN], |[low, high], v| [low.min(v), high.max(v)]);
    let scale = rows.max(cols).max(1) as f64 / f64::from(side);
    let place = |pixel: i32| ((f64::from(pixel) + 0.5) * scale) as usize;
    for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
        let Some(value) = image.get([place(y), place(x)]).filter(|value| value.is_finite()) else { continue };
        let level = (value - dark) / (bright - dark).max(f32::MIN_POSITIVE);
        area.draw_pixel((left + x, top + y), &rgb(colour(level)))?;
    }
    Ok(())
}

/// Black, grey, white.
pub(super) fn grey(level: f32) -> Rgb {
    [(level.clamp(0.0, 1.0) * 255.0).round() as u8; 3]
}

/// How words stand at their place.
#[derive(Clone, Copy)]
pub(super) struct Words {
    pub size: u32,
    pub ink: Rgb,
    pub horizontal: HPos,
}

impl Words {
    pub const LEFT: Self = Self { size: TEXT, ink: colour::INK, horizontal: HPos::Left };
    pub const CENTRE: Self = Self { horizontal: HPos::Center, ..Self::LEFT };
}

/// Words whose middle line is at `[x, y]`, picture pixels.
pub(super) fn words(area: &Canvas, text: &str, [x, y]: [i32; 2], how: Words) -> Drawn {
    let ink = rgb(how.ink);
    let style =
        TextStyle::from((FONT, how.size).into_font()).color(&ink).pos(Pos::new(how.horizontal, VPos::Center));
    area.draw(&Text::new(text.to_owned(), (x, y), style))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_logarithm() {
        assert_eq!(range(&[4.0, f64::NAN, 0.0, 16.0]), [4.0, 16.0]);
        assert!((level(8.0, [4.0, 16.0]).unwrap() - 0.5).abs() < 1e-6);
        assert_eq!((level(4.0, [4.0, 4.0]), level(f64::NAN, [4.0, 16.0])), (Some(0.5), None));
    }

    #[test]
    fn a_field_lies_where_its_row_and_column_cross() {
        let folder = tempfile::tempdir().unwrap();
        let names = |of: &[&str]| of.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let column_names = names(&["p", "q", "a name longer than a field"]);
        let row_names = names(&["first", "second"]);
        let values = [vec![1.0, 1.0, 1.0], vec![1.0, 1.0, 9.0]];
        let axes = ["trained on", "judged on"];
        let map =
            HeatMap { title: "t", axes, row_names: &row_names, column_names: &column_names, values: &values };
        let corner = map.corner();
        let path = write_heat_maps(folder.path(), "map", &[map]).unwrap();
        let pixels = tiny_skia::Pixmap::load_png(&path).unwrap();
        let at = |i: i32, j: i32| {
            let (x, y) = (corner[0] + j * FIELD[0] + 3, corner[1] + i * FIELD[1] + 3);
            let colour = pixels.pixel(x as u32, y as u32).unwrap();
            [colour.red(), colour.green(), colour.blue()]
        };
        assert_eq!(at(1, 2), colour::inferno(1.0));
        for (i, j) in [(0, 0), (0, 2), (1, 1)] {
            assert_eq!(at(i, j), colour::inferno(0.0), "{i} {j}");
        }
    }

    #[test]
    fn images_stand_in_rows_from_dark_to_bright() {
        let folder = tempfile::tempdir().unwrap();
        let image = Array2::from_shape_fn((2, 2), |(i, j)| (i * 2 + j) as f32);
        let row =
            |n: usize| ImageRow { name: n.to_string(), images: vec![("a".to_owned(), image.clone()); n] };
        let path = write_montage(folder.path(), "rows", &[row(1), row(2)], grey).unwrap();
        let pixels = tiny_skia::Pixmap::load_png(&path).unwrap();
        let grey_at = |row: i32, column: i32, [y, x]: [i32; 2]| {
            let left = ROW_NAME + column * (IMAGE + GAP);
            let top = GAP + row * (IMAGE + CAPTION + GAP) + CAPTION;
            pixels.pixel((left + x) as u32, (top + y) as u32).unwrap().red()
        };
        assert_eq!(grey_at(1, 1, [5, 5]), 0);
        assert_eq!(grey_at(1, 1, [IMAGE - 5, IMAGE - 5]), 255);
        assert_eq!(grey_at(1, 0, [5, IMAGE - 5]), 85);
        // The first row has one image only.
        assert_eq!(grey_at(0, 1, [IMAGE / 2, IMAGE / 2]), 255);
    }
}
