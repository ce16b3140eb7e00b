//! The buffer's tables, their migrations, and how a connection to them is set up.
//!
//! Invariant: `user_version` counts the migrations that a file has seen; each runs in one
//! transaction and none is ever edited. Layer: driver.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

/// Marks our files for `file(1)` and against opening somebody else's database.
const APPLICATION_ID: i32 = 0x6777_6266;

/// Step `n` leads from `user_version` n to n + 1.
const MIGRATIONS: &[&str] = &[
    TABLES,
    TOPIC_BYTES,
    ARRIVALS,
    BURIALS,
    RESERVATIONS,
    LETTERS,
    DOUBTS,
];

/// `message.row` is rank and order in one number, see `Rank`: reading in sending order and
/// evicting in age order are both a walk along the primary key, with no index to keep.
const TABLES: &str = "
CREATE TABLE topic (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    last_seq INTEGER NOT NULL,
    last_row INTEGER NOT NULL
) STRICT;
CREATE TABLE boot (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE message (
    row INTEGER PRIMARY KEY,
    topic INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    wall_us INTEGER NOT NULL,
    monotonic_ns INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    synced INTEGER NOT NULL,
    properties BLOB,
    payload BLOB NOT NULL
) STRICT;
CREATE TABLE tally (rank INTEGER PRIMARY KEY, rows INTEGER NOT NULL) STRICT;
CREATE TABLE gap (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    reason TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    count INTEGER NOT NULL,
    UNIQUE (topic, reason)
) STRICT;
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    seq INTEGER NOT NULL,
    wall_us INTEGER NOT NULL,
    reason TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE TABLE mark (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO tally VALUES (0, 0), (1, 0), (2, 0);
INSERT INTO mark VALUES ('open', 0);
";

/// What the rows of each topic take, so that quotas need no walk through the file at start.
const TOPIC_BYTES: &str = "
ALTER TABLE topic ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE topic SET bytes = taken.bytes FROM
    (SELECT topic AS id, sum(64 + length(payload) + coalesce(length(properties), 0)) AS bytes
     FROM message GROUP BY topic) AS taken
WHERE taken.id = topic.id;
";

/// What came from upstream and was handed on, see `Arrival`.
const ARRIVALS: &str = "
CREATE TABLE arrival (
    id INTEGER PRIMARY KEY,
    packet_id INTEGER NOT NULL UNIQUE,
    digest BLOB NOT NULL
) STRICT;
";

/// When a dead letter was given up, and how long its payload was where less of it is kept.
const BURIALS: &str = "
ALTER TABLE dead_letter ADD COLUMN buried_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letter ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
";

/// Numbers that messages may bear which wait in memory.
const RESERVATIONS: &str = "ALTER TABLE topic ADD COLUMN reserved_seq INTEGER NOT NULL DEFAULT 0";

/// What a dead letter needs to wait again as it did; of one that is there already less is known.
const LETTERS: &str = "
ALTER TABLE dead_letter ADD COLUMN qos INTEGER NOT NULL DEFAULT 1;
ALTER TABLE dead_letter ADD COLUMN retain INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letter ADD COLUMN rank INTEGER NOT NULL DEFAULT 1;
ALTER TABLE dead_letter ADD COLUMN monotonic_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letter ADD COLUMN boot INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letter ADD COLUMN synced INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letter ADD COLUMN properties BLOB;
";

/// Whether a message from upstream may not have been handed on; those of before count as handed on.
const DOUBTS: &str = "ALTER TABLE arrival ADD COLUMN doubtful INTEGER NOT NULL DEFAULT 0";

/// Bytes that a row of `message` takes, about; see `Entry::cost`.
pub(super) const COST: &str = "64 + length(payload) + coalesce(length(properties), 0)";

/// Bytes of a database page: SQLite's default, and the flash's usual write unit.
pub(super) const PAGE_BYTES: u64 = 4096;
/// Pages in the log after which a commit copies them into the file: 4 MiB.
const CHECKPOINT_PAGES: u32 = 1000;
/// Size that the log keeps between checkpoints, so that it is overwritten in place.
const LOG_KEPT_BYTES: u64 = 4 << 20;
/// Another process (a technician's `sqlite3`) may hold the file this long before a commit fails.
pub(super) const BUSY: Duration = Duration::from_millis(250);
/// Page cache of one connection; negative means KiB.
const CACHE_KIB: i32 = -4096;
/// The same while the whole file is walked through: each page is looked at once, and none is worth keeping.
const CHECK_CACHE_KIB: i32 = -256;

/// Why a file cannot be used as a buffer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("it belongs to another program (application id {0:#x})")]
    Foreign(i32),
    #[error("a newer version wrote it (schema {found}, this one knows {known})")]
    Newer { found: usize, known: usize },
    #[error("integrity check: {0}")]
    Damaged(String),
}

impl SchemaError {
    /// Whether the file itself is at fault, as opposed to the disk, the permissions or a lock.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            SchemaError::Sqlite(error) => is_damage(error),
            SchemaError::Foreign(_) | SchemaError::Newer { .. } | SchemaError::Damaged(_) => true,
        }
    }
}

