//! What one instrument says, is asked and is told: bytes in, readings and requests out. A core.
//!
//! Invariant: an instrument that is asked is read only in answer to a request, unless it is said to
//! speak unasked too, and a command is sent once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{SerialPoint, SerialSensor},
    fieldbus::{
        Command, DeviceState, Event, PointStatus,
        report::Rule,
        serial::{
            checksum::Check,
            command::{self, Writable, Write},
            line::{FrameError, Framer},
            poll::{Asked, Poller, TimedOut},
            template::Template,
            text::{Decoded, Decoder, Outcome as Decoding},
        },
        watch::Watch,
    },
    reading::{Reading, Stamp},
};

use super::SerialStatus;

mod commands;

pub(crate) use commands::COMMANDS_MAX;
use commands::ReadBack;

/// Characters of a request that messages show.
const SHOWN_CHARS: usize = 40;

/// What the world tells the session.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// The port is open.
    Opened,
    /// It cannot be opened, or is gone, and why.
    Lost(String),
    /// Bytes came.
    Bytes(&'a [u8]),
    /// A value is to be written.
    Command(Command),
    /// The line ends: what waits is refused.
    Stop,
}

/// What the session asks of the world.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful wait at a time")]
pub(crate) enum Output {
    /// Send this, after what has come unasked was dropped if so said.
    Transmit {
        /// The characters.
        bytes: Vec<u8>,
        /// Whether what came before is no longer of use.
        drop_input: bool,
    },
    /// Tell the appliance.
    Event(Event),
    /// Tell the log of a frame that could not be read.
    BadFrame(String),
}

/// One instrument.
#[derive(Debug)]
pub(crate) struct Session {
    sensor: SerialSensor,
    device: Arc<str>,
    framer: Framer,
    /// The line's own decoder; `None` where each request has one.
    decoder: Option<Decoder>,
    init: Vec<Vec<u8>>,
    requests: Vec<Question>,
    writable: Vec<Writable>,
    poller: Poller,
    writes: VecDeque<Write>,
    /// The command that was sent and whose value is being read back.
    reading_back: Option<ReadBack>,
    /// Characters sent that are to come back.
    echo: VecDeque<u8>,
    /// What was wrong with the last frame that came while an answer was awaited.
    wrong: Option<String>,
    watches: BTreeMap<Arc<str>, Watched>,
    status: SerialStatus,
    /// Why the port is not open.
    down: Option<String>,
    /// When the last byte came.
    arrived: Stamp,
    /// When the line has been silent for long enough to end a frame.
    quiet_at: Option<Instant>,
    /// When the last good frame came, or the port was opened.
    heard: Instant,
    /// Bytes since then.
    unread: usize,
    /// Whether the silence since then has been told.
    given_up: bool,
    outputs: VecDeque<Output>,
}

/// A request with what reads its answer.
#[derive(Debug)]
struct Question {
    bytes: Vec<u8>,
    shown: String,
    decoder: Option<Decoder>,
}

/// A value, and the last request that brought it; what is said unasked changes nothing of that.
#[derive(Debug)]
struct Watched {
    watch: Watch,
    request: Option<usize>,
}

impl Session {
    /// A line whose port is not open yet; the error says what the configuration's check should
    /// have refused.
    pub(crate) fn new(sensor: SerialSensor, now: Stamp) -> Result<Session, String> {
        let check = sensor.send_checksum.or(sensor.checksum).map(Check::new);
        let fixed = |text: &String| Template::parse(text)?.render(None, check);
        let own = sensor
            .requests
            .iter()
            .all(|request| request.decode.is_some());
        let silent = own && !sensor.requests.is_empty() && !sensor.unasked;
        let decoder = match silent {
            true => None,
            false => Some(Decoder::new(&sensor.decode, &sensor.points)?),
        };
        let question = |request: &crate::config::SerialRequest| -> Result<Question, String> {
            let bytes = fixed(&request.send)?;
            let decode = request.decode.as_ref();
            let decoder = decode.map(|decode| Decoder::new(decode, &sensor.points));
            Ok(Question {
                shown: shown(&bytes),
                bytes,
                decoder: decoder.transpose()?,
            })
        };
        let requests: Result<_, String> = sensor.requests.iter().map(question).collect();
        let init: Result<_, String> = sensor.init.iter().map(fixed).collect();
        Ok(Session {
            device: Arc::from(sensor.name.as_str()),
            framer: Framer::new(&sensor.frame, sensor.checksum),
            decoder,
            init: init?,
            requests: requests?,
            writable: command::writable(&sensor)?,
            poller: Poller::new(&sensor, now.monotonic),
            writes: VecDeque::new(),
            reading_back: None,
            echo: VecDeque::new(),
            wrong: None,
            watches: BTreeMap::new(),
            status: SerialStatus::new(&sensor),
            down: Some("the port has not been opened yet".to_owned()),
            arrived: now,
            quiet_at: None,
            heard: now.monotonic,
            unread: 0,
            given_up: false,
            outputs: VecDeque::new(),
            sensor,
        })
    }

