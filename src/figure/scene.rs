//! What the pictures are put together from: a frame and its result, checked against each other, as panels and legends.

use super::colour;
use super::layers::{self, Arrows};
use super::panel::{View, draw_scale_bar, frame_picture};
use super::sheet::{Block, Key, Panel, Sheet, Swatch};
use super::text::Typeface;
use super::{FigureError, FigureSettings};
use ferrostem_proto::{CalibrationSource, CandidateKind, GridSpec, ResultMessage};
use ndarray::Array2;
use std::ops::Range;
use tiny_skia::Pixmap;

/// Brightness of the frame under coloured arrows.
const DIMMED: f32 = 0.62;

/// A frame and its result, checked against each other, with what every picture of them needs.
pub struct Scene<'a> {
    frame: &'a Array2<f32>,
    result: &'a ResultMessage,
    settings: &'a FigureSettings,
    pub face: Typeface,
}

impl<'a> Scene<'a> {
    pub fn new(
        frame: &'a Array2<f32>,
        result: &'a ResultMessage,
        settings: &'a FigureSettings,
    ) -> Result<Self, FigureError> {
        let maps = [
            ("p_x", result.p_x.shape()),
            ("p_y", result.p_y.shape()),
            ("ood.p_value", result.ood.p_value.shape()),
            ("ood.flag", result.ood.flag.shape()),
        ];
        check_shapes(&result.grid, &maps)?;
        let mistilt = &result.mistilt;
        let maps = [
            ("mistilt.state", mistilt.state.shape()),
            ("mistilt.offset_x", mistilt.offset_x.shape()),
            ("mistilt.offset_y", mistilt.offset_y.shape()),
            ("mistilt.p_value", mistilt.p_value.shape()),
        ];
        check_shapes(&mistilt.tiles, &maps)?;
        let table = &result.columns;
        let lengths = [table.row.len(), table.col.len(), table.class.len(), table.confidence.len()];
        if lengths.iter().any(|length| *length != lengths[0]) {
            return Err(FigureError::ColumnTable { lengths });
        }
        Ok(Self { frame, result, settings, face: Typeface::new()? })
    }

    pub fn view(&self, sides: [f32; 2], unit: f32) -> Result<View, FigureError> {
        View::fit(self.frame.dim(), &self.result.calibration, sides, unit)
    }

    fn frame_picture(&self, view: &View, brightness: f32) -> Result<Pixmap, FigureError> {
        frame_picture(self.frame, view, self.settings, brightness)
    }

    pub fn arrows(&self, view: &View) -> Arrows {
        let spacing = self.settings.arrow_spacing_px * view.unit;
        Arrows::plan(view, &self.result.grid, spacing, self.settings.full_scale_pm)
    }

    fn panel(&self, caption: &str, mut picture: Pixmap, view: &View) -> Panel {
        draw_scale_bar(&mut picture, &self.face, view, &self.result.calibration);
        Panel { caption: caption.to_owned(), picture }
    }

    pub fn arrows_panel(&self, view: &View) -> Result<Panel, FigureError> {
        let mut picture = self.frame_picture(view, DIMMED)?;
        self.arrows(view).draw(&mut picture, view, self.result);
        Ok(self.panel("HAADF with polar displacement", picture, view))
    }

    pub fn map_panel(&self, view: &View) -> Result<Panel, FigureError> {
        let mut picture = self.frame_picture(view, DIMMED)?;
        layers::polarization_map(&mut picture, view, self.result, self.settings.full_scale_pm);
        Ok(self.panel("Polar displacement by window", picture, view))
    }

    pub fn ood_panel(&self, view: &View) -> Result<Panel, FigureError> {
        let mut picture = self.frame_picture(view, 1.0)?;
        layers::p_value_map(&mut picture, view, self.result);
        layers::flag_outline(&mut picture, view, self.result);
        Ok(self.panel("(a) Out of distribution", picture, view))
    }

