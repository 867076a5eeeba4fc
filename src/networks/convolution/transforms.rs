//! The transforms of [`super::winograd`], one vector of channels at a time.
//!
//! Plain loops instead of the arrays' `map`: a closure handed to the standard library is compiled without the vector
//! instructions of the function around it unless it happens to be inlined, and then every addition is a call.

#![allow(clippy::needless_range_loop, reason = "plain loops are what is inlined")]

use super::map::{Block, View};
use super::simd::{VectorEpilogue, multiply_add, part, put};
use pulp::Simd;

/// Rows and columns of sums that a tile gives.
pub(super) const TILE: usize = 4;
/// Rows and columns of pixels that a tile reads.
pub(super) const PATCH: usize = TILE + 2;
/// Products that make a tile.
pub(super) const PLACES: usize = PATCH * PATCH;

/// The kernel's transform, `[place][tap]`.
pub(super) const KERNEL_TRANSFORM: [[f64; 3]; PATCH] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// The `N` × `N` pixels of one tile and channel block. `corner` is row and column of the first of them, counted from
/// `padding` rows and columns before the map; where they reach over the map's border, they are put together in `border`,
/// with zeros around.
#[inline(always)]
pub(super) fn patch<'a, const N: usize>(
    input: &View<'a>,
    block: usize,
    [top, left]: [usize; 2],
    padding: [usize; 2],
    border: &'a mut [[Block; N]; N],
) -> [&'a [Block; N]; N] {
    let mut rows = [const { &[Block::ZERO; N] }; N];
    let [above, before] = padding;
    let inside = |start: usize, padding: usize, size: usize| start >= padding && start - padding + N <= size;
    if inside(top, above, input.rows) && inside(left, before, input.cols) {
        for (i, row) in rows.iter_mut().enumerate() {
            if let Some(pixels) = input.row(top - above + i, block)[left - before..].first_chunk() {
                *row = pixels;
            }
        }
        return rows;
    }
    for (i, pixels) in border.iter_mut().enumerate() {
        for (j, pixel) in pixels.iter_mut().enumerate() {
            // Before the map the differences wrap around, to where no pixel is either.
            let (row, col) = ((top + i).wrapping_sub(above), (left + j).wrapping_sub(before));
            *pixel =
                if row < input.rows && col < input.cols { input.row(row, block)[col] } else { Block::ZERO };
        }
    }
    for (row, pixels) in rows.iter_mut().zip(&*border) {
        *row = pixels;
    }
    rows
}

/// Transforms a patch and writes its places `stride` blocks apart.
#[inline(always)]
pub(super) fn transform_patch<S: Simd>(
    simd: S,
    patch: [&[Block; PATCH]; PATCH],
    v: usize,
    places: &mut [Block],
    stride: usize,
) {
    let zero = simd.splat_f32s(0.0);
    let mut rows = [[zero; PATCH]; PATCH];
    for i in 0..PATCH {
        let mut line = [zero; PATCH];
        for j in 0..PATCH {
            line[j] = part::<S>(&patch[i][j], v);
        }
        rows[i] = transform(simd, line);
    }
    for j in 0..PATCH {
        let mut line = [zero; PATCH];
        for i in 0..PATCH {
            line[i] = rows[i][j];
        }
        let line = transform(simd, line);
        for i in 0..PATCH {
            put::<S>(&mut places[(i * PATCH + j) * stride], v, line[i]);
        }
    }
}

/// `factor * a + b`.
#[inline(always)]
fn times<S: Simd>(simd: S, factor: f32, a: S::f32s, b: S::f32s) -> S::f32s {
    multiply_add(simd, simd.splat_f32s(factor), a, b)
}

/// One line of the pixels' transform.
#[inline(always)]
fn transform<S: Simd>(simd: S, d: [S::f32s; PATCH]) -> [S::f32s; PATCH] {
    let (even, odd) = (times(simd, -4.0, d[2], d[4]), times(simd, -4.0, d[1], d[3]));
    let (half_even, half_odd) = (simd.sub_f32s(d[4], d[2]), simd.sub_f32s(d[3], d[1]));
    [
        times(simd, 4.0, d[0], times(simd, -5.0, d[2], d[4])),
        simd.add_f32s(even, odd),
        simd.sub_f32s(even, odd),
        times(simd, 2.0, half_odd, half_even),
        times(simd, -2.0, half_odd, half_even),
        times(simd, 4.0, d[1], times(simd, -5.0, d[3], d[5])),
    ]
}

/// The sums of a tile from its products, which lie `stride` blocks apart.
#[inline(always)]
pub(super) fn sums<S: Simd>(simd: S, places: &[Block], stride: usize, v: usize) -> [[S::f32s; TILE]; TILE] {
    let zero = simd.splat_f32s(0.0);
    let mut rows = [[zero; TILE]; PATCH];
    for i in 0..PATCH {
        let mut line = [zero; PATCH];
        for j in 0..PATCH {
            line[j] = part::<S>(&places[(i * PATCH + j) * stride], v);
        }
        rows[i] = transform_back(simd, line);
    }
    let mut sums = [[zero; TILE]; TILE];
    for j in 0..TILE {
        let mut line = [zero; PATCH];
        for i in 0..PATCH {
            line[i] = rows[i][j];
        }
        let line = transform_back(simd, line);
        for i in 0..TILE {
            sums[i][j] = line[i];
        }
    }
    sums
}

