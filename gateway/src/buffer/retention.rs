//! Decides what leaves a full buffer, and remembers what left.
//!
//! Invariant: a message never pushes out one of higher priority, and whatever leaves by policy is
//! in the gap book. Layer: core.

use std::{collections::BTreeMap, time::Duration};

use broker_lite::topic::TopicName;

use crate::config::{Priority, WhenFull};

/// Rows that are evicted at once: their pages are then mostly whole and free.
pub(crate) const EVICTED_AT_ONCE: u64 = 256;

/// Sending order of the priorities, and the upper part of each row's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Rank(u8);

/// How many ranks there are.
pub(crate) const RANKS: usize = 3;
const RANK_SHIFT: u32 = 56;
const ORDER_MASK: i64 = (1 << RANK_SHIFT) - 1;

impl Default for Rank {
    fn default() -> Rank {
        Rank::of(Priority::default())
    }
}

impl Rank {
    /// Of a rule's priority: high is sent first.
    pub(crate) fn of(priority: Priority) -> Rank {
        Rank(match priority {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        })
    }

    /// The priority that it stands for.
    pub(crate) fn priority(self) -> Priority {
        match self.0 {
            0 => Priority::High,
            1 => Priority::Normal,
            _ => Priority::Low,
        }
    }

    /// Of a stored row.
    pub(crate) fn of_row(row: i64) -> Rank {
        Rank(u8::try_from(row >> RANK_SHIFT).unwrap_or(2).min(2))
    }

    /// All, in sending order.
    pub(crate) fn all() -> impl DoubleEndedIterator<Item = Rank> {
        (0..3).map(Rank)
    }

    /// Position in sending order.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The row of this rank with the given order.
    pub(crate) fn row(self, order: i64) -> i64 {
        (i64::from(self.0) << RANK_SHIFT) | (order & ORDER_MASK)
    }

    /// The smallest and the greatest number a row of this rank can have.
    pub(crate) fn rows(self) -> (i64, i64) {
        (self.row(0), self.row(ORDER_MASK))
    }
}

/// The order that a row's number holds, whatever its rank.
pub(crate) fn order_of(row: i64) -> i64 {
    row & ORDER_MASK
}

/// How far a forwarder has read, per priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor([i64; RANKS]);

impl Default for Cursor {
    fn default() -> Self {
        let mut rows = [0; RANKS];
        for rank in Rank::all() {
            rows[rank.index()] = rank.rows().0;
        }
        Cursor(rows)
    }
}

impl Cursor {
    /// The last row passed of a rank.
    pub(crate) fn position(&self, rank: Rank) -> i64 {
        self.0[rank.index()]
    }

    /// Moves past a row that was read.
    pub(crate) fn pass(&mut self, row: i64) {
        let position = &mut self.0[Rank::of_row(row).index()];
        *position = (*position).max(row);
    }

    /// Moves to wherever `other` is further.
    pub(crate) fn advance(&mut self, other: &Cursor) {
        for (position, further) in self.0.iter_mut().zip(other.0) {
            *position = (*position).max(further);
        }
    }

    /// Moves to where `other` is in this rank, if that is further.
    pub(crate) fn advance_in(&mut self, rank: Rank, other: &Cursor) {
        self.pass(other.position(rank));
    }

    /// Moves back to before this order, wherever it is further.
    pub(crate) fn keep_below(&mut self, order: i64) {
        for rank in Rank::all() {
            let position = &mut self.0[rank.index()];
            if order_of(*position) >= order {
                *position = rank.row(order - 1);
            }
        }
    }

    /// Whether `other` is further in this rank.
    pub(crate) fn is_behind(&self, rank: Rank, other: &Cursor) -> bool {
        self.position(rank) < other.position(rank)
    }
}

/// What is to be read: so many rows of each rank behind one position and not behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) after: Cursor,
    /// `None`: as far as there are rows.
    pub(crate) until: Option<Cursor>,
    pub(crate) rows: [usize; RANKS],
}

impl Stretch {
    /// The last row of a rank that belongs to it.
    pub(crate) fn until(&self, rank: Rank) -> i64 {
        self.until
            .map_or(rank.rows().1, |until| until.position(rank))
    }
}

/// What happens to a message for which there is no room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The oldest of this rank make room, at most so many; then it is asked again.
    Evict(Rank, u64),
    /// It is left out and entered in the gap book.
    Drop,
    /// Its publisher is told no.
    Refuse,
}

