//! What MQTT and we promise: strings, integers, fixed headers, identifiers (chapters 1 and 2).

use super::*;
use crate::packet::{self, EncodeError, Expect};

/// A string as it travels.
fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// A packet of fewer than 128 bytes.
fn packet_of(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [vec![first, body.len() as u8], body].concat()
}

/// A property block of one property.
fn block(identifier: u8, value: &[u8]) -> Vec<u8> {
    [vec![value.len() as u8 + 1, identifier], value.to_vec()].concat()
}

/// Packets of a client in which one field of type string is `bytes`; CONNECTs first.
fn packets_with(version: Version, bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let field = string(bytes);
    let (a, none): (Vec<u8>, &[u8]) = (string(b"a"), if version == V5 { &[0] } else { &[] });
    let level = if version == V5 { 5 } else { 4 };
    let connect = |flags: u8, rest: &[&[u8]]| {
        let head: &[u8] = &[0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60];
        packet_of(0x10, &[head, none, &rest.concat()])
    };
    let mut packets = vec![
        ("client identifier", connect(0x02, &[&field])),
        ("will topic", connect(0x06, &[&a, none, &field, &a])),
        ("user name", connect(0x82, &[&a, &field])),
        ("topic name", packet_of(0x30, &[&field, none])),
        ("filter", packet_of(0x82, &[&[0, 1], none, &field, &[0]])),
        ("filter to end", packet_of(0xa2, &[&[0, 1], none, &field])),
    ];
    if version == V5 {
        let publish = |block: Vec<u8>| packet_of(0x30, &[&a, &block]);
        packets.extend([
            ("content type", publish(block(0x03, &field))),
            ("response topic", publish(block(0x08, &field))),
            (
                "name of a property",
                publish(block(0x26, &[&field[..], &a].concat())),
            ),
            (
                "value of a property",
                publish(block(0x26, &[&a[..], &field].concat())),
            ),
        ]);
    }
    packets
}

/// 3.1.1: [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11]
/// 3.1.1: [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2]
/// 5.0: [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.1.3-4] [MQTT-3.1.3-11]
/// 5.0: [MQTT-3.1.3-12] [MQTT-3.3.2-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19] [MQTT-3.8.3-1]
/// 5.0: [MQTT-3.10.3-1] [MQTT-4.7.3-2]
#[test]
fn a_string_that_is_no_utf_8_or_holds_a_null_character_ends_the_connection() {
    let cut_short: &[u8] = &[b'a', 0xc3];
    let (surrogate, null): (&[u8], &[u8]) = (&[0xed, 0xa0, 0x80], &[b'a', 0, b'b']);
    for version in BOTH {
        for (bytes, is_bad) in [
            (&b"ok"[..], false),
            (cut_short, true),
            (surrogate, true),
            (null, true),
        ] {
            for (field, packet) in packets_with(version, bytes) {
                let mut sim = Sim::new();
                let is_first = packet[0] == 0x10;
                let client = match is_first {
                    true => sim.silent(),
                    false => sim.client(version, "c"),
                };
                sim.send_bytes(client, &packet);
                let served = !is_first || field == "client identifier" || field == "will topic";
                if is_bad || served {
                    assert_eq!(
                        sim.is_closed(client),
                        is_bad,
                        "{version:?} {field} {bytes:x?}"
                    );
                }
                let told = last_reason(&mut sim, client);
                if is_bad && version == V5 {
                    assert_eq!(
                        told,
                        Some(ReasonCode::MalformedPacket),
                        "{field} {bytes:x?}"
                    );
                }
            }
        }
    }
}

/// 3.1.1: [MQTT-1.5.3-3] [MQTT-4.7.3-4]
/// 5.0: [MQTT-1.5.4-3] [MQTT-4.7.3-4]
#[test]
fn texts_pass_unaltered_and_are_told_apart_by_their_bytes() {
    // A byte order mark, a letter of another case, a composed and a decomposed umlaut.
    let alike = [
        "\u{feff}a",
        "a",
        "A",
        "\u{e4}",
        "a\u{308}",
        "a/",
        "/a",
        " a",
    ];
    for version in BOTH {
        for subscribed in alike {
            let mut sim = Sim::new();
            let (subscriber, publisher) = pair(&mut sim, version, subscribed, 0);
            for published in alike {
                sim.send(publisher, once(published, "x"));
            }
            assert_eq!(sim.payloads(subscriber), [format!("{subscribed}=x")]);
        }
    }
}

