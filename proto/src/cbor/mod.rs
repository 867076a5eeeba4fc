//! CBOR (RFC 8949) with typed arrays (RFC 8746): the wire's first encoding.
//!
//! # Features
//! - Pixels are never copied on the way in: a decoded frame shares the bytes of its message.
//! - Numbers are read by value: an integer is taken where a float is expected, and a float where an integer is,
//!   as long as nothing is lost. `null` stands for an absent optional field.
//! - Keys may come in any order, maps, arrays and texts with definite or indefinite length; typed arrays in either
//!   byte order, with half floats widened. Writing is deterministic: `type`, `v`, then the order of the tables in
//!   `proto/README.md`, definite lengths, little-endian arrays.
//!
//! # Error conditions
//! A repeated key, a higher `v`, a missing or mistyped field, a length beyond the message or the [`Limits`], and bytes after
//! the message are [`DecodeError`]s. Nothing is allocated for a length before the bytes behind it have been seen.

mod frames;
mod json;
mod reader;
mod result;
mod status;
mod typed_array;
mod writer;

use crate::error::{DecodeError, EncodeError};
use crate::limits::Limits;
use crate::message::{FramesMessage, ResultsMessage};
use bytes::Bytes;
use reader::Reader;
pub(crate) use typed_array::widen_half;

/// The bytes of a message of the frames lane.
///
/// # Errors
/// Where `user_data` is nested deeper than a decoder accepts.
pub fn encode_frames(message: &FramesMessage) -> Result<Bytes, EncodeError> {
    writer::finish(frames::capacity(message), |encoder| match message {
        FramesMessage::Frame(frame) => frames::write_frame(encoder, frame),
        FramesMessage::Begin(bracket) => frames::write_bracket(encoder, "begin", bracket),
        FramesMessage::End(bracket) => frames::write_bracket(encoder, "end", bracket),
    })
}

/// A message of the frames lane. The pixels share `message`'s bytes.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_frames(message: &Bytes, limits: &Limits) -> Result<FramesMessage, DecodeError> {
    let mut reader = Reader::new(message, limits)?;
    let kind = reader.envelope()?;
    let decoded = match kind.as_ref() {
        "frame" => FramesMessage::Frame(Box::new(frames::read_frame(&mut reader)?)),
        "begin" => FramesMessage::Begin(frames::read_bracket(&mut reader)?),
        "end" => FramesMessage::End(frames::read_bracket(&mut reader)?),
        other => {
            return Err(DecodeError::UnknownType {
                found: other.to_owned(),
                expected: "frame, begin or end",
            });
        }
    };
    reader.finish()?;
    Ok(decoded)
}

/// The bytes of a message of the results lane.
///
/// # Errors
/// Where the parts of a result contradict each other ([`ResultMessage::check`](crate::ResultMessage::check)), or a stage
/// or verdict is named twice.
pub fn encode_results(message: &ResultsMessage) -> Result<Bytes, EncodeError> {
    match message {
        ResultsMessage::Result(result) => {
            result.check()?;
            writer::finish(result::capacity(result), |encoder| result::write_result(encoder, result))
        }
        ResultsMessage::Candidates(candidates) => {
            writer::finish(256 + 512 * candidates.candidates.len(), |encoder| {
                result::write_candidates(encoder, candidates)
            })
        }
        ResultsMessage::Status(status) => {
            writer::finish(1024, |encoder| status::write_status(encoder, status))
        }
    }
}

/// A message of the results lane.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_results(message: &Bytes, limits: &Limits) -> Result<ResultsMessage, DecodeError> {
    let mut reader = Reader::new(message, limits)?;
    let kind = reader.envelope()?;
    let decoded = match kind.as_ref() {
        "result" => {
            let result = result::read_result(&mut reader)?;
            result.check()?;
            ResultsMessage::Result(Box::new(result))
        }
        "candidates" => ResultsMessage::Candidates(result::read_candidates(&mut reader)?),
        "status" => ResultsMessage::Status(Box::new(status::read_status(&mut reader)?)),
        other => {
            let found = other.to_owned();
            return Err(DecodeError::UnknownType { found, expected: "result, candidates or status" });
        }
    };
    reader.finish()?;
    Ok(decoded)
}
