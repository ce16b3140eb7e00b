//! What carries MQTT: sockets, TLS, WebSocket, and what a reload changes of them. A file per promise,
//! over real sockets, with clients that others wrote wherever there are any.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../peers/mod.rs"]
mod peers;
mod pki;
#[path = "../peers/python.rs"]
mod python;

mod listeners;

mod websocket;

mod reload;

mod exhaustion;

mod half_open;

use std::net::{Ipv4Addr, SocketAddr};

use broker_lite::{
    config::{AccessRule, Config, Listener},
    server::Broker,
};

/// A free port of the loopback.
fn loopback() -> Listener {
    Listener::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// Everybody may do everything, on these listeners.
fn open_to_all(listeners: Vec<Listener>) -> Config {
    Config {
        listeners,
        access: vec![AccessRule::everything()],
        ..Config::default()
    }
}

fn port(broker: &Broker, listener: usize) -> u16 {
    broker.addresses()[listener].address.port()
}

/// How often something was refused for this reason.
fn refused(broker: &Broker, reason: &str) -> u64 {
    let counters = broker.status().counters;
    counters.refused.get(reason).copied().unwrap_or(0)
}

/// Waits until something was refused for this reason so many times.
async fn refusals(broker: &Broker, reason: &str, count: u64) {
    peers::wait_for(reason, || (refused(broker, reason) >= count).then_some(())).await;
    assert_eq!(refused(broker, reason), count, "{reason}");
}
