//! Label files: the unit cells and columns that the classical measurement found, frame by frame, to train on.
//!
//! HDF5 with three tables of one row a frame, a cell, a column: `labels/frames`, `labels/cells`, `labels/columns`; cells and
//! columns name their frame by its number in the labelled file. Root attributes: `format` = [`FORMAT`], `version`, `source` (the
//! file that was labelled), `settings` (how, TOML). Names and units are those of the wire: positions in frame pixels, P, edges and
//! errors in pm, angles in rad, areas in pm².

use super::error::{At, SessionError};
use super::h5::{Table, open_file, place, read_rows, read_text, write_attribute, write_text};
use crate::frame::{ClassicalCell, Sublattice};
use crate::label::{FrameLabels, LabelledCell};
use hdf5::{File, H5Type};
use std::path::{Path, PathBuf};

/// Value of the root attribute `format`.
pub const FORMAT: &str = "ferrostem-labels";
const VERSION: u32 = 1;
const CHUNK_ROWS: usize = 4096;
/// Rows that are read of one table.
const MAX_ROWS: usize = 50_000_000;

#[derive(H5Type, Debug, Clone, Copy, PartialEq)]
#[repr(C)]
struct FrameRow {
    frame: u64,
    pixel_size_row_pm: f64,
    pixel_size_col_pm: f64,
    lattice_a_row: f64,
    lattice_a_col: f64,
    lattice_b_row: f64,
    lattice_b_col: f64,
    spacing_rms_a: f64,
    spacing_rms_b: f64,
    incomplete: u64,
}

#[derive(H5Type, Debug, Clone, Copy, PartialEq)]
#[repr(C)]
struct CellRow {
    frame: u64,
    row: f64,
    col: f64,
    p_x: f64,
    p_y: f64,
    p_x_error: f64,
    p_y_error: f64,
    cell_a: f64,
    cell_b: f64,
    cell_angle: f64,
    cell_area: f64,
    dipole_x: f64,
    dipole_y: f64,
}

#[derive(H5Type, Debug, Clone, Copy, PartialEq)]
#[repr(C)]
struct ColumnRow {
    frame: u64,
    row: f64,
    col: f64,
    class: u8,
    row_error: f64,
    col_error: f64,
    amplitude: f64,
    amplitude_error: f64,
    background: f64,
    sigma_px: f64,
    spacing_deviation: f64,
}

/// A label file being written.
pub struct LabelWriter {
    frames: Table<FrameRow>,
    cells: Table<CellRow>,
    columns: Table<ColumnRow>,
    file: File,
}

impl LabelWriter {
    /// # Errors
    /// When the file exists or cannot be made.
    pub fn create(path: &Path, source: &str, settings_toml: &str) -> Result<Self, SessionError> {
        if path.exists() {
            return Err(SessionError::Exists { path: path.to_owned() });
        }
        let file = File::create_excl(path).at(|| path.display().to_string())?;
        write_text(&file, "format", FORMAT)?;
        write_attribute(&file, "version", &VERSION)?;
        write_text(&file, "source", source)?;
        write_text(&file, "settings", settings_toml)?;
        let group = file.create_group("labels").at(|| place(&file))?;
        Ok(Self {
            frames: Table::create(&group, "frames", 64)?,
            cells: Table::create(&group, "cells", CHUNK_ROWS)?,
            columns: Table::create(&group, "columns", CHUNK_ROWS)?,
            file,
        })
    }

