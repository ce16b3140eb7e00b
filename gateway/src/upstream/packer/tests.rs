//! The packer's promises, with an upstream in memory that refuses what it does not like.
//! The tests are the core's driver.
#![expect(clippy::disallowed_methods, reason = "tests measure time")]

use std::{collections::BTreeSet, time::Duration};

use broker_lite::packet::QoS;
use proptest::prelude::*;
use settings::{Period, Size};

use super::{super::outbound::Origin, super::outbound::Packing, *};
use crate::{config::Compression, reading::ClockState};

const LINK: Allowance = Allowance {
    receive_maximum: u16::MAX,
    maximum_packet: None,
    maximum_qos: QoS::ExactlyOnce,
    retain_available: true,
};

#[test]
fn a_full_batch_goes_at_once_and_the_rest_when_its_time_has_come() {
    let mut bench = Bench::new(4, batches(3, 1_000));
    bench.push(0..7);
    assert_eq!(bench.sent(), [vec![0, 1, 2], vec![3, 4, 5]]);
    let due = bench.packer.poll_timeout().unwrap();
    assert_eq!(due, bench.now + Duration::from_secs(1));
    bench.packer.handle_timeout(due - Duration::from_millis(1));
    assert!(bench.packer.poll_packet().is_none());
    bench.packer.handle_timeout(due);
    assert_eq!(bench.sent(), [vec![6]]);
    assert_eq!(bench.packer.poll_timeout(), None);
}

#[test]
fn a_packet_costs_what_it_weighs_and_not_what_is_in_it() {
    let mut bench = Bench::new(4, batches(3, 1_000));
    bench.push(0..3);
    let packets: Vec<_> = std::iter::from_fn(|| bench.packer.poll_packet()).collect();
    let length = packets[0].1.wire_len() as u64;
    assert_eq!(bench.packer.take_spent(), budget::cost(length, true));
    assert_eq!(bench.packer.take_spent(), 0);
}

#[test]
fn a_row_is_answered_only_when_its_batch_is() {
    let mut bench = Bench::new(4, batches(2, 1_000));
    bench.push(0..4);
    let tickets = bench.take();
    assert!(bench.packer.poll_answer().is_none());
    bench.packer.answered(tickets[1].0, Answer::Acknowledged);
    assert_eq!(bench.answers(), [(2, true), (3, true)]);
    bench.packer.answered(tickets[0].0, Answer::Acknowledged);
    bench.packer.answered(tickets[0].0, Answer::Acknowledged);
    assert_eq!(bench.answers(), [(0, true), (1, true)]);
}

#[test]
fn a_refused_batch_is_halved_until_the_message_at_fault_is_alone() {
    let mut bench = Bench::new(2, batches(10, 100_000));
    bench.push(0..10);
    let mut packets = 0;
    let mut answers = Vec::new();
    loop {
        let taken = bench.take();
        if taken.is_empty() {
            break;
        }
        for (ticket, rows) in taken {
            packets += 1;
            let answer = match rows.contains(&7) {
                true => Answer::Never("payload format invalid".to_owned()),
                false => Answer::Acknowledged,
            };
            bench.packer.answered(ticket, answer);
        }
        answers.extend(bench.answers());
    }
    answers.sort_unstable();
    let expected: Vec<_> = (0..10).map(|row| (row, row != 7)).collect();
    assert_eq!(answers, expected);
    assert!(packets <= 9, "{packets} packets to find one of ten");
}

#[test]
fn a_batch_ends_before_it_grows_beyond_its_bytes() {
    let mut bench = Bench::new(100, batches(1_000, 2_000));
    bench.push(0..100);
    for (_, packet) in std::iter::from_fn(|| bench.packer.poll_packet()) {
        assert!(packet.payload.len() <= 2_000, "{}", packet.payload.len());
    }
}

#[test]
fn a_batch_too_large_for_the_upstream_is_divided_and_one_message_too_large_is_refused() {
    let mut bench = Bench::new(100, batches(8, 1_000_000));
    let maximum_packet = Some(400);
    bench.packer.link_up(&Allowance {
        maximum_packet,
        ..LINK
    });
    bench.push(0..7);
    let mut large = bench.message(7);
    large.payload = Bytes::from(vec![b'x'; 500]);
    bench.packer.push(large, bench.now);
    let sent: Vec<_> = bench.sent().into_iter().flatten().collect();
    assert_eq!(sent, [0, 1, 2, 3, 4, 5, 6], "in their order");
    assert_eq!(bench.answers(), [(7, false)]);
}

#[test]
fn no_more_packets_are_under_way_than_the_window_takes() {
    let mut bench = Bench::new(3, batches(1, 1_000));
    bench.push(0..5);
    let first = bench.take();
    assert_eq!(first.len(), 3);
    bench.packer.answered(first[1].0, Answer::Acknowledged);
    assert!(
        bench.take().is_empty(),
        "counted from the oldest unanswered"
    );
    bench.packer.answered(first[0].0, Answer::Acknowledged);
    assert_eq!(bench.take().len(), 2);
}

#[test]
fn after_a_lost_link_nothing_of_it_is_left() {
    let mut bench = Bench::new(2, batches(2, 1_000));
    bench.push(0..7);
    let before = bench.take();
    bench.packer.link_down();
    bench.packer.link_up(&LINK);
    assert_eq!(bench.packer.poll_timeout(), None);
    bench.packer.answered(before[0].0, Answer::Acknowledged);
    assert!(bench.answers().is_empty());
    bench.push(0..2);
    assert_eq!(bench.sent(), [vec![0, 1]]);
}

