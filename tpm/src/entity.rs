//! What a handle in a command stands for: its number, its name, and how it is authorised. Value.
//!
//! Invariant: the name of a key or index is a digest over its whole public part, so that a proof over the name is a proof
//! over all that it may do (TPM 2.0 Part 1, 16).

use tpm2_protocol::data::{TpmAlgId, TpmRh};

use crate::{crypt, secret::Secret};

/// A key's or index' name: the hash algorithm's number and the digest.
pub type Name = Vec<u8>;

/// The name of what has these public bytes.
#[must_use]
pub(crate) fn name_of(public: &[u8]) -> Name {
    let mut name = TpmAlgId::Sha256.value().to_be_bytes().to_vec();
    name.extend(crypt::sha256(&[public]));
    name
}

/// A key, an index, a hierarchy or a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    pub(crate) handle: u32,
    pub(crate) name: Name,
    pub(crate) auth: Secret,
}

impl Entity {
    /// A key or an index without an authorisation value.
    #[must_use]
    pub fn named(handle: u32, name: Name) -> Entity {
        Entity {
            handle,
            name,
            auth: Secret::default(),
        }
    }

    /// A hierarchy, with its authorisation value.
    #[must_use]
    pub fn hierarchy(hierarchy: TpmRh, auth: Secret) -> Entity {
        Entity {
            auth,
            ..Entity::unnamed(hierarchy.value())
        }
    }

    /// What has no public part goes by its number.
    pub(crate) fn unnamed(handle: u32) -> Entity {
        Entity::named(handle, handle.to_be_bytes().to_vec())
    }

    /// Its number in the TPM.
    #[must_use]
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}
