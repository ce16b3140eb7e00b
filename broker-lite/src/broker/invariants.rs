//! What always holds of the broker's state, whatever clients, disk and clock do. A core's; for tests.

use std::collections::{BTreeSet, HashMap};

use super::{Core, Gated, Timer};
use crate::{
    address::source,
    ids::{ConnectionId, MessageKey, SessionId},
    session::{Link, Session},
};

impl Core {
    /// # Panics
    /// Something does not hold.
    pub(crate) fn check_invariants(&self) {
        self.check_links();
        for (client, id) in &self.by_client {
            let session = self.sessions.get(id.0).expect("a client's session");
            assert_eq!(**client, *session.identity.client);
            self.check_session(*id, session);
        }
        let lasting = self.sessions.iter().filter(|(_, one)| !one.is_transient());
        assert_eq!(self.lasting.len(), lasting.count(), "sessions that last");
        let subscriptions = self.sessions.iter().map(|(_, one)| one.subscriptions.len());
        assert_eq!(self.router.len(), subscriptions.sum::<usize>());
        self.retained.check(&self.rules.limits);
        self.check_timers();
        self.check_stored();
    }

    /// Nobody is connected and every session has ended: nothing of them may be left.
    ///
    /// # Panics
    /// Something is left.
    pub(crate) fn check_forgotten(&self) {
        self.check_invariants();
        assert_eq!(self.links.len(), 0, "connections");
        assert_eq!(self.sessions.len(), 0, "sessions");
        assert_eq!(self.router.len(), 0, "subscriptions");
        assert!(self.arrivals.counts().is_empty(), "addresses");
        assert!(self.timers.is_empty(), "{:?}", self.timers);
        assert!(self.gated.is_empty(), "{:?}", self.gated);
        assert!(self.pending.is_empty(), "{:?}", self.pending);
    }

    fn check_links(&self) {
        let mut by_address = HashMap::new();
        for (id, link) in self.links.iter() {
            if let Some(address) = link.peer.address.ip() {
                *by_address.entry(source(address)).or_insert(0) += 1;
            }
            let connection = ConnectionId(id);
            if let Some(session) = link.session() {
                let session = self.sessions.get(session.0).expect("a served session");
                assert_eq!(session.link, Link::Connected(connection));
            }
            let is_its_answer = |gated: &&(u64, Gated)| matches!(gated.1, Gated::Answer { connection: to, .. } if to == connection);
            let held = self.gated.iter().filter(is_its_answer).count();
            assert_eq!(usize::from(link.held), held, "answers that are held");
        }
        assert_eq!(self.arrivals.counts(), by_address);
        assert!(self.links.len() <= self.rules.limits.connections as usize);
    }

    fn check_session(&self, id: SessionId, session: &Session) {
        let filters: BTreeSet<_> = session
            .subscriptions
            .iter()
            .map(|one| one.to_string())
            .collect();
        assert_eq!(
            filters.len(),
            session.subscriptions.len(),
            "a filter stands twice"
        );
        for filter in &session.subscriptions {
            assert!(
                self.router.find(filter, id).is_some(),
                "{filter} is not routed"
            );
        }
        let connected = match session.link {
            Link::Connected(connection) => {
                let link = self.links.get(connection.0).expect("its connection");
                assert_eq!(link.session(), Some(id), "the connection serves it");
                true
            }
            Link::Absent | Link::Local => false,
        };
        assert!(
            !connected || session.will_at.is_none(),
            "a will of one who is there"
        );
        assert_eq!(
            session.key.is_some(),
            self.journal.is_on() && !session.is_transient(),
            "whether it is stored: {session:?}"
        );
        if let Some(outbox) = session.peek_outbox() {
            outbox.check(session.window, connected, &self.rules.limits);
        }
    }

    fn check_timers(&self) {
        let mut due = BTreeSet::new();
        for (id, link) in self.links.iter() {
            due.extend(
                link.paused_until
                    .map(|at| (at, Timer::Pause(ConnectionId(id)))),
            );
            due.extend(
                link.timer
                    .map(|at| (at, Timer::Connection(ConnectionId(id)))),
            );
        }
        for (id, session) in self.sessions.iter() {
            let id = SessionId(id);
            due.extend(session.will_at.map(|at| (at, Timer::Will(id))));
            due.extend(session.expires_at.map(|at| (at, Timer::Expiry(id))));
        }
        due.extend(self.catching_up.due.map(|at| (at, Timer::CatchUp)));
        assert_eq!(self.timers, due, "timers against what they are for");
    }

    fn check_stored(&self) {
        let mut needed: HashMap<MessageKey, u32> = HashMap::new();
        for (_, session) in self.sessions.iter() {
            for outgoing in session
                .peek_outbox()
                .into_iter()
                .flat_map(|outbox| outbox.stored())
            {
                *needed.entry(outgoing.publication.key()).or_insert(0) += 1;
            }
        }
        for publication in self.retained.iter() {
            *needed.entry(publication.key()).or_insert(0) += 1;
        }
        self.journal.check(&needed);
    }
}
