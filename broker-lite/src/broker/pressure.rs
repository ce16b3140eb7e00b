//! What gives way when memory runs out (`limits.memory`), and in which order.
//!
//! ```text
//!   70 %  QoS 0 is not queued: it goes to those who take it at once
//!   80 %  no new sessions that outlive their connections or leave a will
//!   85 %  no new connections, subscriptions, retained topics and wills
//!   90 %  no messages that are to be kept: refused (5.0) or left unread (3.1.1)
//!   95 %  the largest buffers are closed, queued QoS 0 is dropped, then absent sessions end
//!  100 %  nothing at all is queued
//! ```
//!
//! Core. Invariant: what was acknowledged goes last, and everything that goes is counted.

use std::time::{Duration, Instant};

use crate::{
    broker::{ConnectionId, Core, Output, SessionId, link::Link as Connection},
    observe::audit::{Event, Refusal},
    packet::{Packet, QoS, Version},
    session::Link,
};

/// Buffers are closed until so much is in use; sessions end only while the last step is reached.
const RELIEVED: Pressure = Pressure::Growth;

/// Between two attempts to shed: the first one has had its effect by then.
const SHED_PAUSE: Duration = Duration::from_millis(100);

/// A 3.1.1 publisher for whose message there is no room is read again after this.
const UNREAD_PAUSE: Duration = Duration::from_millis(250);

/// While memory is to be shed, a connection with more than this in its buffers is closed as soon as
/// more comes.
const BUFFER_FAIR_BYTES: usize = 64 * 1024;

/// Below so many hundredths of the bound memory is enough again: far enough from the first step that
/// what hovers around that is told once.
const ENOUGH_PERCENT: usize = 60;

/// How full memory is; each step takes away what the ones before it do, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// Everything is allowed.
    None,
    /// QoS 0 is not queued.
    Queueing,
    /// No new sessions that outlive their connections or leave a will.
    Arrivals,
    /// No new connections, subscriptions, retained topics and wills.
    Growth,
    /// No messages that are to be kept.
    Keeping,
    /// What is held goes.
    Holders,
    /// Nothing is queued.
    Everything,
}

impl Pressure {
    const STEPS: [(Pressure, u128); 6] = [
        (Pressure::Everything, 100),
        (Pressure::Holders, 95),
        (Pressure::Keeping, 90),
        (Pressure::Growth, 85),
        (Pressure::Arrivals, 80),
        (Pressure::Queueing, 70),
    ];

    fn of(used: usize, limit: usize) -> Pressure {
        // Far below is the common case.
        if used < limit / 2 {
            return Pressure::None;
        }
        let reached = |percent: u128| used as u128 * 100 >= limit as u128 * percent;
        let step = Pressure::STEPS
            .iter()
            .find(|(_, percent)| reached(*percent));
        step.map_or(Pressure::None, |(pressure, _)| *pressure)
    }

    fn gives_way(self) -> &'static str {
        match self {
            Pressure::None => "nothing gives way",
            Pressure::Queueing => "QoS 0 is not queued",
            Pressure::Arrivals => "no new sessions",
            Pressure::Growth => "no new connections, subscriptions, retained topics and wills",
            Pressure::Keeping => "no messages that are to be kept",
            Pressure::Holders => "the largest queues are dropped",
            Pressure::Everything => "nothing at all is queued",
        }
    }
}

impl Core {
    /// Bytes in use, as charged.
    pub(crate) fn memory_used(&self) -> usize {
        self.meter.used()
    }

    /// How full memory is.
    pub(super) fn pressure(&self) -> Pressure {
        Pressure::of(self.meter.used(), self.rules.limits.memory.as_len())
    }

    /// Tells the operator when memory runs short, each step once, and when it is enough again.
    pub(super) fn note_pressure(&mut self) {
        let (used, limit) = (self.meter.used(), self.rules.limits.memory.as_len());
        let pressure = Pressure::of(used, limit);
        let event = if pressure > self.told_pressure {
            self.told_pressure = pressure;
            let gives_way = pressure.gives_way();
            Event::MemoryShort {
                used,
                limit,
                gives_way,
            }
        } else if self.told_pressure > Pressure::None && used < limit / 100 * ENOUGH_PERCENT {
            self.told_pressure = Pressure::None;
            Event::MemoryEnough { used, limit }
        } else {
            return;
        };
        self.outputs.push_back(Output::Tell(event));
    }

    /// The buffers of a connection's driver have this size. One that goes on filling them while
    /// nothing is left is closed.
    pub(crate) fn handle_buffered(&mut self, connection: ConnectionId, bytes: usize, now: Instant) {
        let Some(link) = self.links.get_mut(connection.0) else {
            return;
        };
        let grows = bytes > link.buffered();
        link.set_buffered(bytes);
        if self.pressure() < Pressure::Holders {
            return;
        }
        if grows && bytes > BUFFER_FAIR_BYTES {
            self.shed_connection(connection, now);
        }
        self.shed(now);
    }

