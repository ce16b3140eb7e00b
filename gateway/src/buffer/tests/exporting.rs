//! Promises about carrying away what waits.

use super::*;

fn everything(path: &Path) -> Vec<Row> {
    let mut export = Export::open(path).unwrap();
    let mut rows = Vec::new();
    loop {
        let page = export.waiting().unwrap();
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

#[test]
fn all_that_waits_is_exported_in_sending_order_beside_the_writer_and_nothing_leaves() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    for number in 0..700 {
        keep_later(&buffer, "telemetry/a", format!("{number}").as_bytes());
    }
    keep(&buffer, "alert/a", &[0xff; 10]);
    let exported = everything(&fixture.config.path);
    assert_eq!(exported.len(), 701);
    assert_eq!(exported[0].topic.as_str(), "alert/a");
    assert_eq!(exported[0].priority(), Priority::High);
    assert_eq!(exported, read_all(&buffer));
}

#[test]
fn a_copy_gives_the_same_and_a_file_of_others_is_refused() {
    let fixture = filled(300);
    let copy = fixture.copy_of_closed();
    let rows = everything(&copy.config.path);
    assert_eq!(rows.len(), 300);
    assert!(rows.iter().zip(1..).all(|(row, seq)| row.seq == seq));
    assert!(
        !beside(&copy.config.path, "-wal").exists(),
        "left something"
    );

    let foreign = copy.config.path.with_file_name("other.db");
    let connection = rusqlite::Connection::open(&foreign).unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    let error = Export::open(&foreign).unwrap_err().to_string();
    assert!(error.contains("another program"), "{error}");
    let absent = copy.config.path.with_file_name("absent.db");
    assert!(Export::open(&absent).is_err());
    assert!(!absent.exists(), "an export made a file");
}

#[test]
fn dead_letters_are_exported_whole() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    for payload in [b"one", b"two"] {
        keep(&buffer, "telemetry/a", payload);
    }
    for row in read_all(&buffer) {
        buffer.bury(row.id, "not authorised");
    }
    wait_until(|| buffer.status().dead_letters == 2);
    let mut export = Export::open(&fixture.config.path).unwrap();
    let letters = export.dead().unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[1].payload, b"two");
    assert_eq!(
        (letters[1].seq, letters[1].reason.as_str()),
        (2, "not authorised")
    );
    assert_eq!(export.dead().unwrap(), []);
}
