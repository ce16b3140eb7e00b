//! Talks MQTT over a stream that somebody else has opened: rumqttc's packets and states, our own
//! reads and writes.
//!
//! Invariant: what is asked for together is written together, and a peer that no longer reads is
//! found by the ping that it does not answer. Layer: driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{collections::VecDeque, io, pin::pin, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{Event, Stream};
use crate::upstream::cause::Cause;

/// Room made for each read.
const READ_BYTES: usize = 16 << 10;
/// Bytes collected for one write; more requests wait while so many do.
const WRITE_BYTES: usize = 64 << 10;
/// Pings are not sent more often, whatever the upstream asks for.
const MIN_PING: Duration = Duration::from_secs(1);

/// A version of MQTT: what it says and understands, in bytes.
pub(super) trait Dialect: Send + 'static {
    /// What the link asks for.
    type Request: Send + 'static;

    /// The first packet.
    fn connect(&self, to: &mut BytesMut) -> Result<(), Cause>;
    /// Takes a whole packet off `from` and answers it; false when there is none yet.
    fn take(&mut self, from: &mut BytesMut, to: &mut BytesMut) -> Result<bool, Cause>;
    /// Says what was asked for.
    fn say(&mut self, request: Self::Request, to: &mut BytesMut) -> Result<(), Cause>;
    /// Asks for a sign of life; an error when the last one is missing.
    fn ping(&mut self, to: &mut BytesMut) -> Result<(), Cause>;
    /// Whether the upstream let us in and takes another message.
    fn has_room(&self) -> bool;
    /// What has happened since the last call.
    fn take_events(&mut self) -> VecDeque<Event>;
    /// Longest silence that was agreed on.
    fn keep_alive(&self) -> Duration;
}

/// Connects, then exchanges packets until the end, which is the last event.
pub(super) async fn converse<D: Dialect>(
    dialect: D,
    stream: Box<dyn Stream>,
    requests: mpsc::Receiver<VecDeque<D::Request>>,
    link: mpsc::Sender<Result<VecDeque<Event>, Cause>>,
) {
    let conversation = Conversation {
        dialect,
        stream,
        requests,
        asked: VecDeque::new(),
        link: link.clone(),
        incoming: BytesMut::new(),
        outgoing: BytesMut::new(),
        unflushed: false,
    };
    if let Err(cause) = conversation.run().await {
        // A link that is gone needs no reason.
        let _gone = link.send(Err(cause)).await;
    }
}

struct Conversation<D: Dialect> {
    dialect: D,
    stream: Box<dyn Stream>,
    requests: mpsc::Receiver<VecDeque<D::Request>>,
    /// Those that have come and are not said yet.
    asked: VecDeque<D::Request>,
    link: mpsc::Sender<Result<VecDeque<Event>, Cause>>,
    incoming: BytesMut,
    outgoing: BytesMut,
    unflushed: bool,
}

impl<D: Dialect> Conversation<D> {
    /// Ends without a cause when nobody listens any more.
    async fn run(mut self) -> Result<(), Cause> {
        self.dialect.connect(&mut self.outgoing)?;
        let (mut reader, mut writer) = tokio::io::split(self.stream);
        let mut ping_at = pin!(sleep(self.dialect.keep_alive().max(MIN_PING)));
        loop {
            say(
                &mut self.dialect,
                &mut self.asked,
                &mut self.requests,
                &mut self.outgoing,
            )?;
            let events = self.dialect.take_events();
            if !events.is_empty() && self.link.send(Ok(events)).await.is_err() {
                return Ok(());
            }
            self.incoming.reserve(READ_BYTES);
            let all_written = self.outgoing.is_empty();
            tokio::select! {
                read = reader.read_buf(&mut self.incoming) => {
                    if read.map_err(broken)? == 0 {
                        return Err(Cause::Closed("the upstream closed it".to_owned()));
                    }
                    while self.dialect.take(&mut self.incoming, &mut self.outgoing)? {}
                }
                pushed = push(&mut writer, &mut self.outgoing, &mut self.unflushed),
                    if !all_written || self.unflushed =>
                {
                    pushed.map_err(broken)?;
                }
                Some(requests) = self.requests.recv(), if self.asked.is_empty() => {
                    self.asked = requests;
                }
                () = &mut ping_at => {
                    self.dialect.ping(&mut self.outgoing)?;
                    let pause = self.dialect.keep_alive().max(MIN_PING);
                    ping_at.as_mut().reset(Instant::now() + pause);
                }
            }
        }
    }
}

/// Says what was asked for, as far as the upstream and the next write have room.
fn say<D: Dialect>(
    dialect: &mut D,
    asked: &mut VecDeque<D::Request>,
    requests: &mut mpsc::Receiver<VecDeque<D::Request>>,
    outgoing: &mut BytesMut,
) -> Result<(), Cause> {
    while dialect.has_room() && outgoing.len() < WRITE_BYTES {
        if let Some(request) = asked.pop_front() {
            dialect.say(request, outgoing)?;
        } else if let Ok(more) = requests.try_recv() {
            *asked = more;
        } else {
            break;
        }
    }
    Ok(())
}

/// Writes some, or flushes when all is written. Cancelled, it has done nothing or can be repeated.
async fn push(
    writer: &mut (impl AsyncWrite + Unpin),
    outgoing: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    if outgoing.is_empty() {
        writer.flush().await?;
        *unflushed = false;
    } else {
        writer.write_buf(outgoing).await?;
        *unflushed = true;
    }
    Ok(())
}

fn broken(error: io::Error) -> Cause {
    Cause::of(&error)
}
