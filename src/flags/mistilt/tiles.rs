//! The tiles of a frame.

use super::MistiltSettings;
use crate::frame::grid_centre;
use ferrostem_proto::{GridSpec, PixelPosition};

/// More tiles than this take too long.
const MOST_TILES: f64 = 256.0;

/// Where the tiles lie.
pub(super) struct Tiles {
    pub grid: GridSpec,
}

impl Tiles {
    pub fn over(windows: &GridSpec, pixel: [f64; 2], settings: &MistiltSettings) -> Self {
        let nm = [
            f64::from(windows.rows) * windows.step_row * pixel[0] / 1000.0,
            f64::from(windows.cols) * windows.step_col * pixel[1] / 1000.0,
        ];
        let side_nm = settings.tile_nm.max((nm[0] * nm[1] / MOST_TILES).sqrt());
        // A remainder smaller than half a tile joins its neighbour, so that no sliver is judged on its own.
        let count = |nm: f64, windows: u32| -> f64 {
            let tiles = (nm / side_nm).round();
            if tiles.is_finite() { tiles.clamp(1.0, f64::from(windows.max(1))) } else { 1.0 }
        };
        let n = [count(nm[0], windows.rows), count(nm[1], windows.cols)];
        let step_row = f64::from(windows.rows) / n[0] * windows.step_row;
        let step_col = f64::from(windows.cols) / n[1] * windows.step_col;
        let grid = GridSpec {
            row0: windows.row0 + (step_row - windows.step_row) / 2.0,
            col0: windows.col0 + (step_col - windows.step_col) / 2.0,
            step_row,
            step_col,
            rows: n[0] as u32,
            cols: n[1] as u32,
        };
        Self { grid }
    }

    /// `[x, y]`.
    pub fn centres_nm(&self, pixel: [f64; 2]) -> Vec<[f64; 2]> {
        let grid = self.grid;
        let place = move |i: usize, j: usize| {
            let PixelPosition { row, col } = grid_centre(&grid, i, j);
            [col * pixel[1] / 1000.0, row * pixel[0] / 1000.0]
        };
        (0..grid.rows as usize).flat_map(|i| (0..grid.cols as usize).map(move |j| place(i, j))).collect()
    }

    /// Fractional indices of a place, kept within the grid.
    pub fn indices(&self, row: f64, col: f64) -> [f64; 2] {
        let index = |at: f64, from: f64, step: f64, n: u32| {
            ((at - from) / step).clamp(0.0, f64::from(n.saturating_sub(1)))
        };
        let grid = &self.grid;
        [index(row, grid.row0, grid.step_row, grid.rows), index(col, grid.col0, grid.step_col, grid.cols)]
    }

    /// The tile that a place belongs to.
    pub fn tile(&self, row: f64, col: f64) -> usize {
        let [i, j] = self.indices(row, col).map(|index| index.round() as usize);
        i * self.grid.cols as usize + j
    }
}
