//! Every fault, shown by bytes that have it.

use super::*;

const MAX: usize = 2_000;

type Example = (Expect, String, Fault);

fn examples() -> Vec<Example> {
    [
        fixed_headers(),
        connects(),
        messages(),
        subscriptions(),
        from_servers(),
        floods(),
    ]
    .concat()
}

/// Puts one expectation to many bytes.
fn all(expect: Expect, rows: &[(&str, Fault)]) -> Vec<Example> {
    rows.iter()
        .map(|(bytes, fault)| (expect, (*bytes).to_owned(), *fault))
        .collect()
}

fn v3() -> Expect {
    Expect::from_client(Version::V3, MAX)
}

fn v5() -> Expect {
    Expect::from_client(Version::V5, MAX)
}

fn fixed_headers() -> Vec<Example> {
    let mut rows = all(
        Expect::connect(MAX),
        &[
            // Nothing but CONNECT, however much is promised, and before any of it has come.
            ("c0", Fault::NotConnectFirst),
            ("00", Fault::NotConnectFirst),
            ("30 ff ff ff 7f", Fault::NotConnectFirst),
            ("82", Fault::NotConnectFirst),
            ("16 03 01", Fault::ReservedFlags),
            ("10 ff ff ff 7f", Fault::PacketTooLarge),
            ("10 ff ff ff ff", Fault::LengthTooLong),
        ],
    );
    rows.extend(all(
        v5(),
        &[
            ("00", Fault::UnknownType),
            ("10", Fault::SecondConnect),
            ("20", Fault::WrongDirection),
            ("90", Fault::WrongDirection),
            ("b0", Fault::WrongDirection),
            ("d0", Fault::WrongDirection),
            ("41", Fault::ReservedFlags),
            ("58", Fault::ReservedFlags),
            ("60", Fault::ReservedFlags),
            ("66", Fault::ReservedFlags),
            ("72", Fault::ReservedFlags),
            ("80", Fault::ReservedFlags),
            ("a0", Fault::ReservedFlags),
            ("c1", Fault::ReservedFlags),
            ("e4", Fault::ReservedFlags),
            ("f1", Fault::ReservedFlags),
            ("c0 80 00", Fault::LengthNotMinimal),
            ("c0 80 80 80 80 01", Fault::LengthTooLong),
            ("30 d0 0f", Fault::PacketTooLarge),
            ("c0 01", Fault::TrailingBytes),
        ],
    ));
    rows.extend(all(
        v3(),
        &[
            ("f0", Fault::AuthInV3),
            ("40 03", Fault::TrailingBytes),
            ("e0 01", Fault::TrailingBytes),
        ],
    ));
    rows
}

