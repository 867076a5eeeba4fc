//! The recorder on a thread of its own, behind a bounded queue, so that a slow disk never delays a frame.

use super::error::SessionError;
use super::record::Recorder;
use super::recording::{Gap, RecordSettings, RecordSummary, SessionEvent, WhenFull};
use crate::frame::Frame;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ferrostem_proto::ResultMessage;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Something to record.
#[derive(Debug, Clone)]
pub enum RecordItem {
    Frame(Arc<Frame>),
    Result(Arc<ResultMessage>),
    Ack { candidate_id: u64, verdict: String, t_ns: u64 },
    Gap(Gap),
    Event(SessionEvent),
}

/// What became of what was handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Frames that found the queue full, or the recording stopped.
    pub frames_dropped: u64,
    /// Results, acknowledgements, gaps and events likewise.
    pub others_dropped: u64,
    /// Items and flushes that could not be written.
    pub write_errors: u64,
    pub written: RecordSummary,
}

/// Something that could not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordProblem {
    pub message: String,
    /// Whether nothing more goes into the file: the disk is full, say, or the file is gone. What was written stays.
    pub stopped: bool,
}

type OnProblem = Box<dyn Fn(RecordProblem) + Send>;

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    frames_dropped: AtomicU64,
    /// Of these, those that were asked for.
    drops_taken: AtomicU64,
    others_dropped: AtomicU64,
    write_errors: AtomicU64,
    measurements: AtomicU64,
    frames: AtomicU64,
    results: AtomicU64,
    orphan_results: AtomicU64,
}

impl Shared {
    fn drop_item(&self, is_frame: bool) {
        let dropped = if is_frame { &self.frames_dropped } else { &self.others_dropped };
        dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn wrote(&self, summary: RecordSummary) {
        self.measurements.store(summary.measurements, Ordering::Relaxed);
        self.frames.store(summary.frames, Ordering::Relaxed);
        self.results.store(summary.results, Ordering::Relaxed);
        self.orphan_results.store(summary.orphan_results, Ordering::Relaxed);
    }
}

/// A [`Recorder`] on the OS thread `recorder`. Dropping it writes what is queued and closes the file.
pub struct RecorderThread {
    path: PathBuf,
    when_full: WhenFull,
    queue: Option<Sender<RecordItem>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl RecorderThread {
    /// Moves `recorder` to its thread. `on_problem` is called there when a write fails with a message other than the
    /// last one. An item that cannot be written is left out; a file that cannot be written ends the recording, and what
    /// is handed over from then on is dropped and counted.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        recorder: Recorder,
        settings: &RecordSettings,
        on_problem: impl Fn(RecordProblem) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, items) = bounded(settings.queue_items);
        let shared = Arc::new(Shared::default());
        let path = recorder.path().to_owned();
        let mut writer = Writer {
            recorder: Some(recorder),
            shared: Arc::clone(&shared),
            on_problem: Box::new(on_problem),
            last_problem: None,
        };
        let flush_interval = Duration::from_millis(settings.flush_interval_ms);
        let thread = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            writer.run(&items, flush_interval);
            writer.finish();
        })?;
        Ok(Self { path, when_full: settings.when_full, queue: Some(queue), thread: Some(thread), shared })
    }

    /// The file that is being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands over `item`; false when it was left out because the queue is full or the recording has stopped.
    pub fn submit(&self, item: RecordItem) -> bool {
        let is_frame = matches!(item, RecordItem::Frame(_));
        let taken = !self.stopped()
            && self.queue.as_ref().is_some_and(|queue| match self.when_full {
                WhenFull::Drop => queue.try_send(item).is_ok(),
                WhenFull::Block => queue.send(item).is_ok(),
            });
        if !taken {
            self.shared.drop_item(is_frame);
        }
        taken
    }

    /// Whether the file could not be written, so that nothing more goes into it.
    pub fn stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Acquire)
    }

    /// Frames dropped since this was last asked.
    pub fn take_frames_dropped(&self) -> u64 {
        let dropped = self.shared.frames_dropped.load(Ordering::Relaxed);
        dropped.saturating_sub(self.shared.drops_taken.fetch_max(dropped, Ordering::Relaxed))
    }

    /// Items that wait for the disk.
    pub fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, Sender::len)
    }

    pub fn counts(&self) -> RecordCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RecordCounts {
            frames_dropped: get(&self.shared.frames_dropped),
            others_dropped: get(&self.shared.others_dropped),
            write_errors: get(&self.shared.write_errors),
            written: RecordSummary {
                measurements: get(&self.shared.measurements),
                frames: get(&self.shared.frames),
                results: get(&self.shared.results),
                orphan_results: get(&self.shared.orphan_results),
            },
        }
    }

    /// Writes what is queued, closes the file, and says what it holds.
    pub fn finish(mut self) -> RecordCounts {
        self.close();
        self.counts()
    }

    fn close(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.shared.write_errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for RecorderThread {
    fn drop(&mut self) {
        self.close();
    }
}

/// What runs on the thread.
struct Writer {
    /// Absent once the file could not be written.
    recorder: Option<Recorder>,
    shared: Arc<Shared>,
    on_problem: OnProblem,
    last_problem: Option<String>,
}

impl Writer {
    /// Until the other end of the queue is gone and the queue is empty.
    fn run(&mut self, items: &Receiver<RecordItem>, flush_interval: Duration) {
        let mut next_flush = Instant::now() + flush_interval;
        loop {
            match items.recv_deadline(next_flush) {
                Ok(item) => self.write(item),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_flush {
                self.flush();
                next_flush = Instant::now() + flush_interval;
            }
        }
    }

    fn write(&mut self, item: RecordItem) {
        let Some(recorder) = &mut self.recorder else {
            self.shared.drop_item(matches!(item, RecordItem::Frame(_)));
            return;
        };
        let written = match item {
            RecordItem::Frame(frame) => recorder.frame(&frame),
            RecordItem::Result(result) => recorder.result(&result),
            RecordItem::Ack { candidate_id, verdict, t_ns } => recorder.ack(candidate_id, &verdict, t_ns),
            RecordItem::Gap(gap) => recorder.gap(&gap),
            RecordItem::Event(event) => recorder.event(&event),
        };
        self.shared.wrote(recorder.summary());
        self.note(written);
    }

    fn flush(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        let flushed = recorder.flush();
        self.shared.wrote(recorder.summary());
        if flushed.is_ok() {
            self.last_problem = None;
        }
        self.note(flushed);
    }

    fn finish(mut self) {
        let Some(recorder) = self.recorder.take() else { return };
        let before = recorder.summary();
        let finished = recorder.finish();
        self.shared.wrote(finished.as_ref().map_or(before, |summary| *summary));
        self.note(finished.map(drop));
    }

    fn note(&mut self, outcome: Result<(), SessionError>) {
        let Err(error) = outcome else { return };
        self.shared.write_errors.fetch_add(1, Ordering::Relaxed);
        // An item that is not as it should be is left out; when the file fails, what comes after would fail as well, or
        // be lost unseen.
        let stopped = !matches!(error, SessionError::Unexpected { .. });
        let mut message = error.to_string();
        if stopped && let Some(recorder) = self.recorder.take() {
            message = format!(
                "recording to {} has stopped after {} frames: {message}",
                recorder.path().display(),
                recorder.summary().frames
            );
            self.shared.stopped.store(true, Ordering::Release);
        }
        if self.last_problem.as_ref() != Some(&message) {
            (self.on_problem)(RecordProblem { message: message.clone(), stopped });
            self.last_problem = Some(message);
        }
    }
}
