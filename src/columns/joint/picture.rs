//! The columns of the model as a picture: their sum, pixel by pixel or between nodes.

use super::profile::{Part, Profile};
use super::{Pace, Spot};
use ndarray::Array2;
use rayon::prelude::*;

const BAND_ROWS: usize = 16;

/// Rows and columns `from..to` around `centre` within `radius`.
pub(super) fn around(centre: f64, radius: f64, length: usize) -> std::ops::Range<usize> {
    let from = (centre - radius).ceil().max(0.0) as usize;
    let to = ((centre + radius).floor() + 1.0).max(0.0) as usize;
    from.min(length)..to.min(length)
}

/// The sum of all columns.
///
/// # Shapes
/// `[row, col]` of `shape`.
pub(super) fn columns(
    shape: (usize, usize),
    spots: &[Spot],
    profiles: &[Profile; 2],
    pace: Pace,
) -> Array2<f32> {
    let parts = profiles.map(|profile| profile.parts().collect::<Vec<_>>());
    let mut picture = Array2::zeros(shape);
    for number in 0..parts.iter().map(Vec::len).max().unwrap_or(0) {
        let parts = [0, 1].map(|kind: usize| parts[kind].get(number).copied());
        let narrowest = parts.iter().flatten().map(|part| part.narrowest_px()).fold(f64::INFINITY, f64::min);
        // The cores, which come first, are narrow.
        let every = if number == 0 { 1 } else { pace.nodes_px(narrowest) };
        let nodes = (
            shape.0.div_ceil(every) + usize::from(every > 1),
            shape.1.div_ceil(every) + usize::from(every > 1),
        );
        let drawn = draw(nodes, every, spots, parts);
        picture += &if every > 1 { between(&drawn, every, 0.0, shape) } else { drawn };
    }
    picture
}

/// One part of each kind of profile of all columns, at one in `every` rows and columns.
fn draw(shape: (usize, usize), every: usize, spots: &[Spot], parts: [Option<Part>; 2]) -> Array2<f32> {
    let mut picture = Array2::<f32>::zeros(shape);
    let cols = shape.1;
    let Some(pixels) = picture.as_slice_mut() else { return picture };
    let parts = parts.map(|part| part.map(|part| (part, part.reach_px())));
    let scale = every as f64;
    pixels.par_chunks_mut((BAND_ROWS * cols).max(1)).enumerate().for_each(|(band, lines)| {
        let first_row = (band * BAND_ROWS) as f64;
        let height = lines.len() / cols;
        let mut values = vec![0.0; cols];
        for spot in spots.iter().filter(|spot| spot.amplitude > 0.0) {
            let Some((part, reach)) = parts[spot.kind.profile()] else { continue };
            let amplitude = (spot.amplitude * part.weight) as f32;
            for row in around(spot.row / scale - first_row, reach / scale, height) {
                let dr = (row as f64 + first_row) * scale - spot.row;
                let half = (reach * reach - dr * dr).max(0.0).sqrt();
                let reached = around(spot.col / scale, half / scale, cols);
                let values = &mut values[..reached.len()];
                part.along_row([dr, (every * reached.start) as f64 - spot.col], every, values);
                let line = lines[row * cols..(row + 1) * cols].iter_mut().skip(reached.start);
                line.zip(values).for_each(|(pixel, value)| *pixel += amplitude * *value);
            }
        }
    });
    picture
}

/// Straight lines between `nodes`, of which the first lies at `offset` in rows and columns and the others `every` pixels on.
pub(super) fn between(nodes: &Array2<f32>, every: usize, offset: f32, shape: (usize, usize)) -> Array2<f32> {
    // Where a pixel lies among the nodes: the one before it, and how far beyond that.
    let place = |pixel: usize, length: usize| {
        let at = ((pixel as f32 - offset) / every as f32).clamp(0.0, (length - 1) as f32);
        let before = (at as usize).min(length.saturating_sub(2));
        (before, at - before as f32)
    };
    let (rows, cols) = nodes.dim();
    let mut image = Array2::zeros(shape);
    if rows == 0 || cols == 0 {
        return image;
    }
    let across: Vec<(usize, f32)> = (0..shape.1).map(|col| place(col, cols)).collect();
    let mut line = vec![0.0; cols + 1];
    for (row, mut pixels) in image.rows_mut().into_iter().enumerate() {
        let (above, part) = place(row, rows);
        let pair = nodes.row(above).into_iter().zip(nodes.row((above + 1).min(rows - 1)));
        line.iter_mut().zip(pair).for_each(|(value, (a, b))| *value = a + part * (b - a));
        for (pixel, &(before, part)) in pixels.iter_mut().zip(&across) {
            *pixel = line[before] + part * (line[before + 1] - line[before]);
        }
    }
    image
}
