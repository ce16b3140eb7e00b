//! What the buffer promises: order, numbering and receipts.

use super::*;

#[test]
fn a_proof_is_answered_once_it_is_on_disk_and_never_by_a_closed_buffer() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    let proof = buffer.prove().expect("the buffer takes it");
    assert_eq!(proof.blocking_recv(), Ok(Settled::default()));
    assert_eq!(buffer.status().rows, 0);
    buffer.0.close();
    assert!(buffer.prove().is_none());
}

#[test]
fn what_was_committed_is_read_back_in_order() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    let topic = TopicName::parse("telemetry/a/x").unwrap();
    let mut properties = MessageProperties::default();
    properties.user_properties.push("site", "7").unwrap();
    let message = Message {
        properties: Some(Arc::new(properties.clone())),
        ..Message::new(topic.clone(), &b"one"[..]).retained()
    };
    assert_eq!(keep_message(&buffer, &message), Kept::Committed);
    assert_eq!(keep(&buffer, "telemetry/a/x", b"two"), Kept::Committed);

    let rows = read_all(&buffer);
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].seq, &rows[0].payload[..]), (1, &b"one"[..]));
    assert_eq!((rows[1].seq, &rows[1].payload[..]), (2, &b"two"[..]));
    assert_eq!(rows[0].properties, Some(properties));
    assert!(rows[0].retain && !rows[1].retain);
    assert_eq!(buffer.status().appended, 2);
}

#[test]
fn a_topic_keeps_its_numbering_when_its_rows_are_gone_and_over_restarts() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a/x", b"1");
    keep(&buffer, "telemetry/a/x", b"2");
    buffer.delete(read_all(&buffer).iter().map(|row| row.id));
    wait_until(|| buffer.status().rows == 0);
    buffer.0.close();

    let buffer = fixture.open();
    let topic = TopicName::parse("telemetry/a/x").unwrap();
    assert_eq!(buffer.sequences(), HashMap::from([(topic.clone(), 2)]));
    keep(&buffer, "telemetry/a/x", b"3");
    let own = Message::new(topic, &b"9"[..]).numbered(9);
    keep_message(&buffer, &own);
    let numbers: Vec<_> = read_all(&buffer).iter().map(|row| row.seq).collect();
    assert_eq!(numbers, [3, 9]);
}

#[test]
fn the_receipt_waits_for_the_group_commit() {
    let fixture = Fixture::with(|config| config.commit_delay = Period::from_millis(150));
    let buffer = fixture.open();
    let started = Instant::now();
    let answers: Vec<_> = (0..10)
        .map(|_| keep_later(&buffer, "telemetry/a", b"x"))
        .collect();
    for answer in answers {
        assert_eq!(answer.recv_timeout(PATIENCE), Ok(Kept::Committed));
    }
    assert!(
        started.elapsed() >= Duration::from_millis(150),
        "answered before the commit"
    );
    // One commit for all ten: the watch counts commits, after the one of opening.
    assert_eq!(*buffer.appended().borrow(), 2);
}

#[test]
fn high_priority_is_read_first_and_order_within_a_topic_outlives_a_change_of_priority() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"1");
    keep(&buffer, "alert/a", b"2");
    let names = |rows: &[Row]| {
        rows.iter()
            .map(|row| row.topic.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&read_all(&buffer)), ["alert/a", "telemetry/a"]);

    buffer.set_rules(&[rule("#", Priority::High)]);
    keep(&buffer, "telemetry/a", b"3");
    keep(&buffer, "telemetry/b", b"4");
    let payloads: Vec<_> = read_all(&buffer)
        .iter()
        .map(|row| row.payload.clone())
        .collect();
    assert_eq!(payloads, ["2", "4", "1", "3"]);
}

#[test]
fn a_topic_that_no_rule_matches_is_not_wanted() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    assert!(!buffer.wants(&TopicName::parse("local/a").unwrap()));
    assert!(buffer.wants(&TopicName::parse("telemetry/a").unwrap()));
}

#[test]
fn steps_of_the_wall_clock_by_hours_or_years_disturb_neither_order_nor_numbers_nor_age() {
    let fixture = Fixture::with(|config| config.max_age = Some(Period::from_secs(3600)));
    let buffer = fixture.open();
    let now = buffer.0.shared.clock.stamp();
    let hour_us = 3_600_000_000_i64;
    let year_us = 8766 * hour_us;
    let keep_at = |step_us: i64, age_s: i64, clock| {
        let stamp = clock::RowStamp {
            wall_us: now.wall_us + step_us,
            monotonic_ns: now.monotonic_ns - age_s * 1_000_000_000,
            clock,
        };
        let entry = Entry {
            stamp,
            ..entry(&buffer, "telemetry/a")
        };
        buffer.0.shared.inbox.keep(entry);
    };
    // Two hours old, though the wall clock says that they are yet to come.
    keep_at(10 * year_us, 7200, ClockState::Synced);
    keep_at(10 * year_us, 7200, ClockState::Unsynced);
    let steps = [
        0,
        30 * year_us,
        -30 * year_us,
        5 * hour_us,
        -5 * hour_us,
        year_us,
    ];
    for step in steps {
        keep_at(step, 1, ClockState::Synced);
        keep_at(step, 1, ClockState::Unsynced);
    }
    wait_until(|| buffer.status().expired == 2);
    let rows = read_all(&buffer);
    let numbers: Vec<_> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(numbers, (3..=14).collect::<Vec<_>>());
    assert_eq!(buffer.status().rows, 12, "none of these is too old");

    buffer.delete(rows.iter().map(|row| row.id));
    wait_until(|| buffer.status().rows == 0);
    keep(&buffer, "telemetry/a", b"next");
    assert_eq!(read_all(&buffer)[0].seq, 15);
}

#[test]
fn the_time_of_a_right_clock_outlives_a_restart() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    let hour = Duration::from_secs(3600);
    let at = |wall_us, clock| Entry {
        stamp: clock::RowStamp {
            wall_us,
            monotonic_ns: 0,
            clock,
        },
        ..entry(&buffer, "telemetry/a")
    };
    let time: Timestamp = "2026-11-22T11:00:00Z".parse().unwrap();
    buffer
        .0
        .shared
        .inbox
        .keep(at(time.as_microsecond(), ClockState::Synced));
    wait_until(|| buffer.clock_floor() == time);
    let wrong = (time + 50 * hour).as_microsecond();
    buffer.0.shared.inbox.keep(at(wrong, ClockState::Unsynced));
    wait_until(|| buffer.status().rows == 2);
    buffer.0.close();
    assert_eq!(fixture.open().clock_floor(), time);
}

#[test]
fn a_message_that_will_never_be_taken_moves_to_the_dead_letters() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"poison");
    let row = read_all(&buffer)[0].id;
    buffer.bury(row, "topic name invalid");
    wait_until(|| buffer.status().dead_letters == 1);
    assert!(read_all(&buffer).is_empty());
    let connection = rusqlite::Connection::open(&fixture.config.path).unwrap();
    let found: (String, Vec<u8>) = connection
        .query_row("SELECT reason, payload FROM dead_letter", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(found, ("topic name invalid".to_owned(), b"poison".to_vec()));
}
