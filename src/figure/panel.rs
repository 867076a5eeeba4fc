//! One frame as a picture: how frame pixels map to picture pixels, the grey image itself, and its scale bar.

use super::colour::{self, Rgb};
use super::draw::{self, Area};
use super::text::{Anchor, Label, Typeface};
use super::{FigureError, FigureSettings};
use crate::frame::grid_centre;
use ferrostem_proto::{Calibration, CalibrationSource, GridSpec, PixelPosition};
use ndarray::Array2;
use tiny_skia::Pixmap;

/// How frame pixels map to the pixels of a panel; both axes have the same physical scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Picture pixels a frame pixel.
    pub scale_x: f32,
    pub scale_y: f32,
    pub width: u32,
    pub height: u32,
    /// Grows with the picture, so that lines and text keep their share of it; 1 for a panel of 900 px.
    pub unit: f32,
}

/// A scale bar: a round length and how long that is in the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleBar {
    pub label: String,
    pub length_px: f32,
}

/// Weights with which the samples of one axis make up one picture pixel.
type Taps = Vec<(usize, f32)>;

impl View {
    /// Fits a frame of `shape` = `[rows, cols]` so that its longer side has between `sides[0]` and `sides[1]` picture
    /// pixels. Pixels that are known not to be square are drawn with their true proportions.
    ///
    /// # Errors
    /// When the frame is empty.
    pub fn fit(
        shape: (usize, usize),
        calibration: &Calibration,
        sides: [f32; 2],
        unit: f32,
    ) -> Result<Self, FigureError> {
        let (rows, cols) = shape;
        if rows == 0 || cols == 0 {
            return Err(FigureError::EmptyFrame { rows, cols });
        }
        let stretch = match pixel_size(calibration) {
            Some([row_pm, col_pm]) => ((row_pm / col_pm) as f32).clamp(0.1, 10.0),
            None => 1.0,
        };
        let (natural_width, natural_height) = (cols as f32, rows as f32 * stretch);
        let side = natural_width.max(natural_height);
        let scale = side.clamp(sides[0], sides[1]) / side;
        let (scale_x, scale_y) = (scale, scale * stretch);
        Ok(Self {
            scale_x,
            scale_y,
            width: (natural_width * scale).round().max(1.0) as u32,
            height: (natural_height * scale).round().max(1.0) as u32,
            unit: unit * side * scale / 900.0,
        })
    }

    /// Picture position of a frame position; integers are pixel centres.
    pub fn at(&self, row: f64, col: f64) -> (f32, f32) {
        ((col as f32 + 0.5) * self.scale_x, (row as f32 + 0.5) * self.scale_y)
    }

    /// The window or tile `(i, j)` of `grid`: half a step to each side of its centre.
    pub fn cell(&self, grid: &GridSpec, i: usize, j: usize) -> Area {
        let PixelPosition { row, col } = grid_centre(grid, i, j);
        let centre = self.at(row, col);
        let (width, height) =
            (grid.step_col.abs() as f32 * self.scale_x, grid.step_row.abs() as f32 * self.scale_y);
        Area { x: centre.0 - width / 2.0, y: centre.1 - height / 2.0, width, height }
    }

    /// The window of `grid` that picture pixel `(x, y)` lies in, `None` outside all of them.
    pub fn window_at(&self, grid: &GridSpec, x: u32, y: u32) -> Option<(usize, usize)> {
        let row = (f64::from(y) + 0.5) / f64::from(self.scale_y) - 0.5;
        let col = (f64::from(x) + 0.5) / f64::from(self.scale_x) - 0.5;
        let nearest = |position: f64, first: f64, step: f64, count: u32| {
            let index = ((position - first) / step + 0.5).floor();
            (index >= 0.0 && index < f64::from(count)).then_some(index as usize)
        };
        Some((
            nearest(row, grid.row0, grid.step_row, grid.rows)?,
            nearest(col, grid.col0, grid.step_col, grid.cols)?,
        ))
    }
}

/// `[row, col]` in pm, `None` where it is not known.
fn pixel_size(calibration: &Calibration) -> Option<[f64; 2]> {
    let usable = calibration.source != CalibrationSource::None
        && calibration.pixel_size_pm.iter().all(|pm| pm.is_finite() && *pm > 0.0);
    usable.then_some(calibration.pixel_size_pm)
}

/// The frame in grey, `brightness` (0..1) times full range between the percentiles of `settings`; NaN hatched.
pub fn frame_picture(
    frame: &Array2<f32>,
    view: &View,
    settings: &FigureSettings,
    brightness: f32,
) -> Result<Pixmap, FigureError> {
    let mut picture = Pixmap::new(view.width, view.height)
        .ok_or(FigureError::PictureSize { width: view.width, height: view.height })?;
    let [dark, bright] = contrast(frame, settings.contrast_percent);
    let period = 9.0 * view.unit;
    let rows = axis_taps(frame.nrows(), view.scale_y, view.height);
    let cols = axis_taps(frame.ncols(), view.scale_x, view.width);
    let pixels = picture.pixels_mut().chunks_exact_mut(view.width as usize);
    for ((y, row_taps), line) in rows.iter().enumerate().zip(pixels) {
        for ((x, col_taps), pixel) in cols.iter().enumerate().zip(line) {
            let rgb = match weighted_mean(frame, row_taps, col_taps) {
                Some(value) => grey((value - dark) / (bright - dark), brightness),
                None => draw::hatch(x as u32, y as u32, period),
            };
            *pixel = draw::opaque(rgb);
        }
    }
    Ok(picture)
}

