//! Reads what a buffer's file holds for whoever carries it away: beside the service that writes it, or from a copy.
//!
//! Invariant: nothing is changed, memory stays flat, and no reading lasts longer than a page, so that the writer can fold its
//! log meanwhile. What a rule keeps in memory first is not in the file yet. Layer: driver.

use std::path::{Path, PathBuf};

use broker_lite::packet::{MessageProperties, QoS};
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    Row,
    clock::Clock,
    dead,
    reader::{self, Now},
    schema::{self, SchemaError},
};

/// Rows that are read at once.
const PAGE_ROWS: i64 = 256;
/// Bytes of payload after which a page ends.
const PAGE_BYTES: usize = 1 << 20;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the buffer {path}: {source}")]
pub struct ExportError {
    path: PathBuf,
    source: SchemaError,
}

/// A message that the upstream will never take, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadMessage {
    /// The local topic.
    pub topic: String,
    /// Its number within the topic.
    pub seq: u64,
    /// When the broker took it.
    pub received: Timestamp,
    /// When it was given up.
    pub buried: Timestamp,
    /// Why.
    pub reason: String,
    /// As published; 1 for one that an early version buried.
    pub qos: QoS,
    /// As published; false for one that an early version buried.
    pub retain: bool,
    /// MQTT 5 properties as published.
    pub properties: Option<MessageProperties>,
    /// As published; empty where it was too large to be kept.
    pub payload: Vec<u8>,
}

/// An open file, and how far it has been read.
#[derive(Debug)]
pub struct Export {
    path: PathBuf,
    connection: Connection,
    clock: Clock,
    after: i64,
}

impl Export {
    /// Opens the buffer's file at `path`.
    ///
    /// # Errors
    /// It is not there, may not be read, or is no buffer that this version knows.
    pub fn open(path: &Path) -> Result<Export, ExportError> {
        let connection = schema::open_export(path).map_err(|source| ExportError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Export {
            path: path.to_owned(),
            connection,
            clock: Clock::new(),
            after: i64::MIN,
        })
    }

    /// The next messages that wait, high priority first, then by age; empty after the last.
    ///
    /// # Errors
    /// The disk or the file is at fault; asking again goes on where it stopped.
    pub fn waiting(&mut self) -> Result<Vec<Row>, ExportError> {
        let page = self.page();
        let (rows, after) = self.checked(page)?;
        self.after = after;
        Ok(rows)
    }

    /// The next dead letters, oldest first; empty after the last.
    ///
    /// # Errors
    /// The disk or the file is at fault; asking again goes on where it stopped.
    pub fn dead(&mut self) -> Result<Vec<DeadMessage>, ExportError> {
        let page = dead::page(&self.connection, self.after, PAGE_ROWS, PAGE_BYTES);
        let letters = self.checked(page)?;
        self.after = letters.last().map_or(self.after, |(id, _)| *id);
        Ok(letters.into_iter().map(|(_, letter)| letter).collect())
    }

    /// Rows, and where they end; a row whose topic is none is passed over.
    fn page(&self) -> Result<(Vec<Row>, i64), rusqlite::Error> {
        let now = Now {
            stamp: self.clock.stamp(),
            boot: self.clock.boot(),
        };
        let (mut found, mut after, mut bytes) = (Vec::new(), self.after, 0);
        let mut statement = self.connection.prepare_cached(reader::ROWS_AFTER)?;
        while found.is_empty() {
            let mut rows = statement.query(params![after, i64::MAX, PAGE_ROWS])?;
            let before = after;
            while bytes < PAGE_BYTES
                && let Some(row) = rows.next()?
            {
                after = row.get(0)?;
                let row = reader::read_row(row, now)?;
                bytes += row.as_ref().map_or(0, |row| row.payload.len());
                found.extend(row);
            }
            if after == before {
                break;
            }
        }
        Ok((found, after))
    }

    fn checked<T>(&self, result: Result<T, rusqlite::Error>) -> Result<T, ExportError> {
        result.map_err(|source| ExportError {
            path: self.path.clone(),
            source: source.into(),
        })
    }
}
