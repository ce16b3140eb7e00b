//! Drives the forwarder with a session: connects, sends, deletes what was acknowledged, connects
//! again.
//!
//! Invariant: each attempt reads its files anew and starts from a clean session object, so nothing
//! of a failed link lives on but the forwarder's memory of what is unacknowledged. Layer: driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

mod opening;

mod outgoing;
mod reading;

mod answers;
mod incoming;

mod node;

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use broker_lite::{keeper::Kept, topic::TopicFilter};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::{
    incoming::{Entering, remembered},
    node::{Node, NodeSession},
    reading::finished,
};
use super::{
    Here, Incoming, Receipt,
    backoff::Backoff,
    budget::Ledger,
    cause::Cause,
    endpoints::{Endpoints, Next},
    forwarder::{Allowance, Forwarder, Input},
    identities::Identities,
    outbound::{Notices, Outbound},
    packer::{Packer, Ticket},
    progress::Progress,
    reach::Reach,
    rules::Rules,
    session::{Event, INCOMING_WINDOW, Received, Session},
    status::{Board, State},
};
use crate::{
    buffer::Buffer,
    clock,
    config::{self, url::UpstreamUrl},
};

/// Messages from upstream that may wait for the local broker; 3.1.1 cannot tell the upstream of a
/// limit. One more is left unacknowledged, to be sent again with the next connection.
const MAX_WAITING: usize = 4 * INCOMING_WINDOW as usize;
/// Pause between two times that what the link costs is put on disk.
const LEDGER_PAUSE: Duration = Duration::from_secs(60);
/// How long a link that we end waits for what is under way, which would be sent again otherwise.
#[cfg(not(test))]
const LAST_ANSWERS: Duration = Duration::from_secs(1);
#[cfg(test)]
const LAST_ANSWERS: Duration = Duration::from_secs(20);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);
/// A link that lasted so long was a good one, as is one that took a message: the pauses start over.
const GOOD_LINK: Duration = Duration::from_secs(10);

/// A link that can be run.
#[derive(Debug)]
pub(super) struct Link {
    config: config::Upstream,
    endpoints: Endpoints,
    client_id: String,
    rules: Arc<Rules>,
    /// Messages under way at once: more than packets where rules batch.
    rows: u16,
    notices: Notices,
    reach: Reach,
    identities: Identities,
    gateway: String,
}

impl Link {
    /// Connects and forwards until cancelled.
    pub(super) async fn run(mut self, here: Here, board: Arc<Board>, cancel: CancellationToken) {
        let mut pump = match self.pump(here, board).await {
            Ok(pump) => pump,
            Err((cause, board)) => {
                error!(%cause, "there is no upstream link");
                return board.set(State::Unusable { cause });
            }
        };
        // The hasher's keys are this process' random numbers.
        let seed = RandomState::new().hash_one(&self.client_id);
        let retry = self.config.retry.as_duration();
        let mut backoff = Backoff::new(retry, self.config.retry_max.as_duration(), seed);
        let mut last_cause = None;
        while !cancel.is_cancelled() {
            let url = self.endpoints.current().clone();
            pump.board
                .update(|status| status.endpoint = url.to_string());
            pump.board.set(State::Connecting);
            pump.answered_on_link = false;
            pump.leaves = None;
            let started = Instant::now();
            let hello = pump.begin_session();
            let ended = tokio::select! {
                () = cancel.cancelled() => break,
                attempt = self.connect(&url, pump.buffer.clock_floor(), hello) => match attempt {
                    Ok((session, allowance)) => {
                        info!(upstream = %url, "connected to the upstream");
                        last_cause = None;
                        self.endpoints.connected();
                        let floor = pump.buffer.clock_floor();
                        let leave = self.reason_to_leave(&url, floor);
                        pump.serve(session, allowance, leave, &cancel).await
                    }
                    Err(cause) => Some(cause),
                },
            };
            let Some(cause) = ended else { break };
            match pump.leaves {
                Some(Leave::ForTheFirst) => {
                    info!(upstream = %url, "the first upstream can be reached again; returning to it");
                    self.endpoints.restart();
                    continue;
                }
                Some(Leave::ForTheNewIdentity) => continue,
                Some(Leave::WithoutHost) | None => {}
            }
            if let Next::AtOnce(next) = self.endpoints.failed() {
                warn!(upstream = %url, kind = cause.as_str(), %cause, %next, "no link to this upstream; trying the next");
                continue;
            }
            if pump.answered_on_link || started.elapsed() >= GOOD_LINK {
                backoff.reset();
            }
            let retry = backoff.pause();
            report(&url, &cause, retry, &mut last_cause);
            pump.board.set(State::Down { cause, retry });
            tokio::select! {
                () = cancel.cancelled() => break,
                () = sleep(retry) => {}
            }
        }
        pump.board.set(State::Stopped);
    }
}

