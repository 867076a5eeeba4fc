//! The truth behind a simulated session, in a file of its own beside it: `NAME.h5` has `NAME_truth.h5`.
//!
//! ```text
//! /                          @format = "FerroSTEM truth", @format_version = 1
//! /metadata                  scene_toml (text); @ferrostem_version, @created_ns, @session
//! /Measurement_000           @acquisition
//!   frames                   table: FrameRow, one a frame, in the order of the session
//!   cells columns defects    tables: CellRow, ColumnRow, DefectRow; `frame` counts the rows of `frames`
//!   Channel_000/defect_mask/ defect_mask [time, y, x], u16: n + 1 in the pixels of the frame's n-th defect, 0 elsewhere
//! ```
//!
//! Every field of a table that has a unit says so in an attribute `units_<field>` of the table. Positions are in frame pixels
//! (integer = pixel centre), vectors `_x` along the image's rows and `_y` down. The mask is an NSID main dataset as the
//! session's own images are.

mod mask;
mod read;
mod rows;
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
const MASK: &str = "defect_mask";

/// How one frame was scanned, as the simulator knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TruthScan {
    pub seq: u64,
    pub t_start_ns: u64,
    pub t_end_ns: u64,
    pub pixel_size_pm: f64,
    pub rotation_rad: f64,
    /// Where the scan was told to be, `[y, x]`.
    pub center_nm: [f64; 2],
    /// How far the specimen had drifted from under it in mid-frame, `[y, x]`.
    pub drift_nm: [f64; 2],
    /// How far the specimen moved in the image during the frame, `[x, y]`, pm.
    pub drift_pm: [f64; 2],
    /// Shift of the A columns by mistilt that is common to the field of view, `[x, y]` in the specimen frame, pm.
    pub tilt_offset_pm: [f64; 2],
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
