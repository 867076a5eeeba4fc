//! Atomic columns from the FCNN's class probabilities, as AtomAI finds them, or from the lattice alone; and their refinement on the
//! frame itself: a fit of all columns together (`joint`), in a few rounds for live frames or until nothing moves for labels.
//!
//! Features: threshold, connected components, centre of mass; refinement, because centres of mass of thresholded masks bias the
//! polarization by 5–15 pm.
//! Assumptions: class 0 is the dim B sublattice, class 1 the bright A sublattice, class 2 the background.

mod joint;
mod lattice;
mod neighbours;
mod peaks;
mod refine;

pub(crate) use joint::blurred;
pub use joint::{JointFit, fit_jointly, refine_columns};
pub(crate) use neighbours::Neighbours;
pub(crate) use peaks::steps;
pub use peaks::{BeyondColumn, FoundColumns, find_columns_by_lattice};
pub use refine::{GaussianFit, fit_gaussian};

use crate::config::InvalidSetting;
use crate::frame::{Column, Sublattice};
use crate::preprocess::PixelMap;
use imageproc::image::{GrayImage, Luma};
use imageproc::region_labelling::{Connectivity, connected_components};
use ndarray::{Array2, Array3, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

/// How columns are found and refined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnSettings {
    /// Class probability above which a pixel belongs to a column, 0 .. 1.
    pub threshold: f32,
    /// Smaller components are dropped, model pixels.
    pub min_area_px: usize,
    /// Columns whose centre lies nearer than this to the image's edge are dropped, model pixels.
    pub edge_px: f64,
    /// Weight the centre of mass by the probability instead of taking the binary mask's.
    pub weighted_centre: bool,
    /// Fit all columns to the frame.
    pub refine: bool,
    /// Fits that move further than this are discarded, frame pixels.
    pub max_shift_px: f64,
}

impl Default for ColumnSettings {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            min_area_px: 4,
            edge_px: 5.0,
            weighted_centre: false,
            refine: true,
            max_shift_px: 3.0,
        }
    }
}

impl ColumnSettings {
    /// # Errors
    /// Names the first setting out of range.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let wrong = |key: &str, value: &dyn std::fmt::Display, expected: &str| {
            Err(InvalidSetting::new(format!("{key_prefix}.{key}"), value, expected))
        };
        if !(self.threshold > 0.0 && self.threshold < 1.0) {
            return wrong("threshold", &self.threshold, "above 0, below 1");
        }
        if !(1..=1_000_000).contains(&self.min_area_px) {
            return wrong("min_area_px", &self.min_area_px, "1 ..= 1000000");
        }
        if !(0.0..=1000.0).contains(&self.edge_px) {
            return wrong("edge_px", &self.edge_px, "0 ..= 1000");
        }
        if !(self.max_shift_px > 0.0 && self.max_shift_px <= 100.0) {
            return wrong("max_shift_px", &self.max_shift_px, "above 0, up to 100");
        }
        Ok(())
    }
}

/// Probabilities that are no classification of the model image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    #[error("expected probabilities of at least 2 classes, found {found}")]
    Classes { found: usize },
    #[error("expected probabilities of the model image's {image:?} px, found {found:?}")]
    Shape { image: [usize; 2], found: [usize; 2] },
}

