//! Our codec against another that shares no line with it: the same meaning, the same bytes, and the
//! same verdict, but for what the tables below name.
//!
//! Invariant: a disagreement is in a table, with what decides it, or fails.

use std::collections::BTreeSet;

use mqtt_protocol_core::mqtt::packet::GenericPacketTrait;
use proptest::{
    collection::vec, prelude::*, sample::Index, strategy::ValueTree, test_runner::TestRunner,
};

use super::{
    peer::{self, Form, Peer},
    properties::{expect, packet, version},
    *,
};

/// Packets among which every property is looked for: some hundred of each type and version.
const SAMPLES: usize = 3_000;

/// A packet that the other codec takes and we refuse.
struct Refused {
    fault: Fault,
    sender: Sender,
    /// `None` where a CONNECT is awaited.
    version: Option<Version>,
    bytes: &'static str,
    /// Where the specification says that we are right, if the fault has no statement that does.
    decides: &'static str,
}

const fn refused(
    fault: Fault,
    sender: Sender,
    version: Option<Version>,
    bytes: &'static str,
    decides: &'static str,
) -> Refused {
    Refused {
        fault,
        sender,
        version,
        bytes,
        decides,
    }
}

const V3: Option<Version> = Some(Version::V3);
const V5: Option<Version> = Some(Version::V5);

/// Every fault for which it is the more lenient one.
const WE_REFUSE: &[Refused] = &[
    // Its connection judges these, not its parsers.
    refused(Fault::NotConnectFirst, Sender::Client, None, "c0 00", ""),
    refused(
        Fault::SecondConnect,
        Sender::Client,
        V3,
        r#"10 0c 0004 "MQTT" 04 02 0000 0000"#,
        "",
    ),
    refused(
        Fault::WrongDirection,
        Sender::Client,
        V5,
        "d0 00",
        "table 2-1",
    ),
    // It does not look at these.
    refused(Fault::ReservedFlags, Sender::Client, V5, "c1 00", ""),
    refused(Fault::LengthNotMinimal, Sender::Client, V5, "c0 80 00", ""),
    refused(
        Fault::NullCharacter,
        Sender::Client,
        V5,
        "a2 06 0001 00 0001 00",
        "",
    ),
    refused(Fault::ZeroPacketId, Sender::Server, V3, "90 03 0000 80", ""),
    refused(
        Fault::TrailingBytes,
        Sender::Client,
        V3,
        "40 03 0001 00",
        "3.1.1, figure 3.13: the remaining length of PUBACK is 2",
    ),
    refused(
        Fault::Truncated,
        Sender::Client,
        V5,
        r#"30 03 0001 "a""#,
        "5.0, 2.2.2.1: without properties, a property length of zero says so",
    ),
    refused(
        Fault::ConnectReservedFlag,
        Sender::Client,
        None,
        r#"10 0c 0004 "MQTT" 04 03 0000 0000"#,
        "",
    ),
    refused(
        Fault::WillQosWithoutWill,
        Sender::Client,
        None,
        r#"10 0c 0004 "MQTT" 04 0a 0000 0000"#,
        "",
    ),
    refused(
        Fault::WillQos,
        Sender::Client,
        None,
        r#"10 11 0004 "MQTT" 04 1e 0000 0000 0001 "w" 0000"#,
        "",
    ),
    refused(
        Fault::WillRetainWithoutWill,
        Sender::Client,
        None,
        r#"10 0c 0004 "MQTT" 04 22 0000 0000"#,
        "",
    ),
    refused(
        Fault::DataWithoutMethod,
        Sender::Client,
        None,
        r#"10 11 0004 "MQTT" 05 02 0000 04 16 0001 aa 0000"#,
        "5.0, 3.1.2.11.10: data without a method is a protocol error",
    ),
    refused(
        Fault::NoAuthenticationMethod,
        Sender::Client,
        V5,
        "f0 02 00 00",
        "5.0, 3.15.2.2.2: to omit the method is a protocol error",
    ),
    refused(
        Fault::ConnAckFlags,
        Sender::Server,
        V3,
        "20 02 02 00",
        "3.1.1, 3.2.2.1: bits 7 to 1 are reserved and must be 0",
    ),
    refused(
        Fault::SessionPresentOnFailure,
        Sender::Server,
        V3,
        "20 02 01 05",
        "",
    ),
    refused(
        Fault::DupAtQos0,
        Sender::Client,
        V3,
        r#"38 03 0001 "a""#,
        "",
    ),
    refused(Fault::EmptyTopic, Sender::Client, V3, "30 02 0000", ""),
    refused(
        Fault::WildcardInTopic,
        Sender::Client,
        V3,
        r#"30 03 0001 "+""#,
        "",
    ),
    refused(
        Fault::WildcardInResponseTopic,
        Sender::Client,
        V5,
        r##"30 08 0001 "a" 04 08 0001 "#""##,
        "",
    ),
    refused(
        Fault::SubscriptionIdFromClient,
        Sender::Client,
        V5,
        r#"30 06 0001 "a" 02 0b 01"#,
        "",
    ),
    refused(
        Fault::EmptyFilter,
        Sender::Client,
        V3,
        "82 05 0001 0000 00",
        "",
    ),
    refused(
        Fault::MisplacedHash,
        Sender::Client,
        V3,
        r##"82 07 0001 0002 "a#" 00"##,
        "",
    ),
    refused(
        Fault::MisplacedPlus,
        Sender::Client,
        V3,
        r#"82 07 0001 0002 "a+" 00"#,
        "",
    ),
    refused(
        Fault::ShareInvalid,
        Sender::Client,
        V3,
        r#"82 0e 0001 0009 "$share//a" 00"#,
        "3.1.1 knows no shared subscriptions; where we offer them, it is by the rules of 5.0",
    ),
    refused(
        Fault::ReservedOptions,
        Sender::Client,
        V3,
        r#"82 06 0001 0001 "a" 04"#,
        "",
    ),
    refused(
        Fault::NoLocalOnShared,
        Sender::Client,
        V5,
        r#"82 10 0001 00 000a "$share/g/a" 04"#,
        "",
    ),
    refused(
        Fault::SessionExpiryFromServer,
        Sender::Server,
        V5,
        "e0 07 00 05 11 00000001",
        "",
    ),
    refused(
        Fault::ServerReferenceFromClient,
        Sender::Client,
        V5,
        r#"e0 06 9c 04 1c 0001 "a""#,
        "5.0, 3.14.2.2.5: a server sends it",
    ),
];

