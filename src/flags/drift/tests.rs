use super::*;
use crate::ingest::SourceSettings;
use crate::ingest::validate::validate;
use crate::simulate::{Beam, Microscope, Scene, Specimen};

/// A crystal as it is: columns of unequal brightness, each a little off its place.
fn scene(drift_nm_a_frame: [f64; 2], microscope: Microscope) -> Scene {
    let mut scene = Scene::built_in("bifeo3").unwrap();
    let frame_s = microscope.frame_s();
    scene.microscope = Microscope { peak_counts: 100.0, center_nm: [40.0, 45.0], ..microscope };
    scene.server.drift_nm_per_s = drift_nm_a_frame.map(|d| d / frame_s);
    scene
}

fn microscope(side: usize) -> Microscope {
    Microscope { shape: [side, side], pixel_size_pm: 15.0, ..Microscope::default() }
}

/// The frames of a scene with the scans `at`, each with what the specimen had drifted.
fn frames(scene: &Scene, at: &[Microscope]) -> Vec<(Frame, [f64; 2])> {
    let mut beam = Beam::new(scene);
    let source = SourceSettings::default();
    let mut end_s = 0.0;
    at.iter()
        .enumerate()
        .map(|(seq, scan)| {
            let scanned = beam.scan(scan).unwrap();
            end_s += scanned.duration_s;
            let message = ferrostem_proto::FrameMessage {
                seq: seq as u64,
                t_end_ns: Some(1_000_000_000 + (end_s * 1e9) as u64),
                ..scanned.message
            };
            (validate(message, &source, "test", 0).unwrap(), scanned.drift_nm)
        })
        .collect()
}

/// The largest error of the drift since the first frame, nm.
fn worst(frames: &[(Frame, [f64; 2])], pixel_size_pm: [f64; 2]) -> f64 {
    let mut motion = Motion::default();
    let (first, start) = (&frames[0].0, frames[0].1);
    // A site is scanned later where it drifts down the frame: for D a frame, of a height H, 1 / (1 - D / H) frames later.
    let (sin, cos) = first.scan.rotation_rad.sin_cos();
    let [y, x] = [0, 1].map(|axis| frames[1].1[axis] - start[axis]);
    let height_nm = first.pixels.nrows() as f64 * pixel_size_pm[0] / 1000.0;
    let later = 1.0 / (1.0 - (y * cos + x * sin) / height_nm);
    let errors = frames.iter().map(|(frame, drift)| {
        let found = motion.follow(&Look { frame, pixel_size_pm, sites_nm: &[] }, 0.5);
        let expected = [0, 1].map(|axis| later * (drift[axis] - start[axis]));
        (found[0] - expected[0]).hypot(found[1] - expected[1])
    });
    errors.fold(0.0, f64::max)
}

#[test]
fn the_drift_of_a_real_crystal_is_followed_across_cells() {
    for (drift, turn) in [([0.02, -0.01], 0.0), ([-0.1, 0.15], 0.7), ([0.05, 0.3], -1.9)] {
        let scan = Microscope { rotation_rad: turn, ..microscope(256) };
        let scene = scene(drift, scan);
        let at = vec![scene.microscope.clone(); 6];
        let error = worst(&frames(&scene, &at), [15.0; 2]);
        // Five frames later and up to 1.5 nm away, which is almost four cells.
        assert!(error < 0.06, "{drift:?}: {error} nm");
    }
}

#[test]
fn pixels_need_not_be_square() {
    let scan = Microscope { pixel_aspect: 1.6, shape: [160, 256], rotation_rad: 0.4, ..microscope(256) };
    let scene = scene([0.12, -0.08], scan);
    let at = vec![scene.microscope.clone(); 5];
    let error = worst(&frames(&scene, &at), [24.0, 15.0]);
    assert!(error < 0.06, "{error} nm");
}

#[test]
fn a_scan_that_moves_a_little_is_compared_and_the_drift_goes_on_across_a_large_move() {
    let scan = Microscope { rotation_rad: 0.3, ..microscope(256) };
    let scene = scene([0.06, 0.04], scan);
    let moved = |y: f64, x: f64| Microscope {
        center_nm: [scene.microscope.center_nm[0] + y, scene.microscope.center_nm[1] + x],
        ..scene.microscope.clone()
    };
    let at = [(0.0, 0.0), (0.0, 0.0), (0.5, -0.4), (9.0, 4.0), (9.0, 4.0), (-3.0, 4.0)];
    let error = worst(&frames(&scene, &at.map(|(y, x)| moved(y, x))), [15.0; 2]);
    assert!(error < 0.08, "{error} nm");
}

