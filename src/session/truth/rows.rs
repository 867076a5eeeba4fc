//! Rows of the truth tables, and their way from and to [`Truth`](crate::simulate::Truth).

use super::super::error::SessionError;
use super::super::h5::{string, text};
use super::super::rows::json_name;
use super::TruthScan;
use crate::simulate::{ColumnClass, DefectKind, Extent, TruthCell, TruthColumn, TruthDefect};
use hdf5::H5Type;
use hdf5::types::VarLenUnicode;

/// One frame; its cells, columns, defects, lines and line pixels are in rows `start..start + count` of their tables.
#[derive(H5Type, Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct FrameRow {
    pub frame: u32,
    pub seq: u64,
    pub t_start_ns: u64,
    pub t_end_ns: u64,
    pub pixel_size_row_pm: f64,
    pub pixel_size_col_pm: f64,
    pub rotation_rad: f64,
    pub center_y_nm: f64,
    pub center_x_nm: f64,
    pub drift_y_nm: f64,
    pub drift_x_nm: f64,
    pub frame_drift_x_pm: f64,
    pub frame_drift_y_pm: f64,
    pub cells_start: u64,
    pub cells_count: u64,
    pub columns_start: u64,
    pub columns_count: u64,
    pub defects_start: u64,
    pub defects_count: u64,
    pub lines_start: u64,
    pub lines_count: u64,
    pub line_pixels_start: u64,
    pub line_pixels_count: u64,
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
    pub tilt_x_mrad: f64,
    pub tilt_y_mrad: f64,
    pub cell_a: f64,
    pub cell_b: f64,
    pub cell_angle: f64,
    pub cell_area: f64,
    /// Fraction of foreign atoms in its A columns.
    pub composition: f64,
    /// Code of the kind of region that it is in; 0 is the host crystal.
    pub region: u8,
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
    /// 0 the dim B sublattice, 1 the bright A sublattice, 2 oxygen, 3 an interstitial.
    pub class: u8,
    /// Peak height; 1 = an undisturbed A column.
    pub intensity: f64,
}

/// One defect; its outline is in rows `start..start + count` of that table.
#[derive(H5Type, Debug, Clone)]
#[repr(C)]
pub(super) struct DefectRow {
    pub frame: u32,
    pub kind: VarLenUnicode,
    pub code: u8,
    pub row: f64,
    pub col: f64,
    pub radius_px: f64,
    /// `disc` (within `radius_px` of its middle), `area` (within the outline) or `path` (within `radius_px` of it).
    pub extent: VarLenUnicode,
    pub outline_start: u64,
    pub outline_count: u64,
}

/// A corner of a defect's area, or of its path.
#[derive(H5Type, Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct OutlineRow {
    pub frame: u32,
    pub row: f64,
    pub col: f64,
}

/// Units of the fields that have one, by table.
pub(super) const FRAME_UNITS: [(&str, &str); 11] = [
    ("t_start_ns", "ns"),
    ("t_end_ns", "ns"),
    ("pixel_size_row_pm", "pm"),
    ("pixel_size_col_pm", "pm"),
    ("rotation_rad", "rad"),
    ("center_y_nm", "nm"),
    ("center_x_nm", "nm"),
    ("drift_y_nm", "nm"),
    ("drift_x_nm", "nm"),
    ("frame_drift_x_pm", "pm"),
    ("frame_drift_y_pm", "pm"),
];
pub(super) const CELL_UNITS: [(&str, &str); 14] = [
    ("row", "px"),
    ("col", "px"),
    ("b_row", "px"),
    ("b_col", "px"),
    ("p_x", "pm"),
    ("p_y", "pm"),
    ("mistilt_x", "pm"),
    ("mistilt_y", "pm"),
    ("tilt_x_mrad", "mrad"),
    ("tilt_y_mrad", "mrad"),
    ("cell_a", "pm"),
    ("cell_b", "pm"),
    ("cell_angle", "rad"),
    ("cell_area", "pm^2"),
];
pub(super) const COLUMN_UNITS: [(&str, &str); 2] = [("row", "px"), ("col", "px")];
pub(super) const DEFECT_UNITS: [(&str, &str); 3] = [("row", "px"), ("col", "px"), ("radius_px", "px")];
pub(super) const OUTLINE_UNITS: [(&str, &str); 2] = [("row", "px"), ("col", "px")];

impl FrameRow {
    /// Without the places in the other tables.
    pub fn new(frame: u32, scan: &TruthScan) -> Self {
        Self {
            frame,
            seq: scan.seq,
            t_start_ns: scan.t_start_ns,
            t_end_ns: scan.t_end_ns,
            pixel_size_row_pm: scan.pixel_size_pm[0],
            pixel_size_col_pm: scan.pixel_size_pm[1],
            rotation_rad: scan.rotation_rad,
            center_y_nm: scan.center_nm[0],
            center_x_nm: scan.center_nm[1],
            drift_y_nm: scan.drift_nm[0],
            drift_x_nm: scan.drift_nm[1],
            frame_drift_x_pm: scan.drift_pm[0],
            frame_drift_y_pm: scan.drift_pm[1],
            cells_start: 0,
            cells_count: 0,
            columns_start: 0,
            columns_count: 0,
            defects_start: 0,
            defects_count: 0,
            lines_start: 0,
            lines_count: 0,
            line_pixels_start: 0,
            line_pixels_count: 0,
        }
    }

