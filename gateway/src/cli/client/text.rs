//! What `gateway client` prints: values in, text out. Shell.
//!
//! Invariant: whoever reads it can go on without a manual: what is where, what it may do, how to try.

use std::{fmt::Write, path::Path};

use broker_lite::{
    address::Endpoint,
    config::{ClientAuth, IdentitySource, Listener},
};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::json;

use super::files::Files;
use crate::{
    clients::{self, Certified, ClientName, ClientShown, Done, Listing},
    config::{Config, KeyPlace},
    wording::counted,
};

/// What a client was given.
pub(super) enum Given<'a> {
    Certificate {
        certified: &'a Certified,
        files: &'a Files,
        with_key: bool,
    },
    Password {
        /// One that was made here, and is shown this once.
        made: Option<&'a str>,
        /// Where the authority's certificates are, if the client needs them.
        files: Option<&'a Files>,
    },
}

/// What was done to a client, for people.
pub(super) fn given(
    config: &Config,
    shown: &ClientShown,
    given: &Given<'_>,
    done_to_it: &str,
    running: bool,
) -> String {
    let name = &shown.name;
    let mut lines: Vec<(&str, String)> = Vec::new();
    let head = match given {
        Given::Certificate {
            certified,
            files,
            with_key,
        } => {
            lines.push(("certificate", files.certificate.display().to_string()));
            if *with_key {
                let key = files.key.display();
                lines.push(("key", format!("{key} (there is no other copy)")));
            }
            lines.push((
                "CA",
                format!("{} (by which it knows this gateway)", files.ca.display()),
            ));
            format!(
                "client {name} {done_to_it}; its certificate ends {}",
                day(certified.ends)
            )
        }
        Given::Password { made, files } => {
            if let Some(password) = made {
                lines.push(("password", format!("{password} (shown this once)")));
            }
            if let Some(files) = files {
                lines.push((
                    "CA",
                    format!("{} (by which it knows this gateway)", files.ca.display()),
                ));
            }
            format!("client {name} {done_to_it}, with a password")
        }
    };
    lines.extend(listed("may publish", &shown.publish));
    lines.extend(listed("may receive", &shown.subscribe));
    let mut text = format!("{head}\n\n");
    for (what, value) in lines {
        let _infallible = writeln!(text, "  {what:<11}  {value}");
    }
    text.push('\n');
    text += &try_it(config, shown, given);
    if !running {
        text += "\nthe service does not run; it takes this up when it starts\n";
    }
    text
}

/// The same for programs.
pub(super) fn given_json(shown: &ClientShown, given: &Given<'_>) -> serde_json::Value {
    let mut answer = json!(shown);
    match given {
        Given::Certificate {
            files, with_key, ..
        } => {
            answer["certificate"] = json!(files.certificate);
            answer["ca"] = json!(files.ca);
            if *with_key {
                answer["key"] = json!(files.key);
            }
        }
        Given::Password { made, files } => {
            answer["password"] = json!(made);
            answer["ca"] = json!(files.map(|files| &files.ca));
        }
    }
    answer
}

/// What came of a revocation.
pub(super) fn revoked(name: &ClientName, done: &Done) -> String {
    let Done::Revoked {
        certificates,
        sent_away,
        owed,
    } = done
    else {
        return format!("client {name} revoked\n");
    };
    let void = match certificates {
        0 => String::new(),
        &count => format!(
            "; {} void",
            counted(count, "certificate is", "certificates are")
        ),
    };
    let sessions = match sent_away {
        Some(count) => format!("; {} ended", counted(*count, "session", "sessions")),
        None => "; the service does not run".to_owned(),
    };
    let mut text = format!("client {name} revoked{void}{sessions}\n");
    if let Some(why) = owed {
        let _infallible = writeln!(
            text,
            "the list of revoked certificates is NOT signed yet ({why}); the client may do nothing any more, \
             but what rules allow to everyone; signing is tried every minute while the service runs"
        );
    }
    text
}

/// Clients in a table, and who certifies them.
pub(super) fn listing(listing: &Listing) -> String {
    let mut text = String::new();
    if listing.clients.is_empty() {
        text += "no clients; `gateway client add NAME` adds one\n";
    } else {
        let width = listing
            .clients
            .iter()
            .map(|client| client.name.as_str().len());
        let width = width.max().unwrap_or(0).max("NAME".len());
        let _infallible = writeln!(
            text,
            "{:width$}  {:<11}  {:<26}  MAY PUBLISH; RECEIVE",
            "NAME", "BY", "ENDS"
        );
        for client in &listing.clients {
            let access = format!(
                "{}; {}",
                client.publish.join(" "),
                client.subscribe.join(" ")
            );
            let _infallible = writeln!(
                text,
                "{:width$}  {:<11}  {:<26}  {access}",
                client.name,
                client.by,
                ends(client)
            );
        }
    }
    for authority in &listing.authority {
        let key = match authority.key {
            KeyPlace::File => "its key in a file",
            KeyPlace::Tpm => "its key in the TPM",
        };
        let _infallible = writeln!(
            text,
            "authority {}: until {}, {key}",
            authority.number,
            day(authority.ends)
        );
    }
    if listing.revoked > 0 {
        let due = match listing.list_is_due {
            true => "; the list of them still has to be signed",
            false => "",
        };
        let revoked = counted(listing.revoked, "certificate", "certificates");
        let _infallible = writeln!(text, "{revoked} revoked that would not have ended yet{due}");
    }
    text
}

