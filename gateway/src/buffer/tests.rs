//! The buffer's promises, on real files.
#![expect(clippy::disallowed_methods, reason = "tests measure time")]

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    sync::mpsc,
    time::{Duration, Instant},
};

use broker_lite::{
    packet::{MessageProperties, QoS},
    topic::TopicFilter,
};
use bytes::Bytes;
use settings::{Period, Size};
use tempfile::TempDir;

use super::*;
use crate::{
    config::{Forward, Priority, WhenFull},
    reading::ClockState,
};

/// Long enough for a slow, shared machine; reached only by a failing test.
const PATIENCE: Duration = Duration::from_secs(30);

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
fn everything_acknowledged_survives_a_kill_at_any_moment() {
    let fixture = Fixture::with(|config| config.commit_delay = Period::from_millis(1));
    let buffer = fixture.open();
    for round in 0..20_u32 {
        let mut acknowledged = 0;
        let answers: Vec<_> = (0..50)
            .map(|_| keep_later(&buffer, "telemetry/a", &round.to_be_bytes()))
            .collect();
        for answer in answers.iter().take(25) {
            assert_eq!(answer.recv_timeout(PATIENCE), Ok(Kept::Committed));
            acknowledged += 1;
        }
        // The rest is being committed while the files are taken as a kill would leave them.
        let image = fixture.copy();
        let revived = image.open();
        let rows = read_all(&revived);
        assert!(
            rows.len() as u32 >= round * 50 + acknowledged,
            "round {round}: {}",
            rows.len()
        );
        let numbers: Vec<_> = rows.iter().map(|row| row.seq).collect();
        assert_eq!(numbers, (1..=rows.len() as u64).collect::<Vec<_>>());
        assert_eq!(revived.status().salvaged, None);
        for answer in answers.iter().skip(25) {
            assert_eq!(answer.recv_timeout(PATIENCE), Ok(Kept::Committed));
        }
    }
}

#[test]
fn a_torn_page_costs_its_rows_and_the_gap_says_which() {
    let fixture = filled(3000);
    let size = file_size(&fixture.config.path);
    fixture.damage(size / 2, &[0xA5; 4096]);

    let buffer = fixture.open();
    let salvaged = buffer.status().salvaged.expect("damage is found at start");
    let rows = read_all(&buffer);
    let lost = salvaged.lost.expect("the topics could be read");
    assert_eq!(rows.len() as u64 + lost, 3000);
    assert!(
        lost > 0 && lost < 100,
        "one page holds some tens of rows, lost {lost}"
    );
    let gaps = buffer.gaps(10).unwrap();
    assert_eq!(gaps.iter().map(|gap| gap.count).sum::<u64>(), lost);
    assert_eq!(
        (gaps[0].topic.as_str(), gaps[0].reason.as_str()),
        ("telemetry/a", "damaged")
    );
    assert!(salvaged.aside.exists());
    assert_eq!(keep(&buffer, "telemetry/a", b"next"), Kept::Committed);
    assert_eq!(read_all(&buffer).last().map(|row| row.seq), Some(3001));
}

#[test]
fn a_file_cut_short_gives_what_is_left() {
    let fixture = filled(3000);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&fixture.config.path)
        .unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(size * 2 / 3 / 4096 * 4096).unwrap();

    let buffer = fixture.open();
    let salvaged = buffer.status().salvaged.expect("the cut is found at start");
    let rows = read_all(&buffer);
    assert_eq!(rows.len() as u64, salvaged.kept);
    assert!(rows.len() > 500, "only {} of 3000 came back", rows.len());
    assert!(rows.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    assert_eq!(keep(&buffer, "telemetry/a", b"next"), Kept::Committed);
    assert_eq!(read_all(&buffer).last().map(|row| row.seq), Some(3001));
}

#[test]
fn a_garbage_header_is_set_aside_and_announced() {
    let fixture = filled(100);
    fixture.damage(0, &[0x5A; 512]);
    let buffer = fixture.open();
    let salvaged = buffer.status().salvaged.expect("garbage is found at start");
    assert_eq!((salvaged.kept, salvaged.lost), (0, None));
    let gaps = buffer.gaps(10).unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].topic.as_str(), gaps[0].count), ("buffer", 0));
    assert_eq!(keep(&buffer, "telemetry/a", b"next"), Kept::Committed);
}

#[test]
fn only_a_few_damaged_files_are_kept() {
    let fixture = Fixture::new();
    for _ in 0..5 {
        fs::write(&fixture.config.path, [0x5A; 8192]).unwrap();
        let buffer = fixture.open();
        assert_eq!(keep(&buffer, "telemetry/a", b"x"), Kept::Committed);
    }
    let kept = |n: u32| beside(&fixture.config.path, &format!(".corrupt-{n}")).exists();
    assert_eq!(
        (1..=5).map(kept).collect::<Vec<_>>(),
        [true, true, true, false, false]
    );
}