/// Finds the columns in class probabilities, without refinement.
///
/// A component is a set of pixels above the threshold that touch by their sides, one class at a time; its centre is the
/// mean position of its pixels (AtomAI's, from the binary mask) or the probability-weighted one. Components that hold a
/// masked pixel are cut off by it and dropped.
///
/// # Shapes
/// `probability` `[class, row, col]` and `valid` `[row, col]`, both at the model's scale (padding included, masked) →
/// columns in frame pixels, B first, each class in the order of its topmost pixels. NaN probabilities are below any threshold.
///
/// # Errors
/// When there are fewer than two classes, or the shapes differ.
pub fn find_columns(
    probability: &Array3<f32>,
    valid: &Array2<bool>,
    map: &PixelMap,
    settings: &ColumnSettings,
) -> Result<Vec<Column>, ColumnError> {
    let (classes, rows, cols) = probability.dim();
    if classes < 2 {
        return Err(ColumnError::Classes { found: classes });
    }
    if valid.dim() != (rows, cols) {
        return Err(ColumnError::Shape { image: [valid.nrows(), valid.ncols()], found: [rows, cols] });
    }
    // The edge is the measured content's, not that of the padding below and to the right of it.
    let edge = Edge::of(valid);
    let mut columns = Vec::new();
    for sublattice in [Sublattice::B, Sublattice::A] {
        let class = probability.index_axis(Axis(0), sublattice as usize);
        for component in components(class, valid, settings) {
            let centre =
                if settings.weighted_centre { component.weighted_centre() } else { component.centre() };
            let (row, col) = centre;
            if component.masked
                || component.area < settings.min_area_px
                || edge.is_near(row, col, settings.edge_px)
            {
                continue;
            }
            let (row, col) = map.model_to_frame(row, col);
            let confidence = (component.probability / component.area as f64) as f32;
            columns.push(Column { row, col, sublattice, confidence });
        }
    }
    Ok(columns)
}

/// Rows and columns that hold at least one measured pixel.
struct Edge {
    rows: usize,
    cols: usize,
}

impl Edge {
    fn of(valid: &Array2<bool>) -> Self {
        let holds_data = |axis: Axis| {
            valid
                .axis_iter(axis)
                .enumerate()
                .filter(|(_, line)| line.iter().any(|&valid| valid))
                .last()
                .map_or(0, |(i, _)| i + 1)
        };
        Self { rows: holds_data(Axis(0)), cols: holds_data(Axis(1)) }
    }

    /// AtomAI keeps centres at `edge <= position <= length − edge`.
    fn is_near(&self, row: f64, col: f64, edge_px: f64) -> bool {
        let near = |position: f64, length: usize| position < edge_px || position > length as f64 - edge_px;
        near(row, self.rows) || near(col, self.cols)
    }
}

/// Sums over the pixels of one component.
#[derive(Debug, Clone, Copy, Default)]
struct Component {
    area: usize,
    row: f64,
    col: f64,
    probability: f64,
    weighted_row: f64,
    weighted_col: f64,
    masked: bool,
}

impl Component {
    fn centre(&self) -> (f64, f64) {
        (self.row / self.area as f64, self.col / self.area as f64)
    }

    fn weighted_centre(&self) -> (f64, f64) {
        (self.weighted_row / self.probability, self.weighted_col / self.probability)
    }
}

