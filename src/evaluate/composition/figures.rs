//! The cross matrices and the maps of the extremes as pictures.

use super::{Study, pairs};
use crate::evaluate::EvaluateError;
use crate::evaluate::drawing::{Drawn, HeatMap, LETTER, Words, words, write_heat_maps};
use crate::evaluate::stacks::{Centring, Spot};
use crate::figure::chart::{Canvas, rgb, write_chart};
use crate::figure::colour;
use plotters::prelude::*;
use std::path::{Path, PathBuf};

/// Height of the largest map and room for the words above it, picture pixels.
const MAP: i32 = 420;
const CAPTION: i32 = 26;
const GAP: i32 = 10;
/// Of the true P_x, this fraction lies within the colours.
const SHOWN: f64 = 0.99;

/// P_x of spots.
type Value = fn(&Spot) -> f64;

impl Study {
    /// Writes `composition.png`, the two matrices (figure 8, a and b), and `composition_maps.png`, P_x of the extremes as it is and as the
    /// networks of both stacks predict it (figure 8, I to VIII).
    ///
    /// # Errors
    /// When a picture cannot be drawn or written.
    pub fn draw(&self, dir: &Path) -> Result<Vec<PathBuf>, EvaluateError> {
        let titles: Vec<String> = self
            .matrices
            .iter()
            .map(|matrix| format!("{}: RMS error of P (pm)", matrix.centring.name()))
            .collect();
        let maps: Vec<HeatMap> = self
            .matrices
            .iter()
            .zip(&titles)
            .map(|(matrix, title)| HeatMap {
                title,
                axes: ["trained on", "judged on"],
                row_names: &self.names,
                column_names: &self.names,
                values: &matrix.rms_pm,
            })
            .collect();
        Ok(vec![write_heat_maps(dir, "composition", &maps)?, self.draw_maps(dir)?])
    }

    fn draw_maps(&self, dir: &Path) -> Result<PathBuf, EvaluateError> {
        let pairs = pairs(&self.names);
        let [rows, cols] =
            self.shapes.iter().fold([1, 1], |[rows, cols], [r, c]| [rows.max(*r), cols.max(*c)]);
        let scale = f64::from(MAP) / rows as f64;
        // Wide enough for `NC, NAME on NAME`.
        let words_width =
            self.names.iter().map(|name| 2 * name.chars().count() as i32 + 10).max().unwrap_or(0);
        let width = ((cols as f64 * scale).ceil() as i32).max(words_width * LETTER);
        let half = self.half_range();
        let size = [pairs.len() as i32 * (width + GAP) + GAP, 3 * (MAP + CAPTION + GAP) + GAP];
        let draw = |canvas: &Canvas| -> Drawn {
            for (index, &[trained, judged]) in pairs.iter().enumerate() {
                let name = |image: usize| self.names.get(image).map_or("", String::as_str);
                let left = GAP + index as i32 * (width + GAP);
                let truth: Value = |spot| spot.truth[0];
                let predicted: Value = |spot| spot.predicted[0];
                let of = |centring| self.map(centring, index);
                let panels = [
                    (format!("{}: true P_x, ±{half:.0} pm", name(judged)), of(Centring::NotCentred), truth),
                    (
                        format!("NC, {} on {}", name(trained), name(judged)),
                        of(Centring::NotCentred),
                        predicted,
                    ),
                    (format!("C, {} on {}", name(trained), name(judged)), of(Centring::Centred), predicted),
                ];
                let [rows, cols] = self.shapes.get(judged).copied().unwrap_or([1, 1]);
                for (k, (title, spots, value)) in panels.iter().enumerate() {
                    let top = GAP + k as i32 * (MAP + CAPTION + GAP);
                    words(canvas, title, [left, top + CAPTION / 2], Words { size: 13, ..Words::LEFT })?;
                    let corner = [left, top + CAPTION];
                    let panel = Panel { corner, scale, shape: [rows, cols], half_range: half };
                    panel.draw(canvas, spots, *value)?;
                }
            }
            Ok(())
        };
        let size = size.map(|side| side.max(1) as u32);
        Ok(write_chart(dir, "composition_maps", (size[0], size[1]), draw)?)
    }

    fn map(&self, centring: Centring, pair: usize) -> &[Spot] {
        let matrix = self.matrices.iter().find(|matrix| matrix.centring == centring);
        matrix.and_then(|matrix| matrix.maps.get(pair)).map_or(&[], Vec::as_slice)
    }

    /// Half the range of the colours, pm: what most of the true P_x on the maps lie within.
    fn half_range(&self) -> f64 {
        let maps = self.matrices.iter().flat_map(|matrix| matrix.maps.iter().flatten());
        let mut sizes: Vec<f64> = maps.map(|spot| spot.truth[0].abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let last = sizes.len().saturating_sub(1);
        sizes.get((SHOWN * last as f64) as usize).copied().unwrap_or(1.0).max(1e-3)
    }
}

/// A map of single places.
struct Panel {
    /// `[x, y]`, picture pixels.
    corner: [i32; 2],
    /// Picture pixels a pixel of the image.
    scale: f64,
    /// `[rows, cols]` of the image.
    shape: [usize; 2],
    half_range: f64,
}

impl Panel {
    /// A square around each spot, together about as large as the image, blue for negative values, red for positive ones.
    fn draw(&self, canvas: &Canvas, spots: &[Spot], value: Value) -> Drawn {
        let [left, top] = self.corner;
        let [height, width] = self.shape.map(|side| (side as f64 * self.scale).round() as i32);
        let half =
            0.5 * self.scale * ((self.shape[0] * self.shape[1]) as f64 / spots.len().max(1) as f64).sqrt();
        for spot in spots {
            let level = 0.5 + 0.5 * value(spot) / self.half_range;
            let colour =
                if level.is_finite() { colour::blue_white_red(level as f32) } else { colour::HATCH[1] };
            let place = |at: f64, first: i32, size: i32| {
                let [low, high] = [at * self.scale - half, at * self.scale + half];
                [low, high].map(|edge| first + (edge.round() as i32).clamp(0, size))
            };
            let [x0, x1] = place(spot.col, left, width);
            let [y0, y1] = place(spot.row, top, height);
            canvas.draw(&Rectangle::new([(x0, y0), (x1, y1)], rgb(colour).filled()))?;
        }
        let frame = Rectangle::new([(left, top), (left + width, top + height)], rgb(colour::FAINT_INK));
        canvas.draw(&frame)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::invented;

    #[test]
    fn the_figures_are_written_and_the_colours_are_those_of_the_truth() {
        let folder = tempfile::tempdir().unwrap();
        let study = invented();
        assert_eq!(study.half_range(), 3.0);
        for path in study.draw(folder.path()).unwrap() {
            let pixels = tiny_skia::Pixmap::load_png(&path).unwrap();
            let first = pixels.pixels()[0];
            assert!(pixels.pixels().iter().any(|pixel| *pixel != first), "{} is empty", path.display());
        }
    }
}
