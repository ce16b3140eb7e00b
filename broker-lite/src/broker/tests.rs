//! What clients may rely on, told as exchanges of packets with the core.

use std::time::Duration;

use crate::{
    audit::Refusal,
    broker::sim::{
        Client, Sim, allow, goodbye, hello, lasting, once, peer, puback, pubcomp, publish, pubrec,
        pubrel, qos1, qos2, retained, rules, subscribe, will,
    },
    config::Limits,
    keeper::Kept,
    message::Message,
    packet::{
        Ack, Authentication, Connect, Credential, Delivery, Packet, Publish, QoS, ReasonCode,
        RetainHandling, SubscribeOptions, SubscriptionId, Text, TopicAlias, Unsubscribe,
        UserProperties, Version,
    },
    topic::{SubscriptionFilter, TopicFilter, TopicName},
};

use Version::{V3, V5};

fn at(qos: u8) -> SubscribeOptions {
    SubscribeOptions::at(QoS::from_u8(qos).unwrap())
}

/// The reason of a refusal or disconnection, whichever came.
fn last_reason(sim: &mut Sim, client: Client) -> Option<ReasonCode> {
    sim.take(client)
        .into_iter()
        .rev()
        .find_map(|packet| match packet {
            Packet::ConnAck(ack) => Some(ack.reason),
            Packet::Disconnect(disconnect) => Some(disconnect.reason),
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => Some(ack.reason),
            _ => None,
        })
}

mod sessions {
    use super::*;

    #[test]
    fn a_second_connection_takes_the_session_over_mqtt_3_1_4_3() {
        for version in [V3, V5] {
            let mut sim = Sim::new();
            let (first, _) = sim.connect(lasting(version, "c"));
            sim.subscribe(first, "t", at(1));
            let (second, present) = sim.connect(lasting(version, "c"));
            assert!(present && sim.is_closed(first));
            let told = last_reason(&mut sim, first);
            assert_eq!(
                told,
                (version == V5).then_some(ReasonCode::SessionTakenOver)
            );
            sim.send(second, once("t", "x"));
            assert_eq!(sim.payloads(second), ["t=x"]);
        }
    }

    #[test]
    fn a_clean_start_ends_the_former_session_mqtt_3_1_2_4() {
        let mut sim = Sim::new();
        let (first, _) = sim.connect(lasting(V5, "c"));
        sim.subscribe(first, "t", at(1));
        let (second, present) = sim.connect(hello(V5, "c"));
        assert!(!present);
        sim.send(second, once("t", "x"));
        assert_eq!(sim.payloads(second), Vec::<String>::new());
    }

    #[test]
    fn a_session_ends_when_its_expiry_has_passed_and_not_before() {
        for (wait_s, present) in [(3_599, true), (3_601, false)] {
            let mut sim = Sim::new();
            let (first, _) = sim.connect(lasting(V5, "c"));
            sim.lose(first);
            sim.pass(Duration::from_secs(wait_s));
            assert_eq!(sim.connect(lasting(V5, "c")).1, present, "after {wait_s} s");
        }
    }

    #[test]
    fn disconnect_may_shorten_a_session_but_not_create_one_mqtt5_3_14_2_2_2() {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        let mut disconnect = crate::packet::Disconnect::new(ReasonCode::Success);
        disconnect.session_expiry_s = Some(10);
        sim.send(client, Packet::Disconnect(disconnect.clone()));
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::ProtocolError)
        );
        let (client, _) = sim.connect(lasting(V5, "c"));
        disconnect.session_expiry_s = Some(0);
        sim.send(client, Packet::Disconnect(disconnect));
        assert!(!sim.connect(lasting(V5, "c")).1);
    }

    #[test]
    fn an_empty_client_id_is_assigned_one_or_refused_mqtt_3_1_3_6_8() {
        let mut sim = Sim::new();
        let client = sim.try_connect(hello(V5, ""));
        match &sim.take(client)[..] {
            [Packet::ConnAck(ack)] => {
                assert_eq!(
                    ack.properties.assigned_client_id.as_ref().unwrap().as_str(),
                    "auto-0-1"
                );
            }
            other => panic!("{other:?}"),
        }
        let refused = sim.try_connect(Connect {
            clean_start: false,
            ..hello(V3, "")
        });
        assert_eq!(
            last_reason(&mut sim, refused),
            Some(ReasonCode::ClientIdNotValid)
        );
        assert!(sim.is_closed(refused));
    }

    #[test]
    fn a_client_that_falls_silent_is_dropped_after_one_and_a_half_keep_alives_mqtt_3_1_2_22() {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        sim.pass(Duration::from_secs(80));
        sim.send(client, Packet::PingReq);
        sim.pass(Duration::from_secs(89));
        assert!(!sim.is_closed(client));
        sim.pass(Duration::from_secs(2));
        assert!(sim.is_closed(client));
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::KeepAliveTimeout)
        );
    }

    #[test]
    fn no_timer_is_left_when_everyone_is_gone() {
        let mut sim = Sim::new();
        let client = sim.client(V3, "c");
        sim.send(client, goodbye());
        assert_eq!(sim.core.poll_timeout(), None);
        let status = sim.core.status();
        assert_eq!(
            (status.sessions, status.subscriptions, status.clients.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_connection_without_connect_is_closed_in_time() {
        let mut sim = Sim::new();
        let connection = sim.open(peer()).unwrap();
        sim.core.handle_secured(connection, None, sim.now);
        sim.pass(Duration::from_secs(11));
        assert!(sim.closed.contains(&connection));
        assert_eq!(sim.refusals, [Refusal::ConnectTimeout]);
    }

    #[test]
    fn a_second_connect_is_a_protocol_error_mqtt_3_1_0_2() {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        sim.send(client, Packet::Connect(Box::new(hello(V5, "c"))));
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::ProtocolError)
        );
    }

    #[test]
    fn an_authentication_method_we_do_not_have_is_refused() {
        let mut sim = Sim::new();
        let mut connect = hello(V5, "c");
        let method = Text::parse("SCRAM-SHA-1").unwrap();
        connect.properties.authentication = Some(Authentication { method, data: None });
        let client = sim.try_connect(connect);
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::BadAuthenticationMethod)
        );
    }
}

