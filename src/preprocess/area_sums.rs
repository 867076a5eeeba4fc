//! Sums over rectangles of a map.

use ndarray::{Array2, ArrayView2};
use std::ops::{Add, Range, Sub};

/// Sums over rectangles of a map, each in constant time (Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984).
#[derive(Debug, Clone)]
pub(crate) struct AreaSums<T> {
    /// `[row, col]`: of all above and to the left; one row and column more than the map.
    before: Array2<T>,
}

impl<T: Copy + Default + Add<Output = T> + Sub<Output = T>> AreaSums<T> {
    /// Of what `value` makes of the map's elements.
    pub(crate) fn new<E: Copy>(map: ArrayView2<'_, E>, value: impl Fn(E) -> T) -> Self {
        let (rows, cols) = map.dim();
        let mut before = Array2::default((rows + 1, cols + 1));
        for (row, line) in map.outer_iter().enumerate() {
            let mut along = T::default();
            for (col, &element) in line.iter().enumerate() {
                along = along + value(element);
                before[[row + 1, col + 1]] = before[[row, col + 1]] + along;
            }
        }
        Self { before }
    }

    /// Of a rectangle within the map.
    pub(crate) fn of(&self, rows: Range<usize>, cols: Range<usize>) -> T {
        let before = |row: usize, col: usize| self.before[[row, col]];
        let [whole, above] =
            [rows.end, rows.start].map(|row| before(row, cols.end) - before(row, cols.start));
        whole - above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_are_summed() {
        let map = Array2::from_shape_fn((4, 5), |(i, j)| (i * 5 + j) as i32);
        let sums = AreaSums::new(map.view(), i64::from);
        assert_eq!(sums.of(1..3, 2..4), 7 + 8 + 12 + 13);
        assert_eq!(sums.of(0..4, 0..5), 190);
        assert_eq!(sums.of(2..2, 0..5), 0);
    }
}