/// Why the other codec refuses this packet, which the specification allows.
fn they_refuse(packet: &Packet) -> Option<&'static str> {
    match packet {
        Packet::Connect(connect) if connect.password.is_some() && connect.user_name.is_none() => {
            Some("5.0, 3.1.2.9: a password may come without a user name")
        }
        Packet::Disconnect(packet) if packet.reason == ReasonCode::BadAuthenticationMethod => {
            Some("5.0, table 2-6: 0x8c is a reason of DISCONNECT, though table 3-10 leaves it out")
        }
        _ => None,
    }
}

#[test]
fn every_leniency_of_the_other_codec_has_a_packet_and_what_decides() {
    let mut stale = Vec::new();
    for row in WE_REFUSE {
        let expect = Expect {
            sender: row.sender,
            version: row.version,
            max_packet_size: AMPLE,
        };
        let bytes = parse(row.bytes);
        let ours = decode(&mut BytesMut::from(&bytes[..]), expect);
        let theirs = peer::read(&bytes, row.version.unwrap_or(Version::V5));
        let refused = ours.as_ref().is_err_and(|error| error.fault == row.fault);
        if !refused || !matches!(theirs, Some(Ok(_))) {
            stale.push(format!("{:?}: {ours:?}, {theirs:?}", row.fault));
        }
        let statement = ours.is_err_and(|error| error.statement().is_some());
        assert!(statement || !row.decides.is_empty(), "{:?}", row.fault);
    }
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

proptest! {
    #[test]
    fn both_codecs_write_the_same_bytes_and_read_the_same_meaning(
        (version, packet) in versions_and_packets(),
    ) {
        let mut ours = BytesMut::new();
        prop_assert_eq!(encode(&packet, version, &mut ours), Ok(()));
        let read = peer::read(&ours, version).expect("it is whole");
        if let Some(allowed) = they_refuse(&packet) {
            prop_assert!(read.is_err(), "no longer refused: {}", allowed);
            return Ok(());
        }
        let read = read.expect("a valid packet");
        let built = peer::build(&packet, version, Form::Ours).expect("a valid packet");
        prop_assert_eq!(&read, &built);
        prop_assert_eq!(&built.to_continuous_buffer(), &ours);
        prop_assert_eq!(&read.to_continuous_buffer(), &ours);

        for form in [Form::WithReason, Form::Whole] {
            let built = peer::build(&packet, version, form).expect("a valid packet");
            let mut theirs = BytesMut::from(&built.to_continuous_buffer()[..]);
            let read = decode(&mut theirs, expect(&packet, version));
            prop_assert_eq!(&read, &Ok(Some(packet.clone())));
            prop_assert!(theirs.is_empty());
        }
    }

    #[test]
    fn both_codecs_judge_damaged_packets_alike(
        (version, packet) in versions_and_packets(),
        edits in vec(edit(), 1..4),
        kept in any::<Index>(),
        framed_anew in prop::bool::weighted(0.8),
    ) {
        let mut bytes = BytesMut::new();
        prop_assert_eq!(encode(&packet, version, &mut bytes), Ok(()));
        let bytes = damage(&bytes, &edits, framed_anew);
        judge(&bytes, version, expect(&packet, version));
        judge(&bytes[..kept.index(bytes.len() + 1)], version, expect(&packet, version));
    }
}

/// Which properties stand where, from table 2-4 of 5.0.
const TABLE_2_4: &[(PacketType, &[u8])] = &[
    (
        PacketType::Connect,
        &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27],
    ),
    (
        PacketType::ConnAck,
        &[
            0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27,
            0x28, 0x29, 0x2a,
        ],
    ),
    (
        PacketType::Publish,
        &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23, 0x26],
    ),
    (PacketType::PubAck, &[0x1f, 0x26]),
    (PacketType::PubRec, &[0x1f, 0x26]),
    (PacketType::PubRel, &[0x1f, 0x26]),
    (PacketType::PubComp, &[0x1f, 0x26]),
    (PacketType::Subscribe, &[0x0b, 0x26]),
    (PacketType::SubAck, &[0x1f, 0x26]),
    (PacketType::Unsubscribe, &[0x26]),
    (PacketType::UnsubAck, &[0x1f, 0x26]),
    (PacketType::Disconnect, &[0x11, 0x1c, 0x1f, 0x26]),
    (PacketType::Auth, &[0x15, 0x16, 0x1f, 0x26]),
];
const OF_WILLS: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26];

