//! One wire for a technician alone: the bus' own driver, without devices and polls. Driver.
//!
//! Invariant: what guards the wire in the service guards it here: late answers are drained away,
//! the port has one owner, and no write is sent twice.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    time::{sleep, sleep_until},
};
use tokio_serial::SerialStream;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    config::Bus,
    fieldbus::{
        Event,
        modbus::{self, BusHandle, Traced, What},
        poll::{
            memory::Memories,
            schedule::{AdhocOutcome, NOT_OPENED},
        },
        transaction::Request,
        wire::{
            line_rate::LineRate,
            port::{self, LineSettings},
        },
    },
    reading::Stamp,
};

use super::{
    adhoc::{PATIENCE, Told},
    frame::{Direction, Seen},
    sniff::{Sniffed, Sniffer},
};

/// How often it is looked whether the wire is open.
const LOOK: Duration = Duration::from_millis(5);

/// Longest pause within a lump of bytes: USB converters hand them over every 16 ms.
const LUMP: Duration = Duration::from_millis(20);

/// A wire that is open.
pub(crate) struct Line {
    handle: BusHandle,
    cancel: CancellationToken,
    /// Nothing is told without devices; closed, it would stop nothing.
    _events: mpsc::Receiver<Event>,
}

impl Line {
    /// Opens the wire of a bus; needs a tokio runtime.
    ///
    /// # Errors
    /// Why it cannot be opened, in the operator's words.
    pub(crate) async fn open(bus: &Bus) -> Result<Line, String> {
        let (sender, events) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let line = Line {
            handle: modbus::start(
                bus.clone(),
                Vec::new(),
                &Memories::new(),
                sender,
                cancel.clone(),
            ),
            cancel,
            _events: events,
        };
        loop {
            match line.handle.status().down {
                None => return Ok(line),
                Some(reason) if reason == NOT_OPENED => sleep(LOOK).await,
                Some(reason) => {
                    line.close().await;
                    return Err(reason);
                }
            }
        }
    }

    /// Sends a request and waits for what comes of it. `timeout` is the unit's own time: that of
    /// the bytes on the line comes on top.
    pub(crate) async fn transact(&self, unit: u8, request: Request, timeout: Duration) -> Told {
        ask(&self.handle, unit, request, timeout).await
    }

    /// Closes the port, so that it can be opened again.
    pub(crate) async fn close(self) {
        self.cancel.cancel();
        self.handle.stopped().await;
    }
}

/// Asks a bus, be it the service's or a technician's own.
pub(crate) async fn ask(bus: &BusHandle, unit: u8, request: Request, timeout: Duration) -> Told {
    match bus.ask(unit, request, timeout, PATIENCE).await {
        Some(AdhocOutcome::Replied(reply)) => Told::Reply(reply),
        Some(AdhocOutcome::Lost(reason)) => Told::Error(format!(
            "{reason}; the request was under way, and may or may not have been executed"
        )),
        Some(AdhocOutcome::Refused(refusal)) => Told::Error(refusal.to_string()),
        None => Told::Error("the bus has been stopped".to_owned()),
    }
}

impl Seen {
    /// What the tap of a bus tells.
    pub(crate) fn of(traced: &Traced) -> Seen {
        Seen {
            direction: match traced.what {
                What::Request => Direction::Request,
                What::Answer => Direction::Response,
                What::Echo => Direction::Echo,
                What::Stray => Direction::Stray,
            },
            time: traced.stamp.wall,
            took_us: u64::try_from(traced.took.as_micros()).unwrap_or(u64::MAX),
            bytes: traced.bytes.to_vec(),
        }
    }
}

/// A port on which nothing is sent.
pub(crate) struct Listener {
    port: SerialStream,
    sniffer: Sniffer,
    ready: VecDeque<Seen>,
}

impl Listener {
    /// Opens the port of a bus for this process alone; needs a tokio runtime.
    ///
    /// # Errors
    /// It cannot be opened, or the bus is no serial line.
    pub(crate) fn open(bus: &Bus) -> Result<Listener, String> {
        let Some(path) = &bus.port else {
            return Err(
                "only a serial line can be listened to; use tcpdump for a network".to_owned(),
            );
        };
        let line = LineSettings {
            baud: bus.baud,
            parity: bus.parity,
            data_bits: 8,
            stop_bits: bus.stop_bits.unwrap_or(bus.parity.usual_stop_bits()),
            rs485: bus.rs485,
        };
        Ok(Listener {
            port: port::open(path, line).map_err(|error| error.to_string())?,
            sniffer: Sniffer::new(LineRate::of(bus).silence().max(LUMP)),
            ready: VecDeque::new(),
        })
    }

    /// The next frame, or bytes that are none.
    ///
    /// # Errors
    /// The port is gone.
    pub(crate) async fn next(&mut self) -> Result<Seen, String> {
        let mut chunk = [0; 256];
        loop {
            if let Some(seen) = self.ready.pop_front() {
                return Ok(seen);
            }
            let silence = until(self.sniffer.poll_timeout());
            let found = tokio::select! {
                read = self.port.read(&mut chunk) => match read {
                    Ok(0) => return Err("the port is gone".to_owned()),
                    Ok(bytes) => self.sniffer.take(&chunk[..bytes], Instant::now()),
                    Err(error) => return Err(format!("reading from the port failed: {error}")),
                },
                () = silence => self.sniffer.handle_timeout(Instant::now()),
            };
            let now = clock::now();
            self.ready
                .extend(found.into_iter().map(|one| seen(one, now)));
        }
    }
}

/// Moments of the monotonic clock as those of the wall clock.
fn seen(sniffed: Sniffed, now: Stamp) -> Seen {
    let ago = now.monotonic.saturating_duration_since(sniffed.last);
    let took = sniffed.last.saturating_duration_since(sniffed.first);
    Seen {
        direction: sniffed.direction,
        time: now.wall.saturating_sub(ago).unwrap_or(now.wall),
        took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        bytes: sniffed.bytes,
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end.into()).await,
        None => std::future::pending().await,
    }
}
