//! `result` and `candidates`.

use super::reader::{Entry, Reader, read_fields};
use super::typed_array::{
    read_f32_column, read_f32_grid, read_u8_column, read_u8_grid, write_f32_column, write_f32_grid,
    write_u8_column, write_u8_grid,
};
use super::writer::{Out, Written, write_envelope, write_named_numbers, write_pair};
use crate::array::Grid;
use crate::error::DecodeError;
use crate::message::{
    Calibration, CalibrationSource, Candidate, CandidateKind, CandidatesMessage, ColumnTable, Counters,
    FractionalPosition, GridSpec, MistiltMaps, ModelId, ModelIds, OodMaps, PixelPosition, ResultMessage,
    StagePosition, Timing,
};

/// Room for the message: its arrays, and half a kilobyte a candidate.
pub(super) fn capacity(result: &ResultMessage) -> usize {
    let [rows, cols] = result.p_x.shape();
    let [tile_rows, tile_cols] = result.mistilt.offset_x.shape();
    let windows = 41 * rows * cols;
    let tiles = 33 * tile_rows * tile_cols;
    4096 + windows + tiles + 13 * result.columns.row.len() + 512 * result.candidates.len()
}

pub(super) fn write_result(out: &mut Out, result: &ResultMessage) -> Written {
    let corrected = [("p_corrected_x", &result.p_corrected_x), ("p_corrected_y", &result.p_corrected_y)];
    write_envelope(out, "result", 21 + present(&corrected))?;
    out.str("acquisition")?.str(&result.acquisition)?;
    out.str("seq")?.u64(result.seq)?;
    out.str("t_acquired_ns")?.u64(result.t_acquired_ns)?;
    write_grid_spec(out.str("grid")?, &result.grid)?;
    write_f32_grid(out.str("p_x")?, &result.p_x)?;
    write_f32_grid(out.str("p_y")?, &result.p_y)?;
    write_present(out, &corrected)?;
    write_f32_grid(out.str("p_sigma")?, &result.p_sigma)?;
    write_f32_grid(out.str("cell_a")?, &result.cell_a)?;
    write_f32_grid(out.str("cell_b")?, &result.cell_b)?;
    write_f32_grid(out.str("cell_angle")?, &result.cell_angle)?;
    write_f32_grid(out.str("cell_area")?, &result.cell_area)?;
    out.str("ood")?.map(2)?;
    write_f32_grid(out.str("p_value")?, &result.ood.p_value)?;
    write_u8_grid(out.str("flag")?, &result.ood.flag)?;
    write_columns(out.str("columns")?, &result.columns)?;
    write_mistilt(out.str("mistilt")?, &result.mistilt)?;
    write_candidate_list(out.str("candidates")?, &result.candidates)?;
    write_model_ids(out.str("model")?, &result.model)?;
    out.str("calibration")?.map(2)?;
    write_pair(out.str("pixel_size_pm")?, result.calibration.pixel_size_pm)?;
    out.str("source")?.str(result.calibration.source.name())?;
    out.str("timing")?.map(3)?;
    out.str("t_received_ns")?.u64(result.timing.t_received_ns)?;
    out.str("t_published_ns")?.u64(result.timing.t_published_ns)?;
    write_named_numbers(out.str("stages_us")?, &result.timing.stages_us)?;
    write_counters(out.str("counters")?, &result.counters)
}

pub(super) fn read_result(reader: &mut Reader) -> Result<ResultMessage, DecodeError> {
    read_fields!(reader {
        acquisition: Reader::string,
        seq: Reader::uint,
        t_acquired_ns: Reader::uint,
        grid: read_grid_spec,
        p_x: read_f32_grid,
        p_y: read_f32_grid,
        p_sigma: read_f32_grid,
        cell_a: read_f32_grid,
        cell_b: read_f32_grid,
        cell_angle: read_f32_grid,
        cell_area: read_f32_grid,
        ood: read_ood,
        columns: read_columns,
        mistilt: read_mistilt,
        candidates: read_candidate_list,
        model: read_model_ids,
        calibration: read_calibration,
        timing: read_timing,
        counters: read_counters,
    } optional {
        p_corrected_x: read_f32_grid,
        p_corrected_y: read_f32_grid,
    });
    Ok(ResultMessage {
        acquisition,
        seq,
        t_acquired_ns,
        grid,
        p_x,
        p_y,
        p_corrected_x: p_corrected_x.unwrap_or_default(),
        p_corrected_y: p_corrected_y.unwrap_or_default(),
        p_sigma,
        cell_a,
        cell_b,
        cell_angle,
        cell_area,
        ood,
        columns,
        mistilt,
        candidates,
        model,
        calibration,
        timing,
        counters,
    })
}

