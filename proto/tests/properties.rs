//! What holds for every message and for every input.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod samples;

#[path = "../fuzz/entry.rs"]
mod entry;

use bytes::Bytes;
use ferrostem_proto::{DecodeError, FramesMessage, Limits, bincode, cbor};
use proptest::prelude::*;
use samples::Random;

proptest! {
    #[test]
    fn decoding_undoes_encoding(seed: u64) {
        let limits = Limits::default();
        let mut random = Random(seed);
        let message = random.frames_message();
        let expected = format!("{message:?}");
        let bytes = cbor::encode_frames(&message).unwrap();
        prop_assert_eq!(&format!("{:?}", cbor::decode_frames(&bytes, &limits).unwrap()), &expected);
        let bytes = bincode::encode_frames(&message).unwrap();
        prop_assert_eq!(&format!("{:?}", bincode::decode_frames(&bytes, &limits).unwrap()), &expected);

        let message = random.results_message();
        let expected = format!("{message:?}");
        let bytes = cbor::encode_results(&message).unwrap();
        prop_assert_eq!(&format!("{:?}", cbor::decode_results(&bytes, &limits).unwrap()), &expected);
        let bytes = bincode::encode_results(&message).unwrap();
        prop_assert_eq!(&format!("{:?}", bincode::decode_results(&bytes, &limits).unwrap()), &expected);
    }

    #[test]
    fn a_message_cut_short_is_truncated(seed: u64) {
        let limits = Limits::default();
        let mut random = Random(seed);
        let frame = cbor::encode_frames(&random.frames_message()).unwrap();
        let cut = frame.slice(..random.below(frame.len()));
        let error = cbor::decode_frames(&cut, &limits).unwrap_err();
        prop_assert!(matches!(error, DecodeError::Truncated { .. }), "{}", error);
        let result = bincode::encode_results(&random.results_message()).unwrap();
        let cut = result.slice(..random.below(result.len()));
        prop_assert!(bincode::decode_results(&cut, &limits).is_err());
    }

    #[test]
    fn random_bytes_are_refused_or_read_never_more(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        entry::decode_as_everything(&bytes);
    }
}

fn golden() -> Vec<(String, Bytes)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
    let mut golden: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, Bytes::from(std::fs::read(entry.path()).unwrap()))
        })
        .collect();
    golden.sort();
    assert!(golden.len() >= 18, "the golden messages are there");
    golden
}

#[test]
fn golden_messages_cut_at_every_byte_are_refused() {
    let limits = Limits::default();
    for (name, bytes) in golden() {
        for end in 0..bytes.len() {
            let cut = bytes.slice(..end);
            if name.ends_with(".cbor") {
                for error in [
                    cbor::decode_frames(&cut, &limits).unwrap_err(),
                    cbor::decode_results(&cut, &limits).unwrap_err(),
                ] {
                    assert!(matches!(error, DecodeError::Truncated { .. }), "{name} cut at {end}: {error}");
                }
            } else {
                assert!(bincode::decode_frames(&cut, &limits).is_err(), "{name} cut at {end}");
                assert!(bincode::decode_results(&cut, &limits).is_err(), "{name} cut at {end}");
            }
        }
    }
}

#[test]
fn golden_messages_with_random_damage_are_refused_or_read_never_more() {
    let mut random = Random(1);
    for (_, bytes) in golden() {
        for _ in 0..1500 {
            let mut damaged = bytes.to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(damaged.len());
                match random.below(4) {
                    0 => damaged[at] = random.bits() as u8,
                    1 => damaged[at] ^= 1 << random.below(8),
                    2 => damaged.insert(at, random.bits() as u8),
                    _ => drop(damaged.remove(at)),
                }
            }
            entry::decode_as_everything(&damaged);
        }
    }
}

#[test]
fn pixels_share_the_bytes_of_their_message() {
    let message = samples::frames().remove(0).1;
    let bytes = cbor::encode_frames(&message).unwrap();
    let FramesMessage::Frame(frame) = cbor::decode_frames(&bytes, &Limits::default()).unwrap() else {
        panic!("the first sample is a frame");
    };
    assert!(bytes.as_ptr_range().contains(&frame.data.bytes().as_ptr()));
}
