//! What the buffer promises: dead letters are kept within bounds, announced, and never in the way.

use broker_lite::packet::PayloadFormat;

use super::*;

#[test]
fn a_dead_letter_says_what_it_was_and_why_and_leaves_a_gap() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"one");
    keep(&buffer, "telemetry/a", b"two");
    buffer.bury(read_all(&buffer)[1].id, "topic name invalid");
    wait_until(|| buffer.status().dead_letters == 1);
    buffer.0.close();

    let buffer = fixture.open();
    let letters = buffer.dead_letters(10).unwrap();
    assert_eq!((letters.kept, letters.bytes), (1, 3));
    let letter = &letters.newest[0];
    assert_eq!((letter.topic.as_str(), letter.seq), ("telemetry/a", 2));
    assert_eq!(letter.reason, "topic name invalid");
    assert!(letter.buried >= letter.received);
    let gaps = buffer.gaps(10).unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!(
        (gaps[0].reason.as_str(), gaps[0].first_seq),
        ("dead-letter", 2)
    );
    assert_eq!(buffer.status().waiting, [0, 1, 0]);
}

#[test]
fn dead_letters_are_bounded_in_number() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    let count = dead::MAX_DEAD_LETTERS + 200;
    for _ in 1..count {
        keep_later(&buffer, "telemetry/a", b"x");
    }
    keep(&buffer, "telemetry/a", b"x");
    for row in read_all(&buffer) {
        buffer.bury(row.id, "refused");
    }
    wait_until(|| buffer.status().dead_letters == count);
    let letters = buffer.dead_letters(1).unwrap();
    assert_eq!(letters.kept, dead::MAX_DEAD_LETTERS);
    assert_eq!(letters.newest[0].seq, count, "the oldest go first");
}

#[test]
fn dead_letters_are_bounded_in_bytes_and_leave_a_full_buffer_its_room() {
    let fixture = Fixture::with(|config| config.max_size = Size::from_mib(1));
    let buffer = fixture.open();
    let (mut buried, mut last) = (0, 0);
    for _ in 0..40 {
        for _ in 0..10 {
            keep(&buffer, "telemetry/a", &[1; 20_000]);
        }
        for row in read_all(&buffer) {
            buffer.bury(row.id, "packet too large");
            (buried, last) = (buried + 1, row.seq);
        }
        wait_until(|| buffer.status().rows == 0);
        let letters = buffer.dead_letters(1).unwrap();
        assert!(letters.bytes <= (1 << 20) / dead::DEAD_SHARE, "{letters:?}");
        assert_eq!(
            (letters.newest[0].seq, letters.newest[0].bytes),
            (last, 20_000)
        );
    }
    let status = buffer.status();
    assert_eq!((status.dead_letters, status.fault), (buried, None));
    // Ten such messages take 200 kB of the 768 KiB that the file has, a third of them in reserve.
    assert_eq!(status.evicted, 0);
}

#[test]
fn one_larger_than_all_dead_letters_may_be_keeps_its_description() {
    let fixture = Fixture::with(|config| config.max_size = Size::from_mib(1));
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", &[1; 200_000]);
    buffer.bury(read_all(&buffer)[0].id, "packet too large");
    wait_until(|| buffer.status().dead_letters == 1);
    let letters = buffer.dead_letters(1).unwrap();
    assert_eq!((letters.kept, letters.bytes), (1, 0));
    assert_eq!(letters.newest[0].bytes, 200_000);
}

#[test]
fn dead_letters_of_an_earlier_schema_are_taken_over_sound_or_damaged() {
    for damaged in [false, true] {
        let fixture = filled(3000);
        as_schema_3(&fixture.config.path);
        if damaged {
            let size = file_size(&fixture.config.path);
            fixture.damage(size / 2, &[0xA5; 4096]);
        }
        let buffer = fixture.open();
        assert_eq!(buffer.status().salvaged.is_some(), damaged);
        let letters = buffer.dead_letters(10).unwrap();
        assert_eq!((letters.kept, letters.newest[0].bytes), (1, 3));
        assert_eq!(letters.newest[0].buried, Timestamp::UNIX_EPOCH);
        buffer.bury(read_all(&buffer)[0].id, "refused");
        wait_until(|| {
            buffer
                .dead_letters(0)
                .is_ok_and(|letters| letters.kept == 2)
        });
    }
}