mod quality_of_service {
    use super::*;

    #[test]
    fn messages_arrive_with_the_lower_qos_of_publisher_and_subscriber_mqtt_3_8_4_8() {
        for (published, granted, delivered) in
            [(0, 2, 0), (1, 2, 1), (2, 1, 1), (2, 0, 0), (2, 2, 2)]
        {
            let mut sim = Sim::new();
            let client = sim.client(V5, "c");
            sim.subscribe(client, "t", at(granted));
            let packet = match published {
                0 => once("t", "x"),
                1 => qos1("t", "x", 1),
                _ => qos2("t", "x", 1),
            };
            sim.send(client, packet);
            let qos = sim.publishes(client)[0].qos();
            assert_eq!(qos as u8, delivered, "{published} to {granted}");
        }
    }

    #[test]
    fn a_qos_2_message_is_routed_once_however_often_it_comes_mqtt_4_3_3_10() {
        let mut sim = Sim::new();
        let (client, _) = sim.connect(lasting(V3, "pub"));
        let other = sim.client(V3, "sub");
        sim.subscribe(other, "t", at(0));
        sim.send(client, qos2("t", "x", 7));
        sim.send(client, qos2("t", "x", 7));
        sim.lose(client);
        let (client, _) = sim.connect(lasting(V3, "pub"));
        sim.send(client, qos2("t", "x", 7));
        assert_eq!(sim.take(client), [pubrec(7)]);
        assert_eq!(sim.payloads(other), ["t=x"]);
        sim.send(client, pubrel(7));
        assert_eq!(sim.take(client), [pubcomp(7)]);
        sim.send(client, qos2("t", "y", 7));
        assert_eq!(sim.payloads(other), ["t=y"]);
    }

    #[test]
    fn unacknowledged_messages_come_again_in_order_after_a_reconnect_mqtt_4_4_0_1() {
        let mut sim = Sim::new();
        let (client, _) = sim.connect(lasting(V5, "sub"));
        sim.subscribe(client, "t", at(2));
        let publisher = sim.client(V5, "pub");
        for (n, packet) in [qos1("t", "1", 1), qos2("t", "2", 2), qos1("t", "3", 3)]
            .into_iter()
            .enumerate()
        {
            sim.send(publisher, packet);
            assert_eq!(
                sim.publishes(client)[0].packet_id().unwrap().value(),
                n as u16 + 1
            );
        }
        sim.send(client, pubrec(2));
        sim.lose(client);
        let (client, present) = sim.connect(lasting(V5, "sub"));
        assert!(present);
        match &sim.take(client)[..] {
            [
                Packet::Publish(first),
                Packet::PubRel(release),
                Packet::Publish(third),
            ] => {
                assert!(first.dup && third.dup);
                assert_eq!(
                    (&first.payload[..], &third.payload[..]),
                    (&b"1"[..], &b"3"[..])
                );
                assert_eq!(release.packet_id.value(), 2);
            }
            other => panic!("{other:?}"),
        }
        for packet in [puback(1), pubcomp(2), puback(3)] {
            sim.send(client, packet);
        }
        sim.lose(client);
        let (client, _) = sim.connect(lasting(V5, "sub"));
        assert_eq!(sim.take(client), []);
    }

    #[test]
    fn an_absent_client_finds_its_qos_1_messages_and_no_qos_0_ones() {
        let mut sim = Sim::new();
        let (client, _) = sim.connect(lasting(V3, "sub"));
        sim.subscribe(client, "t", at(1));
        sim.lose(client);
        let publisher = sim.client(V3, "pub");
        sim.send(publisher, once("t", "lost"));
        sim.send(publisher, qos1("t", "found", 1));
        let (client, _) = sim.connect(lasting(V3, "sub"));
        assert_eq!(sim.payloads(client), ["t=found"]);
    }

