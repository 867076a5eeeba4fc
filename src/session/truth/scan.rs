//! Where the beam really went, as rows of tables: what a [`ScanField`] keeps.

use crate::simulate::{ScanField, WithinLine};
use hdf5::H5Type;

/// What one line of a scan did. Pixel `(row, col)` shows what a perfect scan would have shown at `(row + y, col + x)`, with
/// `x = x_px + flyback_px + hum_x_px · h`, `y = y_px + hum_y_px · h` and
/// `h = hum_sin · col_hum_cos_less_1 + hum_cos · col_hum_sin`, of which the last two and `flyback_px` are in [`LinePixelRow`].
#[derive(H5Type, Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct LineRow {
    pub frame: u32,
    pub row: u32,
    /// Displacement of the middle of the line.
    pub x_px: f64,
    pub y_px: f64,
    /// Amplitude of the hum; 0 where it does not change along a line.
    pub hum_x_px: f64,
    pub hum_y_px: f64,
    /// Sine and cosine of the hum's phase in the middle of the line.
    pub hum_sin: f64,
    pub hum_cos: f64,
    /// Current of the probe over its mean.
    pub current: f32,
    /// 1 where the line did not arrive.
    pub lost: u8,
}

/// What a line's displacement changes by along it, the same in every line but for the hum's phase.
#[derive(H5Type, Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct LinePixelRow {
    pub frame: u32,
    pub col: u32,
    pub flyback_px: f64,
    pub col_hum_sin: f64,
    pub col_hum_cos_less_1: f64,
}

pub(super) const LINE_UNITS: [(&str, &str); 5] =
    [("row", "px"), ("x_px", "px"), ("y_px", "px"), ("hum_x_px", "px"), ("hum_y_px", "px")];
pub(super) const LINE_PIXEL_UNITS: [(&str, &str); 2] = [("col", "px"), ("flyback_px", "px")];

/// One row a line of a scan of `rows` lines; none for a scan that went where it was told.
pub(super) fn line_rows(frame: u32, scan: &ScanField, rows: usize) -> Vec<LineRow> {
    if *scan == ScanField::default() {
        return Vec::new();
    }
    let row = |row: usize| {
        let [x_px, y_px] = scan.line_px(row);
        let within = scan.within.as_ref();
        let [hum_x_px, hum_y_px] = within.map_or([0.0; 2], |within| within.hum_px);
        let [hum_sin, hum_cos] =
            within.and_then(|within| within.line_phase.get(row).copied()).unwrap_or([0.0, 1.0]);
        LineRow {
            frame,
            row: row as u32,
            x_px,
            y_px,
            hum_x_px,
            hum_y_px,
            hum_sin,
            hum_cos,
            current: scan.current.get(row).copied().unwrap_or(1.0),
            lost: u8::from(scan.lost.binary_search(&row).is_ok()),
        }
    };
    (0..rows).map(row).collect()
}

pub(super) fn line_pixel_rows(frame: u32, scan: &ScanField) -> Vec<LinePixelRow> {
    let Some(within) = &scan.within else { return Vec::new() };
    let columns = (0..).zip(within.flyback_px.iter().zip(&within.col_phase));
    columns
        .map(|(col, (&flyback_px, &[col_hum_sin, col_hum_cos_less_1]))| LinePixelRow {
            frame,
            col,
            flyback_px,
            col_hum_sin,
            col_hum_cos_less_1,
        })
        .collect()
}

/// The scan that has these rows; what no line has is left empty, as the simulator does.
pub(super) fn scan_field(lines: &[LineRow], pixels: &[LinePixelRow]) -> ScanField {
    let within = lines.first().filter(|_| !pixels.is_empty()).map(|first| WithinLine {
        flyback_px: pixels.iter().map(|pixel| pixel.flyback_px).collect(),
        hum_px: [first.hum_x_px, first.hum_y_px],
        line_phase: lines.iter().map(|line| [line.hum_sin, line.hum_cos]).collect(),
        col_phase: pixels.iter().map(|pixel| [pixel.col_hum_sin, pixel.col_hum_cos_less_1]).collect(),
    });
    let moved = lines.iter().any(|line| line.x_px != 0.0 || line.y_px != 0.0);
    let flickered = lines.iter().any(|line| line.current != 1.0);
    let displaced = |of: fn(&LineRow) -> f64| lines.iter().filter(|_| moved).map(of).collect();
    ScanField {
        line_x_px: displaced(|line| line.x_px),
        line_y_px: displaced(|line| line.y_px),
        within,
        current: lines.iter().filter(|_| flickered).map(|line| line.current).collect(),
        lost: lines.iter().filter(|line| line.lost != 0).map(|line| line.row as usize).collect(),
    }
}
