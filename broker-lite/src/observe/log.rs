//! Writes the core's events as log lines with fields. Driver.
//!
//! Invariant: state changes are INFO, refusals WARN, each with the message id of its kind, and a
//! flood of refusals is cut short.

use std::fmt::{self, Display};

use tracing::{info, warn};

use crate::{
    observe::audit::Event,
    observe::catalog::{self, Kind},
};

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
            message_id = catalog::CONNECTED.id, kind = catalog::CONNECTED.name,
            client = %Known(&who.client), identity = %Known(&who.user), address = %Known(&who.address),
            listener = %Known(&who.listener), version, resumed,
            "client connected"
        ),
        Event::Disconnected { who, reason } => info!(
            target: "broker_lite::session",
            message_id = catalog::DISCONNECTED.id, kind = catalog::DISCONNECTED.name,
            client = %Known(&who.client), identity = %Known(&who.user), address = %Known(&who.address),
            listener = %Known(&who.listener), reason,
            "client disconnected"
        ),
        Event::BanBegan { address, length } => warn!(
            target: "broker_lite::ban",
            message_id = catalog::BAN_BEGAN.id, kind = catalog::BAN_BEGAN.name, %address,
            reason = format!("failed too often; not served for {} s", length.as_secs()),
            "ban begins"
        ),
        Event::BanEnded { address } => info!(
            target: "broker_lite::ban",
            message_id = catalog::BAN_ENDED.id, kind = catalog::BAN_ENDED.name, %address,
            "ban ends"
        ),
        Event::MemoryShort {
            used,
            limit,
            gives_way,
        } => warn!(
            target: "broker_lite::memory",
            message_id = catalog::MEMORY_SHORT.id, kind = catalog::MEMORY_SHORT.name,
            used, limit, reason = gives_way,
            "memory runs short"
        ),
        Event::MemoryEnough { used, limit } => info!(
            target: "broker_lite::memory",
            message_id = catalog::MEMORY_ENOUGH.id, kind = catalog::MEMORY_ENOUGH.name, used, limit,
            "memory is enough again"
        ),
        Event::Refused {
            who,
            refusal,
            rule,
            topic,
            reason,
        } => {
            let Kind { name, id, .. } = refusal.kind();
            warn!(
                target: "broker_lite::refused",
                message_id = id, kind = name,
                client = %Known(&who.client), identity = %Known(&who.user), address = %Known(&who.address),
                listener = %Known(&who.listener), topic = %Known(topic), rule, reason, left_out,
                "refused"
            );
        }
    }
}

struct Known<'a, T>(&'a Option<T>);

impl<T: Display> Display for Known<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(known) => known.fmt(f),
            None => f.write_str("-"),
        }
    }
}
