//! Counts what the link costs, by the day and by the month, and decides who may still spend.
//!
//! Counted are, in both directions, the MQTT packets, and for each an estimate of what carries it:
//! a TLS record, the headers of IPv4 and TCP for each segment, and TCP's own acknowledgement. Where
//! packets share a segment this is too much, never too little, short of what the network repeats.
//!
//! Days and months are those of UTC. They change when a clock says so that was right before and
//! after; without such a clock, once the gateway has been up for their length. A clock that is put
//! back or found right changes the date and not the count.
//!
//! Invariant: no step of a clock gives a budget twice in a day, and none withholds the next day's
//! for more than a day. Layer: core.

use std::{collections::HashMap, time::Duration};

use jiff::{Timestamp, civil::Date, tz::Offset};

use crate::{
    config::{PING_BYTES, Priority},
    reading::{ClockState, Stamp},
};

/// A TLS record around a packet: header, content type and tag.
const TLS_RECORD: u64 = 22;
/// Headers of IPv4 and of TCP with time stamps.
const SEGMENT: u64 = 52;
/// What a segment carries on a usual path.
const SEGMENT_PAYLOAD: u64 = 1400;
/// A PUBACK with a reason code.
const ACKNOWLEDGEMENT: u64 = 6;
/// TCP and TLS handshakes with both certificates, CONNECT and CONNACK, subscriptions.
const CONNECTION: u64 = 8 << 10;
const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(31 * 86_400);

/// What may be spent, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) per_day: Option<u64>,
    pub(crate) per_month: Option<u64>,
}

/// The time over which a budget is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// From midnight to midnight, UTC.
    Day,
    /// From its first day to its last, UTC.
    Month,
}

impl Period {
    /// The word in status and alerts.
    pub fn as_str(self) -> &'static str {
        match self {
            Period::Day => "day",
            Period::Month => "month",
        }
    }

    fn length(self) -> Duration {
        match self {
            Period::Day => DAY,
            Period::Month => MONTH,
        }
    }

    /// Rises by one from each to the next.
    fn number(self, wall: Timestamp) -> i64 {
        let date = Offset::UTC.to_datetime(wall).date();
        match self {
            Period::Day => wall.as_second().div_euclid(86_400),
            Period::Month => i64::from(date.year()) * 12 + i64::from(date.month()) - 1,
        }
    }

    /// When the next one begins.
    fn end(self, wall: Timestamp) -> Option<Timestamp> {
        let date: Date = Offset::UTC.to_datetime(wall).date();
        let next = match self {
            Period::Day => date.tomorrow().ok()?,
            Period::Month => date.last_of_month().tomorrow().ok()?,
        };
        Offset::UTC.to_timestamp(next.at(0, 0, 0, 0)).ok()
    }
}

/// What was spent in one period; outlives the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Which period by the clock.
    pub(crate) number: i64,
    pub(crate) bytes: u64,
    /// Time that the gateway has been up in it.
    pub(crate) up: Duration,
    /// Whether the clock was right that named it.
    pub(crate) synced: bool,
}

/// Both counts as they are kept on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) day: Spent,
    pub(crate) month: Spent,
}

impl Ledger {
    /// As the buffer's file keeps it.
    pub(crate) fn marks(&self) -> Vec<(&'static str, i64)> {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (day, month) = (&self.day, &self.month);
        vec![
            ("budget-day", day.number),
            ("budget-day-bytes", number(day.bytes)),
            ("budget-day-up", number(day.up.as_secs())),
            ("budget-day-synced", i64::from(day.synced)),
            ("budget-month", month.number),
            ("budget-month-bytes", number(month.bytes)),
            ("budget-month-up", number(month.up.as_secs())),
            ("budget-month-synced", i64::from(month.synced)),
        ]
    }

    /// What was kept; nothing of a mark that is missing.
    pub(crate) fn from_marks(marks: &HashMap<String, i64>) -> Ledger {
        let mark = |name: &str| marks.get(name).copied().unwrap_or(0);
        let size = |name: &str| u64::try_from(mark(name)).unwrap_or(0);
        Ledger {
            day: Spent {
                number: mark("budget-day"),
                bytes: size("budget-day-bytes"),
                up: Duration::from_secs(size("budget-day-up")),
                synced: mark("budget-day-synced") != 0,
            },
            month: Spent {
                number: mark("budget-month"),
                bytes: size("budget-month-bytes"),
                up: Duration::from_secs(size("budget-month-up")),
                synced: mark("budget-month-synced") != 0,
            },
        }
    }
}

/// One budget as people are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Over which time it is counted.
    pub period: Period,
    /// Bytes that may be spent.
    pub limit: u64,
    /// Bytes that were.
    pub used: u64,
    /// When the next period begins, by the clock as it is.
    pub until: Option<Timestamp>,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    limits: Limits,
    keep_alive: Duration,
    ledger: Ledger,
    last: Option<Stamp>,
    /// Since the last ping that was counted.
    idle: Duration,
    /// Bytes of messages under way whose cost is counted with their packet.
    reserved: u64,
}

