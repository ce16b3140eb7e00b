//! The running buses and serial lines, and which of them a new configuration touches. Shell.
//!
//! Invariant: a bus whose configuration did not change is not paused by a reload.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as SyncMutex, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use tokio::{
    sync::{Mutex, mpsc},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::{Bus, Config, Device, Publish, SerialSensor},
    fieldbus::{
        Command, Event, Refusal,
        lessons::LessonsFile,
        modbus::{self, BusHandle, BusStatus},
        poll::memory::Memories,
        serial::{self, SerialHandle, SerialStatus},
    },
};

use super::presence;

/// How long the last events may take to reach the broker at a stop.
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// How often it is written down at most what devices have taught; only news are.
const REMEMBER_EVERY: Duration = Duration::from_secs(600);

/// Everything that hangs on a wire.
pub(crate) struct Field {
    lessons: Arc<SyncMutex<LessonsFile>>,
    events: mpsc::Sender<Event>,
    lines: Mutex<HashMap<String, Line>>,
    routes: RwLock<Routes>,
}

/// What one task owns, as configured.
#[derive(Clone, PartialEq)]
enum Spec {
    Modbus(Box<Bus>, Vec<Device>),
    Serial(Box<SerialSensor>),
}

impl Spec {
    /// The devices that it reads.
    fn devices(&self) -> Vec<&str> {
        match self {
            Spec::Modbus(_, devices) => devices.iter().map(|device| &*device.name).collect(),
            Spec::Serial(sensor) => vec![&sensor.name],
        }
    }

    /// Its devices of which nothing is known: all but those that were read in the same way
    /// `before`.
    fn unheard(&self, before: Option<&Spec>) -> Vec<&str> {
        match (self, before) {
            (Spec::Modbus(bus, devices), Some(Spec::Modbus(old_bus, old))) if bus == old_bus => {
                let new = devices.iter().filter(|device| !old.contains(device));
                new.map(|device| &*device.name).collect()
            }
            _ => self.devices(),
        }
    }
}

struct Line {
    spec: Spec,
    handle: Handle,
    cancel: CancellationToken,
}

#[derive(Clone)]
enum Handle {
    Modbus(BusHandle),
    Serial(SerialHandle),
}

/// What the rest of the appliance asks while the lines run.
#[derive(Default)]
struct Routes {
    commands: HashMap<String, Handle>,
    /// Each bus, and whether requests that people write down themselves may go over it.
    requests: HashMap<String, (BusHandle, bool)>,
    publish: HashMap<String, Publish>,
    buses: Vec<BusHandle>,
    serials: Vec<SerialHandle>,
}

impl Field {
    /// An empty field that reports to `events`, with what devices taught before.
    pub(crate) fn new(events: mpsc::Sender<Event>, lessons: LessonsFile) -> Field {
        Field {
            lessons: Arc::new(SyncMutex::new(lessons)),
            events,
            lines: Mutex::default(),
            routes: RwLock::default(),
        }
    }

    /// Stops what changed or went, starts what changed or came; returns their names.
    pub(crate) async fn apply(&self, config: &Config) -> Vec<String> {
        self.remember().await;
        let wanted = specs(config);
        let mut lines = self.lines.lock().await;
        let gone: Vec<String> = lines
            .iter()
            .filter(|(name, line)| wanted.get(*name) != Some(&line.spec))
            .map(|(name, _)| name.clone())
            .collect();
        let mut before = HashMap::new();
        for (name, line) in gone.iter().filter_map(|name| lines.remove_entry(name)) {
            before.insert(name, line.spec.clone());
            line.stop().await;
        }
        let names = presence::names(config);
        for device in before.values().flat_map(Spec::devices) {
            if !names.contains(device) {
                self.tell(presence::removed(device)).await;
            }
        }
        let mut changed = gone;
        for (name, spec) in wanted {
            if !lines.contains_key(&name) {
                for device in spec.unheard(before.get(&name)) {
                    self.tell(presence::unheard(device)).await;
                }
                lines.insert(name.clone(), self.start(spec));
                changed.push(name);
            }
        }
        changed.sort();
        changed.dedup();
        let routes = Routes::new(config, &lines);
        *self
            .routes
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = routes;
        changed
    }

