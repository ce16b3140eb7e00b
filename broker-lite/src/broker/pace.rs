//! How fast clients are read (`limits.messages_per_second`, `bytes_per_second`).
//!
//! Core. Invariant: a client within its rates costs no timer, and one above them loses nothing: it is
//! left unread until it is within them again.

use std::time::{Duration, Instant};

use crate::{
    broker::{ConnectionId, Core, Output, Timer},
    observe::audit::Refusal,
    rate::{Paced, Rate},
};

/// What a client has sent lately.
#[derive(Debug)]
pub(super) struct Pace {
    messages: Rate,
    bytes: Rate,
    /// It was told; not again before it has kept to its rates.
    told: bool,
}

impl Core {
    /// Bytes were read from a connection.
    pub(crate) fn handle_read(&mut self, connection: ConnectionId, bytes: usize, now: Instant) {
        self.note_read(bytes);
        let per_second = self.rules.limits.bytes_per_second.as_bytes();
        if per_second > 0 {
            let cost = Rate::time_for(bytes as u64, per_second);
            self.pace(connection, |pace| &mut pace.bytes, cost, now);
        }
    }

    /// A client has published a message.
    pub(super) fn count_message(&mut self, connection: ConnectionId, now: Instant) {
        let per_second = self.rules.limits.messages_per_second;
        if per_second > 0 {
            let cost = Rate::time_for(1, per_second.into());
            self.pace(connection, |pace| &mut pace.messages, cost, now);
        }
    }

    fn pace(
        &mut self,
        connection: ConnectionId,
        rate: fn(&mut Pace) -> &mut Rate,
        cost: Duration,
        now: Instant,
    ) {
        let burst = self.rules.limits.burst.as_duration();
        let Some(link) = self.links.get_mut(connection.0) else {
            return;
        };
        let pace = link.pace.get_or_insert_with(|| {
            Box::new(Pace {
                messages: Rate::new(now),
                bytes: Rate::new(now),
                told: false,
            })
        });
        if pace.messages.is_fresh(now) && pace.bytes.is_fresh(now) {
            pace.told = false;
        }
        let Paced::TooFast { until } = rate(pace).take(cost, burst, now) else {
            return;
        };
        let told = std::mem::replace(&mut pace.told, true);
        if link.paused_until.is_none() {
            if told {
                self.refused[Refusal::Rate as usize] += 1;
            } else {
                let who = self.who(connection);
                let why = "faster than it may (limits.messages_per_second, bytes_per_second); read more slowly";
                self.refuse(who, Refusal::Rate, None, why.to_owned());
            }
        }
        self.hold_off(connection, until);
    }

    /// Leaves a connection unread until then.
    pub(super) fn hold_off(&mut self, connection: ConnectionId, until: Instant) {
        let Some(link) = self.links.get_mut(connection.0) else {
            return;
        };
        if link.is_closing() || link.paused_until.is_some_and(|earlier| earlier >= until) {
            return;
        }
        let old = link.paused_until.replace(until);
        self.set_timer(old, Some(until), Timer::Pause(connection));
    }

    /// Reads a client on. What it sent meanwhile was not heard, so its silence begins now.
    pub(super) fn pause_is_over(&mut self, connection: ConnectionId, now: Instant) {
        if let Some(link) = self.links.get_mut(connection.0) {
            link.paused_until = None;
            link.heard(now);
            self.outputs.push_back(Output::Flush(connection));
        }
    }
}
