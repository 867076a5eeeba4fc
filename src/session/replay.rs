//! Replay: when each recorded frame is due again, and handing it over then.

use super::error::SessionError;
use super::reader::FrameReader;
use ferrostem_proto::FrameMessage;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How much faster than recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// 1 = as recorded, 2 = twice as fast; finite and above zero.
    Factor(f64),
    /// As fast as frames are taken.
    Max,
}

impl std::str::FromStr for Speed {
    type Err = String;

    /// `max`, or a number above zero such as `1` or `0.5`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Self::Factor(factor)),
            _ => Err(format!("{text}: expected a speed above 0 such as 1 or 0.5, or max")),
        }
    }
}

/// Which frames are replayed and how.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleOptions {
    pub speed: Speed,
    /// First frame.
    pub from: usize,
    /// The frame to stop before; `None` = the end.
    pub to: Option<usize>,
    /// Begin again after the last frame, until stopped.
    pub repeat: bool,
    /// Recorded interval to assume where the file has no times.
    pub default_interval: Duration,
}

impl Default for ScheduleOptions {
    /// Everything once, as recorded; 2 frames a second where the file has no times (512² at 2 µs a pixel).
    fn default() -> Self {
        Self {
            speed: Speed::Factor(1.0),
            from: 0,
            to: None,
            repeat: false,
            default_interval: Duration::from_millis(500),
        }
    }
}

/// A range or a speed that a schedule cannot be made of.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    #[error("frames {from} to {to} of {len}: expected from < to <= {len}")]
    Range { from: usize, to: usize, len: usize },
    #[error("speed {0}: expected a finite number above 0")]
    Speed(f64),
}

/// When each frame is due, from the start of the replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    frames: Range<usize>,
    /// One a frame, from zero, not decreasing.
    offsets: Vec<Duration>,
    /// From the first frame of a round to the first of the next; zero where there is one round only.
    period: Duration,
    repeat: bool,
}

impl Schedule {
    /// From the recorded times, Unix ns, one a frame. A time that is missing or earlier than the one before stands
    /// `default_interval` or nothing, respectively, behind it.
    ///
    /// # Errors
    /// When the range holds no frame, or the speed is not above zero.
    pub fn new(times_ns: &[Option<u64>], options: &ScheduleOptions) -> Result<Self, ScheduleError> {
        let len = times_ns.len();
        let to = options.to.unwrap_or(len);
        let frames = options.from..to;
        let times = times_ns
            .get(frames.clone())
            .filter(|times| !times.is_empty())
            .ok_or(ScheduleError::Range { from: options.from, to, len })?;
        let factor = match options.speed {
            Speed::Max => f64::INFINITY,
            Speed::Factor(factor) if factor.is_finite() && factor > 0.0 => factor,
            Speed::Factor(factor) => return Err(ScheduleError::Speed(factor)),
        };
        let interval = |pair: &[Option<u64>]| match *pair {
            [Some(earlier), Some(later)] => Duration::from_nanos(later.saturating_sub(earlier)),
            _ => options.default_interval,
        };
        let mut recorded = vec![Duration::ZERO];
        let mut offset = Duration::ZERO;
        let mut intervals = Vec::new();
        for pair in times.windows(2) {
            intervals.push(interval(pair));
            offset = offset.saturating_add(interval(pair));
            recorded.push(offset);
        }
        // The first frame follows the last as frames usually follow each other.
        intervals.sort_unstable();
        let usual = intervals.get(intervals.len() / 2).copied().unwrap_or(options.default_interval);
        let scale = |recorded: Duration| {
            Duration::try_from_secs_f64(recorded.as_secs_f64() / factor).unwrap_or(Duration::MAX)
        };
        Ok(Self {
            frames,
            offsets: recorded.into_iter().map(scale).collect(),
            period: scale(offset.saturating_add(usual)),
            repeat: options.repeat,
        })
    }

    /// For the frames of `reader`.
    ///
    /// # Errors
    /// See [`Schedule::new`].
    pub fn of(reader: &dyn FrameReader, options: &ScheduleOptions) -> Result<Self, ScheduleError> {
        let times: Vec<Option<u64>> = (0..reader.len()).map(|index| reader.time_ns(index)).collect();
        Self::new(&times, options)
    }

