//! Promise: MQTT over WebSocket is MQTT over one more layer: the same clients, the same checks, and
//! nothing but binary frames of the subprotocol `mqtt`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use broker_lite::{
    config::{Config, Limits, Listener},
    server::Broker,
};

use crate::{
    loopback, open_to_all, peers::PATIENCE, pki::Pki, port, python::python, refusals, refused,
};

fn websocket() -> Listener {
    Listener {
        websocket: Some("/mqtt".to_owned()),
        ..loopback()
    }
}

async fn echo(arguments: &[&str]) -> std::process::Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transport/echo.py");
    let mut command = tokio::process::Command::new(python());
    command.arg(script).args(arguments).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    output
        .expect("paho ends in time")
        .expect("Python with paho: see tests/requirements.txt")
}

const ECHOED: &str =
    "0 5 s\n0 300 m\n0 100000 l\n1 5 s\n1 300 m\n1 100000 l\n2 5 s\n2 300 m\n2 100000 l\n";

#[tokio::test(flavor = "multi_thread")]
async fn paho_talks_over_websocket_at_every_qos_and_in_both_versions() {
    let broker = Broker::start(&open_to_all(vec![websocket()]), None)
        .await
        .unwrap();
    let port = port(&broker, 0).to_string();
    for version in ["3", "5"] {
        let output = echo(&[&port, "/mqtt", version]).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, ECHOED, "{}", String::from_utf8_lossy(&output.stderr));
    }
    let elsewhere = echo(&[&port, "/other", "5"]).await;
    assert!(!elsewhere.status.success());
    refusals(&broker, "handshake", 1).await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_websocket_client_shows_its_certificate_like_any_other() {
    let pki = Pki::new();
    pki.client("panel", 2);
    let listener = Listener {
        tls: Some(pki.tls(None)),
        ..websocket()
    };
    let broker = Broker::start(&open_to_all(vec![listener]), None)
        .await
        .unwrap();
    let port = port(&broker, 0).to_string();
    let files = [("ca", "crt"), ("panel", "crt"), ("panel", "key")];
    let files = files.map(|(name, kind)| pki.path(name, kind).display().to_string());
    let [ca, certificate, key] = files.each_ref().map(String::as_str);
    let output = echo(&[&port, "/mqtt", "5", ca, certificate, key]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, ECHOED, "{}", String::from_utf8_lossy(&output.stderr));

    assert!(!echo(&[&port, "/mqtt", "5", ca]).await.status.success());
    refusals(&broker, "handshake", 1).await;
    broker.shutdown().await;
}

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n";

/// CONNECT of 3.1.1 with a clean session and the client identifier `x`; its CONNACK.
const CONNECT: &[u8] = &[
    0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'x',
];
const CONNACK: &[u8] = &[0x82, 4, 0x20, 2, 0, 0];
const PINGREQ: &[u8] = &[0xC0, 0];

fn asks(broker: &Broker, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port(broker, 0))).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(format!("{REQUEST}{more}\r\n").as_bytes())
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

/// A masked frame; the mask is zero, so that tests stay readable.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

/// 3.1.1: [MQTT-6.0.0-2]
/// 5.0: [MQTT-6.0.0-2]
#[tokio::test(flavor = "multi_thread")]
async fn packets_may_span_frames_and_share_them() {
    let broker = Broker::start(&open_to_all(vec![websocket()]), None)
        .await
        .unwrap();
    let (mut stream, head) = asks(&broker, "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for byte in CONNECT {
        stream.write_all(&frame(0x82, &[*byte])).unwrap();
    }
    expect(&mut stream, CONNACK);
    let two = [PINGREQ, PINGREQ].concat();
    stream.write_all(&frame(0x02, &two[..3])).unwrap();
    stream.write_all(&frame(0x89, b"there?")).unwrap();
    expect(&mut stream, b"\x82\x02\xD0\x00");
    expect(&mut stream, b"\x8A\x06there?");
    stream.write_all(&frame(0x80, &two[3..])).unwrap();
    expect(&mut stream, b"\x82\x02\xD0\x00");
    stream
        .write_all(&frame(0x88, &1000_u16.to_be_bytes()))
        .unwrap();
    expect(&mut stream, b"\x88\x02\x03\xE8");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the broker closes too");
    broker.shutdown().await;
}

/// 3.1.1: [MQTT-6.0.0-1]
/// 5.0: [MQTT-6.0.0-1]
#[tokio::test(flavor = "multi_thread")]
async fn text_frames_and_what_is_no_frame_close_the_connection() {
    let broker = Broker::start(&open_to_all(vec![websocket()]), None)
        .await
        .unwrap();
    for (bytes, status) in [
        (frame(0x81, CONNECT), 1003_u16),
        (vec![0x82, 2, 0xC0, 0], 1002),
    ] {
        let before = refused(&broker, "malformed-packet");
        let (mut stream, _) = asks(&broker, "");
        stream.write_all(&bytes).unwrap();
        let [high, low] = status.to_be_bytes();
        expect(&mut stream, &[0x88, 2, high, low]);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        refusals(&broker, "malformed-packet", before + 1).await;
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_gets_no_websocket() {
    let listener = Listener {
        websocket_origins: vec!["https://panel.plant".to_owned()],
        ..websocket()
    };
    let broker = Broker::start(&open_to_all(vec![listener]), None)
        .await
        .unwrap();
    for (origin, status) in [
        ("Origin: https://panel.plant\r\n", "101"),
        ("", "101"),
        ("Origin: https://evil.example\r\n", "403"),
    ] {
        let (_stream, head) = asks(&broker, origin);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{origin}: {head}"
        );
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_is_given_up() {
    let config = Config {
        limits: Limits {
            handshake_timeout: settings::Period::from_millis(200),
            ..Limits::default()
        },
        ..open_to_all(vec![websocket()])
    };
    let broker = Broker::start(&config, None).await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port(&broker, 0))).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream.write_all(b"GET /mqtt HT").unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    refusals(&broker, "handshake", 1).await;
    broker.shutdown().await;
}
