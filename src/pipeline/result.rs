//! From the stages' own types to the message of the wire.

use super::stages::StopWatch;
use crate::flags::Flagged;
use crate::flags::mistilt::{MistiltMap, TileVerdict};
use crate::frame::{Column, Fields, Frame};
use ferrostem_proto::{
    Calibration, Candidate, ColumnTable, Counters, Grid, MistiltMaps, ModelIds, OodMaps, ResultMessage,
    Timing,
};
use ndarray::Array2;

/// Everything that is known about one frame.
pub(super) struct Finished<'a> {
    pub frame: &'a Frame,
    pub fields: &'a Fields,
    pub flagged: Flagged,
    pub candidates: Vec<Candidate>,
    pub calibration: Calibration,
    pub models: ModelIds,
}

/// The message, but for the time of its publication and the counters.
pub(super) fn assemble(finished: Finished<'_>, watch: StopWatch) -> ResultMessage {
    let Finished { frame, fields, flagged, candidates, calibration, models } = finished;
    let mut message = ResultMessage {
        acquisition: frame.acquisition.clone(),
        seq: frame.seq,
        t_acquired_ns: frame.times.end_ns,
        grid: fields.grid,
        ood: OodMaps { p_value: grid(flagged.ood.p_value), flag: grid(flagged.ood.flag) },
        columns: fields.columns.as_deref().map(table).unwrap_or_default(),
        mistilt: mistilt_maps(&flagged.mistilt),
        candidates,
        model: models,
        calibration,
        timing: Timing {
            t_received_ns: frame.times.received_ns,
            t_published_ns: 0,
            stages_us: watch.into_laps(),
        },
        counters: Counters::default(),
        ..ResultMessage::default()
    };
    if let Some(maps) = &fields.polarization {
        message.p_x = grid(maps.p_x.clone());
        message.p_y = grid(maps.p_y.clone());
        message.p_sigma = grid(maps.p_sigma.clone());
        message.cell_a = grid(maps.cell_a.clone());
        message.cell_b = grid(maps.cell_b.clone());
        message.cell_angle = grid(maps.cell_angle.clone());
        message.cell_area = grid(maps.cell_area.clone());
    }
    if let Some(corrected) = flagged.mistilt.corrected {
        message.p_corrected_x = grid(corrected.p_x);
        message.p_corrected_y = grid(corrected.p_y);
    }
    message
}

fn mistilt_maps(map: &MistiltMap) -> MistiltMaps {
    let of = |value: fn(&TileVerdict) -> f64| grid(map.verdicts.map(|verdict| value(verdict) as f32));
    let (tilt_x, tilt_y) = match map.tilt_source {
        Some(_) => (of(|verdict| verdict.tilt_x), of(|verdict| verdict.tilt_y)),
        None => Default::default(),
    };
    MistiltMaps {
        tiles: map.tiles,
        offset_x: of(|verdict| verdict.offset_x),
        offset_y: of(|verdict| verdict.offset_y),
        p_value: of(|verdict| verdict.p_value),
        state: grid(map.verdicts.map(|verdict| verdict.state as u8)),
        offset_xx: of(|verdict| verdict.offset_xx),
        offset_xy: of(|verdict| verdict.offset_xy),
        offset_yy: of(|verdict| verdict.offset_yy),
        tilt_x,
        tilt_y,
        tilt_source: map.tilt_source.clone(),
    }
}

fn grid<T: Clone + Default>(array: Array2<T>) -> Grid<T> {
    let (rows, cols) = array.dim();
    // An array holds as many values as its shape says.
    Grid::new(rows, cols, array.into_iter().collect()).unwrap_or_default()
}

fn table(columns: &[Column]) -> ColumnTable {
    ColumnTable {
        row: columns.iter().map(|column| column.row as f32).collect(),
        col: columns.iter().map(|column| column.col as f32).collect(),
        class: columns.iter().map(|column| column.sublattice as u8).collect(),
        confidence: columns.iter().map(|column| column.confidence).collect(),
    }
}
