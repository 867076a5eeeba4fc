//! Frames and results as rows of the tables in [`layout`](super::layout).

use super::error::SessionError;
use super::h5::{place, text};
use super::layout::{self, CandidateRow, ColumnRow, FrameRow, ResultRow};
use super::measurement::ReceivedFrame;
use ferrostem_proto::{FrameState, ResultMessage};
use hdf5::Group;

/// `frame` as the `order`-th of the file.
pub(super) fn frame_row(frame: &ReceivedFrame, order: u64) -> FrameRow {
    let size = frame.scan.pixel_size_pm.unwrap_or([f64::NAN; 2]);
    let fov = frame.scan.fov_nm.unwrap_or([f64::NAN; 2]);
    let user_data = if frame.user_data.0.is_empty() {
        String::new()
    } else {
        serde_json::Value::Object(frame.user_data.0.clone()).to_string()
    };
    FrameRow {
        order,
        seq: frame.seq,
        t_start_ns: frame.times.start_ns,
        t_end_ns: frame.times.end_ns,
        t_received_ns: frame.times.received_ns,
        pixel_size_row_pm: size[0],
        pixel_size_col_pm: size[1],
        rotation_rad: frame.scan.rotation_rad,
        center_y_nm: frame.scan.center_nm[0],
        center_x_nm: frame.scan.center_nm[1],
        fov_y_nm: fov[0],
        fov_x_nm: fov[1],
        dwell_us: frame.scan.dwell_us.unwrap_or(f64::NAN),
        valid_from: frame.valid_rows.start as u64,
        valid_to: frame.valid_rows.end as u64,
        partial: u8::from(frame.state == FrameState::Partial),
        user_data: text(&user_data),
    }
}

pub(super) fn column_rows(
    frame: u32,
    result: &ResultMessage,
    group: &Group,
) -> Result<Vec<ColumnRow>, SessionError> {
    let columns = &result.columns;
    let n = columns.row.len();
    if [columns.col.len(), columns.class.len(), columns.confidence.len()] != [n; 3] {
        return Err(SessionError::unexpected(
            format!("{}, {}", place(group), layout::COLUMNS),
            format!("four lists of {n} values"),
            format!("{}, {}, {}", columns.col.len(), columns.class.len(), columns.confidence.len()),
        ));
    }
    Ok((0..n)
        .map(|i| ColumnRow {
            frame,
            row: columns.row[i],
            col: columns.col[i],
            class: columns.class[i],
            confidence: columns.confidence[i],
        })
        .collect())
}

pub(super) fn candidate_rows(frame: u32, result: &ResultMessage) -> Vec<CandidateRow> {
    let row = |candidate: &ferrostem_proto::Candidate| CandidateRow {
        frame,
        id: candidate.id,
        kind: text(&json_name(&candidate.kind)),
        px_row: candidate.px.row,
        px_col: candidate.px.col,
        frac_y: candidate.frac.y,
        frac_x: candidate.frac.x,
        nm_x: candidate.nm.x,
        nm_y: candidate.nm.y,
        nm_rotation_rad: candidate.nm.rotation_rad,
        score: candidate.score,
        p_value: candidate.p_value,
        reason: text(&candidate.reason),
        first_seq: candidate.first_seq,
        seq: candidate.seq,
        valid_until_ns: candidate.valid_until_ns,
        model: text(&candidate.model),
    };
    result.candidates.iter().map(row).collect()
}

/// The name that a unit variant has on the wire.
pub(super) fn json_name<T: serde::Serialize>(variant: &T) -> String {
    match serde_json::to_value(variant) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

/// All of the row that does not say where its columns and candidates are.
pub(super) fn result_row(frame: u32, result: &ResultMessage) -> ResultRow {
    let json = |value: serde_json::Result<String>| text(&value.unwrap_or_default());
    let counters = &result.counters;
    ResultRow {
        frame,
        measured_windows: 0,
        measured_tiles: 0,
        seq: result.seq,
        t_acquired_ns: result.t_acquired_ns,
        t_received_ns: result.timing.t_received_ns,
        t_published_ns: result.timing.t_published_ns,
        columns_start: 0,
        columns_count: 0,
        candidates_start: 0,
        candidates_count: 0,
        calibration_row_pm: result.calibration.pixel_size_pm[0],
        calibration_col_pm: result.calibration.pixel_size_pm[1],
        calibration_source: text(&json_name(&result.calibration.source)),
        model: json(serde_json::to_string(&result.model)),
        stages_us: json(serde_json::to_string(&result.timing.stages_us)),
        received: counters.received,
        processed: counters.processed,
        superseded: counters.superseded,
        gaps: counters.gaps,
        repeats: counters.repeats,
        restarts: counters.restarts,
        rejected: counters.rejected,
        partial_skipped: counters.partial_skipped,
        publish_dropped: counters.publish_dropped,
        record_dropped: counters.record_dropped,
    }
}
