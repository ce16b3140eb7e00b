//! One core with clients that speak packets to it, in memory and on a clock of its own. Tests only.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops where it stands"
)]

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use bytes::BytesMut;

use super::{
    Admission, ConnectionId, Core, ListenerId, Output, Peer, Rules, SessionId, Stored,
    StoredSession, Ticket,
};
use crate::{
    config::{AccessRule, IdentitySource, Limits, Protocol, TopicPattern},
    ids::{DeliveryKey, MessageKey, SessionKey},
    journal::{
        Batch, DeliveryChange, DeliveryRecord, LastKeys, MessageChange, RetainedRecord, WillRecord,
    },
    keeper::{Keeper, Kept, Receipt},
    login::{Check, Login, Logins},
    message::Message,
    observe::audit::{Event, Refusal},
    packet::{
        self, Ack, Connect, ConnectProperties, Delivery, Disconnect, Expect, Packet, PacketId,
        Publish, QoS, ReasonCode, Subscribe, SubscribeOptions, SubscribeRequest, Text, Version,
        Will,
    },
    publication::Publication,
    topic::{SubscriptionFilter, TopicFilter, TopicName},
};

/// A fixed moment for tests; the clock is only read once, and time then passes by hand.
#[expect(
    clippy::disallowed_methods,
    reason = "tests need one instant to count from"
)]
pub(crate) fn start() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START
}

/// Wants what matches a filter; never answers by itself.
pub(crate) struct Wants(pub(crate) TopicFilter);

impl Keeper for Wants {
    fn wants(&self, topic: &TopicName) -> bool {
        self.0.matches(topic)
    }

    fn keep(&self, _message: &Message, receipt: Receipt) {
        receipt.answer(Kept::Refused);
    }
}

/// A client's handle in the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Client(pub(crate) ConnectionId);

/// Puts on disk what the core has recorded, and tells it.
pub(crate) type Commit = Box<dyn FnMut(&mut Core, Instant)>;

pub(crate) struct Sim {
    pub(crate) core: Core,
    pub(crate) now: Instant,
    versions: HashMap<ConnectionId, Version>,
    streams: HashMap<ConnectionId, BytesMut>,
    inboxes: HashMap<ConnectionId, VecDeque<Packet>>,
    pub(crate) stalled: Vec<ConnectionId>,
    pub(crate) closed: Vec<ConnectionId>,
    pub(crate) kept: VecDeque<(Ticket, Arc<Publication>)>,
    pub(crate) settled: Vec<Kept>,
    pub(crate) refusals: Vec<Refusal>,
    /// What the operator was told beside those.
    pub(crate) events: Vec<Event>,
    pub(crate) ready: Vec<SessionId>,
    /// Passwords that are being checked.
    pub(crate) checks: VecDeque<(ConnectionId, Check)>,
    pub(crate) disk: Option<Disk>,
    /// A real store in the disk's place.
    pub(crate) store: Option<Commit>,
    keeper: Option<Arc<dyn Keeper>>,
}

impl Sim {
    pub(crate) fn new() -> Sim {
        Sim::with(Limits::default(), vec![AccessRule::everything()], None)
    }

    pub(crate) fn limited(limits: Limits) -> Sim {
        Sim::with(limits, vec![AccessRule::everything()], None)
    }

    pub(crate) fn keeping(filter: &str) -> Sim {
        let wants = Wants(TopicFilter::parse(filter).unwrap());
        Sim::with(
            Limits::default(),
            vec![AccessRule::everything()],
            Some(Arc::new(wants)),
        )
    }

