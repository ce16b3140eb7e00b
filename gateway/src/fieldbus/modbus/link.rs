//! A wire with the Modbus framing on it. Driver.
//!
//! Invariant: every request that was sent gets one reply, unless the wire breaks.

mod connection;
mod line;

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use crate::{
    config::{Bus, Framing},
    fieldbus::{
        poll::schedule::{Input, TransactionId},
        transaction::Transaction,
        wire::{WireError, tap::Tap},
    },
};

use connection::Connection;
use line::Line;

/// Stray bytes that are no late answer: no frame is so short.
pub(super) const NOISE: u64 = 3;

/// A wire that transactions go over.
pub(super) enum Link {
    /// Frames that silence and a CRC keep apart: one transaction at a time.
    Line(Box<Line>),
    /// Frames with an MBAP header: as many as the bus' window.
    Connection(Box<Connection>),
}

/// What a link finds out about its wire, for the status.
#[derive(Debug, Default)]
pub(super) struct Findings {
    echo: AtomicU8,
    stray_bytes: AtomicU64,
}

impl Link {
    pub(super) async fn open(
        bus: Bus,
        tap: Tap,
        findings: Arc<Findings>,
    ) -> Result<Link, WireError> {
        let mbap = bus.port.is_none() && bus.framing != Some(Framing::Rtu);
        Ok(if mbap {
            Link::Connection(Box::new(Connection::open(bus, tap, findings).await?))
        } else {
            Link::Line(Box::new(Line::open(bus, tap, findings).await?))
        })
    }

    /// Sends a request whose reply bears `id`.
    ///
    /// # Errors
    /// The wire is broken; nothing comes of what was under way.
    pub(super) async fn send(
        &mut self,
        id: TransactionId,
        transaction: &Transaction,
    ) -> Result<(), WireError> {
        match self {
            Link::Line(line) => line.send(id, transaction).await,
            Link::Connection(connection) => connection.send(id, transaction).await,
        }
    }

    /// Waits for the next reply, or the end of the connection that one has cost; safe to be dropped half-way. Waits for ever when none is due.
    ///
    /// # Errors
    /// The wire is broken; nothing comes of what was under way.
    pub(super) async fn next(&mut self) -> Result<Input, WireError> {
        match self {
            Link::Line(line) => line.next().await,
            Link::Connection(connection) => connection.next().await,
        }
    }

    /// Whether a write is under way: it is followed to its end.
    pub(super) fn is_writing(&self) -> bool {
        match self {
            Link::Line(line) => line.is_writing(),
            Link::Connection(connection) => connection.is_writing(),
        }
    }
}

impl Findings {
    /// Whether the adapter returns what is sent; `None`: not known, or it cannot.
    pub(super) fn echo(&self) -> Option<bool> {
        match self.echo.load(Ordering::Relaxed) {
            0 => None,
            heard => Some(heard == 2),
        }
    }

    /// Bytes received that were part of no answer.
    pub(super) fn stray_bytes(&self) -> u64 {
        self.stray_bytes.load(Ordering::Relaxed)
    }

    fn set_echo(&self, echo: Option<bool>) {
        let heard = echo.map_or(0, |echo| 1 + u8::from(echo));
        self.echo.store(heard, Ordering::Relaxed);
    }

    fn add_strays(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.stray_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
