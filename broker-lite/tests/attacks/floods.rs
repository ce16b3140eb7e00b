//! Much of what is allowed once.

use std::thread;

use broker_lite::{
    packet::{
        Connect, ConnectProperties, Delivery, Packet, PacketId, QoS, ReasonCode, Version, Will,
    },
    topic::TopicName,
};

use crate::{
    bytes_on_the_wire::{Client, End, bytes_of, connect, publish, subscribe},
    samples,
    victim::Victim,
};

#[test]
fn connections_beyond_the_limit_are_closed_and_the_others_served() {
    let victim = Victim::with(
        "[[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
         [limits]\nconnections = 100\nconnections_per_address = 100\n",
    );
    victim.survives("connection flood", |victim| {
        let mut clients: Vec<Client> = (0..600).map(|_| Client::silent(victim.address())).collect();
        // The healthy client has one of the hundred.
        for client in &mut clients[100..] {
            client.end();
        }
    });
}

/// Mosquitto slows down with each; other brokers end.
#[test]
fn subscriptions_beyond_the_limit_are_refused_one_by_one() {
    Victim::open_to_all().survives("subscription bomb", |victim| {
        let mut client = Client::connected(victim.address(), "bomber");
        let mut refused = 0;
        for number in 0..5_000 {
            let filter = format!("bomb/{number}/+/#");
            client.send(&Packet::Subscribe(subscribe(&filter, QoS::AtLeastOnce)));
            match client.next() {
                Ok(Packet::SubAck(ack)) => {
                    refused += usize::from(ack.reasons[0] == ReasonCode::QuotaExceeded);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(refused, 5_000 - 256);
    });
}

/// Two hundred levels overflowed Mosquitto's stack (CVE-2019-11779).
#[test]
fn topics_of_thousands_of_levels_are_refused() {
    Victim::open_to_all().survives("deep topics", |victim| {
        for levels in [33, 200, 400] {
            let topic = "/".repeat(levels);
            let mut client = Client::connected(victim.address(), "digger");
            let id = PacketId::new(9).unwrap();
            client.send(&Packet::Publish(publish(
                &topic,
                Delivery::AtLeastOnce(id),
                b"",
            )));
            match client.next() {
                Ok(Packet::PubAck(ack)) => assert_eq!(ack.reason, ReasonCode::TopicNameInvalid),
                other => panic!("{levels}: {other:?}"),
            }
            client.send(&Packet::Subscribe(subscribe(&topic, QoS::AtMostOnce)));
            match client.next() {
                Ok(Packet::SubAck(ack)) => assert_ne!(ack.reasons[0].value(), 0),
                other => panic!("{levels}: {other:?}"),
            }
        }
        let longest = vec![b'/'; 65_535];
        for version in [Version::V3, Version::V5] {
            let mut client = Client::connected_as(victim.address(), "digger", version);
            client.send_bytes(&samples::publish_to(&longest, version));
            client.send_bytes(&samples::subscribe_to(&longest, version));
            client.send(&Packet::PingReq);
            client.says_no_more();
            client.end();
        }
    });
}

/// Each level with a `+` doubles the ways through a naive router.
#[test]
fn filters_full_of_wildcards_cost_a_bounded_time() {
    Victim::open_to_all().survives("wildcard storm", |victim| {
        let mut client = Client::connected(victim.address(), "storm");
        for pattern in 0_u32..255 {
            // Sixteen levels, half of them `+` by the pattern's bits.
            let level = |bit: u32| {
                if pattern >> (bit % 8) & 1 == 1 {
                    "+"
                } else {
                    "a"
                }
            };
            let levels: Vec<&str> = (0..16).map(level).collect();
            client.send(&Packet::Subscribe(subscribe(
                &levels.join("/"),
                QoS::AtMostOnce,
            )));
            assert!(matches!(client.next(), Ok(Packet::SubAck(_))));
        }
        let topic = ["a"; 16].join("/");
        for _ in 0..500 {
            client.send(&Packet::Publish(publish(
                &topic,
                Delivery::AtMostOnce,
                b"x",
            )));
        }
        client.send(&Packet::PingReq);
        while !matches!(client.next(), Ok(Packet::PingResp)) {}
    });
}

/// Each of these filters wants each of those messages.
#[test]
fn many_filters_over_many_retained_messages_hold_up_nobody() {
    Victim::open_to_all().survives("wildcards over retained messages", |victim| {
        let mut publisher = Client::connected(victim.address(), "publisher");
        for number in 0..8_000_u32 {
            let topic = format!("retained/{number}");
            let mut message = publish(&topic, Delivery::AtMostOnce, b"x");
            message.retain = true;
            publisher.send(&Packet::Publish(message));
        }
        publisher.send(&Packet::PingReq);
        assert!(matches!(publisher.next(), Ok(Packet::PingResp)));
        let mut greedy = Client::connected(victim.address(), "greedy");
        let levels = [
            "#",
            "+/#",
            "+/+",
            "retained/#",
            "retained/+",
            "+/+/#",
            "retained/+/#",
        ];
        let mut all = subscribe("#", QoS::AtMostOnce);
        all.requests = levels
            .iter()
            .flat_map(|filter| subscribe(filter, QoS::AtMostOnce).requests)
            .collect();
        for _ in 0..30 {
            greedy.send(&Packet::Subscribe(all.clone()));
        }
        greedy.send(&Packet::PingReq);
        while !matches!(greedy.next(), Ok(Packet::PingResp)) {}
    });
}

#[test]
fn retained_messages_beyond_the_limit_are_refused() {
    Victim::open_to_all().survives("retained flood", |victim| {
        let mut client = Client::connected(victim.address(), "hoarder");
        let payload = vec![b'r'; 8 * 1024];
        let mut refused = 0;
        for number in 0..20_000_u32 {
            let mut message = publish(
                &format!("retained/{number}"),
                Delivery::AtLeastOnce(PacketId::new(1).unwrap()),
                &payload,
            );
            message.retain = true;
            client.send(&Packet::Publish(message));
            match client.next() {
                Ok(Packet::PubAck(ack)) => {
                    refused += usize::from(ack.reason != ReasonCode::Success)
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(refused > 10_000, "{refused}");
    });
}

#[test]
fn qos_2_messages_that_are_never_released_stop_at_the_receive_maximum() {
    Victim::open_to_all().survives("QoS 2 half-open flood", |victim| {
        for _ in 0..20 {
            let mut client = Client::connected(victim.address(), "half-open");
            let payload = vec![b'q'; 4 * 1024];
            for id in 1..200 {
                let delivery = Delivery::ExactlyOnce(PacketId::new(id).unwrap());
                client.send(&Packet::Publish(publish("half/open", delivery, &payload)));
            }
            assert_eq!(client.end(), End::Told(ReasonCode::ReceiveMaximumExceeded));
        }
    });
}

/// CVE-2023-28366: identifiers never answered, and memory for each.
#[test]
fn a_qos_2_message_sent_again_and_again_is_answered_each_time() {
    Victim::open_to_all().survives("CVE-2023-28366", |victim| {
        let mut client = Client::connected(victim.address(), "again");
        let delivery = Delivery::ExactlyOnce(PacketId::new(5).unwrap());
        for number in 0..2_000 {
            let mut message = publish("again", delivery, &[b'x'; 1_000]);
            message.dup = number > 0;
            client.send(&Packet::Publish(message));
            assert!(matches!(client.next(), Ok(Packet::PubRec(_))));
        }
    });
}

#[test]
fn clients_that_take_over_each_other_for_ever_harm_nobody_else() {
    Victim::open_to_all().survives("take-over storm", |victim| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        // Another one may have taken over before the welcome.
                        let mut client = Client::silent(victim.address());
                        client.send(&Packet::Connect(Box::new(connect(
                            "contested",
                            Version::V5,
                        ))));
                        assert!(matches!(client.next(), Ok(Packet::ConnAck(_))));
                    }
                });
            }
        });
    });
}

