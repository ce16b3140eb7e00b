//! Every numbered statement of both specifications that no other test shows, chapter by chapter.
//!
//! A test names what it shows in its documentation, as `3.1.1: [MQTT-…]` and `5.0: [MQTT-…]`, for
//! the numbers of the two versions mean different things; `tests/conformance.rs` reads that.

use super::*;
use crate::{
    broker::sim::id,
    packet::{ConnAck, Will, tests::parse},
};

mod wire;

mod connack;
mod connect;
mod terms;
mod wills;

mod aliases;
mod flow;
mod properties;
mod publish;

mod retained;
mod shared;
mod subscribe;
mod topics;

mod exchanges;
mod order;
mod repetition;

mod disconnect;

const BOTH: [Version; 2] = [V3, V5];

/// Puts bytes, in the notation of the codec's examples, to a client of this version that is
/// connected; says whether that ended the connection, and what it was told.
fn put(version: Version, bytes: &str) -> (bool, Option<ReasonCode>) {
    let mut sim = Sim::new();
    let client = sim.client(version, "c");
    sim.send_bytes(client, &parse(bytes));
    (sim.is_closed(client), last_reason(&mut sim, client))
}

/// Puts bytes to a connection over which nothing has come; says whether that ended it, and which
/// CONNACK came back.
fn put_first(bytes: &str) -> (bool, Option<ConnAck>) {
    let mut sim = Sim::new();
    let client = sim.silent();
    sim.send_bytes(client, &parse(bytes));
    let answers = sim.take(client);
    let connacks = answers.into_iter().map(|packet| match packet {
        Packet::ConnAck(ack) => *ack,
        other => panic!("{other:?} before CONNACK"),
    });
    let connacks: Vec<ConnAck> = connacks.collect();
    assert!(connacks.len() <= 1, "{connacks:?}");
    (sim.is_closed(client), connacks.into_iter().next())
}

/// What answers a CONNECT that is not accepted: always the end, and a CONNACK where there is one.
fn refusal(sim: &mut Sim, connect: Connect) -> Option<ConnAck> {
    let client = sim.try_connect(connect);
    assert!(sim.is_closed(client));
    match sim.take(client).as_slice() {
        [] => None,
        [Packet::ConnAck(ack)] => {
            assert!(!ack.session_present && ack.reason != ReasonCode::Success);
            Some((**ack).clone())
        }
        other => panic!("{other:?}"),
    }
}

/// A client that has subscribed, and one that publishes.
fn pair(sim: &mut Sim, version: Version, filter: &str, qos: u8) -> (Client, Client) {
    let subscriber = sim.client(version, "sub");
    sim.subscribe(subscriber, filter, at(qos));
    (subscriber, sim.client(version, "pub"))
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

fn text(text: &str) -> Text {
    Text::parse(text).unwrap()
}
