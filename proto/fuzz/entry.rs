//! Shared by the fuzz target and by the test that runs it on mutated golden messages.
#![allow(clippy::expect_used, reason = "a test")]

use bytes::Bytes;
use ferrostem_proto::control::ControlRequest;
use ferrostem_proto::{Limits, bincode, cbor, detect, recipe};

/// Decodes `data` as everything that it could be. Nothing may panic, and what decodes must encode and decode again
/// to the same message.
pub fn decode_as_everything(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    // Small limits, so that a short input can reach them.
    let limits = Limits { max_message_bytes: 1 << 16, max_dimension: 1 << 12, ..Limits::default() };
    if let Ok(message) = cbor::decode_frames(&bytes, &limits) {
        let encoded = cbor::encode_frames(&message).expect("what was decoded can be encoded");
        let again =
            cbor::decode_frames(&encoded, &Limits::default()).expect("what was encoded can be decoded");
        assert_eq!(format!("{again:?}"), format!("{message:?}"));
    }
    if let Ok(message) = cbor::decode_results(&bytes, &limits) {
        let encoded = cbor::encode_results(&message).expect("what was decoded can be encoded");
        let again =
            cbor::decode_results(&encoded, &Limits::default()).expect("what was encoded can be decoded");
        assert_eq!(format!("{again:?}"), format!("{message:?}"));
    }
    let _ = bincode::decode_frames(&bytes, &limits);
    let _ = bincode::decode_results(&bytes, &limits);
    let _ = ControlRequest::parse(data, &limits);
    // The first byte says where the parts of a multipart message end.
    if let Some((&cut, rest)) = data.split_first() {
        let (head, tail) = rest.split_at(usize::from(cut).min(rest.len()));
        let parts = [Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)];
        let _ = detect(&parts);
        let _ = recipe::decode_recipe(&parts[0], &parts[1], 0, &limits);
    }
}