    /// Hands an event on; nobody takes it any more only while the appliance stops.
    pub(crate) async fn tell(&self, event: Event) {
        let _stopping = self.events.send(event).await;
    }

    fn start(&self, spec: Spec) -> Line {
        let cancel = CancellationToken::new();
        let handle = match &spec {
            Spec::Modbus(bus, devices) => {
                info!(bus = %bus.name, devices = devices.len(), "bus started");
                Handle::Modbus(modbus::start(
                    (**bus).clone(),
                    devices.clone(),
                    locked(&self.lessons).memories(),
                    self.events.clone(),
                    cancel.clone(),
                ))
            }
            Spec::Serial(sensor) => {
                info!(device = %sensor.name, port = %sensor.port.display(), "serial line started");
                Handle::Serial(serial::start(
                    (**sensor).clone(),
                    self.events.clone(),
                    cancel.clone(),
                ))
            }
        };
        Line {
            spec,
            handle,
            cancel,
        }
    }

    /// Writes down from time to time what devices have taught; until dropped.
    pub(crate) async fn keep_lessons(self: Arc<Field>) {
        loop {
            sleep(REMEMBER_EVERY).await;
            self.remember().await;
        }
    }

    async fn remember(&self) {
        let buses = self.routes().buses.clone();
        if buses.is_empty() {
            return;
        }
        let memories: Memories = buses.iter().flat_map(BusHandle::memories).collect();
        let lessons = Arc::clone(&self.lessons);
        // What keeps it from being written is logged there.
        let written = spawn_blocking(move || drop(locked(&lessons).write(memories))).await;
        if let Err(error) = written {
            warn!(%error, "what devices have taught was not written down");
        }
    }

    /// Forgets what a device has taught, here and on the disk; `false` where no bus has it.
    pub(crate) async fn forget(&self, device: &str) -> bool {
        let buses = self.routes().buses.clone();
        let known = buses.iter().any(|bus| bus.forget(device));
        if known {
            info!(device, "forgot what the device has taught");
            self.remember().await;
        }
        known
    }

    /// Stops every line, tells so of its devices, and waits a moment until that is published.
    pub(crate) async fn stop(&self) {
        self.remember().await;
        let mut silent = Vec::new();
        for (_, line) in self.lines.lock().await.drain() {
            silent.extend(line.spec.devices().into_iter().map(presence::stopped));
            line.stop().await;
        }
        let everything = self.events.max_capacity();
        let told = async {
            for event in silent {
                self.tell(event).await;
            }
            // What was taken is published for certain once what came after it is taken.
            self.tell(Event::Readings(Vec::new())).await;
            // All places are free only when nothing waits.
            self.events.reserve_many(everything).await.map(drop)
        };
        // Who takes events may be gone already.
        let _late = timeout(LAST_EVENTS, told).await;
    }

    /// Hands a command to the line of its device.
    ///
    /// # Errors
    /// Gives the command back with the reason: no such device, or its line has too many waiting.
    pub(crate) fn command(&self, command: Command) -> Result<(), Box<Refusal>> {
        let refuse = |command, reason| Err(Box::new(Refusal { command, reason }));
        let routes = self.routes();
        let Some(line) = routes.commands.get(&*command.device) else {
            let reason = format!("no device is named {:?}", command.device);
            return refuse(command, reason);
        };
        match line.command(command) {
            Ok(()) => Ok(()),
            Err(command) => refuse(command, "too many commands wait for its line".to_owned()),
        }
    }

