//! The recipe of pyzmq's documentation: a JSON header, then the raw bytes of a numpy array.
//!
//! ```python
//! socket.send_json({"dtype": str(image.dtype), "shape": image.shape}, zmq.SNDMORE)
//! socket.send(image)
//! ```
//!
//! `dtype` is a numpy name (`uint16`) or code (`<u2`, `>f4`, `|u1`); a name without a byte order means little-endian, `bool` is
//! read as `uint8`, `float16` is widened to `float32`. `shape` is `[rows, cols]`. Any other field of a frame may stand beside them, and
//! `null` means absent. Column-major arrays are refused where the header says so (`"order": "F"`, `"fortran_order": true`).

use crate::array::{ByteOrder, Dtype, PixelArray};
use crate::cbor::widen_half;
use crate::error::DecodeError;
use crate::limits::Limits;
use crate::message::{FrameMessage, FrameState, JsonMap, WIRE_VERSION};
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Element type of a header, before half floats are widened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Of(Dtype),
    Half,
}

/// `frame` as the two parts of the recipe: the JSON header and the pixels, which are shared, not copied. What the frame
/// does not say is left out of the header, and what is not finite is `null`.
pub fn encode_recipe(frame: &FrameMessage) -> (Bytes, Bytes) {
    let data = &frame.data;
    let mut header = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            header.insert(key.to_owned(), value);
        }
    };
    put("dtype", Some(dtype_name(data.dtype(), data.byte_order()).into()));
    put("shape", Some(json!(data.shape())));
    put("seq", Some(frame.seq.into()));
    put("acquisition", frame.acquisition.clone().map(Value::from));
    put("t_start_ns", frame.t_start_ns.map(Value::from));
    put("t_end_ns", frame.t_end_ns.map(Value::from));
    put("pixel_size_pm", frame.pixel_size_pm.map(|size| json!(size)));
    put("rotation_rad", frame.rotation_rad.map(|angle| json!(angle)));
    put("center_nm", frame.center_nm.map(|center| json!(center)));
    put("fov_nm", frame.fov_nm.map(|fov| json!(fov)));
    put("dwell_us", frame.dwell_us.map(|dwell| json!(dwell)));
    put("channel", frame.channel.clone().map(Value::from));
    put("state", frame.state.map(|state| state.name().into()));
    put("valid_rows", frame.valid_rows.map(|rows| json!(rows)));
    put("user_data", (!frame.user_data.0.is_empty()).then(|| Value::Object(frame.user_data.0.clone())));
    (Value::Object(header).to_string().into(), data.bytes().clone())
}

/// The numpy dtype: its name, or its code where bytes are not in the usual order.
fn dtype_name(dtype: Dtype, byte_order: ByteOrder) -> String {
    let name = dtype.numpy_name();
    match byte_order {
        ByteOrder::Little => name.to_owned(),
        ByteOrder::Big => format!(">{}{}", &name[..1], dtype.size()),
    }
}

/// The frame that `header` and `pixels` make. `next_seq` numbers it where the header has no `seq`. The pixels are shared,
/// not copied, save for half floats.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_recipe(
    header: &Bytes,
    pixels: &Bytes,
    next_seq: u64,
    limits: &Limits,
) -> Result<FrameMessage, DecodeError> {
    limits.check_message(header.len().saturating_add(pixels.len()))?;
    if header.len() > limits.max_user_data_bytes {
        return Err(DecodeError::TooLarge {
            field: "header".to_owned(),
            bytes: header.len(),
            limit: limits.max_user_data_bytes,
        });
    }
    let header: Map<String, Value> = serde_json::from_slice(header).map_err(|error| {
        DecodeError::Malformed { field: "header".to_owned(), at: error.column(), reason: error.to_string() }
    })?;
    let header = Header { fields: &header };
    header.check_kind()?;
    Ok(FrameMessage {
        acquisition: header.text("acquisition", limits)?,
        seq: header.uint("seq")?.unwrap_or(next_seq),
        t_start_ns: header.uint("t_start_ns")?,
        t_end_ns: header.uint("t_end_ns")?,
        data: header.pixels(pixels, limits)?,
        pixel_size_pm: header.pixel_size()?,
        rotation_rad: header.float("rotation_rad")?,
        center_nm: header.pair("center_nm", as_f64)?,
        fov_nm: header.pair("fov_nm", as_f64)?,
        dwell_us: header.float("dwell_us")?,
        channel: header.text("channel", limits)?,
        state: header.state(limits)?,
        valid_rows: header.pair("valid_rows", as_u64)?,
        user_data: header.user_data(limits)?,
    })
}

