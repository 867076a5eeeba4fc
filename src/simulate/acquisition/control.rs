//! What a controller may ask of the simulated scan: one JSON request, one JSON reply, shaped as on the daemon's control lane.

use super::state::Shared;
use crate::config::InvalidSetting;
use crate::publish::Answer;
use crate::simulate::microscope::{Microscope, SubScan};
use ferrostem_proto::Limits;
use ferrostem_proto::control::{ControlError, ControlReply, ErrorCode, NamedRequest};
use ferrostem_proto::{FractionalPosition, PixelPosition};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The commands, by name.
const COMMANDS: [&str; 6] = ["set_scan", "go_to", "start", "stop", "single", "status"];

/// `{"id": …, "cmd": …, "args": {…}}`, understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ScanRequest {
    /// Changes the scan from the next frame on.
    SetScan(ScanChange),
    /// The same, and puts a place into the middle of the next frame.
    GoTo(Target, ScanChange),
    /// Begins an acquisition that goes on until `stop`.
    Start,
    /// Ends the acquisition after the frame that is being scanned.
    Stop,
    /// Acquires one frame.
    Single,
    Status,
}

/// The parts of the scan to change; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ScanChange {
    /// Centre of the field of view in the specimen frame, `[y, x]`.
    center_nm: Option<[f64; 2]>,
    fov_nm: Option<FieldOfView>,
    rotation_rad: Option<f64>,
    dwell_us: Option<f64>,
    /// `[rows, cols]`.
    shape: Option<[usize; 2]>,
    /// `[y, x]`; null scans all of the field of view again.
    #[serde(deserialize_with = "present")]
    subscan_fractional_size: Option<Option<[f64; 2]>>,
    subscan_fractional_center: Option<[f64; 2]>,
    subscan_rotation_rad: Option<f64>,
    /// `[rows, cols]`; null keeps the pixel size of the full scan.
    #[serde(deserialize_with = "present")]
    subscan_shape: Option<Option<[usize; 2]>>,
}

/// Tells null from absent: serde calls this only where the key is there.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
enum FieldOfView {
    Width(f64),
    HeightWidth([f64; 2]),
}

/// A place in a frame, in one of the three ways in which a candidate says it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    place: Place,
    /// The frame that it is a place in; without, the scan as it is set now.
    pub frame: Option<FrameId>,
}

/// Which frame a place is in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FrameId {
    /// Without, that of the newest acquisition.
    pub acquisition: Option<String>,
    pub seq: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// Pixels of the frame.
    Px(PixelPosition),
    /// Fractions of the frame's field of view.
    Frac(FractionalPosition),
    /// Offset from its centre along the specimen's axes, `[x, y]`.
    Nm([f64; 2]),
}

/// As it stands in a candidate.
#[derive(Debug, Deserialize)]
struct Offset {
    x: f64,
    y: f64,
}

impl ScanChange {
    /// `scan` with the changes made to it and to its sub-scan.
    ///
    /// # Errors
    /// [`InvalidSetting`] when the scan would be impossible.
    pub fn applied_to(&self, scan: &Microscope) -> Result<Microscope, InvalidSetting> {
        let mut changed = scan.clone();
        changed.shape = self.shape.unwrap_or(changed.shape);
        let [rows, cols] = changed.shape.map(|n| n as f64);
        // A new shape alone keeps the width of the field of view and the pixels' aspect.
        let width_nm = match self.fov_nm {
            None => scan.fov_nm()[1],
            Some(FieldOfView::Width(width_nm)) => width_nm,
            Some(FieldOfView::HeightWidth([height_nm, width_nm])) => {
                changed.pixel_aspect = (height_nm / rows) / (width_nm / cols);
                width_nm
            }
        };
        if self.fov_nm.is_some() || self.shape.is_some() {
            changed.pixel_size_pm = 1e3 * width_nm / cols;
        }
        changed.center_nm = self.center_nm.unwrap_or(changed.center_nm);
        changed.rotation_rad = self.rotation_rad.unwrap_or(changed.rotation_rad);
        changed.dwell_us = self.dwell_us.unwrap_or(changed.dwell_us);
        changed.sub_scan = self.sub_scan(scan.sub_scan)?;
        changed.validate("scan")?;
        Ok(changed)
    }

