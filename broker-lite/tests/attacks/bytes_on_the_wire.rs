//! What an attacker sends: whole packets by the codec, and bytes that no codec would make.
//!
//! Invariant: reading waits for what must come, for at most [`PATIENCE`].

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use broker_lite::{
    packet::{
        self, Ack, Connect, ConnectProperties, Delivery, Disconnect, Expect, Packet, PacketId,
        Publish, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeOptions, SubscribeRequest,
        Text, UserProperties, Version,
    },
    topic::{SubscriptionFilter, TopicName},
};
use bytes::BytesMut;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A connection of a client, well behaved or not.
pub(crate) struct Client {
    stream: Carrier,
    input: BytesMut,
    version: Version,
}

/// What carries the bytes.
enum Carrier {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Carrier {
    fn tcp(&self) -> &TcpStream {
        match self {
            Carrier::Tcp(stream) => stream,
            Carrier::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Carrier {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Carrier::Tcp(stream) => stream.read(space),
            Carrier::Tls(stream) => stream.read(space),
        }
    }
}

impl Write for Carrier {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Carrier::Tcp(stream) => stream.write(bytes),
            Carrier::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Carrier::Tcp(stream) => stream.flush(),
            Carrier::Tls(stream) => stream.flush(),
        }
    }
}

/// A TCP connection from an address of the loopback.
pub(crate) fn tcp_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Where healthy clients are.
pub(crate) const HERE: [u8; 4] = [127, 0, 0, 1];

/// Where a flood comes from that has its own share of what addresses share.
pub(crate) const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// How the broker ended a connection.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// Without a word.
    Closed,
    /// With a CONNACK or DISCONNECT that says why.
    Told(ReasonCode),
}

impl Client {
    /// A TCP connection on which nothing has been said.
    pub(crate) fn silent(address: SocketAddr) -> Client {
        Client::silent_as(address, Version::V5)
    }

    /// The same; answers will be read in this version.
    pub(crate) fn silent_as(address: SocketAddr, version: Version) -> Client {
        Client::over(Carrier::Tcp(tcp_from(HERE, address)), version)
    }

    /// The same, from an address of the loopback.
    pub(crate) fn silent_from(source: [u8; 4], address: SocketAddr) -> Client {
        Client::over(Carrier::Tcp(tcp_from(source, address)), Version::V5)
    }

    /// By TLS; hands are shaken with the first bytes.
    pub(crate) fn secured(tls: ClientConnection, stream: TcpStream) -> Client {
        let stream = Carrier::Tls(Box::new(StreamOwned::new(tls, stream)));
        Client::over(stream, Version::V5)
    }

    fn over(stream: Carrier, version: Version) -> Client {
        Client {
            stream,
            input: BytesMut::new(),
            version,
        }
    }

    /// Welcomed with MQTT 5.
    pub(crate) fn connected(address: SocketAddr, id: &str) -> Client {
        Client::connected_as(address, id, Version::V5)
    }

    /// Welcomed in the version asked for.
    pub(crate) fn connected_as(address: SocketAddr, id: &str, version: Version) -> Client {
        let connected = Client::try_connected(address, connect(id, version));
        connected.unwrap_or_else(|end| panic!("{id}: no welcome: {end:?}"))
    }

    /// Welcomed, or how it was refused.
    pub(crate) fn try_connected(address: SocketAddr, connect: Connect) -> Result<Client, End> {
        Client::silent_as(address, connect.version).welcomed(connect)
    }

    /// Says who it is, and waits for the answer.
    pub(crate) fn welcomed(mut self, connect: Connect) -> Result<Client, End> {
        self.send(&Packet::Connect(Box::new(connect)));
        match self.next() {
            Ok(Packet::ConnAck(ack)) if ack.reason == ReasonCode::Success => Ok(self),
            Ok(Packet::ConnAck(ack)) => Err(End::Told(ack.reason)),
            Ok(other) => panic!("{other:?} before CONNACK"),
            Err(_) => Err(End::Closed),
        }
    }

