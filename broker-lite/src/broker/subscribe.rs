//! SUBSCRIBE and UNSUBSCRIBE.
//!
//! Core. Invariant: a filter is granted only if every topic it matches may be received.

use std::{sync::Arc, time::Instant};

use crate::{
    broker::{ConnectionId, Core, SessionId, pressure::Pressure},
    journal::{Change, SubscriptionRecord},
    observe::audit::Refusal,
    packet::{
        Details, Packet, QoS, ReasonCode, SubAck, Subscribe, SubscribeRequest, SubscriptionId,
        Text, UnsubAck, Unsubscribe,
    },
    router::Subscriber,
    topic::SubscriptionFilter,
};

impl Core {
    pub(super) fn subscribe(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        subscribe: Subscribe,
        now: Instant,
    ) {
        let mut reasons = Vec::with_capacity(subscribe.requests.len());
        let mut granted = Vec::new();
        for request in subscribe.requests {
            let reason = match self.check_subscription(connection, session, &request.filter) {
                Ok(()) => {
                    let reason = grant(request.options.qos);
                    granted.push((
                        self.add(session, &request, subscribe.subscription_id),
                        request,
                    ));
                    reason
                }
                Err(reason) => reason,
            };
            reasons.push(reason);
        }
        let answer = SubAck {
            packet_id: subscribe.packet_id,
            details: why_refused(&reasons),
            reasons,
        };
        self.send_when_stored(connection, session, Packet::SubAck(answer));
        for (is_new, request) in granted {
            self.deliver_retained(session, &request, is_new, subscribe.subscription_id, now);
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        packet: &Unsubscribe,
    ) {
        let mut reasons = Vec::with_capacity(packet.filters.len());
        for filter in &packet.filters {
            reasons.push(match self.remove(session, filter) {
                true => ReasonCode::Success,
                false => ReasonCode::NoSubscriptionExisted,
            });
        }
        let answer = UnsubAck {
            packet_id: packet.packet_id,
            reasons,
            details: None,
        };
        self.send_when_stored(connection, session, Packet::UnsubAck(answer));
    }

    /// Adds or replaces a subscription [MQTT-3.8.4-3]; says whether it is new.
    pub(super) fn add(
        &mut self,
        session: SessionId,
        request: &SubscribeRequest,
        id: Option<SubscriptionId>,
    ) -> bool {
        let options = request.options;
        let is_new = self.router.subscribe(
            &request.filter,
            Subscriber {
                session,
                options,
                id,
            },
        );
        let Some(state) = self.sessions.get_mut(session.0) else {
            return false;
        };
        if is_new {
            state.subscribed(request.filter.clone());
        }
        if let Some(key) = state.key {
            let record = SubscriptionRecord { options, id };
            let change = Change::Subscribed(key, request.filter.clone(), record);
            self.journal.record(change);
        }
        is_new
    }

    /// Ends one subscription; what is queued already is still delivered [MQTT-3.10.4-2].
    fn remove(&mut self, session: SessionId, filter: &SubscriptionFilter) -> bool {
        self.stop_catching_up(session, filter);
        if let Some(state) = self.sessions.get_mut(session.0) {
            state.unsubscribed(filter);
            if let Some(key) = state.key {
                let change = Change::Unsubscribed(key, filter.clone());
                self.journal.record(change);
            }
        }
        self.router.unsubscribe(filter, session)
    }

    /// Ends the subscriptions that access rules no longer cover.
    pub(super) fn drop_forbidden_subscriptions(&mut self, session: SessionId) {
        let Some(state) = self.sessions.get(session.0) else {
            return;
        };
        let permissions = Arc::clone(&state.permissions);
        let forbidden = |known: &&SubscriptionFilter| !permissions.may_subscribe(&known.filter);
        let filters: Vec<SubscriptionFilter> = state
            .subscriptions
            .iter()
            .filter(forbidden)
            .cloned()
            .collect();
        for filter in filters {
            self.remove(session, &filter);
            let who = self.who_is(session);
            let why = "the access rules no longer allow this subscription".to_owned();
            self.refuse(who, Refusal::Subscribe, Some(filter.filter.as_str()), why);
        }
    }

    fn check_subscription(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        filter: &SubscriptionFilter,
    ) -> Result<(), ReasonCode> {
        let Some(state) = self.sessions.get(session.0) else {
            return Err(ReasonCode::UnspecifiedError);
        };
        let limits = &self.rules.limits;
        let maximum = limits.subscriptions as usize;
        let is_known = || state.subscriptions.iter().any(|known| known == filter);
        let (code, refusal, why) = if !self.topic_fits(filter.filter.as_str()) {
            let why = "the filter is too long or too deep (limits.topic_length, topic_levels)";
            (ReasonCode::TopicFilterInvalid, Refusal::TopicLimit, why)
        } else if !state.permissions.may_subscribe(&filter.filter) {
            let why = "no access rule covers this filter";
            (ReasonCode::NotAuthorized, Refusal::Subscribe, why)
        } else if state.subscriptions.len() >= maximum && !is_known() {
            let why = "the client has as many subscriptions as it may (limits.subscriptions)";
            (ReasonCode::QuotaExceeded, Refusal::SubscriptionLimit, why)
        } else if self.router.len() >= limits.subscriptions_total as usize && !is_known() {
            let why = "all clients together have as many as they may (limits.subscriptions_total)";
            (ReasonCode::QuotaExceeded, Refusal::SubscriptionLimit, why)
        } else if !self.router.has_room_for(filter) && !is_known() {
            let why = "the subscriptions with + have too many levels together";
            (ReasonCode::QuotaExceeded, Refusal::SubscriptionLimit, why)
        } else if let Some(why) = self.refuses_from(Pressure::Growth)
            && !is_known()
        {
            (ReasonCode::QuotaExceeded, Refusal::Memory, why)
        } else {
            return Ok(());
        };
        let who = self.who(connection);
        self.refuse(who, refusal, Some(filter.filter.as_str()), why.to_owned());
        Err(code)
    }
}

/// What the client is told beside the reason codes, of which the first failure counts.
fn why_refused(reasons: &[ReasonCode]) -> Option<Box<Details>> {
    let failure = reasons.iter().find(|reason| reason.is_failure())?;
    let why = match failure {
        ReasonCode::NotAuthorized => "no access rule covers this filter",
        ReasonCode::TopicFilterInvalid => "the filter is longer or deeper than this broker takes",
        ReasonCode::QuotaExceeded => "the client has as many subscriptions as it may",
        _ => return None,
    };
    Some(Details::because(Text::lossy(why)))
}

fn grant(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQos1,
        QoS::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