pub(super) fn write_candidates(out: &mut Out, message: &CandidatesMessage) -> Written {
    write_envelope(out, "candidates", 6)?;
    out.str("acquisition")?.str(&message.acquisition)?;
    out.str("seq")?.u64(message.seq)?;
    out.str("t_published_ns")?.u64(message.t_published_ns)?;
    write_candidate_list(out.str("candidates")?, &message.candidates)
}

pub(super) fn read_candidates(reader: &mut Reader) -> Result<CandidatesMessage, DecodeError> {
    read_fields!(reader {
        acquisition: Reader::string,
        seq: Reader::uint,
        t_published_ns: Reader::uint,
        candidates: read_candidate_list,
    });
    Ok(CandidatesMessage { acquisition, seq, t_published_ns, candidates })
}

fn write_grid_spec(out: &mut Out, grid: &GridSpec) -> Written {
    out.map(6)?;
    out.str("row0")?.f64(grid.row0)?;
    out.str("col0")?.f64(grid.col0)?;
    out.str("step_row")?.f64(grid.step_row)?;
    out.str("step_col")?.f64(grid.step_col)?;
    out.str("rows")?.u32(grid.rows)?;
    out.str("cols")?.u32(grid.cols)?;
    Ok(())
}

fn read_grid_spec(reader: &mut Reader) -> Result<GridSpec, DecodeError> {
    read_fields!(reader {
        row0: Reader::float,
        col0: Reader::float,
        step_row: Reader::float,
        step_col: Reader::float,
        rows: Reader::uint32,
        cols: Reader::uint32,
    });
    Ok(GridSpec { row0, col0, step_row, step_col, rows, cols })
}

fn read_ood(reader: &mut Reader) -> Result<OodMaps, DecodeError> {
    read_fields!(reader { p_value: read_f32_grid, flag: read_u8_grid });
    Ok(OodMaps { p_value, flag })
}

fn write_columns(out: &mut Out, columns: &ColumnTable) -> Written {
    out.map(4)?;
    write_f32_column(out.str("row")?, &columns.row)?;
    write_f32_column(out.str("col")?, &columns.col)?;
    write_u8_column(out.str("class")?, &columns.class)?;
    write_f32_column(out.str("confidence")?, &columns.confidence)
}

fn read_columns(reader: &mut Reader) -> Result<ColumnTable, DecodeError> {
    read_fields!(reader {
        row: read_f32_column,
        col: read_f32_column,
        class: read_u8_column,
        confidence: read_f32_column,
    });
    Ok(ColumnTable { row, col, class, confidence })
}

fn write_mistilt(out: &mut Out, mistilt: &MistiltMaps) -> Written {
    let added = [
        ("offset_xx", &mistilt.offset_xx),
        ("offset_xy", &mistilt.offset_xy),
        ("offset_yy", &mistilt.offset_yy),
        ("tilt_x", &mistilt.tilt_x),
        ("tilt_y", &mistilt.tilt_y),
    ];
    out.map(5 + present(&added) + u64::from(mistilt.tilt_source.is_some()))?;
    write_grid_spec(out.str("tiles")?, &mistilt.tiles)?;
    write_f32_grid(out.str("offset_x")?, &mistilt.offset_x)?;
    write_f32_grid(out.str("offset_y")?, &mistilt.offset_y)?;
    write_f32_grid(out.str("p_value")?, &mistilt.p_value)?;
    write_u8_grid(out.str("state")?, &mistilt.state)?;
    write_present(out, &added)?;
    if let Some(source) = &mistilt.tilt_source {
        out.str("tilt_source")?.str(source)?;
    }
    Ok(())
}