    pub(crate) fn with(
        limits: Limits,
        access: Vec<AccessRule>,
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Sim {
        Sim {
            core: Core::new(rules(limits, access), keeper.clone(), "auto-0".to_owned()),
            now: start(),
            versions: HashMap::new(),
            streams: HashMap::new(),
            inboxes: HashMap::new(),
            stalled: Vec::new(),
            closed: Vec::new(),
            kept: VecDeque::new(),
            settled: Vec::new(),
            refusals: Vec::new(),
            events: Vec::new(),
            ready: Vec::new(),
            checks: VecDeque::new(),
            disk: None,
            store: None,
            keeper,
        }
    }

    /// With a disk that keeps what was committed, and forgets the rest in a crash.
    pub(crate) fn storing(limits: Limits) -> Sim {
        Sim::storing_and_keeping(limits, None)
    }

    /// The same, beside a keeper.
    pub(crate) fn storing_and_keeping(limits: Limits, keeper: Option<Arc<dyn Keeper>>) -> Sim {
        let mut sim = Sim::with(limits, Vec::new(), keeper);
        sim.disk = Some(Disk::default());
        sim.crash();
        sim
    }

    /// The process dies, and another takes its place on the same disk.
    pub(crate) fn crash(&mut self) {
        let disk = self.disk.as_mut().expect("a disk");
        disk.pending = Batch::default();
        let stored = disk.stored();
        self.restart(|core, now| core.restore(stored, now));
    }

    /// Another core takes the place of this one, with what it is told of.
    pub(crate) fn restart(&mut self, restore: impl FnOnce(&mut Core, Instant)) {
        let limits = self.core.limits().clone();
        let rules = rules(limits, vec![AccessRule::everything()]);
        self.core = Core::storing(rules, self.keeper.clone(), "auto-1".to_owned());
        restore(&mut self.core, self.now);
        self.streams.clear();
        self.inboxes.clear();
        self.closed.clear();
        self.kept.clear();
        self.drain();
    }

    /// The disk takes what waits, and says so.
    pub(crate) fn commit(&mut self) {
        self.drain();
        if let Some(store) = &mut self.store {
            store(&mut self.core, self.now);
            self.drain();
        }
        if let Some(through) = self.disk.as_mut().map(Disk::commit) {
            self.core.handle_committed(through, self.now);
            self.drain();
        }
    }

    pub(crate) fn open(&mut self, peer: Peer) -> Result<ConnectionId, Refusal> {
        let opened = self.core.open(peer, self.now);
        self.drain();
        opened
    }

    /// Connects and takes CONNACK, which must be a success; says whether a session was present.
    pub(crate) fn connect(&mut self, connect: Connect) -> (Client, bool) {
        let client = self.try_connect(connect);
        if (self.disk.is_some() || self.store.is_some()) && !self.inboxes.contains_key(&client.0) {
            // A client waits for its CONNACK, and that for the disk.
            self.commit();
        }
        match self
            .inboxes
            .get_mut(&client.0)
            .and_then(|inbox| inbox.pop_front())
        {
            Some(Packet::ConnAck(ack)) if ack.reason == ReasonCode::Success => {
                (client, ack.session_present)
            }
            other => panic!("no successful CONNACK but {other:?}"),
        }
    }

    pub(crate) fn try_connect(&mut self, connect: Connect) -> Client {
        let connection = self.open(peer()).unwrap();
        self.versions.insert(connection, connect.version);
        let client = Client(connection);
        self.send(client, Packet::Connect(Box::new(connect)));
        client
    }

    /// What is written to this connection is of this version.
    pub(crate) fn speaks(&mut self, connection: ConnectionId, version: Version) {
        self.versions.insert(connection, version);
    }

    pub(crate) fn client(&mut self, version: Version, id: &str) -> Client {
        self.connect(hello(version, id)).0
    }

    pub(crate) fn send(&mut self, client: Client, packet: Packet) {
        self.core.handle_packet(client.0, packet, self.now);
        self.drain();
    }

    /// A connection over which no packet has come.
    pub(super) fn silent(&mut self) -> Client {
        Client(self.open(peer()).unwrap())
    }

    /// Bytes of a client, read as its driver reads them.
    pub(super) fn send_bytes(&mut self, client: Client, bytes: &[u8]) {
        let mut input = BytesMut::from(bytes);
        loop {
            let maximum = self.core.packet_size();
            let expect = match self.versions.get(&client.0) {
                Some(version) => Expect::from_client(*version, maximum),
                None => Expect::connect(maximum),
            };
            match packet::decode(&mut input, expect) {
                Ok(Some(packet)) => {
                    if let Packet::Connect(connect) = &packet {
                        self.versions.insert(client.0, connect.version);
                    }
                    self.core.handle_packet(client.0, packet, self.now);
                    self.drain();
                }
                Ok(None) => return,
                Err(error) => {
                    self.versions.entry(client.0).or_insert(error.version);
                    self.core.handle_malformed(client.0, &error, self.now);
                    return self.drain();
                }
            }
        }
    }

    pub(crate) fn lose(&mut self, client: Client) {
        self.core.handle_closed(client.0, self.now);
        self.drain();
    }

    /// The connection breaks: what the client has not read yet is gone.
    pub(crate) fn cut(&mut self, client: Client) {
        self.lose(client);
        self.inboxes.remove(&client.0);
    }

    /// The next packet that the client reads.
    pub(crate) fn next(&mut self, client: Client) -> Option<Packet> {
        self.inboxes.get_mut(&client.0)?.pop_front()
    }

    /// Lets time pass, with every timer on its moment.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.core.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.core.handle_timeout(self.now);
        self.drain();
    }

