//! What is to become of each will of one client. Tests only.

use std::time::{Duration, Instant};

use super::model::firsts;

/// Where one will stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its client is connected.
    Waiting,
    /// The connection ended then; the delay passes.
    Released(Instant),
    /// Must come.
    Due,
    /// Must never come.
    CalledOff,
    /// A crash forgot how its connection ended: either may be.
    Unsure,
}

/// The wills in the order of their connections, from 1.
#[derive(Debug, Default)]
pub(super) struct Wills {
    fates: Vec<(Fate, Duration)>,
    /// The last one's connection has ended, and no commit has come since.
    loose: bool,
}

impl Wills {
    /// A new connection announces its will; gives the number. Whatever waited is called off.
    pub(super) fn announce(&mut self, delay: Duration, now: Instant) -> u32 {
        self.pass(now);
        if let Some((fate, delay)) = self.fates.last_mut() {
            *fate = match *fate {
                Fate::Waiting | Fate::Released(_) if !delay.is_zero() => Fate::CalledOff,
                Fate::Waiting => Fate::Due,
                other => other,
            };
        }
        self.loose = false;
        self.fates.push((Fate::Waiting, delay));
        self.fates.len() as u32
    }

    /// The connection broke.
    pub(super) fn release(&mut self, now: Instant) {
        if let Some((fate @ Fate::Waiting, _)) = self.fates.last_mut() {
            *fate = Fate::Released(now);
            self.loose = true;
        }
        self.pass(now);
    }

    /// The client said goodbye.
    pub(super) fn call_off(&mut self) {
        if let Some((fate @ Fate::Waiting, _)) = self.fates.last_mut() {
            *fate = Fate::CalledOff;
            self.loose = true;
        }
    }

    pub(super) fn committed(&mut self) {
        self.loose = false;
    }

    /// The broker died: it forgets an end that was not committed, and takes the crash for one.
    pub(super) fn crashed(&mut self, now: Instant) {
        let loose = std::mem::take(&mut self.loose);
        self.pass(now);
        if let Some((fate, delay)) = self.fates.last_mut() {
            let comes_anyway = *fate == Fate::Due && delay.is_zero();
            if loose && !comes_anyway {
                *fate = Fate::Unsure;
            }
        }
        self.release(now);
    }

    /// Those whose delay has passed are due.
    pub(super) fn pass(&mut self, now: Instant) {
        for (fate, delay) in &mut self.fates {
            if let Fate::Released(at) = *fate
                && at + *delay <= now
            {
                *fate = Fate::Due;
            }
        }
    }

    /// Holds them against what came [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.3-9].
    pub(super) fn check(&self, got: &[u32]) {
        assert_eq!(firsts(got), got, "a will came twice");
        for (number, (fate, delay)) in (1..).zip(&self.fates) {
            let came = got.contains(&number);
            match fate {
                Fate::Due => assert!(came, "will {number}, delayed by {delay:?}, is lost"),
                Fate::Waiting | Fate::CalledOff => {
                    assert!(!came, "will {number}, delayed by {delay:?}, came: {fate:?}");
                }
                Fate::Released(_) | Fate::Unsure => {}
            }
        }
    }
}
