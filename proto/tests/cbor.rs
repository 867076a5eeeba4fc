//! CBOR by hand: what other encoders write, and what hostile ones could.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use bytes::Bytes;
use ferrostem_proto::cbor::{decode_frames, decode_results, encode_frames};
use ferrostem_proto::{
    Bracket, DecodeError, Dtype, FrameMessage, FrameState, FramesMessage, JsonMap, Limits, PixelArray,
};
use minicbor::Encoder;
use minicbor::data::Tag;
use serde_json::json;
use std::convert::Infallible;

type Writer = Encoder<Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<Infallible>>;

fn write(build: impl FnOnce(&mut Writer) -> Written) -> Bytes {
    let mut encoder = Encoder::new(Vec::new());
    build(&mut encoder).unwrap();
    encoder.into_writer().into()
}

/// A frame's map of `extra` entries beyond type, v, seq and a 1 x 2 u8 `data`; `build` writes them.
fn frame_with(extra: u64, build: impl FnOnce(&mut Writer) -> Written) -> Bytes {
    write(|e| {
        e.map(4 + extra)?.str("type")?.str("frame")?.str("v")?.u8(1)?.str("seq")?.u8(5)?;
        e.str("data")?
            .tag(Tag::new(40))?
            .array(2)?
            .array(2)?
            .u8(1)?
            .u8(2)?
            .tag(Tag::new(64))?
            .bytes(&[7, 9])?;
        build(e)
    })
}

/// A frame whose `data` is what `build` writes.
fn frame_of(build: impl FnOnce(&mut Writer) -> Written) -> Bytes {
    write(|e| {
        e.map(4)?.str("type")?.str("frame")?.str("v")?.u8(1)?.str("seq")?.u8(5)?.str("data")?;
        build(e)
    })
}

fn decode(bytes: &Bytes) -> Result<FramesMessage, DecodeError> {
    decode_frames(bytes, &Limits::default())
}

