//! What is salvaged of a damaged file, case by case, and who may read a sound one: a driver's tests.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    salvage::beside,
    tests::{delivery, filter, message, open, session, stored, subscription, will},
};
use crate::{
    ids::{DeliveryKey, MessageKey, SessionKey},
    journal::{Change, Progress, RetainedRecord},
};

const MESSAGES: u64 = 400;

/// A session with a subscription, a will, and messages on many pages, one of them retained.
fn fill(path: &Path) {
    let running = open(path);
    let retained = RetainedRecord {
        message: MessageKey(1),
        publisher: None,
    };
    let mut changes = vec![
        Change::SessionBegins(SessionKey(1), session("client")),
        Change::Subscribed(SessionKey(1), filter("t/#"), subscription()),
        Change::WillLeft(will("client", None)),
    ];
    for number in 1..=MESSAGES {
        changes.push(Change::MessageHeld(message(number)));
        let record = delivery(number, Progress::Queued);
        changes.push(Change::Queued(DeliveryKey(number), record));
    }
    let topic = message(1).message.topic.clone();
    changes.push(Change::Retained(topic, retained));
    running.commit(1, false, changes);
}

/// A file and its log, the log with the last commits, as a kill leaves them.
fn killed(folder: &Path) -> PathBuf {
    let (live, path) = (folder.join("live.db"), folder.join("broker.db"));
    fill(&live);
    let running = open(&live);
    let late = message(MESSAGES + 1);
    let record = delivery(MESSAGES + 1, Progress::Queued);
    let late = vec![
        Change::MessageHeld(late),
        Change::Queued(DeliveryKey(MESSAGES + 1), record),
    ];
    running.commit(1, false, late);
    for suffix in ["", "-wal"] {
        fs::copy(beside(&live, suffix), beside(&path, suffix)).unwrap();
    }
    drop(running);
    path
}

fn edit(path: &Path, edit: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn set_version(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
}

/// What is to be left: sessions, messages at least, and whether a file is kept aside.
struct Case {
    name: &'static str,
    damage: fn(&Path),
    sessions: usize,
    messages: std::ops::RangeInclusive<u64>,
    aside: bool,
}

const CASES: [Case; 9] = [
    Case {
        name: "undamaged",
        damage: |_| (),
        sessions: 1,
        messages: MESSAGES + 1..=MESSAGES + 1,
        aside: false,
    },
    Case {
        name: "the log is lost",
        damage: |path| fs::remove_file(beside(path, "-wal")).unwrap(),
        sessions: 1,
        messages: MESSAGES..=MESSAGES,
        aside: false,
    },
    Case {
        name: "the log is garbage",
        damage: |path| edit(&beside(path, "-wal"), |log| log.fill(0x5a)),
        sessions: 1,
        messages: MESSAGES..=MESSAGES,
        aside: false,
    },
    Case {
        name: "a torn page in the middle",
        damage: |path| {
            edit(path, |file| {
                let middle = file.len() / 8192 * 4096;
                file[middle..middle + 2048].fill(0xff);
            });
        },
        sessions: 1,
        messages: 1..=MESSAGES,
        aside: true,
    },
    Case {
        name: "cut to half",
        damage: |path| edit(path, |file| file.truncate(file.len() / 2)),
        sessions: 1,
        messages: 1..=MESSAGES,
        aside: true,
    },
    Case {
        name: "a garbage header, and no log that repairs it",
        damage: |path| {
            fs::remove_file(beside(path, "-wal")).unwrap();
            edit(path, |file| file[..100].fill(0x5a));
        },
        sessions: 0,
        messages: 0..=0,
        aside: true,
    },
    Case {
        name: "a schema that does not read",
        damage: |path| {
            fs::remove_file(beside(path, "-wal")).unwrap();
            edit(path, |file| file[100..4096].fill(0));
        },
        sessions: 0,
        messages: 0..=0,
        aside: true,
    },
    Case {
        name: "written by a newer version",
        damage: set_version,
        sessions: 1,
        messages: MESSAGES + 1..=MESSAGES + 1,
        aside: true,
    },
    Case {
        name: "empty",
        damage: |path| {
            fs::remove_file(beside(path, "-wal")).unwrap();
            fs::write(path, "").unwrap();
        },
        sessions: 0,
        messages: 0..=0,
        aside: false,
    },
];

#[test]
fn whatever_is_damaged_the_store_opens_with_what_reads_and_keeps_the_rest_aside() {
    for case in CASES {
        let name = case.name;
        let folder = tempfile::tempdir().unwrap();
        let path = killed(folder.path());
        (case.damage)(&path);
        let running = open(&path);
        let status = running.store.status();
        let found = stored(running.found);
        let messages = found.messages.len() as u64;
        println!(
            "{name}: {} sessions, {messages} messages",
            found.sessions.len()
        );
        assert_eq!(found.sessions.len(), case.sessions, "{name}");
        assert!(case.messages.contains(&messages), "{name}: {messages}");
        assert_eq!(status.salvaged.is_some(), case.aside, "{name}: {status:?}");
        assert_eq!(beside(&path, ".corrupt-1").exists(), case.aside, "{name}");
        drop(running.store);
        let again = open(&path);
        assert_eq!(
            again.store.status().salvaged,
            None,
            "{name}: once is enough"
        );
        let again = stored(again.found);
        assert_eq!(again.sessions.len(), case.sessions, "{name}, opened again");
        assert_eq!(
            again.messages.len() as u64,
            messages,
            "{name}, opened again"
        );
        assert_eq!(
            again.retained.len(),
            found.retained.len(),
            "{name}, opened again"
        );
        assert_eq!(again.wills, found.wills, "{name}, opened again");
    }
}

#[test]
fn no_more_than_three_damaged_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    for _ in 0..5 {
        fs::write(&path, "no database, but long enough for one. ".repeat(30)).unwrap();
        drop(open(&path));
    }
    let names = fs::read_dir(folder.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains("corrupt")).count(), 3);
}

