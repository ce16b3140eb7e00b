//! One task per instrument that is not Modbus: opens its port, reads, writes, tells.
//!
//! ```text
//!  bytes ─▶ line, checksum (a frame) ─▶ text, nmea, shape (values) ─┐
//!                                                                   ├─ session ─▶ Event
//!  Command ─▶ command ─▶ template ──▶ poll (what goes out when) ────┘
//! ```
//!
//! Invariant: a port that is missing, silent or noisy is told once, is tried again with bounded
//! back-off, and never stops another line. Driver of `session`.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

mod checksum;
mod line;
pub(crate) mod nmea;
mod shape;
pub(crate) mod template;
mod text;

mod command;
mod poll;
mod session;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::{sleep, sleep_until, timeout},
};
use tokio_serial::{ClearBuffer, SerialPort, SerialStream};
use tokio_util::sync::CancellationToken;

use crate::fieldbus::{
    Command, DeviceState, Event, PointStatus,
    serial::session::{COMMANDS_MAX, Input, Output, Session},
    wire::port::{self, LineSettings},
};
use crate::{clock, config::SerialSensor};

/// First pause before a port is opened again.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Longest pause: a technician who plugs a cable in waits no longer than this.
const LAST_RETRY: Duration = Duration::from_secs(15);

/// Bytes taken from the port at once.
const CHUNK_BYTES: usize = 512;

/// Bad frames logged in a minute; the rest is counted.
const LOGGED_PER_MINUTE: u32 = 10;

const MINUTE: Duration = Duration::from_secs(60);

/// How long a port may take to accept what is to be sent; one that takes longer is stuck.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long events that are under way at the end may take to be handed over.
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// What a line has done since its start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SerialStatus {
    /// The instrument's name.
    pub device: String,
    /// Its port.
    pub port: PathBuf,
    /// Whether the instrument is heard; `None` until the first frame or the first silence.
    pub state: Option<DeviceState>,
    /// Bytes received.
    pub bytes: u64,
    /// Frames that were decoded.
    pub frames: u64,
    /// Sentences that nobody asked for, and answers that came too late.
    pub ignored: u64,
    /// Requests and commands sent.
    pub sent: u64,
    /// Requests without a good answer.
    pub unanswered: u64,
    /// Frames that could not be cut, verified or decoded.
    pub bad_frames: u64,
    /// What was wrong with the last of them.
    pub last_error: Option<String>,
    /// What was decoded, in the order of names.
    pub points: Vec<PointStatus>,
}

impl SerialStatus {
    /// A line that has done nothing.
    fn new(sensor: &SerialSensor) -> SerialStatus {
        SerialStatus {
            device: sensor.name.clone(),
            port: sensor.port.clone(),
            ..SerialStatus::default()
        }
    }
}

/// A running line; clones speak of the same one.
#[derive(Debug, Clone)]
pub struct SerialHandle {
    commands: mpsc::Sender<Command>,
    line: Arc<Mutex<Line>>,
    ended: CancellationToken,
}

/// What the task and its handles share.
#[derive(Debug)]
enum Line {
    Runs(Box<Session>),
    /// The configuration's check refuses this first. The line stays, and says why.
    Unusable(SerialStatus),
}

impl SerialHandle {
    /// Hands a command to the instrument; its result comes as an event.
    ///
    /// # Errors
    /// Gives the command back when too many wait already, or the line has ended.
    #[expect(clippy::result_large_err, reason = "the command itself is given back")]
    pub fn command(&self, command: Command) -> Result<(), Command> {
        self.commands
            .try_send(command)
            .map_err(mpsc::error::TrySendError::into_inner)
    }

    /// What the line has done so far.
    pub fn status(&self) -> SerialStatus {
        match &*locked(&self.line) {
            Line::Runs(session) => session.status(),
            Line::Unusable(status) => status.clone(),
        }
    }

