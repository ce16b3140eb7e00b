//! Drives the forwarder with a session: connects, sends, deletes what was acknowledged, connects
//! again.
//!
//! Invariant: each attempt reads its files anew and starts from a clean session object, so nothing
//! of a failed link lives on but the forwarder's memory of what is unacknowledged. Layer: driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

mod incoming;
mod node;

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use broker_lite::{keeper::Kept, topic::TopicFilter};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::{
    incoming::{Entering, remembered},
    node::{Node, NodeSession},
};
use super::{
    Here, Incoming, Receipt,
    backoff::Backoff,
    budget::{Budget, Ledger, Limits},
    cause::Cause,
    endpoints::{Endpoints, Next},
    forwarder::{Allowance, Answer, Forwarder, Input, Output},
    gate::Gate,
    identities::Identities,
    intake::{Ask, Fetched},
    outbound::{Key, Notices, Outbound},
    pace::Pace,
    packer::{self, Packer, Ticket},
    progress::Progress,
    reach::{self, Reach},
    rules::Rules,
    session::{Event, INCOMING_WINDOW, Options, Received, Session, Stream},
    status::{Board, State},
    tls::{Offer, Tls},
    window::Windows,
};
use crate::{
    buffer::{Buffer, Page, ReadError},
    clock,
    config::{self, url::UpstreamUrl},
};

