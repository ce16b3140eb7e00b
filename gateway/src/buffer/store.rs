//! The SQLite file's one writer: a batch goes in and out in one transaction.
//!
//! Invariant: what is remembered here changes only after the transaction that holds it is on disk,
//! so a failed commit can be tried again as it is. Layer: driver.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use broker_lite::{keeper::Kept, topic::TopicName};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{
    inbox::{Batch, Entry, Removal},
    retention::{self, GapBook, RANKS, Rank, Reason, Span, Verdict},
    schema::{self, PAGE_BYTES, SchemaError},
};
use crate::{config::WhenFull, reading::ClockState};

/// Topics whose numbering is remembered; a message on one more is refused.
const MAX_TOPICS: usize = 100_000;
/// Messages kept that the upstream will never take; older ones leave.
const MAX_DEAD_LETTERS: i64 = 1000;
/// Boots that rows may refer to; an older one's rows only lose their monotonic time.
const MAX_BOOTS: i64 = 1000;
/// Pages left for gaps, topics and the tree above the rows when no row fits any more.
const RESERVED_PAGES: u64 = 64;
/// Free pages that stay in the file for the next rows: 4 MiB.
const FREE_PAGES_KEPT: u64 = 1024;
/// Free pages given back per step, so that a commit never waits long for it.
const VACUUM_STEP: u64 = 256;
/// How far numbering leaps over the numbers that a lost log may have held.
const LOG_LOST_LEAP: u64 = 1 << 20;
/// Smallest share of `max_size` for the file when the log takes its own.
const LOG_SHARE: u64 = 4;
const MAX_LOG_BYTES: u64 = 16 << 20;

/// How large the file may grow and what happens then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_bytes: u64,
    pub(super) when_full: WhenFull,
}

impl Limits {
    /// Bytes that the write-ahead log may take before it is cut.
    pub(super) fn log_bytes(&self) -> u64 {
        (self.max_bytes / LOG_SHARE).min(MAX_LOG_BYTES)
    }

    /// Pages for the file itself.
    pub(super) fn pages(&self) -> u64 {
        (self.max_bytes - self.log_bytes()) / PAGE_BYTES
    }
}

#[derive(Debug, Clone, Copy)]
struct Topic {
    id: i64,
    last_seq: u64,
    last_row: i64,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
    limits: Limits,
    topics: HashMap<TopicName, Topic>,
    waiting: [u64; RANKS],
    next_order: i64,
    boot: i64,
    /// Pages by which a file that hit its hard bound aims below it.
    squeeze: u64,
}

/// What one commit did.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// One answer per entry of the batch.
    pub(super) answers: Vec<Kept>,
    pub(super) appended: u64,
    pub(super) forwarded: u64,
    pub(super) buried: u64,
    pub(super) gaps: GapBook,
}

impl Store {
    /// Takes over a connection that [`schema::open_writer`] opened.
    ///
    /// `log_missing` says that no log lay beside the file when it was opened.
    pub(super) fn new(
        connection: Connection,
        path: &Path,
        limits: Limits,
        boot: &str,
        log_missing: bool,
    ) -> Result<(Store, bool), SchemaError> {
        let mut store = Store {
            topics: load_topics(&connection)?,
            waiting: load_tally(&connection)?,
            next_order: next_order(&connection)?,
            boot: enter_boot(&connection, boot)?,
            path: path.to_owned(),
            connection,
            limits,
            squeeze: 0,
        };
        let was_open: bool = store.connection.query_row(
            "SELECT value <> 0 FROM mark WHERE name = 'open'",
            [],
            |row| row.get(0),
        )?;
        let log_lost = was_open && log_missing;
        if log_lost {
            store.leap_over_lost_log()?;
        }
        store.mark_open(true)?;
        Ok((store, log_lost))
    }

    /// Orders continue above `order`: a fresh file must not reuse numbers that a reader has seen.
    pub(super) fn continue_after(&mut self, order: i64) {
        self.next_order = self.next_order.max(order + 1);
    }

