use super::*;
use crate::simulate::{Background, Columns, Microscope, Specimen, Thickness, render};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn specimen() -> Specimen {
    Specimen {
        rotation_rad: 0.12,
        columns: Columns { o: None, ..Columns::default() },
        background: Background { level: 0.5, ..Background::default() },
        ..Specimen::default()
    }
}

fn microscope() -> Microscope {
    Microscope {
        shape: [320, 300],
        pixel_size_pm: 15.0,
        probe_sigma_pm: 0.0,
        shot_noise: false,
        peak_counts: 400.0,
        ..Microscope::default()
    }
}

fn measured(specimen: &Specimen, microscope: &Microscope) -> ImageStatistics {
    let frame = render(specimen, microscope, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    measure(&frame.pixels, microscope.pixel_size_pm).unwrap()
}

#[test]
fn a_perfect_crystal_measures_as_it_was_made() {
    let found = measured(&specimen(), &microscope());
    assert!((found.cell_a_pm - 390.0).abs() < 1.0 && (found.cell_b_pm - 390.0).abs() < 1.0, "{found:?}");
    // 4.8 nm by 4.5 nm hold 12.3 x 11.5 cells, less one at each edge.
    assert!((90..=140).contains(&found.a_columns), "{}", found.a_columns);
    assert!((70..=115).contains(&found.cells), "{}", found.cells);
    // 400 counts over 200, and what two neighbours' tails of exp(-½ (195/70)²) = 2 % each add between them; heights relative.
    let between =
        2.0 * (-0.5 * (195.0f64 / 70.0).powi(2)).exp() + 2.0 * 0.4 * (-0.5 * (195.0f64 / 65.0).powi(2)).exp();
    let ratio = (1.0 + 0.5) / (0.5 + between);
    assert!((found.peak_to_background / ratio - 1.0).abs() < 0.02, "{} {ratio}", found.peak_to_background);
    assert!((found.b_height - (0.4 - between) / (1.0 - between)).abs() < 0.01, "{}", found.b_height);
    // 2.355 · 70 pm = 165 pm, a little less above the raised ground.
    let fwhm = found.a_fwhm_pm.unwrap();
    assert!((150.0..165.0).contains(&fwhm), "{fwhm}");
    assert!(found.a_height_scatter < 2e-3 && found.b_height_scatter < 5e-3, "{found:?}");
    assert!(found.p_scatter_pm < 0.3 && found.p_mean_pm.iter().all(|p| p.abs() < 0.2));
    assert!(found.noise < 2e-3, "{}", found.noise);
    assert!(found.jitter_pm < 0.2 && found.jitter_across_pm < 0.2);
}

#[test]
fn what_is_put_in_is_found() {
    let scattered = Specimen {
        roughness: 0.05,
        static_displacement_pm: 5.0,
        polarization: crate::simulate::Polarization::Uniform { p_pm: [0.0, 20.0] },
        rotation_rad: 0.0,
        ..specimen()
    };
    let found = measured(&scattered, &microscope());
    assert!((0.04..0.06).contains(&found.a_height_scatter), "{}", found.a_height_scatter);
    // B moves by 5 pm, the mean of its four A columns by 2.5 pm; neighbouring cells share two of those.
    assert!((4.0..6.5).contains(&found.p_scatter_pm), "{}", found.p_scatter_pm);
    // In its box, a Gaussian on a level ground takes the slopes of the four neighbours' tails for displacement.
    let [p_x, p_y] = found.p_mean_pm;
    assert!((p_y - 20.0).abs() < 4.0 && p_x.abs() < 2.0, "{p_x} {p_y}");

    let thick =
        Specimen { thickness: Thickness { rms: 0.06, wavelength_nm: 8.0, widening: 0.0 }, ..specimen() };
    let found = measured(&thick, &microscope());
    assert!((0.03..0.09).contains(&found.a_height_variation), "{}", found.a_height_variation);
    assert!(found.a_height_scatter < 0.03, "{}", found.a_height_scatter);

    let shaken = measured(&specimen(), &Microscope { line_jitter_pm: 6.0, ..microscope() });
    // Jitter along y adds a little to that along x.
    assert!((4.8..7.5).contains(&shaken.jitter_pm), "{}", shaken.jitter_pm);
    assert!(shaken.jitter_across_pm < 3.0, "{}", shaken.jitter_across_pm);
}

#[test]
fn noise_is_found_with_its_brightness_and_its_correlation() {
    let noisy = Microscope { shot_noise: true, ..microscope() };
    let found = measured(&specimen(), &noisy);
    // 400 counts of height; between the columns 200 counts of background have a deviation of 14.1, the brightest pixels more.
    assert!((0.034..0.055).contains(&found.noise), "{}", found.noise);
    assert!((1.5..3.0).contains(&found.noise_bright_to_dark), "{}", found.noise_bright_to_dark);
    assert!(found.noise_correlation.abs() < 0.1, "{}", found.noise_correlation);
    let rising = found.noise_levels.windows(2).filter(|pair| pair[1].variance > pair[0].variance).count();
    assert!(rising >= 5, "{:?}", found.noise_levels);
    // Poisson: variance over height is 1 / 400, whatever the level.
    let [dark, bright] = [found.noise_levels[0], found.noise_levels[7]];
    let slope = (bright.variance - dark.variance) / (bright.height - dark.height);
    assert!((slope * 400.0 - 1.0).abs() < 0.35, "{slope}");

    let mut smoothed = noisy;
    smoothed.detector.smoothing_px = 1.0;
    let filtered = measured(&specimen(), &smoothed);
    // White noise smoothed by σ = 1 px has the correlation exp(-1/4) = 0.78 at one pixel.
    assert!((filtered.noise_correlation - 0.78).abs() < 0.08, "{}", filtered.noise_correlation);
    assert!(filtered.noise < 0.5 * found.noise);
}

#[test]
fn images_that_show_no_crystal_are_refused() {
    let flat = Array2::from_elem((100, 100), 1.0);
    assert!(matches!(measure(&flat, 15.0), Err(RealismError::NoLattice(_))));
    let mut holed = flat;
    holed[[3, 4]] = f32::NAN;
    assert!(matches!(measure(&holed, 15.0), Err(RealismError::NotFinite { found: 1 })));
}

#[test]
fn a_comparison_says_ratios_and_differences() {
    let real = measured(&specimen(), &microscope());
    let simulated = measured(&specimen(), &Microscope { shot_noise: true, ..microscope() });
    let same = Comparison { image: "a|b".to_owned(), real: real.clone(), simulated: real.clone() };
    assert_eq!((same.profile_differences(), same.spectrum_differences()), ([0.0; 2], [0.0; 2]));
    assert!(same.quantities().iter().all(|q| q.real.is_finite() && q.real == q.simulated));
    let differ = Comparison { image: "a, \"b\"".to_owned(), real, simulated };
    assert!(differ.spectrum_differences()[1] > 0.5, "noise raises what lies between the reflections");
    let csv = differ.to_csv();
    assert_eq!(csv.lines().count(), 1 + differ.quantities().len());
    assert!(csv.lines().all(|line| line.split(',').count() == 5), "{csv}");
    let markdown = differ.to_markdown();
    assert!(markdown.lines().all(|line| line.starts_with('|') && line.ends_with('|')), "{markdown}");
}
