//! EMD of Velox (Thermo Fisher): `/Data/Image/<id>/Data` as `[row, col, frame]`, with a column of JSON bytes for each
//! frame beside it in `Metadata`. Lengths are in m and times in s, written as text. Read as RosettaSciIO reads it.

use super::super::error::{At, SessionError};
use super::super::h5::{ImageAxes, place};
use super::dataset::{Stack, image_axes};
use super::facts::{Calibration, Facts, FrameTimes, Timing};
use super::hdf5::Found;
use super::objects::{MAX_JSON, json_number, json_object};
use super::units::length_pm;
use hdf5::{Dataset, File, Group};
use serde_json::Value;

const IMAGES: &str = "Data/Image";

pub(in crate::session) fn find(file: &File) -> Result<Option<Vec<Found>>, SessionError> {
    if !file.link_exists("Data") || !file.group("Data").is_ok_and(|data| data.link_exists("Image")) {
        return Ok(None);
    }
    let Ok(images) = file.group(IMAGES) else { return Ok(None) };
    let names = images.member_names().at(|| place(&images))?;
    let found = |name: &String| {
        let group = images.group(name).ok()?;
        Some(Found { dataset: group.dataset("Data").ok()?, group })
    };
    Ok(Some(names.iter().filter_map(found).collect()))
}

pub(in crate::session) fn stack(found: Found) -> Result<Stack, SessionError> {
    let Found { dataset, group } = found;
    let axes: ImageAxes = image_axes(&dataset, [0, 1])?;
    let facts = match metadata(&group) {
        Ok(metadata) => facts(&metadata),
        Err(error) => Facts::new(Calibration::none(error.to_string())),
    };
    Ok(Stack { dataset, axes, facts })
}

/// What is said of the first frame; Velox repeats it for the others, or leaves them empty.
fn metadata(group: &Group) -> Result<Value, SessionError> {
    let dataset = group.dataset("Metadata").at(|| format!("{}/Metadata", place(group)))?;
    let bytes = first_column(&dataset)?;
    let text: Vec<u8> = bytes.into_iter().take_while(|byte| *byte != 0).collect();
    json_object(&String::from_utf8_lossy(&text), || place(&dataset))
}

fn first_column(dataset: &Dataset) -> Result<Vec<u8>, SessionError> {
    let shape = dataset.shape();
    let (&[len, frames], true) = (&shape[..], dataset.dtype().is_ok_and(|dtype| dtype.size() == 1)) else {
        let found = format!("shape {shape:?}");
        return Err(SessionError::unexpected(place(dataset), "bytes, one column a frame", found));
    };
    if len > MAX_JSON || frames == 0 {
        let found = format!("{len} bytes of {frames} frames");
        return Err(SessionError::unexpected(
            place(dataset),
            format!("at most {MAX_JSON} bytes a frame"),
            found,
        ));
    }
    let column = dataset.read_slice_1d::<u8, _>((0..len, 0usize)).at(|| place(dataset))?;
    Ok(column.into_raw_vec_and_offset().0)
}

fn facts(metadata: &Value) -> Facts {
    let number = |path: &str| metadata.pointer(path).and_then(json_number);
    let seconds_ns = |path: &str| number(path).map(|s| s * 1e9).filter(|ns| *ns > 0.0);
    let start_ns = seconds_ns("/Acquisition/AcquisitionStartDatetime/DateTime").map(|ns| ns.round() as u64);
    let frames = seconds_ns("/Scan/FrameTime").map_or(FrameTimes::Unknown, FrameTimes::Every);
    Facts {
        timing: Timing { start_ns, frames },
        channel: channel(metadata),
        rotation_rad: number("/Scan/ScanRotation"),
        dwell_us: number("/Scan/DwellTime").map(|s| s * 1e6),
        ..Facts::new(calibration(metadata))
    }
}

fn calibration(metadata: &Value) -> Calibration {
    let number =
        |key: &str| metadata.pointer(&format!("/BinaryResult/PixelSize/{key}")).and_then(json_number);
    let unit = |key: &str| {
        metadata
            .pointer(&format!("/BinaryResult/{key}"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let Some((height, width)) = number("height").zip(number("width")) else {
        return Calibration::none("the metadata has no BinaryResult.PixelSize");
    };
    let (unit_y, unit_x) = (unit("PixelUnitY"), unit("PixelUnitX"));
    let unit_y = if unit_y.is_empty() { unit_x.clone() } else { unit_y };
    let source = format!("BinaryResult.PixelSize: height {height} {unit_y}, width {width} {unit_x}");
    match length_pm(&unit_y).zip(length_pm(&unit_x)) {
        Some((y_pm, x_pm)) => Calibration::new([height * y_pm, width * x_pm], source),
        None => Calibration::none(format!("{source}, not two lengths")),
    }
}

/// The detector, by its own name or by its number among the detectors.
fn channel(metadata: &Value) -> Option<String> {
    let text = |path: &str| metadata.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let numbered = || {
        let index = json_number(metadata.pointer("/BinaryResult/DetectorIndex")?)?;
        text(&format!("/Detectors/Detector-{index}/DetectorName"))
    };
    text("/BinaryResult/Detector").or_else(numbered).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_in_text_become_numbers_with_units() {
        let facts = facts(&json!({
            "BinaryResult": {
                "PixelSize": {"width": "1.5e-11", "height": "2e-11"}, "PixelUnitX": "m", "PixelUnitY": "m",
                "DetectorIndex": "5"
            },
            "Detectors": {"Detector-4": {"DetectorName": "BF"}, "Detector-5": {"DetectorName": "HAADF"}},
            "Scan": {"ScanRotation": "0.5", "DwellTime": "2e-06", "FrameTime": "0.25"},
            "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1700000000"}}
        }));
        let [row, col] = facts.calibration.pixel_size_pm.unwrap();
        assert!((row - 20.0).abs() < 1e-9 && (col - 15.0).abs() < 1e-9, "{row} {col}");
        assert_eq!(facts.channel.as_deref(), Some("HAADF"));
        assert_eq!((facts.rotation_rad, facts.dwell_us), (Some(0.5), Some(2.0)));
        assert_eq!(facts.timing.at(2), Some(1_700_000_000_500_000_000));
    }

    #[test]
    fn what_is_missing_or_no_length_is_no_calibration() {
        for metadata in [
            json!({}),
            json!({"BinaryResult": {"PixelSize": {"width": "1e9", "height": "1e9"}, "PixelUnitX": "1/m"}}),
            json!({"BinaryResult": {"PixelSize": {"width": "0", "height": "0"}, "PixelUnitX": "m"}}),
            json!({"BinaryResult": {"PixelSize": {"width": "wide", "height": "1"}, "PixelUnitX": "m"}}),
        ] {
            let facts = facts(&metadata);
            assert_eq!(facts.calibration.pixel_size_pm, None, "{metadata}");
            assert_eq!(facts.timing.at(0), None);
        }
    }
}