/// How many of these maps, which came later than the others, were made at all.
fn present(maps: &[(&str, &Grid<f32>)]) -> u64 {
    maps.iter().filter(|(_, map)| map.shape() != [0, 0]).count() as u64
}

fn write_present(out: &mut Out, maps: &[(&str, &Grid<f32>)]) -> Written {
    for (name, map) in maps.iter().filter(|(_, map)| map.shape() != [0, 0]) {
        write_f32_grid(out.str(name)?, map)?;
    }
    Ok(())
}

fn read_mistilt(reader: &mut Reader) -> Result<MistiltMaps, DecodeError> {
    read_fields!(reader {
        tiles: read_grid_spec,
        offset_x: read_f32_grid,
        offset_y: read_f32_grid,
        p_value: read_f32_grid,
        state: read_u8_grid,
    } optional {
        offset_xx: read_f32_grid,
        offset_xy: read_f32_grid,
        offset_yy: read_f32_grid,
        tilt_x: read_f32_grid,
        tilt_y: read_f32_grid,
        tilt_source: Reader::string,
    });
    Ok(MistiltMaps {
        tiles,
        offset_x,
        offset_y,
        p_value,
        state,
        offset_xx: offset_xx.unwrap_or_default(),
        offset_xy: offset_xy.unwrap_or_default(),
        offset_yy: offset_yy.unwrap_or_default(),
        tilt_x: tilt_x.unwrap_or_default(),
        tilt_y: tilt_y.unwrap_or_default(),
        tilt_source,
    })
}

fn write_candidate_list(out: &mut Out, candidates: &[Candidate]) -> Written {
    out.array(candidates.len() as u64)?;
    for candidate in candidates {
        write_candidate(out, candidate)?;
    }
    Ok(())
}

fn read_candidate_list(reader: &mut Reader) -> Result<Vec<Candidate>, DecodeError> {
    let mut candidates = Vec::new();
    reader.array(|reader, _| {
        // A later writer's kind means nothing here; the candidates of the others do.
        candidates.extend(read_candidate(reader)?);
        Ok(())
    })?;
    Ok(candidates)
}

fn write_candidate(out: &mut Out, candidate: &Candidate) -> Written {
    out.map(12)?;
    out.str("id")?.u64(candidate.id)?;
    out.str("kind")?.str(candidate.kind.name())?;
    out.str("px")?.map(2)?;
    out.str("row")?.f64(candidate.px.row)?;
    out.str("col")?.f64(candidate.px.col)?;
    out.str("frac")?.map(2)?;
    out.str("y")?.f64(candidate.frac.y)?;
    out.str("x")?.f64(candidate.frac.x)?;
    out.str("nm")?.map(3)?;
    out.str("x")?.f64(candidate.nm.x)?;
    out.str("y")?.f64(candidate.nm.y)?;
    out.str("rotation_rad")?.f64(candidate.nm.rotation_rad)?;
    out.str("score")?.f64(candidate.score)?;
    out.str("p_value")?.f64(candidate.p_value)?;
    out.str("reason")?.str(&candidate.reason)?;
    out.str("first_seq")?.u64(candidate.first_seq)?;
    out.str("seq")?.u64(candidate.seq)?;
    out.str("valid_until_ns")?.u64(candidate.valid_until_ns)?;
    out.str("model")?.str(&candidate.model)?;
    Ok(())
}

/// `None` for a candidate of a kind that is not known.
fn read_candidate(reader: &mut Reader) -> Result<Option<Candidate>, DecodeError> {
    read_fields!(reader {
        id: Reader::uint,
        kind: read_kind,
        px: read_pixel_position,
        frac: read_fractional_position,
        nm: read_stage_position,
        score: Reader::float,
        p_value: Reader::float,
        reason: Reader::string,
        first_seq: Reader::uint,
        seq: Reader::uint,
        valid_until_ns: Reader::uint,
        model: Reader::string,
    });
    Ok(kind.map(|kind| Candidate {
        id,
        kind,
        px,
        frac,
        nm,
        score,
        p_value,
        reason,
        first_seq,
        seq,
        valid_until_ns,
        model,
    }))
}

fn read_kind(reader: &mut Reader) -> Result<Option<CandidateKind>, DecodeError> {
    Ok(CandidateKind::from_name(&reader.text()?))
}

