//! How much of the columns' height is tail.
//!
//! Tails draw every column toward its neighbours: 20 % of tail make P wrong by 1 pm. In a crystal their sum is nearly flat, and columns
//! of other widths and places make up for most of the rest, so that the sum of squares tells of the tail only when all else follows
//! it. It is therefore looked for from outside, along the valley: fits with some tails held, and the vertex of the parabola through
//! what they leave over.

use super::Fitting;
use super::shape::{EDGE_CELLS, SIDE_PX};
use crate::columns::{BeyondColumn, FoundColumns};
use crate::frame::Column;
use ndarray::{Array2, s};

/// Tails that are tried first, and the most that is believed.
const TRIED: [f64; 3] = [0.0, 0.15, 0.3];
const MOST: f64 = 0.5;
/// What is known before a frame is seen, mean and standard deviation: probe and thermal vibration always leave some.
const PRIOR: [f64; 2] = [0.1, 0.1];
/// Parabolas after the first.
const REFINEMENTS: usize = 2;

/// The tail's part of the height, from the middle of the frame.
pub(super) fn fraction(pixels: &Array2<f32>, found: &FoundColumns, cell_px: f64) -> f64 {
    let (middle, columns) = middle(pixels, found, cell_px);
    let mut fit = Fitting::start(&middle, &columns, cell_px, TRIED[0]);
    fit.settle(None);
    let noise = fit.model.noise;
    let mut left_over = |tail: f64| {
        fit.model.profiles.iter_mut().for_each(|profile| profile.tail = tail);
        fit.settle(Some(noise));
        fit.left_over() + ((tail - PRIOR[0]) / PRIOR[1]).powi(2)
    };
    let mut tried = TRIED.map(|tail| (tail, left_over(tail)));
    for _ in 0..REFINEMENTS {
        let Some(vertex) = vertex(&tried) else { break };
        let vertex = vertex.clamp(0.0, MOST);
        if tried.iter().any(|(tail, _)| (tail - vertex).abs() < 1e-3) {
            return vertex;
        }
        // In place of the worst.
        tried.sort_by(|a, b| a.1.total_cmp(&b.1));
        tried[2] = (vertex, left_over(vertex));
    }
    vertex(&tried).map_or(tried[0].0, |vertex| vertex.clamp(0.0, MOST))
}

/// Where the parabola through three points is lowest; `None` if nowhere.
fn vertex(points: &[(f64, f64); 3]) -> Option<f64> {
    let [(x0, y0), (x1, y1), (x2, y2)] = *points;
    let (d1, d2) = ((y1 - y0) / (x1 - x0), (y2 - y0) / (x2 - x0));
    let curvature = (d2 - d1) / (x2 - x1);
    let at = 0.5 * (x0 + x1 - d1 / curvature);
    (curvature > 0.0 && at.is_finite()).then_some(at)
}

/// The middle of a frame, with the columns around it as those beyond its edge.
fn middle(pixels: &Array2<f32>, found: &FoundColumns, cell_px: f64) -> (Array2<f32>, FoundColumns) {
    let side = SIDE_PX + 2 * (EDGE_CELLS * cell_px) as usize;
    let (rows, cols) = pixels.dim();
    if rows <= side && cols <= side {
        return (pixels.clone(), found.clone());
    }
    let [rows, cols] = [rows, cols].map(|length| {
        let from = length.saturating_sub(side) / 2;
        from..(from + side).min(length)
    });
    let moved = |column: &Column| Column {
        row: column.row - rows.start as f64,
        col: column.col - cols.start as f64,
        ..*column
    };
    let inside = |column: &Column| {
        let within = |x: f64, length: usize| (-0.5..length as f64 - 0.5).contains(&x);
        within(column.row, rows.len()) && within(column.col, cols.len())
    };
    let everything = found.columns.iter().chain(found.beyond.iter().map(|beyond| &beyond.column)).map(moved);
    let (columns, outside): (Vec<Column>, Vec<Column>) = everything.partition(inside);
    let reach = 2.0 * cell_px;
    let beyond = outside
        .into_iter()
        .filter_map(|column| {
            let distance = |other: &Column| (other.row - column.row).hypot(other.col - column.col);
            let (parent, other) = columns
                .iter()
                .enumerate()
                .filter(|(_, other)| other.sublattice == column.sublattice && distance(other) < reach)
                .min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)))?;
            Some(BeyondColumn { column, parent, step: [column.row - other.row, column.col - other.col] })
        })
        .collect();
    (pixels.slice(s![rows, cols]).to_owned(), FoundColumns { columns, beyond })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vertex_of_a_parabola() {
        let parabola = |x: f64| (x, 3.0 * (x - 0.17).powi(2) + 5.0);
        assert!((vertex(&[0.0, 0.15, 0.3].map(parabola)).unwrap() - 0.17).abs() < 1e-12);
        assert_eq!(vertex(&[(0.0, 1.0), (0.1, 2.0), (0.2, 2.5)]), None);
        assert_eq!(vertex(&[(0.0, 1.0), (0.1, 1.0), (0.2, 1.0)]), None);
    }
}