/// Payload bytes read from the buffer at once.
const READ_BYTES: usize = 4 << 20;
/// Gap markers read at once.
const READ_GAPS: usize = 64;
/// Events taken before the forwarder's outputs are looked at again.
const EVENTS_AT_ONCE: usize = 256;
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
/// Pause between two looks whether the first upstream is back while another one is in use. Its
/// return costs a handshake, so a first one that lets nobody in costs one each time.
#[cfg(not(test))]
const RETURN_AFTER: Duration = Duration::from_secs(300);
#[cfg(test)]
const RETURN_AFTER: Duration = Duration::from_secs(1);
/// Time for that look.
const RETURN_PATIENCE: Duration = Duration::from_secs(10);
/// MQTT counts it in seconds, and 0 is none.
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(1);

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
    pub(super) fn new(settings: &super::Settings<'_>, board: &Arc<Board>) -> Result<Link, Cause> {
        let super::Settings {
            upstream: config,
            identity,
            tpm,
            gateway,
            forwards,
            receives,
        } = *settings;
        let urls = config.url.iter().map(|text| {
            let wrong = |why| Cause::Configuration(format!("[upstream] url = {text:?}: {why}"));
            text.parse().map_err(wrong)
        });
        let urls: Vec<UpstreamUrl> = urls.collect::<Result<_, _>>()?;
        let endpoints = Endpoints::new(urls)
            .ok_or_else(|| Cause::Configuration("[upstream] url names no broker".to_owned()))?;
        let rules = match &config.sparkplug {
            None => Rules::new(gateway, forwards, receives),
            Some(_) => Rules::for_sparkplug(gateway, forwards, receives),
        };
        let rules = rules.map_err(|error| Cause::Configuration(error.to_string()))?;
        let notices = rules.notices().map_err(|error| {
            Cause::Configuration(format!(
                "[gateway] id = {gateway:?} is no topic level: {error}"
            ))
        })?;
        let reach = Reach::of(config).map_err(Cause::Configuration)?;
        Ok(Link {
            config: config.clone(),
            identities: Identities::new(
                Tls::new(config, identity, tpm),
                reach.clone(),
                Arc::clone(board),
                config.connect_timeout.as_duration(),
            ),
            reach,
            endpoints,
            client_id: config
                .client_id
                .clone()
                .unwrap_or_else(|| gateway.to_owned()),
            rules: Arc::new(rules),
            rows: packer::rows_under_way(config.in_flight, forwards),
            notices,
            gateway: gateway.to_owned(),
        })
    }

    /// Connects and forwards until cancelled.
    pub(super) async fn run(mut self, here: Here, board: Arc<Board>, cancel: CancellationToken) {
        let Here {
            buffer,
            incoming,
            plant,
        } = here;
        let node = match self.node(plant) {
            Ok(node) => node,
            Err(cause) => {
                error!(%cause, "there is no upstream link");
                return board.set(State::Unusable { cause });
            }
        };
        // The hasher's keys are this process' random numbers.
        let seed = RandomState::new().hash_one(&self.client_id);
        let retry = self.config.retry.as_duration();
        let mut backoff = Backoff::new(retry, self.config.retry_max.as_duration(), seed);
        // Bounded by what was handed over and not yet acknowledged: the channel `incoming`.
        let (receipts, acknowledged) = mpsc::unbounded_channel();
        let mut pump = Pump {
            forwarder: Forwarder::new(self.rows, self.gate(&buffer).await, self.notices.clone()),
            packer: Packer::new(self.config.in_flight, self.rows),
            limited: self.config.budget != config::Budget::default(),
            ledger: Ledger::default(),
            ledger_due: Instant::now(),
            progress: Progress::default(),
            appended: buffer.appended(),
            paused: buffer.paused(),
            rules: Arc::clone(&self.rules),
            buffer,
            incoming,
            receipts,
            acknowledged,
            connection: 0,
            answered_on_link: false,
            gave_up: false,
            leaves: None,
            node,
            board,
            reading: None,
        };
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

    /// With what was spent before this start.
    async fn gate(&self, buffer: &Buffer) -> Gate {
        let (drain, budget) = (&self.config.drain, &self.config.budget);
        let buffer = buffer.clone();
        let marks = tokio::task::spawn_blocking(move || buffer.marks()).await;
        let ledger = Ledger::from_marks(&marks.unwrap_or_default());
        let limits = Limits {
            per_day: budget.per_day.map(|size| size.as_bytes()),
            per_month: budget.per_month.map(|size| size.as_bytes()),
        };
        let keep_alive = self.config.keep_alive.as_duration();
        #[expect(clippy::cast_precision_loss, reason = "no link is that fast")]
        let bytes = drain.bytes_per_second.map(|size| size.as_bytes() as f64);
        Gate::new(
            drain.share,
            Pace::new(
                drain.messages_per_second.map(|rate| f64::from(rate.get())),
                bytes,
            ),
            Windows::new(drain.windows.clone(), drain.windows_hold),
            Budget::new(limits, keep_alive, ledger),
        )
    }

    async fn connect(
        &self,
        url: &UpstreamUrl,
        floor: Timestamp,
        hello: Hello,
    ) -> Result<(Session, Allowance), Cause> {
        if !url.tls {
            return self.open(url, None, hello).await;
        }
        let offer = self.identities.offer(url, floor).await?;
        let opened = self.open(url, Some(&offer), hello).await;
        match &opened {
            Ok(_) => self.identities.let_in(&offer).await,
            Err(cause) => self.identities.failed(&offer, cause),
        }
        opened
    }

    async fn open(
        &self,
        url: &UpstreamUrl,
        offer: Option<&Offer>,
        hello: Hello,
    ) -> Result<(Session, Allowance), Cause> {
        let limit = self.config.connect_timeout.as_duration();
        let deadline = tokio::time::Instant::now() + limit;
        let tcp = self.reach.tcp(url, deadline).await?;
        let stream: Box<dyn Stream> = match offer {
            None => Box::new(tcp),
            Some(offer) => {
                let name = self.identities.tls().server_name(&url.host);
                let name = name.map_err(|error| Cause::Credentials(error.to_string()))?;
                let config = Arc::clone(&offer.config);
                Box::new(reach::handshake(tcp, config, name, deadline).await?)
            }
        };
        let options = Options {
            will: hello.will,
            ..self.options()
        };
        let mut session = Session::open(options, stream);
        let first = timeout_at(deadline, session.next()).await.map_err(|_| {
            Cause::Unreachable(format!("no answer within {} s", limit.as_secs_f32()))
        })?;
        let Event::Connected(allowance) = first? else {
            return Err(Cause::Protocol("it did not begin with CONNACK".to_owned()));
        };
        session
            .subscribe(&hello.filters)
            .map_err(|_| Cause::Closed("the subscriptions could not be sent".to_owned()))?;
        Ok((session, allowance))
    }

    /// Waits until another link is to be preferred to the one in use.
    async fn reason_to_leave(&self, url: &UpstreamUrl, floor: Timestamp) -> Leave {
        let renewed = async {
            match url.tls {
                true => self.identities.renewed(url, floor).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = is_back(&self.reach, self.endpoints.preferred()) => Leave::ForTheFirst,
            () = renewed => Leave::ForTheNewIdentity,
        }
    }

    fn options(&self) -> Options {
        Options {
            client_id: self.client_id.clone(),
            keep_alive: self.config.keep_alive.as_duration().max(MIN_KEEP_ALIVE),
            window: self.config.in_flight.max(1),
            version: self.config.protocol,
            will: None,
        }
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

    /// Does what the forwarder asks for, until neither it nor the packer has more to say.
    fn advance(&mut self, connection: &mut Connection) -> Result<(), Cause> {
        loop {
            self.drain()?;
            self.follow_node(connection)?;
            self.send(connection)?;
            if !self.pass_answers() {
                return Ok(());
            }
        }
    }

    fn drain(&mut self) -> Result<(), Cause> {
        let mut rows = Vec::new();
        let mut result = Ok(());
        while let Some(output) = self.forwarder.poll_output() {
            match output {
                Output::Read(ask) => {
                    // What leaves must not be read again.
                    self.delete(&mut rows);
                    self.start_reading(ask);
                }
                Output::Publish(message) => match &mut self.node {
                    Some(node) => node.push(message),
                    None => self.packer.push(message, Instant::now()),
                },
                Output::Delete(Key::Row(row)) => rows.push(row),
                Output::Delete(Key::Gap { id, count }) => self.buffer.delete_gap(id, count),
                Output::Delete(Key::StandIn | Key::Notice)
                | Output::Bury(Key::StandIn | Key::Notice, _) => {}
                Output::Exhausted(account) => warn!(
                    period = account.period.as_str(),
                    limit = account.limit,
                    used = account.used,
                    "the link's budget is used up; only messages of high priority go up"
                ),
                Output::Bury(key, reason) => self.bury(key, &reason),
                Output::Reconnect(reason) => {
                    self.gave_up = true;
                    result = Err(Cause::Closed(reason));
                    break;
                }
            }
        }
        self.delete(&mut rows);
        result
    }

    fn delete(&self, rows: &mut Vec<i64>) {
        if !rows.is_empty() {
            let count = rows.len() as u64;
            self.board.update(|status| status.acknowledged += count);
            self.buffer.delete(rows.drain(..));
        }
    }

    /// Sends what is packed.
    fn send(&mut self, connection: &mut Connection) -> Result<(), Cause> {
        while let Some((ticket, packet)) = self.packer.poll_packet() {
            if connection.session.publish(&packet).is_err() {
                return Err(Cause::Closed("a message could not be sent".to_owned()));
            }
            connection.unnumbered.push_back((ticket, Instant::now()));
            self.board.update(|status| status.sent += 1);
        }
        match self.packer.take_spent() {
            0 => {}
            bytes => self.input(Input::Packed(bytes)),
        }
        Ok(())
    }

    /// Tells the forwarder what became of its messages, and the caller whether there was something to tell.
    fn pass_answers(&mut self) -> bool {
        let mut told = false;
        while let Some((key, answer)) = self.packer.poll_answer() {
            self.input(Input::Answered(key, answer));
            told = true;
        }
        told
    }

    fn bury(&self, key: Key, reason: &str) {
        warn!(?key, reason, "the upstream will never take this message");
        match key {
            Key::Row(row) => {
                self.board.update(|status| status.buried += 1);
                self.buffer.bury(row, reason);
            }
            Key::Gap { id, count } => self.buffer.delete_gap(id, count),
            Key::StandIn | Key::Notice => {}
        }
    }

    fn start_reading(&mut self, ask: Ask) {
        let (buffer, rules) = (self.buffer.clone(), Arc::clone(&self.rules));
        self.reading = Some(tokio::task::spawn_blocking(move || {
            read(&buffer, &rules, &ask).unwrap_or_else(|error| {
                warn!(%error, "what waits in the buffer is not sent for now");
                Input::Unread
            })
        }));
    }

    /// Takes this event and those that have arrived with it.
    fn take_events(
        &mut self,
        connection: &mut Connection,
        first: Result<Event, Cause>,
    ) -> Result<(), Cause> {
        let mut next = Some(first);
        for _ in 0..EVENTS_AT_ONCE {
            let Some(event) = next else { break };
            self.take_event(connection, event?)?;
            next = connection.session.try_next();
        }
        // Taken from the queue, so it must not be forgotten.
        next.map_or(Ok(()), |event| self.take_event(connection, event?))
    }

    fn take_event(&mut self, connection: &mut Connection, event: Event) -> Result<(), Cause> {
        match event {
            Event::Connected(_) => {}
            Event::Written(0) => {
                if let Some((ticket, sent)) = connection.unnumbered.pop_front() {
                    match &mut connection.node {
                        Some(node) => node.written((ticket, sent)),
                        None => self.answered(ticket, sent, Answer::Acknowledged),
                    }
                }
            }
            Event::Written(packet_id) => {
                if let Some(flight) = connection.unnumbered.pop_front() {
                    connection.numbered.insert(packet_id, flight);
                }
            }
            Event::Answered(packet_id, answer) => {
                let Some((ticket, sent)) = connection.numbered.remove(&packet_id) else {
                    let what = format!("it acknowledged packet {packet_id}, which was not sent");
                    return Err(Cause::Protocol(what));
                };
                self.answered(ticket, sent, answer);
            }
            Event::Refused(reasons) => {
                if !reasons.is_empty() && !connection.has_subscribed() {
                    error!(
                        reasons = reasons.join(", "),
                        "the upstream refused a subscription; nothing comes in for it"
                    );
                }
                self.subscribed(connection);
            }
            Event::Received(received) => {
                let bytes = received.topic.len() + received.payload.len();
                self.input(Input::Heard(bytes as u64));
                if self.node.is_some() {
                    return self.heard(connection, received);
                }
                if connection.waiting.len() < MAX_WAITING {
                    connection.waiting.push_back(received);
                } else {
                    warn!(
                        topic = received.topic,
                        "too much at once from the upstream; left unacknowledged"
                    );
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, ticket: Ticket, sent: Instant, answer: Answer) {
        self.answered_on_link = true;
        let latency = sent.elapsed();
        self.board.update(|status| {
            let known = status.latency.unwrap_or(latency);
            status.latency = Some((known * 9 + latency) / 10);
        });
        self.packer.answered(ticket, answer);
        let _advanced_next = self.pass_answers();
    }

    fn show(&mut self) {
        let now = clock::now();
        let in_flight = self.forwarder.in_flight();
        let brake = self.forwarder.brake(now);
        let accounts = self.forwarder.accounts().collect();
        let empty_in = self.progress.empty_in();
        self.board.update(|status| {
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

/// On a thread that may block.
fn read(buffer: &Buffer, rules: &Rules, ask: &Ask) -> Result<Input, ReadError> {
    Ok(match ask {
        Ask::Survey(after) => Input::Surveyed(buffer.survey(after)?),
        Ask::Rows { stretch, live } => match buffer.page(stretch, READ_BYTES)? {
            Some(page) => Input::Fetched(messages(buffer, rules, page, *live)?),
            None => Input::Unread,
        },
    })
}

/// Rows as messages, and the gaps with those that are new.
fn messages(buffer: &Buffer, rules: &Rules, page: Page, live: bool) -> Result<Fetched, ReadError> {
    let mut messages = Vec::new();
    if live {
        messages.extend(buffer.gaps(READ_GAPS)?.iter().filter_map(|gap| {
            let marker = rules.gap_marker(gap);
            marker
                .map_err(|_| buffer.delete_gap(gap.id, gap.count))
                .ok()
        }));
    }
    messages.extend(page.rows.into_iter().filter_map(|row| {
        let id = row.id;
        rules
            .outbound(row)
            .map_err(|error| buffer.bury(id, &format!("its upstream topic: {error}")))
            .ok()
    }));
    Ok(Fetched {
        live,
        messages,
        reached: page.reached,
        ended: page.ended,
    })
}

/// Waits for the reading under way; for ever when there is none.
async fn finished(reading: &mut Option<JoinHandle<Input>>) -> Input {
    match reading {
        Some(task) => task.await.unwrap_or_else(|error| {
            error!(%error, "reading the buffer ended by a bug");
            Input::Unread
        }),
        None => std::future::pending().await,
    }
}

fn not_acknowledged() -> Cause {
    Cause::Closed("an acknowledgement could not be sent".to_owned())
}

/// Waits until the first upstream takes connections; for ever while it is the one in use.
async fn is_back(reach: &Reach, first: Option<&UpstreamUrl>) {
    let Some(url) = first else {
        return std::future::pending().await;
    };
    loop {
        sleep(RETURN_AFTER).await;
        let patience = tokio::time::Instant::now() + RETURN_PATIENCE;
        if reach.tcp(url, patience).await.is_ok() {
            return;
        }
    }
}

async fn say_goodbye(mut session: Session) {
    if session.disconnect().is_ok() {
        let ended = async { while session.next().await.is_ok() {} };
        // One that does not take it ends when its socket closes.
        let _late = timeout(GOODBYE, ended).await;
    }
}
