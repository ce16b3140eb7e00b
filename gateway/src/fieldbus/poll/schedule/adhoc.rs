//! Transactions that somebody at the gateway asks for, beside commands and polls. A core; part of
//! the schedule.
//!
//! A commissioning tool hands in [`Adhoc`] with [`Input::Adhoc`](super::Input::Adhoc) and gets
//! exactly one [`AdhocOutcome`] back with [`Output::Adhoc`](super::Output::Adhoc), under the number
//! that it chose. The unit need not be configured, and may be quarantined.
//!
//! ```text
//!  Adhoc ─▶ waiting ─▶ sent: no answering unit can miss a deadline by it, or its share is free
//!              └─────▶ refused: too many wait, the bus is down, nothing was free until `send_by`
//! ```
//!
//! Invariant: at most one is under way, a write among them is sent at most once, and what is sent
//! without slack takes at most one part in [`SHARE_OF_ADHOC`] of the bus.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::reading::Stamp;

use crate::fieldbus::transaction::{Reply, Request};

use super::{Output, Purpose, Schedule, UnderWay, Wire};

/// Ad-hoc transactions that wait at most: a tool asks for the next when it has seen the last, and
/// more than a few tools at once is a mistake.
pub(crate) const ADHOC_MAX: usize = 16;
/// One part in so many of a bus that has no slack goes to ad-hoc transactions: 5 %.
pub(super) const SHARE_OF_ADHOC: u32 = 20;

/// The number under which an outcome comes back; whoever asks chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AdhocId(pub(crate) u64);

/// A request to be sent once, beside the polls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Adhoc {
    /// Comes back with the outcome.
    pub(crate) id: AdhocId,
    /// Unit identifier, configured or not.
    pub(crate) unit: u8,
    /// A read or a write. Whoever asks a unit that is not configured again after a time-out asks
    /// for another length, lest a late answer pass for the new one.
    pub(crate) request: Request,
    /// How long the unit may take for itself; the time on the wire comes on top.
    pub(crate) response_timeout: Duration,
    /// Refused if it could not be sent by then.
    pub(crate) send_by: Instant,
}

/// What became of an ad-hoc transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AdhocOutcome {
    /// It was sent, and this came of it.
    Replied(Reply),
    /// It was sent and the wire was lost: a write may or may not have been executed.
    Lost(String),
    /// It was not sent.
    Refused(AdhocRefusal),
}

/// Why an ad-hoc transaction was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdhocRefusal {
    /// There is no wire.
    #[error("not sent: {0}")]
    WireDown(String),
    /// Others are before it.
    #[error("not sent: {ADHOC_MAX} requests of tools wait for this bus already; try again")]
    QueueFull,
    /// The polls left no time for it.
    #[error("not sent: the bus was too busy; allow more time, or see its load in `gateway plan`")]
    TooBusy,
}

/// Those that wait, and the one under way.
#[derive(Debug)]
pub(super) struct AdhocQueue {
    waiting: VecDeque<Adhoc>,
    under_way: Option<Adhoc>,
    /// The one under way was sent although there was no slack.
    within_share: bool,
    /// From then on the next may be sent even without slack.
    pub(super) share_at: Instant,
}

impl AdhocQueue {
    pub(super) fn new(now: Instant) -> AdhocQueue {
        AdhocQueue {
            waiting: VecDeque::new(),
            under_way: None,
            within_share: false,
            share_at: now,
        }
    }

    /// When something is to be done for those that wait.
    pub(super) fn wake_times(&self) -> impl Iterator<Item = Instant> {
        let share = (!self.waiting.is_empty()).then_some(self.share_at);
        let expiry = self.waiting.iter().map(|one| one.send_by);
        // Refused once their moment has passed.
        share
            .into_iter()
            .chain(expiry.map(|at| at + Duration::from_nanos(1)))
    }

    fn next(&self) -> Option<&Adhoc> {
        match self.under_way {
            Some(_) => None,
            None => self.waiting.front(),
        }
    }
}

impl Schedule {
    pub(super) fn ask(&mut self, adhoc: Adhoc) {
        let refusal = match &self.wire {
            Wire::Down(reason) => AdhocRefusal::WireDown(reason.clone()),
            Wire::Up if self.adhoc.waiting.len() >= ADHOC_MAX => AdhocRefusal::QueueFull,
            Wire::Up => {
                self.adhoc.waiting.push_back(adhoc);
                return;
            }
        };
        self.answer_adhoc(adhoc.id, AdhocOutcome::Refused(refusal));
    }

