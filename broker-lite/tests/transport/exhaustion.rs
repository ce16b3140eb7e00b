//! Promise: a flood of half-done handshakes, of connections or of reloads takes nothing from those
//! who are served, and leaves the broker as it was.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use broker_lite::{
    config::{ClientAuth, Config, Limits, Listener},
    server::Broker,
};
use tokio::net::TcpSocket;

use crate::{
    loopback, open_to_all,
    peers::{publishes, wait_for},
    pki::Pki,
    port, refused,
};

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stall_keep_nobody_else_waiting() {
    let pki = Pki::new();
    let secured = Listener {
        tls: Some(pki.tls(Some(ClientAuth::None))),
        anonymous: Some(true),
        ..loopback()
    };
    let config = Config {
        limits: Limits {
            handshakes: 8,
            handshake_timeout: settings::Period::from_secs(3),
            ..Limits::default()
        },
        ..open_to_all(vec![secured])
    };
    let broker = Broker::start(&config, None).await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port(&broker, 0)));
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        stalled.push(socket.connect(address).await.unwrap());
    }
    let arguments = pki.arguments(None);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["-t", "t", "-q", "1", "-m", "x"]);
    let healthy = publishes(address.port(), &arguments);
    let healthy = tokio::time::timeout(Duration::from_secs(2), healthy).await;
    assert_eq!(healthy, Ok(true), "served while all others stall");
    // Two have their turn until they are given up; nearly all others wait for theirs in vain.
    let given_up = || (refused(&broker, "too-many-handshakes") >= 40).then_some(());
    wait_for("those that wait to be given up", given_up).await;
    assert!(refused(&broker, "handshake") >= 2);
    broker.shutdown().await;
}

/// The program, with at most so many descriptors, and what it says.
struct Program {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Program {
    fn start(config: &Path, descriptors: u32) -> Program {
        let limited = format!("ulimit -n {descriptors}; exec \"$@\"");
        let mut child = Command::new("sh")
            .args([
                "-c",
                &limited,
                "sh",
                env!("CARGO_BIN_EXE_broker-lite"),
                "--config",
            ])
            .arg(config)
            .process_group(0)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (child.stderr.take().unwrap(), Arc::clone(&said));
        thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Program { child, said }
    }

    async fn says(&self, what: &str) -> String {
        wait_for(what, || {
            let said = self.said.lock().unwrap();
            said.iter().find(|line| line.contains(what)).cloned()
        })
        .await
    }

    fn hang_up(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The port in a line such as `listening address=127.0.0.1:40001`.
fn port_in(line: &str) -> u16 {
    let (_, rest) = line.split_once("127.0.0.1:").unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// Whether the broker has closed the connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Ok(0) | Err(_) => true,
        Ok(_) => panic!("a broker speaks first to nobody"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_newcomers_are_closed_and_a_reload_changes_nothing() {
    let pki = Pki::new();
    let file = pki.path("broker", "toml");
    let path = |name: &str, kind: &str| pki.path(name, kind).display().to_string();
    let text = format!(
        "control = {:?}\n[limits]\nconnect_timeout = \"1m\"\n[[access]]\npublish = [\"#\"]\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         anonymous = true\ntls = {{ certificate = {:?}, key = {:?} }}\n",
        path("control", "sock"),
        path("server", "crt"),
        path("server", "key")
    );
    std::fs::write(&file, text).unwrap();
    let broker = Program::start(&file, 48);
    let port = port_in(&broker.says("listening").await);

    let mut connections: Vec<TcpStream> = (0..64)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    wait_for("the last to be closed", || {
        is_closed(connections.last_mut().unwrap()).then_some(())
    })
    .await;
    assert!(!is_closed(&mut connections[0]), "who was there first stays");
    broker.says("no file descriptor is free").await;
    broker.hang_up();
    let refusal = broker.says("configuration not applied").await;
    assert!(refusal.contains("os error 24"), "{refusal}");

    connections.clear();
    let arguments = pki.arguments(None);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["-t", "t", "-q", "1", "-m", "x"]);
    assert!(
        publishes(port, &arguments).await,
        "its certificate is still there"
    );
    broker.hang_up();
    broker.says("configuration reloaded").await;
}