#[test]
fn the_generated_packets_hold_every_property_where_it_may_stand() {
    let mut runner = TestRunner::deterministic();
    let strategy = versions_and_packets();
    let (mut seen, mut of_wills, mut types) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for _ in 0..SAMPLES {
        let (version, packet) = strategy.new_tree(&mut runner).unwrap().current();
        let packet_type = packet.packet_type() as u8;
        types.insert((version == Version::V5, packet_type));
        let mut bytes = BytesMut::new();
        encode(&packet, version, &mut bytes).unwrap();
        if they_refuse(&packet).is_some() {
            continue;
        }
        let read = peer::read(&bytes, version).unwrap().unwrap();
        let (own, will) = peer::identifiers(&read);
        seen.extend(own.into_iter().map(|property| (packet_type, property)));
        of_wills.extend(will);
    }
    let table = TABLE_2_4.iter().flat_map(|(packet, properties)| {
        let packet = *packet as u8;
        properties.iter().map(move |property| (packet, *property))
    });
    assert_eq!(seen, table.collect());
    assert_eq!(of_wills, OF_WILLS.iter().copied().collect());
    let of_v3 = (1..=14).map(|packet| (false, packet));
    let of_v5 = (1..=15).map(|packet| (true, packet));
    assert_eq!(types, of_v3.chain(of_v5).collect());
}

