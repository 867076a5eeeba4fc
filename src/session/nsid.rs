//! Files of pyNSID/sidpy: images and stacks with dimension scales, as `Measurement_000/Channel_000/<name>/<name>`.
//!
//! Convention: a main dataset says `data_type` = `IMAGE` or `IMAGE_STACK`; each axis has a scale with its values, and
//! the scale says `dimension_type` and `units`. The source is pyNSID's `check_if_main` and `read_h5py_dataset`.

use super::dataset::{StackLabels, StackReader, leading_frame_axis};
use super::error::{At, SessionError};
use super::h5::{ImageAxes, place, read_text, read_texts};
use super::reader::{OpenOptions, SessionFormat};
use hdf5::types::VarLenArray;
use hdf5::{Dataset, File, Group, LocationType, ObjectReference1, ReferencedObject};

/// Objects looked at before a file counts as not searchable.
const MAX_OBJECTS: usize = 20_000;
/// Groups inside groups that are looked into.
const MAX_DEPTH: usize = 8;
/// Longest scale that is read.
const MAX_SCALE: usize = 1 << 24;
/// Scale steps may differ by this fraction of their mean before the axis counts as not uniform.
const STEP_TOLERANCE: f64 = 0.01;

/// Opens the first image or image stack of `file`, by path.
pub(super) fn open(file: &File, options: &OpenOptions) -> Result<StackReader, SessionError> {
    let mut datasets = Vec::new();
    let mut budget = MAX_OBJECTS;
    collect(file, MAX_DEPTH, &mut budget, &mut datasets)?;
    let is_image = |dataset: &Dataset| {
        read_text(dataset, "data_type")
            .is_some_and(|data_type| matches!(data_type.as_str(), "IMAGE" | "IMAGE_STACK"))
    };
    let mut images: Vec<Dataset> = datasets.iter().filter(|d| is_image(d)).cloned().collect();
    images.sort_by_key(|dataset| dataset.name());
    if images.is_empty() {
        return Err(SessionError::unexpected(
            file.filename(),
            "a FerroSTEM session or an NSID file with an IMAGE or IMAGE_STACK (or name a dataset with --dataset)",
            found(&datasets),
        ));
    }
    let count = images.len();
    let mut reader = reader(images.swap_remove(0), options)?;
    if count > 1 {
        reader.describe_choice(count);
    }
    Ok(reader)
}

