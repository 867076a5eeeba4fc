//! The recorder on a thread of its own, behind a bounded queue, so that a slow disk never delays a frame.

use super::error::SessionError;
use super::record::{Gap, RecordSettings, RecordSummary, Recorder, WhenFull};
use crate::frame::Frame;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ferrostem_proto::ResultMessage;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Something to record.
#[derive(Debug, Clone)]
pub enum RecordItem {
    Frame(Arc<Frame>),
    Result(Arc<ResultMessage>),
    Ack { candidate_id: u64, verdict: String, t_ns: u64 },
    Gap(Gap),
}

/// What became of what was handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Frames that found the queue full.
    pub frames_dropped: u64,
    /// Results, acknowledgements and gaps that found the queue full.
    pub others_dropped: u64,
    /// Items and flushes that could not be written.
    pub write_errors: u64,
    pub written: RecordSummary,
}

/// Write errors go here, one call for each new message.
type OnProblem = Box<dyn Fn(String) + Send>;

#[derive(Default)]
struct Shared {
    frames_dropped: AtomicU64,
    others_dropped: AtomicU64,
    write_errors: AtomicU64,
    measurements: AtomicU64,
    frames: AtomicU64,
    results: AtomicU64,
    orphan_results: AtomicU64,
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
    /// last one; recording goes on.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        recorder: Recorder,
        settings: &RecordSettings,
        on_problem: impl Fn(String) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, items) = bounded(settings.queue_items);
        let shared = Arc::new(Shared::default());
        let path = recorder.path().to_owned();
        let mut writer = Writer {
            recorder,
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

    /// Hands over `item`; false when it was left out because the queue is full.
    pub fn submit(&self, item: RecordItem) -> bool {
        let is_frame = matches!(item, RecordItem::Frame(_));
        let taken = self.queue.as_ref().is_some_and(|queue| match self.when_full {
            WhenFull::Drop => queue.try_send(item).is_ok(),
            WhenFull::Block => queue.send(item).is_ok(),
        });
        if !taken {
            let dropped = if is_frame { &self.shared.frames_dropped } else { &self.shared.others_dropped };
            dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
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
    recorder: Recorder,
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
                Ok(item) => {
                    let written = match item {
                        RecordItem::Frame(frame) => self.recorder.frame(&frame),
                        RecordItem::Result(result) => self.recorder.result(&result),
                        RecordItem::Ack { candidate_id, verdict, t_ns } => {
                            self.recorder.ack(candidate_id, &verdict, t_ns)
                        }
                        RecordItem::Gap(gap) => self.recorder.gap(&gap),
                    };
                    self.note(written);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_flush {
                let flushed = self.recorder.flush();
                if flushed.is_ok() {
                    self.last_problem = None;
                }
                self.note(flushed);
                next_flush = Instant::now() + flush_interval;
            }
        }
    }

    fn finish(self) {
        let Self { recorder, shared, on_problem, last_problem } = self;
        let before = recorder.summary();
        match recorder.finish() {
            Ok(summary) => publish(&shared, summary),
            Err(error) => {
                publish(&shared, before);
                shared.write_errors.fetch_add(1, Ordering::Relaxed);
                let message = error.to_string();
                if last_problem.as_ref() != Some(&message) {
                    on_problem(message);
                }
            }
        }
    }

    fn note(&mut self, outcome: Result<(), SessionError>) {
        publish(&self.shared, self.recorder.summary());
        if let Err(error) = outcome {
            self.shared.write_errors.fetch_add(1, Ordering::Relaxed);
            let message = error.to_string();
            if self.last_problem.as_ref() != Some(&message) {
                (self.on_problem)(message.clone());
                self.last_problem = Some(message);
            }
        }
    }
}

fn publish(shared: &Shared, summary: RecordSummary) {
    shared.measurements.store(summary.measurements, Ordering::Relaxed);
    shared.frames.store(summary.frames, Ordering::Relaxed);
    shared.results.store(summary.results, Ordering::Relaxed);
    shared.orphan_results.store(summary.orphan_results, Ordering::Relaxed);
}
