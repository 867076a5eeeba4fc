//! Reading truth files, alone and together with their sessions.

use super::super::error::{At, SessionError};
use super::super::h5::{
    ImageAxes, open_file, place, read_attribute, read_image, read_rows, read_text, string,
};
use super::super::reader::{FrameReader, OpenOptions, RecordedFrame, open};
use super::rows::{CellRow, ColumnRow, DefectRow, FrameRow, OutlineRow};
use super::scan::{LinePixelRow, LineRow, scan_field};
use super::{
    CELLS, COLUMNS, DEFECTS, FRAMES, FrameTruth, LINE_PIXELS, LINES, MASK, MEASUREMENT, OUTLINES, SATURATED,
    SCENE, TRUTH_FORMAT, TRUTH_VERSION, truth_path,
};
use crate::simulate::{Truth, TruthDefect};
use ferrostem_proto::Dtype;
use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, File, H5Type};
use ndarray::Array2;
use std::path::Path;

/// Rows of one table that one frame may have: 8192² pixels at three a column have fewer.
const MAX_ROWS: u64 = 10_000_000;
const AXES: ImageAxes = ImageAxes { frame: Some(0), row: 1, col: 2 };

/// A truth file, read one frame at a time.
#[derive(Debug)]
pub struct TruthReader {
    file: File,
    frames: Vec<FrameRow>,
    cells: Dataset,
    columns: Dataset,
    defects: Dataset,
    outlines: Dataset,
    lines: Dataset,
    line_pixels: Dataset,
    mask: Dataset,
    saturated: Option<Dataset>,
}

/// A simulated session with its truth, frame by frame.
#[derive(Debug)]
pub struct LabelledSession {
    frames: Box<dyn FrameReader>,
    truth: TruthReader,
}

