//! The client workflow's checks, in the specification's order: steps 5.2 to 5.6 of version 1.0.34.
//!
//! Invariant: what is held here passed every check of its step; a refused file changes nothing. Roots come first and
//! the rest after them, by type: [`RootChain::finish`] makes a [`Trusted`]. A core.

mod chain;
pub(crate) use chain::{Context, RootChain};

use crate::envelope::{Envelope, Unproven};
use crate::floor::{Floor, RootPin};
use crate::limits::MAX_VERSION_JUMP;
use crate::metadata::{
    Authority, Common, FileMeta, Metadata, Root, Snapshot, Targets, Timestamp, TopRole,
};
use crate::refusal::Refusal;

/// What came of a new timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is trusted now, and to be persisted.
    New,
    /// The trusted one has the same version: nothing has changed (5.4.3.1).
    None,
}

/// What is trusted once the roots are followed to their end.
pub(crate) struct Trusted<'v> {
    context: Context<'v>,
    root: Root,
    pin: RootPin,
    timestamp: Option<Timestamp>,
    /// That of the last update, to compare with.
    old_snapshot: Option<Snapshot>,
    snapshot: Option<Snapshot>,
    targets: Option<Targets>,
}

impl Trusted<'_> {
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// The top-level targets, once they are trusted.
    pub(crate) fn targets(&self) -> Option<&Targets> {
        self.targets.as_ref()
    }

    /// What the timestamp says of the snapshot's file.
    pub(crate) fn snapshot_meta(&self) -> Result<&FileMeta, Refusal> {
        let timestamp = self.timestamp.as_ref();
        let listed = timestamp.map(|timestamp| &timestamp.snapshot);
        listed.ok_or_else(|| Refusal::NotListed {
            role: "snapshot".into(),
        })
    }

    /// What the snapshot says of a targets role's file.
    pub(crate) fn targets_meta(&self, role: &str) -> Result<&FileMeta, Refusal> {
        let listed = self
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.roles.get(role));
        listed.ok_or_else(|| Refusal::NotListed { role: role.into() })
    }

    /// Takes the timestamp of the last update from disk, for the rollback checks. Its expiry does not matter here; one
    /// that today's keys did not sign is as good as none.
    pub(crate) fn load_timestamp(&mut self, bytes: &[u8]) {
        let opened: Result<Timestamp, _> = self.open("timestamp", bytes, TopRole::Timestamp);
        self.timestamp = opened
            .ok()
            .filter(|timestamp| timestamp.common.version >= self.context.floor.timestamp);
    }

    /// 5.4.2 to 5.4.4: a timestamp from the repository.
    pub(crate) fn update_timestamp(&mut self, bytes: &[u8]) -> Result<Change, Refusal> {
        const FILE: &str = "timestamp";
        // 5.4.2: an arbitrary software attack.
        let new: Timestamp = self.open(FILE, bytes, TopRole::Timestamp)?;
        // 5.4.3.1: a rollback of the timestamp.
        let trusted = self.timestamp.as_ref();
        if let Some(trusted) = trusted.filter(|old| old.common.version == new.common.version) {
            self.check_time(FILE, &trusted.common)?;
            return Ok(Change::None);
        }
        let floor = self.context.floor;
        let old = trusted.map(|old| old.common.version);
        check_rise(FILE, old, floor.timestamp, new.common.version)?;
        // 5.4.3.2: a rollback of the snapshot.
        let old = trusted.map(|old| old.snapshot.version);
        check_rise("snapshot", old, floor.snapshot, new.snapshot.version)?;
        // 5.4.4: a freeze attack.
        self.check_time(FILE, &new.common)?;
        self.timestamp = Some(new);
        Ok(Change::New)
    }

    /// Takes the snapshot of the last update from disk, for the rollback checks, and says whether it is the very one
    /// that the timestamp describes, so that none need be fetched.
    pub(crate) fn load_snapshot(&mut self, bytes: &[u8]) -> bool {
        let Ok(snapshot) = self.open::<Snapshot>("snapshot", bytes, TopRole::Snapshot) else {
            return false;
        };
        let is_current = self.snapshot_meta().is_ok_and(|meta| {
            check_file("snapshot", bytes, meta).is_ok()
                && check_exact("snapshot", meta.version, snapshot.common.version).is_ok()
        });
        let is_fresh = self.check_time("snapshot", &snapshot.common).is_ok();
        let is_wanted = is_current && is_fresh;
        let place = if is_wanted {
            &mut self.snapshot
        } else {
            &mut self.old_snapshot
        };
        *place = Some(snapshot);
        is_wanted
    }

    /// 5.5.2 to 5.5.6: a snapshot from the repository.
    pub(crate) fn update_snapshot(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        const FILE: &str = "snapshot";
        let meta = self.snapshot_meta()?;
        // 5.5.2: length and hashes as the timestamp says.
        check_file(FILE, bytes, meta)?;
        // 5.5.3: an arbitrary software attack.
        let new: Snapshot = self.open(FILE, bytes, TopRole::Snapshot)?;
        // 5.5.4: the version as the timestamp says.
        check_exact(FILE, meta.version, new.common.version)?;
        // 5.5.5: a rollback of targets metadata, each by itself.
        self.check_listed_roles(&new)?;
        // 5.5.6: a freeze attack.
        self.check_time(FILE, &new.common)?;
        self.snapshot = Some(new);
        Ok(())
    }

    /// 5.5.5: no role's version falls, and none that was listed vanishes.
    fn check_listed_roles(&self, new: &Snapshot) -> Result<(), Refusal> {
        let old = self.old_snapshot.as_ref().map(|old| &old.roles);
        for role in old.into_iter().flat_map(|roles| roles.keys()) {
            if !new.roles.contains_key(role) {
                return Err(Refusal::RoleRemoved { role: role.clone() });
            }
        }
        for (role, meta) in &new.roles {
            let trusted = old.and_then(|roles| roles.get(role)).map(|old| old.version);
            let floor = match role.as_str() {
                "targets" => self.context.floor.targets,
                _ => 0,
            };
            check_rise(role, trusted, floor, meta.version)?;
        }
        Ok(())
    }

    /// 5.6.2 to 5.6.5 for the top-level targets, from disk or the repository.
    pub(crate) fn update_targets(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let authority = self.root.authority(TopRole::Targets);
        self.targets = Some(self.check_targets("targets", bytes, authority)?);
        Ok(())
    }

    /// 5.6.2 to 5.6.5 for any targets role, by the authority of the one that delegates to it.
    pub(crate) fn check_targets(
        &self,
        role: &str,
        bytes: &[u8],
        authority: Authority<'_>,
    ) -> Result<Targets, Refusal> {
        let meta = self.targets_meta(role)?;
        // 5.6.2: length and hashes as the snapshot says.
        check_file(role, bytes, meta)?;
        // 5.6.3: an arbitrary software attack.
        let new: Targets = self.context.open(role, bytes, authority)?;
        // 5.6.4: the version as the snapshot says.
        check_exact(role, meta.version, new.common.version)?;
        // 5.6.5: a freeze attack.
        self.check_time(role, &new.common)?;
        Ok(new)
    }

    /// The floor that follows from what is trusted.
    pub(crate) fn floor(&self) -> Floor {
        let version = |common: Option<&Common>| common.map_or(0, |common| common.version);
        let floor = self.context.floor;
        Floor {
            root: Some(self.pin),
            timestamp: version(self.timestamp.as_ref().map(|it| &it.common)).max(floor.timestamp),
            snapshot: version(self.snapshot.as_ref().map(|it| &it.common)).max(floor.snapshot),
            targets: version(self.targets.as_ref().map(|it| &it.common)).max(floor.targets),
        }
    }

    fn open<Role: Metadata>(
        &self,
        file: &str,
        bytes: &[u8],
        role: TopRole,
    ) -> Result<Role, Refusal> {
        self.context.open(file, bytes, self.root.authority(role))
    }

    /// Not expired, and not for ever: both by the fixed update start time.
    fn check_time(&self, file: &str, common: &Common) -> Result<(), Refusal> {
        let expires = common.expires;
        if self.context.now.is_past(expires) {
            return Err(Refusal::Expired {
                file: file.into(),
                expires,
            });
        }
        if self.context.now.is_far_before(expires) {
            return Err(Refusal::FarFuture {
                file: file.into(),
                expires,
            });
        }
        Ok(())
    }
}

