//! What the buffer promises of memory-first rules: what touches the disk and when, and that order,
//! numbers and what was acknowledged hold all the same.

use super::*;

/// A buffer whose rule lets `telemetry/#` wait in memory, for ever unless something else is said.
fn memory_first(change: impl FnOnce(&mut config::Buffer)) -> Fixture {
    Fixture::with(|config| {
        config.spill_after = Period::from_secs(3600);
        config.spill_offline_after = Period::from_secs(3600);
        change(config);
    })
}

fn open(fixture: &Fixture) -> Buffer {
    let rules = [
        Forward {
            store: Store::MemoryFirst,
            ..rule("telemetry/#", Priority::Normal)
        },
        rule("alert/#", Priority::High),
        rule("result/#", Priority::Normal),
    ];
    Buffer::open(&fixture.config, &rules).unwrap()
}

fn telemetry(buffer: &Buffer, topic: &str, payload: &str) {
    let topic = TopicName::parse(topic).unwrap();
    let message = Message::new(topic, payload.as_bytes().to_vec()).with_qos(QoS::AtMostOnce);
    assert_eq!(keep_message(buffer, &message), Kept::Committed);
}

/// Messages of which nothing is on disk, behind a first one that reserves the numbers.
fn warm(buffer: &Buffer, topic: &str) {
    telemetry(buffer, topic, "first");
    forward_all(buffer);
}

fn forward_all(buffer: &Buffer) {
    buffer.delete(read_all(buffer).iter().map(|row| row.id));
    wait_until(|| buffer.status().rows == 0);
}

fn payloads(rows: &[Row]) -> Vec<String> {
    let text = |row: &Row| String::from_utf8(row.payload.to_vec()).unwrap();
    rows.iter().map(text).collect()
}

fn on_disk(buffer: &Buffer) -> u64 {
    let status = buffer.status();
    status.rows - status.in_memory
}

/// What the file and its log hold, byte by byte.
fn image(fixture: &Fixture) -> Vec<Vec<u8>> {
    let files = ["", "-wal"].map(|suffix| beside(&fixture.config.path, suffix));
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn connected_telemetry_does_not_touch_the_disk() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    warm(&buffer, "telemetry/a");
    // The last deletion of the first message is committed before the files are looked at.
    let before = image(&fixture);
    for number in 0..1000 {
        telemetry(&buffer, "telemetry/a", &number.to_string());
    }
    let rows = read_all(&buffer);
    assert_eq!(rows.len(), 1000);
    assert_eq!(rows[999].seq, 1001);
    assert_eq!(buffer.status().in_memory, 1000);
    forward_all(&buffer);
    assert_eq!(image(&fixture), before);
    let status = buffer.status();
    assert_eq!((status.forwarded, status.spilled), (1001, 0));
}

#[test]
fn the_gateways_own_readings_wait_in_memory_since_nobody_awaits_their_acknowledgement() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    warm(&buffer, "telemetry/a");
    let topic = TopicName::parse("telemetry/a").unwrap();
    keep_message(&buffer, &Message::new(topic, &b"7"[..]).numbered(7));
    assert_eq!(buffer.status().in_memory, 1);
    assert_eq!(read_all(&buffer)[0].seq, 7);
}

#[test]
fn what_is_acknowledged_to_a_publisher_is_on_disk_whatever_the_rule_says() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    warm(&buffer, "telemetry/a");
    telemetry(&buffer, "telemetry/a", "in memory");
    assert_eq!(keep(&buffer, "telemetry/a", b"promised"), Kept::Committed);
    let revived = open(&fixture.copy());
    assert_eq!(payloads(&read_all(&revived)), ["promised"]);
}

#[test]
fn a_rule_without_the_option_is_durable() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    telemetry(&buffer, "result/a", "1");
    telemetry(&buffer, "result/a", "2");
    assert_eq!(payloads(&read_all(&open(&fixture.copy()))), ["1", "2"]);
    assert_eq!(buffer.status().in_memory, 0);
}

#[test]
fn order_and_numbers_hold_across_memory_and_disk() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    for number in 0..100 {
        match number % 7 {
            0 => assert_eq!(
                keep(&buffer, "telemetry/a", number.to_string().as_bytes()),
                Kept::Committed
            ),
            3 => buffer.0.shared.inbox.spill(),
            _ => telemetry(&buffer, "telemetry/a", &number.to_string()),
        }
    }
    let wanted: Vec<_> = (0..100).filter(|n| n % 7 != 3).collect();
    // In small bites, as a forwarder reads.
    let (mut cursor, mut rows) = (Cursor::default(), Vec::new());
    loop {
        let found = buffer.read(&cursor, 3, usize::MAX).unwrap();
        if found.is_empty() {
            break;
        }
        found.iter().for_each(|row| cursor.pass(row.id));
        rows.extend(found);
    }
    let numbers: Vec<u64> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(numbers, (1..=wanted.len() as u64).collect::<Vec<_>>());
    let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
    assert_eq!(payloads(&rows), wanted);
}

