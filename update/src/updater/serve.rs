//! The updater's one loop: requests, time, signals, watchdog. Driver.
//!
//! Invariant: the watchdog is fed only while the loop turns and an installation that is under way gets on.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixListener},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signalfd::SignalFd,
    time::{ClockId, clock_gettime},
};
use tracing::{info, warn};

use super::{Next, Updater};
use crate::protocol::socket::accept;

/// Longest wait before time is looked at.
const TURN_MS: u16 = 1000;
/// Longest time without a step of an installation: a medium that takes longer for 16 MiB is broken.
const STALLED: Duration = Duration::from_secs(120);
/// Between two attempts to restart the machine.
const RESTART_AGAIN: Duration = Duration::from_secs(30);

/// What the process does for the loop.
pub trait Host {
    /// Tells the service manager that all is well.
    fn alive(&mut self);
    /// Restarts the machine, with this argument for reboot(2).
    ///
    /// # Errors
    /// When that could not even be asked for.
    fn restart(&mut self, argument: Option<&str>) -> io::Result<()>;
}

/// Serves until a signal comes. `users` may ask beside root; `next` is what the start came to.
///
/// # Errors
/// The listener or poll(2) fail.
pub fn serve(
    updater: &mut Updater,
    listener: &UnixListener,
    users: &[u32],
    signals: &SignalFd,
    host: &mut dyn Host,
    next: Next,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut restart = Restart::default();
    restart.want(next);
    let mut stalls = Stalls::default();
    loop {
        let mut waits = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waits, PollTimeout::from(TURN_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [asked, signalled] = waits.map(|wait| wait.any() == Some(true));
        if signalled {
            break;
        }
        if asked {
            restart.want(serve_one(updater, listener, users));
        }
        restart.want(updater.tick());
        restart.act(host);
        if stalls.gets_on(updater.beats()) {
            host.alive();
        }
    }
    info!("told to stop");
    updater.stop();
    Ok(())
}

fn serve_one(updater: &mut Updater, listener: &UnixListener, users: &[u32]) -> Next {
    let asked = match accept(listener, users) {
        Ok(asked) => asked,
        Err(error) => {
            warn!(%error, "a request was not served");
            return Next::Stay;
        }
    };
    let (reply, next) = updater.answer(asked.ask.clone());
    if let Err(error) = asked.answer(reply) {
        warn!(%error, "the gateway did not take its answer");
    }
    next
}

/// A restart that is due, asked for until it happens.
#[derive(Default)]
struct Restart {
    wanted: Option<Option<&'static str>>,
    asked: Option<Duration>,
}

impl Restart {
    fn want(&mut self, next: Next) {
        if let Next::Restart(argument) = next {
            *self = Restart {
                wanted: Some(argument),
                asked: None,
            };
        }
    }

    fn act(&mut self, host: &mut dyn Host) {
        let Some(argument) = self.wanted else {
            return;
        };
        let now = now();
        if self.asked.is_some_and(|asked| now < asked + RESTART_AGAIN) {
            return;
        }
        self.asked = Some(now);
        info!(argument, "restarting the machine");
        if let Err(error) = host.restart(argument) {
            warn!(%error, "cannot restart the machine; trying again");
        }
    }
}

/// Notices an installation that hangs.
#[derive(Default)]
struct Stalls {
    last: Option<(u64, Duration)>,
}

impl Stalls {
    fn gets_on(&mut self, beats: Option<u64>) -> bool {
        let Some(beats) = beats else {
            self.last = None;
            return true;
        };
        let now = now();
        match self.last {
            Some((before, since)) if before == beats => now < since + STALLED,
            _ => {
                self.last = Some((beats, now));
                true
            }
        }
    }
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.expect("every Linux has this clock")
}
