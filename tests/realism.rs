//! The shipped scenes beside the real images that their numbers come from: FERROSTEM_DATA names the folder.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test or a bench that cannot go on says so"
)]

use ferrostem::session::{OpenOptions, open};
use ferrostem::simulate::realism::{Comparison, measure};
use ferrostem::simulate::{Beam, Scene};
use ndarray::Array2;
use std::path::Path;

/// The image, simulated by the scene with its shape and pixel size, beside the image; `None` without the folder.
fn beside(scene: &str, image: &str, pixel_size_pm: f64) -> Option<Comparison> {
    let Ok(folder) = std::env::var("FERROSTEM_DATA") else {
        eprintln!("skipped: FERROSTEM_DATA names no folder with {image}");
        return None;
    };
    let data = open(&Path::new(&folder).join(image), &OpenOptions::default())
        .unwrap()
        .frame(0)
        .unwrap()
        .message
        .data;
    let [rows, cols] = data.shape();
    let real = Array2::from_shape_vec((rows, cols), data.to_f32()).unwrap();
    let mut scene = Scene::built_in(scene).unwrap();
    scene.microscope.shape = [rows, cols];
    scene.microscope.pixel_size_pm = pixel_size_pm;
    let simulated = Beam::new(&scene).scan(&scene.microscope).unwrap().frame.pixels;
    Some(Comparison {
        image: image.to_owned(),
        real: measure(&real, pixel_size_pm).unwrap(),
        simulated: measure(&simulated, pixel_size_pm).unwrap(),
    })
}

/// What a real image of this kind must keep to, whatever the scene's details.
fn assert_alike(comparison: &Comparison) {
    let table = comparison.to_markdown();
    eprintln!("{table}");
    // Quantity, and how far the simulated one may be from the real one.
    let factors = [
        ("cell_a", 1.01),
        ("cell_b", 1.01),
        ("peak_to_background", 1.25),
        ("b_height", 1.25),
        ("a_fwhm", 1.15),
        ("b_fwhm", 1.15),
        ("a_height_scatter", 2.0),
        ("b_height_scatter", 2.0),
        ("a_height_variation", 2.5),
        ("p_scatter", 2.0),
        ("noise", 1.5),
    ];
    for (key, factor) in factors {
        let quantity = comparison.quantities().into_iter().find(|q| q.key == key).unwrap();
        let ratio = quantity.simulated / quantity.real;
        assert!((1.0 / factor..factor).contains(&ratio), "{key} is off by {ratio}\n{table}");
    }
    let [a, b] = comparison.profile_differences();
    assert!(a < 0.04 && b < 0.05, "profiles {a} {b}\n{table}");
}

#[test]
fn a_quick_scan_of_strontium_titanate() {
    let Some(comparison) = beside("srtio3-scan", "sto_titan.npy", 10.013) else { return };
    assert_alike(&comparison);
    let [real, simulated] = [&comparison.real, &comparison.simulated];
    assert!((simulated.jitter_pm / real.jitter_pm - 1.0).abs() < 0.25, "{}", simulated.jitter_pm);
    assert!(comparison.spectrum_differences()[1] < 0.25, "{:?}", comparison.spectrum_differences());
}

#[test]
fn an_average_of_strontium_titanate() {
    let Some(comparison) = beside("srtio3-averaged", "pynsid_STO_test_image.hf5", 14.559) else { return };
    assert_alike(&comparison);
    let [real, simulated] = [&comparison.real, &comparison.simulated];
    assert!((simulated.noise_correlation - real.noise_correlation).abs() < 0.15);
    assert!(comparison.spectrum_differences()[1] < 0.25, "{:?}", comparison.spectrum_differences());
}

#[test]
fn a_filtered_image_of_barium_titanate() {
    let Some(comparison) = beside("batio3", "bto_1.npy", 29.66) else { return };
    assert_alike(&comparison);
}
