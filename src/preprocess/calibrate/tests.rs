use super::spectrum::fast_length;
use super::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson};
use std::f64::consts::PI;

struct Crystal {
    cell_px: f64,
    rotation_rad: f64,
    /// Integrated intensity of the B column over the A column's.
    b_over_a: f64,
    peak_counts: f64,
}

/// A and B columns as Gaussians of 0.16 cells on a square lattice, with Poisson noise.
fn frame(size: usize, crystal: &Crystal, seed: u64) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (sin, cos) = crystal.rotation_rad.sin_cos();
    let wells = |u: f64, v: f64| {
        let (du, dv) = (u - u.round(), v - v.round());
        (-(du * du + dv * dv) / (2.0 * 0.16 * 0.16)).exp()
    };
    Array2::from_shape_fn((size, size), |(row, col)| {
        let (y, x) = (row as f64 / crystal.cell_px, col as f64 / crystal.cell_px);
        let (u, v) = (cos * x + sin * y + 0.3, cos * y - sin * x + 0.1);
        let mean = 0.1 + wells(u, v) + crystal.b_over_a * wells(u + 0.5, v + 0.5);
        Poisson::new(crystal.peak_counts * mean).unwrap().sample(&mut rng) as f32
    })
}

fn all_valid(pixels: &Array2<f32>) -> Array2<bool> {
    Array2::from_elem(pixels.dim(), true)
}

#[test]
fn finds_generated_lattices() {
    for (index, (cell_px, degrees, b_over_a, peak_counts)) in [
        (13.4, 0.0, 0.2, 1000.0),
        (26.6, 7.0, 0.4, 100.0),
        (26.6, 44.0, 0.6, 100.0),
        (39.3, 20.0, 0.4, 30.0),
        (26.0, -31.0, 0.2, 3.0),
        (8.3, 12.0, 0.4, 20.0),
    ]
    .into_iter()
    .enumerate()
    {
        let rotation_rad = f64::to_radians(degrees);
        let pixels = frame(512, &Crystal { cell_px, rotation_rad, b_over_a, peak_counts }, index as u64);
        let found = estimate_lattice(&pixels, &all_valid(&pixels)).unwrap();
        assert!((found.cell_px() / cell_px - 1.0).abs() < 0.005, "{cell_px} at {degrees}: {found:?}");
        assert!((found.angle_rad - PI / 2.0).abs() < 0.01, "{found:?}");
        // a is the vector nearer to x: turned by the rotation itself where that is within 45 degrees.
        let turned = found.a_px[0].atan2(found.a_px[1]);
        assert!((turned - rotation_rad).abs() < 0.01, "{cell_px} at {degrees}: {found:?}");
    }
}

#[test]
fn noise_and_stripes_are_no_lattice() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let noise = Array2::from_shape_fn((512, 512), |_| rng.random::<f32>());
    let stripes = noise.clone() + Array2::from_shape_fn((512, 512), |(row, _)| (row as f32 * 0.5).sin());
    for pixels in [noise, stripes, Array2::zeros((256, 256)), Array2::zeros((20, 400))] {
        let found = estimate_lattice(&pixels, &all_valid(&pixels));
        assert!(matches!(found, Err(CalibrationError::NoLattice { .. })), "{found:?}");
    }
}

#[test]
fn masked_borders_and_slopes_do_not_matter() {
    let crystal = Crystal { cell_px: 20.0, rotation_rad: 0.1, b_over_a: 0.3, peak_counts: 50.0 };
    let mut pixels = frame(400, &crystal, 1);
    let mut valid = all_valid(&pixels);
    for ((row, col), pixel) in pixels.indexed_iter_mut() {
        *pixel *= 1.0 + row as f32 / 100.0;
        if col < 60 {
            *pixel = 1e4;
            valid[[row, col]] = false;
        }
    }
    let found = estimate_lattice(&pixels, &valid).unwrap();
    assert!((found.cell_px() / 20.0 - 1.0).abs() < 0.01, "{found:?}");
}

