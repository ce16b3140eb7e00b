//! Properties of the codec over arbitrary packets and arbitrary bytes.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::topic::TopicFilter;

proptest! {
    #[test]
    fn decoding_undoes_encoding(
        (version, packet) in version().prop_flat_map(|version| (Just(version), packet(version))),
    ) {
        let mut bytes = BytesMut::new();
        prop_assert_eq!(encode(&packet, version, &mut bytes), Ok(()));
        prop_assert_eq!(encoded_len(&packet, version), Ok(bytes.len()));
        let expect = expect(&packet, version);
        prop_assert_eq!(decode(&mut bytes, expect), Ok(Some(packet)));
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn arbitrary_bytes_mean_no_more_than_they_are(
        version in option::of(version()),
        sender in prop_oneof![Just(Sender::Client), Just(Sender::Server)],
        bytes in vec(any::<u8>(), 0..512),
    ) {
        read_within_bounds(&bytes, Expect { sender, version, max_packet_size: 256 });
    }

    #[test]
    fn damaged_packets_mean_no_more_than_they_are(
        (version, packet) in version().prop_flat_map(|version| (Just(version), packet(version))),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        kept in any::<prop::sample::Index>(),
    ) {
        let mut bytes = BytesMut::new();
        prop_assert_eq!(encode(&packet, version, &mut bytes), Ok(()));
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes.truncate(kept.index(bytes.len()) + 1);
        read_within_bounds(&bytes, expect(&packet, version));
    }
}

/// Whatever comes out must have come in: it encodes to no more bytes than were taken, so nothing
/// was allocated for lengths that were only promised, and every count is within its maximum.
fn read_within_bounds(bytes: &[u8], expect: Expect) {
    let mut input = BytesMut::from(bytes);
    let Ok(Some(packet)) = decode(&mut input, expect) else {
        return;
    };
    let taken = bytes.len() - input.len();
    assert!(taken <= expect.max_packet_size);
    let version = match &packet {
        Packet::Connect(connect) => connect.version,
        _ => expect.version.unwrap_or(Version::V5),
    };
    let length = encoded_len(&packet, version).expect("what was read can be written");
    assert!(length <= taken, "{length} bytes from {taken}: {packet:?}");
    if let Packet::Publish(Publish {
        properties: Some(properties),
        ..
    }) = &packet
    {
        assert!(properties.user_properties.len() <= MAX_USER_PROPERTIES);
    }
    if let Packet::Subscribe(subscribe) = &packet {
        assert!((1..=MAX_FILTERS).contains(&subscribe.requests.len()));
    }
}

/// Where such a packet is read.
pub(super) fn expect(packet: &Packet, version: Version) -> Expect {
    match packet {
        Packet::Connect(_) => Expect::connect(AMPLE),
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
            Expect::from_server(version, AMPLE)
        }
        Packet::Publish(publish) if !publish.subscription_ids.is_empty() => {
            Expect::from_server(version, AMPLE)
        }
        Packet::Disconnect(packet) if packet.server_reference.is_some() => {
            Expect::from_server(version, AMPLE)
        }
        _ => Expect::from_client(version, AMPLE),
    }
}

pub(super) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V3), Just(Version::V5)]
}

pub(super) fn packet(version: Version) -> BoxedStrategy<Packet> {
    let both = prop_oneof![
        connect(version).prop_map(|packet| Packet::Connect(Box::new(packet))),
        conn_ack(version).prop_map(|packet| Packet::ConnAck(Box::new(packet))),
        publish(version).prop_map(Packet::Publish),
        ack(version, PacketType::PubAck).prop_map(Packet::PubAck),
        ack(version, PacketType::PubRec).prop_map(Packet::PubRec),
        ack(version, PacketType::PubRel).prop_map(Packet::PubRel),
        ack(version, PacketType::PubComp).prop_map(Packet::PubComp),
        subscribe(version).prop_map(Packet::Subscribe),
        sub_ack(version).prop_map(Packet::SubAck),
        unsubscribe(version).prop_map(Packet::Unsubscribe),
        unsub_ack(version).prop_map(Packet::UnsubAck),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        disconnect(version).prop_map(Packet::Disconnect),
    ];
    match version {
        Version::V3 => both.boxed(),
        Version::V5 => prop_oneof![14 => both, 1 => auth().prop_map(Packet::Auth)].boxed(),
    }
}

