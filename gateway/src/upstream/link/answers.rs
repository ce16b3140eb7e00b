//! What the session tells: packets written, answered, refused, received.
//!
//! Invariant: each answer reaches the packer once, under the ticket that was sent. Layer: driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::time::Instant;

use tracing::{error, warn};

use super::{
    super::{
        Cause,
        forwarder::{Answer, Input},
        packer::Ticket,
        session::Event,
    },
    Connection, MAX_WAITING, Pump,
};

/// Events taken before the forwarder's outputs are looked at again.
const EVENTS_AT_ONCE: usize = 256;

impl Pump {
    /// Takes this event and those that have arrived with it.
    pub(super) fn take_events(
        &mut self,
        connection: &mut Connection,
        first: Result<Event, Cause>,
    ) -> Result<(), Cause> {
        let taken = self.take_each(connection, first);
        // Answers count that came before the end of the link.
        let _advanced_next = self.pass_answers();
        taken
    }

    fn take_each(
        &mut self,
        connection: &mut Connection,
        first: Result<Event, Cause>,
    ) -> Result<(), Cause> {
        let now = Instant::now();
        let mut next = Some(first);
        for _ in 0..EVENTS_AT_ONCE {
            let Some(event) = next else { break };
            self.take_event(connection, event?, now)?;
            next = connection.session.try_next();
        }
        // Taken from the queue, so it must not be forgotten.
        next.map_or(Ok(()), |event| self.take_event(connection, event?, now))
    }

    fn take_event(
        &mut self,
        connection: &mut Connection,
        event: Event,
        now: Instant,
    ) -> Result<(), Cause> {
        match event {
            Event::Connected(_) => {}
            Event::Written(0) => {
                if let Some((ticket, sent)) = connection.unnumbered.pop_front() {
                    match &mut connection.node {
                        Some(node) => node.written((ticket, sent)),
                        None => self.answered(ticket, sent, now, Answer::Acknowledged),
                    }
                }
            }
            Event::Written(packet_id) => {
                if let Some(flight) = connection.unnumbered.pop_front() {
                    connection.numbered.insert(packet_id, flight);
                }
            }
            Event::Answered(packet_id, answer) => {
                let Some((ticket, sent)) = connection.numbered.remove(&packet_id) else {
                    let what = format!("it acknowledged packet {packet_id}, which was not sent");
                    return Err(Cause::Protocol(what));
                };
                self.answered(ticket, sent, now, answer);
            }
            Event::Refused(reasons) => {
                if !reasons.is_empty() && !connection.has_subscribed() {
                    error!(
                        reasons = reasons.join(", "),
                        "the upstream refused a subscription; nothing comes in for it"
                    );
                }
                self.subscribed(connection);
            }
            Event::Received(received) => {
                let bytes = received.topic.len() + received.payload.len();
                self.input(Input::Heard(bytes as u64));
                if self.node.is_some() {
                    return self.heard(connection, received);
                }
                if connection.waiting.len() < MAX_WAITING {
                    connection.waiting.push_back(received);
                } else {
                    warn!(
                        topic = received.topic,
                        "too much at once from the upstream; left unacknowledged"
                    );
                }
            }
        }
        Ok(())
    }

    /// The packer knows; the forwarder does with [`Self::pass_answers`].
    pub(super) fn answered(&mut self, ticket: Ticket, sent: Instant, now: Instant, answer: Answer) {
        self.answered_on_link = true;
        let latency = now.saturating_duration_since(sent);
        let known = self.latency.unwrap_or(latency);
        self.latency = Some((known * 9 + latency) / 10);
        self.packer.answered(ticket, answer);
    }
}
