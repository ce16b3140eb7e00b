//! What this system remembers about the releases in its slots. Values.
//!
//! The boot loader knows which slot starts; only this knows what is in it, and whether that was
//! ever verified. It lives on the data partition, which no release replaces: [mod@file].
//!
//! Invariant: a slot is [`Content::Written`] only after all of it was read back and verified.

use serde::{Deserialize, Serialize};

use super::slots::Slot;

pub mod file;

/// A release, as it is named wherever it is spoken of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its version, as its maker wrote it.
    pub version: String,
    /// Its security epoch: a release below the device's floor is not installed any more.
    pub epoch: u64,
    /// The Merkle root of its image, in hexadecimal; what tells two builds of a version apart.
    pub root: String,
}

/// What is in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", deny_unknown_fields)]
pub enum Content {
    /// Nothing that was ever verified.
    Empty,
    /// A part of a release.
    Writing {
        /// Which.
        release: Release,
    },
    /// A whole release that never ran.
    Written {
        /// Which.
        release: Release,
    },
    /// A release that is started to see whether it is healthy.
    Trying {
        /// Which.
        release: Release,
    },
    /// A release that was healthy.
    Good {
        /// Which.
        release: Release,
    },
    /// A release that was not.
    Bad {
        /// Which.
        release: Release,
        /// Why, for whoever asks.
        reason: String,
    },
}

impl Content {
    /// The release that is there, whole or in part.
    pub fn release(&self) -> Option<&Release> {
        match self {
            Content::Empty => None,
            Content::Writing { release }
            | Content::Written { release }
            | Content::Trying { release }
            | Content::Good { release }
            | Content::Bad { release, .. } => Some(release),
        }
    }
}

/// Both slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// What is in slot A.
    pub a: Content,
    /// What is in slot B.
    pub b: Content,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal {
            a: Content::Empty,
            b: Content::Empty,
        }
    }
}

impl Journal {
    /// What is in a slot.
    pub fn of(&self, slot: Slot) -> &Content {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    /// The same with another content of a slot.
    #[must_use]
    pub fn with(&self, slot: Slot, content: Content) -> Journal {
        let mut next = self.clone();
        match slot {
            Slot::A => next.a = content,
            Slot::B => next.b = content,
        }
        next
    }
}
