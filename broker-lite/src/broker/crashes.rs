//! Crashes at any instant, with a disk that keeps what was committed and nothing else. A core's
//! tests. Every acknowledged message arrives, QoS 2 exactly once; a failure names its seed.

use crate::{
    broker::{
        sim::{
            Client, Sim, goodbye, hello, id, lasting, once, puback, pubcomp, publish, pubrec,
            pubrel, qos1, qos2, retained, subscribe,
        },
        simulation::{Dice, Publisher, STEPS, Subscriber},
    },
    config::Limits,
    packet::{Delivery, Packet, Publish, QoS, ReasonCode, SubscribeOptions, Version},
};

const SEEDS: u64 = 300;

struct World {
    sim: Sim,
    dice: Dice,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    crashes: u32,
}

impl World {
    fn new(seed: u64) -> World {
        let limits = Limits {
            in_flight: 4,
            ..Limits::default()
        };
        let mut world = World {
            sim: Sim::storing(limits),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            publishers: vec![
                Publisher::new("a", Version::V3, "t/a", QoS::AtLeastOnce),
                Publisher::new("b", Version::V5, "t/b", QoS::AtLeastOnce),
                Publisher::new("c", Version::V3, "t/c", QoS::ExactlyOnce),
                Publisher::new("d", Version::V5, "t/d", QoS::ExactlyOnce),
            ],
            subscribers: vec![
                Subscriber::new("exact", Version::V5, QoS::ExactlyOnce),
                Subscriber::new("least", Version::V3, QoS::AtLeastOnce),
            ],
            crashes: 0,
        };
        for name in ["a", "c", "least"] {
            begin(&mut world.sim, Version::V3, name);
        }
        for name in ["b", "d", "exact"] {
            begin(&mut world.sim, Version::V5, name);
        }
        let [exact, least] = &mut world.subscribers[..] else {
            unreachable!("two subscribers");
        };
        exact.begin(&mut world.sim);
        least.begin(&mut world.sim);
        world
    }

    fn notice_closed(&mut self) {
        let publishers = self.publishers.iter_mut().map(|one| &mut one.link);
        let subscribers = self.subscribers.iter_mut().map(|one| &mut one.link);
        for link in publishers.chain(subscribers) {
            if link.is_some_and(|client| self.sim.is_closed(client)) {
                *link = None;
            }
        }
    }

