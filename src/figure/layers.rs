//! What is laid over a frame: polarization, flags, tiles, columns, candidates. Each layer draws into a panel whose
//! [`View`] maps frame pixels to picture pixels.

use super::colour::{self, Rgb};
use super::draw::{self, Area, Arrow};
use super::panel::View;
use super::text::{Anchor, Label, Typeface};
use ferrostem_proto::{Candidate, ColumnTable, GridSpec, MistiltMaps, ResultMessage};
use std::ops::Range;
use tiny_skia::Pixmap;

/// The opacity of arrows where the window is flagged as out of distribution.
pub const FLAGGED_OPACITY: f32 = 0.4;
/// The offset that fills a tile is at least this, so that noise in a good image does not look alarming.
const SMALLEST_OFFSET_SCALE_PM: f32 = 10.0;

/// Polarization arrows, centred on their windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrows {
    /// Every how many windows an arrow is drawn, `[rows, cols]`.
    pub stride: [usize; 2],
    /// Picture pixels of an arrow of `full_scale_pm`.
    pub full_length_px: f32,
    pub full_scale_pm: f32,
}

impl Arrows {
    /// Picks windows at least `spacing_px` picture pixels apart, so that arrows of full length do not overlap.
    pub fn plan(view: &View, grid: &GridSpec, spacing_px: f32, full_scale_pm: f32) -> Self {
        let steps = [grid.step_row.abs() as f32 * view.scale_y, grid.step_col.abs() as f32 * view.scale_x];
        let stride = steps.map(|step| if step > 0.0 { (spacing_px / step).ceil().max(1.0) } else { 1.0 });
        let apart = (stride[0] * steps[0]).min(stride[1] * steps[1]);
        Self {
            stride: stride.map(|s| s as usize),
            full_length_px: apart.clamp(spacing_px * 0.5, spacing_px * 1.6),
            full_scale_pm,
        }
    }

    pub fn draw(&self, picture: &mut Pixmap, view: &View, result: &ResultMessage) {
        let [rows, cols] = result.p_x.shape();
        let first = self.stride.map(|s| s / 2);
        for i in (first[0].min(rows.saturating_sub(1))..rows).step_by(self.stride[0]) {
            for j in (first[1].min(cols.saturating_sub(1))..cols).step_by(self.stride[1]) {
                self.draw_one(picture, view, (result, i, j));
            }
        }
    }

    fn draw_one(&self, picture: &mut Pixmap, view: &View, (result, i, j): (&ResultMessage, usize, usize)) {
        let (Some(&p_x), Some(&p_y)) = (result.p_x.get(i, j), result.p_y.get(i, j)) else { return };
        let Some(rgb) = colour::wheel(p_x, p_y, self.full_scale_pm) else { return };
        let length_pm = p_x.hypot(p_y);
        if length_pm == 0.0 {
            return;
        }
        let area = view.cell(&result.grid, i, j);
        let arrow = Arrow {
            centre: (area.x + area.width / 2.0, area.y + area.height / 2.0),
            direction: (p_x / length_pm, p_y / length_pm),
            length: self.full_length_px * (length_pm / self.full_scale_pm).min(1.0),
            width: 3.2 * view.unit,
        };
        let opacity = if is_flagged(result, i, j) { FLAGGED_OPACITY } else { 1.0 };
        arrow.draw(picture, (rgb, opacity));
    }
}

fn is_flagged(result: &ResultMessage, i: usize, j: usize) -> bool {
    result.ood.flag.get(i, j).is_some_and(|flag| *flag != 0)
}

/// Fills every window with the colour of its P; windows without a value are hatched, the frame shows outside the grid.
pub fn polarization_map(picture: &mut Pixmap, view: &View, result: &ResultMessage, full_scale_pm: f32) {
    let colour_at = |i, j| {
        let (p_x, p_y) = (result.p_x.get(i, j)?, result.p_y.get(i, j)?);
        colour::wheel(*p_x, *p_y, full_scale_pm)
    };
    fill_windows(picture, view, &result.grid, |i, j, _| colour_at(i, j));
}

