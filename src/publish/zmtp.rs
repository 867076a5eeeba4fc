//! The ZeroMQ Message Transport Protocol 3.0 with the NULL mechanism, as the side that binds needs it.
//!
//! Source: <https://rfc.zeromq.org/spec/23> (ZMTP 3.0) and <https://rfc.zeromq.org/spec/37> (3.1). Peers that greet
//! with 3.1 (libzmq) are answered as 3.0, which makes them speak 3.0; their `PING`, `SUBSCRIBE` and `CANCEL` are
//! understood nevertheless.
//!
//! *Features*: greeting, `READY` exchange, short and long frames, commands, a limit on every incoming frame that is
//! checked before anything is allocated, and a time limit on every frame that has begun.
//! *Assumptions*: the byte stream is reliable and ordered (TCP).
//! *Error conditions*: each [`ZmtpError`] ends the one connection that it happened on.

use bytes::{BufMut, Bytes, BytesMut};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;

const FLAG_MORE: u8 = 0x01;
const FLAG_LONG: u8 = 0x02;
const FLAG_COMMAND: u8 = 0x04;
const SIGNATURE_LEN: usize = 10;
const GREETING_LEN: usize = 64;
/// How long the rest of a frame may take once its first byte has arrived.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ZmtpError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("expected the greeting of a ZeroMQ peer, got the bytes {got:02x?}")]
    NotZmtp { got: [u8; SIGNATURE_LEN] },
    #[error("expected ZMTP 3.0 or newer, got {major}.{minor}")]
    Version { major: u8, minor: u8 },
    #[error("expected the security mechanism NULL, got {got:?}")]
    Mechanism { got: String },
    #[error("expected a frame of at most {limit} bytes, got one that announces {announced}")]
    FrameTooLarge { announced: u64, limit: usize },
    #[error("expected a message of at most {limit} {what}, got more")]
    MessageTooLarge { limit: usize, what: &'static str },
    #[error("expected a frame's flags, got {flags:#04x}")]
    Flags { flags: u8 },
    #[error("expected {expected}, got the command {got:?}")]
    Command { expected: &'static str, got: String },
    #[error("expected a peer's socket of type {expected:?}, got {got:?}")]
    SocketType { expected: &'static [&'static str], got: String },
    #[error("expected {waiting_for} within {limit:?}")]
    Timeout { waiting_for: &'static str, limit: Duration },
    #[error("expected at most {limit} topics a subscriber, got more")]
    TooManyTopics { limit: usize },
    #[error("the peer reports an error: {0:?}")]
    Peer(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Which socket we are, and which ones we talk to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    pub socket_type: &'static str,
    pub peers: &'static [&'static str],
    /// Largest frame that a peer may send, bytes.
    pub frame_limit: usize,
}

/// One frame as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Command(Command),
    Message { more: bool, body: Bytes },
}

/// The commands that a bound NULL socket meets after the greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// The peer's properties, in their order.
    Ready(Vec<(String, Bytes)>),
    Error(String),
    /// The context that the `PONG` must bring back.
    Ping(Bytes),
    Subscribe(Bytes),
    Cancel(Bytes),
    /// Anything else, by name; to be passed over.
    Other(String),
}

/// Reads frames off a connection, each no larger than the limit.
pub(super) struct FrameReader<R> {
    inner: BufReader<R>,
    limit: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(reader: R, limit: usize) -> Self {
        Self { inner: BufReader::new(reader), limit }
    }

    /// The next frame; waits as long as none begins.
    ///
    /// # Errors
    /// [`ZmtpError::Closed`] when the stream ends between frames; reserved flags, a size over the limit and a frame
    /// that stops arriving are errors too.
    pub(super) async fn next(&mut self) -> Result<Frame, ZmtpError> {
        let flags = self.inner.read_u8().await.map_err(closed_or_io)?;
        within(FRAME_TIMEOUT, "the rest of a frame", self.rest(flags)).await
    }

