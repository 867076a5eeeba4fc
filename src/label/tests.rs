use super::*;
use crate::simulate::{
    Background, Columns, Microscope, Polarization, SimulatedFrame, Specimen, TruthCell, render,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const PIXEL_PM: f64 = 15.0;

fn specimen(tail_fraction: f64) -> Specimen {
    Specimen {
        rotation_rad: 0.12,
        columns: Columns { tail_fraction, ..Columns::default() },
        background: Background { level: 0.1, ..Background::default() },
        polarization: Polarization::Uniform { p_pm: [24.0, -11.0] },
        ..Specimen::default()
    }
}

fn scene(peak_counts: f64, shot_noise: bool) -> Microscope {
    Microscope { shape: [256, 256], peak_counts, shot_noise, ..Microscope::default() }
}

fn frame(specimen: &Specimen, microscope: &Microscope, seed: u64) -> SimulatedFrame {
    render(specimen, microscope, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap()
}

fn label(pixels: &Array2<f32>, settings: &LabelSettings) -> FrameLabels {
    let valid = Array2::from_elem(pixels.dim(), true);
    label_frame(pixels, &valid, [PIXEL_PM; 2], None, settings).unwrap()
}

fn truth_of<'a>(cell: &LabelledCell, frame: &'a SimulatedFrame) -> &'a TruthCell {
    let distance = |t: &&TruthCell| (t.b_row - cell.cell.row).hypot(t.b_col - cell.cell.col);
    frame.truth.cells.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap()
}

/// `[x, y]` errors of P of every cell, pm.
fn errors(labels: &FrameLabels, frame: &SimulatedFrame) -> Vec<[f64; 2]> {
    let error = |cell: &LabelledCell| {
        let truth = truth_of(cell, frame);
        [cell.cell.p_x - truth.p_x, cell.cell.p_y - truth.p_y]
    };
    labels.cells.iter().map(error).collect()
}

#[test]
fn planted_polarization_comes_back_without_noise() {
    for tail_fraction in [0.0, 0.2] {
        let specimen = specimen(tail_fraction);
        let frame = frame(&specimen, &scene(1000.0, false), 1);
        let start = std::time::Instant::now();
        let labels = label(&frame.pixels, &LabelSettings::default());
        let elapsed = start.elapsed();
        let mut misses: Vec<f64> = errors(&labels, &frame).iter().map(|[x, y]| x.hypot(*y)).collect();
        misses.sort_by(f64::total_cmp);
        let (middle, worst) = (misses[misses.len() / 2], misses[misses.len() - 1]);
        eprintln!(
            "tails {tail_fraction}: {} cells, median {middle:.4}, worst {worst:.3} pm; tail {:.3}, converged {}, {elapsed:?}",
            misses.len(),
            labels.tail_fraction,
            labels.converged
        );
        assert!(labels.cells.len() > 50);
        // Every cell, those at the frame's edge too.
        assert!(worst < 0.1, "{middle} {worst}");
    }
}

#[test]
fn noise_costs_what_it_must_and_the_errors_say_so() {
    let specimen = specimen(0.0);
    for peak_counts in [10.0, 30.0, 100.0, 300.0, 1000.0] {
        let microscope = scene(peak_counts, true);
        let (mut square, mut count, mut within) = (0.0, 0, 0);
        for seed in 0..4 {
            let frame = frame(&specimen, &microscope, seed);
            let labels = label(&frame.pixels, &LabelSettings::default());
            assert!(labels.cells.len() >= 55, "{} cells at {peak_counts}", labels.cells.len());
            for (error, cell) in errors(&labels, &frame).iter().zip(&labels.cells) {
                square += error[0].powi(2) + error[1].powi(2);
                count += 2;
                within += usize::from(error[0].abs() < cell.p_x_error);
                within += usize::from(error[1].abs() < cell.p_y_error);
            }
        }
        let rms = (square / f64::from(count)).sqrt();
        let bound = bound(&FrameScene::new(&specimen, &microscope), PIXEL_PM).unwrap().p;
        let share = within as f64 / f64::from(count);
        eprintln!(
            "{peak_counts} counts: {rms:.2} pm, bound {bound:.2} pm, {share:.3} within one error of {count}"
        );
        assert!(rms < 1.15 * bound, "{peak_counts}: {rms} {bound}");
        assert!((0.60..0.76).contains(&share), "{share}");
    }
}
