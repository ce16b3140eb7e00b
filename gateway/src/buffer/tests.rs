//! The buffer's promises, on real files.
#![expect(clippy::disallowed_methods, reason = "tests measure time")]

mod complaints;
mod cost;
mod damage;
mod exporting;
mod failures;
mod keeping;
mod letters;
mod limits;
mod memory;

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    sync::mpsc,
    time::{Duration, Instant},
};

use broker_lite::packet::{MessageProperties, QoS};
use bytes::Bytes;
use settings::{Period, Size};
use tempfile::TempDir;

use super::*;
use crate::{
    config::{Forward, Priority, Store, WhenFull},
    reading::ClockState,
};

/// Long enough for a slow, shared machine; reached only by a failing test.
const PATIENCE: Duration = Duration::from_secs(30);

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

    /// The file elsewhere, once it is closed and has no log.
    fn copy_of_closed(&self) -> Fixture {
        let image = Fixture::new();
        fs::copy(&self.config.path, &image.config.path).unwrap();
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
        priority,
        ..Forward::example(filter)
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

fn entry(buffer: &Buffer, topic: &str) -> Entry {
    Entry {
        message: Message::new(TopicName::parse(topic).unwrap(), &b"x"[..]),
        properties: None,
        rank: Rank::of(Priority::Normal),
        stamp: buffer.0.shared.clock.stamp(),
        memory: false,
        receipt: Receipt::new(|_| {}),
    }
}
