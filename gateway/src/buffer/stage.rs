//! Rows that wait in memory for the upstream, beside those on disk.
//!
//! Invariant: what is held is bounded in rows and bytes, and a row leaves only when the upstream
//! has it or the disk. Layer: core.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    ops::Bound,
    time::{Duration, Instant},
};

use super::{
    retention::{self, RANKS, Rank, Stretch},
    row::Row,
};

/// Rows held at most, however small: what one spill takes to disk in a second or two.
pub(crate) const MAX_ROWS: usize = 50_000;
/// Bytes that a row takes in memory beside its topic and its content.
pub(crate) const ROW_OVERHEAD: usize = 256;

/// How much is held, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StageLimits {
    /// Content, topics and [`ROW_OVERHEAD`] for each row.
    pub(crate) bytes: usize,
    /// Longest that a row waits while the link is up.
    pub(crate) age: Duration,
    /// Longest that a row waits while it is not.
    pub(crate) age_offline: Duration,
}

/// See the module's description; `T` is what a row holds.
#[derive(Debug)]
pub(crate) struct Stage<T> {
    limits: StageLimits,
    rows: BTreeMap<i64, Held<T>>,
    bytes: usize,
    /// Rows up to this one are being written to disk.
    landing: Option<i64>,
    /// See [`Self::horizon`].
    horizon: i64,
}

#[derive(Debug)]
struct Held<T> {
    content: T,
    cost: usize,
    since: Instant,
}

impl<T: Clone> Stage<T> {
    pub(crate) fn new(limits: StageLimits) -> Stage<T> {
        Stage {
            limits,
            rows: BTreeMap::new(),
            bytes: 0,
            landing: None,
            horizon: i64::MAX,
        }
    }

    /// Whether a row of this cost still fits.
    pub(crate) fn has_room(&self, cost: usize) -> bool {
        self.rows.len() < MAX_ROWS && self.bytes + cost <= self.limits.bytes
    }

    /// Takes a row in.
    pub(crate) fn put(&mut self, row: i64, content: T, cost: usize, now: Instant) {
        let held = Held {
            content,
            cost,
            since: now,
        };
        self.bytes += cost;
        if let Some(before) = self.rows.insert(row, held) {
            self.bytes -= before.cost;
        }
    }

    /// The upstream has it: tells whether that was all. If not, it is on disk or on its way there.
    pub(crate) fn forward(&mut self, row: i64) -> bool {
        let lands = self.landing.is_some_and(|through| row <= through);
        !lands && self.remove(row)
    }

    pub(crate) fn contains(&self, row: i64) -> bool {
        self.rows.contains_key(&row)
    }

    /// Rows of a stretch, of each rank as many as asked for.
    pub(crate) fn within(&self, stretch: &Stretch) -> impl Iterator<Item = (i64, &T)> {
        let ranks = Rank::all().flat_map(|rank| {
            let (after, until) = (stretch.after.position(rank), stretch.until(rank));
            let bounds = (Bound::Excluded(after), Bound::Included(until.max(after)));
            let within = after < until;
            let rows = stretch.rows[rank.index()];
            self.rows.range(bounds).filter(move |_| within).take(rows)
        });
        ranks.map(|(row, held)| (*row, &held.content))
    }

    /// All rows, by rank.
    pub(crate) fn all(&self) -> impl Iterator<Item = (i64, &T)> {
        self.rows.iter().map(|(row, held)| (*row, &held.content))
    }

    /// How many rows are held.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The first rows, which are now being written to disk, at least one if there is one.
    pub(crate) fn land(&mut self, rows: usize, bytes: usize) -> Vec<(i64, T)> {
        let mut taken = 0;
        let first = self.rows.iter().take(rows).take_while(|(_, held)| {
            let fits = taken < bytes;
            taken += held.cost;
            fits
        });
        let first: Vec<_> = first
            .map(|(row, held)| (*row, held.content.clone()))
            .collect();
        self.landing = first.last().map(|(row, _)| *row);
        first
    }

    /// They are on disk, or they are not.
    pub(crate) fn landed(&mut self, on_disk: bool) {
        let through = self.landing.take();
        if let Some(through) = through.filter(|_| on_disk) {
            while let Some(row) = self
                .rows
                .keys()
                .next()
                .copied()
                .filter(|row| *row <= through)
            {
                self.remove(row);
            }
        }
    }

    /// When the first row has to go to disk.
    pub(crate) fn due(&self, link_is_up: bool) -> Option<Instant> {
        let age = if link_is_up {
            self.limits.age
        } else {
            self.limits.age_offline
        };
        let oldest = Rank::all().filter_map(|rank| {
            let (first, last) = rank.rows();
            self.rows.range(first..=last).next()
        });
        oldest.map(|(_, held)| held.since + age).min()
    }

