//! What the buffer promises: dead letters are kept within bounds, announced, and never in the way.

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
fn a_pause_ends_with_a_restart() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    buffer.pause(true);
    assert!(buffer.status().paused);
    buffer.0.close();
    assert!(!fixture.open().status().paused);
}

/// Makes the file one that the version before wrote, with one dead letter.
fn as_schema_3(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(
            "ALTER TABLE dead_letter DROP COLUMN buried_us;
             ALTER TABLE dead_letter DROP COLUMN bytes;
             ALTER TABLE topic DROP COLUMN reserved_seq;
             PRAGMA user_version = 3;
             INSERT INTO dead_letter VALUES (1, 'telemetry/b', 7, 0, 'refused', x'010203');",
        )
        .unwrap();
}
