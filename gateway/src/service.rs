//! The appliance as a service: readiness, watchdog, reload and stop. Shell.
//!
//! Invariant: the watchdog is fed only after a message has gone through the broker and back.

use std::{path::Path, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{
    appliance::Appliance,
    config::{self, Config},
};

/// Interval of the self-probe where systemd asks for no watchdog.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a probe message may take through the broker.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the appliance until SIGTERM or SIGINT, reloading `path` at SIGHUP.
///
/// # Errors
/// The appliance does not start, or signals cannot be caught.
pub async fn serve(config: Config, path: &Path) -> anyhow::Result<()> {
    // Before anything starts, so that a signal during the start ends it in order.
    let mut signals = Signals::new()?;
    let mut appliance = Appliance::start(config).await?;
    let mut probe = interval(probe_interval());
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tell_manager(&[NotifyState::Ready, NotifyState::Status("serving")]);
    loop {
        tokio::select! {
            _ = probe.tick() => feed_watchdog(&mut appliance).await,
            _ = signals.reload.recv() => reload(&mut appliance, path).await,
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    info!("told to stop");
    tell_manager(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    appliance.stop().await;
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}

/// Twice per watchdog period, as sd_watchdog_enabled(3) advises.
fn probe_interval() -> Duration {
    sd_notify::watchdog_enabled().map_or(PROBE_INTERVAL, |period| period / 2)
}

async fn feed_watchdog(appliance: &mut Appliance) {
    match appliance.probe(PROBE_TIMEOUT).await {
        Ok(()) => tell_manager(&[NotifyState::Watchdog]),
        Err(stuck) => error!(%stuck, "no progress; the watchdog is not fed"),
    }
}

async fn reload(appliance: &mut Appliance, path: &Path) {
    announce_reload();
    match config::load(path) {
        Ok(loaded) => match appliance.reload(loaded.value).await {
            Ok(changes) => info!(%changes, "configuration reloaded"),
            Err(error) => error!(
                error = format!("{error:#}"),
                "configuration not applied; the one before stays"
            ),
        },
        Err(problems) => {
            for line in problems.to_string().lines() {
                error!("{line}");
            }
            error!(path = %path.display(), "configuration not applied; the one before stays");
        }
    }
    tell_manager(&[NotifyState::Ready]);
}

fn announce_reload() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell_manager(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot read the monotonic clock for the service manager"),
    }
}

/// Does nothing where no service manager listens.
fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot notify the service manager");
    }
}