    /// Whether the line's task has not ended.
    pub fn is_running(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Waits until the line has ended, which it does when it is cancelled or nobody takes events.
    pub async fn stopped(self) {
        self.ended.cancelled().await;
    }
}

/// Starts the task of one instrument; needs a tokio runtime.
pub fn start(
    sensor: SerialSensor,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) -> SerialHandle {
    let (commands, incoming) = mpsc::channel(COMMANDS_MAX);
    let line = match Session::new(sensor.clone(), clock::now()) {
        Ok(session) => Line::Runs(Box::new(session)),
        Err(reason) => Line::Unusable(SerialStatus {
            state: Some(DeviceState::Offline { reason }),
            ..SerialStatus::new(&sensor)
        }),
    };
    let line = Arc::new(Mutex::new(line));
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let driver = Driver {
        sensor,
        line: Arc::clone(&line),
        commands: incoming,
        events,
        cancel,
        log: LogBudget::default(),
    };
    tokio::spawn(async move {
        let _told_when_dropped = guard;
        driver.run().await;
    });
    SerialHandle {
        commands,
        line,
        ended,
    }
}

fn locked(line: &Mutex<Line>) -> std::sync::MutexGuard<'_, Line> {
    // Counters stay meaningful whatever happened to another holder.
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a port is no longer served.
enum End {
    /// The line is to end, or nobody takes events any more.
    Stopped,
    /// It cannot be opened, or it is gone; as the operator reads it.
    Lost(String),
}

struct Driver {
    sensor: SerialSensor,
    line: Arc<Mutex<Line>>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
    log: LogBudget,
}

impl Driver {
    /// Opens the port again and again, until the line is to end.
    async fn run(mut self) {
        if let Some(event) = self.unusable() {
            let told = self.events.send(event).await;
            return match told {
                Ok(()) => self.cancel.cancelled().await,
                Err(_closed) => {}
            };
        }
        let mut pause = FIRST_RETRY;
        loop {
            let before = self.received();
            let reason = match self.serve().await {
                End::Stopped => break,
                End::Lost(reason) => format!("{reason}; trying again"),
            };
            if self.received() > before {
                pause = FIRST_RETRY;
            }
            self.input(Input::Lost(reason));
            if self.wait(pause).await.is_err() {
                break;
            }
            pause = (pause * 2).min(LAST_RETRY);
        }
        self.commands.close();
        self.input(Input::Stop);
        while let Ok(command) = self.commands.try_recv() {
            self.input(Input::Command(command));
        }
        // Who takes events may be gone already.
        let _late = timeout(LAST_EVENTS, self.drain()).await;
    }

    /// Serves the port until it fails.
    async fn serve(&mut self) -> End {
        let mut port = match open(&self.sensor) {
            Ok(port) => port,
            Err(reason) => return End::Lost(reason),
        };
        self.input(Input::Opened);
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            if let Err(end) = self.act(&mut port).await {
                return end;
            }
            let deadline = self.deadline();
            tokio::select! {
                () = self.cancel.cancelled() => return End::Stopped,
                read = port.read(&mut chunk) => match read {
                    Ok(0) => return End::Lost(self.unplugged("the other end is gone")),
                    Ok(count) => {
                        let bytes = chunk.get(..count).unwrap_or_default();
                        self.input(Input::Bytes(bytes));
                    }
                    Err(error) => return End::Lost(self.unplugged(&error.to_string())),
                },
                Some(command) = self.commands.recv() => self.input(Input::Command(command)),
                () = until(deadline) => self.time_passed(),
            }
        }
    }

    /// Does what the session asks for.
    async fn act(&mut self, port: &mut SerialStream) -> Result<(), End> {
        while let Some(output) = self.output() {
            let Output::Transmit { bytes, drop_input } = output else {
                self.tell(output).await?;
                continue;
            };
            if drop_input {
                // A port that cannot do this is used all the same.
                let _cleared = port.clear(ClearBuffer::Input);
            }
            let sent = timeout(SEND_TIMEOUT, port.write_all(&bytes));
            match self.cancel.run_until_cancelled(sent).await {
                None => return Err(End::Stopped),
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return Err(End::Lost(self.unplugged(&error.to_string()))),
                Some(Err(_elapsed)) => {
                    return Err(End::Lost(self.unplugged("it takes no characters")));
                }
            }
        }
        Ok(())
    }

