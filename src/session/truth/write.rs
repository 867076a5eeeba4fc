//! Writing a truth file, frame by frame.

use super::super::error::{At, SessionError};
use super::super::file::SessionFile;
use super::super::h5::{self, Table, place, text, write_attribute, write_text};
use super::super::stack::{Filing, Metadata, SpatialAxis, Stack, StackSpec};
use super::rows::{
    CELL_UNITS, COLUMN_UNITS, CellRow, ColumnRow, DEFECT_UNITS, DefectRow, FRAME_UNITS, FrameRow,
    OUTLINE_UNITS, OutlineRow, kind_names,
};
use super::scan::{LINE_PIXEL_UNITS, LINE_UNITS, LinePixelRow, LineRow, line_pixel_rows, line_rows};
use super::{
    CELLS, COLUMNS, DEFECTS, FRAMES, FrameTruth, LINE_PIXELS, LINES, MASK, MEASUREMENT, OUTLINES, SATURATED,
    SCENE, TRUTH_FORMAT, TRUTH_VERSION,
};
use crate::simulate::Truth;
use ferrostem_proto::{ByteOrder, Dtype, PixelArray};
use hdf5::{File, Group, H5Type};
use std::path::Path;

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
    /// `[row, col]`.
    pub pixel_size_pm: [f64; 2],
    /// Whether the detector can be saturated.
    pub saturates: bool,
}

/// A truth file that is being written.
pub struct TruthWriter {
    session: SessionFile,
    shape: [usize; 2],
    contents: Contents,
    first_start_ns: Option<u64>,
}

struct Contents {
    frames: Table<FrameRow>,
    cells: Table<CellRow>,
    columns: Table<ColumnRow>,
    defects: Table<DefectRow>,
    outlines: Table<OutlineRow>,
    lines: Table<LineRow>,
    line_pixels: Table<LinePixelRow>,
    mask: Stack,
    saturated: Option<Stack>,
}

impl TruthWriter {
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn create(path: &Path, header: &TruthHeader) -> Result<Self, SessionError> {
        let (session, mut contents) = SessionFile::create(path, |file| {
            write_header(file, header)?;
            Contents::create(file, header)
        })?;
        let file = session.get()?;
        contents.reopen(&file.group(MEASUREMENT).at(|| place(file))?)?;
        Ok(Self { session, shape: header.shape, contents, first_start_ns: None })
    }

    /// Adds the truth of the next frame, and brings the file on disk up to date.
    ///
    /// # Errors
    /// When the truth is not that of a frame of the file's shape, or writing fails.
    pub fn frame(&mut self, FrameTruth { scan, truth }: &FrameTruth) -> Result<(), SessionError> {
        let index = self.contents.frames.len();
        let at = || self.session.path().display().to_string();
        let frame = u32::try_from(index)
            .map_err(|_| SessionError::unexpected(at(), "fewer than 2^32 frames", index))?;
        let mask = image(
            self.shape,
            Dtype::U16,
            truth.numbered_mask(self.shape).iter().flat_map(|number| number.to_le_bytes()),
        )?;
        let saturated =
            self.contents.saturated.is_some().then(|| saturated(self.shape, truth)).transpose()?;
        let mut row = FrameRow::new(frame, scan);
        self.contents.tables(&mut row, truth, self.shape[0])?;
        let since_first = scan.t_start_ns.saturating_sub(*self.first_start_ns.get_or_insert(scan.t_start_ns));
        let time_s = since_first as f64 * 1e-9;
        write_image(&mut self.contents.mask, index, time_s, &mask)?;
        if let (Some(stack), Some(saturated)) = (&mut self.contents.saturated, &saturated) {
            write_image(stack, index, time_s, saturated)?;
        }
        // Last, so that a frame that has its row has everything.
        self.contents.frames.append(&[row])?;
        self.session.flush()
    }

    /// Closes the file and says how many frames it holds.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(self) -> Result<usize, SessionError> {
        let frames = self.contents.frames.len();
        drop(self.contents);
        self.session.close()?;
        Ok(frames)
    }
}

impl Contents {
    fn create(file: &File, header: &TruthHeader) -> Result<Self, SessionError> {
        let filing = Filing::new(file, 1, true)?;
        let group = file.create_group(MEASUREMENT).at(|| place(file))?;
        write_text(&group, "acquisition", &header.acquisition)?;
        let stack = |channel: usize, name: &str, (units, values): (&str, &str), dtype: Dtype| {
            let axis = |axis: usize| {
                let centres = (0..header.shape[axis]).map(|i| i as f64);
                SpatialAxis::new(centres, Some(header.pixel_size_pm[axis]))
            };
            let spec = StackSpec {
                name,
                quantity: name,
                units,
                source: "FerroSTEM simulator",
                dtype: h5::descriptor(dtype),
                fill: None,
                y: axis(0),
                x: axis(1),
            };
            let stack = Stack::create(&group, channel, &spec, &filing)?;
            let path = format!("Channel_{channel:03}/{name}");
            let channel = group.group(&path).at(|| format!("{}/{path}", place(&group)))?;
            Metadata::create(&channel, "metadata")?.text("values", values)?;
            Ok(stack)
        };
        let numbers = "n + 1 in the pixels of the frame's n-th row of `defects`, 0 elsewhere";
        let mask = stack(0, MASK, ("index", numbers), Dtype::U16)?;
        let marks = "1 where the detector was saturated";
        let saturated =
            header.saturates.then(|| stack(1, SATURATED, ("flag", marks), Dtype::U8)).transpose()?;
        Ok(Self {
            frames: table(&group, FRAMES, &FRAME_UNITS)?,
            cells: table(&group, CELLS, &CELL_UNITS)?,
            columns: table(&group, COLUMNS, &COLUMN_UNITS)?,
            defects: table(&group, DEFECTS, &DEFECT_UNITS)?,
            outlines: table(&group, OUTLINES, &OUTLINE_UNITS)?,
            lines: table(&group, LINES, &LINE_UNITS)?,
            line_pixels: table(&group, LINE_PIXELS, &LINE_PIXEL_UNITS)?,
            mask,
            saturated,
        })
    }