fn connects() -> Vec<Example> {
    all(
        Expect::connect(MAX),
        &[
            ("10 00", Fault::Truncated),
            (r#"10 06 0004 "MQTT""#, Fault::Truncated),
            (r#"10 0c 0004 "MQTT" 04 02 003c 0001"#, Fault::Truncated),
            (
                r#"10 0e 0006 "MQIsdp" 03 02 003c 0000"#,
                Fault::ProtocolName,
            ),
            (r#"10 0c 0004 "mqtt" 04 02 003c 0000"#, Fault::ProtocolName),
            (
                r#"10 0c 0004 "MQTT" 03 02 003c 0000"#,
                Fault::ProtocolVersion,
            ),
            (
                r#"10 0c 0004 "MQTT" 06 02 003c 0000"#,
                Fault::ProtocolVersion,
            ),
            (
                r#"10 0c 0004 "MQTT" 84 02 003c 0000"#,
                Fault::ProtocolVersion,
            ),
            (
                r#"10 0c 0004 "MQTT" 04 03 003c 0000"#,
                Fault::ConnectReservedFlag,
            ),
            (
                r#"10 0c 0004 "MQTT" 04 0a 003c 0000"#,
                Fault::WillQosWithoutWill,
            ),
            (r#"10 0c 0004 "MQTT" 04 1e 003c 0000"#, Fault::WillQos),
            (
                r#"10 0c 0004 "MQTT" 04 22 003c 0000"#,
                Fault::WillRetainWithoutWill,
            ),
            (
                r#"10 0f 0004 "MQTT" 04 42 003c 0000 0001 70"#,
                Fault::PasswordWithoutUserName,
            ),
            (r#"10 0c 0004 "MQTT" 04 82 003c 0000"#, Fault::Truncated),
            (
                r#"10 0d 0004 "MQTT" 04 02 003c 0000 00"#,
                Fault::TrailingBytes,
            ),
            (r#"10 0d 0004 "MQTT" 04 02 003c 0001 ff"#, Fault::NotUtf8),
            (
                r#"10 0f 0004 "MQTT" 04 02 003c 0003 eda080"#,
                Fault::NotUtf8,
            ),
            (r#"10 0e 0004 "MQTT" 04 02 003c 0002 c080"#, Fault::NotUtf8),
            (
                r#"10 0d 0004 "MQTT" 04 02 003c 0001 00"#,
                Fault::NullCharacter,
            ),
            // The will: empty topic, wildcard, missing payload.
            (
                r#"10 10 0004 "MQTT" 04 06 003c 0000 0000 0000"#,
                Fault::EmptyTopic,
            ),
            (
                r#"10 11 0004 "MQTT" 04 06 003c 0000 0001 23 0000"#,
                Fault::WildcardInTopic,
            ),
            (
                r#"10 0f 0004 "MQTT" 04 06 003c 0000 0001 "w""#,
                Fault::Truncated,
            ),
            // Properties of 5.0.
            (
                r#"10 0d 0004 "MQTT" 05 02 003c 05 0000"#,
                Fault::PropertyLength,
            ),
            (
                r#"10 0e 0004 "MQTT" 05 02 003c 8000 0000"#,
                Fault::LengthNotMinimal,
            ),
            (
                r#"10 0e 0004 "MQTT" 05 02 003c 01 7f 0000"#,
                Fault::UnknownProperty,
            ),
            (
                r#"10 0f 0004 "MQTT" 05 02 003c 02 0101 0000"#,
                Fault::PropertyNotAllowed,
            ),
            (
                r#"10 11 0004 "MQTT" 05 02 003c 04 1700 1700 0000"#,
                Fault::DuplicateProperty,
            ),
            (
                r#"10 0f 0004 "MQTT" 05 02 003c 02 1702 0000"#,
                Fault::PropertyValue,
            ),
            (
                r#"10 10 0004 "MQTT" 05 02 003c 03 210000 0000"#,
                Fault::PropertyValue,
            ),
            (
                r#"10 12 0004 "MQTT" 05 02 003c 05 2700000000 0000"#,
                Fault::PropertyValue,
            ),
            (
                r#"10 0e 0004 "MQTT" 05 02 003c 01 11 0000"#,
                Fault::Truncated,
            ),
            (
                r#"10 10 0004 "MQTT" 05 02 003c 03 160000 0000"#,
                Fault::DataWithoutMethod,
            ),
            (
                r#"10 16 0004 "MQTT" 05 06 003c 00 0000 03 080000 0001 "w" 0000"#,
                Fault::WildcardInResponseTopic,
            ),
            (
                r#"10 18 0004 "MQTT" 05 06 003c 00 0000 05 1100000000 0001 "w" 0000"#,
                Fault::PropertyNotAllowed,
            ),
        ],
    )
}

fn messages() -> Vec<Example> {
    let mut rows = all(
        v5(),
        &[
            (r#"36 08 0001 "a" 0001 00 "hi""#, Fault::PublishQos),
            (r#"38 04 0001 "a" 00"#, Fault::DupAtQos0),
            ("30 03 0000 00", Fault::EmptyTopic),
            (r#"30 06 0003 "a/+" 00"#, Fault::WildcardInTopic),
            (r#"30 04 0001 23 00"#, Fault::WildcardInTopic),
            (r#"32 06 0001 "a" 0000 00"#, Fault::ZeroPacketId),
            (r#"32 04 0001 "a" 00"#, Fault::Truncated),
            (r#"32 03 0001 "a""#, Fault::Truncated),
            (r#"30 03 0001 "a""#, Fault::Truncated),
            (r#"30 03 0009 "a""#, Fault::Truncated),
            ("30 01 00", Fault::Truncated),
            ("30 00", Fault::Truncated),
            (r#"30 07 0001 "a" 03 23 0000"#, Fault::ZeroTopicAlias),
            (
                r#"30 08 0001 "a" 04 08 0001 "+""#,
                Fault::WildcardInResponseTopic,
            ),
            (
                r#"30 06 0001 "a" 02 0b 01"#,
                Fault::SubscriptionIdFromClient,
            ),
            (r#"30 08 0001 "a" 04 01 00 01 00"#, Fault::DuplicateProperty),
            (r#"30 06 0001 "a" 02 01 02"#, Fault::PropertyValue),
            (r#"30 06 0001 "a" 02 24 01"#, Fault::PropertyNotAllowed),
            (r#"30 07 0001 "a" 03 18 0000"#, Fault::PropertyNotAllowed),
            (r#"30 08 0001 "a" 04 26 0001 "k""#, Fault::Truncated),
            ("40 00", Fault::Truncated),
            ("40 01 00", Fault::Truncated),
            ("40 02 0000", Fault::ZeroPacketId),
            ("50 02 0000", Fault::ZeroPacketId),
            ("62 02 0000", Fault::ZeroPacketId),
            ("70 02 0000", Fault::ZeroPacketId),
            ("40 03 0001 92", Fault::UnknownReason),
            ("62 03 0001 87", Fault::UnknownReason),
            ("70 03 0001 03", Fault::UnknownReason),
            ("40 05 0001 00 00 00", Fault::TrailingBytes),
            ("40 06 0001 00 02 01 00", Fault::PropertyNotAllowed),
            ("e0 01 01", Fault::UnknownReason),
            (
                r#"e0 06 9d 04 1c 0001 "s""#,
                Fault::ServerReferenceFromClient,
            ),
            ("e0 03 00 00 00", Fault::TrailingBytes),
            ("f0 01 18", Fault::Truncated),
            ("f0 02 18 00", Fault::NoAuthenticationMethod),
            ("f0 05 18 03 16 0000", Fault::DataWithoutMethod),
            (r#"f0 06 80 04 15 0001 "X""#, Fault::UnknownReason),
        ],
    );
    rows.extend(all(
        v3(),
        &[
            ("30 02 0000", Fault::EmptyTopic),
            (r#"32 05 0001 "a" 0000"#, Fault::ZeroPacketId),
            (r#"36 05 0001 "a" 0001"#, Fault::PublishQos),
            ("40 00", Fault::Truncated),
        ],
    ));
    rows
}

fn subscriptions() -> Vec<Example> {
    let mut rows = all(
        v5(),
        &[
            ("82 00", Fault::Truncated),
            ("82 03 0001 00", Fault::NoFilters),
            (r#"82 07 0000 00 0001 "a" 00"#, Fault::ZeroPacketId),
            (r#"82 06 0001 00 0001 "a""#, Fault::Truncated),
            ("82 06 0001 00 0000 00", Fault::EmptyFilter),
            (r#"82 08 0001 00 0002 "a#" 00"#, Fault::MisplacedHash),
            (r#"82 09 0001 00 0003 23 "/a" 00"#, Fault::MisplacedHash),
            (r#"82 08 0001 00 0002 "a+" 00"#, Fault::MisplacedPlus),
            (r#"82 0e 0001 00 0008 "$share/g" 00"#, Fault::ShareInvalid),
            (r#"82 0f 0001 00 0009 "$share//a" 00"#, Fault::ShareInvalid),
            (r#"82 10 0001 00 000a "$share/+/a" 00"#, Fault::ShareInvalid),
            (r#"82 07 0001 00 0001 "a" 40"#, Fault::ReservedOptions),
            (r#"82 07 0001 00 0001 "a" 80"#, Fault::ReservedOptions),
            (r#"82 07 0001 00 0001 "a" 03"#, Fault::SubscribeQos),
            (r#"82 07 0001 00 0001 "a" 30"#, Fault::RetainHandling),
            (
                r#"82 10 0001 00 000a "$share/g/a" 04"#,
                Fault::NoLocalOnShared,
            ),
            (r#"82 09 0001 02 0b00 0001 "a" 00"#, Fault::PropertyValue),
            (
                r#"82 0b 0001 04 0b01 0b02 0001 "a" 00"#,
                Fault::DuplicateProperty,
            ),
            (
                r#"82 09 0001 02 0101 0001 "a" 00"#,
                Fault::PropertyNotAllowed,
            ),
            ("a2 03 0001 00", Fault::NoFiltersToEnd),
            (r#"a2 06 0000 00 0001 "a""#, Fault::ZeroPacketId),
            ("a2 05 0001 00 0000", Fault::EmptyFilter),
            (r#"a2 08 0001 02 0b01 0001 "a""#, Fault::PropertyNotAllowed),
        ],
    );
    rows.extend(all(
        v3(),
        &[
            ("82 02 0001", Fault::NoFilters),
            ("a2 02 0001", Fault::NoFiltersToEnd),
            (r#"82 06 0001 0001 "a" 04"#, Fault::ReservedOptions),
            (r#"82 06 0001 0001 "a" 03"#, Fault::SubscribeQos),
            (r#"82 05 0001 0001 "a""#, Fault::Truncated),
        ],
    ));
    rows
}

fn from_servers() -> Vec<Example> {
    let mut rows = all(
        Expect::from_server(Version::V5, MAX),
        &[
            ("10", Fault::WrongDirection),
            ("82", Fault::WrongDirection),
            ("20 03 02 00 00", Fault::ConnAckFlags),
            ("20 03 01 87 00", Fault::SessionPresentOnFailure),
            ("20 03 00 04 00", Fault::UnknownReason),
            ("20 05 00 00 02 24 02", Fault::PropertyValue),
            ("90 03 0001 00", Fault::NoReasons),
            ("90 04 0001 00 03", Fault::UnknownReason),
            ("b0 03 0001 00", Fault::NoReasons),
            ("e0 07 00 05 11 00000000", Fault::SessionExpiryFromServer),
        ],
    );
    rows.extend(all(
        Expect::from_server(Version::V3, MAX),
        &[
            ("e0", Fault::WrongDirection),
            ("20 02 00 06", Fault::UnknownReason),
            ("90 03 0001 87", Fault::UnknownReason),
        ],
    ));
    rows
}

/// One more than each maximum.
fn floods() -> Vec<Example> {
    // In three bytes, for which everything below is long enough.
    let varint = |value: usize| {
        let (low, high) = (value % 128 + 128, value / 128 % 128 + 128);
        format!("{low:02x}{high:02x}{:02x}", value / 16_384)
    };
    let filler = r#"03 2000 "#.to_owned() + &"78".repeat(0x2000);
    let publish = |properties: String| {
        let block = format!("{filler}{properties}");
        let body = format!(r#"0001 "a" {} {block}"#, varint(parse(&block).len()));
        format!("30 {} {body}", varint(parse(&body).len()))
    };
    let user_properties = r#"26 0010 "nnnnnnnnnnnnnnnn" 0010 "vvvvvvvvvvvvvvvv" "#;
    let filters = |per_filter: &str| {
        let body = format!("0001 00 {}", per_filter.repeat(MAX_FILTERS + 1));
        (varint(parse(&body).len()), body)
    };
    let subscribe = filters(r#"000d "aaaaaaaaaaaaa" 00"#);
    let unsubscribe = filters(r#"000e "aaaaaaaaaaaaaa""#);
    let client = Expect::from_client(Version::V5, AMPLE);
    vec![
        (
            client,
            publish(user_properties.repeat(MAX_USER_PROPERTIES + 1)),
            Fault::TooManyUserProperties,
        ),
        (
            Expect::from_server(Version::V5, AMPLE),
            publish("0b ffffff7f".repeat(MAX_SUBSCRIPTION_IDS * 2)),
            Fault::TooManySubscriptionIds,
        ),
        (
            client,
            format!("82 {} {}", subscribe.0, subscribe.1),
            Fault::TooManyFilters,
        ),
        (
            client,
            format!("a2 {} {}", unsubscribe.0, unsubscribe.1),
            Fault::TooManyFilters,
        ),
    ]
}

#[test]
fn every_example_is_refused_for_its_fault() {
    for (expect, bytes, fault) in examples() {
        let mut input = BytesMut::from(&parse(&bytes)[..]);
        let read = decode(&mut input, expect);
        let shown = &bytes[..bytes.len().min(80)];
        assert_eq!(
            read.map_err(|error| error.fault),
            Err(fault),
            "{expect:?} {shown}"
        );
    }
}

#[test]
fn every_fault_has_an_example() {
    let shown: Vec<Fault> = examples().into_iter().map(|(_, _, fault)| fault).collect();
    for fault in Fault::ALL {
        assert!(shown.contains(fault), "{fault:?} is shown by no example");
    }
}

#[test]
fn every_statement_is_written_as_the_specifications_number_them() {
    for fault in Fault::ALL {
        let both = [Version::V3, Version::V5].map(|version| fault.statement(version));
        for statement in both.into_iter().flatten() {
            let numbers = statement.strip_prefix("MQTT-").unwrap_or_default();
            let parts: Vec<&str> = numbers.split(['.', '-']).collect();
            let numbered = parts.iter().all(|part| part.parse::<u8>().is_ok());
            assert!(parts.len() == 4 && numbered, "{fault:?}: {statement}");
        }
    }
}

#[test]
fn every_fault_is_answered_by_a_reason_that_conn_ack_or_disconnect_may_carry() {
    for fault in Fault::ALL {
        let reason = fault.reason();
        assert!(
            reason.allowed_in(PacketType::Disconnect) || reason.allowed_in(PacketType::ConnAck),
            "{fault:?}"
        );
    }
}

#[test]
fn an_error_names_packet_fault_and_statement() {
    let mut input = BytesMut::from(&parse(r#"32 06 0001 "a" 0000 00"#)[..]);
    let error = decode(&mut input, v5()).expect_err("a packet identifier of zero");
    assert_eq!(
        error.to_string(),
        "PUBLISH: the packet identifier is zero [MQTT-2.2.1-3]"
    );
    assert_eq!(error.reason(), ReasonCode::ProtocolError);
    let mut input = BytesMut::from(&parse(r#"32 05 0001 "a" 0000"#)[..]);
    let error = decode(&mut input, v3()).expect_err("a packet identifier of zero");
    assert_eq!(error.statement(), Some("MQTT-2.3.1-1"));
}

#[test]
fn a_refused_connect_is_answered_in_the_version_it_claims() {
    let rows = [
        (r#"10 0e 0006 "MQIsdp" 03 02 003c 0000"#, Version::V3),
        (r#"10 0c 0004 "MQTT" 03 02 003c 0000"#, Version::V3),
        (r#"10 0c 0004 "MQTT" 04 03 003c 0000"#, Version::V3),
        (r#"10 0c 0004 "MQTT" 05 03 003c 0000"#, Version::V5),
        (r#"10 0c 0004 "MQTT" 06 02 003c 0000"#, Version::V5),
        ("10 00", Version::V5),
    ];
    for (bytes, version) in rows {
        let mut input = BytesMut::from(&parse(bytes)[..]);
        let error = decode(&mut input, Expect::connect(MAX)).expect_err("a refusal");
        assert_eq!(error.version, version, "{bytes}");
    }
}

#[test]
fn bytes_after_a_refused_connect_do_not_change_whom_it_is_answered() {
    let refused = |bytes: &str| {
        decode(
            &mut BytesMut::from(&parse(bytes)[..]),
            Expect::connect(AMPLE),
        )
    };
    let alone = refused("10 00");
    assert!(alone.is_err());
    assert_eq!(refused("10 00 0000 00"), alone);
}

#[test]
fn a_packet_of_exactly_the_maximum_size_is_taken() {
    let bytes = parse(r#"30 04 0001 "a" 00"#);
    let mut input = BytesMut::from(&bytes[..]);
    assert!(decode(&mut input, Expect::from_client(Version::V5, 6)).is_ok());
    let mut input = BytesMut::from(&bytes[..]);
    let error = decode(&mut input, Expect::from_client(Version::V5, 5)).expect_err("too large");
    assert_eq!(error.reason(), ReasonCode::PacketTooLarge);
}

#[test]
fn control_characters_and_the_byte_order_mark_pass_in_strings() {
    let mut input = BytesMut::from(&parse("30 08 0005 01 7f efbbbf 00")[..]);
    let Ok(Some(Packet::Publish(packet))) = decode(&mut input, v5()) else {
        panic!("MQTT-1.5.4-3 and the text above it allow these");
    };
    assert_eq!(packet.topic, Some(topic("\u{1}\u{7f}\u{feff}")));
}
