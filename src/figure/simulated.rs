//! Pictures of simulated frames with their truth, and of simulated beside real ones.

use super::colour::{self, Rgb};
use super::draw::{self, Arrow};
use super::panel::{View, draw_scale_bar, frame_picture};
use super::plot::{Curve, Plot};
use super::sheet::{Block, Key, Panel, Sheet, Swatch};
use super::text::Typeface;
use super::{FigureError, FigureSettings, write_png};
use crate::frame::Sublattice;
use crate::simulate::realism::{Comparison, ImageStatistics, windowed_power};
use crate::simulate::{ColumnClass, Extent, Truth, TruthDefect};
use ferrostem_proto::{Calibration, CalibrationSource};
use ndarray::{Array2, s};
use std::path::{Path, PathBuf};
use tiny_skia::Pixmap;

/// Longer side of the panel in a picture with one.
const ONE_PANEL: [f32; 2] = [900.0, 1200.0];
/// Side of the panels in a comparison, and the part of the images that is shown there.
const COMPARED_PX: u32 = 430;
const COMPARED_NM: f64 = 4.0;
/// The orders of magnitude that a power spectrum shows.
const DECADES: f32 = 7.0;
const REAL: Rgb = [20, 20, 24];
const SIMULATED: Rgb = [213, 62, 0];
const DEFECT: Rgb = [255, 64, 160];

type Picture = Result<Pixmap, FigureError>;

fn calibration(pixel_size_pm: [f64; 2]) -> Calibration {
    Calibration { pixel_size_pm, source: CalibrationSource::Frame }
}

/// A sheet of one panel over a frame.
fn one_panel(panel: Panel, legend: Vec<Block>, title: (&str, String), unit: f32) -> Sheet {
    Sheet {
        title: title.0.to_owned(),
        subtitle: title.1,
        panels: vec![panel],
        columns: 1,
        legend_width: if legend.is_empty() { 0.0 } else { 215.0 },
        legend,
        unit,
    }
}

fn subtitle(frame: &Array2<f32>, pixel_size_pm: [f64; 2]) -> String {
    let [height_pm, width_pm] = pixel_size_pm;
    let size = if height_pm == width_pm {
        format!("{width_pm:.2} pm")
    } else {
        format!("{height_pm:.2} x {width_pm:.2} pm")
    };
    format!("{} x {} px of {size}", frame.nrows(), frame.ncols())
}

/// The frame alone.
///
/// # Errors
/// When the frame is empty.
pub fn simulated_frame_figure(frame: &Array2<f32>, pixel_size_pm: [f64; 2], title: &str) -> Picture {
    let face = Typeface::new()?;
    let view = View::fit(frame.dim(), &calibration(pixel_size_pm), ONE_PANEL, 1.0)?;
    let mut picture = frame_picture(frame, &view, &FigureSettings::default(), 1.0)?;
    draw_scale_bar(&mut picture, &face, &view, &calibration(pixel_size_pm));
    let panel = Panel { caption: "Simulated frame".to_owned(), picture };
    one_panel(panel, Vec::new(), (title, subtitle(frame, pixel_size_pm)), view.unit).compose(&face)
}

