//! A message between its publisher and its subscribers: one copy of it, and one delivery of it. Values.
//!
//! Invariant: whoever holds a publication holds the same one; nothing of it changes any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::Identity,
    ids::{DeliveryKey, MessageKey},
    memory::{Charge, Meter},
    message::Message,
    packet::{QoS, SubscriptionId},
    topic::SubscriptionFilter,
};

/// What a message costs beside its topic, payload and properties: itself, and three allocations.
const MESSAGE_OVERHEAD: usize = 192;

/// A message as it was published; queues share it.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) message: Message,
    expires_at: Option<Instant>,
    number: u64,
    charge: Charge,
    /// Who published it; `None` for the broker itself and for what an earlier run has stored.
    publisher: Option<Arc<Identity>>,
}

impl Publication {
    /// `number` is its own, see `Journal::number`.
    pub(crate) fn new(message: Message, now: Instant, number: u64, meter: &Meter) -> Publication {
        let lives = message.expiry_s.map(|s| Duration::from_secs(s.into()));
        Publication {
            expires_at: lives.and_then(|lives| now.checked_add(lives)),
            charge: meter.charge(size(&message)),
            message,
            number,
            publisher: None,
        }
    }

    /// The same, published by somebody who is known.
    pub(crate) fn by(self, publisher: Option<Arc<Identity>>) -> Publication {
        Publication { publisher, ..self }
    }

    /// Who published it, where that is known.
    pub(crate) fn publisher(&self) -> Option<&Identity> {
        self.publisher.as_deref()
    }

    /// A message that an earlier run has stored, and that still lives for this long.
    pub(crate) fn restored(
        message: Message,
        key: MessageKey,
        lives: Option<Duration>,
        now: Instant,
    ) -> Publication {
        Publication {
            charge: Charge::unmetered(size(&message)),
            message,
            expires_at: lives.and_then(|lives| now.checked_add(lives)),
            number: key.0,
            publisher: None,
        }
    }

    /// The same under another name in the store.
    pub(crate) fn renumbered(&self, number: u64) -> Publication {
        Publication {
            message: self.message.clone(),
            expires_at: self.expires_at,
            number,
            charge: self.charge.sibling(self.charge.bytes()),
            publisher: self.publisher.clone(),
        }
    }

    /// Counts a restored message where it is going to be held.
    pub(crate) fn charge_to(&mut self, meter: &Meter) {
        self.charge = meter.charge(self.charge.bytes());
    }

    /// Its name in the store, should it get there.
    pub(crate) fn key(&self) -> MessageKey {
        MessageKey(self.number)
    }

    /// When it must not be delivered any more.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        self.expires_at
    }

    /// Whether its time has passed, so that it must not be delivered any more [MQTT-3.3.2-5].
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether it has waited for longer than it lives; what lives for no time at all may still
    /// leave at once.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at < now)
    }

    /// Whole seconds that it still lives [MQTT-3.3.2-6].
    pub(crate) fn remaining_s(&self, now: Instant) -> Option<u32> {
        let left = self.expires_at?.saturating_duration_since(now);
        let rounded_up = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Some(u32::try_from(rounded_up).unwrap_or(u32::MAX))
    }

    /// Bytes that it occupies, about.
    pub(crate) fn size(&self) -> usize {
        self.charge.bytes()
    }
}

/// Bytes that a message occupies once it is published, about.
pub(crate) fn size(message: &Message) -> usize {
    let properties = message.properties.as_ref();
    let properties = properties.map_or(0, |properties| properties.size());
    MESSAGE_OVERHEAD + message.topic.as_str().len() + message.payload.len() + properties
}

/// One message for one client, with what is particular to this delivery.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) publication: Arc<Publication>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<SubscriptionId>,
    /// The shared subscription it came by; another member gets it if this session ends.
    pub(crate) shared: Option<Arc<SubscriptionFilter>>,
    /// Its name in the store, where the session outlives the broker.
    pub(crate) record: Option<DeliveryKey>,
}
