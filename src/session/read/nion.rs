//! Nion Swift: `/data` with an attribute `properties`, a JSON object (`.h5`), or several of them in a group `/data`
//! (`.nhdf`). The same properties stand in the `metadata.json` of an `.ndata` file.
//!
//! Axes come in the order sequence, collection, datum; an image has two datum axes, or two collection axes with one
//! number at each position.

use super::super::error::SessionError;
use super::super::h5::{place, read_text};
use super::dataset::{Stack, image_axes};
use super::facts::{Axis, Calibration, Facts, Timing};
use super::hdf5::Found;
use super::objects::{json_number, json_object};
use super::units::unix_ns;
use hdf5::File;
use serde_json::Value;

pub(in crate::session) fn find(file: &File) -> Result<Option<Vec<Found>>, SessionError> {
    if !file.link_exists("data") {
        return Ok(None);
    }
    let has_properties = |dataset: &hdf5::Dataset| dataset.attr("properties").is_ok();
    if let Ok(dataset) = file.dataset("data") {
        let Ok(group) = file.group("/") else { return Ok(None) };
        return Ok(has_properties(&dataset).then(|| vec![Found { dataset, group }]));
    }
    let Ok(group) = file.group("data") else { return Ok(None) };
    let datasets = group.datasets().unwrap_or_default();
    let found: Vec<Found> = datasets
        .into_iter()
        .filter(has_properties)
        .map(|dataset| Found { dataset, group: group.clone() })
        .collect();
    Ok((!found.is_empty()).then_some(found))
}

pub(in crate::session) fn stack(found: Found) -> Result<Stack, SessionError> {
    let dataset = found.dataset;
    let place = || place(&dataset);
    let text = read_text(&dataset, "properties").ok_or_else(|| {
        SessionError::unexpected(place(), "text in the attribute properties", "something else")
    })?;
    let properties = json_object(&text, place)?;
    let image = image_of(&properties, &dataset.shape(), place)?;
    let axes = image_axes(&dataset, image)?;
    let facts = facts(&properties, dataset.ndim(), image, axes.frame);
    Ok(Stack { dataset, axes, facts })
}

/// The `[row, col]` axes of data of `shape`.
pub(in crate::session) fn image_of(
    properties: &Value,
    shape: &[usize],
    place: impl Fn() -> String,
) -> Result<[usize; 2], SessionError> {
    let rank = shape.len();
    let refuse =
        |found: String| Err(SessionError::unexpected(place(), "an image or a sequence of images", found));
    let count =
        |key: &str| lookup(properties, key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let sequence = usize::from(lookup(properties, "is_sequence").and_then(Value::as_bool).unwrap_or(false));
    let Some((collection, datum)) = count("collection_dimension_count").zip(count("datum_dimension_count"))
    else {
        return if rank < 2 { refuse(format!("shape {shape:?}")) } else { Ok([rank - 2, rank - 1]) };
    };
    let described = sequence.saturating_add(collection).saturating_add(datum);
    if described + 1 == rank && matches!(shape[rank - 1], 3 | 4) {
        return refuse(format!("colours: shape {shape:?}"));
    }
    if described != rank {
        return refuse(format!("shape {shape:?} described with {described} dimensions"));
    }
    match (collection, datum) {
        (_, 2) => Ok([rank - 2, rank - 1]),
        (2, 0) => Ok([sequence, sequence + 1]),
        (2, 1) if shape[rank - 1] == 1 => Ok([sequence, sequence + 1]),
        _ => refuse(format!(
            "a collection of {collection} dimensions of data of {datum} dimensions, shape {shape:?}"
        )),
    }
}

/// What the properties say about data of `rank` dimensions.
pub(in crate::session) fn facts(
    properties: &Value,
    rank: usize,
    image: [usize; 2],
    frame: Option<usize>,
) -> Facts {
    let empty = Vec::new();
    let key = ["dimensional_calibrations", "spatial_calibrations"]
        .into_iter()
        .find(|key| lookup(properties, key).is_some_and(Value::is_array));
    let listed = key.and_then(|key| lookup(properties, key)?.as_array()).unwrap_or(&empty);
    // Spatial calibrations may leave out the axes before the image.
    let offset = rank.saturating_sub(listed.len());
    let axis = |index: usize| {
        index.checked_sub(offset).and_then(|index| listed.get(index)).map(calibrated_axis).unwrap_or_default()
    };
    let [row, col] = image;
    let calibration = match key {
        Some(key) => Calibration::of_axes(&axis(row), &axis(col), key),
        None => Calibration::none("the properties have no dimensional_calibrations"),
    };
    let created = lookup(properties, "created").and_then(Value::as_str).and_then(unix_ns);
    let frames = frame.map_or_else(Timing::default, |frame| axis(frame).timing()).frames;
    let scan = |keys: &[&str]| keys.iter().find_map(|key| scan_value(properties, key));
    let number = |keys: &[&str]| scan(keys).and_then(json_number);
    let pair = |value: &Value| Some([json_number(value.get(0)?)?, json_number(value.get(1)?)?]);
    Facts {
        calibration,
        timing: Timing { start_ns: created, frames },
        channel: scan(&["channel_name"])
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        rotation_rad: number(&["rotation_rad", "rotation"])
            .or_else(|| number(&["rotation_deg"]).map(f64::to_radians)),
        dwell_us: number(&["pixel_time_us"]),
        center_nm: scan(&["center_nm"])
            .and_then(pair)
            .or_else(|| number(&["center_y_nm"]).zip(number(&["center_x_nm"])).map(|(y, x)| [y, x])),
    }
}

fn calibrated_axis(calibration: &Value) -> Axis {
    Axis {
        name: String::new(),
        units: calibration.get("units").and_then(Value::as_str).unwrap_or_default().to_owned(),
        step: calibration.get("scale").and_then(json_number),
    }
}

/// A property, which older files keep one level down.
fn lookup<'a>(properties: &'a Value, key: &str) -> Option<&'a Value> {
    ["", "/data_source", "/data_sources/0"]
        .iter()
        .find_map(|within| properties.pointer(within)?.get(key))
        .filter(|value| !value.is_null())
}

