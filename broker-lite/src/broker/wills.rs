//! Wills: kept beside their connection, released by its end, called off by the client.
//!
//! Core. Invariant: a will is published once or called off, never both [MQTT-3.1.2-8]
//! [MQTT-3.1.2-10], and a crash of the broker is an end of the connection like any other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::{Identity, Permissions},
    broker::{Core, Origin, SessionId, Timer, Waiter, welcome::capped_expiry},
    config::Limits,
    journal::{Change, WillRecord},
    memory::Charge,
    message::Message,
    observe::audit::{Refusal, Who},
    packet,
    session::Will,
};

impl Will {
    /// As it stands in CONNECT, and as long as a message may live.
    pub(super) fn of(will: &packet::Will, limits: &Limits) -> Will {
        Will {
            message: Message {
                topic: will.topic.clone(),
                payload: will.payload.clone(),
                qos: will.qos,
                retain: will.retain,
                expiry_s: capped_expiry(will.message_expiry_s, limits),
                properties: will.properties.clone(),
                sequence: None,
            },
            delay: Duration::from_secs(will.delay_s.unwrap_or(0).into()),
            charge: Charge::default(),
        }
    }
}

impl Core {
    /// Enters the will that a session has, or that it has none.
    pub(super) fn record_will(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id.0) else {
            return;
        };
        let change = match &session.will {
            Some(will) => will_left(&session.identity, will, session.will_at),
            None => Change::WillGone(session.identity.client.clone()),
        };
        self.journal.record(change);
    }

    /// Enters the will of a client that waits for its CONNACK.
    pub(super) fn record_announced_will(&mut self, id: SessionId, will: &packet::Will) {
        if let Some(session) = self.sessions.get(id.0) {
            let change = will_left(&session.identity, &Will::of(will, &self.rules.limits), None);
            self.journal.record(change);
        }
    }

    pub(super) fn will_is_due(&mut self, session: SessionId, now: Instant) {
        if let Some(state) = self.sessions.get_mut(session.0) {
            state.will_at = None;
            self.publish_will(session, now);
        }
    }

    pub(super) fn delay_will(&mut self, session: SessionId, at: Instant) {
        if let Some(state) = self.sessions.get_mut(session.0) {
            state.will_at = Some(at);
            self.set_timer(None, Some(at), Timer::Will(session));
            self.record_will(session);
        }
    }

    pub(super) fn publish_will(&mut self, session: SessionId, now: Instant) {
        let Some(state) = self.sessions.get_mut(session.0) else {
            return;
        };
        let Some(will) = state.will.take() else {
            return;
        };
        let (identity, permissions) = (Arc::clone(&state.identity), Arc::clone(&state.permissions));
        let who = self.who_is(session);
        self.release(
            will.message,
            Some(session),
            identity,
            &permissions,
            who,
            now,
        );
    }

    /// Puts back the wills that an earlier run has left: their connections ended with it.
    pub(super) fn put_back_wills(&mut self, wills: Vec<WillRecord>, now: Instant) {
        for record in wills {
            let WillRecord {
                identity,
                message,
                delay,
                due,
            } = record;
            let Some(id) = self.by_client.get(identity.client.as_str()).copied() else {
                // Its session ended with the connection, and so did its delay [MQTT-3.1.2-8].
                let permissions = Permissions::of(&identity, &self.rules.access);
                let who = Who {
                    client: Some(identity.client.as_str().into()),
                    user: identity.user.clone(),
                    ..Who::default()
                };
                self.release(message, None, identity, &permissions, who, now);
                continue;
            };
            if let Some(session) = self.sessions.get_mut(id.0) {
                session.leave_will(Some(Will {
                    message,
                    delay,
                    charge: Charge::default(),
                }));
            }
            match due.or_else(|| now.checked_add(delay)) {
                Some(due) if due > now => self.delay_will(id, due),
                _ => self.publish_will(id, now),
            }
        }
    }

    /// Publishes what was taken out of a session or out of the store.
    fn release(
        &mut self,
        message: Message,
        session: Option<SessionId>,
        identity: Arc<Identity>,
        permissions: &Permissions,
        who: Who,
        now: Instant,
    ) {
        self.journal
            .record(Change::WillGone(identity.client.clone()));
        if !permissions.may_publish(&message.topic) {
            let why = "the access rules no longer allow its will".to_owned();
            return self.refuse(who, Refusal::Will, Some(message.topic.as_str()), why);
        }
        let origin = Origin {
            session,
            identity: Some(identity),
        };
        let publication = self.publication(message, origin.identity.clone(), now);
        self.publish(publication, origin, Waiter::Nobody, now);
    }
}

pub(super) fn will_left(identity: &Arc<Identity>, will: &Will, due: Option<Instant>) -> Change {
    Change::WillLeft(WillRecord {
        identity: Arc::clone(identity),
        message: will.message.clone(),
        delay: will.delay,
        due,
    })
}
