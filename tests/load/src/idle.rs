//! Connections that subscribe and then stay silent: what each costs the broker, and whether it sleeps. Driver.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{Target, gauge::Gauge, packets::Version, wire::Wire};

/// Topic filters in one SUBSCRIBE.
const FILTERS_AT_ONCE: usize = 50;

#[derive(Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    target: Target,
    /// Connections; none: the broker alone is looked at
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Subscriptions of each
    #[arg(long, default_value_t = 1)]
    subscriptions: usize,
    /// Seconds to count wake-ups for
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds that the broker settles for before it is looked at, without connections and with them
    #[arg(long, default_value_t = 1.0)]
    settle: f64,
}

#[derive(Serialize)]
pub(crate) struct Report {
    connections: usize,
    memory_before_kb: u64,
    memory_kb: u64,
    kb_per_connection: f64,
    /// With `subscriptions` more than one: what one of them costs.
    bytes_per_subscription: f64,
    switches_per_s: f64,
}

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let gauge = Gauge::of(plan.target.pid)?;
    let tls = plan.target.tls()?;
    let settle = Duration::from_secs_f64(plan.settle);
    sleep(settle);
    let before = gauge.memory_kb()?;
    let mut wires = Vec::with_capacity(plan.connections);
    for client in 0..plan.connections {
        let name = format!("idle-{client}");
        let mut wire = Wire::connect(plan.target.port, tls.as_ref(), &name, Version::V4, true)?;
        let filter = |number| format!("idle/{client}/{number}");
        let filters: Vec<_> = (0..plan.subscriptions).map(filter).collect();
        for some in filters.chunks(FILTERS_AT_ONCE) {
            wire.subscribe(some, 0, Version::V4)?;
        }
        wires.push(wire);
    }
    sleep(settle);
    let memory = gauge.memory_kb()?;
    let switches = gauge.switches()?;
    sleep(Duration::from_secs_f64(plan.seconds));
    let switched = gauge.switches()? - switches;
    let more = memory.saturating_sub(before) as f64;
    let per = |count: usize| more / count.max(1) as f64;
    Ok(Report {
        connections: wires.len(),
        memory_before_kb: before,
        memory_kb: memory,
        kb_per_connection: per(plan.connections),
        bytes_per_subscription: per(plan.connections * plan.subscriptions) * 1_024.0,
        switches_per_s: switched as f64 / plan.seconds,
    })
}
