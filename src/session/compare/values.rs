//! Differences of the maps, value by value.

use super::{FrameName, Tolerances};
use crate::session::maps::{Map, MapValues, tile_maps, window_maps};
use ferrostem_proto::ResultMessage;
use serde::Serialize;

/// The largest difference of a quantity, and where it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worst {
    pub frame: FrameName,
    /// In the grid.
    pub row: usize,
    pub col: usize,
    pub a: f64,
    pub b: f64,
}

/// How one map differs, over all frames.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantityDifference {
    pub name: &'static str,
    pub units: &'static str,
    pub tolerance: f64,
    /// Windows or tiles of the results in both.
    pub values: u64,
    /// Those that differ by more than the tolerance; without those below.
    pub differing: u64,
    /// Those that are NaN in one session only.
    pub nan_mismatches: u64,
    /// Results that have this map in one session only.
    pub maps_missing: u64,
    /// Of the values that are numbers in both.
    pub max_abs: f64,
    pub rms: f64,
    pub worst: Option<Worst>,
}

impl QuantityDifference {
    /// Whether nothing differs by more than the tolerance.
    pub const fn is_none(&self) -> bool {
        self.differing == 0 && self.nan_mismatches == 0 && self.maps_missing == 0
    }
}

/// The differences so far, in the order of the maps.
pub(super) struct Quantities<'a> {
    tolerances: &'a Tolerances,
    /// With the sum of squares and the number of finite pairs behind `rms`.
    quantities: Vec<(QuantityDifference, f64, u64)>,
}

impl<'a> Quantities<'a> {
    pub(super) const fn new(tolerances: &'a Tolerances) -> Self {
        Self { tolerances, quantities: Vec::new() }
    }

    /// Adds two results on the same grid.
    pub(super) fn add(&mut self, frame: &FrameName, a: &ResultMessage, b: &ResultMessage) {
        let maps = |result| window_maps(result).into_iter().chain(tile_maps(result));
        for (number, (a, b)) in maps(a).zip(maps(b)).enumerate() {
            if self.quantities.len() == number {
                let tolerance = self.tolerances.of(a.name);
                self.quantities.push((QuantityDifference::new(&a, tolerance), 0.0, 0));
            }
            if let Some((difference, squares, finite)) = self.quantities.get_mut(number) {
                difference.add(frame, (&a.values, &b.values), squares, finite);
            }
        }
    }

    pub(super) fn into_differences(self) -> Vec<QuantityDifference> {
        let finish = |(difference, squares, finite): (QuantityDifference, f64, u64)| {
            let rms = if finite == 0 { 0.0 } else { (squares / finite as f64).sqrt() };
            QuantityDifference { rms, ..difference }
        };
        self.quantities.into_iter().map(finish).collect()
    }
}

impl QuantityDifference {
    const fn new(map: &Map, tolerance: f64) -> Self {
        Self {
            name: map.name,
            units: map.units,
            tolerance,
            values: 0,
            differing: 0,
            nan_mismatches: 0,
            maps_missing: 0,
            max_abs: 0.0,
            rms: 0.0,
            worst: None,
        }
    }

    fn add(
        &mut self,
        frame: &FrameName,
        (a, b): (&MapValues, &MapValues),
        squares: &mut f64,
        finite: &mut u64,
    ) {
        if a.shape() != b.shape() {
            self.maps_missing += 1;
            return;
        }
        let cols = a.shape()[1].max(1);
        for (index, (a, b)) in numbers(a).into_iter().zip(numbers(b)).enumerate() {
            self.values += 1;
            if a.is_nan() || b.is_nan() {
                self.nan_mismatches += u64::from(a.is_nan() != b.is_nan());
                continue;
            }
            // Equal infinities do not differ.
            let difference = if a == b { 0.0 } else { (a - b).abs() };
            self.differing += u64::from(difference > self.tolerance);
            *squares += difference * difference;
            *finite += 1;
            if difference > self.max_abs {
                self.max_abs = difference;
                self.worst = Some(Worst { frame: frame.clone(), row: index / cols, col: index % cols, a, b });
            }
        }
    }
}

fn numbers(values: &MapValues) -> Vec<f64> {
    match values {
        MapValues::Real(grid) => grid.values().iter().map(|&value| f64::from(value)).collect(),
        MapValues::Code(grid) => grid.values().iter().map(|&value| f64::from(value)).collect(),
    }
}