    fn step(&mut self) {
        self.notice_closed();
        let publisher = self.dice.roll(self.publishers.len() as u64) as usize;
        let subscriber = self.dice.roll(self.subscribers.len() as u64) as usize;
        match self.dice.roll(12) {
            0..=2 => self.publishers[publisher].publish(&mut self.sim),
            3 | 4 => self.publishers[publisher].read(&mut self.sim),
            5..=7 => self.subscribers[subscriber].read(&mut self.sim),
            8 | 9 => self.sim.commit(),
            10 if self.dice.one_in(6) => self.crash(),
            _ => self.come_or_go(publisher, subscriber),
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.sim.crash();
        for publisher in &mut self.publishers {
            publisher.link = None;
        }
        for subscriber in &mut self.subscribers {
            subscriber.link = None;
        }
    }

    fn come_or_go(&mut self, publisher: usize, subscriber: usize) {
        let publisher = &mut self.publishers[publisher];
        match publisher.link {
            None => publisher.connect(&mut self.sim),
            Some(link) if self.dice.one_in(8) => {
                self.sim.cut(link);
                publisher.link = None;
            }
            Some(_) => {}
        }
        let subscriber = &mut self.subscribers[subscriber];
        match subscriber.link {
            None => subscriber.connect(&mut self.sim),
            Some(link) if self.dice.one_in(8) => {
                self.sim.cut(link);
                subscriber.link = None;
            }
            Some(_) => {}
        }
    }

    /// Nothing fails any more: everything must come to its end.
    fn settle(&mut self) {
        for _ in 0..STEPS {
            self.notice_closed();
            for publisher in &mut self.publishers {
                if publisher.link.is_none() {
                    publisher.connect(&mut self.sim);
                }
                publisher.read(&mut self.sim);
            }
            for subscriber in &mut self.subscribers {
                if subscriber.link.is_none() {
                    subscriber.connect(&mut self.sim);
                }
                subscriber.read(&mut self.sim);
            }
            self.sim.commit();
        }
    }

    fn check(&self, seed: u64) {
        for publisher in &self.publishers {
            let name = publisher.name;
            let open = &publisher.open;
            assert!(open.is_empty(), "seed {seed}: {name} waits for {open:?}");
            for subscriber in &self.subscribers {
                check_one(seed, publisher, subscriber);
            }
        }
        let (messages, deliveries, sessions) = self.sim.disk.as_ref().unwrap().counts();
        assert_eq!(
            (messages, deliveries, sessions),
            (0, 0, 6),
            "seed {seed}: the disk keeps what is delivered"
        );
    }
}

fn check_one(seed: u64, publisher: &Publisher, subscriber: &Subscriber) {
    let (name, to) = (publisher.name, subscriber.name);
    let got = subscriber.got.get(publisher.topic);
    let got = got.cloned().unwrap_or_default();
    let mut firsts = Vec::new();
    for number in &got {
        if !firsts.contains(number) {
            firsts.push(*number);
        }
    }
    assert!(firsts.is_sorted(), "seed {seed}: {name} to {to}: {got:?}");
    for number in &publisher.done {
        let arrived = firsts.contains(number);
        assert!(
            arrived,
            "seed {seed}: {name}'s {number} was acknowledged and lost to {to}"
        );
    }
    if publisher.qos == QoS::ExactlyOnce && to == "exact" {
        assert_eq!(firsts, got, "seed {seed}: {name}'s messages came twice");
    }
}

/// Makes a session that is on disk.
fn begin(sim: &mut Sim, version: Version, name: &str) -> Client {
    let client = sim.try_connect(lasting(version, name));
    assert!(
        sim.take(client).is_empty(),
        "CONNACK waits for the session's commit"
    );
    sim.commit();
    match sim.next(client) {
        Some(Packet::ConnAck(ack)) => assert_eq!(ack.reason, ReasonCode::Success),
        other => panic!("no CONNACK but {other:?}"),
    }
    client
}

/// Makes a stored session with a stored subscription.
fn subscribed(sim: &mut Sim, name: &str, qos: QoS) -> Client {
    let client = begin(sim, Version::V5, name);
    sim.send(client, subscribe("t/#", SubscribeOptions::at(qos)));
    sim.commit();
    assert!(matches!(sim.take(client)[..], [Packet::SubAck(_)]));
    client
}

#[test]
fn whatever_crashes_every_acknowledged_message_arrives_and_qos_2_once() {
    let (mut delivered, mut crashes) = (0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        world.check(seed);
        crashes += world.crashes;
        let got = world.subscribers.iter().flat_map(|one| one.got.values());
        delivered += got.map(Vec::len).sum::<usize>();
    }
    assert!(
        delivered as u64 > SEEDS * 20 && u64::from(crashes) > SEEDS,
        "the simulation did something: {delivered} deliveries, {crashes} crashes"
    );
}

#[test]
fn a_puback_waits_for_the_commit_of_what_a_lasting_session_is_to_get() {
    let mut sim = Sim::storing(Limits::default());
    let absent = subscribed(&mut sim, "absent", QoS::AtLeastOnce);
    sim.lose(absent);
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos1("t/x", "1", 1));
    assert!(sim.take(publisher).is_empty());
    sim.commit();
    assert!(matches!(sim.take(publisher)[..], [Packet::PubAck(_)]));
}

#[test]
fn nothing_waits_for_the_disk_that_nobody_is_to_get_after_a_crash() {
    let mut sim = Sim::storing(Limits::default());
    let subscriber = sim.client(Version::V5, "subscriber");
    sim.subscribe(subscriber, "t/#", SubscribeOptions::at(QoS::ExactlyOnce));
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos1("t/x", "1", 1));
    sim.send(publisher, qos2("t/x", "2", 2));
    assert_eq!(sim.payloads(subscriber), ["t/x=1", "t/x=2"]);
    assert_eq!(sim.take(publisher).len(), 2);
    assert!(!sim.disk.unwrap().pending.writes());
}

#[test]
fn a_message_that_was_delivered_before_its_commit_is_never_written() {
    let mut sim = Sim::storing(Limits::default());
    let subscriber = subscribed(&mut sim, "subscriber", QoS::AtLeastOnce);
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos1("t/x", "1", 1));
    assert_eq!(sim.payloads(subscriber), ["t/x=1"]);
    sim.send(subscriber, puback(1));
    assert!(!sim.disk.as_ref().unwrap().pending.writes());
    sim.commit();
    assert!(matches!(sim.take(publisher)[..], [Packet::PubAck(_)]));
}

#[test]
fn one_message_for_several_absent_sessions_is_stored_once() {
    let mut sim = Sim::storing(Limits::default());
    for name in ["one", "two", "three"] {
        let absent = subscribed(&mut sim, name, QoS::AtLeastOnce);
        sim.lose(absent);
    }
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos1("t/x", "1", 1));
    sim.commit();
    assert_eq!(sim.disk.as_ref().unwrap().counts(), (1, 3, 3));
    let (one, present) = sim.connect(lasting(Version::V5, "one"));
    assert!(present);
    assert_eq!(sim.payloads(one), ["t/x=1"]);
    sim.send(one, puback(1));
    sim.commit();
    assert_eq!(sim.disk.as_ref().unwrap().counts(), (1, 2, 3));
}

