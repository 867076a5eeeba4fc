//! When each recorded frame is due again.

use crate::session::reader::FrameReader;
use std::ops::Range;
use std::time::Duration;

/// A recorded time this much before the one before it comes from a clock that was set; one less far back, from a
/// detector whose frame was noted a moment late.
const CLOCK_SET: Duration = Duration::from_secs(1);

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

/// A frame to hand over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Of the file.
    pub index: usize,
    /// Which round it belongs to, from 0.
    pub pass: u64,
    /// From the start of the replay.
    pub offset: Duration,
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
    /// From the recorded times, Unix ns, one a frame. Each frame stands as far behind the first as it was recorded, divided by
    /// the speed. Where a time is missing, `default_interval` stands in; a time before the latest so far is due at once.
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
        let mut intervals = intervals(times, options.default_interval);
        let mut recorded = Duration::ZERO;
        let mut offsets = vec![Duration::ZERO];
        let scale = |recorded: Duration| {
            Duration::try_from_secs_f64(recorded.as_secs_f64() / factor).unwrap_or(Duration::MAX)
        };
        for interval in &intervals {
            recorded = recorded.saturating_add(*interval);
            offsets.push(scale(recorded));
        }
        // The first frame follows the last as frames usually follow each other.
        intervals.sort_unstable();
        let usual = intervals.get(intervals.len() / 2).copied().unwrap_or(options.default_interval);
        Ok(Self { frames, offsets, period: scale(recorded.saturating_add(usual)), repeat: options.repeat })
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

    /// The frames of the file that one round goes through.
    pub fn frames(&self) -> Range<usize> {
        self.frames.clone()
    }

    /// Whether everything is due at once.
    pub fn is_at_full_speed(&self) -> bool {
        self.period.is_zero()
    }

    /// The `n`-th frame to hand over; `None` after the last.
    pub fn due(&self, n: u64) -> Option<Due> {
        let len = self.offsets.len() as u64;
        let pass = n / len;
        if pass > 0 && !self.repeat {
            return None;
        }
        let within = (n % len) as usize;
        let passes = Duration::try_from_secs_f64(self.period.as_secs_f64() * pass as f64);
        let offset = passes.unwrap_or(Duration::MAX).saturating_add(self.offsets[within]);
        Some(Due { index: self.frames.start + within, pass, offset })
    }
}

/// What lies between one frame and the next.
fn intervals(times_ns: &[Option<u64>], default_interval: Duration) -> Vec<Duration> {
    let clock_set_ns = u64::try_from(CLOCK_SET.as_nanos()).unwrap_or(u64::MAX);
    let Some((first, rest)) = times_ns.split_first() else { return Vec::new() };
    // The latest time so far, from which the next is counted: what one interval loses to disorder, the next makes good.
    let mut latest = *first;
    rest.iter()
        .map(|&time| {
            let (Some(so_far), Some(now)) = (latest, time) else {
                latest = time;
                return default_interval;
            };
            let is_late = now < so_far && so_far - now < clock_set_ns;
            if !is_late {
                latest = time;
            }
            Duration::from_nanos(now.saturating_sub(so_far))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn options(speed: Speed) -> ScheduleOptions {
        ScheduleOptions { speed, ..ScheduleOptions::default() }
    }

    fn due_ms(schedule: &Schedule, n: u64) -> Option<(usize, f64)> {
        schedule.due(n).map(|due| (due.index, due.offset.as_secs_f64() * 1e3))
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

    fn all_due_ms(times: &[Option<u64>]) -> Vec<f64> {
        let schedule = Schedule::new(times, &options(Speed::Factor(1.0))).unwrap();
        (0..times.len() as u64).map(|n| due_ms(&schedule, n).unwrap().1).collect()
    }

    #[test]
    fn a_missing_time_does_not_stop_the_clock() {
        let times = [Some(100 * MS), None, Some(90 * MS), Some(120 * MS)];
        assert_eq!(all_due_ms(&times), [0.0, 500.0, 1000.0, 1030.0]);
    }

    #[test]
    fn detectors_that_are_noted_out_of_order_do_not_make_the_replay_longer() {
        let times = [100, 140, 138, 180, 179, 220].map(|ms| Some(ms * MS));
        assert_eq!(all_due_ms(&times), [0.0, 40.0, 40.0, 80.0, 80.0, 120.0]);
    }

    #[test]
    fn a_clock_that_was_set_back_is_followed() {
        let times = [5000, 5040, 1000, 1040].map(|ms| Some(ms * MS));
        assert_eq!(all_due_ms(&times), [0.0, 40.0, 40.0, 80.0]);
    }

    #[test]
    fn a_range_repeats_with_the_usual_interval_between_the_rounds() {
        let times = [0, 10 * MS, 20 * MS, 30 * MS, 100 * MS].map(Some);
        let options = ScheduleOptions { from: 1, to: Some(4), repeat: true, ..options(Speed::Factor(1.0)) };
        let schedule = Schedule::new(&times, &options).unwrap();
        assert_eq!(schedule.len(), 3);
        let due: Vec<_> = (0..5).map(|n| due_ms(&schedule, n).unwrap()).collect();
        assert_eq!(due, [(1, 0.0), (2, 10.0), (3, 20.0), (1, 30.0), (2, 40.0)]);
        let passes: Vec<_> = (0..7).map(|n| schedule.due(n).unwrap().pass).collect();
        assert_eq!(passes, [0, 0, 0, 1, 1, 1, 2]);
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
            prop_assert!(
                due.windows(2)
                    .all(|pair| pair[0].index + 1 == pair[1].index && pair[0].offset <= pair[1].offset)
            );
        }
    }
}
