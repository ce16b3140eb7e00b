//! Bytes that are no packets, or not yet, or not from a client.

use broker_lite::packet::{Packet, ReasonCode, Version};

use crate::{
    bytes_on_the_wire::{Client, End, bytes_of, connect, hex},
    samples,
    victim::Victim,
};

const VERSIONS: [Version; 2] = [Version::V3, Version::V5];

/// Whether the broker said no; how depends on how much of the packet made sense.
fn refused(end: &End) -> bool {
    use ReasonCode::{
        MalformedPacket, PacketTooLarge, ProtocolError, QuotaExceeded, UnsupportedProtocolVersion,
    };
    match end {
        End::Closed => true,
        End::Told(reason) => matches!(
            reason,
            MalformedPacket
                | ProtocolError
                | PacketTooLarge
                | QuotaExceeded
                | UnsupportedProtocolVersion
        ),
    }
}

fn beginning(bytes: &[u8]) -> String {
    format!(
        "{:02x?} … of {} bytes",
        &bytes[..bytes.len().min(40)],
        bytes.len()
    )
}

/// Sends bytes as the first of a connection.
fn refuses_first(victim: &Victim, bytes: &[u8]) {
    let mut client = Client::silent(victim.address());
    client.send_bytes(bytes);
    let end = client.end();
    assert!(refused(&end), "{}: {end:?}", beginning(bytes));
}

/// Sends bytes after CONNECT.
fn refuses(victim: &Victim, version: Version, bytes: &[u8]) {
    let mut client = Client::connected_as(victim.address(), "attacker", version);
    client.send_bytes(bytes);
    let end = client.end();
    assert!(refused(&end), "{version:?} {}: {end:?}", beginning(bytes));
}

#[test]
fn a_connect_cut_short_at_any_byte_is_refused() {
    Victim::open_to_all().survives("half a CONNECT", |victim| {
        for version in VERSIONS {
            let whole = bytes_of(&Packet::Connect(Box::new(connect("c", version))), version);
            for length in 2..whole.len() {
                refuses_first(victim, &samples::cut(&whole, length));
            }
        }
    });
}

/// The rest never comes, or the client is gone: nothing may be left of it.
#[test]
fn a_connection_that_ends_within_a_connect_leaves_nothing() {
    Victim::open_to_all().survives("CONNECT, then gone", |victim| {
        let whole = bytes_of(
            &Packet::Connect(Box::new(connect("c", Version::V5))),
            Version::V5,
        );
        for length in 0..whole.len() {
            for _ in 0..20 {
                Client::silent(victim.address()).send_bytes(&whole[..length]);
            }
        }
    });
}

#[test]
fn every_packet_cut_short_at_any_byte_ends_its_connection_or_is_whole() {
    Victim::open_to_all().survives("truncated packets of every type", |victim| {
        for version in VERSIONS {
            for sample in samples::of_every_type(version) {
                for length in 2..sample.len() {
                    answers_or_ends(victim, version, &samples::cut(&sample, length));
                }
            }
        }
    });
}

#[test]
fn every_packet_with_any_byte_changed_ends_its_connection_or_is_answered() {
    Victim::open_to_all().survives("altered packets of every type", |victim| {
        for version in VERSIONS {
            for sample in samples::of_every_type(version) {
                for at in 0..sample.len() {
                    for change in [0x00, 0x01, 0x80, 0xff] {
                        let mut altered = sample.clone();
                        altered[at] ^= change;
                        answers_or_ends(victim, version, &altered);
                    }
                }
            }
        }
    });
}

/// Either the connection ends, or what follows is served: never a third state.
fn answers_or_ends(victim: &Victim, version: Version, bytes: &[u8]) {
    let mut client = Client::connected_as(victim.address(), "attacker", version);
    client.send_bytes(bytes);
    client.send(&Packet::PingReq);
    client.says_no_more();
    client.end();
}

/// CVE-2023-0809: memory for what an oversized first packet announces.
#[test]
fn a_first_packet_that_is_no_connect_is_refused_before_its_length_is_believed() {
    Victim::open_to_all().survives("CVE-2023-0809", |victim| {
        for first in [
            "30 ff ff ff 7f",
            "82 ff ff ff 7f",
            "c0 00",
            "e0 00",
            "f0 00",
            "00 00",
        ] {
            refuses_first(victim, &hex(first));
        }
    });
}

#[test]
fn a_length_beyond_the_limit_or_the_format_is_refused_at_once() {
    Victim::open_to_all().survives("oversized remaining length", |victim| {
        for connect in ["10 ff ff ff 7f", "10 80 80 80 01", "10 ff ff ff ff 7f"] {
            refuses_first(victim, &hex(connect));
        }
        for version in VERSIONS {
            for packet in [
                "30 ff ff ff 7f",
                "32 ff ff ff ff 01",
                "82 80 80 80 80 01",
                "c0 80 00",
            ] {
                refuses(victim, version, &hex(packet));
            }
        }
    });
}

/// Mosquitto read past the end of such a packet.
#[test]
fn a_subscribe_that_ends_before_its_options_byte_is_refused() {
    Victim::open_to_all().survives("SUBSCRIBE without options", |victim| {
        refuses(victim, Version::V3, &hex("82 05 0001 0001 61"));
        refuses(victim, Version::V5, &hex("82 06 0001 00 0001 61"));
        refuses(victim, Version::V5, &hex("82 03 0001 00"));
        refuses(victim, Version::V3, &hex("82 02 0001"));
    });
}

