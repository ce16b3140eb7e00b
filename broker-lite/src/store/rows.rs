//! Batches as rows, and rows as the state that an earlier run has left.
//!
//! Driver. Invariant: a batch is written whole or not at all; what is read was written so, and a
//! row that does not read is left out only where the file is known to be damaged.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::BytesMut;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};
use tracing::error;

use super::time::{Mark, OwnTime};
use crate::{
    access::Identity,
    broker::{Stored, StoredSession},
    ids::{DeliveryKey, MessageKey, SessionKey},
    journal::{
        Batch, DeliveryChange, DeliveryRecord, LastKeys, MessageChange, Progress, RetainedRecord,
        SessionChange, SessionRecord, SubscriptionRecord, WillRecord,
    },
    message::Message,
    packet::{
        self, Delivery, Expect, Packet, PacketId, Publish, QoS, RetainHandling, SubscribeOptions,
        SubscriptionId, Version,
    },
    publication::Publication,
    topic::{SubscriptionFilter, TopicName},
};

type Result<T> = std::result::Result<T, rusqlite::Error>;

/// One moment, and how it stands in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) time: OwnTime,
}

impl Moment {
    fn instant(self, at_ms: Option<u64>) -> Option<Instant> {
        at_ms.and_then(|at_ms| self.time.moment(at_ms, self.now))
    }
}

/// Puts the whole batch on disk, or nothing of it.
pub(super) fn write(
    connection: &mut Connection,
    batch: &Batch,
    time: OwnTime,
    mark: Option<Mark>,
) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if batch.whole {
        for table in [
            "session",
            "subscription",
            "taken",
            "message",
            "delivery",
            "retained",
            "will",
        ] {
            transaction.execute(&format!("DELETE FROM {table}"), [])?;
        }
    }
    for (key, session) in &batch.sessions {
        write_session(&transaction, *key, session, time)?;
    }
    for (key, message) in &batch.messages {
        match message {
            MessageChange::Insert(publication) | MessageChange::Replace(publication) => {
                write_message(&transaction, publication, time)?;
            }
            MessageChange::Delete => {
                run(&transaction, "DELETE FROM message WHERE id = ?1", [key.0])?;
            }
        }
    }
    for (key, delivery) in &batch.deliveries {
        write_delivery(&transaction, *key, delivery)?;
    }
    for (topic, record) in &batch.retained {
        write_retained(&transaction, topic, record.as_ref())?;
    }
    for (client, record) in &batch.wills {
        write_will(&transaction, client, record.as_ref(), time)?;
    }
    if let Some(Mark { own_ms, wall_ms }) = mark {
        let sql = "INSERT OR REPLACE INTO time VALUES (1, ?1, ?2)";
        run(&transaction, sql, [own_ms, wall_ms])?;
    }
    transaction.commit()
}

fn run(transaction: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Result<()> {
    transaction.prepare_cached(sql)?.execute(values).map(drop)
}

fn write_session(
    transaction: &Transaction<'_>,
    key: SessionKey,
    change: &SessionChange,
    time: OwnTime,
) -> Result<()> {
    if change.ended {
        run(transaction, "DELETE FROM session WHERE id = ?1", [key.0])?;
        for table in ["subscription", "taken"] {
            let sql = format!("DELETE FROM {table} WHERE session = ?1");
            run(transaction, &sql, [key.0])?;
        }
    }
    if let Some(record) = &change.record {
        let identity = &record.identity;
        run(
            transaction,
            "INSERT OR REPLACE INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                key.0,
                identity.client,
                identity.user,
                identity.address.to_string(),
                record.expiry.as_secs(),
                record.expires_at.map(|at| time.at_ms(at)),
            ],
        )?;
    }
    for (filter, record) in &change.subscriptions {
        write_subscription(transaction, key, filter, *record)?;
    }
    for (packet_id, taken) in &change.taken {
        let sql = match taken {
            true => "INSERT OR REPLACE INTO taken VALUES (?1, ?2)",
            false => "DELETE FROM taken WHERE session = ?1 AND packet_id = ?2",
        };
        run(transaction, sql, params![key.0, packet_id.value()])?;
    }
    Ok(())
}

fn write_subscription(
    transaction: &Transaction<'_>,
    key: SessionKey,
    filter: &SubscriptionFilter,
    record: Option<SubscriptionRecord>,
) -> Result<()> {
    let filter = filter.to_string();
    let Some(SubscriptionRecord { options, id }) = record else {
        let sql = "DELETE FROM subscription WHERE session = ?1 AND filter = ?2";
        return run(transaction, sql, params![key.0, filter]);
    };
    run(
        transaction,
        "INSERT OR REPLACE INTO subscription VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            key.0,
            filter,
            options.qos as u8,
            options.no_local,
            options.retain_as_published,
            options.retain_handling as u8,
            id.map(SubscriptionId::value),
        ],
    )
}

