//! The writing side: an encoder into memory, which fails only on what a decoder would refuse.

use crate::error::EncodeError;
use crate::message::WIRE_VERSION;
use bytes::Bytes;
use minicbor::Encoder;
use std::convert::Infallible;

pub(super) type Out = Encoder<Vec<u8>>;
pub(super) type Written = Result<(), minicbor::encode::Error<Infallible>>;

/// Runs `write` into a buffer with room for `capacity` bytes.
pub(super) fn finish(capacity: usize, write: impl FnOnce(&mut Out) -> Written) -> Result<Bytes, EncodeError> {
    let mut encoder = Encoder::new(Vec::with_capacity(capacity));
    write(&mut encoder).map_err(|error| EncodeError::Codec { codec: "CBOR", reason: error.to_string() })?;
    Ok(encoder.into_writer().into())
}

/// Opens a message's map of `entries` keys, of which `type` and `v` are the first two.
pub(super) fn write_envelope(out: &mut Out, kind: &str, entries: u64) -> Written {
    out.map(entries)?.str("type")?.str(kind)?.str("v")?.u64(WIRE_VERSION)?;
    Ok(())
}

pub(super) fn write_pair(out: &mut Out, [first, second]: [f64; 2]) -> Written {
    out.array(2)?.f64(first)?.f64(second)?;
    Ok(())
}

/// A map from names to numbers, in the order given.
pub(super) fn write_named_numbers(out: &mut Out, numbers: &[(String, u64)]) -> Written {
    out.map(numbers.len() as u64)?;
    for (index, (name, number)) in numbers.iter().enumerate() {
        if numbers.iter().take(index).any(|(earlier, _)| earlier == name) {
            return Err(minicbor::encode::Error::message(format!("{name:?} is named twice")));
        }
        out.str(name)?.u64(*number)?;
    }
    Ok(())
}
