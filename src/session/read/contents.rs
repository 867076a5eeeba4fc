//! What is in a file, whether or not it can be read as frames.

use super::super::error::{At, SessionError};
use super::super::h5::{open_file, place, read_text};
use super::super::layout;
use super::super::own::measurements;
use super::super::reader::{Magic, magic};
use super::objects::{Object, type_name, walk};
use super::smbfo::UnitCellParameterization;
use hdf5::{Dataset, File, Group};
use serde::Serialize;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Entries that are listed.
const MAX_ENTRIES: usize = 10_000;

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contents {
    /// The container: HDF5, TIFF, …
    pub container: String,
    /// In the order of the file.
    pub entries: Vec<Entry>,
    /// False where there is more than is listed.
    pub complete: bool,
    /// For sessions of this project.
    pub recorded: Option<Recorded>,
    /// The cells that were measured in an Sm-BFO image, where their file lies beside it.
    pub unit_cells: Option<PathBuf>,
}

/// One thing in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub path: String,
    pub kind: EntryKind,
    /// Lengths of the axes, in the order of the file.
    pub shape: Vec<usize>,
    /// Type of the elements; empty for what has none.
    pub dtype: String,
    /// As the file writes them; empty where it does not say.
    pub units: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    Group,
    Dataset,
    /// A link to nothing, or what cannot be opened.
    Broken,
    /// Of a TIFF file.
    Page,
    /// In an archive.
    File,
}

/// What a session of this project holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Recorded {
    pub measurements: usize,
    pub frames: usize,
    pub results: usize,
    pub columns: usize,
    pub candidates: usize,
    pub gaps: usize,
    pub acknowledgements: usize,
    /// Attributes of the session about its models and itself, by name.
    pub metadata: Vec<(String, String)>,
}

/// Looks into `path`.
///
/// # Errors
/// When the file cannot be read, or is of a kind that nothing here reads.
pub fn contents(path: &Path) -> Result<Contents, SessionError> {
    let io = |source| SessionError::Io { path: path.to_owned(), source };
    match magic(path).map_err(io)? {
        Magic::Hdf5 => hdf5_contents(path),
        Magic::Zip => zip_contents(path),
        Magic::Tiff => tiff_contents(path),
        Magic::Dm => Ok(Contents::of("DigitalMicrograph", Vec::new(), true)),
        Magic::Npy => Ok(Contents::of("numpy array", Vec::new(), true)),
        other @ Magic::Other(_) => Err(SessionError::unexpected(
            path.display().to_string(),
            "HDF5, a numpy array, TIFF, or a zip archive",
            other.name(),
        )),
    }
}

impl Contents {
    fn of(container: &str, entries: Vec<Entry>, complete: bool) -> Self {
        Self { container: container.to_owned(), entries, complete, recorded: None, unit_cells: None }
    }
}

fn hdf5_contents(path: &Path) -> Result<Contents, SessionError> {
    let file = open_file(path)?;
    let mut entries = Vec::new();
    let mut left_out = false;
    let complete = walk(&file, &mut |object| {
        if entries.len() == MAX_ENTRIES {
            left_out = true;
            return;
        }
        entries.push(match object {
            Object::Group(group) => bare(group.name(), EntryKind::Group),
            Object::Broken(path) => bare(path, EntryKind::Broken),
            Object::Dataset(dataset) => Entry {
                path: dataset.name(),
                kind: EntryKind::Dataset,
                shape: dataset.shape(),
                dtype: type_name(&dataset),
                units: read_text(&dataset, "units").unwrap_or_default(),
            },
        });
    })?;
    let own = read_text(&file, "format").as_deref() == Some(layout::FORMAT);
    let unit_cells =
        if file.link_exists("MainImage") { UnitCellParameterization::beside(path) } else { None };
    Ok(Contents {
        recorded: if own { Some(recorded(&file)?) } else { None },
        unit_cells,
        ..Contents::of("HDF5", entries, complete && !left_out)
    })
}

fn bare(path: String, kind: EntryKind) -> Entry {
    Entry { path, kind, shape: Vec::new(), dtype: String::new(), units: String::new() }
}

/// Counts the rows of the tables; what is missing counts 0.
fn recorded(file: &File) -> Result<Recorded, SessionError> {
    let rows = |group: &Group, name: &str| group.dataset(name).map_or(0, |table: Dataset| table.size());
    let mut counted = Recorded {
        gaps: rows(file, layout::GAPS),
        acknowledgements: rows(file, layout::ACKS),
        metadata: attributes(file)?,
        ..Recorded::default()
    };
    for measurement in measurements(file)? {
        counted.measurements += 1;
        counted.frames += rows(&measurement, layout::FRAMES);
        counted.results += rows(&measurement, layout::RESULTS);
        counted.columns += rows(&measurement, layout::COLUMNS);
        counted.candidates += rows(&measurement, layout::CANDIDATES);
    }
    Ok(counted)
}

/// The texts in the attributes of `/metadata`.
fn attributes(file: &File) -> Result<Vec<(String, String)>, SessionError> {
    if !file.link_exists(layout::METADATA) {
        return Ok(Vec::new());
    }
    let metadata = file.group(layout::METADATA).at(|| file.filename())?;
    let names = metadata.attr_names().at(|| place(&metadata))?;
    Ok(names.into_iter().filter_map(|name| Some((name.clone(), read_text(&metadata, &name)?))).collect())
}

fn zip_contents(path: &Path) -> Result<Contents, SessionError> {
    let io = |source| SessionError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let archive = zip::ZipArchive::new(BufReader::new(file))
        .map_err(|error| SessionError::unexpected(path.display().to_string(), "a zip archive", error))?;
    let names = archive.file_names_raw().take(MAX_ENTRIES);
    let entries =
        names.map(|name| bare(String::from_utf8_lossy(name).into_owned(), EntryKind::File)).collect();
    Ok(Contents::of("zip archive", entries, archive.len() <= MAX_ENTRIES))
}

fn tiff_contents(path: &Path) -> Result<Contents, SessionError> {
    let io = |source| SessionError::Io { path: path.to_owned(), source };
    let broken =
        |error: tiff::TiffError| SessionError::unexpected(path.display().to_string(), "a TIFF file", error);
    let file = std::fs::File::open(path).map_err(io)?;
    let mut decoder = tiff::decoder::Decoder::new(BufReader::new(file)).map_err(broken)?;
    let mut entries = Vec::new();
    loop {
        let (cols, rows) = decoder.dimensions().map_err(broken)?;
        let layout = decoder.image_buffer_layout().ok().and_then(|layout| layout.sample_type);
        let colour =
            decoder.colortype().map_or_else(|error| error.to_string(), |colour| format!("{colour:?}"));
        entries.push(Entry {
            shape: vec![rows as usize, cols as usize],
            dtype: layout.map_or(colour.clone(), |sample| format!("{sample:?}, {colour}")),
            ..bare(format!("page {}", entries.len()), EntryKind::Page)
        });
        if !decoder.more_images() || entries.len() == MAX_ENTRIES {
            return Ok(Contents::of("TIFF", entries, !decoder.more_images()));
        }
        decoder.next_image().map_err(broken)?;
    }
}