struct Header<'a> {
    fields: &'a Map<String, Value>,
}

impl Header<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// A header may say that it is a frame, and of which version.
    fn check_kind(&self) -> Result<(), DecodeError> {
        match self.uint("v")? {
            None | Some(WIRE_VERSION) => {}
            Some(found) => return Err(DecodeError::Version { found, supported: WIRE_VERSION }),
        }
        match self.get("type") {
            None => Ok(()),
            Some(Value::String(kind)) if kind == "frame" => Ok(()),
            Some(other) => Err(DecodeError::UnknownType { found: other.to_string(), expected: "frame" }),
        }
    }

    fn pixels(&self, pixels: &Bytes, limits: &Limits) -> Result<PixelArray, DecodeError> {
        let column_major = [("order", Value::from("F")), ("fortran_order", Value::from(true))];
        for (key, meaning) in column_major {
            if self.get(key) == Some(&meaning) {
                return Err(mismatch(key, "a C-order array (numpy.ascontiguousarray)", &meaning));
            }
        }
        let (element, byte_order) = match self.get("dtype") {
            Some(Value::String(name)) => parse_dtype(name)
                .ok_or_else(|| DecodeError::Dtype { field: "dtype".to_owned(), found: name.clone() })?,
            Some(other) => return Err(mismatch("dtype", "a numpy dtype as text", other)),
            None => return Err(DecodeError::Missing { field: "dtype".to_owned() }),
        };
        let Some(shape) = self.pair("shape", as_u64)? else {
            return Err(DecodeError::Missing { field: "shape".to_owned() });
        };
        let shape = limits.check_shape("shape", shape)?;
        let array = match element {
            Element::Of(dtype) => PixelArray::new(dtype, byte_order, shape, pixels.clone()),
            // The length is checked as that of 16-bit integers before anything is widened.
            Element::Half => PixelArray::new(Dtype::U16, byte_order, shape, pixels.clone()).and_then(|_| {
                PixelArray::new(Dtype::F32, ByteOrder::Little, shape, widen_half(pixels, byte_order))
            }),
        };
        array.map_err(|source| DecodeError::Array { field: "shape".to_owned(), source })
    }

    fn pixel_size(&self) -> Result<Option<[f64; 2]>, DecodeError> {
        const KEY: &str = "pixel_size_pm";
        if matches!(self.get(KEY), Some(Value::Array(_))) {
            return self.pair(KEY, as_f64);
        }
        Ok(self.float(KEY)?.map(|size| [size, size]))
    }

    fn state(&self, limits: &Limits) -> Result<Option<FrameState>, DecodeError> {
        let Some(name) = self.text("state", limits)? else { return Ok(None) };
        match FrameState::from_name(&name) {
            Some(state) => Ok(Some(state)),
            None => Err(mismatch("state", "complete or partial", &name.into())),
        }
    }

    fn user_data(&self, limits: &Limits) -> Result<JsonMap, DecodeError> {
        match self.get("user_data") {
            None => Ok(JsonMap::default()),
            // As deep as the native encoding would allow, so that what arrives here can be sent on.
            Some(value @ Value::Object(map)) => match limits.max_depth.checked_sub(1) {
                Some(depth) if is_within_depth(value, depth) => Ok(JsonMap(map.clone())),
                _ => Err(DecodeError::Depth { field: "user_data".to_owned(), limit: limits.max_depth }),
            },
            Some(other) => Err(mismatch("user_data", "an object", other)),
        }
    }

    fn text(&self, key: &str, limits: &Limits) -> Result<Option<String>, DecodeError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= limits.max_text_bytes => Ok(Some(text.clone())),
            Some(Value::String(text)) => Err(DecodeError::TooLarge {
                field: key.to_owned(),
                bytes: text.len(),
                limit: limits.max_text_bytes,
            }),
            Some(other) => Err(mismatch(key, "a text", other)),
        }
    }

    fn uint(&self, key: &str) -> Result<Option<u64>, DecodeError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        as_u64(value).map(Some).ok_or_else(|| mismatch(key, "an integer from 0 to 2^64 - 1", value))
    }

    fn float(&self, key: &str) -> Result<Option<f64>, DecodeError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        as_f64(value).map(Some).ok_or_else(|| mismatch(key, "a number", value))
    }

    fn pair<T>(&self, key: &str, read: fn(&Value) -> Option<T>) -> Result<Option<[T; 2]>, DecodeError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        if let Some([first, second]) = value.as_array().map(Vec::as_slice)
            && let (Some(first), Some(second)) = (read(first), read(second))
        {
            return Ok(Some([first, second]));
        }
        Err(mismatch(key, "an array of two numbers", value))
    }
}

