//! Promise: a client that vanishes without a word is dropped within `limits.half_open_timeout`,
//! whether it was idle or bytes wait for it.
//!
//! The network is one of the test's own, made by `unshare` and then unplugged; that needs root, or
//! user namespaces for everybody.

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::peers::{publishes_at, wait_for};

/// Configured; the wait before it may be a keep-alive's second longer.
const HALF_OPEN: Duration = Duration::from_secs(4);

/// Runs the broker and two subscribers by TCP in a network of their own; takes the network down
/// when told.
const SCRIPT: &str = "
ip link set lo up
\"$1\" --config \"$2\" & broker=$!
until grep -q 127.0.0.1:1883 \"$3\"; do sleep 0.05; done
mosquitto_sub -h 127.0.0.1 -p 1883 -i idle -k 3600 -t nothing & idle=$!
mosquitto_sub -h 127.0.0.1 -p 1883 -i busy -k 3600 -t busy & busy=$!
read unplug
ip link set lo down
read stop
kill $broker $idle $busy
";

struct Network(Child);

impl Network {
    /// Goes on in the script.
    fn tell(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

/// A script that reads the end of its input goes to its own.
impl Drop for Network {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

fn said(log: &Path, what: &str, client: &str) -> bool {
    let text = std::fs::read_to_string(log).unwrap().replace('"', "");
    text.lines()
        .any(|line| line.contains(what) && line.contains(&format!("client={client} ")))
}

#[expect(clippy::disallowed_methods, reason = "it measures real time")]
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_is_dropped_in_time_idle_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let [config, log, socket, control] =
        ["broker.toml", "log", "sock", "control.sock"].map(|name| directory.path().join(name));
    std::fs::write(
        &config,
        format!(
            "control = {control:?}\n[limits]\nhalf_open_timeout = \"4s\"\n[[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
             [[listener]]\npath = {socket:?}\n[[listener]]\naddress = \"127.0.0.1:1883\"\n"
        ),
    )
    .unwrap();
    let output = std::fs::File::create(&log).unwrap();
    let child = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", SCRIPT, "sh"])
        .arg(env!("CARGO_BIN_EXE_broker-lite"))
        .args([&config, &log])
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stderr(output)
        .spawn()
        .expect("util-linux is installed");
    let mut network = Network(child);
    wait_for("both clients (are user namespaces permitted?)", || {
        ["idle", "busy"]
            .iter()
            .all(|client| said(&log, "client connected", client))
            .then_some(())
    })
    .await;
    network.tell();
    let unplugged = Instant::now();
    let place = ["--unix", socket.to_str().unwrap()];
    assert!(publishes_at(&place, &["-t", "busy", "-q", "1", "-m", "x"]).await);
    for client in ["busy", "idle"] {
        wait_for(client, || {
            said(&log, "client disconnected", client).then_some(())
        })
        .await;
    }
    let took = unplugged.elapsed();
    assert!(took < HALF_OPEN + Duration::from_secs(1), "{took:?}");
    assert!(took > HALF_OPEN / 2, "nobody is dropped at once: {took:?}");
}
