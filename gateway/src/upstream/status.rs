//! What the link does, since when, and what it has done. A value, and the board it hangs on: a
//! driver, for it is shared between threads.
//!
//! Invariant: `since` changes only when the state becomes another, not with each attempt.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{Account, Brake, cause::Cause};
use crate::{clock, config::KeyPlace, identity::Renewal, reading::Stamp};

/// What the link does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Looking the host up, shaking hands.
    Connecting,
    /// Connected, but what is sent would not be listened to yet.
    Waiting {
        /// The Sparkplug host application that is waited for.
        host: String,
    },
    /// The upstream takes messages.
    Connected,
    /// It did not work or ended; the next attempt follows.
    Down {
        /// Why.
        cause: Cause,
        /// The pause before the next attempt.
        retry: Duration,
    },
    /// The configuration cannot work; only another one helps.
    Unusable {
        /// Why.
        cause: Cause,
    },
    /// Ended by us.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Connecting => f.write_str("connecting"),
            State::Waiting { host } => {
                write!(f, "waiting for the primary host application {host}")
            }
            State::Connected => f.write_str("connected"),
            State::Down { cause, retry } => {
                write!(
                    f,
                    "{cause}; trying again in {} s",
                    retry.as_secs_f32().ceil()
                )
            }
            State::Unusable { cause } => cause.fmt(f),
            State::Stopped => f.write_str("stopped"),
        }
    }
}

/// The link at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// What it does.
    pub state: State,
    /// Since it is connected, or since it is not.
    pub since: Stamp,
    /// Where it leads.
    pub endpoint: String,
    /// Messages sent and not yet acknowledged.
    pub in_flight: usize,
    /// Messages sent since the start, repetitions included.
    pub sent: u64,
    /// Messages acknowledged since the start.
    pub acknowledged: u64,
    /// Messages that the upstream will never take, gap markers aside, since the start.
    pub buried: u64,
    /// Messages taken from upstream since the start.
    pub received: u64,
    /// From sending to acknowledgement, smoothed over some ten messages.
    pub latency: Option<Duration>,
    /// What keeps messages from going up; `None`: none waits.
    pub brake: Option<Brake>,
    /// The budgets there are.
    pub accounts: Vec<Account>,
    /// Until the buffer is empty, if it goes on as in the last minute.
    pub empty_in: Option<Duration>,
    /// How its renewal stands; absent: nothing renews it.
    pub renewal: Option<Renewal>,
    /// Our certificate that the upstream let in last.
    pub certificate: Option<Certificate>,
}

/// Our certificate for the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// When it ends.
    pub ends: Timestamp,
    /// Its generation, where `[identity]` keeps it.
    pub generation: Option<u32>,
    /// Where its key is.
    pub key: KeyPlace,
    /// Why a newer one is not in use; absent: there is none, or it is.
    pub trouble: Option<String>,
}

impl Status {
    /// Whether the upstream takes messages.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }
}

/// Where the link writes its status and others read it.
#[derive(Debug)]
pub(super) struct Board(Mutex<Status>);

impl Board {
    pub(super) fn new(endpoint: &str) -> Board {
        Board(Mutex::new(Status {
            state: State::Connecting,
            since: clock::now(),
            endpoint: endpoint.to_owned(),
            in_flight: 0,
            sent: 0,
            acknowledged: 0,
            buried: 0,
            received: 0,
            latency: None,
            certificate: None,
            brake: None,
            accounts: Vec::new(),
            empty_in: None,
            renewal: None,
        }))
    }

    pub(super) fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Enters a state. A link that was down and connects again is still down since the same moment.
    pub(super) fn set(&self, state: State) {
        let mut status = self.lock();
        let up = |state: &State| *state == State::Connected;
        if up(&status.state) != up(&state) {
            status.since = clock::now();
        }
        if !(state == State::Connecting && matches!(status.state, State::Down { .. })) {
            status.state = state;
        }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
