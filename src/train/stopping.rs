//! Early stopping: training ends when checks find the loss on held-out frames no smaller any more, and the network of the best check is
//! taken.

use super::TrainError;
use super::labelled::Labelled;
use super::samples::{Sample, Split};
use super::settings::Schedule;
use serde::{Deserialize, Serialize};

/// What the checks of a run have found.
#[derive(Debug, Clone)]
pub(super) struct Stopping<N> {
    pub best: Option<Best<N>>,
}

/// The best check, and its network as it answers, not as it is trained.
#[derive(Debug, Clone)]
pub(super) struct Best<N> {
    pub network: N,
    pub check: Check,
}

/// What is remembered of the best check beside its network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    /// Mean loss on the frames of the checks.
    pub loss: f64,
    /// Steps that were made then.
    pub steps: u64,
    /// Checks since.
    pub since: u64,
}

/// A trained network, and the steps that it took.
#[derive(Debug, Clone)]
pub(super) struct Trained<N> {
    pub network: N,
    pub steps: u64,
}

impl<N> Stopping<N> {
    /// Whether a check is made after `steps` steps.
    pub const fn is_due(schedule: &Schedule, steps: u64) -> bool {
        let every = schedule.stop_check_every;
        every > 0 && (steps.is_multiple_of(every) || steps == schedule.steps)
    }

    /// Takes the result of a check. A loss that is not a number is no better than any.
    pub fn take(&mut self, network: N, loss: f64, steps: u64) {
        match &mut self.best {
            Some(Best { check, .. }) if !(loss < check.loss || check.loss.is_nan()) => check.since += 1,
            best => *best = Some(Best { network, check: Check { loss, steps, since: 0 } }),
        }
    }

    /// Whether training ends here.
    pub fn ends(&self, schedule: &Schedule) -> bool {
        self.best.as_ref().is_some_and(|best| best.check.since >= schedule.stop_patience)
    }

    /// The best network; `last`, which made all the steps, where nothing was checked.
    pub fn result(self, last: Trained<N>) -> Trained<N> {
        self.best.map_or(last, |Best { network, check }| Trained { network, steps: check.steps })
    }
}

/// The frames of a check: the labelled ones that are set aside for it, or else as many simulated ones as the result is judged on.
pub(super) fn frames(
    labelled: Option<&Labelled>,
    schedule: &Schedule,
    simulated: impl Fn(Split) -> Result<Sample, TrainError>,
) -> impl Iterator<Item = Result<Sample, TrainError>> {
    let labelled = labelled.map_or_else(Vec::new, |labelled| labelled.stopping(schedule.crop_px));
    let count = if labelled.is_empty() { schedule.held_out_frames } else { 0 };
    let simulated = (0..count).map(move |index| simulated(Split::Stopping { index }));
    labelled.into_iter().map(Ok).chain(simulated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_ends_after_as_many_checks_without_a_better_one_and_takes_the_best() {
        let schedule = Schedule { steps: 75, stop_check_every: 10, stop_patience: 2, ..Schedule::default() };
        let off = Schedule { stop_check_every: 0, ..schedule.clone() };
        let due = |schedule: &Schedule| -> Vec<u64> {
            (1..=75).filter(|&steps| Stopping::<u64>::is_due(schedule, steps)).collect()
        };
        assert_eq!(due(&schedule), [10, 20, 30, 40, 50, 60, 70, 75]);
        assert!(due(&off).is_empty());

        let mut stopping = Stopping { best: None };
        let mut ended = Vec::new();
        for (steps, loss) in [(10, f64::NAN), (20, 5.0), (30, 6.0), (40, 4.0), (50, 4.0), (60, f64::NAN)] {
            stopping.take(steps, loss, steps);
            ended.push(stopping.ends(&schedule));
        }
        assert_eq!(ended, [false, false, false, false, false, true]);
        let best = stopping.result(Trained { network: 60, steps: 60 });
        assert_eq!((best.network, best.steps), (40, 40));
        let last = Stopping::<u64> { best: None }.result(Trained { network: 75, steps: 75 });
        assert_eq!((last.network, last.steps), (75, 75));
    }
}
