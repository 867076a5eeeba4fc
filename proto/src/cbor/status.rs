//! `status`: the heartbeat.

use super::reader::{Reader, read_fields};
use super::result::{read_counters, read_model_ids, read_named_numbers, write_counters, write_model_ids};
use super::writer::{Out, Written, write_envelope, write_named_numbers};
use crate::error::DecodeError;
use crate::message::StatusMessage;

pub(super) fn write_status(out: &mut Out, status: &StatusMessage) -> Written {
    let optional = u64::from(status.last_seq.is_some()) + u64::from(status.recording.is_some());
    write_envelope(out, "status", 15 + optional)?;
    out.str("t_ns")?.u64(status.t_ns)?;
    out.str("version")?.str(&status.version)?;
    out.str("state")?.str(&status.state)?;
    out.str("problems")?.array(status.problems.len() as u64)?;
    for problem in &status.problems {
        out.str(problem)?;
    }
    out.str("device")?.str(&status.device)?;
    out.str("mode")?.str(&status.mode)?;
    write_model_ids(out.str("model")?, &status.model)?;
    out.str("uptime_s")?.f64(status.uptime_s)?;
    out.str("frame_rate_hz")?.f64(status.frame_rate_hz)?;
    out.str("latency_p50_us")?.u64(status.latency_p50_us)?;
    out.str("latency_p99_us")?.u64(status.latency_p99_us)?;
    if let Some(last_seq) = status.last_seq {
        out.str("last_seq")?.u64(last_seq)?;
    }
    if let Some(recording) = &status.recording {
        out.str("recording")?.str(recording)?;
    }
    write_counters(out.str("counters")?, &status.counters)?;
    write_named_numbers(out.str("acks")?, &status.acks)
}

pub(super) fn read_status(reader: &mut Reader) -> Result<StatusMessage, DecodeError> {
    read_fields!(reader {
        t_ns: Reader::uint,
        version: Reader::string,
        state: Reader::string,
        problems: read_texts,
        device: Reader::string,
        mode: Reader::string,
        model: read_model_ids,
        uptime_s: Reader::float,
        frame_rate_hz: Reader::float,
        latency_p50_us: Reader::uint,
        latency_p99_us: Reader::uint,
        counters: read_counters,
        acks: read_named_numbers,
    } optional {
        last_seq: Reader::uint,
        recording: Reader::string,
    });
    Ok(StatusMessage {
        t_ns,
        version,
        state,
        problems,
        device,
        mode,
        model,
        uptime_s,
        frame_rate_hz,
        latency_p50_us,
        latency_p99_us,
        last_seq,
        recording,
        counters,
        acks,
    })
}

fn read_texts(reader: &mut Reader) -> Result<Vec<String>, DecodeError> {
    let mut texts = Vec::new();
    reader.array(|reader, _| {
        texts.push(reader.string()?);
        Ok(())
    })?;
    Ok(texts)
}
