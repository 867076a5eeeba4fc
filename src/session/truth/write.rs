//! Writing a truth file, frame by frame.

use super::super::error::{At, SessionError};
use super::super::h5::{self, Table, place, text, write_attribute, write_text};
use super::super::record::create_new;
use super::super::stack::{Filing, Metadata, SpatialAxis, Stack, StackSpec};
use super::mask::defect_mask;
use super::rows::{
    CELL_UNITS, COLUMN_UNITS, CellRow, ColumnRow, DEFECT_UNITS, DefectRow, FRAME_UNITS, FrameRow,
};
use super::{
    CELLS, COLUMNS, DEFECTS, FRAMES, FrameTruth, MASK, MEASUREMENT, SCENE, TRUTH_FORMAT, TRUTH_VERSION,
};
use ferrostem_proto::{ByteOrder, Dtype, PixelArray};
use hdf5::{File, Group, H5Type};
use std::path::{Path, PathBuf};

/// What a truth file says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TruthHeader {
    /// The whole scene, as TOML.
    pub scene_toml: String,
    /// File name of the session.
    pub session: String,
    pub acquisition: String,
    /// Unix nanoseconds.
    pub created_ns: u64,
    /// `[rows, cols]` of every frame.
    pub shape: [usize; 2],
    pub pixel_size_pm: f64,
}

/// A truth file that is being written.
pub struct TruthWriter {
    path: PathBuf,
    file: File,
    shape: [usize; 2],
    frames: Table<FrameRow>,
    cells: Table<CellRow>,
    columns: Table<ColumnRow>,
    defects: Table<DefectRow>,
    mask: Stack,
    first_start_ns: Option<u64>,
}

impl TruthWriter {
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn create(path: &Path, header: &TruthHeader) -> Result<Self, SessionError> {
        let path = create_new(path.to_owned())?;
        let at = || path.display().to_string();
        let file = File::open_rw(&path).at(at)?;
        let filing = Filing::new(&file, 1, true)?;
        write_text(&file, "format", TRUTH_FORMAT)?;
        write_attribute(&file, "format_version", &TRUTH_VERSION)?;
        Metadata::create(&file, "metadata")?
            .text("ferrostem_version", env!("CARGO_PKG_VERSION"))?
            .text("session", &header.session)?
            .number("created_ns", header.created_ns)?;
        // A dataset, not an attribute: attributes end at 64 KiB.
        file.group("metadata")
            .and_then(|group| group.new_dataset::<hdf5::types::VarLenUnicode>().create(SCENE))
            .and_then(|scene| scene.write_scalar(&text(&header.scene_toml)))
            .at(at)?;
        let group = file.create_group(MEASUREMENT).at(at)?;
        write_text(&group, "acquisition", &header.acquisition)?;
        let axis = |n: usize| SpatialAxis::new((0..n).map(|i| i as f64), Some(header.pixel_size_pm));
        let spec = StackSpec {
            name: MASK,
            quantity: "defect",
            units: "index",
            source: "FerroSTEM simulator",
            dtype: h5::descriptor(Dtype::U16),
            fill: None,
            y: axis(header.shape[0]),
            x: axis(header.shape[1]),
        };
        let mask = Stack::create(&group, 0, &spec, &filing)?;
        Metadata::create(&mask.group, "metadata")?
            .text("values", "n + 1 in the pixels of the frame's n-th row of `defects`, 0 elsewhere")?;
        let writer = Self {
            frames: table(&group, FRAMES, &FRAME_UNITS)?,
            cells: table(&group, CELLS, &CELL_UNITS)?,
            columns: table(&group, COLUMNS, &COLUMN_UNITS)?,
            defects: table(&group, DEFECTS, &DEFECT_UNITS)?,
            mask,
            shape: header.shape,
            first_start_ns: None,
            file,
            path,
        };
        Ok(writer)
    }

    /// Adds the truth of the next frame.
    ///
    /// # Errors
    /// When writing fails.
    pub fn frame(&mut self, FrameTruth { scan, truth }: &FrameTruth) -> Result<(), SessionError> {
        let index = self.frames.len();
        let frame = u32::try_from(index).map_err(|_| {
            SessionError::unexpected(self.path.display().to_string(), "fewer than 2^32 frames", index)
        })?;
        let mut row = FrameRow::new(frame, scan);
        let cells: Vec<_> = truth.cells.iter().map(|cell| CellRow::new(frame, cell)).collect();
        let columns: Vec<_> = truth.columns.iter().map(|column| ColumnRow::new(frame, column)).collect();
        let defects: Vec<_> = truth.defects.iter().map(|defect| DefectRow::new(frame, defect)).collect();
        (row.cells_start, row.cells_count) = (self.cells.append(&cells)? as u64, cells.len() as u64);
        (row.columns_start, row.columns_count) =
            (self.columns.append(&columns)? as u64, columns.len() as u64);
        (row.defects_start, row.defects_count) =
            (self.defects.append(&defects)? as u64, defects.len() as u64);
        let since_first = scan.t_start_ns.saturating_sub(*self.first_start_ns.get_or_insert(scan.t_start_ns));
        self.mask.grow(&[since_first as f64 * 1e-9])?;
        let bytes: Vec<u8> =
            defect_mask(truth, self.shape).iter().flat_map(|label| label.to_le_bytes()).collect();
        let mask =
            PixelArray::new(Dtype::U16, ByteOrder::Little, self.shape, bytes.into()).map_err(|error| {
                SessionError::unexpected(
                    self.path.display().to_string(),
                    "a mask of the frame's shape",
                    error,
                )
            })?;
        h5::write_image(&self.mask.data, index, &mask)?;
        // Last, so that a frame that has its row has everything.
        self.frames.append(&[row])?;
        Ok(())
    }

    /// Closes the file and says how many frames it holds.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(self) -> Result<usize, SessionError> {
        self.file.flush().at(|| self.path.display().to_string())?;
        Ok(self.frames.len())
    }
}

/// An empty table whose fields say their units.
fn table<R: H5Type>(group: &Group, name: &str, units: &[(&str, &str)]) -> Result<Table<R>, SessionError> {
    let table = Table::create(group, name, 1024)?;
    let dataset = group.dataset(name).at(|| format!("{}/{name}", place(group)))?;
    for (field, unit) in units {
        write_text(&dataset, &format!("units_{field}"), unit)?;
    }
    Ok(table)
}