impl Budget {
    /// Goes on where a ledger ends.
    pub(crate) fn new(limits: Limits, keep_alive: Duration, ledger: Ledger) -> Budget {
        Budget {
            limits,
            keep_alive: keep_alive.max(Duration::from_secs(1)),
            ledger,
            last: None,
            idle: Duration::ZERO,
            reserved: 0,
        }
    }

    /// Takes in the time. Without `linked` no pings go.
    pub(crate) fn tick(&mut self, now: Stamp, linked: bool) {
        if self.last == Some(now) {
            return;
        }
        let passed = self.last.map_or(Duration::ZERO, |last| {
            now.monotonic.saturating_duration_since(last.monotonic)
        });
        self.last = Some(now);
        self.ledger.day.advance(Period::Day, now, passed);
        self.ledger.month.advance(Period::Month, now, passed);
        self.idle = match linked {
            true => self.idle + passed,
            false => Duration::ZERO,
        };
        while self.idle >= self.keep_alive {
            self.idle -= self.keep_alive;
            self.spend(PING_BYTES);
        }
    }

    /// A connection is made.
    pub(crate) fn connect(&mut self) {
        self.spend(CONNECTION);
    }

    /// A packet of so many bytes goes or comes, and its acknowledgement the other way.
    pub(crate) fn message(&mut self, bytes: u64, acknowledged: bool) {
        self.spend(cost(bytes, acknowledged));
    }

    /// Whether messages of this priority may go: those of high priority always may.
    pub(crate) fn affords(&self, priority: Priority) -> bool {
        let reserved = self.reserved;
        let is_left = |account: Account| account.used.saturating_add(reserved) < account.limit;
        priority == Priority::High || self.accounts().all(is_left)
    }

    /// So many bytes may become due.
    pub(crate) fn reserve(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_add(bytes);
    }

    /// They have become due, or will not.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Nothing is under way any more.
    pub(crate) fn release_all(&mut self) {
        self.reserved = 0;
    }

    /// The budget that is used up.
    pub(crate) fn exhausted(&self) -> Option<Account> {
        self.accounts()
            .find(|account| account.used >= account.limit)
    }

    /// The budgets there are.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = Account> {
        let account = |period: Period, limit: Option<u64>, spent: Spent| {
            limit.map(|limit| Account {
                period,
                limit,
                used: spent.bytes,
                until: self.last.and_then(|last| period.end(last.wall)),
            })
        };
        let day = account(Period::Day, self.limits.per_day, self.ledger.day);
        let month = account(Period::Month, self.limits.per_month, self.ledger.month);
        day.into_iter().chain(month)
    }

    /// What is to be kept on disk.
    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// So many bytes have gone over the wire.
    pub(crate) fn spend(&mut self, bytes: u64) {
        for spent in [&mut self.ledger.day, &mut self.ledger.month] {
            spent.bytes = spent.bytes.saturating_add(bytes);
        }
    }
}

impl Spent {
    fn advance(&mut self, period: Period, now: Stamp, passed: Duration) {
        self.up = self.up.saturating_add(passed);
        let number = period.number(now.wall);
        let synced = now.clock == ClockState::Synced;
        let fresh = Spent {
            number,
            synced,
            ..Spent::default()
        };
        if synced && self.synced {
            if number > self.number {
                *self = fresh;
            }
            // Put back: the date changes, the count does not.
            self.number = number;
        } else if synced {
            self.number = number;
            self.synced = true;
        } else if self.up >= period.length() {
            *self = fresh;
        }
    }
}

/// Bytes on the wire, both ways, for a packet of so many bytes of MQTT.
pub(crate) fn cost(bytes: u64, acknowledged: bool) -> u64 {
    let answer = if acknowledged {
        carried(ACKNOWLEDGEMENT)
    } else {
        0
    };
    carried(bytes) + answer + SEGMENT
}

