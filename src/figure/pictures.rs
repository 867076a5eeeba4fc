//! The pictures themselves: which layers, captions and legends each of them has.

use super::colour::{self, Rgb};
use super::layers::FLAGGED_OPACITY;
use super::scene::{Scene, printable};
use super::sheet::{Block, Key, Swatch};
use super::{FigureError, FigureSettings, write_png};
use ferrostem_proto::ResultMessage;
use ndarray::Array2;
use std::path::{Path, PathBuf};
use tiny_skia::Pixmap;

/// Longer side of the panel in a picture with one, and of each in a picture with two abreast, in picture pixels.
const ONE_PANEL: [f32; 2] = [900.0, 1500.0];
const TWO_PANELS: [f32; 2] = [600.0, 740.0];
/// Text in a panel that is one of two abreast has to be larger for its size.
const TWO_PANELS_UNIT: f32 = 1.45;
pub(super) const LEGEND_WIDTH: f32 = 205.0;
/// The list of candidates needs room for its reasons.
const LIST_WIDTH: f32 = 300.0;
const LISTED_CANDIDATES: usize = 12;
/// An arrow of full length along +x.
const P_ARROW: Rgb = [255, 0, 0];

type Picture = Result<Pixmap, FigureError>;

/// The frame with arrows of P, coloured by direction and length, fainter where the window is flagged as out of
/// distribution and absent where P is NaN. Arrows are centred on their windows.
///
/// # Errors
/// When the frame is empty or a map does not have the shape of its grid.
pub fn polarization_figure(
    frame: &Array2<f32>,
    result: &ResultMessage,
    settings: &FigureSettings,
) -> Picture {
    let scene = Scene::new(frame, result, settings)?;
    let view = scene.view(ONE_PANEL, 1.0)?;
    let arrows = scene.arrows(&view);
    let panel = scene.arrows_panel(&view)?;
    let legend = vec![
        Block::Wheel { full_scale_pm: settings.full_scale_pm },
        Block::Arrow {
            length_px: arrows.full_length_px,
            label: format!("{} pm", settings.full_scale_pm),
            colour: P_ARROW,
        },
        Block::Keys {
            title: "Windows".into(),
            keys: vec![
                Key { swatch: Swatch::Arrow(P_ARROW, 1.0), text: "P".into() },
                Key { swatch: Swatch::Arrow(P_ARROW, FLAGGED_OPACITY), text: "P, flagged".into() },
                Key { swatch: Swatch::Hatch, text: "no data".into() },
            ],
        },
        scene.statistics(),
    ];
    scene.sheet(vec![panel], legend, (LEGEND_WIDTH, view.unit)).compose(&scene.face)
}

/// P of every window as its colour on the wheel, over the extent of the frame.
///
/// # Errors
/// As [`polarization_figure`].
pub fn polarization_map(frame: &Array2<f32>, result: &ResultMessage, settings: &FigureSettings) -> Picture {
    let scene = Scene::new(frame, result, settings)?;
    let view = scene.view(ONE_PANEL, 1.0)?;
    let panel = scene.map_panel(&view)?;
    let legend = vec![
        Block::Wheel { full_scale_pm: settings.full_scale_pm },
        Block::Keys {
            title: "Windows".into(),
            keys: vec![Key { swatch: Swatch::Hatch, text: "not measured".into() }],
        },
        scene.statistics(),
    ];
    scene.sheet(vec![panel], legend, (LEGEND_WIDTH, view.unit)).compose(&scene.face)
}

/// How far the values can be trusted: the out-of-distribution p-value with flagged regions outlined, and the mistilt
/// tiles with the offset common to their domains.
///
/// # Errors
/// As [`polarization_figure`].
pub fn mask_figure(frame: &Array2<f32>, result: &ResultMessage, settings: &FigureSettings) -> Picture {
    let scene = Scene::new(frame, result, settings)?;
    let view = scene.view(TWO_PANELS, TWO_PANELS_UNIT)?;
    let panels = vec![scene.ood_panel(&view)?, scene.mistilt_panel(&view)?];
    let mut legend = vec![p_value_bar(), scene.flag_keys()];
    legend.extend(scene.tile_keys(&view));
    scene.sheet(panels, legend, (LEGEND_WIDTH, view.unit)).compose(&scene.face)
}