    /// Sends a packet; a broker that has closed already is no fault.
    pub(crate) fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet::encode(packet, self.version, &mut bytes).unwrap();
        self.send_bytes(&bytes);
    }

    /// Sends bytes as they are; a broker that has closed already is no fault.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let _refused = self.stream.write_all(bytes);
    }

    /// The next packet.
    pub(crate) fn next(&mut self) -> io::Result<Packet> {
        loop {
            let expect = Expect::from_server(self.version, usize::MAX);
            if let Some(packet) = packet::decode(&mut self.input, expect).unwrap() {
                return Ok(packet);
            }
            let mut space = [0; 4 * 1024];
            match self.stream.read(&mut space)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&space[..count]),
            }
        }
    }

    /// Reads until the broker ends the connection.
    pub(crate) fn end(&mut self) -> End {
        loop {
            match self.next() {
                Ok(Packet::Disconnect(Disconnect { reason, .. })) => return End::Told(reason),
                Ok(Packet::ConnAck(ack)) if ack.reason != ReasonCode::Success => {
                    return End::Told(ack.reason);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the broker did not end the connection within {PATIENCE:?}")
                }
                Err(_) => return End::Closed,
            }
        }
    }

    /// How the broker ends the connection; `None` when it has not within this time.
    pub(crate) fn sooner_than(&mut self, patience: Duration) -> Option<End> {
        self.stream.tcp().set_read_timeout(Some(patience)).unwrap();
        match self.next() {
            Ok(Packet::Disconnect(Disconnect { reason, .. })) => Some(End::Told(reason)),
            Ok(Packet::ConnAck(ack)) => Some(End::Told(ack.reason)),
            Ok(other) => panic!("{other:?} where the end was expected"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(End::Closed),
        }
    }

    /// Ends the client's half of the connection.
    pub(crate) fn says_no_more(&self) {
        let _closed = self.stream.tcp().shutdown(Shutdown::Write);
    }

    pub(crate) fn subscribe(&mut self, filter: &str) {
        self.send(&Packet::Subscribe(subscribe(filter, QoS::AtLeastOnce)));
        assert!(matches!(self.next(), Ok(Packet::SubAck(_))));
    }

    /// Publishes at QoS 1 to a topic it has subscribed to, and waits for both answers.
    pub(crate) fn round_trip(&mut self, topic: &str) {
        let packet_id = PacketId::new(2).unwrap();
        self.send(&Packet::Publish(publish(
            topic,
            Delivery::AtLeastOnce(packet_id),
            b"beat",
        )));
        let (mut acknowledged, mut delivered) = (false, false);
        let start = Instant::now();
        while !(acknowledged && delivered) {
            assert!(start.elapsed() < PATIENCE, "no answer");
            match self.next().unwrap() {
                Packet::PubAck(_) => acknowledged = true,
                Packet::Publish(Publish {
                    delivery: Delivery::AtLeastOnce(id),
                    ..
                }) => {
                    delivered = true;
                    self.send(&Packet::PubAck(Ack::success(id)));
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Subscribes first.
    pub(crate) fn round_trip_of_its_own(&mut self, topic: &str) {
        self.subscribe(topic);
        self.round_trip(topic);
    }
}

/// A CONNECT with a new session.
pub(crate) fn connect(id: &str, version: Version) -> Connect {
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

/// A SUBSCRIBE for one filter.
pub(crate) fn subscribe(filter: &str, qos: QoS) -> Subscribe {
    let options = SubscribeOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        subscription_id: None,
        requests: vec![SubscribeRequest {
            filter: SubscriptionFilter::parse(filter).unwrap(),
            options,
        }],
        user_properties: UserProperties::default(),
    }
}

/// Bytes from `82 05 0001`.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}

/// A message without properties.
pub(crate) fn publish(topic: &str, delivery: Delivery, payload: &[u8]) -> Publish {
    Publish {
        dup: false,
        retain: false,
        delivery,
        topic: Some(TopicName::parse(topic).unwrap()),
        topic_alias: None,
        message_expiry_s: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: payload.to_vec().into(),
    }
}

/// A packet's bytes.
pub(crate) fn bytes_of(packet: &Packet, version: Version) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet::encode(packet, version, &mut bytes).unwrap();
    bytes.to_vec()
}
