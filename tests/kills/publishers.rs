//! Local publishers that send until they are acknowledged, over every death of the gateway, and what they know of it.
//!
//! Invariant: a number counts as acknowledged when its PUBACK has come, and is sent again until then.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use jiff::Timestamp;

use crate::harness::{
    Recorder,
    mqtt::{self, Frames, kind},
};

/// Topics of the publishers, one each; the rules give them three priorities.
pub(super) const TOPICS: [&str; 4] = [
    "telemetry/urgent/press-1",
    "telemetry/press-2",
    "telemetry/press-3",
    "telemetry/bulk/press-4",
];
/// Below it, each publisher also sends messages that nobody is promised, which wait in memory first.
pub(super) const UNPROMISED: &str = "telemetry/fast/";
/// Messages that a publisher leaves unacknowledged.
pub(super) const WINDOW: usize = 16;
/// Messages acknowledged here and not yet by the upstream, at which the publishers wait: what may be sent twice after
/// a kill is bounded by what waits.
pub(super) const MOST_WAITING: usize = 2_000;
/// Longest wait for an answer before a publisher looks at what else is to be done.
const GLANCE: Duration = Duration::from_millis(2);
/// Longest payload, in bytes beside its number.
const PADDING: u32 = 200;

/// When a number was sent first, and when its acknowledgement came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) first: Timestamp,
    pub(super) acknowledged: Option<Timestamp>,
}

/// What a publisher knows: the numbers from 1 on.
pub(super) type Ledger = Vec<Sent>;

/// The text that stands for a number.
pub(super) fn payload(number: u32) -> String {
    format!("{number} {}", "x".repeat((number * 7 % PADDING) as usize))
}

/// The number in a payload.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    let text = str::from_utf8(payload).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// All of them, at work.
pub(super) struct Publishers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    port: u16,
    recorder: Arc<Recorder>,
    acknowledged: AtomicUsize,
    finishing: AtomicBool,
    abandoned: AtomicBool,
    ledgers: [Mutex<Ledger>; TOPICS.len()],
}

impl Publishers {
    /// Starts a thread for each topic, publishing to the broker on `port`.
    pub(super) fn start(port: u16, recorder: &Arc<Recorder>) -> Publishers {
        let shared = Arc::new(Shared {
            port,
            recorder: Arc::clone(recorder),
            acknowledged: AtomicUsize::new(0),
            finishing: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            ledgers: Default::default(),
        });
        let threads = (0..TOPICS.len()).map(|which| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || Publisher::new(which, shared).run())
        });
        Publishers {
            threads: threads.collect(),
            shared,
        }
    }

    /// Acknowledgements so far.
    pub(super) fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Begins nothing new.
    pub(super) fn finish(&self) {
        self.shared.finishing.store(true, Ordering::SeqCst);
    }

    /// Whether all that was begun is acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// What they know, by topic.
    pub(super) fn ledgers(&self) -> impl Iterator<Item = (&'static str, Ledger)> {
        let ledgers = self.shared.ledgers.iter();
        TOPICS
            .into_iter()
            .zip(ledgers.map(|ledger| lock(ledger).clone()))
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::SeqCst);
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of them.
struct Publisher {
    which: usize,
    shared: Arc<Shared>,
    /// Sent and not acknowledged, by age: packet identifier and number.
    open: Vec<(u16, u32)>,
    next: u32,
}

impl Publisher {
    fn new(which: usize, shared: Arc<Shared>) -> Publisher {
        Publisher {
            which,
            shared,
            open: Vec::new(),
            next: 1,
        }
    }

    fn run(mut self) {
        while !self.is_done() {
            // A kill ends it; the next connection goes on where this one was.
            let _cut = self.exchange();
            thread::sleep(GLANCE);
        }
    }

    fn is_finishing(&self) -> bool {
        self.shared.finishing.load(Ordering::SeqCst)
    }

    fn is_done(&self) -> bool {
        let is_abandoned = self.shared.abandoned.load(Ordering::SeqCst);
        is_abandoned || (self.is_finishing() && self.open.is_empty())
    }

    fn exchange(&mut self) -> Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.shared.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GLANCE))?;
        let mut output = mqtt::connect(&format!("publisher-{}", self.which));
        for &(packet_id, number) in &self.open {
            output.extend(self.publish(packet_id, number));
        }
        let (mut frames, mut piece) = (Frames::default(), vec![0; 4096]);
        while !self.is_done() {
            output.extend(self.fresh());
            stream.write_all(&output)?;
            output.clear();
            match stream.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => frames.push(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            while let Some(frame) = frames.next()? {
                if frame.kind() == kind::PUBACK {
                    let (packet_id, taken) = frame.acknowledged()?;
                    // A refusal is no promise: the message is sent again on the next connection.
                    if taken {
                        self.acknowledged(packet_id);
                    }
                }
            }
        }
        Ok(())
    }

    /// As many new messages as the window takes.
    fn fresh(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        let acknowledged = self.shared.acknowledged.load(Ordering::SeqCst);
        let waiting = acknowledged.saturating_sub(self.shared.recorder.arrived());
        if self.is_finishing() || waiting >= MOST_WAITING {
            return output;
        }
        while self.open.len() < WINDOW {
            let number = self.next;
            let is_free = |id: &u16| self.open.iter().all(|(open, _)| open != id);
            let packet_id = (1..).find(is_free).unwrap_or(1);
            lock(&self.shared.ledgers[self.which]).push(Sent {
                first: Timestamp::now(),
                acknowledged: None,
            });
            self.open.push((packet_id, number));
            self.next += 1;
            output.extend(self.publish(packet_id, number));
        }
        if !output.is_empty() {
            let topic = format!("{UNPROMISED}{}", self.which);
            output.extend(mqtt::publish_at_most_once(&topic, b"at best"));
        }
        output
    }

    fn publish(&self, packet_id: u16, number: u32) -> Vec<u8> {
        mqtt::publish(TOPICS[self.which], packet_id, payload(number).as_bytes())
    }

    fn acknowledged(&mut self, packet_id: u16) {
        let Some(at) = self.open.iter().position(|(open, _)| *open == packet_id) else {
            return;
        };
        let (_, number) = self.open.remove(at);
        let mut ledger = lock(&self.shared.ledgers[self.which]);
        ledger[number as usize - 1].acknowledged = Some(Timestamp::now());
        self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}