impl TruthReader {
    /// # Errors
    /// When the file is no truth file, or of a later version.
    pub fn open(path: &Path) -> Result<Self, SessionError> {
        let at = || path.display().to_string();
        let file = open_file(path)?;
        let format = read_text(&file, "format");
        if format.as_deref() != Some(TRUTH_FORMAT) {
            let found = format.map_or_else(|| "no format".to_owned(), |format| format!("{format:?}"));
            return Err(SessionError::unexpected(at(), format!("the format {TRUTH_FORMAT:?}"), found));
        }
        let version: u32 = read_attribute(&file, "format_version")?;
        if version > TRUTH_VERSION {
            let expected = format!("a truth file of version {TRUTH_VERSION} or lower");
            return Err(SessionError::unexpected(at(), expected, format!("version {version}")));
        }
        let dataset = |name: &str| {
            let path = format!("{MEASUREMENT}/{name}");
            file.dataset(&path).at(|| format!("{}:/{path}", file.filename()))
        };
        let table = dataset(FRAMES)?;
        if table.size() as u64 > MAX_ROWS {
            let expected = format!("at most {MAX_ROWS} frames");
            return Err(SessionError::unexpected(place(&table), expected, table.size()));
        }
        let frames = read_rows::<FrameRow>(&table, 0..table.size())?;
        let stack = |channel: usize, name: &str| {
            let stack = dataset(&format!("Channel_{channel:03}/{name}/{name}"))?;
            let shape = stack.shape();
            if shape.len() != 3 || shape[0] < frames.len() || shape[1].saturating_mul(shape[2]) > 1 << 28 {
                let expected = format!("images [frame, row, col] of {} frames", frames.len());
                return Err(SessionError::unexpected(place(&stack), expected, format!("shape {shape:?}")));
            }
            Ok(stack)
        };
        let saturates = file.link_exists(&format!("{MEASUREMENT}/Channel_001"));
        Ok(Self {
            cells: dataset(CELLS)?,
            columns: dataset(COLUMNS)?,
            defects: dataset(DEFECTS)?,
            outlines: dataset(OUTLINES)?,
            lines: dataset(LINES)?,
            line_pixels: dataset(LINE_PIXELS)?,
            mask: stack(0, MASK)?,
            saturated: saturates.then(|| stack(1, SATURATED)).transpose()?,
            frames,
            file,
        })
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The scene that was simulated, as TOML.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn scene_toml(&self) -> Result<String, SessionError> {
        let path = format!("metadata/{SCENE}");
        let scene = self
            .file
            .dataset(&path)
            .and_then(|dataset| dataset.read_scalar::<VarLenUnicode>())
            .at(|| format!("{}:/{path}", self.file.filename()))?;
        Ok(string(&scene))
    }

    /// The truth of frame `index`.
    ///
    /// # Errors
    /// When there is no such frame, or the file cannot be read.
    pub fn frame(&self, index: usize) -> Result<FrameTruth, SessionError> {
        let row = self.row(index)?;
        let cells = part::<CellRow>(&self.cells, row.cells_start, row.cells_count)?;
        let columns = part::<ColumnRow>(&self.columns, row.columns_start, row.columns_count)?;
        let defects = part::<DefectRow>(&self.defects, row.defects_start, row.defects_count)?;
        let lines = part::<LineRow>(&self.lines, row.lines_start, row.lines_count)?;
        let pixels = part::<LinePixelRow>(&self.line_pixels, row.line_pixels_start, row.line_pixels_count)?;
        let (cell_place, column_place) = (place(&self.cells), place(&self.columns));
        let truth = Truth {
            cells: cells.iter().map(|row| row.cell(&cell_place)).collect::<Result<_, _>>()?,
            columns: columns.iter().map(|row| row.column(&column_place)).collect::<Result<_, _>>()?,
            defects: defects.iter().map(|row| self.defect(row)).collect::<Result<_, _>>()?,
            scan: scan_field(&lines, &pixels),
            saturated: self.saturated(index)?,
        };
        Ok(FrameTruth { scan: row.scan(), truth })
    }

    fn defect(&self, row: &DefectRow) -> Result<TruthDefect, SessionError> {
        let outline = part::<OutlineRow>(&self.outlines, row.outline_start, row.outline_count)?;
        row.defect(&outline, &place(&self.defects))
    }

    /// Which pixels of frame `index` belong to a defect: `n + 1` for its `n`-th, 0 for none.
    ///
    /// # Errors
    /// As [`Self::frame`].
    pub fn defect_mask(&self, index: usize) -> Result<Array2<u16>, SessionError> {
        self.row(index)?;
        let image = read_image(&self.mask, AXES, index, Dtype::U16)?;
        let (numbers, _) = image.bytes().as_chunks::<2>();
        let numbers = numbers.iter().map(|&number| u16::from_le_bytes(number)).collect();
        shaped(&self.mask, image.shape(), numbers)
    }

    fn saturated(&self, index: usize) -> Result<Option<Array2<bool>>, SessionError> {
        let Some(saturated) = &self.saturated else { return Ok(None) };
        let image = read_image(saturated, AXES, index, Dtype::U8)?;
        let marks = image.bytes().iter().map(|&mark| mark != 0).collect();
        shaped(saturated, image.shape(), marks).map(Some)
    }

    fn row(&self, index: usize) -> Result<FrameRow, SessionError> {
        self.frames.get(index).copied().ok_or_else(|| SessionError::NoSuchFrame {
            place: self.file.filename(),
            index,
            len: self.frames.len(),
        })
    }
}

/// Rows `start..start + count` of a table.
fn part<R: H5Type>(table: &Dataset, start: u64, count: u64) -> Result<Vec<R>, SessionError> {
    let end = start.checked_add(count).filter(|_| count <= MAX_ROWS);
    let end = end.ok_or_else(|| {
        SessionError::unexpected(place(table), format!("at most {MAX_ROWS} rows a frame"), count)
    })?;
    read_rows::<R>(table, start as usize..end as usize)
}

fn shaped<T>(from: &Dataset, shape: [usize; 2], values: Vec<T>) -> Result<Array2<T>, SessionError> {
    Array2::from_shape_vec(shape, values)
        .map_err(|error| SessionError::unexpected(place(from), "an image of its own shape", error))
}

impl LabelledSession {
    /// Opens a session and the truth file beside it.
    ///
    /// # Errors
    /// When one of them cannot be opened, or they do not have the same number of frames.
    pub fn open(session: &Path) -> Result<Self, SessionError> {
        let frames = open(session, &OpenOptions::default())?;
        let path = truth_path(session);
        let truth = TruthReader::open(&path)?;
        if truth.len() != frames.len() {
            let place = path.display().to_string();
            return Err(SessionError::unexpected(place, format!("{} frames", frames.len()), truth.len()));
        }
        Ok(Self { frames, truth })
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.truth.len()
    }

    pub fn is_empty(&self) -> bool {
        self.truth.is_empty()
    }

    /// The truth alone.
    pub const fn truth(&self) -> &TruthReader {
        &self.truth
    }

    /// Frame `index` and what it shows.
    ///
    /// # Errors
    /// When there is no such frame, one of the files cannot be read, or they disagree on the frame's number.
    pub fn frame(&mut self, index: usize) -> Result<(RecordedFrame, FrameTruth), SessionError> {
        let frame = self.frames.frame(index)?;
        let truth = self.truth.frame(index)?;
        if frame.message.seq != truth.scan.seq {
            return Err(SessionError::unexpected(
                self.truth.file.filename(),
                format!("the truth of frame {}", frame.message.seq),
                format!("that of frame {}", truth.scan.seq),
            ));
        }
        Ok((frame, truth))
    }
}
