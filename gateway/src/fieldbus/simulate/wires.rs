//! The wires that simulated devices hang on: pseudo-terminals and TCP listeners. Driver.
//!
//! Invariant: a client that does not read never holds up the devices for long.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Framing,
    fieldbus::wire::{line_rate::LineRate, pause::Pause},
};

use super::{
    Device, answers,
    chance::Chance,
    exchange::Exchange,
    faults::{Fault, LineFault, LineFaults},
    frame::{self, FRAME_MAX},
    talk::Talk,
    terminal::Terminal,
};

/// How soon a terminal or an address that could not be had is asked for again.
const RETRY: Duration = Duration::from_millis(100);
/// How long a client may leave its buffer full.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Unit identifier of what is meant for all (Modbus over serial line 2.2).
const BROADCAST: u8 = 0;

/// Devices on one wire and what is wrong with it; clones are the same line.
#[derive(Debug, Clone)]
pub struct Line {
    framing: Framing,
    rate: Option<LineRate>,
    devices: Arc<[Device]>,
    state: Arc<Mutex<State>>,
    connected: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    faults: LineFaults,
    chance: Chance,
    talk: Option<Talk>,
    /// Said so far.
    turn: u32,
    talks: bool,
}

impl Line {
    /// A line with these devices on it; with a rate, bytes take their time on it.
    pub fn new(framing: Framing, rate: Option<LineRate>, devices: Vec<Device>, seed: u64) -> Line {
        Line {
            framing,
            rate,
            devices: devices.into(),
            state: Arc::new(Mutex::new(State {
                faults: LineFaults::default(),
                chance: Chance::new(seed),
                talk: None,
                turn: 0,
                talks: true,
            })),
            connected: watch::Sender::new(true),
        }
    }

    /// With an instrument on it that talks by itself.
    pub(super) fn talking(self, talk: Talk) -> Line {
        self.state().talk = Some(talk);
        self
    }

    /// Lets the instrument talk, or not.
    pub(super) fn talk(&self, talks: bool) {
        self.state().talks = talks;
    }

    /// Whether the instrument talks.
    pub(super) fn talks(&self) -> bool {
        self.state().talks
    }

    /// Makes something wrong with it, or right again.
    pub fn set(&self, fault: LineFault) {
        self.state().faults.set(fault);
    }

    /// Takes the line from its client, or gives it back: a connection ends and no other is
    /// accepted, a pseudo-terminal is gone.
    pub fn connect(&self, connected: bool) {
        self.connected.send_replace(connected);
    }

    /// Whether the client can reach it.
    pub(super) fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// What is wrong with it.
    pub(super) fn faults(&self) -> LineFaults {
        self.state().faults
    }