    #[test]
    fn no_more_messages_are_in_flight_than_the_client_takes_mqtt_3_3_4_9() {
        let mut sim = Sim::new();
        let mut connect = hello(V5, "sub");
        connect.properties.receive_maximum = std::num::NonZeroU16::new(2);
        let (client, _) = sim.connect(connect);
        sim.subscribe(client, "t", at(1));
        let publisher = sim.client(V5, "pub");
        for n in 1..=5 {
            sim.send(publisher, qos1("t", &n.to_string(), n));
        }
        assert_eq!(sim.payloads(client), ["t=1", "t=2"]);
        sim.send(client, puback(1));
        assert_eq!(sim.payloads(client), ["t=3"]);
        sim.send(client, puback(3));
        sim.send(client, puback(2));
        assert_eq!(sim.payloads(client), ["t=4", "t=5"]);
    }

    #[test]
    fn a_pubrel_for_nothing_is_answered_with_packet_identifier_not_found() {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        sim.send(client, pubrel(5));
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::PacketIdNotFound)
        );
    }

    #[test]
    fn a_client_above_its_receive_maximum_is_disconnected_with_0x93() {
        let limits = Limits {
            in_flight: 2,
            ..Limits::default()
        };
        let mut sim = Sim::limited(limits);
        let client = sim.client(V5, "c");
        for n in 1..=3 {
            sim.send(client, qos2("t", "x", n));
        }
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::ReceiveMaximumExceeded)
        );
    }
}

mod keeping {
    use super::*;

    #[test]
    fn an_acknowledgement_is_held_until_the_keeper_has_committed() {
        for (packet, expected) in [
            (qos1("t/a", "x", 1), puback(1)),
            (qos2("t/a", "x", 1), pubrec(1)),
        ] {
            let mut sim = Sim::keeping("t/#");
            let client = sim.client(V3, "c");
            sim.send(client, packet);
            assert_eq!(sim.take(client), []);
            sim.answer_keeper(Kept::Committed);
            assert_eq!(sim.take(client), [expected]);
        }
    }

    #[test]
    fn acknowledgements_leave_in_the_order_of_their_publishes_mqtt_4_6_0_2() {
        let mut sim = Sim::keeping("kept");
        let client = sim.client(V3, "c");
        let other = sim.client(V3, "other");
        sim.send(client, qos1("kept", "1", 1));
        sim.send(client, qos1("free", "2", 2));
        sim.send(client, qos1("kept", "3", 3));
        sim.send(other, qos1("free", "4", 4));
        assert_eq!(sim.take(client), []);
        assert_eq!(sim.take(other), [puback(4)], "nobody else waits");
        sim.answer_keeper(Kept::Committed);
        assert_eq!(sim.take(client), [puback(1), puback(2)]);
        sim.answer_keeper(Kept::Committed);
        assert_eq!(sim.take(client), [puback(3)]);
    }

    #[test]
    fn a_5_0_client_is_told_quota_exceeded_when_its_message_is_not_kept() {
        for packet in [qos1("t", "x", 1), qos2("t", "x", 1)] {
            let mut sim = Sim::keeping("t");
            let client = sim.client(V5, "c");
            sim.send(client, packet);
            sim.answer_keeper(Kept::Refused);
            assert_eq!(
                last_reason(&mut sim, client),
                Some(ReasonCode::QuotaExceeded)
            );
            assert!(!sim.is_closed(client));
        }
    }

    #[test]
    fn a_3_1_1_client_is_closed_unacknowledged_so_that_it_sends_again() {
        let mut sim = Sim::keeping("t");
        let (client, _) = sim.connect(lasting(V3, "c"));
        sim.send(client, qos2("t", "x", 1));
        sim.answer_keeper(Kept::Refused);
        assert_eq!(sim.take(client), []);
        assert!(sim.is_closed(client));
        let (client, _) = sim.connect(lasting(V3, "c"));
        sim.send(client, qos2("t", "x", 1));
        sim.answer_keeper(Kept::Committed);
        assert_eq!(sim.take(client), [pubrec(1)]);
    }

    #[test]
    fn a_qos_2_message_that_was_refused_first_reaches_subscribers_once() {
        let mut sim = Sim::keeping("t");
        let client = sim.client(V5, "c");
        let subscriber = sim.client(V5, "sub");
        sim.subscribe(subscriber, "t", at(0));
        sim.send(client, qos2("t", "x", 1));
        sim.answer_keeper(Kept::Refused);
        sim.send(client, qos2("t", "x", 2));
        sim.answer_keeper(Kept::Committed);
        assert_eq!(sim.payloads(subscriber), ["t=x"]);
    }

    #[test]
    fn a_3_1_1_client_whose_acknowledgements_are_held_is_left_unread() {
        let limits = Limits {
            in_flight: 2,
            ..Limits::default()
        };
        let wants = crate::broker::sim::Wants(TopicFilter::parse("t").unwrap());
        let everyone = vec![crate::config::AccessRule::everything()];
        let mut sim = Sim::with(limits, everyone, Some(std::sync::Arc::new(wants)));
        let client = sim.client(V3, "c");
        sim.send(client, qos1("t", "1", 1));
        assert!(sim.core.accepts(client.0));
        sim.send(client, qos1("t", "2", 2));
        assert!(!sim.core.accepts(client.0));
        sim.answer_keeper(Kept::Committed);
        assert!(sim.core.accepts(client.0));
    }

