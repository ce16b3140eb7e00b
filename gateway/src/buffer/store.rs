//! The SQLite file's one writer: a batch goes in and out in one transaction.
//!
//! Invariant: what is remembered here changes only after the transaction that holds it is on disk,
//! so a failed commit can be tried again as it is. Layer: driver.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use broker_lite::{keeper::Kept, topic::TopicName};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{
    clock::RowStamp,
    dead::{DEAD_SHARE, MAX_DEAD_BYTES},
    draft::{Draft, RESERVED_PAGES},
    errand::Settled,
    inbox::{Batch, Entry},
    memory::Staged,
    quota::{Rule, Usage},
    retention::{self, GapBook, RANKS, Rank, Reason, Span},
    schema::{self, PAGE_BYTES, SchemaError},
};
use crate::config::WhenFull;

/// Topics whose numbering is remembered. Names of which no row waits are forgotten beyond it; a
/// message on one more than that is refused.
pub(super) const MAX_TOPICS: usize = 100_000;
/// Boots that rows may refer to; an older one's rows only lose their monotonic time.
const MAX_BOOTS: i64 = 1000;
/// Free pages that stay in the file for the next rows: 4 MiB.
const FREE_PAGES_KEPT: u64 = 1024;
/// Free pages given back per step, so that a commit never waits long for it.
const VACUUM_STEP: u64 = 256;
/// How far numbering leaps over the numbers that a lost log may have held.
const LOG_LOST_LEAP: u64 = 1 << 20;
/// Smallest share of `max_size` for the file when the log takes its own.
const LOG_SHARE: u64 = 4;
const MAX_LOG_BYTES: u64 = 16 << 20;
/// Commits between two attempts to cut a log that a reader holds: each costs two more.
pub(super) const COMMITS_PER_CUT: u32 = 64;

/// How large the file may grow and what happens then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_bytes: u64,
    pub(super) when_full: WhenFull,
    /// Older rows leave.
    pub(super) max_age: Option<Duration>,
    pub(super) max_topics: usize,
}

impl Limits {
    /// Bytes that the write-ahead log may take before it is cut.
    pub(super) fn log_bytes(&self) -> u64 {
        (self.max_bytes / LOG_SHARE).min(MAX_LOG_BYTES)
    }

    /// Bytes that the payloads of dead letters may take of the file.
    pub(super) fn dead_bytes(&self) -> u64 {
        (self.pages() * PAGE_BYTES / DEAD_SHARE).min(MAX_DEAD_BYTES)
    }

    /// Pages for the file itself.
    pub(super) fn pages(&self) -> u64 {
        (self.max_bytes - self.log_bytes()) / PAGE_BYTES
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Topic {
    pub(super) id: i64,
    pub(super) last_seq: u64,
    pub(super) last_row: i64,
    /// Numbers up to this one may be given to messages that wait in memory; 0: none.
    pub(super) reserved: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
    pub(super) limits: Limits,
    pub(super) topics: HashMap<TopicName, Topic>,
    pub(super) usage: Usage,
    /// A moment that has passed by a clock that was right, microseconds since 1970.
    pub(super) floor_us: i64,
    pub(super) waiting: [u64; RANKS],
    pub(super) next_order: i64,
    pub(super) boot: i64,
    /// Pages by which a file that hit its hard bound aims below it.
    pub(super) squeeze: u64,
    /// Commits until it is tried again to cut a log that is too long.
    commits_to_cut: u32,
}

/// What one commit did.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// One answer per entry of the batch.
    pub(super) answers: Vec<Kept>,
    pub(super) appended: u64,
    /// Of their payloads.
    pub(super) payload_bytes: u64,
    /// Of those that waited in memory.
    pub(super) spilled: u64,
    pub(super) forwarded: u64,
    pub(super) buried: u64,
    /// What came of each errand of the batch.
    pub(super) settled: Vec<Settled>,
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
            usage: Usage::default(),
            floor_us: mark(&connection, "clock")?.unwrap_or(0),
            waiting: load_tally(&connection)?,
            next_order: next_order(&connection)?,
            boot: enter_boot(&connection, boot)?,
            path: path.to_owned(),
            connection,
            limits,
            squeeze: 0,
            commits_to_cut: 0,
        };
        let log_lost =
            log_missing && mark(&store.connection, "open")?.is_some_and(|open| open != 0);
        store.leap_over_lost_memory()?;
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

    /// What was written down under a name.
    pub(super) fn mark(&self, name: &str) -> Result<Option<i64>, rusqlite::Error> {
        mark(&self.connection, name)
    }

