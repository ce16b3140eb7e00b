//! Promises about power cuts and failing disks, on the system calls of a real run. Driver.
//!
//! Invariant: what clients were told before the cut holds after it; QoS 2 comes exactly once.
//!
//! A child process runs the core on a real file, with clients in memory; see `powercut` for what is
//! done with its calls. After the cut the same clients go on with what they remember.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use powercut::{Call, Ledger as _, Scene, Stage};

use super::{Found, Notice, Store};
use crate::{
    broker::{
        sim::{Client, Disk, Sim, goodbye, hello, id, lasting, subscribe, will},
        simulation::{Dice, Publisher, Subscriber},
    },
    config::{Limits, Persistence},
    packet::{Connect, QoS, SubscribeOptions, Version},
};

/// Long enough for the longest pause between two attempts to write, and a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAM: &str = "store::crash::works_on_a_store_for_the_tests_that_watch_it";
/// Failing calls per run of the tests are every so many; `CRASH_EVERY=1` lets each fail.
const EVERY: usize = 11;
/// Rounds without any news after which nothing is under way any more.
const QUIET: usize = 4;

#[test]
fn a_power_cut_at_any_moment_breaks_no_promise() {
    let scene = Scene::new(PROGRAM);
    let calls = scene.record(250);
    let tallies = powercut::cut(&scene, &calls, verify);
    let tally = tallies.iter().fold(Tally::default(), Tally::and);
    println!("{tally:?}");
    assert!(tally.acknowledged > 0 && tally.redelivered > 0 && tally.wills > 0);
}

#[test]
fn the_proof_by_power_cuts_finds_a_log_that_is_not_synced() {
    let scene = Scene::new(PROGRAM);
    let mut calls = scene.record(60);
    let is_log = |path: &Path| path.to_string_lossy().ends_with("-wal");
    calls.retain(|call| !matches!(call, Call::Sync(path) if is_log(path)));
    let found = powercut::try_cuts(&scene, &calls, (0..powercut::SEEDS).collect(), verify);
    let found = found.expect_err("a seed that loses what was acknowledged");
    assert!(found.starts_with("CRASH_SEED="), "{found}");
}

#[test]
fn a_write_that_fails_once_breaks_no_promise() {
    let every = std::env::var("CRASH_EVERY").map_or(EVERY, |text| text.parse().unwrap());
    let count = Scene::fail(PROGRAM, 40, every, |disk, told| {
        let ledger = Ledger::of(told);
        if ledger.publishers.values().all(|one| one.sent == 0) {
            return Err("nothing was published".to_owned());
        }
        verify(disk, &ledger).map(drop)
    });
    assert!(count > 20, "only {count} calls failed");
    println!("{count} failing calls: no promise was broken");
}

/// The child process: clients come, publish, take, go, and tell what they know.
#[test]
#[ignore = "a process for the tests beside it"]
fn works_on_a_store_for_the_tests_that_watch_it() {
    let stage = Stage::open();
    let mut ledger = Ledger::default();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3 {
        let (sim, store) = serve(&stage.disk.join("broker.db"));
        let mut world = World::new(sim, &ledger);
        world.connect();
        world.tell(&stage, &mut ledger);
        for _ in 0..stage.amount {
            world.step(&mut dice);
            world.tell(&stage, &mut ledger);
        }
        drop(world);
        store.close();
    }
}

