//! Packets to start from: one valid sample of every type that a client sends, and such as the
//! codec refuses to make.

use broker_lite::packet::{
    Ack, Delivery, Disconnect, Packet, PacketId, QoS, ReasonCode, Unsubscribe, UserProperties,
    Version, Will,
};
use broker_lite::topic::{SubscriptionFilter, TopicName};

use crate::bytes_on_the_wire::{bytes_of, connect, publish, subscribe};

/// The bytes of one valid packet of every type that follows CONNECT.
pub(crate) fn of_every_type(version: Version) -> Vec<Vec<u8>> {
    let id = PacketId::new(7).unwrap();
    let unsubscribe = Unsubscribe {
        packet_id: id,
        filters: vec![SubscriptionFilter::parse("a/+/#").unwrap()],
        user_properties: UserProperties::default(),
    };
    let mut packets = vec![
        Packet::Publish(publish("a/b", Delivery::AtMostOnce, b"payload")),
        Packet::Publish(publish("a/b", Delivery::AtLeastOnce(id), b"payload")),
        Packet::Publish(publish("a/b", Delivery::ExactlyOnce(id), b"payload")),
        Packet::PubAck(Ack::success(id)),
        Packet::PubRec(Ack::success(id)),
        Packet::PubRel(Ack::success(id)),
        Packet::PubComp(Ack::success(id)),
        Packet::Subscribe(subscribe("a/+/#", QoS::ExactlyOnce)),
        Packet::Unsubscribe(unsubscribe),
        Packet::PingReq,
    ];
    if version == Version::V5 {
        packets.push(Packet::Disconnect(Disconnect::new(
            ReasonCode::DisconnectWithWill,
        )));
    }
    packets
        .iter()
        .map(|packet| bytes_of(packet, version))
        .chain(std::iter::once(connect_with_a_will(version)))
        .collect()
}

fn connect_with_a_will(version: Version) -> Vec<u8> {
    let mut connect = connect("other", version);
    connect.will = Some(Will {
        topic: TopicName::parse("will").unwrap(),
        payload: b"gone".to_vec().into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_s: None,
        message_expiry_s: None,
        properties: None,
    });
    bytes_of(&Packet::Connect(Box::new(connect)), version)
}

/// A packet's first bytes, with a remaining length that says that it is whole.
pub(crate) fn cut(packet: &[u8], length: usize) -> Vec<u8> {
    assert!(packet[1] < 0x80, "one byte of remaining length");
    packet_of(packet[0], &packet[2..length])
}

/// A packet by its first byte and everything after its remaining length.
pub(crate) fn packet_of(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    packet.extend(variable(body.len()));
    packet.extend(body);
    packet
}

/// A variable byte integer.
fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let more = value >= 0x80;
        bytes.push(u8::try_from(value % 0x80).unwrap() | if more { 0x80 } else { 0 });
        value /= 0x80;
        if !more {
            return bytes;
        }
    }
}

/// A string or binary field, text or not.
fn field(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

/// A block of properties with its length.
fn properties(block: &[u8]) -> Vec<u8> {
    [variable(block.len()), block.to_vec()].concat()
}

/// CONNECT up to its keep alive, of 60 s.
fn connect_head(flags: u8) -> Vec<u8> {
    [field(b"MQTT"), vec![5, flags, 0, 60]].concat()
}

pub(crate) fn connect_with_client_id(id: &[u8]) -> Vec<u8> {
    let body = [connect_head(0x02), properties(&[]), field(id)].concat();
    packet_of(0x10, &body)
}

/// `block`: the will's properties with their length.
pub(crate) fn connect_with_will_properties(block: &[u8]) -> Vec<u8> {
    let body = [
        connect_head(0x06),
        properties(&[]),
        field(b"attacker"),
        block.to_vec(),
        field(b"will"),
        field(b"payload"),
    ];
    packet_of(0x10, &body.concat())
}

pub(crate) fn connect_with_user_properties(count: usize) -> Vec<u8> {
    let body = [
        connect_head(0x02),
        properties(&user_properties(count)),
        field(b"attacker"),
    ];
    packet_of(0x10, &body.concat())
}

fn user_properties(count: usize) -> Vec<u8> {
    let one = [vec![0x26], field(b"k"), field(b"v")].concat();
    one.repeat(count)
}

pub(crate) fn publish_with_user_properties(count: usize) -> Vec<u8> {
    let body = [field(b"t"), properties(&user_properties(count))];
    packet_of(0x30, &body.concat())
}

/// QoS 0.
pub(crate) fn publish_with_alias(topic: &str, alias: u16) -> Vec<u8> {
    let alias = [&[0x23], &alias.to_be_bytes()[..]].concat();
    let body = [field(topic.as_bytes()), properties(&alias)];
    packet_of(0x30, &body.concat())
}

/// QoS 0, to a topic that may be no text.
pub(crate) fn publish_to(topic: &[u8], version: Version) -> Vec<u8> {
    packet_of(0x30, &[field(topic), no_properties(version)].concat())
}

pub(crate) fn subscribe_to(filter: &[u8], version: Version) -> Vec<u8> {
    let body = [vec![0, 1], no_properties(version), field(filter), vec![0]];
    packet_of(0x82, &body.concat())
}

fn no_properties(version: Version) -> Vec<u8> {
    match version {
        Version::V3 => Vec::new(),
        Version::V5 => properties(&[]),
    }
}
