//! Frames read and encoded before they are due: between a thread that reads and the one that hands over.

use super::{Encode, ReplayError, Schedule};
use crate::session::reader::FrameReader;
use bytes::Bytes;
use ferrostem_proto::{Bracket, FrameMessage, FramesMessage};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Encoded frames that are kept ready, bytes; one always fits.
const BUDGET_BYTES: usize = 256 << 20;
/// The replay begins when this many frames are ready, or a quarter of the bytes.
const FIRST_FRAMES: usize = 16;

/// A frame ready to go, with what goes before and after it.
pub(super) struct Ready {
    pub(super) index: usize,
    pub(super) due: Duration,
    /// An acquisition begins with this frame.
    pub(super) begin: Option<Opening>,
    pub(super) frame: Bytes,
    /// The acquisition of this name ends with it.
    pub(super) end: Option<String>,
}

/// The brackets around an acquisition.
pub(super) struct Opening {
    pub(super) name: String,
    pub(super) begin: Bytes,
    pub(super) end: Bytes,
}

/// The queue: bounded in bytes, one thread at either end.
#[derive(Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Result<Ready, ReplayError>>,
    bytes: usize,
    /// Nothing more will come.
    complete: bool,
    /// Nothing more is wanted.
    abandoned: bool,
}

/// Says that nothing more comes, or is wanted, when it is dropped: whichever end goes, the other does not wait for it.
pub(super) struct End<'a> {
    ahead: &'a Ahead,
    set: fn(&mut State),
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        (self.set)(&mut self.ahead.lock());
        self.ahead.changed.notify_all();
    }
}

impl Ahead {
    /// A panic at one end leaves whole frames behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        condition: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.changed.wait_while(state, condition).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reader_end(&self) -> End<'_> {
        End { ahead: self, set: |state| state.complete = true }
    }

    pub(super) fn player_end(&self) -> End<'_> {
        End { ahead: self, set: |state| state.abandoned = true }
    }

    /// Adds what was read; waits for room. False when nothing more is wanted.
    fn push(&self, item: Result<Ready, ReplayError>) -> bool {
        let bytes = item.as_ref().map_or(0, |ready| ready.frame.len());
        let is_full = |state: &mut State| {
            !state.abandoned && !state.ready.is_empty() && state.bytes + bytes > BUDGET_BYTES
        };
        let mut state = self.wait(self.lock(), is_full);
        state.bytes += bytes;
        state.ready.push_back(item);
        let wanted = !state.abandoned;
        drop(state);
        self.changed.notify_all();
        wanted
    }

    /// Waits until enough is ready to begin with.
    pub(super) fn wait_for_a_start(&self) {
        drop(self.wait(self.lock(), |state| {
            !state.complete && state.ready.len() < FIRST_FRAMES && state.bytes < BUDGET_BYTES / 4
        }));
    }

    /// The next frame, or why there is none; waits for it. `None` after the last.
    pub(super) fn pop(&self) -> Option<Result<Ready, ReplayError>> {
        let mut state = self.wait(self.lock(), |state| state.ready.is_empty() && !state.complete);
        let next = state.ready.pop_front();
        if let Some(Ok(ready)) = &next {
            state.bytes -= ready.frame.len();
        }
        drop(state);
        self.changed.notify_all();
        next
    }

    /// Reads and encodes frame after frame, until the schedule's end or until nothing more is wanted.
    pub(super) fn fill(&self, reader: &mut dyn FrameReader, schedule: &Schedule, encode: Encode) {
        let brackets = Brackets::of(reader, schedule);
        for n in 0.. {
            let Some(due) = schedule.due(n) else { return };
            let ready = reader.frame(due.index).map_err(ReplayError::Session).and_then(|recorded| {
                let mut message = recorded.message;
                message.acquisition = pass_name(message.acquisition.take(), due.pass);
                brackets.frame(due.index, due.offset, message, encode)
            });
            let failed = ready.is_err();
            if !self.push(ready) || failed {
                return;
            }
        }
    }
}

/// The acquisition's name in a round: in every round after the first it says which, so that a receiver takes the numbers, which
/// begin anew, for those of another acquisition and not for repeats.
pub(super) fn pass_name(name: Option<String>, pass: u64) -> Option<String> {
    if pass == 0 {
        return name;
    }
    let pass = pass.saturating_add(1);
    Some(name.map_or_else(|| format!("pass {pass}"), |name| format!("{name} (pass {pass})")))
}

/// Frames of one round with which an acquisition begins or ends. Several may be under way at the same time, as those of two
/// microscopes in one session.
struct Brackets {
    begins: HashSet<usize>,
    ends: HashSet<usize>,
}

impl Brackets {
    fn of(reader: &dyn FrameReader, schedule: &Schedule) -> Self {
        let mut begins = HashSet::new();
        let mut last = HashMap::new();
        for index in schedule.frames() {
            if last.insert(reader.acquisition(index), index).is_none() {
                begins.insert(index);
            }
        }
        Self { begins, ends: last.into_values().collect() }
    }

    /// `message` ready to go. A frame that names no acquisition opens none.
    fn frame(
        &self,
        index: usize,
        due: Duration,
        message: FrameMessage,
        encode: Encode,
    ) -> Result<Ready, ReplayError> {
        let encoded =
            |message: &FramesMessage| encode(message).map_err(|source| ReplayError::Encode { index, source });
        let name = message.acquisition.clone();
        let begin = match name.clone().filter(|_| self.begins.contains(&index)) {
            Some(name) => {
                let bracket = Bracket { acquisition: name.clone(), ..Bracket::default() };
                let begin = encoded(&FramesMessage::Begin(bracket.clone()))?;
                Some(Opening { name, begin, end: encoded(&FramesMessage::End(bracket))? })
            }
            None => None,
        };
        let frame = encoded(&FramesMessage::Frame(Box::new(message)))?;
        Ok(Ready { index, due, begin, frame, end: name.filter(|_| self.ends.contains(&index)) })
    }
}
