//! What an operator asks of the broker: its state, other rules, an orderly stop.
//!
//! Core. Invariant: other rules take nothing from a client that they still allow.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::{
    access::Permissions,
    broker::{Admission, ConnectionId, Core, ListenerId, Rules, SessionId},
    config::{IdentitySource, RedirectWhen},
    observe::audit::Refusal,
    packet::ReasonCode,
};

impl Core {
    /// The limits in force.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn limits(&self) -> &crate::config::Limits {
        &self.rules.limits
    }

    /// Takes no more packets; what was taken is still acknowledged.
    pub(crate) fn stop_taking(&mut self) {
        self.draining = true;
    }

    /// The largest packet that clients may send, in bytes.
    pub(crate) fn packet_size(&self) -> usize {
        self.rules.limits.packet_size.as_len()
    }

    /// How long the handshakes below MQTT may take.
    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.rules.limits.handshake_timeout.as_duration()
    }

    /// How many of them may be under way at once.
    pub(crate) fn handshakes(&self) -> u32 {
        self.rules.limits.handshakes
    }

    /// After how long a peer that vanished is dropped.
    pub(crate) fn half_open_timeout(&self) -> Duration {
        self.rules.limits.half_open_timeout.as_duration()
    }

    /// Whether a connection has to be closed once its bytes are written.
    pub(crate) fn is_closing(&self, connection: ConnectionId) -> bool {
        self.links
            .get(connection.0)
            .is_none_or(|link| link.is_closing())
    }

    /// Whether a connection has to be closed with its last bytes unwritten.
    pub(crate) fn is_abandoned(&self, connection: ConnectionId) -> bool {
        self.links
            .get(connection.0)
            .is_some_and(|link| link.is_abandoned())
    }

    /// Whether acknowledgements still wait for the keeper or the disk.
    pub(crate) fn awaits_receipts(&self) -> bool {
        !self.pending.is_empty() || !self.gated.is_empty()
    }

    /// Puts other rules in force: clients that may no longer connect are disconnected, and
    /// subscriptions that are no longer covered end.
    pub(crate) fn replace_rules(&mut self, rules: Rules, now: Instant) -> usize {
        let changed = self.rules.logins.changed_in(&rules.logins);
        self.rules = rules;
        self.apply_access();
        if let Some(redirect) = &self.rules.protocol.redirect
            && redirect.when == RedirectWhen::Always
        {
            let served = self.links.len();
            self.close_all(ReasonCode::ServerMoved, now);
            return served;
        }
        let connected: Vec<(ConnectionId, SessionId)> = self
            .links
            .iter()
            .filter_map(|(id, link)| Some((ConnectionId(id), link.session()?)))
            .collect();
        let mut ended = 0;
        for (connection, session) in connected {
            if self.is_no_longer_allowed(connection, session, &changed) {
                let why = "its login or its access rules are gone from the configuration";
                self.break_off(
                    connection,
                    ReasonCode::NotAuthorized,
                    Refusal::ConfigurationChanged,
                    why,
                    now,
                );
                ended += 1;
            }
        }
        ended
    }

    /// Lets other clients in by a listener from now on; those that it no longer lets in go.
    pub(crate) fn replace_admission(
        &mut self,
        listener: ListenerId,
        admission: Admission,
        now: Instant,
    ) -> usize {
        let mut uninvited = Vec::new();
        for (id, link) in self.links.iter_mut() {
            if link.peer.listener != listener {
                continue;
            }
            link.peer.admission = admission;
            let session = link
                .session()
                .and_then(|session| self.sessions.get(session.0));
            let is_anonymous = session.is_some_and(|session| session.identity.user.is_none());
            if is_anonymous && !admission.anonymous {
                uninvited.push(ConnectionId(id));
            }
        }
        let why = "its listener no longer serves anonymous clients";
        self.send_away(&uninvited, Refusal::ConfigurationChanged, why, now)
    }

    /// Ends connections whose clients are no longer allowed to be there.
    pub(crate) fn send_away(
        &mut self,
        connections: &[ConnectionId],
        refusal: Refusal,
        why: &str,
        now: Instant,
    ) -> usize {
        for connection in connections {
            self.break_off(*connection, ReasonCode::NotAuthorized, refusal, why, now);
        }
        connections.len()
    }

    /// Ends every connection that came by a listener; counts those that served a client.
    pub(crate) fn close_listener(
        &mut self,
        listener: ListenerId,
        reason: ReasonCode,
        now: Instant,
    ) -> usize {
        let ours = self.links.iter();
        let ours = ours.filter(|(_, link)| link.peer.listener == listener);
        let connections: Vec<(ConnectionId, bool)> = ours
            .map(|(id, link)| (ConnectionId(id), link.session().is_some()))
            .collect();
        for (connection, _) in &connections {
            self.disconnect(*connection, reason, reason.text(), now);
        }
        connections.iter().filter(|(_, served)| *served).count()
    }

    /// Ends every connection, with a word to those that understand it.
    pub(crate) fn close_all(&mut self, reason: ReasonCode, now: Instant) {
        let reason = match (reason, &self.rules.protocol.redirect) {
            (ReasonCode::ServerShuttingDown, Some(_)) => ReasonCode::UseAnotherServer,
            (reason, _) => reason,
        };
        let connections: Vec<ConnectionId> =
            self.links.iter().map(|(id, _)| ConnectionId(id)).collect();
        for connection in connections {
            self.disconnect(connection, reason, reason.text(), now);
        }
    }

    fn apply_access(&mut self) {
        let sessions: Vec<SessionId> = self.by_client.values().copied().collect();
        for id in sessions {
            let Some(session) = self.sessions.get(id.0) else {
                continue;
            };
            let permissions = Permissions::of(&session.identity, &self.rules.access);
            let permissions = self.shared_permissions(permissions);
            if let Some(session) = self.sessions.get_mut(id.0) {
                session.permissions = permissions;
                session.weigh();
            }
            self.drop_forbidden_subscriptions(id);
        }
        self.recheck_retained();
    }

    /// Drops retained messages that their publishers could no longer publish.
    pub(super) fn recheck_retained(&mut self) {
        let rules = &self.rules.access;
        self.retained.recheck(
            |publisher, topic| Permissions::of(publisher, rules).may_publish(topic),
            &mut self.journal,
        );
    }

    /// A client is sent away when its password changed, or no rule names it any more.
    fn is_no_longer_allowed(
        &self,
        connection: ConnectionId,
        session: SessionId,
        changed: &HashSet<String>,
    ) -> bool {
        let (Some(link), Some(session)) =
            (self.links.get(connection.0), self.sessions.get(session.0))
        else {
            return false;
        };
        let by_password = link.peer.certificate.is_none()
            || matches!(
                link.peer.admission.identity,
                IdentitySource::Password | IdentitySource::Both
            );
        let login_changed = by_password
            && session
                .identity
                .user
                .as_ref()
                .is_some_and(|user| changed.contains(user));
        login_changed || session.permissions.is_nothing()
    }
}
