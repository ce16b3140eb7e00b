//! What came of a transaction under way. A core; part of the schedule.
//!
//! Invariant: every reply counts for the unit's health; only answers make readings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::reading::Stamp;

use crate::fieldbus::{
    DeviceState,
    poll::device::{Lesson, PollId},
    transaction::{Exception, Reply, Request},
};

use super::{Notice, Output, Purpose, Schedule, TransactionId, UnderWay};

impl Schedule {
    /// Takes the reply to a transaction under way; one to any other is ignored.
    pub(super) fn replied(&mut self, id: TransactionId, reply: Reply, now: Stamp) {
        let Some(at) = self.under_way.iter().position(|one| one.id == id) else {
            return;
        };
        let under_way = self.under_way.remove(at);
        if matches!(reply, Reply::Garbled(_)) {
            self.heard_late();
        }
        self.counters
            .ended(self.under_way.is_empty(), now.monotonic);
        self.counters.replied(&reply, now.monotonic);
        self.silent_at = now.monotonic + self.cost.silence();
        if under_way.overdue && silence(&reply, under_way.patience, self.response_timeout).is_none()
        {
            // It took what a poll takes, so the next one that may not answer need not wait for its share.
            self.unanswering_at = now.monotonic;
        }
        match under_way.device {
            _ if under_way.purpose == Purpose::Adhoc => self.adhoc_replied(&under_way, reply, now),
            Some(device) => self.device_replied(device, &under_way, reply, now),
            None => {}
        }
    }

    /// The unit that was last given up early may have answered after all.
    pub(super) fn heard_late(&mut self) {
        let device = self.shortened.take();
        if let Some(device) = device.and_then(|index| self.devices.get_mut(index)) {
            device.patience.heard();
        }
    }

    /// Takes the reply to a transaction that cost the connection, and all others as lost.
    pub(super) fn severed(&mut self, id: TransactionId, reply: Reply, now: Stamp) {
        let reason = "the connection was lost to another request's time-out";
        self.replied(id, reply, now);
        let lost = std::mem::take(&mut self.under_way);
        self.counters.ended(true, now.monotonic);
        for one in lost {
            match (one.purpose, self.writes.front()) {
                (Purpose::Adhoc, _) => self.adhoc_lost(reason),
                (Purpose::Write, Some(write)) if !write.is_repeatable() => {
                    let outcome = write.lost(reason, true);
                    self.finish_write(outcome, now);
                }
                // What is still due is sent again.
                _ => {}
            }
        }
    }

    fn device_replied(&mut self, index: usize, under_way: &UnderWay, reply: Reply, now: Stamp) {
        let device = &mut self.devices[index];
        if !device.health.is_online() {
            // What was not read while the unit did not answer is no fault of the bus' load.
            device.restart(under_way.sent);
        }
        self.note_health(index, under_way, &reply, now);
        let turnaround = self.turnaround(under_way, &reply, now.monotonic);
        match under_way.purpose {
            Purpose::Poll(poll) => {
                let took = now.monotonic.saturating_duration_since(under_way.sent);
                self.polled(index, poll, took, &reply, now);
            }
            Purpose::Probe | Purpose::Knock | Purpose::Adhoc => {}
            Purpose::Recheck(point) => self.rechecked(index, point, reply, now),
            Purpose::Write => self.wrote(index, &reply, now),
        }
        // Only now: it may change the plan.
        if let Some((device, turnaround)) = self.devices.get_mut(index).zip(turnaround) {
            device.answered_after(turnaround, now.monotonic);
        }
    }

    /// What passed beside the time on the wire. Only reads count: a write may take the device as
    /// long as its memory does.
    fn turnaround(&self, one: &UnderWay, reply: &Reply, now: Instant) -> Option<Duration> {
        if !matches!(reply, Reply::Answer(_)) {
            return None;
        }
        let transfer = self.cost.transfer(&Request::Read(one.read?));
        Some(now.saturating_duration_since(one.timed_from? + transfer))
    }

