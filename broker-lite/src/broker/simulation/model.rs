//! What was sent, acknowledged and received, and what MQTT promises about it. Tests only.
//!
//! Every topic has one publisher, which numbers its messages; so loss, repetition and order show in
//! the numbers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use crate::packet::{Publish, QoS};

/// A message as its publisher knows it.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) topic: &'static str,
    pub(super) number: u32,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) expires_at: Option<Instant>,
    pub(super) expiry_s: Option<u32>,
}

/// What is known of one topic.
#[derive(Debug, Default)]
struct Topic {
    sent: BTreeMap<u32, Sent>,
    /// Acknowledged to their publisher.
    done: BTreeSet<u32>,
    /// Refused to their publisher.
    refused: BTreeSet<u32>,
    /// Refused by the keeper at least once, to come again or not.
    not_kept: BTreeSet<u32>,
}

/// The account of one run.
#[derive(Debug, Default)]
pub(super) struct Model {
    topics: BTreeMap<String, Topic>,
    /// By receiver and topic, in the order of their coming.
    got: HashMap<&'static str, BTreeMap<String, Vec<u32>>>,
    /// Messages that receivers took as new.
    pub(super) delivered: usize,
}

impl Model {
    pub(super) fn sent(&mut self, message: &Sent) {
        let topic = self.topics.entry(message.topic.to_owned()).or_default();
        topic.sent.insert(message.number, message.clone());
    }

    pub(super) fn acknowledged(&mut self, message: &Sent) {
        let topic = self.topics.entry(message.topic.to_owned()).or_default();
        topic.done.insert(message.number);
    }

    pub(super) fn refused(&mut self, message: &Sent) {
        let topic = self.topics.entry(message.topic.to_owned()).or_default();
        topic.refused.insert(message.number);
    }

    pub(super) fn not_kept(&mut self, topic: &str, number: u32) {
        let topic = self.topics.entry(topic.to_owned()).or_default();
        topic.not_kept.insert(number);
    }

    pub(super) fn received(&mut self, name: &'static str, topic: &str, publish: &Publish) {
        let number = number(&publish.payload);
        if let Some(sent) = self
            .topics
            .get(topic)
            .and_then(|known| known.sent.get(&number))
        {
            check_hop(name, sent, publish);
        }
        self.delivered += 1;
        let topics = self.got.entry(name).or_default();
        topics.entry(topic.to_owned()).or_default().push(number);
    }

    pub(super) fn got(&self, name: &str, topic: &str) -> Vec<u32> {
        let topics = self.got.get(name);
        topics
            .and_then(|topics| topics.get(topic))
            .cloned()
            .unwrap_or_default()
    }

    /// Never more than once, never out of order [MQTT-4.6.0-5].
    pub(super) fn check_order(&self, name: &str, exactly: bool) {
        for (topic, known) in &self.topics {
            let got = self.got(name, topic);
            let firsts = firsts(&got);
            // What was refused or expired and comes again takes its place anew.
            let in_order = firsts.iter().filter(|number| {
                let lives_on = known.sent[*number].expires_at.is_none();
                lives_on && !known.not_kept.contains(number)
            });
            assert!(
                in_order.is_sorted(),
                "{topic} to {name} out of order: {got:?}"
            );
            let qos = known.sent.values().map(|sent| sent.qos).next();
            if exactly && qos == Some(QoS::ExactlyOnce) || qos == Some(QoS::AtMostOnce) {
                assert_eq!(firsts, got, "{topic} to {name}: some came twice");
            }
            if qos == Some(QoS::ExactlyOnce) {
                let refused = firsts.iter().find(|number| known.refused.contains(number));
                assert_eq!(refused, None, "{topic} to {name}: it was refused");
            }
        }
    }

    /// Whoever was acknowledged can rely on these receivers together [MQTT-4.3.2-1].
    pub(super) fn check_arrival(&self, names: &[&str], prefix: &str, now: Instant) {
        for (topic, known) in self
            .topics
            .iter()
            .filter(|(topic, _)| topic.starts_with(prefix))
        {
            for number in &known.done {
                let expired = known.sent[number].expires_at.is_some_and(|at| at <= now);
                let arrived = names
                    .iter()
                    .any(|name| self.got(name, topic).contains(number));
                assert!(
                    arrived || expired,
                    "{topic}: {number} was acknowledged and is lost to {names:?}"
                );
            }
        }
    }

    /// A shared subscription whose members stay gives each message to one of them.
    pub(super) fn check_shared_once(&self, names: &[&str]) {
        for (topic, known) in &self.topics {
            if known.sent.values().any(|sent| sent.qos == QoS::AtLeastOnce) {
                continue;
            }
            let all: Vec<u32> = names
                .iter()
                .flat_map(|name| self.got(name, topic))
                .collect();
            assert_eq!(
                firsts(&all).len(),
                all.len(),
                "{topic}: two of {names:?} got the same"
            );
        }
    }

    /// A late subscriber finds the last retained message that was acknowledged, or a later one.
    pub(super) fn check_retained(&self, name: &str) {
        for (topic, known) in &self.topics {
            let is_retained = |number: &&u32| known.sent[*number].retain;
            let Some(last) = known.done.iter().rev().find(is_retained) else {
                continue;
            };
            match self.got(name, topic)[..] {
                [found] => assert!(
                    found >= *last && known.sent[&found].retain,
                    "{topic} retains {found}, though {last} was acknowledged"
                ),
                ref other => panic!("{topic} retains {other:?}, though {last} was acknowledged"),
            }
        }
    }
}

/// What one PUBLISH shows by itself.
fn check_hop(name: &str, sent: &Sent, publish: &Publish) {
    let (topic, number) = (sent.topic, sent.number);
    if let (Some(left), Some(lives)) = (publish.message_expiry_s, sent.expiry_s) {
        assert!(
            left <= lives,
            "{topic} {number} to {name} lives longer than it was to"
        );
        let late = left == 0 && !publish.dup;
        assert!(
            !late,
            "{topic} {number} to {name} came after its time [MQTT-3.3.2-5]"
        );
    }
    assert!(
        publish.delivery.qos() <= sent.qos,
        "{topic} {number} to {name} gained QoS"
    );
    if name == "exact" && topic.starts_with("t/") {
        let mut ids: Vec<u32> = publish
            .subscription_ids
            .iter()
            .map(|id| id.value())
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2], "one copy for two subscriptions [MQTT-3.3.4-3]");
    }
    assert!(!(name == "b" && topic == "t/b"), "no local [MQTT-3.8.3-3]");
}

pub(super) fn number(payload: &[u8]) -> u32 {
    std::str::from_utf8(payload)
        .expect("text")
        .parse()
        .expect("a number")
}

/// Without repetitions, in the order of the first coming.
pub(super) fn firsts(all: &[u32]) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    all.iter()
        .copied()
        .filter(|number| seen.insert(*number))
        .collect()
}
