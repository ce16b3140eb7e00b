//! A serial line, or a TCP connection to one, with RTU frames. Driver of `rtu` and `echo`.
//!
//! Invariant: a request leaves only after the line has been silent for as long as ends a frame,
//! and after a time-out or a strange answer only after a silence that no late answer hides in.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    time::{timeout, timeout_at},
};
use tracing::{debug, info, warn};

use crate::{
    config::{Bus, Echo, Framing},
    fieldbus::{
        modbus::{
            codec::Call,
            echo::Hearing,
            rtu::{Missing, Receiver},
        },
        poll::schedule::{Input, TransactionId},
        transaction::{Answer, Reply, Transaction},
        wire::{
            Wire, WireError,
            line_rate::LineRate,
            pause::Pause,
            tap::{Tap, What},
            usb,
        },
    },
};

use super::Findings;

/// The unit identifier that means all (Modbus over serial line 2.2).
const ALL_UNITS: u8 = 0;
/// How long nothing is sent after a broadcast, so that every unit has done as it says: 100 to 200 ms
/// (Modbus over serial line 2.4.1).
const TURNAROUND: Duration = Duration::from_millis(200);

/// Least silence that proves a line drained: USB converters hold bytes back for 16 ms.
const FENCE_MIN: Duration = Duration::from_millis(30);
/// After so long a silence on a serial port an answer that has begun will not go on: three times
/// what USB converters hold back.
const SETTLED_MIN: Duration = Duration::from_millis(50);
/// Fewer stray bytes than any frame has are no late answer: the silence that ends a frame is enough.
const HARMLESS: usize = 3;
/// Bytes read at a time: the longest frame (Modbus over serial line 2.5.1).
const CHUNK: usize = 256;

/// A line and what is under way on it.
pub(in crate::fieldbus::modbus) struct Line {
    bus: Bus,
    tap: Tap,
    findings: Arc<Findings>,
    wire: Wire,
    rate: LineRate,
    /// What a converter may add to each answer's time.
    latency: Duration,
    hearing: Hearing,
    pause: Pause,
    silent_since: Instant,
    fence: bool,
    exchange: Option<Exchange>,
    done: Option<Input>,
}

/// A request that waits for its answer.
struct Exchange {
    id: TransactionId,
    call: Call,
    receiver: Receiver,
    /// It went to all units: none answers.
    broadcast: bool,
    give_up_at: Instant,
    first: Option<Instant>,
    last: Instant,
}

impl Line {
    pub(super) async fn open(
        bus: Bus,
        tap: Tap,
        findings: Arc<Findings>,
    ) -> Result<Line, WireError> {
        let wire = Wire::open(&bus).await?;
        let latency = bus.port.as_deref().and_then(usb::latency);
        findings.set_echo(match bus.echo {
            Echo::Auto => None,
            Echo::On => Some(true),
            Echo::Off => Some(false),
        });
        Ok(Line {
            wire,
            tap,
            findings,
            rate: LineRate::of(&bus),
            latency: latency.unwrap_or_default(),
            hearing: Hearing::new(bus.echo),
            pause: Pause::new().map_err(WireError::Timer)?,
            silent_since: Instant::now(),
            fence: false,
            exchange: None,
            done: None,
            bus,
        })
    }

    pub(super) fn is_writing(&self) -> bool {
        let call = self.exchange.as_ref().map(|exchange| &exchange.call);
        call.is_some_and(Call::is_write)
    }

    pub(super) async fn send(
        &mut self,
        id: TransactionId,
        transaction: &Transaction,
    ) -> Result<(), WireError> {
        self.make_clear().await?;
        let call = match Call::new(Framing::Rtu, transaction.unit, &transaction.request) {
            Ok(call) => call,
            Err(reply) => {
                self.done = Some(Input::Reply { id, reply });
                return Ok(());
            }
        };
        let frame = call.frame();
        let begun = Instant::now();
        timeout(transaction.timeout, self.wire.write_all(&frame))
            .await
            .map_err(|_| WireError::Stuck)?
            .map_err(WireError::Write)?;
        self.tap.tell(What::Request, &frame, begun);
        let sent = Instant::now();
        let broadcast = transaction.unit == ALL_UNITS && transaction.request.is_plain_write();
        let patience = match broadcast {
            true => self.rate.frame(frame.len()) + TURNAROUND,
            false => transaction.timeout + self.latency,
        };
        self.exchange = Some(Exchange {
            id,
            call,
            receiver: Receiver::new(frame, self.hearing.expected()),
            broadcast,
            give_up_at: sent + patience,
            first: None,
            last: sent,
        });
        Ok(())
    }

    pub(super) async fn next(&mut self) -> Result<Input, WireError> {
        let mut chunk = [0; CHUNK];
        loop {
            let settled_after = self.settled_after();
            if let Some(done) = self.done.take() {
                return Ok(done);
            }
            let Some(exchange) = &mut self.exchange else {
                return pending().await;
            };
            let look_at = exchange.look_at(settled_after);
            match timeout_at(look_at.into(), self.wire.read_some(&mut chunk)).await {
                Ok(Ok(bytes)) => {
                    exchange.take(&chunk[..bytes]);
                    if exchange.receiver.answer(false).is_some() {
                        self.done = self.finish(Ok(()));
                    }
                }
                Ok(Err(WireError::Closed)) if self.bus.port.is_none() => {
                    self.done = self.finish(Err("the connection broke before the answer"));
                }
                Ok(Err(error)) => return Err(error),
                Err(_) if exchange.is_over(settled_after) => self.done = self.finish(Ok(())),
                // The line is silent, and the answer may still be to come.
                Err(_) => {}
            }
        }
    }

