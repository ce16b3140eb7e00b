//! Attacks on WebSocket, where bytes of MQTT come in frames.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use broker_lite::packet::{Packet, Version};
use rustls::StreamOwned;

use crate::{
    bytes_on_the_wire::{ELSEWHERE, HERE, bytes_of, connect, tcp_from},
    pki::Pki,
    secured::{connection, tls, wait_for_end},
    victim::Victim,
};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

const PLAIN: &str = "[[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
    [[listener]]\naddress = \"127.0.0.1:0\"\n\
    [[listener]]\naddress = \"127.0.0.1:0\"\nwebsocket = \"/mqtt\"\n";

/// Beside the plain listener of the healthy client, one by WebSocket.
fn impatient() -> Victim {
    let limits = "[limits]\nhandshake_timeout = \"1s\"\nconnect_timeout = \"1s\"\n";
    let folder = tempfile::tempdir().unwrap();
    Victim::start(folder, &format!("{PLAIN}{limits}"))
}

/// The end of the answer to a request.
fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn upgraded(victim: &Victim) -> TcpStream {
    let mut stream = tcp_from(HERE, victim.address_of(1));
    stream.write_all(REQUEST.as_bytes()).unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 101 "));
    stream
}

/// A masked frame; the mask is zero.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

fn connect_frame(id: &str) -> Vec<u8> {
    let connect = Packet::Connect(Box::new(connect(id, Version::V3)));
    frame(0x82, &bytes_of(&connect, Version::V3))
}

fn connected(victim: &Victim, id: &str) -> TcpStream {
    let mut stream = upgraded(victim);
    stream.write_all(&connect_frame(id)).unwrap();
    expect(&mut stream, &[0x82, 4, 0x20, 2, 0, 0]);
    stream
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

/// Sends on every stream a byte at a time for longer than the broker has patience.
fn drip(streams: &mut [TcpStream], bytes: &[u8]) {
    assert!(bytes.len() > 25);
    for byte in &bytes[..25] {
        thread::sleep(Duration::from_millis(100));
        for stream in &mut *streams {
            // It may be closed already.
            let _refused = stream.write_all(&[*byte]);
        }
    }
    streams.iter_mut().for_each(wait_for_end);
}

#[test]
fn a_request_that_comes_byte_by_byte_is_given_up() {
    impatient().survives("slow-loris at WebSocket's request", |victim| {
        let mut streams: Vec<TcpStream> = (0..60)
            .map(|_| tcp_from(ELSEWHERE, victim.address_of(1)))
            .collect();
        let start = Instant::now();
        drip(&mut streams, REQUEST.as_bytes());
        assert!(start.elapsed() < Duration::from_secs(5));
        connected(victim, "framed");
    });
}

#[test]
fn frames_that_come_byte_by_byte_buy_no_time_for_connect() {
    impatient().survives("slow-loris in WebSocket's frames", |victim| {
        let mut streams: Vec<TcpStream> = (0..30).map(|_| upgraded(victim)).collect();
        let start = Instant::now();
        drip(
            &mut streams,
            &connect_frame("framed-with-a-name-of-some-length"),
        );
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

/// They are work for the broker, and no packets that would count.
#[test]
fn a_flood_of_frames_without_mqtt_ends_the_connection() {
    impatient().survives("flood of pings and empty frames", |victim| {
        for idle in [frame(0x89, b"there?"), frame(0x8A, b""), frame(0x82, b"")] {
            let mut stream = connected(victim, "framed");
            stream.write_all(&frame(0x89, b"one is well")).unwrap();
            expect(&mut stream, b"\x8A\x0Bone is well");
            let flood = idle.repeat(2_000);
            // It may be closed before all is written.
            let _refused = stream.write_all(&flood);
            wait_for_end(&mut stream);
        }
        victim.says("more WebSocket frames without a byte of MQTT");
    });
}

/// A header may promise what never comes, and a control frame more than it may hold.
#[test]
fn frames_that_lie_about_their_length_cost_no_memory() {
    impatient().survives("huge WebSocket frames", |victim| {
        let mut promising: Vec<TcpStream> = (0..50)
            .map(|number| connected(victim, &format!("promising-{number}")))
            .collect();
        for stream in &mut promising {
            let header = [
                0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0,
            ];
            stream.write_all(&header).unwrap();
            stream.write_all(&[0xC0, 0]).unwrap();
            expect(stream, &[0x82, 2, 0xD0, 0]);
        }
        for fault in [
            &[0x89, 0xFE, 1, 0][..],
            &[0x82, 0x02, 0xC0, 0],
            &[0xC2, 0x80, 0, 0, 0, 0],
        ] {
            let mut stream = connected(victim, "framed");
            stream.write_all(fault).unwrap();
            wait_for_end(&mut stream);
        }
    });
}

/// Other brokers have checked certificates on their TCP listeners alone.
#[test]
fn a_websocket_over_tls_asks_for_the_certificate_too() {
    let (pki, foreign) = (Pki::new(), Pki::new());
    pki.client("panel", 2);
    foreign.client("panel", 2);
    let path = |name, kind| pki.path(name, kind).display().to_string();
    let config = format!(
        "{PLAIN}identity = \"certificate\"\ntls = {{ certificate = {:?}, key = {:?}, client_ca = {:?} }}\n",
        path("server", "crt"),
        path("server", "key"),
        path("ca", "crt"),
    );
    let folder = tempfile::tempdir().unwrap();
    Victim::start(folder, &config).survives("WebSocket without a certificate", |victim| {
        let mut of_foreign = tls(&pki, None);
        of_foreign.client_auth_cert_resolver =
            tls(&foreign, Some("panel")).client_auth_cert_resolver;
        let answer = |config| {
            let stream = tcp_from(HERE, victim.address_of(1));
            let mut stream = StreamOwned::new(connection(&Arc::new(config)), stream);
            // The broker may refuse before all is written.
            let _refused = stream.write_all(REQUEST.as_bytes());
            head(&mut stream)
        };
        assert_eq!(answer(tls(&pki, None)), "");
        assert_eq!(answer(of_foreign), "");
        assert!(answer(tls(&pki, Some("panel"))).starts_with("HTTP/1.1 101 "));
    });
}