fn grey(level: f32, brightness: f32) -> Rgb {
    [(level.clamp(0.0, 1.0) * brightness * 255.0).round() as u8; 3]
}

/// The values drawn black and white. A frame without contrast comes out mid-grey.
fn contrast(frame: &Array2<f32>, percent: [f32; 2]) -> [f32; 2] {
    let mut values: Vec<f32> = frame.iter().copied().filter(|v| v.is_finite()).collect();
    if values.is_empty() {
        return [0.0, 1.0];
    }
    let last = (values.len() - 1) as f32;
    let [dark, bright] = percent.map(|p| {
        let rank = (last * p / 100.0).round() as usize;
        *values.select_nth_unstable_by(rank, f32::total_cmp).1
    });
    if bright > dark { [dark, bright] } else { [dark - 1.0, dark + 1.0] }
}

/// Linear interpolation where the picture is finer than the frame, the mean over the covered samples where it is coarser.
fn axis_taps(samples: usize, scale: f32, pixels: u32) -> Vec<Taps> {
    let last = samples - 1;
    let taps = |pixel: u32| -> Taps {
        if scale >= 1.0 {
            let position = ((pixel as f32 + 0.5) / scale - 0.5).clamp(0.0, last as f32);
            let lower = position as usize;
            let share = position - lower as f32;
            return vec![(lower, 1.0 - share), ((lower + 1).min(last), share)];
        }
        let (from, to) = (pixel as f32 / scale, (pixel + 1) as f32 / scale);
        (from as usize..=(to as usize).min(last))
            .map(|i| (i, (to.min(i as f32 + 1.0) - from.max(i as f32)).max(0.0)))
            .collect()
    };
    (0..pixels).map(taps).collect()
}

/// `None` where more than half of the weight falls on values that are not finite.
fn weighted_mean(frame: &Array2<f32>, rows: &Taps, cols: &Taps) -> Option<f32> {
    let (mut sum, mut measured, mut all) = (0.0, 0.0, 0.0);
    for &(row, row_weight) in rows {
        for &(col, col_weight) in cols {
            let weight = row_weight * col_weight;
            let value = frame[[row, col]];
            all += weight;
            if value.is_finite() {
                sum += weight * value;
                measured += weight;
            }
        }
    }
    (measured > 0.0 && measured >= 0.5 * all).then(|| sum / measured)
}

/// A round length of about a fifth of the panel's width: in nm where the pixel size is known, else in frame pixels.
pub fn scale_bar(view: &View, calibration: &Calibration) -> ScaleBar {
    let target_px = view.width as f32 * 0.22;
    match pixel_size(calibration) {
        Some([_, col_pm]) => {
            let picture_px_per_nm = view.scale_x * 1000.0 / col_pm as f32;
            let nm = round_length(target_px / picture_px_per_nm);
            ScaleBar { label: format!("{nm} nm"), length_px: nm * picture_px_per_nm }
        }
        None => {
            let pixels = round_length(target_px / view.scale_x).max(1.0);
            ScaleBar { label: format!("{pixels} px"), length_px: pixels * view.scale_x }
        }
    }
}

/// The largest of 1, 2, 5 times a power of ten that is not above `length`.
fn round_length(length: f32) -> f32 {
    let decade = 10f32.powf(length.log10().floor());
    let step = [5.0, 2.0, 1.0].into_iter().find(|step| step * decade <= length * 1.0001).unwrap_or(1.0);
    step * decade
}

