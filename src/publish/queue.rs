//! What waits for one subscriber: a bounded queue in which the newest message wins.

use super::zmtp::{self, ZmtpError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Topics that one subscriber may ask for at the same time.
const TOPIC_LIMIT: usize = 64;

/// How much may wait for one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueCapacity {
    pub messages: usize,
    /// One message always fits, whatever its size.
    pub bytes: usize,
}

/// One message of a PUB lane, shared by all its subscribers.
#[derive(Debug)]
pub(super) struct Publication {
    /// What subscriptions are compared with.
    first_part: Bytes,
    head: Bytes,
    payload: Bytes,
}

impl Publication {
    /// The `leading` parts, if any, and the payload as the last one.
    pub(super) fn new(leading: &[Bytes], payload: Bytes) -> Self {
        let head = zmtp::message_head(leading, payload.len());
        let first_part = leading.first().unwrap_or(&payload).clone();
        Self { first_part, head, payload }
    }

    /// The frames on the wire: the head, then the payload.
    pub(super) fn wire(&self) -> (&Bytes, &Bytes) {
        (&self.head, &self.payload)
    }

    fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// What the connection has to write next.
#[derive(Debug)]
pub(super) enum Outgoing {
    Pong(Bytes),
    Message(Arc<Publication>),
}

/// The prefixes that a subscriber asked for, each with how often.
#[derive(Debug, Default)]
struct Subscriptions(Vec<(Bytes, u32)>);

impl Subscriptions {
    fn add(&mut self, topic: Bytes) -> Result<(), ZmtpError> {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| *known == topic) {
            *count = count.saturating_add(1);
            return Ok(());
        }
        if self.0.len() >= TOPIC_LIMIT {
            return Err(ZmtpError::TooManyTopics { limit: TOPIC_LIMIT });
        }
        self.0.push((topic, 1));
        Ok(())
    }

    fn remove(&mut self, topic: &[u8]) {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| known == topic) {
            *count -= 1;
        }
        self.0.retain(|(_, count)| *count > 0);
    }

    fn match_prefix_of(&self, first_part: &[u8]) -> bool {
        self.0.iter().any(|(topic, _)| first_part.starts_with(topic))
    }
}

#[derive(Debug, Default)]
struct State {
    subscriptions: Subscriptions,
    messages: VecDeque<Arc<Publication>>,
    bytes: usize,
    /// Size of the message being written; it has left `messages` and can no longer be dropped.
    in_flight: usize,
    pong: Option<Bytes>,
}

/// The queue between a lane's publisher, any thread, and the task that writes to one subscriber.
#[derive(Debug)]
pub(super) struct SubscriberQueue {
    capacity: QueueCapacity,
    state: Mutex<State>,
    filled: Notify,
}

impl SubscriberQueue {
    pub(super) fn new(capacity: QueueCapacity) -> Self {
        Self { capacity, state: Mutex::default(), filled: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self, topic: Bytes) -> Result<(), ZmtpError> {
        self.state().subscriptions.add(topic)
    }

    pub(super) fn unsubscribe(&self, topic: &[u8]) {
        self.state().subscriptions.remove(topic);
    }

    pub(super) fn has_subscriptions(&self) -> bool {
        !self.state().subscriptions.0.is_empty()
    }

    /// Queues the message if the subscriber asked for it, and says how many older ones it displaced. Never waits.
    pub(super) fn push(&self, message: &Arc<Publication>) -> u64 {
        let mut state = self.state();
        if !state.subscriptions.match_prefix_of(&message.first_part) {
            return 0;
        }
        let mut dropped = 0;
        while state.messages.len() >= self.capacity.messages
            || state.bytes + message.len() > self.capacity.bytes
        {
            let Some(oldest) = state.messages.pop_front() else { break };
            state.bytes -= oldest.len();
            dropped += 1;
        }
        state.bytes += message.len();
        state.messages.push_back(Arc::clone(message));
        drop(state);
        self.filled.notify_one();
        dropped
    }

    /// Asks for a `PONG`; a newer one replaces one that was not yet written.
    pub(super) fn push_pong(&self, context: &[u8]) {
        self.state().pong = Some(zmtp::pong(context));
        self.filled.notify_one();
    }

    /// What to write next, without waiting. Call it only when what it gave before has been written.
    pub(super) fn try_next(&self) -> Option<Outgoing> {
        let mut state = self.state();
        state.in_flight = 0;
        if let Some(pong) = state.pong.take() {
            return Some(Outgoing::Pong(pong));
        }
        let message = state.messages.pop_front()?;
        state.bytes -= message.len();
        state.in_flight = message.len();
        Some(Outgoing::Message(message))
    }

    /// What to write next. One task only may wait here.
    pub(super) async fn next(&self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.try_next() {
                return outgoing;
            }
            self.filled.notified().await;
        }
    }

