//! What MQTT and we promise: retained messages (3.3.1.3).

use super::*;

/// 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT-3.3.1-9]
/// 3.1.1: [MQTT-3.3.1-12]
/// 5.0: [MQTT-3.3.1-5] [MQTT-3.3.1-8]
#[test]
fn the_last_retained_message_of_a_topic_and_its_qos_wait_for_new_subscribers() {
    for version in BOTH {
        for last_qos in 0..=2 {
            let mut sim = Sim::new();
            let (early, publisher) = pair(&mut sim, version, "#", 0);
            let messages = [
                publish("a", "old", Delivery::ExactlyOnce(id(1))),
                publish("b", "other", Delivery::AtMostOnce),
                publish(
                    "a",
                    "new",
                    match last_qos {
                        0 => Delivery::AtMostOnce,
                        1 => Delivery::AtLeastOnce(id(2)),
                        _ => Delivery::ExactlyOnce(id(2)),
                    },
                ),
            ];
            for message in messages {
                let message = Publish {
                    retain: true,
                    ..message
                };
                sim.send(publisher, Packet::Publish(message));
            }
            sim.send(publisher, once("a", "not retained"));
            let seen = sim.publishes(early);
            assert!(seen.len() == 4 && seen.iter().all(|p| !p.retain));
            let late = sim.client(version, "late");
            sim.subscribe(late, "#", at(2));
            let got = sim.publishes(late);
            let shown: Vec<_> = got
                .iter()
                .map(|p| (crate::broker::sim::text(p), p.retain))
                .collect();
            assert_eq!(
                shown,
                [("a=new".to_owned(), true), ("b=other".to_owned(), true)]
            );
            assert_eq!(got[0].qos() as u8, last_qos);
        }
    }
}

/// 3.1.1: [MQTT-3.3.1-10] [MQTT-3.3.1-11]
/// 5.0: [MQTT-3.3.1-6] [MQTT-3.3.1-7]
#[test]
fn an_empty_retained_message_is_delivered_removes_the_old_one_and_is_not_kept() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (subscriber, publisher) = pair(&mut sim, version, "t", 0);
        for payload in ["x", ""] {
            sim.send(publisher, retained("t", payload));
        }
        assert_eq!(sim.payloads(subscriber), ["t=x", "t="]);
        assert_eq!(sim.core.status(sim.now).retained, 0);
        let late = sim.client(version, "late");
        sim.subscribe(late, "t", at(0));
        assert_eq!(sim.payloads(late), Vec::<String>::new());
    }
}

/// 5.0: [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.3.1-12] [MQTT-3.3.1-13]
#[test]
fn retain_handling_and_retain_as_published_are_independent() {
    use RetainHandling::{DoNotSend, Send, SendIfNew};
    for retain_as_published in [false, true] {
        for (handling, first, again) in [(Send, 1, 1), (SendIfNew, 1, 0), (DoNotSend, 0, 0)] {
            let options = SubscribeOptions {
                retain_handling: handling,
                retain_as_published,
                ..at(1)
            };
            let mut sim = Sim::new();
            let publisher = sim.client(V5, "pub");
            sim.send(publisher, retained("t", "x"));
            let client = sim.client(V5, "c");
            for expected in [first, again] {
                sim.subscribe(client, "t", options);
                let got = sim.publishes(client);
                assert_eq!(got.len(), expected, "{handling:?}");
                assert!(got.iter().all(|p| p.retain), "brought by the subscription");
            }
            sim.send(publisher, retained("t", "y"));
            sim.send(publisher, once("t", "z"));
            let flags: Vec<bool> = sim.publishes(client).iter().map(|p| p.retain).collect();
            assert_eq!(flags, [retain_as_published, false]);
        }
    }
}
