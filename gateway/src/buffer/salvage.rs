//! Opens the buffer's file whatever state it is in: sound, absent, torn, cut short or garbage.
//!
//! Invariant: a damaged file is never written to or deleted; what reads is copied row by row into a
//! fresh one, which takes its place in one rename, and what is lost is counted. Layer: driver.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use broker_lite::topic::TopicName;
use rusqlite::{Connection, Row, params, types::Value};

use super::{
    beside, file_size,
    retention::{Rank, Reason, Span},
    schema::{self, SchemaError},
    store,
};

/// Damaged files that are kept for an expert; the oldest leaves when there is one more.
const MAX_KEPT_ASIDE: u32 = 3;
/// Files up to this size are checked page by page before use; on a slow card that takes seconds.
/// Damage in larger ones is found when it is read.
const MAX_CHECKED_BYTES: u64 = 256 << 20;
/// First bytes of a write-ahead log, but for the last bit, which tells the byte order of its checksums.
const LOG_MAGIC: u32 = 0x377f_0682;
/// Rows copied per commit.
const COPIED_AT_ONCE: usize = 10_000;

/// What a salvage found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// Where the damaged file lies now.
    pub aside: PathBuf,
    /// What was wrong with it.
    pub damage: String,
    /// Rows that were copied.
    pub kept: u64,
    /// Messages that are known to be missing; `None` when nothing of the file could be read.
    pub lost: Option<u64>,
}

/// A file that is ready for its writer.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// There was a file without a log beside it, or with one that SQLite will not look into.
    pub(super) log_missing: bool,
    pub(super) salvaged: Option<Salvaged>,
}