#[test]
fn a_salvage_that_a_crash_cut_short_is_finished_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    fill(&path);
    fs::rename(&path, beside(&path, ".salvaged")).unwrap();
    fs::write(&path, "what was damaged").unwrap();
    assert_eq!(stored(open(&path).found).sessions.len(), 1);
    let aside = fs::read(beside(&path, ".corrupt-1")).unwrap();
    assert_eq!(aside, b"what was damaged");
}

#[test]
fn a_file_that_others_may_read_is_closed_to_them_cve_2017_9868() {
    let folder = tempfile::tempdir().unwrap();
    let path = killed(folder.path());
    for suffix in ["", "-wal"] {
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(beside(&path, suffix), open).unwrap();
    }
    let _running = open(&path);
    for suffix in ["", "-wal", "-shm"] {
        let mode = fs::metadata(beside(&path, suffix)).unwrap();
        let mode = mode.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "broker.db{suffix}");
    }
}

#[test]
fn the_space_of_a_burst_is_given_back_and_the_log_stays_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let running = open(&path);
    let length = |suffix| fs::metadata(beside(&path, suffix)).unwrap().len();
    let begins = Change::SessionBegins(SessionKey(1), session("client"));
    running.commit(1, false, vec![begins]);
    const BURST: u64 = 60_000;
    let mut changes = Vec::new();
    for number in 1..=BURST {
        changes.push(Change::MessageHeld(message(number)));
        let record = delivery(number, Progress::Queued);
        changes.push(Change::Queued(DeliveryKey(number), record));
    }
    running.commit(2, false, changes);
    running.commit(
        3,
        false,
        vec![Change::Took(SessionKey(1), super::tests::packet_id(1))],
    );
    let full = length("");
    let gone = (1..=BURST).flat_map(|number| {
        let over = Change::Delivered(DeliveryKey(number));
        [over, Change::MessageGone(MessageKey(number))]
    });
    running.commit(4, false, gone.collect());
    for number in 5..200 {
        let id = super::tests::packet_id(number as u16);
        running.commit(number, false, vec![Change::Took(SessionKey(1), id)]);
    }
    assert!(full > 20 << 20, "the burst took {full} bytes");
    assert!(
        length("") < 8 << 20,
        "{} of {full} bytes are left",
        length("")
    );
    assert!(
        length("-wal") <= 8 << 20,
        "the log has {} bytes",
        length("-wal")
    );
}
