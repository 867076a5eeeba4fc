//! How late frames were, in a fixed amount of memory.

use std::time::Duration;

/// Below this, each microsecond has a bucket of its own.
const EXACT_US: u64 = 64;
/// Above it, each power of two has this many.
const PER_OCTAVE: u64 = EXACT_US / 2;

/// A histogram of delays whose quantiles are exact to a thirty-second part, or a microsecond.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lateness {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Lateness {
    pub(super) fn add(&mut self, late: Duration) {
        let bucket = bucket(micros(late));
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(late);
    }

    /// Delays that were noted.
    pub const fn count(&self) -> u64 {
        self.count
    }

    pub const fn max(&self) -> Duration {
        self.max
    }

    /// The delay that a fraction `q` of all does not exceed, 0 to 1; zero where there are none.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = ((q * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper_end(bucket)).min(self.max);
            }
        }
        self.max
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn bucket(us: u64) -> usize {
    if us < EXACT_US {
        return us as usize;
    }
    let shift = u64::from(us.ilog2()) - u64::from(PER_OCTAVE.ilog2());
    (EXACT_US + (shift - 1) * PER_OCTAVE + (us >> shift) - PER_OCTAVE) as usize
}

/// The longest delay that goes into `bucket`, µs.
fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT_US {
        return bucket;
    }
    let (octave, within) = ((bucket - EXACT_US) / PER_OCTAVE, (bucket - EXACT_US) % PER_OCTAVE);
    let shift = octave + 1;
    ((PER_OCTAVE + within + 1) << shift).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_delays_are_no_delay() {
        assert_eq!(Lateness::default().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn buckets_follow_each_other_without_a_hole() {
        for us in 0..100_000 {
            let bucket = bucket(us);
            assert!(us <= upper_end(bucket), "{us}");
            assert!(bucket == 0 || us > upper_end(bucket - 1), "{us}");
        }
        assert!(bucket(u64::MAX) < 2000);
        assert_eq!(upper_end(bucket(u64::MAX)), u64::MAX);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_delays(
            mut delays in prop::collection::vec(0..10_000_000_u64, 1..200),
            q in 0.0..=1.0_f64,
        ) {
            let mut lateness = Lateness::default();
            delays.iter().for_each(|&us| lateness.add(Duration::from_micros(us)));
            delays.sort_unstable();
            let rank = ((q * delays.len() as f64).ceil() as usize).max(1);
            let exact = delays[rank - 1];
            let found = micros(lateness.quantile(q));
            prop_assert!(found >= exact && found <= exact + exact / 32 + 1, "{found} for {exact}");
            prop_assert_eq!(micros(lateness.max()), delays[delays.len() - 1]);
        }
    }
}