fn components(class: ArrayView2<'_, f32>, valid: &Array2<bool>, settings: &ColumnSettings) -> Vec<Component> {
    let (rows, cols) = class.dim();
    let (Ok(height), Ok(width)) = (u32::try_from(rows), u32::try_from(cols)) else { return Vec::new() };
    let mask: Vec<u8> = class.iter().map(|&probability| u8::from(probability > settings.threshold)).collect();
    let Some(mask) = GrayImage::from_raw(width, height, mask) else { return Vec::new() };
    let labels = connected_components(&mask, Connectivity::Four, Luma([0]));
    let mut components: Vec<Component> = Vec::new();
    for ((((row, col), &probability), &valid), &label) in class.indexed_iter().zip(valid).zip(labels.as_raw())
    {
        // Labels count from 1 in the order of first appearance; 0 is the background.
        let Some(index) = (label as usize).checked_sub(1) else { continue };
        if index >= components.len() {
            components.resize(index + 1, Component::default());
        }
        let (component, probability) = (&mut components[index], f64::from(probability));
        component.area += 1;
        component.row += row as f64;
        component.col += col as f64;
        component.probability += probability;
        component.weighted_row += probability * row as f64;
        component.weighted_col += probability * col as f64;
        component.masked |= !valid;
    }
    components
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(rows: usize, cols: usize) -> Array3<f32> {
        Array3::from_shape_fn((3, rows, cols), |(class, _, _)| if class == 2 { 1.0 } else { 0.0 })
    }

    fn paint(probability: &mut Array3<f32>, class: usize, pixels: &[(usize, usize)], value: f32) {
        for &(row, col) in pixels {
            probability[[class, row, col]] = value;
            probability[[2, row, col]] = 1.0 - value;
        }
    }

    fn unrefined() -> ColumnSettings {
        ColumnSettings { min_area_px: 3, ..ColumnSettings::default() }
    }

    #[test]
    fn hand_worked() {
        let mut probability = blank(40, 50);
        // Touching by a corner only: no part of the component of 4 px, and too small alone.
        paint(&mut probability, 1, &[(10, 10), (10, 11), (11, 11), (12, 11), (13, 12), (13, 13)], 0.8);
        paint(&mut probability, 0, &[(20, 30), (21, 30), (22, 30)], 0.6);
        paint(&mut probability, 0, &[(20, 40), (21, 40), (22, 40)], 0.5);
        paint(&mut probability, 0, &[(30, 30), (30, 31)], 0.9);
        paint(&mut probability, 1, &[(3, 20), (4, 20), (5, 20)], 0.9);
        paint(&mut probability, 1, &[(20, 46), (21, 46), (22, 46)], 0.9);
        let valid = Array2::from_elem((40, 50), true);
        let map = PixelMap { scale_row: 2.0, scale_col: 0.5 };
        let columns = find_columns(&probability, &valid, &map, &unrefined()).unwrap();
        // Dropped: at the threshold, too small, in the edge band (twice).
        let [b, a] = columns.as_slice() else { panic!("{columns:?}") };
        assert_eq!((b.row, b.col, b.sublattice), (42.5, 14.75, Sublattice::B));
        assert_eq!((a.row, a.col, a.sublattice), (2.0 * 11.25 - 0.5, 0.5 * 11.25 - 0.5, Sublattice::A));
        assert!((b.confidence - 0.6).abs() < 1e-6 && (a.confidence - 0.8).abs() < 1e-6);
    }

    #[test]
    fn probabilities_may_weigh_the_centre() {
        let mut probability = blank(20, 20);
        paint(&mut probability, 1, &[(10, 9), (10, 10)], 0.6);
        paint(&mut probability, 1, &[(10, 11)], 0.9);
        let valid = Array2::from_elem((20, 20), true);
        let settings = ColumnSettings { weighted_centre: true, ..unrefined() };
        let columns = find_columns(&probability, &valid, &PixelMap::IDENTITY, &settings).unwrap();
        assert!((columns[0].col - (9.0 * 0.6 + 10.0 * 0.6 + 11.0 * 0.9) / 2.1).abs() < 1e-6);
    }

    #[test]
    fn masked_and_padded_pixels_take_their_columns_along() {
        let mut probability = blank(32, 32);
        paint(&mut probability, 1, &[(10, 10), (10, 11), (11, 10)], 0.9);
        paint(&mut probability, 1, &[(15, 20), (15, 21), (16, 20)], 0.9);
        paint(&mut probability, 1, &[(15, 12), (15, 13), (16, 12)], 0.9);
        let mut valid = Array2::from_elem((32, 32), true);
        valid[[11, 10]] = false;
        // Padding from column 24 on: column 20.3 is then within 5 px of its edge at 24.
        valid.slice_axis_mut(Axis(1), (24..).into()).fill(false);
        let columns = find_columns(&probability, &valid, &PixelMap::IDENTITY, &unrefined()).unwrap();
        assert_eq!(columns.len(), 1);
        assert!((columns[0].col - 37.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn shapes_are_checked_and_nan_is_no_column() {
        let valid = Array2::from_elem((10, 10), true);
        let settings = unrefined();
        let one = Array3::zeros((1, 10, 10));
        assert_eq!(
            find_columns(&one, &valid, &PixelMap::IDENTITY, &settings),
            Err(ColumnError::Classes { found: 1 })
        );
        let error = find_columns(&blank(10, 12), &valid, &PixelMap::IDENTITY, &settings);
        assert_eq!(error, Err(ColumnError::Shape { image: [10, 10], found: [10, 12] }));
        let nan = Array3::from_elem((3, 10, 10), f32::NAN);
        assert_eq!(find_columns(&nan, &valid, &PixelMap::IDENTITY, &settings), Ok(Vec::new()));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        assert!(ColumnSettings::default().validate("columns").is_ok());
        let settings = ColumnSettings { threshold: 1.0, ..ColumnSettings::default() };
        assert_eq!(settings.validate("columns").unwrap_err().key, "columns.threshold");
    }
}