#[test]
fn a_dead_letter_waits_again_as_what_it_was() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    let mut message = Message::new(TopicName::parse("alert/a").unwrap(), &b"one"[..]);
    message.qos = QoS::AtMostOnce;
    message.retain = true;
    message.properties = Some(Arc::new(MessageProperties {
        payload_format: Some(PayloadFormat::Utf8),
        ..MessageProperties::default()
    }));
    assert_eq!(keep_message(&buffer, &message), Kept::Committed);
    let before = read_all(&buffer).remove(0);
    buffer.bury(before.id, "refused");
    wait_until(|| kept_letters(&buffer).len() == 1);
    keep(&buffer, "alert/a", b"two");
    let id = kept_letters(&buffer)[0].id;
    buffer.0.close();

    let buffer = fixture.open();
    let appended = buffer.appended();
    assert_eq!(settle(&buffer, Fate::Resend, Which::All).done, [id]);
    assert!(appended.has_changed().unwrap(), "the forwarder is woken");
    let rows = read_all(&buffer);
    let numbers: Vec<u64> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(numbers, [2, 1], "it comes late, under its own number");
    let after = Row {
        id: before.id,
        ..rows[1].clone()
    };
    assert_eq!(after, before);
    assert!(
        rows[1].id > rows[0].id,
        "behind all that a reader has passed"
    );
    assert!(kept_letters(&buffer).is_empty());
    assert_eq!(buffer.status().waiting, [2, 0, 0]);
    assert_eq!(buffer.gaps(10).unwrap()[0].reason, "dead-letter");
    keep(&buffer, "alert/a", b"three");
    assert_eq!(read_all(&buffer)[2].seq, 3, "numbering goes on");
}

#[test]
fn an_id_is_not_given_to_another_dead_letter() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    let mut ids = Vec::new();
    for fate in [Fate::Resend, Fate::Drop, Fate::Drop] {
        if read_all(&buffer).is_empty() {
            keep(&buffer, "telemetry/a", b"x");
        }
        buffer.bury(read_all(&buffer)[0].id, "refused");
        wait_until(|| kept_letters(&buffer).len() == 1);
        let id = kept_letters(&buffer)[0].id;
        assert!(!ids.contains(&id), "{ids:?} then {id}");
        assert_eq!(settle(&buffer, fate, Which::These(vec![id])).done, [id]);
        let gone = settle(&buffer, fate, Which::These(vec![id]));
        assert_eq!(gone.left, [(id, Left::Unknown)]);
        ids.push(id);
    }
    assert!(kept_letters(&buffer).is_empty());
    assert_eq!(buffer.status().rows, 0);
}

#[test]
fn a_dead_letter_without_its_payload_is_not_sent_again_and_can_be_dropped() {
    let fixture = Fixture::with(|config| config.max_size = Size::from_mib(1));
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", &[1; 200_000]);
    buffer.bury(read_all(&buffer)[0].id, "packet too large");
    wait_until(|| kept_letters(&buffer).len() == 1);
    let letter = kept_letters(&buffer).remove(0);
    assert!(!letter.whole);
    let settled = settle(&buffer, Fate::Resend, Which::All);
    assert_eq!(settled.left, [(letter.id, Left::PayloadNotKept)]);
    assert_eq!((settled.done.len(), read_all(&buffer).len()), (0, 0));
    assert_eq!(settle(&buffer, Fate::Drop, Which::All).done, [letter.id]);
    assert!(kept_letters(&buffer).is_empty());
}

