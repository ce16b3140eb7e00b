//! Clients that log in by SCRAM-SHA-256, with keys and proofs by Python's scramp.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::peers::script;

/// What a server keeps of a password, by another's computation.
pub(crate) fn keys(password: &str) -> Result<String> {
    Ok(said(&["keys", password])?.trim().to_owned())
}

/// Connects and proves to know the password, and then again to know `then` or the same; the
/// events with their reason codes.
pub(crate) fn connect(
    port: u16,
    user: &str,
    password: &str,
    then: Option<&str>,
) -> Result<Vec<(String, u64)>> {
    let port = port.to_string();
    let mut arguments = vec!["connect", "--port", &port, "--user", user];
    arguments.extend(["--password", password]);
    arguments.extend(then.map(|then| ["--then", then]).into_iter().flatten());
    let events = said(&arguments)?;
    events.lines().map(event).collect()
}

fn event(line: &str) -> Result<(String, u64)> {
    let event: Value = serde_json::from_str(line)?;
    let name = event["event"].as_str().context("an event has a name")?;
    Ok((name.to_owned(), event["code"].as_u64().unwrap_or(0)))
}

fn said(arguments: &[&str]) -> Result<String> {
    let output = script("scram_client.py")?.args(arguments).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}
