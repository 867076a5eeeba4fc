//! The maps of a result as channels: their names, units, order and values.

use super::error::{At, SessionError};
use super::h5::place;
use super::stack::Stack;
use ferrostem_proto::{Grid, GridSpec, ResultMessage};
use hdf5::{Group, H5Type};
use ndarray::ArrayView2;

/// Channels on the window grid, in the order of the bits of `ResultRow::measured_windows`. Those behind `ood_flag` are only in sessions
/// that have them.
pub(super) const WINDOW_MAPS: &[&str] = &[
    "p_x",
    "p_y",
    "p_sigma",
    "cell_a",
    "cell_b",
    "cell_angle",
    "cell_area",
    "ood_p_value",
    "ood_flag",
    "p_corrected_x",
    "p_corrected_y",
];
/// Channels on the mistilt tiles, in the order of the bits of `ResultRow::measured_tiles`. Those behind `mistilt_state` are only in
/// sessions that have them.
pub(super) const TILE_MAPS: &[&str] = &[
    "mistilt_offset_x",
    "mistilt_offset_y",
    "mistilt_p_value",
    "mistilt_state",
    "mistilt_offset_xx",
    "mistilt_offset_xy",
    "mistilt_offset_yy",
    "mistilt_tilt_x",
    "mistilt_tilt_y",
];

/// How many of [`WINDOW_MAPS`] and [`TILE_MAPS`] every session with results has.
pub(super) const ALWAYS_WINDOWS: usize = 9;
pub(super) const ALWAYS_TILES: usize = 4;
/// Which of [`TILE_MAPS`] is the tilt, and the attribute of it that tells where its calibration comes from.
pub(super) const TILT_MAP: usize = 7;
pub(super) const TILT_SOURCE: &str = "calibration_source";

/// A map of a result and how its channel is labelled.
pub(super) struct Map<'a> {
    pub(super) name: &'static str,
    pub(super) quantity: &'static str,
    pub(super) units: &'static str,
    pub(super) values: MapValues<'a>,
}

pub(super) enum MapValues<'a> {
    Real(&'a Grid<f32>),
    Code(&'a Grid<u8>),
}

impl MapValues<'_> {
    pub(super) const fn shape(&self) -> [usize; 2] {
        match self {
            Self::Real(grid) => grid.shape(),
            Self::Code(grid) => grid.shape(),
        }
    }

    /// Whether nothing was measured.
    pub(super) const fn is_empty(&self) -> bool {
        let [rows, cols] = self.shape();
        rows * cols == 0
    }
}

pub(super) fn window_maps(result: &ResultMessage) -> Vec<Map<'_>> {
    let real = |name, quantity, units, grid| Map { name, quantity, units, values: MapValues::Real(grid) };
    vec![
        real("p_x", "polar displacement, x", "pm", &result.p_x),
        real("p_y", "polar displacement, y", "pm", &result.p_y),
        real("p_sigma", "standard deviation of a component of the polar displacement", "pm", &result.p_sigma),
        real("cell_a", "unit cell edge a", "pm", &result.cell_a),
        real("cell_b", "unit cell edge b", "pm", &result.cell_b),
        real("cell_angle", "angle between a and b", "rad", &result.cell_angle),
        real("cell_area", "unit cell area", "pm^2", &result.cell_area),
        real("ood_p_value", "p-value, small = out of distribution", "1", &result.ood.p_value),
        Map {
            name: "ood_flag",
            quantity: "1 = out of distribution",
            units: "1",
            values: MapValues::Code(&result.ood.flag),
        },
        real(
            "p_corrected_x",
            "polar displacement less the offset of mistilt, x",
            "pm",
            &result.p_corrected_x,
        ),
        real(
            "p_corrected_y",
            "polar displacement less the offset of mistilt, y",
            "pm",
            &result.p_corrected_y,
        ),
    ]
}

