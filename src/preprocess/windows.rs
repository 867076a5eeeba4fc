//! Where the DCNN's sliding windows sit.

use super::{PixelMap, PreprocessError};
use ferrostem_proto::GridSpec;
use ndarray::Array2;

/// A regular grid of square windows on the model image; window `(i, j)` covers model pixels
/// `i * stride_px .. i * stride_px + window_px` by rows and likewise by columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowPlan {
    pub window_px: usize,
    pub stride_px: usize,
    /// Windows down and across, both at least 1.
    pub rows: usize,
    pub cols: usize,
    /// Window centres in frame pixels: an 80-px window over model pixels 0..80 is centred on 39.5.
    pub grid: GridSpec,
}

impl WindowPlan {
    /// As many windows as fit, from the top left corner on, so that every window starts on a multiple of the stride; less
    /// than a stride of model pixels stays uncovered at the bottom and at the right.
    ///
    /// # Errors
    /// When the model image is smaller than a window, or `window_px` or `stride_px` is 0.
    pub fn new(
        model_shape: [usize; 2],
        window_px: usize,
        stride_px: usize,
        map: &PixelMap,
    ) -> Result<Self, PreprocessError> {
        if window_px == 0 || stride_px == 0 {
            return Err(PreprocessError::EmptyWindow { window_px, stride_px });
        }
        if model_shape.iter().any(|&length| length < window_px) {
            return Err(PreprocessError::SmallerThanWindow { model: model_shape, window_px });
        }
        let [rows, cols] = model_shape.map(|length| (length - window_px) / stride_px + 1);
        let centre = (window_px as f64 - 1.0) / 2.0;
        let (row0, col0) = map.model_to_frame(centre, centre);
        let grid = GridSpec {
            row0,
            col0,
            step_row: stride_px as f64 * map.scale_row,
            step_col: stride_px as f64 * map.scale_col,
            // A frame has fewer than 2³² windows by far: the model image is bounded.
            rows: rows as u32,
            cols: cols as u32,
        };
        Ok(Self { window_px, stride_px, rows, cols, grid })
    }

    /// First model pixel `(row, col)` of window `(i, j)`.
    pub fn origin(&self, i: usize, j: usize) -> (usize, usize) {
        (i * self.stride_px, j * self.stride_px)
    }

    /// Which windows may be believed: those with at most `max_masked_fraction` of their pixels masked.
    ///
    /// # Shapes
    /// `valid` `[row, col]` of the model image (it may be padded at the bottom and right) → `[self.rows, self.cols]`.
    pub fn valid_windows(&self, valid: &Array2<bool>, max_masked_fraction: f64) -> Array2<bool> {
        if valid.iter().all(|&valid| valid) {
            return Array2::from_elem((self.rows, self.cols), true);
        }
        let (rows, cols) = valid.dim();
        // masked_before[r, c]: masked pixels above row r and left of column c.
        let mut masked_before = Array2::<u32>::zeros((rows + 1, cols + 1));
        for row in 0..rows {
            let mut in_row = 0;
            for col in 0..cols {
                in_row += u32::from(!valid[[row, col]]);
                masked_before[[row + 1, col + 1]] = masked_before[[row, col + 1]] + in_row;
            }
        }
        let limit = max_masked_fraction * (self.window_px * self.window_px) as f64;
        Array2::from_shape_fn((self.rows, self.cols), |(i, j)| {
            let (top, left) = self.origin(i, j);
            let (bottom, right) = (top + self.window_px, left + self.window_px);
            let masked = masked_before[[bottom, right]] + masked_before[[top, left]]
                - masked_before[[top, right]]
                - masked_before[[bottom, left]];
            f64::from(masked) <= limit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hand_worked() {
        let plan = WindowPlan::new([100, 81], 80, 2, &PixelMap { scale_row: 0.5, scale_col: 2.0 }).unwrap();
        assert_eq!((plan.rows, plan.cols), (11, 1));
        let grid = GridSpec { row0: 19.5, col0: 79.5, step_row: 1.0, step_col: 4.0, rows: 11, cols: 1 };
        assert_eq!(plan.grid, grid);
        assert_eq!(WindowPlan::new([512, 512], 80, 8, &PixelMap::IDENTITY).unwrap().grid.row0, 39.5);
    }

    #[test]
    fn frames_smaller_than_a_window_are_refused() {
        assert!(matches!(
            WindowPlan::new([79, 300], 80, 2, &PixelMap::IDENTITY),
            Err(PreprocessError::SmallerThanWindow { model: [79, 300], window_px: 80 })
        ));
        assert!(WindowPlan::new([79, 300], 10, 0, &PixelMap::IDENTITY).is_err());
    }

    proptest! {
        #[test]
        fn windows_stay_inside_and_leave_less_than_a_stride(
            rows in 1_usize..300, cols in 1_usize..300, window_px in 1_usize..90, half_stride in 1_usize..20,
        ) {
            let stride_px = 2 * half_stride;
            let Ok(plan) = WindowPlan::new([rows, cols], window_px, stride_px, &PixelMap::IDENTITY) else {
                prop_assert!(rows < window_px || cols < window_px);
                return Ok(());
            };
            let (top, left) = plan.origin(plan.rows - 1, plan.cols - 1);
            prop_assert!(top + window_px <= rows && top + window_px + stride_px > rows);
            prop_assert!(left + window_px <= cols && left + window_px + stride_px > cols);
            prop_assert_eq!(top as f64 + (window_px as f64 - 1.0) / 2.0, plan.grid.row0 + (plan.rows - 1) as f64 * plan.grid.step_row);
            if stride_px <= window_px {
                let mut covered = Array2::from_elem((top + window_px, left + window_px), false);
                for i in 0..plan.rows {
                    for j in 0..plan.cols {
                        let (top, left) = plan.origin(i, j);
                        for row in top..top + window_px {
                            for col in left..left + window_px {
                                covered[[row, col]] = true;
                            }
                        }
                    }
                }
                prop_assert!(covered.iter().all(|&covered| covered));
            }
        }

        #[test]
        fn masked_windows_match_a_recount(holes in prop::collection::vec((0_usize..40, 0_usize..50), 1..30), limit in 0.0..0.2) {
            let mut valid = Array2::from_elem((40, 50), true);
            for (row, col) in holes {
                valid[[row, col]] = false;
            }
            let plan = WindowPlan::new([38, 49], 10, 4, &PixelMap::IDENTITY).unwrap();
            let got = plan.valid_windows(&valid, limit);
            for ((i, j), &got) in got.indexed_iter() {
                let (top, left) = plan.origin(i, j);
                let masked = (0..100).filter(|k| !valid[[top + k / 10, left + k % 10]]).count();
                prop_assert_eq!(got, masked as f64 <= limit * 100.0);
            }
        }
    }
}
