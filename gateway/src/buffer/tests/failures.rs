//! What the buffer promises: a disk that fails or is full.

use super::*;

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
