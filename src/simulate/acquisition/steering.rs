//! Where a candidate says that a site is, the scan finds it: the coordinates of `flags::geometry` against the simulator's own truth,
//! without a socket.

use super::state::Shared;
use super::{Beam, Scanned, ServerSettings};
use crate::flags::geometry::locate;
use crate::frame::Frame;
use crate::ingest::SourceSettings;
use crate::ingest::validate::validate;
use crate::publish::Answer;
use crate::simulate::{Defect, DefectKind, Microscope, Scene, Specimen, SubScan};
use ferrostem_proto::{Calibration, CalibrationSource, FrameMessage, PixelPosition};
use serde_json::json;
use std::f64::consts::{FRAC_PI_2, PI};

/// A foreign A column, 3 cells down and 2 left of the origin.
const SITE_NM: [f64; 2] = [1.17, -0.78];

fn scene(microscope: Microscope) -> Scene {
    let defect =
        Defect { kind: DefectKind::SubstitutionA, at_nm: SITE_NM, intensity_ratio: 4.0, radius_nm: 0.0 };
    Scene {
        specimen: Specimen { defects: vec![defect], ..Specimen::default() },
        microscope: Microscope { shot_noise: false, center_nm: [0.9, -0.6], dwell_us: 1.0, ..microscope },
        server: ServerSettings { acquisition: "test".to_owned(), ..ServerSettings::default() },
    }
}

/// The scan settings that are worked through.
fn cases() -> Vec<Microscope> {
    let full = Microscope { shape: [120, 160], pixel_size_pm: 15.0, ..Microscope::default() };
    let turned = |rotation_rad: f64| Microscope { rotation_rad, ..full.clone() };
    let part = |rotation_rad: f64, shape| SubScan {
        fractional_size: [0.8, 0.7],
        fractional_center: [0.55, 0.45],
        rotation_rad,
        shape,
    };
    let mut cases: Vec<Microscope> = [0.0, 0.4, FRAC_PI_2, PI, -2.2].into_iter().map(turned).collect();
    cases.push(Microscope { pixel_aspect: 1.5, ..full.clone() });
    cases.push(Microscope { pixel_aspect: 0.7, rotation_rad: -0.6, ..full.clone() });
    cases.push(Microscope { sub_scan: Some(part(0.0, None)), ..full.clone() });
    cases.push(Microscope { sub_scan: Some(part(0.5, None)), ..turned(0.3) });
    cases.push(Microscope { sub_scan: Some(part(-0.9, Some([90, 150]))), pixel_aspect: 1.3, ..turned(0.8) });
    cases
}

/// As ingest hands it on, with its pixel size.
fn received(scanned: &Scanned, seq: u64) -> (Frame, Calibration) {
    let message = FrameMessage { seq, ..scanned.message.clone() };
    let pixel_size_pm = message.pixel_size_pm.unwrap();
    let frame = validate(message, &SourceSettings::default(), "test", 0).unwrap();
    (frame, Calibration { pixel_size_pm, source: CalibrationSource::Frame })
}

#[test]
fn a_candidate_says_where_the_simulator_does() {
    for (n, microscope) in cases().into_iter().enumerate() {
        let scene = scene(microscope);
        let scanned = Beam::new(&scene).scan(&scene.microscope).unwrap();
        let (frame, calibration) = received(&scanned, 0);
        for (row, col) in [(0.0, 0.0), (17.25, 71.5), (80.0, 3.0)] {
            let (_, nm) = locate(PixelPosition { row, col }, &frame, &calibration);
            let [y, x] = scene.microscope.pixel_to_specimen_nm(row, col);
            let [y0, x0] = frame.scan.center_nm;
            assert!((y0 + nm.y - y).abs() < 1e-9 && (x0 + nm.x - x).abs() < 1e-9, "case {n}");
        }
        let truth =
            scanned.frame.truth.defects.iter().find(|defect| defect.kind == DefectKind::SubstitutionA);
        let truth = truth.expect("it is in the frame");
        let (_, nm) = locate(PixelPosition { row: truth.row, col: truth.col }, &frame, &calibration);
        let place = [frame.scan.center_nm[0] + nm.y, frame.scan.center_nm[1] + nm.x];
        let off_nm = (place[0] - SITE_NM[0]).hypot(place[1] - SITE_NM[1]);
        assert!(off_nm < 1e-6, "case {n}: {off_nm} nm from the planted column");
    }
}

#[test]
fn going_where_a_candidate_says_brings_the_site_into_the_middle() {
    for (n, microscope) in cases().into_iter().enumerate() {
        let scene = scene(microscope);
        let mut beam = Beam::new(&scene);
        let shared = Shared::new(scene.microscope.clone(), &scene.server);
        let acquisition = shared.wait_for_acquisition().unwrap();
        let first = shared.next_frame(acquisition).unwrap();
        let scanned = beam.scan(&first.scan).unwrap();
        let truth = scanned.frame.truth.defects.first().expect("it is in the frame");
        let px = PixelPosition { row: truth.row, col: truth.col };
        let (frame, calibration) = received(&scanned, first.seq);
        let (frac, nm) = locate(px, &frame, &calibration);
        // From anywhere, also when the scan has been turned and zoomed since: the place is one of the frame `seq`.
        for change in [json!({}), json!({ "rotation_rad": 1.3 }), json!({ "fov_nm": 2.0 })] {
            for place in [json!({ "px": px }), json!({ "frac": frac }), json!({ "nm": nm })] {
                let mut args = place.clone();
                args["seq"] = json!(first.seq);
                for (key, value) in change.as_object().unwrap() {
                    args[key] = value.clone();
                }
                let request = json!({ "cmd": "go_to", "args": args }).to_string();
                shared.answer(request.as_bytes()).outcome.unwrap();
                let next = shared.next_frame(acquisition).unwrap();
                let scanned = beam.scan(&next.scan).unwrap();
                let there = scanned.frame.truth.defects.first().expect("it is in the frame");
                let [rows, cols] = next.scan.scanned().shape.map(|count| count as f64);
                let off = (there.row - 0.5 * (rows - 1.0)).hypot(there.col - 0.5 * (cols - 1.0));
                assert!(off < 1e-6, "case {n}, {change}, {place}: {off} px from the middle");
            }
        }
    }
}
