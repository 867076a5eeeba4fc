//! The PUB lanes. A slow subscriber loses its own oldest messages and delays nobody.

use super::PublishError;
use super::queue::{Outgoing, Publication, QueueCapacity, SubscriberQueue};
use super::server::{HANDSHAKE_TIMEOUT, Server, Stop, listen, stopped};
use super::zmtp::{Command, Frame, FrameReader, Role, ZmtpError, handshake};
use crate::telemetry::{Connected, LaneMetrics};
use bytes::{Buf, Bytes};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Subscribers send subscriptions only, so a small limit will do.
const ROLE: Role = Role { socket_type: "PUB", peers: &["SUB", "XSUB"], frame_limit: 1024 };

/// What a PUB lane is bound with.
#[derive(Debug, Clone, Copy)]
pub struct LaneOptions {
    pub name: &'static str,
    pub address: SocketAddr,
    pub capacity: QueueCapacity,
    pub max_connections: usize,
}

/// A bound PUB socket. Dropping it disconnects the subscribers; its publishers then publish to nobody.
#[derive(Debug)]
pub struct PubLane {
    publisher: Publisher,
    server: Server,
}

impl PubLane {
    /// Binds the lane and begins to accept subscribers. Wants a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(options: LaneOptions, metrics: LaneMetrics) -> Result<Self, PublishError> {
        let listener = listen(options.name, options.address)?;
        let lane =
            Arc::new(Lane { capacity: options.capacity, metrics: metrics.clone(), queues: Mutex::default() });
        let publisher = Publisher(Arc::clone(&lane));
        let serve = move |stream, stop| serve_subscriber(Arc::clone(&lane), stream, stop);
        let server = Server::start(options.name, listener, options.max_connections, metrics, serve)?;
        Ok(Self { publisher, server })
    }

    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// The address that was bound, with the port that was taken where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Gives the subscribers at most `grace` to take what is queued for them, then disconnects them.
    pub async fn close(self, grace: Duration) {
        self.server.close(grace).await;
    }
}

/// Publishes on a lane from any thread. Never waits for a subscriber.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<Lane>);

impl Publisher {
    /// Sends two parts, the topic and the payload, to all who subscribed to a prefix of the topic.
    pub fn publish(&self, topic: &'static str, payload: Bytes) {
        self.publish_parts(&[Bytes::from_static(topic.as_bytes())], payload);
    }

    /// Sends the payload as the only part; subscriptions are compared with its first bytes.
    pub fn publish_single(&self, payload: Bytes) {
        self.publish_parts(&[], payload);
    }

    /// Sends the `leading` parts and then the payload; subscriptions are compared with the first part.
    pub fn publish_parts(&self, leading: &[Bytes], payload: Bytes) {
        self.0.send(Publication::new(leading, payload));
    }

    /// Messages that made room for newer ones, over all subscribers since the lane was bound.
    pub fn dropped(&self) -> u64 {
        self.0.metrics.dropped.get()
    }

    /// Subscribers connected now that have asked for something: what is published from here on reaches them.
    pub fn subscribers(&self) -> usize {
        self.0.queues().iter().filter(|queue| queue.has_subscriptions()).count()
    }

    /// Bytes that wait for the subscriber that has most waiting, with the message being written to it.
    pub fn held_bytes(&self) -> usize {
        self.0.queues().iter().map(|queue| queue.held_bytes()).max().unwrap_or(0)
    }
}

#[derive(Debug)]
struct Lane {
    capacity: QueueCapacity,
    metrics: LaneMetrics,
    queues: Mutex<Vec<Arc<SubscriberQueue>>>,
}

impl Lane {
    fn queues(&self) -> MutexGuard<'_, Vec<Arc<SubscriberQueue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, publication: Publication) {
        let publication = Arc::new(publication);
        let dropped: u64 = self.queues().iter().map(|queue| queue.push(&publication)).sum();
        self.metrics.published.inc();
        self.metrics.dropped.inc_by(dropped);
    }
}

/// A subscriber's place on the lane; it leaves when this is dropped, however its task ends.
struct Place {
    lane: Arc<Lane>,
    queue: Arc<SubscriberQueue>,
    _counted: Connected,
}

impl Place {
    fn take(lane: Arc<Lane>) -> Self {
        let queue = Arc::new(SubscriberQueue::new(lane.capacity));
        lane.queues().push(Arc::clone(&queue));
        let _counted = lane.metrics.connected();
        Self { lane, queue, _counted }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lane.queues().retain(|queue| !Arc::ptr_eq(queue, &self.queue));
    }
}

async fn serve_subscriber(lane: Arc<Lane>, stream: TcpStream, mut stop: Stop) -> Result<(), ZmtpError> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut frames = tokio::select! {
        shaken = handshake(reader, &mut writer, ROLE, HANDSHAKE_TIMEOUT) => shaken?,
        () = stopped(&mut stop) => return Ok(()),
    };
    let place = Place::take(lane);
    // Neither of the two is ever cancelled but at the connection's end, so no frame is left half read or half written.
    tokio::select! {
        outcome = hear(&mut frames, &place.queue) => outcome,
        outcome = feed(&mut writer, &place.queue, stop) => outcome,
    }
}

/// Follows what the subscriber asks for.
async fn hear<R: AsyncRead + Unpin>(
    frames: &mut FrameReader<R>,
    queue: &SubscriberQueue,
) -> Result<(), ZmtpError> {
    loop {
        match frames.next().await? {
            // ZMTP 3.0 subscribes by messages, 3.1 by commands.
            Frame::Message { body, .. } => match body.first() {
                Some(1) => queue.subscribe(body.slice(1..))?,
                Some(0) => queue.unsubscribe(&body[1..]),
                _ => {}
            },
            Frame::Command(Command::Subscribe(topic)) => queue.subscribe(topic)?,
            Frame::Command(Command::Cancel(topic)) => queue.unsubscribe(&topic),
            Frame::Command(Command::Ping(context)) => queue.push_pong(&context),
            Frame::Command(Command::Error(reason)) => return Err(ZmtpError::Peer(reason)),
            Frame::Command(Command::Ready(_) | Command::Other(_)) => {}
        }
    }
}

/// Writes what is queued, message by message; after `stop`, what is left, and returns.
async fn feed<W: AsyncWrite + Unpin>(
    writer: &mut W,
    queue: &SubscriberQueue,
    mut stop: Stop,
) -> Result<(), ZmtpError> {
    loop {
        let outgoing = tokio::select! {
            biased;
            outgoing = queue.next() => outgoing,
            () = stopped(&mut stop) => {
                writer.shutdown().await?;
                return Ok(());
            }
        };
        match outgoing {
            Outgoing::Pong(pong) => writer.write_all(&pong).await?,
            Outgoing::Message(message) => {
                let (head, payload) = message.wire();
                writer.write_all_buf(&mut head.clone().chain(payload.clone())).await?;
            }
        }
    }
}
