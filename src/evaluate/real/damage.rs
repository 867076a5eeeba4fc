//! Damage done on purpose to a copy of an image, and how far from it a place is.

use super::RealSettings;
use crate::columns::blurred;
use ndarray::{Array2, ArrayView2, s};
use rand::seq::SliceRandom as _;
use rand::{Rng, RngExt as _};
use std::f64::consts::FRAC_1_SQRT_2;
use std::ops::Range;

/// Places that are drawn, of which the one with the most measured pixels is damaged.
const DRAWN_PLACES: usize = 32;

/// What is done to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A patch, by a Gaussian.
    Blurred,
    /// The blocks of a patch change places.
    Shuffled,
    /// A patch of another image in place of the image's own, as dark and as rich in contrast; the patch itself, turned by 45°, where
    /// there is no other image.
    Pasted,
    /// A band of rows, to the right.
    Shifted,
}

impl Damage {
    /// In the order of the tables.
    pub const ALL: [Self; 4] = [Self::Blurred, Self::Shuffled, Self::Pasted, Self::Shifted];

    /// As tables and figures name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blurred => "patch blurred",
            Self::Shuffled => "patch shuffled",
            Self::Pasted => "patch pasted in",
            Self::Shifted => "rows shifted",
        }
    }
}

/// A part of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    pub rows: Range<usize>,
    pub cols: Range<usize>,
}

impl Area {
    /// How far a place lies outside of it, down or across, whichever is more, pm; 0 inside.
    pub fn away_pm(&self, row: f64, col: f64, pixel_size_pm: [f64; 2]) -> f64 {
        let outside = |at: f64, range: &Range<usize>| {
            let [first, end] = [range.start as f64 - 0.5, range.end as f64 - 0.5];
            (first - at).max(at - end).max(0.0)
        };
        let [row_pm, col_pm] = pixel_size_pm;
        (outside(row, &self.rows) * row_pm).max(outside(col, &self.cols) * col_pm)
    }

    fn of<'a>(&self, pixels: &'a Array2<f32>) -> ArrayView2<'a, f32> {
        pixels.slice(s![self.rows.clone(), self.cols.clone()])
    }
}

/// What is damaged.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    /// NaN where nothing was measured; that stays where it is, except in a patch that is shuffled or pasted in.
    pub pixels: &'a Array2<f32>,
    /// `[row, col]`.
    pub pixel_size_pm: [f64; 2],
    /// Damage keeps this far from the border: half a window, since nearer to it no window is centred, pm.
    pub border_pm: f64,
    /// Another image, at whatever scale.
    pub other: Option<&'a Array2<f32>>,
}

/// The copy, and what of it is damaged; the rest of its pixels are the original's. `None` where the image has no room for it.
pub fn damaged(
    damage: Damage,
    original: &Original<'_>,
    settings: &RealSettings,
    rng: &mut impl Rng,
) -> Option<(Array2<f32>, Area)> {
    let Original { pixels, pixel_size_pm, border_pm, other } = *original;
    let px = |nm: f64| pixel_size_pm.map(|pm| ((1000.0 * nm / pm).round() as usize).max(1));
    let border = px(border_pm / 1000.0);
    let area = match damage {
        Damage::Shifted => {
            let cols = pixels.ncols().checked_sub(2 * border[1])?;
            let band = place(pixels, [px(settings.band_nm)[0], cols], border, rng)?;
            Area { cols: 0..pixels.ncols(), ..band }
        }
        _ => place(pixels, px(settings.patch_nm), border, rng)?,
    };
    let mut copy = pixels.clone();
    let patch = match damage {
        Damage::Blurred => {
            let sigma_px = 1000.0 * settings.blur_nm / (pixel_size_pm[0] * pixel_size_pm[1]).sqrt();
            let smooth = area.of(&blurred(pixels, sigma_px)).to_owned();
            let mut patch = area.of(pixels).to_owned();
            patch.zip_mut_with(&smooth, |to, from| *to = if to.is_nan() { *to } else { *from });
            patch
        }
        Damage::Shuffled => shuffled(area.of(pixels), px(settings.block_nm), rng),
        Damage::Pasted => match other.and_then(|other| Some((other, like(&area, other, rng)?))) {
            Some((other, from)) => matched(from.of(other), area.of(pixels)),
            None => turned(pixels, &area),
        },
        Damage::Shifted => {
            let by = px(settings.shift_nm)[1];
            Array2::from_shape_fn(area.of(pixels).dim(), |(row, col)| {
                pixels[[area.rows.start + row, col.checked_sub(by).unwrap_or(col)]]
            })
        }
    };
    copy.slice_mut(s![area.rows.clone(), area.cols.clone()]).assign(&patch);
    Some((copy, area))
}