/// Why there is no buffer for now: the disk, the permissions, or another process.
#[derive(Debug, thiserror::Error)]
pub(super) enum SalvageError {
    #[error("cannot open it: {0}")]
    Open(#[source] SchemaError),
    #[error("cannot {action} {path}: {source}")]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot copy what is left of it: {0}")]
    Copy(#[source] SchemaError),
}

/// Opens the file, salvaging it first where that is needed.
pub(super) fn open(path: &Path, max_pages: u64) -> Result<Opened, SalvageError> {
    finish_earlier(path)?;
    let existed = file_size(path) > 0;
    let log_missing = existed && !is_log(&beside(path, "-wal"));
    match open_checked(path, max_pages) {
        Ok(connection) => Ok(Opened {
            connection,
            log_missing,
            salvaged: None,
        }),
        Err(error) if error.is_damage() => salvage(path, max_pages, &error.to_string()),
        Err(error) => Err(SalvageError::Open(error)),
    }
}

/// Whether the file begins as a write-ahead log does [SQLite database file format, 4.1].
fn is_log(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && u32::from_be_bytes(magic) & !1 == LOG_MAGIC
}

/// Salvages a file whose damage showed while it was in use. All connections must be closed.
pub(super) fn salvage(path: &Path, max_pages: u64, damage: &str) -> Result<Opened, SalvageError> {
    let fresh_path = beside(path, ".salvage");
    remove_database(&fresh_path)?;
    let fresh = schema::open_writer(&fresh_path, max_pages).map_err(SalvageError::Copy)?;
    let copied = match schema::open_damaged(path) {
        Ok(damaged) => Copier::new(&damaged, &fresh).copy(),
        Err(_) => Ok(None),
    };
    let copied = copied.map_err(|error| SalvageError::Copy(error.into()))?;
    // Closing copies the log into the file, so that one rename moves all of it.
    fresh
        .close()
        .map_err(|(_, error)| SalvageError::Copy(error.into()))?;
    let aside = set_aside(path)?;
    rename(&fresh_path, path)?;
    let connection = schema::open_writer(path, max_pages).map_err(SalvageError::Open)?;
    if copied.is_none() {
        announce_total_loss(&connection).map_err(|error| SalvageError::Copy(error.into()))?;
    }
    Ok(Opened {
        connection,
        log_missing: false,
        salvaged: Some(Salvaged {
            aside,
            damage: damage.to_owned(),
            kept: copied.map_or(0, |copied| copied.kept),
            lost: copied.map(|copied| copied.lost),
        }),
    })
}

fn open_checked(path: &Path, max_pages: u64) -> Result<Connection, SchemaError> {
    let connection = schema::open_writer(path, max_pages)?;
    if file_size(path) <= MAX_CHECKED_BYTES {
        schema::quick_check(&connection)?;
    }
    Ok(connection)
}

/// A crash between the two renames of a salvage leaves only the fresh file.
fn finish_earlier(path: &Path) -> Result<(), SalvageError> {
    let fresh = beside(path, ".salvage");
    if !path.exists() && fresh.exists() {
        rename(&fresh, path)?;
    }
    Ok(())
}

fn set_aside(path: &Path) -> Result<PathBuf, SalvageError> {
    let name = |n: u32| beside(path, &format!(".corrupt-{n}"));
    if name(MAX_KEPT_ASIDE).exists() {
        remove_database(&name(1))?;
        for n in 2..=MAX_KEPT_ASIDE {
            rename_database(&name(n), &name(n - 1))?;
        }
    }
    let free = (1..=MAX_KEPT_ASIDE)
        .find(|n| !name(*n).exists())
        .unwrap_or(MAX_KEPT_ASIDE);
    rename_database(path, &name(free))?;
    Ok(name(free))
}

/// The log first: a log without its file must not meet the next file of that name.
fn rename_database(from: &Path, to: &Path) -> Result<(), SalvageError> {
    remove(&beside(from, "-shm"))?;
    if beside(from, "-wal").exists() {
        rename(&beside(from, "-wal"), &beside(to, "-wal"))?;
    }
    rename(from, to)
}

fn remove_database(path: &Path) -> Result<(), SalvageError> {
    remove(&beside(path, "-shm"))?;
    remove(&beside(path, "-wal"))?;
    remove(path)
}

fn rename(from: &Path, to: &Path) -> Result<(), SalvageError> {
    fs::rename(from, to).map_err(|source| SalvageError::File {
        action: "rename",
        path: from.to_owned(),
        source,
    })
}

fn remove(path: &Path) -> Result<(), SalvageError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SalvageError::File {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn announce_total_loss(connection: &Connection) -> Result<(), rusqlite::Error> {
    let topic = TopicName::parse("buffer").expect("a word is a topic name");
    let unknown = Span {
        first_seq: 0,
        last_seq: 0,
        first_us: 0,
        last_us: 0,
        count: 0,
    };
    store::enter_gap(connection, &topic, Reason::Damaged, &unknown)
}

#[derive(Debug, Default, Clone, Copy)]
struct Copied {
    kept: u64,
    lost: u64,
}

/// Numbering of a topic as the damaged file tells it.
#[derive(Debug)]
struct Numbering {
    name: TopicName,
    last_seq: i64,
    last_row: i64,
    copied_seq: i64,
    copied_row: i64,
    copied_us: i64,
}

/// Copies what reads from one connection to another.
struct Copier<'a> {
    damaged: &'a Connection,
    fresh: &'a Connection,
    topics: HashMap<i64, Numbering>,
    /// Ranges of row numbers that do not read.
    holes: Vec<(i64, i64)>,
    copied: Copied,
}

const MESSAGES_FROM: &str = "SELECT row, topic, seq, qos, retain, wall_us, monotonic_ns, boot,
    synced, properties, payload FROM message WHERE row >= ?1 ORDER BY row";
const MESSAGE_COLUMNS: usize = 11;

impl<'a> Copier<'a> {
    fn new(damaged: &'a Connection, fresh: &'a Connection) -> Copier<'a> {
        Copier {
            damaged,
            fresh,
            topics: HashMap::new(),
            holes: Vec::new(),
            copied: Copied::default(),
        }
    }

    /// `None` when not even the topics read; errors are the fresh file's.
    fn copy(mut self) -> Result<Option<Copied>, rusqlite::Error> {
        self.fresh.execute_batch("BEGIN")?;
        self.copy_topics()?;
        self.copy_reservations()?;
        if self.topics.is_empty() {
            self.fresh.execute_batch("COMMIT")?;
            return Ok(None);
        }
        self.copy_table("boot", "id, name")?;
        let gap = "id, topic, reason, first_seq, last_seq, first_us, last_us, count";
        self.copy_table("gap", gap)?;
        let dead = "id, topic, seq, wall_us, reason, payload";
        let buried = format!("{dead}, buried_us, bytes");
        let as_it_waited = "qos, retain, rank, monotonic_ns, boot, synced, properties";
        self.copy_table("dead_letter", &format!("{buried}, {as_it_waited}"))?;
        // Files from before schema 6, and from before 4, have fewer; what is copied already stays.
        self.copy_table("dead_letter", &buried)?;
        self.copy_table("dead_letter", dead)?;
        self.copy_table("arrival", "id, packet_id, digest, doubtful")?;
        // Files from before schema 7 have less; what is copied already stays.
        self.copy_table("arrival", "id, packet_id, digest")?;
        // The fresh file's own mark about its log is there already and stays.
        self.copy_table("mark", "name, value")?;
        self.copy_messages()?;
        schema::weigh_topics(self.fresh)?;
        self.announce_lost_tails()?;
        self.fresh.execute_batch("COMMIT")?;
        Ok(Some(self.copied))
    }

    /// From the front until a page does not read, then from the back.
    fn copy_topics(&mut self) -> Result<(), rusqlite::Error> {
        for order in ["ASC", "DESC"] {
            let sql = format!("SELECT id, name, last_seq, last_row FROM topic ORDER BY id {order}");
            let found = read_rows(self.damaged, &sql, 4);
            let complete = found.complete;
            for values in found.rows {
                self.copy_topic(&values)?;
            }
            if complete {
                break;
            }
        }
        Ok(())
    }

    /// Numbers that messages in memory may bear, of a file that knows of such.
    fn copy_reservations(&self) -> Result<(), rusqlite::Error> {
        for order in ["ASC", "DESC"] {
            let sql = format!("SELECT id, reserved_seq FROM topic ORDER BY id {order}");
            let found = read_rows(self.damaged, &sql, 2);
            for values in found.rows {
                self.fresh
                    .prepare_cached("UPDATE topic SET reserved_seq = ?2 WHERE id = ?1")?
                    .execute(rusqlite::params_from_iter(values))?;
            }
            if found.complete {
                break;
            }
        }
        Ok(())
    }

    fn copy_topic(&mut self, values: &[Value]) -> Result<(), rusqlite::Error> {
        let [
            Value::Integer(id),
            Value::Text(name),
            Value::Integer(last_seq),
            Value::Integer(last_row),
        ] = values
        else {
            return Ok(());
        };
        let Ok(name) = TopicName::parse(name) else {
            return Ok(());
        };
        self.fresh.execute(
            "INSERT OR IGNORE INTO topic (id, name, last_seq, last_row) VALUES (?1, ?2, ?3, ?4)",
            params![id, name.as_str(), last_seq, last_row],
        )?;
        self.topics.entry(*id).or_insert(Numbering {
            name,
            last_seq: *last_seq,
            last_row: *last_row,
            copied_seq: 0,
            copied_row: 0,
            copied_us: 0,
        });
        Ok(())
    }

    /// A table or column that the damaged file does not have copies nothing.
    fn copy_table(&self, table: &str, columns: &str) -> Result<(), rusqlite::Error> {
        let count = columns.split(',').count();
        let sql = format!("SELECT {columns} FROM {table}");
        let found = read_rows(self.damaged, &sql, count);
        let places = vec!["?"; count].join(",");
        let sql = format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})");
        for values in found.rows {
            self.fresh
                .prepare_cached(&sql)?
                .execute(rusqlite::params_from_iter(values))?;
        }
        Ok(())
    }

    fn copy_messages(&mut self) -> Result<(), rusqlite::Error> {
        let mut from = 0;
        loop {
            let next = self.copy_run(from)?;
            let Some(next) = next else {
                return self.write_tally();
            };
            match self.first_readable(next) {
                Some(readable) => {
                    self.holes.push((next, readable - 1));
                    from = readable;
                }
                None => {
                    self.holes.push((next, i64::MAX));
                    return self.write_tally();
                }
            }
        }
    }

    /// Copies from row `from` on; gives the row after the last one when the next does not read.
    fn copy_run(&mut self, from: i64) -> Result<Option<i64>, rusqlite::Error> {
        let mut next = from;
        let damaged = self.damaged;
        let Ok(mut statement) = damaged.prepare_cached(MESSAGES_FROM) else {
            return Ok(Some(next));
        };
        let Ok(mut rows) = statement.query([from]) else {
            return Ok(Some(next));
        };
        loop {
            match rows.next().map(|row| row.map(read_message)) {
                Ok(None) => return Ok(None),
                // Rows that do not ascend come from a page that belongs elsewhere.
                Ok(Some(Some(message))) if message.row >= next => {
                    self.copy_message(&message)?;
                    next = message.row.saturating_add(1);
                }
                _ => return Ok(Some(next)),
            }
        }
    }

    fn copy_message(&mut self, message: &Message) -> Result<(), rusqlite::Error> {
        let Some(topic) = self.topics.get_mut(&message.topic) else {
            self.copied.lost += 1;
            return Ok(());
        };
        let after_hole = self
            .holes
            .iter()
            .any(|(first, _)| topic.copied_row < *first && *first < message.row);
        if after_hole && topic.copied_seq > 0 && message.seq > topic.copied_seq + 1 {
            let span = span(topic, message.seq - 1, message.wall_us);
            self.copied.lost += span.count;
            store::enter_gap(self.fresh, &topic.name, Reason::Damaged, &span)?;
        }
        topic.copied_seq = message.seq;
        topic.copied_row = message.row;
        topic.copied_us = message.wall_us;
        self.fresh
            .prepare_cached("INSERT INTO message VALUES (?,?,?,?,?,?,?,?,?,?,?)")?
            .execute(rusqlite::params_from_iter(&message.values))?;
        self.copied.kept += 1;
        if self.copied.kept.is_multiple_of(COPIED_AT_ONCE as u64) {
            self.fresh.execute_batch("COMMIT; BEGIN")?;
        }
        Ok(())
    }

    /// The end of the damaged range: doubling steps until a row reads, then halving back.
    fn first_readable(&self, from: i64) -> Option<i64> {
        let mut step = 1_i64;
        let (mut bad, mut good) = (from, None);
        while good.is_none() {
            let probe = from.checked_add(step)?;
            match self.row_at_or_after(probe) {
                Probe::Row(row) => good = Some(row),
                Probe::End => return None,
                Probe::Damaged => bad = probe,
            }
            step = step.checked_mul(2)?;
        }
        let mut good = good?;
        while bad + 1 < good {
            let probe = bad + (good - bad) / 2;
            match self.row_at_or_after(probe) {
                Probe::Row(row) if row < good => good = row,
                Probe::Row(_) => good = good.min(probe),
                Probe::End | Probe::Damaged => bad = probe,
            }
        }
        Some(good)
    }

    fn row_at_or_after(&self, from: i64) -> Probe {
        let read = || -> Result<Option<Option<Message>>, rusqlite::Error> {
            let mut statement = self.damaged.prepare_cached(MESSAGES_FROM)?;
            let mut rows = statement.query([from])?;
            Ok(rows.next()?.map(read_message))
        };
        match read() {
            Ok(Some(Some(message))) if message.row >= from => Probe::Row(message.row),
            Ok(None) => Probe::End,
            _ => Probe::Damaged,
        }
    }

    /// A topic whose newest row was in a hole has lost its last numbers.
    fn announce_lost_tails(&mut self) -> Result<(), rusqlite::Error> {
        for topic in self.topics.values() {
            let in_hole = |(first, last): &(i64, i64)| (*first..=*last).contains(&topic.last_row);
            if topic.last_row > topic.copied_row && self.holes.iter().any(in_hole) {
                let mut span = span(topic, topic.last_seq, topic.copied_us);
                if topic.copied_seq == 0 {
                    // How many before it were still waiting is not known.
                    span.first_seq = span.last_seq;
                    span.count = 1;
                }
                self.copied.lost += span.count;
                store::enter_gap(self.fresh, &topic.name, Reason::Damaged, &span)?;
            }
        }
        Ok(())
    }

    fn write_tally(&self) -> Result<(), rusqlite::Error> {
        for rank in Rank::all() {
            let (first, end) = rank.rows();
            self.fresh.execute(
                "UPDATE tally SET rows =
                 (SELECT count(*) FROM message WHERE row BETWEEN ?2 AND ?3) WHERE rank = ?1",
                params![rank.index() as i64, first, end],
            )?;
        }
        Ok(())
    }
}