fn carried(bytes: u64) -> u64 {
    let record = bytes + TLS_RECORD;
    record + record.div_ceil(SEGMENT_PAYLOAD) * SEGMENT
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LIMIT: u64 = 100_000;

    #[test]
    fn a_used_up_budget_holds_back_all_but_high_until_the_next_day() {
        let mut budget = per_day();
        budget.tick(at("2026-11-22T23:00:00Z", 0, true), true);
        assert!(budget.affords(Priority::Low));
        while budget.exhausted().is_none() {
            budget.message(1000, true);
        }
        let account = budget.exhausted().unwrap();
        assert_eq!(account.until.unwrap().to_string(), "2026-11-23T00:00:00Z");
        assert!(account.used < LIMIT + 2000);
        assert!(!budget.affords(Priority::Normal));
        assert!(budget.affords(Priority::High));
        budget.tick(at("2026-11-23T00:00:01Z", 3601, true), false);
        assert!(budget.affords(Priority::Low));
    }

    #[test]
    fn a_clock_that_steps_gives_no_budget_twice_and_withholds_none_for_ever() {
        for (what, steps, used) in [
            ("put back", vec![("2025-01-01T00:00:00Z", 10, true)], true),
            (
                "put back, then midnight",
                vec![
                    ("2025-01-01T23:59:00Z", 10, true),
                    ("2025-01-02T00:00:00Z", 70, true),
                ],
                false,
            ),
            ("lost", vec![("1970-01-01T00:00:00Z", 10, false)], true),
            ("wild", vec![("2094-01-01T00:00:00Z", 10, false)], true),
            (
                "wild, then right",
                vec![
                    ("2094-01-01T00:00:00Z", 10, false),
                    ("2026-11-22T12:00:20Z", 20, true),
                ],
                true,
            ),
            (
                "not known for a day",
                vec![
                    ("1970-01-01T00:00:00Z", 10, false),
                    ("1970-01-02T00:00:00Z", 86_410, false),
                ],
                false,
            ),
            (
                "found right on another day",
                vec![
                    ("1970-01-01T00:00:00Z", 10, false),
                    ("2026-11-25T12:00:00Z", 20, true),
                ],
                // The last right clock named another day.
                false,
            ),
        ] {
            let mut budget = per_day();
            budget.tick(at("2026-11-22T12:00:00Z", 0, true), true);
            budget.message(2 * LIMIT, true);
            for (wall, second, synced) in steps {
                budget.tick(at(wall, second, synced), false);
            }
            assert_eq!(budget.exhausted().is_some(), used, "{what}");
        }
    }

    #[test]
    fn a_date_found_right_keeps_what_an_unknown_day_has_spent() {
        let mut budget = per_day();
        budget.tick(at("1970-01-01T00:00:00Z", 0, false), true);
        budget.message(2 * LIMIT, true);
        budget.tick(at("2026-11-22T12:00:00Z", 10, true), true);
        assert!(budget.exhausted().is_some());
        budget.tick(at("2026-11-23T00:00:00Z", 43_210, true), false);
        assert!(budget.exhausted().is_none());
    }

    #[test]
    fn a_restart_goes_on_counting() {
        let mut budget = per_day();
        budget.tick(at("2026-11-22T12:00:00Z", 0, true), true);
        budget.message(LIMIT, true);
        let kept = budget.ledger().marks();
        let kept = kept
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let ledger = Ledger::from_marks(&kept.collect());
        assert_eq!(ledger, budget.ledger());
        let mut again = Budget::new(budget.limits, Duration::from_secs(30), ledger);
        again.tick(at("2026-11-22T12:01:00Z", 60, true), true);
        assert!(again.exhausted().is_some());
    }

    #[test]
    fn an_idle_link_costs_its_pings_and_a_lost_one_nothing() {
        let mut budget = per_day();
        budget.tick(at("2026-11-22T12:00:00Z", 0, true), true);
        budget.tick(at("2026-11-22T12:10:00Z", 600, true), true);
        let used = budget.ledger().day.bytes;
        assert_eq!(used, 20 * PING_BYTES);
        budget.tick(at("2026-11-22T12:20:00Z", 1200, true), false);
        assert_eq!(budget.ledger().day.bytes, used);
    }

    #[test]
    fn a_month_ends_with_its_last_day() {
        let limits = Limits {
            per_day: None,
            per_month: Some(LIMIT),
        };
        let mut budget = Budget::new(limits, Duration::from_secs(30), Ledger::default());
        budget.tick(at("2026-11-30T23:59:59Z", 0, true), true);
        budget.message(LIMIT, true);
        let account = budget.exhausted().unwrap();
        assert_eq!(account.until.unwrap().to_string(), "2026-12-01T00:00:00Z");
        budget.tick(at("2026-12-01T00:00:00Z", 1, true), true);
        assert!(budget.exhausted().is_none());
    }

    #[test]
    fn a_packet_costs_what_carries_it() {
        assert_eq!(cost(100, true), 100 + 22 + 52 + 6 + 22 + 52 + 52);
        assert_eq!(cost(100, false), 100 + 22 + 52 + 52);
        assert_eq!(cost(3000, false), 3000 + 22 + 3 * 52 + 52);
        assert_eq!(PING_BYTES, 2 * carried(2));
    }

    fn per_day() -> Budget {
        let limits = Limits {
            per_day: Some(LIMIT),
            per_month: None,
        };
        Budget::new(limits, Duration::from_secs(30), Ledger::default())
    }

    fn at(wall: &str, second: u64, synced: bool) -> Stamp {
        Stamp {
            wall: wall.parse().unwrap(),
            monotonic: begin() + Duration::from_secs(second),
            clock: match synced {
                true => ClockState::Synced,
                false => ClockState::Unsynced,
            },
        }
    }

    #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
    fn begin() -> Instant {
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BEGIN.get_or_init(Instant::now)
    }
}