/// 5.0: [MQTT-1.5.5-1]
#[test]
fn a_variable_byte_integer_takes_as_few_bytes_as_it_can() {
    for (payload, bytes_of_length) in [(0, 1), (123, 1), (124, 2), (16_379, 2), (16_380, 3)] {
        let message = publish("a", &"x".repeat(payload), Delivery::AtMostOnce);
        let len = packet::encoded_len(&Packet::Publish(message), V5).unwrap();
        // One byte of type, the length, the topic with its own length, no properties.
        assert_eq!(len, 1 + bytes_of_length + 3 + 1 + payload, "{payload}");
    }
    let malformed = (true, Some(ReasonCode::MalformedPacket));
    assert_eq!(put(V5, "c0 80 00"), malformed);
    assert_eq!(put(V5, r#"30 05 0001 "a" 80 00"#), malformed);
}

/// 3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
/// 3.1.1: [MQTT-3.14.1-1]
/// 5.0: [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1]
/// 5.0: [MQTT-3.15.1-1]
#[test]
fn reserved_flags_that_are_not_as_listed_end_the_connection() {
    for version in BOTH {
        let required = |packet_type: u8| match packet_type {
            6 | 8 | 10 => 2,
            _ => 0,
        };
        for packet_type in [4, 5, 6, 7, 8, 10, 12, 14, 15] {
            for flags in (0..16).filter(|flags| *flags != required(packet_type)) {
                let bytes = format!("{:02x}", packet_type << 4 | flags);
                let (closed, told) = put(version, &bytes);
                assert!(closed, "{version:?} {bytes}");
                let expected = (version == V5).then_some(ReasonCode::MalformedPacket);
                assert_eq!(told, expected, "{bytes}");
            }
        }
        let (closed, answer) = put_first(r#"11 0c 0004 "MQTT" 04 02 003c 0000"#);
        assert!(closed && answer.is_none());
    }
    assert_eq!(
        put(V5, "e0 00"),
        (true, None),
        "the flags of DISCONNECT as listed"
    );
}

/// 3.1.1: [MQTT-2.3.1-1]
/// 5.0: [MQTT-2.2.1-3]
#[test]
fn a_packet_identifier_of_zero_ends_the_connection() {
    for (version, bytes) in [
        (V3, r#"32 05 0001 "a" 0000"#),
        (V3, r#"34 05 0001 "a" 0000"#),
        (V3, r#"82 06 0000 0001 "a" 00"#),
        (V3, r#"a2 05 0000 0001 "a""#),
        (V5, r#"32 06 0001 "a" 0000 00"#),
        (V5, r#"34 06 0001 "a" 0000 00"#),
        (V5, r#"82 07 0000 00 0001 "a" 00"#),
        (V5, r#"a2 06 0000 00 0001 "a""#),
    ] {
        let told = (version == V5).then_some(ReasonCode::ProtocolError);
        assert_eq!(put(version, bytes), (true, told), "{bytes}");
    }
}

/// 3.1.1: [MQTT-2.3.1-6] [MQTT-2.3.1-7] [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.10.4-4]
/// 5.0: [MQTT-2.2.1-5] [MQTT-2.2.1-6] [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.10.4-4]
#[test]
fn answers_repeat_the_identifier_of_what_they_answer() {
    for version in BOTH {
        let none = if version == V5 { "00" } else { "" };
        let length = |n: usize| format!("{:02x}", n + usize::from(version == V5));
        let mut sim = Sim::new();
        let client = sim.client(version, "c");
        let requests = [
            format!(r#"32 {} 0001 "a" 1234 {none} "x""#, length(6)),
            format!(r#"34 {} 0001 "a" 2345 {none} "x""#, length(6)),
            "62 02 2345".to_owned(),
            format!(r#"82 {} 3456 {none} 0001 "b" 00"#, length(6)),
            format!(r#"a2 {} 4567 {none} 0001 "b""#, length(5)),
        ];
        for bytes in &requests {
            sim.send_bytes(client, &parse(bytes));
        }
        let ids: Vec<(char, u16)> = sim.take(client).iter().map(answer).collect();
        let expected = [
            ('A', 0x1234),
            ('R', 0x2345),
            ('C', 0x2345),
            ('S', 0x3456),
            ('U', 0x4567),
        ];
        assert_eq!(ids, expected, "{version:?}");
    }
}

fn answer(packet: &Packet) -> (char, u16) {
    match packet {
        Packet::PubAck(ack) => ('A', ack.packet_id.value()),
        Packet::PubRec(ack) => ('R', ack.packet_id.value()),
        Packet::PubComp(ack) => ('C', ack.packet_id.value()),
        Packet::SubAck(ack) => ('S', ack.packet_id.value()),
        Packet::UnsubAck(ack) => ('U', ack.packet_id.value()),
        other => panic!("{other:?}"),
    }
}

/// 5.0: [MQTT-2.2.2-1]
#[test]
fn no_properties_are_a_property_length_of_zero() {
    let message = Packet::Publish(publish("a", "", Delivery::AtMostOnce));
    let sub_ack = Packet::SubAck(crate::packet::SubAck {
        packet_id: id(1),
        reasons: vec![ReasonCode::Success],
        details: None,
    });
    let unsub_ack = Packet::UnsubAck(crate::packet::UnsubAck {
        packet_id: id(1),
        reasons: vec![ReasonCode::Success],
        details: None,
    });
    for (packet, bytes) in [
        (message, r#"30 04 0001 "a" 00"#),
        (sub_ack, "90 04 0001 00 00"),
        (unsub_ack, "b0 04 0001 00 00"),
    ] {
        let mut written = bytes::BytesMut::new();
        packet::encode(&packet, V5, &mut written).unwrap();
        assert_eq!(written, parse(bytes));
    }
    // Where the length is left out altogether the packet is cut short.
    let cut_short = r#"82 06 0001 0001 "b" 00"#;
    assert!(put(V5, cut_short).0);
}

/// 3.1.1: [MQTT-3.9.3-2]
/// 5.0: [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
/// 5.0: [MQTT-3.9.3-2] [MQTT-3.11.3-2] [MQTT-3.14.2-1] [MQTT-3.15.2-1]
#[test]
fn a_packet_with_a_reason_code_of_another_type_is_neither_sent_nor_taken() {
    for reason in ReasonCode::ALL {
        for (packet, packet_type) in packets_saying(*reason) {
            let mut written = bytes::BytesMut::new();
            let sent = packet::encode(&packet, V5, &mut written);
            let allowed = reason.allowed_in(packet_type);
            let refused = Err(EncodeError::ReasonNotAllowed(packet_type));
            assert_eq!(sent, if allowed { Ok(()) } else { refused }, "{reason:?}");
            if allowed {
                let expect = Expect::from_server(V5, usize::MAX);
                assert_eq!(packet::decode(&mut written, expect), Ok(Some(packet)));
            }
        }
    }
    for code in 0..=u8::MAX {
        let known = ReasonCode::from_u8(code);
        for (bytes, packet_type) in [
            (
                format!("40 03 0001 {code:02x}"),
                crate::packet::PacketType::PubAck,
            ),
            (
                format!("50 03 0001 {code:02x}"),
                crate::packet::PacketType::PubRec,
            ),
            (
                format!("62 03 0001 {code:02x}"),
                crate::packet::PacketType::PubRel,
            ),
            (
                format!("70 03 0001 {code:02x}"),
                crate::packet::PacketType::PubComp,
            ),
            (
                format!("e0 01 {code:02x}"),
                crate::packet::PacketType::Disconnect,
            ),
        ] {
            let (_, told) = put(V5, &bytes);
            let listed = known.is_some_and(|reason| reason.allowed_in(packet_type));
            assert_eq!(
                told == Some(ReasonCode::MalformedPacket),
                !listed,
                "{bytes}"
            );
        }
    }
    let failures = [ReasonCode::NotAuthorized, ReasonCode::QuotaExceeded];
    let ack = Packet::SubAck(crate::packet::SubAck {
        packet_id: id(1),
        reasons: failures.into(),
        details: None,
    });
    let mut written = bytes::BytesMut::new();
    packet::encode(&ack, V3, &mut written).unwrap();
    assert_eq!(written, parse("90 04 0001 80 80"));
}

fn packets_saying(reason: ReasonCode) -> Vec<(Packet, crate::packet::PacketType)> {
    use crate::packet::{Auth, ConnAckProperties, Disconnect, PacketType, SubAck, UnsubAck};
    let ack = Ack::new(id(1), reason);
    let method = text("m");
    vec![
        (
            Packet::ConnAck(Box::new(ConnAck {
                session_present: false,
                reason,
                properties: ConnAckProperties::default(),
            })),
            PacketType::ConnAck,
        ),
        (Packet::PubAck(ack.clone()), PacketType::PubAck),
        (Packet::PubRec(ack.clone()), PacketType::PubRec),
        (Packet::PubRel(ack.clone()), PacketType::PubRel),
        (Packet::PubComp(ack), PacketType::PubComp),
        (
            Packet::SubAck(SubAck {
                packet_id: id(1),
                reasons: vec![reason],
                details: None,
            }),
            PacketType::SubAck,
        ),
        (
            Packet::UnsubAck(UnsubAck {
                packet_id: id(1),
                reasons: vec![reason],
                details: None,
            }),
            PacketType::UnsubAck,
        ),
        (
            Packet::Disconnect(Disconnect::new(reason)),
            PacketType::Disconnect,
        ),
        (
            Packet::Auth(Auth {
                reason,
                authentication: Some(Authentication { method, data: None }),
                details: None,
            }),
            PacketType::Auth,
        ),
    ]
}