/// The frame with its truth: columns as dots, P of every cell as an arrow, defects ringed.
///
/// # Errors
/// When the frame is empty.
pub fn truth_figure(frame: &Array2<f32>, truth: &Truth, pixel_size_pm: [f64; 2], title: &str) -> Picture {
    let face = Typeface::new()?;
    let view = View::fit(frame.dim(), &calibration(pixel_size_pm), ONE_PANEL, 1.0)?;
    let mut picture = frame_picture(frame, &view, &FigureSettings::default(), 0.62)?;
    draw_columns(&mut picture, &view, truth);
    let full_scale_pm = full_scale_pm(truth);
    let full_length_px = cell_px(truth, pixel_size_pm) * view.scale_x * 0.95;
    for cell in &truth.cells {
        let (p_x, p_y) = (cell.p_x as f32, cell.p_y as f32);
        let length_pm = p_x.hypot(p_y);
        let Some(rgb) = colour::wheel(p_x, p_y, full_scale_pm).filter(|_| length_pm > 0.0) else { continue };
        let arrow = Arrow {
            centre: view.at(cell.row, cell.col),
            direction: (p_x / length_pm, p_y / length_pm),
            length: full_length_px * (length_pm / full_scale_pm).min(1.5),
            width: (full_length_px * 0.09).clamp(1.2, 4.0 * view.unit),
        };
        arrow.draw(&mut picture, (rgb, if cell.disturbed { 0.45 } else { 1.0 }));
    }
    for defect in &truth.defects {
        draw_defect(&mut picture, &view, defect);
    }
    draw_scale_bar(&mut picture, &face, &view, &calibration(pixel_size_pm));
    let count = |class| truth.columns.iter().filter(|c| c.class == class).count();
    let keys = vec![
        Key { swatch: Swatch::Dot(colour::A_COLUMN), text: format!("A: {}", count(ColumnClass::A)) },
        Key { swatch: Swatch::Dot(colour::B_COLUMN), text: format!("B: {}", count(ColumnClass::B)) },
        Key { swatch: Swatch::Ring(DEFECT), text: format!("defects: {}", truth.defects.len()) },
    ];
    let legend = vec![
        Block::Wheel { full_scale_pm },
        Block::Arrow { length_px: full_length_px, label: format!("{full_scale_pm} pm"), colour: [255, 0, 0] },
        Block::Keys { title: format!("Truth of {} cells", truth.cells.len()), keys },
    ];
    let panel = Panel { caption: "Simulated frame with its truth".to_owned(), picture };
    one_panel(panel, legend, (title, subtitle(frame, pixel_size_pm)), view.unit).compose(&face)
}

fn draw_columns(picture: &mut Pixmap, view: &View, truth: &Truth) {
    let cations = || truth.columns.iter().filter_map(|column| Some((column, column.sublattice()?)));
    let spacing = (view.width as f32 * view.height as f32 / cations().count().max(1) as f32).sqrt();
    let radius = (spacing * 0.1).clamp(1.0, 4.0 * view.unit);
    for (column, sublattice) in cations() {
        let rgb = match sublattice {
            Sublattice::A => colour::A_COLUMN,
            Sublattice::B => colour::B_COLUMN,
        };
        draw::dot(picture, view.at(column.row, column.col), radius, (rgb, 0.9));
    }
}

/// A ring, an outline, or a line along a boundary, dark below and bright on top.
fn draw_defect(picture: &mut Pixmap, view: &View, defect: &TruthDefect) {
    let inks = [(([0, 0, 0], 0.6), 5.0 * view.unit), ((DEFECT, 1.0), 2.6 * view.unit)];
    let in_picture = |corners: &[[f64; 2]]| -> Vec<(f32, f32)> {
        corners.iter().map(|&[row, col]| view.at(row, col)).collect()
    };
    for ink in inks {
        match &defect.extent {
            Extent::Disc => {
                let radius = (defect.radius_px as f32 * view.scale_x).max(4.0 * view.unit);
                draw::ring(picture, view.at(defect.row, defect.col), radius, ink);
            }
            Extent::Area(corners) => draw::polyline(picture, &in_picture(corners), ink, true),
            Extent::Path(path) => draw::polyline(picture, &in_picture(path), ink, false),
        }
    }
}

/// The roundest length that nearly all P stay below.
fn full_scale_pm(truth: &Truth) -> f32 {
    let mut lengths: Vec<f64> = truth.cells.iter().map(|cell| cell.p_x.hypot(cell.p_y)).collect();
    lengths.sort_by(f64::total_cmp);
    let most = lengths.get(lengths.len() * 95 / 100).copied().unwrap_or(0.0);
    [10.0, 20.0, 50.0, 100.0].into_iter().find(|scale| f64::from(*scale) >= most).unwrap_or(200.0)
}

