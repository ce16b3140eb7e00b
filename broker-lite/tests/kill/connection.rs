//! One client's connection, by the broker's own codec.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use broker_lite::packet::{
    self, Connect, ConnectProperties, Delivery, Expect, Packet, PacketId, QoS, ReasonCode,
    Subscribe, SubscribeOptions, SubscribeRequest, Text, UserProperties, Version, Will,
};
use broker_lite::topic::SubscriptionFilter;
use bytes::BytesMut;

use crate::place::{GLANCE, PATIENCE};

/// One client's connection.
pub(crate) struct Connection {
    stream: TcpStream,
    input: BytesMut,
}

impl Connection {
    /// Connects with a lasting session; `None` when the broker is away.
    pub(crate) fn open(port: u16, name: &str) -> Option<(Connection, bool)> {
        Connection::establish(port, name, Some(Duration::from_secs(3_600)), None)
    }

    /// Connects with a session that ends with the connection, and perhaps a will.
    pub(crate) fn pass(port: u16, name: &str, will: Option<Will>) -> Option<Connection> {
        Connection::establish(port, name, None, will).map(|(connection, _)| connection)
    }

    fn establish(
        port: u16,
        name: &str,
        lasting: Option<Duration>,
        will: Option<Will>,
    ) -> Option<(Connection, bool)> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(GLANCE)).ok()?;
        let mut connection = Connection {
            stream,
            input: BytesMut::new(),
        };
        let properties = ConnectProperties {
            session_expiry_s: lasting.map(|time| time.as_secs() as u32),
            ..ConnectProperties::default()
        };
        let connect = Connect {
            version: Version::V5,
            clean_start: lasting.is_none(),
            keep_alive_s: 60,
            client_id: Text::parse(name).unwrap(),
            will,
            user_name: None,
            password: None,
            properties,
        };
        connection
            .send(&[Packet::Connect(Box::new(connect))])
            .ok()?;
        match connection.wait().ok()? {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => {
                Some((connection, ack.session_present))
            }
            _ => None,
        }
    }

    pub(crate) fn send(&mut self, packets: &[Packet]) -> io::Result<()> {
        let mut output = BytesMut::new();
        for packet in packets {
            packet::encode(packet, Version::V5, &mut output).unwrap();
        }
        self.stream.write_all(&output)
    }

    /// The next packet, or none for now.
    pub(crate) fn next(&mut self) -> io::Result<Option<Packet>> {
        let expect = Expect::from_server(Version::V5, usize::MAX);
        if let Some(packet) = packet::decode(&mut self.input, expect).unwrap() {
            return Ok(Some(packet));
        }
        let mut space = [0; 16 * 1024];
        match self.stream.read(&mut space) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.input.extend_from_slice(&space[..count]);
                Ok(packet::decode(&mut self.input, expect).unwrap())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn wait(&mut self) -> io::Result<Packet> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(packet) = self.next()? {
                return Ok(packet);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Subscribes, and waits for the answer.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) -> io::Result<()> {
        let subscribe = Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            subscription_id: None,
            user_properties: UserProperties::default(),
            requests: vec![SubscribeRequest {
                filter: SubscriptionFilter::parse(filter).unwrap(),
                options: SubscribeOptions::at(qos),
            }],
        };
        self.send(&[Packet::Subscribe(subscribe)])?;
        match self.wait()? {
            Packet::SubAck(_) => Ok(()),
            other => panic!("no SUBACK but {other:?}"),
        }
    }

    /// The payload of the first message that a new subscriber gets.
    pub(crate) fn read_one(port: u16, filter: &str) -> String {
        let mut connection = Connection::pass(port, "reader", None).unwrap();
        connection.subscribe(filter, QoS::AtMostOnce).unwrap();
        match connection.wait().unwrap() {
            Packet::Publish(publish) => {
                assert_eq!(publish.delivery, Delivery::AtMostOnce);
                String::from_utf8(publish.payload.to_vec()).unwrap()
            }
            other => panic!("no PUBLISH but {other:?}"),
        }
    }
}
