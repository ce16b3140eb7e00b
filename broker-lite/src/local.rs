//! Clients within this process: they publish and subscribe without a socket. Driver.
//!
//! Invariant: dropping a [`Publishing`] loses its answer, never the message.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::sync::{Notify, oneshot};

use crate::{
    access::Identity,
    ids::SessionId,
    keeper::Published,
    message::Message,
    packet::QoS,
    shared::Shared,
    topic::{SubscriptionFilter, TopicFilter, TopicName},
};

/// A publisher and consumer in this process. It may do everything; its subscriptions and its
/// queue end with it.
///
/// Its queue has the bounds of any client's (`limits.queued_messages`, `queued_bytes`), for every
/// QoS: what does not fit is lost to it and counted, so that it never holds up the others.
#[derive(Debug)]
pub struct LocalClient {
    shared: Arc<Shared>,
    session: SessionId,
    call: Arc<Notify>,
}

/// A message that a [`LocalClient`] receives.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What was published.
    pub message: Message,
    /// The QoS of this subscription's delivery.
    pub qos: QoS,
    /// Whether it was stored before the subscription was made, not published just now.
    pub retained: bool,
    /// Who published it; `None` for the broker itself and for what an earlier run has stored.
    pub publisher: Option<Publisher>,
}

/// Who published a message, as the broker let him in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// User name, or the certificate's name; absent for anonymous clients and within this process.
    pub user: Option<String>,
    /// Client identifier.
    pub client: String,
    /// Where he connected from; loopback within this process.
    pub address: IpAddr,
}

impl From<&Identity> for Publisher {
    fn from(identity: &Identity) -> Publisher {
        Publisher {
            user: identity.user.clone(),
            client: identity.client.clone(),
            address: identity.address,
        }
    }
}

/// Resolves when a message is kept, or at once when nobody keeps it. Dropped, the message goes
/// its way all the same.
#[derive(Debug)]
#[must_use = "drop it to publish without waiting"]
pub struct Publishing(Option<oneshot::Receiver<Published>>);

impl Future for Publishing {
    type Output = Published;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Published> {
        match &mut self.0 {
            None => Poll::Ready(Published::Routed),
            // The broker has stopped: nobody will keep it any more.
            Some(receiver) => Pin::new(receiver)
                .poll(cx)
                .map(|answer| answer.unwrap_or(Published::Refused)),
        }
    }
}

impl LocalClient {
    pub(crate) fn open(shared: Arc<Shared>, client_id: &str) -> LocalClient {
        let call = Arc::new(Notify::new());
        let mut locked = shared.lock();
        let session = locked.core.open_local(client_id);
        locked.register_local(session, Arc::clone(&call));
        drop(locked);
        LocalClient {
            shared,
            session,
            call,
        }
    }

    /// Publishes a message. Order is kept, also between messages whose answer nobody awaits.
    pub fn publish(&self, message: Message) -> Publishing {
        let mut locked = self.shared.lock();
        let now = Instant::now();
        let ticket = locked.core.publish_local(self.session, message, now);
        let answer = ticket.map(|ticket| locked.await_ticket(ticket));
        self.shared.drain(&mut locked, None, now);
        Publishing(answer)
    }

    /// Subscribes to what matches a filter; messages of its own included.
    pub fn subscribe(&self, filter: TopicFilter, qos: QoS) {
        let filter = SubscriptionFilter::from(filter);
        self.shared
            .visit(|core, now| core.subscribe_local(self.session, filter, qos, now));
    }

    /// The next message; `None` once the broker has stopped. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Delivery> {
        loop {
            let taken = self
                .shared
                .lock()
                .core
                .take_delivery(self.session, Instant::now());
            if let Some(outgoing) = taken {
                return Some(Delivery {
                    message: outgoing.publication.message.clone(),
                    qos: outgoing.qos,
                    retained: outgoing.retain,
                    publisher: outgoing.publication.publisher().map(Publisher::from),
                });
            }
            if self.shared.stop.is_cancelled() {
                return None;
            }
            tokio::select! {
                () = self.call.notified() => {}
                () = self.shared.stop.cancelled() => {}
            }
        }
    }

    /// Topics matching `filter` whose retained message was published within this process, by any
    /// of its clients, now or in an earlier run. It looks at every retained message.
    pub fn retained(&self, filter: &TopicFilter) -> Vec<TopicName> {
        self.shared.lock().core.retained_locally(filter)
    }

    /// Messages that were lost to this client because its queue was full.
    pub fn lost(&self) -> u64 {
        self.shared.lock().core.lost_locally(self.session)
    }
}

impl Drop for LocalClient {
    fn drop(&mut self) {
        let mut locked = self.shared.lock();
        let now = Instant::now();
        locked.forget_local(self.session);
        locked.core.close_local(self.session, now);
        self.shared.drain(&mut locked, None, now);
    }
}
