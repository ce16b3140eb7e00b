//! One command on its way: written once, read back, compared. A core.
//!
//! ```text
//!  Preparing ──register read──▶ Writing ──acknowledged──▶ Confirming ──read back──▶ outcome
//!   bits, without              │    ▲ exception 1: by      by function 23, read back already
//!   function 22                └────┘ another function
//! ```
//!
//! Invariant: the write is sent at most once, whatever comes back; what a device says that it does
//! not know was not executed, and does not count.

use std::time::{Duration, Instant};

use crate::fieldbus::{
    Command, Outcome,
    poll::device::Device,
    transaction::{Answer, Reply, Request, Span},
};

mod check;
mod function;

use check::Expected;
pub(crate) use check::{Checked, Refusal, check};
pub(crate) use function::Functions;
use function::{Content, Step};

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
    /// What the device allows to be read to see that; it holds the span.
    reads: Span,
    content: Content,
    functions: Functions,
    /// Writes that the device does not know.
    unknown: Vec<Request>,
    expected: Expected,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// The register's other bits are to be read, for they are written too.
    Preparing,
    /// The write is to be sent.
    Writing(Request),
    /// What was written is to be read back.
    Confirming { at: Instant, tries_left: u32 },
}

impl Write {
    /// A command that was checked, for the device with this index.
    pub(crate) fn new(command: Command, device: usize, checked: Checked) -> Write {
        let mut write = Write {
            command,
            device,
            span: checked.span,
            reads: checked.reads,
            content: checked.content,
            functions: checked.functions,
            unknown: Vec::new(),
            expected: checked.expected,
            stage: Stage::Preparing,
        };
        write.prepare();
        write
    }

    fn prepare(&mut self) {
        self.stage = match self.functions.step(self.span, &self.content) {
            Step::Write(request) => Stage::Writing(request),
            Step::ReadFirst => Stage::Preparing,
        };
    }

    /// Why it must not be sent any more, if so.
    pub(crate) fn expired(&self, now: Instant) -> Option<Refusal> {
        let age = now.saturating_duration_since(self.command.received.monotonic);
        let expires = self.command.expires?;
        let sent = matches!(self.stage, Stage::Confirming { .. });
        (!sent && age > expires).then_some(Refusal::Expired(expires))
    }

    /// What has become of it when the wire is lost; `under_way`: while its request was.
    pub(crate) fn lost(&self, reason: &str, under_way: bool) -> Outcome {
        match (&self.stage, under_way) {
            (Stage::Writing(_), true) => {
                Outcome::Failed(format!("{reason}; it may or may not have been executed"))
            }
            (Stage::Writing(_) | Stage::Preparing, _) => {
                Outcome::Refused(Refusal::WireDown(reason.to_owned()).to_string())
            }
            (Stage::Confirming { .. }, _) => Outcome::Failed(format!(
                "the device acknowledged the write, but it was not read back: {reason}"
            )),
        }
    }

    /// Whether its request is a read, which may be sent again.
    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(self.stage, Stage::Writing(_))
    }

    /// When its next request may be sent.
    pub(crate) fn ready_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Preparing | Stage::Writing(_) => None,
            Stage::Confirming { at, .. } => Some(at),
        }
    }

    /// Its next request.
    pub(crate) fn request(&self) -> Request {
        match &self.stage {
            Stage::Writing(request) => request.clone(),
            Stage::Preparing | Stage::Confirming { .. } => Request::Read(self.reads),
        }
    }

    /// Takes what came of the request; the outcome once it is known. The device learns which
    /// functions it does not know.
    pub(crate) fn replied(
        &mut self,
        reply: &Reply,
        device: &mut Device,
        now: Instant,
    ) -> Option<Outcome> {
        match &self.stage {
            Stage::Preparing => self.read_first(reply),
            Stage::Writing(request) => {
                let request = request.clone();
                self.written(&request, reply, device, now)
            }
            Stage::Confirming { tries_left, .. } => {
                self.read_back(reply, self.reads, device, *tries_left, now)
            }
        }
    }

    /// The other bits are known: what is written is the whole register.
    fn read_first(&mut self, reply: &Reply) -> Option<Outcome> {
        let problem = match (reply, &self.content) {
            (Reply::Answer(Answer::Registers(words)), Content::Mask { and, or }) => {
                let masked = |word: &u16| word & and | or & !and;
                let before = usize::from(self.span.start - self.reads.start);
                let own = words.iter().skip(before).take(self.span.count.into());
                self.content = Content::Registers(own.map(masked).collect());
                self.prepare();
                return None;
            }
            (Reply::Exception(exception), _) => exception.to_string(),
            (Reply::TimedOut, _) => "no answer".to_owned(),
            (Reply::Garbled(what), _) => what.clone(),
            (Reply::Answer(_), _) => "another kind of answer".to_owned(),
        };
        Some(Outcome::Refused(format!(
            "not written: reading the register's other bits gave {problem}"
        )))
    }

    fn written(
        &mut self,
        request: &Request,
        reply: &Reply,
        device: &mut Device,
        now: Instant,
    ) -> Option<Outcome> {
        let failure = match reply {
            // Function code 23 has read it already.
            Reply::Answer(Answer::Registers(_)) => {
                return self.read_back(reply, self.span, device, READ_BACK_TRIES - 1, now);
            }
            Reply::Answer(_) => {
                self.stage = Stage::Confirming {
                    at: now,
                    tries_left: READ_BACK_TRIES - 1,
                };
                return None;
            }
            Reply::Exception(exception)
                if exception.concerns_function() && self.by_another_function(request, device) =>
            {
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

    /// Whether the same can be sent by a function that the device has not refused yet.
    fn by_another_function(&mut self, refused: &Request, device: &mut Device) -> bool {
        self.unknown.push(refused.clone());
        if !self.functions.unlearn(refused) {
            return false;
        }
        if let Step::Write(request) = self.functions.step(self.span, &self.content)
            && self.unknown.contains(&request)
        {
            return false;
        }
        device.functions = self.functions;
        self.prepare();
        true
    }

    fn read_back(
        &mut self,
        reply: &Reply,
        span: Span,
        device: &Device,
        tries_left: u32,
        now: Instant,
    ) -> Option<Outcome> {
        let problem = match reply {
            Reply::Answer(answer) => match self.difference(device, span, answer) {
                None => return Some(self.expected.executed()),
                Some(_) if tries_left > 0 => {
                    self.stage = Stage::Confirming {
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

    /// What is not as it was written, if anything, by the answer to a read of `span`.
    fn difference(&self, device: &Device, span: Span, answer: &Answer) -> Option<String> {
        self.expected.values().iter().find_map(|(name, expected)| {
            let point = device.points.iter().find(|point| point.name == *name);
            let of = match self.expected {
                Expected::One(..) => String::new(),
                Expected::All(_) => format!(" for {name}"),
            };
            match point?.read_back(span, answer) {
                Ok(value) if value == *expected => None,
                Ok(value) => Some(format!("it reads back {value}{of}, not {expected}")),
                Err(bad) => Some(format!("it reads back no value{of}: {bad}")),
            }
        })
    }
}