/// Whether SQLite says that the file's content is wrong.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            matches!(failure.code, DatabaseCorrupt | NotADatabase)
                // A damaged schema table shows as a table that is not there.
                || message.as_deref().is_some_and(|text| text.starts_with("no such"))
        }
        rusqlite::Error::SqlInputError { msg, .. } => msg.starts_with("no such"),
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..) => {
            true
        }
        _ => false,
    }
}

/// Opens or makes the file for its one writer, at the newest schema.
///
/// `max_pages` is the hard bound of the file; SQLite itself refuses to grow past it.
pub(super) fn open_writer(path: &Path, max_pages: u64) -> Result<Connection, SchemaError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // Only a new file takes these two; they must precede its first table.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    check_identity(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    keep_plans(&connection)?;
    connection.pragma_update(None, "max_page_count", max_pages)?;
    connection.set_prepared_statement_cache_capacity(32);
    migrate(&mut connection)?;
    Ok(connection)
}

/// Opens the file for reading beside the writer.
pub(super) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    // Readers of a WAL write to its index, so the file is opened for writing and told not to.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    keep_plans(&connection)?;
    Ok(connection)
}

/// All statements go by a primary key: no other bounds are worth another plan, and with the statistics
/// that this SQLite is built to keep, each other bound would cost one.
fn keep_plans(connection: &Connection) -> Result<(), rusqlite::Error> {
    let stable = DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
    connection.set_db_config(stable, true).map(drop)
}

/// Opens a file to carry its content away: one in use, or a copy that nobody may write to.
pub(super) fn open_export(path: &Path) -> Result<Connection, SchemaError> {
    let connection = match open_reader(path).and_then(probe) {
        Ok(connection) => connection,
        // A copy on a medium or in a folder that cannot be written to has nobody who writes it, either.
        Err(error) if !is_damage(&error) => probe(open_immutable(path)?).map_err(|_| error)?,
        Err(error) => return Err(error.into()),
    };
    check_identity(&connection)?;
    check_version(&connection)?;
    Ok(connection)
}

fn open_immutable(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let mut name = path.display().to_string();
    // What a URI would take for its own [RFC 3986, 2.2].
    for (sign, coded) in [("%", "%25"), ("?", "%3f"), ("#", "%23")] {
        name = name.replace(sign, coded);
    }
    let log = super::file_size(&super::beside(path, "-wal"));
    let how = if log == 0 { "?immutable=1" } else { "?mode=ro" };
    Connection::open_with_flags(format!("file:{name}{how}"), flags)
}

/// Opening alone reads nothing.
fn probe(connection: Connection) -> Result<Connection, rusqlite::Error> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// Opens a damaged file to read what is left, leaving it and its log as they are.
pub(super) fn open_damaged(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // With it SQLite reads files that are shorter than their header says.
    connection.pragma_update(None, "writable_schema", true)?;
    // A damaged cell is found when its page is read, not when its content has misled us.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// SQLite's own check of every page; `Damaged` says what it found first.
pub(super) fn quick_check(connection: &Connection) -> Result<(), SchemaError> {
    connection.pragma_update(None, "cache_size", CHECK_CACHE_KIB)?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(SchemaError::Damaged(verdict.replace('\n', " ")))
    }
}

/// Counts what the rows of each topic take.
pub(super) fn weigh_topics(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(&format!(
        "UPDATE topic SET bytes = taken.bytes FROM
         (SELECT topic AS id, sum({COST}) AS bytes FROM message GROUP BY topic) AS taken
         WHERE taken.id = topic.id"
    ))
}

fn check_identity(connection: &Connection) -> Result<(), SchemaError> {
    let found: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let empty: bool =
        connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
            row.get(0)
        })?;
    if found == APPLICATION_ID || (found == 0 && empty) {
        Ok(())
    } else {
        Err(SchemaError::Foreign(found))
    }
}

/// How many migrations the file has seen, if not more than are known.
fn check_version(connection: &Connection) -> Result<usize, SchemaError> {
    let found: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len();
    match found > known {
        true => Err(SchemaError::Newer { found, known }),
        false => Ok(found),
    }
}

fn migrate(connection: &mut Connection) -> Result<(), SchemaError> {
    let found = check_version(connection)?;
    for (version, step) in MIGRATIONS.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