/// A version may rise, by so much at once, and never fall.
fn check_rise(file: &str, trusted: Option<u64>, floor: u64, found: u64) -> Result<(), Refusal> {
    let file = || file.to_owned();
    if let Some(trusted) = trusted.filter(|trusted| found < *trusted) {
        return Err(Refusal::Rollback {
            file: file(),
            trusted,
            found,
        });
    }
    if found < floor {
        return Err(Refusal::BelowFloor {
            file: file(),
            floor,
            found,
        });
    }
    let trusted = trusted.unwrap_or(0).max(floor);
    if found - trusted > MAX_VERSION_JUMP {
        return Err(Refusal::VersionJump {
            file: file(),
            trusted,
            found,
        });
    }
    Ok(())
}

fn check_exact(file: &str, expected: u64, found: u64) -> Result<(), Refusal> {
    if expected == found {
        return Ok(());
    }
    Err(Refusal::WrongVersion {
        file: file.into(),
        expected,
        found,
    })
}

/// Length and hashes, where they are listed.
fn check_file(file: &str, bytes: &[u8], meta: &FileMeta) -> Result<(), Refusal> {
    let found = bytes.len() as u64;
    if let Some(expected) = meta.length.filter(|expected| *expected != found) {
        return Err(Refusal::WrongLength {
            file: file.into(),
            expected,
            found,
        });
    }
    match &meta.hashes {
        Some(hashes) if !hashes.match_bytes(bytes) => Err(Refusal::WrongHash { file: file.into() }),
        _ => Ok(()),
    }
}

/// Reads and proves a file.
fn open<Role: Metadata>(
    file: &str,
    bytes: &[u8],
    authority: Authority<'_>,
    context: &Context<'_>,
) -> Result<Role, Refusal> {
    Envelope::parse(bytes)
        .map_err(Unproven::Malformed)
        .and_then(|envelope| envelope.open(authority, context.verifier))
        .map_err(|unproven| refusal(file, unproven))
}

fn refusal(file: &str, unproven: Unproven) -> Refusal {
    let file = file.to_owned();
    match unproven {
        Unproven::Malformed(reason) => Refusal::Malformed { file, reason },
        Unproven::TooFew {
            genuine,
            threshold,
            unjudged,
        } => Refusal::TooFewSignatures {
            file,
            genuine,
            threshold,
            unjudged,
        },
        Unproven::NoVerdict(reason) => Refusal::NoVerdict { file, reason },
    }
}