fn frame(bytes: &Bytes) -> FrameMessage {
    match decode(bytes) {
        Ok(FramesMessage::Frame(frame)) => *frame,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_documented_bytes_are_a_frame() {
    // As in proto/README.md.
    let bytes =
        b"\xa4\x64type\x65frame\x61v\x01\x63seq\x05\x64data\xd8\x28\x82\x82\x01\x02\xd8\x40\x42\x07\x09";
    let expected = FrameMessage::new(
        5,
        PixelArray::new(Dtype::U8, ferrostem_proto::ByteOrder::Little, [1, 2], Bytes::from_static(&[7, 9]))
            .unwrap(),
    );
    assert_eq!(frame(&Bytes::from_static(bytes)), expected);
    assert_eq!(encode_frames(&FramesMessage::Frame(Box::new(expected))).unwrap(), bytes.as_slice());
}

#[test]
fn every_typed_array_is_read_in_both_byte_orders() {
    macro_rules! check {
        ($($type:ty: $little:literal, $big:literal;)*) => {$(
            let values: [$type; 2] = [3 as $type, 100 as $type];
            let little: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let big: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
            for (tag, raw) in [($little, little), ($big, big)] {
                let bytes = frame_of(|e| {
                    e.tag(Tag::new(40))?.array(2)?.array(2)?.u8(2)?.u8(1)?.tag(Tag::new(tag))?.bytes(&raw)?;
                    Ok(())
                });
                let frame = frame(&bytes);
                assert_eq!((frame.data.to_f32(), frame.data.shape()), (vec![3.0, 100.0], [2, 1]), "tag {tag}");
                assert_eq!(encode_frames(&FramesMessage::Frame(Box::new(frame))).unwrap().len(), bytes.len());
            }
        )*};
    }
    check! {
        u8: 64, 68; u16: 69, 65; u32: 70, 66; u64: 71, 67;
        i8: 72, 72; i16: 77, 73; i32: 78, 74; i64: 79, 75;
        f32: 85, 81; f64: 86, 82;
    }
    for (tag, raw) in [(84, [0, 0x42, 0x40, 0x56]), (80, [0x42, 0, 0x56, 0x40])] {
        let bytes = frame_of(|e| {
            e.tag(Tag::new(40))?.array(2)?.array(2)?.u8(1)?.u8(2)?.tag(Tag::new(tag))?.bytes(&raw)?;
            Ok(())
        });
        assert_eq!(frame(&bytes).data.to_f32(), [3.0, 100.0], "half floats, tag {tag}");
    }
}

#[test]
fn numbers_are_read_by_value() {
    let bytes = frame_with(5, |e| {
        e.str("pixel_size_pm")?.u8(15)?.str("t_start_ns")?.f64(1e9)?.str("rotation_rad")?.f16(0.5)?;
        e.str("dwell_us")?.i8(-2)?.str("center_nm")?.array(2)?.f32(0.25)?.u32(1 << 24)?;
        Ok(())
    });
    let frame = frame(&bytes);
    assert_eq!((frame.pixel_size_pm, frame.t_start_ns), (Some([15.0, 15.0]), Some(1_000_000_000)));
    assert_eq!((frame.rotation_rad, frame.dwell_us), (Some(0.5), Some(-2.0)));
    assert_eq!(frame.center_nm, Some([0.25, 16_777_216.0]));
    for (key, float) in [("t_end_ns", 0.5), ("t_end_ns", -1.0), ("t_end_ns", f64::NAN), ("t_end_ns", 2e19)] {
        let bytes = frame_with(1, |e| e.str(key)?.f64(float)?.ok());
        assert!(matches!(decode(&bytes), Err(DecodeError::Type { field, .. }) if field == key), "{float}");
    }
    let inexact = frame_with(1, |e| e.str("dwell_us")?.u64((1 << 53) + 1)?.ok());
    assert!(matches!(decode(&inexact), Err(DecodeError::Type { field, .. }) if field == "dwell_us"));
}

#[test]
fn other_encoders_habits_are_understood() {
    // Indefinite lengths, keys in another order, null for absent, unknown keys of any type, self-described CBOR.
    let bytes = write(|e| {
        e.tag(Tag::new(55_799))?.begin_map()?.str("v")?.u8(1)?;
        e.str("unknown")?
            .begin_array()?
            .begin_map()?
            .u8(1)?
            .tag(Tag::new(99))?
            .begin_bytes()?
            .bytes(b"x")?
            .end()?;
        e.end()?.bool(true)?.undefined()?.simple(200)?.end()?;
        e.u8(7)?.array(2)?.null()?.f64(0.5)?;
        e.begin_str()?.str("chan")?.str("nel")?.end()?.begin_str()?.str("HA")?.str("ADF")?.end()?;
        e.str("data")?.tag(Tag::new(40))?.begin_array()?.begin_array()?.u8(1)?.u8(1)?.end()?;
        e.tag(Tag::new(64))?.bytes(&[3])?.end()?;
        e.str("state")?.str("complete")?.str("acquisition")?.null()?.str("seq")?.u8(1)?;
        e.str("type")?.str("frame")?.end()?;
        Ok(())
    });
    let frame = frame(&bytes);
    assert_eq!((frame.channel.as_deref(), frame.state), (Some("HAADF"), Some(FrameState::Complete)));
    assert_eq!((frame.acquisition, frame.data.to_f32()), (None, vec![3.0]));
}

#[test]
fn what_is_wrong_with_the_envelope_is_told() {
    let envelope = |kind: &str, v: u64| {
        write(|e| e.map(3)?.str("type")?.str(kind)?.str("v")?.u64(v)?.str("seq")?.u8(1)?.ok())
    };
    assert_eq!(decode(&envelope("frame", 2)), Err(DecodeError::Version { found: 2, supported: 1 }));
    assert_eq!(decode(&envelope("frame", 0)), Err(DecodeError::Version { found: 0, supported: 1 }));
    assert_eq!(decode(&envelope("frame", 1)), Err(DecodeError::Missing { field: "data".to_owned() }));
    assert!(
        matches!(decode(&envelope("result", 1)), Err(DecodeError::UnknownType { found, .. }) if found == "result")
    );
    assert!(matches!(
        decode_results(&envelope("frame", 1), &Limits::default()),
        Err(DecodeError::UnknownType { found, .. }) if found == "frame"
    ));
    let untyped = write(|e| e.map(1)?.str("v")?.u8(1)?.ok());
    assert_eq!(decode(&untyped), Err(DecodeError::Missing { field: "type".to_owned() }));
    let unversioned = write(|e| e.map(1)?.str("type")?.str("frame")?.ok());
    assert_eq!(decode(&unversioned), Err(DecodeError::Missing { field: "v".to_owned() }));
    assert!(
        matches!(decode(&write(|e| e.array(0)?.ok())), Err(DecodeError::Type { field, .. }) if field == "message")
    );
    let twice = frame_with(1, |e| e.str("seq")?.u8(6)?.ok());
    assert_eq!(decode(&twice), Err(DecodeError::Duplicate { field: "seq".to_owned() }));
    let unknown_twice = frame_with(2, |e| e.str("x")?.u8(6)?.str("x")?.u8(6)?.ok());
    assert_eq!(decode(&unknown_twice), Err(DecodeError::Duplicate { field: "x".to_owned() }));
    let followed = write(|e| {
        e.writer_mut().extend_from_slice(&frame_with(0, |_| Ok(())));
        e.u8(0)?.ok()
    });
    assert_eq!(decode(&followed), Err(DecodeError::TrailingBytes { count: 1 }));
}

#[test]
fn arrays_that_are_not_what_they_should_be_are_refused() {
    let data = |outer: u64, dims: &[u64], inner: u64, raw: &[u8]| {
        let dims = dims.to_vec();
        let raw = raw.to_vec();
        decode(&frame_of(move |e| {
            e.tag(Tag::new(outer))?.array(2)?.array(dims.len() as u64)?;
            for dim in dims {
                e.u64(dim)?;
            }
            e.tag(Tag::new(inner))?.bytes(&raw)?.ok()
        }))
    };
    assert!(data(40, &[1, 2], 64, &[0; 2]).is_ok());
    let column_major = data(1040, &[1, 2], 64, &[0; 2]).unwrap_err().to_string();
    assert!(column_major.contains("column-major"), "{column_major}");
    assert!(
        matches!(data(40, &[1, 2], 64, &[0; 3]), Err(DecodeError::Array { field, .. }) if field == "data")
    );
    assert!(matches!(data(40, &[1, 2], 84, &[0; 6]), Err(DecodeError::Type { .. })));
    assert!(matches!(data(40, &[1, 2], 76, &[0; 2]), Err(DecodeError::Type { .. })));
    assert!(matches!(data(40, &[1, 2], 83, &[0; 32]), Err(DecodeError::Type { .. })));
    assert!(matches!(data(40, &[1, 2], 69, &[0; 5]), Err(DecodeError::Type { .. })));
    assert!(matches!(data(40, &[2], 64, &[0; 2]), Err(DecodeError::Type { .. })));
    assert!(matches!(data(40, &[1, 1, 2], 64, &[0; 2]), Err(DecodeError::Type { .. })));
    for dims in [[1 << 40, 1 << 40], [u64::MAX, 2], [65_537, 1], [1, 65_537]] {
        assert!(
            matches!(data(40, &dims, 64, &[0; 2]), Err(DecodeError::Dimension { field, .. }) if field == "data")
        );
    }
    let list = frame_of(|e| e.tag(Tag::new(40))?.array(2)?.array(2)?.u8(1)?.u8(1)?.array(1)?.u8(0)?.ok());
    assert!(matches!(decode(&list), Err(DecodeError::Type { .. })));
    let chunked = frame_of(|e| {
        e.tag(Tag::new(40))?
            .array(2)?
            .array(2)?
            .u8(1)?
            .u8(1)?
            .tag(Tag::new(64))?
            .begin_bytes()?
            .bytes(&[1])?
            .end()?
            .ok()
    });
    assert!(matches!(decode(&chunked), Err(DecodeError::Type { .. })));
}

#[test]
fn announced_lengths_are_not_believed() {
    let head = b"\xa4\x64type\x65frame\x61v\x01\x63seq\x05\x64data".as_slice();
    // Byte strings, texts, arrays and maps of 2^60 elements, as the data, inside tag 40, and in an unknown key.
    let length = [0x10, 0, 0, 0, 0, 0, 0, 0];
    for major in [0x5b, 0x7b, 0x9b, 0xbb] {
        let hostile = [&[major], length.as_slice()].concat();
        for before in [
            b"".as_slice(),
            b"\xd8\x28\x82\x82\x01\x01",
            b"\xd8\x28\x82",
            b"\xd8\x28\x82\x82\x01\x01\xd8\x40",
        ] {
            let bytes = [head, before, &hostile].concat();
            assert!(decode(&bytes.into()).is_err());
        }
    }
    let map_of_many = b"\xbb\x10\0\0\0\0\0\0\0\x61v\x01".as_slice();
    assert!(matches!(decode(&Bytes::from_static(map_of_many)), Err(DecodeError::Truncated { .. })));
    let limits = Limits { max_message_bytes: 10, ..Limits::default() };
    let large = frame_with(0, |_| Ok(()));
    assert!(matches!(decode_frames(&large, &limits), Err(DecodeError::TooLarge { limit: 10, .. })));
}

#[test]
fn nesting_is_bounded() {
    for opening in [0x81u8, 0x9f, 0xa1, 0xbf] {
        // A million levels would overflow the stack of a decoder that followed them.
        let mut bytes = b"\xa5\x61x".to_vec();
        for _ in 0..1_000_000 {
            bytes.push(opening);
            if opening & 0xe0 == 0xa0 {
                bytes.push(0);
            }
        }
        assert!(matches!(decode(&bytes.into()), Err(DecodeError::Depth { limit: 32, .. })), "{opening:#x}");
    }
    let tags = [b"\xa1\x61x".as_slice(), &[0xc6; 1_000_000], &[0]].concat();
    assert_eq!(decode(&tags.into()), Err(DecodeError::Missing { field: "v".to_owned() }));
}

#[test]
fn user_data_becomes_json() {
    let bytes = frame_with(1, |e| {
        e.str("user_data")?.map(9)?;
        e.str("bytes")?.bytes(&[0xde, 0xad])?.str("tagged")?.tag(Tag::new(1))?.u8(3)?;
        e.str("nan")?.f64(f64::NAN)?.str("undefined")?.undefined()?.str("low")?.i64(i64::MIN)?;
        e.u8(7)?.str("integer key")?.str("list")?.array(2)?.f32(0.5)?.map(0)?.str("big")?.u64(u64::MAX)?;
        e.str("text")?.begin_str()?.str("a")?.str("b")?.end()?.ok()
    });
    let expected = json!({
        "bytes": {"$hex": "dead"}, "tagged": 3, "nan": null, "undefined": null, "low": i64::MIN,
        "7": "integer key", "list": [0.5, {}], "big": u64::MAX, "text": "ab",
    });
    assert_eq!(serde_json::Value::Object(frame(&bytes).user_data.0), expected);

    let refused = |limits: &Limits, build: fn(&mut Writer) -> Written| {
        decode_frames(&frame_with(1, |e| build(e.str("user_data")?)), limits).unwrap_err()
    };
    let limits = Limits::default();
    assert!(matches!(refused(&limits, |e| e.u8(1)?.ok()), DecodeError::Type { .. }));
    assert!(matches!(refused(&limits, |e| e.map(1)?.bool(true)?.u8(1)?.ok()), DecodeError::Type { .. }));
    let twice = refused(&limits, |e| e.map(2)?.str("a")?.u8(1)?.str("a")?.u8(1)?.ok());
    assert_eq!(twice, DecodeError::Duplicate { field: "user_data.a".to_owned() });
    let small = Limits { max_user_data_bytes: 8, ..limits };
    let large = refused(&small, |e| e.map(1)?.str("a")?.bytes(&[0; 9])?.ok());
    assert!(matches!(large, DecodeError::TooLarge { limit: 8, .. }));
}

#[test]
fn what_a_bracket_carries_besides_joins_its_user_data() {
    let bytes = write(|e| {
        e.map(5)?.str("type")?.str("begin")?.str("v")?.u8(1)?.str("acquisition")?.str("a")?;
        e.str("frames")?.u8(10)?.str("user_data")?.map(1)?.str("b")?.u8(2)?.ok()
    });
    let user_data =
        JsonMap([("b".to_owned(), json!(2)), ("frames".to_owned(), json!(10))].into_iter().collect());
    assert_eq!(decode(&bytes), Ok(FramesMessage::Begin(Bracket { acquisition: "a".to_owned(), user_data })));
    let clash = write(|e| {
        e.map(5)?.str("type")?.str("end")?.str("v")?.u8(1)?.str("acquisition")?.str("a")?;
        e.str("b")?.u8(10)?.str("user_data")?.map(1)?.str("b")?.u8(2)?.ok()
    });
    assert_eq!(decode(&clash), Err(DecodeError::Duplicate { field: "b".to_owned() }));
}

#[test]
fn user_data_as_deep_as_can_be_encoded_can_be_decoded() {
    let nested = |levels: usize| {
        let value = (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let user_data = JsonMap([("a".to_owned(), value)].into_iter().collect());
        FramesMessage::Begin(Bracket { acquisition: "a".to_owned(), user_data })
    };
    // The message and user_data are two of the 32 levels.
    let deepest = nested(30);
    assert_eq!(decode(&encode_frames(&deepest).unwrap()), Ok(deepest));
    assert!(encode_frames(&nested(31)).is_err());
}

#[test]
fn a_result_that_contradicts_itself_is_refused_on_both_sides() {
    use ferrostem_proto::cbor::encode_results;
    use ferrostem_proto::{Grid, GridSpec, ResultMessage, ResultsMessage, Timing, bincode};
    let grid = GridSpec { rows: 2, cols: 1, ..GridSpec::default() };
    let fitting =
        ResultMessage { grid, p_x: Grid::new(2, 1, vec![1.0, 2.0]).unwrap(), ..ResultMessage::default() };
    let message = |result: &ResultMessage| ResultsMessage::Result(Box::new(result.clone()));
    let bytes = encode_results(&message(&fitting)).unwrap();
    assert!(decode_results(&bytes, &Limits::default()).is_ok());

    let transposed = ResultMessage { p_x: Grid::new(1, 2, vec![1.0, 2.0]).unwrap(), ..fitting.clone() };
    assert!(encode_results(&message(&transposed)).unwrap_err().to_string().contains("p_x"));
    assert!(bincode::encode_results(&message(&transposed)).is_err());
    let mut columns = fitting.clone();
    columns.columns.row.push(1.0);
    assert!(encode_results(&message(&columns)).unwrap_err().to_string().contains("columns.col"));
    let stages_us = vec![("dcnn".to_owned(), 1), ("dcnn".to_owned(), 2)];
    let twice = ResultMessage { timing: Timing { stages_us, ..Timing::default() }, ..fitting };
    assert!(encode_results(&message(&twice)).unwrap_err().to_string().contains("dcnn"));

    // The same contradiction on the wire: the grid says 2 x 1, the dims in p_x are swapped to 1 x 2.
    let at = bytes.windows(4).position(|window| window == b"\x63p_x").unwrap();
    let dims = bytes[at..].windows(3).position(|window| window == [0x82, 2, 1]).unwrap();
    let mut wrong = bytes.to_vec();
    wrong.swap(at + dims + 1, at + dims + 2);
    let error = decode_results(&wrong.into(), &Limits::default()).unwrap_err();
    assert!(matches!(&error, DecodeError::Type { field, .. } if field == "p_x"), "{error}");
}

#[test]
fn candidates_of_unknown_kinds_are_left_out_and_the_others_read() {
    use ferrostem_proto::{CandidateKind, ResultsMessage};
    let golden = include_bytes!("../golden/candidates_kinds.cbor");
    let at = golden.windows(6).position(|window| window == b"vortex").unwrap();
    let later = Bytes::from([&golden[..at], b"zigzag", &golden[at + 6..]].concat());
    let ResultsMessage::Candidates(read) = decode_results(&later, &Limits::default()).unwrap() else {
        panic!("candidates")
    };
    let kinds: Vec<CandidateKind> = read.candidates.iter().map(|candidate| candidate.kind).collect();
    assert_eq!(kinds, [CandidateKind::Expression]);
}