/// Decides about one message that does not fit; `waiting` counts the stored rows of each rank.
pub(crate) fn verdict(when_full: WhenFull, rank: Rank, waiting: &[u64; RANKS]) -> Verdict {
    match when_full {
        WhenFull::Refuse => Verdict::Refuse,
        WhenFull::DropNewest => Verdict::Drop,
        WhenFull::DropOldest => Rank::all()
            .rev()
            .take_while(|victim| *victim >= rank)
            .find(|victim| waiting[victim.index()] > 0)
            .map_or(Verdict::Drop, |victim| {
                Verdict::Evict(victim, EVICTED_AT_ONCE)
            }),
    }
}

/// When a row was taken, as far as that is known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Wall clock, microseconds since 1970.
    pub(crate) wall_us: i64,
    /// Since the boot in which it was taken.
    pub(crate) monotonic_ns: i64,
    /// Whether that boot is this one.
    pub(crate) this_boot: bool,
    /// Whether the wall clock was right.
    pub(crate) synced: bool,
}

/// Whether a row is certainly older than `max_age`, whatever steps the wall clock has made.
///
/// `now` is of this boot. Between two boots only right wall clocks can be compared; without them
/// it is certain that the row is older than this boot.
pub(crate) fn is_expired(row: Taken, now: Taken, max_age: Duration) -> bool {
    let max_ns = i64::try_from(max_age.as_nanos()).unwrap_or(i64::MAX);
    let age_ns = if row.this_boot {
        now.monotonic_ns.saturating_sub(row.monotonic_ns)
    } else if row.synced && now.synced {
        now.wall_us.saturating_sub(row.wall_us).saturating_mul(1000)
    } else {
        now.monotonic_ns
    };
    age_ns > max_ns
}

/// Why messages are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Evicted to make room for newer or more important ones.
    Evicted,
    /// Left out because the buffer was full.
    Full,
    /// Over the quota of its rule.
    Quota,
    /// Older than `[buffer] max_age`.
    Expired,
    /// On a damaged part of the file.
    Damaged,
    /// The log that held the last commits is gone; how many is not known.
    LogLost,
    /// They may have waited in memory when the process ended; which of them, and how many, is not
    /// known.
    MemoryLost,
    /// The upstream will never take them.
    DeadLetter,
}

impl Reason {
    /// The word for it in the gap marker.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Evicted => "evicted",
            Reason::Full => "full",
            Reason::Quota => "quota",
            Reason::Expired => "expired",
            Reason::Damaged => "damaged",
            Reason::LogLost => "log-lost",
            Reason::MemoryLost => "memory-lost",
            Reason::DeadLetter => "dead-letter",
        }
    }
}

/// Messages of one topic that are missing for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) first_us: i64,
    pub(crate) last_us: i64,
    pub(crate) count: u64,
}

/// What left since the last commit, one span per topic and reason.
#[derive(Debug, Default)]
pub(crate) struct GapBook {
    spans: BTreeMap<(TopicName, Reason), Span>,
}

impl GapBook {
    /// Enters one message.
    pub(crate) fn enter(&mut self, topic: &TopicName, reason: Reason, seq: u64, wall_us: i64) {
        self.enter_span(
            topic,
            reason,
            Span {
                first_seq: seq,
                last_seq: seq,
                first_us: wall_us,
                last_us: wall_us,
                count: 1,
            },
        );
    }

    /// Enters several.
    pub(crate) fn enter_span(&mut self, topic: &TopicName, reason: Reason, span: Span) {
        self.spans
            .entry((topic.clone(), reason))
            .and_modify(|known| {
                known.first_seq = known.first_seq.min(span.first_seq);
                known.last_seq = known.last_seq.max(span.last_seq);
                known.first_us = known.first_us.min(span.first_us);
                known.last_us = known.last_us.max(span.last_us);
                known.count += span.count;
            })
            .or_insert(span);
    }

