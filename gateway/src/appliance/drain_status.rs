//! What keeps the buffer from draining, until when, and what the link has cost, as `gateway status`,
//! `gateway buffer stats` and `/metrics` show it: statuses in, text out. Shell.

use broker_lite::observe::metrics::{Exposition, gauge};
use serde::{Deserialize, Serialize};

use crate::{
    buffer,
    upstream::{self, Account, Brake},
};

/// The drain at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// What keeps messages from going up: `paused`, `no link`, `budget`, `window`, `rate`, or
    /// `link` where it is the upstream's pace alone; absent: none waits.
    pub held_by: Option<String>,
    /// Seconds until the buffer is empty, if it goes on as in the last minute.
    pub empty_in_s: Option<u64>,
    /// What the link may cost and has cost.
    pub budgets: Vec<BudgetStatus>,
}

/// One budget at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// `day` or `month`.
    pub period: String,
    /// Bytes that may be spent.
    pub limit: u64,
    /// Bytes that were, about; messages of high priority may go beyond the limit.
    pub used: u64,
    /// Bytes that are left.
    pub left: u64,
    /// When the next period begins, RFC 3339.
    pub until: Option<String>,
}

/// Joins what the buffer and the link know.
pub(super) fn of(buffer: &buffer::Status, link: Option<&upstream::Status>) -> DrainStatus {
    let waits = buffer.rows > 0;
    let held_by = match link {
        _ if buffer.paused => Some(Brake::Paused.as_str()),
        Some(link) if link.is_connected() => link.brake.map(Brake::as_str),
        _ => waits.then_some("no link"),
    };
    DrainStatus {
        held_by: held_by.map(str::to_owned),
        empty_in_s: link
            .and_then(|link| link.empty_in)
            .filter(|_| waits)
            .map(|time| time.as_secs()),
        budgets: link.map_or_else(Vec::new, |link| link.accounts.iter().map(budget).collect()),
    }
}

fn budget(account: &Account) -> BudgetStatus {
    BudgetStatus {
        period: account.period.as_str().to_owned(),
        limit: account.limit,
        used: account.used,
        left: account.limit.saturating_sub(account.used),
        until: account.until.map(|until| format!("{until:.0}")),
    }
}

impl DrainStatus {
    /// Whether something of ours keeps messages back, as opposed to the link.
    pub(super) fn is_held(&self) -> bool {
        let ours = ["paused", "budget", "window", "rate"];
        self.held_by.as_deref().is_some_and(|by| ours.contains(&by))
    }
}

/// The gauges of a drain.
pub(super) fn metrics(text: &mut Exposition, drain: &DrainStatus) {
    let held = [(
        "gateway_drain_held",
        u64::from(drain.is_held()),
        "Whether a pause, a budget, a window or a rate keeps messages back (1).",
    )];
    let empty = drain.empty_in_s.map(|seconds| {
        (
            "gateway_drain_empty_in_seconds",
            seconds,
            "Time until the buffer is empty, if it goes on like this.",
        )
    });
    for (name, value, help) in held.into_iter().chain(empty) {
        text.single(gauge(name, help), value as f64);
    }
    for budget in &drain.budgets {
        let period = &budget.period;
        for (what, value, help) in [
            (
                "limit",
                budget.limit,
                "Bytes that the link may cost in this time.",
            ),
            ("used", budget.used, "Bytes that it has cost, about."),
        ] {
            let name = format!("gateway_budget_{period}_{what}_bytes");
            text.single(gauge(&name, help), value as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_up_budget_is_told_with_what_it_was_and_its_end() {
        let drain = DrainStatus {
            held_by: Some("budget".to_owned()),
            empty_in_s: Some(7_200),
            budgets: vec![budget(&Account {
                period: upstream::Period::Day,
                limit: 20 << 20,
                used: 21 << 20,
                until: "2026-11-23T00:00:00Z".parse().ok(),
            })],
        };
        assert!(drain.is_held());
        assert_eq!(
            super::super::status_text::drain_lines(&drain),
            "    held by the budget: only messages of high priority go\n    empty in about 2 h 0 min\n    \
             budget of the day: 21.0 MiB of 20.0 MiB used, 0 B left until 2026-11-23T00:00:00Z\n"
        );
        let mut text = Exposition::default();
        metrics(&mut text, &drain);
        let text = text.end();
        for line in [
            "gateway_drain_held 1",
            "gateway_drain_empty_in_seconds 7200",
            "gateway_budget_day_used_bytes 22020096",
        ] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
    }

    #[test]
    fn without_a_link_what_waits_waits_for_it() {
        let mut buffer = buffer::Status::default();
        assert_eq!(of(&buffer, None).held_by, None);
        buffer.rows = 3;
        let drain = of(&buffer, None);
        assert_eq!(drain.held_by.as_deref(), Some("no link"));
        assert!(!drain.is_held());
        buffer.paused = true;
        assert_eq!(of(&buffer, None).held_by.as_deref(), Some("paused"));
    }
}