    fn note_health(&mut self, index: usize, under_way: &UnderWay, reply: &Reply, now: Stamp) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        if let Some(reason) = silence(reply, under_way.patience, self.response_timeout) {
            let was_offline = device.health.is_offline();
            if under_way.purpose == Purpose::Knock {
                device.health.still_silent(under_way.read, now.monotonic);
                return;
            }
            device.health.failed(
                under_way.read,
                self.response_timeout,
                &mut self.jitter,
                now.monotonic,
            );
            let shorter = under_way.patience < self.response_timeout;
            device.patience.failed(shorter);
            self.shortened = shorter.then_some(index);
            // The cause that made it so is told, not whatever each probe runs into.
            if device.health.is_offline() && !was_offline {
                self.tell(index, DeviceState::Offline { reason }, now);
            }
            return;
        }
        device.health.answered();
        device.patience.answered();
        self.tell(index, DeviceState::Online, now);
    }

    fn polled(&mut self, index: usize, id: PollId, took: Duration, reply: &Reply, now: Stamp) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        // The plan may have changed under a request that was under way.
        let Some(poll) = device.poll(id) else {
            return;
        };
        let readings = match reply {
            Reply::Answer(answer) => device.polled(poll, answer, now),
            Reply::Exception(exception) if !exception.means_silence() => {
                self.excepted(index, poll, *exception, now);
                return;
            }
            Reply::Exception(_) | Reply::TimedOut | Reply::Garbled(_) => return,
        };
        device.polls[poll].pace.took(took);
        device.polls[poll].advance(now.monotonic);
        self.publish(readings);
    }

    fn excepted(&mut self, index: usize, poll: usize, exception: Exception, now: Stamp) {
        let device = &mut self.devices[index];
        let Some((turn, at)) = device.asked(poll) else {
            return;
        };
        let lesson = device.learn(&turn, exception, now.monotonic);
        if lesson == Lesson::Passing {
            device.polls[poll].advance(now.monotonic);
            device.serve(&turn.points, at);
        }
        let notice = Notice::Exception {
            device: Arc::clone(&device.name),
            unit: device.unit,
            span: turn.span,
            exception,
            lesson: lesson.clone(),
        };
        let reason = exception.to_string();
        let bad = match &lesson {
            Lesson::Split => Vec::new(),
            Lesson::Parked(points, _) => device.bad_readings(points, &reason, now),
            Lesson::Passing => device.bad_readings(&turn.points, &reason, now),
        };
        // What passes is told once, with the readings that it spoils.
        if lesson != Lesson::Passing || !bad.is_empty() {
            self.outputs.push_back(Output::Notice(notice));
        }
        self.publish(bad);
    }

    fn rechecked(&mut self, index: usize, point: usize, reply: Reply, now: Stamp) {
        let device = &mut self.devices[index];
        match reply {
            Reply::Answer(answer) => {
                let Some(span) = device.alone(point) else {
                    return;
                };
                let readings = device.readings(&[point], span, &answer, now);
                device.unpark(point, now.monotonic);
                let notice = Notice::Unparked {
                    device: Arc::clone(&device.name),
                    point: Arc::clone(&device.points[point].name),
                };
                self.outputs.push_back(Output::Notice(notice));
                self.publish(readings);
            }
            Reply::Exception(exception) if !exception.means_silence() => {
                device.park(&[point], now.monotonic);
            }
            Reply::Exception(_) | Reply::TimedOut | Reply::Garbled(_) => {}
        }
    }

    fn wrote(&mut self, index: usize, reply: &Reply, now: Stamp) {
        let Some(write) = self.writes.front_mut() else {
            return;
        };
        let device = &mut self.devices[index];
        if let Some(outcome) = write.replied(reply, device, now.monotonic) {
            self.finish_write(outcome, now);
        }
    }
}

/// Why a reply counts as none, if it does.
fn silence(reply: &Reply, waited: Duration, configured: Duration) -> Option<String> {
    match reply {
        Reply::TimedOut if waited < configured => Some(format!(
            "no answer in {waited:?}; the bus is too busy to wait for {configured:?}"
        )),
        Reply::TimedOut => Some(format!("no answer in {waited:?}")),
        Reply::Garbled(what) => Some(what.clone()),
        Reply::Exception(exception) if exception.means_silence() => Some(exception.to_string()),
        Reply::Exception(_) | Reply::Answer(_) => None,
    }
}
