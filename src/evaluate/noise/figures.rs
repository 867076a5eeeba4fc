//! The matrices of noise and window as pictures.

use super::{Study, in_papers_unit, range_in_papers_unit};
use crate::evaluate::EvaluateError;
use crate::evaluate::drawing::{HeatMap, ImageRow, grey, write_heat_maps, write_montage};
use crate::evaluate::stacks::Centring;
use crate::evaluate::windows::random;
use crate::train::add_gaussian_noise;
use ndarray::{Array2, s};
use std::path::{Path, PathBuf};

/// Side of the example windows, where there is none of this size the largest: the papers' 80 px.
const EXAMPLE_PX: usize = 80;
/// How far from a cell's centre the papers' windows that are not centred may lie; the example's does, px.
const OFF_CENTRE_PX: f64 = 13.0;

impl Study {
    /// Writes `noise.png` (figure 7: trained without noise, judged under it), `noise_in_training.png` (figure S1: trained with noise,
    /// judged without) and `noise_windows.png` (windows under each noise).
    ///
    /// # Errors
    /// When a picture cannot be drawn or written.
    pub fn draw(&self, dir: &Path) -> Result<Vec<PathBuf>, EvaluateError> {
        let judged: Vec<String> = self.settings.judged().map(in_papers_unit).collect();
        let trained: Vec<String> = self.settings.trained().map(range_in_papers_unit).collect();
        let mut written = vec![
            self.heat_maps(dir, "noise", ("noise (10⁻⁴)", &judged), Self::under_noise)?,
            self.heat_maps(
                dir,
                "noise_in_training",
                ("trained with noise (10⁻⁴)", &trained),
                |study, centring| study.with_noise_in_training(centring),
            )?,
        ];
        let side = EXAMPLE_PX.min(self.pixels.nrows()).min(self.pixels.ncols());
        let rows = Centring::ALL.map(|centring| self.examples(centring, side));
        written.push(write_montage(dir, "noise_windows", &rows, grey)?);
        Ok(written)
    }

    fn heat_maps(
        &self,
        dir: &Path,
        name: &str,
        (columns, column_names): (&str, &[String]),
        values: impl Fn(&Self, Centring) -> Vec<Vec<f64>>,
    ) -> Result<PathBuf, EvaluateError> {
        let row_names: Vec<String> =
            self.settings.windows_px.iter().map(|window| format!("{window} px")).collect();
        let titles = Centring::ALL.map(|centring| format!("{}: RMS error of P (pm)", centring.name()));
        let values = Centring::ALL.map(|centring| values(self, centring));
        let maps: Vec<HeatMap> = titles
            .iter()
            .zip(&values)
            .map(|(title, values)| HeatMap {
                title,
                axes: ["window", columns],
                row_names: &row_names,
                column_names,
                values,
            })
            .collect();
        Ok(write_heat_maps(dir, name, &maps)?)
    }

    /// The example window of a stack under each noise.
    fn examples(&self, centring: Centring, side: usize) -> ImageRow {
        let off = if centring == Centring::Centred { 0.0 } else { OFF_CENTRE_PX };
        let sizes = [self.pixels.nrows(), self.pixels.ncols()];
        let [top, left] = [0, 1].map(|axis| {
            let first = self.example[axis] + off - 0.5 * (side as f64 - 1.0);
            (first.round().max(0.0) as usize).min(sizes[axis] - side)
        });
        let window = |variance: f64| -> Array2<f32> {
            let mut pixels = self.pixels.clone();
            if variance > 0.0 {
                add_gaussian_noise(&mut pixels, variance, &mut random(self.settings.stacks.seed, 0));
            }
            pixels.slice(s![top..top + side, left..left + side]).to_owned()
        };
        let images = self.settings.judged().map(|variance| (in_papers_unit(variance), window(variance)));
        ImageRow { name: centring.name().to_owned(), images: images.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::invented;

    #[test]
    fn the_figures_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let written = invented().draw(folder.path()).unwrap();
        assert_eq!(written.len(), 3);
        for path in written {
            let pixels = tiny_skia::Pixmap::load_png(&path).unwrap();
            let first = pixels.pixels()[0];
            assert!(pixels.pixels().iter().any(|pixel| *pixel != first), "{} is empty", path.display());
        }
    }
}
