//! The codec against the specifications: examples of every packet, of every fault, and properties.
//!
//! Bytes are written as hexadecimal with ASCII text in quotes: `10 0f 0004 "MQTT" …`.

mod differential;
mod examples;
mod malformed;
mod peer;
mod properties;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::topic::{SubscriptionFilter, TopicName};

/// Larger than any example.
const AMPLE: usize = 300_000;

/// Holds bytes against the packet they mean, in both directions; a prefix of them must wait for
/// the rest, and fewer bytes in a packet of fewer bytes must not mean the same.
fn check(expect: Expect, bytes: &str, packet: &Packet) {
    let bytes = parse(bytes);
    let mut input = BytesMut::from(&bytes[..]);
    assert_eq!(decode(&mut input, expect), Ok(Some(packet.clone())));
    assert!(input.is_empty(), "the packet is taken off the input");

    let version = match packet {
        Packet::Connect(packet) => packet.version,
        _ => expect
            .version
            .expect("only CONNECT is read without a version"),
    };
    let mut written = BytesMut::new();
    assert_eq!(encode(packet, version, &mut written), Ok(()));
    assert_eq!(written, bytes);
    assert_eq!(encoded_len(packet, version), Ok(bytes.len()));

    for length in 0..bytes.len() {
        let mut input = BytesMut::from(&bytes[..length]);
        assert_eq!(
            decode(&mut input, expect),
            Ok(None),
            "a prefix of {length} bytes"
        );
        assert_eq!(input, bytes[..length], "a prefix is left as it was");
    }
    // The examples are short: one byte of remaining length, and the body from the third on.
    for body in 0..bytes.len() - 2 {
        let mut input = BytesMut::from(&bytes[..2 + body]);
        input[1] = body as u8;
        assert_ne!(
            decode(&mut input, expect),
            Ok(Some(packet.clone())),
            "cut to {body} bytes"
        );
    }
}

/// Reads hexadecimal with quoted ASCII.
pub(crate) fn parse(notation: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in notation.split('"').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<u8> = part
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        for pair in digits.chunks(2) {
            let pair = std::str::from_utf8(pair).expect("digits");
            bytes.push(u8::from_str_radix(pair, 16).expect("hexadecimal"));
        }
    }
    bytes
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).expect("not zero")
}

fn text(text: &str) -> Text {
    Text::parse(text).expect("a valid string")
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a valid topic name")
}

fn filter(text: &str) -> SubscriptionFilter {
    SubscriptionFilter::parse(text).expect("a valid filter")
}

fn user_property(name: &str, value: &str) -> UserProperties {
    let mut properties = UserProperties::default();
    properties.push(name, value).expect("valid strings");
    properties
}