    /// Frames in one round.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The `n`-th frame to hand over and when, from the start; `None` after the last.
    pub fn due(&self, n: u64) -> Option<(usize, Duration)> {
        let len = self.offsets.len() as u64;
        let round = n / len;
        if round > 0 && !self.repeat {
            return None;
        }
        let within = (n % len) as usize;
        let rounds = Duration::try_from_secs_f64(self.period.as_secs_f64() * round as f64);
        let offset = rounds.unwrap_or(Duration::MAX).saturating_add(self.offsets[within]);
        Some((self.frames.start + within, offset))
    }
}

/// Where replayed frames go.
pub trait FrameOutput {
    /// Takes one frame. An error ends the replay.
    ///
    /// # Errors
    /// When the other side is gone.
    fn send(&mut self, message: FrameMessage) -> std::io::Result<()>;
}

/// Time as the replay sees it.
pub trait Clock {
    /// Since the start of the replay.
    fn now(&self) -> Duration;
    /// Returns at `due`, or earlier: it is asked again.
    fn wait_until(&mut self, due: Duration);
}

/// The real clock: sleeps coarsely, and spins over the last stretch, to hand over within a millisecond.
#[derive(Debug)]
pub struct WallClock {
    start: Instant,
}

/// A sleep may end this much late.
const SLEEP_SLACK: Duration = Duration::from_millis(2);
/// A request to stop is seen within this time.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

impl Default for WallClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for WallClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wait_until(&mut self, due: Duration) {
        let left = due.saturating_sub(self.now());
        if left > SLEEP_SLACK {
            std::thread::sleep((left - SLEEP_SLACK).min(LONGEST_SLEEP));
        } else {
            while self.now() < due {
                std::hint::spin_loop();
            }
        }
    }
}

/// What a replay came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayReport {
    pub frames_sent: u64,
    /// The longest that a frame was handed over after it was due.
    pub latest: Duration,
    /// It was told to stop before its end.
    pub stopped: bool,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("frame {index} could not be handed over: {source}")]
    Output { index: usize, source: std::io::Error },
}