/// All datasets below `group`, in the order of their names.
fn collect(
    group: &Group,
    depth: usize,
    budget: &mut usize,
    datasets: &mut Vec<Dataset>,
) -> Result<(), SessionError> {
    for name in group.member_names().at(|| place(group))? {
        *budget = budget.checked_sub(1).ok_or_else(|| {
            SessionError::unexpected(
                group.filename(),
                format!("at most {MAX_OBJECTS} objects to search (or name a dataset with --dataset)"),
                "more",
            )
        })?;
        // A dangling link is no reason to give up the rest.
        match group.loc_type_by_name(&name) {
            Ok(LocationType::Dataset) => datasets.extend(group.dataset(&name)),
            Ok(LocationType::Group) if depth > 0 => {
                if let Ok(inner) = group.group(&name) {
                    collect(&inner, depth - 1, budget, datasets)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn found(datasets: &[Dataset]) -> String {
    if datasets.is_empty() {
        return "no datasets".to_owned();
    }
    let describe = |dataset: &Dataset| {
        let dtype = dataset.dtype().and_then(|dtype| dtype.to_descriptor());
        let dtype = dtype.map_or_else(|_| "?".to_owned(), |dtype| dtype.to_string());
        let data_type = read_text(dataset, "data_type").map_or(String::new(), |t| format!(", {t}"));
        format!("{} ({:?} {dtype}{data_type})", dataset.name(), dataset.shape())
    };
    let list: Vec<String> = datasets.iter().take(8).map(describe).collect();
    let more = if datasets.len() > list.len() { ", …" } else { "" };
    format!("{}{more}", list.join(", "))
}

/// A reader of `dataset`, whose axes are named by its dimension scales.
pub(super) fn reader(dataset: Dataset, options: &OpenOptions) -> Result<StackReader, SessionError> {
    let scales = scales(&dataset);
    let (axes, pixel_size_pm, times_ns) = if scales.len() == dataset.ndim() {
        let axes = axes(&dataset, &scales)?;
        let pixel_size = step_pm(&scales[axes.row]).zip(step_pm(&scales[axes.col]));
        let times = axes.frame.and_then(|axis| times_ns(&scales[axis]));
        (axes, pixel_size.map(|(row, col)| [row, col]), times)
    } else {
        (leading_frame_axis(&dataset)?, None, None)
    };
    let labels = StackLabels {
        format: SessionFormat::Nsid,
        description: place(&dataset),
        pixel_size_pm,
        times_ns,
        channel: read_text(&dataset, "main_data_name").filter(|name| !name.is_empty()),
    };
    StackReader::new(dataset, axes, labels, options)
}

/// A dimension scale, as far as it was understood.
pub(super) struct Scale {
    label: String,
    dimension_type: String,
    units: String,
    dataset: Dataset,
}

/// The scale of each axis of `dataset`; empty unless every axis has one.
pub(super) fn scales(dataset: &Dataset) -> Vec<Scale> {
    let labels = read_texts(dataset, "DIMENSION_LABELS");
    let lists = dataset
        .attr("DIMENSION_LIST")
        .and_then(|list| list.read_raw::<VarLenArray<ObjectReference1>>())
        .unwrap_or_default();
    let parent = dataset.name().rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned());
    let scale = |axis: usize| {
        let label = labels.get(axis).cloned().unwrap_or_default();
        let attached = lists.get(axis).and_then(|list| list.first().copied()).and_then(|reference| {
            match dataset.dereference(&reference) {
                Ok(ReferencedObject::Dataset(scale)) => Some(scale),
                _ => None,
            }
        });
        // Early pyNSID files have only the label, which names a dataset of the same group.
        let dataset = attached.or_else(|| {
            (!label.is_empty()).then(|| dataset.file().ok()?.dataset(&format!("{parent}/{label}")).ok())?
        })?;
        Some(Scale {
            label,
            dimension_type: read_text(&dataset, "dimension_type").unwrap_or_default(),
            units: read_text(&dataset, "units").unwrap_or_default(),
            dataset,
        })
    };
    (0..dataset.ndim()).map(scale).collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Which axis is which: two `SPATIAL` ones are the image (`x` then `y` means it is stored transposed), one other is the
/// frames.
fn axes(dataset: &Dataset, scales: &[Scale]) -> Result<ImageAxes, SessionError> {
    let is_spatial = |scale: &Scale| scale.dimension_type.eq_ignore_ascii_case("SPATIAL");
    let spatial: Vec<usize> = (0..scales.len()).filter(|&axis| is_spatial(&scales[axis])).collect();
    let other: Vec<usize> = (0..scales.len()).filter(|&axis| !is_spatial(&scales[axis])).collect();
    match (spatial[..].as_ref(), other[..].as_ref()) {
        (&[first, second], rest @ ([] | [_])) => {
            let frame = rest.first().copied();
            let name = |axis: usize| scales[axis].label.to_ascii_lowercase();
            if name(first) == "x" && name(second) == "y" {
                return Ok(ImageAxes { frame, row: second, col: first });
            }
            Ok(ImageAxes { frame, row: first, col: second })
        }
        // Nothing said: the usual order.
        ([], _) => leading_frame_axis(dataset),
        _ => {
            let kinds: Vec<String> =
                scales.iter().map(|s| format!("{} ({})", s.label, s.dimension_type)).collect();
            Err(SessionError::unexpected(
                place(dataset),
                "two SPATIAL dimensions and at most one other",
                kinds.join(", "),
            ))
        }
    }
}

/// The values of a scale that has as many as can be meant.
fn values(scale: &Scale) -> Option<Vec<f64>> {
    let sensible = scale.dataset.ndim() == 1 && (1..=MAX_SCALE).contains(&scale.dataset.size());
    sensible.then(|| scale.dataset.read_raw::<f64>().ok())?
}

/// The distance from one pixel to the next, pm; `None` where the units are no length or the steps differ.
fn step_pm(scale: &Scale) -> Option<f64> {
    let unit_pm = unit_pm(&scale.units)?;
    let values = values(scale)?;
    let (first, last) = (values.first()?, values.last()?);
    let step = (last - first) / (values.len() - 1) as f64;
    let uniform =
        values.windows(2).all(|pair| ((pair[1] - pair[0]) - step).abs() <= STEP_TOLERANCE * step.abs());
    (step.is_finite() && step != 0.0 && uniform).then(|| step.abs() * unit_pm)
}

/// Picometres in one `unit`; `None` where it is no unit of length.
fn unit_pm(unit: &str) -> Option<f64> {
    match unit.trim() {
        "pm" | "picometer" | "picometre" => Some(1.0),
        "Å" | "\u{212B}" | "A" | "Ang" | "angstrom" | "Angstrom" | "angstroms" | "Angstroms" => Some(1e2),
        "nm" | "nanometer" | "nanometre" | "nanometers" | "nanometres" => Some(1e3),
        "um" | "µm" | "\u{03BC}m" | "micron" | "micrometer" | "micrometre" => Some(1e6),
        "mm" | "millimeter" | "millimetre" => Some(1e9),
        "m" | "meter" | "metre" | "meters" | "metres" => Some(1e12),
        _ => None,
    }
}

/// When each frame was taken, ns since the first; `None` where the units are no time.
fn times_ns(scale: &Scale) -> Option<Vec<u64>> {
    let unit_ns = match scale.units.trim() {
        "s" | "sec" | "second" | "seconds" => 1e9,
        "ms" => 1e6,
        "us" | "µs" | "\u{03BC}s" => 1e3,
        "ns" => 1.0,
        _ => return None,
    };
    let values = values(scale)?;
    let first = *values.first()?;
    let ns = |value: f64| {
        (value.is_finite() && value >= first).then(|| ((value - first) * unit_ns).round() as u64)
    };
    values.into_iter().map(ns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_length_are_told_apart() {
        for (unit, pm) in
            [("pm", 1.0), ("Å", 100.0), ("nm", 1e3), (" nm ", 1e3), ("um", 1e6), ("µm", 1e6), ("m", 1e12)]
        {
            assert_eq!(unit_pm(unit), Some(pm), "{unit}");
        }
        for unit in ["", "px", "generic", "1/nm", "s"] {
            assert_eq!(unit_pm(unit), None, "{unit}");
        }
    }
}
