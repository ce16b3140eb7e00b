//! Commands to one instrument on their way: sent once, then confirmed or read back. A core; part of
//! the session.
//!
//! ```text
//!                ┌─ confirm ───▶ the next answer matches ─────────────▶ executed
//!  waits ─ sent ─┼─ read_back ─▶ its request is answered with the value ─▶ executed
//!                └─ neither ──────────────────────────────────────────▶ failed: not known
//! ```
//!
//! Invariant: a command is sent once, and none is sent while another's value is being read back.

use std::time::Duration;

use crate::{
    fieldbus::{
        Command, CommandResult, Event, Outcome,
        serial::{
            checksum::Check,
            command::{self, Refusal, Write},
            line::FrameError,
            poll::Asked,
            text::Decoded,
        },
    },
    reading::{Stamp, Value},
};

use super::Session;

/// Commands that wait at most; a person or a controller that sends more does not see results.
pub(crate) const COMMANDS_MAX: usize = 16;
/// Answers after a command in which its value may still be the old one: some instruments apply it
/// a moment later.
const READ_BACK_TRIES: u32 = 3;
/// Between such answers, if the line does not need longer.
const READ_BACK_PAUSE: Duration = Duration::from_millis(100);
/// Up to here a double holds every whole number.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A command that was sent, and the request whose answer shows whether it was executed.
#[derive(Debug)]
pub(super) struct ReadBack {
    write: Write,
    request: usize,
    tries_left: u32,
}

impl Session {
    /// Takes a command if it can be sent, and lets it wait for its turn.
    pub(super) fn command(&mut self, command: Command, now: Stamp) {
        if let Some(reason) = &self.down {
            let refusal = Refusal::Down(reason.clone());
            return self.refuse(command, &refusal, now);
        }
        if self.writes.len() >= COMMANDS_MAX {
            return self.refuse(command, &Refusal::QueueFull(COMMANDS_MAX), now);
        }
        let check = self.sensor.send_checksum.or(self.sensor.checksum);
        let end = self.sensor.frame.delimiter.as_ref();
        let end = end.map_or(&[][..], |end| &end.0);
        let shown_by = |point: &str| self.watches.get(point).and_then(|watched| watched.request);
        let check = check.map(Check::new);
        match command::check(command, &self.writable, check, end, shown_by) {
            Ok(write) => self.writes.push_back(write),
            Err(refused) => {
                let (command, refusal) = *refused;
                self.refuse(command, &refusal, now);
            }
        }
    }

    /// Ends every command: those not sent are refused, the one under way has failed.
    pub(super) fn end_writes(&mut self, reason: &str, now: Stamp) {
        let mut sent = self.poller.closed() == Some(Asked::Write);
        self.down = Some(reason.to_owned());
        if let Some(ReadBack { write, .. }) = self.reading_back.take() {
            let failure = format!("sent, but {reason} before it was read back");
            self.result(write.command, Outcome::Failed(failure), now);
        }
        while let Some(write) = self.writes.pop_front() {
            let outcome = if sent {
                Outcome::Failed(format!("{reason}; it may or may not have been executed"))
            } else {
                Outcome::Refused(Refusal::Down(reason.to_owned()).to_string())
            };
            self.result(write.command, outcome, now);
            sent = false;
        }
    }

    /// Whether a command is to be sent as soon as the line is free.
    pub(super) fn write_waits(&self) -> bool {
        self.reading_back.is_none() && !self.writes.is_empty()
    }

    /// Refuses those that waited for too long.
    pub(super) fn refuse_expired(&mut self, now: Stamp) {
        if self.poller.waiting() == Some(Asked::Write) {
            return;
        }
        while let Some(refusal) = self.writes.front().and_then(|it| it.expired(now.monotonic)) {
            if let Some(write) = self.writes.pop_front() {
                self.refuse(write.command, &refusal, now);
            }
        }
    }

    /// Whether the command that is sent next is answered.
    pub(super) fn awaits_confirmation(&self) -> bool {
        let write = self.writes.front();
        write.is_some_and(|write| write.confirm.is_some())
    }