#[test]
fn a_reader_beside_writer_and_spills_sees_each_message_once_and_in_order() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    warm(&buffer, "telemetry/a");
    const MESSAGES: usize = 3000;
    let (mut cursor, mut seen) = (Cursor::default(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..MESSAGES {
                let topic = TopicName::parse("telemetry/a").unwrap();
                let message = Message::new(topic, number.to_string());
                let promised = number % 11 == 0;
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce][usize::from(promised)];
                drop(send(&buffer, &message.with_qos(qos)));
                if number % 101 == 0 {
                    buffer.0.shared.inbox.spill();
                }
                if number % 200 == 0 {
                    keep(&buffer, "result/a", b"elsewhere");
                }
            }
        });
        let started = Instant::now();
        while seen.len() < MESSAGES && started.elapsed() < PATIENCE {
            let found = buffer.read(&cursor, 50, usize::MAX).unwrap();
            found.iter().for_each(|row| cursor.pass(row.id));
            buffer.delete(found.iter().map(|row| row.id));
            let here = found.into_iter();
            seen.extend(here.filter(|row| row.topic.as_str() == "telemetry/a"));
        }
    });
    let expected: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(payloads(&seen), expected);
    wait_until(|| buffer.status().rows == 0);
}

#[test]
fn a_link_that_stays_away_sends_memory_to_disk_and_one_that_is_up_does_not() {
    let fixture = memory_first(|config| config.spill_offline_after = Period::from_millis(1));
    let buffer = open(&fixture);
    buffer.link_is_up(true);
    warm(&buffer, "telemetry/a");
    telemetry(&buffer, "telemetry/a", "1");
    assert_eq!(buffer.status().in_memory, 1);
    buffer.link_is_up(false);
    wait_until(|| buffer.status().in_memory == 0);
    assert_eq!(on_disk(&buffer), 1);
    telemetry(&buffer, "telemetry/a", "2");
    wait_until(|| on_disk(&buffer) == 2);
    assert_eq!(payloads(&read_all(&open(&fixture.copy()))), ["1", "2"]);
    assert_eq!(buffer.status().spilled, 2);
}

#[test]
fn what_the_upstream_does_not_take_goes_to_disk_in_time() {
    let fixture = memory_first(|config| config.spill_after = Period::from_millis(1));
    let buffer = open(&fixture);
    buffer.link_is_up(true);
    telemetry(&buffer, "telemetry/a", "1");
    telemetry(&buffer, "telemetry/a", "2");
    wait_until(|| on_disk(&buffer) == 2);
}

#[test]
fn memory_is_bounded_and_what_does_not_fit_goes_to_disk() {
    let fixture = memory_first(|config| config.memory_size = Size::from_kib(64));
    let buffer = open(&fixture);
    for number in 0..2000 {
        telemetry(&buffer, "telemetry/a", &format!("{number:0>100}"));
        let status = buffer.status();
        assert!(status.memory_bytes <= 64 << 10, "{}", status.memory_bytes);
    }
    let rows = read_all(&buffer);
    assert_eq!(rows.len(), 2000);
    assert!(rows.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    assert!(on_disk(&buffer) > 1000);
}

#[test]
fn a_power_fail_signal_and_a_clean_stop_leave_nothing_in_memory() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    warm(&buffer, "telemetry/a");
    telemetry(&buffer, "telemetry/a", "1");
    buffer.power_fails();
    wait_until(|| buffer.status().in_memory == 0);
    telemetry(&buffer, "telemetry/a", "2");
    let cut = open(&fixture.copy());
    assert_eq!(payloads(&read_all(&cut)), ["1", "2"], "and none after it");
    assert!(
        cut.gaps(10).unwrap().is_empty(),
        "and nothing is said to be"
    );
    cut.0.close();
    buffer.0.close();

    let buffer = open(&fixture);
    assert!(buffer.gaps(10).unwrap().is_empty(), "nothing was lost");
    telemetry(&buffer, "telemetry/a", "3");
    telemetry(&buffer, "telemetry/a", "4");
    assert_eq!(buffer.status().in_memory, 1);
    buffer.0.close();
    let buffer = open(&fixture);
    let rows = read_all(&buffer);
    assert_eq!(payloads(&rows), ["1", "2", "3", "4"]);
    assert_eq!(rows[3].seq, 5, "after the one that was forwarded");
    assert!(buffer.gaps(10).unwrap().is_empty());
}

