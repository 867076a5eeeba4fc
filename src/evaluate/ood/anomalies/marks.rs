//! Where in a frame what is strange lies, and what its windows are good for.

use super::Anomaly;
use crate::frame::Frame;
use crate::preprocess::AreaSums;
use crate::simulate::{DefectKind, Truth};
use ndarray::Array2;
use std::ops::Range;
use std::sync::Arc;

/// A frame's own windows count as undisturbed where nothing strange lies within this of their centre, down and across: half a
/// window, and as much again.
const WELL_AWAY_PM: f64 = 1200.0;
/// A window sees a damaged row when its centre is no farther from it, about half a unit cell.
const BESIDE_PM: f64 = 200.0;

/// A frame, ready for the stages, with what is strange in it.
#[derive(Debug)]
pub struct MarkedFrame {
    pub frame: Arc<Frame>,
    pub truth: Truth,
    /// `[row, col]`.
    pub pixel_sizes_pm: [f64; 2],
    /// `[row, col]`: a window whose centre is here sees the anomaly. Point defects are half a cell edge in radius, boundaries
    /// a cell edge wide, damaged rows have [`BESIDE_PM`] on every side.
    pub(super) strange: Array2<bool>,
    /// Pixels that show anything but the undisturbed host.
    pub(super) disturbed: AreaSums<u32>,
}

/// What a window of a marked frame is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Strange,
    Usual,
    /// Too near to what is strange to be either.
    Neither,
}

impl MarkedFrame {
    /// Of a window centred there, frame pixels.
    pub fn mark(&self, row: f64, col: f64) -> Mark {
        let (rows, cols) = self.strange.dim();
        let pixel = |at: f64, size: usize| (at.round().max(0.0) as usize).min(size.saturating_sub(1));
        if self.strange.get((pixel(row, rows), pixel(col, cols))).copied().unwrap_or(false) {
            return Mark::Strange;
        }
        let [down, across] = self.pixel_sizes_pm.map(|pm| WELL_AWAY_PM / pm);
        let [top, bottom] = [pixel(row - down, rows), pixel(row + down, rows) + 1];
        let [left, right] = [pixel(col - across, cols), pixel(col + across, cols) + 1];
        if self.disturbed.of(top..bottom, left..right) == 0 { Mark::Usual } else { Mark::Neither }
    }
}

/// The pixels of [`MarkedFrame`] that are strange, and those that show anything but the undisturbed host.
pub(super) fn marks(
    anomaly: Option<Anomaly>,
    truth: &Truth,
    shape: (usize, usize),
    damaged: Option<[Range<usize>; 2]>,
    pixel_sizes_pm: [f64; 2],
) -> (Array2<bool>, Array2<bool>) {
    let Some(anomaly) = anomaly else {
        let none = Array2::from_elem(shape, false);
        return (none.clone(), none);
    };
    let mask = truth.mask(shape.into());
    let codes: Vec<u8> = anomaly.kinds().iter().map(|kind| kind.code()).collect();
    let mut strange = mask.mapv(|code| anomaly.is_everywhere() || codes.contains(&code));
    if let Some([rows, cols]) = damaged {
        let around = |part: Range<usize>, pixel_pm: f64| {
            let beside = (BESIDE_PM / pixel_pm).round() as usize;
            part.start.saturating_sub(beside)..part.end + beside
        };
        let [down, across] = pixel_sizes_pm;
        let (rows, cols) = (around(rows, down), around(cols, across));
        for ((row, col), strange) in strange.indexed_iter_mut() {
            *strange |= rows.contains(&row) && cols.contains(&col);
        }
    }
    // Soft blobs of contamination are part of training.
    let known = [0, DefectKind::Contamination.code()];
    let mut disturbed = mask.mapv(|code| !known.contains(&code));
    disturbed.zip_mut_with(&strange, |disturbed, &strange| *disturbed |= strange);
    (strange, disturbed)
}