#[test]
fn a_lost_log_is_announced_and_its_numbers_are_not_used_again() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"1");
    buffer.0.close();
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"2");
    let image = fixture.copy();
    fs::remove_file(beside(&image.config.path, "-wal")).unwrap();

    let revived = image.open();
    let gaps = revived.gaps(10).unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!(
        (gaps[0].reason.as_str(), gaps[0].first_seq),
        ("log-lost", 2)
    );
    keep(&revived, "telemetry/a", b"3");
    assert!(
        read_all(&revived)
            .last()
            .is_some_and(|row| row.seq > gaps[0].last_seq)
    );
}

#[test]
fn a_torn_log_gives_what_was_committed_before() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    for _ in 0..100 {
        keep(&buffer, "telemetry/a", &[7; 200]);
    }
    let image = fixture.copy();
    let log = beside(&image.config.path, "-wal");
    let size = file_size(&log);
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.set_len(size - 1000).unwrap();
    let rows = read_all(&image.open());
    assert!(rows.len() >= 90 && rows.len() < 100, "{} rows", rows.len());
    assert!(rows.iter().zip(1..).all(|(row, seq)| row.seq == seq));
}

#[test]
fn damage_that_shows_while_running_is_salvaged_too() {
    let fixture = filled(3000);
    let buffer = fixture.open();
    assert_eq!(buffer.status().salvaged, None);
    let size = file_size(&fixture.config.path);
    fixture.damage(size / 2, &[0xA5; 8192]);
    buffer.check();
    wait_until(|| buffer.status().salvaged.is_some());
    assert!(read_all(&buffer).len() > 2800);
    assert_eq!(keep(&buffer, "telemetry/a", b"next"), Kept::Committed);
}

#[test]
fn a_full_buffer_evicts_the_oldest_of_the_lowest_priority_and_says_so() {
    let fixture = Fixture::with(|config| config.max_size = Size::from_mib(1));
    let buffer = fixture.open();
    for _ in 0..100 {
        keep_later(&buffer, "alert/a", &[1; 500]);
    }
    for _ in 0..4000 {
        keep_later(&buffer, "telemetry/a", &[2; 500]);
    }
    assert_eq!(keep(&buffer, "telemetry/a", &[3; 500]), Kept::Committed);

    let status = buffer.status();
    let rows = read_all(&buffer);
    assert!(status.evicted > 0);
    assert!(
        status.bytes_on_disk <= 1 << 20,
        "{} bytes on disk",
        status.bytes_on_disk
    );
    assert_eq!(
        rows.iter()
            .filter(|row| row.topic.as_str() == "alert/a")
            .count(),
        100
    );
    assert_eq!(rows.last().map(|row| row.seq), Some(4001));
    assert_eq!(rows.len() as u64 + status.evicted, 4101);
    let gaps = buffer.gaps(10).unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].first_seq, gaps[0].count), (1, status.evicted));
    assert_eq!(gaps[0].last_seq, status.evicted);

    buffer.delete_gap(gaps[0].id, gaps[0].count - 1);
    buffer.delete(rows.iter().map(|row| row.id));
    wait_until(|| buffer.status().rows == 0);
    assert_eq!(
        buffer.gaps(10).unwrap().len(),
        1,
        "one that grew meanwhile stays"
    );
    buffer.delete_gap(gaps[0].id, gaps[0].count);
    wait_until(|| buffer.gaps(10).unwrap().is_empty());
}

