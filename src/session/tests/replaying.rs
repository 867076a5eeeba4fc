use super::support::{self, START_NS};
use crate::ingest::sequence::Step;
use crate::ingest::{Intake, IntakeEvent, SourceSettings};
use crate::session::reader::unlabelled;
use crate::session::replay::ReplayError;
use crate::session::*;
use bytes::Bytes;
use ferrostem_proto::{FrameMessage, FrameState, FramesMessage, JsonMap, Limits, PixelArray, cbor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A clock that only a wait moves, 7 ms at most.
#[derive(Default)]
struct FakeClock {
    now: Duration,
}

impl Clock for FakeClock {
    fn start(&mut self) {
        self.now = Duration::ZERO;
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn wait_until(&mut self, due: Duration) {
        self.now = (self.now + Duration::from_millis(7)).min(due);
    }
}

/// Takes what is handed over apart again.
struct Sent {
    messages: Vec<FramesMessage>,
    stop_after: usize,
    stop: Arc<AtomicBool>,
}

impl Sent {
    fn frames(&self) -> Vec<&FrameMessage> {
        self.messages
            .iter()
            .filter_map(|message| match message {
                FramesMessage::Frame(frame) => Some(&**frame),
                _ => None,
            })
            .collect()
    }

    /// `begin a`, `a 7`, `end a`, …
    fn story(&self) -> Vec<String> {
        let line = |message: &FramesMessage| match message {
            FramesMessage::Begin(bracket) => format!("begin {}", bracket.acquisition),
            FramesMessage::End(bracket) => format!("end {}", bracket.acquisition),
            FramesMessage::Frame(frame) => {
                format!("{} {}", frame.acquisition.as_deref().unwrap_or("-"), frame.seq)
            }
        };
        self.messages.iter().map(line).collect()
    }
}

impl FrameOutput for Sent {
    fn send(&mut self, message: Bytes) -> std::io::Result<()> {
        self.messages.push(cbor::decode_frames(&message, &Limits::default()).unwrap());
        if self.frames().len() == self.stop_after {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Plays `reader` and stops after `stop_after` frames.
fn played(
    reader: &mut dyn FrameReader,
    options: &ScheduleOptions,
    stop_after: usize,
) -> (Sent, ReplayReport, Duration) {
    let schedule = Schedule::of(reader, options).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut output = Sent { messages: Vec::new(), stop_after, stop: Arc::clone(&stop) };
    let mut clock = FakeClock { now: Duration::from_secs(99) };
    let sent = AtomicU64::new(0);
    let player = Player { schedule: &schedule, encode: cbor::encode_frames, stop: &stop, sent: &sent };
    let report = player.play(reader, &mut output, &mut clock).unwrap();
    assert_eq!(sent.load(Ordering::Relaxed), report.frames_sent);
    (output, report, clock.now)
}

fn at(speed: Speed) -> ScheduleOptions {
    ScheduleOptions { speed, ..ScheduleOptions::default() }
}

fn three_frames() -> (tempfile::TempDir, Box<dyn FrameReader>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stack.npy");
    ndarray_npy::write_npy(&path, &ndarray::Array3::<u8>::zeros((3, 2, 2))).unwrap();
    let reader = open(&path, &OpenOptions::default()).unwrap();
    (folder, reader)
}

#[test]
fn frames_are_handed_over_when_they_are_due() {
    let (_folder, mut reader) = three_frames();
    let (output, report, end) = played(&mut *reader, &at(Speed::Factor(10.0)), 99);
    assert_eq!(output.story(), ["begin stack", "stack 0", "stack 1", "stack 2", "end stack"]);
    // No times in the file: 500 ms apart, ten times as fast.
    assert_eq!(end, Duration::from_millis(100));
    assert_eq!((report.frames_sent, report.stopped), (3, false));
    assert_eq!((report.lateness.count(), report.lateness.max()), (3, Duration::ZERO));
    let (_, report, end) = played(&mut *reader, &at(Speed::Max), 99);
    assert_eq!((report.lateness.count(), end), (0, Duration::ZERO), "nothing is late at full speed");
}

#[test]
fn every_round_is_an_acquisition_of_its_own_until_told_to_stop() {
    let (_folder, mut reader) = three_frames();
    let repeat = ScheduleOptions { repeat: true, from: 1, ..at(Speed::Max) };
    let (output, report, _) = played(&mut *reader, &repeat, 5);
    assert!(report.stopped);
    let expected = [
        "begin stack",
        "stack 1",
        "stack 2",
        "end stack",
        "begin stack (pass 2)",
        "stack (pass 2) 1",
        "stack (pass 2) 2",
        "end stack (pass 2)",
        "begin stack (pass 3)",
        "stack (pass 3) 1",
        "end stack (pass 3)",
    ];
    assert_eq!(output.story(), expected);
    // What a daemon makes of the numbers: restarts, no repeats and no gaps.
    let mut intake = Intake::new(SourceSettings::default());
    let steps: Vec<_> = output
        .messages
        .iter()
        .filter_map(|message| {
            let mut message = message.clone();
            if let FramesMessage::Frame(frame) = &mut message {
                frame.data = PixelArray::from_f32([32, 32], &[1.0; 1024]).unwrap();
            }
            match intake.take(&[cbor::encode_frames(&message).unwrap()], 1).unwrap() {
                IntakeEvent::Frame { step, .. } => step,
                _ => None,
            }
        })
        .collect();
    assert_eq!(steps, [Step::First, Step::Next, Step::Restart, Step::Next, Step::Restart]);
}

#[test]
fn a_session_comes_back_with_everything_that_was_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.h5");
    let mut recorder = support::recorder(&path);
    let mut frame = support::frame(41);
    frame.user_data = JsonMap(serde_json::json!({"tilt": [1, 2]}).as_object().unwrap().clone());
    recorder.frame(&frame).unwrap();
    let mut other = support::frame(7);
    other.acquisition = "run 2".to_owned();
    other.channel = "BF".to_owned();
    other.state = FrameState::Partial;
    other.valid_rows = 1..4;
    recorder.frame(&other).unwrap();
    // The first acquisition goes on beside the second.
    recorder.frame(&support::frame(42)).unwrap();
    recorder.finish().unwrap();
    let mut reader = open(&path, &OpenOptions::default()).unwrap();
    let (output, ..) = played(&mut *reader, &at(Speed::Max), 99);
    let expected =
        ["begin run 1", "run 1 41", "begin run 2", "run 2 7", "end run 2", "run 1 42", "end run 1"];
    assert_eq!(output.story(), expected);
    let recorded: Vec<FrameMessage> =
        (0..reader.len()).map(|index| reader.frame(index).unwrap().message).collect();
    assert_eq!(output.frames(), recorded.iter().collect::<Vec<_>>());
    assert_eq!(recorded[0].t_start_ns, Some(START_NS + 41 * 40_000_000));
    assert_eq!(recorded[0].user_data, frame.user_data);
}

/// Frames of a megabyte that remember how far ahead they were read.
struct Endless {
    read: Arc<AtomicU64>,
    fail_at: usize,
}

impl FrameReader for Endless {
    fn format(&self) -> SessionFormat {
        SessionFormat::Npy
    }

    fn description(&self) -> String {
        "endless".to_owned()
    }

    fn len(&self) -> usize {
        2000
    }

    fn time_ns(&self, index: usize) -> Option<u64> {
        Some(index as u64 * 1_000_000)
    }

    fn frame(&mut self, index: usize) -> Result<RecordedFrame, SessionError> {
        if index == self.fail_at {
            return Err(SessionError::NoSuchFrame { place: "endless".to_owned(), index, len: 0 });
        }
        self.read.store(index as u64 + 1, Ordering::SeqCst);
        let data = PixelArray::from_f32([512, 512], &vec![0.0; 1 << 18]).unwrap();
        Ok(RecordedFrame { message: unlabelled("endless".to_owned(), index, data), t_ns: None })
    }
}

/// Notes how far the reading was ahead when a frame was handed over.
struct Distance {
    read: Arc<AtomicU64>,
    sent: u64,
    farthest: u64,
}

impl FrameOutput for Distance {
    fn send(&mut self, _message: Bytes) -> std::io::Result<()> {
        self.farthest = self.farthest.max(self.read.load(Ordering::SeqCst).saturating_sub(self.sent));
        self.sent += 1;
        Ok(())
    }
}

#[test]
fn frames_are_read_ahead_but_not_without_bound() {
    let read = Arc::new(AtomicU64::new(0));
    let mut reader = Endless { read: Arc::clone(&read), fail_at: usize::MAX };
    let mut output = Distance { read, sent: 0, farthest: 0 };
    let schedule = Schedule::of(&reader, &at(Speed::Max)).unwrap();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let player = Player { schedule: &schedule, encode: cbor::encode_frames, stop: &stop, sent: &sent };
    let report = player.play(&mut reader, &mut output, &mut FakeClock::default()).unwrap();
    assert_eq!(report.frames_sent, 2000);
    // 256 MiB hold 256 of them; two more are in the hands of the two threads.
    assert!((16..=258).contains(&output.farthest), "{}", output.farthest);
}

#[test]
fn a_frame_that_cannot_be_read_ends_the_replay_after_those_before_it() {
    let read = Arc::new(AtomicU64::new(0));
    let mut reader = Endless { read: Arc::clone(&read), fail_at: 5 };
    let mut output = Distance { read, sent: 0, farthest: 0 };
    let schedule = Schedule::of(&reader, &at(Speed::Factor(1.0))).unwrap();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let player = Player { schedule: &schedule, encode: cbor::encode_frames, stop: &stop, sent: &sent };
    let error = player.play(&mut reader, &mut output, &mut FakeClock::default()).unwrap_err();
    assert!(matches!(error, ReplayError::Session(SessionError::NoSuchFrame { index: 5, .. })), "{error}");
    assert_eq!(sent.load(Ordering::Relaxed), 5);
}

/// Nobody is there any more after two messages.
struct Broken(u64);

impl FrameOutput for Broken {
    fn send(&mut self, _message: Bytes) -> std::io::Result<()> {
        self.0 += 1;
        if self.0 > 2 { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

#[test]
fn an_output_that_breaks_ends_the_replay_and_its_reading() {
    let read = Arc::new(AtomicU64::new(0));
    let mut reader = Endless { read: Arc::clone(&read), fail_at: usize::MAX };
    let schedule = Schedule::of(&reader, &at(Speed::Max)).unwrap();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let player = Player { schedule: &schedule, encode: cbor::encode_frames, stop: &stop, sent: &sent };
    let error = player.play(&mut reader, &mut Broken(0), &mut FakeClock::default()).unwrap_err();
    // `begin` and one frame went.
    assert!(matches!(error, ReplayError::Output { index: 1, .. }), "{error}");
    assert!(read.load(Ordering::SeqCst) < 300);
}
