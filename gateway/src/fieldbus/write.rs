//! One command on its way: written once, read back, compared. A core.
//!
//! Invariant: the write is sent at most once, whatever comes back.

use std::time::{Duration, Instant};

use crate::reading::Value;

use super::{
    Command, Outcome,
    decode::{Encoded, WriteError},
    device::Device,
    point::Point,
    transaction::{Reply, Request, Span},
};

/// Reads after a write before it counts as not taken: some devices apply a value a moment after
/// they acknowledged it.
const READ_BACK_TRIES: u32 = 3;
/// Between such reads.
const READ_BACK_PAUSE: Duration = Duration::from_millis(100);

/// A command that was accepted.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) command: Command,
    /// Index of the device.
    pub(crate) device: usize,
    span: Span,
    request: Request,
    expected: Value,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    ToBeSent,
    ToBeReadBack { at: Instant, tries_left: u32 },
}

/// What a command means on the bus.
#[derive(Debug)]
pub(crate) struct Checked {
    span: Span,
    request: Request,
    expected: Value,
}

/// Why a command is not sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No such device on the bus.
    #[error("no device {0:?} on this bus")]
    Device(String),
    /// No such point in the device.
    #[error("device {device:?} has no point {point:?}")]
    Point {
        /// The device.
        device: String,
        /// What it lacks.
        point: String,
    },
    /// The configuration does not allow it.
    #[error("{0} is read-only; `access = \"read-write\"` at the point would permit it")]
    ReadOnly(String),
    /// The value does not fit the point.
    #[error(transparent)]
    Value(#[from] WriteError),
    /// It waited for too long.
    #[error("expired: more than {0:?} passed before it could be sent")]
    Expired(Duration),
    /// The wire is down.
    #[error("not sent: {0}")]
    WireDown(String),
    /// Too many commands wait.
    #[error("{0} commands wait already")]
    QueueFull(usize),
}

impl Write {
    /// A command that was checked, for the device with this index.
    pub(crate) fn new(command: Command, device: usize, checked: Checked) -> Write {
        Write {
            command,
            device,
            span: checked.span,
            request: checked.request,
            expected: checked.expected,
            stage: Stage::ToBeSent,
        }
    }

    /// Why it must not be sent any more, if so.
    pub(crate) fn expired(&self, now: Instant) -> Option<Refusal> {
        let age = now.saturating_duration_since(self.command.received.monotonic);
        let expires = self.command.expires?;
        (self.stage == Stage::ToBeSent && age > expires).then_some(Refusal::Expired(expires))
    }

    /// What has become of it when the wire is lost; `under_way`: while its request was.
    pub(crate) fn lost(&self, reason: &str, under_way: bool) -> Outcome {
        match (self.stage, under_way) {
            (Stage::ToBeSent, false) => {
                Outcome::Refused(Refusal::WireDown(reason.to_owned()).to_string())
            }
            (Stage::ToBeSent, true) => {
                Outcome::Failed(format!("{reason}; it may or may not have been executed"))
            }
            (Stage::ToBeReadBack { .. }, _) => Outcome::Failed(format!(
                "the device acknowledged the write, but it was not read back: {reason}"
            )),
        }
    }

    /// When its next request may be sent.
    pub(crate) fn ready_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::ToBeSent => None,
            Stage::ToBeReadBack { at, .. } => Some(at),
        }
    }

    /// Its next request.
    pub(crate) fn request(&self) -> Request {
        match self.stage {
            Stage::ToBeSent => self.request.clone(),
            Stage::ToBeReadBack { .. } => Request::Read(self.span),
        }
    }

    /// Takes what came of the request; the outcome once it is known.
    pub(crate) fn replied(
        &mut self,
        reply: &Reply,
        point: Option<&Point>,
        now: Instant,
    ) -> Option<Outcome> {
        match self.stage {
            Stage::ToBeSent => self.written(reply, now),
            Stage::ToBeReadBack { tries_left, .. } => self.read_back(reply, point, tries_left, now),
        }
    }

    fn written(&mut self, reply: &Reply, now: Instant) -> Option<Outcome> {
        let failure = match reply {
            Reply::Answer(_) => {
                self.stage = Stage::ToBeReadBack {
                    at: now,
                    tries_left: READ_BACK_TRIES - 1,
                };
                return None;
            }
            Reply::Exception(exception) => format!("the device answered {exception}"),
            Reply::TimedOut => "no answer; it may or may not have been executed".to_owned(),
            Reply::Garbled(what) => {
                format!("{what}; it may or may not have been executed")
            }
        };
        Some(Outcome::Failed(failure))
    }

    fn read_back(
        &mut self,
        reply: &Reply,
        point: Option<&Point>,
        tries_left: u32,
        now: Instant,
    ) -> Option<Outcome> {
        let problem = match reply {
            Reply::Answer(answer) => {
                match point.and_then(|point| point.value(self.span, answer).ok()) {
                    Some(value) if value == self.expected => return Some(Outcome::Executed(value)),
                    Some(_) if tries_left > 0 => {
                        self.stage = Stage::ToBeReadBack {
                            at: now + READ_BACK_PAUSE,
                            tries_left: tries_left - 1,
                        };
                        return None;
                    }
                    Some(value) => format!("it reads back {value}, not {}", self.expected),
                    None => "it reads back no value".to_owned(),
                }
            }
            Reply::Exception(exception) => format!("reading it back gave {exception}"),
            Reply::TimedOut => "reading it back gave no answer".to_owned(),
            Reply::Garbled(what) => format!("reading it back gave {what}"),
        };
        let failure = format!("the device acknowledged the write, but {problem}");
        Some(Outcome::Failed(failure))
    }
}

/// Checks a command against its device, and finds what has to be sent.
pub(crate) fn check(command: &Command, device: &Device) -> Result<Checked, Refusal> {
    let found = device
        .points
        .iter()
        .find(|point| point.name == command.point);
    let point = found.ok_or_else(|| Refusal::Point {
        device: device.name.to_string(),
        point: command.point.to_string(),
    })?;
    if !point.writable {
        return Err(Refusal::ReadOnly(format!("{}/{}", device.name, point.name)));
    }
    let address = point.span.start;
    let encoded = point.codec.encode(&command.value)?;
    let expected = match &encoded {
        Encoded::Coil(on) => Ok(point.codec.decode_bit(*on)),
        Encoded::Mask { or, .. } => point.codec.decode(&[*or]),
        Encoded::Registers(words) => point.codec.decode(words),
    }
    .map_err(|_absent| WriteError::NoValue(command.value.to_string()))?;
    let request = match encoded {
        Encoded::Coil(on) => Request::WriteCoil { address, on },
        Encoded::Registers(words) => Request::WriteRegisters { address, words },
        Encoded::Mask { and, or } => Request::MaskRegister { address, and, or },
    };
    Ok(Checked {
        span: point.span,
        request,
        expected,
    })
}
