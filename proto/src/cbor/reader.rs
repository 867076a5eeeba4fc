//! A decoder that knows where it is, how deep it is, and how much it may read.

use crate::error::DecodeError;
use crate::limits::Limits;
use crate::message::WIRE_VERSION;
use bytes::Bytes;
use minicbor::Decoder;
use minicbor::data::Type;
use std::borrow::Cow;
use std::collections::HashSet;

/// "Self-described CBOR" (RFC 8949, 3.4.6): may precede a message, means nothing.
const SELF_DESCRIBED: u64 = 55_799;

pub(super) struct Reader<'a> {
    message: &'a Bytes,
    decoder: Decoder<'a>,
    limits: &'a Limits,
    /// Dotted path of the value being read, for errors.
    path: String,
    depth: usize,
}

/// What a map's visitor did with a key.
pub(super) enum Entry {
    /// It read the value.
    Read,
    /// It left the value, which is to be skipped.
    Unknown,
}

/// Reads a map into one variable a field, named like its key. Required ones hold the value, optional ones an
/// `Option`, `None` also where the value is `null`. Unknown keys are skipped.
macro_rules! read_fields {
    ($reader:ident { $($required:ident: $read:path),* $(,)? }
        optional { $($optional:ident: $read_optional:path),* $(,)? }) => {
        $(let mut $required = None;)*
        $(let mut $optional = None;)*
        $reader.map(|reader, key| {
            $(if key == stringify!($required) {
                $required = Some($read(reader)?);
                return Ok($crate::cbor::reader::Entry::Read);
            })*
            $(if key == stringify!($optional) {
                $optional = reader.nullable($read_optional)?;
                return Ok($crate::cbor::reader::Entry::Read);
            })*
            Ok($crate::cbor::reader::Entry::Unknown)
        })?;
        $(let Some($required) = $required else { return Err($reader.missing(stringify!($required))) };)*
    };
    ($reader:ident { $($required:ident: $read:path),* $(,)? }) => {
        $crate::cbor::reader::read_fields!($reader { $($required: $read),* } optional {})
    };
}
pub(super) use read_fields;

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a Bytes, limits: &'a Limits) -> Result<Self, DecodeError> {
        limits.check_message(message.len())?;
        let decoder = Decoder::new(message);
        Ok(Self { message, decoder, limits, path: String::new(), depth: 0 })
    }

    pub(super) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Finds `type` and checks `v`, wherever they stand in the map, then stands at the map's beginning.
    pub(super) fn envelope(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        if self.kind()? == Type::Tag && self.tag()? != SELF_DESCRIBED {
            return Err(self.mismatch("a map", "a tag"));
        }
        let start = self.decoder.position();
        let (mut kind, mut version) = (None, None);
        self.map(|reader, key| {
            match key {
                "type" => kind = Some(reader.text()?),
                "v" => version = Some(reader.uint()?),
                _ => return Ok(Entry::Unknown),
            }
            Ok(Entry::Read)
        })?;
        self.decoder.set_position(start);
        match version {
            None => Err(self.missing("v")),
            Some(0) => Err(DecodeError::Version { found: 0, supported: WIRE_VERSION }),
            Some(found) if found > WIRE_VERSION => {
                Err(DecodeError::Version { found, supported: WIRE_VERSION })
            }
            Some(_) => kind.ok_or_else(|| self.missing("type")),
        }
    }

    /// Makes sure that nothing follows.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.message.len() - self.decoder.position() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { count }),
        }
    }

    pub(super) fn kind(&self) -> Result<Type, DecodeError> {
        match self.decoder.datatype() {
            Ok(Type::Unknown(byte)) => Err(self.malformed(format!("byte {byte:#04x} begins no value"))),
            Ok(kind) => Ok(kind),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Reads an optional value; `null` and `undefined` are `None`.
    pub(super) fn nullable<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if matches!(self.kind()?, Type::Null | Type::Undefined) {
            self.skip()?;
            return Ok(None);
        }
        read(self).map(Some)
    }

    /// Calls `entry` for each text key of the map; the values of other keys are skipped.
    pub(super) fn map(
        &mut self,
        mut entry: impl FnMut(&mut Self, &str) -> Result<Entry, DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut seen = HashSet::new();
        self.entries(|reader| {
            if !matches!(reader.kind()?, Type::String | Type::StringIndef) {
                reader.skip()?;
                return reader.skip();
            }
            let key = reader.text()?;
            if seen.contains(&key) {
                return Err(reader.duplicate(&key));
            }
            let parent = reader.path.len();
            if parent > 0 {
                reader.path.push('.');
            }
            reader.path.push_str(&key);
            if matches!(entry(reader, &key)?, Entry::Unknown) {
                reader.skip()?;
            }
            reader.path.truncate(parent);
            seen.insert(key);
            Ok(())
        })
    }

    /// Calls `entry`, which is to read one key and one value, until the map ends.
    pub(super) fn entries(
        &mut self,
        mut entry: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if !matches!(self.kind()?, Type::Map | Type::MapIndef) {
            return Err(self.unexpected("a map"));
        }
        let mut remaining = self.decoder.map().map_err(|error| self.failed(&error))?;
        self.descend()?;
        while self.more(&mut remaining)? {
            entry(self)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Calls `element` for each element of the array, with its index.
    pub(super) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if !matches!(self.kind()?, Type::Array | Type::ArrayIndef) {
            return Err(self.unexpected("an array"));
        }
        let mut remaining = self.decoder.array().map_err(|error| self.failed(&error))?;
        self.descend()?;
        let mut index = 0;
        while self.more(&mut remaining)? {
            element(self, index)?;
            index += 1;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Exactly two numbers.
    pub(super) fn pair<T: Copy>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<[T; 2], DecodeError> {
        let (mut first, mut second) = (None, None);
        self.array(|reader, index| {
            match index {
                0 => first = Some(read(reader)?),
                1 => second = Some(read(reader)?),
                _ => return Err(reader.mismatch("an array of two numbers", "more of them")),
            }
            Ok(())
        })?;
        match (first, second) {
            (Some(first), Some(second)) => Ok([first, second]),
            _ => Err(self.mismatch("an array of two numbers", "fewer of them")),
        }
    }

    pub(super) fn pair_of_floats(&mut self) -> Result<[f64; 2], DecodeError> {
        self.pair(Self::float)
    }

    pub(super) fn text(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.text_within(self.limits.max_text_bytes)
    }

    pub(super) fn string(&mut self) -> Result<String, DecodeError> {
        self.text().map(Cow::into_owned)
    }

    /// A text of at most `limit` bytes, borrowed unless it came in chunks.
    pub(super) fn text_within(&mut self, limit: usize) -> Result<Cow<'a, str>, DecodeError> {
        let text = match self.kind()? {
            Type::String => Cow::Borrowed(self.decoder.str().map_err(|error| self.failed(&error))?),
            Type::StringIndef => {
                let mut joined = String::new();
                let mut problem = None;
                match self.decoder.str_iter() {
                    Ok(chunks) => {
                        for chunk in chunks {
                            match chunk {
                                Ok(chunk) if joined.len() + chunk.len() <= limit => joined.push_str(chunk),
                                Ok(chunk) => {
                                    return Err(self.too_large(joined.len() + chunk.len(), limit));
                                }
                                Err(error) => {
                                    problem = Some(error);
                                    break;
                                }
                            }
                        }
                    }
                    Err(error) => problem = Some(error),
                }
                if let Some(error) = problem {
                    return Err(self.failed(&error));
                }
                Cow::Owned(joined)
            }
            _ => return Err(self.unexpected("a text")),
        };
        if text.len() > limit {
            return Err(self.too_large(text.len(), limit));
        }
        Ok(text)
    }

    /// A byte string of definite length, sharing the message's bytes.
    pub(super) fn byte_string(&mut self) -> Result<Bytes, DecodeError> {
        if self.kind()? != Type::Bytes {
            return Err(self.unexpected("a byte string of definite length"));
        }
        let length = self.decoder.bytes().map_err(|error| self.failed(&error))?.len();
        let end = self.decoder.position();
        Ok(self.message.slice(end - length..end))
    }

    pub(super) fn tag(&mut self) -> Result<u64, DecodeError> {
        self.decoder.tag().map(|tag| tag.as_u64()).map_err(|error| self.failed(&error))
    }

    pub(super) fn bool(&mut self) -> Result<bool, DecodeError> {
        self.decoder.bool().map_err(|error| self.failed(&error))
    }

    /// An integer of CBOR's full range, -2^64 to 2^64 - 1.
    pub(super) fn integer(&mut self) -> Result<i128, DecodeError> {
        self.decoder.int().map(i128::from).map_err(|error| self.failed(&error))
    }

    /// A floating point number of any width.
    pub(super) fn floating(&mut self) -> Result<f64, DecodeError> {
        self.decoder.f64().map_err(|error| self.failed(&error))
    }

    /// A number as `f64`; an integer is taken where `f64` holds it exactly.
    pub(super) fn float(&mut self) -> Result<f64, DecodeError> {
        let kind = self.kind()?;
        if is_float(kind) {
            return self.floating();
        }
        if !is_integer(kind) {
            return Err(self.unexpected("a number"));
        }
        let integer = self.integer()?;
        let float = integer as f64;
        if float as i128 == integer {
            return Ok(float);
        }
        Err(self.mismatch("a number that a 64-bit float holds exactly", &integer.to_string()))
    }

    /// A non-negative integer; a float is taken where it is one.
    pub(super) fn uint(&mut self) -> Result<u64, DecodeError> {
        const EXPECTED: &str = "an integer from 0 to 2^64 - 1";
        let kind = self.kind()?;
        if is_integer(kind) {
            let integer = self.integer()?;
            return u64::try_from(integer).map_err(|_| self.mismatch(EXPECTED, &integer.to_string()));
        }
        if !is_float(kind) {
            return Err(self.unexpected(EXPECTED));
        }
        let float = self.floating()?;
        if float >= 0.0 && float < u64::MAX as f64 && float.fract() == 0.0 {
            return Ok(float as u64);
        }
        Err(self.mismatch(EXPECTED, &float.to_string()))
    }

    pub(super) fn uint32(&mut self) -> Result<u32, DecodeError> {
        let value = self.uint()?;
        u32::try_from(value).map_err(|_| self.mismatch("an integer from 0 to 2^32 - 1", &value.to_string()))
    }

    /// Bytes that the next value takes.
    pub(super) fn extent(&mut self) -> Result<usize, DecodeError> {
        let start = self.decoder.position();
        self.skip()?;
        let extent = self.decoder.position() - start;
        self.decoder.set_position(start);
        Ok(extent)
    }

    /// Passes over one value, checking that it is well formed.
    pub(super) fn skip(&mut self) -> Result<(), DecodeError> {
        while self.kind()? == Type::Tag {
            self.tag()?;
        }
        match self.kind()? {
            Type::Map | Type::MapIndef => self.entries(|reader| {
                reader.skip()?;
                reader.skip()
            }),
            Type::Array | Type::ArrayIndef => self.array(|reader, _| reader.skip()),
            Type::Break => Err(self.malformed("a break outside an indefinite length".to_owned())),
            _ => self.decoder.skip().map_err(|error| self.failed(&error)),
        }
    }

    /// Whether another element or key follows in a container of which `remaining` are left (`None`: until a break).
    fn more(&mut self, remaining: &mut Option<u64>) -> Result<bool, DecodeError> {
        match remaining {
            Some(0) => Ok(false),
            Some(n) => {
                *n -= 1;
                Ok(true)
            }
            None if self.kind()? == Type::Break => {
                self.decoder.set_position(self.decoder.position() + 1);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn descend(&mut self) -> Result<(), DecodeError> {
        if self.depth == self.limits.max_depth {
            return Err(DecodeError::Depth { field: self.field(), limit: self.limits.max_depth });
        }
        self.depth += 1;
        Ok(())
    }

    /// "`path`: expected ..., found ...".
    pub(super) fn mismatch(&self, expected: &'static str, found: &str) -> DecodeError {
        DecodeError::Type { field: self.field(), expected, found: found.to_owned() }
    }

    /// The next value is not what was `expected`.
    pub(super) fn unexpected(&self, expected: &'static str) -> DecodeError {
        match self.kind() {
            Ok(kind) => self.mismatch(expected, &kind.to_string()),
            Err(error) => error,
        }
    }

    pub(super) fn missing(&self, key: &str) -> DecodeError {
        DecodeError::Missing { field: self.child(key) }
    }

    pub(super) fn duplicate(&self, key: &str) -> DecodeError {
        DecodeError::Duplicate { field: self.child(key) }
    }

    pub(super) fn too_large(&self, bytes: usize, limit: usize) -> DecodeError {
        DecodeError::TooLarge { field: self.field(), bytes, limit }
    }

    /// The dotted path of the value being read.
    pub(super) fn field(&self) -> String {
        if self.path.is_empty() { "message".to_owned() } else { self.path.clone() }
    }

    fn child(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn malformed(&self, reason: String) -> DecodeError {
        DecodeError::Malformed { field: self.field(), at: self.decoder.position(), reason }
    }

    fn failed(&self, error: &minicbor::decode::Error) -> DecodeError {
        if error.is_end_of_input() {
            return DecodeError::Truncated { field: self.field(), at: self.message.len() };
        }
        self.malformed(error.to_string())
    }
}

pub(super) fn is_integer(kind: Type) -> bool {
    use Type::{I8, I16, I32, I64, Int, U8, U16, U32, U64};
    matches!(kind, U8 | U16 | U32 | U64 | I8 | I16 | I32 | I64 | Int)
}

pub(super) fn is_float(kind: Type) -> bool {
    matches!(kind, Type::F16 | Type::F32 | Type::F64)
}
