//! The retained messages that a new subscription brings, a slice at a time. Core.
//!
//! Invariant: within [`PAUSE`] no more than [`SLICE`] retained messages are looked at, however many
//! there are and however many filters of however many clients ask for them; who waits longest is
//! next.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    broker::{Core, SessionId, Timer},
    packet::{RetainHandling, SubscribeOptions, SubscribeRequest, SubscriptionId},
    publication::{Outgoing, Publication},
    topic::{SubscriptionFilter, TopicFilter, TopicName},
};

/// Retained messages looked at before the others get their turn; most subscriptions need no second
/// slice.
const SLICE: usize = 2_000;

/// From one slice to the next.
const PAUSE: Duration = Duration::from_millis(1);

/// Subscriptions that still get retained messages.
///
/// What a later slice sends is the topic's value of that moment, so nobody gets one that was
/// replaced meanwhile. A crash before the last slice loses the rest: the subscription stays, and
/// the values are sent to whoever subscribes again.
#[derive(Debug, Default)]
pub(super) struct CatchingUp {
    /// At most one entry for each subscription of each session.
    waiting: VecDeque<Rest>,
    pub(super) due: Option<Instant>,
    /// When the present slice began, and how many were looked at since.
    slice: Option<(Instant, usize)>,
}

impl CatchingUp {
    /// How many more may be looked at now.
    fn allowance(&mut self, now: Instant) -> usize {
        match self.slice {
            Some((from, looked)) if now < from + PAUSE => SLICE.saturating_sub(looked),
            _ => {
                self.slice = Some((now, 0));
                SLICE
            }
        }
    }

    fn spend(&mut self, looked: usize) {
        if let Some((_, spent)) = &mut self.slice {
            *spent += looked;
        }
    }
}

/// What one subscription still gets.
#[derive(Debug)]
struct Rest {
    session: SessionId,
    filter: TopicFilter,
    options: SubscribeOptions,
    id: Option<SubscriptionId>,
    /// The last topic looked at.
    after: Option<TopicName>,
}

impl Core {
    /// Sends what is retained under the filter [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11],
    /// with no local only what others published [MQTT-3.8.3-3];
    /// shared subscriptions get none (MQTT 5, 4.8.2).
    pub(super) fn deliver_retained(
        &mut self,
        session: SessionId,
        request: &SubscribeRequest,
        is_new: bool,
        id: Option<SubscriptionId>,
        now: Instant,
    ) {
        self.watch_sys(&request.filter.filter, now);
        let wanted = match request.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if !wanted || request.filter.share.is_some() {
            return;
        }
        self.stop_catching_up(session, &request.filter);
        let rest = Rest {
            session,
            filter: request.filter.filter.clone(),
            options: request.options,
            id,
            after: None,
        };
        for publication in self.sys_matching(&rest.filter, now) {
            self.deliver_one(&rest, publication, now);
        }
        self.catching_up.waiting.push_back(rest);
        self.catch_up(now);
    }

    /// The subscription is gone, or begins anew.
    pub(super) fn stop_catching_up(&mut self, session: SessionId, filter: &SubscriptionFilter) {
        if filter.share.is_some() {
            return;
        }
        let waiting = &mut self.catching_up.waiting;
        waiting.retain(|rest| rest.session != session || rest.filter != filter.filter);
    }

    /// The timer has fired.
    pub(super) fn catch_up_is_due(&mut self, now: Instant) {
        self.catching_up.due = None;
        self.catch_up(now);
    }

    /// What may be looked at now, for whoever waits longest.
    fn catch_up(&mut self, now: Instant) {
        let mut left = self.catching_up.allowance(now);
        while left > 0
            && let Some(rest) = self.catching_up.waiting.pop_front()
        {
            // A filter that finds nothing costs a search.
            let looked = self.catch_up_one(rest, left, now).max(1);
            self.catching_up.spend(looked);
            left = left.saturating_sub(looked);
        }
        if !self.catching_up.waiting.is_empty() && self.catching_up.due.is_none() {
            self.catching_up.due = Some(now + PAUSE);
            self.set_timer(None, self.catching_up.due, Timer::CatchUp);
        }
    }

    /// Looks at so many for one subscription; what is left of it waits again.
    fn catch_up_one(&mut self, mut rest: Rest, count: usize, now: Instant) -> usize {
        let Some(state) = self.sessions.get(rest.session.0) else {
            return 0;
        };
        let identity = Arc::clone(&state.identity);
        let own = rest.options.no_local.then_some(identity.client.as_str());
        let slice = self
            .retained
            .slice(&rest.filter, rest.after.as_ref(), count, own, now);
        for publication in slice.found {
            self.deliver_one(&rest, publication, now);
        }
        if slice.last.is_some() {
            rest.after = slice.last;
            self.catching_up.waiting.push_back(rest);
        }
        slice.looked
    }

    fn deliver_one(&mut self, rest: &Rest, publication: Arc<Publication>, now: Instant) {
        let outgoing = Outgoing {
            qos: publication.message.qos.min(rest.options.qos),
            publication,
            retain: true,
            subscription_ids: rest.id.into_iter().collect(),
            shared: None,
            record: None,
        };
        self.deliver(rest.session, outgoing, now);
    }
}