fn lasting(id: &str) -> Connect {
    Connect {
        properties: ConnectProperties {
            session_expiry_s: Some(86_400),
            ..ConnectProperties::default()
        },
        ..connect(id, Version::V5)
    }
}

/// Each is published an hour after its client has gone, so that all of them wait.
#[test]
fn wills_of_many_clients_stay_within_bounds_and_lock_nobody_out() {
    Victim::open_to_all().survives("will abuse", |victim| {
        let mut refused = 0;
        for number in 0..1_500 {
            let will = Will {
                topic: TopicName::parse("will").unwrap(),
                payload: vec![b'w'; 60_000].into(),
                qos: QoS::AtLeastOnce,
                retain: true,
                delay_s: Some(3_600),
                message_expiry_s: None,
                properties: None,
            };
            let connect = Connect {
                will: Some(will),
                ..lasting(&format!("mourned-{number}"))
            };
            match Client::try_connected(victim.address(), connect) {
                Ok(_) => {}
                Err(End::Told(ReasonCode::QuotaExceeded)) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(refused > 100, "{refused}");
    });
}

#[test]
fn sessions_of_one_user_leave_room_for_those_of_others() {
    let victim = Victim::with(
        "[[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n[limits]\nsessions = 1000\n",
    );
    victim.survives("session flood", |victim| {
        let mut refused = 0;
        for number in 0..1_200 {
            let session = lasting(&format!("session-{number}"));
            match Client::try_connected(victim.address(), session) {
                Ok(_) => {}
                Err(End::Told(ReasonCode::QuotaExceeded)) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(refused, 700, "half of the thousand are for others");
    });
}

/// The largest packet but for its last byte, on more connections than memory has room for.
#[test]
fn packets_that_never_end_cost_their_senders_the_connection() {
    let victim = Victim::with(
        "[[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
         [limits]\nconnections_per_address = 600\n",
    );
    victim.survives("partial packets", |victim| {
        let message = publish("partial", Delivery::AtMostOnce, &[b'p'; 250 * 1024]);
        let bytes = bytes_of(&Packet::Publish(message), Version::V5);
        let begun: Vec<Client> = (0..400)
            .filter_map(|number| {
                let connect = connect(&format!("partial-{number}"), Version::V5);
                let mut client = Client::try_connected(victim.address(), connect).ok()?;
                client.send_bytes(&bytes[..bytes.len() - 1]);
                Some(client)
            })
            .collect();
        assert!(begun.len() > 100, "{}", begun.len());
    });
}
