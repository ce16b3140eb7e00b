//! Messages that the upstream will never take: kept for whoever looks into them, and announced.
//!
//! Invariant: they never take more than their share of the file, whose oldest leave first; one that
//! alone is larger keeps its description without its payload. Layer: driver.

use broker_lite::packet::QoS;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{DeadMessage, properties, reader::timestamp};

/// Dead letters kept; older ones leave.
pub(super) const MAX_DEAD_LETTERS: u64 = 1000;
/// Bytes of payload that they keep at most; older ones leave.
pub(super) const MAX_DEAD_BYTES: u64 = 8 << 20;
/// The share of the file that they may take in a small buffer: an eighth.
pub(super) const DEAD_SHARE: u64 = 8;

/// A message that the upstream will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it; never given to another.
    pub id: i64,
    /// The local topic.
    pub topic: String,
    /// Its number within the topic.
    pub seq: u64,
    /// When the broker took it.
    pub received: Timestamp,
    /// When it was given up; 1970 for one that an earlier version buried.
    pub buried: Timestamp,
    /// Why.
    pub reason: String,
    /// Bytes of its payload as published.
    pub bytes: u64,
    /// Whether the payload is kept, so that it can be sent again.
    pub whole: bool,
}

/// How many are kept, what they take, and the newest of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetters {
    /// How many are kept.
    pub kept: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The newest, newest first.
    pub newest: Vec<DeadLetter>,
}

/// What is known of a row as it leaves, and as it comes back.
pub(super) struct Corpse {
    pub(super) topic: String,
    pub(super) seq: i64,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) wall_us: i64,
    pub(super) monotonic_ns: i64,
    pub(super) boot: i64,
    pub(super) synced: bool,
    pub(super) properties: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
    /// Index of the rank in which it waited.
    pub(super) rank: i64,
    /// Whether nothing of it was left out.
    pub(super) whole: bool,
}

/// The mark below which ids have been given to letters that are gone.
const LAST_LETTER: &str = "letter";

/// Enters one that has left the waiting rows. Its page is free by then, so a full file has room.
pub(super) fn bury(
    transaction: &Transaction<'_>,
    corpse: &Corpse,
    reason: &str,
    now_us: i64,
    max_bytes: u64,
) -> Result<(), rusqlite::Error> {
    let bytes = corpse.payload.len();
    let properties = corpse.properties.as_deref();
    let fits = (bytes + properties.map_or(0, <[u8]>::len)) as u64 <= max_bytes;
    let payload = if fits { &corpse.payload[..] } else { &[] };
    transaction
        .prepare_cached(
            "INSERT INTO dead_letter (id, topic, seq, wall_us, reason, payload, buried_us, bytes,
                 qos, retain, rank, monotonic_ns, boot, synced, properties)
             VALUES (1 + max(coalesce((SELECT max(id) FROM dead_letter), 0),
                             coalesce((SELECT value FROM mark WHERE name = ?15), 0)),
                 ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            corpse.topic,
            corpse.seq,
            corpse.wall_us,
            reason,
            payload,
            now_us,
            bytes as i64,
            corpse.qos,
            corpse.retain,
            corpse.rank,
            corpse.monotonic_ns,
            corpse.boot,
            corpse.synced,
            properties.filter(|_| fits),
            LAST_LETTER,
        ])?;
    Ok(())
}

/// One of them as it was when it waited; of one that an earlier version buried, as far as is known.
pub(super) fn find(
    transaction: &Transaction<'_>,
    id: i64,
) -> Result<Option<Corpse>, rusqlite::Error> {
    transaction
        .prepare_cached(
            "SELECT topic, seq, qos, retain, wall_us, monotonic_ns, boot, synced, properties,
                    payload, rank, length(payload) >= bytes
             FROM dead_letter WHERE id = ?1",
        )?
        .query_row([id], read_corpse)
        .optional()
}