    /// Takes what happened at `now`.
    pub(crate) fn handle_input(&mut self, input: Input<'_>, now: Stamp) {
        match input {
            Input::Opened => self.opened(now),
            Input::Lost(reason) => self.lost(&reason, now),
            Input::Bytes(bytes) => self.bytes(bytes, now),
            Input::Command(command) => self.command(command, now),
            Input::Stop => self.end_writes("the line is being stopped", now),
        }
        self.handle_timeout(now);
    }

    /// Does what has become due; early and repeated calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Stamp) {
        if self.down.is_some() {
            return;
        }
        if self.quiet_at.is_some_and(|at| at <= now.monotonic) {
            self.quiet_at = None;
            if let Some(frame) = self.framer.silence() {
                self.take(frame, self.arrived);
            }
        }
        if let Some(timed_out) = self.poller.timed_out(now.monotonic) {
            self.timed_out(timed_out, now);
        }
        self.judge_silence(now);
        self.start_next(now);
    }

    /// The next thing to do; drain until `None`.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Session::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.down.is_some() {
            return None;
        }
        let silent_at = self.silent_at();
        let next = self.poller.wake(self.write_waits());
        [self.quiet_at, silent_at, next].into_iter().flatten().min()
    }

    /// What the line has done so far.
    pub(crate) fn status(&self) -> SerialStatus {
        SerialStatus {
            points: self.points(),
            ..self.status.clone()
        }
    }

    fn points(&self) -> Vec<PointStatus> {
        let watches = self.watches.values();
        watches.map(|watched| watched.watch.status()).collect()
    }

    /// Whether it is asked, and silent otherwise.
    fn is_polled(&self) -> bool {
        !self.requests.is_empty()
    }

    fn opened(&mut self, now: Stamp) {
        self.down = None;
        self.framer = Framer::new(&self.sensor.frame, self.sensor.checksum);
        self.echo.clear();
        self.arrived = now;
        self.quiet_at = Some(now.monotonic + self.framer.gap());
        self.heard = now.monotonic;
        self.unread = 0;
        self.given_up = false;
        self.poller.opened(now.monotonic);
    }

    fn lost(&mut self, reason: &str, now: Stamp) {
        self.end_writes(reason, now);
        self.down = Some(reason.to_owned());
        let reason = reason.to_owned();
        self.change(DeviceState::Offline { reason }, now);
    }

    fn bytes(&mut self, bytes: &[u8], now: Stamp) {
        self.status.bytes += bytes.len() as u64;
        self.unread += bytes.len();
        self.arrived = now;
        self.quiet_at = Some(now.monotonic + self.framer.gap());
        self.poller.heard(now.monotonic);
        for byte in bytes {
            if self.echo.front() == Some(byte) {
                self.echo.pop_front();
                continue;
            }
            // What does not come back as it was sent is no echo any more.
            self.echo.clear();
            if let Some(frame) = self.framer.push(*byte) {
                self.take(frame, now);
            }
        }
    }

    /// Takes a frame as the answer that is awaited, or as what the instrument says by itself.
    fn take(&mut self, frame: Result<Vec<u8>, FrameError>, stamp: Stamp) {
        match self.poller.waiting() {
            Some(Asked::Request(index)) => self.take_answer(frame, index, stamp),
            Some(Asked::Write) if self.confirms(&frame) => self.confirmed(stamp),
            Some(Asked::Write) if self.is_polled() => {
                self.wrong = Some(match frame {
                    Ok(frame) => format!("got \"{}\"", shown(&frame)),
                    Err(error) => error.to_string(),
                });
            }
            Some(Asked::Init(_)) if self.is_polled() => self.poller.answered(stamp.monotonic),
            // Whoever is asked says nothing by itself: this is an answer that came too late.
            None if self.is_polled() && !self.sensor.unasked => self.status.ignored += 1,
            waiting => {
                if let Some(Asked::Init(_)) = waiting {
                    self.poller.answered(stamp.monotonic);
                }
                self.take_unasked(frame, stamp);
            }
        }
    }

    fn take_unasked(&mut self, frame: Result<Vec<u8>, FrameError>, stamp: Stamp) {
        let Some(decoder) = &mut self.decoder else {
            return;
        };
        match decoded(decoder, frame) {
            Ok(Decoding::Values(values)) => {
                self.hear(stamp);
                self.status.frames += 1;
                self.publish(values, None, stamp);
            }
            Ok(Decoding::Ignored) => {
                self.hear(stamp);
                self.status.ignored += 1;
            }
            Err(error) => self.misread(error),
        }
    }

    /// The first frame that the request's decoder reads is its answer. What it cannot read may have
    /// been said unasked.
    fn take_answer(&mut self, frame: Result<Vec<u8>, FrameError>, index: usize, stamp: Stamp) {
        let own = self.requests[index].decoder.as_mut();
        let unasked = own.is_some() && self.sensor.unasked;
        let Some(decoder) = own.or(self.decoder.as_mut()) else {
            return;
        };
        match decoded(decoder, frame.clone()) {
            Err(_) if unasked => self.take_unasked(frame, stamp),
            Ok(Decoding::Values(values)) => {
                self.poller.answered(stamp.monotonic);
                self.hear(stamp);
                self.status.frames += 1;
                self.read_back(&values, index, stamp);
                self.publish(values, Some(index), stamp);
            }
            Ok(Decoding::Ignored) => self.status.ignored += 1,
            Err(error) => {
                self.wrong = Some(error.clone());
                self.misread(error);
            }
        }
    }

    /// The instrument is there.
    fn hear(&mut self, stamp: Stamp) {
        self.heard = stamp.monotonic;
        self.given_up = false;
        self.unread = 0;
        self.change(DeviceState::Online, stamp);
    }

    fn misread(&mut self, error: String) {
        self.status.bad_frames += 1;
        self.status.last_error = Some(error.clone());
        self.outputs.push_back(Output::BadFrame(error));
    }

    fn timed_out(&mut self, timed_out: TimedOut, now: Stamp) {
        let wrong = self.wrong.take();
        let waited = timed_out.waited;
        match timed_out.asked {
            Asked::Init(_) => {}
            Asked::Write => self.unconfirmed(waited, wrong, now),
            Asked::Request(index) => {
                self.status.unanswered += 1;
                if timed_out.over {
                    let asked = &self.requests[index].shown;
                    let reason = match wrong {
                        None => format!("no answer to \"{asked}\" in {waited:?}"),
                        Some(wrong) => {
                            format!("no good answer to \"{asked}\" in {waited:?}; last: {wrong}")
                        }
                    };
                    self.not_read_back(index, &reason, now);
                    self.unanswered(index, timed_out, &reason, now);
                }
            }
        }
    }

    /// Tells once of an instrument, or of a request's values, that is not there any more.
    fn unanswered(&mut self, index: usize, timed_out: TimedOut, reason: &str, now: Stamp) {
        if timed_out.silent_turns >= self.sensor.offline_after && !self.given_up {
            self.given_up = true;
            let reason = reason.to_owned();
            self.change(DeviceState::Offline { reason }, now);
        } else if timed_out.unanswered == self.sensor.offline_after {
            self.outdate(Some(index), reason, now.monotonic);
        }
    }

    /// Sends what is due.
    fn start_next(&mut self, now: Stamp) {
        self.refuse_expired(now);
        let next = self.poller.next(self.write_waits(), now.monotonic);
        let Some(asked) = next else { return };
        let bytes = match asked {
            Asked::Init(index) => self.init[index].clone(),
            Asked::Request(index) => self.requests[index].bytes.clone(),
            Asked::Write => match self.writes.front() {
                Some(write) => write.bytes.clone(),
                None => return,
            },
        };
        self.transmit(asked, bytes, now);
    }

    fn transmit(&mut self, asked: Asked, bytes: Vec<u8>, now: Stamp) {
        self.wrong = None;
        self.status.sent += 1;
        if self.sensor.echo {
            self.echo = bytes.iter().copied().collect();
        }
        let drop_input = self.is_polled();
        if drop_input {
            self.framer.begin();
        }
        if asked == Asked::Write && !self.awaits_confirmation() {
            self.poller.sent_unanswered(bytes.len(), now.monotonic);
            self.sent_unconfirmed(now);
        } else {
            self.poller.sent(asked, bytes.len(), now.monotonic);
        }
        self.outputs
            .push_back(Output::Transmit { bytes, drop_input });
    }

    /// Publishes what the deadbands let through.
    fn publish(&mut self, values: Vec<Decoded>, request: Option<usize>, stamp: Stamp) {
        let mut readings = Vec::with_capacity(values.len());
        for decoded in values {
            let watched = self
                .watches
                .entry(Arc::clone(&decoded.name))
                .or_insert_with(|| watched(&self.sensor, &decoded, request));
            watched.request = request.or(watched.request);
            readings.extend(watched.watch.answered(Ok(decoded.value), stamp));
        }
        self.tell(readings);
    }

    /// Lets values be stale, those of one request or all; none is told twice.
    fn outdate(&mut self, request: Option<usize>, reason: &str, now: Instant) {
        let watches = self.watches.values_mut();
        let readings = watches
            .filter(|watched| request.is_none() || watched.request == request)
            .filter_map(|watched| watched.watch.outdated(reason, now))
            .collect();
        self.tell(readings);
    }

    fn tell(&mut self, readings: Vec<Reading>) {
        if !readings.is_empty() {
            self.event(Event::Readings(readings));
        }
    }

    /// When an instrument that talks by itself counts as offline.
    fn silent_at(&self) -> Option<Instant> {
        let judged = !self.is_polled() && !self.given_up;
        judged.then(|| self.heard + self.sensor.timeout.as_duration())
    }

    fn judge_silence(&mut self, now: Stamp) {
        if self.silent_at().is_none_or(|at| at > now.monotonic) {
            return;
        }
        self.given_up = true;
        let limit = self.sensor.timeout;
        let mut reason = format!("nothing received in {limit}");
        if self.unread > 0 {
            reason = format!("nothing readable in {limit}, but {} bytes", self.unread);
            if let Some(error) = &self.status.last_error {
                reason = format!("{reason}; last: {error}");
            }
            reason.push_str(" (are baud, parity and frame right?)");
        }
        self.change(DeviceState::Offline { reason }, now);
    }

    /// Tells of a change of state; the same state again is not told.
    fn change(&mut self, state: DeviceState, stamp: Stamp) {
        if self.status.state.as_ref() == Some(&state) {
            return;
        }
        self.status.state = Some(state.clone());
        let device = Arc::clone(&self.device);
        self.event(Event::Device {
            device,
            state: state.clone(),
            stamp,
        });
        if let DeviceState::Offline { reason } = state {
            self.outdate(None, &reason, stamp.monotonic);
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

fn decoded(decoder: &mut Decoder, frame: Result<Vec<u8>, FrameError>) -> Result<Decoding, String> {
    let frame = frame.map_err(|error| error.to_string())?;
    decoder.decode(&frame).map_err(|error| error.to_string())
}

/// The watch of a value that is decoded for the first time.
fn watched(sensor: &SerialSensor, decoded: &Decoded, request: Option<usize>) -> Watched {
    let mut points = sensor.points.iter();
    let point = points.find(|point| *point.name == *decoded.name);
    let interval = request.and_then(|index| sensor.requests.get(index));
    let rule = Rule {
        deadband: point.and_then(SerialPoint::publishes_on),
        heartbeat: point
            .and_then(|point| point.heartbeat)
            .map(settings::Period::as_duration),
        interval: interval.map_or(Duration::ZERO, |request| request.interval.as_duration()),
    };
    let device = sensor.name.as_str().into();
    let (name, unit) = (Arc::clone(&decoded.name), decoded.unit.clone());
    Watched {
        watch: Watch::new(device, name, unit, rule),
        request,
    }
}

/// The beginning of what goes over the line, in printable characters.
fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match text.get(..SHOWN_CHARS) {
        Some(beginning) if text.len() > SHOWN_CHARS => format!("{beginning}…"),
        _ => text,
    }
}

#[cfg(test)]
mod tests;