    async fn rest(&mut self, flags: u8) -> Result<Frame, ZmtpError> {
        let command = flags & FLAG_COMMAND != 0;
        let more = flags & FLAG_MORE != 0;
        if flags & !(FLAG_MORE | FLAG_LONG | FLAG_COMMAND) != 0 || (command && more) {
            return Err(ZmtpError::Flags { flags });
        }
        let announced = match flags & FLAG_LONG {
            0 => u64::from(self.inner.read_u8().await.map_err(closed_or_io)?),
            _ => self.inner.read_u64().await.map_err(closed_or_io)?,
        };
        let size = usize::try_from(announced).ok().filter(|size| *size <= self.limit);
        let Some(size) = size else {
            return Err(ZmtpError::FrameTooLarge { announced, limit: self.limit });
        };
        // The buffer grows with what arrives, not with what was announced.
        let mut body = Vec::new();
        (&mut self.inner).take(announced).read_to_end(&mut body).await?;
        if body.len() < size {
            return Err(ZmtpError::Closed);
        }
        let body = Bytes::from(body);
        Ok(if command { Frame::Command(parse_command(body)?) } else { Frame::Message { more, body } })
    }
}

/// Greets a peer that has just connected and exchanges `READY` with it.
///
/// # Errors
/// Whatever keeps the two from talking; the peer has then been told where the protocol has words for it.
pub(super) async fn handshake<R, W>(
    reader: R,
    writer: &mut W,
    role: Role,
    limit: Duration,
) -> Result<FrameReader<R>, ZmtpError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    within(limit, "a complete handshake", exchange(reader, writer, role)).await
}

async fn exchange<R, W>(mut reader: R, writer: &mut W, role: Role) -> Result<FrameReader<R>, ZmtpError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    writer.write_all(&greeting()).await?;
    let mut signature = [0; SIGNATURE_LEN];
    reader.read_exact(&mut signature).await.map_err(closed_or_io)?;
    // Eight bytes of padding stand between the two marks: any value is allowed.
    if !matches!(signature, [0xff, .., 0x7f]) {
        return Err(ZmtpError::NotZmtp { got: signature });
    }
    let [major, minor] =
        [reader.read_u8().await.map_err(closed_or_io)?, reader.read_u8().await.map_err(closed_or_io)?];
    if major < 3 {
        return Err(ZmtpError::Version { major, minor });
    }
    let mut mechanism = [0; 20];
    reader.read_exact(&mut mechanism).await.map_err(closed_or_io)?;
    let mut server_and_filler = [0; GREETING_LEN - SIGNATURE_LEN - 2 - 20];
    reader.read_exact(&mut server_and_filler).await.map_err(closed_or_io)?;
    let name = String::from_utf8_lossy(&mechanism).trim_end_matches('\0').to_owned();
    if name != "NULL" {
        return Err(ZmtpError::Mechanism { got: name });
    }
    writer.write_all(&ready(role.socket_type)).await?;
    let mut frames = FrameReader::new(reader, role.frame_limit);
    let properties = match frames.next().await? {
        Frame::Command(Command::Ready(properties)) => properties,
        Frame::Command(Command::Error(reason)) => return Err(ZmtpError::Peer(reason)),
        other => return Err(ZmtpError::Command { expected: "READY", got: format!("{other:?}") }),
    };
    let socket_type = properties
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("Socket-Type"))
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .unwrap_or_default();
    if !role.peers.contains(&socket_type.as_str()) {
        let reason = format!("expected {}", role.peers.join(" or "));
        writer.write_all(&command(b"ERROR", &short_string(reason.as_bytes()))).await?;
        return Err(ZmtpError::SocketType { expected: role.peers, got: socket_type });
    }
    Ok(frames)
}

async fn within<T>(
    limit: Duration,
    waiting_for: &'static str,
    work: impl Future<Output = Result<T, ZmtpError>>,
) -> Result<T, ZmtpError> {
    timeout(limit, work).await.unwrap_or(Err(ZmtpError::Timeout { waiting_for, limit }))
}

fn closed_or_io(error: std::io::Error) -> ZmtpError {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ZmtpError::Closed,
        _ => ZmtpError::Io(error),
    }
}

