//! The classical measurement of a frame in one picture, as Figure 1 of the DCNN paper: P, deviation from uniform spacing, and the
//! errors of the fits.

use super::colour::{self, Rgb};
use super::draw::{self, Area};
use super::panel::{View, draw_scale_bar, frame_picture};
use super::sheet::{Block, Key, Panel, Sheet, Swatch};
use super::text::{Anchor, Label, Typeface};
use super::{FigureError, FigureSettings, write_png};
use crate::columns::Neighbours;
use crate::frame::Sublattice;
use crate::label::{FrameLabels, LabelledColumn};
use ferrostem_proto::Calibration;
use ndarray::Array2;
use std::path::{Path, PathBuf};
use tiny_skia::Pixmap;

const PANELS: [f32; 2] = [560.0, 660.0];
const UNIT: f32 = 1.35;
const LEGEND_WIDTH: f32 = 205.0;
/// A column or cell colours what lies within this of it, in cell edges.
const CELLS_AROUND: f64 = 0.8;
/// Width of a band of the deviation maps, and where they end, pm (the paper's bands are 25 pm wide).
const BAND_PM: f32 = 25.0;
const DEVIATION_END_PM: f32 = 100.0;
const BINS: usize = 60;

/// What all panels share.
struct Drawing<'a> {
    frame: &'a Array2<f32>,
    labels: &'a FrameLabels,
    calibration: &'a Calibration,
    settings: &'a FigureSettings,
    face: Typeface,
    view: View,
}

/// P by cell, deviation from uniform spacing by column of each sublattice, histograms of the fits' errors, and the map of the error of P.
///
/// # Errors
/// When the frame is empty.
pub fn labels_figure(
    frame: &Array2<f32>,
    labels: &FrameLabels,
    calibration: &Calibration,
    settings: &FigureSettings,
) -> Result<Pixmap, FigureError> {
    let view = View::fit(frame.dim(), calibration, PANELS, UNIT)?;
    let drawing = Drawing { frame, labels, calibration, settings, face: Typeface::new()?, view };
    drawing.sheet()?.compose(&drawing.face)
}

/// Writes [`labels_figure`] as `<dir>/<stem>_labels.png`, creating `dir`.
///
/// # Errors
/// When the picture cannot be drawn or written.
pub fn write_labels(
    dir: &Path,
    stem: &str,
    frame: &Array2<f32>,
    (labels, calibration): (&FrameLabels, &Calibration),
) -> Result<PathBuf, FigureError> {
    let picture = labels_figure(frame, labels, calibration, &FigureSettings::default())?;
    write_png(dir, &format!("{stem}_labels"), &picture)
}