    #[test]
    fn a_qos_2_identifier_stays_known_when_the_receipt_comes_after_the_client_left() {
        let mut sim = Sim::keeping("t");
        let (client, _) = sim.connect(lasting(V3, "c"));
        let subscriber = sim.client(V3, "sub");
        sim.subscribe(subscriber, "t", at(0));
        sim.send(client, qos2("t", "x", 1));
        sim.lose(client);
        sim.answer_keeper(Kept::Committed);
        let (client, _) = sim.connect(lasting(V3, "c"));
        sim.send(client, qos2("t", "x", 1));
        assert_eq!(sim.take(client), [pubrec(1)]);
        assert_eq!(sim.payloads(subscriber), ["t=x"]);
    }

    #[test]
    fn qos_0_messages_and_wills_are_handed_to_the_keeper_too() {
        let mut sim = Sim::keeping("t/#");
        let mut connect = hello(V3, "c");
        connect.will = Some(will("t/will", None));
        let (client, _) = sim.connect(connect);
        sim.send(client, once("t/zero", "x"));
        sim.lose(client);
        let topics: Vec<_> = sim
            .kept
            .iter()
            .map(|(_, publication)| publication.message.topic.as_str())
            .collect();
        assert_eq!(topics, ["t/zero", "t/will"]);
    }
}

mod subscriptions {
    use super::*;

    #[test]
    fn overlapping_subscriptions_give_one_copy_with_all_identifiers_mqtt_3_3_4_2() {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        for (filter, qos, id) in [("t/#", 0, 7), ("t/+", 1, 8)] {
            let Packet::Subscribe(mut packet) = subscribe(filter, at(qos)) else {
                panic!()
            };
            packet.subscription_id = SubscriptionId::new(id);
            sim.send(client, Packet::Subscribe(packet));
        }
        sim.send(client, qos1("t/x", "x", 1));
        let publishes = sim.publishes(client);
        assert_eq!(publishes.len(), 1);
        let mut ids: Vec<u32> = publishes[0]
            .subscription_ids
            .iter()
            .map(|id| id.value())
            .collect();
        ids.sort_unstable();
        assert_eq!((ids, publishes[0].qos()), (vec![7, 8], QoS::AtLeastOnce));
    }

    #[test]
    fn no_local_keeps_a_clients_own_messages_away_mqtt_3_8_3_3() {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        sim.subscribe(
            client,
            "t",
            SubscribeOptions {
                no_local: true,
                ..at(0)
            },
        );
        sim.send(client, once("t", "own"));
        let other = sim.client(V5, "other");
        sim.send(other, once("t", "foreign"));
        assert_eq!(sim.payloads(client), ["t=foreign"]);
    }

    #[test]
    fn unsubscribe_says_whether_there_was_anything_and_ends_it_mqtt_3_10_4_1() {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        sim.subscribe(client, "t", at(0));
        let filters = ["t", "u"].map(|text| SubscriptionFilter::parse(text).unwrap());
        sim.send(
            client,
            Packet::Unsubscribe(Unsubscribe {
                packet_id: crate::broker::sim::id(3),
                user_properties: UserProperties::default(),
                filters: filters.into(),
            }),
        );
        match &sim.take(client)[..] {
            [Packet::UnsubAck(ack)] => {
                assert_eq!(
                    ack.reasons,
                    [ReasonCode::Success, ReasonCode::NoSubscriptionExisted]
                );
            }
            other => panic!("{other:?}"),
        }
        sim.send(client, once("t", "x"));
        assert_eq!(sim.payloads(client), Vec::<String>::new());
    }

    #[test]
    fn a_shared_subscription_gives_each_message_to_one_member_in_turn_mqtt_4_8_2() {
        let mut sim = Sim::new();
        let members = ["a", "b"].map(|id| sim.client(V5, id));
        for member in members {
            sim.subscribe(member, "$share/g/t", at(1));
        }
        let publisher = sim.client(V5, "pub");
        for n in 1..=4 {
            sim.send(publisher, qos1("t", &n.to_string(), n));
        }
        assert_eq!(sim.payloads(members[0]), ["t=1", "t=3"]);
        assert_eq!(sim.payloads(members[1]), ["t=2", "t=4"]);
    }

    #[test]
    fn what_a_leaving_member_did_not_acknowledge_goes_to_another() {
        let mut sim = Sim::new();
        let members = ["a", "b"].map(|id| sim.client(V5, id));
        for member in members {
            sim.subscribe(member, "$share/g/t", at(1));
        }
        let publisher = sim.client(V5, "pub");
        sim.send(publisher, qos1("t", "1", 1));
        assert_eq!(sim.payloads(members[0]), ["t=1"]);
        sim.lose(members[0]);
        assert_eq!(sim.payloads(members[1]), ["t=1"]);
    }