    /// The command was answered as its point says.
    pub(super) fn confirmed(&mut self, stamp: Stamp) {
        self.poller.answered(stamp.monotonic);
        let write = self.writes.pop_front();
        self.hear(stamp);
        if let Some(Write { command, value, .. }) = write {
            self.result(command, Outcome::Executed(value), stamp);
        }
    }

    /// The command was not answered as its point says.
    pub(super) fn unconfirmed(&mut self, waited: Duration, wrong: Option<String>, now: Stamp) {
        let Some(write) = self.writes.pop_front() else {
            return;
        };
        let got = wrong.map_or_else(String::new, |wrong| format!(", but {wrong}"));
        let failure = format!(
            "no answer that confirms it in {waited:?}{got}; it may or may not have been executed"
        );
        self.result(write.command, Outcome::Failed(failure), now);
    }

    /// The command was sent, and no answer to it is known.
    pub(super) fn sent_unconfirmed(&mut self, now: Stamp) {
        let Some(write) = self.writes.pop_front() else {
            return;
        };
        if let Some(request) = write.read_back {
            self.poller.hasten(request, now.monotonic);
            self.reading_back = Some(ReadBack {
                write,
                request,
                tries_left: READ_BACK_TRIES,
            });
            return;
        }
        let failure = "sent; the point has neither `confirm` nor `read_back`, so whether it was executed is not known";
        self.result(write.command, Outcome::Failed(failure.to_owned()), now);
    }

    /// Compares what a request's answer brought with what was written.
    pub(super) fn read_back(&mut self, values: &[Decoded], request: usize, stamp: Stamp) {
        let Some(mut reading) = self.reading_back.take_if(|it| it.request == request) else {
            return;
        };
        let point = reading.write.command.point.as_deref();
        let read = values.iter().find(|value| Some(&*value.name) == point);
        reading.tries_left -= 1;
        match read {
            Some(read) if is_same(&read.value, &reading.write.value) => {
                let value = read.value.clone();
                self.result(reading.write.command, Outcome::Executed(value), stamp);
            }
            _ if reading.tries_left > 0 => {
                self.poller
                    .hasten(request, stamp.monotonic + READ_BACK_PAUSE);
                self.reading_back = Some(reading);
            }
            read => {
                let read = read.map_or("no value".to_owned(), |read| read.value.to_string());
                let wanted = &reading.write.value;
                let failure = format!("sent, but it reads back {read}, not {wanted}");
                self.result(reading.write.command, Outcome::Failed(failure), stamp);
            }
        }
    }

    /// The request that was to show it is not answered, for this reason.
    pub(super) fn not_read_back(&mut self, request: usize, reason: &str, now: Stamp) {
        if let Some(reading) = self.reading_back.take_if(|it| it.request == request) {
            let failure = format!(
                "sent, but it was not read back: {reason}; it may or may not have been executed"
            );
            self.result(reading.write.command, Outcome::Failed(failure), now);
        }
    }

    /// Whether a frame is the answer that confirms the command under way.
    pub(super) fn confirms(&self, frame: &Result<Vec<u8>, FrameError>) -> bool {
        let confirm = self.writes.front().and_then(|write| write.confirm.as_ref());
        let frame = frame.as_ref().ok();
        confirm
            .zip(frame)
            .is_some_and(|(confirm, frame)| confirm.is_match(&String::from_utf8_lossy(frame)))
    }

    fn refuse(&mut self, command: Command, refusal: &Refusal, now: Stamp) {
        self.result(command, Outcome::Refused(refusal.to_string()), now);
    }

    fn result(&mut self, command: Command, outcome: Outcome, stamp: Stamp) {
        let result = CommandResult {
            command,
            outcome,
            stamp,
        };
        self.event(Event::Result(result));
    }
}

/// Whether two values are one and the same, however they are written.
fn is_same(read: &Value, written: &Value) -> bool {
    let exact = |value: &Value| value.as_f64().filter(|size| size.abs() <= EXACT_MAX);
    read.to_string() == written.to_string()
        || exact(read).is_some_and(|size| exact(written) == Some(size))
}
