//! Where frames wait for the networks.

use crate::config::Mode;
use crate::frame::Frame;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Live: one slot, the newest frame wins. Lossless: a bounded queue that blocks whoever fills it.
#[derive(Debug)]
pub struct Inbox {
    mode: Mode,
    capacity: usize,
    state: Mutex<State>,
    /// Something was added or taken, or the inbox was closed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Arc<Frame>>,
    closed: bool,
}

/// What became of a frame that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Waiting,
    /// It took the place of a frame that nobody will process.
    Superseded,
    /// The inbox is closed: the frame is not processed.
    Closed,
}

impl Inbox {
    /// `capacity` counts in lossless mode only.
    pub fn new(mode: Mode, capacity: usize) -> Self {
        let capacity = match mode {
            Mode::Live => 1,
            Mode::Lossless => capacity.max(1),
        };
        Self { mode, capacity, state: Mutex::default(), changed: Condvar::new() }
    }

    /// A panic elsewhere leaves whole frames behind: nothing to repair.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame in; in lossless mode waits for room.
    pub fn put(&self, frame: Arc<Frame>) -> Put {
        let mut state = self.lock();
        let mut put = Put::Waiting;
        loop {
            if state.closed {
                return Put::Closed;
            }
            if state.frames.len() < self.capacity {
                break;
            }
            match self.mode {
                Mode::Live => {
                    state.frames.pop_front();
                    put = Put::Superseded;
                }
                Mode::Lossless => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        state.frames.push_back(frame);
        self.changed.notify_all();
        put
    }

    /// The next frame; waits for one. `None` when the inbox is closed and empty.
    pub fn take(&self) -> Option<Arc<Frame>> {
        let mut state = self.lock();
        loop {
            if let Some(frame) = state.frames.pop_front() {
                self.changed.notify_all();
                return Some(frame);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more frames; those that wait can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.lock().frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(seq: u64) -> Arc<Frame> {
        Arc::new(Frame { seq, ..Frame::blank(32, 32, 0.0) })
    }

    #[test]
    fn live_keeps_the_newest() {
        let inbox = Inbox::new(Mode::Live, 8);
        assert_eq!(inbox.put(frame(1)), Put::Waiting);
        assert_eq!(inbox.put(frame(2)), Put::Superseded);
        assert_eq!(inbox.put(frame(3)), Put::Superseded);
        assert_eq!(inbox.take().unwrap().seq, 3);
        assert!(inbox.is_empty());
        inbox.put(frame(4));
        inbox.close();
        assert_eq!(inbox.put(frame(5)), Put::Closed);
        assert_eq!(inbox.take().unwrap().seq, 4);
        assert!(inbox.take().is_none());
    }

    #[test]
    fn lossless_blocks_and_loses_nothing() {
        let inbox = Arc::new(Inbox::new(Mode::Lossless, 2));
        let filler = std::thread::spawn({
            let inbox = Arc::clone(&inbox);
            move || {
                for seq in 0..50 {
                    assert_eq!(inbox.put(frame(seq)), Put::Waiting);
                }
                inbox.close();
            }
        });
        let mut seen = Vec::new();
        while let Some(frame) = inbox.take() {
            assert!(inbox.len() <= 2);
            seen.push(frame.seq);
        }
        filler.join().unwrap();
        assert_eq!(seen, (0..50).collect::<Vec<u64>>());
    }
}
