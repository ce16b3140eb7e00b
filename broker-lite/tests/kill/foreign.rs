//! Promise: subscribers that others wrote get every message over kills of the broker, in order.
//!
//! `mosquitto_sub` follows at QoS 1 only. At QoS 2 libmosquitto (2.0.11) puts a PUBLISH that comes
//! again, as it must where the broker died before the PUBREC was on disk, a second time into its list
//! and takes only one out at PUBREL, against [MQTT-4.3.3-10]: the next message under that identifier
//! is answered with the old one, and the receive maximum is used up for good.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use broker_lite::packet::QoS;

use crate::{
    clients::{Ledger, Publisher},
    place::{Place, wait_until},
    python::python,
};

/// Kills of the broker; mosquitto_sub waits a second after each before it comes back.
const ROUNDS: u64 = 6;
/// Messages in a round.
const MESSAGES: usize = 50;

#[test]
fn mosquittos_subscriber_gets_every_message_over_kills() {
    let place = Place::new("broker.db");
    let mut program = Command::new("mosquitto_sub");
    program
        .args(["-V", "311", "-h", "127.0.0.1", "-p"])
        .arg(place.port.to_string())
        .args(["-i", "foreign", "-c", "-q", "1", "-t", "t/#"]);
    let got = over_kills(&place, program);
    let mut seen = BTreeSet::new();
    let firsts = got
        .numbers
        .into_iter()
        .filter(|number| seen.insert(*number));
    assert!(firsts.eq(1..=got.last), "some lack, or are out of order");
}

#[test]
fn pahos_subscriber_gets_every_message_exactly_once_over_kills() {
    let place = Place::new("broker.db");
    let mut program = Command::new(python());
    program
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kill/follow.py"))
        .arg(place.port.to_string());
    let got = over_kills(&place, program);
    let expected: Vec<u32> = (1..=got.last).collect();
    assert_eq!(got.numbers, expected);
}

/// What a subscriber printed, and the number that was published last.
struct Got {
    numbers: Vec<u32>,
    last: u32,
}

/// Has the program, which prints payloads of `t/#`, follow a publisher at QoS 2.
fn over_kills(place: &Place, program: Command) -> Got {
    let port = place.port;
    let mut broker = place.start();
    let foreign = Foreign::start(program);
    wait_until("it has subscribed", || {
        Publisher::once(port, "t/begin", None);
        !foreign.numbers().is_empty()
    });
    let ledger = Arc::new(Ledger::default());
    let publisher = Publisher::new("p", "t/2", QoS::ExactlyOnce);
    let shared = Arc::clone(&ledger);
    let task = thread::spawn(move || publisher.run(port, &shared));
    for round in 1..=ROUNDS {
        let target = foreign.numbers().len() + MESSAGES;
        wait_until(&format!("round {round} brings messages"), || {
            foreign.numbers().len() > target
        });
        drop(broker);
        broker = place.start();
    }
    ledger.finish();
    task.join().unwrap();
    let last = ledger.sent_last("t/2");
    wait_until("the last message arrives", || {
        foreign.numbers().contains(&last)
    });
    let mut numbers = foreign.end();
    // Those of t/begin.
    numbers.retain(|number| *number > 0);
    Got { numbers, last }
}

/// A subscriber's process, and what it has printed.
struct Foreign {
    process: Child,
    printed: Arc<Mutex<Vec<u32>>>,
    reader: JoinHandle<()>,
}

impl Foreign {
    fn start(mut program: Command) -> Foreign {
        let mut process = program
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub and paho are installed: cargo xtask setup");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let printed: Arc<Mutex<Vec<u32>>> = Arc::default();
        let prints = Arc::clone(&printed);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                prints.lock().unwrap().push(line.parse().unwrap());
            }
        });
        Foreign {
            process,
            printed,
            reader,
        }
    }

    fn numbers(&self) -> Vec<u32> {
        self.printed.lock().unwrap().clone()
    }

    /// Ends it, and gives everything that it printed.
    fn end(mut self) -> Vec<u32> {
        let _ended = self.process.kill();
        self.process.wait().unwrap();
        self.reader.join().unwrap();
        self.printed.lock().unwrap().clone()
    }
}