    #[test]
    fn subscriptions_above_the_limit_are_refused_with_quota_exceeded() {
        let mut sim = Sim::limited(Limits {
            subscriptions: 1,
            ..Limits::default()
        });
        let client = sim.client(V5, "c");
        assert_eq!(sim.subscribe(client, "a", at(1)), ReasonCode::GrantedQos1);
        assert_eq!(sim.subscribe(client, "b", at(1)), ReasonCode::QuotaExceeded);
        assert_eq!(sim.subscribe(client, "a", at(2)), ReasonCode::GrantedQos2);
    }
}

mod retention {
    use super::*;

    fn options(retain_handling: RetainHandling) -> SubscribeOptions {
        SubscribeOptions {
            retain_handling,
            ..at(1)
        }
    }

    #[test]
    fn retain_handling_decides_what_a_subscription_brings_mqtt_3_3_1_9_to_11() {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        sim.send(client, retained("t", "x"));
        sim.subscribe(client, "t", options(RetainHandling::DoNotSend));
        assert_eq!(sim.payloads(client), Vec::<String>::new());
        sim.subscribe(client, "t", options(RetainHandling::SendIfNew));
        assert_eq!(sim.payloads(client), Vec::<String>::new());
        sim.subscribe(client, "+", options(RetainHandling::SendIfNew));
        assert_eq!(sim.payloads(client), ["t=x"]);
        sim.subscribe(client, "t", options(RetainHandling::Send));
        let publishes = sim.publishes(client);
        assert!(publishes[0].retain);
        sim.subscribe(client, "$share/g/t", options(RetainHandling::Send));
        assert_eq!(sim.payloads(client), Vec::<String>::new());
    }

    #[test]
    fn retain_as_published_keeps_the_flag_and_its_absence_clears_it_mqtt_3_3_1_12_13() {
        for retain_as_published in [false, true] {
            let mut sim = Sim::new();
            let client = sim.client(V5, "c");
            sim.subscribe(
                client,
                "t",
                SubscribeOptions {
                    retain_as_published,
                    ..at(0)
                },
            );
            sim.send(client, retained("t", "x"));
            assert_eq!(sim.publishes(client)[0].retain, retain_as_published);
        }
    }

    #[test]
    fn an_empty_retained_message_is_delivered_and_clears_the_topic_mqtt_3_3_1_6() {
        let mut sim = Sim::new();
        let client = sim.client(V3, "c");
        sim.send(client, retained("t", "x"));
        sim.send(client, retained("t", ""));
        sim.subscribe(client, "t", at(0));
        assert_eq!(sim.payloads(client), Vec::<String>::new());
        sim.send(client, retained("t", ""));
        assert_eq!(sim.payloads(client), ["t="]);
    }

    #[test]
    fn expired_messages_are_not_delivered_and_others_say_what_remains_mqtt_3_3_2_5_6() {
        let mut sim = Sim::new();
        let (client, _) = sim.connect(lasting(V5, "sub"));
        sim.subscribe(client, "t", at(1));
        sim.lose(client);
        let publisher = sim.client(V5, "pub");
        for (n, life_s) in [(1, 10), (2, 100)] {
            let delivery = Delivery::AtLeastOnce(crate::broker::sim::id(n));
            let message = Publish {
                message_expiry_s: Some(life_s),
                ..publish("t", &n.to_string(), delivery)
            };
            sim.send(publisher, Packet::Publish(message));
        }
        sim.pass(Duration::from_secs(30));
        let (client, _) = sim.connect(lasting(V5, "sub"));
        let publishes = sim.publishes(client);
        assert_eq!(publishes.len(), 1);
        assert_eq!(publishes[0].message_expiry_s, Some(70));
    }
}

mod wills {
    use super::*;

    fn observed(sim: &mut Sim) -> Client {
        let observer = sim.client(V5, "observer");
        sim.subscribe(observer, "will", at(0));
        observer
    }

    fn with_will(connect: Connect, delay_s: Option<u32>) -> Connect {
        Connect {
            will: Some(will("will", delay_s)),
            ..connect
        }
    }

    #[test]
    fn a_lost_connection_publishes_the_will_and_disconnect_calls_it_off_mqtt_3_1_2_8_10() {
        let mut sim = Sim::new();
        let observer = observed(&mut sim);
        let (client, _) = sim.connect(with_will(hello(V3, "c"), None));
        sim.send(client, goodbye());
        assert_eq!(sim.payloads(observer), Vec::<String>::new());
        let (client, _) = sim.connect(with_will(hello(V3, "c"), None));
        sim.lose(client);
        assert_eq!(sim.payloads(observer), ["will=gone"]);
    }

    #[test]
    fn a_delayed_will_is_called_off_by_coming_back_in_time_mqtt_3_1_3_9() {
        let mut sim = Sim::new();
        let observer = observed(&mut sim);
        let (client, _) = sim.connect(with_will(lasting(V5, "c"), Some(10)));
        sim.lose(client);
        sim.pass(Duration::from_secs(9));
        let (client, _) = sim.connect(with_will(lasting(V5, "c"), Some(10)));
        sim.pass(Duration::from_secs(20));
        assert_eq!(sim.payloads(observer), Vec::<String>::new());
        sim.lose(client);
        sim.pass(Duration::from_secs(11));
        assert_eq!(sim.payloads(observer), ["will=gone"]);
    }

