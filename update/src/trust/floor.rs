//! The floor of release metadata on a device with a TPM: the trusted root in the TPM, the other versions in a file.
//!
//! The other versions are forgotten together with the root that took a key away (5.3.11). So the file is moved in two
//! writes about the TPM's one: what is to hold, the TPM's root, what holds. A power cut after the second is finished at
//! the next look, as the TPM then holds the root of what was to hold.
//!
//! Invariant: the root is the TPM's word, which moves under the vendor's approval alone; a TPM that is behind what was
//! once pinned is not believed. Driver.

use tpm::{Approval, Subject, TrustedRoot};
use tuf::floor::{FileFloor, Floor, FloorFailure, FloorStore, RootPin};

use super::{Hardware, read_approval};

/// Remembers in the TPM, and beside it.
#[derive(Debug)]
pub struct TpmFloor {
    hardware: Hardware,
    file: FileFloor,
    next: FileFloor,
}

impl TpmFloor {
    pub(super) fn new(hardware: Hardware, file: FileFloor, next: FileFloor) -> TpmFloor {
        TpmFloor {
            hardware,
            file,
            next,
        }
    }

    /// What the TPM holds. A provisioned one holds a root from its first day.
    fn pinned(&self) -> Result<RootPin, FloorFailure> {
        let held = self
            .hardware
            .ask(|tpm, _, anchors| tpm.trusted_root(anchors))
            .map_err(|error| failure("read", error))?;
        let held = held.ok_or_else(|| {
            failure(
                "read",
                "the TPM holds no trusted root; run gateway tpm provision with the vendor's approvals",
            )
        })?;
        Ok(RootPin {
            version: held.version,
            sha256: held.digest,
        })
    }

    /// The approval, when it is one of just this root.
    fn approval_of(root: RootPin, bytes: &[u8]) -> Result<Approval, FloorFailure> {
        let approval = read_approval(bytes)
            .map_err(|error| failure("kept", format!("the root's approval is none: {error}")))?;
        let expected = Subject::Root(TrustedRoot {
            version: root.version,
            digest: root.sha256,
        });
        match approval.subject() == &expected {
            true => Ok(approval),
            false => Err(failure(
                "kept",
                format!(
                    "the approval beside root version {} is of other bytes or another version",
                    root.version
                ),
            )),
        }
    }
}

impl FloorStore for TpmFloor {
    fn floor(&mut self) -> Result<Floor, FloorFailure> {
        let pinned = self.pinned()?;
        let mut floor = self.file.floor()?;
        let next = self.next.floor()?;
        if next.root == Some(pinned) && floor.root != next.root {
            self.file.keep(&next)?;
            floor = next;
        }
        if let Some(before) = floor.root
            && before.version > pinned.version
        {
            return Err(failure(
                "read",
                format!(
                    "the TPM holds root version {}, and this device had pinned version {} before: the TPM was cleared or \
                     exchanged, and provisioned again with old approvals",
                    pinned.version, before.version
                ),
            ));
        }
        Ok(Floor {
            root: Some(pinned),
            ..floor
        })
    }

    fn keep(&mut self, floor: &Floor) -> Result<(), FloorFailure> {
        let pinned = self.pinned()?;
        if floor.root != Some(pinned) {
            return Err(failure(
                "kept",
                "the trusted root moves only with the vendor's approval",
            ));
        }
        self.file.keep(floor)
    }

    fn keep_root(
        &mut self,
        floor: &Floor,
        approval: &mut dyn FnMut() -> Result<Vec<u8>, FloorFailure>,
    ) -> Result<(), FloorFailure> {
        let pinned = self.pinned()?;
        let Some(root) = floor.root.filter(|root| *root != pinned) else {
            return self.file.keep(floor);
        };
        let approval = Self::approval_of(root, &approval()?)?;
        self.next.keep(floor)?;
        self.hardware
            .ask(move |tpm, _, anchors| tpm.apply(anchors, &approval))
            .map_err(|error| failure("kept", error))?;
        self.file.keep(floor)
    }
}

fn failure(action: &'static str, reason: impl std::fmt::Display) -> FloorFailure {
    FloorFailure {
        action,
        reason: reason.to_string(),
    }
}