/// A core on a real store.
fn serve(path: &Path) -> (Sim, Arc<Store>) {
    let (sender, notices) = mpsc::channel();
    let config = Persistence {
        path: path.to_owned(),
        commit_delay: settings::Period::from_millis(0),
    };
    // A test that has seen enough hears nothing more.
    let tell = Box::new(move |notice| drop(sender.send(notice)));
    let (store, found) = Store::start(&config, tell).unwrap();
    let store = Arc::new(store);
    let mut sim = Sim::storing(limits());
    sim.disk = None;
    match found {
        Found::Stored(stored) => sim.restart(|core, now| core.restore(*stored, now)),
        // An injected failure met the opening.
        Found::Nothing => loop {
            if let Notice::Read(stored) = notices.recv_timeout(PATIENCE).unwrap() {
                break sim.restart(|core, now| core.adopt(*stored, now));
            }
        },
    }
    let (writer, notices) = (Arc::clone(&store), Mutex::new(notices));
    sim.store = Some(Box::new(move |core, now| {
        let notices = notices.lock().unwrap();
        let Some(changes) = core.take_changes() else {
            return;
        };
        let through = changes.through;
        writer.submit(crate::journal::Changes {
            awaited: true,
            ..changes
        });
        loop {
            match notices.recv_timeout(PATIENCE).unwrap() {
                Notice::Committed(number) => {
                    core.handle_committed(number, now);
                    if number >= through {
                        return;
                    }
                }
                Notice::Failing(failing) => core.handle_store_failing(failing),
                Notice::Read(_) | Notice::Lost => panic!("the file was lost"),
            }
        }
    }));
    (sim, store)
}

fn limits() -> Limits {
    Limits {
        in_flight: 4,
        ..Limits::default()
    }
}

/// What the clients know at a moment, in the words of the lines that they tell.
#[derive(Debug, Clone, Default)]
struct Ledger {
    /// All of them have their sessions and subscriptions.
    begun: bool,
    publishers: BTreeMap<String, Sent>,
    subscribers: BTreeMap<String, Got>,
    wills: Wills,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Sent {
    sent: u32,
    open: Vec<(u16, u32, bool)>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Got {
    received: Vec<u16>,
    got: Vec<(String, u32)>,
}

/// The client with a will: number of the last one, and what became of them.
#[derive(Debug, Clone, Default, PartialEq)]
struct Wills {
    last: u32,
    /// Its client is connected.
    standing: bool,
    due: BTreeSet<u32>,
}

impl powercut::Ledger for Ledger {
    fn enter(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["begun"] => self.begun = true,
            ["sent", name, sent, open] => {
                let known = self.publishers.entry(name.to_owned()).or_default();
                known.sent = sent.parse().unwrap();
                known.open = list(open, |entry| {
                    let fields: Vec<u32> = list_by(entry, ':', |field| field.parse().unwrap());
                    (fields[0] as u16, fields[1], fields[2] == 1)
                });
            }
            ["got", name, received, fresh] => {
                let known = self.subscribers.entry(name.to_owned()).or_default();
                known.received = list(received, |id| id.parse().unwrap());
                known.got.extend(list(fresh, |entry| {
                    let (topic, number) = entry.split_once('=').unwrap();
                    (topic.to_owned(), number.parse().unwrap())
                }));
            }
            ["will", last, standing, due] => {
                self.wills = Wills {
                    last: last.parse().unwrap(),
                    standing: standing == "1",
                    due: list(due, |number| number.parse().unwrap())
                        .into_iter()
                        .collect(),
                };
            }
            _ => panic!("{line:?} is no line of ours"),
        }
    }
}

fn list<T>(text: &str, parse: impl Fn(&str) -> T) -> Vec<T> {
    list_by(text, ',', parse)
}

/// An empty list is a dash.
fn list_by<T>(text: &str, separator: char, parse: impl Fn(&str) -> T) -> Vec<T> {
    let entries = text.split(separator).filter(|entry| *entry != "-");
    entries.map(parse).collect()
}

fn listed<T>(entries: impl IntoIterator<Item = T>, say: impl Fn(T) -> String) -> String {
    let said: Vec<String> = entries.into_iter().map(say).collect();
    match said.is_empty() {
        true => "-".to_owned(),
        false => said.join(","),
    }
}

/// Clients and the broker that serves them.
struct World {
    sim: Sim,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    wills: Wills,
    willing: Option<Client>,
}

impl World {
    /// The clients with what they remember.
    fn new(sim: Sim, ledger: &Ledger) -> World {
        let mut publishers = vec![
            Publisher::new("a", Version::V3, "t/a", QoS::AtLeastOnce),
            Publisher::new("b", Version::V5, "t/b", QoS::ExactlyOnce),
            Publisher::new("c", Version::V3, "t/c", QoS::ExactlyOnce),
            Publisher::new("r", Version::V5, "t/r", QoS::AtLeastOnce),
        ];
        publishers[3].retains = true;
        for publisher in &mut publishers {
            let known = ledger.publishers.get(publisher.name);
            let known = known.cloned().unwrap_or_default();
            publisher.sent = known.sent;
            let open = known.open.iter();
            publisher.open = open.map(|(at, n, rec)| (id(*at), *n, *rec)).collect();
            let is_open = |number: &u32| known.open.iter().any(|entry| entry.1 == *number);
            let done = (1..=known.sent).filter(|number| !is_open(number));
            publisher.done = done.collect();
        }
        let mut subscribers = vec![
            Subscriber::new("exact", Version::V5, QoS::ExactlyOnce),
            Subscriber::new("least", Version::V3, QoS::AtLeastOnce),
            Subscriber::new("absent", Version::V5, QoS::ExactlyOnce),
        ];
        for subscriber in &mut subscribers {
            subscriber.subscribed = ledger.begun;
            let known = ledger.subscribers.get(subscriber.name);
            let known = known.cloned().unwrap_or_default();
            subscriber.received = known.received.iter().map(|at| id(*at)).collect();
            for (topic, number) in known.got {
                subscriber.got.entry(topic).or_default().push(number);
            }
        }
        World {
            sim,
            publishers,
            subscribers,
            wills: ledger.wills.clone(),
            willing: None,
        }
    }

