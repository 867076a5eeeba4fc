//! Which pixels a defect takes.

use crate::simulate::{Truth, TruthDefect};
use ndarray::Array2;

/// `n + 1` in the pixels of the `n`-th defect, 0 elsewhere; where several overlap, the smallest shows.
///
/// # Shapes
/// `[row, col]`. Defects past the 65535th have no pixels.
pub(super) fn defect_mask(truth: &Truth, [rows, cols]: [usize; 2]) -> Array2<u16> {
    let mut labelled: Vec<(u16, &TruthDefect)> = (1..=u16::MAX).zip(&truth.defects).collect();
    labelled.sort_by(|(_, a), (_, b)| b.radius_px.total_cmp(&a.radius_px));
    let mut mask = Array2::zeros((rows, cols));
    let span = |center: f64, radius: f64, len: usize| {
        // NaN and what lies outside become empty.
        let from = (center - radius).ceil().clamp(0.0, len as f64) as usize;
        let to = (center + radius + 1.0).floor().clamp(0.0, len as f64) as usize;
        from..to
    };
    for (label, defect) in labelled {
        let TruthDefect { row, col, radius_px, .. } = *defect;
        for r in span(row, radius_px, rows) {
            for c in span(col, radius_px, cols) {
                if (r as f64 - row).hypot(c as f64 - col) <= radius_px {
                    mask[[r, c]] = label;
                }
            }
        }
    }
    mask
}