fn as_f64(value: &Value) -> Option<f64> {
    value.as_f64()
}

/// An integer; a float is taken where it is one.
fn as_u64(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let float = value.as_f64()?;
        (float >= 0.0 && float < u64::MAX as f64 && float.fract() == 0.0).then_some(float as u64)
    })
}

fn is_within_depth(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(values) => depth > 0 && values.iter().all(|value| is_within_depth(value, depth - 1)),
        Value::Object(map) => depth > 0 && map.values().all(|value| is_within_depth(value, depth - 1)),
        _ => true,
    }
}

fn mismatch(key: &str, expected: &'static str, found: &Value) -> DecodeError {
    let mut found = found.to_string();
    if let Some((end, _)) = found.char_indices().nth(80) {
        found.truncate(end);
        found.push('…');
    }
    DecodeError::Type { field: key.to_owned(), expected, found }
}

/// A numpy dtype, by `dtype.name` or `dtype.str`.
fn parse_dtype(name: &str) -> Option<(Element, ByteOrder)> {
    let (byte_order, code, any_size) = match name.as_bytes().first()? {
        b'<' | b'=' => (ByteOrder::Little, &name[1..], true),
        b'>' | b'!' => (ByteOrder::Big, &name[1..], true),
        // "Not applicable": only bytes have no order.
        b'|' => (ByteOrder::Little, &name[1..], false),
        _ => (ByteOrder::Little, name, true),
    };
    let element = match code {
        "u1" | "uint8" | "b1" | "?" | "bool" => Element::Of(Dtype::U8),
        "i1" | "int8" => Element::Of(Dtype::I8),
        _ if !any_size => return None,
        "u2" | "uint16" => Element::Of(Dtype::U16),
        "u4" | "uint32" => Element::Of(Dtype::U32),
        "u8" | "uint64" => Element::Of(Dtype::U64),
        "i2" | "int16" => Element::Of(Dtype::I16),
        "i4" | "int32" => Element::Of(Dtype::I32),
        "i8" | "int64" => Element::Of(Dtype::I64),
        "f2" | "float16" => Element::Half,
        "f4" | "float32" => Element::Of(Dtype::F32),
        "f8" | "float64" => Element::Of(Dtype::F64),
        _ => return None,
    };
    // One byte has no order: keep the canonical form.
    let byte_order = match element {
        Element::Of(Dtype::U8 | Dtype::I8) => ByteOrder::Little,
        _ => byte_order,
    };
    Some((element, byte_order))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(header: &str, pixels: &[u8]) -> Result<FrameMessage, DecodeError> {
        let header = Bytes::copy_from_slice(header.as_bytes());
        decode_recipe(&header, &Bytes::copy_from_slice(pixels), 41, &Limits::default())
    }

    #[test]
    fn the_recipe_of_the_pyzmq_documentation_works() {
        let frame =
            decode(r#"{"dtype": "uint16", "shape": [2, 3]}"#, &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 0, 1]).unwrap();
        assert_eq!(frame.seq, 41);
        assert_eq!(frame.data.shape(), [2, 3]);
        assert_eq!(frame.data.to_f32(), [1.0, 2.0, 3.0, 4.0, 5.0, 256.0]);
        assert_eq!(frame.acquisition, None);
    }

    #[test]
    fn an_encoded_frame_is_read_back_as_it_was() {
        for (dtype, byte_order, name) in [
            (Dtype::U16, ByteOrder::Little, "uint16"),
            (Dtype::U16, ByteOrder::Big, ">u2"),
            (Dtype::F64, ByteOrder::Big, ">f8"),
            (Dtype::I8, ByteOrder::Little, "int8"),
        ] {
            let bytes: Vec<u8> = (0..6 * dtype.size() as u8).collect();
            let data = PixelArray::new(dtype, byte_order, [2, 3], bytes.into()).unwrap();
            let mut user_data = Map::new();
            user_data.insert("sample".to_owned(), json!({ "n": [1, 2] }));
            let full = FrameMessage {
                acquisition: Some("a \"quoted\" name".to_owned()),
                t_start_ns: Some(u64::MAX),
                t_end_ns: Some(1_700_000_000_123_456_789),
                pixel_size_pm: Some([15.1, 15.2]),
                rotation_rad: Some(-0.1),
                center_nm: Some([1e-3, -2.5]),
                fov_nm: Some([0.375, 4.0]),
                dwell_us: Some(0.5),
                channel: Some("HAADF".to_owned()),
                state: Some(FrameState::Partial),
                valid_rows: Some([0, 1]),
                user_data: JsonMap(user_data),
                ..FrameMessage::new(7, data.clone())
            };
            for frame in [full, FrameMessage::new(0, data)] {
                let (header, pixels) = encode_recipe(&frame);
                assert_eq!(decode_recipe(&header, &pixels, 41, &Limits::default()).unwrap(), frame);
                let header: Value = serde_json::from_slice(&header).unwrap();
                assert_eq!(header["dtype"], name);
            }
        }
    }

    #[test]
    fn every_dtype_is_read_in_both_byte_orders() {
        macro_rules! check {
            ($($type:ty: $code:literal, $name:literal;)*) => {$(
                let values: [$type; 2] = [3 as $type, 100 as $type];
                let little: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                let big: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
                let cases = [
                    (concat!("<", $code), &little),
                    (concat!(">", $code), &big),
                    ($name, &little),
                    (concat!("=", $code), &little),
                ];
                for (dtype, bytes) in cases {
                    let header = format!(r#"{{"dtype":"{dtype}","shape":[1,2]}}"#);
                    let frame = decode(&header, bytes).unwrap();
                    assert_eq!(frame.data.to_f32(), [3.0, 100.0], "{dtype}");
                    assert_eq!(frame.data.dtype().numpy_name(), $name);
                }
            )*};
        }
        check! {
            u8: "u1", "uint8"; u16: "u2", "uint16"; u32: "u4", "uint32"; u64: "u8", "uint64";
            i8: "i1", "int8"; i16: "i2", "int16"; i32: "i4", "int32"; i64: "i8", "int64";
            f32: "f4", "float32"; f64: "f8", "float64";
        }
        for (dtype, bytes) in [("float16", [0, 0x42, 0x40, 0x56]), (">f2", [0x42, 0, 0x56, 0x40])] {
            let header = format!(r#"{{"dtype":"{dtype}","shape":[1,2]}}"#);
            assert_eq!(decode(&header, &bytes).unwrap().data.to_f32(), [3.0, 100.0], "{dtype}");
        }
        for dtype in ["bool", "|b1", "|u1", "?"] {
            let header = format!(r#"{{"dtype":"{dtype}","shape":[1,2]}}"#);
            assert_eq!(decode(&header, &[0, 1]).unwrap().data.to_f32(), [0.0, 1.0], "{dtype}");
        }
    }

    #[test]
    fn other_fields_ride_in_the_header() {
        let frame = decode(
            r#"{"dtype":"u1","shape":[1,1],"seq":7.0,"acquisition":"a","pixel_size_pm":15,"center_nm":[1,-2.5],
                "fov_nm":[30,40],"rotation_rad":0.5,"dwell_us":2,"channel":"HAADF","state":"partial",
                "valid_rows":[0,1],"t_start_ns":1700000000000000000,"t_end_ns":null,"user_data":{"a":[1]},"odd":1}"#,
            &[9],
        )
        .unwrap();
        assert_eq!((frame.seq, frame.acquisition.as_deref()), (7, Some("a")));
        assert_eq!(frame.pixel_size_pm, Some([15.0, 15.0]));
        assert_eq!((frame.center_nm, frame.fov_nm), (Some([1.0, -2.5]), Some([30.0, 40.0])));
        assert_eq!((frame.rotation_rad, frame.dwell_us), (Some(0.5), Some(2.0)));
        assert_eq!((frame.state, frame.valid_rows), (Some(FrameState::Partial), Some([0, 1])));
        assert_eq!((frame.t_start_ns, frame.t_end_ns), (Some(1_700_000_000_000_000_000), None));
        assert_eq!(frame.user_data.0.get("a"), Some(&serde_json::json!([1])));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let field = |header: &str, pixels: &[u8]| match decode(header, pixels).unwrap_err() {
            DecodeError::Type { field, .. }
            | DecodeError::Missing { field }
            | DecodeError::Dtype { field, .. }
            | DecodeError::Array { field, .. }
            | DecodeError::Dimension { field, .. }
            | DecodeError::Depth { field, .. }
            | DecodeError::Malformed { field, .. } => field,
            DecodeError::Version { .. } => "v".to_owned(),
            DecodeError::UnknownType { .. } => "type".to_owned(),
            other => panic!("{other}"),
        };
        assert_eq!(field(r#"{"shape":[1,1]}"#, &[0]), "dtype");
        assert_eq!(field(r#"{"dtype":"u1"}"#, &[0]), "shape");
        assert_eq!(field(r#"{"dtype":"u1","shape":[1,1]}"#, &[0, 1]), "shape");
        assert_eq!(field(r#"{"dtype":"u1","shape":[1,1,1]}"#, &[0]), "shape");
        assert_eq!(field(r#"{"dtype":"u1","shape":[-1,1]}"#, &[0]), "shape");
        assert_eq!(field(r#"{"dtype":"u1","shape":[1099511627776,1099511627776]}"#, &[0]), "shape");
        assert_eq!(field(r#"{"dtype":"f2","shape":[1,2]}"#, &[0, 1]), "shape");
        assert_eq!(field(r#"{"dtype":"complex64","shape":[1,1]}"#, &[0; 8]), "dtype");
        assert_eq!(field(r#"{"dtype":"|u2","shape":[1,1]}"#, &[0; 2]), "dtype");
        assert_eq!(field(r#"{"dtype":"u1","shape":[1,1],"order":"F"}"#, &[0]), "order");
        assert_eq!(field(r#"{"dtype":"u1","shape":[1,1],"fortran_order":true}"#, &[0]), "fortran_order");
        assert_eq!(field(r#"{"dtype":"u1","shape":[1,1],"seq":1.5}"#, &[0]), "seq");
        assert_eq!(field(r#"{"dtype":"u1","shape":[1,1],"state":"done"}"#, &[0]), "state");
        assert_eq!(field(r#"{"dtype":"u1","shape":[1,1],"user_data":3}"#, &[0]), "user_data");
        assert_eq!(field(r#"{"dtype":"u1","shape":[1,1],"v":2}"#, &[0]), "v");
        assert_eq!(field(r#"{"dtype":"u1","shape":[1,1],"type":"begin"}"#, &[0]), "type");
        assert_eq!(field(r#"{"dtype":"#, &[0]), "header");
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(
            field(&format!(r#"{{"dtype":"u1","shape":[1,1],"user_data":{deep}}}"#), &[0]),
            "user_data"
        );
    }
}
