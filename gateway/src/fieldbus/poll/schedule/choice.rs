//! What to send next. A core; part of the schedule.
//!
//! Invariant: a unit that may not answer is asked only when every answering one keeps its
//! deadlines meanwhile, or within a share of the bus when none of that is left.

use std::time::{Duration, Instant};

use crate::reading::Stamp;

use crate::fieldbus::{
    poll::{
        device::{Device, Poll},
        health::Health,
        point::Point,
    },
    transaction::{Request, Span, Transaction},
};

use super::{Output, Purpose, Schedule, TransactionId, UnderWay, slack};

/// Units that may not answer get one part in so many of a bus whose other requests leave no time
/// for them: they come back after an outage, and the others hardly notice.
pub(super) const SHARE_OF_UNANSWERING: u32 = 10;

/// A unit that may not answer.
#[derive(Debug)]
struct Waiting {
    device: usize,
    purpose: Purpose,
    since: Instant,
    overdue_at: Instant,
}

/// Who is asked next, and what for.
#[derive(Debug)]
struct Next {
    /// Index of the configured device, if the unit is one.
    device: Option<usize>,
    purpose: Purpose,
    /// It goes before the others, which may become late by it.
    overdue: bool,
}

impl Next {
    fn to((device, purpose): (usize, Purpose)) -> Next {
        Next {
            device: Some(device),
            purpose,
            overdue: false,
        }
    }
}

impl Schedule {
    /// Starts as many transactions as are due and the bus takes.
    pub(super) fn start_next(&mut self, now: Stamp) {
        if !self.is_up() || self.under_way.len() >= self.window {
            return;
        }
        self.refuse_expired(now);
        let now = now.monotonic;
        self.refuse_late_adhoc(now);
        self.decided_at = now;
        while self.under_way.len() < self.window {
            let Some(next) = self.next(now) else {
                self.note_rest(now);
                return;
            };
            if !self.transmit(&next, now) {
                return;
            }
        }
    }

    fn next(&mut self, now: Instant) -> Option<Next> {
        let adhoc = |(device, purpose)| Next {
            device,
            purpose,
            overdue: false,
        };
        self.write_due(now)
            .map(Next::to)
            .or_else(|| self.unanswering_overdue(now))
            .or_else(|| self.adhoc_due(now).map(adhoc))
            .or_else(|| self.poll_due(now).map(Next::to))
            .or_else(|| self.unanswering_with_slack(now).map(Next::to))
    }

    /// Nothing is left to send.
    fn note_rest(&mut self, now: Instant) {
        if self.under_way.is_empty() {
            self.load.rested_at = now;
        }
    }

    fn refuse_expired(&mut self, now: Stamp) {
        let executing = |one: &UnderWay| one.purpose == Purpose::Write;
        if self.under_way.iter().any(executing) {
            return;
        }
        while let Some(refusal) = self
            .writes
            .front()
            .and_then(|write| write.expired(now.monotonic))
        {
            if let Some(write) = self.writes.pop_front() {
                self.refuse(write.command, &refusal, now);
            }
        }
    }

    fn write_due(&self, now: Instant) -> Option<(usize, Purpose)> {
        let write = self.writes.front()?;
        if self.is_under_way(write.device, Purpose::Write) {
            return None;
        }
        let ready = write.ready_at().is_none_or(|at| at <= now);
        ready.then_some((write.device, Purpose::Write))
    }

    /// A unit that may not answer and has waited for too long.
    fn unanswering_overdue(&self, now: Instant) -> Option<Next> {
        if now < self.unanswering_at {
            return None;
        }
        let waiting = self.unanswering(now);
        let overdue = waiting.filter(|waiting| waiting.overdue_at <= now);
        let first = overdue.min_by_key(|waiting| waiting.overdue_at)?;
        Some(Next {
            overdue: true,
            ..Next::to((first.device, first.purpose))
        })
    }

    /// The poll or recheck of an answering unit whose deadline is nearest.
    fn poll_due(&self, now: Instant) -> Option<(usize, Purpose)> {
        let due = |(index, device): (usize, &Device)| {
            let (deadline, purpose) = match &device.health {
                Health::Online => self.nearest(index, device, now)?,
                Health::Silent(silence) if device.health.is_suspect() => {
                    (silence.overdue_at, Purpose::Probe)
                }
                Health::Unproven | Health::Silent(_) => return None,
            };
            let free = !self.is_under_way(index, purpose);
            free.then_some((deadline, index, purpose))
        };
        let devices = self.devices.iter().enumerate();
        let first = devices
            .filter_map(due)
            .min_by_key(|(deadline, ..)| *deadline);
        first.map(|(_, index, purpose)| (index, purpose))
    }

    /// A unit that may not answer, if the others can wait that long.
    fn unanswering_with_slack(&self, now: Instant) -> Option<(usize, Purpose)> {
        let waiting = self.unanswering(now);
        let first = waiting.min_by_key(|waiting| waiting.since)?;
        let wait = self.patience(first.device, first.purpose, now);
        let next = (first.device, first.purpose);
        self.has_slack(wait, now).then_some(next)
    }

    /// How long an answer is waited for: as configured, or briefly where the unit did not answer
    /// lately and waiting as configured would make others late.
    fn patience(&self, device: usize, purpose: Purpose, now: Instant) -> Duration {
        let configured = self.response_timeout;
        let Some(device) = self.devices.get(device) else {
            return configured;
        };
        if purpose == Purpose::Write || !self.cost.is_line() {
            return configured;
        }
        let slowest = || self.online().filter_map(|one| one.patience.slowest()).max();
        match device.patience.brief(slowest) {
            Some(brief) if brief < configured && !self.has_slack(configured, now) => brief,
            _ => configured,
        }
    }