    pub fn mistilt_panel(&self, view: &View) -> Result<Panel, FigureError> {
        let mut picture = self.frame_picture(view, 1.0)?;
        layers::mistilt_tiles(&mut picture, &self.face, view, &self.result.mistilt);
        Ok(self.panel("(b) Mistilt", picture, view))
    }

    pub fn columns_panel(&self, view: &View) -> Result<Panel, FigureError> {
        let mut picture = self.frame_picture(view, 0.8)?;
        layers::columns(&mut picture, view, &self.result.columns);
        Ok(self.panel("HAADF with the columns found", picture, view))
    }

    /// Tiles and flags together.
    pub fn trust_panel(&self, view: &View) -> Result<Panel, FigureError> {
        let mut picture = self.frame_picture(view, 1.0)?;
        layers::mistilt_tiles(&mut picture, &self.face, view, &self.result.mistilt);
        layers::flag_outline(&mut picture, view, self.result);
        Ok(self.panel("Mistilt tiles and flagged windows", picture, view))
    }

    pub fn candidates_panel(&self, view: &View) -> Result<Panel, FigureError> {
        let mut picture = self.frame_picture(view, 0.9)?;
        layers::candidates(&mut picture, &self.face, view, &self.result.candidates);
        Ok(self.panel("Candidates for the next look", picture, view))
    }

    /// P, flags and what is reported as out of distribution, with the outline of `area`, rows and columns, if any.
    pub fn flags_panel(
        &self,
        view: &View,
        caption: &str,
        area: Option<&[Range<usize>; 2]>,
    ) -> Result<Panel, FigureError> {
        let mut picture = self.frame_picture(view, DIMMED)?;
        self.arrows(view).draw(&mut picture, view, self.result);
        layers::flag_outline(&mut picture, view, self.result);
        if let Some(area) = area {
            layers::area_outline(&mut picture, view, area);
        }
        let strange = self.result.candidates.iter().filter(|c| c.kind == CandidateKind::Ood);
        let strange: Vec<_> = strange.cloned().collect();
        layers::candidates(&mut picture, &self.face, view, &strange);
        Ok(self.panel(caption, picture, view))
    }

    /// Numbers over the windows where P was measured.
    pub fn statistics(&self) -> Block {
        let vectors = self.result.p_x.values().iter().zip(self.result.p_y.values());
        let measured: Vec<(f32, f32)> =
            vectors.map(|(x, y)| (*x, *y)).filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        let n = measured.len();
        let mut lines = vec![(format!("{n} of {} windows", self.result.p_x.values().len()), colour::INK)];
        if n > 0 {
            let mean = |of: &dyn Fn(&(f32, f32)) -> f32| measured.iter().map(of).sum::<f32>() / n as f32;
            lines.push((format!("mean |P| {:.1} pm", mean(&|(x, y)| x.hypot(*y))), colour::INK));
            lines.push((format!("mean P_x {:+.1} pm", mean(&|(x, _)| *x)), colour::INK));
            lines.push((format!("mean P_y {:+.1} pm", mean(&|(_, y)| *y)), colour::INK));
        }
        Block::Text { title: "Measured".into(), lines }
    }

    pub fn flag_keys(&self) -> Block {
        let flags = self.result.ood.flag.values();
        let flagged = flags.iter().filter(|flag| **flag != 0).count();
        Block::Keys {
            title: "Out of distribution".into(),
            keys: vec![
                Key {
                    swatch: Swatch::Outline(colour::FLAG_OUTLINE),
                    text: format!("flagged: {flagged} of {}", flags.len()),
                },
                Key { swatch: Swatch::Hatch, text: "not evaluated".into() },
            ],
        }
    }