    /// Ends the password check that began first; false when none runs.
    pub(crate) fn end_check(&mut self) -> bool {
        let Some((connection, check)) = self.checks.pop_front() else {
            return false;
        };
        self.core.handle_verified(connection, check.run(), self.now);
        self.drain();
        true
    }

    /// Answers for the message that was handed over first.
    pub(crate) fn answer_keeper(&mut self, kept: Kept) -> Arc<Publication> {
        let (ticket, publication) = self.kept.pop_front().unwrap();
        self.core.handle_kept(ticket, kept, self.now);
        self.drain();
        publication
    }

    /// What the client received since it was last asked.
    pub(crate) fn take(&mut self, client: Client) -> Vec<Packet> {
        self.drain();
        self.inboxes.remove(&client.0).unwrap_or_default().into()
    }

    /// The PUBLISHes among what it received, as `topic=payload`.
    pub(crate) fn payloads(&mut self, client: Client) -> Vec<String> {
        self.publishes(client).iter().map(text).collect()
    }

    pub(crate) fn publishes(&mut self, client: Client) -> Vec<Publish> {
        let publish = |packet| match packet {
            Packet::Publish(publish) => Some(publish),
            _ => None,
        };
        self.take(client).into_iter().filter_map(publish).collect()
    }

    pub(crate) fn subscribe(
        &mut self,
        client: Client,
        filter: &str,
        options: SubscribeOptions,
    ) -> ReasonCode {
        self.send(client, subscribe(filter, options));
        let answers = self.inboxes.entry(client.0).or_default();
        let at = answers
            .iter()
            .position(|packet| matches!(packet, Packet::SubAck(_)))
            .unwrap();
        match answers.remove(at) {
            Some(Packet::SubAck(ack)) => ack.reasons[0],
            other => panic!("no SUBACK but {other:?}"),
        }
    }

    pub(crate) fn is_closed(&self, client: Client) -> bool {
        self.closed.contains(&client.0)
    }

    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Flush(connection) => {
                    if !self.stalled.contains(&connection) {
                        self.flush(connection);
                    }
                }
                Output::Close(connection) => {
                    self.flush(connection);
                    if !self.closed.contains(&connection) {
                        self.closed.push(connection);
                    }
                    self.core.handle_closed(connection, self.now);
                }
                Output::Keep {
                    ticket,
                    publication,
                } => {
                    self.kept.push_back((ticket, publication));
                }
                Output::Verify { connection, check } => {
                    self.checks.push_back((connection, check));
                }
                Output::Settled { kept, .. } => self.settled.push(kept),
                Output::Ready(session) => self.ready.push(session),
                Output::Tell(Event::Refused { refusal, .. }) => self.refusals.push(refusal),
                Output::Tell(event) => self.events.push(event),
            }
        }
        if let Some(disk) = &mut self.disk
            && let Some(changes) = self.core.take_changes()
        {
            disk.pending.add(changes);
        }
    }

    pub(crate) fn flush(&mut self, connection: ConnectionId) {
        let bytes = self.core.take_bytes(connection, self.now);
        let version = self
            .versions
            .get(&connection)
            .copied()
            .unwrap_or(Version::V5);
        let stream = self.streams.entry(connection).or_default();
        stream.extend_from_slice(&bytes);
        while let Some(packet) =
            packet::decode(stream, Expect::from_server(version, usize::MAX)).unwrap()
        {
            self.inboxes
                .entry(connection)
                .or_default()
                .push_back(packet);
        }
    }
}