/// Those that a session gets channels for when `maps` are the first: the first `always`, and the rest where any of them holds something,
/// so that all keep their numbers.
pub(super) fn recorded(mut maps: Vec<Map<'_>>, always: usize) -> Vec<Map<'_>> {
    if maps.iter().skip(always).all(|map| map.values.is_empty()) {
        maps.truncate(always);
    }
    maps
}

/// How many channels `maps` need at least: up to the last that holds something.
pub(super) fn channels_needed(maps: &[Map]) -> usize {
    maps.iter().rposition(|map| !map.values.is_empty()).map_or(0, |last| last + 1)
}

pub(super) fn tile_maps(result: &ResultMessage) -> Vec<Map<'_>> {
    let real = |name, quantity, units, grid| Map { name, quantity, units, values: MapValues::Real(grid) };
    let mistilt = &result.mistilt;
    vec![
        real("mistilt_offset_x", "offset common to all domains, x", "pm", &result.mistilt.offset_x),
        real("mistilt_offset_y", "offset common to all domains, y", "pm", &result.mistilt.offset_y),
        real("mistilt_p_value", "p-value, small = mistilt", "1", &result.mistilt.p_value),
        Map {
            name: "mistilt_state",
            quantity: "0 not evaluated, 1 consistent, 2 suspect, 3 undetermined",
            units: "1",
            values: MapValues::Code(&result.mistilt.state),
        },
        real("mistilt_offset_xx", "covariance of the offset, xx", "pm^2", &mistilt.offset_xx),
        real("mistilt_offset_xy", "covariance of the offset, xy", "pm^2", &mistilt.offset_xy),
        real("mistilt_offset_yy", "covariance of the offset, yy", "pm^2", &mistilt.offset_yy),
        real("mistilt_tilt_x", "tilt toward where it shifts the columns, x", "mrad", &mistilt.tilt_x),
        real("mistilt_tilt_y", "tilt toward where it shifts the columns, y", "mrad", &mistilt.tilt_y),
    ]
}

/// The maps that hold something, numbered as in `maps`; each must have the shape of `grid`.
pub(super) fn measured<'a>(
    maps: Vec<Map<'a>>,
    grid: &GridSpec,
    group: &Group,
) -> Result<Vec<(usize, Map<'a>)>, SessionError> {
    let expected = [grid.rows as usize, grid.cols as usize];
    let mut measured = Vec::new();
    for (index, map) in maps.into_iter().enumerate() {
        if map.values.is_empty() {
            continue;
        }
        let shape = map.values.shape();
        if shape != expected {
            return Err(SessionError::unexpected(
                format!("{}, {}", place(group), map.name),
                format!("the shape of its grid, {expected:?}"),
                format!("{shape:?}"),
            ));
        }
        measured.push((index, map));
    }
    Ok(measured)
}

pub(super) fn write_map(stack: &Stack, frame: usize, values: &MapValues) -> Result<(), SessionError> {
    fn write<T: H5Type>(stack: &Stack, frame: usize, grid: &Grid<T>) -> Result<(), SessionError> {
        let [rows, cols] = grid.shape();
        ArrayView2::from_shape((rows, cols), grid.values())
            .map_err(hdf5::Error::from)
            .and_then(|view| stack.data.write_slice(view, (frame, 0..rows, 0..cols)))
            .at(|| place(&stack.data))
    }
    match values {
        MapValues::Real(grid) => write(stack, frame, grid),
        MapValues::Code(grid) => write(stack, frame, grid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_in_the_order_of_the_maps() {
        let mut result = ResultMessage::default();
        assert_eq!(TILE_MAPS[ALWAYS_TILES - 1], "mistilt_state");
        assert_eq!(WINDOW_MAPS[ALWAYS_WINDOWS - 1], "ood_flag");
        assert_eq!(recorded(tile_maps(&result), ALWAYS_TILES).len(), ALWAYS_TILES);
        assert_eq!(channels_needed(&tile_maps(&result)), 0);
        result.mistilt.offset_xx = Grid::new(1, 1, vec![1.0]).unwrap_or_default();
        assert_eq!(recorded(tile_maps(&result), ALWAYS_TILES).len(), TILE_MAPS.len());
        assert_eq!(channels_needed(&tile_maps(&result)), 5);
        assert_eq!(TILE_MAPS[TILT_MAP], "mistilt_tilt_x");
        assert!(window_maps(&result).iter().map(|map| map.name).eq(WINDOW_MAPS.iter().copied()));
        assert!(tile_maps(&result).iter().map(|map| map.name).eq(TILE_MAPS.iter().copied()));
    }
}
