//! What one key of the broker's configuration says about another. Values.
//!
//! Invariant: every problem is found in one pass and stands at its place in the file.

use std::net::SocketAddr;

use settings::{Document, Problem};

use super::{ClientAuth, Config, Listener};
use crate::topic::TopicFilter;

/// Checks `config`, which stands at `prefix` (`broker.`, or nothing) in `document`.
pub fn check(config: &Config, document: &Document, prefix: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let path = format!("{prefix}listener[{index}]");
        check_listener(listener, document, &path, &mut problems);
        if let Some(earlier) = config.listeners[..index]
            .iter()
            .find(|other| overlap(other.address, listener.address))
        {
            problems.push(document.error(
                &format!("{path}.address"),
                format!(
                    "listeners {} and {} overlap",
                    earlier.address, listener.address
                ),
                "give one of them another port",
            ));
        }
    }
    for (index, rule) in config.access.iter().enumerate() {
        for (key, patterns) in [("publish", &rule.publish), ("subscribe", &rule.subscribe)] {
            for (position, pattern) in patterns.iter().enumerate() {
                if let Err(reason) = pattern_is_filter(&pattern.0) {
                    let path = format!("{prefix}access[{index}].{key}[{position}]");
                    problems.push(document.error(
                        &path,
                        reason,
                        "write a topic filter such as telemetry/%u/#",
                    ));
                }
            }
        }
    }
    for (index, user) in config.users.iter().enumerate() {
        if config.users[..index]
            .iter()
            .any(|other| other.name == user.name)
        {
            let path = format!("{prefix}user[{index}].name");
            problems.push(document.error(
                &path,
                format!("user {:?} stands twice", user.name),
                "remove one",
            ));
        }
    }
    problems
}

fn check_listener(
    listener: &Listener,
    document: &Document,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    let loopback = listener.address.ip().is_loopback();
    match &listener.tls {
        Some(tls) => {
            let asks = tls.client_auth.is_some_and(|auth| auth != ClientAuth::None);
            if asks && tls.client_ca.is_none() {
                problems.push(document.error(
                    &format!("{path}.tls.client_auth"),
                    "client certificates are asked for, but nobody is trusted to issue them",
                    "name the authority's PEM file in client_ca",
                ));
            }
        }
        None if !loopback => problems.push(document.warning(
            &format!("{path}.address"),
            format!(
                "{} is served without TLS: passwords and values cross the network readably",
                listener.address
            ),
            "add tls = { certificate = …, key = … }, or listen on 127.0.0.1",
        )),
        None => {}
    }
    if listener.anonymous == Some(true) && !loopback {
        problems.push(document.warning(
            &format!("{path}.anonymous"),
            "clients of the network need no identity here",
            "remove it, and let clients show a certificate or a password",
        ));
    }
}

/// Whether the second bind would fail: the same port on the same or on every address.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || everywhere)
}

fn pattern_is_filter(pattern: &str) -> Result<(), String> {
    let sample = pattern.replace("%c", "client").replace("%u", "user");
    TopicFilter::parse(&sample)
        .map(drop)
        .map_err(|error| error.to_string())
}