    /// All that are to be there; the first time, with their subscriptions.
    fn connect(&mut self) {
        for subscriber in &mut self.subscribers {
            if !subscriber.subscribed {
                subscriber.begin(&mut self.sim);
            } else if subscriber.name != "absent" {
                subscriber.connect(&mut self.sim);
            }
        }
        for publisher in &mut self.publishers {
            publisher.connect(&mut self.sim);
        }
        if let Some(absent) = self.subscribers[2].link.take() {
            self.sim.cut(absent);
        }
        if self.wills.standing {
            self.wills.standing = false;
            self.wills.due.insert(self.wills.last);
        }
    }

    fn step(&mut self, dice: &mut Dice) {
        let publisher = dice.roll(4) as usize;
        let subscriber = dice.roll(2) as usize;
        match dice.roll(12) {
            0..=2 => self.publishers[publisher].publish(&mut self.sim),
            3 | 4 => self.publishers[publisher].read(&mut self.sim),
            5..=7 => self.subscribers[subscriber].read(&mut self.sim),
            8..=9 => self.sim.commit(),
            10 => self.will_client(dice),
            _ => self.come_or_go(publisher, subscriber, dice),
        }
    }

    fn come_or_go(&mut self, publisher: usize, subscriber: usize, dice: &mut Dice) {
        let publisher = &mut self.publishers[publisher];
        match publisher.link {
            None => publisher.connect(&mut self.sim),
            Some(link) if dice.one_in(3) => {
                self.sim.cut(link);
                publisher.link = None;
            }
            Some(_) => {}
        }
        let subscriber = &mut self.subscribers[subscriber];
        match subscriber.link {
            None => subscriber.connect(&mut self.sim),
            Some(link) if dice.one_in(3) => {
                self.sim.cut(link);
                subscriber.link = None;
            }
            Some(_) => {}
        }
    }

    fn will_client(&mut self, dice: &mut Dice) {
        let Some(client) = self.willing.take() else {
            self.wills.last += 1;
            let mut will = will("t/will", None);
            will.qos = QoS::ExactlyOnce;
            will.payload = self.wills.last.to_string().into();
            let connect = Connect {
                will: Some(will),
                ..hello(Version::V5, "willing")
            };
            self.willing = Some(self.sim.connect(connect).0);
            self.wills.standing = true;
            return;
        };
        self.wills.standing = false;
        if dice.one_in(3) {
            self.sim.send(client, goodbye());
        } else {
            self.sim.lose(client);
            self.wills.due.insert(self.wills.last);
        }
    }