    /// The order that the last row got.
    pub(super) fn last_order(&self) -> i64 {
        self.next_order - 1
    }

    /// Rows that wait for the upstream.
    pub(super) fn rows(&self) -> u64 {
        self.waiting.iter().sum()
    }

    /// Puts the whole batch on disk, or nothing of it.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<Done, rusqlite::Error> {
        let result = self.try_commit(batch);
        match &result {
            Ok(_) => self.squeeze = 0,
            Err(error) if is_full(error) && self.is_at_bound() => self.squeeze += VACUUM_STEP,
            Err(_) => {}
        }
        result
    }

    fn try_commit(&mut self, batch: &Batch) -> Result<Done, rusqlite::Error> {
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut draft = Draft::new(self, &transaction);
        for removal in &batch.removals {
            draft.remove(removal)?;
        }
        draft.measure()?;
        for entry in &batch.entries {
            let answer = draft.append(entry)?;
            draft.done.answers.push(answer);
        }
        draft.write_changes()?;
        let Draft {
            topics,
            waiting,
            next_order,
            done,
            ..
        } = draft;
        transaction.commit()?;
        self.topics.extend(topics);
        self.waiting = waiting;
        self.next_order = next_order;
        Ok(done)
    }

    /// Gives back a step of free pages; tells whether more are left.
    pub(super) fn vacuum_step(&self) -> Result<bool, rusqlite::Error> {
        let free: u64 = pragma(&self.connection, "freelist_count")?;
        if free <= FREE_PAGES_KEPT {
            return Ok(false);
        }
        let step = VACUUM_STEP.min(free - FREE_PAGES_KEPT);
        let mut statement = self
            .connection
            .prepare(&format!("PRAGMA incremental_vacuum({step})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        drop(statement);
        if free - step <= FREE_PAGES_KEPT {
            // The file shrinks when the log that says so is copied into it.
            self.checkpoint("PASSIVE")?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Cuts a log that a long reader has let grow past its share.
    pub(super) fn bound_log(&self) -> Result<(), rusqlite::Error> {
        let size = super::file_size(&super::beside(&self.path, "-wal"));
        if size > self.limits.log_bytes() {
            self.checkpoint("TRUNCATE")?;
        }
        Ok(())
    }

    /// SQLite's check of the whole file, past the pages that this connection has in memory.
    pub(super) fn check(&self) -> Result<(), SchemaError> {
        schema::quick_check(&schema::open_reader(&self.path)?)
    }

    /// Copies the log into the file and says that nothing is missing.
    pub(super) fn close(self) -> Result<(), rusqlite::Error> {
        self.mark_open(false)?;
        self.connection.close().map_err(|(_, error)| error)
    }

    fn mark_open(&self, open: bool) -> Result<(), rusqlite::Error> {
        self.connection.execute(
            "UPDATE mark SET value = ?1 WHERE name = 'open'",
            [i64::from(open)],
        )?;
        // In the file itself, not in the log whose loss it is to tell.
        self.checkpoint("TRUNCATE")
    }

    fn checkpoint(&self, mode: &str) -> Result<(), rusqlite::Error> {
        self.connection
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
    }

    fn is_at_bound(&self) -> bool {
        pragma(&self.connection, "page_count")
            .is_ok_and(|pages: u64| pages + RESERVED_PAGES >= self.limits.pages())
    }

    fn leap_over_lost_log(&mut self) -> Result<(), rusqlite::Error> {
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut draft = Draft::new(self, &transaction);
        for (name, topic) in &self.topics {
            let last_seq = topic.last_seq + LOG_LOST_LEAP;
            let span = Span {
                first_seq: topic.last_seq + 1,
                last_seq,
                first_us: 0,
                last_us: 0,
                count: 0,
            };
            draft.done.gaps.enter_span(name, Reason::LogLost, span);
            draft
                .topics
                .insert(name.clone(), Topic { last_seq, ..*topic });
        }
        draft.write_changes()?;
        let topics = draft.topics;
        transaction.commit()?;
        self.topics.extend(topics);
        Ok(())
    }
}

/// A transaction under way and what it will have changed.
struct Draft<'a> {
    store: &'a Store,
    transaction: &'a Transaction<'a>,
    topics: HashMap<TopicName, Topic>,
    waiting: [u64; RANKS],
    next_order: i64,
    room: u64,
    done: Done,
}

impl<'a> Draft<'a> {
    fn new(store: &'a Store, transaction: &'a Transaction<'a>) -> Draft<'a> {
        Draft {
            store,
            transaction,
            topics: HashMap::new(),
            waiting: store.waiting,
            next_order: store.next_order,
            room: 0,
            done: Done::default(),
        }
    }

    /// Finds out how many bytes of rows still fit.
    fn measure(&mut self) -> Result<(), rusqlite::Error> {
        let pages: u64 = pragma(self.transaction, "page_count")?;
        let free: u64 = pragma(self.transaction, "freelist_count")?;
        let used = pages - free + RESERVED_PAGES + self.store.squeeze;
        self.room = self.store.limits.pages().saturating_sub(used) * PAGE_BYTES;
        Ok(())
    }

    fn append(&mut self, entry: &Entry) -> Result<Kept, rusqlite::Error> {
        let cost = entry.cost() as u64;
        if cost > self.store.limits.pages() * PAGE_BYTES / 2 {
            return Ok(Kept::Refused);
        }
        let Some(mut topic) = self.topic(&entry.message.topic)? else {
            return Ok(Kept::Refused);
        };
        let seq = (topic.last_seq + 1).max(entry.message.sequence.unwrap_or(0));
        while cost > self.room {
            let limits = self.store.limits;
            match retention::verdict(limits.when_full, entry.rank, &self.waiting) {
                Verdict::Evict(rank, rows) => self.evict(rank, rows)?,
                Verdict::Refuse => return Ok(Kept::Refused),
                Verdict::Drop => {
                    let name = &entry.message.topic;
                    self.done
                        .gaps
                        .enter(name, Reason::Full, seq, entry.stamp.wall_us);
                    topic.last_seq = seq;
                    self.topics.insert(name.clone(), topic);
                    return Ok(Kept::Committed);
                }
            }
        }
        let rank = self.rank_in_order(entry.rank, topic.last_row)?;
        topic.last_row = rank.row(self.next_order);
        topic.last_seq = seq;
        self.insert(entry, &topic)?;
        self.next_order += 1;
        self.waiting[rank.index()] += 1;
        self.room -= cost;
        self.done.appended += 1;
        self.topics.insert(entry.message.topic.clone(), topic);
        Ok(Kept::Committed)
    }

    fn insert(&self, entry: &Entry, topic: &Topic) -> Result<(), rusqlite::Error> {
        let message = &entry.message;
        self.transaction
            .prepare_cached("INSERT INTO message VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)")?
            .execute(params![
                topic.last_row,
                topic.id,
                topic.last_seq as i64,
                message.qos as u8,
                message.retain,
                entry.stamp.wall_us,
                entry.stamp.monotonic_ns,
                self.store.boot,
                entry.stamp.clock == ClockState::Synced,
                entry.properties,
                &message.payload[..],
            ])?;
        Ok(())
    }

    /// A rule's priority may change while older rows of a topic still wait: their order counts more.
    fn rank_in_order(&self, wanted: Rank, last_row: i64) -> Result<Rank, rusqlite::Error> {
        let last = Rank::of_row(last_row);
        if last_row == 0 || last == wanted || self.waiting[last.index()] == 0 {
            return Ok(wanted);
        }
        let (first, end) = last.rows();
        let oldest: Option<i64> = self
            .transaction
            .prepare_cached("SELECT min(row) FROM message WHERE row BETWEEN ?1 AND ?2")?
            .query_row([first, end], |row| row.get(0))?;
        let still_waits = oldest.is_some_and(|oldest| oldest <= last_row);
        Ok(if still_waits { last } else { wanted })
    }

    fn evict(&mut self, rank: Rank, rows: u64) -> Result<(), rusqlite::Error> {
        let (first, end) = rank.rows();
        let mut statement = self.transaction.prepare_cached(
            "SELECT m.row, m.seq, m.wall_us, t.name FROM message m LEFT JOIN topic t ON t.id = m.topic
             WHERE m.row BETWEEN ?1 AND ?2 ORDER BY m.row LIMIT ?3",
        )?;
        let mut victims = statement.query(params![first, end, rows as i64])?;
        let mut through = first;
        while let Some(victim) = victims.next()? {
            through = victim.get(0)?;
            let name: Option<String> = victim.get(3)?;
            if let Some(topic) = name.and_then(|name| TopicName::parse(&name).ok()) {
                let seq: i64 = victim.get(1)?;
                self.done
                    .gaps
                    .enter(&topic, Reason::Evicted, seq as u64, victim.get(2)?);
            }
        }
        let gone = self
            .transaction
            .prepare_cached("DELETE FROM message WHERE row BETWEEN ?1 AND ?2")?
            .execute([first, through])? as u64;
        let waiting = &mut self.waiting[rank.index()];
        // A tally that promised rows that are not there is put right, else this would not end.
        *waiting = if gone == 0 {
            0
        } else {
            waiting.saturating_sub(gone)
        };
        self.measure()
    }

    fn remove(&mut self, removal: &Removal) -> Result<(), rusqlite::Error> {
        match removal {
            Removal::Row(row) => self.done.forwarded += self.delete_row(*row)?,
            Removal::Bury(row, reason) => {
                self.transaction
                    .prepare_cached(
                        "INSERT INTO dead_letter (topic, seq, wall_us, reason, payload)
                         SELECT t.name, m.seq, m.wall_us, ?2, m.payload
                         FROM message m JOIN topic t ON t.id = m.topic WHERE m.row = ?1",
                    )?
                    .execute(params![row, reason])?;
                self.done.buried += self.delete_row(*row)?;
                self.transaction
                    .prepare_cached(
                        "DELETE FROM dead_letter
                         WHERE id <= (SELECT max(id) FROM dead_letter) - ?1",
                    )?
                    .execute([MAX_DEAD_LETTERS])?;
            }
            Removal::Gap { id, count } => {
                // One that has grown since it was sent stays, to be sent again as it is now.
                self.transaction
                    .prepare_cached("DELETE FROM gap WHERE id = ?1 AND count = ?2")?
                    .execute(params![id, *count as i64])?;
            }
        }
        Ok(())
    }

    fn delete_row(&mut self, row: i64) -> Result<u64, rusqlite::Error> {
        let gone = self
            .transaction
            .prepare_cached("DELETE FROM message WHERE row = ?1")?
            .execute([row])? as u64;
        let waiting = &mut self.waiting[Rank::of_row(row).index()];
        *waiting = waiting.saturating_sub(gone);
        Ok(gone)
    }

    /// The topic's numbering; `None` when there are too many topics.
    fn topic(&mut self, name: &TopicName) -> Result<Option<Topic>, rusqlite::Error> {
        if let Some(topic) = self
            .topics
            .get(name)
            .or_else(|| self.store.topics.get(name))
        {
            return Ok(Some(*topic));
        }
        if self.store.topics.len() + self.topics.len() >= MAX_TOPICS {
            return Ok(None);
        }
        self.transaction
            .prepare_cached("INSERT INTO topic (name, last_seq, last_row) VALUES (?1, 0, 0)")?
            .execute([name.as_str()])?;
        let topic = Topic {
            id: self.transaction.last_insert_rowid(),
            last_seq: 0,
            last_row: 0,
        };
        self.topics.insert(name.clone(), topic);
        Ok(Some(topic))
    }

    fn write_changes(&self) -> Result<(), rusqlite::Error> {
        for topic in self.topics.values() {
            self.transaction
                .prepare_cached("UPDATE topic SET last_seq = ?2, last_row = ?3 WHERE id = ?1")?
                .execute(params![topic.id, topic.last_seq as i64, topic.last_row])?;
        }
        for rank in Rank::all() {
            let rows = self.waiting[rank.index()];
            if rows != self.store.waiting[rank.index()] {
                self.transaction
                    .prepare_cached("UPDATE tally SET rows = ?2 WHERE rank = ?1")?
                    .execute(params![rank.index() as i64, rows as i64])?;
            }
        }
        for (topic, reason, span) in self.done.gaps.iter() {
            enter_gap(self.transaction, topic, reason, span)?;
        }
        Ok(())
    }
}

/// Adds to the gap that waits for this topic and reason, or makes one.
pub(super) fn enter_gap(
    connection: &Connection,
    topic: &TopicName,
    reason: Reason,
    span: &Span,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO gap (topic, reason, first_seq, last_seq, first_us, last_us, count)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (topic, reason) DO UPDATE SET
                 first_seq = min(first_seq, excluded.first_seq),
                 last_seq = max(last_seq, excluded.last_seq),
                 first_us = min(first_us, excluded.first_us),
                 last_us = max(last_us, excluded.last_us),
                 count = count + excluded.count",
        )?
        .execute(params![
            topic.as_str(),
            reason.as_str(),
            span.first_seq as i64,
            span.last_seq as i64,
            span.first_us,
            span.last_us,
            span.count as i64,
        ])?;
    Ok(())
}

fn load_topics(connection: &Connection) -> Result<HashMap<TopicName, Topic>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT id, name, last_seq, last_row FROM topic")?;
    let mut rows = statement.query([])?;
    let mut topics = HashMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let last_seq: i64 = row.get(2)?;
        if let Ok(name) = TopicName::parse(&name) {
            let topic = Topic {
                id: row.get(0)?,
                last_seq: last_seq as u64,
                last_row: row.get(3)?,
            };
            topics.insert(name, topic);
        }
    }
    Ok(topics)
}