    pub const fn scan(&self) -> TruthScan {
        TruthScan {
            seq: self.seq,
            t_start_ns: self.t_start_ns,
            t_end_ns: self.t_end_ns,
            pixel_size_pm: [self.pixel_size_row_pm, self.pixel_size_col_pm],
            rotation_rad: self.rotation_rad,
            center_nm: [self.center_y_nm, self.center_x_nm],
            drift_nm: [self.drift_y_nm, self.drift_x_nm],
            drift_pm: [self.frame_drift_x_pm, self.frame_drift_y_pm],
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
            tilt_x_mrad: cell.tilt_x_mrad,
            tilt_y_mrad: cell.tilt_y_mrad,
            cell_a: cell.cell_a,
            cell_b: cell.cell_b,
            cell_angle: cell.cell_angle,
            cell_area: cell.cell_area,
            composition: cell.composition,
            region: cell.region.map_or(0, DefectKind::code),
            disturbed: u8::from(cell.disturbed),
        }
    }

    /// # Errors
    /// A region of no known code; `place` says where.
    pub fn cell(&self, place: &str) -> Result<TruthCell, SessionError> {
        let region = match self.region {
            0 => None,
            code => Some(kind_of(code).ok_or_else(|| {
                SessionError::unexpected(place, format!("a region of 0 to {}", DefectKind::ALL.len()), code)
            })?),
        };
        Ok(TruthCell {
            row: self.row,
            col: self.col,
            b_row: self.b_row,
            b_col: self.b_col,
            p_x: self.p_x,
            p_y: self.p_y,
            mistilt_x: self.mistilt_x,
            mistilt_y: self.mistilt_y,
            tilt_x_mrad: self.tilt_x_mrad,
            tilt_y_mrad: self.tilt_y_mrad,
            cell_a: self.cell_a,
            cell_b: self.cell_b,
            cell_angle: self.cell_angle,
            cell_area: self.cell_area,
            composition: self.composition,
            region,
            disturbed: self.disturbed != 0,
        })
    }
}

impl ColumnRow {
    pub fn new(frame: u32, column: &TruthColumn) -> Self {
        let TruthColumn { row, col, class, intensity } = *column;
        Self { frame, row, col, class: class as u8, intensity }
    }

    /// # Errors
    /// A class that is none; `place` says where.
    pub fn column(&self, place: &str) -> Result<TruthColumn, SessionError> {
        let class = ColumnClass::ALL
            .get(usize::from(self.class))
            .copied()
            .ok_or_else(|| SessionError::unexpected(place, "a class from 0 to 3", self.class))?;
        Ok(TruthColumn { row: self.row, col: self.col, class, intensity: self.intensity })
    }
}

fn kind_of(code: u8) -> Option<DefectKind> {
    DefectKind::ALL.into_iter().find(|kind| kind.code() == code)
}

/// The names of all kinds by their code; 0 is the undisturbed host crystal.
pub(super) fn kind_names() -> Vec<VarLenUnicode> {
    let kinds = DefectKind::ALL.iter().map(|kind| text(&json_name(kind)));
    std::iter::once(text("host")).chain(kinds).collect()
}

/// The extent's name, and its corners.
fn outline(extent: &Extent) -> (&'static str, &[[f64; 2]]) {
    match extent {
        Extent::Disc => ("disc", &[]),
        Extent::Area(corners) => ("area", corners),
        Extent::Path(path) => ("path", path),
    }
}

impl OutlineRow {
    /// Those of one defect.
    pub fn of(frame: u32, defect: &TruthDefect) -> impl Iterator<Item = Self> {
        outline(&defect.extent).1.iter().map(move |&[row, col]| Self { frame, row, col })
    }
}

impl DefectRow {
    /// With its outline from row `outline_start` on.
    pub fn new(frame: u32, defect: &TruthDefect, outline_start: u64) -> Self {
        let (extent, corners) = outline(&defect.extent);
        Self {
            frame,
            kind: text(&json_name(&defect.kind)),
            code: defect.kind.code(),
            row: defect.row,
            col: defect.col,
            radius_px: defect.radius_px,
            extent: text(extent),
            outline_start,
            outline_count: corners.len() as u64,
        }
    }

    /// With its `outline`.
    ///
    /// # Errors
    /// A kind or an extent that is not known; `place` says where.
    pub fn defect(&self, outline: &[OutlineRow], place: &str) -> Result<TruthDefect, SessionError> {
        let kind = kind_of(self.code)
            .ok_or_else(|| SessionError::unexpected(place, "the code of a kind of defect", self.code))?;
        let corners = || outline.iter().map(|corner| [corner.row, corner.col]).collect();
        let extent = match string(&self.extent).as_str() {
            "disc" => Extent::Disc,
            "area" => Extent::Area(corners()),
            "path" => Extent::Path(corners()),
            other => return Err(SessionError::unexpected(place, "disc, area or path", other)),
        };
        Ok(TruthDefect { kind, row: self.row, col: self.col, radius_px: self.radius_px, extent })
    }
}
