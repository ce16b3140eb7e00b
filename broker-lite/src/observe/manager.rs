//! What the service manager is told, by sd_notify(3); where none listens, nothing happens. Driver.
//!
//! Invariant: the watchdog is fed by whoever has seen progress, never by a timer alone.

use std::{fmt::Display, time::Duration};

use sd_notify::NotifyState;
use tracing::{error, info, warn};

use crate::observe::catalog;

/// How often the watchdog wants to be fed, twice per period as sd_watchdog_enabled(3) advises;
/// `None`: there is none.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|period| period / 2)
}

/// Serving.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// Progress was seen.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// No progress was seen, so that the watchdog stays hungry.
pub fn stuck(reason: impl Display) {
    error!(
        message_id = catalog::PROBE_FAILED.id, kind = catalog::PROBE_FAILED.name, %reason,
        "no progress; the watchdog is not fed"
    );
}

/// Another configuration is being read; [`ready`] ends that.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot read the monotonic clock for the service manager"),
    }
}

/// Another configuration is in force.
pub fn reloaded(changes: &str) {
    info!(
        message_id = catalog::RELOADED.id,
        kind = catalog::RELOADED.name,
        changes,
        "configuration reloaded"
    );
}

/// A configuration cannot be used, each line of `reasons` says why; the one before stays.
pub fn reload_refused(reasons: &str) {
    for reason in reasons.lines() {
        error!(
            message_id = catalog::RELOAD_REFUSED.id,
            kind = catalog::RELOAD_REFUSED.name,
            reason,
            "configuration not applied; the one before stays"
        );
    }
}

/// About to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot notify the service manager");
    }
}
