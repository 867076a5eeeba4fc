//! From the stages' own types to the message of the wire.

use super::stages::StopWatch;
use crate::flags::Flagged;
use crate::frame::{Column, Fields, Frame};
use ferrostem_proto::{
    Calibration, Candidate, ColumnTable, Counters, Grid, MistiltMaps, ModelIds, OodMaps, ResultMessage, Timing,
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
        mistilt: MistiltMaps {
            tiles: flagged.mistilt.tiles,
            offset_x: grid(flagged.mistilt.verdicts.mapv(|verdict| verdict.offset_x as f32)),
            offset_y: grid(flagged.mistilt.verdicts.mapv(|verdict| verdict.offset_y as f32)),
            p_value: grid(flagged.mistilt.verdicts.mapv(|verdict| verdict.p_value as f32)),
            state: grid(flagged.mistilt.verdicts.mapv(|verdict| verdict.state as u8)),
        },
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
    message
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
