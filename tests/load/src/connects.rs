//! Clients that connect and leave at once, some at a time: how many a second, at what cost. Driver.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::{
    Target,
    gauge::{Gauge, own_cpu},
    packets::Version,
    wire::Wire,
};

#[derive(Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    target: Target,
    /// Connections in all
    #[arg(long, default_value_t = 5_000)]
    count: usize,
    /// At a time
    #[arg(long, default_value_t = 10)]
    at_once: usize,
}

#[derive(Serialize)]
pub(crate) struct Report {
    /// Connections per second.
    rate: f64,
    /// The broker's processor time for each.
    cpu_us: f64,
    broker_load: f64,
    own_load: f64,
}

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let gauge = Gauge::of(plan.target.pid)?;
    let (broker, own, start) = (gauge.cpu()?, own_cpu()?, Instant::now());
    let taken = AtomicUsize::new(0);
    thread::scope(|scope| {
        let comers: Vec<_> = (0..plan.at_once)
            .map(|_| scope.spawn(|| come_and_go(plan, &taken)))
            .collect();
        comers
            .into_iter()
            .try_for_each(|comer| comer.join().ok().context("a thread panicked")?)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let broker = (gauge.cpu()? - broker).as_secs_f64();
    Ok(Report {
        rate: plan.count as f64 / seconds,
        cpu_us: broker * 1e6 / plan.count as f64,
        broker_load: broker / seconds,
        own_load: (own_cpu()? - own).as_secs_f64() / seconds,
    })
}

fn come_and_go(plan: &Plan, taken: &AtomicUsize) -> Result<()> {
    let tls = plan.target.tls()?;
    loop {
        let number = taken.fetch_add(1, Ordering::Relaxed);
        if number >= plan.count {
            return Ok(());
        }
        let name = format!("comer-{number}");
        Wire::connect(plan.target.port, tls.as_ref(), &name, Version::V4, true)?.leave()?;
    }
}
