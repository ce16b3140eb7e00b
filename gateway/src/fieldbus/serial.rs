//! One task per instrument that talks by itself: opens its port, cuts, decodes, tells.
//!
//! Invariant: a port that is missing, silent or noisy is told once, is tried again with bounded
//! back-off, and never stops another line. Driver of `line`, `text` and `watch`.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

mod checksum;
mod line;
pub(crate) mod nmea;
mod text;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_serial::{ClearBuffer, SerialPort, SerialStream};
use tokio_util::sync::CancellationToken;

use crate::fieldbus::{
    DeviceState, Event, PointStatus,
    report::Rule,
    serial::{
        line::{FrameError, Framer},
        text::{Decoded, Decoder, Outcome},
    },
    watch::Watch,
    wire::port::{self, LineSettings},
};
use crate::{
    clock,
    config::{SerialPoint, SerialSensor},
    reading::{Reading, Stamp},
};

/// First pause before a port is opened again.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Longest pause: a technician who plugs a cable in waits no longer than this.
const LAST_RETRY: Duration = Duration::from_secs(15);

/// Bytes taken from the port at once.
const CHUNK_BYTES: usize = 512;

/// Bad frames logged in a minute; the rest is counted.
const LOGGED_PER_MINUTE: u32 = 10;

const MINUTE: Duration = Duration::from_secs(60);

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
    /// Sentences that nobody asked for.
    pub ignored: u64,
    /// Frames that could not be cut, verified or decoded.
    pub bad_frames: u64,
    /// What was wrong with the last of them.
    pub last_error: Option<String>,
    /// What was decoded, in the order of names.
    pub points: Vec<PointStatus>,
}

/// A running line; clones speak of the same one.
#[derive(Debug, Clone)]
pub struct SerialHandle {
    status: Arc<Mutex<SerialStatus>>,
    ended: CancellationToken,
}

impl SerialHandle {
    /// What the line has done so far.
    pub fn status(&self) -> SerialStatus {
        locked(&self.status).clone()
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
    let status = Arc::new(Mutex::new(SerialStatus {
        device: sensor.name.clone(),
        port: sensor.port.clone(),
        ..SerialStatus::default()
    }));
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let mut line = Line {
        device: Arc::from(sensor.name.as_str()),
        watches: BTreeMap::new(),
        events,
        status: Arc::clone(&status),
        log: LogBudget::default(),
        heard: Instant::now(),
        unread: 0,
        given_up: false,
        sensor,
    };
    tokio::spawn(async move {
        let _told_when_dropped = guard;
        tokio::select! {
            () = cancel.cancelled() => {}
            Err(Closed) = line.run() => {}
        }
    });
    SerialHandle { status, ended }
}

fn locked(status: &Mutex<SerialStatus>) -> std::sync::MutexGuard<'_, SerialStatus> {
    // Counters stay meaningful whatever happened to another holder.
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nobody takes events any more.
struct Closed;

/// Why a port was given up.
enum Lost {
    /// It cannot be opened, or it is gone; as the operator reads it.
    Port(String),
    /// Nobody takes events any more.
    Closed,
}

impl From<Closed> for Lost {
    fn from(_: Closed) -> Lost {
        Lost::Closed
    }
}

struct Line {
    sensor: SerialSensor,
    device: Arc<str>,
    watches: BTreeMap<Arc<str>, Watch>,
    events: mpsc::Sender<Event>,
    status: Arc<Mutex<SerialStatus>>,
    log: LogBudget,
    /// When the last good frame came, or the port was opened.
    heard: Instant,
    /// Bytes since then.
    unread: usize,
    /// Whether the silence since then has been told.
    given_up: bool,
}

impl Line {
    /// Opens the port again and again, until nobody takes events.
    async fn run(&mut self) -> Result<Infallible, Closed> {
        let mut decoder = match Decoder::new(&self.sensor) {
            Ok(decoder) => decoder,
            Err(reason) => {
                // The configuration's check refuses this first. The line stays, and says why.
                self.change(DeviceState::Offline { reason }, clock::now())
                    .await?;
                return std::future::pending().await;
            }
        };
        let mut pause = FIRST_RETRY;
        loop {
            let before = locked(&self.status).bytes;
            let Err(lost) = self.listen(&mut decoder).await;
            let reason = match lost {
                Lost::Port(reason) => format!("{reason}; trying again"),
                Lost::Closed => return Err(Closed),
            };
            if locked(&self.status).bytes > before {
                pause = FIRST_RETRY;
            }
            self.change(DeviceState::Offline { reason }, clock::now())
                .await?;
            sleep(pause).await;
            pause = (pause * 2).min(LAST_RETRY);
        }
    }