#[test]
fn many_topics_with_few_messages_each_do_not_wait_for_one_another() {
    let mut bench = Bench::new(100, batches(100, 100_000));
    for row in 0..100 {
        let mut message = bench.message(row);
        message.topic = TopicName::parse(&format!("up/{row}")).unwrap();
        bench.packer.push(message, bench.now);
    }
    assert!(
        bench.sent().len() > 50,
        "those that waited longest have gone"
    );
}

#[test]
fn a_compressed_message_says_so_and_can_be_read_again() {
    let mut bench = Bench::new(100, None);
    let mut message = bench.message(0);
    message.payload = Bytes::from("1234567890".repeat(100));
    let packing = message.packing.as_mut().unwrap();
    packing.compress = Some(Compression::Zstd);
    bench.packer.push(message.clone(), bench.now);
    let (_, packet) = bench.packer.poll_packet().unwrap();
    assert!(packet.payload.len() < 100);
    let back = zstd::bulk::decompress(&packet.payload, 2_000).unwrap();
    assert_eq!(back, message.payload);
    let users: Vec<_> = packet.properties.user_properties.iter().collect();
    assert_eq!(users, [("content-encoding", "zstd")]);
}

#[test]
fn rows_under_way_follow_the_largest_batch_within_bounds() {
    let rule = |messages| Forward {
        batch: Some(Batch {
            messages,
            ..Batch::default()
        }),
        ..Forward::example("a/#")
    };
    assert_eq!(rows_under_way(100, &[]), 100);
    assert_eq!(rows_under_way(100, &[rule(10), rule(50)]), 500);
    assert_eq!(rows_under_way(100, &[rule(1_000)]), MAX_ROWS);
    assert_eq!(rows_under_way(u16::MAX, &[rule(1_000)]), u16::MAX);
}

proptest! {
    /// Whatever an upstream refuses, each message gets one answer, and only those at fault are given up.
    #[test]
    fn each_message_gets_one_answer(
        messages in 1_u16..20,
        window in 1_u16..5,
        count in 1_i64..80,
        poison in prop::collection::btree_set(0_i64..80, 0..6),
        mut choices in prop::collection::vec(any::<u8>(), 400),
    ) {
        let mut bench = Bench::new(window, batches(messages, 100_000));
        bench.push(0..count);
        bench.packer.handle_timeout(bench.now + Duration::from_secs(1));
        let (mut under_way, mut answers) = (Vec::new(), Vec::new());
        loop {
            under_way.extend(bench.take());
            prop_assert!(under_way.len() <= usize::from(window));
            if under_way.is_empty() {
                break;
            }
            let chosen = usize::from(choices.pop().unwrap_or(0)) % under_way.len();
            let (ticket, rows) = under_way.swap_remove(chosen);
            let answer = match rows.iter().any(|row| poison.contains(row)) {
                true => Answer::Never("no".to_owned()),
                false => Answer::Acknowledged,
            };
            bench.packer.answered(ticket, answer);
            answers.extend(bench.answers());
        }
        prop_assert_eq!(answers.len() as i64, count);
        let refused: BTreeSet<_> = answers.iter().filter(|(_, taken)| !taken).map(|(row, _)| *row).collect();
        let expected: BTreeSet<_> = poison.into_iter().filter(|row| *row < count).collect();
        prop_assert_eq!(refused, expected);
    }
}

/// A packer and what is pushed into it.
struct Bench {
    packer: Packer,
    batch: Option<Batch>,
    now: Instant,
}

impl Bench {
    fn new(window: u16, batch: Option<Batch>) -> Bench {
        let mut packer = Packer::new(window, 100);
        packer.link_up(&LINK);
        Bench {
            packer,
            batch,
            now: Instant::now(),
        }
    }

    fn message(&self, row: i64) -> Outbound {
        let topic = TopicName::parse("up").unwrap();
        let origin = Origin {
            topic: topic.clone(),
            seq: row as u64,
            received: jiff::Timestamp::UNIX_EPOCH,
            clock: ClockState::Synced,
        };
        Outbound {
            packing: Some(Box::new(Packing {
                batch: self.batch,
                compress: None,
                origin,
            })),
            ..Outbound::new(Key::Row(row), topic, row.to_string())
        }
    }

    fn push(&mut self, rows: std::ops::Range<i64>) {
        for row in rows {
            self.packer.push(self.message(row), self.now);
        }
    }

    /// Packets that are sent now, with the rows that they hold.
    fn take(&mut self) -> Vec<(Ticket, Vec<i64>)> {
        let packets = std::iter::from_fn(|| self.packer.poll_packet());
        packets
            .map(|(ticket, packet)| {
                let entries: Vec<serde_json::Value> =
                    serde_json::from_slice(&packet.payload).unwrap();
                let rows = entries.iter().map(|entry| entry["seq"].as_i64().unwrap());
                (ticket, rows.collect())
            })
            .collect()
    }

    fn sent(&mut self) -> Vec<Vec<i64>> {
        self.take().into_iter().map(|(_, rows)| rows).collect()
    }

    /// Rows that were answered, and whether they were taken.
    fn answers(&mut self) -> Vec<(i64, bool)> {
        let answers = std::iter::from_fn(|| self.packer.poll_answer());
        answers
            .map(|(key, answer)| match key {
                Key::Row(row) => (row, answer == Answer::Acknowledged),
                _ => panic!("only rows went in"),
            })
            .collect()
    }
}

fn batches(messages: u16, bytes: u64) -> Option<Batch> {
    Some(Batch {
        messages,
        bytes: Size::from_bytes(bytes),
        delay: Period::from_secs(1),
    })
}
