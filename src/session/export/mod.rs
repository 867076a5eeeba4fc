//! Sessions as files of other programs: HyperSpy, EMD (Berkeley 0.2), NeXus, CSV.
//!
//! Frames stream: one is in memory at a time. A measurement of one frame becomes images, others stacks with the frames first.

mod csv_tables;
mod layouts;

use super::error::SessionError;
use super::h5;
use super::maps::{ALWAYS_TILES, ALWAYS_WINDOWS, MapValues, recorded, tile_maps, window_maps};
use super::measured::MeasurementLabels;
use super::reader::{FrameReader, OpenOptions, open};
use super::results::ResultReader;
use super::stack::SpatialAxis;
use ferrostem_proto::{ByteOrder, Dtype, GridSpec, PixelArray, ResultMessage};
use hdf5::types::TypeDescriptor;
use layouts::Sheet;
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// HyperSpy's `.hspy`, version 3.3: `Experiments/Measurement_000 p_x (pm)`.
    Hspy,
    /// EMD (Berkeley), version 0.2: `data/Measurement_000 p_x (pm)`.
    Emd,
    /// NeXus: an NXentry a measurement, an NXdata a quantity.
    Nexus,
    /// A folder of tables.
    Csv,
}

/// One dataset or table that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Path in the file, or the file's name.
    pub name: String,
    /// In the order of the axes of an image stack `[frame, row, col]`; rows of a table.
    pub shape: Vec<usize>,
}

/// A quantity of a measurement, as every format needs it.
struct Signal {
    measurement: String,
    name: String,
    quantity: String,
    units: String,
    dtype: TypeDescriptor,
    /// Seconds since the first frame, one a frame.
    times_s: Vec<f64>,
    y: SpatialAxis,
    x: SpatialAxis,
    acquisition: String,
    channel: String,
    source: String,
}

impl Signal {
    /// Unique in a file, and not the beginning of another's: RosettaSciIO would stack the two.
    fn label(&self) -> String {
        format!("{} {} ({})", self.measurement, self.name, self.units)
    }

    /// `[frame, row, col]`, or `[row, col]` of a single frame.
    fn shape(&self) -> Vec<usize> {
        let image = [self.y.values.len(), self.x.values.len()];
        if self.times_s.len() == 1 { image.to_vec() } else { vec![self.times_s.len(), image[0], image[1]] }
    }
}