/// Mean edge of the cells, frame pixels.
fn cell_px(truth: &Truth, pixel_size_pm: [f64; 2]) -> f32 {
    let sum: f64 = truth.cells.iter().map(|cell| 0.5 * (cell.cell_a + cell.cell_b)).sum();
    (sum / truth.cells.len().max(1) as f64 / pixel_size_pm[1]).max(1.0) as f32
}

/// The power spectrum of the frame's square middle, logarithmic, zero frequency in the middle.
///
/// # Errors
/// When the frame is empty.
pub fn spectrum_figure(frame: &Array2<f32>, pixel_size_pm: [f64; 2], title: &str) -> Picture {
    let face = Typeface::new()?;
    let picture = spectrum_picture(frame, 900)?;
    let [up, right] = pixel_size_pm.map(|size| 500.0 / size);
    let caption = format!(
        "Power spectrum, {DECADES:.0} decades; the edges are at {right:.1} / nm along x, {up:.1} / nm along y"
    );
    let panel = Panel { caption, picture };
    one_panel(panel, Vec::new(), (title, subtitle(frame, pixel_size_pm)), 1.0).compose(&face)
}

/// Zero frequency in the middle of a square of `side` picture pixels, black `DECADES` below the strongest reflection.
fn spectrum_picture(frame: &Array2<f32>, side: u32) -> Picture {
    let (rows, cols) = frame.dim();
    if rows < 2 || cols < 2 {
        return Err(FigureError::EmptyFrame { rows, cols });
    }
    let power = windowed_power(frame);
    let n = power.nrows();
    let strongest = power.iter().copied().fold(0.0, f32::max).max(f32::MIN_POSITIVE);
    let shifted = Array2::from_shape_fn((n, n), |(row, col)| {
        let value = power[[(row + n.div_ceil(2)) % n, (col + n.div_ceil(2)) % n]];
        (value / strongest).max(1e-30).log10().clamp(-DECADES, 0.0) / DECADES + 1.0
    });
    let sides = [side as f32; 2];
    // Square in frequency bins, whatever the pixels' proportions.
    let view = View::fit((n, n), &calibration([1.0; 2]), sides, 1.0)?;
    let levels = FigureSettings { contrast_percent: [0.0, 100.0], ..FigureSettings::default() };
    let mut picture = frame_picture(&shifted, &view, &levels, 1.0)?;
    for pixel in picture.pixels_mut() {
        *pixel = draw::opaque(colour::inferno(f32::from(pixel.red()) / 255.0));
    }
    Ok(picture)
}