#[test]
fn a_perfect_crystal_tells_the_drift_within_half_a_cell_and_continuity_the_rest() {
    let scan = microscope(256);
    let mut scene = scene([0.09, 0.05], scan);
    scene.specimen = Specimen { polarization: scene.specimen.polarization.clone(), ..Specimen::default() };
    let at = vec![scene.microscope.clone(); 8];
    let error = worst(&frames(&scene, &at), [15.0; 2]);
    // After 7 frames it moved by almost two cells.
    assert!(error < 0.08, "{error} nm");
}

#[test]
fn sites_tell_which_cell_it_was() {
    // A perfect crystal that jumps by 0.3 nm at once: of a cell of 0.39 nm, 0.09 nm the other way are as good.
    let mut scene = scene([0.0, 0.3], microscope(256));
    scene.specimen = Specimen::default();
    let at = vec![scene.microscope.clone(); 2];
    let frames = frames(&scene, &at);
    let found = |sites: [Vec<[f64; 2]>; 2]| {
        let mut motion = Motion::default();
        let mut drift = [0.0; 2];
        for ((frame, _), sites_nm) in frames.iter().zip(&sites) {
            drift = motion.follow(&Look { frame, pixel_size_pm: [15.0; 2], sites_nm }, 0.5);
        }
        drift
    };
    let blind = found([Vec::new(), Vec::new()]);
    assert!((blind[1] + 0.09).abs() < 0.03, "{blind:?}");
    let sites = vec![[0.5, 0.2], [-1.0, 0.9], [0.1, -1.2]];
    let after: Vec<[f64; 2]> = sites.iter().map(|[y, x]| [y + 0.05, x + 0.36]).collect();
    let seen = found([sites, after]);
    assert!((seen[1] - 0.3).abs() < 0.03 && seen[0].abs() < 0.03, "{seen:?}");
}

#[test]
fn frames_that_say_nothing_change_nothing() {
    let mut motion = Motion::default();
    for (rows, rotation_rad) in [(64, 0.0), (64, 0.0), (80, 0.0), (80, 0.4)] {
        let mut frame = Frame::blank(rows, 64, rotation_rad);
        frame.pixels.fill(3.0);
        let look = Look { frame: &frame, pixel_size_pm: [15.0; 2], sites_nm: &[] };
        assert_eq!(motion.follow(&look, 0.5), [0.0; 2]);
        assert_eq!(motion.follow(&Look { pixel_size_pm: [f64::NAN; 2], ..look }, 0.5), [0.0; 2]);
    }
    // Noise and noise, and a frame smaller than a bin.
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    use rand::{RngExt, SeedableRng};
    for _ in 0..6 {
        let mut frame = Frame::blank(128, 128, 0.0);
        frame.pixels.mapv_inplace(|_| rng.random::<f32>());
        assert_eq!(
            motion.follow(&Look { frame: &frame, pixel_size_pm: [15.0; 2], sites_nm: &[] }, 0.5),
            [0.0; 2]
        );
    }
    let frame = Frame::blank(2, 2, 0.0);
    for _ in 0..2 {
        assert_eq!(
            motion.follow(&Look { frame: &frame, pixel_size_pm: [1.0; 2], sites_nm: &[] }, 0.5),
            [0.0; 2]
        );
    }
}

#[test]
fn the_taper_overlaps_with_itself_as_it_should() {
    let length = 400;
    let taper: Vec<f64> =
        (0..length).map(|i| (PI * (i as f64 + 0.5) / length as f64).sin().powi(2)).collect();
    let sum = |shift: usize| taper.iter().zip(&taper[shift..]).map(|(a, b)| a * b).sum::<f64>();
    for shift in [0, 40, 120, 300] {
        let expected = sum(shift) / sum(0);
        assert!((taper_overlap(shift as f64, length) - expected).abs() < 1e-3, "{shift}");
    }
}
