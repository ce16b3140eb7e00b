//! A status as a person reads it: a status in, text out. Shell.

use std::fmt::Write;

use broker_lite::observe::report::clients_table;
use settings::Size;

use crate::{
    clients::Listing,
    config::KeyPlace,
    wording::{about, counted},
};

use super::{
    TpmStatus,
    drain_status::DrainStatus,
    status::{BufferStatus, BusStatus, ClientsStatus, SerialStatus, Status, UpstreamStatus},
    wear,
};

/// Clients listed; the rest is counted.
const CLIENTS_SHOWN: usize = 20;

/// The whole status, a section per part.
pub fn render(status: &Status) -> String {
    let mut text = format!(
        "{} · version {} · up {}\n",
        status.gateway,
        status.version,
        span(status.uptime_s)
    );
    for bus in &status.buses {
        text += &bus_lines(bus);
    }
    for line in &status.serials {
        text += &serial_line(line);
    }
    text += &broker_lines(status);
    text += &buffer_lines(&status.buffer);
    text += &upstream_line(status.upstream.as_ref());
    text += &tpm_line(&status.tpm);
    if let Some(releases) = &status.update {
        text += &releases.text();
    }
    text += &clients_lines(&status.clients);
    text
}

fn tpm_line(tpm: &TpmStatus) -> String {
    match (tpm.state.as_str(), &tpm.reason) {
        ("ready", _) => format!(
            "{} TPM: its keys are those that were provisioned\n",
            good(true)
        ),
        (_, Some(reason)) => format!("{} TPM: {reason}\n", good(false)),
        (state, None) => format!("{} TPM: {state}\n", good(true)),
    }
}

/// Nothing where there are neither clients nor an authority.
fn clients_lines(status: &ClientsStatus) -> String {
    let Listing {
        authority, clients, ..
    } = &status.listing;
    let mut text = String::new();
    if let Some(newest) = authority.last() {
        let (key, safe) = match newest.key {
            KeyPlace::Tpm => ("in the TPM", true),
            KeyPlace::File => ("in a file, and whoever copies it makes clients", false),
        };
        let _infallible = writeln!(
            text,
            "{} clients: {}; their authority ends in {} days, its key is {key}",
            good(safe),
            counted(clients.len(), "client", "clients"),
            newest.days_left
        );
    } else if !clients.is_empty() {
        let known = counted(clients.len(), "client", "clients");
        let _infallible = writeln!(text, "{} clients: {known}", good(true));
    }
    for client in clients
        .iter()
        .filter(|client| client.ends_soon)
        .take(CLIENTS_SHOWN)
    {
        let _infallible = match client.days_left {
            Some(left) if left >= 0 => {
                writeln!(
                    text,
                    "  {} certificate of {} ends in {left} days",
                    good(false),
                    client.name
                )
            }
            _ => writeln!(
                text,
                "  {} certificate of {} has ended",
                good(false),
                client.name
            ),
        };
    }
    if let Some(trouble) = &status.trouble {
        let _infallible = writeln!(text, "  {} {trouble}", good(false));
    }
    text
}