    #[test]
    fn the_end_of_the_session_does_not_wait_for_the_wills_delay() {
        let mut sim = Sim::new();
        let observer = observed(&mut sim);
        let (client, _) = sim.connect(with_will(hello(V5, "c"), Some(10)));
        sim.lose(client);
        assert_eq!(sim.payloads(observer), ["will=gone"]);
    }

    #[test]
    fn a_will_that_may_not_be_published_is_refused_at_connect() {
        let access = vec![allow(None, &["other"], &["#"])];
        let mut sim = Sim::with(Limits::default(), access, None);
        let client = sim.try_connect(with_will(hello(V5, "c"), None));
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::NotAuthorized)
        );
    }
}

mod access {
    use super::*;

    fn named(user: &str, password: &str, id: &str) -> Connect {
        Connect {
            user_name: Some(Text::parse(user).unwrap()),
            password: Some(Credential(password.to_owned().into())),
            ..hello(V5, id)
        }
    }

    #[test]
    fn what_no_rule_allows_is_refused_and_named() {
        let access = vec![allow(None, &["in/#"], &["out/+"])];
        let mut sim = Sim::with(Limits::default(), access, None);
        let client = sim.client(V5, "c");
        assert_eq!(
            sim.subscribe(client, "out/#", at(0)),
            ReasonCode::NotAuthorized
        );
        assert_eq!(
            sim.subscribe(client, "$share/g/in/x", at(0)),
            ReasonCode::NotAuthorized
        );
        assert_eq!(sim.subscribe(client, "out/x", at(0)), ReasonCode::Success);
        sim.send(client, qos1("out/x", "x", 1));
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::NotAuthorized)
        );
        sim.send(client, once("$SYS/x", "x"));
        assert_eq!(
            sim.refusals,
            [
                Refusal::Subscribe,
                Refusal::Subscribe,
                Refusal::Publish,
                Refusal::Publish
            ]
        );
    }

    #[test]
    fn a_password_decides_who_a_client_is() {
        let mut sim = Sim::with(
            Limits::default(),
            vec![allow(Some("ann"), &["#"], &["#"])],
            None,
        );
        let wrong = sim.try_connect(named("ann", "secreT", "c"));
        assert_eq!(
            last_reason(&mut sim, wrong),
            Some(ReasonCode::BadUserNameOrPassword)
        );
        let unknown = sim.try_connect(named("bob", "secret", "c"));
        assert_eq!(
            last_reason(&mut sim, unknown),
            Some(ReasonCode::BadUserNameOrPassword)
        );
        let (ann, _) = sim.connect(named("ann", "secret", "c"));
        assert_eq!(sim.subscribe(ann, "#", at(0)), ReasonCode::Success);
        let nobody = sim.try_connect(hello(V5, "d"));
        assert_eq!(
            last_reason(&mut sim, nobody),
            Some(ReasonCode::NotAuthorized)
        );
    }

    #[test]
    fn a_session_is_not_taken_over_by_another_user() {
        let mut sim = Sim::with(Limits::default(), vec![allow(None, &["#"], &["#"])], None);
        let (ann, _) = sim.connect(named("ann", "secret", "c"));
        let thief = sim.try_connect(hello(V5, "c"));
        assert_eq!(
            last_reason(&mut sim, thief),
            Some(ReasonCode::NotAuthorized)
        );
        assert!(!sim.is_closed(ann));
        assert_eq!(sim.refusals, [Refusal::ForeignSession]);
    }

    #[test]
    fn failed_logins_from_afar_bring_a_ban() {
        let mut sim = Sim::new();
        let mut far = peer();
        far.address = "10.0.0.9:1000".parse().unwrap();
        for _ in 0..5 {
            let connection = sim.open(far.clone()).unwrap();
            let connect = Packet::Connect(Box::new(named("ann", "guess", "c")));
            sim.core.handle_packet(connection, connect, sim.now);
            sim.drain();
        }
        assert_eq!(sim.open(far.clone()), Err(Refusal::Banned));
        sim.pass(Duration::from_secs(61));
        assert!(sim.open(far).is_ok());
    }

    #[test]
    fn other_rules_end_what_they_forbid_and_leave_the_rest_alone() {
        let open = || vec![allow(None, &["#"], &["#"])];
        let mut sim = Sim::with(Limits::default(), open(), None);
        let client = sim.client(V5, "c");
        sim.subscribe(client, "a", at(0));
        sim.subscribe(client, "b", at(0));
        sim.send(client, retained("a", "old"));
        let narrow = vec![allow(None, &["b"], &["b"])];
        assert_eq!(
            sim.core
                .replace_rules(rules(Limits::default(), narrow), sim.now),
            0
        );
        sim.take(client);
        sim.core
            .replace_rules(rules(Limits::default(), open()), sim.now);
        sim.send(client, once("a", "x"));
        sim.send(client, once("b", "x"));
        assert_eq!(sim.payloads(client), ["b=x"]);
        sim.subscribe(client, "a", at(0));
        assert_eq!(
            sim.payloads(client),
            Vec::<String>::new(),
            "its publisher had lost its rights"
        );
        let none = vec![allow(Some("ann"), &["#"], &["#"])];
        assert_eq!(
            sim.core
                .replace_rules(rules(Limits::default(), none), sim.now),
            1
        );
        sim.drain();
        assert!(sim.is_closed(client));
    }

    #[test]
    fn connections_are_counted_in_all_and_by_address() {
        let limits = Limits {
            connections: 2,
            connections_per_address: 1,
            ..Limits::default()
        };
        let mut sim = Sim::limited(limits);
        let from = |address: &str| {
            let mut peer = peer();
            peer.address = address.parse().unwrap();
            peer
        };
        let first = sim.open(from("10.0.0.1:1")).unwrap();
        assert_eq!(
            sim.open(from("10.0.0.1:2")),
            Err(Refusal::TooManyConnectionsFromAddress)
        );
        sim.open(from("10.0.0.2:1")).unwrap();
        assert_eq!(
            sim.open(from("10.0.0.3:1")),
            Err(Refusal::TooManyConnections)
        );
        sim.core.handle_closed(first, sim.now);
        assert!(sim.open(from("10.0.0.1:3")).is_ok());
    }
}

