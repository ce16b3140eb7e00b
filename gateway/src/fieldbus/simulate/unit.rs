//! A simulated device: what it holds, what is wrong with it, and so what it answers. A core.
//!
//! Invariant: the same requests at the same times, and the same seed, give the same answers.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::fieldbus::register::Table;

use super::{
    chance::Chance,
    faults::{Fault, Misbehaviour},
    identity,
    instrument::{Contents, Instrument},
    memory::{Access, ILLEGAL_ADDRESS, Memory, Span},
};

/// Requests that a device remembers for tests.
const REQUESTS_KEPT: usize = 10_000;
/// What the device takes for itself before it answers.
const TURNAROUND: Duration = Duration::from_millis(2);

/// One device behind one unit identifier.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) id: u8,
    pub(super) turnaround: Duration,
    pub(super) tally: Tally,
    memory: Memory,
    contents: Contents,
    faults: Vec<Misbehaviour>,
    chance: Chance,
    started: Instant,
    /// It works on one request after the other.
    busy_until: Instant,
    requests: VecDeque<Vec<u8>>,
}

/// What a device has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) answers: u64,
    pub(super) exceptions: u64,
    pub(super) spoilt: u64,
}

/// An answer on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) unit: u8,
    pub(super) pdu: Vec<u8>,
    /// When it leaves.
    pub(super) at: Instant,
    pub(super) damage: Damage,
}

/// What is wrong with an answer's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Damage {
    pub(super) crc: bool,
    pub(super) transaction: bool,
    pub(super) cut: bool,
}

impl Unit {
    /// A device as it comes from the factory, switched on `now`.
    pub(super) fn new(name: &str, id: u8, instrument: Instrument, seed: u64, now: Instant) -> Unit {
        Unit {
            name: name.to_owned(),
            id,
            turnaround: TURNAROUND,
            tally: Tally::default(),
            memory: instrument.memory,
            contents: instrument.contents,
            faults: Vec::new(),
            chance: Chance::new(seed),
            started: now,
            busy_until: now,
            requests: VecDeque::new(),
        }
    }

    /// Makes something go wrong, in place of what was wrong of this kind.
    pub(super) fn misbehave(&mut self, wrong: Misbehaviour) {
        let kind = std::mem::discriminant(&wrong.fault);
        self.faults
            .retain(|known| std::mem::discriminant(&known.fault) != kind);
        self.faults.push(wrong);
    }

    /// Makes it behave again.
    pub(super) fn behave(&mut self) {
        self.faults.clear();
    }

    /// What is wrong with it.
    pub(super) fn faults(&self) -> &[Misbehaviour] {
        &self.faults
    }

