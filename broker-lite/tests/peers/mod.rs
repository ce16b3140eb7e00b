//! Clients that others wrote: mosquitto_pub and mosquitto_sub, and how to wait for them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use broker_lite::server::Broker;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A mosquitto_sub that runs, line by line.
pub(crate) struct Subscriber {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Subscriber {
    pub(crate) fn start(port: u16, arguments: &[&str]) -> Subscriber {
        let port = port.to_string();
        Subscriber::at(&["-h", "localhost", "-p", &port], arguments)
    }

    /// One that finds the broker by these arguments.
    pub(crate) fn at(place: &[&str], arguments: &[&str]) -> Subscriber {
        let mut child = Command::new("mosquitto_sub")
            .args(place)
            .args(["-F", "%t %q %r %p"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto-clients is installed");
        let lines = read_lines(child.stdout.take().unwrap());
        Subscriber { child, lines }
    }

    pub(crate) async fn line(&mut self) -> String {
        wait_for("a line of mosquitto_sub", || self.lines.try_recv().ok()).await
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn read_lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Whether mosquitto_pub says that it has published.
pub(crate) async fn publishes(port: u16, arguments: &[&str]) -> bool {
    let port = port.to_string();
    publishes_at(&["-h", "localhost", "-p", &port], arguments).await
}

/// The same, where it finds the broker by these arguments.
pub(crate) async fn publishes_at(place: &[&str], arguments: &[&str]) -> bool {
    let mut command = tokio::process::Command::new("mosquitto_pub");
    command.args(place).args(arguments);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.expect("mosquitto_pub ends in time").unwrap();
    output.status.success()
}

pub(crate) async fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(met) = condition() {
                return met;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let met = tokio::time::timeout(PATIENCE, waiting).await;
    met.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

pub(crate) async fn subscriptions(broker: &Broker, count: usize) {
    let reached = || (broker.status().subscriptions == count).then_some(());
    wait_for("subscriptions", reached).await;
}