    /// Refuses those that could not be sent in time.
    pub(super) fn refuse_late_adhoc(&mut self, now: Instant) {
        let all = std::mem::take(&mut self.adhoc.waiting);
        let (late, in_time): (VecDeque<_>, VecDeque<_>) =
            all.into_iter().partition(|one| one.send_by < now);
        self.adhoc.waiting = in_time;
        for one in late {
            let refused = AdhocOutcome::Refused(AdhocRefusal::TooBusy);
            self.answer_adhoc(one.id, refused);
        }
    }

    /// The next one if it harms no deadline or its share is free. After a time-out the unit is
    /// first read in another length if the late answer could pass for this one's.
    pub(super) fn adhoc_due(&mut self, now: Instant) -> Option<(Option<usize>, Purpose)> {
        let next = self.adhoc.next()?;
        let worst = next.response_timeout + self.cost.transfer(&next.request);
        let device = self.device_of(next.unit);
        let clash = self.clashes(device, &next.request);
        if clash && self.under_way.iter().any(|one| one.doubtful) {
            return None;
        }
        let slack = self.has_slack(worst, now);
        if !slack && now < self.adhoc.share_at {
            return None;
        }
        self.adhoc.within_share = !slack;
        let purpose = if clash {
            Purpose::Probe
        } else {
            Purpose::Adhoc
        };
        Some((device, purpose))
    }

    /// Whether the answer that a unit still owes could be taken for this request's.
    fn clashes(&self, device: Option<usize>, request: &Request) -> bool {
        let Request::Read(span) = request else {
            return false;
        };
        let device = device.and_then(|index| self.devices.get(index));
        device.is_some_and(|device| device.health.owes(*span))
    }

    /// Takes the next one to be sent; its unit, request and response time-out.
    pub(super) fn take_adhoc(&mut self) -> Option<(u8, Request, Duration)> {
        let next = self.adhoc.waiting.pop_front()?;
        let taken = (next.unit, next.request.clone(), next.response_timeout);
        self.adhoc.under_way = Some(next);
        Some(taken)
    }

    pub(super) fn adhoc_replied(&mut self, under_way: &UnderWay, reply: Reply, now: Stamp) {
        let now = now.monotonic;
        if self.adhoc.within_share {
            let taken = now.saturating_duration_since(under_way.sent);
            self.adhoc.share_at = now + taken * (SHARE_OF_ADHOC - 1);
        }
        let Some(one) = self.adhoc.under_way.take() else {
            return;
        };
        let unanswered = matches!(reply, Reply::TimedOut | Reply::Garbled(_));
        let device = self.device_of(one.unit);
        if let Some(device) = device.and_then(|index| self.devices.get_mut(index))
            && unanswered
        {
            device.health.suspect(under_way.read, now);
        }
        self.answer_adhoc(one.id, AdhocOutcome::Replied(reply));
    }

    /// The connection is made anew: a read is asked again, a write is not.
    pub(super) fn adhoc_lost(&mut self, reason: &str) {
        match self.adhoc.under_way.take() {
            Some(one) if matches!(one.request, Request::Read(_)) => {
                self.adhoc.waiting.push_front(one);
            }
            Some(one) => self.answer_adhoc(one.id, AdhocOutcome::Lost(reason.to_owned())),
            None => {}
        }
    }

    /// There is no wire any more.
    pub(super) fn end_adhoc(&mut self, reason: &str) {
        if let Some(one) = self.adhoc.under_way.take() {
            self.answer_adhoc(one.id, AdhocOutcome::Lost(reason.to_owned()));
        }
        while let Some(one) = self.adhoc.waiting.pop_front() {
            let down = AdhocRefusal::WireDown(reason.to_owned());
            self.answer_adhoc(one.id, AdhocOutcome::Refused(down));
        }
    }

    fn answer_adhoc(&mut self, id: AdhocId, outcome: AdhocOutcome) {
        self.outputs.push_back(Output::Adhoc { id, outcome });
    }

    fn device_of(&self, unit: u8) -> Option<usize> {
        self.devices.iter().position(|device| device.unit == unit)
    }
}
