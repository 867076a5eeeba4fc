//! What a controller may ask of the simulated scan: one JSON request, one JSON reply, shaped as on the daemon's control lane.

use crate::config::InvalidSetting;
use crate::simulate::microscope::Microscope;
use serde::Deserialize;
use serde_json::{Value, json};

/// `{"id": …, "cmd": …}`, with the arguments of `set_scan` beside them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub(super) enum ScanRequest {
    /// Changes the scan from the next frame on.
    SetScan(ScanChange),
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
pub(super) struct ScanChange {
    /// Centre of the field of view in the specimen frame, `[y, x]`.
    center_nm: Option<[f64; 2]>,
    fov_nm: Option<FieldOfView>,
    rotation_rad: Option<f64>,
    dwell_us: Option<f64>,
    /// `[rows, cols]`.
    shape: Option<[usize; 2]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
enum FieldOfView {
    Width(f64),
    HeightWidth([f64; 2]),
}

/// A request that was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("expected a JSON request with a `cmd` of set_scan, start, stop, single or status: {0}")]
    BadRequest(#[from] serde_json::Error),
    #[error(transparent)]
    BadArgs(#[from] InvalidSetting),
    #[error("an acquisition is running: stop it first")]
    Running,
}

impl Refusal {
    /// The code for programs, one of those of the daemon's control lane.
    fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::BadArgs(_) => "bad_args",
            Self::Running => "unavailable",
        }
    }
}

impl ScanChange {
    /// `microscope` with the changes made.
    ///
    /// # Errors
    /// [`InvalidSetting`] when the scan would be impossible; pixels are square.
    pub fn applied_to(&self, microscope: &Microscope) -> Result<Microscope, InvalidSetting> {
        let mut changed = microscope.clone();
        // A new shape alone keeps the width of the field of view.
        let width_nm = microscope.fov_nm()[1];
        if let Some(shape) = self.shape {
            changed.shape = shape;
        }
        let [rows, cols] = changed.shape.map(|n| n as f64);
        let width_nm = match self.fov_nm {
            None => width_nm,
            Some(FieldOfView::Width(width_nm)) => width_nm,
            Some(FieldOfView::HeightWidth([height_nm, width_nm])) => {
                let [high, wide] = [height_nm / rows, width_nm / cols];
                let square = (high / wide - 1.0).abs() < 0.01;
                if !square {
                    let value = format!("[{height_nm}, {width_nm}]");
                    return Err(InvalidSetting::new(
                        "fov_nm",
                        value,
                        "the aspect of the frame: pixels are square",
                    ));
                }
                width_nm
            }
        };
        if self.fov_nm.is_some() || self.shape.is_some() {
            changed.pixel_size_pm = 1e3 * width_nm / cols;
        }
        changed.center_nm = self.center_nm.unwrap_or(changed.center_nm);
        changed.rotation_rad = self.rotation_rad.unwrap_or(changed.rotation_rad);
        changed.dwell_us = self.dwell_us.unwrap_or(changed.dwell_us);
        changed.validate("scan")?;
        Ok(changed)
    }
}

/// Parses a request; its `id`, any JSON value, comes back with the reply.
pub(super) fn parse(bytes: &[u8]) -> (Value, Result<ScanRequest, Refusal>) {
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => return (Value::Null, Err(error.into())),
    };
    let id = value.get("id").cloned().unwrap_or(Value::Null);
    (id, serde_json::from_value(value).map_err(Refusal::from))
}

/// The reply's bytes.
pub(super) fn reply(id: &Value, outcome: Result<Value, Refusal>) -> Vec<u8> {
    let reply = match outcome {
        Ok(result) => json!({ "id": id, "ok": true, "result": result }),
        Err(refusal) => {
            let error = json!({ "code": refusal.code(), "message": refusal.to_string() });
            json!({ "id": id, "ok": false, "error": error })
        }
    };
    reply.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str) -> ScanChange {
        match parse(text.as_bytes()).1.unwrap() {
            ScanRequest::SetScan(change) => change,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_scan_changes_only_what_the_request_says() {
        let scan = Microscope { shape: [256, 512], pixel_size_pm: 20.0, ..Microscope::default() };
        let moved = change(r#"{"cmd":"set_scan","center_nm":[3.5,-2]}"#).applied_to(&scan).unwrap();
        assert_eq!(moved, Microscope { center_nm: [3.5, -2.0], ..scan.clone() });
        // 512 pixels over 5.12 nm are 10 pm each.
        let zoomed =
            change(r#"{"cmd":"set_scan","fov_nm":5.12,"rotation_rad":0.1}"#).applied_to(&scan).unwrap();
        assert!((zoomed.pixel_size_pm - 10.0).abs() < 1e-12 && zoomed.rotation_rad == 0.1);
        let both =
            change(r#"{"cmd":"set_scan","fov_nm":[2.56,5.12],"dwell_us":1}"#).applied_to(&scan).unwrap();
        assert!((both.pixel_size_pm - 10.0).abs() < 1e-12 && both.dwell_us == 1.0);
        let finer = change(r#"{"cmd":"set_scan","shape":[512,1024]}"#).applied_to(&scan).unwrap();
        assert!((finer.fov_nm()[1] - 10.24).abs() < 1e-9 && finer.shape == [512, 1024]);
    }

    #[test]
    fn impossible_scans_are_refused_by_name() {
        let scan = Microscope::default();
        let key = |text: &str| change(text).applied_to(&scan).unwrap_err().key;
        assert_eq!(key(r#"{"cmd":"set_scan","fov_nm":[1,2]}"#), "fov_nm");
        assert_eq!(key(r#"{"cmd":"set_scan","fov_nm":0}"#), "scan.pixel_size_pm");
        assert_eq!(key(r#"{"cmd":"set_scan","shape":[1,512]}"#), "scan.shape");
        assert_eq!(key(r#"{"cmd":"set_scan","center_nm":[1e300,0]}"#), "scan.center_nm");
    }

    #[test]
    fn what_is_no_request_gets_a_reply_with_its_id() {
        for (text, id) in [(r#"{"id":5,"cmd":"dance"}"#, json!(5)), ("{", Value::Null), ("[1]", Value::Null)]
        {
            let (found, request) = parse(text.as_bytes());
            assert_eq!(found, id);
            let answer: Value = serde_json::from_slice(&reply(&found, request.map(|_| Value::Null))).unwrap();
            assert_eq!(answer["ok"], false);
            assert_eq!(answer["error"]["code"], "bad_request");
        }
    }
}