#[test]
fn drift_along_the_slow_axis_leaves_the_pixel_size_alone() {
    let crystal = Crystal { cell_px: 20.0, rotation_rad: 0.4, b_over_a: 0.3, peak_counts: 50.0 };
    let still = frame(640, &crystal, 1);
    // Rows closer by 6 % and sheared by 4 %: nearest neighbours will do on so fine a lattice.
    let drifted = Array2::from_shape_fn((500, 500), |(row, col)| {
        still[[(row as f64 * 1.06) as usize, (col as f64 + 0.04 * row as f64).round() as usize]]
    });
    let found = estimate_lattice(&drifted, &all_valid(&drifted)).unwrap();
    assert!((found.fast_axis_cell_px() / 20.0 - 1.0).abs() < 0.005, "{found:?}");
    assert!((found.cell_px() / 20.0 - 1.0).abs() > 0.02);
}

#[test]
fn lengths_the_transform_likes() {
    assert_eq!([1024, 413, 469, 7, 1].map(fast_length), [1024, 405, 450, 6, 1]);
}

#[test]
fn the_frame_speaks_first_then_the_config_then_the_crystal() {
    let crystal = Crystal { cell_px: 20.0, rotation_rad: 0.0, b_over_a: 0.3, peak_counts: 50.0 };
    let pixels = frame(256, &crystal, 1);
    let valid = all_valid(&pixels);
    let hints = CalibrationHints { config_pixel_size_pm: Some([15.0, 16.0]), lattice_a_pm: Some(400.0) };
    let from_frame = calibrate(Some([10.0, 11.0]), &hints, &pixels, &valid).unwrap();
    assert_eq!((from_frame.pixel_size_pm, from_frame.source), ([10.0, 11.0], CalibrationSource::Frame));
    let from_config = calibrate(None, &hints, &pixels, &valid).unwrap();
    assert_eq!((from_config.pixel_size_pm, from_config.source), ([15.0, 16.0], CalibrationSource::Config));
    let hints = CalibrationHints { config_pixel_size_pm: None, ..hints };
    let from_lattice = calibrate(None, &hints, &pixels, &valid).unwrap();
    assert_eq!(from_lattice.source, CalibrationSource::Lattice);
    assert!((from_lattice.pixel_size_pm[0] - 20.0).abs() < 0.1);
    assert_eq!(
        calibrate(None, &CalibrationHints::default(), &pixels, &valid),
        Err(CalibrationError::NoLatticeParameter)
    );
    assert!(matches!(
        calibrate(Some([0.0, 1.0]), &hints, &pixels, &valid),
        Err(CalibrationError::InvalidPixelSize { origin: "frame", .. })
    ));
    let flat = Array2::zeros(pixels.dim());
    let refused = calibrate(None, &hints, &flat, &all_valid(&flat)).unwrap_err().to_string();
    assert!(
        refused.contains("neither frame nor config") && refused.contains("no square lattice"),
        "{refused}"
    );
}

/// Pixel sizes measured on the real images, whose headers and files say what they should be.
#[test]
fn real_images_within_three_percent() {
    let Some(folder) = std::env::var_os("FERROSTEM_DATA").map(std::path::PathBuf::from) else {
        eprintln!("skipped: FERROSTEM_DATA is not set");
        return;
    };
    let nsid: Array2<f32> = hdf5::File::open(folder.join("pynsid_STO_test_image.hf5"))
        .and_then(|file| file.dataset(NSID_IMAGE))
        .and_then(|dataset| dataset.read_2d::<f32>())
        .unwrap();
    let bto: Array2<f32> = ndarray_npy::read_npy(folder.join("bto_1.npy")).unwrap();
    let titan: Array2<f32> = ndarray_npy::read_npy(folder.join("sto_titan.npy")).unwrap();
    for (name, pixels, lattice_a_pm, pixel_size_pm) in [
        ("BaTiO3", bto, 403.0, 29.66),
        ("SrTiO3, Titan", titan, 390.5, 10.013),
        ("SrTiO3, NSID", nsid, 390.5, 14.559),
    ] {
        let start = std::time::Instant::now();
        let found = estimate_lattice(&pixels, &all_valid(&pixels)).unwrap();
        let elapsed = start.elapsed();
        let measured = lattice_a_pm / found.fast_axis_cell_px();
        eprintln!(
            "{name} {:?}: {measured:.3} pm/px (file: {pixel_size_pm}), {found:?}, {elapsed:?}",
            pixels.dim()
        );
        assert!((measured / pixel_size_pm - 1.0).abs() < 0.03, "{name}: {measured} {found:?}");
    }
}

const NSID_IMAGE: &str = "Measurement_000/Channel_000/STO_test_image/STO_test_image";