/// A real and a simulated image beside each other: what they look like, their spectra, and what is measured on them.
///
/// # Errors
/// When an image is empty.
pub fn comparison_figure(real: &Array2<f32>, simulated: &Array2<f32>, comparison: &Comparison) -> Picture {
    let face = Typeface::new()?;
    let pixel_size_pm = comparison.real.pixel_size_pm;
    let image = |frame: &Array2<f32>| detail(frame, pixel_size_pm, &face);
    let spectrum = |frame: &Array2<f32>| spectrum_picture(frame, COMPARED_PX);
    let panel = |caption: &str, picture| Panel { caption: caption.to_owned(), picture };
    let plot = |plot: Plot<'_>| plot.draw(&face, (COMPARED_PX, COMPARED_PX), 1.0);
    let profile = |of: fn(&ImageStatistics) -> Vec<[f64; 2]>, y_label| {
        plot(Plot {
            x_label: "distance from the column, pm",
            y_label,
            log_y: false,
            curves: curves(comparison, &of, false),
        })
    };
    let a =
        profile(|s| s.a_profile.iter().map(|p| [p.radius_pm, p.height]).collect(), "height, A column = 1")?;
    let b =
        profile(|s| s.b_profile.iter().map(|p| [p.radius_pm, p.height]).collect(), "height, A column = 1")?;
    let spectra = |between: bool| {
        let of = move |s: &ImageStatistics| -> Vec<[f64; 2]> {
            s.spectrum.iter().map(|p| [p.per_nm, if between { p.between } else { p.mean }]).collect()
        };
        curves(comparison, &of, false)
    };
    let mut both = spectra(false);
    both.extend(
        spectra(true)
            .into_iter()
            .map(|curve| Curve { colour: colour::mix(curve.colour, [255; 3], 0.5), ..curve }),
    );
    let radial = plot(Plot {
        x_label: "spatial frequency, 1/nm",
        y_label: "power (pale: between the reflections)",
        log_y: true,
        curves: both,
    })?;
    let of_levels =
        |s: &ImageStatistics| s.noise_levels.iter().map(|l| [l.height, 1e4 * l.variance]).collect::<Vec<_>>();
    let noise = plot(Plot {
        x_label: "brightness, A column = 1",
        y_label: "noise variance, 10⁻⁴ of the A height squared",
        log_y: false,
        curves: curves(comparison, &of_levels, true),
    })?;
    let sheet = Sheet {
        title: format!("{} beside the simulation", comparison.image),
        subtitle: subtitle(real, [pixel_size_pm; 2]),
        panels: vec![
            panel("Real", image(real)?),
            panel("Simulated", image(simulated)?),
            panel("Real, power spectrum", spectrum(real)?),
            panel("Simulated, power spectrum", spectrum(simulated)?),
            panel("Mean A column", a),
            panel("Mean B column", b),
            panel("Spectrum by frequency", radial),
            panel("Noise by brightness", noise),
        ],
        columns: 4,
        legend: vec![Block::Keys {
            title: "Curves".to_owned(),
            keys: vec![
                Key { swatch: Swatch::Fill(REAL), text: "real".to_owned() },
                Key { swatch: Swatch::Fill(SIMULATED), text: "simulated".to_owned() },
            ],
        }],
        legend_width: 130.0,
        unit: 1.0,
    };
    sheet.compose(&face)
}

fn curves(comparison: &Comparison, of: &dyn Fn(&ImageStatistics) -> Vec<[f64; 2]>, dots: bool) -> Vec<Curve> {
    [(REAL, &comparison.real), (SIMULATED, &comparison.simulated)]
        .map(|(colour, statistics)| Curve { colour, points: of(statistics), dots })
        .into()
}

/// The middle of an image, the same length of specimen whatever the pixel size.
fn detail(frame: &Array2<f32>, pixel_size_pm: f64, face: &Typeface) -> Picture {
    let wanted = (COMPARED_NM * 1e3 / pixel_size_pm).round() as usize;
    let side = wanted.clamp(1, frame.nrows().min(frame.ncols()).max(1));
    let [top, left] = [(frame.nrows().saturating_sub(side)) / 2, (frame.ncols().saturating_sub(side)) / 2];
    let (rows, cols) = frame.dim();
    if rows == 0 || cols == 0 {
        return Err(FigureError::EmptyFrame { rows, cols });
    }
    let middle = frame.slice(s![top..top + side, left..left + side]).to_owned();
    let calibration = calibration([pixel_size_pm; 2]);
    // Text as large as in a panel of 900 px.
    let unit = 900.0 / COMPARED_PX as f32;
    let view = View::fit(middle.dim(), &calibration, [COMPARED_PX as f32; 2], unit)?;
    let mut picture = frame_picture(&middle, &view, &FigureSettings::default(), 1.0)?;
    draw_scale_bar(&mut picture, face, &view, &calibration);
    Ok(picture)
}