#[test]
fn a_qos_2_exchange_goes_on_where_the_crash_stopped_it() {
    let mut sim = Sim::storing(Limits::default());
    let subscriber = subscribed(&mut sim, "subscriber", QoS::ExactlyOnce);
    let publisher = begin(&mut sim, Version::V5, "publisher");
    sim.send(publisher, qos2("t/x", "1", 7));
    assert!(
        sim.take(subscriber).is_empty(),
        "its identifier is not on disk yet"
    );
    sim.commit();
    assert_eq!(sim.payloads(subscriber), ["t/x=1"]);
    assert!(matches!(sim.take(publisher)[..], [Packet::PubRec(_)]));
    sim.send(subscriber, pubrec(1));
    assert!(
        sim.take(subscriber).is_empty(),
        "PUBREL waits for the commit"
    );
    sim.commit();
    sim.crash();

    let (subscriber, _) = sim.connect(lasting(Version::V5, "subscriber"));
    assert!(matches!(sim.take(subscriber)[..], [Packet::PubRel(_)]));
    sim.send(subscriber, pubcomp(1));
    let (publisher, _) = sim.connect(lasting(Version::V5, "publisher"));
    let repeated = Publish {
        dup: true,
        ..publish("t/x", "1", Delivery::ExactlyOnce(id(7)))
    };
    sim.send(publisher, Packet::Publish(repeated));
    assert!(matches!(sim.take(publisher)[..], [Packet::PubRec(_)]));
    sim.send(publisher, pubrel(7));
    assert!(
        sim.take(publisher).is_empty(),
        "PUBCOMP waits: the identifier is taken on disk"
    );
    sim.commit();
    assert!(matches!(sim.take(publisher)[..], [Packet::PubComp(_)]));
    assert!(sim.take(subscriber).is_empty());
}

#[test]
fn retained_messages_and_subscriptions_survive_and_so_does_their_removal() {
    let mut sim = Sim::storing(Limits::default());
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, retained("t/kept", "1"));
    sim.send(publisher, retained("t/kept", "2"));
    sim.send(publisher, retained("t/cleared", "1"));
    sim.commit();
    sim.send(publisher, retained("t/cleared", ""));
    sim.commit();
    sim.crash();
    let reader = sim.client(Version::V5, "reader");
    sim.subscribe(reader, "t/#", SubscribeOptions::at(QoS::AtMostOnce));
    assert_eq!(sim.payloads(reader), ["t/kept=2"]);
    assert_eq!(sim.disk.as_ref().unwrap().counts(), (1, 0, 0));
}

#[test]
fn a_clean_start_leaves_nothing_of_the_old_session() {
    let mut sim = Sim::storing(Limits::default());
    let client = subscribed(&mut sim, "client", QoS::AtLeastOnce);
    sim.lose(client);
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos1("t/x", "1", 1));
    sim.commit();
    let client = sim.try_connect(hello(Version::V5, "client"));
    assert!(sim.take(client).is_empty(), "CONNACK waits for the removal");
    sim.commit();
    assert!(matches!(sim.take(client)[..], [Packet::ConnAck(_)]));
    assert_eq!(sim.disk.as_ref().unwrap().counts(), (0, 0, 0));
    sim.send(client, goodbye());
}

#[test]
fn while_the_disk_fails_qos_0_passes_and_promises_wait() {
    let mut sim = Sim::storing(Limits::default());
    let subscriber = subscribed(&mut sim, "subscriber", QoS::ExactlyOnce);
    sim.core.handle_store_failing(true);
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos2("t/x", "held", 1));
    sim.send(publisher, once("t/x", "passes"));
    assert_eq!(sim.payloads(subscriber), ["t/x=passes"]);
    assert!(sim.take(publisher).is_empty());
    let refused = sim.try_connect(lasting(Version::V5, "late"));
    match &sim.take(refused)[..] {
        [Packet::ConnAck(ack), ..] => assert_eq!(ack.reason, ReasonCode::ServerUnavailable),
        other => panic!("no CONNACK but {other:?}"),
    }
    sim.core.handle_store_failing(false);
    sim.commit();
    assert_eq!(sim.payloads(subscriber), ["t/x=held"]);
    assert!(matches!(sim.take(publisher)[..], [Packet::PubRec(_)]));
}

#[test]
fn a_store_that_was_lost_gets_the_whole_state_anew() {
    let mut sim = Sim::storing(Limits::default());
    let absent = subscribed(&mut sim, "absent", QoS::ExactlyOnce);
    sim.lose(absent);
    let publisher = begin(&mut sim, Version::V5, "publisher");
    sim.send(publisher, qos2("t/x", "1", 1));
    sim.send(publisher, retained("t/r", "2"));
    sim.commit();
    sim.core.handle_store_lost();
    sim.commit();
    sim.crash();
    let (absent, present) = sim.connect(lasting(Version::V5, "absent"));
    assert!(present);
    sim.commit();
    assert_eq!(sim.payloads(absent), ["t/x=1"]);
    let (publisher, _) = sim.connect(lasting(Version::V5, "publisher"));
    sim.send(publisher, qos2("t/x", "1", 1));
    sim.commit();
    assert!(
        sim.payloads(absent).is_empty(),
        "it is known as a duplicate"
    );
    assert_eq!(sim.core.status(sim.now).retained, 1);
}
