//! What the last results tell: latency percentiles and the frame rate.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Latencies that percentiles are taken over.
const LATENCIES: usize = 1024;
/// Results older than this leave the frame rate, but for the last two.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// Results that the frame rate looks at, at most.
const RATE_EVENTS: usize = 4096;

/// The last 1024 latencies, in no particular order.
#[derive(Debug, Default)]
pub(super) struct LatencyRecord {
    us: Vec<u64>,
    oldest: usize,
}

impl LatencyRecord {
    pub(super) fn push(&mut self, latency_us: u64) {
        if self.us.len() < LATENCIES {
            self.us.push(latency_us);
            return;
        }
        self.us[self.oldest] = latency_us;
        self.oldest = (self.oldest + 1) % LATENCIES;
    }

    /// The smallest recorded latency that at least `percent` of the recorded ones do not exceed; 0 without any.
    pub(super) fn percentiles<const N: usize>(&self, percent: [u32; N]) -> [u64; N] {
        let mut sorted = self.us.clone();
        sorted.sort_unstable();
        percent.map(|percent| {
            let rank = (sorted.len() * percent as usize).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        })
    }
}

/// How many results a second were published lately.
#[derive(Debug, Default)]
pub(super) struct RateMeter {
    at: VecDeque<Instant>,
}

impl RateMeter {
    pub(super) fn push(&mut self, now: Instant) {
        if self.at.len() == RATE_EVENTS {
            self.at.pop_front();
        }
        self.at.push_back(now);
    }

    /// Results a second: exact for a steady stream, falling towards 0 when it stops, 0 with fewer than two results.
    pub(super) fn rate_hz(&mut self, now: Instant) -> f64 {
        while self.at.len() > 2 && self.at.front().is_some_and(|oldest| now - *oldest > RATE_WINDOW) {
            self.at.pop_front();
        }
        let (Some(oldest), Some(newest)) = (self.at.front(), self.at.back()) else { return 0.0 };
        let count = self.at.len() as f64;
        if count < 2.0 {
            return 0.0;
        }
        // `count` intervals: those between the results, and one more after the newest unless it lasts longer already.
        let steady = (*newest - *oldest).as_secs_f64() * count / (count - 1.0);
        let elapsed = steady.max((now - *oldest).as_secs_f64());
        if elapsed > 0.0 { count / elapsed } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_hand() {
        let mut record = LatencyRecord::default();
        assert_eq!(record.percentiles([50, 99]), [0, 0]);
        record.push(7);
        assert_eq!(record.percentiles([50, 99]), [7, 7]);
        let mut record = LatencyRecord::default();
        (1..=200).rev().for_each(|latency| record.push(latency));
        assert_eq!(record.percentiles([50, 99, 100]), [100, 198, 200]);
    }

    #[test]
    fn only_the_last_1024_latencies_count() {
        let mut record = LatencyRecord::default();
        (0..500).for_each(|_| record.push(1_000_000));
        (1..=1024).for_each(|latency| record.push(latency));
        assert_eq!(record.percentiles([50, 100]), [512, 1024]);
    }

    #[test]
    fn the_rate_of_a_steady_stream_is_exact_and_decays_after_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = RateMeter::default();
        assert_eq!(meter.rate_hz(start), 0.0);
        (0..250).for_each(|frame| meter.push(at(frame * 40)));
        let near = |rate: f64, expected: f64| assert!((rate - expected).abs() < 1e-9, "{rate} {expected}");
        near(meter.rate_hz(at(9_960)), 25.0);
        near(meter.rate_hz(at(9_990)), 25.0);
        // Of the results of the last 5 s only those until 9.96 s are there: 75 of them, the oldest at 7 s.
        near(meter.rate_hz(at(12_000)), 75.0 / 5.0);
        near(meter.rate_hz(at(29_920)), 2.0 / 20.0);
    }

    #[test]
    fn slow_scans_have_a_rate_too() {
        let start = Instant::now();
        let mut meter = RateMeter::default();
        (0..3).for_each(|frame| meter.push(start + Duration::from_secs(10 * frame)));
        assert!((meter.rate_hz(start + Duration::from_secs(21)) - 0.1).abs() < 1e-9);
    }
}