#[test]
fn a_chatty_topic_evicts_only_its_own_rows_over_its_quota() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    let rules = [
        Forward {
            quota: Some(Size::from_kib(64)),
            ..rule("chat/#", Priority::Normal)
        },
        rule("telemetry/#", Priority::Normal),
    ];
    buffer.set_rules(&rules);
    for _ in 0..50 {
        keep_later(&buffer, "telemetry/a", &[1; 500]);
    }
    for number in 0..1000 {
        let topic = format!("chat/{}", number % 2);
        keep_later(&buffer, &topic, &[2; 436]);
    }
    assert_eq!(keep(&buffer, "telemetry/a", &[1; 500]), Kept::Committed);
    let count = |buffer: &Buffer, prefix: &str| {
        let rows = read_all(buffer).into_iter();
        rows.filter(|row| row.topic.as_str().starts_with(prefix))
            .count()
    };
    assert_eq!(count(&buffer, "telemetry/"), 51);
    let chat = count(&buffer, "chat/");
    assert!((110..=131).contains(&chat), "64 KiB hold 131, not {chat}");
    let status = buffer.status();
    assert_eq!(status.over_quota, 1000 - chat as u64);
    let gaps = buffer.gaps(10).unwrap();
    assert!(gaps.iter().all(|gap| gap.reason == "quota"));
    assert_eq!(
        gaps.iter().map(|gap| gap.count).sum::<u64>(),
        status.over_quota
    );

    buffer.0.close();
    let buffer = fixture.open();
    buffer.set_rules(&rules);
    for _ in 0..100 {
        keep_later(&buffer, "chat/0", &[2; 436]);
    }
    assert_eq!(keep(&buffer, "chat/1", &[2; 436]), Kept::Committed);
    let chat = count(&buffer, "chat/");
    assert!(chat <= 131, "what waits is still known after a restart");
    assert_eq!(count(&buffer, "telemetry/"), 51);

    buffer.delete(read_all(&buffer).iter().map(|row| row.id));
    wait_until(|| buffer.status().rows == 0);
    let before = buffer.status().over_quota;
    for _ in 0..99 {
        keep_later(&buffer, "chat/0", &[2; 436]);
    }
    keep(&buffer, "chat/0", &[2; 436]);
    assert_eq!(count(&buffer, "chat/"), 100, "what has left counts no more");
    assert_eq!(buffer.status().over_quota, before);
}

#[test]
fn a_file_of_the_first_schema_is_taken_over_with_its_rows() {
    let fixture = filled(100);
    let old = rusqlite::Connection::open(&fixture.config.path).unwrap();
    old.execute_batch("ALTER TABLE topic DROP COLUMN bytes; PRAGMA user_version = 1")
        .unwrap();
    drop(old);
    let buffer = fixture.open();
    assert_eq!(buffer.status().salvaged, None);
    assert_eq!(read_all(&buffer).len(), 100);
    let taken: i64 = rusqlite::Connection::open(&fixture.config.path)
        .and_then(|file| file.query_row("SELECT bytes FROM topic", [], |row| row.get(0)))
        .unwrap();
    assert_eq!(taken, 99 * 164 + 68, "64 bytes beside each payload");
}

#[test]
fn what_is_too_old_leaves_and_is_announced() {
    let fixture = Fixture::with(|config| config.max_age = Some(Period::from_secs(1)));
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"1");
    keep(&buffer, "alert/a", b"2");
    assert_eq!(read_all(&buffer).len(), 2);
    wait_until(|| buffer.status().rows == 0);
    assert_eq!(buffer.status().expired, 2);
    let gaps = buffer.gaps(10).unwrap();
    assert_eq!(gaps.len(), 2);
    assert!(
        gaps.iter()
            .all(|gap| gap.reason == "expired" && gap.count == 1)
    );
}

#[test]
fn names_of_which_no_row_waits_are_forgotten_when_there_are_too_many() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    buffer.0.close();
    let limits = Limits {
        max_bytes: 64 << 20,
        when_full: WhenFull::DropOldest,
        max_age: None,
        max_topics: 10,
    };
    let opened = salvage::open(&fixture.config.path, limits.pages()).unwrap();
    let path = &fixture.config.path;
    let (mut store, _) = store::Store::new(opened.connection, path, limits, "boot", false).unwrap();
    let mut commit = |topic: String, gone: Vec<i64>| {
        let batch = inbox::Batch {
            entries: vec![entry(&buffer, &topic)],
            removals: gone.into_iter().map(Removal::Row).collect(),
            arrivals: Vec::new(),
        };
        store.commit(&batch).unwrap().answers[0]
    };
    for number in 0..10 {
        assert_eq!(commit(format!("t/{number}"), vec![]), Kept::Committed);
    }
    assert_eq!(commit("t/10".to_owned(), vec![]), Kept::Refused);
    // The first two leave, and with them their names.
    let first = Rank::of(Priority::Normal).row(1);
    let gone = vec![first, first + 1];
    assert_eq!(commit("t/11".to_owned(), gone), Kept::Committed);
    assert_eq!(commit("t/12".to_owned(), vec![]), Kept::Committed);
    assert_eq!(commit("t/13".to_owned(), vec![]), Kept::Refused);
    assert_eq!(commit("t/9".to_owned(), vec![]), Kept::Committed);
    store.close().unwrap();
    let buffer = fixture.open();
    assert_eq!(buffer.sequences().len(), 10);
    assert_eq!(read_all(&buffer).last().map(|row| row.seq), Some(2));
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