/// Reads the columns in the order of [`Corpse`].
pub(super) fn read_corpse(row: &rusqlite::Row<'_>) -> Result<Corpse, rusqlite::Error> {
    Ok(Corpse {
        topic: row.get(0)?,
        seq: row.get(1)?,
        qos: row.get(2)?,
        retain: row.get(3)?,
        wall_us: row.get(4)?,
        monotonic_ns: row.get(5)?,
        boot: row.get(6)?,
        synced: row.get(7)?,
        properties: row.get(8)?,
        payload: row.get(9)?,
        rank: row.get(10)?,
        whole: row.get(11)?,
    })
}

/// The ids of all, by topic and within it by number.
pub(super) fn ids(transaction: &Transaction<'_>) -> Result<Vec<i64>, rusqlite::Error> {
    transaction
        .prepare_cached("SELECT id FROM dead_letter ORDER BY topic, seq, id")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Takes one out; tells whether it was there. Its id is not given again.
pub(super) fn remove(transaction: &Transaction<'_>, id: i64) -> Result<bool, rusqlite::Error> {
    transaction
        .prepare_cached(
            "INSERT INTO mark SELECT ?1, max(id) FROM dead_letter WHERE true
                 HAVING max(id) IS NOT NULL
             ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute([LAST_LETTER])?;
    let gone = transaction
        .prepare_cached("DELETE FROM dead_letter WHERE id = ?1")?
        .execute([id])?;
    Ok(gone > 0)
}

/// Lets the oldest go beyond what may be kept.
pub(super) fn trim(transaction: &Transaction<'_>, max_bytes: u64) -> Result<(), rusqlite::Error> {
    transaction
        .prepare_cached(
            "DELETE FROM dead_letter WHERE id <= (SELECT max(id) FROM
                (SELECT id, row_number() OVER newest AS place,
                        sum(length(payload) + coalesce(length(properties), 0))
                            OVER newest AS taken
                 FROM dead_letter WINDOW newest AS (ORDER BY id DESC))
             WHERE place > ?1 OR taken > ?2)",
        )?
        .execute(params![MAX_DEAD_LETTERS as i64, max_bytes as i64])?;
    Ok(())
}

/// Reads how many there are and the newest of them.
pub(super) fn read(
    connection: &Connection,
    at_most: usize,
) -> Result<DeadLetters, rusqlite::Error> {
    let (kept, bytes): (i64, i64) = connection.query_row(
        "SELECT count(*), coalesce(sum(length(payload)), 0) FROM dead_letter",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let newest = connection
        .prepare_cached(
            "SELECT topic, seq, wall_us, buried_us, reason, max(bytes, length(payload)), id,
                    length(payload) >= bytes
             FROM dead_letter
             ORDER BY id DESC LIMIT ?1",
        )?
        .query_map([at_most as i64], |row| {
            let number = |column: usize| row.get(column).map(|value: i64| value as u64);
            Ok(DeadLetter {
                topic: row.get(0)?,
                seq: number(1)?,
                received: timestamp(row.get(2)?),
                buried: timestamp(row.get(3)?),
                reason: row.get(4)?,
                bytes: number(5)?,
                id: row.get(6)?,
                whole: row.get(7)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(DeadLetters {
        kept: kept as u64,
        bytes: bytes as u64,
        newest,
    })
}

/// Reads some behind `after` with their payloads, oldest first, each with what names it.
pub(super) fn page(
    connection: &Connection,
    after: i64,
    at_most: i64,
    max_bytes: usize,
) -> Result<Vec<(i64, DeadMessage)>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT id, topic, seq, wall_us, buried_us, reason, payload, qos, retain, properties
         FROM dead_letter
         WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = statement.query([after, at_most])?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while bytes < max_bytes
        && let Some(row) = rows.next()?
    {
        let seq: i64 = row.get(2)?;
        let letter = DeadMessage {
            topic: row.get(1)?,
            seq: seq as u64,
            received: timestamp(row.get(3)?),
            buried: timestamp(row.get(4)?),
            reason: row.get(5)?,
            payload: row.get(6)?,
            qos: QoS::from_u8(row.get(7)?).unwrap_or(QoS::AtLeastOnce),
            retain: row.get(8)?,
            properties: row
                .get_ref(9)?
                .as_blob_or_null()?
                .and_then(|blob| properties::decode(blob).ok()),
        };
        bytes += letter.payload.len();
        found.push((row.get(0)?, letter));
    }
    Ok(found)
}