#[test]
fn a_qos_publish_that_ends_before_its_identifier_is_refused() {
    Victim::open_to_all().survives("PUBLISH without identifier", |victim| {
        for version in VERSIONS {
            for packet in [
                "32 03 0001 61",
                "34 04 0001 61 00",
                "32 05 0001 61 0000",
                "36 05 0001 61 0001",
            ] {
                refuses(victim, version, &hex(packet));
            }
        }
    });
}

/// CVE-2021-28166: a CONNACK from a client crashed the broker.
#[test]
fn packets_that_only_servers_send_are_refused() {
    Victim::open_to_all().survives("CVE-2021-28166", |victim| {
        for version in VERSIONS {
            for packet in [
                "20 03 00 00 00",
                "20 02 00 00",
                "90 04 0001 00 00",
                "b0 02 0001",
                "d0 00",
            ] {
                refuses(victim, version, &hex(packet));
            }
        }
    });
}

/// CVE-2023-3592: properties of a will that the specification does not allow were never freed.
#[test]
fn bad_properties_of_a_will_are_refused_and_leave_nothing() {
    Victim::open_to_all().survives("CVE-2023-3592", |victim| {
        // A will whose properties hold a server keep alive, twice the same delay, a payload format
        // of 2, or end within a string.
        for properties in [
            "03 13 0001",
            "0a 18 00000001 18 00000002",
            "02 01 02",
            "04 03 00ff 61",
        ] {
            let packet = samples::connect_with_will_properties(&hex(properties));
            for _ in 0..200 {
                refuses_first(victim, &packet);
            }
        }
    });
}

#[test]
fn text_that_is_no_utf_8_or_holds_what_mqtt_forbids_is_refused() {
    Victim::open_to_all().survives("UTF-8 tricks", |victim| {
        // U+0000, overlong U+002F, a surrogate, above U+10FFFF, a lone continuation, a cut sequence.
        for text in ["00", "c0 af", "ed a0 80", "f4 90 80 80", "80", "e2 82"] {
            let text = hex(text);
            refuses_first(victim, &samples::connect_with_client_id(&text));
            for version in VERSIONS {
                refuses(victim, version, &samples::publish_to(&text, version));
                refuses(victim, version, &samples::subscribe_to(&text, version));
            }
        }
    });
}

/// A router that cuts topics by bytes stops within a character.
#[test]
fn topics_of_any_characters_are_served() {
    Victim::open_to_all().survives("multi-byte topics", |victim| {
        for topic in [
            "\u{e9}t\u{e9}",
            "\u{1f321}/\u{1f4a7}",
            "/\u{20ac}",
            "\u{10ffff}",
            "\u{feff}bom",
            "a/\u{301}",
        ] {
            Client::connected(victim.address(), "polyglot").round_trip_of_its_own(topic);
        }
    });
}

#[test]
fn thousands_of_user_properties_are_refused() {
    Victim::open_to_all().survives("property bomb", |victim| {
        for count in [257, 5_000, 30_000] {
            refuses(
                victim,
                Version::V5,
                &samples::publish_with_user_properties(count),
            );
            refuses_first(victim, &samples::connect_with_user_properties(count));
        }
    });
}

#[test]
fn topic_aliases_beyond_the_maximum_zero_or_never_set_are_refused() {
    Victim::open_to_all().survives("topic alias abuse", |victim| {
        for alias in [0_u16, 17, 0xffff] {
            let mut client = Client::connected(victim.address(), "attacker");
            client.send_bytes(&samples::publish_with_alias("t", alias));
            let end = client.end();
            assert!(
                matches!(
                    end,
                    End::Told(ReasonCode::TopicAliasInvalid | ReasonCode::ProtocolError)
                ),
                "{alias}: {end:?}"
            );
        }
        let mut client = Client::connected(victim.address(), "attacker");
        client.send_bytes(&samples::publish_with_alias("", 3));
        assert!(
            matches!(client.end(), End::Told(_)),
            "an alias that stands for nothing"
        );
    });
}

#[test]
fn client_identifiers_without_length_or_of_any_length_do_no_harm() {
    Victim::open_to_all().survives("client identifiers", |victim| {
        // Assigned in 5.0; in 3.1.1 only with a clean session.
        Client::connected_as(victim.address(), "", Version::V3);
        Client::connected_as(victim.address(), "", Version::V5);
        let mut client = Client::silent_as(victim.address(), Version::V3);
        client.send_bytes(&hex("10 0c 0004 4d515454 04 00 003c 0000"));
        assert_eq!(client.end(), End::Told(ReasonCode::ClientIdNotValid));
        for length in [1_000, 65_535] {
            let mut client = Client::silent(victim.address());
            client.send_bytes(&samples::connect_with_client_id(&vec![b'c'; length]));
            client.says_no_more();
            assert!(
                matches!(
                    client.end(),
                    End::Closed | End::Told(ReasonCode::ClientIdNotValid)
                ),
                "{length}"
            );
        }
    });
}
