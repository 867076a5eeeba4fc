//! Charts with axes, drawn by `plotters` with the font of the other pictures.

use super::FigureError;
use super::colour::Rgb;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tiny_skia::Pixmap;

/// The font family of every chart.
pub(crate) const FONT: &str = "sans-serif";

/// What a chart is drawn on.
pub(crate) type Canvas<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// Draws a chart of `width x height` px on white and writes it as `dir/name.png`, which it gives back.
///
/// # Errors
/// When the font cannot be read, drawing fails, or the file cannot be written.
pub(crate) fn write_chart(
    dir: &Path,
    name: &str,
    (width, height): (u32, u32),
    draw: impl FnOnce(&Canvas) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> Result<PathBuf, FigureError> {
    register()?;
    let size = FigureError::PictureSize { width, height };
    let mut picture = Pixmap::new(width, height).ok_or(size)?;
    let mut bytes = vec![255; width as usize * height as usize * 3];
    {
        let canvas = BitMapBackend::with_buffer(&mut bytes, (width, height)).into_drawing_area();
        let failed = |error: String| FigureError::Chart { name: name.to_owned(), reason: error };
        draw(&canvas).map_err(|error| failed(error.to_string()))?;
        canvas.present().map_err(|error| failed(error.to_string()))?;
    }
    for (pixel, rgb) in picture.pixels_mut().iter_mut().zip(bytes.chunks_exact(3)) {
        if let &[red, green, blue] = rgb {
            *pixel = super::draw::opaque([red, green, blue]);
        }
    }
    super::write_png(dir, name, &picture)
}

/// As plotters wants it.
pub(crate) const fn rgb([red, green, blue]: Rgb) -> RGBColor {
    RGBColor(red, green, blue)
}

fn register() -> Result<(), FigureError> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok()
            && register_font(FONT, FontStyle::Bold, dejavu::sans::bold()).is_ok()
    });
    if *done { Ok(()) } else { Err(FigureError::Font("DejaVu Sans".to_owned())) }
}