fn entry(buffer: &Buffer, topic: &str) -> Entry {
    Entry {
        message: Message::new(TopicName::parse(topic).unwrap(), &b"x"[..]),
        properties: None,
        rank: Rank::of(Priority::Normal),
        stamp: buffer.0.shared.clock.stamp(),
        receipt: Receipt::new(|_| {}),
    }
}

#[test]
fn drop_newest_keeps_the_old_and_refuse_tells_the_publisher() {
    for (when_full, expected) in [
        (WhenFull::DropNewest, Kept::Committed),
        (WhenFull::Refuse, Kept::Refused),
    ] {
        let fixture = Fixture::with(|config| {
            config.max_size = Size::from_mib(1);
            config.when_full = when_full;
        });
        let buffer = fixture.open();
        for _ in 0..3000 {
            keep_later(&buffer, "telemetry/a", &[2; 500]);
        }
        assert_eq!(keep(&buffer, "telemetry/a", &[3; 500]), expected);
        let status = buffer.status();
        let rows = read_all(&buffer);
        assert_eq!(rows[0].seq, 1);
        assert_eq!(rows.len() as u64 + status.left_out + status.refused, 3001);
        assert!(status.bytes_on_disk <= 1 << 20);
        let announced: u64 = buffer.gaps(10).unwrap().iter().map(|gap| gap.count).sum();
        assert_eq!(announced, status.left_out);
    }
}

#[test]
fn space_is_given_back() {
    let fixture = filled(100_000);
    let buffer = fixture.open();
    assert!(buffer.status().bytes_on_disk > 14 << 20);
    let rows = read_all(&buffer);
    assert_eq!(rows.len(), 100_000);
    buffer.delete(rows.iter().map(|row| row.id));
    // What stays is the log's and the file's working set, 4 MiB each.
    wait_until(|| buffer.status().bytes_on_disk < 9 << 20);
}

#[test]
fn a_file_that_cannot_be_committed_to_recovers_by_itself() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"1");
    let other = rusqlite::Connection::open(&fixture.config.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = keep_later(&buffer, "telemetry/a", b"2");
    wait_until(|| buffer.status().fault.is_some());
    assert_eq!(answer.try_recv(), Err(mpsc::TryRecvError::Empty));
    assert_eq!(read_all(&buffer).len(), 1, "readers are not blocked");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(answer.recv_timeout(PATIENCE), Ok(Kept::Committed));
    assert_eq!(buffer.status().fault, None);
}

#[test]
fn a_buffer_that_cannot_be_opened_starts_refuses_what_does_not_fit_and_recovers() {
    let fixture = Fixture::new();
    fs::create_dir(&fixture.config.path).unwrap();
    let buffer = fixture.open();
    assert!(buffer.status().fault.is_some());
    let first = keep_later(&buffer, "telemetry/a", b"1");
    let large = vec![0; inbox::MAX_QUEUED_BYTES];
    assert_eq!(keep(&buffer, "telemetry/a", &large), Kept::Refused);
    assert_eq!(buffer.status().refused, 1);
    fs::remove_dir(&fixture.config.path).unwrap();
    assert_eq!(first.recv_timeout(PATIENCE), Ok(Kept::Committed));
    assert_eq!(buffer.status().fault, None);
}

/// Needs a small file system of its own, so it runs itself again in a mount namespace.
#[test]
fn a_full_disk_stops_nothing_and_is_recovered_from() {
    const PLACE: &str = "GATEWAY_TEST_SMALL_DISK";
    let Some(place) = std::env::var_os(PLACE) else {
        let place = tempfile::tempdir().unwrap();
        let run = "mount -t tmpfs -o size=6m tmpfs \"$0\" && exec \"$@\"";
        let status = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", run])
            .arg(place.path())
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "buffer::tests::a_full_disk_stops_nothing_and_is_recovered_from",
            ])
            .env(PLACE, place.path())
            .status()
            .unwrap();
        assert!(
            status.success(),
            "see above; without user namespaces this cannot run"
        );
        return;
    };
    let place = PathBuf::from(place);
    let filler = place.join("filler");
    fs::write(&filler, vec![1; 4 << 20]).unwrap();
    let fixture = Fixture::with(|config| config.path = place.join("buffer.db"));
    let buffer = fixture.open();
    let mut answers = Vec::new();
    while buffer.status().fault.is_none() {
        answers.push(keep_later(&buffer, "telemetry/a", &[7; 1000]));
        assert!(answers.len() < 100_000, "the disk never filled");
        if answers.len() % 100 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let fault = buffer.status().fault.unwrap();
    assert!(fault.cause.contains("full"), "{}", fault.cause);
    fs::remove_file(&filler).unwrap();
    for answer in &answers {
        assert_eq!(answer.recv_timeout(PATIENCE), Ok(Kept::Committed));
    }
    assert_eq!(buffer.status().fault, None);
    assert_eq!(read_all(&buffer).len(), answers.len());
}