/// Whether a listener serves with a certificate of the own authority.
pub(super) fn serves_own(config: &Config) -> bool {
    clients::wanted(config).server_names.is_some()
}

fn ends(client: &ClientShown) -> String {
    match (client.ends, client.days_left) {
        (Some(at), Some(left)) if client.certificates == 0 => {
            format!("ended {} ({} days ago)", date(at), -left)
        }
        (Some(at), Some(left)) => format!("{} ({left} days)", date(at)),
        _ => "-".to_owned(),
    }
}

fn listed<'a>(what: &'a str, filters: &[String]) -> Vec<(&'a str, String)> {
    let first = std::iter::once(what).chain(std::iter::repeat(""));
    first.zip(filters.iter().cloned()).collect()
}

/// `2026-12-23 05:12 UTC`.
fn day(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC)
        .strftime("%F %H:%M UTC")
        .to_string()
}

fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%F").to_string()
}

/// A line to try it with, or what is missing for that.
fn try_it(config: &Config, shown: &ClientShown, given: &Given<'_>) -> String {
    let listeners = config.broker.listeners.iter();
    let takes = |listener: &&Listener| match given {
        Given::Certificate { .. } => takes_certificates(listener),
        Given::Password { .. } => takes_passwords(listener),
    };
    let Some((listener, address)) = listeners
        .filter(takes)
        .find_map(|listener| Some((listener, reach(config, listener)?)))
    else {
        return match given {
            Given::Certificate { .. } => NO_LISTENER.to_owned(),
            Given::Password { .. } => {
                "no listener takes passwords of network clients yet\n".to_owned()
            }
        };
    };
    let mut line = format!("mosquitto_pub {address}");
    let has_own = listener
        .tls
        .as_ref()
        .is_some_and(|tls| clients::is_own(&tls.certificate));
    match given {
        Given::Certificate { files, .. } => {
            let ca = quoted(&files.ca);
            let ca = if has_own { ca.as_str() } else { FOREIGN_CA };
            let (certificate, key) = (quoted(&files.certificate), quoted(&files.key));
            let _infallible = write!(line, " --cafile {ca} --cert {certificate} --key {key}");
        }
        Given::Password { made, files } => {
            if let Some(files) = files.filter(|_| has_own) {
                let _infallible = write!(line, " --cafile {}", quoted(&files.ca));
            } else if listener.tls.is_some() {
                let _infallible = write!(line, " --cafile {FOREIGN_CA}");
            }
            let password = made.unwrap_or("PASSWORD");
            let _infallible = write!(line, " -u {} -P {password}", shown.name);
        }
    }
    let topic = shown
        .publish
        .first()
        .map_or_else(String::new, |filter| example(filter));
    format!("try it:\n  {line} -t {topic} -m 1\n")
}

const FOREIGN_CA: &str = "CA-OF-THE-LISTENER.pem";

const NO_LISTENER: &str =
    "no listener takes these certificates yet; add one to the configuration and reload:
  [[broker.listener]]
  address = \"0.0.0.0:8883\"
  tls = { certificate = \"own\", key = \"own\", client_ca = \"own\" }
";

fn takes_certificates(listener: &Listener) -> bool {
    let tls = listener.tls.as_ref();
    tls.is_some_and(clients::trusts_own) && listener.websocket.is_none()
}

fn takes_passwords(listener: &Listener) -> bool {
    let needs_certificate = listener
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_auth() == ClientAuth::Required);
    let by_password = matches!(
        listener.identity,
        IdentitySource::Either | IdentitySource::Password
    );
    by_password && !needs_certificate && listener.websocket.is_none()
}

/// The options that lead to a listener; `None` where it is a Unix socket.
fn reach(config: &Config, listener: &Listener) -> Option<String> {
    let Some(Endpoint::Network(address)) = listener.endpoint() else {
        return None;
    };
    let host = match address.ip() {
        ip if ip.is_unspecified() => config
            .clients
            .server_names
            .first()
            .cloned()
            .unwrap_or_else(host_name),
        ip => ip.to_string(),
    };
    Some(format!("-h {host} -p {}", address.port()))
}

fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "localhost".to_owned())
}

/// A topic that the filter matches.
fn example(filter: &str) -> String {
    filter.replace(['#', '+'], "test")
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
