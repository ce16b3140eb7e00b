//! What happens when in the demonstration. Core.
//!
//! Invariant: a cut link is always mended before the demonstration ends.

use std::time::Duration;

/// A cycle when the demonstration has no end: one cut in every half minute.
const CYCLE: Duration = Duration::from_secs(30);

/// Something the demonstration does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// The cloud sends a command.
    Command,
    /// The link goes down.
    Cut,
    /// The link comes back.
    Mend,
    /// The demonstration is over.
    End,
}

/// The acts still to come.
pub(super) struct Script {
    length: Option<Duration>,
    cycle: Duration,
    next: usize,
}

/// Acts of a cycle, in parts of it: `numerator / 30`.
const ACTS: [(u32, Act); 3] = [(5, Act::Command), (8, Act::Cut), (14, Act::Mend)];

impl Script {
    /// A script that ends after `length`, or never.
    pub(super) fn new(length: Option<Duration>) -> Script {
        Script {
            length,
            cycle: length.map_or(CYCLE, |length| length.min(CYCLE)),
            next: 0,
        }
    }

    /// The next act, once, when its time has come.
    pub(super) fn due(&mut self, elapsed: Duration) -> Option<Act> {
        if self.length.is_some_and(|length| elapsed >= length) {
            return Some(Act::End);
        }
        let (at, act) = self.upcoming()?;
        (elapsed >= at).then(|| {
            self.next += 1;
            act
        })
    }

    fn upcoming(&self) -> Option<(Duration, Act)> {
        let round = u32::try_from(self.next / ACTS.len()).ok()?;
        let start = self.cycle.checked_mul(round)?;
        if self
            .length
            .is_some_and(|length| start + self.cycle > length)
        {
            return None;
        }
        let (part, act) = ACTS[self.next % ACTS.len()];
        Some((start + self.cycle * part / 30, act))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(length: Option<u64>, until: u64) -> Vec<(u64, Act)> {
        let mut script = Script::new(length.map(Duration::from_secs));
        let mut acts = Vec::new();
        for second in 0..=until {
            while let Some(act) = script.due(Duration::from_secs(second)) {
                acts.push((second, act));
                if act == Act::End {
                    return acts;
                }
            }
        }
        acts
    }

    #[test]
    fn the_link_is_cut_in_every_half_minute_and_mended() {
        let acts = played(None, 50);
        assert_eq!(
            acts,
            [
                (5, Act::Command),
                (8, Act::Cut),
                (14, Act::Mend),
                (35, Act::Command),
                (38, Act::Cut),
                (44, Act::Mend)
            ]
        );
    }

    #[test]
    fn a_short_demonstration_shows_everything_and_ends() {
        assert_eq!(
            played(Some(15), 99),
            [
                (3, Act::Command),
                (4, Act::Cut),
                (7, Act::Mend),
                (15, Act::End)
            ]
        );
    }

    #[test]
    fn no_cut_begins_in_a_cycle_that_does_not_fit() {
        let acts = played(Some(40), 99);
        assert_eq!(acts.iter().filter(|(_, act)| *act == Act::Cut).count(), 1);
        assert_eq!(acts.last(), Some(&(40, Act::End)));
    }
}
