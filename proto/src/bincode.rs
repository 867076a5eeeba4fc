//! bincode 2: the wire's second encoding, for peers in Rust that share this crate's types.
//!
//! A message is the four bytes [`MAGIC`], the version of the wire as one byte, then the message in bincode's standard
//! configuration. The magic tells it from CBOR (a map begins with `0xa0..=0xbf` or `0xd9`) and from JSON. The format does
//! not describe itself: both sides must speak the same version. This file owns the dependency on bincode.

use crate::array::Grid;
use crate::error::{DecodeError, EncodeError};
use crate::limits::Limits;
use crate::message::{FramesMessage, ResultMessage, ResultsMessage, WIRE_VERSION};
use ::bincode::config;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What every message begins with.
pub const MAGIC: [u8; 4] = [0x89, b'F', b'S', b'B'];
const VERSION: u8 = WIRE_VERSION as u8;
/// Set in the byte of the version when [`Additions`] follow the message, so that one that lost them is not taken for whole.
const WITH_ADDITIONS: u8 = 0x80;

/// # Errors
/// Where bincode refuses the value; no message of this crate is known to be refused.
pub fn encode_frames(message: &FramesMessage) -> Result<Bytes, EncodeError> {
    let pixels = match message {
        FramesMessage::Frame(frame) => frame.data.bytes().len(),
        FramesMessage::Begin(_) | FramesMessage::End(_) => 0,
    };
    encode(message, 1024 + pixels)
}

/// A message of the frames lane. The pixels are copied once.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_frames(message: &Bytes, limits: &Limits) -> Result<FramesMessage, DecodeError> {
    let decoded: FramesMessage = decode(message, limits)?;
    if let FramesMessage::Frame(frame) = &decoded {
        limits.check_shape("data", frame.data.shape().map(|side| side as u64))?;
    }
    Ok(decoded)
}

/// # Errors
/// Where the parts of a result contradict each other ([`ResultMessage::check`](crate::ResultMessage::check)).
pub fn encode_results(message: &ResultsMessage) -> Result<Bytes, EncodeError> {
    let ResultsMessage::Result(result) = message else { return encode(message, 4096) };
    result.check()?;
    let additions = Additions::of(result);
    if additions == Additions::default() {
        return encode(message, 4096);
    }
    let mut bytes = encode(message, 4096)?.to_vec();
    if let Some(version) = bytes.get_mut(MAGIC.len()) {
        *version |= WITH_ADDITIONS;
    }
    append(&additions, &mut bytes)?;
    Ok(bytes.into())
}

/// What was added to `result` within version 1. The format does not describe itself, so it stands behind the message, and only where
/// there is something to tell.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Additions {
    p_corrected: [Grid<f32>; 2],
    mistilt_offset_covariance: [Grid<f32>; 3],
    mistilt_tilt: [Grid<f32>; 2],
    mistilt_tilt_source: Option<String>,
}

impl Additions {
    fn of(result: &ResultMessage) -> Self {
        let mistilt = &result.mistilt;
        let own = |grid: &Grid<f32>| grid.clone();
        Self {
            p_corrected: [&result.p_corrected_x, &result.p_corrected_y].map(own),
            mistilt_offset_covariance: [&mistilt.offset_xx, &mistilt.offset_xy, &mistilt.offset_yy].map(own),
            mistilt_tilt: [&mistilt.tilt_x, &mistilt.tilt_y].map(own),
            mistilt_tilt_source: mistilt.tilt_source.clone(),
        }
    }

    fn put_into(self, result: &mut ResultMessage) {
        [result.p_corrected_x, result.p_corrected_y] = self.p_corrected;
        let mistilt = &mut result.mistilt;
        [mistilt.offset_xx, mistilt.offset_xy, mistilt.offset_yy] = self.mistilt_offset_covariance;
        [mistilt.tilt_x, mistilt.tilt_y] = self.mistilt_tilt;
        mistilt.tilt_source = self.mistilt_tilt_source;
    }
}

/// A message of the results lane.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_results(message: &Bytes, limits: &Limits) -> Result<ResultsMessage, DecodeError> {
    let (version, body) = versioned(message, limits)?;
    let (mut decoded, mut rest) = decode_body(body, message.len())?;
    if let ResultsMessage::Result(result) = &mut decoded {
        if version == VERSION | WITH_ADDITIONS {
            let (additions, behind) = decode_body::<Additions>(rest, message.len())?;
            additions.put_into(result);
            rest = behind;
        }
        result.check()?;
    }
    whole(rest)?;
    Ok(decoded)
}