#[test]
fn a_dead_letter_that_waits_again_pushes_nothing_out() {
    let mut fixture = Fixture::with(|config| {
        config.max_size = Size::from_mib(1);
        config.when_full = WhenFull::Refuse;
    });
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", &[1; 50_000]);
    buffer.bury(read_all(&buffer)[0].id, "refused");
    wait_until(|| kept_letters(&buffer).len() == 1);
    while keep(&buffer, "telemetry/a", &[2; 50_000]) == Kept::Committed {}
    buffer.0.close();

    fixture.config.when_full = WhenFull::DropOldest;
    let buffer = fixture.open();
    let letter = kept_letters(&buffer)[0].id;
    let waiting = read_all(&buffer).len();
    let settled = settle(&buffer, Fate::Resend, Which::All);
    assert_eq!(settled.left, [(letter, Left::NoRoom)]);
    assert_eq!(
        (read_all(&buffer).len(), buffer.status().evicted),
        (waiting, 0)
    );

    buffer.delete(read_all(&buffer).iter().take(2).map(|row| row.id));
    wait_until(|| buffer.status().forwarded == 2);
    assert_eq!(settle(&buffer, Fate::Resend, Which::All).done, [letter]);
}

#[test]
fn a_dead_letter_of_an_earlier_schema_is_sent_again_with_what_is_known_of_it() {
    let fixture = filled(1);
    as_schema_5(&fixture.config.path);
    let buffer = fixture.open();
    assert_eq!(buffer.status().salvaged, None);
    assert_eq!(settle(&buffer, Fate::Resend, Which::All).done, [4]);
    let rows = read_all(&buffer);
    let row = rows.iter().find(|row| row.topic.as_str() == "telemetry/b");
    let row = row.expect("it waits");
    assert_eq!((row.seq, &row.payload[..]), (7, &[1, 2, 3][..]));
    assert_eq!((row.qos, row.retain), (QoS::AtLeastOnce, false));
    assert_eq!(
        (row.properties.clone(), row.priority()),
        (None, Priority::Normal)
    );
    assert_eq!(row.received.as_microsecond(), 1_700_000_000_000_000);
    keep(&buffer, "telemetry/b", b"next");
    assert_eq!(read_all(&buffer).last().map(|row| row.seq), Some(8));
}

#[test]
fn a_pause_ends_with_a_restart() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    buffer.pause(true);
    assert!(buffer.status().paused);
    buffer.0.close();
    assert!(!fixture.open().status().paused);
}

/// Makes the file one of schema 5, or an older one by what that lacked, too.
pub(super) fn back_to_schema(version: u32, path: &Path, more: &str) {
    let since_5 = "ALTER TABLE dead_letter DROP COLUMN qos;
         ALTER TABLE dead_letter DROP COLUMN retain;
         ALTER TABLE dead_letter DROP COLUMN rank;
         ALTER TABLE dead_letter DROP COLUMN monotonic_ns;
         ALTER TABLE dead_letter DROP COLUMN boot;
         ALTER TABLE dead_letter DROP COLUMN synced;
         ALTER TABLE dead_letter DROP COLUMN properties;
         ALTER TABLE arrival DROP COLUMN doubtful;";
    let connection = rusqlite::Connection::open(path).unwrap();
    let version = format!("PRAGMA user_version = {version};");
    connection
        .execute_batch(&[since_5, more, &version].concat())
        .unwrap();
}

/// Makes the file one of schema 3, with one dead letter.
fn as_schema_3(path: &Path) {
    back_to_schema(
        3,
        path,
        "ALTER TABLE dead_letter DROP COLUMN buried_us;
         ALTER TABLE dead_letter DROP COLUMN bytes;
         ALTER TABLE topic DROP COLUMN reserved_seq;
         INSERT INTO dead_letter VALUES (1, 'telemetry/b', 7, 0, 'refused', x'010203');",
    );
}

/// Makes the file one of schema 5, with one dead letter.
fn as_schema_5(path: &Path) {
    back_to_schema(
        5,
        path,
        "INSERT INTO dead_letter VALUES
             (4, 'telemetry/b', 7, 1700000000000000, 'refused', x'010203', 1, 3);",
    );
}

fn kept_letters(buffer: &Buffer) -> Vec<DeadLetter> {
    buffer.dead_letters(100).unwrap().newest
}

fn settle(buffer: &Buffer, fate: Fate, which: Which) -> Settled {
    let settled = buffer.settle(fate, which).expect("an open buffer");
    settled.blocking_recv().expect("a disk that works")
}