    /// Rows held of each rank.
    pub(crate) fn waiting(&self) -> [u64; RANKS] {
        let mut waiting = [0; RANKS];
        for row in self.rows.keys() {
            waiting[Rank::of_row(*row).index()] += 1;
        }
        waiting
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The content of the first row of each rank.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = &T> {
        Rank::all().filter_map(|rank| {
            let (first, last) = rank.rows();
            let held = self.rows.range(first..=last).next();
            held.map(|(_, held)| &held.content)
        })
    }

    /// Every row of a lower order is here, on disk or gone; of those above, one may be on disk before
    /// another is here, and a reader that saw the first would never come back for the second.
    pub(crate) fn horizon(&self) -> i64 {
        self.horizon
    }

    /// Orders below this are given to rows that are here or on disk.
    pub(crate) fn set_horizon(&mut self, order: i64) {
        self.horizon = order;
    }

    fn remove(&mut self, row: i64) -> bool {
        let held = self.rows.remove(&row);
        self.bytes -= held.as_ref().map_or(0, |held| held.cost);
        held.is_some()
    }
}

/// Rows from memory and from disk as one list in sending order, each once.
///
/// Both lists go on beyond what they hold only where they are as long as asked for, so that the
/// first rows of both together leave none out.
pub(crate) fn merge(
    staged: Vec<Row>,
    on_disk: Vec<Row>,
    horizon: i64,
    max_rows: usize,
    max_bytes: usize,
) -> Vec<Row> {
    let mut on_disk = on_disk
        .into_iter()
        .filter(|row| retention::order_of(row.id) < horizon)
        .peekable();
    let mut staged = staged.into_iter().peekable();
    let (mut merged, mut bytes) = (Vec::new(), 0);
    while merged.len() < max_rows && bytes < max_bytes {
        let order = match (staged.peek(), on_disk.peek()) {
            (Some(here), Some(there)) => here.id.cmp(&there.id),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let next = match order {
            Ordering::Less => staged.next(),
            Ordering::Greater => on_disk.next(),
            Ordering::Equal => {
                staged.next();
                on_disk.next()
            }
        };
        if let Some(row) = next {
            bytes += row.payload.len();
            merged.push(row);
        }
    }
    merged
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need some instant")]
mod tests {
    use broker_lite::{packet::QoS, topic::TopicName};
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::{config::Priority, reading::ClockState};

    fn stage(bytes: usize) -> Stage<&'static str> {
        Stage::new(StageLimits {
            bytes,
            age: Duration::from_secs(30),
            age_offline: Duration::from_secs(5),
        })
    }

    fn normal(order: i64) -> i64 {
        Rank::of(Priority::Normal).row(order)
    }

    fn row(id: i64) -> Row {
        Row {
            id,
            topic: TopicName::parse("t").expect("a topic"),
            seq: 0,
            qos: QoS::AtMostOnce,
            retain: false,
            received: Timestamp::UNIX_EPOCH,
            clock: ClockState::Synced,
            properties: None,
            payload: Bytes::from_static(b"0123456789"),
        }
    }

    fn ids(rows: &[Row]) -> Vec<i64> {
        rows.iter().map(|row| row.id).collect()
    }

    #[test]
    fn rows_and_bytes_are_bounded() {
        let now = Instant::now();
        let mut small = stage(100);
        small.put(normal(1), "", 60, now);
        assert!(small.has_room(40) && !small.has_room(41));
        assert!(small.forward(normal(1)));
        assert!(small.has_room(100), "what has left takes no room");

        let mut many = stage(usize::MAX);
        for order in 0..MAX_ROWS as i64 {
            many.put(normal(order), "", 0, now);
        }
        assert!(!many.has_room(0));
    }

    #[test]
    fn the_oldest_decides_when_memory_goes_to_disk_and_sooner_without_a_link() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut stage = stage(1000);
        assert_eq!(stage.due(true), None);
        stage.put(normal(1), "old", 1, now);
        stage.put(Rank::of(Priority::High).row(2), "new", 1, now + 3 * second);
        assert_eq!(stage.due(true), Some(now + 30 * second));
        assert_eq!(stage.due(false), Some(now + 5 * second));
        stage.forward(normal(1));
        assert_eq!(stage.due(true), Some(now + 33 * second));
    }

    #[test]
    fn a_row_forwarded_while_it_is_written_is_deleted_on_disk_too() {
        let mut stage = stage(1000);
        for order in 1..=3 {
            stage.put(normal(order), "x", 1, Instant::now());
        }
        let landing = stage.land(2, usize::MAX);
        assert_eq!(landing.len(), 2);
        assert!(!stage.forward(normal(2)), "it is on its way to disk");
        assert!(stage.forward(normal(3)), "this one is not");
        stage.landed(false);
        assert!(stage.forward(normal(2)), "nothing came of it");
        assert_eq!(stage.land(9, usize::MAX).len(), 1);
        stage.landed(true);
        assert_eq!((stage.waiting().iter().sum::<u64>(), stage.bytes()), (0, 0));
    }

    #[test]
    fn memory_and_disk_are_read_as_one_each_row_once() {
        let here = || vec![row(2), row(5), row(6)];
        let there = || vec![row(1), row(2), row(4), row(9)];
        let all = merge(here(), there(), i64::MAX, 100, usize::MAX);
        assert_eq!(ids(&all), [1, 2, 4, 5, 6, 9]);
        assert_eq!(
            ids(&merge(here(), there(), i64::MAX, 3, usize::MAX)),
            [1, 2, 4]
        );
        assert_eq!(ids(&merge(here(), there(), i64::MAX, 100, 15)), [1, 2]);
        let all = merge(here(), there(), 9, 100, usize::MAX);
        assert_eq!(
            ids(&all),
            [1, 2, 4, 5, 6],
            "a row beyond the horizon comes later"
        );
    }
}
