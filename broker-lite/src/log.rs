//! Writes the core's events as log lines with fields. Driver.
//!
//! Invariant: state changes are INFO, refusals WARN, and a flood of refusals is cut short.

use std::fmt;

use tracing::{info, warn};

use crate::audit::{Event, Who};

/// An event that is to be written, with how many of its kind were left out before.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) event: Event,
    pub(crate) left_out: u32,
}

/// Writes one event.
pub(crate) fn write(Entry { event, left_out }: &Entry) {
    match event {
        Event::Connected {
            who,
            version,
            resumed,
        } => info!(
            target: "broker_lite::session",
            client = client(who), identity = identity(who), address = %Address(who), version, resumed,
            "client connected"
        ),
        Event::Disconnected { who, reason } => info!(
            target: "broker_lite::session",
            client = client(who), identity = identity(who), address = %Address(who), reason,
            "client disconnected"
        ),
        Event::Refused {
            who,
            refusal,
            topic,
            reason,
        } => {
            warn!(
                target: "broker_lite::refused",
                rule = refusal.name(), client = client(who), identity = identity(who),
                address = %Address(who), topic = topic.as_deref().unwrap_or("-"), reason, left_out,
                "refused"
            );
        }
    }
}

fn client(who: &Who) -> &str {
    who.client.as_deref().unwrap_or("-")
}

fn identity(who: &Who) -> &str {
    who.user.as_deref().unwrap_or("-")
}

struct Address<'a>(&'a Who);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.address {
            Some(address) => address.fmt(f),
            None => f.write_str("-"),
        }
    }
}