fn write_message(
    transaction: &Transaction<'_>,
    publication: &Publication,
    time: OwnTime,
) -> Result<()> {
    let message = &publication.message;
    let Some(packet) = encoded(message) else {
        return Ok(());
    };
    run(
        transaction,
        "INSERT OR REPLACE INTO message VALUES (?1, ?2, ?3, ?4)",
        params![
            publication.key().0,
            message.qos as u8,
            publication.expires_at().map(|at| time.at_ms(at)),
            packet
        ],
    )
}

fn write_will(
    transaction: &Transaction<'_>,
    client: &str,
    record: Option<&WillRecord>,
    time: OwnTime,
) -> Result<()> {
    let will = record.and_then(|record| Some((record, encoded(&record.message)?)));
    let Some((record, packet)) = will else {
        return run(transaction, "DELETE FROM will WHERE client = ?1", [client]);
    };
    run(
        transaction,
        "INSERT OR REPLACE INTO will VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            client,
            record.identity.user,
            record.identity.address.to_string(),
            record.delay.as_secs(),
            record.due.map(|at| time.at_ms(at)),
            record.message.qos as u8,
            packet
        ],
    )
}

/// The PUBLISH by which a message would travel.
fn encoded(message: &Message) -> Option<Vec<u8>> {
    let packet = Packet::Publish(Publish {
        dup: false,
        retain: message.retain,
        delivery: Delivery::AtMostOnce,
        topic: Some(message.topic.clone()),
        topic_alias: None,
        message_expiry_s: message.expiry_s,
        subscription_ids: Vec::new(),
        properties: message.properties.clone(),
        payload: message.payload.clone(),
    });
    let mut bytes = BytesMut::new();
    if let Err(error) = packet::encode(&packet, Version::V5, &mut bytes) {
        // Only a publisher in this process can make such a message; it must not hold up others.
        error!(topic = %message.topic, %error, "a message cannot be stored and will not outlive the broker");
        return None;
    }
    Some(bytes.to_vec())
}

fn write_delivery(
    transaction: &Transaction<'_>,
    key: DeliveryKey,
    change: &DeliveryChange,
) -> Result<()> {
    match change {
        DeliveryChange::Insert(record) => {
            let (stage, packet_id) = stage(record.progress);
            let ids = record.subscription_ids.iter();
            let ids: Vec<String> = ids.map(|id| id.value().to_string()).collect();
            run(
                transaction,
                "INSERT OR REPLACE INTO delivery VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    key.0,
                    record.session.0,
                    record.message.0,
                    record.qos as u8,
                    record.retain,
                    stage,
                    packet_id,
                    (!ids.is_empty()).then(|| ids.join(" ")),
                    record.shared.as_ref().map(|filter| filter.to_string()),
                ],
            )
        }
        DeliveryChange::Update(progress) => {
            let (stage, packet_id) = stage(*progress);
            let sql = "UPDATE delivery SET stage = ?2, packet_id = ?3 WHERE id = ?1";
            run(transaction, sql, params![key.0, stage, packet_id])
        }
        DeliveryChange::Delete => run(transaction, "DELETE FROM delivery WHERE id = ?1", [key.0]),
    }
}

fn stage(progress: Progress) -> (u8, Option<u16>) {
    match progress {
        Progress::Queued => (0, None),
        Progress::Published(packet_id) => (1, Some(packet_id.value())),
        Progress::Received(packet_id) => (2, Some(packet_id.value())),
    }
}

fn write_retained(
    transaction: &Transaction<'_>,
    topic: &TopicName,
    record: Option<&RetainedRecord>,
) -> Result<()> {
    let Some(RetainedRecord { message, publisher }) = record else {
        let sql = "DELETE FROM retained WHERE topic = ?1";
        return run(transaction, sql, [topic.as_str()]);
    };
    let publisher = publisher.as_deref();
    run(
        transaction,
        "INSERT OR REPLACE INTO retained VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            topic.as_str(),
            message.0,
            publisher.map(|publisher| &publisher.client),
            publisher.and_then(|publisher| publisher.user.as_ref()),
            publisher.map(|publisher| publisher.address.to_string()),
        ],
    )
}