    /// Adds the labels of frame `frame` of the labelled file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, frame: u64, labels: &FrameLabels) -> Result<(), SessionError> {
        let [spacing_rms_b, spacing_rms_a] = labels.spacing_rms_pm;
        let lattice = &labels.lattice;
        self.frames.append(&[FrameRow {
            frame,
            pixel_size_row_pm: labels.pixel_size_pm[0],
            pixel_size_col_pm: labels.pixel_size_pm[1],
            lattice_a_row: lattice.a_px[0],
            lattice_a_col: lattice.a_px[1],
            lattice_b_row: lattice.b_px[0],
            lattice_b_col: lattice.b_px[1],
            spacing_rms_a,
            spacing_rms_b,
            incomplete: labels.incomplete as u64,
        }])?;
        let cell_row = |labelled: &LabelledCell| CellRow {
            frame,
            row: labelled.cell.row,
            col: labelled.cell.col,
            p_x: labelled.cell.p_x,
            p_y: labelled.cell.p_y,
            p_x_error: labelled.p_x_error,
            p_y_error: labelled.p_y_error,
            cell_a: labelled.cell.cell_a,
            cell_b: labelled.cell.cell_b,
            cell_angle: labelled.cell.cell_angle,
            cell_area: labelled.cell.cell_area,
            dipole_x: labelled.dipole_x,
            dipole_y: labelled.dipole_y,
        };
        self.cells.append(&labels.cells.iter().map(cell_row).collect::<Vec<_>>())?;
        let columns = labels.columns.iter().map(|column| ColumnRow {
            frame,
            row: column.fit.row,
            col: column.fit.col,
            class: column.sublattice as u8,
            row_error: column.fit.row_error,
            col_error: column.fit.col_error,
            amplitude: column.fit.amplitude,
            amplitude_error: column.fit.amplitude_error,
            background: column.fit.background,
            sigma_px: column.fit.sigma_px,
            spacing_deviation: column.spacing_deviation_pm,
        });
        self.columns.append(&columns.collect::<Vec<_>>())?;
        self.file.flush().at(|| place(&self.file))
    }
}

/// A cell to train on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CellLabel {
    pub cell: ClassicalCell,
    /// Standard errors of P, pm.
    pub p_x_error: f64,
    pub p_y_error: f64,
    /// µC/cm²; NaN without Born charges.
    pub dipole_x: f64,
    pub dipole_y: f64,
}

/// A column to train on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColumnLabel {
    /// Frame pixels.
    pub row: f64,
    pub col: f64,
    pub row_error: f64,
    pub col_error: f64,
    pub sublattice: Sublattice,
}

/// The labels of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedLabels {
    /// Number of the frame in the labelled file.
    pub frame: u64,
    /// `[row, col]`.
    pub pixel_size_pm: [f64; 2],
    pub cells: Vec<CellLabel>,
    pub columns: Vec<ColumnLabel>,
}

/// A label file.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelFile {
    /// The file that was labelled, as it was named then.
    pub source: PathBuf,
    /// In the order in which they were labelled.
    pub frames: Vec<RecordedLabels>,
}

impl LabelFile {
    /// Whether `path` is a label file.
    pub fn is_one(path: &Path) -> bool {
        open_file(path).is_ok_and(|file| read_text(&file, "format").as_deref() == Some(FORMAT))
    }