    /// Tells what is new about the clients since the ledger's state.
    fn tell(&self, stage: &Stage, ledger: &mut Ledger) {
        let mut lines = Vec::new();
        for publisher in &self.publishers {
            let open = publisher.open.iter();
            let open: Vec<_> = open.map(|(at, n, rec)| (at.value(), *n, *rec)).collect();
            let known = Sent {
                sent: publisher.sent,
                open,
            };
            if ledger.publishers.get(publisher.name) != Some(&known) {
                let open = listed(&known.open, |(at, number, received)| {
                    format!("{at}:{number}:{}", u8::from(*received))
                });
                lines.push(format!("sent {} {} {open}", publisher.name, known.sent));
            }
        }
        for subscriber in &self.subscribers {
            let known = ledger.subscribers.get(subscriber.name);
            let known = known.cloned().unwrap_or_default();
            let received: Vec<u16> = subscriber.received.iter().map(|id| id.value()).collect();
            let mut fresh = Vec::new();
            for (topic, numbers) in &subscriber.got {
                let told = known.got.iter().filter(|entry| entry.0 == *topic).count();
                fresh.extend(numbers[told..].iter().map(|number| (topic, number)));
            }
            if known.received != received || !fresh.is_empty() {
                let received = listed(received, |id| id.to_string());
                let fresh = listed(fresh, |(topic, number)| format!("{topic}={number}"));
                lines.push(format!("got {} {received} {fresh}", subscriber.name));
            }
        }
        if ledger.wills != self.wills {
            let due = listed(&self.wills.due, |number| number.to_string());
            let (last, standing) = (self.wills.last, u8::from(self.wills.standing));
            lines.push(format!("will {last} {standing} {due}"));
        }
        if !ledger.begun {
            lines.push("begun".to_owned());
        }
        for line in lines {
            stage.tell(&line);
            ledger.enter(&line);
        }
    }