/// Our time as the last run has left it.
pub(super) fn last_mark(connection: &Connection) -> Result<Option<Mark>> {
    let read = |row: &Row<'_>| {
        Ok(Mark {
            own_ms: row.get(0)?,
            wall_ms: row.get(1)?,
        })
    };
    let sql = "SELECT own_ms, wall_ms FROM time";
    connection.query_row(sql, [], read).optional()
}

/// Everything that is stored.
pub(super) fn load(connection: &Connection, now: Moment) -> Result<Stored> {
    Loader {
        connection,
        now,
        lenient: false,
    }
    .load()
}

/// What reads of a damaged file, which stays as it is, and its time; perhaps nothing.
pub(super) fn load_damaged(path: &Path, now: Instant, wall: SystemTime) -> (Stored, OwnTime) {
    let unmarked = OwnTime::resume(None, now, wall);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let loaded = Connection::open_with_flags(path, flags).and_then(|connection| {
        // Closing must not write the log into a file that is evidence.
        connection.set_db_config(
            rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
            true,
        )?;
        // With it SQLite reads files that are shorter than their header says.
        connection.pragma_update(None, "writable_schema", true)?;
        // A damaged cell is found when its page is read, not when its content has misled us.
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "query_only", true)?;
        let mark = last_mark(&connection).unwrap_or_default();
        let time = OwnTime::resume(mark, now, wall);
        let loader = Loader {
            connection: &connection,
            now: Moment { now, time },
            lenient: true,
        };
        Ok((loader.load()?, time))
    });
    loaded.unwrap_or_else(|_| (Stored::default(), unmarked))
}

struct Loader<'a> {
    connection: &'a Connection,
    now: Moment,
    /// What does not read is left out.
    lenient: bool,
}

