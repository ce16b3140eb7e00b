//! What the forwarder asks for: messages on their way up, and rows that leave the buffer.
//!
//! Invariant: a row is deleted or buried only because the forwarder says so. Layer: driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::time::Instant;

use tracing::warn;

use super::{
    super::{
        Cause,
        forwarder::{Input, Output},
        outbound::Key,
    },
    Connection, Pump,
};
use crate::clock;

impl Pump {
    /// Does what the forwarder asks for, until neither it nor the packer has more to say.
    pub(super) fn advance(&mut self, connection: &mut Connection) -> Result<(), Cause> {
        loop {
            self.drain()?;
            self.follow_node(connection)?;
            self.send(connection)?;
            if !self.pass_answers() {
                return Ok(());
            }
        }
    }

    pub(super) fn drain(&mut self) -> Result<(), Cause> {
        let mut rows = Vec::new();
        let mut result = Ok(());
        while let Some(output) = self.forwarder.poll_output() {
            match output {
                Output::Read(ask) => {
                    // What leaves must not be read again.
                    self.delete(&mut rows);
                    self.start_reading(ask);
                }
                Output::Publish(message) => match &mut self.node {
                    Some(node) => node.push(message),
                    None => self.packer.push(message, Instant::now()),
                },
                Output::Delete(Key::Row(row)) => rows.push(row),
                Output::Delete(Key::Gap { id, count }) => self.buffer.delete_gap(id, count),
                Output::Delete(Key::StandIn | Key::Notice)
                | Output::Bury(Key::StandIn | Key::Notice, _) => {}
                Output::Exhausted(account) => warn!(
                    period = account.period.as_str(),
                    limit = account.limit,
                    used = account.used,
                    "the link's budget is used up; only messages of high priority go up"
                ),
                Output::Bury(key, reason) => self.bury(key, &reason),
                Output::Reconnect(reason) => {
                    self.gave_up = true;
                    result = Err(Cause::Closed(reason));
                    break;
                }
            }
        }
        self.delete(&mut rows);
        result
    }

    fn delete(&self, rows: &mut Vec<i64>) {
        if !rows.is_empty() {
            let count = rows.len() as u64;
            self.board.update(|status| status.acknowledged += count);
            self.buffer.delete(rows.drain(..));
        }
    }

    /// Sends what is packed.
    fn send(&mut self, connection: &mut Connection) -> Result<(), Cause> {
        let now = Instant::now();
        let mut packets = Vec::new();
        while let Some((ticket, packet)) = self.packer.poll_packet() {
            packets.push(packet);
            connection.unnumbered.push_back((ticket, now));
        }
        self.sent += packets.len() as u64;
        if !packets.is_empty() && connection.session.publish(&packets).is_err() {
            return Err(Cause::Closed("a message could not be sent".to_owned()));
        }
        match self.packer.take_spent() {
            0 => {}
            bytes => self.input(Input::Packed(bytes)),
        }
        Ok(())
    }

    /// Tells the forwarder what became of its messages, and the caller whether there was something to tell.
    pub(super) fn pass_answers(&mut self) -> bool {
        let (now, mut told) = (clock::now(), false);
        while let Some((key, answer)) = self.packer.poll_answer() {
            let answered = Input::Answered(key, answer);
            self.forwarder.handle_input(answered, now);
            told = true;
        }
        told
    }

    fn bury(&self, key: Key, reason: &str) {
        warn!(?key, reason, "the upstream will never take this message");
        match key {
            Key::Row(row) => {
                self.board.update(|status| status.buried += 1);
                self.buffer.bury(row, reason);
            }
            Key::Gap { id, count } => self.buffer.delete_gap(id, count),
            Key::StandIn | Key::Notice => {}
        }
    }
}