    /// Serves the port until it fails.
    async fn listen(&mut self, decoder: &mut Decoder) -> Result<Infallible, Lost> {
        let mut port = open(&self.sensor)?;
        let mut framer = Framer::new(&self.sensor.frame, self.sensor.checksum);
        let mut chunk = [0; CHUNK_BYTES];
        let mut arrived = clock::now();
        let mut paused = false;
        self.heard = arrived.monotonic;
        self.unread = 0;
        self.given_up = false;
        loop {
            // Once the silence between two frames is told, only the long one remains.
            let least = framer.gap();
            let wait = if paused {
                self.patience().max(least)
            } else {
                least
            };
            match timeout(wait, port.read(&mut chunk)).await {
                Ok(Ok(count @ 1..)) => {
                    arrived = clock::now();
                    paused = false;
                    let bytes = chunk.get(..count).unwrap_or_default();
                    self.feed(bytes, &mut framer, decoder, arrived).await?;
                }
                Ok(Ok(0)) => return Err(self.unplugged("the other end is gone")),
                Ok(Err(error)) => return Err(self.unplugged(&error.to_string())),
                Err(_elapsed) => {
                    paused = true;
                    if let Some(frame) = framer.silence() {
                        self.take(frame, decoder, arrived).await?;
                    }
                }
            }
            self.judge_silence().await?;
        }
    }

    fn unplugged(&self, why: &str) -> Lost {
        let port = self.sensor.port.display();
        Lost::Port(format!("serial port {port} was unplugged: {why}"))
    }

    async fn feed(
        &mut self,
        bytes: &[u8],
        framer: &mut Framer,
        decoder: &mut Decoder,
        arrived: Stamp,
    ) -> Result<(), Closed> {
        locked(&self.status).bytes += bytes.len() as u64;
        self.unread += bytes.len();
        for byte in bytes {
            if let Some(frame) = framer.push(*byte) {
                self.take(frame, decoder, arrived).await?;
            }
        }
        Ok(())
    }

    /// Decodes a frame, or counts why it cannot be.
    async fn take(
        &mut self,
        frame: Result<Vec<u8>, FrameError>,
        decoder: &mut Decoder,
        arrived: Stamp,
    ) -> Result<(), Closed> {
        let decoded = frame
            .map_err(|error| error.to_string())
            .and_then(|frame| decoder.decode(&frame).map_err(|error| error.to_string()));
        let outcome = match decoded {
            Ok(outcome) => outcome,
            Err(error) => {
                self.count_bad(error, arrived.monotonic);
                return Ok(());
            }
        };
        self.heard = arrived.monotonic;
        self.given_up = false;
        self.unread = 0;
        self.change(DeviceState::Online, arrived).await?;
        match outcome {
            Outcome::Values(values) => {
                locked(&self.status).frames += 1;
                self.publish(values, arrived).await
            }
            Outcome::Ignored => {
                locked(&self.status).ignored += 1;
                Ok(())
            }
        }
    }

    /// Sends what the deadbands let through.
    async fn publish(&mut self, values: Vec<Decoded>, stamp: Stamp) -> Result<(), Closed> {
        let mut readings = Vec::with_capacity(values.len());
        for decoded in values {
            let watch = self
                .watches
                .entry(Arc::clone(&decoded.name))
                .or_insert_with(|| watch(&self.sensor, &decoded));
            readings.extend(watch.answered(Ok(decoded.value), stamp));
        }
        self.show_points();
        self.tell(readings).await
    }