    /// A size begins a sub-scan, null ends it; its other values want one that is there.
    fn sub_scan(&self, sub_scan: Option<SubScan>) -> Result<Option<SubScan>, InvalidSetting> {
        let mut changed = match self.subscan_fractional_size {
            None => sub_scan,
            Some(None) => None,
            Some(Some(fractional_size)) => Some(SubScan { fractional_size, ..sub_scan.unwrap_or_default() }),
        };
        let wants_one = self.subscan_fractional_center.is_some()
            || self.subscan_rotation_rad.is_some()
            || self.subscan_shape.is_some_and(|shape| shape.is_some());
        match &mut changed {
            None if wants_one => {
                let expected = "a size, for there is no sub-scan";
                return Err(InvalidSetting::new("subscan_fractional_size", "absent", expected));
            }
            None => {}
            Some(changed) => {
                changed.fractional_center =
                    self.subscan_fractional_center.unwrap_or(changed.fractional_center);
                changed.rotation_rad = self.subscan_rotation_rad.unwrap_or(changed.rotation_rad);
                changed.shape = self.subscan_shape.unwrap_or(changed.shape);
            }
        }
        Ok(changed)
    }
}

impl Target {
    /// Takes the keys that say where out of `args`: one of `px`, `frac` and `nm`, and perhaps `seq` and `acquisition`.
    fn take(args: &mut Map<String, Value>) -> Result<Self, ControlError> {
        let bad =
            |message: String| ControlError::new(ErrorCode::BadArgs, format!("args of go_to: {message}"));
        let [px, frac, nm] = ["px", "frac", "nm"].map(|key| args.remove(key));
        let read = |key: &str, error: serde_json::Error| bad(format!("{key}: {error}"));
        let place = match (px, frac, nm) {
            (Some(px), None, None) => {
                Place::Px(serde_json::from_value(px).map_err(|error| read("px", error))?)
            }
            (None, Some(frac), None) => {
                Place::Frac(serde_json::from_value(frac).map_err(|error| read("frac", error))?)
            }
            (None, None, Some(nm)) => {
                let Offset { x, y } = serde_json::from_value(nm).map_err(|error| read("nm", error))?;
                Place::Nm([x, y])
            }
            _ => return Err(bad("expected one of px {row, col}, frac {y, x} and nm {x, y}".to_owned())),
        };
        let seq = args.remove("seq").map(serde_json::from_value).transpose();
        let acquisition = args.remove("acquisition").map(serde_json::from_value).transpose();
        let acquisition = acquisition.map_err(|error| read("acquisition", error))?;
        let frame = seq.map_err(|error| read("seq", error))?.map(|seq| FrameId { acquisition, seq });
        Ok(Self { place, frame })
    }

    /// Where it is in the specimen frame, `[y, x]` in nm, as the place in a frame of `scan`.
    pub fn position_nm(&self, scan: &Microscope) -> [f64; 2] {
        let scan = scan.scanned();
        match self.place {
            Place::Px(PixelPosition { row, col }) => scan.pixel_to_specimen_nm(row, col),
            Place::Frac(FractionalPosition { y, x }) => {
                let [rows, cols] = scan.shape.map(|n| n as f64);
                scan.pixel_to_specimen_nm(y * rows - 0.5, x * cols - 0.5)
            }
            // Turned by the scan's rotation already.
            Place::Nm([x, y]) => [scan.center_nm[0] + y, scan.center_nm[1] + x],
        }
    }
}

