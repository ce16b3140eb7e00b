//! What the buffer promises: kills and damaged files: what reads is kept, what is lost is named.

use super::*;

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
    a_loss_is_announced(|log| fs::remove_file(log).unwrap());
}

/// Harms the log, which holds what the database does not yet.
pub(super) fn a_loss_is_announced(harm: impl FnOnce(&Path)) {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"1");
    buffer.0.close();
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"2");
    let image = fixture.copy();
    harm(&beside(&image.config.path, "-wal"));

    let revived = image.open();
    let gaps = revived.gaps(10).unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!(
        (gaps[0].reason.as_str(), gaps[0].first_seq),
        ("log-lost", 2)
    );
    assert_eq!(keep(&revived, "telemetry/a", b"3"), Kept::Committed);
    let last = read_all(&revived).pop().unwrap();
    assert!(last.seq > gaps[0].last_seq);
}

#[test]
fn a_kill_before_the_first_commit_or_after_the_log_was_cut_is_no_lost_log() {
    let fixture = Fixture::with(|config| config.max_size = Size::from_mib(1));
    let buffer = fixture.open();
    keep(&buffer, "telemetry/a", b"1");
    buffer.0.close();
    let buffer = fixture.open();
    let log = beside(&fixture.config.path, "-wal");
    let mut was = 0;
    // The log is cut when it has grown past its share, here a quarter of a mebibyte.
    while file_size(&log) >= was {
        let image = fixture.copy();
        let revived = image.open();
        assert_eq!(revived.gaps(10).unwrap(), [], "with a log of {was} bytes");
        was = file_size(&log);
        assert_eq!(keep(&buffer, "telemetry/a", &[7; 40_000]), Kept::Committed);
    }
    let revived = fixture.copy().open();
    assert_eq!(revived.gaps(10).unwrap(), []);
    assert!(read_all(&revived).len() > 5);
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
fn a_file_of_the_first_schema_is_taken_over_with_its_rows() {
    let fixture = filled(100);
    letters::back_to_schema(
        1,
        &fixture.config.path,
        "ALTER TABLE topic DROP COLUMN bytes;
         ALTER TABLE topic DROP COLUMN reserved_seq;
         DROP TABLE arrival;
         ALTER TABLE dead_letter DROP COLUMN buried_us;
         ALTER TABLE dead_letter DROP COLUMN bytes;",
    );
    let buffer = fixture.open();
    let status = buffer.status();
    assert_eq!((status.salvaged, status.fault), (None, None));
    assert_eq!(read_all(&buffer).len(), 100);
    let taken: i64 = rusqlite::Connection::open(&fixture.config.path)
        .and_then(|file| file.query_row("SELECT bytes FROM topic", [], |row| row.get(0)))
        .unwrap();
    assert_eq!(taken, 99 * 164 + 68, "64 bytes beside each payload");
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