fn bus_lines(bus: &BusStatus) -> String {
    let mut text = match &bus.down {
        None => format!(
            "{} bus {} on {}: {:.0} % busy{}\n",
            good(true),
            bus.name,
            bus.port,
            bus.utilisation * 100.0,
            if bus.echo == Some(true) {
                ", its adapter echoes"
            } else {
                ""
            }
        ),
        Some(reason) => format!(
            "{} bus {} since {}: {reason}\n",
            good(false),
            bus.name,
            bus.since
        ),
    };
    if let Some(first) = bus.late.first() {
        let more = match bus.late.len() {
            1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        let booked = bus.load * 100.0;
        text += &format!(
            "  {} {booked:.0} % booked; late: {first}{more}\n",
            good(false)
        );
    }
    for device in &bus.devices {
        let parked = if device.parked.is_empty() {
            String::new()
        } else {
            format!("; answers with an exception: {}", device.parked.join(", "))
        };
        let turnaround = device
            .turnaround_ms
            .map_or_else(String::new, |milliseconds| {
                format!(", answers after {milliseconds:.1} ms")
            });
        text += &match (device.online, &device.reason) {
            (Some(true), _) => format!(
                "  {} {} (unit {}){turnaround}{parked}\n",
                good(parked.is_empty()),
                device.name,
                device.unit
            ),
            (Some(false), Some(reason)) => format!(
                "  {} {} (unit {}) since {}: {reason}\n",
                good(false),
                device.name,
                device.unit,
                device.since.as_deref().unwrap_or("start")
            ),
            _ => format!(
                "  … {} (unit {}): no answer yet\n",
                device.name, device.unit
            ),
        };
    }
    text
}

fn serial_line(line: &SerialStatus) -> String {
    let mut counted = format!("{} frames, {} bad", line.frames, line.bad_frames);
    if line.sent > 0 {
        let _infallible = write!(
            counted,
            ", {} requests, {} unanswered",
            line.sent, line.unanswered
        );
    }
    match (line.online, &line.reason) {
        (Some(true), _) => format!(
            "{} serial {} on {}: {counted}\n",
            good(true),
            line.name,
            line.port
        ),
        (Some(false), Some(reason)) => format!("{} serial {}: {reason}\n", good(false), line.name),
        _ => format!(
            "… serial {} on {}: nothing heard yet\n",
            line.name, line.port
        ),
    }
}

fn broker_lines(status: &Status) -> String {
    let broker = &status.broker;
    let mut text = format!(
        "{} broker on {}: {}, {} received, {} delivered, {} refused\n",
        good(true),
        if broker.listeners.is_empty() {
            "no address".to_owned()
        } else {
            broker.listeners.join(", ")
        },
        counted(broker.clients.len(), "client", "clients"),
        broker.received,
        broker.delivered,
        broker.refused
    );
    if let Some(store) = broker.store.as_ref().filter(|store| store.fault.is_some()) {
        text += &format!("    {}", store.text());
    }
    let shown = &broker.clients[..broker.clients.len().min(CLIENTS_SHOWN)];
    for line in clients_table(shown).lines() {
        let _infallible = writeln!(text, "    {line}");
    }
    if broker.clients.len() > CLIENTS_SHOWN {
        let _infallible = writeln!(
            text,
            "    and {} more",
            broker.clients.len() - CLIENTS_SHOWN
        );
    }
    text
}

pub(super) fn buffer_lines(buffer: &BufferStatus) -> String {
    let mut text = format!(
        "{} buffer: {} waiting with {}, {} of {}, {} kept, {} forwarded",
        good(buffer.fault.is_none() && !buffer.drain.is_held()),
        buffer.messages,
        about(buffer.message_bytes),
        about(buffer.bytes),
        Size::from_bytes(buffer.max_bytes),
        buffer.kept,
        buffer.forwarded
    );
    let letters = match buffer.dead_letters {
        1 => "dead letter",
        _ => "dead letters",
    };
    for (count, word) in [
        (buffer.in_memory, "in memory"),
        (buffer.refused, "refused"),
        (buffer.dropped, "dropped"),
        (buffer.dead_letters, letters),
    ] {
        if count > 0 {
            let _infallible = write!(text, ", {count} {word}");
        }
    }
    text += &wear::lines(&buffer.wear);
    if buffer.paused {
        text += "\n    forwarding is paused; `gateway buffer resume` or a restart lets it go on";
    }
    if let Some(fault) = &buffer.fault {
        let _infallible = write!(text, "\n    cannot write: {fault}");
    }
    text + "\n" + &drain_lines(&buffer.drain)
}

/// The lines of a status; none where there is nothing to say.
pub(super) fn drain_lines(drain: &DrainStatus) -> String {
    let mut text = String::new();
    match drain.held_by.as_deref() {
        Some("budget") => text += "    held by the budget: only messages of high priority go\n",
        Some("window") => text += "    held until its time window opens\n",
        Some("rate") => text += "    held to the rate of [upstream.drain]\n",
        _ => {}
    }
    if let Some(seconds) = drain.empty_in_s {
        let _infallible = writeln!(text, "    empty in about {}", span(seconds));
    }
    for budget in &drain.budgets {
        let until = budget.until.as_deref().unwrap_or("the next");
        let _infallible = writeln!(
            text,
            "    budget of the {}: {} of {} used, {} left until {until}",
            budget.period,
            about(budget.used),
            about(budget.limit),
            about(budget.left),
        );
    }
    text
}

fn upstream_line(upstream: Option<&UpstreamStatus>) -> String {
    match upstream {
        None => "– upstream: none configured\n".to_owned(),
        Some(link) => {
            let certificate = link.certificate.as_ref();
            let certificate = certificate.map_or_else(String::new, |certificate| {
                format!("    {}\n", certificate.summary())
            });
            let renewal = link.renewal.as_ref();
            let renewal = renewal.map_or_else(String::new, |renewal| {
                format!("    {}\n", renewal.summary())
            });
            format!(
                "{} upstream {}\n{certificate}{renewal}",
                good(link.connected),
                link.summary()
            )
        }
    }
}

fn good(yes: bool) -> &'static str {
    if yes { "✓" } else { "✗" }
}

fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
