//! Reads waiting rows and gaps beside the writer, on a connection of its own.
//!
//! Invariant: only committed rows are seen, high priority first, then by age. Layer: driver.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use broker_lite::{packet::QoS, topic::TopicName};
use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    Gap, Page, Row, Survey,
    arrivals::{Arrival, Handing},
    clock::RowStamp,
    dead::{self, DeadLetters},
    properties,
    retention::{Cursor, Rank, Stretch},
    schema,
};
use crate::reading::ClockState;

/// Why rows could not be read; asking again later is all that is needed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the buffer {path}: {source}")]
pub struct ReadError {
    path: PathBuf,
    source: rusqlite::Error,
}

impl ReadError {
    /// Whether the file's content is wrong, which the writer then looks into.
    pub(super) fn is_damage(&self) -> bool {
        schema::is_damage(&self.source)
    }
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

/// The moment of a reading, which may put right what an earlier clock had wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now<'a> {
    pub(super) stamp: RowStamp,
    pub(super) boot: &'a str,
}

pub(super) const ROWS_AFTER: &str =
    "SELECT m.row, t.name, m.seq, m.qos, m.retain, m.wall_us, m.synced,
    m.properties, m.payload, m.monotonic_ns, b.name FROM message m
    JOIN topic t ON t.id = m.topic LEFT JOIN boot b ON b.id = m.boot
    WHERE m.row > ?1 AND m.row <= ?2 ORDER BY m.row LIMIT ?3";

impl Reader {
    pub(super) fn new(path: PathBuf) -> Reader {
        Reader {
            path,
            connection: Mutex::new(None),
        }
    }

    /// Another file has taken the place of the one read so far.
    pub(super) fn forget(&self) {
        *self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// At least one row of each rank that is asked for and has any; `max_bytes` bounds the rest.
    pub(super) fn page(
        &self,
        stretch: &Stretch,
        max_bytes: usize,
        now: Now<'_>,
    ) -> Result<Page, ReadError> {
        self.with(|connection| {
            let mut page = Page {
                reached: stretch.after,
                ..Page::default()
            };
            let mut bytes = 0;
            for rank in Rank::all().filter(|rank| stretch.rows[rank.index()] > 0) {
                bytes += read_rank(
                    connection,
                    rank,
                    stretch,
                    (bytes, max_bytes),
                    now,
                    &mut page,
                )?;
            }
            Ok(page)
        })
    }

    /// What waits behind a position, all as it was at one moment.
    pub(super) fn survey(&self, after: &Cursor) -> Result<Survey, ReadError> {
        self.with(|connection| {
            let moment = connection.unchecked_transaction()?;
            let mut survey = Survey {
                until: *after,
                ..Survey::default()
            };
            for rank in Rank::all() {
                let (first, end) = rank.rows();
                let last: Option<i64> = moment
                    .prepare_cached("SELECT max(row) FROM message WHERE row BETWEEN ?1 AND ?2")?
                    .query_row([first, end], |row| row.get(0))?;
                last.into_iter().for_each(|row| survey.until.pass(row));
            }
            let mut statement =
                moment.prepare_cached("SELECT name, last_row FROM topic WHERE bytes > 0")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (name, last): (String, i64) = (row.get(0)?, row.get(1)?);
                let behind = last > after.position(Rank::of_row(last));
                if behind && let Ok(name) = TopicName::parse(&name) {
                    survey.waiting.push((name, last));
                }
            }
            Ok(survey)
        })
    }