/// Writes the pictures of a simulated frame into `dir`, as `frame.png`, `truth.png` and `spectrum.png`.
///
/// # Errors
/// When a picture cannot be drawn or written.
pub fn write_simulated(
    dir: &Path,
    title: &str,
    frame: &Array2<f32>,
    truth: &Truth,
    pixel_size_pm: [f64; 2],
) -> Result<Vec<PathBuf>, FigureError> {
    let pictures = [
        ("frame", simulated_frame_figure(frame, pixel_size_pm, title)?),
        ("truth", truth_figure(frame, truth, pixel_size_pm, title)?),
        ("spectrum", spectrum_figure(frame, pixel_size_pm, title)?),
    ];
    pictures.into_iter().map(|(name, picture)| write_png(dir, name, &picture)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::realism::measure;
    use crate::simulate::{Scene, render};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn scene() -> Scene {
        let mut scene = Scene::built_in("bifeo3").unwrap();
        scene.microscope.shape = [256, 256];
        scene
    }

    #[test]
    fn arrows_point_along_the_truth_in_its_colours() {
        let scene = scene();
        let frame = render(&scene.specimen, &scene.microscope, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
        let flat = Array2::zeros(frame.pixels.dim());
        let mut truth = Truth { cells: frame.truth.cells, ..Truth::default() };
        for cell in &mut truth.cells {
            // All to the right: red.
            (cell.p_x, cell.p_y) = (50.0, 0.0);
            cell.disturbed = false;
        }
        let picture = truth_figure(&flat, &truth, [15.0; 2], "test").unwrap();
        let count = |of: fn(u8, u8, u8) -> bool| {
            picture.pixels().iter().filter(|p| of(p.red(), p.green(), p.blue())).count()
        };
        // A picture of 900 px holds nine cells a side; an arrow covers a few hundred pixels.
        assert!(count(|r, g, b| r > 230 && g < 30 && b < 30) > 20 * truth.cells.len());
        for cell in &mut truth.cells {
            (cell.p_x, cell.p_y) = (0.0, 0.0);
        }
        let none = truth_figure(&flat, &truth, [15.0; 2], "test").unwrap();
        let red = none.pixels().iter().filter(|p| p.red() > 230 && p.green() < 30 && p.blue() < 30).count();
        assert!(red < 3000, "the legend alone: {red}");
    }

    #[test]
    fn the_strongest_reflections_are_brightest_and_in_their_places() {
        // Waves of 8 pixels along x: reflections an eighth of the sampling from the middle.
        let waves =
            Array2::from_shape_fn((128, 128), |(_, col)| (std::f32::consts::TAU * col as f32 / 8.0).cos());
        let picture = spectrum_picture(&waves, 512).unwrap();
        let light = |x: u32, y: u32| {
            let pixel = picture.pixel(x, y).unwrap();
            u32::from(pixel.red()) + u32::from(pixel.green()) + u32::from(pixel.blue())
        };
        // 512 px show 128 bins; the middle bin is the 64th, the reflections 16 bins to each side.
        assert!(light(194, 258) > 550 && light(322, 258) > 550, "{} {}", light(194, 258), light(322, 258));
        assert!(light(258, 322) < 100 && light(20, 20) < 100);
    }

    #[test]
    fn all_pictures_are_written() {
        let scene = scene();
        let frame = render(&scene.specimen, &scene.microscope, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let paths = write_simulated(folder.path(), "test", &frame.pixels, &frame.truth, [15.0; 2]).unwrap();
        assert_eq!(paths.len(), 3);
        assert!(paths.iter().all(|path| std::fs::metadata(path).unwrap().len() > 5000));
        let statistics = measure(&frame.pixels, 15.0).unwrap();
        let comparison =
            Comparison { image: "itself".to_owned(), real: statistics.clone(), simulated: statistics };
        let picture = comparison_figure(&frame.pixels, &frame.pixels, &comparison).unwrap();
        assert!(picture.width() > 1700 && picture.height() > 900);
    }
}
