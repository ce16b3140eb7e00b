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

use super::{Output, Purpose, Schedule, UnderWay};

/// Units that may not answer get one part in so many of a bus whose other requests leave no time
/// for them: they come back after an outage, and the others hardly notice.
const SHARE_OF_UNANSWERING: u32 = 10;

/// A unit that may not answer.
#[derive(Debug)]
struct Waiting {
    device: usize,
    purpose: Purpose,
    since: Instant,
    overdue_at: Instant,
}

impl Schedule {
    /// Starts the next transaction if none is under way.
    pub(super) fn start_next(&mut self, now: Stamp) {
        if self.under_way.is_some() || !self.is_up() {
            return;
        }
        self.refuse_expired(now);
        let now = now.monotonic;
        self.decided_at = now;
        let next = self
            .write_due(now)
            .or_else(|| self.unanswering_overdue(now))
            .or_else(|| self.poll_due(now))
            .or_else(|| self.unanswering_with_slack(now));
        if let Some((device, purpose)) = next {
            self.transmit(device, purpose, now);
        }
    }

    fn refuse_expired(&mut self, now: Stamp) {
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
        let online = |(_, device): &(usize, &Device)| device.health.is_online();
        let due = |(index, device): (usize, &Device)| {
            let (deadline, purpose) = nearest(device, now)?;
            Some((deadline, index, purpose))
        };
        let devices = self.devices.iter().enumerate().filter(online);
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
        self.has_slack(now).then_some(next)
    }

    /// Units that may not answer and that it is time to ask.
    fn unanswering(&self, now: Instant) -> impl Iterator<Item = Waiting> {
        let waiting = move |(index, device): (usize, &Device)| {
            let (since, overdue_at, purpose) = match &device.health {
                Health::Silent(silence) if silence.probe_at <= now => {
                    (silence.probe_at, silence.overdue_at, Purpose::Probe)
                }
                Health::Unproven => {
                    let (deadline, purpose) = nearest(device, now)?;
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
        self.devices.iter().enumerate().filter_map(waiting)
    }

    /// Whether every answering unit keeps its deadlines if the bus is blocked for a response
    /// time-out from now.
    fn has_slack(&self, now: Instant) -> bool {
        let online = self
            .devices
            .iter()
            .filter(|device| device.health.is_online());
        let mut jobs: Vec<(Instant, Duration)> = online
            .flat_map(|device| &device.polls)
            .filter(|poll| poll.due <= now + self.response_timeout)
            .map(|poll| (poll.deadline(), poll.planned.time))
            .collect();
        jobs.sort_unstable();
        let mut free_at = now + self.response_timeout;
        jobs.into_iter().all(|(deadline, time)| {
            free_at += time;
            free_at <= deadline
        })
    }

    fn transmit(&mut self, index: usize, purpose: Purpose, now: Instant) {
        let device = &self.devices[index];
        let request = match purpose {
            Purpose::Poll(poll) => device.polls.get(poll).map(|poll| poll.planned.span),
            Purpose::Recheck(point) => device.points.get(point).map(|point| point.span),
            Purpose::Probe => probe(device),
            Purpose::Write => None,
        };
        let request = match (request, self.writes.front()) {
            (Some(span), _) => Request::Read(span),
            (None, Some(write)) if purpose == Purpose::Write => write.request(),
            (None, _) => return,
        };
        let read = match &request {
            Request::Read(span) => Some(*span),
            _ => None,
        };
        self.counters.sent();
        self.under_way = Some(UnderWay {
            device: index,
            purpose,
            read,
            sent: now,
        });
        self.outputs.push_back(Output::Transmit(Transaction {
            unit: device.unit,
            timeout: self.response_timeout + self.cost.transfer(&request),
            request,
        }));
    }
}

fn probe(device: &Device) -> Option<Span> {
    let usual = device.usual_span()?;
    match &device.health {
        Health::Silent(silence) => Some(silence.probe(usual)),
        Health::Unproven | Health::Online => Some(usual),
    }
}

/// What is due of a device, with the nearest deadline.
fn nearest(device: &Device, now: Instant) -> Option<(Instant, Purpose)> {
    let due = |(index, poll): (usize, &Poll)| {
        (poll.due <= now).then(|| (poll.deadline(), Purpose::Poll(index)))
    };
    let recheck = |(index, point): (usize, &Point)| {
        let parked = point.parked.filter(|parked| parked.retry_at <= now)?;
        Some((parked.retry_at + parked.pause, Purpose::Recheck(index)))
    };
    let polls = device.polls.iter().enumerate().filter_map(due);
    let rechecks = device.points.iter().enumerate().filter_map(recheck);
    polls.chain(rechecks).min_by_key(|(deadline, _)| *deadline)
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