    /// Rows that wait for the upstream, per priority.
    pub(super) fn waiting(&self) -> [u64; RANKS] {
        self.waiting
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
        self.transact(|draft| {
            draft.remove(&batch.removals)?;
            draft.trim_dead_letters()?;
            draft.measure()?;
            for entry in &batch.entries {
                let answer = draft.append(entry)?;
                draft.done.answers.push(answer);
            }
            for errand in &batch.errands {
                let settled = draft.settle(errand)?;
                draft.done.settled.push(settled);
            }
            draft.raise_floor(batch.synced_us())?;
            for (arrival, _) in &batch.arrivals {
                draft.remember(arrival)?;
            }
            draft.note(&batch.account)?;
            draft.note(&batch.marks)
        })
    }

    /// Puts rows that waited in memory on disk, or none of them.
    pub(super) fn land(&mut self, rows: &[(i64, Arc<Staged>)]) -> Result<Done, rusqlite::Error> {
        self.transact(|draft| {
            draft.measure()?;
            rows.iter()
                .try_for_each(|(row, staged)| draft.land(*row, staged))
        })
    }

    /// The row and the number of a message that waits in memory. `None` when that has to go to disk:
    /// no numbers are reserved for its topic, or rows of another rank may wait there.
    pub(super) fn number_in_memory(&mut self, entry: &Entry) -> Option<(i64, u64)> {
        let topic = self.topics.get_mut(&entry.message.topic)?;
        let seq = (topic.last_seq + 1).max(entry.message.sequence.unwrap_or(0));
        if seq > topic.reserved || Rank::of_row(topic.last_row) != entry.rank {
            return None;
        }
        let row = entry.rank.row(self.next_order);
        self.next_order += 1;
        topic.last_row = row;
        topic.last_seq = seq;
        Some((row, seq))
    }

    /// Takes out a step of the rows that are too old; `None` when there is none.
    pub(super) fn expire(&mut self, now: RowStamp) -> Result<Option<Done>, rusqlite::Error> {
        let Some(max_age) = self.limits.max_age else {
            return Ok(None);
        };
        let done = self.transact(|draft| draft.expire(now, max_age))?;
        Ok((done.gaps.count(Reason::Expired) > 0).then_some(done))
    }

