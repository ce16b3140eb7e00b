//! The appliance as a service: readiness, watchdog, reload and stop. Shell.
//!
//! Invariant: the watchdog is fed only after a message has gone through the broker and back.

use std::{path::Path, time::Duration};

use broker_lite::observe::manager;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    appliance::Appliance,
    config::{self, Config},
};

/// Interval of the self-probe where systemd asks for no watchdog.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a probe message may take through the broker.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the appliance until SIGTERM or SIGINT, reloading `path` at SIGHUP; SIGPWR takes to disk
/// what waits in memory.
///
/// # Errors
/// The appliance does not start, or signals cannot be caught.
pub async fn serve(config: Config, path: &Path) -> anyhow::Result<()> {
    // Before anything starts, so that a signal during the start ends it in order.
    let mut signals = Signals::new()?;
    let mut appliance = Appliance::start(config).await?;
    let mut probe = interval(manager::watchdog_interval().unwrap_or(PROBE_INTERVAL));
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    manager::ready();
    loop {
        tokio::select! {
            _ = probe.tick() => feed_watchdog(&mut appliance).await,
            _ = signals.reload.recv() => reload(&mut appliance, path).await,
            _ = signals.power_fail.recv() => appliance.power_fails(),
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    info!("told to stop");
    manager::stopping();
    appliance.stop().await;
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    power_fail: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            power_fail: signal(SignalKind::from_raw(nix::sys::signal::SIGPWR as i32))?,
        })
    }
}

async fn feed_watchdog(appliance: &mut Appliance) {
    match appliance.probe(PROBE_TIMEOUT).await {
        Ok(()) => manager::alive(),
        Err(stuck) => manager::stuck(stuck),
    }
}

async fn reload(appliance: &mut Appliance, path: &Path) {
    manager::reloading();
    match apply(appliance, path).await {
        Ok(changes) => manager::reloaded(&changes),
        Err(failure) => manager::reload_refused(&format!("{failure:#}")),
    }
    manager::ready();
}

async fn apply(appliance: &mut Appliance, path: &Path) -> anyhow::Result<String> {
    let loaded = config::load(path)?;
    for warning in loaded.warnings.iter() {
        warn!("{warning}");
    }
    Ok(appliance.reload(loaded.value).await?.to_string())
}