fn greeting() -> [u8; GREETING_LEN] {
    let mut greeting = [0; GREETING_LEN];
    // Signature 0..10, version 3.0 at 10..12, mechanism 12..32, then as-server and filler, all zero.
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

fn ready(socket_type: &str) -> Bytes {
    let mut properties = BytesMut::new();
    properties.put(short_string(b"Socket-Type"));
    properties.put_u32(u32::try_from(socket_type.len()).unwrap_or(0));
    properties.put(socket_type.as_bytes());
    command(b"READY", &properties)
}

/// The answer to a `PING` with this context.
pub(super) fn pong(context: &[u8]) -> Bytes {
    command(b"PONG", context)
}

/// A message of these parts.
pub(super) fn message(parts: &[Bytes]) -> Bytes {
    let mut encoded = BytesMut::with_capacity(parts.iter().map(|part| part.len() + 9).sum());
    for (index, part) in parts.iter().enumerate() {
        put_header(&mut encoded, if index + 1 < parts.len() { FLAG_MORE } else { 0 }, part.len());
        encoded.put_slice(part);
    }
    encoded.freeze()
}

/// Everything of a message that stands before its last part's `payload_len` bytes.
pub(super) fn message_head(leading: &[Bytes], payload_len: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(leading.iter().map(|part| part.len() + 9).sum::<usize>() + 9);
    for part in leading {
        put_header(&mut head, FLAG_MORE, part.len());
        head.put_slice(part);
    }
    put_header(&mut head, 0, payload_len);
    head.freeze()
}

fn command(name: &[u8], body: &[u8]) -> Bytes {
    let mut encoded = BytesMut::with_capacity(name.len() + body.len() + 10);
    put_header(&mut encoded, FLAG_COMMAND, 1 + name.len() + body.len());
    encoded.put(short_string(name));
    encoded.put_slice(body);
    encoded.freeze()
}

fn put_header(out: &mut BytesMut, flags: u8, size: usize) {
    match u8::try_from(size) {
        Ok(short) => out.put_slice(&[flags, short]),
        Err(_) => {
            out.put_u8(flags | FLAG_LONG);
            out.put_u64(size as u64);
        }
    }
}

/// One byte of length, then at most 255 bytes.
fn short_string(text: &[u8]) -> Bytes {
    let text = &text[..text.len().min(255)];
    [&[text.len() as u8], text].concat().into()
}

fn parse_command(body: Bytes) -> Result<Command, ZmtpError> {
    let malformed = |expected| ZmtpError::Command { expected, got: format!("{body:02x?}") };
    let mut rest = body.clone();
    let name = take_short(&mut rest).ok_or_else(|| malformed("a command's name"))?;
    Ok(match name.as_ref() {
        b"READY" => {
            let mut properties = Vec::new();
            while !rest.is_empty() {
                let property = take_property(&mut rest).ok_or_else(|| malformed("READY's properties"))?;
                properties.push(property);
            }
            Command::Ready(properties)
        }
        b"ERROR" => {
            let reason = take_short(&mut rest).ok_or_else(|| malformed("ERROR's reason"))?;
            Command::Error(String::from_utf8_lossy(&reason).into_owned())
        }
        // Time to live in tenths of a second, then at most 16 bytes to bring back.
        b"PING" if (2..=18).contains(&rest.len()) => Command::Ping(rest.split_off(2)),
        b"PING" => return Err(malformed("PING with a time to live and at most 16 bytes")),
        b"SUBSCRIBE" => Command::Subscribe(rest),
        b"CANCEL" => Command::Cancel(rest),
        other => Command::Other(String::from_utf8_lossy(other).into_owned()),
    })
}

fn take(rest: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= rest.len()).then(|| rest.split_to(len))
}

fn take_short(rest: &mut Bytes) -> Option<Bytes> {
    let len = take(rest, 1)?;
    take(rest, usize::from(*len.first()?))
}

