//! Golden messages: the bytes that version 1 of the wire is. They are only ever added to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod samples;

use bytes::Bytes;
use ferrostem_proto::{EncodeError, Limits, bincode, cbor};
use std::path::PathBuf;

fn golden_path(name: &str, codec: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.{codec}"))
}

/// Every sample with its bytes in both encodings.
fn encoded() -> Vec<(&'static str, &'static str, Bytes)> {
    let mut all = Vec::new();
    let mut push = |name, codec, bytes: Result<Bytes, EncodeError>| all.push((name, codec, bytes.unwrap()));
    for (name, message) in samples::frames() {
        push(name, "cbor", cbor::encode_frames(&message));
        push(name, "bincode", bincode::encode_frames(&message));
    }
    for (name, message) in samples::results() {
        push(name, "cbor", cbor::encode_results(&message));
        push(name, "bincode", bincode::encode_results(&message));
    }
    all
}

#[test]
fn encoding_makes_the_golden_bytes() {
    for (name, codec, bytes) in encoded() {
        let golden = std::fs::read(golden_path(name, codec)).unwrap();
        assert_eq!(bytes, golden, "{name}.{codec}");
    }
}

#[test]
fn decoding_the_golden_bytes_gives_the_message() {
    let limits = Limits::default();
    let read = |name, codec| Bytes::from(std::fs::read(golden_path(name, codec)).unwrap());
    for (name, message) in samples::frames() {
        let expected = format!("{message:?}");
        let decoded = cbor::decode_frames(&read(name, "cbor"), &limits).unwrap();
        assert_eq!(format!("{decoded:?}"), expected, "{name}.cbor");
        let decoded = bincode::decode_frames(&read(name, "bincode"), &limits).unwrap();
        assert_eq!(format!("{decoded:?}"), expected, "{name}.bincode");
    }
    for (name, message) in samples::results() {
        let expected = format!("{message:?}");
        let decoded = cbor::decode_results(&read(name, "cbor"), &limits).unwrap();
        assert_eq!(format!("{decoded:?}"), expected, "{name}.cbor");
        let decoded = bincode::decode_results(&read(name, "bincode"), &limits).unwrap();
        assert_eq!(format!("{decoded:?}"), expected, "{name}.bincode");
    }
}

/// `cargo test -p ferrostem-proto --test golden -- --ignored` after a sample was added.
#[test]
#[ignore = "writes files"]
fn write_the_golden_messages_that_are_missing() {
    for (name, codec, bytes) in encoded() {
        let path = golden_path(name, codec);
        if !path.exists() {
            std::fs::write(path, bytes).unwrap();
        }
    }
}