    /// Makes all right again.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.faults = LineFaults::default();
        state.talks = true;
        drop(state);
        self.connect(true);
    }

    /// Whether this can go wrong on its frames.
    ///
    /// # Errors
    /// They do not have what would be wrong.
    pub(super) fn can_do(&self, fault: Fault) -> Result<(), String> {
        let missing = match (self.framing, fault) {
            (Framing::Tcp, Fault::WrongCrc) => {
                "Modbus TCP has no checksum; write cut or wrong-transaction"
            }
            (Framing::Rtu, Fault::WrongTransaction) => {
                "an RTU frame has no transaction identifier; write crc"
            }
            _ => return Ok(()),
        };
        Err(missing.to_owned())
    }

    /// Lays a pseudo-terminal until `cancel`, each time the line is connected anew, and hands its
    /// path to `laid`; needs a tokio runtime.
    ///
    /// # Errors
    /// The machine has no pseudo-terminal left, or `laid` fails.
    pub fn serve_pty(
        &self,
        cancel: CancellationToken,
        mut laid: impl FnMut(PathBuf) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let mut terminal = Some(lay(&mut laid)?);
        let line = self.clone();
        let serve = async move {
            loop {
                if let Some(terminal) = terminal.take() {
                    line.while_connected(line.serve_terminal(terminal)).await;
                }
                line.wait_for(true).await;
                match lay(&mut laid) {
                    Ok(laid) => terminal = Some(laid),
                    Err(error) => {
                        tracing::warn!(%error, "cannot lay a pseudo-terminal; trying again");
                        sleep(RETRY).await;
                    }
                }
            }
        };
        tokio::spawn(cancel.run_until_cancelled_owned(serve));
        Ok(())
    }

    /// Serves connections until `cancel`; needs a tokio runtime.
    pub fn serve_tcp(&self, listener: TcpListener, cancel: CancellationToken) {
        let line = self.clone();
        let serve = async move {
            let address = listener.local_addr();
            let mut listener = Some(listener);
            loop {
                if let Some(listener) = listener.take() {
                    line.while_connected(line.accept(listener)).await;
                }
                line.wait_for(true).await;
                match address.as_ref().map(TcpListener::bind) {
                    Ok(bind) => listener = bind.await.ok(),
                    Err(_) => return,
                }
                if listener.is_none() {
                    sleep(RETRY).await;
                }
            }
        };
        tokio::spawn(cancel.run_until_cancelled_owned(serve));
    }

    async fn accept(&self, listener: TcpListener) {
        // Ends the connections with the listener.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let _delayed = stream.set_nodelay(true);
            while connections.try_join_next().is_some() {}
            let line = self.clone();
            connections.spawn(async move { line.serve(stream).await });
        }
    }

    /// Serves whoever opens the terminal, one after the other.
    async fn serve_terminal(&self, terminal: Terminal) {
        loop {
            match terminal.opened().await {
                Ok(stream) => self.serve(stream).await,
                Err(error) => {
                    tracing::warn!(%error, "a pseudo-terminal cannot be watched");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Answers requests until the wire ends.
    async fn serve(&self, wire: impl AsyncRead + AsyncWrite + Unpin) {
        match Pause::new() {
            Ok(pause) => self.serve_on_time(wire, &pause).await,
            Err(error) => tracing::warn!(%error, "no timer for a wire; its client is let go"),
        }
    }

    /// A timer of the runtime's would be a millisecond late: a third of a short exchange's time at
    /// 115,200 baud.
    async fn serve_on_time(&self, mut wire: impl AsyncRead + AsyncWrite + Unpin, pause: &Pause) {
        let mut exchange = Exchange::new(self.framing, self.rate);
        let mut chunk = [0; FRAME_MAX];
        let mut speaks_at = Some(Instant::now());
        loop {
            if speaks_at.is_some_and(|at| at <= Instant::now()) {
                speaks_at = self.speak(&mut exchange);
            }
            let due = exchange.next_due().into_iter().chain(speaks_at).min();
            let read = async {
                match due {
                    None => Some(wire.read(&mut chunk).await),
                    Some(due) => tokio::select! {
                        read = wire.read(&mut chunk) => Some(read),
                        passed = pause.until(due) => passed.err().map(Err),
                    },
                }
            };
            match read.await {
                Some(Ok(bytes @ 1..))
                    if self.hear(&mut exchange, &mut chunk[..bytes]).is_some() => {}
                Some(_) => return,
                None => {}
            }
            if let Some(bytes) = exchange.take_due(Instant::now()) {
                let written = timeout(WRITE_TIMEOUT, wire.write_all(&bytes)).await;
                if !matches!(written, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }

    /// Says what the instrument says by itself; when it speaks again.
    fn speak(&self, exchange: &mut Exchange) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.state();
        let talk = state.talk.as_ref()?;
        let (mut words, every) = (talk.words(state.turn), talk.every);
        state.turn = state.turn.wrapping_add(1);
        if state.talks {
            state.disturb(&mut words);
            exchange.send(now, words);
        }
        Some(now + every)
    }

    /// Lets the devices hear what arrived; `None` where it never can make sense.
    fn hear(&self, exchange: &mut Exchange, bytes: &mut [u8]) -> Option<()> {
        let now = Instant::now();
        let mut state = self.state();
        if state.faults.echo {
            exchange.send(now, bytes.to_vec());
        }
        state.disturb(bytes);
        exchange.receive(bytes, now);
        while let Some(request) = exchange.next_request().ok()? {
            let arrived = exchange.arrived_at(&request, now);
            let broadcast = self.framing == Framing::Rtu && request.unit == BROADCAST;
            let (unit, pdu) = (request.unit, &request.pdu);
            for reply in answers(&self.devices, unit, pdu, broadcast, arrived) {
                let mut bytes = vec![0; usize::from(state.faults.zeros)];
                bytes.extend(frame::seal(self.framing, &request, &reply));
                state.disturb(&mut bytes);
                exchange.send(reply.at, bytes);
            }
        }
        Some(())
    }

    /// Does `work` until the line is disconnected.
    async fn while_connected(&self, work: impl Future<Output = ()>) {
        tokio::select! {
            () = work => {}
            () = self.wait_for(false) => {}
        }
    }

    async fn wait_for(&self, connected: bool) {
        let mut seen = self.connected.subscribe();
        // The line holds the sender, so it cannot be gone.
        let _seen = seen.wait_for(|now| *now == connected).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Changes as many bytes as the noise does.
    fn disturb(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.chance.strikes(self.faults.noise) {
                *byte ^= 1 << self.chance.below(8);
            }
        }
    }
}

/// Puts devices on one serial line and answers with its port; needs a tokio runtime.
///
/// # Errors
/// The machine has no pseudo-terminal left.
pub fn on_serial(devices: Vec<Device>, cancel: CancellationToken) -> io::Result<PathBuf> {
    let terminal = Terminal::lay()?;
    let path = terminal.path();
    let line = Line::new(Framing::Rtu, None, devices, 0);
    let serve = async move { line.serve_terminal(terminal).await };
    tokio::spawn(cancel.run_until_cancelled_owned(serve));
    Ok(path)
}

/// Puts devices behind one Modbus TCP address of this machine and answers with it.
///
/// # Errors
/// No port is free.
pub async fn on_tcp(devices: Vec<Device>, cancel: CancellationToken) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    serve_tcp(listener, Framing::Tcp, devices, cancel);
    Ok(address)
}

/// Puts devices behind a listener; needs a tokio runtime.
pub fn serve_tcp(
    listener: TcpListener,
    framing: Framing,
    devices: Vec<Device>,
    cancel: CancellationToken,
) {
    Line::new(framing, None, devices, 0).serve_tcp(listener, cancel);
}

fn lay(laid: &mut impl FnMut(PathBuf) -> io::Result<()>) -> io::Result<Terminal> {
    let terminal = Terminal::lay()?;
    laid(terminal.path())?;
    Ok(terminal)
}