/// What the scan or the hardware said.
fn scan_value<'a>(properties: &'a Value, key: &str) -> Option<&'a Value> {
    let metadata = lookup(properties, "metadata")?;
    ["scan", "hardware_source", "scan_detector"].iter().find_map(|part| metadata.get(part)?.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(properties: &Value, shape: &[usize]) -> Result<[usize; 2], String> {
        image_of(properties, shape, || "here".to_owned()).map_err(|error| error.to_string())
    }

    fn counts(sequence: bool, collection: usize, datum: usize) -> Value {
        json!({"is_sequence": sequence, "collection_dimension_count": collection, "datum_dimension_count": datum})
    }

    #[test]
    fn dimension_counts_say_which_axes_are_the_image() {
        assert_eq!(image(&counts(false, 0, 2), &[4, 5]), Ok([0, 1]));
        assert_eq!(image(&counts(true, 0, 2), &[3, 4, 5]), Ok([1, 2]));
        assert_eq!(image(&counts(false, 2, 0), &[4, 5]), Ok([0, 1]));
        assert_eq!(image(&counts(true, 2, 0), &[3, 4, 5]), Ok([1, 2]));
        assert_eq!(image(&json!({}), &[3, 4, 5]), Ok([1, 2]));
        for (properties, shape, says) in [
            (counts(false, 0, 2), &[4, 5, 3][..], "colours"),
            (counts(false, 2, 1), &[4, 5, 100], "collection of 2"),
            (counts(false, 0, 1), &[100], "data of 1"),
            (counts(true, 0, 2), &[4, 5], "3 dimensions"),
            (json!({}), &[7], "[7]"),
        ] {
            let error = image(&properties, shape).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn older_files_keep_the_calibrations_one_level_down() {
        let calibrations = json!([{"scale": 0.02, "units": "nm"}, {"scale": 15.0, "units": "pm"}]);
        for properties in [
            json!({"dimensional_calibrations": calibrations}),
            json!({"spatial_calibrations": calibrations}),
            json!({"data_source": {"dimensional_calibrations": calibrations}}),
            json!({"data_sources": [{"spatial_calibrations": calibrations}]}),
        ] {
            let facts = facts(&properties, 3, [1, 2], Some(0));
            assert_eq!(facts.calibration.pixel_size_pm, Some([20.0, 15.0]), "{properties}");
        }
        assert_eq!(facts(&json!({}), 2, [0, 1], None).calibration.pixel_size_pm, None);
    }

    #[test]
    fn the_scan_is_told() {
        let properties = json!({
            "created": "2023-11-14T22:13:20",
            "dimensional_calibrations": [
                {"scale": 0.5, "units": "s"}, {"scale": 0.02, "units": "nm"}, {"scale": 0.02, "units": "nm"}
            ],
            "metadata": {
                "hardware_source": {"channel_name": "HAADF", "pixel_time_us": 4.0},
                "scan": {"rotation_deg": 180.0, "center_nm": [3.0, -4.0]}
            }
        });
        let facts = facts(&properties, 3, [1, 2], Some(0));
        assert_eq!((facts.channel.as_deref(), facts.dwell_us), (Some("HAADF"), Some(4.0)));
        assert_eq!((facts.rotation_rad, facts.center_nm), (Some(std::f64::consts::PI), Some([3.0, -4.0])));
        assert_eq!(facts.timing.at(1), Some(1_700_000_000_500_000_000));
    }
}