/// One line of the way back.
#[inline(always)]
fn transform_back<S: Simd>(simd: S, m: [S::f32s; PATCH]) -> [S::f32s; TILE] {
    let (even1, odd1) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    let (even2, odd2) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
    [
        simd.add_f32s(m[0], simd.add_f32s(even1, even2)),
        times(simd, 2.0, odd2, odd1),
        times(simd, 4.0, even2, even1),
        simd.add_f32s(times(simd, 8.0, odd2, odd1), m[5]),
    ]
}

/// The transpose of [`sums`]: what a tile's derivatives are for its products, written `stride` blocks apart.
#[inline(always)]
pub(super) fn spread_tile<S: Simd>(
    simd: S,
    tile: [&[Block; TILE]; TILE],
    v: usize,
    places: &mut [Block],
    stride: usize,
) {
    let zero = simd.splat_f32s(0.0);
    let mut rows = [[zero; PATCH]; TILE];
    for i in 0..TILE {
        let mut line = [zero; TILE];
        for j in 0..TILE {
            line[j] = part::<S>(&tile[i][j], v);
        }
        rows[i] = spread(simd, line);
    }
    for j in 0..PATCH {
        let mut line = [zero; TILE];
        for i in 0..TILE {
            line[i] = rows[i][j];
        }
        let line = spread(simd, line);
        for i in 0..PATCH {
            put::<S>(&mut places[(i * PATCH + j) * stride], v, line[i]);
        }
    }
}

/// The transpose of [`transform_back`].
#[inline(always)]
fn spread<S: Simd>(simd: S, y: [S::f32s; TILE]) -> [S::f32s; PATCH] {
    let (even, odd) = (simd.add_f32s(y[0], y[2]), simd.add_f32s(y[1], y[3]));
    let (double_even, double_odd) = (times(simd, 4.0, y[2], y[0]), times(simd, 4.0, y[3], y[1]));
    [
        y[0],
        simd.add_f32s(even, odd),
        simd.sub_f32s(even, odd),
        times(simd, 2.0, double_odd, double_even),
        times(simd, -2.0, double_odd, double_even),
        y[3],
    ]
}

/// The transpose of the kernel's transform: derivatives of its taps from those of its places, `stride` blocks apart.
#[inline(always)]
pub(super) fn taps<S: Simd>(simd: S, places: &[Block], stride: usize, v: usize) -> [[S::f32s; 3]; 3] {
    let zero = simd.splat_f32s(0.0);
    let mut rows = [[zero; 3]; PATCH];
    for i in 0..PATCH {
        let mut line = [zero; PATCH];
        for j in 0..PATCH {
            line[j] = part::<S>(&places[(i * PATCH + j) * stride], v);
        }
        rows[i] = kernel_transform_back(simd, line);
    }
    let mut taps = [[zero; 3]; 3];
    for j in 0..3 {
        let mut line = [zero; PATCH];
        for i in 0..PATCH {
            line[i] = rows[i][j];
        }
        let line = kernel_transform_back(simd, line);
        for i in 0..3 {
            taps[i][j] = line[i];
        }
    }
    taps
}

/// One line of [`taps`].
#[inline(always)]
fn kernel_transform_back<S: Simd>(simd: S, m: [S::f32s; PATCH]) -> [S::f32s; 3] {
    let mut taps = [simd.splat_f32s(0.0); 3];
    for tap in 0..3 {
        for i in 0..PATCH {
            taps[tap] = times(simd, KERNEL_TRANSFORM[i][tap] as f32, m[i], taps[tap]);
        }
    }
    taps
}

/// Four rows of a layer's result, or two when it is pooled; fewer where the map ends.
pub(super) struct Target<'a> {
    /// `[row, output block, col]`.
    pub(super) data: &'a mut [Block],
    pub(super) blocks: usize,
    pub(super) cols: usize,
    pub(super) pooled: bool,
}

impl Target<'_> {
    /// Keeps vector `v` of a block's sums, as far as they lie in the map; `tile` counts along the row.
    #[inline(always)]
    pub(super) fn keep<S: Simd>(
        &mut self,
        simd: S,
        [block, tile, v]: [usize; 3],
        sums: [[S::f32s; TILE]; TILE],
        epilogue: VectorEpilogue<S>,
    ) {
        let zero = simd.splat_f32s(0.0);
        let mut values = sums;
        for i in 0..TILE {
            for j in 0..TILE {
                values[i][j] = epilogue.apply(simd, sums[i][j]);
            }
        }
        if self.pooled {
            let mut pooled = [[zero; TILE / 2]; TILE / 2];
            for i in 0..TILE / 2 {
                for j in 0..TILE / 2 {
                    let (upper, lower) = (values[2 * i], values[2 * i + 1]);
                    pooled[i][j] = simd.max_f32s(
                        simd.max_f32s(upper[2 * j], upper[2 * j + 1]),
                        simd.max_f32s(lower[2 * j], lower[2 * j + 1]),
                    );
                }
            }
            self.write::<S, _>([block, tile, v], pooled);
        } else {
            self.write::<S, _>([block, tile, v], values);
        }
    }

    #[inline(always)]
    fn write<S: Simd, const N: usize>(&mut self, [block, tile, v]: [usize; 3], values: [[S::f32s; N]; N]) {
        let left = tile * N;
        for (row, values) in self.data.chunks_exact_mut(self.blocks * self.cols).zip(values) {
            let row = &mut row[block * self.cols..][..self.cols];
            for (pixel, value) in row[left..].iter_mut().zip(values) {
                put::<S>(pixel, v, value);
            }
        }
    }
}
