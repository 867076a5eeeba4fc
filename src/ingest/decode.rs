//! The parts of a ZeroMQ message → a message of the frames lane.

use super::IngestError;
use super::settings::EncodingChoice;
use bytes::Bytes;
use ferrostem_proto::{Encoding, FramesMessage, Limits, bincode, cbor, detect, recipe};

/// Decodes `parts`, which may begin with a topic. `next_seq` numbers a frame of the pyzmq recipe that has no number.
///
/// # Errors
/// Where the parts are no message, or not in the encoding that `choice` asks for.
pub fn decode(
    parts: &[Bytes],
    choice: EncodingChoice,
    next_seq: u64,
    limits: &Limits,
) -> Result<FramesMessage, IngestError> {
    let detected = detect(parts)?;
    if let Some(expected) = choice.required()
        && expected != detected.encoding
    {
        return Err(IngestError::Encoding { expected, found: detected.encoding });
    }
    Ok(match (detected.encoding, detected.pixels) {
        (Encoding::Cbor, _) => cbor::decode_frames(detected.head, limits)?,
        (Encoding::Bincode, _) => bincode::decode_frames(detected.head, limits)?,
        (Encoding::Recipe, pixels) => {
            let none = Bytes::new();
            let pixels = pixels.unwrap_or(&none);
            let frame = recipe::decode_recipe(detected.head, pixels, next_seq, limits)?;
            FramesMessage::Frame(Box::new(frame))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrostem_proto::{DecodeError, FrameMessage, PixelArray};

    #[test]
    fn one_frame_in_every_encoding_is_the_same_frame() {
        let pixels = PixelArray::from_f32([1, 2], &[1.5, -2.0]).unwrap();
        let frame = FramesMessage::Frame(Box::new(FrameMessage::new(3, pixels.clone())));
        let header = Bytes::from_static(br#"{"dtype": "float32", "shape": [1, 2]}"#);
        let topic = Bytes::from_static(b"haadf");
        let native = cbor::encode_frames(&frame).unwrap();
        let rust = bincode::encode_frames(&frame).unwrap();
        let raw = pixels.bytes().clone();
        let arrangements = [
            (EncodingChoice::Cbor, vec![native.clone()]),
            (EncodingChoice::Cbor, vec![topic.clone(), native]),
            (EncodingChoice::Bincode, vec![rust.clone()]),
            (EncodingChoice::Bincode, vec![topic.clone(), rust]),
            (EncodingChoice::Recipe, vec![header.clone(), raw.clone()]),
            (EncodingChoice::Recipe, vec![topic, header, raw]),
        ];
        let limits = Limits::default();
        for (choice, parts) in &arrangements {
            assert_eq!(decode(parts, EncodingChoice::Auto, 3, &limits).as_ref(), Ok(&frame));
            assert_eq!(decode(parts, *choice, 3, &limits).as_ref(), Ok(&frame));
            let others = [EncodingChoice::Cbor, EncodingChoice::Bincode, EncodingChoice::Recipe];
            for other in others.into_iter().filter(|other| other != choice) {
                assert!(matches!(decode(parts, other, 3, &limits), Err(IngestError::Encoding { .. })));
            }
        }
        let unknown = decode(&[Bytes::from_static(b"GET / HTTP/1.1")], EncodingChoice::Auto, 0, &limits);
        assert!(matches!(unknown, Err(IngestError::Decode(DecodeError::Unrecognised { .. }))));
    }
}