/// Draws the scale bar into the lower left corner of a panel.
pub fn draw_scale_bar(picture: &mut Pixmap, face: &Typeface, view: &View, calibration: &Calibration) {
    let bar = scale_bar(view, calibration);
    let unit = view.unit;
    let (thickness, inset, size) = (6.0 * unit, 16.0 * unit, 20.0 * unit);
    let (x, y) = (inset, view.height as f32 - inset - thickness);
    let text_width = face.width(&bar.label, size, true);
    let ground = Area {
        x: x - 9.0 * unit,
        y: y - size - 10.0 * unit,
        width: bar.length_px.max(text_width) + 18.0 * unit,
        height: size + thickness + 19.0 * unit,
    };
    draw::fill_area(picture, ground, ([0, 0, 0], 0.62));
    draw::fill_area(picture, Area { x, y, width: bar.length_px, height: thickness }, (colour::PAPER, 1.0));
    let label = Label {
        text: &bar.label,
        x: x + bar.length_px / 2.0,
        y: y - 7.0 * unit,
        size,
        colour: colour::PAPER,
        anchor: Anchor::Middle,
        bold: true,
        rim: false,
    };
    face.draw(picture, &label);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibrated(row_pm: f64, col_pm: f64) -> Calibration {
        Calibration { pixel_size_pm: [row_pm, col_pm], source: CalibrationSource::Frame }
    }

    fn view(shape: (usize, usize), calibration: &Calibration) -> View {
        View::fit(shape, calibration, [900.0, 1500.0], 1.0).unwrap()
    }

    #[test]
    fn the_scale_bar_is_as_long_as_its_label_says() {
        let calibration = calibrated(15.0, 15.0);
        let view = view((512, 512), &calibration);
        let bar = scale_bar(&view, &calibration);
        // 512 px of 15 pm are 7.68 nm; a fifth of that is 1.7 nm, so 1 nm, 66.7 frame pixels.
        assert_eq!(bar.label, "1 nm");
        assert!((bar.length_px - 1000.0 / 15.0 * 900.0 / 512.0).abs() < 0.01, "{}", bar.length_px);

        let mut picture = Pixmap::new(view.width, view.height).unwrap();
        picture.fill(draw::colour(([255, 0, 0], 1.0)));
        draw_scale_bar(&mut picture, &Typeface::new().unwrap(), &view, &calibration);
        let y = (view.height as f32 - 16.0 * view.unit - 3.0 * view.unit) as u32;
        let white = (0..view.width).filter(|x| picture.pixel(*x, y).unwrap().green() > 200).count() as f32;
        assert!((white - bar.length_px).abs() <= 1.5, "drawn {white}, wanted {}", bar.length_px);
    }

    #[test]
    fn without_a_pixel_size_the_bar_counts_pixels() {
        let calibration = Calibration::default();
        let view = view((3000, 3000), &calibration);
        assert_eq!(view.width, 1500);
        let bar = scale_bar(&view, &calibration);
        assert_eq!((bar.label.as_str(), bar.length_px), ("500 px", 250.0));
    }

    #[test]
    fn round_lengths() {
        for (length, round) in
            [(1.7, 1.0), (2.0, 2.0), (4.9, 2.0), (7.0, 5.0), (0.034, 0.02), (1000.0, 1000.0)]
        {
            assert!((round_length(length) / round - 1.0).abs() < 1e-4, "{length} → {}", round_length(length));
        }
    }

    #[test]
    fn pixels_that_are_not_square_keep_their_proportions() {
        let calibration = calibrated(30.0, 15.0);
        let view = view((100, 200), &calibration);
        assert_eq!((view.width, view.height), (900, 900));
        assert_eq!(view.at(0.0, 0.0), (2.25, 4.5));
    }

    #[test]
    fn windows_are_found_under_their_pixels() {
        let view = view((100, 100), &Calibration::default());
        let grid = GridSpec { row0: 20.0, col0: 30.0, step_row: 10.0, step_col: 10.0, rows: 5, cols: 4 };
        for (i, j) in [(0, 0), (4, 3), (2, 1)] {
            let area = view.cell(&grid, i, j);
            let (x, y) = ((area.x + area.width / 2.0) as u32, (area.y + area.height / 2.0) as u32);
            assert_eq!(view.window_at(&grid, x, y), Some((i, j)));
        }
        assert_eq!(view.window_at(&grid, 0, 0), None);
        assert_eq!(view.window_at(&grid, 899, 899), None);
    }

    #[test]
    fn the_frame_is_stretched_between_its_percentiles_and_nan_is_hatched() {
        let hole = 40..60;
        let frame = Array2::from_shape_fn((100, 100), |(row, col)| {
            if hole.contains(&row) && hole.contains(&col) { f32::NAN } else { col as f32 }
        });
        let view = view((100, 100), &Calibration::default());
        let picture = frame_picture(&frame, &view, &FigureSettings::default(), 1.0).unwrap();
        let level = |x, y| picture.pixel(x, y).unwrap().red();
        assert_eq!((level(2, 450), level(897, 450)), (0, 255));
        assert!((i32::from(level(225, 450)) - 63).abs() <= 2, "{}", level(225, 450));
        let hatched = picture.pixel(450, 450).unwrap();
        assert!(hatched.blue() > hatched.red(), "the hatch is bluish, the image grey: {hatched:?}");
        let constant = Array2::from_elem((100, 100), 7.0);
        let picture = frame_picture(&constant, &view, &FigureSettings::default(), 1.0).unwrap();
        assert_eq!(picture.pixel(10, 10).unwrap().red(), 128);
    }

    #[test]
    fn a_shrunk_frame_shows_means() {
        let frame = Array2::from_shape_fn((3000, 3000), |(row, col)| ((row + col) % 2) as f32);
        let view = view((3000, 3000), &Calibration::default());
        let picture = frame_picture(&frame, &view, &FigureSettings::default(), 1.0).unwrap();
        assert!(picture.pixels().iter().all(|p| p.red() == 128), "a chequerboard averages to mid-grey");
    }

    #[test]
    fn an_empty_frame_is_refused() {
        let refused = View::fit((0, 5), &Calibration::default(), [900.0, 1500.0], 1.0);
        assert!(matches!(refused, Err(FigureError::EmptyFrame { rows: 0, cols: 5 })));
    }
}
