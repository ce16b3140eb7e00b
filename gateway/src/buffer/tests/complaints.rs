//! What users report of other gateways' stores, shown not to happen here; docs/buffer.md lists them all.

use super::*;

#[test]
fn a_thousand_messages_take_a_few_synced_commits() {
    // The longest delay, so that a slow machine makes no more commits of them.
    let fixture = Fixture::with(|config| config.commit_delay = Period::from_millis(1000));
    let buffer = fixture.open();
    let before = *buffer.appended().borrow();
    let answers: Vec<_> = (0..1000)
        .map(|_| keep_later(&buffer, "telemetry/a", b"x"))
        .collect();
    for answer in answers {
        assert_eq!(answer.recv_timeout(PATIENCE), Ok(Kept::Committed));
    }
    let commits = *buffer.appended().borrow() - before;
    assert!(commits <= 10, "{commits} commits");
}

#[test]
fn what_the_upstream_has_is_not_read_again_after_a_restart() {
    let fixture = Fixture::new();
    let buffer = fixture.open();
    for _ in 0..3 {
        assert_eq!(keep(&buffer, "telemetry/a", b"x"), Kept::Committed);
    }
    let rows = read_all(&buffer);
    buffer.delete(rows[..2].iter().map(|row| row.id));
    buffer.0.close();
    let left = read_all(&fixture.open());
    let seqs: Vec<_> = left.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, [3]);
}

#[test]
fn a_log_of_garbage_stops_no_start_is_announced_and_its_numbers_are_not_used_again() {
    damage::a_loss_is_announced(|log| {
        let size = usize::try_from(file_size(log)).unwrap();
        fs::write(log, vec![0xA5; size]).unwrap();
    });
}