fn take_property(rest: &mut Bytes) -> Option<(String, Bytes)> {
    let name = take_short(rest)?;
    let len: [u8; 4] = take(rest, 4)?.as_ref().try_into().ok()?;
    let value = take(rest, usize::try_from(u32::from_be_bytes(len)).ok()?)?;
    Some((String::from_utf8_lossy(&name).into_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROLE: Role = Role { socket_type: "PUB", peers: &["SUB", "XSUB"], frame_limit: 1024 };
    const SOON: Duration = Duration::from_secs(5);

    async fn frames(bytes: &[u8]) -> Result<Vec<Frame>, ZmtpError> {
        let mut reader = FrameReader::new(bytes, 1024);
        let mut all = Vec::new();
        loop {
            match reader.next().await {
                Ok(frame) => all.push(frame),
                Err(ZmtpError::Closed) => return Ok(all),
                Err(error) => return Err(error),
            }
        }
    }

    #[tokio::test]
    async fn frames_of_both_lengths_by_hand() {
        let mut bytes = vec![0x01, 2, b'h', b'i', 0x00, 0, 0x02, 0, 0, 0, 0, 0, 0, 1, 0];
        bytes.extend([7; 256]);
        bytes.extend(b"\x04\x07\x04PING\x00\x0a");
        let expected = vec![
            Frame::Message { more: true, body: "hi".into() },
            Frame::Message { more: false, body: Bytes::new() },
            Frame::Message { more: false, body: vec![7; 256].into() },
            Frame::Command(Command::Ping(Bytes::new())),
        ];
        assert_eq!(frames(&bytes).await.unwrap(), expected);
        assert_eq!(&pong(b"ab")[..], b"\x04\x07\x04PONGab");
        assert_eq!(&message_head(&["result".into()], 3)[..], b"\x01\x06result\x00\x03");
        assert_eq!(&message_head(&["a".into(), "{}".into()], 1)[..], b"\x01\x01a\x01\x02{}\x00\x01");
        assert_eq!(&message_head(&[], 256)[..], b"\x02\0\0\0\0\0\0\x01\0");
    }

    #[tokio::test]
    async fn an_announced_giant_is_refused_before_anything_is_reserved() {
        let announced = 1u64 << 44;
        let bytes = [&[0x02][..], &announced.to_be_bytes()].concat();
        let error = frames(&bytes).await.unwrap_err();
        assert!(matches!(error, ZmtpError::FrameTooLarge { announced: a, limit: 1024 } if a == announced));
        assert!(matches!(frames(&[0x80, 0]).await.unwrap_err(), ZmtpError::Flags { flags: 0x80 }));
        assert!(matches!(frames(&[0x05, 0]).await.unwrap_err(), ZmtpError::Flags { flags: 0x05 }));
    }

    async fn greet(bytes: &[u8]) -> (Result<(), ZmtpError>, Vec<u8>) {
        let mut answer = Vec::new();
        let outcome = handshake(bytes, &mut answer, ROLE, SOON).await.map(drop);
        (outcome, answer)
    }

    fn hello(major: u8, mechanism: &[u8], socket_type: &[u8]) -> Vec<u8> {
        let mut bytes = greeting().to_vec();
        bytes[10] = major;
        bytes[11] = 1;
        bytes[12..32].fill(0);
        bytes[12..12 + mechanism.len()].copy_from_slice(mechanism);
        let mut properties = b"\x0bSocket-Type\0\0\0".to_vec();
        properties.push(socket_type.len() as u8);
        properties.extend(socket_type);
        properties.extend(b"\x08Identity\0\0\0\0");
        bytes.extend(command(b"READY", &properties));
        bytes
    }

    #[tokio::test]
    async fn handshakes_with_subscribers_and_with_nobody_else() {
        let (outcome, answer) = greet(&hello(3, b"NULL", b"SUB")).await;
        outcome.unwrap();
        assert_eq!(&answer[..16], b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL");
        assert_eq!(&answer[64..], b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB");
        let refused = |bytes: Vec<u8>| async move { greet(&bytes).await.0.unwrap_err() };
        assert!(matches!(refused(hello(3, b"NULL", b"REQ")).await, ZmtpError::SocketType { .. }));
        assert!(matches!(refused(hello(3, b"CURVE", b"SUB")).await, ZmtpError::Mechanism { .. }));
        assert!(matches!(refused(hello(2, b"NULL", b"SUB")).await, ZmtpError::Version { major: 2, .. }));
        assert!(matches!(refused(b"GET / HTTP/1.1\r\n".to_vec()).await, ZmtpError::NotZmtp { .. }));
        assert!(matches!(refused(vec![0xff, 0, 0]).await, ZmtpError::Closed));
    }

    #[tokio::test]
    async fn a_peer_that_falls_silent_is_given_up() {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (reader, mut writer) = tokio::io::split(ours);
        let brief = Duration::from_millis(10);
        let outcome = handshake(reader, &mut writer, ROLE, brief).await.map(drop);
        assert!(matches!(outcome, Err(ZmtpError::Timeout { limit, .. }) if limit == brief));
        drop(theirs);
    }

    proptest! {
        #[test]
        fn random_bytes_give_frames_or_errors(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _ = runtime.block_on(frames(&bytes));
            let _ = runtime.block_on(greet(&[&greeting()[..], &bytes].concat()));
        }

        #[test]
        fn messages_come_back_as_they_went(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1024), 1..5)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let parts: Vec<Bytes> = parts.into_iter().map(Bytes::from).collect();
            let expected: Vec<Frame> = parts.iter().enumerate()
                .map(|(index, part)| Frame::Message { more: index + 1 < parts.len(), body: part.clone() })
                .collect();
            prop_assert_eq!(runtime.block_on(frames(&message(&parts))).unwrap(), expected);
        }
    }
}