fn encode<T: Serialize>(message: &T, capacity: usize) -> Result<Bytes, EncodeError> {
    let mut bytes = Vec::with_capacity(capacity);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(VERSION);
    append(message, &mut bytes)?;
    Ok(bytes.into())
}

fn append<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
    ::bincode::serde::encode_into_std_write(value, bytes, config::standard())
        .map_err(|error| EncodeError::Codec { codec: "bincode", reason: error.to_string() })?;
    Ok(())
}

fn decode<T: DeserializeOwned>(message: &Bytes, limits: &Limits) -> Result<T, DecodeError> {
    let (_, body) = versioned(message, limits)?;
    let (value, rest) = decode_body(body, message.len())?;
    whole(rest)?;
    Ok(value)
}

fn whole(rest: &[u8]) -> Result<(), DecodeError> {
    match rest.len() {
        0 => Ok(()),
        count => Err(DecodeError::TrailingBytes { count }),
    }
}

/// The byte of the version and the bytes behind it.
fn versioned<'a>(message: &'a Bytes, limits: &Limits) -> Result<(u8, &'a [u8]), DecodeError> {
    limits.check_message(message.len())?;
    let Some((head, body)) = message.split_at_checked(MAGIC.len() + 1) else {
        return Err(DecodeError::Truncated { field: "message".to_owned(), at: message.len() });
    };
    let [magic @ .., version] = head else {
        return Err(DecodeError::Truncated { field: "message".to_owned(), at: message.len() });
    };
    if magic != MAGIC {
        let reason = "the first bytes are not the magic 89 46 53 42".to_owned();
        return Err(DecodeError::Malformed { field: "message".to_owned(), at: 0, reason });
    }
    if *version != VERSION && *version != VERSION | WITH_ADDITIONS {
        return Err(DecodeError::Version { found: u64::from(*version), supported: WIRE_VERSION });
    }
    Ok((*version, body))
}

/// The value, and the bytes behind it.
fn decode_body<T: DeserializeOwned>(body: &[u8], message_len: usize) -> Result<(T, &[u8]), DecodeError> {
    // bincode allocates what a length announces, up to a limit that is a constant of the type, and counts an integer of
    // one byte as the eight it takes in memory. So the limit follows the message's own size, in steps.
    let decoded = match body.len() {
        0..0x1000 => ::bincode::serde::decode_from_slice(body, limited::<0x8000>()),
        0x1000..0x10_0000 => ::bincode::serde::decode_from_slice(body, limited::<0x80_0000>()),
        _ => ::bincode::serde::decode_from_slice(body, limited::<0x8000_0000>()),
    };
    let (value, read) = decoded.map_err(|error| match error {
        ::bincode::error::DecodeError::UnexpectedEnd { .. } => {
            DecodeError::Truncated { field: "message".to_owned(), at: message_len }
        }
        other => DecodeError::Bincode { reason: other.to_string() },
    })?;
    Ok((value, body.get(read..).unwrap_or_default()))
}

const fn limited<const BYTES: usize>()
-> config::Configuration<config::LittleEndian, config::Varint, config::Limit<BYTES>> {
    config::standard().with_limit::<BYTES>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Bracket;

    #[test]
    fn a_later_version_is_refused_by_name() {
        let mut bytes = encode_frames(&FramesMessage::End(Bracket::default())).unwrap().to_vec();
        bytes[4] = 2;
        let error = decode_frames(&bytes.into(), &Limits::default()).unwrap_err();
        assert_eq!(error, DecodeError::Version { found: 2, supported: 1 });
    }

    #[test]
    fn a_hostile_length_fails_before_its_bytes_are_allocated() {
        // A begin message (variant 1) whose acquisition claims 2^40 bytes: varint 253, then eight bytes.
        let mut bytes = [MAGIC.as_slice(), &[1, 1, 253]].concat();
        bytes.extend_from_slice(&(1u64 << 40).to_le_bytes());
        let error = decode_frames(&bytes.into(), &Limits::default()).unwrap_err();
        assert!(matches!(error, DecodeError::Bincode { .. }), "{error}");
    }

    #[test]
    fn pixels_that_do_not_fill_their_shape_are_refused() {
        let frame = crate::FrameMessage::new(7, crate::PixelArray::from_f32([1, 2], &[1.0, 2.0]).unwrap());
        let bytes = encode_frames(&FramesMessage::Frame(Box::new(frame))).unwrap().to_vec();
        // ... dtype (F32 = 8), order (0), rows 1, cols 2, then the length 8 of the bytes.
        let at = bytes.windows(5).position(|window| window == [8, 0, 1, 2, 8]).unwrap();
        let mut wrong = bytes.clone();
        wrong[at + 3] = 3;
        let error = decode_frames(&wrong.into(), &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("1 x 3"), "{error}");
    }
}
