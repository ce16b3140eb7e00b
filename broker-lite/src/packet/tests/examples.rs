//! One example and more of every packet in both versions, after the figures of chapter 3.

use std::num::{NonZeroU16, NonZeroU32};

use super::*;

const CONNECT: Expect = Expect {
    sender: Sender::Client,
    version: None,
    max_packet_size: AMPLE,
};

fn client(version: Version) -> Expect {
    Expect::from_client(version, AMPLE)
}

fn server(version: Version) -> Expect {
    Expect::from_server(version, AMPLE)
}

fn details(reason: &str) -> Option<Box<Details>> {
    Some(Details::because(text(reason)))
}

fn bare_connect(version: Version) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        client_id: text("c"),
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn bare_will() -> Will {
    Will {
        topic: topic("w"),
        payload: Bytes::from_static(b"m"),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_s: None,
        message_expiry_s: None,
        properties: None,
    }
}

fn bare_publish() -> Publish {
    Publish {
        dup: false,
        retain: false,
        delivery: Delivery::AtLeastOnce(id(10)),
        topic: Some(topic("a/b")),
        topic_alias: None,
        message_expiry_s: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: Bytes::from_static(b"hi"),
    }
}

#[test]
fn connect_with_a_client_identifier_alone() {
    let v3 = Packet::Connect(Box::new(bare_connect(Version::V3)));
    check(CONNECT, r#"10 0d 0004 "MQTT" 04 02 003c 0001 "c""#, &v3);
    let v5 = Packet::Connect(Box::new(bare_connect(Version::V5)));
    check(CONNECT, r#"10 0e 0004 "MQTT" 05 02 003c 00 0001 "c""#, &v5);
}

#[test]
fn connect_with_will_user_name_and_password() {
    let connect = |version| {
        Packet::Connect(Box::new(Connect {
            keep_alive_s: 10,
            will: Some(bare_will()),
            user_name: Some(text("u")),
            password: Some(Credential(Bytes::from_static(b"p"))),
            ..bare_connect(version)
        }))
    };
    check(
        CONNECT,
        r#"10 19 0004 "MQTT" 04 ce 000a 0001 "c" 0001 "w" 0001 "m" 0001 "u" 0001 "p""#,
        &connect(Version::V3),
    );
    check(
        CONNECT,
        r#"10 1b 0004 "MQTT" 05 ce 000a 00 0001 "c" 00 0001 "w" 0001 "m" 0001 "u" 0001 "p""#,
        &connect(Version::V5),
    );
}

#[test]
fn a_password_without_user_name_is_sound_in_v5() {
    let connect = Packet::Connect(Box::new(Connect {
        password: Some(Credential(Bytes::from_static(b"p"))),
        ..bare_connect(Version::V5)
    }));
    check(
        CONNECT,
        r#"10 11 0004 "MQTT" 05 42 003c 00 0001 "c" 0001 "p""#,
        &connect,
    );
}

#[test]
fn connect_with_every_property() {
    let connect = Packet::Connect(Box::new(Connect {
        properties: ConnectProperties {
            session_expiry_s: Some(10),
            receive_maximum: NonZeroU16::new(20),
            maximum_packet_size: NonZeroU32::new(256),
            topic_alias_maximum: Some(5),
            request_response_information: Some(true),
            request_problem_information: Some(false),
            user_properties: user_property("k", "v"),
            authentication: Some(Authentication {
                method: text("X"),
                data: Some(Credential(Bytes::from_static(b"d"))),
            }),
        },
        ..bare_connect(Version::V5)
    }));
    let bytes = r#"10 31 0004 "MQTT" 05 02 003c
        23 11 0000000a 21 0014 27 00000100 22 0005 19 01 17 00
           15 0001 "X" 16 0001 "d" 26 0001 "k" 0001 "v"
        0001 "c""#;
    check(CONNECT, bytes, &connect);
}

#[test]
fn connect_with_every_will_property() {
    let connect = Packet::Connect(Box::new(Connect {
        will: Some(Will {
            retain: true,
            qos: QoS::ExactlyOnce,
            delay_s: Some(30),
            message_expiry_s: Some(60),
            properties: Some(Arc::new(MessageProperties {
                payload_format: Some(PayloadFormat::Utf8),
                content_type: Some(text("t")),
                response_topic: Some(topic("r")),
                correlation_data: Some(Bytes::from_static(&[0xff])),
                user_properties: user_property("k", "v"),
            })),
            ..bare_will()
        }),
        ..bare_connect(Version::V5)
    }));
    let bytes = r#"10 34 0004 "MQTT" 05 36 003c 00 0001 "c"
        1f 18 0000001e 02 0000003c 01 01 03 0001 "t" 08 0001 "r" 09 0001 ff
           26 0001 "k" 0001 "v"
        0001 "w" 0001 "m""#;
    check(CONNECT, bytes, &connect);
}

#[test]
fn conn_ack_without_properties() {
    let accepted = Packet::ConnAck(Box::new(ConnAck {
        session_present: true,
        reason: ReasonCode::Success,
        properties: ConnAckProperties::default(),
    }));
    check(server(Version::V3), "20 02 01 00", &accepted);
    check(server(Version::V5), "20 03 01 00 00", &accepted);
    let refused = Packet::ConnAck(Box::new(ConnAck {
        session_present: false,
        reason: ReasonCode::NotAuthorized,
        properties: ConnAckProperties::default(),
    }));
    check(server(Version::V3), "20 02 00 05", &refused);
    check(server(Version::V5), "20 03 00 87 00", &refused);
}

#[test]
fn conn_ack_with_every_property() {
    let packet = Packet::ConnAck(Box::new(ConnAck {
        session_present: false,
        reason: ReasonCode::Success,
        properties: ConnAckProperties {
            session_expiry_s: Some(1),
            receive_maximum: NonZeroU16::new(2),
            maximum_qos: Some(QoS::AtLeastOnce),
            retain_available: Some(true),
            maximum_packet_size: NonZeroU32::new(3),
            assigned_client_id: Some(text("a")),
            topic_alias_maximum: Some(4),
            wildcards_available: Some(true),
            subscription_ids_available: Some(false),
            shared_available: Some(true),
            server_keep_alive_s: Some(5),
            response_information: Some(text("i")),
            server_reference: Some(text("s")),
            authentication: Some(Authentication {
                method: text("X"),
                data: None,
            }),
            details: Some(Box::new(Details {
                reason_string: Some(text("r")),
                user_properties: user_property("k", "v"),
            })),
        },
    }));
    let bytes = r#"20 3b 00 00
        38 11 00000001 21 0002 24 01 25 01 27 00000003 12 0001 "a" 22 0004
           28 01 29 00 2a 01 13 0005 1a 0001 "i" 1c 0001 "s" 15 0001 "X"
           1f 0001 "r" 26 0001 "k" 0001 "v""#;
    check(server(Version::V5), bytes, &packet);
}

#[test]
fn publish_at_every_qos() {
    let at = |delivery, dup, retain| {
        Packet::Publish(Publish {
            delivery,
            dup,
            retain,
            ..bare_publish()
        })
    };
    let qos0 = at(Delivery::AtMostOnce, false, true);
    check(client(Version::V3), r#"31 07 0003 "a/b" "hi""#, &qos0);
    check(client(Version::V5), r#"31 08 0003 "a/b" 00 "hi""#, &qos0);
    let qos1 = at(Delivery::AtLeastOnce(id(10)), false, false);
    check(server(Version::V3), r#"32 09 0003 "a/b" 000a "hi""#, &qos1);
    check(
        server(Version::V5),
        r#"32 0a 0003 "a/b" 000a 00 "hi""#,
        &qos1,
    );
    let qos2 = at(Delivery::ExactlyOnce(id(0xffff)), true, false);
    check(client(Version::V3), r#"3c 09 0003 "a/b" ffff "hi""#, &qos2);
    check(
        client(Version::V5),
        r#"3c 0a 0003 "a/b" ffff 00 "hi""#,
        &qos2,
    );
}

#[test]
fn publish_without_payload() {
    let packet = Packet::Publish(Publish {
        payload: Bytes::new(),
        ..bare_publish()
    });
    check(client(Version::V3), r#"32 07 0003 "a/b" 000a"#, &packet);
}

#[test]
fn publish_with_every_property() {
    let packet = Packet::Publish(Publish {
        topic_alias: TopicAlias::new(7),
        message_expiry_s: Some(60),
        subscription_ids: [1, 268_435_455]
            .into_iter()
            .filter_map(SubscriptionId::new)
            .collect(),
        properties: Some(Arc::new(MessageProperties {
            payload_format: Some(PayloadFormat::Unspecified),
            content_type: Some(text("t")),
            response_topic: Some(topic("r")),
            correlation_data: Some(Bytes::from_static(b"c")),
            user_properties: user_property("k", "v"),
        })),
        ..bare_publish()
    });
    let bytes = r#"32 2e 0003 "a/b" 000a
        24 23 0007 02 0000003c 0b 01 0b ffffff7f 01 00 03 0001 "t" 08 0001 "r" 09 0001 "c"
           26 0001 "k" 0001 "v"
        "hi""#;
    check(server(Version::V5), bytes, &packet);
}

#[test]
fn publish_by_topic_alias_alone() {
    let packet = Packet::Publish(Publish {
        topic: None,
        topic_alias: TopicAlias::new(1),
        ..bare_publish()
    });
    check(
        client(Version::V5),
        r#"32 0a 0000 000a 03 23 0001 "hi""#,
        &packet,
    );
}

#[test]
fn acknowledgements_of_success() {
    let ack = Ack::success(id(10));
    for version in [Version::V3, Version::V5] {
        for expect in [client(version), server(version)] {
            check(expect, "40 02 000a", &Packet::PubAck(ack.clone()));
            check(expect, "50 02 000a", &Packet::PubRec(ack.clone()));
            check(expect, "62 02 000a", &Packet::PubRel(ack.clone()));
            check(expect, "70 02 000a", &Packet::PubComp(ack.clone()));
        }
    }
}

#[test]
fn acknowledgements_with_a_reason() {
    let ack = |reason| Ack::new(id(10), reason);
    let expect = client(Version::V5);
    check(
        expect,
        "40 03 000a 87",
        &Packet::PubAck(ack(ReasonCode::NotAuthorized)),
    );
    check(
        expect,
        "50 03 000a 10",
        &Packet::PubRec(ack(ReasonCode::NoMatchingSubscribers)),
    );
    check(
        expect,
        "62 03 000a 92",
        &Packet::PubRel(ack(ReasonCode::PacketIdNotFound)),
    );
    check(
        expect,
        "70 03 000a 92",
        &Packet::PubComp(ack(ReasonCode::PacketIdNotFound)),
    );
}

#[test]
fn an_acknowledgement_with_reason_string_and_user_property() {
    let packet = Packet::PubAck(Ack {
        packet_id: id(10),
        reason: ReasonCode::QuotaExceeded,
        details: Some(Box::new(Details {
            reason_string: Some(text("r")),
            user_properties: user_property("k", "v"),
        })),
    });
    let bytes = r#"40 0f 000a 97 0b 1f 0001 "r" 26 0001 "k" 0001 "v""#;
    check(server(Version::V5), bytes, &packet);
}

#[test]
fn an_acknowledgement_may_spell_out_that_it_has_no_properties() {
    let mut input = BytesMut::from(&parse("40 04 000a 00 00")[..]);
    let read = decode(&mut input, client(Version::V5));
    assert_eq!(read, Ok(Some(Packet::PubAck(Ack::success(id(10))))));
}

#[test]
fn subscribe_to_two_filters() {
    let packet = Packet::Subscribe(Subscribe {
        packet_id: id(10),
        subscription_id: None,
        user_properties: UserProperties::default(),
        requests: vec![
            SubscribeRequest {
                filter: filter("a/b"),
                options: SubscribeOptions::at(QoS::AtLeastOnce),
            },
            SubscribeRequest {
                filter: filter("c/+"),
                options: SubscribeOptions::at(QoS::ExactlyOnce),
            },
        ],
    });
    check(
        client(Version::V3),
        r#"82 0e 000a 0003 "a/b" 01 0003 "c/+" 02"#,
        &packet,
    );
    check(
        client(Version::V5),
        r#"82 0f 000a 00 0003 "a/b" 01 0003 "c/+" 02"#,
        &packet,
    );
}

#[test]
fn subscribe_with_every_option_and_property() {
    let packet = Packet::Subscribe(Subscribe {
        packet_id: id(10),
        subscription_id: SubscriptionId::new(128),
        user_properties: user_property("k", "v"),
        requests: vec![
            SubscribeRequest {
                filter: filter("#"),
                options: SubscribeOptions {
                    qos: QoS::AtMostOnce,
                    no_local: true,
                    retain_as_published: true,
                    retain_handling: RetainHandling::DoNotSend,
                },
            },
            SubscribeRequest {
                filter: filter("$share/g/a"),
                options: SubscribeOptions {
                    retain_handling: RetainHandling::SendIfNew,
                    ..SubscribeOptions::at(QoS::AtMostOnce)
                },
            },
        ],
    });
    let bytes = r#"82 1e 000a 0a 0b 8001 26 0001 "k" 0001 "v" 0001 23 2c 000a "$share/g/a" 10"#;
    check(client(Version::V5), bytes, &packet);
}

#[test]
fn sub_ack_with_every_grant() {
    let packet = |failure| {
        Packet::SubAck(SubAck {
            packet_id: id(10),
            reasons: vec![
                ReasonCode::Success,
                ReasonCode::GrantedQos1,
                ReasonCode::GrantedQos2,
                failure,
            ],
            details: None,
        })
    };
    let v3 = packet(ReasonCode::UnspecifiedError);
    check(server(Version::V3), "90 06 000a 00 01 02 80", &v3);
    let v5 = packet(ReasonCode::NotAuthorized);
    check(server(Version::V5), "90 07 000a 00 00 01 02 87", &v5);
}

#[test]
fn any_failed_subscription_is_0x80_in_v3() {
    let packet = Packet::SubAck(SubAck {
        packet_id: id(10),
        reasons: vec![ReasonCode::NotAuthorized],
        details: details("left out"),
    });
    let mut written = BytesMut::new();
    assert_eq!(encode(&packet, Version::V3, &mut written), Ok(()));
    assert_eq!(written, parse("90 03 000a 80"));
}

#[test]
fn unsubscribe_and_unsub_ack() {
    let packet = Packet::Unsubscribe(Unsubscribe {
        packet_id: id(10),
        user_properties: UserProperties::default(),
        filters: vec![filter("a/b"), filter("c/d")],
    });
    check(
        client(Version::V3),
        r#"a2 0c 000a 0003 "a/b" 0003 "c/d""#,
        &packet,
    );
    check(
        client(Version::V5),
        r#"a2 0d 000a 00 0003 "a/b" 0003 "c/d""#,
        &packet,
    );
    let answer = |reasons| {
        Packet::UnsubAck(UnsubAck {
            packet_id: id(10),
            reasons,
            details: None,
        })
    };
    check(server(Version::V3), "b0 02 000a", &answer(Vec::new()));
    let reasons = vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    check(server(Version::V5), "b0 05 000a 00 00 11", &answer(reasons));
}

#[test]
fn unsubscribe_and_its_answer_with_properties() {
    let packet = Packet::Unsubscribe(Unsubscribe {
        packet_id: id(10),
        user_properties: user_property("k", "v"),
        filters: vec![filter("a")],
    });
    let bytes = r#"a2 0d 000a 07 26 0001 "k" 0001 "v" 0001 "a""#;
    check(client(Version::V5), bytes, &packet);
    let packet = Packet::UnsubAck(UnsubAck {
        packet_id: id(10),
        reasons: vec![ReasonCode::NotAuthorized],
        details: details("r"),
    });
    check(
        server(Version::V5),
        r#"b0 08 000a 04 1f 0001 "r" 87"#,
        &packet,
    );
}

#[test]
fn pings() {
    for version in [Version::V3, Version::V5] {
        check(client(version), "c0 00", &Packet::PingReq);
        check(server(version), "d0 00", &Packet::PingResp);
    }
}

#[test]
fn disconnect_in_every_length() {
    let normal = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
    check(client(Version::V3), "e0 00", &normal);
    check(client(Version::V5), "e0 00", &normal);
    let with_will = Packet::Disconnect(Disconnect::new(ReasonCode::DisconnectWithWill));
    check(client(Version::V5), "e0 01 04", &with_will);
    let expiring = Packet::Disconnect(Disconnect {
        session_expiry_s: Some(0),
        ..Disconnect::new(ReasonCode::Success)
    });
    check(client(Version::V5), "e0 07 00 05 11 00000000", &expiring);
    let moved = Packet::Disconnect(Disconnect {
        server_reference: Some(text("s")),
        details: details("r"),
        ..Disconnect::new(ReasonCode::ServerMoved)
    });
    check(
        server(Version::V5),
        r#"e0 0a 9d 08 1c 0001 "s" 1f 0001 "r""#,
        &moved,
    );
}

#[test]
fn auth_steps() {
    let success = Auth {
        reason: ReasonCode::Success,
        authentication: None,
        details: None,
    };
    check(server(Version::V5), "f0 00", &Packet::Auth(success));
    let step = Packet::Auth(Auth {
        reason: ReasonCode::ContinueAuthentication,
        authentication: Some(Authentication {
            method: text("X"),
            data: Some(Credential(Bytes::from_static(b"d"))),
        }),
        details: details("r"),
    });
    let bytes = r#"f0 0e 18 0c 15 0001 "X" 16 0001 "d" 1f 0001 "r""#;
    check(client(Version::V5), bytes, &step);
}

#[test]
fn v3_leaves_properties_out() {
    let packet = Packet::Publish(Publish {
        message_expiry_s: Some(60),
        properties: Some(Arc::new(MessageProperties {
            content_type: Some(text("t")),
            ..MessageProperties::default()
        })),
        ..bare_publish()
    });
    let mut written = BytesMut::new();
    assert_eq!(encode(&packet, Version::V3, &mut written), Ok(()));
    assert_eq!(written, parse(r#"32 09 0003 "a/b" 000a "hi""#));
}

#[test]
fn no_payload_keeps_the_buffer_it_came_in() {
    for size in [100, 100_000] {
        let packet = Packet::Publish(Publish {
            payload: vec![7; size].into(),
            ..bare_publish()
        });
        let mut input = BytesMut::new();
        assert_eq!(encode(&packet, Version::V5, &mut input), Ok(()));
        let range = input.as_ptr_range();
        let Ok(Some(Packet::Publish(read))) = decode(&mut input, client(Version::V5)) else {
            panic!("a PUBLISH was written");
        };
        assert!(!range.contains(&read.payload.as_ptr()));
        assert_eq!(Packet::Publish(read), packet);
    }
}

#[test]
fn packets_follow_each_other_in_one_buffer() {
    let mut input = BytesMut::from(&parse("c0 00 40 02 000a e0")[..]);
    let expect = client(Version::V3);
    assert_eq!(decode(&mut input, expect), Ok(Some(Packet::PingReq)));
    assert_eq!(
        decode(&mut input, expect),
        Ok(Some(Packet::PubAck(Ack::success(id(10)))))
    );
    assert_eq!(decode(&mut input, expect), Ok(None));
    assert_eq!(input, parse("e0"));
}

#[test]
fn dropping_details_shortens_an_answer_to_what_its_reader_takes() {
    let mut packet = Packet::PubAck(Ack {
        details: details("too long for this client"),
        ..Ack::new(id(10), ReasonCode::NotAuthorized)
    });
    assert_eq!(encoded_len(&packet, Version::V5), Ok(33));
    packet.drop_details();
    assert_eq!(encoded_len(&packet, Version::V5), Ok(5));
}

#[test]
fn what_a_version_cannot_say_is_an_error_and_writes_nothing() {
    let auth = Packet::Auth(Auth {
        reason: ReasonCode::Success,
        authentication: None,
        details: None,
    });
    let alias_only = Packet::Publish(Publish {
        topic: None,
        topic_alias: TopicAlias::new(1),
        ..bare_publish()
    });
    let malformed = Packet::ConnAck(Box::new(ConnAck {
        session_present: false,
        reason: ReasonCode::MalformedPacket,
        properties: ConnAckProperties::default(),
    }));
    let cases = [
        (auth, EncodeError::NotInVersion(PacketType::Auth)),
        (
            alias_only,
            EncodeError::Lacks(PacketType::Publish, "a topic"),
        ),
        (malformed, EncodeError::NotInVersion(PacketType::ConnAck)),
    ];
    for (packet, error) in cases {
        let mut written = BytesMut::new();
        assert_eq!(encode(&packet, Version::V3, &mut written), Err(error));
        assert!(written.is_empty());
    }
}

#[test]
fn what_no_version_can_say_is_an_error() {
    let wrong_reason = Packet::PubAck(Ack::new(id(1), ReasonCode::KeepAliveTimeout));
    let no_filter = Packet::Unsubscribe(Unsubscribe {
        packet_id: id(1),
        user_properties: UserProperties::default(),
        filters: Vec::new(),
    });
    let long_password = Packet::Connect(Box::new(Connect {
        password: Some(Credential(vec![0; 65_536].into())),
        ..bare_connect(Version::V5)
    }));
    let half = "x".repeat(40_000);
    let long_share = Packet::Unsubscribe(Unsubscribe {
        packet_id: id(1),
        user_properties: UserProperties::default(),
        filters: vec![SubscriptionFilter {
            share: crate::topic::ShareName::parse(&half).ok(),
            filter: crate::topic::TopicFilter::parse(&half).expect("a valid filter"),
        }],
    });
    let cases = [
        (
            wrong_reason,
            EncodeError::ReasonNotAllowed(PacketType::PubAck),
        ),
        (
            no_filter,
            EncodeError::Lacks(PacketType::Unsubscribe, "a topic filter"),
        ),
        (
            long_password,
            EncodeError::FieldTooLong(PacketType::Connect),
        ),
        (
            long_share,
            EncodeError::FieldTooLong(PacketType::Unsubscribe),
        ),
    ];
    for (packet, error) in cases {
        assert_eq!(encoded_len(&packet, Version::V5), Err(error));
    }
}

#[test]
fn credentials_never_show() {
    let packet = Connect {
        password: Some(Credential(Bytes::from_static(b"hunter2"))),
        ..bare_connect(Version::V5)
    };
    let shown = format!("{packet:?}");
    assert!(
        shown.contains("<redacted>") && !shown.contains("hunter2"),
        "{shown}"
    );
}
