//! Tells the encodings of the frames lane apart by content.

use crate::bincode::MAGIC;
use crate::error::DecodeError;
use bytes::Bytes;

/// How a message of the frames lane is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// One part, [`crate::cbor`].
    Cbor,
    /// One part, [`crate::bincode`].
    Bincode,
    /// A JSON header and raw pixels, [`crate::recipe`].
    Recipe,
}

/// A multipart message, sorted into its roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detected<'a> {
    pub encoding: Encoding,
    /// The part before the message proper, if there was one.
    pub topic: Option<&'a Bytes>,
    /// The part that is the message, or the recipe's header.
    pub head: &'a Bytes,
    /// The recipe's pixels.
    pub pixels: Option<&'a Bytes>,
}

/// Sorts the parts of a message: `[message]`, `[topic, message]`, `[header, pixels]` or `[topic, header, pixels]`.
///
/// A message proper begins like a CBOR map or with bincode's magic, a header like a JSON object.
///
/// # Errors
/// [`DecodeError::Unrecognised`] for anything else.
pub fn detect(parts: &[Bytes]) -> Result<Detected<'_>, DecodeError> {
    let recipe =
        |topic, head, pixels| Detected { encoding: Encoding::Recipe, topic, head, pixels: Some(pixels) };
    let native = |topic, head| Some(Detected { encoding: native(head)?, topic, head, pixels: None });
    match parts {
        [message] => native(None, message),
        [header, pixels] if is_json_object(header) => Some(recipe(None, header, pixels)),
        [topic, message] => native(Some(topic), message),
        [topic, header, pixels] if is_json_object(header) => Some(recipe(Some(topic), header, pixels)),
        _ => None,
    }
    .ok_or_else(|| DecodeError::Unrecognised { sizes: parts.iter().map(Bytes::len).collect() })
}

fn native(message: &Bytes) -> Option<Encoding> {
    if message.starts_with(&MAGIC) {
        return Some(Encoding::Bincode);
    }
    match message.first()? {
        // A map, or the two-byte tag of self-described CBOR.
        0xa0..=0xbb | 0xbf | 0xd9 => Some(Encoding::Cbor),
        _ => None,
    }
}

fn is_json_object(part: &Bytes) -> bool {
    part.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[&'static [u8]]) -> Vec<Bytes> {
        parts.iter().map(|part| Bytes::from_static(part)).collect()
    }

    #[test]
    fn each_arrangement_of_parts_is_told_by_content() {
        let found = |given: &[&'static [u8]]| {
            let given = parts(given);
            detect(&given).map(|it| (it.encoding, it.topic.is_some(), it.head.clone())).ok()
        };
        let header: &[u8] = b" {\"dtype\":\"uint8\"}";
        let head = Bytes::from_static(header);
        assert_eq!(found(&[b"\xa2..."]), Some((Encoding::Cbor, false, Bytes::from_static(b"\xa2..."))));
        assert!(found(&[b"frame", b"\xbf\xff"]).unwrap().1);
        assert_eq!(found(&[b"\x89FSB\x01"]).unwrap().0, Encoding::Bincode);
        assert_eq!(found(&[header, b"\xa2"]), Some((Encoding::Recipe, false, head.clone())));
        assert_eq!(found(&[b"haadf", header, b"{"]), Some((Encoding::Recipe, true, head)));
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[b""]), None);
        assert_eq!(found(&[header]), None);
        assert_eq!(found(&[b"a", b"b", b"c", b"d"]), None);
    }
}
