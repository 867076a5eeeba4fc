//! The tree of tags of a DigitalMicrograph file: numbers, and where the arrays are.

use super::super::error::SessionError;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Tags of one file, and groups inside groups.
const MAX_TAGS: usize = 1_000_000;
const MAX_DEPTH: usize = 32;
/// Numbers in the description of one value; a struct of many fields has the most.
const MAX_INFO: u64 = 4096;
/// UTF-16 units of a text.
const MAX_TEXT: u64 = 1024;
/// Only what is below this group is kept.
const KEPT: &str = "ImageList";

/// An array of numbers of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) struct Array {
    /// Byte of the file.
    pub(in crate::session) start: u64,
    pub(in crate::session) count: u64,
    pub(in crate::session) element_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
enum Value {
    Number(f64),
    Array(Array),
}

/// Values by path, `ImageList/1/ImageData/DataType`; a tag without a name goes by its number.
pub(in crate::session) struct Tags {
    pub(in crate::session) little_endian: bool,
    values: BTreeMap<String, Value>,
}

struct Parser<'a, R> {
    reader: &'a mut R,
    version_4: bool,
    little_endian: bool,
    left: usize,
    values: BTreeMap<String, Value>,
}

impl Tags {
    pub(in crate::session) fn read<R: Read + Seek>(
        path: &Path,
        reader: &mut R,
    ) -> Result<Self, SessionError> {
        parse(reader).map_err(|source| {
            if source.kind() == io::ErrorKind::InvalidData {
                return SessionError::unexpected(
                    path.display().to_string(),
                    "DigitalMicrograph's tags",
                    source,
                );
            }
            SessionError::Io { path: path.to_owned(), source }
        })
    }

    pub(in crate::session) fn number(&self, path: &str) -> Option<f64> {
        match self.values.get(path)? {
            Value::Number(number) => Some(*number),
            Value::Array(_) => None,
        }
    }

    pub(in crate::session) fn array(&self, path: &str) -> Option<Array> {
        match self.values.get(path)? {
            Value::Array(array) => Some(*array),
            Value::Number(_) => None,
        }
    }

    /// A text, which is an array of UTF-16 units.
    pub(in crate::session) fn text<R: Read + Seek>(&self, path: &str, reader: &mut R) -> Option<String> {
        let array = self.array(path).filter(|array| array.element_bytes == 2 && array.count <= MAX_TEXT)?;
        let mut bytes = vec![0; 2 * array.count as usize];
        reader.seek(SeekFrom::Start(array.start)).and_then(|_| reader.read_exact(&mut bytes)).ok()?;
        let unit = if self.little_endian { u16::from_le_bytes } else { u16::from_be_bytes };
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|&pair| unit(pair)).collect();
        Some(String::from_utf16_lossy(&units))
    }
}

