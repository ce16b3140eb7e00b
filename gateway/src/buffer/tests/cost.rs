//! What storing costs the medium: bytes written to it per payload byte, by mode, size and rate.
//!
//! Run by hand; it takes six minutes: `cargo test -p gateway --lib -- --ignored --nocapture cost::`.
//! With `GATEWAY_WEAR_DIR` on a file system of its own, what reaches the device counts too, its
//! journal included.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;

const TOPICS: u64 = 10;
const DIRECTORY: &str = "GATEWAY_WEAR_DIR";

/// One row of the table.
struct Mode {
    store: Store,
    connected: bool,
    payload: usize,
    per_second: u64,
    seconds: u64,
}

#[test]
#[ignore = "a measurement of six minutes"]
fn bytes_written_per_payload_byte() {
    println!("| store | link | payload | rate | by the buffer | on the device |");
    println!("|---|---|---|---|---|---|");
    for store in [Store::Durable, Store::MemoryFirst] {
        for connected in [true, false] {
            for payload in [100, 1000] {
                for (per_second, seconds) in [(10, 30), (1000, 15)] {
                    measure(&Mode {
                        store,
                        connected,
                        payload,
                        per_second,
                        seconds,
                    });
                }
            }
        }
    }
}

fn measure(mode: &Mode) {
    let place = env::var_os(DIRECTORY).map_or_else(env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(place).unwrap();
    let config = config::Buffer {
        path: directory.path().join("buffer.db"),
        ..config::Buffer::default()
    };
    let rule = Forward {
        store: mode.store,
        ..rule("telemetry/#", Priority::Normal)
    };
    let buffer = Buffer::open(&config, &[rule]).unwrap();
    buffer.link_is_up(mode.connected);
    let device = || {
        // Nothing of the file system's own is held back.
        fs::File::open(directory.path())
            .unwrap()
            .sync_all()
            .unwrap();
        let wear = buffer.0.shared.medium.wear(&buffer.0.shared.clock);
        wear.device.map_or(0, |device| device.written)
    };
    warm_up(&buffer);
    let (start, before) = (buffer.status().wear, device());
    publish(&buffer, mode);
    buffer.0.close();
    let after = device();
    let wear = buffer.0.shared.medium.wear(&buffer.0.shared.clock);
    let payload = wear.payload - start.payload;
    let share = |written: u64| written as f64 / payload as f64;
    println!(
        "| {:?} | {} | {} B | {}/s | {:.2} | {:.2} |",
        mode.store,
        if mode.connected { "up" } else { "down" },
        mode.payload,
        mode.per_second,
        share(wear.written - start.written),
        share(after - before)
    );
    assert_eq!(
        payload,
        mode.per_second * mode.seconds * mode.payload as u64
    );
}

/// A log that still grows costs the file system's journal more than one that is written over, and a
/// topic's first message reserves its numbers: neither is what an hour of service costs.
fn warm_up(buffer: &Buffer) {
    let size = || file_size(&beside(&buffer.0.path, "-wal"));
    while size() < 4 << 20 {
        assert_eq!(keep(buffer, "telemetry/0", &[7; 100_000]), Kept::Committed);
    }
    for number in 0..TOPICS {
        let topic = TopicName::parse(&format!("telemetry/{number}")).unwrap();
        let message = Message::new(topic, "first").with_qos(QoS::AtMostOnce);
        assert_eq!(keep_message(buffer, &message), Kept::Committed);
    }
    buffer.delete(read_all(buffer).iter().map(|row| row.id));
    wait_until(|| buffer.status().rows == 0);
    let other = rusqlite::Connection::open(&buffer.0.path).unwrap();
    let free = "PRAGMA freelist_count";
    // Giving the first rows' space back is none of the mode's cost either.
    wait_until(|| {
        other
            .query_row(free, [], |row| row.get(0))
            .is_ok_and(|pages: i64| pages <= 1024)
    });
    let checkpoint = "PRAGMA wal_checkpoint(PASSIVE)";
    other.query_row(checkpoint, [], |_| Ok(())).unwrap();
}

/// Publishes at the mode's rate on ten topics, and forwards beside it while connected.
fn publish(buffer: &Buffer, mode: &Mode) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        if mode.connected {
            scope.spawn(|| forward(buffer, &done));
        }
        let started = Instant::now();
        for number in 0..mode.per_second * mode.seconds {
            let due = started + Duration::from_secs(1) * number as u32 / mode.per_second as u32;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let topic = TopicName::parse(&format!("telemetry/{}", number % TOPICS)).unwrap();
            let message = Message::new(topic, vec![7; mode.payload]);
            drop(send(buffer, &message.with_qos(QoS::AtMostOnce)));
        }
        if mode.connected {
            wait_until(|| buffer.status().queued == 0 && buffer.status().rows == 0);
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// An upstream that takes everything within some milliseconds.
fn forward(buffer: &Buffer, done: &AtomicBool) {
    let mut cursor = Cursor::default();
    while !done.load(Ordering::Relaxed) {
        let rows = buffer.read(&cursor, 200, usize::MAX).unwrap();
        rows.iter().for_each(|row| cursor.pass(row.id));
        thread::sleep(Duration::from_millis(5));
        buffer.delete(rows.iter().map(|row| row.id));
    }
}