    /// The bus for a request that somebody wrote down himself.
    ///
    /// # Errors
    /// There is no such bus, or the configuration does not open it to such requests.
    pub(crate) fn open_to_requests(&self, bus: &str) -> Result<BusHandle, String> {
        match self.routes().requests.get(bus) {
            None => Err(format!("no bus is named {bus:?}")),
            Some((_, false)) => Err(format!(
                "bus {bus:?} takes no such requests; `raw_requests = true` at the bus would permit them"
            )),
            Some((bus, true)) => Ok(bus.clone()),
        }
    }

    /// How readings of `device` become messages.
    pub(crate) fn publish_mode(&self, device: &str) -> Publish {
        self.routes()
            .publish
            .get(device)
            .copied()
            .unwrap_or_default()
    }

    /// The running bus of that name.
    pub(crate) fn bus(&self, name: &str) -> Option<BusHandle> {
        let routes = self.routes();
        routes.buses.iter().find(|bus| bus.name() == name).cloned()
    }

    /// State of every bus.
    pub(crate) fn buses(&self) -> Vec<BusStatus> {
        self.routes().buses.iter().map(BusHandle::status).collect()
    }

    /// State of every serial line.
    pub(crate) fn serials(&self) -> Vec<SerialStatus> {
        self.routes()
            .serials
            .iter()
            .map(SerialHandle::status)
            .collect()
    }

    /// Whether every line's task still runs.
    pub(crate) fn is_alive(&self) -> bool {
        let routes = self.routes();
        routes.buses.iter().all(BusHandle::is_running)
            && routes.serials.iter().all(SerialHandle::is_running)
    }

    fn routes(&self) -> RwLockReadGuard<'_, Routes> {
        self.routes
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Routes {
    fn new(config: &Config, lines: &HashMap<String, Line>) -> Routes {
        let mut routes = Routes::default();
        for (name, line) in lines {
            match &line.handle {
                Handle::Modbus(bus) => routes.buses.push(bus.clone()),
                Handle::Serial(serial) => {
                    routes.serials.push(serial.clone());
                    routes.commands.insert(name.clone(), line.handle.clone());
                }
            }
        }
        for bus in &config.buses {
            if let Some(Handle::Modbus(handle)) = lines.get(&bus.name).map(|line| &line.handle) {
                let request = (handle.clone(), bus.raw_requests);
                routes.requests.insert(bus.name.clone(), request);
            }
        }
        for device in &config.devices {
            routes.publish.insert(device.name.clone(), device.publish);
            match lines.get(&device.bus).map(|line| &line.handle) {
                Some(Handle::Modbus(bus)) => {
                    let handle = Handle::Modbus(bus.clone());
                    routes.commands.insert(device.name.clone(), handle);
                }
                _ => warn!(device = %device.name, bus = %device.bus, "device is on no bus"),
            }
        }
        routes
    }
}

impl Handle {
    /// Gives the command back when too many wait, or the line has ended.
    #[expect(clippy::result_large_err, reason = "the command itself is given back")]
    fn command(&self, command: Command) -> Result<(), Command> {
        match self {
            Handle::Modbus(bus) => bus.command(command),
            Handle::Serial(serial) => serial.command(command),
        }
    }
}

impl Line {
    async fn stop(self) {
        self.cancel.cancel();
        match self.handle {
            Handle::Modbus(bus) => bus.stopped().await,
            Handle::Serial(serial) => serial.stopped().await,
        }
    }
}

fn locked(lessons: &SyncMutex<LessonsFile>) -> std::sync::MutexGuard<'_, LessonsFile> {
    lessons.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One task's worth of configuration each, by the name of the bus or the sensor.
fn specs(config: &Config) -> HashMap<String, Spec> {
    let buses = config.buses.iter().map(|bus| {
        let devices = config
            .devices
            .iter()
            .filter(|device| device.bus == bus.name)
            .cloned()
            .collect();
        (
            bus.name.clone(),
            Spec::Modbus(Box::new(bus.clone()), devices),
        )
    });
    let serials = config
        .serials
        .iter()
        .map(|sensor| (sensor.name.clone(), Spec::Serial(Box::new(sensor.clone()))));
    buses.chain(serials).collect()
}