fn parse<R: Read + Seek>(reader: &mut R) -> io::Result<Tags> {
    let mut parser =
        Parser { reader, version_4: false, little_endian: true, left: MAX_TAGS, values: BTreeMap::new() };
    parser.version_4 = match parser.u32()? {
        3 => false,
        4 => true,
        other => return Err(invalid(format!("version {other}"))),
    };
    parser.size()?;
    parser.little_endian = parser.u32()? == 1;
    parser.group("", 0)?;
    Ok(Tags { little_endian: parser.little_endian, values: parser.values })
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Bytes of one value of a kind that is not compound.
const fn bytes_of(kind: u64) -> Option<u64> {
    Some(match kind {
        8..=10 => 1,
        2 | 4 => 2,
        3 | 5 | 6 => 4,
        7 | 11 | 12 => 8,
        _ => return None,
    })
}

impl<R: Read + Seek> Parser<'_, R> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    /// A length or a count: 4 bytes in version 3, 8 in version 4.
    fn size(&mut self) -> io::Result<u64> {
        if self.version_4 { self.bytes().map(u64::from_be_bytes) } else { self.u32().map(u64::from) }
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| invalid(format!("a value of {bytes} bytes")))?;
        self.reader.seek_relative(bytes)
    }

    fn group(&mut self, path: &str, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(invalid("groups inside groups without end"));
        }
        self.bytes::<2>()?;
        let count = self.size()?;
        for number in 0..count {
            self.left =
                self.left.checked_sub(1).ok_or_else(|| invalid(format!("more than {MAX_TAGS} tags")))?;
            let [kind] = self.bytes()?;
            let length = u16::from_be_bytes(self.bytes()?);
            let mut name = vec![0; usize::from(length)];
            self.reader.read_exact(&mut name)?;
            if self.version_4 {
                self.size()?;
            }
            let name = if name.is_empty() {
                number.to_string()
            } else {
                String::from_utf8_lossy(&name).into_owned()
            };
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            match kind {
                20 => self.group(&path, depth + 1)?,
                21 => self.value(path)?,
                0 => return Ok(()),
                other => return Err(invalid(format!("a tag of kind {other}"))),
            }
        }
        Ok(())
    }

    fn value(&mut self, path: String) -> io::Result<()> {
        if &self.bytes()? != b"%%%%" {
            return Err(invalid(format!("no %%%% before {path}")));
        }
        let count = self.size()?;
        if count > MAX_INFO {
            return Err(invalid(format!("{count} numbers that describe {path}")));
        }
        let info: Vec<u64> = (0..count).map(|_| self.size()).collect::<io::Result<_>>()?;
        let value = self.value_of(&info)?;
        if path.starts_with(KEPT)
            && let Some(value) = value
        {
            self.values.insert(path, value);
        }
        Ok(())
    }

    /// Reads a number, passes over anything else.
    fn value_of(&mut self, info: &[u64]) -> io::Result<Option<Value>> {
        let unknown = || invalid(format!("a value described by {info:?}"));
        match *info {
            [kind] => self.number(kind).map(|number| Some(Value::Number(number))),
            [18, length] => self.skip(length.saturating_mul(2)).map(|()| None),
            [15, ..] => self.skip(struct_bytes(info).ok_or_else(unknown)?).map(|()| None),
            [20, ref element @ .., count] => {
                let element_bytes = match *element {
                    [kind] => bytes_of(kind),
                    [15, ..] => struct_bytes(element),
                    [18, length] => length.checked_mul(2),
                    _ => None,
                }
                .ok_or_else(unknown)?;
                let start = self.reader.stream_position()?;
                self.skip(count.saturating_mul(element_bytes))?;
                Ok(Some(Value::Array(Array { start, count, element_bytes })))
            }
            _ => Err(unknown()),
        }
    }

    fn number(&mut self, kind: u64) -> io::Result<f64> {
        let size = bytes_of(kind).ok_or_else(|| invalid(format!("a number of kind {kind}")))? as usize;
        let mut bytes = [0; 8];
        self.reader.read_exact(&mut bytes[..size])?;
        if !self.little_endian {
            bytes[..size].reverse();
        }
        let whole = i64::from_le_bytes(bytes);
        Ok(match kind {
            2 => f64::from(whole as i16),
            3 => f64::from(whole as i32),
            6 => f64::from(f32::from_bits(whole as u32)),
            7 => f64::from_le_bytes(bytes),
            9 => f64::from(whole as i8),
            11 => whole as f64,
            _ => whole as u64 as f64,
        })
    }
}

/// `[15, length of the name, fields, (length of the name, kind) …]`
fn struct_bytes(info: &[u64]) -> Option<u64> {
    let [15, _, count, fields @ ..] = info else { return None };
    let (fields, []) = fields.as_chunks::<2>() else { return None };
    if fields.len() as u64 != *count {
        return None;
    }
    fields.iter().try_fold(0u64, |bytes, [_, kind]| bytes.checked_add(bytes_of(*kind)?))
}