    pub(super) fn gaps(&self, at_most: usize) -> Result<Vec<Gap>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT id, topic, reason, first_seq, last_seq, first_us, last_us, count
                     FROM gap ORDER BY id LIMIT ?1",
                )?
                .query_map([at_most as i64], read_gap)?
                .collect()
        })
    }

    pub(super) fn sequences(&self) -> Result<HashMap<TopicName, u64>, ReadError> {
        self.with(|connection| {
            let mut statement = connection.prepare("SELECT name, last_seq FROM topic")?;
            let mut rows = statement.query([])?;
            let mut sequences = HashMap::new();
            while let Some(row) = rows.next()? {
                let name: String = row.get(0)?;
                let last: i64 = row.get(1)?;
                if let Ok(name) = TopicName::parse(&name) {
                    sequences.insert(name, last as u64);
                }
            }
            Ok(sequences)
        })
    }

    /// What came from upstream last, oldest first.
    pub(super) fn arrivals(&self) -> Result<Vec<(Arrival, Handing)>, ReadError> {
        self.with(|connection| {
            connection
                .prepare("SELECT packet_id, digest, doubtful FROM arrival ORDER BY id")?
                .query_map([], |row| {
                    let arrival = Arrival {
                        packet_id: row.get(0)?,
                        digest: row.get(1)?,
                    };
                    let handing = match row.get(2)? {
                        true => Handing::CutShort,
                        false => Handing::Taken,
                    };
                    Ok((arrival, handing))
                })?
                .collect()
        })
    }

    /// What the upstream will never take.
    pub(super) fn dead_letters(&self, at_most: usize) -> Result<DeadLetters, ReadError> {
        self.with(|connection| dead::read(connection, at_most))
    }

    /// Numbers that were kept, by name.
    pub(super) fn marks(&self) -> Result<HashMap<String, i64>, ReadError> {
        self.with(|connection| {
            connection
                .prepare("SELECT name, value FROM mark")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
    }

    /// Bytes that waiting rows take, about.
    pub(super) fn weight(&self) -> Result<u64, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT coalesce(sum(bytes), 0) FROM topic")?
                .query_row([], |row| row.get(0).map(|bytes: i64| bytes as u64))
        })
    }

    /// When the oldest waiting row was received.
    pub(super) fn oldest(&self) -> Result<Option<Timestamp>, ReadError> {
        self.with(|connection| {
            let mut oldest: Option<i64> = None;
            for rank in Rank::all() {
                let (first, end) = rank.rows();
                let mut statement = connection.prepare_cached(
                    "SELECT wall_us FROM message WHERE row BETWEEN ?1 AND ?2 ORDER BY row LIMIT 1",
                )?;
                let mut rows = statement.query([first, end])?;
                if let Some(row) = rows.next()? {
                    let wall_us = row.get(0)?;
                    oldest = Some(oldest.map_or(wall_us, |known| known.min(wall_us)));
                }
            }
            Ok(oldest.and_then(|us| Timestamp::from_microsecond(us).ok()))
        })
    }

    fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, ReadError> {
        let mut slot = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let failed = |source| ReadError {
            path: self.path.clone(),
            source,
        };
        let connection = match slot.take() {
            Some(connection) => connection,
            None => schema::open_reader(&self.path).map_err(failed)?,
        };
        // After a failure the next reading opens the file anew.
        let result = read(&connection).map_err(failed)?;
        *slot = Some(connection);
        Ok(result)
    }
}

/// Tells how many bytes of payload were found; `bounds` are those found before, and the most.
fn read_rank(
    connection: &Connection,
    rank: Rank,
    stretch: &Stretch,
    bounds: (usize, usize),
    now: Now<'_>,
    page: &mut Page,
) -> Result<usize, rusqlite::Error> {
    let (before, most) = bounds;
    let from = stretch.after.position(rank);
    let until = stretch.until(rank);
    let wanted = stretch.rows[rank.index()];
    let mut statement = connection.prepare_cached(ROWS_AFTER)?;
    let mut rows = statement.query(params![from, until, wanted as i64])?;
    let (mut seen, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        seen += 1;
        page.reached.pass(row.get(0)?);
        if let Some(row) = read_row(row, now)? {
            bytes += row.payload.len();
            page.rows.push(row);
        }
        if before + bytes >= most {
            return Ok(bytes);
        }
    }
    page.ended[rank.index()] = seen < wanted;
    Ok(bytes)
}

/// `None` for a row whose topic is none: it waits to be evicted, and blocks nothing.
pub(super) fn read_row(
    row: &rusqlite::Row<'_>,
    now: Now<'_>,
) -> Result<Option<Row>, rusqlite::Error> {
    let Ok(topic) = TopicName::parse(row.get_ref(1)?.as_str()?) else {
        return Ok(None);
    };
    let seq: i64 = row.get(2)?;
    let synced: bool = row.get(6)?;
    let properties = row.get_ref(7)?.as_blob_or_null()?;
    let payload = row.get_ref(8)?.as_blob()?;
    let boot = row.get_ref(10)?.as_str_or_null()?;
    let stamp = RowStamp {
        wall_us: row.get(5)?,
        monotonic_ns: row.get(9)?,
        clock: if synced {
            ClockState::Synced
        } else {
            ClockState::Unsynced
        },
    };
    let stamp = match boot {
        Some(boot) if boot == now.boot => stamp.corrected(now.stamp),
        _ => stamp,
    };
    Ok(Some(Row {
        id: row.get(0)?,
        topic,
        seq: seq as u64,
        qos: QoS::from_u8(row.get(3)?).unwrap_or(QoS::AtLeastOnce),
        retain: row.get(4)?,
        received: timestamp(stamp.wall_us),
        clock: stamp.clock,
        // A message without its properties is worth more than none.
        properties: properties.and_then(|blob| properties::decode(blob).ok()),
        payload: Bytes::copy_from_slice(payload),
    }))
}

fn read_gap(row: &rusqlite::Row<'_>) -> Result<Gap, rusqlite::Error> {
    let number = |column: usize| row.get(column).map(|value: i64| value as u64);
    Ok(Gap {
        id: row.get(0)?,
        topic: row.get(1)?,
        reason: row.get(2)?,
        first_seq: number(3)?,
        last_seq: number(4)?,
        from: timestamp(row.get(5)?),
        to: timestamp(row.get(6)?),
        count: number(7)?,
    })
}

pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
