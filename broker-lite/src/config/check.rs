//! What one key of the broker's configuration says about another. Values.
//!
//! Invariant: every problem is found in one pass and stands at its place in the file.

use settings::{Document, Problem};

use super::{Config, IdentitySource, Limits, Listener, ListenerTls, Protocol};
use crate::{
    address::Endpoint,
    topic::{TopicFilter, TopicName},
};

/// Checks `config`, which stands at `prefix` (`broker.`, or nothing) in `document`.
pub fn check(config: &Config, document: &Document, prefix: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let path = format!("{prefix}listener[{index}]");
        check_listener(listener, document, &path, &mut problems);
        if let Some(earlier) = config.listeners[..index]
            .iter()
            .find_map(|other| overlap(&other.endpoint()?, &listener.endpoint()?))
        {
            let key = if listener.path.is_some() {
                "path"
            } else {
                "address"
            };
            problems.push(document.error(
                &format!("{path}.{key}"),
                earlier,
                "give one of them another port or path",
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
    check_protocol(&config.protocol, document, prefix, &mut problems);
    check_limits(&config.limits, document, prefix, &mut problems);
    problems
}

/// Limits that contradict the memory they share.
fn check_limits(limits: &Limits, document: &Document, prefix: &str, problems: &mut Vec<Problem>) {
    let memory = limits.memory.as_bytes();
    for (key, size) in [
        ("retained_bytes", limits.retained_bytes),
        ("queued_bytes", limits.queued_bytes),
        ("packet_size", limits.packet_size),
    ] {
        // From 85 % on nothing new is taken up, so no more than that is ever used.
        if size.as_bytes() > memory / 100 * 85 {
            problems.push(document.warning(
                &format!("{prefix}limits.{key}"),
                format!("{size} are never reached with {} of memory", limits.memory),
                "raise limits.memory, or lower this",
            ));
        }
    }
}

fn check_protocol(
    protocol: &Protocol,
    document: &Document,
    prefix: &str,
    problems: &mut Vec<Problem>,
) {
    if let Some(pattern) = &protocol.response_topics
        && let Err(error) = TopicName::parse(&pattern.0)
    {
        problems.push(document.error(
            &format!("{prefix}protocol.response_topics"),
            error.to_string(),
            "write a topic such as response/%c",
        ));
    }
    if let Some(redirect) = &protocol.redirect
        && (redirect.server.is_empty() || redirect.server.contains('\0'))
    {
        problems.push(document.error(
            &format!("{prefix}protocol.redirect.server"),
            "clients cannot be sent to a server without a name",
            "write it as the clients know it, such as standby.plant:8883",
        ));
    }
}

fn check_listener(
    listener: &Listener,
    document: &Document,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    let Some(endpoint) = listener.endpoint() else {
        problems.push(document.error(
            path,
            "a listener serves either an address or a Unix socket's path",
            "give exactly one of address and path",
        ));
        return;
    };
    let is_local = endpoint.is_local();
    check_identity(listener, document, path, problems);
    check_websocket(listener, document, path, problems);
    match &listener.tls {
        Some(tls) => {
            if !tls.crl.is_empty() && !tls.asks_for_certificates() {
                problems.push(document.error(
                    &format!("{path}.tls.crl"),
                    "nothing can be revoked: client certificates are not asked for",
                    "name the authority's PEM file in client_ca",
                ));
            }
            if tls.asks_for_certificates() && tls.client_ca.is_none() {
                problems.push(document.error(
                    &format!("{path}.tls.client_auth"),
                    "client certificates are asked for, but nobody is trusted to issue them",
                    "name the authority's PEM file in client_ca",
                ));
            }
        }
        None if !is_local => problems.push(document.warning(
            &format!("{path}.address"),
            format!(
                "{endpoint} is served without TLS: passwords and values cross the network readably"
            ),
            "add tls = { certificate = …, key = … }, or listen on 127.0.0.1",
        )),
        None => {}
    }
    if listener.anonymous == Some(true) && !is_local {
        problems.push(document.warning(
            &format!("{path}.anonymous"),
            "clients of the network need no identity here",
            "remove it, and let clients show a certificate or a password",
        ));
    }
}

fn check_websocket(
    listener: &Listener,
    document: &Document,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    if let Some(served) = &listener.websocket
        && served.contains(['?', '#'])
    {
        problems.push(document.error(
            &format!("{path}.websocket"),
            format!("{served:?} is more than a path"),
            "write it without ? and #, such as /mqtt",
        ));
    }
    if listener.websocket.is_none() && !listener.websocket_origins.is_empty() {
        problems.push(document.error(
            &format!("{path}.websocket_origins"),
            "origins are checked where WebSocket is spoken, which it is not here",
            "add websocket = \"/mqtt\", or remove the origins",
        ));
    }
}

fn check_identity(
    listener: &Listener,
    document: &Document,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    let needs_certificates = matches!(
        listener.identity,
        IdentitySource::Certificate | IdentitySource::Both
    );
    let asks_for_them = listener
        .tls
        .as_ref()
        .is_some_and(ListenerTls::asks_for_certificates);
    if needs_certificates && !asks_for_them {
        problems.push(document.error(
            &format!("{path}.identity"),
            "clients are to be known by certificates that this listener does not ask for",
            "give it tls with client_ca, or let identity be \"password\"",
        ));
    }
}

/// Why the second bind would fail: the same path, or the same port on the same or on every address.
fn overlap(one: &Endpoint, other: &Endpoint) -> Option<String> {
    let meet = match (one, other) {
        (Endpoint::Network(a), Endpoint::Network(b)) => {
            let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || everywhere)
        }
        _ => one == other,
    };
    meet.then(|| format!("listeners {one} and {other} overlap"))
}

fn pattern_is_filter(pattern: &str) -> Result<(), String> {
    let sample = pattern.replace("%c", "client").replace("%u", "user");
    TopicFilter::parse(&sample)
        .map(drop)
        .map_err(|error| error.to_string())
}