    /// Bytes that this subscriber keeps alive: those queued and those being written.
    pub(super) fn held_bytes(&self) -> usize {
        let state = self.state();
        state.bytes + state.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(messages: usize, bytes: usize) -> SubscriberQueue {
        let queue = SubscriberQueue::new(QueueCapacity { messages, bytes });
        queue.subscribe(Bytes::new()).unwrap();
        queue
    }

    fn publication(payload: &[u8]) -> Arc<Publication> {
        Arc::new(Publication::new(&["result".into()], Bytes::copy_from_slice(payload)))
    }

    fn drain(queue: &SubscriberQueue) -> Vec<Bytes> {
        std::iter::from_fn(|| match queue.try_next()? {
            Outgoing::Message(message) => Some(message.payload.clone()),
            Outgoing::Pong(pong) => Some(pong),
        })
        .collect()
    }

    #[test]
    fn the_newest_messages_win() {
        let queue = queue(3, 1 << 20);
        let dropped: u64 = (0..10).map(|number| queue.push(&publication(&[number]))).sum();
        assert_eq!(dropped, 7);
        assert_eq!(drain(&queue), [&[7][..], &[8], &[9]]);
        assert_eq!(queue.held_bytes(), 0);
    }

    #[test]
    fn bytes_are_bounded_but_one_message_always_fits() {
        // Eight bytes of topic frame, two of payload header.
        let queue = queue(100, 250);
        assert_eq!(queue.push(&publication(&[0; 90])), 0);
        assert_eq!(queue.push(&publication(&[1; 90])), 0);
        assert_eq!(queue.held_bytes(), 200);
        assert_eq!(queue.push(&publication(&[2; 90])), 1);
        assert_eq!(queue.held_bytes(), 200);
        assert_eq!(queue.push(&publication(&[3; 255])), 2);
        assert_eq!(queue.held_bytes(), 265);
        assert_eq!(drain(&queue).len(), 1);
    }

    #[test]
    fn a_message_being_written_is_not_displaced_and_is_accounted_for() {
        let queue = queue(1, 1 << 20);
        queue.push(&publication(&[0; 90]));
        let Some(Outgoing::Message(writing)) = queue.try_next() else { panic!("nothing to write") };
        assert_eq!(queue.push(&publication(&[1; 90])), 0);
        assert_eq!(queue.push(&publication(&[2; 90])), 1);
        assert_eq!(writing.payload[0], 0);
        assert_eq!(queue.held_bytes(), 200);
    }

    #[test]
    fn subscriptions_are_prefixes_and_are_counted() {
        let queue = SubscriberQueue::new(QueueCapacity { messages: 8, bytes: 1 << 20 });
        queue.push(&publication(b"before any subscription"));
        queue.subscribe("res".into()).unwrap();
        queue.subscribe("res".into()).unwrap();
        queue.unsubscribe(b"res");
        queue.unsubscribe(b"never asked for");
        queue.push(&publication(b"a"));
        queue.push(&Arc::new(Publication::new(&["status".into()], "b".into())));
        queue.unsubscribe(b"res");
        queue.push(&publication(b"c"));
        assert_eq!(drain(&queue), ["a"]);
        queue.subscribe("pay".into()).unwrap();
        queue.push(&Arc::new(Publication::new(&[], "payload".into())));
        assert_eq!(drain(&queue), ["payload"]);
    }

    #[test]
    fn topics_are_limited() {
        let queue = SubscriberQueue::new(QueueCapacity { messages: 8, bytes: 1 << 20 });
        for number in 0..TOPIC_LIMIT {
            queue.subscribe(number.to_string().into()).unwrap();
        }
        queue.subscribe("0".into()).unwrap();
        assert!(matches!(queue.subscribe("x".into()), Err(ZmtpError::TooManyTopics { .. })));
    }

    #[test]
    fn a_pong_goes_first_and_the_newest_is_enough() {
        let queue = queue(8, 1 << 20);
        queue.push(&publication(b"a"));
        queue.push_pong(b"1");
        queue.push_pong(b"2");
        assert_eq!(drain(&queue), [zmtp::pong(b"2"), "a".into()]);
    }
}