#[test]
fn closing_a_buffer_whose_disk_fails_refuses_what_waits() {
    let fixture = Fixture::new();
    fs::create_dir(&fixture.config.path).unwrap();
    let buffer = fixture.open();
    let answer = keep_later(&buffer, "telemetry/a", b"1");
    buffer.0.close();
    drop(buffer);
    assert_eq!(answer.recv_timeout(PATIENCE), Ok(Kept::Refused));
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

#[test]
fn another_programs_database_is_not_written_to() {
    let fixture = Fixture::new();
    let other = rusqlite::Connection::open(&fixture.config.path).unwrap();
    other
        .execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
        .unwrap();
    drop(other);
    let before = fs::read(&fixture.config.path).unwrap();
    let buffer = fixture.open();
    assert_eq!(keep(&buffer, "telemetry/a", b"x"), Kept::Committed);
    let aside = buffer.status().salvaged.expect("it is set aside").aside;
    assert_eq!(fs::read(aside).unwrap(), before);
}

struct Fixture {
    _directory: TempDir,
    config: config::Buffer,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut config::Buffer)) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config::Buffer {
            path: directory.path().join("buffer.db"),
            commit_delay: Period::from_millis(1),
            ..config::Buffer::default()
        };
        change(&mut config);
        Fixture {
            _directory: directory,
            config,
        }
    }

    fn open(&self) -> Buffer {
        let rules = [
            rule("telemetry/#", Priority::Normal),
            rule("alert/#", Priority::High),
        ];
        Buffer::open(&self.config, &rules).unwrap()
    }

    /// The files as they are at this moment, elsewhere: the database first, its log after, as
    /// the log only grows between checkpoints.
    fn copy(&self) -> Fixture {
        let image = Fixture::with(|config| config.commit_delay = self.config.commit_delay);
        for suffix in ["", "-wal"] {
            let from = beside(&self.config.path, suffix);
            fs::copy(from, beside(&image.config.path, suffix)).unwrap();
        }
        image
    }

    fn damage(&self, offset: u64, bytes: &[u8]) {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(&self.config.path)
            .unwrap();
        file.seek(SeekFrom::Start(offset / 4096 * 4096)).unwrap();
        file.write_all(bytes).unwrap();
        file.sync_all().unwrap();
    }
}

/// A closed buffer with so many messages of one topic.
fn filled(messages: u32) -> Fixture {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    for number in 1..messages {
        keep_later(&buffer, "telemetry/a", format!("{number:0>100}").as_bytes());
    }
    assert_eq!(keep(&buffer, "telemetry/a", b"last"), Kept::Committed);
    buffer.0.close();
    fixture
}

fn rule(filter: &str, priority: Priority) -> Forward {
    Forward {
        filter: TopicFilter::parse(filter).unwrap(),
        topic: "{gateway}/{topic}".to_owned(),
        qos: QoS::AtLeastOnce,
        priority,
        quota: None,
    }
}

fn keep(buffer: &Buffer, topic: &str, payload: &[u8]) -> Kept {
    keep_later(buffer, topic, payload)
        .recv_timeout(PATIENCE)
        .unwrap()
}

fn keep_later(buffer: &Buffer, topic: &str, payload: &[u8]) -> mpsc::Receiver<Kept> {
    let payload = Bytes::copy_from_slice(payload);
    send(
        buffer,
        &Message::new(TopicName::parse(topic).unwrap(), payload),
    )
}

fn keep_message(buffer: &Buffer, message: &Message) -> Kept {
    send(buffer, message).recv_timeout(PATIENCE).unwrap()
}

fn send(buffer: &Buffer, message: &Message) -> mpsc::Receiver<Kept> {
    let (answer, answered) = mpsc::channel();
    // A test that is not interested in the answer has dropped the receiver.
    let receipt = Receipt::new(move |kept| {
        let _unheard = answer.send(kept);
    });
    buffer.keep(message, receipt);
    answered
}

pub(super) fn read_all(buffer: &Buffer) -> Vec<Row> {
    let mut cursor = Cursor::default();
    let mut rows = Vec::new();
    loop {
        let found = buffer.read(&cursor, 1000, usize::MAX).unwrap();
        if found.is_empty() {
            return rows;
        }
        found.iter().for_each(|row| cursor.pass(row.id));
        rows.extend(found);
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < PATIENCE,
            "the condition did not come true"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