mod limits {
    use super::*;

    #[test]
    fn a_slow_consumer_loses_its_own_messages_and_delays_nobody() {
        let mut sim = Sim::limited(Limits {
            queued_messages: 10,
            ..Limits::default()
        });
        let slow = sim.client(V5, "slow");
        let fast = sim.client(V5, "fast");
        for client in [slow, fast] {
            sim.subscribe(client, "t", at(0));
        }
        sim.stalled.push(slow.0);
        let publisher = sim.client(V5, "pub");
        let payload = "x".repeat(1_000);
        for _ in 0..200 {
            sim.send(publisher, once("t", &payload));
        }
        assert_eq!(sim.publishes(fast).len(), 200);
        let status = sim.core.status();
        let slow_status = status
            .clients
            .iter()
            .find(|client| client.id == "slow")
            .unwrap();
        assert_eq!(slow_status.queued, 10);
        sim.stalled.clear();
        sim.flush(slow.0);
        let got = sim.publishes(slow).len() as u64;
        assert_eq!(got + slow_status.dropped, 200);
        assert_eq!(status.counters.refused["queue-full"], slow_status.dropped);
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_too() {
        let limits = Limits {
            queued_bytes: settings::Size::from_bytes(5_000),
            ..Limits::default()
        };
        let mut sim = Sim::limited(limits);
        let (client, _) = sim.connect(lasting(V5, "c"));
        sim.subscribe(client, "t", at(1));
        sim.lose(client);
        let publisher = sim.client(V5, "pub");
        for n in 1..=20 {
            sim.send(publisher, qos1("t", &"x".repeat(1_000), n));
        }
        let (client, _) = sim.connect(lasting(V5, "c"));
        assert_eq!(sim.publishes(client).len(), 4);
    }

    #[test]
    fn a_message_larger_than_the_client_takes_is_skipped_mqtt_3_1_2_25() {
        let mut sim = Sim::new();
        let mut connect = hello(V5, "c");
        connect.properties.maximum_packet_size = std::num::NonZeroU32::new(100);
        let (client, _) = sim.connect(connect);
        sim.subscribe(client, "t", at(1));
        let publisher = sim.client(V5, "pub");
        for (n, size) in [(1, 10), (2, 200), (3, 10)] {
            sim.send(publisher, qos1("t", &"x".repeat(size), n));
        }
        let sizes: Vec<usize> = sim
            .publishes(client)
            .iter()
            .map(|publish| publish.payload.len())
            .collect();
        assert_eq!(sizes, [10, 10]);
    }

    #[test]
    fn topics_deeper_or_longer_than_allowed_are_refused() {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        for topic in ["a/".repeat(40), "a".repeat(600)] {
            sim.send(client, qos1(&topic, "x", 1));
            assert_eq!(
                last_reason(&mut sim, client),
                Some(ReasonCode::TopicNameInvalid)
            );
            assert_eq!(
                sim.subscribe(client, &topic, at(0)),
                ReasonCode::TopicFilterInvalid
            );
        }
    }

    #[test]
    fn topic_aliases_work_both_ways_and_unknown_ones_break_off_mqtt_3_3_2_9() {
        let mut sim = Sim::new();
        let mut connect = hello(V5, "sub");
        connect.properties.topic_alias_maximum = Some(1);
        let (subscriber, _) = sim.connect(connect);
        sim.subscribe(subscriber, "#", at(0));
        let client = sim.client(V5, "pub");
        let aliased = |topic: Option<&str>, number| {
            Packet::Publish(Publish {
                topic: topic.map(|topic| TopicName::parse(topic).unwrap()),
                topic_alias: TopicAlias::new(number),
                ..publish("x", "x", Delivery::AtMostOnce)
            })
        };
        sim.send(client, aliased(Some("t/long"), 3));
        sim.send(client, aliased(None, 3));
        sim.send(client, once("other", "x"));
        let got: Vec<_> = sim
            .publishes(subscriber)
            .iter()
            .map(|p| {
                (
                    p.topic.as_ref().map(|topic| topic.as_str().to_owned()),
                    p.topic_alias.map(|a| a.value()),
                )
            })
            .collect();
        let long = Some("t/long".to_owned());
        assert_eq!(
            got,
            [
                (long, Some(1)),
                (None, Some(1)),
                (Some("other".to_owned()), None)
            ]
        );
        sim.send(client, aliased(None, 4));
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::TopicAliasInvalid)
        );
    }

    #[test]
    fn sessions_are_bounded_and_known_ones_are_always_let_in() {
        let mut sim = Sim::limited(Limits {
            sessions: 1,
            ..Limits::default()
        });
        let (known, _) = sim.connect(lasting(V5, "known"));
        sim.lose(known);
        let stranger = sim.try_connect(hello(V5, "stranger"));
        assert_eq!(
            last_reason(&mut sim, stranger),
            Some(ReasonCode::QuotaExceeded)
        );
        assert!(sim.connect(lasting(V5, "known")).1);
    }

    #[test]
    fn a_full_queue_is_told_once_until_it_was_empty_again() {
        let mut sim = Sim::limited(Limits {
            queued_messages: 2,
            ..Limits::default()
        });
        let local = sim.core.open_local("local");
        let filter = SubscriptionFilter::parse("t").unwrap();
        sim.core
            .subscribe_local(local, filter, QoS::AtMostOnce, sim.now);
        let client = sim.client(V3, "c");
        for lost in [3, 6] {
            for _ in 0..5 {
                sim.send(client, once("t", "x"));
            }
            assert_eq!(sim.core.lost_locally(local), lost);
            let taken = std::iter::from_fn(|| sim.core.take_delivery(local, sim.now)).count();
            assert_eq!(taken, 2);
        }
        assert_eq!(sim.refusals, [Refusal::QueueFull, Refusal::QueueFull]);
        assert_eq!(sim.core.status().counters.refused["queue-full"], 6);
    }

    #[test]
    fn retained_messages_are_bounded() {
        let mut sim = Sim::limited(Limits {
            retained_messages: 1,
            ..Limits::default()
        });
        let client = sim.client(V5, "c");
        sim.send(client, retained("a", "x"));
        sim.send(client, retained("b", "x"));
        assert_eq!(sim.core.status().retained, 1);
        assert_eq!(sim.refusals, [Refusal::RetainedFull]);
    }
}

