//! Defects as a picture.

use super::{Extent, Truth, TruthDefect};
use ndarray::Array2;

impl Truth {
    /// The [code](super::DefectKind::code) of what each pixel shows, 0 for the undisturbed host crystal.
    ///
    /// Where several overlap, the later one in [`defects`](Self::defects) counts: what is small lies over what is large.
    ///
    /// # Shapes
    /// `[rows, cols]`, those of the frame that the truth belongs to.
    pub fn mask(&self, shape: [usize; 2]) -> Array2<u8> {
        let mut mask = Array2::zeros(shape);
        for defect in &self.defects {
            defect.paint(&mut mask, defect.kind.code());
        }
        mask
    }

    /// Which of [`defects`](Self::defects) each pixel shows: 1 for the first, 0 for none. Those past the 65535th have no pixels.
    ///
    /// # Shapes
    /// As [`mask`](Self::mask).
    pub fn numbered_mask(&self, shape: [usize; 2]) -> Array2<u16> {
        let mut mask = Array2::zeros(shape);
        for (number, defect) in (1..=u16::MAX).zip(&self.defects) {
            defect.paint(&mut mask, number);
        }
        mask
    }
}

impl TruthDefect {
    fn paint<T: Copy>(&self, mask: &mut Array2<T>, value: T) {
        match &self.extent {
            Extent::Disc => within(mask, &[[self.row, self.col]], self.radius_px, value),
            Extent::Path(path) => within(mask, path, self.radius_px, value),
            Extent::Area(corners) => fill(mask, corners, value),
        }
    }
}

/// Pixels within `radius` of a path of one or more points.
fn within<T: Copy>(mask: &mut Array2<T>, path: &[[f64; 2]], radius: f64, value: T) {
    let (rows, cols) = mask.dim();
    let alone = path.first().map(|&point| [point, point]);
    let pieces = path.windows(2).filter_map(|w| <[[f64; 2]; 2]>::try_from(w).ok());
    for [from, to] in alone.into_iter().chain(pieces) {
        let (along_row, along_col) = (to[0] - from[0], to[1] - from[1]);
        let length2 = along_row * along_row + along_col * along_col;
        for row in covered(from[0].min(to[0]) - radius, from[0].max(to[0]) + radius, rows) {
            for col in covered(from[1].min(to[1]) - radius, from[1].max(to[1]) + radius, cols) {
                let (dr, dc) = (row as f64 - from[0], col as f64 - from[1]);
                let t = if length2 > 0.0 { (dr * along_row + dc * along_col) / length2 } else { 0.0 };
                let t = t.clamp(0.0, 1.0);
                if (dr - t * along_row).hypot(dc - t * along_col) <= radius {
                    mask[[row, col]] = value;
                }
            }
        }
    }
}

/// Pixels whose centre is in a polygon, by the even-odd rule.
fn fill<T: Copy>(mask: &mut Array2<T>, corners: &[[f64; 2]], value: T) {
    let (rows, cols) = mask.dim();
    let mut crossings = Vec::new();
    for row in 0..rows {
        let at = row as f64;
        crossings.clear();
        for (k, &[row0, col0]) in corners.iter().enumerate() {
            let [row1, col1] = corners[(k + 1) % corners.len()];
            if (row0 > at) != (row1 > at) {
                crossings.push(col0 + (at - row0) / (row1 - row0) * (col1 - col0));
            }
        }
        crossings.sort_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            for col in covered(pair[0], pair[1], cols) {
                mask[[row, col]] = value;
            }
        }
    }
}

/// Pixels of `0..len` from `low` to `high`.
fn covered(low: f64, high: f64, len: usize) -> std::ops::Range<usize> {
    let first = low.ceil().max(0.0) as usize;
    let end = (high.floor() + 1.0).max(0.0) as usize;
    first.min(len)..end.min(len)
}

#[cfg(test)]
mod tests {
    use super::super::DefectKind;
    use super::*;

    fn defect(kind: DefectKind, [row, col]: [f64; 2], radius_px: f64, extent: Extent) -> TruthDefect {
        TruthDefect { kind, row, col, radius_px, extent }
    }

    #[test]
    fn extents_are_painted_pixel_by_pixel_and_later_ones_lie_on_top() {
        let triangle = vec![[-5.0, -5.0], [-5.0, 40.0], [40.0, -5.0]];
        let truth = Truth {
            defects: vec![
                defect(DefectKind::Vacuum, [0.0, 0.0], 0.0, Extent::Area(triangle)),
                defect(DefectKind::Surface, [0.0, 0.0], 1.5, Extent::Path(vec![[-9.0, 44.0], [44.0, -9.0]])),
                defect(DefectKind::VacancyB, [10.0, 8.0], 3.0, Extent::Disc),
            ],
            ..Truth::default()
        };
        let mask = truth.mask([30, 40]);
        for ((row, col), &code) in mask.indexed_iter() {
            let (row, col) = (row as f64, col as f64);
            let from_line = (row + col - 35.0) / std::f64::consts::SQRT_2;
            let expected = if (row - 10.0).hypot(col - 8.0) <= 3.0 {
                2
            } else if from_line.abs() <= 1.5 {
                16
            } else if from_line < 0.0 {
                15
            } else {
                0
            };
            assert_eq!(code, expected, "{row} {col}");
        }
        let numbers = truth.numbered_mask([30, 40]);
        for (number, code) in numbers.iter().zip(&mask) {
            assert_eq!([0, 15, 16, 2][usize::from(*number)], *code);
        }
    }

    #[test]
    fn codes_count_from_1_and_names_are_those_of_the_scene_files() {
        for (n, kind) in DefectKind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.code()), n + 1);
        }
        let name = serde_json::to_string(&DefectKind::StackingFault).unwrap();
        assert_eq!(name, "\"stacking_fault\"");
    }
}
