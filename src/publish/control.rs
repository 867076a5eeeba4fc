//! A control socket: JSON requests, JSON replies. What there is to ask for and what it does is behind [`Answer`]: the
//! commands of the daemon ([`Commands`]), and those of the simulated scan.
//!
//! REQ peers send an empty delimiter and the request; DEALER peers may leave the delimiter out or put parts of
//! their own before it. The reply goes back behind the same parts. A peer that sends several requests at once gets
//! the replies in their order.

use super::PublishError;
use super::server::{HANDSHAKE_TIMEOUT, Server, Stop, listen, stopped};
use super::zmtp::{self, Command, Frame, FrameReader, Role, ZmtpError, handshake};
use crate::telemetry::LaneMetrics;
use bytes::Bytes;
use ferrostem_proto::Limits;
use ferrostem_proto::control::{ControlError, ControlReply, ControlRequest, ErrorCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Largest request, bytes, all its parts together.
const REQUEST_LIMIT: usize = 1 << 20;
/// Parts that a request may consist of.
const PARTS_LIMIT: usize = 16;
const ROLE: Role = Role { socket_type: "REP", peers: &["REQ", "DEALER"], frame_limit: REQUEST_LIMIT };

/// Answers the requests of a control socket.
pub trait Answer: Send + Sync + 'static {
    /// `request` is the body as it came, of at most 1 MiB. Runs on a thread of its own that may block. Requests of
    /// different peers run at the same time.
    fn answer(&self, request: &[u8]) -> ControlReply;
}

/// Carries out the commands of the daemon's control lane.
pub trait ControlHandler: Send + Sync + 'static {
    /// As [`Answer::answer`], for a request that could be read.
    fn handle(&self, request: ControlRequest) -> ControlReply;
}

/// The daemon's control lane: requests that cannot be read are refused, the others are handled.
pub(super) struct Commands(pub Arc<dyn ControlHandler>);

impl Answer for Commands {
    fn answer(&self, request: &[u8]) -> ControlReply {
        match ControlRequest::parse(request, &Limits::default()) {
            Ok(request) => self.0.handle(request),
            Err(refused) => *refused,
        }
    }
}

/// A bound control socket. Dropping it disconnects the peers.
#[derive(Debug)]
pub struct ControlServer {
    server: Server,
}

impl ControlServer {
    /// Binds `address` and begins to accept peers. Wants a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(
        lane: &'static str,
        address: SocketAddr,
        max_connections: usize,
        metrics: LaneMetrics,
        answer: Arc<dyn Answer>,
    ) -> Result<Self, PublishError> {
        let listener = listen(lane, address)?;
        let connections = metrics.clone();
        let serve = move |stream, stop| {
            let peer = Peer { answer: Arc::clone(&answer), metrics: connections.clone() };
            peer.serve(stream, stop)
        };
        Ok(Self { server: Server::start(lane, listener, max_connections, metrics, serve)? })
    }

    /// The address that was bound, with the port that was taken where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Lets the commands in progress finish and reply for at most `grace`, then disconnects the peers.
    pub async fn close(self, grace: Duration) {
        self.server.close(grace).await;
    }
}

struct Peer {
    answer: Arc<dyn Answer>,
    metrics: LaneMetrics,
}

impl Peer {
    async fn serve(self, stream: TcpStream, mut stop: Stop) -> Result<(), ZmtpError> {
        stream.set_nodelay(true)?;
        let (reader, mut writer) = stream.into_split();
        let mut frames = tokio::select! {
            shaken = handshake(reader, &mut writer, ROLE, HANDSHAKE_TIMEOUT) => shaken?,
            () = stopped(&mut stop) => return Ok(()),
        };
        let _counted = self.metrics.connected();
        let (to_answer, requests) = mpsc::channel(1);
        let (to_pong, pongs) = mpsc::channel(1);
        tokio::select! {
            outcome = hear(&mut frames, to_answer, to_pong) => outcome,
            outcome = self.answer_all(&mut writer, requests, pongs, stop) => outcome,
        }
    }