fn connect(version: Version) -> impl Strategy<Value = Connect> {
    (
        any::<bool>(),
        any::<u16>(),
        texts(),
        option::of(will(version)),
        option::of(texts()),
        option::of(credential()),
        only_v5(version, connect_properties()),
    )
        .prop_map(
            move |(clean_start, keep_alive_s, client_id, will, user_name, password, p)| {
                // 3.1.1 has no password without a user name.
                let password = password.filter(|_| version == Version::V5 || user_name.is_some());
                Connect {
                    version,
                    clean_start,
                    keep_alive_s,
                    client_id,
                    will,
                    user_name,
                    password,
                    properties: p.unwrap_or_default(),
                }
            },
        )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    (
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(any::<NonZeroU32>()),
        option::of(any::<u16>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        user_properties(),
        option::of(authentication()),
    )
        .prop_map(
            |(expiry, receive, size, alias, response, problem, user, authentication)| {
                ConnectProperties {
                    session_expiry_s: expiry,
                    receive_maximum: receive,
                    maximum_packet_size: size,
                    topic_alias_maximum: alias,
                    request_response_information: response,
                    request_problem_information: problem,
                    user_properties: user,
                    authentication,
                }
            },
        )
}

fn will(version: Version) -> impl Strategy<Value = Will> {
    (
        topics(),
        payloads(),
        qos(),
        any::<bool>(),
        only_v5(version, any::<u32>()),
        only_v5(version, any::<u32>()),
        only_v5(version, message_properties()),
    )
        .prop_map(
            |(topic, payload, qos, retain, delay_s, message_expiry_s, properties)| Will {
                topic,
                payload,
                qos,
                retain,
                delay_s,
                message_expiry_s,
                properties: properties.flatten(),
            },
        )
}

fn conn_ack(version: Version) -> impl Strategy<Value = ConnAck> {
    (
        any::<bool>(),
        reason(PacketType::ConnAck),
        only_v5(version, conn_ack_properties()),
    )
        .prop_map(move |(session_present, reason, properties)| {
            // 3.1.1 has six return codes.
            let reason = match version {
                Version::V3 => {
                    let code = reason.connect_return_code().unwrap_or_default();
                    ReasonCode::from_connect_return_code(code).unwrap_or(reason)
                }
                Version::V5 => reason,
            };
            ConnAck {
                session_present: session_present && !reason.is_failure(),
                reason,
                properties: properties.unwrap_or_default(),
            }
        })
}

fn conn_ack_properties() -> impl Strategy<Value = ConnAckProperties> {
    let numbers = (
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(any::<NonZeroU32>()),
        option::of(any::<u16>()),
        option::of(any::<u16>()),
    );
    let flags = prop::array::uniform5(option::of(any::<bool>()));
    let words = prop::array::uniform3(option::of(texts()));
    (
        numbers,
        flags,
        words,
        option::of(authentication()),
        details(),
    )
        .prop_map(
            |(numbers, flags, [client_id, information, reference], authentication, details)| {
                let at_least_once = |yes| {
                    if yes {
                        QoS::AtLeastOnce
                    } else {
                        QoS::AtMostOnce
                    }
                };
                ConnAckProperties {
                    session_expiry_s: numbers.0,
                    receive_maximum: numbers.1,
                    maximum_qos: flags[0].map(at_least_once),
                    retain_available: flags[1],
                    maximum_packet_size: numbers.2,
                    assigned_client_id: client_id,
                    topic_alias_maximum: numbers.3,
                    wildcards_available: flags[2],
                    subscription_ids_available: flags[3],
                    shared_available: flags[4],
                    server_keep_alive_s: numbers.4,
                    response_information: information,
                    server_reference: reference,
                    authentication,
                    details,
                }
            },
        )
}

fn publish(version: Version) -> impl Strategy<Value = Publish> {
    let hop = (
        only_v5(version, any::<NonZeroU16>()),
        only_v5(version, any::<u32>()),
        only_v5(version, vec(subscription_id(), 0..3)),
    );
    (
        any::<bool>(),
        any::<bool>(),
        delivery(),
        topics(),
        any::<bool>(),
        hop,
        only_v5(version, message_properties()),
        payloads(),
    )
        .prop_map(
            |(dup, retain, delivery, topic, by_alias, hop, properties, payload)| Publish {
                dup: dup && delivery != Delivery::AtMostOnce,
                retain,
                delivery,
                topic: Some(topic).filter(|_| hop.0.is_none() || !by_alias),
                topic_alias: hop.0.map(TopicAlias),
                message_expiry_s: hop.1,
                subscription_ids: hop.2.unwrap_or_default(),
                properties: properties.flatten(),
                payload,
            },
        )
}

fn message_properties() -> impl Strategy<Value = Option<Arc<MessageProperties>>> {
    let format = prop_oneof![Just(PayloadFormat::Unspecified), Just(PayloadFormat::Utf8)];
    (
        option::of(format),
        option::of(texts()),
        option::of(topics()),
        option::of(payloads()),
        user_properties(),
    )
        .prop_map(
            |(format, content_type, response_topic, correlation_data, user_properties)| {
                let properties = MessageProperties {
                    payload_format: format,
                    content_type,
                    response_topic,
                    correlation_data,
                    user_properties,
                };
                (properties != MessageProperties::default()).then(|| Arc::new(properties))
            },
        )
}

fn ack(version: Version, packet: PacketType) -> impl Strategy<Value = Ack> {
    (packet_id(), only_v5(version, (reason(packet), details()))).prop_map(|(packet_id, said)| {
        let (reason, details) = said.unwrap_or((ReasonCode::Success, None));
        Ack {
            packet_id,
            reason,
            details,
        }
    })
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe> {
    let options = (
        qos(),
        only_v5(version, (any::<bool>(), any::<bool>(), retain_handling())),
    );
    let request = (filters(), options).prop_map(|(filter, (qos, options))| {
        let (no_local, retain_as_published, retain_handling) =
            options.unwrap_or((false, false, RetainHandling::Send));
        let no_local = no_local && filter.share.is_none();
        let options = SubscribeOptions {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        };
        SubscribeRequest { filter, options }
    });
    (
        packet_id(),
        only_v5(version, subscription_id()),
        only_v5(version, user_properties()),
        vec(request, 1..5),
    )
        .prop_map(
            |(packet_id, subscription_id, user_properties, requests)| Subscribe {
                packet_id,
                subscription_id,
                user_properties: user_properties.unwrap_or_default(),
                requests,
            },
        )
}

fn sub_ack(version: Version) -> impl Strategy<Value = SubAck> {
    let reasons = vec(reason(PacketType::SubAck), 1..5);
    (packet_id(), reasons, only_v5(version, details())).prop_map(
        move |(packet_id, mut reasons, details)| {
            if version == Version::V3 {
                let one_failure = |reason: &mut ReasonCode| *reason = ReasonCode::UnspecifiedError;
                reasons
                    .iter_mut()
                    .filter(|reason| reason.is_failure())
                    .for_each(one_failure);
            }
            SubAck {
                packet_id,
                reasons,
                details: details.flatten(),
            }
        },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe> {
    (
        packet_id(),
        only_v5(version, user_properties()),
        vec(filters(), 1..5),
    )
        .prop_map(|(packet_id, user_properties, filters)| Unsubscribe {
            packet_id,
            user_properties: user_properties.unwrap_or_default(),
            filters,
        })
}

fn unsub_ack(version: Version) -> impl Strategy<Value = UnsubAck> {
    let answers = (vec(reason(PacketType::UnsubAck), 1..5), details());
    (packet_id(), answers).prop_map(move |(packet_id, (reasons, details))| match version {
        Version::V3 => UnsubAck {
            packet_id,
            reasons: Vec::new(),
            details: None,
        },
        Version::V5 => UnsubAck {
            packet_id,
            reasons,
            details,
        },
    })
}

fn disconnect(version: Version) -> impl Strategy<Value = Disconnect> {
    let said = (
        reason(PacketType::Disconnect),
        option::of(any::<u32>()),
        option::of(texts()),
        details(),
    );
    only_v5(version, said).prop_map(|said| match said {
        // One end sends the one, the other end the other.
        Some((reason, session_expiry_s, server_reference, details)) => Disconnect {
            reason,
            session_expiry_s: session_expiry_s.filter(|_| server_reference.is_none()),
            server_reference,
            details,
        },
        None => Disconnect::new(ReasonCode::Success),
    })
}

fn auth() -> impl Strategy<Value = Auth> {
    (reason(PacketType::Auth), authentication(), details()).prop_map(
        |(reason, authentication, details)| Auth {
            reason,
            authentication: Some(authentication),
            details,
        },
    )
}

/// Sometimes a value in 5.0, never in 3.1.1.
fn only_v5<T: std::fmt::Debug + Clone>(
    version: Version,
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<T>> {
    option::of(value).prop_map(move |value| value.filter(|_| version == Version::V5))
}

fn reason(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    let allowed: Vec<ReasonCode> = ReasonCode::ALL
        .iter()
        .copied()
        .filter(|reason| reason.allowed_in(packet))
        .collect();
    prop::sample::select(allowed)
}

fn details() -> impl Strategy<Value = Option<Box<Details>>> {
    (option::of(texts()), user_properties()).prop_map(|(reason_string, user_properties)| {
        let details = Details {
            reason_string,
            user_properties,
        };
        (details != Details::default()).then(|| Box::new(details))
    })
}

fn user_properties() -> impl Strategy<Value = UserProperties> {
    vec((texts(), texts()), 0..4).prop_map(|pairs| {
        let mut properties = UserProperties::default();
        for (name, value) in pairs {
            properties
                .push(name.as_str(), value.as_str())
                .expect("valid strings");
        }
        properties
    })
}

fn authentication() -> impl Strategy<Value = Authentication> {
    (texts(), option::of(credential())).prop_map(|(method, data)| Authentication { method, data })
}

fn credential() -> impl Strategy<Value = Credential> {
    payloads().prop_map(Credential)
}

/// Most are small; some exceed what is copied rather than shared.
fn payloads() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        9 => vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 4_000..9_000usize).prop_map(|(byte, length)| vec![byte; length]),
    ]
    .prop_map(Bytes::from)
}

fn texts() -> impl Strategy<Value = Text> {
    "[^\\x00]{0,12}".prop_map(|characters| text(&characters))
}

fn topics() -> impl Strategy<Value = TopicName> {
    "[^\\x00+#]{1,20}".prop_map(|name| topic(&name))
}

fn filters() -> impl Strategy<Value = SubscriptionFilter> {
    let levels = vec(prop_oneof![Just("+".to_owned()), "[a-cé$]{0,3}"], 1..5);
    (option::of("[^\\x00+#/]{1,5}"), levels, any::<bool>()).prop_map(|(share, levels, rest)| {
        let mut text = levels.join("/");
        if rest || text.is_empty() {
            text = if text.is_empty() {
                "#".to_owned()
            } else {
                text + "/#"
            };
        }
        SubscriptionFilter {
            share: share.map(|name| crate::topic::ShareName::parse(&name).expect("a valid name")),
            filter: TopicFilter::parse(&text).expect("a valid filter"),
        }
    })
}

fn delivery() -> impl Strategy<Value = Delivery> {
    prop_oneof![
        Just(Delivery::AtMostOnce),
        packet_id().prop_map(Delivery::AtLeastOnce),
        packet_id().prop_map(Delivery::ExactlyOnce),
    ]
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>().prop_map(PacketId)
}

fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    (1..=MAX_REMAINING_LENGTH as u32).prop_filter_map("in range", SubscriptionId::new)
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

fn retain_handling() -> impl Strategy<Value = RetainHandling> {
    prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend),
    ]
}
