//! One connection to the upstream, MQTT 5 or 3.1.1 behind the same few calls and events.
//!
//! Invariant: after its first error a session does nothing more; the link opens another. Layer:
//! driver.

mod conversation;
mod numbers;
mod v3;
mod v5;

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use broker_lite::{packet::MessageProperties, topic::TopicFilter};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinHandle,
};

use self::conversation::converse;
use super::{
    cause::Cause,
    forwarder::{Allowance, Answer},
    outbound::Outbound,
};
use crate::config::Protocol;

/// Largest packet taken from the upstream: the broker's own default.
const MAX_INCOMING_BYTES: usize = 256 << 10;
/// Largest packet that MQTT allows; what goes out is bounded by the upstream's own limit.
const MAX_OUTGOING_BYTES: usize = 268_435_455;
/// Messages from upstream that may wait for us at once.
pub(crate) const INCOMING_WINDOW: u16 = 32;
/// Requests beside the publishes of one window: acknowledgements, subscriptions, the goodbye.
const OTHER_REQUESTS: usize = 2 * INCOMING_WINDOW as usize + 16;
/// Times that something was read or written, the events of which may wait for the link together.
const EVENTS: usize = 16;
/// How long the upstream keeps our subscriptions and what comes in for them while we are away.
const SESSION_EXPIRY_S: u32 = 7 * 24 * 3600;
const SILENT: &str = "it no longer answers pings";

/// A connection's bytes, whatever carries them.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How a connection is to be.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) client_id: String,
    pub(crate) keep_alive: Duration,
    pub(crate) window: u16,
    pub(crate) version: Protocol,
    /// Published by the upstream when the connection is lost. With a will the session ends with its connection, as
    /// Sparkplug wants it (tck-id-principles-persistence-clean-session-50); without, it outlives it.
    pub(crate) will: Option<Outbound>,
}

impl Options {
    /// As CONNECT carries it, in seconds.
    fn keep_alive_s(&self) -> u16 {
        u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX)
    }
}

/// What the upstream did.
#[derive(Debug)]
pub(crate) enum Event {
    /// It let us in.
    Connected(Allowance),
    /// The oldest publish that had no packet identifier yet has been written under this one; 0 with
    /// QoS 0.
    Written(u16),
    /// It answered a publish.
    Answered(u16, Answer),
    /// It answered a subscription: one word per refused filter.
    Refused(Vec<String>),
    /// It published to us.
    Received(Received),
}

/// A message from upstream.
#[derive(Debug)]
pub(crate) struct Received {
    /// `None` with QoS 0, which needs no acknowledgement.
    pub(crate) packet_id: Option<u16>,
    /// The upstream sends it again.
    pub(crate) duplicate: bool,
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    pub(crate) properties: Option<Arc<MessageProperties>>,
}

/// The request queue is full or the session has ended.
#[derive(Debug)]
pub(crate) struct NotSent;

impl<T> From<mpsc::error::TrySendError<T>> for NotSent {
    fn from(_: mpsc::error::TrySendError<T>) -> NotSent {
        NotSent
    }
}

/// See the module's description.
pub(crate) struct Session {
    requests: Requests,
    events: mpsc::Receiver<Result<VecDeque<Event>, Cause>>,
    /// Those that have come with the last one.
    taken: VecDeque<Event>,
    task: JoinHandle<()>,
}

enum Requests {
    V5(mpsc::Sender<VecDeque<rumqttc::v5::Request>>),
    V3(mpsc::Sender<VecDeque<rumqttc::Request>>),
}

impl Session {
    /// Begins to speak; the first event tells how that was taken.
    pub(crate) fn open(options: Options, stream: Box<dyn Stream>) -> Session {
        let (sender, events) = mpsc::channel(EVENTS);
        let room = usize::from(options.window) + OTHER_REQUESTS;
        // A task of its own, so that a link that is busy does not delay pings.
        let (requests, task) = match options.version {
            Protocol::V5 => {
                let (requests, asked) = mpsc::channel(room);
                let talk = converse(v5::V5::new(options), stream, asked, sender);
                (Requests::V5(requests), tokio::spawn(talk))
            }
            Protocol::V3 => {
                let (requests, asked) = mpsc::channel(room);
                let talk = converse(v3::V3::new(options), stream, asked, sender);
                (Requests::V3(requests), tokio::spawn(talk))
            }
        };
        Session {
            requests,
            events,
            taken: VecDeque::new(),
            task,
        }
    }

    /// The next event; an error is the last one.
    pub(crate) async fn next(&mut self) -> Result<Event, Cause> {
        let ended = || Cause::Closed("the connection's task is gone".to_owned());
        loop {
            if let Some(event) = self.taken.pop_front() {
                return Ok(event);
            }
            let came = self.events.recv().await;
            self.taken = came.unwrap_or_else(|| Err(ended()))?;
        }
    }

    /// The next event if there is one already.
    pub(crate) fn try_next(&mut self) -> Option<Result<Event, Cause>> {
        if self.taken.is_empty() {
            match self.events.try_recv().ok()? {
                Ok(events) => self.taken = events,
                Err(cause) => return Some(Err(cause)),
            }
        }
        self.taken.pop_front().map(Ok)
    }

    /// Queues messages, to be written together; `Written` events come in the same order.
    pub(crate) fn publish(&self, messages: &[Outbound]) -> Result<(), NotSent> {
        let messages = messages.iter();
        match &self.requests {
            Requests::V5(requests) => requests.try_send(messages.map(v5::publish).collect())?,
            Requests::V3(requests) => requests.try_send(messages.map(v3::publish).collect())?,
        }
        Ok(())
    }

    /// Asks for what matches, at QoS 1.
    pub(crate) fn subscribe(&self, filters: &[TopicFilter]) -> Result<(), NotSent> {
        if filters.is_empty() {
            return Ok(());
        }
        match &self.requests {
            Requests::V5(requests) => requests.try_send([v5::subscribe(filters)].into())?,
            Requests::V3(requests) => requests.try_send([v3::subscribe(filters)].into())?,
        }
        Ok(())
    }

    /// Acknowledges a message from upstream.
    pub(crate) fn acknowledge(&self, packet_id: u16) -> Result<(), NotSent> {
        match &self.requests {
            Requests::V5(requests) => requests.try_send([v5::acknowledge(packet_id)].into())?,
            Requests::V3(requests) => requests.try_send([v3::acknowledge(packet_id)].into())?,
        }
        Ok(())
    }

    /// Says goodbye; the last event is an error.
    pub(crate) fn disconnect(&self) -> Result<(), NotSent> {
        match &self.requests {
            Requests::V5(requests) => requests.try_send([v5::disconnect()].into())?,
            Requests::V3(requests) => requests.try_send([v3::disconnect()].into())?,
        }
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn not_sent(packet_id: u16) -> Cause {
    Cause::Protocol(format!(
        "it acknowledged packet {packet_id}, which was not sent"
    ))
}
