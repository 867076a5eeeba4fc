//! The HDF5 layouts of other programs. Sources: RosettaSciIO's `_hierarchical.py` and `emd/_emd_ncem.py`, ncempy's `emd.py`, the NeXus
//! manual's NXdata.

use super::{ExportFormat, Signal};
use crate::session::error::{At, SessionError};
use crate::session::h5::{place, text, write_attribute, write_plane, write_text};
use ferrostem_proto::PixelArray;
use hdf5::types::{FloatSize, OwnedDynValue, TypeDescriptor, VarLenUnicode};
use hdf5::{Dataset, File, Group, Hyperslab, SliceOrIndex};
use std::path::Path;

/// Steps of the times may differ by this fraction of their mean before HyperSpy's axis counts frames.
const STEP_TOLERANCE: f64 = 0.01;
/// Fast, and most of what there is to gain on detector counts.
const COMPRESSION_LEVEL: u8 = 1;

/// A file that is being written.
pub(super) struct Sheet {
    format: ExportFormat,
    file: File,
    original_filename: String,
}

/// One quantity in it.
pub(super) struct Stack {
    data: Dataset,
    has_frames: bool,
    transposed: bool,
}

impl Sheet {
    pub(super) fn create(format: ExportFormat, out: &Path, input: &Path) -> Result<Self, SessionError> {
        let file = File::create_excl(out).at(|| out.display().to_string())?;
        match format {
            ExportFormat::Hspy => {
                write_text(&file, "file_format", "HyperSpy")?;
                write_text(&file, "file_format_version", "3.3")?;
            }
            ExportFormat::Emd => {
                write_attribute(&file, "version_major", &0_i64)?;
                write_attribute(&file, "version_minor", &2_i64)?;
                for name in ["microscope", "sample", "user", "comments"] {
                    group(&file, name)?;
                }
            }
            ExportFormat::Nexus | ExportFormat::Csv => {
                write_text(&file, "NX_class", "NXroot")?;
                write_text(&file, "creator", concat!("FerroSTEM ", env!("CARGO_PKG_VERSION")))?;
            }
        }
        let name = input.file_name().unwrap_or_default();
        Ok(Self { format, file, original_filename: name.to_string_lossy().into_owned() })
    }

    /// Lays out a quantity, its images still to be written.
    pub(super) fn create_signal(&self, signal: &Signal) -> Result<Stack, SessionError> {
        match self.format {
            ExportFormat::Hspy => self.hspy(signal),
            ExportFormat::Emd => self.emd(signal),
            ExportFormat::Nexus | ExportFormat::Csv => self.nexus(signal),
        }
    }

    fn hspy(&self, signal: &Signal) -> Result<Stack, SessionError> {
        let experiment = group(&group(&self.file, "Experiments")?, &signal.label())?;
        let stack = Stack::create(&experiment, signal, false)?;
        let mut axes: Vec<(&str, &str, [f64; 2], usize)> = Vec::new();
        if stack.has_frames {
            let (name, units, scale) = match step(&signal.times_s) {
                Some(step) => ("time", "s", [0.0, step]),
                None => ("frame", "", [0.0, 1.0]),
            };
            axes.push((name, units, scale, signal.times_s.len()));
        }
        for (name, axis) in [("y", &signal.y), ("x", &signal.x)] {
            axes.push((name, axis.units, linear(&axis.values), axis.values.len()));
        }
        for (number, (name, units, [offset, scale], size)) in axes.iter().enumerate() {
            let axis = group(&experiment, &format!("axis-{number}"))?;
            write_text(&axis, "_type", "UniformDataAxis")?;
            write_text(&axis, "name", name)?;
            write_text(&axis, "units", units)?;
            write_attribute(&axis, "navigate", &(stack.has_frames && number == 0))?;
            write_attribute(&axis, "is_binned", &false)?;
            write_attribute(&axis, "size", &(*size as i64))?;
            write_attribute(&axis, "offset", offset)?;
            write_attribute(&axis, "scale", scale)?;
        }
        let metadata = group(&experiment, "metadata")?;
        let general = group(&metadata, "General")?;
        write_text(&general, "title", &signal.label())?;
        write_text(&general, "original_filename", &self.original_filename)?;
        let described = group(&metadata, "Signal")?;
        write_text(&described, "signal_type", "")?;
        write_text(&described, "quantity", &format!("{} ({})", signal.quantity, signal.units))?;
        let original = group(&experiment, "original_metadata")?;
        write_labels(&original, signal)?;
        write_values(&original, "time_s", &signal.times_s)?;
        Ok(stack)
    }

    /// `data` is `[x, y, frame]`, and `dim1`, `dim2`, `dim3` go with it in that order.
    fn emd(&self, signal: &Signal) -> Result<Stack, SessionError> {
        let emd = group(&group(&self.file, "data")?, &signal.label())?;
        write_attribute(&emd, "emd_group_type", &1_i64)?;
        write_labels(&emd, signal)?;
        let stack = Stack::create(&emd, signal, true)?;
        write_text(&stack.data, "name", &signal.quantity)?;
        write_text(&stack.data, "units", &signal.units)?;
        let bracketed = |units: &str| if units == "nm" { "[n_m]".to_owned() } else { format!("[{units}]") };
        let mut axes = vec![
            ("x", bracketed(signal.x.units), signal.x.values.clone()),
            ("y", bracketed(signal.y.units), signal.y.values.clone()),
        ];
        if stack.has_frames {
            let known = signal.times_s.iter().all(|time| time.is_finite());
            let numbers = || (0..signal.times_s.len()).map(|frame| frame as f64).collect();
            let values = if known { signal.times_s.clone() } else { numbers() };
            axes.push(if known {
                ("time", "[s]".to_owned(), values)
            } else {
                ("frame", String::new(), values)
            });
        }
        for (number, (name, units, mut values)) in axes.into_iter().enumerate() {
            // A second value says how long a step is where there is one place only, as HyperSpy writes it.
            if values.len() == 1 {
                values.push(values[0] + 1.0);
            }
            let dim = write_values(&emd, &format!("dim{}", number + 1), &values)?;
            write_text(&dim, "name", name)?;
            write_text(&dim, "units", &units)?;
        }
        Ok(stack)
    }

