//! One installation from beginning to end, in a thread of its own, which others watch. Driver.
//!
//! Invariant: the slot is marked as partly written before its first byte changes, and as written after all of it was read back.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use jiff::Timestamp;
use tuf::directory::replace_file;

use super::{
    InstallError,
    image::{Image, failure},
    staging::{self, Staging},
    verify::{Taste, Verified, remember, remembered, verify},
    write::{Observer, Supplies, read_back, write},
};
use crate::{
    journal::{Content, Release},
    machine::Machine,
    protocol::{Progress, Work},
    slots::Slot,
    trial,
    trust::{Trust, clock::DeviceClock},
};

/// Where everything is, as root configured it.
#[derive(Debug, Clone)]
pub struct Places {
    /// Devices or files of slot A and slot B.
    pub slots: [PathBuf; 2],
    /// What the gateway leaves for us.
    pub staging: PathBuf,
    /// What the updater remembers, for root alone.
    pub directory: PathBuf,
}

impl Places {
    /// The device of a slot.
    pub fn slot(&self, slot: Slot) -> &PathBuf {
        &self.slots[usize::from(slot == Slot::B)]
    }

    /// The vendor's approval of the security floor that the release in a slot asks for.
    pub fn floor_approval(&self, slot: Slot) -> PathBuf {
        self.directory.join(format!("slot-{slot}.floor.json"))
    }

    /// The list of what is in a slot's release.
    pub fn sbom(&self, slot: Slot) -> PathBuf {
        self.directory.join(format!("slot-{slot}.sbom"))
    }
}

/// All that an installation needs.
#[derive(Clone)]
pub struct Kit {
    /// Where.
    pub places: Places,
    /// What this device takes.
    pub taste: Taste,
    /// Who vouches.
    pub trust: Trust,
    /// When this program was built: the least that the time can be.
    pub build: Timestamp,
    /// Shared with who answers requests.
    pub machine: Arc<Mutex<Machine>>,
}

impl Kit {
    /// The machine, for as long as nobody else looks at it or changes it.
    pub fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the installation is, for all threads.
#[derive(Debug)]
struct Shared {
    work: Mutex<Work>,
    stop: AtomicBool,
    /// Rises with each step.
    beats: AtomicU64,
}

impl Observer for Shared {
    fn tell(&self, work: Work) {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = work;
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The installation under way, or the last one.
#[derive(Debug)]
pub struct Job {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Default for Job {
    fn default() -> Job {
        Job {
            shared: Arc::new(Shared {
                work: Mutex::new(Work::Idle {}),
                stop: AtomicBool::new(false),
                beats: AtomicU64::new(0),
            }),
            thread: None,
        }
    }
}

impl Job {
    /// Begins an installation, unless one is under way.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn begin(&mut self, kit: Kit) -> std::io::Result<()> {
        if self.is_under_way() {
            return Ok(());
        }
        self.shared.tell(Work::Verifying {});
        let shared = Arc::clone(&self.shared);
        let run = move || {
            let mut release = None;
            let work = match install(&kit, shared.as_ref(), &mut release) {
                Ok(progress) => {
                    tracing::info!(version = progress.release.version, "release installed");
                    Work::Installed(progress)
                }
                Err(error) => {
                    tracing::warn!(%error, "no release was installed");
                    Work::Failed {
                        release,
                        why: error.to_string(),
                        security: error.is_security(),
                        missing: error.missing().to_vec(),
                    }
                }
            };
            shared.tell(work);
        };
        let begun = thread::Builder::new().name("install".into()).spawn(run);
        if begun.is_err() {
            self.shared.tell(Work::Idle {});
        }
        self.thread = Some(begun?);
        Ok(())
    }

    /// Whether one is under way.
    pub fn is_under_way(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// How far it is, or what came of the last one.
    pub fn work(&self) -> Work {
        self.shared
            .work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Rises as long as it gets on.
    pub fn beats(&self) -> u64 {
        self.shared.beats.load(Ordering::Relaxed)
    }

    /// Ends it where it is, and waits for that.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It tells of its own end.
            let _ = thread.join();
        }
    }
}

/// Installs what is staged. `release` is told as soon as it is known.
///
/// # Errors
/// Whatever kept the release from being installed.
pub fn install(
    kit: &Kit,
    observer: &dyn Observer,
    release: &mut Option<Release>,
) -> Result<Progress, InstallError> {
    let places = &kit.places;
    let staging = Staging::open(&places.staging).map_err(|source| InstallError::Staging {
        name: ".".to_owned(),
        source,
    })?;
    let clock = DeviceClock::load(kit.build, &places.directory);
    let verified = verify(&staging, &kit.taste, &kit.trust, &clock, &places.directory)?;
    *release = Some(verified.index.release());
    let slot = begin(kit, &verified)?;
    let mut image = Image::write(places.slot(slot), verified.index.about().image_size)?;
    let there = remembered(&places.directory, slot);
    let running = remembered(&places.directory, slot.other());
    remember(&places.directory, slot, &verified.index)?;
    let supplies = Supplies {
        release: &verified,
        // After an interruption all that was written may be in its place.
        there: there.as_ref(),
        running: match &running {
            Some(index) => Some((index, Image::read(places.slot(slot.other()))?)),
            None => None,
        },
        staging: &staging,
    };
    let mut progress = write(supplies, &mut image, observer)?;
    read_back(&verified.index, &mut image, &mut progress, observer)?;
    keep_papers(places, slot, &staging, &verified)?;
    let mut machine = kit.machine();
    let plan = trial::written(machine.look()?.view())?;
    machine.carry_out(plan)?;
    Ok(progress)
}

/// Marks the other slot as partly written, and says which it is.
fn begin(kit: &Kit, verified: &Verified) -> Result<Slot, InstallError> {
    let release = verified.index.release();
    let mut machine = kit.machine();
    let seen = machine.look()?;
    if *seen.running() == release {
        return Err(InstallError::Runs(release.version));
    }
    let slot = seen.booted.other();
    let is_begun = matches!(
        seen.journal.of(slot), Content::Writing { release: begun } if *begun == release
    );
    let plan = trial::begin(seen.view(), release)?;
    if !is_begun {
        machine.carry_out(plan)?;
    }
    Ok(slot)
}

/// What belongs to a release beside its image. The approval is judged by the TPM, when it is needed.
fn keep_papers(
    places: &Places,
    slot: Slot,
    staging: &Staging,
    verified: &Verified,
) -> Result<(), InstallError> {
    let read = |name: &str, limit| {
        let read = staging.read(name, limit);
        read.map_err(|source| InstallError::Staging {
            name: name.to_owned(),
            source,
        })
    };
    let approval = read(staging::FLOOR_APPROVAL, tpm::APPROVAL_MAX)?;
    keep(&places.floor_approval(slot), approval)?;
    let about = verified.index.about();
    let sbom = match about.sbom {
        Some(listed) => read(staging::SBOM, u64::from(listed.length))?
            .filter(|text| crate::release::sha256(&[text]) == listed.sha256),
        None => None,
    };
    keep(&places.sbom(slot), sbom)
}

fn keep(path: &PathBuf, bytes: Option<Vec<u8>>) -> Result<(), InstallError> {
    use std::{io::Write, os::unix::fs::PermissionsExt};
    let kept = match bytes {
        Some(bytes) => replace_file(path, |file| {
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.write_all(&bytes)
        }),
        None => match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    };
    kept.map_err(failure("write", path))
}
