//! What a source has seen since it started.

use super::sequence::Step;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Shared between a source's thread, which writes, and status and metrics, which read.
#[derive(Debug, Default)]
pub struct IngestCounters {
    received: AtomicU64,
    gaps: AtomicU64,
    repeats: AtomicU64,
    restarts: AtomicU64,
    rejected: AtomicU64,
    partial_skipped: AtomicU64,
    connections_lost: AtomicU64,
    connected: AtomicBool,
    last_error: Mutex<Option<String>>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IngestTotals {
    /// Frames that arrived and could be decoded and used, partial ones among them.
    pub received: u64,
    /// Sequence numbers that never arrived.
    pub gaps: u64,
    /// Frames whose number had arrived before.
    pub repeats: u64,
    /// Sequences that started anew.
    pub restarts: u64,
    /// Messages that gave no frame.
    pub rejected: u64,
    /// Partial frames passed over.
    pub partial_skipped: u64,
    /// Connections that ended.
    pub connections_lost: u64,
    /// Whether the publisher is there now.
    pub connected: bool,
}

impl IngestCounters {
    pub fn totals(&self) -> IngestTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IngestTotals {
            received: read(&self.received),
            gaps: read(&self.gaps),
            repeats: read(&self.repeats),
            restarts: read(&self.restarts),
            rejected: read(&self.rejected),
            partial_skipped: read(&self.partial_skipped),
            connections_lost: read(&self.connections_lost),
            connected: self.connected.load(Ordering::Relaxed),
        }
    }

    /// What went wrong last; a connection that comes back clears it.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn frame(&self, step: Option<Step>) {
        add(&self.received, 1);
        match step {
            None | Some(Step::First | Step::Next) => {}
            Some(Step::Gap { missing }) => add(&self.gaps, missing),
            Some(Step::Repeat) => add(&self.repeats, 1),
            Some(Step::Restart) => add(&self.restarts, 1),
        }
    }

    pub(super) fn partial_skipped(&self) {
        add(&self.received, 1);
        add(&self.partial_skipped, 1);
    }

    pub(super) fn rejected(&self, error: &impl std::fmt::Display) {
        add(&self.rejected, 1);
        self.error(Some(error.to_string()));
    }

    pub(super) fn connected(&self) {
        self.connected.store(true, Ordering::Relaxed);
        self.error(None);
    }

    pub(super) fn unreachable(&self, error: &impl std::fmt::Display) {
        self.error(Some(error.to_string()));
    }

    pub(super) fn connection_lost(&self, reason: &impl std::fmt::Display) {
        self.connected.store(false, Ordering::Relaxed);
        add(&self.connections_lost, 1);
        self.error(Some(reason.to_string()));
    }

    pub(super) fn stopped(&self) {
        self.connected.store(false, Ordering::Relaxed);
    }

    fn error(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
