//! The appliance as OpenMetrics text, beside what its broker says. Shell.
//!
//! Invariant: the number of series does not depend on what others send or name.

use broker_lite::observe::metrics::{self, Exposition, counter, gauge};

use super::{
    drain_status, release_status,
    status::{BufferStatus, StatusSource, UpstreamStatus},
    wear,
};

/// The whole page, as it is now.
pub(super) fn page(source: &StatusSource) -> String {
    let mut text = Exposition::default();
    metrics::about(&mut text, &source.broker());
    about_buffer(&mut text, &source.buffer());
    if let Some(upstream) = source.upstream() {
        about_upstream(&mut text, &upstream);
    }
    if let Some(releases) = source.releases().read() {
        release_status::metrics(&mut text, &releases);
    }
    text.end()
}

fn about_buffer(text: &mut Exposition, buffer: &BufferStatus) {
    for (name, value, help) in [
        (
            "gateway_buffer_messages",
            buffer.messages,
            "Messages waiting for the upstream.",
        ),
        (
            "gateway_buffer_memory_messages",
            buffer.in_memory,
            "Of these, messages in memory.",
        ),
        (
            "gateway_buffer_memory_bytes",
            buffer.memory_bytes,
            "What they take there.",
        ),
        (
            "gateway_buffer_message_bytes",
            buffer.message_bytes,
            "Bytes of the messages that wait, about.",
        ),
        (
            "gateway_buffer_bytes",
            buffer.bytes,
            "What they take on disk, the log included.",
        ),
        (
            "gateway_buffer_max_bytes",
            buffer.max_bytes,
            "Most that they may take on disk.",
        ),
        (
            "gateway_buffer_faulty",
            u64::from(buffer.fault.is_some()),
            "Whether nothing can be written (1).",
        ),
        (
            "gateway_buffer_paused",
            u64::from(buffer.paused),
            "Whether forwarding is paused (1).",
        ),
    ] {
        text.single(gauge(name, help), value as f64);
    }
    drain_status::metrics(text, &buffer.drain);
    for (name, value, help) in [
        ("gateway_buffer_kept", buffer.kept, "Messages kept."),
        (
            "gateway_buffer_spilled",
            buffer.spilled,
            "Messages put on disk after they waited in memory.",
        ),
        (
            "gateway_buffer_forwarded",
            buffer.forwarded,
            "Messages that the upstream acknowledged.",
        ),
        (
            "gateway_buffer_refused",
            buffer.refused,
            "Messages refused.",
        ),
        (
            "gateway_buffer_dropped",
            buffer.dropped,
            "Messages dropped by policy, each in a gap marker.",
        ),
        (
            "gateway_buffer_dead_letters",
            buffer.dead_letters,
            "Messages that the upstream will never take.",
        ),
    ] {
        text.single(counter(name, help), value as f64);
    }
    wear::expose(text, &buffer.wear);
}

fn about_upstream(text: &mut Exposition, upstream: &UpstreamStatus) {
    for (name, value, help) in [
        (
            "gateway_upstream_connected",
            u64::from(upstream.connected),
            "Whether the upstream takes messages (1).",
        ),
        (
            "gateway_upstream_since_seconds",
            upstream.since_s,
            "Time since it is connected, or since it is not.",
        ),
        (
            "gateway_upstream_in_flight",
            upstream.in_flight as u64,
            "Messages sent and not acknowledged yet.",
        ),
    ] {
        text.single(gauge(name, help), value as f64);
    }
    if let Some(certificate) = &upstream.certificate {
        let name = "gateway_upstream_certificate_ends_timestamp_seconds";
        let help = "When our certificate for the upstream ends.";
        text.single(gauge(name, help), certificate.ends_s as f64);
        let name = "gateway_upstream_certificate_trouble";
        let help = "Whether a newer certificate cannot be used (1).";
        let trouble = u8::from(certificate.trouble.is_some());
        text.single(gauge(name, help), f64::from(trouble));
    }
    if let Some(renewal) = &upstream.renewal {
        let name = "gateway_identity_renewal_failures";
        let help = "Renewals of our certificate that failed since the last one that did not.";
        text.single(gauge(name, help), f64::from(renewal.failures));
        if let Some(due_s) = renewal.due_s {
            let name = "gateway_identity_renewal_due_timestamp_seconds";
            let help = "When our certificate is to be renewed.";
            text.single(gauge(name, help), due_s as f64);
        }
    }
}
