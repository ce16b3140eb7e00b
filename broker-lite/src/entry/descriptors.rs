//! File descriptors: one per connection. Driver.
//!
//! Invariant: when they run out, whoever connects is told so at once, and nobody spins.

use std::{fs::File, io};

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use tracing::warn;

/// Beside connections: listeners, certificates that are read again, the store, what embeds the broker.
const OTHERS: u64 = 128;

/// Asks the system for as many descriptors as there may be connections; warns when it gives less.
pub(crate) fn provide_for(connections: u32) {
    let wanted = u64::from(connections) + OTHERS;
    let given = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let possible = wanted.min(hard);
        if soft < possible {
            setrlimit(Resource::RLIMIT_NOFILE, possible, hard)?;
        }
        Ok(soft.max(possible))
    });
    match given {
        Ok(given) if given >= wanted => {}
        Ok(given) => warn!(
            target: "broker_lite::server", given, wanted,
            "fewer file descriptors than limits.connections needs; raise LimitNOFILE= of the service"
        ),
        Err(error) => warn!(
            target: "broker_lite::server", %error,
            "cannot tell how many file descriptors there are"
        ),
    }
}

/// Whether an error says that no descriptor is free, in the process or in the system.
pub(crate) fn are_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE)
    )
}

/// A descriptor held back: given up, it lets one connection be accepted and closed.
#[derive(Debug)]
pub(crate) struct Spare(Option<File>);

impl Spare {
    pub(crate) fn new() -> Spare {
        Spare(File::open("/dev/null").ok())
    }

    /// Gives it up; false when there was none.
    pub(crate) fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// Takes one again, if one is free.
    pub(crate) fn take_back(&mut self) {
        if self.0.is_none() {
            *self = Spare::new();
        }
    }
}