/// Hands the frames of `reader` to `output` when `schedule` says, until its end or until `stop` is set. The next frame
/// is read before its wait, so that reading does not make it late.
///
/// # Errors
/// When a frame cannot be read or handed over.
pub fn replay(
    reader: &mut dyn FrameReader,
    schedule: &Schedule,
    output: &mut dyn FrameOutput,
    stop: &AtomicBool,
    clock: &mut dyn Clock,
) -> Result<ReplayReport, ReplayError> {
    let mut report = ReplayReport::default();
    while let Some((index, due)) = schedule.due(report.frames_sent) {
        let frame = reader.frame(index)?;
        loop {
            if stop.load(Ordering::Relaxed) {
                report.stopped = true;
                return Ok(report);
            }
            if clock.now() >= due {
                break;
            }
            clock.wait_until(due);
        }
        let late = clock.now().saturating_sub(due);
        output.send(frame.message).map_err(|source| ReplayError::Output { index, source })?;
        report.frames_sent += 1;
        // At full speed everything is due at once.
        if due > Duration::ZERO {
            report.latest = report.latest.max(late);
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{OpenOptions, open};
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn options(speed: Speed) -> ScheduleOptions {
        ScheduleOptions { speed, ..ScheduleOptions::default() }
    }

    fn due_ms(schedule: &Schedule, n: u64) -> Option<(usize, f64)> {
        schedule.due(n).map(|(index, due)| (index, due.as_secs_f64() * 1e3))
    }

    #[test]
    fn recorded_intervals_are_kept_and_divided_by_the_speed() {
        let times = [1000 * MS, 1040 * MS, 1100 * MS].map(Some);
        let as_recorded = Schedule::new(&times, &options(Speed::Factor(1.0))).unwrap();
        assert_eq!(
            (0..4).map(|n| due_ms(&as_recorded, n)).collect::<Vec<_>>(),
            [Some((0, 0.0)), Some((1, 40.0)), Some((2, 100.0)), None]
        );
        let twice = Schedule::new(&times, &options(Speed::Factor(2.0))).unwrap();
        assert_eq!(due_ms(&twice, 2), Some((2, 50.0)));
        let max = Schedule::new(&times, &options(Speed::Max)).unwrap();
        assert_eq!(due_ms(&max, 2), Some((2, 0.0)));
        assert_eq!(max.due(3), None);
    }

    #[test]
    fn missing_and_backward_times_do_not_stop_the_clock() {
        let times = [Some(100 * MS), None, Some(90 * MS), Some(80 * MS), Some(110 * MS)];
        let schedule = Schedule::new(&times, &options(Speed::Factor(1.0))).unwrap();
        let due: Vec<f64> = (0..5).map(|n| due_ms(&schedule, n).unwrap().1).collect();
        assert_eq!(due, [0.0, 500.0, 1000.0, 1000.0, 1030.0]);
    }

    #[test]
    fn a_range_repeats_with_the_usual_interval_between_the_rounds() {
        let times = [0, 10 * MS, 20 * MS, 30 * MS, 100 * MS].map(Some);
        let options = ScheduleOptions { from: 1, to: Some(4), repeat: true, ..options(Speed::Factor(1.0)) };
        let schedule = Schedule::new(&times, &options).unwrap();
        assert_eq!(schedule.len(), 3);
        let due: Vec<_> = (0..5).map(|n| due_ms(&schedule, n).unwrap()).collect();
        assert_eq!(due, [(1, 0.0), (2, 10.0), (3, 20.0), (1, 30.0), (2, 40.0)]);
    }

    #[test]
    fn empty_ranges_and_impossible_speeds_are_refused() {
        let times = [Some(0); 3];
        for (from, to) in [(3, None), (2, Some(2)), (2, Some(1)), (0, Some(4))] {
            let range = ScheduleOptions { from, to, ..ScheduleOptions::default() };
            assert_eq!(
                Schedule::new(&times, &range),
                Err(ScheduleError::Range { from, to: to.unwrap_or(3), len: 3 })
            );
        }
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Schedule::new(&times, &options(Speed::Factor(factor))).is_err(), "{factor}");
        }
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("0.5".parse(), Ok(Speed::Factor(0.5)));
        for text in ["0", "-2", "nan", "fast", ""] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn frames_are_due_in_order(
            times in prop::collection::vec(prop::option::of(0..u64::MAX), 1..50),
            factor in 0.01..100.0,
        ) {
            let schedule = Schedule::new(&times, &options(Speed::Factor(factor))).unwrap();
            let due: Vec<_> = (0..times.len() as u64).map(|n| schedule.due(n).unwrap()).collect();
            prop_assert!(due.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0 && pair[0].1 <= pair[1].1));
        }
    }

    /// A clock that a wait moves, and that reading a frame moves by `reading`.
    struct FakeClock {
        now: Duration,
    }

    impl Clock for FakeClock {
        fn now(&self) -> Duration {
            self.now
        }

        fn wait_until(&mut self, due: Duration) {
            self.now = (self.now + Duration::from_millis(7)).min(due);
        }
    }

    struct Sent {
        seqs: Vec<u64>,
        stop_after: usize,
        stop: std::sync::Arc<AtomicBool>,
    }

    impl FrameOutput for Sent {
        fn send(&mut self, message: FrameMessage) -> std::io::Result<()> {
            self.seqs.push(message.seq);
            if self.seqs.len() == self.stop_after {
                self.stop.store(true, Ordering::Relaxed);
            }
            Ok(())
        }
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
        let schedule = Schedule::of(&*reader, &options(Speed::Factor(10.0))).unwrap();
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let mut output = Sent { seqs: Vec::new(), stop_after: 99, stop: stop.clone() };
        let mut clock = FakeClock { now: Duration::ZERO };
        let report = replay(&mut *reader, &schedule, &mut output, &stop, &mut clock).unwrap();
        assert_eq!(output.seqs, [0, 1, 2]);
        // No times in the file: 500 ms apart, ten times as fast.
        assert_eq!(clock.now, Duration::from_millis(100));
        assert_eq!(report, ReplayReport { frames_sent: 3, latest: Duration::ZERO, stopped: false });
    }

    #[test]
    fn a_repeating_replay_stops_when_told() {
        let (_folder, mut reader) = three_frames();
        let repeat = ScheduleOptions { repeat: true, ..options(Speed::Max) };
        let schedule = Schedule::of(&*reader, &repeat).unwrap();
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let mut output = Sent { seqs: Vec::new(), stop_after: 5, stop: stop.clone() };
        let mut clock = FakeClock { now: Duration::ZERO };
        let report = replay(&mut *reader, &schedule, &mut output, &stop, &mut clock).unwrap();
        assert_eq!(output.seqs, [0, 1, 2, 0, 1]);
        assert!(report.stopped);
    }

    #[test]
    fn the_wall_clock_does_not_return_late_frames_early() {
        let mut clock = WallClock::default();
        let due = Duration::from_millis(12);
        while clock.now() < due {
            clock.wait_until(due);
        }
        assert!(clock.now() >= due);
    }
}
