//! The fit of all columns at the pace of live frames.
//!
//! What the columns have in common is fitted first, from where they were found, and costs little; then few rounds are enough. The
//! tail is taken as it usually is: at live doses a wrong one costs less than noise does.

use super::shape::Shared;
use super::{Fitting, JointFit, Kind, Noise, Pace};
use crate::columns::lattice::lattice_of;
use crate::columns::{ColumnSettings, FoundColumns, GaussianFit};
use crate::frame::Column;
use ndarray::Array2;
use rayon::prelude::*;

/// Part of the height that is tail.
const USUAL_TAIL: f64 = 0.12;
/// Steps of what the columns share before the first round; each round has one more.
const FIRST_STEPS: usize = 6;
const ROUNDS: usize = 3;

/// Replaces column positions by those of a fit of all columns of the frame together, in parallel.
///
/// A column keeps its position where the fit finds nothing, or moves it by `settings.max_shift_px` or more; all do where the columns
/// are no lattice, or with `settings.refine` off.
///
/// # Shapes
/// `pixels` `[row, col]` of the frame; non-finite pixels are left out. The result has one entry a column, `None` where it kept its
/// position.
pub fn refine_columns(
    pixels: &Array2<f32>,
    columns: &mut [Column],
    settings: &ColumnSettings,
) -> Vec<Option<GaussianFit>> {
    let Some(lattice) = settings.refine.then(|| lattice_of(columns)).flatten() else {
        return vec![None; columns.len()];
    };
    let found = FoundColumns::around(columns.to_vec(), pixels.dim(), &lattice);
    let fit = fit_live(pixels, &found, [lattice.a_px, lattice.b_px], lattice.cell_px());
    columns
        .par_iter_mut()
        .zip(fit.fits)
        .map(|(column, fit)| {
            let fit =
                fit.filter(|fit| (fit.row - column.row).hypot(fit.col - column.col) < settings.max_shift_px)?;
            column.row = fit.row;
            column.col = fit.col;
            Some(fit)
        })
        .collect()
}

fn fit_live(pixels: &Array2<f32>, found: &FoundColumns, edges: [[f64; 2]; 2], cell_px: f64) -> JointFit {
    let mut fit = Fitting::at(pixels, found, cell_px, Pace::Live, USUAL_TAIL);
    fit.model.noise = Noise::between_neighbours(pixels);
    // Any height will do: the first step is exact in the heights.
    let height = fit.model.noise.floor.sqrt();
    fit.model.spots.iter_mut().for_each(|spot| spot.amplitude = height);
    fit.model.add_oxygen(edges, cell_px);
    fit.shape_step(Shared::Heights);
    for _ in 0..FIRST_STEPS {
        fit.shape_step(Shared::All);
    }
    fit.draw();
    for _ in 0..ROUNDS {
        fit.model.noise = fit.noise_left();
        fit.step(Kind::A);
        fit.draw();
        fit.step(Kind::B);
        fit.shape_step(Shared::All);
        fit.draw();
    }
    fit.finish(ROUNDS, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Sublattice;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Poisson};

    const CELL_PX: f64 = 26.0;
    const SIGMA_PX: f64 = 5.0;

    /// A frame of 260 px with 300 counts at A, and its columns: B, as high as `b` of A, is displaced by 2 px.
    fn frame(b: f64, rng: &mut ChaCha8Rng) -> (Array2<f32>, Vec<Column>) {
        let mut mean = Array2::from_elem((260, 260), 30.0_f64);
        let mut columns = Vec::new();
        for (i, j) in (-1..11).flat_map(|i| (-1..11).map(move |j| (f64::from(i), f64::from(j)))) {
            let a = [(i + 0.3) * CELL_PX, (j + 0.4) * CELL_PX, 300.0];
            let b = [a[0] + 0.5 * CELL_PX + 2.0, a[1] + 0.5 * CELL_PX, 300.0 * b];
            for ([row, col, height], sublattice) in [(a, Sublattice::A), (b, Sublattice::B)] {
                for ((r, c), mean) in mean.indexed_iter_mut() {
                    let square = (r as f64 - row).powi(2) + (c as f64 - col).powi(2);
                    *mean += height * (-0.5 * square / SIGMA_PX.powi(2)).exp();
                }
                if [row, col].iter().all(|x| (5.0..255.0).contains(x)) {
                    columns.push(Column { row, col, sublattice, confidence: 1.0 });
                }
            }
        }
        (mean.mapv(|mean| Poisson::new(mean).unwrap().sample(rng) as f32), columns)
    }

    #[test]
    fn noise_costs_what_it_must_and_bright_neighbours_do_not_draw() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for b in [0.5, 0.12] {
            let (pixels, truth) = frame(b, &mut rng);
            let mut columns = truth.clone();
            for column in &mut columns {
                column.row += rng.random::<f64>() - 0.5;
                column.col += rng.random::<f64>() - 0.5;
            }
            let fits = refine_columns(&pixels, &mut columns, &ColumnSettings::default());
            assert!(fits.iter().filter(|fit| fit.is_some()).count() * 100 >= 95 * fits.len());
            for (sublattice, height) in [(Sublattice::A, 300.0), (Sublattice::B, 300.0 * b)] {
                let away: Vec<f64> = truth
                    .iter()
                    .zip(&columns)
                    .filter(|(truth, _)| truth.sublattice == sublattice)
                    .filter(|(truth, _)| [truth.row, truth.col].iter().all(|x| (20.0..240.0).contains(x)))
                    .map(|(truth, column)| column.row - truth.row)
                    .collect();
                let n = away.len() as f64;
                let mean = away.iter().sum::<f64>() / n;
                let rms = (away.iter().map(|x| x * x).sum::<f64>() / n).sqrt();
                // These columns have no tail, and the fit has one: that draws them a little.
                // Of a lone column over its background and its neighbours' flanks: sqrt(2 / pi) sqrt(pixel) / height, and a part.
                let least = (2.0 / std::f64::consts::PI).sqrt() * (60.0_f64 + 0.5 * height).sqrt() / height;
                assert!(rms < 1.6 * least, "{sublattice:?} at {b}: {rms} px, {least} px at best");
                assert!(mean.abs() < 0.1 + 0.5 * least, "{sublattice:?} at {b}: drawn by {mean} px");
            }
        }
    }

    #[test]
    fn what_is_no_lattice_keeps_its_places() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let (mut pixels, truth) = frame(0.5, &mut rng);
        let off = ColumnSettings { refine: false, ..ColumnSettings::default() };
        let mut few = truth[..3].to_vec();
        let mut all = truth.clone();
        assert_eq!(refine_columns(&pixels, &mut few, &ColumnSettings::default()), vec![None; 3]);
        assert_eq!(refine_columns(&pixels, &mut all, &off), vec![None; truth.len()]);
        assert_eq!((few.as_slice(), all.as_slice()), (&truth[..3], truth.as_slice()));
        assert_eq!(refine_columns(&pixels, &mut [], &ColumnSettings::default()), Vec::new());
        pixels.fill(f32::NAN);
        assert_eq!(refine_columns(&pixels, &mut all, &ColumnSettings::default()), vec![None; truth.len()]);
    }
}