fn judge(bytes: &[u8], version: Version, expect: Expect) {
    let theirs = peer::read(bytes, version);
    let mut input = BytesMut::from(bytes);
    match (decode(&mut input, expect), theirs) {
        // What the first bytes forbid we refuse before the rest has come.
        (Ok(None), None) | (Err(_), None | Some(Err(_))) => {}
        (Err(refused), Some(Ok(_))) => {
            let named = WE_REFUSE.iter().any(|row| row.fault == refused.fault);
            assert!(
                named,
                "the other codec takes this, we say {refused}: {bytes:02x?}"
            );
        }
        (Ok(Some(ours)), Some(Err(error))) => {
            let named = they_refuse(&ours).is_some();
            assert!(
                named,
                "the other codec says {error}, we take {ours:?}: {bytes:02x?}"
            );
        }
        (Ok(Some(ours)), Some(Ok(theirs))) => assert_same(&ours, &theirs, version),
        (ours, theirs) => panic!("{ours:?} is not {theirs:?}: {bytes:02x?}"),
    }
}

/// The same meaning, though properties may stand in any order.
fn assert_same(ours: &Packet, theirs: &Peer, version: Version) {
    let version = match ours {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let sorted = |packet: &Peer| {
        let mut bytes = packet.to_continuous_buffer();
        bytes.sort_unstable();
        bytes
    };
    let forms = [Form::Ours, Form::WithReason, Form::Whole];
    let builds = forms.map(|form| peer::build(ours, version, form));
    let same = builds
        .iter()
        .flatten()
        .any(|built| sorted(built) == sorted(theirs));
    assert!(same, "{ours:?} is not {theirs:?}");
}

fn versions_and_packets() -> impl Strategy<Value = (Version, Packet)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}

/// One change to a packet's bytes.
#[derive(Debug, Clone)]
enum Edit {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    /// The bytes between two places once more.
    Repeat(Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    // Any byte, or one that means something somewhere.
    let telling = b"\x00\x01\x02\x03\x04\x05\x0b\x12\x15\x16\x23\x26\x7f\x80\xff+#/$";
    let byte = || prop_oneof![any::<u8>(), prop::sample::select(&telling[..])];
    prop_oneof![
        4 => (any::<Index>(), byte()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        1 => (any::<Index>(), byte()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        1 => any::<Index>().prop_map(Edit::Remove),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::Repeat(from, to)),
    ]
}

/// Changes the bytes; or the body alone, whose length is then written as it is.
fn damage(bytes: &[u8], edits: &[Edit], framed_anew: bool) -> Vec<u8> {
    let length_bytes = bytes[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let mut changed = if framed_anew {
        bytes[1 + length_bytes..].to_vec()
    } else {
        bytes.to_vec()
    };
    for edit in edits {
        let length = changed.len();
        match edit {
            Edit::Insert(at, byte) => changed.insert(at.index(length + 1), *byte),
            _ if changed.is_empty() => {}
            Edit::Set(at, byte) => changed[at.index(length)] = *byte,
            Edit::Remove(at) => drop(changed.remove(at.index(length))),
            Edit::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let repeated = changed[from.min(to)..from.max(to)].to_vec();
                changed.splice(from.max(to)..from.max(to), repeated);
            }
        }
    }
    if framed_anew {
        let mut head = vec![bytes[0]];
        let mut left = changed.len();
        while left >= 0x80 {
            head.push(left as u8 | 0x80);
            left >>= 7;
        }
        head.push(left as u8);
        changed.splice(0..0, head);
    }
    changed
}