    /// Whether a packet is left unread for now: a 3.1.1 publisher cannot be told that there is no
    /// room, so its message waits in its own socket.
    pub(crate) fn leaves_unread(
        &mut self,
        connection: ConnectionId,
        packet: &Packet,
        now: Instant,
    ) -> bool {
        let Packet::Publish(publish) = packet else {
            return false;
        };
        let version = self.links.get(connection.0).map(|link| link.terms.version);
        let waits = version == Some(Version::V3)
            && publish.qos() > QoS::AtMostOnce
            && self.pressure() >= Pressure::Keeping;
        if waits {
            self.refused[Refusal::Memory as usize] += 1;
            self.hold_off(connection, now + UNREAD_PAUSE);
        }
        waits
    }

    /// Refuses what would make the broker hold more, from this pressure on; says why.
    pub(super) fn refuses_from(&self, step: Pressure) -> Option<&'static str> {
        (self.pressure() >= step).then_some("memory is nearly used up (limits.memory)")
    }

    /// Makes room, if that was not just done.
    fn shed(&mut self, now: Instant) {
        if self.next_shedding.is_some_and(|next| now < next) {
            return;
        }
        self.next_shedding = Some(now + SHED_PAUSE);
        self.drop_queued_qos0();
        self.close_largest_buffers(now);
        self.end_largest_sessions(now);
    }

    /// Makes room if nearly none is left.
    pub(super) fn shed_if_full(&mut self, now: Instant) {
        if self.pressure() >= Pressure::Holders {
            self.shed(now);
        }
    }

    fn is_relieved(&self) -> bool {
        self.pressure() < RELIEVED
    }

    fn drop_queued_qos0(&mut self) {
        let mut lost = 0;
        for (_, session) in self.sessions.iter_mut() {
            if let Some(outbox) = session.pending_outbox() {
                let dropped = outbox.drop_qos0();
                session.dropped += dropped;
                lost += dropped;
            }
        }
        self.refused[Refusal::QueueFull as usize] += lost;
    }

    /// Slow consumers and packets that do not end, the largest first.
    fn close_largest_buffers(&mut self, now: Instant) {
        let mut holders: Vec<(usize, ConnectionId)> = self
            .links
            .iter()
            .filter(|(_, link)| !link.is_closing())
            .map(|(id, link)| (self.connection_weight(link), ConnectionId(id)))
            .filter(|(bytes, _)| *bytes > BUFFER_FAIR_BYTES / 4)
            .collect();
        holders.sort_unstable_by(|a, b| b.cmp(a));
        for (_, connection) in holders {
            if self.is_relieved() {
                return;
            }
            self.shed_connection(connection, now);
        }
    }

    /// What ends with a connection: its buffers, and the queue of a session that ends with it.
    fn connection_weight(&self, link: &Connection) -> usize {
        let session = link.session().and_then(|id| self.sessions.get(id.0));
        let queue = session
            .filter(|session| session.is_transient())
            .map_or(0, |session| session.weight());
        link.buffered() + queue
    }

    /// Sessions whose client is not there, the largest first: what they hold was acknowledged.
    fn end_largest_sessions(&mut self, now: Instant) {
        if self.pressure() < Pressure::Holders {
            return;
        }
        let mut absent: Vec<(usize, SessionId)> = self
            .by_client
            .values()
            .filter_map(|id| Some((*id, self.sessions.get(id.0)?)))
            .filter(|(_, session)| session.link == Link::Absent)
            .map(|(id, session)| (session.weight(), id))
            .collect();
        absent.sort_unstable_by(|a, b| b.cmp(a));
        for (bytes, id) in absent {
            if self.pressure() < Pressure::Holders {
                return;
            }
            let who = self.who_is(id);
            let why = format!(
                "the session of an absent client ends with its {bytes} bytes, because memory is used up (limits.memory)"
            );
            self.refuse(who, Refusal::Memory, None, why);
            self.end_session(id, now);
        }
    }

    /// Closes a connection without a farewell, which would wait behind what it does not take.
    fn shed_connection(&mut self, connection: ConnectionId, now: Instant) {
        let why = "closed, because memory is used up (limits.memory) and it holds more than others";
        let who = self.who(connection);
        self.refuse(who, Refusal::Memory, None, why.to_owned());
        self.detach(connection, why, now);
        self.close(connection);
        if let Some(link) = self.links.get_mut(connection.0) {
            link.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_follow_each_other_up_to_the_bound() {
        for (used, expected) in [
            (0, Pressure::None),
            (699, Pressure::None),
            (700, Pressure::Queueing),
            (800, Pressure::Arrivals),
            (850, Pressure::Growth),
            (900, Pressure::Keeping),
            (950, Pressure::Holders),
            (999, Pressure::Holders),
            (1_000, Pressure::Everything),
            (usize::MAX, Pressure::Everything),
        ] {
            assert_eq!(Pressure::of(used, 1_000), expected, "{used}");
        }
    }
}
