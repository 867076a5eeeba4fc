//! Frames from one HDF5 dataset: an image, or a stack of them.

use super::super::error::{At, SessionError};
use super::super::h5::{ImageAxes, pixel_dtype, place, read_image};
use super::super::reader::{FrameReader, OpenOptions, RecordedFrame, SessionFormat, unlabelled};
use super::facts::Facts;
use ferrostem_proto::{Dtype, FrameMessage};
use hdf5::plist::dataset_create::Layout;
use hdf5::{Dataset, File};
use std::path::Path;

/// A dataset whose axes are known, and what its file says about it.
pub(in crate::session) struct Stack {
    pub(in crate::session) dataset: Dataset,
    pub(in crate::session) axes: ImageAxes,
    pub(in crate::session) facts: Facts,
}

/// The images of a [`Stack`], one at a time.
pub(in crate::session) struct StackReader {
    format: SessionFormat,
    description: String,
    dataset: Dataset,
    axes: ImageAxes,
    dtype: Dtype,
    len: usize,
    acquisition: String,
    facts: Facts,
}

/// Axes of an image, or of a stack with the frames first. Further axes of length 1 may come before them.
pub(in crate::session) fn leading_frame_axis(dataset: &Dataset) -> Result<ImageAxes, SessionError> {
    let rank = dataset.ndim();
    if rank < 2 {
        return Err(wrong_rank(dataset));
    }
    image_axes(dataset, [rank - 2, rank - 1])
}

/// Axes of a dataset whose `[row, col]` axes are known: at most one other may be longer than 1, that of the frames.
pub(in crate::session) fn image_axes(
    dataset: &Dataset,
    image: [usize; 2],
) -> Result<ImageAxes, SessionError> {
    let shape = dataset.shape();
    let [row, col] = image;
    let others: Vec<usize> = (0..shape.len()).filter(|axis| !image.contains(axis)).collect();
    let mut long = others.iter().filter(|axis| shape[**axis] != 1);
    match (long.next(), long.next()) {
        _ if row == col || row.max(col) >= shape.len() => Err(wrong_rank(dataset)),
        (frame, None) => Ok(ImageAxes { frame: frame.or(others.first()).copied(), row, col }),
        _ => Err(wrong_rank(dataset)),
    }
}

fn wrong_rank(dataset: &Dataset) -> SessionError {
    SessionError::unexpected(
        place(dataset),
        "2 axes (row, col) or 3 (frame, row, col)",
        format!("{} of lengths {:?}", dataset.ndim(), dataset.shape()),
    )
}

impl StackReader {
    /// Checks the type and the sizes before anything is read.
    pub(in crate::session) fn new(
        stack: Stack,
        format: SessionFormat,
        options: &OpenOptions,
    ) -> Result<Self, SessionError> {
        let Stack { dataset, axes, facts } = stack;
        let dtype = pixel_dtype(&dataset)?;
        let shape = dataset.shape();
        check_sizes(&dataset, [shape[axes.row], shape[axes.col]], dtype, options)?;
        check_stored(&dataset)?;
        let filename = dataset.filename();
        let acquisition = Path::new(&filename).file_stem().unwrap_or_default();
        Ok(Self {
            format,
            description: place(&dataset),
            axes,
            dtype,
            len: axes.frame.map_or(1, |axis| shape[axis]),
            acquisition: acquisition.to_string_lossy().into_owned(),
            facts,
            dataset,
        })
    }

    /// Says which of the file's images this is, counted from 1.
    pub(in crate::session) fn describe_choice(&mut self, number: usize, count: usize) {
        if count > 1 {
            self.description.push_str(&format!(" (image {number} of {count}; --dataset names another)"));
        }
    }

    /// Whether its name says high-angle annular dark field, the signal that the networks know.
    pub(in crate::session) fn is_haadf(&self) -> bool {
        let says = |text: &str| text.to_ascii_uppercase().contains("HAADF");
        self.facts.channel.as_deref().is_some_and(says) || says(&self.dataset.name())
    }
}

/// Refuses images without pixels, and images or chunks that are larger than the limit.
pub(in crate::session) fn check_sizes(
    dataset: &Dataset,
    image: [usize; 2],
    dtype: Dtype,
    options: &OpenOptions,
) -> Result<(), SessionError> {
    if image.contains(&0) {
        let found = format!("{} x {}", image[0], image[1]);
        return Err(SessionError::unexpected(place(dataset), "images with at least one pixel", found));
    }
    let bytes = |lengths: &[usize]| {
        lengths.iter().fold(dtype.size() as u128, |n, &length| n.saturating_mul(length as u128))
    };
    let chunk = dataset.chunk().map_or(0, |chunk| bytes(&chunk));
    let needed = bytes(&image).max(chunk);
    if needed > u128::from(options.max_frame_bytes) {
        let limit = options.max_frame_bytes;
        return Err(SessionError::TooLarge { place: place(dataset), needed, limit });
    }
    Ok(())
}

/// Refuses contiguous pixels that the file is too short to hold.
fn check_stored(dataset: &Dataset) -> Result<(), SessionError> {
    if dataset.layout() != Layout::Contiguous {
        return Ok(());
    }
    let Some(offset) = dataset.offset() else { return Ok(()) };
    let filename = dataset.filename();
    let present = std::fs::metadata(&filename)
        .map_err(|source| SessionError::Io { path: filename.into(), source })?
        .len();
    let end = offset.saturating_add(dataset.storage_size());
    if end > present {
        let expected = format!("pixels up to byte {end}");
        return Err(SessionError::unexpected(place(dataset), expected, format!("a file of {present} bytes")));
    }
    Ok(())
}

/// Opens dataset `name`, of which no format says anything: an image `[row, col]` or a stack `[frame, row, col]`.
pub(in crate::session) fn plain(file: &File, name: &str) -> Result<Dataset, SessionError> {
    file.dataset(name).at(|| format!("{}:{name}", file.filename()))
}

impl FrameReader for StackReader {
    fn format(&self) -> SessionFormat {
        self.format
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn calibration(&self) -> String {
        self.facts.calibration.source.clone()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn time_ns(&self, index: usize) -> Option<u64> {
        (index < self.len).then(|| self.facts.timing.at(index))?
    }

    fn frame(&mut self, index: usize) -> Result<RecordedFrame, SessionError> {
        if index >= self.len {
            return Err(SessionError::NoSuchFrame { place: place(&self.dataset), index, len: self.len });
        }
        let data = read_image(&self.dataset, self.axes, index, self.dtype)?;
        let message: FrameMessage =
            self.facts.label(unlabelled(self.acquisition.clone(), index, data), index);
        Ok(RecordedFrame { message, t_ns: self.time_ns(index) })
    }
}
