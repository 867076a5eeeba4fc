//! What a FerroSTEM session looks like on disk, version 1: names, tables and their rows.
//!
//! ```text
//! /                          @format = "FerroSTEM session", @format_version = 1
//! /metadata                  config_toml (text); @ferrostem_version, @created_ns, @dcnn_name, @dcnn_sha256, @fcnn_…
//! /metadata_001, …           the same for each later recording that was added to the file
//! /acks  /gaps  /events      tables: AckRow, GapRow, EventRow
//! /Measurement_000           @acquisition, @source, @channel, @frames_path, @segment (0 = /metadata, 1 = /metadata_001, …)
//!   Channel_000/HAADF/       frames: HAADF [time, y, x] as received; time (s since the first frame), y, x (nm, or px)
//!   Channel_001/p_x/         p_x [time, y, x] on the window grid; NaN where there is no result; then p_y, p_sigma, …
//!   grid/row, grid/col       window centres in frame pixels;          mistilt_grid/row, /col the same for the tiles
//!   frames  results          tables: FrameRow, one a frame; ResultRow, one a result
//!   columns  candidates      tables: ColumnRow, CandidateRow; `frame` counts the frames of the measurement
//! ```
//!
//! Image stacks are NSID main datasets: dimension scales attached and labelled, the mandatory attributes as text. The group
//! around each is an NXdata group of NeXus as well.
//! A measurement holds frames of one source, channel, acquisition, shape, pixel type, pixel size and window grid;
//! when one of these changes, another `Measurement_NNN` begins. `FrameRow::order` puts all frames of a file in order.
//!
//! The file is in the format of HDF5 1.10 and in SWMR mode while it is written: it can be read meanwhile (h5py:
//! `File(path, "r", swmr=True)`, then `dataset.refresh()`), and after its writer was killed. It is brought up to date at
//! each flush; datasets of one measurement may differ in length by what came after the last one.

use hdf5::H5Type;
use hdf5::types::VarLenUnicode;

/// Root attribute `format` of a session.
pub const FORMAT: &str = "FerroSTEM session";
/// Root attribute `format_version`: readers refuse a higher one.
pub const FORMAT_VERSION: u32 = 1;

pub(super) const METADATA: &str = "metadata";
pub(super) const CONFIG: &str = "config_toml";
pub(super) const ACKS: &str = "acks";
pub(super) const GAPS: &str = "gaps";
pub(super) const EVENTS: &str = "events";
pub(super) const FRAMES: &str = "frames";
pub(super) const RESULTS: &str = "results";
pub(super) const COLUMNS: &str = "columns";
pub(super) const CANDIDATES: &str = "candidates";
pub(super) const WINDOW_GRID: &str = "grid";
pub(super) const TILE_GRID: &str = "mistilt_grid";
pub(super) const MEASUREMENT_PREFIX: &str = "Measurement_";

/// The group that says how the recording `segment` of a file was made.
pub(super) fn metadata_name(segment: u32) -> String {
    if segment == 0 { METADATA.to_owned() } else { format!("{METADATA}_{segment:03}") }
}

/// `Measurement_000`, …
pub(super) fn measurement_name(index: usize) -> String {
    format!("{MEASUREMENT_PREFIX}{index:03}")
}

/// A name that HDF5 paths, NSID and Python attributes all take: letters, digits and `_`, not one of the dimensions.
pub(super) fn quantity_name(name: &str) -> String {
    let clean: String =
        name.chars().take(64).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match clean.as_str() {
        "" => "frames".to_owned(),
        "time" | "y" | "x" | "metadata" => format!("channel_{clean}"),
        _ => clean,
    }
}

