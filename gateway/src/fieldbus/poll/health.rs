//! Whether one unit answers, and when to ask it again if not. A core.
//!
//! ```text
//!  Unproven ──answer──▶ Online ──silence──▶ Silent ──silence──▶ … longer and longer pauses
//!      └──────silence───────────────────────▶  └──answer──▶ Online
//! ```
//!
//! Invariant: between two transactions with a silent unit lies the pause; its polls do not run.

use std::time::{Duration, Instant};

use crate::fieldbus::{poll::jitter::Jitter, transaction::Span};

/// Transactions without an answer after which a unit counts as offline: one may be noise, and
/// two a device that restarts.
pub(crate) const OFFLINE_AFTER: u32 = 3;
/// The first pause of a unit that is offline.
const PROBE_FIRST: Duration = Duration::from_secs(5);
/// What was found out about it holds for so long, so that many commands do not cost as many time-outs.
const RECENTLY: Duration = PROBE_FIRST;
/// The longest pause.
const PROBE_MAX: Duration = Duration::from_secs(300);

/// The state of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// Nothing is known yet: it has not answered since the wire came up.
    Unproven,
    /// It answered the last time.
    Online,
    /// It did not answer the last time.
    Silent(Silence),
}

/// What is known of a unit that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silence {
    /// Transactions without an answer in a row.
    failures: u32,
    /// When it last did not answer.
    asked_at: Instant,
    /// When to ask next, if the other units leave time for it.
    pub(crate) probe_at: Instant,
    /// When to ask even if they do not.
    pub(crate) overdue_at: Instant,
    /// The last two reads that were not answered, without a pause between them; the next one must
    /// be of another length than both.
    unanswered: [Option<Span>; 2],
    /// It answered until now: one short read, in the order of the polls, tells a lost frame from
    /// a unit that is gone.
    in_order: bool,
}

impl Health {
    /// The unit answered, be it an exception.
    pub(crate) fn answered(&mut self) {
        *self = Health::Online;
    }

    /// The unit did not answer `unanswered`; `timeout` is what that cost the bus.
    pub(crate) fn failed(
        &mut self,
        unanswered: Option<Span>,
        timeout: Duration,
        jitter: &mut Jitter,
        now: Instant,
    ) {
        let (before, owed) = match self {
            Health::Silent(silence) => (silence.failures, silence.unanswered[0]),
            Health::Unproven | Health::Online => (0, None),
        };
        let failures = before.saturating_add(1);
        // Before a pause the line is drained of what is older.
        let owed = owed.filter(|_| failures < OFFLINE_AFTER);
        let in_order = self.is_online();
        let pause = match failures.checked_sub(OFFLINE_AFTER) {
            None => Duration::ZERO,
            Some(probes) => jitter.spread(pause(probes)),
        };
        let probe_at = now + pause;
        *self = Health::Silent(Silence {
            failures,
            asked_at: now,
            probe_at,
            overdue_at: probe_at + pause.max(timeout),
            unanswered: [unanswered, owed],
            in_order,
        });
    }

    /// The unit did not answer a request that was not ours to judge it by: it is asked once, in
    /// another length, before its polls go on.
    pub(crate) fn suspect(&mut self, unanswered: Option<Span>, now: Instant) {
        match self {
            Health::Silent(silence) if unanswered.is_some() => {
                silence.unanswered = [unanswered, silence.unanswered[0]];
            }
            Health::Silent(_) => {}
            Health::Unproven | Health::Online => {
                *self = Health::Silent(Silence {
                    failures: 0,
                    asked_at: now,
                    probe_at: now,
                    overdue_at: now,
                    unanswered: [unanswered, None],
                    in_order: true,
                });
            }
        }
    }

    /// The unit is offline and did not answer a read between two probes, which keep their pauses.
    pub(crate) fn still_silent(&mut self, unanswered: Option<Span>, now: Instant) {
        if let Health::Silent(silence) = self {
            silence.unanswered = [unanswered, None];
            silence.asked_at = now;
        }
    }

