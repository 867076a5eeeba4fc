//! The schema and the golden messages agree.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod samples;

use cddl::validate_cbor_from_slice;

const SCHEMA: &str = include_str!("../ferrostem.cddl");

/// The schema with `message` narrowed to one kind, so that an error names what is wrong in it.
fn schema_of(kind: &str) -> String {
    let all = "message = frame / begin / end / result / candidates / status";
    assert!(SCHEMA.contains(all));
    SCHEMA.replace(all, &format!("message = {kind}"))
}

fn golden() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
    let mut golden: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .filter_map(|(name, bytes)| Some((name.strip_suffix(".cbor")?.to_owned(), bytes)))
        .collect();
    golden.sort();
    golden
}

#[test]
fn golden_messages_are_valid() {
    let golden = golden();
    assert!(golden.len() >= 9);
    for (name, bytes) in golden {
        let kind = name.split('_').next().unwrap();
        if let Err(error) = validate_cbor_from_slice(&schema_of(kind), &bytes, None) {
            panic!("{name}: {error}");
        }
        validate_cbor_from_slice(SCHEMA, &bytes, None).unwrap();
    }
}

#[test]
fn damaged_messages_are_not() {
    let replace = |bytes: &[u8], from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    };
    let golden = golden();
    let bytes = |name: &str| golden.iter().find(|(found, _)| found == name).unwrap().1.clone();
    let damaged = [
        ("frame", replace(&bytes("frame"), b"\x61v\x01", b"\x61v\x02")),
        ("frame", replace(&bytes("frame"), b"\x63seq", b"\x63sec")),
        ("frame", replace(&bytes("frame"), b"\xd8\x28", b"\xd8\x29")),
        ("frame", replace(&bytes("frame"), b"\x67partial", b"\x67halfway")),
        ("result", replace(&bytes("result"), b"\x63p_x", b"\x63p_z")),
        ("result", replace(&bytes("result"), b"\x64kind\x6bdomain_wall", b"\x64kind\x6bdomain-wall")),
        ("result", replace(&bytes("result"), b"\xd8\x55", b"\xd8\x56")),
        ("candidates", replace(&bytes("candidates"), b"\x64frac", b"\x64frak")),
        ("status", replace(&bytes("status"), b"\x64acks", b"\x64axes")),
    ];
    for (index, (kind, bytes)) in damaged.iter().enumerate() {
        assert!(validate_cbor_from_slice(&schema_of(kind), bytes, None).is_err(), "{kind}, case {index}");
    }
}