    /// Nothing fails any more: everything must come to its end.
    fn settle(&mut self) -> Result<(), String> {
        for subscriber in &mut self.subscribers {
            let (link, present) = self
                .sim
                .connect(lasting(subscriber.version(), subscriber.name));
            if !present {
                return Err(format!("the session of {} is gone", subscriber.name));
            }
            subscriber.link = Some(link);
        }
        for publisher in &mut self.publishers {
            publisher.connect(&mut self.sim);
        }
        let (mut quiet, mut before) = (0, (0, 0));
        while quiet < QUIET {
            for publisher in &mut self.publishers {
                publisher.read(&mut self.sim);
            }
            // Two packets for each message of a window.
            for _ in 0..2 * limits().in_flight {
                for subscriber in &mut self.subscribers {
                    subscriber.read(&mut self.sim);
                }
            }
            self.sim.commit();
            let open = self.publishers.iter().map(|one| one.open.len()).sum();
            let now = (self.count(), open);
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }

    /// Messages that the subscribers have got.
    fn count(&self) -> usize {
        let got = self.subscribers.iter().flat_map(|one| one.got.values());
        got.map(Vec::len).sum()
    }

    fn check(&mut self) -> Result<(), String> {
        for publisher in &self.publishers {
            if !publisher.open.is_empty() {
                return Err(format!("{} waits for {:?}", publisher.name, publisher.open));
            }
            let once = publisher.qos == QoS::ExactlyOnce;
            for subscriber in &self.subscribers {
                let sent: BTreeSet<u32> = (1..=publisher.sent).collect();
                check(subscriber, publisher.topic, &sent, publisher.sent, once)?;
            }
        }
        for subscriber in &self.subscribers {
            // The one after the last may have been on disk before its client knew.
            check(
                subscriber,
                "t/will",
                &self.wills.due,
                self.wills.last + 1,
                true,
            )?;
        }
        let reader = self.sim.client(Version::V5, "reader");
        self.sim.send(
            reader,
            subscribe("t/r", SubscribeOptions::at(QoS::AtMostOnce)),
        );
        let sent = self.publishers[3].sent;
        let expected: Vec<String> = (sent > 0)
            .then(|| format!("t/r={sent}"))
            .into_iter()
            .collect();
        let retained = self.sim.payloads(reader);
        match retained == expected {
            true => Ok(()),
            false => Err(format!("{retained:?} is retained and not {expected:?}")),
        }
    }
}

/// Whether a subscriber has all of `must`, nothing above `last`, in order, and once where it may
/// count on that.
fn check(
    subscriber: &Subscriber,
    topic: &str,
    must: &BTreeSet<u32>,
    last: u32,
    once: bool,
) -> Result<(), String> {
    let who = subscriber.name;
    let got = subscriber.got.get(topic).cloned().unwrap_or_default();
    let firsts: BTreeSet<u32> = got.iter().copied().collect();
    if let Some(lost) = must.iter().find(|number| !firsts.contains(number)) {
        return Err(format!("{who} lacks {lost} of {topic}: {got:?}"));
    }
    if firsts.last().is_some_and(|greatest| *greatest > last) {
        return Err(format!(
            "{who} got {got:?} of {topic}, and {last} was the last"
        ));
    }
    let mut in_order = got.clone();
    let mut seen = BTreeSet::new();
    in_order.retain(|number| seen.insert(*number));
    if !in_order.is_sorted() {
        return Err(format!("{who} got {topic} out of order: {got:?}"));
    }
    if once && who != "least" && in_order != got {
        return Err(format!("{who} got some of {topic} twice: {got:?}"));
    }
    Ok(())
}

/// What the cuts brought, for the record.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    /// Messages acknowledged before the cut: all arrived.
    acknowledged: usize,
    /// Messages that came after the cut only.
    redelivered: usize,
    /// Wills that stood or were due.
    wills: usize,
}

impl Tally {
    fn and(self, other: &Tally) -> Tally {
        Tally {
            acknowledged: self.acknowledged + other.acknowledged,
            redelivered: self.redelivered + other.redelivered,
            wills: self.wills + other.wills,
        }
    }
}

/// Starts the broker on the files, lets the clients go on, and compares.
fn verify(directory: &Path, ledger: &Ledger) -> Result<Tally, String> {
    let (mut sim, store) = serve_read(&directory.join("broker.db"))?;
    store.close();
    if !ledger.begun {
        return Ok(Tally::default());
    }
    // From here on in memory: what follows needs no real disk.
    sim.disk = Some(Disk::default());
    sim.core.handle_store_lost();
    let mut world = World::new(sim, ledger);
    if world.wills.standing {
        world.wills.due.insert(world.wills.last);
    }
    let tally = Tally {
        acknowledged: world.publishers.iter().map(|one| one.done.len()).sum(),
        redelivered: 0,
        wills: world.wills.due.len(),
    };
    let before = world.count();
    world.settle()?;
    world.check()?;
    Ok(Tally {
        redelivered: world.count() - before,
        ..tally
    })
}

fn serve_read(path: &Path) -> Result<(Sim, Arc<Store>), String> {
    let config = Persistence {
        path: path.to_owned(),
        commit_delay: settings::Period::from_millis(0),
    };
    let (store, found) = Store::start(&config, Box::new(|_| ())).unwrap();
    let Found::Stored(stored) = found else {
        return Err("it cannot be opened".to_owned());
    };
    if let Some(salvaged) = store.status().salvaged {
        return Err(format!("it took a salvage: {}", salvaged.damage));
    }
    let mut sim = Sim::storing(limits());
    sim.restart(|core, now| core.restore(*stored, now));
    Ok((sim, Arc::new(store)))
}