mod within_the_process {
    use super::*;

    #[test]
    fn a_local_publisher_learns_what_the_keeper_says() {
        let mut sim = Sim::keeping("t");
        let local = sim.core.open_local("field");
        let topic = TopicName::parse("t").unwrap();
        assert!(
            sim.core
                .publish_local(local, Message::new(topic, "x"), sim.now)
                .is_some()
        );
        sim.drain();
        sim.answer_keeper(Kept::Committed);
        assert_eq!(sim.settled, [Kept::Committed]);
        let free = TopicName::parse("u").unwrap();
        assert!(
            sim.core
                .publish_local(local, Message::new(free, "x"), sim.now)
                .is_none()
        );
    }

    #[test]
    fn a_local_consumer_receives_even_under_reserved_topics() {
        let mut sim = Sim::new();
        let local = sim.core.open_local("probe");
        let topic = TopicName::parse("$gateway/probe").unwrap();
        let filter = SubscriptionFilter::parse("$gateway/probe").unwrap();
        sim.core
            .subscribe_local(local, filter, QoS::AtMostOnce, sim.now);
        sim.core
            .publish_local(local, Message::new(topic.clone(), "x"), sim.now);
        sim.drain();
        assert_eq!(sim.ready, [local]);
        let delivery = sim.core.take_delivery(local, sim.now).unwrap();
        assert_eq!(delivery.publication.message.topic, topic);
        sim.core.close_local(local, sim.now);
        assert_eq!(sim.core.status().subscriptions, 0);
    }

    #[test]
    fn local_names_do_not_meet_those_of_the_network() {
        let mut sim = Sim::new();
        let local = sim.core.open_local("same");
        let client = sim.client(V5, "same");
        sim.subscribe(client, "t", at(0));
        sim.core.publish_local(
            local,
            Message::new(TopicName::parse("t").unwrap(), "x"),
            sim.now,
        );
        assert_eq!(sim.payloads(client), ["t=x"]);
        sim.core.close_local(local, sim.now);
        assert!(!sim.is_closed(client));
    }
}

#[test]
fn a_refused_pubrec_frees_the_window() {
    let mut sim = Sim::new();
    let mut connect = hello(V5, "sub");
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let (client, _) = sim.connect(connect);
    sim.subscribe(client, "t", at(2));
    let publisher = sim.client(V5, "pub");
    sim.send(publisher, qos2("t", "1", 1));
    sim.send(publisher, qos2("t", "2", 2));
    assert_eq!(sim.payloads(client), ["t=1"]);
    let refusal = Ack::new(crate::broker::sim::id(1), ReasonCode::QuotaExceeded);
    sim.send(client, Packet::PubRec(refusal));
    assert_eq!(sim.payloads(client), ["t=2"]);
}
