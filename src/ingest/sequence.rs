//! Gaps, repeats and restarts in the numbers of a source's frames.

use std::collections::VecDeque;

/// A number this far behind or ahead of the last is another sequence, not a late frame or a gap.
const JUMP: u64 = 1_000_000;
/// A number this little behind is a late frame.
const LATE: u64 = 1000;
/// Acquisitions of one source that are followed at the same time.
const ACQUISITIONS: usize = 16;

/// How a frame's number follows the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The source's first frame.
    First,
    Next,
    /// `missing` numbers never arrived.
    Gap {
        missing: u64,
    },
    /// The number has been there, or comes out of order.
    Repeat,
    /// The numbers begin anew: another acquisition, 0 or 1 again, or a leap.
    Restart,
}

/// The numbers of one source, per acquisition.
#[derive(Debug, Default)]
pub struct SequenceTracker {
    /// Last number by acquisition, the one heard of most recently at the back.
    last: VecDeque<(String, u64)>,
    started: bool,
}

impl SequenceTracker {
    /// An acquisition begins: its next frame starts a sequence, whatever its number.
    pub fn begin(&mut self, acquisition: &str) {
        self.last.retain(|(name, _)| name != acquisition);
    }

    /// Notes a complete frame. Partial ones share the number of the frame they will become and are not to be noted.
    pub fn observe(&mut self, acquisition: &str, seq: u64) -> Step {
        let known = self.last.iter().position(|(name, _)| name == acquisition);
        let (name, step, newest) = match known.and_then(|index| self.last.remove(index)) {
            Some((name, last)) => {
                let step = follow(last, seq);
                let newest = if step == Step::Repeat { last } else { seq };
                (name, step, newest)
            }
            None if self.started => (acquisition.to_owned(), Step::Restart, seq),
            None => (acquisition.to_owned(), Step::First, seq),
        };
        self.started = true;
        if self.last.len() == ACQUISITIONS {
            self.last.pop_front();
        }
        self.last.push_back((name, newest));
        step
    }
}

fn follow(last: u64, seq: u64) -> Step {
    if seq > last {
        return match seq - last {
            1 => Step::Next,
            ahead if ahead > JUMP => Step::Restart,
            ahead => Step::Gap { missing: ahead - 1 },
        };
    }
    let behind = last - seq;
    if behind > LATE || (behind > 0 && seq <= 1) { Step::Restart } else { Step::Repeat }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Step::{First, Gap, Next, Repeat, Restart};

    fn steps(frames: &[(&str, u64)]) -> Vec<Step> {
        let mut tracker = SequenceTracker::default();
        frames.iter().map(|(acquisition, seq)| tracker.observe(acquisition, *seq)).collect()
    }

    #[test]
    fn a_sequence_by_hand() {
        let numbers =
            [("a", 7), ("a", 8), ("a", 8), ("a", 12), ("a", 10), ("a", 13), ("a", 0), ("a", 1), ("a", 2)];
        let expected = [First, Next, Repeat, Gap { missing: 3 }, Repeat, Next, Restart, Next, Next];
        assert_eq!(steps(&numbers), expected);
    }

    #[test]
    fn restarts_are_told_from_late_frames() {
        assert_eq!(steps(&[("a", 5000), ("a", 4000)]), [First, Repeat]);
        assert_eq!(steps(&[("a", 5000), ("a", 3999), ("a", 4000)]), [First, Restart, Next]);
        assert_eq!(steps(&[("a", 5), ("a", 1)]), [First, Restart]);
        assert_eq!(steps(&[("a", 1), ("a", 1), ("a", 0), ("a", 0)]), [First, Repeat, Restart, Repeat]);
        // One absurd number does not turn into an absurd count of gaps.
        assert_eq!(steps(&[("a", 5), ("a", u64::MAX), ("a", 6)]), [First, Restart, Restart]);
        assert_eq!(steps(&[("a", 0), ("a", JUMP), ("a", JUMP)]), [First, Gap { missing: JUMP - 1 }, Repeat]);
    }

    #[test]
    fn acquisitions_are_followed_apart() {
        let mixed = [("a", 3), ("b", 0), ("a", 4), ("b", 1), ("a", 6)];
        assert_eq!(steps(&mixed), [First, Restart, Next, Next, Gap { missing: 1 }]);
        let mut tracker = SequenceTracker::default();
        assert_eq!(tracker.observe("a", 9), First);
        tracker.begin("a");
        assert_eq!(tracker.observe("a", 9), Restart);
        assert_eq!(tracker.observe("a", 10), Next);
    }

    #[test]
    fn memory_is_bounded() {
        let mut tracker = SequenceTracker::default();
        for index in 0..1000 {
            tracker.observe(&format!("acquisition {index}"), 0);
        }
        assert_eq!(tracker.last.len(), ACQUISITIONS);
        assert_eq!(tracker.observe("acquisition 999", 1), Next);
    }
}
