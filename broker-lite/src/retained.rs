//! The last known value of each topic. A core.
//!
//! Invariant: neither the configured number of messages nor their bytes are exceeded.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::Identity,
    config::Limits,
    journal::Journal,
    memory::{Charge, Meter},
    publication::Publication,
    topic::{TopicFilter, TopicName},
};

/// A retained message and who published it.
#[derive(Debug)]
pub(crate) struct Retained {
    pub(crate) publication: Arc<Publication>,
    /// Absent for publishers in this process.
    pub(crate) publisher: Option<Arc<Identity>>,
}

impl Retained {
    /// What it costs beside its message; its publisher may have gone, and live on here alone.
    fn entry_bytes(&self) -> usize {
        let publisher = self.publisher.as_ref();
        ENTRY_BYTES + publisher.map_or(0, |publisher| publisher.size())
    }
}

/// There is no room for another retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// A look at the next few topics.
#[derive(Debug)]
pub(crate) struct Slice {
    /// What matched, in the order of topics.
    pub(crate) found: Vec<Arc<Publication>>,
    /// How many were looked at.
    pub(crate) looked: usize,
    /// The last of them, unless there are no more.
    pub(crate) last: Option<TopicName>,
}

/// What a retained message costs beside itself: its place in the order of topics.
const ENTRY_BYTES: usize = 96;

/// All are looked through for expired ones no more often than this.
const LOOK_THROUGH_PAUSE: Duration = Duration::from_secs(1);

/// Retained messages in the order of their topics.
#[derive(Debug)]
pub(crate) struct RetainedMessages {
    by_topic: BTreeMap<TopicName, Retained>,
    bytes: usize,
    /// Beside the messages: entries and their publishers.
    entry_bytes: usize,
    look_through_at: Option<Instant>,
    charge: Charge,
}