#[test]
fn after_a_kill_no_number_is_used_again_and_the_gap_says_what_may_be_missing() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    for number in 0..10 {
        telemetry(&buffer, "telemetry/a", &number.to_string());
    }
    let last = read_all(&buffer)[9].seq;
    let killed = fixture.copy();
    let revived = open(&killed);
    assert_eq!(
        payloads(&read_all(&revived)),
        ["0"],
        "the one that reserved"
    );
    let gaps = revived.gaps(10).unwrap();
    assert_eq!(gaps.len(), 1);
    let gap = &gaps[0];
    assert_eq!((gap.reason.as_str(), gap.count), ("memory-lost", 0));
    assert_eq!(gap.first_seq, 2);
    assert!(gap.last_seq >= last);
    let topic = TopicName::parse("telemetry/a").unwrap();
    assert_eq!(revived.sequences()[&topic], gap.last_seq);
    telemetry(&revived, "telemetry/a", "next");
    let rows = read_all(&revived);
    assert_eq!(rows[1].seq, gap.last_seq + 1);
}

#[test]
fn what_the_upstream_will_never_take_becomes_a_dead_letter_from_memory_too() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    warm(&buffer, "telemetry/a");
    telemetry(&buffer, "telemetry/a", "poison");
    telemetry(&buffer, "telemetry/a", "sound");
    buffer.bury(read_all(&buffer)[0].id, "topic name invalid");
    wait_until(|| buffer.status().dead_letters == 1);
    assert_eq!(payloads(&read_all(&buffer)), ["sound"]);
    let letters = buffer.dead_letters(1).unwrap();
    assert_eq!(letters.newest[0].topic, "telemetry/a");
}

#[test]
fn a_change_of_rules_keeps_the_order_of_what_waits_in_memory() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    warm(&buffer, "telemetry/a");
    telemetry(&buffer, "telemetry/a", "1");
    buffer.set_rules(&[Forward {
        store: Store::MemoryFirst,
        ..rule("#", Priority::High)
    }]);
    telemetry(&buffer, "telemetry/a", "2");
    telemetry(&buffer, "telemetry/a", "3");
    assert_eq!(payloads(&read_all(&buffer)), ["1", "2", "3"]);
}

#[test]
fn damage_to_the_file_costs_nothing_that_waits_in_memory_and_repeats_no_number() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    for number in 0..2000 {
        keep_later(&buffer, "result/a", format!("{number:0>100}").as_bytes());
    }
    keep(&buffer, "result/a", b"last");
    warm(&buffer, "telemetry/a");
    telemetry(&buffer, "telemetry/a", "1");
    telemetry(&buffer, "telemetry/a", "2");
    let last = read_all(&buffer)[1].seq;
    let connection = rusqlite::Connection::open(&fixture.config.path).unwrap();
    let page: i64 = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .and_then(|()| {
            let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'message'";
            connection.query_row(root, [], |row| row.get(0))
        })
        .unwrap();
    drop(connection);
    fixture.damage((page as u64 - 1) * 4096, &[0xA5; 4096]);
    buffer.check();
    wait_until(|| buffer.status().salvaged.is_some());
    assert_eq!(payloads(&read_all(&buffer)), ["1", "2"]);
    telemetry(&buffer, "telemetry/a", "3");
    telemetry(&buffer, "telemetry/a", "4");
    let rows = read_all(&buffer);
    assert_eq!(payloads(&rows), ["1", "2", "3", "4"]);
    assert!(rows[2].seq > last && rows[3].seq > rows[2].seq);
}

#[test]
fn memory_that_cannot_be_written_stays_and_is_written_when_the_disk_is_back() {
    let fixture = memory_first(|_| {});
    let buffer = open(&fixture);
    warm(&buffer, "telemetry/a");
    for number in 0..10 {
        telemetry(&buffer, "telemetry/a", &number.to_string());
    }
    let other = rusqlite::Connection::open(&fixture.config.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    buffer.0.shared.inbox.spill();
    wait_until(|| buffer.status().fault.is_some());
    assert_eq!(read_all(&buffer).len(), 10, "it still goes upstream");
    buffer.delete(read_all(&buffer).iter().take(4).map(|row| row.id));
    other.execute_batch("ROLLBACK").unwrap();
    buffer.0.shared.inbox.spill();
    wait_until(|| buffer.status().in_memory == 0);
    assert_eq!(buffer.status().rows, 6);
    wait_until(|| buffer.status().fault.is_none());
    assert_eq!(
        payloads(&read_all(&open(&fixture.copy()))),
        ["4", "5", "6", "7", "8", "9"]
    );
}
