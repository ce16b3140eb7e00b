//! An update from beginning to end: fetches, has each file checked, and persists it, in the order of the
//! specification's chapter 5.
//!
//! Invariant: a file is persisted after its checks and before the next is fetched, so that a stop anywhere leaves a
//! directory from which the next update goes on. A driver of [`Trusted`] and [`Search`].

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::directory::{Directory, StoreFailure, TargetFolder};
use crate::failure::UpdateError;
use crate::fetch::{FetchFailure, Fetcher, copy_target, read_metadata};
use crate::floor::{Floor, FloorFailure, FloorStore};
use crate::limits::{
    MAX_APPROVAL_BYTES, MAX_ROOT_BYTES, MAX_ROOTS_PER_UPDATE, MAX_SNAPSHOT_BYTES,
    MAX_TARGETS_BYTES, MAX_TIMESTAMP_BYTES,
};
use crate::metadata::{FileMeta, Target, Targets, check_target_path};
use crate::names;
use crate::refusal::Refusal;
use crate::search::{Search, Wanted};
use crate::time::{Clock, Now};
use crate::trusted::{Change, Context, RootChain, Trusted};
use crate::verify::Verifier;

/// Who decides beside the metadata themselves.
#[derive(Clone, Copy)]
pub struct Judges<'a> {
    /// Checks signatures.
    pub verifier: &'a dyn Verifier,
    /// Tells the time.
    pub clock: &'a dyn Clock,
}

/// Puts the root that came with the device into an empty directory (5.2).
///
/// # Errors
/// When it is not signed by itself, or cannot be written, or when a root is there: to replace that one would undo
/// every root that was followed since.
pub fn init(directory: &Directory, root: &[u8], judges: Judges<'_>) -> Result<(), UpdateError> {
    let context = Context {
        verifier: judges.verifier,
        now: judges.clock.now(),
        floor: Floor::default(),
    };
    RootChain::load(root, context)?;
    let name = names::local("root");
    if directory.read(&name, MAX_ROOT_BYTES)?.is_some() {
        return Err(StoreFailure::HasRoot(directory.path().into()).into());
    }
    Ok(directory.write(&name, root)?)
}

/// Up-to-date metadata, from which targets can be found and fetched.
pub struct Update<'a> {
    directory: &'a Directory,
    fetcher: &'a mut dyn Fetcher,
    trusted: Trusted<'a>,
    now: Now,
}

/// Brings the top-level metadata up to date: steps 5.1 to 5.6.6.
///
/// # Errors
/// When the repository offers nothing that may be trusted, or something on the way fails. What was found good until
/// then is kept.
pub fn refresh<'a>(
    directory: &'a Directory,
    fetcher: &'a mut dyn Fetcher,
    judges: Judges<'a>,
    floors: &mut dyn FloorStore,
) -> Result<Update<'a>, UpdateError> {
    // 5.1: the time is fixed for the whole update.
    let now = judges.clock.now();
    let mut floor = KeptFloor {
        kept: floors.floor()?,
        store: floors,
    };
    let context = Context {
        verifier: judges.verifier,
        now,
        floor: floor.kept,
    };
    let trusted = follow_roots(directory, fetcher, context, &mut floor)?;
    let mut update = Update {
        directory,
        fetcher,
        trusted,
        now,
    };
    update.update_timestamp()?;
    update.update_snapshot()?;
    update.update_targets()?;
    floor.raise(update.trusted.floor())?;
    Ok(update)
}

/// The floor as its store has it: what is there already is not written again, as a TPM's memory wears.
struct KeptFloor<'a> {
    store: &'a mut dyn FloorStore,
    kept: Floor,
}

impl KeptFloor<'_> {
    fn raise(&mut self, floor: Floor) -> Result<(), FloorFailure> {
        if floor != self.kept {
            self.store.keep(&floor)?;
            self.kept = floor;
        }
        Ok(())
    }

    /// As [`KeptFloor::raise`], for a root that was just followed, with the approval that may lie beside it.
    fn raise_root(&mut self, floor: Floor, fetcher: &mut dyn Fetcher) -> Result<(), FloorFailure> {
        if floor == self.kept {
            return Ok(());
        }
        let version = floor.root.map_or(0, |root| root.version);
        let mut approval = || {
            let name = names::approval(version);
            read_metadata(fetcher, &name, "root approval", MAX_APPROVAL_BYTES).map_err(|error| {
                FloorFailure {
                    action: "kept",
                    reason: format!("root version {version} needs the vendor's approval: {error}"),
                }
            })
        };
        self.store.keep_root(&floor, &mut approval)?;
        self.kept = floor;
        Ok(())
    }
}