/// One frame as it was received. NaN = the source did not say.
#[derive(H5Type, Debug, Clone)]
#[repr(C)]
pub struct FrameRow {
    /// Counts the frames of the whole file.
    pub order: u64,
    pub seq: u64,
    pub t_start_ns: u64,
    pub t_end_ns: u64,
    pub t_received_ns: u64,
    pub pixel_size_row_pm: f64,
    pub pixel_size_col_pm: f64,
    pub rotation_rad: f64,
    pub center_y_nm: f64,
    pub center_x_nm: f64,
    pub fov_y_nm: f64,
    pub fov_x_nm: f64,
    pub dwell_us: f64,
    /// Rows `valid_from..valid_to` hold data.
    pub valid_from: u64,
    pub valid_to: u64,
    /// 1 when the scan had not finished.
    pub partial: u8,
    /// A JSON object.
    pub user_data: VarLenUnicode,
}

/// The part of [`FrameRow`] that ordering and timing need.
#[derive(H5Type, Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct FrameTimeRow {
    pub(super) order: u64,
    pub(super) t_received_ns: u64,
}

/// One result; its maps are in the channels, its columns and candidates in rows `start..start + count` of their tables.
#[derive(H5Type, Debug, Clone)]
#[repr(C)]
pub struct ResultRow {
    /// The frame of this measurement that it belongs to.
    pub frame: u32,
    /// Bit `i` is set where the `i`-th map on the window grid (p_x, p_y, …) was measured.
    pub measured_windows: u32,
    /// Bit `i` is set where the `i`-th map on the mistilt tiles was measured.
    pub measured_tiles: u32,
    pub seq: u64,
    pub t_acquired_ns: u64,
    pub t_received_ns: u64,
    pub t_published_ns: u64,
    pub columns_start: u64,
    pub columns_count: u64,
    pub candidates_start: u64,
    pub candidates_count: u64,
    pub calibration_row_pm: f64,
    pub calibration_col_pm: f64,
    pub calibration_source: VarLenUnicode,
    /// JSON of the wire's `model`.
    pub model: VarLenUnicode,
    /// JSON list of `[stage, µs]`.
    pub stages_us: VarLenUnicode,
    pub received: u64,
    pub processed: u64,
    pub superseded: u64,
    pub gaps: u64,
    pub repeats: u64,
    pub restarts: u64,
    pub rejected: u64,
    pub partial_skipped: u64,
    pub publish_dropped: u64,
    pub record_dropped: u64,
}

/// One atomic column, frame pixels.
#[derive(H5Type, Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct ColumnRow {
    pub frame: u32,
    pub row: f32,
    pub col: f32,
    pub class: u8,
    pub confidence: f32,
}

/// One candidate, as on the wire.
#[derive(H5Type, Debug, Clone)]
#[repr(C)]
pub struct CandidateRow {
    pub frame: u32,
    pub id: u64,
    pub kind: VarLenUnicode,
    pub px_row: f64,
    pub px_col: f64,
    pub frac_y: f64,
    pub frac_x: f64,
    pub nm_x: f64,
    pub nm_y: f64,
    pub nm_rotation_rad: f64,
    pub score: f64,
    pub p_value: f64,
    pub reason: VarLenUnicode,
    pub first_seq: u64,
    pub seq: u64,
    pub valid_until_ns: u64,
    pub model: VarLenUnicode,
}

/// A controller's verdict on a candidate.
#[derive(H5Type, Debug, Clone)]
#[repr(C)]
pub struct AckRow {
    pub candidate_id: u64,
    pub t_ns: u64,
    pub verdict: VarLenUnicode,
}

/// Sequence numbers that never came.
#[derive(H5Type, Debug, Clone)]
#[repr(C)]
pub struct GapRow {
    pub first_seq: u64,
    pub missing: u64,
    pub t_ns: u64,
    pub source: VarLenUnicode,
    pub acquisition: VarLenUnicode,
}

/// Something that happened between frames.
#[derive(H5Type, Debug, Clone)]
#[repr(C)]
pub struct EventRow {
    pub t_ns: u64,
    pub kind: VarLenUnicode,
    pub source: VarLenUnicode,
    pub acquisition: VarLenUnicode,
    /// A JSON object.
    pub detail: VarLenUnicode,
}