/// Where an area of `size` px lies in the image, at least `border` px from its edge: of a few places the one with the most
/// measured pixels.
fn place(pixels: &Array2<f32>, size: [usize; 2], border: [usize; 2], rng: &mut impl Rng) -> Option<Area> {
    let (rows, cols) = pixels.dim();
    let last = |length: usize, axis: usize| length.checked_sub(size[axis] + border[axis]);
    let [last_row, last_col] = [last(rows, 0)?, last(cols, 1)?];
    if last_row < border[0] || last_col < border[1] {
        return None;
    }
    let mut draw = |_| {
        let [row, col] = [rng.random_range(border[0]..=last_row), rng.random_range(border[1]..=last_col)];
        Area { rows: row..row + size[0], cols: col..col + size[1] }
    };
    let measured = |area: &Area| area.of(pixels).iter().filter(|pixel| pixel.is_finite()).count();
    (0..DRAWN_PLACES).map(&mut draw).max_by_key(measured)
}

/// An area of another image with the shape of this one.
fn like(area: &Area, other: &Array2<f32>, rng: &mut impl Rng) -> Option<Area> {
    place(other, [area.rows.len(), area.cols.len()], [0, 0], rng)
}

/// Blocks of `block` px, as many as fit, in another order.
fn shuffled(patch: ArrayView2<'_, f32>, block: [usize; 2], rng: &mut impl Rng) -> Array2<f32> {
    let (rows, cols) = patch.dim();
    let [down, across] = [rows / block[0], cols / block[1]];
    let mut order: Vec<usize> = (0..down * across).collect();
    order.shuffle(rng);
    let at = |n: usize| {
        let [row, col] = [n / across * block[0], n % across * block[1]];
        s![row..row + block[0], col..col + block[1]]
    };
    let mut mixed = patch.to_owned();
    for (to, &from) in order.iter().enumerate() {
        mixed.slice_mut(at(to)).assign(&patch.slice(at(from)));
    }
    mixed
}

/// `patch` with the mean and the standard deviation of what it takes the place of.
fn matched(patch: ArrayView2<'_, f32>, original: ArrayView2<'_, f32>) -> Array2<f32> {
    let moments = |values: ArrayView2<'_, f32>| {
        let finite: Vec<f64> = values.iter().filter(|v| v.is_finite()).map(|v| f64::from(*v)).collect();
        let mean = finite.iter().sum::<f64>() / finite.len() as f64;
        let variance = finite.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / finite.len() as f64;
        [mean, variance.sqrt()]
    };
    let ([mean, deviation], [to_mean, to_deviation]) = (moments(patch), moments(original));
    let gain = if deviation > 0.0 { to_deviation / deviation } else { 0.0 };
    patch.mapv(|value| (to_mean + gain * (f64::from(value) - mean)) as f32)
}

/// The area turned by 45° about its middle, bilinear between pixels.
fn turned(pixels: &Array2<f32>, area: &Area) -> Array2<f32> {
    let middle = |range: &Range<usize>| 0.5 * (range.start + range.end - 1) as f64;
    let [row, col] = [middle(&area.rows), middle(&area.cols)];
    let within = |at: f64, length: usize| at.clamp(0.0, length as f64 - 1.0);
    let (rows, cols) = pixels.dim();
    Array2::from_shape_fn((area.rows.len(), area.cols.len()), |(i, j)| {
        let [dr, dc] = [(area.rows.start + i) as f64 - row, (area.cols.start + j) as f64 - col];
        let r = within(row + FRAC_1_SQRT_2 * (dr - dc), rows);
        let c = within(col + FRAC_1_SQRT_2 * (dr + dc), cols);
        let [top, left] = [r as usize, c as usize];
        let [bottom, right] = [(top + 1).min(rows - 1), (left + 1).min(cols - 1)];
        let [down, across] = [(r - top as f64) as f32, (c - left as f64) as f32];
        let line = |row: usize| (1.0 - across) * pixels[[row, left]] + across * pixels[[row, right]];
        (1.0 - down) * line(top) + down * line(bottom)
    })
}
