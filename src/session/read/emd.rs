//! EMD of Berkeley (NCEM): groups with an attribute `emd_group_type`, which hold `data` and a `dim` for each axis.
//!
//! Version 0.2 (HyperSpy, ncempy, Prismatic) counts `dim1`, `dim2`, …, and stores `x` before `y` unless the names of the
//! axes say otherwise; units are written `[n_m]`. Version 1.0 (emdfile, py4DSTEM) counts from `dim0` and stores rows
//! before columns; the last axis of a stack is called `_labels_`. A `dim` of two values stands for a uniform axis.

use super::super::error::SessionError;
use super::super::h5::{place, read_text};
use super::dataset::{Stack, image_axes};
use super::facts::{Axis, Calibration, Facts, Timing, named_rows_and_cols};
use super::hdf5::Found;
use super::objects::{Object, axis_of, last_name, walk};
use hdf5::{Dataset, File, Group};

/// Names that the writers give to arrays.
const DATA: [&str; 3] = ["data", "realslice", "datacube"];

pub(in crate::session) fn find(file: &File) -> Result<Option<Vec<Found>>, SessionError> {
    let marked = |object: &hdf5::Location, name: &str| object.attr(name).is_ok();
    if !marked(file, "version_major") && !marked(file, "emd_group_type") {
        return Ok(None);
    }
    let mut found = Vec::new();
    walk(file, &mut |object| {
        if let Object::Group(group) = object
            && marked(&group, "emd_group_type")
        {
            let datasets = DATA
                .iter()
                .filter(|name| group.link_exists(name))
                .filter_map(|name| group.dataset(name).ok());
            found.extend(datasets.map(|dataset| Found { dataset, group: group.clone() }));
        }
    })?;
    Ok(Some(found))
}

pub(in crate::session) fn stack(found: Found) -> Result<Stack, SessionError> {
    let Found { dataset, group } = found;
    let rank = dataset.ndim();
    if rank < 2 {
        let found = format!("{rank} of lengths {:?}", dataset.shape());
        return Err(SessionError::unexpected(place(&dataset), "2 axes or 3", found));
    }
    let first = usize::from(!group.link_exists("dim0"));
    let axes: Vec<Axis> = (0..rank).map(|index| axis(&group, index + first)).collect();
    let image = if first == 0 {
        if rank > 2 && axes[rank - 1].name == "_labels_" {
            [rank - 3, rank - 2]
        } else {
            [rank - 2, rank - 1]
        }
    } else {
        named_rows_and_cols(&axes).unwrap_or([1, 0])
    };
    let image_axes = image_axes(&dataset, image)?;
    let [row, col] = image;
    let source = format!("dim{} and dim{} of {}", row + first, col + first, group.name());
    let calibration = Calibration::of_axes(&axes[row], &axes[col], &source);
    let timing = image_axes.frame.map_or_else(Timing::default, |frame| axes[frame].timing());
    let channel = channel(&dataset, &group);
    Ok(Stack { dataset, axes: image_axes, facts: Facts { channel, timing, ..Facts::new(calibration) } })
}

fn axis(group: &Group, number: usize) -> Axis {
    let open = |name: &str| group.dataset(name).ok();
    open(&format!("dim{number}"))
        .map(|dim| axis_of(&dim, read_text(&dim, "name").unwrap_or_default()))
        .unwrap_or_default()
}

/// The group is named after the signal.
fn channel(dataset: &Dataset, group: &Group) -> Option<String> {
    let path = group.name();
    let name = last_name(&path);
    (!name.is_empty() && !name.starts_with("__") && name != last_name(&dataset.name()))
        .then(|| name.to_owned())
}
