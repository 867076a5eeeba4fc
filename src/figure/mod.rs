//! Pictures of a result, as PNG: what a microscopist looks at first and what goes into a paper.
//!
//! Colours: hue is the direction of P counter-clockwise as displayed (0° = +x, to the right; 90° = up, that is −y),
//! saturation its length up to [`FigureSettings::full_scale_pm`]. White means no polarization, hatched means not
//! measured. Every picture carries the legend it needs, a scale bar, and the acquisition and sequence number.
//!
//! A picture is 900 to 2000 px wide whatever the size of the frame.

pub(crate) mod chart;
pub(crate) mod colour;
mod damage;
mod draw;
mod labels;
mod layers;
mod panel;
mod pictures;
mod plot;
mod scene;
mod sheet;
mod simulated;
mod text;

pub use damage::{DamagedCopy, damage_figure};
pub use labels::{labels_figure, write_labels};
pub use pictures::{
    candidates_figure, columns_figure, file_name, mask_figure, overview, polarization_figure,
    polarization_map, write_all,
};
pub use simulated::{
    comparison_figure, simulated_frame_figure, spectrum_figure, truth_figure, write_simulated,
};

use crate::config::InvalidSetting;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tiny_skia::Pixmap;

/// How pictures are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FigureSettings {
    /// |P| at which the colour wheel saturates and an arrow has its full length, pm.
    pub full_scale_pm: f32,
    /// Least distance between arrows, in pixels of a panel of 900 px.
    pub arrow_spacing_px: f32,
    /// Percentiles of the frame drawn black and white.
    pub contrast_percent: [f32; 2],
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    #[error("a frame of {rows} x {cols} pixels has nothing to draw")]
    EmptyFrame { rows: usize, cols: usize },
    #[error("{name} has the shape {found:?}, its grid {expected:?}")]
    GridShape { name: &'static str, found: [usize; 2], expected: [usize; 2] },
    #[error("the columns' row, col, class and confidence have {lengths:?} entries, expected the same number")]
    ColumnTable { lengths: [usize; 4] },
    #[error("a picture of {width} x {height} pixels cannot be made")]
    PictureSize { width: u32, height: u32 },
    #[error("the built-in font cannot be read: {0}")]
    Font(String),
    #[error("chart {name} cannot be drawn: {reason}")]
    Chart { name: String, reason: String },
    #[error("{path}: the picture cannot be encoded: {reason}")]
    Encode { path: PathBuf, reason: String },
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
}

/// Writes `<dir>/<name>.png`, creating `dir`.
///
/// # Errors
/// When the picture cannot be encoded or written.
pub fn write_png(dir: &Path, name: &str, picture: &Pixmap) -> Result<PathBuf, FigureError> {
    let path = dir.join(format!("{name}.png"));
    let write_error = |path: &Path| {
        let path = path.to_owned();
        |source| FigureError::Write { path, source }
    };
    std::fs::create_dir_all(dir).map_err(write_error(dir))?;
    let png = picture
        .encode_png()
        .map_err(|error| FigureError::Encode { path: path.clone(), reason: error.to_string() })?;
    std::fs::write(&path, png).map_err(write_error(&path))?;
    Ok(path)
}

impl Default for FigureSettings {
    fn default() -> Self {
        Self { full_scale_pm: 50.0, arrow_spacing_px: 27.0, contrast_percent: [0.5, 99.5] }
    }
}

impl FigureSettings {
    /// # Errors
    /// When a value is outside its range; the error names `key_prefix` and the key.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}.{name}");
        if !(self.full_scale_pm > 0.0 && self.full_scale_pm <= 1000.0) {
            return Err(InvalidSetting::new(
                key("full_scale_pm"),
                self.full_scale_pm,
                "above 0, at most 1000 (pm)",
            ));
        }
        if !(self.arrow_spacing_px >= 8.0 && self.arrow_spacing_px <= 200.0) {
            return Err(InvalidSetting::new(key("arrow_spacing_px"), self.arrow_spacing_px, "8 to 200 (px)"));
        }
        let [dark, bright] = self.contrast_percent;
        if !(dark >= 0.0 && dark < bright && bright <= 100.0) {
            let value = format!("[{dark}, {bright}]");
            return Err(InvalidSetting::new(key("contrast_percent"), value, "0 <= first < second <= 100"));
        }
        Ok(())
    }
}
