//! Writes the core's events as log lines with fields. Driver.
//!
//! Invariant: state changes are INFO, refusals WARN, and a flood of refusals is cut short.

use std::{fmt, time::Instant};

use tracing::{info, warn};

use crate::audit::{Event, Limiter, Logging, Who};

/// Writes one event.
pub(crate) fn write(event: &Event, limiter: &mut Limiter, now: Instant) {
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
            let Logging::Log { left_out } = limiter.admit(*refusal, now) else {
                return;
            };
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
