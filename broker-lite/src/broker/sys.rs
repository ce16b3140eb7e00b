//! Publishes the `$SYS` topics: what they are worth is found when somebody subscribes, and told
//! anew at intervals while somebody listens.
//!
//! Core. Invariant: while no connected client listens nothing is computed and no timer runs; they
//! are never stored, and cost nothing of the limits of retained messages.

use std::{sync::Arc, time::Instant};

use crate::{
    broker::{Core, SessionId, Timer},
    message::Message,
    observe::sys::{self, Value},
    packet::QoS,
    publication::Publication,
    session::Link,
    topic::TopicFilter,
};

/// What stands between two rounds.
#[derive(Debug, Default)]
pub(super) struct Sys {
    due: Option<Instant>,
    /// What was told last; unchanged values are not told again.
    told: Vec<Value>,
}

impl Core {
    /// A client subscribes: its `$SYS` topics are told from now on.
    pub(super) fn watch_sys(&mut self, filter: &TopicFilter, now: Instant) {
        if sys::may_match(filter) && self.sys.due.is_none() {
            self.arm_sys(now);
        }
    }

    /// A client is there again, with the subscriptions that it had.
    pub(super) fn watch_sys_again(&mut self, session: SessionId, now: Instant) {
        if self.sys.due.is_none() && self.listens(session) {
            self.arm_sys(now);
        }
    }

    /// The topics that match a new subscription, as they are at this moment.
    pub(super) fn sys_matching(
        &mut self,
        filter: &TopicFilter,
        now: Instant,
    ) -> Vec<Arc<Publication>> {
        if self.rules.sys_interval.is_zero() || !sys::may_match(filter) {
            return Vec::new();
        }
        let values = sys::values(&self.summary(now));
        let matching = values.iter().filter(|value| filter.matches(&value.topic));
        matching
            .map(|value| self.sys_publication(value, now))
            .collect()
    }

    /// Tells those who listen what has changed.
    pub(super) fn sys_is_due(&mut self, now: Instant) {
        self.sys.due = None;
        let watched = self
            .sessions
            .iter()
            .any(|(id, _)| self.listens(SessionId(id)));
        if !watched {
            self.sys.told = Vec::new();
            return;
        }
        let values = sys::values(&self.summary(now));
        let told = std::mem::take(&mut self.sys.told);
        for (index, value) in values.iter().enumerate() {
            if told.get(index) != Some(value) {
                let publication = self.sys_publication(value, now);
                self.fan_out(&publication, None, now);
            }
        }
        self.sys.told = values;
        self.arm_sys(now);
    }

    fn listens(&self, session: SessionId) -> bool {
        let session = self.sessions.get(session.0);
        session.is_some_and(|session| {
            let mut filters = session.subscriptions.iter();
            session.link != Link::Absent && filters.any(|known| sys::may_match(&known.filter))
        })
    }

    fn arm_sys(&mut self, now: Instant) {
        let interval = self.rules.sys_interval;
        if !interval.is_zero() {
            let due = now.checked_add(interval);
            self.set_timer(self.sys.due, due, Timer::Sys);
            self.sys.due = due;
        }
    }

    fn sys_publication(&mut self, value: &Value, now: Instant) -> Arc<Publication> {
        let message = Message::new(value.topic.clone(), value.text.clone());
        let message = message.with_qos(QoS::AtMostOnce).retained();
        self.publication(message, None, now)
    }
}
