//! What to send next. A core; part of the schedule.
//!
//! On a line a unit may not answer until it has answered many times in a row. It is asked after all
//! others, if they can wait for as long as it is waited for at least.
//!
//! Invariant: a unit that may not answer is asked only when every other one keeps its deadlines
//! meanwhile, or within a share of the bus when there was no time for it.

use std::time::{Duration, Instant};

use crate::reading::Stamp;

use crate::fieldbus::{
    DeviceState,
    poll::{
        device::{Device, Poll, PollId},
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
        let executing = |one: &UnderWay| one.purpose == Purpose::Write;
        if !self.under_way.iter().any(executing) {
            self.refuse_expired(now);
            self.refuse_for_offline(now);
        }
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

    /// Ends commands for a unit that was found to be offline just now.
    fn refuse_for_offline(&mut self, now: Stamp) {
        while let Some(write) = self.writes.front() {
            let device = &self.devices[write.device];
            let Some((DeviceState::Offline { reason }, _)) = &device.told else {
                return;
            };
            if !device.health.is_offline_for_sure(now.monotonic) {
                return;
            }
            let outcome = write.lost(&format!("the device is offline: {reason}"), false);
            self.finish_write(outcome, now);
        }
    }

    fn write_due(&self, now: Instant) -> Option<(usize, Purpose)> {
        let write = self.writes.front()?;
        // A write is not sent into silence: it takes a whole time-out, and what came of it is unknown.
        let purpose = match self.devices[write.device].health.is_offline() {
            true => Purpose::Knock,
            false => Purpose::Write,
        };
        if self.is_under_way(write.device, purpose) {
            return None;
        }
        let ready = write.ready_at().is_none_or(|at| at <= now);
        ready.then_some((write.device, purpose))
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

    /// The poll or recheck whose deadline is nearest, of the units that are counted on.
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
        let counted_on = devices.filter(|(_, device)| self.is_counted_on(device));
        let first = counted_on
            .filter_map(due)
            .min_by_key(|(deadline, ..)| *deadline);
        first.map(|(_, index, purpose)| (index, purpose))
    }

    /// Whether a unit is asked in the order of the deadlines. Behind a gateway one that failed once
    /// is too, for there nothing is won by waiting for time to spare: it takes a whole time-out.
    fn is_counted_on(&self, device: &Device) -> bool {
        if self.cost.is_line() {
            device.health.is_online() && device.patience.is_trusted()
        } else {
            device.health.is_online() || device.health.is_suspect()
        }
    }

    /// The first unit that may not answer, if the others can wait for it.
    fn unanswering_with_slack(&self, now: Instant) -> Option<(usize, Purpose)> {
        let waiting = self.unanswering(now);
        let first = waiting.min_by_key(|waiting| waiting.overdue_at)?;
        let device = &self.devices[first.device];
        let blocked = self.least_wait(device) + self.beside(device, first.purpose);
        let next = (first.device, first.purpose);
        self.has_slack(blocked, now).then_some(next)
    }

    /// How long an answer is waited for: as configured, or as long as the others can wait, but no
    /// less than this unit needs.
    fn patience(&self, device: &Device, purpose: Purpose, now: Instant) -> Duration {
        let (configured, least) = (self.response_timeout, self.least_wait(device));
        if purpose == Purpose::Write || least >= configured {
            return configured;
        }
        let beside = self.beside(device, purpose);
        // Another one may stop answering before the bus has come to rest.
        let kept = least + beside;
        let others = self.counted_on().filter(|one| one.name != device.name);
        let others: Vec<&Device> = others.collect();
        let room = self.room(&others, configured + beside + kept, now);
        let room = whole_milliseconds(room.saturating_sub(beside + kept));
        room.clamp(least, configured)
    }

    /// How long a unit is waited for at least.
    fn least_wait(&self, device: &Device) -> Duration {
        let configured = self.response_timeout;
        if !self.cost.is_line() || device.health == Health::Unproven {
            return configured;
        }
        let slowest = || self.online().filter_map(|one| one.patience.slowest()).max();
        let least = device.patience.least(slowest);
        least.map_or(configured, |least| least.min(configured))
    }

    /// How long the bus is blocked beside the wait for an answer, if none comes.
    fn beside(&self, device: &Device, purpose: Purpose) -> Duration {
        let widest = |id: PollId| Some(device.polls[device.poll(id)?].planned.widest().span);
        let read = match purpose {
            Purpose::Poll(id) => widest(id),
            Purpose::Recheck(point) => device.alone(point),
            Purpose::Probe | Purpose::Knock | Purpose::Write | Purpose::Adhoc => {
                device.usual_span()
            }
        };
        let transfer = read.map(|span| self.cost.transfer(&Request::Read(span)));
        transfer.unwrap_or_default() + self.cost.fence()
    }

    fn online(&self) -> impl Iterator<Item = &Device> {
        let devices = self.devices.iter();
        devices.filter(|device| device.health.is_online())
    }

    /// Units that may not answer and that it is time to ask; none while one is being asked.
    fn unanswering(&self, now: Instant) -> impl Iterator<Item = Waiting> {
        let asking = self.under_way.iter().any(|one| one.doubtful);
        let waiting = move |(index, device): (usize, &Device)| {
            let (overdue_at, purpose) = match &device.health {
                Health::Silent(silence) if silence.probe_at <= now => {
                    (silence.overdue_at, Purpose::Probe)
                }
                Health::Unproven | Health::Online => self.nearest(index, device, now)?,
                Health::Silent(_) => return None,
            };
            Some(Waiting {
                device: index,
                purpose,
                overdue_at,
            })
        };
        let devices = self.devices.iter().enumerate();
        devices
            .filter(|(_, device)| !self.is_counted_on(device))
            .filter_map(waiting)
            .filter(move |_| !asking)
    }

    /// Whether every unit that is counted on keeps its deadlines if the bus is blocked for so long
    /// from now.
    pub(super) fn has_slack(&self, blocked: Duration, now: Instant) -> bool {
        let counted_on: Vec<&Device> = self.counted_on().collect();
        self.room(&counted_on, blocked, now) >= blocked
    }

    /// For how long the bus can be blocked from now, up to `most`, if these are to keep their
    /// deadlines. On an overloaded bus some do not anyway.
    fn room(&self, devices: &[&Device], most: Duration, now: Instant) -> Duration {
        if self.load.gives_way {
            return Duration::ZERO;
        }
        slack::room(devices, most, now)
    }

    fn counted_on(&self) -> impl Iterator<Item = &Device> {
        let devices = self.devices.iter();
        devices.filter(|device| self.is_counted_on(device))
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
        let patience = self.patience(self.devices.get(next.device?)?, purpose, now);
        let device = self.devices.get_mut(next.device?)?;
        let read = match purpose {
            Purpose::Poll(id) => Some(device.ask(device.poll(id)?)?),
            Purpose::Recheck(point) => Some(device.alone(point)?),
            Purpose::Probe | Purpose::Knock => Some(probe(device)?),
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

fn whole_milliseconds(time: Duration) -> Duration {
    time - Duration::from_nanos(u64::from(time.subsec_nanos() % 1_000_000))
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