    /// Waits before the port is tried again; commands are refused meanwhile.
    async fn wait(&mut self, pause: Duration) -> Result<(), End> {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            while let Some(output) = self.output() {
                self.tell(output).await?;
            }
            tokio::select! {
                () = &mut over => return Ok(()),
                () = self.cancel.cancelled() => return Err(End::Stopped),
                Some(command) = self.commands.recv() => self.input(Input::Command(command)),
            }
        }
    }

    /// Hands on what is left to tell.
    async fn drain(&mut self) {
        while let Some(output) = self.output() {
            if let Output::Event(event) = output
                && self.events.send(event).await.is_err()
            {
                return;
            }
        }
    }

    async fn tell(&mut self, output: Output) -> Result<(), End> {
        let event = match output {
            Output::Event(event) => event,
            Output::BadFrame(error) => {
                if self.log.allows(Instant::now()) {
                    tracing::warn!(device = %self.sensor.name, error, "bad frame");
                }
                return Ok(());
            }
            // Nothing can be sent where nothing is open.
            Output::Transmit { .. } => return Ok(()),
        };
        if let Event::Device { device, state, .. } = &event {
            match state {
                DeviceState::Online => tracing::info!(%device, "online"),
                DeviceState::Offline { reason } => tracing::warn!(%device, reason, "offline"),
            }
        }
        let patience = async {
            self.cancel.cancelled().await;
            sleep(LAST_EVENTS).await;
        };
        tokio::select! {
            biased;
            sent = self.events.send(event) => sent.map_err(|_closed| End::Stopped),
            () = patience => Err(End::Stopped),
        }
    }

    /// What is told of a line that cannot be used as it is configured.
    fn unusable(&self) -> Option<Event> {
        let line = locked(&self.line);
        let Line::Unusable(status) = &*line else {
            return None;
        };
        Some(Event::Device {
            device: self.sensor.name.as_str().into(),
            state: status.state.clone()?,
            stamp: clock::now(),
        })
    }

    fn unplugged(&self, why: &str) -> String {
        let port = self.sensor.port.display();
        format!("serial port {port} was unplugged: {why}")
    }

    fn input(&self, input: Input<'_>) {
        if let Line::Runs(session) = &mut *locked(&self.line) {
            session.handle_input(input, clock::now());
        }
    }

    fn time_passed(&self) {
        if let Line::Runs(session) = &mut *locked(&self.line) {
            session.handle_timeout(clock::now());
        }
    }

    fn output(&self) -> Option<Output> {
        match &mut *locked(&self.line) {
            Line::Runs(session) => session.poll_output(),
            Line::Unusable(_) => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &*locked(&self.line) {
            Line::Runs(session) => session.poll_timeout(),
            Line::Unusable(_) => None,
        }
    }

    fn received(&self) -> u64 {
        match &*locked(&self.line) {
            Line::Runs(session) => session.status().bytes,
            Line::Unusable(status) => status.bytes,
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Opens the port and forgets what arrived while nobody listened, for it has no time.
fn open(sensor: &SerialSensor) -> Result<SerialStream, String> {
    let line = LineSettings {
        baud: sensor.baud,
        parity: sensor.parity,
        data_bits: sensor.data_bits,
        stop_bits: sensor.stop_bits,
        rs485: sensor.rs485,
    };
    let port = port::open(&sensor.port, line).map_err(|error| error.to_string())?;
    // A port that cannot do this is read all the same.
    let _cleared = port.clear(ClearBuffer::Input);
    Ok(port)
}

/// Lets so many log lines through in each minute.
#[derive(Debug, Default)]
struct LogBudget {
    since: Option<Instant>,
    logged: u32,
}

impl LogBudget {
    fn allows(&mut self, now: Instant) -> bool {
        let fresh = self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= MINUTE);
        if fresh {
            self.since = Some(now);
            self.logged = 0;
        }
        self.logged += 1;
        self.logged <= LOGGED_PER_MINUTE
    }
}

#[cfg(test)]
mod tests;
