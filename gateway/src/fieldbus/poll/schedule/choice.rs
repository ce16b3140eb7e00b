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
type Next = (Option<usize>, Purpose);

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
            let Some((device, purpose)) = self.next(now) else {
                return;
            };
            if !self.transmit(device, purpose, now) {
                return;
            }
        }
    }

    fn next(&mut self, now: Instant) -> Option<Next> {
        let of_device = |(device, purpose)| (Some(device), purpose);
        self.write_due(now)
            .or_else(|| self.unanswering_overdue(now))
            .map(of_device)
            .or_else(|| self.adhoc_due(now))
            .or_else(|| self.poll_due(now).map(of_device))
            .or_else(|| self.unanswering_with_slack(now).map(of_device))
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
    fn unanswering_overdue(&mut self, now: Instant) -> Option<(usize, Purpose)> {
        if now < self.unanswering_at {
            return None;
        }
        let waiting = self.unanswering(now);
        let overdue = waiting.filter(|waiting| waiting.overdue_at <= now);
        let first = overdue.min_by_key(|waiting| waiting.overdue_at)?;
        let next = (first.device, first.purpose);
        self.unanswering_at = now + self.response_timeout * SHARE_OF_UNANSWERING;
        Some(next)
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
        let next = (first.device, first.purpose);
        self.has_slack(self.response_timeout, now).then_some(next)
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
        let devices = self.devices.iter();
        let online = devices.filter(|device| device.health.is_online());
        let polls: Vec<&Poll> = online.flat_map(|device| &device.polls).collect();
        slack::lasts(&polls, blocked, now)
    }

    /// Sends the next request for a purpose; `false` when there is none.
    fn transmit(&mut self, index: Option<usize>, purpose: Purpose, now: Instant) -> bool {
        let Some((unit, request, response_timeout)) = self.request(index, purpose) else {
            return false;
        };
        let device = index.and_then(|index| self.devices.get(index));
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
            device: index,
            purpose,
            doubtful,
            read,
            sent: now,
            timed_from: alone.then_some(now.max(self.silent_at)),
        });
        let timeout = response_timeout + self.cost.transfer(&request);
        let transaction = Transaction {
            unit,
            request,
            timeout,
        };
        self.outputs.push_back(Output::Transmit { id, transaction });
        true
    }

    fn request(
        &mut self,
        index: Option<usize>,
        purpose: Purpose,
    ) -> Option<(u8, Request, Duration)> {
        if purpose == Purpose::Adhoc {
            return self.take_adhoc();
        }
        let device = self.devices.get_mut(index?)?;
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
        Some((device.unit, request, self.response_timeout))
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
