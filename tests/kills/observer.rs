//! Who listens behind the upstream: a plain MQTT client of the real Mosquitto.
//!
//! Mosquitto acknowledges a message before it is delivered and forgets it when it is killed; what is heard here is
//! therefore compared only for lives of Mosquitto that were not cut short.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::harness::mqtt::{self, Frames, kind};

use super::publishers;

const GLANCE: Duration = Duration::from_millis(5);

/// A topic and the number in its payload.
pub(super) type Heard = BTreeSet<(String, u32)>;

/// See the module's description.
pub(super) struct Observer(Arc<Shared>);

struct Shared {
    port: u16,
    /// How many subscriptions were granted so far.
    subscriptions: AtomicU32,
    ended: AtomicBool,
    heard: Mutex<Heard>,
}

impl Observer {
    /// Listens at the broker on `port`, as soon as it is there and whenever it is there again.
    pub(super) fn start(port: u16) -> Observer {
        let shared = Arc::new(Shared {
            port,
            subscriptions: AtomicU32::new(0),
            ended: AtomicBool::new(false),
            heard: Mutex::default(),
        });
        let listening = Arc::clone(&shared);
        thread::spawn(move || {
            while !listening.ended.load(Ordering::SeqCst) {
                // Mosquitto's death ends it.
                let _cut = listening.listen();
                thread::sleep(GLANCE);
            }
        });
        Observer(shared)
    }

    /// How many subscriptions were granted so far.
    pub(super) fn subscriptions(&self) -> u32 {
        self.0.subscriptions.load(Ordering::SeqCst)
    }

    /// How much came.
    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Leaves of `expected` what has not come.
    pub(super) fn retain_unheard(&self, expected: &mut Heard) {
        let heard = self.0.lock();
        expected.retain(|message| !heard.contains(message));
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self) -> Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GLANCE))?;
        stream.write_all(&[mqtt::connect("observer"), mqtt::subscribe("#")].concat())?;
        let (mut frames, mut piece) = (Frames::default(), vec![0; 64 * 1024]);
        while !self.ended.load(Ordering::SeqCst) {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => frames.push(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            let mut answers = Vec::new();
            while let Some(frame) = frames.next()? {
                match frame.kind() {
                    kind::CONNACK => ensure!(frame.is_welcome(), "refused"),
                    kind::SUBACK => {
                        ensure!(frame.is_welcome(), "subscription refused");
                        self.subscriptions.fetch_add(1, Ordering::SeqCst);
                    }
                    kind::PUBLISH => {
                        let publish = frame.publish(4)?;
                        if publish.packet_id > 0 {
                            answers.extend(mqtt::puback(publish.packet_id));
                        }
                        if let Some(number) = publishers::number(&publish.payload) {
                            self.lock().insert((publish.topic, number));
                        }
                    }
                    _ => {}
                }
            }
            stream.write_all(&answers)?;
        }
        Ok(())
    }
}