/// The same cause over and over is one line in the log.
fn report(url: &UpstreamUrl, cause: &Cause, retry: Duration, last: &mut Option<Cause>) {
    let retry_ms = retry.as_millis();
    if last.as_ref() == Some(cause) {
        debug!(upstream = %url, %cause, retry_ms, "still no link");
    } else {
        warn!(upstream = %url, kind = cause.as_str(), %cause, retry_ms, "no link to the upstream");
        *last = Some(cause.clone());
    }
}

/// What a session begins with.
struct Hello {
    /// With Sparkplug: what the upstream publishes when the connection is lost.
    will: Option<Outbound>,
    filters: Vec<TopicFilter>,
}

/// Why a link that works is given up.
#[derive(Debug, Clone, Copy)]
enum Leave {
    /// The first upstream of the list is back.
    ForTheFirst,
    /// The upstream takes another identity.
    ForTheNewIdentity,
    /// The primary host application of the Sparkplug node is not there.
    WithoutHost,
}

/// Why a wait has ended.
enum Woken {
    Event(Result<Event, Cause>),
    /// The answer to what the forwarder wanted read.
    Read(Input),
    /// Whether the buffer still lives.
    Appended(bool),
    /// Sending was paused or goes on.
    Paused,
    /// A device came or went.
    States,
    Acknowledged(Receipt),
    /// Whether the message from upstream that is to be handed on is remembered on disk.
    Remembered(Kept),
    /// Room for a message from upstream; `None` when nobody listens any more.
    Room(Option<mpsc::OwnedPermit<Incoming>>),
    Timeout,
}

/// What outlives a connection.
struct Pump {
    forwarder: Forwarder,
    packer: Packer,
    rules: Arc<Rules>,
    buffer: Buffer,
    appended: watch::Receiver<u64>,
    paused: watch::Receiver<bool>,
    incoming: mpsc::Sender<Incoming>,
    receipts: mpsc::UnboundedSender<Receipt>,
    acknowledged: mpsc::UnboundedReceiver<Receipt>,
    /// Counts connections, so that receipts of an earlier one are recognised.
    connection: u64,
    answered_on_link: bool,
    /// The forwarder wanted the link to end.
    gave_up: bool,
    /// The link has ended in favour of another one.
    leaves: Option<Leave>,
    node: Option<Node>,
    board: Arc<Board>,
    /// Whether what the link costs is to be kept on disk, as far as it was, and when again.
    limited: bool,
    ledger: Ledger,
    ledger_due: Instant,
    progress: Progress,
    reading: Option<JoinHandle<Input>>,
    /// Messages sent since that was shown.
    sent: u64,
    latency: Option<Duration>,
}

/// What belongs to one connection.
struct Connection {
    session: Session,
    /// Sent, with no packet identifier yet.
    unnumbered: VecDeque<(Ticket, Instant)>,
    numbered: HashMap<u16, (Ticket, Instant)>,
    /// With Sparkplug: what this connection has said of itself.
    node: Option<NodeSession>,
    /// From upstream, waiting for the local broker.
    waiting: VecDeque<Received>,
    /// The oldest of them, while the disk takes note of it.
    entering: Option<Entering>,
}

impl Pump {
    /// Forwards until the link ends, and says why; `None` when we end it.
    async fn serve(
        &mut self,
        session: Session,
        allowance: Allowance,
        leave: impl Future<Output = Leave>,
        cancel: &CancellationToken,
    ) -> Option<Cause> {
        self.connection += 1;
        self.gave_up = false;
        self.leaves = None;
        let mut connection = Connection {
            session,
            unnumbered: VecDeque::new(),
            numbered: HashMap::new(),
            node: None,
            waiting: VecDeque::new(),
            entering: None,
        };
        self.follow_pause();
        self.packer.link_up(&allowance);
        self.link_up(&mut connection, allowance);
        let ended = tokio::select! {
            cause = self.exchange(&mut connection) => Some(cause),
            leave = leave => {
                self.leaves = Some(leave);
                self.gave_up = true;
                Some(Cause::Closed("another link takes its place".to_owned()))
            }
            () = cancel.cancelled() => None,
        };
        if ended.is_none() || self.leaves.is_some() {
            self.await_the_last(&mut connection).await;
        }
        self.buffer.link_is_up(false);
        self.input(Input::LinkDown {
            by_upstream: ended.as_ref().is_some_and(Cause::is_by_upstream) && !self.gave_up,
        });
        self.packer.link_down();
        // Acknowledgements that came before the end still count.
        let _outputs = self.drain();
        self.progress.forget();
        self.ledger_due = Instant::now();
        self.show();
        if ended.is_none() || self.leaves.is_some() {
            self.acknowledge_the_last(&connection.session);
            self.say_dead(&connection.session);
            say_goodbye(connection.session).await;
        }
        ended
    }

    async fn exchange(&mut self, connection: &mut Connection) -> Cause {
        loop {
            let done = self.advance(connection);
            self.show();
            if let Err(cause) = done {
                return cause;
            }
            let woken = self.wait(connection).await;
            if let Err(cause) = self.act(connection, woken) {
                return cause;
            }
        }
    }