    /// Whether one short read, in the order of the polls, is to show that nothing is wrong with
    /// it.
    pub(crate) fn is_suspect(&self) -> bool {
        matches!(self, Health::Silent(silence) if silence.in_order)
    }

    /// Whether an answer as long as this read's may still come to another one.
    pub(crate) fn owes(&self, read: Span) -> bool {
        match self {
            Health::Silent(silence) => {
                let mut owed = silence.unanswered.into_iter().flatten();
                owed.any(|one| one.table == read.table && one.data_bytes() == read.data_bytes())
            }
            Health::Unproven | Health::Online => false,
        }
    }

    /// Whether the unit has been silent long enough to be called offline.
    pub(crate) fn is_offline(&self) -> bool {
        matches!(self, Health::Silent(silence) if silence.failures >= OFFLINE_AFTER)
    }

    /// Whether it is offline and was asked only just now.
    pub(crate) fn is_offline_for_sure(&self, now: Instant) -> bool {
        let recently = |silence: &Silence| now < silence.asked_at + RECENTLY;
        self.is_offline() && matches!(self, Health::Silent(silence) if recently(silence))
    }

    /// Whether its polls run as planned.
    pub(crate) fn is_online(&self) -> bool {
        *self == Health::Online
    }
}

impl Silence {
    /// A read at a usual place that shows whether the unit is back. Its answer differs in length
    /// from the two that did not come, which may still come.
    pub(crate) fn probe(&self, usual: Span) -> Span {
        let counts = if usual.table.is_bits() {
            [1, 9, 17]
        } else {
            [1, 2, 3]
        };
        let probes = counts.map(|count| Span {
            start: usual.start.min(u16::MAX - (count - 1)),
            count,
            ..usual
        });
        let owed = |probe: &Span| {
            let mut owed = self.unanswered.into_iter().flatten();
            owed.any(|one| one.data_bytes() == probe.data_bytes())
        };
        let free = probes.into_iter().find(|probe| !owed(probe));
        free.unwrap_or(probes[0])
    }
}

fn pause(probes: u32) -> Duration {
    let doubled = 1u32.checked_shl(probes).unwrap_or(u32::MAX);
    PROBE_FIRST.saturating_mul(doubled).min(PROBE_MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;
    use crate::fieldbus::register::Table;

    fn span(table: Table, count: u16) -> Span {
        Span {
            table,
            start: 40,
            count,
        }
    }

    fn silent(failures: u32) -> (Silence, Instant) {
        let (mut health, mut jitter) = (Health::Online, Jitter::new(1));
        let now = Instant::now();
        for _ in 0..failures {
            let unanswered = Some(span(Table::Input, 10));
            health.failed(unanswered, Duration::from_secs(1), &mut jitter, now);
        }
        match health {
            Health::Silent(silence) => (silence, now),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_silent_unit_is_asked_again_soon_and_then_less_and_less() {
        let pause = |failures| {
            let (silence, now) = silent(failures);
            (silence.probe_at - now).as_secs_f64()
        };
        assert_eq!(pause(1), 0.0);
        assert_eq!(pause(2), 0.0);
        assert!((4.0..=5.0).contains(&pause(3)));
        assert!((8.0..=10.0).contains(&pause(4)));
        assert!((240.0..=300.0).contains(&pause(9)));
        assert!((240.0..=300.0).contains(&pause(90)));
    }

    #[test]
    fn a_probe_never_has_the_length_of_an_answer_that_may_still_come() {
        for table in [Table::Coil, Table::Discrete, Table::Input, Table::Holding] {
            for (count, before) in (1..=125).flat_map(|count| (1..=20).map(move |one| (count, one)))
            {
                let unanswered = span(table, count);
                let silence = Silence {
                    unanswered: [Some(unanswered), Some(span(table, before))],
                    ..silent(1).0
                };
                let probe = silence.probe(unanswered);
                assert_ne!(probe.data_bytes(), unanswered.data_bytes());
                assert_ne!(probe.data_bytes(), span(table, before).data_bytes());
                assert!(probe.end() <= 65_536);
            }
        }
    }
}