/// The frame with the candidates ringed in the colour of their kind, and a list of them.
///
/// # Errors
/// As [`polarization_figure`].
pub fn candidates_figure(frame: &Array2<f32>, result: &ResultMessage, settings: &FigureSettings) -> Picture {
    let scene = Scene::new(frame, result, settings)?;
    let view = scene.view([900.0, 1360.0], 1.0)?;
    let panel = scene.candidates_panel(&view)?;
    let mut legend = vec![scene.kind_keys()];
    let listed = result.candidates.iter().take(LISTED_CANDIDATES);
    let lines = listed.flat_map(|c| {
        let (rgb, name) = colour::kind(c.kind);
        let head = format!("{}  {name}  score {:.2}", c.id, c.score);
        [(head, colour::mix(rgb, [0, 0, 0], 0.45)), (printable(&c.reason), colour::FAINT_INK)]
    });
    let mut lines: Vec<_> = lines.collect();
    match result.candidates.len() {
        0 => lines.push(("none in this frame".into(), colour::FAINT_INK)),
        n if n > LISTED_CANDIDATES => {
            lines.push((format!("and {} more", n - LISTED_CANDIDATES), colour::FAINT_INK));
        }
        _ => {}
    }
    legend.push(Block::Text { title: format!("Candidates ({})", result.candidates.len()), lines });
    scene.sheet(vec![panel], legend, (LIST_WIDTH, view.unit)).compose(&scene.face)
}

/// The frame with the columns of both sublattices as dots, paler where the network is less sure.
///
/// # Errors
/// As [`polarization_figure`], and when the columns' vectors differ in length.
pub fn columns_figure(frame: &Array2<f32>, result: &ResultMessage, settings: &FigureSettings) -> Picture {
    let scene = Scene::new(frame, result, settings)?;
    let view = scene.view(ONE_PANEL, 1.0)?;
    let panel = scene.columns_panel(&view)?;
    let bright = result.columns.class.iter().filter(|class| **class == 1).count();
    let dim = result.columns.class.len() - bright;
    let keys = vec![
        Key { swatch: Swatch::Dot(colour::A_COLUMN), text: format!("A (bright): {bright}") },
        Key { swatch: Swatch::Dot(colour::B_COLUMN), text: format!("B (dim): {dim}") },
        Key { swatch: Swatch::Hatch, text: "no data".into() },
    ];
    let legend = vec![Block::Keys { title: "Columns".into(), keys }];
    scene.sheet(vec![panel], legend, (LEGEND_WIDTH, view.unit)).compose(&scene.face)
}

/// Arrows, map, flags and candidates in one picture, two by two.
///
/// # Errors
/// As [`polarization_figure`].
pub fn overview(frame: &Array2<f32>, result: &ResultMessage, settings: &FigureSettings) -> Picture {
    let scene = Scene::new(frame, result, settings)?;
    let view = scene.view(TWO_PANELS, TWO_PANELS_UNIT)?;
    let mut panels = vec![
        scene.arrows_panel(&view)?,
        scene.map_panel(&view)?,
        scene.trust_panel(&view)?,
        scene.candidates_panel(&view)?,
    ];
    for (panel, letter) in panels.iter_mut().zip('a'..) {
        panel.caption = format!("({letter}) {}", panel.caption);
    }
    let mut legend = vec![
        Block::Wheel { full_scale_pm: settings.full_scale_pm },
        Block::Arrow {
            length_px: scene.arrows(&view).full_length_px,
            label: format!("{} pm", settings.full_scale_pm),
            colour: P_ARROW,
        },
        scene.statistics(),
        scene.flag_keys(),
    ];
    legend.extend(scene.tile_keys(&view));
    legend.push(scene.kind_keys());
    scene.sheet(panels, legend, (LEGEND_WIDTH, view.unit)).compose(&scene.face)
}

pub(super) fn p_value_bar() -> Block {
    let marks = [(0.0, "1"), (2.0, "10⁻²"), (colour::P_VALUE_DECADES, "≤ 10⁻⁴")];
    Block::Heat {
        title: "Window p-value".into(),
        marks: marks.map(|(power, label)| (power / colour::P_VALUE_DECADES, label.to_owned())).to_vec(),
    }
}

/// Writes every picture as `<dir>/<stem>_<picture>.png`, creating `dir`, and returns their paths. Characters of `stem`
/// other than letters, digits, `.`, `-` and `_` become `_`.
///
/// # Errors
/// When a picture cannot be drawn or written.
pub fn write_all(
    dir: &Path,
    stem: &str,
    frame: &Array2<f32>,
    result: &ResultMessage,
) -> Result<Vec<PathBuf>, FigureError> {
    type Draw = fn(&Array2<f32>, &ResultMessage, &FigureSettings) -> Picture;
    let pictures: [(&str, Draw); 6] = [
        ("polarization", polarization_figure),
        ("map", polarization_map),
        ("masks", mask_figure),
        ("candidates", candidates_figure),
        ("columns", columns_figure),
        ("overview", overview),
    ];
    let settings = FigureSettings::default();
    let safe = file_name(stem);
    pictures
        .into_iter()
        .map(|(name, draw)| write_png(dir, &format!("{safe}_{name}"), &draw(frame, result, &settings)?))
        .collect()
}

/// `text` as a part of a file's name: characters other than letters, digits, `.`, `-` and `_` become `_`.
pub fn file_name(text: &str) -> String {
    text.chars().map(|c| if c.is_alphanumeric() || ".-_".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests;