/// Tables as the store has them, in memory.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) pending: Batch,
    sessions: BTreeMap<SessionKey, StoredSession>,
    messages: HashMap<MessageKey, Arc<Publication>>,
    deliveries: BTreeMap<DeliveryKey, DeliveryRecord>,
    retained: BTreeMap<TopicName, RetainedRecord>,
    wills: BTreeMap<String, WillRecord>,
}

impl Disk {
    /// Messages, deliveries and sessions on it.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (
            self.messages.len(),
            self.deliveries.len(),
            self.sessions.len(),
        )
    }

    fn commit(&mut self) -> u64 {
        let batch = std::mem::take(&mut self.pending);
        let through = batch.through;
        self.pending.through = through;
        if batch.whole {
            *self = Disk::default();
        }
        self.apply_sessions(&batch);
        for (key, change) in batch.messages {
            match change {
                MessageChange::Insert(message) | MessageChange::Replace(message) => {
                    self.messages.insert(key, message);
                }
                MessageChange::Delete => drop(self.messages.remove(&key)),
            }
        }
        for (key, change) in batch.deliveries {
            match change {
                DeliveryChange::Insert(record) => drop(self.deliveries.insert(key, record)),
                DeliveryChange::Update(progress) => {
                    self.deliveries.get_mut(&key).unwrap().progress = progress;
                }
                DeliveryChange::Delete => drop(self.deliveries.remove(&key)),
            }
        }
        for (topic, record) in batch.retained {
            match record {
                Some(record) => drop(self.retained.insert(topic, record)),
                None => drop(self.retained.remove(&topic)),
            }
        }
        for (client, record) in batch.wills {
            match record {
                Some(record) => drop(self.wills.insert(client, record)),
                None => drop(self.wills.remove(&client)),
            }
        }
        through
    }

    fn apply_sessions(&mut self, batch: &Batch) {
        for (key, change) in &batch.sessions {
            if change.ended {
                self.sessions.remove(key);
                continue;
            }
            if let Some(record) = &change.record {
                let session = self.sessions.entry(*key).or_insert_with(|| StoredSession {
                    key: *key,
                    record: record.clone(),
                    subscriptions: Vec::new(),
                    taken: Vec::new(),
                    deliveries: Vec::new(),
                });
                session.record = record.clone();
            }
            let session = self.sessions.get_mut(key).unwrap();
            for (filter, record) in &change.subscriptions {
                session.subscriptions.retain(|(known, _)| known != filter);
                let record = record.map(|record| (filter.clone(), record));
                session.subscriptions.extend(record);
            }
            for (packet_id, taken) in &change.taken {
                session.taken.retain(|known| known != packet_id);
                session.taken.extend(taken.then_some(*packet_id));
            }
        }
    }

    fn stored(&self) -> Stored {
        let mut sessions: BTreeMap<SessionKey, StoredSession> = BTreeMap::new();
        for (key, session) in &self.sessions {
            let of_session = |(_, record): &(_, &DeliveryRecord)| record.session == *key;
            let deliveries = self.deliveries.iter().filter(of_session);
            let copy = StoredSession {
                key: *key,
                record: session.record.clone(),
                subscriptions: session.subscriptions.clone(),
                taken: session.taken.clone(),
                deliveries: deliveries
                    .map(|(key, record)| (*key, record.clone()))
                    .collect(),
            };
            sessions.insert(*key, copy);
        }
        let retained = self.retained.values();
        Stored {
            last: LastKeys {
                session: self.sessions.keys().map(|key| key.0).max().unwrap_or(0),
                message: self.messages.keys().map(|key| key.0).max().unwrap_or(0),
                delivery: self.deliveries.keys().map(|key| key.0).max().unwrap_or(0),
            },
            messages: self.messages.clone(),
            sessions: sessions.into_values().collect(),
            retained: retained
                .map(|record| (record.message, record.publisher.clone()))
                .collect(),
            wills: self.wills.values().cloned().collect(),
        }
    }
}

