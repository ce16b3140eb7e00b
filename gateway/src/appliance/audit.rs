//! Who wrote what to which device, decided about dead letters or about clients, and what came of it: one entry in the log for each. Shell.
//!
//! Invariant: every command that was sent to a device has its entry. Of those that were refused, a
//! flood is cut short and counted.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{
    buffer::Fate,
    fieldbus::{
        Command, CommandResult, Outcome, Sender,
        commission::adhoc::{Ask, Told},
        raw::RawOutcome,
    },
    payload::raw::{Envelope, word},
};

mod catalog;

use catalog::Kind;

/// Characters of a value, a reason or an id that an entry bears.
const TEXT_MAX: usize = 256;
/// Refusals that are written in a minute; the rest are counted.
const REFUSED_PER_MINUTE: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// Writes the entries.
#[derive(Debug, Default)]
pub(super) struct Audit {
    refused: Flood,
}

/// A request that somebody wrote down himself, and what has come of it so far.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) envelope: Envelope,
    pub(super) payload: bytes::Bytes,
    pub(super) sender: Option<Sender>,
    pub(super) outcome: RawOutcome,
}

impl Asked {
    /// The same with what came of it in the end.
    pub(super) fn ended(self, outcome: RawOutcome) -> Asked {
        Asked { outcome, ..self }
    }
}

/// Entries of one kind in the minute that runs.
#[derive(Debug, Default)]
struct Flood {
    begun: Option<Instant>,
    written: u32,
    left_out: u32,
}

