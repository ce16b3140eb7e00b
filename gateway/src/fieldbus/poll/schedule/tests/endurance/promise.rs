//! What a healthy point may count on while others are ill: it is polled within its interval from
//! when that is due. Commands, which go before polls, and what tools ask can make it later, by as
//! much as they have taken since the bus was last idle; nothing else can.

use super::*;

/// The contract: 5 s doubling to 5 min, spread over the last fifth.
fn pause(failures: u32) -> Option<Duration> {
    let probes = failures.checked_sub(3)?;
    Some(secs(5 << probes.min(6)).min(secs(300)))
}

/// What one unit did not answer.
#[derive(Debug, Clone, Copy)]
struct Silent {
    failures: u32,
    since: Duration,
}

/// Counts what commands and tools take of one bus, and follows who does not answer.
#[derive(Debug)]
pub(super) struct Promise {
    timeout: Duration,
    silent: HashMap<u8, Silent>,
    /// What commands and tools have taken.
    total: Duration,
    idle_total: Duration,
    /// When a unit last went before others in vain, and how long it was waited for.
    forced_at: Option<(Duration, Duration)>,
    pub(super) forced: usize,
    pub(super) probes: usize,
    pub(super) early: usize,
}

impl Promise {
    pub(super) fn new(timeout: Duration) -> Promise {
        Promise {
            timeout,
            silent: HashMap::new(),
            total: Duration::ZERO,
            idle_total: Duration::ZERO,
            forced_at: None,
            forced: 0,
            probes: 0,
            early: 0,
        }
    }

    /// Nothing is due.
    pub(super) fn idle(&mut self) {
        self.idle_total = self.total;
    }

    /// What commands and tools took since the bus was last idle.
    pub(super) fn commanded(&self) -> Duration {
        self.total - self.idle_total
    }

    pub(super) fn total(&self) -> Duration {
        self.total
    }

    /// What they took until the bus was last idle.
    pub(super) fn before_busy(&self) -> Duration {
        self.idle_total
    }

    /// The wire was gone: nothing is known of any unit.
    pub(super) fn restart(&mut self) {
        self.silent.clear();
    }

    /// A transaction with a unit, from when to when.
    pub(super) fn took(
        &mut self,
        unit: u8,
        purpose: Purpose,
        (from, to): (Duration, Duration),
        unanswered: bool,
        forced: bool,
    ) {
        let before = self.silent.get(&unit).copied();
        if matches!(purpose, Purpose::Write | Purpose::Knock | Purpose::Adhoc) {
            self.total += to - from;
        } else if let Some(silent) = before
            && silent.failures > 1
        {
            self.probed(unit, silent, from, forced);
        }
        match (unanswered, purpose) {
            (false, _) => {
                self.silent.remove(&unit);
            }
            (true, Purpose::Knock | Purpose::Adhoc) => {}
            (true, _) => {
                let failures = before.map_or(0, |silent| silent.failures) + 1;
                let silent = Silent {
                    failures,
                    since: to,
                };
                self.silent.insert(unit, silent);
            }
        }
    }

    /// A probe; `forced`: without slack, which takes its share alone.
    fn probed(&mut self, unit: u8, silent: Silent, at: Duration, forced: bool) {
        let waited = at - silent.since;
        let least = match pause(silent.failures) {
            None => self.timeout,
            Some(pause) => {
                assert!(
                    waited >= pause * 4 / 5,
                    "unit {unit} is asked {waited:?} after time-out {}, not after {pause:?}",
                    silent.failures
                );
                self.probes += 1;
                self.early += usize::from(waited < pause * 9 / 10);
                pause * 8 / 5
            }
        };
        if forced {
            assert!(
                waited >= least,
                "unit {unit} goes before others after {waited:?}"
            );
            self.forced += 1;
        }
    }

    /// A unit went before others although there was no slack, and did not answer.
    pub(super) fn in_vain(&mut self, unit: u8, at: Duration, patience: Duration) {
        let Some((before, waited)) = self.forced_at.replace((at, patience)) else {
            return;
        };
        assert!(
            at - before >= waited * 10,
            "unit {unit} takes more than its share: {:?} after another",
            at - before
        );
    }
}