pub(crate) fn rules(limits: Limits, access: Vec<AccessRule>) -> Rules {
    let password = "secret".to_owned().into();
    Rules {
        limits,
        protocol: Protocol::default(),
        access,
        logins: Logins::new(vec![Login::plain("ann", password, None)], [7; 32]),
        sys_interval: Duration::from_secs(10),
    }
}

pub(crate) fn peer() -> Peer {
    Peer {
        address: SocketAddr::from(([127, 0, 0, 1], 50_000)).into(),
        listener: ListenerId(1),
        admission: Admission {
            anonymous: true,
            identity: IdentitySource::Either,
            connections: None,
            stream_bytes: 0,
        },
        certificate: None,
    }
}

/// A CONNECT with a clean start.
pub(crate) fn hello(version: Version, id: &str) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        client_id: Text::parse(id).unwrap(),
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A CONNECT for a session that outlives the connection by an hour.
pub(crate) fn lasting(version: Version, id: &str) -> Connect {
    let mut connect = Connect {
        clean_start: false,
        ..hello(version, id)
    };
    if version == Version::V5 {
        connect.properties.session_expiry_s = Some(3_600);
    }
    connect
}

pub(crate) fn will(topic: &str, delay_s: Option<u32>) -> Will {
    Will {
        topic: TopicName::parse(topic).unwrap(),
        payload: "gone".into(),
        qos: QoS::AtMostOnce,
        retain: false,
        delay_s,
        message_expiry_s: None,
        properties: None,
    }
}

pub(crate) fn publish(topic: &str, payload: &str, delivery: Delivery) -> Publish {
    Publish {
        dup: false,
        retain: false,
        delivery,
        topic: Some(TopicName::parse(topic).unwrap()),
        topic_alias: None,
        message_expiry_s: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: payload.to_owned().into(),
    }
}

pub(crate) fn once(topic: &str, payload: &str) -> Packet {
    Packet::Publish(publish(topic, payload, Delivery::AtMostOnce))
}

pub(crate) fn qos1(topic: &str, payload: &str, packet_id: u16) -> Packet {
    Packet::Publish(publish(
        topic,
        payload,
        Delivery::AtLeastOnce(id(packet_id)),
    ))
}

pub(crate) fn qos2(topic: &str, payload: &str, packet_id: u16) -> Packet {
    Packet::Publish(publish(
        topic,
        payload,
        Delivery::ExactlyOnce(id(packet_id)),
    ))
}

pub(crate) fn retained(topic: &str, payload: &str) -> Packet {
    Packet::Publish(Publish {
        retain: true,
        ..publish(topic, payload, Delivery::AtMostOnce)
    })
}

pub(crate) fn subscribe(filter: &str, options: SubscribeOptions) -> Packet {
    Packet::Subscribe(Subscribe {
        packet_id: id(9),
        subscription_id: None,
        user_properties: packet::UserProperties::default(),
        requests: vec![SubscribeRequest {
            filter: SubscriptionFilter::parse(filter).unwrap(),
            options,
        }],
    })
}

pub(crate) fn puback(packet_id: u16) -> Packet {
    Packet::PubAck(Ack::success(id(packet_id)))
}

pub(crate) fn pubrec(packet_id: u16) -> Packet {
    Packet::PubRec(Ack::success(id(packet_id)))
}

pub(crate) fn pubrel(packet_id: u16) -> Packet {
    Packet::PubRel(Ack::success(id(packet_id)))
}

pub(crate) fn pubcomp(packet_id: u16) -> Packet {
    Packet::PubComp(Ack::success(id(packet_id)))
}

pub(crate) fn goodbye() -> Packet {
    Packet::Disconnect(Disconnect::new(ReasonCode::Success))
}

pub(crate) fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

pub(crate) fn text(publish: &Publish) -> String {
    let topic = publish.topic.as_ref().map_or("", |topic| topic.as_str());
    format!("{topic}={}", String::from_utf8_lossy(&publish.payload))
}

pub(crate) fn allow(user: Option<&str>, publish: &[&str], subscribe: &[&str]) -> AccessRule {
    let patterns = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| TopicPattern((*text).to_owned()))
            .collect()
    };
    AccessRule {
        user: user.map(str::to_owned),
        client: None,
        publish: patterns(publish),
        subscribe: patterns(subscribe),
    }
}
