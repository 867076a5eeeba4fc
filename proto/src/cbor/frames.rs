//! `frame`, `begin` and `end`.

use super::json::{read_json, read_json_map, write_json_map};
use super::reader::{Entry, Reader, read_fields};
use super::typed_array::{read_pixels, write_pixels};
use super::writer::{Out, Written, write_envelope, write_pair};
use crate::error::DecodeError;
use crate::message::{Bracket, FrameMessage, FrameState, FramesMessage, JsonMap};

/// Room for the message; `user_data` beyond the usual makes the buffer grow.
pub(super) fn capacity(message: &FramesMessage) -> usize {
    match message {
        FramesMessage::Frame(frame) => 1024 + frame.data.bytes().len(),
        FramesMessage::Begin(_) | FramesMessage::End(_) => 256,
    }
}

pub(super) fn write_frame(out: &mut Out, frame: &FrameMessage) -> Written {
    let optional = [
        frame.acquisition.is_some(),
        frame.t_start_ns.is_some(),
        frame.t_end_ns.is_some(),
        frame.pixel_size_pm.is_some(),
        frame.rotation_rad.is_some(),
        frame.center_nm.is_some(),
        frame.fov_nm.is_some(),
        frame.dwell_us.is_some(),
        frame.channel.is_some(),
        frame.state.is_some(),
        frame.valid_rows.is_some(),
        !frame.user_data.0.is_empty(),
    ];
    let present = optional.iter().filter(|present| **present).count() as u64;
    write_envelope(out, "frame", 4 + present)?;
    if let Some(acquisition) = &frame.acquisition {
        out.str("acquisition")?.str(acquisition)?;
    }
    out.str("seq")?.u64(frame.seq)?;
    if let Some(t_start_ns) = frame.t_start_ns {
        out.str("t_start_ns")?.u64(t_start_ns)?;
    }
    if let Some(t_end_ns) = frame.t_end_ns {
        out.str("t_end_ns")?.u64(t_end_ns)?;
    }
    if let Some(pixel_size_pm) = frame.pixel_size_pm {
        write_pair(out.str("pixel_size_pm")?, pixel_size_pm)?;
    }
    if let Some(rotation_rad) = frame.rotation_rad {
        out.str("rotation_rad")?.f64(rotation_rad)?;
    }
    if let Some(center_nm) = frame.center_nm {
        write_pair(out.str("center_nm")?, center_nm)?;
    }
    if let Some(fov_nm) = frame.fov_nm {
        write_pair(out.str("fov_nm")?, fov_nm)?;
    }
    if let Some(dwell_us) = frame.dwell_us {
        out.str("dwell_us")?.f64(dwell_us)?;
    }
    if let Some(channel) = &frame.channel {
        out.str("channel")?.str(channel)?;
    }
    if let Some(state) = frame.state {
        out.str("state")?.str(state.name())?;
    }
    if let Some([from, to]) = frame.valid_rows {
        out.str("valid_rows")?.array(2)?.u64(from)?.u64(to)?;
    }
    if !frame.user_data.0.is_empty() {
        write_json_map(out.str("user_data")?, &frame.user_data)?;
    }
    // Last, so that a reader has the metadata before megabytes of pixels.
    write_pixels(out.str("data")?, &frame.data)
}

pub(super) fn read_frame(reader: &mut Reader) -> Result<FrameMessage, DecodeError> {
    read_fields!(reader {
        seq: Reader::uint,
        data: read_pixels,
    } optional {
        acquisition: Reader::string,
        t_start_ns: Reader::uint,
        t_end_ns: Reader::uint,
        pixel_size_pm: read_pixel_size,
        rotation_rad: Reader::float,
        center_nm: Reader::pair_of_floats,
        fov_nm: Reader::pair_of_floats,
        dwell_us: Reader::float,
        channel: Reader::string,
        state: read_state,
        valid_rows: read_valid_rows,
        user_data: read_json_map,
    });
    Ok(FrameMessage {
        acquisition,
        seq,
        t_start_ns,
        t_end_ns,
        data,
        pixel_size_pm,
        rotation_rad,
        center_nm,
        fov_nm,
        dwell_us,
        channel,
        state,
        valid_rows,
        user_data: user_data.unwrap_or_default(),
    })
}

/// A single number means square pixels.
fn read_pixel_size(reader: &mut Reader) -> Result<[f64; 2], DecodeError> {
    use minicbor::data::Type;
    if matches!(reader.kind()?, Type::Array | Type::ArrayIndef) {
        return reader.pair_of_floats();
    }
    let size = reader.float()?;
    Ok([size, size])
}

fn read_valid_rows(reader: &mut Reader) -> Result<[u64; 2], DecodeError> {
    reader.pair(Reader::uint)
}

fn read_state(reader: &mut Reader) -> Result<FrameState, DecodeError> {
    let name = reader.text()?;
    FrameState::from_name(&name).ok_or_else(|| reader.mismatch("complete or partial", &name))
}

pub(super) fn write_bracket(out: &mut Out, kind: &str, bracket: &Bracket) -> Written {
    let user_data = !bracket.user_data.0.is_empty();
    write_envelope(out, kind, 3 + u64::from(user_data))?;
    out.str("acquisition")?.str(&bracket.acquisition)?;
    if user_data {
        write_json_map(out.str("user_data")?, &bracket.user_data)?;
    }
    Ok(())
}

/// Everything else that the message carries joins its `user_data`.
pub(super) fn read_bracket(reader: &mut Reader) -> Result<Bracket, DecodeError> {
    let mut acquisition = None;
    let mut user_data = None;
    let mut others = JsonMap::default();
    reader.map(|reader, key| {
        match key {
            "type" | "v" => return Ok(Entry::Unknown),
            "acquisition" => acquisition = Some(reader.string()?),
            "user_data" => user_data = reader.nullable(read_json_map)?,
            other => {
                let value = read_json(reader)?;
                others.0.insert(other.to_owned(), value);
            }
        }
        Ok(Entry::Read)
    })?;
    let Some(acquisition) = acquisition else { return Err(reader.missing("acquisition")) };
    let mut user_data: JsonMap = user_data.unwrap_or_default();
    for (key, value) in others.0 {
        if user_data.0.contains_key(&key) {
            return Err(reader.duplicate(&key));
        }
        user_data.0.insert(key, value);
    }
    Ok(Bracket { acquisition, user_data })
}