    fn online(&self) -> impl Iterator<Item = &Device> {
        let devices = self.devices.iter();
        devices.filter(|device| device.health.is_online())
    }

    /// Units that may not answer and that it is time to ask; none while one is being asked.
    fn unanswering(&self, now: Instant) -> impl Iterator<Item = Waiting> {
        let asking = self.under_way.iter().any(|one| one.doubtful);
        let waiting = move |(index, device): (usize, &Device)| {
            let (since, overdue_at, purpose) = match &device.health {
                Health::Silent(silence)
                    if silence.probe_at <= now && !device.health.is_suspect() =>
                {
                    (silence.probe_at, silence.overdue_at, Purpose::Probe)
                }
                Health::Unproven => {
                    let (deadline, purpose) = self.nearest(index, device, now)?;
                    (deadline, deadline, purpose)
                }
                Health::Silent(_) | Health::Online => return None,
            };
            Some(Waiting {
                device: index,
                purpose,
                since,
                overdue_at,
            })
        };
        let devices = self.devices.iter().enumerate();
        devices.filter_map(waiting).filter(move |_| !asking)
    }

    /// Whether every answering unit keeps its deadlines if the bus is blocked for so long from
    /// now. On an overloaded bus some do not anyway.
    pub(super) fn has_slack(&self, blocked: Duration, now: Instant) -> bool {
        if self.load.gives_way {
            return false;
        }
        let polls: Vec<&Poll> = self.online().flat_map(|device| &device.polls).collect();
        slack::lasts(&polls, blocked, now)
    }

    /// Sends the next request for a purpose; `false` when there is none.
    fn transmit(&mut self, next: &Next, now: Instant) -> bool {
        let Some((unit, request, patience)) = self.request(next, now) else {
            return false;
        };
        let device = next.device.and_then(|index| self.devices.get(index));
        let doubtful = device.is_none_or(|device| !device.health.is_online());
        let read = match &request {
            Request::Read(span) => Some(*span),
            _ => None,
        };
        self.counters.sent(now);
        self.transactions += 1;
        let alone = self.under_way.is_empty();
        let id = TransactionId(self.transactions);
        self.under_way.push(UnderWay {
            id,
            device: next.device,
            purpose: next.purpose,
            doubtful,
            overdue: next.overdue,
            read,
            sent: now,
            patience,
            timed_from: alone.then_some(now.max(self.silent_at)),
        });
        if next.overdue {
            self.unanswering_at = now + patience * SHARE_OF_UNANSWERING;
        }
        let timeout = patience + self.cost.transfer(&request);
        let transaction = Transaction {
            unit,
            request,
            timeout,
        };
        self.outputs.push_back(Output::Transmit { id, transaction });
        true
    }

    fn request(&mut self, next: &Next, now: Instant) -> Option<(u8, Request, Duration)> {
        let purpose = next.purpose;
        if purpose == Purpose::Adhoc {
            return self.take_adhoc();
        }
        let patience = self.patience(next.device?, purpose, now);
        let device = self.devices.get_mut(next.device?)?;
        let read = match purpose {
            Purpose::Poll(id) => Some(device.ask(device.poll(id)?)?),
            Purpose::Recheck(point) => Some(device.alone(point)?),
            Purpose::Probe => Some(probe(device)?),
            Purpose::Write | Purpose::Adhoc => None,
        };
        let request = match read {
            Some(span) => Request::Read(span),
            None => self.writes.front()?.request(),
        };
        Some((device.unit, request, patience))
    }

    fn is_under_way(&self, device: usize, purpose: Purpose) -> bool {
        let mut under_way = self.under_way.iter();
        under_way.any(|one| one.device == Some(device) && one.purpose == purpose)
    }

    /// What is due of a device and not under way, with the nearest deadline.
    fn nearest(&self, index: usize, device: &Device, now: Instant) -> Option<(Instant, Purpose)> {
        let due =
            |poll: &Poll| (poll.due <= now).then(|| (poll.deadline(), Purpose::Poll(poll.id)));
        let recheck = |(index, point): (usize, &Point)| {
            let parked = point.parked.filter(|parked| parked.retry_at <= now)?;
            Some((parked.retry_at + parked.pause, Purpose::Recheck(index)))
        };
        let polls = device.polls.iter().filter_map(due);
        let rechecks = device.points.iter().enumerate().filter_map(recheck);
        polls
            .chain(rechecks)
            .filter(|(_, purpose)| !self.is_under_way(index, *purpose))
            .min_by_key(|(deadline, _)| *deadline)
    }
}

fn probe(device: &Device) -> Option<Span> {
    let usual = device.usual_span()?;
    match &device.health {
        Health::Silent(silence) => Some(silence.probe(usual)),
        Health::Unproven | Health::Online => Some(usual),
    }
}

/// When a device next wants something.
pub(super) fn wake_times(device: &Device) -> Vec<Instant> {
    match &device.health {
        Health::Silent(silence) => vec![silence.probe_at, silence.overdue_at],
        Health::Unproven | Health::Online => {
            let polls = device.polls.iter().map(|poll| poll.due);
            let parked = device.points.iter().filter_map(|point| point.parked);
            polls.chain(parked.map(|parked| parked.retry_at)).collect()
        }
    }
}
