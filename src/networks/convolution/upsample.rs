//! Maps beside each other at twice the resolution, as a U-net's way up wants them.

use super::map::{Block, LANES, View};
use rayon::prelude::*;

/// The channel blocks of `fine`, and behind them those of `coarse` at twice its resolution, bilinearly: the pixels of
/// both cover the same area, and beyond the left and right border the last pixel goes on. Fills `output`,
/// `[row, channel block, col]`.
///
/// # Shapes
/// - `coarse`: one row more, above and below, than lies under `fine`; at the upper and lower border, the last row again
/// - `fine`, result: twice those rows, twice the columns
pub(crate) fn beside_upsampled(fine: View<'_>, coarse: View<'_>, output: &mut [Block]) {
    let (blocks, cols) = (fine.blocks + coarse.blocks, fine.cols);
    if cols == 0 || fine.rows == 0 {
        return;
    }
    output.par_chunks_mut(cols).enumerate().for_each(|(index, pixels)| {
        let (row, block) = (index / blocks, index % blocks);
        match block.checked_sub(fine.blocks) {
            None => pixels.copy_from_slice(fine.row(row, block)),
            Some(block) => {
                // Two rows of the fine map are one of the coarse one.
                let [near, far] = neighbours(row + 2, coarse.rows).map(|row| coarse.row(row, block));
                for (col, pixel) in pixels.iter_mut().enumerate() {
                    let [left, right] = neighbours(col, coarse.cols);
                    *pixel = mix(&mix(&near[left], &near[right]), &mix(&far[left], &far[right]));
                }
            }
        }
    });
}

/// Nearest and second nearest pixel of a coarse line to a pixel of the fine one.
const fn neighbours(fine: usize, size: usize) -> [usize; 2] {
    let near = fine / 2;
    let far = if fine.is_multiple_of(2) { near.saturating_sub(1) } else { near + 1 };
    [near, if far < size { far } else { near }]
}

#[inline(always)]
fn mix(near: &Block, far: &Block) -> Block {
    let mut mixed = Block::ZERO;
    for lane in 0..LANES {
        mixed.0[lane] = 0.75 * near.0[lane] + 0.25 * far.0[lane];
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::convolution::map::Map;

    #[test]
    fn a_ramp_stays_a_ramp_and_borders_go_on() {
        let map = |rows: usize, cols: usize, value: fn(usize, usize) -> f32| {
            let mut map = Map::empty(1, cols);
            for (index, block) in map.append(rows).iter_mut().enumerate() {
                *block = Block([value(index / cols, index % cols); LANES]);
            }
            map
        };
        let coarse = map(4, 3, |row, col| (100 * row.clamp(1, 2) - 100 + 4 * col) as f32);
        let fine = map(4, 6, |row, col| (10 * row + col) as f32);
        let mut found = Map::empty(2, 6);
        beside_upsampled(fine.view(), coarse.view(), found.append(4));
        let (rows, cols) = ([0.0, 25.0, 75.0, 100.0], [0.0, 1.0, 3.0, 5.0, 7.0, 8.0]);
        for (i, row) in rows.into_iter().enumerate() {
            assert_eq!(found.view().row(i, 0), fine.view().row(i, 0));
            let expected = cols.map(|col| Block([row + col; LANES]));
            assert_eq!(found.view().row(i, 1), expected);
        }
    }
}
