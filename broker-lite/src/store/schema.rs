//! The file's tables, their migrations, and how it is opened.
//!
//! Driver. Invariant: `user_version` counts the migrations that a file has seen; each runs in one
//! transaction and none is ever edited.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;
use tracing::warn;

use super::salvage::beside;

/// Marks our files for `file(1)` and against opening somebody else's database.
const APPLICATION_ID: i32 = 0x6272_6b6c;

/// Step `n` leads from `user_version` n to n + 1.
const MIGRATIONS: &[&str] = &[TABLES, WILLS_AND_TIME];

/// A message stands once, however many sessions it waits for; it is the PUBLISH packet by which
/// it would travel. Of a delivery, `stage` is 0 queued, 1 published, 2 received.
const TABLES: &str = "
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client TEXT NOT NULL,
    user TEXT,
    address TEXT NOT NULL,
    expiry_s INTEGER NOT NULL
) STRICT;
CREATE TABLE subscription (
    session INTEGER NOT NULL,
    filter TEXT NOT NULL,
    qos INTEGER NOT NULL,
    no_local INTEGER NOT NULL,
    retain_as_published INTEGER NOT NULL,
    retain_handling INTEGER NOT NULL,
    identifier INTEGER,
    PRIMARY KEY (session, filter)
) STRICT, WITHOUT ROWID;
CREATE TABLE taken (
    session INTEGER NOT NULL,
    packet_id INTEGER NOT NULL,
    PRIMARY KEY (session, packet_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    qos INTEGER NOT NULL,
    expires_ms INTEGER,
    packet BLOB NOT NULL
) STRICT;
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    message INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    packet_id INTEGER,
    subscription_ids TEXT,
    shared TEXT
) STRICT;
CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    message INTEGER NOT NULL,
    client TEXT,
    user TEXT,
    address TEXT
) STRICT, WITHOUT ROWID;
";

/// `expires_ms` and `due_ms` are in the store's own time, and absent while the client is connected;
/// a will stands there for every client that has left one, lasting session or not.
const WILLS_AND_TIME: &str = "
ALTER TABLE session ADD COLUMN expires_ms INTEGER;
CREATE TABLE will (
    client TEXT PRIMARY KEY,
    user TEXT,
    address TEXT NOT NULL,
    delay_s INTEGER NOT NULL,
    due_ms INTEGER,
    qos INTEGER NOT NULL,
    packet BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE time (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    own_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL
) STRICT;
";

/// Pages in the log after which a commit copies them into the file: 4 MiB. In tests fewer, so that
/// the power goes and calls fail while it happens.
const CHECKPOINT_PAGES: u32 = if cfg!(test) { 128 } else { 1000 };
/// Size that the log keeps between checkpoints, so that it is overwritten in place.
const LOG_KEPT_BYTES: u64 = 4 << 20;
/// Another process (a technician's `sqlite3`) may hold the file this long before a commit fails.
const BUSY: Duration = Duration::from_millis(250);
/// Page cache; negative means KiB.
const CACHE_KIB: i32 = -1024;
/// A larger file is not checked as a whole at the start, which would take seconds.
const MAX_CHECKED_BYTES: u64 = 64 << 20;

/// Free pages that stay for what comes next: giving them back and taking them again would write
/// twice. 4 MiB, and never less than half of the file.
const FREE_PAGES_KEPT: u64 = 1024;
/// Pages given back in one step, between two commits.
const VACUUM_PAGES: u64 = 256;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("cannot {action} {path}: {source}")]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("it belongs to another program (application id {0:#x})")]
    Foreign(i32),
    #[error("a newer version wrote it (schema {found}, this one knows {known})")]
    Newer { found: usize, known: usize },
    #[error("integrity check: {0}")]
    Damaged(String),
    #[error("the file is not open")]
    Closed,
}

impl SchemaError {
    /// Whether the file itself is at fault, as opposed to the disk, the permissions or a lock.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            SchemaError::Sqlite(error) => is_damage(error),
            SchemaError::Foreign(_) | SchemaError::Newer { .. } | SchemaError::Damaged(_) => true,
            SchemaError::File { .. } | SchemaError::Closed => false,
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            matches!(failure.code, DatabaseCorrupt | NotADatabase)
                // A damaged schema table shows as a table that is not there.
                || message.as_deref().is_some_and(|text| text.starts_with("no such"))
        }
        rusqlite::Error::SqlInputError { msg, .. } => msg.starts_with("no such"),
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => true,
        _ => false,
    }
}

/// Opens or makes the file for its one writer, at the newest schema.
pub(super) fn open(path: &Path) -> Result<Connection, SchemaError> {
    make_private(path)?;
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    check_identity(&connection)?;
    // Takes effect in a new file only; one without it does not shrink.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(32);
    migrate(&mut connection)?;
    if fs::metadata(path).is_ok_and(|found| found.len() <= MAX_CHECKED_BYTES) {
        quick_check(&connection)?;
    }
    Ok(connection)
}

/// Messages are nobody else's business (CVE-2017-9868): a new file is private from its first
/// moment, and one that others may read is so from now on. The log takes the file's permissions.
fn make_private(path: &Path) -> Result<(), SchemaError> {
    let mut options = fs::OpenOptions::new();
    let made = options.create_new(true).write(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => ["", "-wal", "-shm"]
            .iter()
            .try_for_each(|suffix| close_to_others(&beside(path, suffix))),
        Err(source) => Err(SchemaError::File {
            action: "make",
            path: path.to_owned(),
            source,
        }),
    }
}

fn close_to_others(path: &Path) -> Result<(), SchemaError> {
    let Ok(mode) = fs::metadata(path).map(|found| found.permissions().mode()) else {
        return Ok(());
    };
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let private = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
    private.map_err(|source| SchemaError::File {
        action: "take from others what they may do with",
        path: path.to_owned(),
        source,
    })?;
    warn!(path = %path.display(), was = format!("{:o}", mode & 0o777), "others could read the broker's messages; they no longer can");
    Ok(())
}

/// Gives a step of free pages back to the file system, if they are many; tells whether more are.
pub(super) fn give_back(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let (free, pages) = (number("freelist_count")?, number("page_count")?);
    if free < FREE_PAGES_KEPT || free < pages / 2 {
        return Ok(false);
    }
    let mut statement =
        connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(free - VACUUM_PAGES.min(free) >= FREE_PAGES_KEPT)
}

fn quick_check(connection: &Connection) -> Result<(), SchemaError> {
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?;
    match verdict.as_str() {
        "ok" => Ok(()),
        _ => Err(SchemaError::Damaged(verdict.replace('\n', " "))),
    }
}

fn check_identity(connection: &Connection) -> Result<(), SchemaError> {
    let found: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection.query_row(tables, [], |row| row.get(0))?;
    if found == APPLICATION_ID || (found == 0 && tables == 0) {
        Ok(())
    } else {
        Err(SchemaError::Foreign(found))
    }
}

fn migrate(connection: &mut Connection) -> Result<(), SchemaError> {
    let found: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > MIGRATIONS.len() {
        let known = MIGRATIONS.len();
        return Err(SchemaError::Newer { found, known });
    }
    for (version, step) in MIGRATIONS.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