    pub fn tile_keys(&self, view: &View) -> Vec<Block> {
        let mistilt = &self.result.mistilt;
        let key = |state: u8| {
            let (rgb, name) = colour::tile_state(state);
            let count = mistilt.state.values().iter().filter(|s| **s == state).count();
            Key { swatch: Swatch::Fill(rgb), text: format!("{name}: {count}") }
        };
        let mut blocks =
            vec![Block::Keys { title: "Mistilt tiles".into(), keys: [1, 2, 3, 0].map(key).into() }];
        if !mistilt.state.values().is_empty() {
            let tile = view.cell(&mistilt.tiles, 0, 0);
            let scale_pm = layers::offset_scale_pm(mistilt);
            // The legend's arrow may not be longer than the legend is wide.
            let shown = (tile.width.min(tile.height) * 0.92).min(60.0 * view.unit);
            let pm = scale_pm * shown / (tile.width.min(tile.height) * 0.92);
            blocks.push(Block::Arrow {
                length_px: shown,
                label: format!("offset {pm:.0} pm"),
                colour: colour::PAPER,
            });
        }
        blocks
    }

    pub fn kind_keys(&self) -> Block {
        use CandidateKind::{Column, DomainWall, Expression, Mistilt, Ood, Vortex};
        let key = |kind| {
            let (rgb, name) = colour::kind(kind);
            let count = self.result.candidates.iter().filter(|c| c.kind == kind).count();
            // Vortices and the user's expressions are rare: named where there are any.
            let rare = matches!(kind, Vortex | Expression);
            let key = Key { swatch: Swatch::Ring(rgb), text: format!("{name}: {count}") };
            (!rare || count > 0).then_some(key)
        };
        let kinds = [Ood, DomainWall, Mistilt, Column, Vortex, Expression];
        Block::Keys { title: "Kinds of site".into(), keys: kinds.into_iter().filter_map(key).collect() }
    }

    pub fn sheet(&self, panels: Vec<Panel>, legend: Vec<Block>, (legend_width, unit): (f32, f32)) -> Sheet {
        let result = self.result;
        let columns = if panels.len() > 1 { 2 } else { 1 };
        let name = if result.acquisition.is_empty() { "frame" } else { &result.acquisition };
        let title = format!("{}  ·  frame {}", printable(name), result.seq);
        Sheet { title, subtitle: self.subtitle(), panels, columns, legend, legend_width, unit }
    }

    fn subtitle(&self) -> String {
        let (rows, cols) = self.frame.dim();
        let calibration = &self.result.calibration;
        let [row_pm, col_pm] = calibration.pixel_size_pm;
        let from = match calibration.source {
            CalibrationSource::Frame => "from the frame",
            CalibrationSource::Config => "from the config",
            CalibrationSource::Lattice => "from the lattice",
            CalibrationSource::None => "not known",
        };
        let pixel = match calibration.source {
            CalibrationSource::None => from.to_owned(),
            _ if (row_pm - col_pm).abs() < 1e-3 => format!("{col_pm:.2} pm {from}"),
            _ => format!("{row_pm:.2} × {col_pm:.2} pm {from}"),
        };
        let models = [&self.result.model.dcnn, &self.result.model.fcnn];
        let models: Vec<String> =
            models.iter().filter_map(|m| m.as_ref().map(|m| printable(&m.name))).collect();
        let mut subtitle = format!("{rows} × {cols} px  |  pixel size {pixel}");
        if !models.is_empty() {
            subtitle += &format!("  |  {}", models.join(", "));
        }
        subtitle
    }
}

fn check_shapes(grid: &GridSpec, maps: &[(&'static str, [usize; 2])]) -> Result<(), FigureError> {
    let expected = [grid.rows as usize, grid.cols as usize];
    for &(name, found) in maps {
        // A map without elements means that its stage did not run.
        if found != expected && found.iter().product::<usize>() != 0 {
            return Err(FigureError::GridShape { name, found, expected });
        }
    }
    Ok(())
}

/// Text from outside, without control characters and no longer than any picture could show.
pub fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