fn load_tally(connection: &Connection) -> Result<[u64; RANKS], rusqlite::Error> {
    let mut waiting = [0; RANKS];
    for rank in Rank::all() {
        let rows: Option<i64> = connection
            .query_row(
                "SELECT rows FROM tally WHERE rank = ?1",
                [rank.index() as i64],
                |row| row.get(0),
            )
            .optional()?;
        waiting[rank.index()] = rows.unwrap_or(0) as u64;
    }
    Ok(waiting)
}

/// One above the greatest order in use, or ever used by a topic.
fn next_order(connection: &Connection) -> Result<i64, rusqlite::Error> {
    let mut greatest = 0;
    for rank in Rank::all() {
        let (first, end) = rank.rows();
        let row: Option<i64> = connection.query_row(
            "SELECT max(last_row) FROM topic WHERE last_row BETWEEN ?1 AND ?2",
            [first, end],
            |row| row.get(0),
        )?;
        greatest = greatest.max(row.map_or(0, retention::order_of));
    }
    Ok(greatest + 1)
}

fn enter_boot(connection: &Connection, boot: &str) -> Result<i64, rusqlite::Error> {
    connection.execute("INSERT OR IGNORE INTO boot (name) VALUES (?1)", [boot])?;
    connection.execute(
        "DELETE FROM boot WHERE id < (SELECT max(id) FROM boot) - ?1",
        [MAX_BOOTS],
    )?;
    connection.query_row("SELECT id FROM boot WHERE name = ?1", [boot], |row| {
        row.get(0)
    })
}

fn pragma(connection: &Connection, name: &str) -> Result<u64, rusqlite::Error> {
    let value: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
    Ok(value as u64)
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}
