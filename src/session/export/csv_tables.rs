//! Tables for spreadsheets: candidates, columns, acknowledgements and gaps. Units are in the headers.

use super::Written;
use crate::session::error::SessionError;
use crate::session::file::Draft;
use crate::session::results::ResultReader;
use crate::session::rows::json_name;
use std::fs::File;
use std::path::{Path, PathBuf};

const CANDIDATES: &[&str] = &[
    "measurement",
    "acquisition",
    "frame",
    "frame_seq",
    "id",
    "kind",
    "row_px",
    "col_px",
    "y_fraction",
    "x_fraction",
    "x_nm",
    "y_nm",
    "rotation_rad",
    "score",
    "p_value",
    "reason",
    "first_seq",
    "seq",
    "valid_until_ns",
    "model",
];
const COLUMNS: &[&str] =
    &["measurement", "acquisition", "frame", "frame_seq", "row_px", "col_px", "class", "confidence"];
const ACKS: &[&str] = &["candidate_id", "verdict", "t_ns"];
const GAPS: &[&str] = &["source", "acquisition", "first_seq", "missing", "t_ns"];

/// A table that is being written, under a name of its own until it is whole.
struct Table {
    path: PathBuf,
    draft: Draft,
    rows: usize,
    writer: csv::Writer<File>,
}

impl Table {
    fn create(folder: &Path, name: &str, header: &[&str]) -> Result<Self, SessionError> {
        let path = folder.join(name);
        if path.exists() {
            return Err(SessionError::Exists { path });
        }
        let draft = Draft::beside(&path);
        let file =
            File::create(draft.path()).map_err(|source| SessionError::Io { path: path.clone(), source })?;
        let mut table = Self { path, draft, rows: 0, writer: csv::Writer::from_writer(file) };
        table.record(header.iter().map(|name| (*name).to_owned()).collect())?;
        Ok(table)
    }

    fn record(&mut self, fields: Vec<String>) -> Result<(), SessionError> {
        let path = &self.path;
        self.writer
            .write_record(&fields)
            .map_err(|error| SessionError::Io { path: path.clone(), source: error.into() })
    }

    fn row(&mut self, fields: Vec<String>) -> Result<(), SessionError> {
        self.rows += 1;
        self.record(fields)
    }

    fn flush(&mut self) -> Result<(), SessionError> {
        self.writer.flush().map_err(|source| SessionError::Io { path: self.path.clone(), source })
    }

    fn publish(self) -> Result<Written, SessionError> {
        self.draft.publish(&self.path)?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Written { name, shape: vec![self.rows] })
    }
}

/// Writes the tables of a session into `folder`, which is made where it is not there. They get their names when all of them
/// are whole.
pub(super) fn write(
    reader: &ResultReader,
    folder: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Written>, SessionError> {
    std::fs::create_dir_all(folder).map_err(|source| SessionError::Io { path: folder.to_owned(), source })?;
    let mut candidates = Table::create(folder, "candidates.csv", CANDIDATES)?;
    let mut columns = Table::create(folder, "columns.csv", COLUMNS)?;
    let mut acks = Table::create(folder, "acks.csv", ACKS)?;
    let mut gaps = Table::create(folder, "gaps.csv", GAPS)?;
    let measurements = reader.measurements();
    for index in 0..reader.len() {
        let result = reader.result(index)?;
        let name = measurements.get(result.measurement).map_or("", |labels| &labels.name);
        let message = &result.message;
        let of_frame = || {
            vec![
                name.to_owned(),
                message.acquisition.clone(),
                result.frame.to_string(),
                message.seq.to_string(),
            ]
        };
        for c in &message.candidates {
            let mut row = of_frame();
            row.extend([c.id.to_string(), json_name(&c.kind)]);
            row.extend(
                [
                    c.px.row,
                    c.px.col,
                    c.frac.y,
                    c.frac.x,
                    c.nm.x,
                    c.nm.y,
                    c.nm.rotation_rad,
                    c.score,
                    c.p_value,
                ]
                .map(|number| number.to_string()),
            );
            row.extend([c.reason.clone(), c.first_seq.to_string(), c.seq.to_string()]);
            row.extend([c.valid_until_ns.to_string(), c.model.clone()]);
            candidates.row(row)?;
        }
        let table = &message.columns;
        let positions = table.row.iter().zip(&table.col);
        for ((at_row, at_col), (class, confidence)) in
            positions.zip(table.class.iter().zip(&table.confidence))
        {
            let mut row = of_frame();
            row.extend([at_row.to_string(), at_col.to_string(), class.to_string(), confidence.to_string()]);
            columns.row(row)?;
        }
        progress(index + 1, reader.len());
    }
    for ack in reader.acknowledgements()? {
        acks.row(vec![ack.candidate_id.to_string(), ack.verdict, ack.t_ns.to_string()])?;
    }
    for gap in reader.gaps()? {
        let numbers = [gap.first_seq, gap.missing, gap.t_ns].map(|number| number.to_string());
        gaps.row([gap.source, gap.acquisition].into_iter().chain(numbers).collect())?;
    }
    let mut tables = [candidates, columns, acks, gaps];
    tables.iter_mut().try_for_each(Table::flush)?;
    tables.into_iter().map(Table::publish).collect()
}
