//! Rows of the truth tables, and their way from and to [`Truth`](crate::simulate::Truth).

use super::super::error::SessionError;
use super::super::h5::{string, text};
use super::super::rows::json_name;
use super::TruthScan;
use crate::frame::Sublattice;
use crate::simulate::{TruthCell, TruthColumn, TruthDefect};
use hdf5::H5Type;
use hdf5::types::VarLenUnicode;

/// One frame; its cells, columns and defects are in rows `start..start + count` of their tables.
#[derive(H5Type, Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct FrameRow {
    pub frame: u32,
    pub seq: u64,
    pub t_start_ns: u64,
    pub t_end_ns: u64,
    pub pixel_size_pm: f64,
    pub rotation_rad: f64,
    pub center_y_nm: f64,
    pub center_x_nm: f64,
    pub drift_y_nm: f64,
    pub drift_x_nm: f64,
    pub frame_drift_x_pm: f64,
    pub frame_drift_y_pm: f64,
    pub tilt_offset_x_pm: f64,
    pub tilt_offset_y_pm: f64,
    pub cells_start: u64,
    pub cells_count: u64,
    pub columns_start: u64,
    pub columns_count: u64,
    pub defects_start: u64,
    pub defects_count: u64,
}

/// One B-centred unit cell.
#[derive(H5Type, Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct CellRow {
    pub frame: u32,
    pub row: f64,
    pub col: f64,
    pub b_row: f64,
    pub b_col: f64,
    pub p_x: f64,
    pub p_y: f64,
    pub mistilt_x: f64,
    pub mistilt_y: f64,
    pub cell_a: f64,
    pub cell_b: f64,
    pub cell_angle: f64,
    pub cell_area: f64,
    /// 1 where a defect changes one of its columns.
    pub disturbed: u8,
}

/// One column.
#[derive(H5Type, Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct ColumnRow {
    pub frame: u32,
    pub row: f64,
    pub col: f64,
    /// 0 the dim B sublattice, 1 the bright A sublattice.
    pub class: u8,
    /// Peak height; 1 = an undisturbed A column.
    pub intensity: f64,
}

/// One defect.
#[derive(H5Type, Debug, Clone)]
#[repr(C)]
pub(super) struct DefectRow {
    pub frame: u32,
    pub kind: VarLenUnicode,
    pub row: f64,
    pub col: f64,
    pub radius_px: f64,
}

/// Units of the fields that have one, by table.
pub(super) const FRAME_UNITS: [(&str, &str); 12] = [
    ("t_start_ns", "ns"),
    ("t_end_ns", "ns"),
    ("pixel_size_pm", "pm"),
    ("rotation_rad", "rad"),
    ("center_y_nm", "nm"),
    ("center_x_nm", "nm"),
    ("drift_y_nm", "nm"),
    ("drift_x_nm", "nm"),
    ("frame_drift_x_pm", "pm"),
    ("frame_drift_y_pm", "pm"),
    ("tilt_offset_x_pm", "pm"),
    ("tilt_offset_y_pm", "pm"),
];
pub(super) const CELL_UNITS: [(&str, &str); 12] = [
    ("row", "px"),
    ("col", "px"),
    ("b_row", "px"),
    ("b_col", "px"),
    ("p_x", "pm"),
    ("p_y", "pm"),
    ("mistilt_x", "pm"),
    ("mistilt_y", "pm"),
    ("cell_a", "pm"),
    ("cell_b", "pm"),
    ("cell_angle", "rad"),
    ("cell_area", "pm^2"),
];
pub(super) const COLUMN_UNITS: [(&str, &str); 2] = [("row", "px"), ("col", "px")];
pub(super) const DEFECT_UNITS: [(&str, &str); 3] = [("row", "px"), ("col", "px"), ("radius_px", "px")];

