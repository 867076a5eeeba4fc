//! Files of pyNSID/sidpy: images and stacks with dimension scales, as `Measurement_000/Channel_000/<name>/<name>`.
//!
//! Convention: a main dataset says `data_type` = `IMAGE` or `IMAGE_STACK`; each axis has a scale with its values, and
//! the scale says `dimension_type` and `units`. The source is pyNSID's `check_if_main` and `read_h5py_dataset`.

use super::super::error::SessionError;
use super::super::h5::{ImageAxes, place, read_text};
use super::dataset::{Stack, image_axes, leading_frame_axis};
use super::facts::{Axis, Calibration, Facts, FrameTimes, Timing, named_rows_and_cols};
use super::hdf5::{Found, in_own_group};
use super::objects;
use super::units::duration_ns;
use hdf5::types::VarLenArray;
use hdf5::{Dataset, File, ObjectReference1, ReferencedObject};

/// Objects that one `DIMENSION_LIST` may refer to.
const MAX_RANK: usize = 32;

/// Every dataset that says it is an image, by path.
pub(in crate::session) fn find(file: &File) -> Result<Option<Vec<Found>>, SessionError> {
    let is_image = |dataset: &Dataset| {
        read_text(dataset, "data_type").is_some_and(|said| matches!(said.as_str(), "IMAGE" | "IMAGE_STACK"))
    };
    let mut images: Vec<Dataset> = objects::datasets(file)?.into_iter().filter(is_image).collect();
    images.sort_by_key(|dataset| dataset.name());
    if images.is_empty() {
        return Ok(None);
    }
    images.into_iter().map(in_own_group).collect::<Result<_, _>>().map(Some)
}

pub(in crate::session) fn stack(found: Found) -> Result<Stack, SessionError> {
    scaled(found.dataset)
}

/// Whether every axis of `dataset` has a dimension scale.
pub(in crate::session) fn has_scales(dataset: &Dataset) -> bool {
    !scales(dataset).is_empty()
}

/// `dataset`, whose axes are named by its dimension scales where it has them.
pub(in crate::session) fn scaled(dataset: Dataset) -> Result<Stack, SessionError> {
    let scales = scales(&dataset);
    let channel = read_text(&dataset, "main_data_name").filter(|name| !name.is_empty());
    if scales.is_empty() {
        let axes = leading_frame_axis(&dataset)?;
        let calibration = Calibration::none("no dimension scales are attached");
        return Ok(Stack { dataset, axes, facts: Facts { channel, ..Facts::new(calibration) } });
    }
    let axes = axes(&dataset, &scales)?;
    let axis = |axis: usize| scales[axis].axis();
    let calibration = Calibration::of_axes(&axis(axes.row), &axis(axes.col), "dimension scales");
    let timing = axes.frame.map_or_else(Timing::default, |frame| scales[frame].timing());
    Ok(Stack { dataset, axes, facts: Facts { channel, timing, ..Facts::new(calibration) } })
}

/// A dimension scale, as far as it was understood.
struct Scale {
    label: String,
    dimension_type: String,
    dataset: Dataset,
}

impl Scale {
    fn axis(&self) -> Axis {
        objects::axis_of(&self.dataset, self.label.clone())
    }

    /// When each frame was taken; pyNSID keeps times of any spacing.
    fn timing(&self) -> Timing {
        let unit_ns = read_text(&self.dataset, "units").and_then(|units| duration_ns(&units));
        let frames = unit_ns.zip(objects::positions(&self.dataset)).map(|(unit_ns, times)| {
            FrameTimes::since_first(&times.iter().map(|time| time * unit_ns).collect::<Vec<f64>>())
        });
        Timing { start_ns: None, frames: frames.unwrap_or_default() }
    }
}

/// The scale of each axis of `dataset`; empty unless every axis has one.
fn scales(dataset: &Dataset) -> Vec<Scale> {
    let labels = objects::texts(dataset, "DIMENSION_LABELS");
    let lists = dataset
        .attr("DIMENSION_LIST")
        .ok()
        .filter(|list| list.size() <= MAX_RANK)
        .and_then(|list| list.read_raw::<VarLenArray<ObjectReference1>>().ok())
        .unwrap_or_default();
    let name = dataset.name();
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
            let beside = format!("{}/{label}", objects::parent(&name));
            (!label.is_empty()).then(|| dataset.file().ok()?.dataset(&beside).ok())?
        })?;
        let dimension_type = read_text(&dataset, "dimension_type").unwrap_or_default();
        Some(Scale { label, dimension_type, dataset })
    };
    (0..dataset.ndim()).map(scale).collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Which axis is which: two `SPATIAL` ones are the image (`x` then `y` means it is stored transposed), one other is the
/// frames.
fn axes(dataset: &Dataset, scales: &[Scale]) -> Result<ImageAxes, SessionError> {
    let is_spatial = |scale: &Scale| scale.dimension_type.eq_ignore_ascii_case("SPATIAL");
    let spatial: Vec<usize> = (0..scales.len()).filter(|&axis| is_spatial(&scales[axis])).collect();
    let names: Vec<Axis> =
        scales.iter().map(|scale| Axis { name: scale.label.clone(), ..Axis::default() }).collect();
    match spatial[..] {
        [first, second] => {
            let named =
                named_rows_and_cols(&names).filter(|image| image.iter().all(|axis| spatial.contains(axis)));
            image_axes(dataset, named.unwrap_or([first, second]))
        }
        // Nothing said: the usual order.
        [] => leading_frame_axis(dataset),
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
