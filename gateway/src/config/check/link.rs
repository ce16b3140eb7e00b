//! Upstream and rules that fit together. Values.

use broker_lite::topic::TopicName;

use crate::config::{Config, DEFAULT_TOPIC, Forward, KeyPlace, Upstream, url::UpstreamUrl};

use super::{Findings, drain};

/// Checks `[upstream]`, `[[forward]]` and `[[receive]]`.
pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    match &config.upstream {
        Some(upstream) => {
            check_upstream(upstream, findings);
            drain::check(config, upstream, findings);
        }
        None if !config.forwards.is_empty() => findings.warn(
            "forward[0]",
            "messages are forwarded, but there is no [upstream]: they fill the buffer",
            "add [upstream], or remove the rules",
        ),
        None => {}
    }
    if config.upstream.is_some() && config.forwards.is_empty() {
        findings.warn(
            "upstream",
            "no [[forward]] rule: nothing is sent upstream",
            "add one: filter = \"telemetry/#\"",
        );
    }
    for (index, rule) in config.forwards.iter().enumerate() {
        check_template(
            (&rule.topic, rule.batch.is_none()),
            rule.filter.as_str(),
            &format!("forward[{index}].topic"),
            findings,
        );
    }
    for (index, rule) in config.forwards.iter().enumerate() {
        if let Some(quota) = rule.quota
            && quota > config.buffer.max_size
        {
            findings.warn(
                &format!("forward[{index}].quota"),
                format!(
                    "{quota} is more than the whole buffer, which takes {}",
                    config.buffer.max_size
                ),
                "write less than [buffer] max_size, or leave it out",
            );
        }
    }
    if config.has_sparkplug() {
        check_sparkplug(config, findings);
    } else {
        for (index, rule) in config.forwards.iter().enumerate() {
            check_batch(rule, index, findings);
        }
    }
    for (index, rule) in config.receives.iter().enumerate() {
        check_template(
            (&rule.topic, true),
            rule.filter.as_str(),
            &format!("receive[{index}].topic"),
            findings,
        );
    }
}

fn check_upstream(upstream: &Upstream, findings: &mut Findings<'_>) {
    // A URL that cannot be read has been reported by its form.
    let urls = || {
        upstream
            .url
            .iter()
            .filter_map(|url| url.parse::<UpstreamUrl>().ok())
    };
    if urls().any(|url| url.tls) && upstream.ca.is_none() {
        findings.error(
            "upstream",
            "no trust anchors for the server's certificate",
            "write ca = the PEM file of the authority that issued it",
        );
    }
    if let Some(url) = urls().find(|url| !url.tls && !url.is_loopback()) {
        findings.error(
            "upstream.url",
            format!("{} would be reached without TLS", url.host),
            "write mqtts://; mqtt:// is for the loopback only",
        );
    }
    match (&upstream.certificate, &upstream.key) {
        (Some(_), None) if upstream.identity != Some(KeyPlace::Tpm) => findings.error(
            "upstream.certificate",
            "a certificate without its key",
            "write key = its PEM file",
        ),
        (None, Some(_)) if upstream.identity != Some(KeyPlace::Tpm) => findings.error(
            "upstream.key",
            "a key without its certificate",
            "write certificate = its PEM file",
        ),
        _ => {}
    }
    match (upstream.identity, &upstream.certificate, &upstream.key) {
        (Some(_), Some(_), _) | (Some(KeyPlace::File), _, Some(_)) => findings.error(
            "upstream.identity",
            "the identity would be another one than certificate and key",
            "leave out either identity, or certificate and key",
        ),
        (Some(KeyPlace::Tpm), _, Some(_)) => findings.error(
            "upstream.key",
            "the link cannot sign with the TPM and with a key in a file",
            "leave out either key, or identity = \"tpm\"",
        ),
        _ => {}
    }
    check_proxy(upstream, findings);
    if upstream.retry > upstream.retry_max {
        findings.error(
            "upstream.retry",
            format!(
                "retry {} is above retry_max {}",
                upstream.retry, upstream.retry_max
            ),
            "the pause grows from retry to retry_max",
        );
    }
}

/// Sparkplug has its own topics and payloads.
fn check_sparkplug(config: &Config, findings: &mut Findings<'_>) {
    const OWN: &str = "[upstream.sparkplug] has topics and payloads of its own";
    for (index, rule) in config.forwards.iter().enumerate() {
        let path = |key: &str| format!("forward[{index}].{key}");
        if rule.batch.is_some() {
            findings.error(&path("batch"), OWN, "leave it out");
        }
        if rule.compress.is_some() {
            findings.error(&path("compress"), OWN, "leave it out");
        }
        if rule.topic != DEFAULT_TOPIC {
            findings.warn(&path("topic"), OWN, "leave it out; the filter alone counts");
        }
    }
    for (index, rule) in config.receives.iter().enumerate() {
        if rule.topic != DEFAULT_TOPIC {
            let path = format!("receive[{index}].topic");
            findings.warn(&path, OWN, "leave it out; the filter alone counts");
        }
    }
}

/// Batches hold messages of one upstream topic alone.
fn check_batch(rule: &Forward, index: usize, findings: &mut Findings<'_>) {
    if rule.batch.is_some()
        && rule.topic.contains("{topic}")
        && rule.filter.as_str().contains(['+', '#'])
    {
        findings.warn(
            &format!("forward[{index}].batch"),
            format!("each topic of {:?} makes batches of its own", rule.filter.as_str()),
            "write one topic for all of them, such as topic = \"{gateway}/batch\"; each entry names its own",
        );
    }
}

fn check_proxy(upstream: &Upstream, findings: &mut Findings<'_>) {
    match (&upstream.proxy_user, &upstream.proxy_password) {
        (Some(_), None) => findings.error(
            "upstream.proxy_user",
            "a user without a password",
            "write proxy_password = { file = \"/path\" }",
        ),
        (None, Some(_)) => findings.error(
            "upstream.proxy_password",
            "a password without its user",
            "write proxy_user = \"NAME\"",
        ),
        (Some(_), Some(_)) if upstream.proxy.is_none() => findings.error(
            "upstream.proxy_user",
            "a login for no proxy",
            "write proxy = \"http://HOST:PORT\" or \"socks5://HOST:PORT\", or leave the login out",
        ),
        _ => {}
    }
}

/// `warns`: nothing beside the topic tells which message it is.
fn check_template(
    (template, warns): (&str, bool),
    filter: &str,
    path: &str,
    findings: &mut Findings<'_>,
) {
    if let Some(unknown) = unknown_placeholder(template) {
        return findings.error(
            path,
            format!("{unknown} is not known"),
            "known are {gateway} and {topic}",
        );
    }
    let sample = template
        .replace("{gateway}", "gateway")
        .replace("{topic}", "topic");
    if let Err(error) = TopicName::parse(&sample) {
        findings.error(
            path,
            format!("{template:?} makes no topic: {error}"),
            "write for example {gateway}/{topic}",
        );
    } else if warns && !template.contains("{topic}") && filter.contains(['+', '#']) {
        findings.warn(
            path,
            format!("all topics of {filter:?} become one"),
            "add {topic}",
        );
    }
}

fn unknown_placeholder(template: &str) -> Option<&str> {
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        let end = rest[start..]
            .find('}')
            .map_or(rest.len(), |end| start + end + 1);
        let placeholder = &rest[start..end];
        if !["{gateway}", "{topic}"].contains(&placeholder) {
            return Some(placeholder);
        }
        rest = &rest[end..];
    }
    None
}
