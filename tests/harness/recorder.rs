//! Stands between the gateway and its upstream, relays every byte, and notes what is published and what the upstream
//! acknowledges.
//!
//! Invariant: a message counts as acknowledged when the upstream's own PUBACK has been read here, whatever becomes of
//! the upstream, of that PUBACK or of the gateway afterwards.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, ensure};

use super::mqtt::{Frames, Publish, kind};

/// Bytes relayed at once.
const PIECE: usize = 64 * 1024;
/// The only protocol whose messages bear their number.
const MQTT_5: u8 = 5;

/// One PUBLISH on its way to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passage {
    /// Upstream topic.
    pub(crate) topic: String,
    /// The number within the topic; none for what the gateway says itself, such as gap markers.
    pub(crate) seq: Option<u64>,
    /// When the gateway received it.
    pub(crate) time: Option<String>,
    /// As published.
    pub(crate) payload: Vec<u8>,
    /// Over which of the links, counted from 1.
    pub(crate) link: u32,
    /// Which life of the upstream acknowledged it, counted from 1.
    pub(crate) acknowledged_by: Option<u32>,
}

/// See the module's description.
pub(crate) struct Recorder {
    /// Where the gateway finds its upstream.
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: u16,
    /// Whether links are let through at all.
    open: AtomicBool,
    ended: AtomicBool,
    links: AtomicU32,
    /// Which life of the upstream this is.
    life: AtomicU32,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    passages: Vec<Passage>,
    /// Topics and numbers that the upstream has acknowledged.
    arrived: HashSet<(String, u64)>,
    /// What could not be understood; nothing may.
    faults: Vec<String>,
    /// The gateway's process behind each link.
    processes: BTreeMap<u32, u32>,
    process: u32,
}

impl Recorder {
    /// Listens on `port` for links to the upstream's port; closed until [`Self::open`].
    pub(crate) fn start(port: u16, upstream: u16) -> Result<Recorder> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let shared = Arc::new(Shared {
            upstream,
            open: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            links: AtomicU32::new(0),
            life: AtomicU32::new(0),
            log: Mutex::default(),
        });
        let relaying = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &relaying));
        Ok(Recorder { port, shared })
    }

    /// The upstream lives, and whoever listens behind it does.
    pub(crate) fn open(&self) {
        self.shared.life.fetch_add(1, Ordering::SeqCst);
        self.shared.open.store(true, Ordering::SeqCst);
    }

    /// The upstream is about to die.
    pub(crate) fn close(&self) {
        self.shared.open.store(false, Ordering::SeqCst);
    }

    /// The gateway was killed; links from now on are of another process.
    pub(crate) fn gateway_died(&self) {
        self.shared.log().process += 1;
    }

    /// How many messages the upstream has acknowledged, once or more often.
    pub(crate) fn arrived(&self) -> usize {
        self.shared.log().arrived.len()
    }

    /// Which life of the upstream this is.
    pub(crate) fn life(&self) -> u32 {
        self.shared.life.load(Ordering::SeqCst)
    }

    /// Shows everything that passed, in order, and which process of the gateway was behind each link.
    pub(crate) fn read<T>(
        &self,
        look: impl FnOnce(&[Passage], &BTreeMap<u32, u32>) -> Result<T>,
    ) -> Result<T> {
        let log = self.shared.log();
        ensure!(log.faults.is_empty(), "the recorder: {:?}", log.faults);
        look(&log.passages, &log.processes)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is over.
        let _woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, error: &anyhow::Error) {
        self.log().faults.push(format!("{error:#}"));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for gateway in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        // One that went away before it was accepted comes again.
        let Ok(gateway) = gateway else { continue };
        if !shared.open.load(Ordering::SeqCst) {
            continue;
        }
        // The upstream may just have died.
        let Ok(upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream)) else {
            continue;
        };
        if let Err(error) = relay(gateway, upstream, shared) {
            shared.fault(&error);
        }
    }
}

/// Starts both directions.
fn relay(gateway: TcpStream, upstream: TcpStream, shared: &Arc<Shared>) -> Result<()> {
    gateway.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let link = shared.links.fetch_add(1, Ordering::SeqCst) + 1;
    let life = shared.life.load(Ordering::SeqCst);
    {
        let mut log = shared.log();
        let process = log.process;
        log.processes.insert(link, process);
    }
    let waiting: Arc<Mutex<HashMap<u16, usize>>> = Arc::default();
    let up = Direction {
        from: gateway.try_clone()?,
        to: upstream.try_clone()?,
        shared: Arc::clone(shared),
        waiting: Arc::clone(&waiting),
    };
    let down = Direction {
        from: upstream,
        to: gateway,
        shared: Arc::clone(shared),
        waiting,
    };
    thread::spawn(move || up.run(|direction, frames| direction.note_publishes(frames, link)));
    thread::spawn(move || down.run(|direction, frames| direction.note_answers(frames, life)));
    Ok(())
}

/// One way of one link.
struct Direction {
    from: TcpStream,
    to: TcpStream,
    shared: Arc<Shared>,
    /// Places in the log of what waits for its PUBACK, by packet identifier.
    waiting: Arc<Mutex<HashMap<u16, usize>>>,
}

impl Direction {
    /// Until either end goes: what is read is noted first, then passed on.
    fn run(mut self, note: impl Fn(&Direction, &mut Frames) -> Result<()>) {
        let (mut frames, mut piece) = (Frames::default(), vec![0; PIECE]);
        while let Ok(count @ 1..) = self.from.read(&mut piece) {
            frames.push(&piece[..count]);
            if let Err(error) = note(&self, &mut frames) {
                self.shared.fault(&error);
                break;
            }
            if self.to.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        // Whichever is gone already.
        let _gone = self.from.shutdown(Shutdown::Both);
        let _gone = self.to.shutdown(Shutdown::Both);
    }

    fn note_publishes(&self, frames: &mut Frames, link: u32) -> Result<()> {
        while let Some(frame) = frames.next()? {
            match frame.kind() {
                kind::CONNECT => {
                    ensure!(frame.protocol_level()? == MQTT_5, "a link without MQTT 5")
                }
                kind::PUBLISH => self.enter(frame.publish(MQTT_5)?, link),
                _ => {}
            }
        }
        Ok(())
    }

    fn enter(&self, publish: Publish, link: u32) {
        let property = |name: &str| {
            let found = publish.user.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        let passage = Passage {
            seq: property("seq").and_then(|seq| seq.parse().ok()),
            time: property("time"),
            link,
            acknowledged_by: None,
            topic: publish.topic,
            payload: publish.payload,
        };
        let mut log = self.shared.log();
        let place = log.passages.len();
        log.passages.push(passage);
        self.waiting().insert(publish.packet_id, place);
    }

    fn note_answers(&self, frames: &mut Frames, life: u32) -> Result<()> {
        while let Some(frame) = frames.next()? {
            if frame.kind() != kind::PUBACK {
                continue;
            }
            let (packet_id, taken) = frame.acknowledged()?;
            let place = self.waiting().remove(&packet_id);
            let place = place.with_context(|| format!("a PUBACK {packet_id} for nothing"))?;
            if taken {
                let mut log = self.shared.log();
                let passage = &mut log.passages[place];
                passage.acknowledged_by = Some(life);
                let arrived = passage.seq.map(|seq| (passage.topic.clone(), seq));
                log.arrived.extend(arrived);
            }
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u16, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
