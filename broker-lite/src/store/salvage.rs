//! What becomes of a damaged file: what reads of it goes into a fresh one, and it is kept aside.
//!
//! Driver. Invariant: a damaged file is never deleted, and at any instant a crash leaves either it or
//! a whole fresh file in its place.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use rusqlite::Connection;

use super::{
    rows,
    schema::{self, SchemaError},
    time::OwnTime,
};
use crate::{
    broker::Stored,
    journal::{Batch, Change, Changes, DeliveryRecord, Progress, RetainedRecord},
};

/// Damaged files that are kept; a later one takes the place of the last.
const MAX_KEPT_ASIDE: u32 = 3;
/// A fresh file that is being written.
const UNFINISHED: &str = ".salvage";
/// A fresh file that is whole, and is to take the damaged one's place.
const FINISHED: &str = ".salvaged";

/// What was made of a damaged file.
pub(super) struct Salvaged {
    pub(super) connection: Connection,
    pub(super) stored: Stored,
    pub(super) time: OwnTime,
    /// Where the damaged file lies now.
    pub(super) aside: PathBuf,
}

/// Puts a fresh file with what reads of it in the place of a damaged one.
pub(super) fn salvage(
    path: &Path,
    now: Instant,
    wall: SystemTime,
) -> Result<Salvaged, SchemaError> {
    let (stored, time) = rows::load_damaged(path, now, wall);
    let fresh = beside(path, UNFINISHED);
    remove_database(&fresh)?;
    let mut connection = schema::open(&fresh)?;
    let mut batch = Batch::default();
    batch.add(whole(&stored));
    rows::write(&mut connection, &batch, time, Some(time.mark(now, wall)))?;
    // Closing copies the log into the file, so that one rename moves all of it.
    connection.close().map_err(|(_, error)| error)?;
    rename(&fresh, &beside(path, FINISHED))?;
    sync_folder(path)?;
    let aside = replace(path)?;
    Ok(Salvaged {
        connection: schema::open(path)?,
        stored,
        time,
        aside,
    })
}

/// A state as changes; deliveries and values whose message is lost are left out.
fn whole(stored: &Stored) -> Changes {
    let mut changes = Vec::new();
    let messages = stored.messages.values();
    changes.extend(messages.map(|message| Change::MessageHeld(Arc::clone(message))));
    for session in &stored.sessions {
        let key = session.key;
        changes.push(Change::SessionBegins(key, session.record.clone()));
        let subscriptions = session.subscriptions.iter().cloned();
        changes
            .extend(subscriptions.map(|(filter, record)| Change::Subscribed(key, filter, record)));
        changes.extend(session.taken.iter().map(|id| Change::Took(key, *id)));
        let is_whole = |record: &DeliveryRecord| {
            matches!(record.progress, Progress::Received(_))
                || stored.messages.contains_key(&record.message)
        };
        let deliveries = session.deliveries.iter();
        let deliveries = deliveries.filter(|(_, record)| is_whole(record));
        changes.extend(deliveries.map(|(key, record)| Change::Queued(*key, record.clone())));
    }
    for (message, publisher) in &stored.retained {
        if let Some(publication) = stored.messages.get(message) {
            let record = RetainedRecord {
                message: *message,
                publisher: publisher.clone(),
            };
            let topic = publication.message.topic.clone();
            changes.push(Change::Retained(topic, record));
        }
    }
    changes.extend(stored.wills.iter().cloned().map(Change::WillLeft));
    Changes {
        through: 0,
        awaited: true,
        whole: true,
        changes,
    }
}

/// Ends a salvage that a crash has cut short.
pub(super) fn finish_earlier(path: &Path) -> Result<(), SchemaError> {
    match beside(path, FINISHED).exists() {
        true => replace(path).map(drop),
        false => Ok(()),
    }
}

/// Moves the damaged file out of the way and the fresh one to its place; says where to.
fn replace(path: &Path) -> Result<PathBuf, SchemaError> {
    let name = |n: u32| beside(path, &format!(".corrupt-{n}"));
    let free = (1..=MAX_KEPT_ASIDE)
        .map(name)
        .find(|name| !name.exists())
        .unwrap_or_else(|| name(MAX_KEPT_ASIDE));
    remove(&beside(path, "-shm"))?;
    if path.exists() {
        remove(&beside(&free, "-wal"))?;
        // The log first: a log without its file must not meet the next file of that name.
        if beside(path, "-wal").exists() {
            rename(&beside(path, "-wal"), &beside(&free, "-wal"))?;
        }
        rename(path, &free)?;
    }
    rename(&beside(path, FINISHED), path)?;
    sync_folder(path)?;
    Ok(free)
}

/// Makes the renames last.
fn sync_folder(path: &Path) -> Result<(), SchemaError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| SchemaError::File {
        action: "sync",
        path: folder.to_owned(),
        source,
    })
}

fn remove_database(path: &Path) -> Result<(), SchemaError> {
    for suffix in ["-wal", "-shm", ""] {
        remove(&beside(path, suffix))?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), SchemaError> {
    fs::rename(from, to).map_err(|source| SchemaError::File {
        action: "rename",
        path: from.to_owned(),
        source,
    })
}

fn remove(path: &Path) -> Result<(), SchemaError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SchemaError::File {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The path with something appended to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
