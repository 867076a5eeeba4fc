//! An image beside copies of it that were damaged on purpose.

use super::colour;
use super::pictures::{LEGEND_WIDTH, p_value_bar};
use super::scene::Scene;
use super::sheet::{Block, Key, Panel, Sheet, Swatch};
use super::{FigureError, FigureSettings};
use ferrostem_proto::{CandidateKind, ResultMessage};
use ndarray::Array2;
use std::ops::Range;
use tiny_skia::Pixmap;

/// Longer side of each of three panels abreast, picture pixels, and the size of text in them.
const PANELS: [f32; 2] = [560.0, 660.0];
const UNIT: f32 = 1.35;

/// A damaged copy with what the pipeline said of it.
#[derive(Debug, Clone)]
pub struct DamagedCopy<'a> {
    /// What was done to it.
    pub name: &'a str,
    pub frame: &'a Array2<f32>,
    pub result: &'a ResultMessage,
    /// Rows and columns that were damaged.
    pub area: [Range<usize>; 2],
}

/// The image with P and flags, its p-values, and the copies with P and flags, each with its damage outlined.
///
/// # Errors
/// When a frame is empty or a map does not have the shape of its grid.
pub fn damage_figure(
    frame: &Array2<f32>,
    result: &ResultMessage,
    copies: &[DamagedCopy<'_>],
    settings: &FigureSettings,
) -> Result<Pixmap, FigureError> {
    let scene = Scene::new(frame, result, settings)?;
    let view = scene.view(PANELS, UNIT)?;
    let mut panels = vec![
        scene.flags_panel(&view, "as it is", None)?,
        Panel { caption: "as it is: p-values".into(), ..scene.ood_panel(&view)? },
    ];
    for copy in copies {
        let scene = Scene::new(copy.frame, copy.result, settings)?;
        panels.push(scene.flags_panel(&view, copy.name, Some(&copy.area))?);
    }
    for (panel, letter) in panels.iter_mut().zip('a'..) {
        panel.caption = format!("({letter}) {}", panel.caption);
    }
    let (ring, _) = colour::kind(CandidateKind::Ood);
    let key = |swatch: Swatch, text: &str| Key { swatch, text: text.into() };
    let legend = vec![
        Block::Wheel { full_scale_pm: settings.full_scale_pm },
        p_value_bar(),
        Block::Keys {
            title: "Out of distribution".into(),
            keys: vec![
                key(Swatch::Outline(colour::FLAG_OUTLINE), "flagged windows"),
                key(Swatch::Ring(ring), "candidate"),
                key(Swatch::Outline(colour::PAPER), "damaged"),
                key(Swatch::Hatch, "no data"),
            ],
        },
        scene.statistics(),
    ];
    let sheet = scene.sheet(panels, legend, (LEGEND_WIDTH, view.unit));
    Sheet { columns: 3, ..sheet }.compose(&scene.face)
}