    /// `None` over TCP, where a pause says nothing about the line.
    fn settled_after(&self) -> Option<Duration> {
        let silence = self.rate.silence().max(SETTLED_MIN).max(3 * self.latency);
        self.bus.port.is_some().then_some(silence)
    }

    /// What has become of the exchange under way.
    fn finish(&mut self, ended: Result<(), &str>) -> Option<Input> {
        let exchange = self.exchange.take()?;
        let receiver = &exchange.receiver;
        let answer = receiver.answer(true);
        let first = exchange.first.unwrap_or(exchange.last);
        let strays = receiver.strays(answer.clone());
        self.tap.tell(What::Echo, receiver.echo(), first);
        self.tap.tell(What::Stray, &strays, first);
        self.findings.add_strays(strays.len());
        self.learn_echo(receiver.echoed());
        self.silent_since = exchange.last;
        let reply = match (answer, ended) {
            (Some(answer), _) => {
                let frame = receiver.bytes(answer).to_vec();
                self.tap.tell(What::Answer, &frame, first);
                exchange.call.answer(&frame)
            }
            (None, Err(why)) => Reply::Garbled(why.to_owned()),
            (None, Ok(())) if exchange.broadcast => Reply::Answer(Answer::Broadcast),
            (None, Ok(())) => match receiver.why_missing() {
                Missing::Silence => Reply::TimedOut,
                why => Reply::Garbled(why.to_string()),
            },
        };
        self.fence = matches!(reply, Reply::TimedOut | Reply::Garbled(_))
            || exchange.broadcast && !strays.is_empty();
        Some(Input::Reply {
            id: exchange.id,
            reply,
        })
    }

    fn learn_echo(&mut self, echoed: Option<bool>) {
        let Some(echoes) = self.hearing.learn(echoed) else {
            return;
        };
        if self.bus.echo == Echo::Auto {
            self.findings.set_echo(Some(echoes));
        }
        match (self.bus.echo, echoes) {
            (Echo::Auto, true) => {
                info!(bus = %self.bus.name, "the adapter returns what is sent; that is taken off");
            }
            (Echo::Auto, false) => debug!(bus = %self.bus.name, "the adapter does not echo"),
            (Echo::Off, true) => {
                warn!(bus = %self.bus.name, "the adapter echoes, and echo = \"off\" is configured");
            }
            (Echo::On, _) | (Echo::Off, false) => {}
        }
    }

    /// Sees to it that nothing stands in the way of a request: stale bytes, a connection closed
    /// while it was idle, or the silence that ends the frame before.
    async fn make_clear(&mut self) -> Result<(), WireError> {
        if self.fence {
            self.drain().await?;
        }
        loop {
            let silent = self.silent_since + self.rate.silence();
            self.pause.until(silent).await.map_err(WireError::Timer)?;
            let arrived = match self.wire.arrived().await {
                Ok(arrived) => arrived,
                Err(WireError::Babble) => return Err(WireError::Babble),
                Err(_) if self.bus.port.is_none() => return self.reconnect().await,
                Err(error) => return Err(error),
            };
            match arrived.len() {
                0 => return Ok(()),
                1..=HARMLESS => self.silent_since = Instant::now(),
                _ => self.fence = true,
            }
            self.stray(&arrived);
            if self.fence {
                return self.drain().await;
            }
        }
    }

    /// Makes sure that no late answer can be taken for the next request's.
    async fn drain(&mut self) -> Result<(), WireError> {
        let quiet = self.rate.silence().max(FENCE_MIN).max(2 * self.latency);
        match self.wire.drain(quiet).await {
            Ok(drained) => self.stray(&drained),
            Err(WireError::Closed) if self.bus.port.is_none() => return self.reconnect().await,
            Err(error) => return Err(error),
        }
        self.fence = false;
        // What was drained has just been silent for longer than ends a frame.
        self.silent_since = Instant::now() - self.rate.silence();
        Ok(())
    }

    fn stray(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            debug!(bus = %self.bus.name, bytes = bytes.len(), "bytes that nobody asked for");
            self.findings.add_strays(bytes.len());
            self.tap.tell(What::Stray, bytes, Instant::now());
        }
    }

    async fn reconnect(&mut self) -> Result<(), WireError> {
        self.wire = Wire::open(&self.bus).await?;
        self.fence = false;
        Ok(())
    }
}

impl Exchange {
    fn take(&mut self, bytes: &[u8]) {
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
        self.receiver.push(bytes);
    }

    /// When silence says something: that the answer is cut off, or that none comes.
    fn look_at(&self, settled_after: Option<Duration>) -> Instant {
        let settled = settled_after.filter(|_| self.receiver.has_received());
        let settled = settled.map(|after| self.last + after);
        let ahead = settled.filter(|at| *at > Instant::now());
        ahead.map_or(self.give_up_at, |at| at.min(self.give_up_at))
    }

    /// Whether waiting on is vain.
    fn is_over(&self, settled_after: Option<Duration>) -> bool {
        let now = Instant::now();
        let settled = settled_after.is_some_and(|after| now >= self.last + after);
        let begun = || self.receiver.answer(true).is_some() || self.receiver.is_mangled();
        now >= self.give_up_at || settled && self.receiver.has_received() && begun()
    }
}