    /// Reads `path`.
    ///
    /// # Errors
    /// When it is no label file, of a later version, or damaged.
    pub fn open(path: &Path) -> Result<Self, SessionError> {
        let file = open_file(path)?;
        let found = read_text(&file, "format");
        if found.as_deref() != Some(FORMAT) {
            let found = found.unwrap_or_else(|| "no format".to_owned());
            return Err(SessionError::unexpected(place(&file), format!("a label file ({FORMAT})"), found));
        }
        let version: u32 = super::h5::read_attribute(&file, "version")?;
        if version > VERSION {
            return Err(SessionError::unexpected(
                place(&file),
                format!("labels of version {VERSION}"),
                version,
            ));
        }
        let mut frames: Vec<RecordedLabels> = table::<FrameRow>(&file, "frames")?
            .into_iter()
            .map(|row| RecordedLabels {
                frame: row.frame,
                pixel_size_pm: [row.pixel_size_row_pm, row.pixel_size_col_pm],
                cells: Vec::new(),
                columns: Vec::new(),
            })
            .collect();
        let index: std::collections::HashMap<u64, usize> =
            frames.iter().enumerate().map(|(index, labels)| (labels.frame, index)).collect();
        let owner = |frame: u64, table: &str| {
            index.get(&frame).copied().ok_or_else(|| {
                let place = format!("{}/labels/{table}", path.display());
                SessionError::unexpected(place, "a frame that is in labels/frames", frame)
            })
        };
        for row in table::<CellRow>(&file, "cells")? {
            let owner = owner(row.frame, "cells")?;
            frames[owner].cells.push(CellLabel {
                cell: ClassicalCell {
                    row: row.row,
                    col: row.col,
                    p_x: row.p_x,
                    p_y: row.p_y,
                    cell_a: row.cell_a,
                    cell_b: row.cell_b,
                    cell_angle: row.cell_angle,
                    cell_area: row.cell_area,
                },
                p_x_error: row.p_x_error,
                p_y_error: row.p_y_error,
                dipole_x: row.dipole_x,
                dipole_y: row.dipole_y,
            });
        }
        for row in table::<ColumnRow>(&file, "columns")? {
            let sublattice = match row.class {
                0 => Sublattice::B,
                1 => Sublattice::A,
                other => {
                    let place = format!("{}/labels/columns", path.display());
                    return Err(SessionError::unexpected(place, "class 0 (B) or 1 (A)", other));
                }
            };
            let owner = owner(row.frame, "columns")?;
            frames[owner].columns.push(ColumnLabel {
                row: row.row,
                col: row.col,
                row_error: row.row_error,
                col_error: row.col_error,
                sublattice,
            });
        }
        Ok(Self { source: read_text(&file, "source").unwrap_or_default().into(), frames })
    }
}

fn table<R: H5Type>(file: &File, name: &str) -> Result<Vec<R>, SessionError> {
    let path = format!("labels/{name}");
    let dataset = file.dataset(&path).at(|| format!("{}:{path}", file.filename()))?;
    if dataset.size() > MAX_ROWS {
        let expected = format!("at most {MAX_ROWS} rows");
        return Err(SessionError::unexpected(place(&dataset), expected, dataset.size()));
    }
    read_rows(&dataset, 0..dataset.size())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::{LabelSettings, label_frame};
    use crate::simulate::{Microscope, Specimen, render};
    use ndarray::Array2;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn labels_come_back_as_they_were_written() {
        let microscope = Microscope { shape: [128, 128], ..Microscope::default() };
        let frame = render(&Specimen::default(), &microscope, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        let valid = Array2::from_elem((128, 128), true);
        let labels =
            label_frame(&frame.pixels, &valid, [15.0, 15.0], None, &LabelSettings::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.h5");
        let mut writer = LabelWriter::create(&path, "frames.h5", "").unwrap();
        writer.add(3, &labels).unwrap();
        writer.add(1, &labels).unwrap();
        drop(writer);
        assert!(LabelFile::is_one(&path));
        let file = LabelFile::open(&path).unwrap();
        assert_eq!(file.source, Path::new("frames.h5"));
        assert_eq!(file.frames.iter().map(|labels| labels.frame).collect::<Vec<_>>(), [3, 1]);
        for recorded in &file.frames {
            assert_eq!(recorded.pixel_size_pm, [15.0, 15.0]);
            assert!(!recorded.cells.is_empty() && recorded.columns.len() == labels.columns.len());
            for (found, written) in recorded.cells.iter().zip(&labels.cells) {
                assert_eq!((found.cell, found.p_y_error), (written.cell, written.p_y_error));
            }
            assert_eq!(recorded.columns[0].sublattice, labels.columns[0].sublattice);
        }
        assert!(matches!(LabelWriter::create(&path, "", ""), Err(SessionError::Exists { .. })));
        let other = folder.path().join("other.h5");
        File::create(&other).unwrap();
        assert!(!LabelFile::is_one(&other));
        assert!(LabelFile::open(&other).unwrap_err().to_string().contains("label file"));
    }
}
