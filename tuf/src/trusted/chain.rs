//! The chain of roots, each signed by the one before it and by itself: steps 5.2 and 5.3.
//!
//! Invariant: versions rise by one; expiry is asked of the last root alone, so that a device that slept for years still
//! finds its way. A core.

use super::{Trusted, open, refusal};
use crate::envelope::{Envelope, Unproven};
use crate::floor::{Floor, RootPin};
use crate::metadata::{Authority, Metadata, Root, TopRole};
use crate::refusal::Refusal;
use crate::time::Now;
use crate::verify::Verifier;

/// What every step of one update shares.
#[derive(Clone, Copy)]
pub(crate) struct Context<'v> {
    pub(crate) verifier: &'v dyn Verifier,
    /// The fixed update start time (5.1).
    pub(crate) now: Now,
    pub(crate) floor: Floor,
}

impl Context<'_> {
    pub(super) fn open<Role: Metadata>(
        &self,
        file: &str,
        bytes: &[u8],
        authority: Authority<'_>,
    ) -> Result<Role, Refusal> {
        open(file, bytes, authority, self)
    }
}

/// The roots followed so far.
pub(crate) struct RootChain<'v> {
    context: Context<'v>,
    root: Root,
    pin: RootPin,
}

/// A root that was followed, and what is to be done before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Keep this floor first: a store that refuses the root stops the update.
    pub(crate) floor: Floor,
    /// Then delete the trusted timestamp and snapshot (5.3.11).
    pub(crate) forget: bool,
}

impl<'v> RootChain<'v> {
    /// 5.2: the root that came with the device, or the one of the last update. It has to be signed by itself, and where
    /// a root is pinned, to be that one or an earlier one.
    pub(crate) fn load(bytes: &[u8], context: Context<'v>) -> Result<Self, Refusal> {
        let root = self_signed(bytes, context.verifier)?;
        let chain = Self {
            pin: RootPin::of(root.common.version, bytes),
            root,
            context,
        };
        let pinned = context.floor.root;
        match pinned.filter(|pinned| chain.root.common.version > pinned.version) {
            Some(pinned) => Err(chain.unpinned(pinned)),
            None => chain.check_pin().map(|()| chain),
        }
    }

    /// The version of the last root followed.
    pub(crate) fn version(&self) -> u64 {
        self.root.common.version
    }

    /// The version to ask the repository for (5.3.2, 5.3.3); `None` at the end of the number range.
    pub(crate) fn next_version(&self) -> Option<u64> {
        self.root.common.version.checked_add(1)
    }

    /// 5.3.4 to 5.3.7: the next root.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<Step, Refusal> {
        let expected = self.root.common.version.saturating_add(1);
        // 5.3.4: signed by a threshold of the trusted root's keys, and of its own.
        let authority = self.root.authority(TopRole::Root);
        self.context.open::<Root>("root", bytes, authority)?;
        let root = self_signed(bytes, self.context.verifier)?;
        // 5.3.5: exactly the next version.
        super::check_exact("root", expected, root.common.version)?;
        // 5.3.6: its expiry does not matter yet.
        let mut next = Self {
            pin: RootPin::of(root.common.version, bytes),
            root,
            context: self.context,
        };
        next.check_pin()?;
        let forget = next.recover(&self.root);
        // 5.3.7: it is trusted.
        *self = next;
        Ok(Step {
            floor: self.context.floor,
            forget,
        })
    }

    /// 5.3.10 to 5.3.12: the end of the chain.
    pub(crate) fn finish(self) -> Result<Trusted<'v>, Refusal> {
        let found = self.root.common.version;
        if let Some(pinned) = self.context.floor.root
            && found < pinned.version
        {
            return Err(Refusal::BelowFloor {
                file: "root".into(),
                floor: pinned.version,
                found,
            });
        }
        // 5.3.10: a freeze attack.
        let expires = self.root.common.expires;
        if self.context.now.is_past(expires) {
            return Err(Refusal::Expired {
                file: "root".into(),
                expires,
            });
        }
        // 5.3.12: whether snapshots are consistent is read from the root where names are made.
        Ok(Trusted {
            context: self.context,
            root: self.root,
            pin: self.pin,
            timestamp: None,
            old_snapshot: None,
            snapshot: None,
            targets: None,
        })
    }

    /// 5.3.11: a timestamp or snapshot key that was taken away may have signed versions that nobody can exceed. So
    /// what was trusted by it is forgotten, and the floor with it. This is done for each root before it is persisted
    /// rather than at the chain's end: a power cut between the two would forget the forgetting.
    fn recover(&mut self, old: &Root) -> bool {
        let lost = |role| old.has_lost_a_key(role, &self.root);
        let (timestamp, snapshot) = (lost(TopRole::Timestamp), lost(TopRole::Snapshot));
        let floor = &mut self.context.floor;
        if self.pin.version > floor.root.map_or(0, |pinned| pinned.version) {
            floor.root = Some(self.pin);
            if timestamp || snapshot {
                floor.timestamp = 0;
                floor.snapshot = 0;
            }
            if snapshot {
                floor.targets = 0;
            }
        }
        timestamp || snapshot
    }

    /// A root of the pinned version has to be the pinned one.
    fn check_pin(&self) -> Result<(), Refusal> {
        match self.context.floor.root {
            Some(pinned) if pinned.version == self.pin.version && pinned != self.pin => {
                Err(self.unpinned(pinned))
            }
            _ => Ok(()),
        }
    }

    fn unpinned(&self, pinned: RootPin) -> Refusal {
        Refusal::NotThePinnedRoot {
            pinned: pinned.version,
            found: self.pin.version,
        }
    }
}

/// A root that a threshold of its own keys signed. Its content is read before that is known, as nothing else says which
/// keys they are.
fn self_signed(bytes: &[u8], verifier: &dyn Verifier) -> Result<Root, Refusal> {
    let prove = || {
        let envelope = Envelope::parse(bytes).map_err(Unproven::Malformed)?;
        let root = Root::parse(&envelope.signed).map_err(Unproven::Malformed)?;
        envelope.prove(root.authority(TopRole::Root), verifier)?;
        Ok(root)
    };
    prove().map_err(|unproven| refusal("root", unproven))
}
