//! The scan's thread: frame after frame, each published when it is due.

use super::beam::Beam;
use super::state::{NextFrame, Shared, Wanted};
use super::{FrameEncoding, Pace, ServerSettings};
use crate::publish::Publisher;
use bytes::Bytes;
use ferrostem_proto::{Bracket, FrameMessage, FrameState, FramesMessage, JsonMap, PixelArray, cbor, recipe};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Unix time that never runs backwards.
struct Clock {
    started: Instant,
    started_ns: u64,
}

impl Clock {
    fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_ns: nanoseconds(since_epoch) }
    }

    fn unix_ns(&self, at: Instant) -> u64 {
        self.started_ns + nanoseconds(at.saturating_duration_since(self.started))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The scan's thread.
pub(super) struct Scan {
    beam: Beam,
    settings: ServerSettings,
    shared: Arc<Shared>,
    publisher: Publisher,
    clock: Clock,
}

/// The frame that is being scanned.
struct Current {
    /// Complete, but for the end of its time.
    message: FrameMessage,
    start: Instant,
    duration: Duration,
}

impl Scan {
    pub fn new(beam: Beam, settings: ServerSettings, shared: Arc<Shared>, publisher: Publisher) -> Self {
        Self { beam, settings, shared, publisher, clock: Clock::now() }
    }

    pub fn run(mut self) {
        while let Some(acquisition) = self.shared.wait_for_acquisition() {
            let name = self.shared.name(acquisition);
            let bracket = || Bracket { acquisition: name.clone(), user_data: JsonMap::default() };
            self.publish(&FramesMessage::Begin(bracket()));
            self.acquire(acquisition, &name);
            self.publish(&FramesMessage::End(bracket()));
        }
    }

    /// Frames until the acquisition is stopped or complete. Each begins when the one before has ended.
    fn acquire(&mut self, acquisition: Wanted, name: &str) {
        let mut start = Instant::now();
        while let Some(next) = self.shared.next_frame(acquisition) {
            let duration = match self.settings.pace {
                Pace::Dwell => Duration::from_secs_f64(next.scan.frame_s()),
                Pace::IntervalMs(ms) => Duration::from_secs_f64(ms * 1e-3),
                Pace::Max => Duration::ZERO,
            };
            let message = self.scan_frame(&next, name, start);
            let current = message.map(|message| Current { message, start, duration });
            if let Some(current) = &current
                && !self.publish_partially(current)
            {
                return;
            }
            // Later than due where rendering takes longer than the scan.
            let end = (start + duration).max(Instant::now());
            if !self.shared.wait_until(end) {
                // The shutdown cut the frame short.
                return;
            }
            if let Some(Current { mut message, .. }) = current {
                message.t_end_ns = Some(self.clock.unix_ns(end));
                self.publish(&FramesMessage::Frame(Box::new(message)));
            }
            self.shared.count_frame();
            start = end;
        }
    }

    /// The frame as the scan sees it now, without the end of its time.
    fn scan_frame(&mut self, next: &NextFrame, name: &str, start: Instant) -> Option<FrameMessage> {
        let scanned = match self.beam.scan(&next.scan) {
            Ok(scanned) => scanned,
            Err(error) => {
                tracing::error!(seq = next.seq, %error, "a simulated frame is lost");
                return None;
            }
        };
        let mut message = scanned.message;
        message.acquisition = Some(name.to_owned());
        message.seq = next.seq;
        message.t_start_ns = Some(self.clock.unix_ns(start));
        Some(message)
    }

    /// Publishes, while the scan goes on, what it has scanned so far; `false` when the server shuts down.
    fn publish_partially(&self, current: &Current) -> bool {
        if current.duration.is_zero() {
            return true;
        }
        let parts = self.settings.partial_frames + 1;
        for part in 1..parts {
            let at = current.start + current.duration * part / parts;
            if !self.shared.wait_until(at) {
                return false;
            }
            let rows = current.message.data.shape()[0] * part as usize / parts as usize;
            if let Some(mut message) = scanned_so_far(&current.message, rows) {
                message.t_end_ns = Some(self.clock.unix_ns(at));
                self.publish(&FramesMessage::Frame(Box::new(message)));
            }
        }
        true
    }

    /// Publishes as the settings say; the pyzmq recipe has no words for `begin` and `end`.
    fn publish(&self, message: &FramesMessage) {
        match (self.settings.encoding, message) {
            (FrameEncoding::Native, message) => match cbor::encode_frames(message) {
                Ok(bytes) => self.publisher.publish_single(bytes),
                Err(error) => {
                    tracing::error!(%error, "a message of the simulated microscope cannot be encoded");
                }
            },
            (FrameEncoding::Pyzmq, FramesMessage::Frame(frame)) => {
                let (header, pixels) = recipe::encode_recipe(frame);
                let topic = self.settings.topic.as_ref().map(|topic| Bytes::from(topic.clone()));
                let leading: Vec<Bytes> = topic.into_iter().chain([header]).collect();
                self.publisher.publish_parts(&leading, pixels);
            }
            (FrameEncoding::Pyzmq, FramesMessage::Begin(_) | FramesMessage::End(_)) => {}
        }
    }
}

/// The first `rows` of a frame, the others 0; `None` when there are none yet.
fn scanned_so_far(frame: &FrameMessage, rows: usize) -> Option<FrameMessage> {
    let data = &frame.data;
    let mut bytes = data.bytes().to_vec();
    bytes.get_mut(rows * data.shape()[1] * data.dtype().size()..)?.fill(0);
    let data = PixelArray::new(data.dtype(), data.byte_order(), data.shape(), bytes.into()).ok()?;
    let so_far = FrameMessage {
        data,
        state: Some(FrameState::Partial),
        valid_rows: Some([0, rows as u64]),
        ..frame.clone()
    };
    (rows > 0).then_some(so_far)
}