    /// Lets every value be stale; none is told twice.
    async fn outdate(&mut self, reason: &str, now: Instant) -> Result<(), Closed> {
        let watches = self.watches.values_mut();
        let readings: Vec<Reading> = watches
            .filter_map(|watch| watch.outdated(reason, now))
            .collect();
        self.show_points();
        self.tell(readings).await
    }

    fn show_points(&self) {
        let points = self.watches.values().map(Watch::status).collect();
        locked(&self.status).points = points;
    }

    async fn tell(&self, readings: Vec<Reading>) -> Result<(), Closed> {
        if readings.is_empty() {
            return Ok(());
        }
        self.send(Event::Readings(readings)).await
    }

    /// Time left until the instrument counts as offline.
    fn patience(&self) -> Duration {
        let limit = self.sensor.timeout.as_duration();
        if self.given_up {
            return limit;
        }
        limit.saturating_sub(self.heard.elapsed())
    }

    /// Declares the instrument offline when no good frame came for its timeout.
    async fn judge_silence(&mut self) -> Result<(), Closed> {
        if self.given_up || !self.patience().is_zero() {
            return Ok(());
        }
        self.given_up = true;
        let limit = self.sensor.timeout;
        let mut reason = format!("nothing received in {limit}");
        if self.unread > 0 {
            reason = format!("nothing readable in {limit}, but {} bytes", self.unread);
            if let Some(error) = &locked(&self.status).last_error {
                reason = format!("{reason}; last: {error}");
            }
            reason.push_str(" (are baud, parity and frame right?)");
        }
        self.change(DeviceState::Offline { reason }, clock::now())
            .await
    }

    fn count_bad(&mut self, error: String, now: Instant) {
        let bad_frames = {
            let mut status = locked(&self.status);
            status.bad_frames += 1;
            status.last_error = Some(error.clone());
            status.bad_frames
        };
        if self.log.allows(now) {
            tracing::warn!(device = %self.device, bad_frames, error, "bad frame");
        }
    }

    /// Tells of a change of state; the same state again is not told.
    async fn change(&mut self, state: DeviceState, stamp: Stamp) -> Result<(), Closed> {
        {
            let mut status = locked(&self.status);
            if status.state.as_ref() == Some(&state) {
                return Ok(());
            }
            status.state = Some(state.clone());
        }
        match &state {
            DeviceState::Online => tracing::info!(device = %self.device, "online"),
            DeviceState::Offline { reason } => {
                tracing::warn!(device = %self.device, reason, "offline");
            }
        }
        let device = Arc::clone(&self.device);
        self.send(Event::Device {
            device,
            state: state.clone(),
            stamp,
        })
        .await?;
        match state {
            DeviceState::Online => Ok(()),
            DeviceState::Offline { reason } => self.outdate(&reason, stamp.monotonic).await,
        }
    }

    async fn send(&self, event: Event) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }
}

/// The watch of a value that is decoded for the first time.
fn watch(sensor: &SerialSensor, decoded: &Decoded) -> Watch {
    let mut points = sensor.points.iter();
    let point = points.find(|point| *point.name == *decoded.name);
    let rule = Rule {
        deadband: point.and_then(SerialPoint::publishes_on),
        heartbeat: point
            .and_then(|point| point.heartbeat)
            .map(settings::Period::as_duration),
        interval: Duration::ZERO,
    };
    let device = sensor.name.as_str().into();
    Watch::new(
        device,
        Arc::clone(&decoded.name),
        decoded.unit.clone(),
        rule,
    )
}

/// Opens the port and forgets what arrived while nobody listened, for it has no time.
fn open(sensor: &SerialSensor) -> Result<SerialStream, Lost> {
    let line = LineSettings {
        baud: sensor.baud,
        parity: sensor.parity,
        data_bits: sensor.data_bits,
        stop_bits: sensor.stop_bits,
        rs485: sensor.rs485,
    };
    let port = port::open(&sensor.port, line).map_err(|error| Lost::Port(error.to_string()))?;
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
