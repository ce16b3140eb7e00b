//! A Modbus TCP connection. Driver of `mbap`.
//!
//! Transaction identifiers tell late answers, so that a time-out alone does not cost the connection.
//!
//! Invariant: a connection on which nothing at all comes, or what is no Modbus, is made anew.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{collections::VecDeque, future::pending, sync::Arc, time::Instant};

use tokio::{
    io::AsyncWriteExt,
    time::{timeout, timeout_at},
};
use tracing::debug;

use crate::{
    config::{Bus, Framing},
    fieldbus::{
        modbus::{
            codec::Call,
            mbap::{Frame, Mbap, set_id},
        },
        poll::schedule::{Input, TransactionId},
        transaction::{Reply, Transaction},
        wire::{
            Wire, WireError,
            tap::{Tap, What},
            tls::TlsError,
        },
    },
};

use super::Findings;

/// Time-outs in a row, with no byte between them, after which the connection is believed dead.
const DEAD_AFTER: u32 = 3;
/// Bytes read at a time: several of the longest frames.
const CHUNK: usize = 2_048;

/// A connection and what is under way on it.
pub(in crate::fieldbus::modbus) struct Connection {
    bus: Bus,
    tap: Tap,
    findings: Arc<Findings>,
    wire: Wire,
    mbap: Mbap<TransactionId>,
    calls: Vec<(TransactionId, Call)>,
    done: VecDeque<Input>,
    /// Time-outs since the last byte.
    unheard: u32,
    /// Whether anything has come on this connection.
    heard: bool,
    /// The connection cannot be used any more.
    broken: bool,
}

impl Connection {
    pub(super) async fn open(
        bus: Bus,
        tap: Tap,
        findings: Arc<Findings>,
    ) -> Result<Connection, WireError> {
        Ok(Connection {
            wire: Wire::open(&bus).await?,
            bus,
            tap,
            findings,
            mbap: Mbap::new(),
            calls: Vec::new(),
            done: VecDeque::new(),
            unheard: 0,
            heard: false,
            broken: false,
        })
    }

    pub(super) fn is_writing(&self) -> bool {
        self.calls.iter().any(|(_, call)| call.is_write())
    }

    pub(super) async fn send(
        &mut self,
        id: TransactionId,
        transaction: &Transaction,
    ) -> Result<(), WireError> {
        if !self.mbap.is_busy() {
            self.make_clear().await?;
        }
        let call = match Call::new(Framing::Tcp, transaction.unit, &transaction.request) {
            Ok(call) => call,
            Err(reply) => {
                self.done.push_back(Input::Reply { id, reply });
                return Ok(());
            }
        };
        let mut frame = call.frame();
        let begun = Instant::now();
        self.mbap.send(&mut frame, id, begun + transaction.timeout);
        self.calls.push((id, call));
        let write = async {
            self.wire.write_all(&frame).await?;
            self.wire.flush().await
        };
        match timeout(transaction.timeout, write).await {
            Ok(Ok(())) => self.tap.tell(What::Request, &frame, begun),
            Ok(Err(error)) => self.lose(&format!("the request could not be sent: {error}")),
            Err(_) => self.lose("the request could not be sent: the device takes no more"),
        }
        Ok(())
    }

    pub(super) async fn next(&mut self) -> Result<Input, WireError> {
        let mut chunk = [0; CHUNK];
        loop {
            if let Some(done) = self.done.pop_front() {
                return Ok(done);
            }
            let Some(give_up_at) = self.mbap.poll_timeout() else {
                return pending().await;
            };
            match timeout_at(give_up_at.into(), self.wire.read_some(&mut chunk)).await {
                Ok(Ok(bytes)) => self.take(&chunk[..bytes]),
                Ok(Err(error)) if self.is_about_tls(&error) => return Err(self.of_tls(error)),
                Ok(Err(_)) => self.lose("the connection broke before the answer"),
                Err(_) => self.give_up(),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.unheard = 0;
        self.heard = true;
        self.mbap.receive(bytes);
        loop {
            match self.mbap.poll_frame() {
                Ok(None) => return,
                Ok(Some(frame)) => self.framed(frame),
                Err(error) => return self.lose(&error.to_string()),
            }
        }
    }

    fn framed(&mut self, Frame { token, mut bytes }: Frame<TransactionId>) {
        let now = Instant::now();
        let place = self.calls.iter().position(|(one, _)| Some(*one) == token);
        let Some(place) = place else {
            debug!(bus = %self.bus.name, "an answer to a request that was given up");
            self.findings.add_strays(bytes.len());
            return self.tap.tell(What::Stray, &bytes, now);
        };
        self.tap.tell(What::Answer, &bytes, now);
        let (id, call) = self.calls.remove(place);
        // The number that the request was encoded with.
        set_id(&mut bytes, 0);
        let reply = call.answer(&bytes);
        self.done.push_back(Input::Reply { id, reply });
    }

    fn give_up(&mut self) {
        while let Some(id) = self.mbap.give_up(Instant::now()) {
            self.calls.retain(|(one, _)| *one != id);
            let reply = Reply::TimedOut;
            self.done.push_back(Input::Reply { id, reply });
            self.unheard += 1;
        }
    }

    /// Ends the connection. A device answers in turn, so that the first request cost it.
    fn lose(&mut self, why: &str) {
        self.broken = true;
        self.calls.clear();
        if let Some(id) = self.mbap.reset().into_iter().next() {
            let reply = Reply::Garbled(why.to_owned());
            self.done.push_back(Input::Severed { id, reply });
        }
    }

    /// Whether an error means that TLS with this device does not come about. With TLS 1.3 it judges
    /// our certificate only after the handshake seems done here.
    fn is_about_tls(&self, error: &WireError) -> bool {
        let dismissed = self.bus.tls.is_some() && !self.heard;
        dismissed || matches!(error, WireError::Tls { .. })
    }

    fn of_tls(&self, error: WireError) -> WireError {
        match error {
            WireError::Tls { .. } => error,
            _ => WireError::Tls {
                address: self.bus.address().unwrap_or_default(),
                source: TlsError::Dismissed,
            },
        }
    }

    /// Makes the connection anew if it was closed while idle, or is of no use.
    async fn make_clear(&mut self) -> Result<(), WireError> {
        let usable = !self.broken && self.unheard < DEAD_AFTER;
        if usable {
            match self.wire.arrived().await {
                Ok(arrived) if arrived.is_empty() => {}
                Ok(arrived) => self.take(&arrived),
                Err(error) if self.is_about_tls(&error) => return Err(self.of_tls(error)),
                Err(_) => self.broken = true,
            }
        }
        if self.broken || !usable {
            self.wire = Wire::open(&self.bus).await?;
            self.mbap.reset();
            self.unheard = 0;
            self.heard = false;
            self.broken = false;
        }
        Ok(())
    }
}
