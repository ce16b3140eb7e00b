//! The clients of one run, and what happens to them. Tests only.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Dice,
    model::{Model, number},
    party::Party,
    wills::Wills,
};
use crate::{
    broker::sim::{Sim, Wants},
    config::Limits,
    keeper::Kept,
    packet::{QoS, SubscribeOptions, Version::V3, Version::V5},
    topic::TopicFilter,
};

/// Rounds after which everything must have come to its end.
const ROUNDS: u32 = 2_000;
/// How long the session of "fleeting" outlives its connection.
const FLEETING_S: u32 = 10;

pub(super) struct World {
    sim: Sim,
    dice: Dice,
    parties: Vec<Party>,
    /// Announces a will at each connection.
    mortal: Party,
    wills: Wills,
    model: Model,
    crashes: u32,
    /// When "fleeting" went, unless it is there or a crash has muddled the time.
    fleeting_since: Option<Instant>,
}

fn at(qos: QoS) -> SubscribeOptions {
    SubscribeOptions::at(qos)
}

fn cast() -> Vec<Party> {
    use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
    let no_local = SubscribeOptions {
        no_local: true,
        ..at(AtMostOnce)
    };
    let mut brief = Party::new("x", V5).publishing("t/x", AtLeastOnce);
    brief.message_expiry_s = Some(5);
    vec![
        Party::new("a", V3).publishing("t/a", AtLeastOnce),
        Party::new("b", V5)
            .publishing("t/b", AtLeastOnce)
            .taking("t/#", no_local),
        Party::new("c", V3).publishing("t/c", ExactlyOnce),
        Party::new("d", V5).publishing("t/d", ExactlyOnce),
        Party::new("z", V5).publishing("t/z", AtMostOnce),
        brief,
        Party::new("k", V5).publishing("kept/k", ExactlyOnce),
        Party::new("l", V3).publishing("kept/l", AtLeastOnce),
        Party::new("exact", V5)
            .taking("t/#", at(ExactlyOnce))
            .taking("t/+", at(AtLeastOnce))
            .taking("kept/#", at(ExactlyOnce))
            .taking("will/#", at(ExactlyOnce)),
        Party::new("least", V3).taking("#", at(AtLeastOnce)),
        Party::new("narrow", V5)
            .at_most(2)
            .taking("t/#", at(ExactlyOnce)),
        Party::new("one", V5).taking("$share/g/t/#", at(ExactlyOnce)),
        Party::new("two", V3).taking("$share/g/t/#", at(ExactlyOnce)),
        Party::new("stays", V5).taking("$share/h/t/#", at(AtLeastOnce)),
        Party::new("goes", V5)
            .expiring(0)
            .taking("$share/h/t/#", at(AtLeastOnce)),
        Party::new("fleeting", V5)
            .expiring(FLEETING_S)
            .taking("t/a", at(AtLeastOnce)),
    ]
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let limits = Limits {
            in_flight: 4,
            ..Limits::default()
        };
        let wants = Wants(TopicFilter::parse("kept/#").expect("a filter"));
        let mut world = World {
            sim: Sim::storing_and_keeping(limits, Some(Arc::new(wants))),
            dice: Dice::of(seed),
            parties: cast(),
            mortal: Party::new("m", V5).expiring(1_000),
            wills: Wills::default(),
            model: Model::default(),
            crashes: 0,
            fleeting_since: None,
        };
        for party in &mut world.parties {
            party.connect(&mut world.sim, None);
            while party.carry(&mut world.sim) {}
        }
        world.sim.commit();
        world
    }

    pub(super) fn delivered(&self) -> usize {
        self.model.delivered
    }

    pub(super) fn crashes(&self) -> u32 {
        self.crashes
    }

    /// One thing happens to somebody.
    pub(super) fn step(&mut self) {
        self.notice_closed();
        let which = self.dice.roll(self.parties.len() as u64) as usize;
        match self.dice.roll(32) {
            0..=8 => {
                // Publishers come first in the cast.
                let source = self.dice.roll(8) as usize;
                let retain = source < 4 && self.dice.one_in(4);
                self.parties[source].publish(&mut self.model, retain, &self.sim);
            }
            9..=15 => drop(self.parties[which].carry(&mut self.sim)),
            16..=23 => drop(self.parties[which].read(&mut self.sim, &mut self.model)),
            24 | 25 => self.commit(),
            26 if !self.sim.kept.is_empty() => self.answer_keeper(),
            27 if self.dice.one_in(8) => self.crash(),
            28 => self.pass(),
            29 => self.come_or_go_mortal(),
            _ => self.come_or_go(which),
        }
        if self.dice.one_in(16) {
            self.sim.core.check_invariants();
        }
    }

    /// Whoever the broker sent away knows it.
    fn notice_closed(&mut self) {
        let everybody = self.parties.iter_mut().chain([&mut self.mortal]);
        for party in everybody {
            if party.link.is_some_and(|link| self.sim.is_closed(link)) {
                if party.name == "m" {
                    self.wills.release(self.sim.now);
                }
                party.hang_up();
            }
        }
    }

    fn commit(&mut self) {
        self.sim.commit();
        self.wills.committed();
    }

    fn answer_keeper(&mut self) {
        let refuses = self.dice.one_in(5);
        let answer = match refuses {
            true => Kept::Refused,
            false => Kept::Committed,
        };
        let publication = self.sim.answer_keeper(answer);
        if refuses {
            let message = &publication.message;
            self.model
                .not_kept(message.topic.as_str(), number(&message.payload));
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.sim.crash();
        self.parties.iter_mut().for_each(Party::hang_up);
        self.mortal.hang_up();
        self.wills.crashed(self.sim.now);
        self.fleeting_since = None;
    }

    fn pass(&mut self) {
        let time = Duration::from_millis(100 * self.dice.roll(30));
        self.sim.pass(time);
        self.wills.pass(self.sim.now);
    }

    fn come_or_go(&mut self, which: usize) {
        let party = &mut self.parties[which];
        match party.link {
            Some(link) if self.dice.one_in(6) => {
                match self.dice.roll(3) {
                    0 => party.leave(&mut self.sim),
                    _ => self.sim.cut(link),
                }
                party.hang_up();
                if party.name == "fleeting" {
                    self.fleeting_since = Some(self.sim.now);
                }
            }
            // It has not heard yet that its old connection broke.
            Some(_) if !self.dice.one_in(10) => {}
            _ => self.connect(which),
        }
    }

    fn connect(&mut self, which: usize) {
        let party = &mut self.parties[which];
        let present = party.connect(&mut self.sim, None);
        if party.lasts() {
            assert!(present, "{}'s session is lost", party.name);
        }
        if party.expiry_s() == Some(FLEETING_S)
            && let Some(since) = self.fleeting_since.take()
        {
            let gone = self.sim.now - since;
            let lasts = gone < Duration::from_secs(FLEETING_S.into());
            assert_eq!(present, lasts, "a session of {FLEETING_S} s after {gone:?}");
        }
    }

    fn come_or_go_mortal(&mut self) {
        let now = self.sim.now;
        match self.mortal.link {
            Some(_) if self.dice.one_in(3) => {
                self.mortal.leave(&mut self.sim);
                self.wills.call_off();
            }
            Some(link) if self.dice.one_in(2) => {
                self.sim.cut(link);
                self.mortal.hang_up();
                self.wills.release(now);
            }
            _ => {
                let delay_s = [0, 5][self.dice.roll(2) as usize];
                let number = self
                    .wills
                    .announce(Duration::from_secs(delay_s.into()), now);
                self.mortal.connect(&mut self.sim, Some((number, delay_s)));
            }
        }
    }

    /// Nothing fails any more: everything must come to its end, and delays too.
    pub(super) fn settle(&mut self) {
        self.quieten();
        self.sim.pass(Duration::from_secs(20));
        self.wills.pass(self.sim.now);
        self.quieten();
    }

    fn quieten(&mut self) {
        for _ in 0..ROUNDS {
            self.notice_closed();
            let mut moved = false;
            for which in 0..self.parties.len() {
                if self.parties[which].link.is_none() {
                    self.connect(which);
                    moved = true;
                }
                let party = &mut self.parties[which];
                moved |= party.carry(&mut self.sim);
                moved |= party.read(&mut self.sim, &mut self.model);
            }
            self.commit();
            if !self.sim.kept.is_empty() {
                self.sim.answer_keeper(Kept::Committed);
                moved = true;
            }
            if !moved {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Holds what came against what was promised.
    pub(super) fn check(&mut self) {
        for party in &self.parties {
            assert!(
                party.open.is_empty(),
                "{} waits for {:?}",
                party.name,
                party.open
            );
        }
        let now = self.sim.now;
        for (name, prefix) in [("exact", ""), ("narrow", "t/"), ("least", "")] {
            self.model.check_order(name, name != "least");
            self.model.check_arrival(&[name], prefix, now);
        }
        self.model.check_arrival(&["one", "two"], "t/", now);
        self.model.check_shared_once(&["one", "two"]);
        if self.crashes == 0 {
            // A crash ends sessions that do not last, without an heir.
            self.model.check_arrival(&["stays", "goes"], "t/", now);
        }
        self.wills.check(&self.model.got("exact", "will/m"));
        self.check_late_subscriber();
        let (messages, deliveries, _) = self.sim.disk.as_ref().expect("a disk").counts();
        assert_eq!(deliveries, 0, "the disk keeps what is delivered");
        assert!(
            messages <= 4,
            "the disk keeps {messages} messages for four retained topics"
        );
    }

    fn check_late_subscriber(&mut self) {
        let mut late = Party::new("late", V5)
            .expiring(0)
            .taking("t/#", at(QoS::AtMostOnce));
        late.connect(&mut self.sim, None);
        while late.carry(&mut self.sim) || late.read(&mut self.sim, &mut self.model) {}
        self.model.check_retained("late");
    }
}
