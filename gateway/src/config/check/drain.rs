//! A drain that can work, and budgets that last. Values.

use settings::Size;

use super::Findings;
use crate::config::{Config, Hold, PING_BYTES, Upstream};

const DAY_S: u64 = 86_400;

/// Checks `[upstream.drain]` and `[upstream.budget]`.
pub(super) fn check(config: &Config, upstream: &Upstream, findings: &mut Findings<'_>) {
    check_drain(upstream, findings);
    let (day, month) = (upstream.budget.per_day, upstream.budget.per_month);
    if let (Some(day), Some(month)) = (day, month)
        && month < day
    {
        findings.warn(
            "upstream.budget.per_month",
            format!("{month} for a month is less than {day} for a day"),
            "the smaller one counts; write at least as much as for a day",
        );
    }
    let packet = config.broker.limits.packet_size;
    for (name, budget) in [("per_day", day), ("per_month", month)] {
        if let Some(budget) = budget.filter(|budget| *budget < packet) {
            findings.warn(
                &format!("upstream.budget.{name}"),
                format!("{budget} is less than the largest message, which takes {packet}"),
                "write more, or lower [broker.limits] packet_size",
            );
        }
    }
    check_pings(upstream, findings);
}

fn check_drain(upstream: &Upstream, findings: &mut Findings<'_>) {
    let drain = &upstream.drain;
    if u32::from(upstream.in_flight) * u32::from(drain.share) < 100 {
        findings.warn(
            "upstream.drain.share",
            format!(
                "{} % of in_flight = {} is less than one message; the backlog goes one by one",
                drain.share, upstream.in_flight
            ),
            "write a larger share, or a larger in_flight",
        );
    }
    if drain.windows.is_empty() && drain.windows_hold != Hold::default() {
        findings.warn(
            "upstream.drain.windows_hold",
            "there are no windows to hold anything for",
            "add windows = [\"01:00-05:00\"], or leave it out",
        );
    }
}

/// What an idle link costs must leave something for messages.
fn check_pings(upstream: &Upstream, findings: &mut Findings<'_>) {
    let keep_alive_s = upstream.keep_alive.as_duration().as_secs().max(1);
    let pings = DAY_S / keep_alive_s * PING_BYTES;
    for (name, budget, days) in [
        ("per_day", upstream.budget.per_day, 1),
        ("per_month", upstream.budget.per_month, 31),
    ] {
        if let Some(budget) = budget.filter(|budget| budget.as_bytes() < 2 * days * pings) {
            findings.warn(
                &format!("upstream.budget.{name}"),
                format!(
                    "keep_alive = {} alone costs {} bytes of {budget}",
                    upstream.keep_alive,
                    days * pings
                ),
                format!(
                    "write a longer keep_alive, as long as the network allows, or more than {}",
                    Size::from_kib(2 * days * pings / 1024 + 1)
                ),
            );
        }
    }
}