    fn reopen(&mut self, group: &Group) -> Result<(), SessionError> {
        self.frames.reopen(group)?;
        self.cells.reopen(group)?;
        self.columns.reopen(group)?;
        self.defects.reopen(group)?;
        self.outlines.reopen(group)?;
        self.lines.reopen(group)?;
        self.line_pixels.reopen(group)?;
        self.mask.reopen(group)?;
        self.saturated.iter_mut().try_for_each(|stack| stack.reopen(group))
    }

    /// Adds the rows of one frame's `truth`, and notes in `row` where they are.
    fn tables(&mut self, row: &mut FrameRow, truth: &Truth, rows: usize) -> Result<(), SessionError> {
        let frame = row.frame;
        let cells: Vec<_> = truth.cells.iter().map(|cell| CellRow::new(frame, cell)).collect();
        let columns: Vec<_> = truth.columns.iter().map(|column| ColumnRow::new(frame, column)).collect();
        let lines = line_rows(frame, &truth.scan, rows);
        let line_pixels = line_pixel_rows(frame, &truth.scan);
        let (mut outlines, mut defects) = (Vec::new(), Vec::new());
        let first_outline = self.outlines.len();
        for defect in &truth.defects {
            defects.push(DefectRow::new(frame, defect, (first_outline + outlines.len()) as u64));
            outlines.extend(OutlineRow::of(frame, defect));
        }
        self.outlines.append(&outlines)?;
        (row.cells_start, row.cells_count) = append(&mut self.cells, &cells)?;
        (row.columns_start, row.columns_count) = append(&mut self.columns, &columns)?;
        (row.defects_start, row.defects_count) = append(&mut self.defects, &defects)?;
        (row.lines_start, row.lines_count) = append(&mut self.lines, &lines)?;
        (row.line_pixels_start, row.line_pixels_count) = append(&mut self.line_pixels, &line_pixels)?;
        Ok(())
    }
}

fn write_header(file: &File, header: &TruthHeader) -> Result<(), SessionError> {
    write_text(file, "format", TRUTH_FORMAT)?;
    write_attribute(file, "format_version", &TRUTH_VERSION)?;
    Metadata::create(file, "metadata")?
        .text("ferrostem_version", env!("CARGO_PKG_VERSION"))?
        .text("session", &header.session)?
        .number("created_ns", header.created_ns)?;
    let group = file.group("metadata").at(|| place(file))?;
    group.new_attr_builder().with_data(&kind_names()[..]).create("kinds").at(|| place(&group))?;
    // A dataset, not an attribute: attributes end at 64 KiB.
    group
        .new_dataset::<hdf5::types::VarLenUnicode>()
        .create(SCENE)
        .and_then(|scene| scene.write_scalar(&text(&header.scene_toml)))
        .at(|| format!("{}/{SCENE}", place(&group)))
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

/// Adds `rows`, and says where they begin and how many they are.
fn append<R: H5Type>(table: &mut Table<R>, rows: &[R]) -> Result<(u64, u64), SessionError> {
    Ok((table.append(rows)? as u64, rows.len() as u64))
}

fn image(
    shape: [usize; 2],
    dtype: Dtype,
    bytes: impl Iterator<Item = u8>,
) -> Result<PixelArray, SessionError> {
    PixelArray::new(dtype, ByteOrder::Little, shape, bytes.collect::<Vec<u8>>().into())
        .map_err(|error| SessionError::unexpected("a mask", "an image of the frames' shape", error))
}

/// Zeros for a frame that does not say.
fn saturated(shape: [usize; 2], truth: &Truth) -> Result<PixelArray, SessionError> {
    match &truth.saturated {
        Some(saturated) if saturated.shape() == shape => {
            image(shape, Dtype::U8, saturated.iter().map(|&saturated| u8::from(saturated)))
        }
        Some(other) => Err(SessionError::unexpected(
            "the saturated pixels",
            format!("an image of {shape:?}"),
            format!("{:?}", other.shape()),
        )),
        None => image(shape, Dtype::U8, std::iter::repeat_n(0, shape[0] * shape[1])),
    }
}

fn write_image(
    stack: &mut Stack,
    index: usize,
    time_s: f64,
    pixels: &PixelArray,
) -> Result<(), SessionError> {
    // A failed write may have left one image too many; it is written over.
    if stack.len() == index {
        stack.grow(&[time_s])?;
    }
    h5::write_image(&stack.data, index, pixels)
}
