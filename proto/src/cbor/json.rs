//! `user_data`: CBOR in, JSON out, and back.
//!
//! CBOR says more than JSON. Byte strings become `{"$hex": "…"}`, tags are dropped, non-finite floats, `undefined` and simple
//! values become `null`, integers below -2^63 the nearest float, and integer keys their decimal text. Other keys are refused.

use super::reader::{Reader, is_float, is_integer};
use super::writer::{Out, Written};
use crate::error::DecodeError;
use crate::limits::Limits;
use crate::message::JsonMap;
use minicbor::data::Type;
use serde_json::{Map, Number, Value};

/// A map of free-form metadata.
pub(super) fn read_json_map(reader: &mut Reader) -> Result<JsonMap, DecodeError> {
    if !matches!(reader.kind()?, Type::Map | Type::MapIndef) {
        return Err(reader.unexpected("a map"));
    }
    match read_json(reader)? {
        Value::Object(map) => Ok(JsonMap(map)),
        other => Err(reader.mismatch("a map", &other.to_string())),
    }
}

/// One value of free-form metadata, no larger than the limits allow.
pub(super) fn read_json(reader: &mut Reader) -> Result<Value, DecodeError> {
    let limit = reader.limits().max_user_data_bytes;
    let extent = reader.extent()?;
    if extent > limit {
        return Err(reader.too_large(extent, limit));
    }
    read_value(reader)
}

// Recursion is bounded: `extent` has walked the value before, within the limit on depth.
fn read_value(reader: &mut Reader) -> Result<Value, DecodeError> {
    while reader.kind()? == Type::Tag {
        reader.tag()?;
    }
    let limit = reader.limits().max_user_data_bytes;
    Ok(match reader.kind()? {
        Type::Bool => Value::Bool(reader.bool()?),
        Type::String | Type::StringIndef => Value::String(reader.text_within(limit)?.into_owned()),
        Type::Bytes => hexadecimal(&reader.byte_string()?),
        Type::Array | Type::ArrayIndef => {
            let mut values = Vec::new();
            reader.array(|reader, _| {
                values.push(read_value(reader)?);
                Ok(())
            })?;
            Value::Array(values)
        }
        Type::Map | Type::MapIndef => Value::Object(read_object(reader)?),
        kind if is_integer(kind) => integer(reader.integer()?),
        kind if is_float(kind) => Number::from_f64(reader.floating()?).map_or(Value::Null, Value::Number),
        Type::BytesIndef => return Err(reader.unexpected("a byte string of definite length")),
        _ => {
            reader.skip()?;
            Value::Null
        }
    })
}

fn read_object(reader: &mut Reader) -> Result<Map<String, Value>, DecodeError> {
    let mut object = Map::new();
    reader.entries(|reader| {
        let key = match reader.kind()? {
            Type::String | Type::StringIndef => reader.string()?,
            kind if is_integer(kind) => reader.integer()?.to_string(),
            _ => return Err(reader.unexpected("a text or integer key")),
        };
        let value = read_value(reader)?;
        if object.contains_key(&key) {
            return Err(reader.duplicate(&key));
        }
        object.insert(key, value);
        Ok(())
    })?;
    Ok(object)
}

fn integer(integer: i128) -> Value {
    if let Ok(unsigned) = u64::try_from(integer) {
        return unsigned.into();
    }
    match i64::try_from(integer) {
        Ok(signed) => signed.into(),
        Err(_) => (integer as f64).into(),
    }
}

fn hexadecimal(bytes: &[u8]) -> Value {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    Value::Object(Map::from_iter([("$hex".to_owned(), Value::String(text))]))
}

/// Writes `user_data`, which sits one level below the message.
pub(super) fn write_json_map(out: &mut Out, map: &JsonMap) -> Written {
    write_object(out, &map.0, 1)
}

fn write_object(out: &mut Out, object: &Map<String, Value>, depth: usize) -> Written {
    check_depth(depth)?;
    out.map(object.len() as u64)?;
    for (key, value) in object {
        out.str(key)?;
        write_value(out, value, depth + 1)?;
    }
    Ok(())
}

fn write_value(out: &mut Out, value: &Value, depth: usize) -> Written {
    match value {
        Value::Null => out.null()?,
        Value::Bool(bool) => out.bool(*bool)?,
        Value::String(text) => out.str(text)?,
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(unsigned), ..) => out.u64(unsigned)?,
            (None, Some(signed), _) => out.i64(signed)?,
            (None, None, Some(float)) => out.f64(float)?,
            (None, None, None) => out.null()?,
        },
        Value::Array(values) => {
            check_depth(depth)?;
            out.array(values.len() as u64)?;
            for value in values {
                write_value(out, value, depth + 1)?;
            }
            out
        }
        Value::Object(object) => return write_object(out, object, depth),
    };
    Ok(())
}

fn check_depth(depth: usize) -> Written {
    let limit = Limits::default().max_depth;
    if depth >= limit {
        return Err(minicbor::encode::Error::message(format!(
            "user_data is nested more than {limit} levels deep"
        )));
    }
    Ok(())
}
