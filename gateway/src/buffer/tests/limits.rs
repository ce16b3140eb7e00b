//! What the buffer promises: bounds in bytes, age and names, and what is said about losses.

use super::*;

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
            ..inbox::Batch::default()
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
    store.close(&[], true).unwrap();
    let buffer = fixture.open();
    assert_eq!(buffer.sequences().len(), 10);
    assert_eq!(read_all(&buffer).last().map(|row| row.seq), Some(2));
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
fn a_reader_that_stays_holds_up_no_commit_and_the_log_is_cut_once_it_goes() {
    const COMMITS: u32 = 200;
    let fixture = Fixture::with(|config| config.max_size = Size::from_mib(4));
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"first");
    let log = beside(&fixture.config.path, "-wal");
    // A quarter is the log's.
    let limit = 1 << 20;
    let reader = rusqlite::Connection::open(&fixture.config.path).unwrap();
    let count = "SELECT count(*) FROM message";
    reader.execute_batch("BEGIN").unwrap();
    let seen: i64 = reader.query_row(count, [], |row| row.get(0)).unwrap();

    let commits = |count: u32| {
        let before = file_size(&log);
        for _ in 0..count {
            assert_eq!(keep(&buffer, "telemetry/a", &[7; 2000]), Kept::Committed);
        }
        (file_size(&log) - before) / u64::from(count)
    };
    let within = commits(30);
    assert!(file_size(&log) < limit);
    commits(COMMITS);
    assert!(file_size(&log) > limit, "the reader holds the log");
    let beyond = commits(COMMITS);
    // An attempt to cut it is two commits more, of some pages each: one for each commit would show.
    assert!(
        beyond < within + 4096,
        "{beyond} bytes for a commit, not {within}"
    );
    let still: i64 = reader.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(still, seen, "it sees what it saw");

    reader.execute_batch("ROLLBACK").unwrap();
    for _ in 0..=store::COMMITS_PER_CUT {
        keep(&buffer, "telemetry/a", b"x");
    }
    wait_until(|| file_size(&log) <= limit);
    assert_eq!(buffer.status().fault, None);
}

#[test]
fn checkpoints_are_few_beside_commits_and_keep_the_log_within_its_share() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    let log = beside(&fixture.config.path, "-wal");
    let (mut longest, mut grown, mut was) =
        (0, 0, fs::metadata(&fixture.config.path).unwrap().len());
    for _ in 0..2000 {
        assert_eq!(keep(&buffer, "telemetry/a", &[7; 3000]), Kept::Committed);
        longest = longest.max(file_size(&log));
        let size = file_size(&fixture.config.path);
        grown += u32::from(size > was);
        was = size;
    }
    assert!(longest < 5 << 20, "a log of {longest} bytes");
    // The file grows when the log is copied into it.
    assert!(
        (2..20).contains(&grown),
        "{grown} checkpoints for 2000 commits"
    );
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