    fn nexus(&self, signal: &Signal) -> Result<Stack, SessionError> {
        let is_new = !self.file.link_exists(&signal.measurement);
        let entry = group(&self.file, &signal.measurement)?;
        if is_new {
            write_text(&entry, "NX_class", "NXentry")?;
            if self.file.attr("default").is_err() {
                write_text(&self.file, "default", &signal.measurement)?;
            }
        }
        // The frames are what a measurement shows first.
        if signal.quantity == "intensity" {
            write_text(&entry, "default", &signal.name)?;
        }
        let data = group(&entry, &signal.name)?;
        write_text(&data, "NX_class", "NXdata")?;
        write_text(&data, "signal", "data")?;
        write_text(&data, "title", &signal.label())?;
        write_text(&data, "interpretation", "image")?;
        write_labels(&data, signal)?;
        let stack = Stack::create(&data, signal, false)?;
        write_text(&stack.data, "units", &signal.units)?;
        write_text(&stack.data, "long_name", &format!("{} ({})", signal.quantity, signal.units))?;
        let mut axes = Vec::new();
        if stack.has_frames {
            axes.push("time");
            let time = write_values(&data, "time", &signal.times_s)?;
            write_text(&time, "units", "s")?;
        }
        for (name, axis) in [("y", &signal.y), ("x", &signal.x)] {
            axes.push(name);
            let scale = write_values(&data, name, &axis.values)?;
            write_text(&scale, "units", axis.units)?;
        }
        let names: Vec<VarLenUnicode> = axes.iter().map(|name| text(name)).collect();
        data.new_attr_builder().with_data(&names[..]).create("axes").at(|| place(&data))?;
        Ok(stack)
    }
}

impl Stack {
    fn create(group: &Group, signal: &Signal, transposed: bool) -> Result<Self, SessionError> {
        let mut shape = signal.shape();
        let has_frames = shape.len() == 3;
        let mut chunk = shape.clone();
        if has_frames {
            chunk[0] = 1;
        }
        if transposed {
            shape.reverse();
            chunk.reverse();
        }
        let mut builder = group.new_dataset_builder().chunk(chunk).shuffle().deflate(COMPRESSION_LEVEL);
        // Where there is no result there is no value.
        if signal.dtype == TypeDescriptor::Float(FloatSize::U4) {
            builder = builder.fill_value(OwnedDynValue::from(f32::NAN));
        }
        let data = builder
            .empty_as(&signal.dtype)
            .shape(shape)
            .create("data")
            .at(|| format!("{}/data", place(group)))?;
        Ok(Self { data, has_frames, transposed })
    }

    pub(super) fn name(&self) -> String {
        self.data.name()
    }

    /// Writes the image of `frame`.
    pub(super) fn write(&self, frame: usize, pixels: &PixelArray) -> Result<(), SessionError> {
        let [rows, cols] = pixels.shape();
        let mut selection: Vec<SliceOrIndex> = vec![(0..rows).into(), (0..cols).into()];
        if self.has_frames {
            selection.insert(0, frame.into());
        }
        if self.transposed {
            selection.reverse();
        }
        let mut expected: Vec<usize> = self.data.shape();
        if self.transposed {
            expected.reverse();
        }
        if !expected.ends_with(&[rows, cols]) {
            let found = format!("frame {frame} of {rows} x {cols}");
            return Err(SessionError::unexpected(
                place(&self.data),
                format!("images of one shape, {expected:?}"),
                found,
            ));
        }
        write_plane(&self.data, Hyperslab::from(selection), pixels, self.transposed)
    }
}

/// The group `name`, made where it is not there yet.
fn group(parent: &Group, name: &str) -> Result<Group, SessionError> {
    let found = if parent.link_exists(name) { parent.group(name) } else { parent.create_group(name) };
    found.at(|| format!("{}/{name}", place(parent)))
}

fn write_labels(group: &Group, signal: &Signal) -> Result<(), SessionError> {
    write_text(group, "acquisition", &signal.acquisition)?;
    write_text(group, "channel", &signal.channel)?;
    write_text(group, "source", &signal.source)
}

fn write_values(group: &Group, name: &str, values: &[f64]) -> Result<Dataset, SessionError> {
    group.new_dataset_builder().with_data(values).create(name).at(|| format!("{}/{name}", place(group)))
}

/// Offset and scale of values that stand evenly.
fn linear(values: &[f64]) -> [f64; 2] {
    match *values {
        [first, second, ..] => [first, second - first],
        [only] => [only, 1.0],
        [] => [0.0, 1.0],
    }
}

/// The step of times that are even enough for one.
fn step(times_s: &[f64]) -> Option<f64> {
    let (first, last) = (times_s.first()?, times_s.last()?);
    let mean = (last - first) / (times_s.len().checked_sub(1)? as f64);
    let is_even = |pair: &[f64]| (pair[1] - pair[0] - mean).abs() <= STEP_TOLERANCE * mean;
    (mean > 0.0 && times_s.windows(2).all(is_even)).then_some(mean)
}