impl ScanRequest {
    /// # Errors
    /// An unknown command, or arguments that are not those of the command.
    fn of(request: &NamedRequest) -> Result<Self, ControlError> {
        let typed = |args: &Map<String, Value>| NamedRequest::typed(&request.cmd, args);
        Ok(match request.cmd.as_str() {
            "set_scan" => Self::SetScan(typed(&request.args)?),
            "go_to" => {
                let mut args = request.args.clone();
                let target = Target::take(&mut args)?;
                if args.contains_key("center_nm") {
                    let message = "args of go_to: center_nm: the place to go to says where the centre is";
                    return Err(ControlError::new(ErrorCode::BadArgs, message));
                }
                Self::GoTo(target, typed(&args)?)
            }
            "start" => Self::Start,
            "stop" => Self::Stop,
            "single" => Self::Single,
            "status" => Self::Status,
            _ => return Err(request.unknown(&COMMANDS)),
        })
    }
}

impl Answer for Shared {
    fn answer(&self, request: &[u8]) -> ControlReply {
        match NamedRequest::parse(request, &Limits::default()) {
            Err(refused) => *refused,
            Ok(request) => {
                let outcome = ScanRequest::of(&request).and_then(|request| self.carry_out(request));
                ControlReply { id: request.id, outcome }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(cmd: &str, args: Value) -> Result<ScanRequest, ControlError> {
        let Value::Object(args) = args else { panic!("{args}") };
        ScanRequest::of(&NamedRequest { id: Value::Null, cmd: cmd.to_owned(), args })
    }

    fn changed(scan: &Microscope, args: Value) -> Result<Microscope, InvalidSetting> {
        match parse("set_scan", args).unwrap() {
            ScanRequest::SetScan(change) => change.applied_to(scan),
            other => panic!("{other:?}"),
        }
    }

    fn scan() -> Microscope {
        Microscope { shape: [256, 512], pixel_size_pm: 20.0, ..Microscope::default() }
    }

    fn close(found: [f64; 2], expected: [f64; 2]) {
        assert!((found[0] - expected[0]).hypot(found[1] - expected[1]) < 1e-9, "{found:?}");
    }

    #[test]
    fn a_scan_changes_only_what_the_request_says() {
        let before = scan();
        let after = |args: Value| changed(&before, args).unwrap();
        let moved = after(json!({ "center_nm": [3.5, -2] }));
        assert_eq!(moved, Microscope { center_nm: [3.5, -2.0], ..before.clone() });
        // 512 pixels over 5.12 nm are 10 pm each.
        let zoomed = after(json!({ "fov_nm": 5.12, "rotation_rad": 0.1 }));
        assert_eq!(zoomed.rotation_rad, 0.1);
        close(zoomed.pixel_sizes_pm(), [10.0, 10.0]);
        let both = after(json!({ "fov_nm": [2.56, 5.12], "dwell_us": 1 }));
        assert_eq!(both.dwell_us, 1.0);
        close(both.pixel_sizes_pm(), [10.0, 10.0]);
        let finer = after(json!({ "shape": [512, 1024] }));
        assert_eq!(finer.shape, [512, 1024]);
        close(finer.fov_nm(), [5.12, 10.24]);
        // Half as high: 10 pm by 20 pm, which a new width or shape keeps.
        let flat = after(json!({ "fov_nm": [2.56, 10.24] }));
        close(flat.pixel_sizes_pm(), [10.0, 20.0]);
        close(changed(&flat, json!({ "fov_nm": 20.48 })).unwrap().pixel_sizes_pm(), [20.0, 40.0]);
        let square = changed(&flat, json!({ "shape": [512, 512] })).unwrap();
        close(square.pixel_sizes_pm(), [10.0, 20.0]);
    }

    #[test]
    fn impossible_scans_are_refused_by_name() {
        let key = |args: Value| changed(&scan(), args).unwrap_err().key;
        // Pixels five times as high as wide.
        assert_eq!(key(json!({ "fov_nm": [5, 2] })), "scan.pixel_aspect");
        assert_eq!(key(json!({ "fov_nm": 0 })), "scan.pixel_size_pm");
        assert_eq!(key(json!({ "shape": [1, 512] })), "scan.shape");
        assert_eq!(key(json!({ "center_nm": [1e300, 0] })), "scan.center_nm");
        assert_eq!(key(json!({ "subscan_rotation_rad": 0.1 })), "subscan_fractional_size");
        assert_eq!(key(json!({ "subscan_fractional_size": [2, 1] })), "scan.sub_scan.fractional_size");
        for (cmd, args) in [
            ("set_scan", json!({ "centre_nm": [0, 0] })),
            ("set_scan", json!({ "center_nm": "left" })),
            ("go_to", json!({})),
            ("go_to", json!({ "px": { "row": 1, "col": 2 }, "nm": { "x": 1, "y": 2 } })),
            ("go_to", json!({ "nm": { "x": null, "y": 2 } })),
            ("go_to", json!({ "px": { "row": 1, "col": 2 }, "center_nm": [0, 0] })),
            ("go_to", json!({ "px": { "row": 1, "col": 2 }, "seq": -1 })),
        ] {
            assert_eq!(parse(cmd, args.clone()).unwrap_err().code, ErrorCode::BadArgs, "{cmd} {args}");
        }
        let unknown = parse("dance", json!({})).unwrap_err();
        assert_eq!(unknown.code, ErrorCode::UnknownCommand);
        assert!(unknown.message.contains("set_scan"), "{}", unknown.message);
    }

    #[test]
    fn a_sub_scan_begins_changes_and_ends() {
        let size =
            json!({ "subscan_fractional_size": [0.5, 0.25], "subscan_fractional_center": [0.25, 0.5] });
        let begun = changed(&scan(), size).unwrap();
        // 1.28 nm above the middle: a quarter of 5.12 nm.
        let frame = begun.scanned();
        assert_eq!((frame.shape, frame.pixel_size_pm), ([128, 128], 20.0));
        close(frame.center_nm, [-1.28, 0.0]);
        let turned = changed(&begun, json!({ "subscan_rotation_rad": 0.3, "rotation_rad": 0.1 })).unwrap();
        assert!((turned.scanned().rotation_rad - 0.4).abs() < 1e-12);
        let finer = changed(&turned, json!({ "subscan_shape": [256, 256] })).unwrap();
        close(finer.scanned().pixel_sizes_pm(), [10.0, 10.0]);
        assert_eq!(changed(&finer, json!({ "subscan_shape": null })).unwrap(), turned);
        let ended = changed(&finer, json!({ "subscan_fractional_size": null })).unwrap();
        assert_eq!(ended, Microscope { rotation_rad: 0.1, ..scan() });
    }

    #[test]
    fn a_place_is_the_same_in_all_three_coordinate_systems() {
        let scan = Microscope {
            shape: [100, 200],
            pixel_size_pm: 20.0,
            rotation_rad: 0.7,
            center_nm: [3.0, 4.0],
            ..Microscope::default()
        };
        let expected = scan.pixel_to_specimen_nm(10.0, 150.0);
        let [y, x] = [expected[0] - 3.0, expected[1] - 4.0];
        for args in [
            json!({ "px": { "row": 10, "col": 150 } }),
            json!({ "frac": { "y": 0.105, "x": 0.7525 } }),
            json!({ "nm": { "x": x, "y": y, "rotation_rad": 0.7 } }),
        ] {
            let ScanRequest::GoTo(target, _) = parse("go_to", args.clone()).unwrap() else { panic!() };
            let found = target.position_nm(&scan);
            assert!((found[0] - expected[0]).abs() < 1e-9 && (found[1] - expected[1]).abs() < 1e-9, "{args}");
        }
    }
}