/// Writes the frames and results at `input`, which may be any file of frames, as `format` to `out`, a new file or (CSV) a folder.
/// `progress` is told how many frames of how many are done.
///
/// # Errors
/// When the input cannot be read, the output exists already or cannot be written. A file that was begun is removed.
pub fn export(
    input: &Path,
    options: &OpenOptions,
    format: ExportFormat,
    out: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Written>, SessionError> {
    if format == ExportFormat::Csv {
        return csv_tables::write(&ResultReader::open(input)?, out, progress);
    }
    let mut source = Source::open(input, options)?;
    if out.exists() {
        return Err(SessionError::Exists { path: out.to_owned() });
    }
    let sheet = Sheet::create(format, out, input)?;
    let written = write_all(&mut source, &sheet, progress);
    if written.is_err() {
        drop(sheet);
        // The error that is reported is the first one.
        let _ = std::fs::remove_file(out);
    }
    written
}

/// Where frames come from.
enum Source {
    Session(ResultReader),
    Frames(Box<dyn FrameReader>),
}

impl Source {
    fn open(path: &Path, options: &OpenOptions) -> Result<Self, SessionError> {
        let reader = open(path, options)?;
        if options.dataset.is_none() && reader.format() == super::SessionFormat::Own {
            return Ok(Self::Session(ResultReader::open(path)?));
        }
        Ok(Self::Frames(reader))
    }
}

fn write_all(
    source: &mut Source,
    sheet: &Sheet,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Written>, SessionError> {
    let mut written = Vec::new();
    match source {
        Source::Frames(reader) => {
            let first = reader.frame(0)?;
            let times = (0..reader.len()).map(|index| reader.time_ns(index)).collect::<Vec<_>>();
            let labels = MeasurementLabels {
                name: super::layout::measurement_name(0),
                acquisition: first.message.acquisition.clone().unwrap_or_default(),
                source: reader.description(),
                channel: first.message.channel.clone().unwrap_or_else(|| "frames".to_owned()),
                windows: None,
                tiles: None,
            };
            let signal =
                frames_signal(&labels, &first.message.data, first.message.pixel_size_pm, seconds(&times));
            let stack = sheet.create_signal(&signal)?;
            written.push(Written { name: stack.name(), shape: signal.shape() });
            for index in 0..reader.len() {
                stack.write(index, &reader.frame(index)?.message.data)?;
                progress(index + 1, reader.len());
            }
        }
        Source::Session(reader) => {
            let measurements = reader.measurements();
            let mut frames = Vec::new();
            for measurement in 0..measurements.len() {
                frames.push(reader.frame_rows(measurement)?);
            }
            let all: usize = frames.iter().map(Vec::len).sum();
            let (mut done, mut result) = (0, 0);
            for (measurement, (labels, rows)) in measurements.iter().zip(&frames).enumerate() {
                let results: HashMap<usize, usize> =
                    reader.result_frames(measurement)?.into_iter().zip(result..).collect();
                result += results.len();
                let Some(first) = rows.first() else { continue };
                let pixel = [first.pixel_size_row_pm, first.pixel_size_col_pm];
                let pixel = Some(pixel).filter(|pixel| pixel.iter().all(|pm| pm.is_finite()));
                let times: Vec<_> = rows.iter().map(|row| Some(row.t_start_ns)).collect();
                let stacks = Stacks::create(sheet, labels, (&reader.pixels(measurement, 0)?, pixel), &times)?;
                written.extend(stacks.written.iter().cloned());
                for frame in 0..rows.len() {
                    let found = results.get(&frame).map(|&index| reader.result(index)).transpose()?;
                    stacks.write(
                        frame,
                        &reader.pixels(measurement, frame)?,
                        found.as_ref().map(|found| &found.message),
                    )?;
                    done += 1;
                    progress(done, all);
                }
            }
        }
    }
    Ok(written)
}

/// The datasets of a measurement.
struct Stacks {
    frames: layouts::Stack,
    windows: Vec<layouts::Stack>,
    tiles: Vec<layouts::Stack>,
    written: Vec<Written>,
}

impl Stacks {
    fn create(
        sheet: &Sheet,
        labels: &MeasurementLabels,
        (image, pixel_size_pm): (&PixelArray, Option<[f64; 2]>),
        times: &[Option<u64>],
    ) -> Result<Self, SessionError> {
        let mut written = Vec::new();
        let mut create = |signal: &Signal| {
            let stack = sheet.create_signal(signal)?;
            written.push(Written { name: stack.name(), shape: signal.shape() });
            Ok::<_, SessionError>(stack)
        };
        let frames = frames_signal(labels, image, pixel_size_pm, seconds(times));
        let empty = ResultMessage::default();
        let mut maps = |grid: Option<GridSpec>, maps: Vec<super::maps::Map>| {
            let Some(grid) = grid else { return Ok(Vec::new()) };
            let centres = |start: f64, step: f64, n: u32| (0..n).map(move |i| start + f64::from(i) * step);
            let signal = |map: &super::maps::Map| Signal {
                name: map.name.to_owned(),
                quantity: map.quantity.to_owned(),
                units: map.units.to_owned(),
                dtype: h5::descriptor(match map.values {
                    MapValues::Real(_) => Dtype::F32,
                    MapValues::Code(_) => Dtype::U8,
                }),
                y: SpatialAxis::new(
                    centres(grid.row0, grid.step_row, grid.rows),
                    pixel_size_pm.map(|pm| pm[0]),
                ),
                x: SpatialAxis::new(
                    centres(grid.col0, grid.step_col, grid.cols),
                    pixel_size_pm.map(|pm| pm[1]),
                ),
                ..frames_signal(labels, image, pixel_size_pm, seconds(times))
            };
            maps.iter().map(|map| create(&signal(map))).collect::<Result<Vec<_>, _>>()
        };
        let windows = maps(labels.windows, recorded(window_maps(&empty), ALWAYS_WINDOWS))?;
        let tiles = maps(labels.tiles, recorded(tile_maps(&empty), ALWAYS_TILES))?;
        let frames = create(&frames)?;
        Ok(Self { frames, windows, tiles, written })
    }

    fn write(
        &self,
        frame: usize,
        pixels: &PixelArray,
        result: Option<&ResultMessage>,
    ) -> Result<(), SessionError> {
        self.frames.write(frame, pixels)?;
        let Some(result) = result else { return Ok(()) };
        let stacks = self.windows.iter().zip(window_maps(result));
        for (stack, map) in stacks.chain(self.tiles.iter().zip(tile_maps(result))) {
            if let Some(values) = map_pixels(&map.values) {
                stack.write(frame, &values)?;
            }
        }
        Ok(())
    }
}

/// The values of a map that holds some.
fn map_pixels(values: &MapValues) -> Option<PixelArray> {
    let shape = values.shape();
    if shape.contains(&0) {
        return None;
    }
    match values {
        MapValues::Real(grid) => PixelArray::from_f32(shape, grid.values()).ok(),
        MapValues::Code(grid) => {
            PixelArray::new(Dtype::U8, ByteOrder::Little, shape, grid.values().to_vec().into()).ok()
        }
    }
}

fn frames_signal(
    labels: &MeasurementLabels,
    image: &PixelArray,
    pixel_size_pm: Option<[f64; 2]>,
    times_s: Vec<f64>,
) -> Signal {
    let [rows, cols] = image.shape();
    let axis = |n: usize, pm: Option<f64>| SpatialAxis::new((0..n).map(|i| i as f64), pm);
    Signal {
        measurement: labels.name.clone(),
        name: super::layout::quantity_name(&labels.channel),
        quantity: "intensity".to_owned(),
        units: "counts".to_owned(),
        dtype: h5::descriptor(image.dtype()),
        times_s,
        y: axis(rows, pixel_size_pm.map(|pm| pm[0])),
        x: axis(cols, pixel_size_pm.map(|pm| pm[1])),
        acquisition: labels.acquisition.clone(),
        channel: labels.channel.clone(),
        source: labels.source.clone(),
    }
}

/// Seconds since the first frame; NaN where a time is missing.
fn seconds(times_ns: &[Option<u64>]) -> Vec<f64> {
    let first = times_ns.first().copied().flatten();
    let since = |time: &Option<u64>| match (first, *time) {
        (Some(first), Some(time)) if time >= first => (time - first) as f64 / 1e9,
        (Some(first), Some(time)) => -((first - time) as f64) / 1e9,
        _ => f64::NAN,
    };
    times_ns.iter().map(since).collect()
}