impl Flood {
    /// Whether one more is written; if so, how many were left out before it.
    fn admits(&mut self, now: Instant) -> Option<u32> {
        let runs = |begun: Instant| now.saturating_duration_since(begun) < MINUTE;
        if !self.begun.is_some_and(runs) {
            self.begun = Some(now);
            self.written = 0;
        }
        if self.written >= REFUSED_PER_MINUTE {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Audit {
    /// Writes what came of a command.
    pub(super) fn result(&mut self, result: &CommandResult) {
        let took = result.stamp.monotonic;
        let took = took.saturating_duration_since(result.command.received.monotonic);
        let (kind, reason) = match &result.outcome {
            Outcome::Executed(_) | Outcome::ExecutedAll(_) => (catalog::EXECUTED, None),
            Outcome::Failed(reason) => (catalog::FAILED, Some(reason.as_str())),
            Outcome::Refused(reason) => (catalog::REFUSED, Some(reason.as_str())),
        };
        let left_out = match result.outcome {
            Outcome::Refused(_) => self.refused.admits(result.stamp.monotonic),
            _ => Some(0),
        };
        if let Some(left_out) = left_out {
            write(kind, &result.command, reason, took, left_out);
        }
    }

    /// Writes what came of a request that somebody wrote down himself.
    pub(super) fn raw(&mut self, asked: &Asked, now: Instant) {
        let left_out = match asked.outcome {
            RawOutcome::Refused(_) => self.refused.admits(now),
            _ => Some(0),
        };
        if let Some(left_out) = left_out {
            write_raw(asked, left_out);
        }
    }
}

/// Writes that a release stays.
pub(super) fn committed(version: &str, reason: &str) {
    info!(
        target: "gateway::audit",
        message_id = catalog::COMMITTED.id, kind = catalog::COMMITTED.name,
        version = cut(version), reason, "{}", catalog::COMMITTED.says
    );
}

/// Writes that a release goes.
pub(super) fn rolled_back(version: &str, reason: &str) {
    warn!(
        target: "gateway::audit",
        message_id = catalog::ROLLED_BACK.id, kind = catalog::ROLLED_BACK.name,
        version = cut(version), reason, "{}", catalog::ROLLED_BACK.says
    );
}

impl Audit {
    /// Writes that a client got no new certificate.
    pub(super) fn renewal_refused(
        &mut self,
        client: &str,
        user: Option<&str>,
        reason: &str,
        now: Instant,
    ) {
        let kind = catalog::RENEWAL_REFUSED;
        let Some(left_out) = self.refused.admits(now) else {
            return;
        };
        warn!(
            target: "gateway::audit",
            message_id = kind.id, kind = kind.name, client = cut(client), identity = user,
            reason = cut(reason), left_out = (left_out > 0).then_some(left_out), "{}", kind.says
        );
    }
}

/// Writes that a retained message is no command.
pub(super) fn ignored(topic: &impl Display, payload: &[u8]) {
    warn!(
        target: "gateway::audit",
        message_id = catalog::IGNORED.id, kind = catalog::IGNORED.name, %topic,
        value = cut(&String::from_utf8_lossy(payload)),
        "a retained command is not executed: it may be of any age"
    );
}

fn write_raw(asked: &Asked, left_out: u32) {
    let sender = asked.sender.as_ref();
    let id = asked.envelope.correlation.as_deref();
    let id = id.map(String::from_utf8_lossy);
    info!(
        target: "gateway::audit",
        message_id = catalog::RAW.id, kind = catalog::RAW.name, bus = cut(&asked.envelope.bus),
        value = cut(&String::from_utf8_lossy(&asked.payload)), outcome = word(&asked.outcome),
        identity = sender.and_then(|sender| sender.user.as_deref()),
        client = sender.map(|sender| &*sender.client),
        address = sender.map(|sender| sender.address.to_string()),
        id = id.as_deref().map(cut), left_out = (left_out > 0).then_some(left_out),
        "{}", catalog::RAW.says
    );
}

/// Writes that a commissioning tool wrote something, or sent what may have.
pub(super) fn by_hand(asked: &Ask, user: Option<&str>, told: &Told) {
    let kind = catalog::TOOL_WRITE;
    warn!(
        target: "gateway::audit",
        message_id = kind.id, kind = kind.name, bus = cut(&asked.bus), unit = asked.unit,
        value = cut(&asked.request.to_string()), identity = user, reason = cut(&told.to_string()),
        "{}", kind.says
    );
}

/// Writes that somebody had dead letters sent again, or dropped them.
pub(super) fn letters(fate: Fate, asked: &str, user: Option<&str>, came_of_it: &str) {
    let kind = match fate {
        Fate::Resend => catalog::LETTERS_RESENT,
        Fate::Drop => catalog::LETTERS_DROPPED,
    };
    warn!(
        target: "gateway::audit",
        message_id = kind.id, kind = kind.name, value = cut(asked), identity = user,
        reason = cut(came_of_it), "{}", kind.says
    );
}

/// What happened to a local client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientEvent {
    Added,
    Rotated,
    Revoked,
    Renewed,
}

/// Writes what happened to a client, who asked for it, and what came of it.
pub(super) fn client(event: ClientEvent, name: &str, user: Option<&str>, came_of_it: &str) {
    let kind = match event {
        ClientEvent::Added => catalog::CLIENT_ADDED,
        ClientEvent::Rotated => catalog::CLIENT_ROTATED,
        ClientEvent::Revoked => catalog::CLIENT_REVOKED,
        ClientEvent::Renewed => catalog::CLIENT_RENEWED,
    };
    warn!(
        target: "gateway::audit",
        message_id = kind.id, kind = kind.name, client = cut(name), identity = user,
        reason = cut(came_of_it), "{}", kind.says
    );
}

fn write(kind: Kind, command: &Command, reason: Option<&str>, took: Duration, left_out: u32) {
    let sender = command.sender.as_ref();
    let user = sender.and_then(|sender| sender.user.as_deref());
    let client = sender.map(|sender| &*sender.client);
    let address = sender.map(|sender| sender.address.to_string());
    let id = command.correlation.as_deref().map(String::from_utf8_lossy);
    let value = cut(&command.value.to_string());
    macro_rules! entry {
        ($level:ident) => {
            $level!(
                target: "gateway::audit",
                message_id = kind.id, kind = kind.name,
                device = cut(&command.device), point = command.point.as_deref().map(cut), value,
                identity = user, client, address, id = id.as_deref().map(cut),
                reason = reason.map(cut), took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                left_out = (left_out > 0).then_some(left_out),
                "{}", kind.says
            )
        };
    }
    if kind == catalog::EXECUTED {
        entry!(info);
    } else {
        entry!(warn);
    }
}

/// At most [`TEXT_MAX`] characters, with a sign where some are missing.
fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_cut_short_and_counted() {
        let (mut flood, start) = (Flood::default(), Instant::now());
        let admitted = (0..50).filter_map(|_| flood.admits(start)).count();
        assert_eq!(admitted, 10);
        assert_eq!(flood.admits(start + MINUTE), Some(40));
        assert_eq!(flood.admits(start + MINUTE), Some(0));
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(cut("231.4"), "231.4");
        let long = cut(&"ä".repeat(100_000));
        assert_eq!(long.chars().count(), TEXT_MAX + 1);
        assert!(long.ends_with("ä…"));
    }
}