    /// Counts quotas by these rules from now on.
    pub(super) fn follow(&mut self, rules: &Arc<[Rule]>) -> Result<(), rusqlite::Error> {
        if self.usage.follows(rules) {
            return Ok(());
        }
        let mut bytes: HashMap<i64, u64> = HashMap::new();
        let mut statement = self.connection.prepare("SELECT id, bytes FROM topic")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let taken: i64 = row.get(1)?;
            bytes.insert(row.get(0)?, taken as u64);
        }
        let taken = |id| bytes.get(&id).copied().unwrap_or(0);
        let topics = self.topics.iter();
        self.usage = Usage::new(
            rules,
            topics.map(|(name, topic)| (name, topic.id, taken(topic.id))),
        );
        Ok(())
    }

    /// One transaction; what it changes is remembered once it is on disk.
    fn transact(
        &mut self,
        work: impl FnOnce(&mut Draft<'_>) -> Result<(), rusqlite::Error>,
    ) -> Result<Done, rusqlite::Error> {
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut draft = Draft::new(self, &transaction);
        work(&mut draft)?;
        draft.write_changes()?;
        let Draft {
            topics,
            forgotten,
            usage,
            waiting,
            next_order,
            floor_us,
            done,
            ..
        } = draft;
        transaction.commit()?;
        self.topics.retain(|name, _| !forgotten.contains(name));
        self.topics.extend(topics);
        self.usage = usage;
        self.waiting = waiting;
        self.next_order = next_order;
        self.floor_us = floor_us;
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

    /// Cuts a log that has grown past its share, unless a reader holds it: then commits go on, and it
    /// is tried again some commits later.
    pub(super) fn bound_log(&mut self) -> Result<(), rusqlite::Error> {
        let size = super::file_size(&super::beside(&self.path, "-wal"));
        if size <= self.limits.log_bytes() {
            self.commits_to_cut = 0;
            return Ok(());
        }
        if self.commits_to_cut > 0 {
            self.commits_to_cut -= 1;
            return Ok(());
        }
        self.commits_to_cut = COMMITS_PER_CUT;
        // A reader must not hold up the publishers who wait for the next commit.
        self.connection.busy_timeout(Duration::ZERO)?;
        let cut = self.mark_open(false).and_then(|()| self.mark_open(true));
        self.connection.busy_timeout(schema::BUSY)?;
        cut
    }

    /// SQLite's check of the whole file, past the pages that this connection has in memory.
    pub(super) fn check(&self) -> Result<(), SchemaError> {
        schema::quick_check(&schema::open_reader(&self.path)?)
    }

    /// Copies the log into the file and says that nothing is missing, of memory neither unless rows
    /// are left there.
    pub(super) fn close(
        mut self,
        account: &[(&'static str, i64)],
        memory_is_empty: bool,
    ) -> Result<(), rusqlite::Error> {
        if memory_is_empty {
            self.give_numbers_back()?;
        }
        self.transact(|draft| draft.note(account))?;
        self.mark_open(false)?;
        self.connection.close().map_err(|(_, error)| error)
    }

    fn mark_open(&self, open: bool) -> Result<(), rusqlite::Error> {
        self.connection.execute(
            "UPDATE mark SET value = ?1 WHERE name = 'open'",
            [i64::from(open)],
        )?;
        // In the file itself, not in the log whose loss it is to tell; and a log that is in use is never empty, so that
        // a kill right after the start does not look like such a loss.
        self.checkpoint(if open { "FULL" } else { "TRUNCATE" })
    }

    fn checkpoint(&self, mode: &str) -> Result<(), rusqlite::Error> {
        self.connection
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
    }

    fn is_at_bound(&self) -> bool {
        pragma(&self.connection, "page_count")
            .is_ok_and(|pages: u64| pages + RESERVED_PAGES >= self.limits.pages())
    }

    /// Nothing waits in memory: a crash loses none of the numbers reserved for it.
    pub(super) fn give_numbers_back(&mut self) -> Result<(), rusqlite::Error> {
        let mut reserved = self.reserved();
        if reserved.is_empty() {
            return Ok(());
        }
        reserved
            .iter_mut()
            .for_each(|(_, topic)| topic.reserved = 0);
        self.transact(|draft| {
            draft.topics.extend(reserved);
            Ok(())
        })
        .map(drop)
    }

    /// Topics of which messages may wait in memory.
    fn reserved(&self) -> Vec<(TopicName, Topic)> {
        let topics = self.topics.iter();
        let reserved = topics.filter(|(_, topic)| topic.reserved > 0);
        reserved
            .map(|(name, topic)| (name.clone(), *topic))
            .collect()
    }

    /// Numbers that were reserved and not given back were given to messages that waited in memory when
    /// the process ended. Which of them the upstream has is not known.
    fn leap_over_lost_memory(&mut self) -> Result<(), rusqlite::Error> {
        let reserved = self.reserved();
        if reserved.is_empty() {
            return Ok(());
        }
        self.transact(|draft| {
            for (name, topic) in reserved {
                draft.leap(name, topic, topic.reserved, Reason::MemoryLost);
            }
            Ok(())
        })
        .map(drop)
    }

    fn leap_over_lost_log(&mut self) -> Result<(), rusqlite::Error> {
        let topics = self.topics.clone();
        self.transact(|draft| {
            for (name, topic) in topics {
                let last_seq = topic.last_seq + LOG_LOST_LEAP;
                draft.leap(name, topic, last_seq, Reason::LogLost);
            }
            Ok(())
        })
        .map(drop)
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
    let mut statement =
        connection.prepare("SELECT id, name, last_seq, last_row, reserved_seq FROM topic")?;
    let mut rows = statement.query([])?;
    let mut topics = HashMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let (last_seq, reserved): (i64, i64) = (row.get(2)?, row.get(4)?);
        if let Ok(name) = TopicName::parse(&name) {
            let topic = Topic {
                id: row.get(0)?,
                last_seq: last_seq as u64,
                last_row: row.get(3)?,
                reserved: reserved as u64,
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
        let waits: Option<i64> = connection.query_row(
            "SELECT max(row) FROM message WHERE row BETWEEN ?1 AND ?2",
            [first, end],
            |row| row.get(0),
        )?;
        for row in [row, waits].into_iter().flatten() {
            greatest = greatest.max(retention::order_of(row));
        }
    }
    Ok(greatest + 1)
}

fn mark(connection: &Connection, name: &str) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .query_row("SELECT value FROM mark WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()
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

pub(super) fn pragma(connection: &Connection, name: &str) -> Result<u64, rusqlite::Error> {
    let value: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
    Ok(value as u64)
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}