/// The newest root that was followed, not yet on disk.
struct Followed {
    bytes: Vec<u8>,
    floor: Floor,
    /// A root on the way took a key away (5.3.11).
    forget: bool,
}

impl Followed {
    /// 5.3.8, once for all that were followed: a floor in a TPM may rise once only until the next restart.
    fn persist(
        &self,
        directory: &Directory,
        fetcher: &mut dyn Fetcher,
        floor: &mut KeptFloor<'_>,
    ) -> Result<(), UpdateError> {
        floor.raise_root(self.floor, fetcher)?;
        if self.forget {
            directory.remove(&[names::local("timestamp"), names::local("snapshot")])?;
        }
        Ok(directory.write(&names::local("root"), &self.bytes)?)
    }
}

/// 5.2 and 5.3: from the root at hand to the newest. Where one on the way is refused, those before it are kept.
fn follow_roots<'a>(
    directory: &Directory,
    fetcher: &mut dyn Fetcher,
    context: Context<'a>,
    floor: &mut KeptFloor<'_>,
) -> Result<Trusted<'a>, UpdateError> {
    let name = names::local("root");
    let root = directory
        .read(&name, MAX_ROOT_BYTES)?
        .ok_or_else(|| StoreFailure::NoRoot(directory.path().into()))?;
    let mut chain = RootChain::load(&root, context)?;
    let mut last = None;
    let ended = follow_to_the_end(&mut chain, fetcher, &mut last);
    let persisted = match &last {
        Some(followed) => followed.persist(directory, fetcher, floor),
        None => Ok(()),
    };
    ended.and(persisted)?;
    Ok(chain.finish()?)
}

/// 5.3.9: until there is none, or enough for one update.
fn follow_to_the_end(
    chain: &mut RootChain<'_>,
    fetcher: &mut dyn Fetcher,
    last: &mut Option<Followed>,
) -> Result<(), UpdateError> {
    for _ in 0..MAX_ROOTS_PER_UPDATE {
        let Some(version) = chain.next_version() else {
            break;
        };
        let remote = names::versioned("root", version);
        let bytes = match read_metadata(fetcher, &remote, "root", MAX_ROOT_BYTES) {
            Err(UpdateError::Fetch(FetchFailure::NotFound(_))) => break,
            read => read?,
        };
        let step = chain.follow(&bytes)?;
        let forgot = last.as_ref().is_some_and(|before| before.forget);
        *last = Some(Followed {
            bytes,
            floor: step.floor,
            forget: step.forget || forgot,
        });
    }
    Ok(())
}

