//! What came of the transaction under way. A core; part of the schedule.
//!
//! Invariant: every reply counts for the unit's health; only answers make readings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::reading::Stamp;

use crate::fieldbus::{
    DeviceState,
    poll::device::{Device, Lesson},
    transaction::{Exception, Reply},
};

use super::{Notice, Output, Purpose, Schedule, UnderWay};

/// Answers in time after which a request that was late counts as punctual again.
const PUNCTUAL_AFTER: u32 = 10;

impl Schedule {
    /// Takes the reply to the transaction under way.
    pub(super) fn replied(&mut self, reply: Reply, now: Stamp) {
        let Some(under_way) = self.under_way.take() else {
            return;
        };
        self.counters.replied(&reply, under_way.sent, now.monotonic);
        let device = &mut self.devices[under_way.device];
        if !device.health.is_online() {
            // What was not read while the unit did not answer is no fault of the bus' load.
            device.restart(under_way.sent);
        }
        self.note_health(&under_way, &reply, now);
        match under_way.purpose {
            Purpose::Poll(poll) => self.polled(under_way.device, poll, &reply, now),
            Purpose::Probe => {}
            Purpose::Recheck(point) => self.rechecked(under_way.device, point, reply, now),
            Purpose::Write => self.wrote(under_way.device, &reply, now),
        }
    }

    fn note_health(&mut self, under_way: &UnderWay, reply: &Reply, now: Stamp) {
        let Some(device) = self.devices.get_mut(under_way.device) else {
            return;
        };
        if let Some(reason) = silence(reply, self.response_timeout) {
            device.health.failed(
                under_way.read,
                self.response_timeout,
                &mut self.jitter,
                now.monotonic,
            );
            if device.health.is_offline() {
                self.tell(under_way.device, DeviceState::Offline { reason }, now);
            }
            return;
        }
        device.health.answered();
        self.tell(under_way.device, DeviceState::Online, now);
    }

    fn polled(&mut self, index: usize, poll: usize, reply: &Reply, now: Stamp) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        let Some(planned) = device.polls.get(poll).map(|poll| poll.planned.clone()) else {
            return;
        };
        let readings = match reply {
            Reply::Answer(answer) => device.readings(&planned.points, planned.span, answer, now),
            Reply::Exception(exception) if !exception.means_silence() => {
                self.excepted(index, poll, *exception, now);
                return;
            }
            Reply::Exception(_) | Reply::TimedOut | Reply::Garbled(_) => return,
        };
        let notice = punctuality(device, poll, now.monotonic);
        self.outputs.extend(notice.map(Output::Notice));
        self.publish(readings);
    }

    fn excepted(&mut self, index: usize, poll: usize, exception: Exception, now: Stamp) {
        let device = &mut self.devices[index];
        device.polls[poll].advance(now.monotonic);
        let planned = device.polls[poll].planned.clone();
        let lesson = device.learn(&planned, exception, now.monotonic);
        let notice = Notice::Exception {
            device: Arc::clone(&device.name),
            unit: device.unit,
            span: planned.span,
            exception,
            lesson: lesson.clone(),
        };
        let reason = exception.to_string();
        let bad = match &lesson {
            Lesson::Split => Vec::new(),
            Lesson::Parked(points, _) => device.bad_readings(points, &reason, now),
            Lesson::Passing => device.bad_readings(&planned.points, &reason, now),
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
                let span = device.points[point].span;
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
fn silence(reply: &Reply, timeout: Duration) -> Option<String> {
    match reply {
        Reply::TimedOut => Some(format!("no answer in {timeout:?}")),
        Reply::Garbled(what) => Some(what.clone()),
        Reply::Exception(exception) if exception.means_silence() => Some(exception.to_string()),
        Reply::Exception(_) | Reply::Answer(_) => None,
    }
}

/// Moves a poll on and tells when it begins or ceases to be late.
fn punctuality(device: &mut Device, poll: usize, now: Instant) -> Option<Notice> {
    let name = Arc::clone(&device.name);
    let poll = device.polls.get_mut(poll)?;
    let (span, interval) = (poll.planned.span, poll.planned.interval);
    let missed = poll.advance(now);
    match (poll.in_time_since_late, missed) {
        (None, false) => None,
        (before, true) => {
            poll.in_time_since_late = Some(0);
            before.is_none().then_some(Notice::Late {
                device: name,
                span,
                interval,
            })
        }
        (Some(in_time), false) if in_time + 1 < PUNCTUAL_AFTER => {
            poll.in_time_since_late = Some(in_time + 1);
            None
        }
        (Some(_), false) => {
            poll.in_time_since_late = None;
            Some(Notice::Punctual {
                device: name,
                span,
                interval,
            })
        }
    }
}
