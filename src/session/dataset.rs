//! Frames from one HDF5 dataset: an image, or a stack of them.

use super::error::{At, SessionError};
use super::h5::{ImageAxes, pixel_dtype, place, read_image};
use super::nsid;
use super::reader::{FrameReader, OpenOptions, RecordedFrame, SessionFormat, unlabelled};
use ferrostem_proto::{Dtype, FrameMessage};
use hdf5::{Dataset, File};

/// A dataset whose axes are known.
pub(super) struct StackReader {
    format: SessionFormat,
    description: String,
    dataset: Dataset,
    axes: ImageAxes,
    dtype: Dtype,
    len: usize,
    pixel_size_pm: Option<[f64; 2]>,
    /// One a frame, relative to the first; `None` where the file does not say.
    times_ns: Option<Vec<u64>>,
    acquisition: String,
    channel: Option<String>,
}

/// What a stack says about itself beyond its pixels.
pub(super) struct StackLabels {
    pub(super) format: SessionFormat,
    pub(super) description: String,
    pub(super) pixel_size_pm: Option<[f64; 2]>,
    pub(super) times_ns: Option<Vec<u64>>,
    pub(super) channel: Option<String>,
}

/// Opens dataset `name` of `file`: an image `[row, col]`, or a stack `[frame, row, col]`. Where it has dimension scales,
/// as in NSID, they say which axis is which and how large a pixel is.
pub(super) fn open(file: &File, name: &str, options: &OpenOptions) -> Result<StackReader, SessionError> {
    let dataset = file.dataset(name).at(|| format!("{}:{name}", file.filename()))?;
    if !nsid::scales(&dataset).is_empty() {
        let reader = nsid::reader(dataset, options)?;
        return Ok(StackReader { format: SessionFormat::Hdf5Dataset, ..reader });
    }
    let axes = leading_frame_axis(&dataset)?;
    let labels = StackLabels {
        format: SessionFormat::Hdf5Dataset,
        description: place(&dataset),
        pixel_size_pm: None,
        times_ns: None,
        channel: None,
    };
    StackReader::new(dataset, axes, labels, options)
}

/// Axes of an image, or of a stack with the frames first.
pub(super) fn leading_frame_axis(dataset: &Dataset) -> Result<ImageAxes, SessionError> {
    match dataset.ndim() {
        2 => Ok(ImageAxes { frame: None, row: 0, col: 1 }),
        3 => Ok(ImageAxes { frame: Some(0), row: 1, col: 2 }),
        rank => Err(SessionError::unexpected(
            place(dataset),
            "2 axes (row, col) or 3 (frame, row, col)",
            format!("{rank} of lengths {:?}", dataset.shape()),
        )),
    }
}

impl StackReader {
    /// Checks the type and the sizes before anything is read.
    pub(super) fn new(
        dataset: Dataset,
        axes: ImageAxes,
        labels: StackLabels,
        options: &OpenOptions,
    ) -> Result<Self, SessionError> {
        let dtype = pixel_dtype(&dataset)?;
        let shape = dataset.shape();
        check_sizes(&dataset, [shape[axes.row], shape[axes.col]], dtype, options)?;
        let len = axes.frame.map_or(1, |axis| shape[axis]);
        let filename = dataset.filename();
        let acquisition = std::path::Path::new(&filename).file_stem().unwrap_or_default();
        Ok(Self {
            format: labels.format,
            description: labels.description,
            axes,
            dtype,
            len,
            pixel_size_pm: labels.pixel_size_pm,
            times_ns: labels.times_ns.filter(|times| times.len() == len),
            acquisition: acquisition.to_string_lossy().into_owned(),
            channel: labels.channel,
            dataset,
        })
    }
}

impl StackReader {
    /// Says that the file has `count` images, of which this is the first.
    pub(super) fn describe_choice(&mut self, count: usize) {
        self.description.push_str(&format!(" (the first of {count} images; --dataset names another)"));
    }
}

/// Refuses images without pixels, and images or chunks that are larger than the limit.
pub(super) fn check_sizes(
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

impl FrameReader for StackReader {
    fn format(&self) -> SessionFormat {
        self.format
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn time_ns(&self, index: usize) -> Option<u64> {
        self.times_ns.as_ref()?.get(index).copied()
    }

    fn frame(&mut self, index: usize) -> Result<RecordedFrame, SessionError> {
        if index >= self.len {
            return Err(SessionError::NoSuchFrame { place: place(&self.dataset), index, len: self.len });
        }
        let t_ns = self.time_ns(index);
        let data = read_image(&self.dataset, self.axes, index, self.dtype)?;
        let message = FrameMessage {
            pixel_size_pm: self.pixel_size_pm,
            channel: self.channel.clone(),
            ..unlabelled(self.acquisition.clone(), index, data)
        };
        Ok(RecordedFrame { message, t_ns })
    }
}
