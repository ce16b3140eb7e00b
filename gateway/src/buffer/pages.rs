//! What is read of memory and of the disk, as if it were one file.
//!
//! Invariant: a page goes no further than both of its sources were read, so that nothing is left
//! out between them. Layer: core.

use std::collections::HashMap;

use broker_lite::topic::TopicName;

use super::{
    retention::{self, Rank, Stretch},
    row::{Page, Row, Survey},
    stage,
};

/// The rows of a stretch from the disk and those from memory; rows from `horizon` on come later.
pub(super) fn join(
    on_disk: Page,
    staged: Vec<Row>,
    horizon: i64,
    stretch: &Stretch,
    max_bytes: usize,
) -> Page {
    let all_before = |rows: &[Row]| {
        let mut orders = rows.iter().map(|row| retention::order_of(row.id));
        orders.all(|order| order < horizon)
    };
    if staged.is_empty() && all_before(&on_disk.rows) {
        return on_disk;
    }
    let mut joined = Page {
        reached: stretch.after,
        ..Page::default()
    };
    let (mut there, mut here) = (on_disk.rows, staged);
    for rank in Rank::all().filter(|rank| stretch.rows[rank.index()] > 0) {
        let is_of_rank = |row: &Row| Rank::of_row(row.id) == rank;
        let (there_of_rank, rest) = there.into_iter().partition(is_of_rank);
        there = rest;
        let (mut here_of_rank, rest): (Vec<_>, _) = here.into_iter().partition(is_of_rank);
        here = rest;
        let disk_ended = on_disk.ended[rank.index()];
        if !disk_ended {
            let reached = on_disk.reached.position(rank);
            here_of_rank.retain(|row| row.id <= reached);
        }
        let wanted = stretch.rows[rank.index()];
        let beyond = |row: &Row| retention::order_of(row.id) >= horizon;
        let some_later = there_of_rank.iter().any(beyond);
        let merged = stage::merge(here_of_rank, there_of_rank, horizon, wanted, max_bytes);
        let bytes: usize = merged.iter().map(|row| row.payload.len()).sum();
        let cut = merged.len() >= wanted || bytes >= max_bytes;
        merged.iter().for_each(|row| joined.reached.pass(row.id));
        if !cut && !some_later {
            joined.reached.advance_in(rank, &on_disk.reached);
        }
        joined.ended[rank.index()] = disk_ended && !cut;
        joined.rows.extend(merged);
    }
    joined
}

/// What waits on disk and in memory.
pub(super) fn survey<'a>(
    on_disk: Survey,
    staged: impl Iterator<Item = (i64, &'a TopicName)>,
    horizon: i64,
) -> Survey {
    let mut until = on_disk.until;
    let mut waiting: HashMap<TopicName, i64> = on_disk.waiting.into_iter().collect();
    for (row, topic) in staged {
        until.pass(row);
        let last = waiting.entry(topic.clone()).or_insert(row);
        *last = (*last).max(row);
    }
    until.keep_below(horizon);
    Survey {
        until,
        waiting: waiting.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use broker_lite::packet::QoS;
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::{
        buffer::retention::{Cursor, RANKS},
        config::Priority,
        reading::ClockState,
    };

    #[test]
    fn a_page_goes_no_further_than_the_disk_was_read() {
        let on_disk = page(&[1, 2], 2, false);
        let joined = join(on_disk, rows(&[2, 3]), 100, &stretch(2), usize::MAX);
        assert_eq!(orders(&joined), [1, 2]);
        assert_eq!(joined.reached.position(Rank::default()), row(2).id);
        assert!(!joined.ended[1]);
    }

    #[test]
    fn a_page_that_ends_has_all_of_both_once() {
        let on_disk = page(&[1, 4], 4, true);
        let joined = join(on_disk, rows(&[3, 4, 6]), 100, &stretch(9), usize::MAX);
        assert_eq!(orders(&joined), [1, 3, 4, 6]);
        assert!(joined.ended[1]);
    }

    #[test]
    fn rows_beyond_the_horizon_are_not_passed() {
        let on_disk = page(&[1, 8], 8, true);
        let joined = join(on_disk, rows(&[2]), 5, &stretch(9), usize::MAX);
        assert_eq!(orders(&joined), [1, 2]);
        assert_eq!(joined.reached.position(Rank::default()), row(2).id);
    }

    #[test]
    fn a_survey_counts_what_is_in_memory_and_stops_at_the_horizon() {
        let topic = |name: &str| TopicName::parse(name).unwrap();
        let mut until = Cursor::default();
        until.pass(row(9).id);
        let on_disk = Survey {
            until,
            waiting: vec![(topic("a"), row(3).id), (topic("b"), row(9).id)],
        };
        let (a, c) = (topic("a"), topic("c"));
        let staged = [(row(5).id, &a), (row(6).id, &c)];
        let all = survey(on_disk, staged.into_iter(), 8);
        assert_eq!(all.until.position(Rank::default()), row(7).id);
        let mut waiting = all.waiting;
        waiting.sort();
        let expected = [("a", 5), ("b", 9), ("c", 6)];
        assert_eq!(
            waiting,
            expected.map(|(name, order)| (topic(name), row(order).id))
        );
    }

    fn stretch(rows: usize) -> Stretch {
        let mut wanted = [0; RANKS];
        wanted[Rank::of(Priority::Normal).index()] = rows;
        Stretch {
            after: Cursor::default(),
            until: None,
            rows: wanted,
        }
    }

    fn page(orders: &[i64], reached: i64, ended: bool) -> Page {
        let mut page = Page {
            rows: rows(orders),
            ended: [ended; RANKS],
            ..Page::default()
        };
        page.reached.pass(row(reached).id);
        page
    }

    fn rows(orders: &[i64]) -> Vec<Row> {
        orders.iter().map(|order| row(*order)).collect()
    }

    fn orders(page: &Page) -> Vec<i64> {
        page.rows
            .iter()
            .map(|row| retention::order_of(row.id))
            .collect()
    }

    fn row(order: i64) -> Row {
        Row {
            id: Rank::default().row(order),
            topic: TopicName::parse("t").unwrap(),
            seq: 0,
            qos: QoS::AtMostOnce,
            retain: false,
            received: Timestamp::UNIX_EPOCH,
            clock: ClockState::Synced,
            properties: None,
            payload: Bytes::from_static(b"0123456789"),
        }
    }
}
