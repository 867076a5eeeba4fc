//! Images in two parts, as Nelson et al. take theirs: a network learns from one and is judged on the other.

use super::TrainError;
use super::labelled::Labelled;
use super::samples::{KnownCell, Sample};
use crate::simulate::SimulatedFrame;
use std::path::Path;

impl Labelled {
    /// A simulated frame at the model's scale with its truth, all of it to learn from; `description` says what it shows.
    pub fn simulated(frame: SimulatedFrame, description: String) -> Self {
        let cells = frame.truth.cells.iter();
        let cells = cells.map(|cell| KnownCell { cell: cell.as_measured(), disturbed: cell.disturbed });
        let sample = Sample {
            cells: cells.collect(),
            columns: frame.truth.columns,
            pixels: frame.pixels,
            complete: true,
            peak_counts: None,
        };
        Self { description, training: vec![sample], held_back: Vec::new(), stopping: Vec::new() }
    }

    /// All frames to be judged on, by a network that learned from something else.
    pub fn to_judge(self) -> Self {
        let Self { description, training, stopping, held_back } = self;
        let all = training.into_iter().chain(stopping).chain(held_back).collect();
        Self { description, training: Vec::new(), stopping: Vec::new(), held_back: all }
    }

    /// Every frame to learn from cut by a vertical line: `share` of it, on the left, is still learned from, the rest is judged on.
    ///
    /// # Errors
    /// When the left part is narrower or lower than the first of `least_px`, or the right one than the second.
    pub fn in_parts(self, share: f64, least_px: [usize; 2]) -> Result<Self, TrainError> {
        let description = format!("{}, cut at {share:.4} of the width", self.description);
        let mut parts =
            Self { description, training: Vec::new(), held_back: Vec::new(), stopping: Vec::new() };
        for frame in &self.training {
            let (rows, cols) = frame.pixels.dim();
            let left = (share * cols as f64).round() as usize;
            let [found_left, found_right] = [left, cols.saturating_sub(left)].map(|width| width.min(rows));
            if found_left < least_px[0] || found_right < least_px[1] {
                let message = format!(
                    "cut at column {left}, {rows} x {cols} px give parts of {found_left} and {found_right} px: expected at least {} and {}",
                    least_px[0], least_px[1]
                );
                return Err(TrainError::Labels { path: Path::new(&parts.description).to_owned(), message });
            }
            parts.training.push(frame.part([0, 0], [rows, left]));
            parts.held_back.push(frame.part([0, left], [rows, cols - left]));
        }
        Ok(parts)
    }

    /// What the frames are, in words.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The frames, or parts of frames, that nothing is learned from.
    pub fn judged(&self) -> &[Sample] {
        &self.held_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{Microscope, Specimen, render};
    use rand::SeedableRng as _;

    #[test]
    fn a_cut_leaves_every_pixel_in_one_part_and_cells_in_their_place() {
        let microscope = Microscope { shape: [96, 150], pixel_size_pm: 15.0, ..Microscope::default() };
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let frame = render(&Specimen::default(), &microscope, &mut rng).unwrap();
        let whole = frame.pixels.clone();
        let labelled = Labelled::simulated(frame, "a frame".to_owned());
        let to_judge = labelled.clone().to_judge();
        assert!(to_judge.training.is_empty() && labelled.judged().is_empty());
        assert_eq!(to_judge.judged()[0].cells, labelled.training[0].cells);
        let parts = labelled.clone().in_parts(2.0 / 3.0, [64, 48]).unwrap();
        let ([left], [right]) = (&parts.training[..], parts.judged()) else { panic!("one part each") };
        assert_eq!((left.pixels.dim(), right.pixels.dim()), ((96, 100), (96, 50)));
        assert_eq!(right.pixels[[7, 3]], whole[[7, 103]]);
        let moved: Vec<f64> =
            left.cells.iter().zip(&right.cells).map(|(a, b)| a.cell.col - b.cell.col).collect();
        assert!(moved.iter().all(|&by| (by - 100.0).abs() < 1e-9) && !moved.is_empty());
        let error = labelled.in_parts(0.5, [64, 80]).unwrap_err().to_string();
        assert!(error.contains("column 75, 96 x 150") && error.contains("64 and 80"), "{error}");
    }
}