    /// What stands in its tables.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The latest requests.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.requests.iter()
    }

    /// Writes a point as a client would, given in its unit.
    ///
    /// # Errors
    /// What is wrong with the point's name or the value.
    pub(super) fn set(&mut self, point: &str, value: &serde_json::Value) -> Result<(), String> {
        self.contents.set(point, value, &mut self.memory)
    }

    /// The answer to a request, and when it leaves.
    pub(super) fn answer(&mut self, pdu: &[u8], now: Instant) -> Option<Reply> {
        self.remember(pdu);
        let done_at = now.max(self.busy_until) + self.turnaround;
        if self.strikes(|fault| fault == Fault::Silent) {
            return None;
        }
        let access = Access::parse(pdu);
        let function = pdu.first().copied().unwrap_or(0);
        let answered = match (self.exception(&access), &access) {
            (Some(code), _) => Err(code),
            (None, Ok(access)) => self.execute(access, pdu, now),
            (None, Err(code)) => identity::answer(pdu, self.id, &self.name).ok_or(*code),
        };
        let pdu = match answered {
            Ok(data) => [vec![function], data].concat(),
            Err(code) => {
                self.tally.exceptions += 1;
                vec![function | 0x80, code]
            }
        };
        let at = done_at + self.lateness();
        self.busy_until = at;
        Some(self.spoilt(Reply {
            unit: self.id,
            pdu,
            at,
            damage: Damage::default(),
        }))
    }

    /// Does what a request to all devices says, which none answers (serial line 2.1).
    pub(super) fn hear_broadcast(&mut self, pdu: &[u8], now: Instant) {
        if let Ok(access @ (Access::Write(..) | Access::Mask { .. })) = Access::parse(pdu) {
            self.remember(pdu);
            let _unanswered = self.execute(&access, pdu, now);
        }
    }

    fn remember(&mut self, pdu: &[u8]) {
        self.tally.requests += 1;
        if self.requests.len() == REQUESTS_KEPT {
            self.requests.pop_front();
        }
        self.requests.push_back(pdu.to_vec());
    }

    fn execute(&mut self, access: &Access, pdu: &[u8], now: Instant) -> Result<Vec<u8>, u8> {
        self.memory.holes = self.strikes(|fault| fault == Fault::Holes);
        let seconds = now.saturating_duration_since(self.started).as_secs_f64();
        if let Some(span) = access.reads() {
            self.contents.refresh(span, seconds, &mut self.memory);
        }
        let answer = self.memory.execute(access, pdu)?;
        if let Some(span) = access.writes() {
            self.contents.written(span);
        }
        Ok(answer)
    }

    /// The exception that is asked for, if it strikes at this request.
    fn exception(&mut self, access: &Result<Access, u8>) -> Option<u8> {
        let touched = |span: Option<Span>, at| span.is_some_and(|span| span.contains(at));
        let fits = |at| match access {
            Ok(access) => touched(access.reads(), at) || touched(access.writes(), at),
            Err(_) => false,
        };
        let mut code = ILLEGAL_ADDRESS;
        let strikes = self.strikes(|fault| match fault {
            Fault::Exception(wanted, at) if at.is_none_or(fits) => {
                code = wanted;
                true
            }
            _ => false,
        });
        strikes.then_some(code)
    }

    fn lateness(&mut self) -> Duration {
        let mut late = Duration::ZERO;
        let strikes = self.strikes(|fault| match fault {
            Fault::Late(by) => {
                late = by;
                true
            }
            _ => false,
        });
        if strikes { late } else { Duration::ZERO }
    }

    /// The answer with what goes wrong on its way out.
    fn spoilt(&mut self, mut reply: Reply) -> Reply {
        if self.strikes(|fault| fault == Fault::WrongUnit) {
            // The neighbour on the line, within the units that a line can have.
            reply.unit = if self.id >= 247 { 1 } else { self.id + 1 };
        }
        reply.damage = Damage {
            crc: self.strikes(|fault| fault == Fault::WrongCrc),
            transaction: self.strikes(|fault| fault == Fault::WrongTransaction),
            cut: self.strikes(|fault| fault == Fault::Cut),
        };
        let spoilt = reply.unit != self.id || reply.damage != Damage::default();
        self.tally.answers += u64::from(!spoilt);
        self.tally.spoilt += u64::from(spoilt);
        reply
    }

    /// Whether a fault is set that `is` it, and strikes this time.
    fn strikes(&mut self, mut is: impl FnMut(Fault) -> bool) -> bool {
        let found = self.faults.iter().find(|wrong| is(wrong.fault));
        let share = found.map_or(0.0, |wrong| wrong.share);
        self.chance.strikes(share)
    }

    /// A holding register as it is now.
    pub(super) fn holding(&self, address: u16) -> Option<u16> {
        let table = Table::Holding;
        self.memory()
            .at(crate::fieldbus::register::Register { table, address })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Kind, *};

    fn meter(seed: u64, now: Instant) -> Unit {
        Unit::new("meter", 1, Instrument::of(Kind::Meter), seed, now)
    }

    #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
    fn start() -> Instant {
        Instant::now()
    }

    const READ: [u8; 5] = [4, 0, 0, 0, 2];

    #[test]
    fn a_late_device_answers_one_request_after_the_other() {
        let now = start();
        let mut meter = meter(1, now);
        let late = Duration::from_millis(300);
        meter.misbehave(Fault::Late(late).into());
        let first = meter.answer(&READ, now).expect("an answer");
        let second = meter.answer(&READ, now).expect("an answer");
        assert_eq!(first.at, now + TURNAROUND + late);
        assert_eq!(second.at, first.at + TURNAROUND + late);
        meter.behave();
        let healed = meter.answer(&READ, second.at).expect("an answer");
        assert_eq!(healed.at, second.at + TURNAROUND);
    }

    #[test]
    fn an_exception_at_a_register_strikes_only_requests_that_touch_it() {
        let now = start();
        let mut meter = meter(1, now);
        let at = "input:6".parse().ok();
        meter.misbehave(Fault::Exception(4, at).into());
        let pdu = |meter: &mut Unit, request: &[u8]| {
            let answer = meter.answer(request, now);
            answer.map(|reply| reply.pdu).unwrap_or_default()
        };
        assert_eq!(pdu(&mut meter, &[4, 0, 5, 0, 2]), [0x84, 4]);
        assert_eq!(pdu(&mut meter, &READ)[..2], [4, 4]);
        assert_eq!(pdu(&mut meter, &[3, 0, 6, 0, 1])[..2], [3, 2]);
        assert_eq!(meter.tally.exceptions, 1);
    }

    #[test]
    fn a_share_of_the_answers_is_spoilt_and_the_seed_says_which() {
        let now = start();
        let spoilt = |seed| {
            let mut meter = meter(seed, now);
            for fault in [Fault::WrongCrc, Fault::WrongUnit, Fault::Cut, Fault::Silent] {
                meter.misbehave(Misbehaviour { fault, share: 0.2 });
            }
            let answers = (0..200).map(|_| meter.answer(&READ, now));
            let answers: Vec<_> = answers
                .map(|reply| reply.map(|reply| (reply.unit, reply.damage)))
                .collect();
            answers
        };
        let seen = spoilt(7);
        assert_eq!(seen, spoilt(7));
        assert_ne!(seen, spoilt(8));
        let count = |is: fn(&Option<(u8, Damage)>) -> bool| {
            let count = seen.iter().filter(|one| is(one)).count();
            assert!((20..=60).contains(&count), "{count} of 200");
        };
        count(Option::is_none);
        count(|one| one.is_some_and(|(unit, _)| unit == 2));
        count(|one| one.is_some_and(|(_, damage)| damage.crc));
        count(|one| one.is_some_and(|(_, damage)| damage.cut));
    }

    #[test]
    fn setting_a_fault_again_replaces_it() {
        let mut meter = meter(1, start());
        meter.misbehave(Fault::Late(Duration::from_secs(1)).into());
        meter.misbehave(Fault::Late(Duration::from_secs(2)).into());
        meter.misbehave(Fault::Silent.into());
        let said: Vec<String> = meter.faults().iter().map(ToString::to_string).collect();
        assert_eq!(said, ["late 2s", "silent"]);
    }
}
