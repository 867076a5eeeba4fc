//! asyncroscopy: `image/<detector>`, one dataset a detector, or one dataset `image`; what the acquisition said is in
//! attributes.
//!
//! The microscope's own metadata land in the attributes leaf by leaf, by tag name alone, so that only names which cannot
//! mean two things are read: `pixel_size_m`, `fov_m` (the width), `dwell_time_s`, `detector`.

use super::super::error::SessionError;
use super::super::h5::read_text;
use super::dataset::{Stack, leading_frame_axis};
use super::facts::{Calibration, Facts};
use super::hdf5::Found;
use super::objects::{last_name, number};
use hdf5::{Dataset, File};

const IMAGES: &str = "image";

pub(in crate::session) fn find(file: &File) -> Result<Option<Vec<Found>>, SessionError> {
    if !file.link_exists(IMAGES) {
        return Ok(None);
    }
    if let (Ok(dataset), Ok(group)) = (file.dataset(IMAGES), file.group("/")) {
        let written_so = dataset.attr("acquisition_type").is_ok();
        return Ok(written_so.then(|| vec![Found { dataset, group }]));
    }
    let Ok(group) = file.group(IMAGES) else { return Ok(None) };
    let datasets = group.datasets().unwrap_or_default();
    let found: Vec<Found> =
        datasets.into_iter().map(|dataset| Found { dataset, group: group.clone() }).collect();
    Ok((!found.is_empty()).then_some(found))
}

pub(in crate::session) fn stack(found: Found) -> Result<Stack, SessionError> {
    let dataset = found.dataset;
    let axes = leading_frame_axis(&dataset)?;
    let facts = Facts {
        channel: channel(&dataset),
        dwell_us: number(&dataset, "dwell_time_s").map(|s| s * 1e6),
        ..Facts::new(calibration(&dataset, dataset.shape()[axes.col]))
    };
    Ok(Stack { dataset, axes, facts })
}

fn calibration(dataset: &Dataset, cols: usize) -> Calibration {
    if let Some(size) = number(dataset, "pixel_size_m") {
        return Calibration::new([size * 1e12; 2], format!("attribute pixel_size_m = {size}"));
    }
    if let Some(fov) = number(dataset, "fov_m") {
        return Calibration::new(
            [fov * 1e12 / cols as f64; 2],
            format!("attribute fov_m = {fov} over {cols} columns"),
        );
    }
    Calibration::none("the attributes have neither pixel_size_m nor fov_m")
}

fn channel(dataset: &Dataset) -> Option<String> {
    let path = dataset.name();
    read_text(dataset, "detector")
        .or_else(|| Some(last_name(&path).to_owned()))
        .filter(|name| !name.is_empty() && name != IMAGES)
}
