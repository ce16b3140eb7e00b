//! One command on its way: written once, read back, compared. A core.
//!
//! Invariant: the write is sent at most once, whatever comes back.

use std::time::{Duration, Instant};

use crate::fieldbus::{
    Command, Outcome,
    poll::device::Device,
    transaction::{Answer, Reply, Request, Span},
};

mod check;

use check::Expected;
pub(crate) use check::{Checked, Refusal, check};

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
    expected: Expected,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    ToBeSent,
    ToBeReadBack { at: Instant, tries_left: u32 },
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
        device: &Device,
        now: Instant,
    ) -> Option<Outcome> {
        match self.stage {
            Stage::ToBeSent => self.written(reply, now),
            Stage::ToBeReadBack { tries_left, .. } => {
                self.read_back(reply, device, tries_left, now)
            }
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
        device: &Device,
        tries_left: u32,
        now: Instant,
    ) -> Option<Outcome> {
        let problem = match reply {
            Reply::Answer(answer) => match self.difference(device, answer) {
                None => return Some(self.expected.executed()),
                Some(_) if tries_left > 0 => {
                    self.stage = Stage::ToBeReadBack {
                        at: now + READ_BACK_PAUSE,
                        tries_left: tries_left - 1,
                    };
                    return None;
                }
                Some(difference) => difference,
            },
            Reply::Exception(exception) => format!("reading it back gave {exception}"),
            Reply::TimedOut => "reading it back gave no answer".to_owned(),
            Reply::Garbled(what) => format!("reading it back gave {what}"),
        };
        let failure = format!("the device acknowledged the write, but {problem}");
        Some(Outcome::Failed(failure))
    }

    /// What is not as it was written, if anything.
    fn difference(&self, device: &Device, answer: &Answer) -> Option<String> {
        self.expected.values().iter().find_map(|(name, expected)| {
            let point = device.points.iter().find(|point| point.name == *name);
            let of = match self.expected {
                Expected::One(..) => String::new(),
                Expected::All(_) => format!(" for {name}"),
            };
            match point?.read_back(self.span, answer) {
                Ok(value) if value == *expected => None,
                Ok(value) => Some(format!("it reads back {value}{of}, not {expected}")),
                Err(bad) => Some(format!("it reads back no value{of}: {bad}")),
            }
        })
    }
}
