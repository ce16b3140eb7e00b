//! Counts what the rows of each forward rule take, for the rules that have a quota.
//!
//! Invariant: a topic counts for the first rule that matches it, as it does for its priority. Core.

use std::{collections::HashMap, sync::Arc};

use broker_lite::topic::{TopicFilter, TopicName};

use super::retention::{RANKS, Rank};

/// Share of a quota that is freed at once, so that not each message evicts one.
const SLACK_SHARE: u64 = 16;

/// What a forward rule means to the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) filter: TopicFilter,
    pub(crate) rank: Rank,
    /// Bytes that its rows may take.
    pub(crate) quota: Option<u64>,
    /// Rows of which nobody is promised more wait in memory.
    pub(crate) memory_first: bool,
}

/// The first rule that matches.
pub(crate) fn find<'a>(rules: &'a [Rule], topic: &TopicName) -> Option<(usize, &'a Rule)> {
    let matching = |(_, rule): &(usize, &Rule)| rule.filter.matches(topic);
    rules.iter().enumerate().find(matching)
}

/// What the rows of each rule take; a clone is cheap, since each transaction works on one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    rules: Arc<[Rule]>,
    /// Topics by their number in the file, where their rule has a quota.
    rule_of: Arc<HashMap<i64, usize>>,
    used: Vec<u64>,
    /// Rows up to which no row of the rule waits, per rank.
    passed: Vec<[i64; RANKS]>,
}

impl Usage {
    /// Counts anew, for these rules.
    pub(crate) fn new<'a>(
        rules: &Arc<[Rule]>,
        topics: impl Iterator<Item = (&'a TopicName, i64, u64)>,
    ) -> Usage {
        let mut usage = Usage {
            rules: Arc::clone(rules),
            rule_of: Arc::default(),
            used: vec![0; rules.len()],
            passed: vec![[-1; RANKS]; rules.len()],
        };
        for (name, topic, bytes) in topics {
            usage.meet(name, topic);
            usage.add(topic, bytes as i64);
        }
        usage
    }

    /// Whether these are the rules that it counts for.
    pub(crate) fn follows(&self, rules: &Arc<[Rule]>) -> bool {
        Arc::ptr_eq(&self.rules, rules)
    }

    /// A topic that was not there before.
    pub(crate) fn meet(&mut self, name: &TopicName, topic: i64) {
        if let Some((index, rule)) = find(&self.rules, name)
            && rule.quota.is_some()
        {
            Arc::make_mut(&mut self.rule_of).insert(topic, index);
        }
    }

    /// A topic that is forgotten.
    pub(crate) fn forget(&mut self, topic: i64) {
        if self.rule_of.contains_key(&topic) {
            Arc::make_mut(&mut self.rule_of).remove(&topic);
        }
    }

    /// Rows of the topic came, or went.
    pub(crate) fn add(&mut self, topic: i64, bytes: i64) {
        if let Some(rule) = self.rule_of.get(&topic) {
            let used = &mut self.used[*rule];
            *used = used.saturating_add_signed(bytes);
        }
    }

    /// The topic's rule, if it has a quota.
    pub(crate) fn rule_of(&self, topic: i64) -> Option<usize> {
        self.rule_of.get(&topic).copied()
    }

    /// Bytes to be freed before so many more fit; 0 when they do.
    pub(crate) fn excess(&self, rule: usize, more: u64) -> u64 {
        let Some(quota) = self.rules[rule].quota else {
            return 0;
        };
        let wanted = self.used[rule] + more;
        if wanted <= quota {
            return 0;
        }
        (wanted - quota) + quota / SLACK_SHARE
    }

    /// Whether a message of this size can fit at all.
    pub(crate) fn can_hold(&self, rule: usize, bytes: u64) -> bool {
        self.rules[rule].quota.is_none_or(|quota| bytes <= quota)
    }

    /// The row behind which the rule's oldest is to be looked for.
    pub(crate) fn passed(&self, rule: usize, rank: Rank) -> i64 {
        self.passed[rule][rank.index()]
    }

    /// No row of the rule waits up to this one.
    pub(crate) fn pass(&mut self, rule: usize, rank: Rank, row: i64) {
        self.passed[rule][rank.index()] = row;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Priority;

    #[test]
    fn rows_count_for_the_first_rule_that_matches_their_topic() {
        let rules: Arc<[Rule]> = [
            rule("a/b", Some(1000)),
            rule("a/#", Some(160)),
            rule("#", None),
        ]
        .into_iter()
        .collect();
        let names = ["a/b", "a/c", "d"].map(|name| TopicName::parse(name).unwrap());
        let topics = names.iter().zip([(1, 100), (2, 100), (3, 5000)]);
        let mut usage = Usage::new(&rules, topics.map(|(name, (id, bytes))| (name, id, bytes)));
        assert_eq!(
            [1, 2, 3].map(|id| usage.rule_of(id)),
            [Some(0), Some(1), None]
        );
        assert_eq!(usage.excess(0, 900), 0);
        assert_eq!(usage.excess(1, 60), 0);
        assert_eq!(usage.excess(1, 61), 1 + 10, "and a sixteenth to spare");
        usage.add(2, -50);
        assert_eq!(usage.excess(1, 61), 0);
        assert!(!usage.can_hold(1, 161));
    }

    fn rule(filter: &str, quota: Option<u64>) -> Rule {
        Rule {
            filter: TopicFilter::parse(filter).unwrap(),
            rank: Rank::of(Priority::Normal),
            quota,
            memory_first: false,
        }
    }
}