impl Drawing<'_> {
    fn sheet(&self) -> Result<Sheet, FigureError> {
        let full = self.settings.full_scale_pm;
        let cells: Vec<_> = self.labels.cells.iter().collect();
        let at: Vec<[f64; 2]> = cells.iter().map(|c| [c.cell.row, c.cell.col]).collect();
        let p = |k: usize| colour::wheel(cells[k].cell.p_x as f32, cells[k].cell.p_y as f32, full);
        let error = |k: usize| cells[k].p_x_error.hypot(cells[k].p_y_error) as f32 / std::f32::consts::SQRT_2;
        let mut errors: Vec<f32> = (0..cells.len()).map(error).filter(|e| e.is_finite()).collect();
        errors.sort_by(f32::total_cmp);
        let error_end = errors.get(errors.len() * 98 / 100).map_or(1.0, |end| round_up(*end));
        let shade = |k: usize| error(k).is_finite().then(|| colour::inferno(error(k) / error_end));
        let [rms_b, rms_a] = self.labels.spacing_rms_pm;
        let panels = vec![
            self.columns_panel()?,
            self.map_panel("(b) Polar displacement by cell", &at, &p)?,
            self.map_panel("(f) Error of P, one component", &at, &shade)?,
            self.deviation_panel(&format!("(d) A: uneven by {rms_a:.1} pm RMS"), Sublattice::A)?,
            self.deviation_panel(&format!("(d) B: uneven by {rms_b:.1} pm RMS"), Sublattice::B)?,
            self.histogram_panel()?,
        ];
        let mark = |at: f32, text: String| (at, text);
        let legend = vec![
            Block::Wheel { full_scale_pm: full },
            Block::Heat {
                title: "Error of P / pm".into(),
                marks: vec![mark(0.0, "0".into()), mark(1.0, format!("{error_end}"))],
            },
            Block::Heat {
                title: "Spacing off by / pm".into(),
                marks: vec![
                    mark(0.0, "0".into()),
                    mark(0.5, format!("{}", DEVIATION_END_PM / 2.0)),
                    mark(1.0, format!("{DEVIATION_END_PM}")),
                ],
            },
            Block::Keys {
                title: "Columns".into(),
                keys: vec![
                    Key {
                        swatch: Swatch::Dot(colour::A_COLUMN),
                        text: format!("A: {}", self.count(Sublattice::A)),
                    },
                    Key {
                        swatch: Swatch::Dot(colour::B_COLUMN),
                        text: format!("B: {}", self.count(Sublattice::B)),
                    },
                ],
            },
            self.statistics(),
        ];
        let [row_pm, _] = self.labels.pixel_size_pm;
        Ok(Sheet {
            title: "Classical measurement: Gaussian fits to every column".into(),
            subtitle: format!("{} cells, pixel {row_pm:.2} pm", cells.len()),
            panels,
            columns: 3,
            legend,
            legend_width: LEGEND_WIDTH,
            unit: self.view.unit,
        })
    }

    fn count(&self, sublattice: Sublattice) -> usize {
        self.of(sublattice).count()
    }

    fn of(&self, sublattice: Sublattice) -> impl Iterator<Item = &LabelledColumn> {
        self.labels.columns.iter().filter(move |column| column.sublattice == sublattice)
    }

    fn statistics(&self) -> Block {
        let n = self.labels.cells.len().max(1) as f64;
        let mean = |value: &dyn Fn(usize) -> f64| (0..self.labels.cells.len()).map(value).sum::<f64>() / n;
        let cell = |k: usize| &self.labels.cells[k].cell;
        let line = |text: String| (text, colour::INK);
        Block::Text {
            title: "Means".into(),
            lines: vec![
                line(format!("P_x {:.1} pm", mean(&|k| cell(k).p_x))),
                line(format!("P_y {:.1} pm", mean(&|k| cell(k).p_y))),
                line(format!("a {:.1} pm", mean(&|k| cell(k).cell_a))),
                line(format!("b {:.1} pm", mean(&|k| cell(k).cell_b))),
            ],
        }
    }

    fn panel(&self, caption: &str, mut picture: Pixmap) -> Panel {
        draw_scale_bar(&mut picture, &self.face, &self.view, self.calibration);
        Panel { caption: caption.to_owned(), picture }
    }

    fn columns_panel(&self) -> Result<Panel, FigureError> {
        let mut picture = frame_picture(self.frame, &self.view, self.settings, 1.0)?;
        for (sublattice, rgb) in [(Sublattice::A, colour::A_COLUMN), (Sublattice::B, colour::B_COLUMN)] {
            for column in self.of(sublattice) {
                let at = self.view.at(column.fit.row, column.fit.col);
                draw::dot(&mut picture, at, 1.8 * self.view.unit, (rgb, 0.9));
            }
        }
        Ok(self.panel("(a) HAADF with fitted columns", picture))
    }

    /// Every pixel in the colour of the nearest of `at`, if it is near.
    fn map_panel(
        &self,
        caption: &str,
        at: &[[f64; 2]],
        rgb: &dyn Fn(usize) -> Option<Rgb>,
    ) -> Result<Panel, FigureError> {
        let mut picture = frame_picture(self.frame, &self.view, self.settings, 0.62)?;
        let tree = Neighbours::new(at);
        let bound = CELLS_AROUND * self.labels.lattice.cell_px();
        let width = self.view.width;
        for (index, pixel) in (0_u32..).zip(picture.pixels_mut()) {
            let row = (f64::from(index / width) + 0.5) / f64::from(self.view.scale_y) - 0.5;
            let col = (f64::from(index % width) + 0.5) / f64::from(self.view.scale_x) - 0.5;
            if let Some(rgb) = tree.nearest([row, col], bound).and_then(|(k, _)| rgb(k)) {
                *pixel = draw::opaque(rgb);
            }
        }
        Ok(self.panel(caption, picture))
    }

    fn deviation_panel(&self, caption: &str, sublattice: Sublattice) -> Result<Panel, FigureError> {
        let columns: Vec<&LabelledColumn> = self.of(sublattice).collect();
        let at: Vec<[f64; 2]> = columns.iter().map(|c| [c.fit.row, c.fit.col]).collect();
        let shade = |k: usize| {
            let deviation = columns[k].spacing_deviation_pm as f32;
            // Bands, and within each a little of the slope.
            let band = (deviation / BAND_PM).floor();
            let level = (0.6 * band * BAND_PM + 0.4 * deviation) / DEVIATION_END_PM;
            deviation.is_finite().then(|| colour::inferno(level))
        };
        self.map_panel(caption, &at, &shade)
    }

    /// Errors of the position, one component, of each sublattice.
    fn histogram_panel(&self) -> Result<Panel, FigureError> {
        let (width, height) = (self.view.width, self.view.height);
        let mut picture = Pixmap::new(width, height).ok_or(FigureError::PictureSize { width, height })?;
        picture.fill(draw::colour((colour::PAPER, 1.0)));
        let pixel_pm = self.labels.pixel_size_pm;
        let errors = |sublattice: Sublattice| -> Vec<f32> {
            self.of(sublattice)
                .map(|c| {
                    let (row, col) = (c.fit.row_error * pixel_pm[0], c.fit.col_error * pixel_pm[1]);
                    (row.hypot(col) * std::f64::consts::FRAC_1_SQRT_2) as f32
                })
                .filter(|error| error.is_finite())
                .collect()
        };
        let both = [(errors(Sublattice::A), colour::A_COLUMN), (errors(Sublattice::B), colour::B_COLUMN)];
        let mut all: Vec<f32> = both.iter().flat_map(|(errors, _)| errors.iter().copied()).collect();
        all.sort_by(f32::total_cmp);
        let end = all.get(all.len() * 99 / 100).map_or(1.0, |end| round_up(*end));
        let counts = both.each_ref().map(|(errors, _)| {
            let mut counts = [0_usize; BINS];
            for error in errors {
                let bin = (error / end * BINS as f32) as usize;
                counts[bin.min(BINS - 1)] += 1;
            }
            counts
        });
        let highest = counts.iter().flatten().copied().max().unwrap_or(1).max(1) as f32;
        let unit = self.view.unit;
        let (left, bottom) = (20.0 * unit, height as f32 - 62.0 * unit);
        let (across, up) = (width as f32 - 2.0 * left, bottom - 30.0 * unit);
        for (counts, (_, rgb)) in counts.iter().zip(&both) {
            for (bin, &count) in counts.iter().enumerate() {
                let bar = up * count as f32 / highest;
                let x = left + across * bin as f32 / BINS as f32;
                let area = Area { x, y: bottom - bar, width: across / BINS as f32, height: bar };
                draw::fill_area(&mut picture, area, (*rgb, 0.65));
            }
        }
        draw::line(&mut picture, [(left, bottom), (left + across, bottom)], (colour::INK, 1.0), 1.5 * unit);
        let mut note = |text: &str, x: f32, y: f32, anchor: Anchor| {
            let label =
                Label { text, x, y, size: 15.0 * unit, colour: colour::INK, anchor, bold: false, rim: false };
            self.face.draw(&mut picture, &label);
        };
        note("0", left, bottom + 22.0 * unit, Anchor::Start);
        note(&format!("{end} pm"), left + across, bottom + 22.0 * unit, Anchor::End);
        for (index, ((errors, _), name)) in both.iter().zip(["A", "B"]).enumerate() {
            let mean = errors.iter().sum::<f32>() / errors.len().max(1) as f32;
            let y = bottom + (40.0 + 18.0 * index as f32) * unit;
            note(&format!("{name}: mean {mean:.2} pm"), left + across / 2.0, y, Anchor::Middle);
        }
        Ok(Panel { caption: "(e) Error of a column, one component".into(), picture })
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn round_up(value: f32) -> f32 {
    if !(value > 0.0 && value.is_finite()) {
        return 1.0;
    }
    let decade = 10_f32.powf(value.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|step| step * decade).find(|step| *step >= value).unwrap_or(10.0 * decade)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::{LabelSettings, label_frame};
    use crate::simulate::{Microscope, Polarization, Specimen, render};
    use ferrostem_proto::CalibrationSource;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_map_shows_the_direction_of_p() {
        // 40 pm to the right: red, four fifths saturated.
        let polarization = Polarization::Uniform { p_pm: [40.0, 0.0] };
        let specimen = Specimen { polarization, ..Specimen::default() };
        let microscope = Microscope { shape: [160, 160], shot_noise: false, ..Microscope::default() };
        let frame = render(&specimen, &microscope, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        let valid = Array2::from_elem((160, 160), true);
        let labels =
            label_frame(&frame.pixels, &valid, [15.0, 15.0], None, &LabelSettings::default()).unwrap();
        let calibration = Calibration { pixel_size_pm: [15.0; 2], source: CalibrationSource::Frame };
        let settings = FigureSettings::default();
        let view = View::fit((160, 160), &calibration, PANELS, UNIT).unwrap();
        let face = Typeface::new().unwrap();
        let drawing = Drawing {
            frame: &frame.pixels,
            labels: &labels,
            calibration: &calibration,
            settings: &settings,
            face,
            view,
        };
        let panels = drawing.sheet().unwrap().panels;
        let pixel = panels[1].picture.pixel(view.width / 2, view.height / 2).unwrap();
        assert_eq!(pixel.red(), 255);
        assert!(
            (i32::from(pixel.green()) - 51).abs() <= 2 && pixel.green().abs_diff(pixel.blue()) <= 2,
            "{pixel:?}"
        );
        assert!(labels_figure(&frame.pixels, &labels, &calibration, &settings).unwrap().width() > 1800);
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([0.3, 1.0, 1.1, 4.9, 7.0].map(round_up), [0.5, 1.0, 2.0, 5.0, 10.0]);
    }
}