    /// Waits for whatever comes first; nothing is lost with what comes later.
    async fn wait(&mut self, connection: &mut Connection) -> Woken {
        let timers = [
            self.forwarder.poll_timeout(),
            self.packer.poll_timeout(),
            self.node.as_ref().and_then(Node::poll_timeout),
        ];
        let deadline = timers.into_iter().flatten().min();
        let wants_room = !connection.waiting.is_empty() && connection.entering.is_none();
        tokio::select! {
            event = connection.session.next() => Woken::Event(event),
            read = finished(&mut self.reading) => Woken::Read(read),
            changed = self.appended.changed() => Woken::Appended(changed.is_ok()),
            () = node::states_changed(&mut self.node) => Woken::States,
            Ok(()) = self.paused.changed() => Woken::Paused,
            Some(receipt) = self.acknowledged.recv() => Woken::Acknowledged(receipt),
            kept = remembered(&mut connection.entering) => Woken::Remembered(kept),
            room = self.incoming.clone().reserve_owned(), if wants_room => Woken::Room(room.ok()),
            () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {
                Woken::Timeout
            }
        }
    }

    fn act(&mut self, connection: &mut Connection, woken: Woken) -> Result<(), Cause> {
        match woken {
            Woken::Event(event) => return self.take_events(connection, event),
            Woken::Read(read) => {
                self.reading = None;
                self.input(read);
            }
            Woken::Paused => self.follow_pause(),
            Woken::States => {
                if let Some(node) = &mut self.node {
                    node.learn(Instant::now());
                }
            }
            Woken::Appended(true) => {
                self.progress.observe(self.buffer.waiting(), Instant::now());
                self.input(Input::Appended);
            }
            Woken::Appended(false) => {
                return Err(Cause::Closed("the buffer was closed".to_owned()));
            }
            Woken::Acknowledged(receipt) => {
                if receipt.connection == self.connection
                    && connection.session.acknowledge(receipt.packet_id).is_err()
                {
                    return Err(not_acknowledged());
                }
            }
            Woken::Room(Some(room)) => return self.let_in(connection, room),
            Woken::Remembered(kept) => {
                if let Some(entering) = connection.entering.take() {
                    self.remembered(entering, kept);
                }
            }
            Woken::Room(None) => {
                let what = "nobody takes what the upstream sends";
                return Err(Cause::Closed(what.to_owned()));
            }
            Woken::Timeout => {
                let now = clock::now();
                self.forwarder.handle_timeout(now);
                self.packer.handle_timeout(now.monotonic);
            }
        }
        Ok(())
    }

    /// What is under way need not be sent again only because we go.
    async fn await_the_last(&mut self, connection: &mut Connection) {
        self.input(Input::Paused(true));
        let answers = async {
            while !(connection.unnumbered.is_empty() && connection.numbered.is_empty()) {
                let woken = self.wait(connection).await;
                if self.act(connection, woken).is_err() || self.advance(connection).is_err() {
                    return;
                }
            }
        };
        let _late = timeout(LAST_ANSWERS, answers).await;
    }

    /// What the local broker has must not come again only because we go.
    fn acknowledge_the_last(&mut self, session: &Session) {
        while let Ok(receipt) = self.acknowledged.try_recv() {
            if receipt.connection == self.connection
                && session.acknowledge(receipt.packet_id).is_err()
            {
                return;
            }
        }
    }

    fn follow_pause(&mut self) {
        let paused = *self.paused.borrow_and_update();
        self.input(Input::Paused(paused));
    }

    fn input(&mut self, input: Input) {
        self.forwarder.handle_input(input, clock::now());
    }

    fn show(&mut self) {
        let now = clock::now();
        let in_flight = self.forwarder.in_flight();
        let brake = self.forwarder.brake(now);
        let accounts = self.forwarder.accounts().collect();
        let empty_in = self.progress.empty_in();
        let (sent, latency) = (mem::take(&mut self.sent), self.latency);
        self.board.update(|status| {
            status.sent += sent;
            status.latency = latency;
            status.in_flight = in_flight;
            status.brake = brake;
            status.accounts = accounts;
            status.empty_in = empty_in;
        });
        if self.limited && now.monotonic >= self.ledger_due {
            self.keep_ledger();
        }
    }

    fn keep_ledger(&mut self) {
        self.ledger_due = Instant::now() + LEDGER_PAUSE;
        let ledger = self.forwarder.ledger();
        if ledger != self.ledger {
            self.ledger = ledger;
            self.buffer.note(ledger.marks());
        }
    }
}

fn not_acknowledged() -> Cause {
    Cause::Closed("an acknowledgement could not be sent".to_owned())
}

async fn say_goodbye(mut session: Session) {
    if session.disconnect().is_ok() {
        let ended = async { while session.next().await.is_ok() {} };
        // One that does not take it ends when its socket closes.
        let _late = timeout(GOODBYE, ended).await;
    }
}