enum Probe {
    Row(i64),
    End,
    Damaged,
}

struct Message {
    row: i64,
    topic: i64,
    seq: i64,
    wall_us: i64,
    values: Vec<Value>,
}

/// `None` for a row whose columns are not of the types they should be.
fn read_message(row: &Row<'_>) -> Option<Message> {
    let values = read_values(row, MESSAGE_COLUMNS).ok()?;
    let integer = |column: usize| match values[column] {
        Value::Integer(number) => Some(number),
        _ => None,
    };
    let is_blob = matches!(values[10], Value::Blob(_));
    Some(Message {
        row: integer(0)?,
        topic: integer(1)?,
        seq: integer(2).filter(|_| is_blob)?,
        wall_us: integer(5)?,
        values,
    })
}

fn read_values(row: &Row<'_>, columns: usize) -> Result<Vec<Value>, rusqlite::Error> {
    (0..columns).map(|column| row.get(column)).collect()
}

fn span(topic: &Numbering, last_seq: i64, last_us: i64) -> Span {
    Span {
        first_seq: topic.copied_seq as u64 + 1,
        last_seq: last_seq as u64,
        first_us: topic.copied_us,
        last_us,
        count: (last_seq - topic.copied_seq).max(0) as u64,
    }
}

/// Rows up to the first that does not read.
struct Found {
    rows: Vec<Vec<Value>>,
    complete: bool,
}

fn read_rows(connection: &Connection, sql: &str, columns: usize) -> Found {
    let mut found = Found {
        rows: Vec::new(),
        complete: false,
    };
    let mut read = || -> Result<(), rusqlite::Error> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            found.rows.push(read_values(row, columns)?);
        }
        Ok(())
    };
    found.complete = read().is_ok();
    found
}