fn read_pixel_position(reader: &mut Reader) -> Result<PixelPosition, DecodeError> {
    read_fields!(reader { row: Reader::float, col: Reader::float });
    Ok(PixelPosition { row, col })
}

fn read_fractional_position(reader: &mut Reader) -> Result<FractionalPosition, DecodeError> {
    read_fields!(reader { y: Reader::float, x: Reader::float });
    Ok(FractionalPosition { y, x })
}

fn read_stage_position(reader: &mut Reader) -> Result<StagePosition, DecodeError> {
    read_fields!(reader { x: Reader::float, y: Reader::float, rotation_rad: Reader::float });
    Ok(StagePosition { x, y, rotation_rad })
}

pub(super) fn write_model_ids(out: &mut Out, models: &ModelIds) -> Written {
    out.map(u64::from(models.dcnn.is_some()) + u64::from(models.fcnn.is_some()))?;
    for (role, model) in [("dcnn", &models.dcnn), ("fcnn", &models.fcnn)] {
        if let Some(ModelId { name, sha256 }) = model {
            out.str(role)?.map(2)?.str("name")?.str(name)?.str("sha256")?.str(sha256)?;
        }
    }
    Ok(())
}

pub(super) fn read_model_ids(reader: &mut Reader) -> Result<ModelIds, DecodeError> {
    read_fields!(reader {} optional { dcnn: read_model_id, fcnn: read_model_id, });
    Ok(ModelIds { dcnn, fcnn })
}

fn read_model_id(reader: &mut Reader) -> Result<ModelId, DecodeError> {
    read_fields!(reader { name: Reader::string, sha256: Reader::string });
    Ok(ModelId { name, sha256 })
}

fn read_calibration(reader: &mut Reader) -> Result<Calibration, DecodeError> {
    read_fields!(reader { pixel_size_pm: Reader::pair_of_floats, source: read_source });
    Ok(Calibration { pixel_size_pm, source })
}

fn read_source(reader: &mut Reader) -> Result<CalibrationSource, DecodeError> {
    let name = reader.text()?;
    CalibrationSource::from_name(&name)
        .ok_or_else(|| reader.mismatch("frame, config, lattice or none", &name))
}

fn read_timing(reader: &mut Reader) -> Result<Timing, DecodeError> {
    read_fields!(reader {
        t_received_ns: Reader::uint,
        t_published_ns: Reader::uint,
        stages_us: read_named_numbers,
    });
    Ok(Timing { t_received_ns, t_published_ns, stages_us })
}

pub(super) fn read_named_numbers(reader: &mut Reader) -> Result<Vec<(String, u64)>, DecodeError> {
    let mut numbers = Vec::new();
    reader.map(|reader, key| {
        numbers.push((key.to_owned(), reader.uint()?));
        Ok(Entry::Read)
    })?;
    Ok(numbers)
}

pub(super) fn write_counters(out: &mut Out, counters: &Counters) -> Written {
    let totals = counters.totals();
    out.map(totals.len() as u64)?;
    for (name, total) in totals {
        out.str(name)?.u64(total)?;
    }
    Ok(())
}

/// Counters may be added without a new version of the wire: what is missing is zero.
pub(super) fn read_counters(reader: &mut Reader) -> Result<Counters, DecodeError> {
    read_fields!(reader {} optional {
        received: Reader::uint,
        processed: Reader::uint,
        superseded: Reader::uint,
        gaps: Reader::uint,
        repeats: Reader::uint,
        restarts: Reader::uint,
        rejected: Reader::uint,
        partial_skipped: Reader::uint,
        publish_dropped: Reader::uint,
        record_dropped: Reader::uint,
    });
    Ok(Counters {
        received: received.unwrap_or(0),
        processed: processed.unwrap_or(0),
        superseded: superseded.unwrap_or(0),
        gaps: gaps.unwrap_or(0),
        repeats: repeats.unwrap_or(0),
        restarts: restarts.unwrap_or(0),
        rejected: rejected.unwrap_or(0),
        partial_skipped: partial_skipped.unwrap_or(0),
        publish_dropped: publish_dropped.unwrap_or(0),
        record_dropped: record_dropped.unwrap_or(0),
    })
}
