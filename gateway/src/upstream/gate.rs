//! Decides which messages may go now, and says what holds the others back: the backlog's share of
//! the window, its rate, the time of the day, and the budget of the link.
//!
//! Invariant: what is new waits for a budget or for a window that is meant for it as well, and for
//! nothing else; messages of high priority wait for neither. Layer: core.

use std::time::{Duration, Instant};

use broker_lite::packet::QoS;

use super::{
    budget::{Account, Budget},
    lanes::{Lane, Lanes, Open, Queued},
    outbound::Outbound,
    pace::Pace,
    window::Windows,
};
use crate::{
    buffer::retention::Rank,
    config::{Hold, Priority},
    reading::Stamp,
};

/// Longest trust in a wall clock without another look at it, while a budget is used up.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What keeps messages from going up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brake {
    /// Somebody has paused it.
    Paused,
    /// A budget is used up.
    Budget,
    /// It is not the time of the day.
    Window,
    /// The rate that the backlog is given.
    Rate,
    /// Nothing but the link itself.
    Link,
}

impl Brake {
    /// The word in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Brake::Paused => "paused",
            Brake::Budget => "budget",
            Brake::Window => "window",
            Brake::Rate => "rate",
            Brake::Link => "link",
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Most of the window for the backlog, percent.
    share: u8,
    pace: Pace,
    windows: Windows,
    budget: Budget,
    /// The budget whose end was told of.
    told: Option<Account>,
}

impl Gate {
    /// Joins what may hold messages back.
    pub(crate) fn new(share: u8, pace: Pace, windows: Windows, budget: Budget) -> Gate {
        Gate {
            share,
            pace,
            windows,
            budget,
            told: None,
        }
    }

    /// Nothing holds anything back but the backlog's share of the window.
    #[cfg(test)]
    pub(crate) fn sharing(share: u8) -> Gate {
        let budget = Budget::new(Default::default(), Duration::MAX, Default::default());
        let windows = Windows::new(Vec::new(), Hold::Backlog);
        Gate::new(share, Pace::new(None, None), windows, budget)
    }

    /// The link has come up.
    pub(crate) fn link_up(&mut self, now: Stamp) {
        self.windows.link_up(now.monotonic);
        self.budget.connect();
    }

    /// Takes in the time.
    pub(crate) fn tick(&mut self, now: Stamp, linked: bool) {
        self.budget.tick(now, linked);
        if self.budget.exhausted().is_none() {
            self.told = None;
        }
    }

    /// What the link costs so far.
    pub(crate) fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    /// A budget that has just been used up; once for each time.
    pub(crate) fn news(&mut self) -> Option<Account> {
        let exhausted = self.budget.exhausted().filter(|_| self.told.is_none())?;
        self.told = Some(exhausted);
        Some(exhausted)
    }

    /// The lanes that may send while so many of a window's messages are the backlog's.
    pub(crate) fn open(&mut self, now: Stamp, window: usize, backlog: usize) -> Open {
        let most = (window * usize::from(self.share) / 100).max(1);
        let share = backlog < most && self.pace.is_ready(now.monotonic);
        let hold = self.windows.holds(now);
        let affords = Priority::ALL.map(|priority| self.budget.affords(priority));
        let mut open = Open::ALL;
        for lane in Lane::all() {
            let affords = affords[lane.rank().index()];
            let held = hold.is_some_and(|hold| holds(hold, lane));
            open.lanes[lane.index()] = affords && !held && (share || !lane.is_backlog());
        }
        for rank in Rank::all() {
            let held = hold.is_some_and(|hold| holds(hold, Lane::Live(rank)));
            open.returned[rank.index()] = affords[rank.index()] && !held;
        }
        open
    }

    /// A message goes. What one costs that is packed is known only with its packet; until it has
    /// arrived no more is taken of the budget than it could cost.
    pub(crate) fn sent(&mut self, queued: &Queued, now: Instant) {
        let bytes = queued.message.wire_len() as u64;
        match queued.message.packing {
            Some(_) => self.budget.reserve(bytes),
            None => self
                .budget
                .message(bytes, queued.message.qos != QoS::AtMostOnce),
        }
        if queued.lane.is_backlog() {
            self.pace.take(bytes, now);
        }
    }

    /// A message has arrived.
    pub(crate) fn arrived(&mut self, message: &Outbound) {
        if message.packing.is_some() {
            self.budget.release(message.wire_len() as u64);
        }
    }

    /// What holds messages back that would go by their lane; `None`: no lane is held by more than
    /// its share.
    pub(crate) fn brake(&mut self, lanes: &Lanes, now: Stamp) -> Option<Brake> {
        let waits = |lane: &Lane| lanes.len(*lane) > 0;
        let hold = self.windows.holds(now);
        let poor = |lane: &Lane| !self.budget.affords(Priority::ALL[lane.rank().index()]);
        if Lane::all().filter(waits).any(|lane| poor(&lane)) {
            return Some(Brake::Budget);
        }
        let held = |lane: &Lane| hold.is_some_and(|hold| holds(hold, *lane));
        if Lane::all().filter(waits).any(|lane| held(&lane)) {
            return Some(Brake::Window);
        }
        let backlog = Lane::all().any(|lane| lane.is_backlog() && waits(&lane));
        (backlog && !self.pace.is_ready(now.monotonic)).then_some(Brake::Rate)
    }

    /// When what is held back may go, or the clock is to be looked at again.
    pub(crate) fn due(&mut self, lanes: &Lanes, now: Stamp) -> Option<Instant> {
        match self.brake(lanes, now)? {
            Brake::Budget => Some(now.monotonic + LOOK_AGAIN),
            Brake::Window => Some(self.windows.due(now)),
            Brake::Rate => self.pace.due(now.monotonic),
            Brake::Paused | Brake::Link => None,
        }
    }
}

/// Whether a window that is closed keeps this lane's messages. Gap markers are never many.
fn holds(hold: Hold, lane: Lane) -> bool {
    let high = lane.rank() == Rank::of(Priority::High);
    let low = lane.rank() == Rank::of(Priority::Low);
    match (hold, lane) {
        (_, Lane::Gap) => false,
        (Hold::Backlog, lane) => lane.is_backlog() && !high,
        (Hold::BacklogAndLow, lane) => low || lane.is_backlog() && !high,
        (Hold::AllButHigh, _) => !high,
    }
}
