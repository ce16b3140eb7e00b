//! A pause to the microsecond, which a serial line's silences are. Driver.
//!
//! The runtime's own timers have a grain of a millisecond and are up to two late: at 115,200 baud
//! that doubles the silence of 1.75 ms between frames. A timer of the kernel's costs two system
//! calls per pause and no thread, where sleeping or spinning would hold a worker up.
//!
//! Invariant: a pause is never shorter than asked.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Instant,
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A timer of the kernel's on the runtime's reactor.
#[derive(Debug)]
pub(crate) struct Pause(AsyncFd<Timer>);

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Pause {
    /// Takes a timer; needs a tokio runtime.
    ///
    /// # Errors
    /// The process has too many files open.
    pub(crate) fn new() -> io::Result<Pause> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        #[expect(
            deprecated,
            reason = "what took its place is unsafe; what it asks for holds: the timer owns its descriptor"
        )]
        AsyncFd::with_interest(Timer(timer), Interest::READABLE).map(Pause)
    }

    /// Waits until `at`; safe to be dropped half-way.
    ///
    /// # Errors
    /// The system refuses the timer.
    pub(crate) async fn until(&self, at: Instant) -> io::Result<()> {
        loop {
            let rest = at.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            let once = Expiration::OneShot(TimeSpec::from_duration(rest));
            let timer = &self.0.get_ref().0;
            timer.set(once, TimerSetTimeFlags::empty())?;
            // What a pause that was dropped has left behind ends the wait early: the loop looks.
            self.0.readable().await?.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_pause_is_not_shorter_than_asked_even_after_one_that_was_dropped() {
        let pause = Pause::new().unwrap();
        for micros in [1, 300, 1_750, 4_010] {
            let dropped = pause.until(Instant::now() + Duration::from_micros(200));
            let _late = tokio::time::timeout(Duration::ZERO, dropped).await;
            let at = Instant::now() + Duration::from_micros(micros);
            pause.until(at).await.unwrap();
            assert!(Instant::now() >= at);
        }
        pause.until(Instant::now()).await.unwrap();
    }
}