    /// Every span.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicName, Reason, &Span)> {
        self.spans
            .iter()
            .map(|((topic, reason), span)| (topic, *reason, span))
    }

    /// How many messages left for this reason.
    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.spans
            .iter()
            .filter(|((_, why), _)| *why == reason)
            .map(|(_, span)| span.count)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIGH: u64 = 10;

    fn rank(priority: Priority) -> Rank {
        Rank::of(priority)
    }

    #[test]
    fn the_lowest_priority_leaves_first() {
        let waiting = [HIGH, 5, 3];
        assert_eq!(
            verdict(WhenFull::DropOldest, rank(Priority::High), &waiting),
            Verdict::Evict(rank(Priority::Low), EVICTED_AT_ONCE)
        );
        assert_eq!(
            verdict(WhenFull::DropOldest, rank(Priority::High), &[HIGH, 5, 0]),
            Verdict::Evict(rank(Priority::Normal), EVICTED_AT_ONCE)
        );
    }

    #[test]
    fn a_message_never_evicts_one_of_higher_priority() {
        let waiting = [HIGH, 5, 0];
        assert_eq!(
            verdict(WhenFull::DropOldest, rank(Priority::Low), &waiting),
            Verdict::Drop
        );
        assert_eq!(
            verdict(WhenFull::DropOldest, rank(Priority::Normal), &[HIGH, 0, 0]),
            Verdict::Drop
        );
    }

    #[test]
    fn the_policies_that_keep_the_old_evict_nothing() {
        let waiting = [1, 1, 1];
        let high = rank(Priority::High);
        assert_eq!(verdict(WhenFull::DropNewest, high, &waiting), Verdict::Drop);
        assert_eq!(verdict(WhenFull::Refuse, high, &waiting), Verdict::Refuse);
    }

    #[test]
    fn age_is_measured_by_whichever_clock_can_be_trusted() {
        let hour = 3600 * 1_000_000_000_i64;
        let max_age = Duration::from_secs(2 * 3600);
        let now = Taken {
            wall_us: 100 * hour / 1000,
            monotonic_ns: 3 * hour,
            this_boot: true,
            synced: true,
        };
        let row = |wall, monotonic, this_boot, synced| Taken {
            wall_us: wall * hour / 1000,
            monotonic_ns: monotonic * hour,
            this_boot,
            synced,
        };
        for (taken, now, expired, why) in [
            (row(0, 2, true, false), now, false, "the wall clock stepped"),
            (row(100, 0, true, true), now, true, "and stepped back"),
            (row(99, 50, false, true), now, false, "two right clocks"),
            (row(97, 50, false, true), now, true, "two right clocks"),
            (row(99, 50, false, false), now, true, "up for three hours"),
            (
                row(0, 50, false, false),
                row(100, 1, true, true),
                false,
                "up for one hour",
            ),
        ] {
            assert_eq!(is_expired(taken, now, max_age), expired, "{why}");
        }
    }

    #[test]
    fn no_step_of_the_wall_clock_makes_a_row_of_this_boot_older_or_younger() {
        let second = 1_000_000_000_i64;
        let max_age = Duration::from_secs(60);
        let year_us = 365 * 86_400_000_000_i64;
        for step in [
            i64::MIN,
            -40 * year_us,
            -3_600_000_000,
            0,
            40 * year_us,
            i64::MAX,
        ] {
            for synced in [true, false] {
                let row = Taken {
                    wall_us: 0,
                    monotonic_ns: 100 * second,
                    this_boot: true,
                    synced,
                };
                let now = |seconds: i64| Taken {
                    wall_us: step,
                    monotonic_ns: (100 + seconds) * second,
                    this_boot: true,
                    synced: true,
                };
                assert!(!is_expired(row, now(60), max_age), "step {step}");
                assert!(is_expired(row, now(61), max_age), "step {step}");
            }
        }
    }

    #[test]
    fn rows_sort_by_priority_then_age() {
        let mut rows = [
            rank(Priority::Low).row(1),
            rank(Priority::High).row(9),
            rank(Priority::Normal).row(3),
            rank(Priority::Normal).row(2),
        ];
        rows.sort_unstable();
        assert_eq!(rows.map(order_of), [9, 2, 3, 1]);
        assert_eq!(Rank::of_row(rows[3]), rank(Priority::Low));
    }

    #[test]
    fn a_gap_says_first_last_and_how_many() {
        let topic = TopicName::parse("telemetry/a").unwrap();
        let mut book = GapBook::default();
        for seq in [7, 8, 10] {
            book.enter(&topic, Reason::Evicted, seq, seq as i64 * 1000);
        }
        let spans: Vec<_> = book.iter().map(|(_, _, span)| *span).collect();
        assert_eq!(
            spans,
            [Span {
                first_seq: 7,
                last_seq: 10,
                first_us: 7000,
                last_us: 10_000,
                count: 3
            }]
        );
        assert_eq!(book.count(Reason::Evicted), 3);
        assert_eq!(book.count(Reason::Full), 0);
    }
}