impl Loader<'_> {
    fn load(&self) -> Result<Stored> {
        let now = self.now;
        let messages = self.rows("SELECT id, qos, expires_ms, packet FROM message", |row| {
            read_message(row, now)
        })?;
        let mut last = LastKeys {
            message: messages.iter().map(|(key, _)| key.0).max().unwrap_or(0),
            ..LastKeys::default()
        };
        let sessions = self.rows("SELECT * FROM session ORDER BY id", |row| {
            read_session(row, now)
        })?;
        let mut by_key: HashMap<SessionKey, StoredSession> = HashMap::new();
        for session in sessions {
            last.session = last.session.max(session.key.0);
            by_key.insert(session.key, session);
        }
        for (key, filter, record) in self.rows("SELECT * FROM subscription", read_subscription)? {
            if let Some(session) = by_key.get_mut(&key) {
                session.subscriptions.push((filter, record));
            }
        }
        for (key, packet_id) in self.rows("SELECT session, packet_id FROM taken", read_taken)? {
            if let Some(session) = by_key.get_mut(&key) {
                session.taken.push(packet_id);
            }
        }
        for (key, record) in self.rows("SELECT * FROM delivery ORDER BY id", read_delivery)? {
            last.delivery = last.delivery.max(key.0);
            if let Some(session) = by_key.get_mut(&record.session) {
                session.deliveries.push((key, record));
            }
        }
        Ok(Stored {
            last,
            messages: messages.into_iter().collect(),
            sessions: by_key.into_values().collect(),
            retained: self.rows("SELECT * FROM retained", read_retained)?,
            wills: self.rows("SELECT * FROM will", |row| read_will(row, now))?,
        })
    }

    fn rows<T>(&self, sql: &str, read: impl Fn(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let mut gather = || -> Result<()> {
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                match read(row) {
                    Ok(value) => found.push(value),
                    Err(error) if self.lenient => drop(error),
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let gathered = gather();
        if self.lenient {
            return Ok(found);
        }
        gathered.map(|()| found)
    }
}

/// A column that holds something else than what was written there.
fn unreadable(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(
        column,
        "not what was written".to_owned(),
        rusqlite::types::Type::Blob,
    )
}

fn parsed<T: std::str::FromStr>(row: &Row<'_>, column: usize) -> Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| unreadable(column))
}

fn qos(row: &Row<'_>, column: usize) -> Result<QoS> {
    QoS::from_u8(row.get(column)?).ok_or_else(|| unreadable(column))
}

fn packet_id(row: &Row<'_>, column: usize) -> Result<PacketId> {
    PacketId::new(row.get(column)?).ok_or_else(|| unreadable(column))
}

fn read_message(row: &Row<'_>, now: Moment) -> Result<(MessageKey, Arc<Publication>)> {
    let key = MessageKey(row.get(0)?);
    let message = decoded(row, 3, qos(row, 1)?)?;
    let lives = message.expiry_s.map(|whole_s| {
        let whole = Duration::from_secs(whole_s.into());
        let at_ms = row.get::<_, u64>(2).ok();
        let left = now.instant(at_ms).map(|at| at - now.now);
        // However our time went, it does not live longer than its publisher said.
        left.map_or(whole, |left| left.min(whole))
    });
    let publication = Publication::restored(message, key, lives, now.now);
    Ok((key, Arc::new(publication)))
}

fn read_will(row: &Row<'_>, now: Moment) -> Result<WillRecord> {
    let identity = Identity {
        client: row.get(0)?,
        user: row.get(1)?,
        address: parsed::<IpAddr>(row, 2)?,
    };
    Ok(WillRecord {
        identity: Arc::new(identity),
        delay: Duration::from_secs(row.get(3)?),
        due: now.instant(row.get(4)?),
        message: decoded(row, 6, qos(row, 5)?)?,
    })
}

/// Reads what [`encoded`] wrote.
fn decoded(row: &Row<'_>, column: usize, qos: QoS) -> Result<Message> {
    let bytes: Vec<u8> = row.get(column)?;
    let mut bytes = BytesMut::from(&bytes[..]);
    let expect = Expect::from_server(Version::V5, usize::MAX);
    let Ok(Some(Packet::Publish(publish))) = packet::decode(&mut bytes, expect) else {
        return Err(unreadable(column));
    };
    Ok(Message {
        topic: publish.topic.ok_or_else(|| unreadable(column))?,
        payload: publish.payload,
        qos,
        retain: publish.retain,
        expiry_s: publish.message_expiry_s,
        properties: publish.properties,
        sequence: None,
    })
}

fn read_session(row: &Row<'_>, now: Moment) -> Result<StoredSession> {
    let identity = Identity {
        client: row.get(1)?,
        user: row.get(2)?,
        address: parsed::<IpAddr>(row, 3)?,
    };
    Ok(StoredSession {
        key: SessionKey(row.get(0)?),
        record: SessionRecord {
            identity: Arc::new(identity),
            expiry: Duration::from_secs(row.get(4)?),
            expires_at: now.instant(row.get(5)?),
        },
        subscriptions: Vec::new(),
        taken: Vec::new(),
        deliveries: Vec::new(),
    })
}

fn read_subscription(
    row: &Row<'_>,
) -> Result<(SessionKey, SubscriptionFilter, SubscriptionRecord)> {
    let retain_handling = match row.get::<_, u8>(5)? {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(unreadable(5)),
    };
    let options = SubscribeOptions {
        qos: qos(row, 2)?,
        no_local: row.get(3)?,
        retain_as_published: row.get(4)?,
        retain_handling,
    };
    let id: Option<u32> = row.get(6)?;
    let record = SubscriptionRecord {
        options,
        id: id.and_then(SubscriptionId::new),
    };
    Ok((SessionKey(row.get(0)?), parsed(row, 1)?, record))
}

fn read_taken(row: &Row<'_>) -> Result<(SessionKey, PacketId)> {
    Ok((SessionKey(row.get(0)?), packet_id(row, 1)?))
}

fn read_delivery(row: &Row<'_>) -> Result<(DeliveryKey, DeliveryRecord)> {
    let progress = match row.get::<_, u8>(5)? {
        0 => Progress::Queued,
        1 => Progress::Published(packet_id(row, 6)?),
        2 => Progress::Received(packet_id(row, 6)?),
        _ => return Err(unreadable(5)),
    };
    let ids: Option<String> = row.get(7)?;
    let ids = ids.unwrap_or_default();
    let ids = ids.split_whitespace().map(|id| {
        let id = id.parse().ok().and_then(SubscriptionId::new);
        id.ok_or_else(|| unreadable(7))
    });
    let shared = match row.get::<_, Option<String>>(8)? {
        Some(text) => Some(Arc::new(text.parse().map_err(|_| unreadable(8))?)),
        None => None,
    };
    let record = DeliveryRecord {
        session: SessionKey(row.get(1)?),
        message: MessageKey(row.get(2)?),
        qos: qos(row, 3)?,
        retain: row.get(4)?,
        subscription_ids: ids.collect::<Result<_>>()?,
        shared,
        progress,
    };
    Ok((DeliveryKey(row.get(0)?), record))
}

fn read_retained(row: &Row<'_>) -> Result<(MessageKey, Option<Arc<Identity>>)> {
    let client: Option<String> = row.get(2)?;
    let publisher = match client {
        Some(client) => Some(Arc::new(Identity {
            client,
            user: row.get(3)?,
            address: parsed::<IpAddr>(row, 4)?,
        })),
        None => None,
    };
    Ok((MessageKey(row.get(1)?), publisher))
}