impl RetainedMessages {
    /// None, counted on `meter` as they come.
    pub(crate) fn new(meter: &Meter) -> RetainedMessages {
        RetainedMessages {
            by_topic: BTreeMap::new(),
            bytes: 0,
            entry_bytes: 0,
            look_through_at: None,
            charge: meter.charge(0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Bytes that they occupy, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a message as its topic's value; one without payload clears it [MQTT-3.3.1-6]. What
    /// finds no room leaves its topic without a value, for the old one is no longer true.
    pub(crate) fn set(
        &mut self,
        retained: Retained,
        limits: &Limits,
        may_grow: bool,
        now: Instant,
        journal: &mut Journal,
    ) -> Result<(), Full> {
        let publication = &retained.publication;
        let topic = publication.message.topic.clone();
        let is_empty = publication.message.payload.is_empty();
        let takes =
            !is_empty && self.takes(&topic, publication.size(), limits, may_grow, now, journal);
        self.remove(&topic, journal);
        if takes {
            journal.retained(&retained.publication, retained.publisher.as_ref());
            self.insert(retained);
        }
        match takes || is_empty {
            true => Ok(()),
            false => Err(Full),
        }
    }

    /// Whether a message of this size would be kept. Unless they `may_grow`, all that is taken are
    /// other values of known topics, no larger ones.
    pub(crate) fn takes(
        &mut self,
        topic: &TopicName,
        size: usize,
        limits: &Limits,
        may_grow: bool,
        now: Instant,
        journal: &mut Journal,
    ) -> bool {
        let (_, freed) = self.freed_by(topic);
        if !may_grow && size > freed {
            return false;
        }
        if !self.has_room(topic, size, limits) && self.may_look_through(now) {
            self.drop_expired(now, journal);
        }
        self.has_room(topic, size, limits)
    }

    /// What a new subscriber to `filter` is to be sent, except what `but_not_of` published, of the
    /// next `count` topics after one.
    pub(crate) fn slice(
        &self,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        count: usize,
        but_not_of: Option<&str>,
        now: Instant,
    ) -> Slice {
        let is_own = |retained: &Retained| {
            let publisher = retained.publisher.as_ref();
            but_not_of.is_some_and(|own| publisher.is_some_and(|one| one.client == own))
        };
        let prefix = literal_prefix(filter);
        let from = match after {
            Some(topic) => Bound::Excluded(topic.clone()),
            None => TopicName::parse(prefix).map_or(Bound::Unbounded, Bound::Included),
        };
        let mut topics = self
            .by_topic
            .range((from, Bound::Unbounded))
            .take_while(|(topic, _)| topic.as_str().starts_with(prefix));
        let (mut found, mut looked, mut last) = (Vec::new(), 0, None);
        for (topic, retained) in topics.by_ref().take(count) {
            if filter.matches(topic) && !retained.publication.is_expired(now) && !is_own(retained) {
                found.push(Arc::clone(&retained.publication));
            }
            looked += 1;
            last = Some(topic);
        }
        let has_more = topics.next().is_some();
        Slice {
            found,
            looked,
            last: last.filter(|_| has_more).cloned(),
        }
    }

    /// The topics matching `filter` whose value was published within this process, in this run or
    /// an earlier one.
    pub(crate) fn of_this_process(&self, filter: &TopicFilter) -> Vec<TopicName> {
        let own = self
            .by_topic
            .iter()
            .filter(|(_, one)| one.publisher.is_none());
        let topics = own.map(|(topic, _)| topic);
        topics
            .filter(|topic| filter.matches(topic))
            .cloned()
            .collect()
    }

    /// What another value of this topic would replace: messages, and their bytes.
    fn freed_by(&self, topic: &TopicName) -> (usize, usize) {
        let old = self.by_topic.get(topic);
        old.map_or((0, 0), |old| (1, old.publication.size()))
    }

    fn has_room(&self, topic: &TopicName, size: usize, limits: &Limits) -> bool {
        let (messages, bytes) = self.freed_by(topic);
        self.by_topic.len() - messages < limits.retained_messages as usize
            && self.bytes - bytes + size <= limits.retained_bytes.as_len()
    }

    /// Puts back a value that an earlier run has stored.
    pub(crate) fn restore(&mut self, retained: Retained) {
        self.insert(retained);
    }

    fn insert(&mut self, retained: Retained) {
        self.bytes += retained.publication.size();
        self.entry_bytes += retained.entry_bytes();
        self.charge.set(self.entry_bytes);
        self.by_topic
            .insert(retained.publication.message.topic.clone(), retained);
    }

    /// Whether a topic has a value.
    pub(crate) fn has(&self, topic: &TopicName) -> bool {
        self.by_topic.contains_key(topic)
    }

    /// Enters everything anew.
    pub(crate) fn record_all(&self, journal: &mut Journal) {
        for retained in self.by_topic.values() {
            journal.retained(&retained.publication, retained.publisher.as_ref());
        }
    }

    /// Ends a topic's value.
    fn remove(&mut self, topic: &TopicName, journal: &mut Journal) {
        if let Some(old) = self.by_topic.remove(topic) {
            journal.retained_gone(&old.publication);
            self.bytes -= old.publication.size();
            self.entry_bytes -= old.entry_bytes();
            self.charge.set(self.entry_bytes);
        }
    }

    /// Drops what its publisher could no longer publish (CVE-2018-12546).
    pub(crate) fn recheck(
        &mut self,
        may_publish: impl Fn(&Identity, &TopicName) -> bool,
        journal: &mut Journal,
    ) {
        let keeps = |retained: &Retained| {
            let publisher = retained.publisher.as_ref();
            let topic = &retained.publication.message.topic;
            publisher.is_none_or(|publisher| may_publish(publisher, topic))
        };
        self.keep_only(keeps, journal);
    }

    /// Whether expired ones may be looked for again: a flood that finds no room must not have all
    /// of them looked through for each message.
    fn may_look_through(&mut self, now: Instant) -> bool {
        let due = self.look_through_at.is_none_or(|at| at <= now);
        if due {
            self.look_through_at = Some(now + LOOK_THROUGH_PAUSE);
        }
        due
    }

    fn drop_expired(&mut self, now: Instant, journal: &mut Journal) {
        self.keep_only(|retained| !retained.publication.is_expired(now), journal);
    }

    fn keep_only(&mut self, keeps: impl Fn(&Retained) -> bool, journal: &mut Journal) {
        self.by_topic.retain(|_, retained| {
            let kept = keeps(retained);
            if !kept {
                journal.retained_gone(&retained.publication);
            }
            kept
        });
        self.count_bytes();
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Publication> {
        let publications = self.by_topic.values().map(|retained| &retained.publication);
        publications.map(|publication| &**publication)
    }

    /// # Panics
    /// A limit is exceeded, or the account of the bytes is wrong.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn check(&self, limits: &Limits) {
        let bytes: usize = self.iter().map(Publication::size).sum();
        assert_eq!(self.bytes, bytes, "bytes of retained messages");
        assert!(self.bytes <= limits.retained_bytes.as_len());
        assert!(self.by_topic.len() <= limits.retained_messages as usize);
    }

    fn count_bytes(&mut self) {
        let all = || self.by_topic.values();
        self.bytes = all().map(|retained| retained.publication.size()).sum();
        self.entry_bytes = all().map(Retained::entry_bytes).sum();
        self.charge.set(self.entry_bytes);
    }
}

/// What every matching topic begins with; `a/#` also matches `a`, so the last slash is left out.
fn literal_prefix(filter: &TopicFilter) -> &str {
    let text = filter.as_str();
    match text.find(['+', '#']) {
        Some(wildcard) => text[..wildcard].trim_end_matches('/'),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    fn retained(topic: &str, payload: &'static str) -> Retained {
        let topic = TopicName::parse(topic).expect("a topic name");
        let message = Message::new(topic, payload).retained();
        let now = crate::broker::sim::start();
        Retained {
            publication: Arc::new(Publication::new(message, now, 0, &Meter::default())),
            publisher: None,
        }
    }

    fn set(all: &mut RetainedMessages, retained: Retained, limits: &Limits) -> Result<(), Full> {
        let now = crate::broker::sim::start();
        all.set(retained, limits, true, now, &mut Journal::off())
    }

    fn topics(all: &RetainedMessages, filter: &str) -> Vec<String> {
        let filter = TopicFilter::parse(filter).expect("a filter");
        let slice = all.slice(&filter, None, 100, None, crate::broker::sim::start());
        let found = slice.found.iter();
        found
            .map(|publication| publication.message.topic.as_str().to_owned())
            .collect()
    }

    #[test]
    fn values_of_this_process_are_told_from_those_of_clients() {
        let (mut all, limits) = (RetainedMessages::new(&Meter::default()), Limits::default());
        for topic in ["state/a", "state/b", "other/a"] {
            set(&mut all, retained(topic, "1"), &limits).expect("room");
        }
        let client = Identity {
            user: None,
            client: "press".to_owned(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        let theirs = Retained {
            publisher: Some(Arc::new(client)),
            ..retained("state/c", "1")
        };
        set(&mut all, theirs, &limits).expect("room");
        let filter = TopicFilter::parse("state/+").expect("a filter");
        let own = all.of_this_process(&filter);
        let own: Vec<&str> = own.iter().map(TopicName::as_str).collect();
        assert_eq!(own, ["state/a", "state/b"]);
    }

    #[test]
    fn a_filter_finds_the_values_of_all_its_topics() {
        let (mut all, limits) = (RetainedMessages::new(&Meter::default()), Limits::default());
        for topic in ["a", "a/b", "a/b/c", "a!", "b", "$SYS/x", "/a"] {
            set(&mut all, retained(topic, "1"), &limits).expect("room");
        }
        assert_eq!(topics(&all, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(topics(&all, "a/+"), ["a/b"]);
        assert_eq!(topics(&all, "+/b/#"), ["a/b", "a/b/c"]);
        assert_eq!(topics(&all, "#"), ["/a", "a", "a!", "a/b", "a/b/c", "b"]);
        assert_eq!(topics(&all, "$SYS/#"), ["$SYS/x"]);
        assert_eq!(topics(&all, "/+"), ["/a"]);
    }

    #[test]
    fn an_empty_payload_clears_the_value_and_its_bytes() {
        let (mut all, limits) = (RetainedMessages::new(&Meter::default()), Limits::default());
        set(&mut all, retained("a", "1"), &limits).expect("room");
        set(&mut all, retained("a", ""), &limits).expect("room");
        assert_eq!((all.len(), all.bytes), (0, 0));
    }

    #[test]
    fn expired_values_make_room_but_are_looked_for_once_a_second() {
        let limits = Limits {
            retained_messages: 2,
            ..Limits::default()
        };
        let mut all = RetainedMessages::new(&Meter::default());
        let start = crate::broker::sim::start();
        let mut set_at = |topic: &str, expiry_s, after_ms| {
            let topic = TopicName::parse(topic).expect("a topic name");
            let mut message = Message::new(topic, "1").retained();
            message.expiry_s = expiry_s;
            let now = start + Duration::from_millis(after_ms);
            let retained = Retained {
                publication: Arc::new(Publication::new(message, now, 0, &Meter::default())),
                publisher: None,
            };
            all.set(retained, &limits, true, now, &mut Journal::off())
        };
        assert_eq!(set_at("brief", Some(1), 0), Ok(()));
        assert_eq!(set_at("lasting", None, 0), Ok(()));
        assert_eq!(set_at("new", None, 999), Err(Full), "nothing has expired");
        assert_eq!(
            set_at("new", None, 1_998),
            Err(Full),
            "not looked for again"
        );
        assert_eq!(set_at("new", None, 1_999), Ok(()));
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn a_full_store_takes_no_new_topic_but_new_values() {
        let limits = Limits {
            retained_messages: 1,
            ..Limits::default()
        };
        let mut all = RetainedMessages::new(&Meter::default());
        assert_eq!(set(&mut all, retained("a", "1"), &limits), Ok(()));
        assert_eq!(set(&mut all, retained("b", "1"), &limits), Err(Full));
        assert_eq!(set(&mut all, retained("a", "2"), &limits), Ok(()));
    }
}
