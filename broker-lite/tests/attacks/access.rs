//! Clients that want more than their rules allow.

use std::{fs, os::unix::fs::PermissionsExt};

use broker_lite::{
    packet::{
        Connect, ConnectProperties, Credential, Delivery, Packet, PacketId, QoS, ReasonCode, Text,
        Version, Will,
    },
    topic::TopicName,
};

use crate::{
    bytes_on_the_wire::{Client, End, connect, publish, subscribe},
    victim::Victim,
};

/// Two users: `press` may use what bears its name, `spy` what bears his; `healthy` the rest.
fn with_users() -> Victim {
    let folder = tempfile::tempdir().unwrap();
    let mut config = String::from(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nanonymous = true\n\
         [[access]]\nclient = \"healthy\"\npublish = [\"healthy/#\"]\nsubscribe = [\"healthy/#\"]\n\
         [[access]]\nclient = \"newcomer\"\npublish = [\"healthy/#\"]\nsubscribe = [\"healthy/#\"]\n\
         [[access]]\npublish = [\"own/%u/#\", \"by-id/%c/#\"]\nsubscribe = [\"own/%u/#\", \"by-id/%c/#\"]\n",
    );
    for user in ["press", "spy", "+", "#", "press/#"] {
        let file = folder.path().join(format!("secret-{}", config.len()));
        fs::write(&file, "secret").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        config += &format!(
            "[[user]]\nname = \"{user}\"\npassword = {{ file = \"{}\" }}\n",
            file.display()
        );
    }
    Victim::start(folder, &config)
}

fn connect_of(user: &str, client: &str) -> Connect {
    Connect {
        user_name: Some(Text::parse(user).unwrap()),
        password: Some(Credential(b"secret".to_vec().into())),
        ..connect(client, Version::V5)
    }
}

/// The broker's answer to a CONNECT, and the connection.
fn answer(victim: &Victim, connect: Connect) -> (ReasonCode, Client) {
    let mut client = Client::silent(victim.address());
    client.send(&Packet::Connect(Box::new(connect)));
    match client.next() {
        Ok(Packet::ConnAck(ack)) => (ack.reason, client),
        other => panic!("{other:?}"),
    }
}

fn welcomed(victim: &Victim, user: &str, client: &str) -> Client {
    let (reason, client) = answer(victim, connect_of(user, client));
    assert_eq!(reason, ReasonCode::Success);
    client
}

fn subscribed(client: &mut Client, filter: &str) -> ReasonCode {
    client.send(&Packet::Subscribe(subscribe(filter, QoS::AtLeastOnce)));
    loop {
        if let Packet::SubAck(ack) = client.next().unwrap() {
            return ack.reasons[0];
        }
    }
}

fn published(client: &mut Client, topic: &str) -> ReasonCode {
    let delivery = Delivery::AtLeastOnce(PacketId::new(3).unwrap());
    client.send(&Packet::Publish(publish(topic, delivery, b"x")));
    loop {
        if let Packet::PubAck(ack) = client.next().unwrap() {
            return ack.reason;
        }
    }
}

/// CVE-2018-12543: a topic that begins with `$` but not with `$SYS` ended Mosquitto.
#[test]
fn nobody_publishes_to_topics_that_begin_with_a_dollar() {
    Victim::open_to_all().survives("CVE-2018-12543, $-topics", |victim| {
        for topic in [
            "$x",
            "$",
            "$SYS/broker/version",
            "$SYS",
            "$share/g/t",
            "$/",
            "$queue/a",
        ] {
            let mut client = Client::connected(victim.address(), "pretender");
            assert_eq!(
                published(&mut client, topic),
                ReasonCode::NotAuthorized,
                "{topic}"
            );
        }
    });
}

#[test]
fn a_will_to_a_reserved_or_forbidden_topic_is_refused_at_connect() {
    with_users().survives("will to a reserved topic", |victim| {
        for topic in ["$SYS/broker/version", "$x", "own/press/will", "anywhere"] {
            let will = Will {
                topic: TopicName::parse(topic).unwrap(),
                payload: b"x".to_vec().into(),
                qos: QoS::AtMostOnce,
                retain: true,
                delay_s: None,
                message_expiry_s: None,
                properties: None,
            };
            let connect = Connect {
                will: Some(will),
                ..connect_of("spy", "spy-1")
            };
            assert_eq!(
                answer(victim, connect).0,
                ReasonCode::NotAuthorized,
                "{topic}"
            );
        }
    });
}

