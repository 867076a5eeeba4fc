//! The HDF5 formats, and how the images of a file are found and chosen.

use super::super::error::{At as _, SessionError};
use super::super::h5::place;
use super::super::reader::{OpenOptions, SessionFormat};
use super::dataset::{Stack, StackReader, leading_frame_axis, plain};
use super::facts::{Calibration, Facts};
use super::{asyncroscopy, emd, hyperspy, nexus, nion, nsid, objects, smbfo, velox};
use hdf5::{Dataset, File, Group};

/// Images that are looked at before one is chosen.
const MAX_CHOICE: usize = 256;

/// A dataset that its format says to be data, and the group that describes its axes.
pub(in crate::session) struct Found {
    pub(in crate::session) dataset: Dataset,
    pub(in crate::session) group: Group,
}

struct Format {
    format: SessionFormat,
    /// What may be images, the likeliest first; `None` where the file is of another format.
    find: fn(&File) -> Result<Option<Vec<Found>>, SessionError>,
    /// Axes and labels of one of them.
    stack: fn(Found) -> Result<Stack, SessionError>,
}

/// The first that finds its own marks in a file has it.
const FORMATS: [Format; 8] = [
    Format { format: SessionFormat::HyperSpy, find: hyperspy::find, stack: hyperspy::stack },
    Format { format: SessionFormat::Velox, find: velox::find, stack: velox::stack },
    Format { format: SessionFormat::Emd, find: emd::find, stack: emd::stack },
    Format { format: SessionFormat::NionH5, find: nion::find, stack: nion::stack },
    Format { format: SessionFormat::SmBfo, find: smbfo::find, stack: smbfo::stack },
    Format { format: SessionFormat::Nexus, find: nexus::find, stack: nexus::stack },
    Format { format: SessionFormat::Asyncroscopy, find: asyncroscopy::find, stack: asyncroscopy::stack },
    Format { format: SessionFormat::Nsid, find: nsid::find, stack: nsid::stack },
];

/// The images of `file`: those of dataset `options.dataset`, or the best there are.
pub(in crate::session) fn open(file: &File, options: &OpenOptions) -> Result<StackReader, SessionError> {
    if let Some(name) = &options.dataset {
        return open_named(file, name, options);
    }
    for format in &FORMATS {
        if let Some(found) = (format.find)(file)? {
            return choose(file, format, found, options);
        }
    }
    Err(SessionError::unexpected(
        file.filename(),
        "a FerroSTEM session, or images as HyperSpy, EMD, Nion Swift, NSID, NeXus or asyncroscopy write them (or name \
         a dataset with --dataset)",
        objects::describe_all(&objects::datasets(file)?),
    ))
}

/// A dataset by its path. Where a format describes it, as that format says; else `[row, col]` or `[frame, row, col]`.
fn open_named(file: &File, name: &str, options: &OpenOptions) -> Result<StackReader, SessionError> {
    let dataset = plain(file, name)?;
    for format in &FORMATS {
        let Ok(Some(found)) = (format.find)(file) else { continue };
        if let Some(found) = found.into_iter().find(|found| found.dataset.name() == dataset.name()) {
            return StackReader::new((format.stack)(found)?, format.format, options);
        }
    }
    if nsid::has_scales(&dataset) {
        return StackReader::new(nsid::scaled(dataset)?, SessionFormat::Hdf5Dataset, options);
    }
    let axes = leading_frame_axis(&dataset)?;
    let facts = Facts::new(Calibration::none("the dataset has no dimension scales"));
    StackReader::new(Stack { dataset, axes, facts }, SessionFormat::Hdf5Dataset, options)
}

/// The first image, or the first that is called HAADF. What is no image is passed over.
fn choose(
    file: &File,
    format: &Format,
    found: Vec<Found>,
    options: &OpenOptions,
) -> Result<StackReader, SessionError> {
    let listed: Vec<Dataset> = found.iter().map(|found| found.dataset.clone()).collect();
    let mut readers = Vec::new();
    let mut refused = None;
    for found in found.into_iter().take(MAX_CHOICE) {
        match (format.stack)(found).and_then(|stack| StackReader::new(stack, format.format, options)) {
            Ok(reader) => readers.push(reader),
            Err(error @ SessionError::Unexpected { .. }) => refused = refused.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    let count = readers.len();
    let best = readers.iter().position(StackReader::is_haadf).unwrap_or(0);
    if best < count {
        let mut reader = readers.swap_remove(best);
        reader.describe_choice(best + 1, count);
        return Ok(reader);
    }
    match (refused, &listed[..]) {
        (Some(error), [_]) => Err(error),
        (Some(error), _) => Err(SessionError::unexpected(
            file.filename(),
            format!("an image or a stack of images ({})", format.format.name()),
            format!("{}; the first is refused: {error}", objects::describe_all(&listed)),
        )),
        (None, _) => Err(SessionError::unexpected(
            file.filename(),
            format!(
                "an image or a stack of images ({}; or name a dataset with --dataset)",
                format.format.name()
            ),
            objects::describe_all(&objects::datasets(file)?),
        )),
    }
}

/// `dataset` and its own group.
pub(in crate::session) fn in_own_group(dataset: Dataset) -> Result<Found, SessionError> {
    let path = objects::parent(&dataset.name()).to_owned();
    let file = dataset.file().at(|| place(&dataset))?;
    let group =
        file.group(if path.is_empty() { "/" } else { &path }).at(|| format!("{}:{path}", file.filename()))?;
    Ok(Found { dataset, group })
}
