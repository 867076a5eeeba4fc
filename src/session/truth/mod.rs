//! The truth behind a simulated session, in a file of its own beside it: `NAME.h5` has `NAME_truth.h5`.
//!
//! ```text
//! /                          @format = "FerroSTEM truth", @format_version = 1
//! /metadata                  scene_toml (text); @ferrostem_version, @created_ns, @session, @kinds (names by code)
//! /Measurement_000           @acquisition
//!   frames                   table: FrameRow, one a frame, in the order of the session
//!   cells columns defects    tables: CellRow, ColumnRow, DefectRow; `frame` counts the rows of `frames`
//!   outlines                 table: OutlineRow, the corners of defects that are areas or paths
//!   lines line_pixels        tables: LineRow, LinePixelRow: where the beam really went, where that is not where it was told
//!   Channel_000/defect_mask/ defect_mask [time, y, x], u16: n + 1 in the pixels of the frame's n-th defect, 0 elsewhere
//!   Channel_001/saturated/   saturated [time, y, x], u8: 1 where the detector was; only of one that can be
//! ```
//!
//! Every field of a table that has a unit says so in an attribute `units_<field>` of the table. Positions are in frame pixels
//! (integer = pixel centre), vectors `_x` along the image's rows and `_y` down. Codes are those of
//! [`DefectKind::code`](crate::simulate::DefectKind::code). The masks are NSID main datasets as the session's own images are, and
//! the file is written as the session is: it can be read meanwhile, and after its writer was killed.

mod read;
mod rows;
mod scan;
#[cfg(test)]
mod tests;
mod write;

pub use read::{LabelledSession, TruthReader};
pub use write::{TruthHeader, TruthWriter};

use crate::simulate::Truth;
use std::path::{Path, PathBuf};

/// Root attribute `format` of a truth file.
pub const TRUTH_FORMAT: &str = "FerroSTEM truth";
const TRUTH_VERSION: u32 = 1;
const SCENE: &str = "scene_toml";
const MEASUREMENT: &str = "Measurement_000";
const FRAMES: &str = "frames";
const CELLS: &str = "cells";
const COLUMNS: &str = "columns";
const DEFECTS: &str = "defects";
const OUTLINES: &str = "outlines";
const LINES: &str = "lines";
const LINE_PIXELS: &str = "line_pixels";
const MASK: &str = "defect_mask";
const SATURATED: &str = "saturated";

/// How one frame was scanned, as the simulator knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TruthScan {
    pub seq: u64,
    pub t_start_ns: u64,
    pub t_end_ns: u64,
    /// `[row, col]`.
    pub pixel_size_pm: [f64; 2],
    pub rotation_rad: f64,
    /// Where the scan was told to be, `[y, x]`.
    pub center_nm: [f64; 2],
    /// How far the specimen had drifted from under it in mid-frame, `[y, x]`.
    pub drift_nm: [f64; 2],
    /// How far the specimen moved in the image during the frame, `[x, y]`, pm.
    pub drift_pm: [f64; 2],
}

/// What is known of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameTruth {
    pub scan: TruthScan,
    pub truth: Truth,
}

/// The truth file that belongs to a session: `NAME_truth.h5` beside `NAME.h5`.
pub fn truth_path(session: &Path) -> PathBuf {
    let stem = session.file_stem().unwrap_or_default().to_string_lossy();
    session.with_file_name(format!("{stem}_truth.h5"))
}
