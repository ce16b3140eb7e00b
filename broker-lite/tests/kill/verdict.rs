//! What was acknowledged against what arrived.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    clients::{Got, Ledger},
    place::wait_until,
};

/// Topics whose messages come once where the subscription is of QoS 2.
const ONCE: [&str; 4] = ["t/2", "t/3", "t/expiring", "t/will"];
/// A message that has expired long before the absent subscriber comes.
const SHORT: &str = "t/short";

/// One subscriber, or the members of a group together.
struct Receiver {
    name: &'static str,
    /// Its subscription is of QoS 2.
    exact: bool,
    members: Vec<Got>,
}

impl Receiver {
    fn got(&self) -> BTreeMap<String, Vec<u32>> {
        let mut all: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for member in &self.members {
            for (topic, numbers) in &*member.lock().unwrap() {
                all.entry(topic.clone()).or_default().extend(numbers);
            }
        }
        all
    }

    fn count(&self) -> usize {
        let counts = self.members.iter().map(|member| {
            let got = member.lock().unwrap();
            got.values().map(Vec::len).sum::<usize>()
        });
        counts.sum()
    }

    /// Everything that was acknowledged is there, once where that is promised, in order where one
    /// session got it.
    fn check(&self) {
        for (topic, numbers) in self.got() {
            let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
            if self.exact && ONCE.contains(&topic.as_str()) {
                let twice = numbers.len() - distinct.len();
                assert_eq!(twice, 0, "{}: messages of {topic} came twice", self.name);
            }
            if let [member] = &self.members[..] {
                let mut seen = BTreeSet::new();
                let mut firsts = member.lock().unwrap()[&topic].clone();
                firsts.retain(|number| seen.insert(*number));
                assert!(
                    firsts.is_sorted(),
                    "{}: {topic} came out of order",
                    self.name
                );
            }
        }
    }
}

/// See the module's description.
pub(crate) struct Verdict {
    acknowledged: BTreeMap<&'static str, BTreeSet<u32>>,
    receivers: Vec<Receiver>,
}

impl Verdict {
    /// `got` is of exact, least, the group's two members, and absent.
    pub(crate) fn new(ledger: &Ledger, got: [Got; 5]) -> Verdict {
        let [exact, least, first, second, absent] = got;
        let receiver = |name, exact, members| Receiver {
            name,
            exact,
            members,
        };
        Verdict {
            acknowledged: ledger.acknowledged.lock().unwrap().clone(),
            receivers: vec![
                receiver("exact", true, vec![exact]),
                receiver("least", false, vec![least]),
                receiver("the group", true, vec![first, second]),
                receiver("absent", true, vec![absent]),
            ],
        }
    }

    /// Until every receiver has everything, as long as it gets on.
    pub(crate) fn wait(&self) {
        for receiver in &self.receivers {
            loop {
                let before = receiver.count();
                let missing = self.missing(receiver);
                if missing == 0 {
                    break;
                }
                let what = format!("{}, which lacks {missing}, gets more", receiver.name);
                wait_until(&what, || receiver.count() > before);
            }
        }
    }

    pub(crate) fn check(&self) {
        for receiver in &self.receivers {
            assert_eq!(
                self.missing(receiver),
                0,
                "{} lacks messages",
                receiver.name
            );
            receiver.check();
        }
        let absent = self.receivers.last().unwrap().got();
        assert!(!absent.contains_key(SHORT), "an expired message came");
    }

    /// For the record.
    pub(crate) fn summary(&self) -> String {
        let acknowledged: usize = self.acknowledged.values().map(BTreeSet::len).sum();
        let (mut got, mut repeated) = (0, 0);
        for receiver in &self.receivers {
            for numbers in receiver.got().values() {
                let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
                got += numbers.len();
                repeated += numbers.len() - distinct.len();
            }
        }
        format!(
            "{acknowledged} messages acknowledged, {got} deliveries to {} receivers, 0 lost, \
             0 of QoS 2 twice, {repeated} of QoS 1 again",
            self.receivers.len()
        )
    }

    fn missing(&self, receiver: &Receiver) -> usize {
        let got = receiver.got();
        let missing = self.acknowledged.iter().map(|(topic, numbers)| {
            let got: BTreeSet<u32> = got.get(*topic).into_iter().flatten().copied().collect();
            numbers.difference(&got).count()
        });
        missing.sum()
    }
}