    /// Answers the requests one by one, and pings also while a command takes its time.
    async fn answer_all<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        mut requests: mpsc::Receiver<Request>,
        mut pongs: mpsc::Receiver<Bytes>,
        mut stop: Stop,
    ) -> Result<(), ZmtpError> {
        loop {
            let request = tokio::select! {
                Some(pong) = pongs.recv() => {
                    writer.write_all(&pong).await?;
                    continue;
                }
                request = requests.recv() => request,
                () = stopped(&mut stop) => None,
            };
            let Some(Request { mut envelope, body }) = request else {
                writer.shutdown().await?;
                return Ok(());
            };
            let working = self.reply(body);
            tokio::pin!(working);
            let reply = loop {
                tokio::select! {
                    Some(pong) = pongs.recv() => writer.write_all(&pong).await?,
                    reply = &mut working => break reply,
                }
            };
            self.metrics.published.inc();
            envelope.push(reply);
            writer.write_all(&zmtp::message(&envelope)).await?;
        }
    }

    async fn reply(&self, body: Bytes) -> Bytes {
        let (answer, request) = (Arc::clone(&self.answer), body.clone());
        let answered = tokio::task::spawn_blocking(move || answer.answer(&request)).await;
        let reply = answered.unwrap_or_else(|error| {
            tracing::error!(%error, "a control command failed to run to its end");
            let message = "the command failed to run to its end; the log says more";
            ControlReply {
                id: request_id(&body),
                outcome: Err(ControlError::new(ErrorCode::Failed, message)),
            }
        });
        reply.to_json().into()
    }
}

/// The request's `id`; null where it has none or cannot be read.
fn request_id(request: &[u8]) -> serde_json::Value {
    let request: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(request);
    request.ok().and_then(|mut request| request.remove("id")).unwrap_or_default()
}

/// The parts that go back as they came, and the request itself.
struct Request {
    envelope: Vec<Bytes>,
    body: Bytes,
}

impl Request {
    /// The envelope ends with the first empty part; without one, before the last part.
    fn from_parts(mut parts: Vec<Bytes>) -> Self {
        let envelope_len = match parts.iter().position(Bytes::is_empty) {
            Some(delimiter) => delimiter + 1,
            None => parts.len().saturating_sub(1),
        };
        let mut rest = parts.split_off(envelope_len);
        // Nothing or several parts behind the delimiter are no request; the parser will say so.
        let body = if rest.len() == 1 { rest.remove(0) } else { Bytes::new() };
        Self { envelope: parts, body }
    }
}

/// Reads requests until the peer leaves; waits while the one before is being answered.
async fn hear<R: AsyncRead + Unpin>(
    frames: &mut FrameReader<R>,
    requests: mpsc::Sender<Request>,
    pongs: mpsc::Sender<Bytes>,
) -> Result<(), ZmtpError> {
    let mut parts = Vec::new();
    loop {
        match frames.next().await? {
            Frame::Message { more, body } => {
                parts.push(body);
                if parts.len() > PARTS_LIMIT {
                    return Err(ZmtpError::MessageTooLarge { limit: PARTS_LIMIT, what: "parts" });
                }
                if parts.iter().map(Bytes::len).sum::<usize>() > REQUEST_LIMIT {
                    return Err(ZmtpError::MessageTooLarge { limit: REQUEST_LIMIT, what: "bytes" });
                }
                if !more {
                    let request = Request::from_parts(std::mem::take(&mut parts));
                    requests.send(request).await.map_err(|_| ZmtpError::Closed)?;
                }
            }
            // Where a `PONG` already waits to be written, it answers this one too.
            Frame::Command(Command::Ping(context)) => drop(pongs.try_send(zmtp::pong(&context))),
            Frame::Command(Command::Error(reason)) => return Err(ZmtpError::Peer(reason)),
            Frame::Command(_) => {}
        }
    }
}