impl FrameRow {
    /// Without the places in the other tables.
    pub fn new(frame: u32, scan: &TruthScan) -> Self {
        Self {
            frame,
            seq: scan.seq,
            t_start_ns: scan.t_start_ns,
            t_end_ns: scan.t_end_ns,
            pixel_size_pm: scan.pixel_size_pm,
            rotation_rad: scan.rotation_rad,
            center_y_nm: scan.center_nm[0],
            center_x_nm: scan.center_nm[1],
            drift_y_nm: scan.drift_nm[0],
            drift_x_nm: scan.drift_nm[1],
            frame_drift_x_pm: scan.drift_pm[0],
            frame_drift_y_pm: scan.drift_pm[1],
            tilt_offset_x_pm: scan.tilt_offset_pm[0],
            tilt_offset_y_pm: scan.tilt_offset_pm[1],
            cells_start: 0,
            cells_count: 0,
            columns_start: 0,
            columns_count: 0,
            defects_start: 0,
            defects_count: 0,
        }
    }

    pub const fn scan(&self) -> TruthScan {
        TruthScan {
            seq: self.seq,
            t_start_ns: self.t_start_ns,
            t_end_ns: self.t_end_ns,
            pixel_size_pm: self.pixel_size_pm,
            rotation_rad: self.rotation_rad,
            center_nm: [self.center_y_nm, self.center_x_nm],
            drift_nm: [self.drift_y_nm, self.drift_x_nm],
            drift_pm: [self.frame_drift_x_pm, self.frame_drift_y_pm],
            tilt_offset_pm: [self.tilt_offset_x_pm, self.tilt_offset_y_pm],
        }
    }
}

impl CellRow {
    pub fn new(frame: u32, cell: &TruthCell) -> Self {
        Self {
            frame,
            row: cell.row,
            col: cell.col,
            b_row: cell.b_row,
            b_col: cell.b_col,
            p_x: cell.p_x,
            p_y: cell.p_y,
            mistilt_x: cell.mistilt_x,
            mistilt_y: cell.mistilt_y,
            cell_a: cell.cell_a,
            cell_b: cell.cell_b,
            cell_angle: cell.cell_angle,
            cell_area: cell.cell_area,
            disturbed: u8::from(cell.disturbed),
        }
    }

    pub const fn cell(&self) -> TruthCell {
        TruthCell {
            row: self.row,
            col: self.col,
            b_row: self.b_row,
            b_col: self.b_col,
            p_x: self.p_x,
            p_y: self.p_y,
            mistilt_x: self.mistilt_x,
            mistilt_y: self.mistilt_y,
            cell_a: self.cell_a,
            cell_b: self.cell_b,
            cell_angle: self.cell_angle,
            cell_area: self.cell_area,
            disturbed: self.disturbed != 0,
        }
    }
}

impl ColumnRow {
    pub fn new(frame: u32, column: &TruthColumn) -> Self {
        let TruthColumn { row, col, sublattice, intensity } = *column;
        Self { frame, row, col, class: sublattice as u8, intensity }
    }

    /// # Errors
    /// A class that is none; `place` says where.
    pub fn column(&self, place: &str) -> Result<TruthColumn, SessionError> {
        let sublattice = match self.class {
            0 => Sublattice::B,
            1 => Sublattice::A,
            other => return Err(SessionError::unexpected(place, "a class of 0 or 1", other)),
        };
        Ok(TruthColumn { row: self.row, col: self.col, sublattice, intensity: self.intensity })
    }
}

impl DefectRow {
    pub fn new(frame: u32, defect: &TruthDefect) -> Self {
        let TruthDefect { kind, row, col, radius_px } = *defect;
        Self { frame, kind: text(&json_name(&kind)), row, col, radius_px }
    }

    /// # Errors
    /// A kind that is not known; `place` says where.
    pub fn defect(&self, place: &str) -> Result<TruthDefect, SessionError> {
        let kind = serde_json::from_value(string(&self.kind).into())
            .map_err(|error| SessionError::unexpected(place, "a kind of defect", error))?;
        Ok(TruthDefect { kind, row: self.row, col: self.col, radius_px: self.radius_px })
    }
}