/// The p-value as a heat map, denser where it is smaller, through which the frame's structure stays visible.
pub fn p_value_map(picture: &mut Pixmap, view: &View, result: &ResultMessage) {
    fill_windows(picture, view, &result.grid, |i, j, below| {
        let level = colour::p_value_level(*result.ood.p_value.get(i, j)?)?;
        Some(colour::mix(below, colour::inferno(level), 0.36 + 0.46 * level))
    });
}

/// Paints the pixels of each window with `rgb(i, j, what is below)`; hatched where it gives `None`.
fn fill_windows(
    picture: &mut Pixmap,
    view: &View,
    grid: &GridSpec,
    rgb: impl Fn(usize, usize, Rgb) -> Option<Rgb>,
) {
    let period = 9.0 * view.unit;
    let width = picture.width();
    for (index, pixel) in (0u32..).zip(picture.pixels_mut()) {
        let (x, y) = (index % width, index / width);
        if let Some((i, j)) = view.window_at(grid, x, y) {
            let below = [pixel.red(), pixel.green(), pixel.blue()];
            *pixel = draw::opaque(rgb(i, j, below).unwrap_or_else(|| draw::hatch(x, y, period)));
        }
    }
}

/// Outlines the regions of flagged windows.
pub fn flag_outline(picture: &mut Pixmap, view: &View, result: &ResultMessage) {
    let [rows, cols] = result.ood.flag.shape();
    let ink = (colour::FLAG_OUTLINE, 1.0);
    let width = 2.6 * view.unit;
    for i in 0..rows {
        for j in (0..cols).filter(|j| is_flagged(result, i, *j)) {
            let Area { x, y, width: w, height: h } = view.cell(&result.grid, i, j);
            let (left, top) = (j.checked_sub(1), i.checked_sub(1));
            let neighbours = [
                (top.map(|i| (i, j)), [(x, y), (x + w, y)]),
                (Some((i + 1, j)), [(x, y + h), (x + w, y + h)]),
                (left.map(|j| (i, j)), [(x, y), (x, y + h)]),
                (Some((i, j + 1)), [(x + w, y), (x + w, y + h)]),
            ];
            for (neighbour, edge) in neighbours {
                if !neighbour.is_some_and(|(i, j)| is_flagged(result, i, j)) {
                    draw::line(picture, edge, ink, width);
                }
            }
        }
    }
}

/// Outlines rows and columns of the frame.
pub fn area_outline(picture: &mut Pixmap, view: &View, [rows, cols]: &[Range<usize>; 2]) {
    let [x, right] = [cols.start, cols.end].map(|col| col as f32 * view.scale_x);
    let [y, bottom] = [rows.start, rows.end].map(|row| row as f32 * view.scale_y);
    let area = Area { x, y, width: right - x, height: bottom - y };
    draw::outline_area(picture, area, (colour::PAPER, 1.0), 2.6 * view.unit);
}

/// The offset, pm, whose arrow is as long as a tile.
pub fn offset_scale_pm(mistilt: &MistiltMaps) -> f32 {
    let offsets = mistilt.offset_x.values().iter().zip(mistilt.offset_y.values());
    let largest = offsets.map(|(x, y)| x.hypot(*y)).filter(|l| l.is_finite()).fold(0.0, f32::max);
    largest.max(SMALLEST_OFFSET_SCALE_PM).ceil()
}

/// Tiles coloured by state, with the common offset of P as an arrow and its p-value where there is room.
pub fn mistilt_tiles(picture: &mut Pixmap, face: &Typeface, view: &View, mistilt: &MistiltMaps) {
    let [rows, cols] = mistilt.state.shape();
    let scale_pm = offset_scale_pm(mistilt);
    for i in 0..rows {
        for j in 0..cols {
            draw_tile(picture, face, (view, mistilt, scale_pm), (i, j));
        }
    }
}