#[test]
fn no_filter_reaches_beyond_what_may_be_read() {
    with_users().survives("overlapping and shared filters", |victim| {
        let mut spy = welcomed(victim, "spy", "spy-1");
        for filter in [
            "#",
            "+/press/#",
            "own/#",
            "own/+/#",
            "own/+/secret",
            "own/press/secret",
            "$share/g/#",
            "$share/g/own/press/#",
            "$share/own/spy/#",
            "+/+/+",
            "$SYS/#",
        ] {
            assert_eq!(
                subscribed(&mut spy, filter),
                ReasonCode::NotAuthorized,
                "{filter}"
            );
        }
        for filter in [
            "own/spy/#",
            "own/spy/+",
            "$share/g/own/spy/#",
            "by-id/spy-1/+/x",
        ] {
            assert_ne!(
                subscribed(&mut spy, filter),
                ReasonCode::NotAuthorized,
                "{filter}"
            );
        }
        let mut press = welcomed(victim, "press", "press-1");
        assert_eq!(
            published(&mut press, "own/spy/x"),
            ReasonCode::NotAuthorized
        );
        assert_eq!(
            published(&mut press, "own/press/secret"),
            ReasonCode::NoMatchingSubscribers
        );
        spy.send(&Packet::PingReq);
        assert!(
            matches!(spy.next(), Ok(Packet::PingResp)),
            "nothing reached the spy"
        );
    });
}

/// CVE-2017-7650: a wildcard as user name or client identifier matched every pattern.
#[test]
fn wildcards_in_names_open_nothing() {
    with_users().survives("CVE-2017-7650", |victim| {
        for (user, client) in [
            ("+", "a"),
            ("#", "a"),
            ("press/#", "a"),
            ("spy", "+"),
            ("spy", "#"),
            ("spy", "x/#"),
        ] {
            let (reason, mut connection) = answer(victim, connect_of(user, client));
            if reason != ReasonCode::Success {
                continue;
            }
            for filter in ["own/press/#", "own/press/secret", "by-id/press-1/#"] {
                assert_eq!(
                    subscribed(&mut connection, filter),
                    ReasonCode::NotAuthorized,
                    "{user} {client} {filter}"
                );
            }
            assert_eq!(
                published(&mut connection, "own/press/x"),
                ReasonCode::NotAuthorized
            );
            assert_eq!(
                published(&mut connection, "by-id/press-1/x"),
                ReasonCode::NotAuthorized
            );
        }
    });
}

#[test]
fn nobody_takes_over_the_session_of_another_user() {
    with_users().survives("take-over across identities", |victim| {
        let lasting = Connect {
            properties: ConnectProperties {
                session_expiry_s: Some(3_600),
                ..ConnectProperties::default()
            },
            ..connect_of("press", "press-1")
        };
        let (reason, mut press) = answer(victim, lasting);
        assert_eq!(reason, ReasonCode::Success);
        for attacker in [
            connect_of("spy", "press-1"),
            connect("press-1", Version::V5),
        ] {
            let (reason, mut connection) = answer(victim, attacker);
            assert_eq!(reason, ReasonCode::NotAuthorized);
            assert_eq!(connection.end(), End::Closed);
        }
        press.send(&Packet::PingReq);
        assert!(
            matches!(press.next(), Ok(Packet::PingResp)),
            "the owner stays"
        );
    });
}

/// CVE-2018-12550: an empty access file allowed everything.
#[test]
fn without_any_access_rule_nothing_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "[[access]]\nclient = \"healthy\"\npublish = [\"healthy/#\"]\nsubscribe = [\"healthy/#\"]\n\
                 [[access]]\nclient = \"newcomer\"\npublish = [\"healthy/#\"]\nsubscribe = [\"healthy/#\"]\n\
                 [[access]]\n";
    let config = format!("[[listener]]\naddress = \"127.0.0.1:0\"\nanonymous = true\n{rules}");
    Victim::start(folder, &config).survives("CVE-2018-12550", |victim| {
        let (reason, _) = answer(victim, connect("anybody", Version::V5));
        assert_eq!(reason, ReasonCode::NotAuthorized);
    });
}