impl Update<'_> {
    /// The time at which the update began.
    pub fn started(&self) -> Now {
        self.now
    }

    /// The version of the root.
    pub fn root_version(&self) -> u64 {
        self.trusted.root().common.version
    }

    /// The top-level targets.
    pub fn targets(&self) -> &Targets {
        self.trusted
            .targets()
            .expect("an update is handed out after its targets are trusted")
    }

    /// What trusted metadata say of the target at `path`: 5.6.7, with every role on the way fetched and checked.
    ///
    /// # Errors
    /// When no role that may speak of it does, or a role on the way cannot be trusted.
    pub fn find(&mut self, path: &str) -> Result<Target, UpdateError> {
        if check_target_path(path).is_err() {
            return Err(UpdateError::NoSuchTarget(path.into()));
        }
        let mut search = Search::new(path);
        let mut found = search.start(self.targets())?;
        while found.is_none() {
            let Some(wanted) = search.next()? else {
                return Err(UpdateError::NoSuchTarget(path.into()));
            };
            let targets = self.delegated(&search, &wanted)?;
            found = search.found(&wanted, targets)?;
        }
        found.ok_or_else(|| UpdateError::NoSuchTarget(path.into()))
    }

    /// Fetches a target into a folder, unless it is there (5.7).
    ///
    /// # Errors
    /// When it does not come, or is not what the metadata says; then no file appears.
    pub fn download(&mut self, target: &Target, folder: &Path) -> Result<PathBuf, UpdateError> {
        let folder = TargetFolder::new(folder);
        if !folder.has(target) {
            let name = names::target(target, self.trusted.root().consistent_snapshot);
            folder.fetch(target, &name, self.fetcher)?;
        }
        Ok(folder.file(target))
    }

    /// Copies a target to `sink` (5.7). Nothing of it may be used before this returns without an error.
    ///
    /// # Errors
    /// When it does not come, or is not what the metadata says.
    pub fn copy(&mut self, target: &Target, sink: &mut dyn Write) -> Result<(), UpdateError> {
        let name = names::target(target, self.trusted.root().consistent_snapshot);
        copy_target(self.fetcher, &name, target, sink)
    }

    /// 5.4
    fn update_timestamp(&mut self) -> Result<(), UpdateError> {
        let name = names::local("timestamp");
        if let Some(old) = self.directory.read(&name, MAX_TIMESTAMP_BYTES)? {
            self.trusted.load_timestamp(&old);
        }
        // 5.4.1
        let bytes = read_metadata(self.fetcher, &name, "timestamp", MAX_TIMESTAMP_BYTES)?;
        if self.trusted.update_timestamp(&bytes)? == Change::New {
            // 5.4.5
            self.directory.write(&name, &bytes)?;
        }
        Ok(())
    }

    /// 5.5; the snapshot at hand is taken where it is the one that the timestamp describes.
    fn update_snapshot(&mut self) -> Result<(), UpdateError> {
        let name = names::local("snapshot");
        if let Some(old) = self.directory.read(&name, MAX_SNAPSHOT_BYTES)?
            && self.trusted.load_snapshot(&old)
        {
            return Ok(());
        }
        // 5.5.1
        let meta = self.trusted.snapshot_meta()?.clone();
        let bytes = self.fetch_listed("snapshot", &meta, MAX_SNAPSHOT_BYTES)?;
        self.trusted.update_snapshot(&bytes)?;
        // 5.5.7
        Ok(self.directory.write(&name, &bytes)?)
    }

    /// 5.6.1 to 5.6.6; the targets at hand are taken where they pass the same checks.
    fn update_targets(&mut self) -> Result<(), UpdateError> {
        let name = names::local("targets");
        let meta = self.trusted.targets_meta("targets")?.clone();
        if let Some(old) = self.directory.read(&name, MAX_TARGETS_BYTES)?
            && self.trusted.update_targets(&old).is_ok()
        {
            return Ok(());
        }
        // 5.6.1
        let bytes = self.fetch_listed("targets", &meta, MAX_TARGETS_BYTES)?;
        self.trusted.update_targets(&bytes)?;
        // 5.6.6
        Ok(self.directory.write(&name, &bytes)?)
    }

    /// The steps of 5.6 for a delegated role, whose authority is that of its delegator on this very search: what the
    /// disk holds may have been trusted by way of another.
    fn delegated(&mut self, search: &Search<'_>, wanted: &Wanted) -> Result<Targets, UpdateError> {
        let role = wanted.role.as_str();
        let name = names::local(role);
        let meta = self.trusted.targets_meta(role)?.clone();
        let authority = search.authority(wanted);
        if let Some(old) = self.directory.read(&name, MAX_TARGETS_BYTES)?
            && let Ok(targets) = self.trusted.check_targets(role, &old, authority)
        {
            return Ok(targets);
        }
        let bytes = self.fetch_listed(role, &meta, MAX_TARGETS_BYTES)?;
        let targets = self.trusted.check_targets(role, &bytes, authority)?;
        self.directory.write(&name, &bytes)?;
        Ok(targets)
    }

    /// Fetches a file that other metadata describe, of at most the length listed and `limit`.
    fn fetch_listed(
        &mut self,
        role: &str,
        meta: &FileMeta,
        limit: u64,
    ) -> Result<Vec<u8>, UpdateError> {
        if meta.length.is_some_and(|listed| listed > limit) {
            let file = role.to_owned();
            return Err(Refusal::Oversized { file, limit }.into());
        }
        let limit = meta.length.unwrap_or(limit);
        let name = names::remote(role, meta.version, self.trusted.root());
        read_metadata(self.fetcher, &name, role, limit)
    }
}