fn draw_tile(
    picture: &mut Pixmap,
    face: &Typeface,
    (view, mistilt, scale_pm): (&View, &MistiltMaps, f32),
    (i, j): (usize, usize),
) {
    let area = view.cell(&mistilt.tiles, i, j);
    let state = mistilt.state.get(i, j).copied().unwrap_or(0);
    let (rgb, _) = colour::tile_state(state);
    draw::fill_area(picture, area, (rgb, if state == 0 { 0.25 } else { 0.42 }));
    draw::outline_area(picture, area, (rgb, 0.95), 1.6 * view.unit);

    let offset = mistilt.offset_x.get(i, j).zip(mistilt.offset_y.get(i, j));
    let (x, y) = offset.map_or((f32::NAN, f32::NAN), |(x, y)| (*x, *y));
    let length_pm = x.hypot(y);
    let centre = (area.x + area.width / 2.0, area.y + area.height / 2.0);
    if length_pm.is_finite() && length_pm > 0.0 {
        let arrow = Arrow {
            centre,
            direction: (x / length_pm, y / length_pm),
            length: area.width.min(area.height) * 0.92 * (length_pm / scale_pm).min(1.0),
            width: 4.0 * view.unit,
        };
        arrow.draw(picture, (colour::PAPER, 1.0));
    }
    let p_value = mistilt.p_value.get(i, j).copied().unwrap_or(f32::NAN);
    let size = 13.0 * view.unit;
    let text = format!("p {}", p_value_text(p_value));
    if !p_value.is_nan() && face.width(&text, size, false) < area.width * 0.92 && area.height > size * 3.0 {
        let label = Label {
            text: &text,
            x: area.x + 5.0 * view.unit,
            y: area.y + size + 3.0 * view.unit,
            size,
            colour: colour::PAPER,
            anchor: Anchor::Start,
            bold: false,
            rim: true,
        };
        face.draw(picture, &label);
    }
}

/// A p-value in two digits, very small ones as a bound.
pub fn p_value_text(p_value: f32) -> String {
    match p_value {
        p if p.is_nan() => "–".to_owned(),
        p if p < 1e-4 => "< 0.0001".to_owned(),
        p if p < 0.01 => format!("{p:.4}"),
        p => format!("{p:.2}"),
    }
}

/// Both sublattices as dots, paler where the network is less sure. Their size follows their mean distance.
pub fn columns(picture: &mut Pixmap, view: &View, table: &ColumnTable) {
    let spacing = (view.width as f32 * view.height as f32 / table.row.len().max(1) as f32).sqrt();
    let radius = (spacing * 0.15).clamp(1.2, 6.0 * view.unit);
    let positions = table.row.iter().zip(&table.col);
    for ((row, col), (class, confidence)) in positions.zip(table.class.iter().zip(&table.confidence)) {
        if !(row.is_finite() && col.is_finite()) {
            continue;
        }
        let rgb = if *class == 1 { colour::A_COLUMN } else { colour::B_COLUMN };
        let centre = view.at(f64::from(*row), f64::from(*col));
        let opacity = 0.35 + 0.65 * if confidence.is_nan() { 0.0 } else { confidence.clamp(0.0, 1.0) };
        draw::ring(picture, centre, radius, (([0, 0, 0], 0.6 * opacity), radius * 0.5));
        draw::dot(picture, centre, radius, (rgb, opacity));
    }
}

/// Candidates as rings in the colour of their kind, with their ids beside them.
pub fn candidates(picture: &mut Pixmap, face: &Typeface, view: &View, list: &[Candidate]) {
    let (radius, size) = (17.0 * view.unit, 19.0 * view.unit);
    for candidate in list.iter().filter(|c| c.px.row.is_finite() && c.px.col.is_finite()) {
        let (rgb, _) = colour::kind(candidate.kind);
        let (x, y) = view.at(candidate.px.row, candidate.px.col);
        draw::ring(picture, (x, y), radius, (([0, 0, 0], 0.7), 6.5 * view.unit));
        draw::ring(picture, (x, y), radius, ((rgb, 1.0), 3.4 * view.unit));
        let id = candidate.id.to_string();
        let beside = x + radius + 6.0 * view.unit;
        let fits = beside + face.width(&id, size, true) < view.width as f32;
        let label = Label {
            text: &id,
            x: if fits { beside } else { x - radius - 6.0 * view.unit },
            y: (y - radius * 0.45).max(size),
            size,
            colour: rgb,
            anchor: if fits { Anchor::Start } else { Anchor::End },
            bold: true,
            rim: true,
        };
        face.draw(picture, &label);
    }
}
